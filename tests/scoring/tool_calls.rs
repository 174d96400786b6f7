//! Calls of functions: one row a rule, so that no change moves a reward unseen; and what hostile completions cost.

use grpo_tui::dataset::PromptRow;
use grpo_tui::score::{Scorer, Tier};

use super::{loaded, row_of, shown};

const TOOLS: &str = r##"[
  {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
    "properties": {"city": {"type": "string"}, "day": {"enum": ["today", "tomorrow"]}, "at": {"$ref": "#/$defs/at"}},
    "required": ["city"], "$defs": {"at": {"type": "object", "properties": {"h": {"type": "integer"}}, "required": ["h"]}}}}},
  {"name": "clock"},
  {"name": "note", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": true}}
]"##;

fn scorer(tools: Option<&str>, lines: &str) -> Result<Scorer, String> {
    let named = if tools.is_some() {
        "tools = \"tools.json\"\n"
    } else {
        ""
    };
    let toml = format!("name = \"sample\"\n[score]\nkind = \"tool_calls\"\n{named}{lines}");
    loaded(&[("task.toml", &toml), ("tools.json", tools.unwrap_or("[]"))])
        .map(|(_, _, scorer)| scorer)
}

fn expecting(expected: &str) -> PromptRow {
    row_of(&format!(",\"expected\":{expected}"))
}

#[test]
fn each_fault_of_a_call_has_its_name_and_place() {
    let scorer = scorer(Some(TOOLS), "").unwrap();
    for (completion, expected) in [
        (
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>",
            "valid",
        ),
        (
            r#"[{"name":"clock","arguments":{}},{"name":"note","arguments":{"text":"x","more":1}}]"#,
            "valid",
        ),
        (
            r#"{"tool_calls":[{"type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]}"#,
            "valid",
        ),
        (
            "<think>Hm.</think>{\"name\":\"clock\",\"arguments\":{}}",
            "valid",
        ),
        (
            "<think>Hm.</think><tool_call>{\"name\":\"weather\",\"arguments\":{\"city\":\"</think>\"}}</tool_call>",
            "valid",
        ),
        ("clock()", "unparsable [prose]; 1:1 no call in the text"),
        // The tools do not take it.
        (
            r#"{"name":"wether","arguments":{}}"#,
            "invalid [unknown function]; 1:9 unknown function wether; did you mean `weather`?",
        ),
        (
            r#"{"name":"rm","arguments":{}}"#,
            "invalid [unknown function]; 1:9 unknown function rm; they are clock, note, weather",
        ),
        (
            r#"{"name":"weather","arguments":{}}"#,
            "invalid [missing argument]; 1:31 weather: missing argument \"city\"",
        ),
        (
            r#"{"name":"weather","arguments":{"city":"Oslo","unit":"C"}}"#,
            "invalid [extra argument]; 1:46 weather: argument not allowed: \"unit\"",
        ),
        (
            r#"{"name":"clock","arguments":{"zone":"CET"}}"#,
            "invalid [extra argument]; 1:30 clock: argument not allowed: \"zone\"",
        ),
        (
            r#"{"name":"weather","arguments":{"city":7}}"#,
            "invalid [wrong type]; 1:39 weather: expected string, found number 7",
        ),
        (
            r#"{"name":"weather","arguments":{"city":"Oslo","day":"monday"}}"#,
            "invalid [enum]; 1:52 weather: \"monday\" is not in the enum [\"today\", \"tomorrow\"]",
        ),
        (
            r#"{"name":"weather","arguments":{"city":"Oslo","at":{}}}"#,
            "invalid [missing key]; 1:51 weather: missing key \"h\"",
        ),
        (
            "[{\"name\":\"weather\",\"arguments\":{\"day\":1}},\n{\"name\":\"x\",\"arguments\":{}}]",
            "invalid [unknown function]; 1:32 weather: missing argument \"city\"; 1:39 weather: 1 is not in the enum [\"today\", \"tomorrow\"]; 2:9 unknown function x; they are clock, note, weather",
        ),
        (
            r#"{"function":{"name":"weather","arguments":"{\"city\":\"Oslo\",\n\"day\":1}"}}"#,
            "invalid [enum]; 1:73 weather: 1 is not in the enum [\"today\", \"tomorrow\"]",
        ),
        (
            r#"{"name":"clock","arguments":{},"why":"x"}"#,
            "invalid [extra key]; 1:32 key not allowed in a call: \"why\"",
        ),
        ("[]", "invalid [wrong calls]; 1:1 no call"),
        // Not calls.
        ("", "unparsable [other]; 1:1 the completion is empty"),
        (
            "It is sunny.",
            "unparsable [prose]; 1:1 no call in the text",
        ),
        (
            "<tool_call>{\"name\":\"clock\",\"arguments\":{}}",
            "unparsable [truncated]; 1:43 the text ends inside a <tool_call> block",
        ),
        (
            "<tool_call>{\"name\":\"clock\",\"arguments\":{},}</tool_call>",
            "unparsable [syntax]; 1:42 trailing comma",
        ),
        (
            "<think>Hm. {\"name\":\"clock\",\"arguments\":{}}",
            "unparsable [think call]; 1:20 the call is inside the think block, where none is read",
        ),
        (
            r#"{"name":"weather"}"#,
            "unparsable [missing key]; 1:9 a call without `arguments`; a call is {\"name\": …, \"arguments\": {…}}",
        ),
    ] {
        assert_eq!(
            shown(&scorer.score(completion, None)),
            expected,
            "{completion}"
        );
    }
    let lenient = self::scorer(Some(TOOLS), "allow_no_call = true").unwrap();
    assert_eq!(shown(&lenient.score("[]", None)), "valid");
    let expected = expecting("[{\"name\":\"clock\",\"arguments\":{}}]");
    assert!(shown(&lenient.score("[]", Some(&expected))).starts_with("invalid [wrong calls]"));
}

