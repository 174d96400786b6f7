//! Drafts of rows and of the system text: what each is of, and where that is in the task as it is now.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::row_editor::{self, What};
use super::rows::Entry;
use super::{Prompts, preview};
use crate::dataset::PromptRow;
use crate::task::PromptSet;
use crate::view::app::Model;
use crate::view::drafts::{DraftFile, Drafted, Location, Record};
use crate::view::message::Command;
use crate::view::screens::Screen;
use crate::view::shared::OpenTask;

/// What a draft is of, in words that still mean something when rows have gone elsewhere.
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

/// Where a text belongs in the task as it is now.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// What it is now.
    pub(super) what: What,
    /// The row as it is now.
    pub(super) row: Option<PromptRow>,
    /// The row as it was, where it is gone from its file.
    pub(super) gone: Option<Origin>,
    /// The text as it is now.
    pub(super) start: String,
    /// What has happened to it.
    pub(super) note: Option<String>,
}

impl DraftTarget {
    fn title(&self) -> String {
        match self {
            Self::Messages(origin) => format!("messages of {}", origin.id),
            Self::Expected(origin) => format!("expected answer of {}", origin.id),
            Self::New { set, after: 0 } => format!("new first row of the {set} set"),
            Self::New { set, after } => format!("new row of the {set} set after line {after}"),
            Self::System { .. } => "system prompt".to_owned(),
        }
    }
}

