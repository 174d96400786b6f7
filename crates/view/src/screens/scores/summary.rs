//! Summary of all completions: tiers, rates with 95% CI, kinds of failure.

use std::collections::BTreeMap;

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::Scores;
use super::scoring::ScoredItems;
use crate::format::percent_short;
use crate::score::{Score, Tier};
use crate::shared::Shared;
use crate::statistics::wilson_by_prompt;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::bars::gauge;
use crate::widgets::text_width::wrapped;

pub(super) fn lines(scores: &Scores, shared: &Shared, columns: usize) -> Vec<Line<'static>> {
    let Some(scored) = &scores.scored else {
        return Vec::new();
    };
    let theme = &shared.theme;
    let faint = |text: String| theme.line(text, Role::Faint);
    let tally = &scored.tally;
    let mut lines = Vec::new();
    let has_moved = scores.moved.iter().any(Option::is_some);
    // Leaves space for the previous count.
    let gauge_columns = columns
        .saturating_sub(if has_moved { 40 } else { 30 })
        .clamp(4, 24);
    if tally.all == 0 {
        lines.push(faint("no completions scored".to_owned()));
    }
    for tier in Tier::ALL.into_iter().rev().filter(|_| tally.all > 0) {
        let count = tally.tiers[tier as usize];
        let share = count as f64 / tally.all as f64;
        lines.push(Line::from(vec![
            theme.span(
                format!("{} {:<11}", theme.tier_glyph(tier), tier.name()),
                Theme::tier_role(tier),
            ),
            theme.span(gauge(theme, share, gauge_columns), Theme::tier_role(tier)),
            Span::raw(format!(" {count:>5} {:>6}", percent_short(share))),
            theme.span(
                if has_moved {
                    was(scores, scored, tier)
                } else {
                    String::new()
                },
                Role::Accent,
            ),
        ]));
    }
    lines.extend(changed(scores, shared, scored, columns));
    lines.push(rate(
        theme,
        "valid",
        &by_prompt(scored, |score| Some(score.tier == Tier::Valid)),
        columns,
    ));
    lines.push(rate(
        theme,
        "valid after unwrapping",
        &by_prompt(scored, |score| Some(score.tolerant)),
        columns,
    ));
    if tally.exact.1 > 0 {
        lines.push(rate(
            theme,
            "exact",
            &by_prompt(scored, |score| score.exact),
            columns,
        ));
    }
    let failures: Vec<String> = tally
        .failures
        .iter()
        .map(|(class, count)| format!("{} {count}", class.name()))
        .collect();
    match failures.is_empty() {
        true if tally.all == 0 => {}
        true => lines.push(faint("no failures".to_owned())),
        false => lines.push(faint(format!("failures: {}", failures.join(", ")))),
    }
    groups(theme, scored, &mut lines);
    lines
}

/// A tier's count before the schema's change.
fn was(scores: &Scores, scored: &ScoredItems, tier: Tier) -> String {
    let before = scored.scores.iter().enumerate();
    let before = before.map(|(place, score)| {
        scores
            .moved
            .get(place)
            .copied()
            .flatten()
            .unwrap_or(score.tier)
    });
    format!("  was {}", before.filter(|before| *before == tier).count())
}

/// Rows whose tier changed: counts by transition, and ids.
fn changed(
    scores: &Scores,
    shared: &Shared,
    scored: &ScoredItems,
    columns: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let moves = || {
        let rows = scored.items.all.iter().zip(&scored.scores).enumerate();
        rows.filter_map(|(place, (item, score))| {
            Some((place, item, scores.moved.get(place).copied()??, score.tier))
        })
    };
    let mut ways: BTreeMap<(Tier, Tier), usize> = BTreeMap::new();
    moves().for_each(|(_, _, before, now)| *ways.entry((before, now)).or_default() += 1);
    if ways.is_empty() {
        return Vec::new();
    }
    let way = |((before, now), count): (&(Tier, Tier), &usize)| {
        format!("{} → {} {count}", before.name(), now.name())
    };
    let ways: Vec<String> = ways.iter().map(way).collect();
    let text = format!(
        "{} of {} rows changed by the last edit: {}",
        moves().count(),
        scored.scores.len(),
        ways.join(", ")
    );
    let row = |(place, item, ..): (usize, &super::items::Item, Tier, Tier)| {
        let members = scored
            .groups
            .get(item.group)
            .map_or(&[][..], |group| group.members.as_slice());
        let number = members.binary_search(&place).map_or(0, |number| number + 1);
        let name = scored
            .items
            .groups
            .get(item.group)
            .map_or("", String::as_str);
        if members.len() > 1 {
            format!("{name} #{number}")
        } else {
            name.to_owned()
        }
    };
    let rows: Vec<String> = moves().take(CHANGED_ROWS).map(row).collect();
    let more = moves().count().saturating_sub(CHANGED_ROWS);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let rows = format!(
        "{}{more}; {} lists them",
        rows.join(", "),
        shared.key_of("scores.only")
    );
    let line = |role: Role| move |text: String| theme.line(text, role);
    let head = wrapped(&text, columns).into_iter().map(line(Role::Accent));
    head.chain(wrapped(&rows, columns).into_iter().map(line(Role::Faint)))
        .collect()
}

