//! A sweep as a table: what each setting has come to over its seeds, which is best by the eval set, and what the test
//! set says of that one.

use serde_json::{Value, json};

use super::axes::Setting;
use super::comparison::ArmComparison;
use super::error::StudyError;
use super::measure::{MeasuredRun, Metric};
use super::sweep::{Sweep, SweepFolder, SweepRun};
use crate::format::{amount, counted, duration, or_na, percent};
use crate::report::text_table;
use crate::run::{RunDirectory, RunError, Status};
use crate::secrets::visible;
use crate::statistics::{OverRuns, Spread, over_runs};

/// The title of [`SettingRow::latest`].
pub const LAST_RATES: &str = "last valid, exact";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunPhase {
    Planned,
    Active(Status),
    /// Stopped at a rung, to be compared.
    AtRung(u64),
    Pruned(u64),
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
    pub group: String,
    pub pruned: Option<u64>,
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
    /// In a sweep the best setting against the base; in a study its pairs.
    pub comparisons: Vec<ArmComparison>,
}

/// How far a run came.
#[derive(Debug, Clone, Copy)]
pub struct RunStanding<'a> {
    pub status: Status,
    pub step: u64,
    pub cause: Option<&'a str>,
}

impl RunPhase {
    /// `stop`: the rung of the runs. `found`: what the run's folder says.
    pub fn for_run(
        run: &SweepRun,
        setting: &Setting,
        stop: Option<u64>,
        found: Option<RunStanding<'_>>,
    ) -> Self {
        let Some(found) = found else {
            return match (&run.problem, &run.id) {
                (Some(problem), _) => Self::Failed(problem.clone()),
                (None, Some(id)) => Self::Failed(format!("its folder {id} is gone")),
                (None, None) => setting.pruned.map_or(Self::Planned, Self::Pruned),
            };
        };
        let cause = || found.cause.unwrap_or_default().to_owned();
        match found.status {
            Status::Finished => Self::Finished,
            Status::Failed => Self::Failed(cause()),
            Status::Interrupted => match (setting.pruned, stop) {
                (Some(step), _) => Self::Pruned(step),
                (None, Some(step)) if found.step >= step => Self::AtRung(step),
                _ => Self::Interrupted(cause()),
            },
            Status::Created if run.problem.is_some() => {
                Self::Failed(run.problem.clone().unwrap_or_default())
            }
            status => Self::Active(status),
        }
    }

    /// Whether the sweep has nothing more to do with it.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Pruned(_) | Self::Finished | Self::Failed(_))
    }

    pub fn word(&self) -> &'static str {
        match self {
            Self::Planned => "not started",
            Self::Active(status) => status.name(),
            Self::AtRung(_) => "at rung",
            Self::Pruned(_) => "pruned",
            Self::Finished => "finished",
            Self::Interrupted(_) => "interrupted",
            Self::Failed(_) => "failed",
        }
    }
}

impl SettingRow {
    /// `finished`, or `2 finished, 1 running (step 12)`.
    pub fn state(&self) -> String {
        if let Some(step) = self.pruned {
            return format!("pruned at step {step}");
        }
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

    pub fn steps(&self) -> String {
        let steps = || self.measured().map(|run| run.step);
        match (steps().min(), steps().max()) {
            (Some(least), Some(most)) if least == most => most.to_string(),
            (Some(least), Some(most)) => format!("{least} to {most}"),
            _ => "-".to_owned(),
        }
    }

    /// The rates of the last evals, the mean over its runs: `98.0%, 97.0%`.
    pub fn latest(&self) -> String {
        let valid = self.over(|run| Some(run.latest?.valid));
        let exact = self.over(|run| run.latest?.exact);
        let rates = valid.into_iter().chain(exact);
        let rates: Vec<String> = rates.map(|over| percent(over.mean)).collect();
        if rates.is_empty() {
            "n/a".to_owned()
        } else {
            rates.join(", ")
        }
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
        let stop = sweep.halving.as_ref().and_then(super::Halving::stop);
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
            let phase = RunPhase::for_run(run, &sweep.settings[run.setting], stop, state);
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
                group: setting.group.clone(),
                pruned: setting.pruned,
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
            comparisons: Vec::new(),
            sweep,
        };
        table.comparisons = table.compared();
        table
    }

