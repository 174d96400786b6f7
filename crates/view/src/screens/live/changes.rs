//! Completions that newly pass or newly fail: of an eval since an earlier one on the same prompts, and of a step's
//! prompts since an earlier step sampled them.

use std::collections::BTreeMap;
use std::path::Path;

use ratatui::text::{Line, Span};

use super::frame::framed;
use super::group_rows::{self, Row};
use super::state::{Change, EvalPair, Standing};
use super::{CHANGES, Live, PROMPT, result};
use crate::facts::TierOutcome;
use crate::followed_run::FollowedRun;
use crate::message::{Command, Work};
use crate::pane::content::{Body, Content, Entries};
use crate::run::events::{Eval, EvalKey};
use crate::run::{EvalRecord, eval_path, read_evals};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::{PromptSet, SetName};
use crate::widgets::text_width::{one_line, wrapped};

/// The prompt of a group with its valid completions then and now, and the number of completions.
struct GroupChange {
    index: usize,
    prompt_id: String,
    step: u64,
    before: (usize, usize),
    now: (usize, usize),
}

/// The evals to compare at the selected step: the latest, and the one before it or at the step to compare with.
fn pair(live: &Live, run: &FollowedRun) -> Option<EvalPair> {
    let at = live.at(run);
    let of_set = |set| {
        let evals = run.history.evals.values();
        let evals = evals.filter(|eval| eval.set == set && eval.step <= at && eval.is_of_trained());
        let steps: BTreeMap<u64, &Eval> = evals.map(|eval| (eval.step, eval)).collect();
        let (last, later) = steps.last_key_value()?;
        let (_, earlier) = steps
            .range(..*last)
            .rfind(|(step, _)| live.changes.since.is_none_or(|since| **step <= since))?;
        Some(EvalPair {
            earlier: earlier.key(),
            later: later.key(),
            resumed: run.history.resumed,
        })
    };
    // Of several tasks the first that has two.
    let tasks = run.history.task_names();
    let mut sets = [PromptSet::Eval, PromptSet::Test]
        .into_iter()
        .flat_map(|set| tasks.iter().map(move |task| SetName::new(set, task)));
    sets.find_map(of_set)
}

/// Reads the evals to compare, unless they are those that were read.
pub(super) fn load(live: &mut Live, shared: &Shared) -> Vec<Command> {
    let Some(run) = shared.current_run().filter(|run| run.loaded) else {
        return Vec::new();
    };
    let found = pair(live, run);
    let is_known = found.is_none()
        || found.as_ref() == live.changes.evals.as_ref().map(|(of, _)| of)
        || (found == live.changes.reading && shared.is_busy("live.changes"));
    let Some(pair) = found.filter(|_| !is_known) else {
        return Vec::new();
    };
    live.changes.reading = Some(pair.clone());
    let of = run.path().to_owned();
    let (path, read) = (of.clone(), pair.clone());
    let read = move |_: &_| changes(&path, &read);
    vec![Work::latest(
        "live.changes",
        read,
        move |live: &mut Live, shared, changes| {
            if shared.current.as_ref() == Some(&of) {
                live.changes.evals = Some((pair, changes));
            }
            Vec::new()
        },
    )]
}

fn changes(run: &Path, pair: &EvalPair) -> Result<Vec<Change>, String> {
    let read = |EvalKey { step, set, target }: &EvalKey| {
        read_evals(&eval_path(run, *step, set, target.name())).map_err(|error| error.to_string())
    };
    Ok(between(&read(&pair.earlier)?, &read(&pair.later)?))
}

/// The completions whose standing differs, matched by prompt and sample; those that got worse first.
fn between(before: &[EvalRecord], after: &[EvalRecord]) -> Vec<Change> {
    let key = |record: &EvalRecord| (record.prompt_id.clone(), record.sample);
    let before: BTreeMap<_, _> = before
        .iter()
        .map(|record| (key(record), Standing::from_record(record)))
        .collect();
    let change = |record: &EvalRecord| {
        let (prompt_id, sample) = key(record);
        let (before, now) = (*before.get(&key(record))?, Standing::from_record(record));
        (before != now).then_some(Change {
            prompt_id,
            sample,
            before,
            now,
        })
    };
    let mut found: Vec<Change> = after.iter().filter_map(change).collect();
    found.sort_by_key(|change| change.now > change.before);
    found
}

