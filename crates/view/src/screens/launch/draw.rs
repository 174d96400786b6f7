//! The panes of the launch screen: the form, the help of the selected row, and the forecast; side by side if there is
//! room.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::cluster::Cluster;
use super::form::{self, Row, Section};
use super::{
    FORECAST, FORM, Launch, chosen_device, clip_start, complaint, forecast_view, hidden, key_help,
    rows, selected, source, start_run, value,
};
use crate::config::{Key, Kind, MIN_STEPS, Preset, Source};
use crate::format::counted;
use crate::pane::content::{Content, List, Place};
use crate::screen::Screen as _;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::list_cursor::Cursor;

/// Help of the row under the cursor; it takes no focus.
const ABOUT: &str = "about";
/// The minimum width for form and forecast side by side.
const SIDE_BY_SIDE: u16 = 72;
/// The widths of a setting's name and of its layer.
const NAME_COLUMNS: usize = 23;
const SOURCE_COLUMNS: usize = 8;

pub(super) fn places(launch: &Launch, shared: &Shared, area: Rect) -> Vec<Place> {
    let focused = launch.pane();
    if shared.zoomed {
        return vec![Place::new(focused, area)];
    }
    if area.width >= SIDE_BY_SIDE {
        let left = if area.width >= 110 {
            area.width * 11 / 20
        } else {
            48.min(area.width * 3 / 5)
        };
        let [form, right] =
            Layout::horizontal([Constraint::Length(left), Constraint::Fill(1)]).areas(area);
        let about_rows = if area.height >= 30 {
            13
        } else {
            (area.height / 2).max(3)
        };
        let [about, forecast] =
            Layout::vertical([Constraint::Length(about_rows), Constraint::Fill(1)]).areas(right);
        return vec![
            Place::new(FORM, form),
            Place::new(ABOUT, about),
            Place::new(FORECAST, forecast),
        ];
    }
    if focused == FORECAST {
        return vec![Place::new(FORECAST, area)];
    }
    let about_rows = if area.height >= 16 { 7 } else { 0 };
    let [form, about] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(about_rows)]).areas(area);
    vec![Place::new(FORM, form), Place::new(ABOUT, about)]
}

pub(super) fn content<'a>(launch: &'a Launch, shared: &'a Shared, place: &Place) -> Content<'a> {
    let inside = place.inside();
    match place.id {
        FORM => form_content(launch, shared, inside.width.into()),
        FORECAST => {
            let lines = forecast_view::lines(launch, shared, inside.width.into());
            Content::titled(FORECAST).text(inside, lines, launch.scroll)
        }
        _ => {
            let title = selected(launch).map_or("", Row::title);
            Content::titled(title).text(inside, key_help::lines(launch, shared), Cursor::default())
        }
    }
}

fn form_content<'a>(launch: &'a Launch, shared: &'a Shared, columns: usize) -> Content<'a> {
    let title = match (launch.only_different, launch.form.changed.len()) {
        (true, _) => "new run: changed settings".to_owned(),
        (false, 0) => "new run".to_owned(),
        (false, changed) => format!("new run: {changed} changed"),
    };
    let lines = std::rc::Rc::new(lines(launch));
    let items = rows_of(&lines);
    let at = launch.cursor.at(items);
    let list = List::new(lines.len(), launch.cursor, {
        let lines = std::rc::Rc::clone(&lines);
        move |line: usize| match lines[line] {
            FormLine::Heading(title) => shared.theme.line(title, Role::Title),
            FormLine::Row(index, row) => row_line(launch, shared, row, at == Some(index), columns),
        }
    });
    let item = move |line: usize| match lines[line] {
        FormLine::Row(index, _) => Some(index),
        FormLine::Heading(_) => None,
    };
    Content {
        head: launch
            .filter
            .is_shown()
            .then(|| launch.filter.line(&shared.theme, columns))
            .into_iter()
            .collect(),
        ..Content::titled(title).list(List {
            mark: 2,
            ..list.with_headings(items, item)
        })
    }
}

