//! A table of `task.toml` whose errors have line and column.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Read;
use super::error::TaskError;
use crate::format::{line_column, nearest};

/// File name and text, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) label: &'a str,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    pub(crate) fn error(&self, offset: usize, message: impl Into<String>) -> TaskError {
        let (line, column) = line_column(self.text, offset);
        TaskError::Place {
            label: self.label.to_owned(),
            line,
            column,
            message: message.into(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Section<'a> {
    source: Source<'a>,
    /// Prefix of keys in errors, such as `score.`.
    prefix: String,
    table: &'a DeTable<'a>,
}

/// Prefix, removed key, and what replaces it.
const REMOVED: [(&str, &str, &str); 2] = [
    (
        "score.",
        "run",
        "tests are for Python; score other programs by one of your own, `kind = \"command\"`",
    ),
    (
        "score.",
        "root",
        "XML is not read; score it by a function that reads it, `kind = \"python\"`",
    ),
];

impl<'a> Section<'a> {
    /// Rejects unknown keys, naming the nearest known one.
    pub(crate) fn new(
        source: Source<'a>,
        prefix: &str,
        table: &'a DeTable<'a>,
        known: &[&str],
    ) -> Read<Self> {
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if let Some((.., instead)) = REMOVED
                .iter()
                .find(|(of, key, _)| (*of, *key) == (prefix, name))
                && !known.contains(&name)
            {
                let message = format!("`{prefix}{name}` was removed: {instead}");
                return Err(source.error(key.span().start, message));
            }
            if !known.contains(&name) {
                let advice = nearest(name, known.iter().copied()).map_or_else(
                    || format!("known keys: {}", known.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(source.error(
                    key.span().start,
                    format!("unknown key `{prefix}{name}`; {advice}"),
                ));
            }
        }
        Ok(Self {
            source,
            prefix: prefix.to_owned(),
            table,
        })
    }

    /// A table with arbitrary keys.
    pub(crate) fn free(source: Source<'a>, prefix: &str, table: &'a DeTable<'a>) -> Self {
        Self {
            source,
            prefix: prefix.to_owned(),
            table,
        }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.source.text
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a str, usize)> {
        self.table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), value.span().start))
    }

    pub(crate) fn get(&self, key: &str) -> Option<(&'a DeValue<'a>, usize)> {
        self.table
            .get(key)
            .map(|value: &Spanned<DeValue<'a>>| (value.get_ref(), value.span().start))
    }

    pub(crate) fn error(&self, key: &str, offset: usize, message: impl AsRef<str>) -> TaskError {
        self.source.error(
            offset,
            format!("`{}{key}` {}", self.prefix, message.as_ref()),
        )
    }

    /// An error that does not concern a single key.
    pub(crate) fn error_at(&self, offset: usize, message: impl Into<String>) -> TaskError {
        self.source.error(offset, message)
    }

    pub(crate) fn string(&self, key: &str) -> Read<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some((DeValue::String(text), _)) => Ok(Some(text.clone().into_owned())),
            Some((value, offset)) => Err(self.wrong_type(key, offset, "a string in quotes", value)),
        }
    }

    pub(crate) fn choice<T, const N: usize>(
        &self,
        key: &str,
        values: [(&str, T); N],
    ) -> Read<Option<T>> {
        let Some((name, (_, offset))) = self.string(key)?.zip(self.get(key)) else {
            return Ok(None);
        };
        let names = values.each_ref().map(|value| value.0).join(", ");
        let found = values.into_iter().find(|(known, _)| *known == name);
        found
            .map(|(_, value)| Some(value))
            .ok_or_else(|| self.error(key, offset, format!("takes {names}, not {name:?}")))
    }

    pub(crate) fn strings(&self, key: &str) -> Read<Option<Vec<String>>> {
        let Some((value, offset)) = self.get(key) else {
            return Ok(None);
        };
        let wrong = || self.wrong_type(key, offset, "a list of strings in quotes", value);
        let text = |item: &Spanned<DeValue<'_>>| {
            item.get_ref().as_str().map(str::to_owned).ok_or_else(wrong)
        };
        value
            .as_array()
            .ok_or_else(wrong)?
            .iter()
            .map(text)
            .collect::<Read<_>>()
            .map(Some)
    }

    /// Empty if missing.
    pub(crate) fn quoted_strings(&self, key: &str) -> Read<Vec<String>> {
        Ok(self.strings(key)?.unwrap_or_default())
    }

    pub(crate) fn whole(
        &self,
        key: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Read<u64> {
        let Some((number, (_, offset))) = self.number(key)?.zip(self.get(key)) else {
            return Ok(default);
        };
        let (least, most) = (*range.start(), *range.end());
        if number.fract() == 0.0 && number >= least as f64 && number <= most as f64 {
            return Ok(number as u64);
        }
        Err(self.error(
            key,
            offset,
            format!("must be a whole number from {least} to {most}, not {number}"),
        ))
    }

    pub(crate) fn seconds(&self, key: &str, default: f64) -> Read<f64> {
        match self.number(key)?.zip(self.get(key)) {
            None => Ok(default),
            Some((number, _)) if (0.001..=86_400.0).contains(&number) => Ok(number),
            Some((number, (_, offset))) => Err(self.error(
                key,
                offset,
                format!("must be between 0.001 and 86400, not {number}"),
            )),
        }
    }

    pub(crate) fn boolean(&self, key: &str) -> Read<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some((DeValue::Boolean(value), _)) => Ok(Some(*value)),
            Some((value, offset)) => Err(self.wrong_type(key, offset, "true or false", value)),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Read<Option<f64>> {
        let Some((value, offset)) = self.get(key) else {
            return Ok(None);
        };
        let Some(text) = number_text(value) else {
            return Err(self.wrong_type(key, offset, "a number", value));
        };
        finite_number(value)
            .map(Some)
            .ok_or_else(|| self.error(key, offset, format!("must be a finite number, not {text}")))
    }

    pub(crate) fn table(&self, key: &str) -> Read<Option<&'a DeTable<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some((DeValue::Table(table), _)) => Ok(Some(table)),
            Some((value, offset)) => Err(self.wrong_type(key, offset, "a table", value)),
        }
    }

    /// A nested table as JSON; empty if missing.
    pub(crate) fn json_object(
        &self,
        key: &str,
    ) -> Read<serde_json::Map<String, serde_json::Value>> {
        let Some(table) = self.table(key)? else {
            return Ok(serde_json::Map::new());
        };
        let value = Spanned::new(0..0, DeValue::Table(table.clone()));
        let offset = self.get(key).map_or(0, |(_, offset)| offset);
        serde_json::Map::deserialize(value.into_deserializer())
            .map_err(|error| self.error(key, offset, error.message()))
    }

    pub(crate) fn section(&self, key: &str, known: &[&str]) -> Read<Option<Self>> {
        self.table(key)?
            .map(|table| Self::new(self.source, &format!("{}{key}.", self.prefix), table, known))
            .transpose()
    }

    /// `[[key]]` tables with offsets.
    pub(crate) fn sections(&self, key: &str, known: &[&str]) -> Read<Vec<(Self, usize)>> {
        let Some((value, offset)) = self.get(key) else {
            return Ok(Vec::new());
        };
        let wrong = |offset| {
            self.error(
                key,
                offset,
                format!("must be written as `[[{}{key}]]`", self.prefix),
            )
        };
        let block = |item: &'a Spanned<DeValue<'a>>| {
            let DeValue::Table(table) = item.get_ref() else {
                return Err(wrong(item.span().start));
            };
            let prefix = format!("{}{key}.", self.prefix);
            Ok((
                Self::new(self.source, &prefix, table, known)?,
                item.span().start,
            ))
        };
        value
            .as_array()
            .ok_or_else(|| wrong(offset))?
            .iter()
            .map(block)
            .collect()
    }

    pub(crate) fn free_section(&self, key: &str) -> Read<Option<Self>> {
        Ok(self
            .table(key)?
            .map(|table| Self::free(self.source, &format!("{}{key}.", self.prefix), table)))
    }

    pub(crate) fn wrong_type(
        &self,
        key: &str,
        offset: usize,
        expected: &str,
        found: &DeValue<'_>,
    ) -> TaskError {
        self.error(
            key,
            offset,
            format!("must be {expected}, not {}", described(found)),
        )
    }
}

fn number_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(crate) fn finite_number(value: &DeValue<'_>) -> Option<f64> {
    let number = number_text(value)?.replace('_', "").parse::<f64>().ok();
    number.filter(|number| number.is_finite())
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            format!("the string {:?}", text.chars().take(40).collect::<String>())
        }
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
