//! Chooses the columns of the list; the choice is kept in the user's configuration file.

use ratatui::text::{Line, Span};

use super::{COLUMNS, Chooser, LIST, Runs, columns, rows_of};
use crate::message::{Command, Work};
use crate::pane::content::Content;
use crate::settings;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::check_list::{self, CheckRow};
use crate::widgets::filter::Filter;

pub(super) fn open(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    if runs.pane == COLUMNS {
        return close(runs, shared);
    }
    runs.pane = COLUMNS;
    runs.chooser = Chooser::default();
    Vec::new()
}

fn close(runs: &mut Runs, shared: &Shared) -> Vec<Command> {
    runs.go_to_pane(shared, LIST);
    Vec::new()
}

/// Leaves the innermost: the filter, the list.
pub(super) fn leave(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    if runs.chooser.filter.is_shown() {
        let under = under(runs, shared);
        runs.chooser.filter = Filter::default();
        if let Some((_, field)) = under {
            go_to(runs, shared, &field);
        }
        return Vec::new();
    }
    close(runs, shared)
}

fn chosen(shared: &Shared) -> Vec<String> {
    shared
        .options
        .runs_columns
        .clone()
        .unwrap_or_else(columns::usual)
}

/// The chosen columns in their order, then all others that the filter lets through.
fn listed(runs: &Runs, shared: &Shared) -> Vec<(bool, String)> {
    let (chosen, filter) = (chosen(shared), runs.chooser.filter.text().to_lowercase());
    let offered = columns::offered(rows_of(&shared.runs.listing));
    let others = offered
        .into_iter()
        .filter(|field| !chosen.contains(field))
        .map(|field| (false, field));
    let all: Vec<(bool, String)> = chosen
        .iter()
        .map(|field| (true, field.clone()))
        .chain(others)
        .collect();
    all.into_iter()
        .filter(|(_, field)| field.to_lowercase().contains(&filter))
        .collect()
}

fn under(runs: &Runs, shared: &Shared) -> Option<(bool, String)> {
    let listed = listed(runs, shared);
    listed.get(runs.chooser.cursor.at(listed.len())?).cloned()
}

/// Shows or hides the column under the cursor, which stays on its row.
pub(super) fn toggle(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some((is_chosen, field)) = under(runs, shared) else {
        return Vec::new();
    };
    let mut columns = chosen(shared);
    if is_chosen {
        columns.retain(|other| *other != field);
    } else {
        columns.push(field.clone());
    }
    if columns.is_empty() {
        return shared.complain("keep at least one column");
    }
    let commands = set(shared, Some(columns));
    go_to(runs, shared, &field);
    commands
}

pub(super) fn shift(runs: &mut Runs, shared: &mut Shared, right: bool) -> Vec<Command> {
    let Some((true, field)) = under(runs, shared) else {
        return Vec::new();
    };
    let mut columns = chosen(shared);
    let Some(at) = columns.iter().position(|other| *other == field) else {
        return Vec::new();
    };
    let to = if right { at + 1 } else { at.wrapping_sub(1) };
    if to >= columns.len() {
        return Vec::new();
    }
    columns.swap(at, to);
    let commands = set(shared, Some(columns));
    go_to(runs, shared, &field);
    commands
}

pub(super) fn reset(_: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    set(shared, None)
}

fn go_to(runs: &mut Runs, shared: &Shared, field: &str) {
    let place = listed(runs, shared)
        .iter()
        .position(|(_, other)| other == field);
    runs.chooser.cursor.index = place.unwrap_or(runs.chooser.cursor.index);
}

fn set(shared: &mut Shared, columns: Option<Vec<String>>) -> Vec<Command> {
    shared.options.runs_columns.clone_from(&columns);
    let Some(file) = shared.options.appearance.config_file() else {
        return Vec::new();
    };
    let write = move || {
        settings::save_list(
            &file,
            "runs_columns",
            columns.as_deref().unwrap_or_default(),
        )
    };
    vec![Work::latest(
        "runs.columns",
        move |_| write(),
        |_: &mut Runs, shared, outcome| {
            if let Err(error) = outcome {
                shared.complain(format!("columns are not saved: {error}"));
            }
            Vec::new()
        },
    )]
}

pub(super) fn content<'a>(runs: &Runs, shared: &'a Shared, width: usize) -> Content<'a> {
    let theme = &shared.theme;
    let key = |id| theme.span(shared.key_of(id), Role::Key);
    let keys = Line::from(vec![
        key("runs.columns.toggle"),
        Span::raw(" show or hide  "),
        key("runs.columns.left"),
        Span::raw(" "),
        key("runs.columns.right"),
        Span::raw(" move  "),
        key("runs.columns.filter"),
        Span::raw(" find  "),
        key("runs.columns.reset"),
        Span::raw(" reset"),
    ]);
    let filter = runs
        .chooser
        .filter
        .is_shown()
        .then(|| runs.chooser.filter.line(theme, width));
    let row = runs.row(shared);
    let value = |field: &str| Some(crate::report::field_text(field, &row?.field(field, false)?));
    let column = |(is_chosen, field): &(bool, String)| CheckRow {
        on: is_chosen.then(String::new),
        label: field.clone(),
        beside: value(field).unwrap_or_default(),
    };
    let all: Vec<CheckRow> = listed(runs, shared).iter().map(column).collect();
    Content {
        head: filter.into_iter().chain([keys]).collect(),
        ..check_list::content(
            theme,
            "Columns".to_owned(),
            runs.chooser.cursor,
            all,
            "no field or metric matches",
        )
    }
}
