//! Servers of a run on this machine: a file in `serving/` of the run, locked for as long as its process serves.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{is_locked, open, random_bytes};
use crate::format::hex;
use crate::run::error::RunError;
use crate::run::storage::directory::host_name;
use crate::run::storage::durable::{ensure_folder, entries};

const FOLDER: &str = "serving";
/// A longer file is not one of `serve`.
const MAX_BYTES: u64 = 1 << 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunServer {
    pub base_url: String,
    /// The name of the run's model on the server.
    pub model: String,
    /// The environment variable with the key, not the key.
    pub api_key_env: Option<String>,
    host: String,
}

impl RunServer {
    pub fn new(base_url: String, model: String, api_key_env: Option<String>) -> Self {
        Self {
            base_url,
            model,
            api_key_env,
            host: host_name(),
        }
    }

    /// Says that this process serves the run, until the returned file is closed.
    ///
    /// # Errors
    /// [`RunError::Io`] where the run cannot be written to.
    pub fn announce(&self, run: &Path) -> Result<File, RunError> {
        let folder = run.join(FOLDER);
        ensure_folder(&folder)?;
        // Those of servers that are gone.
        for entry in entries(&folder)? {
            let path = entry.path();
            if open(&path).is_ok_and(|file| !is_locked(&file)) {
                let _ = std::fs::remove_file(path);
            }
        }
        // One process may serve several checkpoints of the run.
        let name = random_bytes::<8>().map_err(RunError::io("name a file in", &folder))?;
        let path = folder.join(format!("{}.json", hex(&name)));
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).map_err(RunError::io("write", &path))?;
        let locked = file.lock().map_err(RunError::io("lock", &path));
        let text = serde_json::json!(self).to_string();
        locked
            .and_then(|()| {
                let written = file.write_all(text.as_bytes());
                written.map_err(RunError::io("write", &path))
            })
            .inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        Ok(file)
    }

    /// Those that serve the run on this machine now.
    pub fn list(run: &Path) -> Vec<Self> {
        let read = |path: &Path| {
            let file = open(path).ok().filter(is_locked)?;
            let mut text = String::new();
            file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
            let server: Self = serde_json::from_str(&text).ok()?;
            (server.host == host_name()).then_some(server)
        };
        let found = entries(&run.join(FOLDER)).unwrap_or_default();
        let mut servers: Vec<Self> = found
            .iter()
            .filter_map(|entry| read(&entry.path()))
            .collect();
        servers.sort_by(|one, other| one.base_url.cmp(&other.base_url));
        servers
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_listed_while_it_holds_its_file() {
        let run = tempfile::tempdir().unwrap();
        assert!(RunServer::list(run.path()).is_empty());
        let server = RunServer::new("http://127.0.0.1:1/v1".into(), "m".into(), None);
        let held = server.announce(run.path()).unwrap();
        assert_eq!(RunServer::list(run.path()), std::slice::from_ref(&server));
        // Another of the same process, as of an adapter of the same run.
        let second = server.announce(run.path()).unwrap();
        assert_eq!(RunServer::list(run.path()).len(), 2);
        drop(second);
        // Of another machine on the same file system.
        let elsewhere = RunServer {
            host: "elsewhere".to_owned(),
            ..server.clone()
        };
        drop(held);
        assert!(RunServer::list(run.path()).is_empty());
        let _held = elsewhere.announce(run.path()).unwrap();
        assert!(RunServer::list(run.path()).is_empty());
    }
}
