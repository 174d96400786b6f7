//! The one-line text of an event in `train`, `runs attach`, the live screen and the HTML report.

use std::collections::BTreeSet;

use serde_json::Value;

use super::tables::shown;
use crate::facts::{AlertLevel, PhaseKind, Target, VerbName};
use crate::format::{bytes, counted, duration, percent, percent_short, rate_interval};
pub use crate::page::Level;
use crate::plan::StepShape;
use crate::run::events::{Alert, Checkpoint, Control, End, Eval, Guard, Memory, Step};
use crate::run::{EvalSummary, EventBody, Status, user_name};
use crate::secrets::redact;
use crate::task::{AlertRule, split_task_metric, task_metric};

type MetricText = fn(f64) -> String;

pub const STEP_METRICS: [(&str, MetricText); 11] = [
    ("reward", |reward| format!("reward {reward:.3}")),
    ("tiers/valid", |share| {
        format!("valid {:>6}", percent(share))
    }),
    ("exact", |share| format!("exact {:>6}", percent(share))),
    ("groups/frac_mixed", |share| {
        format!("mixed {:>4}", percent_short(share))
    }),
    ("kl", |kl| format!("KL {kl:.4}")),
    ("loss", |loss| format!("loss {loss:.4}")),
    ("grad_norm", |norm| format!("grad norm {norm:.3}")),
    ("completions/mean_length", |tokens| {
        format!("{tokens:.0} tokens")
    }),
    ("tools/calls", |calls| format!("{calls:.1} calls")),
    ("tokens_per_second/rollout", |rate| {
        format!("{rate:.0} tok/s")
    }),
    ("tokens_per_second/train", |rate| {
        format!("{rate:.0} tok/s trained")
    }),
];

/// Omitted if there is a reward: the value of an on-policy loss is meaningless (docs/algorithm.md).
const OF_SFT: [&str; 2] = ["loss", "tokens_per_second/train"];

/// Shown by task in a run of several: rewards have other scales, and a mean would hide a rate.
const BY_TASK: [&str; 3] = ["reward", "tiers/valid", "exact"];

/// Returns the level and text of an event; `None` for pure data, such as a group or a device reading. `total_steps` is
/// 0 if unknown. The text is not yet safe to print: secrets and control characters must be masked.
pub fn event_text(event: &EventBody, total_steps: u64) -> Option<(Level, String)> {
    let info = |text: String| Some((Level::Info, text));
    match event {
        EventBody::Run(run) => info(format!(
            "run {} on {}, {}",
            run.id,
            run.device,
            counted(run.total_steps as usize, "step")
        )),
        EventBody::Memory(memory) => info(memory_text(memory)),
        EventBody::Step(step) => Some((Level::Step, step_text(step, total_steps))),
        EventBody::Eval(eval) => Some((
            if eval.who() == Target::Base {
                Level::Base
            } else {
                Level::Trained
            },
            eval_text(eval),
        )),
        EventBody::Guard(guard) => {
            info(format!("step {}: {}", guard.step, guard_text(guard, None)))
        }
        EventBody::Checkpoint(Checkpoint {
            step,
            why,
            bytes: size,
            ..
        }) => info(format!(
            "step {step}: checkpoint saved ({why}), {}",
            bytes(*size)
        )),
        EventBody::Alert(alert) => Some((alert_level(alert), alert_text(alert))),
        // Its note follows.
        EventBody::Control(control) if control.verb == VerbName::Annotate => None,
        EventBody::Control(control) => Some((
            Level::Request,
            format!(
                "step {}: {} requested by {}",
                control.step,
                control_text(control),
                user_name(control.user_id)
            ),
        )),
        EventBody::Note(note) => Some((Level::Request, format!("note: {}", note.text))),
        EventBody::Recovered(recovered) => Some((Level::Warning, recovered.text.clone())),
        EventBody::Collapse(collapse) => Some((
            Level::Warning,
            format!(
                "step {}: recovered, the policy {}: weights of step {}, learning_rate = {}, guided groups",
                collapse.step,
                collapse.rule,
                collapse.restored_step,
                crate::config::Value::Number(collapse.learning_rate)
            ),
        )),
        EventBody::End(end) => Some((
            end_level(end),
            format!(
                "{} after step {}: {} ({})",
                end.status,
                end.step,
                end.cause,
                duration(end.seconds)
            ),
        )),
        EventBody::Phase(phase) if phase.phase == PhaseKind::Paused => {
            info(phase.phase.to_string())
        }
        _ => None,
    }
}

/// `step 12: warning (zero variance groups): SENTENCE SUGGESTION`.
pub fn alert_text(alert: &Alert) -> String {
    let Alert {
        rule,
        level,
        step,
        sentence,
        suggestion,
        cleared,
        ..
    } = alert;
    let rule = alert_name(rule);
    let text = if *cleared {
        format!("resolved: {rule}")
    } else {
        format!("{level} ({rule}): {sentence} {suggestion}")
    };
    format!("step {step}: {}", text.trim_end())
}

