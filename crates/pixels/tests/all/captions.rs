//! Captions: where they stand, how many there are, and what has none.

use std::path::Path;
use std::sync::Arc;

use fixtures::home;
use pixels::data::{self, DataSet};

use crate::sets::{left_out, listing, open, open_tar, picture, refused, tar, write_pictures};

/// Name and captions of each sample.
fn captions(set: &dyn DataSet) -> Vec<(&str, Vec<&str>)> {
    let texts = |index| set.captions(index).iter().map(String::as_str).collect();
    (0..set.len()).map(|index| (set.name(index), texts(index))).collect()
}

fn write(root: &Path, files: &[(&str, &str)]) {
    for (file, content) in files {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

#[test]
fn should_read_text_files_beside_pictures_of_any_folder() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("cat/0.png", 1), ("cat/1.png", 2), ("dog/a.b.png", 3)]);
    let texts = [("cat/0.txt", " a cat,\nasleep \n"), ("dog/a.b.TXT", "a dog"), ("dog/a.txt", "x")];
    write(root.path(), &texts);
    let set = open(root.path()).unwrap();
    let expected = [
        ("cat/0.png", vec!["a cat,\nasleep"]),
        ("cat/1.png", vec![]),
        ("dog/a.b.png", vec!["a dog"]),
    ];
    assert_eq!(captions(set.as_ref()), expected);
    // The text of no picture is litter as before.
    assert_eq!(left_out(set.as_ref())[0].3, ["dog/a.txt"]);

    let set = open(&root.path().join("cat")).unwrap();
    assert_eq!(captions(set.as_ref()), [("0.png", vec!["a cat,\nasleep"]), ("1.png", vec![])]);
    write(root.path(), &[("cat/1.txt", "  \n")]);
    std::fs::write(root.path().join("cat/0.txt"), [0xE9, 0x20]).unwrap();
    let set = open(&root.path().join("cat")).unwrap();
    assert_eq!(captions(set.as_ref()), [("0.png", vec![]), ("1.png", vec![])]);
    let notes = [("a caption that is no UTF-8 text", false, 1, vec!["0.txt"])];
    assert_eq!(left_out(set.as_ref()), notes);
}

#[test]
fn should_read_tables_of_captions_of_any_form_and_several_of_a_picture() {
    let expected = [("0.png", vec!["a dog, asleep", "a pet"]), ("1.png", vec!["an eagle"])];
    for (table, content) in [
        ("captions.tsv", "0.png\ta dog, asleep\n0.png\ta pet\n1.png\tan eagle\n"),
        ("captions.tsv", "image\tsentence\n0.png\ta dog, asleep\n1.png\tan eagle\n0.png\ta pet\n"),
        (
            "captions.csv",
            "file_name,text\n0.png,\"[\"\"a dog, asleep\"\", \"\"a pet\"\"]\"\n1,an eagle\n",
        ),
        (
            "captions.jsonl",
            "{\"file_name\": \"0.png\", \"captions\": [\"a dog, asleep\", \"a pet\"]}\n\
             {\"file_name\": \"1.png\", \"captions\": \"an eagle\"}\n",
        ),
        ("captions.json", r#"{"0.png": ["a dog, asleep", "a pet"], "1.png": "an eagle"}"#),
    ] {
        let root = tempfile::tempdir().unwrap();
        let pets = root.path().join("pets");
        write_pictures(&pets, &[("0.png", 1), ("1.png", 2)]);
        write(&pets, &[(table, content)]);
        let set = open(&pets).unwrap_or_else(|error| panic!("{content}: {error}"));
        assert_eq!(captions(set.as_ref()), expected, "{content}");
        assert_eq!(set.classes(), ["pets"]);
        assert!(set.left_out().is_empty(), "{content}");
    }
}

#[test]
fn should_take_classes_from_folders_and_captions_from_a_table_beside_them() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("cat/0.png", 1), ("cat/1.png", 2), ("dog/0.png", 3)]);
    let table = "cat/0.png\ta cat\ndog/0.png\ta dog\ndog/0.png\tan animal\n";
    write(root.path(), &[("captions.tsv", table), ("cat/1.txt", "from beside")]);
    let set = open(root.path()).unwrap();
    let expected = [
        ("cat/0.png", vec!["a cat"]),
        ("cat/1.png", vec!["from beside"]),
        ("dog/0.png", vec!["a dog", "an animal"]),
    ];
    assert_eq!(captions(set.as_ref()), expected);
    assert_eq!((set.classes().len(), set.left_out().len()), (2, 0));
    write(root.path(), &[("captions.jsonl", "{}")]);
    let told = refused(root.path().to_str().unwrap());
    assert!(told.contains("captions.jsonl") && told.contains("keep one"), "{told}");
}

