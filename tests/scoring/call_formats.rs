//! Calls in the formats of model families. Texts marked vLLM are from vllm-project/vllm, `tests/tool_parsers` (Apache-2.0),
//! with functions renamed and shortened where they repeat; the other texts are ours.

use std::sync::LazyLock;

use grpo_tui::score::{AnswerPart, CallReader, Scorer};
use grpo_tui::text::CALL_FORMATS;
use proptest::prelude::*;

use super::{loaded, row_of, shown};

const TOOLS: &str = r#"[
  {"name": "get_current_weather", "parameters": {"type": "object", "required": ["city"],
    "properties": {"city": {"type": "string"}, "state": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}}}},
  {"name": "calculate_area", "parameters": {"type": "object", "properties": {"shape": {"type": "string"},
    "dimensions": {"type": "object"}, "precision": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}}}},
  {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}},
  {"name": "set_status", "parameters": {"type": "object", "properties": {"is_active": {"type": "boolean"}, "score": {"type": ["number", "null"]}}}},
  {"name": "clock"}
]"#;

fn scorer(format: &str) -> Scorer {
    let toml = format!(
        "name = \"sample\"\n[score]\nkind = \"tool_calls\"\ntools = \"tools.json\"\ncall_format = \"{format}\"\n[[reward]]\npart = \"exact\"\nweight = 0.5\n"
    );
    loaded(&[("task.toml", &toml), ("tools.json", TOOLS)])
        .unwrap()
        .2
}

const DALLAS: &str =
    r#"{"name": "get_current_weather", "arguments": {"city": "Dallas", "state": "TX"}}"#;

