//! Navigation in the schema: search, lines, problems, definitions, the outline, and back.

use super::file::follow;
use super::keyword_help::{self, name, summary};
use super::structure::{Role, Structure};
use super::{EDITOR, Schema, outline_pane};
use crate::help::Fault;
use crate::json_reader::Place;
use crate::message::{Change, Command};
use crate::popup::{Ask, Page, Pick, PickEntry, Popup};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::style_role::Role as Style;

/// The most positions that are remembered to go back to.
const MAX_JUMPS: usize = 100;

/// Moves the cursor; [`back`] returns to where it was.
pub(super) fn jump(schema: &mut Schema, shared: &mut Shared, (row, column): Place) -> Vec<Command> {
    let from = schema.editor.cursor();
    if from != (row, column) && schema.jumps.last() != Some(&from) {
        schema.jumps.push(from);
        let surplus = schema.jumps.len().saturating_sub(MAX_JUMPS);
        schema.jumps.drain(..surplus);
    }
    schema.editor.go_to(row, column);
    schema.completion = None;
    follow(schema, shared);
    Vec::new()
}

pub(super) fn back(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    if let Some((row, column)) = schema.jumps.pop() {
        schema.editor.go_to(row, column);
        follow(schema, shared);
    }
    Vec::new()
}

pub(super) fn no_jumps(schema: &Schema, _: &Shared) -> Option<String> {
    schema
        .jumps
        .is_empty()
        .then(|| "no earlier position".to_owned())
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

/// Properties, definitions and the branches around them, in the order of the text.
pub(super) fn outline(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let structure = &schema.structure;
    if structure.nodes.is_empty() {
        let (entries, places) = outline_pane::choices(shared);
        return pick_place(schema, shared, "Outline", entries, places);
    }
    let (mut entries, mut places) = (Vec::new(), Vec::new());
    for (index, node) in structure.nodes.iter().enumerate() {
        let (Some(Role::Named(keyword)), Some(key)) = (structure.parent_role(index), &node.key)
        else {
            continue;
        };
        let is_named = |at: &usize| matches!(structure.parent_role(*at), Some(Role::Named(_)));
        let kind = if keyword.name == "properties" {
            String::new()
        } else {
            format!(" ({})", keyword.name)
        };
        entries.push(PickEntry {
            label: key.text.clone(),
            beside: format!("{}{kind}", summary(structure, index)),
            detail: format!("line {}  {}", key.start.0 + 1, structure.pointer(index)),
            role: Some(Style::JsonKey),
            depth: structure.around(index).skip(1).filter(is_named).count(),
            ..PickEntry::default()
        });
        places.push(key.start);
    }
    if entries.is_empty() {
        return shared.complain("the schema names no properties and no definitions");
    }
    pick_place(schema, shared, "Outline", entries, places)
}

/// Moves the text cursor to where the selected entry of the outline is defined.
pub(super) fn go_to_entry(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let entries = &shared.draft.outline;
    match schema
        .outline
        .at(entries.len())
        .and_then(|index| entries.get(index))
        .map(|entry| entry.place)
    {
        Some(Some((line, column))) => {
            schema.pane = EDITOR;
            jump(schema, shared, (line - 1, column - 1))
        }
        Some(None) => shared.complain("this line has no source location"),
        None => Vec::new(),
    }
}

pub(super) fn definition(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let structure = &schema.structure;
    match subject(structure, schema.editor.cursor()) {
        Some(Subject::Reference(at)) => match structure.target(at) {
            Ok(target) => {
                let place = start_of(structure, target);
                jump(schema, shared, place)
            }
            Err(why) => shared.complain(format!("definition not found: {why}")),
        },
        Some(Subject::Definition(at, uses)) => match uses.as_slice() {
            [] => shared.complain(format!("no `$ref` names {}", name(structure, at))),
            [only] => {
                let place = start_of(structure, *only);
                jump(schema, shared, place)
            }
            several => {
                let entry = |at: &usize| PickEntry {
                    label: format!("line {}", start_of(structure, *at).0 + 1),
                    beside: structure.pointer(*at),
                    ..PickEntry::default()
                };
                let entries = several.iter().map(entry).collect();
                let places = several.iter().map(|at| start_of(structure, *at)).collect();
                let title = format!("References to {}", name(structure, at));
                pick_place(schema, shared, &title, entries, places)
            }
        },
        None => shared.complain("no `$ref` and no definition under the cursor"),
    }
}

enum Subject {
    Reference(usize),
    Definition(usize, Vec<usize>),
}

/// The reference or definition at a position, else the reference in its row.
fn subject(structure: &Structure, place: Place) -> Option<Subject> {
    let at = structure.at(place);
    if let Some(at) = at.filter(|at| structure.is_reference(*at)) {
        return Some(Subject::Reference(at));
    }
    let on_key = |at: &usize| {
        let key = structure.node(*at).and_then(|node| node.key.as_ref());
        key.is_some_and(|key| key.contains(place))
    };
    if let Some(at) = at.filter(on_key) {
        let uses = structure.uses(at);
        let parent = structure.parent_role(at);
        let is_definition =
            matches!(parent, Some(Role::Named(keyword)) if keyword.name != "properties");
        if is_definition || !uses.is_empty() {
            return Some(Subject::Definition(at, uses));
        }
    }
    let in_row = |at: &usize| {
        structure
            .node(*at)
            .is_some_and(|node| node.start.0 == place.0)
    };
    (0..structure.nodes.len())
        .find(|at| structure.is_reference(*at) && in_row(at))
        .map(Subject::Reference)
}

/// The start of a value: of its key, if it has one.
fn start_of(structure: &Structure, index: usize) -> Place {
    structure.node(index).map_or((0, 0), |node| {
        node.key.as_ref().map_or(node.start, |key| key.start)
    })
}

pub(super) fn keyword_help(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    match keyword_help::page(&schema.structure, schema.editor.cursor(), &shared.theme) {
        Some((title, lines)) => shared.open_popup(Popup::Page(Page::new(title, lines))),
        None => shared.complain("no keyword or property under the cursor"),
    }
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
