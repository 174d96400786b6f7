//! Processes between this one and a program. A launcher (this binary re-executed) forks an init per
//! program. The init starts the program, reports its end, and kills the remainder; with user
//! namespaces it is process 1 of a namespace, which nothing outlives.

use std::io::{Error, ErrorKind, Result};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getgid, getpgid, getpid, getrlimit,
    getuid, kill_process, kill_process_group, pidfd_open, pidfd_send_signal, set_child_subreaper,
    setrlimit, setsid, wait,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::found_program::FoundFile;
use super::level::Level;
use super::messages::{Ended, Launch, Limit, Reply, receive, send};
use super::root::OwnFiles;
use super::usage::{Limits, Processes, Usage};
use super::{landlock, loopback, priority, root, seccomp};

pub(super) const ROLE: &str = "--launch-programs";
/// An init's end of its connection, and standard input, output and error.
pub(super) const DESCRIPTORS: usize = 4;
/// Limit per process. Descriptors sent but not received count for the user: leaves room for others.
const MAX_DESCRIPTORS: u64 = 512;
const MAX_SIGNALS: u64 = 512;
/// Limit per file written by the program.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Wait after a kill before looking for further processes.
const KILL_LOOK: Duration = Duration::from_millis(1);

/// Runs the launcher, never returning, if this process was started as one. Call first in `main`.
pub fn launch_if_asked() {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == ROLE)
    {
        let outcome = serve();
        // SAFETY: ends this process, which has nothing to clean up.
        unsafe { libc::_exit(i32::from(outcome.is_err())) }
    }
}

/// Forks an init for each program requested on standard input.
fn serve() -> Result<()> {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    _ = std::fs::write("/proc/self/comm", "grpo-tui");
    let null = OwnedFd::from(crate::files::open_null()?);
    let ids = [
        ("uid_map", getuid().as_raw()),
        ("gid_map", getgid().as_raw()),
    ];
    let nice = priority::nice();
    priority::raise();
    // Compiled once for all forks.
    Level::ALL
        .into_iter()
        .for_each(|level| _ = seccomp::filters(level));
    while let Some((is_strong, [control, stdio @ ..])) = next_request(rustix::stdio::stdin())? {
        let control = UnixStream::from(control);
        match fork(is_strong) {
            Ok(None) => {
                // A dead launcher is recognised by its socket.
                let outcome = rustix::stdio::dup2_stdin(&null)
                    .map_err(Error::from)
                    .and_then(|()| if is_strong { keep_ids(&ids) } else { Ok(()) })
                    .map_err(|error| error.to_string());
                _ = Init { control, nice }.run(outcome, stdio);
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
            Ok(Some(_)) => {}
            Err(error) => {
                _ = send(
                    &control,
                    &Reply::Failed {
                        why: format!("no process: {error}"),
                    },
                )
            }
        }
        // Reap ended inits.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}

fn next_request(socket: BorrowedFd<'_>) -> Result<Option<(bool, [OwnedFd; DESCRIPTORS])>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut rights = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let received = recvmsg(
        socket,
        &mut [std::io::IoSliceMut::new(&mut byte)],
        &mut rights,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
    let descriptors = descriptors.try_into().map_err(|_| ErrorKind::InvalidData)?;
    Ok(Some((byte[0] == Level::Strong as u8, descriptors)))
}

fn fork(with_namespaces: bool) -> Result<Option<Pid>> {
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    let flags = libc::SIGCHLD | if with_namespaces { namespaces } else { 0 };
    // SAFETY: the launcher has one thread and no locks are held: the copy may do all that it may do.
    let id = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match i32::try_from(id) {
        Ok(id) if id >= 0 => Ok(Pid::from_raw(id)),
        _ => Err(Error::last_os_error()),
    }
}

/// Maps user and group to themselves in the new user namespace.
fn keep_ids(ids: &[(&str, u32)]) -> Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    ids.iter().try_for_each(|(map, id)| {
        std::fs::write(format!("/proc/self/{map}"), format!("{id} {id} 1"))
    })
}

struct Init {
    control: UnixStream,
    /// Nice value of the programs.
    nice: i32,
}

impl Init {
    /// Runs a program until it ends or the other end of `control` is closed.
    fn run(self, ready: std::result::Result<(), String>, stdio: [OwnedFd; 3]) -> Result<()> {
        let launch: Launch = receive(&self.control)?;
        let is_strong = launch.level == Level::Strong;
        let started = ready.and_then(|()| {
            let processes = Processes::of_this_process().map_err(|error| error.to_string())?;
            let started = start(&launch, stdio, self.nice).map_err(|error| error.to_string())?;
            Ok((started, processes))
        });
        let ((program, listener), processes) = match started {
            Ok(started) => started,
            Err(why) => return send(&self.control, &Reply::Failed { why }),
        };
        let processes = Arc::new(if is_strong {
            processes.in_namespace()
        } else {
            processes
        });
        let limits = Limits {
            memory_mib: launch.memory_mib,
            processes: launch.max_processes,
            has_namespace: is_strong,
        };
        let handle = pidfd_open(program, PidfdFlags::empty())?;
        let control = self.control.try_clone()?;
        let exceeded = Arc::new(OnceLock::new());
        std::thread::spawn({
            let (found, processes) = (exceeded.clone(), processes.clone());
            move || {
                let usage = Usage::new(&processes, limits);
                if let Some(limit) = watch(&control, usage) {
                    _ = found.set(limit);
                }
                kill_everything(&processes, is_strong, program);
                _ = pidfd_send_signal(&handle, Signal::KILL);
            }
        });
        // If nobody listens any more, wait anyway: the program is killed.
        _ = send(&self.control, &Reply::Started);
        if let Some(listener) = listener {
            _ = loopback::send(&self.control, &listener);
        }
        let ended = loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((id, status))) if id == program => {
                    let (code, signal) = (status.exit_status(), status.terminating_signal());
                    break Ended {
                        code,
                        signal,
                        exceeded: exceeded.get().copied(),
                    };
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break Ended::default(),
            }
        };
        _ = send(&self.control, &Reply::Ended(ended));
        kill_all(&processes, is_strong, program);
        Ok(())
    }
}

