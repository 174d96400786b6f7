//! Drafts: texts that are neither saved nor discarded. Each has a private file in the user's data directory that
//! neither a crash nor another session overwrites; a later session offers it, with the same keys on every screen
//! (`choice`).

pub mod choice;
pub mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use self::files::{Changes, DraftFile, Location, Offer, Record, folder, mark};
use super::message::{Command, Part, Work};
use super::screens::Screen;
use super::shared::Shared;
use super::task_files;
use crate::score::Task;
use crate::task::TASK_FILE;

/// Messages about a file that changed on disk.
pub const LOADED: &str = "loaded the file from disk (undo restores your text)";
pub const KEPT: &str = "keeping your version: saving overwrites the file on disk";

/// Ids of a screen's actions on drafts.
#[derive(Debug)]
pub struct DraftActions {
    pub take: &'static str,
    pub keep: &'static str,
    pub discard: &'static str,
    pub difference: &'static str,
}

/// A screen that edits a text of the task.
pub trait Drafted: Part<Shared = Shared> {
    const SCREEN: Screen;
    const STEM: &'static str;
    const ACTIONS: DraftActions;
    /// The key of the work that searches its drafts.
    const WORK: &'static str;

    fn draft_file<'a>(&'a mut self, shared: &'a mut Shared) -> Option<&'a mut DraftFile>;
    fn texts(&self, shared: &Shared) -> Option<(String, String)>;
    fn title(&self) -> String;
    fn write(&self, shared: &Shared, text: String) -> String;
    fn extension(_: &Task) -> &'static str {
        "json"
    }
    /// # Errors
    /// The file of this name has other content.
    fn read(path: &Path, text: String, time_ms: u64) -> Result<Record, String>;
    fn is_free(&self) -> bool;
    /// Whether letters are text now rather than keys.
    fn is_typing(&self) -> bool;
    /// Finds the text of the current task that a draft belongs to.
    ///
    /// # Errors
    /// No text of the task matches.
    fn locate(&self, shared: &Shared, record: &Record) -> Result<Location, String>;
    fn restore(&mut self, shared: &mut Shared, record: &Record) -> Result<Vec<Command>, String>;
    fn on_disk(&self, shared: &Shared) -> Option<String>;
    /// The user has decided: the file's text replaces the own one, which undo restores, or the own one stays.
    fn resolve_conflict(&mut self, shared: &mut Shared, load: bool) -> Vec<Command>;
}

pub fn begin<T: Drafted>(shared: &mut Shared, task: &Task) -> DraftFile {
    let file = DraftFile::new(
        T::STEM,
        T::extension(task),
        shared.now_ms,
        &shared.options.data,
        task,
    );
    shared.drafts.known.insert(file.path.clone());
    file
}

pub fn remove(shared: &Shared, file: DraftFile) -> Vec<Command> {
    write(shared, file.stored.map(|_| (file.path, None)))
}

/// Updates the file of the text under edit: writes it if the text is unsaved and was changed, removes it if it is
/// saved. Called once a second.
pub fn store<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Vec<Command> {
    let change = due(screen, shared);
    write(shared, change)
}

/// Writes an unsaved text at once, for an exit that leaves no time for background work.
pub fn store_now<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Result<(), String> {
    let Some(text) = unsaved(screen, shared) else {
        return Ok(());
    };
    let Some(path) = screen.draft_file(shared).map(|file| file.path.clone()) else {
        return Ok(());
    };
    let writer = &shared.drafts.writer;
    writer.push(vec![(path, Some(screen.write(shared, text)))]);
    writer.write_queued();
    writer.take_failure().map_or(Ok(()), Err)
}

fn unsaved<T: Drafted>(screen: &T, shared: &Shared) -> Option<String> {
    screen
        .texts(shared)
        .filter(|(saved, own)| saved != own)
        .map(|(_, own)| own)
}

/// The content that the file should have, if it differs.
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

/// Called before another task is opened: keeps an unsaved text in its file, which is offered with its task.
pub fn park<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Vec<Command> {
    shared
        .drafts
        .offers
        .retain(|offer| offer.screen != T::SCREEN);
    let commands = store(screen, shared);
    let title = screen.title();
    let Some(file) = screen
        .draft_file(shared)
        .filter(|file| file.stored.is_some())
    else {
        return commands;
    };
    let (path, task) = (file.path.clone(), file.task.clone());
    shared.drafts.known.remove(&path);
    let path = path.display();
    shared.complain(format!(
        "{title} of {task} is unsaved: draft kept in {path}, offered when the task is opened again"
    ));
    commands
}

/// The embedded task was copied into a folder: the text under edit belongs to the copy now.
pub fn move_to_copy<T: Drafted>(screen: &mut T, shared: &mut Shared, copy: &Task) -> Vec<Command> {
    let new = begin::<T>(shared, copy);
    let Some(old) = screen
        .draft_file(shared)
        .map(|file| std::mem::replace(file, new))
    else {
        return Vec::new();
    };
    // The new file is written first: if that fails, the old one stays.
    let new = due(screen, shared);
    write(
        shared,
        new.into_iter().chain(old.stored.map(|_| (old.path, None))),
    )
}

