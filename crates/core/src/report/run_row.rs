//! A run in a list, with its fields by name; small, since there may be thousands.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::event_text::alert_name;
use super::run_outcome::RunOutcome;
use super::run_report::Report;
use super::tables::{shown, spread};
use crate::config::{Source, TrainConfig};
use crate::facts::Cause;
use crate::format::{duration, percent};
use crate::run::events::Alert;
use crate::run::{
    EvalProgress, EvalSummary, Field, Query, RunDirectory, RunFile, SlurmJob, State, Status,
    StepEvals, sha256,
};
use crate::secrets::redact;
use crate::task::{PromptSet, SetName};

/// The fields of [`RunRow::field`] besides metrics and `config.KEY`.
pub const FIELDS: [&str; 30] = [
    "id",
    "run",
    "name",
    "task",
    "job",
    "status",
    "model",
    "base_model",
    "host",
    "created",
    "tags",
    "step",
    "total_steps",
    "seconds",
    "seconds_left",
    "valid",
    "exact",
    "parse",
    "outcome",
    "of",
    "set",
    "checkpoint",
    "base_valid",
    "base_exact",
    "best",
    "alerts",
    "notes",
    "slurm_job",
    "nodes",
    "setup",
];

const NUMBERS: [&str; 14] = [
    "step",
    "total_steps",
    "seconds",
    "seconds_left",
    "valid",
    "exact",
    "parse",
    "checkpoint",
    "base_valid",
    "base_exact",
    "best",
    "notes",
    "slurm_job",
    "reward",
];

/// Precedes the name of a metric of which the moving average is meant.
pub const SMOOTHED: &str = "ema:";

/// The maximum number of values of a curve.
const CURVE: usize = 48;

#[derive(Debug, Clone)]
pub struct RunRow {
    pub directory: RunDirectory,
    pub status: Status,
    pub cause: Option<Cause>,
    /// Whether it is to pause and is not paused yet.
    pub pauses_later: bool,
    /// The process that has the device for which the run waits.
    holder: Option<u32>,
    pub eval: Option<EvalProgress>,
    /// The process id of the latest worker, on its host.
    pub worker: Option<u32>,
    /// Set if the run was submitted to Slurm.
    pub slurm: Option<SlurmJob>,
    pub last_step: u64,
    /// `None` before any worker has started.
    pub total_steps: Option<u64>,
    /// Estimated seconds to the last step; `None` if unknown.
    seconds_left: Option<f64>,
    /// Estimated seconds of the evals to come.
    eval_seconds_left: f64,
    /// The sum over all steps.
    pub seconds: f64,
    /// By set: `test`, then `eval`.
    pub held_out: Vec<EvalSeries>,
    /// At the last step.
    pub metrics: BTreeMap<String, LastValue>,
    /// By step, in [0, 1]: of the eval set, else of the training completions.
    pub valid_rates: Vec<f64>,
    /// Mean rewards by step.
    pub rewards: Vec<f64>,
    pub checkpoints: Vec<u64>,
    pub best: Option<u64>,
    pub outcome: RunOutcome,
    pub alerts: Vec<Alert>,
    /// Secrets masked.
    pub notes: Vec<String>,
    pub tags: Vec<String>,
    pub warnings: Vec<String>,
    /// Time of the latest event, milliseconds since 1970.
    pub last_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EvalSeries {
    pub set: SetName,
    pub base: Option<EvalSummary>,
    pub trained: Option<TrainedEval>,
}

/// The eval that represents the trained model.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedEval {
    /// 0 if it is the base's.
    pub step: u64,
    /// Without tags.
    pub summary: EvalSummary,
}

/// A metric's value at the last step; `None` if it was not measured there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastValue {
    pub value: Option<f64>,
    pub smoothed: Option<f64>,
}

