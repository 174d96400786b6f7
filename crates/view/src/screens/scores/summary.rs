//! Summary of all completions: tiers, rates with 95% CI, kinds of failure, and the effect of the
//! schema on the run.

use std::collections::BTreeMap;

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::scoring::{Impact, ScoredItems, sum};
use super::{RescoreJob, Scores, Source, source};
use crate::format::{counted, percent_short};
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
    let is_rescored = rows_of_changes(scores) > 0;
    if scores.source == Source::Step && is_rescored {
        run(scores, shared, columns, &mut lines);
    }
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
    match scores.source {
        Source::Step if is_rescored => steps(scores, shared, &mut lines),
        Source::Step => run(scores, shared, columns, &mut lines),
        _ => {}
    }
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
    let since = if scores.source == Source::Step {
        "since recorded"
    } else {
        "by the last edit"
    };
    let text = format!(
        "{} of {} rows changed {since}: {}",
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
        shared.key_of("scores.changed")
    );
    let line = |role: Role| move |text: String| theme.line(text, role);
    let head = wrapped(&text, columns).into_iter().map(line(Role::Accent));
    head.chain(wrapped(&rows, columns).into_iter().map(line(Role::Faint)))
        .collect()
}

const CHANGED_ROWS: usize = 4;

/// Rows of the pane needed for the complete re-scoring result; 0 if nothing changed.
pub(super) fn rows_of_changes(scores: &Scores) -> u16 {
    let of_run = scores
        .whole
        .as_ref()
        .map_or(&scores.impacts, |whole| &whole.impacts);
    let run = scores.source == Source::Step
        && of_run
            .iter()
            .any(|one| one.rewards + one.tiers + one.signs > 0);
    let rows = scores.moved.iter().any(Option::is_some);
    match (run, rows) {
        (true, _) => 26,
        (false, true) => 16,
        (false, false) => 0,
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

fn run(scores: &Scores, shared: &Shared, columns: usize, lines: &mut Vec<Line<'static>>) {
    let theme = &shared.theme;
    let (title, impacts, notes) = match &scores.whole {
        Some(whole) => {
            let (title, notes) = whole_run_text(shared, whole);
            (title, &whole.impacts, notes)
        }
        None if source::is_own(scores, shared) => (
            format!(
                "the run's own task on its last {} steps",
                scores.impacts.len()
            ),
            &scores.impacts,
            Vec::new(),
        ),
        None => {
            let steps = scores.impacts.len();
            (
                format!("this {} on the last {steps} steps", shared.draft.name()),
                &scores.impacts,
                vec![format!(
                    "{} re-scores the whole run",
                    shared.key_of("scores.rescore_run")
                )],
            )
        }
    };
    let all = sum(impacts);
    lines.push(theme.line(title, Role::Title));
    lines.extend(notes.into_iter().map(|note| theme.line(note, Role::Faint)));
    if all.completions == 0 {
        lines.push(theme.line("no stored completions", Role::Faint));
    } else if all.rewards + all.tiers + all.signs == 0 {
        lines.push(Line::from(format!(
            "no change: {} rewards and advantages as recorded",
            all.completions
        )));
    } else {
        lines.push(theme.line(
            format!("{:<13}{:>9}{:>9}", "tier", "recorded", "now"),
            Role::Faint,
        ));
        for tier in Tier::ALL.into_iter().rev() {
            let (before, now) = (all.before[tier as usize], all.after[tier as usize]);
            let name = format!("{} {:<11}", theme.tier_glyph(tier), tier.name());
            let change = if before == now {
                String::new()
            } else {
                format!("  {:+}", now as i64 - before as i64)
            };
            lines.push(Line::from(vec![
                theme.span(name, Theme::tier_role(tier)),
                Span::raw(format!("{before:>9}{now:>9}")),
                theme.span(change, Role::Accent),
            ]));
        }
        let counts = [
            (all.rewards, "rewards change"),
            (all.tiers, "tiers change"),
            (all.signs, "advantages change sign"),
        ];
        let share = |count: usize| percent_short(count as f64 / all.completions as f64);
        let counts = counts.map(|(count, what)| format!("{count} {what} ({})", share(count)));
        let text = format!(
            "of {} {}; zero-variance groups that become mixed: {}, mixed that become zero-variance: {}",
            counted(all.completions, "completion"),
            counts.join(", "),
            all.revived,
            all.silenced
        );
        lines.extend(wrapped(&text, columns).into_iter().map(Line::from));
    }
}

fn steps(scores: &Scores, shared: &Shared, lines: &mut Vec<Line<'static>>) {
    let impacts = scores
        .whole
        .as_ref()
        .map_or(&scores.impacts, |whole| &whole.impacts);
    let changed = impacts
        .iter()
        .rev()
        .filter(|one| one.rewards + one.tiers + one.signs > 0);
    let heading = format!(
        "  step   rewards   tiers   signs   {} next",
        shared.key_of("scores.next_changed")
    );
    lines.push(shared.theme.line(heading, Role::Faint));
    lines.extend(changed.map(|one| table_row(&shared.theme, one)));
}

fn table_row(theme: &Theme, one: &Impact) -> Line<'static> {
    theme.line(
        format!(
            "{:>6} {:>9} {:>7} {:>7}",
            one.step, one.rewards, one.tiers, one.signs
        ),
        Role::Text,
    )
}

fn whole_run_text(shared: &Shared, whole: &RescoreJob) -> (String, Vec<String>) {
    let scored = whole.impacts.len();
    let title = match (whole.is_done, whole.cancel.is_cancelled()) {
        (true, _) => format!(
            "this {} on the whole run, {scored} stored steps",
            shared.draft.name()
        ),
        (false, true) => format!("cancelled after {scored} of {} steps", whole.steps),
        (false, false) => {
            format!(
                "scoring: {scored} of {} steps; {} cancels",
                whole.steps,
                shared.key_of("scores.cancel")
            )
        }
    };
    let mut notes = Vec::new();
    if whole.version != shared.draft.version {
        let (name, key) = (shared.draft.name(), shared.key_of("scores.rescore_run"));
        notes.push(format!("stale: {name} changed; {key} re-scores the run"));
    }
    notes.extend(whole.error.clone());
    (title, notes)
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
