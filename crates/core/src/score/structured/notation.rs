//! The notations of structured answers: how each is read as JSON, and written.

use serde_json::Value;

use super::super::transcript::AnswerText;
use super::{Read, xml, yaml};

/// What a structured answer is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    Json,
    Yaml,
    Xml,
}

impl Notation {
    const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Xml];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Xml => "xml",
        }
    }

    /// The notation of a name, or what the name must be.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.iter().map(|notation| notation.name());
        Self::ALL
            .into_iter()
            .find(|notation| notation.name() == name)
            .ok_or_else(|| {
                let advice = crate::format::did_you_mean(name, names());
                format!(
                    "must be one of {}, not {name:?}{advice}",
                    names().collect::<Vec<_>>().join(", ")
                )
            })
    }

    /// The JSON of the answer that is a text from a byte offset to its end, where the schema decides which scalars are
    /// strings. `root`: the name that the root element of XML must have.
    pub(super) fn read<'t>(
        self,
        text: &'t str,
        from: usize,
        schema: &Value,
        root: Option<&str>,
    ) -> Read<AnswerText<'t>> {
        let transcript = match self {
            Self::Json => return Ok(AnswerText::in_place(text)),
            Self::Yaml => yaml::read(text, from, schema)?,
            Self::Xml => xml::read(text, from, schema, root)?,
        };
        Ok(AnswerText::transcribed(text, transcript))
    }

    /// Where an answer between prose may be.
    pub(super) fn span(self, text: &str, from: usize) -> Option<(usize, usize)> {
        match self {
            // Any prose may be YAML, so nothing says where it ends.
            Self::Json | Self::Yaml => None,
            Self::Xml => Some((from + text.get(from..)?.find('<')?, text.rfind('>')? + 1)),
        }
    }

    /// The answer that is a value; `None` where the notation cannot say it.
    pub(super) fn write(self, value: &Value, root: &str) -> Option<String> {
        match self {
            Self::Json => Some(value.to_string()),
            Self::Yaml => Some(yaml::write(value)),
            Self::Xml => xml::write(value, root),
        }
    }
}
