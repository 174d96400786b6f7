//! The processes between this one and a program. One launcher, which this program starts as itself, forks an init for
//! each program. The init starts the program, reports how it ends, and kills all that is left; where the kernel gives
//! user namespaces it is process 1 of a namespace, which nothing in it outlives.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsString};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getgid, getpid, getuid, kill_process, pidfd_open,
    pidfd_send_signal, set_child_subreaper, setrlimit, wait, waitpid,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The argument that makes this program a launcher.
pub(super) const ROLE: &str = "--launch-programs";
/// An init's end of its connection, and standard input, output and error.
pub(super) const DESCRIPTORS: usize = 4;
/// Processes and threads of one program, where the kernel counts them by user namespace.
pub(super) const MAX_PROCESSES: u64 = 256;
/// Bytes of one file that the program writes.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Bytes of a message between a process and an init.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The program that an init runs, with its limits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::score::command) struct Launch {
    pub(in crate::score::command) program: OsString,
    pub(in crate::score::command) arguments: Vec<String>,
    pub(in crate::score::command) folder: OsString,
    /// All of its environment.
    pub(in crate::score::command) environment: BTreeMap<String, OsString>,
    /// Address space; 0 for no limit.
    pub(in crate::score::command) memory_mib: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(in crate::score::command) struct Ended {
    pub(in crate::score::command) code: Option<i32>,
    pub(in crate::score::command) signal: Option<i32>,
}

/// A message from an init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Started { has_namespaces: bool },
    Failed { why: String },
    Ended(Ended),
}

/// Makes this process a launcher if it was started as one, and then never returns. To be called before anything else.
pub fn launch_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ROLE) {
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
    let namespaces = Namespaces::tried();
    while let Some([control, stdio @ ..]) = next_descriptors(rustix::stdio::stdin())? {
        let control = UnixStream::from(control);
        match fork(namespaces.is_some()) {
            Ok(None) => {
                // A launcher that has ended can be told by its socket.
                let outcome = rustix::stdio::dup2_stdin(&null)
                    .map_err(Error::from)
                    .and_then(|()| Init { control, namespaces: namespaces.as_ref() }.run(stdio));
                // SAFETY: as above.
                unsafe { libc::_exit(i32::from(outcome.is_err())) }
            }
            Ok(Some(_)) => {}
            Err(error) => _ = send(&control, &Reply::Failed { why: format!("no process: {error}") }),
        }
        // Inits that have ended.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}

/// `None` at the end.
fn next_descriptors(socket: BorrowedFd<'_>) -> Result<Option<[OwnedFd; DESCRIPTORS]>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut rights = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let received = recvmsg(socket, &mut [std::io::IoSliceMut::new(&mut byte)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
    descriptors.try_into().map(Some).map_err(|_| ErrorKind::InvalidData.into())
}

/// The id of the new process; `None` in it.
fn fork(with_namespaces: bool) -> Result<Option<Pid>> {
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWNS;
    let flags = libc::SIGCHLD | if with_namespaces { namespaces } else { 0 };
    // SAFETY: the launcher has one thread and no locks are held: the copy may do all that it may do.
    let id = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match i32::try_from(id) {
        Ok(id) if id >= 0 => Ok(Pid::from_raw(id)),
        _ => Err(Error::last_os_error()),
    }
}

/// Mappings that keep user and group the same in a new user namespace.
struct Namespaces {
    user: String,
    group: String,
}

impl Namespaces {
    /// `None` where the kernel gives none, or only some without rights.
    fn tried() -> Option<Self> {
        let (user, group) = (getuid().as_raw(), getgid().as_raw());
        let namespaces = Self { user: format!("{user} {user} 1"), group: format!("{group} {group} 1") };
        match fork(true) {
            // SAFETY: as in `serve`.
            Ok(None) => unsafe { libc::_exit(i32::from(namespaces.settle().is_err())) },
            Ok(Some(id)) => {
                let (_, status) = waitpid(Some(id), WaitOptions::empty()).ok()??;
                (status.exit_status() == Some(0)).then_some(namespaces)
            }
            Err(_) => None,
        }
    }

    /// Takes the rights over the new namespaces.
    fn settle(&self) -> Result<()> {
        write(c"/proc/self/setgroups", b"deny")?;
        write(c"/proc/self/uid_map", self.user.as_bytes())?;
        write(c"/proc/self/gid_map", self.group.as_bytes())?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        // Shows the ids that processes know themselves by. A container may forbid it.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        _ = mount("proc", "/proc", "proc", flags, None);
        Ok(())
    }
}

fn write(path: &CStr, bytes: &[u8]) -> Result<()> {
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, bytes)?;
    Ok(())
}

struct Init<'a> {
    control: UnixStream,
    namespaces: Option<&'a Namespaces>,
}

