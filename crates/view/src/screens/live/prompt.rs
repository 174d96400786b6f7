//! One prompt over the run: its groups at the steps that sampled it, and the prompt as the model read it.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::frame::framed;
use super::group_rows::{self, Row};
use super::{Live, PROMPT, completion, groups};
use crate::advantage::mean_and_deviation;
use crate::followed_run::FollowedRun;
use crate::format::counted;
use crate::pane::content::Content;
use crate::run::GROUP_STEPS_KEPT;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::text_width::one_line;

pub(super) fn content<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let theme = &shared.theme;
    let rows = group_rows::rows_of_step(live, shared, live.at(run));
    let row = live.group.at(rows.len()).and_then(|index| rows.get(index));
    let title = row.map_or_else(
        || "prompt".to_owned(),
        |row| format!("{} across steps", one_line(&row.prompt_id)),
    );
    let content = framed(shared, PROMPT, title);
    let Some(row) = row else { return content };
    let found = across(run, row);
    let mut lines: Vec<Line<'static>> = Vec::new();
    let room = (inside.height as usize).saturating_sub(4).max(1);
    for (step, rows_of_step) in found.iter().rev().take(room).rev() {
        let (mean, _) = mean_and_deviation(&rows_of_step.rewards);
        let here = if *step == live.at(run) { "▸" } else { " " };
        let mut spans = vec![Span::raw(format!("{here}step {step:>5} "))];
        spans.extend(groups::tiers(
            theme,
            &rows_of_step.tiers,
            1,
            (inside.width as usize).saturating_sub(19),
            None,
        ));
        spans.push(Span::raw(format!(" {mean:.2}")));
        lines.push(Line::from(spans));
    }
    let times = if found.len() < 2 {
        "once".to_owned()
    } else {
        format!("{} times", found.len())
    };
    // As many steps as the run has, up to those whose groups are kept.
    let text = match run.history.last_step {
        last if last > GROUP_STEPS_KEPT as u64 => {
            format!("Sampled {times} in the last {GROUP_STEPS_KEPT} steps.")
        }
        last => format!("Sampled {times} in {}.", counted(last as usize, "step")),
    };
    lines.push(Line::styled(text, theme.style(Role::Faint)));
    if let Some(selected) = completion::selected(live, shared) {
        lines.push(Line::styled("Prompt:", theme.style(Role::Faint)));
        let prompt = selected.completion.prompt.as_ref();
        let prompt = prompt.unwrap_or(&selected.group.prompt);
        lines.extend(prompt.lines().map(|line| Line::raw(one_line(line))));
    }
    content.text(inside, lines, live.prompt_top)
}

/// The groups of a row's prompt, by step.
fn across(run: &FollowedRun, row: &Row) -> Vec<(u64, Row)> {
    let of_prompt = |(step, groups): (
        &u64,
        &std::collections::BTreeMap<u64, crate::run::events::Group>,
    )| {
        groups
            .values()
            .find(|group| group.prompt_id == row.prompt_id)
            .map(|group| (*step, group_rows::from_event(group)))
    };
    run.history.groups.iter().filter_map(of_prompt).collect()
}
