//! The run directory: the only bridge between a worker and those who watch it.

mod checkpoints;
mod control;
mod directory;
mod disk;
mod durable;
mod error;
mod eval_folder;
mod evals;
pub mod events;
mod fault;
mod filesystem;
mod find;
mod follow;
mod gpu;
mod history;
mod index;
mod launch;
mod leftovers;
mod liveness;
mod lock;
mod logout;
mod observe;
mod promote;
mod query;
mod reader;
mod reading;
mod remove;
mod rollouts;
mod room;
pub mod sampler;
mod segments;
mod series;
mod slots;
mod state;
mod tags;
mod worker;
mod writer;

pub use checkpoints::{CHECKPOINT_MARK, checkpoint_folder, checkpoint_path, checkpoint_step, checkpoints_to_delete, list_checkpoints};
pub use control::{
    Accepted, Answer, Answered, ControlServer, RequestQueue, LONGEST_REQUEST, SETTABLE, Sample, Settings, Stop, Verb, ask, remove_dead_sockets,
    settings, socket_folders,
};
pub use directory::{FORMAT_VERSION, NewRun, RunDirectory, RunFile, sha256, sha256_file};
pub use disk::{DiskForecast, DiskUse, disk_forecast, disk_use};
pub use durable::{check_export, free_path, replace_file, sync_folder, write_export};
pub use error::{RunError, is_full_disk};
pub use eval_folder::{EvalFolder, RESULT_FILE};
pub use evals::{Comparison, EvalRecord, EvalSummary, TagSummary, eval_file, read_evals, write_evals};
pub use events::{Event, EventBody};
pub use fault::{bug, fault, torn_write};
pub use filesystem::FileSystem;
pub use find::{At, RunFolders, RunReference, resolve_checkpoint};
pub use follow::Follower;
pub use gpu::{Gpu, GpuProcess};
pub use history::{GROUP_STEPS_KEPT, GroupCounts, RunState, SPARSE};
pub use launch::{DeviceChoice, ReadyPipe, Launch, Launched, launch};
pub use liveness::{HEARTBEAT, Liveness, WorkerSignal, signal_worker};
pub use lock::RunLock;
pub use logout::{Home, LogoutPolicy};
pub use promote::promote;
pub use query::{Comparison as QueryComparison, Field, Query};
pub use reader::{Batch, EventReader, Found, Position, Skipped};
pub use reading::LiveState;
pub use remove::{Removal, Removed};
pub use rollouts::{
    Place, RolloutCompletion, RolloutGroup, RolloutWriter, STEPS_PER_FILE, Segment, read_step, rollout_file, rollout_segments,
    rollouts_to_delete,
};
pub use room::{Held, Room};
pub use sampler::SampledCompletion;
pub use series::Series;
pub use slots::{Device, SLOTS, Slot, Waiting, holder, queue_length, slots_folder};
pub use state::{State, StateWriter, Status};
pub use tags::{change_tags, check_tag, read_tags, tags_path};
pub use worker::Worker;
pub use writer::EventWriter;
