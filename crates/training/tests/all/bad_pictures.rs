//! Pictures that cannot be read: others take their places, the same on any number of processes and
//! after a kill, and every one is counted and listed.

use std::{collections::BTreeSet, ops::ControlFlow, path::Path, sync::Arc};

use crate::common::{
    Hooked, Reports, changed, data, generator_recipe, home, stage_one_recipe, stage_two_recipe,
};
use burn::tensor::Device;
use files::safetensors;
use model::Model;
use pipeline::cache::{BuildOptions, Views, build};
use pixels::{DataSet, Picture, PixelsError};
use token_cache::{CacheError, Shard, TokenCache};
use training::{
    TrainingError,
    communicator::Threads,
    recipe::{Recipe, StageOneRecipe},
    run::{Begin, Trainer, run},
    telemetry::BadPicture,
    trainers::{GeneratorTrainer, StageOne, StageTwo},
};

/// The toy pictures, of which some are damaged.
struct Damaged {
    whole: Arc<dyn DataSet>,
    bad: &'static [usize],
}

impl DataSet for Damaged {
    fn len(&self) -> usize {
        self.whole.len()
    }
    fn classes(&self) -> &[String] {
        self.whole.classes()
    }
    fn label(&self, index: usize) -> usize {
        self.whole.label(index)
    }
    fn name(&self, index: usize) -> &str {
        self.whole.name(index)
    }
    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        if self.bad.contains(&index) {
            return Picture::decode(b"no picture", self.name(index));
        }
        self.whole.picture(index)
    }
}

fn damaged(bad: &'static [usize]) -> Arc<dyn DataSet> {
    Arc::new(Damaged { whole: data(), bad })
}

/// Numbers 2, 3 and 7, called `c`, `d` and `h`.
fn some() -> Arc<dyn DataSet> {
    damaged(&[2, 3, 7])
}

fn names(bad: &[BadPicture]) -> Vec<&str> {
    bad.iter().map(|bad| bad.name.as_str()).collect()
}

fn model(folder: &Path) -> files::TensorMap {
    safetensors::read(folder.join("model/tokenizer.safetensors")).unwrap()
}

/// The names that a run's log lists, and its last count.
fn logged(folder: &Path) -> (Vec<String>, u64) {
    let log = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names = lines.iter().filter_map(|line| {
        let name = line["bad_picture"].as_str()?;
        assert!(!line["because"].as_str().unwrap().is_empty());
        Some(name.to_owned())
    });
    let count = lines.iter().rev().find_map(|line| line["bad_pictures"].as_u64());
    (names.collect(), count.unwrap_or(0))
}

/// Eight steps of four: three epochs of the ten pictures and some.
fn recipe() -> StageOneRecipe {
    let settings = ["log_every=2", "checkpoint_every=4"];
    changed(&stage_one_recipe(8), &settings)
}

#[test]
fn should_replace_bad_pictures_and_list_each_time_in_the_log_and_to_the_observer() {
    let recipe = recipe();
    let make = || StageOne::new(recipe.clone(), some(), &home(), &Device::flex()).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let mut reports = Reports::default();
    run(make(), &recipe, whole.path(), Begin::New, &mut reports).unwrap();
    let (listed, count) = logged(whole.path());
    assert_eq!(names(&reports.bad), listed);
    assert_eq!(count, listed.len() as u64);
    assert_eq!(reports.all.last().unwrap().bad_pictures, count);
    assert_eq!(listed.iter().map(String::as_str).collect::<BTreeSet<_>>(), ["c", "d", "h"].into());
    // Three whole epochs meet each of them three times; others were tried in their places.
    for name in ["c", "d", "h"] {
        assert!(listed.iter().filter(|listed| *listed == name).count() >= 3, "{listed:?}");
    }

    // Killed after a report, and before the checkpoint that would keep it.
    let killed = Hooked::new(make(), |trainer: &mut StageOne, step| match step.number {
        7 => Err(TrainingError::Data("killed".into())),
        _ => trainer.step(step),
    });
    let broken = tempfile::tempdir().unwrap();
    assert!(run(killed, &recipe, broken.path(), Begin::New, &mut ()).is_err());
    run(make(), &recipe, broken.path(), Begin::Resume, &mut ()).unwrap();
    assert_eq!(logged(broken.path()), (listed, count));
    assert_eq!(model(broken.path()), model(whole.path()));
}

#[test]
fn should_list_the_bad_pictures_of_all_processes() {
    let recipe = recipe();
    let listed = |ranks: usize| {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for communicator in Threads::group(ranks) {
                let (recipe, folder) = (&recipe, folder.path());
                scope.spawn(move || {
                    let trainer =
                        StageOne::new(recipe.clone(), some(), &home(), &Device::flex()).unwrap();
                    let trainer = trainer.with_communicator(Arc::new(communicator)).unwrap();
                    run(trainer, recipe, folder, Begin::New, &mut ()).unwrap();
                });
            }
        });
        let (mut listed, count) = logged(folder.path());
        listed.sort();
        assert!(count >= 9 && count == listed.len() as u64, "{listed:?}");
        listed
    };
    assert_eq!(listed(1), listed(2));
}

