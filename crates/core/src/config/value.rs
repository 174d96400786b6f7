//! A key's value: its kind, parsing, and the message when it does not fit.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    /// Bounds are inclusive.
    Integer {
        least: i64,
        most: i64,
    },
    /// Finite; bounds are inclusive.
    Number {
        least: f64,
        most: f64,
    },
    Flag,
    Choice(&'static [&'static str]),
    /// A threshold such as `valid>=0.99`, or empty.
    Condition,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => formatter.write_str("text"),
            Self::Integer { least, most: i64::MAX } => write!(formatter, "a whole number, {least} or more"),
            Self::Integer { least, most } => write!(formatter, "a whole number from {least} to {most}"),
            Self::Number { least, most } if most.is_infinite() => write!(formatter, "a number, {least} or more"),
            Self::Number { least, most } => write!(formatter, "a number from {least} to {most}"),
            Self::Flag => formatter.write_str("true or false"),
            Self::Choice(names) => write!(formatter, "one of {}", names.join(", ")),
            Self::Condition => formatter.write_str(
                "a condition such as valid>=0.99 (parse, valid, exact or tolerant; >=, >, <= or <), or empty",
            ),
        }
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    Flag(bool),
    Integer(i64),
    Number(f64),
    /// [`Kind::Text`], [`Kind::Choice`] or [`Kind::Condition`].
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(value) => write!(formatter, "{value}"),
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Number(value) if *value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e9) => {
                write!(formatter, "{value:e}")
            }
            Self::Number(value) => write!(formatter, "{value}"),
            Self::Text(value) => formatter.write_str(value),
        }
    }
}

impl Kind {
    /// Parses the text after `key=`. The error says what was expected.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let value = match self {
            Self::Text | Self::Choice(_) | Self::Condition => Value::Text(text.to_owned()),
            Self::Integer { .. } => Value::Integer(
                text.replace('_', "")
                    .parse()
                    .map_err(|_| self.to_string())?,
            ),
            Self::Number { .. } => Value::Number(
                text.replace('_', "")
                    .parse()
                    .map_err(|_| self.to_string())?,
            ),
            Self::Flag => Value::Flag(text.parse().map_err(|_| self.to_string())?),
        };
        self.check(value)
    }

    /// Converts a TOML value. An integer is accepted as a number; nothing else is converted.
    pub fn from_toml(self, value: &toml::Value) -> Result<Value, String> {
        let value = match (self, value) {
            (Self::Text | Self::Choice(_) | Self::Condition, toml::Value::String(text)) => {
                Value::Text(text.clone())
            }
            (Self::Integer { .. }, toml::Value::Integer(number)) => Value::Integer(*number),
            (Self::Number { .. }, toml::Value::Integer(number)) => Value::Number(*number as f64),
            (Self::Number { .. }, toml::Value::Float(number)) => Value::Number(*number),
            (Self::Flag, toml::Value::Boolean(flag)) => Value::Flag(*flag),
            _ => return Err(self.to_string()),
        };
        self.check(value)
    }

    fn check(self, value: Value) -> Result<Value, String> {
        let fits = match (self, &value) {
            (Self::Integer { least, most }, Value::Integer(number)) => {
                (least..=most).contains(number)
            }
            (Self::Number { least, most }, Value::Number(number)) => {
                number.is_finite() && (least..=most).contains(number)
            }
            (Self::Choice(names), Value::Text(text)) => names.contains(&text.as_str()),
            (Self::Condition, Value::Text(text)) => {
                text.is_empty() || StopCondition::parse(text).is_some()
            }
            _ => true,
        };
        if fits {
            Ok(value)
        } else {
            Err(self.to_string())
        }
    }
}

/// A threshold for an eval rate at which a run stops.
#[derive(Debug, Clone, PartialEq)]
pub struct StopCondition {
    /// `parse`, `valid`, `exact` or `tolerant`.
    pub metric: String,
    /// `>=`, `>`, `<=` or `<`.
    pub comparison: &'static str,
    /// Within [0, 1].
    pub threshold: f64,
}

impl StopCondition {
    /// Parses `valid>=0.99`.
    pub fn parse(text: &str) -> Option<Self> {
        let comparison = [">=", "<=", ">", "<"]
            .into_iter()
            .find(|sign| text.contains(sign))?;
        let (metric, threshold) = text.split_once(comparison)?;
        let (metric, threshold) = (metric.trim(), threshold.trim().parse::<f64>().ok()?);
        let known = ["parse", "valid", "exact", "tolerant"].contains(&metric);
        (known && (0.0..=1.0).contains(&threshold)).then(|| Self {
            metric: metric.to_owned(),
            comparison,
            threshold,
        })
    }

    /// Whether the latest `rate` meets the condition. NaN never does.
    pub fn is_met(&self, rate: f64) -> bool {
        match self.comparison {
            ">=" => rate >= self.threshold,
            ">" => rate > self.threshold,
            "<=" => rate <= self.threshold,
            _ => rate < self.threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_become_values() {
        let check = |kind: Kind, text: &str, expected: Result<&str, &str>| {
            let found = kind.parse(text).map(|value| value.to_string());
            assert_eq!(
                found.as_deref().map_err(String::as_str),
                expected,
                "{kind:?} {text}"
            );
        };
        let whole = Kind::Integer { least: 1, most: 64 };
        check(whole, "8", Ok("8"));
        check(whole, " 8 ", Ok("8"));
        check(whole, "0", Err("a whole number from 1 to 64"));
        check(whole, "8.5", Err("a whole number from 1 to 64"));
        let number = Kind::Number {
            least: 0.0,
            most: 1.0,
        };
        check(number, "3e-4", Ok("3e-4"));
        check(number, "nan", Err("a number from 0 to 1"));
        check(number, "1.5", Err("a number from 0 to 1"));
        check(Kind::Flag, "yes", Err("true or false"));
        check(Kind::Choice(&["a", "b"]), "c", Err("one of a, b"));
        check(Kind::Condition, "", Ok(""));
        check(Kind::Condition, "valid >= 0.99", Ok("valid >= 0.99"));
        assert!(Kind::Condition.parse("reward>=1").is_err());
        assert!(Kind::Condition.parse("valid>=99").is_err());
    }

    #[test]
    fn conditions() {
        let condition = StopCondition::parse("valid>=0.99").unwrap();
        assert!(condition.is_met(0.99) && !condition.is_met(0.989) && !condition.is_met(f64::NAN));
        assert!(StopCondition::parse("exact>0.5").unwrap().is_met(0.6));
        assert!(StopCondition::parse("valid").is_none() && StopCondition::parse(">=0.5").is_none());
    }
}
