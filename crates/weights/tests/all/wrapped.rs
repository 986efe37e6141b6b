//! State dicts under whatever trainers wrap around them, in each kind of file; two sets of weights in
//! one file; deflated archives.

use std::{
    fs,
    io::{Cursor, Read, Write},
};

use files::{
    HostTensor, TensorMap,
    safetensors::{self, StorageFormat, StringMetadata},
};
use fixtures::fixture;
use tokens::noise::{Noise, Purpose};
use weights::{Checkpoint, CheckpointError, ImportOptions, WeightsChoice, import};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// What a file holds: dictionaries of dictionaries and tensors.
#[derive(Debug, Clone)]
enum Tree {
    Tensor(HostTensor),
    Dictionary(Vec<(String, Tree)>),
    Number(u8),
}

fn dictionary(entries: impl IntoIterator<Item = (String, Tree)>) -> Tree {
    Tree::Dictionary(entries.into_iter().collect())
}

fn of_tensors(tensors: &TensorMap) -> Tree {
    dictionary(tensors.iter().map(|(name, tensor)| (name.clone(), Tree::Tensor(tensor.clone()))))
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn whole(out: &mut Vec<u8>, value: usize) {
    out.extend([0x8a, 8]);
    out.extend((value as u64).to_le_bytes());
}

/// The pickle of a tree as PyTorch writes it, and the storages of its tensors.
fn pickle(out: &mut Vec<u8>, tree: &Tree, storages: &mut Vec<Vec<f32>>, legacy: bool) {
    match tree {
        Tree::Number(number) => out.extend([b'K', *number]),
        Tree::Dictionary(entries) => {
            out.extend(b"}(");
            for (key, value) in entries {
                text(out, key);
                pickle(out, value, storages, legacy);
            }
            out.push(b'u');
        }
        Tree::Tensor(HostTensor { shape, values }) => {
            out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(out, "storage");
            out.extend(b"ctorch\nFloatStorage\n");
            text(out, &storages.len().to_string());
            text(out, "cpu");
            whole(out, values.len());
            if legacy {
                out.push(b'N');
            }
            out.extend(b"tQ");
            whole(out, 0);
            out.push(b'(');
            shape.iter().for_each(|&extent| whole(out, extent));
            out.extend(b"t(");
            for axis in 0..shape.len() {
                whole(out, shape[axis + 1..].iter().product());
            }
            out.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
            storages.push(values.clone());
        }
    }
}

fn zip_file(tree: &Tree) -> Vec<u8> {
    let (mut object, mut storages) = (b"\x80\x02".to_vec(), Vec::new());
    pickle(&mut object, tree, &mut storages, false);
    object.push(b'.');
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut entry = |name: String, bytes: &[u8]| {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    entry("data.pkl".into(), &object);
    for (key, values) in storages.iter().enumerate() {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        entry(format!("data/{key}"), &bytes);
    }
    zip.finish().unwrap().into_inner()
}

fn legacy_file(tree: &Tree) -> Vec<u8> {
    // The magic number, the version, and the description of the machine.
    let mut out =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}(".to_vec();
    text(&mut out, "little_endian");
    out.extend(b"\x88u.\x80\x02");
    let mut storages = Vec::new();
    pickle(&mut out, tree, &mut storages, true);
    out.extend(b".\x80\x02](");
    (0..storages.len()).for_each(|key| text(&mut out, &key.to_string()));
    out.extend(b"e.");
    for values in storages {
        out.extend((values.len() as u64).to_le_bytes());
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    out
}

/// The tensors of a tree under their paths.
fn flat(tree: &Tree, path: &str, into: &mut TensorMap) {
    match tree {
        Tree::Number(_) => {}
        Tree::Tensor(tensor) => drop(into.insert(path.to_owned(), tensor.clone())),
        Tree::Dictionary(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flat(value, &path, into);
            }
        }
    }
}

fn safetensors_file(tree: &Tree) -> Vec<u8> {
    let (mut tensors, mut bytes) = (TensorMap::new(), Vec::new());
    flat(tree, "", &mut tensors);
    safetensors::write_to(&mut bytes, &tensors, StorageFormat::F32, &StringMetadata::new())
        .unwrap();
    bytes
}

/// Reads the tree from each kind of file.
fn read(tree: &Tree, choice: Option<WeightsChoice>) -> Vec<Result<Checkpoint, CheckpointError>> {
    let folder = tempfile::tempdir().unwrap();
    let files = [zip_file(tree), legacy_file(tree), safetensors_file(tree)];
    let read = files.into_iter().map(|bytes| {
        let path = folder.path().join("weights");
        fs::write(&path, bytes).unwrap();
        Checkpoint::read_weights(&path, choice)
    });
    read.collect()
}

fn tensors(seed: f32) -> TensorMap {
    let tensor = |value: f32| HostTensor::new([2, 2], vec![value, value + 1.0, seed, -seed]);
    ["encoder.blocks.0.w", "encoder.blocks.0.b", "encoder.blocks.1.w", "latents", "decoder.head.w"]
        .into_iter()
        .enumerate()
        .map(|(index, name)| (name.to_owned(), tensor(seed + index as f32)))
        .collect()
}

/// Names with wrappers at random: of the whole model, and of its blocks.
fn wrap(noise: &mut Noise, tensors: &TensorMap) -> TensorMap {
    const WRAPPERS: [&str; 6] =
        ["module.", "_orig_mod.", "module.module.", "_orig_mod.module.", "model.", ""];
    let before = [WRAPPERS[noise.below(6)], WRAPPERS[noise.below(6)], WRAPPERS[noise.below(6)]];
    let within = ["", "module.", "_orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."];
    let within = within[noise.below(5)];
    let rename = |name: &String| {
        let name = name.replace("blocks.0.", &format!("blocks.0.{within}"));
        format!("{}{name}", before.concat())
    };
    tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

#[test]
fn should_give_the_same_tensors_under_any_wrapper_in_each_kind_of_file() {
    let expected = tensors(0.5);
    for sample in 0..120 {
        let mut noise = Noise::new(3, Purpose::Sampling, 0, sample);
        let mut tree = of_tensors(&wrap(&mut noise, &expected));
        for _ in 0..noise.below(3) {
            let key = ["state_dict", "model", "module", "model_state_dict"][noise.below(4)];
            tree = dictionary([(key.to_owned(), tree), ("step".to_owned(), Tree::Number(7))]);
        }
        for read in read(&tree, None) {
            let read = read.unwrap();
            assert_eq!(read.tensors, expected, "{tree:?}");
            assert_eq!(read.notes, Vec::<String>::new());
        }
        assert!(read(&tree, Some(WeightsChoice::Raw)).iter().all(Result::is_ok));
        for refused in read(&tree, Some(WeightsChoice::Ema)) {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("--weights ema"), "{error}");
        }
    }
}

#[test]
fn should_say_which_of_two_sets_it_took_and_take_the_other() {
    let (raw, ema) = (tensors(0.5), tensors(9.0));
    for sample in 0..60 {
        let mut noise = Noise::new(4, Purpose::Sampling, 0, sample);
        let key = ["ema", "model_ema", "ema_state_dict", "params_ema"][noise.below(4)].to_owned();
        let mut entries = vec![
            ("model".to_owned(), of_tensors(&wrap(&mut noise, &raw))),
            ("epoch".into(), Tree::Number(1)),
        ];
        entries.push((key.clone(), of_tensors(&wrap(&mut noise, &ema))));
        if noise.below(2) == 0 {
            entries.reverse();
        }
        let tree = dictionary(entries);
        for (choice, expected) in
            [(None, &raw), (Some(WeightsChoice::Raw), &raw), (Some(WeightsChoice::Ema), &ema)]
        {
            for read in read(&tree, choice) {
                let read = read.unwrap();
                assert_eq!(&read.tensors, expected, "{choice:?}");
                let [note] = &read.notes[..] else { panic!("{:?}", read.notes) };
                assert!(note.contains("`model`") && note.contains(&format!("`{key}`")), "{note}");
                assert_eq!(note.contains("--weights ema"), choice.is_none(), "{note}");
            }
        }
    }
    // Beside it, and alone.
    let mut entries: Vec<(String, Tree)> =
        raw.iter().map(|(name, tensor)| (name.clone(), Tree::Tensor(tensor.clone()))).collect();
    entries.push(("ema".into(), of_tensors(&ema)));
    for read in read(&dictionary(entries), Some(WeightsChoice::Ema)) {
        assert_eq!(read.unwrap().tensors, ema);
    }
    let alone = dictionary([("ema".to_owned(), of_tensors(&ema))]);
    for read in read(&alone, None) {
        assert_eq!(read.unwrap().tensors, ema);
    }
    for refused in read(&alone, Some(WeightsChoice::Raw)) {
        assert!(refused.unwrap_err().to_string().contains("moving average of weights alone"));
    }
}

/// The same archive with every entry deflated.
fn deflated(file: &[u8]) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(file)).unwrap();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        zip.start_file(entry.name().unwrap().into_owned(), options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn should_read_deflated_archives_and_never_panic_on_damaged_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deflated.pth");
    for name in ["torch/views.pth", "torch/training.pth", "generator.pth"] {
        fs::write(&path, deflated(&fs::read(fixture(name)).unwrap())).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), Checkpoint::read(fixture(name)).unwrap());
    }
    // Zeros deflate to a thousandth.
    let zeros = TensorMap::from([("w".to_owned(), HostTensor::new([1 << 18], vec![0.0; 1 << 18]))]);
    let small = deflated(&zip_file(&of_tensors(&zeros)));
    assert!(small.len() < 1 << 12);
    fs::write(&path, &small).unwrap();
    assert_eq!(Checkpoint::read(&path).unwrap().tensors, zeros);
    let mut refused = 0;
    for step in 0..600 {
        let mut noise = Noise::new(6, Purpose::Sampling, step, 0);
        let mut bytes = small.clone();
        for _ in 0..=noise.below(3) {
            let position = noise.below(bytes.len());
            bytes[position] ^= 1 << noise.below(8);
        }
        fs::write(&path, bytes).unwrap();
        refused += usize::from(Checkpoint::read(&path).is_err());
    }
    assert!(refused > 300, "{refused} of 600 damaged files were refused");
}

#[test]
fn should_refuse_to_import_what_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.pth");
    let whole = Checkpoint::read(fixture("released_tiny/tokenizer.pth")).unwrap().tensors;
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut tensors = whole.clone();
        let weight = tensors.get_mut("decoder.ln_post.bias").unwrap();
        *weight.values.last_mut().unwrap() = value;
        fs::write(&path, zip_file(&of_tensors(&tensors))).unwrap();
        let out = folder.path().join("model");
        let error = import(&path, None, &out, ImportOptions::default()).unwrap_err().to_string();
        assert!(error.contains("`decoder.ln_post.bias`"), "{error}");
        assert!(error.contains(&format!("holds {value}")), "{error}");
        assert!(!out.exists());
    }
}