impl RunRow {
    pub fn from_report(report: &Report) -> Self {
        let history = &report.history;
        let latest = |name: &String| LastValue {
            value: report.metric(name, false),
            smoothed: report.metric(name, true),
        };
        let metrics = history
            .metrics
            .keys()
            .map(|name| (name.clone(), latest(name)));
        let series = |name: &str| {
            history
                .metrics
                .get(name)
                .map_or_else(Vec::new, |series| spread(series.values(), CURVE))
        };
        let evals: Vec<f64> = history
            .step_evals()
            .iter()
            .map(StepEvals::lowest_valid)
            .collect();
        let tasks = report.directory.task_names();
        Self {
            status: report.status(),
            cause: report.cause(),
            eval: report
                .state
                .as_ref()
                .and_then(State::eval_under_way)
                .cloned(),
            worker: report.state.as_ref().map(|state| state.pid),
            pauses_later: report.state.as_ref().is_some_and(State::pauses_later),
            holder: report.state.as_ref().and_then(|state| state.holder),
            slurm: report.slurm.clone(),
            last_step: history.last_step,
            total_steps: history.planned_steps(),
            seconds_left: history.seconds_left(),
            eval_seconds_left: eval_seconds_left(report),
            seconds: report.computed_seconds(),
            held_out: SetName::held_out(&tasks)
                .into_iter()
                .filter_map(|set| held_out(report, set))
                .collect(),
            metrics: metrics.collect(),
            valid_rates: if evals.len() > 1 {
                spread(&evals, CURVE)
            } else {
                series("tiers/valid")
            },
            rewards: series("reward"),
            checkpoints: report.checkpoints.clone(),
            best: report.best(),
            outcome: report.outcome(),
            alerts: history.standing_alerts().cloned().collect(),
            notes: history
                .notes
                .iter()
                .map(|(_, note)| redact(&note.text).0.into_owned())
                .collect(),
            tags: report.tags.clone(),
            warnings: report.warnings.clone(),
            last_ms: history.last_ms,
            directory: report.directory.clone(),
        }
    }

    /// The set and rates of the eval that represents the trained model; see [`crate::run::RunState::result`].
    pub fn latest_valid(&self) -> Option<(&SetName, &EvalSummary)> {
        self.result()
            .map(|(series, trained)| (&series.set, &trained.summary))
    }

    /// The eval that represents the trained model; of several tasks that with the lowest rate of valid completions, then
    /// of exact ones: a mean would hide it.
    fn result(&self) -> Option<(&EvalSeries, &TrainedEval)> {
        let mut found: Vec<(&EvalSeries, &TrainedEval)> = Vec::new();
        for series in &self.held_out {
            let is_new = |(other, _): &(&EvalSeries, _)| other.set.task() != series.set.task();
            if found.iter().all(is_new) {
                found.extend(series.trained.as_ref().map(|trained| (series, trained)));
            }
        }
        let rates = |TrainedEval { summary, .. }: &TrainedEval| {
            (summary.valid, summary.exact.unwrap_or(1.0))
        };
        let order = |one, other| rates(one).partial_cmp(&rates(other));
        found
            .into_iter()
            .min_by(|(_, one), (_, other)| order(one, other).unwrap_or(Ordering::Equal))
    }

    /// Where `valid` and `exact` were measured: the set and the step; `train` for the training completions of the last
    /// step, without an eval.
    pub fn measured_on(&self) -> Option<(SetName, u64)> {
        let trained = || {
            self.metric("tiers/valid", false)
                .map(|_| (PromptSet::Train.into(), self.last_step))
        };
        self.result()
            .map(|(series, trained)| (series.set.clone(), trained.step))
            .or_else(trained)
    }

    pub fn is_active(&self) -> bool {
        !self.status.is_ended() && self.status != Status::Created
    }

    /// Whether its worker computes: it neither waits for its turn nor is paused.
    pub fn is_computing(&self) -> bool {
        self.is_active() && !matches!(self.status, Status::Waiting | Status::Paused)
    }

    /// Estimated seconds to the last step of an active run, without evals; `None` before its first step.
    pub fn seconds_left(&self) -> Option<f64> {
        self.seconds_left.filter(|_| self.is_active())
    }

    /// Estimated seconds to its end, with the evals that are left; `None` if unknown.
    pub fn seconds_to_end(&self) -> Option<f64> {
        let of_eval = self.eval.as_ref().map(EvalProgress::seconds_left);
        let of_steps = match self.total_steps {
            Some(total) if total == self.last_step => Some(0.0),
            _ => self.seconds_left(),
        };
        Some(of_steps? + of_eval.unwrap_or(Some(0.0))? + self.eval_seconds_left)
    }

    /// Slurm's name of what the run waits for, such as `Resources`.
    pub fn slurm_reason(&self) -> Option<&str> {
        let job = self
            .slurm
            .as_ref()
            .filter(|_| self.status == Status::Waiting)?;
        Some(job.reason.as_str()).filter(|reason| !["", "None"].contains(reason))
    }

