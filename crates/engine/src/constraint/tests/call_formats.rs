//! Tests of calls in model families' formats.

use super::*;
use crate::score::Scorer;

/// One tool per type of argument.
const TOOLS: &str = r#"[
  {"name": "pay", "parameters": {"type": "object", "required": ["to", "n"], "properties": {
    "to": {"type": "string"}, "n": {"type": "integer", "minimum": 1}, "when": {"enum": ["now", "later"]},
    "note": {"type": ["string", "null"]}, "tags": {"type": "array", "items": {"type": "string"}},
    "at": {"type": "object", "properties": {"h": {"type": "integer"}, "zone": {"type": "string"}}, "required": ["h"]}}}},
  {"name": "list"}]"#;

fn constraint(format: &str, instead: Instead, is_single: bool) -> (Constraint, Tokenizer) {
    let tools = serde_json::from_str(TOOLS).unwrap();
    let mut answer = Answer::calls(
        ("t.json", TOOLS),
        &tools,
        CallFormat::named(format).unwrap(),
        false,
    )
    .unwrap();
    if let Answer::Calls {
        instead: own,
        is_single: single,
        ..
    } = &mut answer
    {
        (*own, *single) = (instead, is_single);
    }
    compile(&answer, Reasoning::Off).unwrap()
}

