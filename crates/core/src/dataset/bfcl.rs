//! Converts single-turn data of the Berkeley Function Calling Leaderboard (package `bfcl-eval`)
//! into a task of kind `tool_calls`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::error::DatasetError;
use super::messages::json_fault;
use super::new_task::{NewTask, check_name};
use super::row::read_lines;
use crate::files;

/// Single-turn categories whose arguments are JSON.
pub const CATEGORIES: [&str; 10] = [
    "simple_python",
    "live_simple",
    "multiple",
    "live_multiple",
    "parallel",
    "live_parallel",
    "parallel_multiple",
    "live_parallel_multiple",
    "irrelevance",
    "live_irrelevance",
];
/// Categories in which no call is right; they have no answer file.
const WITHOUT_CALLS: [&str; 2] = ["irrelevance", "live_irrelevance"];
/// Places of the data in a data, package or pip target folder.
const FOLDERS: [&str; 3] = ["", "data", "bfcl_eval/data"];

/// Rows of BFCL, and omitted records.
#[derive(Debug, Clone, Default)]
pub struct BfclData {
    pub rows: Vec<Map<String, Value>>,
    /// Id and reason.
    pub left_out: Vec<(String, String)>,
}

/// A normal form of spellings that the leaderboard treats as equal.
pub(crate) fn standard_text(text: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|letter| !" ,./-_*^".contains(*letter))
        .collect();
    kept.to_lowercase().replace('\'', "\"")
}

/// Reads categories. Omits rows that no answer could satisfy or that a task cannot express.
///
/// # Errors
/// No data in the folder, an unknown category, a missing answer file, or a file that is not JSON
/// lines.
pub fn read_bfcl(folder: &Path, categories: &[String]) -> Result<BfclData, DatasetError> {
    let fail = |problem: String| DatasetError::Import {
        label: folder.display().to_string(),
        problem,
    };
    let files = FOLDERS
        .into_iter()
        .map(|inner| category_files(&folder.join(inner)))
        .find(|files| !files.is_empty());
    let files = files.ok_or_else(|| {
        fail("no BFCL_v4_*.json here: name the folder that `pip install --no-deps --target DIR bfcl-eval` filled, or its bfcl_eval/data".to_owned())
    })?;
    let mut data = BfclData::default();
    for category in categories {
        if !CATEGORIES.contains(&category.as_str()) {
            let near = crate::format::did_you_mean(category, CATEGORIES);
            return Err(fail(format!(
                "--categories takes {}, not {category:?}{near}",
                CATEGORIES.join(", ")
            )));
        }
        let has_file = files.get(category.as_str());
        let file = has_file.ok_or_else(|| {
            fail(format!(
                "category {category} has no file BFCL_v4_{category}.json"
            ))
        })?;
        let answers = match WITHOUT_CALLS.contains(&category.as_str()) {
            true => None,
            false => {
                let beside = file
                    .file_name()
                    .map(|name| file.with_file_name("possible_answer").join(name));
                Some(answers_of(&beside.unwrap_or_default())?)
            }
        };
        for (line, question) in json_lines(file)? {
            let id = question
                .get("id")
                .and_then(Value::as_str)
                .map_or_else(|| format!("{category}-{line}"), str::to_owned);
            let answer = answers
                .as_ref()
                .map(|answers| answers.get(&id).ok_or("no answer in possible_answer"));
            match answer
                .transpose()
                .map_err(str::to_owned)
                .and_then(|answer| row(&question, answer, category, &id))
            {
                Ok(row) => data.rows.push(row),
                Err(problem) => data.left_out.push((id, problem)),
            }
        }
    }
    Ok(data)
}

/// A task of rows from [`read_bfcl`].
///
/// # Errors
/// A name that cannot name a folder.
pub fn bfcl_task(
    name: &str,
    rows: Vec<Map<String, Value>>,
    split: [usize; 3],
) -> Result<NewTask, DatasetError> {
    check_name(name)?;
    let no_call = rows.iter().any(|row| {
        row.get("expected")
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty)
    });
    Ok(NewTask::from_rows(task_toml(name, no_call), rows, split))
}

/// Files of a folder by category.
fn category_files(folder: &Path) -> HashMap<String, PathBuf> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter_map(|path| {
            let name = path
                .file_name()?
                .to_str()?
                .strip_prefix("BFCL_v")?
                .strip_suffix(".json")?;
            let (version, category) = name.split_once('_')?;
            version.parse::<u32>().ok()?;
            Some((category.to_owned(), path.clone()))
        })
        .collect()
}

