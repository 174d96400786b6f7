//! Messages between a process and an init.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::found_program::FoundFile;
use super::level::Level;

const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A program for an init, with its limits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) level: Level,
    /// Empty for a trial of the level.
    pub(super) program: PathBuf,
    /// `argv[0]`, if not the path.
    pub(super) name: Option<String>,
    /// The program and its interpreters, which must be unchanged.
    pub(super) files: Vec<FoundFile>,
    pub(super) arguments: Vec<String>,
    /// Contains the program's files; it runs here, or in a folder that shows them.
    pub(super) folder: PathBuf,
    pub(super) environment: BTreeMap<String, OsString>,
    /// Readable besides system programs.
    pub(super) visible: Vec<PathBuf>,
    /// A folder in `folder` that it may change.
    pub(super) writable: Option<PathBuf>,
    /// Limit for each process, and for all together; 0: none.
    pub(super) memory_mib: u64,
    pub(super) max_processes: u64,
    /// Whether it gets a loopback port in its network, passed after [`Reply::Started`].
    pub(super) has_port: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) exceeded: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Limit {
    Memory,
    Processes,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Started,
    Failed { why: String },
    Ended(Ended),
}

pub(super) fn send(mut stream: &UnixStream, message: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_le_bytes(), text.as_slice()].concat())
}

pub(super) fn receive<M: DeserializeOwned>(mut stream: &UnixStream) -> Result<M> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
