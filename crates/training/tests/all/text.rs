//! Training of a language model that reads prompts, at toy size.

use crate::{
    common::{Reports, captioned_cache, changed, text_recipe, text_trainer, token_cache},
    parallel::check_cuts,
    runs::{check_resume, model_tensors},
};
use burn::tensor::Device;
use model::Model;
use pipeline::cache::Views;
use pipeline::{Compute, Drawing};
use training::{
    recipe::{self, RecipeError, TextRecipe},
    run::{Begin, Trainer, plan, run},
    schedule::Schedule,
    trainers::{CachedPictures, TextTrainer},
};

#[test]
fn should_train_words_in_stages_and_resume_to_the_same_bits() {
    let cache = captioned_cache();
    let mut recipe = text_recipe();
    recipe.schedule.accumulate = 2;
    recipe.schedule.ema_decay = Some(0.5);
    let (folder, losses) =
        check_resume(&recipe, "language.safetensors", || text_trainer(&recipe, cache.path()));
    // Sixteen codes, of which it knows nothing.
    assert!((losses[&1] - f64::ln(16.0)).abs() < 0.1, "{losses:?}");
    let log = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    let reads: Vec<bool> = log.lines().map(|line| line.contains("\"text_loss\"")).collect();
    assert_eq!(reads, [false, false, true, true]);

    let model = Model::read(folder.path().join("model")).unwrap();
    assert_eq!(model.config.sampling, recipe.sampling);
    let prompts = model.prompts().unwrap();
    let draw = Compute::default().drawer(&model).unwrap();
    let request = generator::Request {
        condition: prompts.condition("the picture 1 of ten").unwrap(),
        seed: 1,
        index: 0,
        forced: Vec::new(),
    };
    let drawing = Drawing::of(&*draw, &[request], &model.config.sampling, 1).unwrap();
    assert_eq!(drawing.tokens().unwrap()[0].len(), model.config.tokenizer.layout().len());
}

#[test]
fn should_leave_the_language_model_as_it_is_while_adaptor_and_head_learn() {
    let cache = captioned_cache();
    let recipe =
        changed(&text_recipe(), &["steps=2", "stages=[{from=0,language=0.0,image_side=1.0}]"]);
    let (begun, trained) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trainer = text_trainer(&recipe, cache.path());
    trainer.export(&begun.path().join("model")).unwrap();
    run(trainer, &recipe, trained.path(), Begin::New, &mut Reports::default()).unwrap();
    let of = |folder: &tempfile::TempDir, file| model_tensors(folder.path(), file);
    let language = "language.safetensors";
    assert_eq!(of(&begun, language), of(&trained, language));
    let (before, after) =
        (of(&begun, "image_side.safetensors"), of(&trained, "image_side.safetensors"));
    for (name, tensor) in &before {
        assert_ne!(tensor, &after[name], "{name}");
    }
}

#[test]
fn should_train_words_alike_however_a_step_is_cut() {
    let cache = captioned_cache();
    check_cuts(|cut, communicator| {
        let mut recipe = text_recipe();
        recipe.stages.clear();
        cut(&mut recipe.schedule);
        let pictures = CachedPictures::open(cache.path(), &recipe.schedule).unwrap();
        let pictures = pictures.with_heldout(cache.path()).unwrap();
        let trainer = TextTrainer::new(recipe, pictures, None, &Device::flex()).unwrap();
        trainer.with_communicator(communicator).unwrap()
    });
}

#[test]
fn should_learn_which_picture_a_caption_belongs_to() {
    let cache = captioned_cache();
    let recipe = changed(
        &text_recipe(),
        &[
            "steps=150",
            "batch=9",
            "log_every=150",
            "checkpoint_every=150",
            "learning_rate=1e-2",
            "caption_dropout=0.0",
            "stages=[]",
            "architecture.width=32",
        ],
    );
    let recipe =
        TextRecipe { schedule: Schedule { samples_every: None, ..recipe.schedule }, ..recipe };
    let folder = tempfile::tempdir().unwrap();
    let trainer = text_trainer(&recipe, cache.path());
    run(trainer, &recipe, folder.path(), Begin::New, &mut Reports::default()).unwrap();
    let model = Model::read(folder.path().join("model")).unwrap();
    let begun = TextRecipe { architecture: None, ..recipe };
    let pictures = CachedPictures::open(cache.path(), &begun.schedule).unwrap();
    let pictures = pictures.with_heldout(cache.path()).unwrap();
    let mut trainer = TextTrainer::new(begun, pictures, Some(&model), &Device::flex()).unwrap();
    // It goes on from what it was, and knows the pictures by heart, of sixteen codes.
    let loss = trainer.evaluate().unwrap();
    assert!(loss < 0.5 * f64::ln(16.0), "{loss}");
}

#[test]
fn should_leave_pictures_without_captions_away_and_refuse_what_does_not_fit() {
    let cache = captioned_cache();
    let recipe = text_recipe();
    let trainer = text_trainer(&recipe, cache.path());
    let plan = plan(&trainer, &recipe).unwrap();
    assert_eq!((plan.scope.pictures, plan.scope.learned), (10, 9));
    assert!(plan.scope.warnings[0].contains("1 of 10 pictures have no caption"));
    let folder = tempfile::tempdir().unwrap();
    trainer.export(folder.path()).unwrap();
    let model = Model::read(folder.path()).unwrap();

    let refused = |recipe: &TextRecipe, cache, from: Option<&Model>| {
        let pictures = CachedPictures::open(cache, &recipe.schedule).unwrap();
        let refused = TextTrainer::new(recipe.clone(), pictures, from, &Device::flex());
        refused.err().expect("it does not fit").to_string()
    };
    let plain = token_cache(Views::Center);
    assert!(
        refused(&recipe, plain.path(), None)
            .contains("no picture of the token cache has a caption")
    );
    assert!(refused(&recipe, cache.path(), Some(&model)).contains("another one"));
    let mut without = recipe.clone();
    without.architecture = None;
    assert!(refused(&without, cache.path(), None).contains("goes on from a language model"));
    // A tokenizer that has learned something else.
    let other = Model::read(crate::common::home().path("models/mini").unwrap()).unwrap();
    assert!(refused(&without, cache.path(), Some(&other)).contains("tokenizer"));
    let wrong =
        recipe::read::<TextRecipe>("mini-text", &["architecture.vocabulary=200".to_owned()]);
    assert!(wrong.unwrap_err().to_string().contains("261"));
    assert!(matches!(
        recipe::read::<TextRecipe>(
            "mini-text",
            &["stages=[{from=0,language=0.0,image_side=0.0}]".to_owned()],
        ),
        Err(RecipeError::Value { key: "stages", .. })
    ));
}
