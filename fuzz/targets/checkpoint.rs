//! Any bytes are a checkpoint, of PyTorch's formats or safetensors, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weights::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    std::fs::write(&path, bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::read(&path) {
        for (name, tensor) in &checkpoint.tensors {
            let values = tensor.values.len();
            assert_eq!(tensor.shape.iter().product::<usize>(), values, "{name}");
        }
    }
});
