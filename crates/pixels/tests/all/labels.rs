//! Label files as people write them.

use fixtures::home;
use pixels::data::{self, DataSet};
use tokens::noise::{Noise, Purpose};

use crate::sets::{left_out, listing, open, write_pictures};

const CLASSES: [&str; 6] =
    ["golden retriever", "golden eagle", "red fox", "red panda", "tabby", "golden retriever"];

/// A folder `pets` with pictures of the values 0 to 5.
fn pets() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for value in 0..6 {
        write_pictures(&root.path().join("pets"), &[(&format!("{value}.png"), value)]);
    }
    root
}

fn read(root: &tempfile::TempDir, name: &str, content: &[u8]) -> Result<Box<dyn DataSet>, String> {
    let file = root.path().join(name);
    std::fs::write(&file, content).unwrap();
    let source = format!("{}@{}", root.path().join("pets").display(), file.display());
    data::open(&source, &home()).map_err(|error| error.to_string())
}

fn classes_of(set: &dyn DataSet) -> Vec<(u8, &str)> {
    listing(set).into_iter().map(|(_, class, value)| (value, class)).collect()
}

/// A file with a line for each picture.
fn lines(line: impl Fn(usize, &str) -> String) -> String {
    CLASSES.iter().enumerate().map(|(index, class)| line(index, class)).collect()
}

#[test]
fn should_read_tables_however_they_are_separated_quoted_and_headed() {
    let root = pets();
    let bom = "\u{feff}";
    let cases = [
        ("a.csv", lines(|i, c| format!("{i}.png,{c}\n")), "comma-separated"),
        ("b.csv", lines(|i, c| format!("{i}.png;{c}\r\n")), "semicolon-separated"),
        ("c.tsv", lines(|i, c| format!("{i}.png\t{c}\n")), "tab-separated"),
        ("d.txt", lines(|i, c| format!("{i}.png|{c}\n")), "separated by `|`"),
        ("e.txt", lines(|i, c| format!("{i}.png {c}\n")), "separated by blanks"),
        ("f.txt", lines(|i, c| format!("{i}.png   {c}  \r")), "separated by blanks"),
        ("g.csv", lines(|i, c| format!("\"{i}.png\",\"{c}\"\n")), "comma-separated"),
        ("h.csv", lines(|i, c| format!("{i}.png, \"{c}\"\n")), "comma-separated"),
        ("i.csv", format!("image,label\n{}", lines(|i, c| format!("{i}.png,{c}\n"))), "heading"),
        ("j.csv", format!("{bom}foo,bar\n{}", lines(|i, c| format!("{i}.png,{c}\n"))), "heading"),
        ("k.csv", format!("sep=;\n{}", lines(|i, c| format!("{i}.png;{c}\n"))), "semicolon"),
        ("l.csv", lines(|i, c| format!("{c},{i}.png\n")), "comma-separated"),
        (
            "m.csv",
            format!(",name,breed\n{}", lines(|i, c| format!("{i},{i}.png,{c}\n"))),
            "`breed`",
        ),
        ("n.csv", lines(|i, c| format!("val/pets/{i}.png,{c}\n")), "comma-separated"),
        ("o.csv", lines(|i, c| format!("val/{i}.png,{c}\n")), "comma-separated"),
        ("p.csv", lines(|i, c| format!("C:\\data\\pets\\{i}.png,{c}\n")), "comma-separated"),
        ("q.csv", lines(|i, c| format!("./{i},{c}\n")), "comma-separated"),
        (
            "r.jsonl",
            lines(|i, c| format!("{{\"file_name\": \"{i}.png\", \"label\": \"{c}\"}}\n")),
            "JSON lines",
        ),
        (
            "s.json",
            format!(
                "[{}]",
                lines(|i, c| format!("{{\"file\": \"{i}.png\", \"class\": \"{c}\"}},"))
                    .trim_end_matches(',')
            ),
            "JSON list",
        ),
        (
            "t.json",
            format!("{{{}}}", lines(|i, c| format!("\"{i}.png\": \"{c}\",")).trim_end_matches(',')),
            "JSON object",
        ),
        (
            "u.json",
            format!(
                "{{\"labels\": [{}]}}",
                lines(|i, c| format!("[\"pets/{i}.png\", \"{c}\"],")).trim_end_matches(',')
            ),
            "`labels`",
        ),
        ("v.txt", lines(|_, c| format!("{c}\n")), "one class a line"),
        ("w.csv", format!("label\n{}", lines(|_, c| format!("{c}\n"))), "one class a line"),
    ];
    let expected: Vec<(u8, &str)> = (0..6).map(|index| (index as u8, CLASSES[index])).collect();
    for (name, content, reading) in cases {
        let set =
            read(&root, name, content.as_bytes()).unwrap_or_else(|told| panic!("{name}: {told}"));
        assert_eq!(classes_of(set.as_ref()), expected, "{name}");
        assert_eq!(set.classes().len(), 5, "{name}");
        assert!(set.read_as().contains(reading), "{name}: {}", set.read_as());
        assert!(set.left_out().is_empty(), "{name}: {:?}", set.left_out());
    }
}

