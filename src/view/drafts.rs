//! Drafts: texts that are neither saved nor discarded. Each has a private file below the user's data that neither a
//! crash nor another session overwrites; a later session offers it, on every screen by the same keys (`choice`).

pub mod choice;
pub mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use self::files::{Changes, DraftFile, Location, Offer, Record, folder, mark};
use super::message::{Command, ScreenState, Work};
use super::screens::Screen;
use super::shared::Shared;
use super::task_files;
use crate::task::{TASK_FILE, Task};

/// What is said of a decision about a file that changed on disk.
pub const LOADED: &str = "loaded the file from disk (undo restores your text)";
pub const KEPT: &str = "keeping your version: saving overwrites the file on disk";

/// A screen that edits a text of the task.
pub trait Drafted: ScreenState<Shared = Shared> {
    const SCREEN: Screen;
    /// How the names of its files begin.
    const STEM: &'static str;
    /// Ids of the actions: take the other version, keep the own one, discard the draft, show the difference.
    const ACTIONS: [&'static str; 4];
    /// The key of the work that looks for its drafts.
    const WORK: &'static str;

    /// The file of the text under edit.
    fn draft_file<'a>(&'a mut self, shared: &'a mut Shared) -> Option<&'a mut DraftFile>;
    /// The text under edit, as saved and as edited.
    fn texts(&self, shared: &Shared) -> Option<(String, String)>;
    /// What the text under edit is, in a few words.
    fn title(&self) -> String;
    /// The draft as its file has it.
    fn write(&self, shared: &Shared, text: String) -> String;
    /// # Errors
    /// A sentence where a file of this name has something else.
    fn read(text: String, time_ms: u64) -> Result<Record, String>;
    /// Whether a draft may be restored now, and no other text would have to go.
    fn is_free(&self) -> bool;
    /// Whether letters are text now, and no keys.
    fn is_typing(&self) -> bool;
    /// Where a draft belongs in the task as it is now.
    ///
    /// # Errors
    /// A sentence where it belongs nowhere.
    fn locate(&self, shared: &Shared, record: &Record) -> Result<Location, String>;
    /// Opens the editor on a draft.
    ///
    /// # Errors
    /// As `locate`.
    fn restore(&mut self, shared: &mut Shared, record: &Record) -> Result<Vec<Command>, String>;
    /// The file's text, where it changed on disk while the text here is unsaved.
    fn on_disk(&self, shared: &Shared) -> Option<String>;
    /// The user has decided: the file's text takes the place of the own one, which undo brings back, or the own one
    /// stays.
    fn settle(&mut self, shared: &mut Shared, load: bool) -> Vec<Command>;
}

/// The file of a text whose editor opens now.
pub fn begin<T: Drafted>(shared: &mut Shared, task: &Task) -> DraftFile {
    let file = DraftFile::new(T::STEM, shared.now_ms, &shared.options.data, task);
    shared.drafts.known.insert(file.path.clone());
    file
}

/// The text is saved or discarded.
pub fn remove(shared: &Shared, file: DraftFile) -> Vec<Command> {
    write(shared, file.stored.map(|_| (file.path, None)))
}

/// Brings the file to the text under edit: written where that is unsaved and was changed, removed where it is saved.
/// Called once a second.
pub fn store<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Vec<Command> {
    let change = due(screen, shared);
    write(shared, change)
}

/// Writes an unsaved text at once, for an end that leaves no time for work beside the view.
///
/// # Errors
/// A sentence with the file.
pub fn store_now<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Result<(), String> {
    let Some(text) = unsaved(screen, shared) else { return Ok(()) };
    let Some(path) = screen.draft_file(shared).map(|file| file.path.clone()) else { return Ok(()) };
    let writer = &shared.drafts.writer;
    writer.push(vec![(path, Some(screen.write(shared, text)))]);
    writer.work_off();
    writer.take_failure().map_or(Ok(()), Err)
}

fn unsaved<T: Drafted>(screen: &T, shared: &Shared) -> Option<String> {
    screen.texts(shared).filter(|(saved, own)| saved != own).map(|(_, own)| own)
}

/// What the file is to have, where it has something else.
fn due<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Option<(PathBuf, Option<String>)> {
    let text = unsaved(screen, shared);
    let file = screen.draft_file(shared)?;
    if file.stored == text {
        return None;
    }
    file.stored.clone_from(&text);
    let path = file.path.clone();
    Some((path, text.map(|text| screen.write(shared, text))))
}

/// Another task is opened: an unsaved text of the one before stays in its file, and is offered with that task.
pub fn park<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Vec<Command> {
    shared.drafts.offers.retain(|offer| offer.screen != T::SCREEN);
    let commands = store(screen, shared);
    let title = screen.title();
    let Some(file) = screen.draft_file(shared).filter(|file| file.stored.is_some()) else { return commands };
    let (path, task) = (file.path.clone(), file.task.clone());
    shared.drafts.known.remove(&path);
    let path = path.display();
    shared
        .complain(format!("{title} of {task} is unsaved: draft kept in {path}, offered when the task is opened again"));
    commands
}

/// The embedded task has become a copy in a folder: the text under edit is of the copy now.
pub fn move_to_copy<T: Drafted>(screen: &mut T, shared: &mut Shared, copy: &Task) -> Vec<Command> {
    let new = begin::<T>(shared, copy);
    let Some(old) = screen.draft_file(shared).map(|file| std::mem::replace(file, new)) else { return Vec::new() };
    // In this order: where the new file cannot be written the old one stays.
    let new = due(screen, shared);
    write(shared, new.into_iter().chain(old.stored.map(|_| (old.path, None))))
}

/// Looks for drafts of the open task that earlier sessions have left.
pub fn look<T: Drafted>(shared: &Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else { return Vec::new() };
    let (data, known) = (shared.options.data.clone(), shared.drafts.known.clone());
    vec![Work::once(
        T::WORK,
        move || {
            let read = |path: PathBuf| (read::<T>(&path), path);
            let found = files::<T>(&data, &open.task);
            (open, found.map(|paths| paths.into_iter().filter(|path| !known.contains(path)).map(read).collect()))
        },
        |screen: &mut T, shared, (open, found): (_, Result<Vec<_>, String>)| {
            let is_open = shared.task.as_ref().is_some_and(|now| Arc::ptr_eq(now, &open));
            match found {
                Ok(found) if is_open => offer_all(screen, shared, found),
                Ok(_) => Vec::new(),
                Err(error) => {
                    shared.complain(format!("cannot look for drafts: {error}"));
                    Vec::new()
                }
            }
        },
    )]
}

fn offer_all<T: Drafted>(
    screen: &mut T,
    shared: &mut Shared,
    mut found: Vec<(Result<Record, String>, PathBuf)>,
) -> Vec<Command> {
    let before = std::mem::take(&mut shared.drafts.offers);
    let (old, mut offers): (Vec<Offer>, Vec<Offer>) = before.into_iter().partition(|offer| offer.screen == T::SCREEN);
    let mut done = Vec::new();
    // Begun or decided about while the files were read.
    found.retain(|(_, file)| !shared.drafts.known.contains(file));
    found.sort_by_cached_key(|(record, file)| (record.as_ref().map_or(0, |record| record.time_ms), file.clone()));
    for (record, file) in found {
        let path = file.display();
        match record.map(|record| (screen.locate(shared, &record), record)) {
            Err(error) => {
                shared.complain(format!("{path}: {error}; draft not offered, file left in place"));
                shared.drafts.known.insert(file);
            }
            // What cannot be read now may be mended, and then its draft is looked for again.
            Ok((Err(why), _)) => shared.complain(format!("draft in {path} not offered: {why}")),
            // The program has ended after saving, before it could remove the file.
            Ok((Ok(location), record)) if location.current == record.text => done.push((file, None)),
            Ok((Ok(location), record)) => {
                if !old.iter().any(|offer| offer.file == file) {
                    let (title, time, number) =
                        (&location.title, crate::format::date_time(record.time_ms), T::SCREEN as usize + 1);
                    shared.complain(format!(
                        "unsaved draft from {time}: {title}, restore it on screen {number} ({path})"
                    ));
                }
                offers.push(Offer { file, record, location, screen: T::SCREEN });
            }
        }
    }
    let drafts = &mut shared.drafts;
    drafts.offers = offers;
    drafts.known.extend(done.iter().map(|(file, _)| file.clone()));
    write(shared, done)
}

fn read<T: Drafted>(path: &Path) -> Result<Record, String> {
    let text = crate::files::read_text(path).map_err(|error| error.to_string())?;
    let time = task_files::stamp(path).and_then(|(time, _)| time?.duration_since(SystemTime::UNIX_EPOCH).ok());
    T::read(text, time.map_or(0, |time| time.as_millis() as u64))
}

/// The drafts of a task's text, in no order. A copy of an embedded task has those of the embedded one too. Earlier
/// versions had one of the schema for all sessions, named for the task.
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
        let is_earlier =
            || T::SCREEN == Screen::Schema && name == format!("{}-{}.json", task.name, mark(task, &task.schema_file));
        (name.starts_with(&format!("{}-{}-", T::STEM, mark(task, TASK_FILE))) && name.ends_with(".json"))
            || is_earlier()
    };
    let is_of_task = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| tasks.iter().any(|task| is_one(task, name)))
    };
    Ok(found.flatten().map(|entry| entry.path()).filter(is_of_task).collect())
}

fn write(shared: &Shared, changes: impl IntoIterator<Item = (PathBuf, Option<String>)>) -> Vec<Command> {
    let changes: Changes = changes.into_iter().collect();
    if changes.is_empty() { Vec::new() } else { vec![write_then(shared, "draft.write", changes, Vec::new)] }
}

/// The work that writes files, or removes those without content, in this order; at an error the rest stays, else `then`
/// follows.
pub fn write_then(
    shared: &Shared,
    key: &'static str,
    changes: Changes,
    then: impl FnOnce() -> Vec<Command> + Send + 'static,
) -> Command {
    let writer = Arc::clone(&shared.drafts.writer);
    writer.push(changes);
    Work::once(
        key,
        move || writer.work_off(),
        |_: &mut (), shared: &mut Shared, ()| match shared.drafts.writer.take_failure() {
            Some(error) => {
                shared.complain(format!("draft not saved: {error}"));
                Vec::new()
            }
            None => then(),
        },
    )
}
