//! An OpenAI-compatible server, a client of the queue: prompts are decoded side by side as they
//! arrive.

mod activity; // idle connections
mod body_client; // the queue's client of a request
mod connections; // limits, time-outs and shutdown of sockets
mod generate; // a request -> queued prompts
mod http; // routes and keys
mod metrics; // Prometheus metrics

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;

use crate::format::duration;
use crate::generation::{AskedModel, Event, Reading, unix_seconds};
use crate::kernels::cuda_errors::{explained, is_out_of_memory};
use crate::kernels::device::Engine;
use crate::kernels::row_adapters::NO_ADAPTER;
use crate::leaf_confidence::{GivenAnswer, answer_confidence};
use crate::model::{Adapters, Decoder};
use crate::rollout::{
    self, DRAFT_TOKENS, Order, Queue, QueueSize, RolloutMemory, ThinkingLimit, ThreadPool, Worker,
    decode_queue,
};
use crate::run::{Device, RunLock, Slot};
use crate::text::{TemplateOptions, Tokenizer};
use crate::update::{ReadingModel, read_text};
use body_client::Readings;
use connections::Listener;
use metrics::Metrics;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("--listen {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the server's threads cannot be started: {0}")]
    Start(std::io::Error),
    #[error(
        "the GPU's free memory has room for {0} tokens of keys and values beside the model: free memory, raise --gpu-memory, or serve with --base-precision fp8 or nf4"
    )]
    Memory(usize),
    #[error("decoding failed {failures} times in a row; the last time: {cause}")]
    Decode { failures: usize, cause: String },
}

/// The served model with its adapters.
#[derive(Debug)]
pub struct ServedModel {
    pub engine: Engine,
    pub model: Decoder,
    pub tokenizer: Arc<Tokenizer>,
    /// Rank per adapter if there are several, else 0.
    pub adapter_slot: usize,
    /// Model names with adapters; the first is the others' base.
    pub names: Vec<(String, Option<u32>)>,
    /// Another name of the first, such as its folder's path.
    pub alias: Option<String>,
    /// Default chat template options.
    pub template: TemplateOptions,
    /// Whether completions may begin with a think block, by default.
    pub reasons: bool,
    /// Default limit of think blocks.
    pub thinking_limit: Option<Arc<ThinkingLimit>>,
    /// Default and maximum of requests.
    pub max_completion_tokens: usize,
}

#[derive(Debug)]
pub enum Place {
    Address(SocketAddr),
    /// A socket for this user's programs, while the conditions hold.
    Socket(UnixListener, Conditions),
}

/// Ends a server on a Unix socket when a run waits for its device, when it is idle, or when its
/// socket is gone.
#[derive(Debug)]
pub struct Conditions {
    pub lock: RunLock,
    /// `None` if it does not reserve a device.
    pub slot: Option<Slot>,
    /// Maximum time without a request.
    pub idle: Duration,
}

impl Conditions {
    /// Grace period for the first request, even if a run waits.
    const FIRST_REQUEST: Duration = Duration::from_secs(1);

    /// Why the server should end. `idle`: since the last request.
    fn why_end(&self, has_decoded: bool, idle: Duration) -> Option<String> {
        let may_end = has_decoded || idle >= Self::FIRST_REQUEST;
        let is_wanted = |slot: &&Slot| may_end && slot.is_wanted();
        if let Some(slot) = self.slot.as_ref().filter(is_wanted) {
            let devices: Vec<String> = slot.devices().iter().map(Device::described).collect();
            return Some(format!("released {} to a waiting run", devices.join(", ")));
        }
        match idle >= self.idle {
            true => Some(format!("idle for {}", duration(self.idle.as_secs_f64()))),
            false => (!self.lock.run().exists()).then(|| "its folder was removed".to_owned()),
        }
    }
}

#[derive(Debug)]
pub struct Settings {
    pub place: Place,
    /// `None`: open to everyone who reaches the address.
    pub key: Option<ApiKey>,
    /// Waiting requests.
    pub queued: usize,
    /// Allowed CORS origins, such as `https://chat.example`.
    pub origins: Vec<String>,
}

/// A client's key. Only its hash is stored; comparing hashes leaks nothing by timing.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    fn is(&self, key: &str) -> bool {
        let pairs = self.0.iter().zip(Self::new(key).0);
        pairs.fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ApiKey")
    }
}

/// Shared by handlers.
struct Shared {
    queue: Queue,
    metrics: Arc<Metrics>,
    model: Arc<AskedModel>,
    readings: Arc<Readings>,
    names: Vec<(String, Option<u32>)>,
    /// Alias of the first name.
    alias: Option<String>,
    key: Option<ApiKey>,
    /// Whether only this machine can reach it.
    is_local: bool,
    origins: Vec<String>,
    /// Unix time in seconds.
    started: u64,
}

