//! Lines of completion files of this and other programs.

use serde_json::{Map, Value};

use crate::api_client::message_text;
use crate::format::{did_you_mean, shortened};
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
    fn read(name: &str, value: &Value) -> Result<Self, String> {
        let Value::Array(messages) = value else {
            return text(name, value).map(Self::Text);
        };
        let turn = |message: &Value| {
            let role = message["role"].as_str().unwrap_or_default();
            let content = message_text(message).ok_or_else(|| wrong(name, "messages", value))?;
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
        let value = completion_line(line).map_err(|error| {
            format!(
                "not JSON at column {}: `{}`; a line is a JSON object, {{\"completion\":\"…\"}}",
                error.column(),
                shortened(&String::from_utf8_lossy(line), 60)
            )
        })?;
        let Value::Object(fields) = value else {
            return Err("not a JSON object; a line is {\"completion\":\"…\"}".to_owned());
        };
        if fields.contains_key("custom_id") {
            return parse_batch_line(&fields);
        }
        let named = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(id)) => Ok(Some(id.to_string())),
            Some(other) => Err(wrong(name, "a string", other)),
        };
        let set = match fields.get("set") {
            // Tables of other programs may have a column of this name.
            Some(set) if !set.is_null() && fields.contains_key("prompt_id") => {
                let found = set.as_str().and_then(PromptSet::from_name);
                Some(found.ok_or_else(|| wrong("set", "`train`, `eval` or `test`", set))?)
            }
            _ => None,
        };
        if let (Some(completion), Some(prompt)) = (fields.get("output"), fields.get("input"))
            && !fields.contains_key("completion")
        {
            return Ok(Self {
                completion: text("output", completion)?,
                prompt_id: None,
                set,
                prompt: Some(ForeignPrompt::read("input", prompt)?),
            });
        }
        let Some(completion) = fields.get("completion") else {
            return Err(format!(
                "missing `completion`{}",
                did_you_mean("completion", fields.keys().map(String::as_str))
            ));
        };
        let prompt = fields
            .get("prompt")
            .filter(|prompt| !prompt.is_null())
            .map(|prompt| ForeignPrompt::read("prompt", prompt))
            .transpose()?;
        Ok(Self {
            completion: text("completion", completion)?,
            prompt_id: named("prompt_id")?,
            set,
            prompt,
        })
    }
}

/// A text, or the last of TRL's messages.
fn text(name: &str, value: &Value) -> Result<String, String> {
    let found = match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(messages) => messages.last().and_then(message_text),
        _ => None,
    };
    found.ok_or_else(|| wrong(name, "a string", value))
}

fn wrong(name: &str, kind: &str, found: &Value) -> String {
    format!(
        "`{name}` must be {kind}, not {}",
        shortened(&found.to_string(), 40)
    )
}

/// Parses OpenAI's batch output; `custom_id` is the prompt's id.
fn parse_batch_line(fields: &Map<String, Value>) -> Result<CompletionLine, String> {
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

/// Parses the line. Keeps a lone `\ud800` as written: no text contains that character, so the
/// completion with it is unparsable, but other lines keep their scores.
///
/// # Errors
/// Other invalid JSON.
fn completion_line(line: &[u8]) -> Result<serde_json::Value, serde_json::Error> {
    let again = |text: &str| serde_json::from_str(&half_pairs_as_text(text)).ok();
    serde_json::from_slice(line)
        .or_else(|error| std::str::from_utf8(line).ok().and_then(again).ok_or(error))
}

/// Escapes each lone surrogate `\ud800` as `\\ud800`.
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
        refused("{", "not JSON at column 1");
    }

    #[test]
    fn half_a_pair_is_kept_as_text() {
        let check = |line: &str, completion: Option<&str>| {
            let found = completion_line(line.as_bytes())
                .ok()
                .and_then(|value| value["completion"].as_str().map(str::to_owned));
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
