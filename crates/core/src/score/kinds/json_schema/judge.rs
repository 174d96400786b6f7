//! Judges a value by its schema and the expected one, with a reason for each fault.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::budget::Budget;
use super::partial_credit::Constraints;
use super::schema::{Schema, Violation};
use super::schema_faults::Written;
use crate::dataset::expected::Expectation;
use crate::dataset::{PromptRow, SchemaSource, expected, read_schema, schema_source};
use crate::exact_json;
use crate::score::answer::json::{self, Document, Places, SyntaxError, Value};
use crate::score::answer::stated_value::{StatedValue, state};
use crate::score::answer::transcript::AnswerText;
use crate::score::definition::{Judge, SchemaFiles};
use crate::score::error::ScoreError;
use crate::score::verdict::Leaves;
use crate::score::verdict::field_compare::compare;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::leaves::compare_leaves;
use crate::score::verdict::unwrap_answer::{Unreadable, inner_values};
use crate::score::verdict::{Attempt, FailureClass, Reason, Tier, Verdict};
use crate::task::TaskFiles;

/// Further reasons are only counted.
const MAX_REASONS: usize = 1_000;
/// Further duplicate keys are only counted.
const MAX_WARNINGS: usize = 100;

/// Compiled schemas of rows that are kept, and the bytes of their texts, of which compiled ones take a multiple.
const MAX_OWN_SCHEMAS: usize = 128;
const MAX_OWN_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct SchemaJudge {
    task: TaskFiles,
    schema: RowSchema,
    /// Of rows with their own: the compiled one, or why there is none.
    own: Mutex<OwnSchemas>,
    normalise: Rules,
}

type Compiled = Result<Arc<RowSchema>, String>;

#[derive(Debug, Default)]
struct OwnSchemas {
    compiled: HashMap<SchemaSource, Compiled>,
    bytes: usize,
}

impl OwnSchemas {
    fn insert(&mut self, source: SchemaSource, compiled: Compiled) {
        let bytes = source.byte_count();
        if self.compiled.len() >= MAX_OWN_SCHEMAS || self.bytes + bytes > MAX_OWN_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.compiled.insert(source, compiled);
    }
}

#[derive(Debug)]
pub(crate) struct RowSchema {
    schema: Schema,
    /// Set if invalid completions get partial credit.
    graded: Option<Constraints>,
}

impl RowSchema {
    fn accepts(&self, value: &Value<'_>, budget: &mut Budget) -> bool {
        self.schema.is_valid(value, budget) == Ok(true)
    }
}

impl SchemaJudge {
    pub(crate) fn new(task: &TaskFiles, files: &SchemaFiles) -> Result<Self, ScoreError> {
        let rules = &task.score;
        let graded = rules.graded.then(|| Constraints::new(&files.schema));
        Ok(Self {
            schema: RowSchema {
                schema: Schema::compile(task, files)?,
                graded,
            },
            own: Mutex::default(),
            normalise: Rules::new(rules),
            task: task.clone(),
        })
    }

    pub(crate) fn accepts(&self, value: &Value<'_>, budget: &mut Budget) -> bool {
        self.schema.accepts(value, budget)
    }

    pub(crate) fn budget(&self, completion: &str) -> Budget {
        self.schema.schema.budget(completion.len())
    }

    /// The schema that a row brings, compiled; `None` if it has the task's.
    fn own_schema(&self, row: Option<&PromptRow>) -> Option<Compiled> {
        let mut source = schema_source(row?)?;
        // A file may have changed since.
        if matches!(source, SchemaSource::Schema(serde_json::Value::String(_))) {
            source = match read_schema(&self.task, source) {
                Ok(schema) => SchemaSource::Schema(schema),
                Err(problem) => return Some(Err(problem)),
            };
        }
        if let Some(found) = self.own.lock().compiled.get(&source) {
            return Some(found.clone());
        }
        let compiled = self.compile(source.clone()).map(Arc::new);
        self.own.lock().insert(source, compiled.clone());
        Some(compiled)
    }

    fn compile(&self, source: SchemaSource) -> Result<RowSchema, String> {
        let rules = &self.task.score;
        let schema = read_schema(&self.task, source)?;
        let text = schema.to_string();
        let written = Written {
            label: "`schema` of the row",
            text: &text,
            pointer: "",
        };
        let graded = rules.graded.then(|| Constraints::new(&schema));
        let schema = Schema::compile_part(written, schema, rules.assert_formats)
            .map_err(|error| error.to_string())?;
        Ok(RowSchema { schema, graded })
    }

    pub(crate) fn judge_value(
        &self,
        text: &AnswerText<'_>,
        document: &Document<'_>,
        expected: Option<&serde_json::Value>,
    ) -> Verdict {
        self.judge_by(&self.schema, text, document, expected)
    }

