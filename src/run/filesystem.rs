//! On what kind of file system a folder lies: on one that is shared over a network, changes are not announced and locks may not be seen.

use std::path::Path;

/// A kind of file system, by the number that the kernel gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem(Option<u32>);

/// Number, name, and whether it is shared over a network. FUSE may be anything, and is taken for the worst.
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
    /// The kind under a path; unknown where the path cannot be looked at.
    pub fn of(path: &Path) -> Self {
        // The number is a word of the kernel's, and only its low half means anything.
        Self(rustix::fs::statfs(path).ok().map(|found| found.f_type as u32))
    }

    /// Its name, or its number in hex.
    pub fn name(self) -> String {
        match (self.known(), self.0) {
            (Some((_, name, _)), _) => (*name).to_owned(),
            (None, Some(number)) => format!("{number:#x}"),
            (None, None) => "unknown".to_owned(),
        }
    }

    /// Whether it is shared with other hosts: watch it by polling, and do not rely on locks.
    pub fn is_network(self) -> bool {
        self.known().is_some_and(|(_, _, network)| *network)
    }

    fn known(self) -> Option<&'static (u32, &'static str, bool)> {
        KINDS.iter().find(|(number, ..)| Some(*number) == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!((FileSystem(Some(0x6969)).name(), FileSystem(Some(0x6969)).is_network()), ("nfs".to_owned(), true));
        assert_eq!((FileSystem(Some(0x12)).name(), FileSystem(Some(0x12)).is_network()), ("0x12".to_owned(), false));
        assert_eq!(FileSystem::of(Path::new("/proc/none/such")), FileSystem(None));
        assert!(!FileSystem::of(Path::new("/proc")).is_network());
    }
}
