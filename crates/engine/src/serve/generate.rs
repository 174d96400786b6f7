//! Handles a request: queued prompts -> answer. Dropping an answer, as its client is gone, closes
//! its token channel and frees its rows.

use std::sync::{Arc, Weak};
use std::time::Instant;

use axum::body::Bytes;
use axum::response::Response;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Shared;
use super::body_client::BodyClient;
use crate::generation::{
    PreparedRequest, Reading, busy, prepare_asked, prompts, respond, server_error,
};
use crate::openai::{Api, ApiError, GenerationRequest};
use crate::rollout::QueueError;

/// Larger bodies are tokenized one after another: many at once would take all threads and memory.
const LARGE_BODY_BYTES: usize = 64 << 10;
static LARGE_BODY: Semaphore = Semaphore::const_new(1);

pub(super) async fn generate(
    shared: Arc<Shared>,
    api: Api,
    body: Bytes,
    room: SemaphorePermit<'static>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let reading = Arc::clone(&shared);
    let turn = match body.len() > LARGE_BODY_BYTES {
        true => LARGE_BODY.acquire().await.ok(),
        false => None,
    };
    // Dropped with this future when the client leaves.
    let presence = Arc::new(());
    let client = Arc::downgrade(&presence);
    // Tokenizing a large prompt continues, with its permit, even if the client leaves.
    let prepared = tokio::task::spawn_blocking(move || {
        let prepared = prepare(&reading, api, &body, &client);
        drop((turn, room));
        prepared
    });
    let (mut prepared, adapter) = prepared
        .await
        .map_err(|_| server_error("the request could not be prepared"))??;
    let mut prompts = std::mem::take(&mut prepared.prompts);
    let (constraints, tokenizer) = (&shared.model.constraints, &shared.model.tokenizer);
    if let Some(wanted) = prepared.wanted.take() {
        for prompt in &mut prompts {
            let compiled = constraints.compiled(&wanted, prompt.reasoning, tokenizer);
            prompt.request.constraint = Some(compiled.await?);
            prompt.confidence.clone_from(&prompt.request.constraint);
        }
        let first = prompts.first();
        prepared.collected.constraint = first.and_then(|first| first.request.constraint.clone());
    }
    if let Some(described) = prepared.described.take() {
        for prompt in &mut prompts {
            let compiled = constraints.compiled(&described, prompt.reasoning, tokenizer);
            prompt.confidence = Some(compiled.await?);
        }
    }
    // Before the jobs: if those are refused, the prompts are dropped with their client.
    let read_prompts = std::mem::take(&mut prepared.read_prompts).into_iter();
    let read_prompts = read_prompts.map(|prompt| (Reading::Prompt(prompt), adapter));
    shared.readings.lock().extend(read_prompts);
    let vocabulary = match prepared.collected.has_confidence {
        true => Some(constraints.vocabulary(tokenizer)?),
        false => None,
    };
    let read = vocabulary.map(|vocabulary| (&shared.readings, vocabulary));
    let jobs = BodyClient::jobs(prompts, adapter, &shared.metrics, arrived, read);
    shared.queue.push(jobs).map_err(|refused| match refused {
        QueueError::Full(most) => busy(&format!(
            "{most} requests wait, as many as this server lets (--queue)"
        )),
        QueueError::Closed => {
            ApiError::new(503, "server_error", None, "the server is being stopped")
        }
    })?;
    respond(prepared).await
}

/// `client`: dangling once its connection is gone.
fn prepare(
    shared: &Arc<Shared>,
    api: Api,
    body: &[u8],
    client: &Weak<()>,
) -> Result<(PreparedRequest, Option<u32>), ApiError> {
    let is_there = || match client.strong_count() {
        0 => Err(server_error("the client is gone")),
        _ => Ok(()),
    };
    is_there()?;
    let asked = GenerationRequest::parse(api, body)?;
    let adapter = shared.adapter_of(&asked.model)?;
    let add_special = asked.add_special_tokens;
    let prepared = prepare_asked(&shared.model, api, asked, |asked| {
        let prompts = prompts(&shared.model, asked, add_special, &is_there)?;
        Ok(prompts.into_iter().map(|(ids, _)| ids).collect())
    })?;
    Ok((prepared, adapter))
}