#[test]
fn text_around_calls_that_would_be_valid_is_told_from_text_alone() {
    let scorer = scorer(Some(TOOLS), "").unwrap();
    let block = "<tool_call>{\"name\":\"clock\",\"arguments\":{}}</tool_call>";
    let unknown = block.replace("clock", "rm");
    let bare = "{\"name\":\"clock\",\"arguments\":{}}";
    for (completion, class, tolerant) in [
        (format!("I look.\n{block}"), "prose", true),
        (format!("{block} and {block}"), "prose", true),
        (format!("I look.\n{unknown}"), "prose", false),
        (format!("```json\n{bare}\n```"), "fence", true),
        (format!("```\n{block}\n```"), "fence", true),
        (format!("I call {bare}."), "prose", true),
        ("I call [].".to_owned(), "prose", false),
        (format!("<think>{block}"), "think call", false),
    ] {
        let score = scorer.score(&completion, None);
        let found = (score.tier, score.failure.unwrap().name(), score.tolerant);
        assert_eq!(found, (Tier::Unparsable, class, tolerant), "{completion}");
    }
}

#[test]
fn calls_are_compared_with_the_expected_ones() {
    let both = r#"[{"name":"weather","arguments":{"city":"Oslo","day":"today"}},{"name":"clock","arguments":{}}]"#;
    let turned = r#"[{"name":"clock","arguments":{}},{"name":"weather","arguments":{"city":"oslo","day":"today"}}]"#;
    let clock = r#"{"name":"clock","arguments":{}}"#;
    let rewards = "[score.normalise]\ncity = \"casefold\"\n[[reward]]\npart = \"fields\"\nweight = 0.4\n[[reward]]\npart = \"exact\"\nweight = 0.1\n";
    for (order, completion, expected, exact, reward, failure) in [
        ("", both, both, true, 1.5, ""),
        ("", clock, clock, true, 1.5, ""),
        (
            "",
            turned,
            both,
            false,
            1.0 + 0.4 * 2.0 / 3.0,
            "valid [wrong calls]; 1:42 wrong order: weather is expected as call 1, found as call 2",
        ),
        ("order = false\n", turned, both, true, 1.5, ""),
        (
            "",
            clock,
            both,
            false,
            1.0,
            "valid [wrong calls]; 1:9 2 calls expected, found 1",
        ),
        (
            "",
            "[]",
            both,
            false,
            0.5,
            "invalid [wrong calls]; 1:3 2 calls expected, found 0",
        ),
        ("", "[]", "[]", true, 1.5, ""),
        (
            "",
            clock,
            "[]",
            false,
            1.0,
            "valid [wrong calls]; 1:9 0 calls expected, found 1",
        ),
        (
            "",
            r#"{"name":"weather","arguments":{"city":"Bergen","day":"today"}}"#,
            r#"{"name":"weather","arguments":{"city":"Oslo","day":"today"}}"#,
            false,
            1.0 + 0.4 * 2.0 / 3.0,
            "valid [wrong value]; 1:39 argument \"city\" of weather: expected \"Oslo\", found \"Bergen\"",
        ),
        (
            "",
            "none",
            clock,
            false,
            0.0,
            "unparsable [prose]; 1:1 no call in the text",
        ),
        (
            "",
            r#"{"name":"clock","arguments":{"x":1}}"#,
            clock,
            false,
            0.9,
            "invalid [extra argument]; 1:30 clock: argument not allowed: \"x\"",
        ),
    ] {
        let scorer = scorer(Some(TOOLS), &format!("{order}{rewards}")).unwrap();
        let score = scorer.score(completion, Some(&expecting(expected)));
        assert_eq!(score.exact, Some(exact), "{completion} for {expected}");
        assert!(
            (score.reward - reward).abs() < 1e-9,
            "{completion} for {expected} earns {}",
            score.reward
        );
        let failure = if failure.is_empty() { "valid" } else { failure };
        assert_eq!(shown(&score), failure, "{completion} for {expected}");
    }
}

