//! Released checkpoints to our models and back.

use std::{collections::BTreeSet, fs};

use burn::tensor::Device;
use files::safetensors::StorageFormat;
use files::{HostTensor, ParameterError, TensorMap};
use fixtures::fixture;
use generator::presets;
use model::{Model, ModelContents, ModelError, tokenizer_digest};
use operations::parameters::{collect, load};
use tokenizer::DecoderKind;
use tokens::TokenLayout;
use weights::{
    Checkpoint, ImportOptions, export, import,
    released::{
        ReleasedError, export_generator, export_tokenizer, import_generator, import_tokenizer,
    },
};

const LAYOUT: TokenLayout = TokenLayout::new(17, 16, 16);

fn read(name: &str) -> Checkpoint {
    Checkpoint::read(fixture(name)).unwrap()
}

fn problems(error: ReleasedError) -> Vec<ParameterError> {
    match error {
        ReleasedError::Tensors { problems, .. } => problems,
        other => panic!("{other}"),
    }
}

#[test]
fn should_infer_both_stages_and_give_their_tensors_back() {
    for (name, kind, leading) in [
        ("tokenizer_stage1.pth", DecoderKind::Causal, 1),
        ("tokenizer_stage2.pth", DecoderKind::Bidirectional, 32),
    ] {
        let imported = import_tokenizer(read(name)).unwrap();
        let config = &imported.config;
        assert_eq!((config.image.height, config.image.width, config.patch), (64, 64, 16));
        assert_eq!(config.layout(), TokenLayout::new(5, 4, 4));
        assert_eq!((config.codes, config.token_size), (64, 8));
        assert_eq!((config.encoder.width, config.encoder.layers, config.encoder.heads), (64, 2, 1));
        assert_eq!(config.best_decoder(), Some(kind));
        let decoder = config.decoder(kind).unwrap();
        assert_eq!((decoder.transformer.width, decoder.transformer.heads), (128, 2));
        assert_eq!(decoder.transformer.layers, 2);
        assert_eq!((decoder.leading, decoder.prefix_head), (leading, leading == 1));
        assert_eq!(imported.usage.as_ref().map(Vec::len), Some(64));

        // Our module has exactly these parameters, and keeps their values.
        let module = config.build(&Device::flex()).unwrap();
        let module = load(module, imported.tensors.clone()).unwrap();
        assert_eq!(collect(&module), imported.tensors);

        let mut exported = export_tokenizer(config, kind, collect(&module)).unwrap();
        exported.insert(
            "quantize.embed_prob".to_owned(),
            HostTensor::new([64], imported.usage.unwrap()),
        );
        assert_eq!(exported, read(name).tensors, "{name}");
    }
}

#[test]
fn should_infer_the_generator_and_give_its_tensors_back() {
    let (config, tensors) = import_generator(read("generator.pth"), LAYOUT).unwrap();
    assert_eq!((config.width, config.layers, config.heads), (64, 2, 4));
    assert_eq!((config.codes, config.classes), (64, 10));
    let module = load(config.build(&Device::flex()).unwrap(), tensors.clone()).unwrap();
    assert_eq!(collect(&module), tensors);
    let exported = export_generator(&config, collect(&module)).unwrap();
    assert_eq!(exported, read("generator.pth").tensors);
}

#[test]
fn should_turn_the_patch_convolution_into_rows_columns_channels() {
    let released = read("tokenizer_stage1.pth").tensors["encoder.patch_embed.weight"].clone();
    let imported = import_tokenizer(read("tokenizer_stage1.pth")).unwrap();
    let ours = &imported.tensors["encoder.patch_embedding.weight"];
    assert_eq!(ours.shape, [64, 16 * 16 * 3]);
    for (filter, channel, row, column) in [(0, 0, 0, 1), (3, 2, 5, 7), (63, 1, 15, 15)] {
        assert_eq!(
            ours.values[filter * 768 + (row * 16 + column) * 3 + channel],
            released.values[filter * 768 + channel * 256 + row * 16 + column]
        );
    }
}

