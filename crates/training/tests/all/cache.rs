//! The views of a picture in a token cache.

use crate::common::{data, stage_one, stage_one_recipe};
use burn::tensor::Device;
use model::Model;
use token_cache::{Shard, TokenCache};
use training::{
    cache::{BuildOptions, Views, build},
    run::Trainer,
};

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
    let encode = |picture: &pixels::Picture| encoder.encode_picture(picture.to_unit_planes());
    let options = BuildOptions { views: Views::Mirrored, shard: Shard::WHOLE, strict: true };
    build(&data(), &model, encode, &path, options, |_, _| {}).unwrap();
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
