//! Multi-turn rows: an answer is sampled for each turn, and later prompts contain the earlier
//! answers.

use serde_json::Value;

use super::messages::messages;
use super::row::PromptRow;
use crate::text::Message;

impl PromptRow {
    /// 1 plus the items of `turns`.
    pub fn turn_count(&self) -> usize {
        1 + self.later_turns().len()
    }

    /// The row at the turn after `answers`: the conversation so far as prompt, the turn's own
    /// `expected` and other fields, id `ID/2` for the second turn. Without answers the row itself;
    /// `None` after its last turn.
    pub fn after(&self, answers: &[impl AsRef<str>]) -> Option<Self> {
        let Some(last) = answers.len().checked_sub(1) else {
            return Some(self.clone());
        };
        let own = self.later_turns().get(last)?.as_object()?;
        let mut conversation = self.messages.clone();
        for (answer, turn) in answers.iter().zip(self.later_turns()) {
            conversation.push(Message::new("assistant", answer.as_ref()));
            // Checked when the row was read.
            conversation.extend(
                turn.as_object()
                    .and_then(|turn| messages(turn).ok())
                    .unwrap_or_default(),
            );
        }
        let mut fields = self.fields.whole();
        fields.retain(|key, _| {
            !matches!(
                key.as_str(),
                "turns" | "messages" | "expected" | "completion"
            )
        });
        fields.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        Some(Self {
            id: format!("{}/{}", self.id, answers.len() + 1),
            messages: conversation,
            expected: fields
                .get("expected")
                .filter(|value| !value.is_null())
                .cloned(),
            tags: self.tags.clone(),
            fields: fields.into(),
            line: self.line,
        })
    }

    /// All turns, following the answers that `answer` returns for each turn's `expected` (`None`:
    /// an empty answer).
    pub fn all_turns(&self, answer: impl Fn(&Value, &Self) -> Option<String>) -> Vec<Self> {
        let (mut turns, mut answers) = (Vec::new(), Vec::new());
        while let Some(turn) = self.after(&answers) {
            answers.push(
                turn.expected
                    .as_ref()
                    .and_then(|expected| answer(expected, &turn))
                    .unwrap_or_default(),
            );
            turns.push(turn);
        }
        turns
    }

    fn later_turns(&self) -> &[Value] {
        self.fields
            .get("turns")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::row::load_from;

    fn row(value: &Value) -> Result<PromptRow, String> {
        load_from("rows.jsonl", value.to_string().as_bytes())
            .map(|mut rows| rows.remove(0))
            .map_err(|error| error.to_string())
    }

    fn said(role: &str, content: &str) -> Value {
        json!({"role": role, "content": content})
    }

    #[test]
    fn later_prompts_contain_the_answers() {
        let row = row(&json!({"id": "c", "messages": [said("user", "one")], "expected": 1, "level": "a", "turns": [
            {"messages": [said("tool", "two")], "expected": 2},
            {"messages": [said("user", "three")], "level": "b"},
        ]}))
        .unwrap();
        assert_eq!(row.turn_count(), 3);
        assert_eq!(row.after(&[] as &[&str]).unwrap(), row);
        let third = row.after(&["A", "B"]).unwrap();
        let texts: Vec<(&str, &str)> = third
            .messages
            .iter()
            .map(|turn| (turn.role.as_str(), turn.content.as_str()))
            .collect();
        assert_eq!(
            texts,
            [
                ("user", "one"),
                ("assistant", "A"),
                ("tool", "two"),
                ("assistant", "B"),
                ("user", "three")
            ]
        );
        assert_eq!(
            (third.id.as_str(), third.expected, third.fields.get("level")),
            ("c/3", None, Some(&json!("b")))
        );
        let second = row.after(&["A"]).unwrap();
        assert_eq!(
            (
                second.turn_count(),
                second.fields.get("level"),
                second.expected
            ),
            (1, Some(&json!("a")), Some(json!(2)))
        );
        assert_eq!(row.after(&["A", "B", "C"]), None);
        let all = row.all_turns(|expected, _| Some(format!("<{expected}>")));
        assert_eq!(
            (
                all.len(),
                all[2].messages[1].content.as_str(),
                all[2].messages[3].content.as_str()
            ),
            (3, "<1>", "<2>")
        );
    }

    #[test]
    fn turns_that_are_none_are_named() {
        let check = |turns: Value, problem: &str| {
            let error =
                row(&json!({"messages": [said("user", "one")], "turns": turns})).unwrap_err();
            assert!(
                error.starts_with("rows.jsonl line 1: ") && error.contains(problem),
                "{error}"
            );
        };
        check(json!("two"), "`turns` is `\"two\"`; write [{\"messages\"");
        check(json!(["two"]), "turn 2 is `\"two\"`");
        check(
            json!([{"messages": [said("user", "two")]}, {"expected": 3}]),
            "turn 3: missing `messages`",
        );
        check(
            json!([{"messages": [said("user", "two")], "turns": []}]),
            "turn 2 has `turns` itself",
        );
        check(
            json!(vec![0; 300]),
            "`turns` has 300 items; at most 255 turns follow the first",
        );
    }
}
