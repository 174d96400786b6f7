//! A request -> prompts in the queue -> an answer. An answer that is dropped, since its client is
//! gone, closes the channel of its tokens: the rows behind it are freed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Shared;
use super::collected::{Choice, Chunks, Collected, Progress, ReadTokens, server_error};
use super::constraints::ConstraintSpec;
use super::queue::{BodyState, CLIENT_TOKENS, DecodeRequest, Event, QueueError, ReadPrompt};
use super::responses::{answer, busy, unix_seconds, with_type};
use super::text_stream::{TextStream, ThinkBlock};
use crate::constraint::Reasoning;
use crate::openai::{
    Answer, Api, ApiError, Finish, GenerationRequest, Prompt, RequestedTemplate, ResponseFormat,
    ResponseItems, TextPrompt, TokenizeRequest, Usage,
};
use crate::rollout::{Request, Sampling, Shaping, ThinkingLimit};
use crate::score::CallReader;
use crate::text::{TemplateOptions, TextError, Thinking};

/// Completions of one body.
const MAX_COMPLETIONS: usize = 1024;
/// Completions of a prompt that are decoded by one thread.
const JOB_SAMPLES: usize = 16;
/// Tokens of a prompt's end, where it may open a think block.
const PROMPT_END: usize = 32;

/// A body above it waits until the ones before it are tokenized: many at once would take all threads and the memory.
const LARGE_BODY_BYTES: usize = 64 << 10;
static LARGE_BODY: Semaphore = Semaphore::const_new(1);

/// Answers a body.
pub(super) async fn generate(
    shared: Arc<Shared>,
    api: Api,
    body: Bytes,
    room: SemaphorePermit<'static>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let reading = Arc::clone(&shared);
    let turn = if body.len() > LARGE_BODY_BYTES {
        LARGE_BODY.acquire().await.ok()
    } else {
        None
    };
    // Dropped with this future when the client leaves.
    let presence = Arc::new(());
    let client = Arc::downgrade(&presence);
    // A large prompt is tokenized for a while, and has its room until then, whether its client stays or not.
    let prepared = tokio::task::spawn_blocking(move || {
        let prepared = prepare(&reading, api, &body, arrived, &client);
        drop((turn, room));
        prepared
    });
    let mut prepared = prepared
        .await
        .map_err(|_| server_error("the request could not be prepared"))??;
    if let Some(wanted) = prepared.wanted.take() {
        for (job, reasoning) in &mut prepared.jobs {
            let constraint = shared
                .constraints
                .compiled(&wanted, *reasoning, &shared.tokenizer)
                .await?;
            job.request.constraint = Some(constraint);
        }
        prepared.collected.constraint = prepared
            .jobs
            .first()
            .and_then(|(job, _)| job.request.constraint.clone());
    }
    let jobs = std::mem::take(&mut prepared.jobs)
        .into_iter()
        .map(|(job, _)| job)
        .collect();
    let read_prompts = std::mem::take(&mut prepared.read_prompts);
    shared
        .queue
        .push(jobs, read_prompts)
        .map_err(|refused| match refused {
            QueueError::Full => busy(&format!(
                "{} requests wait, as many as this server lets (--queue)",
                shared.queue.limit
            )),
            QueueError::Closed => {
                ApiError::new(503, "server_error", None, "the server is being stopped")
            }
        })?;
    respond(prepared).await
}

/// Answers a request whose prompts are queued, as its tokens come.
pub(super) async fn respond(prepared: PreparedRequest) -> Result<Response, ApiError> {
    let PreparedRequest {
        mut events,
        mut collected,
        stream,
        include_usage,
        ..
    } = prepared;
    if stream {
        let chunks = Chunks::new(events, collected, include_usage);
        let mut response = with_type(
            200,
            "text/event-stream; charset=utf-8",
            Body::from_stream(chunks),
        );
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return Ok(response);
    }
    while !collected.is_complete() {
        match events.recv().await {
            Some(Event::Failed(why)) => return Err(server_error(&why)),
            Some(event) => _ = collected.apply(event)?,
            None => return Err(server_error("the server was stopped")),
        }
    }
    Ok(answer(200, &collected.whole()))
}

/// What a body asks for, ready to be queued.
pub(super) struct PreparedRequest {
    /// Each with whether its completions may begin with a think block.
    pub(super) jobs: Vec<(DecodeRequest, Reasoning)>,
    /// Those whose tokens' log-probs are told.
    read_prompts: Vec<ReadPrompt>,
    /// What all completions may be.
    pub(super) wanted: Option<Arc<ConstraintSpec>>,
    events: Receiver<Event>,
    pub(super) collected: Collected,
    stream: bool,
    include_usage: bool,
}

