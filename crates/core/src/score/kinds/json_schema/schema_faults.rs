//! Errors in a schema with positions: by its meta-schema, and dangling references.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;

use super::schema_rewrite::ADDRESSES;
use crate::score::answer::json::{self, Places, Value};
use crate::score::error::ScoreError;
use crate::task::{decode_path, encode_reference, escaped};

/// Base address of the schema's own file.
pub(super) const HOME: &str = "task:///";

/// Faults examined per schema.
const MAX_FAULTS: usize = 1_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) label: &'a str,
    pub(crate) text: &'a str,
    /// JSON pointer to the schema in the text; empty for the whole.
    pub(crate) pointer: &'a str,
}

impl Written<'_> {
    pub(crate) fn error(self, pointer: &str, message: String) -> ScoreError {
        self.error_in_file(format!("{}{pointer}", self.pointer), message)
    }

    fn error_in_file(self, pointer: String, message: String) -> ScoreError {
        let document = json::parse(self.text, 0).ok();
        let offset = document
            .and_then(|document| document.root.pointer(&pointer).map(|value| value.start))
            .unwrap_or(0);
        let place = Places::new(self.text).locate(offset);
        ScoreError::Schema {
            label: self.label.to_owned(),
            line: place.line,
            column: place.column,
            pointer,
            message,
        }
    }
}

pub(super) fn check_against_meta_schema(
    written: Written<'_>,
    schema: &serde_json::Value,
) -> Result<(), ScoreError> {
    // The deepest place is most informative: those above are `anyOf`s that failed because of it.
    let worst = meta_problems(schema)
        .into_iter()
        .max_by_key(|(pointer, _)| pointer.matches('/').count());
    match worst {
        Some((pointer, message)) => Err(written.error(&pointer, message)),
        None => Ok(()),
    }
}

/// Meta-schema errors: JSON pointers and sentences. Only the deepest of each branch.
pub(crate) fn meta_problems(schema: &serde_json::Value) -> Vec<(String, String)> {
    if !schema.is_object() && !schema.is_boolean() {
        return vec![(
            String::new(),
            "a schema is an object (or true or false)".to_owned(),
        )];
    }
    let Ok(meta) = jsonschema::meta::validator_for(schema) else {
        let draft = schema
            .get("$schema")
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = format!(
            "unknown draft {draft}; known are draft 4, 6, 7, 2019-09 and 2020-12, for example \"https://json-schema.org/draft/2020-12/schema\""
        );
        return vec![("/$schema".to_owned(), message)];
    };
    let found: Vec<(String, String)> = meta
        .iter_errors(schema)
        .take(MAX_FAULTS)
        .map(|error| {
            (
                error.instance_path().as_str().to_owned(),
                meta_sentence(&error),
            )
        })
        .collect();
    let mut deepest: Vec<(String, String)> = Vec::new();
    for (pointer, message) in &found {
        let above = found.iter().any(|(other, _)| {
            other.len() > pointer.len()
                && other.starts_with(pointer.as_str())
                && other.as_bytes().get(pointer.len()) == Some(&b'/')
        });
        if !above && !deepest.iter().any(|(seen, _)| seen == pointer) {
            deepest.push((pointer.clone(), message.clone()));
        }
    }
    deepest
}

fn meta_sentence(error: &ValidationError<'_>) -> String {
    let found: String = error.instance().to_string().chars().take(80).collect();
    match error.kind() {
        Kind::AnyOf { .. } if error.instance_path().as_str().ends_with("/type") => {
            format!(
                "{found} is not a type; the types are array, boolean, integer, null, number, object and string"
            )
        }
        _ => error.masked_with(found).to_string(),
    }
}

/// Why a schema accepted by its meta-schema is still unusable.
pub(super) fn build_error(written: Written<'_>, error: &ValidationError<'_>) -> ScoreError {
    let Kind::Referencing(cause) = error.kind() else {
        let (found, is_pattern) = (
            error.instance(),
            matches!(error.kind(), Kind::Format { format } if format == "regex"),
        );
        let message = if is_pattern {
            format!("{found} is not a valid regular expression")
        } else {
            error.to_string()
        };
        return written.error(error.instance_path().as_str(), message);
    };
    let document = json::parse(written.text, 0).ok();
    let named = |reference: &str| {
        document
            .as_ref()
            .and_then(|document| {
                find_address(&document.root, String::new(), &|key, target| {
                    !key.ends_with("id") && target.contains(reference.trim_start_matches('#'))
                })
            })
            .unwrap_or_default()
    };
    match cause {
        jsonschema::ReferencingError::Unretrievable { uri, .. } => {
            let shown = uri.strip_prefix(HOME).unwrap_or(uri);
            let advice = if uri.starts_with(HOME) {
                format!("`$ref` to {shown}: the task has no such file")
            } else {
                format!(
                    "remote `$ref` to {shown} is refused: nothing is fetched from a network; save it in the task's folder and name it in task.toml: `[score.references]` \"{shown}\" = \"FILE.json\""
                )
            };
            // It may be relative to an `$id`; its last part is the same.
            let whole = named(shown);
            let pointer = if whole.is_empty() {
                named(shown.rsplit('/').next().unwrap_or(shown))
            } else {
                whole
            };
            written.error_in_file(pointer, advice)
        }
        jsonschema::ReferencingError::PointerToNowhere { pointer } => {
            let pointer = decode_path(pointer);
            written.error_in_file(
                named(&pointer),
                format!("`$ref` target not found: {pointer} is not in the schema"),
            )
        }
        jsonschema::ReferencingError::NoSuchAnchor { anchor } => written.error_in_file(
            named(anchor),
            format!("`$ref` target not found: anchor {anchor:?} is not in the schema"),
        ),
        jsonschema::ReferencingError::InvalidPercentEncoding { pointer, .. }
        | jsonschema::ReferencingError::InvalidArrayIndex { pointer, .. } => written.error_in_file(
            named(pointer),
            format!("`$ref` target not found: {pointer} is not in the schema"),
        ),
        jsonschema::ReferencingError::InvalidUri(_) => {
            let is_wrong = |_: &str, address: &str| {
                jsonschema::uri::from_str(&encode_reference(address)).is_err()
            };
            let document = document.as_ref();
            let found = document
                .and_then(|document| find_address(&document.root, String::new(), &is_wrong));
            written.error_in_file(
                found.unwrap_or_default(),
                "not an address: write #/$defs/NAME, #ANCHOR, a file's name or a URI".to_owned(),
            )
        }
        other => written.error("", other.to_string()),
    }
}

/// Pointer to the first reference or address accepted by `is_wanted`, given key and text.
fn find_address(
    value: &Value<'_>,
    pointer: String,
    is_wanted: &dyn Fn(&str, &str) -> bool,
) -> Option<String> {
    match &value.kind {
        json::Kind::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_address(item, format!("{pointer}/{index}"), is_wanted)),
        json::Kind::Object(object) => object.members().iter().find_map(|member| {
            let inner = format!("{pointer}/{}", escaped(&member.key));
            match &member.value.kind {
                json::Kind::String(target)
                    if ADDRESSES.contains(&&*member.key) && is_wanted(&member.key, target) =>
                {
                    Some(inner)
                }
                _ => find_address(&member.value, inner, is_wanted),
            }
        }),
        _ => None,
    }
}
