//! API requests as schemas: one per operation, with the path as a pattern.

use std::sync::Arc;

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::{Map, Value, json};

use super::ConstraintError;
use super::formats::pattern_of_format;
use super::overlap::values_named;
use super::schema::SchemaFile;
use crate::score::{HttpRules, MessagePart, MessageSchema, message_schemas, operations};
use crate::task::{escaped, referenced_part};

/// Path characters with a single spelling.
const PLAIN: &str = "[A-Za-z0-9._~-]";
/// Integers that doubles represent exactly.
const DIGITS: &str = "[0-9]{0,14}";
/// Bounded integers that are enumerated.
const MAX_ENUMERATED_INTEGERS: i64 = 1_000;
/// Nesting of schemas examined.
const MAX_NESTING: usize = 8;

/// Requests of a task's operations. Responses have no grammar.
///
/// # Errors
/// [`ConstraintError`] with the place in the document.
pub(super) fn request_files(
    (label, text): (&str, &str),
    rules: &HttpRules,
    assert_formats: bool,
) -> Result<Vec<SchemaFile>, ConstraintError> {
    let fault = |message: String| ConstraintError::Tools {
        label: label.to_owned(),
        message,
    };
    if rules.part == MessagePart::Response {
        return Err(fault(
            "responses cannot be enforced while decoding, only requests".to_owned(),
        ));
    }
    let listed = operations(&rules.document).map_err(|error| fault(error.message))?;
    let described = message_schemas(rules, assert_formats);
    if rules.operation.is_none() && described.len() < listed.len() {
        let message = format!(
            "of {} operations the first {} can be enforced while decoding: name one by `[score] operation`",
            listed.len(),
            described.len()
        );
        return Err(fault(message));
    }
    let others: Vec<(&str, &str)> = listed
        .iter()
        .map(|other| (other.method.as_str(), other.path))
        .collect();
    let file = |described: MessageSchema| {
        let (described, text) = (Arc::new(described), Arc::from(text));
        let mut file = SchemaFile::for_message(label, text, &described);
        let path = Path {
            described: &described,
            assert_formats,
        }
        .pattern(&others)
        .map_err(|(pointer, message)| file.error(&pointer, message))?;
        if let (Some(place), Some(pattern)) = (file.schema.pointer_mut("/properties/path"), path) {
            *place = json!({"type": "string", "pattern": pattern});
        }
        Ok(file)
    };
    described.into_iter().map(file).collect()
}

/// JSON pointer and problem.
type Fault = (String, String);

struct Path<'a> {
    described: &'a MessageSchema,
    assert_formats: bool,
}

impl Path<'_> {
    /// Pattern of the path; `None` without variables. `others`: methods and paths of the document.
    fn pattern(&self, others: &[(&str, &str)]) -> Result<Option<String>, Fault> {
        let constant = |key: &str| {
            self.described.schema["properties"][key]["const"]
                .as_str()
                .unwrap_or_default()
        };
        let (method, template) = (constant("method"), constant("path"));
        let segments: Vec<&str> = template.split('/').collect();
        if !template.contains('{') {
            return Ok(None);
        }
        let patterns = segments
            .iter()
            .map(|segment| self.segment(segment))
            .collect::<Result<Vec<_>, _>>()?;
        for (_, other) in others
            .iter()
            .filter(|(other, path)| *other == method && *path != template)
        {
            let theirs: Vec<&str> = other.split('/').collect();
            let rank = |segments: &[&str]| {
                segments
                    .iter()
                    .map(|segment| segment.contains('{'))
                    .collect::<Vec<_>>()
            };
            let may_be = |(pattern, theirs): (&String, &&str)| {
                theirs.contains('{')
                    || Regex::new(&format!("^(?:{pattern})$"))
                        .map_or(true, |regex| regex.is_match(theirs))
            };
            let is_nearer = theirs.len() == segments.len() && rank(&theirs) < rank(&segments);
            if is_nearer && patterns.iter().zip(&theirs).all(may_be) {
                let name = template.split(['{', '}']).nth(1).unwrap_or_default();
                let message = format!(
                    "{template} cannot be enforced while decoding: what fills it in may make it {other}; give the parameter a type or an `enum` that tells them apart"
                );
                return Err((format!("/path/{}", escaped(name)), message));
            }
        }
        Ok(Some(format!("^{}$", patterns.join("/"))))
    }

    fn segment(&self, segment: &str) -> Result<String, Fault> {
        let Some((before, rest)) = segment.split_once('{') else {
            return Ok(regex::escape(segment));
        };
        let Some((name, after)) = rest.split_once('}') else {
            return Ok(regex::escape(segment));
        };
        let at = format!("/path/{}", escaped(name));
        if !after.is_empty() {
            return Err((
                at,
                format!(
                    "{segment} cannot be enforced while decoding: text after a variable may be a part of it"
                ),
            ));
        }
        let schema = self
            .described
            .path
            .iter()
            .find(|(known, _)| known == name)
            .map_or(&Value::Null, |(_, schema)| schema);
        let variable = self
            .variable(schema)
            .map_err(|(keyword, message)| (format!("{at}{keyword}"), message))?;
        Ok(format!("{}(?:{variable})", regex::escape(before)))
    }

    /// Pattern of a variable's text.
    fn variable(&self, schema: &Value) -> Result<String, Fault> {
        let schema = referred(&self.described.schema, schema);
        let nothing = Map::new();
        let members = schema.as_object().unwrap_or(&nothing);
        let refuse = |keyword: &str| {
            (
                format!("/{keyword}"),
                format!(
                    "`{keyword}` of a variable of the path cannot be enforced while decoding: remove it, or sample without a constraint"
                ),
            )
        };
        if let Some(values) = values_named(members) {
            let keyword = if members.contains_key("const") {
                "const"
            } else {
                "enum"
            };
            if let Some(key) = members
                .keys()
                .find(|key| !["type", "enum", "const"].contains(&key.as_str()))
            {
                return Err(refuse(key));
            }
            let texts: Option<Vec<String>> = values
                .iter()
                .filter(|value| !value.is_null())
                .map(written)
                .collect();
            return texts
                .filter(|texts| !texts.is_empty())
                .map(|texts| texts.join("|"))
                .ok_or_else(|| refuse(keyword));
        }
        let kind = match members.get("type") {
            Some(Value::Array(kinds)) => kinds
                .iter()
                .filter_map(Value::as_str)
                .find(|kind| *kind != "null"),
            Some(kind) => kind.as_str(),
            None => Some("string"),
        };
        let is_known = |key: &str| match kind {
            Some("string") => ["minLength", "maxLength", "pattern"].contains(&key),
            Some("integer" | "number") => ["minimum", "maximum"].contains(&key),
            _ => false,
        };
        let format = members
            .get("format")
            .and_then(Value::as_str)
            .filter(|_| self.assert_formats);
        let format = format.filter(|name| {
            crate::schema_keywords::FORMATS
                .iter()
                .any(|known| known.0 == *name)
        });
        if let Some(key) = members
            .keys()
            .find(|key| !is_known(key) && !["type", "format"].contains(&key.as_str()))
        {
            return Err(refuse(key));
        }
        match (kind, format) {
            (Some("string"), Some(name)) => {
                let pattern =
                    pattern_of_format(name).filter(|_| members.keys().all(|key| !is_known(key)));
                Ok(pattern
                    .ok_or_else(|| refuse("format"))?
                    .trim_start_matches('^')
                    .trim_end_matches('$')
                    .to_owned())
            }
            (Some("string"), None) => string(members).map_err(refuse),
            (Some("integer"), None) => whole(members).map_err(refuse),
            (Some("number"), None) => match (
                members.get("minimum").map(Value::as_f64),
                members.get("maximum"),
            ) {
                (_, Some(_)) => Err(refuse("maximum")),
                (Some(least), None) if least != Some(0.0) => Err(refuse("minimum")),
                (least, None) => Ok(format!(
                    r"{}(0|[1-9]{DIGITS})(\.[0-9]{{1,6}})?",
                    if least.is_some() { "" } else { "-?" }
                )),
            },
            (Some("boolean"), None) => Ok("true|false".to_owned()),
            _ => Err(refuse("type")),
        }
    }
}

