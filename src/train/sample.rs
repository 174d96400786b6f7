//! Completions that a person asks for: one prompt's, each with its score. Nothing of a training changes by them.

use std::path::Path;

use super::TrainError;
use crate::config::{Assignments, Layers};
use crate::dataset::{PromptRow, load, load_from};
use crate::eval::{Lengths, Prompt, prepare_rows};
use crate::model::{Adapters, Decoder};
use crate::rollout::{Request, Sampling, ThreadPool, generate};
use crate::run::{Sample, SampledCompletion};
use crate::score::Scorer;
use crate::task::{PromptSet, TASK_FILE, Task};
use crate::text::Tokenizer;

/// Who answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) model: &'a Decoder,
    pub(super) adapters: Adapters,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) threads: &'a ThreadPool,
    /// Optimizer steps behind the model; None where it is not in training.
    pub(super) step: Option<u64>,
    /// Where completions are cut if the request does not say.
    pub(super) max_completion_tokens: usize,
    /// The longest prompt and completion together, where a configuration says so.
    pub(super) max_seq_len: Option<usize>,
}

/// What is asked for, drawn with the seed of the request alone: the same completions as `grpo-tui sample` draws of that prompt.
///
/// # Errors
/// [`TrainError`] for a task, a row or a length that cannot be; then nothing was drawn.
pub(super) fn draw(source: Source<'_>, task: &Task, wanted: &Sample) -> Result<Vec<SampledCompletion>, TrainError> {
    let limit = wanted.max_tokens.unwrap_or(source.max_completion_tokens);
    let positions = source.model.config().max_position_embeddings;
    let lengths = Lengths { max_seq_len: source.max_seq_len, max_completion_tokens: limit, positions };
    let (label, row) = find_row(task, &wanted.row)?;
    let scorer = Scorer::new(task)?;
    let prompts = prepare_rows(task, &label, vec![row], source.tokenizer, lengths)?;
    let sampling = Sampling {
        temperature: wanted.temperature,
        max_completion_tokens: limit,
        stop_ids: source.tokenizer.stop_ids().to_vec(),
        seed: wanted.seed,
    };
    // Step 0 is no step of a training, so that a sample never repeats a rollout's randomness.
    let request = |prompt: &Prompt| Request { prompt: prompt.token_ids.clone(), prompt_number: 0, step: 0, samples: wanted.n };
    let requests: Vec<Request> = prompts.iter().map(request).collect();
    let drawn = generate(source.model, source.adapters, &requests, &sampling, source.threads)?;
    let mut completions = Vec::with_capacity(wanted.n);
    for (prompt, drawn) in prompts.iter().zip(drawn) {
        for (sample, completion) in drawn.into_iter().enumerate() {
            let text = source.tokenizer.decode(&completion.token_ids, true)?;
            let score = scorer.score(&text, Some(&prompt.row));
            completions.push(SampledCompletion {
                prompt_id: prompt.row.id.clone(),
                sample,
                text,
                token_ids: completion.token_ids,
                log_probs: completion.log_probs,
                stop_reason: completion.stop.name().to_owned(),
                score: serde_json::to_value(&score)?,
                target: if wanted.base { "base" } else { "trained" }.to_owned(),
                step: source.step,
            });
        }
    }
    Ok(completions)
}

/// The task that a request names, an absolute path or an embedded one's name; else the one that `own` is.
pub(super) fn resolve_task(wanted: &Sample, own: impl FnOnce() -> Result<Task, TrainError>) -> Result<Task, TrainError> {
    match wanted.task.as_deref() {
        Some(path) if Path::new(path).is_absolute() => Ok(Task::load(Path::new(path))?),
        Some(name) => Ok(Task::embedded(name)?),
        None => own(),
    }
}

/// Where a task has the completions of `model` cut; `origin`: the model that it came from, for the task's defaults.
///
/// # Errors
/// [`TrainError`] naming what is wrong with the task's own configuration.
pub fn task_limit(task: &Task, model: &str, origin: String) -> Result<usize, TrainError> {
    let text = String::from_utf8_lossy(&task.read(TASK_FILE)?).into_owned();
    let layers = Layers {
        task: Some(Assignments::from_task(&task.label(TASK_FILE), &text)?),
        set: vec![format!("base_model={model}")],
        origin: Some(origin),
        ..Layers::default()
    };
    Ok(layers.resolve()?.config.max_completion_tokens)
}

/// A row by its id, of any of the task's sets, or the row itself as a request carries it; and where it is from, for messages.
fn find_row(task: &Task, wanted: &serde_json::Value) -> Result<(String, PromptRow), TrainError> {
    let Some(id) = wanted.as_str() else {
        let label = "the request's row".to_owned();
        let row = load_from(&label, wanted.to_string().as_bytes())?.remove(0);
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
    Err(TrainError::NoSuchRow { id: id.to_owned(), files: files.join(", ") })
}
