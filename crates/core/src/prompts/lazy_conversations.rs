//! What conversations earn that do not do what is asked, beside the degenerate answers of
//! [`crate::score::audit`].

use super::call_search::ANSWER;
use super::call_values::{CallValues, candidate_calls};
use super::hand_conversation::HandConversation;
use crate::dataset::PromptRow;
use crate::environment::{EnvironmentError, ToolCall};
use crate::format::{counted, shortened};
use crate::propose::{OfferedField, offered_values, pays_values};
use crate::score::audit::{Finding, audit};
use crate::score::{Scorer, Task, Tier};

/// Rows tried: each opens the tools three times.
pub(super) const MAX_ROWS: usize = 20;
/// Limit if each conversation starts programs.
const MAX_ROWS_WITH_PROGRAMS: usize = 4;
/// Calls of the same function with the same arguments.
const REPEATED: usize = 3;

/// Degenerate answers, and where the final state of live tools is judged conversations without a
/// call, with one call repeated, and with a call of each function.
pub fn audit_task(
    task: &Task,
    scorer: &Scorer,
    rows: &[PromptRow],
) -> Result<Vec<Finding>, EnvironmentError> {
    let mut findings = audit(task, scorer, rows);
    if pays_values(task) {
        let fields = offered_values(task, scorer, rows).into_iter();
        findings.extend(fields.filter(OfferedField::is_open).map(offered));
    }
    findings.extend(lazy_conversations(task, scorer, rows)?);
    Ok(findings)
}

/// What a wrong value of the prompt earns in a field.
fn offered(field: OfferedField) -> Finding {
    Finding {
        name: format!("{}: {}", field.field, field.what),
        completion: shortened(&field.example, 60),
        tier: Tier::Valid,
        rows: field.rows,
        reward: field.reward,
        weak: true,
        sentence: field.sentence(),
    }
}

/// Those with live tools whose final state is judged; else empty.
pub(super) fn lazy_conversations(
    task: &Task,
    scorer: &Scorer,
    rows: &[PromptRow],
) -> Result<Vec<Finding>, EnvironmentError> {
    let is_judged = task.has_state() && !rows.is_empty();
    let Some(tools) = task.toolset().filter(|_| is_judged) else {
        return Ok(Vec::new());
    };
    let most = match tools.needs_trust() {
        true => MAX_ROWS_WITH_PROGRAMS,
        false => MAX_ROWS,
    };
    let rows = &rows[..rows.len().min(most)];
    let first = rows
        .iter()
        .map(|row| Ok(first_calls(&*tools.definitions_of(row)?, row)))
        .collect::<Result<Vec<_>, EnvironmentError>>()?;
    let lazy = |name: &str, calls: fn(Vec<ToolCall>) -> Vec<ToolCall>| {
        let (mut earned, mut shown) = (Vec::new(), String::new());
        for (row, first) in rows.iter().zip(&first).rev() {
            let calls = calls(first.clone());
            shown = match calls.is_empty() {
                true => ANSWER.to_owned(),
                false => calls.iter().map(written).collect::<Vec<_>>().join(" "),
            };
            earned.push(score(task, scorer, row, calls)?);
        }
        Ok::<_, EnvironmentError>(finding(task, name, &shown, &earned))
    };
    let mut idle = lazy("an answer without a call", |_| Vec::new())?;
    let repeated = lazy("one call, repeated", |calls| {
        let first = calls.into_iter().take(1);
        first.flat_map(|call| vec![call; REPEATED]).collect()
    })?;
    let each = lazy("a call of each function", |calls| calls)?;
    if idle.reward >= each.reward && idle.reward > 0.0 {
        idle.weak = true;
        idle.sentence = format!(
            "an answer without a call earns {:.2}, a failed attempt {:.2}: training is drawn to it; lower what it earns by a tier or a `[[reward]]` part",
            idle.reward, each.reward
        );
    }
    Ok(vec![idle, repeated, each])
}

/// A call in few words.
fn written(call: &ToolCall) -> String {
    format!("{}{}", call.name, serde_json::json!(call.arguments))
}

/// A call of each function, with the values that come first.
fn first_calls(definitions: &serde_json::Value, row: &PromptRow) -> Vec<ToolCall> {
    let mut calls: Vec<ToolCall> = Vec::new();
    for (_, call) in candidate_calls(definitions, &CallValues::of_messages(&row.messages)) {
        if calls.iter().all(|other| other.name != call.name) {
            calls.push(call);
        }
    }
    calls
}