/// Returns when the program must be killed: for a limit, or because the connection was closed, by
/// request or with its process.
fn watch(control: &UnixStream, mut usage: Usage<'_>) -> Option<Limit> {
    loop {
        let wait = usage.wait();
        let wait = Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: wait.subsec_nanos().into(),
        };
        // No further messages.
        match poll(&mut [PollFd::new(control, PollFlags::IN)], Some(&wait)) {
            Ok(0) => {}
            Err(rustix::io::Errno::INTR) => continue,
            _ => return None,
        }
        let exceeded = usage.exceeded();
        if exceeded.is_some() {
            return exceeded;
        }
    }
}

/// Kills the program's remaining processes until none is left.
fn kill_all(processes: &Processes, is_strong: bool, program: Pid) {
    loop {
        kill_everything(processes, is_strong, program);
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        std::thread::sleep(KILL_LOOK);
    }
}

fn kill_everything(processes: &Processes, is_strong: bool, program: Pid) {
    if is_strong && getpid() == Pid::INIT {
        // SAFETY: as process 1 of a namespace this one reaches all others in it, and no other.
        unsafe { libc::kill(-1, libc::SIGKILL) };
        return;
    }
    // At once, before others are found, while it is known to be the program's group.
    let kill_group = |member| {
        if getpgid(Some(member)) == Ok(program) {
            _ = kill_process_group(program, Signal::KILL);
        }
    };
    kill_group(program);
    for process in processes.all(usize::MAX) {
        if let Some(process) = Pid::from_raw(process.cast_signed()) {
            kill_group(process);
            _ = kill_process(process, Signal::KILL);
        }
    }
}

