//! A small file system in memory, to be filled or made read-only. Mounting one takes root: for other users tests with
//! it are ignored (build.rs).

use std::path::{Path, PathBuf};
use std::process::Command;

/// Unmounted again when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Makes the folder, too.
    pub(crate) fn mount(folder: &Path, options: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        mount(folder, options);
        Self(folder.to_owned())
    }

    pub(crate) fn remount(&self, options: &str) {
        mount(&self.0, &format!("remount,{options}"));
    }

    /// Gives back what [`Self::fill`] took.
    pub(crate) fn free(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.0.join("filler"))
    }

    /// Takes all but so many bytes by the file `filler`.
    pub(crate) fn fill(&self, leave: u64) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let free = || {
            rustix::fs::statvfs(&self.0)
                .map(|found| found.f_frsize * found.f_bavail)
                .unwrap()
        };
        while free() > leave && std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
    }
}

fn mount(folder: &Path, options: &str) {
    let output = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