fn json_lines(path: &Path) -> Result<Vec<(usize, Value)>, DatasetError> {
    let label = path.display().to_string();
    let text = files::read_text(path).map_err(|source| DatasetError::File {
        path: label.clone(),
        source,
        remedy: "install bfcl-eval again, or leave the category out (--categories)",
    })?;
    let parsed = read_lines(text.as_bytes()).map(|line| {
        let (line, bytes) = line?;
        let value = serde_json::from_slice(&bytes).map_err(|error| (line, json_fault(&error)))?;
        Ok((line, value))
    });
    parsed
        .collect::<Result<_, _>>()
        .map_err(|(line, problem)| DatasetError::Line {
            label: label.clone(),
            line,
            problem,
        })
}

/// Expected calls by id.
fn answers_of(path: &Path) -> Result<HashMap<String, Value>, DatasetError> {
    let answer = |(_, answer): (usize, Value)| {
        Some((
            answer.get("id")?.as_str()?.to_owned(),
            answer.get("ground_truth")?.clone(),
        ))
    };
    Ok(json_lines(path)?.into_iter().filter_map(answer).collect())
}

fn row(
    question: &Value,
    answer: Option<&Value>,
    category: &str,
    id: &str,
) -> Result<Map<String, Value>, String> {
    let turns = question
        .get("question")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let [messages] = turns else {
        return Err(format!(
            "{} instead of one",
            crate::format::counted(turns.len(), "turn")
        ));
    };
    let listed = question
        .get("function")
        .and_then(Value::as_array)
        .ok_or("no `function`")?;
    let mut functions: Vec<Function> = Vec::new();
    for function in listed {
        let function = Function::new(function)?;
        if functions
            .iter()
            .any(|other| other.legal_name == function.legal_name)
        {
            return Err(format!("two functions are called {}", function.legal_name));
        }
        functions.push(function);
    }
    let calls = answer.map_or(Some(&[][..]), |calls| calls.as_array().map(Vec::as_slice));
    let calls = calls.ok_or("`ground_truth` is not a list of calls")?;
    let expected: Vec<Value> = calls
        .iter()
        .map(|call| expected_call(call, &functions))
        .collect::<Result<_, _>>()?;
    let tools: Vec<Value> = functions.iter().map(Function::tool).collect();
    let row = json!({"id": id, "messages": messages, "tools": tools, "expected": expected, "tags": [category]});
    Ok(row.as_object().cloned().unwrap_or_default())
}

struct Function {
    name: String,
    /// Name reduced to letters, digits, `_` and `-`, as OpenAI's API requires.
    legal_name: String,
    description: Value,
    /// JSON Schema.
    parameters: Value,
}

impl Function {
    fn new(function: &Value) -> Result<Self, String> {
        let name = function
            .get("name")
            .and_then(Value::as_str)
            .ok_or("a function has no `name`")?;
        let legal = |letter: char| {
            if letter.is_ascii_alphanumeric() || letter == '-' {
                letter
            } else {
                '_'
            }
        };
        Ok(Self {
            name: name.to_owned(),
            legal_name: name.chars().map(legal).collect(),
            description: function.get("description").cloned().unwrap_or_default(),
            parameters: json_schema(
                function
                    .get("parameters")
                    .unwrap_or(&json!({"type": "dict", "properties": {}})),
            ),
        })
    }

    fn tool(&self) -> Value {
        json!({"type": "function", "function": {
            "name": self.legal_name, "description": self.description, "parameters": self.parameters,
        }})
    }
}

/// Replaces the leaderboard's Python types by JSON Schema's. The enum of a list is that of its
/// items.
fn json_schema(schema: &Value) -> Value {
    let Some(keywords) = schema.as_object() else {
        return schema.clone();
    };
    let mut mapped = Map::new();
    for (keyword, value) in keywords {
        let value = match (keyword.as_str(), value) {
            ("type", Value::String(name)) => match name.as_str() {
                "any" => continue,
                "dict" => json!("object"),
                "float" => json!("number"),
                "tuple" => json!("array"),
                _ => value.clone(),
            },
            ("properties", Value::Object(properties)) => properties
                .iter()
                .map(|(name, schema)| (name.clone(), json_schema(schema)))
                .collect(),
            ("items" | "additionalProperties", value) => json_schema(value),
            _ => value.clone(),
        };
        mapped.insert(keyword.clone(), value);
    }
    let is_of_items = mapped.get("type") == Some(&json!("array"))
        && mapped
            .get("enum")
            .and_then(Value::as_array)
            .is_some_and(|values| !values.iter().any(Value::is_array));
    if is_of_items && let Some(values) = mapped.remove("enum") {
        let items = mapped.entry("items").or_insert_with(|| json!({}));
        if let Some(items) = items.as_object_mut() {
            items.entry("enum").or_insert(values);
        }
    }
    Value::Object(mapped)
}

