//! The schema screen's part of the table of actions.

use ratatui::text::{Line, Span};

use super::layout::EDITOR;
use super::{Schema, after, follow};
use crate::score::Fault;
use crate::view::action::{Action, Place};
use crate::view::app::Model;
use crate::view::drafts::choice::{self, undecided};
use crate::view::message::Command;
use crate::view::popup::{Ask, Confirm, Page, Popup};
use crate::view::schema_draft;
use crate::view::screens::Screen;
use crate::view::style_role::Role;
use crate::view::widgets::editor::Effect;

const HERE: Place = Place::On(Screen::Schema);
const IN_EDITOR: Place = Place::In(Screen::Schema, EDITOR);

/// Everything that can be done with the schema.
pub(super) const ACTIONS: &[Action] = &[
    Action::new("schema.type", "Edit schema", "edit", &["enter", "i"], IN_EDITOR, |model| {
        model.schema.typing = true;
        Vec::new()
    })
    .also(&["edit", "insert"])
    .asking()
    .unless(|model| no_text(model).or_else(|| undecided::<Schema>(model)).or_else(|| typing(model))),
    Action::new("schema.leave", "Leave editor", "leave", &["esc"], IN_EDITOR, leave),
    Action::new("schema.undo", "Undo", "undo", &["ctrl-u", "u"], IN_EDITOR, |model| {
        let undone = model.schema.editor.undo();
        done(model, undone, "nothing to undo")
    }),
    Action::new("schema.redo", "Redo", "", &["ctrl-r", "U"], IN_EDITOR, |model| {
        let redone = model.schema.editor.redo();
        done(model, redone, "nothing to redo")
    }),
    Action::new("schema.find", "Find", "find", &["ctrl-f", "/"], IN_EDITOR, find).also(&["find", "search"]).asking(),
    Action::new("schema.find.next", "Next match", "", &["n"], IN_EDITOR, |model| find_next(model, true)).unless(no_search),
    Action::new("schema.find.previous", "Previous match", "", &["N"], IN_EDITOR, |model| find_next(model, false)).unless(no_search),
    Action::new("schema.line", "Go to line", "", &["ctrl-g"], IN_EDITOR, go_to_line).also(&["goto"]).asking(),
    Action::new("schema.fault.next", "Next problem", "", &["]", "f8"], IN_EDITOR, |model| next_fault(model, true)).unless(no_faults),
    Action::new("schema.fault.previous", "Previous problem", "", &["["], IN_EDITOR, |model| next_fault(model, false)).unless(no_faults),
    Action::new("schema.faults", "List problems", "", &["!"], IN_EDITOR, list_faults)
        .also(&["errors", "warnings", "problems"])
        .unless(no_faults),
    Action::new("schema.format", "Format", "format", &["alt-f", "="], IN_EDITOR, format)
        .also(&["format", "indent", "prettify"])
        .unless(no_text),
    Action::new("schema.select", "Select all", "", &["alt-a"], IN_EDITOR, |model| {
        model.schema.editor.select_all();
        Vec::new()
    }),
    Action::new("schema.save", "Save schema", "save", &["ctrl-o", "w"], HERE, save)
        .also(&["write"])
        .unless(|model| no_text(model).or_else(|| undecided::<Schema>(model)).or_else(|| unchanged(model))),
    Action::new("schema.copy", "Copy", "", &["y", "alt-y"], HERE, copy).also(&["yank", "clipboard"]).unless(no_text),
    Action::new("schema.outside", "Open in $EDITOR", "$EDITOR", &["e", "alt-e"], HERE, |model| {
        let line = model.schema.editor.cursor().0 + 1;
        model.schema.typing = false;
        schema_draft::edit_outside(model, line)
    })
    .also(&["editor", "vim"])
    .unless(|model| no_text(model).or_else(|| undecided::<Schema>(model))),
    Action::new("schema.revert", "Revert to saved", "", &["R"], HERE, revert)
        .also(&["revert", "reset"])
        .unless(|model| no_text(model).or_else(|| undecided::<Schema>(model)).or_else(|| unchanged(model))),
    choice::take_action::<Schema>(),
    choice::keep_action::<Schema>(),
    choice::discard_action::<Schema>(),
    choice::difference_action::<Schema>(),
];

fn no_text(model: &Model) -> Option<String> {
    model.shared.task.is_none().then(|| "no task is open".to_owned())
}

fn typing(model: &Model) -> Option<String> {
    model.schema.typing.then(|| "already editing".to_owned())
}

fn unchanged(model: &Model) -> Option<String> {
    (!model.shared.draft.is_changed()).then(|| "no unsaved changes".to_owned())
}

fn no_search(model: &Model) -> Option<String> {
    model.schema.editor.wanted().is_empty().then(|| "no search: / finds text".to_owned())
}

fn no_faults(model: &Model) -> Option<String> {
    model.shared.draft.faults.is_empty().then(|| "no problems".to_owned())
}