/// Starts the program at its level, with its port if requested; a trial ends without starting one.
fn start(
    launch: &Launch,
    [input, output, error]: [OwnedFd; 3],
    nice: i32,
) -> Result<(Pid, Option<TcpListener>)> {
    let (level, is_trial) = (launch.level, launch.program.as_os_str().is_empty());
    let folder = match level {
        Level::Strong => {
            let files = (!is_trial).then(|| OwnFiles {
                folder: &launch.folder,
                writable: launch.writable.as_deref(),
            });
            root::enter(&launch.visible, files, launch.max_processes)?;
            Path::new(root::WORK)
        }
        Level::Limited | Level::None => {
            // Adopt orphaned processes.
            set_child_subreaper(Some(getpid()))?;
            &launch.folder
        }
    };
    let started = launch.files.first().filter(|file| {
        // A script's name is the path that starts it. In a new root, a link's target is at the
        // link's place.
        !file.is_script && level != Level::Strong && file.path == launch.program
    });
    // Compare what runs.
    let is_changed = |file: &&FoundFile| {
        let is_started = started.is_some_and(|started| started.path == file.path);
        !file.is_unchanged(if is_started { &file.real } else { &file.path })
    };
    if let Some(changed) = launch.files.iter().find(is_changed) {
        let path = changed.path.display();
        return Err(Error::other(format!(
            "{path} has changed since it was found to be trusted"
        )));
    }
    let program = match (started, launch.program.strip_prefix(&launch.folder)) {
        (Some(file), _) => file.real.clone(),
        (None, Ok(name)) => folder.join(name),
        (None, Err(_)) => launch.program.clone(),
    };
    let mut command = Command::new(if is_trial {
        Path::new("trial")
    } else {
        &program
    });
    match &launch.name {
        Some(name) => command.arg0(name),
        None if started.is_some() => command.arg0(&launch.program),
        None => &mut command,
    };
    command
        .args(&launch.arguments)
        .current_dir(folder)
        .env_clear()
        .envs(&launch.environment);
    command.stdin(input).stdout(output).stderr(error);
    let home = launch.environment.get("HOME").map(Into::into);
    let writable: Vec<_> = home
        .into_iter()
        .chain([folder.to_owned()])
        .filter(|_| !is_trial)
        .collect();
    let visible = launch.visible.clone();
    let (memory_mib, max_processes) = (launch.memory_mib, launch.max_processes);
    // SAFETY: this process has one thread.
    unsafe {
        command.pre_exec(move || {
            priority::restore(nice);
            // A group of its own, for signals and, where the kernel groups by session, for CPU
            // time.
            setsid()?;
            crate::files::close_on_exec_from(3);
            set_limits(level, memory_mib, max_processes)?;
            if level == Level::Limited {
                landlock::restrict(&visible, &writable)?;
            }
            if level != Level::None {
                drop_rights(level)?;
            }
            if is_trial {
                libc::_exit(0);
            }
            Ok(())
        });
    }
    let listener = if launch.has_port {
        Some(loopback::listen()?)
    } else {
        None
    };
    let child = command.spawn()?;
    let id = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(ErrorKind::InvalidData)?;
    Ok((id, listener))
}

fn set_limits(level: Level, memory_mib: u64, max_processes: u64) -> Result<()> {
    let limit = |bytes: u64| Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    if memory_mib > 0 {
        // Private writable memory. Not the address space: WebAssembly reserves gigabytes of it, unused.
        setrlimit(Resource::Data, limit(memory_mib << 20))?;
    }
    setrlimit(Resource::Core, limit(0))?;
    setrlimit(Resource::Fsize, limit(MAX_FILE_BYTES))?;
    // Elsewhere the limit would count all processes of the user.
    if level == Level::Strong {
        setrlimit(
            Resource::Nproc,
            limit(max_processes + root::SPARE_PROCESSES),
        )?;
    }
    if level != Level::None {
        let most = getrlimit(Resource::Nofile).maximum;
        let most = most.map_or(MAX_DESCRIPTORS, |most| most.min(MAX_DESCRIPTORS));
        setrlimit(Resource::Nofile, limit(most))?;
        // Counted for all processes of the user: queued signals and timers, which could use up its runs' share.
        let most = getrlimit(Resource::Sigpending).maximum;
        let most = most.map_or(MAX_SIGNALS, |most| most.min(MAX_SIGNALS));
        setrlimit(Resource::Sigpending, limit(most))?;
    }
    Ok(())
}

/// Drops all capabilities, setuid gains, and system calls. Root without them is only the owner of
/// its files.
fn drop_rights(level: Level) -> Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    set_no_new_privs(true)?;
    let filters = seccomp::filters(level);
    if filters.is_empty() {
        return Err(ErrorKind::Unsupported.into());
    }
    filters
        .iter()
        .try_for_each(|filter| seccompiler::apply_filter(filter).map_err(Error::other))
}
