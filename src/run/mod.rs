//! The run directory: the only bridge between a worker and those who watch it.

mod checkpoints;
mod directory;
mod disk;
mod durable;
mod error;
mod evals;
pub mod events;
mod find;
mod follow;
mod history;
mod index;
mod lock;
mod query;
mod reader;
mod rollouts;
mod segments;
mod series;
mod state;
mod writer;

pub use checkpoints::{CHECKPOINT_MARK, checkpoint_folder, checkpoint_path, checkpoint_step, checkpoints_to_delete, list_checkpoints};
pub use directory::{FORMAT_VERSION, NewRun, RunDirectory, RunFile, sha256, sha256_file};
pub use disk::{DiskForecast, DiskUse, disk_forecast, disk_use};
pub use durable::{replace_file, sync_folder};
pub use error::RunError;
pub use evals::{Comparison, EvalRecord, EvalSummary, TagSummary, eval_file, read_evals, write_evals};
pub use events::{Event, EventBody};
pub use find::{At, RunPlaces, RunReference, resolve_checkpoint};
pub use follow::Follower;
pub use history::{GROUP_STEPS_KEPT, GroupCounts, RunState};
pub use lock::RunLock;
pub use query::{Comparison as QueryComparison, Field, Query};
pub use reader::{Batch, EventReader, Found, Position, Skipped};
pub use rollouts::{
    Place, RolloutCompletion, RolloutGroup, RolloutWriter, STEPS_PER_FILE, Segment, read_step, rollout_file, rollout_segments,
    rollouts_to_delete,
};
pub use series::Series;
pub use state::{State, StateWriter, Status};
pub use writer::EventWriter;
