//! Judges an answer's calls by the tools and the expected calls.

use std::sync::Arc;

use serde_json::Value;

use super::attempts::{attempt, is_decline};
use super::calls::{Answer, Call, calls_of};
use super::compare::{ExpectedCall, compare_calls, expected_calls};
use super::known_formats::{foreign_calls, foreign_opening, syntax_of};
use super::syntax::{ArgumentTypes, Read, Syntax, after_white_space};
use super::tools::{OwnTools, Tools};
use crate::dataset::PromptRow;
use crate::dataset::expected::{members_problem, target_members};
use crate::score::answer::stated_value::{StatedValue, state};
use crate::score::answer::transcript::AnswerText;
use crate::score::definition::{Judge, ToolRules};
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::budget::Budget;
use crate::score::kinds::json_schema::judge::{duplicate_keys, reasons};
use crate::score::kinds::json_schema::pattern::shorten;
use crate::score::kinds::json_schema::schema::Violation;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::unwrap_answer::{
    Unreadable, Wrapping, class_of_text, inner_values, think_opening,
};
use crate::score::verdict::{Attempt, FailureClass, Tier, Verdict};
use crate::task::TaskFiles;

/// Calls with individual reasons; others are only known to be invalid.
const MAX_EXPLAINED_CALLS: usize = 100;

#[derive(Debug)]
pub(super) struct ToolCalls {
    /// The task's; `None` if each row has its own.
    tools: Option<Arc<Tools>>,
    own: OwnTools,
    syntax: Syntax,
    in_order: bool,
    allows_none: bool,
    takes_prose: bool,
    normalise: Rules,
}

impl Judge for ToolCalls {
    /// Whether calls begin at a byte of the completion.
    fn can_read(&self, completion: &str, from: usize) -> bool {
        let start = self.first_call(completion, from);
        let text = self.call_text(completion, start, &ArgumentTypes::default());
        text.is_ok_and(|text| text.is_transcribed() || Answer::read(completion, start).is_ok())
    }

    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let (completion, from) = (attempt.completion, attempt.from);
        let tools = match self.tools_of(attempt.row) {
            Ok(tools) => tools,
            Err(message) => return attempt.failed(message),
        };
        let expected = match attempt.expected() {
            Some(expected) => match expected_calls(expected) {
                Some(calls) => match calls
                    .iter()
                    .find_map(|call| members_problem(call.arguments))
                {
                    Some(problem) => {
                        return attempt.failed(format!("the row's `expected`: {problem}"));
                    }
                    None => Some(calls),
                },
                None => {
                    return attempt.failed(
                        "the row's `expected` is not a call, or a list of calls, {\"name\", \"arguments\"}",
                    );
                }
            },
            None => None,
        };
        let mut budget = tools.budget(completion.len());
        let start = self.first_call(completion, from);
        let text = self.call_text(completion, start, tools.types());
        let mut answer = match &text {
            Ok(text) => Answer::read(text.json(), if text.is_transcribed() { 0 } else { start }),
            Err(why) => Err(why.clone()),
        };
        let whole = AnswerText::in_place(completion);
        let text = text.as_ref().unwrap_or(&whole);
        let calls = answer
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|answer| answer.calls_by(text.json(), &tools));
        let mut verdict = match calls {
            Ok(calls) => self.judge_calls(text, &tools, &calls, expected.as_deref(), &mut budget),
            // If no call is expected, declining in words is valid.
            Err(_)
                if expected.as_ref().is_some_and(Vec::is_empty)
                    && self.is_decline(completion, from, &tools) =>
            {
                self.judge_calls(&whole, &tools, &[], expected.as_deref(), &mut budget)
            }
            Err(why) => {
                let why = match &expected {
                    Some(calls) if calls.is_empty() => {
                        self.attempted(completion, from, &tools, why)
                    }
                    _ => why,
                };
                Verdict {
                    exact: expected.is_some().then_some(false),
                    ..self.judge_unreadable(attempt, text, &tools, why, &mut budget)
                }
            }
        };
        if let Ok(answer) = &mut answer {
            let duplicates = answer
                .documents
                .iter_mut()
                .flat_map(|document| &mut document.duplicates);
            duplicates.for_each(|duplicate| duplicate.offset = text.locate(duplicate.offset));
            verdict
                .warnings
                .extend(duplicate_keys(completion, &answer.documents));
        }
        verdict
    }

    fn stated_values(&self, attempt: Attempt<'_>) -> Vec<StatedValue> {
        let (completion, from) = (attempt.completion, attempt.from);
        let mut found = Vec::new();
        let Ok(tools) = self.tools_of(attempt.row) else {
            return found;
        };
        let start = self.first_call(completion, from);
        let Ok(text) = self.call_text(completion, start, tools.types()) else {
            return found;
        };
        let Ok(answer) = Answer::read(text.json(), if text.is_transcribed() { 0 } else { start })
        else {
            return found;
        };
        for (index, call) in answer
            .calls(text.json())
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let mut places = call.arguments.places(text.json());
            let (path, pointer) = ([call.name.to_owned()], format!("/{index}/arguments"));
            let mut locate = |offset: usize| text.locate(places.locate(offset));
            // A function without arguments states nothing.
            if call
                .arguments
                .value()
                .as_object()
                .is_some_and(|arguments| !arguments.members().is_empty())
            {
                state(
                    call.arguments.value(),
                    (&path, &pointer),
                    &mut locate,
                    &mut found,
                );
            }
        }
        found
    }

    /// Expected calls in the task's format, which the system text also requests if the template
    /// does not support tools.
    fn completion_of(&self, expected: &Value, _row: Option<&PromptRow>) -> Option<String> {
        let target = Self::target(expected);
        match expected_calls(&target).filter(|calls| !calls.is_empty()) {
            Some(calls) => {
                let arguments: Vec<Value> = calls
                    .iter()
                    .map(|call| call.arguments.clone().into())
                    .collect();
                let named: Vec<_> = calls.iter().map(|call| call.name).zip(&arguments).collect();
                self.syntax.write(&named)
            }
            None => Some(target.to_string()),
        }
    }
}

