//! Whole runs at toy size: resumed = uninterrupted, frozen parts stay, folders are protected.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use crate::common::{
    ADVERSARIAL, Hooked, Reports, changed, data, generator_recipe, home, stage_one,
    stage_one_recipe, stage_two_recipe, token_cache,
};
use burn::tensor::Device;
use files::TensorMap;
use files::safetensors;
use model::Model;
use pipeline::cache::{BuildOptions, Views, build};
use token_cache::{Shard, TokenCache};
use training::{
    TrainingError,
    guard::Trouble,
    plan::Plan,
    recipe::{self, GeneratorRecipe, Recipe, StageOneRecipe, StageTwoRecipe},
    run::{Begin, Trainer, run},
    telemetry::{BadPicture, Observer, Report},
    trainers::{GeneratorTrainer, StageOne, StageTwo},
};

pub(crate) fn model_tensors(folder: &Path, file: &str) -> TensorMap {
    safetensors::read(folder.join("model").join(file)).unwrap()
}

/// The loss of each step that was reported last.
fn losses(reports: &Reports) -> BTreeMap<u64, f64> {
    reports.all.iter().map(|report| (report.step, report.measures[0].1)).collect()
}

/// The steps of the events in a TensorBoard file, which begin at byte 9 of a record's data; the
/// first record says the format alone.
fn tagged(bytes: &[u8]) -> Vec<u64> {
    let (mut rest, mut steps) = (bytes, Vec::new());
    while let Some((length, _)) = rest.split_first_chunk() {
        let (record, after) = rest.split_at(16 + u64::from_le_bytes(*length) as usize);
        steps.push(u64::from(record[12 + 10]));
        rest = after;
    }
    steps.split_off(1)
}

/// Runs a training through, and another that is killed after three steps and resumed; both must
/// log the same losses and leave the same bits.
pub(crate) fn check_resume<T: Trainer, R: Recipe>(
    recipe: &R,
    file: &str,
    make: impl Fn() -> T,
) -> (tempfile::TempDir, BTreeMap<u64, f64>) {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut reports = Reports::default();
    run(make(), recipe, whole.path(), Begin::New, &mut reports).unwrap();

    // Ends as a killed process does: without a word.
    let killed = Hooked::new(make(), |trainer: &mut T, step| match step.number {
        3 => Err(TrainingError::Data("killed".into())),
        _ => trainer.step(step),
    });
    let mut broken_reports = Reports::default();
    assert!(run(killed, recipe, broken.path(), Begin::New, &mut broken_reports).is_err());
    run(make(), recipe, broken.path(), Begin::Resume, &mut broken_reports).unwrap();
    assert_eq!(losses(&broken_reports), losses(&reports));
    assert_eq!(model_tensors(broken.path(), file), model_tensors(whole.path(), file));
    // Moments, averages and discriminators included.
    let last = |folder: &Path| {
        let path = folder.join("checkpoints/step-00000004.safetensors");
        (safetensors::read(&path).unwrap(), safetensors::read_metadata(&path).unwrap())
    };
    assert_eq!(last(broken.path()), last(whole.path()));

    let steps = |folder: &Path| -> Vec<u64> {
        let log = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
        log.lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["step"].as_u64().unwrap()
            })
            .collect()
    };
    assert_eq!(steps(broken.path()), [1, 2, 3, 4]);
    for step in [2, 4] {
        let pictures = |folder: &Path| {
            std::fs::read(folder.join(format!("samples/step-{step:08}.png"))).unwrap()
        };
        assert_eq!(pictures(broken.path()), pictures(whole.path()));
    }
    // Events of steps 1 to 4, and of the two pictures; one file for each start.
    let events = |folder: &Path, begun: u64| {
        let path = folder.join(format!("events.out.tfevents.{begun:010}.alitok"));
        tagged(&std::fs::read(path).unwrap())
    };
    assert_eq!(events(whole.path(), 0), [1, 2, 2, 3, 4, 4]);
    assert_eq!(events(broken.path(), 0), [1, 2, 2]);
    assert_eq!(events(broken.path(), 2), [3, 4, 4]);
    let checkpoints =
        |folder: &Path| std::fs::read_dir(folder.join("checkpoints")).unwrap().count();
    assert_eq!(checkpoints(whole.path()), 2);
    assert_eq!(checkpoints(broken.path()), 2);
    (whole, losses(&reports))
}

