//! Device slots: one run at a time on the CPU and on each GPU of this host, across users, first
//! come, first served. A run takes all of its GPUs at once or none, which prevents deadlocks.

use std::fmt;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, fchmod, openat, renameat_with};
use serde::{Deserialize, Serialize};

use crate::files::is_locked;
use crate::run::clock::local_now;
use crate::run::error::RunError;
use crate::run::storage::folder::{user_id, user_name};

/// Environment variable that overrides the folder of locks, for tests and unusual hosts.
pub const SLOTS: &str = "GRPO_TUI_SLOTS";

/// How often a waiting run checks its position.
const ROUND: Duration = Duration::from_millis(250);
const MAX_HOLDER_BYTES: u64 = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    Cpu,
    Gpu {
        /// Index among the devices that CUDA exposes to this process.
        ordinal: usize,
        /// Empty if the driver does not report it; the ordinal then identifies the device.
        uuid: String,
    },
}

impl Device {
    pub fn described(&self) -> String {
        match self {
            Self::Cpu => "CPU".to_owned(),
            Self::Gpu { ordinal, .. } => format!("GPU {ordinal}"),
        }
    }

    /// Index among the devices that CUDA exposes to this process; `None` for the CPU.
    pub fn ordinal(&self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            Self::Gpu { ordinal, .. } => Some(*ordinal),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Gpu { ordinal, uuid } if uuid.is_empty() => format!("gpu-{ordinal}"),
            Self::Gpu { uuid, .. } => uuid
                .chars()
                .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
                .collect(),
        }
    }
}

/// The user of a device, read from its lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id on this host; `None` if not recorded.
    pub process: Option<u32>,
    pub user: String,
    pub since: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(
                formatter,
                "process {process} ({}) since {}",
                self.user, self.since
            ),
            None => formatter.write_str("another run"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The device with the shortest queue, if several would do.
    pub device: Device,
    pub count: usize,
    /// Number of earlier runs, excluding the one that holds the device.
    pub ahead: usize,
    /// `None` if the device is free but an earlier run waits for it.
    pub holder: Option<Holder>,
}

impl Waiting {
    pub fn described(&self) -> String {
        let device = match self.count {
            0 | 1 => self.device.described(),
            count => format!("{count} GPUs, {}", self.device.described()),
        };
        let holder = self.holder.clone().unwrap_or_default();
        format!(
            "waiting for {device}, in use by {holder}; position {} in the queue",
            self.ahead + 1
        )
    }
}

/// The right to compute on devices. Released when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub struct Slot {
    /// At least one.
    devices: Vec<Device>,
    folder: PathBuf,
    _locks: Vec<File>,
    _folder: Option<File>,
}

