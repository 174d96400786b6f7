//! Maps columns to the parts of a prompt row; as text, so that command line and form agree.

use std::collections::BTreeSet;

use minijinja::Environment;
use serde_json::{Map, Value, json};

use super::cells::{insert, property, tags_of, type_problem, value_of};
use super::conversation::{asked, has_calls, turn, turns};
use super::records::{Record, clip};
use super::row_schemas;
use super::survey::{Survey, cell};
use super::templates;
use crate::dataset::row::parse;
use crate::exact_json::{self, marked_number};
use crate::text::{Message, json_value};

/// Parts of a row, and the column names guessed for them.
const PARTS: [(&str, &[&str]); 6] = [
    (
        "prompt",
        &[
            "messages",
            "conversations",
            "responses_create_params.input",
            "prompt",
            "question",
            "input",
            "text",
            "instruction",
            "document",
            "body",
        ],
    ),
    ("system", &["system", "system_prompt"]),
    (
        "expected",
        &[
            "expected",
            "answer",
            "output",
            "completion",
            "response",
            "target",
            "json",
            "label",
            "ground_truth",
            "reward_model.ground_truth",
        ],
    ),
    ("id", &["id", "key", "uuid", "unique_id"]),
    ("tags", &["tags", "tag"]),
    (
        "schema",
        &["schema", "schema_str", "json_schema", "verify_schema"],
    ),
];

/// Fields of a row with a form of their own: columns of these names stay only where they have it.
const FORMED: [&str; 3] = ["tools", "turns", "demonstration"];
/// Fields that change how a row is judged. Columns of other programs have such names by chance.
const JUDGED: [&str; 3] = ["completion", "format", "now"];

/// `expected` of conversations that end with the right answer.
pub const LAST_TURN: &str = "last-turn";

/// Mapping by part; empty parts are unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappingText {
    /// A column of prompts or conversations, or a template such as `Read this: {{ text }}`.
    pub prompt: String,
    /// A column or template.
    pub system: String,
    /// A column of JSON, or a field of its objects, such as `reward_model.ground_truth`; columns
    /// that become fields, such as `vendor, total = amount`; or [`LAST_TURN`].
    pub expected: String,
    pub id: String,
    pub tags: String,
    /// A column of JSON Schemas, each of its row's answer.
    pub schema: String,
}

