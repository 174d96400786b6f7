//! Saves written and pasted completions as samples of the task.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::items::Written;
use super::{Scores, Source};
use crate::exact_json;
use crate::format::counted;
use crate::jsonl_edit::{append_lines, set_completions};
use crate::message::{Command, Work};
use crate::shared::{self, OpenTask, Shared};
use crate::task::{TASK_FILE, split_set_prompt};
use crate::task_files::{self, Home};
use crate::widgets::editor::Editor;
use crate::widgets::list_cursor::Cursor;

const SAMPLES: &str = "completions.jsonl";

pub(super) fn nothing(scores: &Scores, shared: &Shared) -> Option<String> {
    let none = scores.written.iter().all(Written::is_blank);
    let why = || {
        let write = shared.key_of("scores.write");
        format!("nothing to save: paste a completion, or write one with {write}")
    };
    shared.no_task().or_else(|| none.then(why))
}

/// Appends all written and pasted completions to the task's samples, which are shown then.
pub(super) fn save(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let all = scores.written.iter().filter(|written| !written.is_blank());
    let saved: Vec<Written> = all.cloned().collect();
    let lines: Vec<String> = saved
        .iter()
        .map(|written| line_of(&open, written))
        .collect();
    let before = open.samples.as_ref().map_or(0, Vec::len);
    let data = shared.options.data.clone();
    let work = move || -> Result<(Home, PathBuf), String> {
        let home = task_files::home(&open.task, &data)?;
        let file = open.task.prompts.completions.as_deref();
        let path = home
            .task
            .path(file.unwrap_or(SAMPLES))
            .map_err(|error| error.to_string())?;
        let text = match path.exists() {
            true => crate::files::read_text(&path)
                .map_err(|error| format!("{}: {error}", path.display()))?,
            false => String::new(),
        };
        task_files::write(&path, append_lines(&text, &lines).as_bytes())?;
        if file.is_none() {
            let bytes = home
                .task
                .read(TASK_FILE)
                .map_err(|error| error.to_string())?;
            let toml = set_completions(&String::from_utf8_lossy(&bytes), SAMPLES)?;
            let path = home
                .task
                .path(TASK_FILE)
                .map_err(|error| error.to_string())?;
            task_files::write(&path, toml.as_bytes())?;
        }
        Ok((home, path))
    };
    vec![Work::once(
        "task.samples",
        work,
        move |scores: &mut Scores, shared, outcome| {
            let (home, path) = match outcome {
                Ok(done) => done,
                Err(error) => return shared.complain(error),
            };
            let count = counted(saved.len(), "completion");
            let mut commands = shared::switch_to_copy(shared, &home);
            shared.say(format!("{count} saved as task samples: {}", path.display()));
            // One that was written on meanwhile is another one.
            scores.written.retain(|written| !saved.contains(written));
            let text = scores.editor.as_ref().map(Editor::text);
            let here = |written: &Written| Some(&written.text) == text.as_ref();
            match scores.written.iter().position(here) {
                Some(place) => scores.editing = place,
                None => scores.editor = None,
            }
            if scores.written.iter().all(Written::is_blank) {
                scores.written.clear();
                (scores.editor, scores.pane) = (None, None);
                scores.source = Source::Samples;
                scores.cursor = Cursor {
                    index: before + saved.len() - 1,
                };
            }
            let folder = home.folder.display().to_string();
            commands.extend(shared::open_task(shared, Some(folder)));
            commands
        },
    )]
}

/// A line of the file: with the set of its prompt where several have the id.
fn line_of(open: &OpenTask, written: &Written) -> String {
    let mut line = Map::new();
    if let Some(id) = &written.prompt_id {
        let sets = || {
            open.rows.iter().filter_map(|(set, rows)| {
                let has = |id: &str| rows.iter().flatten().any(|row| row.id == id);
                has(id).then_some(*set)
            })
        };
        let (set, id) = match split_set_prompt(id).filter(|_| sets().next().is_none()) {
            Some((set, id)) => (Some(set), id),
            None => (sets().next().filter(|_| sets().count() > 1), id.as_str()),
        };
        line.insert("prompt_id".to_owned(), id.into());
        line.extend(set.map(|set| ("set".to_owned(), Value::from(set.name()))));
    }
    line.insert("completion".to_owned(), written.text.as_str().into());
    exact_json::write(&Value::Object(line))
}
