//! Addresses, keys and bodies: every answer is JSON in OpenAI's shape, but for the metrics.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::activity::Activity;
use super::generation::{generate, token_ids};
use super::responses::{answer, busy, refusal, with_type};
use super::{ApiKey, Shared};
use crate::openai::{Api, ApiError, TokenizeRequest};

/// Bytes of a body: a prompt of a million tokens.
const BODY_BYTES: usize = 4 << 20;
/// Bytes of a too large body that are read before the connection is closed.
const READ_BYTES: usize = 64 << 20;
/// Bytes of a body that needs no permit: large bodies never keep out small ones.
const SMALL_BODY_BYTES: usize = 64 << 10;
/// KiB that all large bodies may take; a request that finds none left is refused.
static BODY_ROOM: Semaphore = Semaphore::const_new(256 << 10);
/// For a body to come.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Between two pieces of a body.
const PIECE_TIME: Duration = Duration::from_secs(10);

/// vLLM's API of token ids.
pub(super) const GENERATE: &str = "/inference/v1/generate";

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/responses", post(responses))
        .route(GENERATE, post(tokens))
        .route("/tokenize", post(tokenize))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route(
            "/health",
            get(async || answer(200, &json!({"status": "ok"}))),
        )
        .route("/metrics", get(metrics))
        .fallback(async || {
            refusal(&ApiError::new(
                404,
                "invalid_request_error",
                Some("not_found"),
                NO_ADDRESS,
            ))
        })
        .method_not_allowed_fallback(async || {
            refusal(&ApiError::new(
                405,
                "invalid_request_error",
                None,
                NO_METHOD,
            ))
        })
        .layer(from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

const NO_ADDRESS: &str = "no such address; there are /v1/chat/completions, /v1/completions, /v1/responses, /inference/v1/generate, /v1/models, /tokenize, /health and /metrics";
const NO_METHOD: &str =
    "this address does not take the method: completions take POST, all else GET";

/// Checks who asks, and counts the answer.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let origin = request
        .headers()
        .get(header::ORIGIN)
        .filter(|origin| shared.origins.iter().any(|known| *known == **origin))
        .cloned();
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if let (Some(origin), true) = (&origin, is_preflight) {
        return preflight(origin, request.headers());
    }
    let refused = match &shared.key {
        // Whether the server is alive is not a secret.
        _ if request.uri().path() == "/health" => Ok(()),
        Some(key) => authorized(key, request.headers()),
        None if shared.is_local => local(request.headers(), origin.is_some()),
        None => Ok(()),
    };
    let mut response = match refused {
        Ok(()) => next.run(request).await,
        Err(error) => refusal(&error),
    };
    if let Some(origin) = &origin {
        allow(&mut response, origin);
    }
    shared
        .queue
        .metrics
        .count_answer(response.status().as_u16());
    response
}

/// A browser may give the answer to pages of this origin.
fn allow(response: &mut Response, origin: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("retry-after"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
}

/// A browser's question before it sends a page's request, without a key.
fn preflight(origin: &HeaderValue, asked: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow(&mut response, origin);
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST"),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("600"),
    );
    // Clients send headers of their own, which have no effect.
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

fn authorized(key: &ApiKey, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    // The name of a scheme is written in any case.
    let bearer = |value: &str| {
        let (scheme, key) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| key.trim_start().to_owned())
    };
    match given.and_then(bearer).as_deref() {
        Some(given) if key.is(given) => Ok(()),
        Some(_) => Err(ApiError::new(
            401,
            "authentication_error",
            Some("invalid_api_key"),
            "the API key is wrong",
        )),
        None => {
            let message = "an API key is needed: send the header `Authorization: Bearer KEY`";
            Err(ApiError::new(
                401,
                "authentication_error",
                Some("invalid_api_key"),
                message,
            ))
        }
    }
}

