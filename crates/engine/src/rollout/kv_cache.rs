//! KV cache of decoding: limits, capacity, rows and results of a pass.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor, bail};

use super::{QueueSize, RequestSize, Sampling};
use crate::kernels::decode_attention::DecodeRow;
use crate::kernels::pinned_memory::copy_to_host;
use crate::kernels::sampler::{SampleParams, SampledToken};
use crate::kernels::write_rows::write_rows;
use crate::model::{CacheView, CacheWidth, Decoder, PassExperts, PrefilledRows};
use crate::plan::CachePlaces;

/// Limits of joint decoding.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecodeLimits {
    /// Completions.
    pub(super) rows: usize,
    /// Of a list of requests.
    pub(super) places: CachePlaces,
    /// Host memory in bytes for parked completions.
    pub(super) parked_bytes: usize,
    /// Initial slots of a completion if not all can have the maximum; doubled when full.
    pub(super) initial_slots: usize,
    /// Prompt tokens prefilled at once; a longer prompt is alone.
    pub(super) prefill_rows: usize,
    /// Rows of a step with drafts; with more completions there are none.
    pub(super) drafted_rows: usize,
    /// Rows whose computation takes as long as reading the weights.
    pub(super) balanced_rows: usize,
    /// Whether a pass starts before the last one is read.
    pub(super) runs_ahead: bool,
    /// Rounds rows up, without drafts and with: a GPU records few sizes.
    pub(super) padded: fn(usize) -> usize,
    pub(super) padded_drafted: fn(usize) -> usize,
}

/// Sizes of caches and batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// Completions decoded together.
    pub(super) rows: usize,
    /// KV slots of completions.
    pub(super) kv_slots: usize,
    /// KV rows of prompts; `None`: they take slots.
    pub(super) prompt_rows: Option<usize>,
    /// Initial slots of a completion.
    pub(super) initial_slots: usize,
    /// Maximum of prompt + completion; 0 if unknown in advance.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(dead_code, reason = "a pass is recorded on a GPU alone")
    )]
    pub(super) longest: usize,
    /// Maximum drafted tokens per row.
    pub(super) draft_tokens: usize,
    /// Rank per adapter if there are several, else 0.
    pub(super) adapter_slot: usize,
    /// Whether completions record experts.
    pub(super) records_experts: bool,
    /// Whether conversations continue in the cache.
    pub(super) is_conversing: bool,
}

impl Capacity {
    /// Capacity for exactly these requests; `halvings`: after running out of memory.
    pub(super) fn for_list(
        requests: &[RequestSize],
        sampling: &Sampling,
        limits: DecodeLimits,
        halvings: u32,
    ) -> Self {
        let most = |of: fn(&RequestSize) -> usize| requests.iter().map(of).max().unwrap_or(0);
        let sum = |of: fn(&RequestSize) -> usize| requests.iter().map(of).sum::<usize>();
        let later = most(|request| request.later_tokens);
        let longest = most(|request| request.prompt_tokens + request.later_tokens);
        let new = |request: &RequestSize| request.new_tokens.min(sampling.max_completion_tokens);
        let most_new = requests.iter().map(new).max().unwrap_or(0);
        let longest_row = requests
            .iter()
            .map(|request| request.prompt_tokens + request.later_tokens + new(request));
        let limit = most_new + later;
        let halved = |number: usize, least: usize| (number >> halvings).max(least);
        let all_rows = limits.rows.min(sum(|request| request.samples));
        let rows = halved(all_rows, 1);
        let (places, all_slots) = (limits.places, all_rows * limit);
        let first = sum(|request| request.prompt_tokens) + if later > 0 { longest } else { 0 };
        // A branch is decoded while others of its conversation are kept.
        let fits = places.of_completions(all_slots, first) == all_slots
            && !requests.iter().any(|request| request.has_branches);
        let prompts = match later > 0 && !fits {
            // Branches and evicted conversations are prefilled, each with its own prompt.
            true => sum(|request| request.samples * (request.prompt_tokens + request.later_tokens)),
            false => first,
        };
        let slots = places.of_completions(all_slots, prompts);
        let prompts = places.of_prompts(prompts.min(all_rows * longest), slots);
        let kv_slots = halved(slots, limit);
        let prompt_rows = halved(prompts, longest).min(rows * longest);
        let initial_slots = match fits {
            true => limit,
            false => most_new.min(limits.initial_slots),
        };
        Self {
            rows,
            kv_slots,
            prompt_rows: Some(prompt_rows.max(1)),
            initial_slots,
            longest: longest_row.max().unwrap_or(0),
            draft_tokens: sampling.draft_tokens,
            adapter_slot: 0,
            records_experts: sampling.records_experts,
            is_conversing: later > 0,
        }
    }

