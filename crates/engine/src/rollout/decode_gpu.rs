//! Decode steps on a GPU, recorded as a CUDA graph per number of rows. The next step can start
//! before the host knows the last tokens.

use std::collections::{HashMap, VecDeque};

use candle_core::{DType, Device, Result, Tensor, TensorId, bail};
use parking_lot::Mutex;

use super::kv_cache::{
    Alternatives, CacheSize, Capacity, DecodeLimits, FedToken, Feed, KvCache, SampledPass,
};
use crate::kernels::cuda_graph::Graph;
use crate::kernels::decode_attention::{DecodeRows, NO_STATE};
use crate::kernels::device::memory;
use crate::kernels::pinned_memory::{
    HostBuffer, PendingCopy, copy_to_device, mark, start_copy_to_host,
};
use crate::kernels::sampler::{
    SAMPLED_AT, gather_sampled, mask_words, read_sampled, sample_into, sample_masked_into,
};
use crate::kernels::shaping::ShapedRow;
use crate::kernels::shaping::gpu::{penalize, read_alternatives, shape, words as shape_words};
use crate::model::{AdapterUse, Adapters, Decoder, ExpertLayers, PassExperts};
use crate::plan::{
    CachePlaces, GPU_DRAFTED_ROWS, gpu_decode_rows, gpu_kept_cache_bytes, gpu_prefill_rows,
    memory_limit_bytes,
};

/// A pass of 64 rows at the Qwen3-8B shape takes 6.05 ms on an H200 and one of 256 rows 10.7 ms:
/// 4.5 ms, plus as much again per 187 rows.
const BALANCED_ROWS: usize = 187;

/// Host memory is divided by this for parked completions.
const PARKED_SHARE: usize = 4;

pub(super) fn limits(model: &Decoder) -> DecodeLimits {
    let number = model.dtype().size_in_bytes();
    let gpu_bytes = memory(model.device()).map_or(0, |(_, all)| all);
    DecodeLimits {
        rows: gpu_decode_rows(model.config(), number, gpu_bytes),
        places: super::gpu_places(model).unwrap_or(CachePlaces::UNLIMITED),
        parked_bytes: memory_limit_bytes().map_or(0, |bytes| bytes as usize / PARKED_SHARE),
        initial_slots: 64,
        prefill_rows: gpu_prefill_rows(gpu_bytes),
        drafted_rows: GPU_DRAFTED_ROWS,
        balanced_rows: BALANCED_ROWS,
        runs_ahead: true,
        padded: |rows| padded(rows, 8),
        padded_drafted: |rows| padded(rows, 4),
    }
}

/// KV cache and recorded graphs, reused by the next rollout.
#[derive(Debug, Default)]
pub(super) struct GpuBuffers(Mutex<Option<(TensorId, KvCache, Steps)>>);

impl GpuBuffers {
    /// Reuses the last buffers if they are of this model and large enough. Recorded passes depend
    /// on cache addresses.
    pub(super) fn reuse(
        &self,
        model: &Decoder,
        needed: CacheSize,
        most_rows: usize,
        capacity: Capacity,
    ) -> Result<(KvCache, Steps)> {
        let kept = self.0.lock().take();
        let serves = |(id, caches, steps): &(TensorId, KvCache, Steps)| {
            let size = caches.size();
            let has_states =
                size.states >= needed.states || model.config().options.gated_delta.is_none();
            let fits = size.kv_slots >= needed.kv_slots
                && size.prompt_rows >= needed.prompt_rows
                && size.prompt_rows.is_some() == needed.prompt_rows.is_some()
                && has_states;
            *id == model.id() && fits && steps.most_rows() >= most_rows
        };
        let (caches, mut steps) = match kept.filter(serves) {
            Some((_, caches, steps)) => (caches, steps),
            None => (KvCache::new(model, needed)?, Steps::new(most_rows, model)?),
        };
        // Rounded, so that few sizes are recorded.
        steps.longest = (capacity.longest > 0).then(|| capacity.longest.next_multiple_of(512));
        steps.records_experts = capacity.records_experts;
        Ok((caches, steps))
    }

