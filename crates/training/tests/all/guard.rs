//! What a run does besides steps: going back after trouble, keeping the best, averaging, locking.

use std::{fs, path::Path};

use crate::common::{
    Hooked, Reports, data, generator_recipe, stage_one, stage_one_recipe, token_cache,
};
use burn::tensor::Device;
use files::TensorMap;
use files::safetensors;
use pipeline::cache::Views;
use serde_json::Value;
use training::{
    TrainingError,
    run::{Begin, Step, Trainer, run},
    telemetry::{Measures, Report},
    trainers::{GeneratorTrainer, StageOne},
};

fn log(folder: &Path) -> Vec<Value> {
    let log = fs::read_to_string(folder.join("log.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn exported(folder: &Path) -> TensorMap {
    safetensors::read(folder.join("tokenizer.safetensors")).unwrap()
}

fn checkpoint(folder: &Path, step: u64) -> TensorMap {
    let name = format!("checkpoints/step-{step:08}.safetensors");
    safetensors::read(folder.join(name)).unwrap()
}

/// The tensors of a section, by the rest of their names.
fn section(tensors: &TensorMap, prefix: &str) -> TensorMap {
    let rest = |name: &str| name.strip_prefix(prefix).map(str::to_owned);
    tensors.iter().filter_map(|(name, tensor)| Some((rest(name)?, tensor.clone()))).collect()
}

fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("checkpoints")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Measures that are no numbers at one address, whatever the trainer does there.
fn poisoned(trainer: &mut StageOne, step: Step) -> Result<Measures, TrainingError> {
    let mut measures = trainer.step(step)?;
    if step.address == 3 {
        measures[0].1 = f64::NAN;
    }
    Ok(measures)
}

#[test]
fn should_go_back_to_the_last_checkpoint_and_on_with_other_data() {
    let recipe = stage_one_recipe(6);
    let whole = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let trainer = Hooked::new(stage_one(&recipe), |trainer: &mut StageOne, step| {
        seen.push((step.number, step.address));
        poisoned(trainer, step)
    });
    run(trainer, &recipe, whole.path(), Begin::New, &mut Reports::default()).unwrap();
    // Step 3 fails; the checkpoint of two steps is the last good one.
    assert_eq!(seen, [(0, 0), (1, 1), (2, 2), (3, 3), (2, 4), (3, 5), (4, 6), (5, 7)]);
    let lines = log(whole.path());
    let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 4, 3, 4, 5, 6]);
    assert_eq!(lines[2]["went_back_to"], 2);
    assert_eq!(lines[2]["because"], "loss is NaN at step 4");

    // Killed after it went back, and resumed from before that: the same again.
    let killed = tempfile::tempdir().unwrap();
    let trainer = Hooked::new(stage_one(&recipe), |trainer: &mut StageOne, step| {
        if step.address == 5 {
            return Err(TrainingError::Data("killed".into()));
        }
        poisoned(trainer, step)
    });
    assert!(run(trainer, &recipe, killed.path(), Begin::New, &mut Reports::default()).is_err());
    let trainer = Hooked::new(stage_one(&recipe), poisoned);
    run(trainer, &recipe, killed.path(), Begin::Resume, &mut Reports::default()).unwrap();
    assert_eq!(checkpoint(killed.path(), 6), checkpoint(whole.path(), 6));
    assert_eq!(log(killed.path()).len(), lines.len());

    // Resumed from after it: still with other data.
    let mut more = recipe.clone();
    more.schedule.checkpoint_every = 2;
    let later = tempfile::tempdir().unwrap();
    let trainer = Hooked::new(stage_one(&more), |trainer: &mut StageOne, step| {
        if step.address == 7 {
            return Err(TrainingError::Data("killed".into()));
        }
        poisoned(trainer, step)
    });
    assert!(run(trainer, &more, later.path(), Begin::New, &mut Reports::default()).is_err());
    let trainer = Hooked::new(stage_one(&more), poisoned);
    run(trainer, &more, later.path(), Begin::Resume, &mut Reports::default()).unwrap();
    assert_eq!(checkpoint(later.path(), 6), checkpoint(whole.path(), 6));
}

