//! Server for agents' conversations during sampling: each has a key, and its requests are decoded
//! from the queue.

mod branches; // matches a request with earlier ones
mod http; // routes and keys
mod session; // one conversation

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::environment::AgentLimits;
use crate::format::hex;
use crate::generation::AskedModel;
use crate::rollout::QueuedQuestion;
pub(crate) use session::{Session, SessionAnswer, SessionRecord};

/// Name of the sampled model.
pub(crate) const MODEL_NAME: &str = "policy";

/// Limit for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Threads for answering, and for tokenizing.
const THREADS: usize = 2;
const BLOCKING_THREADS: usize = 8;

/// Conversations by hashed key: comparing hashes leaks nothing by timing.
type Sessions = Mutex<HashMap<[u8; 32], Arc<Session>>>;

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Stops listening when dropped.
pub(crate) struct Gateway {
    runtime: Option<Runtime>,
    sessions: Arc<Sessions>,
    address: SocketAddr,
}

/// An additional listener; stops when dropped.
pub(crate) struct Listening(tokio::task::AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gateway {
    /// Listens on a local port.
    ///
    /// # Errors
    /// No port, or no threads.
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let gateway = Self {
            runtime: Some(runtime),
            sessions: Arc::default(),
            address,
        };
        // Listens as long as the runtime lives.
        std::mem::forget(gateway.listen(listener)?);
        Ok(gateway)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a listener: the port of a program with its own network.
    ///
    /// # Errors
    /// A socket that cannot be polled.
    pub(crate) fn listen(&self, listener: TcpListener) -> std::io::Result<Listening> {
        let Some(runtime) = &self.runtime else {
            return Err(std::io::ErrorKind::NotConnected.into());
        };
        listener.set_nonblocking(true)?;
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = http::router(Arc::clone(&self.sessions));
        let task = runtime.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    // Such as exhausted file descriptors: retry later.
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

    /// Opens the conversation of a sample; returns it with its key.
    ///
    /// # Errors
    /// No random numbers.
    pub(crate) fn open(
        &self,
        model: &Arc<AskedModel>,
        limits: &AgentLimits,
        question: &Arc<QueuedQuestion>,
        sample: usize,
    ) -> std::io::Result<(String, Arc<Session>)> {
        let key = format!("sk-{}", hex(&crate::files::random_bytes::<16>()?));
        let (model, question) = (Arc::clone(model), Arc::clone(question));
        let session = Arc::new(Session::new(model, *limits, question, sample));
        let mut all = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(hash(&key), Arc::clone(&session));
        Ok((key, session))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Do not wait for connections of killed programs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
