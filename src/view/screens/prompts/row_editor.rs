//! What is being written on this screen: a row's turns, its expected answer, the task's system text; checked while typing.

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::layout::Rect;

use super::recovery::{self, DraftTarget, Found, Origin};
use super::rows::{Entry, row};
use super::{Prompts, layout, messages_text};
use crate::dataset::PromptRow;
use crate::score::json;
use crate::task::PromptSet;
use crate::text::Message;
use crate::view::app::Model;
use crate::view::drafts::{self, DraftFile};
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
    pub(super) file: DraftFile,
    /// The text as saved.
    pub(super) start: String,
    /// Where the text belongs and what is there now, where that changed on disk and the user has not decided.
    pub(super) theirs: Option<Found>,
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
    /// What it is, for its draft.
    pub(super) fn target(&self) -> DraftTarget {
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

    fn follow(&mut self, found: Found) {
        let Found { what, row, gone, start, .. } = found;
        (self.what, self.row, self.gone, self.start, self.theirs) = (what, row, gone, start, None);
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

impl What {
    /// The row of the table that it is of.
    pub(super) fn entry(self) -> Option<Entry> {
        match self {
            Self::Messages(entry) | Self::Expected(entry) => Some(entry),
            Self::New(..) | Self::NewExpected(..) | Self::System => None,
        }
    }
}

/// Begin to write.
pub(super) fn begin(model: &mut Model, what: What) -> Vec<Command> {
    let Some(task) = model.shared.task.clone() else { return Vec::new() };
    if let Some(editing) = model.prompts.editing.as_ref().filter(|editing| editing.is_changed()) {
        let title = editing.title();
        model.shared.complain(format!("{title} is unsaved: save or discard it first"));
        return Vec::new();
    }
    let commands = drafts::store::<Prompts>(model);
    let (row, start) = current_value(&task, what);
    let text = start.clone();
    let cursor = (usize::from(matches!(what, What::New(..))), 0);
    open(model, Found { what, row, gone: None, start, note: None }, &text, cursor);
    commands
}

/// Opens the editor on a text.
pub(super) fn open(model: &mut Model, found: Found, text: &str, cursor: (usize, usize)) {
    let Some(task) = model.shared.task.clone() else { return };
    let Found { what, row, gone, start, .. } = found;
    let mut editor = Editor::new(text, matches!(what, What::Expected(_) | What::NewExpected(..)));
    editor.go_to(cursor.0, cursor.1);
    let file = DraftFile::new::<Prompts>(model, &task.task);
    let said = Said::Fine(String::new());
    model.prompts.editing = Some(Editing { what, editor, said, row, gone, file, start, theirs: None });
    model.prompts.filtering = false;
    check(model);
    after(model, Effect::Moved);
}

/// The task was read again: what is being written goes on where its row is now. Where somebody else changed the text itself, the user decides.
pub(super) fn follow_task(model: &mut Model) -> Vec<Command> {
    let (Some(open), Some(editing)) = (&model.shared.task, &mut model.prompts.editing) else { return Vec::new() };
    let Ok(found) = recovery::find(open, &editing.target()) else { return Vec::new() };
    if found.gone == editing.gone && (found.start == editing.start || found.start == editing.editor.text()) {
        editing.follow(found);
        return Vec::new();
    }
    let (is_changed, is_gone) = (editing.is_changed(), found.gone.is_some());
    editing.theirs = Some(found);
    match (is_changed, is_gone) {
        (true, _) => Vec::new(),
        (false, true) => close(model),
        (false, false) => settle(model, true),
    }
}

/// The user has decided between the text on disk and the own one, which stays in the editor's history.
pub(super) fn settle(model: &mut Model, load: bool) -> Vec<Command> {
    let Some(editing) = &mut model.prompts.editing else { return Vec::new() };
    let Some(found) = editing.theirs.take() else { return Vec::new() };
    let text = found.start.clone();
    // Of a row that is gone it is said what saving does.
    let kept = found.note.clone().filter(|_| found.gone.is_some()).unwrap_or_else(|| drafts::KEPT.to_owned());
    editing.follow(found);
    if load {
        editing.editor.replace(&text);
    }
    model.shared.say(if load { drafts::LOADED.to_owned() } else { kept });
    after(model, Effect::Edited);
    drafts::store::<Prompts>(model)
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

/// The text is discarded, or is as it was.
fn close(model: &mut Model) -> Vec<Command> {
    model.prompts.editing.take().and_then(|editing| editing.file.remove(model)).into_iter().collect()
}
