//! The summary of all completions: tiers, strict and tolerant rates with 95% CI, kinds of failure, and the effect of
//! the schema on the run.

use std::collections::BTreeMap;

use ratatui::text::{Line, Span};

use super::scoring::{Impact, Scored, sum};
use super::{RescoreJob, Scores, Source};
use crate::format::percent_short;
use crate::run::sha256;
use crate::score::{Score, Tier};
use crate::statistics::wilson_by_prompt;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::bars::gauge;
use crate::view::widgets::text_width::wrapped;

/// The lines, for a width of columns.
pub(super) fn lines(scores: &Scores, shared: &Shared, columns: usize) -> Vec<Line<'static>> {
    let Some(scored) = &scores.scored else { return Vec::new() };
    let theme = &shared.theme;
    let faint = |text: String| Line::styled(text, theme.style(Role::Faint));
    let tally = &scored.tally;
    let mut lines = Vec::new();
    for tier in Tier::ALL.into_iter().rev() {
        let count = tally.tiers[tier as usize];
        let share = count as f64 / tally.all.max(1) as f64;
        lines.push(Line::from(vec![
            Span::styled(
                format!("{} {:<11}", theme.tier_glyph(tier.name()), tier.name()),
                theme.style(Theme::tier_role(tier.name())),
            ),
            Span::styled(
                gauge(theme, share, columns.saturating_sub(30).clamp(4, 24)),
                theme.style(Theme::tier_role(tier.name())),
            ),
            Span::raw(format!(" {count:>5} {:>6}", percent_short(share))),
        ]));
    }
    lines.push(rate(theme, "strict", &by_prompt(scored, |score| Some(score.tier == Tier::Valid)), columns));
    lines.push(rate(theme, "unwrapped", &by_prompt(scored, |score| Some(score.tolerant)), columns));
    if tally.exact.1 > 0 {
        lines.push(rate(theme, "exact", &by_prompt(scored, |score| score.exact), columns));
    }
    let failures: Vec<String> =
        tally.failures.iter().map(|(class, count)| format!("{} {count}", class.name())).collect();
    lines.push(faint(if failures.is_empty() {
        "no failures".to_owned()
    } else {
        format!("failures: {}", failures.join(", "))
    }));
    groups(theme, scored, &mut lines);
    if scores.source == Source::Step {
        run(scores, shared, columns, &mut lines);
    }
    lines
}

/// How many completions of each prompt have the property, and of how many.
fn by_prompt(scored: &Scored, holds: fn(&Score) -> Option<bool>) -> Vec<(usize, usize)> {
    let mut prompts: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    for (place, (item, score)) in scored.items.all.iter().zip(&scored.scores).enumerate() {
        let Some(holds) = holds(score) else { continue };
        // Completions without a prompt are their own group.
        let is_of_prompt = scored.items.groups.get(item.group).is_some_and(|name| !name.is_empty());
        let (count, all) = prompts.entry((item.group, if is_of_prompt { 0 } else { place })).or_default();
        *count += usize::from(holds);
        *all += 1;
    }
    prompts.into_values().collect()
}

/// A rate with its 95% CI, clustered by prompt, with labels if there is room.
fn rate(theme: &Theme, name: &str, prompts: &[(usize, usize)], columns: usize) -> Line<'static> {
    let (count, all) = prompts.iter().fold((0, 0), |(count, all), (found, of)| (count + found, all + of));
    let (low, high) = wilson_by_prompt(prompts);
    let interval = match columns {
        44.. => format!("  95% CI {} to {}, {count} of {all}", percent_short(low), percent_short(high)),
        _ => format!("  {} to {}  {count}/{all}", percent_short(low), percent_short(high)),
    };
    Line::from(vec![
        Span::raw(format!("{name:<9}{:>6}", percent_short(count as f64 / all.max(1) as f64))),
        Span::styled(interval, theme.style(Role::Faint)),
    ])
}

