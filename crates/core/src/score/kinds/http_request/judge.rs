//! Judges a message by its operation and the expected message.

use super::check::{Checked, Route, check_request, check_response, route};
use super::compare::{Comparison, Side, compare_messages};
use super::document::Api;
use super::message::{Message, Start, read};
use crate::dataset::{PromptRow, expected};
use crate::exact_json;
use crate::score::answer::json::{self, Document, Value};
use crate::score::answer::stated_value::{StatedValue, state};
use crate::score::definition::{HttpRules, Judge, MessagePart};
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::exact_numbers;
use crate::score::kinds::json_schema::judge::{duplicate_keys, reasons};
use crate::score::kinds::json_schema::schema::Violation;
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::unwrap_answer::{Unreadable, inner_values};
use crate::score::verdict::{Attempt, FailureClass, Tier, Verdict};
use crate::task::{TaskFiles, escaped};

const MAX_EMBEDDED_MESSAGES: usize = 1_000;
const OPERATION: &str = "operation";

#[derive(Debug)]
pub(super) struct HttpRequest {
    api: Api,
    part: MessagePart,
    operation: Option<usize>,
    /// Rules by parameter, header or body field.
    normalise: Rules,
}

impl Judge for HttpRequest {
    fn can_read(&self, completion: &str, from: usize) -> bool {
        json::parse(completion, from).is_ok()
    }

    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let (completion, expected) = (attempt.completion, attempt.expected());
        if let Some(verdict) = attempt.unreadable_expected() {
            return verdict;
        }
        let operation = match self.operation_of(attempt.row) {
            Ok(operation) => operation,
            Err(message) => return attempt.failed(message),
        };
        let expected_text = expected.map(exact_json::write).unwrap_or_default();
        let expected_document = expected
            .map(|_| json::parse(&expected_text, 0))
            .and_then(Result::ok);
        let expected_message = match expected_document
            .as_ref()
            .map(|document| read(self.part, &document.root))
        {
            Some(Err(why)) => {
                return attempt.failed(format!(
                    "the row's `expected` is not a {}: {}",
                    self.part.name(),
                    why.message
                ));
            }
            message => message.and_then(Result::ok),
        };
        let parsed = json::parse(completion, attempt.from);
        let document = parsed
            .as_ref()
            .map_err(|error| Unreadable::json(completion, error));
        let message =
            document.and_then(|document| Ok((document, read(self.part, &document.root)?)));
        let found = match &message {
            Ok((document, message)) => {
                let expected = expected_message
                    .as_ref()
                    .map(|message| (message, expected_text.as_str(), expected));
                self.judge_message(completion, document, message, expected, operation)
            }
            Err(why) => Ok(Verdict {
                exact: expected.is_some().then_some(false),
                ..self.judge_unreadable(attempt, why.clone(), operation)
            }),
        };
        found.unwrap_or_else(|why| attempt.failed(why))
    }

    /// Query and body only; path and headers do not count.
    fn stated_values(&self, attempt: Attempt<'_>) -> Vec<StatedValue> {
        let mut found = Vec::new();
        let Ok(document) = json::parse(attempt.completion, attempt.from) else {
            return found;
        };
        let Ok(message) = read(self.part, &document.root) else {
            return found;
        };
        let members = message.query.iter().flat_map(|query| {
            query
                .value
                .members()
                .iter()
                .map(|member| (query.key, member))
        });
        for (key, member) in members {
            let path = ["query".to_owned(), member.key.to_string()];
            let pointer = format!("/{key}/{}", escaped(&member.key));
            state(
                &member.value,
                (&path, &pointer),
                &mut |offset| offset,
                &mut found,
            );
        }
        if let Some(body) = message.body {
            state(
                body.value,
                (&["body".to_owned()], &format!("/{}", body.key)),
                &mut |offset| offset,
                &mut found,
            );
        }
        found
    }

    fn completion_of(
        &self,
        expected: &serde_json::Value,
        _row: Option<&PromptRow>,
    ) -> Option<String> {
        Some(exact_json::write(&expected::target(expected)))
    }
}

impl HttpRequest {
    pub(super) fn new(task: &TaskFiles, own: &HttpRules) -> Result<Self, ScoreError> {
        let rules = &task.score;
        let label = task.label(&task.definition_file);
        let written = Written {
            label: &label,
            text: &task.definition_text,
            pointer: "",
        };
        let exact = HttpRules {
            document: exact_numbers::parse(&task.definition_text)
                .unwrap_or_else(|_| own.document.clone()),
            ..own.clone()
        };
        let api = Api::new(written, &exact, rules.assert_formats)?;
        Ok(Self {
            operation: own.operation.as_deref().and_then(|name| api.named(name)),
            api,
            part: own.part,
            normalise: Rules::new(rules),
        })
    }

