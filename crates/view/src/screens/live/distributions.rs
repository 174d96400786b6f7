//! Distributions over a step's groups: advantages, tiers over time, kinds of failure over time.

use std::collections::BTreeMap;

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::frame::framed;
use super::{Live, SIGNAL, failures, group_rows};
use crate::followed_run::FollowedRun;
use crate::format::{or_na, percent_short, shortened};
use crate::pane::content::Content;
use crate::score::Tier;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::bars::{bars, counts, sparkline};
use crate::widgets::stacked_bar::{Band, stack};

pub(super) fn content<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let (columns, rows) = (inside.width as usize, inside.height as usize);
    let advantages = if rows >= 3 {
        advantage_lines(live, shared, run, columns, if rows >= 12 { 2 } else { 1 })
    } else {
        Vec::new()
    };
    let parts = part_lines(live, shared, run, columns, rows.saturating_sub(4) / 4);
    let room = rows.saturating_sub(advantages.len() + parts.len());
    let failing = failure_lines(live, shared, run, columns, room.saturating_sub(3) / 2);
    let mut lines = tier_lines(
        live,
        shared,
        run,
        columns,
        room.saturating_sub(failing.len()),
    );
    lines.extend(failing);
    lines.extend(parts);
    lines.extend(advantages);
    framed(shared, SIGNAL, "tiers, failures, advantages").fixed(lines)
}

/// The shares of the tiers as stacked bars, with the shares at the selected step.
fn tier_lines(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    if rows == 0 {
        return Vec::new();
    }
    let at = live.at(run);
    let series = |tier: Tier| run.history.metrics.get(&format!("tiers/{}", tier.name()));
    let falling = || Tier::ALL.into_iter().rev();
    let head = {
        let parts = falling().flat_map(|tier| {
            let share = or_na(series(tier).and_then(|series| series.at(at)), percent_short);
            let sign = Span::styled(
                format!("{} ", theme.tier_glyph(tier)),
                theme.style(Theme::tier_role(tier)),
            );
            [sign, Span::raw(format!("{} {} ", tier.name(), share))]
        });
        Line::from(parts.collect::<Vec<_>>())
    };
    let bands: Vec<Band<'_>> = falling()
        .map(|tier| Band {
            series: series(tier),
            sign: theme.tier_glyph(tier),
            role: Theme::tier_role(tier),
        })
        .collect();
    let (first, last) = live.view.steps(live.last(run));
    let mut lines = vec![head];
    lines.extend(stack(
        theme,
        &bands,
        (first.max(1), last),
        columns,
        rows - 1,
    ));
    lines
}

/// The most frequent kinds of failure: a curve and the share at the selected step.
fn failure_lines(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
    most: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let (_, last) = live.view.steps(live.last(run));
    let shares = failures::shares(live, run, last, 60);
    let mut sums: Vec<(&str, &Vec<f64>, f64)> = shares
        .iter()
        .map(|(name, values)| {
            (
                *name,
                values,
                values.iter().filter(|value| value.is_finite()).sum(),
            )
        })
        .collect();
    sums.retain(|(_, _, sum)| *sum > 0.0);
    sums.sort_by(|a, b| b.2.total_cmp(&a.2));
    if sums.is_empty() {
        let text = if run.history.last_step == 0 {
            ""
        } else {
            "no failures in the steps shown"
        };
        return vec![Line::styled(text, theme.style(Role::Faint)); usize::from(most > 0)];
    }
    let line = |(name, values, _): (&str, &Vec<f64>, f64)| {
        let curve = sparkline(theme, values, columns.saturating_sub(20), Some((0.0, 1.0)));
        let now = values.last().copied().unwrap_or(f64::NAN);
        let share = percent_short(now);
        Line::from(vec![
            Span::raw(format!("{name:<11} {share:>6} ")),
            Span::styled(curve, theme.style(Role::Invalid)),
        ])
    };
    sums.into_iter().take(most).map(line).collect()
}

/// A histogram of each weighted part of the reward, from 0 to 1, with its mean: the step's completions.
fn part_lines(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
    most: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let Some(Ok(groups)) = live.rollouts.at_step(live.at(run)) else {
        return Vec::new();
    };
    let scores = groups
        .iter()
        .flat_map(|group| &group.completions)
        .filter_map(|completion| completion.score.as_ref());
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in scores
        .flat_map(|score| score.parts.iter())
        .filter(|(name, _)| *name != "tier")
    {
        values.entry(name).or_default().push(*value);
    }
    let bins = columns.saturating_sub(23).clamp(3, 31);
    let line = |(name, values): (&str, Vec<f64>)| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let bar = bars(theme, &counts(values, 0.0, 1.0, bins), 1).concat();
        Line::from(vec![
            Span::raw(format!("{} ", shortened(&format!("{name:<11}"), 11))),
            Span::styled(bar, theme.style(Role::SeriesTwo)),
            Span::raw(format!(" mean {mean:.2}")),
        ])
    };
    values.into_iter().take(most).map(line).collect()
}

/// A histogram of the step's advantages.
fn advantage_lines(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let step = live.at(run);
    let all: Vec<f64> = group_rows::rows_of_step(live, shared, step)
        .iter()
        .flat_map(|row| row.advantages.clone())
        .filter(|value| value.is_finite())
        .collect();
    let widest = all
        .iter()
        .fold(0.0, |widest: f64, value| widest.max(value.abs()));
    if all.is_empty() || widest == 0.0 {
        let text = if all.is_empty() {
            ""
        } else {
            "advantages: all 0 (zero-variance groups only)"
        };
        return vec![Line::styled(text, theme.style(Role::Faint))];
    }
    let (low, high) = (
        all.iter().copied().fold(f64::INFINITY, f64::min),
        all.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    );
    let range = format!(" {low:+.2} to {high:+.2}");
    let bins = columns.saturating_sub(12 + range.len()).clamp(3, 31) | 1;
    let bars = bars(theme, &counts(all, -widest, widest, bins), rows);
    let count = bars.len();
    let line = |(index, bar): (usize, String)| {
        let (before, after) = if index + 1 == count {
            ("advantages ", range.clone())
        } else {
            ("           ", String::new())
        };
        Line::from(vec![
            Span::raw(before),
            Span::styled(bar, theme.style(Role::SeriesOne)),
            Span::raw(after),
        ])
    };
    bars.into_iter().enumerate().map(line).collect()
}
