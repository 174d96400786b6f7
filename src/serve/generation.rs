//! A request -> prompts in the queue -> an answer, whole or in chunks. An answer that is dropped, since its client is
//! gone, closes the channel of its tokens: the rows behind it are freed.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value as Json;
use tokio::sync::SemaphorePermit;
use tokio::sync::mpsc::{Receiver, channel};

use super::Shared;
use super::constraints::Wanted;
use super::http::{answer, busy, unix_seconds, with_type};
use super::queue::{CLIENT_TOKENS, Event, Job, Refused};
use super::text_stream::TextStream;
use crate::constraint::{Constraint, Reasoning};
use crate::openai::{
    Answer, Api, ApiError, Finish, GenerationRequest, Prompt, TextPrompt, TokenLogProb, ToolCall, Usage,
};
use crate::rollout::{Completion, DRAFT_TOKENS, Request, Sampling, StopReason};
use crate::score::tool_calls_in;
use crate::text::{TextError, Thinking, conversation};

/// Completions of one body.
const MOST_COMPLETIONS: usize = 1024;
/// Completions of a prompt that are decoded by one thread.
const JOB_SAMPLES: usize = 16;
/// Tokens of a prompt's end, where it may open a think block.
const PROMPT_END: usize = 16;
/// Of one piece of a stream, about.
const PIECE_BYTES: usize = 64 << 10;

/// Answers a body.
pub(super) async fn generate(
    shared: Arc<Shared>,
    api: Api,
    body: Bytes,
    room: SemaphorePermit<'static>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let reading = Arc::clone(&shared);
    // A large prompt is tokenized for a while.
    let prepared = tokio::task::spawn_blocking(move || prepare(&reading, api, &body, arrived));
    let Prepared { mut jobs, wanted, mut events, mut collected, stream, include_usage } =
        prepared.await.map_err(|_| server_error("the request could not be prepared"))??;
    if let Some(wanted) = wanted {
        for (job, reasoning) in &mut jobs {
            let constraint = shared.constraints.compiled(&wanted, *reasoning, &shared.tokenizer).await?;
            job.request.constraint = Some(constraint);
        }
        collected.constraint = jobs.first().and_then(|(job, _)| job.request.constraint.clone());
    }
    drop(room);
    let jobs = jobs.into_iter().map(|(job, _)| job).collect();
    shared.queue.push(jobs).map_err(|refused| match refused {
        Refused::Full => busy("the queue is full"),
        Refused::Closed => ApiError::new(503, "server_error", None, "the server is being stopped"),
    })?;
    if stream {
        let chunks = Chunks { events, collected, include_usage, is_begun: false, is_over: false };
        let mut response = with_type(200, "text/event-stream; charset=utf-8", Body::from_stream(chunks));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return Ok(response);
    }
    while !collected.is_complete() {
        match events.recv().await {
            Some(Event::Failed(why)) => return Err(server_error(&why)),
            Some(event) => _ = collected.take(event)?,
            None => return Err(server_error("the server was stopped")),
        }
    }
    Ok(answer(200, &collected.whole()))
}

fn server_error(why: &str) -> ApiError {
    ApiError::new(500, "server_error", None, why)
}

/// What a body asks for, ready to be queued.
struct Prepared {
    /// Each with whether its completions may begin with a think block.
    jobs: Vec<(Job, Reasoning)>,
    /// What all completions may be.
    wanted: Option<Arc<Wanted>>,
    events: Receiver<Event>,
    collected: Collected,
    stream: bool,
    include_usage: bool,
}

