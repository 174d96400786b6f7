//! Conversations with tools or agents: those that led to the answers to a prompt, and of whole evals how many calls they
//! have, why they ended, and how many calls in a row are valid.

use std::collections::BTreeMap;

use ratatui::text::{Line, Span};

use crate::environment::ToolChain;
use crate::format::{or_na, percent_short};
use crate::report::{MeasureRow, call_rows};
use crate::run::{EvalRecord, EvalSummary, ToolSummary};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::bars::gauge;
use crate::widgets::conversation::Conversation;
use crate::widgets::text_width::{padded, wrapped};

/// The conversation that led to the answer that decides a record.
pub(super) fn conversation<'a>(
    shared: &'a Shared,
    record: &'a EvalRecord,
    width: usize,
) -> Option<Conversation<'a>> {
    let turn = record.turns.get(record.deciding_turn());
    let chain = record
        .chain
        .as_deref()
        .or(turn.and_then(|turn| turn.chain.as_deref()))?;
    let (call_seconds, tokens) = turn.map_or((&record.call_seconds, record.tokens), |turn| {
        (&turn.call_seconds, turn.tokens)
    });
    let (is_whole, whole_key) = (shared.whole_results, shared.key_of("eval.results"));
    Some(Conversation {
        chain,
        call_seconds,
        tokens,
        is_whole,
        whole_key,
        width,
    })
}

pub(super) fn lines(
    shared: &Shared,
    sides: &[(&str, &EvalRecord)],
    side: bool,
    width: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let columns = if side && sides.len() == 2 {
        width.saturating_sub(3) / 2
    } else {
        width
    };
    let of_side = |(name, record): &(&str, &EvalRecord), role| {
        let Some(talk) = conversation(shared, record, columns) else {
            return Vec::new();
        };
        let name = theme.line(padded(name, columns, false), role);
        [
            vec![name],
            talk.summary(theme),
            talk.turns(theme),
            talk.rest(theme),
        ]
        .concat()
    };
    let mut found = sides
        .iter()
        .zip([Role::Base, Role::Trained])
        .map(|(side, role)| of_side(side, role));
    let (first, second) = (
        found.next().unwrap_or_default(),
        found.next().unwrap_or_default(),
    );
    if first.is_empty() && second.is_empty() {
        return Vec::new();
    }
    let mut lines = match columns < width {
        true => beside(theme, &first, &second, columns),
        false => [first, second].concat(),
    };
    lines.push(Line::default());
    lines
}

fn beside(
    theme: &Theme,
    left: &[Line<'static>],
    right: &[Line<'static>],
    columns: usize,
) -> Vec<Line<'static>> {
    let line = |at: usize| {
        let mut spans = left.get(at).map_or_else(Vec::new, |line| spans_of(line));
        let used: usize = spans.iter().map(Span::width).sum();
        spans.push(Span::raw(" ".repeat(columns.saturating_sub(used))));
        spans.push(theme.span(" │ ", Role::Faint));
        spans.extend(right.get(at).map_or_else(Vec::new, |line| spans_of(line)));
        Line::from(spans)
    };
    (0..left.len().max(right.len())).map(line).collect()
}

fn spans_of(line: &Line<'static>) -> Vec<Span<'static>> {
    line.spans
        .iter()
        .map(|span| Span::styled(span.content.clone(), line.style.patch(span.style)))
        .collect()
}

/// Columns of the labels, as in the rates.
const LABEL: usize = 22;
/// Columns of a cell at most.
const CELL: usize = 34;
/// More numbers of calls than these are put together.
const MAX_BARS: usize = 8;

/// Histograms of calls and of ends, a column an eval, and chains of valid calls beside p^k; empty without tools.
pub(super) fn overview(
    shared: &Shared,
    evals: &[&EvalSummary],
    second: Option<usize>,
    width: usize,
) -> Vec<Line<'static>> {
    let tools: Vec<Option<&ToolSummary>> = evals.iter().map(|eval| eval.tools.as_deref()).collect();
    if tools
        .iter()
        .all(|tools| tools.is_none_or(|tools| tools.calls.is_empty()))
    {
        return Vec::new();
    }
    let theme = &shared.theme;
    let table = CallTable {
        theme,
        second,
        columns: (width.saturating_sub(LABEL) / evals.len())
            .saturating_sub(1)
            .min(CELL),
    };
    let mut lines = vec![
        Line::default(),
        table.row(
            "conversations",
            tools.iter().map(|tools| {
                or_na(*tools, |tools| {
                    let conversations: usize =
                        tools.calls.iter().map(|one| one.conversations).sum();
                    format!("{conversations}, {:.1} calls each", tools.mean_calls)
                })
            }),
        ),
    ];
    for (label, range) in call_ranges(&tools) {
        let share = |tools: &ToolSummary| {
            let all: usize = tools.calls.iter().map(|one| one.conversations).sum();
            let found = tools.calls.iter().filter(|one| range.contains(&one.calls));
            (found.map(|one| one.conversations).sum(), all)
        };
        lines.push(table.bars(&label, tools.iter().map(|tools| tools.map(share))));
    }
    for end in ends(&tools) {
        let share = |tools: &ToolSummary| {
            let share = tools.ends.get(end).copied().unwrap_or(0.0);
            ((share * tools.turns as f64).round() as usize, tools.turns)
        };
        lines.push(table.bars(
            &format!("end {end}"),
            tools.iter().map(|tools| tools.map(share)),
        ));
    }
    lines.extend(table.valid_calls(evals, width));
    lines
}

/// Each number of calls, or ranges of them where there are many; with their labels.
fn call_ranges(tools: &[Option<&ToolSummary>]) -> Vec<(String, std::ops::RangeInclusive<usize>)> {
    let counts = tools
        .iter()
        .flatten()
        .flat_map(|tools| &tools.calls)
        .map(|one| one.calls);
    let most = counts.max().unwrap_or(0);
    let width = most / MAX_BARS + 1;
    let label = |from: usize, to: usize| match (from == to, from) {
        (true, 1) => "1 call".to_owned(),
        (true, _) => format!("{from} calls"),
        _ => format!("{from} to {to} calls"),
    };
    // None and one are never put together with others.
    let ends = (0..=most).filter(|calls| *calls < 2 || (calls - 2) % width == 0);
    ends.map(|from| {
        let to = if from < 2 {
            from
        } else {
            (from + width - 1).min(most)
        };
        (label(from, to), from..=to)
    })
    .collect()
}

/// Those that occur, the most frequent first.
fn ends<'t>(tools: &[Option<&'t ToolSummary>]) -> Vec<&'t str> {
    let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
    for (end, share) in tools.iter().flatten().flat_map(|tools| &tools.ends) {
        *shares.entry(end).or_default() += share;
    }
    let mut ends: Vec<(&str, f64)> = shares.into_iter().collect();
    ends.sort_by(|a, b| b.1.total_cmp(&a.1));
    ends.into_iter().map(|(end, _)| end).collect()
}

