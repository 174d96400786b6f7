//! A completion as it comes -> text, given out once it cannot become a call any more, and calls, each once it is complete.

use super::super::json;
use super::calls::{CLOSE, Call, OPEN, calls_of};
use crate::text::unfinished;

/// Of calls and of messages with calls: JSON that begins with another key is text.
const KEYS: [&str; 10] =
    ["name", "arguments", "function", "id", "type", "index", "tool_calls", "role", "content", "refusal"];

/// A part of what a completion says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(String),
    /// `arguments`: a JSON object.
    Call {
        name: String,
        arguments: String,
    },
}

/// Reads `<tool_call>` blocks wherever they stand, and a completion that begins as JSON.
#[derive(Debug)]
pub struct CallReader {
    /// Whether calls may stand without a block.
    takes_json: bool,
    place: Place,
    /// What was not given out.
    held: String,
    has_called: bool,
    scan: Scan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// There was only white space.
    Start,
    Text,
    /// In a block; `held` begins with it.
    Block,
    /// In an object without a block.
    Json {
        in_list: bool,
    },
    /// At the beginning of a list, or after one of its calls.
    List,
}

/// Finds the end of a JSON object in the text that is held.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    /// Of the object.
    start: usize,
    end: Option<usize>,
    /// The next byte to read.
    at: usize,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

/// What the text that is held is so far.
enum Found {
    /// It may be a call: more must come.
    Open,
    /// Calls, and where they end.
    Calls(Vec<Said>, usize),
    /// No call, whatever comes.
    Text,
}

impl CallReader {
    pub fn new(takes_json: bool) -> Self {
        Self { takes_json, place: Place::Start, held: String::new(), has_called: false, scan: Scan::default() }
    }

    /// What a piece of text completes.
    pub fn push(&mut self, text: &str) -> Vec<Said> {
        self.held.push_str(text);
        let mut said = Vec::new();
        while self.step(&mut said) {}
        said
    }

    /// What was held back; nothing comes after it.
    pub fn finish(&mut self) -> Vec<Said> {
        let rest = std::mem::take(&mut self.held);
        let text = if self.has_called { rest.trim_end() } else { &rest };
        let said = (!text.is_empty()).then(|| Said::Text(text.to_owned()));
        said.into_iter().collect()
    }

    /// Whether there may be more to give out.
    fn step(&mut self, said: &mut Vec<Said>) -> bool {
        let found = match self.place {
            Place::Start => {
                let first = self.held.trim_start().chars().next();
                self.place = match first {
                    None => return false,
                    Some('{') if self.takes_json => Place::Json { in_list: false },
                    Some('[') if self.takes_json => Place::List,
                    Some(_) => Place::Text,
                };
                return true;
            }
            Place::Text => return self.text(said),
            Place::List => match self.list() {
                Some(found) => found,
                None => return true,
            },
            Place::Block => self.block(),
            Place::Json { .. } => self.json(),
        };
        match found {
            Found::Open => return false,
            Found::Calls(calls, end) => {
                said.extend(calls);
                self.has_called = true;
                self.take(end);
                let in_list = self.place == Place::Json { in_list: true };
                self.place = if in_list { Place::List } else { Place::Text };
            }
            Found::Text => {
                // What stands in a block that is none may hold one.
                let end = if self.place == Place::Block { OPEN.len() } else { 0 };
                let text = self.take(end);
                said.extend((!text.is_empty()).then_some(Said::Text(text)));
                self.place = Place::Text;
            }
        }
        true
    }

    fn take(&mut self, end: usize) -> String {
        let rest = self.held.split_off(end);
        self.scan = Scan::default();
        std::mem::replace(&mut self.held, rest)
    }

    /// Gives out text up to a block, or to what may become one.
    fn text(&mut self, said: &mut Vec<Said>) -> bool {
        let block = self.held.find(OPEN);
        let end = block.unwrap_or_else(|| unfinished(&self.held, OPEN));
        // White space before a call is no text.
        let end_of_text = self.held[..end].trim_end().len();
        let text = self.held[..end_of_text].to_owned();
        self.take(if block.is_some() { end } else { end_of_text });
        said.extend((!text.is_empty()).then_some(Said::Text(text)));
        if block.is_some() {
            self.place = Place::Block;
        }
        block.is_some()
    }

    fn block(&mut self) -> Found {
        let Some(start) = first_from(&self.held, OPEN.len()) else { return Found::Open };
        if !self.held[start..].starts_with('{') {
            return Found::Text;
        }
        let Some(end) = self.scan.end_of(&self.held, start) else { return Found::Open };
        let after = self.held[end..].trim_start();
        match after.starts_with(CLOSE) {
            true => self.calls(self.held.len() - after.len() + CLOSE.len()),
            false if CLOSE.starts_with(after) => Found::Open,
            false => Found::Text,
        }
    }

    fn json(&mut self) -> Found {
        let start = self.scan.start.max(first_from(&self.held, 0).unwrap_or_default());
        let end = self.scan.end_of(&self.held, start);
        match (end, first_key(&self.held[start..])) {
            (_, Some(key)) if !KEYS.contains(&key) => Found::Text,
            (None, _) => Found::Open,
            (Some(end), _) => self.calls(end),
        }
    }

    /// Up to the next object of a list, or past its end; `None` there.
    fn list(&mut self) -> Option<Found> {
        let Some(start) = first_from(&self.held, 0) else { return Some(Found::Open) };
        let before = if self.has_called { ',' } else { '[' };
        if self.held[start..].starts_with(before) {
            let Some(item) = first_from(&self.held, start + 1) else { return Some(Found::Open) };
            if self.held[item..].starts_with('{') {
                self.place = Place::Json { in_list: true };
                self.scan = Scan { start: item, ..Scan::default() };
                return None;
            }
        } else if self.has_called && self.held[start..].starts_with(']') {
            self.take(start + 1);
            self.place = Place::Text;
            return None;
        }
        Some(Found::Text)
    }

