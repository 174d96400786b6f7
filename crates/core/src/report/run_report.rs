//! A run as read from its files.

use super::run_outcome::RunOutcome;
use crate::facts::Cause;
use crate::files;
use crate::format::counted;
use crate::run::events::Eval;
use crate::run::{
    RunDirectory, RunError, RunState, SPARSE, SlurmJob, State, Status, damage_of, eval_damage,
    list_checkpoints, read_display_name, read_tags,
};
use crate::statistics::Smoothing;
use crate::task::{PromptSet, SetName};

/// The weight of the past in an EMA: about the last ten values.
pub const SMOOTHING: f64 = 0.9;

#[derive(Debug)]
pub struct Report {
    pub directory: RunDirectory,
    pub history: RunState,
    /// `None` before any worker has started.
    pub state: Option<State>,
    /// Set if the run was submitted to Slurm.
    pub slurm: Option<SlurmJob>,
    pub checkpoints: Vec<u64>,
    /// Sorted.
    pub tags: Vec<String>,
    /// Problems that do not prevent reading the run.
    pub warnings: Vec<String>,
}

impl Report {
    /// Without results on test sets where these are hidden ([`files::hide_files`]).
    pub fn read(directory: RunDirectory) -> Result<Self, RunError> {
        // Before the log, which is ahead of it.
        let written = State::written(directory.path());
        let (state, slurm) = (
            State::observe(directory.path()),
            SlurmJob::read(directory.path()),
        );
        let mut history = RunState::read(directory.path())?;
        if files::hides_test_sets() {
            let evals = &mut history.evals;
            evals.retain(|_, eval| !eval.is_on(PromptSet::Test));
        }
        let checkpoints = list_checkpoints(directory.path())?;
        let tags = read_tags(directory.path());
        let (private, name) = (
            directory.check_private(),
            read_display_name(directory.path()),
        );
        let problems = [
            private.as_ref().err(),
            tags.as_ref().err(),
            name.as_ref().err(),
        ];
        let warnings = problems
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .chain(
                damage_of(&directory, written.as_ref(), &history)
                    .into_iter()
                    .map(|(_, problem)| problem),
            )
            .collect();
        Ok(Self {
            directory,
            history,
            state,
            slurm,
            checkpoints,
            tags: tags.unwrap_or_default(),
            warnings,
        })
    }

    /// As [`Self::read`], for what shows answers as well: also verifies the evals and the frozen task.
    pub fn verified(directory: RunDirectory) -> Result<Self, RunError> {
        let mut report = Self::read(directory)?;
        let run = &report.directory;
        let edited = run.check_unedited().err().map(|error| error.to_string());
        let evals = report.history.evals.values();
        let evals = evals.filter_map(|eval| eval_damage(run.path(), eval));
        let found: Vec<String> = edited.into_iter().chain(evals).collect();
        report.warnings.extend(found);
        Ok(report)
    }

    pub fn status(&self) -> Status {
        self.state
            .as_ref()
            .map_or(Status::Created, |state| state.status)
    }

    pub fn cause(&self) -> Option<Cause> {
        let cause = self.state.as_ref().and_then(|state| state.cause.clone());
        // Until the worker of a resumed run writes, the log has the end of the one before.
        let is_over = self
            .state
            .as_ref()
            .is_none_or(|state| state.status.is_ended());
        cause.or_else(|| {
            self.history
                .end
                .as_ref()
                .filter(|_| is_over)
                .map(|end| end.cause.clone())
        })
    }

    /// `finished, step 40 of 40`.
    pub fn progress(&self) -> String {
        let total = self.history.planned_steps();
        let total = total.map_or_else(String::new, |total| format!(" of {total}"));
        format!(
            "{}, step {}{total}",
            self.status().name(),
            self.history.last_step
        )
    }

    /// Missing parts of the log; `None` if it is complete.
    pub fn log_damage(&self) -> Option<String> {
        let RunState {
            dropped_bytes,
            skipped,
            gaps,
            unknown,
            ..
        } = self.history;
        let newer = if unknown > 0 {
            format!(", {} of a newer kind", counted(unknown, "event"))
        } else {
            String::new()
        };
        let is_whole = (dropped_bytes, skipped, gaps, unknown) == (0, 0, 0, 0);
        (!is_whole).then(|| {
            format!(
                "{} dropped, {}, {} missing{newer}",
                counted(dropped_bytes as usize, "torn byte"),
                counted(skipped, "unreadable line"),
                counted(gaps as usize, "event"),
            )
        })
    }

    pub fn best(&self) -> Option<u64> {
        self.history
            .best_step_by(&self.checkpoints, self.directory.file().config.keep_best_by)
    }

    /// The eval of a task that represents the trained model, on the test set if possible, else on the eval set; see
    /// [`RunState::result`]. `task`: one of several by its name, else empty.
    pub fn result_of(&self, task: &str) -> Option<&Eval> {
        let best = self.best();
        let mut sets = SetName::held_out(&[task]).into_iter();
        sets.find_map(|set| self.history.result(&set, best))
    }

    pub fn outcome(&self) -> RunOutcome {
        RunOutcome::from_history(&self.history, self.best())
    }

    /// A metric at the last step, or its EMA; `None` if that step did not measure it.
    pub fn metric(&self, name: &str, smoothed: bool) -> Option<f64> {
        let last = self.history.metric_at(name, self.history.last_step)?;
        if !smoothed {
            return Some(last);
        }
        let mut smoothing = Smoothing::new(SMOOTHING);
        if name.starts_with(SPARSE) {
            let steps = self.history.metrics.get("seconds")?.steps();
            return steps
                .filter_map(|step| self.history.metric_at(name, step))
                .map(|value| smoothing.next(value))
                .last();
        }
        self.history
            .metrics
            .get(name)?
            .values()
            .iter()
            .map(|value| smoothing.next(*value))
            .last()
    }

    pub fn computed_seconds(&self) -> f64 {
        self.history.metrics.get("seconds").map_or(0.0, |series| {
            series
                .values()
                .iter()
                .filter(|value| value.is_finite())
                .sum()
        })
    }
}
