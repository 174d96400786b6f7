//! The text of a completion as its tokens come: whole characters, and nothing that may yet become a stop text.

use std::sync::Arc;

use crate::text::{TextError, Tokenizer};

#[derive(Debug)]
pub(super) struct TextStream {
    tokenizer: Arc<Tokenizer>,
    stops: Arc<Vec<String>>,
    ids: Vec<u32>,
    /// The tokens before this one are text; some before it are decoded again, because a token's text depends on those
    /// before it.
    read: usize,
    context: usize,
    /// Text that is not given out yet.
    held: String,
    is_stopped: bool,
}

impl TextStream {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, stops: Arc<Vec<String>>) -> Self {
        Self { tokenizer, stops, ids: Vec::new(), read: 0, context: 0, held: String::new(), is_stopped: false }
    }

    /// Whether a stop text has come: what follows is no part of the completion.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The text that a token completes.
    ///
    /// # Errors
    /// Where the tokenizer's own rules fail.
    pub(super) fn push(&mut self, id: u32) -> Result<String, TextError> {
        if self.is_stopped {
            return Ok(String::new());
        }
        self.ids.push(id);
        let (before, text) = self.decoded()?;
        // A character may take several tokens.
        if text.len() > before.len() && !text.ends_with(char::REPLACEMENT_CHARACTER) {
            self.hold(&before, &text);
            (self.context, self.read) = (self.read, self.ids.len());
        }
        Ok(self.release(false))
    }

    /// The text that was held back; nothing comes after it.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub(super) fn finish(&mut self) -> Result<String, TextError> {
        if !self.is_stopped {
            let (before, text) = self.decoded()?;
            self.hold(&before, &text);
            self.read = self.ids.len();
        }
        Ok(self.release(true))
    }

    /// The text of the last tokens, without the newest and with them.
    fn decoded(&self) -> Result<(String, String), TextError> {
        let before = self.tokenizer.decode(&self.ids[self.context..self.read], true)?;
        Ok((before, self.tokenizer.decode(&self.ids[self.context..], true)?))
    }

    fn hold(&mut self, before: &str, text: &str) {
        self.held.push_str(text.strip_prefix(before).unwrap_or_default());
        // The earliest; of several there the one that is named first makes no difference.
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            self.is_stopped = true;
        }
    }

    fn release(&mut self, all: bool) -> String {
        if all || self.is_stopped {
            return std::mem::take(&mut self.held);
        }
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let nearest = self.held.len().saturating_sub(longest);
        let places = self.held.char_indices().map(|(at, _)| at).filter(|at| *at >= nearest);
        let end = places.into_iter().find(|at| begins(*at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(end);
        std::mem::replace(&mut self.held, rest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_in_whole_characters_and_ends_before_a_stop_text() {
        let tokenizer = Arc::new(Tokenizer::load(&crate::hub::find_model("tiny").unwrap()).unwrap());
        let check = |text: &str, stops: &[&str], expected: &str, is_stopped: bool| {
            let stops = Arc::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
            let mut stream = TextStream::new(Arc::clone(&tokenizer), stops);
            let mut found = String::new();
            for id in tokenizer.encode(text).unwrap() {
                let piece = stream.push(id).unwrap();
                assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{text}");
                found.push_str(&piece);
                assert!(expected.starts_with(&found), "{found} of {expected}: given out too early");
            }
            assert_eq!(stream.is_stopped(), is_stopped, "{text}");
            found.push_str(&stream.finish().unwrap());
            assert_eq!(found, expected);
        };
        check("total: 7 €, café 🦀\n", &[], "total: 7 €, café 🦀\n", false);
        check("one two three", &["two"], "one ", true);
        check("one two three", &["three", "two"], "one ", true);
        check("aab", &["ab"], "a", true);
        check("one tw", &["two"], "one tw", false);
        check("🦀🦀", &["🦀🦀🦀"], "🦀🦀", false);
        check("", &["x"], "", false);
    }
}
