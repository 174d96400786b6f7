//! Converts Mistral's `tekken.json` to `tokenizer.json`: byte-level BPE whose tokens are in merge
//! order after the special tokens.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::token_bytes::byte_of_character;

pub(super) const FILE: &str = "tekken.json";

/// Variables of its chat templates; its folders have no `tokenizer_config.json`.
pub(super) const NAMED_TOKENS: [(&str, &str); 4] = [
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("pad_token", "<pad>"),
];

/// Remedy for folders without a chat template, which Mistral's own code would write.
pub(super) const TEMPLATE_REMEDY: &str = "its chat template is a file of its own, `chat_template.jinja`: copy that of the model's \
    repository into the folder, or write it with mistral-common (`print(convert_tokenizer_to_chat_template(\"tekken.json\"))` \
    of mistral_common.integrations.chat_templates.chat_templates)";

/// Each is split at every byte.
const MAX_TOKEN_BYTES: usize = 1024;

/// Special tokens of files without a list: up to version 7.
const FIRST_SPECIAL: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

#[derive(Deserialize)]
struct File {
    config: Config,
    vocab: Vec<Token>,
    special_tokens: Option<Vec<SpecialToken>>,
}

#[derive(Deserialize)]
struct Config {
    pattern: String,
    /// Including special tokens; the file may have more.
    default_vocab_size: usize,
    default_num_special_tokens: usize,
    version: String,
}

#[derive(Deserialize)]
struct Token {
    rank: usize,
    /// Base64.
    token_bytes: String,
}

#[derive(Deserialize)]
struct SpecialToken {
    rank: usize,
    token_str: String,
    #[serde(default = "is_control")]
    is_control: bool,
}

fn is_control() -> bool {
    true
}

/// # Errors
/// What is damaged or missing, as the end of a sentence that begins with the file's name.
pub(super) fn tokenizer_json(file: &[u8]) -> Result<Vec<u8>, String> {
    let advice = "fetch the model again";
    let File {
        config,
        vocab,
        special_tokens,
    } = serde_json::from_slice(file)
        .map_err(|error| format!("not a Tekken tokenizer ({error}); {advice}"))?;
    let special = special_tokens.map_or_else(|| first_special(&config.version), Ok)?;
    let specials = config.default_num_special_tokens;
    let own = config
        .default_vocab_size
        .checked_sub(specials)
        .filter(|own| *own <= vocab.len());
    let own = own.ok_or_else(|| {
        format!(
            "`default_vocab_size` = {} with {specials} special tokens, but `vocab` has {}; {advice}",
            config.default_vocab_size,
            vocab.len()
        )
    })?;
    if special.len() > specials
        || special
            .iter()
            .enumerate()
            .any(|(place, token)| token.rank != place)
    {
        return Err(format!(
            "`special_tokens` are not numbered from 0 to `default_num_special_tokens` = {specials}; {advice}"
        ));
    }
    let ranks = ranks(&vocab[..own])?;
    let spelled = Spelling::new();
    let names = |id: usize| {
        special.get(id).map_or_else(
            || format!("<SPECIAL_{id}>"),
            |token| token.token_str.clone(),
        )
    };
    // An added token has the id of its text in the vocabulary.
    let own = ranks
        .iter()
        .map(|(bytes, rank)| (spelled.text(bytes), (rank + specials).into()));
    let vocabulary: serde_json::Map<String, Json> = (0..specials)
        .map(|id| (names(id), id.into()))
        .chain(own)
        .collect();
    let added: Vec<Json> = (0..specials)
        .map(|id| {
            let is_control = special.get(id).is_none_or(|token| token.is_control);
            json!({"id": id, "content": names(id), "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": is_control})
        })
        .collect();
    let mut tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": config.pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
        },
    });
    // `json!` would copy them.
    tokenizer["model"]["vocab"] = vocabulary.into();
    tokenizer["model"]["merges"] = merges(&ranks, &spelled).into();
    serde_json::to_vec(&tokenizer).map_err(|error| error.to_string())
}

fn first_special(version: &str) -> Result<Vec<SpecialToken>, String> {
    let number = version
        .trim_start_matches('v')
        .split('m')
        .next()
        .and_then(|digits| digits.parse::<u32>().ok());
    if number.is_none_or(|number| number > 7) {
        return Err(format!(
            "no `special_tokens`, which version {version} has; fetch the model again"
        ));
    }
    let token = |(rank, text): (usize, &&str)| SpecialToken {
        rank,
        token_str: (*text).to_owned(),
        is_control: true,
    };
    Ok(FIRST_SPECIAL.iter().enumerate().map(token).collect())
}

fn ranks(vocab: &[Token]) -> Result<Vec<(Vec<u8>, usize)>, String> {
    let mut known = HashSet::new();
    let token = |(place, token): (usize, &Token)| {
        let bytes = STANDARD.decode(&token.token_bytes).unwrap_or_default();
        let is_right = token.rank == place
            && (place >= 256 || bytes == [place as u8])
            && known.insert(bytes.clone());
        if bytes.len() > MAX_TOKEN_BYTES {
            return Err(format!(
                "token {place} has {} bytes; at most {MAX_TOKEN_BYTES} are read",
                bytes.len()
            ));
        }
        if bytes.is_empty() || !is_right {
            return Err(format!(
                "token {place} of `vocab` (rank {}, {:?}) is out of order, not base64, or there twice; fetch the model again",
                token.rank, token.token_bytes
            ));
        }
        Ok((bytes, place))
    };
    vocab.iter().enumerate().map(token).collect()
}

