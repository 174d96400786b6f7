//! Folds events into a run's state, in one pure function for all readers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::events::{
    Alert, Checkpoint, Collapse, Control, Device, End, Eval, EvalKey, Event, EventBody, Group,
    Guard, Memory, Note, Phase, RankStep, Run,
};
use super::reader::SkippedLine;
use super::series::Series;
use crate::facts::{StopReason, Target, VerbName};
use crate::format::counted;
use crate::task::{AlertRule, PromptSet, SetName, split_task_metric, task_metric};

/// Number of latest steps whose groups are kept; earlier ones are only counted.
pub const GROUP_STEPS_KEPT: usize = 64;

const MAX_NAMED_LINES: usize = 8;

/// Number of latest steps over which a run's speed is averaged.
const PACE_STEPS: u64 = 10;

/// Prefix of metrics that are absent if 0: shares of failure classes, logged only if they occurred.
pub const SPARSE: &str = "failures/";

/// The state of a run. If a step is repeated, the later event of the same kind and step counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    pub run: Option<Run>,
    /// `None` on a CPU.
    pub memory: Option<Memory>,
    pub phase: Option<Phase>,
    /// The last complete step; 0 before the first.
    pub last_step: u64,
    /// Values by step; `seconds` is the step time.
    #[serde(skip)]
    pub metrics: BTreeMap<String, Series>,
    /// Groups of the latest steps, by step and line of the rollout file.
    pub groups: BTreeMap<u64, BTreeMap<u64, Group>>,
    /// Solve rates by prompt name, from the latest group in which one is known.
    pub solve_rates: BTreeMap<String, SolveRate>,
    #[serde(with = "listed_evals")]
    pub evals: BTreeMap<EvalKey, Eval>,
    pub guards: BTreeMap<u64, Guard>,
    /// Checkpoints by step, including those that the keep rules removed.
    pub checkpoints: BTreeMap<u64, Checkpoint>,
    pub device: Option<Device>,
    /// Ranks of the last step; empty with a single rank.
    pub ranks: Vec<RankStep>,
    /// The latest alert of each rule.
    pub alerts: BTreeMap<AlertRule, Alert>,
    /// All alerts, in order, to undo those of voided steps.
    pub(super) alerts_in_order: Vec<Alert>,
    /// Accepted requests, in order.
    pub controls: Vec<Control>,
    /// Notes with their time in milliseconds since 1970.
    pub notes: Vec<(u64, Note)>,
    pub dropped_bytes: u64,
    pub resumed: usize,
    /// Replacements of collapsed or diverged policies, in order.
    pub collapses: Vec<Collapse>,
    /// `None` while no worker has ended, or a later one took over.
    pub end: Option<End>,
    /// Time of the first event, milliseconds since 1970.
    pub first_ms: Option<u64>,
    /// Time of the latest event up to the end event, milliseconds since 1970.
    pub last_ms: Option<u64>,
    pub unknown: usize,
    pub skipped: usize,
    pub skipped_lines: Vec<SkippedLine>,
    pub gaps: u64,
}

/// How many completions of a prompt's group earn the full reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SolveRate {
    pub step: u64,
    /// Freely sampled completions with the full reward.
    pub solved: usize,
    /// Freely sampled completions with a reward; at least one.
    pub scored: usize,
}

impl SolveRate {
    /// `None` if unknown, or if no completion has a reward.
    fn from_group(group: &Group) -> Option<Self> {
        let answers = group.rewards.iter().zip(&group.stop_reasons);
        let scored = answers
            .filter(|(reward, stop)| reward.is_finite() && **stop != StopReason::Guided)
            .count();
        let solved = group.solved.filter(|_| scored > 0)?;
        Some(Self {
            step: group.step,
            solved,
            scored,
        })
    }

    /// Share in [0, 1].
    pub fn rate(self) -> f64 {
        self.solved as f64 / self.scored as f64
    }
}

impl RunState {
    /// Unresolved alerts, the latest of each rule: errors, then warnings, then information.
    pub fn standing_alerts(&self) -> impl Iterator<Item = &Alert> {
        let mut standing: Vec<&Alert> = self
            .alerts
            .values()
            .filter(|alert| !alert.cleared)
            .collect();
        standing.sort_by_key(|alert| Reverse(alert.level));
        standing.into_iter()
    }

