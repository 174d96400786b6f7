//! The fold: events to a run's state. One pure function that every reader uses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::events::{Alert, Checkpoint, Control, Device, End, Eval, Event, EventBody, Group, Memory, Note, Phase, Run};
use super::series::Series;
use crate::config::BestBy;

/// Steps whose groups are kept; earlier ones stay as counts, their events are in the log.
pub const GROUP_STEPS_KEPT: usize = 64;

/// Metrics that a step without them has at 0: the shares of kinds of failure, of which the log tells those that
/// occurred.
pub const SPARSE: &str = "failures/";

/// Everything that a run's events say. Where a step is redone, the later event of the same kind and step counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The latest worker's first line.
    pub run: Option<Run>,
    /// What the run needs of its GPU; None on a CPU.
    pub memory: Option<Memory>,
    /// What the worker does now.
    pub phase: Option<Phase>,
    /// The last step done; 0 before the first.
    pub last_step: u64,
    /// Each metric's values by step; `seconds` is the step's time.
    #[serde(skip)]
    pub metrics: BTreeMap<String, Series>,
    /// Groups of the latest steps, by step, then by line of the rollout file.
    pub groups: BTreeMap<u64, BTreeMap<u64, Group>>,
    /// By step, set and target.
    #[serde(with = "listed_evals")]
    pub evals: BTreeMap<(u64, String, String), Eval>,
    /// Checkpoints taken, by step; the keep rules may have removed some since.
    pub checkpoints: BTreeMap<u64, Checkpoint>,
    /// The device's latest condition.
    pub device: Option<Device>,
    /// Alerts, the latest of each rule.
    pub alerts: BTreeMap<String, Alert>,
    /// All of them, in order, so that those of voided steps can be taken back.
    alerts_in_order: Vec<Alert>,
    /// Accepted requests, in order.
    pub controls: Vec<Control>,
    /// With their time in milliseconds.
    pub notes: Vec<(u64, Note)>,
    /// Bytes dropped with torn lines.
    pub dropped_bytes: u64,
    /// How often the run was resumed.
    pub resumed: usize,
    /// The end event, unless a later worker took over.
    pub end: Option<End>,
    /// Time of the first event, milliseconds since 1970.
    pub first_ms: Option<u64>,
    /// Time of the latest event up to the end event, milliseconds since 1970.
    pub last_ms: Option<u64>,
    /// Events of kinds unknown here.
    pub unknown: usize,
    /// Lines that are no events.
    pub skipped: usize,
    /// Missing sequence numbers.
    pub gaps: u64,
}

