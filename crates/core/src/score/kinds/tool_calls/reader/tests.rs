//! Tests that pieces of any size give the same text and calls.

use proptest::prelude::*;

use super::*;

fn shown(said: &[AnswerPart]) -> String {
    let mut shown = String::new();
    for (index, part) in said.iter().enumerate() {
        match part {
            AnswerPart::Text(text) => shown.push_str(text),
            AnswerPart::Name(name) => shown.push_str(&format!("«{name} ")),
            AnswerPart::Arguments(text) => shown.push_str(text),
        }
        let goes_on = matches!(said.get(index + 1), Some(AnswerPart::Arguments(_)));
        let is_call = matches!(part, AnswerPart::Name(_) | AnswerPart::Arguments(_));
        shown.push_str(if is_call && !goes_on { "»" } else { "" });
    }
    shown
}

fn read(text: &str, takes_json: bool) -> String {
    let mut reader = JsonReader::new(takes_json, false);
    let mut said = reader.push(text);
    said.extend(reader.finish());
    shown(&said)
}

#[test]
fn calls_are_taken_out_of_a_completion_however_it_comes() {
    let block = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\\\"\"}}\n</tool_call>";
    let call = "«f {\"a\": \"}</tool_call>\\\"\"}»";
    for (text, expected) in [
        (format!("Hm.\n{block} x"), format!("Hm.{call} x")),
        (format!("{block}\n{block}\n"), format!("{call}{call}")),
        (format!("\n\n{block}"), call.to_owned()),
        (format!("a < b <tool {block}"), format!("a < b <tool{call}")),
        (
            format!("<tool_call>no {block}"),
            format!("<tool_call>no{call}"),
        ),
        (
            format!("<tool_call>{{}}</tool_call>{block}"),
            format!("<tool_call>{{}}</tool_call>{call}"),
        ),
        (
            r#"[{"name":"f","arguments":{}} , {"name":"g","arguments":{"a":[{}]}}]"#.to_owned(),
            r#"«f {}»«g {"a":[{}]}»"#.to_owned(),
        ),
        (
            r#" {"name":"f","arguments":{}}"#.to_owned(),
            "«f {}»".to_owned(),
        ),
        (
            r#"{"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}"#.to_owned(),
            r#"«f {"a":1}»"#.to_owned(),
        ),
        (
            r#"[{"name":"f","arguments":{}}, 7]"#.to_owned(),
            "«f {}», 7]".to_owned(),
        ),
        (format!("[1] {block}"), format!("[1]{call}")),
    ] {
        assert_eq!(read(&text, true), expected, "{text}");
        let mut reader = JsonReader::new(true, false);
        let mut letters = [0; 4];
        let mut said: Vec<AnswerPart> = text
            .chars()
            .flat_map(|letter| reader.push(letter.encode_utf8(&mut letters)))
            .collect();
        said.extend(reader.finish());
        assert_eq!(shown(&said), expected, "{text}, letter by letter");
    }
    for text in [
        "f()",
        "",
        " ",
        "\n[]\n",
        "{\"a\": 1}",
        "[7]",
        "[{}]",
        "{",
        "[",
        "[{",
        "{]",
        "{7",
        "<tool_call>{\"name\":\"f\",\"argu",
        "<tool_call>",
        "<tool",
        "{\"name\": \"f\"}",
        "{\"name\": \"f\", \"arguments\": {}, \"why\": 1}",
        "<tool_call>{\"name\":\"f\",\"arguments\":{}} x</tool_call>",
    ] {
        assert_eq!(read(text, true), text, "text is given out as it is");
    }
    assert_eq!(
        read("{\"name\":\"f\",\"arguments\":{}}", false),
        "{\"name\":\"f\",\"arguments\":{}}"
    );
}

#[test]
fn text_and_calls_are_given_out_as_soon_as_they_can_be() {
    let check = |parts: &[(&str, &str)]| {
        let mut reader = JsonReader::new(true, false);
        for (text, expected) in parts {
            assert_eq!(
                shown(&reader.push(text)),
                *expected,
                "{text:?} in {parts:?}"
            );
        }
    };
    check(&[
        ("I ", "I"),
        ("look <", " look"),
        ("b <tool", " <b"),
        ("_call>", ""),
        ("{\"name\": \"f\", \"arguments\": {}}", ""),
        ("</tool_call>", "«f {}»"),
        (" !", " !"),
    ]);
    check(&[("{\"ven", ""), ("dor\"", "{\"vendor\""), (": 1", ": 1")]);
    check(&[("[", ""), ("1", "[1"), (", 2", ", 2")]);
    check(&[
        ("[{\"name\":\"f\",\"arguments\":{}}", "«f {}»"),
        (",{\"name\":\"g\",", ""),
        ("\"arguments\":{}}", "«g {}»"),
        ("]", ""),
    ]);
    check(&[("<tool_call>", ""), ("x", "<tool_call>x")]);
}