/// The groups of the selected step whose prompts an earlier step sampled, as far as groups are in memory.
fn groups(live: &Live, shared: &Shared, run: &FollowedRun) -> Vec<GroupChange> {
    let at = live.at(run);
    let before = live
        .changes
        .since
        .map_or(at, |since| at.min(since.saturating_add(1)));
    let earlier = |row: &Row| {
        run.history
            .groups
            .range(..before)
            .rev()
            .find_map(|(step, groups)| {
                let group = groups
                    .values()
                    .find(|group| group.prompt_name() == row.prompt_id)?;
                Some((*step, passing(&group_rows::from_event(group).tiers)))
            })
    };
    let change = |(index, row): (usize, &Row)| {
        let (step, before) = earlier(row)?;
        Some(GroupChange {
            index,
            prompt_id: row.prompt_id.clone(),
            step,
            before,
            now: passing(&row.tiers),
        })
    };
    group_rows::rows_of_step(live, shared, at)
        .iter()
        .enumerate()
        .filter_map(change)
        .collect()
}

/// Valid completions, and all.
fn passing(tiers: &[TierOutcome]) -> (usize, usize) {
    (
        tiers
            .iter()
            .filter(|tier| **tier == TierOutcome::Valid)
            .count(),
        tiers.len(),
    )
}

fn eval_changes(live: &Live) -> &[Change] {
    match &live.changes.evals {
        Some((_, Ok(changes))) => changes,
        _ => &[],
    }
}

/// Compares with the selected step from now on, or again with the previous one.
pub(super) fn mark_step(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let at = shared.current_run().map(|run| live.at(run));
    live.changes.since = if live.changes.since == at { None } else { at };
    match live.changes.since {
        Some(step) => shared.say(format!("changes are since step {step}: go to a later step")),
        None => shared.say("changes are since the previous eval and the previous sampling"),
    };
    load(live, shared)
}

/// Shows what is under the cursor: both evals on the eval screen, or the prompt over the steps.
pub(super) fn open(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return Vec::new();
    };
    let (evals, groups) = (eval_changes(live).len(), groups(live, shared, run));
    let Some(at) = live.changes.cursor.at(evals + groups.len()) else {
        return Vec::new();
    };
    if let Some(group) = at.checked_sub(evals).and_then(|at| groups.get(at)) {
        live.group.index = group.index;
        live.pane = PROMPT;
        return Vec::new();
    }
    let Some((EvalPair { earlier, later, .. }, _)) = &live.changes.evals else {
        return Vec::new();
    };
    let ids =
        [earlier, later].map(|key| run.history.evals.get(key).map(|eval| result::id(run, eval)));
    vec![
        Command::GoTo(Screen::Eval),
        Command::Compare(ids.into_iter().flatten().collect()),
    ]
}

pub(super) fn content<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
) -> Content<'a> {
    let title = live.changes.since.map_or_else(
        || "changes".to_owned(),
        |step| format!("changes since step {step}"),
    );
    let lines = rows(live, shared, run, columns);
    let entries = Entries {
        lines,
        cursor: live.changes.cursor,
        is_marked: live.pane == CHANGES,
        wraps: false,
    };
    Content {
        body: Body::Entries(entries),
        opens: true,
        ..framed(shared, CHANGES, title)
    }
}

