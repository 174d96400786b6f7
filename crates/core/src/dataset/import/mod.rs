//! Imports prompt rows from CSV, JSON, JSONL and Parquet through a mapping of columns.

pub(super) mod cells;
mod arrow_schema;
mod conversation;
mod mapping;
mod parquet;
mod records;
mod row_schemas;
mod survey;
mod templates;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value};

pub use mapping::{LAST_TURN, MappingText};
pub use parquet::{LeftOut, parquet_lines};
pub use records::{Format, Record, column_samples, columns, read_records, records};

use crate::dataset::error::DatasetError;
use crate::task::PromptSet;
use mapping::Mapping;
use survey::Survey;

#[derive(Debug, Clone, Default)]
pub struct ImportedRows {
    pub mapping: MappingText,
    pub rows: Vec<Map<String, Value>>,
    pub problems: Vec<(usize, String)>,
    /// What was left out of the rows, or may mean something else.
    pub notes: Vec<String>,
}

/// Reads the first `most` records as rows, guessing missing parts of the mapping. `schema`: of
/// expected answers, if known.
///
/// # Errors
/// An unreadable file, or a mapping that does not fit its columns.
pub fn import(
    path: &Path,
    text: &MappingText,
    schema: Option<&Value>,
    most: usize,
) -> Result<ImportedRows, DatasetError> {
    let label = path.display().to_string();
    // Two passes, since the records of a large file could exceed memory.
    let is_typed = Format::from_path(path) != Some(Format::Csv);
    let left_out = LeftOut::default();
    // TRL's completion in turns is the answer, unless another column is.
    let joins = Cell::new(
        ["", "prompt"].contains(&text.prompt.as_str())
            && ["", "completion", LAST_TURN].contains(&text.expected.as_str()),
    );
    let has_joined = Cell::new(false);
    let is_padded = Format::from_path(path) == Some(Format::Parquet);
    let whole = |mut record: Record| {
        if joins.get() && join_completion(&mut record) {
            has_joined.set(true);
        }
        if is_padded {
            for (name, value) in &mut record.fields {
                match text.is_of(name, "schema") {
                    true => remove_nulls(value),
                    false => remove_padding(value, text.is_of(name, "expected")),
                }
            }
        }
        record
    };
    let survey_of = || {
        let read = records::records_without(path, most, &left_out)?;
        let read = read.map(|record| record.map(whole));
        Survey::from_records(read, schema.is_some(), is_typed)
    };
    let mut survey = survey_of()?;
    let stem = path.file_stem().map_or_else(
        || "row".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    let mut guessed = text.clone();
    if has_joined.get() && guessed.expected == "completion" {
        LAST_TURN.clone_into(&mut guessed.expected);
    }
    guessed = guessed.guessed(&survey, schema);
    if has_joined.get() && guessed.expected != LAST_TURN {
        joins.set(false);
        survey = survey_of()?;
        guessed = text.clone().guessed(&survey, schema);
    }
    let text = guessed;
    let mapping =
        Mapping::new(&text, &survey, schema, &stem).map_err(|problem| DatasetError::Import {
            label: label.clone(),
            problem,
        })?;
    let mut imported = ImportedRows {
        mapping: text,
        ..ImportedRows::default()
    };
    let mut lines: HashMap<String, usize> = HashMap::new();
    let mut padded = 0;
    for (index, record) in records::records(path, most)?.enumerate() {
        let record = whole(record?);
        let place = if survey.shares_lines {
            index + 1
        } else {
            record.line
        };
        let kind = if survey.shares_lines {
            "record"
        } else {
            "line"
        };
        let row = mapping.row(&record, place).and_then(|row| {
            let id = row
                .get("id")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            match lines.insert(id.clone(), place) {
                Some(first) => Err(format!(
                    "id `{}` is already on {kind} {first}",
                    records::clip(&id)
                )),
                None => Ok(row),
            }
        });
        match row {
            Ok(row) => {
                padded += usize::from(is_padded && row.get("expected").is_some_and(has_null));
                imported.rows.push(row);
            }
            Err(problem) if survey.shares_lines => {
                let problem = format!("record {place}: {problem}");
                imported.problems.push((record.line, problem));
            }
            Err(problem) => imported.problems.push((record.line, problem)),
        }
    }
    if padded > 0 {
        imported.notes.push(format!(
            "expected: {} with null members, which may be padding: Parquet gives all rows the same members; where null means that a member is not there, import JSONL",
            crate::format::counted(padded, "row")
        ));
    }
    let left_out = left_out.borrow();
    if !left_out.is_empty() {
        let names: Vec<&str> = left_out.iter().map(String::as_str).collect();
        imported.notes.push(format!(
            "left out, binary: {}",
            crate::format::listed(&names, 12)
        ));
    }
    Ok(imported)
}

/// TRL's prompt and completion in turns become one conversation; whether they have.
fn join_completion(record: &mut Record) -> bool {
    let is_turns = |name: &str| {
        let value = record.fields.get(name);
        value.is_some_and(conversation::is_conversation)
    };
    if !is_turns("prompt") || !is_turns("completion") {
        return false;
    }
    let completion = record.fields.shift_remove("completion");
    let prompt = record
        .fields
        .get_mut("prompt")
        .and_then(Value::as_array_mut);
    if let (Some(prompt), Some(Value::Array(completion))) = (prompt, completion) {
        prompt.extend(completion);
    }
    true
}

/// Removes null members from the turns of a conversation and from tools, also within objects unless these are an answer:
/// Arrow gives all of them the members of each.
fn remove_padding(value: &mut Value, is_answer: bool) {
    let is_tools = |value: &Value| {
        let tools = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let is_tool = |tool: &Value| {
            let keys = ["function", "parameters"];
            keys.iter()
                .any(|key| tool.get(key).is_some_and(Value::is_object))
        };
        !tools.is_empty() && tools.iter().all(is_tool)
    };
    if conversation::is_conversation(value) || is_tools(value) {
        remove_nulls(value);
    } else if let (Value::Object(members), false) = (value, is_answer) {
        members
            .values_mut()
            .for_each(|value| remove_padding(value, false));
    }
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Object(members) => members
            .values()
            .any(|member| member.is_null() || has_null(member)),
        Value::Array(items) => items.iter().any(has_null),
        _ => false,
    }
}