#[test]
fn should_give_up_after_as_many_times_as_the_recipe_says() {
    for allowed in [0, 2] {
        let mut recipe = stage_one_recipe(6);
        recipe.schedule.guard.rollbacks = allowed;
        let folder = tempfile::tempdir().unwrap();
        let trainer = Hooked::new(stage_one(&recipe), |trainer: &mut StageOne, step| {
            let mut measures = trainer.step(step)?;
            measures[1].1 = if step.number == 2 { f64::INFINITY } else { 1.0 };
            Ok(measures)
        });
        let ended = run(trainer, &recipe, folder.path(), Begin::New, &mut Reports::default());
        let Err(TrainingError::Diverged { trouble, rollbacks }) = ended else {
            panic!("went on: {ended:?}");
        };
        assert_eq!((trouble.what, trouble.step, rollbacks), ("reconstruction", 3, allowed));
        // The newest checkpoint is from before the trouble.
        assert_eq!(checkpoints(folder.path()).last().unwrap(), "step-00000002.safetensors");
    }
}

#[test]
fn should_go_back_to_the_start_where_there_is_no_later_checkpoint() {
    let recipe = stage_one_recipe(2);
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let trainer = Hooked::new(stage_one(&recipe), |trainer: &mut StageOne, step| {
        seen.push(step.address);
        let mut measures = trainer.step(step)?;
        if step.address == 1 {
            measures[0].1 = f64::NAN;
        }
        Ok(measures)
    });
    run(trainer, &recipe, folder.path(), Begin::New, &mut Reports::default()).unwrap();
    assert_eq!(seen, [0, 1, 2, 3]);
}

#[test]
fn should_go_back_from_a_spike_where_the_recipe_asks_for_it() {
    for spike in [None, Some(8.0)] {
        let mut recipe = stage_one_recipe(60);
        recipe.schedule.checkpoint_every = 10;
        recipe.schedule.guard.spike = spike;
        let folder = tempfile::tempdir().unwrap();
        let trainer = Hooked::new(stage_one(&recipe), |trainer: &mut StageOne, step| {
            let mut measures = trainer.step(step)?;
            let noise = 0.1 * (step.address as f64).sin();
            measures[0].1 = if step.address == 54 { 9.0 } else { 1.0 + noise };
            Ok(measures)
        });
        run(trainer, &recipe, folder.path(), Begin::New, &mut Reports::default()).unwrap();
        let lines = log(folder.path());
        let back: Vec<_> = lines.iter().filter_map(|line| line["went_back_to"].as_u64()).collect();
        assert_eq!(back, if spike.is_some() { vec![50] } else { vec![] });
    }
}

#[test]
fn should_keep_the_newest_checkpoints_and_the_best() {
    let mut recipe = stage_one_recipe(4);
    recipe.schedule.checkpoint_every = 1;
    recipe.schedule.keep_checkpoints = 1;
    recipe.schedule.evaluate_every = Some(1);
    recipe.schedule.keep_best = true;
    let folder = tempfile::tempdir().unwrap();
    let missing =
        run(stage_one(&recipe), &recipe, folder.path(), Begin::New, &mut Reports::default());
    assert!(matches!(missing, Err(TrainingError::NoHeldout)));

    let trainer =
        Hooked::new(stage_one(&recipe), |trainer: &mut StageOne, step| trainer.step(step));
    trainer.heldout.borrow_mut().extend([3.0, 1.0, 2.0, 4.0]);
    let mut reports = Reports::default();
    run(trainer, &recipe, folder.path(), Begin::New, &mut reports).unwrap();
    let names = ["step-00000002.safetensors", "step-00000004.safetensors"];
    assert_eq!(checkpoints(folder.path()), names);
    let best = section(&checkpoint(folder.path(), 2), "model.");
    assert_eq!(exported(&folder.path().join("best")), best);
    let last = section(&checkpoint(folder.path(), 4), "model.");
    assert_eq!(exported(&folder.path().join("model")), last);
    assert_ne!(best, last);
    let heldout: Vec<_> = log(folder.path()).iter().map(|l| l["heldout_loss"].as_f64()).collect();
    assert_eq!(heldout, [Some(3.0), Some(1.0), Some(2.0), Some(4.0)]);
}

