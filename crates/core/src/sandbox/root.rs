//! A program's file system in its namespace: system programs and readable paths, read-only; one
//! empty size-limited folder to write in; its own processes.

use std::ffi::CStr;
use std::fs;
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::system::sethostname;

/// Size and file limits of the writable folder, which is in memory.
const FOLDER_OPTIONS: &CStr = c"size=256m,nr_inodes=65536,mode=755";
/// Working folder with the program's files, and its home.
pub(super) const WORK: &str = "/tmp/work";
pub(super) const HOME: &str = "/tmp/home";

/// System programs and libraries; links remain links.
pub(super) const SYSTEM_FOLDERS: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix/store",
    "/gnu/store",
];
/// Files in /etc needed by these; none is secret.
pub(super) const SYSTEM_FILES: &[&str] = &[
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/ssl/openssl.cnf",
];
/// The sandbox replaces [`ZEROS`] by a file.
pub(super) const DEVICES: &[&str] = &[
    ZEROS,
    "/dev/null",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];
/// Memory mapped from this device belongs to no process, so it is replaced by an empty file.
const ZEROS: &str = "/dev/zero";
const ZEROS_BYTES: u64 = 1 << 60;
const SHARED_MEMORY: &str = "/tmp/shm";
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    (SHARED_MEMORY, "dev/shm"),
];
/// Exists on every system; the new root is first mounted here.
const BASE: &str = "/usr";
/// Processes and threads beyond a program's limit that the kernel, which counts per user namespace,
/// still allows: endless forking is killed, not only refused.
pub(super) const SPARE_PROCESSES: u64 = 64;
/// Lowest process numbers, which the kernel does not reuse.
pub(super) const RESERVED_PROCESSES: u64 = 300;
/// Initial and maximum bytes of a connection's buffers; `usage` relies on them.
const TCP_BUFFERS: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 106496"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 212992"),
];

/// A program's files, shown in [`WORK`].
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnFiles<'a> {
    pub(super) folder: &'a Path,
    /// A folder in it, copied: the others are read-only.
    pub(super) writable: Option<&'a Path>,
}

struct Tree {
    mount: OwnedFd,
    at: PathBuf,
    /// The file descriptor of a folder that others write to.
    folder: Option<OwnedFd>,
}

