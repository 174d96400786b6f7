//! The parts `grounded` and `length`, and parts that count only after the tier is valid, by hand-computed shares.

use grpo_tui::dataset::PromptRow;
use grpo_tui::score::audit::audit;
use grpo_tui::score::{Scorer, Task};

use super::{folder_with, loaded, row, row_of};
use crate::program::{call, json_lines};

const GROUNDED: &str = "[[reward]]\npart = \"grounded\"\nweight = 1.0\n";

/// A row whose user says that; the system text is no source.
fn asked(prompt: &str) -> PromptRow {
    let mut row = row("{}");
    row.expected = None;
    for (role, content) in [
        ("system", "For example Acme, 77 and 2020-02-02."),
        ("user", prompt),
    ] {
        row.messages.push(
            serde_json::from_value(serde_json::json!({"role": role, "content": content})).unwrap(),
        );
    }
    row
}

fn scorer(schema: &str, lines: &str) -> Scorer {
    Scorer::new(&Task::load(folder_with(schema, lines).path()).unwrap()).unwrap()
}

const INVOICE: &str = r##"{"type":"object","properties":{
    "vendor":{"type":["string","null"]},"date":{"type":["string","null"],"format":"date"},"amount":{"type":["number","null"]},
    "tax":{"type":["number","null"]},"paid":{"type":"boolean"},"kind":{"enum":["invoice","receipt",null]},
    "order":{"type":["string","null"],"pattern":"^PO-[0-9]+$"},"lines":{"type":"array","items":{"type":"object",
    "properties":{"name":{"type":"string"},"count":{"type":"integer"}}}},"ship":{"$ref":"#/$defs/place"}},
    "$defs":{"place":{"type":"object","properties":{"city":{"type":"string"}}}}}"##;

const PROMPT: &str =
    "Gröner  Books\nOy, 11 March 2024\n2 x soap, 2 x rope\nTotal: 1.249,50 EUR, 7 % discount";

/// The same values in another notation, with places in their own text.
#[test]
fn values_of_yaml_are_looked_for_too() {
    let lines = format!("[score]\nkind = \"structured\"\n{GROUNDED}");
    let answer = "vendor: Gröner Books\ndate: 2024-03-12\namount: 1249.50\n";
    let score = scorer(INVOICE, &lines).score(answer, Some(&asked(PROMPT)));
    assert!((score.parts.get("grounded").unwrap() - 2.0 / 3.0).abs() < 1e-9);
    let mut reasons = score.errors.iter();
    let reason = reasons
        .find(|reason| reason.instance_path == "/date")
        .unwrap();
    assert_eq!((reason.line, reason.column), (2, 7), "{reason:?}");
}

