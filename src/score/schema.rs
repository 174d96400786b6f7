//! The schema, checked against its meta-schema and compiled; a value's violations with their places.

use std::collections::HashMap;

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{PatternOptions, Retrieve, Uri, ValidationError, Validator};

use super::guard::guarded;
use super::instance::Completion;
use super::json::{self, Places, Value};
use super::{FailureClass, ScoreError};
use crate::task::{Task, encoded};

/// Steps that a pattern with look-around or back-references may take before it counts as not matching; all other patterns run in linear time.
const BACKTRACK_LIMIT: usize = 100_000;

/// Base address of the schema's own file.
const HOME: &str = "task:///";

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator<Completion>,
}

/// One constraint that a value breaks.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) message: String,
    pub(super) instance_path: String,
    pub(super) schema_path: String,
    /// Byte offset in the completion: of the value, or of the key when a key is the fault.
    pub(super) offset: usize,
    pub(super) class: FailureClass,
}

impl Schema {
    /// Compiles a task's schema; nothing is fetched from the network.
    pub(super) fn compile(task: &Task) -> Result<Self, ScoreError> {
        let mut local = HashMap::new();
        for (address, file) in &task.references {
            let label = task.label(file);
            let bytes = task.read(file)?;
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            let schema: serde_json::Value =
                serde_json::from_str(text).map_err(|error| ScoreError::Reference { label: label.clone(), message: error.to_string() })?;
            check_against_meta_schema(&label, text, &schema)?;
            let address = if address.contains(':') { address.clone() } else { format!("{HOME}{}", address.trim_start_matches("./")) };
            local.insert(address, schema);
        }
        let label = task.label(&task.schema_file);
        check_against_meta_schema(&label, &task.schema_text, &task.schema)?;
        let validator = jsonschema::options_for::<Completion>()
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT))
            .should_validate_formats(task.score.assert_formats)
            .with_base_uri(format!("{HOME}{}", encoded(&task.schema_file)))
            .with_retriever(LocalFiles { local })
            .build(&task.schema)
            .map_err(|error| build_error(&label, &task.schema_text, &error))?;
        Ok(Self { validator })
    }

    /// False also where the validator gave up on the value.
    #[inline]
    pub(super) fn is_valid(&self, value: &Value<'_>) -> bool {
        guarded(|| self.validator.is_valid(value)).unwrap_or(false)
    }

    /// All violations, those that stand first in the text first.
    pub(super) fn violations(&self, text: &str, root: &Value<'_>) -> Vec<Violation> {
        let mut violations = Vec::new();
        // The validator fails to say where a key's pattern took too many steps (jsonschema 0.60): what it found until then stands, and that sentence with it.
        let whole = guarded(|| violations.extend(self.validator.iter_errors(root).map(|error| violation(text, root, &error))));
        if whole.is_none() {
            violations.push(gave_up(root));
        }
        violations.sort_by_key(|violation| violation.offset);
        violations
    }
}

/// References lead to files of the task, and nowhere else.
struct LocalFiles {
    local: HashMap<String, serde_json::Value>,
}

impl Retrieve for LocalFiles {
    fn retrieve(&self, uri: &Uri<String>) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>> {
        self.local.get(uri.as_str()).cloned().ok_or_else(|| format!("{uri} is not a file of the task").into())
    }
}

fn check_against_meta_schema(label: &str, text: &str, schema: &serde_json::Value) -> Result<(), ScoreError> {
    // The deepest place says most: above it stand the `anyOf`s that failed because of it.
    let worst = meta_problems(schema).into_iter().max_by_key(|(pointer, _)| pointer.matches('/').count());
    match worst {
        Some((pointer, message)) => Err(schema_error(label, text, &pointer, message)),
        None => Ok(()),
    }
}

/// What a schema's meta-schema has against it: JSON pointers into the schema, with sentences. Only the deepest of each branch.
pub(super) fn meta_problems(schema: &serde_json::Value) -> Vec<(String, String)> {
    if !schema.is_object() && !schema.is_boolean() {
        return vec![(String::new(), "a schema is an object (or true or false)".to_owned())];
    }
    let Ok(meta) = jsonschema::meta::validator_for(schema) else {
        let draft = schema.get("$schema").map(ToString::to_string).unwrap_or_default();
        let message = format!(
            "unknown draft {draft}; known are draft 4, 6, 7, 2019-09 and 2020-12, for example \"https://json-schema.org/draft/2020-12/schema\""
        );
        return vec![("/$schema".to_owned(), message)];
    };
    let found: Vec<(String, String)> =
        meta.iter_errors(schema).map(|error| (error.instance_path().as_str().to_owned(), meta_sentence(&error))).collect();
    let mut deepest: Vec<(String, String)> = Vec::new();
    for (pointer, message) in &found {
        let above = found.iter().any(|(other, _)| {
            other.len() > pointer.len() && other.starts_with(pointer.as_str()) && other.as_bytes().get(pointer.len()) == Some(&b'/')
        });
        if !above && !deepest.iter().any(|(kept, _)| kept == pointer) {
            deepest.push((pointer.clone(), message.clone()));
        }
    }
    deepest
}

fn meta_sentence(error: &ValidationError<'_>) -> String {
    let found: String = error.instance().to_string().chars().take(80).collect();
    match error.kind() {
        Kind::AnyOf { .. } if error.instance_path().as_str().ends_with("/type") => {
            format!("{found} is not a type; the types are array, boolean, integer, null, number, object and string")
        }
        _ => error.masked_with(found).to_string(),
    }
}

