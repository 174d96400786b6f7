//! Order of prompts within an epoch and across tasks: pure functions, so that a resumed run
//! continues exactly.

use super::random::CounterRandom;

/// A permutation of `0..rows` (Fisher-Yates), determined by `epoch` and `seed`.
pub fn epoch_order(rows: usize, epoch: u64, seed: u64) -> Vec<usize> {
    let mut random = CounterRandom::new(&[seed, epoch]).fork("epoch order");
    let mut order: Vec<usize> = (0..rows).collect();
    for last in (1..rows).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRows {
    /// Positive.
    pub rows: usize,
    /// Positive.
    pub weight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskRow {
    pub task: usize,
    pub row: usize,
}

/// The endless prompt order of a run. Tasks alternate by weight, so that every step has each task's
/// share; a task's rows are reshuffled after each epoch.
#[derive(Clone, Debug)]
pub struct PromptOrder {
    tasks: Vec<TaskRows>,
    seed: u64,
    /// Tasks by position in a repeating round, as long as the sum of weights.
    round: Vec<usize>,
}

impl PromptOrder {
    pub fn new(tasks: Vec<TaskRows>, seed: u64) -> Self {
        let sum: usize = tasks.iter().map(|task| task.weight).sum();
        let (mut taken, mut round) = (vec![0; tasks.len()], Vec::with_capacity(sum));
        for position in 1..=sum {
            // How far a task lags behind its share, times the sum; ties go to the first.
            let behind =
                |task: usize| (position * tasks[task].weight) as i64 - (taken[task] * sum) as i64;
            let next = (0..tasks.len())
                .rev()
                .max_by_key(|task| behind(*task))
                .unwrap_or(0);
            taken[next] += 1;
            round.push(next);
        }
        Self { tasks, seed, round }
    }

    /// Positions until every row of every task was sampled at least once; for one task, its number
    /// of rows.
    pub fn epoch_len(&self) -> u64 {
        let of_task = |(task, rows): (usize, &TaskRows)| {
            let (rounds, rest) = ((rows.rows - 1) / rows.weight, (rows.rows - 1) % rows.weight);
            let last = self
                .round
                .iter()
                .enumerate()
                .filter(|(_, found)| **found == task)
                .nth(rest);
            (rounds * self.round.len() + last.map_or(0, |(position, _)| position) + 1) as u64
        };
        self.tasks
            .iter()
            .enumerate()
            .map(of_task)
            .max()
            .unwrap_or(0)
    }

    /// The task at a position.
    pub fn task_at(&self, position: u64) -> usize {
        self.round[(position % self.round.len() as u64) as usize]
    }

    pub fn rows_after(&self, task: usize, visits: u64) -> impl Iterator<Item = usize> {
        let (rows, seed) = (self.tasks[task].rows, self.seed.wrapping_add(task as u64));
        let epochs = visits / rows as u64..;
        epochs
            .flat_map(move |epoch| epoch_order(rows, epoch, seed))
            .skip((visits % rows as u64) as usize)
    }

    pub fn rows_at(&self, positions: impl IntoIterator<Item = u64>) -> Vec<TaskRow> {
        let mut epochs: Vec<(Option<u64>, Vec<usize>)> = vec![(None, Vec::new()); self.tasks.len()];
        let row = |position: u64| {
            let (rounds, place) = (
                position / self.round.len() as u64,
                (position % self.round.len() as u64) as usize,
            );
            let task = self.task_at(position);
            let before = self.round[..place]
                .iter()
                .filter(|other| **other == task)
                .count();
            let TaskRows { rows, weight } = self.tasks[task];
            let visit = rounds * weight as u64 + before as u64;
            let (epoch, order) = &mut epochs[task];
            if *epoch != Some(visit / rows as u64) {
                *epoch = Some(visit / rows as u64);
                *order = epoch_order(
                    rows,
                    visit / rows as u64,
                    self.seed.wrapping_add(task as u64),
                );
            }
            TaskRow {
                task,
                row: order[(visit % rows as u64) as usize],
            }
        };
        positions.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_row_once() {
        for rows in [0, 1, 2, 3, 200, 1001] {
            let mut order = epoch_order(rows, 3, 7);
            assert_eq!(
                order,
                epoch_order(rows, 3, 7),
                "the same arguments give the same order"
            );
            order.sort_unstable();
            assert!(order.iter().copied().eq(0..rows), "{rows} rows");
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_every_order_is_as_likely() {
        assert_ne!(epoch_order(50, 0, 1), epoch_order(50, 1, 1));
        assert_ne!(epoch_order(50, 0, 1), epoch_order(50, 0, 2));
        let mut counts = std::collections::BTreeMap::<Vec<usize>, f64>::new();
        (0..6000).for_each(|epoch| *counts.entry(epoch_order(3, epoch, 9)).or_default() += 1.0);
        // 6 orders, 5 degrees of freedom: 20.5 is exceeded once in a thousand times.
        let chi_square: f64 = counts
            .values()
            .map(|count| (count - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(
            counts.len() == 6 && chi_square < 20.5,
            "chi-square {chi_square}"
        );
    }

    fn order(tasks: &[(usize, usize)]) -> PromptOrder {
        PromptOrder::new(
            tasks
                .iter()
                .map(|&(rows, weight)| TaskRows { rows, weight })
                .collect(),
            5,
        )
    }

    #[test]
    fn one_task_takes_its_epochs_one_after_the_other() {
        let order = order(&[(7, 1)]);
        let rows: Vec<usize> = order
            .rows_at(0..14)
            .into_iter()
            .map(|found| found.row)
            .collect();
        assert_eq!(rows, [epoch_order(7, 0, 5), epoch_order(7, 1, 5)].concat());
        assert_eq!(order.epoch_len(), 7);
    }

    #[test]
    fn tasks_alternate_by_weight() {
        // Weights -> tasks at the first positions.
        let check = |weights: &[usize], expected: &str| {
            let order = order(
                &weights
                    .iter()
                    .map(|weight| (3, *weight))
                    .collect::<Vec<_>>(),
            );
            let tasks = order.rows_at(0..expected.len() as u64);
            assert_eq!(
                tasks
                    .iter()
                    .map(|found| found.task.to_string())
                    .collect::<String>(),
                expected,
                "{weights:?}"
            );
        };
        check(&[1, 1], "010101");
        check(&[2, 1], "010010");
        check(&[1, 3], "10111011");
        check(&[2, 2, 1], "0120101201");
    }

    #[test]
    fn every_step_has_the_share_of_each_task() {
        for weights in [
            vec![1, 1],
            vec![2, 1],
            vec![5, 3],
            vec![1, 9],
            vec![3, 2, 2],
            vec![7, 4, 1, 1],
        ] {
            let (sum, order) = (
                weights.iter().sum::<usize>(),
                order(
                    &weights
                        .iter()
                        .map(|weight| (11, *weight))
                        .collect::<Vec<_>>(),
                ),
            );
            for (start, groups) in
                (0..40).flat_map(|start| [1, 4, 8, 13].map(|groups| (start, groups)))
            {
                let found = order.rows_at(start..start + groups);
                for (task, weight) in weights.iter().enumerate() {
                    let count = found.iter().filter(|found| found.task == task).count() as f64;
                    let share = groups as f64 * *weight as f64 / sum as f64;
                    assert!(
                        (count - share).abs() < 2.0,
                        "{weights:?} {start} {groups}: {count} of {share}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_epoch_of_several_tasks_ends_when_every_row_was_taken() {
        // (rows, weight) of each task -> positions.
        let check = |tasks: &[(usize, usize)], expected: u64| {
            let order = order(tasks);
            assert_eq!(order.epoch_len(), expected, "{tasks:?}");
            let missing = |positions| {
                let found = order.rows_at(0..positions);
                let of_task = |task| {
                    found
                        .iter()
                        .filter(move |found| found.task == task)
                        .map(|found| found.row)
                };
                let distinct = |task| {
                    of_task(task)
                        .collect::<std::collections::BTreeSet<_>>()
                        .len()
                };
                tasks
                    .iter()
                    .enumerate()
                    .map(|(task, (rows, _))| rows - distinct(task))
                    .sum::<usize>()
            };
            assert_eq!(
                (missing(expected), missing(expected - 1)),
                (0, 1),
                "{tasks:?}"
            );
        };
        check(&[(4, 1), (4, 1)], 8);
        check(&[(4, 2), (4, 1)], 11);
        check(&[(100, 1), (3, 1)], 199);
        check(&[(3, 5), (2, 1)], 10);
        check(&[(5, 3)], 5);
    }
}
