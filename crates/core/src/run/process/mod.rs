//! The process that computes a run: started, its state, whether it lives, what ends it.

mod cleanup;
pub(super) mod damage;
pub(super) mod disk;
mod disk_guard;
pub(super) mod launch;
pub(super) mod liveness;
mod observed_state;
mod run_server;
mod server_folder;
mod stop_signals;
pub(super) mod worker;
pub(super) mod worker_state;

pub use crate::facts::Status;
pub use damage::damage_of;
pub use disk::{DiskForecast, DiskUse, disk_forecast, disk_use};
pub use disk_guard::{DiskGuard, WaitOutcome};
pub use launch::{DeviceChoice, Launch, LaunchedWorker, ReadyPipe, launch};
pub use liveness::{Liveness, signal_worker};
pub use run_server::RunServer;
pub use server_folder::ServerFolder;
pub use stop_signals::stop_signals;
pub use worker::Worker;
pub use worker_state::{State, StateWriter};
