//! What every recipe does in a few steps at toy size: the losses, and the norm of the parameters at
//! the end, as they were when the recipe was last looked at.
//!
//! All that a recipe says stays, but for sizes and for how high its learning rate is: moments, decay
//! and its groups, clipping, dropout, clustering, augmentation, the order of its phases, precision.
//! Tried were a weight decay of 0.025 instead of 0.03, β₂ of 0.95 instead of 0.96, dropout of 0.09
//! instead of 0.1, other decay groups, another weight of the adversarial loss, and no flips: each moves
//! a number by more than 1e-4 of it. Kernels of other instruction sets add in another order, which
//! moves it by some 1e-6.

use std::{collections::BTreeMap, fmt::Write};

use crate::common::{Reports, captioned_cache, data, home, text_trainer, token_cache};
use burn::tensor::Device;
use files::safetensors;
use tokenizer::{DecoderConfig, EncoderInput, ImageSize, TransformerConfig};

use pipeline::cache::Views;
use training::{
    perceptual::PerceptualNetwork,
    phases::{DiscriminatorRecipe, Phase},
    recipe::{
        self, GeneratorRecipe, GeneratorSize, LanguageSize, Recipe, StageOneRecipe, StageTwoRecipe,
        TextRecipe, Training,
    },
    run::{Begin, Trainer, run},
    schedule::Schedule,
    trainers::{GeneratorTrainer, StageOne, StageTwo},
};

const STEPS: u64 = 9;
const TOLERANCE: f64 = 1e-4;
const SMALL: TransformerConfig = TransformerConfig { width: 16, layers: 1, heads: 2 };
/// Tokens in the grid of pictures of 16 pixels with patches of 4.
const GRID: usize = 16;

/// Few steps of few pictures, each reported, at a learning rate that moves even so short a run.
fn shrink_schedule(schedule: &mut Schedule, learning_rate: f64) {
    let raised = learning_rate / schedule.learning_rate;
    schedule.learning_rate *= raised;
    schedule.final_learning_rate *= raised;
    (schedule.steps, schedule.warmup_steps, schedule.batch) = (STEPS, 2, 8);
    (schedule.checkpoint_every, schedule.log_every) = (STEPS, 1);
    schedule.samples_every = None;
    schedule.evaluate_every = None;
}

/// All phases one after another, on the one network that comes with the program.
fn shrink_phases(phases: &mut [Phase], discriminator: &mut Option<DiscriminatorRecipe>) {
    for (index, phase) in phases.iter_mut().enumerate() {
        phase.from = 3 * index as u64;
        for term in &mut phase.perceptual {
            term.network = PerceptualNetwork::EfficientnetLite0;
            term.weight *= 0.02; // or nothing else would be seen
        }
    }
    if let Some(discriminator) = discriminator {
        let adversarial = phases.iter().find(|phase| phase.adversarial > 0.0).unwrap();
        discriminator.start = adversarial.from;
        discriminator.learning_rate = 1e-3;
        discriminator.architecture =
            training::discriminator::DiscriminatorConfig::PatchGan { channels: 4, layers: 1 };
    }
}

fn shrink_decoder(decoder: &mut DecoderConfig, leading: usize) {
    decoder.transformer = SMALL;
    decoder.leading = decoder.leading.min(leading);
}

fn stage_one(name: &str) -> StageOneRecipe {
    let mut recipe: StageOneRecipe = recipe::read(name, &[]).unwrap();
    shrink_schedule(&mut recipe.schedule, 5e-3);
    shrink_phases(&mut recipe.phases, &mut recipe.discriminator);
    let architecture = &mut recipe.architecture;
    architecture.image = ImageSize::square(16);
    architecture.patch = 4;
    architecture.prefix = architecture.prefix.min(4);
    (architecture.codes, architecture.token_size) = (16, 8);
    architecture.encoder = SMALL;
    let causal_encoder = architecture.encoder_input == EncoderInput::CausalPatches;
    let leading = if causal_encoder { GRID } else { 4 };
    for decoder in [&mut architecture.causal_decoder, &mut architecture.bidirectional_decoder] {
        decoder.iter_mut().for_each(|decoder| shrink_decoder(decoder, leading));
    }
    recipe
}

/// The losses of all steps, and the norm of the parameters of `file` after the last.
fn curve<T: Trainer, R: Recipe>(trainer: T, recipe: &R, file: &str) -> Vec<f64> {
    recipe.validate().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut reports = Reports::default();
    run(trainer, recipe, folder.path(), Begin::New, &mut reports).unwrap();
    let parameters = safetensors::read(folder.path().join("model").join(file)).unwrap();
    let values = parameters.values().flat_map(|tensor| &tensor.values);
    let squares: f64 = values.map(|value| f64::from(*value).powi(2)).sum();
    let losses = reports.all.iter().map(|report| report.measures[0].1);
    losses.chain([squares.sqrt()]).collect()
}

