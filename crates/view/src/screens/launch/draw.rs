//! Draws the launch screen: the form, the help of the selected row, and the forecast; side by side if there is room.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::cluster::Cluster;
use super::form::{self, Row, Section};
use super::{
    FORECAST, FORM, Launch, chosen_device, clip_start, complaint, forecast_view, hidden, key_help, rows, selected,
    source, start_run, toggle_section, value,
};
use crate::config::{Key, Kind, MIN_STEPS, Preset, Source};
use crate::format::counted;
use crate::message::Command;
use crate::pane::{framed, scrolled};
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

/// The visible panes with their areas.
fn areas(launch: &Launch, shared: &Shared, area: Rect) -> Vec<(&'static str, Rect)> {
    let focused = launch.pane();
    if shared.zoomed {
        return vec![(focused, area)];
    }
    if area.width >= SIDE_BY_SIDE {
        let left = if area.width >= 110 { area.width * 11 / 20 } else { 48.min(area.width * 3 / 5) };
        let [form, right] = Layout::horizontal([Constraint::Length(left), Constraint::Fill(1)]).areas(area);
        let about_rows = if area.height >= 30 { 13 } else { (area.height / 2).max(3) };
        let [about, forecast] = Layout::vertical([Constraint::Length(about_rows), Constraint::Fill(1)]).areas(right);
        return vec![(FORM, form), (ABOUT, about), (FORECAST, forecast)];
    }
    if focused == FORECAST {
        return vec![(FORECAST, area)];
    }
    let about_rows = if area.height >= 16 { 7 } else { 0 };
    let [form, about] = Layout::vertical([Constraint::Fill(1), Constraint::Length(about_rows)]).areas(area);
    vec![(FORM, form), (ABOUT, about)]
}

pub(super) fn draw(launch: &Launch, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let areas = areas(launch, shared, area);
    for (name, area) in areas.into_iter().filter(|(_, area)| area.height > 2) {
        match name {
            FORM => draw_form(launch, shared, frame, area),
            FORECAST => draw_forecast(launch, shared, frame, area),
            _ => draw_about(launch, shared, frame, area),
        }
    }
}

fn draw_about(launch: &Launch, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let title = selected(launch).map_or("", Row::title);
    let inside = framed(&shared.theme, title, false, frame, area);
    frame.render_widget(Paragraph::new(key_help::lines(launch, shared)).wrap(Wrap { trim: false }), inside);
}

fn draw_forecast(launch: &Launch, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let inside = framed(theme, FORECAST, launch.in_forecast, frame, area);
    let lines = forecast_view::lines(launch, shared, inside.width as usize);
    let top = launch.scroll.at(lines.len()).unwrap_or(0);
    let keys = if launch.in_forecast { "j" } else { "tab, j" };
    scrolled(theme, (lines, top), keys, frame, inside);
}

