//! Scored completions of one prompt on request, without effect on training.

use std::path::Path;

use super::requests;
use crate::checkpoint::StartError;
use crate::config::{Assignments, ConfigError, Layers};
use crate::dataset::{DatasetError, PromptRow, load, load_from};
use crate::kernels::cuda_errors::explained;
use crate::policy::{
    Conversation, ConverseSettings, Lengths, Policy, PolicyVersion, PromptError, Question, SAMPLE_STEP, Turn,
    prepare_rows,
};
use crate::rollout::Sampling;
use crate::run::{RunError, Sample, SampledCompletion};
use crate::score::{ScoreError, Scorer};
use crate::task::{PromptSet, TASK_FILE, Task, TaskError};
use crate::text::TextError;

#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("{}", explained(&.0.to_string()))]
    Tensor(#[from] candle_core::Error),
    #[error("{0}")]
    Text(#[from] TextError),
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    #[error("{0}")]
    Task(#[from] TaskError),
    #[error("{0}")]
    Score(#[from] ScoreError),
    #[error("{0}")]
    Prompt(#[from] PromptError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("a score cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no row `{id}` in {files}")]
    NoSuchRow { id: String, files: String },
}

#[derive(Clone, Copy, Debug)]
pub struct SampleSource<'a> {
    pub policy: &'a Policy,
    /// Optimizer steps of the model; `None` if it is not in training.
    pub step: Option<u64>,
    /// The limit if the request has none.
    pub max_completion_tokens: usize,
    /// The configured limit of prompt and completion together.
    pub max_seq_len: Option<usize>,
}

/// Samples with the request's seed alone, as `grpo-tui sample` does.
///
/// # Errors
/// [`SampleError`] for an invalid task, row or length, before anything is sampled.
pub fn sample_row(
    source: SampleSource<'_>,
    task: &Task,
    request: &Sample,
) -> Result<Vec<SampledCompletion>, SampleError> {
    let Policy { model, tokenizer, .. } = source.policy;
    let limit = request.max_tokens.unwrap_or(source.max_completion_tokens);
    let positions = model.config().max_position_embeddings;
    let lengths = Lengths { max_seq_len: source.max_seq_len, max_completion_tokens: limit, positions };
    let (label, row) = find_row(task, &request.row)?;
    let scorer = Scorer::new(task)?;
    let prompts = prepare_rows(task, &label, vec![row], tokenizer, lengths)?;
    let sampling = Sampling::new(tokenizer, request.temperature, limit, request.seed);
    let (version, target) =
        if request.base { (PolicyVersion::Base, "base") } else { (PolicyVersion::Trained, "trained") };
    let settings = ConverseSettings {
        task,
        scorer: &scorer,
        version,
        sampling: &sampling,
        max_prompt_tokens: lengths.prompt_limit(),
        max_turns: 1,
    };
    let questions: Vec<_> = prompts
        .iter()
        .zip(requests(&prompts, SAMPLE_STEP, request.n))
        .map(|(prompt, request)| Question { prompt, request })
        .collect();
    let conversed = source.policy.converse(&questions, &settings, None)?;
    let mut found = Vec::with_capacity(request.n);
    for (prompt, conversations) in prompts.iter().zip(conversed.conversations) {
        let turns = conversations.into_iter().flat_map(|Conversation { turns }| turns);
        for (sample, turn) in turns.enumerate() {
            let target = target.to_owned();
            found.push(SampledCompletion { target, step: source.step, ..sampled(&prompt.row.id, sample, turn)? });
        }
    }
    Ok(found)
}

/// A completion for files and answers, of the trained model.
///
/// # Errors
/// If its score cannot be written as JSON.
pub fn sampled(prompt_id: &str, sample: usize, turn: Turn) -> Result<SampledCompletion, serde_json::Error> {
    let Turn { completion, text, score, .. } = turn;
    Ok(SampledCompletion {
        prompt_id: prompt_id.to_owned(),
        sample,
        text,
        token_ids: completion.token_ids,
        log_probs: completion.log_probs,
        stop_reason: completion.stop.name().to_owned(),
        score: serde_json::to_value(&score)?,
        target: "trained".to_owned(),
        step: None,
    })
}

/// The task of a request, an absolute path or an embedded one's name; else `own`.
pub fn resolve_task(request: &Sample, own: impl FnOnce() -> Result<Task, SampleError>) -> Result<Task, SampleError> {
    match request.task.as_deref() {
        Some(path) if Path::new(path).is_absolute() => Ok(Task::load(Path::new(path))?),
        Some(name) => Ok(Task::embedded(name)?),
        None => own(),
    }
}

/// The task's limit of completion tokens: for a model and the one that it came from, by the task's defaults for it.
///
/// # Errors
/// [`SampleError`] naming what is wrong with the task's configuration.
pub fn task_limit(task: &Task, model: Option<(&str, String)>) -> Result<usize, SampleError> {
    let text = String::from_utf8_lossy(&task.read(TASK_FILE)?).into_owned();
    let layers = Layers {
        task: Some(Assignments::from_task(&task.label(TASK_FILE), &text)?),
        set: model.iter().map(|(model, _)| format!("base_model={model}")).collect(),
        origin: model.map(|(_, origin)| origin),
        ..Layers::default()
    };
    Ok(layers.resolve()?.config.max_completion_tokens)
}

/// Finds a row by its id in any of the task's sets, or parses the row of a request; returns its source, too.
fn find_row(task: &Task, requested: &serde_json::Value) -> Result<(String, PromptRow), SampleError> {
    let Some(id) = requested.as_str() else {
        let label = "the request's row".to_owned();
        let row = load_from(&label, requested.to_string().as_bytes())?.remove(0);
        return Ok((label, row));
    };
    let mut files = Vec::new();
    for set in [PromptSet::Eval, PromptSet::Test, PromptSet::Train] {
        let Some(file) = task.set_file(set) else { continue };
        if let Some(row) = load(task, set)?.into_iter().find(|row| row.id == id) {
            return Ok((task.label(file), row));
        }
        files.push(task.label(file));
    }
    Err(SampleError::NoSuchRow { id: id.to_owned(), files: files.join(", ") })
}
