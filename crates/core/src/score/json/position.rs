//! Byte offsets to lines and columns, in one pass over the text for any number of places.

/// A position for people: line and column from 1, the column in Unicode scalar values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// 1-based; lines end with a line feed.
    pub line: usize,
    /// 1-based, in Unicode scalar values.
    pub column: usize,
}

/// Converts byte offsets to positions, forward through a text; an earlier offset starts over.
#[derive(Debug)]
pub struct Places<'t> {
    text: &'t str,
    offset: usize,
    place: Place,
}

impl<'t> Places<'t> {
    /// Places in this text.
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            offset: 0,
            place: Place { line: 1, column: 1 },
        }
    }

    /// The place of a byte offset. Ask in rising order: each step costs only the text between.
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
}
