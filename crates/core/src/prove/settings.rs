//! The server's answers under several settings, scored and paired with the run's.

use serde_json::{Value, json};

use super::asker::{Asker, Request};
use super::facts::{
    BatchFacts, CallFacts, Facts, LogProbFacts, SchemaFact, Setting, SettingFacts, StreamFacts,
    ThinkFacts,
};
use super::ids::{KWARGS, compared};
use super::log_probs::OF_CHAT;
use super::replies::{Likeness, Reply, TIE_NATS, Told, spoken};
use super::{ProveError, ProvePrompt, Reference, RunAnswer};
use crate::api_client::ProbePath;
use crate::format::shortened;
use crate::run::{Comparison, EvalRecord, SettingResult};
use crate::text::ThinkMarks;

/// Prompts of the settings that are compared with the server itself.
const FEW: usize = 16;
/// No model answers so by itself.
const PROBE: &str = "k7q";

/// Changes a request.
type Change<'c> = &'c dyn Fn(&ProvePrompt, &mut Value);

/// Answers to the first prompts, in order.
type Replies = Vec<Result<Reply, String>>;

/// # Errors
/// [`ProveError::Json`] of a score.
pub(super) fn measure(
    reference: &Reference<'_>,
    asker: &Asker<'_>,
    facts: &mut Facts,
) -> Result<(), ProveError> {
    let all = reference.prompts.len();
    let few = all.min(FEW);
    // What is only rendered otherwise by default is asked for as in the run, so that other faults show.
    let own_kwargs = Value::Object(reference.kwargs.clone());
    let ids = facts.ids_with_kwargs.as_ref();
    let is_default = ids.is_some_and(|ids| ids.fault.is_none());
    let chat_with =
        |kwargs: Option<&Value>, what: &str, count: usize, at_once: usize, more: Change<'_>| {
            let requests = reference.prompts[..count].iter().map(|prompt| {
                let mut body = Value::Object(prompt.body.clone());
                if let Some(kwargs) = kwargs {
                    body[KWARGS] = kwargs.clone();
                }
                more(prompt, &mut body);
                Request {
                    path: ProbePath::Chat,
                    body,
                }
            });
            replies(asker, what, at_once, requests.collect())
        };
    let at_once = reference.at_once;
    let mut kwargs = is_default.then_some(&own_kwargs);
    let what = format!("chat, {at_once} at once");
    let mut together = chat_with(kwargs, &what, all, at_once, &|_, _| ());
    facts.thinking = thinking(reference, &together);
    let is_sent = kwargs.is_some() || reference.kwargs.is_empty() || {
        let mut bodies = reference.prompts.iter().map(|prompt| &prompt.body);
        bodies.all(|body| body.get(KWARGS) == Some(&own_kwargs))
    };
    if facts.thinking.is_unlike() && !is_sent {
        let what = "chat with the run's chat_template_kwargs";
        let found = thinking(
            reference,
            &chat_with(Some(&own_kwargs), what, few, 8, &|_, _| ()),
        );
        facts.thinking_with_kwargs = Some(found);
        if found.compared > 0 && !found.is_unlike() {
            kwargs = Some(&own_kwargs);
            together = chat_with(kwargs, what, all, at_once, &|_, _| ());
        }
    }
    let chat = |what: &str, count: usize, at_once: usize, more: Change<'_>| {
        chat_with(kwargs, what, count, at_once, more)
    };
    measure_counts(reference, &together, facts);
    let raw = raw(reference, asker);
    facts.schema = schema_probe(reference, asker);
    // Sorted keys are where they were.
    if facts.schema == Ok(SchemaFact::Reordered) && has_sorted_answers(reference) {
        facts.schema = Ok(SchemaFact::Followed);
    }
    let has_format = reference
        .prompts
        .iter()
        .any(|prompt| prompt.response_format.is_some());
    let schema = match &facts.schema {
        Err(reason) => Err(reason.clone()),
        Ok(_) if !has_format => Err("the task has no JSON Schema".to_owned()),
        Ok(_) => Ok(chat(
            "chat with response_format",
            few,
            8,
            &|prompt, body| {
                body["response_format"] = prompt.response_format.clone().unwrap_or_default();
            },
        )),
    };
    let alone = chat("chat, 1 at once", few, 1, &|_, _| ());
    let eight = chat("chat, 8 at once", few, 8, &|_, _| ());
    let streamed = chat("chat, streamed", few, 8, &|_, body| {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    });
    facts.batch = batch(reference, &alone, &[&eight, &together]);
    facts.stream = stream(reference, &streamed, &[&alone, &eight, &together]);
    facts.in_think = in_think(reference, &together);
    if reference.has_calls {
        facts.calls = Some(calls(reference, &together, raw.as_ref().ok()));
    }
    let settings = [
        (Setting::Chat, Ok(together)),
        (Setting::Raw, raw),
        (Setting::Schema, schema),
    ];
    // Of two tokens one may become likelier by as much, and the other less likely.
    let noise = (facts.log_probs.as_ref()).map_or(0.0, |found| 2.0 * found.max);
    for (setting, replies) in settings {
        let found = match replies {
            _ if !reference.why_no_answers.is_empty() => Err(reference.why_no_answers.clone()),
            Ok(replies) => scored(reference, setting, &replies, noise)?,
            Err(reason) => Err(reason),
        };
        facts.settings.push((setting, found));
    }
    Ok(())
}

