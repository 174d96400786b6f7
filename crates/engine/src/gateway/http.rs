//! The addresses of the gateway: the key of a request names its conversation.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::MODEL_NAME;
use super::hub::Hub;
use super::seat::Seat;
use crate::generation::{GENERATE, answer, body, refusal};
use crate::openai::{Api, ApiError};

pub(super) fn router(hub: Arc<Hub>) -> Router {
    let not_found = || ApiError::new(404, "invalid_request_error", Some("not_found"), NO_ADDRESS);
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/responses", post(responses))
        .route(GENERATE, post(tokens))
        .route("/v1/models", get(models))
        .fallback(async move || refusal(&not_found()))
        .with_state(hub)
}

const NO_ADDRESS: &str = "no such address; there are /v1/chat/completions, /v1/completions, /v1/responses, /inference/v1/generate and /v1/models";

async fn chat(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    answered(&hub, request, Api::Chat).await
}

async fn completions(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    answered(&hub, request, Api::Completions).await
}

async fn responses(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    answered(&hub, request, Api::Responses).await
}

async fn tokens(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    answered(&hub, request, Api::Generate).await
}

async fn answered(hub: &Hub, request: Request, api: Api) -> Response {
    let seat = match seat_of(hub, request.headers()) {
        Ok(seat) => seat,
        Err(error) => return refusal(&error),
    };
    let (body, is_whole) = match body(request).await {
        Ok((body, _)) => (Ok(body), true),
        Err(error) => (Err(error), false),
    };
    let outcome = match body {
        Ok(body) => Arc::clone(&seat).answer(api, body).await,
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| {
        seat.count_refusal(&error);
        let mut response = refusal(&error);
        if !is_whole {
            // Unread bytes of the body would be taken for the next request.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    })
}

async fn models(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    match seat_of(&hub, request.headers()) {
        Ok(seat) => {
            let data = [
                json!({"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "grpo-tui", "max_model_len": seat.max_model_len()}),
            ];
            answer(200, &json!({"object": "list", "data": data}))
        }
        Err(error) => refusal(&error),
    }
}

fn seat_of(hub: &Hub, headers: &HeaderMap) -> Result<Arc<Seat>, ApiError> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let key = given
        .and_then(|value| value.split_once(' '))
        .map(|(_, key)| key.trim());
    let refused = || {
        let message = "the API key names no conversation: send the value of OPENAI_API_KEY";
        ApiError::new(
            401,
            "authentication_error",
            Some("invalid_api_key"),
            message,
        )
    };
    key.and_then(|key| hub.seat(key)).ok_or_else(refused)
}
