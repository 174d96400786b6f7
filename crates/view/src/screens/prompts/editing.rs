//! The text under edit, and its position in the current task: rows move, change and disappear while a text of them is
//! unsaved.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::messages_text;
use super::table_row::{Entry, row};
use crate::dataset::PromptRow;
use crate::drafts::files::DraftFile;
use crate::score::json;
use crate::shared::OpenTask;
use crate::task::PromptSet;
use crate::text::Message;
use crate::widgets::editor::Editor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditTarget {
    Messages(Entry),
    Expected(Entry),
    /// A new row of a set, after this line of its file.
    New(PromptSet, usize),
    /// The expected answer of a row that was deleted from its file; saving adds it as a new row of the set, after this
    /// line.
    NewExpected(PromptSet, usize),
    System,
}

#[derive(Debug)]
pub struct Editing {
    pub what: EditTarget,
    pub editor: Editor,
    pub validity: Validity,
    /// The row as it was when editing began: only that one is replaced.
    pub row: Option<PromptRow>,
    /// The deleted row, if it is gone from its file: the new row is that one with the edited text.
    pub(super) gone: Option<Origin>,
    pub(super) file: DraftFile,
    pub(super) start: String,
    /// The new position and text after a change on disk, until the user decides.
    pub(super) theirs: Option<FoundText>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    Invalid(String),
    Warning(String),
    Valid(String),
}

impl Editing {
    pub(super) fn target(&self) -> DraftTarget {
        let origin = |set: PromptSet| {
            let row = || {
                self.row
                    .as_ref()
                    .map(|row| (row.id.clone(), row.fields.whole()))
            };
            let (id, fields) = row().unwrap_or_default();
            self.gone
                .clone()
                .unwrap_or_else(|| Origin { set, id, fields })
        };
        match self.what {
            EditTarget::Messages(entry) => DraftTarget::Messages(origin(entry.set)),
            EditTarget::Expected(entry) => DraftTarget::Expected(origin(entry.set)),
            EditTarget::New(set, _) if self.gone.is_some() => DraftTarget::Messages(origin(set)),
            EditTarget::New(set, after) => DraftTarget::New { set, after },
            EditTarget::NewExpected(set, _) => DraftTarget::Expected(origin(set)),
            EditTarget::System => DraftTarget::System {
                was: self.start.clone(),
            },
        }
    }

    pub(super) fn follow(&mut self, found: FoundText) {
        let FoundText {
            what,
            row,
            gone,
            start,
            ..
        } = found;
        (self.what, self.row, self.gone, self.start, self.theirs) = (what, row, gone, start, None);
    }

    pub fn is_changed(&self) -> bool {
        self.editor.text() != self.start
    }

    pub fn title(&self) -> &'static str {
        match self.what {
            EditTarget::Messages(_) => "messages",
            EditTarget::Expected(_) => "expected answer",
            EditTarget::New(..) => "new row",
            EditTarget::NewExpected(..) => "expected answer of a deleted row",
            EditTarget::System => "system prompt",
        }
    }
}

impl EditTarget {
    pub(super) fn entry(self) -> Option<Entry> {
        match self {
            Self::Messages(entry) | Self::Expected(entry) => Some(entry),
            Self::New(..) | Self::NewExpected(..) | Self::System => None,
        }
    }
}

/// The target of a draft, in terms that stay valid when rows move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DraftTarget {
    Messages(Origin),
    Expected(Origin),
    New {
        set: PromptSet,
        /// The line that it comes after.
        after: usize,
    },
    System {
        was: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) set: PromptSet,
    pub(super) id: String,
    /// The whole row.
    pub(super) fields: Map<String, Value>,
}

/// The position of a text in the current task.
#[derive(Debug, PartialEq)]
pub(super) struct FoundText {
    pub(super) what: EditTarget,
    pub(super) row: Option<PromptRow>,
    /// The row as it was, if it is gone from its file.
    pub(super) gone: Option<Origin>,
    pub(super) start: String,
    pub(super) note: Option<String>,
}

impl DraftTarget {
    pub(super) fn title(&self) -> String {
        match self {
            Self::Messages(origin) => format!("messages of {}", origin.id),
            Self::Expected(origin) => format!("expected answer of {}", origin.id),
            Self::New { set, after: 0 } => format!("new first row of the {set} set"),
            Self::New { set, after } => format!("new row of the {set} set after line {after}"),
            Self::System { .. } => "system prompt".to_owned(),
        }
    }
}

