//! Answers in YAML: read strictly, mapped to JSON, judged by the schema, with places in their own text.

use grpo_tui::prompts::{CheckedSet, data_problems};
use grpo_tui::score::{Scorer, Task, audit};
use grpo_tui::task::PromptSet;
use serde_json::{Value, json};

use super::{loaded, row_with, shown};

const SERVICE: &str = r##"{
  "type": "object",
  "properties": {
    "name": {"type": "string"},
    "replicas": {"type": "integer", "minimum": 1},
    "ratio": {"type": ["number", "null"]},
    "public": {"type": "boolean"},
    "ports": {"type": "array", "items": {"type": "integer"}},
    "env": {"type": "array", "items": {"$ref": "#/$defs/variable"}},
    "grid": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    "note": {"type": ["string", "null"]},
    "@id": {"type": "integer"}
  },
  "required": ["name", "ports"],
  "additionalProperties": false,
  "$defs": {"variable": {"type": "object", "properties": {"@key": {"type": "string"}, "#text": {"type": "string"}}, "required": ["@key", "#text"]}}
}"##;

fn scorer(schema: &str, lines: &str) -> Scorer {
    let toml = format!(
        "name = \"sample\"\nschema = \"schema.json\"\n[score]\nkind = \"structured\"\n{lines}"
    );
    loaded(&[("task.toml", &toml), ("schema.json", schema)])
        .unwrap()
        .2
}

/// Every value that the core schema has, against the specification's examples in `docs` of YAML 1.2.2, 10.3.
#[test]
fn yaml_is_read_by_its_core_schema() {
    let scorer = scorer("{}", "format = \"yaml\"");
    for (text, value) in [
        (
            "a: 1\nb: [x, {c: y}]\n",
            json!({"a": 1, "b": ["x", {"c": "y"}]}),
        ),
        ("--- # comment\na: 1\n...\n", json!({"a": 1})),
        ("%YAML 1.2\n---\na", json!("a")),
        (
            "- ~\n- null\n- Null\n-\n- \"null\"\n",
            json!([null, null, null, null, "null"]),
        ),
        (
            "[true, True, FALSE, yes, 'true']",
            json!([true, true, false, "yes", "true"]),
        ),
        (
            "[0, -0, 007, +12, 0o14, 0xC, 1_000, 0b1]",
            json!([0, 0, 7, 12, 12, 12, "1_000", "0b1"]),
        ),
        (
            "[1., .5, -.5, 12e03, 1E-2, +1.50, ., 1e, e3]",
            json!([1, 0.5, -0.5, 12000, 0.01, 1.5, ".", "1e", "e3"]),
        ),
        ("[0x, 0xG, -0x1, 0o8]", json!(["0x", "0xG", "-0x1", "0o8"])),
        ("100000000000000000000000000000", json!(1e29)),
        (
            "1: a\ntrue: b\n? null\n: c\n",
            json!({"1": "a", "true": "b", "null": "c"}),
        ),
        (
            "a: |\n  x\n   y\n\nb: >-\n  p\n  q\n",
            json!({"a": "x\n y\n", "b": "p q"}),
        ),
        (
            "a: \"\\u263A \\x41\\n\"\nb: 'it''s'",
            json!({"a": "\u{263A} A\n", "b": "it's"}),
        ),
        ("2024-03-11", json!("2024-03-11")),
        ("{a: 1, <<: 2}", json!({"a": 1, "<<": 2})),
        ("[]", json!([])),
        (
            "a:\n- 1\n- b: 2\n  c: 3\n",
            json!({"a": [1, {"b": 2, "c": 3}]}),
        ),
        (
            "{\"a\": [1, 2.50, null, \"x\"]}",
            json!({"a": [1, 2.5, null, "x"]}),
        ),
        ("<think>a: 1</think>\n\na: 2\n", json!({"a": 2})),
    ] {
        let expected = json!({"expected": {"$any": [{"$value": value}]}});
        let score = scorer.score(text, Some(&row_with(&expected)));
        assert_eq!(score.exact, Some(true), "{text}\n{}", shown(&score));
    }
}

