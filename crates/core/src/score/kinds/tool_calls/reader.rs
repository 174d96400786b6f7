//! Streams a completion as text, emitted once it can no longer become a call, and calls: each when
//! complete, or piecewise if decoding is constrained to calls.

use super::calls::{Call, calls_of};
use super::partial_json::{CallHead, Scan, first_from, first_key};
use super::syntax::{CLOSE, OPEN};
use crate::score::answer::json;
use crate::text::unfinished;

/// First keys of calls and messages with calls: other JSON is text.
const KEYS: [&str; 10] = [
    "name",
    "arguments",
    "function",
    "id",
    "type",
    "index",
    "tool_calls",
    "role",
    "content",
    "refusal",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPart {
    Text(String),
    Name(String),
    /// More of the last call's arguments, as written: in total a JSON object, unless truncated.
    Arguments(String),
}

/// Reads `<tool_call>` blocks anywhere, or a completion that begins as JSON.
#[derive(Debug)]
pub(super) struct JsonReader {
    /// Whether calls are allowed without a block.
    takes_json: bool,
    /// Whether the start of a call guarantees a call.
    is_enforced: bool,
    place: Place,
    held: String,
    has_called: bool,
    scan: Scan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but white space so far.
    Start,
    Text,
    /// Inside a block; `held` begins with it.
    Block,
    /// Inside an object without a block.
    Json {
        in_list: bool,
    },
    List,
    /// Inside arguments that are emitted piecewise.
    Arguments {
        in_list: bool,
    },
    Closing {
        in_list: bool,
    },
}

enum ReadState {
    /// Possibly a call: needs more text.
    Open,
    Calls(Vec<AnswerPart>, usize),
    /// Not a call, whatever follows.
    Text,
}

impl JsonReader {
    /// `takes_json`: whether calls are allowed without a block. `is_enforced`: whether the start of
    /// a call guarantees a call, which is then emitted piecewise.
    pub(super) fn new(takes_json: bool, is_enforced: bool) -> Self {
        Self {
            takes_json,
            is_enforced,
            place: Place::Start,
            held: String::new(),
            has_called: false,
            scan: Scan::default(),
        }
    }

    pub(super) fn is_within_call(&self) -> bool {
        matches!(self.place, Place::Arguments { .. })
    }

    pub(super) fn push(&mut self, text: &str) -> Vec<AnswerPart> {
        self.held.push_str(text);
        let mut said = Vec::new();
        while self.step(&mut said) {}
        said
    }

    pub(super) fn finish(&mut self) -> Vec<AnswerPart> {
        let rest = std::mem::take(&mut self.held);
        // The closing of a call is not text, even if truncated.
        if matches!(self.place, Place::Closing { .. }) {
            return Vec::new();
        }
        let text = if self.has_called {
            rest.trim_end()
        } else {
            &rest
        };
        let said = (!text.is_empty()).then(|| AnswerPart::Text(text.to_owned()));
        said.into_iter().collect()
    }

    fn step(&mut self, said: &mut Vec<AnswerPart>) -> bool {
        if self.is_enforced
            && let Some(is_more) = self.piece(said)
        {
            return is_more;
        }
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
            // Only enforced calls get here.
            Place::Arguments { .. } | Place::Closing { .. } => ReadState::Text,
        };
        match found {
            ReadState::Open => return false,
            ReadState::Calls(calls, end) => {
                said.extend(calls);
                self.has_called = true;
                self.cut(end);
                let in_list = self.place == Place::Json { in_list: true };
                self.place = if in_list { Place::List } else { Place::Text };
            }
            ReadState::Text => {
                // A block that is not a call may contain one.
                let end = if self.place == Place::Block {
                    OPEN.len()
                } else {
                    0
                };
                let text = self.cut(end);
                said.extend((!text.is_empty()).then_some(AnswerPart::Text(text)));
                self.place = Place::Text;
            }
        }
        true
    }

    /// As [`Self::step`] for an enforced call; `None` if there is none so far.
    fn piece(&mut self, said: &mut Vec<AnswerPart>) -> Option<bool> {
        let (start, in_list) = match self.place {
            Place::Block => (OPEN.len(), false),
            Place::Json { in_list: true } => (self.scan.start, true),
            Place::Arguments { in_list } => {
                let end = self.scan.end_of(&self.held, 0);
                let text = match end {
                    Some(end) => self.cut(end),
                    None => std::mem::take(&mut self.held),
                };
                self.scan.rebase();
                if end.is_some() {
                    self.place = Place::Closing { in_list };
                }
                said.extend((!text.is_empty()).then_some(AnswerPart::Arguments(text)));
                return Some(end.is_some());
            }
            Place::Closing { in_list } => return self.closing(in_list),
            _ => return None,
        };
        match CallHead::read(&self.held[start..]) {
            CallHead::Partial => Some(false),
            CallHead::Whole { name, arguments } => {
                self.cut(start + arguments);
                self.place = Place::Arguments { in_list };
                self.has_called = true;
                said.push(AnswerPart::Name(name));
                Some(true)
            }
            CallHead::Other => None,
        }
    }

    fn closing(&mut self, in_list: bool) -> Option<bool> {
        let rest = self.held.trim_start();
        let close = if in_list { "" } else { CLOSE };
        let after = rest
            .strip_prefix('}')
            .map(|rest| if in_list { rest } else { rest.trim_start() });
        match after {
            Some(after) if after.starts_with(close) => {
                self.cut(self.held.len() - after.len() + close.len());
                self.place = if in_list { Place::List } else { Place::Text };
                Some(true)
            }
            Some(after) if close.starts_with(after) => Some(false),
            None if rest.is_empty() => Some(false),
            _ => None,
        }
    }

    fn cut(&mut self, end: usize) -> String {
        let rest = self.held.split_off(end);
        self.scan = Scan::default();
        std::mem::replace(&mut self.held, rest)
    }

    fn text(&mut self, said: &mut Vec<AnswerPart>) -> bool {
        let block = self.held.find(OPEN);
        let end = block.unwrap_or_else(|| unfinished(&self.held, OPEN));
        // Drops white space before a call.
        let end_of_text = self.held[..end].trim_end().len();
        let text = self.held[..end_of_text].to_owned();
        self.cut(if block.is_some() { end } else { end_of_text });
        said.extend((!text.is_empty()).then_some(AnswerPart::Text(text)));
        if block.is_some() {
            self.place = Place::Block;
        }
        block.is_some()
    }

    fn block(&mut self) -> ReadState {
        let Some(start) = first_from(&self.held, OPEN.len()) else {
            return ReadState::Open;
        };
        if !self.held[start..].starts_with('{') {
            return ReadState::Text;
        }
        let Some(end) = self.scan.end_of(&self.held, start) else {
            return ReadState::Open;
        };
        let after = self.held[end..].trim_start();
        match after.starts_with(CLOSE) {
            true => self.calls(self.held.len() - after.len() + CLOSE.len()),
            false if CLOSE.starts_with(after) => ReadState::Open,
            false => ReadState::Text,
        }
    }

    fn json(&mut self) -> ReadState {
        let start = self
            .scan
            .start
            .max(first_from(&self.held, 0).unwrap_or_default());
        let end = self.scan.end_of(&self.held, start);
        match (end, first_key(&self.held[start..])) {
            (_, Some(key)) if !KEYS.contains(&key) => ReadState::Text,
            (None, _) => ReadState::Open,
            (Some(end), _) => self.calls(end),
        }
    }

    /// Skips to the next object of a list, or past its end; then `None`.
    fn list(&mut self) -> Option<ReadState> {
        let Some(start) = first_from(&self.held, 0) else {
            return Some(ReadState::Open);
        };
        let before = if self.has_called { ',' } else { '[' };
        if self.held[start..].starts_with(before) {
            let Some(item) = first_from(&self.held, start + 1) else {
                return Some(ReadState::Open);
            };
            if self.held[item..].starts_with('{') {
                self.place = Place::Json { in_list: true };
                self.scan = Scan::from(item);
                return None;
            }
        } else if self.has_called && self.held[start..].starts_with(']') {
            self.cut(start + 1);
            self.place = Place::Text;
            return None;
        }
        Some(ReadState::Text)
    }

    /// Calls of the scanned object; `end`: end of the consumed text.
    fn calls(&self, end: usize) -> ReadState {
        let text = &self.held[self.scan.start..self.scan.end.unwrap_or(self.held.len())];
        let read = || {
            let document = json::parse(text, 0).ok()?;
            let calls = calls_of(text, &document.root).ok()?;
            parts_of(&calls, text).filter(|parts| !parts.is_empty())
        };
        read().map_or(ReadState::Text, |calls| ReadState::Calls(calls, end))
    }
}

/// Names and arguments of calls in a text; `None` if one is malformed.
pub(super) fn parts_of(calls: &[Call<'_>], text: &str) -> Option<Vec<AnswerPart>> {
    let mut parts = Vec::new();
    for call in calls {
        let value = call.arguments.value();
        let arguments = call.arguments.text(text).get(value.start..value.end)?;
        if call.extra_key.is_some() || call.has_none {
            return None;
        }
        parts.push(AnswerPart::Name(call.name.to_owned()));
        parts.push(AnswerPart::Arguments(arguments.to_owned()));
    }
    Some(parts)
}

#[cfg(test)]
mod tests;
