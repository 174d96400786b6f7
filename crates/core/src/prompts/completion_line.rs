//! Lines of completion files of this and other programs.

use std::borrow::Cow;

use serde_json::Value;

use crate::api_client::message_text;
use crate::format::{did_you_mean, shortened};
use crate::score::json::{self, Kind, Member};
use crate::task::PromptSet;

/// A line of a completion file: `{"completion": ..., "prompt_id": ...}` of this program, `output`
/// and `input` of verl's rollouts, `completion` and `prompt` of TRL's tables, or a result of an
/// OpenAI batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletionLine {
    pub completion: String,
    pub prompt_id: Option<String>,
    /// The prompt's set, if its id is in several.
    pub set: Option<PromptSet>,
    pub prompt: Option<ForeignPrompt>,
}

/// A prompt as another program wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForeignPrompt {
    /// The last message, or the conversation as a chat template renders it.
    Text(String),
    Turns(Vec<(String, String)>),
}

impl ForeignPrompt {
    fn read(name: &str, value: Value) -> Result<Self, String> {
        let Value::Array(messages) = &value else {
            return answer(name, value).map(Self::Text);
        };
        let turn = |message: &Value| {
            let role = message["role"].as_str().unwrap_or_default();
            let content = message_text(message).ok_or_else(|| wrong(name, "messages", &value))?;
            Ok((role.to_owned(), content))
        };
        messages
            .iter()
            .map(turn)
            .collect::<Result<_, _>>()
            .map(Self::Turns)
    }

    /// The text, or the last message.
    pub(super) fn last_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Turns(turns) => turns.last().map_or("", |(_, content)| content),
        }
    }
}

impl CompletionLine {
    pub fn of_row(prompt_id: &str) -> Self {
        Self {
            completion: String::new(),
            prompt_id: Some(prompt_id.to_owned()),
            set: None,
            prompt: None,
        }
    }

    /// Parses a line.
    ///
    /// # Errors
    /// A sentence without the line's number.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|_| refusal(line))?;
        let escaped;
        let mut fields = match Fields::read(text) {
            Some(fields) => fields,
            None => {
                escaped = half_pairs_as_text(text);
                Fields::read(&escaped).ok_or_else(|| refusal(escaped.as_bytes()))?
            }
        };
        // Tables of other programs may have a column of this name.
        if fields.get("custom_id").is_some() && fields.get("completion").is_none() {
            return parse_batch_line(&fields);
        }
        let set = match fields.get("set") {
            // Tables of other programs may have a column of this name.
            Some(set) if !set.is_null() && fields.get("prompt_id").is_some() => {
                let found = set.as_str().and_then(PromptSet::from_name);
                Some(found.ok_or_else(|| wrong("set", "`train`, `eval` or `test`", set))?)
            }
            _ => None,
        };
        if fields.get("completion").is_none()
            && fields.get("output").is_some()
            && let Some(prompt) = fields.take("input")
        {
            return Ok(Self {
                completion: answer("output", fields.take("output").unwrap_or_default())?,
                prompt_id: None,
                set,
                prompt: Some(ForeignPrompt::read("input", prompt)?),
            });
        }
        let Some(completion) = fields.take("completion") else {
            let names = fields.0.iter().map(|(name, _)| &**name);
            return Err(format!(
                "missing `completion`{}",
                did_you_mean("completion", names)
            ));
        };
        let prompt = fields
            .take("prompt")
            .filter(|prompt| !prompt.is_null())
            .map(|prompt| ForeignPrompt::read("prompt", prompt))
            .transpose()?;
        Ok(Self {
            completion: answer("completion", completion)?,
            prompt_id: match fields.take("prompt_id") {
                None | Some(Value::Null) => None,
                Some(Value::String(id)) => Some(id),
                Some(Value::Number(id)) => Some(id.to_string()),
                Some(other) => return Err(wrong("prompt_id", "a string", &other)),
            },
            set,
            prompt,
        })
    }
}

/// The fields of a line. There are few: a map would take longer to build than they take to find.
/// Those that nobody reads are null, such as long lists of token ids.
struct Fields<'l>(Vec<(Cow<'l, str>, Value)>);

