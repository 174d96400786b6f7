//! The training loops: GRPO and SFT.

// From what starts a run to what everything uses: each names only those below it.
mod worker; // rank 0: a run from its worker's start to its recorded end
mod candidate; // a run before it exists: its speed here, and whether its groups would be informative
mod rank; // all ranks before the loop: loading, and what another rank does
mod judge_models; // judges of this machine: the same for a run's whole life
mod run_loop; // the loop, which every rank runs
mod requests; // what users ask between two steps, from which rank 0 decides it
mod sample; // one prompt's completions for a user
mod step; // GRPO: rewards, advantages, loss, gradient, optimizer
mod supervised; // SFT: the same on given answers
mod rollout_order; // the next steps' prompts
mod guided; // answers for groups in which none succeeds
mod memory_probe; // the longest gradient, tried before the first step
mod guard; // what the model forgets
mod report; // base against the best checkpoint
mod evaluation; // base and trained on held-out prompts
mod collapse; // where a run goes on once its policy writes one answer
mod early_stop; // when a run ends before its last step
mod checkpointing; // checkpoints and the disk space for them
mod sharded; // parameters that the ranks divide
mod recorder; // what a run leaves behind
mod next_action; // what all ranks do next
mod checkpoint_writer; // the thread that makes checkpoints durable
mod rank_steps; // what each rank did in a step
mod run_alerts; // the alerts of a run and of each of its tasks
mod metrics; // the metrics of a step
mod alerts; // what a user should look at, from the metrics of the last steps
mod device_monitor; // the condition of a rank's device
mod trainer; // a run in training
mod groups; // the conversations of a prompt, compared
mod setup; // a run before its weights are read
mod prompt_sets; // the prompts of all tasks
mod endpoint_teacher; // log-probs of a server
mod teacher; // log-probs of the student's completions, to distil
mod run_task; // the tasks of a run, with their scorers and limits
mod guide; // the grammar of answers for rows that have none
mod gradient_shape; // the same gradient in less memory
mod error; // what ends a training early

pub use candidate::Candidate;
pub use error::TrainError;
pub use rank::follow;
pub use recorder::Listener;
pub use report::{Report, TaskResult, finished_report};
pub use run_loop::Ended;
pub use run_task::TaskPart;
pub use setup::{Checked, check};
pub use worker::{RankSource, train};
