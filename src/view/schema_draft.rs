//! The schema as it stands in the editor: its text, what is wrong with it, the last scorer that it made, and where the unsaved text is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::app::Model;
use super::message::{Command, Work};
use super::recovery::{self, Keeper};
use super::screens::Screen;
use super::screens::{self, Change};
use super::{shared, task_files};
use crate::score::{Fault, Scorer, diagnose};
use crate::task::Task;

/// The work that writes and removes the recovery file, and what it is of.
const KEEPING: &str = "draft.keep";
const UNSAVED: &str = "unsaved schema";

/// The draft of a task's schema.
#[derive(Debug, Default)]
pub struct Draft {
    /// As it stands in the editor.
    pub text: String,
    /// As on disk when it was read or saved.
    pub saved: String,
    /// The scorer of the last text that compiled.
    pub scorer: Option<Arc<Scorer>>,
    /// Why the text does not compile now: the scorer is that of an older text.
    pub stale: Option<String>,
    /// Counts the texts that compiled.
    pub version: u64,
    /// What is wrong or odd in the text, in its order.
    pub faults: Vec<Fault>,
    /// The task with the last text that compiled.
    pub task: Option<Arc<Task>>,
    /// The scorer of the text as saved, to compare with.
    pub saved_scorer: Option<Arc<Scorer>>,
    /// An unsaved text of an earlier session, until the user has decided about it.
    pub offer: Option<Offer>,
    /// What somebody else has written into the file while the text here is unsaved, until the user has decided.
    pub theirs: Option<String>,
    base: Option<Task>,
    recovery: Option<PathBuf>,
    keeper: Arc<Keeper>,
    /// The text that the recovery file holds; `None` where there is no such file.
    kept: Option<String>,
    /// Time and length of the file when it was last looked at.
    seen: Option<Stamp>,
}

/// An unsaved text that a crash has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub text: String,
    /// When it was kept, milliseconds since 1970.
    pub time_ms: u64,
}

type Stamp = (Option<SystemTime>, u64);

impl Draft {
    /// Take a task's schema. A text that is unsaved here stays, where it is the same task read again; one of an earlier session is offered.
    pub(super) fn open(&mut self, task: &Task, data: &Path) -> Vec<Command> {
        let recovery = recovery_file(task, data);
        let again = self.recovery.as_ref() == Some(&recovery);
        let unsaved = self.is_changed();
        let mut commands = Vec::new();
        if again && unsaved {
            if self.saved != task.schema_text && self.text != task.schema_text {
                self.theirs = Some(task.schema_text.clone());
            }
        } else {
            commands.extend(self.keep().filter(|_| unsaved));
            self.text.clone_from(&task.schema_text);
            self.offer = None;
            self.theirs = None;
        }
        if self.theirs.is_none() {
            self.saved.clone_from(&task.schema_text);
        }
        self.recovery = Some(recovery.clone());
        self.base = Some(task.clone());
        self.seen = None;
        if !again {
            self.kept = None;
            self.scorer = None;
            commands.push(look_for_offer(recovery));
        }
        commands.extend([self.compile(), self.compile_saved()]);
        commands
    }

    /// Whether the text differs from the file.
    pub fn is_changed(&self) -> bool {
        self.text != self.saved
    }

    /// Where an unsaved text is kept.
    pub fn recovery_file(&self) -> Option<&Path> {
        self.recovery.as_deref()
    }

    /// The schema's file; `None` where the task is a part of the program.
    pub fn file(&self) -> Option<PathBuf> {
        let base = self.base.as_ref()?;
        Some(base.folder()?.join(&base.schema_file))
    }

    /// The task has moved to a folder of its own, with all of its files: what is kept for it moves too.
    pub(super) fn moved(&mut self, task: &Task, data: &Path) -> Option<Command> {
        let removed = self.kept.take().and_then(|_| self.forget());
        self.recovery = Some(recovery_file(task, data));
        self.base = Some(task.clone());
        removed
    }

