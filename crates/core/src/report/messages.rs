//! Recorded completions as conversations in OpenAI's message form: the columns `messages` and `tools` of data sets for
//! TRL and Hugging Face.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Map, Value, json};

use crate::dataset;
use crate::environment::{AgentRecord, AnsweredCall, ToolChain};
use crate::run::{RolloutCompletion, RolloutGroup, RunDirectory, task_folder};
use crate::score::{Task, text_before_calls};
use crate::task::PromptSet;
use crate::text::{Message, conversation, openai_tools};

/// The training prompts of a run, by task and id.
#[derive(Debug, Default)]
pub struct PromptMessages(BTreeMap<String, TaskPrompts>);

#[derive(Debug, Default)]
struct TaskPrompts {
    tools: Option<Value>,
    prompts: HashMap<String, Vec<Message>>,
}

impl PromptMessages {
    /// Reads the tasks that are frozen in a run. One that this version cannot read has none, with the reason in a warning.
    pub fn read(run: &RunDirectory) -> (Self, Vec<String>) {
        let (mut found, mut warnings) = (Self::default(), Vec::new());
        for name in run.task_names() {
            match TaskPrompts::read(run, name) {
                Ok(prompts) => _ = found.0.insert(name.to_owned(), prompts),
                Err(why) => warnings.push(format!("no messages: {why}")),
            }
        }
        (found, warnings)
    }

    /// The functions that the model was shown, where a task has tools and lists them itself.
    pub fn tools(&self, group: &RolloutGroup) -> Option<&Value> {
        self.0.get(&group.task)?.tools.as_ref()
    }

    /// The conversation of a completion with its prompt. `None` for a later turn of a row, whose earlier answers the group
    /// does not have, and for a prompt that the run's task has not.
    pub fn conversation(
        &self,
        group: &RolloutGroup,
        completion: &RolloutCompletion,
    ) -> Option<Vec<Value>> {
        let prompt = self.0.get(&group.task)?.prompts.get(&group.prompt_id)?;
        Some(openai_messages(
            prompt,
            completion.chain.as_ref(),
            &completion.text,
        ))
    }
}

impl TaskPrompts {
    fn read(run: &RunDirectory, name: &str) -> Result<Self, String> {
        let task = Task::load(&task_folder(run.path(), name)).map_err(|error| error.to_string())?;
        let rows = dataset::load(&task, PromptSet::Train).map_err(|error| error.to_string())?;
        let own = task
            .toolset()
            .and_then(|tools| tools.known_definitions())
            .or_else(|| task.tools().cloned());
        let prompts = rows
            .into_iter()
            .map(|row| (row.id, conversation(task.system.as_deref(), &row.messages)))
            .collect();
        Ok(Self {
            tools: own.map(|tools| openai_tools(&tools)),
            prompts,
        })
    }
}

/// A prompt, what the model wrote and what tools replied. Of an agent with several branches that of its last request.
pub fn openai_messages(prompt: &[Message], chain: Option<&ToolChain>, answer: &str) -> Vec<Value> {
    let mut found = Conversation::default();
    let agent = chain.and_then(|chain| {
        Some((
            chain,
            chain
                .agent
                .as_deref()
                .filter(|agent| !agent.requests.is_empty())?,
        ))
    });
    if let Some((chain, agent)) = agent {
        found.agent(chain, agent, answer);
        return found.messages;
    }
    prompt.iter().for_each(|message| found.message(message));
    for step in chain.iter().flat_map(|chain| &chain.steps) {
        found.called(&step.text, &step.calls);
    }
    match chain.map_or(&[][..], |chain| &chain.last_calls) {
        [] => found.said(answer),
        calls => found.called(answer, calls),
    }
    found.messages
}

#[derive(Default)]
struct Conversation {
    messages: Vec<Value>,
    /// Ids of calls that no result has named yet.
    unanswered: VecDeque<String>,
    calls: usize,
}

impl Conversation {
    fn message(&mut self, message: &Message) {
        let mut value = json!(message);
        let calls = message.tool_calls();
        if !calls.is_empty() {
            let calls: Vec<Value> = calls.iter().map(|call| self.row_call(call)).collect();
            value["tool_calls"] = calls.into();
        }
        if message.role == "tool" {
            let next = self.unanswered.pop_front();
            if let (None, Some(id)) = (value.get("tool_call_id"), next) {
                value["tool_call_id"] = id.into();
            }
        }
        self.messages.push(value);
    }

    /// `{"name", "arguments"}`, alone or under `function`.
    fn row_call(&mut self, call: &Value) -> Value {
        let function = call.get("function").unwrap_or(call);
        let arguments = match function.get("arguments") {
            Some(Value::String(text)) => text.clone(),
            Some(arguments) => arguments.to_string(),
            None => "{}".to_owned(),
        };
        let id = call.get("id").and_then(Value::as_str).map(str::to_owned);
        self.call(id, function["name"].as_str().unwrap_or_default(), arguments)
    }

    fn call(&mut self, id: Option<String>, name: &str, arguments: String) -> Value {
        let id = id.unwrap_or_else(|| format!("call_{}", self.calls));
        self.calls += 1;
        self.unanswered.push_back(id.clone());
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }

    fn said(&mut self, text: &str) {
        self.messages
            .push(json!({"role": "assistant", "content": text}));
    }

    fn called(&mut self, text: &str, calls: &[AnsweredCall]) {
        self.asked(text, calls, &mut std::iter::empty());
        for call in calls {
            let id = self.unanswered.pop_front();
            self.messages.push(json!({"role": "tool", "tool_call_id": id, "name": call.name, "content": call.reply}));
        }
    }

