//! The folder of a run: created, opened, locked, written atomically, measured, cleaned up.

pub(super) mod cleanup;
pub(super) mod directory;
pub(super) mod disk;
pub(super) mod durable;
pub(super) mod folder;
pub(super) mod lock;

pub use directory::{FORMAT_VERSION, NewRun, RunDirectory, RunFile, host_name, sha256, sha256_file};
pub use disk::{DiskForecast, DiskUse, disk_forecast, disk_use};
pub use durable::{check_export, free_path, write_export};
pub use folder::{FileSystem, user_name};
pub use lock::RunLock;
