//! Summary pane: rates with 95% CI, the significance of the difference, the outcome matrix, tiers,
//! tags.

use std::ops::Range;

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::Eval;
use super::{conversations, failures};
use crate::facts::Tier;
use crate::format::{counted, or_na, percent, percent_interval};
use crate::page::Cell;
use crate::pane::content::{Body, Content, Link, Text};
use crate::report::{
    EvalResult, Measure, MeasureRow, Metric, MetricComparison, Outcome, PairedComparison, Verdict,
    Versus, acceptance_text, cost_rows, field_rows, points, rate_rows, tag_rows,
};
use crate::run::EvalSummary;
use crate::secrets::visible;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::{fitted, padded, wrapped};

/// Rows of the full summary including its frame.
pub(super) const FULL_ROWS: u16 = 16;
pub(super) const SHORT_ROWS: u16 = 7;

/// Minimum columns of the matrix and the tiers next to the rates.
const BESIDE: u16 = 40;
const LABEL: usize = 22;
const CELL: usize = 21;
/// Columns of the difference; [`MIN_RATES`]: minimum columns of the rates and sentences.
const DIFFERENCE: usize = 32;
const MIN_RATES: usize = 60;

pub(super) fn content<'a>(
    eval: &Eval,
    shared: &Shared,
    versus: &Versus,
    inside: Rect,
) -> Content<'a> {
    let text = SummaryText {
        eval,
        shared,
        versus,
        pair: eval.pair(versus),
        width: inside.width as usize,
    };
    // The limit includes the frame.
    let is_short = inside.height + 2 <= SHORT_ROWS;
    let columns = if is_short {
        vec![(inside, text.short())]
    } else {
        text.columns(inside)
    };
    let link = |column, line, (cells, outcome)| Link {
        column,
        line,
        cells,
        action: action_of(outcome),
    };
    let links = columns.iter().enumerate().flat_map(|(column, (_, lines))| {
        let lines = lines.iter().enumerate();
        lines.flat_map(move |(line, (_, cells))| {
            cells
                .iter()
                .cloned()
                .map(move |cell| link(column, line, cell))
        })
    });
    let links = links.collect();
    let columns = columns
        .into_iter()
        .map(|(area, lines)| (area, lines.into_iter().map(|(line, _)| line).collect()));
    let top = if is_short {
        Cursor::default()
    } else {
        eval.summary_top
    };
    Content {
        body: Body::Text(Text {
            columns: columns.collect(),
            top,
        }),
        links,
        ..Content::titled(title(eval, versus, usize::from(inside.width) + 2))
    }
}

fn action_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Fixed => "eval.fixed",
        Outcome::Broken => "eval.broken",
        Outcome::Both => "eval.both",
        Outcome::Neither => "eval.neither",
    }
}

/// A line, and the columns of matrix cells in it.
type Linked = (Line<'static>, Vec<(Range<usize>, Outcome)>);

fn plain(lines: Vec<Line<'static>>) -> Vec<Linked> {
    lines.into_iter().map(|line| (line, Vec::new())).collect()
}

fn title(eval: &Eval, versus: &Versus, width: usize) -> String {
    let names: Vec<&str> = versus.evals.iter().map(|eval| eval.name.as_str()).collect();
    let (set, task) = (&versus.evals[0].id.set, &versus.evals[0].task);
    let jobs = [
        super::eval_job::progress(eval),
        super::prove::progress(eval),
    ];
    let started: String = jobs
        .iter()
        .flatten()
        .map(|text| format!(" · {text}"))
        .collect();
    let run = versus.evals[0].id.short_folder();
    let (names, prompts, schema) = (
        names.join(" → "),
        counted(versus.prompts.len(), "prompt"),
        versus.schema(),
    );
    let text = match versus.is_rescored {
        true => {
            format!("{names} · {schema} · {run} · {task}, {set}, {prompts}{started}")
        }
        false => {
            format!("{names} · {run} · {task}, {set}, {prompts}{started} · {schema}")
        }
    };
    fitted(&text, width.saturating_sub(6))
}

struct SummaryText<'a> {
    eval: &'a Eval,
    shared: &'a Shared,
    versus: &'a Versus,
    /// `None` for a single eval.
    pair: Option<&'a PairedComparison>,
    width: usize,
}

