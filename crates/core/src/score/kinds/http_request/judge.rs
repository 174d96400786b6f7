//! Judges a message by its operation and the expected message.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::document::{Api, Form, Operation};
use super::message::{MAX_PATH_BYTES, Message, Normal};
use super::message_schema::CompiledForm;
use crate::dataset::{PromptRow, expected};
use crate::exact_json;
use crate::format::did_you_mean;
use crate::score::answer::json::{self, Value};
use crate::score::answer::stated_value::{StatedValue, state};
use crate::score::definition::{HttpRules, Judge, MessagePart};
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::exact_numbers;
use crate::score::kinds::json_schema::judge::{duplicate_keys, reasons};
use crate::score::kinds::json_schema::pattern::shorten;
use crate::score::kinds::json_schema::schema::Violation;
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::score::verdict::field_compare::compare;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::unwrap_answer::{Unreadable, inner_values};
use crate::score::verdict::{Attempt, FailureClass, OrderedMap, Tier, Verdict};
use crate::task::{TaskFiles, decode_path};

/// Messages sought within a text.
const MAX_EMBEDDED_MESSAGES: usize = 1_000;
const OPERATION: &str = "operation";

#[derive(Debug)]
pub(super) struct HttpRequest {
    api: Api,
    part: MessagePart,
    operation: Option<usize>,
    /// By operation, then by status, each compiled on first use.
    compiled: Vec<BTreeMap<String, OnceLock<Result<CompiledForm, String>>>>,
    /// Rules by parameter or body field.
    normalise: Rules,
}

/// What a message is by the document.
#[derive(Debug, Clone, Copy)]
struct Target<'a> {
    operation: usize,
    /// Empty for a request.
    status: &'a str,
    form: &'a Form,
}

/// Violations, or why the document's schema is unusable.
type Checked<T> = Result<T, String>;

