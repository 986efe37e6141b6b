//! Training steps, for a race with `benches/peers/training_steps.py`: seconds a step and peak memory
//! as one JSON object a line.
//!
//! ```sh
//! cargo bench -p alitok-training --bench steps -- mini-tokenizer mini-generator b-generator vit-blocks
//! ```
//!
//! Each contestant should have a process of its own, since memory is that of the process.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a benchmark that cannot go on has failed

use std::{ops::ControlFlow, path::Path, sync::Arc, time::Instant};

use burn::{
    module::{Initializer, Module},
    nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig},
    tensor::{Device, Tensor, TensorData},
};
use fixtures::home;
use model::Model;
use operations::{fused, project};
use pipeline::cache::{BuildOptions, Views, build};
use pixels::{DataSet, Picture, PixelsError};
use tempfile::TempDir;
use token_cache::Shard;
use tokens::noise::{Noise, Purpose};
use training::{
    recipe::{self, GeneratorRecipe, StageOneRecipe},
    run::{Step, Trainer},
    trainers::{GeneratorTrainer, StageOne},
};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As `alitok train` does: what is freed stays for the next allocation, and this thread is one of
/// those that share parallel work.
fn tune() {
    const PURGE_DELAY: std::ffi::c_int = 15;
    // SAFETY: stores one number in a table of the allocator before another thread could read it.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().unwrap();
}

/// Pictures of noise.
struct Noisy {
    side: usize,
    classes: Vec<String>,
}

impl DataSet for Noisy {
    fn len(&self) -> usize {
        64
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn label(&self, index: usize) -> usize {
        index % self.classes.len()
    }
    fn name(&self, index: usize) -> &str {
        const NAMES: [&str; 2] = ["even", "odd"];
        NAMES[index % 2]
    }
    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        let mut noise = Noise::new(9, Purpose::Augmentation, 0, index as u64);
        let bytes = 3 * self.side * self.side;
        let rgb = (0..bytes.div_ceil(8)).flat_map(|_| noise.bits().to_le_bytes()).take(bytes);
        Picture::new(self.side, self.side, rgb.collect())
    }
}

fn data(side: usize, classes: usize) -> Arc<dyn DataSet> {
    Arc::new(Noisy { side, classes: (0..classes).map(|class| class.to_string()).collect() })
}

fn stage_one(settings: &[&str], side: usize) -> StageOne {
    let settings: Vec<String> = settings.iter().map(|&setting| setting.into()).collect();
    let recipe: StageOneRecipe = recipe::read("mini", &settings).unwrap();
    StageOne::new(recipe, data(side, 9), &home(), &Device::flex()).unwrap()
}

fn generator(
    recipe: &str,
    settings: &[&str],
    tokenizer: &StageOne,
    side: usize,
) -> (GeneratorTrainer, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (model, cache) = (folder.path().join("model"), folder.path().join("cache"));
    tokenizer.export(&model).unwrap();
    let model = Model::read(&model).unwrap();
    let encoder = model.tokenizer(&Device::flex()).unwrap().frozen_encoder();
    let classes = if side == 64 { 9 } else { 1000 };
    let data = data(side, classes);
    let encode = |picture: &Picture| Ok(encoder.encode_picture(picture.to_unit_planes()));
    let options = BuildOptions { views: Views::Center, shard: Shard::WHOLE, strict: true };
    build(&data, &model, encode, &cache, options, |_, _| ControlFlow::Continue(())).unwrap();
    let settings: Vec<String> = settings.iter().map(|&setting| setting.into()).collect();
    let recipe: GeneratorRecipe = recipe::read(recipe, &settings).unwrap();
    (GeneratorTrainer::new(recipe, &cache, &Device::flex()).unwrap(), folder)
}

/// Times steps of a training, the first ones not counted.
fn train(mut trainer: impl Trainer, steps: u64) -> Vec<f64> {
    trainer.start(None, 0).unwrap();
    let mut step = |number| {
        trainer.step(Step { number, address: number, learning_rate: 1e-4 }).unwrap();
    };
    (0..2).for_each(&mut step);
    (2..2 + steps).map(|number| seconds(|| step(number))).collect()
}

/// Two blocks of ViT-B, forward and backward to all parameters and the input.
#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    query_key_value: Linear,
    projection: Linear,
    feed_forward_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(width: usize, device: &Device) -> Self {
        let norm = || LayerNormConfig::new(width).init(device);
        let linear = |inputs, outputs| {
            let initializer = Initializer::Normal { mean: 0.0, std: 0.02 };
            LinearConfig::new(inputs, outputs).with_initializer(initializer).init(device)
        };
        Self {
            attention_norm: norm(),
            query_key_value: linear(width, 3 * width),
            projection: linear(width, width),
            feed_forward_norm: norm(),
            up: linear(width, 4 * width),
            down: linear(4 * width, width),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let normalize = |norm: &LayerNorm, x| {
            let shift = norm.beta.as_ref().unwrap().val();
            fused::layer_norm(x, norm.gamma.val(), shift, 1e-5)
        };
        let packed = project(&self.query_key_value, normalize(&self.attention_norm, x.clone()));
        let x = x + project(&self.projection, fused::self_attention(packed, 12, false, None));
        let hidden = project(&self.up, normalize(&self.feed_forward_norm, x.clone()));
        x + project(&self.down, fused::gelu(hidden))
    }
}

fn vit_blocks(steps: u64) -> Vec<f64> {
    let device = Device::flex().autodiff();
    let blocks = [Block::new(768, &device), Block::new(768, &device)];
    let mut noise = Noise::new(1, Purpose::Initialization, 0, 0);
    let values: Vec<f32> = (0..4 * 529 * 768).map(|_| noise.normal() as f32).collect();
    let x = Tensor::<3>::from_data(TensorData::new(values, [4, 529, 768]), &device).require_grad();
    let step = || {
        let y = blocks.iter().fold(x.clone(), |x, block| block.forward(x));
        drop(y.square().mean().backward());
    };
    (0..2).for_each(|_| step());
    (0..steps).map(|_| seconds(step)).collect()
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// The largest resident memory of this process so far, where the system tells.
fn peak_megabytes() -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024 / 1_000_000)
}

fn main() {
    tune();
    let small = ["architecture.encoder={width=16,layers=1,heads=2}"];
    let large = [
        small[0],
        "architecture.image={height=256,width=256}",
        "architecture.patch=16",
        "architecture.prefix=16",
        "architecture.codes=4096",
        "architecture.causal_decoder.transformer={width=16,layers=1,heads=2}",
    ];
    for name in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        let mut times = match name.as_str() {
            "mini-tokenizer" => train(stage_one(&[], 64), 30),
            "mini-generator" => {
                let (trainer, _cache) = generator("mini", &[], &stage_one(&small, 64), 64);
                train(trainer, 30)
            }
            "b-generator" => {
                let tokenizer = stage_one(&large, 256);
                let (trainer, _cache) = generator("paper-b", &["batch=2"], &tokenizer, 256);
                train(trainer, 3)
            }
            "vit-blocks" => vit_blocks(6),
            other => panic!("no contestant is called {other}"),
        };
        times.sort_by(f64::total_cmp);
        println!(
            "{{\"name\":\"{name}\",\"seconds\":{:.4},\"fastest\":{:.4},\"peak_megabytes\":{}}}",
            times[times.len() / 2],
            times[0],
            peak_megabytes().unwrap_or_default(),
        );
    }
}
