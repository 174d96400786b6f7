//! Tasks as people write them: where they are found, and every complaint as the user reads it.

use std::fs;

use grpo_tui::score::Scorer;
use grpo_tui::score::{Grammar, Task};
use grpo_tui::task::PromptSet;
use serde_json::json;

use super::folder_with;

/// Lines of `task.toml` after `name` and `schema`; the complaint after the file's path.
fn check(lines: &str, complaint: &str) {
    let folder = folder_with("{}", lines);
    let found = Task::load(folder.path()).unwrap_err().to_string();
    let path = folder.path().join("task.toml").display().to_string();
    assert_eq!(
        found.replace(&path, "task.toml"),
        format!("task.toml {complaint}"),
        "{lines}"
    );
}

#[test]
fn complaints_about_task_toml() {
    check(
        "titel = \"x\"\n",
        "line 3 column 1: unknown key `titel`; did you mean `title`?",
    );
    check(
        "zzz = 1\n",
        "line 3 column 1: unknown key `zzz`; known keys: name, title, schema, system, thinking, chat_template_kwargs, prompts, score, reward, train, tool, tools, agent",
    );
    let kwargs = |text: &str, complaint: &str| {
        check(&format!("chat_template_kwargs = {{ {text} }}\n"), complaint)
    };
    kwargs(
        "tools = 1",
        "line 3 column 26: `chat_template_kwargs.tools` is set by the program",
    );
    kwargs(
        "enable_thinking = true",
        "line 3 column 26: `chat_template_kwargs.enable_thinking` is set by `thinking`",
    );
    kwargs(
        "now = 2026-01-02",
        "line 3 column 32: `chat_template_kwargs.now` is a date: write it as a text, \"2026-01-02\"",
    );
    check(
        "[score]\nstrip_thinkin = true\n",
        "line 4 column 1: unknown key `score.strip_thinkin`; did you mean `strip_thinking`?",
    );
    check(
        "[score]\nstrip_thinking = \"yes\"\n",
        "line 4 column 18: `score.strip_thinking` must be true or false, not the string \"yes\"",
    );
    check(
        "[score]\nkind = \"sqlx\"\n",
        "line 4 column 8: `score.kind` takes json_schema, structured, text, regex, tool_calls, command, python, code, tests, sql, http_request, state, agent, judge, not \"sqlx\"; did you mean `sql`?",
    );
    check(
        "[prompts]\ntest = \"a.jsonl\"\nproof = \"b.jsonl\"\n",
        "line 5 column 9: `prompts.proof` is the old name of `test`, which is set too: remove one",
    );
    check(
        "[score]\ntiers = { valid = \"1\" }\n",
        "line 4 column 19: `score.tiers.valid` must be a number, not the string \"1\"",
    );
    check(
        "[score]\ntiers = { valid = 1e308 }\n",
        "line 4 column 19: `score.tiers.valid` must be between -1000000 and 1000000, not 1e308",
    );
    check(
        "[[reward]]\npart = \"exact\"\nweight = -1e7\n",
        "line 5 column 10: `reward.weight` must be between -1000000 and 1000000, not -1e7",
    );
    check(
        "[score]\ntiers = { valid = nan }\n",
        "line 4 column 19: `score.tiers.valid` must be a finite number, not nan",
    );
    check(
        "[score]\ntiers = { valid = 0.2 }\n",
        "line 4 column 9: `score.tiers` must rise from unparsable through invalid to valid, not unparsable 0, invalid 0.5, valid 0.2",
    );
    check(
        "[score]\nnormalise = { é = \"casefolt\" }\n",
        "line 4 column 1: invalid unquoted key, expected letters, numbers, `-`, `_`"
            .replace("line 4 column 1", "line 4 column 15")
            .as_str(),
    );
    check(
        "[score]\nnormalise = { a = \"casefolt\" }\n",
        "line 4 column 19: `score.normalise.a` takes casefold, trim, whitespace, date, number, bfcl, accents, organisation, not \"casefolt\"; did you mean `casefold`?",
    );
    check(
        "[[reward]]\npart = \"field\"\nweight = 1\n",
        "line 4 column 8: `reward.part` takes fields, exact, tolerant, chain, grounded, length, not \"field\"",
    );
    check(
        "[[reward]]\npart = \"fields\"\n",
        "line 4 column 8: `reward.weight` is missing; write for example `weight = 0.1`",
    );
    check(
        "[[reward]]\npart = \"brier\"\nstated = \"sure\"\nweight = 1\n",
        "line 3 column 1: `part = \"brier\"` is no longer a part: remove the block; evals state how sure the model is of each value (docs/confidence.md)",
    );
    check(
        "[[reward]]\nweight = 1\n",
        "line 3 column 1: `reward.part` is missing; it is one of fields, exact, tolerant, chain, grounded, length, or give the block a `kind`",
    );
    let part = |lines: &str| format!("[[reward]]\nkind = \"regex\"\n{lines}");
    check(
        &part("pattern = 'a'\nweight = 1\n"),
        "line 3 column 1: `reward.name` is missing; write for example `name = \"style\"`",
    );
    check(
        &part("name = \"a\"\n"),
        "line 3 column 1: `[[reward]]` has no `pattern`; add for example `pattern = '^\\d{4}-\\d{2}$'`",
    );
    check(
        &part("name = \"exact\"\npattern = 'a'\nweight = 1\n"),
        "line 5 column 8: `reward.name` \"exact\" is a part of every reward: choose another name",
    );
    check(
        &part("name = \"a b\"\npattern = 'a'\nweight = 1\n"),
        "line 5 column 8: `reward.name` takes 1 to 16 letters, digits, `_` and `-`, not \"a b\"",
    );
    check(
        &part("name = \"a\"\npattern = '('\nweight = 1\n"),
        "line 6 column 11: `reward.pattern` is not a valid regular expression: unclosed group, in \"(\"",
    );
    check(
        &part("name = \"a\"\ntiers = 1\n"),
        "line 6 column 1: unknown key `reward.tiers`; known keys: name, kind, weight, expected, after, strip_thinking, pattern, normalise, tolerance, aliases",
    );
    check(
        "[[reward]]\nkind = \"regexp\"\nname = \"a\"\n",
        "line 4 column 8: `reward.kind` takes json_schema, structured, text, regex, tool_calls, command, python, code, tests, sql, http_request, state, agent, judge, not \"regexp\"; did you mean `regex`?",
    );
    check(
        "[reward]\npart = \"fields\"\n",
        "line 3 column 1: `reward` must be written as `[[reward]]`, one block per part",
    );
    check(
        "system = 3\n",
        "line 3 column 10: `system` must be a string in quotes, not the number 3",
    );
    check(
        "prompts = \"train.jsonl\"\n",
        "line 3 column 11: `prompts` must be a table, not the string \"train.jsonl\"",
    );
    check(
        "train = 1\n",
        "line 3 column 9: `train` must be a table, not the number 1",
    );
}

