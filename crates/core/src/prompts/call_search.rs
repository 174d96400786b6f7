//! Search for the calls that lead to a row's expected final state, for tasks that judge the state
//! of their tools.
//!
//! Best first: by the share of the state that is right, then by fewer calls and values that come
//! first. Arguments take values from the schema, the user's messages and earlier results, never
//! from `expected`. What is found depends on nothing but the row and the tools.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;
use serde_json::{Value, json};

use super::call_values::{CallValues, candidate_calls};
use super::checked_set::{CheckedSet, RowMark, spread};
use super::demonstration::{DemonstratedTurn, turns_problem};
use crate::dataset::PromptRow;
use crate::environment::{
    CallOutcome, Environment, EnvironmentError, StateQuery, ToolCall, Toolset,
};
use crate::score::{Scorer, Task, on_every_core, share_of_state};

/// Calls tried for a row, at most.
pub const MAX_TRIED: usize = 4_000;
/// A conversation that starts a program counts as so many calls.
const PROGRAM_START: usize = 200;
/// Conversations held open, at most.
const MAX_HELD: usize = 4;
/// Ends a conversation of which the state alone is judged.
pub(super) const ANSWER: &str = "Done.";

/// Why a row has no calls.
#[derive(Debug, thiserror::Error)]
pub enum NoCalls {
    #[error("the final state of tools is not judged")]
    NoState,
    #[error("the row has no `expected`")]
    NoExpected,
    #[error("calls of rows of several turns are not searched")]
    SeveralTurns,
    #[error(
        "the limit of {MAX_TRIED} calls is reached (a started program counts as {PROGRAM_START})"
    )]
    Limit,
    #[error(
        "no calls with values of the schemas, the request and earlier results lead to `expected`"
    )]
    Exhausted,
    #[error("the calls that lead to `expected` do not hold when they are made again: {0}")]
    Refused(String),
    #[error(transparent)]
    Tools(#[from] EnvironmentError),
}

/// Turns of a conversation about the row that ends in its expected state: calls, then an answer.
///
/// # Errors
/// [`NoCalls`] where none is found.
fn find_calls(
    task: &Task,
    scorer: &Scorer,
    row: &PromptRow,
) -> Result<Vec<DemonstratedTurn>, NoCalls> {
    let (Some(tools), Some((_, query))) = (task.toolset(), task.state_queries().next()) else {
        return Err(NoCalls::NoState);
    };
    let expected = row.expected.as_ref().ok_or(NoCalls::NoExpected)?;
    if row.turn_count() > 1 {
        return Err(NoCalls::SeveralTurns);
    }
    let definitions = tools.definitions_of(row)?;
    let search = Search {
        tools,
        row,
        query,
        expected,
        definitions: &definitions,
        most_calls: tools.limits().max_calls,
        has_programs: tools.needs_trust(),
    };
    let steps = search.run()?;
    let steps = search.ordered(search.shortened(steps)?)?;
    // Results may differ, such as the time of day.
    let unrecorded = |turn: &DemonstratedTurn| DemonstratedTurn {
        results: Vec::new(),
        ..turn.clone()
    };
    let problem = |turns: &[DemonstratedTurn]| {
        turns_problem(task, scorer, row, turns.iter().map(unrecorded).collect())
    };
    let grouped = search.grouped(&steps);
    if problem(&grouped).is_none() {
        return Ok(grouped);
    }
    let turns = search.one_by_one(&steps);
    match problem(&turns) {
        None => Ok(turns),
        Some(why) => Err(NoCalls::Refused(why)),
    }
}

/// [`find_calls`] for rows, on every core.
pub fn find_calls_of(
    task: &Task,
    scorer: &Scorer,
    rows: &[&PromptRow],
) -> Vec<Result<Vec<DemonstratedTurn>, NoCalls>> {
    let find = |row: &&PromptRow| find_calls(task, scorer, row);
    on_every_core(|| rows.par_iter().map(find).collect())
}

/// What search finds for some rows without a demonstration.
#[derive(Debug)]
pub struct SearchedRows {
    /// Rows without a demonstration.
    pub all: usize,
    /// Calls of each row where some were found.
    pub calls: Vec<usize>,
    pub without: Vec<(PromptRow, NoCalls)>,
}