impl Slot {
    /// Waits until `count` of `devices` are free at once. `folder` has the locks, which all runs of
    /// this host must share ([`slots_folder`]). `on_wait` gets the position at every check and may
    /// give up, which returns `None`.
    pub fn wait(
        folder: &Path,
        devices: &[Device],
        count: usize,
        mut on_wait: impl FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Option<Self>, RunError> {
        check_shared(folder)?;
        let count = count.clamp(1, devices.len().max(1));
        let position = position();
        let tickets: Vec<Ticket> = devices
            .iter()
            .map(|device| Ticket::create(folder, device, &position))
            .collect::<Result<_, _>>()?;
        loop {
            let (mut held, mut occupied) = (Vec::with_capacity(count), Vec::new());
            for ticket in &tickets {
                let ahead = ticket.ahead();
                match if ahead == 0 { ticket.lock()? } else { None } {
                    Some(lock) => held.push((ticket.device.clone(), lock)),
                    None => occupied.push((ahead, &ticket.device)),
                }
                if held.len() == count {
                    return Self::take(folder, held).map(Some);
                }
            }
            occupied.sort_by_key(|(ahead, _)| *ahead);
            let Some((ahead, device)) = occupied.get(count - held.len() - 1).copied() else {
                return Ok(None);
            };
            drop(held);
            let holder = holder(folder, device);
            if on_wait(&Waiting {
                device: device.clone(),
                count,
                ahead,
                holder,
            })
            .is_break()
            {
                return Ok(None);
            }
            std::thread::sleep(ROUND);
        }
    }

    fn take(folder: &Path, held: Vec<(Device, File)>) -> Result<Self, RunError> {
        let since = local_now().strftime("%H:%M:%S").to_string();
        let holder = Holder {
            process: Some(std::process::id()),
            user: user_name(user_id()),
            since,
        };
        let text = serde_json::to_vec(&holder).unwrap_or_default();
        let (devices, mut locks): (Vec<Device>, Vec<File>) = held.into_iter().unzip();
        for lock in &mut locks {
            lock.set_len(0)
                .and_then(|()| lock.write_all(&text))
                .map_err(RunError::io("write", folder))?;
        }
        // Programs that clean /tmp skip locked folders.
        let open = File::open(folder)
            .ok()
            .filter(|folder| folder.try_lock_shared().is_ok());
        Ok(Self {
            devices,
            folder: folder.to_owned(),
            _locks: locks,
            _folder: open,
        })
    }

    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    pub fn is_wanted(&self) -> bool {
        self.devices
            .iter()
            .any(|device| queue_length(&self.folder, device) > 0)
    }
}

/// `$GRPO_TUI_SLOTS`, or else a folder shared by all users of this host: always the same one, whoever ran first. Not in
/// /var/lock, where some distributions let only root create folders.
pub fn slots_folder() -> Result<PathBuf, RunError> {
    let folder = std::env::var_os(SLOTS).map_or("/tmp/grpo-tui-slots".into(), PathBuf::from);
    make_shared(&folder).map(|()| folder)
}

pub fn holder(folder: &Path, device: &Device) -> Option<Holder> {
    let lock = open_shared(&folder.join(format!("{}.lock", device.name()))).ok()?;
    if !is_locked(&lock) {
        return None;
    }
    let mut text = Vec::new();
    let _ = lock.take(MAX_HOLDER_BYTES).read_to_end(&mut text);
    let mut holder: Holder = serde_json::from_slice(&text).unwrap_or_default();
    // Any user may have written these texts, which are printed on terminals.
    for text in [&mut holder.user, &mut holder.since] {
        text.retain(|letter| !letter.is_control());
    }
    Some(holder)
}

pub fn queue_length(folder: &Path, device: &Device) -> usize {
    tickets(folder, device).filter(|path| lives(path)).count()
}

/// Creates the name of a wait. Names sort by time and are the same in all queues, so that runs have
/// the same order in each.
fn position() -> String {
    static WAITS: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!(
        "{:030}-{:010}-{:010}",
        since.as_nanos(),
        std::process::id(),
        WAITS.fetch_add(1, Ordering::Relaxed)
    )
}

/// A position in a device's queue: a file locked by the waiting run, whose lock ends with the
/// process.
struct Ticket {
    folder: PathBuf,
    device: Device,
    path: PathBuf,
    _file: File,
}

impl Ticket {
    fn create(folder: &Path, device: &Device, position: &str) -> Result<Self, RunError> {
        let path = folder.join(format!("{}.ticket-{position}", device.name()));
        let file = create_shared(folder, &path, true)?.ok_or_else(|| {
            let why = "another run waits in this file: try again";
            RunError::io("create", &path)(std::io::Error::other(why))
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            device: device.clone(),
            path,
            _file: file,
        })
    }

    /// Counts earlier active tickets and removes stale ones.
    fn ahead(&self) -> usize {
        tickets(&self.folder, &self.device)
            .filter(|path| *path < self.path && lives(path))
            .count()
    }

