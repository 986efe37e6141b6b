//! For build scripts: a table of all settings files below a folder, so that a new file is carried
//! by the program without a line of code.

use std::{
    fmt::Write,
    io,
    path::{Path, PathBuf},
};

/// Writes `NAME.rs` into the build's output folder: an array of name and text for every `.toml`
/// file below `folder`, which is relative to the crate's manifest. The crate takes it in with
/// `include!(concat!(env!("OUT_DIR"), "/NAME.rs"))`.
///
/// A name is the path below `folder`, without the extension and with `/` between its parts. They are
/// sorted part by part. Cargo runs the build script again when a file comes or goes.
///
/// # Errors
/// If the folder cannot be read, the table cannot be written, or this is not a build script.
pub fn toml_files(folder: &str, name: &str) -> io::Result<()> {
    let variable = |name: &str| std::env::var(name).map_err(io::Error::other);
    let folder = Path::new(&variable("CARGO_MANIFEST_DIR")?).join(folder).canonicalize()?;
    let mut found = Found::default();
    found.look_into(&folder, "")?;
    let output = Path::new(&variable("OUT_DIR")?).join(format!("{name}.rs"));
    std::fs::write(output, found.table())?;
    for folder in found.folders {
        // How a build script talks to Cargo.
        #[allow(clippy::print_stdout)]
        {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
    }
    Ok(())
}

#[derive(Default)]
struct Found {
    files: Vec<(String, PathBuf)>,
    folders: Vec<PathBuf>,
}

impl Found {
    /// Finds what is in a folder whose names begin with `prefix`.
    fn look_into(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        self.folders.push(folder.to_owned());
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            let name = format!("{prefix}{stem}");
            if path.is_dir() {
                self.look_into(&path, &format!("{name}/"))?;
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                self.files.push((name, path));
            }
        }
        self.files.sort_by(|(one, _), (other, _)| one.split('/').cmp(other.split('/')));
        Ok(())
    }

    fn table(&self) -> String {
        let mut table = "&[\n".to_owned();
        for (name, path) in &self.files {
            // Text in Rust's own notation for strings, whatever the path holds.
            let _ =
                writeln!(table, "    ({name:?}, include_str!({:?})),", path.display().to_string());
        }
        table + "]\n"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn should_list_settings_files_of_all_folders_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("mini")).unwrap();
        for file in ["mini-2.toml", "mini/second.toml", "mini/first.toml", "mini/notes.md"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        let mut found = Found::default();
        found.look_into(root, "").unwrap();
        let names: Vec<&str> = found.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["mini/first", "mini/second", "mini-2"]);
        assert_eq!(found.folders, [root.to_owned(), root.join("mini")]);
        let table = found.table();
        let second = root.join("mini/second.toml").display().to_string();
        assert!(
            table.contains(&format!("(\"mini/second\", include_str!({second:?})),")),
            "{table}"
        );
    }
}
