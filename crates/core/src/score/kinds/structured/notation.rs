//! Notations of structured answers: reading as JSON, and writing.

use std::sync::Arc;

use serde_json::Value;

use super::{xml, yaml};
use crate::dataset::PromptRow;
use crate::score::answer::transcript::AnswerText;
use crate::score::definition::SchemaFiles;
use crate::score::verdict::unwrap_answer::Read;

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

    /// Parses a name; the error lists valid ones.
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

    /// Reads the text from a byte offset to its end as JSON; the schema decides which scalars are
    /// strings. `root`: required name of XML's root element.
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

    /// Range of a possible answer between prose.
    pub(super) fn span(self, text: &str, from: usize) -> Option<(usize, usize)> {
        match self {
            // Any prose may be YAML, so the end is unknown.
            Self::Json | Self::Yaml => None,
            Self::Xml => Some((from + text.get(from..)?.find('<')?, text.rfind('>')? + 1)),
        }
    }

    pub(super) fn write(self, value: &Value, root: &str) -> Option<String> {
        match self {
            Self::Json => Some(value.to_string()),
            Self::Yaml => Some(yaml::write(value)),
            Self::Xml => xml::write(value, root),
        }
    }
}

/// Default root element.
const ROOT: &str = "answer";

#[derive(Debug, Clone)]
pub(super) struct StructuredRules {
    pub(super) files: Arc<SchemaFiles>,
    /// The task's; `None` if each row has its own.
    pub(super) notation: Option<Notation>,
    /// Required name of XML's root element.
    pub(super) root: Option<String>,
}

impl StructuredRules {
    pub(super) fn notation_of(&self, row: Option<&PromptRow>) -> Result<Notation, String> {
        match row.and_then(|row| row.fields.get("format")) {
            Some(own) => {
                let name = own.as_str().map_or_else(|| own.to_string(), str::to_owned);
                Notation::named(&name).map_err(|problem| format!("the row's `format` {problem}"))
            }
            None => self.notation.ok_or_else(|| {
                "no format: write `[score] format = \"yaml\"` or \"xml\", or give the row `format`".to_owned()
            }),
        }
    }

    pub(super) fn root_name(&self) -> &str {
        self.root.as_deref().unwrap_or(ROOT)
    }
}