#[test]
fn should_give_the_same_classes_in_any_order_of_lines() {
    let root = pets();
    let whole = lines(|i, c| format!("{i}.png,{c}\n"));
    let lines: Vec<&str> = whole.lines().collect();
    let expected = read(&root, "a.csv", whole.as_bytes()).unwrap();
    for round in 0..20 {
        let order = Noise::new(5, Purpose::Order, round, 0).permutation(lines.len());
        let shuffled: Vec<&str> = order.iter().map(|&at| lines[at]).collect();
        let set = read(&root, "a.csv", shuffled.join("\n").as_bytes()).unwrap();
        assert_eq!(classes_of(set.as_ref()), classes_of(expected.as_ref()));
        assert_eq!(set.classes(), expected.classes());
    }
}

#[test]
fn should_take_numbers_for_numbers_and_not_for_names_of_pictures() {
    let root = pets();
    // Each number is also the name of a picture without its ending.
    for content in [
        "0.png,3\n1.png,2\n2.png,1\n3.png,0\n4.png,3\n5.png,3\n",
        "3,0.png\n2,1.png\n1,2.png\n0,3.png\n3,4.png\n3,5.png\n",
        "0.png\t3.0\n1.png\t2.0\n2.png\t1.0\n3.png\t0.0\n4.png\t3.0\n5.png\t3.0\n",
        "0.png 3 10 20 30 40\n1.png 2 1 1 1 1\n2.png 1 0 0 9 9\n3.png 0 1 2 3 4\n4.png 3 1 1 1 1\n5.png 3 1 1 1 1\n",
        "id,label\n0,3\n1,2\n2,1\n3,0\n4,3\n5,3\n",
    ] {
        let set = read(&root, "a.csv", content.as_bytes()).unwrap();
        assert_eq!(set.classes(), ["0", "1", "2", "3"], "{content}");
        let labels: Vec<usize> = (0..6).map(|index| set.label(index)).collect();
        assert_eq!(labels, [3, 2, 1, 0, 3, 3], "{content}");
    }
    // One name among numbers makes all of them names.
    let mixed = "0.png,3\n1.png,2\n2.png,cat\n3.png,0\n4.png,10\n5.png,2\n";
    assert_eq!(
        read(&root, "a.csv", mixed.as_bytes()).unwrap().classes(),
        ["0", "10", "2", "3", "cat"]
    );
}

#[test]
fn should_count_what_is_listed_and_missing_and_what_is_there_and_not_listed() {
    let root = pets();
    let content = "file,label\n0.png,cat\n1.png,\n2.png,-1\n9.png,dog\n5.png,dog\n0.png,cat\n";
    let set = read(&root, "a.csv", content.as_bytes()).unwrap();
    assert_eq!(classes_of(set.as_ref()), [(0, "cat"), (2, "-1"), (5, "dog")]);
    assert_eq!(
        left_out(set.as_ref()),
        [
            ("in the label file, but not in the folder", true, 1, vec!["9.png"]),
            ("no class", true, 1, vec!["1.png"]),
            ("not in the label file", true, 2, vec!["3.png", "4.png"]),
        ]
    );
    let set = read(&root, "a.csv", b"0.png,1\n1.png,-1\n").unwrap();
    assert_eq!(set.len(), 1);
    assert!(left_out(set.as_ref())[0].0.contains("below 0"));
}

#[test]
fn should_find_pictures_in_folders_and_refuse_what_fits_several() {
    let root = tempfile::tempdir().unwrap();
    let pets = root.path().join("pets");
    write_pictures(&pets, &[("a/0.png", 1), ("b/0.png", 2), ("b/1.png", 3), ("1.webp", 4)]);
    let set = read(&root, "l.csv", b"a/0.png,cat\nb/0.png,dog\nb/1.png,cat\n1.webp,dog\n").unwrap();
    assert_eq!(
        listing(set.as_ref()),
        [("1.webp", "dog", 4), ("a/0.png", "cat", 1), ("b/0.png", "dog", 2), ("b/1.png", "cat", 3)]
    );
    let told = read(&root, "l.csv", b"0.png,cat\nb/1.png,dog\n").err().unwrap();
    assert!(told.contains("a/0.png and b/0.png"), "{told}");
    // A file of another folder of the same name is not this one's.
    let set = read(&root, "l.csv", b"c/0.png,cat\nb/1.png,dog\n").unwrap();
    assert_eq!(listing(set.as_ref()), [("b/1.png", "dog", 3)]);
    // Nor is the one of another side, where the file has both.
    let root = self::pets();
    let set = read(&root, "l.csv", b"train/0.png,cat\npets/0.png,dog\n").unwrap();
    assert_eq!(classes_of(set.as_ref()), [(0, "dog")]);
}

