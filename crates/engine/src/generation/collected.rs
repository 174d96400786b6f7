//! Assembles a request's completions from their tokens into an answer, whole or as server-sent
//! events.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Bytes;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc::Receiver;

use super::responses::server_error;
use super::text_stream::{TextStream, ThinkBlock};
use super::{AskedModel, Event};
use crate::confidence::AnswerConfidence;
use crate::constraint::Constraint;
use crate::openai::{
    Answer, ApiError, Content, Finish, ResponseItems, TokenLogProb, ToolCall, Usage,
};
use crate::rollout::{Completion, StopReason};
use crate::score::AnswerPart::{Arguments, Name, Text};
use crate::score::{AnswerPart, CallReader};
use crate::text::Tokenizer;
use crate::update::ReadToken;

/// Approximate size of a stream's chunk.
const PIECE_BYTES: usize = 64 << 10;

/// A completion so far.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) text: TextStream,
    /// Think block to remove from the text.
    pub(crate) thoughts: Option<ThinkBlock>,
    /// `None` without tools: all is text.
    pub(crate) calls: Option<CallReader>,
    /// Flag that tells the decoding thread to stop.
    pub(crate) stopped: (Arc<[AtomicBool]>, usize),
    pub(crate) progress: Progress,
}

#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Parts not yet sent.
    parts: Vec<Part>,
    /// Text bytes already sent.
    given_bytes: usize,
    /// Calls begun.
    called: usize,
    /// Calls already sent.
    given_calls: usize,
    /// Whether it ended within a call's arguments.
    is_within_call: bool,
    tokens: usize,
    /// Tokens inside a think block; known if tokens arrive individually.
    thought_tokens: usize,
    /// Not yet sent.
    log_probs: Vec<TokenLogProb>,
    token_ids: Vec<u32>,
    finish: Option<Finish>,
    confidence: Option<AnswerConfidence>,
}

#[derive(Debug)]
enum Part {
    Thought(String),
    Answer(AnswerPart),
}

impl Choice {
    /// Adds text, or the end.
    fn push_text(&mut self, text: String, is_end: bool) {
        let (thought, said) = match &mut self.thoughts {
            Some(block) => block.push(&text, is_end),
            None => (String::new(), text),
        };
        let progress = &mut self.progress;
        let parts = &mut progress.parts;
        parts.extend((!thought.is_empty()).then_some(Part::Thought(thought)));
        let Some(reader) = &mut self.calls else {
            parts.extend((!said.is_empty()).then_some(Part::Answer(Text(said))));
            return;
        };
        let mut answered = reader.push(&said);
        if is_end {
            answered.extend(reader.finish());
        }
        let names = answered.iter().filter(|part| matches!(part, Name(_)));
        progress.called += names.count();
        progress.is_within_call = reader.is_within_call();
        parts.extend(answered.into_iter().map(Part::Answer));
    }

    pub(crate) fn end(&mut self, finish: Finish) {
        let progress = &mut self.progress;
        // A call truncated by a `stop` string must not be executed.
        let has_calls = progress.called > 0 && !progress.is_within_call;
        progress.finish = Some(match has_calls && finish == Finish::Stop {
            true => Finish::ToolCalls,
            false => finish,
        });
    }
}

/// A prompt with requested log-probs.
#[derive(Debug)]
pub(crate) struct ReadTokens {
    token_ids: Vec<u32>,
    /// Tokens after the first, once evaluated.
    read: Option<Vec<ReadToken>>,
}

impl ReadTokens {
    pub(crate) fn of(token_ids: &[u32]) -> Self {
        Self {
            token_ids: token_ids.to_vec(),
            read: None,
        }
    }

    /// Log-probs in an echoed completion's form: the first has none.
    fn log_probs(&self, decode: impl Fn(u32) -> String) -> Vec<TokenLogProb> {
        let read = self.read.iter().flatten().map(Some);
        let told = |(id, read): (&u32, Option<&ReadToken>)| TokenLogProb {
            token: decode(*id),
            log_prob: read.map(|read| read.log_prob),
            alternatives: read.map_or_else(Vec::new, |read| {
                let text = |(id, value): &(u32, f32)| (decode(*id), *value);
                read.likeliest.iter().map(text).collect()
            }),
        };
        let read = std::iter::once(None).chain(read);
        self.token_ids.iter().zip(read).map(told).collect()
    }

