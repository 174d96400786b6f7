//! Byte offsets to lines and columns, in one pass over the text.

/// Line and column from 1, the column in Unicode scalar values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// Converts byte offsets to positions, scanning forward; an earlier offset starts over.
#[derive(Debug)]
pub struct Places<'t> {
    text: &'t str,
    offset: usize,
    place: Place,
}

impl<'t> Places<'t> {
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            offset: 0,
            place: Place { line: 1, column: 1 },
        }
    }

    /// Fastest in ascending order: each call scans the text between.
    pub fn locate(&mut self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        if offset < self.offset {
            *self = Self::new(self.text);
        }
        for &byte in self
            .text
            .as_bytes()
            .get(self.offset..offset)
            .unwrap_or_default()
        {
            if byte == b'\n' {
                self.place = Place {
                    line: self.place.line + 1,
                    column: 1,
                };
            } else if byte & 0xC0 != 0x80 {
                self.place.column += 1;
            }
        }
        self.offset = offset;
        self.place
    }
}

/// Maps byte offsets in an unescaped JSON string to offsets in the text.
#[derive(Debug)]
pub(crate) struct StringPlaces<'t> {
    text: &'t str,
    quote: usize,
    at: usize,
    resolved: usize,
}

impl<'t> StringPlaces<'t> {
    /// `quote`: byte offset of the opening quote.
    pub(crate) fn new(text: &'t str, quote: usize) -> Self {
        Self {
            text,
            quote,
            at: quote + 1,
            resolved: 0,
        }
    }

    /// Byte offset in the text. Fastest in ascending order.
    pub(crate) fn locate(&mut self, content: usize) -> usize {
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

    /// Length in bytes of the next character, as written and unescaped.
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
    fn counts_scalars_and_lines() {
        let text = "aé🦀\nb\r\nc";
        let mut places = Places::new(text);
        for (offset, line, column) in [
            (0, 1, 1),
            (1, 1, 2),
            (3, 1, 3),
            (7, 1, 4),
            (8, 2, 1),
            (11, 3, 1),
            (12, 3, 2),
            (99, 3, 2),
            (1, 1, 2),
        ] {
            assert_eq!(
                places.locate(offset),
                Place { line, column },
                "offset {offset}"
            );
        }
    }

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
