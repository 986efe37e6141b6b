//! How fast pictures are decoded and cropped, for a comparison with other libraries on the same
//! files, and how much memory a long run of the loader takes.
//!
//! ```text
//! cargo run --release -p alitok-pixels --example throughput -- center 20 a.jpg b.jpg …
//! cargo run --release -p alitok-pixels --example throughput -- ten 20 a.jpg b.jpg …
//! cargo run --release -p alitok-pixels --example throughput -- loader 1000000 a.jpg
//! ```
//!
//! `center` (256 pixels) and `ten` print for each round over the files the microseconds a picture,
//! on one thread. `loader` reads that many samples, made on the fly from one file by decoding it
//! and changing its values, through the loader in a keyed order, and prints samples done and
//! resident memory in kilobytes.

use std::{error::Error, sync::Arc, time::Instant};

use pixels::loader::{Loader, LoaderOptions};
use pixels::{DataSet, Picture, PixelsError, crop};
use tokens::noise::{Noise, Permutation, Purpose};

const SIZE: usize = 256;

/// Samples that differ in their values.
struct OnTheFly {
    classes: Vec<String>,
    count: usize,
    file: Vec<u8>,
}

impl DataSet for OnTheFly {
    fn len(&self) -> usize {
        self.count
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, _: usize) -> usize {
        0
    }

    fn name(&self, _: usize) -> &str {
        "on the fly"
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        let picture = Picture::decode(&self.file, "on the fly")?;
        let (width, height) = (picture.width(), picture.height());
        let mut rgb = picture.into_rgb();
        rgb.iter_mut().for_each(|value| *value = value.wrapping_add(index as u8));
        Picture::new(width, height, rgb)
    }
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, count, files @ ..] = &arguments[..] else { return Err("see the source".into()) };
    let count: usize = count.parse()?;
    let files: Vec<Vec<u8>> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    if task == "loader" {
        let file = files.into_iter().next().ok_or("a file is missing")?;
        return run_loader(count, file);
    }
    for _ in 0..count {
        let start = Instant::now();
        for file in &files {
            let picture = Picture::decode(file, "file")?;
            if task == "ten" {
                std::hint::black_box(crop::ten_crop(&picture, SIZE)?);
            } else {
                std::hint::black_box(crop::center_crop(&picture, SIZE)?);
            }
        }
        println!("{:.1}", start.elapsed().as_secs_f64() * 1e6 / files.len() as f64);
    }
    Ok(())
}

#[allow(clippy::print_stdout)]
fn run_loader(count: usize, file: Vec<u8>) -> Result<(), Box<dyn Error>> {
    let data = Arc::new(OnTheFly { classes: vec!["all".into()], count, file });
    let order = Permutation::new(&mut Noise::new(0, Purpose::Order, 0, 0), count);
    let options = LoaderOptions { threads: 2, ahead: 16, strict: true };
    let order = (0..count).map(move |position| order.at(position));
    let loader = Loader::start(data, order, options, |data, index| {
        crop::center_crop(&data.picture(index)?, 16)
    });
    for (done, item) in loader.enumerate() {
        item?;
        if (done + 1) % (count / 20).max(1) == 0 {
            println!("{} {}", done + 1, resident()?);
        }
    }
    Ok(())
}

/// Memory of this process in kilobytes, as Linux tells it.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    Ok(line.and_then(|line| line.split_whitespace().nth(1)).ok_or("no VmRSS")?.parse()?)
}