    /// The work that makes a scorer of the text as it stands.
    fn compile(&self) -> Command {
        let (task, text) = (self.base.clone(), self.text.clone());
        Work::latest(
            "schema",
            move |_| task.map(|task| diagnose(&task, &text)),
            |model, found| {
                let Some(found) = found else { return Vec::new() };
                let draft = &mut model.shared.draft;
                draft.faults = found.faults;
                match (found.scorer, found.task) {
                    (Ok(scorer), Some(task)) => {
                        draft.scorer = Some(Arc::new(scorer));
                        draft.task = Some(Arc::new(task));
                        draft.stale = None;
                        draft.version += 1;
                    }
                    (Err(error), _) => draft.stale = Some(error),
                    (Ok(_), None) => {}
                }
                vec![Command::Changed(Change::Schema)]
            },
        )
    }

    fn compile_saved(&self) -> Command {
        let (task, text) = (self.base.clone(), self.saved.clone());
        Work::latest(
            "schema.saved",
            move |_| task.and_then(|task| Scorer::new(&task.with_schema_text(&text).ok()?).ok()),
            |model, scorer| {
                model.shared.draft.saved_scorer = scorer.map(Arc::new);
                vec![Command::Changed(Change::Schema)]
            },
        )
    }

    /// Write the text where a crash does not reach it, unless that has been done.
    fn keep(&mut self) -> Option<Command> {
        if !self.is_changed() || self.offer.is_some() || self.kept.as_ref() == Some(&self.text) {
            return None;
        }
        self.kept = Some(self.text.clone());
        Some(self.keeper.keep(KEEPING, UNSAVED, self.recovery.as_ref()?, self.text.clone()))
    }

    /// The recovery file is of no use any more.
    fn forget(&mut self) -> Option<Command> {
        self.kept = None;
        Some(self.keeper.forget(KEEPING, UNSAVED, self.recovery.as_ref()?))
    }

    /// Writes the unsaved text at once, for an end that leaves no time for work beside the view.
    ///
    /// # Errors
    /// A sentence with the file.
    pub fn keep_now(&self) -> Result<(), String> {
        match self.recovery.as_ref().filter(|_| self.is_changed() && self.offer.is_none()) {
            Some(path) => self.keeper.keep_now(path, &self.text),
            None => Ok(()),
        }
    }
}

/// The text was edited: it is compiled beside the view, and kept where a crash does not reach it once typing pauses.
pub fn edited(model: &mut Model, text: String) -> Vec<Command> {
    model.shared.draft.text = text;
    vec![model.shared.draft.compile()]
}

/// Another text from outside the editor: a draft, the file's, an external editor's.
fn replaced(model: &mut Model, text: String) -> Vec<Command> {
    let mut commands = edited(model, text);
    commands.extend(screens::schema::show_text(model));
    commands.extend(model.shared.draft.keep());
    commands
}

/// A second has passed: the unsaved text is kept, and the file is looked at while the screen shows it.
pub fn second(model: &mut Model) -> Vec<Command> {
    let shown = model.shared.screen == Screen::Schema;
    let draft = &mut model.shared.draft;
    let mut commands: Vec<Command> = draft.keep().into_iter().collect();
    if !draft.is_changed() && draft.kept.is_some() {
        commands.extend(draft.forget());
    }
    if shown && draft.theirs.is_none() && !model.shared.is_busy("draft.disk") && !model.shared.is_busy("task.save") {
        commands.extend(look_at_file(model));
    }
    commands
}

fn look_at_file(model: &Model) -> Option<Command> {
    let draft = &model.shared.draft;
    let (path, seen, base) = (draft.file()?, draft.seen, draft.base.clone()?);
    Some(Work::once(
        "draft.disk",
        move || {
            let stamp = task_files::stamp(&path);
            let read = || String::from_utf8(base.read(&base.schema_file).ok()?.into_owned()).ok();
            let text = if stamp == seen { None } else { read() };
            (path, stamp, text)
        },
        |model, (path, stamp, text)| {
            if model.shared.draft.file().as_ref() != Some(&path) || model.shared.is_busy("task.save") {
                return Vec::new();
            }
            let draft = &mut model.shared.draft;
            let vanished = draft.seen.is_some() && stamp.is_none();
            draft.seen = stamp;
            if vanished {
                model.shared.complain(format!("{} was deleted on disk: save to write it again", path.display()));
            }
            match text {
                Some(text) => on_disk(model, text),
                None => Vec::new(),
            }
        },
    ))
}

