//! Builds the bundled data sets from the npm packages that carry their pictures: Noto Emoji at 64
//! pixels by category ([`build`]), and emoji of three styles with captions ([`build_captioned`]).

mod captioned;
mod family;
mod words;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use captioned::build_captioned;

use self::family::{family, split_of};

use crate::palette::quantize;
use crate::{Picture, PixelsError, crop};

/// Width and height of the pictures.
pub const SIZE: usize = 64;
/// How well the stored palette picture keeps its source, as PSNR in decibels; what 256 colours
/// reach where that is less. Chosen so that Noto's shard stays under 12 MB.
const FIDELITY_DB: f64 = 42.0;
/// Palette sizes that are tried in turn.
const PALETTE_SIZES: [usize; 15] = [4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256];

/// On which side of the split a picture stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Pictures to learn from.
    Train,
    /// Pictures to measure on, never learned from.
    HeldOut,
}

/// How many pictures of one class were bundled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassSummary {
    /// Name of the class.
    pub class: String,
    /// Pictures to learn from.
    pub train: usize,
    /// Pictures to measure on.
    pub held_out: usize,
}

/// What was bundled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleSummary {
    /// The classes, sorted by name.
    pub classes: Vec<ClassSummary>,
    /// Size of the shard in bytes.
    pub bytes: usize,
}

/// One emoji of a package's `emoji.json`.
#[derive(Deserialize)]
struct Emoji {
    name: String,
    category: String,
    #[serde(default)]
    subcategory: String,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(flatten)]
    drawing: Drawing,
    #[serde(default)]
    skin_variations: BTreeMap<String, Drawing>,
}

#[derive(Default, Deserialize)]
struct Drawing {
    unified: String,
    image: String,
    #[serde(default)]
    has_img_google: bool,
    #[serde(default)]
    has_img_twitter: bool,
}

impl Emoji {
    /// Whether it is a part of others, such as a skin tone, and none that is drawn alone.
    fn is_component(&self) -> bool {
        self.category == "Component"
    }

    /// Its drawing and those in skin tones.
    fn drawings(&self) -> impl Iterator<Item = &Drawing> {
        std::iter::once(&self.drawing).chain(self.skin_variations.values())
    }
}

/// The emoji that `emoji.json` in `package_dir` lists. Their code points are checked, because members
/// of shards and files of pictures are named by them.
fn read_list(package_dir: &Path) -> Result<Vec<Emoji>, PixelsError> {
    let list = package_dir.join("emoji.json");
    let text = std::fs::read(&list).map_err(PixelsError::read(&list))?;
    let emoji: Vec<Emoji> = serde_json::from_slice(&text).map_err(|error| {
        let problem = format!("not a list of emoji ({error}); give the unpacked npm package");
        PixelsError::data_set(list.display(), problem)
    })?;
    for emoji in &emoji {
        for drawing in emoji.drawings() {
            let code_point = |code: &str| u32::from_str_radix(code, 16).is_ok();
            if drawing.unified.len() > 80 || !drawing.unified.split('-').all(code_point) {
                let (codes, name) = (&drawing.unified, &emoji.name);
                let problem = format!("{codes:?} of {name} is no list of code points");
                return Err(PixelsError::data_set(list.display(), problem));
            }
        }
    }
    Ok(emoji)
}

/// The `.json` member of a picture.
#[derive(Serialize)]
struct Description {
    class: String,
    caption: String,
    split: Split,
}

