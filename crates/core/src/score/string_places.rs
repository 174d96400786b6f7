//! Places inside of a JSON string: where a byte of its content is in the text.

/// Maps bytes of a JSON string's content, escapes resolved, to bytes of the text.
#[derive(Debug)]
pub(super) struct StringPlaces<'t> {
    text: &'t str,
    quote: usize,
    at: usize,
    resolved: usize,
}

impl<'t> StringPlaces<'t> {
    /// `quote`: byte offset of the opening quote.
    pub(super) fn new(text: &'t str, quote: usize) -> Self {
        Self {
            text,
            quote,
            at: quote + 1,
            resolved: 0,
        }
    }

    /// The byte offset in the text. Ask in rising order: each step costs only what is between.
    pub(super) fn locate(&mut self, content: usize) -> usize {
        if content < self.resolved {
            *self = Self::new(self.text, self.quote);
        }
        while self.resolved < content {
            let (written, resolved) = self.character();
            self.at += written;
            self.resolved += resolved;
        }
        self.at.min(self.text.len())
    }

    /// Bytes of the next character, as written and resolved.
    fn character(&self) -> (usize, usize) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let unit = |at: usize| {
            rest.get(at + 2..at + 6)
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        };
        match rest.as_bytes() {
            [b'\\', b'u', ..] => match unit(0) {
                Some(0xD800..0xDC00) => (12, 4),
                code => (6, code.and_then(char::from_u32).map_or(1, char::len_utf8)),
            },
            [b'\\', ..] => (2, 1),
            _ => rest
                .chars()
                .next()
                .map_or((1, 1), |letter| (letter.len_utf8(), letter.len_utf8())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_string_are_found_in_its_text() {
        let text = r#"x"a\n\"\u00e9é\ud83d\ude00z""#;
        let mut places = StringPlaces::new(text, 1);
        for (content, at) in [
            (0, 2),
            (1, 3),
            (2, 5),
            (3, 7),
            (5, 13),
            (7, 15),
            (11, 27),
            (12, 28),
            (1, 3),
            (99, text.len()),
        ] {
            assert_eq!(places.locate(content), at, "byte {content}");
        }
    }
}