#[test]
fn should_train_all_stages_and_resume_each_to_the_same_bits() {
    let device = Device::flex();
    let mut first = stage_one_recipe(4);
    first.schedule.accumulate = 2;
    first.schedule.ema_decay = Some(0.5);
    first.schedule.guard.spike = Some(1e3);
    let (stage_one, losses) = check_resume(&first, "tokenizer.safetensors", || {
        StageOne::new(first.clone(), data(), &home(), &device).unwrap()
    });
    assert!(losses[&4] < losses[&1], "the loss falls: {losses:?}");

    let model = Model::read(stage_one.path().join("model")).unwrap();
    let second = stage_two_recipe();
    let (stage_two, _) = check_resume(&second, "tokenizer.safetensors", || {
        let first_stage = model.tokenizer(&device).unwrap();
        StageTwo::new(second.clone(), first_stage, data(), &home(), &device).unwrap()
    });
    // What the second stage must not touch has the bits of the first; the decoder is new.
    let before = model_tensors(stage_one.path(), "tokenizer.safetensors");
    let after = model_tensors(stage_two.path(), "tokenizer.safetensors");
    for (name, tensor) in &before {
        assert_eq!(&after[name], tensor, "{name}");
    }
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(!new.is_empty() && new.iter().all(|n| n.starts_with("bidirectional_decoder.")));

    let model = Model::read(stage_two.path().join("model")).unwrap();
    let encoder = model.tokenizer(&device).unwrap().frozen_encoder();
    let cache = tempfile::tempdir().unwrap();
    let data = data();
    let encode = |picture: &pixels::Picture| Ok(encoder.encode_picture(picture.to_unit_planes()));
    let options = BuildOptions { views: Views::Center, shard: Shard::WHOLE, strict: true };
    build(&data, &model, encode, cache.path(), options, |_, _| ControlFlow::Continue(())).unwrap();
    let tokens = TokenCache::open(cache.path()).unwrap();
    assert_eq!(tokens.len(), 10);
    let picture = data.picture(7).unwrap();
    let record = tokens.record(7, 0).unwrap();
    assert_eq!(record.label, 1);
    let stored: Vec<_> = record.tokens().collect();
    assert_eq!(stored, encoder.encode_picture(picture.to_unit_planes()));

    let third = generator_recipe();
    let (generator, losses) = check_resume(&third, "generator.safetensors", || {
        GeneratorTrainer::new(third.clone(), cache.path(), &device).unwrap()
    });
    // A zero output layer predicts every code alike.
    assert!((losses[&1] - f64::ln(16.0)).abs() < 1e-5, "{losses:?}");
    let model = Model::read(generator.path().join("model")).unwrap();
    assert_eq!(model.config.sampling, third.sampling);
    assert_eq!(model.classes.iter().collect::<Vec<_>>(), ["even", "odd"]);
}

#[test]
fn should_resume_a_discriminator_and_all_that_goes_with_it_to_the_same_bits() {
    let device = Device::flex();
    let first = changed(&stage_one_recipe(4), &ADVERSARIAL);
    let (stage_one, _) = check_resume(&first, "tokenizer.safetensors", || {
        StageOne::new(first.clone(), data(), &home(), &device).unwrap()
    });
    let model = Model::read(stage_one.path().join("model")).unwrap();
    let second = changed(&stage_two_recipe(), &ADVERSARIAL);
    let (stage_two, _) = check_resume(&second, "tokenizer.safetensors", || {
        let first_stage = model.tokenizer(&device).unwrap();
        StageTwo::new(second.clone(), first_stage, data(), &home(), &device).unwrap()
    });
    let before = model_tensors(stage_one.path(), "tokenizer.safetensors");
    let after = model_tensors(stage_two.path(), "tokenizer.safetensors");
    for (name, tensor) in &before {
        assert_eq!(&after[name], tensor, "{name}");
    }
    assert!(after.keys().all(|name| !name.contains("discriminator")));
}

