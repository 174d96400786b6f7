//! The notations of structured answers: how each is read as JSON, and written.

use std::sync::Arc;

use serde_json::Value;

use super::{xml, yaml};
use crate::dataset::PromptRow;
use crate::score::answer::transcript::AnswerText;
use crate::score::definition::SchemaFiles;
use crate::score::verdict::unwrap_answer::Read;

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

/// The root element of an answer that the task does not name one for.
const ROOT: &str = "answer";

/// A schema, and the notation of its answers.
#[derive(Debug, Clone)]
pub(super) struct StructuredRules {
    pub(super) files: Arc<SchemaFiles>,
    /// The task's; `None` where each row has its own.
    pub(super) notation: Option<Notation>,
    /// The name that an XML answer's root element must have.
    pub(super) root: Option<String>,
}

impl StructuredRules {
    /// The row's own notation, else the task's.
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

    pub(super) fn notation_name(&self) -> String {
        self.notation.map_or_else(
            || "the format of the row".to_owned(),
            |notation| notation.name().to_uppercase(),
        )
    }

    pub(super) fn root_name(&self) -> &str {
        self.root.as_deref().unwrap_or(ROOT)
    }
}
