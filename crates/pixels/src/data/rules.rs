//! What a name says of a file: a picture, a picture of a kind that is not read, litter, or something
//! else. All kinds of data set go by these rules.

/// Endings of pictures that are read, in the order in which they are preferred where a sample of a
/// shard has several.
const PICTURES: [&str; 9] = ["jpg", "jpeg", "png", "webp", "gif", "jfif", "jpe", "pjpeg", "apng"];

/// Endings of pictures that are not read.
const OTHER_PICTURES: [&str; 37] = [
    "arw", "avif", "bmp", "cr2", "cr3", "dcm", "dds", "dib", "dng", "eps", "exr", "fits", "hdr",
    "heic", "heif", "ico", "j2k", "jp2", "jpf", "jpx", "jxl", "mpo", "nef", "pbm", "pcx", "pgm",
    "pnm", "ppm", "psd", "qoi", "raw", "svg", "tga", "tif", "tiff", "wbmp", "xcf",
];

/// Files and folders that systems and programs leave behind, in lower case. Names that begin with a
/// dot are hidden and need no entry.
const LITTER: [&str; 13] = [
    "#recycle",
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
    "thumbs.db:encryptable",
];

/// What a file is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A picture, and how far its ending stands from the preferred one.
    Picture(usize),
    /// A picture of a kind that is not read.
    OtherPicture,
    /// Hidden, or left behind by a system.
    Litter,
    /// Anything else.
    Other,
}

/// Whether a file or folder of this name is hidden or left behind by a system.
pub(crate) fn is_litter(name: &str) -> bool {
    name.starts_with('.') || LITTER.contains(&name.to_ascii_lowercase().as_str())
}

/// Whether a folder on the way to this file, or the file itself, is hidden or left behind by a
/// system; `.` and `..` are not.
pub(crate) fn is_below_litter(path: &str) -> bool {
    path.split('/').any(|part| !matches!(part, "." | "..") && is_litter(part))
}

/// What a file is by its name, which is without folders.
pub(crate) fn kind(name: &str) -> Kind {
    if is_litter(name) {
        return Kind::Litter;
    }
    match name.rsplit_once('.') {
        Some((_, ending)) => kind_of_ending(&ending.to_ascii_lowercase()),
        None => Kind::Other,
    }
}

/// What a file is by its ending, in lower case.
pub(crate) fn kind_of_ending(ending: &str) -> Kind {
    match PICTURES.iter().position(|known| *known == ending) {
        Some(rank) => Kind::Picture(rank),
        None if OTHER_PICTURES.binary_search(&ending).is_ok() => Kind::OtherPicture,
        None => Kind::Other,
    }
}

/// The ending of a name in lower case, for messages; nothing if there is none.
pub(crate) fn ending(name: &str) -> Option<String> {
    name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase())
}

/// What is wrong with a file whose first bytes these are and which should be a shard: what it is,
/// and what to do; nothing if they are not known.
pub(crate) fn known_by_content(start: &[u8], path: &str) -> Option<String> {
    let stem = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
    let unpack = |what: &str, command: &str| {
        format!(
            "it is compressed by {what}, and pictures are read from their places in a shard; \
             unpack it with `{command}`"
        )
    };
    Some(match start {
        [0x1F, 0x8B, ..] => unpack("gzip", &format!("gunzip --keep {path}")),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => unpack("zstd", &format!("zstd --decompress {path}")),
        [0xFD, b'7', b'z', b'X', b'Z', ..] => unpack("xz", &format!("unxz --keep {path}")),
        [b'B', b'Z', b'h', ..] => unpack("bzip2", &format!("bunzip2 --keep {path}")),
        [0x04, 0x22, 0x4D, 0x18, ..] => unpack("lz4", &format!("lz4 -d {path}")),
        [b'P', b'K', 3 | 5, ..] if path.to_lowercase().ends_with(".npz") => {
            "it is an archive of NumPy arrays, which has no classes; verbs that take pictures alone \
             read it"
                .to_owned()
        }
        [b'P', b'K', 3 | 5, ..] => format!(
            "it is a zip archive; unpack it with `unzip {path} -d {stem}` and give the folder"
        ),
        [b'7', b'z', 0xBC, 0xAF, ..] => format!(
            "it is a 7z archive; unpack it with `7z x {path} -o{stem}` and give the folder"
        ),
        [b'R', b'a', b'r', b'!', ..] => {
            format!("it is a rar archive; unpack it with `unrar x {path}` and give the folder")
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            "it is a NumPy array, which has no classes; save it as .npz with `numpy.savez(path, \
             array)` for verbs that take pictures alone"
                .to_owned()
        }
        [0x89, b'H', b'D', b'F', ..] => {
            "it is an HDF5 file, which is not read; write its pictures into one folder for each \
             class"
                .to_owned()
        }
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => {
            "it is an Arrow file; write it as Parquet (`dataset.to_parquet(path)`)".to_owned()
        }
        [0x89, b'P', b'N', b'G', ..] | [0xFF, 0xD8, 0xFF, ..] | [b'G', b'I', b'F', b'8', ..] => {
            "it is a picture; give its folder".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_tell_pictures_from_litter_by_their_names() {
        assert!(OTHER_PICTURES.is_sorted());
        for picture in ["a.jpg", "a.b.JPEG", "x.PNG", "ü.webp", "1.gif", "a.jfif"] {
            assert!(matches!(kind(picture), Kind::Picture(_)), "{picture}");
        }
        for other in ["a.bmp", "a.TIFF", "a.heic", "a.avif"] {
            assert_eq!(kind(other), Kind::OtherPicture, "{other}");
        }
        for litter in [".DS_Store", "._x.jpg", "Thumbs.db", ".jpg", "desktop.ini", "__MACOSX"] {
            assert_eq!(kind(litter), Kind::Litter, "{litter}");
        }
        for other in ["notes.txt", "jpg", "a.jpg~", "a.jpg.part", "README"] {
            assert_eq!(kind(other), Kind::Other, "{other}");
        }
        for litter in ["a/.git/x.jpg", "__MACOSX/._0.jpg", "x/.ipynb_checkpoints/0.jpg"] {
            assert!(is_below_litter(litter), "{litter}");
        }
        for not in ["./a.jpg", "a/./b.jpg", "../a.jpg", "a.b/c.jpg"] {
            assert!(!is_below_litter(not), "{not}");
        }
    }
}
