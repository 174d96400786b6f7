//! JSON transcribed from another notation, with a map to positions in the completion.

use std::ops::Range;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Transcript {
    json: String,
    /// Ascending by `json`.
    pieces: Vec<Piece>,
}

/// Origin of a part of the JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    /// Start in the JSON, and in the completion.
    json: usize,
    text: usize,
    /// Whether bytes correspond one to one; otherwise all map to the first.
    is_copy: bool,
}

impl Transcript {
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// Adds JSON transcribed from byte `at` of the completion.
    pub(crate) fn literal(&mut self, json: &str, at: usize) {
        self.pieces.push(Piece {
            json: self.json.len(),
            text: at,
            is_copy: false,
        });
        self.json.push_str(json);
    }

    pub(crate) fn string(&mut self, content: &str, at: usize) {
        self.literal(&serde_json::Value::from(content).to_string(), at);
    }

    pub(crate) fn copy(&mut self, text: &str, range: Range<usize>) {
        self.pieces.push(Piece {
            json: self.json.len(),
            text: range.start,
            is_copy: true,
        });
        self.json.push_str(&text[range]);
    }

    pub(crate) fn into_list(mut self) -> Self {
        self.json = format!("[{}]", self.json);
        self.pieces.iter_mut().for_each(|piece| piece.json += 1);
        self
    }

    /// Maps an offset in [`Self::json`] to the completion.
    fn locate(&self, offset: usize) -> usize {
        let after = self.pieces.partition_point(|piece| piece.json <= offset);
        let Some(piece) = self.pieces.get(after.saturating_sub(1)) else {
            return 0;
        };
        piece.text
            + if piece.is_copy {
                offset.saturating_sub(piece.json)
            } else {
                0
            }
    }
}

/// The JSON of an answer: a part of the completion, or transcribed from it.
#[derive(Debug)]
pub(crate) struct AnswerText<'t> {
    pub(crate) completion: &'t str,
    transcript: Option<Transcript>,
}

impl<'t> AnswerText<'t> {
    pub(crate) fn in_place(completion: &'t str) -> Self {
        Self {
            completion,
            transcript: None,
        }
    }

    pub(crate) fn transcribed(completion: &'t str, transcript: Transcript) -> Self {
        Self {
            completion,
            transcript: Some(transcript),
        }
    }

    pub(crate) fn is_transcribed(&self) -> bool {
        self.transcript.is_some()
    }

    pub(crate) fn json(&self) -> &str {
        self.transcript
            .as_ref()
            .map_or(self.completion, Transcript::json)
    }

    /// Maps an offset in [`Self::json`] to the completion.
    pub(crate) fn locate(&self, offset: usize) -> usize {
        self.transcript
            .as_ref()
            .map_or(offset, |transcript| transcript.locate(offset))
    }
}
