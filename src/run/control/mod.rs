//! Control of a live run: requests arrive by socket or file, wait in a queue, and the loop takes them between its steps.

mod answer;
mod client;
mod controls;
mod desk;
mod drop_box;
mod place;
mod replay;
mod server;
mod socket;
mod spool;
mod verb;

pub use answer::Answer;
pub use client::{Answered, ask};
pub use controls::{Accepted, RequestQueue, Stop};
pub use place::socket_folders;
pub(in crate::run) use place::{private_folder, user_id};
pub use replay::{Settings, settings};
pub use server::ControlServer;
pub use socket::remove_dead_sockets;
pub(in crate::run) use spool::record_left_over;
pub use verb::{SETTABLE, Sample, Verb};

/// The longest request, in bytes, its newline included.
pub const LONGEST_REQUEST: usize = 64 * 1024;

/// The version of requests and answers.
const PROTOCOL_VERSION: u64 = 1;
