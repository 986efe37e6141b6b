//! The loader, the survey of a data set, and what damage does to shards.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pixels::loader::{BadSample, Loader, LoaderOptions, OnBad, Place};
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

fn options(threads: usize, ahead: usize) -> LoaderOptions {
    LoaderOptions { threads, ahead }
}

fn indices(bad: &[BadSample]) -> Vec<usize> {
    bad.iter().map(|bad| bad.index).collect()
}

#[test]
fn should_keep_the_order_on_any_number_of_threads() {
    let order = Permutation::new(&mut Noise::new(1, Purpose::Order, 0, 0), 300);
    let order: Vec<usize> = (0..300).map(|position| order.at(position)).collect();
    for (threads, ahead) in [(1, 1), (2, 8), (7, 3), (5, 1000)] {
        let loader = Loader::start(
            Made::set(300, 1000),
            order.clone().into_iter(),
            options(threads, ahead),
            OnBad::Stop,
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
        options(3, 4),
        OnBad::Stop,
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
fn should_leave_bad_samples_out_and_list_them() {
    let order = (0..20).chain(0..20);
    let mut loader =
        Loader::start(Made::set(20, 6), order, options(3, 5), OnBad::LeaveOut, |data, i| {
            data.picture(i)
        });
    let first: Vec<usize> = loader.by_ref().take(6).map(|item| item.unwrap().0).collect();
    assert_eq!(first, [0, 1, 2, 3, 4, 6]);
    let bad = loader.take_bad();
    assert_eq!(indices(&bad), [5], "none that nobody has come to yet");
    assert!(bad[0].error.to_string().contains("made-5"));
    let rest: Vec<usize> = loader.by_ref().map(|item| item.unwrap().0).collect();
    let good = |from| (from..20).filter(|index| index % 6 != 5);
    assert_eq!(rest, good(7).chain(good(0)).collect::<Vec<_>>());
    assert_eq!(indices(&loader.take_bad()), [11, 17, 5, 11, 17]);
    assert_eq!(loader.bad_count(), 6);
}

#[test]
fn should_end_at_the_first_bad_sample_if_told_to() {
    let mut loader =
        Loader::start(Made::set(20, 6), 0..20, options(3, 5), OnBad::Stop, |data, i| {
            data.picture(i)
        });
    let good: Vec<usize> = loader.by_ref().take(5).map(|item| item.unwrap().0).collect();
    assert_eq!(good, [0, 1, 2, 3, 4]);
    assert!(loader.next().unwrap().unwrap_err().to_string().contains("made-5"));
    assert!(loader.next().is_none());
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Numbered {
    number: u64,
    index: usize,
}

impl Place for Numbered {
    fn index(&self) -> usize {
        self.index
    }
}

/// Places 0, 1, … whose samples are the same, and others that take them by number and tries.
fn replaced(
    count: usize,
    bad: usize,
    threads: usize,
    first: u64,
) -> Loader<Numbered, (u64, usize, Picture)> {
    let order = (first..first + 40).map(move |n| Numbered { number: n, index: n as usize % count });
    let other = move |place: Numbered, tries: u64| {
        let index = Noise::new(1, Purpose::Order, place.number, tries).below(count);
        Numbered { index, ..place }
    };
    let on_bad = OnBad::Replace(Box::new(other));
    Loader::start(Made::set(count, bad), order, options(threads, 7), on_bad, |data, place| {
        Ok((place.number, place.index, data.picture(place.index)?))
    })
}

#[test]
fn should_replace_bad_samples_by_others_that_hang_on_the_place_alone() {
    let all = |threads, first| {
        let mut loader = replaced(20, 3, threads, first);
        let items: Vec<_> = loader.by_ref().map(|item| item.unwrap()).collect();
        (items, indices(&loader.take_bad()), loader.bad_count())
    };
    let (items, bad, count) = all(1, 0);
    assert_eq!(items.len(), 40, "no place stays empty");
    for (number, (place, (of, index, _))) in items.iter().enumerate() {
        assert_eq!((place.number, *of), (number as u64, number as u64));
        assert!(index % 3 != 2, "{index} is bad");
        assert!(place.index % 3 == 2 || place.index == *index, "a good sample keeps its place");
    }
    // 6 of 20 are bad, 12 of 40, and some of the others that were tried.
    assert!(bad.len() > 12 && bad.len() as u64 == count, "{bad:?}");
    assert_eq!(all(5, 0), (items.clone(), bad, count));
    // From the middle, as a resumed run begins.
    assert_eq!(all(2, 11).0[..29], items[11..]);
}

#[test]
fn should_give_up_where_nothing_can_be_read() {
    let order = (0..10).cycle();
    let mut loader =
        Loader::start(Made::set(10, 1), order, options(2, 8), OnBad::LeaveOut, |data, index| {
            data.picture(index)
        });
    assert!(loader.next().unwrap().is_err(), "an endless order of bad samples would never end");
    assert!(loader.next().is_none());
    assert_eq!((loader.bad_count(), loader.take_bad().len()), (1000, 999));

    let mut loader = replaced(10, 1, 2, 0);
    assert!(loader.next().unwrap().is_err());
    assert!(loader.next().is_none());
}

#[test]
fn should_not_take_a_fault_of_the_system_for_a_bad_picture() {
    let failing = |data: &dyn DataSet, place: Numbered| {
        if place.index != 3 {
            return data.picture(place.index);
        }
        let source = std::io::Error::from_raw_os_error(5); // input/output error
        Err(PixelsError::Read { path: "disk".into(), source })
    };
    let order = (0..8).map(|number| Numbered { number, index: number as usize });
    let on_bad = OnBad::Replace(Box::new(|place: Numbered, _| Numbered { index: 0, ..place }));
    let mut loader = Loader::start(Made::set(8, 100), order, options(2, 4), on_bad, failing);
    assert_eq!(loader.by_ref().take(3).filter(Result::is_ok).count(), 3);
    assert!(loader.next().unwrap().unwrap_err().to_string().contains("disk"));
    assert!(loader.next().is_none());

    let missing = std::io::ErrorKind::NotFound.into();
    assert!(!PixelsError::Read { path: "file".into(), source: missing }.is_of_the_system());
}

#[test]
fn should_call_a_panic_a_bad_sample() {
    let seen = Mutex::new(Vec::new());
    let data = Made::set(4, 100);
    let mut loader = Loader::start(data, 0..4, options(2, 2), OnBad::LeaveOut, |_, index| {
        if index == 2 {
            std::panic::resume_unwind(Box::new("out of range".to_owned()));
        }
        Ok(index)
    });
    loader.by_ref().for_each(|item| seen.lock().unwrap().push(item.unwrap().0));
    assert_eq!(*seen.lock().unwrap(), [0, 1, 3]);
    let bad = loader.take_bad();
    assert_eq!(indices(&bad), [2]);
    assert!(bad[0].error.to_string().contains("out of range"));
}

#[test]
fn should_survey_counts_sizes_and_what_cannot_be_read() {
    let mut last = 0;
    let survey = survey(Made::set(200, 50), 3, false, |read| last = read).unwrap();
    assert_eq!(survey.counts, [100, 100]);
    assert_eq!((survey.readable, last), (196, 199));
    assert_eq!(survey.widths, Some(Lengths { smallest: 1, median: 3, largest: 5 }));
    assert_eq!(survey.heights, Some(Lengths { smallest: 2, median: 2, largest: 2 }));
    assert_eq!((survey.unreadable, indices(&survey.listed)), (4, vec![49, 99, 149, 199]));
    // 96 are chosen, evenly spread. The four that cannot be read are not among them.
    let shown: Vec<usize> = survey.shown.iter().map(|(index, _)| *index).collect();
    assert_eq!(shown, (0..96).map(|place| place * 200 / 96).collect::<Vec<_>>());
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
    let rounds = std::env::var("MUTATIONS").map_or(600, |count| count.parse().unwrap());
    for round in 0..rounds {
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
        match data::open(path.to_str().unwrap(), &fixtures::home()) {
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
