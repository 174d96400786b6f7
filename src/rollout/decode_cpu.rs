//! Decoding of a few prompts on one thread: one prefill per prompt, then one token per row and step until every row has
//! ended.

use candle_core::{Result, Tensor, bail};

use super::{Completion, Request, Sampling, StopReason, ThreadPool};
use crate::kernels::decode_attention::{DecodeRow, DecodeRows};
use crate::kernels::philox::{SampleKey, uniform};
use crate::kernels::sampler::{SampledToken, sample_tokens};
use crate::model::{Adapters, Decoder, PackedBatch};

struct Row {
    request: usize,
    sample: u32,
    slot: usize,
    /// Rows of its prompt in the prefill.
    prefix: (usize, usize),
    completion: Completion,
}

/// Keys and values of the prompts and of the generated tokens.
pub(super) struct KvCache {
    /// Per layer: [prompt rows, row_width].
    prompts: Vec<Tensor>,
    /// Per layer: [slots, max_completion_tokens, 2 * key_width].
    written: Vec<Tensor>,
}

impl KvCache {
    /// `prompts` as returned by [`Decoder::prefill`], with room for `slots` completions.
    pub(super) fn new(model: &Decoder, prompts: Vec<Tensor>, slots: usize, sampling: &Sampling) -> Result<Self> {
        let written = model
            .cache_widths()
            .map(|width| Tensor::zeros((slots, sampling.max_completion_tokens, width), model.dtype(), model.device()));
        Ok(Self { written: written.collect::<Result<_>>()?, prompts })
    }

    /// Prompts and what was written, by layer.
    pub(super) fn layers(&self) -> impl Iterator<Item = (&Tensor, &Tensor)> {
        self.prompts.iter().zip(&self.written)
    }
}

/// Returns the completions of each request, in order. `threads` may cancel the work between two tokens.
pub(super) fn decode(
    model: &Decoder,
    adapters: Adapters,
    requests: &[Request],
    sampling: &Sampling,
    threads: &ThreadPool,
) -> Result<Vec<Vec<Completion>>> {
    check(model, requests, sampling)?;
    let mut finished: Vec<Vec<Completion>> = requests.iter().map(|_| Vec::new()).collect();
    let Some((mut rows, caches, mut logits)) = prefill(model, adapters, requests, sampling)? else {
        return Ok(finished);
    };
    let mut ended = Vec::with_capacity(rows.len());
    loop {
        threads.check()?;
        let tokens = sample(&logits, &rows, requests, sampling)?;
        for (row, token) in rows.iter_mut().zip(tokens) {
            row.completion.token_ids.push(token.token_id);
            row.completion.log_probs.push(token.log_prob);
        }
        ended.extend(rows.extract_if(.., |row| has_ended(row, sampling)));
        if rows.is_empty() {
            break;
        }
        logits = feed_newest(model, adapters, &rows, &caches)?;
    }
    ended.sort_by_key(|row| (row.request, row.sample));
    for row in ended {
        finished[row.request].push(row.completion);
    }
    Ok(finished)
}

pub(super) fn check(model: &Decoder, requests: &[Request], sampling: &Sampling) -> Result<()> {
    let limit = model.config().max_position_embeddings;
    for request in requests {
        let longest = request.prompt.len() + sampling.max_completion_tokens;
        if request.prompt.is_empty() || longest > limit {
            bail!(
                "a prompt of {} tokens and {} new ones do not fit the model's {limit} positions",
                request.prompt.len(),
                sampling.max_completion_tokens
            )
        }
    }
    Ok(())
}

fn prefill(
    model: &Decoder,
    adapters: Adapters,
    requests: &[Request],
    sampling: &Sampling,
) -> Result<Option<(Vec<Row>, KvCache, Tensor)>> {
    let (batch, prefixes, last_rows) = prefill_batch(requests);
    let samples = requests
        .iter()
        .enumerate()
        .flat_map(|(index, request)| (0..request.samples as u32).map(move |sample| (index, sample)));
    let completion = Completion { token_ids: Vec::new(), log_probs: Vec::new(), stop: StopReason::Length };
    let row =
        |(slot, ((request, sample), prefix))| Row { request, sample, slot, prefix, completion: completion.clone() };
    let rows: Vec<Row> = samples.zip(prefixes).enumerate().map(row).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let (prompts, normed) = model.prefill(&batch, adapters)?;
    let last = normed.index_select(&Tensor::from_slice(&last_rows, last_rows.len(), model.device())?, 0)?;
    let caches = KvCache::new(model, prompts, rows.len(), sampling)?;
    Ok(Some((rows, caches, model.logits(&last)?)))
}

/// The packed prompts; for each completion its prompt's first row and number of rows, and the prompt's last row.
pub(super) fn prefill_batch(requests: &[Request]) -> (PackedBatch, Vec<(usize, usize)>, Vec<u32>) {
    let mut batch = PackedBatch::default();
    let mut prefixes = Vec::new();
    for request in requests {
        let prompt = batch.push_prompt(&request.prompt);
        prefixes.extend(std::iter::repeat_n((prompt.start, prompt.length), request.samples));
    }
    let last_rows = prefixes.iter().map(|(start, length)| (start + length - 1) as u32).collect();
    (batch, prefixes, last_rows)
}

fn sample(logits: &Tensor, rows: &[Row], requests: &[Request], sampling: &Sampling) -> Result<Vec<SampledToken>> {
    let uniforms: Vec<f64> = rows
        .iter()
        .map(|row| {
            let position = row.completion.token_ids.len() as u32;
            let request = &requests[row.request];
            uniform(
                sampling.seed,
                SampleKey { step: request.step, prompt: request.prompt_number, sample: row.sample, position },
            )
        })
        .collect();
    sample_tokens(logits, sampling.temperature, &uniforms)
}

/// Whether the newest token ends the row, which records why.
fn has_ended(row: &mut Row, sampling: &Sampling) -> bool {
    let stopped = row.completion.token_ids.last().is_some_and(|id| sampling.stop_ids.contains(id));
    if stopped {
        row.completion.stop = StopReason::Stop;
    }
    stopped || row.completion.token_ids.len() >= sampling.max_completion_tokens
}

/// Feeds each row's newest token through the model -> [rows, vocabulary].
fn feed_newest(model: &Decoder, adapters: Adapters, rows: &[Row], caches: &KvCache) -> Result<Tensor> {
    let newest: Vec<u32> = rows.iter().filter_map(|row| row.completion.token_ids.last().copied()).collect();
    let places: Vec<DecodeRow> = rows
        .iter()
        .map(|row| DecodeRow { slot: row.slot, prefix: row.prefix, length: row.completion.token_ids.len() })
        .collect();
    let positions: Vec<u32> = places.iter().map(|place| (place.prefix.1 + place.length - 1) as u32).collect();
    let positions = Tensor::from_vec(positions, rows.len(), model.device())?;
    let newest = Tensor::from_vec(newest, rows.len(), model.device())?;
    model.decode(&newest, &positions, &DecodeRows::Listed(places), caches.layers(), adapters)
}
