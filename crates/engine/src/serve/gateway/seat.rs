//! One conversation as its client and the threads that decode see it: requests, in the order in which they came, with
//! their answers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::response::Response;
use serde_json::Value as Json;
use tokio::sync::mpsc::error::TrySendError;

use super::super::Shared;
use super::super::collected::{Collected, server_error};
use super::super::generation::{PreparedRequest, prepare_asked, respond};
use super::super::queue::{DecodeRequest, Event};
use super::super::text_stream::TextStream;
use super::branches::{Answered, Asked, present, prompt_of};
use crate::environment::{AgentPhase, AgentRequest};
use crate::openai::{Api, ApiError, GenerationRequest, chat_message};
use crate::rollout::{Completion, StopReason};
use crate::text::Message;

/// Learns of requests; they are to be sampled with random numbers of their own.
pub(super) type OnRequest = Box<dyn Fn(SeatRequest) + Send + Sync>;

/// A request that is to be sampled.
#[derive(Debug)]
pub struct SeatRequest {
    /// In its conversation, from 0.
    pub number: u32,
    /// The request whose prompt and completion its prompt begins with.
    pub follows: Option<u32>,
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
}

/// The place of one conversation.
pub struct Seat {
    shared: Arc<Shared>,
    max_requests: usize,
    on_request: OnRequest,
    /// Held while a request is read: their numbers are in their random numbers. The threads that decode do not take it.
    asked: Mutex<Vec<Asked>>,
    /// Held for moments.
    state: Mutex<SeatState>,
}

#[derive(Debug, Default)]
struct SeatState {
    /// Those that are sampled, by number.
    pending: BTreeMap<u32, Pending>,
    /// Answers that `asked` has not yet, by number.
    answered: BTreeMap<u32, Answered>,
    has_asked: bool,
    refused: BTreeMap<String, usize>,
    last_refusal: Option<ApiError>,
    /// Whether a request had a sampling parameter that has no effect.
    has_ignored: bool,
    is_closed: bool,
}

/// A request that is sampled.
#[derive(Debug)]
struct Pending {
    job: DecodeRequest,
    /// What it is answered with, as a client reads it.
    reader: Collected,
    /// Its text so far, where a text of `stop` ends it.
    text: Option<TextStream>,
}

/// A request with its completion.
#[derive(Debug)]
pub struct SeatAnswer {
    pub prompt: Vec<u32>,
    pub completion: Completion,
    /// Its content, and the names and arguments of its calls.
    pub message: Message,
    /// `follows` counts those that were answered.
    pub record: AgentRequest,
}

/// A conversation that has ended.
#[derive(Debug, Default)]
pub struct SeatRecord {
    pub answers: Vec<SeatAnswer>,
    /// By OpenAI's code of the error.
    pub refused: BTreeMap<String, usize>,
    pub last_refusal: Option<ApiError>,
    /// Whether a request had a sampling parameter that has no effect.
    pub has_ignored: bool,
}

impl Seat {
    pub(super) fn new(shared: Arc<Shared>, max_requests: usize, on_request: OnRequest) -> Self {
        Self {
            shared,
            max_requests,
            on_request,
            asked: Mutex::default(),
            state: Mutex::default(),
        }
    }

    pub(super) fn model_names(&self) -> impl Iterator<Item = &str> {
        self.shared.names()
    }

    /// Tokens of a prompt and its completion.
    pub(super) fn max_model_len(&self) -> usize {
        let Shared {
            longest_prompt,
            max_completion_tokens,
            positions,
            ..
        } = *self.shared;
        positions.min(longest_prompt.saturating_add(max_completion_tokens))
    }

