//! Failure classes of completions: their shares over the steps of a training, and in the evals of base and result.

use std::collections::{BTreeMap, BTreeSet};

use super::eval_pair::EvalPair;
use crate::page::{Cell, Row, Table};
use crate::run::{EvalRecord, RunState, SPARSE};
use crate::score::FailureClass;

/// Shares of the failure classes that occur; a completion has at most one class.
pub(super) type Shares = BTreeMap<FailureClass, f64>;

/// Steps at the beginning and at the end whose means are in the table.
const STEPS: usize = 10;

/// Mean shares over at most `most` stretches of steps, each with its first and last step; empty if no step failed or
/// classes were not recorded.
pub(super) fn by_stretch(history: &RunState, most: usize) -> Vec<((u64, u64), Shares)> {
    let steps = steps(history);
    let stretches = steps.chunks(steps.len().div_ceil(most).max(1));
    let found: Vec<_> = stretches
        .map(|stretch| {
            (
                (stretch[0], stretch[stretch.len() - 1]),
                means(history, stretch),
            )
        })
        .collect();
    if found.iter().all(|(_, shares)| shares.is_empty()) {
        Vec::new()
    } else {
        found
    }
}

/// A row of titles, one of all classes, and one per class; `None` if nothing failed.
pub(super) fn failure_table(history: &RunState, pair: Option<&EvalPair>) -> Option<Table> {
    let steps = steps(history);
    let (first, last) = (
        &steps[..steps.len().min(STEPS)],
        &steps[steps.len().saturating_sub(STEPS)..],
    );
    let trained = |steps: &[u64]| {
        let title = format!("training, steps {} to {}", steps.first()?, steps.last()?);
        Some((title, means(history, steps)))
    };
    let of_pair = |pair: &EvalPair| {
        let evals = [("base", &pair.before), (&pair.after_name, &pair.after)];
        evals.map(|(name, records)| {
            let title = format!("{} set, {name} (n = {})", pair.set, records.len());
            (title, failure_shares(records))
        })
    };
    let training = [
        Some(first).and_then(trained),
        Some(last).filter(|last| *last != first).and_then(trained),
    ];
    let columns: Vec<(String, Shares)> = training
        .into_iter()
        .flatten()
        .chain(pair.map(of_pair).into_iter().flatten())
        .collect();
    let classes: BTreeSet<FailureClass> = columns
        .iter()
        .flat_map(|(_, shares)| shares.keys().copied())
        .collect();
    let row = |name: &str, share: &dyn Fn(&Shares) -> f64| {
        let shares = columns.iter().map(|(_, shares)| share(shares));
        Row::new(name, shares.map(Cell::rate))
    };
    let titles = columns.iter().map(|(title, _)| title.as_str());
    let titles: Vec<&str> = std::iter::once("failure").chain(titles).collect();
    let all = row("all classes", &|shares| shares.values().sum());
    let each = classes.iter().map(|class| {
        row(class.name(), &|shares| {
            shares.get(class).copied().unwrap_or(0.0)
        })
    });
    let rows = std::iter::once(all).chain(each).collect();
    (!classes.is_empty()).then(|| Table::new(&titles, "lr", rows))
}

fn recorded_classes(history: &RunState) -> impl Iterator<Item = FailureClass> {
    let names = history
        .metrics
        .range(SPARSE.to_owned()..)
        .map_while(|(name, _)| name.strip_prefix(SPARSE));
    names.filter_map(FailureClass::from_key)
}

fn steps(history: &RunState) -> Vec<u64> {
    history
        .metrics
        .get("seconds")
        .map(|series| series.steps().collect())
        .unwrap_or_default()
}

fn means(history: &RunState, steps: &[u64]) -> Shares {
    let mean = |class: FailureClass| {
        let name = class.metric();
        history.metrics.get(&name)?;
        let shares: Vec<f64> = steps
            .iter()
            .filter_map(|step| history.metric_at(&name, *step))
            .collect();
        let sum: f64 = shares.iter().sum();
        (sum > 0.0).then(|| (class, sum / shares.len() as f64))
    };
    recorded_classes(history).filter_map(mean).collect()
}

fn failure_shares(records: &[EvalRecord]) -> Shares {
    let mut shares = Shares::new();
    for class in records.iter().filter_map(EvalRecord::failure) {
        *shares.entry(class).or_default() += 1.0 / records.len() as f64;
    }
    shares
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::facts::Tier;
    use crate::page::Block;
    use crate::page::markdown::render;
    use crate::run::events::Step;
    use crate::run::{Event, EventBody};
    use serde_json::json;

    fn record(tier: Tier, failure: &str) -> EvalRecord {
        let score = if failure.is_empty() {
            json!({})
        } else {
            json!({"failure": failure})
        };
        EvalRecord {
            tier,
            score,
            ..EvalRecord::default()
        }
    }

    /// 25 steps; the first twelve have prose, and each has as much syntax.
    fn history() -> RunState {
        let mut history = RunState::default();
        for step in 1..=25 {
            let mut metrics = BTreeMap::from([
                ("failures/syntax".to_owned(), 0.25),
                ("tiers/valid".to_owned(), 0.25),
            ]);
            if step <= 12 {
                metrics.insert("failures/think_leak".to_owned(), 0.5);
            }
            history.fold(Event {
                seq: step,
                time_ms: 0,
                body: EventBody::from(Step {
                    step,
                    seconds: 1.0,
                    metrics,
                    ..Step::default()
                }),
            });
        }
        history
    }

    #[test]
    fn a_class_that_did_not_occur_at_a_step_is_zero_there() {
        let found = by_stretch(&history(), 5);
        let leaks: Vec<_> = found
            .iter()
            .map(|(steps, shares)| {
                (
                    *steps,
                    shares.get(&FailureClass::ThinkLeak).copied().unwrap_or(0.0),
                )
            })
            .collect();
        assert_eq!(
            leaks,
            [
                ((1, 5), 0.5),
                ((6, 10), 0.5),
                ((11, 15), 0.2),
                ((16, 20), 0.0),
                ((21, 25), 0.0)
            ]
        );
        assert!(by_stretch(&RunState::default(), 5).is_empty());
    }

    #[test]
    fn the_table_has_the_ends_of_training_and_both_evals() {
        let pair = |after: EvalRecord| EvalPair {
            look: None,
            set: "test".into(),
            after_name: "step 25".to_owned(),
            before: vec![
                record(Tier::Invalid, "missing_key"),
                record(Tier::Valid, ""),
            ],
            after: vec![after, record(Tier::Valid, "wrong_value")],
        };
        let table = failure_table(&history(), Some(&pair(record(Tier::Valid, "")))).unwrap();
        let expected = "\n\
            | failure | training, steps 1 to 10 | training, steps 16 to 25 | test set, base (n = 2) | test set, step 25 (n = 2) |\n\
            |---|---:|---:|---:|---:|\n\
            | all classes | 75.0% | 25.0% | 50.0% | 50.0% |\n\
            | syntax | 25.0% | 25.0% | 0.0% | 0.0% |\n\
            | think leak | 50.0% | 0.0% | 0.0% | 0.0% |\n\
            | missing key | 0.0% | 0.0% | 50.0% | 0.0% |\n\
            | wrong value | 0.0% | 0.0% | 0.0% | 50.0% |\n";
        assert_eq!(render(&[Block::Table(table)]), expected);
        assert_eq!(failure_table(&RunState::default(), None), None);
    }
}
