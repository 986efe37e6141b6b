//! The token cache: what is written is read, a killed writer can be resumed at any byte, and no
//! damage goes unseen.

#![allow(clippy::unwrap_used)] // helpers of tests may panic as tests do

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokens::{
    CodebookIndex, TokenLayout,
    cache::{CacheError, CacheHeader, CacheWriter, Record, Shard, TokenCache},
    noise::{Noise, Purpose},
};

const SAMPLES: usize = 5;
const TOKENS: &str = "tokens-00000-of-00001.bin";
const PARTIAL: &str = "tokens-00000-of-00001.bin.partial";
const NAMES: &str = "names-00000-of-00001.txt";

fn header() -> CacheHeader {
    CacheHeader {
        layout: TokenLayout::new(1, 2, 2),
        codes: 300,
        classes: ["cat", "dog"].map(str::to_owned).to_vec(),
        views: 2,
        augmentation: "the picture and its mirror image".to_owned(),
        tokenizer: "0123456789abcdef".repeat(4),
    }
}

/// Label, name and tokens of a sample of an invented data set.
fn sample(index: usize) -> (usize, String, Vec<CodebookIndex>) {
    let mut noise = Noise::new(0, Purpose::Order, 0, index as u64);
    let tokens = (0..10).map(|_| noise.below(300) as CodebookIndex).collect();
    (index % 2, format!("Bäume/{index}.png"), tokens)
}

fn expected(index: usize) -> Record {
    let (label, _, tokens) = sample(index);
    Record { label, views: tokens.chunks(5).map(<[_]>::to_vec).collect() }
}

fn writer(dir: &Path, shard: Shard) -> Result<CacheWriter, CacheError> {
    CacheWriter::create_or_resume(dir, header(), shard)
}

/// Appends what is missing of a shard.
fn complete(mut writer: CacheWriter) {
    let range = writer.shard().range(SAMPLES);
    for index in range.start + writer.len()..range.end {
        let (label, name, tokens) = sample(index);
        writer.append(label, &name, &tokens).unwrap();
    }
    writer.finish().unwrap();
}

fn build(dir: &Path) {
    complete(writer(dir, Shard::WHOLE).unwrap());
}

