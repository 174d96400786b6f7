//! The filter of the runs screen: words, then an expression as in `runs list --where`.

use super::run_row::RunRow;
use crate::run::{Query, RunError};

/// `invoice valid>0.9 and tags:kept`: each word must occur in the run's id, name, task, model, status or tags, and the
/// expression must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    words: Vec<String>,
    query: Option<Query>,
}

impl Filter {
    /// Parses a filter; the expression starts at the first operator.
    ///
    /// # Errors
    /// [`RunError::Query`] with the column in the expression.
    pub fn parse(text: &str) -> Result<Self, RunError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        if let Ok(query) = Query::parse(text) {
            return Ok(Self {
                words: Vec::new(),
                query: Some(query),
            });
        }
        let mut rest = text;
        let mut words = Vec::new();
        while let Some(word) = rest
            .split_whitespace()
            .next()
            .filter(|_| !begins_condition(rest))
        {
            words.push(word.to_lowercase());
            rest = rest[word.len()..].trim_start();
        }
        let rest = rest.strip_prefix("and ").unwrap_or(rest);
        let query = if rest.is_empty() {
            None
        } else {
            Some(Query::parse(rest)?)
        };
        words.retain(|word| word != "and");
        Ok(Self { words, query })
    }

    pub fn matches(&self, row: &RunRow) -> bool {
        let file = row.directory.file();
        let known = [
            file.id.as_str(),
            row.directory.name(),
            &file.task,
            &file.config.base_model,
            row.status.name(),
        ];
        let texts = || known.into_iter().chain(row.tags.iter().map(String::as_str));
        let has = |word: &String| texts().any(|text| text.to_lowercase().contains(word.as_str()));
        self.words.iter().all(has)
            && self
                .query
                .as_ref()
                .is_none_or(|query| query.matches(&|name| row.field(name, false)))
    }

    /// Matches a run of which only the id is known.
    pub fn matches_id(&self, id: &str) -> bool {
        self.query.is_none()
            && self
                .words
                .iter()
                .all(|word| id.to_lowercase().contains(word.as_str()))
    }

    pub fn fields(&self) -> Vec<&str> {
        self.query.iter().flat_map(Query::fields).collect()
    }
}

/// Whether an expression begins here: a bracket, `not`, or a name with an operator.
fn begins_condition(text: &str) -> bool {
    let sign = |letter: char| "<>=!:".contains(letter);
    let mut words = text.split_whitespace();
    let (first, second) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    first.contains(sign)
        || first.starts_with(['(', '"'])
        || first == "not"
        || second.starts_with(sign)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words_then_conditions() {
        let check = |text: &str, words: &[&str], fields: &[&str]| {
            let filter = Filter::parse(text).unwrap();
            assert_eq!(
                (filter.words.as_slice(), filter.fields().as_slice()),
                (
                    words
                        .iter()
                        .map(|word| (*word).to_owned())
                        .collect::<Vec<_>>()
                        .as_slice(),
                    fields
                ),
                "{text}"
            );
        };
        check("", &[], &[]);
        check("  ", &[], &[]);
        check("Invoice", &["invoice"], &[]);
        check("invoice tiny", &["invoice", "tiny"], &[]);
        check("valid>0.9", &[], &["valid"]);
        check("invoice valid>0.9", &["invoice"], &["valid"]);
        check(
            "invoice and valid > 0.9 or tags:kept",
            &["invoice"],
            &["valid", "tags"],
        );
        check(
            "small not (status=failed or has:kl)",
            &["small"],
            &["status", "kl"],
        );
        check("ä", &["ä"], &[]);
    }

    #[test]
    fn what_is_wrong_is_shown() {
        for text in [
            "valid>",
            "invoice valid>",
            "(",
            "a (b",
            "x valid>1 and",
            "\"",
        ] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
