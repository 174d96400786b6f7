//! Tracks idle connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http_body_util::BodyExt;

/// Whether a connection's client waits for an answer; idle connections may be closed for new ones.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<ActivityState>);

#[derive(Debug)]
struct ActivityState {
    answering: AtomicUsize,
    /// Milliseconds between the first connection and this one's opening or last answer.
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

    /// Activity of the request's connection.
    pub(super) fn for_request(request: &Request) -> Self {
        let known = request.extensions().get::<Self>();
        known.cloned().unwrap_or_default()
    }

    /// Busy from a complete request until its answer was sent.
    pub(super) fn answering(&self) -> ActiveAnswer {
        self.0.answering.fetch_add(1, Ordering::Relaxed);
        ActiveAnswer(self.clone())
    }
}

#[derive(Debug)]
pub(super) struct ActiveAnswer(Activity);

impl ActiveAnswer {
    /// Keeps the connection busy until the body was sent.
    pub(super) fn with(self, response: Response) -> Response {
        // Dropped with the body.
        response.map(|body| Body::new(body.inspect_err(move |_| _ = &self)))
    }
}

impl Drop for ActiveAnswer {
    fn drop(&mut self) {
        let Activity(state) = &self.0;
        state.since.store(milliseconds(), Ordering::Relaxed);
        state.answering.fetch_sub(1, Ordering::Relaxed);
    }
}
