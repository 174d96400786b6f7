//! Answers in YAML and XML: read strictly, mapped to JSON, judged by the schema, with places in their own text.

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
fn xml_is_mapped_to_json_by_the_schema() {
    let scorer = scorer(SERVICE, "format = \"xml\"\nroot = \"service\"");
    let service = |inside: &str| format!("<service>{inside}</service>");
    for (text, value) in [
        (service("<name>a</name><ports>80</ports>"), json!({"name": "a", "ports": [80]})),
        (service("<ports>1</ports><name>12</name><ports>2</ports>"), json!({"name": "12", "ports": [1, 2]})),
        // A required list without an element is empty; one that is not required is missing.
        (service("<name>a</name>"), json!({"name": "a", "ports": []})),
        (service("<name/><replicas> 3\n</replicas>"), json!({"name": "", "replicas": 3, "ports": []})),
        (service("<name> a </name><ratio/><note/>"), json!({"name": " a ", "ratio": null, "note": null, "ports": []})),
        (
            service("<name>&lt;&amp;&#65;</name><public>true</public>"),
            json!({"name": "<&A", "public": true, "ports": []}),
        ),
        (service("<name><![CDATA[<b>]]></name><note>null</note>"), json!({"name": "<b>", "note": null, "ports": []})),
        (service("<name>&#x10FFFF;<![CDATA[&#xD800;]]></name>"), json!({"name": "\u{10FFFF}&#xD800;", "ports": []})),
        (
            "<?xml version=\"1.1\" encoding='utf-8' standalone='no' ?><service><name>a</name></service>".to_owned(),
            json!({"name": "a", "ports": []}),
        ),
        (service("<name>a<!-- b -->c</name><ratio>1.50</ratio>"), json!({"name": "ac", "ratio": 1.5, "ports": []})),
        (
            service("<name>a</name><env key=\"K\">v</env><env key='L'>2</env>"),
            json!({"name": "a", "ports": [], "env": [{"@key": "K", "#text": "v"}, {"@key": "L", "#text": "2"}]}),
        ),
        (
            service("<name>a</name><grid><item>1</item><item>2</item></grid><grid/>"),
            json!({"name": "a", "ports": [], "grid": [[1, 2], []]}),
        ),
        (
            "\n <?xml version=\"1.0\"?>\n<service id=\"7\" xmlns:x=\"u\"><name>a</name></service>\n".to_owned(),
            json!({"@id": 7, "name": "a", "ports": []}),
        ),
        ("<think>x</think><service><name>a</name></service>".to_owned(), json!({"name": "a", "ports": []})),
    ] {
        let score = scorer.score(&text, Some(&row_with(&json!({"expected": value}))));
        assert_eq!((score.exact, score.failure), (Some(true), None), "{text}\n{}", shown(&score));
    }
    // Without types, what spells a number, a boolean or nothing is one, and repeated elements are a list.
    let untyped = self::scorer("{}", "format = \"xml\"");
    let text = "<a><n>1</n><n>x</n><t>true</t><e/><m p='2'>x<i>y</i>z</m></a>";
    let value =
        json!({"n": [1, "x"], "t": true, "e": null, "m": {"@p": 2, "i": "y", "#text": "xz"}});
    assert_eq!(
        untyped
            .score(text, Some(&row_with(&json!({"expected": value}))))
            .exact,
        Some(true)
    );
}

