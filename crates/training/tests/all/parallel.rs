//! A step's result does not depend on how its batch is cut over processes and micro-batches.

use std::{path::Path, sync::Arc};

use crate::common::{
    ADVERSARIAL, Hooked, Reports, changed, data, generator_recipe, home, stage_one,
    stage_two_recipe, token_cache,
};
use burn::tensor::Device;
use files::TensorMap;
use files::safetensors;
use pipeline::cache::Views;
use tokenizer::reference::{Initialization, Positions, Tokenizer, Weights};
use training::{
    Checkpoint, TrainingError,
    communicator::{Alone, Communicator, ParallelError, Threads},
    recipe::StageOneRecipe,
    run::{Begin, Step, Trainer, run},
    schedule::Schedule,
    telemetry::Measures,
    trainers::{GeneratorTrainer, StageOne, StageTwo},
};

/// The toy recipe with another seed. Rounding decides for a picture whose two nearest codes are as
/// near as each other, and two courses part there; with this seed no course comes to one.
fn stage_one_recipe(steps: u64) -> StageOneRecipe {
    changed(&crate::common::stage_one_recipe(steps), &["seed=5"])
}

/// What a training did: measures of each step and of held-out data after
/// the last, and the state after the first.
struct Course {
    measures: Vec<Measures>,
    first: TensorMap,
}

/// A step of the toy courses.
fn at(number: u64) -> Step {
    Step { number, address: number, learning_rate: 1e-3 }
}