/// Finds a text in the current task; an error if its set cannot take it.
pub(super) fn find(open: &OpenTask, of: &DraftTarget) -> Result<FoundText, String> {
    let here = |what: EditTarget, note: Option<String>| {
        let (row, start) = current_value(open, what);
        FoundText {
            what,
            row,
            gone: None,
            start,
            note,
        }
    };
    let (origin, what): (&Origin, fn(Entry) -> EditTarget) = match of {
        DraftTarget::Messages(origin) => (origin, EditTarget::Messages),
        DraftTarget::Expected(origin) => (origin, EditTarget::Expected),
        DraftTarget::System { was } => {
            let changed = open.task.system.as_deref().unwrap_or_default() != was;
            return Ok(here(
                EditTarget::System,
                changed.then(|| "the system prompt has changed since".to_owned()),
            ));
        }
        DraftTarget::New { set, after } => {
            let file = file_of(open, *set)?;
            let last = open
                .rows
                .get(set)
                .and_then(|rows| rows.as_ref().ok()?.last())
                .map_or(*after, |row| row.line);
            let note = (last < *after)
                .then(|| format!("{file} is shorter now: the row is appended after its last line"));
            return Ok(here(EditTarget::New(*set, last.min(*after)), note));
        }
    };
    let (set, file) = (origin.set, file_of(open, origin.set)?);
    let rows = match open.rows.get(&set) {
        Some(Ok(rows)) => rows,
        Some(Err(error)) => return Err(error.to_string()),
        None => &Vec::new(),
    };
    if let Some(index) = place_of(rows, origin) {
        let changed = rows
            .get(index)
            .is_none_or(|row| row.fields.whole() != origin.fields);
        let note =
            changed.then(|| format!("{} has changed since: compare before saving", origin.id));
        return Ok(here(
            what(Entry {
                set,
                index: index as u32,
            }),
            note,
        ));
    }
    let last = rows.last().map_or(0, |row| row.line);
    let what = if matches!(of, DraftTarget::Messages(_)) {
        EditTarget::New(set, last)
    } else {
        EditTarget::NewExpected(set, last)
    };
    let note = format!(
        "{} was deleted from {file}: saving appends it as a new row",
        origin.id
    );
    Ok(FoundText {
        what,
        row: None,
        gone: Some(origin.clone()),
        start: String::new(),
        note: Some(note),
    })
}

fn file_of(open: &OpenTask, set: PromptSet) -> Result<&str, String> {
    let file = open.task.set_file(set);
    file.ok_or_else(|| format!("task.toml no longer names {set} prompts"))
}

/// The same row, wherever it is now; else the row with its id. A row without an id of its own is identified by its
/// content.
fn place_of(rows: &[PromptRow], origin: &Origin) -> Option<usize> {
    let same = |row: &PromptRow| row.fields.whole() == origin.fields;
    let place = rows
        .iter()
        .position(|row| row.id == origin.id && same(row))
        .or_else(|| rows.iter().position(same));
    place.or_else(|| {
        rows.iter()
            .position(|row| row.id == origin.id && row.fields.value("id").is_some())
    })
}

pub(super) fn current_value(open: &OpenTask, what: EditTarget) -> (Option<PromptRow>, String) {
    let row = match what {
        EditTarget::Messages(entry) | EditTarget::Expected(entry) => row(open, entry).cloned(),
        EditTarget::New(..) | EditTarget::NewExpected(..) | EditTarget::System => None,
    };
    let text = match what {
        EditTarget::Messages(_) => row
            .as_ref()
            .map_or_else(String::new, |row| messages_text::write(&row.messages)),
        EditTarget::Expected(_) => {
            let expected = row
                .as_ref()
                .and_then(|row| row.expected.as_ref())
                .map(crate::exact_json::write);
            expected.map_or_else(String::new, |expected| {
                json::format(&expected).unwrap_or(expected)
            })
        }
        EditTarget::New(..) => "=== user\n".to_owned(),
        EditTarget::NewExpected(..) => String::new(),
        EditTarget::System => open.task.system.clone().unwrap_or_default(),
    };
    (row, text)
}

pub(super) fn turns_of(editing: &Editing) -> Result<Vec<Message>, String> {
    messages_text::read(&editing.editor.text())
}

pub(super) fn expected_of(editing: &Editing) -> Result<serde_json::Value, String> {
    let text = editing.editor.text();
    if text.trim().is_empty() {
        return Ok(serde_json::Value::Null);
    }
    crate::exact_json::parse(&text).map_err(|error| format!("not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_again() {
        let rows = |text: &str| crate::dataset::load_from("train.jsonl", text.as_bytes()).unwrap();
        let line = |id: &str, text: &str| {
            format!("{{{id}\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}\n")
        };
        let (named, nameless) = (
            |id: &str, text: &str| line(&format!("\"id\":\"{id}\","), text),
            |text: &str| line("", text),
        );
        let check = |before: &str, index: usize, after: &str, expected: Option<usize>| {
            let row = &rows(before)[index];
            let origin = Origin {
                set: PromptSet::Train,
                id: row.id.clone(),
                fields: row.fields.whole(),
            };
            assert_eq!(
                place_of(&rows(after), &origin),
                expected,
                "{before} {index} {after}"
            );
        };
        let both = named("a", "1") + &named("b", "2");
        check(&both, 1, &both, Some(1));
        check(&both, 1, &named("b", "2"), Some(0));
        check(&both, 1, &(named("b", "3") + &named("a", "1")), Some(0));
        check(&both, 1, &named("a", "1"), None);
        let both = nameless("1") + &nameless("2");
        check(&both, 0, &(nameless("0") + &both), Some(1));
        check(&both, 1, &(nameless("1") + &nameless("3")), None);
        // Among identical rows, the one in its own line.
        check(
            &(nameless("1") + &nameless("1")),
            1,
            &(nameless("1") + &nameless("1")),
            Some(1),
        );
    }
}
