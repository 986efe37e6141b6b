//! The token cache: what is written is read, a killed writer can be resumed at any byte, and no
//! damage goes unseen.

#![allow(clippy::unwrap_used)] // helpers of tests may panic as tests do

use std::{
    fs,
    path::{Path, PathBuf},
};

use files::npz::ArchiveReader;
use tempfile::TempDir;
use token_cache::{
    CacheError, CacheHeader, CacheWriter, LeftOut, Shard, TokenCache, caption_checksum,
    exchange::{JsonLines, NpzFolder, TokenSource, export_json_lines, export_npz_folder},
    order_checksum,
};
use tokens::{
    CodebookIndex, TokenLayout,
    noise::{Noise, Purpose},
};

const SAMPLES: usize = 5;
const TOKENS: &str = "tokens-00000-of-00001.bin";
const PARTIAL: &str = "tokens-00000-of-00001.bin.partial";
const NAMES: &str = "names-00000-of-00001.txt";
/// Bytes of a record: picture, label, view, five tokens, checksum.
const RECORD: usize = 4 + 4 + 2 + 2 * 5 + 4;
/// Bytes of a picture, which has two views.
const PICTURE: usize = 2 * RECORD;

/// How many mutations to try: `MUTATIONS` in the environment, or `usual`.
fn mutations(usual: u64) -> u64 {
    std::env::var("MUTATIONS").map_or(usual, |count| count.parse().unwrap())
}

/// What a record holds: label and tokens.
type Content = (usize, Vec<CodebookIndex>);

fn header() -> CacheHeader {
    CacheHeader {
        layout: TokenLayout::new(1, 2, 2),
        codes: 300,
        classes: ["cat", "dog"].map(str::to_owned).to_vec(),
        views: 2,
        augmentation: "the picture and its mirror image".to_owned(),
        tokenizer: "0123456789abcdef".repeat(4),
        pictures: SAMPLES,
        order: order_checksum((0..SAMPLES).map(named)),
        captions: None,
    }
}

/// Bytes before the first record.
fn beginning(tokens: &[u8]) -> usize {
    32 + u32::from_le_bytes(tokens[20..24].try_into().unwrap()) as usize
}

fn named(index: usize) -> (usize, String) {
    (index % 2, format!("Bäume/{index}.png"))
}

/// Label, name and tokens of a sample of an invented data set.
fn sample(index: usize) -> (usize, String, Vec<CodebookIndex>) {
    let mut noise = Noise::new(0, Purpose::Order, 0, index as u64);
    let tokens = (0..10).map(|_| noise.below(300) as CodebookIndex).collect();
    let (label, name) = named(index);
    (label, name, tokens)
}

/// The records of all samples, view by view.
fn expected() -> Vec<Content> {
    let content = |index| {
        let (label, _, tokens) = sample(index);
        [(label, tokens[..5].to_vec()), (label, tokens[5..].to_vec())]
    };
    (0..SAMPLES).flat_map(content).collect()
}