/// Fields that are read.
const READ_FIELDS: [&str; 9] = [
    "completion",
    "custom_id",
    "error",
    "input",
    "output",
    "prompt",
    "prompt_id",
    "response",
    "set",
];

impl<'l> Fields<'l> {
    /// `None` unless the line is a JSON object.
    fn read(line: &'l str) -> Option<Self> {
        let Kind::Object(object) = json::parse(line, 0).ok()?.root.kind else {
            return None;
        };
        let field = |member: Member<'l>| {
            let value = match member.value.kind {
                Kind::String(text) => Value::String(text.into_owned()),
                _ if !READ_FIELDS.contains(&&*member.key) => Value::Null,
                _ => serde_json::from_str(&line[member.value.start..member.value.end]).ok()?,
            };
            Some((member.key, value))
        };
        let fields = object.into_members().into_iter().map(field);
        fields.collect::<Option<_>>().map(Self)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let named = self.0.iter().find(|(key, _)| key == name);
        named.map(|(_, value)| value)
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let place = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(place).1)
    }
}

/// Why a line has no fields.
fn refusal(line: &[u8]) -> String {
    match serde_json::from_slice::<Value>(line) {
        Ok(_) => "not a JSON object; a line is {\"completion\":\"…\"}".to_owned(),
        Err(error) => format!(
            "not JSON at column {}: `{}`; a line is a JSON object, {{\"completion\":\"…\"}}",
            error.column(),
            shortened(&String::from_utf8_lossy(line), 60)
        ),
    }
}

/// A text, or the last of TRL's messages.
fn answer(name: &str, value: Value) -> Result<String, String> {
    let found = match &value {
        Value::Array(messages) => messages.last().and_then(message_text),
        _ => None,
    };
    match (found, value) {
        (Some(text), _) | (None, Value::String(text)) => Ok(text),
        (None, value) => Err(wrong(name, "a string", &value)),
    }
}

fn wrong(name: &str, kind: &str, found: &Value) -> String {
    format!(
        "`{name}` must be {kind}, not {}",
        shortened(&found.to_string(), 40)
    )
}

/// Parses OpenAI's batch output; `custom_id` is the prompt's id.
fn parse_batch_line(fields: &Fields<'_>) -> Result<CompletionLine, String> {
    let prompt_id = fields
        .get("custom_id")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let response = fields.get("response").unwrap_or(&Value::Null);
    let choice = &response["body"]["choices"][0];
    let said =
        message_text(&choice["message"]).or_else(|| choice["text"].as_str().map(str::to_owned));
    match (said, prompt_id) {
        (Some(completion), Some(prompt_id)) => Ok(CompletionLine {
            completion,
            prompt_id: Some(prompt_id),
            set: None,
            prompt: None,
        }),
        (Some(_), None) => Err("`custom_id` must be a string: the prompt's id".to_owned()),
        (None, _) => {
            let status = response["status_code"]
                .as_u64()
                .map_or_else(String::new, |status| format!("status {status}, "));
            let error = fields
                .get("error")
                .filter(|error| !error.is_null())
                .unwrap_or(&response["body"]["error"]);
            let error = shortened(&error.to_string(), 200);
            Err(format!(
                "the batch has no completion here ({status}error {error}): leave the line out, or ask again"
            ))
        }
    }
}

