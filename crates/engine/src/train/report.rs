//! The result of a finished run: base against best checkpoint.

use serde::Serialize;
use serde_json::{Value, json};

use super::error::TrainError;
use super::evaluation::{RunEval, run_evals, stop_before};
use super::recorder::{Record, Recorder};
use super::trainer::Trainer;
use crate::checkpoint;
use crate::facts::Target;
use crate::policy::PolicyVersion;
use crate::run::events::{EvalKey, Note};
use crate::run::{
    At, Comparison, EvalSummary, RunDirectory, RunError, RunState, Status, TestLook,
    checkpoint_path, eval_path, read_evals, resolve_checkpoint, set_aside, verify_checkpoint,
};
use crate::task::{PromptSet, SetName};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub run: String,
    /// Wall-clock time of this worker, including evals.
    pub seconds: f64,
    /// All steps done, or why it stopped early, as a sentence.
    pub cause: String,
    pub steps: u64,
    /// Step of the best checkpoint by the eval set.
    pub best_step: u64,
    /// One per task.
    pub results: Vec<TaskResult>,
}

/// Base against best checkpoint on a task's prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskResult {
    /// Empty for a single task.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// Set of the comparison: `test`, or `eval` without a test set.
    pub set: PromptSet,
    pub base: EvalSummary,
    /// Rates of the best checkpoint.
    pub trained: EvalSummary,
    /// Comparison by `valid`.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Comparison by `exact`; `None` without expected answers.
    pub exact_comparison: Option<Comparison>,
    /// Of the test set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<TestLook>,
}

impl Report {
    /// The report as JSON: the only task's result, or `tasks`.
    ///
    /// # Errors
    /// Never for these numbers.
    pub fn document(&self) -> Result<Value, serde_json::Error> {
        let Self {
            run,
            seconds,
            cause,
            steps,
            best_step,
            results,
        } = self;
        let mut document = json!({"run": run, "seconds": seconds, "cause": cause, "steps": steps, "best_step": best_step});
        match (&mut document, results.as_slice()) {
            (Value::Object(fields), [only]) => {
                if let Value::Object(result) = serde_json::to_value(only)? {
                    fields.extend(result);
                }
            }
            (_, results) => document["tasks"] = serde_json::to_value(results)?,
        }
        Ok(document)
    }
}

/// Loads the best checkpoint and evaluates it on the test sets. Seconds and cause are empty, as is
/// all on other ranks than 0.
pub(super) fn report(trainer: &Trainer, record: &mut Record<'_>) -> Result<Report, TrainError> {
    let best_step = record.on_rank_0(|recorder| best_whole(trainer, recorder))?;
    let best_step = trainer.ranks.broadcast(best_step)?;
    // Step 0 has the base's eval.
    if best_step > 0 && best_step != trainer.state.step {
        let folder = checkpoint_path(trainer.run.path(), best_step);
        checkpoint::load_parameters(&folder, trainer.policy.model.parameters())?;
    }
    if !trainer.prompts.test.is_empty() && best_step > 0 {
        let which = RunEval {
            set: PromptSet::Test,
            version: PolicyVersion::Trained,
            step: best_step,
        };
        stop_before(trainer, record, which)?;
        run_evals(trainer, record, which)?;
    }
    record.on_rank_0(|_| read_report(&trainer.run, best_step, trainer.state.step))
}

/// The best intact checkpoint; damaged ones are set aside and reported.
fn best_whole(trainer: &Trainer, recorder: &mut Recorder<'_>) -> Result<u64, TrainError> {
    loop {
        let step = resolve_checkpoint(&trainer.run, At::Best)?;
        let run = trainer.run.path();
        match verify_checkpoint(&checkpoint_path(run, step), |_| true) {
            Err(error @ RunError::Malformed { .. }) => {
                let text = set_aside(run, step, &error)?;
                recorder.event(Note { text })?;
            }
            verified => return verified.map(|_| step).map_err(TrainError::from),
        }
    }
}

/// Report of a finished run from its files; `None` if unfinished.
///
/// # Errors
/// [`TrainError`] naming a missing or unreadable file.
pub fn finished_report(run: &RunDirectory) -> Result<Option<Report>, TrainError> {
    let Some(end) = RunState::read(run.path())?
        .end
        .filter(|end| end.status == Status::Finished)
    else {
        return Ok(None);
    };
    let report = read_report(run, resolve_checkpoint(run, At::Best)?, end.step)?;
    Ok(Some(Report {
        seconds: end.seconds,
        cause: end.cause.sentence,
        ..report
    }))
}

/// Recorded evals of base and result.
fn read_report(run: &RunDirectory, best_step: u64, steps: u64) -> Result<Report, TrainError> {
    let history = RunState::read(run.path())?;
    let results = run
        .task_names()
        .into_iter()
        .map(|task| read_result(run, &history, task, best_step));
    let results = results.collect::<Result<_, _>>()?;
    Ok(Report {
        run: run.id().to_owned(),
        steps,
        best_step,
        results,
        ..Report::default()
    })
}

fn read_result(
    run: &RunDirectory,
    history: &RunState,
    task: &str,
    best_step: u64,
) -> Result<TaskResult, TrainError> {
    let path = |set, step, target: Target| {
        eval_path(run.path(), step, &SetName::new(set, task), target.name())
    };
    let set = if path(PromptSet::Test, 0, Target::Base).exists() {
        PromptSet::Test
    } else {
        PromptSet::Eval
    };
    let base = path(set, 0, Target::Base);
    let best = path(set, best_step, Target::Trained);
    // Without held-out prompts there are none.
    let before = if base.exists() {
        read_evals(&base)?
    } else {
        Vec::new()
    };
    // At step 0 the trained model is the base.
    let after = if best.exists() {
        read_evals(&best)?
    } else {
        before.clone()
    };
    let result = history.evals.get(&EvalKey {
        step: best_step,
        set: SetName::new(set, task),
        target: Target::Trained,
    });
    Ok(TaskResult {
        look: result.and_then(|eval| eval.look.as_deref().cloned()),
        task: task.to_owned(),
        set: set.to_owned(),
        base: EvalSummary::from_records(&before),
        trained: EvalSummary::from_records(&after),
        comparison: Comparison::between(&before, &after),
        exact_comparison: Comparison::between_exact(&before, &after),
    })
}
