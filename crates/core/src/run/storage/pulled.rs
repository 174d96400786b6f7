//! Copies of another host's runs (docs/commands.md has the line of rsync): to be read here and controlled there.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files;

/// A file next to the runs; listings skip names that begin with a dot.
const MARK: &str = ".pulled.json";

/// The source that a folder's runs were copied from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::run) struct Pulled {
    /// `HOST:FOLDER`.
    pub from: String,
    /// RFC 3339 with offset: when the last copy began.
    pub time: String,
}

impl Pulled {
    /// `None` for a run of this host.
    pub(in crate::run) fn for_run(run: &Path) -> Option<Self> {
        let mark = run.parent()?.join(MARK);
        serde_json::from_str(&files::read_text(&mark).ok()?).ok()
    }

    /// Describes a run of the folder, as the rest of a sentence.
    pub(in crate::run) fn standing(&self) -> String {
        format!(
            "is a copy from {}, made at {}: it is read-only here; control the run there",
            self.from, self.time
        )
    }
}
