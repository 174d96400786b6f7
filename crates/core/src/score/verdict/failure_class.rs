//! Failure classes for counting over time: built-in ones, and those named by a user's scorer.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares the built-in classes with their display names.
macro_rules! classes {
    ($($(#[$meta:meta])* $class:ident = $name:literal,)+) => {
        /// The most informative class that explains why a completion is not right.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FailureClass {
            $($(#[$meta])* $class,)+
            /// Named by a user's scorer.
            Own(OwnClass),
            Other,
        }

        impl FailureClass {
            /// All built-in classes in display order.
            pub const ALL: [Self; [$($name),+].len() + 1] = [$(Self::$class,)+ Self::Other];

            /// Display name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$class => $name,)+
                    Self::Own(OwnClass(name)) => name,
                    Self::Other => "other",
                }
            }
        }
    };
}

classes! {
    /// A Markdown fence around the value.
    Fence = "fence",
    /// Text around the value, or no value.
    Prose = "prose",
    /// The text ends too early.
    Truncated = "truncated",
    /// Malformed JSON, or an unparsable query.
    Syntax = "syntax",
    ThinkLeak = "think leak",
    /// A call inside the reasoning, and none after it.
    ThinkCall = "think call",
    MissingKey = "missing key",
    /// A value of a type that the schema does not allow.
    WrongType = "wrong type",
    Enum = "enum",
    /// A key not allowed by the schema.
    ExtraKey = "extra key",
    /// Well-formed, but different from `expected`.
    WrongValue = "wrong value",
    CallFormat = "call format",
    /// A tool that the row does not offer.
    UnknownFunction = "unknown function",
    MissingArgument = "missing argument",
    ExtraArgument = "extra argument",
    /// Other calls than expected, or in another order.
    WrongCalls = "wrong calls",
    UnknownTable = "unknown table",
    UnknownColumn = "unknown column",
    /// A query that the parser's grammar lacks, though its dialect may have it.
    NotUnderstood = "not understood",
    /// A query with a result other than the expected one's.
    WrongResult = "wrong result",
    /// A request that matches no operation of the document, or not the requested one.
    WrongOperation = "wrong operation",
    MissingParameter = "missing parameter",
    ExtraParameter = "extra parameter",
    /// A status that the operation does not define.
    WrongStatus = "wrong status",
    NoMatch = "no match",
    /// A conversation with tools that ended without an answer.
    NoAnswer = "no answer",
    /// A wrong final state, and no call reached a tool.
    NoCall = "no call",
    AgentError = "agent error",
    /// Constrained decoding failed: the grammar became too complex, or no token could follow.
    Constraint = "constraint",
    /// The scorer failed: no reward.
    ScorerError = "scorer error",
    /// The scorer judges the answer neither right nor wrong.
    NoReward = "no reward",
    /// A result is not recorded, in replay: no reward.
    NotRecorded = "not recorded",
    EndpointError = "endpoint error",
}

/// Named by a scorer: letters, digits, `_` and `-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnClass(&'static str);

/// Interned names, which are never freed; a scorer's own limit is lower.
const MAX_NAMES: usize = 1_024;
const MAX_NAME_LEN: usize = 40;

impl FailureClass {
    pub(crate) fn is_unscored(self) -> bool {
        matches!(self, Self::ScorerError | Self::NoReward | Self::NotRecorded)
    }

    /// The class of a key in files (`think_leak`): built-in, else a user's. `None` if malformed, or
    /// beyond the limit of names.
    pub fn from_key(key: &str) -> Option<Self> {
        let is_named = |class: &Self| {
            class
                .name()
                .bytes()
                .map(|byte| if byte == b' ' { b'_' } else { byte })
                .eq(key.bytes())
        };
        Self::ALL
            .into_iter()
            .find(is_named)
            .or_else(|| own(key).map(|name| Self::Own(OwnClass(name))))
    }

    pub fn key(self) -> String {
        self.name().replace(' ', "_")
    }

    /// Metric: share of completions at a step.
    pub fn metric(self) -> String {
        format!("failures/{}", self.key())
    }
}

fn own(name: &str) -> Option<&'static str> {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_plain) {
        return None;
    }
    let mut names = NAMES.lock();
    if let Some(known) = names.get(name) {
        return Some(known);
    }
    (names.len() < MAX_NAMES).then(|| {
        let name: &'static str = name.to_owned().leak();
        names.insert(name);
        name
    })
}

impl Serialize for FailureClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.key())
    }
}

impl<'de> Deserialize<'de> for FailureClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_key(&String::deserialize(deserializer)?).unwrap_or(Self::Other))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_one_name_in_files_and_order_in_tables() {
        assert!(FailureClass::ALL.is_sorted());
        for class in FailureClass::ALL {
            let text = serde_json::to_string(&class).unwrap();
            assert_eq!(text, format!("\"{}\"", class.key()));
            assert_eq!(serde_json::from_str::<FailureClass>(&text).unwrap(), class);
        }
        let lint = FailureClass::from_key("lint-E501").unwrap();
        assert_eq!(
            (lint.name(), lint.metric().as_str()),
            ("lint-E501", "failures/lint-E501")
        );
        assert_eq!(FailureClass::from_key("lint-E501"), Some(lint));
        assert!(FailureClass::NoMatch < lint && lint < FailureClass::Other);
        for text in ["", "a b", "a/b", "\u{1b}[2J", &"x".repeat(MAX_NAME_LEN + 1)] {
            assert_eq!(FailureClass::from_key(text), None, "{text:?}");
        }
    }
}
