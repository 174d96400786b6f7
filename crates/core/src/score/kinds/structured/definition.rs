//! `[score] kind = "structured"`: a schema of answers in YAML.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::judge::YamlJudge;
use super::yaml;
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
        KeyInfo::new("format", "yaml", "yaml, the only notation"),
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

/// A schema whose answers are YAML.
#[derive(Debug, Clone)]
struct YamlRules(Arc<SchemaFiles>);

fn read(top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let (files, found) = SchemaFiles::read(top, score, home)?;
    if let (Some(name), Some((_, offset))) = (score.string("format")?, score.get("format"))
        && let Some(problem) = yaml::format_problem(&name)
    {
        return Err(score.error("format", offset, problem));
    }
    Ok((Arc::new(YamlRules(Arc::new(files))), Some(found)))
}

impl Definition for YamlRules {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(YamlJudge {
            values: SchemaJudge::new(task, &self.0)?,
            files: self.0.clone(),
        }))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Borrowed(&self.0.schema)
    }

    fn lazy_answers<'a>(
        &self,
        _task: &'a TaskFiles,
        _rows: &'a [PromptRow],
    ) -> Vec<LazyAnswer<'a>> {
        let written = |(name, value, advice): (_, Value, _)| {
            LazyAnswer::same(name, yaml::write(&value), advice)
        };
        let values = SchemaFiles::lazy_values(&self.0.schema).into_iter();
        values.map(written).collect()
    }

    fn digest(&self, task: &TaskFiles) -> String {
        // Equal to that of earlier versions, whose key `root` was empty.
        text_digest(&format!("yaml\n\n{}", task.definition_text))
    }

    fn file_name(&self) -> &'static str {
        self.0.file_name()
    }

    fn other_files(&self) -> Vec<&str> {
        self.0.other_files()
    }

    fn with_text(&self, home: &Home, file: &str, text: &str) -> Read<Option<Arc<dyn Definition>>> {
        let files = self.0.with_schema_text(home, file, text)?;
        Ok(Some(Arc::new(Self(Arc::new(files)))))
    }

    fn answer_names(&self, task: &TaskFiles) -> Vec<String> {
        self.0.answer_names(task)
    }

    fn schema(&self) -> Option<AnswerSchema<'_>> {
        Some(AnswerSchema {
            value: &self.0.schema,
        })
    }
}
