//! Prompts of `/v1/completions`, and whether their log-probs are returned.

use serde_json::Value as Json;

use super::{Fields, MAX_PROMPTS, TextPrompt};
use crate::openai::ApiError;
use crate::openai::fields::wrong;

impl Fields<'_> {
    /// vLLM takes a number of alternatives; 0 returns the prompt's own tokens.
    pub(super) fn prompt_log_probs(&self, stream: bool) -> Result<bool, ApiError> {
        const NAME: &str = "prompt_logprobs";
        let Some(value) = self.get(NAME) else {
            return Ok(false);
        };
        if value.as_u64() != Some(0) {
            return Err(wrong(
                NAME,
                "0: the log-prob of each token of the prompt, without others",
            ));
        }
        match stream {
            true => Err(ApiError::invalid(
                NAME,
                "`prompt_logprobs` cannot be streamed: leave `stream` out",
            )),
            false => Ok(true),
        }
    }

    /// An echoed prompt with log-probs is evaluated before sampling.
    pub(super) fn echo(&self, stream: bool) -> Result<bool, ApiError> {
        match self.flag("echo")? {
            true if stream => Err(ApiError::invalid(
                "echo",
                "`echo` cannot be streamed: leave `stream` out",
            )),
            echo => Ok(echo),
        }
    }

    pub(super) fn texts(&self) -> Result<Vec<TextPrompt>, ApiError> {
        let expected = || {
            wrong(
                "prompt",
                &format!("a text, a list of token ids, or a list of at most {MAX_PROMPTS} of them"),
            )
        };
        let tokens = |list: &[Json]| -> Option<Vec<u32>> {
            list.iter()
                .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
                .collect()
        };
        match self.get("prompt") {
            None => Err(ApiError::invalid("prompt", "`prompt` is missing")),
            Some(Json::String(text)) => Ok(vec![TextPrompt::Text(text.clone())]),
            Some(Json::Array(list)) if list.first().is_some_and(Json::is_number) => {
                Ok(vec![TextPrompt::Tokens(tokens(list).ok_or_else(expected)?)])
            }
            Some(Json::Array(list)) if (1..=MAX_PROMPTS).contains(&list.len()) => {
                let prompt = |prompt: &Json| match prompt {
                    Json::String(text) => Some(TextPrompt::Text(text.clone())),
                    Json::Array(ids) => tokens(ids).map(TextPrompt::Tokens),
                    _ => None,
                };
                list.iter()
                    .map(|one| prompt(one).ok_or_else(expected))
                    .collect()
            }
            Some(_) => Err(expected()),
        }
    }
}
