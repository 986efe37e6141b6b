//! Finding what comes with the program: its data set and its model.

use std::path::{Path, PathBuf};

use crate::PixelsError;
use crate::bundle::Split;
use crate::data::ShardSet;

/// Where the bundled shard lies.
const SHARD: &str = "data/noto-emoji-64.tar";

/// The file or folder `relative` (such as `models/mini`) that comes with the program, wherever it
/// is run from: below the folder `ALITOK_HOME` if that variable is set, else below the nearest
/// ancestor of the executable, else in the source tree that it was built from.
pub fn bundled_path(relative: &str) -> Option<PathBuf> {
    let home = std::env::var_os("ALITOK_HOME").map(PathBuf::from);
    let executable = std::env::current_exe().ok();
    let above = executable.iter().flat_map(|path| path.ancestors().skip(1));
    let source_tree = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    first_below(home.as_deref().into_iter().chain(above).chain([source_tree]), relative)
}

fn first_below<'a>(mut roots: impl Iterator<Item = &'a Path>, relative: &str) -> Option<PathBuf> {
    roots.find_map(|root| {
        let path = root.join(relative);
        path.exists().then(|| path.canonicalize().unwrap_or(path))
    })
}

/// One side of the bundled data set: Noto Emoji at 64 pixels, by category. Both sides have the
/// same classes, and no emoji stands on both sides in any skin tone or gender.
///
/// # Errors
/// [`PixelsError::DataSet`] if it is not found, and those of [`ShardSet::open`].
pub(crate) fn bundled(split: Split) -> Result<ShardSet, PixelsError> {
    let path = bundled_path(SHARD).ok_or_else(|| {
        let problem = format!(
            "{SHARD} was not found; set ALITOK_HOME to the folder that holds `data` and `models`"
        );
        PixelsError::data_set("bundled", problem)
    })?;
    ShardSet::open_split(&[path], split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_take_the_first_root_that_has_the_file() {
        let [empty, full, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        for root in [&full, &other] {
            std::fs::create_dir(root.path().join("data")).unwrap();
            std::fs::write(root.path().join("data/x"), "x").unwrap();
        }
        let found =
            first_below([&empty, &full, &other].map(|root| root.path()).into_iter(), "data/x");
        assert_eq!(found, Some(full.path().join("data/x").canonicalize().unwrap()));
        assert_eq!(first_below([empty.path()].into_iter(), "data/x"), None);
    }
}
