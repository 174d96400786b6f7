//! `[score] kind = "json_schema"`: the schema, the files that it refers to, and its lazy answers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{JsonSchema, describe};
use crate::dataset::PromptRow;
use crate::score::audit::degenerate_answers::{FillStyle, answer};
use crate::score::definition::{
    ASSERT_FORMATS, Definition, FoundDefinition, GRADED, Judge, KeyInfo, Kind, LazyAnswer, NORMALISE, SCHEMA,
    text_digest,
};
use crate::score::grammar::{Grammar, SchemaFiles};
use crate::score::{OutlineEntry, ScoreError, outline_entry};
use crate::task::{Home, Read, Section, TaskFiles, follow_references};

pub(crate) static KIND: Kind = Kind {
    name: "json_schema",
    keys: &[SCHEMA],
    score_keys: &[GRADED, ASSERT_FORMATS, NORMALISE, KeyInfo::new("references", "none", "files of remote `$ref`")],
    read,
};

fn read(top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let example = "schema = \"schema.json\"";
    let (file, text) = home.file_of(top, "schema")?.ok_or_else(|| home.missing("schema", example))?;
    let mut named = BTreeMap::new();
    if let Some(references) = score.free_section("references")? {
        for (address, _) in references.keys() {
            named.insert(address.to_owned(), references.string(address)?.unwrap_or_default());
        }
    }
    let files = SchemaFiles::follow(home, &file, home.parse_json(&file, &text)?, named)?;
    Ok((Arc::new(files), Some((file, text))))
}

impl SchemaFiles {
    /// The schema with the files that it, or the `named` files, refer to.
    fn follow(home: &Home, file: &str, schema: Value, named: BTreeMap<String, String>) -> Read<Self> {
        let (references, inherited_drafts) = follow_references(home, file, &schema, named)?;
        Ok(Self { schema, references, inherited_drafts })
    }
}

impl Definition for SchemaFiles {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(JsonSchema::new(task, self)?))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Borrowed(&self.schema)
    }

    fn summary(&self, _task: &TaskFiles) -> String {
        "one JSON value that the schema accepts".to_owned()
    }

    fn outline(&self, task: &TaskFiles) -> Option<Vec<OutlineEntry>> {
        Some(outline_entry::placed(&task.definition_text, describe(&self.schema, task.score.assert_formats)))
    }

    fn lazy_answers<'a>(&self, _task: &'a TaskFiles, _rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        let required = "list the keys that must be there under `required`";
        let narrow = "narrow the values: minLength, minimum, enum, pattern, or `format` with `assert_formats = true`";
        let typed = "give the schema a `type`";
        let filled = |style| answer(&self.schema, style).to_string();
        let typed_null = "give each property a `type` other than null";
        let closed = "forbid other keys by `additionalProperties = false` and list `required` ones";
        vec![
            LazyAnswer::same("an empty object", "{}", required),
            LazyAnswer::same("an empty list", "[]", typed),
            LazyAnswer::same("null", "null", typed),
            LazyAnswer::same("an empty string", "\"\"", typed),
            LazyAnswer::same("zero", "0", typed),
            LazyAnswer::same("every value null", filled(FillStyle::Nulls), typed_null),
            LazyAnswer::same("empty strings and zeros", filled(FillStyle::Empty), narrow),
            LazyAnswer::same("the minimum that the schema requires", filled(FillStyle::Least), narrow),
            LazyAnswer::same("the schema itself", self.schema.to_string(), closed),
        ]
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
        let schema = home.parse_json(file, text)?;
        Ok(Some(Arc::new(Self::follow(home, file, schema, self.references.clone())?)))
    }

    fn answer_names(&self, _task: &TaskFiles) -> Vec<String> {
        let fields = self.schema.get("properties").and_then(Value::as_object);
        fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect()
    }

    fn grammar(&self) -> Option<Grammar<'_>> {
        Some(Grammar::JsonSchema(self))
    }
}
