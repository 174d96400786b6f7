//! Drafts: texts that are neither saved nor discarded. Each has a private file below the user's data that neither a crash nor another session
//! overwrites; a later session offers it, on every screen by the same keys (`choice`).

pub mod choice;

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::app::Model;
use super::message::{Command, Work};
use super::screens::Screen;
use super::task_files;
use crate::task::{TASK_FILE, Task};

/// What is said of a decision about a file that changed on disk.
pub const LOADED: &str = "loaded the file from disk (undo restores your text)";
pub const KEPT: &str = "keeping your version: saving overwrites the file on disk";

/// A screen that edits a text of the task.
pub trait Drafted: 'static {
    const SCREEN: Screen;
    /// How the names of its files begin.
    const STEM: &'static str;
    /// Ids of the actions: take the other version, keep the own one, discard the draft, show the difference.
    const ACTIONS: [&'static str; 4];
    /// The key of the work that looks for its drafts.
    const WORK: &'static str;

    /// The file of the text under edit.
    fn draft_file(model: &mut Model) -> Option<&mut DraftFile>;
    /// The text under edit, as saved and as edited.
    fn texts(model: &Model) -> Option<(String, String)>;
    /// What the text under edit is, in a few words.
    fn title(model: &Model) -> String;
    /// The draft as its file has it.
    fn write(model: &Model, text: String) -> String;
    /// # Errors
    /// A sentence where a file of this name has something else.
    fn read(text: String, time_ms: u64) -> Result<Record, String>;
    /// Whether a draft may be restored now, and no other text would have to go.
    fn is_free(model: &Model) -> bool;
    /// Where a draft belongs in the task as it is now.
    ///
    /// # Errors
    /// A sentence where it belongs nowhere.
    fn locate(model: &Model, record: &Record) -> Result<Location, String>;
    /// Opens the editor on a draft.
    ///
    /// # Errors
    /// As `locate`.
    fn restore(model: &mut Model, record: &Record) -> Result<Vec<Command>, String>;
    /// The file's text, where it changed on disk while the text here is unsaved.
    fn on_disk(model: &Model) -> Option<String>;
    /// The user has decided: the file's text takes the place of the own one, which undo brings back, or the own one stays.
    fn settle(model: &mut Model, load: bool) -> Vec<Command>;
}

/// A draft as its file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The task's file, as the task lay when the draft was written.
    pub task: String,
    /// Which text of the task; the screen knows.
    pub of: serde_json::Value,
    /// Row and column of the cursor.
    pub cursor: (usize, usize),
    /// Milliseconds since 1970.
    pub time_ms: u64,
    pub text: String,
}

/// Where a draft belongs.
#[derive(Debug, Clone)]
pub struct Location {
    pub title: String,
    /// The text there now.
    pub current: String,
    /// What has happened to it since the draft was written.
    pub note: Option<String>,
}

/// A draft of an earlier session.
#[derive(Debug, Clone)]
pub struct Offer {
    pub file: PathBuf,
    pub record: Record,
    pub location: Location,
    screen: Screen,
}

/// The file of a text under edit; written once the text is changed.
#[derive(Debug, Default)]
pub struct DraftFile {
    /// The task's file.
    pub task: String,
    mark: String,
    pub path: PathBuf,
    /// The text that the file has; `None` where there is no file.
    pub stored: Option<String>,
}

/// Drafts that wait for a decision, and what writes files.
#[derive(Debug, Default)]
pub struct Drafts {
    /// The oldest first.
    offers: Vec<Offer>,
    /// Files that this session has named itself, or that the user has decided about.
    known: HashSet<PathBuf>,
    writer: Arc<Writer>,
}

impl DraftFile {
    /// A name that no other text and no other session has.
    pub fn new<T: Drafted>(model: &mut Model, task: &Task) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (mark, time, count) = (mark(task, TASK_FILE), model.shared.now_ms, COUNT.fetch_add(1, Ordering::Relaxed));
        let path = folder(&model.shared.options.data).join(format!("{}-{mark}-{time}-{}-{count}.json", T::STEM, std::process::id()));
        model.shared.drafts.known.insert(path.clone());
        Self { task: task.label(TASK_FILE), mark, path, stored: None }
    }

    pub fn is_of(&self, task: &Task) -> bool {
        self.mark == mark(task, TASK_FILE)
    }

    /// The text is saved or discarded.
    pub fn remove(self, model: &Model) -> Option<Command> {
        self.stored.as_ref()?;
        Some(model.shared.drafts.write(vec![(self.path, None)]))
    }
}

