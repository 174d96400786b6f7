//! Tools in chat templates.

use serde_json::{Value as Json, json};

use super::{ChatTemplate, Message, Thinking, Tokenizer};

pub fn openai_tools(tools: &Json) -> Json {
    let whole = |tool: &Json| match tool.get("function") {
        Some(_) => tool.clone(),
        None => json!({"type": "function", "function": tool}),
    };
    tools.as_array().into_iter().flatten().map(whole).collect()
}

/// The white space with which a chat template writes an assistant's calls.
#[derive(Debug)]
pub struct CallSpacing<'t> {
    template: &'t ChatTemplate,
    tools: &'t Json,
    ask: Message,
    /// The prompt before the turn.
    asked: String,
    /// Ends the turn.
    end: String,
}

impl CallSpacing<'_> {
    /// An assistant's turn with calls, `written` by their format, with the white space of the template:
    /// what a model of it has read, and writes. `None` if the two differ in more.
    pub fn apply(&self, written: &str, turn: &Message) -> Option<String> {
        let whole = self
            .template
            .render_finished(&[self.ask.clone(), turn.clone()], Some(self.tools))
            .ok()?;
        let answer = whole.strip_prefix(self.asked.as_str())?;
        let spaced = answer.split(self.end.as_str()).next()?;
        let letters = |text: &str| text.split_whitespace().collect::<String>();
        (letters(spaced) == letters(written)).then(|| spaced.to_owned())
    }
}

impl Tokenizer {
    /// `None` if the template takes no tools.
    pub fn call_spacing<'t>(&'t self, tools: &'t Json) -> Option<CallSpacing<'t>> {
        let template = self
            .chat_template()
            .filter(|template| template.takes_tools())?;
        let ask = Message::new("user", "u");
        let before = std::slice::from_ref(&ask);
        let asked = template
            .render(before, Some(tools), &Thinking::On.into())
            .ok()?;
        Some(CallSpacing {
            template,
            tools,
            asked,
            end: self.token(self.turn_end_id()?)?,
            ask,
        })
    }

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
