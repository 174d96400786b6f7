//! JSON files as Python reads them.

use std::borrow::Cow;

/// Removes a byte order mark, and replaces `NaN` and `Infinity` (which Python accepts) by null.
pub(super) fn plain_json(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let text = text.trim_start_matches('\u{feff}');
    if !WORDS.iter().any(|word| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let (mut plain, mut rest, mut in_string) = (String::with_capacity(text.len()), text, false);
    while let Some(next) = rest.chars().next() {
        let word = WORDS
            .iter()
            .find(|word| !in_string && rest.starts_with(**word));
        let length = match (word, next) {
            (Some(word), _) => {
                plain.push_str("null");
                rest = &rest[word.len()..];
                continue;
            }
            // The escaped character is skipped.
            (None, '\\') if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, next) => {
                in_string ^= next == '"';
                next.len_utf8()
            }
        };
        plain.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_reads_becomes_plain_json() {
        for (text, expected) in [
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("\u{feff}{\"a\": 1}", "{\"a\": 1}"),
            ("[0.0, Infinity, -Infinity, NaN]", "[0.0, null, null, null]"),
            (
                r#"{"Infinity": NaN, "b\"": "NaN é", "\\": Infinity}"#,
                r#"{"Infinity": null, "b\"": "NaN é", "\\": null}"#,
            ),
        ] {
            assert_eq!(plain_json(text), expected);
        }
    }
}