/// The curves of recipes at toy size. Many of them differ in nothing but size, and are trained
/// once.
#[derive(Default)]
struct Trained {
    stage_one: Vec<(StageOneRecipe, Vec<f64>)>,
    stage_two: Vec<(StageTwoRecipe, Vec<f64>)>,
    generator: Vec<(GeneratorRecipe, Vec<f64>)>,
    text: Vec<(TextRecipe, Vec<f64>)>,
}

/// The curve of a recipe like this one, or that which `train` finds.
fn once<R: PartialEq>(
    known: &mut Vec<(R, Vec<f64>)>,
    recipe: R,
    train: impl FnOnce(&R) -> Vec<f64>,
) -> Vec<f64> {
    if let Some((_, curve)) = known.iter().find(|(other, _)| *other == recipe) {
        return curve.clone();
    }
    let curve = train(&recipe);
    known.push((recipe, curve.clone()));
    curve
}

/// The curve of a bundled recipe.
fn train(name: &str, training: Training, trained: &mut Trained) -> Vec<f64> {
    let device = Device::flex();
    match training {
        Training::StageOne => once(&mut trained.stage_one, stage_one(name), |recipe| {
            curve(
                StageOne::new(recipe.clone(), data(), &home(), &device).unwrap(),
                recipe,
                "tokenizer.safetensors",
            )
        }),
        Training::StageTwo => {
            let mut recipe: StageTwoRecipe = recipe::read(name, &[]).unwrap();
            shrink_schedule(&mut recipe.schedule, 5e-3);
            shrink_phases(&mut recipe.phases, &mut recipe.discriminator);
            shrink_decoder(&mut recipe.decoder, 4);
            once(&mut trained.stage_two, recipe, |recipe| {
                let first = StageOne::new(stage_one("mini"), data(), &home(), &device).unwrap();
                let folder = tempfile::tempdir().unwrap();
                first.export(folder.path()).unwrap();
                let first = model::Model::read(folder.path()).unwrap();
                let first = first.tokenizer(&device).unwrap();
                curve(
                    StageTwo::new(recipe.clone(), first, data(), &home(), &device).unwrap(),
                    recipe,
                    "tokenizer.safetensors",
                )
            })
        }
        Training::Generator => {
            let mut recipe: GeneratorRecipe = recipe::read(name, &[]).unwrap();
            shrink_schedule(&mut recipe.schedule, 1e-2);
            recipe.architecture = GeneratorSize { width: 16, layers: 1, heads: 2 };
            once(&mut trained.generator, recipe, |recipe| {
                let cache = token_cache(Views::TenCrop);
                curve(
                    GeneratorTrainer::new(recipe.clone(), cache.path(), &device).unwrap(),
                    recipe,
                    "generator.safetensors",
                )
            })
        }
        Training::Text => {
            let mut recipe: TextRecipe = recipe::read(name, &[]).unwrap();
            shrink_schedule(&mut recipe.schedule, 1e-2);
            for (index, stage) in recipe.stages.iter_mut().enumerate() {
                stage.from = 4 * index as u64;
                stage.warmup_steps = 1;
                stage.learning_rate = stage.learning_rate.map(|rate| 30.0 * rate);
            }
            recipe.architecture = Some(LanguageSize {
                vocabulary: 280,
                width: 16,
                layers: 1,
                heads: 2,
                key_value_heads: 1,
                hidden: 24,
                picture_positions: recipe
                    .architecture
                    .map_or_else(Default::default, |size| size.picture_positions),
            });
            once(&mut trained.text, recipe, |recipe| {
                let cache = captioned_cache();
                curve(text_trainer(recipe, cache.path()), recipe, "language.safetensors")
            })
        }
    }
}

#[test]
fn should_learn_as_every_recipe_did() {
    type Curves = BTreeMap<String, BTreeMap<String, Vec<f64>>>;
    let golden: Curves = toml::from_str(include_str!("golden.toml")).unwrap();
    let (mut curves, mut trained) = (Curves::new(), Trained::default());
    for (name, training, _) in recipe::bundled() {
        let group = format!("{training:?}");
        curves
            .entry(group)
            .or_default()
            .insert(name.to_owned(), train(name, training, &mut trained));
    }
    let mut table = String::new();
    let mut moved = Vec::new();
    for (group, curves) in &curves {
        writeln!(table, "[{group}]").unwrap();
        for (name, curve) in curves {
            let values: Vec<String> = curve.iter().map(|loss| format!("{loss:.7}")).collect();
            writeln!(table, "{name} = [{}]", values.join(", ")).unwrap();
            let expected = golden.get(group).and_then(|curves| curves.get(name));
            let same = expected.is_some_and(|expected| {
                let close = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * b.abs();
                expected.len() == curve.len() && curve.iter().zip(expected).all(close)
            });
            if !same {
                moved.push(format!("{group} {name}: {curve:.7?}, not {expected:.7?}"));
            }
        }
    }
    let known: usize = golden.values().map(BTreeMap::len).sum();
    let bundled = recipe::bundled().count();
    assert_eq!(known.max(bundled), bundled, "golden.toml has a recipe that is not there");
    assert!(moved.is_empty(), "{}\nall recipes now:\n{table}", moved.join("\n"));
}
