//! A sweep as a table: what each setting has come to over its seeds, which is best by the eval set, and what the test
//! set says of that one.

use serde_json::{Value, json};

use super::axes::Setting;
use super::comparison::{ArmComparison, EvalDifference};
use super::error::StudyError;
use super::measure::{MeasuredRun, Metric};
use super::sweep::{Sweep, SweepFolder, SweepRun};
use crate::format::{counted, percent};
use crate::page::{Block, Cell, Level, Row, Table};
use crate::run::{RunDirectory, RunError, Status};
use crate::statistics::{OverRuns, Spread, Verdict, holm, over_runs};

/// Settings that a sentence names.
const MAX_NAMED: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunPhase {
    Planned,
    Active(Status),
    Finished,
    Interrupted(String),
    Failed(String),
}

#[derive(Debug, Clone)]
pub struct RunOfSweep {
    pub run: SweepRun,
    pub name: String,
    pub phase: RunPhase,
    /// `None` before it was started, or if its folder is gone.
    pub measured: Option<MeasuredRun>,
}

#[derive(Debug, Clone)]
pub struct SettingRow {
    pub label: String,
    pub runs: Vec<RunOfSweep>,
    /// The metric of the best checkpoints on the eval set.
    pub eval: Option<OverRuns>,
}

#[derive(Debug, Clone)]
pub struct SweepTable {
    pub sweep: Sweep,
    pub metric: Metric,
    pub is_active: bool,
    pub rows: Vec<SettingRow>,
    pub base: Option<f64>,
    /// The setting with the highest mean, of those that finished all their seeds.
    pub best: Option<usize>,
    /// The best setting against each other one that finished all its seeds.
    pub differences: Vec<EvalDifference>,
    /// The best setting against the base.
    pub comparison: Option<ArmComparison>,
}

/// How far a run came.
#[derive(Debug, Clone, Copy)]
pub struct RunStanding<'a> {
    pub status: Status,
    pub step: u64,
    pub cause: Option<&'a str>,
}

impl RunPhase {
    /// `found`: what the run's folder says.
    pub fn for_run(run: &SweepRun, found: Option<RunStanding<'_>>) -> Self {
        let Some(found) = found else {
            return match (&run.problem, &run.id) {
                (Some(problem), _) => Self::Failed(problem.clone()),
                (None, Some(id)) => Self::Failed(format!("its folder {id} is gone")),
                (None, None) => Self::Planned,
            };
        };
        let cause = || found.cause.unwrap_or_default().to_owned();
        match found.status {
            Status::Finished => Self::Finished,
            Status::Failed => Self::Failed(cause()),
            Status::Interrupted => Self::Interrupted(cause()),
            Status::Created if run.problem.is_some() => {
                Self::Failed(run.problem.clone().unwrap_or_default())
            }
            status => Self::Active(status),
        }
    }

    pub fn word(&self) -> &'static str {
        match self {
            Self::Planned => "not started",
            Self::Active(status) => status.name(),
            Self::Finished => "finished",
            Self::Interrupted(_) => "interrupted",
            Self::Failed(_) => "failed",
        }
    }
}

