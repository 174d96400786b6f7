//! Runs as a user sees them: found by reference, tagged, promoted, removed.

pub(super) mod lookup;
mod promote;
mod recorded_pace;
mod recording;
mod remove;
mod tags;
mod task_changes;
mod unknown_model;

pub use lookup::{At, RunFolders, RunReference, endpoint_files, resolve_checkpoint, workspace};
pub(crate) use promote::trained_templates;
pub use promote::{PROVENANCE, promote};
pub use recorded_pace::recorded_pace;
pub use recording::{is_recording, unpack_recording};
pub use remove::{Removal, RemovedRun};
pub use tags::{change_tags, check_tag, read_tags, tags_path};
pub use task_changes::{FileChange, RowChanges, task_changes};
pub use unknown_model::no_model_or_run;
