//! Writing files so that nothing half-written is ever seen.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::PixelsError;

/// Writes a whole file or nothing: into a temporary file beside it, synced, then renamed.
///
/// # Errors
/// [`PixelsError::Write`]; the temporary file is removed and an older file of this name stays.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), PixelsError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let failed = |source| PixelsError::Write { path: path.to_path_buf(), source };
    let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    temporary_name.push(format!(".{}-{count}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary_name);

    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        // The first error is the one to tell; a file that was never made cannot be removed.
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}