impl SummaryText<'_> {
    fn outcomes(&self) -> &'static [Outcome] {
        match self.pair {
            Some(_) => &[
                Outcome::Fixed,
                Outcome::Broken,
                Outcome::Both,
                Outcome::Neither,
            ],
            None => &[Outcome::Both, Outcome::Neither],
        }
    }

    fn name(&self, outcome: Outcome) -> &'static str {
        if self.pair.is_some() {
            outcome.name()
        } else {
            outcome.name_alone()
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        let alone = || match (outcome, self.tiers_alone()) {
            (Outcome::Both, [.., valid]) => valid,
            (_, [unparsable, invalid, _]) => unparsable + invalid,
        };
        self.pair.map_or_else(alone, |pair| pair.count(outcome))
    }

    /// Answers of a single eval by tier, in the order of [`Tier`].
    fn tiers_alone(&self) -> [usize; 3] {
        let summary = &self.versus.evals[0].summary;
        let count = |rate: f64| (rate * summary.n as f64).round() as usize;
        // None of a log is known not to parse.
        let parsed = count(summary.parse.min(1.0));
        let valid = count(summary.valid);
        [
            summary.n - parsed.min(summary.n),
            parsed.saturating_sub(valid),
            valid,
        ]
    }

    /// All lines, side by side or stacked as the width allows.
    fn columns(&self, inside: Rect) -> Vec<(Rect, Vec<Linked>)> {
        let empty = || plain(vec![Line::default()]);
        let below = |text: &Self| {
            plain(
                [
                    text.rates(),
                    text.verdict(),
                    text.costs(),
                    text.conversations(),
                ]
                .concat(),
            )
        };
        if inside.width < 100 {
            let rest = [
                self.matrix(),
                empty(),
                plain(self.tiers()),
                empty(),
                plain(self.tags()),
            ];
            return vec![(inside, [below(self), empty(), rest.concat()].concat())];
        }
        // The matrix is as wide as its counts.
        let matrix = self
            .matrix()
            .iter()
            .map(|(line, _)| line.width())
            .max()
            .unwrap_or(0) as u16;
        // Columns not used by the rates and their differences.
        let evals = self.versus.evals.len();
        let wide = LABEL + evals * (CELL + 1) + if self.pair.is_some() { DIFFERENCE } else { 0 };
        let free = usize::from(inside.width).saturating_sub(wide.max(MIN_RATES)) as u16;
        let beside = BESIDE.max(matrix).max(free);
        let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(beside)])
            .spacing(1)
            .areas(inside);
        let beside = SummaryText {
            width: left.width as usize,
            ..*self
        };
        let mut outcomes = [self.matrix(), empty(), plain(self.tiers())].concat();
        let rows = usize::from(inside.height).saturating_sub(outcomes.len());
        let (theme, columns) = (&self.shared.theme, right.width.into());
        let failing = failures::list(self.eval, theme, self.versus, rows, columns);
        outcomes.extend(plain(failing));
        vec![
            (left, [below(&beside), plain(beside.tags())].concat()),
            (right, outcomes),
        ]
    }

    /// Table with a row per measure, a column per eval, and the difference of the selected pair.
    fn rates(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let wide = self.is_wide();
        let names = self.versus.evals.iter();
        let names: Vec<Cell> = names.map(|eval| eval.name.clone().into()).collect();
        let mut heading = self.row("", &names);
        if wide {
            heading.push(theme.span("   difference, paired", Role::Faint));
        }
        let mut lines = vec![Line::from(heading)];
        // The endings of conversations have their own histogram.
        let is_shown = |row: &MeasureRow| {
            !matches!(row.measure, Measure::Ended | Measure::CallsPerConversation)
        };
        for row in rate_rows(&self.summaries()).into_iter().filter(is_shown) {
            let mut spans = self.row(&row.measure.to_string(), &row.cells);
            let difference = self.pair.and_then(|pair| pair.difference(&row.measure));
            if let (true, Some((difference, verdict))) = (wide, difference) {
                spans.push(theme.span(format!("   {}", points(&difference)), role_of(verdict)));
            }
            lines.push(Line::from(spans));
        }
        lines
    }

    fn summaries(&self) -> Vec<&EvalSummary> {
        self.versus.evals.iter().map(|eval| &eval.summary).collect()
    }

    /// A row of the table; cells of narrow columns omit intervals and reasons.
    fn row(&self, label: &str, cells: &[Cell]) -> Vec<Span<'static>> {
        let theme = &self.shared.theme;
        let room = (self.width.saturating_sub(LABEL) / cells.len().max(1)).saturating_sub(1);
        let cell_width = CELL.min(room);
        let shown = |cell: &Cell| {
            if cell_width < CELL {
                cell.short()
            } else {
                cell.fitted(cell_width)
            }
        };
        let second = self.pair.map(|pair| pair.second);
        let role = |place: usize| {
            if Some(place) == second {
                Role::Trained
            } else {
                Role::Base
            }
        };
        let cells = cells.iter().enumerate().map(|(place, cell)| {
            theme.span(
                format!(" {}", padded(&shown(cell), cell_width, true)),
                role(place),
            )
        });
        std::iter::once(theme.span(padded(label, LABEL, false), Role::Faint))
            .chain(cells)
            .collect()
    }

    fn conversations(&self) -> Vec<Line<'static>> {
        let second = self.pair.map(|pair| pair.second);
        conversations::overview(self.shared, &self.summaries(), second, self.width)
    }

    /// Endpoint errors, cost and speed, below the verdict because they are no evidence for it.
    fn costs(&self) -> Vec<Line<'static>> {
        let rows = cost_rows(&self.summaries());
        rows.iter()
            .map(|row| Line::from(self.row(&row.measure.to_string(), &row.cells)))
            .collect()
    }

    fn is_wide(&self) -> bool {
        self.pair.is_some()
            && self.width >= LABEL + self.versus.evals.len() * (CELL + 1) + DIFFERENCE
    }

    /// The verdict on both metrics, the number of prompts needed to detect more, and clusters of
    /// failures.
    fn verdict(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let needed = self
            .pair
            .into_iter()
            .flat_map(PairedComparison::metrics)
            .filter_map(MetricComparison::needed_prompts);
        let sides = self.eval.sides(self.versus).into_iter().rev();
        let failures = sides
            .filter_map(|side| failures::sentence(self.eval, side, &self.versus.evals[side].name));
        let texts = std::iter::once(self.sentence())
            .chain(needed.map(|text| (text, Role::Faint)))
            .chain(
                self.versus
                    .warnings
                    .iter()
                    .map(|warning| (warning.clone(), Role::Warning)),
            )
            .chain(failures.map(|text| (text, Role::Text)));
        texts
            .flat_map(|(text, role)| {
                wrapped(&text, self.width)
                    .into_iter()
                    .map(move |line| theme.line(line, role))
            })
            .collect()
    }

    /// The verdict; for a single eval, a sentence that there is none.
    fn sentence(&self) -> (String, Role) {
        let Some(pair) = self.pair else {
            let summary = &self.versus.evals[0].summary;
            let rate = |name: &str| percent_interval(summary.metric(name), summary.interval(name));
            let exact = summary
                .exact
                .map_or_else(|| "n/a".to_owned(), |_| rate("exact"));
            let choose = self.shared.key_of("eval.choose");
            let look = self.versus.evals[0].look.as_ref();
            let look = look.map_or_else(String::new, |look| format!("; {}", look.name()));
            return (
                format!(
                    "valid {}, exact {exact}, 95% CI; not compared: {choose} chooses evals{look}",
                    rate("valid")
                ),
                Role::Text,
            );
        };
        let names = [pair.first, pair.second].map(|eval| self.versus.evals[eval].name.as_str());
        let several = self.versus.pairs.len() > 1;
        let which = if several {
            format!("{} → {}: ", names[0], names[1])
        } else {
            String::new()
        };
        (format!("{which}{}", pair.sentence()), pair.level().into())
    }

    /// Outcome counts; each cell has its key, and the cell that filters the list is highlighted.
    fn matrix(&self) -> Vec<Linked> {
        let theme = &self.shared.theme;
        let width = |outcome| self.cell_text(outcome).width() + self.key(outcome).width();
        let wide = Outcome::ALL
            .into_iter()
            .map(width)
            .max()
            .unwrap_or(0)
            .max(12);
        let label = (BESIDE as usize).saturating_sub(2 * wide).max(13);
        let row = |text: &str, cells: [Outcome; 2]| {
            let start = theme.span(padded(text, label, false), Role::Faint);
            self.cells(start, &cells, wide, "")
        };
        if self.pair.is_none() {
            return vec![row("answers", [Outcome::Both, Outcome::Neither])];
        }
        let after = [("valid after", wide), ("not after", wide)]
            .map(|(text, wide)| padded(text, wide, true));
        let head = format!("{}{}", padded("", label, false), after.concat());
        vec![
            (theme.line(head, Role::Faint), Vec::new()),
            row("valid before", [Outcome::Both, Outcome::Broken]),
            row("not before", [Outcome::Fixed, Outcome::Neither]),
        ]
        .into_iter()
        .chain(self.exact_changes(label, wide))
        .collect()
    }

    /// How many prompts changed on exact matches, with the keys that list them.
    fn exact_changes(&self, label: usize, width: usize) -> Option<Linked> {
        let exact = &self.pair?.exact.as_ref()?.comparison;
        let text = |outcome: Outcome, count: usize| {
            let key = self.key(outcome);
            let text = format!("{} {count}{key}{}", outcome.name(), key.trim());
            padded(&text, width, true)
        };
        let fixed = text(Outcome::Fixed, exact.fixed);
        let broken = text(Outcome::Broken, exact.broken);
        let title = padded("exact match", label, false);
        let text = format!("{title}{fixed}{broken}");
        Some((self.shared.theme.line(text, Role::Faint), Vec::new()))
    }

    /// Cells after a leading span, each with its count.
    fn cells(
        &self,
        start: Span<'static>,
        outcomes: &[Outcome],
        width: usize,
        gap: &'static str,
    ) -> Linked {
        let (mut line, mut cells) = (Line::from(start), Vec::new());
        for outcome in outcomes {
            let from = line.width();
            line.spans.extend(self.cell(*outcome, width));
            cells.push((from..line.width(), *outcome));
            line.push_span(gap);
        }
        (line, cells)
    }

    fn cell_text(&self, outcome: Outcome) -> String {
        let mark = if self.eval.only == Some((Metric::Valid, outcome)) {
            "▸"
        } else {
            " "
        };
        format!("{mark}{} {}", self.name(outcome), self.count(outcome))
    }

    fn cell(&self, outcome: Outcome, width: usize) -> Vec<Span<'static>> {
        let theme = &self.shared.theme;
        let role = match outcome {
            _ if self.count(outcome) == 0 => Role::Faint,
            Outcome::Fixed => Role::Good,
            Outcome::Broken => Role::Bad,
            Outcome::Both | Outcome::Neither => Role::Text,
        };
        let chosen = self.eval.only == Some((Metric::Valid, outcome));
        let style = if chosen {
            theme.style(role).patch(theme.style(Role::Selected))
        } else {
            theme.style(role)
        };
        let text = self.cell_text(outcome);
        let key = self.key(outcome);
        let width = width.saturating_sub(key.width()).max(text.width());
        vec![
            Span::styled(padded(&text, width, true), style),
            theme.span(key, Role::Key),
        ]
    }

    fn key(&self, outcome: Outcome) -> String {
        (self.shared.find_action)(action_of(outcome)).map_or_else(String::new, |action| {
            format!(" {}", self.shared.keymap.shown(action))
        })
    }

    /// Transition counts between tiers; for a single eval, the count in each tier.
    fn tiers(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let heading = Tier::ALL.map(|tier| {
            padded(
                &format!("{} {tier}", theme.tier_glyph(tier)),
                if tier == Tier::Unparsable { 13 } else { 11 },
                true,
            )
        });
        let mut lines = vec![theme.line(
            format!("{}{}", padded("to", 4, false), heading.concat()),
            Role::Faint,
        )];
        let rows = match self.pair {
            Some(pair) => Tier::ALL.map(Some).into_iter().zip(pair.tiers).collect(),
            None => vec![(None, self.tiers_alone())],
        };
        for (tier, counts) in rows {
            let glyph =
                tier.map_or_else(String::new, |tier| format!("{} ", theme.tier_glyph(tier)));
            let cells: Vec<Span<'static>> = counts
                .iter()
                .zip(Tier::ALL)
                .map(|(count, to)| {
                    let role = if *count == 0 {
                        Role::Faint
                    } else {
                        Theme::tier_role(to)
                    };
                    theme.span(
                        padded(
                            &count.to_string(),
                            if to == Tier::Unparsable { 13 } else { 11 },
                            true,
                        ),
                        role,
                    )
                })
                .collect();
            let from = theme.span(
                padded(&glyph, 4, false),
                tier.map_or(Role::Unparsable, Theme::tier_role),
            );
            lines.push(Line::from([vec![from], cells].concat()));
        }
        lines
    }

    fn tags(&self) -> Vec<Line<'static>> {
        let theme = &self.shared.theme;
        let sides = self
            .eval
            .sides(self.versus)
            .into_iter()
            .map(|place| &self.versus.evals[place].summary);
        let sides: Vec<_> = sides.collect();
        // Intervals are omitted to fit many tags; the exports contain them.
        let rates = |cells: &[Cell]| {
            let rates: Vec<String> = cells.iter().map(Cell::short).collect();
            rates.join("→")
        };
        let mut tags: Vec<String> = Vec::new();
        for row in tag_rows(&sides) {
            let rates = rates(&row.cells);
            match (row.measure, tags.last_mut()) {
                (Measure::Tag(Metric::Exact, ..), Some(text)) => {
                    text.push_str(&format!(", exact {rates}"));
                }
                (Measure::Tag(_, tag, n), _) => tags.push(format!("{tag} ({n}) {rates}")),
                _ => {}
            }
        }
        let field = |row: MeasureRow| match row.measure {
            Measure::Invented(path) => {
                Some(format!("{} invented {}", visible(&path), rates(&row.cells)))
            }
            Measure::Field(path, n) => {
                Some(format!("{} ({n}) {}", visible(&path), rates(&row.cells)))
            }
            _ => None,
        };
        let fields = field_rows(&sides).into_iter().filter_map(field).collect();
        let lines = [("valid by tag", tags), ("F1 by field", fields)];
        let lines = lines
            .into_iter()
            .flat_map(|(title, texts)| self.wrapped(title, texts));
        lines
            .chain(self.acceptance())
            .map(|line| theme.line(line, Role::Text))
            .collect()
    }

    /// What accepting sure answers keeps.
    fn acceptance(&self) -> Vec<String> {
        let evals = self.versus.evals.iter();
        let sentence = |eval: &EvalResult| {
            let known = eval.summary.confidence.as_deref()?;
            let sentence = acceptance_text(&eval.id.set.to_string(), known);
            Some(wrapped(&format!("{}: {sentence}", eval.name), self.width))
        };
        evals.filter_map(sentence).flatten().collect()
    }

    /// A title and texts, each of which stays on one line; nothing without texts.
    fn wrapped(&self, title: &str, texts: Vec<String>) -> Vec<String> {
        if texts.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![title.to_owned()];
        for text in texts {
            let Some(line) = lines.last_mut() else { break };
            if line.width() + text.width() + 2 > self.width && !line.is_empty() {
                lines.push(text);
            } else {
                line.push_str("  ");
                line.push_str(&text);
            }
        }
        lines
    }

    /// The five most important lines, for a low pane.
    fn short(&self) -> Vec<Linked> {
        let theme = &self.shared.theme;
        let sides: Vec<_> = self
            .eval
            .sides(self.versus)
            .into_iter()
            .map(|place| &self.versus.evals[place].summary)
            .collect();
        let cells = |of: &dyn Fn(&EvalSummary) -> String| {
            sides
                .iter()
                .map(|summary| of(summary))
                .collect::<Vec<_>>()
                .join(" → ")
        };
        let valid = sides
            .iter()
            .zip([Role::Base, Role::Trained])
            .enumerate()
            .flat_map(|(place, (summary, role))| {
                let arrow = (place > 0).then(|| Span::raw(" → "));
                arrow
                    .into_iter()
                    .chain([theme.span(percent(summary.valid), role)])
            });
        let label = |text: &'static str| theme.span(text, Role::Faint);
        let mut rates: Line<'static> = std::iter::once(label("valid ")).chain(valid).collect();
        let others = [
            ("  exact ", cells(&|summary| or_na(summary.exact, percent))),
            (
                "  tokens ",
                cells(&|summary| {
                    or_na(
                        Some(summary.mean_tokens).filter(|mean| mean.is_finite()),
                        |mean| format!("{mean:.0}"),
                    )
                }),
            ),
            ("  parse ", cells(&|summary| percent(summary.parse))),
        ];
        // Items that do not fit are omitted.
        for (name, text) in others {
            if rates.width() + name.width() + text.width() <= self.width {
                rates.spans.extend([label(name), Span::raw(text)]);
            }
        }
        let cells = self.cells(Span::raw(""), self.outcomes(), 13, " ");
        let (sentence, role) = self.sentence();
        let warnings = self
            .versus
            .warnings
            .iter()
            .map(|warning| (warning.clone(), Role::Warning));
        let verdict = std::iter::once((sentence, role))
            .chain(warnings)
            .flat_map(|(text, role)| {
                wrapped(&text, self.width)
                    .into_iter()
                    .map(move |line| theme.line(line, role))
            });
        [plain(vec![rates]), vec![cells], plain(verdict.collect())].concat()
    }
}

fn role_of(verdict: Verdict) -> Role {
    match verdict {
        Verdict::Better => Role::Good,
        Verdict::Worse => Role::Warning,
        Verdict::NoDifference => Role::Text,
    }
}