impl SettingRow {
    /// `finished`, or `2 finished, 1 running (step 12)`.
    pub fn state(&self) -> String {
        let mut words: Vec<(&str, usize)> = Vec::new();
        for run in &self.runs {
            match words.iter_mut().find(|(word, _)| *word == run.phase.word()) {
                Some((_, count)) => *count += 1,
                None => words.push((run.phase.word(), 1)),
            }
        }
        match words.as_slice() {
            [(word, _)] => (*word).to_owned(),
            _ => words
                .iter()
                .map(|(word, count)| format!("{count} {word}"))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    fn steps(&self) -> Option<Cell> {
        let steps = || self.measured().map(|run| run.step);
        let (least, most) = (steps().min()?, steps().max()?);
        Some(match least == most {
            true => Cell::Count(usize::try_from(most).unwrap_or(usize::MAX)),
            false => format!("{least} to {most}").into(),
        })
    }

    /// The rates of the last evals, the mean over its runs: `98.0% (exact 97.0%)`.
    fn latest(&self) -> Option<Cell> {
        let valid = Cell::rate(self.over(|run| Some(run.latest?.valid))?.mean);
        Some(match self.over(|run| run.latest?.exact) {
            Some(exact) => Cell::Noted(Box::new(valid), format!("exact {}", percent(exact.mean))),
            None => valid,
        })
    }

    pub fn measured(&self) -> impl Iterator<Item = &MeasuredRun> {
        self.runs.iter().filter_map(|run| run.measured.as_ref())
    }

    pub fn is_finished(&self) -> bool {
        self.runs.iter().all(|run| run.phase == RunPhase::Finished)
    }

    pub fn over(&self, of: impl Fn(&MeasuredRun) -> Option<f64>) -> Option<OverRuns> {
        over_runs(&self.measured().filter_map(of).collect::<Vec<_>>())
    }
}

impl SweepTable {
    /// Reads all runs.
    ///
    /// # Errors
    /// [`StudyError`] of the sweep's own file; a run that cannot be read is shown as failed.
    pub fn read(folder: &SweepFolder) -> Result<Self, StudyError> {
        Ok(Self::for_sweep(folder, folder.read()?))
    }

    pub fn for_sweep(folder: &SweepFolder, sweep: Sweep) -> Self {
        let of_run = |(index, run): (usize, &SweepRun)| {
            let read = |id: &String| {
                RunDirectory::open(&folder.runs().join(id))
                    .and_then(|run| MeasuredRun::read(run, sweep.metric))
            };
            let (found, unreadable) = match run.id.as_ref().map(read) {
                Some(Ok(found)) => (Some(found), None),
                Some(Err(RunError::NotARun { .. })) | None => (None, None),
                Some(Err(error)) => (None, Some(error.to_string())),
            };
            let state = found.as_ref().map(|found| RunStanding {
                status: found.status,
                step: found.step,
                cause: found.cause.as_deref(),
            });
            let phase = RunPhase::for_run(run, state);
            let phase = unreadable.map_or(phase, RunPhase::Failed);
            RunOfSweep {
                run: run.clone(),
                name: sweep.run_name(index),
                phase,
                measured: found,
            }
        };
        let runs: Vec<RunOfSweep> = sweep.runs.iter().enumerate().map(of_run).collect();
        let row = |(place, setting): (usize, &Setting)| {
            let runs: Vec<RunOfSweep> = runs
                .iter()
                .filter(|run| run.run.setting == place)
                .cloned()
                .collect();
            let best: Vec<f64> = runs
                .iter()
                .filter_map(|run| Some(run.measured.as_ref()?.best?.1))
                .collect();
            SettingRow {
                label: setting.label.clone(),
                runs,
                eval: over_runs(&best),
            }
        };
        let rows: Vec<SettingRow> = sweep.settings.iter().enumerate().map(row).collect();
        let base = rows
            .iter()
            .flat_map(SettingRow::measured)
            .find_map(|run| Some(run.curve.first()?.1));
        let best = best_of(&rows);
        let mut table = Self {
            metric: sweep.metric,
            is_active: folder.is_active(),
            rows,
            base,
            best,
            differences: Vec::new(),
            comparison: None,
            sweep,
        };
        if let Some(best) = best.map(|best| &table.rows[best]) {
            table.comparison = ArmComparison::with_base(&best.label, best.measured());
            table.differences = table.differences_from(best);
        }
        table
    }

    /// Adjusted by Holm's method.
    fn differences_from(&self, best: &SettingRow) -> Vec<EvalDifference> {
        fn runs(row: &SettingRow) -> Vec<&MeasuredRun> {
            row.measured().collect()
        }
        let others = self.rows.iter().filter(|row| row.label != best.label);
        let mut found: Vec<EvalDifference> = others
            .filter(|row| row.is_finished())
            .filter_map(|row| {
                EvalDifference::between(&row.label, self.metric, &runs(best), &runs(row))
            })
            .collect();
        let p: Vec<f64> = found.iter().filter_map(|one| one.p).collect();
        for (one, p) in found.iter_mut().zip(holm(&p)) {
            one.decide(Some(p));
        }
        found
    }

    /// `3 of 9 runs finished, 1 running, 5 not started`.
    pub fn progress(&self) -> String {
        let runs: Vec<&RunOfSweep> = self.rows.iter().flat_map(|row| &row.runs).collect();
        let finished = runs
            .iter()
            .filter(|run| run.phase == RunPhase::Finished)
            .count();
        let mut text = format!("{finished} of {} finished", counted(runs.len(), "run"));
        let mut words: Vec<&str> = runs
            .iter()
            .filter(|run| run.phase != RunPhase::Finished)
            .map(|run| run.phase.word())
            .collect();
        words.sort_unstable();
        for chunk in words.chunk_by(|a, b| a == b) {
            text += &format!(", {} {}", chunk.len(), chunk[0]);
        }
        text
    }

    /// A row a setting.
    fn table(&self) -> Table {
        let eval = format!("eval {}", self.metric.name());
        let head = ["setting", "n", &eval, "last valid", "steps", "state"];
        let row = |(place, row): (usize, &SettingRow)| {
            let cells = [
                Cell::Count(row.eval.map_or(0, |eval| eval.n)),
                Cell::known(row.eval.map(|eval| self.shown(eval)), "no eval yet"),
                Cell::known(row.latest(), "no eval yet"),
                Cell::known(row.steps(), "not started"),
                row.state().into(),
            ];
            let level = match self.best == Some(place) && self.has_winner() {
                true => Level::Good,
                false => Level::Info,
            };
            Row {
                level,
                ..Row::new(row.label.as_str(), cells)
            }
        };
        let rows = self.rows.iter().enumerate().map(row).collect();
        Table {
            left_out: &[3],
            ..Table::new(&head, "lrl", rows)
        }
    }

    fn shown(&self, over: OverRuns) -> Cell {
        match (self.metric.is_share(), over.spread) {
            (true, _) => rate(over),
            (false, Spread::OneRun) => Cell::Number(over.mean, 3),
            (false, _) => Cell::Estimate(over.mean, [over.low, over.high], 3),
        }
    }

    fn bounds(&self) -> Option<String> {
        let spreads = self
            .rows
            .iter()
            .filter_map(|row| row.eval)
            .map(|eval| eval.spread);
        spreads
            .max_by_key(|spread| *spread as u8)
            .map(|spread| spread.described("run"))
    }

    /// Whether the best setting is better than every other that finished, by more than chance.
    fn has_winner(&self) -> bool {
        let mut all = self.differences.iter();
        !self.differences.is_empty() && all.all(|one| one.verdict == Verdict::Better)
    }

    fn best_text(&self, best: &str) -> String {
        let Some(first) = self.differences.first() else {
            return format!("the only setting that finished every seed: {best}");
        };
        let (metric, seeds) = (self.metric.name(), self.sweep.seeds().len());
        let n = format!("n = {} prompts, {}", first.n, counted(seeds, "seed"));
        let of = |is_better: bool| {
            let those = self.differences.iter();
            let those = those.filter(|one| (one.verdict == Verdict::Better) == is_better);
            let mut texts: Vec<String> = those.map(|one| one.text(self.metric)).collect();
            let more = texts.len().saturating_sub(MAX_NAMED);
            texts.truncate(MAX_NAMED);
            texts.extend((more > 0).then(|| format!("{more} more")));
            texts.join(", ")
        };
        match (of(true), of(false)) {
            (better, same) if same.is_empty() => {
                format!("best by the eval set ({n}): {best}, better than {better}")
            }
            (better, same) => {
                let better = match better.is_empty() {
                    true => String::new(),
                    false => format!("; better than {better}"),
                };
                format!(
                    "no best setting by the eval set ({n}): {best} has the highest {metric}, no difference found from {same}{better}"
                )
            }
        }
    }

    /// What the table comes to.
    fn notes(&self) -> Vec<Block> {
        let mut notes = Vec::new();
        if let Some(base) = self.base {
            let base = match self.metric.is_share() {
                true => Cell::rate(base),
                false => Cell::Number(base, 3),
            };
            let metric = self.metric.name();
            notes.push(Block::detail(format!(
                "base on the eval set: {metric} {base}"
            )));
        }
        if let Some(bounds) = self.bounds() {
            notes.push(Block::detail(format!(
                "mean [{bounds}] of the best checkpoints; a run counts once"
            )));
        }
        match self.best.map(|best| &self.rows[best]) {
            Some(best) => {
                notes.push(Block::info(self.best_text(&best.label)));
                let shown = |over: Option<OverRuns>| Cell::known(over.map(rate), "not measured");
                let mean = |over: Option<OverRuns>| {
                    Cell::known(over.map(|over| Cell::rate(over.mean)), "not measured")
                };
                notes.push(Block::info(format!(
                    "test set, measured by each of its runs once, at the end: valid {} (base {}), exact {} (base {})",
                    shown(best.over(|run| Some(run.test.as_ref()?.valid))),
                    mean(best.over(|run| Some(run.test.as_ref()?.base_valid))),
                    shown(best.over(|run| run.test.as_ref()?.exact)),
                    mean(best.over(|run| run.test.as_ref()?.base_exact)),
                )));
            }
            None => notes.push(Block::detail(
                "no setting has finished every seed: none is best yet",
            )),
        }
        notes.extend(self.comparison.iter().flat_map(ArmComparison::page));
        let failed = |run: &RunOfSweep| {
            let (level, cause) = match &run.phase {
                RunPhase::Failed(cause) => (Level::Error, cause),
                RunPhase::Interrupted(cause) => (Level::Warning, cause),
                _ => return None,
            };
            let text = format!("{} {}: {cause}", run.name, run.phase.word());
            Some(Block::Finding(level, text))
        };
        notes.extend(
            self.rows
                .iter()
                .flat_map(|row| &row.runs)
                .filter_map(failed),
        );
        notes
    }

    /// `lr: sweep of task invoice, 3 seeds; 9 of 9 runs finished`, the table, and what it comes to.
    pub fn page(&self) -> Vec<Block> {
        let seeds = counted(self.sweep.seeds().len(), "seed");
        let head = format!(
            "{}: sweep of task {}, {seeds}; {}{}",
            self.sweep.name,
            self.sweep.task_names(),
            self.progress(),
            if self.is_active { "; active" } else { "" }
        );
        let table = [Block::heading(head), Block::Table(self.table())];
        table.into_iter().chain(self.notes()).collect()
    }

    pub fn document(&self) -> Value {
        let row = |(place, row): (usize, &SettingRow)| {
            let run = |run: &RunOfSweep| {
                json!({"name": run.name, "seed": run.run.seed, "run": run.run.id, "state": run.phase.word(), "measured": run.measured,
                "problem": match &run.phase {
                    RunPhase::Failed(cause) | RunPhase::Interrupted(cause) => Some(cause),
                    _ => None,
                }})
            };
            json!({"setting": row.label, "set": self.sweep.settings[place].set, "eval": row.eval, "test_valid": row.over(|run| Some(run.test.as_ref()?.valid)),
                "test_exact": row.over(|run| run.test.as_ref()?.exact), "runs": row.runs.iter().map(run).collect::<Vec<_>>()})
        };
        json!({"name": self.sweep.name, "task": self.sweep.tasks().join(" "), "metric": self.metric.name(),
            "seeds": self.sweep.seeds(), "active": self.is_active, "seconds": self.sweep.seconds, "base": self.base,
            "settings": self.rows.iter().enumerate().map(row).collect::<Vec<_>>(),
            "best": self.best.map(|best| &self.rows[best].label), "has_winner": self.has_winner(), "differences": self.differences,
            "comparisons": self.comparison.iter().map(ArmComparison::document).collect::<Vec<_>>()})
    }
}

/// The best setting that finished every seed; the first one of a tie.
fn best_of(rows: &[SettingRow]) -> Option<usize> {
    let finished = rows.iter().enumerate().filter(|(_, row)| row.is_finished());
    finished
        .filter_map(|(place, row)| Some((place, row.eval?.mean)))
        .fold(None, |best: Option<(usize, f64)>, found| match best {
            Some(best) if best.1 >= found.1 => Some(best),
            _ => Some(found),
        })
        .map(|(place, _)| place)
}

/// Without bounds for one run.
fn rate(over: OverRuns) -> Cell {
    // An interval of a mean of rates may reach beyond them; one from 0 to exactly 1 would say that there is none.
    let bounds = [over.low, over.high].map(|bound| bound.clamp(0.0, 1.0 - f64::EPSILON));
    Cell::Rate {
        value: over.mean,
        interval: (over.spread != Spread::OneRun).then_some(bounds),
        n: None,
    }
}
