//! Exact and near duplicates of prompts within a set and across sets.

use std::collections::HashMap;

use serde_json::Value;

use super::near_duplicates::NearIndex;
use crate::dataset::random::text_hash;
use crate::dataset::row::PromptRow;
use crate::task::PromptSet;

/// Rows compared; further ones are only read, which bounds memory.
pub(super) const MAX_ROWS: usize = 4_000_000;

/// An earlier row and its similarity: 1 for the same prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Repeat {
    pub(super) set: PromptSet,
    pub(super) line: usize,
    pub(super) likeness: f64,
    pub(super) exact: bool,
    /// Both rows expect an answer, and not the same.
    pub(super) contradicts: bool,
}

/// Prompts seen so far, of all sets.
#[derive(Debug)]
pub(super) struct Duplicates {
    /// Hash of a prompt -> row number.
    exact: HashMap<u64, u32>,
    near: NearIndex,
    lines: Vec<u32>,
    /// Hash of what a row expects; 0 without.
    expected: Vec<u32>,
    /// First row number of each set.
    starts: Vec<(usize, PromptSet)>,
}

impl Duplicates {
    pub(super) fn new() -> Self {
        Self {
            exact: HashMap::new(),
            near: NearIndex::new(),
            lines: Vec::new(),
            expected: Vec::new(),
            starts: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, set: PromptSet) {
        self.starts.push((self.lines.len(), set));
    }

    pub(super) fn is_full(&self) -> bool {
        self.lines.len() >= MAX_ROWS
    }

    pub(super) fn insert(&mut self, row: &PromptRow) -> Option<Repeat> {
        if self.is_full() {
            return None;
        }
        let number = self.lines.len() as u32;
        self.lines.push(u32::try_from(row.line).unwrap_or(u32::MAX));
        // Objects are equal whatever their order.
        let hash = |expected: &Value| {
            let mut expected = expected.clone();
            expected.sort_all_objects();
            (text_hash(&expected.to_string()) >> 32) as u32 | 1
        };
        self.expected.push(row.expected.as_ref().map_or(0, hash));
        let whole = row.prompt_hash();
        let near = self.near.insert(&said_by_users(row));
        match self.exact.get(&whole) {
            Some(&earlier) => {
                let repeat = self.repeat(earlier, 1.0, true);
                // Later rows are compared with one that expects an answer.
                let is_same_set = self.starts.last().is_some_and(|of| of.1 == repeat.set);
                if is_same_set && self.expected[earlier as usize] == 0 {
                    self.exact.insert(whole, number);
                }
                Some(repeat)
            }
            None => {
                self.exact.insert(whole, number);
                near.map(|(earlier, likeness)| self.repeat(earlier, likeness, false))
            }
        }
    }

    fn repeat(&self, number: u32, likeness: f64, exact: bool) -> Repeat {
        let set = self
            .starts
            .iter()
            .rev()
            .find(|(start, _)| *start <= number as usize)
            .map_or(PromptSet::Train, |(_, set)| *set);
        let of = |number: usize| self.expected.get(number).copied().unwrap_or(0);
        let answers = [
            of(number as usize),
            self.expected.last().copied().unwrap_or(0),
        ];
        Repeat {
            contradicts: !answers.contains(&0) && answers[0] != answers[1],
            set,
            line: self
                .lines
                .get(number as usize)
                .map_or(0, |&line| line as usize),
            likeness,
            exact,
        }
    }

    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        // A hash table holds an entry and a control byte per place, and leaves an eighth of the
        // places free.
        self.exact.capacity() * 8 / 7 * (size_of::<(u64, u32)>() + 1)
            + (self.lines.capacity() + self.expected.capacity()) * size_of::<u32>()
            + self.near.held_bytes()
    }
}

/// The user turns, or everything if there are none: a common system turn does not make prompts
/// similar.
fn said_by_users(row: &PromptRow) -> String {
    let has_user = row.messages.iter().any(|turn| turn.role == "user");
    let turns = row
        .messages
        .iter()
        .filter(|turn| !has_user || turn.role == "user");
    turns
        .map(|turn| turn.content.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::random::mix;
    use crate::dataset::row::load_from;

    #[test]
    fn a_million_rows_stay_below_250_megabytes() {
        let mut duplicates = Duplicates::new();
        duplicates.begin(PromptSet::Train);
        let empty = duplicates.held_bytes();
        let line = r#"{"messages":[{"role":"user","content":"NUMBER"}]}"#;
        let mut row = load_from("x.jsonl", line.as_bytes()).unwrap().remove(0);
        let rows = 30_000;
        for number in 0..rows {
            row.messages[0].content = format!(
                "please read {:x} and say {:x}",
                mix(number),
                mix(number + rows)
            );
            assert_eq!(duplicates.insert(&row).filter(|repeat| repeat.exact), None);
        }
        let each = (duplicates.held_bytes() - empty) / rows as usize;
        assert!(
            empty + each * 1_000_000 < 250_000_000,
            "{empty} bytes and {each} a row"
        );
    }
}
