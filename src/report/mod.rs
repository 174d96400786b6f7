//! A run as one HTML file, CSV or JSON lines.

mod html;
mod page;
mod svg;
mod tables;

pub use html::{Page, html};
pub use tables::{csv, json_lines};

use crate::run::{EvalSummary, RunDirectory, RunError, RunState, State, Status, list_checkpoints};
use crate::statistics::smooth;

/// How much of the past a smoothed series keeps: it averages about the last ten values.
pub const SMOOTHING: f64 = 0.9;

/// One run as its files tell it.
#[derive(Debug)]
pub struct Report {
    /// The folder and `run.toml`.
    pub directory: RunDirectory,
    /// What its events say.
    pub history: RunState,
    /// What its worker said last; `None` before any worker has spoken.
    pub state: Option<State>,
    /// Steps of the checkpoints that there are.
    pub checkpoints: Vec<u64>,
}

impl Report {
    /// Reads a run.
    ///
    /// # Errors
    /// [`RunError`] naming the file.
    pub fn read(directory: RunDirectory) -> Result<Self, RunError> {
        let state = State::observe(directory.path());
        let history = RunState::read(directory.path())?;
        let checkpoints = list_checkpoints(directory.path())?;
        Ok(Self { directory, history, state, checkpoints })
    }

    /// Where the run stands.
    pub fn status(&self) -> Status {
        self.state.as_ref().map_or(Status::Created, |state| state.status)
    }

    /// Why it ended or waits.
    pub fn cause(&self) -> Option<String> {
        let said = self.state.as_ref().and_then(|state| state.cause.clone());
        said.or_else(|| self.history.end.as_ref().map(|end| end.cause.clone()))
    }

    /// The best of its checkpoints, by its own rule.
    pub fn best(&self) -> Option<u64> {
        self.history.best_step_by(&self.checkpoints, self.directory.file().config.keep_best_by)
    }

    /// The latest rates that say how good the run's model is, with the set they were measured on.
    pub fn latest_valid(&self) -> Option<(&'static str, &EvalSummary)> {
        let of = |set: &'static str| self.history.latest_eval(set, "trained").map(|eval| (set, &eval.summary));
        of("proof").or_else(|| of("eval"))
    }

    /// The last value of a metric; `smoothed`: of its moving average.
    pub fn metric(&self, name: &str, smoothed: bool) -> Option<f64> {
        let series = self.history.metrics.get(name)?;
        if smoothed { smooth(series.values(), SMOOTHING).last().copied() } else { series.last() }
    }

    /// Time of all steps.
    pub fn computed_seconds(&self) -> f64 {
        self.history.metrics.get("seconds").map_or(0.0, |series| series.values().iter().filter(|value| value.is_finite()).sum())
    }
}
