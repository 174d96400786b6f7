//! `[score] kind = "structured"`: a schema, and the notation of answers.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::judge::Structured;
use super::notation::{Notation, StructuredRules};
use super::xml;
use crate::dataset::PromptRow;
use crate::score::definition::{
    ABSENT, ALIASES, ASSERT_FORMATS, AnswerSchema, Definition, FIELDS, FoundDefinition, GRADED,
    GROUNDED, Judge, KeyInfo, Kind, LazyAnswer, NORMALISE, REFERENCES, SCHEMA, SchemaFiles,
    TOLERANCE, text_digest,
};
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::judge::SchemaJudge;
use crate::task::{Home, Read, Section, TaskFiles};

pub(crate) static KIND: Kind = Kind {
    name: "structured",
    about: include_str!("about.md"),
    keys: &[SCHEMA],
    score_keys: &[
        KeyInfo::new(
            "format",
            "that of each row",
            "the notation of answers: yaml, xml or json",
        ),
        KeyInfo::new(
            "root",
            "any; `answer` where one is written",
            "the name of the root element, in XML",
        ),
        GRADED,
        ASSERT_FORMATS,
        NORMALISE,
        TOLERANCE,
        ALIASES,
        FIELDS,
        ABSENT,
        GROUNDED,
        REFERENCES,
    ],
    read,
};

fn read(top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let (files, found) = SchemaFiles::read(top, score, home)?;
    let offset = |key| score.get(key).map_or(0, |(_, offset)| offset);
    let named = score
        .string("format")?
        .map(|name| Notation::named(&name))
        .transpose();
    let notation = named.map_err(|problem| score.error("format", offset("format"), problem))?;
    let root = score.string("root")?;
    if let Some(root) = &root {
        let problem = match notation {
            Some(Notation::Json | Notation::Yaml) => {
                "names the root element of XML: remove it, or write `format = \"xml\"`"
            }
            _ if !xml::is_name(root) => {
                "must be a name of XML: letters, digits, `_`, `-`, `.`, a letter or `_` first"
            }
            _ => "",
        };
        if !problem.is_empty() {
            return Err(score.error("root", offset("root"), problem));
        }
    }
    Ok((
        Arc::new(StructuredRules {
            files: Arc::new(files),
            notation,
            root,
        }),
        Some(found),
    ))
}

impl Definition for StructuredRules {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(Structured {
            values: SchemaJudge::new(task, &self.files)?,
            rules: self.clone(),
        }))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Borrowed(&self.files.schema)
    }

    fn lazy_answers<'a>(&self, _task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        let own = self
            .notation
            .filter(|_| !rows.iter().any(|row| row.fields.get("format").is_some()));
        let written = |(name, value, advice): (_, Value, _)| match own {
            // Values that the notation cannot express cannot be answers.
            Some(notation) => Some(LazyAnswer::same(
                name,
                notation.write(&value, self.root_name())?,
                advice,
            )),
            None => {
                let rules = self.clone();
                let text = move |row: &PromptRow| {
                    let notation = rules.notation_of(Some(row)).ok();
                    notation
                        .and_then(|notation| notation.write(&value, rules.root_name()))
                        .unwrap_or_default()
                };
                Some(LazyAnswer::by_row(name, advice, text))
            }
        };
        SchemaFiles::lazy_values(&self.files.schema)
            .into_iter()
            .filter_map(written)
            .collect()
    }

    fn digest(&self, task: &TaskFiles) -> String {
        let notation = self.notation.map_or("", Notation::name);
        text_digest(&format!(
            "{notation}\n{}\n{}",
            self.root.as_deref().unwrap_or_default(),
            task.definition_text
        ))
    }

    fn file_name(&self) -> &'static str {
        self.files.file_name()
    }

    fn other_files(&self) -> Vec<&str> {
        self.files.other_files()
    }

    fn with_text(&self, home: &Home, file: &str, text: &str) -> Read<Option<Arc<dyn Definition>>> {
        let files = Arc::new(self.files.with_schema_text(home, file, text)?);
        Ok(Some(Arc::new(Self {
            files,
            ..self.clone()
        })))
    }

    fn answer_names(&self, task: &TaskFiles) -> Vec<String> {
        self.files.answer_names(task)
    }

    fn schema(&self) -> Option<AnswerSchema<'_>> {
        Some(AnswerSchema {
            value: &self.files.schema,
        })
    }
}
