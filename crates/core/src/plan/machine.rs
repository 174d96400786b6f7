//! The memory and disk of this machine, as the kernel reports them.

use std::path::Path;

/// The machine's memory, or the limit of the control group if that is lower. `None` if the system does not say.
pub fn memory_limit_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo(&text, "MemTotal"));
    machine.into_iter().chain(control_group_limit()).min()
}

/// Free bytes of the file system of `path`, or of its nearest existing parent.
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|folder| folder.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

/// Whether the file system of `path` takes no more files, however many bytes are free.
pub fn has_no_free_files(path: &Path) -> bool {
    // Some file systems have no such limit, and count none.
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_files > 0 && found.f_favail == 0)
}

fn control_group_limit() -> Option<u64> {
    number("/sys/fs/cgroup/memory.max")
        .or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
}

/// `None` for `max` and other words.
fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A line of /proc/meminfo, `MemTotal:  16384 kB`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_meminfo() {
        let text = "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(16 << 20));
        assert_eq!(meminfo(text, "MemFree"), Some(1024));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(meminfo("MemTotal: much\n", "MemTotal"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_something() {
        assert!(memory_limit_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(free_disk_bytes(Path::new("/tmp/not/yet/there")).is_some_and(|bytes| bytes > 0));
    }
}
