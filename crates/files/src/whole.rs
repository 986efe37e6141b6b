//! Files and folders that appear whole or not at all: written beside, synced, renamed.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::{Builder, TempDir};

use crate::unfinished::{SUFFIX, Unfinished, sweep};

/// The folder in which `path` stands.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What temporary names end with, those of earlier versions too.
const INCOMPLETE: &str = ".incomplete";

/// Most bytes of a name that its temporary name repeats. Systems allow 255 in all.
const MAX_REPEATED: usize = 128;

/// What the temporary name of a file or folder begins with.
fn temporary_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What is no UTF-8 becomes longer here.
    format!("{}.", &name[..name.floor_char_boundary(MAX_REPEATED)])
}

/// Most links that lead to a file, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Where a path leads if it is a symbolic link, to a file that may not exist yet; else the path.
///
/// # Errors
/// If the links go round in a circle.
pub fn link_target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = parent(&path).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other(format!("the symbolic link {} leads to itself", path.display())))
}

/// Makes renames in a folder last through a power failure, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Writes a file beside `path`, syncs it, and renames it into place. A symbolic link is followed: the
/// file that it leads to is written.
///
/// What processes that are dead left in the folder goes away with the first file that is written
/// there.
///
/// # Errors
/// If `write` or the operating system fails; then nothing is left behind, and an older file stays.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let path = &link_target(path)?;
    let folder = parent(path);
    sweep(&folder);
    let prefix = temporary_prefix(path);
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file; temporary ones are otherwise readable by their owner only.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let (file, unfinished) = loop {
        let file = builder.tempfile_in(&folder)?;
        if let Some(unfinished) = Unfinished::new(file.path())? {
            break (file, unfinished);
        }
    };
    let mut writer = BufWriter::with_capacity(1 << 16, file.as_file());
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()?;
    unfinished.finish(|| file.persist(path).map_err(|error| error.error))?;
    sync_folder(&folder)
}

/// Fills a folder beside `path`, syncs it, and puts it in the place of `path`, whatever is there.
/// Folders above it are made where they are missing. A symbolic link is followed: the folder that it
/// leads to is replaced.
///
/// On Linux and Apple systems an older folder is exchanged in one step, so `path` is at every moment
/// the old folder or the new one. Elsewhere it is moved away first and moved back on failure. An
/// empty folder stays itself, since it may be a mounted one: what is new is made inside and moved up
/// in the end.
///
/// # Errors
/// If `fill` or the operating system fails; then nothing is left behind, and an older folder stays.
pub fn replace_folder<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let path = &link_target(path)?;
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    // Left-overs inside would make an empty folder look full.
    sweep(path);
    let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    let folder = if is_empty { path.clone() } else { parent(path) };
    fs::create_dir_all(&folder)?;
    sweep(&folder);
    let prefix = temporary_prefix(path);
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    let (new, unfinished) = loop {
        let new = builder.tempdir_in(&folder)?;
        if let Some(unfinished) = Unfinished::new(new.path())? {
            break (new, unfinished);
        }
    };
    fill(new.path())?;
    for entry in fs::read_dir(new.path())? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_folder(new.path())?;
    unfinished.finish(|| {
        if is_empty {
            return move_up(new.path(), path);
        }
        if path.exists() {
            return exchange(&new, path);
        }
        fs::rename(new.path(), path)?;
        let _moved = new.keep();
        Ok(())
    })?;
    sync_folder(&folder)?;
    Ok(())
}

/// Moves what is in `from` into `to`, all of it or nothing.
fn move_up(from: &Path, to: &Path) -> io::Result<()> {
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        if let Err(error) = fs::rename(&old, &new) {
            for (old, new) in moved {
                let _ = fs::rename(new, old);
            }
            return Err(error);
        }
        moved.push((old, new));
    }
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

    /// Names in a folder, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    #[test]
    fn should_write_where_a_link_points() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).unwrap();
        // To a file that exists, to one that does not yet, over two links, and to a folder.
        fs::write(at("real/old"), "old").unwrap();
        symlink("real/old", at("a")).unwrap();
        symlink("real/new", at("b")).unwrap();
        symlink("b", at("c")).unwrap();
        symlink("real/folder", at("d")).unwrap();
        write_file(&at("a"), |file| file.write_all(b"1")).unwrap();
        write_file(&at("c"), |file| file.write_all(b"2")).unwrap();
        for content in ["3", "4"] {
            let fill = |new: &Path| fs::write(new.join("x"), content);
            replace_folder::<io::Error>(&at("d"), fill).unwrap();
            assert_eq!(fs::read_to_string(at("real/folder/x")).unwrap(), content);
        }
        assert_eq!(fs::read_to_string(at("real/old")).unwrap(), "1");
        assert_eq!(fs::read_to_string(at("real/new")).unwrap(), "2");
        assert!(["a", "b", "c", "d"].iter().all(|link| at(link).is_symlink()));
        assert_eq!(names(&at("real")), ["folder", "new", "old"]);
        symlink("e", at("e")).unwrap();
        let error = write_file(&at("e"), |file| file.write_all(b"5")).unwrap_err();
        assert!(error.to_string().contains("leads to itself"), "{error}");
    }

    #[test]
    fn should_fill_an_empty_folder_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        fs::create_dir(&path).unwrap();
        let failed = replace_folder::<io::Error>(&path, |new| {
            fs::write(new.join("a"), "a")?;
            Err(io::Error::other("no more"))
        });
        assert!(failed.is_err());
        assert_eq!(names(&path), [""; 0]);
        // Nothing may be made beside it, as with a mounted folder.
        #[cfg(unix)]
        let before = std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
        replace_folder::<io::Error>(&path, |new| fs::write(new.join("a"), "a")).unwrap();
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap()), before);
        assert_eq!((names(&path), names(folder.path())), (vec!["a".into()], vec!["empty".into()]));
    }

    #[test]
    fn should_remove_what_dead_processes_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("x.npz.AbCdEf.alitok.incomplete"), "half").unwrap();
        fs::create_dir(at("model.AbCdEf.alitok.incomplete")).unwrap();
        fs::write(at("model.AbCdEf.alitok.incomplete/a"), "half").unwrap();
        fs::write(at("someone's download.incomplete"), "half").unwrap();
        // A living process holds this one.
        fs::write(at("y.npz.AbCdEf.alitok.incomplete"), "half").unwrap();
        let living = File::open(at("y.npz.AbCdEf.alitok.incomplete")).unwrap();
        living.lock().unwrap();
        write_file(&at("z"), |file| file.write_all(b"z")).unwrap();
        let left = ["someone's download.incomplete", "y.npz.AbCdEf.alitok.incomplete", "z"];
        assert_eq!(names(folder.path()), left);
    }
}
