//! The loader, the survey of a data set, and what damage does to shards.

#![allow(clippy::unwrap_used)] // also outside of the test functions themselves

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pixels::loader::{Loader, LoaderOptions};
use pixels::survey::{Lengths, survey};
use pixels::{DataSet, Picture, PixelsError, data};
use tokens::noise::{Noise, Permutation, Purpose};

/// Pictures of one colour, made when they are asked for; every `bad`-th does not decode.
struct Made {
    classes: Vec<String>,
    count: usize,
    bad: usize,
}

impl Made {
    fn set(count: usize, bad: usize) -> Arc<dyn DataSet> {
        Arc::new(Self { classes: vec!["even".into(), "odd".into()], count, bad })
    }
}

impl DataSet for Made {
    fn len(&self) -> usize {
        self.count
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        index % 2
    }

    fn name(&self, _: usize) -> &str {
        "made"
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        if index % self.bad == self.bad - 1 {
            return Picture::decode(b"no picture", &format!("made-{index}"));
        }
        let (width, height) = (1 + index % 5, 2);
        Picture::new(width, height, vec![index as u8; 3 * width * height])
    }
}

fn options(threads: usize, ahead: usize, strict: bool) -> LoaderOptions {
    LoaderOptions { threads, ahead, strict }
}

#[test]
fn should_keep_the_order_on_any_number_of_threads() {
    let order = Permutation::new(&mut Noise::new(1, Purpose::Order, 0, 0), 300);
    let order: Vec<usize> = (0..300).map(|position| order.at(position)).collect();
    for (threads, ahead) in [(1, 1), (2, 8), (7, 3), (5, 1000)] {
        let loader = Loader::start(
            Made::set(300, 1000),
            order.clone().into_iter(),
            options(threads, ahead, true),
            |data, index| {
                // Some take longer than those behind them.
                std::thread::sleep(Duration::from_micros(if index % 7 == 0 { 900 } else { 10 }));
                data.picture(index)
            },
        );
        let loaded: Vec<(usize, u8)> =
            loader.map(|item| item.unwrap()).map(|(index, p)| (index, p.rgb()[0])).collect();
        let expected: Vec<(usize, u8)> = order.iter().map(|&index| (index, index as u8)).collect();
        assert_eq!(loaded, expected, "{threads} threads, {ahead} ahead");
    }
}

#[test]
fn should_wait_for_its_reader_and_stop_with_it() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let mut loader = Loader::start(
        Made::set(10, 1000),
        (0..10).cycle(),
        options(3, 4, true),
        move |_, index| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(index)
        },
    );
    for claimed in 0..50 {
        assert_eq!(loader.next().unwrap().unwrap(), (claimed % 10, claimed % 10));
        assert!(begun.load(Ordering::SeqCst) <= claimed + 1 + 4);
    }
    std::thread::sleep(Duration::from_millis(20));
    assert!(begun.load(Ordering::SeqCst) <= 54, "the order is endless, the work ahead is not");
    drop(loader);
    let after = begun.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(begun.load(Ordering::SeqCst), after, "threads went on without a reader");
}

#[test]
fn should_leave_bad_samples_out_and_list_each_once() {
    let order = (0..20).chain(0..20);
    let mut loader =
        Loader::start(Made::set(20, 6), order, options(3, 5, false), |data, i| data.picture(i));
    let indices: Vec<usize> = loader.by_ref().map(|item| item.unwrap().0).collect();
    let good: Vec<usize> = (0..20).filter(|index| index % 6 != 5).collect();
    assert_eq!(indices, [good.clone(), good].concat());
    assert_eq!(loader.skipped().count, 6);
    let listed: Vec<usize> = loader.skipped().samples.keys().copied().collect();
    assert_eq!(listed, [5, 11, 17]);
    assert!(loader.skipped().samples[&11].contains("made-11"));
}

#[test]
fn should_end_at_the_first_bad_sample_if_strict() {
    let mut loader =
        Loader::start(Made::set(20, 6), 0..20, options(3, 5, true), |data, i| data.picture(i));
    let good: Vec<usize> = loader.by_ref().take(5).map(|item| item.unwrap().0).collect();
    assert_eq!(good, [0, 1, 2, 3, 4]);
    assert!(loader.next().unwrap().unwrap_err().to_string().contains("made-5"));
    assert!(loader.next().is_none());
}

