//! Demonstrations: how a row's request is done, as whole conversations of calls, their results and a last answer.

use serde_json::{Map, Value};

use super::messages::{clip, messages_of};
use crate::format::counted;
use crate::text::Message;

pub(super) const KEY: &str = "demonstration";

/// Checks a row's demonstration. One that is the end of its messages is taken from these, and becomes a field.
pub(super) fn take_demonstration(
    fields: &mut Map<String, Value>,
    messages: &mut Vec<Message>,
) -> Result<(), String> {
    if let Some(prompt) = end_of_prompt(messages) {
        messages.truncate(prompt);
        let all = fields.get("messages").and_then(Value::as_array);
        let turns = all.map(|all| all[prompt..].to_vec());
        if fields
            .insert(KEY.to_owned(), turns.into())
            .is_some_and(|turns| !turns.is_null())
        {
            return Err(format!(
                "`messages` go on after the prompt, and there is `{KEY}`: write one of them"
            ));
        }
    }
    let has_turns = fields.get("turns").is_some_and(|turns| !turns.is_null());
    if !demonstration_of(fields)?.is_empty() && has_turns {
        return Err(format!("`{KEY}` is of rows of one turn: leave out `turns`"));
    }
    Ok(())
}

/// The end of the prompt, if the turns after it begin with calls of the model and end with its answer.
fn end_of_prompt(turns: &[Message]) -> Option<usize> {
    let last = turns.last()?;
    let is_prompt = |turn: &Message| !matches!(turn.role.as_str(), "assistant" | "tool");
    let prompt = turns.iter().rposition(is_prompt)? + 1;
    let is_answer = last.role == "assistant" && last.tool_calls().is_empty();
    let has_calls = turns[prompt..]
        .iter()
        .any(|turn| !turn.tool_calls().is_empty());
    (is_answer && has_calls).then_some(prompt)
}

/// The turns of the field; none without it.
pub(super) fn demonstration_of(fields: &Map<String, Value>) -> Result<Vec<Message>, String> {
    if fields.get(KEY).is_none_or(Value::is_null) {
        return Ok(Vec::new());
    }
    let turns =
        messages_of(fields, KEY).map_err(|problem| format!("in the demonstration: {problem}"))?;
    let refuse = |index: usize, why: String| Err(format!("`{KEY}`: turn {} {why}", index + 1));
    let mut waiting = 0;
    for (index, turn) in turns.iter().enumerate() {
        let calls = turn.tool_calls().len();
        match turn.role.as_str() {
            "tool" if waiting == 0 => {
                return refuse(index, "is a result without a call before it".to_owned());
            }
            "tool" => waiting -= 1,
            "assistant" if waiting > 0 => {
                let missing = counted(waiting, "result");
                return refuse(
                    index,
                    format!("comes before {missing} of the calls before it"),
                );
            }
            "assistant" if calls == 0 && index + 1 < turns.len() => {
                return refuse(
                    index,
                    "calls nothing: the conversation ends there".to_owned(),
                );
            }
            "assistant" => waiting = calls,
            role => {
                let why = format!("is of {}: write `assistant` and `tool`", clip(role));
                return refuse(index, why);
            }
        }
    }
    if waiting > 0 || turns.last().is_some_and(|turn| turn.role == "tool") {
        return Err(format!(
            "`{KEY}` is cut off: add the results of its last calls, and what the model answers then"
        ));
    }
    Ok(turns)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::{PromptRow, load_from};

    fn row(fields: Value) -> Result<PromptRow, String> {
        let rows = load_from("rows.jsonl", fields.to_string().as_bytes());
        rows.map(|mut rows| rows.remove(0))
            .map_err(|error| error.to_string())
    }

    fn call(name: &str) -> Value {
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": name, "arguments": "{\"a\": 1}"}}]})
    }

    #[test]
    fn a_conversation_after_the_prompt_is_a_demonstration_wherever_it_is() {
        let (asked, result) = (
            json!({"role": "user", "content": "Pay."}),
            json!({"role": "tool", "tool_call_id": "1", "content": "ok"}),
        );
        let answer = json!({"role": "assistant", "content": "Done."});
        let named =
            row(json!({"messages": [asked], "demonstration": [call("pay"), result, answer]}));
        let whole = row(json!({"messages": [asked, call("pay"), result, answer]}));
        for row in [named.unwrap(), whole.unwrap()] {
            assert_eq!(row.messages.len(), 1);
            assert!(row.has_demonstration());
            let turns = row.demonstration();
            assert_eq!(turns.len(), 3);
            assert_eq!(
                turns[0].tool_calls()[0]["function"]["arguments"],
                json!({"a": 1})
            );
        }
        // An earlier conversation is part of the prompt.
        let earlier =
            row(json!({"messages": [asked, call("pay"), result, answer, asked]})).unwrap();
        assert!(earlier.messages.len() == 5 && !earlier.has_demonstration());
        assert!(earlier.demonstration().is_empty());
    }

    #[test]
    fn what_is_no_whole_conversation_is_refused_with_its_turn() {
        let (asked, result) = (
            json!({"role": "user", "content": "Pay."}),
            json!({"role": "tool", "content": "ok"}),
        );
        let answer = json!({"role": "assistant", "content": "Done."});
        for (demonstration, expected) in [
            (json!([call("pay")]), "is cut off"),
            (json!([call("pay"), result]), "is cut off"),
            (
                json!([call("pay"), answer]),
                "turn 2 comes before 1 result of",
            ),
            (json!([result, answer]), "turn 1 is a result without a call"),
            (json!([answer, answer]), "turn 1 calls nothing"),
            (json!([asked, answer]), "turn 1 is of `user`"),
            (json!("pay"), "`demonstration` is `\"pay\"`"),
            (json!([]), "`demonstration` is empty"),
            (
                json!([{"role": "bot"}]),
                "in the demonstration: turn 1: role",
            ),
        ] {
            let error = row(json!({"messages": [asked], "demonstration": demonstration}));
            let error = error.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
