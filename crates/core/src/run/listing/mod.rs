//! Runs as a user sees them: found by reference, named, tagged, copied from other hosts, removed.

pub(super) mod display_name;
pub(super) mod lookup;
pub(super) mod pulled;
mod recorded_lengths;
mod recording;
mod remove;
mod tags;
mod task_changes;

pub use display_name::{check_name, name_path, read_display_name, rename_run};
pub use lookup::{At, RunFolders, RunReference, resolve_checkpoint, workspace};
pub use pulled::Pulled;
pub use recorded_lengths::{recorded_lengths, recorded_pace};
pub use recording::{is_recording, unpack_recording};
pub use remove::{Removal, RemovedRun};
pub use tags::{change_tags, check_tag, read_tags, tags_path};
pub use task_changes::{FileChange, RowChanges, task_changes};
