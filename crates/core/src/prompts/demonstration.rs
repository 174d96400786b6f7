//! Demonstrations, held with the task's tools: what each turn says, and whether the tools reply as they are recorded.

use std::ops::Deref;

use rayon::prelude::*;
use serde_json::Value;

use super::checked_set::{CheckedSet, spread};
use super::hand_conversation::HandConversation;
use crate::dataset::PromptRow;
use crate::environment::{
    AnsweredCall, CallOutcome, ChainEnd, ToolCall, ToolChain, ToolReply, ToolStep, read_call,
};
use crate::format::{counted, shortened};
use crate::score::{Scorer, Task, Tier, on_every_core};

const SHOWN_CHARS: usize = 120;

/// What a model says in a turn of a demonstration, and what its tools replied.
#[derive(Debug, Clone, PartialEq)]
pub struct DemonstratedTurn {
    /// The answer, or text before the calls.
    pub text: String,
    /// None in the last turn.
    pub calls: Vec<ToolCall>,
    pub results: Vec<String>,
}

pub fn demonstrated_turns(row: &PromptRow) -> Vec<DemonstratedTurn> {
    let mut turns: Vec<DemonstratedTurn> = Vec::new();
    for message in row.demonstration() {
        match turns.last_mut().filter(|_| message.role == "tool") {
            Some(turn) => turn.results.push(message.content),
            None => turns.push(DemonstratedTurn {
                calls: message.tool_calls().iter().filter_map(read_call).collect(),
                text: message.content,
                results: Vec::new(),
            }),
        }
    }
    turns
}

/// The turns as a conversation without tokens, and its answer.
pub fn demonstrated_chain(mut turns: Vec<DemonstratedTurn>) -> (ToolChain, String) {
    let answer = turns.pop_if(|turn| turn.calls.is_empty());
    let answered = |(call, text)| {
        let (outcome, seconds) = (CallOutcome::Answered, 0.0);
        let reply = ToolReply {
            text,
            outcome,
            seconds,
        };
        AnsweredCall::new(call, reply)
    };
    let step = |turn: DemonstratedTurn| {
        let calls = turn.calls.into_iter().zip(turn.results).map(answered);
        ToolStep::unsampled(turn.text, calls.collect())
    };
    let chain = ToolChain::answered(turns.into_iter().map(step).collect());
    (chain, answer.map_or_else(String::new, |turn| turn.text))
}

/// Holds a row's demonstration with the task's tools. Returns the first thing that is not as it is recorded: a call that
/// fails, a result that differs, an end by a limit, a conversation that is not valid.
pub fn demonstration_problem(
    task: &Task,
    scorer: impl Deref<Target = Scorer>,
    row: &PromptRow,
) -> Option<String> {
    turns_problem(task, scorer, row, demonstrated_turns(row))
}

pub(super) fn turns_problem(
    task: &Task,
    scorer: impl Deref<Target = Scorer>,
    row: &PromptRow,
    turns: Vec<DemonstratedTurn>,
) -> Option<String> {
    let mut held = match HandConversation::open(task, scorer, row) {
        Ok(held) => held,
        Err(error) => return Some(error.to_string()),
    };
    for (index, turn) in turns.into_iter().enumerate() {
        let place = format!("turn {}", index + 1);
        if turn.calls.is_empty() {
            held.answer(&turn.text);
            break;
        }
        held.call(turn.calls);
        let chain = &held.written().chain;
        if held.written().score.is_some() {
            let why = chain.failure.as_deref().unwrap_or_default();
            return Some(format!(
                "{place} ends the conversation: {} {why}",
                chain.end.name()
            ));
        }
        let answered = chain.steps.last().map(|step| &step.calls)?;
        for (call, recorded) in answered.iter().zip(&turn.results) {
            let (name, reply) = (&call.name, shortened(&call.reply, SHOWN_CHARS));
            if call.outcome != CallOutcome::Answered {
                return Some(format!("{place}: the call of `{name}` fails: {reply}"));
            }
            if !is_same(&call.reply, recorded) {
                let recorded = shortened(recorded, SHOWN_CHARS);
                return Some(format!(
                    "{place}: `{name}` replies {reply}, recorded is {recorded}"
                ));
            }
        }
    }
    let (end, score) = (held.written().chain.end, held.written().score.as_ref()?);
    let why = score.errors.first().map_or("", |error| &error.message);
    (score.tier != Tier::Valid || end != ChainEnd::Answer)
        .then(|| format!("the conversation is not valid: {why}"))
}

