//! Filter expressions over runs: `valid>0.9 and task:invoice`,
//! `not (status=failed or config.lora_rank=0)`, `has:kl`.

use std::fmt;

use crate::run::error::RunError;

#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    /// True if the field is known.
    Has(String),
    /// Compares a field; false if it is unknown.
    Test {
        field: String,
        comparison: Comparison,
        value: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `:`, true if a text contains the value, ignoring case, or a number equals it.
    Like,
    Equal,
    Unequal,
    AtLeast,
    AtMost,
    More,
    Less,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Text(String),
    Number(f64),
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Number(number) => write!(formatter, "{number}"),
        }
    }
}

/// Operators; longer ones first.
const SIGNS: [(&str, Comparison); 8] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("!=", Comparison::Unequal),
    ("==", Comparison::Equal),
    (">", Comparison::More),
    ("<", Comparison::Less),
    ("=", Comparison::Equal),
    (":", Comparison::Like),
];

const MAX_DEPTH: usize = 64;

impl Query {
    /// Parses an expression.
    ///
    /// # Errors
    /// [`RunError::Query`] with the column and what was expected there.
    pub fn parse(text: &str) -> Result<Self, RunError> {
        let mut reading = Reading {
            text,
            at: 0,
            depth: 0,
        };
        let query = reading.either()?;
        reading.blanks();
        if reading.at < text.len() {
            Err(reading.expected("`and`, `or` or the end"))
        } else {
            Ok(query)
        }
    }

    pub fn matches(&self, field: &dyn Fn(&str) -> Option<Field>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|query| query.matches(field)),
            Self::Or(any) => any.iter().any(|query| query.matches(field)),
            Self::Not(query) => !query.matches(field),
            Self::Has(name) => field(name).is_some(),
            Self::Test {
                field: name,
                comparison,
                value,
            } => field(name).is_some_and(|found| holds(&found, *comparison, value)),
        }
    }

    /// The first condition on a number (by `is_number`) whose value is not numeric: field and
    /// value.
    pub fn mistyped(&self, is_number: &dyn Fn(&str) -> bool) -> Option<(&str, &str)> {
        match self {
            Self::And(queries) | Self::Or(queries) => {
                queries.iter().find_map(|query| query.mistyped(is_number))
            }
            Self::Not(query) => query.mistyped(is_number),
            Self::Has(_) => None,
            Self::Test { field, value, .. } => (is_number(field) && number(value).is_none())
                .then_some((field.as_str(), value.as_str())),
        }
    }

    pub fn fields(&self) -> Vec<&str> {
        match self {
            Self::And(queries) | Self::Or(queries) => {
                queries.iter().flat_map(Self::fields).collect()
            }
            Self::Not(query) => query.fields(),
            Self::Has(name) | Self::Test { field: name, .. } => vec![name],
        }
    }
}

fn holds(found: &Field, comparison: Comparison, value: &str) -> bool {
    match (found, number(value)) {
        (Field::Number(found), Some(value)) => match comparison {
            Comparison::Like | Comparison::Equal => found == &value,
            Comparison::Unequal => found != &value,
            Comparison::AtLeast => *found >= value,
            Comparison::AtMost => *found <= value,
            Comparison::More => *found > value,
            Comparison::Less => *found < value,
        },
        (found, _) => {
            let (found, value) = (found.to_string().to_lowercase(), value.to_lowercase());
            match comparison {
                Comparison::Like => found.contains(&value),
                Comparison::Equal => found == value,
                Comparison::Unequal => found != value,
                Comparison::AtLeast => found >= value,
                Comparison::AtMost => found <= value,
                Comparison::More => found > value,
                Comparison::Less => found < value,
            }
        }
    }
}

/// Parses `0.9`, `1e-5` or `90%`.
fn number(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(percent) => percent
            .trim()
            .parse::<f64>()
            .ok()
            .map(|percent| percent / 100.0),
        None => text.parse().ok(),
    }
}

fn one_or(mut queries: Vec<Query>, joined: fn(Vec<Query>) -> Query) -> Query {
    if queries.len() == 1 {
        queries.remove(0)
    } else {
        joined(queries)
    }
}

