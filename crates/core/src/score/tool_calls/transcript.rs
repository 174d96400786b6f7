//! Calls of any format as a JSON list of `{"name", "arguments"}`, with the way back to where they are written.

use std::ops::Range;

/// The list, as far as it is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Transcript {
    json: String,
    /// In rising order of `json`.
    pieces: Vec<Piece>,
    /// The name of the last call that begins with it, and where its arguments are.
    last: Option<(String, Range<usize>)>,
}

/// Where a part of the list comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    /// Where it begins in the list, and in the completion.
    json: usize,
    text: usize,
    /// Whether the bytes are the same, or all have the place of the first.
    is_copy: bool,
}

impl Transcript {
    /// The whole list.
    pub(super) fn json(&self) -> String {
        format!("[{}]", self.json)
    }

    /// The list without its brackets: the calls, with commas between.
    pub(super) fn calls(&self) -> &str {
        &self.json
    }

    /// The name of the last call, where that is known before its arguments.
    pub(super) fn name(&self) -> Option<String> {
        self.last.as_ref().map(|(name, _)| name.clone())
    }

    /// What is written of the last call from its arguments on, where its name is known before.
    pub(super) fn arguments(&self) -> Option<&str> {
        self.last.as_ref().and_then(|(_, range)| self.json.get(range.start..range.end.min(self.json.len())))
    }

    /// Begins a call that is copied whole.
    pub(super) fn begin_call(&mut self, at: usize) {
        let comma = if self.json.is_empty() { "" } else { ", " };
        self.literal(comma, at);
    }

    /// Begins a call, up to its arguments; [`Self::end_call`] ends it.
    pub(super) fn begin_named(&mut self, text: &str, name: Range<usize>) {
        self.begin_call(name.start);
        self.literal("{\"name\": ", name.start);
        self.string(&text[name.clone()], name.start);
        self.literal(", \"arguments\": ", name.end);
        self.last = Some((text[name].to_owned(), self.json.len()..usize::MAX));
    }

    pub(super) fn end_call(&mut self, at: usize) {
        self.last.iter_mut().for_each(|(_, range)| range.end = self.json.len());
        self.literal("}", at);
    }

    /// JSON that the completion does not have, for what it has at a byte offset.
    pub(super) fn literal(&mut self, json: &str, at: usize) {
        self.pieces.push(Piece { json: self.json.len(), text: at, is_copy: false });
        self.json.push_str(json);
    }

    /// A JSON string.
    pub(super) fn string(&mut self, content: &str, at: usize) {
        self.literal(&serde_json::Value::from(content).to_string(), at);
    }

    /// JSON as the completion has it.
    pub(super) fn copy(&mut self, text: &str, range: Range<usize>) {
        self.pieces.push(Piece { json: self.json.len(), text: range.start, is_copy: true });
        self.json.push_str(&text[range]);
    }

    /// The byte offset in the completion of one in [`Self::json`].
    pub(super) fn locate(&self, offset: usize) -> usize {
        let offset = offset.saturating_sub(1);
        let after = self.pieces.partition_point(|piece| piece.json <= offset);
        let Some(piece) = after.checked_sub(1).and_then(|index| self.pieces.get(index)) else { return 0 };
        piece.text + if piece.is_copy { offset - piece.json } else { 0 }
    }
}
