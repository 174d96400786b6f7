//! Writes rows and the system text to the task's files in the background; an embedded task is
//! copied first.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::editing::{EditTarget, Editing, Validity, expected_of, turns_of};
use super::table_row::{Entry, row};
use super::{FileChange, Prompts};
use crate::dataset::PromptRow;
use crate::drafts;
use crate::exact_json;
use crate::jsonl_edit::{Change, change_line, line_of, set_member, set_system};
use crate::message::{Command, Work};
use crate::shared::{self, OpenTask, Shared};
use crate::task::{PromptSet, TASK_FILE};
use crate::task_files::{self, Home};

/// An edit of the files, run on its own thread: reads texts by file name (empty for a missing
/// file), returns the files and their new texts.
type Rewrite = Box<
    dyn FnOnce(&dyn Fn(&str) -> Result<String, String>) -> Result<Vec<(String, String)>, String>
        + Send,
>;

/// Maximum digits of a new id.
const MAX_DIGITS: usize = 32;

/// The edit with the row to select afterwards, or why it cannot be made.
type Rewriting = Result<(Rewrite, Option<(PromptSet, usize)>), String>;

pub(super) fn save(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let Some(editing) = &prompts.editing else {
        return Vec::new();
    };
    if let Validity::Invalid(why) = &editing.validity {
        let why = format!("not saved: {why}");
        return shared.complain(why);
    }
    let (made, file) = (rewrite_of(&open, editing), editing.file.path.clone());
    write(prompts, shared, made, Done::Files("saved"), Some(file))
}

fn rewrite_of(open: &Arc<OpenTask>, editing: &Editing) -> Rewriting {
    match editing.what {
        EditTarget::Messages(entry) => {
            let turns = turns_json(editing)?;
            member(open, entry, editing, "messages", turns)
        }
        EditTarget::Expected(entry) => {
            member(open, entry, editing, "expected", expected_of(editing)?)
        }
        EditTarget::System => {
            let system = editing.editor.text();
            let rewrite: Rewrite = Box::new(move |read| {
                Ok(vec![(
                    TASK_FILE.to_owned(),
                    set_system(&read(TASK_FILE)?, &system)?,
                )])
            });
            Ok((rewrite, None))
        }
        EditTarget::New(set, after) => {
            let turns = turns_json(editing)?;
            if editing.gone.is_some() {
                return again(open, set, after, editing, "messages", turns);
            }
            let id = open
                .rows
                .get(&set)
                .and_then(|rows| fresh_id(rows.as_ref().ok()?, after));
            let new = match id {
                Some(id) => json!({"id": id, "messages": turns}),
                None => json!({"messages": turns}),
            };
            insert(open, set, after, None, move |_| Ok(exact_json::write(&new)))
        }
        EditTarget::NewExpected(set, after) => {
            again(open, set, after, editing, "expected", expected_of(editing)?)
        }
    }
}

/// Restores a row that is missing from its file, with a new value of one member.
fn again(
    open: &Arc<OpenTask>,
    set: PromptSet,
    after: usize,
    editing: &Editing,
    key: &str,
    value: Value,
) -> Rewriting {
    let mut fields = editing
        .gone
        .as_ref()
        .map(|gone| gone.fields.clone())
        .unwrap_or_default();
    fields.insert(key.to_owned(), value);
    insert(open, set, after, None, move |_| {
        Ok(exact_json::write(&fields))
    })
}

fn turns_json(editing: &Editing) -> Result<Value, String> {
    serde_json::to_value(turns_of(editing)?).map_err(|error| error.to_string())
}

fn member(
    open: &Arc<OpenTask>,
    entry: Entry,
    editing: &Editing,
    key: &'static str,
    value: Value,
) -> Rewriting {
    let file = open
        .task
        .set_file(entry.set)
        .ok_or("the task has no such set")?
        .to_owned();
    let row = editing.row.clone().ok_or("the row no longer exists")?;
    let line = row.line;
    let rewrite: Rewrite = Box::new(move |read| {
        let text = read(&file)?;
        let old = line_of(&text, line).ok_or("the row was deleted from its file")?;
        let new = set_member(old, key, &value)?;
        let new = change_line(
            &text,
            line,
            Some(&row.fields.whole()),
            &Change::Replace(new),
        )
        .map_err(|error| format!("{file}: {error}"))?;
        Ok(vec![(file, new)])
    });
    Ok((rewrite, Some((entry.set, line))))
}

