//! The schema's file and its text under edit: opening, compiling, saving, the external editor, changes on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::structure::Structure;
use super::{Schema, layout};
use crate::score::{Scorer, Trust, TrustError, diagnose};
use crate::secrets::visible;
use crate::task::Task;
use crate::view::drafts::files::{DraftFile, Location, Record};
use crate::view::drafts::{self, Drafted};
use crate::view::message::{Change, Command, Work};
use crate::view::popup::{Confirm, Popup};
use crate::view::schema_draft::SchemaDraft;
use crate::view::screens::Screen;
use crate::view::shared::{self, Shared};
use crate::view::task_files::{self, SaveError};
use crate::view::widgets::editor::Editor;

/// Opens a task's schema. An unsaved text stays if the same task was read again.
pub(super) fn open(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else { return Vec::new() };
    let task = &open.task;
    let draft = &mut shared.draft;
    let again = draft.file.is_of(task);
    let mut commands = Vec::new();
    if again && draft.is_changed() {
        if draft.saved != task.definition_text && draft.text != task.definition_text {
            draft.theirs = Some(task.definition_text.clone());
        }
    } else {
        if !again {
            commands = drafts::park(schema, shared);
            shared.draft.file = drafts::begin::<Schema>(shared, task);
            shared.draft.scorer = None;
            (shared.draft.outline, shared.draft.programs) = (Vec::new(), Vec::new());
            // What is known of the other task's schema says nothing of this one.
            shared.draft.version += 1;
        }
        shared.draft.text.clone_from(&task.definition_text);
        shared.draft.theirs = None;
    }
    let draft = &mut shared.draft;
    if draft.theirs.is_none() {
        draft.saved.clone_from(&task.definition_text);
    }
    draft.base = Some(task.clone());
    draft.seen = None;
    commands.extend([compile(draft), compile_saved(draft)]);
    commands
}

/// Compiles the text in the background.
fn compile(draft: &SchemaDraft) -> Command {
    let (task, text) = (draft.base.clone(), draft.text.clone());
    Work::latest(
        "schema",
        move |_| task.map(|task| diagnose(&task, &text)),
        |_: &mut (), shared: &mut Shared, found| {
            let Some(found) = found else { return Vec::new() };
            let draft = &mut shared.draft;
            draft.faults = found.faults;
            draft.needs_command = found.needs_command;
            let is_read = found.scorer.is_ok() || found.needs_command;
            draft.is_outline_old = !is_read && !draft.outline.is_empty();
            if is_read {
                draft.outline = found.outline;
                draft.programs = found.programs;
            }
            match (found.scorer, found.task) {
                (Ok(scorer), Some(task)) => {
                    draft.scorer = Some(Arc::new(scorer));
                    draft.task = Some(Arc::new(task));
                    draft.stale = None;
                    draft.version += 1;
                }
                (Err(error), task) => {
                    // What a program said that may not run any more is no score of this text.
                    if found.needs_command {
                        draft.scorer = None;
                        draft.version += 1;
                        draft.task = task.map(Arc::new).or(draft.task.take());
                    }
                    draft.stale = Some(error);
                }
                (Ok(_), None) => {}
            }
            vec![Command::Changed(Change::Schema)]
        },
    )
}

fn compile_saved(draft: &SchemaDraft) -> Command {
    let (task, text) = (draft.base.clone(), draft.saved.clone());
    Work::latest(
        "schema.saved",
        move |_| task.and_then(|task| Scorer::new(&task.with_definition_text(&text).ok()?).ok()),
        |_: &mut (), shared: &mut Shared, scorer| {
            shared.draft.saved_scorer = scorer.map(Arc::new);
            vec![Command::Changed(Change::Schema)]
        },
    )
}

/// After an edit: compiles the text in the background.
pub fn edited(shared: &mut Shared, text: String) -> Vec<Command> {
    shared.draft.text = text;
    vec![compile(&shared.draft)]
}