fn draw_form(launch: &Launch, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let title = match (launch.only_different, launch.form.changed.len()) {
        (true, _) => "new run: changed settings".to_owned(),
        (false, 0) => "new run".to_owned(),
        (false, changed) => format!("new run: {changed} changed"),
    };
    let mut inside = framed(&shared.theme, &title, !launch.in_forecast, frame, area);
    if launch.filter.is_shown() {
        let line = launch.filter.line(&shared.theme, inside.width as usize);
        frame.render_widget(Paragraph::new(line), Rect { height: inside.height.min(1), ..inside });
        inside = Rect { y: inside.y + inside.height.min(1), height: inside.height.saturating_sub(1), ..inside };
    }
    let drawn = drawn_rows(launch);
    let first = first_drawn(launch, &drawn, inside.height as usize);
    let selected = launch.cursor.at(rows_of(&drawn));
    let lines: Vec<Line<'_>> = drawn
        .iter()
        .skip(first)
        .take(inside.height as usize)
        .map(|drawn| match drawn {
            FormLine::Heading(title) => Line::styled(format!("  {title}"), shared.theme.style(Role::Title)),
            FormLine::Row(index, row) => {
                row_line(launch, shared, *row, selected == Some(*index), inside.width as usize)
            }
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inside);
}

enum FormLine {
    Heading(&'static str),
    Row(usize, Row),
}

/// Rows; under a filter, which hides the sections' own rows, with titles before the first of each section.
fn drawn_rows(launch: &Launch) -> Vec<FormLine> {
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
    drawn.iter().filter(|drawn| matches!(drawn, FormLine::Row(..))).count()
}

fn first_drawn(launch: &Launch, drawn: &[FormLine], height: usize) -> usize {
    let selected = launch.cursor.at(rows_of(drawn));
    let line = drawn.iter().position(|drawn| matches!(drawn, FormLine::Row(index, _) if Some(*index) == selected));
    Cursor { index: line.unwrap_or(0) }.first(height, drawn.len())
}

fn row_line(launch: &Launch, shared: &Shared, row: Row, is_here: bool, columns: usize) -> Line<'static> {
    let theme = &shared.theme;
    let line = match row {
        Row::Start => start_line(launch, shared, is_here, columns),
        Row::Key(key) => key_line(launch, shared, key, is_here, columns),
        Row::Preset => plain_line(shared, row, is_here, columns, launch.form.preset.map_or("none", Preset::name), true),
        Row::Task => {
            let name = match (&shared.task, &shared.task_error) {
                (Some(open), _) => open.task.name.clone(),
                (None, Some(_)) => "cannot be read".to_owned(),
                (None, None) => "loading ...".to_owned(),
            };
            plain_line(shared, row, is_here, columns, &name, false)
        }
        Row::Nodes => {
            plain_line(shared, row, is_here, columns, &cluster_text(launch, |cluster| cluster.nodes.to_string()), true)
        }
        Row::PerNode => {
            let each =
                cluster_text(launch, |cluster| counted(cluster.per_node, if cluster.on_cpus { "rank" } else { "GPU" }));
            plain_line(shared, row, is_here, columns, &each, true)
        }
        Row::Name | Row::TimeLimit => {
            if let Some(field) = launch.edit.as_ref().filter(|_| is_here) {
                let mut line = field.line(theme, columns.saturating_sub(NAME_COLUMNS + 2), true);
                line.spans.insert(0, Span::raw(format!("{}{:<NAME_COLUMNS$}", mark(shared, is_here), row.title())));
                line
            } else {
                let (text, empty) = match row {
                    Row::TimeLimit => (cluster_text(launch, |cluster| cluster.time.clone()), "the partition's"),
                    _ => (launch.form.name.clone(), "none"),
                };
                let text = if text.is_empty() { empty } else { &text };
                plain_line(shared, row, is_here, columns, text, false)
            }
        }
        Row::Device => plain_line(shared, row, is_here, columns, &chosen_device(launch), true),
        Row::Section(section) => section_line(launch, shared, section, is_here),
    };
    if is_here { line.style(theme.style(Role::Selected)) } else { line }
}

/// Empty on this machine.
fn cluster_text(launch: &Launch, show: impl Fn(&Cluster) -> String) -> String {
    launch.form.cluster.as_ref().map_or_else(String::new, show)
}

fn mark(shared: &Shared, is_here: bool) -> &'static str {
    if is_here { shared.theme.glyph("▸ ", "> ") } else { "  " }
}

fn start_line(launch: &Launch, shared: &Shared, is_here: bool, columns: usize) -> Line<'static> {
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
    let button = theme.glyph("▶ START ", "=> START ");
    let room = columns.saturating_sub(button.width() + 3);
    Line::from(vec![
        Span::raw(mark(shared, is_here)),
        Span::styled(button, theme.style(Role::Good)),
        Span::styled(clip_start(&text, room), theme.style(role)),
    ])
}

fn plain_line(shared: &Shared, row: Row, is_here: bool, columns: usize, value: &str, cycles: bool) -> Line<'static> {
    let theme = &shared.theme;
    let room = columns.saturating_sub(NAME_COLUMNS + 6);
    let value = clip_start(value, room);
    let value = if cycles && is_here {
        format!("{} {value} {}", theme.glyph("‹", "<"), theme.glyph("›", ">"))
    } else {
        value
    };
    Line::from(vec![
        Span::raw(mark(shared, is_here)),
        Span::raw(format!("{:<NAME_COLUMNS$}", row.title())),
        Span::raw(value),
    ])
}

