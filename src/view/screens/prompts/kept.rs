//! What is being written outlives a crash: a file of its own has it until it is saved or given up.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::row_editor::Editing;
use crate::task::{TASK_FILE, Task};
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::recovery;

/// The work that writes and removes such a file, and what it is of.
const KEEPING: &str = "prompts.keep";
const UNSAVED: &str = "draft";

/// A text that was neither saved nor given up, as its file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The task's file, as the task lay when the text was kept.
    pub(super) task: String,
    pub(super) of: DraftTarget,
    /// Row and column of the cursor.
    pub(super) cursor: (usize, usize),
    /// When it was kept, milliseconds since 1970.
    pub(super) time_ms: u64,
    pub(super) text: String,
}

/// What a kept text is, in words that still mean something when rows have gone elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DraftTarget {
    /// The turns of a row.
    Messages(Origin),
    /// The expected answer of a row.
    Expected(Origin),
    /// A new row.
    New {
        set: String,
        /// The line that it comes after.
        after: usize,
    },
    /// The task's system text.
    System {
        /// As it was when writing began.
        was: String,
    },
}

/// A row as it was when writing began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) set: String,
    pub(super) id: String,
    /// The whole row.
    pub(super) fields: Map<String, Value>,
}

/// Where a text under edit is kept.
#[derive(Debug)]
pub(super) struct Place {
    /// The task's file.
    pub(super) task: String,
    /// Stands for the task in names of files.
    pub(super) mark: String,
    pub(super) file: PathBuf,
    /// The text that the file holds; `None` where there is no file.
    pub(super) text: Option<String>,
}

impl Place {
    /// Where a new text of a task is kept: a file that no other text has.
    pub(super) fn new(task: &Task, data: &Path, now_ms: u64, taken: &HashSet<PathBuf>) -> Self {
        let mark = mark(task);
        let file = |time: u64| recovery::folder(data).join(format!("{}{time}-{}.json", beginning(&mark), std::process::id()));
        let file = (now_ms..).map(file).find(|file| !taken.contains(file)).unwrap_or_else(|| file(now_ms));
        Self { task: task.label(TASK_FILE), mark, file, text: None }
    }
}

/// Stands for a task in names of files.
pub(super) fn mark(task: &Task) -> String {
    recovery::mark(task, TASK_FILE)
}

/// How the names of a task's files begin.
pub(super) fn beginning(mark: &str) -> String {
    format!("prompts-{mark}-")
}

/// All files of a task's texts.
///
/// # Errors
/// A sentence with the folder.
pub(super) fn files(data: &Path, mark: &str) -> Result<Vec<PathBuf>, String> {
    let folder = recovery::folder(data);
    let found = match std::fs::read_dir(&folder) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", folder.display())),
    };
    let is_one = |name: &str| name.starts_with(&beginning(mark)) && name.ends_with(".json");
    Ok(found.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_one)).map(|entry| entry.path()).collect())
}

/// The text under edit as its file is to have it.
fn record(editing: &Editing, now_ms: u64) -> Result<String, String> {
    let kept = Kept {
        task: editing.place.task.clone(),
        of: editing.of(),
        cursor: editing.editor.cursor(),
        time_ms: now_ms,
        text: editing.editor.text(),
    };
    serde_json::to_string_pretty(&kept).map(|text| text + "\n").map_err(|error| format!("{}: {error}", editing.place.file.display()))
}

/// A second has passed: a changed text is kept; where nothing is changed any more, nothing is.
pub(super) fn second(model: &mut Model) -> Vec<Command> {
    match &model.prompts.editing {
        Some(editing) if editing.is_changed() => keep(model),
        Some(_) => forget(model),
        None => Vec::new(),
    }
}

