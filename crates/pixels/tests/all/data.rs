//! Folders and shards.

use pixels::data::{self, DataSet};

use fixtures::home;

use crate::sets::{listing, open, open_tar, picture, tar, write_pictures};

#[test]
fn should_read_class_folders_in_sorted_order() {
    let root = tempfile::tempdir().unwrap();
    for (file, value) in [("dog/b.png", 1), ("dog/a.PNG", 2), ("cat/z.png", 3)] {
        let path = root.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture(value).write_png(path).unwrap();
    }
    for passed_over in ["dog/.a.png", "dog/notes.txt", "list.txt"] {
        std::fs::write(root.path().join(passed_over), "x").unwrap();
    }
    std::fs::create_dir(root.path().join(".cache")).unwrap();

    let set = open(root.path()).unwrap();
    assert_eq!(set.classes(), ["cat", "dog"]);
    let names: Vec<&str> = (0..set.len()).map(|index| set.name(index)).collect();
    assert_eq!(names, ["cat/z.png", "dog/a.PNG", "dog/b.png"]);
    let samples: Vec<_> = (0..3).map(|index| set.sample(index).unwrap()).collect();
    assert_eq!(samples.iter().map(|sample| sample.label).collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!(samples.iter().map(|s| s.picture.rgb()[0]).collect::<Vec<_>>(), [3, 2, 1]);

    std::fs::create_dir(root.path().join("empty")).unwrap();
    assert!(open(root.path()).err().unwrap().to_string().contains("`empty` has no"));
    assert!(open(&root.path().join("empty")).err().unwrap().to_string().contains("no sub-folder"));
}

#[test]
fn should_read_shards_with_class_names() {
    let (a, b) = (picture(1).encode_png(), picture(2).encode_png());
    let (_folder, set) = open_tar(&[
        ("x/0001.json", br#"{"class": "dog", "caption": "a dog", "split": 3, "more": []}"#),
        ("x/0001.png", &a),
        ("x/0002.PNG", &b),
        ("x/0002.seg.png", b"passed over"),
        ("x/0002.json", br#"{"class": "cat"}"#),
        ("x/0002.txt", b"a cat\n"),
    ])
    .unwrap();
    assert_eq!(set.classes(), ["cat", "dog"]);
    assert_eq!((set.name(0), set.label(0), set.caption(0)), ("x/0001", 1, Some("a dog")));
    assert_eq!((set.name(1), set.label(1), set.caption(1)), ("x/0002", 0, Some("a cat")));
    assert_eq!(set.sample(0).unwrap().picture, picture(1));
    assert_eq!(set.sample(1).unwrap().picture, picture(2));
}

#[test]
fn should_read_a_pattern_of_shards_with_class_numbers_in_sorted_order() {
    let folder = tempfile::tempdir().unwrap();
    for (shard, value, class) in [("b.tar", 7, "0"), ("a.tar", 5, "2\n"), ("c.txt", 9, "1")] {
        let png = picture(value).encode_png();
        let bytes = tar(&[("1.png", &png), ("1.cls", class.as_bytes())]);
        std::fs::write(folder.path().join(shard), bytes).unwrap();
    }
    let set = open(&folder.path().join("*.tar")).unwrap();
    assert_eq!(set.classes(), ["0", "1", "2"]);
    assert_eq!((set.len(), set.label(0), set.label(1)), (2, 2, 0));
    assert_eq!(set.picture(0).unwrap(), picture(5));
    assert_eq!(set.picture(1).unwrap(), picture(7));
}

#[test]
fn should_refuse_unusable_shards_and_say_why() {
    let png = picture(1).encode_png();
    let long = " ".repeat(2 << 20);
    type Members<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Members<'_>, &str); 12] = [
        (&[("/etc/1.png", &png), ("/etc/1.cls", b"1")], "outside of the shard"),
        (&[("a/../../1.png", &png), ("a/../../1.cls", b"1")], "outside of the shard"),
        (&[("1.png", &png)], "1: no class"),
        (&[("1.cls", b"1")], "1: no picture"),
        (&[("1.png", &png), ("1.cls", b"-1")], "1: its class is a number below 0"),
        (&[("1.png", &png), ("1.cls", b"0.5")], "1: its class is a fraction"),
        (&[("1.png", &png), ("1.json", br#"{"class": ["a"]}"#)], "1: its class is a list"),
        (&[("1.png", &png), ("1.cls", b"4000000000")], "class 4000000000 is out of range"),
        (&[("1.png", &png), ("1.json", b"{")], "1: its .json is not JSON"),
        (&[("1.png", &png), ("1.cls", long.as_bytes())], "1: its .cls is too long"),
        (
            &[("1.png", &png), ("1.cls", b"1"), ("2.png", &png), ("2.json", br#"{"class":"a"}"#)],
            "use one kind",
        ),
        (&[], "no samples"),
    ];
    for (members, part) in cases {
        let error = open_tar(members).err().unwrap();
        assert!(error.contains("shard.tar") && error.contains(part), "{part}: {error}");
    }
}

#[test]
fn should_call_a_truncated_shard_truncated_wherever_it_ends() {
    let png = picture(1).encode_png();
    let whole = tar(&[("1.png", &png), ("1.cls", b"1"), ("2.png", &png), ("2.cls", b"1")]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    // In a header, in a picture, in padding, between members, before the end mark.
    for length in [100, 600, 1000, 1024, 2048, 2600, whole.len() - 1024] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = open(&path).err().expect("a truncated shard").to_string();
        assert!(error.contains("shard.tar") && error.contains("truncated"), "{length}: {error}");
    }
    std::fs::write(&path, vec![b'x'; 4096]).unwrap();
    assert!(open(&path).err().unwrap().to_string().contains("no tar file"));
}

#[test]
fn should_name_the_sample_that_does_not_decode() {
    let (_folder, set) = open_tar(&[("7.png", b"not a picture"), ("7.cls", b"0")]).unwrap();
    assert!(set.sample(0).unwrap_err().to_string().contains("7 in "));
}

#[test]
fn should_call_imagenet_folders_by_their_titles() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("n02099601/a.png", 1), ("n01440764/b.png", 2)]);
    let set = open(root.path()).unwrap();
    assert_eq!(set.classes(), ["tench", "golden retriever"]);
    assert_eq!(
        listing(set.as_ref()),
        [("n01440764/b.png", "tench", 2), ("n02099601/a.png", "golden retriever", 1)]
    );
    // One that is not of the thousand: then all keep their names.
    write_pictures(root.path(), &[("n00000001/a.png", 3)]);
    let set = open(root.path()).unwrap();
    assert_eq!(set.classes(), ["n00000001", "n01440764", "n02099601"]);
}

#[test]
fn should_read_a_flat_folder_as_one_class() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("cats");
    write_pictures(&folder, &[("2.png", 2), ("1.png", 1)]);
    let set = open(&folder).unwrap();
    assert_eq!(set.classes(), ["cats"]);
    assert_eq!(listing(set.as_ref()), [("1.png", "cats", 1), ("2.png", "cats", 2)]);
}

#[test]
fn should_read_imagenet_validation_with_any_of_its_label_files() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("val");
    let name = |number: usize| format!("ILSVRC2012_val_0000000{number}.png");
    write_pictures(&folder, &[(&name(1), 1), (&name(2), 2), (&name(3), 3)]);
    let expected = ["volcano", "tench", "volcano"];
    let check = |set: Box<dyn DataSet>, kind: &str| {
        // Those of the pictures, so that a class folder of the same classes has the same numbers.
        assert_eq!(set.classes(), ["tench", "volcano"], "{kind}");
        let found: Vec<&str> = listing(set.as_ref()).iter().map(|&(_, class, _)| class).collect();
        assert_eq!(found, expected, "{kind}");
    };
    for (file, text) in [
        (
            "imagenet_2012_validation_synset_labels.txt",
            "n09472597\nn01440764\nn09472597\n".to_owned(),
        ),
        ("val.txt", format!("{} 980\n{} 0\n{} 980\n", name(1), name(2), name(3))),
        (
            "LOC_val_solution.csv",
            "ImageId,PredictionString\nILSVRC2012_val_00000003,n09472597 1 2 3 4\n\
             ILSVRC2012_val_00000002,n01440764 1 2 3 4 n01440764 5 6 7 8\n\
             ILSVRC2012_val_00000001,n09472597 9 9 9 9\nILSVRC2012_val_00000009,n01440764 1\n"
                .to_owned(),
        ),
    ] {
        std::fs::write(folder.join(file), &text).unwrap();
        check(open(&folder).unwrap(), file);
        std::fs::remove_file(folder.join(file)).unwrap();
        let beside = root.path().join("elsewhere");
        std::fs::write(&beside, &text).unwrap();
        check(
            data::open(&format!("{}@{}", folder.display(), beside.display()), &home()).unwrap(),
            "@",
        );
    }
}

#[test]
fn should_refuse_labels_that_do_not_fit_the_pictures() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("a.png", 1), ("b.png", 2), ("c.png", 3)]);
    let labels = root.path().join("labels.txt");
    for (text, part) in [
        ("1\n2\n", "none of its 2 lines (separated by blanks) names one of the 3 pictures"),
        ("", "none of its 0 lines"),
        ("a.png 0\nb.png 1\na.png 1\n", "gives a.png two classes, `0` and `1`"),
        ("a.png 0\nb.png 99999999999\nc.png 1\n", "out of range"),
    ] {
        std::fs::write(&labels, text).unwrap();
        let error = open(root.path()).err().unwrap().to_string();
        assert!(error.contains("labels.txt") && error.contains(part), "{error}");
    }
    std::fs::write(&labels, "c cat\na dog\nb cat\n").unwrap();
    let set = open(root.path()).unwrap();
    assert_eq!(
        listing(set.as_ref()),
        [("a.png", "dog", 1), ("b.png", "cat", 2), ("c.png", "cat", 3)]
    );
    std::fs::remove_file(&labels).unwrap();
    std::fs::write(root.path().join("ILSVRC2012_validation_ground_truth.txt"), "490\n").unwrap();
    let error = open(root.path()).err().unwrap().to_string();
    assert!(error.contains("devkit's own order"), "{error}");
}

