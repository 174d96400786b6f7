//! Decoding on a GPU: the step is recorded once as a CUDA graph and launched for every token; the host checks only now
//! and then which rows have ended.

use candle_core::{DType, Result, Tensor, bail};

use super::decode_cpu::{KvCache, check, prefill_batch};
use super::{Completion, Request, Sampling, StopReason, ThreadPool};
use crate::kernels::cuda_graph::Graph;
use crate::kernels::decode_attention::DecodeRows;
use crate::kernels::sampler::{SampleSettings, SampleState, done, sample_step};
use crate::model::{Adapters, Decoder};
use crate::plan::gpu_decode_rows;

/// Steps between two checks. A row that ended meanwhile runs along without effect.
const STEPS_BETWEEN_LOOKS: usize = 8;
/// Below this many rows a step is bound by reading weights, so ended rows cost nothing.
const FEWEST_ROWS_TO_SHRINK: usize = 32;

pub(super) fn rows_per_shard(model: &Decoder, sampling: &Sampling) -> usize {
    gpu_decode_rows(model.config(), sampling.max_completion_tokens, model.dtype().size_in_bytes())
}

/// Returns the completions of each request, in order. `threads` may cancel the work at each check.
pub(super) fn decode(
    model: &Decoder,
    adapters: Adapters,
    requests: &[Request],
    sampling: &Sampling,
    threads: &ThreadPool,
) -> Result<Vec<Vec<Completion>>> {
    check(model, requests, sampling)?;
    let rows: Vec<[u32; 3]> = requests
        .iter()
        .flat_map(|request| (0..request.samples as u32).map(|sample| [request.step, request.prompt_number, sample]))
        .collect();
    if rows.is_empty() {
        return Ok(requests.iter().map(|_| Vec::new()).collect());
    }
    let (batch, prefixes, last_rows) = prefill_batch(requests);
    let (prompts, normed) = model.prefill(&batch, adapters)?;
    let caches = KvCache::new(model, prompts, rows.len(), sampling)?;
    let logits = {
        let last = normed.index_select(&Tensor::from_slice(&last_rows, last_rows.len(), model.device())?, 0)?;
        model.logits(&last)?
    };
    // A tensor on a GPU cannot be empty.
    let stop_ids = if sampling.stop_ids.is_empty() { &[u32::MAX][..] } else { &sampling.stop_ids };
    let settings = SampleSettings {
        temperature: sampling.temperature,
        seed: sampling.seed,
        stop_ids: Tensor::from_slice(stop_ids, stop_ids.len(), model.device())?,
        max_completion_tokens: sampling.max_completion_tokens,
    };
    let state = first_state(model, &rows, &prefixes, sampling)?;
    let mut work = DecodeBatch { model, adapters, caches, settings, state, ended: vec![0; rows.len()] };
    sample_step(&logits, &work.settings, &work.state)?;
    drop(logits);
    work.run(sampling.max_completion_tokens - 1, threads)?;
    work.completions(requests)
}

/// The buffers of a decode step.
struct DecodeBatch<'a> {
    model: &'a Decoder,
    adapters: Adapters,
    caches: KvCache,
    settings: SampleSettings,
    state: SampleState,
    /// By slot, for rows that have left the batch.
    ended: Vec<u32>,
}

fn first_state(
    model: &Decoder,
    places: &[[u32; 3]],
    prefixes: &[(usize, usize)],
    sampling: &Sampling,
) -> Result<SampleState> {
    let (rows, device) = (places.len(), model.device());
    let table = prefixes
        .iter()
        .enumerate()
        .flat_map(|(slot, prefix)| [slot as u32, prefix.0 as u32, prefix.1 as u32, 0])
        .collect::<Vec<u32>>();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::U32, device);
    Ok(SampleState {
        rows: Tensor::from_vec(table, (rows, 4), device)?,
        places: Tensor::from_vec(places.concat(), (rows, 3), device)?,
        newest: zeros(&[rows])?,
        positions: zeros(&[rows])?,
        done: zeros(&[rows])?,
        token_ids: zeros(&[rows, sampling.max_completion_tokens])?,
        log_probs: Tensor::zeros((rows, sampling.max_completion_tokens), DType::F32, device)?,
        lengths: zeros(&[rows])?,
    })
}

