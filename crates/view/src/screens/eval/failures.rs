//! The failure groups: a list to filter the prompts by.

use ratatui::text::{Line, Span};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::{Eval, PROMPTS};
use crate::format::percent;
use crate::message::Command;
use crate::popup::{Pick, PickEntry, Popup};
use crate::report::{FailureGroup, Versus};
use crate::run::EvalRecord;
use crate::score::FailureClass;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::text_width::{fitted, one_line, padded};

/// Columns of a group's name.
const LABEL: usize = 28;
/// Rows that a list of failures needs: a gap, its head and two of them.
const MIN_ROWS: usize = 4;

pub(super) fn none(eval: &Eval, last: bool) -> Option<String> {
    let versus = eval.versus()?;
    let side = side(eval, last)?;
    let none = eval.failures.get(side)?.groups.is_empty();
    none.then(|| format!("{} has no failures", versus.evals[side].name))
}

fn side(eval: &Eval, last: bool) -> Option<usize> {
    let sides = eval.sides(eval.versus()?);
    if last { sides.last() } else { sides.first() }.copied()
}

pub(super) fn open(eval: &mut Eval, shared: &mut Shared, last: bool) -> Vec<Command> {
    let (Some(side), Some(versus)) = (side(eval, last), eval.versus()) else {
        return Vec::new();
    };
    let Some(found) = eval.failures.get(side) else {
        return Vec::new();
    };
    let at = eval.group.as_ref().filter(|(eval, _)| *eval == side);
    let at = at.and_then(|(_, group)| {
        found
            .groups
            .iter()
            .position(|other| other.label() == group.label())
    });
    let title = format!(
        "Failures of {}: {} of {}",
        versus.evals[side].name, found.failures, found.completions
    );
    let entries = found.groups.iter().map(entry).collect();
    let groups = found.groups.clone();
    shared.open_popup(Popup::Pick(Pick::new(
        title,
        entries,
        at.unwrap_or(0),
        move |eval: &mut Eval, _, chosen| {
            eval.group = groups.into_iter().nth(chosen).map(|group| (side, group));
            (eval.only, eval.pane) = (None, PROMPTS);
            eval.arrange(true)
        },
    )))
}

fn entry(group: &FailureGroup) -> PickEntry {
    let FailureGroup {
        failures,
        completions,
        over_represented,
        ..
    } = group;
    let (of_failures, of_set) = (
        percent(group.share_of_failures),
        percent(group.share_of_set),
    );
    let mark = if *over_represented { "▲" } else { " " };
    let detail = match over_represented {
        true => "over-represented (p < 0.05, Fisher, corrected for the number of groups)",
        false => "",
    };
    PickEntry {
        label: padded(&format!("{mark} {}", group.label()), LABEL, false),
        beside: format!(
            "{failures:>4} of {completions:<4} {of_failures:>6} of failures {of_set:>6} of set"
        ),
        detail: detail.to_owned(),
        role: over_represented.then_some(Role::Warning),
        ..PickEntry::default()
    }
}

pub(super) fn sentence(eval: &Eval, side: usize, name: &str) -> Option<String> {
    let found = eval.failures.get(side).filter(|found| found.failures > 0)?;
    let over = found.groups.iter().filter(|group| group.over_represented);
    let over: Vec<String> = over
        .map(|group| {
            format!(
                "{} ({} of {})",
                group.label(),
                group.failures,
                group.completions
            )
        })
        .collect();
    let over = if over.is_empty() {
        "no group over-represented".to_owned()
    } else {
        over.join(", ")
    };
    Some(format!("failures of {name}, {}: {over}", found.failures))
}

/// Why an answer is not valid: `/amount: "12" is not of type "number" (line 1 column 61)`.
pub(super) fn reasons(record: &EvalRecord) -> Vec<String> {
    let errors = record.score["errors"]
        .as_array()
        .map_or(&[] as &[Value], Vec::as_slice);
    let reason = |error: &Value| {
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        let path = text("instance_path");
        let path = if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        };
        let place = error["line"].as_u64().zip(error["column"].as_u64());
        let place = place.map_or_else(String::new, |(line, column)| {
            format!(" (line {line} column {column})")
        });
        format!("{path}{}{place}", text("message"))
    };
    errors.iter().map(reason).collect()
}

fn wrong_fields(record: &EvalRecord) -> String {
    let fields = record.score["fields"].as_object().into_iter().flatten();
    let wrong = fields.filter(|(_, is_right)| **is_right == false);
    let names: Vec<&str> = wrong.map(|(name, _)| name.as_str()).collect();
    names.join(", ")
}

/// The prompts that the last eval fails, with class and reason, in as many rows as are free: the lowest rewards first.
pub(super) fn list(
    eval: &Eval,
    theme: &Theme,
    versus: &Versus,
    height: usize,
    width: usize,
) -> Vec<Line<'static>> {
    let sides = eval.sides(versus);
    let Some(side) = sides.last().copied().filter(|_| height >= MIN_ROWS) else {
        return Vec::new();
    };
    let failing = eval.failing.get(side).filter(|failing| !failing.is_empty());
    let Some(failing) = failing else {
        return Vec::new();
    };
    let (count, room) = (failing.len(), height - 2);
    let shown = if count > room { room - 1 } else { count };
    let name = &versus.evals[side].name;
    let head = format!("failures of {name}: {count}");
    let mut lines = vec![Line::default(), theme.line(head, Role::Faint)];
    let prompts = failing
        .iter()
        .filter_map(|index| versus.prompts.get(*index));
    let records = prompts.filter_map(|prompt| Some((prompt, versus.record(prompt, side)?)));
    for (prompt, record) in records.take(shown) {
        let class = record.failure().map_or("wrong value", FailureClass::name);
        let head = format!(
            "{} {} ",
            theme.tier_glyph(record.outcome()),
            prompt.prompt_id
        );
        let reason = reasons(record).into_iter().next();
        let reason = reason.unwrap_or_else(|| wrong_fields(record));
        let text = one_line(&format!("{class}  {reason}"));
        let text = fitted(text.trim_end(), width.saturating_sub(head.width()));
        let role = Theme::tier_role(record.outcome());
        lines.push(Line::from(vec![theme.span(head, role), Span::raw(text)]));
    }
    if shown < count {
        let more = format!("{} more", count - shown);
        lines.push(theme.line(more, Role::Faint));
    }
    lines
}