#[test]
fn where_no_call_is_expected_text_declines() {
    let scorer = scorer(Some(TOOLS), "[[reward]]\npart = \"exact\"\nweight = 0.5\n").unwrap();
    let block = "<tool_call>{\"name\":\"clock\",\"arguments\":{}}</tool_call>";
    let bare = "{\"name\":\"clock\",\"arguments\":{}}";
    let declines = [
        "I cannot do that: no tool books hotels.".to_owned(),
        "\n Sorry.\nLook at [the page](https://example.org), or say {city}.".to_owned(),
        "<think>Which tool? None.</think>No tool fits.".to_owned(),
        "Nothing to call: [].".to_owned(),
        "1. No tool fits.".to_owned(),
        "- \"Hotels\" has no tool.".to_owned(),
    ];
    for completion in &declines {
        let score = scorer.score(completion, Some(&expecting("[]")));
        assert_eq!(
            (shown(&score).as_str(), score.exact, score.reward),
            ("valid", Some(true), 1.5),
            "{completion}"
        );
        assert_eq!(
            score.fields.as_ref().unwrap().get("calls"),
            Some(&true),
            "{completion}"
        );
        // Where a call is expected, or nothing is known of it, it is as before.
        let score = scorer.score(completion, Some(&expecting(bare)));
        assert_eq!(
            (score.tier, score.exact, score.reward),
            (Tier::Unparsable, Some(false), 0.0),
            "{completion}"
        );
        assert_eq!(
            scorer.score(completion, None).tier,
            Tier::Unparsable,
            "{completion}"
        );
    }
    for completion in [
        String::new(),
        "  ".to_owned(),
        "<think>No tool fits.".to_owned(),
        format!("I look. {block}"),
        format!("I call {bare}."),
        "I call <tool_call>{\"name\":\"clo".to_owned(),
        format!("{block} Done."),
        "<tool_call>{\"name\":\"clock\",".to_owned(),
        "{\"name\":\"clock\"".to_owned(),
        format!("```json\n{bare}\n```"),
        "```\nNo.\n```".to_owned(),
        "clock()".to_owned(),
        "<function=clock></function>".to_owned(),
    ] {
        let score = scorer.score(&completion, Some(&expecting("[]")));
        assert_eq!(
            (score.tier, score.exact, score.reward),
            (Tier::Unparsable, Some(false), 0.0),
            "{completion}"
        );
    }
}