pub fn guess(records: &[Record], text: &MappingText, schema: Option<&Value>) -> MappingText {
    // A guess ignores cell types.
    let records = records.iter().cloned().map(Ok);
    Survey::from_records(records, true, true)
        .map(|survey| text.clone().guessed(&survey, schema))
        .unwrap_or_default()
}

/// `1 record is not a valid row`
pub fn not_valid_rows(records: usize) -> String {
    match records {
        1 => "1 record is not a valid row".to_owned(),
        records => format!("{records} records are not valid rows"),
    }
}

/// Parses percentages of the sets: `80/10/10`.
///
/// # Errors
/// Not three numbers that add up to 100.
pub fn parse_split(text: &str) -> Result<[usize; 3], String> {
    let shares: Vec<usize> = text
        .split('/')
        .filter_map(|share| share.trim().parse().ok())
        .collect();
    match shares[..] {
        [train, eval, test] if train + eval + test == 100 && text.split('/').count() == 3 => {
            Ok([train, eval, test])
        }
        _ => Err(format!(
            "{text}: write the percentages of train, eval and test, such as 80/10/10"
        )),
    }
}

pub type SetRows = (PromptSet, Vec<Map<String, Value>>);

/// Splits rows into train, eval and test, rows with equal prompts into the same set. Depends only
/// on the text; each set keeps the order.
pub fn split(rows: Vec<Map<String, Value>>, shares: [usize; 3]) -> [SetRows; 3] {
    split_by(rows, shares, |row| {
        let prompt = row.get("messages").map(Value::to_string);
        super::random::text_hash(&prompt.unwrap_or_default())
    })
}

/// As [`split`], with rows of the same key in the same set.
pub fn split_by(
    rows: Vec<Map<String, Value>>,
    shares: [usize; 3],
    key: impl Fn(&Map<String, Value>) -> u64,
) -> [SetRows; 3] {
    let keys: Vec<u64> = rows.iter().map(key).collect();
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for key in &keys {
        *counts.entry(*key).or_default() += 1;
    }
    let mut set_of: HashMap<u64, usize> = HashMap::new();
    // At least one key for a set with a share, as far as they suffice; training first.
    let mut most = counts.len().saturating_sub(usize::from(shares[0] > 0));
    for set in [2, 1] {
        let wanted = ((rows.len() * shares[set] + 50) / 100).max(usize::from(shares[set] > 0));
        let free = counts.iter().filter(|(key, _)| !set_of.contains_key(key));
        let free: Vec<(u64, usize)> = free.map(|(key, count)| (*key, *count)).collect();
        let mut taken = 0;
        let fits = |(_, count): &&(u64, usize)| {
            let is_wanted = taken + count <= wanted;
            taken += if is_wanted { *count } else { 0 };
            is_wanted
        };
        let mut chosen: Vec<u64> = free.iter().filter(fits).map(|(key, _)| *key).collect();
        if chosen.is_empty() && wanted > 0 {
            let smallest = free.iter().min_by_key(|(_, count)| *count);
            chosen.extend(smallest.map(|(key, _)| *key));
        }
        // The test set leaves the eval set one.
        let left = usize::from(set == 2 && shares[1] > 0 && most > 1);
        chosen.truncate(most - left);
        most -= chosen.len();
        set_of.extend(chosen.into_iter().map(|key| (key, set)));
    }
    let mut sets = PromptSet::ALL.map(|set| (set, Vec::new()));
    for (row, key) in rows.into_iter().zip(keys) {
        sets[set_of.get(&key).copied().unwrap_or(0)].1.push(row);
    }
    sets
}

