//! Runs side by side: differing configuration keys, metrics at the last step, evals, and results on the same prompts.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::error::ReportError;
use super::eval_results::{EvalId, EvalResult};
use super::run_report::Report;
use super::run_row::RunRow;
use super::significance::{MetricComparison, verdict};
use super::summary_table::invented_cell;
use super::tables::shown;
use crate::format::counted;
use crate::page::{Block, Cell, Row, Table};
use crate::run::events::{Eval, EvalKey};
use crate::run::{Comparison, EvalRecord, EvalSummary, RunFile, read_evals};
use crate::task::SetName;

#[derive(Debug)]
pub struct RunComparison {
    rows: Vec<RunRow>,
    /// Keys that differ, with each run's value.
    pub config: Vec<(String, Vec<Value>)>,
    pub task_files: Vec<String>,
    /// Every metric, with each run's value at its last step.
    pub metrics: Vec<(String, Vec<Option<f64>>)>,
    evals: Vec<(EvalKey, Vec<Option<Eval>>)>,
    /// For each run but the first: its result on each task compared with the first run's, if both were evaluated on a set.
    pub results: Vec<Vec<ResultComparison>>,
    /// For each run but the first: why its result on a task is not compared.
    pub not_compared: Vec<Vec<String>>,
}

/// The results of two runs on the prompts of one set.
#[derive(Debug, serde::Serialize)]
pub struct ResultComparison {
    set: SetName,
    comparison: Comparison,
    /// Answers of either run whose prompt is not the same in the other.
    other_prompts: usize,
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
        let (mut results, not_compared): (Vec<_>, Vec<_>) = others
            .iter()
            .map(|run| results(&runs[0], run, comparisons))
            .unzip();
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
            not_compared,
        }
    }

    /// Part of the output of `runs compare --json`; `second` and `results` are those of the second run, a list for several tasks.
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
        let eval = |(EvalKey { step, set, target }, found): &(EvalKey, Vec<Option<Eval>>)| {
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
            "not_compared": self.not_compared.first(), "all_not_compared": self.not_compared,
        })
    }

    /// Verdicts, rates on the same prompts, then what differs, one column per run.
    pub fn page(&self, rates: Vec<Block>) -> Vec<Block> {
        let ids = self.rows.iter().map(|row| row.directory.id());
        let ids: Vec<&str> = std::iter::once("").chain(ids).collect();
        let table = |rows| Block::Table(Table::new(&ids, "l", rows));
        let names = || self.rows.iter().map(|row| row.directory.name().to_owned());
        // The head has ids.
        let has_names = names().any(|name| !name.is_empty());
        let about = Row::new("name", names().map(Cell::Text));
        let about = has_names.then_some(about).into_iter().collect();
        let config = self.config.iter().map(|(key, values)| {
            Row::new(key, values.iter().map(|value| Cell::Text(shown(value))))
        });
        let config: Vec<Row> = config.collect();
        let evals = self.evals.iter();
        let evals = evals.flat_map(|(EvalKey { step, set, target }, found)| {
            let row = |metric, cell: fn(&EvalSummary) -> Option<Cell>| {
                let cells = found.iter().map(|eval| {
                    let Some(eval) = eval else {
                        return Cell::Unknown("no eval");
                    };
                    Cell::known(cell(&eval.summary), "no expected answers")
                });
                Row::new(format!("step {step} {set} {target}, {metric}"), cells)
            };
            let is_told = |eval: &Option<Eval>| {
                eval.as_ref()
                    .is_some_and(|eval| eval.summary.invented.is_some())
            };
            let invented = found
                .iter()
                .any(is_told)
                .then(|| row("invented", invented_cell));
            [
                row("valid", |found| {
                    Some(Cell::interval(found.valid, found.valid_interval))
                }),
                row("exact", |found| {
                    Some(Cell::interval(found.exact?, found.interval("exact")))
                }),
            ]
            .into_iter()
            .chain(invented)
        });
        let metrics = self.metrics.iter().map(|(name, values)| {
            let cell = |value: &Option<f64>| Cell::known(value.map(Cell::Amount), "not measured");
            Row::new(name, values.iter().map(cell))
        });
        let mut page = vec![table(about)];
        page.extend(self.results());
        if !rates.is_empty() {
            page.push(Block::heading("rates"));
            page.extend(rates);
        }
        page.push(Block::heading("configuration"));
        page.push(match config.is_empty() {
            true => Block::info("configurations are identical"),
            false => table(config),
        });
        page.extend([Block::heading("evals"), table(evals.collect())]);
        page.extend([
            Block::heading("metrics at the last step"),
            table(metrics.collect()),
        ]);
        page
    }

    fn results(&self) -> Vec<Block> {
        let mut page = Vec::new();
        let rows = self.rows.iter().skip(1);
        for ((row, result), reasons) in rows.zip(&self.results).zip(&self.not_compared) {
            let second = match self.rows.len() {
                2 => "second run",
                _ => row.directory.id(),
            };
            for found in result {
                let set = &found.set;
                page.push(Block::heading(format!(
                    "{second} vs the first on the same {set} prompts"
                )));
                page.extend(verdict(&found.valid, found.exact.as_ref()));
                if found.other_prompts > 0 {
                    let answers = counted(found.other_prompts, "answer");
                    let text = format!(
                        "not compared: {answers} whose prompt is not the same in both runs"
                    );
                    page.push(Block::List(vec![text]));
                }
            }
            page.extend(reasons.iter().map(|reason| {
                Block::heading(format!("{second} vs the first: not compared: {reason}"))
            }));
        }
        let comparisons = self.results.iter().flatten().count();
        if comparisons > 1 {
            let text = format!(
                "verdicts by p-values adjusted by Holm's method for {comparisons} comparisons"
            );
            page.push(Block::heading(text));
        }
        if !self.task_files.is_empty() {
            let files = self.task_files.join(", ");
            page.push(Block::heading(format!("task files that differ: {files}")));
        }
        page
    }
}

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

