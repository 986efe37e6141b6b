//! What it costs to exchange gradients after the backward pass and while it goes on, over a link of
//! a given rate: seconds a step, as one JSON object a line.
//!
//! ```sh
//! cargo bench -p alitok-training --bench exchange -- 0.5 1 2
//! ```
//!
//! Rates are in GB/s and direction. The link is made up: it sleeps for as long as two ranks would
//! need, so that one process on few cores can tell what is hidden from what only moved.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a benchmark that cannot go on has failed

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use generator::{
    GeneratorConfig, presets,
    reference::{Generator, loss::cross_entropy},
};
use operations::tape::{Keep, Tape};
use tokens::TokenLayout;
use training::{
    communicator::{Alone, Communicator, ParallelError},
    parallel::Split,
    recipe::{self, GeneratorRecipe},
};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One of two ranks, of which the other brings the same.
struct Link {
    bytes_per_second: f64,
}

impl Communicator for Link {
    fn rank(&self) -> usize {
        0
    }
    fn ranks(&self) -> usize {
        2
    }
    fn sum(&self, values: &mut [f32]) -> Result<(), ParallelError> {
        // Of N ranks each sends and receives 2 (N - 1) / N times the bytes.
        let bytes = size_of_val(values) as f64;
        std::thread::sleep(Duration::from_secs_f64(bytes / self.bytes_per_second));
        values.iter_mut().for_each(|value| *value *= 2.0);
        Ok(())
    }
    fn gather(&self, values: &[f32]) -> Result<Vec<f32>, ParallelError> {
        Ok(values.repeat(2))
    }
    fn broadcast(&self, _root: usize, _values: &mut [f32]) -> Result<(), ParallelError> {
        Ok(())
    }
    fn barrier(&self) -> Result<(), ParallelError> {
        Ok(())
    }
    fn abort(&self) {}
}

/// When gradients are exchanged.
#[derive(Clone, Copy)]
enum When {
    /// There is one rank.
    Never,
    AfterTheBackwardPass,
    WhileItGoesOn,
}

/// Seconds of forward pass, backward pass and exchange.
fn step(model: &Generator, split: &Split, when: When) -> f64 {
    let device = model.embedding.weight.device();
    let (layout, codes) = (model.config().layout, model.config().codes);
    let length = layout.len();
    let tokens: Vec<i64> = (0..length).map(|place| (place * 37 % codes) as i64).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [1, length]), &device);
    let class = model.config().vocabulary().unconditional() as i64;
    let class = Tensor::<1, Int>::from_data(TensorData::new(vec![class], [1]), &device);
    let start = Instant::now();
    let mut gradients = split.gradients();
    let mut tape = matches!(when, When::WhileItGoesOn).then(|| Tape::new(Keep::Activations));
    let context = tokens.clone().slice([0..1, 0..length - 1]);
    let logits = model.forward_on(class, context, None, tape.as_mut());
    gradients.add(model, cross_entropy(logits, tokens), tape);
    gradients.mean(model).unwrap();
    start.elapsed().as_secs_f64()
}

fn main() {
    const STEPS: usize = 7;
    let rates: Vec<f64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let rates = if rates.is_empty() { vec![1.0] } else { rates };
    let layout = TokenLayout::new(16, 16, 16);
    let config = GeneratorConfig { layers: 6, ..presets::b(layout, 4096, 1000) };
    let model = config.initialize(1, &Device::flex().autodiff()).unwrap();
    let recipe: GeneratorRecipe = recipe::read("mini", &["batch=2".to_owned()]).unwrap();
    for rate in rates {
        let link: Arc<dyn Communicator> = Arc::new(Link { bytes_per_second: rate * 1e9 });
        let shared = Split::new(link, &recipe.schedule).unwrap();
        let alone = Split::new(Arc::new(Alone), &recipe.schedule).unwrap();
        let contestants = [
            ("alone", &alone, When::Never),
            ("after", &shared, When::AfterTheBackwardPass),
            ("beside", &shared, When::WhileItGoesOn),
        ];
        let mut times = [const { Vec::new() }; 3];
        // In turns, so that a slow moment of the machine is nobody's.
        for round in 0..=STEPS {
            for ((_, split, when), times) in contestants.iter().zip(&mut times) {
                let seconds = step(&model, split, *when);
                if round > 0 {
                    times.push(seconds);
                }
            }
        }
        for ((name, ..), times) in contestants.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            let median = times[times.len() / 2];
            let bytes = 4 * config.parameter_count();
            println!(
                "{}",
                serde_json::json!({
                    "exchange": name, "gigabytes_per_second": rate, "bytes": bytes, "seconds": median,
                })
            );
        }
    }
}
