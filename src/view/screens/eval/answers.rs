//! The two answers to the prompt under the cursor: scores with reasons, their diff, the expected answer, the prompt.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use serde_json::Value;

use super::{ANSWERS, Eval, layout};
use crate::report::{ComparedPrompt, PairedComparison, Versus};
use crate::run::EvalRecord;
use crate::view::pane::framed;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::diff::{difference, headings, side_by_side, unified};
use crate::view::widgets::text_width::wrapped;

/// Narrower than this, answers are stacked by default.
const SIDES: usize = 76;

/// Whether the answers are side by side.
pub(super) fn is_side_by_side(eval: &Eval, shared: &Shared) -> bool {
    eval.side_by_side.unwrap_or(layout::answer_columns(eval, shared) >= SIDES)
}

pub(super) fn draw(eval: &Eval, shared: &Shared, versus: &Versus, frame: &mut Frame<'_>, area: Rect) {
    let (pair, prompt) = (eval.pair(versus), eval.prompt(versus));
    let outcome = pair.zip(prompt).and_then(|(pair, prompt)| versus.outcome(prompt, pair));
    let title = prompt.map_or_else(
        || "answers".to_owned(),
        |prompt| format!("{} {}", prompt.prompt_id, outcome.map_or("", |outcome| outcome.name().trim_end_matches('s'))),
    );
    let inside = framed(&shared.theme, &title, eval.pane == ANSWERS, frame, area);
    let (Some(pair), Some(prompt)) = (pair, prompt) else {
        frame.render_widget(Paragraph::new("no prompt selected"), inside);
        return;
    };
    let lines = lines(eval, shared, versus, pair, prompt, inside.width as usize);
    let top = eval.top.at(lines.len()).unwrap_or(0);
    frame.render_widget(Paragraph::new(lines.into_iter().skip(top).collect::<Vec<_>>()), inside);
}

/// How many lines there are to scroll through.
pub(super) fn rows(eval: &Eval, shared: &Shared, versus: &Versus) -> usize {
    let found = eval.pair(versus).zip(eval.prompt(versus));
    found.map_or(0, |(pair, prompt)| {
        lines(eval, shared, versus, pair, prompt, layout::answer_columns(eval, shared)).len()
    })
}

fn lines(
    eval: &Eval,
    shared: &Shared,
    versus: &Versus,
    pair: &PairedComparison,
    prompt: &ComparedPrompt,
    width: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let (Some(before), Some(after)) = (versus.record(prompt, pair.first), versus.record(prompt, pair.second)) else {
        return Vec::new();
    };
    let names = [versus.evals[pair.first].name.as_str(), versus.evals[pair.second].name.as_str()];
    let mut lines = Vec::new();
    for (name, record, role) in [(names[0], before, Role::Base), (names[1], after, Role::Trained)] {
        lines.push(scored(theme, name, record, role));
        for reason in reasons(record) {
            lines.extend(
                wrapped(&reason, width.saturating_sub(2))
                    .into_iter()
                    .map(|line| Line::styled(format!("  {line}"), theme.style(Role::Bad))),
            );
        }
    }
    lines.push(Line::default());
    let rows = difference(&before.completion, &after.completion);
    if before.completion == after.completion {
        lines.push(Line::styled("both answers are identical", theme.style(Role::Faint)));
    }
    if is_side_by_side(eval, shared) {
        lines.push(headings(theme, names[0], names[1], width));
        lines.extend(side_by_side(theme, &rows, width));
    } else {
        let heading = |mark: &str, name: &str, role| Span::styled(format!("{mark} {name}  "), theme.style(role));
        lines.push(Line::from(vec![heading("-", names[0], Role::Removed), heading("+", names[1], Role::Added)]));
        lines.extend(unified(theme, &rows, width));
    }
    if let Some(row) = versus.evals[pair.first].rows.get(&prompt.prompt_id) {
        lines.extend(expected(theme, row.expected.as_ref(), before, after, names, width));
        lines.push(Line::default());
        for message in &row.messages {
            lines.push(Line::styled(message.role.clone(), theme.style(Role::Special)));
            for line in message.content.lines() {
                lines.extend(
                    wrapped(line, width).into_iter().map(|line| Line::from(line.replace(char::is_control, "·"))),
                );
            }
        }
    }
    lines
}

/// `base: ▄ invalid 0.50, 42 tokens, values wrong`.
fn scored(theme: &Theme, name: &str, record: &EvalRecord, role: Role) -> Line<'static> {
    let values = match record.exact {
        Some(true) => ", values right",
        Some(false) => ", values wrong",
        None => "",
    };
    let cut = if record.truncated { ", truncated" } else { "" };
    let unwrapped = if record.tolerant && !record.is_valid() { ", valid after unwrapping" } else { "" };
    Line::from(vec![
        Span::styled(format!("{name}: "), theme.style(role)),
        Span::styled(
            format!("{} {} {:.2}", theme.tier_glyph(&record.tier), record.tier, record.reward),
            theme.style(Theme::tier_role(&record.tier)),
        ),
        Span::styled(format!(", {} tokens{values}{cut}{unwrapped}", record.tokens), theme.style(Role::Faint)),
    ])
}

/// Why an answer is not valid: `/amount: "12" is not of type "number" (line 1 column 61)`.
fn reasons(record: &EvalRecord) -> Vec<String> {
    let errors = record.score["errors"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let reason = |error: &Value| {
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        let path = text("instance_path");
        let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
        let place = error["line"].as_u64().zip(error["column"].as_u64());
        let place = place.map_or_else(String::new, |(line, column)| format!(" (line {line} column {column})"));
        format!("{path}{}{place}", text("message"))
    };
    errors.iter().map(reason).collect()
}

/// The expected values, field by field, with who has them right.
fn expected(
    theme: &Theme,
    expected: Option<&Value>,
    before: &EvalRecord,
    after: &EvalRecord,
    names: [&str; 2],
    width: usize,
) -> Vec<Line<'static>> {
    let Some(expected) = expected else { return Vec::new() };
    let mark = |record: &EvalRecord, field: &str| match record.score["fields"][field].as_bool() {
        Some(true) => (theme.glyph("✓", "v"), Role::Good),
        Some(false) => (theme.glyph("✗", "x"), Role::Bad),
        None => (" ", Role::Faint),
    };
    let mut lines = vec![
        Line::default(),
        Line::styled(format!("expected ({}, {})", names[0], names[1]), theme.style(Role::Special)),
    ];
    match expected.as_object() {
        Some(fields) => {
            for (field, value) in fields {
                let (first, second) = (mark(before, field), mark(after, field));
                let marks = [
                    Span::styled(first.0, theme.style(first.1)),
                    Span::styled(format!("{} ", second.0), theme.style(second.1)),
                ];
                for (index, text) in
                    wrapped(&format!("{field}: {value}"), width.saturating_sub(4)).into_iter().enumerate()
                {
                    let before = if index == 0 { marks.to_vec() } else { vec![Span::raw("   ")] };
                    lines.push(Line::from([before, vec![Span::raw(text)]].concat()));
                }
            }
        }
        None => lines.extend(wrapped(&expected.to_string(), width).into_iter().map(Line::from)),
    }
    lines
}
