//! Trains a byte-level BPE tokenizer: every byte is a token, so any text can be written; digits
//! stay single.

use serde_json::json;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::{TextError, Tokenizer};
use crate::hub::ModelSource;

/// Files readable by this program and by transformers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerFiles {
    pub tokenizer_json: String,
    /// Contains the chat template.
    pub tokenizer_config_json: String,
}

/// ChatML as in Qwen: `<|im_start|>role`, content, `<|im_end|>`; `enable_thinking = false` closes
/// the think block before the answer.
pub const CHAT_TEMPLATE: &str = "\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}";

/// [`CHAT_TEMPLATE`] with tools as signatures at the end of the system turn: short enough for a
/// small model.
pub const TOOL_CHAT_TEMPLATE: &str = include_str!("tool_chat_template.jinja");

/// Whole tokens with ids in this order from 0; the last two are ordinary text for the decoder.
const WHOLE_TOKENS: [(&str, bool); 5] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<think>", false),
    ("</think>", false),
];

/// Qwen2's pre-tokenizer: contractions, words with the character before them, single digits, runs
/// of signs, line ends, spaces.
pub const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Trains at most `vocab_size` tokens (fewer if the texts have fewer pairs that occur twice).
/// Deterministic.
///
/// # Errors
/// [`TextError::Train`] for a vocabulary too small for all bytes, [`TextError::Template`] for a
/// template that does not compile.
pub fn train_tokenizer(
    texts: impl Iterator<Item = String>,
    vocab_size: usize,
    chat_template: &str,
) -> Result<TokenizerFiles, TextError> {
    let least = 256 + WHOLE_TOKENS.len();
    if vocab_size < least {
        return Err(TextError::Train(format!(
            "a vocabulary of {vocab_size} is too small: 256 bytes and {} whole tokens need at least {least}",
            WHOLE_TOKENS.len()
        )));
    }
    super::ChatTemplate::new(chat_template, Vec::new(), "the chat template")?;
    let failed = |error: tokenizers::Error| {
        TextError::Train(format!("training the tokenizer failed: {error}"))
    };
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(cut_into_words().map_err(failed)?));
    tokenizer.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::new(
        false, false, false,
    ))));
    let mut trainer = TrainerWrapper::BpeTrainer(
        BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(
                WHOLE_TOKENS
                    .map(|(token, special)| AddedToken::from(token, special).normalized(false))
                    .to_vec(),
            )
            .build(),
    );
    // The trainer reads in parallel; texts of any iterator are collected first.
    let texts: Vec<String> = texts.collect();
    tokenizer
        .train(&mut trainer, texts.iter())
        .map_err(failed)?;
    let tokenizer_json = with_plain_think_marks(&tokenizer.to_string(false).map_err(failed)?)?;
    Ok(TokenizerFiles {
        tokenizer_json,
        tokenizer_config_json: tokenizer_config(chat_template),
    })
}

impl TokenizerFiles {
    /// The tokenizer of a model that this program trained, with another chat template.
    ///
    /// # Errors
    /// Missing or non-text files, and a tokenizer without [`CHAT_TEMPLATE`]'s whole tokens.
    pub fn for_source(source: &ModelSource, chat_template: &str) -> Result<Self, TextError> {
        let tokenizer_json = source.read_text("tokenizer.json")?;
        let files = Self {
            tokenizer_json,
            tokenizer_config_json: tokenizer_config(chat_template),
        };
        let tokenizer = Tokenizer::from_files(&files)?;
        match WHOLE_TOKENS
            .iter()
            .find(|(token, _)| tokenizer.encode(token).map_or(true, |ids| ids.len() != 1))
        {
            Some((token, _)) => Err(TextError::Tokenizer {
                path: source.label("tokenizer.json"),
                problem: format!(
                    "has no token {token:?}; take the tokenizer of `tiny` or of a model that it was pretrained from"
                ),
            }),
            None => Ok(files),
        }
    }
}

fn tokenizer_config(chat_template: &str) -> String {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": false,
        "chat_template": chat_template,
    });
    format!("{config:#}\n")
}

fn cut_into_words() -> Result<PreTokenizerWrapper, tokenizers::Error> {
    let words = Split::new(
        SplitPattern::Regex(QWEN2_WORDS.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )?;
    let bytes = ByteLevel::new(false, true, false);
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Split(words),
        PreTokenizerWrapper::ByteLevel(bytes),
    ])))
}

