//! Errors of run directories.

use std::path::{Path, PathBuf};

use crate::format::short_id;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot {action} {}: {source}{}", .path.display(), remedy(.action, .source))]
    Io {
        /// Verb phrase.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is not a run directory: run.toml is missing; `grpo-tui runs list` lists the runs", .path.display())]
    NotARun { path: PathBuf },
    #[error("{} has format version {found}, newer than this program's {known}; open it with a newer grpo-tui", .path.display())]
    Newer {
        path: PathBuf,
        found: u64,
        known: u64,
    },
    #[error("{}{}: {message}", .path.display(), .line.map_or_else(String::new, |line| format!(" line {line}")))]
    Malformed {
        path: PathBuf,
        /// Line number, from 1.
        line: Option<usize>,
        message: String,
    },
    #[error("{} is a symlink: remove the run at {}", .path.display(), .target.display())]
    Linked { path: PathBuf, target: PathBuf },
    #[error(
        "step 0 of full training is the base model itself and has no weights of its own: use `{base}`, or name another checkpoint (RUN@STEP)"
    )]
    StartHasNoFiles { base: String },
    #[error("base model `{name}` cannot be read: {problem}")]
    Base { name: String, problem: String },
    #[error("{} exists: choose a new folder", .path.display())]
    Taken { path: PathBuf },
    #[error("{} has the result of an eval {why}: choose a new folder", .path.display())]
    Evaluated {
        path: PathBuf,
        /// Why the worker cannot continue.
        why: String,
    },
    #[error("{} exists: name another file, or add --force to replace it", .path.display())]
    Exists { path: PathBuf },
    #[error("the run {} is in use by {holder}: follow it with `grpo-tui runs attach`, or stop it first", .path.display())]
    InUse { path: PathBuf, holder: String },
    #[error(
        "{} belongs to user {owner}, and you are user {user}: you may read it but not run it, since a worker does what its files say; \
         copy it into your own runs (`cp -r`), or ask its owner", .path.display()
    )]
    Foreign {
        path: PathBuf,
        owner: u32,
        user: u32,
    },
    #[error(
        "{} is writable by other users (mode {mode:04o}): check it, then `chmod -R go-w` it", .path.display()
    )]
    Loose { path: PathBuf, mode: u32 },
    #[error(
        "{} has changed since the run was created, so that it would not continue what was trained: undo the change, or train a new run; \
         what may change in a run is set by `grpo-tui runs set`", .path.display()
    )]
    Edited { path: PathBuf },
    /// A worker whose folder is gone.
    #[error("the worker of {} stops: {why}", .path.display())]
    Lost { path: PathBuf, why: String },
    #[error(
        "the condition `{query}`, column {column}: expected {expected}; an example: valid>0.9 and task:invoice"
    )]
    Query {
        query: String,
        /// Column, from 1.
        column: usize,
        expected: &'static str,
    },
    #[error("no run `{name}` in {searched}{}", if .near.is_empty() { "; `grpo-tui runs list` lists the runs" } else { near })]
    NotFound {
        name: String,
        searched: String,
        /// ``; did you mean `x`?``, or empty.
        near: String,
    },
    #[error("`{name}` is ambiguous: {candidates}; write more of the id")]
    Ambiguous { name: String, candidates: String },
    #[error("the run {} has no checkpoint `{checkpoint}`; {available}", .path.display())]
    NoCheckpoint {
        path: PathBuf,
        /// The part after `@`.
        checkpoint: String,
        available: String,
    },
    /// A file or folder that cannot be trusted.
    #[error("{} {why}", .path.display())]
    Unsafe {
        path: PathBuf,
        /// Completes a sentence.
        why: String,
    },
    #[error("run {} {standing}", short_id(&.path.file_name().unwrap_or_default().to_string_lossy()))]
    NoWorker {
        path: PathBuf,
        /// Completes a sentence about how the run ended.
        standing: String,
    },
    #[error("{message}")]
    Refused { path: PathBuf, message: String },
    #[error("the worker of {} has not answered for {seconds} s: see its worker.log", .path.display())]
    NoAnswer { path: PathBuf, seconds: u64 },
    #[error(
        "{program} was not found: Slurm's commands are missing here; run this on a login node of the cluster, or compute here (without --slurm)"
    )]
    NoSlurm { program: &'static str },
    #[error("{program}: {message}; {}", slurm_remedy(program))]
    Slurm {
        program: &'static str,
        message: String,
    },
    /// A worker could not be started, or exited before it was ready.
    #[error("the worker of {} did not start: {message}", .path.display())]
    Launch { path: PathBuf, message: String },
}

impl RunError {
    /// Whether a write failed because of a full disk and can be retried. A failed sync cannot,
    /// since it is unknown what was written.
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io { action, source, .. } if *action != "sync" && is_full_disk(source))
    }

    /// A file whose contents cannot be read or written as a whole.
    pub(crate) fn malformed(path: &Path, message: impl std::fmt::Display) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            line: None,
            message: message.to_string(),
        }
    }

    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Whether the disk is full, or this user's quota used up.
pub fn is_full_disk(source: &std::io::Error) -> bool {
    matches!(
        source.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}

fn slurm_remedy(program: &str) -> &'static str {
    match program {
        "sbatch" => {
            "change the job's options, or set what the cluster asks for (SBATCH_ACCOUNT, SBATCH_QOS, ...)"
        }
        _ => {
            "check that `sinfo` answers here: the cluster's controller must be reachable from this machine"
        }
    }
}

fn remedy(action: &str, source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{
        FileTooLarge, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull,
    };
    match source.kind() {
        // No other reason is left: a lock that another process holds is no error.
        _ if action.starts_with("lock") => {
            "; its file system has no locks: use a folder on another one (--runs DIR; GRPO_TUI_SLOTS for device slots), or mount it with locks (NFS: without `nolock`; Lustre: `-o flock`)"
        }
        PermissionDenied | ReadOnlyFilesystem => {
            "; make it writable, or use another folder with --runs DIR"
        }
        StorageFull | QuotaExceeded => "; free some space, then try again",
        // A system error, as opposed to our size limits.
        FileTooLarge if source.raw_os_error().is_some() => {
            "; raise the limit on the size of files (`ulimit -f`), then try again"
        }
        // A system error; `files` has its own message.
        NotADirectory if source.raw_os_error().is_some() => {
            "; a file is in the way: remove it, or choose another folder with --runs DIR"
        }
        _ => "",
    }
}
