//! A model's tokenizer: text to ids and back, prompts, stop ids.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value as Json;
use tokenizers::AddedToken;

use super::added_tokens::{added_tokens, tokenizer_config};
use super::json_files::{json, optional_json};
use super::template::CLOCK;
use super::token_bytes::token_bytes;
use super::tokenizer_limits::{ExpansionBound, caught};
use super::{
    CallFormat, ChatTemplate, Message, TemplateOptions, TextError, ThinkMarks, Thinking,
    TokenizerFiles, with_no_think,
};
use crate::hub::ModelSource;

/// Tokenizer, chat template and stop ids of a model. Thread-safe.
#[derive(Debug)]
pub struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    growth: ExpansionBound,
    template: Template,
    pub(super) stop_ids: Vec<u32>,
    turn_end_id: Option<u32>,
    /// Ends a turn of calls, if the family writes calls as separate messages.
    call_end_id: Option<u32>,
    call_format: &'static CallFormat,
    think_marks: &'static ThinkMarks,
    /// Tokens that are text of a call or think block, though they may be special.
    text_ids: Vec<u32>,
    vocab_size: usize,
    path: String,
}

/// `<|endoftext|>` in the files of [`super::train_tokenizer`].
const END_OF_TEXT_ID: u32 = 0;
const TEMPLATE_REMEDY: &str =
    "use an instruct model, or add a `chat_template.jinja` beside tokenizer.json";

#[derive(Debug)]
enum Template {
    Ready(Box<ChatTemplate>),
    Missing { path: String, remedy: &'static str },
    Broken { path: String, problem: String },
}

impl Tokenizer {
    /// Loads `tokenizer.json` and what else transformers reads:
    /// `tokenizer_config.json`, `added_tokens.json`, `special_tokens_map.json`, chat templates.
    /// Stop tokens come from `generation_config.json`, else from `config.json`.
    ///
    /// # Errors
    /// Missing or damaged files, ids beyond the model's embedding. A missing or broken chat
    /// template only fails in [`Tokenizer::render`], since scoring and log-probs work without one.
    pub fn load(source: &ModelSource) -> Result<Self, TextError> {
        let path = source.label("tokenizer.json");
        let config = tokenizer_config(source)?;
        let model = optional_json(source, "config.json")?;
        let (inner, growth, _) = backend(source, &config, &model, &path)?;
        let template = match ChatTemplate::load(source, &config) {
            Ok(Some(template)) => Template::Ready(Box::new(template)),
            Ok(None) => Template::Missing {
                path: source.label("tokenizer_config.json"),
                remedy: TEMPLATE_REMEDY,
            },
            Err(TextError::Template { path, problem }) => Template::Broken { path, problem },
            Err(other) => return Err(other),
        };
        let generation = optional_json(source, GENERATION)?;
        let mut tokenizer = Self::assemble(
            inner,
            growth,
            template,
            &config,
            named_stop_ids(&generation, &model),
            path,
        );
        tokenizer.check_fits(model.get("vocab_size").and_then(Json::as_u64))?;
        if let Some(unix_ms) = source.clock_ms() {
            tokenizer.set_time(unix_ms);
        }
        Ok(tokenizer)
    }

    pub fn from_files(files: &TokenizerFiles) -> Result<Self, TextError> {
        let (inner, growth) = parse(files.tokenizer_json.as_bytes(), "tokenizer.json")?;
        let config = json(
            files.tokenizer_config_json.as_bytes(),
            "tokenizer_config.json",
        )?;
        let source = config
            .get("chat_template")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let tokens = config
            .get("eos_token")
            .and_then(Json::as_str)
            .map(|token| ("eos_token".to_owned(), token.to_owned()));
        let template = ChatTemplate::new(
            source,
            tokens.into_iter().collect(),
            "tokenizer_config.json",
        )?;
        Ok(Self::assemble(
            inner,
            growth,
            Template::Ready(Box::new(template)),
            &config,
            vec![END_OF_TEXT_ID],
            "tokenizer.json".to_owned(),
        ))
    }