const CHANGED_ROWS: usize = 4;

/// Rows of the pane needed for the complete re-scoring result; 0 if nothing changed.
pub(super) fn rows_of_changes(scores: &Scores) -> u16 {
    if scores.moved.iter().any(Option::is_some) {
        16
    } else {
        0
    }
}

/// For each prompt, its completions with the property and all its completions.
fn by_prompt(scored: &ScoredItems, holds: fn(&Score) -> Option<bool>) -> Vec<(usize, usize)> {
    let mut prompts: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    for (place, (item, score)) in scored.items.all.iter().zip(&scored.scores).enumerate() {
        let Some(holds) = holds(score).filter(|_| !score.is_error()) else {
            continue;
        };
        // Completions without a prompt are a separate group.
        let is_of_prompt = scored
            .items
            .groups
            .get(item.group)
            .is_some_and(|name| !name.is_empty());
        let (count, all) = prompts
            .entry((item.group, if is_of_prompt { 0 } else { place }))
            .or_default();
        *count += usize::from(holds);
        *all += 1;
    }
    prompts.into_values().collect()
}

/// A rate with its 95% CI, clustered by prompt, and its counts: with labels if there is space,
/// without the interval if there is little.
fn rate(theme: &Theme, name: &str, prompts: &[(usize, usize)], columns: usize) -> Line<'static> {
    let (count, all) = prompts.iter().fold((0, 0), |(count, all), (found, of)| {
        (count + found, all + of)
    });
    if all == 0 {
        return Line::raw(format!("{name:<9}{:>6}", "n/a"));
    }
    let head = format!("{name:<9}{:>6}", percent_short(count as f64 / all as f64));
    if prompts.len() == 1 {
        let details = [
            format!("  one prompt: no interval, {count} of {all}"),
            format!("  {count}/{all}"),
        ];
        return fitting(theme, head, details, columns);
    }
    let (low, high) = wilson_by_prompt(prompts);
    let (low, high) = (percent_short(low), percent_short(high));
    let details = [
        format!("  95% CI {low} to {high}, {count} of {all}"),
        format!("  {low} to {high}  {count}/{all}"),
        format!("  {count}/{all}"),
    ];
    fitting(theme, head, details, columns)
}

/// A heading with the first of the details that fits next to it.
fn fitting<const N: usize>(
    theme: &Theme,
    head: String,
    details: [String; N],
    columns: usize,
) -> Line<'static> {
    let fits = |details: &String| head.width() + details.width() <= columns;
    let details = details.into_iter().find(fits).unwrap_or_default();
    Line::from(vec![Span::raw(head), theme.span(details, Role::Faint)])
}

fn groups(theme: &Theme, scored: &ScoredItems, lines: &mut Vec<Line<'static>>) {
    use crate::advantage::GroupSignal;
    let several: Vec<_> = scored
        .groups
        .iter()
        .filter(|group| group.members.len() > 1)
        .collect();
    if several.is_empty() {
        return;
    }
    let count = |state| several.iter().filter(|group| group.state == state).count();
    let text = format!(
        "groups: {} mixed, {} all max, {} all min, {} all equal",
        count(GroupSignal::Mixed),
        count(GroupSignal::AllMax),
        count(GroupSignal::AllMin),
        count(GroupSignal::AllEqual)
    );
    lines.push(theme.line(text, Role::Faint));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_prompt_has_no_interval() {
        let text =
            |prompts: &[(usize, usize)]| rate(&Theme::default(), "valid", prompts, 60).to_string();
        assert_eq!(
            text(&[(0, 8)]),
            "valid        0%  one prompt: no interval, 0 of 8"
        );
        assert!(
            text(&[(0, 8), (8, 8)]).contains("95% CI"),
            "{}",
            text(&[(0, 8), (8, 8)])
        );
    }
}
