//! The failure groups: a list to filter the prompts by.

use super::{Eval, PROMPTS};
use crate::format::percent;
use crate::message::Command;
use crate::popup::{Pick, PickEntry, Popup};
use crate::report::FailureGroup;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::text_width::padded;

/// Columns of a group's name.
const LABEL: usize = 28;

/// Why there are no groups.
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

/// Lists the groups of the eval after, or of the one before.
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
    let entries = found
        .groups
        .iter()
        .map(|group| entry(shared, group))
        .collect();
    let groups = found.groups.clone();
    shared.popup = Some(Popup::Pick(Pick::new(
        title,
        entries,
        at.unwrap_or(0),
        move |eval: &mut Eval, _, chosen| {
            eval.group = groups.into_iter().nth(chosen).map(|group| (side, group));
            (eval.only, eval.pane) = (None, PROMPTS);
            eval.arrange();
            Vec::new()
        },
    )));
    Vec::new()
}

fn entry(shared: &Shared, group: &FailureGroup) -> PickEntry {
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
    let mark = if *over_represented {
        shared.theme.glyph("▲", "!")
    } else {
        " "
    };
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

/// The groups in which failures gather, for the summary.
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
