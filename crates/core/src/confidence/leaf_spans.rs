//! Where the values of a JSON text are, as far as it can be read.

use std::ops::Range;

/// A value without values inside: a scalar, an empty list, an empty object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafSpan {
    /// JSON pointer.
    pub path: String,
    /// Of a string with its quotes.
    pub bytes: Range<usize>,
    /// Whether its end is decided by what follows.
    pub is_number: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LeafSpans {
    /// Complete values, in the order written.
    pub leaves: Vec<LeafSpan>,
    /// Whether the text is one JSON value.
    pub is_whole: bool,
}

/// Nesting that is followed.
const MAX_DEPTH: usize = 128;

pub fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
}

/// Whether a number may go on with this byte.
pub fn is_number_byte(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E')
}

/// The leaves of the JSON value that begins at byte `from` or after white space.
pub fn leaf_spans(text: &[u8], from: usize) -> LeafSpans {
    let mut scanner = Scanner {
        text,
        at: from,
        path: String::new(),
        leaves: Vec::new(),
    };
    let is_read = scanner.value(0).is_some();
    scanner.skip_white_space();
    LeafSpans {
        is_whole: is_read && scanner.at >= text.len(),
        leaves: scanner.leaves,
    }
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    path: String,
    leaves: Vec<LeafSpan>,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_white_space(&mut self) {
        while self.peek().is_some_and(is_white_space) {
            self.at += 1;
        }
    }

    /// `None`: the text ends, or is not JSON.
    fn value(&mut self, depth: usize) -> Option<()> {
        self.skip_white_space();
        let start = self.at;
        match self.peek()? {
            b'{' if depth < MAX_DEPTH => return self.items(b'}', depth),
            b'[' if depth < MAX_DEPTH => return self.items(b']', depth),
            b'"' => self.string()?,
            byte if is_number_byte(byte) => {
                while self.peek().is_some_and(is_number_byte) {
                    self.at += 1;
                }
            }
            _ => {
                let rest = &self.text[start..];
                let literals: [&[u8]; 3] = [b"true", b"false", b"null"];
                let found = literals.into_iter().find(|word| rest.starts_with(word))?;
                self.at += found.len();
            }
        }
        self.leaf(start);
        Some(())
    }

    fn leaf(&mut self, start: usize) {
        self.leaves.push(LeafSpan {
            path: self.path.clone(),
            bytes: start..self.at,
            is_number: is_number_byte(self.text[start]),
        });
    }

    /// Members or items, up to the closing bracket.
    fn items(&mut self, end: u8, depth: usize) -> Option<()> {
        let start = self.at;
        self.at += 1;
        self.skip_white_space();
        if self.peek()? == end {
            self.at += 1;
            self.leaf(start);
            return Some(());
        }
        let length = self.path.len();
        for number in 0.. {
            self.path.push('/');
            if end == b'}' {
                self.skip_white_space();
                let key = self.at;
                self.string()?;
                let name: String = serde_json::from_slice(&self.text[key..self.at]).ok()?;
                self.path
                    .push_str(&name.replace('~', "~0").replace('/', "~1"));
                self.skip_white_space();
                (self.peek()? == b':').then_some(())?;
                self.at += 1;
            } else {
                self.path.push_str(&number.to_string());
            }
            self.value(depth + 1)?;
            self.path.truncate(length);
            self.skip_white_space();
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                next if next == end => return Some(()),
                _ => return None,
            }
        }
        None
    }

    fn string(&mut self) -> Option<()> {
        (self.peek()? == b'"').then_some(())?;
        self.at += 1;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_found_up_to_where_the_text_is_json() {
        let check = |text: &str, expected: &[(&str, &str)], is_whole: bool| {
            let found = leaf_spans(text.as_bytes(), 0);
            let leaves = found.leaves.iter();
            let leaves: Vec<(&str, &str)> = leaves
                .map(|leaf| (leaf.path.as_str(), &text[leaf.bytes.clone()]))
                .collect();
            assert_eq!(
                (leaves.as_slice(), found.is_whole),
                (expected, is_whole),
                "{text}"
            );
        };
        check(
            r#" {"a": "x\"y", "b": [1, {"c/d": null}], "e": [], "f": {}, "g": -2.5e3} "#,
            &[
                ("/a", r#""x\"y""#),
                ("/b/0", "1"),
                ("/b/1/c~1d", "null"),
                ("/e", "[]"),
                ("/f", "{}"),
                ("/g", "-2.5e3"),
            ],
            true,
        );
        check("7", &[("", "7")], true);
        check(r#""é""#, &[("", r#""é""#)], true);
        check(r#"{"a": true, "b": "unclosed"#, &[("/a", "true")], false);
        check(r#"{"a": 1} and more"#, &[("/a", "1")], false);
        check(r#"{"a": 1; "b": 2}"#, &[("/a", "1")], false);
        check("```json\n{}", &[], false);
        check("", &[], false);
        check(r#""\"#, &[], false);
        check(&"[".repeat(200_000), &[], false);
    }
}