fn schema_error(label: &str, text: &str, pointer: &str, message: String) -> ScoreError {
    let document = json::parse(text, 0).ok();
    let offset = document.and_then(|document| document.root.pointer(pointer).map(|value| value.start)).unwrap_or(0);
    let place = Places::new(text).of(offset);
    ScoreError::Schema { label: label.to_owned(), line: place.line, column: place.column, pointer: pointer.to_owned(), message }
}

/// Why a schema that its meta-schema accepts still cannot be used.
fn build_error(label: &str, text: &str, error: &ValidationError<'_>) -> ScoreError {
    let Kind::Referencing(cause) = error.kind() else {
        return schema_error(label, text, error.instance_path().as_str(), error.to_string());
    };
    let document = json::parse(text, 0).ok();
    let named =
        |wanted: &str| document.as_ref().and_then(|document| find_reference(&document.root, String::new(), wanted)).unwrap_or_default();
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
            // As written it may be relative to an `$id`; its last part is the same.
            let whole = named(shown);
            let pointer = if whole.is_empty() { named(shown.rsplit('/').next().unwrap_or(shown)) } else { whole };
            schema_error(label, text, &pointer, advice)
        }
        jsonschema::ReferencingError::PointerToNowhere { pointer } => {
            schema_error(label, text, &named(pointer), format!("`$ref` leads nowhere: there is no {pointer} in the schema"))
        }
        jsonschema::ReferencingError::NoSuchAnchor { anchor } => {
            schema_error(label, text, &named(anchor), format!("`$ref` leads nowhere: there is no anchor {anchor:?} in the schema"))
        }
        other => schema_error(label, text, "", other.to_string()),
    }
}

/// Pointer to the first `$ref` (or `$dynamicRef`) whose text ends in what was looked for.
fn find_reference(value: &Value<'_>, pointer: String, wanted: &str) -> Option<String> {
    match &value.kind {
        json::Kind::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| find_reference(item, format!("{pointer}/{index}"), wanted))
        }
        json::Kind::Object(object) => object.members().iter().find_map(|member| {
            let inner = format!("{pointer}/{}", member.key.replace('~', "~0").replace('/', "~1"));
            match &member.value.kind {
                json::Kind::String(target)
                    if matches!(&*member.key, "$ref" | "$dynamicRef" | "$recursiveRef")
                        && target.contains(wanted.trim_start_matches('#')) =>
                {
                    Some(inner)
                }
                _ => find_reference(&member.value, inner, wanted),
            }
        }),
        _ => None,
    }
}

fn violation(text: &str, root: &Value<'_>, error: &ValidationError<'_>) -> Violation {
    let instance_path = error.instance_path().as_str().to_owned();
    let value = root.pointer(&instance_path).unwrap_or(root);
    let key_at = |key: &String| value.as_object().and_then(|object| object.get(key)).map(|member| member.key_start);
    let offset = match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().filter_map(key_at).min()
        }
        _ => None,
    };
    Violation {
        message: sentence(error, text.get(value.start..value.end).unwrap_or(""), value.type_name()),
        schema_path: error.schema_path().as_str().to_owned(),
        offset: offset.unwrap_or(value.start),
        class: class_of(error.kind()),
        instance_path,
    }
}

fn gave_up(root: &Value<'_>) -> Violation {
    Violation {
        message: "checking this value took too many steps, so it counts as not valid; simplify the schema's patterns".to_owned(),
        instance_path: String::new(),
        schema_path: String::new(),
        offset: root.start,
        class: FailureClass::Other,
    }
}

fn class_of(kind: &Kind) -> FailureClass {
    match kind {
        Kind::Required { .. } => FailureClass::MissingKey,
        Kind::Type { .. } => FailureClass::WrongType,
        Kind::Enum { .. } | Kind::Constant { .. } => FailureClass::Enum,
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => FailureClass::ExtraKey,
        _ => FailureClass::Other,
    }
}

/// The reason in words, quoting what the completion says.
fn sentence(error: &ValidationError<'_>, written: &str, type_name: &str) -> String {
    let found = shorten(written);
    let what = if type_name == "null" { found.clone() } else { format!("{type_name} {found}") };
    match error.kind() {
        Kind::Required { property } => format!("missing key {property}"),
        Kind::Type { kind: TypeKind::Single(wanted) } => format!("expected {wanted}, found {what}"),
        Kind::Type { kind: TypeKind::Multiple(wanted) } => {
            format!("expected {}, found {what}", wanted.iter().map(|wanted| wanted.to_string()).collect::<Vec<_>>().join(" or "))
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let keys: Vec<String> = unexpected.iter().take(10).map(|key| format!("{:?}", shorten(key))).collect();
            let more = if unexpected.len() > 10 { format!(" and {} more", unexpected.len() - 10) } else { String::new() };
            format!("{} not allowed: {}{more}", if unexpected.len() == 1 { "key" } else { "keys" }, keys.join(", "))
        }
        Kind::Enum { options } => format!("expected one of {}, found {found}", shorten(&options.to_string())),
        Kind::Constant { expected_value } => format!("expected {}, found {found}", shorten(&expected_value.to_string())),
        Kind::Format { format } => format!("{found} is not a {format}"),
        Kind::Pattern { pattern } => format!("{found} does not match the pattern {pattern}"),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            format!("matching {found} against the schema's pattern took too many steps, so it counts as no match")
        }
        Kind::PropertyNames { error } => format!("a key of {found} is not allowed: {}", error.masked_with("the key")),
        Kind::AdditionalItems { limit } => format!("more than {limit} items in {found}"),
        _ => error.masked_with(found).to_string(),
    }
}

/// At most 80 characters of it, in one line.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).map(|character| if character.is_control() { ' ' } else { character }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