fn prepare(shared: &Arc<Shared>, api: Api, body: &[u8], arrived: Instant) -> Result<Prepared, ApiError> {
    let asked = GenerationRequest::parse(api, body)?;
    let served = shared.names.iter().find(|(name, _)| *name == asked.model);
    let adapter = served.ok_or_else(|| shared.no_model(&asked.model))?.1;
    let tools = match &asked.prompt {
        Prompt::Chat { tools, .. } => tools.as_ref(),
        Prompt::Texts(_) => None,
    };
    let wanted = Wanted::new(&asked.response_format, tools);
    if wanted.is_some() && asked.ignore_eos {
        let message = "`ignore_eos`: completions with a `response_format` or bound tools end where they must";
        return Err(ApiError::invalid("ignore_eos", message));
    }
    let has_tools = tools.is_some();
    let prompts = prompts(shared, &asked.prompt)?;
    let count = prompts.len() * asked.samples;
    if count > MOST_COMPLETIONS {
        let message = format!("`n` times the prompts is {count}, at most {MOST_COMPLETIONS} completions are sampled");
        return Err(ApiError::invalid("n", message));
    }
    let (sender, events) = channel(CLIENT_TOKENS);
    let stops = Arc::new(asked.stop);
    let stop_ids = if asked.ignore_eos { Vec::new() } else { shared.tokenizer.stop_ids().to_vec() };
    let seed = asked.seed.unwrap_or_else(random_seed);
    let mut jobs = Vec::new();
    let mut choices = Vec::with_capacity(count);
    let mut usage = Usage::default();
    for (index, prompt) in prompts.into_iter().enumerate() {
        usage.prompt_tokens += prompt.len();
        let reasoning = reasoning(shared, &asked.prompt, &prompt)?;
        let limit = limit(shared, &prompt, asked.max_tokens)?;
        let sampling = Sampling {
            temperature: asked.temperature,
            max_completion_tokens: limit,
            stop_ids: stop_ids.clone(),
            seed,
            draft_tokens: DRAFT_TOKENS,
        };
        for first in (0..asked.samples).step_by(JOB_SAMPLES) {
            let samples = JOB_SAMPLES.min(asked.samples - first);
            let stopped: Arc<[AtomicBool]> = (0..samples).map(|_| AtomicBool::new(false)).collect();
            choices.extend((0..samples).map(|sample| Choice {
                text: TextStream::new(Arc::clone(&shared.tokenizer), Arc::clone(&stops)),
                said: String::new(),
                given_bytes: 0,
                tokens: 0,
                log_probs: Vec::new(),
                finish: None,
                stopped: (Arc::clone(&stopped), sample),
            }));
            let request =
                Request { first_sample: first as u32, ..Request::new(prompt.clone(), index as u32, 0, samples) };
            let job = Job {
                request,
                sampling: sampling.clone(),
                adapter,
                first_index: index * asked.samples + first,
                by_token: asked.stream || !stops.is_empty(),
                stopped,
                events: sender.clone(),
                arrived,
            };
            jobs.push((job, reasoning));
        }
    }
    let id = format!("{}-{:016x}", if api == Api::Chat { "chatcmpl" } else { "cmpl" }, random_seed());
    let collected = Collected {
        answer: Answer { api, id, model: asked.model, created: unix_seconds() },
        shared: Arc::clone(shared),
        constraint: None,
        choices,
        stop_ids,
        has_tools,
        log_probs: asked.log_probs,
        usage,
    };
    Ok(Prepared { jobs, wanted, events, collected, stream: asked.stream, include_usage: asked.include_usage })
}

/// Whether completions of a prompt may begin with a think block. A model that knows of none would write one where its
/// constraint leaves it no other beginning that it likes.
fn reasoning(shared: &Shared, asked: &Prompt, ids: &[u32]) -> Result<Reasoning, ApiError> {
    let end = &ids[ids.len().saturating_sub(PROMPT_END)..];
    let end = shared.tokenizer.decode(end, false).map_err(|error| server_error(&error.to_string()))?;
    let may_reason = match asked {
        Prompt::Chat { thinking, .. } => thinking.unwrap_or(shared.reasons),
        Prompt::Texts(_) => false,
    };
    Ok(match Reasoning::of_prompt(Thinking::On, &end) {
        Reasoning::Allowed if !may_reason => Reasoning::Off,
        found => found,
    })
}

fn prompts(shared: &Shared, prompt: &Prompt) -> Result<Vec<Vec<u32>>, ApiError> {
    let tokenizer = &shared.tokenizer;
    match prompt {
        Prompt::Chat { messages, tools, thinking } => {
            let thinking = match thinking {
                Some(true) => Thinking::On,
                Some(false) => Thinking::Off,
                None => shared.thinking,
            };
            let turns = conversation(None, messages, thinking, tokenizer.has_thinking_switch());
            let tools = tools.as_ref().map(|tools| &tools.list);
            let refuse = |error: TextError| match error {
                TextError::NoTemplate { .. } => {
                    ApiError::invalid("messages", "the model has no chat template: use /v1/completions")
                }
                TextError::Template { problem, .. } => ApiError::invalid("messages", problem),
                other => ApiError::invalid("messages", other.to_string()),
            };
            Ok(vec![tokenizer.prompt_ids(&turns, tools, thinking).map_err(refuse)?])
        }
        Prompt::Texts(prompts) => {
            let ids = |prompt: &TextPrompt| match prompt {
                TextPrompt::Text(text) => {
                    tokenizer.encode(text).map_err(|error| ApiError::invalid("prompt", error.to_string()))
                }
                TextPrompt::Tokens(ids) => match ids.iter().find(|id| **id as usize >= shared.vocabulary) {
                    Some(id) => Err(ApiError::invalid(
                        "prompt",
                        format!("token id {id} is not in the vocabulary of {} tokens", shared.vocabulary),
                    )),
                    None => Ok(ids.clone()),
                },
            };
            prompts.iter().map(ids).collect()
        }
    }
}

