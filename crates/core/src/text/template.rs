//! Renders chat templates as transformers does: Jinja with trimmed blocks, Python's methods on
//! strings, lists and mappings.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

use super::limits::{BoundedPrompt, MAX_PROMPT_BYTES, MAX_STEPS, caught};
use super::python_repr::python_str;
use super::template_messages::{json_messages, message_value};
use super::{
    CallFormat, Message, TemplateOptions, TextError, ThinkMarks, Thinking, limits, python_json,
    template_source,
};
use crate::hub::ModelSource;
use crate::task::TEMPLATE_KWARGS;

/// Function of templates that formats the present time.
pub const CLOCK: &str = "strftime_now";
const NAME: &str = "chat_template";
/// The variable of [`Thinking`].
pub(super) const SWITCH: &str = "enable_thinking";
/// The name of [`with_tools_as_text`].
const AS_TEXT: &str = "chat_template with tools as text";
const TOOLS_AS_TEXT: &str = include_str!("tools_as_text.jinja");
pub(super) const TEMPLATE_FILE: &str = "chat_template.jinja";
const USUAL_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// The only other template that transformers selects by itself.
pub(super) const TOOL_TEMPLATE_FILE: &str = "additional_chat_templates/tool_use.jinja";

pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special_tokens: Vec<(String, String)>,
    path: String,
    has_switch: bool,
    has_soft_switch: bool,
    takes_tools: bool,
    /// The template for prompts with tools, if the model has a separate one.
    tool_use: Option<Box<ChatTemplate>>,
    /// Error for prompts without tools, if the model has no template for them.
    needs_tools: Option<String>,
}