    /// The run among `rows` that has the device for which this one waits.
    pub fn holder<'a>(&self, mut rows: impl Iterator<Item = &'a Self>) -> Option<&'a Self> {
        let process = self.holder.filter(|_| self.status == Status::Waiting)?;
        rows.find(|row| {
            let computes =
                !row.status.is_ended() && ![Status::Created, Status::Waiting].contains(&row.status);
            computes && row.worker == Some(process)
        })
    }

    /// The rate of valid completions on the eval or test set, else in the last step.
    pub fn valid(&self) -> Option<f64> {
        let trained = self.metric("tiers/valid", false);
        self.latest_valid()
            .map(|(_, summary)| summary.valid)
            .or(trained)
    }

    /// The rate of exact completions on the eval or test set, else in the last step.
    pub fn exact(&self) -> Option<f64> {
        match self.latest_valid() {
            Some((_, summary)) => summary.exact,
            None => self.metric("exact", false),
        }
    }

    /// A metric at the last step, or its EMA; `None` if that step did not measure it.
    pub fn metric(&self, name: &str, smoothed: bool) -> Option<f64> {
        self.metrics.get(name).and_then(|latest| {
            if smoothed {
                latest.smoothed
            } else {
                latest.value
            }
        })
    }

    /// The value of a field, `config.KEY`, or a metric at the last step, `smoothed` or not.
    pub fn field(&self, name: &str, smoothed: bool) -> Option<Field> {
        let file = self.directory.file();
        let text = |text: &str| Some(Field::Text(text.to_owned()));
        let number = |number: f64| Some(Field::Number(number));
        let of_value = |value: &Value| match value {
            Value::String(found) => Some(Field::Text(found.clone())),
            Value::Number(found) => found.as_f64().map(Field::Number),
            other => Some(Field::Text(other.to_string())),
        };
        match name {
            "id" | "run" => text(&file.id),
            "name" => text(self.directory.name()),
            "task" => text(&file.task),
            "job" => text(file.job.name()),
            "status" => text(self.status.name()),
            "model" | "base_model" => text(&file.config.base_model),
            "host" => text(&file.host),
            "created" => text(&file.created),
            "tags" => (!self.tags.is_empty()).then(|| Field::Text(self.tags.join(" "))),
            "step" => number(self.last_step as f64),
            "total_steps" => number(self.total_steps? as f64),
            "seconds" => number(self.seconds),
            "seconds_left" => number(self.seconds_left()?),
            "valid" => number(self.latest_valid()?.1.valid),
            // Held out if available; the metric of the same name is of training prompts.
            "exact" if self.latest_valid().is_some() => number(self.latest_valid()?.1.exact?),
            "parse" => number(self.latest_valid()?.1.parse),
            "outcome" => text(&self.outcome.label()),
            "of" => text(&self.result().map(|(series, trained)| match trained.step {
                0 => "base".to_owned(),
                step => format!("{}@{step}", series.set),
            })?),
            "set" => text(&self.result()?.0.set.to_string()),
            "checkpoint" => number(self.result()?.1.step as f64),
            "base_valid" => number(self.result()?.0.base.as_ref()?.valid),
            "base_exact" => number(self.result()?.0.base.as_ref()?.exact?),
            "best" => number(self.best? as f64),
            "alerts" => (!self.alerts.is_empty()).then(|| Field::Text(self.alert_names())),
            "notes" => number(self.notes.len() as f64),
            "slurm_job" => number(self.slurm.as_ref()?.job? as f64),
            "nodes" => match self.slurm.as_ref()? {
                job if job.node_list.is_empty() => number(job.request.nodes as f64),
                job => text(&job.node_list),
            },
            "setup" => Some(Field::Text(self.setup())),
            _ => match (name.strip_prefix("config."), name.strip_prefix(SMOOTHED)) {
                (Some(key), _) => file
                    .config
                    .values()
                    .iter()
                    .find(|(found, _)| found == key)
                    .and_then(|(_, value)| of_value(value)),
                (_, Some(metric)) => self.metric(metric, true).map(Field::Number),
                _ => self.metric(name, smoothed).map(Field::Number),
            },
        }
    }

    /// A row of `runs list --json`.
    pub fn document(&self) -> Value {
        let file = self.directory.file();
        let (set, summary) = self.latest_valid().unzip();
        json!({
            "id": file.id, "name": self.directory.name(), "task": file.task, "job": file.job, "created": file.created, "tags": self.tags,
            "path": self.directory.path(), "status": self.status, "step": self.last_step, "total_steps": self.total_steps, "seconds_left": self.seconds_left(),
            "base_model": file.config.base_model, "policy_loss": file.config.policy_loss,
            "valid_set": set, "checkpoint": self.result().map(|(_, trained)| trained.step), "best": self.best, "valid": summary.map(|summary| summary.valid), "exact": summary.and_then(|summary| summary.exact),
            "base_valid": self.result().and_then(|(series, _)| Some(series.base.as_ref()?.valid)),
            "base_exact": self.result().and_then(|(series, _)| series.base.as_ref()?.exact),
            "reward": self.metric("reward", false), "alerts": self.alerts,
            "notes": self.notes, "cause": self.cause.as_deref(), "slurm": self.slurm,
            "outcome": self.outcome.document(),
        })
    }

    pub fn alert_names(&self) -> String {
        self.alerts
            .iter()
            .map(|alert| alert_name(&alert.rule))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Identifies runs that differ in their seed at most: task files, starting model, and every key except `seed`.
    pub fn setup_digest(&self) -> String {
        let file = self.directory.file();
        let config = TrainConfig {
            seed: 0,
            ..file.config.clone()
        }
        .digest();
        let files = file
            .task_files
            .iter()
            .map(|(name, digest)| format!("{name} {digest}\n"));
        let files: String = files
            .chain(
                file.mix
                    .iter()
                    .map(|task| format!("{} {}\n", task.name, task.weight)),
            )
            .collect();
        let text = format!(
            "{} {}\n{}\n{config}\n{files}",
            file.job, file.task, file.model_digest
        );
        sha256(text.as_bytes()).chars().take(6).collect()
    }

    /// Readable, with [`Self::setup_digest`] at the end.
    pub fn setup(&self) -> String {
        let file = self.directory.file();
        let changed = self
            .changed_keys()
            .into_iter()
            .filter(|[key, ..]| !["seed", "base_model"].contains(&key.as_str()));
        let changed: String = changed
            .map(|[key, value, _]| format!(" {key}={value}"))
            .collect();
        let model = file.config.base_model.trim_end_matches('/');
        format!(
            "{} {}{changed} #{}",
            file.task,
            model.rsplit('/').next().unwrap_or(model),
            self.setup_digest()
        )
    }

    pub fn changed_keys(&self) -> Vec<[String; 3]> {
        let all = configuration(self.directory.file()).into_iter();
        all.filter(|(source, _)| *source != Source::Default)
            .map(|(_, cells)| cells)
            .collect()
    }
}