    fn asked(&mut self, text: &str, calls: &[AnsweredCall], ids: &mut dyn Iterator<Item = String>) {
        let arguments =
            |arguments: &Map<String, Value>| Value::Object(arguments.clone()).to_string();
        let calls: Vec<Value> = calls
            .iter()
            .map(|call| self.call(ids.next(), &call.name, arguments(&call.arguments)))
            .collect();
        self.messages.push(
            json!({"role": "assistant", "content": text_before_calls(text), "tool_calls": calls}),
        );
    }

    /// The requests that lead to the last one, each with its completion.
    fn agent(&mut self, chain: &ToolChain, agent: &AgentRecord, answer: &str) {
        let last = agent.requests.len() - 1;
        let earlier = |number: &usize| {
            agent
                .requests
                .get(*number)?
                .follows
                .filter(|earlier| earlier < number)
        };
        let mut path: Vec<usize> = std::iter::successors(Some(last), earlier).collect();
        path.reverse();
        for (place, number) in path.iter().enumerate() {
            agent.requests[*number]
                .messages
                .iter()
                .for_each(|message| self.message(message));
            let next = path
                .get(place + 1)
                .and_then(|next| agent.requests.get(*next));
            match chain.steps.get(*number) {
                Some(step) if !step.calls.is_empty() => {
                    let results = next.into_iter().flat_map(|next| &next.messages);
                    let id = |message: &Message| {
                        message
                            .other
                            .get("tool_call_id")?
                            .as_str()
                            .map(str::to_owned)
                    };
                    self.asked(&step.text, &step.calls, &mut results.filter_map(id));
                }
                Some(step) => self.said(&step.text),
                None => self.said(answer),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chain(text: &str) -> ToolChain {
        serde_json::from_str(text).unwrap()
    }

    /// What transformers' templates and OpenAI's server take: each call has an id, and each result names it.
    #[test]
    fn a_conversation_is_in_openai_s_message_form() {
        let prompt: Vec<Message> = serde_json::from_value(json!([
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": "Is it raining?"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "sky", "arguments": {"city": "Bergen"}}]},
            {"role": "tool", "content": "rain"},
            {"role": "user", "content": "Order two nuts, and count."}
        ]))
        .unwrap();
        let talk = chain(
            r#"{"steps": [
                {"text": "<think>I look.</think>\n<tool_call>\n{\"name\": \"query\", \"arguments\": {\"sql\": \"SELECT 1\"}}\n</tool_call>",
                 "tokens": 9, "reply_tokens": 7, "calls": [
                    {"name": "query", "arguments": {"sql": "SELECT 1"}, "reply": "[[1]]", "outcome": "answered"},
                    {"name": "order", "arguments": {}, "reply": "error: item", "outcome": "refused"}]}],
                "end": "answer"}"#,
        );
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let expected = json!([
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": "Is it raining?"},
            {"role": "assistant", "content": "", "tool_calls": [call("call_0", "sky", r#"{"city":"Bergen"}"#)]},
            {"role": "tool", "content": "rain", "tool_call_id": "call_0"},
            {"role": "user", "content": "Order two nuts, and count."},
            {"role": "assistant", "content": "<think>I look.</think>", "tool_calls": [
                call("call_1", "query", r#"{"sql":"SELECT 1"}"#), call("call_2", "order", "{}")]},
            {"role": "tool", "tool_call_id": "call_1", "name": "query", "content": "[[1]]"},
            {"role": "tool", "tool_call_id": "call_2", "name": "order", "content": "error: item"},
            {"role": "assistant", "content": "There is one."}
        ]);
        assert_eq!(
            Value::from(openai_messages(&prompt, Some(&talk), "There is one.")),
            expected
        );
        // Without tools, a prompt and an answer.
        let plain = openai_messages(&prompt[1..2], None, "{\"rain\": true}");
        assert_eq!(
            Value::from(plain),
            json!([{"role": "user", "content": "Is it raining?"}, {"role": "assistant", "content": "{\"rain\": true}"}])
        );
        // The last calls of a conversation that a limit ended.
        let cut = chain(
            r#"{"steps": [], "last_calls": [{"name": "f", "arguments": {}, "reply": "late", "outcome": "answered"}], "end": "time_limit"}"#,
        );
        let found = openai_messages(&[], Some(&cut), "{\"name\": \"f\", \"arguments\": {}}");
        assert_eq!(
            Value::from(found),
            json!([{"role": "assistant", "content": "", "tool_calls": [call("call_0", "f", "{}")]},
                {"role": "tool", "tool_call_id": "call_0", "name": "f", "content": "late"}])
        );
    }

    #[test]
    fn of_an_agent_it_is_the_branch_of_its_last_request() {
        let talk = chain(
            r#"{"steps": [
                {"text": "Summary.", "tokens": 2, "reply_tokens": 0, "calls": []},
                {"text": "{\"name\": \"add\", \"arguments\": {\"a\": 1}}", "tokens": 5, "reply_tokens": 4, "calls": [
                    {"name": "add", "arguments": {"a": 1}, "reply": "2", "outcome": "answered"}]}],
                "end": "answer",
                "agent": {"exit_code": 0, "requests": [
                    {"messages": [{"role": "user", "content": "Summarize."}]},
                    {"messages": [{"role": "user", "content": "1 + 1?"}]},
                    {"follows": 1, "messages": [{"role": "tool", "content": "2", "tool_call_id": "x7"}]}]}}"#,
        );
        let found = openai_messages(&[Message::new("user", "the row")], Some(&talk), "It is 2.");
        assert_eq!(
            Value::from(found),
            json!([{"role": "user", "content": "1 + 1?"},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "x7", "type": "function", "function": {"name": "add", "arguments": "{\"a\":1}"}}]},
                {"role": "tool", "content": "2", "tool_call_id": "x7"},
                {"role": "assistant", "content": "It is 2."}])
        );
    }
}
