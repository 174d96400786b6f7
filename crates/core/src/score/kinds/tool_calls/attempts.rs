//! Detects attempts at calls in formats of all model families and agent frameworks, including
//! unsupported ones.

use super::syntax::OPEN;
use super::tools::Tools;
use crate::score::answer::json::{self, Kind, Syntax, Value};
use crate::score::verdict::unwrap_answer::inner_values;

/// Substrings of mark names, lower case and without separators: of all, and of those only between
/// `<|` and `|>`.
const MARKS: [&str; 10] = [
    "toolcall",
    "toolscall",
    "functioncall",
    "invoke",
    "toolcode",
    "toolinput",
    "tooluse",
    "toolrequest",
    "usemcptool",
    "argkey",
];
const TOKENS: [&str; 7] = [
    "startaction",
    "actionstart",
    "plugin",
    "toolsprefix",
    "pythontag",
    "pythonstart",
    "dsml",
];
const NAMED_TAGS: [&str; 4] = ["function", "tool", "action", "call"];
/// Marks without `<` or `[`, and harmony's receiver.
const OTHER_MARKS: [&str; 4] = ["✿FUNCTION✿", "functools[", "<<function>>", "to=functions."];
/// Line labels that name a function, lower case.
const LABELS: [&str; 6] = [
    "action",
    "tool",
    "tool call",
    "function",
    "function call",
    "call",
];
/// Keys of function and arguments in a call object.
const NAME_KEYS: [&str; 8] = [
    "name",
    "tool",
    "tool_name",
    "function",
    "function_name",
    "action",
    "recipient_name",
    "api_name",
];
const ARGUMENT_KEYS: [&str; 8] = [
    "arguments",
    "parameters",
    "action_input",
    "tool_input",
    "args",
    "params",
    "input",
    "kwargs",
];
const CALL_KEYS: [&str; 6] = [
    "function",
    "tool_call",
    "tool_calls",
    "tool_uses",
    "function_call",
    "action",
];
const MAX_MARK_BYTES: usize = 64;
/// Length up to the closing parenthesis of a Python-style call.
const MAX_PYTHON_CALL: usize = 4_000;

#[derive(Debug, PartialEq)]
pub(super) struct Attempt {
    /// Byte offset in the completion.
    pub(super) at: usize,
    pub(super) form: String,
}

/// The call format that an answer begins with, if different from the supported ones.
pub(super) fn foreign_form(answer: &str) -> Option<String> {
    const FORMS: [(&str, &str); 5] = [
        (
            "<function=",
            "`<function=NAME>` of Llama 3.1 and Qwen3-Coder",
        ),
        (
            "<｜tool▁calls▁begin｜>",
            "`<｜tool▁calls▁begin｜>` of DeepSeek",
        ),
        ("<|tool_call|>", "`<|tool_call|>` of Granite and Phi"),
        ("<invoke ", "`<invoke>`"),
        ("functools[", "`functools[...]` of Phi"),
    ];
    let inner = answer.strip_prefix(OPEN).unwrap_or(answer).trim_start();
    if let Some((_, name)) = FORMS.iter().find(|(start, _)| inner.starts_with(start)) {
        return Some((*name).to_owned());
    }
    if let Some(mark) = mark_at(inner) {
        return Some(format!("`{mark}`"));
    }
    // `f(a=1)`, alone or in a list.
    let first = inner.strip_prefix('[').unwrap_or(inner).trim_start();
    let name = leading_name(first);
    let is_python = name.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
        && !name.contains('-')
        && first[name.len()..].starts_with('(')
        && inner.trim_end().ends_with([')', ']']);
    is_python.then(|| "a call in Python's syntax".to_owned())
}

/// First attempt at a call from a byte offset on. Mentions of calls in words or quotes do not
/// count.
pub(super) fn attempt(completion: &str, from: usize, tools: &Tools) -> Option<Attempt> {
    let answer = completion.get(from..)?;
    let start = from + answer.len() - answer.trim_start().len();
    let of = |at: usize, form: &str| Attempt {
        at,
        form: form.to_owned(),
    };
    if let Some(form) = foreign_form(&completion[start..]) {
        return Some(of(start, &form));
    }
    if let Some((at, mark)) = find_mark(answer, tools) {
        return Some(of(from + at, &format!("`{mark}`")));
    }
    let mut at = from;
    for line in answer.split_inclusive('\n') {
        if let Some(form) = line_form(line, &completion[at + line.len()..], tools) {
            return Some(of(at, form));
        }
        at += line.len();
    }
    let mut object = None;
    inner_values(completion, from, |value| {
        let is_call = is_call(value, tools);
        object = is_call.then_some(value.start);
        is_call
    })?;
    Some(of(object?, "a call as JSON"))
}

