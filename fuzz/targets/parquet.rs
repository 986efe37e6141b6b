//! Any bytes are a Parquet file of pictures, or an error; each of its pictures is one, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pixels::{DataSet, data::ParquetSet};

fuzz_target!(|bytes: &[u8]| {
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
