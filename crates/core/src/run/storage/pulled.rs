//! Copies of another host's runs: to be read here and controlled there.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::durable::replace_file;
use crate::files;
use crate::run::clock::local_now;
use crate::run::error::RunError;

/// A file next to the runs; listings skip names that begin with a dot.
const MARK: &str = ".pulled.json";

/// The source that a folder's runs were copied from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// `HOST:FOLDER`.
    pub from: String,
    /// RFC 3339 with offset: when the last copy began.
    pub time: String,
}

impl Pulled {
    /// `None` for a run of this host.
    pub fn for_run(run: &Path) -> Option<Self> {
        Self::for_folder(run.parent()?)
    }

    /// `None` for a folder of runs of this host.
    pub fn for_folder(runs: &Path) -> Option<Self> {
        serde_json::from_str(&files::read_text(&runs.join(MARK)).ok()?).ok()
    }

    /// Marks a folder, before the first run is copied into it.
    pub fn mark(runs: &Path, from: &str) -> Result<Self, RunError> {
        let time = local_now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        let mark = Self {
            from: from.to_owned(),
            time,
        };
        replace_file(
            &runs.join(MARK),
            format!("{}\n", serde_json::json!(mark)).as_bytes(),
        )?;
        Ok(mark)
    }

    /// Describes a run of the folder, as the rest of a sentence.
    pub fn standing(&self) -> String {
        format!(
            "is a copy from {}, pulled at {}: it is read-only here; control the run there",
            self.from, self.time
        )
    }
}
