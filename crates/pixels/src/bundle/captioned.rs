//! Emoji of three styles, with their names as captions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    BundleSummary, Drawing, Emoji, Member, SIZE, Split, encode_small, family, read_list, split_of,
    words, write_shard,
};
use crate::{Picture, PixelsError, crop};

/// As [`super::FIDELITY_DB`]. Chosen so that the whole shard stays under 30 MB.
const FIDELITY_DB: f64 = 38.0;

/// Who drew the emoji.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Style {
    Noto,
    Twemoji,
    Fluent,
}

impl Style {
    const ALL: [Self; 3] = [Self::Noto, Self::Twemoji, Self::Fluent];

    /// The npm package with its pictures.
    fn package(self) -> &'static str {
        match self {
            Self::Noto => "emoji-datasource-google",
            Self::Twemoji => "emoji-datasource-twitter",
            Self::Fluent => "@lobehub/fluent-emoji-3d",
        }
    }

    /// The word for it in captions.
    fn word(self) -> &'static str {
        match self {
            Self::Noto => "Noto",
            Self::Twemoji => "Twemoji",
            Self::Fluent => "Fluent",
        }
    }

    /// Where its package keeps a drawing; nothing if it has none of its own.
    fn path(self, package: &Path, emoji: &Emoji, drawing: &Drawing) -> Option<PathBuf> {
        match self {
            Self::Noto => {
                drawing.has_img_google.then(|| package.join("img/google/64").join(&drawing.image))
            }
            Self::Twemoji => {
                drawing.has_img_twitter.then(|| package.join("img/twitter/64").join(&drawing.image))
            }
            // Fluent has no flags of countries: the package fills them in from Noto.
            Self::Fluent if words::is_flag_of_a_place(&emoji.subcategory) => None,
            Self::Fluent => {
                let name = format!("assets/{}.webp", drawing.unified.to_lowercase());
                Some(package.join(name)).filter(|path| path.is_file())
            }
        }
    }
}

/// What of a `package.json` is read.
#[derive(Deserialize)]
struct Package {
    name: String,
}

/// The `.json` member of a picture.
#[derive(Serialize)]
struct Description {
    class: String,
    captions: Vec<String>,
    split: Split,
}

/// Writes the shard `out_path` from the three unpacked packages (`emoji-datasource-google`,
/// `emoji-datasource-twitter`, `@lobehub/fluent-emoji-3d`), in any order: for each emoji, each of its
/// skin tones and each style `<code points>_<style>.png`, composited on white, and a `.json` with
/// class (the emoji's sub-category), captions and split. Styles and variants of an emoji are on one
/// side of the split, which is that of [`build`](super::build). The same packages always give the
/// same bytes.
///
/// # Errors
/// [`PixelsError::Read`] or [`PixelsError::DataSet`] for something that is not a package, or one that
/// is missing, those of [`Picture::read`], and [`PixelsError::Write`].
pub fn build_captioned(
    packages: &[PathBuf],
    out_path: &Path,
) -> Result<BundleSummary, PixelsError> {
    let found = find(packages)?;
    let mut samples = Vec::new();
    let mut of_codes = BTreeMap::new();
    let list = read_list(&found[&Style::Noto])?;
    for emoji in list.iter().filter(|emoji| !emoji.is_component()) {
        of_codes.extend(emoji.drawings().map(|drawing| (&drawing.unified, (emoji, drawing))));
    }
    for (emoji, drawing) in of_codes.into_values() {
        for style in Style::ALL {
            if let Some(path) = style.path(&found[&style], emoji, drawing) {
                samples.push((emoji, drawing, style, path));
            }
        }
    }

    let encode = |(emoji, drawing, style, path): (&Emoji, &Drawing, Style, PathBuf)| {
        let picture = crop::center_crop(&Picture::read(path)?, SIZE)?;
        let split = split_of(&family(&drawing.unified));
        let class = emoji.subcategory.clone();
        let captions = words::captions(emoji, &drawing.unified, style.word());
        let description = Description { class: class.clone(), captions, split };
        let json = serde_json::to_vec(&description).expect("plain text always serializes");
        let key = format!("{}_{}", drawing.unified, style.word()).to_lowercase();
        Ok(Member { key, class, split, png: encode_small(&picture, FIDELITY_DB), json })
    };
    let mut members: Vec<_> =
        samples.into_par_iter().map(encode).collect::<Result<_, PixelsError>>()?;
    leave_out_what_is_learned(&mut members);
    write_shard(members, out_path)
}

/// Leaves out held-out pictures that also stand on the other side, because some emoji of different
/// names share a drawing.
fn leave_out_what_is_learned(members: &mut Vec<Member>) {
    let is_learned = |member: &&Member| member.split == Split::Train;
    let learned: BTreeSet<Vec<u8>> =
        members.iter().filter(is_learned).map(|member| member.png.clone()).collect();
    members.retain(|member| member.split == Split::Train || !learned.contains(&member.png));
}

/// The package of each style.
fn find(packages: &[PathBuf]) -> Result<BTreeMap<Style, PathBuf>, PixelsError> {
    let mut found = BTreeMap::new();
    for package in packages {
        let path = package.join("package.json");
        let text = std::fs::read(&path).map_err(PixelsError::read(&path))?;
        let problem = |problem: String| PixelsError::data_set(path.display(), problem);
        let Package { name } = serde_json::from_slice(&text)
            .map_err(|error| problem(format!("not that of an npm package ({error})")))?;
        let style = Style::ALL.into_iter().find(|style| style.package() == name);
        let style = style.ok_or_else(|| {
            let known = Style::ALL.map(Style::package).join(", ");
            problem(format!("it is of {name:?}; the pictures are in {known}"))
        })?;
        if found.insert(style, package.clone()).is_some() {
            return Err(problem(format!("{name} is given twice")));
        }
    }
    match Style::ALL.into_iter().find(|style| !found.contains_key(style)) {
        Some(missing) => {
            let given: Vec<String> =
                packages.iter().map(|package| package.display().to_string()).collect();
            let problem = format!("{} is missing; unpack and give it, too", missing.package());
            Err(PixelsError::data_set(given.join(", "), problem))
        }
        None => Ok(found),
    }
}
