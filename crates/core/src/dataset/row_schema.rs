//! The JSON Schema that a row brings for its own answer.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Cursor;
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::Value;

use super::random::text_hash;
use super::row::{PromptRow, load, read_lines};
use crate::task::{PromptFiles, PromptSet, TaskFiles};

/// Longest schema of a row as text, in bytes.
const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Schemas of a set that evals tell apart.
const MAX_TOLD_APART: usize = 20;
const MAX_TITLE_CHARS: usize = 40;
/// Tags of rows whose schema a training row has, and of those whose schema none has.
const SEEN: &str = "schema seen in train";
const UNSEEN: &str = "schema unseen in train";

/// How a row says that its column is something else.
const REMEDY: &str = "rename the column if it is something else";

/// Where a row says which schema it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SchemaSource {
    /// `schema`: a JSON Schema, its text, or a file of the task.
    Schema(Value),
    /// `response_format` in OpenAI's form.
    Format(Value),
}

impl SchemaSource {
    /// Length as JSON text.
    pub(crate) fn byte_count(&self) -> usize {
        let (Self::Schema(value) | Self::Format(value)) = self;
        value.to_string().len()
    }
}

/// A row's `schema`, and its `response_format`, which counts without one.
fn given(row: &PromptRow) -> [Option<&Value>; 2] {
    let given = |key: &str| row.fields.get(key).filter(|value| !value.is_null());
    let format = given("response_format").filter(|format| format["type"] != "text");
    [given("schema"), format]
}

/// A row's `schema`, else its `response_format`; `None` if it has the task's.
pub(crate) fn schema_source(row: &PromptRow) -> Option<SchemaSource> {
    let [schema, format] = given(row);
    let schema = schema.cloned().map(SchemaSource::Schema);
    schema.or_else(|| format.cloned().map(SchemaSource::Format))
}

/// Whether a row brings the schema of its answer; the kind of the task must be one that has a schema.
pub fn has_own_schema(row: &PromptRow) -> bool {
    given(row).iter().any(Option::is_some)
}

/// The JSON Schema of a row that has its own.
///
/// # Errors
/// A sentence without a place.
pub fn row_schema(task: &TaskFiles, row: &PromptRow) -> Option<Result<Value, String>> {
    Some(read_schema(task, schema_source(row)?))
}

/// A number that rows with the same schema share; `None` where a row has the task's, or one that cannot be read.
pub fn schema_digest(task: &TaskFiles, row: &PromptRow) -> Option<u64> {
    let schema = row_schema(task, row)?.ok()?;
    Some(text_hash(&schema.to_string()))
}

/// Title of a row's schema, else the first digits of its digest; `None` where a row has the task's.
pub fn schema_name(task: &TaskFiles, row: &PromptRow) -> Option<String> {
    let schema = match row_schema(task, row)? {
        Ok(schema) => schema,
        Err(_) => return Some("unreadable".to_owned()),
    };
    let title = schema.get("title").and_then(Value::as_str).map(str::trim);
    let named = title.filter(|title| !title.is_empty());
    Some(match named {
        Some(title) => crate::format::shortened(title, MAX_TITLE_CHARS),
        None => short(text_hash(&schema.to_string())),
    })
}

fn short(digest: u64) -> String {
    format!("{:08x}", digest >> 32)
}

/// Tags the rows of an eval or test set by which its rates are broken down: each schema, if there are several but not
/// many, and whether a training row has the same, if one has not.
pub(crate) fn tag_schemas(task: &TaskFiles, rows: &mut [PromptRow]) {
    if !rows.iter().any(has_own_schema) {
        return;
    }
    let digests: Vec<Option<u64>> = rows.iter().map(|row| schema_digest(task, row)).collect();
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    for (row, digest) in rows.iter().zip(&digests) {
        if let Some(digest) = digest
            && !names.contains_key(digest)
        {
            let name = schema_name(task, row).unwrap_or_default();
            let is_taken = names.values().any(|known| *known == name);
            let name = match is_taken {
                true => format!("{name} {}", short(*digest)),
                false => name,
            };
            names.insert(*digest, name);
        }
    }
    let is_several = names.len() + usize::from(digests.contains(&None)) > 1;
    let is_told_apart = is_several && names.len() <= MAX_TOLD_APART;
    let train = load(task, PromptSet::Train).unwrap_or_default();
    let known: HashSet<Option<u64>> = train.iter().map(|row| schema_digest(task, row)).collect();
    let has_unseen = !train.is_empty() && !digests.iter().all(|digest| known.contains(digest));
    for (row, digest) in rows.iter_mut().zip(&digests) {
        if is_told_apart {
            let name = digest.and_then(|digest| names.get(&digest));
            let name = name.map_or("of the task", String::as_str);
            row.tags.push(format!("schema {name}"));
        }
        if has_unseen {
            let tag = if known.contains(digest) { SEEN } else { UNSEEN };
            row.tags.push(tag.to_owned());
        }
    }
}

