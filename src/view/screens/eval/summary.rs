//! The summary: rates with 95% CI, the significance of the difference, the matrix of outcomes, tiers, tags.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Margin, Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::Eval;
use super::SUMMARY;
use crate::format::{or_na, percent};
use crate::report::{MetricComparison, Outcome, PairedComparison, TIERS, Verdict, Versus, points, rate_rows, tag_rows};
use crate::view::pane::framed;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::widgets::text_width::{fitted, padded, wrapped};

/// Rows of the full summary with its frame.
pub(super) const FULL_ROWS: u16 = 16;
pub(super) const SHORT_ROWS: u16 = 7;

/// Columns of the matrix and the tiers beside the rates.
const BESIDE: u16 = 40;
const LABEL: usize = 22;
const CELL: usize = 21;

pub(super) fn draw(eval: &Eval, shared: &Shared, versus: &Versus, frame: &mut Frame<'_>, area: Rect) {
    let inside = framed(&shared.theme, &title(eval, versus, area.width as usize), eval.pane == SUMMARY, frame, area);
    let Some(pair) = eval.pair(versus) else { return };
    for (lines, area) in (SummaryText { eval, shared, versus, pair, width: inside.width as usize }).parts(inside) {
        frame.render_widget(Paragraph::new(lines), area);
    }
}

/// The cell of the matrix at a screen position.
pub(super) fn outcome_at(
    eval: &Eval,
    shared: &Shared,
    versus: &Versus,
    area: Rect,
    place: Position,
) -> Option<Outcome> {
    let inside = area.inner(Margin::new(1, 1));
    let pair = eval.pair(versus)?;
    let parts = SummaryText { eval, shared, versus, pair, width: inside.width as usize }.parts(inside);
    let (lines, part) = parts.into_iter().find(|(_, part)| part.contains(place))?;
    let line = lines.into_iter().nth((place.y - part.y) as usize)?;
    let mut right = part.x as usize;
    let span = line.spans.into_iter().find(|span| {
        right += span.width();
        right > place.x as usize
    })?;
    Outcome::ALL
        .into_iter()
        .find(|outcome| span.content.ends_with(&format!("{} {}", outcome.name(), pair.count(*outcome))))
}

/// How many lines there are to scroll through.
pub(super) fn rows(eval: &Eval, shared: &Shared, versus: &Versus, area: Rect) -> usize {
    let inside = area.inner(Margin::new(1, 1));
    let Some(pair) = eval.pair(versus) else { return 0 };
    let columns = SummaryText { eval, shared, versus, pair, width: inside.width as usize }.columns(inside);
    columns.iter().map(|(lines, _)| lines.len()).max().unwrap_or(0)
}

fn title(eval: &Eval, versus: &Versus, width: usize) -> String {
    let names: Vec<&str> = versus.evals.iter().map(|eval| eval.name.as_str()).collect();
    let (set, task) = (&versus.evals[0].id.set, &versus.evals[0].task);
    let started = super::eval_job::progress(eval).map_or_else(String::new, |text| format!(" · {text}"));
    let run = versus.evals[0].id.short_folder();
    fitted(
        &format!("{} · {run} · {task}, {set}, {} prompts{started}", names.join(" → "), versus.prompts.len()),
        width.saturating_sub(6),
    )
}

struct SummaryText<'a> {
    eval: &'a Eval,
    shared: &'a Shared,
    versus: &'a Versus,
    pair: &'a PairedComparison,
    width: usize,
}