fn insert(
    open: &Arc<OpenTask>,
    set: PromptSet,
    after: usize,
    row: Option<PromptRow>,
    make: impl FnOnce(&str) -> Result<String, String> + Send + 'static,
) -> Rewriting {
    let file = open
        .task
        .set_file(set)
        .ok_or_else(|| format!("task.toml has no {} prompts", set.name()))?
        .to_owned();
    let rewrite: Rewrite = Box::new(move |read| {
        let text = read(&file)?;
        let new = make(line_of(&text, after).unwrap_or(""))?;
        let new = change_line(
            &text,
            after,
            row.map(|row| row.fields.whole()).as_ref(),
            &Change::After(new),
        )
        .map_err(|error| format!("{file}: {error}"))?;
        Ok(vec![(file, new)])
    });
    Ok((rewrite, Some((set, after + 1))))
}

/// Inserts a copy below a row, with a new id if rows have ids.
pub(super) fn duplicate(prompts: &mut Prompts, shared: &mut Shared, entry: Entry) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let row = row(&open, entry)
        .cloned()
        .ok_or_else(|| "the row no longer exists".to_owned());
    let made = row.and_then(|row| {
        let id = open
            .rows
            .get(&entry.set)
            .and_then(|rows| fresh_id(rows.as_ref().ok()?, row.line));
        insert(&open, entry.set, row.line, Some(row), move |old| match id {
            Some(id) => set_member(old, "id", &Value::from(id)),
            None => Ok(old.to_owned()),
        })
    });
    write(prompts, shared, made, Done::Files("duplicated"), None)
}

pub(super) fn delete(
    prompts: &mut Prompts,
    shared: &mut Shared,
    set: PromptSet,
    row: PromptRow,
) -> Vec<Command> {
    let open = shared.task.clone();
    let Some(file) = open.and_then(|open| open.task.set_file(set).map(str::to_owned)) else {
        return Vec::new();
    };
    let (line, id) = (row.line, row.id.clone());
    let rewrite: Rewrite = Box::new(move |read| {
        let new = change_line(
            &read(&file)?,
            line,
            Some(&row.fields.whole()),
            &Change::Delete,
        )
        .map_err(|error| format!("{file}: {error}"))?;
        Ok(vec![(file, new)])
    });
    write(
        prompts,
        shared,
        Ok((rewrite, Some((set, line)))),
        Done::Row(format!("row {id} deleted from {}", set.name())),
        None,
    )
}

/// Restores the files from before the last change of rows, if they still contain what it wrote.
pub(super) fn undo(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let files = prompts.undo.clone();
    let names: Vec<String> = files
        .iter()
        .map(|file| file.path.display().to_string())
        .collect();
    prompts.select_next = prompts.selected_place(shared);
    let work = move || -> Result<(), String> {
        for file in &files {
            let now = crate::files::read_text(&file.path)
                .map_err(|error| format!("{}: {error}", file.path.display()))?;
            if now != file.after {
                return Err(format!(
                    "{} was changed since: not undone",
                    file.path.display()
                ));
            }
        }
        files
            .iter()
            .try_for_each(|file| task_files::write(&file.path, file.before.as_bytes()))
    };
    let names = names.join(", ");
    vec![Work::once(
        "task.rows",
        work,
        move |prompts: &mut Prompts, shared, outcome| {
            match outcome {
                Ok(()) => {
                    prompts.undo.clear();
                    shared.say(format!("change undone: {names}"));
                }
                Err(error) => {
                    shared.complain(error);
                }
            }
            let folder = shared.task.as_ref().and_then(|open| {
                open.task
                    .folder()
                    .map(|folder| folder.display().to_string())
            });
            shared::open_task(shared, folder)
        },
    )]
}

/// An unused id that continues the number at the end of the ids; `None` if the previous row has no
/// explicit id.
fn fresh_id(rows: &[PromptRow], after: usize) -> Option<String> {
    let like = rows
        .iter()
        .rev()
        .find(|row| row.line <= after)
        .or(rows.first())
        .filter(|row| row.fields.value("id").is_some())?;
    let stem = like
        .id
        .trim_end_matches(|letter: char| letter.is_ascii_digit());
    let digits = like.id.len() - stem.len();
    // Limits ids with very many digits in the file.
    let width = digits.min(MAX_DIGITS);
    let numbers = rows
        .iter()
        .filter_map(|row| row.id.strip_prefix(stem)?.parse::<u64>().ok());
    let next = numbers.max().unwrap_or(0) + 1;
    let dash = if width == 0 { "-" } else { "" };
    Some(format!("{stem}{dash}{next:0width$}"))
}

