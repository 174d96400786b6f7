//! Whether a connection's client waits for an answer: an idle connection may be closed for another.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

/// Whether a connection's client waits for an answer; an idle connection may be closed for another.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<ActivityState>);

#[derive(Debug)]
struct ActivityState {
    answering: AtomicUsize,
    /// Milliseconds from the first connection until it was opened or had its last answer.
    since: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(ActivityState {
            answering: AtomicUsize::new(0),
            since: AtomicU64::new(milliseconds()),
        }))
    }
}

fn milliseconds() -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    FIRST.elapsed().as_millis() as u64
}

impl Activity {
    pub(super) fn idle_since(&self) -> Option<u64> {
        let is_idle = self.0.answering.load(Ordering::Relaxed) == 0;
        is_idle.then(|| self.0.since.load(Ordering::Relaxed))
    }

    /// The activity of the connection that brought the request.
    pub(super) fn for_request(request: &Request) -> Self {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .unwrap_or_default()
    }

    /// A whole request has come: until its answer was sent.
    pub(super) fn answering(&self) -> ActiveAnswer {
        self.0.answering.fetch_add(1, Ordering::Relaxed);
        ActiveAnswer(self.clone())
    }
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct ActiveAnswer(Activity);

impl ActiveAnswer {
    /// Until the body was sent.
    pub(super) fn with(self, response: Response) -> Response {
        response.map(|body| {
            Body::new(ActiveAnswerBody {
                body,
                _answering: self,
            })
        })
    }
}

impl Drop for ActiveAnswer {
    fn drop(&mut self) {
        let Activity(state) = &self.0;
        state.since.store(milliseconds(), Ordering::Relaxed);
        state.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

struct ActiveAnswerBody {
    body: Body,
    _answering: ActiveAnswer,
}

impl HttpBody for ActiveAnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
