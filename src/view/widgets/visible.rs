//! Text of others as it may be drawn: nothing of it moves the terminal's cursor, changes its state or turns the direction of the text.

/// The letter that is drawn in a letter's place, as wide as any other: control characters have pictures, the rest of what speaks to a terminal has none.
pub fn letter(letter: char) -> char {
    match letter {
        '\t' => ' ',
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(letter)).unwrap_or('?'),
        '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        letter => letter,
    }
}

/// A text of such letters.
pub fn visible(text: &str) -> String {
    text.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_speaks_to_a_terminal_is_left() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text), expected);
        check("a\tb ä日", "a b ä日");
        check("\u{1b}[2Jx\u{9b}y\u{202e}\u{feff}", "␛[2Jx\u{fffd}y\u{fffd}\u{fffd}");
        assert!((0..=0x10ffff).filter_map(char::from_u32).all(|each| !letter(each).is_control()));
    }
}