enum FormLine {
    Heading(&'static str),
    Row(usize, Row),
}

/// Rows; under a filter, which hides the sections' own rows, with titles before the first of each section.
fn lines(launch: &Launch) -> Vec<FormLine> {
    let mut drawn = Vec::new();
    let mut group = "";
    for (index, row) in rows(launch).into_iter().enumerate() {
        match row {
            Row::Section(section) => group = section.title,
            Row::Key(key) if Section::for_key(key).title != group => {
                group = Section::for_key(key).title;
                drawn.push(FormLine::Heading(group));
            }
            _ => {}
        }
        drawn.push(FormLine::Row(index, row));
    }
    drawn
}

fn rows_of(drawn: &[FormLine]) -> usize {
    drawn
        .iter()
        .filter(|drawn| matches!(drawn, FormLine::Row(..)))
        .count()
}

fn row_line(
    launch: &Launch,
    shared: &Shared,
    row: Row,
    is_here: bool,
    columns: usize,
) -> Line<'static> {
    match row {
        Row::Start => start_line(launch, shared, columns),
        Row::Key(key) => key_line(launch, shared, key, is_here, columns),
        Row::Preset => plain_line(
            row,
            is_here,
            columns,
            launch.form.preset.map_or("none", Preset::name),
            true,
        ),
        Row::Task => {
            let name = match (&shared.task, &shared.task_error) {
                (Some(open), _) => open.task.name.clone(),
                (None, Some(_)) => "cannot be read".to_owned(),
                (None, None) => "loading ...".to_owned(),
            };
            plain_line(row, is_here, columns, &name, false)
        }
        Row::Nodes => plain_line(
            row,
            is_here,
            columns,
            &cluster_text(launch, |cluster| cluster.nodes.to_string()),
            true,
        ),
        Row::PerNode => {
            let each = cluster_text(launch, |cluster| {
                counted(
                    cluster.per_node,
                    if cluster.on_cpus { "rank" } else { "GPU" },
                )
            });
            plain_line(row, is_here, columns, &each, true)
        }
        Row::Name | Row::TimeLimit | Row::Others => {
            if let Some(field) = launch.edit.as_ref().filter(|_| is_here) {
                let mut line = field.line(
                    &shared.theme,
                    columns.saturating_sub(NAME_COLUMNS + 2),
                    true,
                );
                line.spans
                    .insert(0, Span::raw(format!("{:<NAME_COLUMNS$}", row.title())));
                line
            } else {
                let (text, empty) = match row {
                    Row::TimeLimit => (
                        cluster_text(launch, |cluster| cluster.time.clone()),
                        "the partition's",
                    ),
                    Row::Others => (launch.form.others.clone(), "none"),
                    _ => (launch.form.name.clone(), "none"),
                };
                let text = if text.is_empty() { empty } else { &text };
                plain_line(row, is_here, columns, text, false)
            }
        }
        Row::Device => plain_line(row, is_here, columns, &chosen_device(launch), true),
        Row::Section(section) => section_line(launch, shared, section),
    }
}

fn cluster_text(launch: &Launch, show: impl Fn(&Cluster) -> String) -> String {
    launch.form.cluster.as_ref().map_or_else(String::new, show)
}

fn start_line(launch: &Launch, shared: &Shared, columns: usize) -> Line<'static> {
    let theme = &shared.theme;
    let (text, role) = if start_run::waits_for_checks(launch, shared) {
        ("checking prompt sets ...".to_owned(), Role::Accent)
    } else if shared.is_busy("launch.start") {
        ("starting: loading the model ...".to_owned(), Role::Accent)
    } else if start_run::blocked(launch, shared).is_some() {
        ("cannot start: see right".to_owned(), Role::Bad)
    } else {
        (start_run::in_words(launch, shared), Role::Text)
    };
    let button = "▶ START ";
    let room = columns.saturating_sub(button.width() + 3);
    Line::from(vec![
        theme.span(button, Role::Good),
        theme.span(clip_start(&text, room), role),
    ])
}

