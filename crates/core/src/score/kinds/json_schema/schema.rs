//! Compiles a schema, checked by its meta-schema; finds violations with positions.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{Draft, PatternOptions, Retrieve, Uri, ValidationError, Validator};
use parking_lot::Mutex;

use super::budget::{Budget, BudgetExceeded, bounded};
use super::instance::Completion;
use super::pattern::{
    self, BACKTRACK_LIMIT, BoundedPattern, any_pattern, backtracks, long_key, shorten,
};
use super::schema_faults::{HOME, Written, build_error, check_against_meta_schema};
use super::{exact_numbers, schema_rewrite};
use crate::exact_json::count_values;
use crate::schema_keywords::{visit, visit_mut};
use crate::score::answer::json::{self, Value};
use crate::score::definition::SchemaFiles;
use crate::score::error::ScoreError;
use crate::score::verdict::FailureClass;
use crate::task::{TaskFiles, encode_path, encode_reference, escaped};

/// Steps per byte of completion and value of schema.
const STEPS_PER_PAIR: u64 = 4;
/// Lower and upper bound of a validation's steps.
const MIN_STEPS: u64 = 1_000_000;
const MAX_STEPS: u64 = 500_000_000;

/// Bytes of errors of one completion, and of one error besides its paths.
const ERRORS_BYTES: u64 = 128 << 20;
const ERROR_BYTES: u64 = 1_024;
/// Characters of an enum's values in a reason.
const MAX_ENUM_CHARS: usize = 60;

#[derive(Debug)]
pub(crate) struct Schema {
    validator: Validator<Completion>,
    /// Built on the first invalid value; `None` if a reference leads into a branch, which this form
    /// lacks.
    explainer: OnceLock<Option<Validator<Completion>>>,
    documents: Documents,
    size: u64,
}

/// A schema's files with their analysis.
#[derive(Debug)]
struct Documents {
    root: serde_json::Value,
    base: String,
    others: HashMap<String, serde_json::Value>,
    assert_formats: bool,
    strings_backtrack: bool,
    /// Whether some `pattern` is rewritten for its engine.
    strings_differ: bool,
    written: HashMap<String, String>,
    /// Whether some key of `patternProperties` backtracks.
    keys_backtrack: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) message: String,
    pub(crate) instance_path: String,
    pub(crate) schema_path: String,
    /// Byte offset in the completion: of the value, or of a faulty key.
    pub(crate) offset: usize,
    pub(crate) class: FailureClass,
}

impl Schema {
    pub(super) fn compile(task: &TaskFiles, files: &SchemaFiles) -> Result<Self, ScoreError> {
        let label = task.label(&task.definition_file);
        let written = Written {
            label: &label,
            text: &task.definition_text,
            pointer: "",
        };
        check_against_meta_schema(written, &files.schema)?;
        let mut others = HashMap::new();
        let mut faults = HashMap::new();
        for (address, file) in &files.references {
            let label = task.label(file);
            let text = crate::files::text(task.read(file)?.into_owned()).unwrap_or_default();
            let text = text.as_str();
            let unreadable = |error: serde_json::Error| ScoreError::Reference {
                label: label.clone(),
                message: error.to_string(),
            };
            let mut schema = exact_numbers::parse(text).map_err(unreadable)?;
            // A file without a draft has that of the file that refers to it.
            if let (Some(members), Some(draft)) =
                (schema.as_object_mut(), files.inherited_drafts.get(address))
            {
                members
                    .entry("$schema")
                    .or_insert_with(|| draft.clone().into());
            }
            let address = if address.contains(':') {
                encode_reference(address)
            } else {
                format!("{HOME}{}", address.trim_start_matches("./"))
            };
            if let Err(fault) = check_against_meta_schema(
                Written {
                    label: &label,
                    text,
                    pointer: "",
                },
                &schema,
            ) {
                faults.insert(address.clone(), fault);
            }
            others.insert(address, schema);
        }
        let documents = Documents::new(
            &task.definition_file,
            exact_numbers::parse(&task.definition_text).unwrap_or_else(|_| files.schema.clone()),
            others,
            task.score.assert_formats,
        );
        let (built, used) = documents.build_for_verdict();
        // Unreferenced files under `[score.references]` may be invalid.
        if let Some(fault) = used.iter().find_map(|address| faults.remove(address)) {
            return Err(fault);
        }
        let validator = built.map_err(|error| build_error(written, &error))?;
        Ok(Self::with_documents(validator, documents))
    }

