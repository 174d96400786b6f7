//! Judges calls of functions: whether they can be read, whether the tools take them, whether they are the expected
//! ones.

mod calls;
mod compare;
mod definition;
mod own_tools;
mod partial_json;
mod reader;
mod tools;

use std::sync::Arc;

use serde_json::Value;

use super::definition::Judge;
use super::field_compare::Rules;
use super::grammar::ToolRules;
use super::json_schema::{Budget, Violation, duplicate_keys, reasons, shorten};
use super::unwrap_answer::{Unreadable, Wrapping, inner_values};
use super::verdict::Verdict;
use super::{FailureClass, ScoreError, Tier};
use crate::dataset::PromptRow;
use crate::dataset::expected::{members_problem, target_members};
use crate::task::TaskFiles;
use crate::text::json_line;
use calls::{Answer, Call, calls_of, is_decline};
use compare::{ExpectedCall, compare_calls, expected_calls};
pub(super) use definition::KIND;
use own_tools::OwnTools;
pub use reader::{AnswerPart, CallReader};
use tools::Tools;
pub use tools::closed_parameters;

/// Calls whose faults are looked for one by one; of the rest it is only known that they are not valid.
const MAX_EXPLAINED_CALLS: usize = 100;

#[derive(Debug)]
struct ToolCalls {
    /// The task's; `None` where each row has its own.
    tools: Option<Arc<Tools>>,
    /// Tools of rows that bring their own.
    own: OwnTools,
    in_order: bool,
    allows_none: bool,
    /// By argument.
    normalise: Rules,
}

impl Judge for ToolCalls {
    /// Whether JSON, or blocks of JSON, begin at a byte of the completion.
    fn can_read(&self, completion: &str, from: usize) -> bool {
        Answer::read(completion, from).is_ok()
    }

    fn judge(&self, completion: &str, from: usize, is_stripped: bool, row: Option<&PromptRow>) -> Verdict {
        let failed = |why: String| Verdict::failed(why, (completion, from));
        let tools = match self.tools_of(row) {
            Ok(tools) => tools,
            Err(message) => return failed(message),
        };
        let expected = match row.and_then(|row| row.expected.as_ref()) {
            Some(expected) => match expected_calls(expected) {
                Some(calls) => match calls.iter().find_map(|call| members_problem(call.arguments)) {
                    Some(problem) => return failed(format!("the row's `expected`: {problem}")),
                    None => Some(calls),
                },
                None => {
                    return failed(
                        "the row's `expected` is not a call, or a list of calls, {\"name\", \"arguments\"}".to_owned(),
                    );
                }
            },
            None => None,
        };
        let mut budget = tools.budget(completion.len());
        let answer = Answer::read(completion, from);
        let calls = answer.as_ref().map_err(Clone::clone).and_then(|answer| answer.calls(completion));
        let mut verdict = match calls {
            Ok(calls) => self.judge_calls(completion, &tools, &calls, expected.as_deref(), &mut budget),
            // Where no call is expected, saying so makes none.
            Err(_) if expected.as_ref().is_some_and(Vec::is_empty) && is_decline(completion, from) => {
                self.judge_calls(completion, &tools, &[], expected.as_deref(), &mut budget)
            }
            Err(why) => Verdict {
                exact: expected.is_some().then_some(false),
                ..judge_unreadable(completion, (from, is_stripped), &tools, why, &mut budget)
            },
        };
        if let Ok(answer) = &answer {
            verdict.warnings.extend(duplicate_keys(completion, &answer.documents));
        }
        verdict
    }

    /// The expected calls as Qwen writes them, and as the system text asks for them where the template has no tools.
    fn completion_of(&self, expected: &Value) -> Option<String> {
        let expected = &Self::target(expected);
        let block = |call: &Value| json_line(call).map(|line| format!("<tool_call>\n{line}\n</tool_call>")).ok();
        let blocks: Option<Vec<String>> = match expected {
            Value::Array(calls) if !calls.is_empty() => calls.iter().map(block).collect(),
            Value::Object(_) => block(expected).map(|block| vec![block]),
            _ => None,
        };
        Some(blocks.map_or_else(|| expected.to_string(), |blocks| blocks.join("\n")))
    }
}

