//! Runs passes.

use std::collections::VecDeque;

use candle_core::{Result, Tensor};

use super::super::kv_cache::{Alternatives, FedToken, Feed, KvCache, SampledPass};
use super::super::masks::sample;
use crate::kernels::decode_attention::DecodeRows;
use crate::kernels::sampler::{SampleParams, SampledToken};
use crate::kernels::shaping::{ShapedRow, sample_shaped};
use crate::model::{AdapterUse, Adapters, Decoder, ExpertLayers, PassExperts};

/// Decode backend: row lists on the CPU, recorded graphs on a GPU.
pub(super) enum StepBackend {
    /// Unread passes, and the last one's tokens.
    Listed(VecDeque<SampledPass>, Vec<SampledToken>),
    #[cfg(feature = "cuda")]
    Recorded(Box<super::super::decode_gpu::Steps>),
}

/// Samples after each fed token, on the CPU; `last`: tokens of the previous pass; `recorded`:
/// layers whose experts are recorded.
pub(super) fn sample_after(
    feeds: &[Feed],
    last: &[SampledToken],
    (model, (adapters, slot)): (&Decoder, (Adapters, usize)),
    (caches, recorded): (&KvCache, Option<ExpertLayers>),
    (masks, shaped): (Option<impl FnOnce() -> Vec<u32>>, &[ShapedRow]),
) -> Result<SampledPass> {
    let token = |feed: &Feed| match feed.token {
        FedToken::Known(token) => token,
        FedToken::Sampled(index) => last[index].token_id,
    };
    let column =
        |of: &dyn Fn(&Feed) -> u32| Tensor::from_iter(feeds.iter().map(of), model.device());
    let (tokens, positions) = (column(&token)?, column(&|feed| feed.position() as u32)?);
    let rows = DecodeRows::Listed(feeds.iter().map(|feed| feed.row).collect());
    let row_adapters = (slot > 0)
        .then(|| column(&|feed| feed.adapter))
        .transpose()?;
    let adapters = AdapterUse::for_rows(adapters, row_adapters.as_ref(), slot);
    let record = recorded
        .map(|experts| experts.room(feeds.len(), model.device()))
        .transpose()?;
    let logits = model.decode(
        &tokens,
        &positions,
        &rows,
        (caches.layers(), record.as_ref()),
        adapters,
    )?;
    let params: Vec<SampleParams> = feeds.iter().map(|feed| feed.params).collect();
    let masks = masks.map(|masks| masks());
    let shaping = (shaped, last);
    let (tokens, alternatives) = sample_all(&logits, &params, shaping, masks.as_deref())?;
    let experts = record
        .zip(recorded)
        .map(|(record, experts)| PassExperts::read(&record, experts))
        .transpose()?;
    Ok(SampledPass {
        tokens,
        experts,
        alternatives,
    })
}

/// Samples a token per row, and the shaped rows in their way; `last`: tokens of the previous pass.
pub(super) fn sample_all(
    logits: &Tensor,
    params: &[SampleParams],
    (shaped, last): (&[ShapedRow], &[SampledToken]),
    masks: Option<&[u32]>,
) -> Result<(Vec<SampledToken>, Alternatives)> {
    let mut tokens = sample(logits, params, masks)?;
    let mut alternatives = Alternatives::new();
    for shaped in sample_shaped(logits, shaped, last, masks)? {
        let token = &mut tokens[shaped.row];
        *token = shaped.token.unwrap_or(*token);
        alternatives.insert(shaped.row, shaped.alternatives);
    }
    Ok((tokens, alternatives))
}