fn records(cache: &TokenCache) -> Vec<Record> {
    (0..cache.len()).map(|index| cache.record(index).unwrap()).collect()
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.map(|path| (path.file_name().unwrap().into(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn should_read_what_was_written() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let cache = TokenCache::open(dir.path()).unwrap();
    assert_eq!(cache.header(), &header());
    assert_eq!(cache.len(), SAMPLES);
    assert_eq!(records(&cache), (0..SAMPLES).map(expected).collect::<Vec<_>>());
    assert_eq!(cache.names().unwrap(), (0..SAMPLES).map(|i| sample(i).1).collect::<Vec<_>>());
    cache.verify().unwrap();
    let error = cache.record(SAMPLES).unwrap_err();
    assert!(matches!(error, CacheError::OutOfRange { index: SAMPLES, len: SAMPLES, .. }));
}

#[test]
fn should_keep_the_documented_format() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let bytes = fs::read(dir.path().join(TOKENS)).unwrap();
    let long = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(&bytes[..8], b"alitok-t");
    assert_eq!([8, 12, 16, 20].map(long), [1, 0, 1, 28]);
    let json = fs::read(dir.path().join("cache.json")).unwrap();
    assert_eq!(long(24), crc32c::crc32c(&json) as usize);
    assert_eq!(long(28), crc32c::crc32c(&bytes[..28]) as usize);
    for index in 0..SAMPLES {
        let record = &bytes[32 + 28 * index..][..28];
        let (label, _, tokens) = sample(index);
        assert_eq!(record[..4], (label as u32).to_le_bytes());
        for (bytes, token) in record[4..24].chunks(2).zip(tokens) {
            assert_eq!(bytes, token.to_le_bytes());
        }
        let covered = [&(index as u64).to_le_bytes()[..], &record[..24]].concat();
        assert_eq!(record[24..], crc32c::crc32c(&covered).to_le_bytes());
    }
    let footer = &bytes[32 + 28 * SAMPLES..];
    assert_eq!(footer.len(), 32);
    assert_eq!(&footer[..8], b"complete");
    assert_eq!(footer[8..16], (SAMPLES as u64).to_le_bytes());
    let names = fs::read(dir.path().join(NAMES)).unwrap();
    assert_eq!(names, (0..SAMPLES).map(|i| sample(i).1 + "\n").collect::<String>().into_bytes());
    assert_eq!(footer[16..24], (names.len() as u64).to_le_bytes());
    assert_eq!(footer[24..28], crc32c::crc32c(&names).to_le_bytes());
    assert_eq!(footer[28..], crc32c::crc32c(&footer[..28]).to_le_bytes());
}

#[test]
fn should_resume_a_writer_killed_at_any_byte() {
    let whole = TempDir::new().unwrap();
    build(whole.path());
    let whole_files = files(whole.path());
    let read = |name: &str| fs::read(whole.path().join(name)).unwrap();
    let (json, names, tokens) = (read("cache.json"), read(NAMES), read(TOKENS));

    let check = |tokens_left: Option<&[u8]>, names_left: Option<&[u8]>, json_left: bool| {
        let dir = TempDir::new().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        if json_left {
            write("cache.json", &json);
        }
        write("cache.json.00000-of-00001.partial", &json[..9]);
        if let Some(bytes) = names_left {
            write(NAMES, bytes);
        }
        if let Some(bytes) = tokens_left {
            write(PARTIAL, bytes);
        }
        assert!(TokenCache::open(dir.path()).is_err());
        let writer = writer(dir.path(), Shard::WHOLE).unwrap();
        // All whole records are kept, as far as there are names for them.
        let whole_records = tokens_left.map_or(0, |bytes| bytes.len().saturating_sub(32) / 28);
        let lines = names_left.map_or(0, |names| names.iter().filter(|&&b| b == b'\n').count());
        assert_eq!(writer.len(), whole_records.min(SAMPLES).min(lines));
        complete(writer);
        assert_eq!(files(dir.path()), whole_files);
    };

    check(None, None, false);
    check(None, Some(&[]), true);
    for cut in 0..=tokens.len() {
        check(Some(&tokens[..cut]), Some(&names), true);
    }
    // Names go to the disk first; a crash of the whole machine may still lose some of them.
    for cut in 0..=names.len() {
        check(Some(&tokens[..32 + 2 * 28]), Some(&names[..cut]), true);
    }
}

#[test]
fn should_cut_off_what_does_not_count() {
    let whole = TempDir::new().unwrap();
    build(whole.path());
    let mut names = fs::read(whole.path().join(NAMES)).unwrap();
    let tokens = fs::read(whole.path().join(TOKENS)).unwrap();
    let resumed_from = |tokens: &[u8], names: &[u8]| {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(PARTIAL), tokens).unwrap();
        fs::write(dir.path().join(NAMES), names).unwrap();
        let writer = writer(dir.path(), Shard::WHOLE).unwrap();
        let len = writer.len();
        complete(writer);
        assert_eq!(files(dir.path()), files(whole.path()));
        len
    };
    // What a power failure may leave behind the last record that reached the disk.
    names.extend([b'\n'; 1000]);
    assert_eq!(resumed_from(&[&tokens[..32 + 2 * 28], &[0; 1000]].concat(), &names), 2);
    // Records of another cache or shard.
    let mut foreign = tokens;
    foreign[20] ^= 1;
    assert_eq!(resumed_from(&foreign, &names), 0);
}

#[test]
fn should_resume_after_what_was_flushed() {
    let (whole, dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    build(whole.path());
    let mut first = writer(dir.path(), Shard::WHOLE).unwrap();
    for index in 0..3 {
        let (label, name, tokens) = sample(index);
        first.append(label, &name, &tokens).unwrap();
        if index == 1 {
            first.flush().unwrap();
        }
    }
    drop(first);
    let second = writer(dir.path(), Shard::WHOLE).unwrap();
    assert_eq!(second.len(), 2);
    complete(second);
    assert_eq!(files(dir.path()), files(whole.path()));
}

#[test]
fn should_see_every_flipped_bit_and_every_cut() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let good: Vec<_> = (0..SAMPLES).map(expected).collect();
    for name in [TOKENS, NAMES] {
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let Ok(cache) = TokenCache::open(dir.path()) else { continue };
            assert!(matches!(cache.verify().unwrap_err(), CacheError::Damaged { .. }), "bit {bit}");
            for (index, good) in good.iter().enumerate() {
                if let Ok(record) = cache.record(index) {
                    assert_eq!(record, *good);
                }
            }
        }
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let error = TokenCache::open(dir.path()).unwrap_err();
            assert!(matches!(error, CacheError::Damaged { .. }), "{length} bytes: {error}");
        }
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn should_see_records_in_wrong_places() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let path = dir.path().join(TOKENS);
    let mut bytes = fs::read(&path).unwrap();
    let (first, second) = bytes[32..].split_at_mut(28);
    first.swap_with_slice(&mut second[..28]);
    fs::write(&path, bytes).unwrap();
    let cache = TokenCache::open(dir.path()).unwrap();
    assert!(cache.record(0).is_err() && cache.record(1).is_err() && cache.record(2).is_ok());

    let mut bytes = fs::read(&path).unwrap();
    bytes.drain(32 + 28 * (SAMPLES - 1)..32 + 28 * SAMPLES);
    fs::write(&path, bytes).unwrap();
    assert!(matches!(TokenCache::open(dir.path()), Err(CacheError::Damaged { .. })));
}

