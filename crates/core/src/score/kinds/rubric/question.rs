//! A question to a judge as a request, and its answer as points.

use serde_json::{Map, Value, json};

use crate::dataset::PromptRow;
use crate::format::shortened;
use crate::score::needs::{Criterion, INSTRUCTIONS, RubricRules, SIDE_BY_SIDE, Scale};
use crate::secrets::{redact, visible};
use crate::text::conversation;

/// Limit for reasons and points; overridable in the endpoint's `extra_body`.
const MAX_TOKENS: usize = 2_048;
const MAX_REASON_CHARS: usize = 300;

/// Answers judged in one request.
#[derive(Debug, Clone)]
pub(super) struct Question<'a> {
    pub(super) row: Option<&'a PromptRow>,
    /// One, or the distinct ones of a group.
    pub(super) answers: Vec<&'a str>,
}

/// Points of one criterion, with the judge's reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Grade {
    pub(super) points: u8,
    pub(super) reason: String,
}

impl Question<'_> {
    /// The variable part of the request: conversation and answers as JSON.
    pub(super) fn content(&self, rules: &RubricRules, system: Option<&str>) -> String {
        let messages = self
            .row
            .map(|row| conversation(system, &row.messages))
            .unwrap_or_default();
        let messages: Vec<Value> = messages.iter().map(|message| json!(message)).collect();
        let mut content = Map::new();
        content.insert("conversation".to_owned(), json!(messages));
        let expected = self
            .row
            .and_then(|row| row.expected.as_ref())
            .filter(|_| rules.sees_expected);
        content.extend(expected.map(|expected| ("expected".to_owned(), expected.clone())));
        if rules.compares_group {
            let answers = self.answers.iter().enumerate();
            let named = answers.map(|(index, answer)| (answer_name(index), json!(answer)));
            content.insert("answers".to_owned(), Value::Object(named.collect()));
        } else {
            content.insert("answer".to_owned(), json!(self.answers.first()));
        }
        Value::Object(content).to_string()
    }

    /// The request in OpenAI's form.
    pub(super) fn body(&self, rules: &RubricRules, system: Option<&str>) -> String {
        let criteria = &rules.criteria;
        let line = |criterion: &Criterion| {
            let scale = match criterion.scale {
                Scale::YesNo => "verdict yes or no",
                Scale::ZeroToFour => "points 0 (not at all), 1, 2 (half), 3, 4 (fully)",
            };
            format!("\n- `{}` ({scale}): {}", criterion.name, criterion.text)
        };
        let side_by_side = if rules.compares_group {
            format!(" {SIDE_BY_SIDE}")
        } else {
            String::new()
        };
        let expected = if rules.sees_expected {
            " `expected` is a right answer, if it is there."
        } else {
            ""
        };
        let rubric: String = criteria.iter().map(line).collect();
        let mut instructions =
            format!("{INSTRUCTIONS}{side_by_side}{expected}\n\nThe rubric:{rubric}");
        let schema = if rules.compares_group {
            instructions += "\n\nAnswer with one JSON object that has the grades of each answer under its name.";
            object((0..self.answers.len()).map(|index| {
                (
                    answer_name(index),
                    grades_schema(criteria, rules.local.is_some()),
                )
            }))
        } else {
            grades_schema(criteria, rules.local.is_some())
        };
        let mut body = json!({
            "model": rules.endpoint.model,
            "messages": [
                {"role": "system", "content": instructions},
                {"role": "user", "content": self.content(rules, system)},
            ],
            "temperature": 0.0,
            "seed": 0,
            "response_format": {"type": "json_schema", "json_schema": {"name": "grades", "strict": true, "schema": schema}},
        });
        if let Some(fields) = body.as_object_mut() {
            if rules.local.is_some() {
                // The schema bounds the answer, and a small model has no room for more tokens.
                fields.insert("reasoning_effort".to_owned(), json!("none"));
            } else if !rules
                .endpoint
                .extra_body
                .contains_key("max_completion_tokens")
            {
                fields.insert("max_tokens".to_owned(), json!(MAX_TOKENS));
            }
            fields.extend(rules.endpoint.extra_body.clone());
        }
        body.to_string()
    }

    /// Parses grades per answer, in the order of the criteria.
    ///
    /// # Errors
    /// A sentence about a deviation from the requested form.
    pub(super) fn read(&self, rules: &RubricRules, text: &str) -> Result<Vec<Vec<Grade>>, String> {
        let form = |what: &str| {
            format!(
                "the judge's answer {what}; its server must enforce `response_format` json_schema"
            )
        };
        let value: Value = serde_json::from_str(text.trim()).map_err(|_| {
            form(&format!(
                "is not the JSON that was asked for: {:?}",
                shortened(text.trim(), 60)
            ))
        })?;
        let grades = |value: &Value| {
            let grade = |criterion: &Criterion| {
                let found = &value[&criterion.name];
                let points = match criterion.scale {
                    Scale::YesNo => ["no", "yes"]
                        .iter()
                        .position(|verdict| found["verdict"] == *verdict),
                    Scale::ZeroToFour => found["points"]
                        .as_u64()
                        .filter(|points| *points <= 4)
                        .map(|points| points as usize),
                };
                let points = points.ok_or_else(|| {
                    form(&format!(
                        "has no {} for `{}`",
                        field(criterion.scale),
                        criterion.name
                    ))
                })?;
                let reason = visible(&redact(found["reason"].as_str().unwrap_or_default()).0)
                    .replace('\n', " ");
                Ok(Grade {
                    points: points as u8,
                    reason: shortened(&reason, MAX_REASON_CHARS),
                })
            };
            rules
                .criteria
                .iter()
                .map(grade)
                .collect::<Result<Vec<_>, String>>()
        };
        if rules.compares_group {
            (0..self.answers.len())
                .map(|index| grades(&value[answer_name(index)]))
                .collect()
        } else {
            Ok(vec![grades(&value)?])
        }
    }
}

fn field(scale: Scale) -> &'static str {
    if scale == Scale::YesNo {
        "verdict"
    } else {
        "points"
    }
}

fn answer_name(index: usize) -> String {
    format!("answer_{}", index + 1)
}

/// `is_bounded`: limits reasons, which small models may write endlessly. OpenAI's API has no such
/// bound.
fn grades_schema(criteria: &[Criterion], is_bounded: bool) -> Value {
    let reason = match is_bounded {
        true => json!({"type": "string", "maxLength": MAX_REASON_CHARS}),
        false => json!({"type": "string"}),
    };
    object(criteria.iter().map(|criterion| {
        let mark = match criterion.scale {
            Scale::YesNo => json!({"type": "string", "enum": ["yes", "no"]}),
            Scale::ZeroToFour => json!({"type": "integer", "enum": [0, 1, 2, 3, 4]}),
        };
        let grade = [
            ("reason".to_owned(), reason.clone()),
            (field(criterion.scale).to_owned(), mark),
        ];
        (criterion.name.clone(), object(grade.into_iter()))
    }))
}

fn object(members: impl Iterator<Item = (String, Value)>) -> Value {
    let members: Map<String, Value> = members.collect();
    let required: Vec<&String> = members.keys().collect();
    json!({"type": "object", "required": required, "properties": members, "additionalProperties": false})
}