/// Completions of a format with the calls that they are.
const READ: &[(&str, &str, &str)] = &[
    // vLLM, test_qwen3coder_tool_parser.py.
    (
        "qwen-xml",
        "<tool_call>\n<function=get_current_weather>\n<parameter=city>\nDallas\n</parameter>\n<parameter=state>\nTX\n</parameter>\n</function>\n</tool_call>",
        DALLAS,
    ),
    (
        "qwen-xml",
        "<tool_call>\n<function=calculate_area>\n<parameter=shape>\nrectangle\n</parameter>\n<parameter=dimensions>\n{\"width\": 10, \n \"height\": 20}\n</parameter>\n<parameter=precision>\n2\n</parameter>\n</function>\n</tool_call>",
        r#"{"name": "calculate_area", "arguments": {"shape": "rectangle", "dimensions": {"width": 10, "height": 20}, "precision": 2}}"#,
    ),
    (
        "qwen-xml",
        "<tool_call>\n<function=set_status>\n<parameter=is_active>\ntrue\n</parameter>\n<parameter=score>\nnull\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=clock>\n</function>\n</tool_call>",
        r#"[{"name": "set_status", "arguments": {"is_active": true, "score": null}}, {"name": "clock", "arguments": {}}]"#,
    ),
    // A string is as it is written, line breaks, tags and all that looks like JSON included.
    (
        "qwen-xml",
        "<think>So.</think><tool_call><function=get_current_weather><parameter=city>\n12\n\"</think>\" <b>\n</parameter></function></tool_call>",
        r#"{"name": "get_current_weather", "arguments": {"city": "12\n\"</think>\" <b>"}}"#,
    ),
    (
        "qwen-xml",
        "<tool_call>\n<function=get_current_weather>\n<parameter=city>\n</parameter>\n</function>\n</tool_call>",
        r#"{"name": "get_current_weather", "arguments": {"city": ""}}"#,
    ),
    // A line break beside a tag is not part of the value, each by itself, nor is the indent of a closing tag.
    (
        "qwen-xml",
        "<tool_call>\n<function=get_current_weather>\n<parameter=city>\nDallas</parameter>\n<parameter=state>TX\n</parameter>\n</function>\n</tool_call>",
        DALLAS,
    ),
    (
        "qwen-xml",
        "<tool_call>\n  <function=get_current_weather>\n    <parameter=city>\nDallas\n    </parameter>\n    <parameter=state>TX</parameter>\n  </function>\n</tool_call>",
        DALLAS,
    ),
    (
        "qwen-xml",
        "<tool_call>\r\n<function=get_current_weather>\r\n<parameter=city>\r\nDallas\r\n</parameter>\r\n<parameter=state>\r\nTX</parameter>\r\n</function>\r\n</tool_call>",
        DALLAS,
    ),
    (
        "qwen-xml",
        "<tool_call>\n<function=get_current_weather>\n<parameter=city>\n\n  Dallas \n\n</parameter>\n<parameter=state>\n  \n</parameter>\n</function>\n</tool_call>",
        r#"{"name": "get_current_weather", "arguments": {"city": "\n  Dallas \n", "state": "  "}}"#,
    ),
    // vLLM, test_llama3_json_tool_parser.py.
    (
        "llama",
        r#"{"name": "add", "parameters": {"a": 3.5, "b": 4}}"#,
        r#"{"name": "add", "arguments": {"a": 3.5, "b": 4}}"#,
    ),
    (
        "llama",
        r#"{"name": "add", "arguments": {"a": 1}}"#,
        r#"{"name": "add", "arguments": {"a": 1}}"#,
    ),
    (
        "llama",
        r#"{"name": "add", "parameters": {"a": 1}} ; {"name": "clock", "parameters": {}}; {"name": "add", "parameters": {"b": 2}}"#,
        r#"[{"name": "add", "arguments": {"a": 1}}, {"name": "clock", "arguments": {}}, {"name": "add", "arguments": {"b": 2}}]"#,
    ),
    (
        "llama",
        "<|python_tag|>{\"name\": \"get_current_weather\", \"parameters\": {\"city\": \"He said \\\"Hello {world}\\\"\"}}",
        r#"{"name": "get_current_weather", "arguments": {"city": "He said \"Hello {world}\""}}"#,
    ),
    // vLLM, test_mistral_tool_parser.py.
    (
        "mistral",
        r#"[TOOL_CALLS][{"name": "add", "arguments":{"a": 3.5, "b": 4}}]"#,
        r#"{"name": "add", "arguments": {"a": 3.5, "b": 4}}"#,
    ),
    (
        "mistral",
        r#"[TOOL_CALLS] [{"arguments":{"city": "Dallas", "state": "TX"}, "name": "get_current_weather", "id": "a1b2c3d4e"}]"#,
        DALLAS,
    ),
    (
        "mistral",
        r#"[TOOL_CALLS]add{"a": 3.5, "b": 4}[TOOL_CALLS]add{"a": 3, "b": 6}"#,
        r#"[{"name": "add", "arguments": {"a": 3.5, "b": 4}}, {"name": "add", "arguments": {"a": 3, "b": 6}}]"#,
    ),
    (
        "mistral-args",
        r#"[TOOL_CALLS]add[ARGS]{"a": 3.5}"#,
        r#"{"name": "add", "arguments": {"a": 3.5}}"#,
    ),
    (
        "mistral-args",
        r#"[TOOL_CALLS]add[CALL_ID]a1b2c3d4e[ARGS]{"a": 3.5}[TOOL_CALLS]clock[ARGS]{}"#,
        r#"[{"name": "add", "arguments": {"a": 3.5}}, {"name": "clock", "arguments": {}}]"#,
    ),
    // vLLM, test_functiongemma_tool_parser.py.
    (
        "functiongemma",
        "<start_function_call>call:get_current_weather{city:<escape>San Francisco<escape>,unit:<escape>celsius<escape>}<end_function_call><start_function_call>call:clock{}<end_function_call>",
        r#"[{"name": "get_current_weather", "arguments": {"city": "San Francisco", "unit": "celsius"}}, {"name": "clock", "arguments": {}}]"#,
    ),
    // vLLM, test_gemma4_tool_parser.py.
    (
        "gemma4",
        r#"<|tool_call>call:calculate_area{shape:<|"|>a {b}, c<|"|>,dimensions:{inner:<|"|>value<|"|>},tags:[<|"|>a<|"|>,<|"|>b<|"|>]}<tool_call|>"#,
        r#"{"name": "calculate_area", "arguments": {"shape": "a {b}, c", "dimensions": {"inner": "value"}, "tags": ["a", "b"]}}"#,
    ),
    (
        "gemma4",
        "<|tool_call>call:set_status{is_active:true,score:3.14}<tool_call|>",
        r#"{"name": "set_status", "arguments": {"is_active": true, "score": 3.14}}"#,
    ),
    // vLLM, test_openai_tool_parser.py, as text.
    (
        "harmony",
        "<|channel|>analysis<|message|>User asks: \"What is the weather?\"<|end|><|start|>assistant<|channel|>commentary to=functions.get_current_weather <|constrain|>json<|message|>{\n\"city\": \"Dallas\",\n\"state\": \"TX\"\n}<|call|>",
        DALLAS,
    ),
    (
        "harmony",
        " to=functions.clock<|channel|>commentary json<|message|>{}",
        r#"{"name": "clock", "arguments": {}}"#,
    ),
    (
        "json",
        r#"[{"name": "clock", "arguments": {}}]"#,
        r#"{"name": "clock", "arguments": {}}"#,
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"clock\", \"arguments\": {}}</tool_call>",
        r#"{"name": "clock", "arguments": {}}"#,
    ),
];

