//! What comes next: rank 0 reads requests between two steps, records and answers them, waits while the run is paused, and
//! decides what all ranks do.

use serde_json::{Value, json};

use super::TrainError;
use super::checkpointing::collect;
use super::collapse;
use super::early_stop::should_stop;
use super::next_action::Next;
use super::recorder::Recorder;
use super::trainer::Trainer;
use crate::eval::{SampleSource, resolve_task, sample_row};
use crate::format::{or_na, percent};
use crate::run::events::{Eval, Note};
use crate::run::{AcceptedRequest, Answer, Sample, Status, Stop, Verb};

/// Handles the requests since the last step, waits while the run is paused, and decides what is next.
///
/// # Errors
/// [`TrainError::StoppedAtOnce`] for a stop without saving.
pub(super) fn next(trainer: &Trainer, recorder: &mut Recorder<'_>) -> Result<Next, TrainError> {
    let (step, worker) = (trainer.state.step, recorder.requests.worker);
    let controls = worker.controls();
    collect(recorder, false)?;
    loop {
        if let Some(due) = recorder.requests.settings.first_entry().filter(|due| *due.key() <= step + 1) {
            return Ok(Next::Set(due.remove()));
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
            Some(_) => return Ok(Next::Stop { with_eval: false }),
            None => {}
        }
        if controls.pause_requested() {
            if !std::mem::replace(&mut recorder.requests.is_paused, true) {
                // A paused run has its checkpoint on disk.
                collect(recorder, true)?;
                recorder.phase(step, "paused")?;
                recorder.status(Status::Paused, step, Some("pause requested".to_owned()))?;
            }
            controls.wait_while_paused();
            continue;
        }
        if std::mem::take(&mut recorder.requests.is_paused) {
            recorder.status(Status::Running, step, None)?;
        }
        // After requests, which may have moved the end.
        if step >= trainer.total_steps {
            return Ok(Next::Finish { cause: "all steps done".to_owned() });
        }
        if let Some(cause) = should_stop(recorder.history()?, &trainer.state, &trainer.config) {
            return Ok(Next::Finish { cause });
        }
        if let Some(next) = collapse::next(trainer, recorder)? {
            return Ok(next);
        }
        if controls.stops_after(step) {
            return Ok(Next::Stop { with_eval: true });
        }
        if controls.compute_until(step + trainer.next_steps()) {
            return Ok(Next::Steps);
        }
    }
}

/// Answers a request, or returns what all ranks do for it.
fn handle(
    trainer: &Trainer,
    recorder: &mut Recorder<'_>,
    accepted: AcceptedRequest,
) -> Result<Option<Next>, TrainError> {
    let controls = recorder.requests.worker.controls();
    let next = match accepted.verb {
        Verb::Checkpoint => Next::Checkpoint,
        Verb::Eval if !trainer.prompts.eval.is_empty() => Next::Eval,
        Verb::Set { changes } => Next::Set(changes),
        verb => {
            let answer = match verb {
                Verb::Eval => Answer::refused("the task has no eval set"),
                Verb::Annotate { text } => {
                    recorder.event(Note { text })?;
                    Answer::done("noted", Value::Null)
                }
                Verb::Sample(request) => sample(trainer, &request, |part| controls.answer(accepted.id, &part)),
                _ => Answer::done("done", Value::Null),
            };
            controls.answer(accepted.id, &answer);
            return Ok(None);
        }
    };
    recorder.requests.answering = Some(accepted.id);
    Ok(Some(next))
}

/// The answer to a request for an eval.
pub(super) fn eval_answer(Eval { step, summary, against_base, .. }: &Eval) -> Answer {
    let (valid, exact) = (percent(summary.valid), or_na(summary.exact, percent));
    let text = format!("step {step} eval: valid {valid}, exact {exact} (n = {})", summary.n);
    Answer::done(text, json!({"step": step, "summary": summary, "against_base": against_base}))
}

/// Samples from the current weights or the base. Errors go to the client and do not end the run.
fn sample(trainer: &Trainer, request: &Sample, mut on_answer: impl FnMut(Answer)) -> Answer {
    if request.base && !trainer.has_base() {
        let base = &trainer.config.base_model;
        return Answer::refused(format!(
            "this run trains all weights and keeps no copy of the base in memory (that needs kl_beta > 0); ask for `target` trained, or sample the base \
             itself: grpo-tui sample TASK --model {base}"
        ));
    }
    let source = SampleSource {
        policy: &trainer.policy,
        step: Some(trainer.state.step),
        max_completion_tokens: trainer.config.max_completion_tokens,
        max_seq_len: Some(trainer.config.max_seq_len),
    };
    let sampled =
        resolve_task(request, || Ok(trainer.task.clone())).and_then(|task| sample_row(source, &task, request));
    // Leaves the memory to the gradient.
    let _ = trainer.policy.engine.trim_memory();
    match sampled {
        Ok(completions) => {
            completions.iter().for_each(|completion| on_answer(Answer::part(json!(completion))));
            Answer::done(
                format!("{} completions at step {}", completions.len(), trainer.state.step),
                json!({"step": trainer.state.step}),
            )
        }
        Err(error) => Answer::refused(error.to_string()),
    }
}