impl ToolCalls {
    fn new(task: &TaskFiles, own: &ToolRules) -> Result<Self, ScoreError> {
        let rules = &task.score;
        let label = task.label(&task.definition_file);
        let compile = |tools| Tools::compile(&label, &task.definition_text, tools, rules.assert_formats).map(Arc::new);
        Ok(Self {
            tools: own.tools.as_ref().map(compile).transpose()?,
            own: OwnTools::new(rules.assert_formats),
            in_order: own.in_order,
            allows_none: own.allows_none,
            normalise: Rules::new(&rules.normalise),
        })
    }

    /// Calls whose arguments have one value each.
    fn target(expected: &Value) -> Value {
        let one = |call: &Value| {
            let mut call = call.clone();
            if let Some(Value::Object(arguments)) = call.get_mut("arguments") {
                *arguments = target_members(arguments);
            }
            call
        };
        match expected {
            Value::Array(calls) => calls.iter().map(one).collect(),
            call => one(call),
        }
    }

    /// The row's own tools, else the task's.
    fn tools_of(&self, row: Option<&PromptRow>) -> Result<Arc<Tools>, String> {
        match (row.and_then(PromptRow::tools), &self.tools) {
            (Some(own), _) => self.own.compiled(own),
            (None, Some(tools)) => Ok(Arc::clone(tools)),
            (None, None) => Err("no tools: name a file, `[score] tools`, or give the row `tools`".to_owned()),
        }
    }

