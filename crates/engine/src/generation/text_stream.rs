//! Text of a completion from its tokens: whole characters, without possible prefixes of stop
//! strings.

use std::sync::Arc;

use crate::constraint::Reasoning;
use crate::text::{TextError, ThinkMarks, Tokenizer, unfinished};

#[derive(Debug)]
pub(crate) struct TextStream {
    tokenizer: Arc<Tokenizer>,
    stops: Arc<Vec<String>>,
    ids: Vec<u32>,
    /// Tokens already turned into text; some before are decoded again, since a token's text depends
    /// on its predecessors.
    read: usize,
    context: usize,
    /// Held-back text.
    held: String,
    is_stopped: bool,
}

impl TextStream {
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, stops: Arc<Vec<String>>) -> Self {
        Self {
            tokenizer,
            stops,
            ids: Vec::new(),
            read: 0,
            context: 0,
            held: String::new(),
            is_stopped: false,
        }
    }

    /// Whether a stop string has occurred.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Text completed by a token.
    ///
    /// # Errors
    /// Token ids that the tokenizer cannot decode.
    pub(crate) fn push(&mut self, id: u32) -> Result<String, TextError> {
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

    /// The held-back rest.
    pub(crate) fn finish(&mut self) -> Result<String, TextError> {
        if !self.is_stopped {
            let (before, text) = self.decoded()?;
            self.hold(&before, &text);
            self.read = self.ids.len();
        }
        Ok(self.release(true))
    }

    /// Text of the last tokens, without and with the newest.
    fn decoded(&self) -> Result<(String, String), TextError> {
        let text = |ids| self.tokenizer.decode(ids, true);
        let (context, read) = (self.context, self.read);
        Ok((text(&self.ids[context..read])?, text(&self.ids[context..])?))
    }

    fn hold(&mut self, before: &str, text: &str) {
        let held = &mut self.held;
        held.push_str(text.strip_prefix(before).unwrap_or_default());
        // The earliest; order is irrelevant for ties.
        let stops = self.stops.iter().filter_map(|stop| held.find(stop));
        if let Some(at) = stops.min() {
            self.held.truncate(at);
            self.is_stopped = true;
        }
    }

    fn release(&mut self, all: bool) -> String {
        if all || self.is_stopped {
            return std::mem::take(&mut self.held);
        }
        let ends = self.stops.iter().map(|stop| unfinished(&self.held, stop));
        let end = ends.min().unwrap_or(self.held.len());
        let rest = self.held.split_off(end);
        std::mem::replace(&mut self.held, rest)
    }
}

/// Separates the think block from streamed text.
#[derive(Debug)]
pub(crate) struct ThinkBlock {
    marks: &'static ThinkMarks,
    place: Place,
    held: String,
}

#[derive(Debug)]
enum Place {
    /// It may begin.
    Before,
    Inside,
    /// White space after the block is dropped; another message may follow.
    Gap,
    After,
}

impl ThinkBlock {
    /// `None` if completions have none.
    pub(crate) fn new(reasoning: Reasoning, marks: &'static ThinkMarks) -> Option<Self> {
        let place = match reasoning {
            Reasoning::Off if marks.answer.is_empty() => return None,
            Reasoning::Off => Place::Before,
            Reasoning::Allowed => Place::Before,
            Reasoning::Open => Place::Inside,
        };
        Some(Self {
            marks,
            place,
            held: String::new(),
        })
    }