#[test]
fn calls_are_read_in_their_own_format_and_invalid_in_any_other() {
    for (format, completion, expected) in READ {
        let scorer = scorer(format);
        let row = row_of(&format!(",\"expected\":{expected}"));
        let score = scorer.score(completion, Some(&row));
        assert_eq!(
            (shown(&score).as_str(), score.exact),
            ("valid", Some(true)),
            "{format} {completion}"
        );
        // What the task writes, it reads.
        let written = scorer
            .expected_completion(row.expected.as_ref().unwrap(), None)
            .unwrap();
        let again = scorer.score(&written, Some(&row));
        assert_eq!(
            (shown(&again).as_str(), again.exact),
            ("valid", Some(true)),
            "{format} {written}"
        );
        for other in [
            "hermes",
            "json",
            "qwen-xml",
            "llama",
            "mistral",
            "mistral-args",
            "functiongemma",
            "gemma4",
            "harmony",
        ] {
            let is_same = |names: [&str; 2]| names.contains(format) && names.contains(&other);
            // A call is JSON of Llama's with either key.
            let shares = other == *format
                || is_same(["hermes", "json"])
                || is_same(["mistral", "mistral-args"]);
            if shares
                || (*format == "llama" && completion.contains("arguments"))
                || completion.contains("think>")
            {
                continue;
            }
            let score = self::scorer(other).score(completion, Some(&row));
            let (found, place) = (
                shown(&score),
                if completion.starts_with(' ') {
                    "1:2"
                } else {
                    "1:1"
                },
            );
            let reason =
                format!("the call is written in the format `{format}`; this task reads `{other}`");
            let reason = if format.starts_with("mistral") {
                reason.replace("`mistral-args`;", "`mistral`;")
            } else {
                reason
            };
            assert_eq!(
                found,
                format!("invalid [call format]; {place} {reason}"),
                "{completion} for {other}"
            );
        }
    }
}