/// Replaces the text by one from outside the editor: a draft, the file, an external editor.
fn replaced(schema: &mut Schema, shared: &mut Shared, text: String) -> Vec<Command> {
    let commands = edited(shared, text);
    show_text(schema, shared);
    commands
}

/// Once a second: stores the unsaved text, and checks the file while the screen shows it.
pub fn second(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let mut commands = drafts::store(schema, shared);
    let may_look = shared.draft.theirs.is_none() && !shared.is_busy("draft.disk") && !shared.is_busy("task.save");
    if shared.screen == Screen::Schema && may_look {
        commands.extend(look_at_file(shared));
    }
    commands
}

fn look_at_file(shared: &Shared) -> Option<Command> {
    let draft = &shared.draft;
    let (path, seen, base, programs) = (draft.path()?, draft.seen, draft.base.clone()?, program_files(draft));
    Some(Work::once(
        "draft.disk",
        move || {
            let stamp = task_files::stamp(&path);
            let programs: Vec<_> = programs.iter().map(|path| task_files::stamp(path)).collect();
            let read = || String::from_utf8(base.read(&base.definition_file).ok()?.into_owned()).ok();
            let text = if stamp == seen { None } else { read() };
            (path, stamp, programs, text)
        },
        |schema: &mut Schema, shared, (path, stamp, programs, text)| {
            if shared.draft.path().as_ref() != Some(&path) || shared.is_busy("task.save") {
                return Vec::new();
            }
            let draft = &mut shared.draft;
            let vanished = draft.seen.is_some() && stamp.is_none();
            draft.seen = stamp;
            let is_new = draft.seen_programs.len() == programs.len() && draft.seen_programs != programs;
            draft.seen_programs = programs;
            let again = is_new.then(|| [compile(draft), compile_saved(draft)]);
            if vanished {
                shared.complain(format!("{} was deleted on disk: save to write it again", path.display()));
            }
            let read = text.map(|text| on_disk(schema, shared, text)).unwrap_or_default();
            again.into_iter().flatten().chain(read).collect()
        },
    ))
}

/// The files of the programs, which another program may change.
fn program_files(draft: &SchemaDraft) -> Vec<PathBuf> {
    let folder = draft.base.as_ref().and_then(Task::folder);
    let files = draft.programs.iter().flat_map(|program| &program.files);
    folder.into_iter().flat_map(|folder| files.clone().map(|file| folder.join(file))).collect()
}

/// Handles the file's content: loaded if there is no unsaved text, else the user decides.
fn on_disk(schema: &mut Schema, shared: &mut Shared, text: String) -> Vec<Command> {
    let draft = &mut shared.draft;
    if text == draft.saved {
        return Vec::new();
    }
    if text == draft.text {
        draft.saved = text;
        return vec![compile_saved(draft)];
    }
    let name = draft.base.as_ref().map_or_else(String::new, |task| task.definition_file.clone());
    if draft.is_changed() {
        draft.theirs = Some(text);
        let key = shared.key_of("screen.schema");
        shared.complain(format!(
            "{name} changed on disk while you have unsaved edits: choose a version on Schema ({key})"
        ));
        return Vec::new();
    }
    draft.saved.clone_from(&text);
    let saved = compile_saved(draft);
    shared.say(format!("{name} changed on disk: reloaded"));
    let mut commands = replaced(schema, shared, text);
    commands.push(saved);
    commands
}

