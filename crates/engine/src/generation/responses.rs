//! Answers and errors as JSON in OpenAI's form.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value as Json;

use crate::openai::ApiError;

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// Retry in a second.
pub(crate) fn busy(why: &str) -> ApiError {
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

pub(crate) fn server_error(why: impl ToString) -> ApiError {
    ApiError::new(500, "server_error", None, why.to_string())
}

pub(crate) fn refusal(error: &ApiError) -> Response {
    let mut response = answer(error.status, &error.json());
    if let Some(seconds) = error.retry_seconds {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Rejection of a body: closes the connection, as unread bytes would be taken for the next request.
pub(crate) fn refusal_of_body(error: &ApiError) -> Response {
    ([(header::CONNECTION, "close")], refusal(error)).into_response()
}

pub(crate) fn answer(status: u16, json: &Json) -> Response {
    with_type(status, "application/json", Body::from(json.to_string()))
}

pub(crate) fn with_type(status: u16, kind: &'static str, body: Body) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Keeps browsers from interpreting model text as a page.
    let nosniff = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    (status, [(header::CONTENT_TYPE, kind), nosniff], body).into_response()
}

pub(crate) fn no_model<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> ApiError {
    let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    let name: String = name.chars().take(100).collect();
    let message = format!("no model `{name}` is served; there is {}", known.join(", "));
    ApiError {
        parameter: Some("model".to_owned()),
        code: Some("model_not_found"),
        ..ApiError::new(404, "invalid_request_error", None, message)
    }
}
