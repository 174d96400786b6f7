//! Detects attempts at calls where no call is expected: a call of a known function in whatever
//! syntax, also truncated, or the opening of a known format.

use super::formats::harmony;
use super::known_formats::all_openings;
use super::syntax::after_white_space;
use super::tools::Tools;
use crate::score::answer::json::{Kind, Value};
use crate::score::verdict::unwrap_answer::{inner_values, think_opening};
use crate::text::THINK_MARKS;

/// Length up to the closing parenthesis of a call.
const MAX_PARENTHESES: usize = 4_000;

/// Byte offset of an attempt at a call, from a byte offset on. Mentions of functions in words or
/// in quotes do not count.
pub(super) fn attempt(completion: &str, from: usize, tools: &Tools) -> Option<usize> {
    let answer = completion.get(from..)?;
    let begins = |(at, letter): (usize, char)| {
        let (before, rest) = answer.split_at(at);
        let is_start = is_name_letter(letter) && !before.ends_with(is_name_letter);
        let name = leading_name(rest);
        let is_called = is_start && is_tool(name, tools) && is_called(before, &rest[name.len()..]);
        ((is_called || is_opening(rest)) && !is_in_code(before, rest)).then_some(from + at)
    };
    let found = answer.char_indices().find_map(begins);
    found.or_else(|| {
        let mut object = None;
        inner_values(completion, from, |value| {
            object = is_call(value).then_some(value.start);
            object.is_some()
        })?;
        object
    })
}

/// Whether an answer without parsable calls declines to call: its text attempts no call.
pub(super) fn is_decline(completion: &str, from: usize, tools: &Tools) -> bool {
    let answer = completion
        .get(after_white_space(completion, from)..)
        .unwrap_or_default();
    !answer.is_empty()
        && !["{", "[", "```"]
            .iter()
            .any(|start| answer.starts_with(start))
        && !harmony::has_messages(answer)
        && !harmony::has_call(completion)
        && think_opening(answer, &THINK_MARKS).is_none()
        && attempt(completion, from, tools).is_none()
}

/// Whether a call begins here in a known format, possibly truncated.
fn is_opening(rest: &str) -> bool {
    rest.starts_with(['<', '['])
        && rest.len() > 1
        && all_openings().any(|opening| match rest.strip_prefix(opening) {
            Some(inner) => {
                inner.trim_start().starts_with(['{', '[', '<'])
                    || !inner.starts_with([' ', '`', '"', '\'', '.', ','])
            }
            None => opening.starts_with(rest),
        })
}

/// Whether a line's backticks quote this place.
fn is_in_code(before: &str, rest: &str) -> bool {
    let quotes = |line: Option<&str>| line.unwrap_or_default().matches('`').count();
    quotes(before.rsplit('\n').next()) % 2 == 1 && quotes(rest.split('\n').next()) > 0
}

/// Whether a function's name is called, by the text before and after it.
fn is_called(before: &str, after: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default().trim();
    if let Some(quote) = before
        .chars()
        .next_back()
        .filter(|quote| "\"'".contains(*quote))
    {
        let (outer, Some(rest)) = (
            before[..before.len() - 1].trim_end(),
            after.strip_prefix(quote).or(after.is_empty().then_some("")),
        ) else {
            return false;
        };
        // A definition of the function is quoted with its description.
        let is_value = outer.ends_with([':', '=']) && !rest.contains("\"description\"");
        return is_value || outer.ends_with(['{', ',']) && begins_with(rest, ":", "{");
    }
    let is_label = line
        .to_lowercase()
        .trim_end_matches(['*', ' '])
        .ends_with("action:")
        && {
            let rest = after.split('\n').next().unwrap_or_default();
            let rest = rest.trim_matches(['*', '`', ' ', '\r']);
            rest.is_empty() || rest.starts_with(['(', '[', '{'])
        };
    let number = after.strip_prefix(':').unwrap_or(after);
    let given = number.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let is_tag = before.ends_with('<') && after.starts_with(['>', '/', ' '])
        || before.ends_with('=') && after.starts_with('>')
        || line.ends_with('>') && given.trim_start().starts_with(['<', '{']);
    let has_object = begins_with(given, "{", "\"") || begins_with(given, "{", "}");
    let is_python = after.starts_with('(') && ends_line(after) && {
        let is_bare = line.is_empty() || line.ends_with(['=', '[', '(', '>', ':', ',']);
        is_bare || !begins_with(after, "(", ")")
    };
    is_tag || is_label || has_object || is_python
}

/// Whether a text begins with two marks, with white space before and between.
fn begins_with(text: &str, first: &str, second: &str) -> bool {
    let rest = text.trim_start().strip_prefix(first);
    rest.is_some_and(|rest| rest.trim_start().starts_with(second))
}

