//! Connections: at most so many, none that stands still for long, idle ones closed for new ones, and the end of the server,
//! which lets answers be completed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Sleep, interval, sleep, timeout};

use super::activity::Activity;
use super::{ServerUse, Shared, http};

/// Open connections at most, where the system allows the process so many; then the one that was idle longest is closed.
const MOST_CONNECTIONS: usize = 4096;
/// Descriptors for all but connections.
const OWN_DESCRIPTORS: usize = 64;
/// For a request's head.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Of a request line and headers.
const HEAD_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long is dropped.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// For what was begun when the server was told to stop.
const GRACE: Duration = Duration::from_secs(60);

/// How soon a server finds a reason to end.
const ROUND: Duration = Duration::from_millis(250);

/// Clients did not end in time, or a second signal came.
#[derive(Debug)]
pub(super) struct Unfinished;

/// What is served once the model is there, and the signals that end it.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) shared: Arc<Shared>,
    pub(super) interrupt: Signal,
    pub(super) terminate: Signal,
}

/// Refuses requests until the model is there; then serves until a signal, or until `should_end` says why; then until all
/// answers are complete. Returns what `should_end` said.
pub(super) async fn listen(
    listener: Listening,
    state: &Mutex<String>,
    started: oneshot::Receiver<Started>,
    should_end: impl Fn(ServerUse) -> Option<String>,
) -> Result<Option<String>, Unfinished> {
    let Some(started) = refuse(&listener, state, started).await else { return Ok(None) };
    let Started { shared, mut interrupt, mut terminate } = started;
    let most = connection_limit();
    let (graceful, mut open) = (GracefulShutdown::new(), Vec::new());
    let router = http::router(Arc::clone(&shared));
    let (mut round, mut used) = (interval(ROUND), Instant::now());
    let why = loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            _ = round.tick() => {
                if open.iter().any(Open::is_answering) {
                    used = Instant::now();
                }
                let has_decoded = shared.queue.metrics.prompt_tokens.load(Ordering::Relaxed) > 0;
                match should_end(ServerUse { has_decoded, idle: used.elapsed() }) {
                    None if !shared.queue.is_closed() => continue,
                    why => break why,
                }
            }
        };
        let Some(socket) = socket else {
            // As when there are no more file descriptors: some will be free again.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        used = Instant::now();
        tokio::select! {
            () = make_room(&mut open, most) => {}
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
        }
        let activity = Activity::default();
        let service = router.clone().layer(Extension(activity.clone()));
        let connection = protocol().serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
        let (connection, counted) = (graceful.watch(connection), Counted::new(&shared));
        let task = tokio::spawn(async move {
            // A client's fault is no event of the server's.
            _ = connection.await;
            drop(counted);
        });
        open.push(Open { activity, task: task.abort_handle() });
    };
    drop(listener);
    shared.queue.close();
    tokio::select! {
        ended = timeout(GRACE, graceful.shutdown()) => ended.map(|()| why).map_err(|_| Unfinished),
        _ = interrupt.recv() => Err(Unfinished),
        _ = terminate.recv() => Err(Unfinished),
    }
}

/// Refuses requests with `state` until the model is there; `None`: it never will be.
async fn refuse(
    listener: &Listening,
    state: &Mutex<String>,
    mut started: oneshot::Receiver<Started>,
) -> Option<Started> {
    loop {
        let socket = tokio::select! {
            // Who learns that the model is there is not refused any more.
            biased;
            started = &mut started => return started.ok(),
            accepted = listener.accept() => accepted,
        };
        let Some(socket) = socket else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let router = http::starting(&state.lock().unwrap_or_else(PoisonError::into_inner));
        let connection = protocol().serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
        tokio::spawn(timeout(HEAD_TIME, connection));
    }
}

fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES);
    protocol
}

/// Where clients connect.
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    /// The next connection; `None` where there can be none now.
    async fn accept(&self) -> Option<Impatient> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await.ok()?;
                // A chunk is a few bytes, and is wanted at once.
                _ = socket.set_nodelay(true);
                Some(Impatient::new(socket))
            }
            Self::Unix(listener) => Some(Impatient::new(listener.accept().await.ok()?.0)),
        }
    }
}

/// Each connection is a file descriptor, and many systems give a process 1024 unless it asks for more.
fn connection_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = (MOST_CONNECTIONS + OWN_DESCRIPTORS) as u64;
    let wanted = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let current = limit.current.unwrap_or(wanted);
    let raised = current < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).is_ok();
    let descriptors = if raised { wanted } else { current };
    (descriptors as usize).saturating_sub(OWN_DESCRIPTORS).clamp(1, MOST_CONNECTIONS)
}

/// An open connection.
struct Open {
    activity: Activity,
    task: AbortHandle,
}

impl Open {
    fn is_answering(&self) -> bool {
        self.activity.idle_since().is_none()
    }
}

/// Waits until one more connection has room. Of those that have sent no whole request the one that was idle longest is
/// closed: they cannot keep others out.
async fn make_room(open: &mut Vec<Open>, most: usize) {
    while open.len() >= most {
        open.retain(|connection| !connection.task.is_finished());
        let idle =
            open.iter().enumerate().filter_map(|(index, connection)| Some((connection.activity.idle_since()?, index)));
        match idle.min().filter(|_| open.len() >= most) {
            Some((_, index)) => open.swap_remove(index).task.abort(),
            None if open.len() >= most => sleep(Duration::from_millis(10)).await,
            None => {}
        }
    }
}

/// A connection as it is counted.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.queue.metrics.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.queue.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A socket whose writes fail once the client has taken nothing for [`WRITE_TIME`].
struct Impatient {
    socket: Box<dyn Socket>,
    /// Since when a write has waited.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(socket: impl Socket + 'static) -> Self {
        Self { socket: Box::new(socket), patience: None }
    }

    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut dyn Socket>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = write(Pin::new(&mut *self.socket), context) {
            self.patience = None;
            return Poll::Ready(written);
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(WRITE_TIME)));
        ready!(patience.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, to)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.written(context, |socket, context| socket.poll_write(context, from))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(context, |socket, context| socket.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(context, |socket, context| socket.poll_shutdown(context))
    }
}