    /// Compiles a self-contained schema of another document.
    pub(crate) fn compile_part(
        written: Written<'_>,
        schema: serde_json::Value,
        assert_formats: bool,
    ) -> Result<Self, ScoreError> {
        check_against_meta_schema(written, &schema)?;
        let documents = Documents::new("part.json", schema, HashMap::new(), assert_formats);
        let validator = documents
            .build_for_verdict()
            .0
            .map_err(|error| build_error(written, &error))?;
        Ok(Self::with_documents(validator, documents))
    }

    fn with_documents(validator: Validator<Completion>, documents: Documents) -> Self {
        let size = documents.all().map(count_values).sum::<usize>() as u64;
        Self {
            validator,
            explainer: OnceLock::new(),
            documents,
            size,
        }
    }

    /// Names in `format` that the validator does not know in their draft, so does not check.
    pub(super) fn unknown_formats(&self) -> BTreeSet<String> {
        let mut unknown = BTreeSet::new();
        let draft = Draft::default().detect(&self.documents.root);
        self.documents
            .all()
            .for_each(|schema| unknown_formats(schema, draft, &mut unknown));
        unknown
    }

    pub(crate) fn budget(&self, bytes: usize) -> Budget {
        let pairs = (bytes as u64).saturating_mul(self.size);
        let steps = pairs
            .saturating_mul(STEPS_PER_PAIR)
            .saturating_add(MIN_STEPS)
            .min(MAX_STEPS);
        Budget {
            steps,
            bytes: 0,
            error_bytes: 0,
        }
    }

    #[inline]
    pub(crate) fn is_valid(
        &self,
        value: &Value<'_>,
        budget: &mut Budget,
    ) -> Result<bool, BudgetExceeded> {
        if self.documents.keys_backtrack
            && let Some((key, offset)) = long_key(value)
        {
            return Err(BudgetExceeded::Pattern {
                pattern: "of `patternProperties`".to_owned(),
                found: shorten(key),
                offset,
            });
        }
        bounded(budget, || self.validator.is_valid(value))
    }

    /// Violations in text order; `Err` if validation exceeds its budget.
    pub(crate) fn violations(
        &self,
        text: &str,
        root: &Value<'_>,
        verdict: Result<bool, BudgetExceeded>,
    ) -> Result<Vec<Violation>, Violation> {
        match verdict {
            Err(exhausted) => Err(exhausted_violation(root, &exhausted, "")),
            Ok(_) => {
                let prefix = "the schema does not accept this value; ";
                self.explain(text, root, &mut self.error_budget(root))
                    .map_err(|exhausted| exhausted_violation(root, &exhausted, prefix))
            }
        }
    }

    fn error_budget(&self, root: &Value<'_>) -> Budget {
        let path = u64::try_from(longest_path(root)).unwrap_or(u64::MAX);
        // Both the validator's error and the reason hold the path.
        Budget {
            bytes: ERRORS_BYTES,
            error_bytes: path.saturating_mul(2).saturating_add(ERROR_BYTES),
            ..self.budget(root.end - root.start)
        }
    }

    fn explain(
        &self,
        text: &str,
        root: &Value<'_>,
        budget: &mut Budget,
    ) -> Result<Vec<Violation>, BudgetExceeded> {
        let explainer = self.explainer.get_or_init(|| {
            let as_written = self.documents.all().any(schema_rewrite::refers_into_branch);
            if as_written {
                None
            } else {
                self.documents.build(schema_rewrite::for_explanation).0.ok()
            }
        });
        let mut list: Vec<Violation> = Vec::new();
        // The first finds nothing only if one file mixes drafts.
        for validator in explainer.iter().chain([&self.validator]) {
            bounded(budget, || {
                list.extend(
                    validator
                        .iter_errors(root)
                        .map(|error| self.as_written(violation(text, root, &error))),
                )
            })?;
            if !list.is_empty() {
                break;
            }
        }
        list.sort_by_key(|violation| violation.offset);
        if list.is_empty() {
            Err(BudgetExceeded::Panic)
        } else {
            Ok(list)
        }
    }
}