#[test]
fn what_is_not_xml_is_refused_with_its_place() {
    let scorer = scorer(SERVICE, "format = \"xml\"\nroot = \"service\"");
    let deep = "<name>".repeat(600) + &"</name>".repeat(600);
    let deep = format!("<service>{deep}</service>");
    for (text, found) in [
        ("", "unparsable [other]; 1:1 the completion is empty"),
        ("No.", "unparsable [prose]; 1:1 no XML element in the text"),
        (
            "Here: <service><name>a</name></service>",
            "unparsable [prose]; 1:1 text before the XML element",
        ),
        (
            "<service><name>a</name></service>\nDone.",
            "unparsable [prose]; 2:1 text after the XML element",
        ),
        (
            "```xml\n<service><name>a</name></service>\n```",
            "unparsable [fence]; 1:1 Markdown fence before the XML element",
        ),
        (
            "<service><name>a</name>",
            "unparsable [truncated]; 1:24 the root node was opened but never closed",
        ),
        (
            "<service>\n é</servce>",
            "unparsable [syntax]; 2:3 expected 'service' tag, not 'servce'",
        ),
        (
            "<service><name>a & b</name></service>",
            "unparsable [syntax]; 1:18 malformed entity reference",
        ),
        (
            "<service>&nbsp;</service>",
            "unparsable [syntax]; 1:10 unknown entity reference 'nbsp'",
        ),
        (
            "<service><name>a&#xD800;</name></service>",
            "unparsable [syntax]; 1:17 the reference `&#xD800;` is to no character",
        ),
        (
            "<service id='&#1114112;'><!-- &#xD800; --></service>",
            "unparsable [syntax]; 1:14 the reference `&#1114112;` is to no character",
        ),
        (
            "<?xml version='2.0'?><service/>",
            "unparsable [syntax]; 1:1 the declaration has version=\"2.0\": write \"1.0\"",
        ),
        (
            "<?xml\nversion='1.'?><service/>",
            "unparsable [syntax]; 1:1 the declaration has version=\"1.\": write \"1.0\"",
        ),
        (
            "<?xml version='1.0' encoding='é'?><service/>",
            "unparsable [syntax]; 1:1 the declaration has encoding=\"é\": write \"UTF-8\"",
        ),
        (
            "<?xml version='1.0' standalone='maybe'?><service/>",
            "unparsable [syntax]; 1:1 the declaration has standalone=\"maybe\"",
        ),
        (
            "<service/><?XML version='1.0'?>",
            "unparsable [syntax]; 1:11 a declaration that does not begin the document",
        ),
        (
            "<!DOCTYPE a [<!ENTITY b 'c'>]><service>&b;</service>",
            "unparsable [syntax]; 1:1 a DTD is not read",
        ),
        (
            "<service id='1' id='2'/>",
            "unparsable [syntax]; 1:17 attribute 'id' is already defined",
        ),
        (
            "<answer><name>a</name></answer>",
            "unparsable [syntax]; 1:1 the root element is `answer`, not `service`",
        ),
        (
            "<think>hm",
            "unparsable [think leak]; 1:1 unclosed think block",
        ),
        (
            deep.as_str(),
            "unparsable [syntax]; 1:3076 nested deeper than 512 levels",
        ),
    ] {
        let score = scorer.score(text, None);
        assert!(
            shown(&score).starts_with(found),
            "{text}\n{}\n{found}",
            shown(&score)
        );
        assert_eq!(
            score.tolerant,
            text.contains("<name>a</name></service>"),
            "{text}"
        );
    }
}

#[test]
fn the_schema_judges_and_reasons_have_places_in_the_answer() {
    let check = |format: &str, text: &str, found: &str| {
        let scorer = scorer(SERVICE, &format!("format = \"{format}\"\ngraded = true"));
        let score = scorer.score(text, None);
        assert_eq!(shown(&score), found, "{text}");
        let credit = score.parts.get("graded").copied().unwrap_or_default();
        assert!(credit > 0.0 && credit < 1.0, "{credit}");
    };
    check(
        "yaml",
        "name: é\nports:\n  - 80\n  - http\n",
        "invalid [wrong type]; 4:5 expected integer, found string \"http\"",
    );
    check(
        "yaml",
        "name: a\nports: [1]\nextra: 1",
        "invalid [extra key]; 3:1 key not allowed: \"extra\"",
    );
    check(
        "yaml",
        "replicas: 0\nname: yes\nports: no\n",
        "invalid [other]; 1:11 0 is less than the minimum of 1; 3:8 expected array, found string \"no\"",
    );
    check(
        "yaml",
        "public: 0x1\nname: a",
        "invalid [missing key]; 1:1 missing key \"ports\"; 1:9 expected boolean, found number 1",
    );
    check(
        "xml",
        "<s><name>a</name>\n <replicas>\n  two</replicas></s>",
        "invalid [wrong type]; 3:3 expected integer, found string \"\\n  two\"",
    );
    check(
        "xml",
        "<s><ports>x</ports><name>a</name><name>b</name></s>",
        "invalid [wrong type]; 1:11 expected integer, found string \"x\"; 1:20 expected string, found array [\"a\", \"b\"]",
    );
    check(
        "xml",
        "<s><name>a</name><grid>x<item>1</item></grid></s>",
        "invalid [wrong type]; 1:18 expected array, found object {\"item\": 1, \"#text\": \"x\"}",
    );
    check(
        "xml",
        "<s no='1'><name>a</name></s>",
        "invalid [extra key]; 1:4 key not allowed: \"@no\"",
    );
}