    fn assemble(
        inner: tokenizers::Tokenizer,
        growth: ExpansionBound,
        template: Template,
        config: &Json,
        eos: Vec<u32>,
        path: String,
    ) -> Self {
        let end = config
            .get("eos_token")
            .and_then(super::template::token_text)
            .and_then(|token| inner.token_to_id(token));
        let stop_ids: BTreeSet<u32> = eos.into_iter().chain(end).collect();
        let (call_format, think_marks) = match &template {
            Template::Ready(template) => (template.call_format(), template.think_marks()),
            _ => (CallFormat::hermes(), ThinkMarks::tags()),
        };
        let vocab_size = inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |highest| highest as usize + 1);
        let mut tokenizer = Self {
            inner,
            growth,
            template,
            stop_ids: stop_ids.into_iter().collect(),
            turn_end_id: end,
            call_end_id: None,
            call_format,
            think_marks,
            text_ids: Vec::new(),
            vocab_size,
            path,
        };
        tokenizer.read_turn_ends();
        let tokens = call_format.tokens.iter().chain(think_marks.tokens);
        let text_ids = tokens.filter_map(|token| tokenizer.inner.token_to_id(token));
        tokenizer.text_ids = text_ids
            .filter(|id| !tokenizer.stop_ids.contains(id))
            .collect();
        tokenizer
    }

    /// What the chat template writes after an answer ends turns and is a stop token.
    fn read_turn_ends(&mut self) {
        let Some(template) = self.chat_template() else {
            return;
        };
        let (text_end, call_end) = (
            self.text_turn_end(template),
            (!self.think_marks.answer.is_empty())
                .then(|| self.call_turn_end(template))
                .flatten(),
        );
        self.turn_end_id = text_end.or(self.turn_end_id);
        self.call_end_id = call_end;
        if let Some(id) = text_end
            && let Err(place) = self.stop_ids.binary_search(&id)
        {
            self.stop_ids.insert(place, id);
        }
    }

    fn check_fits(&self, rows: Option<u64>) -> Result<(), TextError> {
        match rows {
            Some(rows) if (self.vocab_size as u64) > rows => Err(self.problem(format!(
                "it has token ids up to {}, but config.json says `vocab_size` = {rows}; the two files belong to different models",
                self.vocab_size - 1
            ))),
            _ => Ok(()),
        }
    }

