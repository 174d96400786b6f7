//! The server's answers, as asked for and with an enforced schema, scored and paired with the run's.

use serde_json::{Value, json};

use super::asker::{Asker, Request};
use super::facts::{Facts, LogProbFacts, SchemaFact, SettingFacts};
use super::ids::{KWARGS, compared};
use super::log_probs::OF_CHAT;
use super::replies::{Reply, TIE_NATS, Told, spoken};
use super::{ProveError, ProvePrompt, Reference};
use crate::api_client::ProbePath;
use crate::format::shortened;
use crate::run::{Comparison, EvalRecord, SettingResult};

/// Prompts that are asked with `response_format`, and how many of these at once.
const FEW: usize = 16;
const FEW_AT_ONCE: usize = 8;
/// No model answers so by itself.
const PROBE: &str = "k7q";
const CHAT: &str = "chat";
const FORMAT: &str = "chat with response_format";

/// Answers to the first prompts, in order.
type Replies = Vec<Result<Reply, String>>;

/// # Errors
/// [`ProveError::Json`] of a score.
pub(super) fn measure(
    reference: &Reference<'_>,
    asker: &Asker<'_>,
    facts: &mut Facts,
) -> Result<(), ProveError> {
    // What is only rendered otherwise by default is asked for as in the run, so that other faults show.
    let ids = facts.ids_with_kwargs.as_ref();
    let is_default = ids.is_some_and(|ids| ids.fault.is_none());
    let ask = |what: &str, count: usize, at_once: usize| -> Replies {
        let requests = reference.prompts.iter().take(count).map(|prompt| {
            let mut body = Value::Object(prompt.body.clone());
            if is_default {
                body[KWARGS] = reference.kwargs.clone().into();
            }
            if what == FORMAT {
                body["response_format"] = prompt.response_format.clone().unwrap_or_default();
            }
            let path = ProbePath::Chat;
            Request { path, body }
        });
        let answers = asker.all(what, at_once, requests.collect()).into_iter();
        answers
            .map(|answer| answer.and_then(|answer| Reply::read(&answer)))
            .collect()
    };
    let chat = ask(CHAT, reference.prompts.len(), reference.at_once);
    measure_counts(reference, &chat, facts);
    facts.schema = schema_probe(reference, asker);
    // Sorted keys are where they were.
    if facts.schema == Ok(SchemaFact::Reordered) && has_sorted_answers(reference) {
        facts.schema = Ok(SchemaFact::Followed);
    }
    let mut formats = reference.prompts.iter();
    let has_format = formats.any(|prompt| prompt.response_format.is_some());
    let noise = facts.log_probs.as_ref().map_or(0.0, |found| found.max);
    facts.chat = scored(reference, CHAT, &chat, noise)?;
    facts.format = match &facts.schema {
        Err(reason) => Err(reason.clone()),
        Ok(_) if !has_format => Err("the task has no JSON Schema".to_owned()),
        Ok(_) => scored(reference, FORMAT, &ask(FORMAT, FEW, FEW_AT_ONCE), noise)?,
    };
    Ok(())
}

/// The limit of completion tokens, and its name, which is another one for newer models of OpenAI.
fn limit_of(prompt: &ProvePrompt) -> (&'static str, u64) {
    let names = ["max_completion_tokens", "max_tokens"].into_iter();
    let mut told = names.filter_map(|name| Some((name, prompt.body.get(name)?.as_u64()?)));
    let (name, limit) = told.next().unwrap_or(("max_tokens", 0));
    (name, limit.max(1))
}

/// Compares `usage.prompt_tokens` with the run's prompts, unless ids already differ.
fn measure_counts(reference: &Reference<'_>, replies: &Replies, facts: &mut Facts) {
    if facts.has_other_prompts() {
        return;
    }
    let told = |reply: &Result<Reply, String>| {
        let told = reply.as_ref().map_err(String::clone)?.prompt.clone();
        told.ok_or_else(|| "no count".to_owned())
    };
    let told: Vec<Result<Told, String>> = replies.iter().map(told).collect();
    let counts = compared(reference.prompts, &told, "usage of chat answers");
    if counts.compared > 0 && (facts.ids.is_err() || counts.fault.is_some()) {
        facts.ids = Ok(counts);
    }
    let is_of_chat = |found: &LogProbFacts| found.channel == OF_CHAT;
    if facts.has_other_prompts() && facts.log_probs.as_ref().is_ok_and(is_of_chat) {
        facts.log_probs =
            Err("chat answers to other prompts say nothing of the weights".to_owned());
    }
}