fn first_bad<T: Trainer, R: Recipe>(trainer: T, recipe: &R) -> String {
    let folder = tempfile::tempdir().unwrap();
    run(trainer, recipe, folder.path(), Begin::New, &mut ()).unwrap_err().to_string()
}

#[test]
fn should_end_at_a_bad_picture_if_strict_and_where_there_is_no_good_one() {
    let device = Device::flex();
    let recipe = recipe();
    let told = first_bad(
        StageOne::new(recipe.clone(), some(), &home(), &device).unwrap().strict(true),
        &recipe,
    );
    assert!(["c ", "d ", "h "].iter().any(|name| told.starts_with(name)), "{told}");
    let none = damaged(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let told =
        first_bad(StageOne::new(recipe.clone(), none.clone(), &home(), &device).unwrap(), &recipe);
    assert!(told.contains("is not a PNG"), "{told}");

    // Held-out pictures are left out of the mean, and listed.
    let recipe = changed(&stage_one_recipe(1), &["evaluate_every=1", "checkpoint_every=1"]);
    let trainer = |heldout| {
        StageOne::new(recipe.clone(), data(), &home(), &device).unwrap().with_heldout(heldout)
    };
    let mut with_bad = trainer(some());
    let mean = with_bad.evaluate().unwrap();
    assert_eq!(names(&with_bad.take_bad()), ["c", "d", "h"]);
    let one = |index: usize| {
        let all: [&'static [usize]; 2] =
            [&[0, 1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 3, 4, 5, 6, 7, 8, 9]];
        trainer(damaged(all[index])).evaluate().unwrap()
    };
    let all = trainer(data()).evaluate().unwrap();
    assert!(mean != all && (mean - all).abs() < 0.5 * all, "{mean} of some, {all} of all");
    assert!(one(0) != one(1));
    assert!(trainer(some()).strict(true).evaluate().is_err());
    assert!(trainer(none).evaluate().unwrap_err().to_string().contains("nothing readable"));
}

#[test]
fn should_cache_what_is_readable_and_learn_from_that() {
    let device = Device::flex();
    let recipe = stage_one_recipe(1);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    StageOne::new(recipe, data(), &home(), &device).unwrap().export(&path("model")).unwrap();
    let model = Model::read(path("model")).unwrap();
    let encoder = model.tokenizer(&device).unwrap().frozen_encoder();
    let encode = |picture: &Picture| Ok(encoder.encode_picture(picture.to_unit_planes()));
    let cached = |data: &Arc<dyn DataSet>, name: &str, shard, strict| {
        let options = BuildOptions { views: Views::Center, shard, strict };
        build(data, &model, encode, &path(name), options, |_, _| ControlFlow::Continue(()))
    };
    let bad = cached(&some(), "some", Shard::WHOLE, false).unwrap();
    let left_out: Vec<_> = bad.iter().map(|bad| some().name(bad.picture).to_owned()).collect();
    assert_eq!(left_out, ["c", "d", "h"]);
    assert!(cached(&some(), "strict", Shard::WHOLE, true).unwrap_err().to_string().contains("c "));
    cached(&data(), "all", Shard::WHOLE, true).unwrap();
    let (some_tokens, all) =
        (TokenCache::open(path("some")).unwrap(), TokenCache::open(path("all")).unwrap());
    assert!(some_tokens.verify().is_empty());
    for index in 0..10 {
        match some_tokens.record(index, 0) {
            Ok(record) => assert_eq!(record, all.record(index, 0).unwrap(), "{index}"),
            Err(CacheError::LeftOut { picture, reason, .. }) => {
                assert!([2, 3, 7].contains(&index) && picture == index);
                assert!(reason.contains(" is not a"), "{reason}"); // six tokens have room for so much
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(some_tokens.label(index).unwrap(), index % 2);
    }
    // In shards as at once; the last of three begins with a bad picture.
    for index in 0..3 {
        cached(&some(), "thirds", Shard::new(index, 3).unwrap(), false).unwrap();
    }
    let thirds = TokenCache::open(path("thirds")).unwrap();
    assert!(thirds.verify().is_empty());
    assert_eq!(thirds.left_out().unwrap(), some_tokens.left_out().unwrap());

    let third = changed(&generator_recipe(), &["steps=8"]);
    let make = || GeneratorTrainer::new(third.clone(), &path("some"), &device).unwrap();
    let mut reports = Reports::default();
    run(make(), &third, &path("run"), Begin::New, &mut reports).unwrap();
    let (listed, count) = logged(&path("run"));
    assert!(count >= 9 && listed.len() as u64 == count, "{listed:?}");
    assert_eq!(names(&reports.bad), listed);
    assert!(first_bad(make().strict(true), &third).contains("left out"));
    assert!(make().with_heldout(&path("some")).unwrap().evaluate().is_ok());

    let second = stage_two_recipe();
    let first_stage = model.tokenizer(&device).unwrap();
    let mut stage_two = StageTwo::new(second, first_stage, some(), &home(), &device).unwrap();
    stage_two.start(None, 0).unwrap();
    let step = |number| training::run::Step { number, address: number, learning_rate: 1e-3 };
    (0..3).for_each(|number| drop(stage_two.step(step(number)).unwrap()));
    assert!(!stage_two.take_bad().is_empty());
}
