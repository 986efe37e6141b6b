//! Any bytes are a shard of pictures, or an error; each of its pictures is one, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pixels::{DataSet, data::ShardSet};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    std::fs::write(&path, bytes).unwrap();
    if let Ok(set) = ShardSet::open(&[path]) {
        for index in 0..set.len() {
            assert!(set.label(index) < set.classes().len());
            let _picture_or_error = set.picture(index);
        }
    }
});