    /// Keeps buffers unless large.
    pub(super) fn keep(&self, model: &Decoder, caches: KvCache, steps: Steps) {
        let gpu_bytes = memory(model.device()).map_or(0, |(_, all)| all);
        if caches.bytes() <= gpu_kept_cache_bytes(gpu_bytes) {
            *self.0.lock() = Some((model.id(), caches, steps));
        }
    }
}

/// Recorded decode graphs with input and output buffers at fixed addresses.
#[derive(Debug)]
pub(super) struct Steps {
    /// [most rows, 13], u32: for n rows `SampleParams::words`, [n, 4], tables of
    /// `DecodeRows::Table`, [n, 4] and [n, 2], tokens, positions, adapters.
    inputs: Tensor,
    /// [most rows, 2], u32, from [`sample_into`].
    sampled: Tensor,
    /// Page-locked, for alternate passes: inputs, then sampled tokens.
    host: [HostBuffer; 2],
    /// Unread passes, at most two.
    started: VecDeque<StartedPass>,
    /// Number of passes.
    passes: usize,
    /// Maximum of prompt + completion, if known in advance.
    longest: Option<usize>,
    /// `None` after a size's first pass, which loads and selects kernels.
    graphs: HashMap<GraphKey, Option<Graph>>,
    /// Why recording failed; kernels are launched individually since.
    unrecorded: Option<String>,
    /// Created by the first pass with constrained or shaped rows.
    logits: Option<LogitBuffers>,
    shaping: ShapingBuffers,
    /// Set for models with experts.
    experts: Option<ExpertBuffers>,
    /// Whether the experts are read.
    records_experts: bool,
}

/// Data to read once a pass has arrived.
#[derive(Debug)]
struct StartedPass {
    tokens: usize,
    /// Words of the experts; 0 if not recorded.
    expert_words: usize,
    /// Index and number of alternatives of each shaped row.
    alternatives: Vec<(usize, usize)>,
    arriving: PendingCopy,
}

/// Buffers for the selected experts of recorded passes.
#[derive(Debug)]
struct ExpertBuffers {
    layers: ExpertLayers,
    /// [most rows * experts per token], u32: for n rows [layers, n, active].
    selected: Tensor,
    /// Page-locked, for alternate passes.
    host: [HostBuffer; 2],
}

impl ExpertBuffers {
    fn new(layers: ExpertLayers, most_rows: usize, device: &Device) -> Result<Self> {
        let words = most_rows * layers.per_token();
        Ok(Self {
            layers,
            selected: Tensor::zeros(words, DType::U32, device)?,
            host: [(); 2].map(|()| HostBuffer::new(words * size_of::<u32>(), device)),
        })
    }

    fn of_rows(&self, rows: usize) -> Result<Tensor> {
        let ExpertLayers { layers, active, .. } = self.layers;
        self.selected
            .narrow(0, 0, rows * self.layers.per_token())?
            .reshape((layers, rows, active))
    }

    /// Starts copying a pass's experts to the host; returns the number of words.
    fn start_copy(&mut self, rows: usize, pass: usize) -> Result<usize> {
        let (selected, words) = (self.of_rows(rows)?, rows * self.layers.per_token());
        start_copy_to_host(
            &selected,
            &mut self.host[pass % 2].bytes_mut()[..words * size_of::<u32>()],
        )?;
        Ok(words)
    }

