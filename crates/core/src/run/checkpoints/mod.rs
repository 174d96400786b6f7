//! Checkpoints: listed, deleted by the rules of a run, copied out.

pub(super) mod list;
mod promote;

pub use list::{
    CHECKPOINT_MARK, base_parameter_count, checkpoint_folder, checkpoint_path, checkpoint_step, checkpoints_to_delete,
    list_checkpoints,
};
pub use promote::{PROVENANCE, promote};