impl MappingText {
    pub fn parts(&self) -> [(&'static str, &str); 6] {
        let texts = [
            &self.prompt,
            &self.system,
            &self.expected,
            &self.id,
            &self.tags,
            &self.schema,
        ];
        std::array::from_fn(|place| (PARTS[place].0, texts[place].as_str()))
    }

    /// Sets a part by `PART=TEXT`.
    ///
    /// # Errors
    /// An unknown part.
    pub fn set(&mut self, assignment: &str) -> Result<(), String> {
        let names = PARTS.map(|(name, _)| name).join(", ");
        let (part, text) = assignment
            .split_once('=')
            .ok_or_else(|| format!("{assignment}: write PART=COLUMN; PART is one of {names}"))?;
        let place = match part.trim() {
            "prompt" => &mut self.prompt,
            "system" => &mut self.system,
            "expected" => &mut self.expected,
            "id" => &mut self.id,
            "tags" => &mut self.tags,
            "schema" => &mut self.schema,
            other => return Err(format!("{assignment}: unknown part `{other}`; use {names}")),
        };
        text.trim().clone_into(place);
        Ok(())
    }

    /// Guesses empty parts from column names, and `expected` from columns that are properties of
    /// the schema.
    #[must_use]
    pub(super) fn guessed(self, survey: &Survey, schema: Option<&Value>) -> Self {
        let own_schema = self.schema.clone();
        let named = |part: usize| {
            let column = |name: &&str| {
                survey
                    .names()
                    .find(|column| column.eq_ignore_ascii_case(name) && *column != own_schema)
                    .map(str::to_owned)
            };
            PARTS[part].1.iter().find_map(column).unwrap_or_default()
        };
        let properties = schema.and_then(|schema| schema.get("properties")?.as_object());
        let fields: Vec<&str> = properties
            .iter()
            .flat_map(|fields| fields.keys())
            .map(String::as_str)
            .filter(|field| survey.columns.iter().any(|column| column == field))
            .collect();
        let or =
            |text: String, guess: &dyn Fn() -> String| if text.is_empty() { guess() } else { text };
        let row_schema = or(self.schema, &|| {
            let mut names = PARTS[5].1.iter().copied();
            let found = names.find(|name| row_schemas::has_schemas(&survey.first, name));
            found.unwrap_or_default().to_owned()
        });
        let prompt = or(self.prompt, &|| match named(0) {
            // A benchmark of schemas has no prompts.
            none if none.is_empty() && !row_schema.is_empty() => {
                row_schemas::prompt_of_schema(survey, &row_schema)
            }
            found => both_columns(survey, &found).unwrap_or(found),
        });
        let ends_with_answer = || {
            let turns = survey
                .first
                .first()
                .and_then(|record| cell(record, &prompt)?.as_array()?.last().and_then(turn));
            turns.is_some_and(|turn| turn.role == "assistant")
        };
        let expected = || match named(2) {
            column
                if !column.is_empty()
                    && is_json(&survey.first, &column)
                    && !is_field(survey, schema, &column) =>
            {
                column
            }
            // A single column would be read as JSON.
            _ if !fields.is_empty() => match fields[..] {
                [one] => format!("{one} = {one}"),
                _ => fields.join(", "),
            },
            // A label: an answer of one field.
            column if !column.is_empty() => format!("{column} = {column}"),
            _ if ends_with_answer() => LAST_TURN.to_owned(),
            none => none,
        };
        Self {
            expected: or(self.expected, &expected),
            system: or(self.system, &|| named(1)),
            id: or(self.id, &|| named(3)),
            tags: or(self.tags, &|| named(4)),
            schema: row_schema.clone(),
            prompt,
        }
    }

    /// Whether a column is taken as a part, or named like one.
    pub(super) fn is_of(&self, column: &str, part: &str) -> bool {
        let mut known = PARTS.iter().filter(|(name, _)| *name == part);
        known.any(|(_, columns)| columns.contains(&column)) || self.parts_of(column).contains(&part)
    }

    pub fn parts_of(&self, column: &str) -> Vec<&'static str> {
        let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
        let takes = |text: &str| match is_template(text) {
            true => text
                .split(|letter| !is_name(letter))
                .any(|name| name == column),
            false => {
                let mut names = text.split(',').map(|pair| match pair.split_once('=') {
                    Some((_, name)) => name.trim(),
                    None => pair.trim(),
                });
                // Or a field of an object in it.
                text == column
                    || names.any(|name| {
                        let rest = name.strip_prefix(column);
                        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    })
            }
        };
        let parts = self.parts().into_iter();
        parts
            .filter(|(_, text)| takes(text))
            .map(|(part, _)| part)
            .collect()
    }

    /// `prompt=text expected=vendor, date`, as on a command line.
    pub fn arguments(&self) -> Vec<String> {
        self.parts()
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(part, text)| format!("{part}={text}"))
            .collect()
    }
}