impl ChatTemplate {
    /// Compiles `source`. `special_tokens`: variables such as (`eos_token`, `<|im_end|>`); `path`:
    /// the template's name in messages.
    ///
    /// # Errors
    /// [`TextError::Template`] with the line of the error.
    pub fn new(
        source: &str,
        special_tokens: Vec<(String, String)>,
        path: &str,
    ) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| problem(path, &error))?);
        limits::bound(&mut environment);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_formatter(|output, _, value| {
            limits::count_printed(value)?;
            match value.as_str() {
                Some(text) => output.write_str(text)?,
                None => output.write_str(&python_str(value))?,
            }
            Ok(())
        });
        environment.add_filter("tojson", python_json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function(CLOCK, strftime_now);
        let refuse = |problem: String| TextError::Template {
            path: path.to_owned(),
            problem,
        };
        let prepared = template_source::prepare(source).map_err(refuse)?;
        caught(|| environment.add_template_owned(NAME, prepared))
            .map_err(|error| problem(path, &error))?;
        let takes_tools = source.contains("tools");
        if !takes_tools {
            let prepared = template_source::prepare(&with_tools_as_text(source)).map_err(refuse)?;
            caught(|| environment.add_template_owned(AS_TEXT, prepared))
                .map_err(|error| problem(path, &error))?;
        }
        Ok(Self {
            environment,
            source: source.to_owned(),
            special_tokens,
            path: path.to_owned(),
            has_switch: source.contains(SWITCH),
            has_soft_switch: source.contains("/no_think") && !source.contains(SWITCH),
            takes_tools,
            tool_use: None,
            needs_tools: None,
        })
    }

    /// Loads a model's template: `chat_template.jinja`, else `chat_template` of
    /// `tokenizer_config.json`. Of several, `default`, and `tool_use` for prompts with tools, as in
    /// transformers. `None` if there is none.
    ///
    /// # Errors
    /// Files that cannot be read or parsed, a template that does not compile.
    pub(super) fn load(
        source: &ModelSource,
        tokenizer_config: &Json,
    ) -> Result<Option<Self>, TextError> {
        let path = source.label("tokenizer_config.json");
        let refused = |problem| TextError::Template {
            path: path.clone(),
            problem,
        };
        let named = named_templates(tokenizer_config).map_err(refused)?;
        let of_config = |name: &str| {
            let (_, text) = named.iter().rev().find(|(known, _)| known == name)?;
            Some((path.clone(), text.clone()))
        };
        let of_file = |file: &str| match source.exists(file) {
            true => Ok(Some((source.label(file), source.read_text(file)?))),
            false => Ok::<_, TextError>(None),
        };
        // A file overrides the configuration.
        let default = of_file(TEMPLATE_FILE)?;
        let tool_use = of_file(TOOL_TEMPLATE_FILE)?;
        let is_file = default.is_some() || tool_use.is_some();
        let default = default.or_else(|| of_config("default"));
        let tool_use = tool_use.or_else(|| of_config("tool_use").filter(|_| !is_file));
        let compiled = |(path, text): (String, String)| {
            Self::new(&text, special_tokens(tokenizer_config), &path)
        };
        let tool_use = tool_use.map(compiled).transpose()?;
        match (default, tool_use) {
            (Some(default), tool_use) => Ok(Some(Self {
                tool_use: tool_use.map(Box::new),
                ..compiled(default)?
            })),
            (None, None) if named.is_empty() => Ok(None),
            (None, tool_use) => {
                let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
                let problem = format!(
                    "`chat_template` has no template named `default` (it has {}); name the one to use `default`",
                    names.join(", ")
                );
                match tool_use {
                    Some(template) => Ok(Some(Self {
                        needs_tools: Some(problem),
                        ..template
                    })),
                    None => Err(refused(problem)),
                }
            }
        }
    }

    fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.tool_use.as_deref())
    }

    pub fn tool_use_source(&self) -> Option<&str> {
        self.tool_use.as_deref().map(Self::source)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The source for other programs, which drop tools where a template does not support them: one
    /// that writes them as this program does.
    pub fn exported_source(&self) -> Cow<'_, str> {
        match self.takes_tools() {
            true => Cow::Borrowed(&self.source),
            false => Cow::Owned(with_tools_as_text(&self.source)),
        }
    }

    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, token)| token.as_str())
    }

    pub fn has_thinking_switch(&self) -> bool {
        self.each().any(|template| template.has_switch)
    }

    /// Whether only `/no_think` in the system text disables reasoning: it reads that, and has no
    /// `enable_thinking`.
    pub fn has_soft_switch(&self) -> bool {
        !self.has_thinking_switch() && self.each().any(|template| template.has_soft_switch)
    }

    pub fn takes_tools(&self) -> bool {
        self.each().any(|template| template.takes_tools)
    }

    /// Hermes's if tools, calls and results are text.
    pub(super) fn call_format(&self) -> &'static CallFormat {
        if let Some(tool_use) = &self.tool_use {
            tool_use.call_format()
        } else if self.takes_tools {
            CallFormat::for_template(&self.source)
        } else {
            CallFormat::hermes()
        }
    }

    pub(super) fn think_marks(&self) -> &'static ThinkMarks {
        let sources: String = self.each().map(Self::source).collect();
        ThinkMarks::for_template(&sources)
    }

    /// Renders the prompt up to where the answer begins. `tools`: a list in OpenAI's schema; a
    /// template that does not support it gets tools, calls and results as text.
    ///
    /// # Errors
    /// [`TextError::Template`], also if the template rejects the messages.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Json>,
        options: &TemplateOptions,
    ) -> Result<String, TextError> {
        if let Some(name) = options.kwargs.keys().find(|name| !self.reads(name)) {
            let problem = format!(
                "the chat template does not read `{name}`: remove it from `{TEMPLATE_KWARGS}`"
            );
            return Err(self.refused(problem));
        }
        let kwargs = options
            .kwargs
            .iter()
            .map(|(name, value)| (name.clone(), python_json::value_of(value)));
        let variables = std::iter::once(switch(options.thinking)).chain(kwargs);
        self.render_messages(messages, tools, variables)
    }

    /// [`ChatTemplate::render`] of a finished conversation, without a generation prompt.
    pub(super) fn render_finished(
        &self,
        messages: &[Message],
        tools: Option<&Json>,
    ) -> Result<String, TextError> {
        let prompted = ("add_generation_prompt".to_owned(), Value::from(false));
        self.render_messages(messages, tools, [switch(Thinking::Off), prompted])
    }

    fn render_messages(
        &self,
        messages: &[Message],
        tools: Option<&Json>,
        variables: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<String, TextError> {
        match (&self.tool_use, &self.needs_tools, tools) {
            (Some(tool_use), _, Some(_)) => {
                return tool_use.render_messages(messages, tools, variables);
            }
            (_, Some(problem), None) => return Err(self.refused(problem.clone())),
            _ => {}
        }
        let has_calls =
            |message: &Message| message.role == "tool" || !message.tool_calls().is_empty();
        let name = match tools.is_some() || messages.iter().any(has_calls) {
            true if !self.takes_tools => AS_TEXT,
            _ => NAME,
        };
        let tools = tools.map_or(Value::from(()), python_json::value_of);
        let messages = messages.iter().map(message_value).collect();
        self.render_template(name, messages, tools, variables)
    }

    fn refused(&self, problem: String) -> TextError {
        TextError::Template {
            path: self.path.clone(),
            problem,
        }
    }

    pub fn reads(&self, variable: &str) -> bool {
        self.each()
            .any(|template| template.source.contains(variable))
    }

    /// As [`ChatTemplate::render`] with arbitrary messages and tools; without `thinking` the
    /// variable is undefined.
    pub fn render_json(
        &self,
        messages: &Json,
        tools: &Json,
        thinking: Option<Thinking>,
    ) -> Result<String, TextError> {
        self.render_values(
            json_messages(messages),
            python_json::value_of(tools),
            thinking.map(switch),
        )
    }

    /// `options`: further variables, which override those of the same name.
    pub(super) fn render_values(
        &self,
        messages: Value,
        tools: Value,
        options: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<String, TextError> {
        self.render_template(NAME, messages, tools, options)
    }

    fn render_template(
        &self,
        name: &str,
        messages: Value,
        tools: Value,
        options: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<String, TextError> {
        let mut variables: Vec<(String, Value)> = self
            .special_tokens
            .iter()
            .map(|(name, token)| (name.clone(), Value::from(token.as_str())))
            .collect();
        variables.push(("messages".to_owned(), messages));
        variables.push(("tools".to_owned(), tools));
        variables.push(("documents".to_owned(), Value::from(())));
        variables.push(("add_generation_prompt".to_owned(), Value::from(true)));
        variables.extend(options);
        let mut prompt = BoundedPrompt::default();
        let outcome = caught(|| {
            let template = self.environment.get_template(name)?;
            template.render_captured_to(Value::from_pairs(variables), &mut prompt)?;
            Ok(())
        });
        let refuse = |problem: String| self.refused(problem);
        if prompt.full {
            return Err(refuse(format!(
                "chat template: the prompt becomes longer than {} MiB",
                MAX_PROMPT_BYTES >> 20
            )));
        }
        outcome.map_err(|error| problem(&self.path, &error))?;
        String::from_utf8(prompt.bytes)
            .map_err(|error| refuse(format!("chat template: the prompt is not UTF-8: {error}")))
    }
}

impl ChatTemplate {
    /// Fixes the time of `strftime_now`.
    pub(super) fn set_time(&mut self, time: &jiff::Zoned) {
        let fixed = time.clone();
        self.environment
            .add_function(CLOCK, move |format: &str| strftime(format, &fixed));
        if let Some(other) = &mut self.tool_use {
            other.set_time(time);
        }
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ChatTemplate")
            .field("path", &self.path)
            .field("has_switch", &self.has_switch)
            .finish_non_exhaustive()
    }
}

/// The template after one that makes tools, calls and results text of the turns, in Qwen's wording.
fn with_tools_as_text(source: &str) -> String {
    format!("{TOOLS_AS_TEXT}{source}")
}

fn switch(thinking: Thinking) -> (String, Value) {
    (SWITCH.to_owned(), Value::from(thinking == Thinking::On))
}

/// Templates of a tokenizer's configuration by name; a single one is `default`.
fn named_templates(tokenizer_config: &Json) -> Result<Vec<(String, String)>, String> {
    let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
    match tokenizer_config.get("chat_template") {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::String(text)) => Ok(vec![("default".to_owned(), text.clone())]),
        Some(Json::Array(named)) => named
            .iter()
            .map(|entry| {
                let named = text(entry.get("name")).zip(text(entry.get("template")));
                named.ok_or_else(|| {
                    format!(
                        "`chat_template` has {}, expected a list of {{\"name\", \"template\"}}",
                        crate::format::shortened(&entry.to_string(), 60)
                    )
                })
            })
            .collect(),
        Some(other) => Err(format!(
            "`chat_template` = {other}, expected text or a list of named templates"
        )),
    }
}

/// Tokens that transformers passes to the template: every `*_token` with text, and those of
/// `extra_special_tokens`.
pub(super) fn special_tokens(tokenizer_config: &Json) -> Vec<(String, String)> {
    let named = |fields: &Json, is_token: fn(&str) -> bool| {
        let fields = fields.as_object().into_iter().flatten();
        let tokens = fields.filter(|(name, _)| is_token(name));
        let tokens =
            tokens.filter_map(|(name, token)| Some((name.clone(), token_text(token)?.to_owned())));
        tokens.collect::<Vec<_>>()
    };
    let mut tokens = named(tokenizer_config, |name| name.ends_with("_token"));
    // New ones get their ids in this order.
    let place = |name: &str| USUAL_TOKENS.iter().position(|usual| *usual == name);
    tokens.sort_by_key(|(name, _)| place(name).unwrap_or(USUAL_TOKENS.len()));
    tokens.extend(named(&tokenizer_config["extra_special_tokens"], |_| true));
    tokens
}

/// A special token's text: plain, or `content` of an object.
pub(super) fn token_text(value: &Json) -> Option<&str> {
    value
        .as_str()
        .or_else(|| value.get("content").and_then(Json::as_str))
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    let message: String = message.chars().take(1_000).collect();
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("the chat template refuses these messages: {message}"),
    ))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    // Times beyond the year 9999 have no date.
    let now =
        jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(jiff::Timestamp::MAX);
    strftime(format, &now.to_zoned(jiff::tz::TimeZone::system()))
}

fn strftime(format: &str, time: &jiff::Zoned) -> Result<String, Error> {
    // As in Python with the C locale.
    let format = format
        .replace("%c", "%a %b %e %H:%M:%S %Y")
        .replace("%x", "%m/%d/%y")
        .replace("%X", "%H:%M:%S");
    jiff::fmt::strtime::format(&format, time).map_err(|error| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now({format:?}): {error}"),
        )
    })
}

fn problem(path: &str, error: &Error) -> TextError {
    let own_line = |line: usize| match error.name() {
        Some(AS_TEXT) => line.checked_sub(TOOLS_AS_TEXT.lines().count()),
        _ => Some(line),
    };
    let place = error
        .line()
        .and_then(own_line)
        .filter(|line| *line > 0)
        .map(|line| format!(" (line {line} of the template)"))
        .unwrap_or_default();
    if error.kind() == ErrorKind::OutOfFuel {
        let problem = format!(
            "chat template: more than {MAX_STEPS} steps for one prompt{place}; it loops for too long, or the conversation is too long"
        );
        return TextError::Template {
            path: path.to_owned(),
            problem,
        };
    }
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    TextError::Template {
        path: path.to_owned(),
        problem: format!("chat template: {detail}{place}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