impl Judge for HttpRequest {
    fn can_read(&self, completion: &str, from: usize) -> bool {
        json::parse(completion, from).is_ok()
    }

    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        if let Some(verdict) = attempt.unreadable_expected() {
            return verdict;
        }
        self.verdict(attempt)
            .unwrap_or_else(|why| attempt.failed(why))
    }

    /// Of the query object and the body; path and headers do not count.
    fn stated_values(&self, attempt: Attempt<'_>) -> Vec<StatedValue> {
        let mut found = Vec::new();
        let document = json::parse(attempt.completion, attempt.from);
        let root = document.as_ref().ok().map(|document| &document.root);
        let Some(Ok(message)) = root.map(|root| Message::read(self.part, attempt.completion, root))
        else {
            return found;
        };
        for member in ["query", "body"]
            .iter()
            .filter_map(|key| message.member(key))
        {
            let (path, at) = ([member.key.to_string()], format!("/{}", member.key));
            state(
                &member.value,
                (&path, &at),
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
        let forms = |operation: &Operation| {
            let parts = operation.parts.iter();
            let keys = parts.flat_map(|parts| parts.forms.keys().cloned());
            keys.map(|status| (status, OnceLock::new())).collect()
        };
        Ok(Self {
            compiled: api.operations.iter().map(forms).collect(),
            operation: own.operation.as_deref().and_then(|name| api.named(name)),
            api,
            part: own.part,
            normalise: Rules::new(rules),
        })
    }

    /// The row's operation, else the task's.
    fn operation_of(&self, row: Option<&PromptRow>) -> Checked<Option<usize>> {
        let own = row
            .and_then(|row| row.fields.get(OPERATION))
            .filter(|own| !own.is_null());
        match own {
            Some(own) => {
                let known = own.as_str().and_then(|name| self.api.named(name));
                let missing = || format!("`operation` of the row, {own}, is not in the document");
                known.map(Some).ok_or_else(missing)
            }
            None if self.operation.is_none() && self.part == MessagePart::Response => Err(
                "no operation: name one, `[score] operation`, or give the row an `operation`"
                    .to_owned(),
            ),
            None => Ok(self.operation),
        }
    }

    fn verdict(&self, attempt: Attempt<'_>) -> Checked<Verdict> {
        let (completion, expected) = (attempt.completion, attempt.expected());
        let wanted = self.operation_of(attempt.row)?;
        let expected_text = expected.map(exact_json::write).unwrap_or_default();
        let expected_document = expected.and_then(|_| json::parse(&expected_text, 0).ok());
        let no_message = |why: Unreadable| {
            let name = self.part.name();
            format!("the row's `expected` is not a {name}: {}", why.message)
        };
        let expected_message = match &expected_document {
            Some(document) => {
                let read = Message::read(self.part, &expected_text, &document.root);
                let message = read.map_err(no_message)?;
                let fault = |fault: Violation| format!("the row's `expected`: {}", fault.message);
                let target = self.target(&message, wanted)?.map_err(fault)?;
                Some((message, target))
            }
            None => None,
        };
        let parsed = json::parse(completion, attempt.from);
        let unreadable = |error| Unreadable::json(completion, error);
        let document = parsed.as_ref().map_err(unreadable);
        let read = document.and_then(|document| {
            let message = Message::read(self.part, completion, &document.root)?;
            Ok((document, message))
        });
        let (document, message) = match read {
            Ok(read) => read,
            Err(why) => {
                return Ok(Verdict {
                    exact: expected.is_some().then_some(false),
                    ..self.judge_unreadable(attempt, why, wanted)
                });
            }
        };
        let target = self.target(&message, wanted)?;
        let mut faults = self.faults(&message, &target)?;
        let compared = expected_message.map(|expected| self.compare(&message, &expected));
        let valid = faults.is_empty();
        let exact = compared.as_ref().map(|(_, same)| *same && valid);
        faults.sort_by_key(|fault| fault.offset);
        let (tier, class) = match valid {
            true => (Tier::Valid, FailureClass::WrongValue),
            false => (Tier::Invalid, class_of(&faults)),
        };
        let is_wrong = !valid || exact == Some(false);
        let mut verdict = Verdict::new(tier, is_wrong.then_some(class));
        verdict.warnings = duplicate_keys(completion, std::slice::from_ref(document));
        verdict.errors = reasons(completion, faults, &mut verdict.warnings);
        Ok(Verdict {
            exact,
            fields: compared.map(|(fields, _)| fields),
            ..verdict
        })
    }

    /// The operation and form of a message.
    fn target(
        &self,
        message: &Message<'_>,
        wanted: Option<usize>,
    ) -> Checked<Result<Target<'_>, Violation>> {
        let operation = match (self.part, wanted) {
            (MessagePart::Response, Some(wanted)) => wanted,
            _ => match self.route(message) {
                Ok(found) => found,
                Err(fault) => return Ok(Err(fault)),
            },
        };
        let own = &self.api.operations[operation];
        let wrong = |text: String, key: &str, class| Violation {
            schema_path: own.pointer.clone(),
            ..violation(text, message, key, class)
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != operation) {
            let wanted = &self.api.operations[wanted].route;
            let text = format!("expected {wanted}, found {}", own.route);
            return Ok(Err(wrong(text, "path", FailureClass::WrongOperation)));
        }
        let parts = own.parts.as_ref().map_err(Clone::clone)?;
        let code = message.status;
        let keys = match self.part {
            MessagePart::Request => vec![String::new()],
            MessagePart::Response if !(100..600).contains(&code) => Vec::new(),
            MessagePart::Response => {
                vec![
                    code.to_string(),
                    format!("{}XX", code / 100),
                    "default".to_owned(),
                ]
            }
        };
        let form = keys.iter().find_map(|key| parts.forms.get_key_value(key));
        let Some((status, form)) = form else {
            let all: Vec<&str> = parts.forms.keys().map(String::as_str).collect();
            let (route, all) = (&own.route, all.join(", "));
            let text = format!("{route} defines no status {code}; it has {all}");
            return Ok(Err(wrong(text, "status", FailureClass::WrongStatus)));
        };
        Ok(Ok(Target {
            operation,
            status,
            form,
        }))
    }

    fn route(&self, message: &Message<'_>) -> Result<usize, Violation> {
        let class = FailureClass::WrongOperation;
        let (method, path) = (message.method, message.path);
        if path.len() > MAX_PATH_BYTES {
            let text = format!("the path is longer than {MAX_PATH_BYTES} bytes");
            return Err(violation(text, message, "path", class));
        }
        let operations = &self.api.operations;
        let is_own =
            |one: &Operation| one.method.eq_ignore_ascii_case(method) && one.pattern.is_match(path);
        operations.iter().position(is_own).ok_or_else(|| {
            let written = shorten(&format!("{method} {path}"));
            let near = did_you_mean(&written, operations.iter().map(|one| one.route.as_str()));
            let text = format!("no {written} in the document{near}");
            violation(text, message, "path", class)
        })
    }

    fn normal(&self, message: &Message<'_>, target: &Target<'_>) -> Normal {
        let operation = &self.api.operations[target.operation];
        message.normal(operation, target.form)
    }

    fn faults(
        &self,
        message: &Message<'_>,
        target: &Result<Target<'_>, Violation>,
    ) -> Checked<Vec<Violation>> {
        let target = match target {
            Ok(target) => target,
            Err(fault) => return Ok(vec![fault.clone()]),
        };
        let operation = &self.api.operations[target.operation];
        let compile = || CompiledForm::new(&self.api, operation, target.status);
        let known = self.compiled[target.operation].get(target.status);
        let known = known.ok_or("the operation has no such message")?;
        let compiled = known.get_or_init(compile);
        let compiled = compiled.as_ref().map_err(Clone::clone)?;
        Ok(compiled.violations(&self.normal(message, target)))
    }

    /// Compares a message with the expected one: fields, and whether all is equal.
    fn compare(
        &self,
        message: &Message<'_>,
        (wanted, wanted_target): &(Message<'_>, Target<'_>),
    ) -> (OrderedMap<bool>, bool) {
        let mut fields = Vec::new();
        match self.part {
            MessagePart::Request => {
                let same_method = message.method.eq_ignore_ascii_case(wanted.method);
                let same_path = decode_path(message.path) == decode_path(wanted.path);
                fields.extend([("method", same_method), ("path", same_path)]);
            }
            MessagePart::Response => fields.push(("status", message.status == wanted.status)),
        }
        let mut same = fields.iter().all(|(_, same)| *same);
        let named = fields
            .into_iter()
            .map(|(name, same)| (name.to_owned(), same));
        let mut fields: Vec<(String, bool)> = named.collect();
        // Both by the expected operation, so that values are read alike.
        let found = self.normal(message, wanted_target);
        let expected = self.normal(wanted, wanted_target);
        let document = json::parse(&found.text, 0);
        let expected = exact_json::parse(&expected.text).unwrap_or_default();
        let root = document
            .as_ref()
            .ok()
            .and_then(|document| document.root.as_object());
        for part in ["query", "body"] {
            let nothing = Value {
                start: 0,
                end: 0,
                kind: json::Kind::Null,
            };
            let member = root.and_then(|root| root.get(part));
            let Some(expected) = expected.get(part) else {
                same &= member.is_none();
                continue;
            };
            let value = member.map_or(&nothing, |member| &member.value);
            let (inner, is_same) = compare(value, expected, &self.normalise);
            same &= is_same && member.is_some();
            match inner {
                Some(inner) => {
                    let named = inner.0.into_iter();
                    fields.extend(named.map(|(name, same)| (format!("{part}.{name}"), same)));
                }
                None => fields.push((part.to_owned(), is_same)),
            }
        }
        (OrderedMap(fields), same)
    }

    fn judge_unreadable(
        &self,
        attempt: Attempt<'_>,
        why: Unreadable,
        wanted: Option<usize>,
    ) -> Verdict {
        let completion = attempt.completion;
        let mut left = MAX_EMBEDDED_MESSAGES;
        let mut accept = |value: &Value<'_>| {
            let Ok(message) = Message::read(self.part, completion, value) else {
                return false;
            };
            left = left.saturating_sub(1);
            let target = self.target(&message, wanted);
            let faults = target.and_then(|target| self.faults(&message, &target));
            left > 0 && faults.is_ok_and(|faults| faults.is_empty())
        };
        attempt.unparsable(why, |open| {
            inner_values(completion, attempt.from, |value| {
                value.start < open && accept(value)
            })
        })
    }
}

/// A fault of a part of a message.
fn violation(message: String, found: &Message<'_>, key: &str, class: FailureClass) -> Violation {
    Violation {
        message,
        instance_path: format!("/{key}"),
        schema_path: "/paths".to_owned(),
        offset: found.offset(key),
        class,
    }
}

/// The most informative class: something missing, else the first in the text.
fn class_of(faults: &[Violation]) -> FailureClass {
    let classes = || faults.iter().map(|fault| fault.class);
    [FailureClass::MissingParameter, FailureClass::MissingKey]
        .into_iter()
        .find(|missing| classes().any(|class| class == *missing))
        .or_else(|| classes().next())
        .unwrap_or(FailureClass::Other)
}