    fn lock(&self) -> Result<Option<File>, RunError> {
        let path = self.folder.join(format!("{}.lock", self.device.name()));
        let lock = open_or_create(&self.folder, &path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(RunError::io("lock", &path)(error)),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn tickets(folder: &Path, device: &Device) -> impl Iterator<Item = PathBuf> {
    let beginning = format!("{}.ticket-", device.name());
    let is_ticket = move |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(&beginning))
    };
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(is_ticket)
}

/// Whether the ticket is active. Removes a stale one if permitted.
fn lives(path: &Path) -> bool {
    let Ok(file) = open_shared(path) else {
        return false;
    };
    let lives = is_locked(&file);
    if !lives {
        let _ = std::fs::remove_file(path);
    }
    lives
}

/// Creates or checks a folder in which every user may create files and remove only their own.
fn make_shared(folder: &Path) -> Result<(), RunError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {
            // Set after creation, since the umask would clear it.
            let open = openat(
                CWD,
                folder,
                OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            );
            open.and_then(|open| fchmod(open, Mode::from_raw_mode(0o1777)))
                .map_err(|error| RunError::io("share", folder)(error.into()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => check_shared(folder),
        Err(error) => Err(RunError::io("create", folder)(error)),
    }
}

fn check_shared(folder: &Path) -> Result<(), RunError> {
    let found = std::fs::symlink_metadata(folder).map_err(RunError::io("read", folder))?;
    let why = match found.mode() & 0o7777 {
        _ if found.is_symlink() => "is a symlink".to_owned(),
        _ if !found.is_dir() => "is not a folder".to_owned(),
        0o1777 => return Ok(()),
        mode => format!(
            "has mode {mode:04o} instead of 1777, which all users of the host need to wait for each other: `chmod 1777` it, or remove it"
        ),
    };
    Err(RunError::Unsafe {
        path: folder.to_owned(),
        why,
    })
}

/// Opens an existing shared file. Refuses symlinks and files with other hard links: writing would
/// change another file.
fn open_shared(path: &Path) -> Result<File, RunError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat(CWD, path, flags, Mode::empty()).map_err(
        |error| match error {
            rustix::io::Errno::LOOP => RunError::Unsafe {
                path: path.to_owned(),
                why: "is a symlink".to_owned(),
            },
            error => RunError::io("open", path)(error.into()),
        },
    )?);
    let found = file.metadata().map_err(RunError::io("read", path))?;
    if !found.is_file() || found.nlink() > 1 {
        return Err(RunError::Unsafe {
            path: path.to_owned(),
            why: "is not a regular file, or has other hard links".to_owned(),
        });
    }
    Ok(file)
}

fn open_or_create(folder: &Path, path: &Path) -> Result<File, RunError> {
    loop {
        match open_shared(path) {
            Err(RunError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        if let Some(file) = create_shared(folder, path, false)? {
            return Ok(file);
        }
    }
}

/// Creates a file that every user may lock and write. It appears complete, and locked if requested;
/// `None` if the name is taken.
fn create_shared(folder: &Path, path: &Path, locked: bool) -> Result<Option<File>, RunError> {
    static CREATED: AtomicU64 = AtomicU64::new(0);
    let building = folder.join(format!(
        ".{}-{}.new",
        std::process::id(),
        CREATED.fetch_add(1, Ordering::Relaxed)
    ));
    let failed = |error: rustix::io::Errno| RunError::io("create", path)(error.into());
    // Left by an earlier process with the same id.
    let _ = std::fs::remove_file(&building);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        File::from(openat(CWD, &building, flags, Mode::from_raw_mode(0o600)).map_err(failed)?);
    let named = fchmod(&file, Mode::from_raw_mode(0o666))
        .map_err(failed)
        .and_then(|()| {
            if locked {
                file.lock().map_err(RunError::io("lock", path))?;
            }
            match renameat_with(CWD, &building, CWD, path, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(true),
                Err(rustix::io::Errno::EXIST) => Ok(false),
                Err(error) => Err(failed(error)),
            }
        });
    if !matches!(named, Ok(true)) {
        let _ = std::fs::remove_file(&building);
    }
    Ok(named?.then_some(file))
}
