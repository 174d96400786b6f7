//! The folder `control/` of a run: a request is renamed into it, and its answers are appended to a file beside it.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::handler::RequestHandler;
use super::protocol::{
    ANSWERS, Answer, AnswerLine, FOLDER, MAX_REQUEST_BYTES, PROTOCOL_VERSION, REQUEST, is_id,
};
use super::queue::ReplyFn;
use crate::run::error::RunError;
use crate::run::storage::folder::{FolderWatch, private_folder, user_id, user_name};

#[derive(Debug)]
pub(super) struct RequestFolder {
    folder: PathBuf,
    pub(super) watch: FolderWatch,
}

impl RequestFolder {
    pub(super) fn open(run: &Path) -> (Self, Result<(), RunError>) {
        let folder = run.join(FOLDER);
        let private = private_folder(&folder).map(|_| remove_stale(&folder, &run.join("lock")));
        let watch = FolderWatch::new(&folder, is_request);
        (Self { folder, watch }, private)
    }

    pub(super) fn poll(&mut self, handler: &RequestHandler) {
        match private_folder(&self.folder) {
            Ok(false) => {}
            Ok(true) => self.watch.renew(&self.folder, is_request),
            Err(_) => return,
        }
        let mut requests: Vec<(PathBuf, String)> = files(&self.folder)
            .filter_map(|(path, name)| {
                Some((
                    path,
                    name.strip_suffix(REQUEST)
                        .filter(|id| is_id(id))?
                        .to_owned(),
                ))
            })
            .collect();
        requests.sort();
        for (path, id) in requests {
            let request = read(&path);
            // Removed first, so that no request is handled twice.
            if std::fs::remove_file(&path).is_err() {
                continue;
            }
            let answers = self.folder.join(format!("{id}{ANSWERS}"));
            match request {
                Ok(request) => {
                    handler.handle(&request, user_id(), |request_id| reply(answers, request_id))
                }
                Err(why) => reply(answers, "")(&Answer::refused(why)),
            }
        }
    }
}

/// Removes requests to an earlier worker and its answers, but not accepted requests. Compares with the lock's
/// modification time, which this worker set on the same file system, so that clocks do not matter.
fn remove_stale(folder: &Path, lock: &Path) {
    let modified = |path: &Path| {
        std::fs::symlink_metadata(path)
            .and_then(|found| found.modified())
            .ok()
    };
    let begun = modified(lock);
    let is_stale = |path: &Path, name: &str| {
        [REQUEST, ANSWERS, ".tmp"]
            .iter()
            .any(|ending| name.ends_with(ending))
            && modified(path) <= begun
    };
    for (path, _) in files(folder).filter(|(path, name)| is_stale(path, name)) {
        let _ = std::fs::remove_file(path);
    }
}

fn is_request(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .ends_with(REQUEST.as_bytes())
}

fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, String)> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("the request cannot be read: {error}");
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err("the request is not a regular file".to_owned());
    }
    if found.uid() != user_id() {
        return Err(format!(
            "the request belongs to {}, not to {}",
            user_name(found.uid()),
            user_name(user_id())
        ));
    }
    let mut request = Vec::new();
    file.take(MAX_REQUEST_BYTES as u64 + 1)
        .read_to_end(&mut request)
        .map_err(unreadable)?;
    Ok(request)
}

/// Appends each answer with one write. The first one creates the file if the client has not; a file that is missing
/// later means that the client has gone.
fn reply(path: PathBuf, id: &str) -> ReplyFn {
    let id = id.to_owned();
    let is_first = Mutex::new(true);
    Arc::new(move |answer: &Answer| {
        let line = AnswerLine {
            v: PROTOCOL_VERSION,
            id: id.clone(),
            answer: answer.clone(),
        };
        let Ok(mut line) = serde_json::to_vec(&line) else {
            return;
        };
        line.push(b'\n');
        let mut is_first = is_first.lock();
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new()
            .append(true)
            .create(std::mem::take(&mut is_first))
            .mode(0o600)
            .custom_flags(flags)
            .open(&path);
        // Closed at once, which makes it visible on a network file system. If the disk is full, the request was handled
        // all the same.
        let _ = file.and_then(|mut file| file.write_all(&line));
    })
}