/// What to do once the files are written.
enum Done {
    Files(&'static str),
    Row(String),
}

fn write(
    prompts: &mut Prompts,
    shared: &mut Shared,
    made: Rewriting,
    done: Done,
    closes: Option<PathBuf>,
) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let (rewrite, select) = match made {
        Ok(made) => made,
        Err(error) => return shared.complain(error),
    };
    let data = shared.options.data.clone();
    let select = select.or_else(|| prompts.selected_place(shared));
    let work = move || -> Result<(Home, Vec<FileChange>), String> {
        let home = task_files::home(&open.task, &data)?;
        let read = |file: &str| {
            // A new task may lack the file of a set.
            if home.task.path(file).is_ok_and(|path| !path.exists()) {
                return Ok(String::new());
            }
            let bytes = home.task.read(file).map_err(|error| error.to_string())?;
            String::from_utf8(bytes.into_owned())
                .map_err(|_| format!("{}: not UTF-8 text", home.task.label(file)))
        };
        let mut changes = Vec::new();
        for (file, after) in rewrite(&read)? {
            let path = home.task.path(&file).map_err(|error| error.to_string())?;
            changes.push(FileChange {
                before: read(&file)?,
                path,
                after,
            });
        }
        changes
            .iter()
            .try_for_each(|file| task_files::write(&file.path, file.after.as_bytes()))?;
        Ok((home, changes))
    };
    vec![Work::once(
        "task.rows",
        work,
        move |prompts: &mut Prompts, shared, outcome| match outcome {
            Ok((home, changes)) => {
                let names: Vec<String> = changes
                    .iter()
                    .map(|file| file.path.display().to_string())
                    .collect();
                let is_of_rows = |file: &FileChange| !file.path.ends_with(TASK_FILE);
                if changes.iter().any(is_of_rows) {
                    prompts.undo = changes;
                }
                prompts.form = None;
                let is_saved = prompts
                    .editing
                    .as_ref()
                    .is_some_and(|editing| closes.as_ref() == Some(&editing.file.path));
                let mut commands = Vec::new();
                if let Some(editing) = prompts.editing.take_if(|_| is_saved) {
                    commands.extend(drafts::remove(shared, editing.file));
                }
                prompts.select_next = select;
                commands.extend(shared::switch_to_copy(shared, &home));
                if !home.is_copy {
                    shared.say(match done {
                        Done::Files(what) => format!("{what}: {}", names.join(", ")),
                        Done::Row(text) => {
                            format!("{text} ({} undoes)", shared.key_of("prompts.undo_rows"))
                        }
                    });
                }
                commands.extend(shared::open_task(
                    shared,
                    Some(home.folder.display().to_string()),
                ));
                commands
            }
            Err(error) => {
                shared.complain(error);
                let folder = shared
                    .task
                    .as_ref()
                    .and_then(|open| open.task.folder())
                    .map(|folder| folder.display().to_string());
                prompts.select_next = select;
                if folder.is_some() {
                    shared::open_task(shared, folder)
                } else {
                    Vec::new()
                }
            }
        },
    )]
}

/// Opens a file of the task in the external editor.
pub(super) fn outside(
    prompts: &mut Prompts,
    shared: &mut Shared,
    file: String,
    line: usize,
) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    if let Some(folder) = open.task.folder() {
        return vec![Command::Edit {
            path: folder.join(file),
            line,
        }];
    }
    let data = shared.options.data.clone();
    prompts.select_next = prompts.selected_place(shared);
    vec![Work::once(
        "task.rows",
        move || task_files::home(&open.task, &data),
        move |_: &mut (), shared: &mut Shared, home| match home {
            Ok(home) => {
                let mut commands = shared::switch_to_copy(shared, &home);
                commands.extend(shared::open_task(
                    shared,
                    Some(home.folder.display().to_string()),
                ));
                commands.push(Command::Edit {
                    path: home.folder.join(file),
                    line,
                });
                commands
            }
            Err(error) => shared.complain(error),
        },
    )]
}