/// First mark that begins a call, with its offset.
fn find_mark<'t>(text: &'t str, tools: &Tools) -> Option<(usize, &'t str)> {
    text.char_indices()
        .filter(|(_, letter)| "<[✿ft".contains(*letter))
        .find_map(|(at, letter)| {
            let rest = &text[at..];
            let mark = mark_at(rest).or_else(|| tool_tag(rest, tools))?;
            // `to=functions.` and `functools[` are whole words.
            let is_inside_word = letter.is_alphabetic()
                && text[..at].ends_with(|before: char| before.is_alphanumeric());
            (!is_inside_word && !is_mention(&text[..at], rest, mark)).then_some((at, mark))
        })
}

fn mark_at(text: &str) -> Option<&str> {
    if let Some(mark) = OTHER_MARKS.iter().find(|mark| text.starts_with(**mark)) {
        return text.get(..mark.len());
    }
    let inner = tag_name(text)?;
    let rest = &text[1 + inner.len()..];
    if text.starts_with('[') {
        // Bracketed text is common: these are upper case.
        let is_mark =
            rest.starts_with(']') && !inner.contains(char::is_lowercase) && is_marked(inner);
        return is_mark.then(|| &text[..inner.len() + 2]);
    }
    let name = key_of(inner);
    let is_named = NAMED_TAGS.contains(&name.as_str())
        && (rest.starts_with('=') || rest.trim_start().starts_with("name="));
    let end = 1 + inner.len() + usize::from(rest.starts_with('>'));
    (is_named || is_marked(inner)).then(|| &text[..end])
}

fn is_marked(inner: &str) -> bool {
    let key = key_of(inner);
    let is_token = inner.starts_with(['|', '｜']);
    let tokens = TOKENS.iter().filter(|_| is_token);
    MARKS.iter().chain(tokens).any(|mark| key.contains(mark))
}

/// Tag name in lower case, without separators.
fn key_of(inner: &str) -> String {
    inner
        .chars()
        .filter(|letter| letter.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn tag_name(text: &str) -> Option<&str> {
    let inner = text.strip_prefix(['<', '['])?;
    let end = inner
        .char_indices()
        .find(|(_, letter)| letter.is_whitespace() || "<>[]=/\"'`(){},".contains(*letter))
        .map_or(inner.len(), |(end, _)| end);
    inner
        .get(..end)
        .filter(|inner| !inner.is_empty() && end <= MAX_MARK_BYTES)
}

/// A tag named after a tool, or containing a tool's name.
fn tool_tag<'t>(text: &'t str, tools: &Tools) -> Option<&'t str> {
    let inner = text.starts_with('<').then(|| tag_name(text))??;
    let rest = &text[1 + inner.len()..];
    let content = rest.strip_prefix('>').unwrap_or_default().trim_start();
    let holds_name = NAMED_TAGS.contains(&inner.to_lowercase().as_str())
        && (content.starts_with(['{', '[']) || is_tool(leading_name(content), tools));
    let is_tool = tools.function(inner).is_some() && rest.starts_with(['>', '/', ' ']);
    let end = 1 + inner.len() + usize::from(rest.starts_with('>'));
    (holds_name || is_tool).then(|| &text[..end])
}

/// Whether a mark is quoted, or followed by words.
fn is_mention(before: &str, rest: &str, mark: &str) -> bool {
    let line_end = rest.find('\n').unwrap_or(rest.len());
    let end = match rest[mark.len()..line_end].find('>') {
        Some(found) if mark.starts_with('<') && !mark.ends_with('>') => mark.len() + found + 1,
        _ => mark.len(),
    };
    let after = &rest[end..];
    if let Some(quote) = before
        .chars()
        .next_back()
        .filter(|quote| "`\"'".contains(*quote))
    {
        return after.starts_with(quote);
    }
    if mark.ends_with(['.', '[']) && !mark.starts_with('[') {
        return false;
    }
    if after.starts_with(['.', ',', ';', ':', '!', '?', ')']) {
        return true;
    }
    let words = after.trim_start_matches(' ');
    let name = leading_name(words);
    words.len() < after.len()
        && !name.is_empty()
        && words[name.len()..].starts_with([' ', ',', ';', '!', '?', ')'])
}