#[test]
fn should_give_up_where_nothing_can_be_read() {
    let mut loader =
        Loader::start(Made::set(10, 1), (0..10).cycle(), options(2, 8, false), |data, index| {
            data.picture(index)
        });
    assert!(loader.next().unwrap().is_err(), "an endless order of bad samples would never end");
    assert!(loader.next().is_none());
    assert_eq!((loader.skipped().count, loader.skipped().samples.len()), (1000, 10));
}

#[test]
fn should_call_a_panic_a_bad_sample() {
    let seen = Mutex::new(Vec::new());
    let mut loader = Loader::start(Made::set(4, 100), 0..4, options(2, 2, false), |_, index| {
        if index == 2 {
            std::panic::resume_unwind(Box::new("out of range".to_owned()));
        }
        Ok(index)
    });
    loader.by_ref().for_each(|item| seen.lock().unwrap().push(item.unwrap().0));
    assert_eq!(*seen.lock().unwrap(), [0, 1, 3]);
    assert!(loader.skipped().samples[&2].contains("out of range"));
}

#[test]
fn should_survey_counts_sizes_and_what_cannot_be_read() {
    let mut last = 0;
    let survey = survey(Made::set(200, 50), 3, false, |read| last = read).unwrap();
    assert_eq!(survey.counts, [100, 100]);
    assert_eq!((survey.readable, last), (196, 199));
    assert_eq!(survey.widths, Some(Lengths { smallest: 1, median: 3, largest: 5 }));
    assert_eq!(survey.heights, Some(Lengths { smallest: 2, median: 2, largest: 2 }));
    let bad: Vec<usize> = survey.unreadable.samples.keys().copied().collect();
    assert_eq!(bad, [49, 99, 149, 199]);
    // 96 are chosen, among them index 149, which cannot be read.
    let sheet = survey.contact_sheet.unwrap();
    assert_eq!((sheet.width(), sheet.height()), (12 * 100 + 4, 8 * 100 + 4));
    assert!(pixels::survey::survey(Made::set(20, 6), 2, true, |_| ()).is_err());
}

#[test]
fn should_list_or_refuse_a_shard_whatever_its_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.tar");
    let mut builder = tar::Builder::new(Vec::new());
    for number in 0..6u8 {
        let png = Picture::new(3, 2, vec![number; 18]).unwrap().encode_png();
        for (name, content) in [("png", &png[..]), ("json", br#"{"label": 3, "caption": "a"}"#)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("d/{number}.{name}"), content).unwrap();
        }
    }
    let whole = builder.into_inner().unwrap();
    let (mut opened, mut refused) = (0, 0);
    for round in 0..600 {
        let mut noise = Noise::new(11, Purpose::Order, 0, round);
        let mut bytes = whole.clone();
        for _ in 0..=noise.below(3) {
            // Most damage goes to headers, whose checksum is made right again half of the time.
            let block = 512 * noise.below(bytes.len() / 512);
            let at = block + noise.below(345).min(bytes.len() - block - 1);
            bytes[at] =
                if noise.below(2) == 0 { noise.bits() as u8 } else { b"0/.79\0"[noise.below(6)] };
            if noise.below(2) == 0 {
                bytes[block + 148..block + 156].fill(b' ');
                let sum: u32 = bytes[block..block + 512].iter().map(|&byte| u32::from(byte)).sum();
                bytes[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if noise.below(4) == 0 {
            bytes.truncate(512 * (1 + noise.below(bytes.len() / 512)));
        }
        std::fs::write(&path, &bytes).unwrap();
        match data::open(path.to_str().unwrap()) {
            Ok(set) => {
                opened += 1;
                for index in 0..set.len() {
                    assert!(set.label(index) < set.classes().len());
                    if let Err(error) = set.picture(index) {
                        assert!(error.to_string().contains("damaged.tar"), "{error}");
                    }
                }
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("damaged.tar"), "{error}");
            }
        }
    }
    assert!(opened > 50 && refused > 50, "{opened} opened, {refused} refused");
}