fn string(members: &Map<String, Value>) -> Result<String, &'static str> {
    let length = |key: &str| members.get(key).and_then(Value::as_u64);
    let Some(pattern) = members.get("pattern").and_then(Value::as_str) else {
        let (least, most) = (length("minLength").unwrap_or(1).max(1), length("maxLength"));
        return Ok(format!(
            "{PLAIN}{{{least},{}}}",
            most.map_or_else(String::new, |most| most.to_string())
        ));
    };
    let inner = pattern
        .strip_prefix('^')
        .and_then(|pattern| pattern.strip_suffix('$'))
        .ok_or("pattern")?;
    let is_plain = regex_syntax::parse(inner)
        .is_ok_and(|hir| is_plain(&hir) && hir.properties().minimum_len() > Some(0));
    match is_plain && length("minLength").is_none() && length("maxLength").is_none() {
        true => Ok(inner.to_owned()),
        false => Err("pattern"),
    }
}

fn whole(members: &Map<String, Value>) -> Result<String, &'static str> {
    let bound = |key| match members.get(key) {
        None => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or(key),
    };
    match (bound("minimum")?, bound("maximum")?) {
        (None, None) => Ok(format!("0|-?[1-9]{DIGITS}")),
        (Some(0), None) => Ok(format!("0|[1-9]{DIGITS}")),
        (Some(1), None) => Ok(format!("[1-9]{DIGITS}")),
        (Some(least), Some(most))
            if (0..MAX_ENUMERATED_INTEGERS).contains(&most.saturating_sub(least)) =>
        {
            Ok((least..=most)
                .map(|number| number.to_string())
                .collect::<Vec<_>>()
                .join("|"))
        }
        (_, Some(_)) => Err("maximum"),
        (Some(_), None) => Err("minimum"),
    }
}

/// A scalar as written in a path.
fn written(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return None,
    };
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._~-".contains(letter);
    (!text.is_empty() && text.chars().all(is_plain)).then(|| regex::escape(&text))
}

/// Whether a pattern only matches texts of [`PLAIN`].
fn is_plain(hir: &Hir) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    match hir.kind() {
        HirKind::Empty => true,
        HirKind::Literal(literal) => literal.0.iter().copied().all(is_byte),
        HirKind::Class(Class::Unicode(class)) => class.iter().all(|range| {
            range.end().is_ascii()
                && (range.start()..=range.end()).all(|letter| is_byte(letter as u8))
        }),
        HirKind::Class(Class::Bytes(class)) => class
            .iter()
            .all(|range| (range.start()..=range.end()).all(is_byte)),
        HirKind::Look(_) => false,
        HirKind::Repetition(repeated) => is_plain(&repeated.sub),
        HirKind::Capture(group) => is_plain(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().all(is_plain),
    }
}

/// Target of a schema's reference.
fn referred<'v>(whole: &'v Value, schema: &'v Value) -> &'v Value {
    let target = |schema: &'v Value| referenced_part(whole, schema.get("$ref")?.as_str()?);
    let mut found = schema;
    for _ in 0..MAX_NESTING {
        let Some(next) = target(found) else { break };
        found = next;
    }
    found
}
