//! Outline of a task's answers, with positions in its definition: fields of a schema, functions,
//! operations, tables, or keys of `task.toml`.

mod calls;
mod entry;
mod schema;
mod sql;

pub use entry::OutlineEntry;

use crate::format::line_column;
use crate::score::{Grammar, ScoreKey, Task, score_keys};
use crate::task::TASK_FILE;
use entry::placed;

pub fn outline(task: &Task) -> Vec<OutlineEntry> {
    let (text, formats_count) = (&task.definition_text, task.score.assert_formats);
    let first = [answer(task)].into_iter();
    if task.definition_file == TASK_FILE {
        return first.chain(keys(task)).collect();
    }
    if let Some(schema) = task.definition.schema() {
        let mut lines = schema::describe(schema.value, formats_count);
        if let (Some(whole), Some(notation)) = (lines.first_mut(), schema.notation) {
            whole.text.push_str(&format!(", in {notation}"));
        }
        return placed(text, lines);
    }
    let lines = match task.grammar() {
        Some(Grammar::ToolCalls(rules)) => placed(text, calls::functions(rules, formats_count)),
        Some(Grammar::HttpMessage(rules)) => placed(text, calls::operations(rules, formats_count)),
        _ => sql::outline(text),
    };
    first.chain(lines).collect()
}

fn answer(task: &Task) -> OutlineEntry {
    OutlineEntry {
        name: "the answer".to_owned(),
        text: task.definition.summary(task),
        ..OutlineEntry::default()
    }
}

fn keys(task: &Task) -> Vec<OutlineEntry> {
    let text = task.definition_text.as_str();
    let mut entries = Vec::new();
    for (part, keys) in score_keys(text) {
        entries.push(OutlineEntry {
            name: part
                .as_ref()
                .map_or_else(|| "[score]".to_owned(), |name| format!("[[reward]] {name}")),
            text: if part.is_some() {
                "a part of the reward"
            } else {
                "what judges an answer"
            }
            .to_owned(),
            place: keys
                .iter()
                .filter_map(|key| key.offset)
                .min()
                .map(|offset| line_column(text, offset)),
            ..OutlineEntry::default()
        });
        let entry = |key: ScoreKey| OutlineEntry {
            depth: 1,
            name: key.name,
            text: key
                .value
                .unwrap_or_else(|| format!("not set: {}", key.default)),
            place: key.offset.map(|offset| line_column(text, offset)),
            details: vec![key.meaning.to_owned()],
            ..OutlineEntry::default()
        };
        entries.extend(keys.into_iter().map(entry));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, required, text and position.
    fn shown(task: &Task) -> Vec<String> {
        let line = |entry: &OutlineEntry| {
            let must = entry
                .required
                .map_or("", |must| if must { "!" } else { "?" });
            let place = entry
                .place
                .map_or_else(String::new, |(line, column)| format!(" @{line}:{column}"));
            format!(
                "{}{}{must}: {}{place}",
                " ".repeat(entry.depth),
                entry.name,
                entry.text
            )
        };
        outline(task).iter().map(line).collect()
    }

    fn task(files: &[(&str, &str)]) -> Task {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Task::load(folder.path()).unwrap()
    }

    #[test]
    fn fields_of_a_schema_have_the_places_of_their_keys() {
        let schema = "{\n  \"properties\": {\n    \"a/b\": {\"$ref\": \"#/$defs/m\"}\n  },\n  \"$defs\": {\"m\": {\"type\": \"object\", \"properties\": {\"n\": {\"type\": \"integer\"}}}}\n}";
        let task = task(&[
            ("task.toml", "name = \"t\"\nschema = \"s.json\""),
            ("s.json", schema),
        ]);
        assert_eq!(
            shown(&task),
            [
                "the answer: anything (no `type`); if an object with 1 field; others are allowed @1:1",
                " a/b?: an object with 1 field; others are allowed @3:5",
                "  n?: a whole number @5:52",
            ]
        );
    }

    #[test]
    fn functions_have_their_parameters() {
        let tools = "[{\"type\": \"function\", \"function\": {\n  \"name\": \"find\",\n  \"parameters\": {\"type\": \"object\", \"required\": [\"q\"], \"properties\": {\n    \"q\": {\"enum\": [\"a\", \"b\"]}}}}},\n {\"name\": \"stop\"}]";
        let toml = "name = \"t\"\n[score]\nkind = \"tool_calls\"\ntools = \"t.json\"";
        assert_eq!(
            shown(&task(&[("task.toml", toml), ("t.json", tools)])),
            [
                "the answer: calls of functions, in the format of the model's chat template (hermes without a model), in the order of `expected`",
                "find: a function @2:3",
                " q!: one of \"a\", \"b\" @4:5",
                "stop: a function @5:3",
            ]
        );
    }

    #[test]
    fn operations_have_their_parameters_and_bodies() {
        let document = r##"{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {
  "/a/{id}": {
    "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}],
    "post": {
      "operationId": "makeA",
      "parameters": [
        {"name": "n", "in": "query", "schema": {"type": "integer"}}],
      "requestBody": {"required": true, "content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/A"}}}},
      "responses": {}}}},
  "components": {"schemas": {"A": {"type": "object", "properties": {
    "v": {"type": "string"}}}}}}"##;
        let toml = "name = \"t\"\n[score]\nkind = \"http_request\"\nopenapi = \"o.json\"";
        assert_eq!(
            shown(&task(&[("task.toml", toml), ("o.json", document)])),
            [
                "the answer: a request as one JSON object",
                "POST /a/{id}: makeA @4:5",
                " {id}!: a whole number @3:20",
                " query?: an object with 1 field and no others @4:5",
                "  n?: a whole number @7:9",
                " body!: an object with 1 field; others are allowed @8:53",
                "  v?: text @12:5",
            ]
        );
    }

    #[test]
    fn keys_of_the_score_are_listed_where_no_file_defines_answers() {
        let toml = "name = \"t\"\n[score]\nkind = \"regex\"\npattern = 'a+'\n[[reward]]\npart = \"exact\"\nweight = 1";
        assert_eq!(
            shown(&task(&[("task.toml", toml)])),
            [
                "the answer: a text with a match for a+",
                "[score]: what judges an answer @3:8",
                " kind: \"regex\" @3:8",
                " pattern: 'a+' @4:11",
                " tiers: not set: 0, 0.5, 1",
                " strip_thinking: not set: true",
                " continue_after_failure: not set: false",
                " normalise: not set: none",
                " tolerance: not set: none",
                " aliases: not set: none",
                "[[reward]] exact: a part of the reward @6:8",
                " part: \"exact\" @6:8",
                " weight: 1 @7:10",
            ]
        );
    }
}
