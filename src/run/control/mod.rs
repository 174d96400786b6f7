//! Control of a live run: requests arrive by socket or file, wait in a queue, and the loop takes them between its steps.

mod accepted_files;
mod answer;
mod client;
mod file_queue;
mod handler;
mod queue;
mod server;
mod settings;
mod socket;
mod socket_path;
mod verb;

pub(in crate::run) use accepted_files::record_left_over;
pub use answer::Answer;
pub use client::{RequestOutcome, ask};
pub use queue::{AcceptedRequest, RequestQueue, Stop};
pub use server::ControlServer;
pub use settings::{Settings, settings};
pub use socket::remove_dead_sockets;
pub use socket_path::socket_folders;
pub(in crate::run) use socket_path::{private_folder, user_id};
pub use verb::{SETTABLE, Sample, Verb};

/// The longest request, in bytes, its newline included.
pub const LONGEST_REQUEST: usize = 64 * 1024;

/// The version of requests and answers.
const PROTOCOL_VERSION: u64 = 1;
