//! Truncated JSON: an object's end, its first key, the head of a call.

/// Finds the end of a JSON object in a growing text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    pub(super) start: usize,
    pub(super) end: Option<usize>,
    /// The next byte to read.
    at: usize,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

/// The head of a call: `{"name": …, "arguments": {`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CallHead {
    /// A prefix of it, possibly empty.
    Partial,
    /// `arguments`: offset of their `{`.
    Whole {
        name: String,
        arguments: usize,
    },
    Other,
}

impl CallHead {
    pub(super) fn read(text: &str) -> Self {
        let mut name = None;
        let mut rest = text;
        for expected in ["{", "\"name\"", ":", "", ",", "\"arguments\"", ":"] {
            rest = rest.trim_start();
            let after = if expected.is_empty() {
                let end = string_end(rest);
                name = end.and_then(|end| serde_json::from_str::<String>(&rest[..end]).ok());
                match (end, &name) {
                    (Some(end), Some(_)) => Some(&rest[end..]),
                    (None, _) if rest.is_empty() || rest.starts_with('"') => return Self::Partial,
                    _ => None,
                }
            } else {
                rest.strip_prefix(expected)
            };
            match after {
                Some(after) => rest = after,
                None if expected.starts_with(rest) => return Self::Partial,
                None => return Self::Other,
            }
        }
        rest = rest.trim_start();
        match name {
            _ if rest.is_empty() => Self::Partial,
            Some(name) if rest.starts_with('{') => Self::Whole {
                name,
                arguments: text.len() - rest.len(),
            },
            _ => Self::Other,
        }
    }
}

/// End of the string at the start of a text, including quotes.
fn string_end(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let close = inner.bytes().position(|byte| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    })?;
    Some(close + 2)
}

impl Scan {
    pub(super) fn from(start: usize) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    /// Continues after the scanned text was removed.
    pub(super) fn rebase(&mut self) {
        (self.start, self.at) = (0, 0);
    }

    pub(super) fn end_of(&mut self, text: &str, start: usize) -> Option<usize> {
        self.start = start;
        self.at = self.at.max(start);
        while self.end.is_none()
            && let Some(&byte) = text.as_bytes().get(self.at)
        {
            self.at += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    self.end = (self.depth == 0).then_some(self.at);
                }
                _ => {}
            }
        }
        self.end
    }
}

/// Offset of the first non-space character at or after `from`.
pub(super) fn first_from(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?.trim_start();
    (!rest.is_empty()).then(|| text.len() - rest.len())
}

pub(super) fn first_key(object: &str) -> Option<&str> {
    let key = object.strip_prefix('{')?.trim_start();
    match key.strip_prefix('"') {
        Some(key) => key.split_once('"').map(|(key, _)| key),
        // Not an object: no key is known.
        None => key.chars().next().map(|_| ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_call_is_read_as_it_comes() {
        let text = "{\n \"name\": \"f\\\"é\" , \"arguments\":\n{";
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert_eq!(
                CallHead::read(&text[..end]),
                CallHead::Partial,
                "{}",
                &text[..end]
            );
        }
        let whole = CallHead::Whole {
            name: "f\"é".to_owned(),
            arguments: text.len() - 1,
        };
        assert_eq!(CallHead::read(&format!("{text}\"a\": 1")), whole);
        for text in [
            "[",
            "{\"arguments\"",
            "{\"name\": 7",
            "{\"name\": \"\\x\"",
            "{\"name\": \"f\", \"id\"",
            "{\"name\":\"f\",\"arguments\":\"{",
        ] {
            assert_eq!(CallHead::read(text), CallHead::Other, "{text}");
        }
    }
}