/// Writes the shard `out_path` from the unpacked package `package_dir`: for each emoji and each of
/// its skin tones `<code points>.png`, composited on white, and `<code points>.json` with class
/// (the emoji's category), caption (its name in lower case) and split. The same package always
/// gives the same bytes.
///
/// # Errors
/// [`PixelsError::Read`] or [`PixelsError::DataSet`] for something that is not the package,
/// those of [`Picture::read`], and [`PixelsError::Write`].
pub fn build(package_dir: &Path, out_path: &Path) -> Result<BundleSummary, PixelsError> {
    let mut samples = BTreeMap::new();
    for emoji in read_list(package_dir)? {
        if emoji.is_component() {
            continue;
        }
        for drawing in emoji.drawings().filter(|drawing| drawing.has_img_google) {
            let description = Description {
                class: emoji.category.clone(),
                caption: emoji.name.to_lowercase(),
                split: split_of(&family(&drawing.unified)),
            };
            let key = drawing.unified.to_lowercase();
            samples.insert(key, (drawing.image.clone(), description));
        }
    }

    let folder = package_dir.join("img/google/64");
    let encode = |(key, (image, description)): (String, (String, Description))| {
        let picture = crop::center_crop(&Picture::read(folder.join(image))?, SIZE)?;
        let json = serde_json::to_vec(&description).expect("plain text always serializes");
        let Description { class, split, .. } = description;
        Ok(Member { key, class, split, png: encode_small(&picture, FIDELITY_DB), json })
    };
    let members: Vec<_> =
        samples.into_par_iter().map(encode).collect::<Result<_, PixelsError>>()?;
    write_shard(members, out_path)
}

/// A sample as it is stored.
struct Member {
    key: String,
    class: String,
    split: Split,
    png: Vec<u8>,
    json: Vec<u8>,
}

/// Writes members in this order, and counts them.
fn write_shard(members: Vec<Member>, out_path: &Path) -> Result<BundleSummary, PixelsError> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut counts = BTreeMap::<String, ClassSummary>::new();
    for Member { key, class, split, png, json } in members {
        append(&mut archive, &format!("{key}.png"), &png);
        append(&mut archive, &format!("{key}.json"), &json);
        let count =
            counts.entry(class.clone()).or_insert(ClassSummary { class, train: 0, held_out: 0 });
        match split {
            Split::Train => count.train += 1,
            Split::HeldOut => count.held_out += 1,
        }
    }
    let shard = archive.into_inner().expect("memory takes every byte");
    files::write_file(out_path, |file| file.write_all(&shard))
        .map_err(PixelsError::write(out_path))?;
    Ok(BundleSummary { classes: counts.into_values().collect(), bytes: shard.len() })
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive
        .append_data(&mut header, name, bytes)
        .expect("memory takes every byte, and checked code points make a short relative name");
}

/// The picture as a PNG with the smallest palette that keeps it at `fidelity`, as PSNR in decibels.
fn encode_small(picture: &Picture, fidelity: f64) -> Vec<u8> {
    let rgb = picture.rgb();
    let tolerated = 255.0 * 255.0 / 10f64.powf(fidelity / 10.0) * rgb.len() as f64;
    let squared_error = |palette: &[[u8; 3]], indices: &[u8]| -> f64 {
        let kept = indices.iter().flat_map(|&index| palette[usize::from(index)]);
        rgb.iter().zip(kept).map(|(&a, b)| f64::from(a.abs_diff(b)).powi(2)).sum()
    };
    let mut quantized = quantize(rgb, PALETTE_SIZES[0]);
    for size in &PALETTE_SIZES[1..] {
        if squared_error(&quantized.0, &quantized.1) <= tolerated {
            break;
        }
        quantized = quantize(rgb, *size);
    }
    let (palette, indices) = quantized;

    let mut bytes = Vec::new();
    let mut encoder =
        png::Encoder::new(&mut bytes, picture.width() as u32, picture.height() as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette.concat());
    encoder.set_filter(png::Filter::NoFilter); // filters do not help indices
    encoder.set_deflate_compression(png::DeflateCompression::Level(9));
    encoder
        .write_header()
        .and_then(|mut writer| {
            writer.write_image_data(&indices)?;
            writer.finish()
        })
        .expect("the picture has the size it says, and memory takes every byte");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    #[test]
    fn should_split_as_the_bundled_shard_is_split() {
        let home = fixtures::home();
        for (source, split) in [("bundled", Split::Train), ("bundled:heldout", Split::HeldOut)] {
            let side = data::open(source, &home).unwrap();
            for name in (0..side.len()).map(|index| side.name(index)) {
                assert_eq!(split_of(&family(&name.to_uppercase())), split, "{name}");
            }
        }
    }
}
