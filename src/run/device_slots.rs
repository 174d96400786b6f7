//! Device slots: one run at a time on the CPU and on each GPU of this host, across users, first come, first served. A run
//! of several GPUs takes all of them at once or none, so that no two runs wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, fchmod, openat, renameat_with};

use super::error::RunError;
use super::events::local_now;
use super::folder::{user_id, user_name};

/// Overrides the folder of the locks, for tests and unusual hosts.
pub const SLOTS: &str = "GRPO_TUI_SLOTS";

/// How often a waiting run checks whether it is its turn.
const ROUND: Duration = Duration::from_millis(250);
/// How long to wait for the lock of the queue, which each newcomer holds for an instant.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HOLDER_BYTES: u64 = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    Cpu,
    Gpu {
        /// Among those that CUDA shows this process.
        ordinal: usize,
        /// Empty if the driver does not say; the ordinal then identifies it.
        uuid: String,
    },
}

impl Device {
    /// For people.
    pub fn described(&self) -> String {
        match self {
            Self::Cpu => "CPU".to_owned(),
            Self::Gpu { ordinal, .. } => format!("GPU {ordinal}"),
        }
    }

    /// Among those that CUDA shows this process; `None` for the CPU.
    pub fn ordinal(&self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            Self::Gpu { ordinal, .. } => Some(*ordinal),
        }
    }

    /// The prefix of its files.
    fn name(&self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Gpu { ordinal, uuid } if uuid.is_empty() => format!("gpu-{ordinal}"),
            Self::Gpu { uuid, .. } => {
                uuid.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect()
            }
        }
    }
}

/// A run's position in the queue of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The one that is waited for: of several that would do, one with the shortest queue.
    pub device: Device,
    /// All that the run needs.
    pub count: usize,
    /// Runs before this one, besides the one that holds the device.
    pub ahead: usize,
    /// Who holds it, in words.
    pub holder: String,
}

impl Waiting {
    /// As a sentence.
    pub fn described(&self) -> String {
        let holder = if self.holder.is_empty() { "another run" } else { &self.holder };
        let device = match self.count {
            0 | 1 => self.device.described(),
            count => format!("{count} GPUs, {}", self.device.described()),
        };
        format!("waiting for {device}, in use by {holder}; position {} in the queue", self.ahead + 1)
    }

    /// The position in the queue, from 1, in a sentence of [`Self::described`].
    pub fn position(sentence: &str) -> Option<usize> {
        sentence.rsplit_once("; position ")?.1.split(' ').next()?.parse().ok()
    }

    /// The process that holds the device, in a sentence of [`Self::described`].
    pub fn process(sentence: &str) -> Option<u32> {
        sentence.split_once(" in use by process ")?.1.split(' ').next()?.parse().ok()
    }
}

/// The right to compute on devices, released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Slot {
    /// At least one.
    devices: Vec<Device>,
    folder: PathBuf,
    _locks: Vec<File>,
    _folder: Option<File>,
}

