//! The server's log-probs of the run's own answers, compared with those of the run and of other weights.

use serde_json::{Value, json};

use super::asker::{Asker, Request};
use super::facts::{BaseDistance, Facts, LogProbFacts};
use super::replies::{read_tokens, sampled_tokens};
use super::{OtherWeights, Reference, RunAnswer};
use crate::api_client::ProbePath;
use crate::statistics::correlation;
use crate::text::Tokenizer;

/// Answers whose log-probs are asked for.
const MAX_ANSWERS: usize = 64;
/// Other checkpoints of the run that are compared where its own differs.
const MAX_STEPS: usize = 4;
/// [`Channel::Chat`].
pub(super) const OF_CHAT: &str = "logprobs of sampled chat tokens";
/// Fewer tokens say nothing.
const MIN_TOKENS: usize = 8;

/// How a server tells log-probs; of given tokens, then of those that it samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    PromptLogprobs,
    Echo,
    Completions,
    Chat,
}

const CHANNELS: [Channel; 4] = [
    Channel::PromptLogprobs,
    Channel::Echo,
    Channel::Completions,
    Channel::Chat,
];

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::PromptLogprobs => "prompt_logprobs of given tokens",
            Self::Echo => "echo of given tokens",
            Self::Completions => "logprobs of sampled tokens",
            Self::Chat => OF_CHAT,
        }
    }

    fn request(self, reference: &Reference<'_>, index: usize, answer: &RunAnswer) -> Request {
        let prompt = &reference.prompts[index];
        let model = &reference.endpoint.model;
        let whole = [prompt.token_ids.as_slice(), &answer.token_ids].concat();
        let given = |field: &str, value: Value| {
            let mut body =
                json!({"model": model, "prompt": whole, "max_tokens": 1, "temperature": 0});
            body[field] = value;
            body
        };
        let body = match self {
            Self::PromptLogprobs => given("prompt_logprobs", json!(0)),
            Self::Echo => {
                let mut body = given("echo", json!(true));
                body["logprobs"] = json!(1);
                body
            }
            Self::Completions => {
                json!({"model": model, "prompt": prompt.token_ids, "max_tokens": answer.token_ids.len(), "temperature": 0, "logprobs": 1})
            }
            Self::Chat => {
                let mut body = prompt.body.clone();
                body.insert("logprobs".to_owned(), json!(true));
                Value::Object(body)
            }
        };
        let path = match self {
            Self::Chat => ProbePath::Chat,
            _ => ProbePath::Completions,
        };
        Request { path, body }
    }

    /// Log-probs of the answer's first tokens, as far as the server's own are the same.
    fn read(
        self,
        document: &Value,
        prompt_ids: &[u32],
        answer: &RunAnswer,
        tokenizer: &Tokenizer,
    ) -> Option<Vec<f64>> {
        if matches!(self, Self::PromptLogprobs | Self::Echo) {
            let whole = [prompt_ids, &answer.token_ids].concat();
            return read_tokens(document, &whole, prompt_ids.len());
        }
        let tokens = sampled_tokens(document)?;
        let pairs = tokens.iter().zip(&answer.token_ids);
        let same = pairs.take_while(|(token, id)| match token.id {
            Some(told) => told == **id,
            None => tokenizer
                .decode(&[**id], false)
                .is_ok_and(|text| text == token.text),
        });
        Some(same.map(|(token, _)| token.log_prob).collect())
    }
}

