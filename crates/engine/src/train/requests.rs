//! User requests: between steps rank 0 reads, records and answers them, waits while paused, and
//! decides what all ranks do.

use serde_json::{Value, json};

use super::checkpointing::collect;
use super::collapse;
use super::early_stop::should_stop;
use super::error::TrainError;
use super::next_action::NextAction;
use super::recorder::Recorder;
use super::sample::sample;
use super::trainer::Trainer;
use crate::facts::PhaseKind;
use crate::format::{or_na, percent};
use crate::run::events::{Eval, Note};
use crate::run::{AcceptedRequest, Answer, Status, Stop, Verb};

/// Handles new requests, waits while the run is paused, and decides what is next.
///
/// # Errors
/// [`TrainError::StoppedAtOnce`] for a stop without saving.
pub(super) fn next(
    trainer: &Trainer,
    recorder: &mut Recorder<'_>,
) -> Result<NextAction, TrainError> {
    let (step, worker) = (trainer.state.step, recorder.requests.worker);
    let controls = worker.controls();
    collect(recorder, false)?;
    loop {
        if let Some(due) = recorder
            .requests
            .settings
            .first_entry()
            .filter(|due| *due.key() <= step + 1)
        {
            return Ok(NextAction::Set(due.remove()));
        }
        recorder.requests.open.extend(controls.drain());
        if let Some(accepted) = recorder.requests.open.pop_front() {
            recorder.event(accepted.event(step + 1))?;
            controls.recorded(&accepted);
            match handle(trainer, recorder, accepted)? {
                Some(next) => return Ok(next),
                None => continue,
            }
        }
        match controls.stop_requested() {
            Some(Stop::Now) => return Err(TrainError::StoppedAtOnce),
            Some(_) => return Ok(NextAction::Stop),
            None => {}
        }
        if controls.pause_requested() {
            if !std::mem::replace(&mut recorder.requests.is_paused, true) {
                // A paused run has its checkpoint on disk.
                collect(recorder, true)?;
                recorder.phase(step, PhaseKind::Paused)?;
                recorder.status(Status::Paused, step, Some("pause requested".to_owned()))?;
            }
            controls.wait_while_paused();
            continue;
        }
        if std::mem::take(&mut recorder.requests.is_paused) {
            recorder.status(Status::Running, step, None)?;
        }
        // After requests, which may have changed the end.
        if step >= trainer.total_steps {
            return Ok(NextAction::Finish {
                cause: "all steps done".to_owned(),
            });
        }
        if let Some(cause) = should_stop(recorder.history()?, &trainer.state, &trainer.config) {
            return Ok(NextAction::Finish { cause });
        }
        if let Some(next) = collapse::next(trainer, recorder)? {
            return Ok(next);
        }
        if controls.compute_until(step + trainer.next_steps()) {
            return Ok(NextAction::Steps);
        }
    }
}

/// Answers a request, or returns what all ranks do for it.
fn handle(
    trainer: &Trainer,
    recorder: &mut Recorder<'_>,
    accepted: AcceptedRequest,
) -> Result<Option<NextAction>, TrainError> {
    let controls = recorder.requests.worker.controls();
    let next = match accepted.verb {
        Verb::Checkpoint => NextAction::Checkpoint,
        Verb::Eval if !trainer.prompts.eval.is_empty() => NextAction::Eval,
        Verb::Set { changes } => NextAction::Set(changes),
        verb => {
            let answer = match verb {
                Verb::Eval => Answer::refused("the task has no eval set"),
                Verb::Annotate { text } => {
                    recorder.event(Note { text })?;
                    Answer::done("noted", Value::Null)
                }
                Verb::Sample(request) => sample(trainer, &request, |part| {
                    controls.answer(accepted.id, &part)
                }),
                _ => Answer::done("done", Value::Null),
            };
            controls.answer(accepted.id, &answer);
            return Ok(None);
        }
    };
    recorder.requests.answering = Some(accepted.id);
    Ok(Some(next))
}

/// Answer to an eval request, covering all tasks; `None` on other ranks than 0.
pub(super) fn eval_answer(evals: &[Eval]) -> Option<Answer> {
    let text = |Eval { set, summary, .. }: &Eval| {
        let (valid, exact) = (percent(summary.valid), or_na(summary.exact, percent));
        format!("{set}: valid {valid}, exact {exact} (n = {})", summary.n)
    };
    let result = |Eval {
                      step,
                      summary,
                      against_base,
                      ..
                  }: &Eval| json!({"step": step, "summary": summary, "against_base": against_base});
    let step = evals.first()?.step;
    let text = format!(
        "step {step} {}",
        evals.iter().map(text).collect::<Vec<_>>().join("; ")
    );
    Some(match evals {
        [eval] => Answer::done(text, result(eval)),
        evals => {
            let by_set = evals
                .iter()
                .map(|eval| (eval.set.to_string(), result(eval)))
                .collect::<serde_json::Map<_, _>>();
            Answer::done(text, json!({"step": step, "sets": by_set}))
        }
    })
}