pub(super) fn configuration(file: &RunFile) -> Vec<(Source, [String; 3])> {
    let row = |(key, value): (String, Value)| {
        let source = file.sources.get(&key).cloned().unwrap_or(Source::Default);
        let cells = [key, shown(&value), source.to_string()];
        (source, cells)
    };
    file.config.values().into_iter().map(row).collect()
}

fn held_out(report: &Report, set: SetName) -> Option<EvalSeries> {
    let without_tags = |summary: &EvalSummary| EvalSummary {
        by_tag: BTreeMap::new(),
        ..summary.clone()
    };
    let base = report
        .history
        .base(&set)
        .map(|eval| without_tags(&eval.summary));
    let trained = report
        .history
        .result(&set, report.best())
        .map(|eval| TrainedEval {
            step: eval.step,
            summary: without_tags(&eval.summary),
        });
    (base.is_some() || trained.is_some()).then_some(EvalSeries { set, base, trained })
}

/// The value of a field for people: rates in percent, counts without decimals.
pub fn field_text(name: &str, value: &Field) -> String {
    match value {
        Field::Text(text) => text.clone(),
        Field::Number(number) => number_text(name, *number),
    }
}

pub fn number_text(name: &str, number: f64) -> String {
    let counted = FIELDS.contains(&name) || name.starts_with("config.");
    match name {
        _ if !number.is_finite() => "nan".to_owned(),
        "valid" | "exact" | "parse" | "base_valid" | "base_exact" => percent(number),
        "seconds" | "seconds_left" => duration(number),
        _ if counted && number.fract() == 0.0 => format!("{number:.0}"),
        _ if number != 0.0 && number.abs() < 0.001 => format!("{number:.1e}"),
        _ => format!("{number:.4}"),
    }
}

/// Orders runs by a field. Runs without a numeric value come last in either direction.
pub fn order(a: Option<Field>, b: Option<Field>, descending: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let known = |field: &Option<Field>| {
        field
            .as_ref()
            .is_some_and(|field| !matches!(field, Field::Number(number) if number.is_nan()))
    };
    let found = match (&a, &b) {
        _ if known(&a) != known(&b) => return known(&b).cmp(&known(&a)),
        (Some(Field::Number(a)), Some(Field::Number(b))) => a.total_cmp(b),
        (Some(a), Some(b)) => a.to_string().cmp(&b.to_string()),
        _ => Ordering::Equal,
    };
    if descending { found.reverse() } else { found }
}

