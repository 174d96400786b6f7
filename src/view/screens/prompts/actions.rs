//! The prompts screen's part of the table of actions.

use super::layout::{CHAT, EDITOR, HEALTH, ROWS};
use super::row_editor::{self, What};
use super::rows::{Column, arrange, selected, selected_row};
use super::{Prompts, preview, save, table, token_count};
use crate::task::PromptSet;
use crate::view::action::{Action, Place};
use crate::view::app::Model;
use crate::view::drafts::choice::{self, undecided};
use crate::view::message::Command;
use crate::view::popup::{Ask, Confirm, Popup};
use crate::view::screens::Screen;
use crate::view::widgets::editor::Effect;
use crate::view::widgets::field::Field;

const HERE: Place = Place::On(Screen::Prompts);
const IN_ROWS: Place = Place::In(Screen::Prompts, ROWS);
const IN_HEALTH: Place = Place::In(Screen::Prompts, HEALTH);
const IN_EDITOR: Place = Place::In(Screen::Prompts, EDITOR);

/// Everything that can be done with prompts.
pub(super) const ACTIONS: &[Action] = &[
    Action::new("prompts.save", "Save", "save", &["ctrl-o"], IN_EDITOR, save::save).unless(undecided::<Prompts>),
    Action::new("prompts.undo", "Undo", "undo", &["ctrl-u"], IN_EDITOR, |model| {
        row_editor::with(model, |editor| if editor.undo() { Effect::Edited } else { Effect::None })
    }),
    Action::new("prompts.redo", "Redo", "", &["ctrl-r"], IN_EDITOR, |model| {
        row_editor::with(model, |editor| if editor.redo() { Effect::Edited } else { Effect::None })
    }),
    Action::new("prompts.format", "Format JSON", "", &["alt-f"], IN_EDITOR, |model| {
        row_editor::with(model, |editor| match crate::score::json::format(&editor.text()) {
            Ok(text) if editor.is_json() => {
                editor.replace(&text);
                Effect::Edited
            }
            _ => Effect::None,
        })
    })
    .also(&["format", "indent", "prettify"]),
    Action::new("prompts.open", "Preview prompt", "", &["enter"], IN_ROWS, |model| {
        model.prompts.pane = Some(CHAT);
        Vec::new()
    })
    .unless(no_row),
    Action::new("prompts.finding", "Go to finding", "row", &["enter"], IN_HEALTH, go_to_finding).unless(no_finding),
    choice::take_action::<Prompts>(),
    choice::keep_action::<Prompts>(),
    choice::discard_action::<Prompts>(),
    choice::difference_action::<Prompts>(),
    Action::new("prompts.leave", "Close editor", "leave", &["esc"], HERE, leave).unless(nothing_open),
    Action::new("prompts.filter", "Filter rows", "filter", &["/"], HERE, |model| {
        model.prompts.pane = Some(ROWS);
        model.prompts.filtering = true;
        Vec::new()
    })
    .also(&["find", "search"])
    .asking(),
    Action::new("prompts.messages", "Edit messages", "edit", &["i"], HERE, |model| write(model, What::Messages)).asking().unless(no_row),
    Action::new("prompts.expected", "Edit expected answer", "expected", &["x"], HERE, |model| write(model, What::Expected))
        .asking()
        .unless(no_row),
    Action::new("prompts.system", "Edit system prompt", "system", &["p"], HERE, |model| row_editor::begin(model, What::System))
        .asking()
        .unless(no_task),
    Action::new("prompts.sort", "Sort by next column", "sort", &["s"], HERE, |model| {
        model.prompts.sort = (model.prompts.sort.0.next(), false);
        arrange(model)
    }),
    Action::new("prompts.sort.backwards", "Reverse sort", "", &["S"], HERE, |model| {
        model.prompts.sort.1 = !model.prompts.sort.1;
        arrange(model)
    }),
    Action::new("prompts.add", "Add row", "add", &["a"], HERE, add).also(&["new", "insert"]).asking().unless(no_task),
    Action::new("prompts.duplicate", "Duplicate row", "", &["c"], HERE, |model| match selected(model) {
        Some(entry) => save::duplicate(model, entry),
        None => Vec::new(),
    })
    .also(&["clone"])
    .unless(no_row),
    Action::new("prompts.delete", "Delete row", "", &["D", "delete"], HERE, delete).also(&["remove"]).unless(no_row),
    Action::new("prompts.outside", "Open in $EDITOR", "$EDITOR", &["e"], HERE, outside).also(&["editor", "vim"]).unless(no_task),
    Action::new("prompts.copy", "Copy prompt", "", &["y"], HERE, |model| {
        let prompt = model.prompts.chat.as_ref().map(|chat| chat.prompt.clone()).unwrap_or_default();
        model.shared.say("prompt copied");
        vec![Command::Copy(prompt)]
    })
    .also(&["yank", "clipboard"])
    .unless(no_row),
    Action::new("prompts.model", "Choose tokenizer", "", &["m"], HERE, choose_model).also(&["tokenizer"]).asking().unless(no_task),
    Action::new("prompts.health", "Show health report", "", &["H"], HERE, |model| {
        model.prompts.pane = Some(HEALTH);
        Vec::new()
    }),
];