/// Searches calls for at most 32 rows without a demonstration, 4 where each conversation starts a
/// program. `None` where training searches none.
pub fn search_rows(task: &Task, scorer: &Scorer, set: &CheckedSet<'_>) -> Option<SearchedRows> {
    const MAX_ROWS: usize = 32;
    const MAX_ROWS_OF_PROGRAMS: usize = 4;
    let tools = task.toolset().filter(|_| task.has_state())?;
    let marks = set.rows().iter().copied();
    let all: Vec<RowMark> = marks.filter(|mark| !mark.has_demonstration).collect();
    let most = match tools.needs_trust() {
        true => MAX_ROWS_OF_PROGRAMS,
        false => MAX_ROWS,
    };
    let tried = set.read(&spread(&all, most));
    let found = find_calls_of(task, scorer, &tried.iter().collect::<Vec<_>>());
    let (mut calls, mut without) = (Vec::new(), Vec::new());
    for (row, found) in tried.into_iter().zip(found) {
        match found {
            Ok(turns) => calls.push(turns.iter().map(|turn| turn.calls.len()).sum()),
            Err(why) => without.push((row, why)),
        }
    }
    (calls.len() + without.len() > 0).then_some(SearchedRows {
        all: all.len(),
        calls,
        without,
    })
}

#[derive(Clone)]
struct Step {
    call: ToolCall,
    reply: String,
}

struct Search<'s> {
    tools: &'s Toolset,
    row: &'s PromptRow,
    query: &'s StateQuery,
    expected: &'s Value,
    definitions: &'s Value,
    most_calls: usize,
    has_programs: bool,
}

/// Calls from the initial state, and what can follow them.
struct Node {
    steps: Vec<Step>,
    found: Found,
    /// Of its calls: the ranks of their values, and a cost for each.
    cost: usize,
    /// Equal for nodes that differ in calls without effect alone.
    history: usize,
    /// `None` until the node is expanded, which few are.
    next_calls: Option<NextCalls>,
}

struct NextCalls {
    values: CallValues,
    candidates: std::vec::IntoIter<(usize, ToolCall)>,
}

/// The tools after calls.
#[derive(Clone)]
struct Found {
    share: f64,
    state: Value,
    /// `None`: only the state tells what calls change.
    changes: Option<u64>,
}

/// The lowest is expanded first: the best share, then the lowest cost; unique by its last member.
type Priority = (Reverse<u64>, usize, usize);

/// Cost of a call beside the ranks of its values.
const CALL_COST: usize = 1;
/// Of a call that changes something without a better state.
const CHANGE_COST: usize = 10;

impl Node {
    /// Before it is expanded.
    fn priority(&self, number: usize) -> Priority {
        let share = (self.found.share * 1e9) as u64;
        (Reverse(share), self.cost, number)
    }

    /// After one more call, of this rank. `number`: its own.
    fn child(&self, steps: Vec<Step>, found: Found, rank: usize, number: usize) -> Self {
        let is_same = found.is_same(&self.found);
        let is_progress = is_same || found.share > self.found.share;
        let more = if is_progress { CALL_COST } else { CHANGE_COST };
        Self {
            steps,
            found,
            cost: self.cost + rank + more,
            history: if is_same { self.history } else { number },
            next_calls: None,
        }
    }
}

impl Found {
    fn is_same(&self, other: &Self) -> bool {
        self.changes == other.changes && self.state == other.state
    }
}

/// What calls have shown so far, by history.
#[derive(Default)]
struct Tried {
    /// Calls that may still be tried.
    left: usize,
    /// Calls without effect.
    idle: HashSet<(usize, String)>,
    /// The call of a function that first got a reply. Another with the same reply, such as `not
    /// found`, is not tried further.
    replied: HashMap<(usize, String, String), String>,
    /// Conversations, the latest last.
    held: Vec<(usize, Environment)>,
}

impl Tried {
    fn take(&mut self, history: usize) -> Option<Environment> {
        let at = self.held.iter().position(|(other, _)| *other == history)?;
        Some(self.held.remove(at).1)
    }

