//! Prepares a reply's text for the model: bounded, without terminal control characters.

use crate::format::grouped;
use crate::secrets::visible_lines;

/// Removes control characters but line ends and truncates to `most_bytes` with a note.
pub(super) fn reply_text(raw: &str, most_bytes: usize) -> String {
    // A control character becomes at most three bytes.
    let start = cut(raw, most_bytes.saturating_add(1));
    let text = visible_lines(start).into_owned();
    if start.len() == raw.len() && text.len() <= most_bytes {
        return text;
    }
    let note = |shown: usize| {
        format!(
            "\n[cut: the first {} of {} bytes]",
            grouped(shown as u64),
            grouped(raw.len() as u64)
        )
    };
    let shown = cut(&text, most_bytes.saturating_sub(note(most_bytes).len()));
    let note = note(shown.len());
    format!("{shown}{}", cut(&note, most_bytes - shown.len()))
}

/// The longest prefix of whole characters within `most_bytes`.
fn cut(text: &str, most_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(most_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_said_and_nothing_speaks_to_a_terminal() {
        let long = "ä".repeat(100);
        for (raw, most, expected) in [
            ("", 64, ""),
            ("two\nlines\r\n", 64, "two\nlines\n"),
            ("\u{1b}]0;title\u{7}\0\u{202e}", 64, "␛]0;title␇␀\u{fffd}"),
            (&"x".repeat(64), 64, &"x".repeat(64)),
            (
                &"x".repeat(65),
                64,
                &format!("{}\n[cut: the first 32 of 65 bytes]", "x".repeat(32)),
            ),
            (
                &long,
                64,
                &format!("{}\n[cut: the first 30 of 200 bytes]", "ä".repeat(15)),
            ),
            ("\u{1b}\u{1b}\u{1b}", 8, "\n[cut: t"),
        ] {
            let found = reply_text(raw, most);
            assert_eq!(found, expected, "{raw:?}");
            assert!(found.len() <= most);
        }
    }
}