#[test]
fn a_call_inside_reasoning_is_named() {
    const INSIDE: &str =
        "unparsable [think call]; 1:8 the call is inside the think block, where none is read";
    let block = "<tool_call>{\"name\":\"clock\",\"arguments\":{}}</tool_call>";
    let qwen = "<tool_call>\n<function=clock>\n</function>\n</tool_call>";
    for (lines, completion, expected) in [
        ("", format!("<think>{block}</think>"), INSIDE),
        ("", format!("<think>{block}</think>\n\nIt is noon."), INSIDE),
        ("", format!("<think>{block} Now I wait"), INSIDE),
        (
            "call_format = \"gemma4\"\n",
            "<|channel>thought\n<|tool_call>call:clock{}<tool_call|><channel|>Done.".to_owned(),
            "unparsable [think call]; 2:1 the call is inside the think block, where none is read",
        ),
        (
            "call_format = \"gemma4\"\n",
            "<|channel>thought\n<channel|><|tool_call>call:clock{}<tool_call|>".to_owned(),
            "valid",
        ),
        (
            "call_format = \"qwen-xml\"\n",
            format!("<think>{qwen}</think>Done."),
            INSIDE,
        ),
        // A call after it is the answer, right or wrong; text without a call was no call.
        ("", format!("<think>{block}</think>{block}"), "valid"),
        (
            "",
            format!("<think>{block}</think><tool_call>{{"),
            "unparsable [truncated]; 1:82 the text ends inside the JSON value",
        ),
        (
            "",
            "<think>clock?</think>It is noon.".to_owned(),
            "unparsable [prose]; 1:22 no call in the text",
        ),
        (
            "strip_thinking = false\n",
            format!("<think>{block}</think>"),
            "unparsable [think leak]; 1:1 text before the <tool_call> blocks",
        ),
    ] {
        let scorer = scorer(Some(TOOLS), lines).unwrap();
        assert_eq!(
            shown(&scorer.score(&completion, None)),
            expected,
            "{lines}{completion}"
        );
    }
    // Where no call is right, one in the reasoning is none.
    let score = scorer(Some(TOOLS), "").unwrap().score(
        &format!("<think>{block}</think>No."),
        Some(&expecting("[]")),
    );
    assert_eq!((score.tier, score.exact), (Tier::Valid, Some(true)));
}

#[test]
fn prose_before_a_call_is_refused_unless_the_task_allows_it() {
    let block = "<tool_call>{\"name\":\"clock\",\"arguments\":{}}</tool_call>";
    let qwen = "<tool_call>\n<function=clock>\n</function>\n</tool_call>";
    let unknown = "<tool_call>{\"name\":\"x\",\"arguments\":{}}</tool_call>";
    let (allow, refuse) = ("prose = \"allow\"\n", "prose = \"refuse\"\n");
    for (lines, completion, expected) in [
        (
            refuse,
            format!("Let me see.\n{block}"),
            "unparsable [prose]; 1:1 text before the <tool_call> blocks",
        ),
        (
            "",
            format!("Let me see.\n{block}"),
            "unparsable [prose]; 1:1 text before the <tool_call> blocks",
        ),
        (allow, format!("Let me see.\n{block}"), "valid"),
        (
            allow,
            format!("<think>Hm.</think>Let me see.\n{block}\n{block}"),
            "valid",
        ),
        (allow, block.to_owned(), "valid"),
        (
            allow,
            "[{\"name\":\"clock\",\"arguments\":{}}]".to_owned(),
            "valid",
        ),
        (
            "prose = \"allow\"\ncall_format = \"qwen-xml\"\n",
            format!("So:\n{qwen}"),
            "valid",
        ),
        (
            allow,
            format!("Let me see.\n{unknown}"),
            "invalid [unknown function]; 2:20 unknown function x; they are clock, note, weather",
        ),
        // Only before a call: not alone, between, after, in a fence, or in reasoning that does not end.
        (
            allow,
            "Let me see.".to_owned(),
            "unparsable [prose]; 1:1 no call in the text",
        ),
        (
            allow,
            format!("{block} and {block}"),
            "unparsable [prose]; 1:56 text between the <tool_call> blocks",
        ),
        (
            allow,
            format!("So: {block} Done."),
            "unparsable [prose]; 1:60 text after the <tool_call> blocks",
        ),
        (
            allow,
            format!("So:\n```\n{block}\n```"),
            "unparsable [fence]; 4:1 text after the <tool_call> blocks",
        ),
        (
            allow,
            format!("So <think>{block}"),
            "unparsable [think call]; 1:11 the call is inside the think block, where none is read",
        ),
    ] {
        let scorer = scorer(Some(TOOLS), lines).unwrap();
        assert_eq!(
            shown(&scorer.score(&completion, None)),
            expected,
            "{lines}{completion}"
        );
    }
    let error = scorer(Some(TOOLS), "prose = \"maybe\"\n").unwrap_err();
    assert_eq!(
        error,
        "task.toml line 5 column 9: `score.prose` must be allow or refuse, not \"maybe\""
    );
}