#[test]
fn should_have_the_order_of_the_data_in_any_number_of_shards() {
    let whole = TempDir::new().unwrap();
    build(whole.path());
    let whole = TokenCache::open(whole.path()).unwrap();
    // More shards than samples: some stay empty.
    for count in [2, 3, SAMPLES + 2] {
        let dir = TempDir::new().unwrap();
        for index in (0..count).rev() {
            // Each in a folder of its own, as on another machine, then copied together.
            let own = TempDir::new().unwrap();
            complete(writer(own.path(), Shard::new(index, count).unwrap()).unwrap());
            for (name, bytes) in files(own.path()) {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
        }
        let cache = TokenCache::open(dir.path()).unwrap();
        assert_eq!(records(&cache), records(&whole));
        assert_eq!(cache.names().unwrap(), whole.names().unwrap());
        assert_eq!(cache.shard_lens().len(), count);
        cache.verify().unwrap();
    }
}

#[test]
fn should_name_the_shard_that_is_missing_or_unfinished() {
    let dir = TempDir::new().unwrap();
    let shard = |index| Shard::new(index, 3).unwrap();
    complete(writer(dir.path(), shard(0)).unwrap());
    complete(writer(dir.path(), shard(2)).unwrap());
    let error = TokenCache::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, CacheError::Incomplete { shard, started: false, .. } if shard.index() == 1)
    );
    assert!(error.to_string().contains("--shard 1/3"), "{error}");
    drop(writer(dir.path(), shard(1)).unwrap());
    let error = TokenCache::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, CacheError::Incomplete { shard, started: true, .. } if shard.index() == 1)
    );
    complete(writer(dir.path(), shard(1)).unwrap());
    TokenCache::open(dir.path()).unwrap();

    let error = writer(dir.path(), Shard::new(0, 2).unwrap()).unwrap_err();
    assert!(matches!(error, CacheError::Division { .. }));
    fs::write(dir.path().join("tokens-00000-of-00002.bin"), []).unwrap();
    assert!(matches!(TokenCache::open(dir.path()), Err(CacheError::Division { .. })));
}

#[test]
fn should_refuse_two_writers_of_one_shard() {
    let dir = TempDir::new().unwrap();
    let shard = |index| Shard::new(index, 2).unwrap();
    let first = writer(dir.path(), shard(0)).unwrap();
    let second = writer(dir.path(), shard(0)).unwrap_err();
    assert!(matches!(second, CacheError::Locked { .. }));
    complete(writer(dir.path(), shard(1)).unwrap());
    complete(first);
    let third = writer(dir.path(), shard(0)).unwrap_err();
    assert!(matches!(third, CacheError::Complete { .. }));
    TokenCache::open(dir.path()).unwrap().verify().unwrap();
}

