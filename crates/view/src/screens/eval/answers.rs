//! The answers to the prompt under the cursor: comment, question, scores with reasons, their diff, the expected answer,
//! the whole prompt.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use serde::Deserialize;
use serde_json::Value;

use super::failures::reasons;
use super::{Eval, conversations, layout};
use crate::format::counted;
use crate::pane::content::Content;
use crate::report::{ComparedPrompt, Outcome, Versus};
use crate::run::EvalRecord;
use crate::score::GroundedValue;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::text::Message;
use crate::theme::Theme;
use crate::widgets::confidence;
use crate::widgets::conversation::parts;
use crate::widgets::diff::{difference, headings, side_by_side, unified};
use crate::widgets::grounded;
use crate::widgets::text_value::named;
use crate::widgets::text_width::wrapped;

/// Narrower than this, answers are stacked by default.
pub(super) const SIDES: usize = 76;

pub(super) fn is_side_by_side(eval: &Eval, shared: &Shared) -> bool {
    eval.side_by_side
        .unwrap_or(layout::answer_columns(eval, shared) >= SIDES)
}

pub(super) fn content<'a>(
    eval: &Eval,
    shared: &Shared,
    versus: &Versus,
    inside: Rect,
) -> Content<'a> {
    let prompt = eval.prompt(versus);
    let name = |outcome: Outcome| {
        if versus.pairs.is_empty() {
            outcome.name_alone()
        } else {
            outcome.name_of_one()
        }
    };
    let title = prompt.map_or_else(
        || "answers".to_owned(),
        |prompt| {
            format!(
                "{} {}",
                prompt.prompt_id,
                eval.outcome(versus, prompt).map_or("", name)
            )
        },
    );
    let lines = prompt.map_or_else(Vec::new, |prompt| {
        lines(eval, shared, versus, prompt, inside)
    });
    Content {
        empty: vec![Line::from("no prompt selected")],
        ..Content::titled(title).text(inside, lines, eval.top)
    }
}

fn lines(
    eval: &Eval,
    shared: &Shared,
    versus: &Versus,
    prompt: &ComparedPrompt,
    inside: Rect,
) -> Vec<Line<'static>> {
    let (theme, width) = (&shared.theme, usize::from(inside.width));
    let side = |eval: usize| {
        Some((
            versus.evals.get(eval)?.name.as_str(),
            versus.record(prompt, eval)?,
        ))
    };
    let sides: Vec<(&str, &EvalRecord)> = eval.sides(versus).into_iter().filter_map(side).collect();
    let comment = Some(versus.comment(&prompt.prompt_id)).filter(|comment| !comment.is_empty());
    let comment = comment.map_or_else(Vec::new, |comment| {
        wrapped(&format!("comment: {comment}"), width)
    });
    let mut lines: Vec<_> = comment
        .into_iter()
        .map(|line| theme.line(line, Role::Marked))
        .collect();
    let row = eval
        .sides(versus)
        .first()
        .and_then(|first| versus.evals.get(*first)?.rows.get(&prompt.prompt_id));
    // The turn that decided the first conversation.
    let said = sides.first().map_or(&[][..], |(_, record)| {
        &record.turns[..record.deciding_turn()]
    });
    let turn = row
        .and_then(|row| row.after(&said.iter().map(|turn| &turn.completion).collect::<Vec<_>>()));
    let mut messages = turn.as_ref().map_or(&[][..], |row| row.messages.as_slice());
    if let Some((question, before)) = messages.split_last() {
        let mut rows = text_of(question, width);
        // A fifth of the pane.
        let most = usize::from(inside.height / 5).max(1);
        if rows.len() <= most {
            messages = before;
        } else {
            rows.retain(|row| !row.trim().is_empty());
            rows.truncate(most);
            rows.push("… the whole prompt is below".to_owned());
        }
        lines.extend(rows.into_iter().map(|row| theme.line(row, Role::Special)));
        lines.push(Line::default());
    }
    lines.extend(judged(theme, &sides, width));
    lines.push(Line::default());
    let side = eval.side_by_side.unwrap_or(width >= SIDES);
    lines.extend(conversations::lines(shared, &sides, side, width));
    lines.extend(texts(theme, &sides, side, width));
    lines.extend(confidences(theme, &sides));
    if let Some(row) = &turn {
        lines.extend(expected(theme, row.expected.as_ref(), &sides, width));
    }
    lines.extend(stated(theme, &sides));
    for message in messages {
        lines.push(Line::default());
        lines.push(theme.line(message.role.clone(), Role::Special));
        lines.extend(text_of(message, width).into_iter().map(Line::from));
    }
    lines
}

fn text_of(message: &Message, width: usize) -> Vec<String> {
    let calls = message
        .tool_calls()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    let texts = message
        .content
        .lines()
        .chain(calls.iter().map(String::as_str));
    texts
        .flat_map(|line| wrapped(line, width))
        .map(|line| line.replace(char::is_control, "·"))
        .collect()
}

pub(super) fn judged(
    theme: &Theme,
    sides: &[(&str, &EvalRecord)],
    width: usize,
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for ((name, record), role) in sides.iter().zip([Role::Base, Role::Trained]) {
        lines.push(scored(theme, name, record, role));
        lines.extend(reward_parts(theme, record, width));
        for reason in reasons(record) {
            let wrapped = wrapped(&reason, width.saturating_sub(2)).into_iter();
            lines.extend(wrapped.map(|line| theme.line(format!("  {line}"), Role::Bad)));
        }
    }
    lines
}

