//! The details of the run under the cursor: state, configuration, results.

use std::path::Path;

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{Runs, rows_of};
use crate::format::{age, bytes, percent, percent_interval, short_id};
use crate::page::Fact;
use crate::pane::content::{Body, Content, Text};
use crate::pane::page::PageLines;
use crate::report::{Entry, EvalSeries, RunContext, RunRow, eval_progress_text, spread};
use crate::run::{DiskUse, EvalSummary, Status};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::bars::sparkline;

/// Narrower than this, everything is in one column.
const TWO_COLUMNS: u16 = 100;
/// Columns of a name.
const NAME: usize = 11;

pub(super) fn content<'a>(runs: &Runs, shared: &Shared, inside: Rect) -> Content<'a> {
    let entry = runs.entry(shared);
    let title = entry.map_or_else(|| "Details".to_owned(), Entry::id);
    let columns = columns(runs, shared, inside)
        .into_iter()
        .map(|(lines, area)| (area, lines))
        .collect();
    Content {
        body: Body::Text(Text {
            columns,
            top: runs.detail_top,
        }),
        empty: vec![Line::from("no run selected")],
        ..Content::titled(title)
    }
}

pub(super) fn rows(runs: &Runs, shared: &Shared, inside: Rect) -> u16 {
    let lines = columns(runs, shared, inside).into_iter();
    let most = lines.map(|(lines, _)| lines.len()).max().unwrap_or(1);
    u16::try_from(most).unwrap_or(u16::MAX)
}

fn columns(runs: &Runs, shared: &Shared, inside: Rect) -> Vec<(Vec<Line<'static>>, Rect)> {
    let Some(entry) = runs.entry(shared) else {
        return Vec::new();
    };
    match &entry.row {
        Err(error) => vec![(unreadable(shared, entry, error), inside)],
        Ok(row) if inside.width >= TWO_COLUMNS => {
            let [left, _, right] = Layout::horizontal([
                Constraint::Percentage(50),
                Constraint::Length(2),
                Constraint::Fill(1),
            ])
            .areas(inside);
            let (of_left, of_right) = (
                Facts::new(runs, shared, left.width),
                Facts::new(runs, shared, right.width),
            );
            vec![
                (
                    [of_left.state(row), of_left.configuration(row)].concat(),
                    left,
                ),
                (of_right.results(row), right),
            ]
        }
        Ok(row) => {
            let facts = Facts::new(runs, shared, inside.width);
            vec![(
                [
                    facts.state(row),
                    facts.results(row),
                    facts.configuration(row),
                ]
                .concat(),
                inside,
            )]
        }
    }
}

fn unreadable(shared: &Shared, entry: &Entry, error: &str) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    vec![
        theme.line(error.to_owned(), Role::Bad),
        Line::default(),
        Line::from(format!("Folder: {}", entry.path.display())),
        Line::from("Fix the file named above, or move the folder away."),
    ]
}

/// What is said of a run, as wide as a pane.
struct Facts<'a> {
    runs: &'a Runs,
    shared: &'a Shared,
    theme: &'a Theme,
    page: PageLines<'a>,
}

impl<'a> Facts<'a> {
    fn new(runs: &'a Runs, shared: &'a Shared, width: u16) -> Self {
        let page = PageLines {
            theme: &shared.theme,
            columns: width as usize,
        };
        Self {
            runs,
            shared,
            theme: &shared.theme,
            page,
        }
    }

    fn facts(&self, facts: &[Fact]) -> Vec<Line<'static>> {
        facts
            .iter()
            .flat_map(|fact| self.page.fact(fact, NAME))
            .collect()
    }

    fn state(&self, row: &RunRow) -> Vec<Line<'static>> {
        let (glyph, role) = self
            .theme
            .status_mark(row.status, row.cause.as_ref(), &row.outcome);
        let eval = row.eval.as_ref().map(eval_progress_text);
        let cause = row
            .cause
            .clone()
            .or(eval.map(Into::into))
            .map_or_else(String::new, |text| format!(": {text}"));
        let key = self.shared.key_of("runs.resume");
        let holder = row.holder(rows_of(&self.shared.runs.listing));
        let holder = holder.map_or_else(String::new, |run| {
            format!(" (run {})", short_id(run.directory.id()))
        });
        let next = match row.status {
            Status::Waiting => holder,
            Status::Interrupted | Status::Paused => format!("; resume with {key}"),
            Status::Created => format!("; no worker yet, start with {key}"),
            _ => String::new(),
        };
        let pause = if row.pauses_later {
            format!(
                "; pause requested, {} takes it back",
                self.shared.key_of("runs.pause")
            )
        } else {
            String::new()
        };
        let status = row.status.name();
        let state = Fact::new("state", format!("{glyph} {status}{cause}{next}{pause}"));
        let mut lines = self.page.fact(&state, NAME);
        let spans = lines
            .iter_mut()
            .flat_map(|line| line.spans.iter_mut().skip(1));
        spans.for_each(|span| span.style = self.theme.style(role));
        lines
    }

    fn configuration(&self, row: &RunRow) -> Vec<Line<'static>> {
        let file = row.directory.file();
        let disk = self.runs.disk.as_ref();
        let disk = disk.filter(|(path, _)| path == row.directory.path());
        let context = RunContext {
            launched: format!("{} ago", age(self.shared.now_ms, file.created_ms)),
            folder: end_of_path(
                row.directory.path(),
                self.page.columns.saturating_sub(NAME + 1),
            ),
            disk: disk.map(|(_, disk)| disk_text(disk)),
        };
        self.facts(&row.configuration_facts(context))
    }

    /// The results: test-set evals, reward curve, alerts, notes.
    fn results(&self, row: &RunRow) -> Vec<Line<'static>> {
        let theme = self.theme;
        let mut lines: Vec<Line<'static>> = row
            .held_out
            .iter()
            .flat_map(|held_out| eval_lines(theme, held_out, self.page.columns))
            .collect();
        lines.extend(self.facts(&[match row.held_out.is_empty() {
            true => Fact::new("evals", "none yet".to_owned()),
            false => row.outcome_fact(),
        }]));
        if let Some(reward) = row.metric("reward", false) {
            let smoothed = row
                .metric("reward", true)
                .map_or_else(String::new, |smoothed| format!(", mean {smoothed:.3}"));
            let curve = sparkline(theme, &spread(&row.rewards, 24), 24, None);
            lines.push(Line::from(vec![
                theme.span(format!("{:<NAME$} ", "reward"), Role::Faint),
                theme.span(curve, Role::SeriesOne),
                Span::raw(format!("  {reward:.3}{smoothed}")),
            ]));
        }
        lines.extend(self.facts(&row.happenings()));
        lines
    }
}

