//! Parquet files as pyarrow 26.0.1 and polars 2.1.0 write them (`tests/fixtures/data_sets.py`).

use fixtures::fixture;
use tokens::noise::{Noise, Purpose};

use crate::sets::{left_out, listing, mutated, open};

/// Class and value of each sample of the fixtures.
const EXPECTED: [(&str, u8); 6] =
    [("dog", 1), ("cat", 2), ("dog", 3), ("cat", 4), ("dog", 5), ("bird", 6)];

#[track_caller]
fn check(name: &str, number_names: bool) {
    let set = open(&fixture(&format!("data_sets/{name}.parquet")))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let found: Vec<_> =
        listing(set.as_ref()).iter().map(|&(_, class, value)| (class, value)).collect();
    let of_number = |class| ["bird", "cat", "dog"].iter().position(|known| *known == class);
    for (found, expected) in found.iter().zip(EXPECTED) {
        let class = match number_names {
            true => of_number(expected.0).unwrap().to_string(),
            false => expected.0.to_owned(),
        };
        assert_eq!((found.0, found.1), (class.as_str(), expected.1), "{name}");
    }
    assert_eq!((found.len(), set.classes().len()), (6, 3), "{name}");
    assert!(set.left_out().is_empty());
}

#[test]
fn should_read_every_codec_that_pyarrow_and_polars_write() {
    for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"] {
        check(&format!("codec_{codec}"), false);
    }
    for codec in ["uncompressed", "snappy", "gzip", "brotli", "zstd", "lz4"] {
        check(&format!("polars_{codec}"), false);
    }
}

#[test]
fn should_read_labels_of_every_sound_type() {
    for bits in [8, 16, 32, 64] {
        check(&format!("label_int{bits}"), true);
        check(&format!("label_uint{bits}"), true);
    }
    for kind in ["dictionary", "large_string", "string_view", "binary"] {
        check(&format!("label_{kind}"), false);
    }
}

#[test]
fn should_find_columns_by_type_by_name_and_by_hugging_faces_metadata() {
    for kind in ["binary", "large_binary", "binary_view", "by_type"] {
        check(&format!("picture_{kind}"), false);
    }
    check("class_label", false);
    check("pages", false);
    let set = open(&fixture("data_sets/pages.parquet")).unwrap();
    assert_eq!((set.name(5), set.caption(5)), ("5.png", Some("a bird")));
}

#[test]
fn should_read_several_captions_of_a_picture_with_classes_or_without() {
    let expected: [&[&str]; 6] =
        [&["a dog", "asleep"], &["a cat"], &[], &[], &["one", "two", "three"], &["a bird"]];
    let set = open(&fixture("data_sets/caption_lists.parquet")).unwrap();
    let found: Vec<_> = (0..set.len()).map(|index| set.captions(index)).collect();
    assert_eq!(found, expected);
    assert_eq!(set.classes().len(), 3);

    let set = open(&fixture("data_sets/captions_alone.parquet")).unwrap();
    let found: Vec<_> = (0..set.len()).map(|index| set.captions(index)).collect();
    assert_eq!(found, [expected[0], expected[1], expected[4], expected[5]]);
    assert_eq!((set.classes(), set.label(3)), (&["pictures".to_owned()][..], 0));
    assert_eq!(listing(set.as_ref())[3].2, 6);
    assert_eq!(left_out(set.as_ref()), [("no caption", true, 2, vec!["2.png", "3.png"])]);
}

#[test]
fn should_name_an_odd_type_of_a_label() {
    for (kind, part) in [
        ("float64", "fractions"),
        ("list", "lists"),
        ("struct", "structs"),
        ("timestamp", "times"),
        ("decimal", "fixed length"),
    ] {
        let told = open(&fixture(&format!("data_sets/odd_{kind}.parquet"))).err().unwrap();
        let told = told.to_string();
        assert!(told.contains("`label` holds") && told.contains(part), "{kind}: {told}");
    }
}

#[test]
fn should_leave_out_and_list_rows_that_are_incomplete() {
    let set = open(&fixture("data_sets/lacking.parquet")).unwrap();
    let found: Vec<_> = listing(set.as_ref()).iter().map(|&(_, _, value)| value).collect();
    assert_eq!(found, [1, 4, 6]);
    assert_eq!(
        left_out(set.as_ref()),
        [
            ("no class", true, 1, vec!["2.png"]),
            ("no picture", true, 2, vec!["lacking/1", "elsewhere.png"]),
        ]
    );
    let set = open(&fixture("data_sets/unlabelled.parquet")).unwrap();
    assert_eq!(set.len(), 5);
    assert!(left_out(set.as_ref())[0].0.contains("below 0"));
}

#[test]
fn should_refuse_a_page_whose_dictionary_is_missing() {
    // `pages.parquet` with bytes that fuzzing changed.
    let set = open(&fixture("data_sets/without_dictionary.parquet"));
    let error = set.err().unwrap().to_string();
    assert!(error.contains("without_dictionary.parquet"), "{error}");
    assert!(error.contains("a page needs a dictionary that is not there"), "{error}");
}

#[test]
fn should_give_a_set_or_an_error_for_any_damaged_parquet_file() {
    let rounds = std::env::var("MUTATIONS").map_or(60, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.parquet");
    let mut sets = 0;
    for (number, name) in ["pages", "codec_zstd", "codec_brotli", "lacking"].iter().enumerate() {
        let whole = std::fs::read(fixture(&format!("data_sets/{name}.parquet"))).unwrap();
        for round in 0..rounds {
            let mut noise = Noise::new(4, Purpose::Order, number as u64, round);
            std::fs::write(&path, mutated(&whole, &mut noise)).unwrap();
            match open(&path) {
                Ok(set) => {
                    sets += 1;
                    for index in 0..set.len() {
                        assert!(set.label(index) < set.classes().len());
                        let _picture_or_error = set.picture(index);
                    }
                }
                Err(error) => assert!(error.to_string().contains("shard.parquet"), "{error}"),
            }
        }
    }
    assert!(sets > 5, "only {sets} were still sets: the damage is too coarse");
}
