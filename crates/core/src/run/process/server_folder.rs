//! The folder of a server that keeps a model loaded for this user's programs: its Unix socket, lock and log.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::launch::{DeviceChoice, Launch, last_line_where, launch_in};
use crate::run::error::RunError;
use crate::run::storage::directory::{host_name, sha256};
use crate::run::storage::durable::ensure_folder;
use crate::run::storage::folder::{private_folder, user_id};
use crate::run::storage::lock::RunLock;

const SOCKET: &str = "socket";
const LOG: &str = "server.log";

/// Who holds the lock in it is the server. A socket without one is of a server that is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerFolder(PathBuf);

impl ServerFolder {
    /// What clients call the model without its adapter.
    pub const BASE: &str = "base";

    /// The folder of a model's server, in the user's cache. Other files of the same name, other hosts and other versions of
    /// this program have another one.
    pub fn of_model(model: &str, digest: &str) -> Self {
        let cache = directories::ProjectDirs::from("", "", "grpo-tui")
            .map(|folders| folders.cache_dir().to_owned());
        let cache =
            cache.unwrap_or_else(|| std::env::temp_dir().join(format!("grpo-tui-{}", user_id())));
        let key = [model, digest, &host_name(), env!("CARGO_PKG_VERSION")].join("\n");
        Self(cache.join("servers").join(&sha256(key.as_bytes())[..12]))
    }

    /// The folder that [`Self::launch`] names.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Connects to its server.
    ///
    /// # Errors
    /// No socket, or one without a listener, if there is no server.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let (_folder, socket) = self.short_socket()?;
        UnixStream::connect(socket)
    }

    /// Whether a server is there, which may be starting or about to exit.
    pub fn is_in_use(&self) -> bool {
        RunLock::is_held(&self.0)
    }

    /// Makes this process its server: locks it, and listens in place of a server that is gone.
    ///
    /// # Errors
    /// [`RunError::InUse`] if there is a server, [`RunError::Unsafe`] if the folder is not private to this user,
    /// [`RunError::Io`].
    pub fn listen(&self) -> Result<(RunLock, UnixListener), RunError> {
        private_folder(&self.0)?;
        let lock = RunLock::acquire(&self.0)?;
        let bind = || {
            let (_folder, socket) = self.short_socket()?;
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&socket)?;
            std::fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bind().map_err(RunError::io("listen on", &self.0.join(SOCKET)))?;
        Ok((lock, listener))
    }

    /// Starts a server of `model`, a name that is valid in every folder. Of several that are started at once one stays.
    ///
    /// # Errors
    /// [`RunError::Launch`] with the server's reason, unless another server has started.
    pub fn launch(&self, model: &str, compute: &DeviceChoice) -> Result<(), RunError> {
        if let Some(parent) = self.0.parent() {
            ensure_folder(parent)?;
        }
        private_folder(&self.0)?;
        let mut arguments: Vec<OsString> = vec![
            "serve".into(),
            model.into(),
            "--socket".into(),
            (&self.0).into(),
        ];
        arguments.extend(compute.arguments().into_iter().map(OsString::from));
        match launch_in(&self.0, LOG, &arguments, &Launch::default()) {
            Err(RunError::Launch { .. }) if self.is_in_use() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// The last line of its servers' output: what the server waits for or does, or why it has ended.
    pub fn last_line(&self) -> Option<String> {
        last_line_where(&self.0.join(LOG), 0, |_| true)
    }

    /// The socket by a path that is short: the system takes at most 108 bytes. Valid while the folder is open.
    fn short_socket(&self) -> io::Result<(File, PathBuf)> {
        let flags = (OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            .bits()
            .cast_signed();
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&self.0)?;
        let socket = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        Ok((folder, socket.into()))
    }
}