#[test]
fn should_read_hugging_faces_metadata_by_itself() {
    let root = pets();
    let pets = root.path().join("pets");
    let content = "file_name,text\n0.png,\"a dog, asleep\"\n1.png,an eagle\n";
    std::fs::write(pets.join("metadata.csv"), content).unwrap();
    let set = open(&pets).unwrap();
    assert_eq!((set.len(), set.classes()), (2, &["pets".to_owned()][..]));
    assert_eq!((set.caption(0), set.caption(1)), (Some("a dog, asleep"), Some("an eagle")));
    std::fs::write(pets.join("labels.csv"), "0.png,dog\n").unwrap();
    let told = open(&pets).err().unwrap().to_string();
    assert!(told.contains("labels.csv or in metadata.csv"), "{told}");
}

#[test]
fn should_refuse_what_is_no_table_and_say_what_it_is() {
    let root = pets();
    let utf16: Vec<u8> =
        [0xFF, 0xFE].into_iter().chain("0.png,cat\n".bytes().flat_map(|b| [b, 0])).collect();
    let without_mark: Vec<u8> = "0.png,cat\n".bytes().flat_map(|byte| [0, byte]).collect();
    for (content, part) in [
        (&utf16[..], "UTF-16"),
        (&without_mark, "UTF-16"),
        (b"0.png,caf\xe9\n", "no UTF-8 text from byte 9"),
        (b"x.png,cat\ny.png,dog\n", "none of its 2 lines (comma-separated)"),
        (b"0.png\n1.png\n2.png\n3.png\n4.png\n5.png\n", "pictures without classes"),
        (b"file,a,b\n0.png,1,2\n1.png,1,2\n", "`a`, `b` may all hold the class"),
        (b"file\n0.png\n", "classes"),
        (b"0.png,\n1.png,\n", "no picture has a class"),
    ] {
        let told = read(&root, "l.csv", content).err().unwrap_or_default();
        assert!(told.contains("l.csv") && told.contains(part), "{part}: {told}");
    }
    for (content, part) in [
        ("{", "neither JSON"),
        ("3", "neither a list"),
        ("[[7],[8]]", "none of its 2"),
        ("[[1],[2]]", "pictures without classes"),
    ] {
        let told = read(&root, "l.json", content.as_bytes()).err().unwrap();
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn should_number_a_subset_of_imagenet_as_its_class_folders_do() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(
        &root.path().join("train"),
        &[("n02099601/a.png", 1), ("n01440764/b.png", 2), ("n09472597/c.png", 3)],
    );
    let train = open(&root.path().join("train")).unwrap();
    let name = |number: usize| format!("ILSVRC2012_val_0000000{number}.png");
    let pets = root.path().join("pets");
    write_pictures(&pets, &[(&name(1), 1), (&name(2), 2), (&name(3), 3)]);
    for content in [
        format!("{},n09472597\n{},n01440764\n{},n02099601\n", name(1), name(2), name(3)),
        format!("{} 980\n{} 0\n{} 207\n", name(1), name(2), name(3)),
        "n09472597\nn01440764\nn02099601\n".to_owned(),
    ] {
        let val = read(&root, "val.txt", content.as_bytes()).unwrap();
        assert_eq!(val.classes(), train.classes(), "{content}");
        let labels: Vec<usize> = (0..3).map(|index| val.label(index)).collect();
        assert_eq!(labels, [2, 0, 1], "{content}");
    }
    assert_eq!(
        data::labels_by_name(&["volcano".into(), "cat".into()], train.classes()),
        [Some(2), None]
    );
}

#[test]
fn should_give_a_set_or_an_error_for_any_damaged_label_file() {
    let rounds = std::env::var("MUTATIONS").map_or(150, |count| count.parse().unwrap());
    let root = pets();
    let tables = [
        ("a.csv", lines(|i, c| format!("{i}.png,\"{c}\"\n"))),
        ("b.txt", lines(|i, c| format!("{i}.png {c}\n"))),
        ("c.jsonl", lines(|i, c| format!("{{\"file_name\": \"{i}.png\", \"label\": \"{c}\"}}\n"))),
        (
            "d.json",
            format!("{{{}}}", lines(|i, c| format!("\"{i}.png\": \"{c}\",")).trim_end_matches(',')),
        ),
    ];
    let mut sets = 0;
    for (number, (name, whole)) in tables.iter().enumerate() {
        for round in 0..rounds {
            let mut noise = Noise::new(8, Purpose::Order, number as u64, round);
            let bytes = crate::sets::mutated(whole.as_bytes(), &mut noise);
            match read(&root, name, &bytes) {
                Ok(set) => {
                    sets += 1;
                    for index in 0..set.len() {
                        assert!(set.label(index) < set.classes().len());
                    }
                }
                Err(told) => assert!(told.contains(name) || told.contains("pets"), "{told}"),
            }
        }
    }
    assert!(sets > 50, "only {sets} were still sets: the damage is too coarse");
}