#[test]
fn should_neither_overwrite_a_run_nor_resume_another() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = stage_one_recipe(2);
    let make = |recipe: &StageOneRecipe| {
        StageOne::new(recipe.clone(), data(), &home(), &Device::flex()).unwrap()
    };
    let mut observer = Reports::default();
    run(make(&recipe), &recipe, folder.path(), Begin::New, &mut observer).unwrap();
    let again = run(make(&recipe), &recipe, folder.path(), Begin::New, &mut observer);
    assert!(matches!(again, Err(TrainingError::RunExists(_))));
    let kept = folder.path().join("recipe.toml");
    let text = std::fs::read(&kept).unwrap();
    std::fs::remove_file(&kept).unwrap();
    let lost = run(make(&recipe), &recipe, folder.path(), Begin::Resume, &mut observer);
    assert!(matches!(lost, Err(TrainingError::NoRecipe(_))));
    std::fs::write(&kept, text).unwrap();
    let other = stage_one_recipe(3);
    let resumed = run(make(&other), &other, folder.path(), Begin::Resume, &mut observer);
    let Err(TrainingError::RecipeChanged { key, .. }) = resumed else {
        panic!("another recipe was accepted");
    };
    assert_eq!(key, "steps");
}

/// Wants the run to stop once a step is done.
struct Stopping {
    reports: Reports,
    after: u64,
    done: u64,
    plans: Vec<Plan>,
    warnings: Vec<String>,
}

impl Stopping {
    fn after(after: u64) -> Self {
        let (reports, plans, warnings) = (Reports::default(), Vec::new(), Vec::new());
        Self { reports, after, done: 0, plans, warnings }
    }
}

impl Observer for Stopping {
    fn planned(&mut self, plan: &Plan) {
        self.plans.push(plan.clone());
    }
    fn warned(&mut self, warning: &str) {
        self.warnings.push(warning.to_owned());
    }
    fn wants_to_stop(&self) -> bool {
        self.done >= self.after
    }
    fn started(&mut self, _step: u64, _steps: u64) {}
    fn stepped(&mut self, step: u64) {
        self.done = step;
    }
    fn reported(&mut self, report: &Report) {
        self.reports.reported(report);
    }
    fn saved(&mut self, _checkpoint: &Path) {}
    fn sampled(&mut self, _pictures: &Path) {}
    fn went_back(&mut self, _trouble: &Trouble, _step: u64) {}
    fn found_bad(&mut self, _bad: &BadPicture) {}
}