/// Whether a schema is followed that no model would follow by itself.
fn schema_probe(reference: &Reference<'_>, asker: &Asker<'_>) -> Result<SchemaFact, String> {
    let Some(first) = reference.prompts.first() else {
        return Err("no prompts".to_owned());
    };
    let value = json!({"type": "string", "enum": [PROBE]});
    let schema = json!({"type": "object", "properties": {"probe": value, "also": value}, "required": ["probe", "also"], "additionalProperties": false});
    let mut body = Value::Object(first.body.clone());
    // Tools and a format at once are refused by some.
    body.as_object_mut().map(|body| body.remove("tools"));
    // A model that thinks needs more than the answer.
    let (name, limit) = limit_of(first);
    body[name] = json!(limit.max(128));
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "probe", "strict": true, "schema": schema}});
    let answer = asker
        .one("response_format", ProbePath::Chat, body)
        .map_err(|reason| format!("response_format is refused: {reason}"))?;
    let reply = Reply::read(&answer)?;
    let marks = reference.tokenizer.think_marks();
    let text = spoken(&reply.content, marks).trim();
    if reply.is_cut_at_limit && (text.is_empty() || text.starts_with(marks.open)) {
        return Err("the answer was cut at its limit before it began".to_owned());
    }
    let found: Value = serde_json::from_str(text).unwrap_or_default();
    let first = found.as_object().and_then(|answer| answer.keys().next());
    Ok(match first.map(String::as_str) {
        _ if found != json!({"probe": PROBE, "also": PROBE}) => SchemaFact::Ignored,
        Some("probe") => SchemaFact::Followed,
        _ => SchemaFact::Reordered,
    })
}

/// Whether all of the run's answers have their keys in alphabetical order.
fn has_sorted_answers(reference: &Reference<'_>) -> bool {
    let marks = reference.tokenizer.think_marks();
    let answers = reference.prompts.iter().flat_map(|prompt| &prompt.answer);
    let mut values = answers.filter_map(|answer| {
        serde_json::from_str::<Value>(spoken(&answer.record.completion, marks)).ok()
    });
    values.all(|value| has_sorted_keys(&value))
}

fn has_sorted_keys(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.keys().is_sorted() && fields.values().all(has_sorted_keys),
        Value::Array(values) => values.iter().all(has_sorted_keys),
        _ => true,
    }
}

/// `noise`: the largest difference of a log-prob, nats.
fn scored(
    reference: &Reference<'_>,
    name: &str,
    replies: &Replies,
    noise: f64,
) -> Result<Result<SettingFacts, String>, ProveError> {
    if !reference.why_no_answers.is_empty() {
        return Ok(Err(reference.why_no_answers.clone()));
    }
    let mut found = SettingFacts::default();
    let (mut of_run, mut of_server) = (Vec::new(), Vec::new());
    for (prompt, reply) in reference.prompts.iter().zip(replies) {
        let Some(answer) = &prompt.answer else {
            continue;
        };
        found.result.prompts += 1;
        let reply = match reply {
            Ok(reply) => reply,
            Err(why) => {
                found.reason.clone_from(why);
                continue;
            }
        };
        found.result.answered += 1;
        let is_alike = |tie| reply.is_alike(answer, reference.tokenizer, tie);
        let alike = is_alike(TIE_NATS);
        // A schema that is enforced may change texts.
        if name == CHAT {
            found.result.comparable += usize::from(alike.is_some());
            found.result.same += usize::from(alike == Some(true));
            // Of two tokens one may become likelier by as much, and the other less likely.
            let is_noisy = alike == Some(false) && is_alike(2.0 * noise as f32) == Some(true);
            found.noisy += usize::from(is_noisy);
        }
        if alike == Some(false) && found.example.is_empty() {
            let quoted = |text: &str| format!("{:?}", shortened(text.trim(), 60));
            let (there, here) = (quoted(&reply.content), quoted(&answer.record.completion));
            found.example = format!("`{}`: {there} there, {here} in the run", prompt.row.id);
        }
        let mut record = EvalRecord {
            prompt_id: prompt.row.id.clone(),
            completion: reply.scored.clone(),
            truncated: reply.is_cut_at_limit,
            ..EvalRecord::default()
        };
        record.judge(&[reference.scorer.score(&reply.scored, Some(&prompt.row))])?;
        of_server.push(record);
        of_run.push(answer.record.clone());
    }
    if found.result.answered == 0 {
        return Ok(Err(match found.reason.as_str() {
            "" => "no answers".to_owned(),
            reason => reason.to_owned(),
        }));
    }
    found.result = SettingResult {
        name: name.to_owned(),
        valid: Comparison::between(&of_run, &of_server),
        exact: Comparison::between_exact(&of_run, &of_server),
        ..found.result
    };
    Ok(Ok(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_each_depth() {
        let values = [
            json!({"a": 1, "b": [{"c": 1, "d": 2}]}),
            json!({"b": 1, "a": 1}),
            json!({"a": [{"d": 1, "c": 2}]}),
        ];
        assert_eq!(values.each_ref().map(has_sorted_keys), [true, false, false]);
    }
}
