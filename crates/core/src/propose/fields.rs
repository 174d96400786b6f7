//! The fields that can be proposed: scalar values at fixed places of an answer, and what a label says of each.

use serde_json::{Map, Value, json};

use crate::dataset::expected::{Expectation, alternatives};
use crate::exact_json::{self, marked_number};
use crate::format::listed;
use crate::score::{SchemaParts, Task};

/// Fields beyond are left out.
const MAX_FIELDS: usize = 100;
const MAX_DEPTH: usize = 6;
/// Parts of a schema that are read: a recursive one has no end.
const MAX_READ: usize = 2_000;
const MAX_NAMED: usize = 8;

/// How a value is made of what the prompt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    AsWritten,
    JoinedLines,
    /// Index into `candidates::DATE_FORMS`.
    Date(usize),
    Number,
    /// With two decimals, and with commas after thousands.
    Cents,
    Thousands,
    Currency,
    /// One of the schema's.
    Listed,
    /// Null, or no such field: where labels have that.
    Null,
    Absent,
}

impl Form {
    /// Whether it is no value, and a candidate only where labels have it.
    pub(super) fn is_without(self) -> bool {
        matches!(self, Self::Null | Self::Absent)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum FieldKind {
    Text,
    Number,
    /// Of an `enum` or a `const`, or true and false.
    Listed(Vec<Value>),
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) path: Vec<String>,
    pub(super) kind: FieldKind,
    pub(super) is_required: bool,
}

/// What a label says of a field.
#[derive(Debug, Clone)]
pub(super) enum Label {
    /// Any of these.
    Values(Vec<Value>),
    Null,
    Absent,
}

impl Field {
    pub(super) fn name(&self) -> String {
        self.path.join(".")
    }

    pub(super) fn read_value(&self, text: &str) -> Result<Value, String> {
        let read = exact_json::parse(text).unwrap_or_else(|_| json!(text));
        match &self.kind {
            FieldKind::Text => Ok(json!(text)),
            FieldKind::Number if number_text(&read).is_some() => Ok(read),
            FieldKind::Number => Err(format!("{text}: {} is a number", self.name())),
            FieldKind::Listed(values) => {
                let found = values
                    .iter()
                    .find(|value| is_same(value, &read) || is_same(value, &json!(text)));
                found.cloned().ok_or_else(|| {
                    let known: Vec<String> = values.iter().map(exact_json::write).collect();
                    format!(
                        "{text}: {} is one of {}",
                        self.name(),
                        listed(&known, MAX_NAMED)
                    )
                })
            }
        }
    }

    pub(super) fn label(&self, expected: &Value) -> Label {
        let mut value = expected;
        for key in &self.path {
            if let Expectation::Any(all) = Expectation::from_value(value)
                && let Some(first) = all.first()
            {
                value = first;
            }
            match value.get(key) {
                Some(inner) => value = inner,
                None => return Label::Absent,
            }
        }
        if let Expectation::Optional(inner) = Expectation::from_value(value) {
            value = inner;
        }
        let values: Vec<Value> = alternatives(value).into_iter().cloned().collect();
        match values.iter().all(Value::is_null) {
            true => Label::Null,
            false => Label::Values(values),
        }
    }
}

impl Label {
    /// Whether a value is right: white space and case do not count, nor how a number is written.
    pub(super) fn has_value(&self, value: &Value, form: Form) -> bool {
        match (self, form) {
            (Self::Null, Form::Null) | (Self::Absent, Form::Absent) => true,
            (_, form) if form.is_without() => false,
            (Self::Values(values), _) => values.iter().any(|right| is_same(right, value)),
            (Self::Null | Self::Absent, _) => false,
        }
    }
}

pub(super) fn is_same(left: &Value, right: &Value) -> bool {
    match (left.as_str(), right.as_str()) {
        (Some(left), Some(right)) => {
            let folded = |text: &str| {
                text.split_whitespace()
                    .flat_map(|word| word.chars().flat_map(char::to_lowercase).chain([' ']))
                    .collect::<String>()
            };
            left == right || left.eq_ignore_ascii_case(right) || folded(left) == folded(right)
        }
        _ => {
            left == right || number_text(left).is_some_and(|left| Some(left) == number_text(right))
        }
    }
}

/// A text that equal numbers share.
fn number_text(value: &Value) -> Option<String> {
    let mut text = String::new();
    match (marked_number(value), value.as_f64()) {
        (Some(number), _) => number.write_canonical(&mut text),
        (None, Some(number)) => text = format!("{number}"),
        (None, None) => return None,
    }
    Some(text)
}

/// The fields of a task's answers, and the names of those that cannot be proposed.
///
/// # Errors
/// The task has no JSON Schema of objects with scalar values, or one that requires a list.
pub(super) fn fields_of(task: &Task) -> Result<(Vec<Field>, Vec<String>), String> {
    let schema = task.schema().ok_or_else(|| {
        format!("{}: values are proposed for JSON answers with a schema (`[score] kind = \"json_schema\"`), not for {}", task.name, task.kind())
    })?;
    let (mut fields, mut lists, mut required_lists) = (Vec::new(), Vec::new(), Vec::new());
    let mut open = vec![(Vec::<String>::new(), SchemaParts::new(schema, schema), true)];
    let mut left = MAX_READ;
    while let Some((path, parts, is_required)) = open.pop()
        && fields.len() < MAX_FIELDS
        && left > 0
    {
        left -= 1;
        let (types, values) = (parts.types(), parts.listed());
        let kind = if !values.is_empty() {
            FieldKind::Listed(
                values
                    .into_iter()
                    .filter(|value| !value.is_null())
                    .cloned()
                    .collect(),
            )
        } else if types.object && !types.string && path.len() < MAX_DEPTH {
            let required: Vec<&str> = parts.required().collect();
            // The last is popped first.
            for name in parts.properties().into_iter().rev() {
                let inner = [&path[..], &[name.to_owned()]].concat();
                open.push((
                    inner,
                    parts.member(name),
                    is_required && required.contains(&name),
                ));
            }
            continue;
        } else if types.array && !types.string {
            lists.push(path.join("."));
            required_lists.extend(is_required.then(|| path.join(".")));
            continue;
        } else if types.is_number_only() {
            FieldKind::Number
        } else if types.is_boolean_only() {
            FieldKind::Listed(vec![json!(true), json!(false)])
        } else {
            FieldKind::Text
        };
        if !path.is_empty() {
            fields.push(Field {
                path,
                kind,
                is_required,
            });
        }
    }
    let label = task.label(&task.definition_file);
    if !required_lists.is_empty() {
        let names: Vec<&str> = required_lists.iter().map(String::as_str).collect();
        return Err(format!(
            "{label}: {}: lists are not proposed, and the schema requires them: label these rows by hand",
            listed(&names, MAX_NAMED)
        ));
    }
    if fields.is_empty() {
        return Err(format!(
            "{label}: the schema names no field with a single value"
        ));
    }
    Ok((fields, lists))
}

/// Sets a value in an answer, with the objects around it.
pub(super) fn set(answer: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((last, before)) = path.split_last() else {
        return;
    };
    let mut inner = answer;
    for key in before {
        let next = inner.entry(key.clone()).or_insert_with(|| json!({}));
        match next.as_object_mut() {
            Some(members) => inner = members,
            None => return,
        }
    }
    inner.insert(last.clone(), value);
}
