//! Folders: file system type, change notifications, and privacy.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::fs::OFlags;

use crate::run::error::RunError;

/// A file system type, by the kernel's number. A network file system announces no changes and may
/// hide locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem(Option<u32>);

/// Number, name, and whether it is a network file system. FUSE can be anything and counts as one.
const KINDS: &[(u32, &str, bool)] = &[
    (0x0000_6969, "nfs", true),
    (0x0000_517b, "smb", true),
    (0xff53_4d42, "cifs", true),
    (0xfe53_4d42, "smb2", true),
    (0x6573_5546, "fuse", true),
    (0x0102_1997, "9p", true),
    (0x0bd0_0bd0, "lustre", true),
    (0x00c3_6400, "ceph", true),
    (0x5346_414f, "afs", true),
    (0x6b41_4653, "kafs", true),
    (0x4750_4653, "gpfs", true),
    (0x1983_0326, "beegfs", true),
    (0x7461_636f, "ocfs2", true),
    (0x0116_1970, "gfs2", true),
    (0x7375_7245, "coda", true),
    (0x0000_ef53, "ext4", false),
    (0x5846_5342, "xfs", false),
    (0x9123_683e, "btrfs", false),
    (0x2fc1_2fc1, "zfs", false),
    (0x0102_1994, "tmpfs", false),
    (0x794c_7630, "overlay", false),
    (0xf2f5_2010, "f2fs", false),
    (0xca45_1a4e, "bcachefs", false),
];

impl FileSystem {
    /// Unknown if the path cannot be examined.
    pub fn for_path(path: &Path) -> Self {
        // Only the low 32 bits are meaningful.
        Self(
            rustix::fs::statfs(path)
                .ok()
                .map(|found| found.f_type as u32),
        )
    }

    /// The name, or the number in hex.
    pub fn name(self) -> String {
        match (self.known(), self.0) {
            (Some((_, name, _)), _) => (*name).to_owned(),
            (None, Some(number)) => format!("{number:#x}"),
            (None, None) => "unknown".to_owned(),
        }
    }

    /// Whether other hosts may share it: then poll, and do not rely on locks.
    pub fn is_network(self) -> bool {
        self.known().is_some_and(|(_, _, network)| *network)
    }

    fn known(self) -> Option<&'static (u32, &'static str, bool)> {
        KINDS.iter().find(|(number, ..)| Some(*number) == self.0)
    }
}

/// Wakes when something changes in a folder. Without notifications, [`Self::wait`] always times
/// out.
#[derive(Debug)]
pub(in crate::run) struct FolderWatch {
    watcher: Option<RecommendedWatcher>,
    sender: SyncSender<()>,
    receiver: Receiver<()>,
}

impl FolderWatch {
    pub(in crate::run) fn new(
        folder: &Path,
        concerns: impl Fn(&Path) -> bool + Send + 'static,
    ) -> Self {
        let (sender, receiver) = sync_channel(1);
        let mut watch = Self {
            watcher: None,
            sender,
            receiver,
        };
        watch.renew(folder, concerns);
        watch
    }

    /// Renews the watch, since a watch on a removed folder does not see its replacement.
    pub(in crate::run) fn renew(
        &mut self,
        folder: &Path,
        concerns: impl Fn(&Path) -> bool + Send + 'static,
    ) {
        self.watcher = None;
        if FileSystem::for_path(folder).is_network() {
            return;
        }
        let sender = self.sender.clone();
        let on_event = move |event: notify::Result<notify::Event>| {
            // Reads are events too; reacting to them would cause an endless loop.
            let changed = event.map_or(true, |event| {
                event.need_rescan()
                    || (!matches!(event.kind, EventKind::Access(_))
                        && event.paths.iter().any(|path| concerns(path)))
            });
            if changed {
                // Fails if a wake-up is already queued.
                let _ = sender.try_send(());
            }
        };
        self.watcher = notify::recommended_watcher(on_event)
            .and_then(|mut watcher| {
                watcher
                    .watch(folder, RecursiveMode::NonRecursive)
                    .map(|()| watcher)
            })
            .ok();
    }

    pub(in crate::run) fn is_announced(&self) -> bool {
        self.watcher.is_some()
    }

    /// Wakes [`Self::wait`] from another thread.
    pub(in crate::run) fn waker(&self) -> SyncSender<()> {
        self.sender.clone()
    }

    pub(in crate::run) fn wait(&self, longest: Duration) -> bool {
        self.receiver.recv_timeout(longest).is_ok()
    }
}

/// The name of a user of this host, or else `user 1000`.
pub fn user_name(id: u32) -> String {
    static USERS: LazyLock<BTreeMap<u32, String>> = LazyLock::new(|| {
        let users = crate::files::read(Path::new("/etc/passwd")).unwrap_or_default();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        String::from_utf8_lossy(&users)
            .lines()
            .rev()
            .filter_map(user)
            .collect()
    });
    USERS
        .get(&id)
        .cloned()
        .unwrap_or_else(|| format!("user {id}"))
}

pub(in crate::run) fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Creates a folder with mode 0700, or checks that an existing one is private to this user. Returns
/// whether it was created.
pub(in crate::run) fn private_folder(path: &Path) -> Result<bool, RunError> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let open = || OpenOptions::new().read(true).custom_flags(flags).open(path);
    let mut created = false;
    let opened = match open() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                outcome => {
                    created = outcome
                        .map(|()| true)
                        .map_err(RunError::io("create", path))?
                }
            }
            open()
        }
        opened => opened,
    };
    let unsafe_because = |why: String| RunError::Unsafe {
        path: path.to_owned(),
        why,
    };
    let folder = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
            unsafe_because("is a symlink".to_owned())
        }
        Some(code) if code == rustix::io::Errno::NOTDIR.raw_os_error() => {
            unsafe_because("is a symlink or not a folder".to_owned())
        }
        _ => RunError::io("open", path)(error),
    })?;
    let found = folder.metadata().map_err(RunError::io("read", path))?;
    if found.uid() != user_id() {
        return Err(unsafe_because(format!(
            "belongs to {}, not to {}",
            user_name(found.uid()),
            user_name(user_id())
        )));
    }
    match found.mode() & 0o777 {
        0o700 => Ok(created),
        mode => Err(unsafe_because(format!(
            "has mode {mode:04o} instead of 0700"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(
            (
                FileSystem(Some(0x6969)).name(),
                FileSystem(Some(0x6969)).is_network()
            ),
            ("nfs".to_owned(), true)
        );
        assert_eq!(
            (
                FileSystem(Some(0x12)).name(),
                FileSystem(Some(0x12)).is_network()
            ),
            ("0x12".to_owned(), false)
        );
        assert_eq!(
            FileSystem::for_path(Path::new("/proc/none/such")),
            FileSystem(None)
        );
        assert!(!FileSystem::for_path(Path::new("/proc")).is_network());
    }
}