    /// The calls of the object that was scanned; `end`: of what is taken with it.
    fn calls(&self, end: usize) -> Found {
        let text = &self.held[self.scan.start..self.scan.end.unwrap_or(self.held.len())];
        let read = || {
            let document = json::parse(text, 0).ok()?;
            let calls = calls_of(text, &document.root).ok()?;
            let said = |call: &Call<'_>| {
                let value = call.arguments.value();
                let arguments = call.arguments.text(text).get(value.start..value.end)?.to_owned();
                call.extra_key.is_none().then(|| Said::Call { name: call.name.to_owned(), arguments })
            };
            calls.iter().map(said).collect::<Option<Vec<_>>>().filter(|calls| !calls.is_empty())
        };
        read().map_or(Found::Text, |calls| Found::Calls(calls, end))
    }
}

impl Scan {
    /// The end of the object that begins at `start`.
    fn end_of(&mut self, text: &str, start: usize) -> Option<usize> {
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

/// Where the first character from a byte offset on stands that is not white space.
fn first_from(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?.trim_start();
    (!rest.is_empty()).then(|| text.len() - rest.len())
}

/// The first key of an object, once it is written.
fn first_key(object: &str) -> Option<&str> {
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

    fn shown(said: &[Said]) -> String {
        let mut shown = String::new();
        for part in said {
            match part {
                Said::Text(text) => shown.push_str(text),
                Said::Call { name, arguments } => shown.push_str(&format!("«{name} {arguments}»")),
            }
        }
        shown
    }

    fn read(text: &str, takes_json: bool) -> String {
        let mut reader = CallReader::new(takes_json);
        let mut said = reader.push(text);
        said.extend(reader.finish());
        shown(&said)
    }

    #[test]
    fn calls_are_taken_out_of_a_completion_however_it_comes() {
        let block = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\\\"\"}}\n</tool_call>";
        let call = "«f {\"a\": \"}</tool_call>\\\"\"}»";
        for (text, expected) in [
            (format!("Hm.\n{block} x"), format!("Hm.{call} x")),
            (format!("{block}\n{block}\n"), format!("{call}{call}")),
            (format!("\n\n{block}"), call.to_owned()),
            (format!("a < b <tool {block}"), format!("a < b <tool{call}")),
            (format!("<tool_call>no {block}"), format!("<tool_call>no{call}")),
            (format!("<tool_call>{{}}</tool_call>{block}"), format!("<tool_call>{{}}</tool_call>{call}")),
            (
                r#"[{"name":"f","arguments":{}} , {"name":"g","arguments":{"a":[{}]}}]"#.to_owned(),
                r#"«f {}»«g {"a":[{}]}»"#.to_owned(),
            ),
            (r#" {"name":"f","arguments":{}}"#.to_owned(), "«f {}»".to_owned()),
            (
                r#"{"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}"#.to_owned(),
                r#"«f {"a":1}»"#.to_owned(),
            ),
            (r#"[{"name":"f","arguments":{}}, 7]"#.to_owned(), "«f {}», 7]".to_owned()),
            (format!("[1] {block}"), format!("[1]{call}")),
        ] {
            assert_eq!(read(&text, true), expected, "{text}");
            let mut reader = CallReader::new(true);
            let mut letters = [0; 4];
            let mut said: Vec<Said> =
                text.chars().flat_map(|letter| reader.push(letter.encode_utf8(&mut letters))).collect();
            said.extend(reader.finish());
            assert_eq!(shown(&said), expected, "{text}, letter by letter");
        }
        for text in [
            "f()",
            "",
            " ",
            "\n[]\n",
            "{\"a\": 1}",
            "[7]",
            "[{}]",
            "{",
            "[",
            "[{",
            "{]",
            "{7",
            "<tool_call>{\"name\":\"f\",\"argu",
            "<tool_call>",
            "<tool",
            "{\"name\": \"f\"}",
            "{\"name\": \"f\", \"arguments\": {}, \"why\": 1}",
            "<tool_call>{\"name\":\"f\",\"arguments\":{}} x</tool_call>",
        ] {
            assert_eq!(read(text, true), text, "text is given out as it is");
        }
        assert_eq!(read("{\"name\":\"f\",\"arguments\":{}}", false), "{\"name\":\"f\",\"arguments\":{}}");
    }

    #[test]
    fn text_and_calls_are_given_out_as_soon_as_they_can_be() {
        let check = |parts: &[(&str, &str)]| {
            let mut reader = CallReader::new(true);
            for (text, expected) in parts {
                assert_eq!(shown(&reader.push(text)), *expected, "{text:?} in {parts:?}");
            }
        };
        check(&[
            ("I ", "I"),
            ("look <", " look"),
            ("b <tool", " <b"),
            ("_call>", ""),
            ("{\"name\": \"f\", \"arguments\": {}}", ""),
            ("</tool_call>", "«f {}»"),
            (" !", " !"),
        ]);
        check(&[("{\"ven", ""), ("dor\"", "{\"vendor\""), (": 1", ": 1")]);
        check(&[("[", ""), ("1", "[1"), (", 2", ", 2")]);
        check(&[
            ("[{\"name\":\"f\",\"arguments\":{}}", "«f {}»"),
            (",{\"name\":\"g\",", ""),
            ("\"arguments\":{}}", "«g {}»"),
            ("]", ""),
        ]);
        check(&[("<tool_call>", ""), ("x", "<tool_call>x")]);
    }
}
