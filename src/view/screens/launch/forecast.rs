//! The forecast: this program's own `train --plan`, asked beside the view, and whether it still is about the form as it stands.

use serde::Deserialize;

use super::form::Form;
use crate::plan::{Disk, Memory, SignalReport, Time};
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::subprocess::{Call, CancelToken, Ended, Said};

/// What a run would take.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Forecast {
    /// Where it would run, in words; empty where it does not fit.
    #[serde(default)]
    pub device: String,
    /// Optimizer steps.
    #[serde(default)]
    pub steps: u64,
    /// The model's weights.
    #[serde(default)]
    pub parameters: usize,
    /// Those that are trained.
    #[serde(default)]
    pub trainable: usize,
    /// Bytes by part.
    pub memory: Memory,
    /// Seconds by part; none where it does not fit.
    pub time: Option<Time>,
    /// Bytes on disk; none where it does not fit.
    pub disk: Option<Disk>,
    /// Whether the base's groups hold something to learn from, where they were drawn.
    pub signal: Option<SignalReport>,
    /// What makes the data teach or prove less than it seems.
    #[serde(default)]
    pub data_problems: Vec<String>,
    /// Why it does not fit, where it does not.
    pub why: Option<String>,
}

/// Something that was measured, and the form that it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastResult<T> {
    /// The form as it stood.
    pub of: Form,
    /// What was measured.
    pub value: T,
    /// Whether the task was changed since.
    pub is_old: bool,
}

/// A question that is being answered.
#[derive(Debug, Clone, Default)]
pub struct ForecastJob {
    /// Ends it.
    pub cancel: CancelToken,
    /// The latest that was said of how it goes.
    pub told: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// Whether groups are drawn too.
    pub samples: bool,
}

impl<T> ForecastResult<T> {
    /// Whether the form or the task has changed since.
    pub fn is_stale(&self, form: &Form) -> bool {
        self.is_old || !self.of.is_same_job(form)
    }
}

/// Ask for the forecast of the form as it stands; `samples`: draw groups of the base too.
pub fn ask(model: &mut Model, samples: bool) -> Vec<Command> {
    cancel(model);
    let Some(call) = call(model, samples) else { return Vec::new() };
    let cancel = CancelToken::default();
    model.launch.failure = None;
    model.launch.asking = Some(ForecastJob { cancel: cancel.clone(), told: String::new(), since_ms: model.shared.now_ms, samples });
    let of = model.launch.form.clone();
    vec![Work::stream("launch.forecast", move |outlet| {
        let mut document = String::new();
        let outcome = call.run(&cancel, &mut |said| match said {
            Said::Result(line) => document.push_str(&line),
            Said::Progress(line) => {
                outlet.put(move |model| {
                    if let Some(asking) = &mut model.launch.asking {
                        asking.told = line;
                    }
                    Vec::new()
                });
            }
        });
        outlet.put(move |model| {
            model.launch.asking = None;
            take(model, of, outcome, &document);
            Vec::new()
        });
    })]
}

/// End the question that is being answered.
pub fn cancel(model: &mut Model) {
    if let Some(asking) = model.launch.asking.take() {
        asking.cancel.now();
    }
}

fn call(model: &Model, samples: bool) -> Option<Call> {
    let mut arguments = super::start_run::train_arguments(model)?;
    arguments.extend(["--plan".to_owned(), "--json".to_owned()]);
    if samples {
        arguments.push("--sample".to_owned());
    }
    Some(Call { program: model.shared.options.program.clone(), here: model.shared.options.here.clone(), arguments })
}

fn take(model: &mut Model, of: Form, outcome: Result<Option<Ended>, String>, document: &str) {
    let failed = |reason: String| format!("forecast failed: {reason}");
    match (outcome, serde_json::from_str::<Forecast>(document)) {
        (Ok(None), _) => {}
        (Err(error), _) => model.launch.failure = Some(failed(error)),
        // A run that does not fit is told as a forecast, though the program ends with a failure.
        (Ok(Some(_)), Ok(mut forecast)) => {
            if let Some(signal) = forecast.signal.take() {
                model.launch.signal = Some(ForecastResult { of: of.clone(), value: signal, is_old: false });
            }
            model.launch.forecast = Some(ForecastResult { of, value: forecast, is_old: false });
        }
        (Ok(Some(ended)), Err(error)) => {
            let reason = if ended.success { format!("cannot parse the forecast: {error}") } else { ended.reason() };
            model.launch.failure = Some(failed(reason));
        }
    }
    if let Some(failure) = model.launch.failure.clone() {
        model.shared.complain(failure);
    }
}