/// However JSON is spaced.
fn is_same(reply: &str, recorded: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    reply.trim() == recorded.trim()
        || value(reply).is_some_and(|reply| Some(reply) == value(recorded))
}

/// The rows whose demonstrations differ from what the tools reply, the first with its reason. Of many rows so many are tried,
/// spread evenly: each takes processes of the task's tools.
pub(super) fn failing_demonstrations(
    task: &Task,
    scorer: &Scorer,
    rows: &CheckedSet<'_>,
) -> Option<(usize, String)> {
    const MAX_TRIED: usize = 256;
    let mut all = rows.usable();
    all.retain(|mark| mark.has_demonstration);
    if all.is_empty() {
        return None;
    }
    if task.toolset().is_none() {
        let why = "the task has no `[[tool]]` whose calls it could show".to_owned();
        return Some((all.len(), format!("line {}: {why}", all[0].line)));
    }
    let tried = rows.read(&spread(&all, MAX_TRIED));
    let problem = |row: &PromptRow| Some((row.line, demonstration_problem(task, scorer, row)?));
    let problems: Vec<(usize, String)> =
        on_every_core(|| tried.par_iter().filter_map(problem).collect());
    let (line, why) = problems.first()?;
    let of = if tried.len() < all.len() {
        format!(" (of {} tried)", counted(tried.len(), "row"))
    } else {
        String::new()
    };
    Some((problems.len(), format!("line {line}{of}: {why}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::load_from;

    const TOML: &str = "name = \"shop\"\n[prompts]\ntrain = \"train.jsonl\"\n[[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"shop.sql\"\n\
                        [tools]\nmax_calls = 2\n[score]\nkind = \"state\"\nquery = \"SELECT stock FROM item\"\n";

    fn calls(sql: &[&str]) -> Value {
        let call = |sql: &&str| json!({"function": {"name": "execute", "arguments": {"sql": sql}}});
        json!({"role": "assistant", "content": "", "tool_calls": sql.iter().map(call).collect::<Vec<_>>()})
    }

    #[test]
    fn a_demonstration_is_held_with_the_tools() {
        let folder = tempfile::tempdir().unwrap();
        let sql = "CREATE TABLE item (stock INT); INSERT INTO item VALUES (5);";
        for (name, text) in [("task.toml", TOML), ("shop.sql", sql), ("train.jsonl", "")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let task = Task::load(folder.path()).unwrap();
        let scorer = Scorer::new(&task).unwrap();
        let (sell, answer) = (
            "UPDATE item SET stock = stock - 1",
            json!({"role": "assistant", "content": "Sold."}),
        );
        let mut open = HandConversation::open(&task, &scorer, &row(json!([answer]))).unwrap();
        open.call(
            demonstrated_turns(&row(json!([calls(&[sell]), result("x"), answer])))
                .remove(0)
                .calls,
        );
        let reply = open.written().chain.steps[0].calls[0].reply.clone();
        fn result(content: &str) -> Value {
            json!({"role": "tool", "content": content})
        }
        fn row(demonstration: Value) -> PromptRow {
            let row = json!({"messages": [{"role": "user", "content": "Sell one."}], "expected": 4, "demonstration": demonstration});
            load_from("train.jsonl", row.to_string().as_bytes())
                .unwrap()
                .remove(0)
        }
        for (demonstration, expected) in [
            (json!([calls(&[sell]), result(&reply), answer]), None),
            (
                json!([calls(&[sell]), result("nothing"), answer]),
                Some("turn 1: `execute` replies"),
            ),
            (
                json!([answer]),
                Some("the conversation is not valid: the final state is"),
            ),
            (
                json!([
                    calls(&[sell, sell, sell]),
                    result(""),
                    result(""),
                    result(""),
                    answer
                ]),
                Some("turn 1 ends the conversation: max_calls"),
            ),
            (
                json!([{"role": "assistant", "content": "", "tool_calls": [
                    {"function": {"name": "buy", "arguments": {}}}]}, result(""), answer]),
                Some("turn 1: the call of `buy` fails"),
            ),
        ] {
            let found = demonstration_problem(&task, &scorer, &row(demonstration));
            match (found, expected) {
                (None, None) => {}
                (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
