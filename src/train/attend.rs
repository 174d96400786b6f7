//! What people ask between two steps: recorded first, then done, then answered; a pause holds the loop here.

use serde_json::{Value, json};

use super::TrainError;
use super::grpo::save;
use super::job::Job;
use super::proof::pass;
use super::recorder::Recorder;
use crate::run::events::Note;
use crate::run::{Answer, Controls, RunDirectory, Status, Verb};

/// Does what was asked since the last step, and holds while the run is paused. True when the run should stop here.
pub(super) fn attend(run: &RunDirectory, job: &mut Job, recorder: &mut Recorder<'_>, controls: &Controls) -> Result<bool, TrainError> {
    let mut paused = false;
    loop {
        for accepted in controls.take() {
            recorder.event(accepted.event(job.state.step + 1))?;
            let answer = fulfil(run, job, recorder, &accepted.verb)?;
            controls.answer(accepted.id, &answer);
        }
        let stop = controls.stop_requested().is_some();
        if stop || !controls.pause_requested() {
            if paused && !stop {
                recorder.status(Status::Running, job.state.step, None)?;
            }
            return Ok(stop);
        }
        if !paused {
            recorder.phase(job.state.step, "paused")?;
            recorder.status(Status::Paused, job.state.step, Some("asked to hold".to_owned()))?;
            paused = true;
        }
        controls.wait_while_paused();
    }
}

fn fulfil(run: &RunDirectory, job: &mut Job, recorder: &mut Recorder<'_>, verb: &Verb) -> Result<Answer, TrainError> {
    let step = job.state.step;
    Ok(match verb {
        Verb::Checkpoint => {
            save(run, job, recorder, "asked")?;
            Answer::done(format!("the checkpoint of step {step} is saved"), json!({"step": step}))
        }
        Verb::Eval => match pass(run, job, recorder, "eval", "trained", step)? {
            Some(summary) => {
                let text = format!("step {step}: valid {:.1} % of {}", 100.0 * summary.valid, summary.n);
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
        Verb::Sample(_) => Answer::refused("this run does not sample yet"),
        Verb::Pause | Verb::Resume | Verb::Stop { .. } | Verb::Status => Answer::done("done", Value::Null),
    })
}