#[test]
fn should_read_the_shards_of_a_brace_range_and_miss_none() {
    let folder = tempfile::tempdir().unwrap();
    for number in 8..=11 {
        let png = picture(number).encode_png();
        let bytes = tar(&[("1.png", &png), ("1.json", br#"{"label": 0}"#)]);
        std::fs::write(folder.path().join(format!("s-{number:03}.tar")), bytes).unwrap();
    }
    let set = open(&folder.path().join("s-{010..011}.tar")).unwrap();
    assert_eq!(listing(set.as_ref()), [("1", "0", 10), ("1", "0", 11)]);
    let error = open(&folder.path().join("s-{008..012}.tar")).err().unwrap().to_string();
    assert!(error.contains("s-012.tar"), "{error}");
}

#[cfg(feature = "parquet")]
#[test]
fn should_read_parquet_as_hugging_face_writes_it() {
    // Written by pyarrow: pictures of the values 1 to 5, in row groups of two.
    let path = &fixtures::fixture("hugging_face.parquet");
    let set = open(path).unwrap();
    assert_eq!(set.classes(), ["cat", "dog"]);
    let expected = [
        ("0.png", "dog", 1),
        ("1.png", "cat", 2),
        ("2.png", "dog", 3),
        ("3.png", "cat", 4),
        ("4.png", "dog", 5),
    ];
    assert_eq!(listing(set.as_ref()), expected);
    for index in [4, 0, 3, 1, 2] {
        assert_eq!(set.picture(index).unwrap().rgb()[0], expected[index].2);
    }
    let whole = std::fs::read(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.parquet");
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&cut, &whole[..length]).unwrap();
        assert!(open(&cut).err().unwrap().to_string().contains("cut.parquet"));
    }
}

#[test]
fn should_refuse_a_source_that_is_not_there() {
    let error = |source: &str| data::open(source, &home()).err().unwrap().to_string();
    assert!(error("/no/such/folder").contains("there is no such file or folder"));
    assert!(error("/no/such/*.tar").contains("/no/such/*.tar"));
    assert!(error("bundled:test").contains("`bundled:heldout`"));
    let elsewhere = files::Home::at(tempfile::tempdir().unwrap().path());
    let told = data::open("bundled", &elsewhere).err().unwrap().to_string();
    assert!(told.contains("noto-emoji-64.tar") && told.contains("ALITOK_HOME"), "{told}");
}

#[test]
fn should_choose_as_many_of_each_class_and_go_round() {
    let root = tempfile::tempdir().unwrap();
    for (class, count) in [("cat", 3), ("dog", 7)] {
        std::fs::create_dir(root.path().join(class)).unwrap();
        for index in 0..count {
            let path = root.path().join(format!("{class}/{index}.png"));
            picture(index as u8).write_png(path).unwrap();
        }
    }
    let choose = |per_class, seed| {
        data::Balanced::choose("animals", open(root.path()).unwrap(), per_class, seed)
    };
    let chosen = choose(3, 1).unwrap();
    let labels: Vec<usize> = (0..chosen.len()).map(|index| chosen.label(index)).collect();
    assert_eq!(labels, [0, 1, 0, 1, 0, 1]);
    let names = |set: &data::Balanced| -> Vec<String> {
        (0..set.len()).map(|index| set.name(index).to_owned()).collect()
    };
    let mut different = names(&chosen);
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 6);
    for index in 0..6 {
        let value = chosen.picture(index).unwrap().rgb()[0];
        assert!(chosen.name(index).ends_with(&format!("/{value}.png")), "{}", chosen.name(index));
    }
    assert_eq!(names(&choose(3, 1).unwrap()), names(&chosen));
    assert!((2..9).any(|seed| names(&choose(3, seed).unwrap()) != names(&chosen)));
    let told = choose(4, 1).err().unwrap().to_string();
    assert!(told.contains("animals") && told.contains("`cat` has 3 pictures"), "{told}");
}