/// `client`: gone when its connection is.
fn prepare(
    shared: &Arc<Shared>,
    api: Api,
    body: &[u8],
    arrived: Instant,
    client: &Weak<()>,
) -> Result<PreparedRequest, ApiError> {
    check_is_there(client)?;
    let asked = GenerationRequest::parse(api, body)?;
    let adapter = shared.adapter_of(&asked.model)?;
    let add_special = asked.add_special_tokens;
    prepare_asked(shared, api, asked, (adapter, arrived), |asked| {
        prompts(shared, (asked, add_special), client)
    })
}

/// `prompts`: what the model reads.
pub(super) fn prepare_asked(
    shared: &Arc<Shared>,
    api: Api,
    asked: GenerationRequest,
    (adapter, arrived): (Option<u32>, Instant),
    prompts: impl FnOnce(&Prompt) -> Result<Vec<Vec<u32>>, ApiError>,
) -> Result<PreparedRequest, ApiError> {
    let tools = match &asked.prompt {
        Prompt::Chat { tools, .. } => tools.as_ref(),
        Prompt::Texts(_) => None,
    };
    let wanted = ConstraintSpec::new((&asked.response_format, asked.format_field), tools);
    let own_ends = [
        ("ignore_eos", asked.ignore_eos),
        ("min_tokens", asked.min_tokens > 0),
    ];
    if let (Some(wanted), Some((field, _))) = (&wanted, own_ends.iter().find(|(_, set)| *set)) {
        let message = format!(
            "`{field}`: completions that `{}` constrains end where they must",
            wanted.field()
        );
        return Err(ApiError::invalid(field, message));
    }
    let has_value = asked.response_format != ResponseFormat::Text;
    let call_reader = |list| {
        CallReader::new(
            shared.tokenizer.call_format(),
            list,
            wanted.is_some(),
            has_value,
        )
    };
    let count = asked.prompt.count() * asked.samples;
    if count > MAX_COMPLETIONS {
        let message = format!(
            "`n` times the prompts is {count}, at most {MAX_COMPLETIONS} completions are sampled"
        );
        return Err(ApiError::invalid("n", message));
    }
    let prompts = prompts(&asked.prompt)?;
    let is_chat = matches!(api, Api::Chat | Api::Responses);
    let (sender, events) = channel(CLIENT_TOKENS);
    let state = Arc::new(BodyState::default());
    let stops = Arc::new(asked.stop);
    if let Some(id) = asked
        .stop_token_ids
        .iter()
        .find(|id| !shared.tokenizer.stop_ids().contains(id))
    {
        let own = shared.tokenizer.stop_ids();
        let message = format!(
            "`stop_token_ids`: completions end with the model's own, {own:?}, and not with {id}: use `stop`"
        );
        return Err(ApiError::invalid("stop_token_ids", message));
    }
    let stop_ids = if asked.ignore_eos {
        Vec::new()
    } else {
        shared.tokenizer.stop_ids().to_vec()
    };
    let shaping = Shaping {
        top_k: asked.top_k,
        top_p: asked.top_p,
        min_p: asked.min_p,
        repetition_penalty: asked.repetition_penalty,
        min_tokens: asked.min_tokens,
        presence_penalty: asked.presence_penalty,
        frequency_penalty: asked.frequency_penalty,
        alternatives: asked.top_log_probs,
    };
    let shaping = (shaping != Shaping::default()).then(|| Arc::new(shaping));
    let thinking = match asked.thinking_budget {
        Some(budget) => {
            let made = ThinkingLimit::new(&shared.tokenizer, budget);
            Some(made.map_err(|error| server_error(&error.to_string()))?)
        }
        None => shared.thinking_limit.clone(),
    };
    let read_prompt = |(index, token_ids): (usize, &Vec<u32>)| ReadPrompt {
        index,
        token_ids: token_ids.clone(),
        likeliest: if asked.echo { asked.top_log_probs } else { 0 },
        adapter,
        events: sender.clone(),
    };
    let is_read = asked.prompt_log_probs || asked.echo && asked.log_probs;
    let read_prompts: Vec<ReadPrompt> = match is_read {
        true => prompts.iter().enumerate().map(read_prompt).collect(),
        false => Vec::new(),
    };
    let echoed = match &asked.prompt {
        Prompt::Texts(texts) if asked.echo => texts
            .iter()
            .map(|text| echoed(shared, text))
            .collect::<Result<_, _>>()?,
        Prompt::Texts(_) | Prompt::Chat { .. } => Vec::new(),
    };
    let seed = asked.seed.unwrap_or_else(random_seed);
    let mut jobs = Vec::new();
    let mut choices = Vec::with_capacity(count);
    let mut usage = Usage::default();
    for (index, prompt) in prompts.into_iter().enumerate() {
        usage.prompt_tokens += prompt.len();
        let reasoning = reasoning(shared, &asked.prompt, &prompt)?;
        let limit = limit(shared, &prompt, asked.max_tokens)?;
        let sampling = Sampling {
            stop_ids: stop_ids.clone(),
            thinking: thinking.clone(),
            ..Sampling::plain(asked.temperature, limit, seed)
        };
        for first in (0..asked.samples).step_by(JOB_SAMPLES) {
            let samples = JOB_SAMPLES.min(asked.samples - first);
            let stopped: Arc<[AtomicBool]> = (0..samples).map(|_| AtomicBool::new(false)).collect();
            choices.extend((0..samples).map(|sample| Choice {
                text: TextStream::new(Arc::clone(&shared.tokenizer), Arc::clone(&stops)),
                thoughts:
                    ThinkBlock::new(reasoning, shared.tokenizer.think_marks()).filter(|_| is_chat),
                calls: tools.map(|tools| call_reader(&tools.list)),
                stopped: (Arc::clone(&stopped), sample),
                progress: Progress::default(),
            }));
            // Only the prompt is asked for.
            if asked.max_tokens == Some(0) {
                choices
                    .iter_mut()
                    .for_each(|choice| choice.end(Finish::Length));
                continue;
            }
            let request = Request {
                first_sample: asked.first_sample + first as u32,
                shaping: shaping.clone(),
                ..Request::new(prompt.clone(), index as u32, 0, samples)
            };
            let job = DecodeRequest {
                body: Arc::clone(&state),
                request,
                sampling: sampling.clone(),
                adapter,
                first_index: index * asked.samples + first,
                by_token: asked.stream
                    || !stops.is_empty()
                    || asked.top_log_probs > 0
                    || api == Api::Responses,
                stopped,
                first_stopped: 0,
                events: sender.clone(),
                arrived,
            };
            jobs.push((job, reasoning));
        }
    }
    let (key, created) = (format!("{:016x}", random_seed()), unix_seconds());
    let id = format!(
        "{}-{key}",
        if api == Api::Chat { "chatcmpl" } else { "cmpl" }
    );
    let items = (api == Api::Responses)
        .then(|| ResponseItems::new(key, asked.model.clone(), created, asked.repeated));
    let collected = Collected {
        answer: Answer {
            api,
            id,
            model: asked.model,
            created,
        },
        items,
        shared: Arc::clone(shared),
        constraint: None,
        choices,
        stop_ids,
        log_probs: asked.log_probs,
        token_ids: asked.token_ids,
        tells_prompts: asked.prompt_log_probs,
        echoed,
        prompts: read_prompts
            .iter()
            .map(|prompt| ReadTokens::of(&prompt.token_ids))
            .collect(),
        samples: asked.samples,
        usage,
    };
    Ok(PreparedRequest {
        jobs,
        read_prompts,
        wanted,
        events,
        collected,
        stream: asked.stream,
        include_usage: asked.include_usage,
    })
}