/// Save; what does not compile only after a confirmation.
fn save(model: &mut Model) -> Vec<Command> {
    let Some(why) = model.shared.draft.stale.clone() else { return schema_draft::save(model) };
    let text = format!("{why}\n\nRuns and other programs that read this file will fail.");
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Save invalid schema?", text, "save anyway", schema_draft::save)));
    Vec::new()
}

fn revert(model: &mut Model) -> Vec<Command> {
    let text = "Unsaved edits are lost (undo restores them in this session).";
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Revert to saved?", text, "revert", schema_draft::revert)));
    Vec::new()
}

fn leave(model: &mut Model) -> Vec<Command> {
    if !model.schema.typing {
        model.schema.editor.unselect();
        _ = model.schema.editor.find("");
        return Vec::new();
    }
    model.schema.typing = false;
    schema_draft::second(model)
}

fn done(model: &mut Model, is_done: bool, else_say: &str) -> Vec<Command> {
    if !is_done {
        model.shared.complain(else_say);
    }
    after(model, if is_done { Effect::Edited } else { Effect::None })
}

fn find(model: &mut Model) -> Vec<Command> {
    let before =
        model.schema.editor.selected().filter(|text| !text.contains('\n')).unwrap_or_else(|| model.schema.editor.wanted().to_owned());
    let ask = Ask::new("Find", "Find text (case-sensitive if it has capitals); n and N jump between matches:", &before, |model, wanted| {
        match model.schema.editor.find(&wanted) {
            0 => {}
            count => model.shared.say(format!("{wanted:?}: {count} {}", if count == 1 { "place" } else { "places" })),
        }
        follow(model);
        Vec::new()
    });
    let editor = model.schema.editor.clone();
    let ask = ask.checked(move |wanted| {
        let is_there = wanted.is_empty() || editor.holds(wanted);
        (!is_there).then(|| format!("{wanted:?}: no matches"))
    });
    model.shared.popup = Some(Popup::Ask(ask));
    Vec::new()
}

fn find_next(model: &mut Model, forward: bool) -> Vec<Command> {
    model.schema.editor.find_next(forward);
    follow(model);
    Vec::new()
}

fn go_to_line(model: &mut Model) -> Vec<Command> {
    let ask = Ask::new("Go to line", "Line:", "", |model, line| {
        let line: usize = line.trim().parse().unwrap_or(1);
        model.schema.editor.go_to(line.saturating_sub(1), 0);
        follow(model);
        Vec::new()
    });
    let ask = ask.checked(|text| match text.trim().parse::<usize>() {
        Ok(number) if number > 0 => None,
        _ => Some("must be a whole number from 1".to_owned()),
    });
    model.shared.popup = Some(Popup::Ask(ask));
    Vec::new()
}

fn next_fault(model: &mut Model, forward: bool) -> Vec<Command> {
    let (row, column) = model.schema.editor.cursor();
    let places: Vec<(usize, usize)> = model.shared.draft.faults.iter().map(|fault| (fault.line - 1, fault.column - 1)).collect();
    let found = match forward {
        true => places.iter().find(|place| **place > (row, column)).or(places.first()),
        false => places.iter().rev().find(|place| **place < (row, column)).or(places.last()),
    };
    if let Some((row, column)) = found {
        model.schema.editor.go_to(*row, *column);
        follow(model);
    }
    Vec::new()
}

fn list_faults(model: &mut Model) -> Vec<Command> {
    let theme = &model.shared.theme;
    let line = |fault: &Fault| {
        let (mark, role) = if fault.is_error { (theme.glyph("✗", "x"), Role::Bad) } else { (theme.glyph("▲", "!"), Role::Warning) };
        let place = format!("line {} column {}: ", fault.line, fault.column);
        Line::from(vec![
            Span::styled(format!("{mark} "), theme.style(role)),
            Span::styled(place, theme.style(Role::Faint)),
            Span::raw(fault.message.clone()),
        ])
    };
    let lines = model.shared.draft.faults.iter().map(line).collect();
    model.shared.popup = Some(Popup::Page(Page::new("Problems", lines)));
    Vec::new()
}

fn format(model: &mut Model) -> Vec<Command> {
    match crate::score::json::format(&model.schema.editor.text()) {
        Ok(text) if text == model.schema.editor.text() => {
            model.shared.say("already formatted");
            Vec::new()
        }
        Ok(text) => {
            model.schema.editor.replace(&text);
            after(model, Effect::Edited)
        }
        Err(error) => {
            model.shared.complain(format!("cannot format: {error}"));
            Vec::new()
        }
    }
}

fn copy(model: &mut Model) -> Vec<Command> {
    let (text, what) = match model.schema.editor.selected() {
        Some(text) => (text, "selection"),
        None => (model.schema.editor.text(), "schema"),
    };
    model.shared.say(format!("{what} copied"));
    vec![Command::Copy(text)]
}
