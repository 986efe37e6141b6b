//! Both halves of the tokenizer on a GPU, or a software driver, beside the engine of the CPU.

use std::sync::Arc;

use engine::Pool;
use engine_gpu::{Decoder, DecoderError, Device, Encoder, GpuError, LoadError, Precision};
use files::{
    ParameterError,
    safetensors::{StringMetadata, TensorFile, TypedTensor, TypedTensorMap, Values, pack},
};
use tokenizer::{
    DecoderConfig, DecoderKind, EncoderInput, ImageSize, TokenizerConfig, TransformerConfig,
};
use tokens::{
    CodebookIndex,
    noise::{Noise, Purpose},
};

use crate::common::{device, mini};

/// An architecture whose sizes are no multiples of a tile's: 8 × 5 patches of 3 × 3 pixels, a picture
/// that is no square, 5 prefix tokens, codes of 6 numbers, heads of 12 and 20.
fn odd(encoder_input: EncoderInput) -> TokenizerConfig {
    let decoder = |prefix_head| DecoderConfig {
        transformer: TransformerConfig { width: 40, layers: 2, heads: 2 },
        leading: 3,
        prefix_head,
    };
    TokenizerConfig {
        image: ImageSize { height: 24, width: 15 },
        patch: 3,
        prefix: if encoder_input == EncoderInput::CausalPatches { 0 } else { 5 },
        codes: 70,
        token_size: 6,
        encoder_input,
        encoder: TransformerConfig { width: 36, layers: 2, heads: 3 },
        causal_decoder: Some(decoder(encoder_input != EncoderInput::CausalPatches)),
        bidirectional_decoder: Some(decoder(false)),
    }
}

/// Random weights of an architecture. The engine says what is missing in an empty file.
fn random(config: &TokenizerConfig) -> TensorFile {
    let empty =
        TensorFile::from_bytes("empty", pack(&TypedTensorMap::new(), &StringMetadata::new()));
    let pool = || Arc::new(Pool::new(1));
    let problems = |error: engine::LoadError| match error {
        engine::LoadError::Tensors { problems, .. } => problems,
        other => panic!("{other}"),
    };
    let precision = engine::Precision::F32;
    let encoder = engine::Encoder::load(empty.clone(), config, precision, pool()).unwrap_err();
    let mut missing = problems(encoder);
    for kind in [DecoderKind::Causal, DecoderKind::Bidirectional] {
        match engine::Decoder::load(empty.clone(), config, kind, precision, pool()).unwrap_err() {
            engine::DecoderError::Load(error) => missing.extend(problems(error)),
            other => panic!("{other}"),
        }
    }
    let mut tensors = TypedTensorMap::new();
    for problem in missing {
        let ParameterError::Missing { name, expected } = problem else { panic!("{problem:?}") };
        let mut noise = Noise::new(5, Purpose::Initialization, 0, name.len() as u64);
        let count = expected.iter().product();
        let one = if name.contains("norm.weight") { 1.0 } else { 0.0 };
        let values = (0..count).map(|_| one + (noise.uniform() as f32 - 0.5)).collect();
        tensors.insert(name, TypedTensor::new(expected, Values::F32(values)));
    }
    TensorFile::from_bytes("random", pack(&tensors, &StringMetadata::new()))
}

/// A picture with gradients and noise.
fn planes(config: &TokenizerConfig, seed: u64) -> Vec<f32> {
    let (width, height) = (config.image.width, config.image.height);
    let mut noise = Noise::new(seed, Purpose::Initialization, 0, 0);
    (0..3 * height * width)
        .map(|place| {
            let (channel, y, x) = (place / (width * height), place / width % height, place % width);
            let wave = ((x + 2 * channel) as f32 / 7.0).sin() * (y as f32 / 11.0).cos();
            (0.5 + 0.4 * wave + 0.1 * (noise.uniform() as f32 - 0.5)).clamp(0.0, 1.0)
        })
        .collect()
}

fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max)
}

/// Codes of some pictures on the CPU and on the GPU.
fn encode(
    device: &Device,
    file: &TensorFile,
    config: &TokenizerConfig,
    precision: Precision,
) -> [Vec<Vec<CodebookIndex>>; 2] {
    let pool = Arc::new(Pool::new(1));
    let on_cpu = match precision {
        Precision::F32 => engine::Precision::F32,
        Precision::Bf16 => engine::Precision::Bf16,
        Precision::Int8 => engine::Precision::Int8,
    };
    let cpu = engine::Encoder::load(file.clone(), config, on_cpu, pool).unwrap();
    let gpu = Encoder::load(file, config, precision, device).unwrap();
    let (mut cpu_work, mut gpu_work) = (cpu.workspace(), gpu.workspace().unwrap());
    let pictures: Vec<_> = (0..4).map(|seed| planes(config, seed)).collect();
    [
        pictures.iter().map(|picture| cpu.encode(picture, &mut cpu_work)).collect(),
        pictures.iter().map(|picture| gpu.encode(picture, &mut gpu_work).unwrap()).collect(),
    ]
}