#[test]
fn should_name_every_tensor_that_does_not_fit() {
    let mut checkpoint = read("tokenizer_stage1.pth");
    checkpoint.tensors.remove("decoder.ln_post.bias");
    checkpoint.tensors.insert("decoder.extra".into(), HostTensor::new([2], vec![0.0; 2]));
    checkpoint.tensors.insert("encoder.conv_out.bias".into(), HostTensor::new([7], vec![0.0; 7]));
    assert_eq!(
        problems(import_tokenizer(checkpoint).unwrap_err()),
        [
            ParameterError::Shape {
                name: "encoder.conv_out.bias".into(),
                expected: vec![8],
                got: vec![7],
            },
            ParameterError::Missing { name: "decoder.ln_post.bias".into(), expected: vec![128] },
            ParameterError::Unused { name: "decoder.extra".into(), shape: vec![2] },
        ]
    );

    let mut checkpoint = read("generator.pth");
    checkpoint.tensors.remove("blocks.0.mlp.w2.weight");
    assert_eq!(
        problems(import_generator(checkpoint, LAYOUT).unwrap_err()),
        [ParameterError::Missing {
            name: "blocks.0.mlp.w2.weight".into(),
            expected: vec![64, 256],
        }]
    );
}

#[test]
fn should_report_each_removed_tensor_by_name() {
    let names: BTreeSet<String> = read("tokenizer_stage2.pth").tensors.into_keys().collect();
    for name in names.iter().filter(|name| *name != "quantize.embed_prob") {
        let mut checkpoint = read("tokenizer_stage2.pth");
        checkpoint.tensors.remove(name);
        let message = import_tokenizer(checkpoint).unwrap_err().to_string();
        assert!(message.contains(name.as_str()), "{name}: {message}");
    }
    let mut checkpoint = read("tokenizer_stage2.pth");
    checkpoint.tensors.remove("quantize.embed_prob");
    assert_eq!(import_tokenizer(checkpoint).unwrap().usage, None);
}

#[test]
fn should_notice_swapped_and_foreign_files() {
    let swapped = import_tokenizer(read("generator.pth")).unwrap_err();
    assert!(swapped.to_string().contains("it is a generator, not a tokenizer"), "{swapped}");
    let swapped = import_generator(read("tokenizer_stage1.pth"), LAYOUT).unwrap_err();
    assert!(swapped.to_string().contains("it is a tokenizer, not a generator"), "{swapped}");
    assert!(import_generator(read("torch/views.pth"), LAYOUT).is_err());
    // Counts and masks are no weights; a weight in integers is a quantized model's.
    let mut checkpoint = read("generator.pth");
    checkpoint.others.insert("mask".into(), "a tensor of int8 of shape [4]".into());
    assert!(import_generator(checkpoint.clone(), LAYOUT).is_ok());
    let kind = "a tensor of int8 of shape [64, 256]";
    checkpoint.others.insert("blocks.0.mlp.w2.weight".into(), kind.into());
    let integers = import_generator(checkpoint, LAYOUT).unwrap_err().to_string();
    assert!(integers.contains("w2.weight` is a tensor of int8"), "{integers}");
}

fn options(format: StorageFormat) -> ImportOptions {
    ImportOptions { format, weights: None }
}

fn released_tiny(out: &std::path::Path, precision: StorageFormat) -> Model {
    let tokenizer = fixture("released_tiny/tokenizer.pth");
    let generator = fixture("released_tiny/generator.bin");
    import(&tokenizer, Some(&generator), out, options(precision)).unwrap().model
}

