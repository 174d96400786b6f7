//! Renders prompt rows: adds the task's system text, applies the chat template, counts tokens.

use std::fmt;

use crate::dataset::{DatasetError, PromptRow, load};
use crate::prompts::{prompt_text, template_options, tools_of, turns_of};
use crate::score::{Task, tag_rows};
use crate::task::PromptSet;
use crate::text::{TemplateInput, TextError, Tokenizer, check_continuation};

#[derive(Clone, Debug)]
pub struct Prompt {
    pub row: PromptRow,
    /// Index among the tasks of this call.
    pub task: usize,
    /// Including special tokens.
    pub text: String,
    pub token_ids: Vec<u32>,
    /// Maximum prompt length over its turns.
    pub most_tokens: usize,
    /// Maximum per conversation: one per turn, and those with calls.
    pub most_completions: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    /// An error of template or tokenizer.
    #[error("{place}: {source}")]
    Text {
        /// File, line and row.
        place: String,
        source: TextError,
    },
    /// No room for a completion.
    #[error("{place}: the prompt has {tokens} tokens, limit {limit} ({lengths}); {remedy}", limit = .lengths.prompt_limit(), remedy = .lengths.remedy())]
    TooLong {
        /// File, line and row.
        place: String,
        tokens: usize,
        lengths: Lengths,
    },
}

/// Limits in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Configured limit of prompt + completion; `None`: only the model's.
    pub max_seq_len: Option<usize>,
    pub max_completion_tokens: usize,
    /// Context length of the model.
    pub positions: usize,
}

impl Lengths {
    pub fn prompt_limit(&self) -> usize {
        let both = self.max_seq_len.unwrap_or(usize::MAX).min(self.positions);
        both.saturating_sub(self.max_completion_tokens)
    }

    fn remedy(&self) -> &'static str {
        match self.max_seq_len {
            Some(limit) if limit < self.positions => "shorten it, or raise max_seq_len",
            _ => "shorten it, lower max_completion_tokens, or take a model with more positions",
        }
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max_seq_len {
            Some(limit) if limit < self.positions => write!(formatter, "max_seq_len {limit}")?,
            _ => write!(formatter, "the model's {} positions", self.positions)?,
        }
        let most = self.max_completion_tokens;
        write!(formatter, " less max_completion_tokens {most}")
    }
}

/// Loads and renders a set of the task; empty if the task lacks it.
///
/// # Errors
/// [`PromptError`] naming file, line and row.
pub fn prepare(
    task: &Task,
    set: PromptSet,
    tokenizer: &Tokenizer,
    lengths: Lengths,
) -> Result<Vec<Prompt>, PromptError> {
    let Some(file) = task.set_file(set) else {
        return Ok(Vec::new());
    };
    let (label, mut rows) = (task.label(file), load(task, set)?);
    if set != PromptSet::Train {
        tag_rows(task, &mut rows);
    }
    prepare_rows(task, &label, rows, tokenizer, lengths)
}

/// Renders rows that were read from `label`.
pub fn prepare_rows(
    task: &Task,
    label: &str,
    rows: Vec<PromptRow>,
    tokenizer: &Tokenizer,
    lengths: Lengths,
) -> Result<Vec<Prompt>, PromptError> {
    let mut prompts = Vec::with_capacity(rows.len());
    let limit = lengths.prompt_limit();
    let too_long = |place: String, tokens: usize| PromptError::TooLong {
        place,
        tokens,
        lengths,
    };
    for row in rows {
        let place = format!("{label} line {} (`{}`)", row.line, row.id);
        let failed = |source| PromptError::Text {
            place: place.clone(),
            source,
        };
        let prompt = render(task, row, tokenizer).map_err(failed)?;
        let (tokens, turns) = (prompt.token_ids.len(), prompt.row.turn_count());
        if tokens > limit {
            return Err(too_long(place, tokens));
        }
        if task.agent().is_some() && turns > 1 {
            let problem = "an agent holds the conversation itself: rows have no `turns`".to_owned();
            return Err(failed(TextError::Tools(problem)));
        }
        let of_tools = task
            .toolset()
            .map(|tools| tools.limits().max_context_tokens);
        let of_agent = task.agent().map(|agent| agent.limits().max_context_tokens);
        let most_tokens = match of_tools.or(of_agent) {
            // A conversation ends when its prompt would be longer.
            Some(most) => most.unwrap_or(usize::MAX).min(limit).max(tokens),
            None => most_tokens(task, &prompt, tokenizer, lengths.max_completion_tokens)
                .map_err(failed)?,
        };
        if most_tokens > limit {
            let answers = turns - 1;
            let place = format!("{place}, with {answers} answers of max_completion_tokens");
            return Err(too_long(place, most_tokens));
        }
        let most_completions = most_completions(task, &prompt.row);
        prompts.push(Prompt {
            most_tokens,
            most_completions,
            ..prompt
        });
    }
    if let (Some(prompt), Some(_)) = (prompts.first(), task.toolset()) {
        let (tools, options) = (tools_of(task, Some(&prompt.row)), template_options(task));
        let checked = tools.and_then(|tools| {
            let input = TemplateInput {
                tools: tools.as_ref(),
                options: &options,
            };
            let turns = turns_of(task, Some(tokenizer), &prompt.row.messages)?;
            check_continuation(tokenizer, input, &turns, task.thinking)
        });
        checked.map_err(|source| PromptError::Text {
            place: label.to_owned(),
            source,
        })?;
    }
    Ok(prompts)
}

/// Length of the last turn's prompt with maximum-length answers.
fn most_tokens(
    task: &Task,
    prompt: &Prompt,
    tokenizer: &Tokenizer,
    answer_tokens: usize,
) -> Result<usize, TextError> {
    let answers = vec![""; prompt.row.turn_count() - 1];
    let last = prompt.row.after(&answers).filter(|_| !answers.is_empty());
    let tokens = match last {
        Some(last) => render(task, last, tokenizer)?.token_ids.len(),
        None => prompt.token_ids.len(),
    };
    Ok(tokens + answers.len() * answer_tokens)
}

/// Completions per conversation about a row.
fn most_completions(task: &Task, row: &PromptRow) -> usize {
    match (task.toolset(), task.agent()) {
        (Some(tools), _) => tools.limits().max_turns,
        (None, Some(agent)) => agent.limits().max_requests,
        (None, None) => row.turn_count(),
    }
}

/// Renders a row.
///
/// # Errors
/// A template that rejects its turns.
pub fn render(task: &Task, row: PromptRow, tokenizer: &Tokenizer) -> Result<Prompt, TextError> {
    let text = prompt_text(task, tokenizer, &row)?;
    let token_ids = tokenizer.encode(&text)?;
    Ok(Prompt {
        most_tokens: token_ids.len(),
        most_completions: most_completions(task, &row),
        token_ids,
        text,
        row,
        task: 0,
    })
}
