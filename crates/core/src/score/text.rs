//! `[score] kind = "text"`: the answer equals `expected`, or one of its list.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::audit::{plain_answers, prompt_itself};
use super::definition::{
    Definition, FoundDefinition, Judge, Kind, LazyAnswer, NORMALISE, text_digest,
};
use super::field_compare::{Normalisation, equal_text};
use super::judge::judge_text;
use super::unwrap_answer::ThinkRules;
use super::verdict::Verdict;
use super::{FailureClass, ScoreError, Tier, outline_entry};
use crate::dataset::PromptRow;
use crate::exact_json;
use crate::format::shortened;
use crate::task::{Home, Read, Section, TaskFiles, read_normalisations};

pub(crate) static KIND: Kind = Kind {
    name: "text",
    about: include_str!("text.about.md"),
    keys: &[],
    score_keys: &[NORMALISE],
    read,
};

#[derive(Debug)]
struct TextRules {
    /// Normalisations of the answer, joined by `+`.
    normalise: String,
}

fn read(_top: &Section<'_>, score: &Section<'_>, _home: &Home) -> Read<FoundDefinition> {
    let normalise = read_normalisations(score, "normalise")?.unwrap_or_default();
    Ok((Arc::new(TextRules { normalise }), None))
}

impl Definition for TextRules {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, _task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(Text {
            normalise: Normalisation::named(&self.normalise),
        }))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(json!({"type": "string"}))
    }

    fn summary(&self, _task: &TaskFiles) -> String {
        format!(
            "the row's `expected`, or one of its list{}",
            outline_entry::normalised(&self.normalise)
        )
    }

    fn lazy_answers<'a>(&self, task: &'a TaskFiles, rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        plain_answers(task)
            .into_iter()
            .chain(prompt_itself(rows))
            .collect()
    }

    fn digest(&self, _task: &TaskFiles) -> String {
        text_digest(&format!("text\n{}", self.normalise))
    }
}

#[derive(Debug)]
struct Text {
    normalise: Normalisation,
}

impl Judge for Text {
    fn judge(
        &self,
        completion: &str,
        from: usize,
        thoughts: ThinkRules,
        row: Option<&PromptRow>,
    ) -> Verdict {
        let expected = row.and_then(|row| row.expected.as_ref());
        judge_text(completion, from, thoughts, expected, |offset, answer| {
            let Some(expected) = expected else {
                return Verdict::new(Tier::Valid, None);
            };
            let allowed = expected
                .as_array()
                .map_or(std::slice::from_ref(expected), Vec::as_slice);
            if allowed
                .iter()
                .any(|allowed| equal_text(answer, allowed, self.normalise))
            {
                return Verdict {
                    exact: Some(true),
                    ..Verdict::new(Tier::Valid, None)
                };
            }
            let expected = shortened(&exact_json::write(expected), 80);
            let message = format!("expected {expected}, found {:?}", shortened(answer, 80));
            let class = FailureClass::WrongValue;
            Verdict {
                exact: Some(false),
                ..Verdict::because(Tier::Invalid, class, message, (completion, offset))
            }
        })
    }

    /// The first allowed answer.
    fn completion_of(&self, expected: &Value, _row: Option<&PromptRow>) -> Option<String> {
        let first = expected
            .as_array()
            .map_or(Some(expected), |allowed| allowed.first())?;
        Some(
            first
                .as_str()
                .map_or_else(|| exact_json::write(first), str::to_owned),
        )
    }
}
