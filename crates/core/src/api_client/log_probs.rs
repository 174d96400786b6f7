//! Log-probs of an answer, if the server returns them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Log-probs under the endpoint's own distribution.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogProbs {
    /// Nats per token.
    pub mean: Option<f64>,
    pub tokens: usize,
    pub answers: usize,
}

impl LogProbs {
    /// Pools several answers; those without log-probs do not count. `None` if none was requested.
    pub(crate) fn sum(answers: impl Iterator<Item = Self>) -> Option<Self> {
        answers.reduce(|one, other| {
            let tokens = one.tokens + other.tokens;
            let sum = |of: Self| of.mean.unwrap_or(0.0) * of.tokens as f64;
            let mean = (tokens > 0).then(|| (sum(one) + sum(other)) / tokens as f64);
            Self {
                mean,
                tokens,
                answers: one.answers + other.answers,
            }
        })
    }
}

/// A token of an answer with its log-prob, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WrittenToken {
    pub bytes: Vec<u8>,
    pub log_prob: f64,
}

/// A log-prob up to this far above 0 is rounding.
const TOLERANCE: f64 = 1e-3;
/// OpenAI's value for very unlikely tokens.
const UNLIKELY: f64 = -9999.0;

/// Reads `logprobs.content[].logprob` (chat) or `logprobs.token_logprobs` (completions). One
/// unknown token makes all unknown.
pub(super) fn log_probs_of(choice: &Value) -> LogProbs {
    let given = &choice["logprobs"];
    let values: Option<Vec<f64>> = match (&given["content"], &given["token_logprobs"]) {
        (Value::Array(tokens), _) => tokens
            .iter()
            .map(|token| log_prob(&token["logprob"]))
            .collect(),
        (_, Value::Array(values)) => values.iter().map(log_prob).collect(),
        _ => None,
    };
    let values = values.unwrap_or_default();
    match values.len() {
        0 => LogProbs::default(),
        tokens => LogProbs {
            mean: Some(values.iter().sum::<f64>() / tokens as f64),
            tokens,
            answers: 1,
        },
    }
}

/// The tokens with their bytes, in both forms; empty if one is unknown.
pub(super) fn tokens_of(choice: &Value) -> Vec<WrittenToken> {
    let given = &choice["logprobs"];
    let chat = |token: &Value| {
        let bytes: Option<Vec<u8>> = serde_json::from_value(token["bytes"].clone()).ok();
        Some(WrittenToken {
            bytes: bytes.or_else(|| Some(token["token"].as_str()?.as_bytes().to_vec()))?,
            log_prob: log_prob(&token["logprob"])?,
        })
    };
    let plain = |(token, value): (&Value, &Value)| {
        Some(WrittenToken {
            bytes: token.as_str()?.as_bytes().to_vec(),
            log_prob: log_prob(value)?,
        })
    };
    let tokens: Option<Vec<WrittenToken>> = match (&given["content"], &given["tokens"]) {
        (Value::Array(tokens), _) => tokens.iter().map(chat).collect(),
        (_, Value::Array(tokens)) => {
            let values = given["token_logprobs"].as_array();
            tokens
                .iter()
                .zip(values.into_iter().flatten())
                .map(plain)
                .collect()
        }
        _ => None,
    };
    tokens.unwrap_or_default()
}

fn log_prob(value: &Value) -> Option<f64> {
    value
        .as_f64()
        .filter(|value| *value > UNLIKELY && *value <= TOLERANCE)
        .map(|value| value.min(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_are_read_and_what_is_no_log_prob_is_unknown() {
        let check = |logprobs: Value, expected: Option<(f64, usize)>| {
            let found = log_probs_of(&json!({"logprobs": logprobs}));
            assert_eq!(
                found.mean.map(|mean| (mean, found.tokens)),
                expected,
                "{logprobs}"
            );
            assert_eq!(found.answers, usize::from(expected.is_some()));
        };
        let chat = |values: &[Value]| {
            let tokens: Vec<Value> = values
                .iter()
                .map(|value| json!({"token": "x", "logprob": value}))
                .collect();
            json!({"content": tokens, "refusal": null})
        };
        check(chat(&[json!(-0.5), json!(-1.5)]), Some((-1.0, 2)));
        check(chat(&[json!(0), json!(1e-6)]), Some((0.0, 2)));
        check(
            json!({"tokens": ["a", "b"], "token_logprobs": [-0.25, -0.75]}),
            Some((-0.5, 2)),
        );
        check(
            json!({"content": null, "token_logprobs": [-0.25]}),
            Some((-0.25, 1)),
        );
        for none in [
            json!(null),
            json!({}),
            json!([]),
            json!("x"),
            chat(&[]),
            json!({"token_logprobs": []}),
        ] {
            check(none, None);
        }
        for bad in [
            json!(null),
            json!("-1"),
            json!(0.5),
            json!(-9999.0),
            json!(-1e300),
        ] {
            check(chat(&[json!(-0.5), bad.clone()]), None);
            check(json!({"token_logprobs": [bad, -0.5]}), None);
        }
    }

    #[test]
    fn tokens_have_their_bytes_where_the_server_gives_them() {
        let check = |logprobs: Value, expected: &[(&[u8], f64)]| {
            let found = tokens_of(&json!({"logprobs": logprobs}));
            let found: Vec<(&[u8], f64)> = found
                .iter()
                .map(|token| (token.bytes.as_slice(), token.log_prob))
                .collect();
            assert_eq!(found, expected, "{logprobs}");
        };
        check(
            json!({"content": [{"token": "\u{fffd}", "bytes": [195], "logprob": -0.5}, {"token": "a", "bytes": null, "logprob": 0}]}),
            &[(&[195], -0.5), (b"a", 0.0)],
        );
        check(
            json!({"tokens": ["a", "b"], "token_logprobs": [-0.25, -1.0]}),
            &[(b"a", -0.25), (b"b", -1.0)],
        );
        check(json!({"content": [{"token": "a", "logprob": null}]}), &[]);
        check(json!(null), &[]);
    }
}