fn no_task(model: &Model) -> Option<String> {
    model.shared.task.is_none().then(|| "no task is open".to_owned())
}

fn no_row(model: &Model) -> Option<String> {
    selected(model).is_none().then(|| "no row selected".to_owned())
}

fn no_finding(model: &Model) -> Option<String> {
    table::findings(model).is_empty().then(|| "no finding selected".to_owned())
}

fn nothing_open(model: &Model) -> Option<String> {
    let open = model.prompts.editing.is_some() || model.prompts.filtering || !model.prompts.filter.text().is_empty();
    (!open && super::layout::pane(model) == ROWS).then(|| "nothing to close".to_owned())
}

fn leave(model: &mut Model) -> Vec<Command> {
    if model.prompts.editing.is_some() {
        return row_editor::leave(model);
    }
    if model.prompts.filtering {
        model.prompts.filtering = false;
        return Vec::new();
    }
    if super::layout::pane(model) != ROWS {
        model.prompts.pane = Some(ROWS);
        return Vec::new();
    }
    model.prompts.filter = Field::default();
    arrange(model)
}

fn write(model: &mut Model, what: fn(super::Entry) -> What) -> Vec<Command> {
    match selected(model).map(what) {
        Some(what) => row_editor::begin(model, what),
        None => Vec::new(),
    }
}

fn add(model: &mut Model) -> Vec<Command> {
    let place = super::rows::selected_place(model);
    let first = || {
        let open = model.shared.task.as_ref()?;
        PromptSet::ALL.into_iter().find(|set| open.task.set_file(*set).is_some()).map(|set| (set, 0))
    };
    match place.or_else(first) {
        Some((set, line)) => row_editor::begin(model, What::New(set, line)),
        None => {
            model.shared.complain("the task has no prompt set; name a file under [prompts] in task.toml: train = \"train.jsonl\"");
            Vec::new()
        }
    }
}

fn delete(model: &mut Model) -> Vec<Command> {
    let (Some(entry), Some(row)) = (selected(model), selected_row(model)) else { return Vec::new() };
    let text = format!("{} in line {} of the {} set: {}", row.id, row.line, entry.set.name(), super::rows::first_words(row));
    let ask = Confirm::new("Delete row?", text, "delete", {
        let (set, row) = (entry.set, row.clone());
        move |model| save::delete(model, set, row)
    });
    model.shared.popup = Some(Popup::Confirm(ask));
    Vec::new()
}

/// The file and line of the finding in the health pane; else of the row; else of the first set that cannot be read.
fn outside(model: &mut Model) -> Vec<Command> {
    let Some(open) = model.shared.task.clone() else { return Vec::new() };
    let finding = match super::layout::pane(model) {
        HEALTH => table::finding_place(model),
        _ => None,
    };
    let place = finding.or_else(|| super::rows::selected_place(model)).or_else(|| {
        let (set, error) = open.rows.iter().find_map(|(set, rows)| Some((*set, rows.as_ref().err()?)))?;
        let line = error.split(" line ").nth(1).and_then(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok());
        Some((set, line.unwrap_or(1)))
    });
    let Some((file, line)) = place.and_then(|(set, line)| Some((open.task.set_file(set)?.to_owned(), line))) else {
        return save::outside(model, crate::task::TASK_FILE.to_owned(), 1);
    };
    save::outside(model, file, line)
}

fn go_to_finding(model: &mut Model) -> Vec<Command> {
    let Some((set, line)) = table::finding_place(model) else { return Vec::new() };
    let Some(open) = model.shared.task.clone() else { return Vec::new() };
    let place = model
        .prompts
        .entries
        .iter()
        .position(|entry| entry.set == set && super::rows::row(&open, *entry).is_some_and(|row| row.line == line));
    let Some(place) = place else {
        model.shared.complain(format!("line {line} of the {} set is not a valid row: open its file with e", set.name()));
        return Vec::new();
    };
    let shown = model.prompts.shown.iter().position(|index| *index as usize == place);
    model.prompts.pane = Some(ROWS);
    if let Some(shown) = shown {
        model.prompts.cursor.index = shown;
        return preview::show(model);
    }
    // The filter hides it.
    model.prompts.filter = Field::default();
    model.prompts.sort = (Column::File, false);
    model.prompts.shown = (0..model.prompts.entries.len() as u32).collect();
    model.prompts.cursor.index = place;
    preview::show(model)
}

fn choose_model(model: &mut Model) -> Vec<Command> {
    let now = model.prompts.model.clone().unwrap_or_default();
    let label = "Folder, Hugging Face name, or `tiny`; empty: the task's base model";
    let ask = Ask::new("Tokenizer of which model?", label, &now, |model, name| {
        let name = name.trim();
        model.prompts.model = (!name.is_empty()).then(|| name.to_owned());
        model.prompts.counter = None;
        model.prompts.tokens.fill(super::UNCOUNTED);
        token_count::count(model)
    });
    model.shared.popup = Some(Popup::Ask(ask));
    Vec::new()
}
