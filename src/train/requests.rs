//! What people ask between two steps: recorded first, then done, then answered; a pause holds the loop here.

use serde_json::{Value, json};

use super::TrainError;
use super::checkpointing::{collect, save};
use super::evaluation::run_eval;
use super::job::Job;
use super::recorder::Recorder;
use crate::eval::{SampleSource, resolve_task, sample_row};
use crate::format::percent;
use crate::rollout::RolloutContext;
use crate::run::events::Note;
use crate::run::{AcceptedRequest, Answer, RequestQueue, RunDirectory, Sample, Status, Stop, Verb};

/// Does what was asked since the last step, and holds while the run is paused. True when the run should stop here, and
/// save first.
///
/// # Errors
/// [`TrainError::StoppedAtOnce`] where even that is not wanted.
pub(super) fn handle_requests(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    controls: &RequestQueue,
) -> Result<bool, TrainError> {
    let mut paused = false;
    collect(recorder, false)?;
    loop {
        for accepted in controls.take() {
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
            // What holds still has its checkpoint on the disk.
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
            Some(summary) => {
                let text = format!("step {step}: valid {} of {}", percent(summary.valid), summary.n);
                Answer::done(text, json!({"step": step, "summary": summary}))
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

/// Completions of the weights as they are now, or as they were at the run's start. What goes wrong with them is the
/// asker's business, not the run's.
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
    // The gradient's memory must not come on top of what this held.
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
