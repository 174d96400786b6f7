//! Reads request bodies, limited in size and time.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::responses::busy;
use crate::openai::ApiError;

/// A prompt of a million tokens.
const BODY_BYTES: usize = 4 << 20;
/// Bytes of an oversized body read before closing the connection.
const READ_BYTES: usize = 64 << 20;
/// Small bodies need no permit, so large ones never block them.
const SMALL_BODY_BYTES: usize = 64 << 10;
/// KiB for all large bodies; requests beyond are refused.
static BODY_ROOM: Semaphore = Semaphore::const_new(256 << 10);
/// Limit for the whole body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Limit between two pieces.
const PIECE_TIME: Duration = Duration::from_secs(10);

fn too_large() -> ApiError {
    let message = format!("the body is larger than {} MiB", BODY_BYTES >> 20);
    ApiError {
        code: Some("request_too_large"),
        ..body_error(413, &message)
    }
}

/// The body, and its permit.
pub(crate) async fn body(request: Request) -> Result<(Bytes, SemaphorePermit<'static>), ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok()?.split(';').next());
    let is_json = |kind: &str| kind.trim().eq_ignore_ascii_case("application/json");
    if !kind.is_some_and(is_json) {
        let message = "the body is JSON: send the header `Content-Type: application/json`";
        return Err(body_error(415, message));
    }
    // A client that waits for `100 Continue` can be answered at once.
    let waits = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    if waits && body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIME, collect(body)).await;
    collected.unwrap_or_else(|_| Err(body_error(408, "the body took too long to come")))
}

fn body_error(status: u16, message: &str) -> ApiError {
    ApiError::new(status, "invalid_request_error", None, message)
}

/// Reads the body, charging what arrives, not what was announced. A refused body is read on for a
/// while: a client that is still writing would not see the answer.
async fn collect(mut body: Body) -> Result<(Bytes, SemaphorePermit<'static>), ApiError> {
    let no_room = |_| busy("too many large requests");
    let (mut bytes, mut seen, mut refused) = (Vec::new(), 0, None);
    let mut room = BODY_ROOM.try_acquire_many(0).map_err(no_room)?;
    loop {
        let frame = match tokio::time::timeout(PIECE_TIME, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                let message =
                    "the body broke off, or its chunks are malformed; send the request again";
                return Err(ApiError::invalid("", message));
            }
            Err(_) => return Err(body_error(408, "the body stopped coming")),
        };
        let Some(data) = frame.data_ref() else {
            continue;
        };
        seen += data.len();
        let needed = seen.saturating_sub(SMALL_BODY_BYTES).div_ceil(1 << 10);
        if seen > BODY_BYTES {
            refused.get_or_insert_with(too_large);
        } else if needed > room.num_permits() {
            match BODY_ROOM.try_acquire_many((needed - room.num_permits()) as u32) {
                Ok(more) => room.merge(more),
                Err(full) => _ = refused.get_or_insert(no_room(full)),
            }
        }
        if refused.is_some() {
            bytes = Vec::new();
            drop(room.split(room.num_permits()));
            if seen > READ_BYTES {
                break;
            }
        } else {
            bytes.extend_from_slice(data);
        }
    }
    refused.map_or_else(|| Ok((bytes.into(), room)), Err)
}