fn replies(asker: &Asker<'_>, what: &str, at_once: usize, requests: Vec<Request>) -> Replies {
    let answers = asker.all(what, at_once, requests).into_iter();
    answers
        .map(|answer| answer.and_then(|answer| Reply::read(&answer)))
        .collect()
}

/// Token ids in; the prompt's text where the server takes no ids.
fn raw(reference: &Reference<'_>, asker: &Asker<'_>) -> Result<Replies, String> {
    let request = |prompt: &ProvePrompt| {
        let body = json!({"model": reference.endpoint.model, "prompt": prompt.token_ids, "max_tokens": limit_of(prompt).1, "temperature": 0});
        Request {
            path: ProbePath::Completions,
            body,
        }
    };
    let what = "completions of token ids";
    let mut requests = reference.prompts.iter().map(request);
    let mut found = replies(asker, what, 1, requests.by_ref().take(1).collect());
    if let Some(Err(reason)) = found.first() {
        return Err(format!("the server takes no token ids: {reason}"));
    }
    found.extend(replies(asker, what, reference.at_once, requests.collect()));
    Ok(found)
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

/// `noise`: how much likelier a token may have been than the one that the server took, nats.
fn scored(
    reference: &Reference<'_>,
    setting: Setting,
    replies: &Replies,
    noise: f64,
) -> Result<Result<SettingFacts, String>, ProveError> {
    let [raw_scorer, scorer] = reference.scorers;
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
        let likeness = |tie| {
            let is_raw = setting == Setting::Raw;
            reply.likeness(answer, is_raw, reference.tokenizer, tie)
        };
        let is_noisy = || likeness(noise as f32) == Likeness::Tie;
        let likeness = likeness(TIE_NATS);
        if setting != Setting::Schema {
            found.count(likeness);
            found.noisy += usize::from(!likeness.is_alike() && is_noisy());
        }
        if !likeness.is_alike() && likeness != Likeness::Unknown && found.example.is_empty() {
            let quoted = |text: &str| format!("{:?}", shortened(text.trim(), 60));
            let (there, here) = (quoted(&reply.content), quoted(&answer.record.completion));
            found.example = format!("`{}`: {there} there, {here} in the run", prompt.row.id);
        }
        let is_raw = setting == Setting::Raw;
        let by = if is_raw { raw_scorer } else { scorer };
        let text = if is_raw {
            &reply.content
        } else {
            &reply.scored
        };
        let score = by.score(text, Some(&prompt.row));
        let mut record = EvalRecord {
            prompt_id: prompt.row.id.clone(),
            completion: text.clone(),
            truncated: reply.is_cut_at_limit,
            ..EvalRecord::default()
        };
        record.judge(&[score])?;
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
        name: setting.name().to_owned(),
        valid: Comparison::between(&of_run, &of_server),
        exact: Comparison::between_exact(&of_run, &of_server),
        ..found.result
    };
    Ok(Ok(found))
}

fn likeness(prompt: &ProvePrompt, reply: &Reply, reference: &Reference<'_>) -> Likeness {
    let answer = prompt.answer.as_ref();
    answer.map_or(Likeness::Unknown, |answer| {
        reply.likeness(answer, false, reference.tokenizer, TIE_NATS)
    })
}

/// Whether two answers of the server to one prompt differ by more than rounding.
fn differ(prompt: &ProvePrompt, one: &Reply, other: &Reply, reference: &Reference<'_>) -> bool {
    let alike = [one, other].map(|reply| likeness(prompt, reply, reference).is_alike());
    one.scored.trim() != other.scored.trim() && alike != [true, true]
}

fn batch(
    reference: &Reference<'_>,
    alone: &Replies,
    others: &[&Replies],
) -> Result<BatchFacts, String> {
    let mut found = BatchFacts {
        at_once: reference.at_once,
        ..BatchFacts::default()
    };
    for (index, prompt) in reference.prompts.iter().enumerate().take(alone.len()) {
        let Ok(one) = &alone[index] else { continue };
        let others: Vec<&Reply> = others
            .iter()
            .filter_map(|all| all[index].as_ref().ok())
            .collect();
        found.prompts += usize::from(!others.is_empty());
        let is_alike = |reply| likeness(prompt, reply, reference).is_alike();
        let changed = others
            .iter()
            .any(|other| differ(prompt, one, other, reference));
        let crosses = others.iter().any(|other| is_alike(other) != is_alike(one));
        found.changed += usize::from(changed && crosses);
        found.unlike += usize::from(changed && !crosses);
    }
    match found.prompts {
        0 | 1 => Err("fewer than two prompts were answered both alone and in a batch".to_owned()),
        _ => Ok(found),
    }
}