/// The variable of templates that know levels of reasoning (gpt-oss, Qwen3.8).
const EFFORT: &str = "reasoning_effort";

/// Whether completions of a prompt may begin with a think block. A model that knows of none would write one where its
/// constraint leaves it no other beginning that it likes.
fn reasoning(shared: &Shared, asked: &Prompt, ids: &[u32]) -> Result<Reasoning, ApiError> {
    let end = &ids[ids.len().saturating_sub(PROMPT_END)..];
    let end = shared
        .tokenizer
        .decode(end, false)
        .map_err(|error| server_error(&error.to_string()))?;
    let may_reason = match asked {
        Prompt::Chat { template, .. } => template.thinking.unwrap_or(shared.reasons),
        Prompt::Texts(_) => false,
    };
    Ok(
        match Reasoning::for_prompt(Thinking::On, &end, shared.tokenizer.think_marks()) {
            Reasoning::Allowed if !may_reason => Reasoning::Off,
            found => found,
        },
    )
}

fn check_is_there(client: &Weak<()>) -> Result<(), ApiError> {
    match client.strong_count() {
        0 => Err(server_error("the client is gone")),
        _ => Ok(()),
    }
}

/// A prompt as a completion that repeats it has it.
fn echoed(shared: &Shared, prompt: &TextPrompt) -> Result<String, ApiError> {
    match prompt {
        TextPrompt::Text(text) => Ok(text.clone()),
        TextPrompt::Tokens(ids) => shared
            .tokenizer
            .decode(ids, false)
            .map_err(|error| server_error(&error.to_string())),
    }
}

fn prompts(
    shared: &Shared,
    prompt: (&Prompt, bool),
    client: &Weak<()>,
) -> Result<Vec<Vec<u32>>, ApiError> {
    prompts_with_text(shared, prompt, client)
        .map(|prompts| prompts.into_iter().map(|(ids, _)| ids).collect())
}