#[test]
fn should_take_shards_of_captions_without_classes_and_list_what_has_none() {
    let png = picture(7).encode_png();
    let members: [(&str, &[u8]); 9] = [
        ("000.jpg", &png),
        ("000.txt", b"a red apple\n"),
        ("000.json", br#"{"caption": "other words", "key": "000", "status": "success"}"#),
        ("001.jpg", &png),
        ("001.json", br#"{"text": ["one", " ", "two"]}"#),
        ("002.jpg", &png),
        ("002.txt", b" \n"),
        ("003.txt", b"of a picture that failed"),
        ("003.json", br#"{"status": "failed_to_download"}"#),
    ];
    let (_folder, set) = open_tar(&members).unwrap();
    let expected = [("000", vec!["a red apple"]), ("001", vec!["one", "two"])];
    assert_eq!(captions(set.as_ref()), expected);
    assert_eq!(set.classes(), ["pictures"]);
    assert_eq!(left_out(set.as_ref())[0], ("no caption", true, 1, vec!["002"]));

    // Where one sample has a class, all need one.
    let mut members = members.to_vec();
    members.push(("001.cls", b"fruit"));
    let (_folder, set) = open_tar(&members).unwrap();
    assert_eq!(captions(set.as_ref()), [("001", vec!["one", "two"])]);
    assert_eq!(left_out(set.as_ref())[0], ("no class", true, 2, vec!["000", "002"]));
}

#[test]
fn should_read_a_folder_as_img2dataset_writes_it_without_shards_that_it_did_not_complete() {
    let root = tempfile::tempdir().unwrap();
    let png = picture(5).encode_png();
    for (shard, text) in [("00000", "first"), ("00001", "second"), ("00002", "third")] {
        let (picture, caption) = (format!("{shard}0000.jpg"), format!("{shard}0000.txt"));
        let members: [(&str, &[u8]); 2] = [(&picture, &png), (&caption, text.as_bytes())];
        std::fs::write(root.path().join(format!("{shard}.tar")), tar(&members)).unwrap();
        write(root.path(), &[(&format!("{shard}.parquet"), "PAR1")]);
    }
    // Without statistics it is no such folder.
    assert!(refused(root.path().to_str().unwrap()).contains("/*.tar'"));
    write(root.path(), &[("00000_stats.json", "{}"), ("00001_stats.json", "{}")]);
    let set = open(root.path()).unwrap();
    let expected = [("000000000", vec!["first"]), ("000010000", vec!["second"])];
    assert_eq!(captions(set.as_ref()), expected);
    let (reason, is_sample, _, names) = &left_out(set.as_ref())[0];
    assert!(reason.contains("did not complete") && *is_sample, "{reason}");
    assert_eq!(names, &["00002"]);

    // Its other format: folders of files, which are no classes.
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("00000/0.png", 1), ("00001/1.png", 2)]);
    write(root.path(), &[("00000/0.txt", "first"), ("00001/1.txt", "second")]);
    write(root.path(), &[("00000/0.json", "{}"), ("00000_stats.json", "{}")]);
    write(root.path(), &[("00001_stats.json", "{}")]);
    let set = open(root.path()).unwrap();
    assert_eq!(
        captions(set.as_ref()),
        [("00000/0.png", vec!["first"]), ("00001/1.png", vec!["second"])]
    );
    assert_eq!(set.classes().len(), 1);
    assert_eq!(listing(set.as_ref())[1].2, 2);
}

#[test]
fn should_keep_the_captioned_samples_and_list_the_others() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("0.png", 1), ("1.png", 2), ("2.png", 3)]);
    let source = root.path().to_str().unwrap();
    let whole: Arc<dyn DataSet> = data::open(source, &home()).unwrap().into();
    let told = data::captioned(source, whole).err().unwrap().to_string();
    for part in [source, "none of its 3 pictures has a caption", "captions.tsv"] {
        assert!(told.contains(part), "{told}");
    }
    write(root.path(), &[("0.txt", "one"), ("2.txt", "three")]);
    let whole: Arc<dyn DataSet> = data::open(source, &home()).unwrap().into();
    let set = data::captioned(source, whole).unwrap();
    assert_eq!(captions(&set), [("0.png", vec!["one"]), ("2.png", vec!["three"])]);
    assert_eq!(listing(&set).iter().map(|sample| sample.2).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(left_out(&set), [("no caption", true, 1, vec!["1.png"])]);
    assert!(data::refuse_losses(source, &set).unwrap_err().to_string().contains("1.png"));
}
