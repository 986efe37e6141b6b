//! Disk.

use std::path::Path;

/// Bytes that may still be written below a path, which need not exist yet; `None` where the system
/// does not say.
pub fn free_disk(path: &Path) -> Option<u64> {
    let whole = std::path::absolute(path).ok()?;
    let existing = whole.ancestors().find(|folder| folder.exists())?;
    free_at(existing)
}

#[cfg(unix)]
fn free_at(path: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(path).ok()?;
    told.f_bavail.checked_mul(told.f_frsize)
}

#[cfg(not(unix))]
fn free_at(_: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn should_ask_the_nearest_folder_that_exists() {
        let folder = tempfile::tempdir().expect("a folder for this test");
        let there = free_disk(folder.path()).expect("the system says");
        let below = free_disk(&folder.path().join("not/yet/there")).expect("the system says");
        // Others write at the same time.
        assert!(there > 0 && there.abs_diff(below) < 1 << 30, "{there} and {below}");
    }
}