    fn state(&self) -> MutexGuard<'_, SeatState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests so far, with what they were answered.
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, answer) in std::mem::take(&mut self.state().answered) {
            if let Some(asked) = asked.get_mut(number as usize) {
                asked.answer = Some(answer);
            }
        }
        asked
    }

    /// What its program does.
    pub fn phase(&self) -> AgentPhase {
        let state = self.state();
        match (
            !state.has_asked && state.refused.is_empty(),
            state.pending.is_empty(),
        ) {
            (true, _) => AgentPhase::Starting,
            (false, false) => AgentPhase::Waiting,
            (false, true) => AgentPhase::Working,
        }
    }

    /// Whether its program has ended.
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Answers a body.
    pub(super) async fn answer(
        self: Arc<Self>,
        api: Api,
        body: axum::body::Bytes,
    ) -> Result<Response, ApiError> {
        let reading = tokio::task::spawn_blocking(move || self.prepare(api, &body));
        let prepared = reading
            .await
            .map_err(|_| server_error("the request could not be prepared"))??;
        respond(prepared).await
    }

    pub(super) fn count_refusal(&self, error: &ApiError) {
        let mut state = self.state();
        *state
            .refused
            .entry(error.code.unwrap_or(error.kind).to_owned())
            .or_default() += 1;
        state.last_refusal = Some(error.clone());
    }

    fn prepare(&self, api: Api, body: &[u8]) -> Result<PreparedRequest, ApiError> {
        let (arrived, client) = (Instant::now(), present());
        let asked = GenerationRequest::parse(api, body)?;
        if !self.model_names().any(|name| name == asked.model) {
            return Err(self.shared.no_model(&asked.model));
        }
        let (asked, has_ignored) = as_policy(asked, self.shared.max_completion_tokens)?;
        let mut earlier = self.asked();
        if self.is_closed() {
            return Err(has_ended());
        }
        if earlier.len() >= self.max_requests {
            let message = format!(
                "the conversation has had its {} requests ([agent] max_requests)",
                self.max_requests
            );
            return Err(ApiError {
                code: Some("max_requests"),
                ..ApiError::invalid("", message)
            });
        }
        let prompt = prompt_of(
            &self.shared,
            &earlier,
            (&asked.prompt, asked.add_special_tokens),
            &Arc::downgrade(&client),
        )?;
        let prepare = |api, asked| {
            prepare_asked(&self.shared, api, asked, (None, arrived), |_| {
                Ok(vec![prompt.token_ids.clone()])
            })
        };
        let whole = match api {
            Api::Completions | Api::Generate => Api::Completions,
            Api::Chat | Api::Responses => Api::Chat,
        };
        let reader = prepare(
            whole,
            GenerationRequest {
                stream: false,
                ..asked.clone()
            },
        )?
        .collected;
        let stops = Arc::new(asked.stop.clone());
        let mut prepared = prepare(api, asked)?;
        if let Some(wanted) = &prepared.wanted {
            return Err(constrained(wanted.field()));
        }
        let (job, _) = prepared
            .jobs
            .pop()
            .ok_or_else(|| server_error("the request has no prompt"))?;
        let number = earlier.len() as u32;
        let (prompt_ids, max_tokens) =
            (prompt.token_ids.clone(), job.sampling.max_completion_tokens);
        let follows = prompt.follows.map(|number| number as u32);
        let text =
            (!stops.is_empty()).then(|| TextStream::new(Arc::clone(&self.shared.tokenizer), stops));
        let mut state = self.state();
        if state.is_closed {
            return Err(has_ended());
        }
        let answer = None;
        earlier.push(Asked { prompt, answer });
        state.pending.insert(number, Pending { job, reader, text });
        state.has_asked = true;
        state.has_ignored |= has_ignored;
        (self.on_request)(SeatRequest {
            number,
            follows,
            prompt: prompt_ids,
            max_tokens,
        });
        Ok(prepared)
    }

    /// Learns of the newest token of a request; whether it goes on.
    pub fn on_token(&self, number: u32, completion: &Completion) -> bool {
        let mut state = self.state();
        let is_closed = state.is_closed;
        let Some(Pending { job, text, .. }) = state.pending.get_mut(&number).filter(|_| !is_closed)
        else {
            return false;
        };
        let Some(event) = newest_token(completion).filter(|_| job.by_token) else {
            return !job.events.is_closed();
        };
        if let (Some(text), Some(id)) = (text, completion.token_ids.last()) {
            // The client learns of the last token once its answer is known here: its next request may continue it.
            if text.push(*id).is_err() || text.is_stopped() {
                return false;
            }
        }
        !matches!(
            job.events.try_send(event),
            Err(TrySendError::Full(_) | TrySendError::Closed(_))
        )
    }

    /// Takes the completion of a request, and answers its client.
    ///
    /// # Errors
    /// A text that the tokenizer does not decode.
    pub fn on_end(&self, number: u32, completion: &Completion) -> Result<(), ApiError> {
        let mut state = self.state();
        let is_closed = state.is_closed;
        let pending = state
            .pending
            .remove(&number)
            .filter(|pending| !is_closed && !pending.job.events.is_closed());
        let Some(Pending { job, reader, text }) = pending else {
            return Ok(());
        };
        let answer = read(reader, completion, job.by_token)?;
        state.answered.insert(number, answer);
        if text.is_some_and(|text| text.is_stopped()) {
            newest_token(completion).map(|event| job.events.try_send(event));
        }
        // Its other tokens were told already.
        let told = if job.by_token {
            Completion::new(Vec::new(), Vec::new(), completion.stop)
        } else {
            completion.clone()
        };
        _ = job.events.try_send(Event::Ended {
            index: 0,
            completion: told,
        });
        Ok(())
    }

    /// Ends the conversation: nothing more is answered.
    pub fn close(&self) -> SeatRecord {
        self.state().is_closed = true;
        let asked = std::mem::take(&mut *self.asked());
        let mut state = self.state();
        state.pending.clear();
        // Numbers among those that were answered.
        let mut places = Vec::with_capacity(asked.len());
        let mut answered = 0;
        for asked in &asked {
            places.push(answered);
            answered += usize::from(asked.answer.is_some());
        }
        let answer = |asked: Asked| {
            let Answered {
                completion,
                message,
            } = asked.answer?;
            let record = AgentRequest {
                follows: asked.prompt.follows.map(|number| places[number]),
                split: asked.prompt.split.clone(),
                messages: asked.prompt.new_messages(),
                prompt_ids: asked.prompt.token_ids[asked.prompt.shared_ids..].to_vec(),
            };
            Some(SeatAnswer {
                prompt: asked.prompt.token_ids,
                completion,
                message,
                record,
            })
        };
        SeatRecord {
            answers: asked.into_iter().filter_map(answer).collect(),
            refused: std::mem::take(&mut state.refused),
            last_refusal: state.last_refusal.take(),
            has_ignored: state.has_ignored,
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Seat")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

fn has_ended() -> ApiError {
    server_error("the conversation has ended")
}

/// The event of the newest token.
fn newest_token(completion: &Completion) -> Option<Event> {
    let (&token_id, &log_prob) = (completion.token_ids.last()?, completion.log_probs.last()?);
    Some(Event::Token {
        index: 0,
        token_id,
        log_prob,
        alternatives: Vec::new(),
    })
}

/// A request as the policy samples it, and whether a parameter of it has no effect.
fn as_policy(asked: GenerationRequest, most: usize) -> Result<(GenerationRequest, bool), ApiError> {
    let refuse =
        |field: &str, why: &str| Err(ApiError::invalid(field, format!("`{field}`: {why}")));
    if asked.samples > 1 || asked.prompt.count() > 1 {
        return refuse(
            "n",
            "a conversation with a policy has one completion a request",
        );
    }
    for (field, is_set) in [
        ("prompt_logprobs", asked.prompt_log_probs),
        ("echo", asked.echo),
    ] {
        if is_set {
            return refuse(field, "not available while a policy is sampled");
        }
    }
    if asked.top_log_probs > 0 {
        return refuse(
            "top_logprobs",
            "not available: `logprobs` has those of the sampled tokens",
        );
    }
    if asked.thinking_budget.is_some() {
        return refuse("thinking_token_budget", "the run has its own");
    }
    if asked.ignore_eos {
        return refuse("ignore_eos", "a policy ends its answers itself");
    }
    let policy = GenerationRequest {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        min_tokens: 0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: Some(0),
        max_tokens: Some(asked.max_tokens.map_or(most, |tokens| tokens.min(most))),
        ..asked.clone()
    };
    let as_asked = GenerationRequest {
        seed: policy.seed,
        max_tokens: policy.max_tokens,
        ..asked.clone()
    };
    let has_ignored = as_asked != policy || asked.seed.is_some();
    Ok((policy, has_ignored))
}

/// `field`: the one that constrains completions.
fn constrained(field: &str) -> ApiError {
    let message = format!(
        "`{field}`: a policy is sampled without constraints, since its log-probs would be others"
    );
    ApiError {
        code: Some("unsupported_parameter"),
        ..ApiError::invalid(field, message)
    }
}

/// What a client reads of a completion, which ends with the token that completes a text of `stop`.
fn read(
    mut reader: Collected,
    completion: &Completion,
    by_token: bool,
) -> Result<Answered, ApiError> {
    let mut completion = completion.clone();
    if by_token {
        let tokens: Vec<_> = completion
            .token_ids
            .iter()
            .copied()
            .zip(completion.log_probs.iter().copied())
            .collect();
        for (index, (token_id, log_prob)) in tokens.into_iter().enumerate() {
            reader.apply(Event::Token {
                index: 0,
                token_id,
                log_prob,
                alternatives: Vec::new(),
            })?;
            if reader.is_complete() {
                completion.token_ids.truncate(index + 1);
                completion.log_probs.truncate(index + 1);
                completion.stop = StopReason::Stop;
                break;
            }
        }
        let ended = Completion::new(Vec::new(), Vec::new(), completion.stop);
        reader.apply(Event::Ended {
            index: 0,
            completion: ended,
        })?;
    } else {
        reader.apply(Event::Ended {
            index: 0,
            completion: completion.clone(),
        })?;
    }
    let choice = reader.whole()["choices"][0].take();
    let message = match &choice["message"] {
        Json::Null => Message::new("assistant", choice["text"].as_str().unwrap_or_default()),
        message => chat_message("message", message)?,
    };
    Ok(Answered {
        completion,
        message,
    })
}
