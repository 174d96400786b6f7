//! What a scorer's process may not do: use more memory than its limit, reach a network, start processes without end.

use std::ffi::CStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Resource, Rlimit, getgid, getuid, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Processes and threads of one scorer, where the kernel counts them by user namespace.
const MOST_PROCESSES: u64 = 256;
/// Of one file that it writes.
const LARGEST_FILE_BYTES: u64 = 256 << 20;

/// What this kernel holds a scorer's process to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Isolation {
    /// It has a network of its own, without any host in it.
    pub network: bool,
    /// It may have at most so many processes and threads.
    pub processes: Option<u64>,
}

/// Tries what holds here.
pub fn isolation() -> Isolation {
    let mut command = Command::new("true");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let maps = Maps::of_this_user();
    // SAFETY: as in `limit`.
    unsafe { command.pre_exec(move || maps.enter()) };
    let network = command.status().is_ok_and(|status| status.success());
    // The kernel does not count the processes of root.
    let is_root = getuid().is_root();
    Isolation { network, processes: (network && !is_root).then_some(MOST_PROCESSES) }
}

/// Limits the process before it becomes the program. `memory_mib`: of its address space; 0 for none.
pub(super) fn limit(command: &mut Command, memory_mib: u64) {
    let maps = Maps::of_this_user();
    let limit = |bytes: u64| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // SAFETY: between fork and exec only system calls are made, with memory that was prepared before.
    unsafe {
        command.pre_exec(move || {
            crate::files::close_on_exec_from(3);
            // Where the kernel allows no namespace the program runs without; `doctor` says so.
            let isolated = maps.enter().is_ok();
            if memory_mib > 0 {
                setrlimit(Resource::As, limit(memory_mib << 20))?;
            }
            setrlimit(Resource::Core, limit(0))?;
            setrlimit(Resource::Fsize, limit(LARGEST_FILE_BYTES))?;
            // Elsewhere the limit would count all processes of the user.
            if isolated {
                setrlimit(Resource::Nproc, limit(MOST_PROCESSES))?;
            }
            Ok(())
        });
    }
}

/// Texts that keep user and group what they are in a new user namespace.
struct Maps {
    user: String,
    group: String,
}

impl Maps {
    fn of_this_user() -> Self {
        let (user, group) = (getuid().as_raw(), getgid().as_raw());
        Self { user: format!("{user} {user} 1"), group: format!("{group} {group} 1") }
    }

    /// Moves this process into a user namespace and a network namespace of its own.
    fn enter(&self) -> std::io::Result<()> {
        // SAFETY: tables of open files stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)? };
        write(c"/proc/self/setgroups", b"deny")?;
        write(c"/proc/self/uid_map", self.user.as_bytes())?;
        write(c"/proc/self/gid_map", self.group.as_bytes())
    }
}

fn write(path: &CStr, bytes: &[u8]) -> std::io::Result<()> {
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, bytes)?;
    Ok(())
}