fn disk_text(disk: &DiskUse) -> String {
    let parts = [
        ("checkpoints", disk.checkpoints_bytes),
        ("rollouts", disk.rollouts_bytes),
        ("evals", disk.evals_bytes),
    ];
    let parts = parts.iter().filter(|(_, size)| *size > 0);
    let parts: Vec<String> = parts
        .map(|(name, size)| format!("{name} {}", bytes(*size)))
        .collect();
    let parts = match parts.is_empty() {
        true => String::new(),
        false => format!(" ({})", parts.join(", ")),
    };
    format!("{}{parts}", bytes(disk.total_bytes))
}

/// `test valid  60.0% [50.2, 69.1]  →  99.0% [94.6, 99.8]  n 100, step 30`, and the same for exact answers.
fn eval_lines(theme: &Theme, held_out: &EvalSeries, width: usize) -> Vec<Line<'static>> {
    let is_base = held_out
        .trained
        .as_ref()
        .is_some_and(|trained| trained.step == 0);
    // The base is not compared with itself.
    let (base, trained) = (
        held_out.base.as_ref(),
        held_out.trained.as_ref().filter(|_| !is_base),
    );
    let line = |name: &str, base: Option<String>, trained: Option<String>, more: String| {
        let mut spans = vec![theme.span(format!("{name:<NAME$} "), Role::Faint)];
        spans.push(theme.span(
            format!("{:<20}", base.unwrap_or_else(|| "n/a (no eval)".to_owned())),
            Role::Base,
        ));
        if let Some(trained) = trained {
            spans.push(Span::raw("→ "));
            spans.push(theme.span(trained, Role::Trained));
        }
        let line = Line::from(spans);
        let fits = line.width() + more.width() <= width;
        if fits {
            Line::from([line.spans, vec![theme.span(more, Role::Faint)]].concat())
        } else {
            line
        }
    };
    let valid = |summary: &EvalSummary| percent_interval(summary.valid, summary.valid_interval);
    let n = trained
        .map(|trained| &trained.summary)
        .or(base)
        .map_or(0, |summary| summary.n);
    let of = match trained {
        Some(trained) => format!("  n {n}, step {}", trained.step),
        None if is_base => format!("  n {n}, the base: no later checkpoint was better"),
        None => format!("  n {n}"),
    };
    let label = format!("{} valid", held_out.set);
    let mut lines = vec![line(
        &label,
        base.map(valid),
        trained.map(|trained| valid(&trained.summary)),
        of,
    )];
    let exact = |summary: &EvalSummary| summary.exact.map(percent);
    let (base, trained) = (
        base.and_then(exact),
        trained.and_then(|trained| exact(&trained.summary)),
    );
    if base.is_some() || trained.is_some() {
        lines.push(line(
            &format!("{:>w$}", "exact", w = label.len().min(NAME)),
            base,
            trained,
            String::new(),
        ));
    }
    lines
}

fn end_of_path(path: &Path, width: usize) -> String {
    let whole = path.display().to_string();
    if whole.width() <= width {
        return whole;
    }
    let parts: Vec<&str> = whole.split('/').collect();
    let fits = |first: &usize| parts[*first..].join("/").width() + 2 <= width;
    let first = (1..parts.len())
        .find(fits)
        .unwrap_or(parts.len().saturating_sub(1));
    format!("…/{}", parts[first..].join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_their_end() {
        let check = |path: &str, width, expected: &str| {
            assert_eq!(end_of_path(Path::new(path), width), expected)
        };
        check("/home/me/runs/x", 20, "/home/me/runs/x");
        check("/home/me/runs/x", 10, "…/runs/x");
        check("/home/me/runs/long-name", 3, "…/long-name");
    }
}
