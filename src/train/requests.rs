//! Requests between two steps: each is recorded, executed and answered; a paused run waits here.

use serde_json::{Value, json};

use super::TrainError;
use super::checkpointing::{collect, save};
use super::evaluation::run_eval;
use super::job::Job;
use super::recorder::Recorder;
use crate::eval::{SampleSource, resolve_task, sample_row};
use crate::format::{or_na, percent};
use crate::rollout::RolloutContext;
use crate::run::events::{Eval, Note};
use crate::run::{AcceptedRequest, Answer, RequestQueue, RunDirectory, Sample, Status, Stop, Verb};

/// Handles the requests since the last step, and waits while the run is paused. Returns whether to save and stop.
///
/// # Errors
/// [`TrainError::StoppedAtOnce`] for a stop without saving.
pub(super) fn handle_requests(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    controls: &RequestQueue,
) -> Result<bool, TrainError> {
    let mut paused = false;
    collect(recorder, false)?;
    loop {
        for accepted in controls.drain() {
            recorder.event(accepted.event(job.state.step + 1))?;
            controls.recorded(&accepted);
            execute_request(run, job, recorder, controls, accepted)?;
        }
        let stop = match controls.stop_requested() {
            Some(Stop::Now) => return Err(TrainError::StoppedAtOnce),
            stop => stop.is_some(),
        };
        if stop || !controls.pause_requested() {
            if paused && !stop {
                recorder.status(Status::Running, job.state.step, None)?;
            }
            return Ok(stop);
        }
        if !paused {
            // A paused run has its checkpoint on disk.
            collect(recorder, true)?;
            recorder.phase(job.state.step, "paused")?;
            recorder.status(Status::Paused, job.state.step, Some("pause requested".to_owned()))?;
            paused = true;
        }
        controls.wait_while_paused();
    }
}

fn execute_request(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    controls: &RequestQueue,
    accepted: AcceptedRequest,
) -> Result<(), TrainError> {
    let step = job.state.step;
    let answer = match &accepted.verb {
        Verb::Checkpoint => {
            save(run, job, recorder, "asked")?;
            Answer::done(format!("checkpoint of step {step} saved"), json!({"step": step}))
        }
        Verb::Eval => match run_eval(run, job, recorder, "eval", "trained", step)? {
            Some(Eval { summary, against_base, .. }) => {
                let (valid, exact) = (percent(summary.valid), or_na(summary.exact, percent));
                let text = format!("step {step} eval: valid {valid}, exact {exact} (n = {})", summary.n);
                Answer::done(text, json!({"step": step, "summary": summary, "against_base": against_base}))
            }
            None => Answer::refused("the task has no eval set"),
        },
        Verb::Set { changes } => {
            job.set(changes);
            Answer::done(format!("set from step {} on", step + 1), json!(changes))
        }
        Verb::Annotate { text } => {
            recorder.event(Note { text: text.clone() })?;
            Answer::done("noted", Value::Null)
        }
        Verb::Sample(request) => sample(job, request, |part| controls.answer(accepted.id, &part)),
        Verb::Pause | Verb::Resume | Verb::Stop { .. } | Verb::Status => Answer::done("done", Value::Null),
    };
    controls.answer(accepted.id, &answer);
    Ok(())
}

/// Samples from the current weights or the base. Errors go to the client and do not end the run.
fn sample(job: &Job, request: &Sample, mut on_answer: impl FnMut(Answer)) -> Answer {
    let Some((model, adapters)) = job.model_for(request.base) else {
        let base = &job.config.base_model;
        return Answer::refused(format!(
            "this run trains all weights and keeps no copy of the base in memory (that needs kl_beta > 0); ask for `target` trained, or sample the base \
             itself: grpo-tui sample TASK --model {base}"
        ));
    };
    let source = SampleSource {
        context: RolloutContext { model, adapters, ..job.rollout_context() },
        step: Some(job.state.step),
        max_completion_tokens: job.config.max_completion_tokens,
        max_seq_len: Some(job.config.max_seq_len),
    };
    let sampled = resolve_task(request, || Ok(job.task.clone())).and_then(|task| sample_row(source, &task, request));
    // Leaves the memory to the gradient.
    let _ = job.engine.trim_memory();
    match sampled {
        Ok(completions) => {
            completions.iter().for_each(|completion| on_answer(Answer::part(json!(completion))));
            Answer::done(
                format!("{} completions at step {}", completions.len(), job.state.step),
                json!({"step": job.state.step}),
            )
        }
        Err(error) => Answer::refused(error.to_string()),
    }
}