#[derive(Debug)]
enum Source {
    Column(String),
    Template(&'static str),
}

#[derive(Debug)]
enum Expected {
    None,
    Column(String),
    /// Field path and column.
    Fields(Vec<(Vec<String>, String)>),
    LastTurn,
}

/// A mapping, checked against a file's columns.
#[derive(Debug)]
pub(super) struct Mapping {
    prompt: Source,
    system: Option<Source>,
    expected: Expected,
    id: Option<String>,
    tags: Vec<String>,
    row_schema: Option<String>,
    templates: Environment<'static>,
    schema: Value,
    has_schema: bool,
    is_typed: bool,
    /// Prefix of generated ids.
    stem: String,
    /// Columns that a part takes.
    taken: BTreeSet<String>,
}

impl Mapping {
    /// Checks a mapping. `schema`: of expected answers; without one, columns that become fields get
    /// the narrowest type of their cells. `stem`: prefix of generated ids.
    ///
    /// # Errors
    /// A part that is neither a column nor a template.
    pub(super) fn new(
        text: &MappingText,
        survey: &Survey,
        schema: Option<&Value>,
        stem: &str,
    ) -> Result<Self, String> {
        let known = &survey.columns;
        let mut templates = templates::environment();
        let column = |part: &str, name: &str| match survey.has(name) {
            true => Ok(name.to_owned()),
            false => {
                let near = crate::format::did_you_mean(name, survey.names());
                let known = known.join(", ");
                Err(format!(
                    "{part}: no column `{}`{near}; the columns are {}",
                    clip(name),
                    clip(&known)
                ))
            }
        };
        let mut source = |part: &'static str, text: &str| match text {
            "" => Ok(None),
            text if is_template(text) => {
                let added = templates.add_template_owned(part, text.to_owned());
                added
                    .map(|()| Some(Source::Template(part)))
                    .map_err(|error| format!("{part}: {error:#}"))
            }
            text => column(part, text).map(|column| Some(Source::Column(column))),
        };
        let list = |text: &str| -> Vec<String> {
            text.split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let prompt = source("prompt", &text.prompt)?.ok_or_else(|| {
            format!(
                "prompt: name a column or write a template such as `Read: {{{{ {} }}}}`; the columns are {}",
                known.first().map_or("text", String::as_str),
                survey.samples()
            )
        })?;
        let system = source("system", &text.system)?;
        let expected = match text.expected.as_str() {
            "" => Expected::None,
            LAST_TURN if !known.iter().any(|column| column == LAST_TURN) => Expected::LastTurn,
            whole if survey.has(whole) || !whole.contains([',', '=']) => {
                match column("expected", whole)? {
                    name if is_field(survey, schema, &name) => {
                        Expected::Fields(vec![(vec![name.clone()], name)])
                    }
                    name => Expected::Column(name),
                }
            }
            fields => {
                let pairs = list(fields)
                    .into_iter()
                    .map(|pair| match pair.split_once('=') {
                        Some((field, name)) => {
                            Ok((field.trim().to_owned(), column("expected", name.trim())?))
                        }
                        None => Ok((pair.clone(), column("expected", &pair)?)),
                    });
                let pairs: Vec<(String, String)> = pairs.collect::<Result<_, String>>()?;
                Expected::Fields(
                    pairs
                        .into_iter()
                        .map(|(field, name)| (path_of(&field), name))
                        .collect(),
                )
            }
        };
        let id = match text.id.as_str() {
            "" => None,
            name => Some(column("id", name)?),
        };
        let tags = list(&text.tags)
            .iter()
            .map(|name| column("tags", name))
            .collect::<Result<_, _>>()?;
        let row_schema = match text.schema.as_str() {
            "" => None,
            name => Some(column("schema", name)?),
        };
        let has_schema = schema.is_some();
        let schema = match (schema, &expected) {
            (Some(schema), _) => schema.clone(),
            (None, Expected::Fields(fields)) => schema_of_fields(survey, fields),
            (None, _) => Value::Bool(true),
        };
        Ok(Self {
            prompt,
            system,
            expected,
            id,
            tags,
            row_schema,
            templates,
            schema,
            has_schema,
            is_typed: survey.is_typed,
            stem: stem.to_owned(),
            taken: known
                .iter()
                .filter(|column| !text.parts_of(column).is_empty())
                .cloned()
                .collect(),
        })
    }