    /// Token ids of a text. Adds no special tokens, but recognises those in the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        Ok(self
            .encoding(text, |inner| inner.encode_fast(text, false))?
            .get_ids()
            .to_vec())
    }

    /// As [`Tokenizer::encode`] plus the special tokens of the post-processor, such as BOS: what
    /// other programs read if there is no chat template.
    pub fn encode_with_special_tokens(&self, text: &str) -> Result<Vec<u32>, TextError> {
        Ok(self
            .encoding(text, |inner| inner.encode_fast(text, true))?
            .get_ids()
            .to_vec())
    }

    /// Special tokens that the post-processor puts before a text, such as BOS.
    pub fn special_prefix(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = self.encoding(text, |inner| inner.encode_fast(text, true))?;
        let added = encoding.get_special_tokens_mask().iter();
        let count = added.take_while(|is_added| **is_added == 1).count();
        Ok(encoding.get_ids()[..count].to_vec())
    }

    /// Token ids of an answer as training target, with the family's answer header and the end of
    /// turn.
    pub fn answer_ids(&self, answer: &str) -> Result<Vec<u32>, TextError> {
        let ThinkMarks {
            answer: header,
            tokens,
            ..
        } = *self.think_marks;
        // Calls have their own headers.
        let has_header = tokens.iter().any(|token| answer.starts_with(token));
        let (mut ids, end) = if header.is_empty() {
            (self.encode(answer)?, self.turn_end_id)
        } else if has_header {
            let end = self.call_end_id.or(self.turn_end_id);
            (self.encode(answer)?, end)
        } else {
            (self.encode(&format!("{header}{answer}"))?, self.turn_end_id)
        };
        ids.extend(end);
        Ok(ids)
    }

    /// Longest text, in bytes, of `tokens` tokens: a longer one need not be encoded to know that it
    /// has more. `None` if unbounded.
    pub fn longest_text_bytes(&self, tokens: usize) -> Option<usize> {
        self.growth.longest_text_bytes(tokens)
    }

    fn encoding(
        &self,
        text: &str,
        encode: impl FnOnce(&tokenizers::Tokenizer) -> tokenizers::Result<tokenizers::Encoding>,
    ) -> Result<tokenizers::Encoding, TextError> {
        let encoded = self
            .growth
            .check_text(text)
            .and_then(|()| caught(|| encode(&self.inner)));
        encoded.map_err(|problem| self.problem(format!("cannot encode a text: {problem}")))
    }

    /// Decodes token ids; `skip_special` drops special tokens other than those of calls and think
    /// blocks. Invalid UTF-8 becomes U+FFFD.
    pub fn decode(&self, token_ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        let length = |id| self.inner.id_to_token(id).map_or(0, |token| token.len());
        let decode = |ids: &[u32], skip_special| caught(|| self.inner.decode(ids, skip_special));
        let decoded = self.growth.check_ids(token_ids, length).and_then(|()| {
            if !skip_special || !token_ids.iter().any(|id| self.text_ids.contains(id)) {
                return decode(token_ids, skip_special);
            }
            // A copy of all.
            let added = self.inner.get_added_tokens_decoder();
            let is_text = |id: &u32| {
                self.text_ids.contains(id) || added.get(id).is_none_or(|token| !token.special)
            };
            let texts: Vec<u32> = token_ids.iter().copied().filter(is_text).collect();
            decode(&texts, false)
        });
        decoded.map_err(|problem| self.problem(format!("cannot decode token ids: {problem}")))
    }

    /// Decodes an answer as sampled: all special tokens are text, so that none is hidden from a
    /// scorer, except the stop token that ends it.
    pub fn decode_answer(&self, token_ids: &[u32]) -> Result<String, TextError> {
        let text = match token_ids.split_last() {
            Some((last, text)) if self.stop_ids.contains(last) => text,
            _ => token_ids,
        };
        self.decode(text, false)
    }

    /// Renders a prompt up to where the answer begins. `tools`: a list in OpenAI's schema.
    ///
    /// # Errors
    /// No chat template, or one that rejects the messages.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Json>,
        options: &TemplateOptions,
    ) -> Result<String, TextError> {
        match &self.template {
            Template::Ready(template) => template.render(messages, tools, options),
            Template::Missing { path, remedy } => Err(TextError::NoTemplate {
                path: path.clone(),
                remedy,
            }),
            Template::Broken { path, problem } => Err(TextError::Template {
                path: path.clone(),
                problem: problem.clone(),
            }),
        }
    }

    /// The prompt used by training, evals, samples and clients alike: [`Tokenizer::render`], with
    /// `/no_think` appended to the system text if thinking is off and the template reads it but has
    /// no `enable_thinking`. Special tokens that a user or a tool spells become text: a space
    /// follows their first character.
    pub fn prompt(
        &self,
        turns: &[Message],
        tools: Option<&Json>,
        options: &TemplateOptions,
    ) -> Result<String, TextError> {
        self.prompt_until(turns, tools, options, turns.len())
    }

    /// As [`Tokenizer::prompt`], but texts of tools stay as they are in turns from `results` on.
    pub(super) fn prompt_until(
        &self,
        turns: &[Message],
        tools: Option<&Json>,
        options: &TemplateOptions,
        results: usize,
    ) -> Result<String, TextError> {
        let mut turns = Cow::Borrowed(turns);
        for index in 0..turns.len() {
            let role = turns[index].role.as_str();
            let is_own = ["assistant", "system", "developer"].contains(&role);
            let is_text = !is_own && (role != "tool" || index < results);
            let plain = is_text.then(|| self.without(&turns[index].content, |token| token.special));
            if let Some(Cow::Owned(plain)) = plain.transpose()? {
                turns.to_mut()[index].content = plain;
            }
        }
        match options.thinking == Thinking::Off && self.has_soft_switch() {
            true => self.render(&with_no_think(&turns), tools, options),
            false => self.render(&turns, tools, options),
        }
    }

    /// Token ids of [`Tokenizer::prompt`].
    ///
    /// # Errors
    /// As [`Tokenizer::prompt`] and [`Tokenizer::encode`].
    pub fn prompt_ids(
        &self,
        turns: &[Message],
        tools: Option<&Json>,
        options: &TemplateOptions,
    ) -> Result<Vec<u32>, TextError> {
        self.encode(&self.prompt(turns, tools, options)?)
    }

    /// Byte ranges, in order, of the vocabulary's added tokens (such as `<|im_start|>`) in a text.
    pub fn special_places(&self, text: &str) -> Result<Vec<std::ops::Range<usize>>, TextError> {
        self.places(text, |_| true)
    }

    /// Byte ranges of control tokens: special tokens, and others that the chat template writes.
    pub(super) fn control_places(
        &self,
        text: &str,
    ) -> Result<Vec<std::ops::Range<usize>>, TextError> {
        self.places(text, |token| self.is_control(token))
    }

    fn is_control(&self, token: &AddedToken) -> bool {
        let template = self.chat_template();
        token.special || template.is_some_and(|template| template.reads(token.content.trim()))
    }

    /// Byte ranges of those added tokens.
    fn places(
        &self,
        text: &str,
        is_found: impl Fn(&AddedToken) -> bool,
    ) -> Result<Vec<std::ops::Range<usize>>, TextError> {
        let mut added = self.inner.get_added_tokens_decoder();
        // Most texts have none and are not encoded. Some tokens absorb spaces, or are normalized.
        let folded = text.to_lowercase();
        added.retain(|_, token| {
            is_found(token) && folded.contains(&token.content.trim().to_lowercase())
        });
        if added.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.encoding(text, |inner| inner.encode(text, false))?;
        let places = encoding
            .get_ids()
            .iter()
            .zip(encoding.get_offsets())
            .filter(|(id, _)| added.contains_key(id));
        Ok(places.map(|(_, (start, end))| *start..*end).collect())
    }

    /// Neutralises control tokens in a text by a space after their first character.
    pub fn without_control_tokens(&self, text: &str) -> Result<String, TextError> {
        let plain = self.without(text, |token| self.is_control(token));
        plain.map(Cow::into_owned)
    }

    fn without<'t>(
        &self,
        text: &'t str,
        is_control: impl Fn(&AddedToken) -> bool,
    ) -> Result<Cow<'t, str>, TextError> {
        let mut plain = Cow::Borrowed(text);
        loop {
            let mut breaks = Vec::new();
            for place in self.places(&plain, &is_control)? {
                // Some tokens absorb the spaces around them.
                let blanks = plain[place.clone()].len() - plain[place.clone()].trim_start().len();
                let token = plain[place.clone()].trim();
                let first = token.chars().next().map_or(0, char::len_utf8);
                if first < token.len() {
                    breaks.push(place.start + blanks + first);
                }
            }
            if breaks.is_empty() {
                return Ok(plain);
            }
            for place in breaks.iter().rev() {
                plain.to_mut().insert(*place, ' ');
            }
        }
    }

    pub(super) fn refused_template(&self, problem: String) -> TextError {
        TextError::Template {
            path: self.path.clone(),
            problem,
        }
    }

    pub fn has_thinking_switch(&self) -> bool {
        matches!(&self.template, Template::Ready(template) if template.has_thinking_switch())
    }

    /// Fixes the time that the chat template reads, in UTC.
    pub fn set_time(&mut self, unix_ms: u64) {
        let time = i64::try_from(unix_ms).ok();
        let time = time.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        if let (Template::Ready(template), Some(time)) = (&mut self.template, time) {
            template.set_time(&time.to_zoned(jiff::tz::TimeZone::UTC));
        }
    }

    /// Note that the chat template writes the time; `name` is the model's.
    pub fn clock_note(&self, name: &str) -> Option<String> {
        self.template_reads(CLOCK).then(|| {
            format!(
                "the chat template of {name} writes the time ({CLOCK}): prompts of a run have that of its creation, in UTC"
            )
        })
    }

    pub fn template_reads(&self, variable: &str) -> bool {
        matches!(&self.template, Template::Ready(template) if template.reads(variable))
    }

    fn has_soft_switch(&self) -> bool {
        matches!(&self.template, Template::Ready(template) if template.has_soft_switch())
    }

    /// Whether the template supports tools; otherwise they go into the system message.
    pub fn takes_tools(&self) -> bool {
        matches!(&self.template, Template::Ready(template) if template.takes_tools())
    }

    pub fn call_format(&self) -> &'static CallFormat {
        self.call_format
    }

    pub fn call_format_of(&self, named: Option<&str>) -> &'static CallFormat {
        named
            .and_then(CallFormat::named)
            .unwrap_or(self.call_format)
    }

    pub fn think_marks(&self) -> &'static ThinkMarks {
        self.think_marks
    }

    /// Ascending.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Warning if nothing ends an answer before the limit; `name` is the model's.
    pub fn stop_note(&self, name: &str) -> Option<String> {
        self.stop_ids.is_empty().then(|| {
            format!(
                "model {name} has no stop token, so every answer runs to max_completion_tokens: write its `eos_token_id` into generation_config.json"
            )
        })
    }

    /// The end-of-turn token as training target: what the chat template writes after an answer,
    /// else the tokenizer's `eos_token`.
    pub fn turn_end_id(&self) -> Option<u32> {
        self.turn_end_id
    }

    /// Highest id + 1; the embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Bytes of each id in decoded text; empty for unused ids and special tokens other than those
    /// of calls and think blocks.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] for a decoder with an unknown byte encoding.
    pub fn token_bytes(&self) -> Result<Vec<Vec<u8>>, TextError> {
        token_bytes(&self.inner, self.vocab_size, &self.text_ids)
            .map_err(|problem| self.problem(problem))
    }

    /// `None` if there is none that compiles.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        match &self.template {
            Template::Ready(template) => Some(template),
            Template::Missing { .. } | Template::Broken { .. } => None,
        }
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    fn problem(&self, problem: String) -> TextError {
        TextError::Tokenizer {
            path: self.path.clone(),
            problem,
        }
    }
}