    /// One per row, and per drafted token; on a GPU at most for padded rows.
    pub(super) fn states(&self, limits: DecodeLimits) -> usize {
        let drafted = match self.draft_tokens {
            0 => 0,
            _ => limits.drafted_rows,
        };
        let most = match limits.runs_ahead {
            true => limits.rows.max(self.rows),
            false => usize::MAX,
        };
        (self.rows + drafted).min(most)
    }

    /// Capacity for future requests. A completion has all slots from the start, so that none
    /// restarts: its client has read the beginning.
    pub(super) fn for_queue(size: QueueSize, draft_tokens: usize, adapter_slot: usize) -> Self {
        Self {
            rows: size.rows,
            kv_slots: size.tokens,
            prompt_rows: None,
            initial_slots: usize::MAX,
            longest: 0,
            draft_tokens,
            adapter_slot,
            records_experts: false,
            is_conversing: false,
        }
    }
}

/// Input token of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FedToken {
    Known(u32),
    /// The last pass's sample at this index; possibly known only to the GPU.
    Sampled(usize),
}

/// A row of a step: input token, and sampling parameters of the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Feed {
    pub(super) row: DecodeRow,
    pub(super) token: FedToken,
    pub(super) params: SampleParams,
    /// Index of its adapter, in the kernels' encoding.
    pub(super) adapter: u32,
}

impl Feed {
    /// Position in the sequence.
    pub(super) fn position(&self) -> usize {
        self.row.prefix.1 + self.row.length - 1
    }
}

/// Alternatives of shaped rows.
pub(super) type Alternatives = BTreeMap<usize, Vec<(u32, f32)>>;

/// Result of a pass.
#[derive(Debug, Default)]
pub(super) struct SampledPass {
    /// Samples after each fed token.
    pub(super) tokens: Vec<SampledToken>,
    /// Experts of the fed tokens, if recorded.
    pub(super) experts: Option<PassExperts>,
    /// Most likely tokens, with log-probs, by index of the sample.
    pub(super) alternatives: Alternatives,
}

/// Keys and values of prompts and completions, and recurrent states.
#[derive(Debug)]
pub(super) struct KvCache {
    layers: Vec<LayerCache>,
    size: CacheSize,
}

/// Completion tokens, prompt tokens, states. Without rows of their own, prompts take slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheSize {
    pub(super) kv_slots: usize,
    pub(super) prompt_rows: Option<usize>,
    pub(super) states: usize,
}

#[derive(Debug)]
enum LayerCache {
    KeysValues {
        /// [prompt rows, 2 * key_width], if prompts have their own; on the CPU created by the
        /// first prompts.
        prompts: Option<Tensor>,
        /// [slots, 2 * key_width].
        written: Tensor,
    },
    /// Uses this earlier layer's.
    OfLayer(usize),
    /// [states, width] each.
    States([Tensor; 2]),
}

impl KvCache {
    pub(super) fn new(model: &Decoder, size: CacheSize) -> Result<Self> {
        let (dtype, device) = (model.dtype(), model.device());
        let zeros = |rows: usize, width: usize| Tensor::zeros((rows, width), dtype, device);
        // Every token rounds the rule's states.
        let rule_dtype = if device.is_cpu() { dtype } else { DType::F32 };
        let layer = |width| match width {
            CacheWidth::Token(width) => Ok(LayerCache::KeysValues {
                written: zeros(size.kv_slots, width)?,
                // Recorded passes need fixed addresses.
                prompts: size
                    .prompt_rows
                    .filter(|_| !device.is_cpu())
                    .map(|rows| zeros(rows, width))
                    .transpose()?,
            }),
            CacheWidth::OfLayer(layer) => Ok(LayerCache::OfLayer(layer)),
            CacheWidth::Sequence([convolution, rule]) => {
                let rule = Tensor::zeros((size.states, rule), rule_dtype, device)?;
                let convolution = zeros(size.states, convolution)?;
                Ok(LayerCache::States([convolution, rule]))
            }
        };
        Ok(Self {
            layers: model.cache_widths().map(layer).collect::<Result<_>>()?,
            size,
        })
    }

    /// Stores a layer's prefill. `ranges`: first row and number of rows of each piece, in order;
    /// `states`: by prompt, destinations of its state.
    pub(super) fn store(
        &mut self,
        layer: usize,
        prefilled: PrefilledRows,
        ranges: &[(usize, usize)],
        states: &[Vec<usize>],
    ) -> Result<()> {
        match (&mut self.layers[layer], prefilled) {
            (LayerCache::KeysValues { prompts, written }, PrefilledRows::KeysValues(prefilled)) => {
                match self.size.prompt_rows {
                    None => write_ranges(written, &prefilled, ranges),
                    Some(rows) => store_rows(prompts, rows, prefilled, ranges),
                }
            }
            (LayerCache::OfLayer(_), PrefilledRows::Nothing) => Ok(()),
            (LayerCache::States(caches), PrefilledRows::States(prefilled)) => {
                for (cache, prefilled) in caches.iter().zip(prefilled) {
                    for (prompt, copies) in states.iter().enumerate() {
                        let state = prefilled.narrow(0, prompt, 1)?;
                        let mut copies = copies.iter();
                        copies.try_for_each(|&copy| write_rows(cache, copy, &state))?;
                    }
                }
                Ok(())
            }
            _ => bail!("the cache of layer {layer} is of another mixer"),
        }
    }