/// Seconds of the evals to come, each as long as the last one on its set: those of the steps that are left, and at the end
/// that of the test set.
fn eval_seconds_left(report: &Report) -> f64 {
    let history = &report.history;
    let every = report.directory.file().config.eval_every;
    let last = history.last_step;
    let due = match history.planned_steps() {
        Some(total) if total > last && every > 0 => total.div_ceil(every) - last / every,
        Some(total) if total > last => 1,
        _ => 0,
    };
    let latest = |set, task: &&str| {
        let set = SetName::new(set, task);
        let mut of_set = history.evals.values().filter(|eval| eval.set == set);
        of_set.next_back().map(|eval| (eval.step, eval.seconds))
    };
    let tasks = history.task_names();
    let of_eval = tasks
        .iter()
        .filter_map(|task| latest(PromptSet::Eval, task));
    let of_test = tasks
        .iter()
        .filter_map(|task| latest(PromptSet::Test, task));
    let tested = of_test.filter(|(step, _)| *step == 0 || *step < last);
    due as f64 * of_eval.map(|(_, seconds)| seconds).sum::<f64>()
        + tested.map(|(_, seconds)| seconds).sum::<f64>()
}

/// Why a condition compares a field that is a number with something else, if it does.
pub fn mistyped_value<'a>(
    query: &Query,
    rows: impl Iterator<Item = &'a RunRow> + Clone,
) -> Option<String> {
    let is_number = |name: &str| {
        let fields = rows.clone().filter_map(|run| run.field(name, false));
        let mut fields = fields.peekable();
        let is_known = fields.peek().is_some();
        NUMBERS.contains(&name) || is_known && fields.all(|field| matches!(field, Field::Number(_)))
    };
    let (field, value) = query.mistyped(&is_number)?;
    Some(format!(
        "`{field}` is a number, not `{value}`: write for example {field}>0.9"
    ))
}

/// Why a name is not a field of these runs, if it is not: an unknown name is a typo, not a condition that never holds.
pub fn unknown_field<'a>(
    name: &str,
    rows: impl Iterator<Item = &'a RunRow> + Clone,
    smoothed: bool,
) -> Option<String> {
    if FIELDS.contains(&name)
        || rows
            .clone()
            .any(|run| run.metrics.contains_key(name) || run.field(name, smoothed).is_some())
    {
        return None;
    }
    let metrics: BTreeSet<&String> = rows.flat_map(|run| run.metrics.keys()).collect();
    let keys = crate::config::KEYS
        .iter()
        .map(|key| format!("config.{}", key.name));
    let known = FIELDS
        .iter()
        .map(|field| (*field).to_owned())
        .chain(metrics.into_iter().cloned())
        .chain(keys);
    let known: Vec<String> = known.collect();
    let hint = crate::format::did_you_mean(name, known.iter().map(String::as_str));
    Some(format!(
        "unknown field `{name}`{hint}{} Fields: {}, config.KEY, and every metric",
        if hint.is_empty() { "." } else { "" },
        FIELDS.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_come_last() {
        let number = |number| Some(Field::Number(number));
        let check = |descending, expected: [Option<f64>; 4]| {
            let mut fields = [None, number(1.0), number(f64::NAN), number(3.0)];
            fields.sort_by(|a, b| order(a.clone(), b.clone(), descending));
            let found = fields.map(|field| match field {
                Some(Field::Number(number)) if !number.is_nan() => Some(number),
                _ => None,
            });
            assert_eq!(found, expected);
        };
        check(false, [Some(1.0), Some(3.0), None, None]);
        check(true, [Some(3.0), Some(1.0), None, None]);
    }

    #[test]
    fn a_long_curve_keeps_its_ends() {
        for (length, most) in [
            (0, CURVE),
            (1, CURVE),
            (47, CURVE),
            (48, CURVE),
            (49, CURVE),
            (1000, CURVE),
            (48, 10),
            (3, 10),
        ] {
            let values: Vec<f64> = (0..length).map(f64::from).collect();
            let thin = spread(&values, most);
            let ends = (thin.first() == values.first(), thin.last() == values.last());
            assert!(
                thin.len() == values.len().min(most) && ends == (true, true),
                "{length}: {thin:?}"
            );
        }
    }
}
