//! Limits for tokenizer files: they come with models, so their rules must not exhaust memory, crash
//! or be nondeterministic.

use serde::Deserialize;
use serde_json::Value as Json;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

use super::catch_panic::{catch_panic, panic_message};

/// Longest text that rules may make of one text, before tokenizing or on decoding.
const MAX_BYTES: usize = 256 << 20;
/// Longest token; published ones stay below 600 bytes.
const MAX_TOKEN_BYTES: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ExpansionBound {
    encode: f64,
    decode: f64,
    longest_token_bytes: usize,
    /// Maximum number of text bytes that become one byte before tokenizing; `None` if rules may
    /// drop any number.
    shrinking: Option<usize>,
}

/// Parts checked before building, which runs the normalizers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rules {
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    added_tokens: Vec<Json>,
}

impl ExpansionBound {
    pub(super) fn build(file: &[u8]) -> Result<(Tokenizer, Self), String> {
        let advice = "fetch the model again, or save its tokenizer again with transformers";
        let rules: Rules = serde_json::from_slice(file)
            .map_err(|error| format!("not a tokenizer ({error}); {advice}"))?;
        let encode = growth(&rules.normalizer) * growth(&rules.pre_tokenizer);
        let added = rules
            .added_tokens
            .iter()
            .filter_map(|token| Some(token.get("content")?.as_str()?.len()));
        within("its normalizers", added.max().unwrap_or(0), encode)?;
        let built = caught(|| {
            let mut built = Tokenizer::from_bytes(file)?;
            built.with_truncation(None)?;
            built.with_padding(None);
            Ok(built)
        });
        let built = built.map_err(|problem| format!("not a tokenizer ({problem}); {advice}"))?;
        let longest_token_bytes = Self::check(&built)?;
        let shrinking = shrinking(&rules);
        Ok((
            built,
            Self {
                encode,
                decode: growth(&rules.decoder),
                longest_token_bytes,
                shrinking,
            },
        ))
    }

    /// Adds tokens, except new ids from `rows` on; returns whether there were any.
    ///
    /// # Errors
    /// Tokens that are too long.
    pub(super) fn add_tokens(
        &mut self,
        tokenizer: &mut Tokenizer,
        tokens: Vec<AddedToken>,
        rows: Option<u64>,
    ) -> Result<bool, String> {
        let added = tokenizer.get_added_tokens_decoder();
        let highest = added.keys().max().map_or(0, |id| u64::from(*id) + 1);
        let mut next = highest.max(tokenizer.get_vocab_size(false) as u64);
        let mut fitting = Vec::new();
        for token in tokens {
            let length = token.content.len();
            within("its normalizers", length, self.encode)?;
            if length > MAX_TOKEN_BYTES {
                return Err(format!(
                    "a token of {length} bytes; at most {MAX_TOKEN_BYTES} are read"
                ));
            }
            if tokenizer.token_to_id(&token.content).is_none() {
                if rows.is_some_and(|rows| next >= rows) {
                    continue;
                }
                next += 1;
            }
            self.longest_token_bytes = self.longest_token_bytes.max(length);
            fitting.push(token);
        }
        let is_changed = !fitting.is_empty();
        caught(|| tokenizer.add_tokens(fitting))?;
        Ok(is_changed)
    }

    /// Longest text, in bytes, of `tokens` tokens; `None` if unbounded.
    pub(super) fn longest_text_bytes(&self, tokens: usize) -> Option<usize> {
        Some(
            self.shrinking?
                .saturating_mul(self.longest_token_bytes)
                .saturating_mul(tokens),
        )
    }

    /// Returns the length of its longest token.
    fn check(tokenizer: &Tokenizer) -> Result<usize, String> {
        if let ModelWrapper::BPE(model) = tokenizer.get_model()
            && let Some(dropout) = model.dropout.filter(|dropout| *dropout > 0.0)
        {
            return Err(format!(
                "`dropout` = {dropout} drops merges at random, so that a text has other token ids each time; set it to null"
            ));
        }
        let longest_token_bytes = tokenizer
            .get_vocab(true)
            .keys()
            .map(String::len)
            .max()
            .unwrap_or(0);
        if longest_token_bytes > MAX_TOKEN_BYTES {
            return Err(format!(
                "a token of {longest_token_bytes} bytes; at most {MAX_TOKEN_BYTES} are read"
            ));
        }
        Ok(longest_token_bytes)
    }

    /// Rejects a text that could grow too large.
    pub(super) fn check_text(&self, text: &str) -> Result<(), String> {
        within("its normalizers", text.len(), self.encode)
    }

