//! Making data sets, and listing what is in them.

use std::path::Path;

use fixtures::home;
use pixels::data::{self, DataSet};
use pixels::{Picture, PixelsError};

pub(crate) fn picture(value: u8) -> Picture {
    Picture::new(2, 2, vec![value; 12]).unwrap()
}

/// A tar file of these members.
pub(crate) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        // Written by hand: the crate itself refuses names that point outside.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

pub(crate) fn open(path: &Path) -> Result<Box<dyn DataSet>, PixelsError> {
    data::open(path.to_str().unwrap(), &home())
}

pub(crate) fn open_tar(
    members: &[(&str, &[u8])],
) -> Result<(tempfile::TempDir, Box<dyn DataSet>), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    std::fs::write(&path, tar(members)).unwrap();
    open(&path).map(|set| (folder, set)).map_err(|error| error.to_string())
}

/// Writes pictures of these values into a folder.
pub(crate) fn write_pictures(folder: &Path, files: &[(&str, u8)]) {
    for &(file, value) in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture(value).write_png(path).unwrap();
    }
}

/// Name, class and value of each sample.
pub(crate) fn listing(set: &dyn DataSet) -> Vec<(&str, &str, u8)> {
    (0..set.len())
        .map(|index| {
            let class = &set.classes()[set.label(index)];
            (set.name(index), class.as_str(), set.picture(index).unwrap().rgb()[0])
        })
        .collect()
}

/// Key, class and value of each sample, sorted: the set, whatever its order.
pub(crate) fn sorted(set: &dyn DataSet) -> Vec<(String, String, u8)> {
    let mut samples: Vec<_> = listing(set)
        .into_iter()
        .map(|(name, class, value)| (name.to_owned(), class.to_owned(), value))
        .collect();
    samples.sort();
    samples
}

/// What is left out: reason, whether it is a sample, count and names.
pub(crate) fn left_out(set: &dyn DataSet) -> Vec<(&str, bool, usize, Vec<&str>)> {
    let groups = set.left_out().iter();
    groups
        .map(|group| {
            let names = group.names.iter().map(String::as_str).collect();
            (group.reason.as_ref(), group.is_sample, group.count, names)
        })
        .collect()
}

/// The error of a source that is refused.
#[track_caller]
pub(crate) fn refused(source: &str) -> String {
    data::open(source, &home()).err().expect("a source that is refused").to_string()
}

/// The same bytes with a few of them changed, taken out, doubled or cut off.
pub(crate) fn mutated(bytes: &[u8], noise: &mut tokens::noise::Noise) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=noise.below(6) {
        if bytes.is_empty() {
            break;
        }
        let at = noise.below(bytes.len());
        match noise.below(5) {
            0 => bytes[at] = noise.bits() as u8,
            1 => bytes[at] ^= 1 << noise.below(8),
            2 => {
                bytes.remove(at);
            }
            3 => bytes.insert(at, bytes[noise.below(bytes.len())]),
            _ if noise.below(8) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
    bytes
}