struct Reading<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reading<'_> {
    fn either(&mut self) -> Result<Query, RunError> {
        let mut any = vec![self.both()?];
        while self.word("or") {
            any.push(self.both()?);
        }
        Ok(one_or(any, Query::Or))
    }

    fn both(&mut self) -> Result<Query, RunError> {
        let mut all = vec![self.one()?];
        while self.word("and") {
            all.push(self.one()?);
        }
        Ok(one_or(all, Query::And))
    }

    fn one(&mut self) -> Result<Query, RunError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.expected("a condition with fewer brackets"));
        }
        let query = if self.word("not") {
            Query::Not(Box::new(self.one()?))
        } else if self.sign("(") {
            let inner = self.either()?;
            if !self.sign(")") {
                return Err(self.expected("`)`"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(query)
    }

    fn test(&mut self) -> Result<Query, RunError> {
        let field = self.run_of(|letter| letter.is_alphanumeric() || "_./-".contains(letter));
        if field.is_empty() {
            return Err(self
                .expected("a field such as `valid`, `task`, `status`, `config.KEY` or a metric"));
        }
        let Some(comparison) = SIGNS
            .iter()
            .find_map(|(sign, comparison)| self.sign(sign).then_some(*comparison))
        else {
            return Err(self.expected("one of >= <= != > < = :"));
        };
        let value = self.value()?;
        Ok(if field == "has" && comparison == Comparison::Like {
            Query::Has(value)
        } else {
            Query::Test {
                field,
                comparison,
                value,
            }
        })
    }

    fn value(&mut self) -> Result<String, RunError> {
        if self.sign("\"") {
            let rest = &self.text[self.at..];
            let Some(length) = rest.find('"') else {
                return Err(self.expected("a closing `\"`"));
            };
            self.at += length + 1;
            return Ok(rest[..length].to_owned());
        }
        let value = self.run_of(|letter| !letter.is_whitespace() && !"()\"".contains(letter));
        if value.is_empty() || value.starts_with(['<', '>', '=', '!', ':']) {
            self.at -= value.len();
            Err(self.expected("a value"))
        } else {
            Ok(value)
        }
    }

    fn blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn run_of(&mut self, belongs: impl Fn(char) -> bool) -> String {
        self.blanks();
        let rest = &self.text[self.at..];
        let length = rest.find(|letter| !belongs(letter)).unwrap_or(rest.len());
        self.at += length;
        rest[..length].to_owned()
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.blanks();
        let there = self.text[self.at..].starts_with(sign);
        self.at += if there { sign.len() } else { 0 };
        there
    }

    fn word(&mut self, word: &str) -> bool {
        let before = self.at;
        let found = self.run_of(char::is_alphanumeric);
        let there = found.eq_ignore_ascii_case(word)
            && !self.text[self.at..].starts_with(['>', '<', '=', '!', ':', '/', '_', '.']);
        if !there {
            self.at = before;
        }
        there
    }

    fn expected(&self, expected: &'static str) -> RunError {
        RunError::Query {
            query: self.text.to_owned(),
            column: self.text[..self.at].chars().count() + 1,
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn field(name: &str) -> Option<Field> {
        Some(match name {
            "valid" => Field::Number(0.92),
            "reward" => Field::Number(f64::NAN),
            "task" => Field::Text("Invoice".into()),
            "status" => Field::Text("finished".into()),
            "config.policy_loss" => Field::Text("dr_grpo".into()),
            "completions/mean_length" => Field::Number(80.0),
            "not" => Field::Number(1.0),
            _ => return None,
        })
    }

    #[test]
    fn conditions() {
        let check = |text: &str, expected: bool| {
            assert_eq!(
                Query::parse(text).unwrap().matches(&field),
                expected,
                "{text}"
            )
        };
        check("valid>0.9 and task:invoice", true);
        check("valid > 90% AND task:INV", true);
        check("valid>=0.92", true);
        check("valid<0.92 or status=finished", true);
        check("valid<0.92 or status=fail", false);
        check("not status=failed", true);
        check("not (status=finished or status=failed)", false);
        check("status:finish and not config.policy_loss=grpo", true);
        check("task=\"invoice\"", true);
        check("completions/mean_length<100", true);
        check("has:valid", true);
        check("has:exact", false);
        // An unknown field matches no comparison, not even `!=`.
        check("exact!=1 or exact=1", false);
        check("reward>0 or reward<=0", false);
        check("valid>0.9 or valid>0.95 and valid>0.99", true);
        check("(valid>0.9 or valid>0.95) and valid>0.99", false);
        check("not=1", true);
    }

    #[test]
    fn what_is_wrong_is_shown() {
        let check = |text: &str, expected: &str| {
            let error = Query::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "column 1: expected a field");
        check("valid", "column 6: expected one of >=");
        check("valid>", "column 7: expected a value");
        check("valid>>1", "column 7: expected a value");
        check("valid=>1", "column 7: expected a value");
        check(
            "valid>1 task:x",
            "column 9: expected `and`, `or` or the end",
        );
        check("(valid>1", "column 9: expected `)`");
        check("task:\"x", "column 7: expected a closing");
        check("tä:ä und", "column 6: expected `and`");
        check(&"(".repeat(100_000), "fewer brackets");
    }

    #[test]
    fn a_number_is_compared_with_a_number() {
        let is_number = |name: &str| name == "valid";
        for (text, expected) in [
            ("valid=high", Some(("valid", "high"))),
            ("task:x or not valid>0,9", Some(("valid", "0,9"))),
            ("valid>90% and task=high", None),
        ] {
            let query = Query::parse(text).unwrap();
            assert_eq!(query.mistyped(&is_number), expected, "{text}");
        }
    }

    #[test]
    fn fields_are_told() {
        assert_eq!(
            Query::parse("valid>1 and (has:kl or not task:x)")
                .unwrap()
                .fields(),
            ["valid", "kl", "task"]
        );
    }
}
