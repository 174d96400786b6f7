//! Requests of OpenAI's APIs: body -> queued prompts -> answer, whole or in chunks.

mod body; // request bodies, limited in size and time
mod collected; // tokens of completions -> an answer
mod constraints; // constraints of requests, compiled once
mod responses; // answers and errors in OpenAI's form
mod text_stream; // tokens -> final text without think block

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use collected::{Choice, Chunks, Progress, ReadTokens};
use text_stream::ThinkBlock;

use crate::confidence::AnswerConfidence;
use crate::constraint::{Constraint, Reasoning, Vocabulary};
use crate::hub::ModelConfig;
use crate::openai::{
    Answer, Api, ApiError, Finish, GenerationRequest, Prompt, RequestedTemplate, ResponseFormat,
    ResponseItems, TextPrompt, Usage,
};
use crate::rollout::{Completion, Request, Sampling, Shaping, ThinkingLimit};
use crate::score::CallReader;
use crate::text::{TemplateOptions, TextError, Thinking, Tokenizer};
use crate::update::ReadToken;

pub(crate) use body::body;
pub(crate) use collected::Collected;
pub(crate) use constraints::{ConstraintSpec, Constraints};
pub(crate) use responses::{
    answer, busy, no_model, refusal, refusal_of_body, server_error, unix_seconds, with_type,
};
pub(crate) use text_stream::TextStream;

/// Paths that sample.
pub(crate) const GENERATION_ADDRESSES: [(&str, Api); 3] = [
    ("/v1/chat/completions", Api::Chat),
    ("/v1/completions", Api::Completions),
    ("/v1/responses", Api::Responses),
];

/// Limit per request.
const MAX_COMPLETIONS: usize = 1024;
/// Completions of a prompt per decoding thread.
const JOB_SAMPLES: usize = 16;
/// Trailing prompt tokens examined for an open think block.
const PROMPT_END: usize = 32;
/// Buffered tokens per client; a slower client is not reading.
const CLIENT_TOKENS: usize = 4096;

/// The model as seen by requests.
#[derive(Debug)]
pub(crate) struct AskedModel {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) constraints: Arc<Constraints>,
    /// Default chat template options.
    pub(crate) template: TemplateOptions,
    /// Whether completions may begin with a think block, by default.
    pub(crate) reasons: bool,
    /// Default limit of think blocks.
    pub(crate) thinking_limit: Option<Arc<ThinkingLimit>>,
    /// Limit of a completion.
    pub(crate) max_completion_tokens: usize,
    /// Upper bound of token ids.
    pub(crate) vocabulary: usize,
    /// Prompt + completion.
    pub(crate) positions: usize,
    /// Limit of a prompt.
    pub(crate) longest_prompt: usize,
}

impl AskedModel {
    /// Has no think blocks by default. `limits`: tokens of a prompt, and of a completion.
    pub(crate) fn new(
        config: &ModelConfig,
        tokenizer: Arc<Tokenizer>,
        template: TemplateOptions,
        (longest_prompt, max_completion_tokens): (usize, usize),
    ) -> Self {
        let positions = config.max_position_embeddings;
        Self {
            tokenizer,
            constraints: Arc::default(),
            template,
            reasons: false,
            thinking_limit: None,
            max_completion_tokens: max_completion_tokens.min(positions - 1),
            vocabulary: config.vocab_size,
            positions,
            longest_prompt,
        }
    }
}

/// A part of a client's answer; `index`: of the completion.
#[derive(Debug)]
pub(crate) enum Event {
    /// A prompt's tokens after the first; `prompt`: its index.
    PromptRead {
        prompt: usize,
        tokens: Vec<ReadToken>,
    },
    Token {
        index: usize,
        token_id: u32,
        log_prob: f32,
        /// Alternatives, if requested.
        likeliest: Vec<(u32, f32)>,
    },
    /// The end, with all tokens unless sent individually.
    Ended {
        index: usize,
        completion: Completion,
    },
    /// The confidence of an ended completion's values, if requested.
    Confidence {
        index: usize,
        confidence: AnswerConfidence,
    },
    /// All its completions failed.
    Failed(String),
}

impl Event {
    /// A completion's newest token.
    pub(crate) fn of_newest(
        index: usize,
        completion: &Completion,
        likeliest: Vec<(u32, f32)>,
    ) -> Option<Self> {
        Some(Self::Token {
            index,
            token_id: *completion.token_ids.last()?,
            log_prob: *completion.log_probs.last()?,
            likeliest,
        })
    }

