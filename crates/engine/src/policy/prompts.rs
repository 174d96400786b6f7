//! Renders prompt rows for the model: joins the task's system text, applies the chat template, counts tokens.

use std::fmt;

use crate::dataset::{DatasetError, PromptRow, load};
use crate::prompts::{prompt_text, template_options, tools_of, turns_of};
use crate::score::Task;
use crate::task::PromptSet;
use crate::text::{TemplateInput, TextError, Tokenizer, check_continuation};

#[derive(Clone, Debug)]
pub struct Prompt {
    pub row: PromptRow,
    /// Index of its task among those that are answered together.
    pub task: usize,
    /// Special tokens included.
    pub text: String,
    pub token_ids: Vec<u32>,
    /// Of the prompt of any of its turns, at most.
    pub most_tokens: usize,
    /// Of a conversation, at most: one a turn, and those that call tools.
    pub most_completions: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    /// Template or tokenizer.
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

/// The limits of a prompt and its completion, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The configured limit of both; `None` if only the model limits them.
    pub max_seq_len: Option<usize>,
    pub max_completion_tokens: usize,
    /// Of the model.
    pub positions: usize,
}

impl Lengths {
    pub fn prompt_limit(&self) -> usize {
        self.max_seq_len
            .unwrap_or(usize::MAX)
            .min(self.positions)
            .saturating_sub(self.max_completion_tokens)
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
        write!(
            formatter,
            " less max_completion_tokens {}",
            self.max_completion_tokens
        )
    }
}

/// Reads and prepares a set of the task, or nothing if the task lacks it.
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
    prepare_rows(
        task,
        &task.label(file),
        load(task, set)?,
        tokenizer,
        lengths,
    )
}

/// Prepares rows that were read from `label`.
pub fn prepare_rows(
    task: &Task,
    label: &str,
    rows: Vec<PromptRow>,
    tokenizer: &Tokenizer,
    lengths: Lengths,
) -> Result<Vec<Prompt>, PromptError> {
    let mut prompts = Vec::with_capacity(rows.len());
    for row in rows {
        let place = format!("{label} line {} (`{}`)", row.line, row.id);
        let failed = |source| PromptError::Text {
            place: place.clone(),
            source,
        };
        let prompt = render(task, row, tokenizer).map_err(failed)?;
        if prompt.token_ids.len() > lengths.prompt_limit() {
            return Err(PromptError::TooLong {
                place,
                tokens: prompt.token_ids.len(),
                lengths,
            });
        }
        if task.agent().is_some() && prompt.row.turn_count() > 1 {
            let problem = "an agent holds the conversation itself: rows have no `turns`".to_owned();
            return Err(failed(TextError::Tools(problem)));
        }
        let of_tools = task
            .toolset()
            .map(|tools| tools.limits().max_context_tokens);
        let most_tokens =
            match of_tools.or(task.agent().map(|agent| agent.limits().max_context_tokens)) {
                // A conversation ends where its prompt would be longer.
                Some(most) => most
                    .unwrap_or(usize::MAX)
                    .min(lengths.prompt_limit())
                    .max(prompt.token_ids.len()),
                None => most_tokens(task, &prompt, tokenizer, lengths.max_completion_tokens)
                    .map_err(failed)?,
            };
        if most_tokens > lengths.prompt_limit() {
            let place = format!(
                "{place}, with {} answers of max_completion_tokens",
                prompt.row.turn_count() - 1
            );
            return Err(PromptError::TooLong {
                place,
                tokens: most_tokens,
                lengths,
            });
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
            check_continuation(
                tokenizer,
                input,
                &turns_of(task, Some(tokenizer), &prompt.row.messages)?,
                task.thinking,
            )
        });
        checked.map_err(|source| PromptError::Text {
            place: label.to_owned(),
            source,
        })?;
    }
    Ok(prompts)
}

/// Of the last turn's prompt, if every answer before it is as long as it may be.
fn most_tokens(
    task: &Task,
    prompt: &Prompt,
    tokenizer: &Tokenizer,
    answer_tokens: usize,
) -> Result<usize, TextError> {
    let answers = vec![""; prompt.row.turn_count() - 1];
    match prompt.row.after(&answers).filter(|_| !answers.is_empty()) {
        Some(last) => {
            Ok(render(task, last, tokenizer)?.token_ids.len() + answers.len() * answer_tokens)
        }
        None => Ok(prompt.token_ids.len()),
    }
}

/// Of a conversation about a row.
fn most_completions(task: &Task, row: &PromptRow) -> usize {
    let of_agent = || {
        task.agent()
            .map_or(row.turn_count(), |agent| agent.limits().max_requests)
    };
    task.toolset()
        .map_or_else(of_agent, |tools| tools.limits().max_turns)
}

/// A row as the model reads it.
///
/// # Errors
/// Where the template does not take its turns.
pub fn render(task: &Task, row: PromptRow, tokenizer: &Tokenizer) -> Result<Prompt, TextError> {
    let text = prompt_text(task, tokenizer, &row)?;
    let token_ids = tokenizer.encode(&text)?;
    let (most_tokens, most_completions) = (token_ids.len(), most_completions(task, &row));
    Ok(Prompt {
        most_tokens,
        most_completions,
        token_ids,
        text,
        row,
        task: 0,
    })
}
