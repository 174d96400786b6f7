//! Keys, pasted text and the mouse on the scores screen: moving, writing a completion, filtering.

use crossterm::event::{KeyCode, KeyEvent, MouseEvent, MouseEventKind};

use super::items::Written;
use super::{COMPLETION, LIST, PARTS, SUMMARY, Source, draw, listing, source};
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::widgets::editor::{Editor, Effect};
use crate::view::widgets::field::Field;
use crate::view::widgets::list_cursor::Cursor;

/// A longer text is not taken from the clipboard.
const LONGEST_BYTES: usize = 4 << 20;

pub(super) fn typed(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    if model.scores.editor.is_some() {
        return write_key(model, event);
    }
    if model.scores.filtering {
        return filter_key(model, event);
    }
    let page = model.shared.size.1.saturating_sub(6) as usize;
    match PARTS.pane_of(model) {
        LIST => {
            let length = listing::length(model);
            if model.scores.cursor.key(event, page, length) {
                model.scores.tops[0] = 0;
            }
        }
        pane => {
            let which = usize::from(pane == SUMMARY);
            let mut cursor = Cursor { index: model.scores.tops[which] };
            cursor.key(event, page, draw::length(model, pane));
            model.scores.tops[which] = cursor.index;
        }
    }
    Vec::new()
}

/// Write a completion: a new one, or a copy of the one under the cursor.
pub(super) fn write(model: &mut Model, is_new: bool) -> Vec<Command> {
    let here = listing::selected(model);
    let item = here.and_then(|place| model.scores.scored.as_ref()?.items.all.get(place));
    let prompt_id = item.and_then(|item| item.row.as_ref()).map(|row| row.id.clone());
    let text = item.filter(|_| !is_new).map(|item| item.text.clone()).unwrap_or_default();
    match here.filter(|_| model.scores.source == Source::Written && !is_new) {
        Some(place) => model.scores.editing = place,
        None => add(model, Written { text: text.clone(), prompt_id, from: "custom".to_owned(), is_apart: false }),
    }
    model.scores.editor = Some(Editor::new(&text, false));
    model.scores.pane = Some(COMPLETION);
    source::turn_to(model, Source::Written)
}

/// Another written completion, with the cursor on it.
fn add(model: &mut Model, written: Written) {
    let scores = &mut model.scores;
    scores.written.push(written);
    scores.editing = scores.written.len() - 1;
    (scores.only, scores.class, scores.filter, scores.order) = Default::default();
    // Groups are in the order of their first completion, so that a list in groups may have it elsewhere; alone it is the last.
    scores.is_flat = true;
    scores.source = Source::Written;
    scores.cursor = Cursor { index: scores.editing };
    listing::arrange(model);
}

fn write_key(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    if event.code == KeyCode::Esc {
        model.scores.editor = None;
        return Vec::new();
    }
    let rows = model.shared.size.1 as usize / 2;
    let effect = model.scores.editor.as_mut().map(|editor| editor.key(event, rows));
    if effect == Some(Effect::Edited) { written(model) } else { Vec::new() }
}

/// The editor's text is scored as it stands.
fn written(model: &mut Model) -> Vec<Command> {
    let Some(text) = model.scores.editor.as_ref().map(Editor::text) else { return Vec::new() };
    let editing = model.scores.editing;
    if let Some(written) = model.scores.written.get_mut(editing) {
        written.text = text;
    }
    source::load(model)
}

fn filter_key(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    match event.code {
        KeyCode::Enter | KeyCode::Up | KeyCode::Down => model.scores.filtering = false,
        KeyCode::Esc => {
            model.scores.filtering = false;
            model.scores.filter = Field::default();
            listing::arrange(model);
        }
        _ => {
            if model.scores.filter.key(event) {
                model.scores.cursor = Cursor::default();
                listing::arrange(model);
            }
        }
    }
    Vec::new()
}

/// Pasted text goes where one types; else it is a completion of its own.
pub(super) fn pasted(model: &mut Model, text: &str) -> Vec<Command> {
    if text.len() > LONGEST_BYTES {
        model.shared.complain(format!("pasted text is {} MB; limit {} MB", text.len() >> 20, LONGEST_BYTES >> 20));
        return Vec::new();
    }
    if model.scores.filtering {
        model.scores.filter.paste(text);
        listing::arrange(model);
        return Vec::new();
    }
    if let Some(editor) = &mut model.scores.editor {
        return if editor.paste(text) == Effect::Edited { written(model) } else { Vec::new() };
    }
    let here = listing::selected(model);
    let row = here.and_then(|place| model.scores.scored.as_ref()?.items.all.get(place)?.row.clone());
    // Terminals end pasted lines with carriage returns.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    add(model, Written { text, prompt_id: row.map(|row| row.id.clone()), from: "pasted".to_owned(), is_apart: false });
    source::turn_to(model, Source::Written)
}

/// Take the written completion under the cursor away.
pub(super) fn remove(model: &mut Model) -> Vec<Command> {
    if let Some(place) = listing::selected(model).filter(|place| *place < model.scores.written.len()) {
        model.scores.written.remove(place);
    }
    source::load(model)
}

pub(super) fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let rows: isize = match event.kind {
        MouseEventKind::ScrollDown => 3,
        MouseEventKind::ScrollUp => -3,
        MouseEventKind::Down(_) => {
            draw::clicked(model, event.column, event.row);
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    match draw::pane_at(model, event.column, event.row) {
        Some((LIST, _)) => {
            let length = listing::length(model);
            model.scores.cursor.go(rows, length);
        }
        Some((pane, _)) => {
            let which = usize::from(pane == SUMMARY);
            let last = draw::length(model, pane).saturating_sub(1);
            model.scores.tops[which] = model.scores.tops[which].saturating_add_signed(rows).min(last);
        }
        None => {}
    }
    Vec::new()
}
