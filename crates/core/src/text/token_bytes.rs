//! Bytes of each token, as the tokenizer's decoder writes them.

use std::collections::HashMap;

/// How a vocabulary encodes bytes.
enum Spelling {
    /// A character for each byte.
    ByteLevel(HashMap<char, u8>),
    /// Text with a character in place of each space, and `<0x0A>` for single bytes.
    Fallback { space: String },
}

/// Bytes of each id below `vocab_size`; empty for special tokens, which decoding drops unless they
/// are in `kept`, and for unused ids.
///
/// # Errors
/// A decoder with an unknown byte encoding.
pub(super) fn token_bytes(
    inner: &tokenizers::Tokenizer,
    vocab_size: usize,
    kept: &[u32],
) -> Result<Vec<Vec<u8>>, String> {
    let spelling = Spelling::from_tokenizer(inner)?;
    let mut bytes = vec![Vec::new(); vocab_size];
    let mut set = |id: u32, token: Vec<u8>| {
        if let Some(place) = bytes.get_mut(id as usize) {
            *place = token;
        }
    };
    for (token, id) in inner.get_vocab(false) {
        set(id, spelling.bytes(&token));
    }
    for (id, added) in inner.get_added_tokens_decoder() {
        let is_text = !added.special || kept.contains(&id);
        set(
            id,
            if is_text {
                added.content.into_bytes()
            } else {
                Vec::new()
            },
        );
    }
    Ok(bytes)
}

impl Spelling {
    fn from_tokenizer(inner: &tokenizers::Tokenizer) -> Result<Self, String> {
        let decoder = serde_json::to_value(inner.get_decoder()).unwrap_or_default();
        let parts = match decoder["decoders"].as_array() {
            Some(parts) => parts.iter().collect(),
            None => vec![&decoder],
        };
        let of_kind = |kind: &str| parts.iter().find(|part| part["type"] == kind);
        if of_kind("ByteLevel").is_some() {
            return Ok(Self::ByteLevel(byte_of_character()));
        }
        let replaced = of_kind("Replace").filter(|part| part["content"] == " ");
        let space = replaced.and_then(|part| part["pattern"]["String"].as_str());
        let space = space.or_else(|| of_kind("Metaspace")?["replacement"].as_str());
        match (space, of_kind("ByteFallback")) {
            (Some(space), _) => Ok(Self::Fallback {
                space: space.to_owned(),
            }),
            (None, Some(_)) => Ok(Self::Fallback {
                space: " ".to_owned(),
            }),
            (None, None) => {
                let kinds: Vec<&str> = parts
                    .iter()
                    .filter_map(|part| part["type"].as_str())
                    .collect();
                let kinds = if kinds.is_empty() {
                    "none".to_owned()
                } else {
                    kinds.join(", ")
                };
                Err(format!(
                    "the bytes of its tokens are not known (decoder: {kinds})"
                ))
            }
        }
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            // A token with another character is decoded as written.
            Self::ByteLevel(byte_of) => {
                let bytes: Option<Vec<u8>> = token
                    .chars()
                    .map(|character| byte_of.get(&character).copied())
                    .collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Self::Fallback { space } => {
                let code = token
                    .strip_prefix("<0x")
                    .and_then(|rest| rest.strip_suffix('>'));
                match code
                    .filter(|code| code.len() == 2)
                    .and_then(|code| u8::from_str_radix(code, 16).ok())
                {
                    Some(byte) => vec![byte],
                    None => token.replace(space.as_str(), " ").into_bytes(),
                }
            }
        }
    }
}

/// GPT-2's alphabet: printable bytes are written as they are, the others as characters from U+0100.
pub(super) fn byte_of_character() -> HashMap<char, u8> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=u8::MAX)
        .filter(|byte| !is_printable(byte))
        .zip('\u{100}'..);
    let printable = (0..=u8::MAX)
        .filter(is_printable)
        .map(|byte| (char::from(byte), byte));
    printable
        .chain(others.map(|(byte, character)| (character, byte)))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    fn of(decoder: &Json, vocabulary: &[&str]) -> Result<Vec<String>, String> {
        let vocabulary: HashMap<&str, usize> = vocabulary
            .iter()
            .enumerate()
            .map(|(id, token)| (*token, id))
            .collect();
        let size = vocabulary.len() + 2;
        let special = |id: usize, content: &str, special: bool| serde_json::json!({"id": id, "content": content, "special": special, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": decoder,
            "added_tokens": [special(size - 2, "<end>", true), special(size - 1, "<x> ", false)],
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        });
        let inner: tokenizers::Tokenizer = json.to_string().parse().unwrap();
        let bytes = token_bytes(&inner, size, &[])?;
        Ok(bytes
            .into_iter()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect())
    }

    #[test]
    fn tokens_are_spelled_as_they_are_decoded() {
        let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        let space =
            serde_json::json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let fallback = serde_json::json!({"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}, {"type": "Fuse"}]});
        let expected = |first: &[&str]| {
            Ok(first
                .iter()
                .chain(&["", "<x> "])
                .map(|text| (*text).to_owned())
                .collect())
        };
        assert_eq!(
            of(&byte_level, &["Ġa", "Ċ", "Ã¤", "漢"]),
            expected(&[" a", "\n", "ä", "漢"])
        );
        assert_eq!(
            of(&fallback, &["▁a", "<0x0A>", "<0xZZ>"]),
            expected(&[" a", "\n", "<0xZZ>"])
        );
        let unknown = of(
            &serde_json::json!({"type": "CTC", "pad_token": "p", "word_delimiter_token": "|", "cleanup": true}),
            &["a"],
        );
        assert!(unknown.unwrap_err().contains("decoder: CTC"));
        assert!(
            of(&Json::Null, &["a"])
                .unwrap_err()
                .contains("decoder: none")
        );
    }
}