fn writer(dir: &Path, shard: Shard) -> Result<CacheWriter, CacheError> {
    CacheWriter::create_or_resume(dir, header(), shard, named)
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

/// A record, if it is sound.
fn content(cache: &TokenCache, number: usize) -> Result<Content, CacheError> {
    cache.record(number / 2, number % 2).map(|record| (record.label, record.tokens().collect()))
}

fn records(cache: &TokenCache) -> Vec<Content> {
    (0..2 * cache.len()).map(|number| content(cache, number).unwrap()).collect()
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
    assert_eq!(records(&cache), expected());
    assert_eq!(cache.names().unwrap(), (0..SAMPLES).map(|i| sample(i).1).collect::<Vec<_>>());
    assert!(cache.verify().is_empty());
    for (picture, view) in [(SAMPLES, 0), (0, 2)] {
        assert!(matches!(cache.record(picture, view), Err(CacheError::OutOfRange { .. })));
    }
}

#[test]
fn should_keep_the_documented_format() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let bytes = fs::read(dir.path().join(TOKENS)).unwrap();
    let long = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(&bytes[..8], b"alitok-t");
    assert_eq!([8, 12, 16].map(long), [3, 0, 1]);
    let records = beginning(&bytes);
    let json = &bytes[32..records];
    assert_eq!(long(24), crc32c::crc32c(json) as usize);
    assert_eq!(long(28), crc32c::crc32c(&bytes[..28]) as usize);
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    assert_eq!((&json["views"], &json["pictures"]), (&2.into(), &SAMPLES.into()));
    assert_eq!(header().record_size(), RECORD);
    for (number, (label, tokens)) in expected().into_iter().enumerate() {
        let record = &bytes[records + RECORD * number..][..RECORD];
        assert_eq!(record[..4], (number as u32 / 2).to_le_bytes());
        assert_eq!(record[4..8], (label as u32).to_le_bytes());
        assert_eq!(record[8..10], (number as u16 % 2).to_le_bytes());
        for (bytes, token) in record[10..20].chunks(2).zip(tokens) {
            assert_eq!(bytes, token.to_le_bytes());
        }
        assert_eq!(record[20..], crc32c::crc32c(&record[..20]).to_le_bytes());
    }
    let footer = &bytes[records + PICTURE * SAMPLES..];
    assert_eq!(footer.len(), 32);
    assert_eq!(&footer[..8], b"complete");
    assert_eq!(footer[8..16], (2 * SAMPLES as u64).to_le_bytes());
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
    let (names, tokens) = (read(NAMES), read(TOKENS));
    let records = beginning(&tokens);

    let check = |tokens_left: Option<&[u8]>, names_left: Option<&[u8]>| {
        let dir = TempDir::new().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        if let Some(bytes) = names_left {
            write(NAMES, bytes);
        }
        if let Some(bytes) = tokens_left {
            write(PARTIAL, bytes);
        }
        assert!(TokenCache::open(dir.path()).is_err());
        let writer = writer(dir.path(), Shard::WHOLE).unwrap();
        // All whole pictures are kept, as far as there are names for them.
        let whole = tokens_left.map_or(0, |bytes| bytes.len().saturating_sub(records) / PICTURE);
        let lines = names_left.map_or(0, |names| names.iter().filter(|&&b| b == b'\n').count());
        assert_eq!(writer.len(), whole.min(SAMPLES).min(lines));
        complete(writer);
        assert_eq!(files(dir.path()), whole_files);
    };

    check(None, None);
    check(None, Some(&[]));
    // The header is many bytes that are all alike to the writer: some of them stand for all.
    for cut in (0..=32).chain((33..records).step_by(29)).chain(records..=tokens.len()) {
        check(Some(&tokens[..cut]), Some(&names));
    }
    // Names go to the disk first; a crash of the whole machine may still lose some of them.
    for cut in 0..=names.len() {
        check(Some(&tokens[..records + 2 * PICTURE]), Some(&names[..cut]));
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
    let records = beginning(&tokens);
    let two = &tokens[..records + 2 * PICTURE];
    assert_eq!(resumed_from(&[two, &[0; 1000]].concat(), &names), 2);
    // Another name, and what stands behind it; a damaged header.
    let first = named(0).1.len() + 1;
    names[first] ^= 1;
    assert_eq!(resumed_from(&tokens, &names), 1);
    names[first] ^= 1;
    let mut damaged = tokens;
    damaged[records - 3] ^= 1;
    assert_eq!(resumed_from(&damaged, &names), 0);
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
    let good = expected();
    for name in [TOKENS, NAMES] {
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let Ok(cache) = TokenCache::open(dir.path()) else { continue };
            assert!(matches!(cache.verify()[..], [CacheError::Damaged { .. }]), "bit {bit}");
            for (number, good) in good.iter().enumerate() {
                if let Ok(content) = content(&cache, number) {
                    assert_eq!(content, *good);
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
fn should_never_read_wrong_tokens_from_a_mutated_cache() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let good = expected();
    let originals = [TOKENS, NAMES].map(|name| fs::read(dir.path().join(name)).unwrap());
    let (mut opened, mut read) = (0, 0);
    for trial in 0..mutations(1000) {
        let mut noise = Noise::new(1, Purpose::Order, 0, trial);
        let mut contents = originals.clone();
        for _ in 0..=noise.below(3) {
            let bytes = &mut contents[usize::from(noise.below(4) == 0)];
            let at = noise.below(bytes.len().max(1)).min(bytes.len());
            let end = (at + noise.below(40)).min(bytes.len());
            match noise.below(5) {
                0 => bytes[at..end].iter_mut().for_each(|byte| *byte = noise.below(256) as u8),
                1 => bytes[at..end].fill(0),
                2 => drop(bytes.drain(at..end)),
                3 => bytes.truncate(at),
                // A piece of itself in another place, as a disk that mixes up its blocks.
                _ => {
                    let piece = bytes[at..end].to_vec();
                    let to = noise.below(bytes.len() - piece.len() + 1);
                    bytes[to..to + piece.len()].copy_from_slice(&piece);
                }
            }
        }
        for (name, bytes) in [TOKENS, NAMES].into_iter().zip(&contents) {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let Ok(cache) = TokenCache::open(dir.path()) else { continue };
        opened += 1;
        for (number, good) in good.iter().enumerate() {
            if let Ok(content) = content(&cache, number) {
                assert_eq!(content, *good, "trial {trial}");
                read += 1;
            }
        }
        assert_eq!(cache.verify().is_empty(), contents == originals, "trial {trial}");
    }
    assert!(opened > 30 && read > opened, "{opened} opened, {read} read: too few to tell");
}

#[test]
fn should_keep_the_places_of_pictures_that_are_left_out() {
    let fill = |dir: &Path, from: usize, until: usize| {
        let mut writer = writer(dir, Shard::WHOLE).unwrap();
        assert_eq!(writer.len(), from);
        for index in from..until {
            let (label, name, tokens) = sample(index);
            match index {
                // Five tokens have room for ten bytes; an ö has two.
                1 => writer.leave_out(label, &name, "a\0 too löng reason"),
                4 => writer.leave_out(label, &name, ""),
                _ => writer.append(label, &name, &tokens),
            }
            .unwrap();
        }
        writer
    };
    let (dir, resumed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let reason = |picture, reason: &str| LeftOut { picture, reason: reason.to_owned() };
    let left_out = [reason(1, "a  too lö"), reason(4, "")];
    let writer = fill(dir.path(), 0, SAMPLES);
    assert_eq!(writer.left_out(), left_out);
    writer.finish().unwrap();
    // Resumed behind the first, a writer knows of it.
    fill(resumed.path(), 0, 3).flush().unwrap();
    let writer = fill(resumed.path(), 3, SAMPLES);
    assert_eq!(writer.left_out(), left_out);
    writer.finish().unwrap();
    assert_eq!(files(resumed.path()), files(dir.path()));

    let cache = TokenCache::open(dir.path()).unwrap();
    assert!(cache.verify().is_empty());
    assert_eq!(cache.left_out().unwrap(), left_out);
    for (number, good) in expected().into_iter().enumerate() {
        let (picture, left_out) = (number / 2, [1, 4].contains(&(number / 2)));
        match content(&cache, number) {
            Ok(content) => assert!(content == good && !left_out),
            Err(CacheError::LeftOut { picture: told, .. }) => assert!(told == picture && left_out),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(cache.label(picture).unwrap(), good.0);
    }
    let lines = dir.path().join("lines.jsonl");
    export_json_lines(&cache, &lines, |_| {}).unwrap();
    assert_eq!(fs::read_to_string(&lines).unwrap().lines().count(), 6);
}

#[test]
fn should_read_the_version_before_pictures_could_be_left_out() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let path = dir.path().join(TOKENS);
    let mut bytes = fs::read(&path).unwrap();
    let mut of_version = |version: u32| {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        TokenCache::open(dir.path())
    };
    assert_eq!(records(&of_version(2).unwrap()), expected());
    for version in [1, 5] {
        assert!(
            matches!(of_version(version), Err(CacheError::Version { got, .. }) if got == version)
        );
    }
    // Version 4 is the one with captions, and there are none.
    assert!(matches!(of_version(4), Err(CacheError::Header { .. })));
}

#[test]
fn should_see_records_in_wrong_places() {
    let dir = TempDir::new().unwrap();
    build(dir.path());
    let path = dir.path().join(TOKENS);
    let mut bytes = fs::read(&path).unwrap();
    let records = beginning(&bytes);
    let (first, second) = bytes[records..].split_at_mut(RECORD);
    first.swap_with_slice(&mut second[..RECORD]);
    fs::write(&path, &bytes).unwrap();
    let cache = TokenCache::open(dir.path()).unwrap();
    let sound: Vec<_> = (0..4).map(|number| content(&cache, number).is_ok()).collect();
    assert_eq!(sound, [false, false, true, true]);

    bytes.drain(records..records + PICTURE);
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
        assert!(cache.verify().is_empty());
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
    let error = TokenCache::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("into 2 and of 3, which overlap"), "{error}");
    let empty = TempDir::new().unwrap();
    let error = TokenCache::open(empty.path()).unwrap_err();
    assert!(error.to_string().contains("no shard"), "{error}");
    // A shard under another one's name.
    fs::remove_file(dir.path().join("tokens-00000-of-00002.bin")).unwrap();
    let path = |index: usize| dir.path().join(format!("tokens-0000{index}-of-00003.bin"));
    fs::copy(path(0), path(1)).unwrap();
    let error = TokenCache::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("it is shard 0/3"), "{error}");
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
    assert!(TokenCache::open(dir.path()).unwrap().verify().is_empty());
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
    let resume = |header| CacheWriter::create_or_resume(dir.path(), header, Shard::WHOLE, named);
    let error = resume(CacheHeader { tokenizer: other, ..header() }).unwrap_err();
    assert!(matches!(error, CacheError::Tokenizer { .. }));
    let error = resume(CacheHeader { codes: 299, ..header() }).unwrap_err();
    assert!(matches!(error, CacheError::HeaderMismatch { field: "codebook's size", .. }));

    let error = resume(CacheHeader { order: 1, ..header() }).unwrap_err();
    assert!(matches!(error, CacheError::HeaderMismatch { field: "data set's order", .. }));

    // A shard of another cache between the shards of this one.
    let shard = |index| Shard::new(index, 2).unwrap();
    let (mixed, foreign) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    complete(writer(mixed.path(), shard(0)).unwrap());
    let classes = vec!["dog".to_owned(), "cat".to_owned()];
    let other = CacheHeader { classes, ..header() };
    let open = CacheWriter::create_or_resume(foreign.path(), other.clone(), shard(1), named);
    complete(open.unwrap());
    for (name, bytes) in files(foreign.path()) {
        fs::write(mixed.path().join(name), bytes).unwrap();
    }
    let error = TokenCache::open(mixed.path()).unwrap_err();
    assert!(matches!(error, CacheError::HeaderMismatch { field: "list of classes", .. }));
    let error = CacheWriter::create_or_resume(mixed.path(), other, shard(0), named).unwrap_err();
    assert!(matches!(error, CacheError::HeaderMismatch { field: "list of classes", .. }));
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
        let error =
            CacheWriter::create_or_resume(dir.path(), wrong, Shard::WHOLE, named).unwrap_err();
        assert!(matches!(error, CacheError::Header { .. }));
    }
    assert_eq!(files(dir.path()), []);
    build(dir.path());
    let path = dir.path().join(TOKENS);
    let bytes = fs::read(&path).unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        let records = beginning(&bytes);
        let checksum = crc32c::crc32c(&bytes[32..records]).to_le_bytes();
        bytes[24..28].copy_from_slice(&checksum);
        let checksum = crc32c::crc32c(&bytes[..28]).to_le_bytes();
        bytes[28..32].copy_from_slice(&checksum);
        fs::write(&path, bytes).unwrap();
        TokenCache::open(dir.path()).unwrap_err()
    };
    assert!(matches!(with(8, 1), CacheError::Version { got: 1, .. }));
    // No JSON any more, under good checksums.
    assert!(matches!(with(32, b'?'), CacheError::Header { .. }));
    fs::remove_file(&path).unwrap();
    assert!(matches!(TokenCache::open(dir.path()), Err(CacheError::Division { .. })));
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

    // Neither fewer pictures than the shard has, nor more.
    let dir = TempDir::new().unwrap();
    let mut writer = self::writer(dir.path(), Shard::WHOLE).unwrap();
    for index in 0..SAMPLES - 1 {
        let (label, name, tokens) = sample(index);
        writer.append(label, &name, &tokens).unwrap();
    }
    assert!(matches!(writer.finish(), Err(CacheError::Short { got: 4, expected: 5, .. })));
    let mut writer = self::writer(dir.path(), Shard::WHOLE).unwrap();
    let (label, name, tokens) = sample(SAMPLES - 1);
    writer.append(label, &name, &tokens).unwrap();
    assert!(matches!(writer.append(label, &name, &tokens), Err(CacheError::Sample { .. })));
    writer.finish().unwrap();
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

#[test]
fn should_keep_all_of_imagenet_small() {
    let layout = TokenLayout::new(16, 16, 16);
    let header = CacheHeader { layout, views: 10, ..header() };
    assert_eq!(header.record_size(), 558);
    assert!(1_281_167 * header.views * header.record_size() < 7_500_000_000);
}

/// What an import would put into a cache.
fn imported(source: &mut dyn TokenSource) -> Vec<(usize, String, Vec<CodebookIndex>)> {
    let pictures = 0..source.len();
    let picture = |index| {
        let tokens = source.tokens(index).unwrap();
        let (label, name) = source.picture(index);
        (label, name.to_owned(), tokens)
    };
    pictures.map(picture).collect()
}

/// A cache whose pictures lie in class folders.
fn build_in_folders(dir: &Path) -> Vec<(usize, String, Vec<CodebookIndex>)> {
    let name = |index: usize| (index / 3, format!("{}/{index}.png", ["a", "b"][index / 3]));
    let header = CacheHeader { order: order_checksum((0..SAMPLES).map(name)), ..header() };
    let mut writer = CacheWriter::create_or_resume(dir, header, Shard::WHOLE, name).unwrap();
    let mut written = Vec::new();
    for index in 0..SAMPLES {
        let ((label, name), (_, _, tokens)) = (name(index), sample(index));
        writer.append(label, &name, &tokens).unwrap();
        written.push((label, name, tokens));
    }
    writer.finish().unwrap();
    written
}

#[test]
fn should_exchange_tokens_with_the_released_programs() {
    let dir = TempDir::new().unwrap();
    let written = build_in_folders(&dir.path().join("cache"));
    let cache = TokenCache::open(dir.path().join("cache")).unwrap();

    let folder = dir.path().join("folder");
    export_npz_folder(&cache, &folder, |_| {}).unwrap();
    let mut source = NpzFolder::open(&folder).unwrap();
    assert_eq!((source.classes(), source.views()), (&["a".to_owned(), "b".to_owned()][..], 2));
    assert_eq!(imported(&mut source), written);
    let array = codes(&folder.join("b/4.png.npz")).unwrap();
    assert_eq!(array.0, [2, 5]);
    let mut file = ArchiveReader::open(&folder.join("b/4.png.npz")).unwrap();
    assert!(file.integers("labels", 10).is_err() && file.floats("codes", 10).is_err());
    // What was there before is gone.
    fs::write(folder.join("old.npz"), "of another cache").unwrap();
    export_npz_folder(&cache, &folder, |_| {}).unwrap();
    assert!(!folder.join("old.npz").exists());
    assert_eq!(imported(&mut NpzFolder::open(&folder).unwrap()), written);
    // Another number of views.
    files::npz::write(&folder.join("b/4.png.npz"), |arrays| {
        arrays.add("codes", &[1, 5], vec![1i64; 5])
    })
    .unwrap();
    assert!(NpzFolder::open(&folder).unwrap().tokens(4).is_err());
    // Not a token, not integers, not two axes.
    for (shape, values) in [(&[2u64, 5][..], vec![65_536i64; 10]), (&[10], vec![0; 10])] {
        files::npz::write(&folder.join("b/4.png.npz"), |arrays| arrays.add("codes", shape, values))
            .unwrap();
        assert!(NpzFolder::open(&folder).unwrap().tokens(4).is_err());
    }
    files::npz::write(&folder.join("b/4.png.npz"), |arrays| {
        arrays.add("codes", &[2, 5], vec![1f32; 10])
    })
    .unwrap();
    assert!(NpzFolder::open(&folder).unwrap().tokens(4).is_err());

    let lines = dir.path().join("tokens.jsonl");
    export_json_lines(&cache, &lines, |_| {}).unwrap();
    let text = fs::read_to_string(&lines).unwrap();
    assert_eq!(text.lines().count(), 2 * SAMPLES);
    assert!(text.starts_with("{\"class_id\":0,\"tokens\":["), "{text}");
    let mut source = JsonLines::open(&lines, 2, &[]).unwrap();
    assert_eq!(source.classes(), ["class 0", "class 1"]);
    let nameless = |(label, _, tokens)| (label, tokens);
    let found: Vec<_> = imported(&mut source).into_iter().map(nameless).collect();
    assert_eq!(found, written.into_iter().map(nameless).collect::<Vec<_>>());
    // In any order too.
    assert_eq!(source.tokens(1).unwrap(), found[1].1);
    // Views of two classes in one picture, lines left over, an unknown class.
    for (views, classes) in [(4, &[][..]), (3, &[]), (2, &["only".to_owned()])] {
        assert!(JsonLines::open(&lines, views, classes).is_err());
    }
}

fn codes(path: &Path) -> std::io::Result<(Vec<u64>, Vec<i64>)> {
    ArchiveReader::open(path)?.integers("codes", 10)
}

/// The parser of headers would follow each bracket, and multiply each extent.
#[test]
fn should_refuse_headers_of_arrays_that_are_none() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.npz");
    let store = |text: &str| {
        let mut array = b"\x93NUMPY\x02\x00".to_vec();
        array.extend((text.len() as u32).to_le_bytes());
        array.extend(text.as_bytes());
        array.extend([0; 80]);
        let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
        zip.start_file("codes.npy", zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, &array).unwrap();
        zip.finish().unwrap();
        codes(&path)
    };
    let of_shape =
        |shape: &str| format!("{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}\n");
    assert_eq!(store(&of_shape("(2, 5)")).unwrap(), (vec![2, 5], vec![0; 10]));
    let columns_first = of_shape("(2, 5)").replace("False", "True");
    assert_eq!(store(&columns_first).unwrap(), (vec![2, 5], vec![0; 10]));
    for text in [
        "(".repeat(9000),
        "[".repeat(60_000),
        of_shape("(4294967296, 4294967296)"),
        of_shape("(18446744073709551615,)"),
        of_shape("(2, 6)"),
        of_shape("(2, -5)"),
        of_shape("(2, 5)").replace("i8", "f8"),
    ] {
        let error = store(&text).unwrap_err().to_string();
        assert!(!error.is_empty(), "{text}");
    }
}

#[test]
fn should_read_npz_and_json_that_are_mutated_right_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    build_in_folders(&dir.path().join("cache"));
    let cache = TokenCache::open(dir.path().join("cache")).unwrap();
    let (folder, lines) = (dir.path().join("folder"), dir.path().join("tokens.jsonl"));
    export_npz_folder(&cache, &folder, |_| {}).unwrap();
    export_json_lines(&cache, &lines, |_| {}).unwrap();
    let array = folder.join("a/0.png.npz");
    let good = codes(&array).unwrap();
    let (array_bytes, lines_bytes) = (fs::read(&array).unwrap(), fs::read(&lines).unwrap());
    let mutated = |bytes: &[u8], trial: u64| {
        let mut noise = Noise::new(2, Purpose::Order, 0, trial);
        let mut bytes = bytes.to_vec();
        for _ in 0..=noise.below(4) {
            let at = noise.below(bytes.len().max(1));
            match noise.below(4) {
                _ if bytes.is_empty() => break,
                0 => bytes[at] ^= 1 << noise.below(8),
                1 => bytes[at] = noise.below(256) as u8,
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    };
    let mut read = 0;
    for trial in 0..mutations(1000) {
        fs::write(&array, mutated(&array_bytes, trial)).unwrap();
        if let Ok(found) = codes(&array) {
            assert_eq!(found, good, "trial {trial}");
            read += 1;
        }
        // JSON has no checksum; what is read must still be in bounds.
        fs::write(&lines, mutated(&lines_bytes, trial)).unwrap();
        if let Ok(mut source) = JsonLines::open(&lines, 2, &[]) {
            for index in 0..source.len() {
                let _readable = source.tokens(index);
                assert!(source.picture(index).0 < source.classes().len());
            }
        }
    }
    assert!(read > 10, "{read} files were readable: too few to tell");
}

const CAPTIONS: &str = "captions-00000-of-00001.bin";

/// The captions of a sample: none, one, or several, of which one is empty and one has line breaks.
fn captioned(index: usize) -> Vec<String> {
    let texts = ["a tree", "", "zwei\nBäume\0", "a tree"];
    texts[..[1, 0, 3, 4, 2][index]].iter().map(|&text| text.to_owned()).collect()
}

fn captioned_header() -> CacheHeader {
    CacheHeader { captions: Some(caption_checksum((0..SAMPLES).map(captioned))), ..header() }
}

fn captioned_writer(dir: &Path, shard: Shard) -> Result<CacheWriter, CacheError> {
    CacheWriter::create_or_resume_captioned(dir, captioned_header(), shard, named, captioned)
}

/// Appends what is missing of a shard with captions; picture 3 was left out.
fn complete_captioned(mut writer: CacheWriter) {
    let range = writer.shard().range(SAMPLES);
    for index in range.start + writer.len()..range.end {
        let (label, name, tokens) = sample(index);
        match index {
            3 => writer.leave_out_captioned(label, &name, &captioned(index), "damaged"),
            _ => writer.append_captioned(label, &name, &captioned(index), &tokens),
        }
        .unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn should_read_the_captions_that_were_written_in_any_number_of_shards() {
    for count in [1, 2, 3, SAMPLES + 2] {
        let dir = TempDir::new().unwrap();
        for index in (0..count).rev() {
            let own = TempDir::new().unwrap();
            complete_captioned(
                captioned_writer(own.path(), Shard::new(index, count).unwrap()).unwrap(),
            );
            for (name, bytes) in files(own.path()) {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
        }
        let cache = TokenCache::open(dir.path()).unwrap();
        assert_eq!(cache.header(), &captioned_header());
        assert!(cache.verify().is_empty());
        for index in 0..SAMPLES {
            assert_eq!(cache.captions(index).unwrap(), captioned(index));
        }
        assert!(matches!(cache.captions(SAMPLES), Err(CacheError::OutOfRange { .. })));
        assert_eq!(cache.left_out().unwrap().len(), 1);
        assert_eq!(content(&cache, 0).unwrap(), expected()[0]);
    }
}

#[test]
fn should_keep_the_documented_format_of_captions() {
    let dir = TempDir::new().unwrap();
    complete_captioned(captioned_writer(dir.path(), Shard::WHOLE).unwrap());
    let tokens = fs::read(dir.path().join(TOKENS)).unwrap();
    let bytes = fs::read(dir.path().join(CAPTIONS)).unwrap();
    let long = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    };
    assert_eq!(tokens[8..12], 4_u32.to_le_bytes());
    let json: serde_json::Value = serde_json::from_slice(&tokens[32..beginning(&tokens)]).unwrap();
    assert_eq!(json["captions"], captioned_header().captions.unwrap());
    let summary = &tokens[tokens.len() - 64..tokens.len() - 32];
    let count: usize = (0..SAMPLES).map(|index| captioned(index).len()).sum();
    assert_eq!(&summary[..8], b"captions");
    assert_eq!([long(summary, 8), long(summary, 16)], [count, bytes.len()]);
    assert_eq!(summary[24..28], crc32c::crc32c(&bytes).to_le_bytes());
    assert_eq!(summary[28..], crc32c::crc32c(&summary[..28]).to_le_bytes());

    let pictures = bytes.len() - 12 * SAMPLES;
    let ends = pictures - 8 * count;
    let all: Vec<String> = (0..SAMPLES).flat_map(captioned).collect();
    assert_eq!(bytes[..ends], *all.concat().as_bytes());
    let (mut end, mut before) = (0, 0);
    for (number, caption) in all.iter().enumerate() {
        end += caption.len();
        assert_eq!(long(&bytes, ends + 8 * number), end);
    }
    for index in 0..SAMPLES {
        let entry = &bytes[pictures + 12 * index..][..12];
        let captions = captioned(index);
        before += captions.len();
        assert_eq!(long(entry, 0), before);
        let mut checked = [index as u32, captions.len() as u32].map(u32::to_le_bytes).concat();
        for caption in &captions {
            checked.extend((caption.len() as u32).to_le_bytes());
            checked.extend(caption.as_bytes());
        }
        assert_eq!(entry[8..], crc32c::crc32c(&checked).to_le_bytes());
    }
}

#[test]
fn should_resume_a_writer_of_captions_killed_at_any_byte() {
    let whole = TempDir::new().unwrap();
    complete_captioned(captioned_writer(whole.path(), Shard::WHOLE).unwrap());
    let whole_files = files(whole.path());
    let read = |name: &str| fs::read(whole.path().join(name)).unwrap();
    let (tokens, names, captions) = (read(TOKENS), read(NAMES), read(CAPTIONS));
    let records = beginning(&tokens);
    let resumed_from = |tokens: &[u8], names: &[u8], captions: &[u8]| {
        let dir = TempDir::new().unwrap();
        for (name, bytes) in [(PARTIAL, tokens), (NAMES, names), (CAPTIONS, captions)] {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let writer = captioned_writer(dir.path(), Shard::WHOLE).unwrap();
        let kept = writer.len();
        complete_captioned(writer);
        assert_eq!(files(dir.path()), whole_files);
        kept
    };
    for cut in records..=tokens.len() {
        let kept = resumed_from(&tokens[..cut], &names, &captions);
        assert_eq!(kept, ((cut - records) / PICTURE).min(SAMPLES));
    }
    let texts: Vec<usize> = (0..SAMPLES).map(|index| captioned(index).concat().len()).collect();
    for cut in 0..=captions.len() {
        let mut ends = texts.iter().scan(0, |end, text| {
            *end += text;
            Some(*end)
        });
        let expected = ends.position(|end| end > cut).unwrap_or(SAMPLES);
        assert_eq!(resumed_from(&tokens, &names, &captions[..cut]), expected);
    }
    for cut in 0..=names.len() {
        let lines = names[..cut].iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(resumed_from(&tokens, &names[..cut], &captions), lines);
    }
    // Another text.
    let mut changed = captions.clone();
    changed[texts[0]] ^= 1;
    assert_eq!(resumed_from(&tokens, &names, &changed), 2);
}

#[test]
fn should_see_every_flipped_bit_and_every_cut_of_captions() {
    let dir = TempDir::new().unwrap();
    complete_captioned(captioned_writer(dir.path(), Shard::WHOLE).unwrap());
    for name in [TOKENS, NAMES, CAPTIONS] {
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let Ok(cache) = TokenCache::open(dir.path()) else { continue };
            assert!(matches!(cache.verify()[..], [CacheError::Damaged { .. }]), "{name} {bit}");
            for index in 0..SAMPLES {
                if let Ok(captions) = cache.captions(index) {
                    assert_eq!(captions, captioned(index), "{name} {bit}");
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
    fs::remove_file(dir.path().join(CAPTIONS)).unwrap();
    let error = TokenCache::open(dir.path()).unwrap_err();
    assert!(matches!(&error, CacheError::File { .. }) && error.to_string().contains(CAPTIONS));
}

#[test]
fn should_never_read_wrong_captions_whatever_the_tables_say() {
    let dir = TempDir::new().unwrap();
    complete_captioned(captioned_writer(dir.path(), Shard::WHOLE).unwrap());
    let originals = [TOKENS, CAPTIONS].map(|name| fs::read(dir.path().join(name)).unwrap());
    let mut read = 0;
    for trial in 0..mutations(1000) {
        let mut noise = Noise::new(2, Purpose::Order, 0, trial);
        let [mut tokens, mut captions] = originals.clone();
        // Numbers that point anywhere, with checksums that hold.
        let at = noise.below(captions.len() - 8);
        let value = match noise.below(3) {
            0 => noise.bits(),
            1 => noise.below(2 * captions.len()) as u64,
            _ => u64::MAX - noise.below(64) as u64,
        };
        captions[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let summary = tokens.len() - 64;
        if noise.below(2) == 0 {
            tokens[summary + 8..summary + 16].copy_from_slice(&value.to_le_bytes());
        }
        tokens[summary + 24..summary + 28]
            .copy_from_slice(&crc32c::crc32c(&captions).to_le_bytes());
        let checksum = crc32c::crc32c(&tokens[summary..summary + 28]);
        tokens[summary + 28..summary + 32].copy_from_slice(&checksum.to_le_bytes());
        for (name, bytes) in [(TOKENS, &tokens), (CAPTIONS, &captions)] {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let Ok(cache) = TokenCache::open(dir.path()) else { continue };
        for index in 0..SAMPLES {
            if let Ok(captions) = cache.captions(index) {
                assert_eq!(captions, captioned(index), "trial {trial}");
                read += 1;
            }
        }
        assert!(!cache.verify().is_empty() || captions == originals[1], "trial {trial}");
    }
    assert!(read > 100, "{read} read: too few to tell");
}

#[test]
fn should_refuse_captions_of_another_data_set_and_those_that_were_not_announced() {
    let dir = TempDir::new().unwrap();
    let (label, name, tokens) = sample(0);
    let mut plain = writer(dir.path(), Shard::WHOLE).unwrap();
    let error = plain.append_captioned(label, &name, &captioned(0), &tokens).unwrap_err();
    assert!(matches!(error, CacheError::Sample { .. }));
    assert!(plain.is_empty());
    drop(plain);
    // A cache without captions keeps its version, and has no file of captions.
    build(dir.path());
    let cache = TokenCache::open(dir.path()).unwrap();
    assert!(cache.captions(0).unwrap().is_empty() && !dir.path().join(CAPTIONS).exists());
    let error = captioned_writer(dir.path(), Shard::WHOLE).unwrap_err();
    assert!(matches!(error, CacheError::HeaderMismatch { field: "captions", .. }), "{error}");

    // What was written is not what the header tells of.
    let dir = TempDir::new().unwrap();
    let other = CacheHeader { captions: Some(1), ..header() };
    let open =
        CacheWriter::create_or_resume_captioned(dir.path(), other, Shard::WHOLE, named, captioned);
    complete_captioned(open.unwrap());
    let damages = TokenCache::open(dir.path()).unwrap().verify();
    assert!(damages.len() == 1 && damages[0].to_string().contains("captions"), "{damages:?}");
}
