//! Navigation in the schema: search, lines, problems, rejected answers.

use super::file::follow;
use super::{EDITOR, Schema};
use crate::help::Fault;
use crate::json_reader::Place;
use crate::message::{Change, Command};
use crate::popup::{Ask, Pick, PickEntry, Popup};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::style_role::Role as Style;

pub(super) fn jump(schema: &mut Schema, shared: &mut Shared, (row, column): Place) -> Vec<Command> {
    schema.editor.go_to(row, column);
    schema.completion = None;
    follow(schema, shared);
    Vec::new()
}

pub(super) fn find(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let before = schema
        .editor
        .selected()
        .filter(|text| !text.contains('\n'))
        .unwrap_or_else(|| schema.editor.query().to_owned());
    let [next, previous] =
        ["next", "previous"].map(|id| shared.key_of(&format!("schema.find.{id}")));
    let ask = Ask::new(
        "Find",
        format!(
            "Find text (case-sensitive if it has capitals); {next} and {previous} jump between matches:"
        ),
        &before,
        |schema: &mut Schema, shared, query| {
            let count = schema.editor.find(&query);
            if count > 0 {
                let matches = if count == 1 { "match" } else { "matches" };
                shared.say(format!("{query:?}: {count} {matches}"));
            }
            follow(schema, shared);
            Vec::new()
        },
    );
    let editor = schema.editor.clone();
    let ask = ask.checked(move |query| {
        let is_there = query.is_empty() || editor.contains(query);
        (!is_there).then(|| format!("{query:?}: no matches"))
    });
    shared.open_popup(Popup::Ask(ask))
}

pub(super) fn find_next(schema: &mut Schema, shared: &mut Shared, forward: bool) -> Vec<Command> {
    schema.editor.find_next(forward);
    follow(schema, shared);
    Vec::new()
}

pub(super) fn go_to_line(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let ask = Ask::new(
        "Go to line",
        "Line:",
        "",
        |schema: &mut Schema, shared, line| {
            let line: usize = line.trim().parse().unwrap_or(1);
            jump(schema, shared, (line.saturating_sub(1), 0))
        },
    );
    let ask = ask.checked(|text| match text.trim().parse::<usize>() {
        Ok(number) if number > 0 => None,
        _ => Some("must be a whole number from 1".to_owned()),
    });
    shared.open_popup(Popup::Ask(ask))
}

fn place_of(fault: &Fault) -> Place {
    (fault.line - 1, fault.column - 1)
}

pub(super) fn next_fault(schema: &mut Schema, shared: &mut Shared, forward: bool) -> Vec<Command> {
    let cursor = schema.editor.cursor();
    let places: Vec<Place> = shared.draft.faults.iter().map(place_of).collect();
    let found = match forward {
        true => places
            .iter()
            .find(|place| **place > cursor)
            .or(places.first()),
        false => places
            .iter()
            .rev()
            .find(|place| **place < cursor)
            .or(places.last()),
    };
    found.map_or_else(Vec::new, |place| jump(schema, shared, *place))
}

pub(super) fn list_faults(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let entry = |fault: &Fault| {
        let (mark, role) = if fault.is_error {
            ("✗", Style::Bad)
        } else {
            ("▲", Style::Warning)
        };
        PickEntry {
            label: format!("{mark} line {} column {}", fault.line, fault.column),
            beside: fault.message.clone(),
            detail: fault.message.clone(),
            role: Some(role),
            ..PickEntry::default()
        }
    };
    let entries = shared.draft.faults.iter().map(entry).collect();
    let places: Vec<Place> = shared.draft.faults.iter().map(place_of).collect();
    pick_place(schema, shared, "Problems", entries, places)
}

/// Lists entries, with the nearest before the cursor selected, and goes to the chosen one.
fn pick_place(
    schema: &Schema,
    shared: &mut Shared,
    title: &str,
    entries: Vec<PickEntry>,
    places: Vec<Place>,
) -> Vec<Command> {
    let cursor = schema.editor.cursor();
    let selected = places
        .iter()
        .rposition(|place| *place <= cursor)
        .unwrap_or(0);
    let pick = Pick::new(
        title,
        entries,
        selected,
        move |schema: &mut Schema, shared, index| {
            schema.pane = EDITOR;
            let place = places.get(index);
            place.map_or_else(Vec::new, |place| jump(schema, shared, *place))
        },
    );
    shared.open_popup(Popup::Pick(pick))
}

pub(super) fn no_rejections(schema: &Schema, shared: &Shared) -> Option<String> {
    // Rejections by an older text do not apply to this one.
    if shared.draft.stale.is_some() {
        return Some(format!(
            "expected answers are not checked: {}",
            shared.draft.stale_title(shared.draft.name())
        ));
    }
    match &schema.rejections {
        None => Some("expected answers are not checked yet".to_owned()),
        Some(found) if found.total == 0 => {
            Some("the prompt sets have no expected answers to check".to_owned())
        }
        Some(found) if found.rejected == 0 && found.is_done() => Some(format!(
            "nothing to list: {} accepts all {} expected answers",
            shared.draft.name(),
            found.total
        )),
        Some(found) if found.rejected == 0 => {
            Some("no rejected answer so far: still checking".to_owned())
        }
        Some(_) => None,
    }
}

/// The rows whose expected answer is rejected, those of this edit first; the chosen one is shown on Prompts.
pub(super) fn list_rejections(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let Some(found) = &schema.rejections else {
        return Vec::new();
    };
    let mut rows: Vec<_> = found.rows.iter().collect();
    rows.sort_by_key(|row| !row.is_new);
    let entry = |row: &&super::expected::RejectedRow| PickEntry {
        label: format!("{} line {}  {}", row.set.name(), row.line, row.id),
        beside: row.reason.clone(),
        detail: format!("{}, by #{}  {}", row.reason, row.schema_path, row.answer),
        role: Some(if row.is_new {
            Style::Bad
        } else {
            Style::Warning
        }),
        ..PickEntry::default()
    };
    let entries: Vec<PickEntry> = rows.iter().map(entry).collect();
    let targets: Vec<_> = rows.iter().map(|row| (row.set, row.line)).collect();
    let first = if found.rows.len() < found.rejected {
        format!(", the first {}", found.rows.len())
    } else {
        String::new()
    };
    let title = format!(
        "Rejected expected answers: {} of {}{first}",
        found.rejected, found.checked
    );
    let pick = Pick::new(title, entries, 0, move |_: &mut Schema, _, index| {
        let Some((set, line)) = targets.get(index).copied() else {
            return Vec::new();
        };
        vec![
            Command::GoTo(Screen::Prompts),
            Command::Changed(Change::PromptRow(set, line)),
        ]
    });
    shared.open_popup(Popup::Pick(pick))
}
