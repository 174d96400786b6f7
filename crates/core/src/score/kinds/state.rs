//! `[score] kind = "state"`: the final state of a conversation's tools equals `expected`.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Number, Value, json};

use crate::dataset::PromptRow;
use crate::environment::{ScoredChain, StateQuery, StateQuestion};
use crate::exact_json::marked_number;
use crate::format::shortened;
use crate::score::definition::{
    Definition, FoundDefinition, GRADED, Judge, KeyInfo, Kind, LazyAnswer, text_digest,
};
use crate::score::error::ScoreError;
use crate::score::needs::Needs;
use crate::score::verdict::{Attempt, FailureClass, Tier, Verdict};
use crate::task::{Home, Read, Section, TaskFiles};

pub(crate) static KIND: Kind = Kind {
    name: "state",
    about: include_str!("state.about.md"),
    keys: &[],
    score_keys: &[
        GRADED,
        KeyInfo::new(
            "tool",
            "the first that answers",
            "`name` of the `[[tool]]` whose final state is judged",
        ),
        KeyInfo::new(
            "query",
            "this, `file` or `ask`",
            "of `sqlite`: the SQL query whose result equals `expected`",
        ),
        KeyInfo::new(
            "file",
            "none",
            "of `files`: the file whose text equals `expected`, in place of `query`",
        ),
        KeyInfo::new(
            "ask",
            "none",
            "of a `run` program: a table that it answers as `state`; of an MCP server: a last call, `{ name = \"list\", arguments = {} }`, which does not count among the model's. In place of `query`",
        ),
    ],
    read,
};

const SHOWN_CHARS: usize = 200;

#[derive(Debug)]
struct StateRules {
    query: StateQuery,
    key: String,
}

fn read(_top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let ask = score
        .get("ask")
        .is_some()
        .then(|| score.json_object("ask"))
        .transpose()?;
    let questions = [
        score.string("query")?.map(StateQuestion::Sql),
        score.string("file")?.map(StateQuestion::File),
        ask.map(|ask| StateQuestion::Program(ask.into())),
    ];
    let mut questions = questions.into_iter().flatten();
    let (Some(question), None) = (questions.next(), questions.next()) else {
        return Err(home.missing(
            "score.query",
            "query = \"SELECT id, status FROM orders ORDER BY id\"",
        ));
    };
    let query = StateQuery {
        tool: score.string("tool")?,
        question,
    };
    let key = json!(query).to_string();
    Ok((Arc::new(StateRules { query, key }), None))
}

impl Definition for StateRules {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(State {
            key: self.key.clone(),
            is_graded: task.score.graded,
        }))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(Value::Bool(true))
    }

    /// A conversation is not an answer: without calls no text changes the state.
    fn lazy_answers<'a>(
        &self,
        _task: &'a TaskFiles,
        _rows: &'a [PromptRow],
    ) -> Vec<LazyAnswer<'a>> {
        Vec::new()
    }

    fn digest(&self, _task: &TaskFiles) -> String {
        text_digest(&format!("state\n{}", self.key))
    }

    fn needs(&self) -> Needs<'_> {
        Needs {
            state: Some((&self.key, &self.query)),
            ..Needs::default()
        }
    }
}

#[derive(Debug)]
struct State {
    key: String,
    is_graded: bool,
}