#[test]
fn should_import_a_whole_model_and_export_it_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("models/tiny");
    let written = released_tiny(&out, StorageFormat::F32);
    let model = Model::read(&out).unwrap();
    assert_eq!(model, written);
    assert_eq!(model.config.tokenizer.layout(), LAYOUT);
    assert_eq!(model.config.generator.as_ref().unwrap().layout, LAYOUT);
    assert_eq!(model.classes.len(), 10);
    assert_eq!(model.config.sampling.guidance, 1.0);
    let device = Device::flex();
    assert_eq!(collect(&model.tokenizer(&device).unwrap()), model.tokenizer_tensors().unwrap());
    assert_eq!(collect(&model.generator(&device).unwrap()), model.generator_tensors().unwrap());

    let mut tokenizer = read("released_tiny/tokenizer.pth").tensors;
    tokenizer.remove("quantize.embed_prob");
    let generator = read("released_tiny/generator.bin").tensors;
    for extension in ["pth", "safetensors"] {
        let path = folder.path().join(format!("out.{extension}"));
        export::export_tokenizer(&model, DecoderKind::Bidirectional, &path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap().tensors, tokenizer);
        export::export_generator(&model, &path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap().tensors, generator);
        assert!(export::export_tokenizer(&model, DecoderKind::Causal, &path).is_err());
    }
}

#[test]
fn should_write_equal_bytes_and_replace_an_older_model_whole() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let bytes = || -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    released_tiny(&out, StorageFormat::F32);
    let first = bytes();
    let names: Vec<_> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "classes.json",
            "config.json",
            "generator.safetensors",
            "tokenizer.safetensors"
        ]
    );
    released_tiny(&out, StorageFormat::F32);
    assert_eq!(bytes(), first);
    released_tiny(&out, StorageFormat::Bf16);
    assert_ne!(bytes(), first);
    // Nothing stands beside the model.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        fs::create_dir(folder.path().join("ordinary")).unwrap();
        assert_eq!(mode(&out), mode(&folder.path().join("ordinary")));
    }
}

#[test]
fn should_overwrite_nothing_but_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("photos");
    let refused = || {
        let tokenizer = fixture("released_tiny/tokenizer.pth");
        import(&tokenizer, None, &out, options(StorageFormat::F32)).unwrap_err().to_string()
    };
    fs::create_dir(&out).unwrap();
    fs::write(out.join("cat.png"), "cat").unwrap();
    assert!(refused().contains("`cat.png`"), "{}", refused());
    assert_eq!(fs::read(out.join("cat.png")).unwrap(), b"cat");

    // A model with a file of the user's in it.
    fs::remove_file(out.join("cat.png")).unwrap();
    released_tiny(&out, StorageFormat::F32);
    fs::write(out.join("notes.txt"), "mine").unwrap();
    assert!(refused().contains("`notes.txt`"), "{}", refused());
    assert!(out.join("generator.safetensors").exists());

    // A file, and a README alone.
    fs::remove_dir_all(&out).unwrap();
    fs::write(&out, "a file").unwrap();
    assert!(refused().contains("`a file`"), "{}", refused());
    fs::remove_file(&out).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("README.md"), "mine").unwrap();
    assert!(refused().contains("`README.md`"), "{}", refused());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn should_leave_nothing_behind_when_an_import_fails() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let tokenizer = fixture("released_tiny/tokenizer.pth");
    let wrong = fixture("tokenizer_stage1.pth");
    assert!(import(&tokenizer, Some(&wrong), &out, options(StorageFormat::F32)).is_err());
    assert!(
        import(&folder.path().join("missing.pth"), None, &out, options(StorageFormat::F32))
            .is_err()
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn should_refuse_a_folder_that_is_not_exactly_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    released_tiny(&out, StorageFormat::F32);
    let error = |out: &std::path::Path| Model::read(out).unwrap_err().to_string();
    let config = fs::read_to_string(out.join("config.json")).unwrap();

    let edited = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        fs::write(out.join("config.json"), config.replacen(from, to, 1)).unwrap();
        let error = error(&out);
        fs::write(out.join("config.json"), &config).unwrap();
        error
    };
    let unknown = edited("\"sampling\"", "\"colour\": 1, \"sampling\"");
    assert!(unknown.contains("unknown field `colour`"), "{unknown}");
    let unknown = edited("\"patch\"", "\"colour\": 1, \"patch\"");
    assert!(unknown.contains("unknown field `colour`"), "{unknown}");
    let version = edited("\"format\": 1", "\"format\": 9");
    assert!(version.contains("`format` is 9"), "{version}");
    let contradiction = edited("\"codes\": 64", "\"codes\": 65");
    assert!(contradiction.contains("codes"), "{contradiction}");
    let sampling = edited("\"temperature\": 1.0", "\"temperature\": -1.0");
    assert!(sampling.contains("temperature"), "{sampling}");
    assert!(edited("{", "[").contains("config.json"));

    let classes = fs::read(out.join("classes.json")).unwrap();
    fs::write(out.join("classes.json"), "[\"cat\"]").unwrap();
    assert!(error(&out).contains("1 names for 10 classes"), "{}", error(&out));
    fs::write(out.join("classes.json"), classes).unwrap();

    for name in ["generator.safetensors", "classes.json", "tokenizer.safetensors", "config.json"] {
        let moved = folder.path().join("moved");
        fs::rename(out.join(name), &moved).unwrap();
        assert!(error(&out).contains(&format!("`{name}`")), "{}", error(&out));
        fs::rename(&moved, out.join(name)).unwrap();
    }
    assert!(error(&folder.path().join("nowhere")).contains("nowhere"));
    Model::read(&out).unwrap();
}