    /// Moves the first `count` tokens of a row to other slots.
    pub(super) fn move_row(&self, from: usize, to: usize, count: usize) -> Result<()> {
        self.layers.iter().try_for_each(|layer| match layer {
            // Old and new slots may overlap.
            LayerCache::KeysValues { written, .. } => {
                let row = written.narrow(0, from, count)?.force_contiguous()?;
                written.slice_set(&row, 0, to)
            }
            LayerCache::OfLayer(_) | LayerCache::States(_) => Ok(()),
        })
    }

    /// Copies a state.
    pub(super) fn copy_state(&self, from: usize, to: usize) -> Result<()> {
        let caches = self.layers.iter().filter_map(|layer| match layer {
            LayerCache::States(caches) => Some(caches),
            LayerCache::KeysValues { .. } | LayerCache::OfLayer(_) => None,
        });
        caches.flatten().try_for_each(|cache| {
            let state = cache.narrow(0, from, 1)?.force_contiguous()?;
            write_rows(cache, to, &state)
        })
    }

    /// Size of a [`KvCache::save_row`].
    pub(super) fn row_bytes(&self, slots: (usize, usize)) -> usize {
        let bytes = |(cache, _, rows): (&Tensor, _, usize)| {
            rows * cache.elem_count() / cache.dims()[0] * cache.dtype().size_in_bytes()
        };
        self.places(slots, 0).map(bytes).sum()
    }

    /// Copies `count` tokens from slot `first` on, and a row's state, to the host.
    pub(super) fn save_row(
        &self,
        (first, count): (usize, usize),
        state: usize,
    ) -> Result<SavedRow> {
        let copy = |(cache, first, count): (&Tensor, usize, usize)| {
            let rows = cache.narrow(0, first, count)?;
            let mut bytes = vec![0; rows.elem_count() * rows.dtype().size_in_bytes()];
            copy_to_host(&rows, &mut bytes)?;
            Ok(bytes)
        };
        let places = self.places((first, count), state);
        places.map(copy).collect::<Result<_>>().map(SavedRow)
    }

    /// Restores a row to other slots and another state.
    pub(super) fn restore_row(
        &self,
        saved: &SavedRow,
        slots: (usize, usize),
        state: usize,
    ) -> Result<()> {
        for ((cache, first, count), bytes) in self.places(slots, state).zip(&saved.0) {
            let (shape, dtype) = ([count, cache.dim(1)?], cache.dtype());
            let rows = Tensor::from_raw_buffer(bytes, dtype, &shape, cache.device())?;
            write_rows(cache, first, &rows)?;
        }
        Ok(())
    }

    /// Locations of a row's tokens and state: cache, first row, number of rows.
    fn places(
        &self,
        (first, count): (usize, usize),
        state: usize,
    ) -> impl Iterator<Item = (&Tensor, usize, usize)> {
        let places = self.layers.iter().flat_map(move |layer| match layer {
            LayerCache::KeysValues { written, .. } => vec![(written, first, count)],
            LayerCache::OfLayer(_) => Vec::new(),
            LayerCache::States(states) => states.iter().map(|cache| (cache, state, 1)).collect(),
        });
        // A GPU tensor cannot be empty.
        places.filter(|(.., count)| *count > 0)
    }

    #[cfg(feature = "cuda")]
    pub(super) fn size(&self) -> CacheSize {
        self.size
    }

    #[cfg(feature = "cuda")]
    pub(super) fn bytes(&self) -> usize {
        self.tensors()
            .map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes())
            .sum()
    }

    #[cfg(feature = "cuda")]
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.layers.iter().flat_map(|layer| match layer {
            LayerCache::KeysValues { prompts, written } => {
                prompts.iter().chain([written]).collect::<Vec<_>>()
            }
            LayerCache::OfLayer(_) => Vec::new(),
            LayerCache::States(states) => states.iter().collect(),
        })
    }

    /// Views by layer.
    pub(super) fn layers(&self) -> impl Iterator<Item = CacheView<'_>> {
        let read = |layer| match layer {
            &LayerCache::OfLayer(source) => &self.layers[source],
            layer => layer,
        };
        let layers = self.layers.iter().map(read);
        layers.filter_map(|layer| match layer {
            LayerCache::KeysValues { prompts, written } => {
                let prompts = prompts.as_ref().unwrap_or(written);
                Some(CacheView::KeysValues(prompts, written))
            }
            LayerCache::States(states) => Some(CacheView::States(states)),
            LayerCache::OfLayer(_) => None,
        })
    }
}

