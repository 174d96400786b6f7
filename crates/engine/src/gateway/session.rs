//! One conversation, shared by its program and the decoding threads: requests in order, with
//! answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::response::Response;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value as Json;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::branches::{Answered, Asked, prompt_of};
use crate::environment::{AgentLimits, AgentPhase, AgentRequest, RequestedConstraints};
use crate::generation::{
    AskedModel, Collected, ConstraintSpec, Event, PreparedRequest, TextStream, prepare_asked,
    respond, server_error,
};
use crate::openai::{
    Api, ApiError, GenerationRequest, Prompt, ResponseFormat, ToolChoice, chat_message,
};
use crate::rollout::{Client, Completion, QueuedQuestion, Request, StopReason};
use crate::text::Message;

pub(crate) struct Session {
    model: Arc<AskedModel>,
    limits: AgentLimits,
    question: Arc<QueuedQuestion>,
    sample: usize,
    /// Whether its program has ended.
    is_closed: Arc<AtomicBool>,
    /// Locked while a request is read, whose index determines its random numbers. Decoding threads
    /// do not take it.
    asked: Mutex<Vec<Asked>>,
    /// Locked briefly.
    state: Mutex<SessionState>,
}

#[derive(Debug, Default)]
struct SessionState {
    /// Requests being sampled.
    pending: usize,
    /// Answers not yet in `asked`, by index.
    answered: BTreeMap<u32, Answered>,
    has_asked: bool,
    /// The record without the answers.
    record: SessionRecord,
    /// An unreadable completion.
    failure: Option<ApiError>,
}

/// The client waiting for a request's completion.
struct SessionClient {
    is_closed: Arc<AtomicBool>,
    by_token: bool,
    events: Sender<Event>,
    /// Text so far, if a `stop` string may end it.
    text: Option<Mutex<TextStream>>,
    ended: Mutex<Option<oneshot::Sender<Completion>>>,
}

impl SessionClient {
    fn text(&self) -> Option<MutexGuard<'_, TextStream>> {
        Some(self.text.as_ref()?.lock())
    }
}

impl Client for SessionClient {
    fn on_token(&self, _: u32, completion: &Completion, _: Vec<(u32, f32)>) -> bool {
        if self.is_gone() || !self.by_token {
            return !self.is_gone();
        }
        if let (Some(mut text), Some(id)) = (self.text(), completion.token_ids.last()) {
            // The program gets the last token only once its answer is recorded here: its next
            // request may continue it.
            if text.push(*id).is_err() || text.is_stopped() {
                return false;
            }
        }
        let event = Event::of_newest(0, completion, Vec::new());
        let sent = event.map_or(Ok(()), |event| self.events.try_send(event));
        sent.is_ok()
    }

    fn on_end(&self, _: u32, completion: Completion) {
        _ = self.ended.lock().take().map(|ended| ended.send(completion));
    }

    fn is_gone(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) || self.events.is_closed()
    }
}

/// A request being sampled.
struct Pending {
    /// Index in its conversation.
    number: u32,
    client: Arc<SessionClient>,
    completion: oneshot::Receiver<Completion>,
    /// Converts it for the client.
    reader: Collected,
}

#[derive(Debug)]
pub(crate) struct SessionAnswer {
    pub(crate) prompt: Vec<u32>,
    pub(crate) completion: Completion,
    /// Content, and names and arguments of calls.
    pub(crate) message: Message,
    /// `follows` counts answered requests.
    pub(crate) record: AgentRequest,
}

/// A finished conversation.
#[derive(Debug, Default)]
pub(crate) struct SessionRecord {
    pub(crate) answers: Vec<SessionAnswer>,
    /// Counts by OpenAI's error code.
    pub(crate) refused: BTreeMap<String, usize>,
    pub(crate) last_refusal: Option<ApiError>,
    /// Requests whose sampling parameter or constraint was ignored, by its name.
    pub(crate) ignored: BTreeMap<String, usize>,
}

