//! `draw` inside a template: picks from pools, numbers and composed words by the row's own random
//! generator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Object, Value, from_args};
use minijinja::{Error, ErrorKind, State};

use crate::dataset::random::{CounterRandom, scale, text_hash};

/// Draws until a composed word belongs to the set; with a share of 1% this fails once in 10^43
/// rows.
const WORD_ATTEMPTS: usize = 10_000;

/// Shared by all rows.
#[derive(Debug)]
pub(super) struct WordPools {
    pub(super) pools: BTreeMap<String, Vec<String>>,
    pub(super) words: BTreeMap<String, Vec<String>>,
    /// Shares in the order of `Stream`.
    pub(super) word_shares: [u32; 4],
}

/// The `draw` object of templates.
#[derive(Debug)]
pub(super) struct Draw {
    lists: Arc<WordPools>,
    /// Index in `word_shares`.
    set: usize,
    random: Mutex<CounterRandom>,
}

impl Draw {
    /// The template value for one field of a row.
    pub(super) fn value(lists: &Arc<WordPools>, set: usize, random: CounterRandom) -> Value {
        Value::from_object(Self {
            lists: Arc::clone(lists),
            set,
            random: Mutex::new(random),
        })
    }

    fn below(&self, limit: u64) -> u64 {
        self.random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .below(limit)
    }

    fn pick(&self, pool: &str) -> Result<&str, Error> {
        let Some(entries) = self.lists.pools.get(pool) else {
            return Err(unknown("pool", pool, &self.lists.pools));
        };
        let place = self.below(entries.len() as u64) as usize;
        Ok(entries.get(place).map_or("", String::as_str))
    }

    fn number(&self, low: i64, high: i64) -> Result<i64, Error> {
        if high < low {
            return Err(invalid(format!(
                "draw.number({low}, {high}): low must not exceed high"
            )));
        }
        Ok(low.wrapping_add_unsigned(self.below(high.abs_diff(low).saturating_add(1))))
    }

    /// A composed word of this set.
    fn word(&self, word: &str) -> Result<String, Error> {
        let Some(parts) = self.lists.words.get(word) else {
            return Err(unknown("word", word, &self.lists.words));
        };
        for _ in 0..WORD_ATTEMPTS {
            let text = parts
                .iter()
                .map(|pool| self.pick(pool))
                .collect::<Result<String, _>>()?;
            if owner(&text, &self.lists.word_shares) == self.set {
                return Ok(text);
            }
        }
        Err(invalid(format!(
            "draw.word('{word}'): no word for this set after {WORD_ATTEMPTS} attempts: add entries to its pools"
        )))
    }
}

/// The set that a word's hash falls into.
fn owner(word: &str, shares: &[u32; 4]) -> usize {
    let total = shares.iter().map(|&share| u64::from(share)).sum();
    let mut place = scale(text_hash(word), total);
    for (set, &share) in shares.iter().enumerate() {
        if place < u64::from(share) {
            return set;
        }
        place -= u64::from(share);
    }
    shares.len()
}

fn unknown<T>(kind: &str, name: &str, table: &BTreeMap<String, T>) -> Error {
    let known: Vec<&str> = table.keys().map(String::as_str).collect();
    invalid(format!(
        "unknown {kind} `{name}`; [{kind}s] has {}",
        known.join(", ")
    ))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

impl Object for Draw {
    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "pick" => {
                let (pool,): (&str,) = from_args(arguments)?;
                self.pick(pool).map(Value::from)
            }
            "number" => {
                let (low, high): (i64, i64) = from_args(arguments)?;
                self.number(low, high).map(Value::from)
            }
            "word" => {
                let (word,): (&str,) = from_args(arguments)?;
                self.word(word).map(Value::from)
            }
            _ => Err(invalid(format!(
                "draw.{method}: `draw` has pick(pool), number(low, high) and word(name)"
            ))),
        }
    }
}