fn stream(
    reference: &Reference<'_>,
    streamed: &Replies,
    whole: &[&Replies],
) -> Result<StreamFacts, String> {
    let mut found = StreamFacts::default();
    let mut reason = "no answers".to_owned();
    for (index, (prompt, reply)) in reference.prompts.iter().zip(streamed).enumerate() {
        let reply = match reply {
            Ok(reply) => reply,
            Err(why) => {
                reason.clone_from(why);
                continue;
            }
        };
        let whole = whole.iter().filter_map(|all| all[index].as_ref().ok());
        let whole: Vec<&Reply> = whole.collect();
        if whole.is_empty() {
            continue;
        }
        if !reply.is_stream {
            "the server does not stream".clone_into(&mut reason);
            continue;
        }
        let differ = |one: &Reply, other: &Reply| differ(prompt, one, other, reference);
        // What the server answers otherwise each time says nothing of streams, unless they are cut.
        if !reply.is_broken && whole.windows(2).any(|pair| differ(pair[0], pair[1])) {
            "the server's whole answers differ among themselves".clone_into(&mut reason);
            continue;
        }
        found.prompts += 1;
        found.broken += usize::from(reply.is_broken);
        found.differ += usize::from(whole.iter().all(|whole| differ(reply, whole)));
    }
    match found.prompts {
        0 => Err(format!("no streamed answer: {reason}")),
        _ => Ok(found),
    }
}

/// Answers of the run, with the server's to the same prompt.
fn pairs<'a>(
    reference: &'a Reference<'_>,
    replies: &'a Replies,
) -> impl Iterator<Item = (&'a ProvePrompt, &'a RunAnswer, &'a Reply)> {
    let pairs = reference.prompts.iter().zip(replies);
    pairs
        .filter_map(|(prompt, reply)| Some((prompt, prompt.answer.as_ref()?, reply.as_ref().ok()?)))
}

/// Whether the run's answer is in the server's reasoning alone.
fn is_in_think(answer: &RunAnswer, reply: &Reply, marks: &ThinkMarks) -> bool {
    let expected = spoken(&answer.record.completion, marks).trim();
    // Thinking that its limit ended has no answer after it.
    let is_whole = !answer.record.truncated && !reply.is_cut_at_limit;
    let is_empty = reply.content.trim().is_empty() && !reply.has_calls;
    is_whole && is_empty && !expected.is_empty() && reply.reasoning.contains(expected)
}

fn in_think(reference: &Reference<'_>, replies: &Replies) -> usize {
    let marks = reference.tokenizer.think_marks();
    pairs(reference, replies)
        .filter(|(_, answer, reply)| is_in_think(answer, reply, marks))
        .count()
}

/// Which answers have thoughts, here and there.
fn thinking(reference: &Reference<'_>, replies: &Replies) -> ThinkFacts {
    let marks = reference.tokenizer.think_marks();
    let mut found = ThinkFacts::default();
    for (prompt, answer, reply) in pairs(reference, replies) {
        if is_in_think(answer, reply, marks) {
            continue;
        }
        found.compared += 1;
        let (here, there) = (answer.thinks(marks), reply.thinks(marks));
        found.more += usize::from(there && !here);
        // A server may keep thoughts to itself: the answer after them is the same.
        let is_other = !likeness(prompt, reply, reference).is_alike();
        found.less += usize::from(here && !there && is_other);
    }
    found
}

fn calls(
    reference: &Reference<'_>,
    parsed: &Replies,
    raw: Option<&Replies>,
) -> Result<CallFacts, String> {
    let tokens = reference.tokenizer.call_format().tokens;
    let mut found = CallFacts::default();
    for (index, prompt) in reference.prompts.iter().enumerate() {
        let (Some(answer), Ok(reply)) = (&prompt.answer, &parsed[index]) else {
            continue;
        };
        let text = spoken(&answer.record.completion, reference.tokenizer.think_marks()).trim();
        let has_call =
            tokens.iter().any(|token| text.contains(token)) || text.starts_with(['{', '[']);
        let sampled = match raw {
            Some(raw) => raw[index].as_ref().ok(),
            // Without calls its text is the sampled one.
            None => {
                Some(reply).filter(|reply| !reply.has_calls && !reply.content.trim().is_empty())
            }
        };
        let is_same = sampled.is_none_or(|sampled| {
            let (is_raw, tokenizer) = (raw.is_some(), reference.tokenizer);
            let likeness = sampled.likeness(answer, is_raw, tokenizer, TIE_NATS);
            likeness.is_alike()
        });
        if !has_call || !is_same || !answer.record.is_valid() {
            continue;
        }
        let score = reference.scorers[1].score(&reply.scored, Some(&prompt.row));
        let is_wrong = reply.has_calls && score.tier != crate::facts::Tier::Valid;
        if is_wrong && answer.has_tie() {
            // Another call may have been as likely.
            continue;
        }
        found.compared += 1;
        let is_missing = !reply.has_calls;
        found.missing += usize::from(is_missing);
        found.wrong += usize::from(is_wrong);
        found.untold += usize::from((is_missing || is_wrong) && sampled.is_none());
    }
    match found.compared {
        0 => Err("the run has no valid calls in these answers".to_owned()),
        _ => Ok(found),
    }
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