    /// Log-probs in vLLM's form: the first token has none.
    fn json(&self, decode: impl Fn(u32) -> String) -> Json {
        let ids = self.token_ids.iter().skip(1);
        let told = ids.zip(self.read.iter().flatten()).map(|(id, read)| {
            let of_token =
                json!({"logprob": read.log_prob, "rank": null, "decoded_token": decode(*id)});
            json!({id.to_string(): of_token})
        });
        std::iter::once(Json::Null).chain(told).collect()
    }
}

/// A sampled token with log-prob and alternatives.
fn token_log_prob(
    tokenizer: &Tokenizer,
    id: u32,
    log_prob: f32,
    likeliest: Vec<(u32, f32)>,
) -> Result<TokenLogProb, ApiError> {
    let decode = |id: u32| tokenizer.decode(&[id], false).map_err(server_error);
    let text = |(id, value)| Ok((decode(id)?, value));
    Ok(TokenLogProb {
        token: decode(id)?,
        log_prob: Some(log_prob),
        alternatives: likeliest.into_iter().map(text).collect::<Result<_, _>>()?,
    })
}

#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) answer: Answer,
    /// Replaces the answer for `/v1/responses`.
    pub(crate) items: Option<ResponseItems>,
    pub(crate) model: Arc<AskedModel>,
    /// Constraint of the first completion.
    pub(crate) constraint: Option<Arc<Constraint>>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) stop_ids: Vec<u32>,
    pub(crate) log_probs: bool,
    /// Whether choices contain token ids, including the stop token.
    pub(crate) token_ids: bool,
    /// Whether choices have the confidence of their values.
    pub(crate) has_confidence: bool,
    /// Whether choices contain prompt log-probs, in vLLM's form.
    pub(crate) has_prompt_log_probs: bool,
    /// Prompt texts to echo; empty without echo.
    pub(crate) echoed: Vec<String>,
    /// Empty without requested prompt log-probs.
    pub(crate) prompts: Vec<ReadTokens>,
    /// Samples per prompt.
    pub(crate) samples: usize,
    pub(crate) usage: Usage,
}

impl Collected {
    pub(crate) fn is_complete(&self) -> bool {
        let mut choices = self.choices.iter();
        choices.all(|choice| self.is_over(&choice.progress))
            && self.prompts.iter().all(|prompt| prompt.read.is_some())
    }

    /// Whether nothing more comes of a completion.
    fn is_over(&self, progress: &Progress) -> bool {
        progress.finish.is_some() && (!self.has_confidence || progress.confidence.is_some())
    }

    /// Applies an event; returns its completion unless already ended.
    pub(crate) fn apply(&mut self, event: Event) -> Result<Option<usize>, ApiError> {
        let index = match event {
            Event::Token { index, .. } | Event::Ended { index, .. } => index,
            Event::PromptRead { prompt, tokens } => {
                if let Some(read) = self.prompts.get_mut(prompt) {
                    read.read = Some(tokens);
                }
                return Ok(None);
            }
            Event::Confidence { index, confidence } => {
                let choice = self.choices.get_mut(index);
                return Ok(choice.map(|choice| {
                    choice.progress.confidence = Some(confidence);
                    index
                }));
            }
            Event::Failed(_) => return Ok(None),
        };
        let choice = self.choices.get_mut(index);
        let Some(choice) = choice.filter(|choice| choice.progress.finish.is_none()) else {
            return Ok(None);
        };
        let tokenizer = &self.model.tokenizer;
        // A client that gets ids or an echo counts tokens, and the stop token is one.
        let has_stop = self.token_ids || !self.echoed.is_empty();
        match event {
            Event::Token {
                token_id,
                log_prob,
                likeliest,
                ..
            } => {
                let progress = &mut choice.progress;
                progress.tokens += 1;
                progress
                    .token_ids
                    .extend(self.token_ids.then_some(token_id));
                let is_stop = self.stop_ids.contains(&token_id);
                if self.log_probs && (has_stop || !is_stop) {
                    let token = token_log_prob(tokenizer, token_id, log_prob, likeliest)?;
                    progress.log_probs.push(token);
                }
                if is_stop {
                    return Ok(None);
                }
                let text = choice.text.push(token_id).map_err(server_error)?;
                let is_stopped = choice.text.is_stopped();
                choice.push_text(text, is_stopped);
                let is_thought = choice.thoughts.as_ref().is_some_and(ThinkBlock::is_inside);
                choice.progress.thought_tokens += usize::from(is_thought);
                if is_stopped {
                    choice.end(Finish::Stop);
                    choice.stopped.0[choice.stopped.1].store(true, Ordering::Relaxed);
                }
            }
            Event::Ended { completion, .. } if completion.stop == StopReason::Constraint => {
                let field = match choice.calls {
                    Some(_) => "tools",
                    None => "response_format",
                };
                let constraints = &self.model.constraints;
                let failed = self.constraint.iter();
                failed.for_each(|constraint| constraints.forget_constraint(constraint));
                let message = "the grammar of a completion became too complex while it was decoded: simplify the schema";
                return Err(ApiError::invalid(field, message));
            }
            Event::Ended { completion, .. } => {
                let Completion {
                    token_ids,
                    log_probs,
                    stop,
                    ..
                } = completion;
                let progress = &mut choice.progress;
                progress.tokens += token_ids.len();
                let last = token_ids.last();
                let is_stop = last.is_some_and(|id| self.stop_ids.contains(id));
                let answered = &token_ids[..token_ids.len() - usize::from(is_stop)];
                let mut text = tokenizer.decode(answered, true).map_err(server_error)?;
                text.push_str(&choice.text.finish().map_err(server_error)?);
                if self.log_probs {
                    let shown = if has_stop { &token_ids } else { answered };
                    for (id, log_prob) in shown.iter().zip(log_probs) {
                        let token = token_log_prob(tokenizer, *id, log_prob, Vec::new())?;
                        progress.log_probs.push(token);
                    }
                }
                let shown = token_ids.iter().filter(|_| self.token_ids);
                progress.token_ids.extend(shown);
                choice.push_text(text, true);
                choice.end(match stop == StopReason::Stop || choice.text.is_stopped() {
                    true => Finish::Stop,
                    false => Finish::Length,
                });
            }
            Event::Failed(_) | Event::PromptRead { .. } | Event::Confidence { .. } => {}
        }
        let tokens = self.choices.iter().map(|choice| choice.progress.tokens);
        self.usage.completion_tokens = tokens.sum();
        Ok(Some(index))
    }

