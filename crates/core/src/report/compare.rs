//! Runs side by side: differing configuration keys, metrics at the last step, evals, and results on the same prompts.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::event_text::rates;
use super::{MetricComparison, Report, RunRow, shown, verdict_lines};
use crate::format::{amount, or_na};
use crate::run::events::Eval;
use crate::run::{Comparison, HELD_OUT_SETS, RunFile, eval_path, read_evals};
use crate::secrets::visible;
use crate::task::task_set;

/// Step, set and target.
type EvalKey = (u64, String, String);

#[derive(Debug)]
pub struct RunComparison {
    rows: Vec<RunRow>,
    /// Keys that differ, with each run's value.
    pub config: Vec<(String, Vec<Value>)>,
    /// Files of the frozen tasks that differ.
    pub task_files: Vec<String>,
    /// Every metric, with each run's value at its last step.
    pub metrics: Vec<(String, Vec<Option<f64>>)>,
    evals: Vec<(EvalKey, Vec<Option<Eval>>)>,
    /// For each run but the first: its result on each task compared with the first run's, if both were evaluated on a set.
    pub results: Vec<Vec<ResultComparison>>,
}

/// The results of two runs on the prompts of one set.
#[derive(Debug, serde::Serialize)]
pub struct ResultComparison {
    set: String,
    comparison: Comparison,
    valid: MetricComparison,
    exact: Option<MetricComparison>,
}

impl RunComparison {
    /// Compares runs with the first one; several comparisons are one family, adjusted by Holm's method.
    pub fn for_reports(runs: &[Report]) -> Self {
        let others = runs.get(1..).unwrap_or_default();
        let comparisons = others.len()
            * runs
                .first()
                .map_or(1, |run| run.directory.task_names().len());
        let mut results: Vec<_> = others
            .iter()
            .map(|run| results(&runs[0], run, comparisons))
            .collect();
        MetricComparison::adjust(
            results
                .iter_mut()
                .flatten()
                .map(|result| &mut result.valid)
                .collect(),
        );
        MetricComparison::adjust(
            results
                .iter_mut()
                .flatten()
                .filter_map(|result| result.exact.as_mut())
                .collect(),
        );
        let keys: BTreeSet<_> = runs
            .iter()
            .flat_map(|run| run.history.evals.keys())
            .cloned()
            .collect();
        let names: BTreeSet<&String> = runs
            .iter()
            .flat_map(|run| run.history.metrics.keys())
            .collect();
        let files: Vec<&RunFile> = runs.iter().map(|run| run.directory.file()).collect();
        Self {
            rows: runs.iter().map(RunRow::from_report).collect(),
            config: different_keys(&files),
            task_files: changed_files(&files),
            metrics: names
                .into_iter()
                .map(|name| {
                    (
                        name.clone(),
                        runs.iter().map(|run| run.metric(name, false)).collect(),
                    )
                })
                .collect(),
            evals: keys
                .into_iter()
                .map(|key| {
                    (
                        key.clone(),
                        runs.iter()
                            .map(|run| run.history.evals.get(&key).cloned())
                            .collect(),
                    )
                })
                .collect(),
            results,
        }
    }

    /// The output of `runs compare --json`; `second` and `results` are those of the second run, a list for several tasks.
    pub fn document(&self) -> Value {
        let config: Map<String, Value> = self
            .config
            .iter()
            .map(|(key, values)| (key.clone(), json!(values)))
            .collect();
        let metrics: Map<String, Value> = self
            .metrics
            .iter()
            .map(|(name, values)| (name.clone(), json!(values)))
            .collect();
        let eval = |((step, set, target), found): &(EvalKey, Vec<Option<Eval>>)| {
            let all: Vec<_> = found
                .iter()
                .map(|eval| eval.as_ref().map(|eval| &eval.summary))
                .collect();
            json!({"step": step, "set": set, "target": target, "first": all.first(), "second": all.get(1), "all": all})
        };
        let (evals, rows): (Vec<_>, Vec<_>) = (
            self.evals.iter().map(eval).collect(),
            self.rows.iter().map(RunRow::document).collect(),
        );
        let is_mix = self
            .rows
            .first()
            .is_some_and(|row| row.directory.task_names().len() > 1);
        let of_run = |found: &Vec<ResultComparison>| {
            if is_mix {
                json!(found)
            } else {
                json!(found.first())
            }
        };
        let results: Vec<Value> = self.results.iter().map(of_run).collect();
        json!({
            "first": rows.first(), "second": rows.get(1), "runs": rows,
            "config": config, "task_files": self.task_files, "metrics": metrics, "evals": evals,
            "results": results.first(), "all_results": results,
        })
    }