impl Judge for State {
    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let Some(expected) = attempt.expected() else {
            return attempt
                .failed("the row has no `expected`, which the final state is compared with");
        };
        let place = (attempt.completion, attempt.from);
        let chain = attempt.row.and_then(ScoredChain::of_row);
        if chain.as_ref().is_some_and(|chain| chain.is_truncated()) {
            let (message, class) = (
                "the conversation ended without an answer: truncated",
                FailureClass::Truncated,
            );
            let verdict = Verdict::because(Tier::Unparsable, class, message.to_owned(), place);
            return Verdict {
                exact: Some(false),
                ..verdict
            };
        }
        let Some((found, calls)) =
            chain.and_then(|chain| Some((chain.state(&self.key)?, chain.calls())))
        else {
            return attempt.failed(
                "no final state: a conversation is judged where its tools were called, in `train`, `eval` and `sample`",
            );
        };
        let found = &*read_text(found, expected);
        if is_state(found, expected) {
            return Verdict {
                exact: Some(true),
                ..Verdict::new(Tier::Valid, None)
            };
        }
        let credit = self.is_graded.then(|| share_right(found, expected));
        let [expected, found] =
            [expected, found].map(|value| shortened(&value.to_string(), SHOWN_CHARS));
        let mut message = format!("the final state is {found}, expected {expected}");
        // Otherwise an answer without calls would earn what an attempt earns.
        let (tier, class) = match calls {
            Some((0, 0)) => (Tier::Unparsable, FailureClass::NoCall),
            Some((0, all)) => {
                message += &format!("; none of the {all} calls reached a tool");
                (Tier::Unparsable, FailureClass::NoCall)
            }
            _ => (Tier::Invalid, FailureClass::WrongValue),
        };
        Verdict {
            exact: Some(false),
            credit: credit.filter(|_| tier == Tier::Invalid),
            ..Verdict::because(tier, class, message, place)
        }
    }

    fn completion_of(&self, _expected: &Value, _row: Option<&PromptRow>) -> Option<String> {
        None
    }
}

/// A text as JSON where `expected` is not a text: a tool may answer in text alone.
fn read_text<'a>(found: &'a Value, expected: &Value) -> Cow<'a, Value> {
    let text = found
        .as_str()
        .filter(|_| !expected.is_string() && !expected.is_null());
    let read = text.and_then(|text| serde_json::from_str(text).ok());
    read.map_or(Cow::Borrowed(found), Cow::Owned)
}

fn rows_of(found: &Value) -> Option<&Value> {
    found.get("rows").filter(|_| found.get("columns").is_some())
}

pub(crate) fn share_of_state(found: &Value, expected: &Value) -> f64 {
    let found = &*read_text(found, expected);
    match is_state(found, expected) {
        true => 1.0,
        false => share_right(found, expected),
    }
}

fn is_state(found: &Value, expected: &Value) -> bool {
    match (rows_of(found), expected) {
        (Some(_), Value::Object(_)) | (None, _) => is_equal(found, expected),
        (Some(rows), Value::Array(_)) => is_equal(rows, expected),
        (Some(rows), _) => is_equal(rows, &json!([[expected]])),
    }
}

/// Share of a wrong state that is right, in [0, 1): of rows or items in any order, of members and
/// their own shares, of lines; what is there in addition counts as wrong.
fn share_right(found: &Value, expected: &Value) -> f64 {
    let found = match expected {
        Value::Object(_) => found,
        _ => rows_of(found).unwrap_or(found),
    };
    let (right, all) = match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => matched(found, expected, is_equal),
        (Value::Object(found), Value::Object(expected)) => {
            let share = |(key, expected): (&String, &Value)| match found.get(key) {
                None => 0.0,
                Some(found) if is_equal(found, expected) => 1.0,
                Some(found) => share_right(found, expected),
            };
            let added = found.keys().filter(|key| !expected.contains_key(*key));
            let all = (expected.len() + added.count()).max(1);
            return expected.iter().map(share).sum::<f64>() / all as f64;
        }
        (Value::String(found), Value::String(expected)) => {
            let [found, expected]: [Vec<_>; 2] =
                [found, expected].map(|text| text.lines().collect());
            matched(&found, &expected, |a, b| a == b)
        }
        _ => (0, 1),
    };
    // All may match in another order.
    right as f64 / all.max(right + 1) as f64
}

/// Pairs of equal items, and the items of the longer list.
fn matched<T>(found: &[T], expected: &[T], is_equal: impl Fn(&T, &T) -> bool) -> (usize, usize) {
    let mut open: Vec<&T> = expected.iter().collect();
    let mut right = 0;
    for item in found {
        if let Some(place) = open.iter().position(|other| is_equal(item, other)) {
            open.swap_remove(place);
            right += 1;
        }
    }
    (right, found.len().max(expected.len()))
}