/// A line, with its number if the cursor stops there.
type NumberedLine = (Option<usize>, Line<'static>);

fn rows(live: &Live, shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<NumberedLine> {
    let (evals, groups, step) = (eval_changes(live), groups(live, shared, run), live.at(run));
    let style = shared.theme.style(Role::Title);
    let heading = |text: &str| -> Vec<NumberedLine> {
        wrapped(text, columns)
            .into_iter()
            .map(|text| (None, Line::styled(text, style)))
            .collect()
    };
    let mut rows = heading(&eval_heading(live, run));
    rows.extend(
        evals
            .iter()
            .enumerate()
            .map(|(number, change)| (Some(number), eval_line(shared, change))),
    );
    let first = run.history.groups.keys().next().copied().unwrap_or(step);
    rows.extend(heading(&match groups.len() {
        0 if first >= step => format!("step {step}: no earlier groups in memory"),
        0 if first > 1 => {
            format!("step {step}: none of its prompts sampled before (known from step {first})")
        }
        0 => format!("step {step}: none of its prompts sampled before"),
        _ => format!("step {step}: valid completions since the prompt's earlier step"),
    }));
    let numbered = groups.iter().enumerate();
    rows.extend(
        numbered.map(|(at, group)| (Some(evals.len() + at), group_line(shared, group, step))),
    );
    rows
}

/// The evals that are compared, with the counts.
fn eval_heading(live: &Live, run: &FollowedRun) -> String {
    match (&live.changes.evals, pair(live, run)) {
        (_, None) => "evals: no two on one set up to this step".to_owned(),
        (Some((known, _)), Some(pair)) if *known != pair => "loading ...".to_owned(),
        (None, Some(_)) => "loading ...".to_owned(),
        (Some((_, Err(error))), _) => format!("cannot compare evals: {error}"),
        (Some((EvalPair { earlier, later, .. }, Ok(changes))), _) => {
            let count =
                |is: fn(&Change) -> bool| changes.iter().filter(|change| is(change)).count();
            let valid = |standing| standing >= Standing::Valid;
            let passes = changes
                .iter()
                .filter(|change| valid(change.now) && !valid(change.before))
                .count();
            let fails = changes
                .iter()
                .filter(|change| valid(change.before) && !valid(change.now))
                .count();
            let exact = count(|change| change.now == Standing::Exact);
            let lost = count(|change| change.before == Standing::Exact);
            format!(
                "{} set, step {} to {}: valid +{passes}/-{fails}, exact +{exact}/-{lost}",
                later.set, earlier.step, later.step
            )
        }
    }
}

fn eval_line(shared: &Shared, change: &Change) -> Line<'static> {
    let theme = &shared.theme;
    let Change {
        prompt_id,
        sample,
        before,
        now,
    } = change;
    let (sign, role) = match now > before {
        true => (theme.glyph("▲", "+"), Role::Good),
        false => (theme.glyph("▼", "-"), Role::Bad),
    };
    let sample = if *sample > 0 {
        format!(" sample {}", sample + 1)
    } else {
        String::new()
    };
    let words = match (*before >= Standing::Valid, *now >= Standing::Valid) {
        (false, true) => "  newly passes",
        (true, false) => "  newly fails",
        _ if *before == Standing::Exact => "  no longer exact",
        _ => "",
    };
    Line::from(vec![
        Span::styled(format!("{sign} "), theme.style(role)),
        Span::raw(format!("{}{sample}  ", one_line(prompt_id))),
        Span::styled(
            format!("{} {} {}{words}", before.name(), "→", now.name()),
            theme.style(role),
        ),
    ])
}

fn group_line(shared: &Shared, change: &GroupChange, step: u64) -> Line<'static> {
    let theme = &shared.theme;
    let GroupChange {
        prompt_id,
        step: earlier,
        before,
        now,
        ..
    } = change;
    let share = |(valid, all): (usize, usize)| valid as f64 / all.max(1) as f64;
    let (sign, role) = match share(*now).total_cmp(&share(*before)) {
        std::cmp::Ordering::Greater => (theme.glyph("▲", "+"), Role::Good),
        std::cmp::Ordering::Less => (theme.glyph("▼", "-"), Role::Bad),
        std::cmp::Ordering::Equal => ("=", Role::Faint),
    };
    let words = match (before.0, now.0) {
        (0, 1..) => "  newly passes",
        (1.., 0) => "  newly fails",
        _ => "",
    };
    Line::from(vec![
        Span::styled(format!("{sign} "), theme.style(role)),
        Span::raw(format!(
            "{}  step {earlier} → {step}  ",
            one_line(prompt_id)
        )),
        Span::styled(
            format!("{}/{} → {}/{}{words}", before.0, before.1, now.0, now.1),
            theme.style(role),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Tier;

    #[test]
    fn what_got_worse_comes_first_and_samples_are_matched() {
        let record = |prompt: &str, sample, tier: Tier, exact| EvalRecord {
            prompt_id: prompt.to_owned(),
            sample,
            tier,
            exact,
            ..EvalRecord::default()
        };
        let before = [
            record("a", 0, Tier::Invalid, Some(false)),
            record("a", 1, Tier::Valid, Some(true)),
            record("b", 0, Tier::Valid, Some(true)),
            record("c", 0, Tier::Valid, None),
        ];
        let after = [
            record("a", 0, Tier::Valid, Some(true)),
            record("a", 1, Tier::Valid, Some(true)),
            record("b", 0, Tier::Valid, Some(false)),
            record("c", 0, Tier::Unparsable, None),
            record("d", 0, Tier::Valid, None),
        ];
        let found: Vec<_> = between(&before, &after)
            .into_iter()
            .map(|change| (change.prompt_id, change.before, change.now))
            .collect();
        let expected = [
            ("b", Standing::Exact, Standing::Valid),
            ("c", Standing::Valid, Standing::Unparsable),
            ("a", Standing::Invalid, Standing::Exact),
        ];
        assert_eq!(
            found,
            expected.map(|(prompt, before, now)| (prompt.to_owned(), before, now))
        );
    }
}
