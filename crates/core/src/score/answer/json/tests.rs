//! Strictness: text, and reason and byte offset of its rejection.

use super::super::{Kind, Syntax};
use super::*;

fn check(text: &str, expected: Option<(Syntax, usize)>) {
    let found = parse(text, 0)
        .err()
        .map(|error| (error.reason, error.offset));
    assert_eq!(found, expected, "{text:?}");
}

#[test]
fn what_is_json() {
    for text in [
        "3",
        "-0",
        "0.5",
        "1e5",
        "1E+5",
        "1e-5",
        "1e400",
        "-1e-400",
        "123456789012345678901234567890.5",
        "\"\"",
        "true",
        "false",
        "null",
        "[]",
        "{}",
        " \t\r\n{ \"a\" : [ 1 , 2 ] } \n",
        r#"{"a":{"b":[{"c":null}]}}"#,
        r#""\"\\\/\b\f\n\r\t\u00e9\ud83e\udd80""#,
        "\"é🦀\u{7f}\u{2028}\"",
        r#"{"":1}"#,
        r#"{"a":1,"a":2}"#,
        "[1,\n2]",
    ] {
        check(text, None);
    }
}

#[test]
fn what_is_not() {
    use Syntax::*;
    for (text, reason, offset) in [
        ("", Empty, 0),
        (" \n", Empty, 2),
        ("\u{FEFF}{}", ByteOrderMark, 0),
        ("```json\n{}\n```", Fence, 0),
        ("Here: {}", TextBefore, 0),
        ("'a'", NoValue, 0),
        ("{} ok", TextAfter, 3),
        ("{}{}", TextAfter, 2),
        ("1 2", TextAfter, 2),
        ("{},", TextAfter, 2),
        ("{}\u{0}", TextAfter, 2),
        ("{}\u{a0}", TextAfter, 2),
        ("{} // x", Comment, 3),
        ("NaN", NotANumber, 0),
        ("[NaN]", NotANumber, 1),
        ("Infinity", Infinity, 0),
        ("-Infinity", Infinity, 0),
        ("{\"a\":-Infinity}", Infinity, 5),
        ("[Infinity]", Infinity, 1),
        ("-NaN", IncompleteNumber, 1),
        ("[True]", BareWord, 1),
        ("[None]", BareWord, 1),
        ("[undefined]", BareWord, 1),
        ("[nul]", BareWord, 1),
        ("[truex]", BareWord, 1),
        ("[1,]", TrailingComma, 2),
        ("{\"a\":1 , }", TrailingComma, 7),
        ("[1,,2]", Unexpected(','), 3),
        ("[,1]", Unexpected(','), 1),
        ("{,}", Unexpected(','), 1),
        ("// x\n{}", Comment, 0),
        ("[1 // x\n]", Comment, 3),
        ("[/* x */1]", Comment, 1),
        ("{# x\n}", Comment, 1),
        ("{'a':1}", SingleQuote, 1),
        ("['a']", SingleQuote, 1),
        ("{a:1}", KeyWithoutQuotes, 1),
        ("{1:2}", KeyWithoutQuotes, 1),
        ("{\"a\" 1}", MissingColon, 5),
        ("{\"a\"}", MissingColon, 4),
        ("{\"a\"=1}", MissingColon, 4),
        ("{\"a\":}", Unexpected('}'), 5),
        ("[1 2]", MissingComma, 3),
        ("{\"a\":1 \"b\":2}", MissingComma, 7),
        ("[1}", WrongBracket, 2),
        ("{\"a\":1]", WrongBracket, 6),
        ("01", LeadingZero, 0),
        ("[-01]", LeadingZero, 2),
        ("[00]", LeadingZero, 1),
        ("[+1]", PlusSign, 1),
        ("[.5]", IncompleteNumber, 1),
        ("[1.]", IncompleteNumber, 3),
        ("[1e]", IncompleteNumber, 3),
        ("[1e+]", IncompleteNumber, 4),
        ("[-]", IncompleteNumber, 2),
        ("[1.e1]", IncompleteNumber, 3),
        ("[0x1F]", MissingComma, 2),
        ("[1_000]", MissingComma, 2),
        ("[1.2.3]", MissingComma, 4),
        ("{\"a\": 1,249.5}", KeyWithoutQuotes, 8),
        ("\"a\nb\"", ControlCharacter(10), 2),
        ("\"\u{0}\"", ControlCharacter(0), 1),
        ("\"\\n\u{1f}\"", ControlCharacter(31), 3),
        (r#""\x41""#, BadEscape, 1),
        (r#""\'""#, BadEscape, 1),
        (r#""\U0041""#, BadEscape, 1),
        (r#""\u00g0""#, BadUnicodeEscape, 1),
        (r#""\u12""#, BadUnicodeEscape, 1),
        (r#""\ud800""#, LoneSurrogate, 1),
        (r#""a\udc00""#, LoneSurrogate, 2),
        (r#""\ud800\ud800""#, LoneSurrogate, 1),
        (r#""\ud800x""#, LoneSurrogate, 1),
        (r#""\ud83e\n""#, LoneSurrogate, 1),
        ("{", Truncated, 1),
        ("[1,", Truncated, 3),
        ("{\"a", Truncated, 3),
        ("{\"a\":", Truncated, 5),
        ("{\"a\":tr", Truncated, 7),
        ("\"abc", Truncated, 4),
        ("\"\\", Truncated, 2),
        ("\"\\u00", Truncated, 5),
        ("\"\\ud83e\\", Truncated, 8),
        ("-", Truncated, 1),
        ("1.", Truncated, 2),
        ("[1e", Truncated, 3),
        ("{\"a\":1}}", TextAfter, 7),
        ("\u{b}{}", TextBefore, 0),
        ("\u{a0}{}", TextBefore, 0),
        ("{\u{a0}}", KeyWithoutQuotes, 1),
        ("[\u{feff}1]", ByteOrderMark, 1),
        ("true story", TextAfter, 5),
        ("nothing", NoValue, 0),
        ("[\u{1F980}]", Unexpected('\u{1F980}'), 1),
    ] {
        check(text, Some((reason, offset)));
    }
}

#[test]
fn depth_is_bounded() {
    check(&format!("{}{}", "[".repeat(512), "]".repeat(512)), None);
    check(
        &format!("{}{}", "[".repeat(513), "]".repeat(513)),
        Some((Syntax::TooDeep, 512)),
    );
    check(&"[".repeat(1_000_000), Some((Syntax::TooDeep, 512)));
    check(
        &"{\"a\":".repeat(1_000_000),
        Some((Syntax::TooDeep, 512 * 5)),
    );
}

#[test]
fn the_last_of_equal_keys_stands() {
    let many: String = (0..40)
        .map(|index| format!("\"k{index}\":{index},"))
        .collect();
    for (text, key, value, duplicates) in [
        (r#"{"a":1,"a":2}"#.to_owned(), "a", "2", 1),
        (r#"{"a":1,"\u0061":2,"a":3}"#.to_owned(), "a", "3", 2),
        (format!("{{{many}\"k7\":\"x\",\"z\":1}}"), "k7", "\"x\"", 1),
        (format!("{{{many}\"k39\":0,\"k39\":1}}"), "k39", "1", 2),
        (format!("{{{many}\"z\":1}}"), "k12", "12", 0),
    ] {
        let document = parse(&text, 0).unwrap();
        let object = document.root.as_object().unwrap();
        let found = &object.get(key).unwrap().value;
        assert_eq!(
            (&text[found.start..found.end], document.duplicates.len()),
            (value, duplicates),
            "{text}"
        );
        assert_eq!(
            object
                .members()
                .iter()
                .filter(|member| member.key == key)
                .count(),
            1
        );
        assert!(object.get("absent").is_none());
    }
}

#[test]
fn pointers_lead_to_places() {
    let text = "\n {\"a\": [10, {\"b/c\": \"x\", \"~\": null}]}";
    let document = parse(text, 0).unwrap();
    for (pointer, expected) in [
        ("", Some(2)),
        ("/a", Some(8)),
        ("/a/0", Some(9)),
        ("/a/1/b~1c", Some(21)),
        ("/a/1/~0", Some(31)),
        ("/a/2", None),
        ("/b", None),
        ("/a/x", None),
        ("/a/0/b", None),
    ] {
        assert_eq!(
            document.root.pointer(pointer).map(|value| value.start),
            expected,
            "{pointer}"
        );
    }
    assert!(matches!(
        document.root.pointer("/a/1/~0").unwrap().kind,
        Kind::Null
    ));
}

#[test]
fn offsets_are_those_of_the_whole_text() {
    let text = "<think>é</think> [1, 2x]";
    assert_eq!(
        parse(text, text.find("</think>").unwrap() + 8)
            .unwrap_err()
            .offset,
        text.find('x').unwrap()
    );
}

proptest::proptest! {
    #[test]
    fn agrees_with_serde_json(text in r#"[\[\]{}",:0-9a-e\\ .+\-ntrufals\n]{0,24}"#) {
        let ours = parse(&text, 0).is_ok();
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        // Only serde_json rejects numbers beyond a 64-bit float.
        let out_of_range = theirs.as_ref().err().is_some_and(|error| error.to_string().contains("out of range"));
        proptest::prop_assert!(out_of_range || ours == theirs.is_ok(), "{text:?}: ours {ours}, serde_json {theirs:?}");
    }
}
