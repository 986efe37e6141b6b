//! A model that reads prompts.

use files::{HostTensor, TensorMap, safetensors::StorageFormat};
use language::{ControlTokens, LanguageConfig, presets};
use model::{Model, ModelConfig, TextModelContents};
use pipeline::{Drawing, SamplingChanges, prompt_requests, sampling};
use serde_json::json;
use server::Settings;

use crate::{MODEL, client::Running, compute, decoder, settings};

/// The bundled model's tokenizer, which `decoder` decodes, with a language model that has learned nothing.
fn model(folder: &std::path::Path) -> Model {
    let tokenizer = MODEL.config.tokenizer.clone();
    let (codes, size) = (tokenizer.codes, tokenizer.token_size);
    let control = ControlTokens {
        message_start: 1,
        message_end: 2,
        picture_start: 3,
        picture_end: 4,
        padding: 0,
    };
    let config = LanguageConfig {
        vocabulary: 352,
        width: 32,
        layers: 2,
        heads: 4,
        key_value_heads: 2,
        hidden: 40,
        adaptor_hidden: 32,
        head_hidden: 32,
        control,
        ..presets::qwen2_half_billion(tokenizer.layout(), codes, size)
    };
    let noise = |shapes: Vec<(String, Vec<usize>)>| -> TensorMap {
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let mut noise = tokens::noise::Noise::of_parameter(1, &name, 0);
            let values = (0..shape.iter().product()).map(|_| noise.normal() as f32 / 2.0).collect();
            (name, HostTensor::new(shape, values))
        };
        shapes.into_iter().map(tensor).collect()
    };
    let text = std::fs::read_to_string(fixtures::fixture("text_tiny/tokenizer.json")).unwrap();
    TextModelContents {
        tokenizer: (&MODEL.tokenizer_tensors().unwrap(), StorageFormat::F32),
        language: (&noise(config.language_shapes()), StorageFormat::F32),
        image_side: &noise(config.image_side_shapes()),
        text_tokenizer: &text,
        config: &ModelConfig::of_prompts(tokenizer, config),
        readme: None,
    }
    .write(folder)
    .unwrap()
}

#[test]
fn should_draw_what_a_prompt_says_beside_a_model_of_classes() {
    let scratch = fixtures::Scratch::new();
    let words = model(&scratch.path("words"));
    let models = vec![("mini".to_owned(), MODEL.clone()), ("words".to_owned(), words.clone())];
    let server = Running::start(Settings { models, ..settings() });
    let list = server.get("/v1/models").json();
    assert_eq!(list["data"][0]["reads_prompts"], json!(false));
    assert_eq!(list["data"][1]["reads_prompts"], json!(true));
    assert_eq!(list["data"][1]["classes"], json!([]));

    let text = "a red apple on a green table";
    let requests = prompt_requests(&words.prompts().unwrap(), &[text.to_owned()], 2, 5).unwrap();
    let sampling = sampling(&words, &SamplingChanges::default()).unwrap();
    let drawer = compute().drawer(&words).unwrap();
    let drawing = Drawing::of(&*drawer, &requests, &sampling, 1).unwrap();
    let expected: Vec<Vec<u8>> = drawing
        .tokens()
        .unwrap()
        .iter()
        .map(|tokens| decoder().decode(tokens).unwrap().encode_png())
        .collect();
    let body = json!({"model": "words", "prompt": text, "seed": 5, "n": 2});
    let answer = server.post("/v1/images/generations", &body.to_string());
    assert_eq!(answer.pictures(), expected);

    let stream = server.stream("/v1/pictures", &[], &body.to_string());
    let events = stream.events();
    assert_eq!(events[0].name, "queued");
    assert_eq!(events[0].data["prompt"], json!(text));
    assert!(events[0].data.get("class").is_none());

    for (field, value, part) in [
        ("prompt", json!(" "), "the prompt is empty"),
        ("prompt", json!("a ".repeat(600)), "at most 512"),
        ("class", json!(0), "has no classes"),
    ] {
        let mut wrong = body.clone();
        wrong[field] = value;
        let answer = server.post("/v1/pictures", &wrong.to_string());
        assert_eq!(answer.status, 400, "{part}");
        let error = &answer.json()["error"];
        assert_eq!(error["param"], json!(field));
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    server.join();
}