#[test]
fn faults_of_a_call_have_their_places_in_every_format() {
    let xml = |value: &str| {
        format!(
            "<tool_call>\n<function=add>\n<parameter=a>\n{value}\n</parameter>\n</function>\n</tool_call>"
        )
    };
    let faults = [
        (
            "qwen-xml",
            xml("four"),
            "invalid [wrong type]; 4:1 add: expected number, found string \"four\"",
        ),
        (
            "qwen-xml",
            xml("1").replace("add", "ad"),
            "invalid [unknown function]; 2:11 unknown function ad; did you mean `add`?",
        ),
        (
            "qwen-xml",
            xml("1").replace("=a>", "=x>"),
            "invalid [extra argument]; 3:1 add: argument not allowed: \"x\"",
        ),
        (
            "qwen-xml",
            "<tool_call>\n<function=add>\n<parameter=a>\n1".to_owned(),
            "unparsable [truncated]; 4:2 the text ends inside a call",
        ),
        (
            "qwen-xml",
            "<tool_call>\n<function=add>\n</tool_call>".to_owned(),
            "unparsable [syntax]; 3:1 `</function>` is missing",
        ),
        (
            "qwen-xml",
            format!("I add.\n{}", xml("1")),
            "unparsable [prose]; 1:1 text before the calls",
        ),
        (
            "qwen-xml",
            format!("{}\n<tool_c", xml("1")),
            "unparsable [truncated]; 8:8 the text ends inside a call",
        ),
        (
            "qwen-xml",
            format!("{} Done.", xml("1")),
            "unparsable [prose]; 7:14 text after the calls",
        ),
        (
            "qwen-xml",
            "It is sunny.".to_owned(),
            "unparsable [prose]; 1:1 no call in the text",
        ),
        (
            "qwen-xml",
            String::new(),
            "unparsable [other]; 1:1 the completion is empty",
        ),
        (
            "qwen-xml",
            "[]".to_owned(),
            "invalid [wrong calls]; 1:1 no call",
        ),
        (
            "llama",
            r#"{"name": "get_current_weather", "parameters": {"city": 7}}"#.to_owned(),
            "invalid [wrong type]; 1:56 get_current_weather: expected string, found number 7",
        ),
        ("llama", r#"{"name": "clock"}"#.to_owned(), "valid"),
        (
            "mistral",
            "[TOOL_CALLS]add{\"a\": }".to_owned(),
            "unparsable [syntax]; 1:22 unexpected character '}'",
        ),
        (
            "mistral",
            "[TOOL_CALLS]add[ARGS]{\"a\": true}".to_owned(),
            "invalid [wrong type]; 1:28 add: expected number, found boolean true",
        ),
        (
            "functiongemma",
            "<start_function_call>call:add{a:<escape>4<escape>}<end_function_call>".to_owned(),
            "invalid [wrong type]; 1:41 add: expected number, found string \"4\"",
        ),
        (
            "functiongemma",
            "<start_function_call>call:add{a:four}<end_function_call>".to_owned(),
            "unparsable [syntax]; 1:33 not a value: a string stands between two <escape>",
        ),
        (
            "functiongemma",
            "<start_function_call>call:add{a:1".to_owned(),
            "unparsable [truncated]; 1:34 the text ends inside a call",
        ),
        (
            "harmony",
            "<|channel|>commentary to=functions.add <|constrain|>json<|message|>{\"c\": 1}<|call|>"
                .to_owned(),
            "invalid [extra argument]; 1:69 add: argument not allowed: \"c\"",
        ),
        // Formats that no key names.
        (
            "qwen-xml",
            "<function=add>{\"a\": 1}</function>".to_owned(),
            "unparsable [prose]; 1:1 no call in the text",
        ),
        (
            "hermes",
            "[TOOL_CALLS] not json at all".to_owned(),
            "unparsable [call format]; 1:1 the call is written in the format `mistral`; this task reads `hermes`",
        ),
    ];
    let found = faults
        .each_ref()
        .map(|(format, completion, _)| shown(&scorer(format).score(completion, None)));
    let expected = faults
        .each_ref()
        .map(|(_, _, expected)| (*expected).to_owned());
    assert_eq!(found, expected);
}

#[test]
fn where_no_call_is_expected_text_declines_in_every_format() {
    let row = row_of(",\"expected\":[]");
    for format in [
        "qwen-xml",
        "llama",
        "mistral",
        "functiongemma",
        "gemma4",
        "harmony",
    ] {
        let score = scorer(format).score("No tool fits.", Some(&row));
        assert_eq!(
            (shown(&score).as_str(), score.exact),
            ("valid", Some(true)),
            "{format}"
        );
        let score = scorer(format).score("[]", Some(&row));
        assert_eq!(
            (shown(&score).as_str(), score.exact),
            ("valid", Some(true)),
            "{format}"
        );
        // A call in any other form is not valid.
        for call in [
            "I call [TOOL_CALLS]clock[ARGS]{",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.clock:0<|tool_call_argument_begin|>{}",
            "<minimax:tool_call>\n<invoke name=\"clock\">\n</invoke>\n</minimax:tool_call>",
            "Thought: x\nAction: clock\nAction Input: {}",
            "Let me see.\nclock()",
        ] {
            let score = scorer(format).score(call, Some(&row));
            assert_eq!(
                (score.exact, shown(&score).starts_with("valid")),
                (Some(false), false),
                "{format} {call}"
            );
        }
    }
    let score = scorer("hermes").score("Let me see.\nclock()", Some(&row));
    assert_eq!(
        shown(&score),
        "unparsable [syntax]; 2:1 an attempted call, where no call is expected; calls are read in the format `hermes`"
    );
    let said = "<|channel|>analysis<|message|>No tool.<|end|><|start|>assistant<|channel|>final<|message|>No tool fits.<|return|>";
    assert_eq!(scorer("harmony").score(said, Some(&row)).exact, Some(true));
    let called = "<|channel|>commentary to=functions.clock<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>It is noon.";
    for format in ["harmony", "hermes"] {
        let score = scorer(format).score(called, Some(&row));
        assert_eq!(score.exact, Some(false), "{format}");
    }
}

#[test]
fn a_preamble_of_harmony_is_prose_and_its_receivers_are_named() {
    let score = |prose: &str, completion: &str| {
        let toml = format!(
            "name = \"sample\"\n[score]\nkind = \"tool_calls\"\ntools = \"tools.json\"\ncall_format = \"harmony\"\nprose = \"{prose}\"\n"
        );
        let scorer = loaded(&[("task.toml", &toml), ("tools.json", TOOLS)])
            .unwrap()
            .2;
        shown(&scorer.score(completion, None))
    };
    let call = "<|start|>assistant<|channel|>commentary to=functions.clock <|constrain|>json<|message|>{}<|call|>";
    let preamble = "<|channel|>commentary<|message|>I look at the clock.<|end|>";
    let analysis = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant";
    for (prose, completion, expected) in [
        ("allow", format!("{preamble}{call}"), "valid"),
        ("allow", format!("{analysis}{preamble}{call}"), "valid"),
        (
            "allow",
            format!(
                "{preamble}<|start|>assistant{analysis}<|channel|>final<|message|>So.<|end|>{call}"
            ),
            "valid",
        ),
        (
            "allow",
            format!("{preamble}{call}{preamble}"),
            "unparsable [prose]; 1:157 a message to the user, no call",
        ),
        (
            "refuse",
            format!("{preamble}{call}"),
            "unparsable [prose]; 1:1 a message to the user, no call",
        ),
        (
            "allow",
            "<|channel|>commentary to=clock <|constrain|>json<|message|>{}<|call|>".to_owned(),
            "unparsable [syntax]; 1:26 the message is to `clock`; a call is to `functions.NAME`",
        ),
        (
            "refuse",
            "<|start|>assistant to=browser.search<|channel|>commentary<|message|>{}".to_owned(),
            "unparsable [syntax]; 1:23 the message is to `browser.search`; a call is to `functions.NAME`",
        ),
    ] {
        assert_eq!(score(prose, &completion), expected, "{prose} {completion}");
    }
}

#[test]
fn a_format_that_is_not_known_is_refused_with_its_place() {
    let toml = "name = \"x\"\n[score]\nkind = \"tool_calls\"\ncall_format = \"qwen_xml\"\n";
    let message = loaded(&[("task.toml", toml)]).map(drop).unwrap_err();
    assert!(
        message.ends_with(
            "task.toml line 4 column 15: `score.call_format` must be one of qwen-xml, functiongemma, gemma4, harmony, mistral-args, mistral, hermes, llama, json, not \"qwen_xml\"; did you mean `qwen-xml`?"
        ),
        "{message}"
    );
}

#[test]
fn hostile_calls_of_every_format_are_cheap() {
    for (format, block) in [
        ("qwen-xml", "<tool_call>\n<function=add>\n<parameter=a>\n"),
        (
            "qwen-xml",
            "</think><tool_call>\n<function=add>\n<parameter=a>\n",
        ),
        ("llama", "{\"name\": \"add\", \"parameters\": {}};"),
        ("mistral", "[TOOL_CALLS]add"),
        ("functiongemma", "<start_function_call>call:add{a:["),
        ("gemma4", "<|tool_call>call:add{a:{"),
        ("harmony", "<|channel|>analysis<|message|>"),
        ("harmony", "<|start|>assistant to=functions.add"),
    ] {
        let scorer = scorer(format);
        for text in [block.repeat(50_000), format!("x{}", block.repeat(50_000))] {
            let began = std::time::Instant::now();
            scorer.score(&text, None);
            assert!(
                began.elapsed().as_secs() < 20,
                "{format} {block}: {:?}",
                began.elapsed()
            );
        }
    }
}

/// Parts of calls of all formats, whole and broken.
fn any_text() -> impl Strategy<Value = String> {
    const PARTS: [&str; 44] = [
        "<tool_call>",
        "</tool_call>",
        "\n",
        "<function=add>",
        "<function=",
        "<parameter=a>",
        "<parameter=",
        "</parameter>",
        "</function>",
        "1",
        "{\"a\": 1}",
        "{",
        "}",
        "[",
        "]",
        ",",
        ";",
        ":",
        "\"",
        "\\",
        "é",
        "😀",
        " ",
        "x",
        "name",
        "{\"name\": \"add\", \"parameters\": {\"a\": 1}}",
        "{\"name\": \"add\", \"arguments\": {}}",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "add",
        "<start_function_call>",
        "<end_function_call>",
        "<escape>",
        "call:add{a:1",
        "<|tool_call>",
        "<tool_call|>",
        "<|\"|>",
        "<|channel|>",
        "commentary to=functions.add <|constrain|>json",
        "analysis",
        "<|message|>",
        "<|start|>assistant",
    ];
    proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..14)
        .prop_map(|parts| parts.concat())
}

