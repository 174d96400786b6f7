//! The run directory: the only bridge between a worker and those who watch it.

mod checkpoints;
mod directory;
mod durable;
mod error;
mod evals;
pub mod events;
mod find;
mod follow;
mod history;
mod index;
mod lock;
mod reader;
mod rollouts;
mod series;
mod state;
mod writer;

pub use checkpoints::{CHECKPOINT_MARK, checkpoint_folder, checkpoint_path, checkpoint_step, checkpoints_to_delete, list_checkpoints};
pub use directory::{FORMAT_VERSION, NewRun, RunDirectory, RunFile, sha256};
pub use durable::{replace_file, sync_folder};
pub use error::RunError;
pub use evals::{Comparison, EvalRecord, EvalSummary, TagSummary, eval_file, read_evals, write_evals};
pub use events::{Event, EventBody};
pub use find::{At, RunPlaces, RunReference, resolve_checkpoint};
pub use follow::Follower;
pub use history::{GROUP_STEPS_KEPT, GroupCounts, RunState};
pub use lock::RunLock;
pub use reader::{Batch, EventReader, Found, Position, Skipped};
pub use rollouts::{Place, RolloutCompletion, RolloutGroup, RolloutWriter, STEPS_PER_FILE, read_step, rollout_file};
pub use series::Series;
pub use state::{State, StateWriter, Status};
pub use writer::EventWriter;
