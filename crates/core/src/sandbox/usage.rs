//! What the processes of a namespace use together, counted where the kernel counts each alone.

use std::path::{Path, PathBuf};

use super::messages::Limit;
use crate::files;

/// Processes of one program. The kernel counts threads too, and not at all those of root before Linux 6.14.
const MAX_PROCESSES: usize = 600;
/// Bytes of a file of /proc.
const MAX_BYTES: u64 = 8_192;

/// The limit that the processes below /proc exceed, this one not counted. `memory_mib`: 0 for no limit.
pub(super) fn exceeded(memory_mib: u64) -> Option<Limit> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_other = |name: &str| name.parse::<u32>().is_ok_and(|id| id != 1);
    let processes: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_other))
        .map(|entry| entry.path())
        .collect();
    if processes.len() > MAX_PROCESSES {
        return Some(Limit::Processes);
    }
    let sum = |file, field| {
        processes
            .iter()
            .filter_map(|process| kib(process, file, field))
            .sum::<u64>()
    };
    let is_more = |kib: u64| memory_mib > 0 && kib > memory_mib << 10;
    // The first counts what processes share for each of them; the second, which takes longer, once.
    let is_exceeded = is_more(sum("status", "VmRSS:")) && is_more(sum("smaps_rollup", "Pss:"));
    is_exceeded.then_some(Limit::Memory)
}

/// A field of a file about a process.
fn kib(process: &Path, file: &str, field: &str) -> Option<u64> {
    let text = files::read_at_most(&process.join(file), MAX_BYTES).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        line.strip_prefix(field)?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()
    })
}