impl Init<'_> {
    /// Runs a program to its end, or until the other end of `control` is closed.
    fn run(self, stdio: [OwnedFd; 3]) -> Result<()> {
        match self.namespaces {
            Some(namespaces) => namespaces.settle()?,
            // Processes whose parent has ended become children of this one.
            None => set_child_subreaper(Some(getpid()))?,
        }
        let launch: Launch = receive(&self.control)?;
        let program = match start(&launch, stdio, self.namespaces.is_some()) {
            Ok(program) => program,
            Err(error) => return send(&self.control, &Reply::Failed { why: error.to_string() }),
        };
        let (reader, handle) = (self.control.try_clone()?, pidfd_open(program, PidfdFlags::empty())?);
        std::thread::spawn(move || {
            // Nothing more is sent: the connection ends with the process that wants the program, or by its will.
            _ = (&reader).read(&mut [0]);
            _ = pidfd_send_signal(&handle, Signal::KILL);
        });
        // Where nobody listens any more the program is waited for all the same: it is killed.
        _ = send(&self.control, &Reply::Started { has_namespaces: self.namespaces.is_some() });
        let ended = loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((id, status))) if id == program => {
                    break Ended { code: status.exit_status(), signal: status.terminating_signal() };
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break Ended::default(),
            }
        };
        _ = send(&self.control, &Reply::Ended(ended));
        self.kill_all();
        Ok(())
    }

    /// Ends what the program has left, and returns when nothing is.
    fn kill_all(&self) {
        loop {
            if self.namespaces.is_some() && getpid() == Pid::INIT {
                // SAFETY: as process 1 of a namespace this one reaches all others in it, and no other.
                unsafe { libc::kill(-1, libc::SIGKILL) };
            } else {
                children().for_each(|child| _ = kill_process(child, Signal::KILL));
            }
            if !matches!(wait(WaitOptions::empty()), Ok(_) | Err(rustix::io::Errno::INTR)) {
                return;
            }
        }
    }
}

fn start(launch: &Launch, [input, output, error]: [OwnedFd; 3], is_counted: bool) -> Result<Pid> {
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).current_dir(&launch.folder).env_clear().envs(&launch.environment).process_group(0);
    command.stdin(input).stdout(output).stderr(error);
    let memory_mib = launch.memory_mib;
    let limit = |bytes: u64| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // SAFETY: this process has one thread; only system calls are made.
    unsafe {
        command.pre_exec(move || {
            crate::files::close_on_exec_from(3);
            if memory_mib > 0 {
                setrlimit(Resource::As, limit(memory_mib << 20))?;
            }
            setrlimit(Resource::Core, limit(0))?;
            setrlimit(Resource::Fsize, limit(MAX_FILE_BYTES))?;
            // Elsewhere the limit would count all processes of the user.
            if is_counted {
                setrlimit(Resource::Nproc, limit(MAX_PROCESSES))?;
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Processes whose parent is this one.
fn children() -> impl Iterator<Item = Pid> {
    let parent = getpid().as_raw_pid().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    let is_child = move |stat: &str| {
        // `17 (a name) S 4 ...`: its parent is 4.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1) == Some(parent.as_str())
    };
    processes.filter_map(move |(id, path)| {
        let stat = crate::files::read_at_most(&path.join("stat"), 4_096).ok()?;
        is_child(&String::from_utf8_lossy(&stat)).then(|| Pid::from_raw(id)).flatten()
    })
}

/// Sends a message with its length before it.
pub(super) fn send(mut stream: &UnixStream, message: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_le_bytes(), text.as_slice()].concat())
}

pub(super) fn receive<M: DeserializeOwned>(mut stream: &UnixStream) -> Result<M> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