    /// The whole answer, if no chunks were sent.
    pub(crate) fn whole(mut self) -> Json {
        if self.items.is_some() {
            let last = self.item_events().pop();
            return last.map_or(Json::Null, |mut event| event["response"].take());
        }
        let Self {
            answer,
            choices,
            log_probs,
            token_ids,
            has_prompt_log_probs,
            echoed,
            prompts,
            samples,
            model,
            usage,
            ..
        } = self;
        let decode = |id: u32| model.tokenizer.decode(&[id], false).unwrap_or_default();
        let choice = |(index, choice): (usize, Choice)| {
            let mut content = Content::default();
            for part in choice.progress.parts {
                match part {
                    Part::Thought(thought) => content.reasoning.push_str(&thought),
                    Part::Answer(Text(text)) => content.text.push_str(&text),
                    Part::Answer(Name(name)) => content.calls.push(ToolCall {
                        name,
                        arguments: String::new(),
                    }),
                    Part::Answer(Arguments(text)) => {
                        let call = content.calls.last_mut();
                        call.into_iter()
                            .for_each(|call| call.arguments.push_str(&text));
                    }
                }
            }
            let prompt = index / samples.max(1);
            let mut tokens = choice.progress.log_probs;
            if let Some(echoed) = echoed.get(prompt) {
                content.text.insert_str(0, echoed);
                if let Some(read) = prompts.get(prompt) {
                    tokens.splice(0..0, read.log_probs(decode));
                }
            }
            let log_probs = log_probs.then_some(tokens.as_slice());
            let finish = choice.progress.finish.unwrap_or(Finish::Length);
            let mut whole = answer.choice(index, &content, log_probs, finish);
            if token_ids {
                whole["token_ids"] = choice.progress.token_ids.into();
            }
            if let Some(confidence) = choice.progress.confidence {
                whole["x_confidence"] = confidence.json();
            }
            if let Some(prompt) = prompts.get(prompt).filter(|_| has_prompt_log_probs) {
                whole["prompt_logprobs"] = prompt.json(decode);
            }
            whole
        };
        let choices = choices.into_iter().enumerate().map(choice).collect();
        answer.whole(choices, usage)
    }

    /// A completion's news as item events.
    fn item_events(&mut self) -> Vec<Json> {
        let (Some(items), Some(choice)) = (&mut self.items, self.choices.first_mut()) else {
            return Vec::new();
        };
        let progress = &mut choice.progress;
        let mut log_probs = std::mem::take(&mut progress.log_probs);
        let mut events = Vec::new();
        for part in std::mem::take(&mut progress.parts) {
            events.extend(match part {
                Part::Thought(thought) => items.thought(&thought),
                Part::Answer(Text(text)) => items.text(&text, &std::mem::take(&mut log_probs)),
                Part::Answer(Name(name)) => items.call(&name),
                Part::Answer(Arguments(text)) => items.arguments(&text),
            });
        }
        // Keep log-probs of held-back text.
        progress.log_probs = log_probs;
        if let Some(finish) = progress.finish {
            let counts = (self.usage, progress.thought_tokens);
            events.extend(items.end(finish, progress.is_within_call, counts));
        }
        events
    }

