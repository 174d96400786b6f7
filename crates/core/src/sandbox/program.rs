//! A running program, and the launcher that starts all of them.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::init::{DESCRIPTORS, ROLE};
use super::level::Level;
use super::loopback;
use super::messages::{Ended, Launch, Reply, receive, send};

/// Time to start a program on a busy machine, and for killed processes to end.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running program with its children; dropping it kills them.
#[derive(Debug)]
pub(super) struct SandboxedProgram {
    /// Closing it ends the init.
    control: UnixStream,
    ended: Option<Ended>,
    /// The port in its own network, if requested.
    pub(super) listener: Option<TcpListener>,
}

impl SandboxedProgram {
    pub(super) fn start(launch: &Launch, stdio: &[OwnedFd; 3]) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the sandbox does not answer: {error}");
        let (control, theirs) = UnixStream::pair().map_err(failed)?;
        let [input, output, error] = stdio;
        let descriptors = [theirs.as_fd(), input.as_fd(), output.as_fd(), error.as_fd()];
        hand_over(launch.level, descriptors).map_err(failed)?;
        drop(theirs);
        let mut program = Self {
            control,
            ended: None,
            listener: None,
        };
        program
            .control
            .set_read_timeout(Some(REPLY_TIMEOUT))
            .map_err(failed)?;
        send(&program.control, launch).map_err(failed)?;
        match receive(&program.control).map_err(failed)? {
            Reply::Started if launch.has_port => {
                program.listener = Some(loopback::receive(&program.control).map_err(failed)?)
            }
            Reply::Started => {}
            Reply::Failed { why } => return Err(why),
            Reply::Ended(ended) => program.ended = Some(ended),
        }
        Ok(program)
    }

    pub(super) fn ended(&mut self, patience: Duration) -> Option<Ended> {
        if self.ended.is_none() && self.control.set_read_timeout(Some(patience)).is_ok() {
            match receive(&self.control) {
                Ok(Reply::Ended(ended)) => self.ended = Some(ended),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                _ => self.ended = Some(Ended::default()),
            }
        }
        self.ended
    }

    /// Kills the program with its children and waits for their end.
    pub(super) fn kill(&mut self) {
        _ = self.control.shutdown(Shutdown::Write);
        self.ended(REPLY_TIMEOUT);
        _ = self.control.set_read_timeout(Some(REPLY_TIMEOUT));
        // The connection ends after the last process.
        _ = receive::<Reply>(&self.control);
    }
}

impl Drop for SandboxedProgram {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The process that starts programs: small, whatever memory this one uses.
#[derive(Debug)]
struct Launcher {
    process: Child,
    socket: UnixStream,
}

/// Passes an init's connection and a program's standard streams to the launcher, started if
/// necessary.
fn hand_over(level: Level, descriptors: [BorrowedFd<'_>; DESCRIPTORS]) -> std::io::Result<()> {
    static LAUNCHER: Mutex<Option<Launcher>> = Mutex::new(None);
    let mut launcher = LAUNCHER.lock();
    if launcher
        .as_ref()
        .is_some_and(|running| running.pass(level, &descriptors).is_ok())
    {
        return Ok(());
    }
    let started = Launcher::start()?;
    started.pass(level, &descriptors)?;
    *launcher = Some(started);
    Ok(())
}

impl Launcher {
    fn start() -> std::io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        // The running binary, even if its file was replaced; in its own group, which the terminal
        // does not signal.
        let mut command = Command::new("/proc/self/exe");
        // Without the user's environment, which programs might read.
        command
            .arg0("grpo-tui")
            .arg(ROLE)
            .process_group(0)
            .env_clear();
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self {
            process: command.spawn()?,
            socket,
        })
    }

    fn pass(
        &self,
        level: Level,
        descriptors: &[BorrowedFd<'_>; DESCRIPTORS],
    ) -> std::io::Result<()> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut rights = SendAncillaryBuffer::new(&mut room);
        rights.push(SendAncillaryMessage::ScmRights(descriptors));
        sendmsg(
            &self.socket,
            &[std::io::IoSlice::new(&[level as u8])],
            &mut rights,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // It has ended, or will with its socket.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