/// Form of the call in or from this line. `following`: the text after it.
fn line_form(line: &str, following: &str, tools: &Tools) -> Option<&'static str> {
    let bare = line.trim();
    if is_labelled(bare, following, tools) {
        return Some("a line that names a function");
    }
    let bare = bare.strip_prefix(">>>").unwrap_or(bare).trim_start();
    let (variable, assigned) = bare.split_once('=').unwrap_or_default();
    let is_assigned = !variable.is_empty() && leading_name(variable.trim()) == variable.trim();
    let bare = if is_assigned {
        assigned.trim_start()
    } else {
        bare
    };
    let bare = bare.strip_prefix("print(").unwrap_or(bare);
    let bare = bare.strip_prefix('[').unwrap_or(bare).trim_start();
    let name = leading_name(bare);
    if !is_tool(name, tools) {
        return None;
    }
    // With the following lines, up to a call's maximum length.
    let rest = &bare[name.len()..];
    if rest.starts_with('(') {
        let closed = after_parentheses(rest.chars().chain(['\n']).chain(following.chars()));
        return closed.then_some("a call in Python's syntax");
    }
    let number = rest.strip_prefix(':').unwrap_or(rest);
    let rest = number.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let arguments = match rest.is_empty() {
        true => {
            let next = following.trim_start();
            next.strip_prefix("```json").unwrap_or(next).trim_start()
        }
        false => rest.trim_start(),
    };
    is_object(arguments).then_some("a name and its arguments")
}

/// Whether a parenthesis opens a call: nothing but the end of line follows its closing.
fn after_parentheses(text: impl Iterator<Item = char>) -> bool {
    let (mut depth, mut quote) = (0_usize, None);
    let mut text = text.take(MAX_PYTHON_CALL);
    while let Some(letter) = text.next() {
        match (quote, letter) {
            (Some(_), '\\') => _ = text.next(),
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let rest: String = text.take_while(|letter| *letter != '\n').collect();
            return rest
                .trim_start_matches([')', ']', ';', ' ', '\r'])
                .is_empty()
                || rest.starts_with(", ") && rest.trim_end().ends_with(")]");
        }
    }
    true
}

/// Whether a line is `Action: NAME` (ReAct), or similar.
fn is_labelled(line: &str, following: &str, tools: &Tools) -> bool {
    let label = |line: &str| -> Option<(String, usize)> {
        let (label, _) = line.split_once(':')?;
        let bare = label.trim_matches(['*', '#', '_', ' ']).to_lowercase();
        Some((bare, label.len() + 1))
    };
    let Some((name, end)) = label(line).filter(|(name, _)| LABELS.contains(&name.as_str())) else {
        return false;
    };
    let value = line[end..].trim_matches(['*', '`', ' ']);
    let next = following.lines().find(|line| !line.trim().is_empty());
    let next = next.and_then(label).map(|(next, _)| next);
    let has_input = next.as_ref().is_some_and(|next| {
        let ends = ["input", "arguments", "args", "parameters"];
        ends.iter().any(|end| next.ends_with(end))
    });
    let function = leading_name(value);
    let rest = &value[function.len()..];
    let is_action = name == "action";
    if is_tool(function, tools) {
        return rest.starts_with(['(', '[', '{']) || (rest.is_empty() && (is_action || has_input));
    }
    let none = ["none", "n/a", "no action", "final answer", ""];
    is_action
        && next.as_deref() == Some("action input")
        && !none.contains(&value.to_lowercase().as_str())
}

fn is_call(value: &Value<'_>, tools: &Tools) -> bool {
    let object = match &value.kind {
        Kind::Array(items) => return items.iter().any(|item| is_call(item, tools)),
        Kind::Object(object) => object,
        _ => return false,
    };
    let member = |keys: &[&str]| keys.iter().find_map(|key| object.get(key));
    // For unknown functions, only keys specific to calls count.
    let is_plain = || member(&ARGUMENT_KEYS[..4]).is_some();
    let named = NAME_KEYS
        .iter()
        .find_map(|key| match &object.get(key)?.value.kind {
            Kind::String(name) => Some(&**name),
            _ => None,
        });
    let is_described = object.get("description").is_some();
    let arguments = member(&ARGUMENT_KEYS).map(|member| &member.value);
    let is_named = named.is_some_and(|name| match arguments {
        Some(arguments) => is_tool(name, tools) || (arguments.as_object().is_some() && is_plain()),
        None => is_tool(name, tools) && object.members().len() == 1,
    });
    let holds = |key: &&str| {
        object
            .get(key)
            .is_some_and(|member| is_call(&member.value, tools))
    };
    let is_keyed = match object.members() {
        [only] => tools.function(&only.key).is_some() && only.value.as_object().is_some(),
        _ => false,
    };
    (is_named && !is_described) || is_keyed || CALL_KEYS.iter().any(holds)
}