fn reward_parts(theme: &Theme, record: &EvalRecord, width: usize) -> Vec<Line<'static>> {
    let own = record.score["parts"]
        .as_object()
        .filter(|_| record.chains().next().is_some());
    let own = own
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_f64().unwrap_or(f64::NAN)));
    let lines = parts(theme, own, width.saturating_sub(2)).into_iter();
    lines
        .map(|line| theme.line(format!("  {line}"), Role::Faint))
        .collect()
}

fn confidences(theme: &Theme, sides: &[(&str, &EvalRecord)]) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for (name, record) in sides {
        if let Some(known) = &record.confidence {
            let title = format!("{name}: confidence");
            lines.extend(confidence::section(
                theme,
                &title,
                known,
                &record.completion,
            ));
        }
    }
    lines
}

pub(super) fn stated(theme: &Theme, sides: &[(&str, &EvalRecord)]) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for (name, record) in sides {
        let values =
            Vec::<GroundedValue>::deserialize(&record.score["grounded"]).unwrap_or_default();
        if !values.is_empty() {
            lines.extend([
                Line::default(),
                theme.line(format!("{name}: stated by the prompt"), Role::Special),
            ]);
            lines.extend(grounded::lines(theme, &values));
        }
    }
    lines
}

pub(super) fn texts(
    theme: &Theme,
    sides: &[(&str, &EvalRecord)],
    side: bool,
    width: usize,
) -> Vec<Line<'static>> {
    if let [first, second] = sides {
        return compared(theme, [*first, *second], side, width);
    }
    let lines = sides
        .iter()
        .flat_map(|(_, record)| record.completion.lines());
    let lines = lines.flat_map(|line| wrapped(line, width));
    lines
        .map(|line| Line::from(line.replace(char::is_control, "·")))
        .collect()
}

fn compared(
    theme: &Theme,
    [(first, before), (second, after)]: [(&str, &EvalRecord); 2],
    side: bool,
    width: usize,
) -> Vec<Line<'static>> {
    let rows = difference(&before.completion, &after.completion);
    let mut lines = Vec::new();
    if before.completion == after.completion {
        lines.push(theme.line("both answers are identical", Role::Faint));
    }
    if side {
        lines.push(headings(theme, first, second, width));
        lines.extend(side_by_side(theme, &rows, width));
    } else {
        let heading = |mark: &str, name: &str, role| theme.span(format!("{mark} {name}  "), role);
        lines.push(Line::from(vec![
            heading("-", first, Role::Removed),
            heading("+", second, Role::Added),
        ]));
        lines.extend(unified(theme, &rows, width));
    }
    lines
}

/// `base: ▄ invalid 0.50, 42 tokens, not exact`.
fn scored(theme: &Theme, name: &str, record: &EvalRecord, role: Role) -> Line<'static> {
    let values = match record.exact {
        Some(true) => ", exact",
        Some(false) => ", not exact",
        None => "",
    };
    let cut = if record.truncated { ", truncated" } else { "" };
    let turn = match record.turn_count() {
        1 => String::new(),
        count => format!(", turn {} of {count}", record.deciding_turn() + 1),
    };
    let tier = record.outcome();
    let reward = match record.reward.is_finite() {
        true => format!(" {:.2}", record.reward),
        false => String::new(),
    };
    let unwrapped = if record.tolerant && !record.is_valid() {
        ", valid after unwrapping"
    } else {
        ""
    };
    Line::from(vec![
        theme.span(format!("{name}: "), role),
        theme.span(
            format!("{} {}{reward}", theme.tier_glyph(tier), tier),
            Theme::tier_role(tier),
        ),
        theme.span(
            format!(
                ", {}{values}{cut}{unwrapped}{turn}",
                record.tokens.map_or_else(
                    || "n/a tokens".to_owned(),
                    |tokens| counted(tokens, "token")
                )
            ),
            Role::Faint,
        ),
    ])
}

fn expected(
    theme: &Theme,
    expected: Option<&Value>,
    sides: &[(&str, &EvalRecord)],
    width: usize,
) -> Vec<Line<'static>> {
    let Some(expected) = expected else {
        return Vec::new();
    };
    let mark = |record: &EvalRecord, field: &str| match record.score["fields"][field].as_bool() {
        Some(true) => ("✓", Role::Good),
        Some(false) => ("✗", Role::Bad),
        None => (" ", Role::Faint),
    };
    let names = sides
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ");
    let mut lines = vec![
        Line::default(),
        theme.line(format!("expected ({names})"), Role::Special),
    ];
    match expected.as_object() {
        Some(fields) => {
            for (field, value) in fields {
                let marks = sides.iter().map(|(_, record)| mark(record, field));
                let mut marks: Vec<_> =
                    marks.map(|(glyph, role)| theme.span(glyph, role)).collect();
                marks.push(Span::raw(" "));
                let texts = named(field, value).into_iter();
                let texts = texts.flat_map(|line| wrapped(&line, width.saturating_sub(4)));
                for (index, text) in texts.enumerate() {
                    let before = if index == 0 {
                        marks.clone()
                    } else {
                        vec![Span::raw(" ".repeat(marks.len()))]
                    };
                    let text = text.replace(char::is_control, "·");
                    lines.push(Line::from([before, vec![Span::raw(text)]].concat()));
                }
            }
        }
        None => {
            let text = expected
                .as_str()
                .map_or_else(|| expected.to_string(), str::to_owned);
            let rows = text.lines().flat_map(|line| wrapped(line, width));
            lines.extend(rows.map(|row| Line::from(row.replace(char::is_control, "·"))));
        }
    }
    lines
}
