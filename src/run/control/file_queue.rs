//! Requests by file, for where a socket cannot reach: a request is renamed into `control/`, its answers are renamed in beside it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

use super::answer::{Answer, AnswerLine};
use super::handler::{RequestHandler, is_id};
use super::queue::ReplyFn;
use super::socket_path::{FOLDER, private_folder, user_id};
use super::{LONGEST_REQUEST, PROTOCOL_VERSION};
use crate::run::durable::replace_file;
use crate::run::error::RunError;

const REQUEST: &str = ".request.json";
const ANSWERS: &str = ".answers.jsonl";
/// What has not got its final name yet.
const TEMPORARY: &str = ".tmp";

/// How long an answer waits to be fetched, and after what a file that is still being written never will be.
const KEPT: Duration = Duration::from_secs(600);

/// The worker's end.
#[derive(Debug)]
pub(super) struct RequestFolder {
    folder: PathBuf,
}

/// The file that a request is renamed to.
pub(super) fn request_file(run: &Path, id: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{id}{REQUEST}"))
}

/// The file that its answers are renamed to, as a whole each time.
pub(super) fn answers_file(run: &Path, id: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{id}{ANSWERS}"))
}

impl RequestFolder {
    /// Make sure of the folder. Requests to an earlier worker are thrown away: who made them has been told, or has given up.
    pub(super) fn open(run: &Path) -> Result<Self, RunError> {
        let folder = run.join(FOLDER);
        private_folder(&folder)?;
        let drop_box = Self { folder };
        for (path, name) in drop_box.files() {
            // What was accepted lies here too, until the log has it.
            // An answer that was half-written is its dead worker's; a request may be somebody's who is writing it now.
            let half_answer = name.ends_with(TEMPORARY) && name.contains(ANSWERS);
            if half_answer || [REQUEST, ANSWERS].iter().any(|ending| name.ends_with(ending)) {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(drop_box)
    }

    /// See to every request that lies there.
    pub(super) fn poll(&self, desk: &RequestHandler) {
        let mut requests = Vec::new();
        for (path, name) in self.files() {
            if let Some(id) = name.strip_suffix(REQUEST).filter(|id| is_id(id)) {
                requests.push((path, id.to_owned()));
            } else if [ANSWERS, TEMPORARY].iter().any(|ending| name.ends_with(ending)) && is_old(&path) {
                let _ = std::fs::remove_file(path);
            }
        }
        requests.sort();
        for (path, id) in requests {
            let request = read(&path);
            // Gone before it is seen to, so that no request is ever seen to twice; where it cannot go, it is left alone.
            if std::fs::remove_file(&path).is_err() {
                continue;
            }
            let answers = self.folder.join(format!("{id}{ANSWERS}"));
            match request {
                Ok(request) => desk.handle(&request, user_id(), |request_id| reply(answers, request_id)),
                Err(why) => reply(answers, "")(&Answer::refused(why)),
            }
        }
    }

    fn files(&self) -> Vec<(PathBuf, String)> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        entries.flatten().filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?))).collect()
    }
}

fn is_old(path: &Path) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > KEPT))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let said = |error: std::io::Error| format!("the request cannot be read: {error}");
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(said)?;
    let found = file.metadata().map_err(said)?;
    if !found.is_file() {
        return Err("the request is not a regular file".to_owned());
    }
    if found.uid() != user_id() {
        return Err(format!("the request belongs to user {}, not to user {}", found.uid(), user_id()));
    }
    let mut request = Vec::new();
    file.take(LONGEST_REQUEST as u64 + 1).read_to_end(&mut request).map_err(said)?;
    Ok(request)
}

/// Answers pile up in one file, so that whoever looks late still sees all of them.
fn reply(path: PathBuf, id: &str) -> ReplyFn {
    let id = id.to_owned();
    let said = Mutex::new(Vec::new());
    Arc::new(move |answer: &Answer| {
        let line = AnswerLine { v: PROTOCOL_VERSION, id: id.clone(), answer: answer.clone() };
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if serde_json::to_writer(&mut *said, &line).is_ok() {
            said.push(b'\n');
            // Where the disk cannot take an answer, the request has been seen to all the same; the log tells.
            let _ = replace_file(&path, &said);
        }
    })
}