/// Brings the file to the text under edit: written where that is unsaved and was changed, removed where it is saved. Called once a second.
pub fn store<T: Drafted>(model: &mut Model) -> Vec<Command> {
    let change = due::<T>(model);
    change.map(|change| model.shared.drafts.write(vec![change])).into_iter().collect()
}

/// Writes an unsaved text at once, for an end that leaves no time for work beside the view.
///
/// # Errors
/// A sentence with the file.
pub fn store_now<T: Drafted>(model: &mut Model) -> Result<(), String> {
    let Some(text) = unsaved::<T>(model) else { return Ok(()) };
    let Some(path) = T::draft_file(model).map(|file| file.path.clone()) else { return Ok(()) };
    let writer = &model.shared.drafts.writer;
    writer.push(vec![(path, Some(T::write(model, text)))]);
    writer.work_off()
}

fn unsaved<T: Drafted>(model: &Model) -> Option<String> {
    T::texts(model).filter(|(saved, own)| saved != own).map(|(_, own)| own)
}

/// What the file is to have, where it has something else.
fn due<T: Drafted>(model: &mut Model) -> Option<(PathBuf, Option<String>)> {
    let text = unsaved::<T>(model);
    let file = T::draft_file(model)?;
    if file.stored == text {
        return None;
    }
    file.stored.clone_from(&text);
    let path = file.path.clone();
    Some((path, text.map(|text| T::write(model, text))))
}

/// Another task is opened: an unsaved text of the one before stays in its file, and is offered with that task.
pub fn park<T: Drafted>(model: &mut Model) -> Vec<Command> {
    model.shared.drafts.offers.retain(|offer| offer.screen != T::SCREEN);
    let commands = store::<T>(model);
    let title = T::title(model);
    let Some(file) = T::draft_file(model).filter(|file| file.stored.is_some()) else { return commands };
    let (path, task) = (file.path.clone(), file.task.clone());
    model.shared.drafts.known.remove(&path);
    let path = path.display();
    model.shared.complain(format!("{title} of {task} is unsaved: draft kept in {path}, offered when the task is opened again"));
    commands
}

/// The embedded task has become a copy in a folder: the text under edit is of the copy now.
pub fn move_to_copy<T: Drafted>(model: &mut Model, copy: &Task) -> Vec<Command> {
    let new = DraftFile::new::<T>(model, copy);
    let Some(old) = T::draft_file(model).map(|file| std::mem::replace(file, new)) else { return Vec::new() };
    let mut commands = store::<T>(model);
    commands.extend(old.remove(model));
    commands
}

/// Looks for drafts of the open task that earlier sessions have left.
pub fn look<T: Drafted>(model: &Model) -> Vec<Command> {
    let Some(open) = model.shared.task.clone() else { return Vec::new() };
    let (data, known) = (model.shared.options.data.clone(), model.shared.drafts.known.clone());
    vec![Work::once(
        T::WORK,
        move || {
            let read = |path: PathBuf| (read::<T>(&path), path);
            let found = files::<T>(&data, &open.task);
            (open, found.map(|paths| paths.into_iter().filter(|path| !known.contains(path)).map(read).collect()))
        },
        |model, (open, found): (_, Result<Vec<_>, String>)| {
            let is_open = model.shared.task.as_ref().is_some_and(|now| Arc::ptr_eq(now, &open));
            match found {
                Ok(found) if is_open => offer_all::<T>(model, found),
                Ok(_) => Vec::new(),
                Err(error) => {
                    model.shared.complain(format!("cannot look for drafts: {error}"));
                    Vec::new()
                }
            }
        },
    )]
}

fn offer_all<T: Drafted>(model: &mut Model, mut found: Vec<(Result<Record, String>, PathBuf)>) -> Vec<Command> {
    let before = std::mem::take(&mut model.shared.drafts.offers);
    let (old, mut offers): (Vec<Offer>, Vec<Offer>) = before.into_iter().partition(|offer| offer.screen == T::SCREEN);
    let mut done = Vec::new();
    // Begun or decided about while the files were read.
    found.retain(|(_, file)| !model.shared.drafts.known.contains(file));
    found.sort_by_cached_key(|(record, file)| (record.as_ref().map_or(0, |record| record.time_ms), file.clone()));
    for (record, file) in found {
        let path = file.display();
        match record.map(|record| (T::locate(model, &record), record)) {
            Err(error) => {
                model.shared.complain(format!("{path}: {error}; draft not offered, file left in place"));
                model.shared.drafts.known.insert(file);
            }
            // What cannot be read now may be mended, and then its draft is looked for again.
            Ok((Err(why), _)) => model.shared.complain(format!("draft in {path} not offered: {why}")),
            // The program has ended after saving, before it could remove the file.
            Ok((Ok(location), record)) if location.current == record.text => done.push((file, None)),
            Ok((Ok(location), record)) => {
                if !old.iter().any(|offer| offer.file == file) {
                    let (title, time, number) = (&location.title, crate::format::date_time(record.time_ms), T::SCREEN as usize + 1);
                    model.shared.complain(format!("unsaved draft from {time}: {title}, restore it on screen {number} ({path})"));
                }
                offers.push(Offer { file, record, location, screen: T::SCREEN });
            }
        }
    }
    let drafts = &mut model.shared.drafts;
    drafts.offers = offers;
    drafts.known.extend(done.iter().map(|(file, _)| file.clone()));
    if done.is_empty() { Vec::new() } else { vec![drafts.write(done)] }
}

