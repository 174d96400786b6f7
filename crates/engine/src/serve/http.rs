//! Routes and keys: every answer is JSON in OpenAI's form, except metrics.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value as Json, json};

use super::activity::Activity;
use super::generate::generate;
use super::{ApiKey, Shared};
use crate::generation::{
    GENERATION_ADDRESSES, answer, body, no_model, prompts, refusal, refusal_of_body, with_type,
};
use crate::openai::{Api, ApiError, TokenizeRequest};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let kind = "invalid_request_error";
    let no_address = move || ApiError::new(404, kind, Some("not_found"), NO_ADDRESS);
    let no_method = move || ApiError::new(405, kind, None, NO_METHOD);
    let healthy = async || answer(200, &json!({"status": "ok"}));
    let mut router = Router::new()
        .route("/tokenize", post(tokenize))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/health", get(healthy))
        .route("/metrics", get(metrics));
    for (address, api) in GENERATION_ADDRESSES {
        let answer = move |shared, request| answered(shared, request, api);
        router = router.route(address, post(answer));
    }
    router
        .fallback(async move || refusal(&no_address()))
        // Applies to the routes so far.
        .method_not_allowed_fallback(async move || refusal(&no_method()))
        .layer(from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

const NO_ADDRESS: &str = "no such address; there are /v1/chat/completions, /v1/completions, /v1/responses, /v1/models, /tokenize, /health and /metrics";
const NO_METHOD: &str =
    "this address does not take the method: completions take POST, all else GET";

/// Checks access, and counts the answer.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_known = |origin: &&HeaderValue| shared.origins.iter().any(|known| *known == **origin);
    let origin = headers.get(header::ORIGIN).filter(is_known).cloned();
    let is_preflight = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if let (Some(origin), true) = (&origin, is_preflight) {
        return preflight(origin, headers);
    }
    let refused = match &shared.key {
        // Liveness is public.
        _ if request.uri().path() == "/health" => Ok(()),
        Some(key) => authorized(key, headers),
        None if shared.is_local => local(headers, origin.is_some()),
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

/// Allows pages of this origin to read the answer.
fn allow(response: &mut Response, origin: &HeaderValue) {
    let text = HeaderValue::from_static;
    response.headers_mut().extend([
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, text("retry-after")),
        (header::VARY, text("origin")),
    ]);
}

/// CORS preflight, which has no key.
fn preflight(origin: &HeaderValue, asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    allow(&mut response, origin);
    let (headers, text) = (response.headers_mut(), HeaderValue::from_static);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, text("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, text("600"));
    // Clients send their own headers, which have no effect.
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

fn authorized(key: &ApiKey, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.split_once(' '));
    // Scheme names are case-insensitive.
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let message = match given {
        Some((_, given)) if key.is(given.trim_start()) => return Ok(()),
        Some(_) => "the API key is wrong",
        None => "an API key is needed: send the header `Authorization: Bearer KEY`",
    };
    let (kind, code) = ("authentication_error", Some("invalid_api_key"));
    Err(ApiError::new(401, kind, code, message))
}

/// Without a key, rejects requests that another site made through a browser, recognised by their
/// headers. `is_named`: the site is allowed.
fn local(headers: &HeaderMap, is_named: bool) -> Result<(), ApiError> {
    let is_local = |host: &str| {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => host.split(':').next(),
        };
        let name = name.unwrap_or_default();
        let address = name.parse::<std::net::IpAddr>();
        name == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").to_owned();
    let host = headers.get(header::HOST).map(text);
    let origin = headers.get(header::ORIGIN).map(text);
    let site = origin.filter(|_| !is_named);
    let site = site.map(|origin| origin.split("://").last().unwrap_or_default().to_owned());
    if host.iter().chain(&site).all(|name| is_local(name)) {
        return Ok(());
    }
    let message = "the request is not for this machine: it names another host; start the server with a key to serve others, or with --cors-origin for pages of a site";
    Err(ApiError::new(403, "permission_error", None, message))
}

/// Token ids of a text or chat, in vLLM's form.
async fn tokenize(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let read = async {
        let (body, _room) = body(request).await?;
        let asked = TokenizeRequest::parse(&body)?;
        if let Some(model) = &asked.model {
            shared.adapter_of(model)?;
        }
        let add_special = asked.add_special_tokens;
        let prompts = prompts(&shared.model, &asked.prompt, add_special, &|| Ok(()))?;
        let (tokens, _) = prompts.into_iter().next().unwrap_or_default();
        let mut whole = json!({"count": tokens.len(), "max_model_len": shared.model.positions});
        if asked.token_texts {
            let text = |id: &u32| shared.model.tokenizer.token(*id);
            whole["token_strs"] = tokens.iter().map(text).collect();
        }
        whole["tokens"] = tokens.into();
        Ok(answer(200, &whole))
    };
    read.await.unwrap_or_else(|error| refusal(&error))
}

async fn answered(shared: State<Arc<Shared>>, request: Request, api: Api) -> Response {
    let activity = Activity::for_request(&request);
    match body(request).await {
        Ok((body, room)) => {
            let answering = activity.answering();
            let answer = generate(shared.0, api, body, room).await;
            answering.with(answer.unwrap_or_else(|error| refusal(&error)))
        }
        Err(error) => refusal_of_body(&error),
    }
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let data: Vec<Json> = shared.names().map(|name| listed(&shared, name)).collect();
    answer(200, &json!({"object": "list", "data": data}))
}

async fn model(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
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
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    with_type(200, kind, Body::from(text))
}

impl Shared {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// The adapter of a requested model name.
    pub(super) fn adapter_of(&self, name: &str) -> Result<Option<u32>, ApiError> {
        let is_alias = self.alias.as_deref() == Some(name);
        let named = self.names.iter().find(|(known, _)| known == name);
        let named = named.or(self.names.first().filter(|_| is_alias));
        let (_, adapter) = named.ok_or_else(|| no_model(name, self.names()))?;
        Ok(*adapter)
    }
}
