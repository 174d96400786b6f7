//! Addresses and keys: every answer is JSON in OpenAI's shape, but for the metrics.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value as Json, json};

use super::activity::Activity;
use super::generate::generate;
use super::{ApiKey, Shared};
use crate::generation::{GENERATE, answer, body, no_model, refusal, token_ids, with_type};
use crate::openai::{Api, ApiError, TokenizeRequest};

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
    shared.metrics.count_answer(response.status().as_u16());
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
        let tokens = token_ids(&shared.model, &asked)?;
        let mut whole = json!({"count": tokens.len(), "max_model_len": shared.model.positions});
        if asked.token_texts {
            let text = |id: &u32| shared.model.tokenizer.token(*id);
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
        "max_model_len": shared.model.positions,
    })
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.metrics.text(shared.queue.waiting());
    with_type(
        200,
        "text/plain; version=0.0.4; charset=utf-8",
        Body::from(text),
    )
}

impl Shared {
    /// Names of all models that a request can ask for.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// The adapter of a model by the name that a request has.
    pub(super) fn adapter_of(&self, name: &str) -> Result<Option<u32>, ApiError> {
        let first = self
            .names
            .first()
            .filter(|_| self.alias.as_deref() == Some(name));
        let named = self.names.iter().find(|(known, _)| known == name);
        let (_, adapter) = named
            .or(first)
            .ok_or_else(|| no_model(name, self.names()))?;
        Ok(*adapter)
    }
}
