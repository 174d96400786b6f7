//! Before step 1: the answers of the base, as its eval samples them.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::frame::{framed, legend};
use super::groups::{short_name, tier_entries};
use super::header::eval_under_way;
use super::{GROUPS, Live, SampledGroup};
use crate::facts::TierOutcome;
use crate::followed_run::FollowedRun;
use crate::pane::content::{Content, List};
use crate::report::eval_count;
use crate::score::Score;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;

/// The answers in place of the groups; `None` after step 0, and before the first answer.
pub(super) fn content<'a>(
    live: &'a Live,
    shared: &'a Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Option<Content<'a>> {
    let theme = &shared.theme;
    let answers = live.rollouts.at_step(live.at(run))?.as_ref().ok()?;
    if live.at(run) > 0 || answers.is_empty() {
        return None;
    }
    let title = match eval_under_way(run).filter(|eval| !eval.latest.is_empty()) {
        Some(eval) => format!("{}, newest first", eval_count(eval)),
        None => format!("base answers: {}", answers.len()),
    };
    let columns = usize::from(inside.width);
    let ids = answers.iter().map(|answer| answer.prompt_id.width());
    let width = ids.max().unwrap_or(0).clamp(6, (columns / 2).max(6));
    let line = move |index: usize| row(theme, &answers[index], width);
    let content = Content {
        legend: legend(theme, tier_entries(theme), columns),
        ..framed(shared, GROUPS, title)
    };
    Some(content.list(List {
        mark: 2,
        ..List::new(answers.len(), live.group, line)
    }))
}

/// Tier, prompt and reward of an answer, and whether it is exact.
fn row(theme: &Theme, answer: &SampledGroup, width: usize) -> Line<'static> {
    let Some(completion) = answer.completions.first() else {
        return Line::default();
    };
    let score = completion.score.as_ref();
    let tier = score.map_or(TierOutcome::NotScored, Score::outcome);
    let reward = completion
        .reward
        .map_or_else(String::new, |reward| format!(" {reward:>5.2}"));
    let exact = match score.and_then(|score| score.exact) {
        Some(true) => "  exact",
        _ => "",
    };
    let name = short_name(&answer.prompt_id, width);
    Line::from(vec![
        Span::styled(
            format!("{} ", theme.tier_glyph(tier)),
            theme.style(Theme::tier_role(tier)),
        ),
        Span::raw(format!("{name}{reward}")),
        Span::styled(exact, theme.style(Role::Good)),
    ])
}
