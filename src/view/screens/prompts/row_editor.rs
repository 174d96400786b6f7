//! What is being written on this screen: a row's turns, its expected answer, the task's system text; checked while typing.

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::layout::Rect;

use super::kept::{self, DraftTarget, Kept, Origin, Place};
use super::messages_text;
use super::offer::{self, Found};
use super::rows::{Entry, row};
use super::{layout, preview};
use crate::dataset::PromptRow;
use crate::score::json;
use crate::task::PromptSet;
use crate::text::Message;
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::popup::{Confirm, Popup};
use crate::view::shared::OpenTask;
use crate::view::widgets::editor::{Editor, Effect};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The turns of a row.
    Messages(Entry),
    /// The expected answer of a row.
    Expected(Entry),
    /// A new row of a set, after this line of its file.
    New(PromptSet, usize),
    /// The expected answer of a row that is gone from its file; it comes back as a new row of the set, after this line.
    NewExpected(PromptSet, usize),
    /// The task's system text.
    System,
}

/// A text that is being written.
#[derive(Debug)]
pub struct Editing {
    pub what: What,
    /// The text.
    pub editor: Editor,
    /// Why it cannot be saved, or what is to be known of it.
    pub said: Said,
    /// The row as it was when writing began: only that one is replaced.
    pub row: Option<PromptRow>,
    /// The row as it once was, where it is gone from its file: the new row is that one with what is written.
    pub(super) gone: Option<Origin>,
    /// Where the text is kept.
    pub(super) place: Place,
    start: String,
}

/// What is to be known of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It cannot be saved.
    Wrong(String),
    /// It can be saved, but.
    Odd(String),
    /// It is in order.
    Fine(String),
}

impl Editing {
    fn new(found: Found, place: Place, text: &str) -> Self {
        let Found { what, row, gone, start, .. } = found;
        let editor = Editor::new(text, matches!(what, What::Expected(_) | What::NewExpected(..)));
        Self { what, editor, said: Said::Fine(String::new()), row, gone, place, start }
    }

    /// What it is, for the file that keeps it.
    pub(super) fn of(&self) -> DraftTarget {
        let origin = |set: PromptSet| {
            let row = || self.row.as_ref().map(|row| (row.id.clone(), row.fields.clone()));
            let (id, fields) = row().unwrap_or_default();
            self.gone.clone().unwrap_or_else(|| Origin { set: set.name().to_owned(), id, fields })
        };
        match self.what {
            What::Messages(entry) => DraftTarget::Messages(origin(entry.set)),
            What::Expected(entry) => DraftTarget::Expected(origin(entry.set)),
            What::New(set, _) if self.gone.is_some() => DraftTarget::Messages(origin(set)),
            What::New(set, after) => DraftTarget::New { set: set.name().to_owned(), after },
            What::NewExpected(set, _) => DraftTarget::Expected(origin(set)),
            What::System => DraftTarget::System { was: self.start.clone() },
        }
    }

    /// Whether anything was changed.
    pub fn is_changed(&self) -> bool {
        self.editor.text() != self.start
    }

    /// In words.
    pub fn title(&self) -> &'static str {
        match self.what {
            What::Messages(_) => "messages",
            What::Expected(_) => "expected answer",
            What::New(..) => "new row",
            What::NewExpected(..) => "expected answer of a deleted row",
            What::System => "system prompt",
        }
    }
}

/// Begin to write.
pub(super) fn begin(model: &mut Model, what: What) -> Vec<Command> {
    let Some(open) = model.shared.task.clone() else { return Vec::new() };
    if let Some(editing) = model.prompts.editing.as_ref().filter(|editing| editing.is_changed()) {
        let title = editing.title();
        model.shared.complain(format!("{title} is unsaved: save or discard it first"));
        return Vec::new();
    }
    let commands = kept::forget(model);
    let (row, start) = current_value(&open, what);
    let place = Place::new(&open.task, &model.shared.options.data, model.shared.now_ms, &model.prompts.offers.told);
    model.prompts.offers.told.insert(place.file.clone());
    let text = start.clone();
    let mut editing = Editing::new(Found { what, row, gone: None, start, note: None }, place, &text);
    if matches!(what, What::New(..)) {
        editing.editor.go_to(1, 0);
    }
    show(model, editing);
    commands
}

/// Go on with a text that was kept.
pub(super) fn take_up(model: &mut Model, found: Found, place: Place, kept: &Kept) -> Vec<Command> {
    let entry = match found.what {
        What::Messages(entry) | What::Expected(entry) => Some(entry),
        What::New(..) | What::NewExpected(..) | What::System => None,
    };
    let mut editing = Editing::new(found, place, &kept.text);
    editing.editor.go_to(kept.cursor.0, kept.cursor.1);
    show(model, editing);
    with(model, |_| Effect::Moved);
    let prompts = &mut model.prompts;
    let is_row = |index: &u32| entry.is_some() && prompts.entries.get(*index as usize).copied() == entry;
    match prompts.shown.iter().position(is_row) {
        Some(place) => {
            prompts.cursor.index = place;
            preview::show(model)
        }
        None => Vec::new(),
    }
}

