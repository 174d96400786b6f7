//! The schema's file and its edited text: open, compile, save, external editor, changes on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::structure::Structure;
use super::{Schema, layout};
use crate::drafts::files::{DraftFile, Location, Record};
use crate::drafts::{self, DraftActions, Drafted};
use crate::help::diagnose;
use crate::message::{Change, Command, Work};
use crate::popup::{Confirm, Popup};
use crate::schema_draft::SchemaDraft;
use crate::score::{Scorer, Task, Trust, TrustError};
use crate::screens::Screen;
use crate::secrets::visible_lines;
use crate::shared::{self, Shared};
use crate::task::TASK_FILE;
use crate::task_files::{self, SaveError};
use crate::widgets::editor::Editor;

/// Opens a task's definition, or `task.toml` if that was chosen or has unsaved changes.
pub(super) fn open(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let draft = &mut shared.draft;
    draft.edits_toml |= draft.is_toml() && draft.is_changed();
    draft.edits_toml &= draft.file.is_of(&open.task);
    let base = if draft.edits_toml {
        &open.toml
    } else {
        &open.task
    };
    begin(schema, shared, base)
}

/// Opens the `task.toml` of an unreadable task, unless the edited text is unsaved or is the faulty
/// file.
pub(super) fn open_unreadable(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let Some((place, toml)) = shared
        .task_error
        .clone()
        .and_then(|failure| Some((failure.place, failure.toml?)))
    else {
        return Vec::new();
    };
    let draft = &shared.draft;
    let is_at_fault = place
        .as_ref()
        .is_some_and(|(file, _)| draft.path().as_ref() == Some(file));
    if draft.file.is_of(&toml) && !draft.is_toml() && (draft.is_changed() || is_at_fault) {
        return read_file(shared).into_iter().collect();
    }
    let commands = begin(schema, shared, &toml);
    show_text(schema, shared);
    if let Some((_, line)) = place.filter(|(file, _)| shared.draft.path().as_ref() == Some(file)) {
        schema.editor.go_to(line.saturating_sub(1), 0);
        follow(schema, shared);
    }
    commands
}

pub(super) fn toggle_toml(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    shared.draft.edits_toml = !shared.draft.is_toml();
    schema.typing = false;
    let commands = open(schema, shared);
    show_text(schema, shared);
    commands
}

