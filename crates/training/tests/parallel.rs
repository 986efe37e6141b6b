//! A step's result does not depend on how its batch is cut over processes and micro-batches.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod common;

use std::sync::Arc;

use burn::tensor::Device;
use common::{data, generator_recipe, stage_one_recipe, stage_two_recipe};
use layers::parameters::TensorMap;
use tokenizer::{Initialization, Positions, Tokenizer};
use tokens::cache::Shard;
use training::{
    TrainingError,
    cache::{Views, build},
    generator::GeneratorTrainer,
    parallel::{Communicator, ParallelError, Threads},
    recipe::Schedule,
    run::{Trainer, run},
    stage_one::StageOne,
    stage_two::StageTwo,
    telemetry::{Measures, Observer, Report},
};
use weights::ModelFolder;

/// What a training did: measures of each step, and the state after the first.
struct Course {
    measures: Vec<Measures>,
    first: TensorMap,
}

/// Follows a training on as many threads as there are ranks; returns what each rank saw.
fn follow<T: Trainer>(
    ranks: usize,
    steps: u64,
    make: impl Fn(Arc<dyn Communicator>) -> T + Sync,
) -> Vec<Course> {
    let rank = |communicator: Threads| {
        let mut trainer = make(Arc::new(communicator));
        trainer.start(None).unwrap();
        let mut measures = vec![trainer.step(0, 1e-3).unwrap()];
        let first = trainer.checkpoint(1).tensors;
        measures.extend((1..steps).map(|step| trainer.step(step, 1e-3).unwrap()));
        Course { measures, first }
    };
    std::thread::scope(|scope| {
        let rank = &rank;
        let group = Threads::group(ranks).into_iter();
        let threads: Vec<_> = group.map(|own| scope.spawn(move || rank(own))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Compares a batch in one piece with other cuts of it. `make` is given the number of
/// micro-batches.
fn check_cuts<T: Trainer>(make: impl Fn(usize, Arc<dyn Communicator>) -> T + Sync) {
    let whole = &follow(1, 20, |communicator| make(1, communicator))[0];
    for (ranks, accumulate) in [(1, 2), (2, 1), (2, 2)] {
        let courses = follow(ranks, 20, |communicator| make(accumulate, communicator));
        let [cut, others @ ..] = &courses[..] else { panic!("no ranks") };
        for other in others {
            assert_eq!(other.measures, cut.measures, "ranks see one course");
            assert_eq!(other.first, cut.first, "ranks hold one model");
        }
        // After one step the mean is a fraction of the gradient, the same for all parameters.
        for (name, expected) in whole.first.iter().filter(|(n, _)| n.starts_with("optimizer.mean"))
        {
            let largest = expected.values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (got, expected) in cut.first[name].values.iter().zip(&expected.values) {
                assert!((got - expected).abs() <= 1e-5 * largest, "{name}: {got} not {expected}");
            }
        }
        for (step, (got, expected)) in cut.measures.iter().zip(&whole.measures).enumerate() {
            for ((name, got), (_, expected)) in got.iter().zip(expected) {
                let near = (got - expected).abs() <= 1e-4 * expected.abs();
                assert!(near, "{ranks} × {accumulate}, step {step}: {name} {got} not {expected}");
            }
        }
    }
}

fn schedule(schedule: &mut Schedule, accumulate: usize) {
    schedule.batch = 8;
    schedule.accumulate = accumulate;
}

fn first_stage() -> Tokenizer {
    let initialization = Initialization { seed: 1, positions: Positions::Random };
    let config = stage_one_recipe(1).architecture;
    config.initialize(&initialization, &Device::flex()).unwrap()
}

#[test]
fn should_train_the_first_stage_alike_however_its_batch_is_cut() {
    check_cuts(|accumulate, communicator| {
        let mut recipe = stage_one_recipe(20);
        schedule(&mut recipe.schedule, accumulate);
        let trainer = StageOne::new(recipe, data(), &Device::flex()).unwrap();
        trainer.with_communicator(communicator).unwrap()
    });
}

#[test]
fn should_train_the_second_stage_alike_however_its_batch_is_cut() {
    check_cuts(|accumulate, communicator| {
        let mut recipe = stage_two_recipe();
        schedule(&mut recipe.schedule, accumulate);
        let trainer = StageTwo::new(recipe, first_stage(), data(), &Device::flex()).unwrap();
        trainer.with_communicator(communicator).unwrap()
    });
}

/// A token cache of the toy data set.
fn token_cache() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let trainer = StageOne::new(stage_one_recipe(1), data(), &Device::flex()).unwrap();
    let model = folder.path().join("model");
    trainer.export(&model).unwrap();
    let model = ModelFolder::read(&model).unwrap();
    let encoder = model.tokenizer(&Device::flex()).unwrap().frozen_encoder();
    let cache = tempfile::tempdir().unwrap();
    let (views, path) = (Views::TenCrop, cache.path());
    build(data().as_ref(), &model, &encoder, views, path, Shard::WHOLE, |_, _| {}).unwrap();
    cache
}

#[test]
fn should_train_the_generator_alike_however_its_batch_is_cut() {
    let cache = token_cache();
    check_cuts(|accumulate, communicator| {
        let mut recipe = generator_recipe();
        schedule(&mut recipe.schedule, accumulate);
        let trainer = GeneratorTrainer::new(recipe, cache.path(), &Device::flex()).unwrap();
        trainer.with_communicator(communicator).unwrap()
    });
}

struct Silent;

impl Observer for Silent {
    fn started(&mut self, _step: u64, _steps: u64) {}
    fn stepped(&mut self, _step: u64) {}
    fn reported(&mut self, _report: &Report) {}
    fn saved(&mut self, _checkpoint: &std::path::Path) {}
}

#[test]
fn should_run_on_two_ranks_in_one_folder_and_resume_there() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = |folder: &std::path::Path, every: u64, resume: bool, stop: bool| {
        let rank = |communicator: Threads| {
            let mut recipe = stage_one_recipe(4);
            recipe.schedule.checkpoint_every = every;
            let trainer = StageOne::new(recipe.clone(), data(), &Device::flex()).unwrap();
            let trainer = trainer.with_communicator(Arc::new(communicator)).unwrap();
            if stop {
                // One rank of two leaves before the last step.
                let leaves = Leaves { trainer };
                return run(leaves, &recipe, folder, resume, &mut Silent);
            }
            run(trainer, &recipe, folder, resume, &mut Silent)
        };
        std::thread::scope(|scope| {
            let rank = &rank;
            let group = Threads::group(2).into_iter();
            let threads: Vec<_> = group.map(|own| scope.spawn(move || rank(own))).collect();
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            ended
        })
    };
    assert!(train(whole.path(), 2, false, false).iter().all(Result::is_ok));
    let ended = train(folder.path(), 1, false, true);
    assert!(matches!(ended[0], Err(TrainingError::Parallel(ParallelError::Gone))), "{ended:?}");
    assert!(train(folder.path(), 1, true, false).iter().all(Result::is_ok));
    let weights = |folder: &std::path::Path| {
        std::fs::read(folder.join("model/tokenizer.safetensors")).unwrap()
    };
    assert_eq!(weights(folder.path()), weights(whole.path()));
    let log = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 4);
}

/// Rank 1 ends with an error at step 3.
struct Leaves {
    trainer: StageOne,
}

impl Trainer for Leaves {
    fn communicator(&self) -> &dyn Communicator {
        self.trainer.communicator()
    }
    fn inputs(&self) -> Vec<(&'static str, String)> {
        self.trainer.inputs()
    }
    fn start(&mut self, checkpoint: Option<training::Checkpoint>) -> Result<(), TrainingError> {
        self.trainer.start(checkpoint)
    }
    fn step(&mut self, step: u64, learning_rate: f64) -> Result<Measures, TrainingError> {
        if step == 3 && self.communicator().rank() == 1 {
            return Err(TrainingError::Data("made up".into()));
        }
        self.trainer.step(step, learning_rate)
    }
    fn checkpoint(&self, step: u64) -> training::Checkpoint {
        self.trainer.checkpoint(step)
    }
    fn export(&self, folder: &std::path::Path) -> Result<(), TrainingError> {
        self.trainer.export(folder)
    }
}

#[test]
fn should_refuse_batches_that_cannot_be_shared_evenly() {
    let mut recipe = stage_one_recipe(1);
    recipe.schedule.batch = 6;
    let trainer = || StageOne::new(recipe.clone(), data(), &Device::flex()).unwrap();
    let mut group = Threads::group(4);
    let refused = trainer().with_communicator(Arc::new(group.remove(0)));
    let Err(ParallelError::Indivisible { batch: 6, ranks: 4, accumulate: 1 }) = refused else {
        panic!("an uneven share was accepted");
    };
    let mut group = Threads::group(3);
    assert!(trainer().with_communicator(Arc::new(group.remove(0))).is_ok());
}
