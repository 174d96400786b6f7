//! What a run records: events and rollouts, written, read, followed, and folded into a state.

mod by_task;
pub mod events;
mod follow;
pub(super) mod history;
mod index;
mod live_state;
pub(super) mod reader;
pub(super) mod rollout_zst;
pub(super) mod rollouts;
mod series;
pub(super) mod writer;

pub use by_task::StepEvals;
pub use events::{Event, EventBody};
pub use follow::Follower;
pub use history::{GROUP_STEPS_KEPT, RunState, SPARSE, SolveRate};
pub use live_state::LiveState;
pub use reader::{Batch, EventReader, LogItem, Position, SkippedLine};
pub use rollouts::{
    GroupLocation, RolloutCompletion, RolloutGroup, RolloutWriter, STEPS_PER_FILE, Segment,
    read_step, rollout_file, rollout_segments, rollouts_to_delete,
};
pub use series::Series;
pub use writer::EventWriter;
