//! The token that ends an assistant's turn, derived from the chat template.

use serde_json::{Value as Json, json};

use super::{ChatTemplate, Message, Tokenizer};

const QUESTION: &str = "qZquestionZq";
const ANSWER: &str = "qZanswerZq";
const ARGUMENT: &str = "qZargumentZq";

impl Tokenizer {
    /// The first special token that the template writes after the last assistant turn. If it writes
    /// nothing, the next turn's header counts, provided the model stops at it.
    pub(super) fn text_turn_end(&self, template: &ChatTemplate) -> Option<u32> {
        let turn = |role: &str, text: &str| Message::new(role, text);
        let (ask, answer) = (turn("user", QUESTION), turn("assistant", ANSWER));
        let render = |turns: &[Message]| template.render_finished(turns, None).ok();
        let text = render(&[ask.clone(), answer.clone()])?;
        let rest = self.ids_after(&text, ANSWER)?;
        let added = self.inner.get_added_tokens_decoder();
        let is_stop = |id: &&u32| self.stop_ids.contains(id);
        let is_special = |id: &&u32| added.get(id).is_some_and(|token| token.special);
        // A prefix that the template writes regardless of input also opens the next answer.
        let (before, _) = text.rsplit_once(ANSWER)?;
        let opening = self.ids_after(before, QUESTION).unwrap_or_default();
        let opens = opening.iter().rfind(is_special);
        let ends = |id: &&u32| is_stop(id) || (is_special(id) && opens != Some(id));
        let found = rest.iter().find(ends);
        let found = found.or_else(|| {
            rest.iter()
                .find(|id| added.contains_key(id) && opens != Some(id))
        });
        let followed = || {
            let text = render(&[ask.clone(), answer, ask.clone()])?;
            self.ids_after(&text, ANSWER)?.iter().find(is_stop).copied()
        };
        found.copied().or_else(followed)
    }

    /// The first stop token after a call's arguments.
    pub(super) fn call_turn_end(&self, template: &ChatTemplate) -> Option<u32> {
        let call = json!([{"id": "call00000", "type": "function", "function": {"name": "probe", "arguments": {"a": ARGUMENT}}}]);
        let tools = json!([{"type": "function", "function": {"name": "probe", "description": "d",
            "parameters": {"type": "object", "properties": {"a": {"type": "string", "description": "d"}}, "required": ["a"]}}}]);
        let mut calling = Message::new("assistant", "");
        calling.other.insert("tool_calls".to_owned(), call);
        let turns = [Message::new("user", "q"), calling];
        let text = template
            .render_finished(&turns, Some(&tools) as Option<&Json>)
            .ok()?;
        let rest = self.ids_after(&text, ARGUMENT)?;
        rest.into_iter().find(|id| self.stop_ids.contains(id))
    }

    fn ids_after(&self, text: &str, probe: &str) -> Option<Vec<u32>> {
        let (_, rest) = text.rsplit_once(probe)?;
        self.encode(rest).ok()
    }
}
