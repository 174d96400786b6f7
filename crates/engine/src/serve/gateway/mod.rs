//! The server of the conversations that agents hold while a policy is sampled: each has a key, and what it asks is
//! sampled by the threads that decode.

mod branches; // what a request continues
mod http; // addresses and keys
mod hub; // conversations by their keys
mod seat; // one conversation

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;

use super::queue::Queue;
use super::{Shared, responses};
use crate::format::hex;
use crate::hub::ModelConfig;
use crate::text::{TemplateOptions, Thinking, Tokenizer};
use hub::Hub;
pub use seat::{Seat, SeatAnswer, SeatRecord, SeatRequest};

/// The name of the model that is sampled.
pub const MODEL_NAME: &str = "policy";

/// For a request's head.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Threads that answer, and those that tokenize.
const THREADS: usize = 2;
const BLOCKING_THREADS: usize = 8;

/// The model as the conversations of one task ask it.
#[derive(Clone, Debug)]
pub struct GatewayModel(Arc<Shared>);

impl GatewayModel {
    /// `limits`: tokens of a prompt, and of a completion.
    pub fn new(
        config: &ModelConfig,
        tokenizer: Arc<Tokenizer>,
        template: TemplateOptions,
        (longest_prompt, max_completion_tokens): (usize, usize),
    ) -> Self {
        let positions = config.max_position_embeddings;
        Self(Arc::new(Shared {
            // Nothing is queued here: conversations have their own way to the threads that decode.
            queue: Queue::new(0),
            tokenizer,
            constraints: Arc::default(),
            names: vec![(MODEL_NAME.to_owned(), None)],
            alias: None,
            reasons: template.thinking == Thinking::On,
            template,
            thinking_limit: None,
            max_completion_tokens: max_completion_tokens.min(positions - 1),
            vocabulary: config.vocab_size,
            positions,
            longest_prompt,
            key: None,
            is_local: true,
            origins: Vec::new(),
            started: responses::unix_seconds(),
        }))
    }
}

/// The server; dropped, it listens no more.
#[derive(Debug)]
pub struct Gateway {
    runtime: Option<Runtime>,
    hub: Arc<Hub>,
    address: SocketAddr,
}

/// A listener besides the gateway's own; dropped, it listens no more.
#[derive(Debug)]
pub struct Listening(tokio::task::AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gateway {
    /// Listens on a port of this machine.
    ///
    /// # Errors
    /// No port, or no threads.
    pub fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let gateway = Self {
            runtime: Some(runtime),
            hub: Arc::default(),
            address,
        };
        // It listens as long as the runtime lives.
        std::mem::forget(gateway.listen(listener)?);
        Ok(gateway)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there, too: at the port of a program with a network of its own.
    ///
    /// # Errors
    /// A socket that cannot be waited for.
    pub fn listen(&self, listener: TcpListener) -> std::io::Result<Listening> {
        let Some(runtime) = &self.runtime else {
            return Err(std::io::ErrorKind::NotConnected.into());
        };
        listener.set_nonblocking(true)?;
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = http::router(Arc::clone(&self.hub));
        let task = runtime.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    // As when there are no more file descriptors: some will be free again.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                _ = socket.set_nodelay(true);
                let mut protocol = hyper::server::conn::http1::Builder::new();
                protocol
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME);
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(protocol.serve_connection(TokioIo::new(socket), service));
            }
        });
        Ok(Listening(task.abort_handle()))
    }

    /// Makes a place for a conversation; returns it with its key. `on_request` learns of its requests.
    ///
    /// # Errors
    /// No random numbers.
    pub fn seat(
        &self,
        model: &GatewayModel,
        max_requests: usize,
        on_request: impl Fn(SeatRequest) + Send + Sync + 'static,
    ) -> std::io::Result<(String, Arc<Seat>)> {
        let key = format!("sk-{}", hex(&crate::files::random_bytes::<16>()?));
        let seat = Arc::new(Seat::new(
            Arc::clone(&model.0),
            max_requests,
            Box::new(on_request),
        ));
        self.hub.insert(&key, Arc::clone(&seat));
        Ok((key, seat))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Connections of programs that were ended are not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
