//! A conversation about a row with a person or an endpoint in place of a local model: calls, which
//! the task's tools answer, and scored answers, turn by turn.

use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Value, json};

use super::rendering::turns_of;
use crate::dataset::PromptRow;
use crate::environment::{
    AnsweredCall, ChainEnd, Environment, EnvironmentError, ToolCall, ToolChain, ToolStep,
};
use crate::score::{AskedCalls, Score, Scorer, Task, calls_of_message};
use crate::text::Message;

#[derive(Debug)]
pub struct HandConversation<S = Arc<Scorer>> {
    task: Task,
    scorer: S,
    row: PromptRow,
    turn: PromptRow,
    environment: Environment,
    definitions: Value,
    earlier: Vec<HandChain>,
    written: HandChain,
}

#[derive(Debug, Clone, PartialEq)]
pub struct HandChain {
    /// Read before it: the prompt, or what follows the last answer.
    pub messages: Vec<Message>,
    pub expected: Option<Value>,
    /// Has no tokens; `end` is only valid with a score.
    pub chain: ToolChain,
    pub call_seconds: Vec<f64>,
    pub answer: String,
    /// Set once the turn has ended.
    pub score: Option<Score>,
}

impl HandChain {
    fn new(messages: Vec<Message>, expected: Option<Value>) -> Self {
        Self {
            messages,
            expected,
            chain: ToolChain::answered(Vec::new()),
            call_seconds: Vec::new(),
            answer: String::new(),
            score: None,
        }
    }
}

impl<S: Deref<Target = Scorer>> HandConversation<S> {
    /// Opens the tools for a row.
    ///
    /// # Errors
    /// A task without tools, and as [`crate::environment::Toolset::open`].
    pub fn open(task: &Task, scorer: S, row: &PromptRow) -> Result<Self, EnvironmentError> {
        let Some(toolset) = task.toolset() else {
            return Err(EnvironmentError::State {
                why: format!("{} has no `[[tool]]`", task.name),
            });
        };
        let environment = toolset.open(row)?;
        let definitions = toolset.definitions_of(row)?.into_owned();
        let turns = turns_of(task, None, &row.messages).map_err(|error| EnvironmentError::Row {
            row: row.id.clone(),
            why: error.to_string(),
        })?;
        let written = HandChain::new(turns, row.expected.clone());
        let (task, earlier) = (task.clone(), Vec::new());
        Ok(Self {
            task,
            scorer,
            row: row.clone(),
            turn: row.clone(),
            environment,
            definitions,
            earlier,
            written,
        })
    }

    pub fn written(&self) -> &HandChain {
        &self.written
    }

    pub fn turns(&self) -> impl Iterator<Item = &HandChain> {
        self.earlier.iter().chain([&self.written])
    }

    /// Processes a model's message: answers its calls, or takes it as the answer. `context`:
    /// minimum tokens of the next prompt, if known.
    pub fn go_on(&mut self, text: &str, is_truncated: bool, context: Option<usize>) {
        if is_truncated {
            return self.finish(ChainEnd::Truncated, text);
        }
        let most = self
            .task
            .toolset()
            .and_then(|tools| tools.limits().max_context_tokens);
        match calls_of_message(&self.definitions, self.task.answer_of(text)) {
            AskedCalls::None => self.answer(text),
            AskedCalls::Unreadable => self.finish(ChainEnd::Unreadable, text),
            AskedCalls::Calls(_)
                if context
                    .zip(most)
                    .is_some_and(|(context, most)| context > most) =>
            {
                self.finish(ChainEnd::MaxContextTokens, text);
            }
            AskedCalls::Calls(calls) => self.call_as(text.to_owned(), calls),
        }
    }

    pub fn call(&mut self, calls: Vec<ToolCall>) {
        self.call_as(
            calls.iter().map(written).collect::<Vec<_>>().join("\n"),
            calls,
        );
    }

