//! Any bytes are a file of arrays, or an error.

#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use files::npz::ArchiveReader;

const LIMIT: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arrays.npz");
    std::fs::write(&path, bytes).unwrap();
    let Ok(mut file) = ArchiveReader::open(&path) else { return };
    for name in ["codes", "mu", "arr_0"] {
        if let Ok((shape, values)) = file.integers(name, LIMIT) {
            assert_eq!(shape.iter().product::<u64>(), values.len() as u64);
        }
        if let Ok((shape, values)) = file.floats(name, LIMIT) {
            assert_eq!(shape.iter().product::<u64>(), values.len() as u64);
        }
        if let Ok((_, values)) = file.bytes(name) {
            let _whole_or_error = values.take(LIMIT as u64).read_to_end(&mut Vec::new());
        }
    }
});