/// Whether nothing but the end of a line follows the closing parenthesis, or none closes.
fn ends_line(text: &str) -> bool {
    let (mut depth, mut quote) = (0_usize, None);
    let mut letters = text.chars().take(MAX_PARENTHESES);
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => _ = letters.next(),
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let rest: String = letters.take_while(|letter| *letter != '\n').collect();
            let rest = rest.trim_start_matches([')', ']', ';', '.', ' ', '\r']);
            return rest.is_empty()
                || rest.starts_with('<')
                || rest.starts_with(", ") && rest.ends_with(")]");
        }
    }
    true
}

/// Whether a JSON value is a call of any function, known or not.
fn is_call(value: &Value<'_>) -> bool {
    match &value.kind {
        Kind::Array(items) => items.iter().any(is_call),
        Kind::Object(object) => {
            let given = object.get("arguments").or_else(|| object.get("parameters"));
            let given = given.and_then(|given| given.value.as_object());
            given.is_some() && object.get("name").is_some() && object.get("description").is_none()
        }
        _ => false,
    }
}

/// Whether a name is a tool's, possibly after a namespace.
fn is_tool(name: &str, tools: &Tools) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    !name.is_empty() && (tools.function(name).is_some() || tools.function(last).is_some())
}

fn is_name_letter(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '.' | '-')
}

fn leading_name(text: &str) -> &str {
    &text[..text
        .find(|letter| !is_name_letter(letter))
        .unwrap_or(text.len())]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tools() -> Tools {
        let tools = json!([{"name": "ping"}, {"name": "get_weather"}, {"name": "search"}]);
        Tools::compile("t.json", "", &tools, false).unwrap()
    }

    #[test]
    fn calls_of_known_functions_are_attempts_in_any_syntax() {
        let tools = tools();
        for text in [
            "<tool_call>ping\n<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
            "<minimax:tool_call>\n<invoke name=\"ping\">\n</invoke>\n</minimax:tool_call>",
            "<seed:tool_call><function=ping></function></seed:tool_call>",
            "<|tool_call_start|>[ping()]<|tool_call_end|>",
            "<|action_start|><|plugin|>{\"name\": \"ping\", \"parameters\": {}}<|action_end|>",
            "<TOOLCALL>[ping()]</TOOLCALL>",
            "functools[{\"name\": \"ping\"}]",
            ">>>ping\n{\"a\": 1}",
            "functions.ping:0{}",
            "ping\n{\"a\": 1}",
            "Thought: x\nAction: ping\nAction Input: {\"n\": 3}",
            "Action: search[rain in Bergen]",
            "I will look.\nAction: ping",
            "<tool>search</tool><tool_input>x</tool_input>",
            "<ping/>",
            "So: {\"action\": \"ping\", \"action_input\": {}}",
            "So: {\"name\": \"other\", \"parameters\": {}}",
            "So: {\"ping\": {}}",
            "Sure.\nget_weather(city=\"Bergen (NO)\")",
            "Sure.\n[ping(), get_weather(city='x')]",
            "Sure.\nresult = default_api.ping()",
            "```tool_code\nprint(ping(\n  a=1\n))\n```",
            // In prose, or truncated.
            "Calling it: get_weather(\"Bergen\").",
            "Let me see. get_weather(\"Ber",
            "So: {\"name\": \"ping\", \"arguments\": {\"to\": \"A",
            "So: {\"name\": \"ping",
            "Let me see. <tool_call>{\"na",
            "Let me see. <tool_",
            "Let me see. <invoke name=\"ping\">",
        ] {
            assert!(attempt(text, 0, &tools).is_some(), "{text}");
        }
        assert_eq!(attempt("Sure.\nping()", 0, &tools), Some(6));
    }

    #[test]
    fn text_that_mentions_calls_is_no_attempt() {
        let tools = tools();
        for text in [
            "I cannot do that.",
            "No tool call is needed: I can ping nothing, and a function call would not help.",
            "Action is needed, but not by me.",
            "Action: restart the router.\nThen search again.",
            "Action: none\nAction Input: none",
            "Action: contact support.\nUser input: none",
            "Install <plugin-name>\nand send {\"name\": \"x\", \"input\": {}}.",
            "Thought: nothing fits.\nFinal Answer: no.",
            "I could call `ping()`, but it takes no host.",
            "ping() takes no host (sorry).",
            "The tools are ping, get_weather (of a city) and search.",
            "The tools are `ping`, `get_weather` and `search`:\n- ping: checks\n- search: finds",
            "The mark `<tool_call>` begins a call, and so does \"<|tool_call_start|>\".",
            "Use `<invoke name=\"ping\">` in Claude.",
            "A <tool_call> block is what others write.",
            "I write no <function_calls>, since nothing fits.",
            "f(x) = 3 (see above), and a < b > c.",
            "See [tool_calls](https://example.com) and [1].",
            "The record is {\"name\": \"Ann\", \"age\": 3}.",
            "I have {\"name\": \"ping\", \"description\": \"d\", \"parameters\": {}} alone.",
            "ping {host} is what you would type.",
            "Function: it maps inputs to outputs.\nParameters: none.",
            "Tool: ping\nReason it does not fit: no host.",
        ] {
            assert_eq!(attempt(text, 0, &tools), None, "{text}");
        }
    }
}
