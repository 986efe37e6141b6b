//! Memory, as Linux tells of it. Elsewhere nothing is known, and nothing is refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes that this process may still take: the least of what the machine has left, what its
/// container (cgroup, version 1 or 2) has left, and what its limit of address space
/// (`ulimit -v`) leaves. `None` where the system does not say.
pub fn available_memory() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let machine = field(&read("/proc/meminfo"), "MemAvailable:");
    let address_space = left_of_limit(&read("/proc/self/limits"), &read("/proc/self/status"));
    let groups = groups(&read("/proc/self/cgroup"));
    let container = groups.iter().filter_map(|group| left_in(group));
    [machine, address_space].into_iter().flatten().chain(container).min()
}

/// Most bytes that this process has held at a time; `None` where the system does not say.
pub fn peak_memory() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// A number of kilobytes in a list of names and values, as bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes = value.trim().strip_suffix("kB")?;
    kilobytes.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the soft limit of address space leaves, if there is one.
fn left_of_limit(limits: &str, status: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit = line.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(limit.saturating_sub(field(status, "VmSize:")?))
}

/// The folders of the control groups that limit this process, its own and those above it.
fn groups(cgroup: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Path::new("/sys/fs/cgroup/memory")
            }
            _ => continue,
        };
        // Inside a container the path is often that of the host, and the root stands for it.
        let own = Path::new(path.trim_start_matches('/'));
        folders.extend(own.ancestors().map(|folder| root.join(folder)));
    }
    folders
}

/// What a control group has left: its limit less what is used and could not be given back.
fn left_in(group: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cached = statistics.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        matches!(name, "inactive_file" | "total_inactive_file")
            .then(|| value.trim().parse().ok())?
    });
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use super::*;

    #[test]
    fn should_read_the_limit_of_address_space() {
        let status = "Name:\tx\nVmPeak:\t   9000 kB\nVmSize:\t   1000 kB\n";
        let limits = |soft: &str| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax address space  {soft}  unlimited  bytes\n"
            )
        };
        assert_eq!(left_of_limit(&limits("4096000"), status), Some(4_096_000 - 1_024_000));
        assert_eq!(left_of_limit(&limits("1000"), status), Some(0));
        assert_eq!(left_of_limit(&limits("unlimited"), status), None);
    }

    #[test]
    fn should_find_the_groups_of_both_versions_up_to_the_root() {
        let two = groups("0::/user.slice/job\n");
        let expected =
            ["user.slice/job", "user.slice", ""].map(|path| Path::new("/sys/fs/cgroup").join(path));
        assert_eq!(two, expected);
        let one = groups("12:cpu,cpuacct:/a\n9:memory:/a\n");
        assert_eq!(one[0], Path::new("/sys/fs/cgroup/memory/a"));
        assert_eq!(one.len(), 2);
    }

    #[test]
    fn should_count_caches_of_a_group_as_free() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(left_in(folder.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(left_in(folder.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(left_in(folder.path()), Some(300));
        write("memory.stat", "anon 5\ninactive_file 250\n");
        assert_eq!(left_in(folder.path()), Some(550));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn should_know_this_machine() {
        assert!(available_memory().unwrap() > 1 << 20);
        assert!(peak_memory().unwrap() > 1 << 16);
    }
}
