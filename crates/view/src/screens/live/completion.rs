//! The selected completion: its text with underlined violations, its stop reason, its reward, and its advantage with
//! the formula filled in.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::frame::framed;
use super::{COMPLETION, Live, group_rows};
use super::{Completion, SampledGroup};
use crate::advantage::{Advantage, explain};
use crate::facts::{StopReason, TierOutcome};
use crate::followed_run::FollowedRun;
use crate::format::counted;
use crate::pane::content::Content;
use crate::score::Score;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::conversation::{Conversation, parts};
use crate::widgets::grounded;
use crate::widgets::json::{self, Fault};
use crate::widgets::text_width::one_line;

#[derive(Clone, Copy)]
pub(super) struct SelectedCompletion<'a> {
    pub(super) group: &'a SampledGroup,
    pub(super) completion: &'a Completion,
    /// Index of the completion in its group.
    member: usize,
}

/// `None` while the texts are read, or if there are none.
pub(super) fn selected<'a>(live: &'a Live, shared: &Shared) -> Option<SelectedCompletion<'a>> {
    let run = shared.current_run()?;
    let groups = live.rollouts.at_step(live.at(run))?.as_ref().ok()?;
    let group = groups.get(live.group.at(groups.len())?)?;
    let member = live.member.at(group.completions.len())?;
    Some(SelectedCompletion {
        group,
        completion: group.completions.get(member)?,
        member,
    })
}

pub(super) fn content<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let theme = &shared.theme;
    let step = live.at(run);
    let found = selected(live, shared);
    let title = match found {
        Some(SelectedCompletion { group, member, .. }) => {
            let (id, count) = (one_line(&group.prompt_id), group.completions.len());
            match count {
                1 => id,
                _ => format!("{id} {} of {count}", member + 1),
            }
        }
        None => "completion".to_owned(),
    };
    let lines = match found {
        Some(selected) => lines(live, shared, run, selected, inside.width.into()),
        None => vec![Line::styled(nothing(live, step), theme.style(Role::Faint))],
    };
    framed(shared, COMPLETION, title).text(inside, lines, live.completion_top)
}

fn nothing(live: &Live, step: u64) -> String {
    match live.rollouts.at_step(step) {
        _ if step == 0 => "No completions before the first step.".to_owned(),
        Some(Err(error)) => format!("cannot read completions of step {step}: {error}"),
        Some(Ok(_)) => format!("Completions of step {step} were not stored."),
        None => "loading ...".to_owned(),
    }
}

fn lines(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    SelectedCompletion {
        completion, member, ..
    }: SelectedCompletion<'_>,
    width: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let kind = run
        .directory
        .as_ref()
        .map_or(Advantage::Standardized, |run| run.file().config.advantage);
    let rows = group_rows::rows_of_step(live, shared, live.at(run));
    let row = live.group.at(rows.len()).and_then(|index| rows.get(index));
    let mut lines = vec![head(theme, completion)];
    if let Some((row, reward)) = row.and_then(|row| Some((row, *row.rewards.get(member)?))) {
        let advantage = row.advantages.get(member).copied().unwrap_or(0.0);
        let text = format!(
            "advantage {}",
            explain(&row.rewards, reward, advantage, kind)
        );
        lines.push(Line::styled(text, theme.style(Role::Faint)));
    }
    let score = completion.score.as_ref();
    let errors = score
        .map(|score| score.errors.as_slice())
        .unwrap_or_default();
    let faults: Vec<Fault> = errors
        .iter()
        .map(|reason| Fault {
            line: reason.line,
            column: reason.column,
        })
        .collect();
    let answer = json::lines(theme, &completion.text, &faults);
    let talk = completion.chain.as_ref().map(|chain| Conversation {
        chain,
        call_seconds: row
            .and_then(|row| row.call_seconds.get(member))
            .map(Vec::as_slice)
            .unwrap_or_default(),
        tokens: Some(completion.tokens),
        is_whole: shared.whole_results,
        whole_key: shared.key_of("live.results"),
        width,
    });
    let reasons = score.map_or_else(Vec::new, |score| reasons(theme, score));
    match talk {
        // A conversation is long: why it scores as it does is above it.
        Some(talk) => {
            let own = score.into_iter().flat_map(|score| score.parts.iter());
            lines.extend(parts(theme, own.map(|(name, value)| (name, *value)), width));
            lines.extend(reasons);
            lines.extend(
                [
                    talk.summary(theme),
                    talk.turns(theme),
                    answer,
                    talk.rest(theme),
                ]
                .concat(),
            );
            lines.extend(grounded(theme, score));
        }
        None => lines.extend([answer, grounded(theme, score), reasons].concat()),
    }
    lines
}

fn grounded(theme: &Theme, score: Option<&Score>) -> Vec<Line<'static>> {
    grounded::lines(
        theme,
        score
            .map(|score| score.grounded.as_slice())
            .unwrap_or_default(),
    )
}

/// Violations, warnings, and values that differ from the expected ones.
fn reasons(theme: &Theme, score: &Score) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for reason in &score.errors {
        let place = if reason.instance_path.is_empty() {
            String::new()
        } else {
            format!("{}: ", one_line(&reason.instance_path))
        };
        let message = one_line(&reason.message);
        let text = format!(
            "✗ line {}, column {}: {place}{message}",
            reason.line, reason.column
        );
        lines.push(Line::styled(text, theme.style(Role::Bad)));
    }
    lines.extend(
        score
            .warnings
            .iter()
            .map(|warning| Line::styled(one_line(warning), theme.style(Role::Warning))),
    );
    let fields = score.fields.iter().flat_map(|fields| fields.iter());
    let wrong: Vec<String> = fields
        .filter(|(_, equal)| !**equal)
        .map(|(name, _)| one_line(name))
        .collect();
    if !wrong.is_empty() {
        lines.push(Line::styled(
            format!("mismatch: {}", wrong.join(", ")),
            theme.style(Role::Warning),
        ));
    }
    lines
}

/// Tier, reward, tokens and stop reason, in one line.
fn head(theme: &Theme, completion: &Completion) -> Line<'static> {
    let tier = completion
        .score
        .as_ref()
        .map_or(TierOutcome::NotScored, crate::score::Score::outcome);
    let reward = completion
        .reward
        .map_or_else(|| "none".to_owned(), |reward| format!("{reward:.2}"));
    let cut = completion.stop_reason.is_truncated();
    let stopped = match completion.stop_reason {
        StopReason::Length => "truncated",
        StopReason::Thinking => "truncated while thinking",
        other => other.name(),
    };
    let exact = match completion.score.as_ref().and_then(|score| score.exact) {
        Some(true) => "  exact",
        _ => "",
    };
    Line::from(vec![
        Span::styled(
            format!("{} {tier}", theme.tier_glyph(tier)),
            theme.style(Theme::tier_role(tier)),
        ),
        Span::raw(format!(
            "  reward {reward}  {}  ",
            counted(completion.tokens, "token")
        )),
        Span::styled(
            stopped,
            theme.style(if cut { Role::Warning } else { Role::Text }),
        ),
        Span::styled(exact, theme.style(Role::Good)),
    ])
}
