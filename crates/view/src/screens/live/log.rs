//! Open alerts, each with its cause and advice, and below them the run's events as text.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::frame::framed;
use super::state::{LogView, MinLevel};
use super::{LOG, Live};
use crate::followed_run::FollowedRun;
use crate::message::Command;
use crate::pane::content::Content;
use crate::report::{Level, alert_name, event_text};
use crate::run::Event;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::text_width::{one_line, wrapped};

/// The events that are shown, latest first.
fn shown<'a>(
    live: &'a Live,
    run: &'a FollowedRun,
) -> impl Iterator<Item = (&'a Event, Level, String)> {
    let LogView { least, filter, .. } = &live.log;
    run.log.iter().rev().filter_map(|event| {
        let (level, text) = event_text(&event.body, 0)?;
        (least.includes(level) && filter.matches(&text)).then_some((event, level, text))
    })
}

/// Scrolls; up is back in time.
pub(super) fn scroll(live: &mut Live, shared: &Shared, by: isize) -> Vec<Command> {
    let most = shared
        .current_run()
        .map_or(0, |run| shown(live, run).count().saturating_sub(1));
    live.log.back = live.log.back.saturating_add_signed(-by).min(most);
    Vec::new()
}

pub(super) fn content<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let LogView {
        back,
        least,
        filter,
    } = &live.log;
    let mut title = "alerts and log".to_owned();
    if *least != MinLevel::All {
        title += &format!(": {}", least.name());
    }
    if *back > 0 {
        title += &format!(", {back} back");
    }
    let (columns, rows) = (inside.width as usize, inside.height as usize);
    let mut lines = Vec::new();
    if filter.is_shown() {
        lines.push(filter.line(
            &shared.theme,
            columns,
            &format!("{} of {}", shown(live, run).count(), run.log.len()),
        ));
    }
    let before = lines.len();
    lines.extend(alerts(shared, run, columns));
    lines.truncate((before + 1).max(rows.saturating_sub(1)));
    let room = rows.saturating_sub(lines.len());
    lines.extend(events(live, shared, run, columns, room));
    framed(shared, LOG, title).fixed(lines)
}

/// The open alerts, most severe first.
pub(super) fn alerts(shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let mut lines = Vec::new();
    for alert in run.history.standing_alerts() {
        let (mark, role) = theme.alert_mark(alert);
        let (name, sentence) = (alert_name(&alert.rule), one_line(&alert.sentence));
        let text = format!("{mark}{name} (step {}): {sentence}", alert.step);
        lines.extend(
            wrapped(&text, columns)
                .into_iter()
                .map(|text| Line::styled(text, theme.style(role))),
        );
        let what = format!("  → {}", one_line(&alert.suggestion));
        if !alert.suggestion.is_empty() {
            lines.extend(
                wrapped(&what, columns)
                    .into_iter()
                    .map(|text| Line::styled(format!("  {text}"), theme.style(Role::Text))),
            );
        }
    }
    lines
}

/// The latest events that fit into so many lines, oldest first.
fn events(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let mut blocks: Vec<Vec<Line<'static>>> = Vec::new();
    let mut used = 0;
    for (event, level, text) in shown(live, run).skip(live.log.back) {
        let rows_of_event = wrapped(&one_line(&text), columns.saturating_sub(10).max(10));
        used += rows_of_event.len();
        if used > rows && !blocks.is_empty() {
            break;
        }
        let clock = crate::format::clock(event.time_ms);
        let line = |(index, text): (usize, String)| {
            let time = if index == 0 {
                clock.clone()
            } else {
                " ".repeat(clock.len())
            };
            Line::from(vec![
                Span::styled(format!("{time}  "), theme.style(Role::Faint)),
                Span::styled(text, theme.style(Role::from(level))),
            ])
        };
        blocks.push(rows_of_event.into_iter().enumerate().map(line).collect());
        if used >= rows {
            break;
        }
    }
    if blocks.is_empty() {
        let text = if run.log.is_empty() {
            "no events yet"
        } else {
            "no events match"
        };
        blocks.push(vec![Line::styled(text, theme.style(Role::Faint))]);
    }
    let mut lines: Vec<Line<'static>> = blocks.into_iter().rev().flatten().collect();
    lines.truncate(rows);
    lines
}