/// Mounts and links carried over from the old root.
struct OldRoot {
    trees: Vec<Tree>,
    links: Vec<(PathBuf, &'static str)>,
}

/// Makes the system, `visible`, and `files` in [`WORK`] this namespace's root.
///
/// # Errors
/// Names what could not be mounted.
pub(super) fn enter(
    visible: &[PathBuf],
    files: Option<OwnFiles<'_>>,
    max_processes: u64,
) -> Result<()> {
    let failed = |what: &'static str| move |error| named(what, error);
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(failed("/"))?;
    // Kernels before 6.14 have one limit for the machine; there `usage` counts.
    let numbers = RESERVED_PROCESSES + max_processes + SPARE_PROCESSES;
    _ = fs::write("/proc/sys/kernel/pid_max", numbers.to_string());
    for (setting, bytes) in TCP_BUFFERS {
        _ = fs::write(setting, bytes);
    }
    sethostname(b"sandbox")?;
    let OldRoot { mut trees, links } = old_root(visible, files)?;
    let (private, root) = (MountFlags::NOSUID | MountFlags::NODEV, Path::new(BASE));
    mount("tmpfs", BASE, "tmpfs", private, Some(c"size=4m,mode=755"))
        .map_err(failed("a new root"))?;
    for folder in ["tmp", "proc", "dev"] {
        fs::create_dir(root.join(folder))?;
    }
    mount(
        "tmpfs",
        root.join("tmp"),
        "tmpfs",
        private,
        Some(FOLDER_OPTIONS),
    )
    .map_err(failed("/tmp"))?;
    for folder in ["work", "home", "shm"] {
        fs::create_dir(root.join("tmp").join(folder))?;
    }
    if let Some((files, writable)) = files.and_then(|files| Some((files, files.writable?))) {
        copy_folder(
            &files.folder.join(writable),
            &root.join("tmp/work").join(writable),
        )?;
    }
    // Hidden by the next mount there: it stays empty.
    let empty = open_folder(&root.join("proc"))?;
    trees.iter_mut().for_each(|tree| tree.mask(&empty));
    // A container may forbid it, so that no process is visible. Without it root could write
    // settings of the machine.
    _ = mount(
        "proc",
        root.join("proc"),
        "proc",
        private | MountFlags::NOEXEC | MountFlags::RDONLY,
        None,
    );
    trees.iter().try_for_each(|tree| tree.attach(root))?;
    fs::File::create(root.join("dev/zero"))?.set_len(ZEROS_BYTES)?;
    links
        .iter()
        .try_for_each(|(target, at)| symlink(target, root.join(at)))?;
    mount_remount(BASE, private | MountFlags::BIND | MountFlags::RDONLY, c"")
        .map_err(failed("a new root"))?;
    chdir(BASE)?;
    pivot_root(".", ".").map_err(failed("a new root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("a new root"))?;
    Ok(chdir("/")?)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()?.is_dir() {
            true => copy_folder(&from, &to)?,
            false => _ = fs::copy(from, to)?,
        }
    }
    Ok(())
}

fn old_root(visible: &[PathBuf], files: Option<OwnFiles<'_>>) -> Result<OldRoot> {
    let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let mut links = LINKS
        .map(|(target, at)| (PathBuf::from(target), at))
        .to_vec();
    let mut trees = Vec::new();
    for folder in SYSTEM_FOLDERS {
        match fs::read_link(folder) {
            Ok(target) => links.push((target, folder.trim_start_matches('/'))),
            Err(_) => trees.extend(Tree::new(Path::new(folder), folder.into(), read_only)?),
        }
    }
    for path in SYSTEM_FILES
        .iter()
        .map(Path::new)
        .chain(visible.iter().map(PathBuf::as_path))
    {
        // Its folder is a link in the new root.
        let shared = path
            .strip_prefix("/dev/shm")
            .map(|rest| Path::new(SHARED_MEMORY).join(rest));
        trees.extend(Tree::new(
            path,
            shared.unwrap_or_else(|_| path.to_owned()),
            read_only,
        )?);
    }
    if let Some(files) = files {
        files.add_to(&mut trees, Path::new(""), read_only)?;
    }
    for device in DEVICES.iter().filter(|device| **device != ZEROS) {
        // Devices are writable anyway; mode, owner and times are the machine's.
        let attributes =
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
        trees.extend(Tree::new(Path::new(device), device.into(), attributes)?);
    }
    Ok(OldRoot { trees, links })
}

impl OwnFiles<'_> {
    fn add_to(self, trees: &mut Vec<Tree>, within: &Path, read_only: u64) -> Result<()> {
        for entry in fs::read_dir(self.folder.join(within))? {
            let name = within.join(entry?.file_name());
            match self.writable {
                Some(writable) if writable == name => {}
                Some(writable) if writable.starts_with(&name) => {
                    self.add_to(trees, &name, read_only)?
                }
                _ => trees.extend(Tree::new(
                    &self.folder.join(&name),
                    Path::new(WORK).join(&name),
                    read_only,
                )?),
            }
        }
        Ok(())
    }
}

impl Tree {
    /// Clones a tree with additional mount attributes; `None` if it is missing or inaccessible.
    fn new(path: &Path, at: PathBuf, attributes: u64) -> Result<Option<Self>> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let mount = match open_tree(CWD, path, flags) {
            Ok(mount) => mount,
            Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(named(path, error)),
        };
        restrict(&mount, attributes).map_err(|error| named(path, error))?;
        let folder = open_folder(path).ok();
        Ok(Some(Self { mount, at, folder }))
    }

    /// Shows a folder through an overlay, in which its sockets and FIFOs lead nowhere. Unchanged if
    /// impossible: another mount below it, or too many layers already.
    fn mask(&mut self, empty: &OwnedFd) {
        if let Some(Ok(mount)) = self.folder.as_ref().map(|folder| layered(folder, empty)) {
            self.mount = mount;
        }
    }

    fn attach(&self, root: &Path) -> Result<()> {
        let at = root.join(self.at.strip_prefix("/").unwrap_or(&self.at));
        if FileType::from_raw_mode(fstat(&self.mount)?.st_mode) == FileType::Directory {
            fs::create_dir_all(&at)?;
        } else {
            at.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&at, [])?;
        }
        move_mount(
            &self.mount,
            c"",
            CWD,
            &at,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|error| named(&self.at, error))
    }
}

/// An overlay of `folder` below an empty one, read-only; a single layer is not allowed.
fn layered(folder: &OwnedFd, empty: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let path = |folder: &OwnedFd| format!("/proc/self/fd/{}", folder.as_raw_fd());
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let layers = format!("{}:{}", path(empty), path(folder));
    fsconfig_set_string(context.as_fd(), "lowerdir", layers)?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
}

fn restrict(mount: &OwnedFd, attributes: u64) -> std::result::Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open, the text ends with 0, and the structure has the size that is passed.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

fn named(what: impl AsRef<Path>, error: Errno) -> Error {
    Error::new(
        error.kind(),
        format!(
            "cannot mount {}: {}",
            what.as_ref().display(),
            Error::from(error)
        ),
    )
}