/// Compares a decoder's pictures with the CPU's, of whole sequences and, if it is causal, of their
/// first rows; returns the largest difference.
fn decode(
    device: &Device,
    file: &TensorFile,
    config: &TokenizerConfig,
    kind: DecoderKind,
    precision: Precision,
) -> f32 {
    let pool = Arc::new(Pool::new(1));
    let cpu = engine::Decoder::load(file.clone(), config, kind, engine::Precision::F32, pool);
    let cpu = cpu.unwrap();
    let gpu = Decoder::load(file, config, kind, precision, device).unwrap();
    let (mut cpu_work, mut gpu_work) = (cpu.workspace(), gpu.workspace().unwrap());
    let layout = config.layout();
    let mut largest = 0.0f32;
    for picture in 0..3 {
        let code = |token| ((token * 53 + picture * 17) % config.codes) as CodebookIndex;
        let tokens: Vec<_> = (0..layout.len()).map(code).collect();
        // Fewer rows after many: nothing of the picture before may be left.
        let rows = [layout.rows(), 1, 3];
        for rows in if kind == DecoderKind::Causal { &rows[..] } else { &rows[..1] } {
            let tokens = &tokens[..layout.len_of_rows(*rows)];
            let got = gpu.decode(tokens, &mut gpu_work).unwrap();
            assert!(got.iter().all(|value| (0.0..=1.0).contains(value)));
            let expected = cpu.decode(tokens, &mut cpu_work);
            largest = largest.max(difference(&got, &expected));
        }
    }
    largest
}

const KINDS: [DecoderKind; 2] = [DecoderKind::Causal, DecoderKind::Bidirectional];

#[test]
fn should_encode_to_the_tokens_of_the_cpu() {
    let Some(device) = device() else { return };
    let (file, config) = mini::<TokenizerConfig>("tokenizer");
    let [cpu, gpu] = encode(&device, &file, &config, Precision::F32);
    assert_eq!(gpu, cpu);
    // A code is a decision: in fewer bits some pictures have a few others.
    for precision in [Precision::Bf16, Precision::Int8] {
        let [_, rounded] = encode(&device, &file, &config, precision);
        let pairs: Vec<_> = rounded.iter().flatten().zip(cpu.iter().flatten()).collect();
        let equal = pairs.iter().filter(|(got, expected)| got == expected).count();
        assert!(10 * equal >= 9 * pairs.len(), "{precision:?}: {equal} of {}", pairs.len());
    }
}

#[test]
fn should_decode_to_the_pictures_of_the_cpu() {
    let Some(device) = device() else { return };
    let (file, config) = mini::<TokenizerConfig>("tokenizer");
    for kind in KINDS {
        let difference = decode(&device, &file, &config, kind, Precision::F32);
        assert!(difference < 1e-4, "{kind}: {difference}");
        // A quarter of a level of 256; the weights of `mini` are stored in bf16.
        let difference = decode(&device, &file, &config, kind, Precision::Bf16);
        assert!(difference < 1e-3, "{kind}: {difference}");
        let difference = decode(&device, &file, &config, kind, Precision::Int8);
        assert!(difference < 0.1, "{kind}: {difference}");
    }
}

#[test]
fn should_compute_with_odd_sizes() {
    let Some(device) = device() else { return };
    for input in [EncoderInput::PatchesAndLatents, EncoderInput::CausalPatches] {
        let config = odd(input);
        config.validate().unwrap();
        let file = random(&config);
        let [cpu, gpu] = encode(&device, &file, &config, Precision::F32);
        assert_eq!(gpu, cpu, "{input:?}");
        for kind in KINDS {
            let difference = decode(&device, &file, &config, kind, Precision::F32);
            assert!(difference < 1e-4, "{input:?}, {kind}: {difference}");
        }
    }
}

#[test]
fn should_refuse_weights_and_heads_that_do_not_fit() {
    let Some(device) = device() else { return };
    let (file, config) = mini::<TokenizerConfig>("tokenizer");
    let mut deeper = config.clone();
    deeper.encoder.layers = 5;
    let error = Encoder::load(&file, &deeper, Precision::F32, &device).unwrap_err();
    assert!(matches!(&error, LoadError::Weights(_)), "{error}");
    assert!(error.to_string().contains("encoder.blocks.4."), "{error}");
    let mut none = config.clone();
    none.causal_decoder = None;
    let load = |config: &TokenizerConfig| {
        Decoder::load(&file, config, DecoderKind::Causal, Precision::F32, &device).unwrap_err()
    };
    assert!(matches!(load(&none), DecoderError::Config(_)));
    let mut wide = config;
    wide.causal_decoder.as_mut().unwrap().transformer.heads = 1;
    let error = load(&wide).to_string();
    assert!(error.contains("have 192 numbers") && error.contains("`cpu`"), "{error}");
}

#[test]
fn should_say_that_the_gpu_was_lost() {
    let Some(device) = device() else { return };
    let (file, config) = mini::<TokenizerConfig>("tokenizer");
    let kind = DecoderKind::Bidirectional;
    let decoder = Decoder::load(&file, &config, kind, Precision::F32, &device).unwrap();
    let mut work = decoder.workspace().unwrap();
    let tokens = vec![0; config.layout().len()];
    decoder.decode(&tokens, &mut work).unwrap();
    device.destroy();
    let error = decoder.decode(&tokens, &mut work).unwrap_err();
    assert!(matches!(error, GpuError::Lost { .. }), "{error}");
}
