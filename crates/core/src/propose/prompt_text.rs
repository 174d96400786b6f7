//! The text of a prompt as values are sought in it: its words with the places where a value may begin and end, its
//! lines, dates, numbers and currencies.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::dataset::PromptRow;
use crate::score::{WrittenDate, WrittenNumber, currencies_in, dates_in, numbers_in};

/// Longer prompts are cut off: a value beyond is not proposed.
const MAX_BYTES: usize = 20_000;

/// A word between white space.
pub(super) struct Word {
    pub(super) span: Range<usize>,
    pub(super) line: usize,
    /// Where a value may begin in it, and end: with and without punctuation, a label, a sign or a unit.
    pub(super) starts: Vec<usize>,
    pub(super) ends: Vec<usize>,
}

/// Letters and digits in a row, or one other character, in lower case with every digit as 9.
pub(super) struct Token {
    pub(super) span: Range<usize>,
    pub(super) text: String,
}

pub(super) struct PromptText {
    pub(super) text: String,
    pub(super) words: Vec<Word>,
    pub(super) tokens: Vec<Token>,
    /// Bytes of the lines that are not blank, without the space around them.
    pub(super) lines: Vec<Range<usize>>,
    pub(super) dates: Vec<WrittenDate>,
    /// In digits.
    pub(super) numbers: Vec<WrittenNumber>,
    /// Codes in lower case.
    pub(super) currencies: Vec<(Range<usize>, String)>,
}

impl PromptText {
    /// Of what users and tools say.
    pub(super) fn new(row: &PromptRow) -> Self {
        let sources = row
            .messages
            .iter()
            .filter(|turn| turn.role != "system" && turn.role != "assistant");
        let texts: Vec<&str> = sources.map(|turn| turn.content.as_str()).collect();
        let mut text = texts.join("\n");
        text.truncate(text.floor_char_boundary(MAX_BYTES));
        let (mut lines, mut words, mut start) = (Vec::new(), Vec::new(), 0);
        for line in text.split_inclusive('\n') {
            let blank = line.len() - line.trim_start().len();
            let span = start + blank..start + blank + line.trim().len();
            start += line.len();
            if span.is_empty() {
                continue;
            }
            add_words(&text, span.clone(), lines.len(), &mut words);
            lines.push(span);
        }
        let mut numbers = numbers_in(&text);
        numbers.retain(|number| !number.is_word);
        let mut currencies: Vec<(Range<usize>, String)> = currencies_in(&text)
            .into_iter()
            .map(|(span, code)| (span, code.to_owned()))
            .collect();
        let tokens = tokens(&text);
        let ringgit = tokens
            .iter()
            .filter(|token| token.text == "rm" || token.text.starts_with("rm9"));
        currencies.extend(
            ringgit.map(|token| (token.span.start..token.span.start + 2, "myr".to_owned())),
        );
        Self {
            dates: dates_in(&text),
            numbers,
            currencies,
            tokens,
            words,
            lines,
            text,
        }
    }

    /// Index of the first token that ends after this byte.
    pub(super) fn token_at(&self, byte: usize) -> usize {
        self.tokens.partition_point(|token| token.span.end <= byte)
    }

    /// Index of the line that has this byte.
    pub(super) fn line_at(&self, byte: usize) -> usize {
        let after = self.lines.partition_point(|line| line.start <= byte);
        after.saturating_sub(1)
    }

    pub(super) fn tokens_of(&self, span: &Range<usize>) -> &[Token] {
        let (first, last) = (
            self.token_at(span.start),
            self.token_at(span.end.saturating_sub(1)),
        );
        self.tokens.get(first..=last).unwrap_or_default()
    }
}

/// In how many prompts a token occurs: what all have in common is not the value.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    prompts: usize,
    counts: BTreeMap<String, usize>,
}

impl Vocabulary {
    pub(super) fn add(&mut self, text: &PromptText) {
        self.prompts += 1;
        let tokens: BTreeSet<&str> = text
            .tokens
            .iter()
            .map(|token| token.text.as_str())
            .collect();
        for token in tokens {
            match self.counts.get_mut(token) {
                Some(count) => *count += 1,
                None => drop(self.counts.insert(token.to_owned(), 1)),
            }
        }
    }

    /// 0 for a token of hardly any prompt, 5 for one of most.
    pub(super) fn rank(&self, token: &str) -> usize {
        let share = self
            .counts
            .get(token)
            .map_or(0.0, |count| *count as f64 / self.prompts as f64);
        [0.008, 0.025, 0.08, 0.25, 0.6]
            .iter()
            .filter(|limit| share > **limit)
            .count()
    }
}

fn add_words(text: &str, line: Range<usize>, index: usize, words: &mut Vec<Word>) {
    let mut at = line.start;
    for word in text[line].split_inclusive(char::is_whitespace) {
        let written = word.trim_end();
        let (start, end) = (at, at + written.len());
        at += word.len();
        if written.is_empty() {
            continue;
        }
        let is_end = |letter: char| letter.is_alphanumeric();
        let first = written.find(is_end);
        let last = written
            .rfind(is_end)
            .map(|last| last + written[last..].chars().next().map_or(1, char::len_utf8));
        let digit = |letter: char| letter.is_ascii_digit();
        let after_label = written
            .rfind([':', '=', '#', '$', '€', '£', '¥'])
            .map(|mark| mark + written[mark..].chars().next().map_or(1, char::len_utf8));
        let starts = [Some(0), first, after_label, written.find(digit)];
        let ends = [
            Some(written.len()),
            last,
            written.rfind(digit).map(|last| last + 1),
            written.find(':'),
        ];
        let places = |all: [Option<usize>; 4], is_in: &dyn Fn(usize) -> bool| {
            let mut all: Vec<usize> = all
                .into_iter()
                .flatten()
                .filter(|place| is_in(*place))
                .map(|place| start + place)
                .collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        words.push(Word {
            span: start..end,
            line: index,
            starts: places(starts, &|place| place < written.len()),
            ends: places(ends, &|place| place > 0),
        });
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found: Vec<Token> = Vec::new();
    let mut is_open = false;
    for (at, letter) in text.char_indices() {
        let end = at + letter.len_utf8();
        let is_word = letter.is_alphanumeric();
        let shown: String = match letter {
            _ if letter.is_numeric() => "9".to_owned(),
            '\n' => "\n".to_owned(),
            _ if letter.is_whitespace() => String::new(),
            _ => letter.to_lowercase().collect(),
        };
        match found.last_mut().filter(|_| is_open && is_word) {
            Some(token) => {
                token.text.push_str(&shown);
                token.span.end = end;
            }
            None if !shown.is_empty() => found.push(Token {
                span: at..end,
                text: shown,
            }),
            None => {}
        }
        is_open = is_word;
    }
    found
}
