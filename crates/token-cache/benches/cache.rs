//! Opening a token cache and reading it in shuffled order, at ImageNet's scale: ten views of 272
//! tokens. The caches are written for the run, 7.3 GB and 0.6 GB into the system's temporary
//! folder; what is measured comes from the page cache.
//!
//! `cargo bench -p alitok-tokens --bench cache`

use std::path::Path;

use divan::{Bencher, black_box, counter::ItemsCount};
use tempfile::TempDir;
use token_cache::{CacheError, CacheHeader, CacheWriter, Shard, TokenCache, order_checksum};
use tokens::{
    CodebookIndex, TokenLayout,
    noise::{Noise, Purpose},
};

const VIEWS: usize = 10;
/// Records that one measurement reads.
const READS: usize = 100_000;

fn main() {
    divan::main();
}

fn picture(index: usize) -> (usize, String) {
    (index % 1000, format!("n{:08}/{index:08}.JPEG", index % 1000))
}

/// A cache of invented tokens.
fn build(folder: &Path, pictures: usize) -> Result<(), CacheError> {
    let header = CacheHeader {
        layout: TokenLayout::new(16, 16, 16),
        codes: 4096,
        classes: (0..1000).map(|class| format!("class {class}")).collect(),
        views: VIEWS,
        augmentation: "none: invented".to_owned(),
        tokenizer: "0".repeat(64),
        pictures,
        order: order_checksum((0..pictures).map(picture)),
        captions: None,
    };
    let mut tokens = vec![0; VIEWS * header.layout.len()];
    let mut writer = CacheWriter::create_or_resume(folder, header, Shard::WHOLE, picture)?;
    for index in 0..pictures {
        for (place, token) in tokens.iter_mut().enumerate() {
            *token = ((index * 7 + place * 13) % 4096) as CodebookIndex;
        }
        let (label, name) = picture(index);
        writer.append(label, &name, &tokens)?;
    }
    writer.finish()
}

/// Opens a cache of 13 million records.
#[divan::bench(sample_count = 50)]
fn open(bencher: Bencher<'_, '_>) {
    let folder = TempDir::new().expect("a temporary folder can be made");
    build(folder.path(), 1_300_000).expect("there is room for the cache");
    bencher.bench_local(|| TokenCache::open(folder.path()).expect("it was just written"));
}

/// Reads records in random order and sums their tokens, on one thread.
#[divan::bench(sample_count = 20)]
fn shuffled_reads(bencher: Bencher<'_, '_>) {
    let folder = TempDir::new().expect("a temporary folder can be made");
    build(folder.path(), 100_000).expect("there is room for the cache");
    let cache = TokenCache::open(folder.path()).expect("it was just written");
    let mut noise = Noise::new(0, Purpose::Order, 0, 0);
    let order = noise.permutation(VIEWS * cache.len());
    let mut chunks = order.chunks_exact(READS).cycle();
    bencher
        .counter(ItemsCount::new(READS))
        .with_inputs(|| chunks.next().expect("it cycles"))
        .bench_local_values(|chunk| {
            let mut sum = 0u64;
            for &number in chunk {
                let record =
                    cache.record(number / VIEWS, number % VIEWS).expect("it was just written");
                sum += record.tokens().map(u64::from).sum::<u64>();
            }
            black_box(sum)
        });
}
