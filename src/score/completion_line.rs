//! A line of a file of completions, as other programs write them.

/// The line's JSON. A `\ud800` that stands alone is kept as written: no text has that character, and the completion
/// with the escape in it is unparsable for that reason, while the other lines have their scores.
///
/// # Errors
/// Where the line is not JSON for another reason.
pub fn completion_line(line: &[u8]) -> Result<serde_json::Value, serde_json::Error> {
    let again = |text: &str| serde_json::from_str(&half_pairs_as_text(text)).ok();
    serde_json::from_slice(line).or_else(|error| std::str::from_utf8(line).ok().and_then(again).ok_or(error))
}

/// The line with `\\ud800` for each `\ud800` that is half of a surrogate pair and stands alone.
fn half_pairs_as_text(line: &str) -> String {
    let unit = |at: usize| {
        let digits = line.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut text = String::with_capacity(line.len() + 8);
    let mut at = 0;
    while let Some(found) = line.get(at..).and_then(|rest| rest.find('\\')).map(|found| at + found) {
        text.push_str(&line[at..found]);
        let length = match (unit(found), unit(found + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(_), _) => 6,
            (None, _) => 1 + line[found + 1..].chars().next().map_or(0, char::len_utf8),
        };
        at = found + length;
        let alone = length == 6 && matches!(unit(found), Some(0xD800..=0xDFFF));
        // After a backslash of its own it would read as an escaped backslash.
        match alone {
            true if text.ends_with("\\\\") => text.push('\u{fffd}'),
            true => text.extend(["\\", &line[found..at]]),
            false => text.push_str(&line[found..at]),
        }
    }
    text + &line[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_is_kept_as_text() {
        let check = |line: &str, completion: Option<&str>| {
            let found =
                completion_line(line.as_bytes()).ok().and_then(|value| value["completion"].as_str().map(str::to_owned));
            assert_eq!(found.as_deref(), completion, "{line}");
        };
        check(r#"{"completion":"a"}"#, Some("a"));
        check(r#"{"completion":"\"\ud800\""}"#, Some(r#""\ud800""#));
        check(r#"{"completion":"\udc00\ud83d\ude00\ud83d"}"#, Some("\\udc00😀\\ud83d"));
        check(r#"{"completion":"\\\ud800é"}"#, Some("\\\u{fffd}é"));
        check(r#"{"completion":"\ud800\u0041\n"}"#, Some("\\ud800A\n"));
        check(r#"{"completion":"\u12"}"#, None);
        check(r#"{"completion":"\ud800"#, None);
        check("\\", None);
    }
}
