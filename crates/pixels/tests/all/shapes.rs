//! The set of shapes on disk.

use std::collections::BTreeSet;

use fixtures::home;
use pixels::{
    data::{self, DataSet},
    shapes::{self, Options, Prompt, Task},
};

const OPTIONS: Options = Options { train: 60, held_out: 5, size: 64, seed: 3 };

#[test]
fn should_write_a_set_that_is_read_and_the_same_for_a_seed() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let seeds = [3, 3, 4];
    for (folder, seed) in folders.iter().zip(seeds) {
        let mut drawn = 0;
        shapes::write(folder.path(), Options { seed, ..OPTIONS }, |count| drawn = count).unwrap();
        assert_eq!(drawn, OPTIONS.pictures());
    }
    let read =
        |folder: usize, name: &str| std::fs::read(folders[folder].path().join(name)).unwrap();
    for entry in std::fs::read_dir(folders[0].path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(shapes::is_of_a_set(name.as_ref()));
        let name = name.to_str().unwrap();
        assert_eq!(read(0, name), read(1, name), "{name}");
    }
    assert_ne!(read(0, "train.tar"), read(2, "train.tar"));

    let open = |name: &str| {
        let path = folders[0].path().join(name);
        data::open(path.to_str().unwrap(), &home()).unwrap()
    };
    let train = open("train.tar");
    assert_eq!((train.len(), train.classes().len()), (60, 6));
    let captions = |set: &dyn DataSet| -> Vec<String> {
        (0..set.len()).map(|index| set.caption(index).unwrap().to_owned()).collect()
    };
    for caption in captions(&*train) {
        assert!(!Prompt::of_caption(&caption).unwrap().is_unseen(), "{caption}");
    }
    let held_out = open("heldout.tar");
    let prompts = shapes::read_prompts(&folders[0].path().join("prompts.jsonl")).unwrap();
    assert_eq!(prompts, shapes::test_prompts(OPTIONS.held_out, OPTIONS.seed));
    let said: Vec<String> = prompts.iter().map(|test| test.caption.clone()).collect();
    assert_eq!(captions(&*held_out), said);
    // A single object is no combination.
    assert_eq!(prompts.len(), 5 * 11);
    let tasks = |unseen: bool| -> BTreeSet<Task> {
        let of_side = prompts.iter().filter(|test| test.unseen == unseen);
        of_side.map(|test| test.prompt.task).collect()
    };
    assert_eq!((tasks(false).len(), tasks(true).len()), (6, 5));
    let listed = String::from_utf8(read(0, "heldout.txt")).unwrap();
    assert_eq!(listed.lines().count(), 27);
    assert!(listed.lines().any(|line| line == "red circle"), "{listed}");
    let picture = held_out.picture(0).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 64));
}

#[test]
fn should_refuse_a_file_that_is_no_list_of_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompts.jsonl");
    let refused = |text: &[u8]| {
        std::fs::write(&path, text).unwrap();
        shapes::read_prompts(&path).unwrap_err().to_string()
    };
    assert!(refused(b"").contains("it has no prompts"));
    assert!(refused(b"{}\n").contains("line 1: no prompt"));
    assert!(refused(&[b'x'; 1 << 18]).contains("line 1"));
    assert!(refused(&[0xFF, 0xFE, b'\n']).contains("prompts.jsonl"));
    let other = r#"{"caption": "a red ring", "unseen": false, "prompt": {"task": "one_object",
        "things": [{"count": 1, "shape": "circle"}]}}"#;
    let told = refused(other.replace('\n', "").as_bytes());
    assert!(told.contains(r#""a red ring" does not mean "a circle""#), "{told}");
}
