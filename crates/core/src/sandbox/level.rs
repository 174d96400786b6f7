//! Isolation levels.

use serde::{Deserialize, Serialize};

/// Ascending.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The user's permissions, with limits of time, processes, memory, output and file size.
    #[default]
    None,
    /// Landlock and seccomp: no network, no other files.
    Limited,
    /// Adds namespaces: no other processes; limited folder and memory.
    Strong,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Strong, Self::Limited, Self::None];

    pub fn name(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Limited => "limited",
            Self::None => "none",
        }
    }

    /// The level for a program on a machine of this level; `None`: the task requires more. Without
    /// a requirement, the machine's level.
    pub fn for_asked(self, asked: Option<Self>) -> Option<Self> {
        match asked {
            Some(Self::None) => Some(Self::None),
            asked => (asked.unwrap_or(Self::None) <= self).then_some(self),
        }
    }

    pub fn summary(self) -> &'static str {
        match self {
            Self::Strong => {
                "no network, no other process, no files but the system's programs, its own and an empty folder of 256 MiB"
            }
            Self::Limited => "no network, no contents of other files; its folder is not limited",
            Self::None => "your permissions: it can read and write your files and use the network",
        }
    }
}
