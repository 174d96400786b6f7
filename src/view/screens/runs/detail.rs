//! The details of the run under the cursor: where it stands, what it was asked for, what it brought.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::DETAIL;
use super::columns::{age, state};
use crate::report::{Entry, HeldOut, RunRow, size};
use crate::run::{EvalSummary, Status};
use crate::view::model::Model;
use crate::view::pane::pane;
use crate::view::role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::sparkline::sparkline;

/// Narrower than this, everything stands in one column.
const TWO_COLUMNS: u16 = 100;

/// Draws the details.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let title = model.runs.entry().map_or_else(|| "Details".to_owned(), Entry::id);
    let frame_of_pane = pane(&model.theme, &title, model.runs.pane == DETAIL);
    let inside = frame_of_pane.inner(area);
    frame.render_widget(frame_of_pane, area);
    let Some(entry) = model.runs.entry() else {
        frame.render_widget(Paragraph::new("no run is under the cursor"), inside);
        return;
    };
    let top = u16::try_from(model.runs.detail_top).unwrap_or(u16::MAX);
    let mut show = |lines: Vec<Line<'static>>, area: Rect| {
        let last = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(1);
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((top.min(last), 0)), area);
    };
    match &entry.row {
        Err(error) => show(unreadable(model, entry, error), inside),
        Ok(row) if inside.width >= TWO_COLUMNS => {
            let [left, _, right] =
                Layout::horizontal([Constraint::Percentage(50), Constraint::Length(2), Constraint::Fill(1)]).areas(inside);
            show(facts(model, row), left);
            show(results(model, row), right);
        }
        Ok(row) => show([results(model, row), facts(model, row)].concat(), inside),
    }
}

fn unreadable(model: &Model, entry: &Entry, error: &str) -> Vec<Line<'static>> {
    let theme = &model.theme;
    vec![
        Line::styled(error.to_owned(), theme.style(Role::Bad)),
        Line::default(),
        Line::from(format!("Its files are in {}", entry.path.display())),
        Line::from("Nothing can be done with it from here: mend the file that is named, or move the folder away."),
    ]
}

/// `name`, faint and aligned, then the value.
fn fact(theme: &Theme, name: &str, value: impl Into<String>) -> Line<'static> {
    said(theme, name, value.into(), Role::Text)
}

fn said(theme: &Theme, name: &str, value: String, role: Role) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{name:<11} "), theme.style(Role::Faint)), Span::styled(value, theme.style(role))])
}

/// Where it stands and what it was asked for.
fn facts(model: &Model, row: &RunRow) -> Vec<Line<'static>> {
    let (theme, file) = (&model.theme, row.directory.file());
    let mut lines = vec![state_line(theme, row)];
    let planned = row.total_steps.map_or_else(String::new, |total| format!(" of {total}"));
    lines.push(fact(theme, "steps", format!("{}{planned}, {} computed", row.last_step, duration(row.seconds))));
    let name = if file.name.is_empty() { String::new() } else { format!("{}: ", file.name) };
    lines.push(fact(theme, "task", format!("{name}{} ({}) on {}", file.task, file.job, file.config.base_model)));
    lines.push(fact(theme, "launched", format!("{} ago on {}", age(model.now_ms, file.created_ms), file.host)));
    let changed: Vec<String> = row.changed_keys().into_iter().map(|(key, value, _)| format!("{key}={value}")).collect();
    lines.push(fact(theme, "configured", if changed.is_empty() { "every key at its default".to_owned() } else { changed.join(" ") }));
    let steps: Vec<String> = row.checkpoints.iter().map(|step| mark_best(theme, *step, row.best)).collect();
    lines.push(fact(theme, "checkpoints", if steps.is_empty() { "none yet".to_owned() } else { format!("steps {}", steps.join(" ")) }));
    if !row.tags.is_empty() {
        lines.push(said(theme, "tags", row.tags.join(" "), Role::Marked));
    }
    if let Some((_, disk)) = model.runs.disk.as_ref().filter(|(path, _)| path == row.directory.path()) {
        let parts = [("checkpoints", disk.checkpoints_bytes), ("rollouts", disk.rollouts_bytes), ("evals", disk.evals_bytes)];
        let parts: Vec<String> =
            parts.iter().filter(|(_, bytes)| *bytes > 0).map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
        lines.push(fact(theme, "disk", format!("{} ({})", size(disk.total_bytes), parts.join(", "))));
    }
    lines.push(fact(theme, "folder", row.directory.path().display().to_string()));
    lines.extend(row.warnings.iter().map(|warning| said(theme, "warning", warning.clone(), Role::Warning)));
    lines
}

