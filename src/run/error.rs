//! What can go wrong with a run directory, and the sentence for the user.

use std::path::{Path, PathBuf};

/// A run directory could not be created, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", .path.display(), remedy(.source))]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is not a run directory: {missing} is missing; `grpo-tui runs list` shows the runs there are", .path.display())]
    NotARun {
        path: PathBuf,
        /// The file that should be there.
        missing: &'static str,
    },
    /// Written by a newer program.
    #[error("{} has format version {found}, newer than this program's {known}; open it with a newer grpo-tui", .path.display())]
    Newer {
        path: PathBuf,
        found: u64,
        /// The newest version known here.
        known: u64,
    },
    /// A file of the directory that cannot be understood.
    #[error("{}{}: {message}", .path.display(), .line.map_or_else(String::new, |line| format!(" line {line}")))]
    Malformed {
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
        message: String,
    },
    /// A run's folder that is a link.
    #[error("{} is a symlink: remove the run at {}", .path.display(), .target.display())]
    Linked { path: PathBuf, target: PathBuf },
    /// The base model of a run, whose configuration and tokenizer are wanted.
    #[error("base model `{name}` cannot be read: {problem}")]
    Base { name: String, problem: String },
    /// A folder that is to be created and cannot be.
    #[error("{} exists: choose a new folder", .path.display())]
    Taken { path: PathBuf },
    /// A file of the user's that an export would replace.
    #[error("{} exists: name another file, or add --force to replace it", .path.display())]
    Exists { path: PathBuf },
    /// Another worker computes this run.
    #[error("the run {} is in use by {holder}: follow it with `grpo-tui runs attach`, or stop it first", .path.display())]
    InUse {
        path: PathBuf,
        /// The process and host that hold it, in words.
        holder: String,
    },
    #[error(
        "{} belongs to user {owner}, and you are user {user}: you may read it but not run it, since a worker does what its files say; \
         copy it into your own runs (`cp -r`), or ask its owner", .path.display()
    )]
    Foreign { path: PathBuf, owner: u32, user: u32 },
    /// A run, or a file of one, that others may write to.
    #[error(
        "{} is writable by other users (mode {mode:04o}): check it, then `chmod -R go-w` it", .path.display()
    )]
    Loose {
        /// The run directory, or what lies in it.
        path: PathBuf,
        mode: u32,
    },
    /// A worker whose folder is not there any more.
    #[error("the worker of {} stops: {why}", .path.display())]
    Lost {
        /// Where the folder was.
        path: PathBuf,
        /// What has become of it.
        why: String,
    },
    /// A condition on runs that cannot be read.
    #[error("the condition `{query}`, column {column}: expected {expected}; an example: valid>0.9 and task:invoice")]
    Query {
        /// As the user wrote it.
        query: String,
        /// Where, from 1.
        column: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// No run fits what the user wrote.
    #[error("no run `{name}` in {searched}; `grpo-tui runs list` shows the runs there are")]
    NotFound { name: String, searched: String },
    /// Several runs fit what the user wrote.
    #[error("`{name}` is ambiguous: {candidates}; write more of the id")]
    Ambiguous { name: String, candidates: String },
    /// The run has no such checkpoint.
    #[error("the run {} has no checkpoint `{checkpoint}`; {available}", .path.display())]
    NoCheckpoint {
        path: PathBuf,
        /// The part after `@`.
        checkpoint: String,
        /// What there is, in words.
        available: String,
    },
    /// A file or folder that cannot be trusted as it stands.
    #[error("{} {why}", .path.display())]
    Unsafe {
        path: PathBuf,
        /// What is wrong with it, as the rest of a sentence.
        why: String,
    },
    /// Nobody computes the run, so nobody can be asked.
    #[error("no worker computes the run {}: {standing}", .path.display())]
    NoWorker {
        path: PathBuf,
        /// Where the run stands, in words.
        standing: String,
    },
    /// The worker will not do what it was asked.
    #[error("{message}")]
    Refused {
        path: PathBuf,
        /// The worker's own words.
        message: String,
    },
    /// The worker lives but says nothing.
    #[error("the worker of {} has not answered for {seconds} s: see its worker.log", .path.display())]
    NoAnswer {
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Neither a model nor a run.
    #[error("`{name}` is neither a model ({message}) nor a run; `grpo-tui runs list` shows the runs there are")]
    Model {
        name: String,
        /// Why it is no model.
        message: String,
    },
    /// A worker could not be started, or ended before it was ready.
    #[error("the worker of {} did not start: {message}", .path.display())]
    Launch {
        path: PathBuf,
        /// Why, in the worker's own words where it had any.
        message: String,
    },
}

impl RunError {
    /// Whether a write found its disk full, and can be tried again when there is space. What failed while it was forced
    /// to the disk cannot: nobody knows what of it arrived.
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io { action, source, .. } if *action != "sync" && is_full_disk(source))
    }

    /// Wrap an operating system error, saying what was tried on which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Whether the system said that a disk is full, for this user at least.
pub fn is_full_disk(source: &std::io::Error) -> bool {
    matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn remedy(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{
        AlreadyExists, FileTooLarge, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match source.kind() {
        PermissionDenied | ReadOnlyFilesystem => "; make it writable, or use another folder with --runs DIR",
        StorageFull | QuotaExceeded => "; free some space, then try again",
        // The system's own word, not that of our limits on reading.
        FileTooLarge if source.raw_os_error().is_some() => {
            "; raise the limit on the size of files (`ulimit -f`), then try again"
        }
        AlreadyExists | NotADirectory => "; a file is in the way: remove it, or choose another folder with --runs DIR",
        _ => "",
    }
}
