//! Prompts as training sees them: rendered and measured with the model's tokenizer and template;
//! expected answers scored.

use std::borrow::Cow;

use serde_json::Value;

use crate::dataset::health::{Checks, Health, check};
use crate::dataset::{DatasetError, PromptRow, expected_target};
use crate::score::{CommandRules, FailureClass, Grammar, Scorer, Task, Tier};
use crate::task::functions;
use crate::text::{
    Message, TemplateOptions, TextError, Thinking, Tokenizer, conversation, json_line, openai_tools,
};

/// Checks every set of the task; expected answers only with a scorer. `longest`: limit of prompt +
/// answer in tokens.
pub fn check_prompts<'a>(
    task: &Task,
    scorer: impl Into<Option<&'a Scorer>>,
    tokenizer: Option<&Tokenizer>,
    longest: usize,
) -> Result<Health, DatasetError> {
    let scorer = scorer.into();
    let expected_problem = |row: &PromptRow| expected_problem(scorer?, row);
    let count_tokens = |row: &PromptRow| match tokenizer {
        Some(tokenizer) => prompt_tokens(task, tokenizer, row),
        None => Ok(0),
    };
    let checks = Checks {
        definition: task.definition_name(),
        expected_problem: scorer.is_some().then_some(&expected_problem),
        expects_answers: task.expects_answers(),
        finds_secrets: true,
        count_tokens: tokenizer.is_some().then_some(&count_tokens),
        // Leave room for one token.
        most_prompt_tokens: Some(longest.saturating_sub(1)),
    };
    check(task, &checks)
}

fn expected_problem(scorer: &Scorer, row: &PromptRow) -> Option<(&'static str, String)> {
    let turns = row.all_turns(|expected, row| scorer.expected_completion(expected, Some(row)));
    turns.iter().find_map(|turn| turn_problem(scorer, turn))
}

fn turn_problem(scorer: &Scorer, row: &PromptRow) -> Option<(&'static str, String)> {
    let score = scorer.score(
        &scorer.expected_completion(row.expected.as_ref()?, Some(row))?,
        Some(row),
    );
    let class = score.failure.unwrap_or(FailureClass::Other).name();
    let reason = || {
        score.errors.first().map_or_else(
            || "the task rejects it".to_owned(),
            |error| error.message.clone(),
        )
    };
    (score.tier != Tier::Valid).then(|| (class, reason()))
}

/// The target of supervised training: the row's `completion`, else written from `expected` (JSON
/// with a space after each comma and colon). `None` if neither determines it.
///
/// # Errors
/// An `expected` that cannot be written as JSON.
pub fn reference_answer(
    task: &Task,
    scorer: &Scorer,
    row: &PromptRow,
) -> Result<Option<String>, TextError> {
    let written = row
        .fields
        .get("completion")
        .and_then(Value::as_str)
        .map(str::to_owned);
    Ok(match (written, &row.expected) {
        (Some(text), _) => Some(text),
        (None, Some(expected)) if matches!(task.grammar(), Some(Grammar::JsonSchema(_))) => {
            Some(json_line(&expected_target(expected))?)
        }
        (None, Some(expected)) => scorer.expected_completion(expected, Some(row)),
        (None, None) => None,
    })
}

/// Single-turn rows without a [`reference_answer`] or a demonstration.
pub fn rows_without_answer<'a>(
    task: &Task,
    scorer: &Scorer,
    rows: impl Iterator<Item = &'a PromptRow>,
) -> Result<Vec<&'a PromptRow>, TextError> {
    let mut without = Vec::new();
    for row in rows.filter(|row| row.turn_count() == 1) {
        if !row.has_demonstration() && reference_answer(task, scorer, row)?.is_none() {
            without.push(row);
        }
    }
    Ok(without)
}

pub fn thinking_of(task: &Task) -> Thinking {
    if task.thinking {
        Thinking::On
    } else {
        Thinking::Off
    }
}

pub fn template_options(task: &Task) -> TemplateOptions {
    TemplateOptions {
        thinking: thinking_of(task),
        kwargs: task.template_kwargs.clone(),
    }
}

/// A row's turns with the task's system text followed by the instructions of its MCP servers. With
/// a tokenizer their text contains no control tokens of the model.
///
/// # Errors
/// As [`tools_of`] without a row.
pub fn turns_of(
    task: &Task,
    tokenizer: Option<&Tokenizer>,
    messages: &[Message],
) -> Result<Vec<Message>, TextError> {
    let system = task.system.as_deref();
    let instructions = match task.toolset() {
        Some(toolset) => toolset
            .instructions()
            .map_err(|error| TextError::Tools(error.to_string()))?,
        None => "",
    };
    if instructions.is_empty() {
        return Ok(conversation(system, messages));
    }
    let plain = match tokenizer {
        Some(tokenizer) => tokenizer.without_control_tokens(instructions)?,
        None => instructions.to_owned(),
    };
    let own = system.filter(|text| !text.is_empty());
    let texts: Vec<&str> = own.into_iter().chain([plain.as_str()]).collect();
    Ok(conversation(Some(&texts.join("\n\n")), messages))
}

/// Tools for a row, in the template's form; `None` if neither the task nor, for a scoring program,
/// the row has any.
///
/// # Errors
/// Malformed tools of the row, or tools of the task that fail to start.
pub fn tools_of(task: &Task, row: Option<&PromptRow>) -> Result<Option<Value>, TextError> {
    if let Some(toolset) = task.toolset() {
        let definitions = match row {
            Some(row) => toolset.definitions_of(row),
            None => toolset.definitions().map(Cow::Borrowed),
        };
        return definitions
            .map(|all| Some(openai_tools(&all)))
            .map_err(|error| TextError::Tools(error.to_string()));
    }
    let is_lines = |rules: &CommandRules| !rules.takes_code();
    if !task.calls_functions() && !task.command().is_some_and(is_lines) {
        return Ok(None);
    }
    let Some(tools) = row.and_then(PromptRow::tools).or(task.tools()) else {
        return Ok(None);
    };
    functions(tools).map_err(|error| TextError::Tools(format!("`tools` of the row: {error}")))?;
    Ok(Some(openai_tools(tools)))
}

/// Renders the prompt up to where the answer begins.
///
/// # Errors
/// The template rejects the turns, or the row's tools are malformed.
pub fn prompt_text(
    task: &Task,
    tokenizer: &Tokenizer,
    row: &PromptRow,
) -> Result<String, TextError> {
    let tools = tools_of(task, Some(row))?;
    tokenizer.prompt(
        &turns_of(task, Some(tokenizer), &row.messages)?,
        tools.as_ref(),
        &template_options(task),
    )
}

/// Prompt length in tokens, template included.
///
/// # Errors
/// The template rejects the turns.
pub fn prompt_tokens(task: &Task, tokenizer: &Tokenizer, row: &PromptRow) -> Result<usize, String> {
    let ids = prompt_text(task, tokenizer, row).and_then(|text| tokenizer.encode(&text));
    ids.map(|ids| ids.len()).map_err(|error| error.to_string())
}
