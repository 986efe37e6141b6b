//! Finding what comes with the program: models, recipes, protocols and data.

use std::path::{Path, PathBuf};

/// The variable that names the root of bundled things.
const VARIABLE: &str = "ALITOK_HOME";

/// The root of bundled things: the folder that holds `models`, `recipes`, `protocols` and `data`.
/// Callers pass it explicitly; no library searches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Roots in the order in which they are tried.
    roots: Vec<PathBuf>,
}

/// A bundled file or folder that was not found below any root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` was not found; set {VARIABLE} to the folder that holds `data` and `models`",
    relative.display()
)]
pub struct HomeError {
    /// What was looked for, below the root.
    pub relative: PathBuf,
}

impl Home {
    /// The root at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { roots: vec![path.into()] }
    }

    /// The root that `ALITOK_HOME` names, then the one at `path`: for a library that knows where it was
    /// installed, and whose executable is somebody else's.
    pub fn beside(path: impl Into<PathBuf>) -> Self {
        let home = std::env::var_os(VARIABLE).map(PathBuf::from);
        Self { roots: home.into_iter().chain([path.into()]).collect() }
    }

    /// The usual roots: the folder that `ALITOK_HOME` names, then the executable's folder and those
    /// above it, then `checkout`, the source tree that the program was built from.
    pub fn find(checkout: Option<&Path>) -> Self {
        let home = std::env::var_os(VARIABLE).map(PathBuf::from);
        // Behind a link, such as one in a folder of programs: some systems name the link itself.
        let executable = std::env::current_exe().ok();
        let executable = executable.map(|path| path.canonicalize().unwrap_or(path));
        let above = executable.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned);
        Self { roots: home.into_iter().chain(above).chain(checkout.map(Path::to_owned)).collect() }
    }

    /// The file or folder `relative` (such as `models/mini`), below the first root that has it.
    ///
    /// # Errors
    /// If no root has it.
    pub fn path(&self, relative: impl AsRef<Path>) -> Result<PathBuf, HomeError> {
        let relative = relative.as_ref();
        self.roots
            .iter()
            .map(|root| root.join(relative))
            .find(|path| path.exists())
            .map(|path| path.canonicalize().unwrap_or(path))
            .ok_or_else(|| HomeError { relative: relative.to_owned() })
    }
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
        let roots = [&empty, &full, &other].map(|root| root.path().to_owned()).into();
        let found = Home { roots }.path("data/x");
        assert_eq!(found, Ok(full.path().join("data/x").canonicalize().unwrap()));
        assert!(Home::at(empty.path()).path("data/x").is_err());
    }
}