/// The display name of an alert's rule; of one of several tasks with its name before.
pub fn alert_name(AlertRule { name, task }: &AlertRule) -> String {
    let name = match name.as_str() {
        "all_best" => "all max".to_owned(),
        "all_worst" => "all min or all equal".to_owned(),
        "dead_groups_with_kl" => "zero-variance groups with KL".to_owned(),
        // Masked first: without its underscores a secret would not be recognized.
        _ => redact(name).0.replace('_', " "),
    };
    match task.as_str() {
        "" => name,
        task => format!("{}: {name}", redact(task).0),
    }
}

/// A request as its command: `set learning_rate = 1e-5`.
pub fn control_text(control: &Control) -> String {
    let Control {
        verb, arguments, ..
    } = control;
    let flag = |name: &str| arguments.get(name) == Some(&Value::Bool(true));
    match verb {
        VerbName::Annotate => format!(
            "note: {}",
            arguments.get("text").map(shown).unwrap_or_default()
        ),
        VerbName::Stop if flag("now") => "stop now".to_owned(),
        VerbName::Stop => "stop after the current step".to_owned(),
        _ => {
            let arguments: Vec<String> = arguments
                .iter()
                .map(|(name, value)| format!("{name} = {}", shown(value)))
                .collect();
            format!("{verb} {}", arguments.join(", "))
                .trim_end()
                .to_owned()
        }
    }
}

fn alert_level(alert: &Alert) -> Level {
    match alert.level {
        _ if alert.cleared => Level::Good,
        AlertLevel::Error => Level::Error,
        _ => Level::Warning,
    }
}

fn end_level(end: &End) -> Level {
    match end.status {
        // Finishing all steps is not success; the outcome is reported separately.
        Status::Finished => Level::Info,
        Status::Failed => Level::Error,
        status if status.is_stopped(Some(&end.cause)) => Level::Info,
        _ => Level::Warning,
    }
}

fn memory_text(memory: &Memory) -> String {
    let shape = StepShape {
        tokens_per_micro_batch: memory.tokens_per_micro_batch,
        recompute: memory.recompute_activations,
    };
    let [peak, usable, total] =
        [memory.peak_bytes, memory.usable_bytes, memory.total_bytes].map(bytes);
    format!("memory: peak {peak}, {usable} of {total} free; {shape}")
}

fn step_text(step: &Step, total_steps: u64) -> String {
    let width = total_steps.to_string().len();
    let total = if total_steps > 0 {
        format!("/{total_steps}")
    } else {
        String::new()
    };
    let mut parts = vec![format!("step {:>width$}{total}", step.step)];
    let has_reward = step.metrics.contains_key("reward");
    let by_task = by_task_text(step);
    let is_by_task = !by_task.is_empty();
    parts.extend(by_task);
    let is_hidden =
        |name: &str| has_reward && OF_SFT.contains(&name) || is_by_task && BY_TASK.contains(&name);
    let value = |name: &str| step.metrics.get(name).filter(|_| !is_hidden(name));
    parts.extend(
        STEP_METRICS
            .iter()
            .filter_map(|(name, text)| value(name).map(|value| text(*value))),
    );
    if has_reward && !step.metrics.contains_key("grad_norm") {
        parts.push("no update (no mixed groups)".to_owned());
    }
    parts.push(duration(step.seconds));
    parts.join("  ")
}

fn by_task_text(step: &Step) -> Vec<String> {
    let named = step
        .metrics
        .keys()
        .filter_map(|name| split_task_metric(name));
    let tasks: BTreeSet<&str> = named.map(|(task, _)| task).collect();
    let of_task = |task: &str| {
        let value = |name: &str| step.metrics.get(&task_metric(task, name));
        let texts = STEP_METRICS
            .iter()
            .filter(|(name, _)| BY_TASK.contains(name));
        let texts: Vec<String> = texts
            .filter_map(|(name, text)| Some(text(*value(name)?)))
            .collect();
        format!("{task}: {}", texts.join(" "))
    };
    tasks.into_iter().map(of_task).collect()
}

fn eval_text(eval: &Eval) -> String {
    format!(
        "step {}: eval on {} ({}): {}",
        eval.step,
        eval.set,
        eval.who(),
        rates(&eval.summary)
    )
}