/// Follows a training on as many threads as there are ranks, from a checkpoint if there is one;
/// returns what each rank saw.
fn follow<T: Trainer>(
    ranks: usize,
    steps: u64,
    begin: Option<&Checkpoint>,
    make: impl Fn(Arc<dyn Communicator>) -> T + Sync,
) -> Vec<Course> {
    let begun = begin.map_or(0, |checkpoint| checkpoint.step);
    let rank = |communicator: Threads| {
        let mut trainer = make(Arc::new(communicator));
        trainer.start(begin.cloned(), begun).unwrap();
        let mut measures = vec![trainer.step(at(begun)).unwrap()];
        let first = trainer.checkpoint(begun + 1).tensors;
        measures.extend((1..steps).map(|step| trainer.step(at(begun + step)).unwrap()));
        if trainer.has_heldout() {
            measures.push(vec![("heldout_loss", trainer.evaluate().unwrap())]);
        }
        Course { measures, first }
    };
    std::thread::scope(|scope| {
        let rank = &rank;
        let group = Threads::group(ranks).into_iter();
        let threads: Vec<_> = group.map(|own| scope.spawn(move || rank(own))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Compares a batch in one piece with other cuts of it, and with activations that are computed
/// again. `make` is given changes to the recipe.
pub(crate) fn check_cuts<T: Trainer>(
    make: impl Fn(&dyn Fn(&mut Schedule), Arc<dyn Communicator>) -> T + Sync,
) {
    let cuts = [(1, 2, false), (2, 1, false), (2, 2, false), (1, 1, true), (2, 2, true)];
    check_some_cuts(20, 0, &cuts, make);
}

/// Of each cut: processes, micro-batches, and whether activations are computed again. Courses part
/// after `begun` steps in one piece.
fn check_some_cuts<T: Trainer>(
    steps: u64,
    begun: u64,
    cuts: &[(usize, usize, bool)],
    make: impl Fn(&dyn Fn(&mut Schedule), Arc<dyn Communicator>) -> T + Sync,
) {
    let cut = |accumulate: usize, activation_checkpointing: bool| {
        move |schedule: &mut Schedule| {
            schedule.batch = 8;
            schedule.accumulate = accumulate;
            schedule.activation_checkpointing = activation_checkpointing;
        }
    };
    let whole = |communicator| make(&cut(1, false), communicator);
    let begin = (begun > 0).then(|| {
        let mut trainer = whole(Arc::new(Alone));
        trainer.start(None, 0).unwrap();
        (0..begun).for_each(|step| drop(trainer.step(at(step)).unwrap()));
        let mut checkpoint = trainer.checkpoint(begun);
        // So that the mean after one more step is its gradient.
        let moments = checkpoint.tensors.iter_mut().filter(|(name, _)| name.contains("optimizer."));
        moments.for_each(|(_, moments)| moments.values.fill(0.0));
        checkpoint
    });
    let whole = &follow(1, steps, begin.as_ref(), whole)[0];
    for &(ranks, accumulate, again) in cuts {
        let make = |communicator| make(&cut(accumulate, again), communicator);
        let courses = follow(ranks, steps, begin.as_ref(), make);
        let [cut, others @ ..] = &courses[..] else { panic!("no ranks") };
        for other in others {
            assert_eq!(other.measures, cut.measures, "ranks see one course");
            assert_eq!(other.first, cut.first, "ranks hold one model");
        }
        // After one step the mean is a fraction of the gradient, the same for all parameters.
        for (name, expected) in whole.first.iter().filter(|(n, _)| n.contains("optimizer.mean")) {
            let largest = expected.values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (got, expected) in cut.first[name].values.iter().zip(&expected.values) {
                let near = (got - expected).abs() <= 1e-5 * largest;
                assert!(near, "{name}: {got} not {expected}");
            }
        }
        for (step, (got, expected)) in cut.measures.iter().zip(&whole.measures).enumerate() {
            for ((name, got), (_, expected)) in got.iter().zip(expected) {
                // What is explained is 1 less a quotient of errors.
                let size = if *name == "explained" { 1.0 - expected } else { expected.abs() };
                let near = (got - expected).abs() <= 1e-4 * size;
                assert!(near, "{ranks} × {accumulate}, step {step}: {name} {got} not {expected}");
            }
        }
    }
}

fn first_stage() -> Tokenizer {
    let initialization =
        Initialization { seed: 1, positions: Positions::Random, weights: Weights::Small };
    let config = stage_one_recipe(1).architecture;
    config.initialize(&initialization, &Device::flex()).unwrap()
}

#[test]
fn should_train_the_first_stage_alike_however_its_batch_is_cut() {
    check_cuts(|cut, communicator| {
        let mut recipe = stage_one_recipe(20);
        cut(&mut recipe.schedule);
        let trainer = stage_one(&recipe).with_heldout(data());
        trainer.with_communicator(communicator).unwrap()
    });
}

/// A discriminator's gradient is the difference of two, of pictures and of reconstructions, which
/// are nearly equal before it can tell them apart: all that would be compared is rounding. So it
/// learns for some steps first. Tokenizer and discriminator learn in every step.
#[test]
fn should_train_a_discriminator_alike_however_its_batch_is_cut() {
    const BEGUN: u64 = 100;
    let blur_down = "blur_down={hidden=32,stages=1}";
    let patch_gan = "patch_gan={channels=4,layers=2}";
    let apart = [(1, 2, false), (2, 1, false), (2, 2, true)];
    for (architecture, cuts) in
        [(blur_down, &apart[..]), (patch_gan, &[(2, 1, false), (4, 1, true)])]
    {
        let settings = "learning_rate=1e-3,start=0,every=1,lecam=0.05";
        let discriminator = format!("discriminator={{architecture={{{architecture}}},{settings}}}");
        check_some_cuts(3, BEGUN, cuts, |cut, communicator| {
            let mut recipe = changed(&stage_one_recipe(3), &[ADVERSARIAL[0], &discriminator]);
            cut(&mut recipe.schedule);
            stage_one(&recipe).with_communicator(communicator).unwrap()
        });
        check_some_cuts(3, BEGUN, &cuts[1..], |cut, communicator| {
            let mut recipe = changed(&stage_two_recipe(), &[ADVERSARIAL[0], &discriminator]);
            cut(&mut recipe.schedule);
            let trainer =
                StageTwo::new(recipe, first_stage(), data(), &home(), &Device::flex()).unwrap();
            trainer.with_communicator(communicator).unwrap()
        });
    }
}

#[test]
fn should_train_the_second_stage_alike_however_its_batch_is_cut() {
    check_cuts(|cut, communicator| {
        let mut recipe = stage_two_recipe();
        cut(&mut recipe.schedule);
        let trainer =
            StageTwo::new(recipe, first_stage(), data(), &home(), &Device::flex()).unwrap();
        let trainer = trainer.with_heldout(data());
        trainer.with_communicator(communicator).unwrap()
    });
}

#[test]
fn should_train_the_generator_alike_however_its_batch_is_cut() {
    let cache = token_cache(Views::TenCrop);
    check_cuts(|cut, communicator| {
        let mut recipe = generator_recipe();
        cut(&mut recipe.schedule);
        let trainer = GeneratorTrainer::new(recipe, cache.path(), &Device::flex()).unwrap();
        let trainer = trainer.with_heldout(cache.path()).unwrap();
        trainer.with_communicator(communicator).unwrap()
    });
}

/// Something that happens to a step of one rank.
type Event = fn(rank: usize, step: Step) -> Result<bool, TrainingError>;

/// Trains four steps on some ranks in one folder. An event may end a rank, or say that its loss is
/// no number. Returns how each rank ended.
fn train(
    folder: &Path,
    ranks: usize,
    resume: bool,
    event: Event,
) -> Vec<Result<(), TrainingError>> {
    train_in_parts(folder, ranks, 1, resume, event)
}

/// Like [`train`], with `accumulate` micro-batches on each rank.
fn train_in_parts(
    folder: &Path,
    ranks: usize,
    accumulate: usize,
    resume: bool,
    event: Event,
) -> Vec<Result<(), TrainingError>> {
    let rank = |communicator: Threads| {
        let mut recipe = stage_one_recipe(4);
        recipe.schedule.checkpoint_every = 1;
        recipe.schedule.accumulate = accumulate;
        let rank = communicator.rank();
        let trainer = stage_one(&recipe).with_communicator(Arc::new(communicator)).unwrap();
        let trainer = Hooked::new(trainer, |trainer: &mut StageOne, step| {
            let poisoned = event(rank, step)?;
            let mut measures = trainer.step(step)?;
            if poisoned {
                measures[0].1 = f64::NAN;
            }
            Ok(measures)
        });
        let begin = if resume { Begin::Resume } else { Begin::New };
        run(trainer, &recipe, folder, begin, &mut Reports::default())
    };
    std::thread::scope(|scope| {
        let rank = &rank;
        let group = Threads::group(ranks).into_iter();
        let threads: Vec<_> = group.map(|own| scope.spawn(move || rank(own))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn should_end_all_ranks_with_one_and_resume_on_any_number_of_them() {
    let weights =
        |folder: &Path| safetensors::read(folder.join("model/tokenizer.safetensors")).unwrap();
    let nothing: Event = |_, _| Ok(false);
    let leaves: Event = |rank, step| match (rank, step.number) {
        (1, 3) => Err(TrainingError::Data("made up".into())),
        _ => Ok(false),
    };
    let whole = tempfile::tempdir().unwrap();
    assert!(train(whole.path(), 2, false, nothing).iter().all(Result::is_ok));
    for ranks in [2, 1, 4] {
        let folder = tempfile::tempdir().unwrap();
        let ended = train(folder.path(), 2, false, leaves);
        assert!(matches!(ended[0], Err(TrainingError::Parallel(ParallelError::Gone))), "{ended:?}");
        assert!(train(folder.path(), ranks, true, nothing).iter().all(Result::is_ok));
        let log = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
        assert_eq!(log.lines().count(), 4);
        let (got, expected) = (weights(folder.path()), weights(whole.path()));
        if ranks == 2 {
            assert_eq!(got, expected);
            continue;
        }
        // One step of four was cut another way.
        for (name, expected) in &expected {
            for (got, expected) in got[name].values.iter().zip(&expected.values) {
                assert!((got - expected).abs() < 1e-4, "{ranks} ranks, {name}: {got} {expected}");
            }
        }
    }
}

/// One process works through as many micro-batches as there are ranks, so that both courses make
/// the same sums. Cut otherwise, they would part by rounding, and by more where AdamW divides a
/// gradient that is nearly zero by its own size, or where two codes are as near as each other.
#[test]
fn should_take_all_ranks_back_together() {
    const PARTS: usize = 2;
    let course = |ranks: usize| {
        let folder = tempfile::tempdir().unwrap();
        let poisoned: Event = |_, step| Ok(step.address == 2);
        let ended = train_in_parts(folder.path(), ranks, PARTS / ranks, false, poisoned);
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
        let log = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
        assert!(log.contains("went_back_to"), "{log}");
        let losses = log.lines().filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64()
        });
        losses.collect::<Vec<_>>()
    };
    let (alone, several) = (course(1), course(PARTS));
    assert_eq!(alone.len(), 4);
    assert_eq!(several, alone);
}

#[test]
fn should_refuse_batches_that_cannot_be_shared_evenly() {
    let mut recipe = stage_one_recipe(1);
    recipe.schedule.batch = 6;
    let trainer = || stage_one(&recipe);
    let mut group = Threads::group(4);
    let refused = trainer().with_communicator(Arc::new(group.remove(0)));
    let Err(ParallelError::Indivisible { batch: 6, ranks: 4, accumulate: 1 }) = refused else {
        panic!("an uneven share was accepted");
    };
    let mut group = Threads::group(3);
    assert!(trainer().with_communicator(Arc::new(group.remove(0))).is_ok());
}