    pub fn fold(&mut self, event: Event) {
        // A note may precede the first worker by a long time.
        if self.run.is_some() || !matches!(event.body, EventBody::Control(_) | EventBody::Note(_)) {
            self.first_ms.get_or_insert(event.time_ms);
        }
        // A note added after the end does not prolong the run.
        if self.end.is_none() || matches!(event.body, EventBody::Run(_)) {
            self.last_ms = Some(event.time_ms);
        }
        match event.body {
            EventBody::Run(run) => {
                self.resumed += usize::from(self.run.is_some());
                // A resumed run applies every `set` again, so the last one counts.
                let total_steps = self
                    .controls
                    .iter()
                    .rev()
                    .find_map(goal)
                    .unwrap_or(run.total_steps);
                self.run = Some(Run { total_steps, ..run });
                self.end = None;
            }
            EventBody::Memory(memory) => self.memory = Some(memory),
            EventBody::Phase(phase) => self.phase = Some(phase),
            EventBody::Step(step) => {
                self.last_step = step.step;
                self.ranks = step.ranks;
                self.series("seconds").set(step.step, step.seconds);
                for (name, value) in step.metrics {
                    self.series(&name).set(step.step, value);
                }
            }
            EventBody::Group(group) => self.group(group),
            EventBody::Eval(eval) => {
                self.evals.insert(eval.key(), eval);
            }
            EventBody::Guard(guard) => {
                self.series("guard/log_prob")
                    .set(guard.step, guard.log_prob());
                if let Some(exact) = guard.exact {
                    self.series("guard/exact").set(guard.step, exact);
                }
                self.guards.insert(guard.step, guard);
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
            EventBody::Collapse(collapse) => {
                // Measurements at this step are of the weights that were replaced.
                self.guards.remove(&collapse.step);
                self.evals
                    .retain(|key, _| key.step != collapse.step || key.target != Target::Trained);
                self.collapses.push(collapse);
            }
            EventBody::End(end) => self.end = Some(end),
            EventBody::Unknown(_) => self.unknown += 1,
        }
    }

    pub(super) fn skip(&mut self, line: SkippedLine) {
        self.skipped += 1;
        if self.skipped_lines.len() < MAX_NAMED_LINES {
            self.skipped_lines.push(line);
        }
    }

    pub fn damage(&self) -> impl Iterator<Item = String> {
        let named = self.skipped_lines.iter();
        let named = named.map(|line| format!("events.jsonl line {}: {}", line.line, line.reason));
        let others = self.skipped - self.skipped_lines.len();
        let others = (others > 0).then(|| format!("events.jsonl: {others} other unreadable lines"));
        let gaps = (self.gaps > 0).then(|| {
            let events = counted(self.gaps as usize, "event");
            format!("events.jsonl: {events} missing, damaged ones included")
        });
        named.chain(others).chain(gaps)
    }

    pub fn lost_evals(&self) -> Option<String> {
        const OTHERS: [&str; 7] = [
            "step", "group", "phase", "device", "note", "control", "memory",
        ];
        let kinds = self.skipped_lines.iter().map(|line| line.kind.as_deref());
        let others = kinds.flatten().filter(|kind| OTHERS.contains(kind)).count();
        // Each skipped line accounts for one gap.
        let is_whole = others == self.skipped && self.gaps <= self.skipped as u64;
        self.damage().next().filter(|_| !is_whole)
    }

    /// The latest eval of `target` on `set`. At step 0 only `base` counts, whatever target was
    /// recorded.
    pub fn latest_eval(&self, set: &SetName, target: Target) -> Option<&Eval> {
        self.evals.values().rev().find(|eval| {
            eval.set == *set && eval.target == target && (eval.step > 0 || target == Target::Base)
        })
    }

    pub fn base(&self, set: &SetName) -> Option<&Eval> {
        self.eval(0, set, Target::Base)
    }

    pub fn eval(&self, step: u64, set: &SetName, target: Target) -> Option<&Eval> {
        let set = set.clone();
        self.evals.get(&EvalKey { step, set, target })
    }

    /// The eval on `set` that represents the trained model: after the end that of the best
    /// checkpoint (`best`, by [`Self::best_step_by`]; step 0 is the base's eval), until then the
    /// latest.
    pub fn result(&self, set: &SetName, best: Option<u64>) -> Option<&Eval> {
        let of_best = best
            .filter(|_| self.end.is_some())
            .and_then(|step| match step {
                0 => self.base(set),
                _ => self.eval(step, set, Target::Trained),
            });
        of_best.or_else(|| self.latest_eval(set, Target::Trained))
    }

    /// The eval on `set` to compare with the base's: the result, or, if that is the base itself,
    /// the latest on the eval set, which shows the effect of training.
    pub fn compared(&self, set: &SetName, best: Option<u64>) -> Option<&Eval> {
        let result = self.result(set, best).filter(|result| result.step > 0);
        result.or_else(|| {
            self.latest_eval(set, Target::Trained)
                .filter(|latest| latest.is_on(PromptSet::Eval))
        })
    }

    /// A metric's value at a step: `None` if not measured, 0 for an absent metric of [`SPARSE`] if
    /// completions were scored.
    pub fn metric_at(&self, name: &str, step: u64) -> Option<f64> {
        let at = |name: &str| self.metrics.get(name).and_then(|series| series.at(step));
        let (is_sparse, scored) = match split_task_metric(name) {
            Some((task, metric)) => (metric.starts_with(SPARSE), task_metric(task, "tiers/valid")),
            None => (name.starts_with(SPARSE), "tiers/valid".to_owned()),
        };
        at(name).or_else(|| (is_sparse && at(&scored).is_some()).then_some(0.0))
    }

    /// Planned steps after the last `set` request; `None` if unknown.
    pub fn planned_steps(&self) -> Option<u64> {
        let set = self
            .controls
            .iter()
            .rev()
            .filter(|control| control.verb == VerbName::Set);
        let mut changed =
            set.filter_map(|control| control.arguments.get("max_steps").and_then(Value::as_u64));
        changed
            .next()
            .or_else(|| self.run.as_ref().map(|run| run.total_steps))
            .filter(|steps| *steps > 0)
    }

    /// Mean seconds of the latest steps, without evals; `None` before the first step.
    pub fn seconds_per_step(&self) -> Option<f64> {
        let first = (self.last_step + 1).saturating_sub(PACE_STEPS);
        let latest = self.metrics.get("seconds")?.between(first, self.last_step);
        let seconds: Vec<f64> = latest
            .map(|(_, value)| value)
            .filter(|value| value.is_finite())
            .collect();
        (!seconds.is_empty()).then(|| seconds.iter().sum::<f64>() / seconds.len() as f64)
    }

    /// Estimated seconds to the last step at the speed of the latest steps, without evals; `None`
    /// if unknown or no step is left.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self
            .planned_steps()?
            .checked_sub(self.last_step)
            .filter(|left| *left > 0)?;
        Some(self.seconds_per_step()? * left as f64)
    }

