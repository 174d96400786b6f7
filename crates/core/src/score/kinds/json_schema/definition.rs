//! `[score] kind = "json_schema"`: the schema, its references, degenerate answers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::judge::SchemaJudge;
use crate::dataset::{PromptRow, has_own_schema, row_schema};
use crate::score::definition::degenerate_answers::{FillStyle, answer};
use crate::score::definition::{
    ABSENT, ALIASES, ASSERT_FORMATS, AnswerSchema, Definition, FIELDS, FoundDefinition, GRADED,
    GROUNDED, Grammar, Judge, Kind, LazyAnswer, NORMALISE, REFERENCES, SCHEMA, SchemaFiles,
    TOLERANCE, text_digest,
};
use crate::score::error::ScoreError;
use crate::task::{Home, Read, Section, TaskFiles, follow_references};

pub(crate) static KIND: Kind = Kind {
    name: "json_schema",
    about: include_str!("about.md"),
    keys: &[SCHEMA],
    score_keys: &[
        GRADED,
        ASSERT_FORMATS,
        NORMALISE,
        TOLERANCE,
        ALIASES,
        FIELDS,
        ABSENT,
        GROUNDED,
        REFERENCES,
    ],
    read,
};

fn read(top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let (files, found) = SchemaFiles::read(top, score, home)?;
    Ok((Arc::new(files), Some(found)))
}

impl SchemaFiles {
    pub(crate) fn read(
        top: &Section<'_>,
        score: &Section<'_>,
        home: &Home,
    ) -> Read<(Self, (String, String))> {
        let (file, text) = home
            .file_of(top, "schema")?
            .ok_or_else(|| home.missing("schema", "schema = \"schema.json\""))?;
        let mut named = BTreeMap::new();
        if let Some(references) = score.free_section("references")? {
            for (address, _) in references.keys() {
                named.insert(
                    address.to_owned(),
                    references.string(address)?.unwrap_or_default(),
                );
            }
        }
        Ok((
            Self::follow(home, &file, home.parse_json(&file, &text)?, named)?,
            (file, text),
        ))
    }

    pub(crate) fn with_schema_text(&self, home: &Home, file: &str, text: &str) -> Read<Self> {
        Self::follow(
            home,
            file,
            home.parse_json(file, text)?,
            self.references.clone(),
        )
    }

    /// Answers to any prompt by this schema.
    pub(crate) fn lazy_values(schema: &Value) -> [(&'static str, Value, &'static str); 9] {
        let required = "list the keys that must be there under `required`";
        let narrow = "narrow the values: minLength, minimum, enum, pattern, or `format` with `assert_formats = true`";
        let typed = "give the schema a `type`";
        let filled = |style| answer(schema, style);
        let typed_null = "give each property a `type` other than null";
        let closed = "forbid other keys by `additionalProperties = false` and list `required` ones";
        [
            ("an empty object", json!({}), required),
            ("an empty list", json!([]), typed),
            ("null", Value::Null, typed),
            ("an empty string", json!(""), typed),
            ("zero", json!(0), typed),
            ("every value null", filled(FillStyle::Nulls), typed_null),
            ("empty strings and zeros", filled(FillStyle::Empty), narrow),
            (
                "the minimum that the schema requires",
                filled(FillStyle::Least),
                narrow,
            ),
            ("the schema itself", schema.clone(), closed),
        ]
    }

    /// The schema with the files that it, or the `named` files, refer to.
    fn follow(
        home: &Home,
        file: &str,
        schema: Value,
        named: BTreeMap<String, String>,
    ) -> Read<Self> {
        let (references, inherited_drafts) = follow_references(home, file, &schema, named)?;
        Ok(Self {
            schema,
            references,
            inherited_drafts,
        })
    }
}

impl Definition for SchemaFiles {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(SchemaJudge::new(task, self)?))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Borrowed(&self.schema)
    }

    fn lazy_answers<'a>(&self, task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        let has_own = rows.iter().any(has_own_schema);
        let values = Self::lazy_values(&self.schema);
        let written = |(index, (name, value, advice)): (usize, (_, Value, _))| {
            if !has_own {
                return LazyAnswer::same(name, value.to_string(), advice);
            }
            LazyAnswer::by_row(name, advice, move |row| match row_schema(task, row) {
                Some(Ok(own)) => Self::lazy_values(&own)[index].1.to_string(),
                _ => value.to_string(),
            })
        };
        values.into_iter().enumerate().map(written).collect()
    }

    fn digest(&self, task: &TaskFiles) -> String {
        text_digest(&task.definition_text)
    }

    fn file_name(&self) -> &'static str {
        "schema"
    }

    fn other_files(&self) -> Vec<&str> {
        self.references.values().map(String::as_str).collect()
    }

    fn with_text(&self, home: &Home, file: &str, text: &str) -> Read<Option<Arc<dyn Definition>>> {
        Ok(Some(Arc::new(self.with_schema_text(home, file, text)?)))
    }

    fn answer_names(&self, _task: &TaskFiles) -> Vec<String> {
        let fields = self.schema.get("properties").and_then(Value::as_object);
        fields
            .into_iter()
            .flat_map(|fields| fields.keys().cloned())
            .collect()
    }

    fn schema(&self) -> Option<AnswerSchema<'_>> {
        Some(AnswerSchema {
            value: &self.schema,
        })
    }

    fn grammar(&self) -> Option<Grammar<'_>> {
        Some(Grammar::JsonSchema(self))
    }
}
