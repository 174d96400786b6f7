//! Parses `/inference/v1/generate`, vLLM's token-id API, into a request of `/v1/completions`.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::super::fields::{shown, unsupported, wrong};
use super::super::{Api, ApiError};
use super::{Fields, GenerationRequest};

/// Fields next to `sampling_params`; those after `stream` have no effect.
const NAMES: [&str; 7] = [
    "model",
    "token_ids",
    "sampling_params",
    "stream",
    "request_id",
    "cache_salt",
    "priority",
];
/// Sampling parameters that only affect text.
const OF_TEXT: [&str; 4] = [
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "detokenize",
    "include_stop_str_in_output",
];

/// Fields of `/v1/completions` that are not sampling parameters.
const NO_PARAMETERS: [&str; 3] = ["prompt", "echo", "add_special_tokens"];

impl GenerationRequest {
    pub(super) fn parse_generate(body: &Fields<'_>) -> Result<Self, ApiError> {
        if let Some(name) = body.0.keys().find(|name| !NAMES.contains(name)) {
            return Err(unsupported(&shown(name)));
        }
        if body.flag("stream")? {
            return Err(unsupported("stream"));
        }
        let no_parameters =
            || ApiError::invalid("sampling_params", "`sampling_params` is missing: an object");
        let parameters = body.object("sampling_params")?.ok_or_else(no_parameters)?;
        let token_ids = body
            .get("token_ids")
            .ok_or_else(|| ApiError::invalid("token_ids", "`token_ids` is missing"))?;
        let is_tokens = token_ids
            .as_array()
            .is_some_and(|ids| ids.iter().all(Json::is_u64));
        if !is_tokens {
            return Err(wrong("token_ids", "a list of token ids"));
        }
        if let Some(name) = NO_PARAMETERS
            .iter()
            .find(|name| parameters.contains_key(**name))
        {
            return Err(unsupported(&format!("sampling_params.{name}")));
        }
        let given = |name: &str| parameters.get(name).filter(|value| !value.is_null());
        let log_probs = match given("logprobs").map(Json::as_u64) {
            None => false,
            // Of the sampled tokens; the other APIs report alternatives.
            Some(Some(0 | 1)) => true,
            Some(_) => return Err(wrong("sampling_params.logprobs", "0 or 1")),
        };
        let ids = |value: &Json| -> Option<Vec<u32>> {
            value
                .as_array()?
                .iter()
                .map(|id| id.as_u64()?.try_into().ok())
                .collect()
        };
        let stop_token_ids = given("stop_token_ids").map(|value| {
            ids(value).ok_or_else(|| wrong("sampling_params.stop_token_ids", "a list of token ids"))
        });
        let own = ["logprobs", "stop_token_ids"];
        let mut fields: BTreeMap<&str, &Json> = parameters
            .iter()
            .filter(|(name, value)| {
                !value.is_null()
                    && !OF_TEXT.contains(&name.as_str())
                    && !own.contains(&name.as_str())
            })
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        let no_log_probs = json!(0);
        fields.insert("prompt", token_ids);
        fields.extend(
            body.0
                .get_key_value("model")
                .map(|(name, value)| (*name, *value)),
        );
        fields.extend(log_probs.then_some(("logprobs", &no_log_probs)));
        let request = Self::parse_fields(Api::Completions, &Fields(fields))?;
        Ok(Self {
            token_ids: true,
            stop_token_ids: stop_token_ids.transpose()?.unwrap_or_default(),
            ..request
        })
    }
}
