//! A tokenizer with its chat template as GGUF's metadata below `tokenizer.`.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use serde_json::Value as Json;

use super::CheckpointError;
use crate::hub::{ModelConfig, ModelSource};
use crate::text::{QWEN2_WORDS, TemplateOptions, TextError, Tokenizer, tokenizer_json};

pub(super) type Metadata = Vec<(String, Value)>;

/// Llama 3's pre-tokenizer.
pub(super) const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Pre-tokenizer of Mistral's Tekken.
pub(super) const TEKKEN_WORDS: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// llama.cpp's names of pre-tokenizers, by the pattern in `tokenizer.json`.
const WORDS: [(&str, &str); 3] = [
    (QWEN2_WORDS, "qwen2"),
    (LLAMA3_WORDS, "llama-bpe"),
    (TEKKEN_WORDS, "tekken"),
];

fn cut_of(tokenizer: &Json) -> Option<&'static str> {
    let cut = &tokenizer["pre_tokenizer"];
    let steps: Vec<&Json> = cut["pretokenizers"]
        .as_array()
        .map_or_else(|| vec![cut], |steps| steps.iter().collect());
    let (bytes, before) = steps.split_last()?;
    let is_plain = bytes["type"] == "ByteLevel" && bytes["add_prefix_space"] != true;
    let cuts_words = bytes["use_regex"] != false;
    match before {
        _ if !is_plain => None,
        [] if cuts_words => Some("gpt-2"),
        [digits]
            if cuts_words && digits["type"] == "Digits" && digits["individual_digits"] == true =>
        {
            Some("smollm")
        }
        [split] if !cuts_words && split["type"] == "Split" && split["behavior"] == "Isolated" => {
            WORDS
                .iter()
                .find(|(pattern, _)| split["pattern"]["Regex"] == *pattern)
                .map(|(_, name)| *name)
        }
        _ => None,
    }
}

/// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Key of a separate template for prompts with tools.
pub(super) const TOOL_TEMPLATE: &str = "tokenizer.chat_template.tool_use";

/// Whether SentencePiece's BPE takes a text as it is, with `▁` for spaces, as Gemma's.
fn is_plain_pieces(tokenizer: &Json) -> bool {
    let (cut, step) = (&tokenizer["pre_tokenizer"], &tokenizer["normalizer"]);
    // No space is left to cut at.
    let is_uncut = cut.is_null() || cut["type"] == "Split" && cut["pattern"]["String"] == " ";
    let is_marked = step["pattern"]["String"] == " " && step["content"] == "▁";
    is_uncut && step["type"] == "Replace" && is_marked
}

/// SentencePiece's scores: it merges the pair with the best result first, so the first merge that makes a token has its rank.
fn scores(tokens: &[(String, i32)], merges: &[String]) -> Vec<Value> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, merge) in merges.iter().enumerate() {
        ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
    }
    let score = |(token, kind): &(String, i32)| match ranks.get(token) {
        Some(rank) if *kind == NORMAL => -(*rank as f32) - 1.0,
        _ => 0.0,
    };
    tokens
        .iter()
        .map(|token| Value::F32(score(token)))
        .collect()
}