    /// A completion's news as chunks.
    fn chunks(&mut self, index: usize) -> Vec<Json> {
        if self.items.is_some() {
            return self.item_events();
        }
        let is_over = self.is_over(&self.choices[index].progress);
        let (answer, progress) = (&self.answer, &mut self.choices[index].progress);
        let mut chunks = Vec::new();
        let parts = std::mem::take(&mut progress.parts);
        let log_probs = std::mem::take(&mut progress.log_probs);
        let mut log_probs = self.log_probs.then_some(log_probs);
        for part in parts {
            chunks.push(match part {
                Part::Thought(thought) => answer.reasoning_chunk(index, &thought),
                Part::Answer(Text(text)) => {
                    let log_probs = log_probs.as_mut().map(std::mem::take);
                    let given_bytes = progress.given_bytes;
                    progress.given_bytes += text.len();
                    answer.text_chunk(index, &text, log_probs.as_deref(), given_bytes)
                }
                Part::Answer(Name(name)) => {
                    progress.given_calls += 1;
                    answer.call_chunk(index, progress.given_calls - 1, &name)
                }
                Part::Answer(Arguments(text)) => {
                    let number = progress.given_calls.saturating_sub(1);
                    answer.arguments_chunk(index, number, &text)
                }
            });
        }
        if let Some(left) = log_probs.filter(|left| !left.is_empty()) {
            chunks.push(answer.text_chunk(index, "", Some(&left), progress.given_bytes));
        }
        if let Some(finish) = progress.finish.filter(|_| is_over) {
            let mut last = answer.last_chunk(index, finish);
            if let Some(confidence) = &progress.confidence {
                last["choices"][0]["x_confidence"] = confidence.json();
            }
            chunks.push(last);
        }
        if let Some(first) = chunks.first_mut().filter(|_| self.token_ids) {
            first["choices"][0]["token_ids"] = std::mem::take(&mut progress.token_ids).into();
        }
        chunks
    }
}

/// Server-sent events.
#[derive(Debug)]
pub(crate) struct Chunks {
    events: Receiver<Event>,
    collected: Collected,
    include_usage: bool,
    is_begun: bool,
    is_over: bool,
}

impl Chunks {
    pub(crate) fn new(events: Receiver<Event>, collected: Collected, include_usage: bool) -> Self {
        Self {
            events,
            collected,
            include_usage,
            is_begun: false,
            is_over: false,
        }
    }

    /// Writes an event; returns whether more follow.
    fn write(&mut self, event: Option<Event>, text: &mut String) -> bool {
        let collected = &mut self.collected;
        let applied = match event {
            Some(Event::Failed(why)) => Err(server_error(why)),
            None => Err(server_error("the server was stopped")),
            Some(event) => collected.apply(event),
        };
        match applied {
            Ok(news) => {
                let news = news.map_or_else(Vec::new, |index| collected.chunks(index));
                news.iter().for_each(|chunk| send(text, chunk));
            }
            Err(error) => {
                match &mut collected.items {
                    Some(items) => send(text, &items.failed(&error.message)),
                    None => send(text, &error.json()),
                }
                return false;
            }
        }
        if !collected.is_complete() {
            return true;
        }
        // Its last event marks the end.
        if collected.items.is_some() {
            return false;
        }
        if self.include_usage {
            send(text, &collected.answer.usage_chunk(collected.usage));
        }
        text.push_str("data: [DONE]\n\n");
        false
    }
}

fn send(text: &mut String, chunk: &Json) {
    // Only the Responses API names events.
    if let Some(kind) = chunk["type"].as_str() {
        _ = writeln!(text, "event: {kind}");
    }
    _ = write!(text, "data: {chunk}\n\n");
}

impl futures_util::Stream for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut text = String::new();
        if !std::mem::replace(&mut self.is_begun, true) {
            let Collected {
                items,
                answer,
                choices,
                ..
            } = &mut self.collected;
            let begun = items.as_mut().map_or_else(Vec::new, ResponseItems::begin);
            let chunks = (0..choices.len()).filter_map(|index| answer.first_chunk(index));
            let all = begun.into_iter().chain(chunks);
            all.for_each(|event| send(&mut text, &event));
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
