//! Converts a GGUF tokenizer to `tokenizer.json`, with chat template and stop tokens.

use std::collections::{BTreeMap, HashMap};

use candle_core::quantized::gguf_file::Value;
use serde_json::{Value as Json, json};

use super::gguf_metadata::Metadata;
use super::gguf_tokenizer::{
    CONTROL, LLAMA3_WORDS, TEKKEN_WORDS, TOOL_TEMPLATE, UNUSED, USER_DEFINED,
};
use crate::text::QWEN2_WORDS;

/// A GGUF file's tokenizer, from its metadata below `tokenizer.`.
pub(super) struct Vocabulary {
    /// Contents by file name.
    pub(super) files: BTreeMap<&'static str, Json>,
    pub(super) stop_ids: Vec<u32>,
    /// An assumption about missing metadata.
    pub(super) note: Option<&'static str>,
}

/// Gemma's turns for its base models, which lack a template. Text-only, as for the instruct models.
const GEMMA_TURNS: &str = include_str!("gemma_turns.jinja");
const TURN_END: &str = "<end_of_turn>";

/// # Errors
/// What is missing or unsupported, as the end of a sentence that begins with the file's name.
pub(super) fn vocabulary(metadata: &Metadata<'_>, rows: usize) -> Result<Vocabulary, String> {
    let tokens = tokens(metadata, rows)?;
    let model = match metadata.text("tokenizer.ggml.model")? {
        "gpt2" => byte_level(metadata, &tokens)?,
        "llama" => sentence_piece(metadata, &tokens)?,
        other => {
            return Err(format!(
                "the tokenizer `{other}` is not supported; use gpt2 (byte-level BPE) or llama (SentencePiece)"
            ));
        }
    };
    let added: Vec<Json> = tokens
        .iter()
        .filter(|token| matches!(token.kind, CONTROL | USER_DEFINED))
        .map(|Token { id, text, kind }| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": *kind == CONTROL})
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": model.normalizer,
        "pre_tokenizer": model.pre_tokenizer, "post_processor": null, "decoder": model.decoder, "model": model.model,
    });
    let text_of = |id: Option<u32>| {
        id.and_then(|id| tokens.iter().find(|token| token.id == id))
            .map(|token| token.text)
    };
    let id = |key: &str| metadata.id(&format!("tokenizer.ggml.{key}"));
    // End of turn, if different from end of text.
    let special = |text: &str| {
        tokens
            .iter()
            .find(|token| token.kind == CONTROL && token.text == text)
            .map(|token| token.id)
    };
    let turn_end = id("eot_token_id").or_else(|| special(TURN_END));
    let ends = [turn_end, id("eos_token_id"), id("eom_token_id")];
    let template = metadata.text("tokenizer.chat_template").ok();
    let tool_use = metadata.text(TOOL_TEMPLATE).ok();
    let assumed = template
        .is_none()
        .then(|| special("<start_of_turn>").and(special(TURN_END)))
        .flatten();
    // If a template defines the end of turns, `eos_token` may differ.
    let [turn_end, text_end, _] = ends;
    let eos = match template.or(assumed.map(|_| GEMMA_TURNS)) {
        Some(_) => text_end.or(turn_end),
        None => turn_end.or(text_end),
    };
    let mut stop_ids: Vec<u32> = ends.into_iter().flatten().collect();
    stop_ids.sort_unstable();
    stop_ids.dedup();
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
        "bos_token": text_of(id("bos_token_id")), "eos_token": text_of(eos),
        "pad_token": text_of(id("padding_token_id")),
        "chat_template": template.or(assumed.map(|_| GEMMA_TURNS)).map(|default| match tool_use {
            None => json!(default),
            Some(tool_use) => json!([{"name": "default", "template": default}, {"name": "tool_use", "template": tool_use}]),
        }),
    });
    let generation = json!({"bos_token_id": id("bos_token_id"), "eos_token_id": stop_ids});
    let files = BTreeMap::from([
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", without_null(config)),
        ("generation_config.json", without_null(generation)),
    ]);
    let note = assumed
        .map(|_| "the file has no chat template: Gemma's turns, <start_of_turn> and <end_of_turn>, were written");
    Ok(Vocabulary {
        files,
        stop_ids,
        note,
    })
}

fn without_null(mut object: Json) -> Json {
    if let Json::Object(keys) = &mut object {
        keys.retain(|_, value| !value.is_null());
    }
    object
}

struct Token<'a> {
    id: u32,
    text: &'a str,
    kind: i32,
}

