//! What a file is, by its first bytes and its name, where it is not what was wanted.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes that [`describe_start`] looks at.
pub const START: usize = 512;

/// The last bytes of the index of a TensorFlow checkpoint, a table of LevelDB.
const LEVEL_DB: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();

/// What a file with these first bytes is, and what to do about it: "is a web page, …". `None` where it
/// is not known.
pub fn describe_start(start: &[u8]) -> Option<&'static str> {
    const SIGNATURES: &[(&[u8], &str)] = &[
        (b"\x1f\x8b", "is compressed by gzip; unpack it with `gunzip`, or `tar xzf` for a .tar.gz"),
        (b"BZh", "is compressed by bzip2; unpack it with `bunzip2`"),
        (b"\xfd7zXZ\0", "is compressed by xz; unpack it with `unxz`"),
        (b"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it with `unzstd`"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it with `7z x`"),
        (b"Rar!", "is a RAR archive; unpack it with `unrar x`"),
        (b"PK\x03\x04", "is a zip archive; unpack it with `unzip`"),
        (b"PK\x05\x06", "is an empty zip archive"),
        (
            b"\x89HDF\r\n\x1a\n",
            "is an HDF5 file, as Keras saves weights; its model is no AliTok model",
        ),
        (b"\x93NUMPY", "is a NumPy array (.npy)"),
        (b"GGUF", "is a GGUF file of llama.cpp; take the .safetensors that it was made from"),
        (b"PAR1", "is a Parquet file"),
        (b"ARROW1", "is an Arrow file"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
        (b"\xff\xd8\xff", "is a JPEG picture"),
        (b"GIF8", "is a GIF picture"),
        (b"%PDF", "is a PDF document"),
        (b"\x7fELF", "is a program"),
        (b"#!", "is a script"),
    ];
    if let Some((_, kind)) = SIGNATURES.iter().find(|(bytes, _)| start.starts_with(bytes)) {
        return Some(kind);
    }
    if start.get(..4) == Some(b"RIFF") && start.get(8..12) == Some(b"WEBP") {
        return Some("is a WebP picture");
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some("is a tar archive; unpack it with `tar xf`");
    }
    if start.len() >= 64 && start.iter().all(|&byte| byte == 0) {
        return Some(
            "begins with nothing but zeros, as a download that was never finished; \
                     download it again",
        );
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = String::from_utf8_lossy(text).trim_start().to_lowercase();
    let begins =
        |beginnings: &[&str]| beginnings.iter().any(|beginning| text.starts_with(beginning));
    if begins(&["<!doctype", "<html", "<head", "<body", "<script"]) {
        Some(
            "is a web page (HTML), probably an error or confirmation page of the download; \
              download the file itself",
        )
    } else if begins(&["<?xml", "<error"]) {
        Some("is an XML text, probably an error message of the download; download the file itself")
    } else if begins(&["version https://git-lfs"]) {
        Some("is a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`")
    } else if begins(&["model_checkpoint_path:"]) {
        Some("is the list of a TensorFlow checkpoint; its model is no AliTok model")
    } else if begins(&["{\"", "{ \"", "{\n", "{\r", "{}", "[{", "[\n"]) {
        Some("is a JSON text")
    } else {
        None
    }
}

/// What the file is, and what to do about it, where that is known. Of a file that cannot be read
/// nothing is known.
pub fn describe(path: &Path) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    const TENSOR_FLOW: &str = "is a part of a TensorFlow checkpoint; its model is no AliTok model";
    let mut file = File::open(path).ok()?;
    let mut start = Vec::new();
    file.by_ref().take(START as u64).read_to_end(&mut start).ok()?;
    if let Some(kind) = describe_start(&start) {
        return Some(kind);
    }
    // `model.ckpt-1000.index`, `model.ckpt-1000.data-00000-of-00001`, `model.ckpt-1000.meta`
    if name.contains(".data-0") && name.contains("-of-0") || name == "saved_model.pb" {
        return Some(TENSOR_FLOW);
    }
    let mut end = [0; 8];
    let at_end = file.seek(SeekFrom::End(-8)).is_ok() && file.read_exact(&mut end).is_ok();
    if at_end && end == LEVEL_DB || name.contains(".ckpt") && name.ends_with(".meta") {
        return Some(TENSOR_FLOW);
    }
    if name.ends_with(".onnx") {
        return Some("is an ONNX file; take the checkpoint that it was exported from");
    }
    if name.ends_with(".msgpack") {
        return Some("is a Flax checkpoint; its model is no AliTok model");
    }
    // Short texts, such as "Not Found" or an access token's refusal.
    let text = std::str::from_utf8(&start).ok()?;
    let is_text = !text.trim().is_empty()
        && text.chars().all(|letter| !letter.is_control() || letter.is_whitespace());
    is_text.then_some("is a plain text, perhaps an error message of the download; look into it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_know_what_people_take_for_weights() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            describe(&path).unwrap_or("is unknown")
        };
        assert!(said("a.pth", b"\n<!DOCTYPE html>\n<html>").contains("web page (HTML)"));
        assert!(said("a.bin", b"\xef\xbb\xbf<html>").contains("web page (HTML)"));
        assert!(said("a.bin", b"<?xml version='1.0'?><Error>").contains("XML"));
        assert!(said("b.bin", b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs"));
        let mut index = vec![1; 90];
        index.extend(LEVEL_DB);
        assert!(said("model.ckpt-9.index", &index).contains("TensorFlow"));
        assert!(said("model.ckpt-9.data-00000-of-00001", b"\x01\x02\x03").contains("TensorFlow"));
        assert!(said("checkpoint", b"model_checkpoint_path: \"x\"").contains("TensorFlow"));
        assert!(said("a.pth", &[0; 4096]).contains("zeros"));
        assert!(said("a.pth.gz", b"\x1f\x8b\x08\0").contains("gunzip"));
        assert!(said("a.pth", b"Not Found").contains("plain text"));
        assert_eq!(said("a.pth", b"\x01\x02\x03\xff"), "is unknown");
        assert_eq!(said("a.pth", b""), "is unknown");
        assert_eq!(describe(&folder.path().join("missing")), None);
    }
}