impl Schema {
    /// Restores original patterns in messages.
    fn as_written(&self, mut violation: Violation) -> Violation {
        for (engine, pattern) in &self.documents.written {
            if violation.message.contains(engine.as_str()) {
                violation.message = violation.message.replace(engine, pattern);
            }
            let (engine, pattern) = (escaped(engine), escaped(pattern));
            if violation.schema_path.contains(&engine) {
                violation.schema_path = violation.schema_path.replace(&engine, &pattern);
            }
        }
        violation
    }
}

type BuildResult = (
    Result<Validator<Completion>, ValidationError<'static>>,
    Vec<String>,
);

impl Documents {
    fn new(
        file: &str,
        root: serde_json::Value,
        others: HashMap<String, serde_json::Value>,
        assert_formats: bool,
    ) -> Self {
        let base = format!("{HOME}{}", encode_path(file));
        let some_backtrack = |of_keys| {
            std::iter::once(&root)
                .chain(others.values())
                .any(|schema| any_pattern(schema, of_keys, &backtracks))
        };
        let strings_backtrack = some_backtrack(false);
        let mut written = HashMap::new();
        let mut collect = |of_keys: bool| {
            let found = RefCell::new(Vec::new());
            let add = |pattern: &str| {
                let engine = match of_keys {
                    true => pattern::of_keys(pattern),
                    false => pattern::of_string(pattern).0,
                };
                if engine != pattern {
                    found
                        .borrow_mut()
                        .push((engine.into_owned(), pattern.to_owned()));
                }
                false
            };
            for schema in std::iter::once(&root).chain(others.values()) {
                any_pattern(schema, of_keys, &add);
            }
            let found = found.into_inner();
            let differ = !found.is_empty();
            written.extend(found);
            differ
        };
        let strings_differ = collect(false);
        collect(true);
        // There a word boundary takes look-around.
        let looks_around =
            |pattern: &str| backtracks(pattern) || pattern::of_keys(pattern).contains("(?<");
        let keys_backtrack = std::iter::once(&root)
            .chain(others.values())
            .any(|schema| any_pattern(schema, true, &looks_around));
        Self {
            root,
            base,
            others,
            assert_formats,
            strings_backtrack,
            strings_differ,
            written,
            keys_backtrack,
        }
    }

    fn all(&self) -> impl Iterator<Item = &serde_json::Value> {
        std::iter::once(&self.root).chain(self.others.values())
    }

    fn build_for_verdict(&self) -> BuildResult {
        self.build(|schema, _| schema_rewrite::for_verdict(schema))
    }

    fn build(&self, form: impl Fn(&serde_json::Value, Draft) -> serde_json::Value) -> BuildResult {
        let draft = Draft::default().detect(&self.root);
        let form = |schema: &serde_json::Value, draft| {
            let mut schema = form(schema, draft);
            write_keys(&mut schema);
            schema
        };
        let files = self
            .others
            .iter()
            .map(|(address, schema)| (address.clone(), form(schema, draft.detect(schema))))
            .collect();
        let used = Arc::new(Mutex::new(Vec::new()));
        let mut options = jsonschema::options_for::<Completion>()
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT))
            .should_validate_formats(self.assert_formats)
            .with_base_uri(self.base.clone())
            .with_retriever(LocalFiles {
                files,
                used: Arc::clone(&used),
            });
        if self.strings_backtrack || self.strings_differ {
            options = options.with_keyword("pattern", |_, pattern, _| {
                Ok(Box::new(BoundedPattern::compile(pattern)?))
            });
        }
        for keyword in exact_numbers::BOUNDS {
            options = options.with_keyword(keyword, move |schema, value, _| {
                exact_numbers::bound(keyword, schema, value)
            });
        }
        if self.all().any(exact_numbers::has_exact_values) {
            // Draft 4 does not know `const`.
            let known = |keyword: &&str| *keyword != "const" || draft != Draft::Draft4;
            for keyword in exact_numbers::VALUES.into_iter().filter(known) {
                options = options.with_keyword(keyword, move |_, value, _| {
                    Ok(exact_numbers::allowed(keyword, value))
                });
            }
        }
        let built = options.build(&form(&self.root, draft));
        let used = std::mem::take(&mut *used.lock());
        (built, used)
    }
}