    fn compared(&self) -> Vec<ArmComparison> {
        let own = self
            .best
            .filter(|_| self.sweep.study.is_none())
            .map(|best| [None, Some(best)]);
        let pairs: Vec<[Option<usize>; 2]> = self.sweep.pairs.iter().copied().chain(own).collect();
        let of_seed = |place: usize, seed: u64| {
            self.rows[place]
                .runs
                .iter()
                .find(|run| run.run.seed == seed)
                .and_then(|run| run.measured.as_ref())
        };
        let comparison = |[first, second]: &[Option<usize>; 2]| {
            let second = (*second)?;
            let before = first.unwrap_or_else(|| self.sweep.origin(second));
            let both = |seed: u64| Some((of_seed(before, seed)?, of_seed(second, seed)?));
            let runs: Vec<_> = self.sweep.seeds().into_iter().filter_map(both).collect();
            let label =
                first.map_or_else(|| "base".to_owned(), |first| self.rows[first].label.clone());
            ArmComparison::between(
                [label, self.rows[second].label.clone()],
                first.is_none(),
                &runs,
                pairs.len(),
            )
        };
        let mut found: Vec<ArmComparison> = pairs.iter().filter_map(comparison).collect();
        ArmComparison::adjust(&mut found);
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
            .map(|run| run.phase.word())
            .filter(|word| *word != "finished")
            .collect();
        words.sort_unstable();
        for chunk in words.chunk_by(|a, b| a == b) {
            text += &format!(", {} {}", chunk.len(), chunk[0]);
        }
        text
    }

    /// The columns of [`Self::cells`].
    pub fn titles(&self) -> Vec<String> {
        let mut titles = vec![
            "setting".to_owned(),
            "n".to_owned(),
            format!("eval {}", self.metric.name()),
            LAST_RATES.to_owned(),
            "steps".to_owned(),
        ];
        let titles_of_study = [
            "test valid",
            "test exact",
            "mixed groups",
            "clipped",
            "time",
        ];
        if self.sweep.study.is_some() {
            titles.extend(titles_of_study.map(str::to_owned));
        }
        titles.push("state".to_owned());
        titles
    }