#[test]
fn should_average_parameters_and_export_the_average() {
    let mut recipe = stage_one_recipe(4);
    recipe.schedule.checkpoint_every = 1;
    recipe.schedule.keep_checkpoints = 9;
    recipe.schedule.ema_decay = Some(0.3);
    let folder = tempfile::tempdir().unwrap();
    run(stage_one(&recipe), &recipe, folder.path(), Begin::New, &mut Reports::default()).unwrap();
    let mut average = section(&checkpoint(folder.path(), 0), "model.");
    for step in 1..=4 {
        let model = section(&checkpoint(folder.path(), step), "model.");
        // (1 + n) / (10 + n) is below 0.3 for the first two updates.
        let n = step as f32;
        let decay = f32::min(0.3, (1.0 + n) / (10.0 + n));
        let recorded = section(&checkpoint(folder.path(), step), "average.");
        for (name, average) in &mut average {
            for (index, value) in average.values.iter_mut().enumerate() {
                *value = decay * *value + (1.0 - decay) * model[name].values[index];
                let got = recorded[name].values[index];
                assert!((got - *value).abs() < 1e-6, "step {step}, {name}: {got} not {value}");
            }
        }
        if step == 4 {
            assert_eq!(exported(&folder.path().join("model")), recorded);
            assert_ne!(recorded, model);
        }
    }
}

#[test]
fn should_evaluate_on_pictures_and_tokens_that_are_not_trained_on() {
    let recipe = stage_one_recipe(1);
    let mut trainer = stage_one(&recipe).with_heldout(data());
    let model = tempfile::tempdir().unwrap();
    trainer.export(&model.path().join("m")).unwrap();
    let model = model::Model::read(model.path().join("m")).unwrap();
    let model = model.tokenizer(&Device::flex()).unwrap();
    let mut sum = 0.0;
    for index in 0..data().len() {
        let planes = data().picture(index).unwrap().to_unit_planes();
        let shape = [1, 3, 16, 16];
        let image = burn::tensor::TensorData::new(planes.clone(), shape);
        let tokens = model.encode(burn::tensor::Tensor::from_data(image, &Device::flex()));
        let rebuilt = model.decode(tokens, tokenizer::DecoderKind::Causal).unwrap();
        let rebuilt = rebuilt.into_data().try_into_vec::<f32>().unwrap();
        let errors = planes.iter().zip(&rebuilt).map(|(a, b)| f64::from(a - b).powi(2));
        sum += errors.sum::<f64>() / planes.len() as f64;
    }
    let (got, expected) = (trainer.evaluate().unwrap(), sum / data().len() as f64);
    assert!((got - expected).abs() < 1e-6 * expected, "{got} not {expected}");

    let cache = token_cache(Views::Center);
    let recipe = generator_recipe();
    let trainer = GeneratorTrainer::new(recipe, cache.path(), &Device::flex()).unwrap();
    let mut trainer = trainer.with_heldout(cache.path()).unwrap();
    // A zero output layer predicts every code alike.
    assert!((trainer.evaluate().unwrap() - f64::ln(16.0)).abs() < 1e-5);
}

