//! Record of an agent's conversation: its requests, which prompts extend which answers, and how it
//! ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::text::Message;

/// A conversation with an agent, without its completions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AgentRecord {
    /// One per completion, in order.
    pub requests: Vec<AgentRequest>,
    /// Requests without a completion, by OpenAI's error code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, usize>,
    /// Requests whose sampling parameter or constraint was ignored, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ignored: BTreeMap<String, usize>,
    /// `None`: killed.
    pub exit_code: Option<i32>,
    /// The last line of its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// Sampling parameters that have no effect; other names in `ignored` are constraints.
const SAMPLING: [&str; 9] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "presence_penalty",
    "frequency_penalty",
    "seed",
];

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AgentRequest {
    /// Index of the request whose prompt and completion are a token prefix of this prompt; `None`:
    /// starts a new branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<usize>,
    /// Why it starts a branch although its messages continue an earlier request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Messages beyond those of the request it follows; for other APIs the text.
    pub messages: Vec<Message>,
    /// Prompt tokens beyond the request it follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompt_ids: Vec<u32>,
}

impl AgentRecord {
    pub fn ignores_sampling(&self) -> bool {
        self.ignored
            .keys()
            .any(|name| SAMPLING.contains(&name.as_str()))
    }

    pub fn ignores_constraints(&self) -> bool {
        self.ignored
            .keys()
            .any(|name| !SAMPLING.contains(&name.as_str()))
    }

    /// The record as passed to scoring programs.
    #[must_use]
    pub fn without_ids(&self) -> Self {
        let without = |request: &AgentRequest| AgentRequest {
            prompt_ids: Vec::new(),
            ..request.clone()
        };
        Self {
            requests: self.requests.iter().map(without).collect(),
            ..self.clone()
        }
    }

    /// Number of requests that no other follows.
    pub fn branches(&self) -> usize {
        let followed = |number: &usize| {
            self.requests
                .iter()
                .any(|request| request.follows == Some(*number))
        };
        (0..self.requests.len())
            .filter(|number| !followed(number))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_requests_that_none_follows() {
        let asked = |follows| AgentRequest {
            follows,
            ..AgentRequest::default()
        };
        let record = |follows: &[Option<usize>]| AgentRecord {
            requests: follows.iter().copied().map(asked).collect(),
            ..AgentRecord::default()
        };
        assert_eq!(record(&[]).branches(), 0);
        assert_eq!(record(&[None, Some(0), Some(1)]).branches(), 1);
        assert_eq!(record(&[None, Some(0), Some(0), None]).branches(), 3);
    }
}
