//! Events in words, and the letters that stand for them on a chart.

use crate::format::{amount, bytes, duration, percent_short};
use crate::run::events::{Control, EventBody};
use crate::run::{Event, Status};
use crate::view::followed_run::FollowedRun;
use crate::view::style_role::Role;

/// What happened at which step, as letters for the axis; a rarer thing covers a commoner one.
pub(super) fn marks(run: &FollowedRun) -> Vec<(u64, &'static str)> {
    let history = &run.history;
    let evals = history.evals.keys().map(|(step, ..)| (*step, "e"));
    let checkpoints = history.checkpoints.keys().map(|step| (*step, "c"));
    let controls = history.controls.iter().filter(|control| control.verb != "annotate").map(|control| (control.step, "s"));
    let remarks = history.controls.iter().filter(|control| control.verb == "annotate").map(|control| (control.step, "n"));
    evals.chain(checkpoints).chain(controls).chain(remarks).collect()
}

/// What the marks of a step mean; `None` where there is none.
pub(super) fn at_step(run: &FollowedRun, step: u64) -> Option<String> {
    let history = &run.history;
    let mut found = Vec::new();
    if history.checkpoints.contains_key(&step) {
        found.push("checkpoint".to_owned());
    }
    found.extend(history.controls.iter().filter(|control| control.step == step).map(asked));
    (!found.is_empty()).then(|| found.join(", "))
}

/// A request in words.
fn asked(control: &Control) -> String {
    let text = control.arguments.get("text").and_then(serde_json::Value::as_str);
    match (control.verb.as_str(), text) {
        ("annotate", Some(text)) => format!("note: {}", one_line(text)),
        ("set", _) => {
            let changes = control.arguments.iter().map(|(name, value)| format!("{name} = {value}"));
            format!("set {}", changes.collect::<Vec<_>>().join(", "))
        }
        ("stop", _) if control.arguments.contains_key("now") => "kill".to_owned(),
        ("stop", _) => "stop after the current step".to_owned(),
        (verb, _) => verb.to_owned(),
    }
}

/// An event as a sentence for the log, and what it is.
pub(super) fn told(event: &Event) -> Option<(Role, String)> {
    let text = |text: String| Some((Role::Text, text));
    match &event.body {
        EventBody::Run(run) => text(format!("{} started on {}, {} steps planned", run.job, run.device, run.total_steps)),
        EventBody::Memory(memory) => text(format!("needs {} of {} GPU memory", bytes(memory.peak_bytes), bytes(memory.usable_bytes))),
        EventBody::Step(step) => {
            let value = |name: &str| step.metrics.get(name).copied().unwrap_or(f64::NAN);
            let (reward, valid) = (amount(value("reward")), percent_short(value("tiers/valid")));
            Some((Role::Faint, format!("step {}: reward {reward}, valid {valid}, {}", step.step, duration(step.seconds))))
        }
        EventBody::Eval(eval) => {
            let exact = eval.summary.exact.map_or_else(String::new, |exact| format!(", exact {}", percent_short(exact)));
            let valid = percent_short(eval.summary.valid);
            Some((
                if eval.who() == "base" { Role::Base } else { Role::Trained },
                format!("step {}: eval on {} ({}): valid {valid}{exact}, n = {}", eval.step, eval.set, eval.who(), eval.summary.n),
            ))
        }
        EventBody::Checkpoint(checkpoint) => {
            text(format!("step {}: checkpoint saved ({}), {}", checkpoint.step, checkpoint.why, bytes(checkpoint.bytes)))
        }
        EventBody::Alert(alert) if alert.cleared => Some((Role::Good, format!("step {}: {}", alert.step, alert.sentence))),
        EventBody::Alert(alert) => {
            let role = if alert.level == "error" { Role::Bad } else { Role::Warning };
            Some((role, format!("step {}: {}: {} {}", alert.step, alert.rule.replace('_', " "), alert.sentence, alert.suggestion)))
        }
        // The note that follows says the same.
        EventBody::Control(control) if control.verb == "annotate" => None,
        EventBody::Control(control) => Some((Role::Accent, format!("step {}: requested: {}", control.step, asked(control)))),
        EventBody::Note(note) => Some((Role::Accent, format!("note: {}", one_line(&note.text)))),
        EventBody::Recovered(recovered) => Some((Role::Warning, format!("recovered: {}", recovered.text))),
        EventBody::End(end) => {
            let role = match Status::from_name(&end.status) {
                Status::Finished => Role::Good,
                Status::Failed => Role::Bad,
                status if status.was_asked_for(Some(&end.cause)) => Role::Text,
                _ => Role::Warning,
            };
            Some((role, format!("{} after step {}: {}, {}", end.status, end.step, end.cause, duration(end.seconds))))
        }
        _ => None,
    }
}

/// Text of others without what would speak to the terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