#[test]
fn a_row_brings_its_own_tools() {
    let own = r#","tools":[{"type":"function","function":{"name":"ping","parameters":{"properties":{"n":{"type":"integer"}}}}}]"#;
    let ping = r#"{"name":"ping","arguments":{"n":1}}"#;
    for tools in [None, Some(TOOLS)] {
        let scorer = scorer(tools, "").unwrap();
        assert_eq!(shown(&scorer.score(ping, Some(&row_of(own)))), "valid");
        let other = r#"{"name":"clock","arguments":{}}"#;
        let message = "invalid [unknown function]; 1:9 unknown function clock; they are ping";
        assert_eq!(shown(&scorer.score(other, Some(&row_of(own)))), message);
    }
    // What cannot be judged has no reward.
    let check = |scorer: &Scorer, fields: &str, message: &str| {
        let score = scorer.score(ping, Some(&row_of(fields)));
        assert!(
            score.is_error() && shown(&score).contains(message),
            "{}",
            shown(&score)
        );
    };
    let scorer = scorer(None, "").unwrap();
    check(&scorer, "", "no tools: name a file");
    check(
        &scorer,
        r#","tools":{"ping":{}}"#,
        "`tools` of the row: tools are a list",
    );
    check(
        &scorer,
        r#","tools":[{"name":"ping","parameters":{"type":"text"}}]"#,
        "`tools`/0/parameters/type of the row: \"text\" is not a type",
    );
    check(
        &scorer,
        &format!("{own},\"expected\":{{\"n\":1}}"),
        "the row's `expected` is not a call",
    );
}

#[test]
fn malformed_tools_are_refused_with_file_and_line() {
    for (tools, complaint) in [
        (
            "{",
            "tools.json line 1 column 1: EOF while parsing an object",
        ),
        (
            "[\n {\"name\": \"f\"}, {\"name\": \"f\"}]",
            "tools.json line 2 column 26 (/1/name): \"f\" occurs twice",
        ),
        (
            "[\n {\"parameters\": {}}]",
            "tools.json line 2 column 2 (/0): a function needs a `name`",
        ),
        (
            "[\n {\"name\": \"f\", \"parameters\": {\"required\": 1}}]",
            "tools.json line 2 column 43 (/0/parameters/required): 1 is not of type \"array\"",
        ),
    ] {
        let found = scorer(Some(tools), "").unwrap_err();
        assert!(
            found.starts_with(complaint),
            "{found:?} instead of {complaint:?}"
        );
    }
    assert!(
        scorer(None, "order = \"yes\"\n")
            .unwrap_err()
            .contains("`score.order` must be true or false")
    );
}

#[test]
fn hostile_calls_are_cheap() {
    let scorer = scorer(Some(TOOLS), "").unwrap();
    let check = |completion: String, tier: Tier| {
        let score = scorer.score(
            &completion,
            Some(&expecting("[{\"name\":\"clock\",\"arguments\":{}}]")),
        );
        assert_eq!(score.tier, tier, "{:?}", score.errors.first());
        assert!(
            score.errors.len() <= 1_000
                && score
                    .errors
                    .iter()
                    .all(|reason| reason.message.len() < 1_000)
        );
    };
    let block = "<tool_call>{\"name\":\"clock\",\"arguments\":{}}</tool_call>";
    let (many, megabytes) = (100_000, 10 << 20);
    check(block.repeat(many), Tier::Valid);
    check(block.replace("clock", "rm").repeat(many), Tier::Invalid);
    check(
        block
            .replace("{}", "{\\\"x\\\":1}")
            .replace('\\', "")
            .repeat(many),
        Tier::Invalid,
    );
    check("<tool_call>".repeat(many), Tier::Unparsable);
    check(format!("x{}", "<tool_call>".repeat(many)), Tier::Unparsable);
    check(format!("x{}", block.repeat(many)), Tier::Unparsable);
    check(
        format!("{block}{}", "x".repeat(megabytes)),
        Tier::Unparsable,
    );
    check(
        format!("<tool_call>{}", "[".repeat(megabytes)),
        Tier::Unparsable,
    );
    check(
        format!(
            "[{}]",
            vec!["{\"name\":\"clock\",\"arguments\":{}}"; megabytes / 32].join(",")
        ),
        Tier::Valid,
    );
    check(
        format!(
            "[{}]",
            vec!["{\"name\":\"weather\",\"arguments\":{}}"; megabytes / 32].join(",")
        ),
        Tier::Invalid,
    );
    check(
        format!(
            "{{\"name\":\"weather\",\"arguments\":{{\"city\":\"{}\"}}}}",
            "é".repeat(megabytes / 2)
        ),
        Tier::Valid,
    );
    let keys: String = (0..many)
        .map(|number| format!("\\\"k{number}\\\":1,"))
        .collect();
    check(
        format!(
            "{{\"function\":{{\"name\":\"weather\",\"arguments\":\"{{{keys}\\\"z\\\":1}}\"}}}}"
        ),
        Tier::Invalid,
    );
}