/// Write the text where a crash does not reach it, unless that has been done.
fn keep(model: &mut Model) -> Vec<Command> {
    let Some(editing) = &mut model.prompts.editing else { return Vec::new() };
    let text = editing.editor.text();
    if editing.place.text.as_ref() == Some(&text) {
        return Vec::new();
    }
    editing.place.text = Some(text);
    match record(editing, model.shared.now_ms) {
        Ok(record) => vec![model.prompts.keeper.keep(KEEPING, UNSAVED, &editing.place.file, record)],
        Err(error) => {
            model.shared.complain(format!("{UNSAVED} not saved: {error}"));
            Vec::new()
        }
    }
}

/// The text under edit is saved, given up or as it was: its file goes.
pub(super) fn forget(model: &mut Model) -> Vec<Command> {
    let Some(editing) = &mut model.prompts.editing else { return Vec::new() };
    match editing.place.text.take() {
        Some(_) => vec![model.prompts.keeper.forget(KEEPING, UNSAVED, &editing.place.file)],
        None => Vec::new(),
    }
}

/// A file whose text stands in the task already is of no use any more.
pub(super) fn forget_file(model: &Model, file: &Path) -> Command {
    model.prompts.keeper.forget(KEEPING, UNSAVED, file)
}

/// Writes what is being written at once, for an end that leaves no time for work beside the view.
///
/// # Errors
/// A sentence with the file.
pub fn keep_now(model: &Model) -> Result<(), String> {
    match model.prompts.editing.as_ref().filter(|editing| editing.is_changed()) {
        Some(editing) => model.prompts.keeper.keep_now(&editing.place.file, &record(editing, model.shared.now_ms)?),
        None => Ok(()),
    }
}

/// Another task is open: what was written of the one before stays in its file, and is offered with that task.
pub(super) fn park_draft(model: &mut Model) -> Vec<Command> {
    let (Some(open), Some(editing)) = (&model.shared.task, &model.prompts.editing) else { return Vec::new() };
    if editing.place.mark == mark(&open.task) {
        return Vec::new();
    }
    let commands = second(model);
    if let Some(editing) = model.prompts.editing.take().filter(Editing::is_changed) {
        model.prompts.offers.told.remove(&editing.place.file);
        let (title, task, file) = (editing.title(), &editing.place.task, editing.place.file.display());
        model.shared.complain(format!("{title} of {task} is unsaved: draft kept in {file}, offered when the task is opened again"));
    }
    commands
}

/// The task has moved to a folder of its own, with all of its files: what is kept of it moves too.
pub fn moved(model: &mut Model, task: &Task) -> Vec<Command> {
    let Some(open) = &model.shared.task else { return Vec::new() };
    let (old, new) = (mark(&open.task), mark(task));
    let renamed = {
        let (old, new) = (beginning(&old), beginning(&new));
        move |file: &Path| file.with_file_name(file.file_name().unwrap_or_default().to_string_lossy().replacen(&old, &new, 1))
    };
    let told: Vec<PathBuf> = model.prompts.offers.told.iter().map(|file| renamed(file)).collect();
    model.prompts.offers.told.extend(told);
    let mut commands = Vec::new();
    if model.prompts.editing.as_ref().is_some_and(|editing| editing.place.mark == old) {
        commands.extend(forget(model));
        if let Some(editing) = &mut model.prompts.editing {
            editing.place = Place { task: task.label(TASK_FILE), mark: new, file: renamed(&editing.place.file), text: None };
        }
        commands.extend(second(model));
    }
    let (keeper, data) = (Arc::clone(&model.prompts.keeper), model.shared.options.data.clone());
    commands.push(Work::once(
        "prompts.moved",
        move || {
            let files = files(&data, &old)?.into_iter();
            keeper.move_all(&files.map(|file| (file.clone(), renamed(&file))).collect::<Vec<_>>())
        },
        |model, moved| {
            if let Err(error) = moved {
                model.shared.complain(format!("drafts of the embedded task were not moved to its copy: {error}"));
            }
            Vec::new()
        },
    ));
    commands
}