/// The trainer makes every whole token special; think marks must survive decoding without special
/// tokens.
fn with_plain_think_marks(tokenizer_json: &str) -> Result<String, TextError> {
    let broken = |error: serde_json::Error| {
        TextError::Train(format!("the trained tokenizer is not JSON: {error}"))
    };
    let mut value: serde_json::Value = serde_json::from_str(tokenizer_json).map_err(broken)?;
    for token in value
        .get_mut("added_tokens")
        .and_then(serde_json::Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let content = token
            .get("content")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let special = WHOLE_TOKENS
            .iter()
            .any(|(whole, special)| *whole == content && *special);
        token["special"] = special.into();
    }
    serde_json::to_string_pretty(&value)
        .map(|text| text + "\n")
        .map_err(broken)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::Tokenizer;

    /// Invoice lines with made-up vendor names of five letters.
    fn texts() -> impl Iterator<Item = String> {
        let letter = |number: u32, place: u32| {
            char::from(b'a' + ((number * 7919) / 26u32.pow(place) % 26) as u8)
        };
        (0..400).map(move |number| {
            let vendor: String = (0..5).map(|place| letter(number % 100, place)).collect();
            format!(
                "Invoice {number} from {vendor} Ltd, due 2024-05-1{}: {}.{:02} EUR",
                number % 9,
                number * 7,
                number % 100
            )
        })
    }

    fn trained() -> &'static Tokenizer {
        static TRAINED: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
        TRAINED.get_or_init(|| {
            Tokenizer::from_files(&train_tokenizer(texts(), 400, CHAT_TEMPLATE).unwrap()).unwrap()
        })
    }

    #[test]
    fn the_same_texts_give_the_same_bytes() {
        assert_eq!(
            train_tokenizer(texts(), 400, CHAT_TEMPLATE).unwrap(),
            train_tokenizer(texts(), 400, CHAT_TEMPLATE).unwrap()
        );
    }

    #[test]
    fn words_merge_digits_do_not_and_whole_tokens_come_first() {
        let check = |text: &str, expected: usize| {
            assert_eq!(trained().encode(text).unwrap().len(), expected, "{text:?}")
        };
        check("Invoice", 1);
        check(" from", 1);
        check("2024", 4);
        check("<|im_start|><|im_end|><think></think><|endoftext|>", 5);
        check("", 0);
        assert_eq!(
            trained()
                .encode("<|endoftext|><|im_start|><|im_end|><think></think>")
                .unwrap(),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(trained().vocab_size(), 400);
        assert_eq!(trained().stop_ids(), [0, 2]);
        assert_eq!(trained().turn_end_id(), Some(2));
    }

    #[test]
    fn think_marks_survive_decoding_special_tokens_do_not() {
        let ids = trained()
            .encode("<think>\n\n</think>\n\nyes<|im_end|>")
            .unwrap();
        assert_eq!(
            trained().decode(&ids, true).unwrap(),
            "<think>\n\n</think>\n\nyes"
        );
        assert_eq!(
            trained().decode(&ids, false).unwrap(),
            "<think>\n\n</think>\n\nyes<|im_end|>"
        );
    }

    #[test]
    fn a_scorer_sees_special_tokens_that_were_sampled() {
        for (sampled, expected) in [
            ("{}<|im_end|>", "{}"),
            ("{<|im_start|>}<|im_end|>", "{<|im_start|>}"),
            ("{}<|im_end|><|im_end|>", "{}<|im_end|>"),
            ("{", "{"),
        ] {
            let ids = trained().encode(sampled).unwrap();
            assert_eq!(trained().decode_answer(&ids).unwrap(), expected);
        }
        assert_eq!(trained().decode_answer(&[]).unwrap(), "");
    }

    #[test]
    fn the_impossible_is_refused() {
        assert!(
            train_tokenizer(texts(), 260, CHAT_TEMPLATE)
                .unwrap_err()
                .to_string()
                .contains("at least 261")
        );
        assert!(train_tokenizer(texts(), 300, "{% if").is_err());
        let empty = Tokenizer::from_files(
            &train_tokenizer(std::iter::empty(), 300, CHAT_TEMPLATE).unwrap(),
        )
        .unwrap();
        assert_eq!(empty.vocab_size(), 261);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in r"(\PC|[\n\t\r]|<\|im_end\|>|</think>|[0-9 ]|\p{M}){0,40}") {
            let ids = trained().encode(&text).unwrap();
            prop_assert_eq!(trained().decode(&ids, false).unwrap(), text);
        }

        #[test]
        fn any_characters_come_back(text in any::<String>()) {
            let ids = trained().encode(&text).unwrap();
            prop_assert!(ids.iter().all(|id| (*id as usize) < trained().vocab_size()));
            prop_assert_eq!(trained().decode(&ids, false).unwrap(), text);
        }
    }
}
