//! Tar shards as other programs write them.

use fixtures::{fixture, home};
use pixels::data;
use tokens::noise::{Noise, Purpose};

use crate::sets::{left_out, listing, mutated, open, open_tar, picture, refused, sorted, tar};

#[test]
fn should_read_what_the_package_webdataset_reads() {
    // `tests/fixtures/data_sets.py` wrote the shards, and what the package reads of them.
    type Expected = std::collections::BTreeMap<String, Vec<(String, u8, usize)>>;
    let text = std::fs::read_to_string(fixture("data_sets/shards.json")).unwrap();
    let expected: Expected = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 6);
    for (name, samples) in expected {
        let set = open(&fixture(&format!("data_sets/{name}"))).unwrap();
        let found: Vec<(String, u8, usize)> = (0..set.len())
            .map(|index| {
                let value = set.picture(index).unwrap().rgb()[0];
                (set.name(index).to_owned(), value, set.label(index))
            })
            .collect();
        assert_eq!(found, samples, "{name}");
    }
}

#[test]
fn should_give_the_same_set_for_any_order_of_members_and_any_litter() {
    let pictures: Vec<Vec<u8>> = (0..6).map(|value| picture(value).encode_png()).collect();
    let mut members: Vec<(String, &[u8])> = Vec::new();
    for (index, png) in pictures.iter().enumerate() {
        members.push((format!("a/{index}.png"), png));
        members.push((format!("a/{index}.cls"), [&b"0"[..], b"1", b"2"][index % 3]));
        members.push((format!("a/{index}.json"), br#"{"label": "odd", "caption": "x"}"#));
    }
    // A label map beside a photo, a preview, and texts.
    members.push(("a/0.webp".into(), &pictures[5]));
    members.push(("a/1.gif".into(), &pictures[5]));
    members.push(("a/2.txt".into(), b"a caption"));
    let litter: [(&str, &[u8]); 6] = [
        (".DS_Store", b"x"),
        ("a/._0.png", b"x"),
        ("__MACOSX/a/._0.png", b"x"),
        ("a/0.npy", b"x"),
        ("README", b"x"),
        ("a/0.seg.png", &pictures[4]),
    ];
    let read = |order: &[usize], litter: &[(&str, &[u8])], noise: &mut Noise| {
        let mut all: Vec<(&str, &[u8])> =
            order.iter().map(|&at| (members[at].0.as_str(), members[at].1)).collect();
        for member in litter {
            all.insert(noise.below(all.len() + 1), *member);
        }
        open_tar(&all).unwrap()
    };
    let in_order: Vec<usize> = (0..members.len()).collect();
    let (_folder, set) = read(&in_order, &[], &mut Noise::new(1, Purpose::Order, 0, 0));
    let expected = sorted(set.as_ref());
    assert_eq!(expected.len(), 6);
    assert_eq!(expected[5], ("a/5".into(), "2".into(), 5));
    for round in 0..40 {
        let mut noise = Noise::new(2, Purpose::Order, round, 0);
        let order = noise.permutation(members.len());
        let (_folder, set) = read(&order, &litter, &mut noise);
        assert_eq!(sorted(set.as_ref()), expected);
        let captions: Vec<_> = (0..6).filter(|&index| set.name(index) == "a/2").collect();
        assert_eq!(set.caption(captions[0]), Some("a caption"));
        let noted: usize = left_out(set.as_ref()).iter().map(|&(_, _, count, _)| count).sum();
        assert_eq!(noted, litter.len() + 2, "{:?}", left_out(set.as_ref()));
    }
}

#[test]
fn should_take_pictures_and_classes_by_a_fixed_precedence() {
    let png = |value| picture(value).encode_png();
    let (a, b, c, d) = (png(1), png(2), png(3), png(4));
    let (_folder, set) = open_tar(&[
        ("0.gif", &d),
        ("0.webp", &c),
        ("0.png", &b),
        ("0.jpeg", &a),
        ("0.cls", b"cat"),
        ("0.json", br#"{"class": 7}"#),
        ("1.webp", &c),
        ("1.json", br#"{"label": "dog", "class": null}"#),
        ("2.jpg", &a),
        ("2.cls", b"cat"),
        ("2.json", b"[not JSON"),
    ])
    .unwrap();
    assert_eq!(listing(set.as_ref()), [("0", "cat", 1), ("1", "dog", 3), ("2", "cat", 1)]);
    assert_eq!(left_out(set.as_ref())[0].3, ["0.gif", "0.webp", "0.png"]);
}

#[test]
fn should_leave_out_and_list_samples_that_are_incomplete() {
    let png = picture(1).encode_png();
    let (_folder, set) = open_tar(&[
        ("0.png", &png),
        ("0.cls", b"dog"),
        ("1.cls", b"dog"),
        ("2.png", &png),
        ("3.bmp", &png),
        ("3.cls", b"cat"),
        ("4.png", &png),
        ("4.json", b"{}"),
        ("5.png", &png),
        ("5.cls", b" \n"),
        ("6.txt", b"a remark"),
    ])
    .unwrap();
    assert_eq!(listing(set.as_ref()), [("0", "dog", 1)]);
    assert_eq!(
        left_out(set.as_ref()),
        [
            ("a .bmp picture, which is not read; convert it to PNG", true, 1, vec!["3"]),
            ("no class", true, 3, vec!["2", "4", "5"]),
            ("no picture", true, 1, vec!["1"]),
            ("texts without a picture or a class", false, 1, vec!["6"]),
        ]
    );
    let told = data::refuse_losses("s.tar", set.as_ref()).unwrap_err().to_string();
    assert!(told.contains("1: no picture") && told.contains("2, 4, 5: no class"), "{told}");
}

/// A member of any kind, with a header as `tar` writes it.
fn member(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(content.len() as u64);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn should_not_take_headers_links_and_folders_for_members() {
    let png = picture(1).encode_png();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    let mut bytes =
        member(b'g', "pax_global_header", b"52 comment=0123456789012345678901234567890123456789\n");
    bytes.extend(member(b'5', "x/", b""));
    bytes.extend(member(b'0', "x/0.png", &png));
    bytes.extend(member(b'0', "x/0.cls", b"1"));
    bytes.extend(member(b'2', "x/1.png", b""));
    bytes.extend(member(b'0', "x/1.cls", b"0"));
    bytes.extend([0; 1024]);
    std::fs::write(&path, &bytes).unwrap();
    let set = open(&path).unwrap();
    assert_eq!(listing(set.as_ref()), [("x/0", "1", 1)]);
    let groups = left_out(set.as_ref());
    assert_eq!((groups[0].0, groups[1].3.as_slice()), ("no picture", &["x/1.png"][..]));

    // Another archive behind the end of the first.
    bytes.extend(tar(&[("2.png", &png), ("2.cls", b"1")]));
    std::fs::write(&path, &bytes).unwrap();
    let set = open(&path).unwrap();
    assert!(left_out(set.as_ref()).iter().any(|group| group.1 && group.0.contains("ignore-zeros")));
}

#[test]
fn should_say_what_a_file_is_that_is_no_shard() {
    let folder = tempfile::tempdir().unwrap();
    for (name, start, part) in [
        ("s.tar.gz", &b"\x1f\x8b\x08\x08\x27\x7c\xc2\x69\x02\xff"[..], "gunzip --keep"),
        ("s.tgz", b"\x1f\x8b\x08", "gunzip --keep"),
        ("s.tar.zst", b"\x28\xb5\x2f\xfd\x04", "zstd"),
        ("s.tar.xz", b"\xfd7zXZ\x00", "unxz"),
        ("s.zip", b"PK\x03\x04", "unzip"),
        ("s.npy", b"\x93NUMPY\x01\x00", "numpy.savez"),
        ("s.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("s.png", b"\x89PNG\r\n\x1a\n", "give its folder"),
    ] {
        let path = folder.path().join(name);
        for length in [start.len(), 2000] {
            let mut bytes = start.to_vec();
            bytes.resize(length, 0x93);
            std::fs::write(&path, &bytes).unwrap();
            let told = refused(path.to_str().unwrap());
            assert!(told.contains(part) && told.contains(name), "{name}: {told}");
            assert!(!told.chars().any(char::is_control), "{told:?}");
        }
    }
}

#[test]
fn should_pass_over_hidden_shards_that_a_pattern_matches() {
    let folder = tempfile::tempdir().unwrap();
    let png = picture(1).encode_png();
    std::fs::write(folder.path().join("a.tar"), tar(&[("0.png", &png), ("0.cls", b"0")])).unwrap();
    std::fs::write(folder.path().join("._a.tar"), "x").unwrap();
    let set = data::open(&format!("{}/*.tar", folder.path().display()), &home()).unwrap();
    assert_eq!((set.len(), left_out(set.as_ref())[0].3.as_slice()), (1, &["._a.tar"][..]));
}

#[test]
fn should_give_a_set_or_an_error_for_any_damaged_shard() {
    let rounds = std::env::var("MUTATIONS").map_or(150, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    let mut sets = 0;
    for (number, name) in
        ["folders", "long_gnu", "long_pax", "ustar", "repeated"].iter().enumerate()
    {
        let whole = std::fs::read(fixture(&format!("data_sets/{name}.tar"))).unwrap();
        for round in 0..rounds {
            let mut noise = Noise::new(9, Purpose::Order, number as u64, round);
            std::fs::write(&path, mutated(&whole, &mut noise)).unwrap();
            match open(&path) {
                Ok(set) => {
                    sets += 1;
                    for index in 0..set.len() {
                        assert!(set.label(index) < set.classes().len());
                        let _picture_or_error = set.picture(index);
                    }
                }
                Err(error) => assert!(error.to_string().contains("shard.tar"), "{error}"),
            }
        }
    }
    assert!(sets > 50, "only {sets} were still sets: the damage is too coarse");
}
