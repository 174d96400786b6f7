//! A teacher's server: log-probs of given tokens and tokenization, in vLLM's form.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ApiError, Client, Endpoint, UnansweredQuestion};

/// A log-prob up to this far above 0 is rounding.
const TOLERANCE: f64 = 1e-3;

#[derive(Debug)]
pub struct TeacherClient(Client);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    pub token_ids: Vec<u32>,
    /// The model's context length, if reported.
    pub max_model_len: Option<usize>,
}

impl TeacherClient {
    /// # Errors
    /// [`ApiError`] of the address or the certificates.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ApiError> {
        Client::new(endpoint).map(Self)
    }

    pub fn model(&self) -> &str {
        &self.0.endpoint().model
    }

    pub fn concurrency(&self) -> usize {
        self.0.endpoint().concurrency
    }

    /// Log-probs of the tokens from `from` (at least 1) on, given those before: nats,
    /// temperature 1. `index` and `pause` as in [`Client::ask`].
    pub fn log_probs(
        &self,
        index: usize,
        (token_ids, from): (&[u32], usize),
        pause: impl Fn(Duration) -> bool,
    ) -> Result<Vec<f32>, UnansweredQuestion> {
        let endpoint = self.0.endpoint();
        let mut body = json!({
            "model": endpoint.model, "prompt": token_ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0,
        });
        body.as_object_mut()
            .into_iter()
            .for_each(|body| body.extend(endpoint.extra_body.clone()));
        let url = format!("{}/completions", endpoint.request_url());
        self.0.ask_at(
            index,
            &url,
            &body.to_string(),
            |text| read_log_probs(text, token_ids, from),
            pause,
        )
    }

    pub fn tokenize(
        &self,
        text: &str,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<Tokenized, UnansweredQuestion> {
        let endpoint = self.0.endpoint();
        let url = endpoint.request_url();
        let url = format!("{}/tokenize", url.strip_suffix("/v1").unwrap_or(url));
        let body = json!({"model": endpoint.model, "prompt": text, "add_special_tokens": false});
        self.0
            .ask_at(0, &url, &body.to_string(), read_tokens, pause)
    }
}

fn read_log_probs(text: &str, token_ids: &[u32], from: usize) -> Result<Vec<f32>, String> {
    let body: Value =
        serde_json::from_str(text).map_err(|error| format!("the answer is not JSON ({error})"))?;
    let told = body["choices"][0]["prompt_logprobs"].as_array();
    let told = told
        .ok_or("the answer has no `prompt_logprobs`: the server must answer them as vLLM does")?;
    if told.len() != token_ids.len() {
        return Err(format!(
            "the answer has {} `prompt_logprobs` for {} tokens",
            told.len(),
            token_ids.len()
        ));
    }
    let of_token = |(at, (of_place, id)): (usize, (&Value, &u32))| {
        let value = of_place[&id.to_string()]["logprob"].as_f64();
        let value = value.filter(|value| value.is_finite() && *value <= TOLERANCE);
        value
            .map(|value| value.min(0.0) as f32)
            .ok_or_else(|| format!("the answer has no log-prob of token {at} ({id})"))
    };
    told.iter()
        .zip(token_ids)
        .enumerate()
        .skip(from)
        .map(of_token)
        .collect()
}

fn read_tokens(text: &str) -> Result<Tokenized, String> {
    let body: Value =
        serde_json::from_str(text).map_err(|error| format!("the answer is not JSON ({error})"))?;
    let token_ids = body["tokens"].as_array().and_then(|tokens| {
        tokens
            .iter()
            .map(|id| u32::try_from(id.as_u64()?).ok())
            .collect::<Option<Vec<u32>>>()
    });
    let token_ids =
        token_ids.ok_or("the answer of /tokenize has no `tokens`, a list of token ids")?;
    Ok(Tokenized {
        token_ids,
        max_model_len: body["max_model_len"].as_u64().map(|tokens| tokens as usize),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn log_probs_are_those_of_the_prompt_s_own_tokens() {
        let of =
            |told: Value| json!({"choices": [{"text": "x", "prompt_logprobs": told}]}).to_string();
        // vLLM adds likelier tokens to the prompt's own.
        let told = json!([null, {"7": {"logprob": -0.5, "rank": 2, "decoded_token": "a"}, "3": {"logprob": -0.25}}, {"9": {"logprob": 0.0001}}]);
        assert_eq!(
            read_log_probs(&of(told.clone()), &[5, 7, 9], 1),
            Ok(vec![-0.5, 0.0])
        );
        assert_eq!(
            read_log_probs(&of(told.clone()), &[5, 7, 9], 2),
            Ok(vec![0.0])
        );
        let check = |told: Value, expected: &str| {
            let error = read_log_probs(&of(told), &[5, 7, 9], 1).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(Value::Null, "has no `prompt_logprobs`");
        check(
            json!([null, {"7": {"logprob": -0.5}}]),
            "has 2 `prompt_logprobs` for 3 tokens",
        );
        check(
            json!([null, {"3": {"logprob": -0.5}}, {"9": {"logprob": -1}}]),
            "no log-prob of token 1 (7)",
        );
        check(
            json!([null, {"7": {"logprob": 0.5}}, {"9": {"logprob": -1}}]),
            "no log-prob of token 1 (7)",
        );
        check(
            json!([null, {"7": {"logprob": "-inf"}}, {"9": {"logprob": -1}}]),
            "no log-prob of token 1 (7)",
        );
    }

    #[test]
    fn token_ids_are_read_from_an_answer() {
        let read = read_tokens(r#"{"count": 2, "max_model_len": 40, "tokens": [3, 4]}"#);
        assert_eq!(
            read,
            Ok(Tokenized {
                token_ids: vec![3, 4],
                max_model_len: Some(40)
            })
        );
        assert!(read_tokens(r#"{"tokens": ["a"]}"#).is_err() && read_tokens("[]").is_err());
    }
}