#[test]
fn the_share_of_values_that_the_prompt_states() {
    let scorer = scorer(INVOICE, GROUNDED);
    for (answer, share) in [
        (
            r#"{"vendor":"gröner books oy","date":"2024-03-11","amount":1249.5}"#,
            1.0,
        ),
        (
            r#"{"vendor":"Gröner Books","date":"2024-03-12","amount":1249.0}"#,
            1.0 / 3.0,
        ),
        // Not in the prompt of the user, but in the system text.
        (r#"{"vendor":"Acme","amount":77,"date":"2020-02-02"}"#, 0.0),
        // A part of a word is not a word.
        (r#"{"vendor":"Book"}"#, 0.0),
        (r#"{"tax":0.07}"#, 1.0),
        (r#"{"vendor":"1249.50"}"#, 1.0),
        // Booleans are not counted, nor values of a closed list of which the prompt has none.
        (r#"{"amount":1249.5,"paid":true,"kind":"invoice"}"#, 1.0),
        (r#"{"paid":true}"#, 0.0),
        // Lists.
        (
            r#"{"lines":[{"name":"soap","count":2},{"name":"rope","count":2}]}"#,
            1.0,
        ),
        (
            r#"{"lines":[{"name":"soap","count":2},{"name":"rope","count":3}]}"#,
            0.75,
        ),
        (r#"{"ship":{"city":"Oslo"},"amount":1249.5}"#, 0.5),
        // Traps: one value copied everywhere, empty lists, nothing at all.
        (r#"{"vendor":"soap","ship":{"city":"soap"}}"#, 0.5),
        (r#"{"amount":2,"tax":2,"lines":[{"count":2}]}"#, 2.0 / 3.0),
        (
            r#"{"vendor":"rope","lines":[{"name":"rope"},{"name":"rope"}]}"#,
            1.0 / 3.0,
        ),
        (r#"{"vendor":"Gröner Books Oy","lines":[]}"#, 0.5),
        (
            r#"{"vendor":null,"date":null,"amount":null,"tax":null}"#,
            0.0,
        ),
        (r#"{"vendor":"","lines":[]}"#, 0.0),
        ("{}", 0.0),
        ("no JSON", 0.0),
        // Nothing is right where the prompt has nothing that the field could hold.
        (r#"{"order":null}"#, 1.0),
        (r#"{"kind":null}"#, 1.0),
        (
            r#"{"date":"2024-03-11","amount":1249.5,"tax":null}"#,
            2.0 / 3.0,
        ),
    ] {
        let score = scorer.score(answer, Some(&asked(PROMPT)));
        let found = *score.parts.get("grounded").unwrap();
        assert!(
            (found - share).abs() < 1e-12,
            "{answer}: {found}, {:?}",
            score.errors
        );
        assert!((score.reward - score.parts.get("tier").unwrap() - share).abs() < 1e-12);
    }
    // All numbers and dates are stated: nothing is left for the others.
    let told = asked("5 apples");
    for (answer, share) in [
        (r#"{"amount":5,"tax":null,"date":null}"#, 1.0),
        (r#"{"amount":null,"tax":null,"date":null}"#, 1.0 / 3.0),
    ] {
        assert_eq!(
            scorer.score(answer, Some(&told)).parts.get("grounded"),
            Some(&share),
            "{answer}"
        );
    }
    let listed = asked("A receipt, PO-7");
    for (answer, share) in [
        (r#"{"kind":"receipt"}"#, 1.0),
        (r#"{"kind":"invoice"}"#, 0.0),
        (r#"{"kind":null,"order":null}"#, 0.0),
    ] {
        assert_eq!(
            scorer.score(answer, Some(&listed)).parts.get("grounded"),
            Some(&share),
            "{answer}"
        );
    }
    assert_eq!(
        scorer.score("{}", None).parts.get("grounded"),
        None,
        "without a prompt it is not known"
    );
}

#[test]
fn values_have_their_places_in_prompt_and_completion() {
    let score = scorer(INVOICE, GROUNDED).score(
        "{\n \"amount\": 1249.5, \"vendor\": \"Acme\"}",
        Some(&asked(PROMPT)),
    );
    let place = &score.grounded[0];
    let value: String = place
        .prompt
        .excerpt
        .chars()
        .skip(place.prompt.start)
        .take(place.prompt.length)
        .collect();
    assert_eq!(
        (place.instance_path.as_str(), place.line, place.column),
        ("/amount", 2, 12)
    );
    assert_eq!(
        (
            place.prompt.message,
            place.prompt.line,
            place.prompt.column,
            &*value
        ),
        (1, 4, 8, "1.249,50")
    );
    let [missing] = score.errors.as_slice() else {
        panic!("{:?}", score.errors)
    };
    assert_eq!(
        (
            &*missing.message,
            &*missing.instance_path,
            missing.line,
            missing.column
        ),
        ("not in the prompt", "/vendor", 2, 30)
    );
    assert_eq!((score.tier.name(), score.failure), ("valid", None));
}

#[test]
fn excepted_fields_are_not_counted() {
    let except = |paths: &str| format!("[score.grounded]\nexcept = [{paths}]\n{GROUNDED}");
    let answer = r#"{"amount":1249.5,"vendor":"Acme","lines":[{"name":"y","count":9}]}"#;
    for (paths, share) in [
        ("", 0.25),
        ("\"vendor\"", 1.0 / 3.0),
        ("\"vendor\", \"lines.name\"", 0.5),
        ("\"vendor\", \"lines\"", 1.0),
    ] {
        let score = scorer(INVOICE, &except(paths)).score(answer, Some(&asked(PROMPT)));
        assert_eq!(score.parts.get("grounded"), Some(&share), "{paths}");
    }
    let toml = |lines: &str| format!("name = \"t\"\nschema = \"s.json\"\n{lines}");
    for (lines, expected) in [
        (
            except("\"vender\""),
            "task.toml line 4 column 10: `score.grounded.except` names no field of answers: \"vender\"; did you mean `vendor`?",
        ),
        (
            except("\"ship.town\""),
            "task.toml line 4 column 10: `score.grounded.except` names no field of answers: \"ship.town\"; did you mean `ship`?",
        ),
        (
            except("\"x.y.z.w\""),
            "task.toml line 4 column 10: `score.grounded.except` names no field of answers: \"x.y.z.w\"; fields: amount, date, kind",
        ),
        (
            except("7"),
            "task.toml line 4 column 10: `score.grounded.except` must be a list of strings",
        ),
    ] {
        let error = loaded(&[("task.toml", &toml(&lines)), ("s.json", INVOICE)]).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    let error = loaded(&[(
        "task.toml",
        &format!("name = \"t\"\n[score]\nkind = \"text\"\n{GROUNDED}"),
    )])
    .unwrap_err();
    assert!(
        error.starts_with(
            "task.toml line 5 column 8: `reward.part` \"grounded\" looks for values of answers"
        ),
        "{error}"
    );
}

#[test]
fn arguments_of_calls_and_bodies_of_requests_are_grounded() {
    let tools = r#"[{"name":"pay","parameters":{"type":"object","properties":{"to":{"type":"string"},"sum":{"type":"number"},"memo":{"type":"string"}}}}]"#;
    let toml = format!(
        "name = \"t\"\n[score]\nkind = \"tool_calls\"\ntools = \"t.json\"\n[score.grounded]\nexcept = [\"pay.memo\"]\n{GROUNDED}"
    );
    let (_folder, _, scorer) = loaded(&[("task.toml", &toml), ("t.json", tools)]).unwrap();
    let asked = asked("Pay Ana 12,50, and Bo 3.");
    for (arguments, share) in [
        (r#"{"to":"Ana","sum":12.5,"memo":"x"}"#, 1.0),
        (r#"{"to":"Eve","sum":12.5}"#, 0.5),
        (r#"{}"#, 0.0),
    ] {
        let hermes =
            format!("<tool_call>\n{{\"name\": \"pay\", \"arguments\": {arguments}}}\n</tool_call>");
        let openai = format!(
            "{{\"tool_calls\":[{{\"function\":{{\"name\":\"pay\",\"arguments\":{}}}}}]}}",
            serde_json::json!(arguments)
        );
        for answer in [hermes, openai] {
            let score = scorer.score(&answer, Some(&asked));
            assert_eq!(
                score.parts.get("grounded"),
                Some(&share),
                "{answer}: {:?}",
                score.errors
            );
            for value in &score.grounded {
                let line = answer.lines().nth(value.line - 1).unwrap();
                let rest: String = line.chars().skip(value.column - 1).take(6).collect();
                assert!(
                    rest.contains("Ana") || rest.contains("12.5"),
                    "{rest} of {answer}"
                );
            }
        }
    }
    let document = r#"{"openapi":"3.1.0","info":{"title":"t","version":"1"},"paths":{"/a":{"post":{"parameters":[{"name":"n","in":"query","schema":{"type":"integer"}}],
        "requestBody":{"content":{"application/json":{"schema":{"type":"object","properties":{"to":{"type":"string"}}}}}},"responses":{}}}}}"#;
    let toml = format!(
        "name = \"t\"\n[score]\nkind = \"http_request\"\nopenapi = \"o.json\"\n[score.grounded]\nexcept = [\"query.n\"]\n{GROUNDED}"
    );
    let (_folder, _, scorer) = loaded(&[("task.toml", &toml), ("o.json", document)]).unwrap();
    let score = scorer.score(
        r#"{"method":"POST","path":"/a","query":{"n":4},"body":{"to":"Ana"}}"#,
        Some(&asked),
    );
    assert_eq!(
        (score.tier.name(), score.parts.get("grounded")),
        ("valid", Some(&1.0)),
        "{:?}",
        score.errors
    );
    assert_eq!(score.grounded[0].instance_path, "/body/to");
}

#[test]
fn degenerate_answers_earn_little() {
    let schema = r#"{"type":"object","required":["a","b","c","n","l"],"additionalProperties":false,"properties":{
        "a":{"type":["string","null"]},"b":{"type":["string","null"]},"c":{"type":["string","null"]},"n":{"type":["number","null"]},"l":{"type":"array","items":{"type":"string"}}}}"#;
    let folder = folder_with(schema, GROUNDED);
    let task = Task::load(folder.path()).unwrap();
    let rows = [
        asked("the cat and the dog and the 3 birds: 3"),
        asked("the one of the 5: the one"),
    ];
    let findings = audit(&task, &Scorer::new(&task).unwrap(), &rows);
    let reward = |name: &str| {
        findings
            .iter()
            .find(|finding| finding.name == name)
            .unwrap()
            .reward
    };
    // Two of the texts, and the number.
    assert_eq!(
        reward("one value of the prompt in every field"),
        1.0 + 3.0 / 5.0
    );
    assert_eq!(reward("every value null"), 0.5);
    assert_eq!(reward("empty strings and zeros"), 1.0);
    assert_eq!(reward("an empty object"), 0.5);
    assert!(findings.iter().all(|finding| !finding.weak), "{findings:?}");
}

#[test]
fn a_part_after_valid_is_0_before() {
    let schema = r#"{"type":"object","required":["a"]}"#;
    let lines = "[[reward]]\npart = \"fields\"\nweight = 2.0\nafter = \"valid\"\n[[reward]]\npart = \"length\"\nmax = 20\nbuffer = 10\nunit = \"bytes\"\nweight = 1.0\nafter = \"valid\"\n[[reward]]\nname = \"own\"\nkind = \"regex\"\npattern = \"a\"\nweight = 1.0\nafter = \"valid\"\n";
    let scorer = scorer(schema, lines);
    let row = row(r#"{"a":1,"b":2}"#);
    for (answer, reward, parts) in [
        (
            r#"{"a":1,"b":2}"#,
            1.0 + 2.0 + 0.7 + 1.0,
            r#"{"tier":1.0,"fields":1.0,"length":0.7,"own":1.0}"#,
        ),
        (
            r#"{"b":2}"#,
            0.5,
            r#"{"tier":0.5,"fields":0.0,"length":0.0,"own":0.0}"#,
        ),
        (
            "a",
            0.0,
            r#"{"tier":0.0,"fields":0.0,"length":0.0,"own":0.0}"#,
        ),
    ] {
        for score in [
            scorer.score(answer, Some(&row)),
            scorer.score_all(&[(answer, Some(&row))]).remove(0),
        ] {
            assert!(
                (score.reward - reward).abs() < 1e-12,
                "{answer}: {}",
                score.reward
            );
            assert_eq!(serde_json::to_string(&score.parts).unwrap(), parts);
        }
    }
    // Without an expected answer nothing is compared, valid or not.
    assert_eq!(scorer.score("a", None).parts.get("fields"), None);
}

#[test]
fn a_program_after_valid_is_asked_of_valid_answers_only() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let toml = "name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"regex\"\npattern = '^a'\n[[reward]]\nname = \"own\"\nkind = \"command\"\nmode = \"exit_code\"\ncommand = [\"sh\", \"check.sh\"]\nweight = 0.5\nafter = \"valid\"\n";
    std::fs::write(here.join("task.toml"), toml).unwrap();
    // 3 is no exit code of a scorer: asked of an invalid answer, it would be an error.
    std::fs::write(
        here.join("check.sh"),
        "read line; case $line in aa) exit 0;; a*) exit 1;; *) exit 3;; esac\n",
    )
    .unwrap();
    let lines = ["b", "aa", "c", "ab"].map(|text| format!("{{\"completion\":\"{text}\"}}\n"));
    std::fs::write(here.join("c.jsonl"), lines.concat()).unwrap();
    assert!(
        call(here, &["task", "trust", ".", "--yes"])
            .status
            .success()
    );
    let scores = json_lines(&call(here, &["score", ".", "--json"]));
    let found: Vec<(f64, f64)> = scores
        .iter()
        .map(|score| {
            (
                score["reward"].as_f64().unwrap(),
                score["parts"]["own"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, [(0.5, 0.0), (1.5, 1.0), (0.5, 0.0), (1.25, 0.5)]);
}

#[test]
fn lengths_in_bytes_are_known_of_a_text_and_keys_are_checked() {
    let of = |lines: &str| {
        loaded(&[(
            "task.toml",
            &format!(
                "name = \"t\"\n[score]\nkind = \"text\"\n[[reward]]\npart = \"length\"\nweight = 1\n{lines}"
            ),
        )])
    };
    let (_folder, _, scorer) = of("target = 4\nunit = \"bytes\"").unwrap();
    for (answer, value) in [
        ("abcd", 1.0),
        ("ä", 0.5),
        ("abcdef", 0.5),
        ("abcdefghi", 0.0),
    ] {
        assert_eq!(
            scorer.score(answer, Some(&row_of(""))).parts.get("length"),
            Some(&value),
            "{answer}"
        );
    }
    for (lines, expected) in [
        (
            "",
            "task.toml line 5 column 8: `reward.part` \"length\" needs either `max`",
        ),
        (
            "max = 9\ntarget = 4",
            "task.toml line 5 column 8: `reward.part` \"length\" needs either `max`",
        ),
        (
            "max = 9\nbuffer = 10",
            "task.toml line 8 column 10: `reward.buffer` must be at most `max` = 9, not 10",
        ),
        (
            "max = 0",
            "task.toml line 7 column 7: `reward.max` must be at least 1, not 0",
        ),
        (
            "max = 9\nunit = \"words\"",
            "task.toml line 8 column 8: `reward.unit` takes \"tokens\" or \"bytes\", not \"words\"",
        ),
        (
            "max = 9\nafter = \"invalid\"",
            "task.toml line 8 column 9: `reward.after` takes \"valid\", not \"invalid\"",
        ),
    ] {
        let error = of(lines).map(|_| ()).unwrap_err();
        assert!(error.starts_with(expected), "{lines}: {error}");
    }
}