fn plain_line(row: Row, is_here: bool, columns: usize, value: &str, cycles: bool) -> Line<'static> {
    let room = columns.saturating_sub(NAME_COLUMNS + 6);
    let value = clip_start(value, room);
    let value = if cycles && is_here {
        format!("‹ {value} ›")
    } else {
        value
    };
    Line::from(vec![
        Span::raw(format!("{:<NAME_COLUMNS$}", row.title())),
        Span::raw(value),
    ])
}

/// A section's title, how many keys it hides, and how many of them are changed.
fn section_line(launch: &Launch, shared: &Shared, section: &'static Section) -> Line<'static> {
    let theme = &shared.theme;
    let (advanced, changed) = hidden(launch, section);
    let is_open = launch.unfolded.contains(section.title);
    let fold = if is_open { "▾" } else { "▸" };
    let changed = if changed == 0 {
        String::new()
    } else {
        format!(", {changed} changed")
    };
    Line::from(vec![
        theme.span(format!("{:<NAME_COLUMNS$}", section.title), Role::Title),
        theme.span(format!("{fold} {advanced} more"), Role::Faint),
        theme.span(changed, Role::Marked),
    ])
}

fn key_line(
    launch: &Launch,
    shared: &Shared,
    key: &'static Key,
    is_here: bool,
    columns: usize,
) -> Line<'static> {
    let theme = &shared.theme;
    let source = source(launch, key);
    let room = columns.saturating_sub(NAME_COLUMNS + SOURCE_COLUMNS + 2);
    let mut spans = vec![Span::raw(format!("{:<NAME_COLUMNS$}", key.name))];
    if let Some(field) = launch.edit.as_ref().filter(|_| is_here) {
        let wrong = complaint(launch, key, field.text()).is_some();
        spans.extend(field.line(theme, room.saturating_sub(2), true).spans);
        let mark = if wrong { " ✗ invalid" } else { " ✓" };
        spans.push(theme.span(mark, if wrong { Role::Bad } else { Role::Good }));
        return Line::from(spans);
    }
    let value = value(launch, key);
    let (value, unit) = match (key.name, value.as_str()) {
        ("max_steps", "0") => ("from epochs".to_owned(), ""),
        ("epochs", "0") => match launch.values.get("max_steps").map(String::as_str) {
            Some("0") => (format!("1 epoch, at least {MIN_STEPS} steps"), ""),
            _ => ("by max_steps".to_owned(), ""),
        },
        (_, "1") => (value, key.unit.strip_suffix('s').unwrap_or(key.unit)),
        _ => (value, key.unit),
    };
    let cycles = is_here && matches!(key.kind, Kind::Choice(_) | Kind::Flag);
    let is_unknown = key.name == "base_model"
        && launch
            .origin
            .as_ref()
            .is_some_and(|origin| origin.of == value && origin.model.is_err());
    let shown = match value.as_str() {
        "" => "empty".to_owned(),
        // A path that leads nowhere is shown as it was written.
        _ if is_unknown => value.clone(),
        _ => super::context::short_name(&value),
    };
    let shown = if cycles {
        format!("‹ {shown} ›")
    } else {
        shown
    };
    let shown = clip_start(&shown, room);
    let unit_room = room.saturating_sub(shown.width() + 1);
    let unit = if unit.width() <= unit_room && !value.is_empty() {
        format!(" {unit}")
    } else {
        String::new()
    };
    let blanks = room.saturating_sub(shown.width() + unit.width());
    let value_role = match source {
        Source::Set => Role::Marked,
        Source::Default => Role::Text,
        _ => Role::Accent,
    };
    spans.push(theme.span(shown, value_role));
    spans.push(theme.span(unit, Role::Faint));
    spans.push(Span::raw(" ".repeat(blanks)));
    let differs =
        key_help::last_value(launch, key).is_some_and(|last| last != super::value(launch, key));
    let word = form::source_word(&source);
    spans.push(theme.span(
        word,
        if source == Source::Set {
            Role::Marked
        } else {
            Role::Faint
        },
    ));
    if differs && word.width() < SOURCE_COLUMNS {
        spans.push(theme.span("≠", Role::Warning));
    }
    Line::from(spans)
}