#[test]
fn should_save_when_asked_to_stop_and_go_on_to_the_same_bits_and_the_same_log() {
    let recipe = changed(&stage_one_recipe(8), &["log_every=4", "checkpoint_every=8"]);
    let whole = tempfile::tempdir().unwrap();
    let mut reports = Reports::default();
    run(stage_one(&recipe), &recipe, whole.path(), Begin::New, &mut reports).unwrap();
    let of_log = |folder: &Path| {
        let log = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
        log.lines()
            .map(|line| {
                let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                // What the clock says.
                for key in ["seconds", "steps_per_second"] {
                    assert!(line.as_object_mut().unwrap().remove(key).is_some(), "{key}");
                }
                line.to_string()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(of_log(whole.path()).len(), 2);
    // In the middle of a line of the log, and at its end.
    for after in [3, 4] {
        let broken = tempfile::tempdir().unwrap();
        let mut stopping = Stopping::after(after);
        let stopped = run(stage_one(&recipe), &recipe, broken.path(), Begin::New, &mut stopping);
        let Err(TrainingError::Interrupted { step, steps, saved }) = stopped else {
            panic!("the run was not interrupted")
        };
        assert_eq!((step, steps, saved), (after, 8, true));
        let path = broken.path().join(format!("checkpoints/step-{after:08}.safetensors"));
        assert!(path.is_file());
        run(stage_one(&recipe), &recipe, broken.path(), Begin::Resume, &mut ()).unwrap();
        let file = "tokenizer.safetensors";
        assert_eq!(model_tensors(broken.path(), file), model_tensors(whole.path(), file));
        assert_eq!(of_log(broken.path()), of_log(whole.path()), "stopped after {after}");
    }
}

#[test]
fn should_say_what_it_is_about_to_do_and_warn_of_what_is_hardly_meant() {
    let told = |recipe: &StageOneRecipe| {
        let folder = tempfile::tempdir().unwrap();
        let mut stopping = Stopping::after(1);
        let stopped = run(stage_one(recipe), recipe, folder.path(), Begin::New, &mut stopping);
        assert!(matches!(stopped, Err(TrainingError::Interrupted { step: 1, .. })));
        stopping
    };
    let recipe = stage_one_recipe(50);
    let Stopping { plans, warnings, .. } = told(&recipe);
    let [plan] = &plans[..] else { panic!("told once") };
    let pictures = data().len();
    assert_eq!((plan.scope.pictures, plan.scope.classes), (pictures, data().classes().len()));
    assert_eq!((plan.steps, plan.batch, plan.done), (50, recipe.schedule.batch, 0));
    assert_eq!(plan.epochs, (50 * recipe.schedule.batch) as f64 / pictures as f64);
    assert!(plan.state < plan.memory && plan.state == 16 * plan.scope.parameters as u64);
    assert_eq!(warnings, Vec::<String>::new());

    let late = changed(&recipe, &["warmup_steps=50"]);
    assert!(told(&late).warnings[0].contains("rises for 50"));
    let still = changed(&recipe, &["learning_rate=0", "final_learning_rate=0"]);
    assert!(told(&still).warnings[0].contains("nothing is learned"));
    let large = changed(&recipe, &["architecture.codes=4096"]);
    assert!(told(&large).warnings[0].contains("4096 codes"));
}

#[test]
fn should_let_a_run_have_more_steps_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (short, long) = (stage_one_recipe(2), stage_one_recipe(4));
    run(stage_one(&short), &short, folder.path(), Begin::New, &mut ()).unwrap();
    let refused = run(stage_one(&long), &long, folder.path(), Begin::Resume, &mut ());
    assert!(refused.unwrap_err().to_string().contains("--extend"));
    let other = changed(&long, &["seed=99"]);
    let refused = run(stage_one(&other), &other, folder.path(), Begin::Extend, &mut ());
    assert!(matches!(refused, Err(TrainingError::RecipeChanged { key, .. }) if key == "seed"));
    run(stage_one(&long), &long, folder.path(), Begin::Extend, &mut ()).unwrap();
    assert!(folder.path().join("checkpoints/step-00000004.safetensors").is_file());
    // From now on it is a run of four steps.
    run(stage_one(&long), &long, folder.path(), Begin::Resume, &mut ()).unwrap();
}

#[test]
fn should_hold_the_same_pictures_out_of_a_data_set_and_of_its_cache() {
    let recipe = changed(&stage_one_recipe(2), &["checkpoint_every=1", "evaluate_every=1"]);
    let cache = token_cache(Views::Mirrored);
    let generator = generator_recipe();
    let tokenizer = || stage_one(&recipe).hold_out(0.3).unwrap();
    let scope = tokenizer().scope();
    let whole = data().len();
    let held_out: Vec<String> = (0..whole)
        .map(|index| data().name(index).to_owned())
        .filter(|name| pixels::data::is_held_out(name, 0.3))
        .collect();
    assert!(!held_out.is_empty() && held_out.len() < whole);
    assert_eq!((scope.pictures, scope.heldout), (whole, Some(held_out.len())));
    assert_eq!(scope.learned, whole - held_out.len());

    let device = Device::flex();
    let of_cache = GeneratorTrainer::new(generator.clone(), cache.path(), &device).unwrap();
    let of_cache = of_cache.hold_out(0.3).unwrap().scope();
    assert_eq!((of_cache.learned, of_cache.heldout), (scope.learned, scope.heldout));

    let folder = tempfile::tempdir().unwrap();
    let mut reports = Reports::default();
    run(tokenizer(), &recipe, folder.path(), Begin::New, &mut reports).unwrap();
    let last = &reports.all[1];
    assert!(last.measures.iter().any(|(name, loss)| *name == "heldout_loss" && *loss > 0.0));
    assert_eq!(last.epoch, last.samples as f64 / scope.learned as f64);
    assert!(stage_one(&recipe).hold_out(0.0).is_err());
}

#[test]
fn should_plan_and_time_a_run_without_writing_anything() {
    let recipe = stage_one_recipe(4);
    let trainer = stage_one(&recipe);
    let plan = training::run::plan(&trainer, &recipe).unwrap();
    assert_eq!(plan.scope.pictures, data().len());
    let seconds = training::run::time_steps(trainer, &recipe, 2, 60.0).unwrap();
    assert!(seconds > 0.0 && seconds < 60.0);
    let evaluating = changed(&recipe, &["evaluate_every=2"]);
    let refused = training::run::plan(&stage_one(&evaluating), &evaluating);
    assert!(matches!(refused, Err(TrainingError::NoHeldout)));
}

#[test]
fn should_refuse_recipes_that_say_what_nobody_understands() {
    let read = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.into()).collect();
        recipe::read::<StageOneRecipe>("mini", &overrides).map_err(|error| error.to_string())
    };
    assert_eq!(read(&["steps=7", "optimizer.clip=2"]).unwrap().schedule.steps, 7);
    assert!(read(&["step=7"]).unwrap_err().contains("did you mean `steps`"));
    assert!(read(&["optimizer.beta1=0.5"]).unwrap_err().contains("did you mean `beta_1`"));
    assert!(read(&["ema_decoy=0.5"]).unwrap_err().contains("no setting is called `ema_decoy`"));
    assert!(read(&["steps"]).unwrap_err().contains("key=value"));
    for (setting, key) in [
        ("steps=0", "`steps`"),
        ("batch=0", "`batch`"),
        ("checkpoint_every=30", "`checkpoint_every`"),
        ("optimizer.clip=-1", "`optimizer.clip`"),
        ("optimizer.beta_1=1", "`optimizer.beta_1`"),
        ("clustering.decay=1", "`clustering.decay`"),
        ("loss.auxiliary=-1", "`loss`"),
        ("accumulate=3", "`accumulate`"),
        ("evaluate_every=251", "`evaluate_every`"),
        ("keep_best=true", "`keep_best`"),
        ("ema_decay=1", "`ema_decay`"),
        ("guard.spike=0", "`guard.spike`"),
        ("alarms.usage=2", "`alarms`"),
        ("phases=[{from=2},{from=1}]", "`phases`"),
        ("phases=[{from=9000}]", "`phases`"),
        ("phases=[{from=0,adversarial=-1}]", "`phases`"),
        ("phases=[{from=0,warmup_steps=5}]", "`phases`"),
        ("phases=[{from=0,adversarial=0.1}]", "`discriminator`"),
        ("phases=[{form=0}]", "did you mean `from`"),
        ("phases=[{from=0,perceptual=[{network='vgg',weight=1}]}]", "`lpips_vgg`"),
    ] {
        assert!(read(&[setting]).unwrap_err().contains(key), "{setting}");
    }
    let patch_gan = |rest: &str| {
        let settings = "architecture={patch_gan={channels=8,layers=3}},learning_rate=1e-4";
        format!("discriminator={{{settings},{rest}}}")
    };
    let adversarial = "phases=[{from=10,adversarial=0.1}]";
    assert!(read(&[adversarial, &patch_gan("start=10,every=2")]).is_ok());
    for (setting, key) in [
        (patch_gan("start=11,every=2"), "`discriminator.start`"),
        (patch_gan("start=10,every=0"), "`discriminator.every`"),
        (patch_gan("start=10,every=2,lecam=-1"), "`discriminator.lecam`"),
    ] {
        assert!(read(&[adversarial, &setting]).unwrap_err().contains(key), "{setting}");
    }
    let pieces = read(&[adversarial, &patch_gan("start=10,every=2"), "accumulate=2"]);
    assert!(pieces.unwrap_err().contains("PatchGAN"));
    assert!(read(&["learning_rate=fast"]).is_err());
    let unknown = recipe::read::<StageOneRecipe>("minni", &[]).unwrap_err().to_string();
    assert!(unknown.contains("mini"), "{unknown}");
}

#[test]
fn should_train_the_bundled_model_in_its_own_architecture() {
    let first: StageOneRecipe = recipe::read("mini-4096", &[]).unwrap();
    let second: StageTwoRecipe = recipe::read("mini-4096", &[]).unwrap();
    let mut config = first.architecture;
    config.bidirectional_decoder = Some(second.decoder);
    assert_eq!(config, tokenizer::presets::mini());
    let third: GeneratorRecipe = recipe::read("mini-4096", &[]).unwrap();
    let preset = generator::presets::mini(config.layout(), config.codes, 9);
    let size = (third.architecture.width, third.architecture.layers, third.architecture.heads);
    assert_eq!(size, (preset.width, preset.layers, preset.heads));
}