#[test]
fn what_is_not_yaml_is_refused_with_its_place() {
    let scorer = scorer(SERVICE, "format = \"yaml\"");
    let deep = "- ".repeat(600);
    for (text, found) in [
        ("", "unparsable [other]; 1:1 the completion is empty"),
        (
            "# nothing\n",
            "unparsable [other]; 2:1 the completion is empty",
        ),
        (
            "name: a\nname: b\n",
            "unparsable [syntax]; 2:1 duplicate key \"name\": it is also at line 1 column 1",
        ),
        (
            "x: {é: 1, 'é': 2}",
            "unparsable [syntax]; 1:11 duplicate key \"é\": it is also at line 1 column 5",
        ),
        (
            "name: !!str a",
            "unparsable [syntax]; 1:7 the tag tag:yaml.org,2002:!str is not read: write the value without it",
        ),
        (
            "name: &a b",
            "unparsable [syntax]; 1:7 an anchor is not read: write the value without it",
        ),
        (
            "a: &x [1]\nb: *x",
            "unparsable [syntax]; 1:4 an anchor is not read: write the value without it",
        ),
        ("[a]: 1", "unparsable [syntax]; 1:1 a key must be a scalar"),
        (
            "name: .inf",
            "unparsable [syntax]; 1:7 infinity has no value in JSON",
        ),
        (
            "[1, -.INF, .nan]",
            "unparsable [syntax]; 1:5 infinity has no value in JSON",
        ),
        (
            "name: .NaN",
            "unparsable [syntax]; 1:7 not a number has no value in JSON",
        ),
        (
            "name: a\n--- \nname: b",
            "unparsable [prose]; 2:1 a second YAML document after the first",
        ),
        (
            "name: 'a",
            "unparsable [truncated]; 1:7 while scanning a quoted scalar, found unexpected end of stream",
        ),
        (
            "name: [a, ",
            "unparsable [truncated]; 1:11 while parsing a node, did not find expected node content",
        ),
        ("name:\n\t- a", "unparsable [syntax]; 2:2 tabs disallowed"),
        (
            "I cannot do that.",
            "unparsable [prose]; 1:1 no YAML mapping or sequence in the text",
        ),
        (
            "<think>hm",
            "unparsable [think leak]; 1:1 unclosed think block",
        ),
        (
            deep.as_str(),
            "unparsable [syntax]; 1:1025 nested deeper than 512 levels",
        ),
        (
            "```yaml\nname: a\nports: []\n```",
            "unparsable [fence]; 1:1 Markdown fence before the YAML document",
        ),
        (
            "Sure:\n```\nname: a\nports: []\n```\nDone",
            "unparsable [fence]; 2:1 unexpected character: ``'",
        ),
    ] {
        let score = scorer.score(text, None);
        assert!(
            shown(&score).starts_with(found),
            "{text}\n{}\n{found}",
            shown(&score)
        );
        assert_eq!(score.tolerant, text.contains("```"), "{text}");
    }
}

#[test]
fn the_schema_judges_and_reasons_have_places_in_the_answer() {
    let check = |text: &str, found: &str| {
        let scorer = scorer(SERVICE, "graded = true");
        let score = scorer.score(text, None);
        assert_eq!(shown(&score), found, "{text}");
        let credit = score.parts.get("graded").copied().unwrap_or_default();
        assert!(credit > 0.0 && credit < 1.0, "{credit}");
    };
    check(
        "name: é\nports:\n  - 80\n  - http\n",
        "invalid [wrong type]; 4:5 expected integer, found string \"http\"",
    );
    check(
        "name: a\nports: [1]\nextra: 1",
        "invalid [extra key]; 3:1 key not allowed: \"extra\"",
    );
    check(
        "replicas: 0\nname: yes\nports: no\n",
        "invalid [other]; 1:11 0 is less than the minimum of 1; 3:8 expected array, found string \"no\"",
    );
    check(
        "public: 0x1\nname: a",
        "invalid [missing key]; 1:1 missing key \"ports\"; 1:9 expected boolean, found number 1",
    );
}