/// Converts `{"FUNCTION": {"ARGUMENT": [values]}}` to a call with alternatives.
fn expected_call(call: &Value, functions: &[Function]) -> Result<Value, String> {
    let mut members = call.as_object().into_iter().flatten();
    let (Some((name, arguments)), None) = (members.next(), members.next()) else {
        return Err("a call of `ground_truth` is not one function with its arguments".to_owned());
    };
    let function = functions.iter().find(|function| function.name == *name);
    let function = function
        .ok_or_else(|| format!("expects a call of {name}, which is not among its functions"))?;
    let parameters = &function.parameters;
    let arguments = arguments
        .as_object()
        .ok_or_else(|| format!("the arguments of {name} are not an object"))?;
    let without_answer = required(parameters).find(|name| !arguments.contains_key(*name));
    if let Some(name) = without_answer {
        return Err(format!("the required argument `{name}` has no right value"));
    }
    Ok(json!({"name": function.legal_name, "arguments": members_of(arguments, parameters, true)?}))
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Converts members with lists of right values to expected values. `is_closed`: only properties of
/// the schema can be right.
fn members_of(
    members: &Map<String, Value>,
    schema: &Value,
    is_closed: bool,
) -> Result<Value, String> {
    let mut expected = Map::new();
    for (name, values) in members {
        let property = schema
            .get("properties")
            .and_then(|properties| properties.get(name));
        let values = values
            .as_array()
            .ok_or_else(|| format!("`{name}` has no list of right values"))?;
        let may_be_missing = values.iter().any(|value| value == "");
        if property.is_none() && is_closed {
            if may_be_missing {
                continue;
            }
            return Err(format!(
                "expects the argument `{name}`, which its function does not have"
            ));
        }
        let is_optional = may_be_missing && required(schema).all(|required| required != name);
        let of_type = values
            .iter()
            .filter(|value| *value != "")
            .filter_map(|value| fitting(value, property, true));
        let mut alternatives: Vec<Value> = of_type.collect();
        let empty = may_be_missing
            .then(|| empty_value(property, is_closed))
            .flatten();
        alternatives.extend(empty.and_then(|empty| fitting(&empty, property, false)));
        alternatives.dedup();
        let value = match (alternatives.len(), is_optional) {
            (0, true) => continue,
            (0, false) => {
                return Err(format!(
                    "no right value of `{name}` is of its type and enum"
                ));
            }
            (1, _) => alternatives.remove(0),
            _ => json!({"$any": alternatives}),
        };
        expected.insert(
            name.clone(),
            if is_optional {
                json!({"$optional": value})
            } else {
                value
            },
        );
    }
    Ok(Value::Object(expected))
}

/// The checker accepts the empty text, which marks optional members, as a right text, and for
/// arguments as an empty list.
fn empty_value(schema: Option<&Value>, is_argument: bool) -> Option<Value> {
    match schema
        .and_then(|schema| schema.get("type"))
        .and_then(Value::as_str)
    {
        None | Some("string") => Some(json!("")),
        Some("array") if is_argument => Some(json!([])),
        _ => None,
    }
}

/// A right value in the form of `expected`, if it has the schema's type and enum; with an enum in
/// its spelling. `has_lists`: members of objects are lists of right values; deeper ones are values.
fn fitting(value: &Value, schema: Option<&Value>, has_lists: bool) -> Option<Value> {
    let type_name = schema
        .and_then(|schema| schema.get("type"))
        .and_then(Value::as_str);
    let fits = match type_name {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    let items = schema.and_then(|schema| schema.get("items"));
    let value = match value {
        Value::Object(members) if has_lists => {
            members_of(members, schema.unwrap_or(&Value::Null), false).ok()?
        }
        Value::Array(values) => values
            .iter()
            .map(|value| fitting(value, items, has_lists))
            .collect::<Option<_>>()?,
        value => value.clone(),
    };
    match schema
        .and_then(|schema| schema.get("enum"))
        .and_then(Value::as_array)
    {
        Some(allowed) if fits && !allowed.contains(&value) => {
            let text = standard_text(value.as_str()?);
            allowed
                .iter()
                .find(|allowed| {
                    allowed
                        .as_str()
                        .is_some_and(|allowed| standard_text(allowed) == text)
                })
                .cloned()
        }
        _ => fits.then_some(value),
    }
}

fn task_toml(name: &str, no_call: bool) -> String {
    let no_call = match no_call {
        true => "allow_no_call = true   # where no function fits, `[]` or a text is right\n",
        false => "",
    };
    format!(
        r#"name = "{name}"
title = "Berkeley Function Calling Leaderboard, single turn"
thinking = false

[prompts]
train = "train.jsonl"
eval = "eval.jsonl"
test = "test.jsonl"

[score]
kind = "tool_calls"   # each row has its own tools
order = false
normalise = "bfcl"    # texts are compared as the leaderboard compares them
{no_call}
[[reward]]
part = "fields"
weight = 0.5

[[reward]]
part = "exact"
weight = 0.5

[train]
"#
    )
}
