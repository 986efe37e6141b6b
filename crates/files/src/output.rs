//! Whether a folder that a person names for results may be written to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What the names of files and folders end with that are being written. Nobody else's do.
pub(crate) const UNFINISHED: &str = ".alitok.incomplete";

/// A folder that results are not written to.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A file has the name.
    #[error("{} is a file, and a folder is written here; give another name", path.display())]
    IsFile {
        /// What was named.
        path: PathBuf,
    },
    /// The folder holds something, and nobody said that it may be replaced.
    #[error(
        "{} holds {} already; name another folder, or give --replace to put what is made now in the \
         place of all that is there",
        path.display(), listed(names, *more)
    )]
    Holds {
        /// The folder.
        path: PathBuf,
        /// Some of what is in it.
        names: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// The folder should be replaced, and holds what the command does not write.
    #[error(
        "{} is not replaced: it holds {}, which this command does not write; name another folder, or \
         move them away",
        path.display(), listed(names, *more)
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Some of what is not ours.
        names: Vec<String>,
        /// How many more there are at least.
        more: usize,
    },
    /// The folder is the current one, or holds it.
    #[error("{} is not replaced: you are in it; go to another folder first", path.display())]
    Current {
        /// The folder.
        path: PathBuf,
    },
    /// What should be read is in the folder.
    #[error(
        "{} is not replaced: {} is in it, and is read by this command; name another folder",
        path.display(), input.display()
    )]
    Input {
        /// The folder.
        path: PathBuf,
        /// What is read.
        input: PathBuf,
    },
    /// The operating system refused to read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Most names that an error lists.
const LISTED: usize = 3;

fn listed(names: &[String], more: usize) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Checks, before any work, that a folder may be written to: nothing is there, or an empty folder; or,
/// if it is to be replaced, a folder of nothing but files that the command writes. `is_own` says of a
/// file whether it is one, given its path below the folder and its whole path. `inputs` are read by the
/// command and may not be replaced.
///
/// # Errors
/// If not, or the folder cannot be read.
pub fn check_folder(
    path: &Path,
    replace: bool,
    is_own: &dyn Fn(&Path, &Path) -> bool,
    inputs: &[PathBuf],
) -> Result<(), OutputError> {
    let own = || path.to_owned();
    let read = |source| OutputError::Read { path: own(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(read(error)),
        Ok(metadata) if !metadata.is_dir() => return Err(OutputError::IsFile { path: own() }),
        Ok(_) => {}
    }
    #[cfg(feature = "write")]
    crate::unfinished::sweep(path);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        names.push(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
    }
    if names.is_empty() {
        return Ok(());
    }
    if !replace {
        names.sort();
        let more = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        return Err(OutputError::Holds { path: own(), names, more });
    }
    let real = path.canonicalize().map_err(read)?;
    if std::env::current_dir().is_ok_and(|current| current.starts_with(&real)) {
        return Err(OutputError::Current { path: own() });
    }
    for input in inputs {
        if input.canonicalize().is_ok_and(|input| input.starts_with(&real)) {
            return Err(OutputError::Input { path: own(), input: input.clone() });
        }
    }
    let mut foreign = Vec::new();
    let mut more = 0;
    let mut folders = vec![PathBuf::new()];
    'walk: while let Some(below) = folders.pop() {
        let mut empty = true;
        for entry in fs::read_dir(real.join(&below)).map_err(read)? {
            let entry = entry.map_err(read)?;
            empty = false;
            let name = below.join(entry.file_name());
            let kind = entry.file_type().map_err(read)?;
            if name.to_string_lossy().ends_with(UNFINISHED) {
                // Another process is writing it; those of dead ones were swept above.
            } else if kind.is_dir() {
                folders.push(name);
            } else if !kind.is_file() || !is_own(&name, &entry.path()) {
                match foreign.len() < LISTED {
                    true => foreign.push(name.to_string_lossy().into_owned()),
                    false => more += 1,
                }
                // A home folder has a million; a few tell enough.
                if more == 100 {
                    break 'walk;
                }
            }
        }
        if empty {
            foreign.push(format!("{}/", below.display()));
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    foreign.sort();
    Err(OutputError::Foreign { path: own(), names: foreign, more })
}

/// Whether a file is a picture as this program writes them: a PNG in 8-bit RGB without any text, colour
/// profile or time in it.
pub fn is_written_picture(path: &Path) -> bool {
    use io::Read;
    let mut start = [0; 41];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    // Signature, then the header: its length and name, width, height, depth, colour, …, a checksum.
    read.is_ok()
        && start.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")
        && start[24..29] == [8, 2, 0, 0, 0]
        && &start[37..] == b"IDAT"
}

/// Whether a file of a folder of pictures is one that this program writes: a picture, or what it
/// records beside one.
pub fn is_of_pictures(name: &Path, path: &Path) -> bool {
    let ending = name.extension().unwrap_or_default();
    ending == "png" && is_written_picture(path)
        || ending == "json" && is_written_picture(&path.with_extension("png"))
}

/// The ending of a file's name in small letters, without the dot; empty where there is none. A name
/// that is nothing but an ending, such as `.png`, has none.
pub fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether a name is nothing but the ending of one, such as `.png`: somebody forgot the rest.
pub fn is_bare_ending(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.strip_prefix('.').is_some_and(|name| endings.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_replace_only_what_could_be_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("out");
        let text = |name: &Path, _: &Path| name.extension().is_some_and(|ending| ending == "txt");
        let check = |replace| check_folder(&folder, replace, &text, &[]);
        check(false).unwrap();
        fs::create_dir(&folder).unwrap();
        check(false).unwrap();
        for name in ["a.txt", "b.txt", "c.txt", "d.txt"] {
            fs::write(folder.join(name), "x").unwrap();
        }
        let error = check(false).unwrap_err().to_string();
        assert!(error.contains("`a.txt`, `b.txt`, `c.txt` and 1 more"), "{error}");
        assert!(error.contains("--replace"), "{error}");
        check(true).unwrap();
        let inputs = [folder.join("a.txt")];
        let error = check_folder(&folder, true, &text, &inputs).unwrap_err();
        assert!(matches!(error, OutputError::Input { .. }), "{error}");
        // Below the folder too, and folders and links themselves.
        for name in ["notes.md", "sub/x.png", "empty/"] {
            let path = folder.join(name);
            fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() })
                .unwrap();
            if !name.ends_with('/') {
                fs::write(&path, "mine").unwrap();
            }
            let error = check(true).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")), "{error}");
            match name {
                "notes.md" => fs::remove_file(&path).unwrap(),
                "sub/x.png" => fs::remove_dir_all(folder.join("sub")).unwrap(),
                _ => fs::remove_dir(&path).unwrap(),
            }
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(scratch.path(), folder.join("link.txt")).unwrap();
            assert!(check(true).unwrap_err().to_string().contains("`link.txt`"));
        }
        let file = scratch.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = check_folder(&file, true, &text, &[]).unwrap_err();
        assert!(matches!(error, OutputError::IsFile { .. }), "{error}");
    }

    #[test]
    fn should_know_names_that_are_endings_alone() {
        assert!(is_bare_ending(Path::new("x/.PNG"), &["png", "npz"]));
        assert!(!is_bare_ending(Path::new("x/a.png"), &["png"]));
        assert!(!is_bare_ending(Path::new(".hidden"), &["png"]));
        assert_eq!(
            (ending(Path::new("a.PNG")), ending(Path::new(".png"))),
            ("png".into(), "".into())
        );
    }
}