#[test]
fn expected_is_written_and_what_is_not_yaml_is_named() {
    let scorer = scorer(SERVICE, "");
    let value = json!({"name": "true", "ratio": 0.5, "ports": [1, 2], "grid": [[1], []], "note": "a: \"b\"\n<c>", "env": [{"@key": "k", "#text": "no"}]});
    let text = "name: \"true\"\nratio: 0.5\nports:\n  - 1\n  - 2\ngrid:\n  - - 1\n  - []\nnote: \"a: \\\"b\\\"\\n<c>\"\nenv:\n  - \"@key\": k\n    \"#text\": no";
    for format in [json!(null), json!("yaml")] {
        let row = row_with(&json!({"expected": value, "format": format}));
        let written = scorer.expected_completion(&value, Some(&row));
        assert_eq!(written.as_deref(), Some(text));
        assert_eq!(scorer.score(text, Some(&row)).exact, Some(true), "{text}");
    }
    for (format, complaint) in [
        (
            json!("xml"),
            "not \"xml\": score it by a function that reads it, `kind = \"python\"`",
        ),
        (
            json!("json"),
            "not \"json\": write `kind = \"json_schema\"`",
        ),
        (json!(1), "not \"1\": write \"yaml\""),
    ] {
        assert_eq!(
            shown(&scorer.score("a: 1", Some(&row_with(&json!({"format": format}))))),
            format!(
                "unparsable [scorer error]; 1:1 the row's `format` takes \"yaml\", {complaint}"
            )
        );
    }
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_again(value in value()) {
        let wrapped = json!({"expected": {"$any": [{"$value": value}]}});
        let scorer = scorer("{}", "");
        let text = scorer.expected_completion(&wrapped["expected"], None).unwrap();
        let score = scorer.score(&text, Some(&row_with(&wrapped)));
        proptest::prop_assert_eq!(score.exact, Some(true), "{}\n{}\n{}", &value, text, shown(&score));
    }
}

fn value() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(|number: f64| json!(number)),
        "[ -~é\\n\\t\u{85}\u{feff}]{0,12}".prop_map(Value::from),
        "[a-zA-Z0-9._+~-]{1,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[ -~é]{0,8}", inner), 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

#[test]
fn keys_of_the_task_are_checked() {
    let check = |lines: &str, complaint: &str| {
        let toml = format!(
            "name = \"t\"\nschema = \"schema.json\"\n[score]\nkind = \"structured\"\n{lines}"
        );
        let found = loaded(&[("task.toml", &toml), ("schema.json", "{}")])
            .map(|_| ())
            .unwrap_err();
        assert!(found.starts_with(complaint), "{found}");
    };
    check(
        "format = \"toml\"",
        "task.toml line 5 column 10: `score.format` takes \"yaml\", not \"toml\": write \"yaml\"",
    );
    check(
        "format = \"xml\"\nroot = \"a\"",
        "task.toml line 6 column 1: `score.root` was removed: XML is not read; score it by a function that reads it, `kind = \"python\"`",
    );
    check(
        "format = \"xml\"",
        "task.toml line 5 column 10: `score.format` takes \"yaml\", not \"xml\": score it by a function that reads it, `kind = \"python\"`",
    );
    check(
        "format = 1",
        "task.toml line 5 column 10: `score.format` must be a string in quotes",
    );
}

#[test]
fn the_template_is_audited_and_learned_from_in_its_notation() {
    let task = Task::template("yaml-config").unwrap();
    let scorer = Scorer::new(&task).unwrap();
    let rows = grpo_tui::dataset::load(&task, PromptSet::Train).unwrap();
    let answer = grpo_tui::prompts::reference_answer(&task, &scorer, &rows[0])
        .unwrap()
        .unwrap();
    assert_eq!(
        answer,
        "name: cart\nimage: \"shop/cart:2.4\"\nreplicas: 3\nports:\n  - 8080\nenv:\n  LOG_LEVEL: info"
    );
    assert_eq!(scorer.score(&answer, Some(&rows[0])).exact, Some(true));
    let sets = CheckedSet::all(&task, &scorer).unwrap();
    assert!(data_problems(&task, &scorer, &sets).is_empty());
    let findings = audit::audit(&task, &scorer, &rows);
    let least = findings
        .iter()
        .find(|finding| finding.name == "the minimum that the schema requires")
        .unwrap();
    assert!(
        least.completion.starts_with("name: ") && !least.weak,
        "{}",
        least.sentence
    );
}
