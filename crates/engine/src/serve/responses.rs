//! Answers and refusals: JSON in OpenAI's shape.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::Value as Json;

use crate::openai::ApiError;

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// To be tried again in a second.
pub(super) fn busy(why: &str) -> ApiError {
    let message = format!("{why}; try again soon");
    ApiError {
        retry_seconds: Some(1),
        ..ApiError::new(
            429,
            "rate_limit_error",
            Some("rate_limit_exceeded"),
            message,
        )
    }
}

pub(super) fn refusal(error: &ApiError) -> Response {
    let mut response = answer(error.status, &error.json());
    if let Some(seconds) = error.retry_seconds {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(super) fn answer(status: u16, json: &Json) -> Response {
    with_type(status, "application/json", Body::from(json.to_string()))
}

pub(super) fn with_type(status: u16, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // A browser is not to guess that text from a model is a page.
    response.headers_mut().insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}