#[test]
fn should_refuse_weights_with_a_missing_or_an_extra_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let model = released_tiny(&out, StorageFormat::F32);
    let generator = model.generator_tensors().unwrap();
    let mut tokenizer = model.tokenizer_tensors().unwrap();
    tokenizer.remove("quantizer.codebook");
    tokenizer.insert("stray".into(), HostTensor::new([1], vec![0.0]));
    let contents = ModelContents {
        config: &model.config,
        classes: &model.classes,
        tokenizer: &tokenizer,
        generator: Some(&generator),
        format: StorageFormat::F32,
        readme: None,
    };
    let broken = contents.write(&out).unwrap();
    let error = broken.tokenizer(&Device::flex()).unwrap_err();
    assert!(matches!(&error, ModelError::Tensors { problems, .. } if problems.len() == 2));
    for text in ["`quantizer.codebook` is missing", "`stray`", "tokenizer.safetensors"] {
        assert!(error.to_string().contains(text), "{error}");
    }
    let contents = ModelContents { generator: None, ..contents };
    assert!(matches!(contents.write(&out), Err(ModelError::Contradiction(_))));
}

#[test]
fn should_digest_what_decides_on_tokens_and_nothing_else() {
    let model = import_tokenizer(read("tokenizer_stage1.pth")).unwrap();
    let digest = tokenizer_digest(&model.tensors);
    assert_eq!(digest.len(), 64);
    let changed = |name: &str| {
        let mut tensors: TensorMap = model.tensors.clone();
        tensors.get_mut(name).unwrap().values[0] += 1.0;
        tokenizer_digest(&tensors) != digest
    };
    assert!(changed("encoder.latents.tokens"));
    assert!(changed("encoder.blocks.1.feed_forward.up.weight"));
    assert!(changed("quantizer.codebook"));
    assert!(!changed("causal_decoder.leading"));
    let mut other = model.tensors.clone();
    other.retain(|name, _| !name.starts_with("causal_decoder."));
    assert_eq!(tokenizer_digest(&other), digest);
}

#[test]
fn should_refuse_to_export_what_the_released_code_lacks() {
    let mut config = tokenizer::presets::mini();
    config.image.width *= 2;
    let error = export_tokenizer(&config, DecoderKind::Causal, TensorMap::new()).unwrap_err();
    assert!(error.to_string().contains("not square"), "{error}");
    let mut config = tokenizer::presets::mini();
    config.encoder.heads = 6;
    let error = export_tokenizer(&config, DecoderKind::Causal, TensorMap::new()).unwrap_err();
    assert!(error.to_string().contains("64 wide"), "{error}");
    // Every missing tensor of ours is named.
    let config = presets::mini(LAYOUT, 64, 10);
    let missing = problems(export_generator(&config, TensorMap::new()).unwrap_err());
    assert_eq!(missing.len(), 4 + 11 * config.layers);
}