    fn call_as(&mut self, text: String, calls: Vec<ToolCall>) {
        let limits = self.task.toolset().map(|tools| tools.limits().clone());
        let asked = self.turns().flat_map(|turn| turn.chain.calls()).count() + calls.len();
        let completions = self.turns().map(|turn| turn.chain.steps.len() + 1).sum();
        if let Some(end) = limits
            .as_ref()
            .and_then(|limits| limits.end(asked, completions))
        {
            return self.finish(end, &text);
        }
        let replies = self.environment.call(&calls);
        self.written
            .call_seconds
            .extend(replies.iter().map(|reply| reply.seconds));
        let calls: Vec<AnsweredCall> = calls
            .into_iter()
            .zip(replies)
            .map(|(call, reply)| AnsweredCall::new(call, reply))
            .collect();
        let failed = calls
            .iter()
            .find_map(|call| Some((call.outcome.end()?, call.reply.clone())))
            .unzip();
        let is_late = |limit: f64| {
            self.turns()
                .flat_map(|turn| &turn.call_seconds)
                .sum::<f64>()
                > limit
        };
        let late = limits
            .filter(|limits| is_late(limits.time_limit_seconds))
            .map(|_| ChainEnd::TimeLimit);
        if let Some(end) = failed.0.or(late) {
            (self.written.chain.failure, self.written.chain.last_calls) = (failed.1, calls);
            return self.finish(end, &text);
        }
        let step = ToolStep::unsampled(text, calls);
        self.written.chain.steps.push(step);
    }

    /// Ends the turn with an answer: reads the tools' state if it is scored, and begins the next
    /// turn if the answer is valid.
    pub fn answer(&mut self, text: &str) {
        let mut end = ChainEnd::Answer;
        for (key, query) in self.task.state_queries() {
            match self.environment.state(query) {
                Ok(state) => _ = self.written.chain.states.insert(key.to_owned(), state),
                Err(error) => {
                    (end, self.written.chain.failure) = (error.end(), Some(error.to_string()))
                }
            }
        }
        self.finish(end, text);
    }

    fn finish(&mut self, end: ChainEnd, text: &str) {
        self.written.chain.end = end;
        text.clone_into(&mut self.written.answer);
        let row = self.written.chain.scored_row(&self.turn);
        let score = self.scorer.score(text, Some(&row));
        let goes_on = score.goes_on(&self.task.score);
        self.written.score = Some(score);
        let answers: Vec<&str> = self.turns().map(|turn| turn.answer.as_str()).collect();
        match self.row.after(&answers).filter(|_| goes_on) {
            Some(next) => {
                let new = next
                    .messages
                    .get(self.turn.messages.len() + 1..)
                    .unwrap_or_default()
                    .to_vec();
                let next_turn = HandChain::new(new, next.expected.clone());
                self.turn = next;
                self.earlier
                    .push(std::mem::replace(&mut self.written, next_turn));
            }
            None => {
                let turns = self.earlier.iter_mut().chain([&mut self.written]);
                self.scorer.join(
                    &mut turns
                        .filter_map(|turn| turn.score.as_mut())
                        .collect::<Vec<_>>(),
                );
            }
        }
    }
}