    /// Reads `words` of an arrived pass.
    fn read(&self, words: usize, pass: usize) -> PassExperts {
        let bytes =
            self.host[pass % 2].bytes()[..words * size_of::<u32>()].chunks_exact(size_of::<u32>());
        PassExperts::new(bytes.map(word).collect(), self.layers)
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Logits and masks between a pass and its sampling, for constrained and shaped rows.
#[derive(Debug)]
struct LogitBuffers {
    /// [most rows, vocabulary], f32.
    logits: Tensor,
    /// [most rows * words of a mask], u32.
    masks: Tensor,
    host: HostBuffer,
}

impl LogitBuffers {
    fn new(most_rows: usize, vocabulary: usize, device: &Device) -> Result<Self> {
        let words = most_rows * mask_words(vocabulary);
        Ok(Self {
            logits: Tensor::zeros((most_rows, vocabulary), DType::F32, device)?,
            masks: Tensor::zeros(words, DType::U32, device)?,
            host: HostBuffer::new(words * size_of::<u32>(), device),
        })
    }
}

/// Options of shaped rows, and their alternatives, for alternate passes. They grow.
#[derive(Debug, Default)]
struct ShapingBuffers {
    words: Option<Tensor>,
    alternatives: Option<Tensor>,
    /// Page-locked.
    host: [Option<HostBuffer>; 2],
    host_alternatives: [Option<HostBuffer>; 2],
}

impl ShapingBuffers {
    /// Uploads the options of `rows`; returns them, and memory for their alternatives.
    fn upload(
        &mut self,
        rows: &[ShapedRow],
        pass: usize,
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        let words = shape_words(rows);
        let bytes = host_bytes(&mut self.host[pass % 2], words.len(), device);
        for (place, word) in bytes.chunks_exact_mut(size_of::<u32>()).zip(&words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let uploaded = of_words(&mut self.words, words.len(), device)?;
        copy_to_device(bytes, &uploaded)?;
        let pairs: usize = rows.iter().map(|row| row.shaping.alternatives).sum();
        Ok((
            uploaded,
            of_words(&mut self.alternatives, 2 * pairs, device)?,
        ))
    }

    fn start_copy(&mut self, alternatives: &Tensor, pass: usize) -> Result<()> {
        let (words, device) = (alternatives.elem_count(), alternatives.device());
        let bytes = host_bytes(&mut self.host_alternatives[pass % 2], words, device);
        start_copy_to_host(alternatives, bytes).map(drop)
    }

    /// Alternatives of an arrived pass.
    fn read(&self, counts: &[(usize, usize)], pass: usize) -> Alternatives {
        let bytes = self.host_alternatives[pass % 2].as_ref();
        let words = bytes
            .into_iter()
            .flat_map(|host| host.bytes().chunks_exact(size_of::<u32>()));
        let words: Vec<u32> = words.map(word).collect();
        let mut pairs = words.as_chunks().0;
        let read = |&(index, count): &(usize, usize)| {
            let own;
            (own, pairs) = pairs.split_at(count.min(pairs.len()));
            (index, read_alternatives(own))
        };
        counts.iter().map(read).collect()
    }
}

/// The first `words` of a tensor, which is replaced where it is shorter.
fn of_words(tensor: &mut Option<Tensor>, words: usize, device: &Device) -> Result<Tensor> {
    let large = tensor
        .take()
        .filter(|tensor| tensor.elem_count() >= words.max(1));
    let tensor = match large {
        Some(large) => tensor.insert(large),
        None => tensor.insert(Tensor::zeros(
            words.next_power_of_two(),
            DType::U32,
            device,
        )?),
    };
    tensor.narrow(0, 0, words)
}

/// The first `words` of a buffer that no pass under way uses.
fn host_bytes<'b>(
    buffer: &'b mut Option<HostBuffer>,
    words: usize,
    device: &Device,
) -> &'b mut [u8] {
    let bytes = words * size_of::<u32>();
    let large = buffer.take().filter(|buffer| buffer.bytes().len() >= bytes);
    let large = large.unwrap_or_else(|| HostBuffer::new(bytes.next_power_of_two(), device));
    &mut buffer.insert(large).bytes_mut()[..bytes]
}

/// What a recorded graph depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct GraphKey {
    rows: usize,
    longest: usize,
    adapters: Adapters,
    /// Rank per adapter, if there are several.
    slot: usize,
    /// Ends with logits, which are sampled for masks or in shapes.
    keeps_logits: bool,
}

