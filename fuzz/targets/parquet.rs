//! Any bytes are a Parquet file of pictures, or an error; each of its pictures is one, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pixels::{DataSet, data::ParquetSet};

// The Parquet crate panics on some damage, which the reader turns into errors; cargo-fuzz's own hook would end the
// process before.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.parquet");
    std::fs::write(&path, bytes).unwrap();
    if let Ok(set) = ParquetSet::open(&[path]) {
        for index in 0..set.len().min(100) {
            assert!(set.label(index) < set.classes().len());
            let _picture_or_error = set.picture(index);
        }
    }
});