/// A call as a model writes it, for scorers.
fn written(call: &ToolCall) -> String {
    let call = json!({"name": call.name, "arguments": call.arguments});
    format!("<tool_call>\n{call}\n</tool_call>")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::load_from;
    use crate::environment::CallOutcome;

    const TOML: &str = "name = \"shop\"\nsystem = \"Use the tools.\"\n[prompts]\ntrain = \"train.jsonl\"\n[[tool]]\nbuiltin = \"sqlite\"\n\
                        database = \"shop.sql\"\n[tools]\nmax_calls = 4\nmax_turns = 3\n[score]\nkind = \"state\"\nquery = \"SELECT stock FROM item\"\n";
    const ROW: &str = "{\"id\": \"a\", \"messages\": [{\"role\": \"user\", \"content\": \"Sell one.\"}], \"expected\": 4}";

    fn conversation(folder: &std::path::Path) -> HandConversation {
        conversation_about(folder, ROW)
    }

    fn conversation_about(folder: &std::path::Path, row: &str) -> HandConversation {
        let sql = "CREATE TABLE item (stock INT); INSERT INTO item VALUES (5);";
        for (name, text) in [("task.toml", TOML), ("shop.sql", sql), ("train.jsonl", row)] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let task = Task::load(folder).unwrap();
        let scorer = Arc::new(Scorer::new(&task).unwrap());
        let rows = load_from("train.jsonl", row.as_bytes()).unwrap();
        HandConversation::open(&task, scorer, &rows[0]).unwrap()
    }

    fn asked(name: &str, sql: &str) -> ToolCall {
        let arguments = json!({"sql": sql}).as_object().unwrap().clone();
        ToolCall {
            name: name.to_owned(),
            arguments,
        }
    }

    #[test]
    fn tools_answer_and_the_end_is_scored_with_reasons() {
        let folder = tempfile::tempdir().unwrap();
        let say = |talk: &mut HandConversation, name: &str, sql: &str| {
            talk.call(vec![asked(name, sql)]);
        };
        let mut talk = conversation(folder.path());
        assert_eq!(talk.written().messages[0].content, "Use the tools.");
        say(&mut talk, "quary", "");
        say(&mut talk, "execute", "UPDATE item SET stock = 4");
        let calls: Vec<_> = talk
            .written()
            .chain
            .calls()
            .map(|call| call.outcome)
            .collect();
        assert_eq!(calls, [CallOutcome::Refused, CallOutcome::Answered]);
        assert_eq!(
            (
                talk.written().call_seconds.len(),
                talk.written().score.clone()
            ),
            (2, None)
        );
        talk.answer("Sold.");
        let HandChain { chain, score, .. } = talk.written();
        let score = score.as_ref().unwrap();
        assert_eq!(
            (score.tier, score.exact, score.reward),
            (crate::score::Tier::Valid, Some(true), 1.0)
        );
        assert_eq!(chain.states.values().next().unwrap()["rows"], json!([[4]]));
        // Another conversation has its own state.
        let mut other = conversation(folder.path());
        other.answer("Sold.");
        let why = &other.written().score.as_ref().unwrap().errors[0].message;
        assert!(why.contains("[[5]]"), "{why}");
        // The limits of `[tools]` apply as to a model.
        let mut long = conversation(folder.path());
        for _ in 0..3 {
            say(&mut long, "query", "SELECT 1");
        }
        let HandChain { chain, score, .. } = long.written();
        assert_eq!((chain.end, chain.steps.len()), (ChainEnd::MaxTurns, 2));
        assert_eq!(score.as_ref().unwrap().tier, crate::score::Tier::Unparsable);
        let mut many = conversation(folder.path());
        many.call(vec![asked("query", ""); 5]);
        assert_eq!(many.written().chain.end, ChainEnd::MaxCalls);
    }

    #[test]
    fn turns_follow_valid_answers_and_share_tools_and_limits() {
        let said = |text: &str| json!([{"role": "user", "content": text}]);
        let row = json!({"id": "a", "messages": said("Sell one."), "expected": 4, "tools": ["execute"], "turns": [
            {"messages": said("And another."), "expected": 3}, {"messages": said("How many?"), "expected": 3}]});
        let folder = tempfile::tempdir().unwrap();
        let open = || conversation_about(folder.path(), &row.to_string());
        let sell = |talk: &mut HandConversation| {
            talk.call(vec![asked("execute", "UPDATE item SET stock = stock - 1")]);
        };
        let tiers = |talk: &HandConversation| -> Vec<_> {
            talk.turns()
                .map(|turn| turn.score.as_ref().map(|score| score.tier.name()))
                .collect()
        };
        let mut talk = open();
        assert_eq!(talk.definitions.as_array().unwrap().len(), 1);
        sell(&mut talk);
        talk.answer("Sold.");
        assert_eq!(tiers(&talk), [Some("valid"), None]);
        let read: Vec<&str> = talk
            .written()
            .messages
            .iter()
            .map(|message| message.content.as_str())
            .collect();
        assert_eq!(
            (read, talk.written().expected.clone()),
            (vec!["And another."], Some(json!(3)))
        );
        // With the sampled answers of the first turn this is the third of `max_turns`.
        sell(&mut talk);
        assert_eq!(tiers(&talk), [Some("valid"), Some("unparsable")]);
        assert_eq!(talk.written().chain.end, ChainEnd::MaxTurns);
        // An answer that is not valid ends the conversation.
        let mut wrong = open();
        wrong.answer("Sold.");
        assert_eq!(tiers(&wrong), [Some("unparsable")]);
        // The last turn ends it.
        let row = row
            .to_string()
            .replace("\"expected\":4", "\"expected\":5")
            .replace("\"expected\":3", "\"expected\":5");
        let mut idle = conversation_about(folder.path(), &row);
        ["No.", "No.", "Five."]
            .iter()
            .for_each(|text| idle.answer(text));
        assert_eq!(tiers(&idle), [Some("valid"); 3]);
        assert_eq!(
            idle.turns()
                .map(|turn| turn.answer.as_str())
                .collect::<Vec<_>>(),
            ["No.", "No.", "Five."]
        );
    }
}
