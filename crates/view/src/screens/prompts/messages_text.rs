//! The turns of a row as one text for an editor: a line `=== user` before each turn, with the turn's other fields as
//! JSON (`=== assistant {"tool_calls": […]}`).

use serde_json::{Map, Value, json};

use crate::text::Message;

const MARK: &str = "=== ";
const ROLES: [&str; 5] = ["system", "user", "assistant", "tool", "developer"];

/// Formats turns as text. A line of a turn that looks like a heading is escaped with a backslash.
pub(super) fn write(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages {
        text.push_str(&format!("{MARK}{}", message.role));
        if !message.other.is_empty() {
            text.push_str(&format!(" {}", json!(message.other)));
        }
        text.push('\n');
        for line in message.content.split('\n') {
            let marked = line.trim_start_matches('\\').starts_with(MARK.trim_end());
            text.push_str(&format!("{}{line}\n", if marked { "\\" } else { "" }));
        }
    }
    text.pop();
    text
}

pub(super) fn read(text: &str) -> Result<Vec<Message>, String> {
    let mut messages: Vec<Message> = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if let Some(role) = line.strip_prefix(MARK.trim_end()) {
            let (role, fields) = role
                .trim()
                .split_once(char::is_whitespace)
                .unwrap_or((role.trim(), "{}"));
            if !ROLES.contains(&role) {
                return Err(format!(
                    "line {}: unknown role {role:?}; use {} after ===",
                    index + 1,
                    ROLES.join(", ")
                ));
            }
            let other = serde_json::from_str::<Map<String, Value>>(fields).map_err(|error| {
                format!(
                    "line {}: expected nothing or a JSON object after the role: {error}",
                    index + 1
                )
            })?;
            messages.push(Message {
                other,
                ..Message::new(role, "")
            });
            continue;
        }
        let Some(turn) = messages.last_mut() else {
            if line.trim().is_empty() {
                continue;
            }
            return Err(format!(
                "line {}: messages start with a line such as `=== user`",
                index + 1
            ));
        };
        let own = if line.starts_with('\\')
            && line.trim_start_matches('\\').starts_with(MARK.trim_end())
        {
            &line[1..]
        } else {
            line
        };
        turn.content.push_str(own);
        turn.content.push('\n');
    }
    for turn in &mut messages {
        turn.content.pop();
    }
    match messages
        .iter()
        .any(|turn| turn.role == "user" && !turn.content.trim().is_empty())
    {
        true => Ok(messages),
        false => Err("no user message: add `=== user` and the prompt below it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let check = |turns: &[(&str, &str)], text: &str| {
            let turns: Vec<Message> = turns
                .iter()
                .map(|(role, content)| Message::new(*role, *content))
                .collect();
            assert_eq!(write(&turns), text);
            assert_eq!(read(text).unwrap(), turns);
        };
        check(&[("user", "Hi")], "=== user\nHi");
        check(
            &[("system", ""), ("user", "a\n\nb\n"), ("assistant", "c")],
            "=== system\n\n=== user\na\n\nb\n\n=== assistant\nc",
        );
        check(
            &[("user", "=== user\n\\=== x")],
            "=== user\n\\=== user\n\\\\=== x",
        );
        let text = "=== user\nu\n=== assistant {\"tool_calls\":[{\"name\":\"f\",\"arguments\":{}}]}\n\n=== tool\n1";
        let turns = read(text).unwrap();
        assert_eq!(turns[1].tool_calls().len(), 1);
        assert_eq!(write(&turns), text);
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let check =
            |text: &str, part: &str| assert!(read(text).unwrap_err().contains(part), "{text:?}");
        check("hello", "line 1");
        check("=== user\nx\n=== boss\ny", "line 3: unknown role \"boss\"");
        check("=== system\nx", "no user message");
        check(
            "=== user\nx\n=== assistant {\"a\"",
            "line 3: expected nothing or",
        );
        check("", "no user message");
    }
}
