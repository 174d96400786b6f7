//! Routes of the gateway: a request's key identifies its conversation.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::session::Session;
use super::{MODEL_NAME, Sessions, hash};
use crate::generation::{GENERATION_ADDRESSES, answer, body, refusal, refusal_of_body};
use crate::openai::{Api, ApiError};

pub(super) fn router(sessions: Arc<Sessions>) -> Router {
    let not_found = || ApiError::new(404, "invalid_request_error", Some("not_found"), NO_ADDRESS);
    let mut router = Router::new()
        .route("/v1/models", get(models))
        .fallback(async move || refusal(&not_found()));
    for (address, api) in GENERATION_ADDRESSES {
        let answer = move |sessions, request| answered(sessions, request, api);
        router = router.route(address, post(answer));
    }
    router.with_state(sessions)
}

const NO_ADDRESS: &str = "no such address; there are /v1/chat/completions, /v1/completions, /v1/responses and /v1/models";

async fn answered(sessions: State<Arc<Sessions>>, request: Request, api: Api) -> Response {
    let session = match session_of(&sessions, request.headers()) {
        Ok(session) => session,
        Err(error) => return refusal(&error),
    };
    let refuse = |error: ApiError, refusal: fn(&ApiError) -> Response| {
        session.count_refusal(&error);
        refusal(&error)
    };
    match body(request).await {
        Ok((body, _)) => match Arc::clone(&session).answer(api, body).await {
            Ok(response) => response,
            Err(error) => refuse(error, refusal),
        },
        Err(error) => refuse(error, refusal_of_body),
    }
}

async fn models(sessions: State<Arc<Sessions>>, request: Request) -> Response {
    match session_of(&sessions, request.headers()) {
        Ok(session) => {
            let data = [
                json!({"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "grpo-tui", "max_model_len": session.max_model_len()}),
            ];
            answer(200, &json!({"object": "list", "data": data}))
        }
        Err(error) => refusal(&error),
    }
}

fn session_of(sessions: &Sessions, headers: &HeaderMap) -> Result<Arc<Session>, ApiError> {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.split_once(' '));
    let sessions = sessions.lock();
    let named = given.and_then(|(_, key)| sessions.get(&hash(key.trim())));
    let refused = || {
        let message = "the API key names no conversation: send the value of OPENAI_API_KEY";
        ApiError::new(
            401,
            "authentication_error",
            Some("invalid_api_key"),
            message,
        )
    };
    named.cloned().ok_or_else(refused)
}
