//! Files and folders that this process is writing and has not put into place.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What temporary names end with. Nobody else's do, so that what dead processes left can be removed
/// from folders that are not ours.
pub(crate) const SUFFIX: &str = crate::output::UNFINISHED;

/// What is being written.
struct State {
    /// Whether the process is ending, so that nothing new may begin or appear.
    closed: bool,
    paths: BTreeSet<PathBuf>,
    /// Folders in which left-overs of dead processes were looked for.
    swept: BTreeSet<PathBuf>,
}

static STATE: Mutex<State> =
    Mutex::new(State { closed: false, paths: BTreeSet::new(), swept: BTreeSet::new() });

fn state() -> MutexGuard<'static, State> {
    // Each change of it is one step, so it is sound wherever a thread panicked.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the files and folders that this process is writing and has not put into place, and lets
/// nothing be written any more: [`write_file`](crate::write_file) and
/// [`replace_folder`](crate::replace_folder) fail from now on. For a process that is about to end,
/// such as after Ctrl-C. It may be called from any thread, but not inside a signal handler.
pub fn remove_unfinished() {
    let mut state = state();
    state.closed = true;
    for path in std::mem::take(&mut state.paths) {
        // Best effort: there is nobody left to tell, and the next run removes what stays.
        let _ = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
    }
}

fn ending() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the program is ending")
}

/// A temporary file or folder that is registered, and locked so that no other process takes it for
/// a left-over.
pub(crate) struct Unfinished {
    path: PathBuf,
    _lock: Option<File>,
}

impl Unfinished {
    /// Registers what was just made; `None` if another process has removed it before it was locked.
    pub(crate) fn new(path: &Path) -> io::Result<Option<Self>> {
        let mut state = state();
        if state.closed {
            return Err(ending());
        }
        // Windows cannot open folders, and some network file systems have no locks. There nothing is
        // taken for a left-over either.
        let lock = File::open(path).ok().filter(|file| file.lock().is_ok());
        if fs::symlink_metadata(path).is_err() {
            return Ok(None);
        }
        state.paths.insert(path.to_owned());
        Ok(Some(Self { path: path.to_owned(), _lock: lock }))
    }

    /// Puts it into place.
    pub(crate) fn finish<T>(&self, put: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut state = state();
        if state.closed {
            return Err(ending());
        }
        let put = put()?;
        state.paths.remove(&self.path);
        Ok(put)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        state().paths.remove(&self.path);
    }
}

/// Removes from a folder what processes that are dead left there. Once a folder and process; what
/// cannot be removed stays.
pub(crate) fn sweep(folder: &Path) {
    if !state().swept.insert(folder.to_owned()) {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        // A living process holds the lock; the system drops it with the process, however that ends.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            let _ = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
        }
    }
}
