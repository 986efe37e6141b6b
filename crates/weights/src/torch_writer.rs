//! Writes state dicts that `torch.load(path, weights_only=True)` reads: the zip format of
//! `torch.save`, pickle protocol 2, every tensor contiguous in a storage of its own.

use std::{
    fs::File,
    io::{self, BufWriter, Seek, Write},
    path::Path,
};

use files::{FileError, HostTensor, TensorMap, floats::encode_f32};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// Writes tensors as a PyTorch checkpoint in single precision. Equal input makes equal bytes; the
/// file appears whole or not at all.
///
/// # Errors
/// If the operating system refuses; then nothing is left behind and an older file stays.
pub fn write(path: impl AsRef<Path>, tensors: &TensorMap) -> Result<(), FileError> {
    let path = path.as_ref();
    files::write_file(path, |file| write_zip(file, tensors))
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

fn write_zip(file: &mut BufWriter<&File>, tensors: &TensorMap) -> io::Result<()> {
    files::archive::write(file, |zip| write_entries(zip, tensors))
}

fn write_entries<W: Write + Seek>(zip: &mut ZipWriter<W>, tensors: &TensorMap) -> io::Result<()> {
    let mut entry = |name: &str, bytes: &mut dyn Iterator<Item = Vec<u8>>, large: bool| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(large);
        zip.start_file(format!("archive/{name}"), options)?;
        for bytes in bytes {
            zip.write_all(&bytes)?;
        }
        io::Result::Ok(())
    };
    entry("data.pkl", &mut std::iter::once(pickle(tensors)), false)?;
    entry("byteorder", &mut std::iter::once(b"little".to_vec()), false)?;
    for (key, tensor) in tensors.values().enumerate() {
        let large = tensor.values.len() >= 1 << 30;
        entry(&format!("data/{key}"), &mut tensor.values.chunks(1 << 16).map(encode_f32), large)?;
    }
    entry("version", &mut std::iter::once(b"3\n".to_vec()), false)
}

/// The pickle of a dictionary of tensors. Opcodes as in [`crate::pickle`].
fn pickle(tensors: &TensorMap) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (key, (name, HostTensor { shape, values })) in tensors.iter().enumerate() {
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        whole(&mut out, values.len());
        out.extend(b"tQ");
        whole(&mut out, 0);
        out.push(b'(');
        shape.iter().for_each(|&extent| whole(&mut out, extent));
        out.extend(b"t(");
        for axis in 0..shape.len() {
            whole(&mut out, shape[axis + 1..].iter().product());
        }
        // No gradient, no hooks.
        out.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A whole number, as LONG1 of eight bytes.
fn whole(out: &mut Vec<u8>, value: usize) {
    out.extend([0x8a, 8]);
    out.extend((value as u64).to_le_bytes());
}
