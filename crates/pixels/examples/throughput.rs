//! How fast pictures are decoded and cropped on one thread. `throughput.py` beside it runs it in
//! turns with Pillow, simplejpeg and torchvision and prints a table:
//!
//! ```text
//! cargo build --release --workspace --examples
//! python crates/pixels/examples/throughput.py target/release/examples/throughput
//! ```
//!
//! By itself it takes a task (`center`: decode and centre crop to 256 pixels; `ten`: decode and ten
//! crops; `crops`: the ten crops of decoded pictures), a number of rounds, and files. It prints for
//! each round over the files the microseconds a picture.

use std::{error::Error, hint::black_box, time::Instant};

use pixels::{Picture, crop};

/// As in the program: the system's allocator gives large buffers back each time, and clearing the
/// pages of new ones takes as long as the work on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZE: usize = 256;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, rounds, files @ ..] = &arguments[..] else {
        return Err("a task, a number of rounds and files are needed".into());
    };
    let rounds: usize = rounds.parse()?;
    let files: Vec<Vec<u8>> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    let decode = |file: &Vec<u8>| Picture::decode(file, "file");
    let decoded: Vec<Picture> = files.iter().map(decode).collect::<Result<_, _>>()?;
    for _ in 0..rounds {
        let start = Instant::now();
        for (file, decoded) in files.iter().zip(&decoded) {
            match &task[..] {
                "center" => drop(black_box(crop::center_crop(&decode(file)?, SIZE)?)),
                "ten" => drop(black_box(crop::ten_crop(&decode(file)?, SIZE)?)),
                "crops" => drop(black_box(crop::ten_crop(decoded, SIZE)?)),
                _ => return Err(format!("{task} is no task").into()),
            }
        }
        println!("{:.1}", start.elapsed().as_secs_f64() * 1e6 / files.len() as f64);
    }
    Ok(())
}