    /// A completion's end; without tokens if they were sent individually.
    pub(crate) fn of_end(index: usize, mut completion: Completion, by_token: bool) -> Self {
        if by_token {
            completion = Completion::new(Vec::new(), Vec::new(), completion.stop);
        }
        Self::Ended { index, completion }
    }
}

/// A prompt with completions to sample.
#[derive(Debug)]
pub(crate) struct PromptToSample {
    pub(crate) request: Request,
    pub(crate) sampling: Sampling,
    /// Whether completions may begin with a think block.
    pub(crate) reasoning: Reasoning,
    /// What values get their confidence under.
    pub(crate) confidence: Option<Arc<Constraint>>,
    /// Event index of sample 0: a request may have several prompts.
    pub(crate) first_index: usize,
    /// Whether to send tokens individually.
    pub(crate) by_token: bool,
    /// Whether a stop string has occurred, by sample.
    pub(crate) stopped: Arc<[AtomicBool]>,
    pub(crate) events: Sender<Event>,
}

/// A prompt whose log-probs are requested.
#[derive(Debug)]
pub(crate) struct ReadPrompt {
    /// Index in its request.
    pub(crate) index: usize,
    pub(crate) token_ids: Vec<u32>,
    /// Number of alternatives per token.
    pub(crate) likeliest: usize,
    pub(crate) events: Sender<Event>,
}

/// A completion whose values get their confidence.
#[derive(Debug)]
pub(crate) struct ReadAnswer {
    pub(crate) index: usize,
    pub(crate) prompt: Arc<[u32]>,
    pub(crate) completion: Vec<u32>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) constraint: Option<Arc<Constraint>>,
    pub(crate) events: Sender<Event>,
}

/// What is read between passes.
#[derive(Debug)]
pub(crate) enum Reading {
    Prompt(ReadPrompt),
    Answer(ReadAnswer),
}

impl Reading {
    pub(crate) fn events(&self) -> &Sender<Event> {
        match self {
            Self::Prompt(prompt) => &prompt.events,
            Self::Answer(answer) => &answer.events,
        }
    }
}

/// Streams the answer of a request whose prompts are queued.
pub(crate) async fn respond(prepared: PreparedRequest) -> Result<Response, ApiError> {
    let PreparedRequest {
        mut events,
        mut collected,
        stream,
        include_usage,
        ..
    } = prepared;
    if stream {
        let chunks = Chunks::new(events, collected, include_usage);
        let body = Body::from_stream(chunks);
        let mut response = with_type(200, "text/event-stream; charset=utf-8", body);
        let no_cache = HeaderValue::from_static("no-cache");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, no_cache);
        return Ok(response);
    }
    while !collected.is_complete() {
        match events.recv().await {
            Some(Event::Failed(why)) => return Err(server_error(why)),
            Some(event) => _ = collected.apply(event)?,
            None => return Err(server_error("the server was stopped")),
        }
    }
    Ok(answer(200, &collected.whole()))
}

/// A parsed request, ready to be queued.
pub(crate) struct PreparedRequest {
    pub(crate) prompts: Vec<PromptToSample>,
    /// Prompts with requested log-probs.
    pub(crate) read_prompts: Vec<ReadPrompt>,
    /// Constraint of all completions.
    pub(crate) wanted: Option<Arc<ConstraintSpec>>,
    /// What values get their confidence under, if not under `wanted`.
    pub(crate) described: Option<Arc<ConstraintSpec>>,
    events: Receiver<Event>,
    pub(crate) collected: Collected,
    stream: bool,
    include_usage: bool,
}

