//! Folders of pictures: what is a class, a sample, litter, and what fits two readings.

use fixtures::home;
use pixels::data;
use tokens::noise::{Noise, Purpose};

use crate::sets::{left_out, listing, open, picture, refused, sorted, write_pictures};

/// In the order of `sorted(os.walk(class))` in Python 3.11, by which torchvision's `ImageFolder` goes.
const IMAGE_FOLDER: [(&str, &str); 7] = [
    ("cat/1.PNG", "cat"),
    ("cat/z.png", "cat"),
    ("cat/a/9.png", "cat"),
    ("cat/a-b/0.png", "cat"),
    ("cat/a/b/0.png", "cat"),
    ("dog/images/0.JPEG", "dog"),
    ("dog/images/1.webp", "dog"),
];

#[test]
fn should_find_pictures_at_any_depth_in_the_order_of_image_folder() {
    let root = tempfile::tempdir().unwrap();
    for (index, (file, _)) in IMAGE_FOLDER.iter().enumerate() {
        write_pictures(root.path(), &[(file, index as u8)]);
    }
    let set = open(root.path()).unwrap();
    let found: Vec<_> =
        listing(set.as_ref()).iter().map(|&(name, class, _)| (name, class)).collect();
    assert_eq!(found, IMAGE_FOLDER);
    assert_eq!(set.read_as(), "class folder, 2 classes, pictures at any depth");
    assert!(set.left_out().is_empty());
}

#[test]
fn should_give_the_same_set_with_any_litter() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(
        root.path(),
        &[("cat/0.png", 1), ("cat/x/1.png", 2), ("dog/0.png", 3), ("dog/2.png", 4)],
    );
    let clean = sorted(open(root.path()).unwrap().as_ref());
    let litter = [
        ".DS_Store",
        "cat/.DS_Store",
        "cat/._0.png",
        "dog/Thumbs.db",
        "__MACOSX/cat/._0.png",
        "cat/.ipynb_checkpoints/0-checkpoint.png",
        "dog/desktop.ini",
        "cat/x/README.md",
        "cat/list.txt",
        "dog/0.png.part",
        "dog/@eaDir/0.png",
        "notes.txt",
        "dog/0.xml",
    ];
    for round in 0..40 {
        let mut noise = Noise::new(3, Purpose::Order, round, 0);
        let chosen = litter.iter().filter(|_| noise.below(2) == 0).collect::<Vec<_>>();
        for file in &chosen {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, picture(9).encode_png()).unwrap();
        }
        let set = open(root.path()).unwrap();
        assert_eq!(sorted(set.as_ref()), clean, "{chosen:?}");
        let groups = left_out(set.as_ref());
        assert!(groups.iter().all(|&(_, is_sample, ..)| !is_sample), "{groups:?}");
        let noted = groups.iter().map(|&(_, _, count, _)| count).sum::<usize>();
        // A litter folder counts once; `cat/.ipynb_checkpoints` and `__MACOSX` hold one file each.
        assert_eq!(noted, chosen.len(), "{groups:?}");
        for file in chosen {
            std::fs::remove_file(root.path().join(file)).unwrap();
        }
        for folder in ["__MACOSX", "cat/.ipynb_checkpoints", "dog/@eaDir"] {
            let _none = std::fs::remove_dir_all(root.path().join(folder));
        }
    }
}

#[test]
fn should_name_pictures_of_kinds_that_are_not_read() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("cat/0.png", 1), ("dog/0.png", 2)]);
    for number in 0..25 {
        std::fs::write(root.path().join(format!("cat/{number:02}.BMP")), "x").unwrap();
    }
    std::fs::write(root.path().join("dog/1.avif"), "x").unwrap();
    let set = open(root.path()).unwrap();
    let groups = left_out(set.as_ref());
    assert_eq!(groups.len(), 2);
    let (reason, is_sample, count, names) = &groups[1];
    assert!(reason.contains(".bmp picture, which is not read"), "{reason}");
    assert_eq!((*is_sample, *count, names.len(), names[0]), (true, 25, 20, "cat/00.BMP"));
    let told = data::refuse_losses("animals", set.as_ref()).unwrap_err().to_string();
    assert!(told.contains("animals") && told.contains("dog/1.avif"), "{told}");

    std::fs::remove_file(root.path().join("dog/0.png")).unwrap();
    let told = refused(root.path().to_str().unwrap());
    assert!(told.contains("`dog` has no") && told.contains("dog/1.avif"), "{told}");
}

