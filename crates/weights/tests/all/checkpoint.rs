//! Reading files of others: PyTorch's formats, safetensors, and everything that is neither.

use std::{collections::BTreeMap, fs, path::PathBuf};

use files::HostTensor;
use files::safetensors::StorageFormat;
use files::safetensors::{self, StringMetadata};
use fixtures::fixture;
use tokens::noise::{Noise, Purpose};
use weights::{Checkpoint, CheckpointError, torch_writer};

fn torch(name: &str) -> PathBuf {
    fixture("torch").join(name)
}

fn refused(name: &str) -> CheckpointError {
    Checkpoint::read(torch(name)).unwrap_err()
}

/// Writes bytes to a file and reads it as a checkpoint.
fn read_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.pth");
    fs::write(&path, bytes).unwrap();
    Checkpoint::read(path)
}

#[test]
fn should_read_every_view_and_type_in_each_format() {
    let expected = safetensors::read(torch("views.safetensors")).unwrap();
    assert_eq!(expected["transposed"], expected["base"].transposed());
    assert_eq!(expected["expanded"].shape, [2, 3]);
    for name in ["views.pth", "views_legacy.pth", "views_protocol4.pth"] {
        let read = Checkpoint::read(torch(name)).unwrap();
        assert_eq!(read.tensors, expected, "{name}");
        assert_eq!((read.others, read.state_dict), (BTreeMap::new(), None), "{name}");
    }
    let renamed = Checkpoint::read(torch("views.safetensors")).unwrap();
    assert_eq!(renamed.tensors, expected);
}

#[test]
fn should_find_the_state_dict_of_a_training_checkpoint() {
    for name in ["training.pth", "training_legacy.pth"] {
        let read = Checkpoint::read(torch(name)).unwrap();
        assert_eq!(read.state_dict.as_deref(), Some("model_state"));
        assert_eq!(
            read.tensors.keys().map(String::as_str).collect::<Vec<_>>(),
            ["bias", "running_mean", "running_var", "weight"]
        );
        // One step of AdamW with a rate of 1e-3 from (1.5, -2).
        let HostTensor { shape, values } = &read.tensors["weight"];
        assert_eq!(shape, &[2]);
        assert!((values[0] - 1.5).abs() < 2e-3 && (values[1] + 2.0).abs() < 2e-3, "{values:?}");
        assert_eq!(
            read.others.get("num_batches_tracked").map(String::as_str),
            Some("a tensor of int64 of shape []")
        );
    }
}

#[test]
fn should_name_what_wants_to_run_and_run_nothing() {
    for name in ["attack.pth", "attack_legacy.pth"] {
        let CheckpointError::Code { what, path } = refused(name) else { panic!("{name}") };
        assert_eq!(what, "`posix.system`");
        assert_eq!(path, torch(name));
    }
    let CheckpointError::Code { what, .. } = refused("module.pth") else { panic!() };
    assert_eq!(what, "`torch.nn.modules.linear.Linear`");
    assert!(refused("module.pth").to_string().contains("state_dict()"));
    assert!(!std::path::Path::new("/tmp/a-pickle-was-executed").exists());
}