    fn judge_by(
        &self,
        by: &RowSchema,
        text: &AnswerText<'_>,
        document: &Document<'_>,
        expected: Option<&serde_json::Value>,
    ) -> Verdict {
        let (completion, root) = (text.completion, &document.root);
        let verdict = by
            .schema
            .is_valid(root, &mut by.schema.budget(root.end - root.start));
        let valid = verdict == Ok(true);
        let compared = expected.map(|expected| compare(root, expected, &self.normalise));
        let (fields, same) = compared.unzip();
        let fields = fields.flatten();
        let leaves = self.leaves(Some(root), expected);
        let exact = same.map(|same| same && valid);
        let wrong = (exact == Some(false)).then_some(FailureClass::WrongValue);
        let warnings = duplicate_keys(completion, std::slice::from_ref(document));
        if valid {
            return Verdict {
                exact,
                fields,
                leaves,
                warnings,
                ..Verdict::new(Tier::Valid, wrong)
            };
        }
        let mut found = Verdict {
            exact,
            fields,
            leaves,
            warnings,
            ..Verdict::new(Tier::Invalid, None)
        };
        let violations = by.schema.violations(text.json(), root, verdict);
        // The share of met constraints needs the full list.
        let share = |graded: &Constraints| {
            violations
                .as_ref()
                .map_or(0.0, |list| graded.share_met(root, list))
        };
        found.credit = by.graded.as_ref().map(share);
        let mut violations = violations.unwrap_or_else(|exhausted| vec![exhausted]);
        violations
            .iter_mut()
            .for_each(|violation| violation.offset = text.locate(violation.offset));
        violations.sort_by_key(|violation| violation.offset);
        // A missing key is more informative than other faults; otherwise the first in the text.
        let mut classes = violations.iter().map(|violation| violation.class);
        let class = classes
            .clone()
            .find(|class| *class == FailureClass::MissingKey)
            .or_else(|| classes.next());
        found.failure = Some(class.unwrap_or(FailureClass::Other));
        found.errors = reasons(completion, violations, &mut found.warnings);
        found
    }

    /// `None` unless an object is expected; `root`: of an answer that can be read.
    pub(crate) fn leaves(
        &self,
        root: Option<&Value<'_>>,
        expected: Option<&serde_json::Value>,
    ) -> Option<Leaves> {
        let expected = expected.filter(|_| !self.normalise.whole_fields)?;
        has_fields(expected).then(|| compare_leaves(root, expected, &self.normalise))
    }

    fn judge_unparsable(
        &self,
        by: &RowSchema,
        attempt: Attempt<'_>,
        error: &SyntaxError,
    ) -> Verdict {
        let mut budget = by.schema.budget(attempt.completion.len());
        let why = Unreadable::json(attempt.completion, error);
        attempt.unparsable(why, |open| {
            // A value that begins before an open think block only has the word in a string.
            let accept = |value: &Value<'_>| value.start < open && by.accepts(value, &mut budget);
            inner_values(attempt.completion, attempt.from, accept)
        })
    }
}