impl Session {
    pub(crate) fn new(
        model: Arc<AskedModel>,
        limits: AgentLimits,
        question: Arc<QueuedQuestion>,
        sample: usize,
    ) -> Self {
        Self {
            model,
            limits,
            question,
            sample,
            is_closed: Arc::default(),
            asked: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Maximum of prompt + completion.
    pub(super) fn max_model_len(&self) -> usize {
        let AskedModel {
            longest_prompt,
            max_completion_tokens,
            positions,
            ..
        } = *self.model;
        positions.min(longest_prompt.saturating_add(max_completion_tokens))
    }

    /// Requests so far, with answers.
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        let mut asked = self.asked.lock();
        for (number, answer) in std::mem::take(&mut self.state.lock().answered) {
            if let Some(asked) = asked.get_mut(number as usize) {
                asked.answer = Some(answer);
            }
        }
        asked
    }

    pub(crate) fn phase(&self) -> AgentPhase {
        let state = self.state.lock();
        match (
            !state.has_asked && state.record.refused.is_empty(),
            state.pending == 0,
        ) {
            (true, _) => AgentPhase::Starting,
            (false, false) => AgentPhase::Waiting,
            (false, true) => AgentPhase::Working,
        }
    }

    pub(super) async fn answer(
        self: Arc<Self>,
        api: Api,
        body: axum::body::Bytes,
    ) -> Result<Response, ApiError> {
        // A request is finished even if its client leaves.
        let asking = tokio::spawn(async move {
            let session = Arc::clone(&self);
            let reading = tokio::task::spawn_blocking(move || session.prepare(api, &body));
            let (prepared, pending) = reading.await.map_err(not_prepared)??;
            tokio::spawn(self.finish(pending));
            Ok(prepared)
        });
        respond(asking.await.map_err(not_prepared)??).await
    }

    /// Waits for a request's completion and answers its client.
    async fn finish(self: Arc<Self>, mut pending: Pending) {
        // The sender is dropped on failure.
        if let Ok(completion) = (&mut pending.completion).await {
            let session = Arc::clone(&self);
            let reading = tokio::task::spawn_blocking(move || {
                if !pending.client.is_gone() {
                    session.take_answer(pending, completion);
                }
            });
            _ = reading.await;
        }
        self.state.lock().pending -= 1;
    }

    fn take_answer(&self, pending: Pending, completion: Completion) {
        let client = pending.client;
        let answered = match read(pending.reader, &completion, client.by_token) {
            Ok(answered) => answered,
            Err(error) => {
                _ = client.events.try_send(Event::Failed(error.message.clone()));
                self.state.lock().failure.get_or_insert(error);
                return;
            }
        };
        self.state.lock().answered.insert(pending.number, answered);
        if client.text().is_some_and(|text| text.is_stopped()) {
            let last = Event::of_newest(0, &completion, Vec::new());
            last.map(|event| client.events.try_send(event));
        }
        let ended = Event::of_end(0, completion, client.by_token);
        _ = client.events.try_send(ended);
    }

    pub(super) fn count_refusal(&self, error: &ApiError) {
        let record = &mut self.state.lock().record;
        let code = error.code.unwrap_or(error.kind).to_owned();
        *record.refused.entry(code).or_default() += 1;
        record.last_refusal = Some(error.clone());
    }

    fn prepare(&self, api: Api, body: &[u8]) -> Result<(PreparedRequest, Pending), ApiError> {
        let asked = GenerationRequest::parse(api, body)?;
        let (mut asked, mut ignored) = as_policy(asked, self.model.max_completion_tokens)?;
        ignored.extend(without_constraints(&mut asked, self.limits.constraints)?);
        let mut earlier = self.asked();
        if self.is_closed() {
            return Err(server_error("the conversation has ended"));
        }
        if earlier.len() >= self.limits.max_requests {
            let message = format!(
                "the conversation has had its {} requests ([agent] max_requests)",
                self.limits.max_requests
            );
            return Err(ApiError {
                code: Some("max_requests"),
                ..ApiError::invalid("", message)
            });
        }
        let add_special = asked.add_special_tokens;
        let prompt = prompt_of(&self.model, &earlier, &asked.prompt, add_special)?;
        let prepare = |api, asked| {
            prepare_asked(&self.model, api, asked, |_| {
                Ok(vec![prompt.token_ids.clone()])
            })
        };
        let whole = match api {
            Api::Completions => Api::Completions,
            Api::Chat | Api::Responses => Api::Chat,
        };
        if asked.confidence {
            let message =
                "`x_confidence`: leave it out: an agent's answers are scored with its task";
            return Err(ApiError::invalid("x_confidence", message));
        }
        let reader = GenerationRequest {
            stream: false,
            ..asked.clone()
        };
        let reader = prepare(whole, reader)?.collected;
        let stops = Arc::new(asked.stop.clone());
        let mut prepared = prepare(api, asked)?;
        let sampled = prepared
            .prompts
            .pop()
            .ok_or_else(|| server_error("the request has no prompt"))?;
        let number = earlier.len() as u32;
        let follows = prompt.follows.map(|number| number as u32);
        let (question, sample) = (&self.question, self.sample);
        let later = question.later_request(sample, number, &prompt.token_ids);
        let own_limit = later.lengths.first().copied().unwrap_or(usize::MAX);
        let request = Request {
            lengths: vec![own_limit.min(sampled.sampling.max_completion_tokens)],
            ..later
        };
        let text = (!stops.is_empty())
            .then(|| Mutex::new(TextStream::new(Arc::clone(&self.model.tokenizer), stops)));
        let (ended, completion) = oneshot::channel();
        let client = Arc::new(SessionClient {
            is_closed: Arc::clone(&self.is_closed),
            by_token: sampled.by_token,
            events: sampled.events,
            text,
            ended: Mutex::new(Some(ended)),
        });
        earlier.push(Asked {
            prompt,
            answer: None,
        });
        let mut state = self.state.lock();
        state.pending += 1;
        state.has_asked = true;
        for name in ignored {
            *state.record.ignored.entry(name.to_owned()).or_default() += 1;
        }
        drop(state);
        question.ask(request, sample, number, follows, Arc::clone(&client) as _);
        let pending = Pending {
            number,
            client,
            completion,
            reader,
        };
        Ok((prepared, pending))
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Ends the conversation: no further answers.
    ///
    /// # Errors
    /// An unreadable completion.
    pub(crate) fn close(&self) -> Result<SessionRecord, ApiError> {
        self.is_closed.store(true, Ordering::Relaxed);
        let asked = std::mem::take(&mut *self.asked());
        let mut state = self.state.lock();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        // Indices among answered requests.
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
            Some(SessionAnswer {
                prompt: asked.prompt.token_ids,
                completion,
                message,
                record,
            })
        };
        Ok(SessionRecord {
            answers: asked.into_iter().filter_map(answer).collect(),
            ..std::mem::take(&mut state.record)
        })
    }
}

fn not_prepared(_: JoinError) -> ApiError {
    server_error("the request could not be prepared")
}

/// The request with the policy's sampling, and the parameters that are ignored.
fn as_policy(
    asked: GenerationRequest,
    most: usize,
) -> Result<(GenerationRequest, Vec<&'static str>), ApiError> {
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
    let differs = [
        ("temperature", asked.temperature != policy.temperature),
        ("top_k", asked.top_k != policy.top_k),
        ("top_p", asked.top_p != policy.top_p),
        ("min_p", asked.min_p != policy.min_p),
        (
            "repetition_penalty",
            asked.repetition_penalty != policy.repetition_penalty,
        ),
        ("min_tokens", asked.min_tokens != policy.min_tokens),
        (
            "presence_penalty",
            asked.presence_penalty != policy.presence_penalty,
        ),
        (
            "frequency_penalty",
            asked.frequency_penalty != policy.frequency_penalty,
        ),
        ("seed", asked.seed.is_some()),
    ];
    let ignored = differs.into_iter().filter(|(_, differs)| *differs);
    Ok((policy, ignored.map(|(name, _)| name).collect()))
}

/// Removes what constrains completions; returns the fields.
///
/// # Errors
/// A constraint, if `rule` refuses them.
fn without_constraints(
    asked: &mut GenerationRequest,
    rule: RequestedConstraints,
) -> Result<Vec<&'static str>, ApiError> {
    let mut ignored = Vec::new();
    loop {
        let mut tools = match &mut asked.prompt {
            Prompt::Chat { tools, .. } => tools.as_mut(),
            Prompt::Texts(_) => None,
        };
        let format = (&asked.response_format, asked.format_field);
        let Some(wanted) = ConstraintSpec::new(format, tools.as_deref()) else {
            return Ok(ignored);
        };
        let field = wanted.field();
        if rule == RequestedConstraints::Refuse {
            return Err(constrained(field));
        }
        ignored.push(field);
        match (field, &mut tools) {
            ("tool_choice", Some(tools)) => {
                tools.choice = ToolChoice::Auto;
                tools.allowed.clear();
            }
            ("tools.function.strict", Some(tools)) => tools.strict.clear(),
            ("parallel_tool_calls", Some(tools)) => tools.parallel = true,
            _ => asked.response_format = ResponseFormat::Text,
        }
    }
}

/// `field`: the constraining one.
fn constrained(field: &str) -> ApiError {
    let message = format!(
        "`{field}`: a policy is sampled without constraints, since its log-probs would be others; `constraints = \"ignore\"` in [agent] answers all the same"
    );
    ApiError {
        code: Some("unsupported_parameter"),
        ..ApiError::invalid(field, message)
    }
}

/// The completion for a client, ending with the token that completes a `stop` string.
fn read(
    mut reader: Collected,
    completion: &Completion,
    by_token: bool,
) -> Result<Answered, ApiError> {
    let mut completion = completion.clone();
    let tokens = if by_token {
        completion.token_ids.len()
    } else {
        0
    };
    for index in 0..tokens {
        reader.apply(Event::Token {
            index: 0,
            token_id: completion.token_ids[index],
            log_prob: completion.log_probs[index],
            likeliest: Vec::new(),
        })?;
        if reader.is_complete() {
            completion.token_ids.truncate(index + 1);
            completion.log_probs.truncate(index + 1);
            completion.stop = StopReason::Stop;
            break;
        }
    }
    reader.apply(Event::of_end(0, completion.clone(), by_token))?;
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