/// The most new tokens of a prompt's completions.
fn limit(shared: &Shared, prompt: &[u32], named: Option<usize>) -> Result<usize, ApiError> {
    let most = shared.max_completion_tokens;
    if let Some(named) = named.filter(|named| *named > most) {
        let message = format!("{named} new tokens are more than the server's {most} (--max-completion-tokens)");
        return Err(ApiError::invalid("max_tokens", message));
    }
    let room = shared.longest_prompt.min(shared.positions - named.unwrap_or(1));
    if prompt.is_empty() {
        return Err(ApiError::invalid("prompt", "the prompt has no token"));
    }
    if prompt.len() > room {
        let new = named.map_or_else(String::new, |named| format!(" and {named} new ones"));
        let message = format!(
            "the prompt has {} tokens{new}; the model has {} positions, and the server room for prompts of {}",
            prompt.len(),
            shared.positions,
            shared.longest_prompt
        );
        let code = Some("context_length_exceeded");
        return Err(ApiError { code, ..ApiError::invalid("messages", message) });
    }
    Ok(named.unwrap_or(most.min(shared.positions - prompt.len())))
}

/// Differs from request to request and from server to server.
fn random_seed() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((COUNT.fetch_add(1, Ordering::Relaxed), std::process::id()))
}

/// A completion as far as it is there.
struct Choice {
    text: TextStream,
    /// All of it.
    said: String,
    /// Of it, those that chunks had.
    given_bytes: usize,
    tokens: usize,
    log_probs: Vec<TokenLogProb>,
    finish: Option<Finish>,
    /// Where the thread that decodes looks whether to go on.
    stopped: (Arc<[AtomicBool]>, usize),
}

/// The completions of a request.
struct Collected {
    answer: Answer,
    shared: Arc<Shared>,
    /// Of the first of its completions.
    constraint: Option<Arc<Constraint>>,
    choices: Vec<Choice>,
    stop_ids: Vec<u32>,
    has_tools: bool,
    log_probs: bool,
    usage: Usage,
}

impl Collected {
    fn is_complete(&self) -> bool {
        self.choices.iter().all(|choice| choice.finish.is_some())
    }

    /// Takes an event; the completion that it is of, unless that had ended.
    fn take(&mut self, event: Event) -> Result<Option<usize>, ApiError> {
        let failed = |error: TextError| server_error(&error.to_string());
        let (Event::Token { index, .. } | Event::Ended { index, .. }) = event else { return Ok(None) };
        let Some(choice) = self.choices.get_mut(index).filter(|choice| choice.finish.is_none()) else {
            return Ok(None);
        };
        let log_prob = |token_id: u32, log_prob: f32| -> Result<TokenLogProb, TextError> {
            Ok(TokenLogProb { token: self.shared.tokenizer.decode(&[token_id], false)?, log_prob })
        };
        match event {
            Event::Token { token_id, log_prob: value, .. } => {
                choice.tokens += 1;
                if self.stop_ids.contains(&token_id) {
                    return Ok(None);
                }
                let text = choice.text.push(token_id).map_err(failed)?;
                choice.said.push_str(&text);
                if self.log_probs {
                    choice.log_probs.push(log_prob(token_id, value).map_err(failed)?);
                }
                if choice.text.is_stopped() {
                    choice.finish = Some(Finish::Stop);
                    choice.stopped.0[choice.stopped.1].store(true, Ordering::Relaxed);
                }
            }
            Event::Ended { completion: Completion { stop: StopReason::Constraint, .. }, .. } => {
                self.constraint.iter().for_each(|constraint| self.shared.constraints.forget_constraint(constraint));
                let message =
                    "the grammar of a completion became too complex while it was decoded: simplify the schema";
                let field = if self.has_tools { "tools" } else { "response_format" };
                return Err(ApiError::invalid(field, message));
            }
            Event::Ended { completion: Completion { token_ids, log_probs, stop }, .. } => {
                choice.tokens += token_ids.len();
                let is_stop = token_ids.last().is_some_and(|id| self.stop_ids.contains(id));
                let own = &token_ids[..token_ids.len() - usize::from(is_stop)];
                let text = self.shared.tokenizer.decode(own, true).map_err(failed)?;
                choice.said.push_str(&text);
                choice.said.push_str(&choice.text.finish().map_err(failed)?);
                if self.log_probs {
                    let tokens = own.iter().zip(log_probs).map(|(id, value)| log_prob(*id, value));
                    choice.log_probs.extend(tokens.collect::<Result<Vec<_>, _>>().map_err(failed)?);
                }
                let by_text = choice.text.is_stopped();
                choice.finish = Some(if stop == StopReason::Stop || by_text { Finish::Stop } else { Finish::Length });
            }
            Event::Failed(_) => {}
        }
        self.usage.completion_tokens = self.choices.iter().map(|choice| choice.tokens).sum();
        Ok(Some(index))
    }

