//! Escapes untrusted text for display: nothing in it moves the cursor, changes the terminal's state
//! or reorders the text around it.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a letter controls a terminal or the text around it: C0, DEL, C1, bidirectional and line
/// controls, invisible tags.
pub fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Replaces a control character by its picture (ASCII) or a placeholder of width 1.
pub fn visible_letter(letter: char) -> char {
    match letter {
        '\t' => ' ',
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(letter)).unwrap_or('?'),
        letter if is_control(letter) => '\u{fffd}',
        letter => letter,
    }
}

/// Returns the text as one line without control characters.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.contains(is_control) {
        Cow::Owned(text.chars().map(visible_letter).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// As [`visible`], keeping line ends.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    if !text.contains(|letter| letter != '\n' && is_control(letter)) {
        return Cow::Borrowed(text);
    }
    let letters = |line: &str| {
        line.strip_suffix('\r')
            .unwrap_or(line)
            .chars()
            .map(visible_letter)
            .collect::<String>()
    };
    Cow::Owned(text.split('\n').map(letters).collect::<Vec<_>>().join("\n"))
}

pub fn visible_json(json: &str) -> Cow<'_, str> {
    let is_escaped = |letter: char| letter != '\n' && is_control(letter);
    // Few texts have a byte with which such letters begin; without branches, many are compared at once.
    let may_begin = |byte: u8| {
        (byte < 0x20) & (byte != b'\n')
            | (byte == 0x7f)
            | (byte == 0xc2)
            | (byte == 0xd8)
            | (byte == 0xe2)
            | (byte == 0xef)
            | (byte == 0xf3)
    };
    let mut blocks = json.as_bytes().chunks(64).enumerate();
    let has_escaped = |(number, block): (usize, &[u8])| {
        block
            .iter()
            .fold(false, |found, byte| found | may_begin(*byte))
            && block.iter().enumerate().any(|(at, byte)| {
                may_begin(*byte) && json[64 * number + at..].starts_with(is_escaped)
            })
    };
    if !blocks.any(has_escaped) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        if is_escaped(letter) {
            // Writing into a String cannot fail.
            letter
                .encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| _ = write!(escaped, "\\u{unit:04x}"));
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_speaks_to_a_terminal_is_left() {
        let check = |text: &str, line: &str, lines: &str| {
            assert_eq!(
                (visible(text).as_ref(), visible_lines(text).as_ref()),
                (line, lines)
            )
        };
        check("a\tb ä日", "a b ä日", "a b ä日");
        check(
            "\u{1b}[2Jx\u{9b}y\u{202e}\u{feff}",
            "␛[2Jx\u{fffd}y\u{fffd}\u{fffd}",
            "␛[2Jx\u{fffd}y\u{fffd}\u{fffd}",
        );
        check("a\r\nb\rc\n", "a␍␊b␍c␊", "a\nb␍c\n");
        check(
            "\u{2028}\u{2066}\u{e0041}\u{61c}",
            "\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            "\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
        );
        for letter in (0..=0x10ffff).filter_map(char::from_u32) {
            assert!(!is_control(visible_letter(letter)), "{letter:?}");
        }
    }

    #[test]
    fn json_stays_the_same_document() {
        let all: String = (0..=0x10ffff)
            .filter_map(char::from_u32)
            .filter(|letter| is_control(*letter))
            .collect();
        let document = serde_json::json!({ all.clone(): [all.clone(), format!("\\{all}\"")] });
        for json in [document.to_string(), format!("{document:#}\n")] {
            let shown = visible_json(&json);
            assert!(!shown.contains(|letter| letter != '\n' && is_control(letter)));
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
                document
            );
        }
        for letter in all.chars().filter(|letter| *letter != '\n') {
            let late = format!("{}{letter}", "ä".repeat(50));
            assert!(!visible_json(&late).contains(letter));
        }
        assert!(matches!(
            visible_json("{\"a\": \"ä日…\"}"),
            Cow::Borrowed(_)
        ));
    }
}