/// Escapes each lone surrogate `\ud800` as `\\ud800`: no text contains that character, so that the
/// completion with it is unparsable, but other lines keep their scores.
fn half_pairs_as_text(line: &str) -> String {
    let unit = |at: usize| {
        let digits = line.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut text = String::with_capacity(line.len() + 8);
    let mut at = 0;
    while let Some(found) = line
        .get(at..)
        .and_then(|rest| rest.find('\\'))
        .map(|found| at + found)
    {
        text.push_str(&line[at..found]);
        let length = match (unit(found), unit(found + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(_), _) => 6,
            (None, _) => 1 + line[found + 1..].chars().next().map_or(0, char::len_utf8),
        };
        at = found + length;
        let alone = length == 6 && matches!(unit(found), Some(0xD800..=0xDFFF));
        // After a backslash it would read as an escaped backslash.
        match alone {
            true if text.ends_with("\\\\") => text.push('\u{fffd}'),
            true => text.extend(["\\", &line[found..at]]),
            false => text.push_str(&line[found..at]),
        }
    }
    text + &line[at..]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_programs_are_completions() {
        let check =
            |line: &str, completion: &str, prompt_id: Option<&str>, prompt: Option<&str>| {
                let found = CompletionLine::read(line.as_bytes());
                let [prompt_id, prompt] = [prompt_id, prompt].map(|text| text.map(str::to_owned));
                let prompt = prompt.map(|text| match line.contains("\"role\": \"user\"") {
                    true => ForeignPrompt::Turns(vec![("user".to_owned(), text)]),
                    false => ForeignPrompt::Text(text),
                });
                assert_eq!(
                    found,
                    Ok(CompletionLine {
                        completion: completion.to_owned(),
                        prompt_id,
                        set: None,
                        prompt
                    }),
                    "{line}"
                );
            };
        check(
            r#"{"completion": "a", "prompt_id": "p"}"#,
            "a",
            Some("p"),
            None,
        );
        check(
            r#"{"input": "ask", "output": "a", "gts": "x", "score": 0.5, "step": 3}"#,
            "a",
            None,
            Some("ask"),
        );
        check(
            r#"{"step": 1, "prompt": "ask", "completion": "a", "advantage": 0.1}"#,
            "a",
            None,
            Some("ask"),
        );
        let messages = r#"{"prompt": [{"role": "user", "content": "ask"}], "completion": [{"role": "assistant", "content": "a"}]}"#;
        check(messages, "a", None, Some("ask"));
        let batch = |message: &str| {
            format!(
                "{{\"id\": \"b\", \"custom_id\": \"p\", \"response\": {{\"status_code\": 200, \"body\": {{\"choices\": [{{\"message\": {message}}}]}}}}, \"error\": null}}"
            )
        };
        check(
            &batch(r#"{"role": "assistant", "content": "a"}"#),
            "a",
            Some("p"),
            None,
        );
        check(
            &batch(r#"{"content": null, "refusal": "no"}"#),
            "no",
            Some("p"),
            None,
        );
        let calls = r#"{"content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}"#;
        check(&batch(calls), calls, Some("p"), None);
        let refused = |line: &str, part: &str| {
            let problem = CompletionLine::read(line.as_bytes()).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        };
        refused(
            r#"{"custom_id": "p", "response": {"status_code": 429, "body": {"error": "slow"}}}"#,
            "status 429, error \"slow\"",
        );
        refused(
            r#"{"completion": 7}"#,
            "`completion` must be a string, not 7",
        );
        refused(r#"{"completio": "x"}"#, "missing `completion`");
        refused(
            r#"{"completion": "x", "prompt_id": "p", "set": "dev"}"#,
            "`set` must be `train`, `eval` or `test`, not \"dev\"",
        );
        refused("[]", "not a JSON object");
        refused(r#"["\ud800"]"#, "not a JSON object");
        refused("{", "not JSON at column 1");
        refused(
            r#"{"completion": "x", "prompt_id": 1e999}"#,
            "not JSON at column",
        );
    }

    #[test]
    fn half_a_pair_is_kept_as_text() {
        let check = |line: &str, completion: Option<&str>| {
            let found = CompletionLine::read(line.as_bytes()).ok();
            let found = found.map(|line| line.completion);
            assert_eq!(found.as_deref(), completion, "{line}");
        };
        check(r#"{"completion":"a"}"#, Some("a"));
        check(r#"{"completion":"\"\ud800\""}"#, Some(r#""\ud800""#));
        check(
            r#"{"completion":"\udc00\ud83d\ude00\ud83d"}"#,
            Some("\\udc00😀\\ud83d"),
        );
        check(r#"{"completion":"\\\ud800é"}"#, Some("\\\u{fffd}é"));
        check(r#"{"completion":"\ud800\u0041\n"}"#, Some("\\ud800A\n"));
        check(r#"{"completion":"\u12"}"#, None);
        check(r#"{"completion":"\ud800"#, None);
        check("\\", None);
    }
}
