//! Combined resource usage of a program's processes, which the kernel only counts individually.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, readlinkat, statat, statfs};
use rustix::io::read;

use super::messages::Limit;

/// Interval of counting processes.
const LOOK: Duration = Duration::from_millis(20);
/// Interval of counting memory, far below the limit and close to it.
const MEMORY_LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(1)];
/// KiB that a core can fill per millisecond.
const FILLED_KIB: u64 = 8 << 10;
/// More cores do not fill memory faster.
const MAX_CORES: usize = 16;
/// Read size for /proc, which returns a page at a time.
const PIECE_BYTES: usize = 4_096;
/// Maximum buffers of a socket, as limited by `root` and `seccomp`.
const SOCKET_KIB: u64 = 320;
/// Sockets whose buffers are not counted.
const FREE_SOCKETS: u64 = 128;
/// Maximum buffers of a descriptor once a user's pipes exceed 64 MiB; as many descriptors are not
/// counted.
const DESCRIPTOR_KIB: u64 = 8;
const FREE_DESCRIPTORS: u64 = 4_096;

/// Where a program's processes are found.
#[derive(Debug)]
pub(super) struct Processes {
    proc: OwnedFd,
    /// This process's id in it; `None` if it only shows the program's processes, with this one
    /// as 1.
    own: Option<u32>,
}

impl Processes {
    pub(super) fn of_this_process() -> rustix::io::Result<Self> {
        let proc = open_proc()?;
        let own = readlinkat(&proc, "self", Vec::new())?;
        let own = own.to_str().ok().and_then(|text| text.parse().ok());
        Ok(Self { proc, own })
    }

    /// The same after entering a namespace's root, by its own /proc if it has one.
    pub(super) fn in_namespace(self) -> Self {
        match open_proc() {
            Ok(proc) if statat(&proc, "1/stat", AtFlags::empty()).is_ok() => {
                Self { proc, own: None }
            }
            _ => self,
        }
    }

    /// Descendants of this process; incomplete above `most`.
    pub(super) fn all(&self, most: usize) -> Vec<u32> {
        let Some(own) = self.own else {
            let mut all = self.numbers(".");
            all.retain(|process| *process != 1);
            return all;
        };
        if self.text(&format!("{own}/task/{own}/children")).is_none() {
            return self.all_by_parents(own);
        }
        let (mut found, mut open) = (BTreeSet::new(), vec![own]);
        while let Some(process) = open.pop().filter(|_| found.len() <= most) {
            for thread in self.threads(process) {
                let children = self.text(&format!("{process}/task/{thread}/children"));
                let children = children.iter().flat_map(|text| text.split_whitespace());
                open.extend(
                    children
                        .filter_map(|child| child.parse().ok())
                        .filter(|child| found.insert(*child)),
                );
            }
        }
        found.into_iter().collect()
    }

    /// [`Self::all`] on kernels that do not list children.
    fn all_by_parents(&self, own: u32) -> Vec<u32> {
        let parent = |process: &u32| {
            let text = self.text(&format!("{process}/stat"))?;
            // `17 (a name) S 4 ...`: its parent is 4.
            let (_, fields) = text.rsplit_once(')')?;
            fields.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let parents: Vec<(u32, u32)> = self
            .numbers(".")
            .into_iter()
            .filter_map(|process| Some((process, parent(&process)?)))
            .collect();
        let (mut found, mut count) = (BTreeSet::from([own]), 0);
        while found.len() > count {
            count = found.len();
            let children = parents.iter().filter(|(_, parent)| found.contains(parent));
            let children: Vec<u32> = children.map(|(process, _)| *process).collect();
            found.extend(children);
        }
        found.remove(&own);
        found.into_iter().collect()
    }

    fn threads(&self, process: u32) -> Vec<u32> {
        if self.thread_count(process) == 1 {
            return vec![process];
        }
        self.numbers(&format!("{process}/task"))
    }

    fn thread_count(&self, process: u32) -> u64 {
        let found = statat(&self.proc, format!("{process}/task"), AtFlags::empty());
        // A folder has two links plus one per subfolder.
        #[allow(clippy::unnecessary_cast, reason = "32 bits wide on aarch64")]
        found.map_or(1, |found| (found.st_nlink as u64).saturating_sub(2))
    }

    fn numbers(&self, folder: &str) -> Vec<u32> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&self.proc, folder, flags, Mode::empty()).and_then(Dir::new);
        let entries = folder.into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
            .collect()
    }

    fn text(&self, file: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.proc, file, flags, Mode::empty()).ok()?;
        let (mut text, mut bytes) = (Vec::new(), [0; PIECE_BYTES]);
        loop {
            match read(&file, &mut bytes).ok()? {
                0 => return Some(String::from_utf8_lossy(&text).into_owned()),
                count => text.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// The last assigned process number: while it is unchanged, no process or thread was started.
    fn last_number(&self) -> Option<String> {
        let text = self.text("loadavg")?;
        Some(text.split_whitespace().last()?.to_owned())
    }
}

fn open_proc() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, "/proc", flags, Mode::empty())
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// 0: no limit.
    pub(super) memory_mib: u64,
    /// Including threads.
    pub(super) processes: u64,
    /// Whether files, sockets and descriptors are private to the program and count as memory.
    pub(super) has_namespace: bool,
}