    /// Rejects token ids whose text could grow too large; `length`: a token's own in bytes.
    pub(super) fn check_ids(
        &self,
        ids: &[u32],
        length: impl Fn(u32) -> usize,
    ) -> Result<(), String> {
        // Usually enough, without lookups.
        let most = ids.len().saturating_mul(self.longest_token_bytes);
        if within("", most, self.decode).is_ok() {
            return Ok(());
        }
        within(
            "its decoders",
            ids.iter().map(|id| length(*id)).sum(),
            self.decode,
        )
    }
}

fn within(what: &str, bytes: usize, growth: f64) -> Result<(), String> {
    if bytes as f64 * growth <= MAX_BYTES as f64 {
        return Ok(());
    }
    Err(format!(
        "{what} can make {growth:.0} bytes of one; of {bytes} bytes that is more than {} MiB",
        MAX_BYTES >> 20
    ))
}

/// See [`ExpansionBound::shrinking`]; only known for byte vocabularies, which have no unknown
/// token.
fn shrinking(rules: &Rules) -> Option<usize> {
    fn kinds(rule: &Json) -> Vec<&Json> {
        let lists = ["normalizers", "pretokenizers", "decoders"]
            .into_iter()
            .filter_map(|key| rule.get(key)?.as_array());
        let nested: Vec<&Json> = lists.flatten().flat_map(kinds).collect();
        if nested.is_empty() && !rule.is_null() {
            vec![rule]
        } else {
            nested
        }
    }
    let is = |rule: &Json, kind: &str| rule.get("type").is_some_and(|found| found == kind);
    let is_set = |token: &Json, key: &str| token.get(key) == Some(&Json::Bool(true));
    let normalizers = kinds(&rules.normalizer);
    let has_bytes = kinds(&rules.decoder)
        .iter()
        .any(|rule| is(rule, "ByteLevel"));
    let drops = kinds(&rules.pre_tokenizer).iter().any(|rule| {
        !["ByteLevel", "Split", "Digits"]
            .iter()
            .any(|kind| is(rule, kind))
            || rule["behavior"] == "Removed"
    });
    let strips = rules
        .added_tokens
        .iter()
        .any(|token| is_set(token, "lstrip") || is_set(token, "rstrip"));
    if !has_bytes || drops || strips || !normalizers.iter().all(|rule| is(rule, "NFC")) {
        return None;
    }
    // Canonical composition makes one byte of at most three: a syllable of three Korean letters,
    // nine bytes, has three.
    Some(if normalizers.is_empty() { 1 } else { 3 })
}

/// Maximum bytes that a rule makes of one: multiplied along a sequence. Rules not named here
/// (`NFKC`, `Lowercase`, `Split`) grow by a small factor once, however often applied, and count
/// as 1.
fn growth(rule: &Json) -> f64 {
    let text = |key: &str| {
        rule.get(key)
            .and_then(Json::as_str)
            .unwrap_or_default()
            .len() as f64
    };
    match rule.get("type").and_then(Json::as_str).unwrap_or_default() {
        "Sequence" => {
            let lists = ["normalizers", "pretokenizers", "decoders"]
                .into_iter()
                .filter_map(|key| rule.get(key)?.as_array());
            lists.flatten().map(growth).product()
        }
        "Replace" => {
            let pattern = rule.get("pattern");
            match pattern
                .and_then(|pattern| pattern.get("String"))
                .and_then(Json::as_str)
            {
                Some(found) if !found.is_empty() => (text("content") / found.len() as f64).max(1.0),
                // An expression can match between any two bytes.
                _ => text("content") + 1.0,
            }
        }
        "Prepend" => text("prepend") + 1.0,
        "Metaspace" => rule
            .get("replacement")
            .and_then(Json::as_str)
            .map_or(1.0, |replacement| replacement.len() as f64 + 1.0),
        "BPEDecoder" | "WordPiece" | "CTC" => {
            text("suffix")
                .max(text("prefix"))
                .max(text("word_delimiter_token"))
                + 1.0
        }
        "ByteLevel" | "BertNormalizer" => 2.0,
        // A table; published ones follow NFKC, which makes at most 18 characters of one.
        "Precompiled" => 18.0,
        _ => 1.0,
    }
}

/// Runs `work`; a panic of the regex engine (excessive backtracking) becomes an error.
pub(super) fn caught<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_panic(work) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(cause) => Err(format!(
            "tokenizer failed: {}",
            panic_message(cause.as_ref()).unwrap_or("no reason given")
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn growth_multiplies_along_a_sequence() {
        let replace =
            json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(100)});
        assert_eq!(growth(&replace), 100.0);
        let seven = json!({"type": "Sequence", "normalizers": vec![replace.clone(); 7]});
        assert_eq!(
            growth(&json!({"type": "Sequence", "normalizers": [seven, {"type": "NFC"}]})),
            1e14
        );
        assert_eq!(
            growth(&json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "xy"})),
            3.0
        );
        assert_eq!(growth(&json!({"type": "Prepend", "prepend": "▁"})), 4.0);
        assert_eq!(growth(&json!(null)), 1.0);
    }
}
