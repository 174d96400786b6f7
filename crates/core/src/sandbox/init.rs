//! The processes between this one and a program. One launcher, which this program starts as itself, forks an init for
//! each program. The init starts the program, reports how it ends, and kills all that is left; where the kernel gives
//! user namespaces it is process 1 of a namespace, which nothing in it outlives.

use std::io::{Error, ErrorKind, Result};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getgid, getpid, getuid, kill_process,
    pidfd_open, pidfd_send_signal, set_child_subreaper, setrlimit, wait,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::level::Level;
use super::messages::{Ended, Launch, Limit, Reply, receive, send};
use super::{landlock, loopback, root, seccomp, usage};

/// The argument that makes this program a launcher.
pub(super) const ROLE: &str = "--launch-programs";
/// An init's end of its connection, and standard input, output and error.
pub(super) const DESCRIPTORS: usize = 4;
/// Processes and threads of one program, where the kernel counts them by user namespace.
const MAX_PROCESSES: u64 = 256;
/// Bytes of one file that the program writes.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// How often it is looked at what a program uses.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Makes this process a launcher if it was started as one, and then never returns. To be called before anything else.
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

/// Forks an init for each program that is asked for on standard input, until that ends.
fn serve() -> Result<()> {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    _ = std::fs::write("/proc/self/comm", "grpo-tui");
    let null = OwnedFd::from(crate::files::open_null()?);
    let ids = [
        ("uid_map", getuid().as_raw()),
        ("gid_map", getgid().as_raw()),
    ];
    // Compiled here once, for all that are forked.
    Level::ALL
        .into_iter()
        .for_each(|level| _ = seccomp::filters(level));
    while let Some((is_strong, [control, stdio @ ..])) = next_request(rustix::stdio::stdin())? {
        let control = UnixStream::from(control);
        match fork(is_strong) {
            Ok(None) => {
                // A launcher that has ended can be told by its socket.
                let outcome = rustix::stdio::dup2_stdin(&null)
                    .map_err(Error::from)
                    .and_then(|()| if is_strong { keep_ids(&ids) } else { Ok(()) })
                    .map_err(|error| error.to_string());
                _ = Init { control }.run(outcome, stdio);
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
        // Inits that have ended.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}

/// Whether the next program gets namespaces, and its descriptors; `None` at the end.
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

/// The id of the new process; `None` in it.
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

/// Keeps user and group the same in this new user namespace, whose rights it takes.
fn keep_ids(ids: &[(&str, u32)]) -> Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    ids.iter().try_for_each(|(map, id)| {
        std::fs::write(format!("/proc/self/{map}"), format!("{id} {id} 1"))
    })
}

struct Init {
    control: UnixStream,
}

impl Init {
    /// Runs a program to its end, or until the other end of `control` is closed.
    fn run(self, ready: std::result::Result<(), String>, stdio: [OwnedFd; 3]) -> Result<()> {
        let launch: Launch = receive(&self.control)?;
        let (program, listener) =
            match ready.and_then(|()| start(&launch, stdio).map_err(|error| error.to_string())) {
                Ok(started) => started,
                Err(why) => return send(&self.control, &Reply::Failed { why }),
            };
        let handle = pidfd_open(program, PidfdFlags::empty())?;
        let (control, is_strong) = (self.control.try_clone()?, launch.level == Level::Strong);
        let exceeded = Arc::new(OnceLock::new());
        let found = exceeded.clone();
        std::thread::spawn(move || {
            if let Some(limit) = watch(&control, is_strong, launch.memory_mib) {
                _ = found.set(limit);
            }
            _ = pidfd_send_signal(&handle, Signal::KILL);
        });
        // Where nobody listens any more the program is waited for all the same: it is killed.
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
        kill_all(is_strong);
        Ok(())
    }
}

/// Returns when the program is to be killed: for a limit, or because the connection ends with the process that wants
/// the program, or by its will.
fn watch(control: &UnixStream, is_strong: bool, memory_mib: u64) -> Option<Limit> {
    loop {
        // Nothing more is sent.
        match poll(
            &mut [PollFd::new(control, PollFlags::IN)],
            is_strong.then_some(&LOOK),
        ) {
            Ok(0) => {}
            Err(rustix::io::Errno::INTR) => continue,
            _ => return None,
        }
        let exceeded = usage::exceeded(memory_mib);
        if exceeded.is_some() {
            return exceeded;
        }
    }
}

/// Ends what the program has left, and returns when nothing is.
fn kill_all(is_strong: bool) {
    loop {
        if is_strong && getpid() == Pid::INIT {
            // SAFETY: as process 1 of a namespace this one reaches all others in it, and no other.
            unsafe { libc::kill(-1, libc::SIGKILL) };
        } else {
            children().for_each(|child| _ = kill_process(child, Signal::KILL));
        }
        if !matches!(
            wait(WaitOptions::empty()),
            Ok(_) | Err(rustix::io::Errno::INTR)
        ) {
            return;
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// Starts the program as its level says, with the port that it asks for; that of a trial ends before it is one.
fn start(
    launch: &Launch,
    [input, output, error]: [OwnedFd; 3],
) -> Result<(Pid, Option<TcpListener>)> {
    let (level, is_trial) = (launch.level, launch.program.as_os_str().is_empty());
    let folder = match level {
        Level::Strong => {
            root::enter(&launch.visible, (!is_trial).then_some(&launch.folder))?;
            Path::new(root::WORK)
        }
        Level::Limited | Level::None => {
            // Processes whose parent has ended become children of this one.
            set_child_subreaper(Some(getpid()))?;
            &launch.folder
        }
    };
    let program = launch
        .program
        .strip_prefix(&launch.folder)
        .map_or(launch.program.clone(), |name| folder.join(name));
    let mut command = Command::new(if is_trial {
        Path::new("trial")
    } else {
        &program
    });
    command
        .args(&launch.arguments)
        .current_dir(folder)
        .env_clear()
        .envs(&launch.environment)
        .process_group(0);
    command.stdin(input).stdout(output).stderr(error);
    let home = launch.environment.get("HOME").map(Into::into);
    let writable: Vec<_> = home
        .into_iter()
        .chain([folder.to_owned()])
        .filter(|_| !is_trial)
        .collect();
    let (visible, memory_mib) = (launch.visible.clone(), launch.memory_mib);
    // SAFETY: this process has one thread.
    unsafe {
        command.pre_exec(move || {
            crate::files::close_on_exec_from(3);
            set_limits(level, memory_mib)?;
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

fn set_limits(level: Level, memory_mib: u64) -> Result<()> {
    let limit = |bytes: u64| Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    if memory_mib > 0 {
        setrlimit(Resource::As, limit(memory_mib << 20))?;
    }
    setrlimit(Resource::Core, limit(0))?;
    setrlimit(Resource::Fsize, limit(MAX_FILE_BYTES))?;
    // Elsewhere the limit would count all processes of the user.
    if level == Level::Strong {
        setrlimit(Resource::Nproc, limit(MAX_PROCESSES))?;
    }
    Ok(())
}

/// Gives up all capabilities, that programs may give new ones, and system calls. Root without them is the owner of its
/// files and no more.
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

/// Processes whose parent is this one.
fn children() -> impl Iterator<Item = Pid> {
    let parent = getpid().as_raw_pid().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    let is_child = move |stat: &str| {
        // `17 (a name) S 4 ...`: its parent is 4.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1) == Some(parent.as_str())
    };
    processes.filter_map(move |(id, path)| {
        let stat = crate::files::read_at_most(&path.join("stat"), 4_096).ok()?;
        is_child(&String::from_utf8_lossy(&stat))
            .then(|| Pid::from_raw(id))
            .flatten()
    })
}