fn read<T: Drafted>(path: &Path) -> Result<Record, String> {
    let text = crate::files::read_text(path).map_err(|error| error.to_string())?;
    let time = task_files::stamp(path).and_then(|(time, _)| time?.duration_since(SystemTime::UNIX_EPOCH).ok());
    T::read(text, time.map_or(0, |time| time.as_millis() as u64))
}

/// The drafts of a task's text, in no order. A copy of an embedded task has those of the embedded one too. Earlier versions had one of the schema for
/// all sessions, named for the task.
fn files<T: Drafted>(data: &Path, task: &Task) -> Result<Vec<PathBuf>, String> {
    let folder = folder(data);
    let found = match std::fs::read_dir(&folder) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", folder.display())),
    };
    let is_copy = task.folder().is_some_and(|folder| folder.starts_with(data.join("tasks")));
    let embedded = is_copy.then(|| Task::embedded(&task.name).ok()).flatten();
    let tasks: Vec<&Task> = std::iter::once(task).chain(&embedded).collect();
    let is_one = |task: &&Task, name: &str| {
        let is_earlier = || T::SCREEN == Screen::Schema && name == format!("{}-{}.json", task.name, mark(task, &task.schema_file));
        (name.starts_with(&format!("{}-{}-", T::STEM, mark(task, TASK_FILE))) && name.ends_with(".json")) || is_earlier()
    };
    let is_of_task =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| tasks.iter().any(|task| is_one(task, name)));
    Ok(found.flatten().map(|entry| entry.path()).filter(is_of_task).collect())
}

fn folder(data: &Path) -> PathBuf {
    data.join("drafts")
}

/// A few letters that stand for a file of a task, wherever the task lies.
fn mark(task: &Task, file: &str) -> String {
    crate::run::sha256(task.label(file).as_bytes())[..12].to_owned()
}

impl Drafts {
    /// The work that writes files, or removes those without content, in this order; at an error the rest stays.
    fn write(&self, changes: Changes) -> Command {
        let writer = Arc::clone(&self.writer);
        writer.push(changes);
        Work::once(
            "draft.write",
            move || writer.work_off(),
            |model, done| {
                if let Err(error) = done {
                    model.shared.complain(format!("draft not saved: {error}"));
                }
                Vec::new()
            },
        )
    }
}

/// Files and their new content.
type Changes = Vec<(PathBuf, Option<String>)>;

/// Writes files in the order asked, whichever thread comes first.
#[derive(Debug, Default)]
struct Writer {
    due: Mutex<VecDeque<Changes>>,
    /// One at a time.
    turn: Mutex<()>,
}

impl Writer {
    fn push(&self, changes: Changes) {
        locked(&self.due).push_back(changes);
    }

    /// Does all that is due.
    fn work_off(&self) -> Result<(), String> {
        let _turn = locked(&self.turn);
        let change = |(path, content): &(PathBuf, Option<String>)| match content {
            Some(content) => task_files::write_private(path, content.as_bytes()),
            None => task_files::remove(path),
        };
        let next = || locked(&self.due).pop_front();
        std::iter::from_fn(next).map(|changes| changes.iter().try_for_each(change)).fold(Ok(()), Result::and)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_in_order_and_a_failure_leaves_the_rest_of_its_changes() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let writer = Writer::default();
        let some = |text: &str| Some(text.to_owned());
        writer.push(vec![(place("a/one"), some("first"))]);
        writer.push(vec![(place("a/one"), some("second")), (place("a/two"), some(""))]);
        writer.push(vec![(place("a/one/no-folder"), some("")), (place("a/one"), None)]);
        writer.push(vec![(place("a/two"), None)]);
        assert!(writer.work_off().unwrap_err().contains("a/one"));
        assert_eq!(std::fs::read_to_string(place("a/one")).unwrap(), "second");
        assert!(!place("a/two").exists() && writer.work_off().is_ok());
    }
}