fn groups(theme: &Theme, scored: &Scored, lines: &mut Vec<Line<'static>>) {
    use crate::advantage::GroupSignal;
    let several: Vec<_> = scored.groups.iter().filter(|group| group.members.len() > 1).collect();
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
    lines.push(Line::styled(text, theme.style(Role::Faint)));
}

fn run(scores: &Scores, shared: &Shared, columns: usize, lines: &mut Vec<Line<'static>>) {
    let theme = &shared.theme;
    lines.push(Line::default());
    let (title, impacts, notes) = match &scores.whole {
        Some(whole) => {
            let (title, notes) = of_whole(shared, whole);
            (title, &whole.impacts, notes)
        }
        None => {
            let steps = scores.impacts.len();
            (
                format!("this schema on the last {steps} steps"),
                &scores.impacts,
                vec![format!("{} re-scores the whole run", shared.key_of("scores.rescore_run"))],
            )
        }
    };
    let all = sum(impacts);
    let warning = other_task(shared).map(|text| wrapped(&text, columns)).unwrap_or_default();
    lines.extend(warning.into_iter().map(|text| Line::styled(text, theme.style(Role::Warning))));
    lines.push(Line::styled(title, theme.style(Role::Title)));
    lines.extend(notes.into_iter().map(|note| Line::styled(note, theme.style(Role::Faint))));
    if all.completions == 0 {
        lines.push(Line::styled("no stored completions", theme.style(Role::Faint)));
    } else if all.rewards + all.tiers + all.signs == 0 {
        lines.push(Line::from(format!("no change: {} rewards and advantages as recorded", all.completions)));
    } else {
        for (count, of, what) in [
            (all.rewards, all.completions, "rewards change"),
            (all.tiers, all.completions, "tiers change"),
            (all.signs, all.completions, "advantages change sign"),
        ] {
            let role = if count > 0 { Role::Accent } else { Role::Faint };
            let share = percent_short(count as f64 / of as f64);
            lines.push(Line::styled(format!("{count:>6} of {of} {what} ({share})"), theme.style(role)));
        }
        lines.push(Line::from(format!(
            "{:>6} zero-variance groups become mixed, {} mixed become zero-variance",
            all.revived, all.silenced
        )));
        lines.push(Line::styled("  step   rewards   tiers   signs", theme.style(Role::Faint)));
        lines.extend(impacts.iter().rev().filter(|one| one.rewards + one.signs > 0).map(|one| table_row(theme, one)));
    }
}

/// A warning if the run's completions are scored by rules other than the run's.
fn other_task(shared: &Shared) -> Option<String> {
    let file = shared.current_run()?.directory.as_ref()?.file();
    let task = shared.draft.task.as_ref()?;
    if file.task != task.name {
        return Some(format!(
            "run task {} differs from schema task {}: rates are not comparable",
            file.task, task.name
        ));
    }
    let (now, then) = (sha256(task.schema_text.as_bytes()), file.task_files.get(&task.schema_file)?);
    let short = |digest: &str| digest.chars().take(8).collect::<String>();
    (now != *then).then(|| format!("the run's schema is {}, this one is {} (SHA-256)", short(then), short(&now)))
}

fn table_row(theme: &Theme, one: &Impact) -> Line<'static> {
    Line::styled(
        format!("{:>6} {:>9} {:>7} {:>7}", one.step, one.rewards, one.tiers, one.signs),
        theme.style(Role::Text),
    )
}

fn of_whole(shared: &Shared, whole: &RescoreJob) -> (String, Vec<String>) {
    let scored = whole.impacts.len();
    let title = match (whole.is_done, whole.cancel.is_cancelled()) {
        (true, _) => format!("this schema on the whole run, {scored} stored steps"),
        (false, true) => format!("cancelled after {scored} of {} steps", whole.steps),
        (false, false) => {
            format!("scoring: {scored} of {} steps; {} cancels", whole.steps, shared.key_of("scores.cancel"))
        }
    };
    let mut notes = Vec::new();
    if whole.version != shared.draft.version {
        notes.push(format!("stale: schema changed; {} re-scores the run", shared.key_of("scores.rescore_run")));
    }
    notes.extend(whole.error.clone());
    (title, notes)
}