/// Appends rows to a set's text.
///
/// # Errors
/// An id that the text already has.
pub fn with_rows(
    label: &str,
    text: &str,
    rows: &[Map<String, Value>],
) -> Result<String, DatasetError> {
    let known: HashMap<String, usize> = crate::dataset::row::read_rows(label, text.as_bytes())
        .filter_map(|row| row.ok().map(|row| (row.id, row.line)))
        .collect();
    let taken = rows.iter().find_map(|row| {
        let id = row.get("id")?.as_str()?;
        known.get(id).map(|line| (id, *line))
    });
    if let Some((id, line)) = taken {
        let problem = format!(
            "id `{}` of the imported rows already exists; import each record once, or replace all rows with `dataset import --replace`",
            records::clip(id)
        );
        return Err(DatasetError::Line {
            label: label.to_owned(),
            line,
            problem,
        });
    }
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    Ok(format!("{text}{end}{}", lines_of(rows)))
}

pub fn lines_of(rows: &[Map<String, Value>]) -> String {
    rows.iter()
        .map(|row| crate::exact_json::write(row) + "\n")
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Rows as JSON lines, and problems.
    fn imported(
        name: &str,
        text: &str,
        maps: &[&str],
        schema: Option<&Value>,
    ) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut mapping = MappingText::default();
        maps.iter().for_each(|map| mapping.set(map).unwrap());
        let imported = import(&path, &mapping, schema, usize::MAX).unwrap();
        let problems = imported.problems.into_iter().map(|(_, problem)| problem);
        let rows = imported.rows.iter().map(crate::exact_json::write);
        (rows.collect(), problems.collect())
    }

    fn asks(id: &str, prompt: &str, expected: &str) -> String {
        let prompt = json!(prompt);
        format!(
            "{{\"id\":\"{id}\",\"messages\":[{{\"role\":\"user\",\"content\":{prompt}}}],\"expected\":{expected}}}"
        )
    }

    #[test]
    fn records_of_one_line_are_told_apart() {
        let list = r#"[{"prompt":"a","expected":{"k":0}}, {"prompt":"b","expected":{"k":1}}, {"prompt":1}]"#;
        let (rows, problems) = imported("rows.json", list, &[], None);
        assert_eq!(
            rows,
            [
                asks("rows-1", "a", "{\"k\":0}"),
                asks("rows-2", "b", "{\"k\":1}")
            ]
        );
        assert!(
            problems[0].starts_with("record 3: prompt: column `prompt` has `1`"),
            "{problems:?}"
        );
        let returns = "text,x\ra,1\r\"b\rc\",2\rd,3\r";
        let (rows, _) = imported("r.csv", returns, &["expected=x = x"], None);
        let expected = [
            asks("r-2", "a", "{\"x\":1}"),
            asks("r-3", "b\rc", "{\"x\":2}"),
            asks("r-5", "d", "{\"x\":3}"),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn cells_keep_their_type() {
        let check =
            |name: &str, text: &str, schema: Option<Value>, expected: Result<&str, &str>| {
                let (rows, problems) =
                    imported(name, text, &["prompt=p", "expected=v = v"], schema.as_ref());
                match expected {
                    Ok(expected) => assert!(
                        rows[0].ends_with(&format!("\"expected\":{expected}}}")),
                        "{rows:?} {problems:?}"
                    ),
                    Err(problem) => assert_eq!((rows.len(), problems[0].as_str()), (0, problem)),
                }
            };
        let text = |required: &[&str]| {
            Some(json!({"properties": {"v": {"type": "string"}}, "required": required}))
        };
        let whole = Some(json!({"properties": {"v": {"type": "integer"}}}));
        check(
            "a.jsonl",
            r#"{"p":"x","v":"80331"}"#,
            None,
            Ok(r#"{"v":"80331"}"#),
        );
        check(
            "a.jsonl",
            r#"{"p":"x","v":"true"}"#,
            None,
            Ok(r#"{"v":"true"}"#),
        );
        check("a.csv", "p,v\nx,80331", None, Ok(r#"{"v":80331}"#));
        check(
            "a.csv",
            "p,v\nx,123456789012345678901",
            None,
            Ok(r#"{"v":123456789012345678901}"#),
        );
        check(
            "a.csv",
            "p,v\nx,0.123456789012345671",
            None,
            Ok(r#"{"v":0.123456789012345671}"#),
        );
        check(
            "a.json",
            "[{\"p\":\"x\",\"v\":123456789012345678901}]",
            None,
            Ok(r#"{"v":123456789012345678901}"#),
        );
        check("a.jsonl", r#"{"p":"x","v":"7"}"#, whole, Ok(r#"{"v":7}"#));
        check(
            "a.jsonl",
            r#"{"p":"x","v":7}"#,
            text(&[]),
            Err("expected: column `v`: 7 is not a string"),
        );
        check(
            "a.jsonl",
            r#"{"p":"x","v":""}"#,
            text(&["v"]),
            Ok(r#"{"v":""}"#),
        );
        check("a.csv", "p,v\nx,", text(&["v"]), Ok(r#"{"v":""}"#));
        check("a.csv", "p,v\nx,", text(&[]), Ok("{}"));
        check(
            "a.jsonl",
            r#"{"p":"x","v":null}"#,
            text(&["v"]),
            Err("expected: column `v`: the cell is empty, and the schema requires `v`"),
        );
    }

    #[test]
    fn a_completion_in_turns_is_the_answer_unless_another_column_is() {
        let record = r#"{"prompt":[{"role":"user","content":"a"}],"completion":[{"role":"assistant","content":"{\"x\":1}"}],"prompt_id":"p"}"#;
        let with_answer = record.replacen('{', "{\"answer\":{\"x\":2},", 1);
        let of = |id: &str, x: u8| asks(id, "a", &format!("{{\"x\":{x}}}"));
        for (text, maps, expected) in [
            (record, &["id=prompt_id"][..], of("p", 1)),
            (record, &["id=prompt_id", "prompt=prompt"], of("p", 1)),
            (record, &["id=prompt_id", "expected=completion"], of("p", 1)),
            (&with_answer, &["id=prompt_id"], of("p", 2)),
            (
                &with_answer,
                &["id=prompt_id", "expected=answer"],
                of("p", 2),
            ),
        ] {
            let (rows, problems) = imported("a.jsonl", text, maps, None);
            assert_eq!(
                (rows, problems),
                (vec![expected], Vec::new()),
                "{text} {maps:?}"
            );
        }
    }

    #[test]
    fn padding_is_removed_from_turns_and_tools_but_not_from_answers() {
        let turns = json!([{"role": "user", "content": "a", "name": null}]);
        let tools = json!([{"name": "f", "parameters": {"type": "object", "enum": null}}]);
        for (value, is_answer, expected) in [
            (
                json!({"input": turns}),
                false,
                json!({"input": [{"role": "user", "content": "a"}]}),
            ),
            (json!({"input": turns}), true, json!({"input": turns})),
            (
                tools,
                true,
                json!([{"name": "f", "parameters": {"type": "object"}}]),
            ),
            (json!({"a": null}), false, json!({"a": null})),
        ] {
            let mut found = value;
            remove_padding(&mut found, is_answer);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn columns_that_no_part_takes_stay_with_the_row() {
        let record = r#"{"text":"a","x":1,"database":"INSERT 1;","tools":"[]","completion":"b","none":null,"turns":["x"]}"#;
        let (rows, problems) = imported("a.jsonl", record, &["expected=x = x"], None);
        let kept = ",\"database\":\"INSERT 1;\"}";
        let expected =
            asks("a-1", "a", "{\"x\":1}").replacen("{\"x\":1}}", &format!("{{\"x\":1}}{kept}"), 1);
        assert_eq!((rows, problems), (vec![expected], Vec::new()));
    }

    #[test]
    fn tables_of_other_programs_are_read() {
        let pandas = ",text,x\n0,a,1\n1,b,2\n";
        let (rows, problems) = imported("a.csv", pandas, &["expected=x = x"], None);
        assert_eq!((rows.len(), problems.len()), (2, 0));
        assert_eq!(rows[1], asks("a-3", "b", "{\"x\":2}"));
        let (rows, _) = imported("a.csv", "text,x,\na,1,\n", &["expected=x = x"], None);
        assert_eq!(rows, [asks("a-2", "a", "{\"x\":1}")]);
        let alpaca = "{\"instruction\":\"Do\",\"input\":\"this\",\"output\":\"done\"}\n{\"instruction\":\"Go\",\"input\":\"\",\"output\":\"gone\"}\n{\"instruction\":\"So\",\"output\":\"soon\"}";
        let (rows, _) = imported("a.jsonl", alpaca, &[], None);
        assert_eq!(
            rows,
            [
                asks("a-1", "Do\n\nthis", "{\"output\":\"done\"}"),
                asks("a-2", "Go", "{\"output\":\"gone\"}"),
                asks("a-3", "So", "{\"output\":\"soon\"}"),
            ]
        );
    }
}