/// Numbers of the results of a layer's kernels a row, of most models.
const LAYER_NUMBERS: usize = 1 << 16;
/// Rows up to which a pass is so short that a kernel's start counts.
const MAX_CHUNKED_ROWS: usize = 64;

/// Allocations of a recorded pass hold about a layer's results.
fn chunk(rows: usize) -> usize {
    match rows {
        ..=MAX_CHUNKED_ROWS => rows * LAYER_NUMBERS,
        _ => 0,
    }
}

/// Input words per row.
const WORDS: usize = 13;
/// Words per sampled token.
const SAMPLED_WORDS: usize = 2;

impl Steps {
    pub(super) fn new(most_rows: usize, model: &Decoder) -> Result<Self> {
        let (most_rows, device) = (padded(most_rows, 4), model.device());
        let experts = model
            .expert_layers()
            .map(|layers| ExpertBuffers::new(layers, most_rows, device))
            .transpose()?;
        Ok(Self {
            inputs: Tensor::zeros(WORDS * most_rows, DType::U32, device)?,
            sampled: Tensor::zeros((most_rows, 2), DType::U32, device)?,
            host: [(); 2].map(|()| {
                HostBuffer::new(
                    most_rows * (WORDS + SAMPLED_WORDS) * size_of::<u32>(),
                    device,
                )
            }),
            started: VecDeque::new(),
            passes: 0,
            longest: None,
            graphs: HashMap::new(),
            unrecorded: None,
            logits: None,
            shaping: ShapingBuffers::default(),
            experts,
            records_experts: false,
        })
    }

    /// Why recording failed.
    pub(super) fn unrecorded(&self) -> Option<String> {
        self.unrecorded.clone()
    }

    /// Maximum rows of a pass.
    pub(super) fn most_rows(&self) -> usize {
        self.sampled.dims()[0]
    }

    /// Starts a pass of `rows` rows that samples after each fed token; read it by
    /// [`Steps::finish`]. At most two may be running. `masks` is called while the model computes,
    /// and returns the fed tokens' masks. Returns whether these were ready first.
    pub(super) fn start(
        &mut self,
        model: &Decoder,
        (adapters, slot): (Adapters, usize),
        caches: &KvCache,
        (feeds, rows): (&[Feed], usize),
        (masks, shaped): (Option<impl FnOnce() -> Vec<u32>>, &[ShapedRow]),
    ) -> Result<bool> {
        if self.started.len() == self.host.len() {
            bail!("a third pass of decoding before the first was read")
        }
        self.passes += 1;
        self.upload(feeds, rows)?;
        let fed = || {
            feeds
                .iter()
                .map(|feed| feed.position() + 1)
                .max()
                .unwrap_or(0)
        };
        let longest = self
            .longest
            .unwrap_or_else(|| fed().next_power_of_two().max(512));
        let key = GraphKey {
            rows,
            longest,
            adapters,
            slot,
            keeps_logits: masks.is_some() || !shaped.is_empty(),
        };
        if key.keeps_logits && self.logits.is_none() {
            self.logits = Some(LogitBuffers::new(
                self.most_rows(),
                model.config().vocab_size,
                model.device(),
            )?);
        }
        let step = |steps: &Self| steps.step(model, caches, key);
        match self.graphs.get(&key) {
            None => {
                step(self)?;
                self.graphs.insert(key, None);
            }
            Some(None) if self.unrecorded.is_some() => step(self)?,
            Some(None) => match Graph::record(model.device(), chunk(rows), || step(self)) {
                Ok(graph) => {
                    graph.start()?;
                    self.graphs.insert(key, Some(graph));
                }
                Err(error) => {
                    self.unrecorded = Some(error.to_string());
                    step(self)?;
                }
            },
            Some(Some(graph)) => graph.start()?,
        }
        let mut is_hidden = false;
        if key.keeps_logits {
            let computed = mark(model.device())?;
            let words = masks.map(|masks| masks());
            is_hidden = words.is_some() && !computed.has_arrived();
            self.sample_logits(words.as_deref(), shaped, feeds.len())?;
        }
        let experts = self.experts.as_mut().filter(|_| self.records_experts);
        let expert_words =
            experts.map_or(Ok(0), |experts| experts.start_copy(rows, self.passes))?;
        let sampled = self.sampled.narrow(0, 0, feeds.len())?;
        let bytes = sampled_bytes(self.host[self.passes % 2].bytes_mut(), feeds.len());
        // Arrives last.
        let arriving = start_copy_to_host(&sampled, bytes)?;
        self.started.push_back(StartedPass {
            tokens: feeds.len(),
            expert_words,
            alternatives: shaped
                .iter()
                .map(|row| (row.row, row.shaping.alternatives))
                .collect(),
            arriving,
        });
        Ok(is_hidden)
    }