/// Tokens, merges, stop tokens and chat templates.
pub(super) fn vocabulary(
    source: &ModelSource,
    config: &ModelConfig,
    options: &TemplateOptions,
) -> Result<Metadata, CheckpointError> {
    let label = source.label("tokenizer.json");
    let remedy =
        "export with --merged, and convert the folder with llama.cpp's own convert_hf_to_gguf.py";
    let refused =
        |problem: String| CheckpointError::foreign(&label, format!("{problem}; {remedy}"));
    let file = tokenizer_json(source).map_err(|error| match error {
        TextError::Hub(error) => error.into(),
        error => refused(error.to_string()),
    })?;
    let tokenizer: Json =
        serde_json::from_slice(&file).map_err(|error| refused(error.to_string()))?;
    let vocab = tokenizer["model"]["vocab"].as_object();
    let merges = tokenizer["model"]["merges"].as_array();
    let (Some(vocab), Some(merges)) = (vocab, merges) else {
        return Err(refused("only BPE tokenizers can be written".to_owned()));
    };
    let is_pieces = tokenizer["model"]["byte_fallback"] == true;
    let (cut, other_cut) = match is_pieces {
        true => (
            is_plain_pieces(&tokenizer).then_some("default"),
            "normalizer",
        ),
        false => (cut_of(&tokenizer), "pre_tokenizer"),
    };
    let cut = cut.ok_or_else(|| {
        refused(format!(
            "llama.cpp cuts text in no way that equals its `{other_cut}`: {}",
            tokenizer[other_cut]
        ))
    })?;
    let added = tokenizer["added_tokens"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    // Embedding rows without a token need a name too.
    let mut tokens: Vec<(String, i32)> = (0..config.vocab_size)
        .map(|id| (format!("[PAD{id}]"), UNUSED))
        .collect();
    let unknown = tokenizer["model"]["unk_token"].as_str();
    let kind = |token: &str| match token {
        _ if !is_pieces => NORMAL,
        _ if Some(token) == unknown => UNKNOWN,
        _ if token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') => BYTE,
        _ => NORMAL,
    };
    let known = vocab
        .iter()
        .map(|(token, id)| (token.as_str(), id, kind(token)));
    let special = added.iter().map(|token| {
        let text = token["content"].as_str().unwrap_or_default();
        let kind = match token["special"] == true {
            true => CONTROL,
            false => USER_DEFINED,
        };
        (text, &token["id"], kind)
    });
    for (token, id, kind) in known.chain(special) {
        let row = id.as_u64().and_then(|id| tokens.get_mut(id as usize));
        *row.ok_or_else(|| {
            refused(format!(
                "token {token:?} has id {id}, but config.json says `vocab_size` = {}",
                config.vocab_size
            ))
        })? = (token.to_owned(), kind);
    }
    let merge = |merge: &Json| match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
        (Some(merge), _) => Some(merge.to_owned()),
        (_, Some([first, second])) => Some(format!("{} {}", first.as_str()?, second.as_str()?)),
        _ => None,
    };
    let merges: Option<Vec<String>> = merges.iter().map(merge).collect();
    let merges = merges
        .filter(|merges| !merges.is_empty())
        .ok_or_else(|| refused("its `merges` are no list of pairs of tokens".to_owned()))?;
    let scores = is_pieces.then(|| scores(&tokens, &merges));
    let read = Tokenizer::load(source).map_err(|error| refused(error.to_string()))?;
    let (names, kinds): (Vec<Value>, Vec<Value>) = tokens
        .into_iter()
        .map(|(token, kind)| (Value::String(token), Value::I32(kind)))
        .unzip();
    let mut metadata = vec![
        (
            "model",
            Value::String(if is_pieces { "llama" } else { "gpt2" }.to_owned()),
        ),
        ("pre", Value::String(cut.to_owned())),
        ("tokens", Value::Array(names)),
        ("token_type", Value::Array(kinds)),
        // The chat template contains the beginning of a prompt.
        ("add_bos_token", Value::Bool(false)),
    ];
    match scores {
        Some(scores) => metadata.extend([
            ("scores", Value::Array(scores)),
            ("add_space_prefix", Value::Bool(false)),
        ]),
        None => {
            let merges = merges.into_iter().map(Value::String).collect();
            metadata.push(("merges", Value::Array(merges)));
        }
    }
    let template = read.chat_template();
    let named =
        |name: &str| template.and_then(|template| read.token_id(template.special_token(name)?));
    // `eos_token` first, since templates may write it. GGUF has three stop tokens.
    let mut stops: Vec<u32> = [named("eos_token"), read.turn_end_id()]
        .into_iter()
        .flatten()
        .chain(read.stop_ids().iter().copied())
        .collect();
    let mut seen = std::collections::HashSet::new();
    stops.retain(|id| seen.insert(*id));
    let stop_keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
    let ids = [
        ("bos_token_id", named("bos_token")),
        ("padding_token_id", named("pad_token")),
        (
            "unknown_token_id",
            unknown
                .filter(|_| is_pieces)
                .and_then(|token| read.token_id(token)),
        ),
    ]
    .into_iter()
    .chain(stop_keys.into_iter().zip(stops.into_iter().map(Some)));
    metadata.extend(ids.filter_map(|(key, id)| Some((key, Value::U32(id?)))));
    let mut metadata: Metadata = metadata
        .into_iter()
        .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
        .collect();
    metadata.extend(template.map(|template| {
        (
            "tokenizer.chat_template".to_owned(),
            Value::String(options.pinned(&template.exported_source())),
        )
    }));
    if let Some(text) = template.and_then(|template| template.tool_use_source()) {
        let name = "tool_use".to_owned();
        metadata.extend([
            (
                "tokenizer.chat_templates".to_owned(),
                Value::Array(vec![Value::String(name)]),
            ),
            (
                TOOL_TEMPLATE.to_owned(),
                Value::String(options.pinned(text)),
            ),
        ]);
    }
    Ok(metadata)
}
