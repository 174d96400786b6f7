//! Tools, calls and results as text, in Qwen's wording, for chat templates that do not support
//! them.

use serde_json::{Value as Json, json};

use super::{Message, TextError, Thinking, Tokenizer, json_line};

const BEFORE: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
                      function signatures within <tools></tools> XML tags:\n<tools>";
const AFTER: &str = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
                     <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
                     <args-json-object>}\n</tool_call>";

pub fn openai_tools(tools: &Json) -> Json {
    let whole = |tool: &Json| match tool.get("function") {
        Some(_) => tool.clone(),
        None => json!({"type": "function", "function": tool}),
    };
    tools.as_array().into_iter().flatten().map(whole).collect()
}

impl Tokenizer {
    pub fn writes_prose_before_calls(&self) -> bool {
        const TEXT: &str = "Text before calls.";
        const ARGUMENT: &str = "argument-of-call";
        let turns = json!([
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": TEXT, "tool_calls": [
                {"id": "call00000", "type": "function", "function": {"name": "probe", "arguments": {"a": ARGUMENT}}}]},
            {"role": "tool", "name": "probe", "tool_call_id": "call00000", "content": "1"},
        ]);
        let tools = json!([{"type": "function", "function": {"name": "probe", "description": "d",
            "parameters": {"type": "object", "properties": {"a": {"type": "string", "description": "d"}}, "required": ["a"]}}}]);
        let Ok(turns) = serde_json::from_value::<Vec<Message>>(turns) else {
            return false;
        };
        let prompt = self
            .prompt(&turns, Some(&tools), &Thinking::Off.into())
            .unwrap_or_default();
        let text = prompt.find(TEXT);
        text.is_some_and(|text| prompt[text..].contains(ARGUMENT))
    }
}

/// Text-only turns: tools in the system turn, calls in the assistant's, results in the user's.
pub(super) fn as_text(
    messages: &[Message],
    tools: Option<&Json>,
) -> Result<Vec<Message>, TextError> {
    let mut turns: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut after_result = false;
    for message in messages {
        let is_result = message.role == "tool";
        let mut content = message.content.clone();
        for call in message.tool_calls() {
            let gap = if content.is_empty() { "" } else { "\n" };
            content.push_str(&format!(
                "{gap}<tool_call>\n{}\n</tool_call>",
                call_text(call)?
            ));
        }
        match turns.last_mut().filter(|_| is_result && after_result) {
            Some(results) => results
                .content
                .push_str(&format!("\n{}", result_text(&content))),
            None if is_result => turns.push(Message::new("user", result_text(&content))),
            None => turns.push(Message::new(message.role.as_str(), content)),
        }
        after_result = is_result;
    }
    if let Some(tools) = tools
        .and_then(Json::as_array)
        .filter(|tools| !tools.is_empty())
    {
        let mut text = BEFORE.to_owned();
        for tool in tools {
            text.push('\n');
            text.push_str(&json_line(tool)?);
        }
        text.push_str(AFTER);
        match turns.first_mut().filter(|turn| turn.role == "system") {
            Some(system) if system.content.is_empty() => system.content = text,
            Some(system) => system.content.push_str(&format!("\n\n{text}")),
            None => turns.insert(0, Message::new("system", text)),
        }
    }
    Ok(turns)
}

fn call_text(call: &Json) -> Result<String, TextError> {
    let function = call.get("function").unwrap_or(call);
    json_line(&json!({"name": function.get("name"), "arguments": function.get("arguments")}))
}

fn result_text(content: &str) -> String {
    format!("<tool_response>\n{content}\n</tool_response>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_without_tools_gets_them_as_text() {
        let turn = |json: Json| serde_json::from_value::<Message>(json).unwrap();
        let check = |messages: &[Json], tools: &Json, expected: &[(&str, &str)]| {
            let messages: Vec<Message> = messages.iter().cloned().map(turn).collect();
            let tools = openai_tools(tools);
            let turns = as_text(&messages, Some(&tools)).unwrap();
            let found: Vec<_> = turns
                .iter()
                .map(|turn| (turn.role.as_str(), turn.content.as_str()))
                .collect();
            assert_eq!(found, expected);
            assert!(turns.iter().all(|turn| turn.other.is_empty()));
        };
        let user = json!({"role": "user", "content": "u"});
        let clock = json!({"name": "clock", "parameters": {}});
        let text = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function \
                    signatures within <tools></tools> XML tags:\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \
                    \"clock\", \"parameters\": {}}}\n</tools>\n\nFor each function call, return a json object with function \
                    name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \
                    \"arguments\": <args-json-object>}\n</tool_call>";
        check(std::slice::from_ref(&user), &json!([]), &[("user", "u")]);
        check(
            std::slice::from_ref(&user),
            &json!([clock]),
            &[("system", text), ("user", "u")],
        );
        let system = json!({"role": "system", "content": "s"});
        check(
            &[system, user.clone()],
            &json!([clock]),
            &[("system", &format!("s\n\n{text}")), ("user", "u")],
        );
        let called = json!({"role": "assistant", "content": "Let me see.", "tool_calls": [
            {"type": "function", "function": {"name": "clock", "arguments": {"zone": "CET"}}}, {"name": "clock", "arguments": {}}]});
        let result = |text: &str| json!({"role": "tool", "content": text, "tool_call_id": "1"});
        let later = json!({"role": "assistant", "content": "It is 14:05."});
        check(
            &[
                user.clone(),
                called,
                result("14:05"),
                result("13:05"),
                later,
                result("x"),
            ],
            &json!([]),
            &[
                ("user", "u"),
                (
                    "assistant",
                    "Let me see.\n<tool_call>\n{\"name\": \"clock\", \"arguments\": {\"zone\": \"CET\"}}\n</tool_call>\n\
                     <tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>",
                ),
                (
                    "user",
                    "<tool_response>\n14:05\n</tool_response>\n<tool_response>\n13:05\n</tool_response>",
                ),
                ("assistant", "It is 14:05."),
                ("user", "<tool_response>\nx\n</tool_response>"),
            ],
        );
    }
}
