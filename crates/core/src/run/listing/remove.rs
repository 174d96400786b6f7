//! Removal of ended runs, or of their checkpoints, into the trash.

use std::path::{Path, PathBuf};

use super::lookup::{RunFolders, RunReference};
use crate::run::checkpoints::checkpoint_folder;
use crate::run::clock::now_ms;
use crate::run::error::RunError;
use crate::run::process::disk::disk_use;
use crate::run::slurm::check_no_job;
use crate::run::storage::directory::RunDirectory;
use crate::run::storage::durable::{delete_folder, remove_left};
use crate::run::storage::lock::RunLock;
use crate::run::storage::trash::{Trash, TrashItem};

/// A run that is locked until it is removed, so that no worker can start.
#[derive(Debug)]
pub struct Removal {
    directory: RunDirectory,
    lock: RunLock,
    /// Of a checkpoint that is removed alone.
    step: Option<u64>,
    pub bytes: u64,
    /// Runs whose base model is this run's result; they cannot be resumed without it.
    pub started_from_it: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedRun {
    pub id: String,
    /// Of a checkpoint.
    pub step: Option<u64>,
    pub bytes: u64,
    /// Its name in the trash; `None` if it was deleted for good.
    pub in_trash: Option<String>,
}

impl Removal {
    /// Locks a run for removal.
    ///
    /// # Errors
    /// [`RunError::InUse`] if a worker computes it or a Slurm job waits to, [`RunError::Linked`] if its folder is a link, [`RunError::Foreign`]
    /// and [`RunError::Loose`] if it is not private to this user.
    pub fn prepare(directory: RunDirectory, run_folders: &RunFolders) -> Result<Self, RunError> {
        let path = directory.path();
        if path
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_symlink())
        {
            let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            return Err(RunError::Linked {
                path: path.to_owned(),
                target,
            });
        }
        directory.check_private()?;
        check_no_job(path)?;
        let lock = RunLock::acquire(path)?;
        let bytes = disk_use(path).total_bytes;
        let started_from_it = started_from(&directory, run_folders);
        Ok(Self {
            directory,
            lock,
            step: None,
            bytes,
            started_from_it,
        })
    }

    pub fn id(&self) -> &str {
        self.directory.id()
    }

    /// Only the checkpoint of a step, which must exist.
    #[must_use]
    pub fn of_checkpoint(self, step: u64) -> Self {
        let path = self.directory.path().join(checkpoint_folder(step));
        Self {
            step: Some(step),
            bytes: disk_use(&path).total_bytes,
            started_from_it: Vec::new(),
            ..self
        }
    }

    pub fn step(&self) -> Option<u64> {
        self.step
    }

    /// Moves it to the trash of its folder of runs, and deletes what has been there for a week.
    pub fn carry_out(self) -> Result<RemovedRun, RunError> {
        let run = self.directory.path();
        // Of a relative path such as `.` the name is unknown.
        let run = &run.canonicalize().map_err(RunError::io("find", run))?;
        let trash = Trash::new(run.parent().unwrap_or(Path::new(".")));
        trash.expire();
        let folder = PathBuf::from(run.file_name().unwrap_or_default());
        let item = TrashItem {
            name: String::new(),
            run: folder.to_string_lossy().into_owned(),
            step: self.step,
            path: match self.step {
                Some(step) => folder.join(checkpoint_folder(step)),
                None => folder,
            },
            removed_ms: now_ms(),
            bytes: self.bytes,
        };
        let item = trash.put(item)?;
        drop(self.lock);
        Ok(RemovedRun {
            id: self.directory.id().to_owned(),
            step: self.step,
            bytes: self.bytes,
            in_trash: Some(item.name),
        })
    }

    /// Deletes it for good.
    pub fn delete(self) -> Result<RemovedRun, RunError> {
        let run = self.directory.path();
        let (path, name) = match self.step {
            Some(step) => (run.join(checkpoint_folder(step)), format!("step-{step:06}")),
            None => (run.to_owned(), self.directory.id().to_owned()),
        };
        delete_folder(&path, &name)?;
        drop(self.lock);
        path.parent().into_iter().for_each(remove_left);
        Ok(RemovedRun {
            id: self.directory.id().to_owned(),
            step: self.step,
            bytes: self.bytes,
            in_trash: None,
        })
    }
}

fn started_from(directory: &RunDirectory, run_folders: &RunFolders) -> Vec<String> {
    let runs = run_folders
        .list()
        .into_iter()
        .filter_map(|(_, run)| run.ok())
        .filter(|run| run.id() != directory.id());
    let names = |base: &str| {
        let run = RunReference::parse(base).run;
        run == directory.id() || directory.is_named(&run) || Path::new(&run) == directory.path()
    };
    runs.filter(|run| names(&run.file().config.base_model))
        .map(|run| run.id().to_owned())
        .collect()
}