/// What the file holds now. Without unsaved text it is taken; else the user decides.
fn on_disk(model: &mut Model, text: String) -> Vec<Command> {
    let draft = &mut model.shared.draft;
    if text == draft.saved {
        return Vec::new();
    }
    if text == draft.text {
        draft.saved = text;
        return vec![draft.compile_saved()];
    }
    let name = draft.base.as_ref().map_or_else(String::new, |task| task.schema_file.clone());
    if draft.is_changed() {
        draft.theirs = Some(text);
        model.shared.complain(format!("{name} changed on disk while you have unsaved edits: choose a version on screen 2"));
        return Vec::new();
    }
    draft.saved.clone_from(&text);
    let saved = draft.compile_saved();
    model.shared.say(format!("{name} changed on disk: reloaded"));
    let mut commands = replaced(model, text);
    commands.push(saved);
    commands
}

/// A file was written by an external editor or by this program.
pub fn file_written(model: &mut Model, path: &Path) -> Vec<Command> {
    let draft = &mut model.shared.draft;
    if draft.file().as_deref() == Some(path) {
        draft.seen = None;
        return look_at_file(model).into_iter().collect();
    }
    if draft.recovery_file() != Some(path) {
        return Vec::new();
    }
    let path = path.to_owned();
    let read = Work::once(
        "draft.edited",
        move || std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display())),
        |model, text| match text {
            Ok(text) if text == model.shared.draft.text => Vec::new(),
            Ok(text) => {
                model.shared.draft.kept = Some(text.clone());
                model.shared.say("text loaded from $EDITOR, unsaved");
                replaced(model, text)
            }
            Err(error) => {
                model.shared.complain(error);
                Vec::new()
            }
        },
    );
    vec![read]
}

/// Open the schema in the user's editor: the file where all is saved, else the kept copy of the unsaved text.
pub fn edit_outside(model: &mut Model, line: usize) -> Vec<Command> {
    let draft = &mut model.shared.draft;
    if let Some(path) = draft.file().filter(|_| !draft.is_changed()) {
        return vec![Command::Edit { path, line }];
    }
    let Some(path) = draft.recovery.clone() else { return Vec::new() };
    draft.kept = Some(draft.text.clone());
    let text = draft.text.clone();
    let write = Work::once(
        "draft.outside",
        move || task_files::write_private(&path, text.as_bytes()).map(|()| path),
        move |model, written| match written {
            Ok(path) => vec![Command::Edit { path, line }],
            Err(error) => {
                model.shared.complain(error);
                Vec::new()
            }
        },
    );
    vec![write]
}

/// Save the text into the task's file; a task that is a part of the program becomes a copy in the data directory first.
pub fn save(model: &mut Model) -> Vec<Command> {
    let draft = &model.shared.draft;
    let Some(base) = draft.base.clone() else { return Vec::new() };
    let (text, saved, compiles) = (draft.text.clone(), draft.saved.clone(), draft.stale.is_none());
    let data = model.shared.options.data.clone();
    let written = text.clone();
    let work = Work::once(
        "task.save",
        move || task_files::save_schema(&base, &data, &saved, &text),
        move |model, outcome| match outcome {
            Ok(home) => {
                model.shared.draft.saved = written;
                let mut commands = switch_to_copy(model, &home);
                if !home.is_copy {
                    model.shared.say(format!("saved {}", home.task.label(&home.task.schema_file)));
                }
                let draft = &mut model.shared.draft;
                if !draft.is_changed() {
                    commands.extend(draft.forget());
                }
                draft.seen = None;
                if compiles || home.is_copy {
                    commands.extend(shared::open_task(&model.shared, Some(home.folder.display().to_string())));
                }
                commands.extend(vec![Command::Changed(Change::File(home.folder.join(&home.task.schema_file)))]);
                commands
            }
            Err(task_files::SaveError::Changed(theirs)) => on_disk(model, theirs),
            Err(task_files::SaveError::Failed(error)) => {
                model.shared.complain(error);
                Vec::new()
            }
        },
    );
    vec![work]
}

