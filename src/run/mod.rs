//! The run directory: the only interface between a worker and its viewers.

mod against_base;
mod checkpoints;
mod cleanup;
mod comments;
mod control;
mod device_slots;
mod directory;
mod display_name;
mod disk;
mod disk_guard;
mod durable;
mod error;
mod endpoint_summary;
mod eval_folder;
mod eval_progress;
mod eval_record;
mod evals;
pub mod events;
mod folder;
mod follow;
mod gpu;
mod gpu_price;
mod history;
mod index;
mod launch;
mod live_state;
mod liveness;
mod lock;
mod logout;
mod lookup;
mod observed_state;
mod promote;
mod pulled;
mod query;
mod reader;
mod recorded_lengths;
mod recording;
mod remove;
mod rollout_search;
mod rollout_zst;
mod rollouts;
mod sample_rates;
pub mod sampler;
mod series;
mod slurm;
mod speed_summary;
mod subprocess;
mod tags;
mod task_changes;
mod worker;
mod worker_state;
mod writer;

pub use against_base::AgainstBase;
pub use checkpoints::{
    CHECKPOINT_MARK, base_parameter_count, checkpoint_folder, checkpoint_path, checkpoint_step, checkpoints_to_delete,
    list_checkpoints,
};
pub use comments::{Comment, check_comment, comments_path, read_comments, write_comment};
pub use control::{
    AcceptedRequest, Answer, RequestOutcome, RequestQueue, SETTABLE, Sample, Settings, Stop, Verb, ask, settings,
    stop_worker,
};
pub use device_slots::{Device, SLOTS, Slot, Waiting, holder, queue_length, slots_folder};
pub use directory::{FORMAT_VERSION, NewRun, RunDirectory, RunFile, host_name, sha256, sha256_file};
pub use disk::{DiskForecast, DiskUse, disk_forecast, disk_use};
pub use disk_guard::{DiskGuard, WaitOutcome};
pub use display_name::{check_name, name_path, read_display_name, rename_run};
pub use durable::{check_export, free_path, write_export};
pub use endpoint_summary::EndpointSummary;
pub use error::{RunError, is_full_disk};
pub use eval_folder::{AnswerLog, EvalFolder, RESULT_FILE, StoredTarget};
pub use eval_progress::EvalProgress;
pub use eval_record::{EndpointCall, EvalRecord, EvalTurn, LogProbs};
pub use evals::{Comparison, EvalSummary, TagSummary, answers_path, eval_file, eval_path, read_evals, write_evals};
pub use events::{Event, EventBody};
pub use folder::{FileSystem, user_name};
pub use follow::Follower;
pub use gpu::{Gpu, GpuProcess};
pub use gpu_price::{GPU_PRICE_KEY, GPU_PRICE_RULE, configured_gpu_price, is_price, toml_price};
pub use history::{GROUP_STEPS_KEPT, HELD_OUT_SETS, RunState, SPARSE};
pub use launch::{DeviceChoice, Launch, LaunchedWorker, ReadyPipe, launch};
pub use live_state::LiveState;
pub use liveness::{Liveness, WorkerSignal, signal_worker};
pub use lock::RunLock;
pub use logout::{LogoutPolicy, ProcessScope};
pub use lookup::{At, RunFolders, RunReference, resolve_checkpoint, workspace};
pub use promote::{PROVENANCE, promote};
pub use pulled::Pulled;
pub use query::{Comparison as QueryComparison, Field, Query};
pub use reader::{Batch, EventReader, LogItem, Position, SkippedLine};
pub use recorded_lengths::{recorded_lengths, recorded_pace};
pub use recording::{is_recording, unpack_recording};
pub use remove::{Removal, RemovedRun};
pub use rollout_search::{SearchBatch, SearchHit, TextSearch, search_rollouts};
pub use rollouts::{
    GroupLocation, RolloutCompletion, RolloutGroup, RolloutWriter, STEPS_PER_FILE, Segment, read_step, rollout_file,
    rollout_segments, rollouts_to_delete,
};
pub use sample_rates::{PassAt, SampleRates, SampleSummary};
pub use sampler::SampledCompletion;
pub use series::Series;
pub use slurm::{
    JobPhase, JobRequest, Partition, SLURM_FILE, SlurmJob, TO_BE_CONTINUED, ask_slurm, partitions, submit,
};
pub use speed_summary::{MaskCost, SpeedSummary};
pub use tags::{change_tags, check_tag, read_tags, tags_path};
pub use task_changes::{FileChange, RowChanges, task_changes};
pub use worker::Worker;
pub use worker_state::{State, StateWriter, Status};
pub use writer::EventWriter;

#[cfg(test)]
use crate::score::launch_if_asked;
#[cfg(test)]
#[path = "../../tests/own_home.rs"]
mod own_home;
