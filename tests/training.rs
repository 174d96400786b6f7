//! Training: it learns, it resumes bit for bit, what must not move does not, and neither questions nor a full disk
//! change what it comes to.

mod agent_processes;
mod agents;
mod bitsandbytes;
mod conversations;
mod distillation;
mod full_disk;
mod guard;
mod demonstrations;
pub(crate) mod guided;
mod learning;
mod mixed;
mod mutations;
mod requests;
mod resume;
pub(crate) mod small_task;
mod stopped_evals;
mod tools;
mod verifiers;