    fn keep(&mut self, history: usize, environment: Environment) {
        self.held.push((history, environment));
        if self.held.len() > MAX_HELD {
            self.held.remove(0);
        }
    }
}

enum Outcome {
    /// Refused, failed, or without effect.
    Idle,
    /// No call may be tried any more.
    Limit,
    /// All calls, and what they lead to.
    Effect(Vec<Step>, Found),
}

impl Search<'_> {
    fn run(&self) -> Result<Vec<Step>, NoCalls> {
        let mut environment = self.tools.open(self.row)?;
        let found = self.found(&mut environment)?;
        if found.share >= 1.0 {
            return Ok(Vec::new());
        }
        let root = Node {
            steps: Vec::new(),
            found,
            cost: 0,
            history: 0,
            next_calls: None,
        };
        let mut tried = Tried {
            left: MAX_TRIED,
            held: vec![(root.history, environment)],
            ..Tried::default()
        };
        let (mut open, mut count) = (BTreeMap::new(), 1);
        open.insert(root.priority(0), root);
        while let Some((mut priority, mut node)) = open.pop_first() {
            let next_calls = node.next_calls.take();
            let mut next_calls = next_calls.unwrap_or_else(|| self.next_calls(&node.steps));
            while let Some((rank, call)) = next_calls.candidates.next() {
                match self.try_call(&node, &next_calls.values, call, count, &mut tried)? {
                    Outcome::Idle => {}
                    Outcome::Limit => return Err(NoCalls::Limit),
                    Outcome::Effect(steps, found) if found.share >= 1.0 => return Ok(steps),
                    Outcome::Effect(steps, found) => {
                        let child = node.child(steps, found, rank, count);
                        if child.steps.len() < self.most_calls {
                            open.insert(child.priority(count), child);
                        }
                        count += 1;
                    }
                }
                let Some((rank, _)) = next_calls.candidates.as_slice().first() else {
                    break;
                };
                priority.1 = node.cost + rank;
                let first = open.first_key_value().map(|(first, _)| *first);
                if first.is_some_and(|first| first < priority) {
                    node.next_calls = Some(next_calls);
                    open.insert(priority, node);
                    break;
                }
            }
        }
        Err(NoCalls::Exhausted)
    }

    /// Makes a call after the node's. `number`: the history of what it changes.
    fn try_call(
        &self,
        node: &Node,
        values: &CallValues,
        call: ToolCall,
        number: usize,
        tried: &mut Tried,
    ) -> Result<Outcome, EnvironmentError> {
        let key = (node.history, format!("{}{:?}", call.name, call.arguments));
        if tried.idle.contains(&key) || node.steps.iter().any(|step| step.call == call) {
            return Ok(Outcome::Idle);
        }
        let held = tried.take(node.history);
        let starts_program = self.has_programs && held.is_none();
        let cost = if starts_program { PROGRAM_START } else { 1 };
        let Some(left) = tried.left.checked_sub(cost) else {
            return Ok(Outcome::Limit);
        };
        tried.left = left;
        let mut environment = match held {
            Some(held) => held,
            None => self.reopened(&node.steps)?,
        };
        let reply = environment.call(std::slice::from_ref(&call)).remove(0);
        let found = match reply.outcome {
            CallOutcome::Answered => self.found_after(node, &mut environment),
            CallOutcome::Refused => Some(node.found.clone()),
            CallOutcome::Failed | CallOutcome::NotRecorded => None,
        };
        let Some(found) = found else {
            tried.idle.insert(key);
            return Ok(Outcome::Idle);
        };
        let is_same = found.is_same(&node.found);
        tried.keep(if is_same { node.history } else { number }, environment);
        let first = (node.history, call.name.clone(), reply.text.clone());
        let is_new = reply.outcome == CallOutcome::Answered
            && values.is_new(&reply.text)
            && *tried.replied.entry(first).or_insert_with(|| key.1.clone()) == key.1;
        if is_same && !is_new {
            tried.idle.insert(key);
            return Ok(Outcome::Idle);
        }
        let mut steps = node.steps.clone();
        let reply = reply.text;
        steps.push(Step { call, reply });
        Ok(Outcome::Effect(steps, found))
    }

    /// After one more call than the node's.
    fn found_after(&self, node: &Node, environment: &mut Environment) -> Option<Found> {
        let changes = environment.changes();
        match changes.is_some() && changes == node.found.changes {
            true => Some(node.found.clone()),
            false => self.found(environment).ok(),
        }
    }

    fn next_calls(&self, steps: &[Step]) -> NextCalls {
        let values = self.values(steps);
        NextCalls {
            candidates: candidate_calls(self.definitions, &values).into_iter(),
            values,
        }
    }

    /// A conversation after these calls.
    fn reopened(&self, steps: &[Step]) -> Result<Environment, EnvironmentError> {
        let mut environment = self.tools.open(self.row)?;
        for step in steps {
            environment.call(std::slice::from_ref(&step.call));
        }
        Ok(environment)
    }

    fn found(&self, environment: &mut Environment) -> Result<Found, EnvironmentError> {
        let state = environment.state(self.query)?;
        Ok(Found {
            share: share_of_state(&state, self.expected),
            state,
            changes: environment.changes(),
        })
    }

    /// What arguments may be taken from after these calls.
    fn values(&self, steps: &[Step]) -> CallValues {
        let mut values = CallValues::of_messages(&self.row.messages);
        for step in steps {
            values.add_call(&step.call, &step.reply);
        }
        values
    }

    /// Whether a call needs no values but those that are known after these calls.
    fn can_call(&self, steps: &[Step], call: &ToolCall) -> bool {
        let candidates = candidate_calls(self.definitions, &self.values(steps));
        candidates.iter().any(|(_, candidate)| candidate == call)
    }

    /// Without the calls that the state does not need, and whose results later calls do not need.
    fn shortened(&self, mut steps: Vec<Step>) -> Result<Vec<Step>, EnvironmentError> {
        for index in (0..steps.len()).rev() {
            let mut fewer = steps.clone();
            fewer.remove(index);
            let is_known =
                |(index, step): (usize, &Step)| self.can_call(&fewer[..index], &step.call);
            if !fewer.iter().enumerate().all(is_known) {
                continue;
            }
            if self.repeat(&mut fewer)? {
                steps = fewer;
            }
        }
        Ok(steps)
    }

    /// Makes the calls again; returns whether they lead to the expected state.
    fn repeat(&self, steps: &mut [Step]) -> Result<bool, EnvironmentError> {
        let mut environment = self.tools.open(self.row)?;
        for step in steps {
            let reply = environment.call(std::slice::from_ref(&step.call));
            step.reply = reply.into_iter().map(|reply| reply.text).collect();
        }
        let found = self.found(&mut environment);
        Ok(found.is_ok_and(|found| found.share >= 1.0))
    }

    /// In the order in which the user mentions what they are about: each call that needs no earlier
    /// result, with those that need its result.
    fn ordered(&self, steps: Vec<Step>) -> Result<Vec<Step>, EnvironmentError> {
        let said = self.values(&[]);
        let mut parts: Vec<(usize, Vec<Step>)> = Vec::new();
        for step in &steps {
            let arguments = || step.call.arguments.values();
            let is_unsaid = |value: &&Value| !said.has(value);
            let needed: Vec<&Value> = arguments().filter(is_unsaid).collect();
            let gives = |step: &Step| {
                let one = self.values(std::slice::from_ref(step));
                needed.iter().any(|value| one.has(value))
            };
            let place = arguments().map(|value| said.place(value)).max();
            let (mut part, mut others) = ((place.unwrap_or(0), Vec::new()), Vec::new());
            for earlier in parts {
                if !earlier.1.iter().any(gives) {
                    others.push(earlier);
                } else if part.1.is_empty() {
                    part = earlier;
                } else {
                    part.0 = part.0.min(earlier.0);
                    part.1.extend(earlier.1);
                }
            }
            part.1.push(step.clone());
            others.push(part);
            parts = others;
        }
        parts.sort_by_key(|(place, _)| *place);
        let mut sorted: Vec<Step> = parts.into_iter().flat_map(|(_, part)| part).collect();
        Ok(if self.repeat(&mut sorted)? {
            sorted
        } else {
            steps
        })
    }

    /// Calls of one function that need no result of each other are one turn.
    fn grouped(&self, steps: &[Step]) -> Vec<DemonstratedTurn> {
        let mut turns: Vec<DemonstratedTurn> = Vec::new();
        let mut begun = 0;
        for (index, step) in steps.iter().enumerate() {
            match turns.last_mut() {
                Some(turn)
                    if turn.calls[0].name == step.call.name
                        && self.can_call(&steps[..begun], &step.call) =>
                {
                    turn.calls.push(step.call.clone());
                    turn.results.push(step.reply.clone());
                }
                _ => {
                    begun = index;
                    turns.push(turn_of(step));
                }
            }
        }
        turns.push(answer());
        turns
    }

    fn one_by_one(&self, steps: &[Step]) -> Vec<DemonstratedTurn> {
        steps.iter().map(turn_of).chain([answer()]).collect()
    }
}