    /// Whether the text ends inside the block.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.place, Place::Inside)
    }

    /// Splits a piece of text into block and remaining text.
    pub(crate) fn push(&mut self, text: &str, is_end: bool) -> (String, String) {
        let ThinkMarks {
            open,
            close,
            turn,
            answer,
            ..
        } = *self.marks;
        self.held.push_str(text);
        let mut thought = String::new();
        loop {
            match self.place {
                Place::Before => {
                    let begun = self.held.trim_start();
                    if let Some(rest) = begun.strip_prefix(open) {
                        (self.place, self.held) = (Place::Inside, rest.to_owned());
                    } else if !answer.is_empty()
                        && let Some(rest) = begun.strip_prefix(answer)
                    {
                        (self.place, self.held) = (Place::After, rest.to_owned());
                    } else if is_end || ![open, answer].iter().any(|mark| mark.starts_with(begun)) {
                        self.place = Place::After;
                    } else {
                        return (thought, String::new());
                    }
                }
                Place::Inside => {
                    let closed = self.held.find(close);
                    let end = match is_end {
                        true => self.held.len(),
                        false => unfinished(&self.held, close),
                    };
                    thought.extend(self.held.drain(..closed.unwrap_or(end)));
                    if closed.is_none() {
                        return (thought, String::new());
                    }
                    self.held.drain(..close.len());
                    self.place = Place::Gap;
                }
                Place::Gap => {
                    self.held = self.held.trim_start().to_owned();
                    match self.held.strip_prefix(turn).filter(|_| !turn.is_empty()) {
                        Some(rest) => (self.place, self.held) = (Place::Before, rest.to_owned()),
                        None if self.held.is_empty() || !is_end && turn.starts_with(&self.held) => {
                            return (thought, String::new());
                        }
                        None => self.place = Place::After,
                    }
                }
                Place::After => return (thought, std::mem::take(&mut self.held)),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_think_block_is_taken_out_of_a_text_however_it_comes() {
        use crate::text::THINK_MARKS;
        let [gemma, harmony, mistral, tags] = &THINK_MARKS;
        for (marks, reasoning, text, thought, said) in [
            (
                tags,
                Reasoning::Allowed,
                "<think>so</think>\n\n[1] </think>",
                "so",
                "[1] </think>",
            ),
            (
                tags,
                Reasoning::Allowed,
                "\n<think>a <b </thin</think>x",
                "a <b </thin",
                "x",
            ),
            (tags, Reasoning::Allowed, "<thin", "", "<thin"),
            (
                tags,
                Reasoning::Allowed,
                " a <think>b</think>",
                "",
                " a <think>b</think>",
            ),
            (tags, Reasoning::Allowed, "<think>so </th", "so </th", ""),
            (
                tags,
                Reasoning::Allowed,
                "<|channel>thought\na<channel|>b",
                "",
                "<|channel>thought\na<channel|>b",
            ),
            (tags, Reasoning::Open, "\nso\n</think>\n", "\nso\n", ""),
            (tags, Reasoning::Open, "</think>a", "", "a"),
            (
                gemma,
                Reasoning::Allowed,
                "<|channel>thought\nso\n<channel|>[1]",
                "\nso\n",
                "[1]",
            ),
            (
                gemma,
                Reasoning::Allowed,
                "<|channel>other<channel|>",
                "",
                "<|channel>other<channel|>",
            ),
            (
                gemma,
                Reasoning::Allowed,
                "<think>so</think>[1]",
                "",
                "<think>so</think>[1]",
            ),
            (
                gemma,
                Reasoning::Open,
                "\nso <channel|><|tool_call>call:f{}",
                "\nso ",
                "<|tool_call>call:f{}",
            ),
            (
                mistral,
                Reasoning::Allowed,
                "[THINK]so[/THINK] a",
                "so",
                "a",
            ),
            (
                harmony,
                Reasoning::Off,
                "<|channel|>final<|message|>[1]",
                "",
                "[1]",
            ),
            (
                harmony,
                Reasoning::Allowed,
                "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>[1]",
                "so",
                "[1]",
            ),
            (
                harmony,
                Reasoning::Allowed,
                "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>",
                "ab",
                "",
            ),
            (
                harmony,
                Reasoning::Allowed,
                "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.f <|message|>{}",
                "a",
                "<|channel|>commentary to=functions.f <|message|>{}",
            ),
        ] {
            for step in [1, 2, 100] {
                let mut block = ThinkBlock::new(reasoning, marks).unwrap();
                let letters: Vec<char> = text.chars().collect();
                let mut parts: Vec<_> = letters
                    .chunks(step)
                    .map(|part| block.push(&part.iter().collect::<String>(), false))
                    .collect();
                parts.push(block.push("", true));
                let joined: (String, String) = parts.into_iter().unzip();
                assert_eq!(
                    joined,
                    (thought.to_owned(), said.to_owned()),
                    "{reasoning:?} {text} by {step}"
                );
            }
        }
        assert!(ThinkBlock::new(Reasoning::Off, tags).is_none());
    }

    #[test]
    fn text_comes_in_whole_characters_and_ends_before_a_stop_text() {
        let tokenizer =
            Arc::new(Tokenizer::load(&crate::hub::find_model("tiny").unwrap()).unwrap());
        let check = |text: &str, stops: &[&str], expected: &str, is_stopped: bool| {
            let stops = Arc::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
            let mut stream = TextStream::new(Arc::clone(&tokenizer), stops);
            let mut found = String::new();
            for id in tokenizer.encode(text).unwrap() {
                let piece = stream.push(id).unwrap();
                assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{text}");
                found.push_str(&piece);
                assert!(
                    expected.starts_with(&found),
                    "{found} of {expected}: given out too early"
                );
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