/// The whole number that it is, also if written as 1.0.
fn whole(number: &Number) -> Option<i128> {
    let real = || {
        number
            .as_f64()
            .filter(|real| real.fract() == 0.0 && real.abs() < 1e30)
    };
    number.as_i128().or_else(|| real().map(|real| real as i128))
}

/// 1 equals 1.0.
fn is_equal(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        // Databases have 64-bit integers and floats.
        (Value::Number(found), _) if let Some(expected) = marked_number(expected) => {
            !expected.is_written_as_integer() && found.as_f64() == expected.as_f64()
        }
        (Value::Number(found), Value::Number(expected)) => match (whole(found), whole(expected)) {
            (Some(found), Some(expected)) => found == expected,
            _ => found.as_f64() == expected.as_f64(),
        },
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| is_equal(found, expected))
        }
        (Value::Object(found), Value::Object(expected)) => {
            let is_same = |(key, value)| found.get(key).is_some_and(|found| is_equal(found, value));
            found.len() == expected.len() && expected.iter().all(is_same)
        }
        _ => found == expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_wrong_state_counts_what_is_missing_and_what_is_added() {
        let table = |rows: Value| json!({"columns": ["a"], "rows": rows});
        for (found, expected, share) in [
            (table(json!([[1], [2]])), json!([[1], [3]]), 0.5),
            (table(json!([[1], [2], [3], [4]])), json!([[4]]), 0.25),
            (table(json!([])), json!([[1]]), 0.0),
            (json!([2, 1]), json!([1, 2]), 2.0 / 3.0),
            (json!({"a": 1, "b": 2}), json!({"a": 1, "b": 3}), 0.5),
            (json!({"a": [1]}), json!({"a": [1, 2]}), 0.5),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), 0.5),
            (json!("x\ny"), json!("x\nz"), 0.5),
            (json!(1), json!(2), 0.0),
        ] {
            assert_eq!(share_right(&found, &expected), share, "{found} {expected}");
        }
    }

    #[test]
    fn a_text_is_read_as_json_where_a_text_is_not_expected() {
        for (found, expected, is_right) in [
            (json!("[1, 2.0]"), json!([1, 2]), true),
            (json!("{\"a\": 1}"), json!({"a": 2}), false),
            (json!("5"), json!(5), true),
            (json!("5"), json!("5"), true),
            (json!("null"), Value::Null, false),
            (json!("five"), json!(5), false),
        ] {
            let read = read_text(&found, &expected);
            assert_eq!(is_state(&read, &expected), is_right, "{found} {expected}");
        }
    }

    #[test]
    fn a_state_is_compared_as_rows_or_as_the_only_value() {
        let table = |rows: Value| json!({"columns": ["a", "b"], "rows": rows});
        for (found, expected, is_right) in [
            (table(json!([[1, "x"]])), json!([[1.0, "x"]]), true),
            (table(json!([[1, "x"]])), json!([[1, "y"]]), false),
            (table(json!([[1, "x"], [2, "y"]])), json!([[1, "x"]]), false),
            (table(json!([[3]])), json!(3), true),
            (table(json!([[3], [3]])), json!(3), false),
            (table(json!([])), json!([]), true),
            (table(json!([[1]])), table(json!([[1]])), true),
            (json!("text"), json!("text"), true),
            (Value::Null, json!("text"), false),
            (json!(i64::MAX), json!(i64::MAX - 1), false),
            (
                json!(9_007_199_254_740_993_u64),
                json!(9_007_199_254_740_992.0),
                false,
            ),
            (json!(1e16), json!(10_000_000_000_000_000_u64), true),
            (
                json!({"a": [1, {"b": null}]}),
                json!({"a": [1, {"b": null}]}),
                true,
            ),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), false),
        ] {
            assert_eq!(is_state(&found, &expected), is_right, "{found} {expected}");
        }
    }
}