#[cfg(unix)]
#[test]
fn should_follow_links_and_end_at_loops() {
    use std::os::unix::fs::symlink;

    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("elsewhere/cat/0.png", 1), ("elsewhere/1.png", 2)]);
    let set_root = root.path().join("set");
    write_pictures(&set_root, &[("dog/2.png", 3)]);
    symlink(root.path().join("elsewhere/cat"), set_root.join("cat")).unwrap();
    symlink(root.path().join("elsewhere/1.png"), set_root.join("dog/1.png")).unwrap();
    symlink(&set_root, set_root.join("dog/back")).unwrap();
    symlink(root.path().join("nowhere"), set_root.join("dog/3.png")).unwrap();
    // From the target of the link back to what led there.
    symlink(root.path().join("elsewhere"), root.path().join("elsewhere/cat/up")).unwrap();
    let set = open(&set_root).unwrap();
    assert_eq!(
        listing(set.as_ref()),
        [
            ("cat/0.png", "cat", 1),
            ("cat/up/1.png", "cat", 2),
            ("dog/1.png", "dog", 2),
            ("dog/2.png", "dog", 3)
        ]
    );
    let groups = left_out(set.as_ref());
    assert_eq!(groups[0], ("a link that leads nowhere", true, 1, vec!["dog/3.png"]));
    assert_eq!(groups[1].3, ["cat/up/cat", "dog/back"]);
}

#[test]
fn should_refuse_layouts_that_fit_two_readings_and_take_either_when_it_is_said() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().to_str().unwrap();
    write_pictures(root.path(), &[("0.png", 1), ("1.png", 2), ("previews/0.png", 3)]);
    let told = refused(source);
    for part in ["two readings", "0.png", "previews", "/*.png'", "/*/'"] {
        assert!(told.contains(part), "{told}");
    }
    let pictures = data::open(&format!("{source}/*.png"), &home()).unwrap();
    assert_eq!(listing(pictures.as_ref()).iter().map(|s| s.2).collect::<Vec<_>>(), [1, 2]);
    let folders = data::open(&format!("{source}/*/"), &home()).unwrap();
    assert_eq!(listing(folders.as_ref()), [("previews/0.png", "previews", 3)]);
    assert_eq!(left_out(folders.as_ref())[0].2, 2);

    // Sides of a data set, which ImageFolder would take for classes.
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("train/cat/0.png", 1), ("val/cat/1.png", 2)]);
    let told = refused(root.path().to_str().unwrap());
    assert!(told.contains("/train` or `") && told.contains("sides of a data set"), "{told}");

    // One folder of all pictures beside a table of their classes.
    let root = tempfile::tempdir().unwrap();
    let source = root.path().to_str().unwrap();
    write_pictures(root.path(), &[("images/0.png", 1), ("images/1.png", 2)]);
    std::fs::write(root.path().join("annotations.csv"), "0.png,cat\n1.png,dog\n").unwrap();
    let told = refused(source);
    assert!(told.contains("two readings") && told.contains("annotations.csv"), "{told}");
    let set = data::open(&format!("{source}@{source}/annotations.csv"), &home()).unwrap();
    assert_eq!(listing(set.as_ref()), [("images/0.png", "cat", 1), ("images/1.png", "dog", 2)]);
    let set = data::open(&format!("{source}/*/"), &home()).unwrap();
    assert_eq!(set.classes(), ["images"]);
    // One that says the same as the folders is no second reading.
    std::fs::write(root.path().join("annotations.csv"), "0.png,images\n1.png,images\n").unwrap();
    assert_eq!(open(root.path()).unwrap().classes(), ["images"]);
}

#[test]
fn should_read_the_class_folders_that_a_pattern_matches() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("n1/0.png", 1), ("n2/0.png", 2), ("m/0.png", 3)]);
    let set = data::open(&format!("{}/n*", root.path().display()), &home()).unwrap();
    assert_eq!(set.classes(), ["n1", "n2"]);
    let set = data::open(&format!("{}/{{m,n2}}", root.path().display()), &home()).unwrap();
    assert_eq!(set.classes(), ["m", "n2"]);
}

#[test]
fn should_compose_class_names_and_refuse_two_folders_of_one_name() {
    let root = tempfile::tempdir().unwrap();
    write_pictures(root.path(), &[("cafe\u{301}/0.png", 1), ("Cat/0.png", 2), ("cat/0.png", 3)]);
    let set = open(root.path()).unwrap();
    assert_eq!(set.classes(), ["Cat", "caf\u{e9}", "cat"]);
    assert_eq!(listing(set.as_ref())[1], ("cafe\u{301}/0.png", "caf\u{e9}", 1));
    write_pictures(root.path(), &[("caf\u{e9}/0.png", 4)]);
    let told = refused(root.path().to_str().unwrap());
    assert!(told.contains("one name in Unicode's composed form"), "{told}");
}

#[test]
fn should_say_where_shards_lie_when_given_their_folder() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("0.tar"), "x").unwrap();
    assert!(refused(root.path().to_str().unwrap()).contains("/*.tar'"));
}
