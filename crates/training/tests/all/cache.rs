//! The views of a picture in a token cache.

use std::{ops::ControlFlow, sync::Arc};

use crate::common::{data, stage_one, stage_one_recipe};
use burn::tensor::Device;
use model::Model;
use pipeline::cache::{BuildError, BuildOptions, Views, build};
use pixels::{DataSet, Picture, PixelsError};
use token_cache::{Shard, TokenCache};
use training::run::Trainer;

/// The tokens of a cache's views.
fn views(cache: &TokenCache, picture: usize) -> Vec<Vec<usize>> {
    let tokens = |view| cache.record(picture, view).unwrap().tokens().map(usize::from).collect();
    (0..cache.header().views).map(tokens).collect()
}

#[test]
fn should_cache_a_picture_and_its_mirror_image() {
    let folder = tempfile::tempdir().unwrap();
    stage_one(&stage_one_recipe(1)).export(&folder.path().join("model")).unwrap();
    let model = Model::read(folder.path().join("model")).unwrap();
    let encoder = model.tokenizer(&Device::flex()).unwrap().frozen_encoder();
    let path = folder.path().join("cache");
    let encode = |picture: &pixels::Picture| Ok(encoder.encode_picture(picture.to_unit_planes()));
    let options = BuildOptions { views: Views::Mirrored, shard: Shard::WHOLE, strict: true };
    build(&data(), &model, encode, &path, options, |_, _| ControlFlow::Continue(())).unwrap();
    let cache = TokenCache::open(&path).unwrap();
    for index in 0..cache.len() {
        let picture = data().picture(index).unwrap();
        let mirrored = pixels::augment::horizontal_flip(&picture);
        let wanted = [picture, mirrored].map(|picture| {
            let tokens = encoder.encode_picture(picture.to_unit_planes());
            tokens.into_iter().map(usize::from).collect::<Vec<_>>()
        });
        assert_eq!(views(&cache, index), wanted);
    }
}

/// The toy data set, with two captions of every third picture, and none of the others.
struct Told {
    pictures: Arc<dyn DataSet>,
    captions: [String; 2],
}

impl DataSet for Told {
    fn len(&self) -> usize {
        self.pictures.len()
    }
    fn classes(&self) -> &[String] {
        self.pictures.classes()
    }
    fn label(&self, index: usize) -> usize {
        self.pictures.label(index)
    }
    fn name(&self, index: usize) -> &str {
        self.pictures.name(index)
    }
    fn captions(&self, index: usize) -> &[String] {
        if index.is_multiple_of(3) { &self.captions } else { &[] }
    }
    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        match index {
            6 => Err(PixelsError::Damaged { name: "g".into(), reason: "cut".into() }),
            _ => self.pictures.picture(index),
        }
    }
}

#[test]
fn should_keep_the_captions_of_a_data_set_those_of_unreadable_pictures_too() {
    let folder = tempfile::tempdir().unwrap();
    stage_one(&stage_one_recipe(1)).export(&folder.path().join("model")).unwrap();
    let model = Model::read(folder.path().join("model")).unwrap();
    let captions = ["a pattern".to_owned(), "dots,\nmany of them".to_owned()];
    let told: Arc<dyn DataSet> = Arc::new(Told { pictures: data(), captions });
    let length = model.config.tokenizer.layout().len();
    let encode = |_: &Picture| Ok(vec![0; length]);
    let go_on = |_, _| ControlFlow::Continue(());
    let path = folder.path().join("cache");
    for shard in 0..2 {
        let shard = Shard::new(shard, 2).unwrap();
        let options = BuildOptions { views: Views::Center, shard, strict: false };
        build(&told, &model, encode, &path, options, go_on).unwrap();
    }
    let cache = TokenCache::open(&path).unwrap();
    for index in 0..told.len() {
        assert_eq!(cache.captions(index).unwrap(), told.captions(index));
    }
    assert!(cache.verify().is_empty());

    // A data set without captions has a cache of the form without.
    let path = folder.path().join("plain");
    let options = BuildOptions { views: Views::Center, shard: Shard::WHOLE, strict: false };
    build(&data(), &model, encode, &path, options, go_on).unwrap();
    assert_eq!(TokenCache::open(&path).unwrap().header().captions, None);
}

#[test]
fn should_end_with_the_devices_error_and_go_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    stage_one(&stage_one_recipe(1)).export(&folder.path().join("model")).unwrap();
    let model = Model::read(folder.path().join("model")).unwrap();
    let length = model.config.tokenizer.layout().len();
    let path = folder.path().join("cache");
    let options = BuildOptions { views: Views::Center, shard: Shard::WHOLE, strict: false };
    let mut encoded = 0;
    let mut lost_after = |most: usize| {
        let encode = |_: &Picture| {
            encoded += 1;
            match encoded <= most {
                true => Ok(vec![0; length]),
                false => Err(pipeline::PipelineError::NoDecoder),
            }
        };
        build(&data(), &model, encode, &path, options, |_, _| ControlFlow::Continue(()))
    };
    assert!(matches!(lost_after(2).unwrap_err(), BuildError::Encode(_)));
    assert!(lost_after(usize::MAX).unwrap().is_empty());
    assert_eq!(TokenCache::open(&path).unwrap().len(), data().len());
}

#[test]
fn should_end_where_it_is_asked_to_and_go_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    stage_one(&stage_one_recipe(1)).export(&folder.path().join("model")).unwrap();
    let model = Model::read(folder.path().join("model")).unwrap();
    let length = model.config.tokenizer.layout().len();
    let options = BuildOptions { views: Views::Mirrored, shard: Shard::WHOLE, strict: false };
    let mut encoded = 0;
    let mut until = |most: usize, name: &str| {
        let encode = |_: &Picture| {
            encoded += 1;
            Ok(vec![0; length])
        };
        let progress = |done, total| {
            assert_eq!(total, data().len());
            if done < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let built = build(&data(), &model, encode, &folder.path().join(name), options, progress);
        (built, std::mem::take(&mut encoded))
    };
    let total = data().len();
    let (stopped, before) = until(2, "stopped");
    assert!(matches!(stopped, Err(BuildError::Stopped { done: 2, total: all }) if all == total));
    let (built, after) = until(usize::MAX, "stopped");
    assert!(built.unwrap().is_empty());
    // Nothing is encoded twice.
    assert_eq!((before, after), (4, 2 * (total - 2)));
    until(usize::MAX, "whole").0.unwrap();
    for entry in std::fs::read_dir(folder.path().join("whole")).unwrap() {
        let name = entry.unwrap().file_name();
        let of = |cache: &str| std::fs::read(folder.path().join(cache).join(&name));
        if let Ok(bytes) = of("whole") {
            assert!(of("stopped").unwrap() == bytes, "{}", name.display());
        }
    }
}
