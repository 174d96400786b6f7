//! Keys that kinds judged by a program share.

use crate::score::definition::KeyInfo;

pub(super) const FENCE: KeyInfo = KeyInfo::new("fence", "true", "code may be in a Markdown fence");
pub(super) const STRONG: KeyInfo = KeyInfo::new(
    "isolation",
    "strong",
    "the least isolation that it runs in: strong, limited, none",
);
pub(super) const COMMAND: KeyInfo = KeyInfo::new(
    "command",
    "",
    "program and arguments; runs once it is trusted",
);
pub(super) const FILES: KeyInfo = KeyInfo::new(
    "files",
    "none",
    "other files that belong to the program; of a folder all below it",
);
pub(super) const PROCESSES: KeyInfo =
    KeyInfo::new("processes", "one per core, at most 8", "processes at once");
pub(super) const SECONDS: KeyInfo = KeyInfo::new("seconds", "10", "time limit of an answer");
pub(super) const MEMORY: KeyInfo = KeyInfo::new(
    "memory_mib",
    "2048",
    "MiB of memory that a process allocates, and that it uses with all that it starts; 0: no limit",
);
pub(super) const MAX_PROCESSES: KeyInfo = KeyInfo::new(
    "max_processes",
    "256",
    "processes and threads of a program with all that it starts",
);
pub(super) const OUTPUT: KeyInfo = KeyInfo::new("output_kib", "1024", "size of an answer, KiB");
pub(super) const ISOLATION: KeyInfo = KeyInfo::new(
    "isolation",
    "the strongest that the machine gives",
    "the least isolation that it runs in: strong, limited, none",
);
pub(super) const READ: KeyInfo = KeyInfo::new(
    "read",
    "none",
    "files and folders outside the task that it may read: absolute paths",
);
pub(super) const ERRORS: KeyInfo = KeyInfo::new(
    "max_scorer_errors",
    "0.1",
    "share of a step's completions that the program may fail to score; beyond it a run stops",
);