#[test]
fn complaints_about_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &[u8]| fs::write(folder.path().join(file), text).unwrap();
    let complaint = || {
        Task::load(folder.path())
            .unwrap_err()
            .to_string()
            .replace(&folder.path().display().to_string(), "DIR")
    };
    write("task.toml", b"title = \"x\"\n");
    assert_eq!(
        complaint(),
        "DIR/task.toml: missing `name`; add for example `name = \"invoice\"`"
    );
    write("task.toml", b"name = \"a b\"\n");
    assert_eq!(
        complaint(),
        "DIR/task.toml line 1 column 8: `name` names folders, so it takes letters, digits, `-`, `_` and `.` only, not \"a b\""
    );
    write("task.toml", b"name = \"a\"\n");
    assert_eq!(
        complaint(),
        "DIR/task.toml: missing `schema`; add for example `schema = \"schema.json\"`"
    );
    write("task.toml", b"name = \"a\"\nschema = \"schema.json\"\n");
    assert_eq!(
        complaint(),
        "DIR/schema.json: No such file or directory (os error 2); write the file, or name another one in task.toml"
    );
    write("task.toml", b"name = \"a\"\nschema = \"../schema.json\"\n");
    assert_eq!(
        complaint(),
        "DIR/task.toml: \"../schema.json\" is outside the task's folder; task files must be inside the task folder, so that a run can copy them: copy the file into the folder and name the copy"
    );
    write("task.toml", b"name = \"a\"\nschema = \"schema.json\"\n");
    write("schema.json", b"{\n \"type\": \"object\",\n}");
    assert_eq!(
        complaint(),
        "DIR/schema.json line 3 column 1: trailing comma"
    );
    write("schema.json", b"\xff\xfe");
    assert_eq!(
        complaint(),
        "DIR/schema.json: not UTF-8 text (byte 0); save it as UTF-8"
    );
    write("task.toml", b"name = \n");
    assert!(
        complaint().starts_with("DIR/task.toml line 1 column 8: "),
        "{}",
        complaint()
    );
}

