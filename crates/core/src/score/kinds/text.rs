//! `[score] kind = "text"`: the answer equals `expected`, or one of its list.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::dataset::PromptRow;
use crate::exact_json;
use crate::format::shortened;
use crate::score::definition::lazy_answers::{LazyAnswer, plain_answers, prompt_itself};
use crate::score::definition::{Definition, FoundDefinition, Judge, Kind, NORMALISE, text_digest};
use crate::score::error::ScoreError;
use crate::score::verdict::field_compare::equal_text;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::{Attempt, FailureClass, Tier, Verdict};
use crate::task::{Home, Normalisations, Read, Section, TaskFiles, read_normalisations};

pub(crate) static KIND: Kind = Kind {
    name: "text",
    about: include_str!("text.about.md"),
    keys: &[],
    score_keys: &[NORMALISE],
    read,
};

#[derive(Debug)]
struct TextRules {
    normalise: Normalisations,
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
            normalise: Rules::of_texts(&self.normalise),
        }))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(json!({"type": "string"}))
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
    normalise: Rules,
}

impl Judge for Text {
    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let expected = attempt.expected();
        attempt.judge_text(expected, |offset, answer| {
            let Some(expected) = expected else {
                return Verdict::new(Tier::Valid, None);
            };
            let allowed = expected
                .as_array()
                .map_or(std::slice::from_ref(expected), Vec::as_slice);
            if allowed
                .iter()
                .any(|allowed| equal_text(answer, allowed, self.normalise.root()))
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
                ..Verdict::because(Tier::Invalid, class, message, (attempt.completion, offset))
            }
        })
    }

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