impl Slot {
    /// Waits until `count` of `devices` are free at once. `on_wait` gets the position at every check and may give up,
    /// which returns `None`.
    ///
    /// # Errors
    /// [`RunError`] naming the problem with the folder of locks.
    pub fn wait(
        devices: &[Device],
        count: usize,
        on_wait: impl FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Option<Self>, RunError> {
        Self::wait_in(&slots_folder()?, devices, count, on_wait)
    }

    /// As [`Self::wait`], with the folder of locks, which all runs of this host must share.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_in(
        folder: &Path,
        devices: &[Device],
        count: usize,
        mut on_wait: impl FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Option<Self>, RunError> {
        check_shared(folder)?;
        let count = count.clamp(1, devices.len().max(1));
        let mut tickets = draw_all(folder, devices)?;
        loop {
            // A ticket whose file somebody removed is of no use.
            if !tickets.iter().all(Ticket::is_valid) {
                drop(tickets);
                tickets = draw_all(folder, devices)?;
            }
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
            let Some((ahead, device)) = occupied.get(count - held.len() - 1).copied() else { return Ok(None) };
            drop(held);
            let holder = holder(folder, device);
            if on_wait(&Waiting { device: device.clone(), count, ahead, holder }).is_break() {
                return Ok(None);
            }
            std::thread::sleep(ROUND);
        }
    }

    /// Says in the locks who has them.
    fn take(folder: &Path, held: Vec<(Device, File)>) -> Result<Self, RunError> {
        let since = local_now().strftime("%H:%M:%S").to_string();
        let text = format!("process {} ({}) since {since}\n", std::process::id(), user_name(user_id()));
        let (devices, mut locks): (Vec<Device>, Vec<File>) = held.into_iter().unzip();
        for lock in &mut locks {
            lock.set_len(0).and_then(|()| lock.write_all(text.as_bytes())).map_err(RunError::io("write", folder))?;
        }
        // A locked folder is spared by programs that clean /tmp.
        let open = File::open(folder).ok().filter(|folder| folder.try_lock_shared().is_ok());
        Ok(Self { devices, folder: folder.to_owned(), _locks: locks, _folder: open })
    }

    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Whether another run waits for one of the devices.
    pub fn is_wanted(&self) -> bool {
        let waits = |device| tickets(&self.folder, device).iter().any(|(_, path)| lives(path));
        self.devices.iter().any(waits)
    }
}

/// `$GRPO_TUI_SLOTS`, else a folder for all users of this host.
///
/// # Errors
/// [`RunError`] naming the folder that could not be created or used.
pub fn slots_folder() -> Result<PathBuf, RunError> {
    if let Some(folder) = std::env::var_os(SLOTS).map(PathBuf::from) {
        make_shared(&folder)?;
        return Ok(folder);
    }
    let system = PathBuf::from("/var/lock/grpo-tui");
    if make_shared(&system).is_ok() {
        return Ok(system);
    }
    let temporary = PathBuf::from("/tmp/grpo-tui-slots");
    make_shared(&temporary).map(|()| temporary)
}

/// Who holds a device, in words; empty if nobody does or it is unknown.
pub fn holder(folder: &Path, device: &Device) -> String {
    let Ok(lock) = open_shared(&folder.join(format!("{}.lock", device.name()))) else { return String::new() };
    if !matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return String::new();
    }
    let mut text = String::new();
    let _ = lock.take(MAX_HOLDER_BYTES).read_to_string(&mut text);
    // Any user may have written it, and it is printed on terminals.
    text.trim().chars().filter(|letter| !letter.is_control()).collect()
}

/// The number of waiting runs.
pub fn queue_length(folder: &Path, device: &Device) -> usize {
    tickets(folder, device).into_iter().filter(|(_, path)| lives(path)).count()
}

/// A position in the queue of a device: a locked, numbered file. The lock ends with the process.
struct Ticket {
    folder: PathBuf,
    device: Device,
    number: u64,
    path: PathBuf,
    file: File,
}

/// The next number of each device. All queues are held meanwhile, in one order for everybody: who is before another in
/// one queue is so in all.
fn draw_all(folder: &Path, devices: &[Device]) -> Result<Vec<Ticket>, RunError> {
    let names: BTreeSet<String> = devices.iter().map(Device::name).collect();
    let mut queues = BTreeMap::new();
    for name in names {
        let path = folder.join(format!("{name}.queue"));
        let file = open_or_create(folder, &path)?;
        lock_within(&file, &path, LOCK_TIMEOUT)?;
        queues.insert(name, file);
    }
    devices.iter().map(|device| Ticket::draw(folder, device, &queues[&device.name()])).collect()
}