    /// The text of an ended completion, its calls, and why it ended.
    fn ended<'c>(&self, choice: &'c Choice) -> (&'c str, Vec<ToolCall>, Finish) {
        let finish = choice.finish.unwrap_or(Finish::Length);
        if let Some((said, calls)) = tool_calls_in(&choice.said).filter(|_| self.has_tools) {
            let calls = calls.into_iter().map(|(name, arguments)| ToolCall { name, arguments }).collect();
            return (said, calls, if finish == Finish::Stop { Finish::ToolCalls } else { finish });
        }
        (&choice.said, Vec::new(), finish)
    }

    fn whole(&self) -> Json {
        let choice = |(index, choice): (usize, &Choice)| {
            let (text, calls, finish) = self.ended(choice);
            let log_probs = self.log_probs.then_some(choice.log_probs.as_slice());
            self.answer.choice(index, text, &calls, log_probs, finish)
        };
        self.answer.whole(self.choices.iter().enumerate().map(choice).collect(), self.usage)
    }

    /// What is new of a completion, as chunks. Where there are tools the text is given out at its end: what looks like
    /// text may become a call.
    fn chunks(&mut self, index: usize) -> Vec<Json> {
        let mut chunks = Vec::new();
        let choice = &self.choices[index];
        let (text, calls, finish) = match choice.finish {
            Some(_) => {
                let (text, calls, finish) = self.ended(choice);
                (text, calls, Some(finish))
            }
            None if self.has_tools => return chunks,
            None => (choice.said.as_str(), Vec::new(), None),
        };
        let given = choice.given_bytes.min(text.len());
        let new = &text[given..];
        if !new.is_empty() || (self.log_probs && !choice.log_probs.is_empty()) {
            let log_probs = self.log_probs.then_some(choice.log_probs.as_slice());
            chunks.push(self.answer.text_chunk(index, new, log_probs, given));
        }
        if !calls.is_empty() {
            chunks.push(self.answer.calls_chunk(index, &calls));
        }
        chunks.extend(finish.map(|finish| self.answer.last_chunk(index, finish)));
        let choice = &mut self.choices[index];
        choice.given_bytes = choice.said.len();
        choice.log_probs.clear();
        chunks
    }
}

/// The answer as server-sent events.
struct Chunks {
    events: Receiver<Event>,
    collected: Collected,
    include_usage: bool,
    is_begun: bool,
    is_over: bool,
}

impl Chunks {
    /// Adds what an event brings; whether more comes.
    fn write(&mut self, event: Option<Event>, text: &mut String) -> bool {
        let failed = match event {
            Some(Event::Failed(why)) => Some(server_error(&why)),
            None => Some(server_error("the server was stopped")),
            Some(event) => match self.collected.take(event) {
                Ok(Some(index)) => {
                    self.collected.chunks(index).iter().for_each(|chunk| send(text, chunk));
                    None
                }
                Ok(None) => None,
                Err(error) => Some(error),
            },
        };
        if let Some(error) = failed {
            send(text, &error.json());
            return false;
        }
        if !self.collected.is_complete() {
            return true;
        }
        if self.include_usage {
            send(text, &self.collected.answer.usage_chunk(self.collected.usage));
        }
        text.push_str("data: [DONE]\n\n");
        false
    }
}

fn send(text: &mut String, chunk: &Json) {
    _ = write!(text, "data: {chunk}\n\n");
}

impl futures_core::Stream for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut text = String::new();
        if !std::mem::replace(&mut self.is_begun, true) {
            let answer = &self.collected.answer;
            (0..self.collected.choices.len())
                .filter_map(|index| answer.first_chunk(index))
                .for_each(|chunk| send(&mut text, &chunk));
        }
        while !self.is_over && text.len() < PIECE_BYTES {
            match self.events.poll_recv(context) {
                Poll::Ready(event) => self.is_over = !self.write(event, &mut text),
                Poll::Pending if text.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready((!text.is_empty()).then(|| Ok(text.into())))
    }
}
