//! Addresses, keys and bodies: every answer is JSON in OpenAI's shape, but for the metrics.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::generation::generate;
use super::responses::{answer, busy, refusal, with_type};
use super::{ApiKey, Shared};
use crate::openai::{Api, ApiError};

/// Of a body: a prompt of a million tokens.
const BODY_BYTES: usize = 4 << 20;
/// Of a body that is too large, before the connection is closed.
const READ_BYTES: usize = 64 << 20;
/// Of all bodies that are being read, in KiB; a request that finds no room is refused.
static BODY_ROOM: Semaphore = Semaphore::const_new(256 << 10);
/// For a body to come.
const BODY_TIME: Duration = Duration::from_secs(30);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/health", get(async || answer(200, &json!({"status": "ok"}))))
        .route("/metrics", get(metrics))
        .fallback(async || refusal(&ApiError::new(404, "invalid_request_error", Some("not_found"), NO_ADDRESS)))
        .method_not_allowed_fallback(async || refusal(&ApiError::new(405, "invalid_request_error", None, NO_METHOD)))
        .layer(from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

const NO_ADDRESS: &str =
    "no such address; there are /v1/chat/completions, /v1/completions, /v1/models, /health and /metrics";
const NO_METHOD: &str = "this address does not take the method: completions take POST, all else GET";

/// Checks who asks, and counts the answer.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let refused = match &shared.key {
        // Whether the server is alive is no secret.
        _ if request.uri().path() == "/health" => Ok(()),
        Some(key) => authorized(key, request.headers()),
        None if shared.is_loopback => local(request.headers()),
        None => Ok(()),
    };
    let response = match refused {
        Ok(()) => next.run(request).await,
        Err(error) => refusal(&error),
    };
    shared.queue.metrics.count_answer(response.status().as_u16());
    response
}

fn authorized(key: &ApiKey, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(given) if key.is(given) => Ok(()),
        Some(_) => Err(ApiError::new(401, "authentication_error", Some("invalid_api_key"), "the API key is wrong")),
        None => {
            let message = "an API key is needed: send the header `Authorization: Bearer KEY`";
            Err(ApiError::new(401, "authentication_error", Some("invalid_api_key"), message))
        }
    }
}

/// Without a key a browser must not be led here by another site, whose name is then in the request.
fn local(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_local = |host: &str| {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let origin = text(header::ORIGIN).map(|origin| origin.split("://").last().unwrap_or_default());
    match [text(header::HOST), origin].into_iter().flatten().all(is_local) {
        true => Ok(()),
        false => {
            let message = "the request is not for this machine: it names another host; start the server with a key to serve others";
            Err(ApiError::new(403, "permission_error", None, message))
        }
    }
}

async fn chat(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    answered(shared, request, Api::Chat).await
}

async fn completions(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    answered(shared, request, Api::Completions).await
}

async fn answered(shared: Arc<Shared>, request: Request, api: Api) -> Response {
    match body(request).await {
        Ok((body, room)) => generate(shared, api, body, room).await.unwrap_or_else(|error| refusal(&error)),
        Err(error) => refusal(&error),
    }
}

/// The body, and the room that it takes.
async fn body(request: Request) -> Result<(Bytes, SemaphorePermit<'static>), ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {} MiB", BODY_BYTES >> 20);
        ApiError::new(413, "invalid_request_error", Some("request_too_large"), message)
    };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let message = "the body is JSON: send the header `Content-Type: application/json`";
        return Err(ApiError::new(415, "invalid_request_error", None, message));
    }
    // Who waits to be told whether to send it need not.
    let waits = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    let hint = body.size_hint();
    if waits && hint.lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let bytes = hint.upper().map_or(BODY_BYTES, |upper| (upper as usize).min(BODY_BYTES));
    let room = BODY_ROOM.try_acquire_many((bytes >> 10) as u32 + 1).map_err(|_| busy("too many large requests"))?;
    match tokio::time::timeout(BODY_TIME, collect(body)).await {
        Ok(Some(bytes)) => Ok((bytes, room)),
        Ok(None) => Err(too_large()),
        Err(_) => Err(ApiError::new(408, "invalid_request_error", None, "the body took too long to come")),
    }
}

/// The body; `None` for one that is too large, which is read on for a while: a client that still writes would not see
/// the answer.
async fn collect(mut body: Body) -> Option<Bytes> {
    let (mut bytes, mut seen) = (Vec::new(), 0);
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Some(data) = frame.data_ref() else { continue };
        seen += data.len();
        if seen <= BODY_BYTES {
            bytes.extend_from_slice(data);
        } else {
            bytes = Vec::new();
        }
        if seen > READ_BYTES {
            break;
        }
    }
    (seen <= BODY_BYTES).then(|| bytes.into())
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let data: Vec<Json> = shared.names().map(|name| listed(&shared, name)).collect();
    answer(200, &json!({"object": "list", "data": data}))
}

async fn model(State(shared): State<Arc<Shared>>, axum::extract::Path(name): axum::extract::Path<String>) -> Response {
    match shared.names().find(|known| *known == name) {
        Some(name) => answer(200, &listed(&shared, name)),
        None => refusal(&shared.no_model(&name)),
    }
}

fn listed(shared: &Shared, name: &str) -> Json {
    json!({
        "id": name, "object": "model", "created": shared.started, "owned_by": "grpo-tui", "root": shared.names.first().map(|(name, _)| name),
        "max_model_len": shared.positions,
    })
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.queue.metrics.text(shared.queue.waiting());
    with_type(200, "text/plain; version=0.0.4; charset=utf-8", Body::from(text))
}

impl Shared {
    /// Of all models that can be asked for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn no_model(&self, name: &str) -> ApiError {
        let known = self.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let name: String = name.chars().take(100).collect();
        let message = format!("no model `{name}` is served; there is {known}");
        ApiError {
            parameter: Some("model".to_owned()),
            ..ApiError::new(404, "invalid_request_error", Some("model_not_found"), message)
        }
    }
}
