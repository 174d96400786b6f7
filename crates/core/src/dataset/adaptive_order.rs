//! Adaptive prompt order: each group without a gradient doubles the epochs until its prompt is
//! sampled again. Integers only, so that a resumed run continues exactly.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::order::{PromptOrder, TaskRow};

/// Longest interval between samples of a row, in epochs of its task.
pub const MAX_INTERVAL: u8 = 8;

/// Progress of a run through the rows of its tasks, and their outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdaptiveOrder {
    tasks: Vec<TaskWalk>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct TaskWalk {
    /// Visits in the task's own order, including skipped rows.
    visits: u64,
    /// Rows without an outcome are missing, and sampled in every epoch.
    rows: BTreeMap<usize, RowState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RowState {
    /// Epochs between samples: 1, 2, 4 or [`MAX_INTERVAL`].
    interval: u8,
    /// Visits left to skip.
    wait: u8,
    last: GroupOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOutcome {
    pub is_informative: bool,
    /// Sampled completions with the full reward.
    pub solved: u32,
    /// Sampled completions with a reward; at least 1.
    pub scored: u32,
}

/// Rows at some positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenRows {
    pub rows: Vec<TaskRow>,
    /// Rows skipped on the way.
    pub skipped: u64,
}

impl AdaptiveOrder {
    /// Starts with the plain order.
    pub fn new(tasks: usize) -> Self {
        Self {
            tasks: vec![TaskWalk::default(); tasks],
        }
    }

    /// Whether it can belong to a run of these tasks, given by their numbers of rows.
    pub fn fits(&self, rows: &[usize]) -> bool {
        let is_state = |(row, state): (&usize, &RowState), rows| {
            *row < rows && (1..=MAX_INTERVAL).contains(&state.interval) && state.last.scored > 0
        };
        self.tasks.len() == rows.len()
            && self
                .tasks
                .iter()
                .zip(rows)
                .all(|(walk, rows)| walk.rows.iter().all(|found| is_state(found, *rows)))
    }

    /// Takes the next row for each position, from the task whose turn it is. Terminates, as a row
    /// is skipped less than [`MAX_INTERVAL`] times in a row.
    pub fn take(&mut self, order: &PromptOrder, positions: Range<u64>) -> TakenRows {
        let mut walks: Vec<_> = self
            .tasks
            .iter()
            .enumerate()
            .map(|(task, walk)| order.rows_after(task, walk.visits))
            .collect();
        let mut taken = TakenRows::default();
        for task in positions.map(|position| order.task_at(position)) {
            let walk = &mut self.tasks[task];
            for row in &mut walks[task] {
                walk.visits += 1;
                if walk.takes(row) {
                    taken.rows.push(TaskRow { task, row });
                    break;
                }
                taken.skipped += 1;
            }
        }
        taken
    }

    pub fn observe(&mut self, TaskRow { task, row }: TaskRow, last: GroupOutcome) {
        let rows = &mut self.tasks[task].rows;
        let before = rows.get(&row).map_or(1, |state| state.interval);
        let interval = if last.is_informative {
            1
        } else {
            (2 * before).min(MAX_INTERVAL)
        };
        rows.insert(
            row,
            RowState {
                interval,
                wait: interval - 1,
                last,
            },
        );
    }

    pub fn recall(&mut self, other: Self) {
        for (walk, other) in self.tasks.iter_mut().zip(other.tasks) {
            walk.rows = other.rows;
        }
    }

    /// Mean share of completions with the full reward in the latest group of each row with an
    /// outcome; `None` before the first.
    pub fn solve_rate(&self) -> Option<f64> {
        let rows = self.tasks.iter().flat_map(|walk| walk.rows.values());
        let rates = rows.map(|state| f64::from(state.last.solved) / f64::from(state.last.scored));
        let (sum, count) = rates.fold((0.0, 0_u32), |(sum, count), rate| (sum + rate, count + 1));
        (count > 0).then(|| sum / f64::from(count))
    }
}

impl TaskWalk {
    fn takes(&mut self, row: usize) -> bool {
        let Some(state) = self.rows.get_mut(&row) else {
            return true;
        };
        let is_taken = state.wait == 0;
        state.wait = if is_taken {
            state.interval - 1
        } else {
            state.wait - 1
        };
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::TaskRows;
    use super::*;

    fn order(tasks: &[(usize, usize)]) -> PromptOrder {
        PromptOrder::new(
            tasks
                .iter()
                .map(|&(rows, weight)| TaskRows { rows, weight })
                .collect(),
            5,
        )
    }

    fn outcome(is_informative: bool) -> GroupOutcome {
        GroupOutcome {
            is_informative,
            solved: 0,
            scored: 8,
        }
    }

    #[test]
    fn without_outcomes_it_is_the_plain_order() {
        for tasks in [&[(7, 1)][..], &[(4, 2), (3, 1)], &[(5, 1), (2, 3), (1, 1)]] {
            let order = order(tasks);
            let mut adaptive = AdaptiveOrder::new(tasks.len());
            let taken = [0..3, 3..4, 4..60].map(|positions| adaptive.take(&order, positions));
            let rows: Vec<TaskRow> = taken.iter().flat_map(|taken| taken.rows.clone()).collect();
            assert_eq!(rows, order.rows_at(0..60), "{tasks:?}");
            assert!(taken.iter().all(|taken| taken.skipped == 0));
            assert_eq!(adaptive.solve_rate(), None);
        }
    }

    /// Epochs, from 0, that sample a task's only row, given the outcomes of its groups: `+`
    /// informative, `-` not.
    fn passes(outcomes: &str) -> Vec<u64> {
        let (order, mut adaptive, mut passes, mut visits) =
            (order(&[(1, 1)]), AdaptiveOrder::new(1), Vec::new(), 0);
        for (position, letter) in (0..).zip(outcomes.chars()) {
            let taken = adaptive.take(&order, position..position + 1);
            visits += taken.skipped + 1;
            passes.push(visits - 1);
            adaptive.observe(taken.rows[0], outcome(letter == '+'));
        }
        passes
    }

    #[test]
    fn a_group_without_a_gradient_doubles_the_wait_and_one_with_it_ends_it() {
        let check =
            |outcomes: &str, expected: &[u64]| assert_eq!(passes(outcomes), expected, "{outcomes}");
        check("++++", &[0, 1, 2, 3]);
        check("------", &[0, 2, 6, 14, 22, 30]);
        check("--+-+", &[0, 2, 6, 7, 9]);
        check("-+-+", &[0, 2, 3, 5]);
    }

    #[test]
    fn every_row_is_taken_within_eight_passes_and_every_task_keeps_its_share() {
        let order = order(&[(20, 2), (10, 1)]);
        let mut adaptive = AdaptiveOrder::new(2);
        // Of the first task, a quarter of the rows is informative; of the second, none.
        let mut counts = BTreeMap::<TaskRow, usize>::new();
        for step in 0..300_u64 {
            let taken = adaptive.take(&order, step * 6..step * 6 + 6);
            assert_eq!(taken.rows.iter().filter(|row| row.task == 0).count(), 4);
            for row in taken.rows {
                *counts.entry(row).or_default() += 1;
                adaptive.observe(row, outcome(row.task == 0 && row.row < 5));
            }
        }
        let count = |task, row| counts[&TaskRow { task, row }];
        // 1200 of the first: 5 rows in every epoch, 15 in every eighth, that is 5 + 15 / 8 per
        // epoch.
        let expected = 1200.0 / (5.0 + 15.0 / 8.0);
        for row in 0..20 {
            let expected = if row < 5 { expected } else { expected / 8.0 };
            assert!(
                (count(0, row) as f64 - expected).abs() < 4.0,
                "row {row}: {} of {expected}",
                count(0, row)
            );
        }
        assert!(
            (0..10).all(|row| (58..=62).contains(&count(1, row))),
            "{counts:?}"
        );
    }

    #[test]
    fn groups_of_a_prompt_within_a_step_count_one_after_the_other() {
        let order = order(&[(2, 1)]);
        let mut adaptive = AdaptiveOrder::new(1);
        let taken = adaptive.take(&order, 0..4);
        taken
            .rows
            .iter()
            .for_each(|row| adaptive.observe(*row, outcome(false)));
        // Both wait for 3 epochs.
        let next = adaptive.take(&order, 4..6);
        assert_eq!((next.rows.len(), next.skipped), (2, 6));
        // Without outcomes they keep their interval.
        assert_eq!(adaptive.take(&order, 6..8).skipped, 6);
    }

    #[test]
    fn what_is_known_of_rows_is_averaged_recalled_and_checked() {
        let order = order(&[(3, 1)]);
        let mut adaptive = AdaptiveOrder::new(1);
        let before = adaptive.clone();
        let row = |row| TaskRow { task: 0, row };
        adaptive.observe(
            row(0),
            GroupOutcome {
                is_informative: false,
                solved: 8,
                scored: 8,
            },
        );
        adaptive.observe(
            row(2),
            GroupOutcome {
                is_informative: true,
                solved: 1,
                scored: 4,
            },
        );
        adaptive.observe(
            row(2),
            GroupOutcome {
                is_informative: true,
                solved: 2,
                scored: 4,
            },
        );
        assert_eq!(adaptive.solve_rate(), Some(0.75));
        assert!(adaptive.fits(&[3]) && !adaptive.fits(&[2]) && !adaptive.fits(&[3, 3]));
        adaptive.take(&order, 0..5);
        let visits = adaptive.tasks[0].visits;
        adaptive.recall(before);
        assert_eq!(
            (adaptive.tasks[0].visits, adaptive.solve_rate()),
            (visits, None)
        );
    }
}