pub(super) fn measured(
    reference: &Reference<'_>,
    asker: &Asker<'_>,
    facts: &Facts,
    other_weights: &impl Fn(OtherWeights) -> Result<Vec<Vec<f32>>, String>,
) -> Result<LogProbFacts, String> {
    if !reference.why_no_answers.is_empty() {
        return Err(reference.why_no_answers.clone());
    }
    let answers = reference.prompts.iter().enumerate();
    let answers: Vec<(usize, &RunAnswer)> = answers
        .filter_map(|(index, prompt)| Some((index, prompt.answer.as_ref()?)))
        .filter(|(_, answer)| !answer.log_probs.is_empty())
        .take(MAX_ANSWERS)
        .collect();
    let ask = |channel: Channel, answers: &[(usize, &RunAnswer)]| -> Vec<Option<Vec<f64>>> {
        let requests = answers
            .iter()
            .map(|(index, answer)| channel.request(reference, *index, answer));
        let documents = asker.all("log-probs", 8, requests.collect());
        let read = |(document, (index, answer)): (Result<Value, String>, &(usize, &RunAnswer))| {
            let prompt = &reference.prompts[*index].token_ids;
            channel.read(&document.ok()?, prompt, answer, reference.tokenizer)
        };
        documents.into_iter().zip(answers).map(read).collect()
    };
    let (first, others) = answers
        .split_at_checked(1)
        .ok_or("the run has no answers with log-probs")?;
    // A chat answer to another prompt says nothing of the weights.
    let is_of_prompt = |channel: &Channel| *channel != Channel::Chat || !facts.has_other_prompts();
    let (channel, mut told) = CHANNELS
        .into_iter()
        .filter(is_of_prompt)
        .map(|channel| (channel, ask(channel, first)))
        .find(|(_, told)| told[0].is_some())
        .ok_or("the server tells no log-probs")?;
    told.extend(ask(channel, others));
    let pairs: Vec<Pair> = answers
        .iter()
        .zip(&told)
        .flat_map(|((index, answer), told)| {
            let told = told.iter().flatten().zip(&answer.log_probs).enumerate();
            told.map(|(at, (server, run))| Pair {
                prompt: *index,
                at,
                run: f64::from(*run),
                server: *server,
            })
        })
        .filter(|pair| (pair.server - pair.run).is_finite())
        .collect();
    if pairs.len() < MIN_TOKENS {
        return Err(format!(
            "{}: only {} of the run's tokens, too few",
            channel.name(),
            pairs.len()
        ));
    }
    let mut found = LogProbFacts {
        channel: channel.name(),
        answers: told
            .iter()
            .flatten()
            .filter(|told| !told.is_empty())
            .count(),
        ..summary(&pairs)
    };
    let by = |weights| {
        let others = other_weights(weights)?;
        let value = |pair: &Pair| {
            let other = others.get(pair.prompt).and_then(|own| own.get(pair.at));
            other
                .map(|value| f64::from(*value))
                .ok_or_else(|| "no log-probs".to_owned())
        };
        pairs
            .iter()
            .map(value)
            .collect::<Result<Vec<f64>, String>>()
    };
    let distance = |others: &Vec<f64>, of: fn(&Pair) -> f64| {
        mean(
            pairs
                .iter()
                .zip(others)
                .map(|(pair, other)| (of(pair) - other).abs()),
        )
    };
    found.base = by(OtherWeights::Base).map(|base| BaseDistance {
        of_server: distance(&base, |pair| pair.server),
        of_run: distance(&base, |pair| pair.run),
    });
    let is_far = found.mean > reference.max_nats;
    if is_far && reference.has_adapter {
        let twice = by(OtherWeights::AdapterTwice).ok();
        found.twice = twice.map(|twice| distance(&twice, |pair| pair.server));
    }
    let is_base = |base: &BaseDistance| base.of_server <= reference.max_nats;
    if is_far && !found.base.as_ref().is_ok_and(is_base) {
        let steps = reference.other_steps.iter().take(MAX_STEPS);
        let distances = steps.filter_map(|step| {
            let own = by(OtherWeights::Step(*step)).ok()?;
            Some((*step, distance(&own, |pair| pair.server)))
        });
        found.other_step = distances.min_by(|one, other| one.1.total_cmp(&other.1));
    }
    Ok(found)
}

/// A token of an answer with two log-probs.
struct Pair {
    prompt: usize,
    at: usize,
    run: f64,
    server: f64,
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

fn summary(pairs: &[Pair]) -> LogProbFacts {
    let sizes = || pairs.iter().map(|pair| (pair.server - pair.run).abs());
    let values: Vec<(f64, f64)> = pairs.iter().map(|pair| (pair.run, pair.server)).collect();
    LogProbFacts {
        tokens: pairs.len(),
        mean: mean(sizes()),
        max: sizes().fold(0.0, f64::max),
        // Constant log-probs correlate with nothing.
        correlation: correlation(&values).map_or(0.0, |found| found.estimate),
        channel: "",
        answers: 0,
        base: Err("not computed".to_owned()),
        twice: None,
        other_step: None,
    }
}
