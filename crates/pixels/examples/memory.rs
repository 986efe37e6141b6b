//! Does memory stay flat over a million pictures? Makes them on the fly, sends them through the
//! loader and a cache writer as caching does, and samples the memory of the process:
//!
//! ```text
//! cargo run --release --workspace --example memory -- 1000000 docs/pictures/memory.svg
//! ```
//!
//! Each picture has a size of its own from 48 to 80 pixels, is encoded as PNG, decoded and cropped to
//! 32 pixels, in a shuffled order; one in a thousand is damaged. Its ten views go into a token cache
//! in the system's temporary folder as 16 invented tokens each. Prints pictures done, seconds, and
//! mebibytes of the process that are no mapped files, and draws them.

use std::{error::Error, fmt::Write, path::Path, sync::Arc, time::Instant};

use pixels::loader::{Loader, LoaderOptions, OnBad};
use pixels::{DataSet, Picture, PixelsError, crop};
use token_cache::{CacheHeader, CacheWriter, Shard, TokenCache, order_checksum};
use tokens::{
    CodebookIndex, TokenLayout,
    noise::{Noise, Permutation, Purpose},
};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZE: usize = 32;
const VIEWS: usize = 10;
const CODES: usize = 256;

/// Pictures that are made when they are asked for.
struct OnTheFly {
    classes: Vec<String>,
    /// All names behind each other.
    names: String,
    order: Permutation,
    count: usize,
}

const NAME: usize = "00000000.png".len();

impl OnTheFly {
    fn new(count: usize) -> Self {
        let order = Permutation::new(&mut Noise::new(0, Purpose::Order, 0, 0), count);
        let names = (0..count).map(|place| format!("{:08}.png", order.at(place))).collect();
        Self { classes: (0..1000).map(|class| class.to_string()).collect(), names, order, count }
    }
}

impl DataSet for OnTheFly {
    fn len(&self) -> usize {
        self.count
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.order.at(index) % self.classes.len()
    }

    fn name(&self, index: usize) -> &str {
        &self.names[index * NAME..][..NAME]
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        let number = self.order.at(index);
        let mut noise = Noise::new(0, Purpose::Augmentation, 0, number as u64);
        let mut side = || 48 + noise.below(33);
        let (width, height) = (side(), side());
        let steps = [noise.below(9), noise.below(9)];
        let rgb = (0..width * height * 3)
            .map(|at| {
                (at / 3 % width * steps[0] + at / 3 / width * steps[1] + at % 3 * number) as u8
            })
            .collect();
        let mut file = Picture::new(width, height, rgb)?.encode_png();
        if number.is_multiple_of(1000) {
            file.truncate(file.len() / 2);
        }
        Picture::decode(&file, self.name(index))
    }
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [count, graph] = &arguments[..] else {
        return Err("a number of pictures and an .svg file are needed".into());
    };
    let count: usize = count.parse()?;
    let data: Arc<dyn DataSet> = Arc::new(OnTheFly::new(count));
    let picture = |index: usize| (data.label(index), data.name(index));
    let header = CacheHeader {
        layout: TokenLayout::new(0, 4, 4),
        codes: CODES,
        classes: data.classes().to_vec(),
        views: VIEWS,
        augmentation: "none: invented".to_owned(),
        tokenizer: "0".repeat(64),
        pictures: count,
        order: order_checksum((0..count).map(picture)),
        captions: None,
    };
    let folder = tempfile::tempdir()?;
    let mut writer = CacheWriter::create_or_resume(folder.path(), header, Shard::WHOLE, picture)?;
    let options = LoaderOptions::of_this_machine(16);
    let order = 0..count;
    let mut loader =
        Loader::start(Arc::clone(&data), order, options, OnBad::LeaveOut, |data, index| {
            crop::center_crop(&data.picture(index)?, SIZE)
        });

    let start = Instant::now();
    let mut samples = vec![(0, memory()?)];
    while let Some(item) = loader.next() {
        let (index, view) = item?;
        for bad in loader.take_bad() {
            let (label, name) = picture(bad.index);
            writer.leave_out(label, name, &bad.error.to_string())?;
        }
        let first = view.rgb().iter().step_by(view.rgb().len() / (VIEWS * 16));
        let tokens: Vec<CodebookIndex> =
            first.take(VIEWS * 16).map(|&value| value.into()).collect();
        let (label, name) = picture(index);
        writer.append(label, name, &tokens)?;
        // Not after the last one, when the loader's threads have given back theirs.
        if writer.len() < count && writer.len() / (count / 200).max(1) > samples.len() - 1 {
            samples.push((writer.len(), memory()?));
            if samples.len() % 20 == 1 {
                let (done, memory) = (writer.len(), memory()?);
                println!("{done:8} {:6.0} s {memory:6.1} MiB", start.elapsed().as_secs_f64());
            }
        }
    }
    for bad in loader.take_bad() {
        let (label, name) = picture(bad.index);
        writer.leave_out(label, name, &bad.error.to_string())?;
    }
    writer.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{count} pictures in {seconds:.0} s, {} of them bad", loader.bad_count());

    let cache = TokenCache::open(folder.path())?;
    let sound = cache.verify().is_empty();
    println!("the cache is {}", if sound { "sound" } else { "damaged" });
    std::fs::write(Path::new(graph), draw(&samples))?;
    let half: Vec<f64> = samples[samples.len() / 2..].iter().map(|sample| sample.1).collect();
    let least = half.iter().copied().fold(f64::INFINITY, f64::min);
    let most = half.iter().copied().fold(0.0, f64::max);
    println!("in the second half {least:.1} to {most:.1} MiB");
    Ok(())
}

/// Memory of this process in mebibytes, without mapped files, as Linux tells it.
fn memory() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)).ok_or("no RssAnon")?;
    Ok(kilobytes.parse::<f64>()? / 1024.0)
}

/// Room at the right of a graph, for half of the last label.
const RIGHT: f64 = 40.0;

/// A line graph of memory over pictures done.
fn draw(samples: &[(usize, f64)]) -> String {
    let (width, height, left, bottom) = (660.0, 260.0, 60.0, 40.0);
    let last = samples.last().map_or(1, |sample| sample.0.max(1));
    let top = samples.iter().map(|sample| sample.1).fold(0.0, f64::max);
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
        .into_iter()
        .find(|step| 5.0 * step >= top)
        .unwrap_or(1000.0);
    let x = |done: f64| left + done / last as f64 * (width - left - RIGHT);
    let y = |memory: f64| height - bottom - memory / (5.0 * step) * (height - bottom - 30.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"18\">Memory of the process, MiB</text>\n"
    );
    // Writing to a text cannot fail.
    for line in 0..=5 {
        let (value, y) = (f64::from(line) * step, y(f64::from(line) * step));
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}H{}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            width - RIGHT,
            left - 8.0,
            y + 4.0,
        );
    }
    for part in 0..=4 {
        let done = last * part / 4;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{done}</text>",
            x(done as f64),
            height - bottom + 18.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">pictures</text>",
        x(last as f64 / 2.0),
        height - 6.0,
    );
    let points =
        samples.iter().map(|&(done, memory)| format!("{:.1},{:.1}", x(done as f64), y(memory)));
    let points: Vec<String> = points.collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1565c0\" stroke-width=\"1.5\"/>\n</svg>",
        points.join(" ")
    );
    svg
}