#[test]
fn calls_that_are_enforced_are_given_out_piece_by_piece() {
    let check = |takes_json: bool, parts: &[(&str, &str)]| {
        let mut reader = JsonReader::new(takes_json, true);
        for (text, expected) in parts {
            assert_eq!(
                shown(&reader.push(text)),
                *expected,
                "{text:?} in {parts:?}"
            );
        }
        reader
    };
    let reader = check(
        false,
        &[
            ("Hm.\n<tool", "Hm."),
            ("_call>\n{\"name\": \"f", ""),
            ("\", \"arguments\": ", ""),
            ("{\"a\"", "«f {\"a\"»"),
            (": \"}\\\"<", ": \"}\\\"<»"),
            ("/tool_call>\"}}\n</tool", "/tool_call>\"}»"),
            ("_call>", ""),
            ("<tool_call>{\"name\":\"g\",\"arguments\":{", "«g {»"),
        ],
    );
    assert!(reader.is_within_call(), "it broke off");
    let mut reader = check(
        true,
        &[
            ("[{\"name\":\"f\",\"arguments\":{", "«f {»"),
            ("}", "}»"),
            ("},{\"name\"", ""),
            (":\"g\",\"arguments\":{}}", "«g {}»"),
            ("]", ""),
        ],
    );
    assert!(!reader.is_within_call() && reader.finish().is_empty());
    let mut reader = check(
        false,
        &[("<tool_call>{\"name\":\"f\",\"arguments\":{}}</", "«f {}»")],
    );
    assert!(
        !reader.is_within_call() && reader.finish().is_empty(),
        "its arguments are complete"
    );
    let mut reader = check(false, &[("<tool_call>{\"name\":\"f", "")]);
    assert_eq!(
        shown(&reader.finish()),
        "<tool_call>{\"name\":\"f",
        "no function is known"
    );
}

/// JSON of arguments, with white space and awkward texts.
fn arguments() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        "a",
        "}",
        "{\"",
        "</tool_call>",
        "<tool_call>{",
        "é🦀",
        "\\",
        "\n",
        "]",
    ]);
    let value = prop_oneof![
        text.prop_map(serde_json::Value::from),
        Just(serde_json::json!([{"x": {}}, "]}"])),
        Just(serde_json::json!({"y": [1.5, null]})),
    ];
    (
        prop::collection::btree_map("[a-c}\"]{0,2}", value, 0..4),
        any::<bool>(),
    )
        .prop_map(|(members, is_pretty)| {
            let write = if is_pretty {
                serde_json::to_string_pretty
            } else {
                serde_json::to_string
            };
            write(&members).unwrap_or_default()
        })
}

proptest! {
    /// Truncated anywhere and in any pieces: same parts as of the whole; complete ones as without
    /// enforcement.
    #[test]
    fn pieces_of_enforced_calls_are_the_whole(
        calls in prop::collection::vec((prop::sample::select(vec!["f", "get_weather", "g\"é"]), arguments()), 0..4),
        gap in prop::sample::select(vec!["", " ", "\n"]),
        (before, in_list) in (prop::sample::select(vec!["", "Hm < b. "]), any::<bool>()),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        end in any::<prop::sample::Index>(),
    ) {
        let call = |(name, arguments): &(&str, String)| {
            let name = serde_json::Value::from(*name);
            let json = format!("{{\"name\":{gap}{name},{gap}\"arguments\":{gap}{arguments}{gap}}}");
            if in_list { json } else { format!("<tool_call>{gap}{json}{gap}</tool_call>") }
        };
        let written: Vec<String> = calls.iter().map(call).collect();
        let text = if in_list { format!("[{}]", written.join(&format!(",{gap}"))) } else { format!("{before}{}", written.join(gap)) };
        let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        let read = |text: &str, cuts: &[usize], is_enforced: bool| {
            let mut reader = JsonReader::new(in_list, is_enforced);
            let mut from = 0;
            let mut said = Vec::new();
            for to in cuts.iter().copied().filter(|cut| *cut < text.len()).chain([text.len()]) {
                said.extend(reader.push(&text[from..to]));
                from = to;
            }
            said.extend(reader.finish());
            shown(&said)
        };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| bounds[cut.index(bounds.len())]).collect();
        cuts.sort_unstable();
        let broken = &text[..bounds[end.index(bounds.len())]];
        prop_assert_eq!(read(broken, &cuts, true), read(broken, &[], true), "{} by {:?}", broken, &cuts);
        prop_assert_eq!(read(&text, &cuts, true), read(&text, &[], false), "{} by {:?}", text, &cuts);
    }
}
