//! The schema as it stands in the editor: its text, what is wrong with it, the last scorer that it made, and the file on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::app::Model;
use super::drafts::{self, DraftFile, Drafted, Location, Record};
use super::message::{Command, Work};
use super::screens::Screen;
use super::screens::prompts::Prompts;
use super::screens::schema::Schema;
use super::screens::{self, Change};
use super::{shared, task_files};
use crate::score::{Fault, Scorer, diagnose};
use crate::task::Task;

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
    /// What somebody else has written into the file while the text here is unsaved, until the user has decided.
    pub theirs: Option<String>,
    base: Option<Task>,
    /// Where the text is kept while it is unsaved.
    pub file: DraftFile,
    /// Time and length of the file when it was last looked at.
    seen: Option<Stamp>,
}

type Stamp = (Option<SystemTime>, u64);

/// Takes a task's schema. An unsaved text stays where it is the same task read again.
pub fn open(model: &mut Model) -> Vec<Command> {
    let Some(open) = model.shared.task.clone() else { return Vec::new() };
    let task = &open.task;
    let draft = &mut model.shared.draft;
    let again = draft.file.is_of(task);
    let mut commands = Vec::new();
    if again && draft.is_changed() {
        if draft.saved != task.schema_text && draft.text != task.schema_text {
            draft.theirs = Some(task.schema_text.clone());
        }
    } else {
        if !again {
            commands = drafts::park::<Schema>(model);
            model.shared.draft.file = DraftFile::new::<Schema>(model, task);
            model.shared.draft.scorer = None;
        }
        model.shared.draft.text.clone_from(&task.schema_text);
        model.shared.draft.theirs = None;
    }
    let draft = &mut model.shared.draft;
    if draft.theirs.is_none() {
        draft.saved.clone_from(&task.schema_text);
    }
    draft.base = Some(task.clone());
    draft.seen = None;
    commands.extend([draft.compile(), draft.compile_saved()]);
    commands
}

impl Draft {
    /// Whether the text differs from the file.
    pub fn is_changed(&self) -> bool {
        self.text != self.saved
    }

    /// The schema's file; `None` where the task is a part of the program.
    pub fn path(&self) -> Option<PathBuf> {
        let base = self.base.as_ref()?;
        Some(base.folder()?.join(&base.schema_file))
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
}

/// The text was edited: it is compiled beside the view.
pub fn edited(model: &mut Model, text: String) -> Vec<Command> {
    model.shared.draft.text = text;
    vec![model.shared.draft.compile()]
}

/// Another text from outside the editor: a draft, the file's, an external editor's.
fn replaced(model: &mut Model, text: String) -> Vec<Command> {
    let mut commands = edited(model, text);
    commands.extend(screens::schema::show_text(model));
    commands
}

/// A second has passed: the unsaved text is stored, and the file is looked at while the screen shows it.
pub fn second(model: &mut Model) -> Vec<Command> {
    let mut commands = drafts::store::<Schema>(model);
    let may_look = model.shared.draft.theirs.is_none() && !model.shared.is_busy("draft.disk") && !model.shared.is_busy("task.save");
    if model.shared.screen == Screen::Schema && may_look {
        commands.extend(look_at_file(model));
    }
    commands
}

fn look_at_file(model: &Model) -> Option<Command> {
    let draft = &model.shared.draft;
    let (path, seen, base) = (draft.path()?, draft.seen, draft.base.clone()?);
    Some(Work::once(
        "draft.disk",
        move || {
            let stamp = task_files::stamp(&path);
            let read = || String::from_utf8(base.read(&base.schema_file).ok()?.into_owned()).ok();
            let text = if stamp == seen { None } else { read() };
            (path, stamp, text)
        },
        |model, (path, stamp, text)| {
            if model.shared.draft.path().as_ref() != Some(&path) || model.shared.is_busy("task.save") {
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
    if draft.path().as_deref() == Some(path) {
        draft.seen = None;
        return look_at_file(model).into_iter().collect();
    }
    if draft.file.path != path {
        return Vec::new();
    }
    let path = path.to_owned();
    let read = Work::once(
        "draft.edited",
        move || std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display())),
        |model, text| match text {
            Ok(text) if text == model.shared.draft.text => Vec::new(),
            Ok(text) => {
                model.shared.draft.file.stored = Some(text.clone());
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

/// Open the schema in the user's editor: the file where all is saved, else the draft.
pub fn edit_outside(model: &mut Model, line: usize) -> Vec<Command> {
    let draft = &mut model.shared.draft;
    if let Some(path) = draft.path().filter(|_| !draft.is_changed()) {
        return vec![Command::Edit { path, line }];
    }
    let (path, text) = (draft.file.path.clone(), draft.text.clone());
    draft.file.stored = Some(text.clone());
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
                commands.extend(drafts::store::<Schema>(model));
                model.shared.draft.seen = None;
                if compiles || home.is_copy {
                    commands.extend(shared::open_task(&model.shared, Some(home.folder.display().to_string())));
                }
                commands.push(Command::Changed(Change::File(home.folder.join(&home.task.schema_file))));
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
    let mut commands = drafts::move_to_copy::<Prompts>(model, &home.task);
    commands.extend(drafts::move_to_copy::<Schema>(model, &home.task));
    model.shared.draft.base = Some(home.task.clone());
    commands
}

/// Back to the text as saved. The editor can undo it.
pub fn revert(model: &mut Model) -> Vec<Command> {
    let text = model.shared.draft.saved.clone();
    let mut commands = replaced(model, text);
    commands.extend(drafts::store::<Schema>(model));
    commands
}

impl Drafted for Schema {
    const SCREEN: Screen = Screen::Schema;
    const STEM: &'static str = "schema";
    const ACTIONS: [&'static str; 4] = ["schema.take", "schema.own", "schema.discard", "schema.difference"];
    const WORK: &'static str = "schema.drafts";

    fn draft_file(model: &mut Model) -> Option<&mut DraftFile> {
        Some(&mut model.shared.draft.file)
    }

    fn texts(model: &Model) -> Option<(String, String)> {
        Some((model.shared.draft.saved.clone(), model.shared.draft.text.clone()))
    }

    fn title(_: &Model) -> String {
        "schema".to_owned()
    }

    // The bare text, which an external editor can open.
    fn write(_: &Model, text: String) -> String {
        text
    }

    fn read(text: String, time_ms: u64) -> Result<Record, String> {
        Ok(Record { task: String::new(), of: serde_json::Value::Null, cursor: (0, 0), time_ms, text })
    }

    fn is_free(_: &Model) -> bool {
        true
    }

    fn locate(model: &Model, _: &Record) -> Result<Location, String> {
        Ok(Location { title: Self::title(model), current: model.shared.draft.text.clone(), note: None })
    }

    fn restore(model: &mut Model, record: &Record) -> Result<Vec<Command>, String> {
        Ok(replaced(model, record.text.clone()))
    }

    fn on_disk(model: &Model) -> Option<String> {
        model.shared.draft.theirs.clone()
    }

    fn settle(model: &mut Model, load: bool) -> Vec<Command> {
        let draft = &mut model.shared.draft;
        let Some(theirs) = draft.theirs.take() else { return Vec::new() };
        draft.saved.clone_from(&theirs);
        let mut commands = vec![draft.compile_saved()];
        if load {
            commands.extend(replaced(model, theirs));
        }
        model.shared.say(if load { drafts::LOADED } else { drafts::KEPT });
        commands.extend(drafts::store::<Self>(model));
        commands
    }
}