fn score(
    task: &Task,
    scorer: &Scorer,
    row: &PromptRow,
    calls: Vec<ToolCall>,
) -> Result<(f64, Tier), EnvironmentError> {
    let mut held = HandConversation::open(task, scorer, row)?;
    for call in calls {
        if held.written().score.is_none() {
            held.call(vec![call]);
        }
    }
    if held.written().score.is_none() {
        held.answer(ANSWER);
    }
    // Later turns of the row are not reached by what fails.
    let score = held.turns().find_map(|turn| turn.score.as_ref());
    Ok(score.map_or((0.0, Tier::Unparsable), |score| (score.reward, score.tier)))
}

/// `shown`: the first row's conversation. `earned`: not empty.
fn finding(task: &Task, name: &str, shown: &str, earned: &[(f64, Tier)]) -> Finding {
    let rows = earned.len();
    let reward = earned.iter().map(|(reward, _)| reward).sum::<f64>() / rows as f64;
    let valid = earned
        .iter()
        .filter(|(_, tier)| *tier == Tier::Valid)
        .count();
    let counts = |tier| earned.iter().filter(|(_, other)| *other == tier).count();
    let tiers = [Tier::Unparsable, Tier::Invalid, Tier::Valid];
    let best = task.score.tiers.valid;
    let weak = valid * 10 >= rows * 9;
    let easy = if weak {
        ": too easy; rows must ask for a change of the state"
    } else {
        ""
    };
    Finding {
        name: name.to_owned(),
        completion: shortened(shown, 60),
        tier: tiers
            .into_iter()
            .max_by_key(|tier| counts(*tier))
            .unwrap_or(Tier::Unparsable),
        rows,
        reward,
        weak,
        sentence: format!(
            "{name} earns {reward:.2} of {best:.2} in {}{easy}",
            counted(rows, "row")
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset;
    use crate::task::PromptSet;

    #[test]
    fn a_conversation_without_a_call_that_earns_what_an_attempt_earns_is_weak() {
        let folder = tempfile::tempdir().unwrap();
        let tools = r#"[{"type": "function", "function": {"name": "sell", "parameters": {"type": "object",
            "properties": {"count": {"enum": [1, 4]}}, "required": ["count"]}}, "sql": "UPDATE item SET stock = stock - :count"}]"#;
        let sql = "CREATE TABLE item (stock INT); INSERT INTO item VALUES (6);";
        let earned = |content: &str, tiers: &str| -> Vec<(f64, bool)> {
            let toml = format!(
                "name = \"shop\"\n[prompts]\ntrain = \"train.jsonl\"\n[[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"shop.sql\"\n\
                 definitions = \"tools.json\"\n[score]\nkind = \"state\"\nquery = \"SELECT stock FROM item\"\n{tiers}"
            );
            let row = json!({"messages": [{"role": "user", "content": content}], "expected": 2});
            for (name, text) in [
                ("shop.sql", sql),
                ("tools.json", tools),
                ("train.jsonl", &row.to_string()),
                ("task.toml", &toml),
            ] {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            let task = Task::load(folder.path()).unwrap();
            let rows = dataset::load(&task, PromptSet::Train).unwrap();
            let findings = audit_task(&task, &Scorer::new(&task).unwrap(), &rows).unwrap();
            let names: Vec<&str> = findings.iter().map(|found| found.name.as_str()).collect();
            let expected = [
                "an answer without a call",
                "one call, repeated",
                "a call of each function",
            ];
            assert_eq!(names, expected);
            findings
                .iter()
                .map(|found| (found.reward, found.weak))
                .collect()
        };
        // Members of an enum that the request names are tried first.
        assert_eq!(
            earned("Sell 1.", ""),
            [(0.0, false), (0.5, false), (0.5, false)]
        );
        assert_eq!(
            earned("Sell 4.", ""),
            [(0.0, false), (0.5, false), (1.0, true)]
        );
        let level = "tiers = { unparsable = 0.5, invalid = 0.5, valid = 1.0 }\n";
        assert_eq!(
            earned("Sell 1.", level),
            [(0.5, true), (0.5, false), (0.5, false)]
        );
    }
}