/// A section's title, how many keys it hides, and how many of them are changed.
fn section_line(launch: &Launch, shared: &Shared, section: &'static Section, is_here: bool) -> Line<'static> {
    let theme = &shared.theme;
    let (advanced, changed) = hidden(launch, section);
    let is_open = launch.unfolded.contains(section.title);
    let fold = if is_open { theme.glyph("▾", "-") } else { theme.glyph("▸", "+") };
    let changed = if changed == 0 { String::new() } else { format!(", {changed} changed") };
    Line::from(vec![
        Span::raw(mark(shared, is_here)),
        Span::styled(format!("{:<NAME_COLUMNS$}", section.title), theme.style(Role::Title)),
        Span::styled(format!("{fold} {advanced} more"), theme.style(Role::Faint)),
        Span::styled(changed, theme.style(Role::Marked)),
    ])
}

fn key_line(launch: &Launch, shared: &Shared, key: &'static Key, is_here: bool, columns: usize) -> Line<'static> {
    let theme = &shared.theme;
    let source = source(launch, key);
    let room = columns.saturating_sub(NAME_COLUMNS + SOURCE_COLUMNS + 2);
    let mut spans = vec![Span::raw(mark(shared, is_here)), Span::raw(format!("{:<NAME_COLUMNS$}", key.name))];
    if let Some(field) = launch.edit.as_ref().filter(|_| is_here) {
        let wrong = complaint(launch, key, field.text()).is_some();
        spans.extend(field.line(theme, room.saturating_sub(2), true).spans);
        let mark = if wrong { theme.glyph(" ✗ invalid", " ! invalid") } else { theme.glyph(" ✓", " ok") };
        spans.push(Span::styled(mark, theme.style(if wrong { Role::Bad } else { Role::Good })));
        return Line::from(spans);
    }
    let value = value(launch, key);
    let (value, unit) = match (key.name, value.as_str()) {
        ("max_steps", "0") => ("from epochs".to_owned(), ""),
        ("epochs", "0") => match launch.values.get("max_steps").map(String::as_str) {
            Some("0") => (format!("one, or {MIN_STEPS} steps"), ""),
            _ => ("by max_steps".to_owned(), ""),
        },
        (_, "1") => (value, key.unit.strip_suffix('s').unwrap_or(key.unit)),
        _ => (value, key.unit),
    };
    let cycles = is_here && matches!(key.kind, Kind::Choice(_) | Kind::Flag);
    let shown = if value.is_empty() { "empty".to_owned() } else { super::context::short_name(&value) };
    let shown = if cycles { format!("{} {shown} {}", theme.glyph("‹", "<"), theme.glyph("›", ">")) } else { shown };
    let shown = clip_start(&shown, room);
    let unit_room = room.saturating_sub(shown.width() + 1);
    let unit = if unit.width() <= unit_room && !value.is_empty() { format!(" {unit}") } else { String::new() };
    let blanks = room.saturating_sub(shown.width() + unit.width());
    let value_role = match source {
        Source::Set => Role::Marked,
        Source::Default => Role::Text,
        _ => Role::Accent,
    };
    spans.push(Span::styled(shown, theme.style(value_role)));
    spans.push(Span::styled(unit, theme.style(Role::Faint)));
    spans.push(Span::raw(" ".repeat(blanks)));
    let differs = key_help::last_value(launch, key).is_some_and(|last| last != super::value(launch, key));
    let word = form::source_word(&source);
    spans.push(Span::styled(word, theme.style(if source == Source::Set { Role::Marked } else { Role::Faint })));
    if differs && word.width() < SOURCE_COLUMNS {
        spans.push(Span::styled(theme.glyph("≠", "!"), theme.style(Role::Warning)));
    }
    Line::from(spans)
}

fn pane_at(launch: &Launch, shared: &Shared, column: u16, row: u16) -> Option<(&'static str, Rect)> {
    areas(launch, shared, shared.body()).into_iter().find(|(_, area)| area.contains((column, row).into()))
}

/// Whether a position is over the forecast.
pub(super) fn is_over_forecast(launch: &Launch, shared: &Shared, column: u16, row: u16) -> bool {
    pane_at(launch, shared, column, row).is_some_and(|(pane, _)| pane == FORECAST)
}

/// Whether a position is over a row of the form.
pub(super) fn is_over_form(launch: &Launch, shared: &Shared, column: u16, row: u16) -> bool {
    pane_at(launch, shared, column, row)
        .is_some_and(|(pane, area)| pane == FORM && row > area.y && row + 1 < area.bottom())
}

/// Handles a click: focuses the pane and selects the row under it.
pub(super) fn clicked(launch: &mut Launch, shared: &mut Shared, column: u16, row: u16) -> Vec<Command> {
    if launch.edit.is_some() {
        return Vec::new();
    }
    let Some((pane, area)) = pane_at(launch, shared, column, row).filter(|(pane, _)| *pane != ABOUT) else {
        return Vec::new();
    };
    launch.in_forecast = pane == FORECAST;
    if pane != FORM {
        return Vec::new();
    }
    let filter_rows = u16::from(launch.filter.is_shown());
    let (top, height) = (area.y + 1 + filter_rows, area.height.saturating_sub(2 + filter_rows));
    let drawn = drawn_rows(launch);
    let Some(line) = row.checked_sub(top).filter(|line| *line < height) else { return Vec::new() };
    if let Some(FormLine::Row(index, _)) = drawn.get(first_drawn(launch, &drawn, height as usize) + line as usize) {
        launch.cursor = Cursor { index: *index };
        if let Some(Row::Section(_)) = selected(launch) {
            toggle_section(launch);
        }
    }
    Vec::new()
}