/// Calls and text as one, whatever pieces they came in.
fn joined(parts: &[AnswerPart]) -> String {
    let shown = |part: &AnswerPart| match part {
        AnswerPart::Text(text) | AnswerPart::Arguments(text) => text.clone(),
        AnswerPart::Name(name) => format!("|{name}|"),
    };
    parts.iter().map(shown).collect()
}

proptest! {
    #[test]
    fn any_text_has_a_score_with_places_in_it_and_is_read_alike_in_pieces(text in any_text()) {
        let tools: serde_json::Value = serde_json::from_str(TOOLS).unwrap();
        for format in &CALL_FORMATS {
            static SCORERS: LazyLock<Vec<Scorer>> =
                LazyLock::new(|| CALL_FORMATS.iter().map(|format| scorer(format.name)).collect());
            let index = CALL_FORMATS.iter().position(|other| other == format).unwrap();
            let score = SCORERS[index].score(&text, Some(&row_of(",\"expected\":[]")));
            prop_assert!(!score.is_error());
            for reason in &score.errors {
                let line = text.split('\n').nth(reason.line - 1);
                prop_assert!(
                    line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&reason.column)),
                    "{} {text:?}: {reason:?}", format.name
                );
            }
            let new = || CallReader::new(format, &tools, false, false);
            let (mut whole, mut pieces) = (new(), new());
            let mut at_once = whole.push(&text);
            at_once.extend(whole.finish());
            let mut by_letter: Vec<AnswerPart> =
                text.chars().flat_map(|letter| pieces.push(&letter.to_string())).collect();
            by_letter.extend(pieces.finish());
            prop_assert_eq!(joined(&at_once), joined(&by_letter), "{} {:?}", format.name, text);
        }
    }
}