/// Edits the text of a task's definition. An unsaved text stays if the same task is read again.
fn begin(schema: &mut Schema, shared: &mut Shared, task: &Task) -> Vec<Command> {
    let draft = &shared.draft;
    let again = draft.file.is_of(task);
    let is_same = again
        && draft
            .base
            .as_ref()
            .is_some_and(|base| base.definition_file == task.definition_file);
    let mut commands = Vec::new();
    if is_same && draft.is_changed() {
        if draft.saved != task.definition_text && draft.text != task.definition_text {
            shared.draft.theirs = Some(task.definition_text.clone());
        }
    } else {
        if !is_same {
            commands = if again {
                drafts::store(schema, shared)
            } else {
                drafts::park(schema, shared)
            };
            shared.draft.file = drafts::begin::<Schema>(shared, task);
            shared.draft.faults = Vec::new();
            // Undo stays within one file.
            schema.shown = None;
        }
        if !again {
            shared.draft.scorer = None;
            shared.draft.programs = Vec::new();
            // Results of the other task's schema do not apply to this one.
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
    commands.extend([compile(draft), compile_saved(draft)]);
    commands
}

fn compile(draft: &SchemaDraft) -> Command {
    let (task, text) = (draft.base.clone(), draft.text.clone());
    Work::latest(
        "schema",
        move |_| task.map(|task| diagnose(&task, &text)),
        |_: &mut (), shared: &mut Shared, found| {
            let Some(found) = found else {
                return Vec::new();
            };
            let draft = &mut shared.draft;
            draft.faults = found.faults;
            draft.needs_command = found.needs_command;
            let is_read = found.scorer.is_ok() || found.needs_command;
            if is_read {
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
                    // Output of a program without permission to run is not a score of this text.
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

pub fn edited(shared: &mut Shared, text: String) -> Vec<Command> {
    shared.draft.text = text;
    vec![compile(&shared.draft)]
}

fn replaced(schema: &mut Schema, shared: &mut Shared, text: String) -> Vec<Command> {
    let commands = edited(shared, text);
    show_text(schema, shared);
    commands
}

fn read_file(shared: &Shared) -> Option<Command> {
    let (path, base) = (shared.draft.path()?, shared.draft.base.clone()?);
    Some(Work::once(
        "draft.disk",
        move || {
            Some((
                path,
                String::from_utf8(base.read(&base.definition_file).ok()?.into_owned()).ok()?,
            ))
        },
        |schema: &mut Schema, shared, read| match read {
            Some((path, text))
                if shared.draft.path().as_ref() == Some(&path) && !shared.is_busy("task.save") =>
            {
                on_disk(schema, shared, text)
            }
            _ => Vec::new(),
        },
    ))
}

/// Handles the file's content: loads it if there is no unsaved text, else asks the user.
fn on_disk(schema: &mut Schema, shared: &mut Shared, text: String) -> Vec<Command> {
    let draft = &mut shared.draft;
    if text == draft.saved {
        return Vec::new();
    }
    if text == draft.text {
        draft.saved = text;
        return vec![compile_saved(draft)];
    }
    let name = draft
        .base
        .as_ref()
        .map_or_else(String::new, |task| task.definition_file.clone());
    if draft.is_changed() {
        draft.theirs = Some(text);
        let key = shared.key_of("screen.schema");
        return shared.complain(format!(
            "{name} changed on disk while you have unsaved edits: choose a version on Schema ({key})"
        ));
    }
    draft.saved.clone_from(&text);
    let saved = compile_saved(draft);
    let mut commands = replaced(schema, shared, text);
    commands.push(saved);
    commands
}

/// Reloads files written by an external editor or another program.
pub(super) fn files_written(shared: &mut Shared, paths: &[PathBuf]) -> Vec<Command> {
    let draft = &shared.draft;
    if draft.path().is_some_and(|path| paths.contains(&path)) {
        return read_file(shared).into_iter().collect();
    }
    if !paths.contains(&draft.file.path) {
        return Vec::new();
    }
    let path = draft.file.path.clone();
    let read = Work::once(
        "draft.edited",
        move || {
            std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        },
        |schema: &mut Schema, shared, text| match text {
            Ok(text) if text == shared.draft.text => Vec::new(),
            Ok(text) => {
                shared.draft.file.stored = Some(text.clone());
                shared.say("text loaded from $EDITOR, unsaved");
                replaced(schema, shared, text)
            }
            Err(error) => shared.complain(error),
        },
    );
    vec![read]
}

/// Opens the external editor on the file if all is saved, else on the draft; for an unreadable task
/// on the faulty file.
pub(super) fn edit_outside(shared: &mut Shared, line: usize) -> Vec<Command> {
    let draft = &mut shared.draft;
    let place = shared
        .task_error
        .as_ref()
        .and_then(|failure| failure.place.clone());
    if let Some((path, line)) =
        place.filter(|(path, _)| !draft.is_changed() && draft.path().as_ref() != Some(path))
    {
        return vec![Command::Edit { path, line }];
    }
    if let Some(path) = draft.path().filter(|_| !draft.is_changed()) {
        return vec![Command::Edit { path, line }];
    }
    let (path, text) = (draft.file.path.clone(), draft.text.clone());
    draft.file.stored = Some(text.clone());
    vec![drafts::write_then(
        shared,
        "draft.outside",
        vec![(path.clone(), Some(text))],
        move || vec![Command::Edit { path, line }],
    )]
}

/// Saves the text to the task's file; an embedded task is first copied to the data directory.
pub(super) fn save(shared: &mut Shared) -> Vec<Command> {
    let draft = &shared.draft;
    let Some(base) = draft.base.clone() else {
        return Vec::new();
    };
    let (text, saved) = (draft.text.clone(), draft.saved.clone());
    let data = shared.options.data.clone();
    let written = text.clone();
    // An unreadable task is copied with the files that are known.
    let task = shared
        .task
        .as_ref()
        .map_or_else(|| base.clone(), |open| open.task.clone());
    let file = base.definition_file.clone();
    let name = file.clone();
    let work = Work::once(
        "task.save",
        move || task_files::save_text(&task, &data, &file, &saved, &text),
        move |schema: &mut Schema, shared, outcome| match outcome {
            Ok(home) => {
                shared.draft.saved = written;
                // Includes a `task.toml` shown because the task could not be read.
                shared.draft.edits_toml = shared.draft.is_toml();
                let mut commands = shared::switch_to_copy(shared, &home);
                if !home.is_copy {
                    shared.say(format!("saved {}", home.task.label(&name)));
                }
                commands.extend(drafts::store(schema, shared));
                commands.push(Command::Changed(Change::Files(vec![
                    home.folder.join(&name),
                ])));
                // The change of the file reloads an open task.
                if home.is_copy || shared.task.is_none() {
                    commands.extend(shared::open_task(
                        shared,
                        Some(home.folder.display().to_string()),
                    ));
                }
                commands
            }
            Err(SaveError::Changed(theirs)) => on_disk(schema, shared, theirs),
            Err(SaveError::Failed(error)) => shared.complain(error),
        },
    );
    vec![work]
}

pub(super) fn copied(schema: &mut Schema, shared: &mut Shared, copy: &Task) -> Vec<Command> {
    let toml = shared.draft.is_toml().then(|| copy.toml().ok()).flatten();
    shared.draft.base = Some(toml.unwrap_or_else(|| copy.clone()));
    drafts::move_to_copy(schema, shared, copy)
}

pub(super) fn ask_trust(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let draft = &shared.draft;
    let task = draft
        .base
        .as_ref()
        .map(|task| task.with_definition_text(&draft.text));
    let all = match task.map(|task| {
        task.map_err(TrustError::from)
            .and_then(|task| Trust::for_task(&task))
    }) {
        Some(Ok(all)) => all,
        Some(Err(error)) => return shared.complain(error.to_string()),
        None => return Vec::new(),
    };
    if all.iter().all(|trust| trust.is_trusted) {
        return shared.say("trusted already");
    }
    let is_program = |trust: &Trust| trust.server.is_none();
    let subject = all
        .iter()
        .find(|trust| is_program(trust))
        .or(all.first())
        .map_or("command", |trust| trust.subject().name());
    let lines = all.iter().flat_map(|trust| {
        let files = (!trust.files.is_empty()).then(|| format!("files: {}", trust.files.join(", ")));
        let judge = trust.server.as_ref().map(|server| {
            format!("judge: {server}\nIt gets the prompts, the model's answers, and the key.")
        });
        let programs = trust
            .programs
            .iter()
            .map(|program| format!("runs {program}"));
        trust
            .command_lines()
            .chain(programs)
            .chain(files)
            .chain(trust.missing.clone())
            .chain(judge)
    });
    let lines: Vec<String> = lines
        .map(|line| visible_lines(&line).into_owned())
        .collect();
    let scorers = draft.base.iter().flat_map(|task| task.scorers());
    let mut isolation: Vec<String> = scorers
        .filter_map(|task| Some(task.command()?.isolation_text()))
        .chain(
            all.iter()
                .filter_map(|trust| Some(trust.tool.as_ref()?.isolation_text())),
        )
        .collect();
    isolation.dedup();
    let isolation: String = isolation
        .iter()
        .map(|level| format!("\nisolation {level}"))
        .collect();
    let counts = Trust::counts(&all);
    let text = format!("{}\n{isolation}", lines.join("\n"));
    let confirm = Confirm::new(
        format!("Trust this {subject}?"),
        text,
        "trust",
        move |_: &mut Schema, shared: &mut Shared| {
            match all.iter().try_for_each(|trust| trust.set(true)) {
                Ok(()) => shared.say(format!("trusted: {counts}")),
                Err(error) => shared.complain(error.to_string()),
            };
            vec![
                compile(&shared.draft),
                compile_saved(&shared.draft),
                Command::Changed(Change::Trust),
            ]
        },
    );
    shared.open_popup(Popup::Confirm(confirm))
}

pub(super) fn revert(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let text = shared.draft.saved.clone();
    let mut commands = replaced(schema, shared, text);
    commands.extend(drafts::store(schema, shared));
    commands
}

pub(super) fn show_text(schema: &mut Schema, shared: &mut Shared) {
    let text = &shared.draft.text;
    if schema.shown.as_ref() != Some(text) {
        match schema.shown.is_none() {
            true => schema.editor = Editor::new(text, !shared.draft.is_toml()),
            false => schema.editor.replace(text),
        }
        schema.shown = Some(text.clone());
        schema.completion = None;
        schema.structure = structure(schema, shared);
    }
    follow(schema, shared);
}

/// The values of a schema's text; empty for other definitions, where no keyword is offered.
pub(super) fn structure(schema: &Schema, shared: &Shared) -> Structure {
    let is_schema = shared
        .draft
        .base
        .as_ref()
        .is_none_or(|task| task.schema().is_some());
    if is_schema {
        Structure::parse(schema.editor.lines())
    } else {
        Structure::default()
    }
}

pub(super) fn follow(schema: &mut Schema, shared: &mut Shared) {
    let window = layout::window(schema, shared);
    schema.editor.follow(window);
}

fn base_of<'a>(shared: &'a Shared, record: &Record) -> Result<&'a Task, String> {
    let open = shared
        .task
        .as_ref()
        .ok_or_else(|| shared.no_task().unwrap_or_default())?;
    Ok(if record.of == "toml" {
        &open.toml
    } else {
        &open.task
    })
}

impl Drafted for Schema {
    const SCREEN: Screen = Screen::Schema;
    const STEM: &'static str = "schema";
    const ACTIONS: DraftActions = DraftActions {
        take: "schema.take",
        keep: "schema.own",
        discard: "schema.discard",
        difference: "schema.difference",
    };
    const WORK: &'static str = "schema.drafts";

    fn draft_file<'a>(&'a mut self, shared: &'a mut Shared) -> Option<&'a mut DraftFile> {
        Some(&mut shared.draft.file)
    }

    fn texts(&self, shared: &Shared) -> Option<(String, String)> {
        Some((shared.draft.saved.clone(), shared.draft.text.clone()))
    }

    fn title(&self) -> String {
        if self.editor.is_json() {
            "schema"
        } else {
            TASK_FILE
        }
        .to_owned()
    }

    fn extension(task: &Task) -> &'static str {
        if task.definition_file == TASK_FILE {
            "toml"
        } else {
            "json"
        }
    }

    // The bare text, which an external editor can open.
    fn write(&self, _: &Shared, text: String) -> String {
        text
    }

    fn read(path: &Path, text: String, time_ms: u64) -> Result<Record, String> {
        let of = serde_json::json!(
            path.extension()
                .map(|extension| extension.to_string_lossy())
        );
        Ok(Record {
            task: String::new(),
            of,
            cursor: (0, 0),
            time_ms,
            text,
        })
    }

    fn is_free(&self) -> bool {
        true
    }

    fn is_typing(&self) -> bool {
        crate::screen::Screen::is_typing(self)
    }

    fn locate(&self, shared: &Shared, record: &Record) -> Result<Location, String> {
        let base = base_of(shared, record)?;
        let is_shown = shared
            .draft
            .base
            .as_ref()
            .is_some_and(|shown| shown.definition_file == base.definition_file);
        let current = if is_shown {
            &shared.draft.text
        } else {
            &base.definition_text
        };
        Ok(Location {
            title: base.definition_name().to_owned(),
            current: current.clone(),
            note: None,
        })
    }

    fn restore(&mut self, shared: &mut Shared, record: &Record) -> Result<Vec<Command>, String> {
        let base = base_of(shared, record)?.clone();
        let shown = shared
            .draft
            .base
            .as_ref()
            .map(|shown| &shown.definition_file);
        if shown != Some(&base.definition_file) && shared.draft.is_changed() {
            return Err(format!(
                "{} is unsaved: save or revert it first",
                shared.draft.name()
            ));
        }
        shared.draft.edits_toml = base.definition_file == TASK_FILE;
        let mut commands = begin(self, shared, &base);
        show_text(self, shared);
        commands.extend(replaced(self, shared, record.text.clone()));
        Ok(commands)
    }

    fn on_disk(&self, shared: &Shared) -> Option<String> {
        shared.draft.theirs.clone()
    }

    fn resolve_conflict(&mut self, shared: &mut Shared, load: bool) -> Vec<Command> {
        let draft = &mut shared.draft;
        let Some(theirs) = draft.theirs.take() else {
            return Vec::new();
        };
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