impl Drafted for Prompts {
    const SCREEN: Screen = Screen::Prompts;
    const STEM: &'static str = "prompts";
    const ACTIONS: [&'static str; 4] = ["prompts.take", "prompts.own", "prompts.discard", "prompts.difference"];
    const WORK: &'static str = "prompts.drafts";

    fn draft_file(model: &mut Model) -> Option<&mut DraftFile> {
        model.prompts.editing.as_mut().map(|editing| &mut editing.file)
    }

    fn texts(model: &Model) -> Option<(String, String)> {
        model.prompts.editing.as_ref().map(|editing| (editing.start.clone(), editing.editor.text()))
    }

    fn title(model: &Model) -> String {
        model.prompts.editing.as_ref().map_or("text", |editing| editing.title()).to_owned()
    }

    fn write(model: &Model, text: String) -> String {
        let Some(editing) = &model.prompts.editing else { return text };
        let (of, cursor) = (serde_json::json!(editing.target()), editing.editor.cursor());
        let record = Record { task: editing.file.task.clone(), of, cursor, time_ms: model.shared.now_ms, text };
        format!("{:#}\n", serde_json::json!(record))
    }

    fn read(text: String, _: u64) -> Result<Record, String> {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    fn is_free(model: &Model) -> bool {
        model.prompts.editing.is_none()
    }

    fn locate(model: &Model, record: &Record) -> Result<Location, String> {
        let (target, found) = target_of(model, record)?;
        Ok(Location { title: target.title(), current: found.start, note: found.note })
    }

    fn restore(model: &mut Model, record: &Record) -> Result<Vec<Command>, String> {
        let (_, found) = target_of(model, record)?;
        let entry = found.what.entry();
        row_editor::open(model, found, &record.text, record.cursor);
        let prompts = &mut model.prompts;
        let is_row = |index: &u32| entry.is_some() && prompts.entries.get(*index as usize).copied() == entry;
        let Some(place) = prompts.shown.iter().position(is_row) else { return Ok(Vec::new()) };
        prompts.cursor.index = place;
        Ok(preview::show(model))
    }

    fn on_disk(model: &Model) -> Option<String> {
        Some(model.prompts.editing.as_ref()?.theirs.as_ref()?.start.clone())
    }

    fn settle(model: &mut Model, load: bool) -> Vec<Command> {
        row_editor::settle(model, load)
    }
}

fn target_of(model: &Model, record: &Record) -> Result<(DraftTarget, Found), String> {
    let open = model.shared.task.as_ref().ok_or("no task is open")?;
    let target: DraftTarget = serde_json::from_value(record.of.clone()).map_err(|error| error.to_string())?;
    let found = find(open, &target)?;
    Ok((target, found))
}

/// Where a text belongs now; a sentence where its set cannot take it.
pub(super) fn find(open: &OpenTask, of: &DraftTarget) -> Result<Found, String> {
    let here = |what: What, note: Option<String>| {
        let (row, start) = row_editor::current_value(open, what);
        Found { what, row, gone: None, start, note }
    };
    let (origin, what): (&Origin, fn(Entry) -> What) = match of {
        DraftTarget::Messages(origin) => (origin, What::Messages),
        DraftTarget::Expected(origin) => (origin, What::Expected),
        DraftTarget::System { was } => {
            let changed = open.task.system.as_deref().unwrap_or_default() != was;
            return Ok(here(What::System, changed.then(|| "the system prompt has changed since".to_owned())));
        }
        DraftTarget::New { set, after } => {
            let (set, file) = set_of(open, set)?;
            let last = open.rows.get(&set).and_then(|rows| rows.as_ref().ok()?.last()).map_or(*after, |row| row.line);
            let note = (last < *after).then(|| format!("{file} is shorter now: the row is appended after its last line"));
            return Ok(here(What::New(set, last.min(*after)), note));
        }
    };
    let (set, file) = set_of(open, &origin.set)?;
    let rows = match open.rows.get(&set) {
        Some(Ok(rows)) => rows,
        Some(Err(error)) => return Err(error.clone()),
        None => &Vec::new(),
    };
    if let Some(index) = place_of(rows, origin) {
        let changed = rows.get(index).is_none_or(|row| row.fields != origin.fields);
        let note = changed.then(|| format!("{} has changed since: compare before saving", origin.id));
        return Ok(here(what(Entry { set, index: index as u32 }), note));
    }
    let last = rows.last().map_or(0, |row| row.line);
    let what = if matches!(of, DraftTarget::Messages(_)) { What::New(set, last) } else { What::NewExpected(set, last) };
    let note = format!("{} was deleted from {file}: saving appends it as a new row", origin.id);
    Ok(Found { what, row: None, gone: Some(origin.clone()), start: String::new(), note: Some(note) })
}

fn set_of<'a>(open: &'a OpenTask, name: &str) -> Result<(PromptSet, &'a str), String> {
    let found = PromptSet::from_name(name).and_then(|set| Some((set, open.task.set_file(set)?)));
    found.ok_or_else(|| format!("task.toml no longer names {name} prompts"))
}

/// The row as it was, wherever it is now; else the row that has its id. A row without an id of its own is only known by what it holds.
fn place_of(rows: &[PromptRow], origin: &Origin) -> Option<usize> {
    let same = |row: &PromptRow| row.fields == origin.fields;
    let place = rows.iter().position(|row| row.id == origin.id && same(row)).or_else(|| rows.iter().position(same));
    place.or_else(|| rows.iter().position(|row| row.id == origin.id && row.fields.contains_key("id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_again() {
        let rows = |text: &str| crate::dataset::load_from("train.jsonl", text.as_bytes()).unwrap();
        let line = |id: &str, text: &str| format!("{{{id}\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}\n");
        let (named, nameless) = (|id: &str, text: &str| line(&format!("\"id\":\"{id}\","), text), |text: &str| line("", text));
        let check = |before: &str, index: usize, after: &str, expected: Option<usize>| {
            let row = &rows(before)[index];
            let origin = Origin { set: "train".to_owned(), id: row.id.clone(), fields: row.fields.clone() };
            assert_eq!(place_of(&rows(after), &origin), expected, "{before} {index} {after}");
        };
        let both = named("a", "1") + &named("b", "2");
        check(&both, 1, &both, Some(1));
        check(&both, 1, &named("b", "2"), Some(0));
        check(&both, 1, &(named("b", "3") + &named("a", "1")), Some(0));
        check(&both, 1, &named("a", "1"), None);
        let both = nameless("1") + &nameless("2");
        check(&both, 0, &(nameless("0") + &both), Some(1));
        check(&both, 1, &(nameless("1") + &nameless("3")), None);
        // Of twins the one in its own line.
        check(&(nameless("1") + &nameless("1")), 1, &(nameless("1") + &nameless("1")), Some(1));
    }
}
