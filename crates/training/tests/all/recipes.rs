//! The recipes of this repository: they parse, are of the published sizes, and state what they are.

use std::{fs, path::PathBuf};

use burn::tensor::Device;
use generator::GeneratorConfig;
use tokenizer::{DecoderKind, TokenizerConfig, presets};
use training::{
    recipe::{self, GeneratorRecipe, Recipe, StageOneRecipe, StageTwoRecipe, TextRecipe},
    trainers::StageOne,
};

fn folder() -> PathBuf {
    fixtures::repository().join("recipes")
}

fn read<R: Recipe>(name: &str) -> R {
    recipe::read(name, &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// The names of all recipes that have this file.
fn names(file: &str) -> Vec<String> {
    let folders = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = folders
        .filter(|path| path.join(file).exists())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// The program carries the file as it is, and its comment says how it is run and what comes out.
fn check<R: Recipe + PartialEq + std::fmt::Debug>(name: &str, file: &str) {
    let path = folder().join(name).join(file);
    let from_file: R = recipe::read(path.to_str().unwrap(), &[]).unwrap();
    assert_eq!(read::<R>(name), from_file, "{name}/{file}");
    let text = std::fs::read_to_string(path).unwrap();
    let comment: String = text.lines().take_while(|line| line.starts_with('#')).collect();
    let command = match file {
        "generator.toml" => "generator",
        "text.toml" => "text",
        _ => "tokenizer",
    };
    assert!(comment.contains(&format!("alitok train {command} ")), "{name}/{file}: no command");
    assert!(comment.contains(&format!("--recipe {name} ")), "{name}/{file}: another recipe");
    let ours = ["mini", "mini-4096", "mini-sharp", "mini-text", "quick", "shapes"].contains(&name);
    assert!(ours || comment.contains("Expected"), "{name}/{file}: no expected result");
    let schedule = from_file.schedule();
    assert!(schedule.warmup_steps < schedule.steps, "{name}/{file}");
}

#[test]
fn should_carry_every_recipe_of_the_repository() {
    for name in names("tokenizer_stage_1.toml") {
        check::<StageOneRecipe>(&name, "tokenizer_stage_1.toml");
    }
    for name in names("tokenizer_stage_2.toml") {
        check::<StageTwoRecipe>(&name, "tokenizer_stage_2.toml");
    }
    for name in names("generator.toml") {
        check::<GeneratorRecipe>(&name, "generator.toml");
    }
    for name in names("text.toml") {
        check::<TextRecipe>(&name, "text.toml");
    }
}

fn causal_parameters(config: &TokenizerConfig) -> usize {
    parameters(config, DecoderKind::Causal)
}

fn parameters(config: &TokenizerConfig, kind: DecoderKind) -> usize {
    let decoder = config.decoder(kind).unwrap();
    config.encoder_parameters() + config.codebook_parameters() + config.decoder_parameters(decoder)
}

#[test]
fn should_train_tokenizers_of_the_published_sizes() {
    for (name, side, codes, first, second) in [
        ("paper", 256, 4096, Some(389_833_260), Some(389_962_284)),
        ("paper-16384", 256, 16384, Some(390_226_476), Some(390_355_500)),
        ("paper-512", 512, 4096, None, None),
    ] {
        let stage_one: StageOneRecipe = read(name);
        let stage_two: StageTwoRecipe = read(name);
        let mut config = stage_one.architecture;
        first.inspect(|&count| assert_eq!(causal_parameters(&config), count, "{name}"));
        config.bidirectional_decoder = Some(stage_two.decoder);
        let count = parameters(&config, DecoderKind::Bidirectional);
        second.inspect(|&expected| assert_eq!(count, expected, "{name}"));
        assert_eq!(config, presets::paper(side, codes), "{name}");
    }

    let paper = |name: &str| read::<StageOneRecipe>(name).architecture;
    let base = paper("paper");
    assert_eq!(paper("table-3-a"), presets::without_alignment(base.clone()));
    assert_eq!(paper("table-3-b"), presets::without_prefix(base.clone()));
    assert_eq!(paper("table-3-c"), presets::without_auxiliary_loss(base.clone()));
    assert_eq!(paper("table-3-d"), base);
    assert_eq!(paper("figure-2"), presets::with_causal_encoder(base));
}

#[test]
fn should_train_tokenizers_as_long_as_published_in_three_phases() {
    let steps = |phases: &[training::phases::Phase]| -> Vec<u64> {
        phases.iter().map(|phase| phase.from).collect()
    };
    for name in ["paper", "paper-16384"] {
        let one: StageOneRecipe = read(name);
        assert_eq!((one.schedule.steps, one.schedule.batch), (600_000, 256));
        assert_eq!(steps(&one.phases), [0, 50_000, 500_000]);
        let two: StageTwoRecipe = read(name);
        assert_eq!((two.schedule.steps, two.schedule.batch), (300_000, 256));
        assert_eq!(steps(&two.phases), [0, 50_000, 200_000]);
        for (phases, start) in [(one.phases, one.discriminator), (two.phases, two.discriminator)] {
            let adversarial: Vec<f64> = phases.iter().map(|phase| phase.adversarial).collect();
            assert_eq!(adversarial, [0.0, 0.0, 0.1]);
            assert_eq!(start.unwrap().start, phases[2].from);
        }
    }
    let rows = ["table-3-a", "table-3-b", "table-3-c", "table-3-d", "figure-2"];
    let weights: Vec<f64> = rows
        .map(|name| {
            let recipe: StageOneRecipe = read(name);
            assert_eq!(recipe.schedule.steps, 300_000, "{name}");
            recipe.loss.auxiliary
        })
        .to_vec();
    assert_eq!(weights, [0.0, 0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn should_train_generators_of_the_published_sizes_as_long_as_published() {
    // Steps of an epoch, in the paper's Fig. 6 and Table 7.
    let epochs = |count: u64| 625 * count;
    for (name, tokenizer, steps, parameters) in [
        ("paper-b", "paper", epochs(800), Some(177_048_064)),
        ("paper-b-400", "paper", epochs(400), Some(177_048_064)),
        ("paper-l", "paper", epochs(800), Some(317_851_648)),
        ("paper-l-400", "paper", epochs(400), Some(317_851_648)),
        ("paper-xl", "paper", epochs(400), Some(662_141_696)),
        ("paper-xl-16384", "paper-16384", epochs(400), None),
        ("table-3", "table-3-d", epochs(200), Some(177_048_064)),
        ("paper-512", "paper-512", epochs(100), Some(317_851_648)),
    ] {
        let recipe: GeneratorRecipe = read(name);
        let tokenizer = read::<StageOneRecipe>(tokenizer).architecture;
        let config = GeneratorConfig {
            layout: tokenizer.layout(),
            codes: tokenizer.codes,
            classes: 1000,
            width: recipe.architecture.width,
            layers: recipe.architecture.layers,
            heads: recipe.architecture.heads,
            key_value_heads: None,
        };
        config.validate().unwrap();
        parameters.inspect(|&count| assert_eq!(config.parameter_count(), count, "{name}"));
        assert_eq!((recipe.schedule.steps, recipe.schedule.batch), (steps, 2048), "{name}");
    }
}

/// Paths of the numbers in a table.
fn numbers(table: &toml::Table, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => numbers(inner, &path, found),
            toml::Value::Integer(_) | toml::Value::Float(_) => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn should_plan_or_refuse_a_training_whatever_numbers_its_recipe_states() {
    let recipe = crate::common::stage_one_recipe(4);
    let mut paths = Vec::new();
    numbers(&toml::Table::try_from(&recipe).unwrap(), "", &mut paths);
    assert!(paths.len() > 25, "{paths:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recipe.toml");
    fs::write(&file, toml::to_string(&recipe).unwrap()).unwrap();
    let (mut planned, mut refused) = (0, 0);
    for path in &paths {
        for other in [
            "0",
            "1",
            "2147483648",
            "9223372036854775807",
            "9223372036854775808",
            "-1",
            "nan",
            "1e300",
        ] {
            let read = recipe::read::<StageOneRecipe>(
                file.to_str().unwrap(),
                &[format!("{path}={other}")],
            );
            let told = read.map_err(|error| error.to_string()).and_then(|recipe| {
                let (data, home) = (crate::common::data(), crate::common::home());
                let trainer = StageOne::new(recipe.clone(), data, &home, &Device::flex());
                let plan = trainer.and_then(|trainer| training::run::plan(&trainer, &recipe));
                plan.map_err(|error| error.to_string())
            });
            match told {
                Ok(plan) => {
                    planned += 1;
                    assert!(plan.memory > 0);
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.is_empty(), "{path}={other}");
                }
            }
        }
    }
    assert!(planned > 40 && refused > 100, "{planned} planned, {refused} refused");
}

#[test]
fn should_explain_every_setting_of_every_recipe() {
    let page = fs::read_to_string(fixtures::repository().join("docs/recipes.md")).unwrap();
    // Sizes of transformers share a line: `encoder.width`, `.layers`, `.heads`.
    let is_explained = |path: &str| {
        let last = path.rsplit('.').next().unwrap();
        page.contains(&format!("`{path}`"))
            || path.split_once('.').is_some() && page.contains(&format!("`.{last}`"))
    };
    let mut missing = Vec::new();
    let mut check = |table: toml::Table, prefix: &str| {
        let mut stack = vec![(table, prefix.to_owned())];
        while let Some((table, prefix)) = stack.pop() {
            for (key, value) in table {
                let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                // Tables in a line of their own are explained as one.
                let whole = ["augmentation.crop", "discriminator.architecture"].contains(&&*path);
                match value {
                    toml::Value::Table(inner) if !whole => stack.push((inner, path)),
                    toml::Value::Array(list) if path == "phases" => {
                        stack.extend(list.into_iter().filter_map(|phase| match phase {
                            toml::Value::Table(phase) => Some((phase, path.clone())),
                            _ => None,
                        }));
                    }
                    _ if !is_explained(&path) => missing.push(path),
                    _ => {}
                }
            }
        }
    };
    for (_, _, text) in recipe::bundled() {
        check(toml::from_str(text).unwrap(), "");
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn should_train_words_as_long_as_published_adaptor_and_head_first() {
    let recipe: TextRecipe = read("paper-text");
    assert_eq!((recipe.schedule.steps, recipe.caption_dropout), (30_000, 0.1));
    assert_eq!(recipe.architecture, None);
    let trained: Vec<[bool; 2]> =
        recipe.stages.iter().map(|stage| [stage.language > 0.0, stage.image_side > 0.0]).collect();
    assert_eq!(trained, [[false, true], [true, true]]);
    let rates = recipe.learning_rates();
    assert_eq!([300, 2500].map(|step| rates.rate(step)), [1e-3, 1e-4]);
}