impl DecodeBatch<'_> {
    /// Decodes at most `steps` more tokens per row.
    fn run(&mut self, steps: usize, threads: &ThreadPool) -> Result<()> {
        let mut left = steps;
        while left > 0 {
            let done = self.state.done.to_vec1::<u32>()?;
            let live = done.iter().filter(|&&done| done == 0).count();
            if live == 0 {
                break;
            }
            if done.len() >= FEWEST_ROWS_TO_SHRINK && live <= done.len() / 2 {
                self.note_ended(&done)?;
                self.state = shrunk(&self.state, &done)?;
            }
            // The first step runs unrecorded, which loads and selects its kernels.
            self.step()?;
            left -= 1;
            if left == 0 {
                break;
            }
            let graph = Graph::record(self.model.device(), || self.step())?;
            let rows = self.state.done.dim(0)?;
            loop {
                threads.check()?;
                let steps = left.min(STEPS_BETWEEN_LOOKS);
                (0..steps).try_for_each(|_| graph.start())?;
                left -= steps;
                let live = self.state.done.to_vec1::<u32>()?.iter().filter(|&&done| done == 0).count();
                if left == 0 || live == 0 || (rows >= FEWEST_ROWS_TO_SHRINK && live <= rows / 2) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// One more token per row, without the host.
    fn step(&self) -> Result<()> {
        let SampleState { newest, positions, rows, .. } = &self.state;
        let rows = DecodeRows::Table(rows.clone());
        let logits = self.model.decode(newest, positions, &rows, self.caches.layers(), self.adapters)?;
        sample_step(&logits, &self.settings, &self.state)
    }

    /// Records why rows of the batch ended, before they leave.
    fn note_ended(&mut self, done: &[u32]) -> Result<()> {
        for (row, &done) in self.state.rows.to_vec2::<u32>()?.iter().zip(done) {
            self.ended[row[0] as usize] = done;
        }
        Ok(())
    }

    fn completions(&mut self, requests: &[Request]) -> Result<Vec<Vec<Completion>>> {
        self.note_ended(&self.state.done.to_vec1::<u32>()?)?;
        if self.ended.contains(&done::NOT_FINITE) {
            bail!("the model's logits are not finite")
        }
        let SampleState { token_ids, log_probs, lengths, .. } = &self.state;
        let numbers = token_ids.to_vec2::<u32>()?.into_iter().zip(log_probs.to_vec2::<f32>()?);
        let ends = lengths.to_vec1::<u32>()?.into_iter().zip(self.ended.iter().copied());
        let mut slots = numbers.zip(ends).map(|((mut ids, mut log_probs), (length, ended))| {
            ids.truncate(length as usize);
            log_probs.truncate(length as usize);
            let stop = if ended == done::STOPPED { StopReason::Stop } else { StopReason::Length };
            Completion { token_ids: ids, log_probs, stop }
        });
        Ok(requests.iter().map(|request| slots.by_ref().take(request.samples).collect()).collect())
    }
}

/// The state of the live rows alone, with enough ended ones to fill a batch size that suits matmuls.
fn shrunk(state: &SampleState, done: &[u32]) -> Result<SampleState> {
    let (live, mut ended): (Vec<u32>, Vec<u32>) = (0..done.len() as u32).partition(|&row| done[row as usize] == 0);
    ended.truncate(live.len().next_multiple_of(8).min(done.len()) - live.len());
    let rows = [live, ended].concat();
    let rows = Tensor::from_slice(&rows, rows.len(), state.rows.device())?;
    let select = |tensor: &Tensor| tensor.index_select(&rows, 0);
    Ok(SampleState {
        rows: select(&state.rows)?,
        places: select(&state.places)?,
        newest: select(&state.newest)?,
        positions: select(&state.positions)?,
        done: select(&state.done)?,
        token_ids: state.token_ids.clone(),
        log_probs: state.log_probs.clone(),
        lengths: state.lengths.clone(),
    })
}