impl ToolCalls {
    pub(super) fn new(task: &TaskFiles, own: &ToolRules) -> Result<Self, ScoreError> {
        let rules = &task.score;
        let label = task.label(&task.definition_file);
        let compile = |tools| {
            Tools::compile(&label, &task.definition_text, tools, rules.assert_formats).map(Arc::new)
        };
        Ok(Self {
            tools: own.tools.as_ref().map(compile).transpose()?,
            own: OwnTools::new(rules.assert_formats),
            syntax: syntax_of(own.call_format()),
            in_order: own.in_order,
            allows_none: own.allows_none,
            takes_prose: own.takes_prose(),
            normalise: Rules::new(rules),
        })
    }

    /// Picks one value per argument.
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

    fn tools_of(&self, row: Option<&PromptRow>) -> Result<Arc<Tools>, String> {
        match (row.and_then(PromptRow::tools), &self.tools) {
            (Some(own), _) => self.own.compiled(own),
            (None, Some(tools)) => Ok(Arc::clone(tools)),
            (None, None) => {
                Err("no tools: name a file, `[score] tools`, or give the row `tools`".to_owned())
            }
        }
    }

    /// Start of an answer's calls, after prose if allowed.
    fn first_call(&self, completion: &str, from: usize) -> usize {
        let rest = completion.get(from..).unwrap_or_default();
        let found = self
            .takes_prose
            .then(|| self.syntax.first_call(rest))
            .flatten();
        from + found.unwrap_or(0)
    }