/// Tokens without embedding padding.
fn tokens<'a>(metadata: &'a Metadata<'_>, rows: usize) -> Result<Vec<Token<'a>>, String> {
    let texts = metadata.list("tokenizer.ggml.tokens")?;
    let kinds = metadata.list("tokenizer.ggml.token_type")?;
    if texts.len() != kinds.len() || texts.len() > rows {
        return Err(format!(
            "{} tokens, {} token types and {rows} rows of the embedding do not belong together",
            texts.len(),
            kinds.len()
        ));
    }
    let token = |(id, (text, kind)): (usize, (&'a Value, &Value))| {
        let bad = |_| format!("token {id} has no text or no type");
        Ok(Token {
            id: id as u32,
            text: text.to_string().map_err(bad)?,
            kind: kind.to_i32().map_err(bad)?,
        })
    };
    let all = texts
        .iter()
        .zip(kinds)
        .enumerate()
        .map(token)
        .collect::<Result<Vec<_>, String>>()?;
    Ok(all
        .into_iter()
        .filter(|token| token.kind != UNUSED)
        .collect())
}

struct TokenizerModel {
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    model: Json,
}

/// Byte-level BPE with the pre-tokenizer `pre`.
fn byte_level(metadata: &Metadata<'_>, tokens: &[Token<'_>]) -> Result<TokenizerModel, String> {
    let words = |pattern: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]})
    };
    let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let mut normalizer = Json::Null;
    let mut ignore_merges = false;
    let pre_tokenizer = match metadata.text("tokenizer.ggml.pre")? {
        "gpt-2" => gpt2,
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => {
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, gpt2]})
        }
        "qwen2" | "deepseek-r1-qwen" => {
            normalizer = json!({"type": "NFC"});
            words(QWEN2_WORDS)
        }
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" => {
            // A word that is a token is not merged.
            ignore_merges = true;
            words(LLAMA3_WORDS)
        }
        "tekken" => {
            ignore_merges = true;
            words(TEKKEN_WORDS)
        }
        other => {
            return Err(format!(
                "the tokenizer's `pre` = `{other}` is not supported; use one of gpt-2, smollm, qwen2, llama-bpe, tekken, or convert the model's Hugging Face folder"
            ));
        }
    };
    let merges = metadata.list("tokenizer.ggml.merges")?.iter().map(|merge| {
        let merge = merge
            .to_string()
            .map_err(|_| "a merge is not text".to_owned())?;
        let pair = merge
            .split_once(' ')
            .ok_or_else(|| format!("the merge {merge:?} is not a pair of tokens"))?;
        Ok(json!([pair.0, pair.1]))
    });
    let merges = merges.collect::<Result<Vec<_>, String>>()?;
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let model = bpe(tokens, merges, json!({"ignore_merges": ignore_merges}));
    Ok(TokenizerModel {
        normalizer,
        pre_tokenizer,
        decoder: bytes,
        model,
    })
}

/// SentencePiece BPE: merges ordered by the score of their result, as transformers converts it.
fn sentence_piece(metadata: &Metadata<'_>, tokens: &[Token<'_>]) -> Result<TokenizerModel, String> {
    let scores = metadata.list("tokenizer.ggml.scores")?;
    let ids: HashMap<&str, u32> = tokens.iter().map(|token| (token.text, token.id)).collect();
    let mut merges: Vec<(f32, &str, &str)> = Vec::new();
    for Token { id, text, .. } in tokens {
        let score = scores
            .get(*id as usize)
            .and_then(|score| score.to_f32().ok());
        let score = score
            .filter(|score| !score.is_nan())
            .ok_or_else(|| format!("token {id} has no score"))?;
        let halves = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        let mut halves: Vec<(&str, &str)> = halves
            .filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right))
            .collect();
        halves.sort_by_key(|(left, right)| (ids[left], ids[right]));
        merges.extend(halves.into_iter().map(|(left, right)| (score, left, right)));
    }
    merges.sort_by(|one, other| {
        let lengths =
            |merge: &(f32, &str, &str)| (merge.1.chars().count(), merge.2.chars().count());
        other
            .0
            .total_cmp(&one.0)
            .then_with(|| lengths(other).cmp(&lengths(one)))
    });
    let has_prefix = metadata.flag("tokenizer.ggml.add_space_prefix", true);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match has_prefix {
        true => {
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]})
        }
        false => spaces,
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if has_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = metadata.id("tokenizer.ggml.unknown_token_id");
    let unknown = tokens
        .iter()
        .find(|token| Some(token.id) == unknown)
        .map(|token| token.text);
    let merges = merges
        .into_iter()
        .map(|(_, left, right)| json!([left, right]))
        .collect();
    let model = bpe(
        tokens,
        merges,
        json!({"byte_fallback": true, "fuse_unk": true, "unk_token": unknown}),
    );
    let decoder = json!({"type": "Sequence", "decoders": decoders});
    Ok(TokenizerModel {
        normalizer,
        pre_tokenizer: Json::Null,
        decoder,
        model,
    })
}

fn bpe(tokens: &[Token<'_>], merges: Vec<Json>, settings: Json) -> Json {
    // Not `json!` of a map: 260,000 keys.
    let vocab: serde_json::Map<String, Json> = tokens
        .iter()
        .map(|token| (token.text.to_owned(), token.id.into()))
        .collect();
    let mut model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
    });
    for (key, value) in settings.as_object().into_iter().flatten() {
        model[key] = value.clone();
    }
    model["vocab"] = vocab.into();
    model["merges"] = merges.into();
    model
}
