//! The folder of a run: created, opened, locked, written atomically, named.

pub(super) mod directory;
pub(super) mod display_name;
pub(super) mod durable;
pub(super) mod folder;
pub(super) mod lock;
pub(super) mod pulled;
pub(super) mod trash;

pub use directory::{
    FORMAT_VERSION, MixedTask, NewRun, RunDirectory, RunFile, host_name, sha256, sha256_file, slug,
    task_folder,
};
pub use display_name::{check_name, name_path, read_display_name, rename_run};
pub use durable::{check_export, free_path, write_export};
pub(crate) use durable::{ensure_runs_folder, entries};
pub use folder::{FileSystem, user_name};
pub use lock::RunLock;
pub use trash::{TRASH_TIME, Trash, TrashItem};