/// After a file was written by an external editor or by this program.
pub(super) fn file_written(shared: &mut Shared, path: &Path) -> Vec<Command> {
    let draft = &mut shared.draft;
    if draft.path().as_deref() == Some(path) {
        draft.seen = None;
        return look_at_file(shared).into_iter().collect();
    }
    if draft.file.path != path {
        return Vec::new();
    }
    let path = path.to_owned();
    let read = Work::once(
        "draft.edited",
        move || std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display())),
        |schema: &mut Schema, shared, text| match text {
            Ok(text) if text == shared.draft.text => Vec::new(),
            Ok(text) => {
                shared.draft.file.stored = Some(text.clone());
                shared.say("text loaded from $EDITOR, unsaved");
                replaced(schema, shared, text)
            }
            Err(error) => {
                shared.complain(error);
                Vec::new()
            }
        },
    );
    vec![read]
}

/// Opens the schema in the external editor: the file if all is saved, else the draft.
pub(super) fn edit_outside(shared: &mut Shared, line: usize) -> Vec<Command> {
    let draft = &mut shared.draft;
    if let Some(path) = draft.path().filter(|_| !draft.is_changed()) {
        return vec![Command::Edit { path, line }];
    }
    let (path, text) = (draft.file.path.clone(), draft.text.clone());
    draft.file.stored = Some(text.clone());
    vec![drafts::write_then(shared, "draft.outside", vec![(path.clone(), Some(text))], move || {
        vec![Command::Edit { path, line }]
    })]
}

/// Saves the text into the task's file; an embedded task is copied into the data directory first.
pub(super) fn save(shared: &mut Shared) -> Vec<Command> {
    let draft = &shared.draft;
    let Some(base) = draft.base.clone() else { return Vec::new() };
    let (text, saved, compiles) =
        (draft.text.clone(), draft.saved.clone(), draft.stale.is_none() || draft.needs_command);
    let data = shared.options.data.clone();
    let written = text.clone();
    let work = Work::once(
        "task.save",
        move || task_files::save_schema(&base, &data, &saved, &text),
        move |schema: &mut Schema, shared, outcome| match outcome {
            Ok(home) => {
                shared.draft.saved = written;
                let mut commands = shared::switch_to_copy(shared, &home);
                if !home.is_copy {
                    shared.say(format!("saved {}", home.task.label(&home.task.definition_file)));
                }
                commands.extend(drafts::store(schema, shared));
                shared.draft.seen = None;
                if compiles || home.is_copy {
                    commands.extend(shared::open_task(shared, Some(home.folder.display().to_string())));
                }
                commands.push(Command::Changed(Change::File(home.folder.join(&home.task.definition_file))));
                commands
            }
            Err(SaveError::Changed(theirs)) => on_disk(schema, shared, theirs),
            Err(SaveError::Failed(error)) => {
                shared.complain(error);
                Vec::new()
            }
        },
    );
    vec![work]
}

/// The task was copied into a folder: the text belongs to the copy now.
pub(super) fn copied(schema: &mut Schema, shared: &mut Shared, copy: &Task) -> Vec<Command> {
    shared.draft.base = Some(copy.clone());
    drafts::move_to_copy(schema, shared, copy)
}

/// Shows the command that the text names, and asks whether it may run.
pub(super) fn ask_trust(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let draft = &shared.draft;
    let task = draft.base.as_ref().map(|task| task.with_definition_text(&draft.text));
    let all = match task.map(|task| task.map_err(TrustError::from).and_then(|task| Trust::of(&task))) {
        Some(Ok(all)) => all,
        Some(Err(error)) => {
            shared.complain(error.to_string());
            return Vec::new();
        }
        None => return Vec::new(),
    };
    if all.iter().all(|trust| trust.is_trusted) {
        shared.say("the command is trusted already");
        return Vec::new();
    }
    let lines = all.iter().flat_map(|trust| {
        let files = (!trust.files.is_empty()).then(|| format!("files: {}", trust.files.join(", ")));
        trust.command_lines().chain(files).chain(trust.missing.clone())
    });
    let lines: Vec<String> = lines.map(|line| visible(&line).into_owned()).collect();
    let text = format!("{}\n\nIt runs with your rights.", lines.join("\n"));
    let confirm = Confirm::new("Trust this command?", text, "trust", move |_: &mut Schema, shared: &mut Shared| {
        match all.iter().try_for_each(|trust| trust.set(true)) {
            Ok(()) => shared.say("command trusted"),
            Err(error) => shared.complain(error.to_string()),
        }
        vec![compile(&shared.draft), compile_saved(&shared.draft)]
    });
    shared.popup = Some(Popup::Confirm(confirm));
    Vec::new()
}