/// Searches drafts of the open task from earlier sessions.
pub fn look<T: Drafted>(shared: &Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let (data, known) = (shared.options.data.clone(), shared.drafts.known.clone());
    vec![Work::once(
        T::WORK,
        move || {
            let read = |path: PathBuf| (read::<T>(&path), path);
            let found = files::<T>(&data, &open.task);
            (
                open,
                found.map(|paths| {
                    paths
                        .into_iter()
                        .filter(|path| !known.contains(path))
                        .map(read)
                        .collect()
                }),
            )
        },
        |screen: &mut T, shared, (open, found): (_, Result<Vec<_>, String>)| {
            let is_open = shared
                .task
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, &open));
            match found {
                Ok(found) if is_open => offer_all(screen, shared, found),
                Ok(_) => Vec::new(),
                Err(error) => shared.complain(format!("cannot look for drafts: {error}")),
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
    let (old, mut offers): (Vec<Offer>, Vec<Offer>) = before
        .into_iter()
        .partition(|offer| offer.screen == T::SCREEN);
    let mut done = Vec::new();
    // Drafts opened or decided about while the files were read.
    found.retain(|(_, file)| !shared.drafts.known.contains(file));
    found.sort_by_cached_key(|(record, file)| {
        (
            record.as_ref().map_or(0, |record| record.time_ms),
            file.clone(),
        )
    });
    for (record, file) in found {
        let path = file.display();
        match record.map(|record| (screen.locate(shared, &record), record)) {
            Err(error) => {
                shared.complain(format!(
                    "{path}: {error}; draft not offered, file left in place"
                ));
                shared.drafts.known.insert(file);
            }
            // Tried again: an unreadable file may be repaired.
            Ok((Err(why), _)) => {
                shared.complain(format!("draft in {path} not offered: {why}"));
            }
            // The program ended after saving, before it could remove the file.
            Ok((Ok(location), record)) if location.current == record.text => {
                done.push((file, None))
            }
            Ok((Ok(location), record)) => {
                if !old.iter().any(|offer| offer.file == file) {
                    let (title, time, number) = (
                        &location.title,
                        crate::format::date_time(record.time_ms),
                        T::SCREEN as usize + 1,
                    );
                    shared
                        .warn(format!("unsaved draft of {title} from {time}: restore it on screen {number} ({path})"));
                }
                offers.push(Offer {
                    file,
                    record,
                    location,
                    screen: T::SCREEN,
                });
            }
        }
    }
    let drafts = &mut shared.drafts;
    drafts.offers = offers;
    drafts
        .known
        .extend(done.iter().map(|(file, _)| file.clone()));
    write(shared, done)
}

fn read<T: Drafted>(path: &Path) -> Result<Record, String> {
    let text = crate::files::read_text(path).map_err(|error| error.to_string())?;
    let time = task_files::stamp(path)
        .and_then(|(time, _)| time?.duration_since(SystemTime::UNIX_EPOCH).ok());
    T::read(path, text, time.map_or(0, |time| time.as_millis() as u64))
}

/// The drafts of a task's text, unordered. A copy of an embedded task includes those of the embedded one. Earlier
/// versions had one draft of the schema for all sessions, named after the task.
fn files<T: Drafted>(data: &Path, task: &Task) -> Result<Vec<PathBuf>, String> {
    let folder = folder(data);
    let found = match std::fs::read_dir(&folder) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", folder.display())),
    };
    let is_copy = task
        .folder()
        .is_some_and(|folder| folder.starts_with(data.join("tasks")));
    let embedded = is_copy.then(|| Task::embedded(&task.name).ok()).flatten();
    let tasks: Vec<&Task> = std::iter::once(task).chain(&embedded).collect();
    let is_one = |task: &&Task, name: &str| {
        let is_earlier = || {
            T::SCREEN == Screen::Schema
                && name == format!("{}-{}.json", task.name, mark(task, &task.definition_file))
        };
        (name.starts_with(&format!("{}-{}-", T::STEM, mark(task, TASK_FILE)))
            && [".json", ".toml"].iter().any(|end| name.ends_with(end)))
            || is_earlier()
    };
    let is_of_task = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| tasks.iter().any(|task| is_one(task, name)))
    };
    Ok(found
        .flatten()
        .map(|entry| entry.path())
        .filter(is_of_task)
        .collect())
}

fn write(
    shared: &Shared,
    changes: impl IntoIterator<Item = (PathBuf, Option<String>)>,
) -> Vec<Command> {
    let changes: Changes = changes.into_iter().collect();
    if changes.is_empty() {
        Vec::new()
    } else {
        vec![write_then(shared, "draft.write", changes, Vec::new)]
    }
}

/// The work that writes files, or removes those without content, in this order. An error stops it, else `then` follows.
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
        move || writer.write_queued(),
        |_: &mut (), shared: &mut Shared, ()| match shared.drafts.writer.take_failure() {
            Some(error) => shared.complain(format!("draft not saved: {error}")),
            None => then(),
        },
    )
}