#[test]
fn should_refuse_another_tokenizer_and_another_header() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let other = "f".repeat(64);
    let cache = TokenCache::open(dir.path()).unwrap();
    cache.check_tokenizer(&header().tokenizer).unwrap();
    let error = cache.check_tokenizer(&other).unwrap_err();
    assert!(matches!(&error, CacheError::Tokenizer { expected, .. } if *expected == other));
    let resume = |header| CacheWriter::create_or_resume(dir.path(), header, Shard::WHOLE);
    let error = resume(CacheHeader { tokenizer: other, ..header() }).unwrap_err();
    assert!(matches!(error, CacheError::Tokenizer { .. }));
    let error = resume(CacheHeader { codes: 299, ..header() }).unwrap_err();
    assert!(matches!(error, CacheError::HeaderMismatch { field: "codebook's size", .. }));

    // A finished shard of another cache between the files of this one.
    let foreign = TempDir::new().unwrap();
    let classes = vec!["dog".to_owned(), "cat".to_owned()];
    let header = CacheHeader { classes, ..header() };
    complete(CacheWriter::create_or_resume(foreign.path(), header, Shard::WHOLE).unwrap());
    fs::copy(foreign.path().join(TOKENS), dir.path().join(TOKENS)).unwrap();
    assert!(matches!(TokenCache::open(dir.path()), Err(CacheError::Damaged { .. })));
}

#[test]
fn should_refuse_headers_that_make_no_sense() {
    let dir = TempDir::new().unwrap();
    for wrong in [
        CacheHeader { views: 0, ..header() },
        CacheHeader { codes: 65_537, ..header() },
        CacheHeader { classes: vec![], ..header() },
        CacheHeader { tokenizer: "F".repeat(64), ..header() },
    ] {
        let error = CacheWriter::create_or_resume(dir.path(), wrong, Shard::WHOLE).unwrap_err();
        assert!(matches!(error, CacheError::Header { .. }));
    }
    assert_eq!(files(dir.path()), []);
    build(dir.path());
    let path = dir.path().join("cache.json");
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, json.replace("\"version\": 1", "\"version\": 2")).unwrap();
    let error = TokenCache::open(dir.path()).unwrap_err();
    assert!(matches!(error, CacheError::Version { got: 2, .. }));
    for broken in [&json[..json.len() / 2], "{}", &json.replace("views", "crops")] {
        fs::write(&path, broken).unwrap();
        assert!(matches!(TokenCache::open(dir.path()), Err(CacheError::Header { .. })));
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(TokenCache::open(dir.path()), Err(CacheError::File { .. })));
}

#[test]
fn should_store_nothing_of_a_sample_that_does_not_fit() {
    let (whole, dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    build(whole.path());
    let mut writer = writer(dir.path(), Shard::WHOLE).unwrap();
    let (label, name, tokens) = sample(0);
    let mut large = tokens.clone();
    large[9] = 300;
    for wrong in [
        writer.append(2, &name, &tokens),
        writer.append(label, "two\nlines", &tokens),
        writer.append(label, &name, &tokens[1..]),
        writer.append(label, &name, &large),
    ] {
        assert!(matches!(wrong, Err(CacheError::Sample { .. })));
    }
    assert!(writer.is_empty());
    complete(writer);
    assert_eq!(files(dir.path()), files(whole.path()));
}

#[test]
fn should_divide_samples_without_gap_or_overlap() {
    for (samples, count) in [(0, 3), (2, 5), (10, 3), (1_281_167, 64)] {
        let ranges: Vec<_> =
            (0..count).map(|index| Shard::new(index, count).unwrap().range(samples)).collect();
        assert_eq!(ranges[0].start, 0);
        assert_eq!(ranges[count - 1].end, samples);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(ranges.iter().all(|range| range.len().abs_diff(samples / count) <= 1));
    }
    assert_eq!("2/3".parse::<Shard>().unwrap(), Shard::new(2, 3).unwrap());
    for wrong in ["3/3", "0/0", "1", "-1/2", "a/b", "0/100000"] {
        assert!(matches!(wrong.parse::<Shard>(), Err(CacheError::Shard(_))), "{wrong}");
    }
}