/// All pairs of tokens that form a token: ordered by that token, then by pair.
fn merges(ranks: &[(Vec<u8>, usize)], spelled: &Spelling) -> Vec<Json> {
    let of: HashMap<&[u8], usize> = ranks
        .iter()
        .map(|(bytes, rank)| (bytes.as_slice(), *rank))
        .collect();
    let pairs = ranks.iter().flat_map(|(bytes, _)| {
        let halves = (1..bytes.len()).map(|at| bytes.split_at(at));
        let mut halves: Vec<(usize, usize)> = halves
            .filter_map(|(left, right)| Some((*of.get(left)?, *of.get(right)?)))
            .collect();
        halves.sort_unstable();
        halves
    });
    pairs
        .map(|(left, right)| json!([spelled.text(&ranks[left].0), spelled.text(&ranks[right].0)]))
        .collect()
}

/// Character of each byte.
struct Spelling(HashMap<u8, char>);

impl Spelling {
    fn new() -> Self {
        Self(
            byte_of_character()
                .into_iter()
                .map(|(character, byte)| (byte, character))
                .collect(),
        )
    }

    fn text(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|byte| self.0[byte]).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(changes: &[(&str, Json)]) -> Vec<u8> {
        let token = |(rank, bytes): (usize, Vec<u8>)| json!({"rank": rank, "token_bytes": STANDARD.encode(bytes), "token_str": null});
        let words = ["ab", "bc", "abc", " abc"].map(|word| word.as_bytes().to_vec());
        let vocab: Vec<Json> = (0..=255)
            .map(|byte| vec![byte])
            .chain(words)
            .enumerate()
            .map(token)
            .collect();
        let mut file = json!({"vocab": vocab, "config": {
            "pattern": r" ?\p{L}+|\s+|[^\s\p{L}]+", "num_vocab_tokens": 260, "default_vocab_size": 279, "default_num_special_tokens": 20, "version": "v3",
        }});
        for (pointer, value) in changes {
            match file.pointer_mut(pointer) {
                Some(place) => *place = value.clone(),
                None => file[pointer.trim_start_matches('/')] = value.clone(),
            }
        }
        serde_json::to_vec(&file).unwrap()
    }

    #[test]
    fn ranks_are_the_order_of_merges() {
        let inner: tokenizers::Tokenizer = String::from_utf8(tokenizer_json(&file(&[])).unwrap())
            .unwrap()
            .parse()
            .unwrap();
        let ids = |text: &str| inner.encode(text, false).unwrap().get_ids().to_vec();
        // The last token of the file is beyond `default_vocab_size`.
        assert_eq!(ids("abc abcd"), [278, 52, 278, 120]);
        assert_eq!(ids("abbc"), [276, 277]);
        assert_eq!(ids("<s>[INST]é"), [1, 3, 20 + 0xC3, 20 + 0xA9]);
        assert_eq!(inner.decode(&[1, 215, 189, 278], true).unwrap(), "éabc");
    }

    #[test]
    fn what_is_damaged_is_named() {
        let token = |rank: usize, bytes: &[u8]| json!({"rank": rank, "token_bytes": STANDARD.encode(bytes), "token_str": null});
        let special =
            |rank: usize| json!([{"rank": rank, "token_str": "<unk>", "is_control": true}]);
        for (pointer, value, expected) in [
            (
                "/config",
                json!(3),
                "not a Tekken tokenizer (invalid type: integer `3`",
            ),
            (
                "/config/version",
                json!("v11"),
                "no `special_tokens`, which version v11 has",
            ),
            (
                "/config/default_vocab_size",
                json!(281),
                "`default_vocab_size` = 281 with 20 special tokens, but `vocab` has 260",
            ),
            (
                "/config/default_vocab_size",
                json!(7),
                "`default_vocab_size` = 7 with 20 special tokens",
            ),
            (
                "/special_tokens",
                special(1),
                "`special_tokens` are not numbered from 0",
            ),
            (
                "/vocab/256",
                token(300, b"ab"),
                "token 256 of `vocab` (rank 300, \"YWI=\") is out of order",
            ),
            (
                "/vocab/257",
                token(257, b"ab"),
                "token 257 of `vocab` (rank 257, \"YWI=\")",
            ),
            ("/vocab/65", token(65, b"B"), "token 65 of `vocab` (rank 65"),
            (
                "/vocab/258",
                json!({"rank": 258, "token_bytes": "*"}),
                "token 258 of `vocab` (rank 258, \"*\")",
            ),
            (
                "/vocab/258",
                token(258, &[b'a'; 1025]),
                "token 258 has 1025 bytes; at most 1024 are read",
            ),
        ] {
            let message = tokenizer_json(&file(&[(pointer, value)])).unwrap_err();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }
}