impl RunState {
    /// Alerts that are not resolved, the latest of each rule.
    pub fn standing_alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values().filter(|alert| !alert.cleared)
    }

    /// Take the next event of the log.
    pub fn fold(&mut self, event: Event) {
        self.first_ms.get_or_insert(event.time_ms);
        // A note that is written into a finished run is no work of it.
        if self.end.is_none() || matches!(event.body, EventBody::Run(_)) {
            self.last_ms = Some(event.time_ms);
        }
        match event.body {
            EventBody::Run(run) => {
                self.resumed += usize::from(self.run.is_some());
                // What was set before is set again at its step, so the last goal holds for this worker too.
                let total_steps = self.controls.iter().rev().find_map(goal).unwrap_or(run.total_steps);
                self.run = Some(Run { total_steps, ..run });
                self.end = None;
            }
            EventBody::Memory(memory) => self.memory = Some(memory),
            EventBody::Phase(phase) => self.phase = Some(phase),
            EventBody::Step(step) => {
                self.last_step = step.step;
                self.series("seconds").set(step.step, step.seconds);
                for (name, value) in step.metrics {
                    self.series(&name).set(step.step, value);
                }
            }
            EventBody::Group(group) => self.group(group),
            EventBody::Eval(eval) => {
                self.evals.insert((eval.step, eval.set.clone(), eval.target.clone()), eval);
            }
            EventBody::Checkpoint(checkpoint) => {
                for step in &checkpoint.removed {
                    self.checkpoints.remove(step);
                }
                self.checkpoints.insert(checkpoint.step, checkpoint);
            }
            EventBody::Device(device) => self.device = Some(device),
            EventBody::Alert(alert) => {
                self.alerts.insert(alert.rule.clone(), alert.clone());
                self.alerts_in_order.push(alert);
            }
            EventBody::Control(control) => {
                if let (Some(run), Some(steps)) = (&mut self.run, goal(&control)) {
                    run.total_steps = steps;
                }
                self.controls.push(control);
            }
            EventBody::Note(note) => self.notes.push((event.time_ms, note)),
            EventBody::Recovered(recovered) => {
                self.dropped_bytes = self.dropped_bytes.saturating_add(recovered.dropped_bytes);
                if let Some(step) = recovered.resumed_from {
                    self.forget_after(step);
                }
            }
            EventBody::End(end) => self.end = Some(end),
            EventBody::Unknown(_) => self.unknown += 1,
        }
    }

    /// The step with the highest valid rate on the eval set among `candidates`; ties by exact match, then the earliest.
    /// `None` without such an eval.
    pub fn best_step(&self, candidates: &[u64]) -> Option<u64> {
        self.best_step_by(candidates, BestBy::Valid)
    }

    /// As [`Self::best_step`], by the rate that the run's `keep_best_by` names; ties by the other one, then the
    /// earliest.
    pub fn best_step_by(&self, candidates: &[u64], by: BestBy) -> Option<u64> {
        let rates = |eval: &Eval| {
            let (valid, exact) = (eval.summary.valid, eval.summary.exact.unwrap_or(0.0));
            match by {
                BestBy::Valid => (valid, exact),
                BestBy::Exact => (exact, valid),
            }
        };
        let evals = self.evals.values().filter(|eval| eval.set == "eval" && candidates.contains(&eval.step));
        // At step 0 base and trained are the same weights.
        let evals = evals.filter(|eval| eval.target == "trained" || eval.step == 0);
        evals
            .fold(None, |best: Option<&Eval>, eval| match best {
                Some(best) if rates(best) >= rates(eval) => Some(best),
                _ => Some(eval),
            })
            .map(|eval| eval.step)
    }

    /// The latest eval over `set` of `target`. What was read at step 0 is no trained model, whatever it was called.
    pub fn latest_eval(&self, set: &str, target: &str) -> Option<&Eval> {
        self.evals
            .values()
            .rev()
            .find(|eval| eval.set == set && eval.target == target && (eval.step > 0 || target != "trained"))
    }

    /// The eval on `set` that stands for the trained model: once the run has ended that of its best checkpoint, until
    /// then the latest. Where the best checkpoint is the start (step 0) it is the base's own eval: the same weights.
    /// `best`: as [`Self::best_step_by`] has it.
    pub fn result(&self, set: &str, best: Option<u64>) -> Option<&Eval> {
        let at = |step: u64, target: &str| self.evals.get(&(step, set.to_owned(), target.to_owned()));
        let of_best = best.filter(|_| self.end.is_some()).and_then(|step| match step {
            0 => at(0, "base"),
            _ => at(step, "trained"),
        });
        of_best.or_else(|| self.latest_eval(set, "trained"))
    }

    /// A metric at a step: `None` where it was not measured there, whatever an earlier step had, and 0 where it is one
    /// of [`SPARSE`].
    pub fn metric_at(&self, name: &str, step: u64) -> Option<f64> {
        let at = |name: &str| self.metrics.get(name).and_then(|series| series.at(step));
        let is_valid = || at("tiers/valid").is_some_and(|share| share >= 1.0);
        // An older version's log tells none of them at all.
        let has_sparse =
            || self.metrics.range(SPARSE.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(SPARSE));
        at(name).or_else(|| {
            (name.starts_with(SPARSE) && at("seconds").is_some() && (is_valid() || has_sparse())).then_some(0.0)
        })
    }

    fn series(&mut self, name: &str) -> &mut Series {
        if !self.metrics.contains_key(name) {
            self.metrics.insert(name.to_owned(), Series::default());
        }
        self.metrics.entry(name.to_owned()).or_default()
    }

    fn group(&mut self, group: Group) {
        // A redone step writes its groups to the same lines again.
        self.groups.entry(group.step).or_default().insert(group.line, group);
        while self.groups.len() > GROUP_STEPS_KEPT {
            self.groups.pop_first();
        }
    }

    /// Everything recorded for steps after `step` is void.
    fn forget_after(&mut self, step: u64) {
        for series in self.metrics.values_mut() {
            series.forget_after(step);
        }
        self.groups.retain(|found, _| *found <= step);
        self.evals.retain(|(found, _, _), _| *found <= step);
        self.checkpoints.retain(|found, _| *found <= step);
        self.alerts_in_order.retain(|alert| alert.step <= step);
        self.alerts = self.alerts_in_order.iter().map(|alert| (alert.rule.clone(), alert.clone())).collect();
        self.last_step = self.last_step.min(step);
    }
}

/// Evals as a list: their key stands in each of them.
mod listed_evals {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::run::events::Eval;

    type Evals = BTreeMap<(u64, String, String), Eval>;

    pub(super) fn serialize<S: Serializer>(evals: &Evals, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(evals.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Evals, D::Error> {
        let evals = Vec::<Eval>::deserialize(deserializer)?;
        Ok(evals.into_iter().map(|eval| ((eval.step, eval.set.clone(), eval.target.clone()), eval)).collect())
    }
}

/// The steps that a `set` makes the run's end; None where it leaves that, or leaves it to the epochs.
fn goal(control: &Control) -> Option<u64> {
    let steps = control.arguments.get("max_steps").filter(|_| control.verb == "set")?;
    steps.as_u64().filter(|steps| *steps > 0)
}