    /// A line a setting.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let row = |row: &SettingRow| {
            let n = row.eval.map_or(0, |eval| eval.n).to_string();
            let mut cells = vec![
                row.label.clone(),
                n,
                or_na(row.eval, |eval| self.shown(eval)),
                row.latest(),
                row.steps(),
            ];
            if self.sweep.study.is_some() {
                let rate = |found: Option<OverRuns>| or_na(found, rate);
                cells.push(rate(row.over(|run| Some(run.test.as_ref()?.valid))));
                cells.push(rate(row.over(|run| run.test.as_ref()?.exact)));
                cells.push(or_na(row.over(|run| run.mixed_groups), |found| {
                    percent(found.mean)
                }));
                cells.push(or_na(row.over(|run| run.clipped), |found| {
                    percent(found.mean)
                }));
                cells.push(or_na(row.over(|run| Some(run.seconds)), |found| {
                    duration(found.mean)
                }));
            }
            cells.push(row.state());
            cells
        };
        self.rows.iter().map(row).collect()
    }

    fn shown(&self, over: OverRuns) -> String {
        if self.metric.is_share() {
            rate(over)
        } else {
            number(over)
        }
    }

    fn bounds(&self) -> Option<&'static str> {
        let spreads = self
            .rows
            .iter()
            .filter_map(|row| row.eval)
            .map(|eval| eval.spread);
        spreads
            .max_by_key(|spread| *spread as u8)
            .map(Spread::described)
    }

    pub fn notes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(base) = self.base {
            let base = if self.metric.is_share() {
                percent(base)
            } else {
                amount(base)
            };
            lines.push(format!(
                "base on the eval set: {} {base}",
                self.metric.name()
            ));
        }
        if let Some(bounds) = self.bounds() {
            lines.push(format!(
                "mean [{bounds}] of the best checkpoints; a run counts once"
            ));
        }
        if self.sweep.study.is_none() {
            match self.best.map(|best| &self.rows[best]) {
                Some(best) => {
                    lines.push(format!(
                        "best by the eval set, of those that finished every seed: {}",
                        best.label
                    ));
                    let of_test = |of: fn(&super::measure::TestResult) -> Option<f64>| {
                        or_na(best.over(|run| of(run.test.as_ref()?)), rate)
                    };
                    lines.push(format!(
                        "test set, measured by each of its runs once, at the end: valid {} (base {}), exact {} (base {})",
                        of_test(|test| Some(test.valid)),
                        or_na(best.over(|run| Some(run.test.as_ref()?.base_valid)), |found| percent(found.mean)),
                        of_test(|test| test.exact),
                        or_na(best.over(|run| run.test.as_ref()?.base_exact), |found| percent(found.mean)),
                    ));
                }
                None => {
                    lines.push("no setting has finished every seed: none is best yet".to_owned())
                }
            }
        }
        for comparison in &self.comparisons {
            lines.push(format!("test set, {}", comparison.sentence()));
            if let Some(over) = comparison.over_seeds.filter(|over| over.n > 1) {
                let points = |value: f64| format!("{:+.1}", 100.0 * value);
                let bounds = format!("{}, {}", points(over.low), points(over.high));
                lines.push(format!(
                    "  valid, paired by seed: {} points [{bounds}], {}",
                    points(over.mean),
                    over.spread.described().replace("runs", "seeds")
                ));
            }
        }
        if self.comparisons.len() > 1 {
            lines.push(format!(
                "p-values are paired by prompt, the seeds being samples of a prompt, and Holm-adjusted for {} comparisons",
                self.comparisons.len()
            ));
        }
        let failed = self
            .rows
            .iter()
            .flat_map(|row| &row.runs)
            .filter_map(|run| match &run.phase {
                RunPhase::Failed(cause) => Some(format!("{} failed: {cause}", run.name)),
                RunPhase::Interrupted(cause) => {
                    Some(format!("{} is interrupted: {cause}", run.name))
                }
                _ => None,
            });
        lines.extend(failed);
        lines
    }

    /// `lr: sweep of task invoice, 3 seeds; 9 of 9 runs finished`.
    pub fn head(&self) -> String {
        let seeds = counted(self.sweep.seeds().len(), "seed");
        let task = self.sweep.task_names();
        format!(
            "{}: {} of task {task}, {seeds}; {}",
            self.sweep.name,
            self.sweep.kind(),
            self.progress()
        )
    }

    pub fn text(&self) -> String {
        let mut rows = vec![self.titles()];
        rows.extend(self.cells());
        let align: String = self
            .titles()
            .iter()
            .map(|title| if title == "n" { 'r' } else { 'l' })
            .collect();
        let notes: String = self
            .notes()
            .iter()
            .map(|note| visible(note).into_owned() + "\n")
            .collect();
        format!(
            "{}\n\n{}\n{notes}",
            visible(&self.head()),
            text_table(&rows, &align)
        )
    }

    pub fn markdown(&self) -> String {
        let cell = |text: &String| visible(text).replace('|', "\\|");
        let line = |cells: &[String]| {
            format!(
                "| {} |\n",
                cells.iter().map(cell).collect::<Vec<_>>().join(" | ")
            )
        };
        let titles = self.titles();
        let rule = vec!["---".to_owned(); titles.len()];
        let rows: String = self.cells().iter().map(|cells| line(cells)).collect();
        let notes: String = self
            .notes()
            .iter()
            .map(|note| format!("- {}\n", visible(note.trim_start())))
            .collect();
        format!(
            "{}\n\n{}{}{rows}\n{notes}",
            visible(&self.head()),
            line(&titles),
            line(&rule)
        )
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
            json!({"setting": row.label, "set": self.sweep.settings[place].set, "group": row.group, "pruned_at": row.pruned,
                "eval": row.eval, "test_valid": row.over(|run| Some(run.test.as_ref()?.valid)),
                "test_exact": row.over(|run| run.test.as_ref()?.exact), "runs": row.runs.iter().map(run).collect::<Vec<_>>()})
        };
        let comparisons: Vec<Value> = self
            .comparisons
            .iter()
            .map(ArmComparison::document)
            .collect();
        json!({"name": self.sweep.name, "kind": self.sweep.kind(), "task": self.sweep.tasks().join(" "), "metric": self.metric.name(),
            "seeds": self.sweep.seeds(), "active": self.is_active, "seconds": self.sweep.seconds, "base": self.base,
            "settings": self.rows.iter().enumerate().map(row).collect::<Vec<_>>(),
            "best": self.best.map(|best| &self.rows[best].label), "comparisons": comparisons})
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

/// `62.0% [58.1, 65.9]`, without bounds for one run.
fn rate(over: OverRuns) -> String {
    match over.spread {
        Spread::OneRun => percent(over.mean),
        _ => {
            // An interval of a mean of rates may reach beyond them.
            let bound = |value: f64| 100.0 * value.clamp(0.0, 1.0);
            format!(
                "{} [{:.1}, {:.1}]",
                percent(over.mean),
                bound(over.low),
                bound(over.high)
            )
        }
    }
}

fn number(over: OverRuns) -> String {
    match over.spread {
        Spread::OneRun => amount(over.mean),
        _ => format!(
            "{} [{}, {}]",
            amount(over.mean),
            amount(over.low),
            amount(over.high)
        ),
    }
}
