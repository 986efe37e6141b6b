//! Files and folders that appear whole or not at all: written beside, synced, renamed.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::{Builder, TempDir};

/// The folder in which `path` stands.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What names of files and folders end with while they are written.
const INCOMPLETE: &str = ".incomplete";

/// Most bytes of a name that its temporary name repeats. Systems allow 255 in all.
const MAX_REPEATED: usize = 128;

/// What the temporary name of a file or folder begins with.
fn temporary_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name[..name.floor_char_boundary(MAX_REPEATED)].to_owned()
}

/// Makes renames in a folder last through a power failure, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Writes a file beside `path`, syncs it, and renames it into place.
///
/// # Errors
/// If `write` or the operating system fails; then nothing is left behind, and an older file stays.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let folder = parent(path);
    let prefix = temporary_prefix(path);
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(INCOMPLETE);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file; temporary ones are otherwise readable by their owner only.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(&folder)?;
    let mut writer = BufWriter::with_capacity(1 << 16, file.as_file());
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(&folder)
}

/// Fills a folder beside `path`, syncs it, and puts it in the place of `path`, whatever is there.
/// Folders above it are made where they are missing.
///
/// On Linux and Apple systems an older folder is exchanged in one step, so `path` is at every moment
/// the old folder or the new one. Elsewhere it is moved away first and moved back on failure.
///
/// # Errors
/// If `fill` or the operating system fails; then nothing is left behind, and an older folder stays.
pub fn replace_folder<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    // A link is followed: the folder behind it is replaced, not the link.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = parent(path);
    fs::create_dir_all(&folder)?;
    let prefix = temporary_prefix(path);
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(INCOMPLETE);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    let new = builder.tempdir_in(&folder)?;
    fill(new.path())?;
    for entry in fs::read_dir(new.path())? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_folder(new.path())?;
    if path.exists() {
        exchange(&new, path)?;
    } else {
        fs::rename(new.path(), path)?;
        let _moved = new.keep();
    }
    sync_folder(&folder)?;
    Ok(())
}

/// Removes from a folder what killed processes began to write there and did not finish. Nobody else
/// may be writing to it. A folder that does not exist holds nothing to remove.
///
/// # Errors
/// If the operating system fails.
pub fn remove_incomplete(folder: &Path) -> io::Result<()> {
    remove_incomplete_of(folder, |_| true)
}

/// As [`remove_incomplete`], but only what belongs to the files and folders whose names are
/// chosen; others may write the rest. A temporary name begins with the final one, of which it repeats
/// at most 128 bytes.
///
/// # Errors
/// If the operating system fails.
pub fn remove_incomplete_of(folder: &Path, chosen: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().ends_with(INCOMPLETE.as_bytes())
            && chosen(&name.to_string_lossy())
        {
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Puts `new` into the place of `path`; what was there goes away with `new`.
fn exchange(new: &TempDir, path: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, new.path(), CWD, path, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
        // Some file systems cannot; then as below.
    }
    let prefix = temporary_prefix(path);
    let old = Builder::new().prefix(&prefix).suffix(".previous").tempdir_in(parent(path))?;
    let away = old.path().join("model");
    fs::rename(path, &away)?;
    if let Err(error) = fs::rename(new.path(), path) {
        if fs::rename(&away, path).is_err() {
            // Better a stray folder than a lost one.
            let _kept = old.keep();
        }
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_write_files_and_folders_with_the_longest_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x".repeat(255), "\u{e4}".repeat(127)] {
            let path = folder.path().join(&name);
            write_file(&path, |file| file.write_all(b"x")).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"x");
            fs::remove_file(&path).unwrap();
            for content in ["old", "new"] {
                let fill = |new: &Path| fs::write(new.join("a"), content);
                replace_folder::<io::Error>(&path, fill).unwrap();
                assert_eq!(fs::read_to_string(path.join("a")).unwrap(), content);
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