    /// Builds `id`, `messages`, `expected`, `tags` and `schema`, and keeps columns that no part takes, which
    /// tools and scorers may read. `place`: the record's number, for a
    /// generated id.
    ///
    /// # Errors
    /// A cell that does not fit.
    pub(super) fn row(&self, record: &Record, place: usize) -> Result<Map<String, Value>, String> {
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            let content = self.text("system", system, record)?;
            if !content.trim().is_empty() {
                messages.push(Message::new("system", content));
            }
        }
        match &self.prompt {
            Source::Column(name) if let Some(value @ Value::Array(_)) = cell(record, name) => {
                messages.extend(turns(value)?)
            }
            prompt => messages.push(asked(self.text("prompt", prompt, record)?)?),
        }
        let expected = self.expected(record, &mut messages)?;
        if !messages
            .iter()
            .any(|turn| turn.role == "user" && !turn.content.trim().is_empty())
        {
            return Err("prompt: the cell is empty".to_owned());
        }
        let id = match &self.id {
            None => self.own_id(place),
            Some(name) => match cell(record, name) {
                None | Some(Value::Null) => self.own_id(place),
                Some(Value::String(id)) if !id.trim().is_empty() => id.clone(),
                Some(Value::Number(id)) => id.to_string(),
                Some(id) if let Some(id) = marked_number(id) => id.text().to_owned(),
                other => return Err(format!("id: column `{name}` has {}", shown(other))),
            },
        };
        let mut row = Map::from_iter([
            ("id".to_owned(), id.into()),
            ("messages".to_owned(), json!(messages)),
        ]);
        row.extend(expected.map(|expected| ("expected".to_owned(), expected)));
        let tags: Vec<Value> = self
            .tags
            .iter()
            .filter_map(|name| cell(record, name))
            .flat_map(tags_of)
            .collect();
        if !tags.is_empty() {
            row.insert("tags".to_owned(), tags.into());
        }
        if let Some(name) = &self.row_schema {
            row.extend(row_schemas::own_schema(record, name)?);
        }
        for (name, value) in &record.fields {
            let is_kept = !self.taken.contains(name)
                && !name.trim().is_empty()
                && !value.is_null()
                && (name == "schema" || PARTS.iter().all(|(part, _)| part != name))
                && !JUDGED.contains(&name.as_str());
            if is_kept {
                row.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        let has_formed = FORMED.iter().any(|name| row.contains_key(*name));
        let is_row = || parse(exact_json::write(&row).as_bytes(), place, "").is_ok();
        if has_formed && !is_row() {
            row.retain(|name, _| !FORMED.contains(&name.as_str()));
        }
        Ok(row)
    }

    fn own_id(&self, place: usize) -> String {
        format!("{}-{place}", self.stem)
    }

    fn text(&self, part: &str, source: &Source, record: &Record) -> Result<String, String> {
        match source {
            Source::Template(name) => {
                let render = || {
                    self.templates
                        .get_template(name)?
                        .render(json_value(&Value::Object(record.fields.clone())))
                };
                render().map_err(|error| format!("{part}: {error:#}"))
            }
            Source::Column(name) => match cell(record, name) {
                Some(Value::String(text)) => Ok(text.clone()),
                Some(Value::Null) | None => Ok(String::new()),
                other => {
                    let kinds = if part == "prompt" {
                        "text or a list of turns"
                    } else {
                        "text"
                    };
                    Err(format!(
                        "{part}: column `{name}` has {}; it must be {kinds}",
                        shown(other)
                    ))
                }
            },
        }
    }

    fn expected(
        &self,
        record: &Record,
        messages: &mut Vec<Message>,
    ) -> Result<Option<Value>, String> {
        match &self.expected {
            Expected::None => Ok(None),
            Expected::Column(name) => match cell(record, name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => {
                    let answer = self.answer(text, &format!("column `{name}` has"))?;
                    let is_part = |value: &Value| value.is_object() || value.is_array();
                    let is_text =
                        self.is_typed && answer.as_ref().is_some_and(|value| !is_part(value));
                    match is_text {
                        true => value_of(text, &self.schema, &self.schema, true),
                        false => Ok(answer),
                    }
                }
                Some(value @ Value::Object(_)) if self.has_schema => {
                    match type_problem(value, &self.schema, &self.schema, name) {
                        Some(problem) => {
                            Err(format!("expected: {problem}; correct it, or the schema"))
                        }
                        None => Ok(Some(value.clone())),
                    }
                }
                Some(value) => Ok(Some(value.clone())),
            },
            // How the request is done stays with the row: its demonstration.
            Expected::LastTurn if has_calls(messages) => match messages.last() {
                Some(turn) if turn.role == "assistant" && turn.tool_calls().is_empty() => {
                    self.answer(&turn.content, "the last turn is")
                }
                _ => {
                    Err("expected: the conversation ends with calls, not with an answer".to_owned())
                }
            },
            Expected::LastTurn => match messages.pop() {
                Some(turn) if turn.role == "assistant" => {
                    self.answer(&turn.content, "the last turn is")
                }
                turn => {
                    let role = turn.map_or_else(
                        || "missing".to_owned(),
                        |turn| format!("of `{}`", clip(&turn.role)),
                    );
                    Err(format!(
                        "expected: the last turn is {role}, not of `assistant`"
                    ))
                }
            },
            Expected::Fields(fields) => {
                let mut answer = Value::Object(Map::new());
                for (path, name) in fields {
                    let value = self
                        .field(path, name, cell(record, name))
                        .map_err(|problem| format!("expected: column {problem}"))?;
                    if let Some(value) = value {
                        insert(&mut answer, path, value)
                            .map_err(|()| format!("expected: `{}` stands twice", path.join(".")))?;
                    }
                }
                Ok(Some(answer))
            }
        }
    }

    /// A field's value from a cell; `None` omits the field.
    fn field(
        &self,
        path: &[String],
        name: &str,
        cell: Option<&Value>,
    ) -> Result<Option<Value>, String> {
        let (root, schema) = (&self.schema, property(&self.schema, path));
        let value = match cell {
            Some(Value::String(text)) => value_of(text, schema, root, self.is_typed)
                .map_err(|problem| format!("`{name}`: {problem}"))?,
            Some(value) if self.has_schema => match type_problem(value, schema, root, name) {
                None => Some(value.clone()),
                Some(_) if value.is_null() => None,
                Some(problem) => return Err(problem),
            },
            other => other.cloned(),
        };
        let Some((field, parents)) = path.split_last().filter(|_| value.is_none()) else {
            return Ok(value);
        };
        let required = property(root, parents)
            .get("required")
            .and_then(Value::as_array);
        if !self.has_schema || !required.is_some_and(|names| names.iter().any(|name| name == field))
        {
            return Ok(None);
        }
        // Empty text may be a string.
        match cell {
            Some(Value::String(text))
                if let Ok(text @ Some(_)) = value_of(text, schema, root, true) =>
            {
                Ok(text)
            }
            _ => Err(format!(
                "`{name}`: the cell is empty, and the schema requires `{field}`"
            )),
        }
    }

    /// An answer as JSON; as a string if the schema requires it.
    fn answer(&self, text: &str, place: &str) -> Result<Option<Value>, String> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        match exact_json::parse(text.trim()) {
            Ok(value) if self.schema.get("type").is_none_or(|kind| kind != "string") => {
                Ok(Some(value))
            }
            _ if self.schema.get("type").is_some_and(|kind| kind == "string") => {
                Ok(Some(text.into()))
            }
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(format!(
                "expected: {place} `{}`, which is not JSON; to make a column one field of the answer, write `FIELD = COLUMN`",
                clip(text)
            )),
        }
    }
}

fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// A prompt of two columns, given the first guess: task and input (Alpaca, Dolly, SQuAD).
fn both_columns(survey: &Survey, guess: &str) -> Option<String> {
    const PAIRS: [[&str; 2]; 3] = [
        ["instruction", "input"],
        ["instruction", "context"],
        ["question", "context"],
    ];
    let is_text = |column: &str| {
        let cells = survey
            .first
            .iter()
            .filter_map(|record| cell(record, column));
        cells.clone().all(|cell| cell.is_string() || cell.is_null())
    };
    let found = |name: &str| {
        let mut columns = survey.columns.iter().map(String::as_str);
        columns.find(|column| column.eq_ignore_ascii_case(name) && is_text(column))
    };
    PAIRS.into_iter().find_map(|[task, about]| {
        let (task, about) = (found(task)?, found(about)?);
        [task, about].contains(&guess).then(|| {
            format!("{{{{ {task} }}}}{{% if {about} is defined and {about} %}}{{{{ \"\\n\\n\" ~ {about} }}}}{{% endif %}}")
        })
    })
}

/// Whether the first texts of a column are JSON; non-text values are.
fn is_json(records: &[Record], column: &str) -> bool {
    let texts = records
        .iter()
        .take(20)
        .filter_map(|record| cell(record, column)?.as_str());
    texts
        .filter(|text| !text.trim().is_empty())
        .all(|text| serde_json::from_str::<Value>(text).is_ok())
}

/// Whether a column is a field of the answer, not the whole: its cells are no objects, and the
/// schema has a property of its name, or there is no schema and they are no JSON.
fn is_field(survey: &Survey, schema: Option<&Value>, column: &str) -> bool {
    let has_object = |record: &Record| match cell(record, column) {
        Some(Value::String(text)) => text.trim_start().starts_with('{'),
        value => value.is_some_and(Value::is_object),
    };
    let is_plain = !survey.first.iter().any(has_object);
    is_plain
        && match schema {
            Some(schema) => schema
                .pointer("/properties")
                .is_some_and(|all| all.get(column).is_some()),
            None => !is_json(&survey.first, column),
        }
}

/// `address.city`
fn path_of(field: &str) -> Vec<String> {
    field
        .split('.')
        .map(|part| part.trim().to_owned())
        .collect()
}

fn schema_of_fields(survey: &Survey, fields: &[(Vec<String>, String)]) -> Value {
    let mut schema = json!({});
    for (path, name) in fields {
        let mut place = &mut schema;
        for key in path {
            place = &mut place["properties"][key];
        }
        *place = survey.schema_of(name);
    }
    schema
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(
        || "no value".to_owned(),
        |value| format!("`{}`", clip(&value.to_string())),
    )
}
