//! Who computes a run: an exclusive `flock`, held for the worker's whole life. The lock says whether a worker lives; a process id never does.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::directory::host_name;
use super::error::RunError;

/// How long a starting worker waits for viewers that are just looking whether the lock is free.
const PATIENCE: Duration = Duration::from_millis(300);

/// The right to write to a run directory. Released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct RunLock {
    run: PathBuf,
    file: File,
}

impl RunLock {
    /// Take the run's lock.
    ///
    /// # Errors
    /// [`RunError::InUse`] says which process holds it.
    pub fn acquire(run: &Path) -> Result<Self, RunError> {
        let path = run.join("lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(RunError::io("open", &path))?;
        if !file.metadata().is_ok_and(|found| found.is_file()) {
            return Err(RunError::io("open", &path)(std::io::Error::other("not a regular file")));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Err(TryLockError::WouldBlock) => return Err(RunError::InUse { path: run.to_owned(), holder: holder(&mut file) }),
                Err(TryLockError::Error(error)) => return Err(RunError::io("lock", &path)(error)),
            }
        }
        let started = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
        file.set_len(0)
            .and_then(|()| file.write_all(format!("process {} on {}, since {started}\n", std::process::id(), host_name()).as_bytes()))
            .map_err(RunError::io("write", &path))?;
        Ok(Self { run: run.to_owned(), file })
    }

    /// Whether some process holds the run's lock now. A run whose lock file is missing or unreadable is not held.
    pub fn is_held(run: &Path) -> bool {
        crate::files::open(&run.join("lock")).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The run directory.
    pub fn run(&self) -> &Path {
        &self.run
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Closing would do, but for a child that another thread forks just now: it holds the same lock until it becomes another program.
        let _ = self.file.unlock();
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}