fn turn_of(step: &Step) -> DemonstratedTurn {
    DemonstratedTurn {
        text: String::new(),
        calls: vec![step.call.clone()],
        results: vec![step.reply.clone()],
    }
}

fn answer() -> DemonstratedTurn {
    DemonstratedTurn {
        text: ANSWER.to_owned(),
        calls: Vec::new(),
        results: Vec::new(),
    }
}

/// The turns as messages of a row's `demonstration`.
pub fn demonstration_messages(turns: &[DemonstratedTurn]) -> Value {
    let mut messages = Vec::new();
    for turn in turns {
        if turn.calls.is_empty() {
            messages.push(json!({"role": "assistant", "content": turn.text}));
            continue;
        }
        let calls = turn.calls.iter().map(|call| {
            json!({"type": "function", "function": {"name": call.name, "arguments": call.arguments}})
        });
        messages.push(json!({"role": "assistant", "content": turn.text, "tool_calls": calls.collect::<Vec<_>>()}));
        let replies = turn.results.iter();
        messages.extend(replies.map(|reply| json!({"role": "tool", "content": reply})));
    }
    Value::Array(messages)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::{self, load_from};
    use crate::task::PromptSet;

    /// Calls of the turns, a line each.
    fn shown(turns: &[DemonstratedTurn]) -> String {
        let call = |call: &ToolCall| format!("{}{}", call.name, json!(call.arguments));
        let turn = |turn: &DemonstratedTurn| match turn.calls.is_empty() {
            true => turn.text.clone(),
            false => turn.calls.iter().map(call).collect::<Vec<_>>().join(" "),
        };
        turns.iter().map(turn).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn calls_of_a_sample_task_are_found_in_the_order_of_the_request() {
        let task = Task::embedded("assistant").unwrap();
        let scorer = Scorer::new(&task).unwrap();
        let rows = dataset::load(&task, PromptSet::Train).unwrap();
        for (id, expected) in [
            (
                "train-004",
                "find_invoices{\"vendor\":\"Daleau AB\",\"status\":\"late\"}\n\
                 pay{\"number\":4491,\"account\":\"main\"} pay{\"number\":6558,\"account\":\"main\"}\n\
                 find_invoices{\"vendor\":\"Daleau AB\",\"status\":\"open\"}\n\
                 remind{\"number\":3163,\"days\":37}\nDone.",
            ),
            // A name that ends with a full stop.
            (
                "train-044",
                "find_invoices{\"vendor\":\"Braland Inc.\",\"status\":\"open\"}\n",
            ),
        ] {
            let row = rows.iter().find(|row| row.id == id).unwrap();
            let turns = find_calls(&task, &scorer, row).unwrap();
            let found = shown(&turns);
            assert!(found.starts_with(expected), "{found}");
            // A demonstration that holds as one written by hand.
            let mut fields = row.fields.whole();
            fields.insert("demonstration".to_owned(), demonstration_messages(&turns));
            let line = serde_json::to_string(&fields).unwrap();
            let row = load_from("x.jsonl", line.as_bytes()).unwrap().remove(0);
            assert_eq!(
                crate::prompts::demonstration_problem(&task, &scorer, &row),
                None
            );
        }
    }

    fn find(sql: &str, tools: Value, query: &str, row: Value) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let toml = format!(
            "name = \"t\"\n[prompts]\ntrain = \"train.jsonl\"\n[[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"a.sql\"\n\
             definitions = \"tools.json\"\n[score]\nkind = \"state\"\nquery = {query:?}\n"
        );
        for (name, text) in [
            ("task.toml", toml.as_str()),
            ("a.sql", sql),
            ("tools.json", &tools.to_string()),
            ("train.jsonl", &row.to_string()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let task = Task::load(folder.path()).unwrap();
        let scorer = Scorer::new(&task).unwrap();
        let row = dataset::load(&task, PromptSet::Train).unwrap().remove(0);
        find_calls(&task, &scorer, &row)
            .map(|turns| shown(&turns))
            .map_err(|why| why.to_string())
    }

    fn function(name: &str, properties: Value, sql: &str) -> Value {
        let required: Vec<&String> = properties.as_object().unwrap().keys().collect();
        let parameters = json!({"type": "object", "properties": properties, "required": required});
        json!({"type": "function", "function": {"name": name, "parameters": parameters}, "sql": sql})
    }

    #[test]
    fn a_state_that_calls_reach_only_together_is_found_with_what_it_needs_alone() {
        let sql = "CREATE TABLE room (id TEXT, floor INT, guest TEXT); CREATE TABLE open (id TEXT);\
                   INSERT INTO room VALUES ('r-17', 3, NULL), ('r-20', 4, NULL);";
        let text = json!({"type": "string"});
        let tools = json!([
            function(
                "rooms",
                json!({"floor": {"type": "integer"}}),
                "SELECT id FROM room WHERE floor = :floor"
            ),
            function(
                "unlock",
                json!({"room": text}),
                "INSERT INTO open VALUES (:room)"
            ),
            function(
                "book",
                json!({"room": text, "guest": text}),
                "UPDATE room SET guest = :guest WHERE id = :room AND id IN (SELECT id FROM open)"
            ),
        ]);
        let row = json!({"id": "a", "messages": [{"role": "user", "content": "A room on floor 4 for Ada Byron, please"}],
                         "expected": [["r-20", "Ada Byron"]]});
        let query = "SELECT id, guest FROM room WHERE guest IS NOT NULL";
        // What unlocking does is not seen in the state.
        let found = find(sql, tools.clone(), query, row.clone());
        assert_eq!(
            found.as_deref(),
            Ok(
                "rooms{\"floor\":4}\nunlock{\"room\":\"r-20\"}\nbook{\"room\":\"r-20\",\"guest\":\"Ada Byron\"}\nDone."
            )
        );
        // A call that needs a value of each of two results.
        let moved = json!([
            function(
                "room_of",
                json!({"guest": text}),
                "SELECT id FROM room WHERE guest = :guest"
            ),
            function(
                "free",
                json!({"floor": {"type": "integer"}}),
                "SELECT id AS other FROM room WHERE floor = :floor AND guest IS NULL"
            ),
            function(
                "move",
                json!({"from": text, "to": text}),
                "UPDATE room SET guest = CASE id WHEN :from THEN NULL ELSE 'Ada Byron' END WHERE id IN (:from, :to)"
            ),
        ]);
        let sql_of_guest = sql.replace("('r-17', 3, NULL)", "('r-17', 3, 'Ada Byron')");
        let moves = json!({"id": "a", "messages": [{"role": "user", "content": "Move Ada Byron to floor 4"}],
                           "expected": [["r-20", "Ada Byron"]]});
        assert_eq!(
            find(&sql_of_guest, moved, query, moves).as_deref(),
            Ok(
                "free{\"floor\":4}\nroom_of{\"guest\":\"Ada Byron\"}\nmove{\"from\":\"r-17\",\"to\":\"r-20\"}\nDone."
            )
        );
        // A value that neither the request nor a result has.
        let row =
            json!({"id": "a", "messages": row["messages"], "expected": [["r-20", "Grace Hopper"]]});
        let found = find(sql, tools, query, row).unwrap_err();
        let why = "the limit of 4000 calls is reached (a started program counts as 200)";
        assert_eq!(found, why);
    }
}