/// A model's chat templates for other programs, by file: with tools as text where they would drop
/// them ([`ChatTemplate::exported_source`]). Does not read the vocabulary.
///
/// # Errors
/// Files that cannot be read or parsed, a template that does not compile.
pub fn exported_templates(source: &ModelSource) -> Result<Vec<(&'static str, String)>, TextError> {
    let template = ChatTemplate::load(source, &tokenizer_config(source)?)?;
    let both = template.iter().flat_map(|template| {
        let tool_use = template.tool_use_source().map(str::to_owned);
        let default = template.exported_source().into_owned();
        [
            (super::template::TEMPLATE_FILE, Some(default)),
            (super::template::TOOL_TEMPLATE_FILE, tool_use),
        ]
    });
    Ok(both
        .filter_map(|(file, text)| Some((file, text?)))
        .collect())
}

const GENERATION: &str = "generation_config.json";

/// What a copy of a model has beside its weights, for other programs: [`ModelSource::companions`]
/// with [`exported_templates`], and a generation configuration that names every token at which this
/// program stops, also one that ends turns in the chat template alone.
///
/// # Errors
/// As [`Tokenizer::load`].
pub fn exported_files(source: &ModelSource) -> Result<Vec<(&'static str, Vec<u8>)>, TextError> {
    let mut changed = exported_templates(source)?;
    if source.exists("tokenizer.json") {
        changed.extend(
            generation_with_stops(source, &Tokenizer::load(source)?)?
                .map(|text| (GENERATION, text)),
        );
    }
    let mut files = source.companions()?;
    files.retain(|(name, _)| changed.iter().all(|(other, _)| other != name));
    files.extend(
        changed
            .into_iter()
            .map(|(name, text)| (name, text.into_bytes())),
    );
    Ok(files)
}

