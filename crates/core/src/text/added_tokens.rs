//! Added tokens of the files beside `tokenizer.json`, as transformers 5 adds them.

use serde_json::{Map, Value as Json};
use tokenizers::AddedToken;

use super::TextError;
use super::json_files::optional_json;
use super::template::{special_tokens, token_text};
use crate::hub::ModelSource;

const DECODER: &str = "added_tokens_decoder";

/// Reads `tokenizer_config.json`. If it lists no added tokens, `special_tokens_map.json` overrides
/// keys that both have.
pub(super) fn tokenizer_config(source: &ModelSource) -> Result<Json, TextError> {
    let mut config = optional_json(source, "tokenizer_config.json")?;
    if config.get(DECODER).is_none()
        && let Json::Object(named) = optional_json(source, "special_tokens_map.json")?
    {
        let mut merged = config.as_object().cloned().unwrap_or_default();
        merged.extend(named);
        config = merged.into();
    }
    Ok(config)
}

/// Tokens of `tokenizer_config.json` and `added_tokens.json` (token to id), in the order in which
/// new ones get ids. `known`: added tokens of `tokenizer.json` with ids.
pub(super) fn added_tokens(
    config: &Json,
    added: &Json,
    known: &[(u32, AddedToken)],
) -> Vec<AddedToken> {
    let named = special_tokens(config);
    let is_named = |content: &str| named.iter().any(|(_, token)| token == content);
    let extra = extra_tokens(config);
    let is_extra = |content: &str| extra.iter().any(|token| token.content == content);
    let mut listed: Vec<(u64, AddedToken)> = match (config.get(DECODER), added) {
        (Some(decoder), _) => fields(decoder)
            .filter_map(|(id, token)| Some((id.parse().ok()?, token_of(token, false)?)))
            .collect(),
        (None, added) => fields(added)
            .filter_map(|(content, id)| {
                let id = id.as_u64()?;
                let is_special = is_named(content) || is_extra(content);
                let is_known = known
                    .iter()
                    .any(|(known, token)| u64::from(*known) == id || token.content == *content);
                (!is_known).then(|| (id, AddedToken::from(content.clone(), is_special)))
            })
            .collect(),
    };
    listed.sort_by_key(|(id, _)| *id);
    let mut tokens: Vec<AddedToken> = listed.into_iter().map(|(_, token)| token).collect();
    let written = |name: &str| {
        let value = config
            .get(name)
            .or_else(|| config["extra_special_tokens"].get(name));
        value.and_then(|token| token_of(token, true))
    };
    for token in named
        .iter()
        .filter_map(|(name, _)| written(name))
        .chain(extra)
    {
        let is_there = |other: &AddedToken| other.content == token.content;
        if !tokens.iter().any(is_there) && !known.iter().any(|(_, other)| is_there(other)) {
            tokens.push(token);
        }
    }
    for token in &mut tokens {
        token.special |= is_named(&token.content);
    }
    tokens.retain(|token| !known.iter().any(|(_, other)| is_same(other, token)));
    tokens
}

/// `==` only compares contents.
fn is_same(one: &AddedToken, other: &AddedToken) -> bool {
    let rules = |token: &AddedToken| {
        (
            token.single_word,
            token.lstrip,
            token.rstrip,
            token.normalized,
            token.special,
        )
    };
    one.content == other.content && rules(one) == rules(other)
}

/// Further special tokens, under the newer or older key.
fn extra_tokens(config: &Json) -> Vec<AddedToken> {
    let list = |name: &str| {
        config
            .get(name)
            .and_then(Json::as_array)
            .filter(|list| !list.is_empty())
    };
    let list = list("extra_special_tokens").or_else(|| list("additional_special_tokens"));
    let tokens = list.into_iter().flatten();
    tokens.filter_map(|token| token_of(token, true)).collect()
}

fn fields(value: &Json) -> impl Iterator<Item = (&String, &Json)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn token_of(token: &Json, is_special: bool) -> Option<AddedToken> {
    let content = token_text(token).filter(|content| !content.is_empty())?;
    let flag = |name: &str, default| token.get(name).and_then(Json::as_bool).unwrap_or(default);
    let special = flag("special", is_special);
    Some(
        AddedToken::from(content, special)
            .single_word(flag("single_word", false))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .normalized(flag("normalized", !special)),
    )
}
