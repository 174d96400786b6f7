//! Runs grouped by a field, with the mean of each value and its spread over the runs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::run_row::RunRow;
use super::tables::shown;
use crate::run::Field;

pub const GROUPINGS: [&str; 10] = [
    "task",
    "tags",
    "setup",
    "model",
    "base_model",
    "job",
    "status",
    "host",
    "name",
    "set",
];

#[derive(Debug, Clone)]
pub struct RunGroup<'a> {
    /// The value; `no tag` for runs without one.
    pub value: String,
    pub runs: Vec<&'a RunRow>,
}

/// Mean and standard deviation over the runs that have a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanStd {
    pub n: usize,
    pub mean: f64,
    /// The sample standard deviation over runs (n - 1); `None` for one run.
    pub std: Option<f64>,
    pub least: f64,
    pub most: f64,
}

pub fn group_runs<'a>(rows: impl Iterator<Item = &'a RunRow>, by: &str) -> Vec<RunGroup<'a>> {
    let mut groups: Vec<RunGroup<'a>> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for run in rows {
        for value in group_values(run, by) {
            let place = *places.entry(value.clone()).or_insert_with(|| {
                groups.push(RunGroup {
                    value,
                    runs: Vec::new(),
                });
                groups.len() - 1
            });
            groups[place].runs.push(run);
        }
    }
    groups
}

/// The values as they are shown: of a setup only the task and the keys in which these groups differ.
pub fn group_labels(groups: &[RunGroup<'_>], by: &str) -> Vec<String> {
    let first: Vec<&RunRow> = groups
        .iter()
        .filter_map(|group| group.runs.first().copied())
        .collect();
    if by != "setup" || first.len() < groups.len() {
        return groups.iter().map(|group| group.value.clone()).collect();
    }
    let task = |run: &RunRow| run.directory.file().task.clone();
    let has_one_task = first.windows(2).all(|pair| task(pair[0]) == task(pair[1]));
    let firsts = RunGroup {
        value: String::new(),
        runs: first,
    };
    let keys = firsts
        .different_keys()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| key != "seed");
    let keys: Vec<String> = keys.collect();
    let label = |run: &&RunRow| {
        let values = run
            .directory
            .file()
            .config
            .values()
            .into_iter()
            .filter(|(key, _)| keys.contains(key));
        let values: Vec<String> = values
            .map(|(key, value)| format!("{key}={}", shown(&value)))
            .collect();
        let task = (!has_one_task || values.is_empty()).then(|| task(run));
        task.into_iter().chain(values).collect::<Vec<_>>().join(" ")
    };
    let labels: Vec<String> = firsts.runs.iter().map(label).collect();
    // Setups may also differ in files of the task, or in the model behind a name.
    let with_digest = |(run, label): (&&RunRow, &String)| {
        let is_unique = labels.iter().filter(|other| *other == label).count() == 1;
        match is_unique {
            true => label.clone(),
            false => format!("{label} #{}", run.setup_digest()),
        }
    };
    firsts.runs.iter().zip(&labels).map(with_digest).collect()
}

pub fn group_values(run: &RunRow, by: &str) -> Vec<String> {
    if by == "tags" && !run.tags.is_empty() {
        return run.tags.clone();
    }
    let none = || {
        if by == "tags" {
            "no tag".to_owned()
        } else {
            format!("no {by}")
        }
    };
    vec![
        run.field(by, false)
            .map_or_else(none, |value| value.to_string()),
    ]
}

/// Why runs cannot be grouped by a name, if they cannot: measured values differ from run to run.
pub fn wrong_grouping<'a>(
    by: &str,
    rows: impl Iterator<Item = &'a RunRow> + Clone,
) -> Option<String> {
    let key = by
        .strip_prefix("config.")
        .is_some_and(|key| crate::config::Key::find(key).is_some());
    let why = format!("group by {}, or config.KEY", GROUPINGS.join(", "));
    (!GROUPINGS.contains(&by) && !key)
        .then(|| crate::report::run_row::unknown_field(by, rows, false).unwrap_or(why))
}

impl RunGroup<'_> {
    /// Whether its runs are of one task: rates and rewards of different tasks have no common mean.
    pub fn is_of_one_task(&self) -> bool {
        let mut tasks = self.runs.iter().map(|run| &run.directory.file().task);
        let first = tasks.next();
        tasks.all(|task| Some(task) == first)
    }

    /// Mean and spread of a numeric field; `None` if no run has a number, or they are of different tasks.
    pub fn mean(&self, field: &str, smoothed: bool) -> Option<MeanStd> {
        if !self.is_of_one_task() {
            return None;
        }
        let number = |run: &&RunRow| match run.field(field, smoothed) {
            Some(Field::Number(number)) if number.is_finite() => Some(number),
            _ => None,
        };
        MeanStd::from_values(&self.runs.iter().filter_map(number).collect::<Vec<_>>())
    }

    pub fn different_keys(&self) -> Vec<(String, usize)> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (key, value) in self
            .runs
            .iter()
            .flat_map(|run| run.directory.file().config.values())
        {
            found.entry(key).or_default().insert(shown(&value));
        }
        found
            .into_iter()
            .map(|(key, values)| (key, values.len()))
            .filter(|(_, count)| *count > 1)
            .collect()
    }

    /// A line of `runs list --group-by --json`.
    pub fn document(&self, by: &str, fields: &[String], smoothed: bool) -> Value {
        let values: serde_json::Map<String, Value> = fields
            .iter()
            .map(|field| {
                (
                    field.clone(),
                    self.mean(field, smoothed)
                        .map_or(Value::Null, |found| found.document()),
                )
            })
            .collect();
        let differ: Vec<String> = self
            .different_keys()
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let ids: Vec<&str> = self.runs.iter().map(|run| run.directory.id()).collect();
        json!({"group_by": by, "value": self.value, "runs": ids, "n": ids.len(), "differ": differ, "values": values})
    }
}

impl MeanStd {
    fn from_values(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Equal values have no spread, not that of a rounded sum.
        let mean = if least == most {
            least
        } else {
            values.iter().sum::<f64>() / n as f64
        };
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (n > 0).then(|| Self {
            n,
            mean,
            std: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()),
            least,
            most,
        })
    }

    fn document(&self) -> Value {
        json!({"n": self.n, "mean": self.mean, "std": self.std, "min": self.least, "max": self.most})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_a_sample() {
        let of = |values: &[f64]| {
            MeanStd::from_values(values).map(|found| (found.n, found.mean, found.std))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[2.0]), Some((1, 2.0, None)), "one run has no spread");
        assert_eq!(of(&[1.0, 3.0]), Some((2, 2.0, Some(2.0_f64.sqrt()))));
        assert_eq!(of(&[0.1; 23]), Some((23, 0.1, Some(0.0))));
        let found = MeanStd::from_values(&[4.0, -1.0, 0.0]);
        assert_eq!(
            found.map(|found| (found.least, found.most)),
            Some((-1.0, 4.0))
        );
    }
}