    /// Starts sampling `rows` rows of the last pass.
    fn sample_logits(
        &mut self,
        words: Option<&[u32]>,
        shaped: &[ShapedRow],
        rows: usize,
    ) -> Result<()> {
        let Some(LogitBuffers {
            logits,
            masks,
            host,
        }) = &mut self.logits
        else {
            return Ok(());
        };
        let mut uploaded = None;
        if let Some(words) = words {
            let bytes = &mut host.bytes_mut()[..size_of_val(words)];
            for (place, word) in bytes.chunks_exact_mut(size_of::<u32>()).zip(words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            let masks = masks.narrow(0, 0, words.len())?;
            copy_to_device(bytes, &masks)?;
            uploaded = Some(masks.reshape((rows, words.len() / rows))?);
        }
        let logits = logits.narrow(0, 0, rows)?;
        let params = self.inputs.narrow(0, 0, 4 * rows)?.reshape((rows, 4))?;
        let sampled = self.sampled.narrow(0, 0, rows)?;
        let options = match shaped {
            [] => None,
            _ => Some(self.shaping.upload(shaped, self.passes, logits.device())?),
        };
        if let Some((options, _)) = &options {
            // Of the last pass's tokens, which the next call replaces.
            penalize(&logits, options, shaped.len(), &self.sampled)?;
        }
        match &uploaded {
            Some(masks) => sample_masked_into(&logits, &params, masks, &sampled)?,
            None => sample_into(&logits, &params, &sampled)?,
        }
        if let Some((options, alternatives)) = &options {
            let masked = (&logits, uploaded.as_ref());
            shape(masked, options, shaped.len(), &sampled, alternatives)?;
            self.shaping.start_copy(alternatives, self.passes)?;
        }
        Ok(())
    }

    /// Waits for the oldest pass, if any.
    pub(super) fn finish(&mut self) -> Result<Option<SampledPass>> {
        let Some(StartedPass {
            tokens,
            expert_words,
            alternatives,
            arriving,
        }) = self.started.pop_front()
        else {
            return Ok(None);
        };
        arriving.wait()?;
        let pass = self.passes - self.started.len();
        let pair = |pair: &[u8]| [word(pair), word(&pair[size_of::<u32>()..])];
        let bytes = sampled_bytes(self.host[pass % 2].bytes_mut(), tokens);
        let words = bytes
            .chunks_exact(SAMPLED_WORDS * size_of::<u32>())
            .map(pair)
            .collect::<Vec<_>>();
        let experts = self.experts.as_ref().filter(|_| expert_words > 0);
        Ok(Some(SampledPass {
            tokens: read_sampled(&words)?,
            experts: experts.map(|experts| experts.read(expert_words, pass)),
            alternatives: match alternatives.is_empty() {
                true => Alternatives::new(),
                false => self.shaping.read(&alternatives, pass),
            },
        }))
    }

    /// Uploads feeds, padded to `rows` by repeating the last, which writes neither keys and values nor
    /// a state.
    fn upload(&mut self, feeds: &[Feed], rows: usize) -> Result<()> {
        let feed = |index: usize| feeds[index.min(feeds.len() - 1)];
        let params = (0..rows).flat_map(|index| feed(index).params.words());
        let table = (0..rows).flat_map(|index| {
            let row = feed(index).row;
            [row.first, row.prefix.0, row.prefix.1, row.length].map(|number| number as u32)
        });
        let states = (0..rows).flat_map(|index| {
            let (before, after) = feed(index).row.states;
            if index < feeds.len() {
                [before as u32, after as u32]
            } else {
                [NO_STATE; 2]
            }
        });
        let tokens = (0..rows).map(|index| match feed(index).token {
            FedToken::Known(token) => token,
            FedToken::Sampled(index) => SAMPLED_AT | index as u32,
        });
        let positions = (0..rows).map(|index| feed(index).position() as u32);
        let words = params
            .chain(table)
            .chain(states)
            .chain(tokens)
            .chain(positions);
        let words = words.chain((0..rows).map(|index| feed(index).adapter));
        let bytes = &mut self.host[self.passes % 2].bytes_mut()[..rows * WORDS * size_of::<u32>()];
        for (place, word) in bytes.chunks_exact_mut(size_of::<u32>()).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        copy_to_device(bytes, &self.inputs.narrow(0, 0, WORDS * rows)?)
    }

    /// One pass, without the host.
    fn step(&self, model: &Decoder, caches: &KvCache, recorded: GraphKey) -> Result<()> {
        let GraphKey {
            rows,
            longest,
            adapters,
            slot,
            keeps_logits,
        } = recorded;
        let part = |first: usize, count: usize| self.inputs.narrow(0, first * rows, count * rows);
        let states = part(8, 2)?.reshape((rows, 2))?;
        let table = DecodeRows::Table {
            rows: part(4, 4)?.reshape((rows, 4))?,
            states,
            longest,
        };
        let tokens = gather_sampled(&part(10, 1)?, &self.sampled)?;
        let row_adapters = (slot > 0).then(|| part(12, 1)).transpose()?;
        let adapters = AdapterUse::for_rows(adapters, row_adapters.as_ref(), slot);
        let record = self
            .experts
            .as_ref()
            .map(|experts| experts.of_rows(rows))
            .transpose()?;
        let caches = (caches.layers(), record.as_ref());
        let logits = model.decode(&tokens, &part(11, 1)?, &table, caches, adapters)?;
        if let Some(buffers) = self.logits.as_ref().filter(|_| keeps_logits) {
            return buffers.logits.slice_set(&logits, 0, 0);
        }
        sample_into(
            &logits,
            &part(0, 4)?.reshape((rows, 4))?,
            &self.sampled.narrow(0, 0, rows)?,
        )
    }
}

impl Drop for Steps {
    /// Copies must finish before the host buffers are freed.
    fn drop(&mut self) {
        // A pass that failed is no reason not to wait for the one after it.
        while let Some(pass) = self.started.pop_front() {
            let _ = pass.arriving.wait();
        }
    }
}

/// The end of a host buffer, for `count` sampled tokens.
fn sampled_bytes(bytes: &mut [u8], count: usize) -> &mut [u8] {
    let start = bytes.len() / (WORDS + SAMPLED_WORDS) * WORDS;
    &mut bytes[start..start + count * SAMPLED_WORDS * size_of::<u32>()]
}

/// Rounds up to a fraction of the next power of two: `parts / 2` sizes are recorded between two
/// powers of two.
fn padded(rows: usize, parts: usize) -> usize {
    rows.next_multiple_of((rows.next_power_of_two() / parts).max(1))
}

#[cfg(test)]
mod tests {
    use super::padded;

    #[test]
    fn few_numbers_of_rows_are_recorded() {
        let check = |rows: usize, expected: usize| assert_eq!(padded(rows, 8), expected, "{rows}");
        check(1, 1);
        check(7, 7);
        check(9, 10);
        check(33, 40);
        check(64, 64);
        check(65, 80);
        check(500, 512);
        assert_eq!(
            [50, 65, 130, 193].map(|rows| padded(rows, 4)),
            [64, 96, 192, 256]
        );
    }
}