#[test]
fn a_row_may_have_its_own_format_and_expected_is_written_in_it() {
    let scorer = scorer(SERVICE, "");
    let value = json!({"name": "true", "ratio": 0.5, "ports": [1, 2], "grid": [[1], []], "note": "a: \"b\"\n<c>", "env": [{"@key": "k", "#text": "no"}]});
    let row = |format: &str| row_with(&json!({"expected": value, "format": format}));
    for (format, text) in [
        ("json", value.to_string()),
        (
            "yaml",
            "name: \"true\"\nratio: 0.5\nports:\n  - 1\n  - 2\ngrid:\n  - - 1\n  - []\nnote: \"a: \\\"b\\\"\\n<c>\"\nenv:\n  - \"@key\": k\n    \"#text\": no".to_owned(),
        ),
        (
            "xml",
            "<answer>\n  <name>true</name>\n  <ratio>0.5</ratio>\n  <ports>1</ports>\n  <ports>2</ports>\n  <grid>\n    <item>1</item>\n  </grid>\n  <grid></grid>\n  <note>a: &quot;b&quot;\n&lt;c&gt;</note>\n  <env key=\"k\">no</env>\n</answer>".to_owned(),
        ),
    ] {
        let row = row(format);
        assert_eq!(scorer.expected_completion(&value, Some(&row)).as_deref(), Some(text.as_str()));
        assert_eq!(scorer.score(&text, Some(&row)).exact, Some(true), "{text}");
    }
    for (format, complaint) in [
        (
            json!({}),
            "no format: write `[score] format = \"yaml\"` or \"xml\", or give the row `format`",
        ),
        (
            json!({"format": "yml"}),
            "the row's `format` must be one of json, yaml, xml, not \"yml\"; did you mean `yaml`?",
        ),
        (
            json!({"format": 1}),
            "the row's `format` must be one of json, yaml, xml, not \"1\"",
        ),
    ] {
        assert_eq!(
            shown(&scorer.score("a: 1", Some(&row_with(&format)))),
            format!("unparsable [scorer error]; 1:1 {complaint}")
        );
    }
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_again(value in value()) {
        let wrapped = json!({"expected": {"$any": [{"$value": value}]}});
        for format in ["yaml", "json"] {
            let scorer = scorer("{}", &format!("format = {format:?}"));
            let text = scorer.expected_completion(&wrapped["expected"], None).unwrap();
            let score = scorer.score(&text, Some(&row_with(&wrapped)));
            proptest::prop_assert_eq!(score.exact, Some(true), "{}\n{}\n{}", &value, text, shown(&score));
        }
        // In XML the schema says which texts are strings.
        let text = json!({"a": value.to_string()});
        let scorer = scorer(r#"{"properties": {"a": {"type": "string"}}}"#, "format = \"xml\"");
        let written = scorer.expected_completion(&text, None).unwrap();
        let score = scorer.score(&written, Some(&row_with(&json!({"expected": text}))));
        proptest::prop_assert_eq!(score.exact, Some(true), "{}", written);
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
        "task.toml line 5 column 10: `score.format` must be one of json, yaml, xml, not \"toml\"",
    );
    check(
        "format = \"yaml\"\nroot = \"a\"",
        "task.toml line 6 column 8: `score.root` names the root element of XML",
    );
    check(
        "format = \"xml\"\nroot = \"1 a\"",
        "task.toml line 6 column 8: `score.root` must be a name of XML",
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
