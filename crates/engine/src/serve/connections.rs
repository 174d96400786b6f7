//! Connections: limits, time-outs, idle ones closed for new ones, and graceful shutdown.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Sleep, interval, sleep, timeout};

use super::activity::Activity;
use super::{Shared, http};
use crate::run::stop_signals;

/// Open connections, if the system allows; beyond, the longest idle one is closed.
const MAX_CONNECTIONS: usize = 4096;
/// Descriptors reserved for other uses.
const OWN_DESCRIPTORS: usize = 64;
/// Time for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Size of a request line with headers.
const HEAD_BYTES: usize = 64 << 10;
/// A client that reads nothing for this long is dropped.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Time for running requests at shutdown.
const GRACE: Duration = Duration::from_secs(60);

/// Interval of checks for shutdown.
const ROUND: Duration = Duration::from_millis(250);

/// Clients did not end in time, or a second signal came.
#[derive(Debug)]
pub(super) struct ForcedShutdown;

/// Serves until a signal, or `should_end` of the time since the last request, then completes all
/// answers.
pub(super) async fn listen(
    listener: Listener,
    shared: Arc<Shared>,
    should_end: impl Fn(Duration) -> bool,
) -> Result<(), ForcedShutdown> {
    // Asked before the others are handled.
    let kinds = stop_signals();
    let signal = |kind| signal(kind).map_err(|_| ForcedShutdown);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let others = Arc::new(Notify::new());
    for kind in kinds.into_iter().map(SignalKind::from_raw) {
        if ![SignalKind::interrupt(), SignalKind::terminate()].contains(&kind) {
            let (mut received, others) = (signal(kind)?, Arc::clone(&others));
            tokio::spawn(async move {
                while received.recv().await.is_some() {
                    others.notify_one();
                }
            });
        }
    }
    let most = connection_limit();
    let (graceful, mut open) = (GracefulShutdown::new(), Vec::new());
    let router = http::router(Arc::clone(&shared));
    let (mut round, mut used) = (interval(ROUND), Instant::now());
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = others.notified() => break,
            _ = round.tick() => {
                if open.iter().any(|open: &OpenConnection| open.activity.idle_since().is_none()) {
                    used = Instant::now();
                }
                if should_end(used.elapsed()) { break } else { continue }
            }
        };
        let Ok(socket) = socket else {
            // Such as exhausted file descriptors: retry later.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        used = Instant::now();
        tokio::select! {
            () = make_room(&mut open, most) => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = others.notified() => break,
        }
        let mut protocol = hyper::server::conn::http1::Builder::new();
        protocol
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_BYTES);
        let activity = Activity::default();
        let service = router.clone().layer(Extension(activity.clone()));
        let connection =
            protocol.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
        let (connection, counted) = (graceful.watch(connection), ConnectionCount::new(&shared));
        let task = tokio::spawn(async move {
            // A client's fault is not the server's.
            _ = connection.await;
            drop(counted);
        });
        open.push(OpenConnection {
            activity,
            task: task.abort_handle(),
        });
    }
    drop(listener);
    shared.queue.close();
    tokio::select! {
        ended = timeout(GRACE, graceful.shutdown()) => ended.map_err(|_| ForcedShutdown),
        _ = interrupt.recv() => Err(ForcedShutdown),
        _ = terminate.recv() => Err(ForcedShutdown),
    }
}

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<TimedWrites> {
        let socket: Box<dyn Socket> = match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                // Chunks are small and wanted at once.
                _ = socket.set_nodelay(true);
                Box::new(socket)
            }
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        };
        Ok(TimedWrites {
            socket,
            patience: None,
        })
    }
}

/// Raises the descriptor limit, often 1024, since each connection needs one.
fn connection_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = (MAX_CONNECTIONS + OWN_DESCRIPTORS) as u64;
    let wanted = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let current = limit.current.unwrap_or(wanted);
    let raised = Rlimit {
        current: Some(wanted),
        ..limit
    };
    let is_raised = current < wanted && setrlimit(Resource::Nofile, raised).is_ok();
    let descriptors = if is_raised { wanted } else { current } as usize;
    let left = descriptors.saturating_sub(OWN_DESCRIPTORS);
    left.clamp(1, MAX_CONNECTIONS)
}

struct OpenConnection {
    activity: Activity,
    task: AbortHandle,
}

/// Waits for room for a connection. Closes the longest idle among those without a complete request,
/// so that they cannot block others.
async fn make_room(open: &mut Vec<OpenConnection>, most: usize) {
    while open.len() >= most {
        open.retain(|connection| !connection.task.is_finished());
        let all = open.iter().enumerate();
        let idle = all.filter_map(|(index, one)| Some((one.activity.idle_since()?, index)));
        match idle.min().filter(|_| open.len() >= most) {
            Some((_, index)) => open.swap_remove(index).task.abort(),
            None if open.len() >= most => sleep(Duration::from_millis(10)).await,
            None => {}
        }
    }
}

/// Counts a connection.
struct ConnectionCount(Arc<Shared>);

impl ConnectionCount {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A socket whose writes fail once the client reads nothing for [`WRITE_TIME`].
struct TimedWrites {
    socket: Box<dyn Socket>,
    /// Set while a write waits.
    patience: Option<Pin<Box<Sleep>>>,
}

impl TimedWrites {
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut dyn Socket>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = write(Pin::new(&mut *self.socket), context) {
            self.patience = None;
            return Poll::Ready(written);
        }
        let begin = || Box::pin(sleep(WRITE_TIME));
        let patience = self.patience.get_or_insert_with(begin);
        ready!(patience.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for TimedWrites {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, to)
    }
}

impl AsyncWrite for TimedWrites {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written(context, |socket, context| socket.poll_write(context, from))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(context, |socket, context| socket.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(context, |socket, context| socket.poll_shutdown(context))
    }
}