/// `prompts`: yields token ids.
pub(crate) fn prepare_asked(
    model: &Arc<AskedModel>,
    api: Api,
    asked: GenerationRequest,
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
    let (tokenizer, is_constrained) = (&model.tokenizer, wanted.is_some());
    let call_reader =
        |list| CallReader::new(tokenizer.call_format(), list, is_constrained, has_value);
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
    let stops = Arc::new(asked.stop);
    let ends = tokenizer.stop_ids();
    let stop_ids = match asked.ignore_eos {
        true => Vec::new(),
        false => ends.to_vec(),
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
        Some(budget) => Some(ThinkingLimit::new(tokenizer, budget).map_err(server_error)?),
        None => model.thinking_limit.clone(),
    };
    let read_prompt = |(index, token_ids): (usize, &Vec<u32>)| ReadPrompt {
        index,
        token_ids: token_ids.clone(),
        likeliest: if asked.echo { asked.top_log_probs } else { 0 },
        events: sender.clone(),
    };
    let is_read = asked.prompt_log_probs || asked.echo && asked.log_probs;
    let read_prompts: Vec<ReadPrompt> = match is_read {
        true => prompts.iter().enumerate().map(read_prompt).collect(),
        false => Vec::new(),
    };
    let echoed = match &asked.prompt {
        Prompt::Texts(texts) if asked.echo => {
            let echoed = texts.iter().map(|text| echoed(model, text));
            echoed.collect::<Result<_, _>>()?
        }
        Prompt::Texts(_) | Prompt::Chat { .. } => Vec::new(),
    };
    let seed = asked.seed.unwrap_or_else(random_seed);
    let described = asked.confidence_schema.as_ref();
    let may_think = described.is_some_and(|described| described.thinking);
    let (mut sampled, mut choices) = (Vec::new(), Vec::with_capacity(count));
    let by_token =
        asked.stream || !stops.is_empty() || asked.top_log_probs > 0 || api == Api::Responses;
    let mut usage = Usage::default();
    for (index, prompt) in prompts.into_iter().enumerate() {
        usage.prompt_tokens += prompt.len();
        let reasoning = reasoning(model, &asked.prompt, may_think, &prompt)?;
        let limit = limit(model, &prompt, asked.max_tokens)?;
        let sampling = Sampling {
            stop_ids: stop_ids.clone(),
            thinking: thinking.clone(),
            ..Sampling::plain(asked.temperature, limit, seed)
        };
        for first in (0..asked.samples).step_by(JOB_SAMPLES) {
            let samples = JOB_SAMPLES.min(asked.samples - first);
            let stopped: Arc<[AtomicBool]> = (0..samples).map(|_| AtomicBool::new(false)).collect();
            choices.extend((0..samples).map(|sample| Choice {
                text: TextStream::new(Arc::clone(tokenizer), Arc::clone(&stops)),
                thoughts: ThinkBlock::new(reasoning, tokenizer.think_marks()).filter(|_| is_chat),
                calls: tools.map(|tools| call_reader(&tools.list)),
                stopped: (Arc::clone(&stopped), sample),
                progress: Progress::default(),
            }));
            // Only the prompt is requested.
            if asked.max_tokens == Some(0) {
                let all = choices.iter_mut();
                all.for_each(|choice| choice.end(Finish::Length));
                continue;
            }
            let request = Request {
                first_sample: asked.first_sample + first as u32,
                shaping: shaping.clone(),
                ..Request::new(prompt.clone(), index as u32, 0, samples)
            };
            sampled.push(PromptToSample {
                request,
                sampling: sampling.clone(),
                reasoning,
                confidence: None,
                first_index: index * asked.samples + first,
                by_token,
                stopped,
                events: sender.clone(),
            });
        }
    }
    let (key, created) = (format!("{:016x}", random_seed()), unix_seconds());
    let id = match api {
        Api::Chat => format!("chatcmpl-{key}"),
        _ => format!("cmpl-{key}"),
    };
    let items = (api == Api::Responses)
        .then(|| ResponseItems::new(key, asked.model.clone(), created, asked.repeated));
    let read_tokens = read_prompts.iter();
    let read_tokens = read_tokens.map(|prompt| ReadTokens::of(&prompt.token_ids));
    let collected = Collected {
        answer: Answer {
            api,
            id,
            model: asked.model,
            created,
        },
        items,
        model: Arc::clone(model),
        constraint: None,
        choices,
        stop_ids,
        log_probs: asked.log_probs,
        token_ids: asked.token_ids,
        has_confidence: asked.confidence,
        has_prompt_log_probs: asked.prompt_log_probs,
        echoed,
        prompts: read_tokens.collect(),
        samples: asked.samples,
        usage,
    };
    Ok(PreparedRequest {
        prompts: sampled,
        read_prompts,
        wanted,
        described: asked
            .confidence_schema
            .and_then(ConstraintSpec::of_confidence),
        events,
        collected,
        stream: asked.stream,
        include_usage: asked.include_usage,
    })
}

/// Template variable for reasoning levels (gpt-oss, Qwen3.8).
const EFFORT: &str = "reasoning_effort";

/// Whether completions may begin with a think block. A model without them might begin one if its
/// constraint excludes likelier beginnings. `may_think`: after a text.
fn reasoning(
    model: &AskedModel,
    asked: &Prompt,
    may_think: bool,
    ids: &[u32],
) -> Result<Reasoning, ApiError> {
    let end = &ids[ids.len().saturating_sub(PROMPT_END)..];
    let tokenizer = &model.tokenizer;
    let end = tokenizer.decode(end, false).map_err(server_error)?;
    let may_reason = match asked {
        Prompt::Chat { template, .. } => template.thinking.unwrap_or(model.reasons),
        Prompt::Texts(_) => may_think,
    };
    let reasoning = Reasoning::for_prompt(Thinking::On, &end, tokenizer.think_marks());
    Ok(match reasoning {
        Reasoning::Allowed if !may_reason => Reasoning::Off,
        reasoning => reasoning,
    })
}

