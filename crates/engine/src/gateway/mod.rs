//! Server for agents' conversations during sampling: each has a key, and its requests are decoded
//! from the queue.

mod branches; // matches a request with earlier ones
mod http; // routes and keys
mod session; // one conversation

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::format::hex;
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

/// Serves as long as this process: agents that get many rows keep its address and connections.
pub(crate) struct Gateway {
    runtime: Runtime,
    sessions: Arc<Sessions>,
    address: SocketAddr,
}

/// An additional listener; accepts no more once dropped.
pub(crate) struct Listening(tokio::task::AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gateway {
    /// Starts with the first that asks.
    ///
    /// # Errors
    /// No port, or no threads.
    pub(crate) fn shared() -> std::io::Result<&'static Self> {
        static SHARED: OnceLock<Gateway> = OnceLock::new();
        match SHARED.get() {
            Some(shared) => Ok(shared),
            None => {
                let started = Self::start()?;
                Ok(SHARED.get_or_init(|| started))
            }
        }
    }

    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let gateway = Self {
            runtime,
            sessions: Arc::default(),
            address,
        };
        // Listens as long as this process lives.
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
        listener.set_nonblocking(true)?;
        let _inside = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = http::router(Arc::clone(&self.sessions));
        let task = self.runtime.spawn(async move {
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

    /// A key for a process's conversations.
    ///
    /// # Errors
    /// No random numbers.
    pub(crate) fn new_key() -> std::io::Result<String> {
        Ok(format!("sk-{}", hex(&crate::files::random_bytes::<16>()?)))
    }

    /// Answers requests with this key until the session is dropped.
    pub(crate) fn open(&'static self, key: &str, session: Session) -> OpenSession {
        let (key, session) = (hash(key), Arc::new(session));
        self.sessions.lock().insert(key, Arc::clone(&session));
        OpenSession {
            gateway: self,
            key,
            session,
        }
    }
}

/// A conversation whose requests are answered.
pub(crate) struct OpenSession {
    gateway: &'static Gateway,
    key: [u8; 32],
    session: Arc<Session>,
}

impl std::ops::Deref for OpenSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.gateway.sessions.lock().remove(&self.key);
    }
}
