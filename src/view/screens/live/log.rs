//! Open alerts, each with its cause and advice, and below them the run's events as text.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::Live;
use crate::report::{Level, alert_name, event_text};
use crate::view::followed_run::FollowedRun;
use crate::view::pane::framed;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::widgets::text_width::{fitted, one_line, wrapped};

pub(super) fn draw(live: &Live, shared: &Shared, run: &FollowedRun, frame: &mut Frame<'_>, area: Rect, focused: bool) {
    let back = live.log_back.min(run.log.len().saturating_sub(1));
    let title = if back > 0 { format!("alerts and log, {back} back") } else { "alerts and log".to_owned() };
    let inside = framed(&shared.theme, &title, focused, frame, area);
    let (columns, rows) = (inside.width as usize, inside.height as usize);
    let mut lines: Vec<Line<'static>> = alerts(shared, run, columns);
    lines.truncate(rows.saturating_sub(1).max(1));
    let room = rows.saturating_sub(lines.len());
    lines.extend(events(shared, run, columns, back, room));
    frame.render_widget(Paragraph::new(lines), inside);
}

/// The open alerts, most severe first.
pub(super) fn alerts(shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let grave = |level: &str| match level {
        "error" => 0,
        "warning" => 1,
        _ => 2,
    };
    let mut standing: Vec<_> = run.history.standing_alerts().collect();
    standing.sort_by_key(|alert| grave(&alert.level));
    let mut lines = Vec::new();
    for alert in standing {
        let role = if grave(&alert.level) == 0 { Role::Bad } else { Role::Warning };
        let text = format!(
            "{} {} (step {}): {}",
            theme.glyph("▲", "!"),
            alert_name(&alert.rule),
            alert.step,
            one_line(&alert.sentence)
        );
        lines.extend(wrapped(&text, columns).into_iter().map(|text| Line::styled(text, theme.style(role))));
        let what = format!("  {} {}", theme.glyph("→", "->"), one_line(&alert.suggestion));
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

/// The latest events that fit into so many lines, oldest first; `back` skips that many of the latest.
fn events(shared: &Shared, run: &FollowedRun, columns: usize, back: usize, rows: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    if run.log.is_empty() && rows > 0 {
        return vec![Line::styled("no events yet", theme.style(Role::Faint))];
    }
    let total_steps = run.history.run.as_ref().map_or(0, |run| run.total_steps);
    let mut blocks: Vec<Vec<Line<'static>>> = Vec::new();
    let mut used = 0;
    for event in run.log.iter().rev().skip(back) {
        let Some((level, text)) = event_text(&event.body, total_steps) else { continue };
        let (role, room) = (Role::from(level), columns.saturating_sub(10).max(10));
        // A step's other values are in the charts.
        let rows_of_event =
            if level == Level::Step { vec![fitted(&text, room)] } else { wrapped(&one_line(&text), room) };
        used += rows_of_event.len();
        if used > rows && !blocks.is_empty() {
            break;
        }
        let clock = crate::format::clock(event.time_ms);
        let line = |(index, text): (usize, String)| {
            let time = if index == 0 { clock.clone() } else { " ".repeat(clock.len()) };
            Line::from(vec![
                Span::styled(format!("{time}  "), theme.style(Role::Faint)),
                Span::styled(text, theme.style(role)),
            ])
        };
        blocks.push(rows_of_event.into_iter().enumerate().map(line).collect());
        if used >= rows {
            break;
        }
    }
    let mut lines: Vec<Line<'static>> = blocks.into_iter().rev().flatten().collect();
    lines.truncate(rows);
    lines
}