/// The guard prompts in one line; beside what they were before training, where that is known.
pub fn guard_text(guard: &Guard, base: Option<&Guard>) -> String {
    let change = base
        .filter(|base| base.step < guard.step)
        .and_then(|base| guard.change(base));
    let change = change.map_or_else(String::new, |change| {
        format!(
            " ({:+.3} [{:+.3}, {:+.3}] since step 0)",
            change.estimate, change.low, change.high
        )
    });
    let exact = guard
        .exact
        .map_or_else(String::new, |exact| format!(", exact {}", percent(exact)));
    let count = counted(guard.log_probs.len(), "guard prompt");
    format!(
        "{count}: logprob {:.3} nats/token{change}{exact}",
        guard.log_prob()
    )
}

pub fn rates(summary: &EvalSummary) -> String {
    let exact = summary.exact.map_or_else(String::new, |exact| {
        format!("  exact {:>6}", percent(exact))
    });
    let (valid, parse, interval) = (
        percent(summary.valid),
        percent(summary.parse),
        rate_interval(summary.valid_interval),
    );
    format!(
        "n = {:<4} valid {valid:>6} {interval}{exact}  parse {parse:>6}",
        summary.n
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::run::events::{Note, Phase};

    #[test]
    fn each_kind_of_event() {
        let check = |event: EventBody, expected: Option<(Level, &str)>| {
            let found = event_text(&event, 120);
            assert_eq!(
                found.as_ref().map(|(level, text)| (*level, text.as_str())),
                expected,
                "{event:?}"
            );
        };
        let metrics = |values: &[(&str, f64)]| {
            values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect::<BTreeMap<_, _>>()
        };
        let all = [
            ("reward", 0.5),
            ("tiers/valid", 0.25),
            ("groups/frac_mixed", 1.0),
            ("kl", 0.0012),
            ("loss", -0.00001),
            ("grad_norm", 0.5),
            ("other", 1.0),
        ];
        let step = |values| {
            Step {
                step: 12,
                seconds: 1.25,
                metrics: metrics(values),
                ..Step::default()
            }
            .into()
        };
        check(
            step(&all),
            Some((
                Level::Step,
                "step  12/120  reward 0.500  valid  25.0%  mixed 100%  KL 0.0012  grad norm 0.500  1.2 s",
            )),
        );
        let none = "step  12/120  reward 0.500  no update (no mixed groups)  1.2 s";
        check(step(&all[..1]), Some((Level::Step, none)));
        check(
            step(&[("loss", 0.25)]),
            Some((Level::Step, "step  12/120  loss 0.2500  1.2 s")),
        );
        let alert = |cleared| Alert {
            rule: "zero_variance".into(),
            level: AlertLevel::Warning,
            step: 3,
            sentence: "No group is mixed.".into(),
            suggestion: if cleared { "" } else { "Raise temperature." }.into(),
            cleared,
            ..Alert::default()
        };
        check(
            alert(false).into(),
            Some((
                Level::Warning,
                "step 3: warning (zero variance): No group is mixed. Raise temperature.",
            )),
        );
        check(
            alert(true).into(),
            Some((Level::Good, "step 3: resolved: zero variance")),
        );
        let named = |rule: &str| {
            alert_text(&Alert {
                rule: rule.into(),
                cleared: true,
                ..Alert::default()
            })
        };
        let words = [
            "all_best",
            "all_worst",
            "dead_groups_with_kl",
            "value_drift",
        ]
        .map(named);
        let expected = [
            "all max",
            "all min or all equal",
            "zero-variance groups with KL",
            "value drift",
        ];
        assert_eq!(
            words,
            expected.map(|name| format!("step 0: resolved: {name}"))
        );
        let control = |verb, arguments: &[(&str, Value)]| Control {
            verb,
            arguments: arguments
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            user_id: 0,
            step: 3,
            ..Control::default()
        };
        check(
            control(VerbName::Pause, &[]).into(),
            Some((Level::Request, "step 3: pause requested by root")),
        );
        check(
            control(VerbName::Stop, &[("now", true.into())]).into(),
            Some((Level::Request, "step 3: stop now requested by root")),
        );
        let set = control(
            VerbName::Set,
            &[("learning_rate", "1e-5".into()), ("max_steps", 9.into())],
        );
        check(
            set.into(),
            Some((
                Level::Request,
                "step 3: set learning_rate = 1e-5, max_steps = 9 requested by root",
            )),
        );
        check(
            control(VerbName::Annotate, &[("text", "x".into())]).into(),
            None,
        );
        check(
            Note { text: "x".into() }.into(),
            Some((Level::Request, "note: x")),
        );
        check(
            Phase {
                step: 1,
                phase: PhaseKind::Paused,
            }
            .into(),
            Some((Level::Info, "paused")),
        );
        check(
            Phase {
                step: 1,
                phase: PhaseKind::Rollout,
            }
            .into(),
            None,
        );
        let end = End {
            status: Status::Failed,
            cause: "out of memory".into(),
            step: 3,
            seconds: 4.0,
        };
        check(
            end.into(),
            Some((Level::Error, "failed after step 3: out of memory (4.0 s)")),
        );
    }
}