fn state_line(theme: &Theme, row: &RunRow) -> Line<'static> {
    let (glyph, role) = state(theme, row.status);
    let cause = row.cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
    let next = match row.status {
        Status::Interrupted => "; r goes on from its last checkpoint",
        Status::Paused => "; r lets it go on",
        Status::Created => "; no worker has begun with it, r starts one",
        _ => "",
    };
    said(theme, "state", format!("{glyph} {}{cause}{next}", row.status.name()), role)
}

fn mark_best(theme: &Theme, step: u64, best: Option<u64>) -> String {
    if best == Some(step) { format!("{step}{}", theme.glyph("★", "(best)")) } else { step.to_string() }
}

/// What it brought: held-out passes, curves, alerts, notes.
fn results(model: &Model, row: &RunRow) -> Vec<Line<'static>> {
    let theme = &model.theme;
    let mut lines = Vec::new();
    for held_out in &row.held_out {
        lines.extend(passes(theme, held_out));
    }
    if row.held_out.is_empty() {
        lines.push(fact(theme, "evals", "none yet"));
    }
    if let Some(reward) = row.metric("reward", false) {
        let smoothed = row.metric("reward", true).map_or_else(String::new, |smoothed| format!(", smoothed {smoothed:.3}"));
        let curve = sparkline(theme, &super::columns::spread(&row.rewards, 24), 24, None);
        lines.push(Line::from(vec![
            Span::styled(format!("{:<11} ", "reward"), theme.style(Role::Faint)),
            Span::styled(curve, theme.style(Role::SeriesOne)),
            Span::raw(format!("  {reward:.3}{smoothed}")),
        ]));
    }
    for alert in &row.alerts {
        let mark = theme.glyph("▲", "!");
        lines.push(said(theme, "alert", format!("{mark} step {}: {} {}", alert.step, alert.sentence, alert.suggestion), Role::Warning));
    }
    for note in &row.notes {
        lines.push(fact(theme, "note", note.clone()));
    }
    lines
}

/// `proof  base 46.0 % [36.6, 55.7]  →  step 30 99.0 % [94.6, 99.8]`, and the same for exact answers.
fn passes(theme: &Theme, held_out: &HeldOut) -> Vec<Line<'static>> {
    let n = held_out.trained.as_ref().map(|(_, summary)| summary).or(held_out.base.as_ref()).map_or(0, |summary| summary.n);
    let line = |name: String, base: Option<String>, trained: Option<String>| {
        let mut spans = vec![Span::styled(format!("{name:<11} "), theme.style(Role::Faint))];
        spans.extend(base.map(|base| Span::styled(format!("base {base}"), theme.style(Role::Base))));
        if let Some(trained) = trained {
            spans.push(Span::raw(theme.glyph("  →  ", "  ->  ")));
            spans.push(Span::styled(trained, theme.style(Role::Trained)));
        }
        Line::from(spans)
    };
    let valid = |summary: &EvalSummary| {
        let [low, high] = summary.valid_interval;
        format!("{:.1} % [{:.1}, {:.1}]", 100.0 * summary.valid, 100.0 * low, 100.0 * high)
    };
    let base = held_out.base.as_ref();
    let trained = held_out.trained.as_ref();
    let mut lines = vec![line(
        format!("{} {n}", held_out.set),
        base.map(|summary| format!("valid {}", valid(summary))),
        trained.map(|(step, summary)| format!("step {step} {}", valid(summary))),
    )];
    let exact = |summary: &EvalSummary| summary.exact.map(|exact| format!("exact {:.1} %", 100.0 * exact));
    let (base, trained) = (base.and_then(exact), trained.and_then(|(_, summary)| exact(summary)));
    if base.is_some() || trained.is_some() {
        lines.push(line(String::new(), base, trained));
    }
    lines
}

fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}
