//! Ranks as processes of this machine, over loopback. They end with their connection, or are
//! killed.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::rendezvous::{gather, secret};
use super::{CONNECT_TIMEOUT, Peer, RankError};
use crate::score::given_threads;

#[derive(Debug, Default)]
pub(super) struct Processes(Vec<Child>);

/// Time for a rank to end by itself.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

impl Processes {
    /// Starts ranks 1 to `size - 1` and waits until all are connected.
    pub(super) fn start(
        &mut self,
        size: usize,
        arguments: impl Fn(usize) -> Vec<String>,
    ) -> Result<Vec<Peer>, RankError> {
        let here = |cause: io::Error| RankError::Start {
            rank: 0,
            cause: format!("a port of this machine: {cause}"),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(here)?;
        let address = listener.local_addr().map_err(here)?.to_string();
        // Other local processes can connect too.
        let secret = secret().map_err(here)?;
        for rank in 1..size {
            let child = spawn(rank, &address, &secret, &arguments(rank)).map_err(|cause| {
                RankError::Start {
                    rank,
                    cause: cause.to_string(),
                }
            })?;
            self.0.push(child);
        }
        let remedy = "; its messages stand above or in worker.log";
        gather(&listener, size, &secret, CONNECT_TIMEOUT, remedy, || {
            self.check()
        })
    }

    /// # Errors
    /// [`RankError::Start`] for a process that has ended.
    fn check(&mut self) -> Result<(), RankError> {
        for (rank, child) in (1..).zip(&mut self.0) {
            if let Ok(Some(status)) = child.try_wait() {
                let cause =
                    format!("it ended ({status}); its message stands above or in worker.log");
                return Err(RankError::Start { rank, cause });
            }
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let start = Instant::now();
        for child in &mut self.0 {
            while let Ok(None) = child.try_wait() {
                if start.elapsed() > EXIT_TIMEOUT {
                    // If it cannot be killed it is gone.
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn spawn(rank: usize, address: &str, secret: &str, arguments: &[String]) -> io::Result<Child> {
    // The running binary, even if its file was replaced.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("grpo-tui")
        .args(["rank", "--connect", address, "--number", &rank.to_string()])
        .args(arguments);
    // In this process group, to be suspended and continued together; ignores the signals that end a
    // run.
    command
        .envs(given_threads())
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // By a pipe: arguments and environments are readable by others.
        stdin.write_all(secret.as_bytes())?;
    }
    Ok(child)
}
