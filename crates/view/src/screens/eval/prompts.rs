//! The list of prompts: outcome and tiers of the answers.

use ratatui::text::{Line, Span};

use super::Eval;
use crate::facts::TierOutcome;
use crate::pane::content::{Content, List};
use crate::report::{ComparedPrompt, Metric, Outcome, Versus};
use crate::run::EvalRecord;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::text_width::{fitted, padded};

pub(super) fn content<'a>(
    eval: &'a Eval,
    shared: &'a Shared,
    versus: &'a Versus,
    width: usize,
) -> Content<'a> {
    let theme = &shared.theme;
    let is_alone = versus.pairs.is_empty();
    let name = if is_alone {
        Outcome::name_alone
    } else {
        Outcome::name
    };
    let count = format!("{} of {}", eval.shown.len(), versus.prompts.len());
    let only = eval.only.map(|(metric, only)| match metric {
        Metric::Valid => name(only).to_owned(),
        Metric::Exact => format!("exact {}", name(only)),
    });
    let title = match &eval.group {
        Some((side, group)) => {
            let what = only.unwrap_or_else(|| format!("failures of {}", versus.evals[*side].name));
            format!("{count}: {}, {what}", group.label())
        }
        None => format!("{} {count}", only.as_deref().unwrap_or("prompts")),
    };
    let line = move |place: usize| {
        versus
            .prompts
            .get(eval.shown[place])
            .map_or_else(Line::default, |prompt| {
                row(eval, shared, versus, prompt, width)
            })
    };
    let nothing = format!(" no prompts match; {} shows all", shared.key_of("eval.all"));
    Content {
        head: eval
            .filter
            .is_shown()
            .then(|| eval.filter.line(theme, width))
            .into_iter()
            .collect(),
        empty: vec![theme.line(nothing, Role::Faint)],
        ..Content::titled(title).list(List::new(eval.shown.len(), eval.cursor, line))
    }
}

fn row(
    eval: &Eval,
    shared: &Shared,
    versus: &Versus,
    prompt: &ComparedPrompt,
    width: usize,
) -> Line<'static> {
    let theme = &shared.theme;
    let (mark, role) = mark(eval.outcome(versus, prompt));
    let id = if prompt.sample == 0 {
        prompt.prompt_id.clone()
    } else {
        format!("{}#{}", prompt.prompt_id, prompt.sample + 1)
    };
    let mut spans = vec![
        theme.span(format!("{mark} "), role),
        Span::raw(padded(&id, 10.max(width.saturating_sub(26).min(24)), false)),
    ];
    for (place, _) in versus.evals.iter().enumerate() {
        let record = versus.record(prompt, place);
        let tier = record.map_or(TierOutcome::NotScored, EvalRecord::outcome);
        spans.push(theme.span(
            format!(" {}", theme.tier_glyph(tier)),
            Theme::tier_role(tier),
        ));
        let exact = match record.and_then(|record| record.exact) {
            Some(true) => "=",
            Some(false) => "≠",
            None => " ",
        };
        spans.push(theme.span(exact, Role::Faint));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    let tags = versus
        .record(prompt, 0)
        .map_or_else(String::new, |record| record.tags.join(" "));
    let comment = versus.comment(&prompt.prompt_id);
    let (text, role) = if comment.is_empty() {
        (tags, Role::Faint)
    } else {
        (format!("✎ {comment}"), Role::Marked)
    };
    spans.push(theme.span(
        format!(" {}", fitted(&text, width.saturating_sub(used + 2))),
        role,
    ));
    Line::from(spans)
}

pub(super) fn mark(outcome: Option<Outcome>) -> (&'static str, Role) {
    match outcome {
        Some(Outcome::Fixed) => ("+", Role::Good),
        Some(Outcome::Broken) => ("-", Role::Bad),
        Some(Outcome::Both) => ("=", Role::Faint),
        Some(Outcome::Neither) => ("x", Role::Warning),
        None => (" ", Role::Faint),
    }
}