    /// Reads calls in the task's format; no call and OpenAI's message are valid in any.
    fn call_text<'t>(
        &self,
        completion: &'t str,
        from: usize,
        types: &ArgumentTypes,
    ) -> Read<AnswerText<'t>> {
        if self.syntax.is_in_place() {
            return Ok(AnswerText::in_place(completion));
        }
        match self.syntax.transcribe(completion, from, types) {
            Ok(calls) => Ok(AnswerText::transcribed(completion, calls.into_list())),
            Err(_) if Answer::read(completion, from).is_ok_and(|answer| answer.is_neutral()) => {
                Ok(AnswerText::in_place(completion))
            }
            Err(why) => Err(why),
        }
    }

    fn is_decline(&self, completion: &str, from: usize, tools: &Tools) -> bool {
        let spoken = self.syntax.spoken(completion, from);
        is_decline(&completion[..spoken.end], spoken.start, tools)
    }

    /// Error for an answer that should not call but attempts one in a foreign format.
    fn attempted(
        &self,
        completion: &str,
        from: usize,
        tools: &Tools,
        why: Unreadable,
    ) -> Unreadable {
        if self.syntax.next_opening(&completion[from..]).is_some() {
            return why;
        }
        match attempt(completion, from, tools) {
            Some(offset) => Unreadable {
                message: format!(
                    "an attempted call, where no call is expected; calls are read in the format `{}`",
                    self.syntax.name()
                ),
                offset,
                class: FailureClass::Syntax,
                is_wrapped: why.is_wrapped,
            },
            None => why,
        }
    }

    fn judge_calls(
        &self,
        text: &AnswerText<'_>,
        tools: &Tools,
        calls: &[Call<'_>],
        expected: Option<&[ExpectedCall<'_>]>,
        budget: &mut Budget,
    ) -> Verdict {
        let json = text.json();
        let compared = expected
            .map(|expected| compare_calls(json, calls, expected, self.in_order, &self.normalise));
        let (fields, differences) = compared
            .map(|compared| (compared.fields, compared.differences))
            .unzip();
        let mut warnings = Vec::new();
        let mut faults = if are_valid(tools, calls, budget) {
            // An empty list can only be right if no call is expected, or the task allows it.
            if calls.is_empty() && expected.is_none() && !self.allows_none {
                vec![no_call(json)]
            } else {
                Vec::new()
            }
        } else {
            explain(json, tools, calls, &mut warnings)
        };
        let differs = differences
            .as_ref()
            .is_some_and(|differences| !differences.is_empty());
        let valid = faults.is_empty() && !(calls.is_empty() && differs);
        if faults.is_empty() {
            faults = differences.unwrap_or_default();
        }
        faults
            .iter_mut()
            .for_each(|fault| fault.offset = text.locate(fault.offset));
        faults.sort_by_key(|fault| fault.offset);
        let mut verdict = Verdict::new(
            if valid { Tier::Valid } else { Tier::Invalid },
            class_of(&faults),
        );
        verdict.errors = reasons(text.completion, faults, &mut warnings);
        Verdict {
            exact: expected.map(|_| valid && !differs),
            fields,
            warnings,
            ..verdict
        }
    }

    fn judge_unreadable(
        &self,
        attempt: Attempt<'_>,
        text: &AnswerText<'_>,
        tools: &Tools,
        why: Unreadable,
        budget: &mut Budget,
    ) -> Verdict {
        let (completion, from) = (attempt.completion, attempt.from);
        let start = after_white_space(completion, from);
        let foreign = |other: &str| {
            format!(
                "the call is written in the format `{other}`; this task reads `{}`",
                self.syntax.name()
            )
        };
        if let Some(other) = foreign_calls(self.syntax, completion, from, tools.types()) {
            return Verdict::because(
                Tier::Invalid,
                FailureClass::CallFormat,
                foreign(other),
                (completion, start),
            );
        }
        let why = match foreign_opening(self.syntax, &completion[start..]) {
            Some(other) => Unreadable {
                message: foreign(other),
                offset: start,
                class: FailureClass::CallFormat,
                ..why
            },
            None => Unreadable {
                offset: text.locate(why.offset),
                ..why
            },
        };
        let mut accept = |calls: &[Call<'_>]| !calls.is_empty() && are_valid(tools, calls, budget);
        let verdict = attempt.unparsable(why, |open| {
            self.wrapped(completion, from, open, tools.types(), &mut accept)
        });
        let answer = &completion[from..];
        // The block is before the answer, or unclosed.
        let thought = match verdict.failure {
            _ if !attempt.thoughts.is_stripped || verdict.tolerant => return verdict,
            Some(FailureClass::ThinkLeak) => {
                from + think_opening(answer, attempt.thoughts.marks).unwrap_or(0)..completion.len()
            }
            Some(FailureClass::Prose | FailureClass::Other)
                if self.syntax.next_opening(answer).is_none() =>
            {
                0..from
            }
            _ => return verdict,
        };
        match self.call_within(&completion[..thought.end], thought.start, tools.types()) {
            Some(at) => {
                let message = "the call is inside the think block, where none is read".to_owned();
                Verdict::because(
                    Tier::Unparsable,
                    FailureClass::ThinkCall,
                    message,
                    (completion, at),
                )
            }
            None => verdict,
        }
    }

    fn call_within(&self, text: &str, from: usize, types: &ArgumentTypes) -> Option<usize> {
        let mut first = None;
        self.wrapped(text, from, usize::MAX, types, &mut |calls| {
            first = calls.first().map(|call| call.name_at);
            first.is_some()
        })?;
        self.syntax
            .next_opening(&text[from..])
            .map(|at| from + at)
            .or(first)
    }

    /// Whether an answer is a fence or prose around accepted calls. `open`: start of an open think
    /// block, which hides what follows.
    fn wrapped(
        &self,
        completion: &str,
        from: usize,
        open: usize,
        types: &ArgumentTypes,
        accept: &mut dyn FnMut(&[Call<'_>]) -> bool,
    ) -> Option<Wrapping> {
        let start = after_white_space(completion, from);
        if !self.syntax.is_in_place() {
            let calls = self.syntax.transcribe_within(completion, from, types)?;
            let text = AnswerText::transcribed(completion, calls.into_list());
            let answer = Answer::read(text.json(), 0).ok()?;
            let calls = answer.calls(text.json()).ok()?;
            let hidden = calls.iter().any(|call| text.locate(call.name_at) >= open);
            let is_fenced = class_of_text(completion, start) == FailureClass::Fence;
            let wrapping = if is_fenced {
                Wrapping::Fence
            } else {
                Wrapping::Prose
            };
            return (!hidden && accept(&calls)).then_some(wrapping);
        }
        if let Some(answer) = Answer::blocks_within(completion, from) {
            let calls = answer.calls(completion).ok()?;
            let hidden = calls.iter().any(|call| call.name_at >= open);
            return (!hidden && accept(&calls)).then_some(Wrapping::Prose);
        }
        inner_values(completion, from, |value| {
            value.start < open && calls_of(completion, value).is_ok_and(|calls| accept(&calls))
        })
    }
}

fn are_valid(tools: &Tools, calls: &[Call<'_>], budget: &mut Budget) -> bool {
    calls.iter().all(|call| {
        let function = tools
            .function(call.name)
            .filter(|_| call.extra_key.is_none());
        function.is_some_and(|function| {
            function.schema.is_valid(call.arguments.value(), budget) == Ok(true)
        })
    })
}

fn explain(
    completion: &str,
    tools: &Tools,
    calls: &[Call<'_>],
    warnings: &mut Vec<String>,
) -> Vec<Violation> {
    let mut faults = Vec::new();
    let mut explained = 0;
    for (number, call) in calls.iter().enumerate() {
        let found = explain_call(completion, tools, call, number);
        explained += usize::from(!found.is_empty());
        faults.extend(found);
        if explained == MAX_EXPLAINED_CALLS && number + 1 < calls.len() {
            warnings.push(format!(
                "only the first {MAX_EXPLAINED_CALLS} calls that are not valid are listed"
            ));
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
        return vec![of(
            message,
            "/name",
            call.name_at,
            FailureClass::UnknownFunction,
        )];
    };
    let arguments = call.arguments.value();
    let verdict = function.schema.is_valid(
        arguments,
        &mut function.schema.budget(arguments.end - arguments.start),
    );
    if verdict == Ok(true) {
        return Vec::new();
    }
    let found = function
        .schema
        .violations(call.arguments.text(completion), arguments, verdict);
    let mut places = call.arguments.places(completion);
    let mut in_call = |violation: Violation| {
        // Keys of the object itself are arguments.
        let (class, message) = match (violation.class, violation.instance_path.as_str()) {
            (FailureClass::MissingKey, "") => (
                FailureClass::MissingArgument,
                violation.message.replacen("key", "argument", 1),
            ),
            (FailureClass::ExtraKey, "") => (
                FailureClass::ExtraArgument,
                violation.message.replacen("key", "argument", 1),
            ),
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
    found
        .unwrap_or_else(|exhausted| vec![exhausted])
        .into_iter()
        .map(&mut in_call)
        .collect()
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

/// Class of the most informative fault: an unknown function, then a missing argument, then the
/// first in the text.
fn class_of(faults: &[Violation]) -> Option<FailureClass> {
    let classes = || faults.iter().map(|fault| fault.class);
    let explains = |class: FailureClass| classes().find(|found| *found == class);
    explains(FailureClass::UnknownFunction)
        .or_else(|| explains(FailureClass::MissingArgument))
        .or_else(|| classes().next())
}