/// A prompt as echoed in its completion.
fn echoed(model: &AskedModel, prompt: &TextPrompt) -> Result<String, ApiError> {
    match prompt {
        TextPrompt::Text(text) => Ok(text.clone()),
        TextPrompt::Tokens(ids) => model.tokenizer.decode(ids, false).map_err(server_error),
    }
}

/// Input of the chat template.
pub(crate) fn template_options(
    model: &AskedModel,
    template: &RequestedTemplate,
) -> TemplateOptions {
    let mut options = model.template.clone();
    if let Some(thinking) = template.thinking {
        options.thinking = match thinking {
            true => Thinking::On,
            false => Thinking::Off,
        };
    }
    let reads_effort = || model.tokenizer.template_reads(EFFORT);
    if let Some(effort) = template.effort.as_ref().filter(|_| reads_effort()) {
        let effort = effort.as_str().into();
        options.kwargs.insert(EFFORT.to_owned(), effort);
    }
    options.kwargs.extend(template.kwargs.clone());
    options
}

/// Token ids of a prompt with its text, which is empty if given as ids. `add_special`: whether text
/// gets the tokenizer's special tokens; `is_wanted`: checked before each.
pub(crate) fn prompts(
    model: &AskedModel,
    prompt: &Prompt,
    add_special: bool,
    is_wanted: &dyn Fn() -> Result<(), ApiError>,
) -> Result<Vec<(Vec<u32>, String)>, ApiError> {
    let (tokenizer, positions) = (&model.tokenizer, model.positions);
    let encode = |text: &str, refuse: &dyn Fn(TextError) -> ApiError| {
        is_wanted()?;
        match tokenizer.longest_text_bytes(positions) {
            Some(most) if text.len() > most => {
                let bytes = text.len();
                let length = format!("{bytes} bytes, more than {positions} tokens can have");
                Err(too_long(model, &length))
            }
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
            let options = template_options(model, template);
            let tools = tools.as_ref().map(|tools| &tools.list);
            let refuse = |error: TextError| match error {
                TextError::NoTemplate { .. } => ApiError::invalid(
                    "messages",
                    "the model has no chat template: use /v1/completions",
                ),
                TextError::Template { problem, .. } => ApiError::invalid("messages", problem),
                other => ApiError::invalid("messages", other.to_string()),
            };
            let text = tokenizer.prompt(messages, tools, &options);
            let text = text.map_err(refuse)?;
            Ok(vec![(encode(&text, &refuse)?, text)])
        }
        Prompt::Texts(prompts) => {
            let refuse = |error: TextError| ApiError::invalid("prompt", error.to_string());
            let size = model.vocabulary;
            let ids = |prompt: &TextPrompt| match prompt {
                TextPrompt::Text(text) => Ok((encode(text, &refuse)?, text.clone())),
                TextPrompt::Tokens(ids) => match ids.iter().find(|id| **id as usize >= size) {
                    Some(id) => {
                        let message =
                            format!("token id {id} is not in the vocabulary of {size} tokens");
                        Err(ApiError::invalid("prompt", message))
                    }
                    None => Ok((ids.clone(), String::new())),
                },
            };
            prompts.iter().map(ids).collect()
        }
    }
}

/// Maximum of new tokens: the request's, within the server's limit.
fn limit(model: &AskedModel, prompt: &[u32], named: Option<usize>) -> Result<usize, ApiError> {
    if prompt.is_empty() {
        return Err(ApiError::invalid("prompt", "the prompt has no token"));
    }
    if prompt.len() > model.longest_prompt.min(model.positions - 1) {
        return Err(too_long(model, &format!("{} tokens", prompt.len())));
    }
    let left = model.positions - prompt.len();
    let most = model.max_completion_tokens.min(left);
    Ok(named.map_or(most, |named| named.min(most)))
}

/// OpenAI's wording, recognised by clients.
fn too_long(model: &AskedModel, length: &str) -> ApiError {
    let room = match model.longest_prompt < model.positions {
        true => format!(", of a prompt {}", model.longest_prompt),
        false => String::new(),
    };
    let message = format!(
        "This model's maximum context length is {} tokens{room}; the prompt has {length}",
        model.positions
    );
    ApiError {
        code: Some("context_length_exceeded"),
        ..ApiError::invalid("messages", message)
    }
}

/// Differs between requests and servers.
fn random_seed() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((COUNT.fetch_add(1, Ordering::Relaxed), std::process::id()))
}
