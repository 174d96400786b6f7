//! Control of an active run: requests arrive as files, wait in a queue, and the training loop takes them between steps.

mod accepted_files;
mod client;
mod handler;
mod listener;
mod protocol;
mod queue;
mod request_folder;
mod verb;

pub(in crate::run) use accepted_files::record_left_over;
pub use client::{RequestOutcome, ask, stop_worker};
pub(in crate::run) use listener::RequestListener;
pub use protocol::Answer;
pub use queue::{AcceptedRequest, RequestQueue, Stop};
pub use verb::{SETTABLE, Sample, SampledCompletion, Settings, Verb, settings};
