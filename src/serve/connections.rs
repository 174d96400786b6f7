//! Connections: at most so many, none that stands still for long, and the end of the server, which lets answers be
//! completed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep, timeout};

use super::{Shared, http};

/// Open connections at most; more wait in the system's queue.
const MOST_CONNECTIONS: usize = 4096;
/// For a request's head.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Of a request line and headers.
const HEAD_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long is dropped.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// For what was begun when the server was told to stop.
const GRACE: Duration = Duration::from_secs(60);

/// Clients did not end in time, or a second signal came.
#[derive(Debug)]
pub(super) struct Unfinished;

/// Serves until a signal, then until all answers are complete.
pub(super) async fn listen(listener: std::net::TcpListener, shared: Arc<Shared>) -> Result<(), Unfinished> {
    let (Ok(listener), Ok(mut interrupt), Ok(mut terminate)) =
        (TcpListener::from_std(listener), signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return Err(Unfinished);
    };
    raise_descriptor_limit();
    let (graceful, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(MOST_CONNECTIONS)));
    let router = http::router(Arc::clone(&shared));
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (socket, place) = tokio::select! {
            accepted = accepted => accepted,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        let Ok((socket, _)) = socket else {
            // As when there are no more file descriptors: some will be free again.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A chunk is a few bytes, and is wanted at once.
        _ = socket.set_nodelay(true);
        let mut protocol = hyper::server::conn::http1::Builder::new();
        protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES);
        let service = TowerToHyperService::new(router.clone());
        let connection = protocol.serve_connection(TokioIo::new(Impatient::new(socket)), service);
        let (connection, counted) = (graceful.watch(connection), Arc::clone(&shared));
        counted.queue.metrics.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // A client's fault is no event of the server's.
            _ = connection.await;
            counted.queue.metrics.connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(listener);
    shared.queue.close();
    tokio::select! {
        ended = timeout(GRACE, graceful.shutdown()) => ended.map_err(|_| Unfinished),
        _ = interrupt.recv() => Err(Unfinished),
        _ = terminate.recv() => Err(Unfinished),
    }
}

/// Each connection is a file descriptor, and many systems give a process 1024 unless it asks for more.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(2 * MOST_CONNECTIONS as u64, |most| most.min(2 * MOST_CONNECTIONS as u64));
    if limit.current.is_some_and(|current| current < wanted) {
        // With fewer the rest of the clients wait.
        _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

/// A socket whose writes fail once the client has taken nothing for [`WRITE_TIME`].
struct Impatient {
    socket: TcpStream,
    /// Since when a write has waited.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(socket: TcpStream) -> Self {
        Self { socket, patience: None }
    }

    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = write(Pin::new(&mut self.socket), context) {
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
