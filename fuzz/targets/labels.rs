//! Any bytes are a label file of three pictures, or an error. The first byte chooses the ending.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pixels::{DataSet, data::FlatFolder};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, content)) = bytes.split_first() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["0.png", "a b.png", "c/1.jpg"] {
        let path = folder.path().join("set").join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
        std::fs::write(path, b"").unwrap();
    }
    let ending = ["csv", "txt", "json", "jsonl"][usize::from(first % 4)];
    let file = folder.path().join(format!("labels.{ending}"));
    std::fs::write(&file, content).unwrap();
    if let Ok(set) = FlatFolder::open(&folder.path().join("set"), Some(&file)) {
        for index in 0..set.len() {
            assert!(set.label(index) < set.classes().len());
        }
    }
});