#[test]
fn calls_are_taken_as_the_model_writes_them() {
    let xml = "<tool_call>\n<function=pay>\n<parameter=to>\nA \"B\"\n<C>\n</parameter>\n<parameter=n>\n7\n</parameter>\n";
    let end = "</function>\n</tool_call>";
    for (format, cases) in [
        (
            "qwen-xml",
            &[
                (&*format!("{xml}{end}"), "+"),
                (
                    &*format!("{xml}{end}\n<tool_call>\n<function=list>\n{end}"),
                    "+",
                ),
                (
                    &*format!(
                        "{xml}<parameter=when>\nnow\n</parameter>\n<parameter=note>\nnull\n</parameter>\n<parameter=tags>\n[\"a\"]\n</parameter>\n<parameter=at>\n{{\"h\": 1}}\n</parameter>\n{end}"
                    ),
                    "+",
                ),
                ("<tool_call>\n<function=x", "<tool_call>\n<function="),
                (&*xml.replace("7", "0"), xml.split('7').next().unwrap()),
                (
                    "<tool_call>\n<function=pay>\n</f",
                    "<tool_call>\n<function=pay>\n<",
                ),
                // A tag within a line would end the value.
                (
                    "<tool_call>\n<function=pay>\n<parameter=to>\nA</parameter>",
                    "<tool_call>\n<function=pay>\n<parameter=to>\nA</parameter",
                ),
                (
                    &*format!("{xml}<parameter=x"),
                    &*format!("{xml}<parameter="),
                ),
            ] as &[_],
        ),
        (
            "llama",
            &[
                (r#"{"name": "pay", "parameters": {"to": "A", "n": 7}}"#, "+"),
                (
                    r#"{"name": "list", "parameters": {}}; {"name": "list", "parameters": {}}"#,
                    "+",
                ),
                (r#"{"name": "list", "arguments""#, r#"{"name": "list", ""#),
            ],
        ),
        (
            "mistral",
            &[
                (
                    r#"[TOOL_CALLS][{"name": "list", "arguments": {}}, {"name": "pay", "arguments": {"to": "A", "n": 7}}]"#,
                    "+",
                ),
                ("[TOOL_CALLS][]", "[TOOL_CALLS]["),
                ("[{", "["),
            ],
        ),
        (
            "mistral-args",
            &[
                (
                    r#"[TOOL_CALLS]list[ARGS]{}[TOOL_CALLS]pay[ARGS]{"to": "A", "n": 7}"#,
                    "+",
                ),
                (r#"[TOOL_CALLS]list[ARGS]{"to"#, "[TOOL_CALLS]list[ARGS]{"),
            ],
        ),
        (
            "functiongemma",
            &[
                (
                    "<start_function_call>call:pay{to:<escape>A, {b}<escape>,n:7,note:null,tags:[<escape>x<escape>,<escape><escape>],at:{h:1,zone:<escape>CET<escape>}}<end_function_call>",
                    "+",
                ),
                (
                    "<start_function_call>call:pay{to:<escape>A<escape>,n:7,when:<escape>now<escape>}<end_function_call>",
                    "+",
                ),
                (
                    "<start_function_call>call:list{}<end_function_call><start_function_call>call:list{}<end_function_call>",
                    "+",
                ),
                (
                    "<start_function_call>call:pay{n",
                    "<start_function_call>call:pay{",
                ),
                (
                    "<start_function_call>call:pay{to:<escape>A<escape>,n:0",
                    "<start_function_call>call:pay{to:<escape>A<escape>,n:",
                ),
            ],
        ),
        (
            "gemma4",
            &[(
                r#"<|tool_call>call:pay{to:<|"|>A<|"|>,n:7}<tool_call|>"#,
                "+",
            )],
        ),
    ] {
        let (constraint, tokenizer) = constraint(format, Instead::Nothing, false);
        for (text, expected) in cases {
            assert_eq!(
                takes(&constraint, &tokenizer, text),
                *expected,
                "{format} {text}"
            );
        }
    }
}

#[test]
fn text_may_stand_around_calls_where_the_model_decides() {
    for (format, call) in [
        (
            "qwen-xml",
            "<tool_call>\n<function=list>\n</function>\n</tool_call>",
        ),
        ("mistral-args", "[TOOL_CALLS]list[ARGS]{}"),
        (
            "functiongemma",
            "<start_function_call>call:list{}<end_function_call>",
        ),
    ] {
        let (constraint, tokenizer) = constraint(format, Instead::Text, false);
        for text in [
            "",
            "No tool fits.",
            call,
            &format!("I look: {call}"),
            &format!("{call}{call} Done."),
        ] {
            assert_eq!(takes(&constraint, &tokenizer, text), "+", "{format} {text}");
        }
        let (constraint, tokenizer) = self::constraint(format, Instead::EmptyList, true);
        for (text, expected) in [("[]", "+"), (call, "+"), (&*format!("{call}{call}"), call)] {
            assert_eq!(
                takes(&constraint, &tokenizer, text),
                expected,
                "{format} {text}"
            );
        }
    }
    let (constraint, tokenizer) = constraint("llama", Instead::Text, false);
    for text in ["No {a}.", r#"{"name": "list", "parameters": {}}"#] {
        assert_eq!(takes(&constraint, &tokenizer, text), "+", "{text}");
    }
}

#[test]
fn what_a_constraint_allows_the_scorer_takes() {
    let folder = tempfile::tempdir().unwrap();
    // Random texts end soon.
    let tools = TOOLS
        .replace(
            "{\"type\": \"string\"}",
            "{\"type\": \"string\", \"maxLength\": 3}",
        )
        .replace("[\"string\", \"null\"]", "[\"boolean\", \"null\"]");
    std::fs::write(folder.path().join("tools.json"), tools).unwrap();
    for format in [
        "qwen-xml",
        "llama",
        "mistral",
        "mistral-args",
        "functiongemma",
        "gemma4",
    ] {
        let toml = format!(
            "name = \"t\"\n[score]\nkind = \"tool_calls\"\ntools = \"tools.json\"\ncall_format = \"{format}\"\n"
        );
        std::fs::write(folder.path().join("task.toml"), toml).unwrap();
        let task = Task::load(folder.path()).unwrap();
        let scorer = Scorer::new(&task).unwrap();
        let (constraint, tokenizer) =
            compile(&Answer::for_task(&task, None).unwrap(), Reasoning::Off).unwrap();
        let mut ended = 0;
        for walk in 0..60 {
            let Some(text) = sampled(&constraint, &tokenizer, walk) else {
                continue;
            };
            ended += 1;
            let score = scorer.score(&text, None);
            assert_eq!(
                score.tier.name(),
                "valid",
                "{format} {text}: {:?}",
                score.errors
            );
        }
        assert!(ended > 5, "{format}: {ended} of 60 have ended");
    }
}

#[test]
fn what_a_format_cannot_write_is_refused_with_its_place() {
    let check = |format: &str, schema: serde_json::Value, expected: &str| {
        let tools =
            json!([{"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}]);
        let answer = Answer::calls(
            ("t.json", &tools.to_string()),
            &tools,
            CallFormat::named(format).unwrap(),
            false,
        );
        let message = compile(&answer.unwrap(), Reasoning::Off)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(
        "qwen-xml",
        json!({"type": "string", "pattern": "a"}),
        "(/0/parameters/properties/a/pattern): cannot be enforced while decoding in this format of calls: `pattern` of a string",
    );
    check(
        "qwen-xml",
        json!({}),
        "(/0/parameters/properties/a): cannot be enforced while decoding in this format of calls: it has no `type`",
    );
    check(
        "gemma4",
        json!({"type": "object"}),
        "an object without `properties`",
    );
    check(
        "harmony",
        json!({"type": "string"}),
        "calls in the format \"harmony\" cannot be enforced",
    );
}