/// A server with a smaller cache would refuse what it is started for.
const LEAST_TOKENS: usize = 1024;

/// Consecutive failures without a token before giving up.
const MAX_FAILURES: usize = 3;

/// Serves until a stop signal or the end of the [`Conditions`], then completes running requests.
/// `on_listening` gets the address; `report` gets problems, and why the conditions ended.
///
/// # Errors
/// [`ServeError`].
pub fn serve(
    served: ServedModel,
    settings: Settings,
    threads: &ThreadPool,
    on_listening: impl FnOnce(Option<SocketAddr>),
    report: impl Fn(&str) + Send + Sync,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // For preparing prompts and compiling constraints.
        .max_blocking_threads(6)
        .enable_all()
        .build()
        .map_err(ServeError::Start)?;
    let inside = runtime.enter();
    // Declared before the model: the device is released after it.
    let (listener, address, conditions) = match settings.place {
        Place::Address(address) => {
            let refuse = |source| ServeError::Listen { address, source };
            let listener = TcpListener::bind(address).map_err(refuse)?;
            listener.set_nonblocking(true).map_err(refuse)?;
            let address = listener.local_addr().map_err(refuse)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(refuse)?;
            (Listener::Tcp(listener), Some(address), None)
        }
        Place::Socket(listener, conditions) => {
            listener.set_nonblocking(true).map_err(ServeError::Start)?;
            let listener = tokio::net::UnixListener::from_std(listener);
            let listener = listener.map_err(ServeError::Start)?;
            (Listener::Unix(listener), None, Some(conditions))
        }
    };
    drop(inside);
    let ServedModel {
        engine,
        model,
        adapter_slot,
        max_completion_tokens,
        ..
    } = served;
    // What loading has freed is free; otherwise the caches are smaller.
    _ = engine.trim_memory();
    let size = QueueSize::for_model(&model, conditions.is_some());
    if size.tokens < LEAST_TOKENS.min(model.config().max_position_embeddings) {
        return Err(ServeError::Memory(size.tokens));
    }
    let limits = (size.longest_prompt, max_completion_tokens);
    let mut asked = AskedModel {
        reasons: served.reasons,
        thinking_limit: served.thinking_limit,
        ..AskedModel::new(model.config(), served.tokenizer, served.template, limits)
    };
    asked.positions = asked.positions.min(size.tokens);
    let shared = Arc::new(Shared {
        queue: Queue::new(Order::Shares {
            waiting: settings.queued,
            tokens: size.tokens,
        }),
        metrics: Arc::default(),
        model: Arc::new(asked),
        readings: Arc::default(),
        names: served.names,
        alias: served.alias,
        key: settings.key,
        is_local: address.is_none_or(|address| address.ip().is_loopback()),
        origins: settings.origins,
        started: unix_seconds(),
    });
    let is_stopped = Arc::new(AtomicBool::new(false));
    let decoding = &Decoding {
        engine: &engine,
        model: &model,
        size,
        adapter_slot,
        shared: &shared,
        report: &report,
        is_stopped: &is_stopped,
        begun: Mutex::default(),
    };
    // A GPU's work is launched by one thread.
    let count = match engine.device.is_cpu() {
        true => threads.count(),
        false => 1,
    };
    on_listening(address);
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let should_end = |idle| {
                let has_decoded = shared.metrics.prompt_tokens.load(Ordering::Relaxed) > 0;
                let conditions = conditions.as_ref();
                let why = conditions.and_then(|all| all.why_end(has_decoded, idle));
                why.iter().for_each(|why| report(why));
                why.is_some() || shared.queue.is_closed()
            };
            let listening = connections::listen(listener, Arc::clone(&shared), should_end);
            let outcome = runtime.block_on(listening);
            shared.queue.close();
            // A second signal, or clients that do not end.
            is_stopped.store(outcome.is_err(), Ordering::Relaxed);
            runtime.shutdown_background();
        });
        let others = (1..count).map(|_| scope.spawn(|| decoding.run()));
        let others: Vec<_> = others.collect();
        let mut outcome = decoding.run();
        for other in others {
            outcome = outcome.and(other.join().unwrap_or(Ok(())));
        }
        _ = listening.join();
        outcome
    })
}

/// Message for a failed answer; the log has more.
const FAILED: &str = "decoding failed; the server's log has the cause";
const STOPPED: &str = "the server was stopped";

struct Decoding<'a> {
    engine: &'a Engine,
    model: &'a Decoder,
    size: QueueSize,
    adapter_slot: usize,
    shared: &'a Shared,
    report: &'a (dyn Fn(&str) + Sync),
    is_stopped: &'a Arc<AtomicBool>,
    /// Readings between whose pieces passes run.
    begun: Mutex<VecDeque<Begun<'a>>>,
}