impl Ticket {
    /// Takes the next number, from a locked queue.
    fn draw(folder: &Path, device: &Device, mut queue: &File) -> Result<Self, RunError> {
        let mut text = String::new();
        let _ = queue.take(32).read_to_string(&mut text);
        let last = text.trim().parse().unwrap_or(0);
        let highest = tickets(folder, device).into_iter().map(|(number, _)| number).max().unwrap_or(0);
        // Numbers are never reused, so that removing a dead ticket cannot hit a live one.
        let number = highest.max(last).checked_add(1).unwrap_or(1);
        queue
            .set_len(0)
            .and_then(|()| queue.seek(SeekFrom::Start(0)))
            .and_then(|_| queue.write_all(format!("{number}\n").as_bytes()))
            .map_err(RunError::io("write", &folder.join(format!("{}.queue", device.name()))))?;
        let path = folder.join(format!("{}.ticket-{number:020}", device.name()));
        let file = create_shared(folder, &path, true)?
            .ok_or_else(|| RunError::io("create", &path)(std::io::ErrorKind::AlreadyExists.into()))?;
        Ok(Self { folder: folder.to_owned(), device: device.clone(), number, path, file })
    }

    /// Whether its file is still there.
    fn is_valid(&self) -> bool {
        let is_own = |found: std::fs::Metadata| {
            self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
        };
        std::fs::symlink_metadata(&self.path).is_ok_and(is_own)
    }

    /// Counts live tickets with lower numbers and removes dead ones.
    fn ahead(&self) -> usize {
        let before = tickets(&self.folder, &self.device).into_iter().filter(|(number, _)| *number < self.number);
        before.filter(|(_, path)| lives(path)).count()
    }

    /// The device's lock, if nobody has it.
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

fn tickets(folder: &Path, device: &Device) -> Vec<(u64, PathBuf)> {
    let beginning = format!("{}.ticket-", device.name());
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix(&beginning)?.parse().ok();
    entries.flatten().filter_map(|entry| Some((number(&entry.path())?, entry.path()))).collect()
}

/// Whether a run waits with this ticket. Removes a stale one if permitted.
fn lives(path: &Path) -> bool {
    let Ok(file) = open_shared(path) else { return false };
    let lives = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    if !lives {
        let _ = std::fs::remove_file(path);
    }
    lives
}

fn lock_within(file: &File, path: &Path, patience: Duration) -> Result<(), RunError> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(RunError::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                let why = format!("locked by another process for {} s: find it with `fuser`", patience.as_secs());
                return Err(RunError::Unsafe { path: path.to_owned(), why });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Creates or checks a folder in which every user may create files and remove only their own.
fn make_shared(folder: &Path) -> Result<(), RunError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {
            // Set after creation, since the umask would remove it.
            let open = openat(CWD, folder, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
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
        mode => format!("has mode {mode:04o} instead of 1777, which all users of the host need to wait for each other"),
    };
    Err(RunError::Unsafe { path: folder.to_owned(), why })
}

/// Opens an existing shared file. A symlink, or a file with other hard links, is refused: writing to it would change
/// another file.
fn open_shared(path: &Path) -> Result<File, RunError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP => RunError::Unsafe { path: path.to_owned(), why: "is a symlink".to_owned() },
        error => RunError::io("open", path)(error.into()),
    })?);
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

/// Creates a file that every user may lock and write. It appears complete, and locked if requested; `None` if the name
/// is taken.
fn create_shared(folder: &Path, path: &Path, locked: bool) -> Result<Option<File>, RunError> {
    static CREATED: AtomicU64 = AtomicU64::new(0);
    let building = folder.join(format!(".{}-{}.new", std::process::id(), CREATED.fetch_add(1, Ordering::Relaxed)));
    let failed = |error: rustix::io::Errno| RunError::io("create", path)(error.into());
    // Left by a process with the same id.
    let _ = std::fs::remove_file(&building);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, &building, flags, Mode::from_raw_mode(0o600)).map_err(failed)?);
    let named = fchmod(&file, Mode::from_raw_mode(0o666)).map_err(failed).and_then(|()| {
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