/// A completion's keys, values and states, by layer.
#[derive(Debug)]
pub(super) struct SavedRow(Vec<Vec<u8>>);

impl SavedRow {
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

/// Writes prompt rows to `cache`, created with `size` rows if missing.
fn store_rows(
    cache: &mut Option<Tensor>,
    size: usize,
    prefilled: Tensor,
    ranges: &[(usize, usize)],
) -> Result<()> {
    let cache = match cache {
        Some(cache) => cache,
        None if ranges.iter().map(|(_, rows)| rows).sum::<usize>() == size => {
            *cache = Some(prefilled.contiguous()?);
            return Ok(());
        }
        None => {
            let (width, device) = (prefilled.dim(1)?, prefilled.device());
            cache.insert(Tensor::zeros((size, width), prefilled.dtype(), device)?)
        }
    };
    write_ranges(cache, &prefilled, ranges)
}

fn write_ranges(cache: &Tensor, prefilled: &Tensor, ranges: &[(usize, usize)]) -> Result<()> {
    let mut first = 0;
    for &(start, rows) in ranges {
        write_rows(cache, start, &prefilled.narrow(0, first, rows)?)?;
        first += rows;
    }
    Ok(())
}

/// Joins adjacent ranges (first row, number of rows).
pub(super) fn joined(all: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (start, rows) in all {
        match ranges.last_mut() {
            Some((first, length)) if *first + *length == start => *length += rows,
            _ => ranges.push((start, rows)),
        }
    }
    ranges
}

/// Free slots of a cache: ranges by start.
#[derive(Debug)]
pub(super) struct FreeSlots(Vec<(usize, usize)>);

impl FreeSlots {
    pub(super) fn all(rows: usize) -> Self {
        Self(vec![(0, rows)])
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|(_, rows)| rows).sum()
    }

    pub(super) fn allocate(&mut self, rows: usize) -> Option<usize> {
        let index = self.0.iter().position(|(_, free)| *free >= rows)?;
        let (start, free) = self.0.remove(index);
        if free > rows {
            self.0.insert(index, (start + rows, free - rows));
        }
        Some(start)
    }

    /// From the end: completions and prompts in one cache do not divide each other's places.
    pub(super) fn allocate_last(&mut self, rows: usize) -> Option<usize> {
        let index = self.0.iter().rposition(|(_, free)| *free >= rows)?;
        let (start, free) = &mut self.0[index];
        *free -= rows;
        let place = *start + *free;
        self.0.retain(|(_, free)| *free > 0);
        Some(place)
    }

    /// Replaces `old` by `rows` contiguous slots; `None`, without change, if there are none.
    pub(super) fn exchange(&mut self, old: (usize, usize), rows: usize) -> Option<usize> {
        let before = self.0.clone();
        self.give_back(old.0, old.1);
        let start = self.allocate(rows);
        if start.is_none() {
            self.0 = before;
        }
        start
    }

    pub(super) fn give_back(&mut self, start: usize, rows: usize) {
        let at = self.0.partition_point(|(other, _)| *other < start);
        self.0.insert(at, (start, rows));
        self.0.dedup_by(|next, previous| {
            let joins = previous.0 + previous.1 == next.0;
            previous.1 += if joins { next.1 } else { 0 };
            joins
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_side_by_side_are_copied_together() {
        assert_eq!(
            joined([(0, 4), (4, 5), (12, 1), (2, 3)].into_iter()),
            [(0, 9), (12, 1), (2, 3)]
        );
    }

    #[test]
    fn places_are_reused() {
        let mut free = FreeSlots::all(10);
        assert_eq!(
            [free.allocate(4), free.allocate(5), free.allocate(2)],
            [Some(0), Some(4), None]
        );
        free.give_back(0, 4);
        assert_eq!(free.allocate(5), None, "not in one piece");
        assert_eq!(free.allocate(4), Some(0));
        free.give_back(4, 5);
        free.give_back(0, 4);
        assert_eq!(free.allocate(10), Some(0));
        free.give_back(6, 4);
        free.give_back(2, 2);
        assert_eq!(
            [
                free.allocate_last(2),
                free.allocate_last(2),
                free.allocate_last(1)
            ],
            [Some(8), Some(6), Some(3)]
        );
        free.give_back(6, 4);
        free.give_back(3, 1);
        assert_eq!(free.allocate(2), Some(2));
        // Returned slots count, and none is lost.
        assert_eq!(
            (
                free.exchange((3, 3), 8),
                free.exchange((3, 3), 7),
                free.allocate(1)
            ),
            (None, Some(3), None)
        );
    }
}