/// Where a copy of the task was made, everything goes on in the copy.
pub fn switch_to_copy(model: &mut Model, home: &task_files::Home) -> Vec<Command> {
    if !home.is_copy {
        return Vec::new();
    }
    model.shared.say(format!("embedded task copied to {}: edits are saved there", home.folder.display()));
    let mut commands = screens::prompts::moved(model, &home.task);
    commands.extend(model.shared.draft.moved(&home.task, &model.shared.options.data));
    commands
}

/// Back to the text as saved. The editor can undo it.
pub fn revert(model: &mut Model) -> Vec<Command> {
    let text = model.shared.draft.saved.clone();
    let mut commands = replaced(model, text);
    commands.extend(model.shared.draft.forget());
    commands
}

/// Take the draft of the earlier session.
pub fn take_offer(model: &mut Model) -> Vec<Command> {
    let Some(offer) = model.shared.draft.offer.take() else { return Vec::new() };
    model.shared.draft.kept = Some(offer.text.clone());
    model.shared.say("draft restored, unsaved");
    replaced(model, offer.text)
}

/// Throw the draft of the earlier session away.
pub fn discard_offer(model: &mut Model) -> Vec<Command> {
    if model.shared.draft.offer.take().is_none() {
        return Vec::new();
    }
    model.shared.say("draft discarded");
    model.shared.draft.forget().into_iter().collect()
}

/// Keep the own text against the one on disk.
pub fn keep_own_version(model: &mut Model) -> Vec<Command> {
    let draft = &mut model.shared.draft;
    let Some(theirs) = draft.theirs.take() else { return Vec::new() };
    draft.saved = theirs;
    let commands = vec![draft.compile_saved()];
    model.shared.say("keeping your version: saving overwrites the file on disk");
    commands
}

/// Take the text on disk instead of the own one.
pub fn load_from_disk(model: &mut Model) -> Vec<Command> {
    let draft = &mut model.shared.draft;
    let Some(theirs) = draft.theirs.take() else { return Vec::new() };
    draft.saved.clone_from(&theirs);
    let mut commands = vec![draft.compile_saved()];
    model.shared.say("loaded the file from disk (undo restores your text)");
    commands.extend(replaced(model, theirs));
    commands.extend(model.shared.draft.forget());
    commands
}

fn look_for_offer(path: PathBuf) -> Command {
    Work::once(
        "draft.offer",
        move || {
            let text = std::fs::read_to_string(&path).ok()?;
            let time = task_files::stamp(&path).and_then(|(time, _)| time?.duration_since(SystemTime::UNIX_EPOCH).ok());
            Some((path, Offer { text, time_ms: time.map_or(0, |time| time.as_millis() as u64) }))
        },
        |model, found| {
            let draft = &mut model.shared.draft;
            let Some((path, offer)) = found.filter(|(path, _)| draft.recovery.as_ref() == Some(path)) else { return Vec::new() };
            if offer.text == draft.saved {
                return draft.forget().into_iter().collect();
            }
            if offer.text != draft.text {
                model.shared.complain(format!(
                    "unsaved schema from {}: restore it on screen 2 ({})",
                    super::clock(offer.time_ms),
                    path.display()
                ));
                model.shared.draft.offer = Some(offer);
            }
            Vec::new()
        },
    )
}

fn recovery_file(task: &Task, data: &Path) -> PathBuf {
    recovery::folder(data).join(format!("{}-{}.json", task.name, recovery::mark(task, &task.schema_file)))
}