struct CallTable<'a> {
    theme: &'a Theme,
    second: Option<usize>,
    columns: usize,
}

impl CallTable<'_> {
    fn row(&self, label: &str, cells: impl Iterator<Item = String>) -> Line<'static> {
        let role = |place: usize| {
            if Some(place) == self.second {
                Role::Trained
            } else {
                Role::Base
            }
        };
        let cell = |(place, cell): (usize, String)| {
            self.theme.span(
                format!(" {}", padded(&cell, self.columns, true)),
                role(place),
            )
        };
        let label = self.theme.span(padded(label, LABEL, false), Role::Faint);
        std::iter::once(label)
            .chain(cells.enumerate().map(cell))
            .collect()
    }

    /// Parts of wholes: `▕███   ▏ 12  40%`.
    fn bars(
        &self,
        label: &str,
        parts: impl Iterator<Item = Option<(usize, usize)>>,
    ) -> Line<'static> {
        let cell = |(part, whole): (usize, usize)| {
            let share = part as f64 / whole.max(1) as f64;
            let text = format!(" {part:>4} {:>5}", percent_short(share));
            format!(
                "{}{text}",
                gauge(self.theme, share, self.columns.saturating_sub(text.len()))
            )
        };
        self.row(label, parts.map(|part| or_na(part, cell)))
    }

    /// The share p of the calls that is valid; of conversations with k calls and more those whose first k are, beside p^k.
    fn valid_calls(&self, evals: &[&EvalSummary], width: usize) -> Vec<Line<'static>> {
        let rows = call_rows(evals);
        if rows.is_empty() {
            return Vec::new();
        }
        let line = |row: &MeasureRow| {
            let cells = row.cells.iter().map(|cell| cell.fitted(self.columns));
            self.row(&row.measure.to_string(), cells)
        };
        let mut lines: Vec<_> = rows.iter().map(line).collect();
        let note = "A call is valid if it can be read, names a function, and its arguments fit. First k: of conversations with k calls or more; p^k: if calls were independent.";
        lines.extend(
            wrapped(note, width)
                .into_iter()
                .map(|line| self.theme.line(line, Role::Faint)),
        );
        lines
    }
}

/// Whether a word of the filter is of the conversation: why it ended, or a function that it calls.
pub(super) fn has_word(record: &EvalRecord, word: &str) -> bool {
    let ended = record.chains().any(|chain| chain.end.name() == word);
    ended
        || record
            .chains()
            .flat_map(ToolChain::calls)
            .any(|call| call.name.to_lowercase().contains(word))
}