/// The token ids of what a body of `/tokenize` has.
pub(super) fn token_ids(shared: &Shared, asked: &TokenizeRequest) -> Result<Vec<u32>, ApiError> {
    let present = Arc::new(());
    let prompt = (&asked.prompt, asked.add_special_tokens);
    let found = prompts(shared, prompt, &Arc::downgrade(&present))?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// What a chat template is rendered with.
pub(super) fn template_options(shared: &Shared, template: &RequestedTemplate) -> TemplateOptions {
    let (
        mut options,
        RequestedTemplate {
            thinking,
            effort,
            kwargs,
        },
    ) = (shared.template.clone(), template);
    if let Some(thinking) = thinking {
        options.thinking = if *thinking {
            Thinking::On
        } else {
            Thinking::Off
        };
    }
    let effort = effort
        .as_ref()
        .filter(|_| shared.tokenizer.template_reads(EFFORT));
    options
        .kwargs
        .extend(effort.map(|effort| (EFFORT.to_owned(), effort.as_str().into())));
    options.kwargs.extend(kwargs.clone());
    options
}

/// The token ids of prompts, each with its text, which is empty where it was given as ids. `add_special`: whether a text gets
/// the special tokens that the tokenizer adds.
pub(super) fn prompts_with_text(
    shared: &Shared,
    (prompt, add_special): (&Prompt, bool),
    client: &Weak<()>,
) -> Result<Vec<(Vec<u32>, String)>, ApiError> {
    let tokenizer = &shared.tokenizer;
    let encode = |text: &str, refuse: &dyn Fn(TextError) -> ApiError| {
        check_is_there(client)?;
        match tokenizer.longest_text_bytes(shared.positions) {
            Some(most) if text.len() > most => Err(too_long(
                shared,
                &format!(
                    "{} bytes, more than {} tokens can have",
                    text.len(),
                    shared.positions
                ),
            )),
            _ if add_special => tokenizer.encode_with_special_tokens(text).map_err(refuse),
            _ => tokenizer.encode(text).map_err(refuse),
        }
    };
    match prompt {
        Prompt::Chat {
            messages,
            tools,
            template,
        } => {
            let options = template_options(shared, template);
            let tools = tools.as_ref().map(|tools| &tools.list);
            let refuse = |error: TextError| match error {
                TextError::NoTemplate { .. } => ApiError::invalid(
                    "messages",
                    "the model has no chat template: use /v1/completions",
                ),
                TextError::Template { problem, .. } => ApiError::invalid("messages", problem),
                other => ApiError::invalid("messages", other.to_string()),
            };
            let text = tokenizer
                .prompt(messages, tools, &options)
                .map_err(refuse)?;
            Ok(vec![(encode(&text, &refuse)?, text)])
        }
        Prompt::Texts(prompts) => {
            let ids = |prompt: &TextPrompt| match prompt {
                TextPrompt::Text(text) => Ok((
                    encode(text, &|error| {
                        ApiError::invalid("prompt", error.to_string())
                    })?,
                    text.clone(),
                )),
                TextPrompt::Tokens(ids) => {
                    match ids.iter().find(|id| **id as usize >= shared.vocabulary) {
                        Some(id) => Err(ApiError::invalid(
                            "prompt",
                            format!(
                                "token id {id} is not in the vocabulary of {} tokens",
                                shared.vocabulary
                            ),
                        )),
                        None => Ok((ids.clone(), String::new())),
                    }
                }
            };
            prompts.iter().map(ids).collect()
        }
    }
}

/// The most new tokens of a prompt's completions: what a request names, lowered to what the server has.
fn limit(shared: &Shared, prompt: &[u32], named: Option<usize>) -> Result<usize, ApiError> {
    if prompt.is_empty() {
        return Err(ApiError::invalid("prompt", "the prompt has no token"));
    }
    if prompt.len() > shared.longest_prompt.min(shared.positions - 1) {
        return Err(too_long(shared, &format!("{} tokens", prompt.len())));
    }
    let most = shared
        .max_completion_tokens
        .min(shared.positions - prompt.len());
    Ok(named.map_or(most, |named| named.min(most)))
}

/// In OpenAI's words, by which clients recognise it.
fn too_long(shared: &Shared, found: &str) -> ApiError {
    let room = match shared.longest_prompt < shared.positions {
        true => format!(", of a prompt {}", shared.longest_prompt),
        false => String::new(),
    };
    let message = format!(
        "This model's maximum context length is {} tokens{room}; the prompt has {found}",
        shared.positions
    );
    ApiError {
        code: Some("context_length_exceeded"),
        ..ApiError::invalid("messages", message)
    }
}

/// Differs from request to request and from server to server.
fn random_seed() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((COUNT.fetch_add(1, Ordering::Relaxed), std::process::id()))
}