/// Reverts to the saved text. The editor can undo it.
pub(super) fn revert(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let text = shared.draft.saved.clone();
    let mut commands = replaced(schema, shared, text);
    commands.extend(drafts::store(schema, shared));
    commands
}

/// Loads the draft's text into the editor.
pub(super) fn show_text(schema: &mut Schema, shared: &mut Shared) {
    let text = &shared.draft.text;
    if schema.shown.as_ref() != Some(text) {
        match schema.shown.is_none() || schema.editor.lines() == [String::new()] {
            true => schema.editor = Editor::new(text, true),
            false => schema.editor.replace(text),
        }
        schema.shown = Some(text.clone());
        schema.completion = None;
        schema.structure = structure(schema, shared);
    }
    follow(schema, shared);
}

/// The values of a schema's text; none of another definition, so that no keyword is offered or explained there.
pub(super) fn structure(schema: &Schema, shared: &Shared) -> Structure {
    let is_schema = shared.draft.base.as_ref().is_none_or(|task| task.schema().is_some());
    if is_schema { Structure::of(schema.editor.lines()) } else { Structure::default() }
}

/// Scrolls the window to the cursor.
pub(super) fn follow(schema: &mut Schema, shared: &mut Shared) {
    let window = layout::window(schema, shared);
    schema.editor.follow(window);
}

impl Drafted for Schema {
    const SCREEN: Screen = Screen::Schema;
    const STEM: &'static str = "schema";
    const ACTIONS: [&'static str; 4] = ["schema.take", "schema.own", "schema.discard", "schema.difference"];
    const WORK: &'static str = "schema.drafts";

    fn draft_file<'a>(&'a mut self, shared: &'a mut Shared) -> Option<&'a mut DraftFile> {
        Some(&mut shared.draft.file)
    }

    fn texts(&self, shared: &Shared) -> Option<(String, String)> {
        Some((shared.draft.saved.clone(), shared.draft.text.clone()))
    }

    fn title(&self) -> String {
        "schema".to_owned()
    }

    // The bare text, which an external editor can open.
    fn write(&self, _: &Shared, text: String) -> String {
        text
    }

    fn read(text: String, time_ms: u64) -> Result<Record, String> {
        Ok(Record { task: String::new(), of: serde_json::Value::Null, cursor: (0, 0), time_ms, text })
    }

    fn is_free(&self) -> bool {
        true
    }

    fn is_typing(&self) -> bool {
        self.is_typing()
    }

    fn locate(&self, shared: &Shared, _: &Record) -> Result<Location, String> {
        Ok(Location { title: self.title(), current: shared.draft.text.clone(), note: None })
    }

    fn restore(&mut self, shared: &mut Shared, record: &Record) -> Result<Vec<Command>, String> {
        Ok(replaced(self, shared, record.text.clone()))
    }

    fn on_disk(&self, shared: &Shared) -> Option<String> {
        shared.draft.theirs.clone()
    }

    fn resolve_conflict(&mut self, shared: &mut Shared, load: bool) -> Vec<Command> {
        let draft = &mut shared.draft;
        let Some(theirs) = draft.theirs.take() else { return Vec::new() };
        draft.saved.clone_from(&theirs);
        let mut commands = vec![compile_saved(draft)];
        if load {
            commands.extend(replaced(self, shared, theirs));
        }
        shared.say(if load { drafts::LOADED } else { drafts::KEPT });
        commands.extend(drafts::store(self, shared));
        commands
    }
}