impl Judge for SchemaJudge {
    fn can_read(&self, completion: &str, from: usize) -> bool {
        json::parse(completion, from).is_ok()
    }

    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let expected = attempt.expected();
        if let Some(verdict) = attempt.unreadable_expected() {
            return verdict;
        }
        let own = match self.own_schema(attempt.row).transpose() {
            Ok(own) => own,
            Err(problem) => return attempt.failed(problem),
        };
        let by = own.as_deref().unwrap_or(&self.schema);
        match json::parse(attempt.completion, attempt.from) {
            Ok(document) => {
                let text = AnswerText::in_place(attempt.completion);
                self.judge_by(by, &text, &document, expected)
            }
            Err(error) => Verdict {
                exact: expected.is_some().then_some(false),
                leaves: self.leaves(None, expected),
                ..self.judge_unparsable(by, attempt, &error)
            },
        }
    }

    fn stated_values(&self, attempt: Attempt<'_>) -> Vec<StatedValue> {
        let mut found = Vec::new();
        if let Ok(document) = json::parse(attempt.completion, attempt.from) {
            state(&document.root, (&[], ""), &mut |offset| offset, &mut found);
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

    fn row_problem(&self, row: &PromptRow) -> Option<String> {
        self.own_schema(Some(row))?.err()
    }

    fn unknown_formats(&self) -> BTreeSet<String> {
        self.schema.schema.unknown_formats()
    }
}

fn has_fields(expected: &serde_json::Value) -> bool {
    match Expectation::from_value(expected) {
        Expectation::Any(answers) => answers.iter().any(has_fields),
        Expectation::Plain(value) => value.is_object(),
        Expectation::Optional(_) | Expectation::Number(_) => false,
    }
}

pub(crate) fn duplicate_keys(completion: &str, documents: &[Document<'_>]) -> Vec<String> {
    let duplicates = documents.iter().flat_map(|document| &document.duplicates);
    let mut offsets: Vec<_> = duplicates
        .map(|duplicate| (duplicate.offset, &duplicate.key))
        .collect();
    if offsets.is_empty() {
        return Vec::new();
    }
    let mut places = Places::new(completion);
    offsets.sort();
    let sentence = |(offset, key): &(usize, &std::borrow::Cow<'_, str>)| {
        let place = places.locate(*offset);
        let key: String = key.chars().take(80).collect();
        format!(
            "duplicate key {key:?} at line {} column {}: the last one counts",
            place.line, place.column
        )
    };
    let mut warnings: Vec<String> = offsets.iter().take(MAX_WARNINGS).map(sentence).collect();
    if offsets.len() > MAX_WARNINGS {
        warnings.push(format!("{} duplicate keys in total", offsets.len()));
    }
    warnings
}

pub(crate) fn reasons(
    completion: &str,
    violations: Vec<Violation>,
    warnings: &mut Vec<String>,
) -> Vec<Reason> {
    if violations.len() > MAX_REASONS {
        warnings.push(format!(
            "{} violations in total; the first {MAX_REASONS} are listed",
            violations.len()
        ));
    }
    let mut places = Places::new(completion);
    let reason = |violation: Violation| {
        let place = places.locate(violation.offset);
        Reason {
            instance_path: violation.instance_path,
            schema_path: violation.schema_path,
            ..Reason::at(violation.message, place)
        }
    };
    violations
        .into_iter()
        .take(MAX_REASONS)
        .map(reason)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::dataset::load_from;
    use crate::score::{Scorer, Task, Tier};

    #[test]
    fn a_row_may_bring_its_schema() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("task.toml", "name = \"t\"\nschema = \"schema.json\"");
        write("schema.json", r#"{"type": "object", "required": ["a"]}"#);
        write("count.json", r#"{"type": "integer"}"#);
        let scorer = Scorer::new(&Task::load(folder.path()).unwrap()).unwrap();
        let check = |fields: &str, completion: &str, tier: Option<Tier>, problem: &str| {
            let line = format!(r#"{{"messages": [{{"role": "user", "content": "x"}}]{fields}}}"#);
            let row = load_from("x.jsonl", line.as_bytes()).unwrap().remove(0);
            let score = scorer.score(completion, Some(&row));
            let found = (!score.is_error()).then_some(score.tier);
            assert_eq!(found, tier, "{fields} {completion}: {:?}", score.errors);
            let told = scorer.row_problem(&row).unwrap_or_default();
            assert!(
                told.contains(problem) && told.is_empty() == problem.is_empty(),
                "{fields}: {told}"
            );
        };
        let (valid, invalid) = (Some(Tier::Valid), Some(Tier::Invalid));
        check("", "{\"a\": 1}", valid, "");
        check("", "1", invalid, "");
        let own = r#", "schema": {"type": "integer"}"#;
        check(own, "1", valid, "");
        check(own, "{\"a\": 1}", invalid, "");
        check(
            r#", "schema": "{\"type\": \"string\"}""#,
            "\"1\"",
            valid,
            "",
        );
        check(r#", "schema": "count.json""#, "1", valid, "");
        check(r#", "schema": null"#, "1", invalid, "");
        let format = r#", "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}"#;
        check(format, "[]", valid, "");
        check(r#", "response_format": {"type": "text"}"#, "1", invalid, "");
        for (fields, problem) in [
            (
                r#", "schema": {"type": "strin"}"#,
                "`schema` of the row line 1",
            ),
            (
                r#", "schema": {"$ref": "https://example.org/s.json"}"#,
                "example.org",
            ),
            (r#", "schema": "none.json""#, "none.json"),
            (r#", "schema": "{not""#, "is not JSON"),
            (r#", "schema": "public""#, "rename the column"),
            (r#", "response_format": "json""#, "not \"json\""),
            (r#", "schema": 7"#, "must be a JSON Schema"),
            (
                r#", "response_format": {"type": "json_schema"}"#,
                "has no `json_schema.schema`",
            ),
            (
                r#", "response_format": {"type": "xml"}"#,
                r#"not {"type":"xml"}"#,
            ),
        ] {
            check(fields, "1", None, problem);
        }
        let line = r#"{"messages": [{"role": "user", "content": "x"}], "schema": "./count.json"}"#;
        write("train.jsonl", line);
        write(
            "task.toml",
            "name = \"t\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"train.jsonl\"",
        );
        let task = Task::load(folder.path()).unwrap();
        // A run judges by its copy of the task.
        let files = task.files().unwrap().into_iter();
        let names: Vec<String> = files.map(|(name, _)| name).collect();
        assert!(names.contains(&"count.json".to_owned()), "{names:?}");
        let digest = task.digest();
        write("count.json", r#"{"type": "number"}"#);
        assert_ne!(task.digest(), digest);
        let long = format!(r#", "schema": {{"title": "{}"}}"#, "x".repeat(2 << 20));
        check(&long, "1", None, "at most 1048576");
    }
}
