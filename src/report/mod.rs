//! What runs come to: one read whole, all in a list, some side by side; as HTML, CSV, JSON lines and plain text.

mod compare;
mod error;
mod filter;
mod html;
mod listing;
mod page;
mod passes;
mod row;
mod svg;
mod tables;
mod verdict;
mod versus;
mod versus_html;

pub use compare::RunsCompared;
pub use error::ReportError;
pub use filter::Filter;
pub use html::{Page, html};
pub use listing::{Entry, Listing};
pub use passes::{PROMPTS_FILE, Pass, PassId, base_and_trained, passes_of};
pub use row::{FIELDS, HeldOut, Latest, RunRow, order, unknown_field};
pub use tables::{csv, json_lines};
pub use verdict::{columns, rate_rows, rates, table, tag_rows, value_drift, verdict};
pub use versus::{Asked, Outcome, Paired, TIERS, Versus, points};
pub use versus_html::versus_html;

use crate::run::{EvalSummary, RunDirectory, RunError, RunState, State, Status, list_checkpoints, read_tags};
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
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// What is not as it should be and does not keep the run from being read.
    pub warnings: Vec<String>,
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
        let tags = read_tags(directory.path());
        let private = directory.check_private();
        let warnings = [private.as_ref().err(), tags.as_ref().err()].into_iter().flatten().map(ToString::to_string).collect();
        Ok(Self { directory, history, state, checkpoints, tags: tags.unwrap_or_default(), warnings })
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

/// A configuration value without quotes.
pub fn shown(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Bytes as a person reads them.
pub fn size(bytes: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let found = units.into_iter().find(|(unit, _)| bytes as f64 >= *unit);
    found.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{:.1} {name}", bytes as f64 / unit))
}