#[test]
fn should_raise_an_alarm_when_the_codebook_is_hardly_used() {
    let mut recipe = stage_one_recipe(4);
    recipe.alarms.usage = 1.0;
    recipe.alarms.perplexity = 0.0;
    let folder = tempfile::tempdir().unwrap();
    let mut reports = Reports::default();
    let trainer = Hooked::new(stage_one(&recipe), |trainer: &mut StageOne, step| {
        let mut measures = trainer.step(step)?;
        for (name, value) in &mut measures {
            if *name == "usage" {
                *value = if step.number == 3 { 1.0 } else { 0.25 };
            }
        }
        Ok(measures)
    });
    run(trainer, &recipe, folder.path(), Begin::New, &mut reports).unwrap();
    let of_usage = |report: &Report| {
        let alarm = report.alarms.iter().find(|alarm| alarm.what == "usage");
        alarm.map(|alarm| (alarm.value, alarm.limit))
    };
    let raised: Vec<_> = reports.all.iter().map(of_usage).collect();
    // The warm-up has one step.
    assert_eq!(raised, [None, Some((0.25, 1.0)), Some((0.25, 1.0)), None]);
    assert_eq!(log(folder.path())[2]["alarms"], serde_json::json!(["usage"]));
}

#[test]
fn should_let_one_process_train_in_a_folder_and_clear_what_killed_ones_left() {
    let recipe = stage_one_recipe(2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let left = [path.join("modelXyz.incomplete"), path.join("checkpoints/step-1.incomplete")];
    let trainer = Hooked::new(stage_one(&recipe), |trainer: &mut StageOne, step| {
        let second = run(stage_one(&recipe), &recipe, path, Begin::Resume, &mut Reports::default());
        assert!(matches!(second, Err(TrainingError::RunBusy(_))), "{second:?}");
        trainer.step(step)
    });
    run(trainer, &recipe, path, Begin::New, &mut Reports::default()).unwrap();
    fs::create_dir(&left[0]).unwrap();
    fs::write(left[0].join("part"), "part").unwrap();
    fs::write(&left[1], "part").unwrap();
    run(stage_one(&recipe), &recipe, path, Begin::Resume, &mut Reports::default()).unwrap();
    assert!(left.iter().all(|left| !left.exists()));
}

#[test]
fn should_refuse_a_checkpoint_of_a_later_format() {
    let recipe = stage_one_recipe(2);
    let folder = tempfile::tempdir().unwrap();
    run(stage_one(&recipe), &recipe, folder.path(), Begin::New, &mut Reports::default()).unwrap();
    let path = folder.path().join("checkpoints/step-00000002.safetensors");
    let tensors = safetensors::read(&path).unwrap();
    let mut metadata = safetensors::read_metadata(&path).unwrap();
    assert_eq!(metadata.insert("version".into(), "2".into()).unwrap(), "1");
    let precision = safetensors::StorageFormat::F32;
    safetensors::write(&path, &tensors, precision, &metadata).unwrap();
    let ended =
        run(stage_one(&recipe), &recipe, folder.path(), Begin::Resume, &mut Reports::default());
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("format 2"), "{text}");
}

#[test]
fn should_go_on_from_an_older_checkpoint_where_the_newest_is_damaged() {
    let mut recipe = stage_one_recipe(3);
    recipe.schedule.checkpoint_every = 1;
    recipe.schedule.keep_checkpoints = 3;
    let folder = tempfile::tempdir().unwrap();
    let train = |begin, reports: &mut Reports| {
        run(stage_one(&recipe), &recipe, folder.path(), begin, reports)
    };
    train(Begin::New, &mut Reports::default()).unwrap();
    let file = |step: u64| folder.path().join(format!("checkpoints/step-{step:08}.safetensors"));
    let whole: Vec<_> = (1..=3).map(|step| fs::read(file(step)).unwrap()).collect();
    // Cut in the numbers, in the header, and to nothing.
    for length in [whole[2].len() / 2, 100, 0] {
        fs::write(file(3), &whole[2][..length]).unwrap();
        let mut reports = Reports::default();
        train(Begin::Resume, &mut reports).unwrap();
        assert_eq!(reports.passed_over, [file(3)]);
        assert_eq!(fs::read(file(3)).unwrap(), whole[2], "the same bits as without damage");
    }
    for step in 1..=3 {
        fs::write(file(step), b"damaged").unwrap();
    }
    let error = train(Begin::Resume, &mut Reports::default()).unwrap_err().to_string();
    assert!(error.contains("step-00000003"), "{error}");
}