/// Whether a name is a tool's, with family-specific prefixes.
fn is_tool(name: &str, tools: &Tools) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    !name.is_empty() && (tools.function(name).is_some() || tools.function(last).is_some())
}

fn leading_name(text: &str) -> &str {
    let end = text
        .find(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '_' | '.' | '-'))
        .unwrap_or(text.len());
    &text[..end]
}

/// Whether a text begins with a JSON object, possibly truncated.
fn is_object(text: &str) -> bool {
    text.starts_with('{')
        && match json::parse_prefix(text, 0) {
            Ok(_) => true,
            Err(error) => error.reason == Syntax::Truncated,
        }
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
    fn attempts_at_calls_are_found_in_the_forms_of_all_families() {
        let tools = tools();
        for text in [
            // Kimi, MiniMax, Seed, LFM2, DeepSeek, InternLM, Cohere, GLM, Step, Longcat, Nemotron, OLMo, Granite, Apertus.
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
            "<minimax:tool_call>\n<invoke name=\"ping\">\n</invoke>\n</minimax:tool_call>",
            "<seed:tool_call><function=ping></function></seed:tool_call>",
            "<|tool_call_start|>[ping()]<|tool_call_end|>",
            "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"ping\">",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>ping",
            "<|action_start|><|plugin|>{\"name\": \"ping\", \"parameters\": {}}<|action_end|>",
            "<|START_ACTION|>[{\"tool_name\": \"ping\", \"parameters\": {}}]<|END_ACTION|>",
            "<tool_call>ping\n<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
            "<｜tool_calls_begin｜><steptml:invoke name=\"ping\">",
            "<longcat_tool_call>ping</longcat_tool_call>",
            "<TOOLCALL>[ping()]</TOOLCALL>",
            "<function_calls>\nping()\n</function_calls>",
            "<function_call> {\"name\": \"ping\"}",
            "<|tools_prefix|>[{\"ping\": {}}]<|tools_suffix|>",
            "<|python_start|>[ping()]<|python_end|>",
            "[TOOL_REQUEST]{\"name\": \"ping\"}[END_TOOL_REQUEST]",
            "✿FUNCTION✿: ping\n✿ARGS✿: {}",
            "functools[{\"name\": \"ping\"}]",
            ">>>ping\n{\"a\": 1}",
            "commentary to=functions.ping json{}",
            "<use_mcp_tool>\n<server_name>x</server_name>",
            // Without special tokens, and of agent frameworks.
            "functions.ping:0{}",
            "ping\n{\"a\": 1}",
            "Thought: x\nAction: ping\nAction Input: {\"n\": 3}",
            "Thought: x\n**Action:** unknown_tool\n**Action Input:** x",
            "Action: search[rain in Bergen]",
            "I will look.\nAction: ping",
            "<tool>search</tool><tool_input>x</tool_input>",
            "<ping/>",
            "So: {\"action\": \"ping\", \"action_input\": {}}",
            "So: {\"name\": \"other\", \"parameters\": {}}",
            "So: {\"function_call\": {\"name\": \"ping\", \"arguments\": \"{}\"}}",
            "Sure.\nget_weather(city=\"Bergen (NO)\")",
            "Sure.\n[ping(), get_weather(city='x')]",
            "Sure.\nresult = default_api.ping()",
            "```tool_code\nprint(ping(\n  a=1\n))\n```",
            // After text, or truncated.
            "Let me see.<|tool_call_start|>[ping()]",
            "Let me see. <invoke name=\"ping\">",
            "Let me see. <minimax:tool_call>",
        ] {
            assert!(attempt(text, 0, &tools).is_some(), "{text}");
        }
        let found = attempt("Sure.\nping()", 0, &tools).unwrap();
        assert_eq!((found.at, &*found.form), (6, "a call in Python's syntax"));
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
