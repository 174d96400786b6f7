//! From messages to token ids and back: chat template, tokenizer, stop ids.

mod added_tokens;
mod call_format;
pub mod catch_panic;
mod json_files;
mod limits;
mod ollama;
#[cfg(test)]
mod published_templates;
mod python_json;
mod python_methods;
mod python_repr;
mod template;
mod template_messages;
mod template_source;
mod think_marks;
mod token_bytes;
mod tokenizer;
mod tokenizer_limits;
mod tools;
mod train_bpe;
mod transcript;
mod turn_end;

use serde::{Deserialize, Serialize};

pub use call_format::{CALL_FORMATS, CallFormat};
pub use limits::MAX_PROMPT_BYTES;
pub use ollama::Modelfile;
pub(crate) use python_json::value_of as json_value;
pub use template::{CLOCK, ChatTemplate};
pub use think_marks::{THINK_MARKS, ThinkMarks};
pub use tokenizer::{Tokenizer, exported_files, exported_templates, tokenizer_json};
pub use tools::{CallSpacing, openai_tools};
pub use train_bpe::{
    CHAT_TEMPLATE, QWEN2_WORDS, TOOL_CHAT_TEMPLATE, TokenizerFiles, train_tokenizer,
};
pub use transcript::{TemplateInput, Transcript, check_continuation};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool` or `developer`.
    pub role: String,
    /// Empty if the turn only calls tools.
    pub content: String,
    /// Other fields as the template sees them: `tool_calls`, `tool_call_id`, `name`.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
    /// Field order as written, without nulls. Empty: `role`, `content`, then the others.
    #[serde(skip)]
    pub field_order: Vec<String>,
}

/// Field order does not matter.
impl PartialEq for Message {
    fn eq(&self, another: &Self) -> bool {
        (&self.role, &self.content, &self.other)
            == (&another.role, &another.content, &another.other)
    }
}

impl Eq for Message {}

impl Message {
    /// A text-only turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            other: serde_json::Map::new(),
            field_order: Vec::new(),
        }
    }

    /// Templates see the fields in the order of `written`, and no content if it is null or missing
    /// there.
    pub fn written_as(mut self, written: &serde_json::Map<String, serde_json::Value>) -> Self {
        let fields = written.iter().filter(|(_, value)| !value.is_null());
        self.field_order = fields.map(|(name, _)| name.clone()).collect();
        let usual = ["role", "content"].into_iter();
        if self
            .field_order
            .iter()
            .map(String::as_str)
            .eq(usual.chain(self.other.keys().map(String::as_str)))
        {
            self.field_order = Vec::new();
        }
        self
    }

    /// Calls in OpenAI's form or as `{"name", "arguments"}`.
    pub fn tool_calls(&self) -> &[serde_json::Value] {
        self.other
            .get("tool_calls")
            .and_then(serde_json::Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

/// Whether the model should reason before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// `enable_thinking` true; the template decides.
    On,
    /// `enable_thinking` false: the template closes the think block before the answer.
    Off,
}

/// Input of a chat template besides the conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateOptions {
    pub thinking: Thinking,
    /// Further variables, such as `reasoning_effort`.
    pub kwargs: serde_json::Map<String, serde_json::Value>,
}

impl TemplateOptions {
    /// `source` with these variables whatever a server passes: by default most turn thinking on.
    pub fn pinned(&self, source: &str) -> String {
        let thinking = (self.thinking == Thinking::Off)
            .then(|| (template::SWITCH, serde_json::Value::from(false)));
        let kwargs = self.kwargs.iter();
        let kwargs = kwargs.map(|(name, value)| (name.as_str(), value.clone()));
        let sets: String = thinking
            .into_iter()
            .chain(kwargs)
            .filter(|(name, _)| source.contains(name))
            .map(|(name, value)| format!("{{%- set {name} = {value} %}}"))
            .collect();
        match sets.is_empty() {
            true => source.to_owned(),
            // A block would take a line break after it.
            false => format!("{sets}{{{{ '' }}}}{source}"),
        }
    }
}

impl From<Thinking> for TemplateOptions {
    fn from(thinking: Thinking) -> Self {
        Self {
            thinking,
            kwargs: serde_json::Map::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    #[error("{path}: {problem}")]
    Tokenizer { path: String, problem: String },
    #[error("{path}: no chat template, so messages cannot become a prompt; {remedy}")]
    NoTemplate { path: String, remedy: &'static str },
    /// The template does not compile or rejects the messages.
    #[error("{path}: {problem}")]
    Template { path: String, problem: String },
    /// A row's tools are malformed, or the task's tools fail to start.
    #[error("{0}")]
    Tools(String),
    /// Invalid tokenizer training parameters.
    #[error("{0}")]
    Train(String),
}

/// Joins the task's `system` text to the row's system turn by a blank line; then the other turns.
pub fn conversation(system: Option<&str>, messages: &[Message]) -> Vec<Message> {
    let (own, rest) = match messages {
        [first, rest @ ..] if first.role == "system" => (Some(first), rest),
        _ => (None, messages),
    };
    let parts: Vec<&str> = [system, own.map(|turn| turn.content.as_str())]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    let text = parts.join("\n\n");
    let turn = (!text.is_empty() || own.is_some()).then(|| Message {
        content: text,
        ..own.cloned().unwrap_or_else(|| Message::new("system", ""))
    });
    turn.into_iter().chain(rest.iter().cloned()).collect()
}

fn with_no_think(turns: &[Message]) -> Vec<Message> {
    const SWITCH: &str = "/no_think";
    let (own, rest) = match turns {
        [first, rest @ ..] if first.role == "system" => (first.content.as_str(), rest),
        _ => ("", turns),
    };
    let text = match own {
        own if own.contains(SWITCH) => own.to_owned(),
        "" => SWITCH.to_owned(),
        own => format!("{own} {SWITCH}"),
    };
    std::iter::once(Message::new("system", text))
        .chain(rest.iter().cloned())
        .collect()
}

/// Byte offset of an incomplete `marker` at the end of a growing text; its length if there is none.
pub fn unfinished(text: &str, marker: &str) -> usize {
    let nearest = text.len().saturating_sub(marker.len());
    let begins = |at: &usize| text.get(*at..).is_some_and(|end| marker.starts_with(end));
    (nearest..text.len()).find(begins).unwrap_or(text.len())
}

/// JSON on one line with a space after each comma and colon, the most common form in training data.
///
/// # Errors
/// [`TextError::Template`] for a document that cannot be written.
pub fn json_line(json: &serde_json::Value) -> Result<String, TextError> {
    python_json::line(json).map_err(|error| TextError::Template {
        path: "JSON".to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
        turns
            .iter()
            .map(|(role, content)| Message::new(*role, *content))
            .collect()
    }

    type Turns<'a> = &'a [(&'a str, &'a str)];

    #[test]
    fn the_task_speaks_first_and_the_row_after_a_blank_line() {
        let check = |system: Option<&str>, turns: Turns, expected: Turns| {
            assert_eq!(
                conversation(system, &messages(turns)),
                messages(expected),
                "{system:?} {turns:?}"
            );
        };
        check(None, &[("user", "u")], &[("user", "u")]);
        check(
            Some("s"),
            &[("user", "u")],
            &[("system", "s"), ("user", "u")],
        );
        check(
            Some("s"),
            &[("system", "own"), ("user", "u")],
            &[("system", "s\n\nown"), ("user", "u")],
        );
        check(
            None,
            &[("system", "own"), ("user", "u")],
            &[("system", "own"), ("user", "u")],
        );
        check(
            None,
            &[("system", ""), ("user", "u")],
            &[("system", ""), ("user", "u")],
        );
        check(Some(""), &[("user", "u")], &[("user", "u")]);
        let late = [("user", "u"), ("system", "late")];
        check(
            Some("s"),
            &late,
            &[("system", "s"), ("user", "u"), ("system", "late")],
        );
        check(Some("s"), &[], &[("system", "s")]);
    }

    #[test]
    fn the_soft_switch_is_said_once() {
        let check = |turns: Turns, expected: &str| {
            let switched = with_no_think(&messages(turns));
            assert_eq!(
                switched,
                messages(&[("system", expected), ("user", "u")]),
                "{turns:?}"
            );
        };
        check(&[("user", "u")], "/no_think");
        check(&[("system", ""), ("user", "u")], "/no_think");
        check(&[("system", "s"), ("user", "u")], "s /no_think");
        check(&[("system", "/no_think s"), ("user", "u")], "/no_think s");
    }
}