impl SummaryText<'_> {
    /// The visible lines with their areas: the short summary if there is little room, else from the scroll position on.
    fn parts(&self, inside: Rect) -> Vec<(Vec<Line<'static>>, Rect)> {
        // With its frame.
        if inside.height + 2 <= SHORT_ROWS {
            return vec![(self.short(), inside)];
        }
        let top = self.eval.summary_top;
        let from = |lines: Vec<Line<'static>>| {
            let top = top.at(lines.len()).unwrap_or(0);
            lines.into_iter().skip(top).collect()
        };
        self.columns(inside).into_iter().map(|(lines, area)| (from(lines), area)).collect()
    }

    /// All lines, side by side or stacked as the width allows.
    fn columns(&self, inside: Rect) -> Vec<(Vec<Line<'static>>, Rect)> {
        let empty = || vec![Line::default()];
        if inside.width < 100 {
            let first = [self.rates(), self.differences(), self.verdict(), empty()];
            let rest = [self.matrix(), empty(), self.tiers(), empty(), self.tags()];
            return vec![([first.concat(), rest.concat()].concat(), inside)];
        }
        // The matrix is as wide as its numbers.
        let matrix = self.matrix().iter().map(Line::width).max().unwrap_or(0) as u16;
        let [left, right] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Length(BESIDE.max(matrix))]).areas(inside);
        let beside = SummaryText { width: left.width as usize, ..*self };
        vec![
            ([beside.rates(), beside.differences(), beside.verdict(), beside.tags()].concat(), left),
            ([self.matrix(), empty(), self.tiers()].concat(), right),
        ]
    }

    /// A table with a row per measure and a column per eval, and the difference of the selected pair.
    fn rates(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let summaries: Vec<_> = self.versus.evals.iter().map(|eval| &eval.summary).collect();
        let wide = self.is_wide();
        // If the columns do not fit with their intervals, only the rates are shown.
        let room = (self.width.saturating_sub(LABEL) / summaries.len().max(1)).saturating_sub(1);
        let cell_width = CELL.min(room);
        let shown = |cell: &str| {
            if cell_width < CELL { cell.split(" [").next().unwrap_or_default().to_owned() } else { cell.to_owned() }
        };
        let role = |place: usize| if place == self.pair.second { Role::Trained } else { Role::Base };
        let mut heading = vec![Span::raw(" ".repeat(LABEL))];
        for (place, eval) in self.versus.evals.iter().enumerate() {
            heading.push(Span::styled(format!(" {}", padded(&eval.name, cell_width, true)), theme.style(role(place))));
        }
        if wide {
            heading.push(Span::styled("   difference, paired", theme.style(Role::Faint)));
        }
        let mut lines = vec![Line::from(heading)];
        for (label, cells) in rate_rows(&summaries) {
            let mut spans = vec![Span::styled(padded(label, LABEL, false), theme.style(Role::Faint))];
            spans.extend(cells.iter().enumerate().map(|(place, cell)| {
                Span::styled(format!(" {}", padded(&shown(cell), cell_width, true)), theme.style(role(place)))
            }));
            let judged = match label {
                "valid" => Some(&self.pair.valid),
                "exact match" => self.pair.exact.as_ref(),
                _ => None,
            };
            if let (true, Some(judged)) = (wide, judged) {
                spans.push(Span::styled(format!("   {}", points(&judged.difference)), theme.style(role_of(judged))));
            }
            lines.push(Line::from(spans));
        }
        lines
    }

    /// Whether the table has a column for the difference.
    fn is_wide(&self) -> bool {
        self.width >= LABEL + self.versus.evals.len() * (CELL + 1) + 32
    }

    /// The differences, on one line if they fit, if the table has no column for them.
    fn differences(&self) -> Vec<Line<'static>> {
        if self.is_wide() {
            return Vec::new();
        }
        let theme = &self.shared.theme;
        let difference = |judged: &MetricComparison| {
            Span::styled(format!("{} {}", judged.metric, points(&judged.difference)), theme.style(role_of(judged)))
        };
        let spans: Vec<_> = self.pair.metrics().map(difference).collect();
        if spans.iter().map(|span| span.width() + 2).sum::<usize>() > self.width + 2 {
            return spans.into_iter().map(Line::from).collect();
        }
        vec![Line::from(spans.into_iter().flat_map(|span| [span, Span::raw("  ")]).collect::<Vec<_>>())]
    }

    /// The verdict on both metrics, and the numbers of prompts that would show more.
    fn verdict(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let names = [&self.versus.evals[self.pair.first].name, &self.versus.evals[self.pair.second].name];
        let arrow = theme.glyph("→", "->");
        let which =
            if self.versus.pairs.len() > 1 { format!("{} {arrow} {}, ", names[0], names[1]) } else { String::new() };
        let needed = self.pair.metrics().filter_map(MetricComparison::needed_prompts);
        let texts = std::iter::once((format!("{which}{}", self.pair.sentence()), self.pair.level().into()))
            .chain(needed.map(|text| (text, Role::Faint)))
            .chain(self.versus.warnings.iter().map(|warning| (warning.clone(), Role::Warning)));
        texts
            .flat_map(|(text, role)| {
                wrapped(&text, self.width).into_iter().map(move |line| Line::styled(line, theme.style(role)))
            })
            .collect()
    }

    /// Outcomes of the prompts; each cell with its key, the one that filters the list highlighted.
    fn matrix(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let width = |outcome| self.cell_text(outcome).width() + self.key(outcome).width();
        let wide = Outcome::ALL.into_iter().map(width).max().unwrap_or(0).max(12);
        let label = (BESIDE as usize).saturating_sub(2 * wide).max(13);
        let row = |text: &str, cells: [Outcome; 2]| {
            let mut spans = vec![Span::styled(padded(text, label, false), theme.style(Role::Faint))];
            for outcome in cells {
                spans.extend(self.cell(outcome, wide));
            }
            Line::from(spans)
        };
        vec![
            Line::styled(
                format!(
                    "{}{}{}",
                    padded("", label, false),
                    padded("valid after", wide, true),
                    padded("not after", wide, true)
                ),
                theme.style(Role::Faint),
            ),
            row("valid before", [Outcome::Both, Outcome::Broken]),
            row("not before", [Outcome::Fixed, Outcome::Neither]),
        ]
    }

    /// The text of a cell: `▸fixed 40`.
    fn cell_text(&self, outcome: Outcome) -> String {
        let mark = if self.eval.only == Some(outcome) { self.shared.theme.glyph("▸", ">") } else { " " };
        format!("{mark}{} {}", outcome.name(), self.pair.count(outcome))
    }

    fn cell(&self, outcome: Outcome, width: usize) -> Vec<Span<'static>> {
        let theme = &self.shared.theme;
        let role = match outcome {
            _ if self.pair.count(outcome) == 0 => Role::Faint,
            Outcome::Fixed => Role::Good,
            Outcome::Broken => Role::Bad,
            Outcome::Both | Outcome::Neither => Role::Text,
        };
        let chosen = self.eval.only == Some(outcome);
        let style = if chosen { theme.style(role).patch(theme.style(Role::Selected)) } else { theme.style(role) };
        let text = self.cell_text(outcome);
        let key = self.key(outcome);
        let width = width.saturating_sub(key.width()).max(text.width());
        vec![Span::styled(padded(&text, width, true), style), Span::styled(key, theme.style(Role::Key))]
    }

    fn key(&self, outcome: Outcome) -> String {
        let id = match outcome {
            Outcome::Fixed => "eval.fixed",
            Outcome::Broken => "eval.broken",
            Outcome::Both => "eval.both",
            Outcome::Neither => "eval.neither",
        };
        (self.shared.find_action)(id)
            .map_or_else(String::new, |action| format!(" {}", self.shared.keymap.shown(action)))
    }

    /// How many answers went from one tier to another.
    fn tiers(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let heading = TIERS.map(|tier| {
            padded(&format!("{} {tier}", theme.tier_glyph(tier)), if tier == "unparsable" { 13 } else { 11 }, true)
        });
        let mut lines =
            vec![Line::styled(format!("{}{}", padded("to", 4, false), heading.concat()), theme.style(Role::Faint))];
        for (tier, counts) in TIERS.iter().zip(self.pair.tiers) {
            let glyph = format!("{} ", theme.tier_glyph(tier));
            let cells: Vec<Span<'static>> = counts
                .iter()
                .zip(TIERS)
                .map(|(count, to)| {
                    let role = if *count == 0 { Role::Faint } else { crate::view::theme::Theme::tier_role(to) };
                    Span::styled(
                        padded(&count.to_string(), if to == "unparsable" { 13 } else { 11 }, true),
                        theme.style(role),
                    )
                })
                .collect();
            let from = Span::styled(padded(&glyph, 4, false), theme.style(crate::view::theme::Theme::tier_role(tier)));
            lines.push(Line::from([vec![from], cells].concat()));
        }
        lines
    }

    /// The valid rate of each tag.
    fn tags(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let pair = [self.pair.first, self.pair.second].map(|place| &self.versus.evals[place].summary);
        let arrow = theme.glyph("→", "->");
        let texts: Vec<String> = tag_rows(&pair)
            .into_iter()
            .filter(|row| row.metric == "valid")
            .map(|row| format!("{} ({}) {}", row.tag, row.n, row.cells.join(arrow).replace(' ', "")))
            .collect();
        if texts.is_empty() {
            return Vec::new();
        }
        // A tag with its rates is never broken over two lines.
        let mut lines = vec![String::from("by tag")];
        for text in texts {
            let Some(line) = lines.last_mut() else { break };
            if line.chars().count() + text.chars().count() + 2 > self.width && !line.is_empty() {
                lines.push(text);
            } else {
                line.push_str("  ");
                line.push_str(&text);
            }
        }
        lines.into_iter().map(|line| Line::styled(line, theme.style(Role::Text))).collect()
    }

    /// The five most important lines.
    fn short(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let (before, after) = (&self.versus.evals[self.pair.first], &self.versus.evals[self.pair.second]);
        let arrow = theme.glyph("→", "->");
        let mut lines = vec![Line::from(vec![
            Span::styled("valid  ", theme.style(Role::Faint)),
            Span::styled(percent(before.summary.valid), theme.style(Role::Base)),
            Span::raw(format!(" {arrow} ")),
            Span::styled(percent(after.summary.valid), theme.style(Role::Trained)),
            Span::styled(format!("   {}", points(&self.pair.valid.difference)), theme.style(role_of(&self.pair.valid))),
        ])];
        let exact = |rate: Option<f64>| or_na(rate, percent);
        let (a, b) = (&before.summary, &after.summary);
        lines.push(Line::from(vec![
            Span::styled("exact  ", theme.style(Role::Faint)),
            Span::raw(format!("{} {arrow} {}", exact(a.exact), exact(b.exact))),
            Span::styled("   parse ", theme.style(Role::Faint)),
            Span::raw(format!("{} {arrow} {}", percent(a.parse), percent(b.parse))),
            Span::styled("   tokens ", theme.style(Role::Faint)),
            Span::raw(format!("{:.0} {arrow} {:.0}", a.mean_tokens, b.mean_tokens)),
        ]));
        let cells: Vec<Span<'static>> = [Outcome::Fixed, Outcome::Broken, Outcome::Both, Outcome::Neither]
            .into_iter()
            .flat_map(|outcome| self.cell(outcome, 13).into_iter().chain([Span::raw(" ")]))
            .collect();
        lines.push(Line::from(cells));
        let verdict = wrapped(&self.pair.sentence(), self.width).into_iter();
        lines.extend(verdict.map(|line| Line::styled(line, theme.style(self.pair.level().into()))));
        lines
    }
}

fn role_of(judged: &MetricComparison) -> Role {
    match judged.verdict {
        Verdict::Better => Role::Good,
        Verdict::Worse => Role::Warning,
        Verdict::NoDifference => Role::Text,
    }
}
