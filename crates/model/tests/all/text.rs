//! Models that read prompts: written, read, and what is wrong with damaged ones.

use std::fs;

use files::{HostTensor, TensorMap, safetensors::StorageFormat};
use fixtures::{Scratch, fixture, home};
use language::{ControlTokens, ImageSide, LanguageConfig, presets};
use model::{
    Model, ModelBytes, ModelConfig, ModelContents, ModelError, TextBytes, TextModelContents,
};

/// The tokenizer of the bundled model, and a small language model of no training.
fn write(scratch: &Scratch) -> (Model, TensorMap) {
    let mini = Model::read(home().path("models/mini").unwrap()).unwrap();
    let tokenizer = mini.config.tokenizer.clone();
    let control = ControlTokens {
        message_start: 1,
        message_end: 2,
        picture_start: 3,
        picture_end: 4,
        padding: 0,
    };
    let preset =
        presets::qwen2_half_billion(tokenizer.layout(), tokenizer.codes, tokenizer.token_size);
    let language = LanguageConfig {
        vocabulary: 352,
        width: 16,
        layers: 2,
        heads: 4,
        key_value_heads: 2,
        hidden: 24,
        adaptor_hidden: 12,
        head_hidden: 20,
        control,
        ..preset
    };
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        (name, HostTensor::new(shape, vec![0.5; count]))
    };
    let tensors: TensorMap = language.language_shapes().into_iter().map(tensor).collect();
    let image_side = ImageSide::fresh(&language, 1);
    let text_tokenizer = fs::read_to_string(fixture("text_tiny/tokenizer.json")).unwrap();
    let contents = TextModelContents {
        config: &ModelConfig::of_prompts(tokenizer, language),
        tokenizer: (&mini.tokenizer_tensors().unwrap(), StorageFormat::Bf16),
        language: (&tensors, StorageFormat::Bf16),
        image_side: &image_side,
        text_tokenizer: &text_tokenizer,
        readme: None,
    };
    (contents.write(scratch.path("model")).unwrap(), image_side)
}

#[test]
fn should_read_what_it_writes_from_a_folder_and_from_bytes() {
    let scratch = Scratch::new();
    let (written, image_side) = write(&scratch);
    let folder = scratch.path("model");
    let read = Model::read(&folder).unwrap();
    assert_eq!(read, written);
    read.check_files().unwrap();
    assert!(read.draws() && read.classes.is_empty());
    assert_eq!((read.config.sampling.guidance, read.config.sampling.guidance_power), (5.0, 0.0));
    assert_eq!(read.image_side_tensors().unwrap(), image_side);
    assert!(read.language_tensors().unwrap()["norm.weight"].values.iter().all(|&x| x == 0.5));
    let card = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(card.contains("text-to-image") && card.contains("language model"), "{card}");

    let bytes = |file: &str| fs::read(folder.join(file)).unwrap().into();
    let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    let files = ModelBytes {
        name: "nowhere".to_owned(),
        config: text("config.json"),
        classes: None,
        tokenizer: bytes("tokenizer.safetensors"),
        generator: None,
        text: Some(TextBytes {
            language: bytes("language.safetensors"),
            image_side: bytes("image_side.safetensors"),
            text_tokenizer: text("text_tokenizer.json").into(),
        }),
    };
    let memory = Model::from_bytes(files.clone()).unwrap();
    assert_eq!(memory.config, read.config);
    memory.check_files().unwrap();
    let condition = |model: &Model| model.prompts().unwrap().condition("a red apple").unwrap();
    assert_eq!(condition(&memory), condition(&read));
    assert!(memory.language_tensors().unwrap() == read.language_tensors().unwrap());
    let error = Model::from_bytes(ModelBytes { text: None, ..files }).unwrap_err();
    assert!(
        matches!(error, ModelError::NoModel { missing: "language.safetensors", .. }),
        "{error}"
    );
}

#[test]
fn should_say_what_a_model_of_prompts_lacks() {
    let scratch = Scratch::new();
    let (model, _) = write(&scratch);
    assert!(matches!(model.generator_config(), Err(ModelError::NoClasses { .. })));
    let mini = Model::read(home().path("models/mini").unwrap()).unwrap();
    let error = mini.language_config().unwrap_err().to_string();
    assert!(error.contains("ask for one of its classes"), "{error}");

    let folder = scratch.path("model");
    for file in ["language.safetensors", "image_side.safetensors", "text_tokenizer.json"] {
        let (from, to) = (folder.join(file), scratch.path("aside"));
        fs::rename(&from, &to).unwrap();
        let error = Model::read(&folder).unwrap_err();
        assert!(matches!(&error, ModelError::NoModel { missing, .. } if *missing == file));
        fs::rename(&to, &from).unwrap();
    }
    let config = folder.join("config.json");
    let good = fs::read_to_string(&config).unwrap();
    for (from, to, part) in [
        ("\"vocabulary\": 352", "\"vocabulary\": 3", "`control.picture_start`"),
        ("\"width\": 16", "\"width\": 18", "does not divide"),
        ("\"language\"", "\"languages\"", "languages"),
        ("\"code_size\"", "\"code_sizes\"", "code_sizes"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&config, good.replacen(from, to, 1)).unwrap();
        let error = Model::read(&folder).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let smaller = good.replace("\"vocabulary\": 352", "\"vocabulary\": 100");
    fs::write(&config, smaller).unwrap();
    let error = Model::read(&folder).unwrap().prompts().unwrap_err().to_string();
    assert!(error.contains("ids up to 339") && error.contains("100 rows"), "{error}");

    let mut both = model.config.clone();
    both.generator.clone_from(&mini.config.generator);
    let contents = ModelContents {
        config: &both,
        classes: &mini.classes,
        tokenizer: &mini.tokenizer_tensors().unwrap(),
        generator: Some(&mini.generator_tensors().unwrap()),
        format: StorageFormat::F32,
        readme: None,
    };
    let error = contents.write(scratch.path("both")).unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
    assert!(!scratch.path("both").exists());
}