/// `None` if the files name all of them; their own come first.
fn generation_with_stops(
    source: &ModelSource,
    tokenizer: &Tokenizer,
) -> Result<Option<String>, TextError> {
    let mut generation = match optional_json(source, GENERATION)? {
        Json::Object(generation) => Json::Object(generation),
        _ => serde_json::json!({}),
    };
    let mut stops = named_stop_ids(&generation, &optional_json(source, "config.json")?);
    let named = stops.len();
    stops.extend(tokenizer.stop_ids());
    let mut seen = BTreeSet::new();
    stops.retain(|id| seen.insert(*id));
    generation["eos_token_id"] = serde_json::json!(stops);
    Ok((stops.len() > named).then(|| format!("{generation:#}\n")))
}

/// A model's `tokenizer.json` including tokens of its other files.
///
/// # Errors
/// [`TextError::Tokenizer`] if it is missing or damaged.
pub fn tokenizer_json(source: &ModelSource) -> Result<Cow<'_, [u8]>, TextError> {
    let (config, model) = (
        tokenizer_config(source)?,
        optional_json(source, "config.json")?,
    );
    let path = source.label("tokenizer.json");
    match backend(source, &config, &model, &path)? {
        (_, _, false) => vocabulary(source),
        (inner, _, true) => inner
            .to_string(false)
            .map(|text| Cow::Owned(text.into_bytes()))
            .map_err(|error| TextError::Tokenizer {
                path,
                problem: error.to_string(),
            }),
    }
}