fn show(model: &mut Model, editing: Editing) {
    model.prompts.editing = Some(editing);
    model.prompts.filtering = false;
    check(model);
}

/// The row of what is to be written, and the text as it is now.
pub(super) fn current_value(open: &OpenTask, what: What) -> (Option<PromptRow>, String) {
    let row = match what {
        What::Messages(entry) | What::Expected(entry) => row(open, entry).cloned(),
        What::New(..) | What::NewExpected(..) | What::System => None,
    };
    let text = match what {
        What::Messages(_) => row.as_ref().map_or_else(String::new, |row| messages_text::write(&row.messages)),
        What::Expected(_) => {
            let expected = row.as_ref().and_then(|row| row.expected.as_ref()).map(ToString::to_string);
            expected.map_or_else(String::new, |expected| json::format(&expected).unwrap_or(expected))
        }
        What::New(..) => "=== user\n".to_owned(),
        What::NewExpected(..) => String::new(),
        What::System => open.task.system.clone().unwrap_or_default(),
    };
    (row, text)
}

/// The turns that were written.
pub(super) fn turns_of(editing: &Editing) -> Result<Vec<Message>, String> {
    messages_text::read(&editing.editor.text())
}

/// The expected answer that was written; null where the text is empty.
pub(super) fn expected_of(editing: &Editing) -> Result<serde_json::Value, String> {
    let text = editing.editor.text();
    if text.trim().is_empty() {
        return Ok(serde_json::Value::Null);
    }
    serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))
}

/// Say whether the text can be saved.
pub(super) fn check(model: &mut Model) {
    let scorer = model.shared.scorer();
    let Some(editing) = &mut model.prompts.editing else { return };
    editing.said = match editing.what {
        What::Messages(_) | What::New(..) => match turns_of(editing) {
            Ok(turns) => Said::Fine(format!("{} turn{}", turns.len(), if turns.len() == 1 { "" } else { "s" })),
            Err(error) => Said::Wrong(error),
        },
        What::Expected(_) | What::NewExpected(..) => match (expected_of(editing), scorer) {
            (Err(error), _) => Said::Wrong(error),
            (Ok(serde_json::Value::Null), _) => Said::Odd("empty: no expected answer".to_owned()),
            (Ok(value), Some(scorer)) => {
                let score = scorer.score(&value.to_string(), None);
                match score.errors.first() {
                    // The path of the whole answer is empty.
                    Some(error) => {
                        let what = format!("{} {}", error.instance_path, error.message);
                        Said::Odd(format!("schema violation: {}", what.trim()))
                    }
                    None => Said::Fine("valid (schema in the editor)".to_owned()),
                }
            }
            (Ok(_), None) => Said::Fine("JSON".to_owned()),
        },
        What::System => match editing.editor.text().trim().is_empty() {
            true => Said::Odd("empty: no system prompt".to_owned()),
            false => Said::Fine(String::new()),
        },
    };
}

fn after(model: &mut Model, effect: Effect) -> Vec<Command> {
    let (rows, columns) = layout::editor_window(model);
    if let Some(editing) = model.prompts.editing.as_mut().filter(|_| effect != Effect::None) {
        editing.editor.follow(rows, columns);
    }
    if effect == Effect::Edited {
        check(model);
    }
    Vec::new()
}

/// Do something with the text.
pub(super) fn with(model: &mut Model, act: impl FnOnce(&mut Editor) -> Effect) -> Vec<Command> {
    // What was typed while the text is being saved would be lost with the editor.
    if model.shared.is_busy("task.rows") {
        return Vec::new();
    }
    let Some(editing) = &mut model.prompts.editing else { return Vec::new() };
    let effect = act(&mut editing.editor);
    after(model, effect)
}

pub(super) fn key(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    let (rows, _) = layout::editor_window(model);
    with(model, |editor| editor.key(event, rows))
}

pub(super) fn paste(model: &mut Model, text: &str) -> Vec<Command> {
    with(model, |editor| editor.paste(text))
}

pub(super) fn scroll(model: &mut Model, by: isize) {
    let (rows, _) = layout::editor_window(model);
    with(model, |editor| {
        editor.scroll(by, rows);
        Effect::None
    });
}

pub(super) fn click(model: &mut Model, area: Rect, event: MouseEvent) {
    let inner = layout::text_area(model, area);
    let (Some(row), Some(column)) = (event.row.checked_sub(inner.y), event.column.checked_sub(inner.x)) else { return };
    with(model, |editor| {
        editor.click(row as usize, column as usize);
        Effect::Moved
    });
}

/// Leave the editor; what was changed is given up only after a confirmation.
pub(super) fn leave(model: &mut Model) -> Vec<Command> {
    match &model.prompts.editing {
        Some(editing) if editing.is_changed() => {
            let ask = Confirm::new("Discard changes?", format!("Unsaved: {}.", editing.title()), "discard", close);
            model.shared.popup = Some(Popup::Confirm(ask));
            Vec::new()
        }
        _ => close(model),
    }
}

/// The text is given up, or is as it was: nothing of it is kept, and the next one that is left is offered.
fn close(model: &mut Model) -> Vec<Command> {
    let mut commands = kept::forget(model);
    model.prompts.editing = None;
    commands.extend(offer::ask(model));
    commands
}
