//! The record of a conversation that an agent held: what it asked, which answers its prompts contain, how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::text::Message;

/// A conversation with an agent, without its completions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AgentRecord {
    /// One a completion, in the order in which they were asked.
    pub requests: Vec<AgentRequest>,
    /// Requests that got no completion, by OpenAI's code of the error.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, usize>,
    /// Whether a request named sampling parameters other than the run's, which have no effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_ignored: bool,
    /// `None`: the program was ended.
    pub exit_code: Option<i32>,
    /// The last line that it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// A request that got a completion.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AgentRequest {
    /// The number of the request, from 0, with whose prompt and completion the prompt begins, token for token; `None`: it
    /// is the first of a branch of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<usize>,
    /// Why it begins a branch although its messages continue an earlier request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Messages that the request it follows has not; of another API the text.
    pub messages: Vec<Message>,
    /// Tokens of the prompt that follow those of the request that it follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompt_ids: Vec<u32>,
}

impl AgentRecord {
    /// As a program that scores reads it.
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

    /// Conversations that continue no other: requests that none follows.
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
