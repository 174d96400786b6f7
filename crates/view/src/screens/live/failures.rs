//! Kinds of failure over steps: from the log if it has them, else counted from the scores in the rollouts, in the
//! background.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Live;
use crate::followed_run::FollowedRun;
use crate::message::{Command, Sender, Work};
use crate::run::{SPARSE, read_step, rollout_segments};
use crate::score::{FailureClass, Score};
use crate::shared::Shared;

/// The most steps counted from rollouts, latest first.
const STEPS_COUNTED: u64 = 60;

/// The shares of each kind that occurs at the last `count` steps up to `last`, oldest first; NaN if a step is unknown.
pub(super) fn shares(
    live: &Live,
    run: &FollowedRun,
    last: u64,
    count: u64,
) -> Vec<(&'static str, Vec<f64>)> {
    let first = (last + 1).saturating_sub(count).max(1);
    let logged = is_logged(run);
    let shares_of = |class: FailureClass| {
        let name = class.metric();
        let share = |step: u64| {
            if logged {
                return run.history.metric_at(&name, step);
            }
            let counted = live.failures.counted.get(&step)?;
            Some(counted.get(&class).copied().unwrap_or(0.0))
        };
        (
            class.name(),
            (first..=last)
                .map(|step| share(step).unwrap_or(f64::NAN))
                .collect(),
        )
    };
    let classes: BTreeSet<FailureClass> = match logged {
        true => logged_names(run)
            .filter_map(FailureClass::from_key)
            .collect(),
        false => live
            .failures
            .counted
            .values()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect(),
    };
    classes.into_iter().map(shares_of).collect()
}

fn logged_names(run: &FollowedRun) -> impl Iterator<Item = &str> {
    run.history
        .metrics
        .range(SPARSE.to_owned()..)
        .map_while(|(name, _)| name.strip_prefix(SPARSE))
}

/// Whether the log has the kinds of failure.
fn is_logged(run: &FollowedRun) -> bool {
    logged_names(run).next().is_some()
}

/// Counts from rollouts what the log lacks, if any completion failed.
pub(super) fn load(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return Vec::new();
    };
    let last = run.history.last_step;
    if !run.loaded || live.failures.requested == last || is_logged(run) {
        return Vec::new();
    }
    let failed = run
        .history
        .metrics
        .get("tiers/valid")
        .is_some_and(|series| series.values().iter().any(|share| *share < 1.0));
    if !failed {
        return Vec::new();
    }
    let path = run.path().to_owned();
    let known = &live.failures.counted;
    let steps = (last + 1).saturating_sub(STEPS_COUNTED).max(1)..=last;
    let missing: Vec<u64> = steps
        .rev()
        .filter(|step| !known.contains_key(step))
        .collect();
    live.failures.requested = last;
    vec![Work::stream("live.failures", move |sender| {
        count(&path, &missing, sender)
    })]
}

fn count(run: &Path, steps: &[u64], sender: &Sender) {
    if rollout_segments(run).is_ok_and(|segments| segments.is_empty()) {
        return;
    }
    for &step in steps {
        let Ok(groups) = read_step(run, step) else {
            continue;
        };
        let all = groups.into_iter().flat_map(|group| group.completions);
        let found: Vec<Option<FailureClass>> = all
            .map(|one| {
                serde_json::from_value::<Score>(one.score)
                    .ok()
                    .and_then(|score| score.failure)
            })
            .collect();
        let mut shares: BTreeMap<FailureClass, f64> = BTreeMap::new();
        for class in found.iter().flatten() {
            *shares.entry(*class).or_default() += 1.0 / found.len() as f64;
        }
        let of = run.to_owned();
        let is_wanted = sender.send(move |live: &mut Live, shared| {
            if shared.current.as_ref() == Some(&of) {
                live.failures.counted.insert(step, shares);
                while live.failures.counted.len() > 2 * STEPS_COUNTED as usize {
                    live.failures.counted.pop_first();
                }
            }
            Vec::new()
        });
        if !is_wanted {
            return;
        }
    }
}