    fn judge_calls(
        &self,
        completion: &str,
        tools: &Tools,
        calls: &[Call<'_>],
        expected: Option<&[ExpectedCall<'_>]>,
        budget: &mut Budget,
    ) -> Verdict {
        let compared =
            expected.map(|expected| compare_calls(completion, calls, expected, self.in_order, &self.normalise));
        let (fields, differences) = compared.map(|compared| (compared.fields, compared.differences)).unzip();
        let mut warnings = Vec::new();
        let mut faults = if are_valid(tools, calls, budget) {
            // An empty list can be right only where no call is expected, or the task allows it.
            if calls.is_empty() && expected.is_none() && !self.allows_none {
                vec![no_call(completion)]
            } else {
                Vec::new()
            }
        } else {
            explain(completion, tools, calls, &mut warnings)
        };
        let differs = differences.as_ref().is_some_and(|differences| !differences.is_empty());
        let valid = faults.is_empty() && !(calls.is_empty() && differs);
        if faults.is_empty() {
            faults = differences.unwrap_or_default();
        }
        faults.sort_by_key(|fault| fault.offset);
        let mut verdict = Verdict::new(if valid { Tier::Valid } else { Tier::Invalid }, class_of(&faults));
        verdict.errors = reasons(completion, faults, &mut warnings);
        Verdict { exact: expected.map(|_| valid && !differs), fields, warnings, ..verdict }
    }
}

fn judge_unreadable(
    completion: &str,
    (from, is_stripped): (usize, bool),
    tools: &Tools,
    why: Unreadable,
    budget: &mut Budget,
) -> Verdict {
    let mut accept = |calls: &[Call<'_>]| !calls.is_empty() && are_valid(tools, calls, budget);
    Verdict::unparsable(completion, from, is_stripped, why, |open| {
        if let Some(answer) = Answer::blocks_within(completion, from) {
            let calls = answer.calls(completion).ok()?;
            let hidden = calls.iter().any(|call| call.name_at >= open);
            return (!hidden && accept(&calls)).then_some(Wrapping::Prose);
        }
        inner_values(completion, from, |value| {
            value.start < open && calls_of(completion, value).is_ok_and(|calls| accept(&calls))
        })
    })
}

/// Whether the tools take every call.
fn are_valid(tools: &Tools, calls: &[Call<'_>], budget: &mut Budget) -> bool {
    calls.iter().all(|call| {
        let function = tools.function(call.name).filter(|_| call.extra_key.is_none());
        function.is_some_and(|function| function.schema.is_valid(call.arguments.value(), budget) == Ok(true))
    })
}

/// Why the tools do not take the calls.
fn explain(completion: &str, tools: &Tools, calls: &[Call<'_>], warnings: &mut Vec<String>) -> Vec<Violation> {
    let mut faults = Vec::new();
    let mut explained = 0;
    for (number, call) in calls.iter().enumerate() {
        let found = explain_call(completion, tools, call, number);
        explained += usize::from(!found.is_empty());
        faults.extend(found);
        if explained == MAX_EXPLAINED_CALLS && number + 1 < calls.len() {
            warnings.push(format!("only the first {MAX_EXPLAINED_CALLS} calls that are not valid are listed"));
            break;
        }
    }
    faults
}

fn explain_call(completion: &str, tools: &Tools, call: &Call<'_>, number: usize) -> Vec<Violation> {
    let (name, place) = (shorten(call.name), format!("/{number}"));
    let of = |message: String, key: &str, offset: usize, class: FailureClass| Violation {
        message,
        instance_path: format!("{place}{key}"),
        schema_path: String::new(),
        offset,
        class,
    };
    if let Some((key, offset)) = call.extra_key {
        let message = format!("key not allowed in a call: {:?}", shorten(key));
        return vec![of(message, "", offset, FailureClass::ExtraKey)];
    }
    let Some(function) = tools.function(call.name) else {
        let message = format!("unknown function {name}{}", tools.advice(call.name));
        return vec![of(message, "/name", call.name_at, FailureClass::UnknownFunction)];
    };
    let arguments = call.arguments.value();
    let verdict = function.schema.is_valid(arguments, &mut function.schema.budget(arguments.end - arguments.start));
    if verdict == Ok(true) {
        return Vec::new();
    }
    let found = function.schema.violations(call.arguments.text(completion), arguments, verdict);
    let mut places = call.arguments.places(completion);
    let mut in_call = |violation: Violation| {
        // Keys of the object itself are arguments.
        let (class, message) = match (violation.class, violation.instance_path.as_str()) {
            (FailureClass::MissingKey, "") => {
                (FailureClass::MissingArgument, violation.message.replacen("key", "argument", 1))
            }
            (FailureClass::ExtraKey, "") => {
                (FailureClass::ExtraArgument, violation.message.replacen("key", "argument", 1))
            }
            (class, _) => (class, violation.message),
        };
        Violation {
            message: format!("{name}: {message}"),
            instance_path: format!("{place}/arguments{}", violation.instance_path),
            schema_path: format!("{}{}", function.pointer, violation.schema_path),
            offset: places.locate(violation.offset),
            class,
        }
    };
    found.unwrap_or_else(|exhausted| vec![exhausted]).into_iter().map(&mut in_call).collect()
}

fn no_call(completion: &str) -> Violation {
    let offset = completion.len() - completion.trim_start().len();
    Violation {
        message: "no call".to_owned(),
        instance_path: String::new(),
        schema_path: String::new(),
        offset,
        class: FailureClass::WrongCalls,
    }
}

/// The class of the fault that explains most: an unknown function, then a missing argument, then the first in the text.
fn class_of(faults: &[Violation]) -> Option<FailureClass> {
    let classes = || faults.iter().map(|fault| fault.class);
    let explains = |class: FailureClass| classes().find(|found| *found == class);
    explains(FailureClass::UnknownFunction)
        .or_else(|| explains(FailureClass::MissingArgument))
        .or_else(|| classes().next())
}
