//! Times the engine at the size of AliTok-B with random weights, a line for each kind of work.
//!
//! For comparisons of two builds, or of two values of `ALITOK_INSTRUCTIONS`: run them in turns and
//! compare the lines of equal names.
//!
//! ```text
//! cargo run --release -p alitok-engine --example speed -- [NAME…]
//! ```
//!
//! A NAME is one of the printed ones or its beginning, such as `int8` or `f32-one`.
#![allow(clippy::print_stdout)] // that is what it is for

use std::{sync::Arc, time::Instant};

use engine::{Decoder, Encoder, Generator, Pool, Precision, Weights, measure};
use generator::presets;

type Failure = Box<dyn std::error::Error>;

/// Milliseconds of the fastest of so many rounds.
fn fastest(rounds: usize, mut work: impl FnMut()) -> f64 {
    work();
    let time = |_| {
        let started = Instant::now();
        work();
        1e3 * started.elapsed().as_secs_f64()
    };
    (0..rounds).map(time).fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Failure> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()))
    };
    let pool = Arc::new(Pool::default());
    let tokenizer = tokenizer::presets::paper(256, 4096);
    let config = presets::b(tokenizer.layout(), tokenizer.codes, 1000);
    let length = config.layout.len();
    println!("kernels {}", engine::instruction_set()?);
    for precision in Precision::ALL {
        let name = |work: &str| format!("{}-{work}", precision.name());
        if is_wanted(&name("limits")) {
            let limits = measure::limits(&pool, precision)?;
            println!(
                "{} {:.1} Gproducts/s, {:.1} GB/s read",
                name("limits"),
                limits.products_per_second / 1e9,
                limits.read_bytes_per_second / 1e9
            );
        }
        // Spread over the sequence, each several times, of which the fastest counts.
        let (of_one, of_sixteen) = (name("one"), name("sixteen"));
        if is_wanted(&of_one) || is_wanted(&of_sixteen) {
            let load = || Generator::load(Weights::Random, &config, precision, Arc::clone(&pool));
            let generator = load()?;
            for (name, pictures, rounds) in [(of_one, 1, 8), (of_sixteen, 16, 4)] {
                if !is_wanted(&name) {
                    continue;
                }
                let places = [length / 8, 3 * length / 8, 5 * length / 8, 7 * length / 8];
                let positions: Vec<usize> = places.repeat(rounds);
                let steps = measure::steps(&generator, 1, pictures, &positions, true)?;
                let best = |place: usize| {
                    let of_place = steps.iter().skip(place).step_by(places.len());
                    of_place.map(|step| step.seconds).fold(f64::INFINITY, f64::min)
                };
                let mean = (0..places.len()).map(best).sum::<f64>() / places.len() as f64;
                println!("{name} {:.2} ms a step", 1e3 * mean);
            }
        }
        if is_wanted(&name("encoder")) {
            let encoder = Encoder::load(Weights::Random, &tokenizer, precision, Arc::clone(&pool))?;
            let planes = vec![0.5; 3 * tokenizer.image.height * tokenizer.image.width];
            let mut work = encoder.workspace();
            let time = fastest(3, || drop(encoder.encode(&planes, &mut work)));
            println!("{} {time:.1} ms", name("encoder"));
        }
        if is_wanted(&name("decoder")) {
            let kind = tokenizer.best_decoder().ok_or("the tokenizer has no decoder")?;
            let pool = Arc::clone(&pool);
            let decoder = Decoder::load(Weights::Random, &tokenizer, kind, precision, pool)?;
            let tokens = vec![1; length];
            let mut work = decoder.workspace();
            let time = fastest(3, || drop(decoder.decode(&tokens, &mut work)));
            println!("{} {time:.1} ms", name("decoder"));
        }
    }
    Ok(())
}