fn write_keys(schema: &mut serde_json::Value) {
    visit_mut(schema, &mut |members| {
        let patterns = members.get_mut("patternProperties");
        let Some(patterns) = patterns.and_then(serde_json::Value::as_object_mut) else {
            return;
        };
        let written = std::mem::take(patterns).into_iter();
        *patterns = written
            .map(|(key, inner)| (pattern::of_keys(&key).into_owned(), inner))
            .collect();
    });
}

/// Resolves references to task files only.
struct LocalFiles {
    files: HashMap<String, serde_json::Value>,
    used: Arc<Mutex<Vec<String>>>,
}

impl Retrieve for LocalFiles {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>> {
        self.used.lock().push(uri.as_str().to_owned());
        self.files
            .get(uri.as_str())
            .cloned()
            .ok_or_else(|| format!("{uri} is not a file of the task").into())
    }
}

fn unknown_formats(schema: &serde_json::Value, draft: Draft, unknown: &mut BTreeSet<String>) {
    visit(schema, &draft, &mut |members, outer| {
        let named = members
            .get("$schema")
            .map(|named| serde_json::json!({ "$schema": named }));
        let draft = named.map_or(*outer, |named| outer.detect(&named));
        if let Some(serde_json::Value::String(name)) = members.get("format")
            && !jsonschema::options().is_known_format(draft, name)
        {
            unknown.insert(name.clone());
        }
        draft
    });
}

/// Upper bound of a JSON pointer's length in the value.
fn longest_path(value: &Value<'_>) -> usize {
    match &value.kind {
        // `~` and `/` take two bytes.
        json::Kind::Object(object) => object
            .members()
            .iter()
            .map(|member| 1 + 2 * member.key.len() + longest_path(&member.value))
            .max()
            .unwrap_or(0),
        json::Kind::Array(items) => items
            .iter()
            .map(longest_path)
            .max()
            .map_or(0, |longest| longest + 8),
        _ => 0,
    }
}

fn violation(text: &str, root: &Value<'_>, error: &ValidationError<'_>) -> Violation {
    let instance_path = error.instance_path().as_str().to_owned();
    let value = root.pointer(&instance_path).unwrap_or(root);
    let key_at = |key: &String| {
        value
            .as_object()
            .and_then(|object| object.get(key))
            .map(|member| member.key_start)
    };
    let offset = match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().filter_map(key_at).min()
        }
        _ => None,
    };
    Violation {
        message: sentence(
            error,
            text.get(value.start..value.end).unwrap_or(""),
            value.type_name(),
        ),
        schema_path: error.schema_path().as_str().to_owned(),
        offset: offset.unwrap_or(value.start),
        class: class_of(error.kind()),
        instance_path,
    }
}

/// The reason for an aborted validation; `prefix`: what is known nevertheless.
fn exhausted_violation(root: &Value<'_>, exhausted: &BudgetExceeded, prefix: &str) -> Violation {
    let invalid = if prefix.is_empty() {
        ", so it counts as not valid"
    } else {
        ""
    };
    let message = match exhausted {
        BudgetExceeded::Steps => {
            format!(
                "{prefix}validating it takes too many steps{invalid}: the schema's alternatives are tried again at each level"
            )
        }
        BudgetExceeded::Bytes => format!("{prefix}too many violations to list"),
        BudgetExceeded::Pattern { pattern, found, .. } => {
            format!(
                "matching {found} against the pattern {pattern} takes too many steps, so it counts as not valid; simplify the pattern"
            )
        }
        BudgetExceeded::Panic => {
            format!(
                "{prefix}validating it takes too many steps{invalid}; simplify the schema's patterns"
            )
        }
    };
    let offset = if let BudgetExceeded::Pattern { offset, .. } = exhausted {
        root.start.max(*offset)
    } else {
        root.start
    };
    Violation {
        message,
        instance_path: String::new(),
        schema_path: String::new(),
        offset,
        class: FailureClass::Other,
    }
}