/// Without a key a browser must not be led here by another site, whose name is then in the request. `is_named`: the site is
/// one that may.
fn local(headers: &HeaderMap, is_named: bool) -> Result<(), ApiError> {
    let is_local = |host: &str| {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        name == "localhost"
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    };
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or("?"))
    };
    let origin = text(header::ORIGIN).map(|origin| origin.split("://").last().unwrap_or_default());
    match [text(header::HOST), origin.filter(|_| !is_named)]
        .into_iter()
        .flatten()
        .all(is_local)
    {
        true => Ok(()),
        false => {
            let message = "the request is not for this machine: it names another host; start the server with a key to serve others, or with --cors-origin for pages of a site";
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

async fn responses(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    answered(shared, request, Api::Responses).await
}

async fn tokens(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    answered(shared, request, Api::Generate).await
}

/// The token ids of a text or of a chat, in vLLM's form.
async fn tokenize(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let read = async {
        let (body, _room) = body(request).await?;
        let asked = TokenizeRequest::parse(&body)?;
        if let Some(model) = &asked.model {
            shared.adapter_of(model)?;
        }
        let tokens = token_ids(&shared, &asked)?;
        let mut whole = json!({"count": tokens.len(), "max_model_len": shared.positions});
        if asked.token_texts {
            let text = |id: &u32| shared.tokenizer.token(*id);
            whole["token_strs"] = tokens.iter().map(text).collect();
        }
        whole["tokens"] = tokens.into();
        Ok(whole)
    };
    match read.await {
        Ok(whole) => answer(200, &whole),
        Err(error) => refusal(&error),
    }
}

async fn answered(shared: Arc<Shared>, request: Request, api: Api) -> Response {
    let activity = Activity::for_request(&request);
    match body(request).await {
        Ok((body, room)) => {
            let answering = activity.answering();
            answering.with(
                generate(shared, api, body, room)
                    .await
                    .unwrap_or_else(|error| refusal(&error)),
            )
        }
        Err(error) => {
            let mut response = refusal(&error);
            // Unread bytes of the body would be taken for the next request.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

fn too_large() -> ApiError {
    let message = format!("the body is larger than {} MiB", BODY_BYTES >> 20);
    ApiError::new(
        413,
        "invalid_request_error",
        Some("request_too_large"),
        message,
    )
}

/// The body, and the room that it takes.
pub(super) async fn body(request: Request) -> Result<(Bytes, SemaphorePermit<'static>), ApiError> {
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        let message = "the body is JSON: send the header `Content-Type: application/json`";
        return Err(ApiError::new(415, "invalid_request_error", None, message));
    }
    // A client that waits for permission to send need not.
    let waits = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    if waits && body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let too_slow = |_| {
        ApiError::new(
            408,
            "invalid_request_error",
            None,
            "the body took too long to come",
        )
    };
    tokio::time::timeout(BODY_TIME, collect(body))
        .await
        .unwrap_or_else(|late| Err(too_slow(late)))
}

/// The body with room for what has come of it, not for what was announced. One that is refused is read on for a while: a
/// client that still writes would not see the answer.
async fn collect(mut body: Body) -> Result<(Bytes, SemaphorePermit<'static>), ApiError> {
    let no_room = |_| busy("too many large requests");
    let (mut bytes, mut seen, mut refused) = (Vec::new(), 0, None);
    let mut room = BODY_ROOM.try_acquire_many(0).map_err(no_room)?;
    loop {
        let piece = tokio::time::timeout(
            PIECE_TIME,
            poll_fn(|context| Pin::new(&mut body).poll_frame(context)),
        )
        .await;
        let frame = match piece {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                let message =
                    "the body broke off, or its chunks are malformed; send the request again";
                return Err(ApiError::invalid("", message));
            }
            Err(_) => {
                return Err(ApiError::new(
                    408,
                    "invalid_request_error",
                    None,
                    "the body stopped coming",
                ));
            }
        };
        let Some(data) = frame.data_ref() else {
            continue;
        };
        seen += data.len();
        let needed = seen.saturating_sub(SMALL_BODY_BYTES).div_ceil(1 << 10);
        if seen > BODY_BYTES {
            refused.get_or_insert_with(too_large);
        } else if let Some(more) = needed
            .checked_sub(room.num_permits())
            .filter(|more| *more > 0)
        {
            match BODY_ROOM.try_acquire_many(more as u32) {
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

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let data: Vec<Json> = shared.names().map(|name| listed(&shared, name)).collect();
    answer(200, &json!({"object": "list", "data": data}))
}

async fn model(
    State(shared): State<Arc<Shared>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Response {
    match shared.adapter_of(&name) {
        Ok(_) => answer(200, &listed(&shared, &name)),
        Err(error) => refusal(&error),
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
    with_type(
        200,
        "text/plain; version=0.0.4; charset=utf-8",
        Body::from(text),
    )
}

impl Shared {
    /// Names of all models that a request can ask for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// The adapter of a model by the name that a request has.
    pub(super) fn adapter_of(&self, name: &str) -> Result<Option<u32>, ApiError> {
        let first = self
            .names
            .first()
            .filter(|_| self.alias.as_deref() == Some(name));
        let named = self.names.iter().find(|(known, _)| known == name);
        let (_, adapter) = named.or(first).ok_or_else(|| self.no_model(name))?;
        Ok(*adapter)
    }

    pub(super) fn no_model(&self, name: &str) -> ApiError {
        let known = self
            .names()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let name: String = name.chars().take(100).collect();
        let message = format!("no model `{name}` is served; there is {known}");
        ApiError {
            parameter: Some("model".to_owned()),
            ..ApiError::new(
                404,
                "invalid_request_error",
                Some("model_not_found"),
                message,
            )
        }
    }
}