/// The tokenizer with the tokens of the other files, and whether these changed it. Drops tokens
/// beyond the model's embedding.
fn backend(
    source: &ModelSource,
    config: &Json,
    model: &Json,
    path: &str,
) -> Result<(tokenizers::Tokenizer, ExpansionBound, bool), TextError> {
    let (mut inner, mut growth) = parse(&vocabulary(source)?, path)?;
    let known: Vec<_> = inner.get_added_tokens_decoder().into_iter().collect();
    let rows = [model, &model["text_config"]]
        .into_iter()
        .find_map(|config| config["vocab_size"].as_u64());
    let tokens = added_tokens(config, &optional_json(source, "added_tokens.json")?, &known);
    let is_changed = growth
        .add_tokens(&mut inner, tokens, rows)
        .map_err(|problem| TextError::Tokenizer {
            path: source.label("tokenizer_config.json"),
            problem,
        })?;
    Ok((inner, growth, is_changed))
}

fn vocabulary(source: &ModelSource) -> Result<Cow<'_, [u8]>, TextError> {
    if !source.exists("tokenizer.json") && source.exists("tekken.json") {
        return Err(TextError::Tokenizer {
            path: source.label("tokenizer.json"),
            problem: "no such file, only Mistral's tekken.json; write it with transformers 5 and mistral-common: `PreTrainedTokenizerFast.from_pretrained(FOLDER).save_pretrained(FOLDER)`"
                .to_owned(),
        });
    }
    if !source.exists("tokenizer.json")
        && (source.exists("tokenizer.model") || source.exists("vocab.json"))
    {
        return Err(TextError::Tokenizer {
            path: source.label("tokenizer.json"),
            problem: "no such file, only an older tokenizer format; load the model's tokenizer with transformers and call `save_pretrained(FOLDER)`, which writes it"
                .to_owned(),
        });
    }
    Ok(source.read("tokenizer.json")?)
}

fn parse(bytes: &[u8], path: &str) -> Result<(tokenizers::Tokenizer, ExpansionBound), TextError> {
    ExpansionBound::build(bytes).map_err(|problem| TextError::Tokenizer {
        path: path.to_owned(),
        problem,
    })
}

/// `eos_token_id`, which is one id, several, or null: the generation configuration overrides the
/// model's.
fn named_stop_ids(generation: &Json, model: &Json) -> Vec<u32> {
    let id = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let named = [generation, model, &model["text_config"]]
        .into_iter()
        .map(|file| &file["eos_token_id"])
        .find(|ids| !ids.is_null());
    match named {
        Some(Json::Array(several)) => several.iter().filter_map(id).collect(),
        one => one.and_then(id).into_iter().collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