fn class_of(kind: &Kind) -> FailureClass {
    match kind {
        Kind::Required { .. } => FailureClass::MissingKey,
        Kind::Type { .. } => FailureClass::WrongType,
        Kind::Enum { .. } | Kind::Constant { .. } => FailureClass::Enum,
        Kind::Custom { keyword, .. } if exact_numbers::VALUES.contains(&keyword.as_str()) => {
            FailureClass::Enum
        }
        Kind::AdditionalProperties { .. }
        | Kind::UnevaluatedProperties { .. }
        | Kind::FalseSchema => FailureClass::ExtraKey,
        _ => FailureClass::Other,
    }
}

/// The first values of an enum: narrow displays cut the end of the sentence.
fn listed(options: &serde_json::Value) -> String {
    let options = options.as_array().map_or(&[][..], Vec::as_slice);
    let mut list = String::new();
    for (place, option) in options.iter().enumerate() {
        let text = shorten(&option.to_string());
        if place > 0 && list.len() + text.len() > MAX_ENUM_CHARS {
            return format!("[{list}, ..]");
        }
        list.push_str(if place > 0 { ", " } else { "" });
        list.push_str(&text);
    }
    format!("[{list}]")
}

fn sentence(error: &ValidationError<'_>, written: &str, type_name: &str) -> String {
    let found = shorten(written);
    let what = if type_name == "null" {
        found.clone()
    } else {
        format!("{type_name} {found}")
    };
    match error.kind() {
        Kind::Required { property } => format!("missing key {property}"),
        Kind::Type {
            kind: TypeKind::Single(expected),
        } => format!("expected {expected}, found {what}"),
        Kind::Type {
            kind: TypeKind::Multiple(expected),
        } => {
            format!(
                "expected {}, found {what}",
                expected
                    .iter()
                    .map(|kind| kind.to_string())
                    .collect::<Vec<_>>()
                    .join(" or ")
            )
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let keys: Vec<String> = unexpected
                .iter()
                .take(10)
                .map(|key| format!("{:?}", shorten(key)))
                .collect();
            let more = if unexpected.len() > 10 {
                format!(" and {} more", unexpected.len() - 10)
            } else {
                String::new()
            };
            format!(
                "{} not allowed: {}{more}",
                if unexpected.len() == 1 { "key" } else { "keys" },
                keys.join(", ")
            )
        }
        Kind::FalseSchema => {
            let path = error.instance_path().as_str();
            format!(
                "{:?} is not allowed here",
                shorten(path.rsplit('/').next().unwrap_or_default())
            )
        }
        Kind::Enum { options } => format!("{found} is not in the enum {}", listed(options)),
        Kind::Constant { expected_value } => {
            format!("{found} is not {}", shorten(&expected_value.to_string()))
        }
        Kind::Custom { keyword, message } if exact_numbers::BOUNDS.contains(&keyword.as_str()) => {
            format!("{found} {message}")
        }
        Kind::Custom { keyword, message } if exact_numbers::VALUES.contains(&keyword.as_str()) => {
            format!("{}, found {found}", shorten(message))
        }
        Kind::Format { format } => format!("{found} is not a {format}"),
        Kind::Pattern { pattern } => format!("{found} does not match the pattern {pattern}"),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            format!(
                "matching {found} against the schema's pattern took too many steps, so it counts as no match"
            )
        }
        Kind::PropertyNames { error } => format!(
            "a key of {found} is not allowed: {}",
            error.masked_with("the key")
        ),
        Kind::Not { schema } => format!(
            "{} is not allowed for {found}",
            shorten(&schema_rewrite::as_written(schema))
        ),
        Kind::AdditionalItems { limit } => format!("more than {limit} items in {found}"),
        _ => error.masked_with(found).to_string(),
    }
}

#[cfg(test)]
mod tests;