    fn series(&mut self, name: &str) -> &mut Series {
        if !self.metrics.contains_key(name) {
            self.metrics.insert(name.to_owned(), Series::default());
        }
        self.metrics.entry(name.to_owned()).or_default()
    }

    fn group(&mut self, group: Group) {
        if let Some(rate) = SolveRate::from_group(&group) {
            self.solve_rates.insert(group.prompt_name(), rate);
        }
        // A repeated step writes its groups to the same lines.
        self.groups
            .entry(group.step)
            .or_default()
            .insert(group.line, group);
        while self.groups.len() > GROUP_STEPS_KEPT {
            self.groups.pop_first();
        }
    }

    fn forget_after(&mut self, step: u64) {
        for series in self.metrics.values_mut() {
            series.forget_after(step);
        }
        self.groups.retain(|found, _| *found <= step);
        self.solve_rates.retain(|_, rate| rate.step <= step);
        self.evals.retain(|key, _| key.step <= step);
        self.guards.retain(|found, _| *found <= step);
        self.checkpoints.retain(|found, _| *found <= step);
        self.collapses.retain(|collapse| collapse.step <= step);
        self.alerts_in_order.retain(|alert| alert.step <= step);
        self.alerts = self
            .alerts_in_order
            .iter()
            .map(|alert| (alert.rule.clone(), alert.clone()))
            .collect();
        if step < self.last_step {
            (self.last_step, self.ranks) = (step, Vec::new());
        }
    }
}

/// Serializes evals as a list; each contains its key.
mod listed_evals {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::run::record::events::{Eval, EvalKey};

    type Evals = BTreeMap<EvalKey, Eval>;

    pub(super) fn serialize<S: Serializer>(
        evals: &Evals,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(evals.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Evals, D::Error> {
        let evals = Vec::<Eval>::deserialize(deserializer)?;
        Ok(evals.into_iter().map(|eval| (eval.key(), eval)).collect())
    }
}

/// The last step that a `set` requests; `None` if it leaves the step unchanged or to the number of
/// epochs.
fn goal(control: &Control) -> Option<u64> {
    let steps = control
        .arguments
        .get("max_steps")
        .filter(|_| control.verb == VerbName::Set)?;
    steps.as_u64().filter(|steps| *steps > 0)
}