impl rollout::Decoding for Decoding<'_> {
    fn is_cancelled(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    fn has_errand(&self) -> bool {
        let mut readings = self.shared.readings.lock();
        readings.retain(|(reading, _)| !reading.events().is_closed());
        let mut begun = self.begun.lock();
        begun.retain(|reading| !reading.events.is_closed());
        !readings.is_empty() || !begun.is_empty()
    }

    fn run_errand(&self) -> bool {
        if !self.has_errand() {
            return false;
        }
        let begun = self.begun.lock().pop_front();
        let next = || self.shared.readings.lock().pop_front();
        let Some(mut reading) =
            begun.or_else(|| next().map(|(reading, adapter)| self.begin(reading, adapter)))
        else {
            return false;
        };
        let mut context = Context::from_waker(Waker::noop());
        match reading.event.as_mut().poll(&mut context) {
            // Its client may be gone.
            Poll::Ready(event) => _ = reading.events.try_send(event),
            Poll::Pending => self.begun.lock().push_front(reading),
        }
        true
    }
}

/// A reading that a pass interrupts.
struct Begun<'a> {
    events: Sender<Event>,
    event: Pin<Box<dyn Future<Output = Event> + Send + 'a>>,
}

impl<'a> Decoding<'a> {
    /// `adapter`: which the prompt or answer is sampled with.
    fn begin(&self, reading: Reading, adapter: Option<u32>) -> Begun<'a> {
        let model = ReadingModel {
            model: self.model,
            adapters: Adapters::On,
            own: (self.adapter_slot > 0)
                .then_some((adapter.unwrap_or(NO_ADAPTER), self.adapter_slot)),
        };
        let (engine, report) = (self.engine, self.report);
        Begun {
            events: reading.events().clone(),
            event: Box::pin(async move {
                let (read, what) = match &reading {
                    Reading::Prompt(prompt) => {
                        let ids = &prompt.token_ids;
                        let tokens = read_text(model, ids, prompt.likeliest).await;
                        let read = tokens.map(|tokens| Event::PromptRead {
                            prompt: prompt.index,
                            tokens,
                        });
                        (read, "reading a prompt failed")
                    }
                    Reading::Answer(answer) => {
                        let given = GivenAnswer {
                            prompt: &answer.prompt,
                            completion: &answer.completion,
                            vocabulary: &answer.vocabulary,
                            constraint: answer.constraint.as_deref(),
                        };
                        let confidence = answer_confidence(model, &given).await;
                        let read = confidence.map(|confidence| Event::Confidence {
                            index: answer.index,
                            confidence,
                        });
                        (read, "computing the confidence of an answer failed")
                    }
                };
                read.unwrap_or_else(|error| {
                    let is_out_of_memory = is_out_of_memory(&error);
                    fail(engine, report, what, &error.to_string(), is_out_of_memory);
                    Event::Failed(format!("{what}; the server's log has the cause"))
                })
            }),
        }
    }

    /// Decodes until the queue is closed and empty.
    fn run(&self) -> Result<(), ServeError> {
        let (queue, memory) = (&self.shared.queue, RolloutMemory::default());
        let mut worker = Worker::new(queue, self);
        let settings = (self.size, DRAFT_TOKENS, self.adapter_slot);
        let (mut failures, adapters) = (0, Adapters::On);
        let end = |why: &str| {
            queue.fail(why);
            self.shared.readings.lock().clear();
            self.begun.lock().clear();
        };
        loop {
            let is_stopped = Arc::clone(self.is_stopped);
            let threads = ThreadPool::calling().until(move || is_stopped.load(Ordering::Relaxed));
            let decoded = decode_queue(
                self.model,
                adapters,
                &mut worker,
                settings,
                &memory,
                &threads,
            );
            let Err(error) = decoded else {
                return Ok(());
            };
            if ThreadPool::is_cancellation(&error) {
                worker.fail(STOPPED);
                end(STOPPED);
                return Ok(());
            }
            failures = if worker.tokens > 0 { 1 } else { failures + 1 };
            let what = "decoding failed, and its requests with it";
            let is_out_of_memory = is_out_of_memory(&error);
            let error = error.to_string();
            let cause = fail(self.engine, self.report, what, &error, is_out_of_memory);
            worker.fail(FAILED);
            if failures >= MAX_FAILURES {
                end(FAILED);
                return Err(ServeError::Decode { failures, cause });
            }
        }
    }
}

/// Reports a failure; returns its cause.
fn fail(
    engine: &Engine,
    report: &(dyn Fn(&str) + Sync),
    what: &str,
    error: &str,
    is_out_of_memory: bool,
) -> String {
    let cause = explained(error);
    report(&format!("{what}: {cause}"));
    if is_out_of_memory {
        _ = engine.trim_memory();
    }
    cause
}