#[derive(Debug)]
pub(super) struct Usage<'a> {
    processes: &'a Processes,
    limits: Limits,
    last_number: Option<String>,
    known: Vec<u32>,
    next_memory: Instant,
    cores: u64,
}

impl<'a> Usage<'a> {
    pub(super) fn new(processes: &'a Processes, limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            processes,
            limits,
            last_number: None,
            known: Vec::new(),
            next_memory: Instant::now(),
            cores: cores.min(MAX_CORES) as u64,
        }
    }

    pub(super) fn wait(&self) -> Duration {
        if self.limits.memory_mib == 0 {
            return LOOK;
        }
        LOOK.min(self.next_memory.saturating_duration_since(Instant::now()))
    }

    pub(super) fn exceeded(&mut self) -> Option<Limit> {
        let last = self.processes.last_number();
        if last.is_none() || last != self.last_number {
            let most = self.limits.processes;
            self.known = self
                .processes
                .all(usize::try_from(most).unwrap_or(usize::MAX));
            self.last_number = last;
            let threads = |process: &u32| self.processes.thread_count(*process);
            // There may be too many processes to inspect each.
            if self.known.len() as u64 > most || self.known.iter().map(threads).sum::<u64>() > most
            {
                return Some(Limit::Processes);
            }
        }
        if self.limits.memory_mib == 0 || Instant::now() < self.next_memory {
            return None;
        }
        let start = Instant::now();
        let (limit, used) = (self.limits.memory_mib << 10, self.memory_kib());
        if used > limit {
            return Some(Limit::Memory);
        }
        let [longest, shortest] = MEMORY_LOOKS;
        let until_full = Duration::from_millis((limit - used) / (FILLED_KIB * self.cores));
        // Counting takes at most half of the time.
        let shortest = shortest.max(start.elapsed());
        self.next_memory = Instant::now() + until_full.min(longest).max(shortest);
        None
    }

    fn memory_kib(&self) -> u64 {
        let each = self.known.iter().map(|process| self.own_kib(*process));
        let (pages, tables) = each.fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
        let kernel = tables + self.kernel_kib();
        if pages + kernel <= self.limits.memory_mib << 10 {
            return pages + kernel;
        }
        // The fast count includes shared memory once per process; the slow one once.
        let once = self.known.iter().map(|process| self.shared_kib(*process));
        once.sum::<u64>() + kernel
    }

    /// Anonymous pages of a process, and its page tables.
    fn own_kib(&self, process: u32) -> (u64, u64) {
        let Some(status) = self.status(process) else {
            return (0, 0);
        };
        let kib = |name| field(&status, name).unwrap_or(0);
        let shared = if self.limits.has_namespace {
            // For files in memory, which `kernel_kib` counts.
            0
        } else {
            kib("RssShmem:")
        };
        (kib("RssAnon:") + kib("VmSwap:") + shared, kib("VmPTE:"))
    }

    fn status(&self, process: u32) -> Option<String> {
        let status = self.processes.text(&format!("{process}/status"))?;
        if field(&status, "RssAnon:").is_some() || self.processes.thread_count(process) <= 1 {
            return Some(status);
        }
        let of_thread = |thread| {
            self.processes
                .text(&format!("{process}/task/{thread}/status"))
        };
        let threads = self.processes.threads(process).into_iter();
        threads
            .filter_map(of_thread)
            .find(|status| field(status, "RssAnon:").is_some())
    }

    /// Pages of a process, each divided by the number of processes sharing it.
    fn shared_kib(&self, process: u32) -> u64 {
        let text = |process: &str| self.processes.text(&format!("{process}/smaps_rollup"));
        let sum = |text: String| {
            let kib = |name| field(&text, name);
            let pages = kib("Pss_Anon:").or_else(|| kib("Pss:"))?;
            // As above.
            let shared = kib("Pss_Shmem:").filter(|_| !self.limits.has_namespace);
            Some(pages + shared.unwrap_or(0) + kib("SwapPss:").unwrap_or(0))
        };
        let first = text(&process.to_string()).and_then(sum);
        // After its first thread's end, sharing is unknown.
        first.unwrap_or_else(|| self.own_kib(process).0)
    }

    /// Files in memory, and buffers of sockets and pipes.
    fn kernel_kib(&self) -> u64 {
        if !self.limits.has_namespace {
            return 0;
        }
        let files = statfs("/tmp").map_or(0, |found| {
            let blocks = found.f_blocks.saturating_sub(found.f_bfree);
            (blocks * (found.f_bsize as u64)) >> 10
        });
        let sockets = self.processes.text("net/sockstat");
        let sockets = sockets.and_then(|text| {
            text.strip_prefix("sockets: used ")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        });
        // Since Linux 6.2.
        let descriptors = |process: &u32| {
            let found = statat(
                self.processes.proc.as_fd(),
                format!("{process}/fd"),
                AtFlags::empty(),
            );
            found.map_or(0, |found| u64::try_from(found.st_size).unwrap_or(0))
        };
        let descriptors = self.known.iter().map(descriptors).sum::<u64>();
        files
            + sockets.unwrap_or(0).saturating_sub(FREE_SOCKETS) * SOCKET_KIB
            + descriptors.saturating_sub(FREE_DESCRIPTORS) * DESCRIPTOR_KIB
    }
}

/// KiB in the line of a /proc file that begins with `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