    /// One column per run.
    pub fn page(&self) -> String {
        // Writing into a String cannot fail.
        let mut text = String::new();
        let row = |name: &str, cells: &mut dyn Iterator<Item = String>| {
            let cells: Vec<String> = cells
                .map(|cell| format!("{:<40}", visible(&cell)))
                .collect();
            format!("{:<40} {}", visible(name), cells.join(" "))
                .trim_end()
                .to_owned()
                + "\n"
        };
        text.push_str(&row(
            "",
            &mut self.rows.iter().map(|row| row.directory.id().to_owned()),
        ));
        let names = || self.rows.iter().map(|row| row.directory.name().to_owned());
        if names().any(|name| !name.is_empty()) {
            text.push_str(&row("name", &mut names()));
        }
        self.write_results(&mut text);
        text.push('\n');
        for (key, values) in &self.config {
            text.push_str(&row(key, &mut values.iter().map(shown)));
        }
        if self.config.is_empty() {
            text.push_str("configurations are identical\n");
        }
        text.push('\n');
        for ((step, set, target), found) in &self.evals {
            let _ = writeln!(text, "step {step} {} {}", visible(set), visible(target));
            for eval in found {
                let _ = writeln!(
                    text,
                    "  {}",
                    or_na(eval.as_ref(), |eval| rates(&eval.summary))
                );
            }
        }
        text.push('\n');
        for (name, values) in &self.metrics {
            text.push_str(&row(
                name,
                &mut values.iter().map(|value| or_na(*value, amount)),
            ));
        }
        text
    }

    /// The verdicts, and what they do not allow for.
    fn write_results(&self, text: &mut String) {
        for (row, result) in self.rows.iter().skip(1).zip(&self.results) {
            let second = if self.rows.len() == 2 {
                "second run".into()
            } else {
                visible(row.directory.id())
            };
            for ResultComparison {
                set, valid, exact, ..
            } in result
            {
                let _ = writeln!(text, "\n{second} vs the first on the same {set} prompts");
                text.push_str(&verdict_lines(valid, exact.as_ref()));
            }
        }
        let comparisons = self.results.iter().flatten().count();
        if comparisons > 1 {
            let _ = writeln!(
                text,
                "\nverdicts by p-values adjusted by Holm's method for {comparisons} comparisons"
            );
        }
        if !self.task_files.is_empty() {
            let files = self.task_files.join(", ");
            let _ = writeln!(
                text,
                "\ntasks differ in {}: rates are not comparable",
                visible(&files)
            );
        }
    }
}

/// Keys that differ, with each run's value.
pub(super) fn different_keys(runs: &[&RunFile]) -> Vec<(String, Vec<Value>)> {
    let configs: Vec<Vec<(String, Value)>> = runs.iter().map(|run| run.config.values()).collect();
    let Some(first) = configs.first() else {
        return Vec::new();
    };
    let of_key = |index: usize| {
        configs
            .iter()
            .filter_map(|config| config.get(index))
            .map(|(_, value)| value.clone())
            .collect::<Vec<_>>()
    };
    let all = first
        .iter()
        .enumerate()
        .map(|(index, (key, _))| (key.clone(), of_key(index)));
    all.filter(|(_, values)| values.windows(2).any(|pair| pair[0] != pair[1]))
        .collect()
}

/// Files of the frozen tasks that differ.
pub(super) fn changed_files(runs: &[&RunFile]) -> Vec<String> {
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.task_files.keys()).collect();
    let differs = |name: &&String| {
        runs.windows(2)
            .any(|pair| pair[0].task_files.get(*name) != pair[1].task_files.get(*name))
    };
    names.into_iter().filter(differs).cloned().collect()
}

/// Compares the results of two runs on each task, on the first set on which both were evaluated, as one of `comparisons`.
fn results(first: &Report, second: &Report, comparisons: usize) -> Vec<ResultComparison> {
    let on = |set: String| {
        let records = |run: &Report| {
            let Eval { step, target, .. } = run.history.result(&set, run.best())?;
            read_evals(&eval_path(run.directory.path(), *step, &set, target)).ok()
        };
        let (valid, exact) =
            MetricComparison::both(&records(first)?, &records(second)?, comparisons);
        (valid.n > 0).then_some(ResultComparison {
            set,
            comparison: valid.comparison,
            valid,
            exact,
        })
    };
    let of_task = |task: &str| {
        HELD_OUT_SETS
            .into_iter()
            .find_map(|set| on(task_set(set, task)))
    };
    first
        .directory
        .task_names()
        .into_iter()
        .filter_map(of_task)
        .collect()
}
