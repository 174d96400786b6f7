//! Samples completions for a user between steps, without affecting training.

use std::path::Path;

use serde_json::{Value, json};

use super::error::TrainError;
use super::run_task::lengths;
use super::trainer::Trainer;
use crate::confidence::why_without;
use crate::constraint::TaskConstraints;
use crate::dataset::{PromptRow, load, load_from};
use crate::eval::{EvalError, confidences, requests};
use crate::facts::Target;
use crate::format::counted;
use crate::policy::{
    ConverseSettings, Lengths, PolicyVersion, Question, SAMPLE_STEP, ScoredTask, prepare_rows,
};
use crate::rollout::Sampling;
use crate::run::{Answer, Sample, SampledCompletion};
use crate::score::{Scorer, Task, for_model};
use crate::task::PromptSet;

/// Samples from the current or base weights with the request's seed, as `grpo-tui sample` does.
/// Errors go to the client and do not end the run.
pub(super) fn sample(
    trainer: &Trainer,
    request: &Sample,
    mut on_answer: impl FnMut(Answer),
) -> Answer {
    if request.base && !trainer.has_base() {
        let base = &trainer.config.base_model;
        return Answer::refused(format!(
            "this run trains all weights and keeps no copy of the base in memory (that needs kl_beta > 0); ask for `target` trained, or sample the base \
             itself: grpo-tui sample TASK --model {base}"
        ));
    }
    let sampled = sample_row(trainer, request);
    // Release memory for the gradient.
    let _ = trainer.policy.engine.trim_memory();
    match sampled {
        Ok(completions) => {
            completions
                .iter()
                .for_each(|completion| on_answer(Answer::part(json!(completion))));
            let step = trainer.state.step;
            Answer::done(
                format!(
                    "{} at step {step}",
                    counted(completions.len(), "completion")
                ),
                json!({"step": step}),
            )
        }
        Err(error) => Answer::refused(error.to_string()),
    }
}

fn sample_row(trainer: &Trainer, request: &Sample) -> Result<Vec<SampledCompletion>, TrainError> {
    let policy = &trainer.policy;
    let is_own = |name: &str| trainer.tasks.iter().any(|own| own.part.name == name);
    let other = match request.task.as_deref().filter(|name| !is_own(name)) {
        Some(path) if Path::new(path).is_absolute() => Some(Task::load(Path::new(path))?),
        Some(name) => Some(Task::embedded(name)?),
        None => None,
    };
    let own = trainer
        .tasks
        .iter()
        .find(|own| request.task.as_ref() == Some(&own.part.name));
    let tasks: Vec<Task> = match (own, other) {
        (Some(own), _) => vec![own.task().clone()],
        (None, Some(other)) => vec![for_model(&other, &policy.tokenizer)],
        (None, None) => trainer.tasks.iter().map(|own| own.task().clone()).collect(),
    };
    let FoundRow { task, label, row } = find_row(tasks, &request.row)?;
    if let Some(why) = why_without(&task, &label, [&row]).filter(|_| request.confidence) {
        return Err(TrainError::NoConfidence(why));
    }
    let limit = request
        .max_tokens
        .unwrap_or(trainer.config.max_completion_tokens);
    let lengths = Lengths {
        max_completion_tokens: limit,
        ..lengths(&trainer.config, policy.model.config())
    };
    let scorer = Scorer::new(&task)?;
    let prompts = prepare_rows(&task, &label, vec![row], &policy.tokenizer, lengths)?;
    let sampling = Sampling {
        thinking: trainer.sampling()?.thinking,
        ..Sampling::new(&policy.tokenizer, request.temperature, limit, request.seed)
    };
    let (version, target) = if request.base {
        (PolicyVersion::Base, Target::Base)
    } else {
        (PolicyVersion::Trained, Target::Trained)
    };
    let tasks = [ScoredTask {
        task: &task,
        scorer: &scorer,
        max_prompt_tokens: lengths.prompt_limit(),
    }];
    let settings = ConverseSettings {
        max_turns: 1,
        ..ConverseSettings::new(&tasks, version, &sampling)
    };
    let asked = prompts
        .iter()
        .zip(requests(&prompts, SAMPLE_STEP, request.n));
    let questions: Vec<_> = asked
        .map(|(prompt, request)| Question { prompt, request })
        .collect();
    let conversations = policy.converse(&questions, &settings, None)?.conversations;
    let mut known = Vec::new().into_iter();
    if request.confidence {
        let grammar = TaskConstraints::new(&task, &policy.tokenizer).map_err(EvalError::from)?;
        known = confidences(policy, version, &prompts, &grammar, &conversations)?.into_iter();
    }
    let mut samples = Vec::with_capacity(request.n);
    for turn in conversations
        .into_iter()
        .flatten()
        .flat_map(|conversation| conversation.turns)
    {
        let completion = turn.into_sampled(&prompts[0].row.id, samples.len())?;
        samples.push(SampledCompletion {
            target,
            confidence: known.next().map(Box::new),
            step: Some(trainer.state.step),
            ..completion
        });
    }
    Ok(samples)
}

/// A task's row and its origin, for messages.
struct FoundRow {
    task: Task,
    label: String,
    row: PromptRow,
}

/// Finds a row by id in any set of these tasks, or parses a request's row as the first task's.
fn find_row(tasks: Vec<Task>, requested: &Value) -> Result<FoundRow, TrainError> {
    let mut files = Vec::new();
    for task in tasks {
        let Some(id) = requested.as_str() else {
            let label = "the request's row".to_owned();
            let row = load_from(&label, requested.to_string().as_bytes())?.remove(0);
            return Ok(FoundRow { task, label, row });
        };
        for set in [PromptSet::Eval, PromptSet::Test, PromptSet::Train] {
            let Some(label) = task.set_file(set).map(|file| task.label(file)) else {
                continue;
            };
            if let Some(row) = load(&task, set)?.into_iter().find(|row| row.id == id) {
                return Ok(FoundRow { task, label, row });
            }
            files.push(label);
        }
    }
    let id = requested.as_str().unwrap_or_default().to_owned();
    Err(TrainError::NoSuchRow {
        id,
        files: files.join(", "),
    })
}