    /// The row's operation, else the task's.
    fn operation_of(&self, row: Option<&PromptRow>) -> Result<Option<usize>, String> {
        let own = row
            .and_then(|row| row.fields.get(OPERATION))
            .filter(|own| !own.is_null());
        let operation = match own {
            None => self.operation,
            Some(own) => {
                let known = own.as_str().and_then(|name| self.api.named(name));
                Some(known.ok_or_else(|| {
                    format!("`operation` of the row, {own}, is not in the document")
                })?)
            }
        };
        if operation.is_none() && self.part == MessagePart::Response {
            return Err(
                "no operation: name one, `[score] operation`, or give the row an `operation`"
                    .to_owned(),
            );
        }
        Ok(operation)
    }

    fn judge_message(
        &self,
        completion: &str,
        document: &Document<'_>,
        message: &Message<'_>,
        expected: Option<(&Message<'_>, &str, Option<&serde_json::Value>)>,
        operation: Option<usize>,
    ) -> Checked<Verdict> {
        let routed = self.route(completion, message);
        let mut faults = self.faults(completion, message, &routed, operation)?;
        let compared = expected.map(|(wanted, text, value)| {
            let wanted_route = self.route(text, wanted);
            let side = Side {
                text: completion,
                message,
                routed: routed.as_ref().ok().and_then(Option::as_ref),
            };
            let routed = wanted_route.as_ref().ok().and_then(Option::as_ref);
            let body = wanted.body.as_ref().and_then(|body| value?.get(body.key));
            compare_messages(
                &self.api,
                side,
                Side {
                    text,
                    message: wanted,
                    routed,
                },
                body,
                &self.normalise,
            )
        });
        let valid = faults.is_empty();
        let (fields, differences) = compared
            .map(
                |Comparison {
                     fields,
                     differences,
                 }| (fields, differences),
            )
            .unzip();
        let same = differences
            .as_ref()
            .map(|differences| differences.is_empty());
        if valid {
            faults = differences.unwrap_or_default();
        }
        faults.sort_by_key(|fault| fault.offset);
        let mut verdict = Verdict::new(
            if valid { Tier::Valid } else { Tier::Invalid },
            class_of(&faults),
        );
        verdict.warnings = duplicate_keys(completion, std::slice::from_ref(document));
        verdict.errors = reasons(completion, faults, &mut verdict.warnings);
        Ok(Verdict {
            exact: same.map(|same| same && valid),
            fields,
            ..verdict
        })
    }

    fn route<'m>(
        &'m self,
        text: &str,
        message: &'m Message<'_>,
    ) -> Result<Option<Route<'m>>, Violation> {
        match &message.start {
            Start::Request { method, path } => route(&self.api, text, *method, *path).map(Some),
            Start::Response { .. } => Ok(None),
        }
    }

    fn faults(
        &self,
        text: &str,
        message: &Message<'_>,
        routed: &Result<Option<Route<'_>>, Violation>,
        wanted: Option<usize>,
    ) -> Checked<Vec<Violation>> {
        let routed = match (routed, wanted) {
            (Ok(Some(routed)), _) => routed,
            (Ok(None), Some(operation)) => {
                return check_response(&self.api, text, message, operation);
            }
            (Ok(None), None) => return Ok(Vec::new()),
            (Err(fault), _) => return Ok(vec![fault.clone()]),
        };
        match (
            &message.start,
            wanted.filter(|wanted| *wanted != routed.operation),
        ) {
            (Start::Request { path, .. }, Some(wanted)) => {
                let name = |operation: usize| self.api.operations[operation].name.as_str();
                let message = format!(
                    "expected {}, found {}",
                    name(wanted),
                    name(routed.operation)
                );
                let place = format!("/{}", path.key);
                let class = FailureClass::WrongOperation;
                let schema_path = self.api.operations[wanted].pointer.clone();
                Ok(vec![Violation {
                    message,
                    instance_path: place,
                    schema_path,
                    offset: path.at,
                    class,
                }])
            }
            _ => check_request(&self.api, text, message, routed),
        }
    }

    fn judge_unreadable(
        &self,
        attempt: Attempt<'_>,
        why: Unreadable,
        operation: Option<usize>,
    ) -> Verdict {
        let completion = attempt.completion;
        let mut left = MAX_EMBEDDED_MESSAGES;
        let mut accept = |value: &Value<'_>| {
            let Ok(message) = read(self.part, value) else {
                return false;
            };
            left = left.saturating_sub(1);
            let routed = self.route(completion, &message);
            self.faults(completion, &message, &routed, operation)
                .is_ok_and(|faults| faults.is_empty() && left > 0)
        };
        attempt.unparsable(why, |open| {
            inner_values(completion, attempt.from, |value| {
                value.start < open && accept(value)
            })
        })
    }
}

/// Class of the most informative fault: another operation, then something missing, then the first
/// in the text.
fn class_of(faults: &[Violation]) -> Option<FailureClass> {
    let classes = || faults.iter().map(|fault| fault.class);
    let explains = |class: FailureClass| classes().find(|found| *found == class);
    explains(FailureClass::WrongOperation)
        .or_else(|| explains(FailureClass::MissingParameter))
        .or_else(|| explains(FailureClass::MissingKey))
        .or_else(|| classes().next())
}