/// Schema; the complaint after the file's path.
fn check_schema(schema: &str, complaint: &str) {
    let folder = folder_with(schema, "");
    let found = Scorer::new(&Task::load(folder.path()).unwrap())
        .unwrap_err()
        .to_string();
    let path = folder.path().join("schema.json").display().to_string();
    assert_eq!(
        found.replace(&path, "schema.json"),
        format!("schema.json {complaint}"),
        "{schema}"
    );
}

#[test]
fn complaints_about_schemas() {
    check_schema(
        "[]",
        "line 1 column 1 (the whole schema): a schema is an object (or true or false)",
    );
    check_schema(
        "{\n \"properties\": {\n  \"é\": {\"type\": \"nummer\"}}}",
        "line 3 column 17 (/properties/é/type): \"nummer\" is not a type; the types are array, boolean, integer, null, number, object and string",
    );
    check_schema(
        r#"{"required":"a"}"#,
        "line 1 column 13 (/required): \"a\" is not of type \"array\"",
    );
    check_schema(
        r#"{"minLength":-1}"#,
        "line 1 column 14 (/minLength): -1 is less than the minimum of 0",
    );
    check_schema(
        r#"{"$schema":"http://example.com/s"}"#,
        "line 1 column 12 (/$schema): unknown draft \"http://example.com/s\"; known are draft 4, 6, 7, 2019-09 and 2020-12, for example \"https://json-schema.org/draft/2020-12/schema\"",
    );
    check_schema(
        r#"{"properties":{"a":{"$ref":"https://example.com/a.json#/x"}}}"#,
        "line 1 column 28 (/properties/a/$ref): remote `$ref` to https://example.com/a.json is refused: nothing is fetched from a network; save it in the task's folder and name it in task.toml: `[score.references]` \"https://example.com/a.json\" = \"FILE.json\"",
    );
    check_schema(
        r#"{"$ref":"other"}"#,
        "line 1 column 9 (/$ref): `$ref` to other: the task has no such file",
    );
    check_schema(
        r##"{"a":{"$ref":"#/x"}, "$ref":"#/$defs/b"}"##,
        "line 1 column 29 (/$ref): `$ref` target not found: /$defs/b is not in the schema",
    );
    check_schema(
        r#"{"pattern":"(a"}"#,
        "line 1 column 12 (/pattern): \"(a\" is not a valid regular expression",
    );
}

/// As generators of Rust and Java write them, and as a URI has them.
#[test]
fn a_reference_may_have_characters_that_a_uri_cannot() {
    for (name, reference) in [
        ("A<B>", "#/definitions/A<B>"),
        ("A<B>", "#/definitions/A%3CB%3E"),
        ("List[é|\"x\"] #2", "#/definitions/List[é|\"x\"] #2"),
        ("100%", "#/definitions/100%"),
        ("A<B>", "a part<1>.json#/definitions/A<B>"),
    ] {
        let definitions = json!({"definitions": {name: {"type": "object", "required": ["k"]}}});
        let schema =
            json!({"anyOf": [{"$ref": reference}, {"type": "null"}], "definitions": definitions["definitions"]})
                .to_string();
        let folder = folder_with(&schema, "[score]\ngraded = true\n");
        fs::write(
            folder.path().join("a part<1>.json"),
            definitions.to_string(),
        )
        .unwrap();
        let scorer = Scorer::new(&Task::load(folder.path()).unwrap())
            .unwrap_or_else(|error| panic!("{schema}: {error}"));
        assert_eq!(scorer.score("{\"k\": 1}", None).reward, 1.0, "{schema}");
        assert_eq!(scorer.score("{}", None).errors.len(), 1, "{schema}");
    }
}