pub(super) fn changed_files(runs: &[&RunFile]) -> Vec<String> {
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.task_files.keys()).collect();
    let differs = |name: &&String| {
        runs.windows(2)
            .any(|pair| pair[0].task_files.get(*name) != pair[1].task_files.get(*name))
    };
    names.into_iter().filter(differs).cloned().collect()
}

/// Compares the results of two runs on each task, on the first set on which both were evaluated, as one of
/// `comparisons`; and why what is not compared is not.
fn results(
    first: &Report,
    second: &Report,
    comparisons: usize,
) -> (Vec<ResultComparison>, Vec<String>) {
    let (mut found, mut not_compared) = (Vec::new(), Vec::new());
    for task in first.directory.task_names() {
        let evals = SetName::held_out(&[task]).into_iter().find_map(|set| {
            let id = |run: &Report| {
                let Eval { step, target, .. } = run.history.result(&set, run.best())?;
                Some(EvalId {
                    folder: run.directory.path().to_owned(),
                    step: *step,
                    set: set.clone(),
                    target: target.to_string(),
                })
            };
            Some([id(first)?, id(second)?])
        });
        // Without evals of both there is nothing to say.
        let Some([before, after]) = evals else {
            continue;
        };
        let look_of = |run: &Report, set: &SetName| {
            let look = run.history.result(set, run.best())?.look.as_ref()?;
            Some(look.number)
        };
        let look = look_of(first, &after.set).max(look_of(second, &after.set));
        let files = [first, second].map(|run| &run.directory.file().task_files);
        let compared = if files[0] == files[1] {
            same_task(&before, &after, comparisons, look)
        } else {
            result(before, after, comparisons, look)
        };
        match compared {
            Ok(result) => found.push(result),
            Err(error) => not_compared.push(error.to_string()),
        }
    }
    (found, not_compared)
}

fn same_task(
    before: &EvalId,
    after: &EvalId,
    comparisons: usize,
    look: Option<u64>,
) -> Result<ResultComparison, ReportError> {
    let (first, second) = (read_evals(&before.path())?, read_evals(&after.path())?);
    compared(&before.set, [&first, &second], comparisons, look)
}

/// # Errors
/// Fails if no prompt is in both.
fn compared(
    set: &SetName,
    [first, second]: [&[EvalRecord]; 2],
    comparisons: usize,
    look: Option<u64>,
) -> Result<ResultComparison, ReportError> {
    let (valid, exact) = MetricComparison::both(first, second, comparisons, look);
    if valid.n == 0 {
        return Err(ReportError::Unlike(format!(
            "the {set} sets share no prompt"
        )));
    }
    Ok(ResultComparison {
        set: set.clone(),
        comparison: valid.comparison,
        other_prompts: 0,
        valid,
        exact,
    })
}

/// # Errors
/// Why two evals are not comparable: other tasks, other prompts, or other rules of what is right.
fn result(
    before: EvalId,
    after: EvalId,
    comparisons: usize,
    look: Option<u64>,
) -> Result<ResultComparison, ReportError> {
    let set = before.set.clone();
    let [before, after] = [
        EvalResult::read(before, true)?,
        EvalResult::read(after, true)?,
    ];
    let unlike = |what: String| Err(ReportError::Unlike(what));
    if before.task != after.task {
        return unlike(format!("the tasks are {} and {}", before.task, after.task));
    }
    if before.prompt_rules != after.prompt_rules {
        return unlike(format!(
            "the prompts of {} differ in `system`, `thinking` or `template_kwargs` of task.toml",
            before.task
        ));
    }
    if before.schema_digest != after.schema_digest {
        return unlike(format!(
            "scored with different {}s; to re-score all answers by one task, add --rescore TASK",
            before.judge
        ));
    }
    let is_same = |record: &&EvalRecord| {
        let row = |eval: &EvalResult| {
            let row = eval.rows.get(&record.prompt_id)?;
            Some((row.messages.clone(), row.fields.clone()))
        };
        before.prompts_digest == after.prompts_digest
            || row(&before).is_some_and(|row_before| Some(row_before) == row(&after))
    };
    let same = |eval: &EvalResult| -> Vec<EvalRecord> {
        eval.records.iter().filter(is_same).cloned().collect()
    };
    let (first, second) = (same(&before), same(&after));
    let answers = before.records.len() + after.records.len();
    Ok(ResultComparison {
        other_prompts: answers - first.len() - second.len(),
        ..compared(&set, [&first, &second], comparisons, look)?
    })
}