pub(crate) fn read_schema(task: &TaskFiles, source: SchemaSource) -> Result<Value, String> {
    let schema = match source {
        SchemaSource::Schema(Value::String(text)) => of_text(task, &text),
        SchemaSource::Schema(value) => Ok(value),
        SchemaSource::Format(format) => of_format(format),
    };
    schema.and_then(|schema| match schema {
        Value::Object(_) | Value::Bool(_) => within_limit(schema),
        other => Err(format!(
            "`schema` of the row must be a JSON Schema, its text, or a file of the task, not {}; {REMEDY}",
            crate::format::shortened(&other.to_string(), 60)
        )),
    })
}

/// The task's files that rows name as their schemas.
pub(crate) fn row_schema_files(task: &TaskFiles) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Line {
        schema: String,
    }
    let PromptFiles {
        train, eval, test, ..
    } = &task.prompts;
    let sets = [train, eval, test].into_iter().flatten();
    let read = sets.filter_map(|file| task.read_hidden(file).ok());
    let lines = read.flat_map(|bytes| read_lines(Cursor::new(bytes)));
    let lines = lines.filter_map(Result::ok);
    let named = lines.filter_map(|(_, line)| {
        let text = std::str::from_utf8(&line).ok()?;
        let is_likely = text.contains("\"schema\"");
        let name = is_likely.then(|| serde_json::from_str::<Line>(text).ok())??;
        let path = Path::new(&name.schema).components();
        let path = path.filter(|part| *part != Component::CurDir);
        Some(path.collect::<std::path::PathBuf>().to_str()?.to_owned())
    });
    let names: BTreeSet<String> = named.collect();
    let is_file = |name: &String| task.path(name).is_ok_and(|path| path.is_file());
    names.into_iter().filter(is_file).collect()
}

fn within_limit(schema: Value) -> Result<Value, String> {
    let bytes = schema.to_string().len();
    if bytes <= MAX_SCHEMA_BYTES {
        return Ok(schema);
    }
    Err(format!(
        "`schema` of the row has {bytes} bytes; at most {MAX_SCHEMA_BYTES} are read"
    ))
}

fn of_text(task: &TaskFiles, text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|error| format!("`schema` of the row is not JSON: {error}; {REMEDY}"));
    }
    let unread = task.read(text).map(std::borrow::Cow::into_owned);
    let bytes = unread.map_err(|_| {
        let shown = crate::format::shortened(text, 60);
        format!("`schema` of the row, {shown:?}, is neither a JSON Schema nor a readable file of the task; {REMEDY}")
    })?;
    let fault = |error: &dyn std::fmt::Display| {
        format!("`schema` of the row, {}: {error}", task.label(text))
    };
    let read = crate::files::text(bytes).map_err(|error| fault(&error))?;
    serde_json::from_str(&read).map_err(|error| fault(&error))
}

fn of_format(format: Value) -> Result<Value, String> {
    let kind = format
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let missing = || "`response_format` of the row has no `json_schema.schema`".to_owned();
    match kind {
        "json_object" => Ok(serde_json::json!({"type": "object"})),
        "json_schema" => format
            .pointer("/json_schema/schema")
            .cloned()
            .ok_or_else(missing),
        _ => Err(format!(
            "`response_format` of the row must be an object with `type` json_schema, json_object or text, not {}; {REMEDY}",
            crate::format::shortened(&format.to_string(), 60)
        )),
    }
}