#[test]
fn references_lead_to_files_of_the_task() {
    let folder = folder_with(
        r#"{"properties":{"a":{"$ref":"money.json#/$defs/amount"},"b":{"$ref":"https://example.com/b.json"}}}"#,
        "[score.references]\n\"https://example.com/b.json\" = \"b.json\"\n",
    );
    assert_eq!(
        Task::load(folder.path())
            .unwrap_err()
            .to_string()
            .replace(&folder.path().display().to_string(), "DIR"),
        "DIR/b.json: No such file or directory (os error 2); write the file, or name another one in task.toml"
    );
    fs::write(
        folder.path().join("money.json"),
        r#"{"$defs":{"amount":{"type":"number"}}}"#,
    )
    .unwrap();
    fs::write(folder.path().join("b.json"), r#"{"type":"null"}"#).unwrap();
    let task = Task::load(folder.path()).unwrap();
    let scorer = Scorer::new(&task).unwrap();
    assert_eq!(scorer.score(r#"{"a":1,"b":null}"#, None).reward, 1.0);
    assert_eq!(scorer.score(r#"{"a":"1","b":1}"#, None).errors.len(), 2);
    let names: Vec<String> = task
        .files()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["task.toml", "schema.json", "b.json", "money.json"]);
}

#[test]
fn a_file_without_a_draft_is_of_the_draft_of_the_file_that_refers_to_it() {
    // Tuples by `items`, and a bound that is a boolean: right in old drafts, refused by 2020-12.
    let tuple = r#"{"items":[{"type":"number"}],"additionalItems":false}"#;
    let bound = r#"{"minimum":1,"exclusiveMinimum":true}"#;
    let named = "[score.references]\n\"https://example.com/b.json\" = \"b.json\"\n\"https://example.com/unused.json\" = \"unused.json\"\n";
    for (draft, a) in [("04", bound), ("04", tuple), ("06", tuple), ("07", tuple)] {
        let schema = format!(
            r#"{{"$schema":"http://json-schema.org/draft-{draft}/schema#","properties":{{"a":{{"$ref":"a.json"}},"b":{{"$ref":"https://example.com/b.json"}}}}}}"#
        );
        let folder = folder_with(&schema, named);
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        write("a.json", r#"{"allOf":[{"$ref":"deeper.json"}]}"#);
        write("deeper.json", a);
        write("b.json", tuple);
        // Nothing refers to it, so its fault is nobody's.
        write("unused.json", r#"{"type":"nummer"}"#);
        let scorer = Scorer::new(&Task::load(folder.path()).unwrap())
            .unwrap_or_else(|error| panic!("draft {draft}: {error}"));
        assert_eq!(scorer.score(r#"{"b":[1]}"#, None).reward, 1.0);
        assert_eq!(scorer.score(r#"{"b":[1,2]}"#, None).reward, 0.5);
        let (good, bad) = if a == bound {
            ("2", "1")
        } else {
            ("[1]", "[\"x\"]")
        };
        assert_eq!(
            scorer.score(&format!(r#"{{"a":{good}}}"#), None).reward,
            1.0
        );
        assert_eq!(scorer.score(&format!(r#"{{"a":{bad}}}"#), None).reward, 0.5);
        // A draft of its own stands; a fault in a file that is used is named.
        write(
            "deeper.json",
            r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","prefixItems":[{"type":"number"}],"items":false}"#,
        );
        assert_eq!(
            Scorer::new(&Task::load(folder.path()).unwrap())
                .unwrap()
                .score(r#"{"a":[1,2]}"#, None)
                .reward,
            0.5
        );
        write("deeper.json", r#"{"type":"nummer"}"#);
        let complaint = Scorer::new(&Task::load(folder.path()).unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            complaint.contains("deeper.json line 1 column 9 (/type): \"nummer\" is not a type"),
            "{complaint}"
        );
    }
}

#[test]
fn a_file_has_one_name_however_it_is_written() {
    let folder = folder_with(
        "{}",
        "[prompts]\ntrain = \"./sets//train.jsonl\"\n[score.references]\n\"https://example.com/b.json\" = \"./b.json\"\n",
    );
    let toml = fs::read_to_string(folder.path().join("task.toml"))
        .unwrap()
        .replace("\"schema.json\"", "\"./schema.json\"");
    fs::write(folder.path().join("task.toml"), toml).unwrap();
    fs::write(folder.path().join("b.json"), "{}").unwrap();
    let task = Task::load(folder.path()).unwrap();
    assert_eq!(
        task.file_names(),
        ["task.toml", "schema.json", "b.json", "sets/train.jsonl"]
    );
    Scorer::new(&task).unwrap();
}

#[test]
fn references_are_on_stream_the_file_they_stand_in() {
    let folder = folder_with(
        r#"{"properties":{"a":{"$ref":"parts/line.json#/$defs/line"},"n":{"$ref":"parts/named"}}}"#,
        "",
    );
    let write = |file: &str, text: &str| {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    // `money.json` beside the schema is another file than the one beside `line.json`.
    write("money.json", r#"{"type":"null"}"#);
    write("parts/named", r#"{"type":"boolean"}"#);
    write(
        "parts/line.json",
        r#"{"$defs":{"line":{"properties":{"price":{"$ref":"money.json"},"unit":{"$ref":"../units/unit%20names.json"}}}}}"#,
    );
    write(
        "parts/money.json",
        r##"{"$ref":"#/$defs/amount","$defs":{"amount":{"type":"number"}}}"##,
    );
    write(
        "units/unit names.json",
        r#"{"enum":["kg"],"default":{"$ref":"nonesuch.json"}}"#,
    );
    let task = Task::load(folder.path()).unwrap();
    let scorer = Scorer::new(&task).unwrap();
    let reward = |completion: &str| scorer.score(completion, None).reward;
    assert_eq!(reward(r#"{"a":{"price":1.5,"unit":"kg"},"n":true}"#), 1.0);
    for wrong in [
        r#"{"a":{"price":null}}"#,
        r#"{"a":{"unit":"lb"}}"#,
        r#"{"n":1}"#,
    ] {
        assert_eq!(reward(wrong), 0.5, "{wrong}");
    }
    let names: Vec<&str> = task.file_names();
    assert_eq!(
        names,
        [
            "task.toml",
            "schema.json",
            "parts/line.json",
            "parts/money.json",
            "parts/named",
            "units/unit names.json"
        ]
    );
}

#[test]
fn references_stay_inside_the_folder_and_follow_ids() {
    let check =
        |schema: &str, files: &[(&str, &str)], lines: &str, expected: Result<&str, &str>| {
            let folder = folder_with(schema, lines);
            fs::create_dir_all(folder.path().join("parts")).unwrap();
            for (file, text) in files {
                fs::write(folder.path().join(file), text).unwrap();
            }
            let found = Task::load(folder.path())
                .map_err(|error| error.to_string())
                .and_then(|task| {
                    let scorer = Scorer::new(&task).map_err(|error| error.to_string())?;
                    let Some(Grammar::JsonSchema(files)) = task.grammar() else {
                        panic!("{}", task.kind())
                    };
                    Ok(format!(
                        "{} {}",
                        scorer.score("1", None).reward,
                        files
                            .references
                            .values()
                            .cloned()
                            .collect::<Vec<_>>()
                            .join(" ")
                    ))
                });
            let found = found.map_err(|complaint| {
                complaint.replace(&folder.path().display().to_string(), "DIR")
            });
            assert_eq!(
                found,
                expected.map(str::to_owned).map_err(str::to_owned),
                "{schema}"
            );
        };
    let outside = "is outside the task's folder; task files must be inside the task folder, so that a run can copy them: copy the file into the folder and name the copy";
    check(
        r#"{"$ref":"../x.json"}"#,
        &[],
        "",
        Err(&format!("DIR/schema.json: \"../x.json\" {outside}")),
    );
    let climbing = [("parts/a.json", r#"{"$ref":"../../../etc/x.json"}"#)];
    check(
        r#"{"$ref":"parts/a.json"}"#,
        &climbing,
        "",
        Err(&format!(
            "DIR/parts/a.json: \"../../../etc/x.json\" {outside}"
        )),
    );
    // A relative `$id` moves what is below it, and is itself no file.
    check(
        r#"{"$defs":{"a":{"$id":"parts/a.json","type":"number"}},"$ref":"parts/a.json"}"#,
        &[],
        "",
        Ok("1 "),
    );
    check(
        r#"{"$id":"parts/","$ref":"a.json"}"#,
        &[("parts/a.json", r#"{"type":"null"}"#)],
        "",
        Ok("0.5 parts/a.json"),
    );
    // An absolute one takes relative references with it: they are remote, unless they are named.
    check(
        r#"{"$id":"https://example.com/s.json","$ref":"a.json"}"#,
        &[("a.json", "{}")],
        "",
        Err(
            "DIR/schema.json line 1 column 44 (/$ref): remote `$ref` to https://example.com/a.json is refused: nothing is fetched from a network; save it in the task's folder and name it in task.toml: `[score.references]` \"https://example.com/a.json\" = \"FILE.json\"",
        ),
    );
    let named = "[score.references]\n\"https://example.com/a.json\" = \"parts/a.json\"\n";
    check(
        r#"{"$id":"https://example.com/s.json","$ref":"a.json"}"#,
        &[("parts/a.json", r#"{"type":"null"}"#)],
        named,
        Ok("0.5 parts/a.json"),
    );
    check(
        r#"{"$ref":"https://example.com/a.json"}"#,
        &[
            ("parts/a.json", r#"{"$ref":"b.json"}"#),
            ("parts/b.json", "{}"),
        ],
        named,
        Err(
            "DIR/schema.json line 1 column 1 (the whole schema): remote `$ref` to https://example.com/b.json is refused: nothing is fetched from a network; save it in the task's folder and name it in task.toml: `[score.references]` \"https://example.com/b.json\" = \"FILE.json\"",
        ),
    );
}

#[test]
fn a_name_is_the_nearest_workspaces_task_then_an_embedded_one() {
    let workspace = tempfile::tempdir().unwrap();
    let below = workspace.path().join("runs/deep");
    fs::create_dir_all(&below).unwrap();
    assert!(
        Task::resolve_from("invoice", &below)
            .unwrap()
            .folder()
            .is_none()
    );
    let own = workspace.path().join("tasks/invoice");
    fs::create_dir_all(&own).unwrap();
    for (name, bytes) in Task::embedded("invoice").unwrap().files().unwrap() {
        fs::write(own.join(name), bytes).unwrap();
    }
    let found = Task::resolve_from("invoice", &below).unwrap();
    assert_eq!(found.folder(), Some(own.as_path()));
    assert_eq!(found.digest(), Task::embedded("invoice").unwrap().digest());
    assert_eq!(
        Task::resolve_from("../../tasks/invoice", &below)
            .unwrap()
            .name,
        "invoice"
    );
    assert_eq!(
        Task::resolve_from("../../tasks/invoice/task.toml", &below)
            .unwrap()
            .name,
        "invoice"
    );
    for (text, complaint) in [
        ("invoise", "no task \"invoise\": did you mean `invoice`?"),
        (
            "zzz",
            "no task \"zzz\": known tasks: invoice, sql, tool-calls, shell-lint, py-functions, assistant; a task's folder can be named by its path",
        ),
        (
            "./zzz",
            "no task \"./zzz\": no such folder; `grpo-tui init DIR` makes a workspace with a task to edit",
        ),
        (
            "../deep",
            "no task \"../deep\": the folder has no task.toml; `grpo-tui init DIR` makes a workspace with a task to edit",
        ),
    ] {
        assert_eq!(
            Task::resolve_from(text, &below).unwrap_err().to_string(),
            complaint
        );
    }
    let digest = found.digest();
    fs::write(own.join("schema.json"), "{}").unwrap();
    assert_ne!(Task::load(&own).unwrap().digest(), digest);
}

/// By the names that answers use, so that copies and edited rows keep their model.
#[test]
fn a_note_says_which_embedded_model_fits_a_task() {
    let samples = [
        ("invoice", "tiny"),
        ("sql", "tiny-sql"),
        ("tool-calls", "tiny-tools"),
        ("shell-lint", "tiny-shell"),
        ("py-functions", "tiny-python"),
        ("assistant", "tiny-assistant"),
    ];
    for (name, own) in samples {
        let task = Task::embedded(name).unwrap();
        assert_eq!(task.base_model(), own);
        assert_eq!(task.embedded_model_note("org/name"), None);
        for (sample, model) in samples {
            let note = task.embedded_model_note(model);
            assert_eq!(note.is_none(), model == own, "{name}, {model}");
            let says = [
                format!("`{model}`"),
                format!("`{sample}`"),
                format!("choose `{own}`"),
            ];
            assert!(
                note.iter()
                    .all(|note| says.iter().all(|part| note.contains(part))),
                "{note:?}"
            );
        }
    }
    let other = Task::template("classify").unwrap();
    assert!(
        other
            .embedded_model_note("tiny-sql")
            .unwrap()
            .ends_with("choose an instruct model")
    );
}

#[test]
fn the_embedded_tasks_are_whole() {
    for (name, files) in [
        ("sql", 6),
        ("tool-calls", 6),
        ("shell-lint", 5),
        ("py-functions", 5),
        ("assistant", 6),
    ] {
        let task = Task::embedded(name).unwrap();
        assert!(
            PromptSet::ALL
                .into_iter()
                .all(|set| !task.read(task.set_file(set).unwrap()).unwrap().is_empty())
        );
        assert_eq!(
            (task.name.as_str(), task.files().unwrap().len()),
            (name, files)
        );
    }
    let task = Task::embedded("invoice").unwrap();
    assert_eq!(
        (task.name.as_str(), task.system.as_deref(), task.thinking),
        ("invoice", Some("Answer with JSON only."), false)
    );
    for set in PromptSet::ALL {
        assert!(!task.read(task.set_file(set).unwrap()).unwrap().is_empty());
    }
    assert_eq!(task.files().unwrap().len(), 6);
}