#[test]
fn should_say_what_a_file_is_instead() {
    let message = |bytes: &[u8]| read_bytes(bytes).unwrap_err().to_string();
    assert!(message(b"").contains("is empty"));
    assert!(message(b"<!DOCTYPE html><html>").contains("web page"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(message(b"\x89PNG\r\n\x1a\n").contains("is a PNG picture"));
    assert!(message(b"\x01\x02\xff\xfe").contains("begins with the bytes 01 02 ff fe"));
    assert!(message(&[0; 4096]).contains("zeros"));
    assert!(message(b"\x80\x02}.").contains("torch.save did not write"));
    assert!(refused("no_tensors.pth").to_string().contains("`step`, `lr`"));
    assert!(refused("missing.pth").to_string().contains("missing.pth"));
    assert!(Checkpoint::read(fixture("torch")).unwrap_err().to_string().contains("is a folder"));

    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("notes.txt", zip::write::SimpleFileOptions::default()).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    assert!(message(&zip).contains("zip archive without a `data.pkl`"));
}

#[test]
fn should_refuse_every_truncation() {
    for name in ["views.pth", "views_legacy.pth", "views.safetensors"] {
        let bytes = fs::read(torch(name)).unwrap();
        for length in (0..bytes.len()).step_by(7) {
            let read = read_bytes(&bytes[..length]);
            assert!(read.is_err(), "{name} cut to {length} bytes");
        }
    }
}

#[test]
fn should_never_panic_on_damaged_files() {
    // Mostly legacy files: their pickles are not behind a checksum.
    let names = ["views_legacy.pth", "training_legacy.pth", "views.pth"];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.pth");
    let mut refused = 0;
    for (sample, name) in names.into_iter().enumerate() {
        let whole = fs::read(torch(name)).unwrap();
        for step in 0..1000 {
            let mut noise = Noise::new(5, Purpose::Sampling, step, sample as u64);
            let mut bytes = whole.clone();
            for _ in 0..=noise.below(4) {
                let position = noise.below(bytes.len());
                bytes[position] = match noise.below(3) {
                    0 => noise.bits() as u8,
                    1 => bytes[position] ^ (1 << noise.below(8)),
                    // An opcode in a place where it does not belong.
                    _ => b"(.02NcQRbtue}])ahjqrXKMJ\x80\x81\x8a\x93\x94\x95"[noise.below(30)],
                };
            }
            fs::write(&path, bytes).unwrap();
            refused += usize::from(Checkpoint::read(&path).is_err());
        }
    }
    assert!(refused > 1000, "{refused} of 3000 damaged files were refused");
}

#[test]
fn should_refuse_tensors_beyond_their_storage_or_their_file() {
    // The shape (4, 6) of `base` in the pickle, K\x04K\x06\x86, made larger. A checksum would
    // notice in the zip format; the legacy format has none.
    let mut bytes = fs::read(torch("views_legacy.pth")).unwrap();
    let shape = bytes.windows(5).position(|window| window == b"K\x04K\x06\x86").unwrap();
    bytes[shape + 1] = 5;
    let error = read_bytes(&bytes).unwrap_err();
    assert!(error.to_string().contains("tensor `base`"), "{error}");
    assert!(error.to_string().contains("beyond the end of its storage"), "{error}");

    // The shape (2, 3) with strides (0, 1) of `expanded`, made (255, 255) with strides (0, 0): 65025
    // values from one, more than the file may make.
    let mut bytes = fs::read(torch("views_legacy.pth")).unwrap();
    let shape = bytes.windows(5).rposition(|window| window == b"K\x02K\x03\x86").unwrap();
    bytes[shape + 1] = 255;
    bytes[shape + 3] = 255;
    let strides = shape + bytes[shape..].windows(5).position(|w| w == b"K\x00K\x01\x86").unwrap();
    bytes[strides + 3] = 0;
    let error = read_bytes(&bytes).unwrap_err();
    assert!(error.to_string().contains("larger than its file"), "{error}");
}

#[test]
fn should_write_what_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let tensors = safetensors::read(torch("views.safetensors")).unwrap();
    let metadata: StringMetadata =
        ["b", "a", "z", "k"].map(|key| (key.to_owned(), "x".to_owned())).into();

    safetensors::write(path("a.safetensors"), &tensors, StorageFormat::F32, &metadata).unwrap();
    assert_eq!(safetensors::read(path("a.safetensors")).unwrap(), tensors);
    assert_eq!(safetensors::read_metadata(path("a.safetensors")).unwrap(), metadata);
    // The reference implementation agrees.
    let bytes = fs::read(path("a.safetensors")).unwrap();
    let reference = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.tensor("base").unwrap().shape(), [4, 6]);

    safetensors::write(path("b.safetensors"), &tensors, StorageFormat::F32, &metadata).unwrap();
    assert_eq!(fs::read(path("b.safetensors")).unwrap(), bytes);

    safetensors::write(path("h.safetensors"), &tensors, StorageFormat::Bf16, &metadata).unwrap();
    let halved = safetensors::read(path("h.safetensors")).unwrap();
    assert_eq!(halved["bfloat"], tensors["bfloat"]);
    assert_ne!(halved["base"], tensors["base"]);
    for (half, whole) in halved["base"].values.iter().zip(&tensors["base"].values) {
        assert!((half - whole).abs() <= whole.abs() / 256.0);
    }

    torch_writer::write(path("c.pth"), &tensors).unwrap();
    assert_eq!(Checkpoint::read(path("c.pth")).unwrap().tensors, tensors);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn should_refuse_integers_and_wrong_lengths_in_our_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let write = |header: &str, data: &[u8]| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        fs::write(&path, bytes).unwrap();
        safetensors::read(&path).unwrap_err().to_string()
    };
    let integer = r#"{"x":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    assert!(write(integer, &[0; 8]).contains("tensor `x`"));
    let float = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert!(write(float, &[0; 7]).contains("damaged or cut off"));
    assert!(write(float, &[0; 9]).contains("damaged or cut off"));
    let huge = r#"{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
    assert!(write(huge, &[]).contains("damaged or cut off"));
}
