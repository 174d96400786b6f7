//! Training loops: GRPO and SFT.

// From the worker down to shared parts: each names only those below it.
mod worker; // rank 0: a run from start to recorded end
mod candidate; // a run before its creation
mod rank; // start of every rank before the loop
mod judge_models; // local judges, fixed for a run's life
mod run_loop; // loop of every rank
mod requests; // user requests between steps, decided by rank 0
mod sample; // one prompt's completions for a user
mod step; // GRPO: rewards, advantages, loss, gradient, optimizer
mod supervised; // SFT on given answers
mod rollout_order; // the next steps' prompts
mod guided; // answers for groups without success
mod memory_probe; // longest gradient, before the first step
mod guard; // forgetting of guard prompts
mod report; // base against best checkpoint
mod evaluation; // base and trained on held-out prompts
mod collapse; // recovery of a collapsed policy
mod early_stop; // early stopping
mod checkpointing; // checkpoints and their disk space
mod sharded; // parameters sharded over ranks
mod recorder; // record of a run
mod next_action; // next action of all ranks
mod checkpoint_writer; // makes checkpoints durable
mod rank_steps; // metrics of ranks
mod run_alerts; // alerts of a run and its tasks
mod metrics; // metrics of a step
mod alerts; // alert rules
mod device_monitor; // condition of a rank's device
mod trainer; // state of a run
mod groups; // a prompt's compared conversations
mod setup; // a run before its weights are loaded
mod prompt_sets; // prompts of all tasks
mod teacher; // log-probs for distillation
mod run_task; // tasks of a run, with scorers and limits
mod guide; // grammar for rows without an answer
mod gradient_shape; // smaller gradients on out-of-memory
mod error; // errors that end training

pub use candidate::Candidate;
pub use error::TrainError;
pub use rank::follow;
pub use recorder::Listener;
pub use report::{Report, TaskResult, finished_report};
pub use run_loop::Ended;
pub use run_task::TaskPart;
pub use setup::{Checked, check};
pub use worker::{RankSource, train};
