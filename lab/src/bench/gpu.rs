//! GPU benchmark at a model's shape: limits, prefill, decode and whole steps with random weights,
//! tokens and rewards.
//!
//! Stop tokens are off and no group is dropped, so that every figure measures the same work.

use std::time::Instant;

use candle_core::{Result, Tensor};

use super::timing::{Limits, REPEATS, median, seconds};
use super::{Measurement, policy_settings, random_tokens, requests, sampling};
use grpo_tui_core::config::{BasePrecision, Layers, Recompute, TrainConfig};
use grpo_tui_core::format::bytes;
use grpo_tui_core::hub::ModelConfig;
use grpo_tui_core::plan::{DataShape, GpuMemory, ModelShape, StepShape, fit};
use grpo_tui_engine::kernels::cuda_errors::is_out_of_memory;
use grpo_tui_engine::kernels::device::Engine;
use grpo_tui_engine::kernels::philox::philox;
use grpo_tui_engine::model::{Adapters, Decoder, PackedBatch, Trainable, Weights};
use grpo_tui_engine::rollout::{
    Completion, DecodeCounts, Request, RolloutMemory, RolloutOutput, Sampling, ThreadPool, generate,
};
use grpo_tui_engine::train::TrainError;
use grpo_tui_engine::update::{
    Optimizer, OptimizerSettings, PolicyGroup, PolicyStatistics, StepTotals, policy_gradient,
};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct GpuBench {
    pub prompt_tokens: usize,
    /// Tokens per completion.
    pub new_tokens: usize,
    /// Rank of adapters on all linear layers.
    pub lora_rank: usize,
    /// Whether experts have adapters too.
    pub lora_experts: bool,
    /// Precision of the frozen matrices.
    pub base_precision: BasePrecision,
    /// Batch sizes for decode.
    pub decode_batches: Vec<usize>,
    /// Prompts x completions of whole steps.
    pub steps: Vec<(usize, usize)>,
    /// Training tokens per forward.
    pub tokens_per_micro_batch: usize,
    /// Completion lengths for rollouts at the steps' shapes; empty: skipped.
    pub lengths: Vec<usize>,
    /// Tool calls for rollouts of conversations at the steps' shapes.
    pub tools: Option<ToolCalls>,
    /// Values to measure steps with; true: recompute activations.
    pub recompute: Vec<bool>,
}

/// Tool calls of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ToolCalls {
    /// Calls per conversation, which has one more completion.
    pub calls: usize,
    /// Duration of a call.
    pub milliseconds: u64,
    /// Length of a reply.
    pub reply_tokens: usize,
}

impl std::fmt::Display for ToolCalls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} calls of {} ms",
            self.calls, self.milliseconds
        )
    }
}

impl Default for GpuBench {
    /// Shapes measured for the peers in `docs/measurements`.
    fn default() -> Self {
        Self {
            prompt_tokens: 100,
            new_tokens: 64,
            lora_rank: 16,
            lora_experts: false,
            base_precision: BasePrecision::Bf16,
            decode_batches: vec![1, 4, 16, 64, 256],
            steps: vec![(1, 4), (8, 8), (32, 8)],
            tokens_per_micro_batch: 8192,
            lengths: Vec::new(),
            tools: None,
            recompute: vec![false, true],
        }
    }
}

/// Measures all figures for the shape `config`, passing each to `on_progress`. Micro-batches are
/// planned to fit memory. What does not fit is reported as missing, with its requirement.
///
/// # Errors
/// [`TrainError::DoesNotFit`] if the GPU cannot hold one sequence of the smallest step; a failed
/// tensor operation.
pub(super) fn measure_gpu(
    config: &ModelConfig,
    engine: &Engine,
    bench: &GpuBench,
    mut on_progress: impl FnMut(&Measurement),
) -> std::result::Result<Vec<Measurement>, TrainError> {
    let mut found = Vec::new();
    let mut note = |measurement: Measurement| {
        on_progress(&measurement);
        found.push(measurement);
    };
    let gpu = engine
        .memory()
        .map(|memory| GpuMemory::when_opened(memory, engine.dtype.size_in_bytes()));
    bench.plan(config, (1, 1), Recompute::Auto, gpu)?;
    let limits = Limits::measure(engine)?;
    engine.trim_memory()?;
    let mut device = |name, shape, value, unit| {
        note(Measurement::new(name, shape, 1, value, unit, None));
    };
    let tera = |rate: f64| rate / 1e12;
    device(
        "gemm",
        "8192^3",
        tera(limits.operations_per_second),
        "TFLOP/s",
    );
    device(
        "copy",
        "4 GiB read and written",
        tera(limits.bytes_per_second),
        "TB/s",
    );
    device(
        "launch",
        "one small kernel, host time",
        limits.launch_seconds * 1e6,
        "us",
    );
    let threads = ThreadPool::for_engine(engine, 1)?;
    let GpuBench {
        lora_rank: rank,
        lora_experts: has_experts,
        ..
    } = *bench;
    let lora = Trainable::Lora {
        rank,
        alpha: 2.0 * rank as f64,
        has_experts,
    };
    let start = Instant::now();
    let weights = Weights::fresh(config, 0).in_precision(bench.base_precision);
    let model = Decoder::new(config, &weights, lora, 0, engine.dtype, &engine.device)?;
    engine.synchronize()?;
    let seconds = start.elapsed().as_secs_f64();
    let (name, shape) = ("random weights", "made and loaded");
    note(Measurement::new(name, shape, 1, seconds, "s", None));
    // B starts as zeros; random values make the adapters' work real.
    let numbers = Tensor::rand(-1e-3_f32, 1e-3, model.parameters().count(), &engine.device)?;
    model.parameters().restore(&numbers)?;
    drop(numbers);
    engine.trim_memory()?;
    let shape = ModelShape::from_config(config);
    let work = Bench {
        config,
        shape,
        engine,
        bench,
        model: &model,
        threads: &threads,
        limits,
    };
    work.within(("prefill", "", 1), &mut note, |note| work.prefill(note))?;
    for adapters in [Adapters::On, Adapters::Off] {
        for &batch in &bench.decode_batches {
            let shape = format!("{} + {} tokens", bench.prompt_tokens, bench.new_tokens);
            work.within((decode_name(adapters), &shape, batch), &mut note, |note| {
                work.decode(batch, adapters, note)
            })?;
        }
    }
    if bench.tools.is_some() || !bench.lengths.is_empty() {
        let name = match bench.tools {
            Some(_) => "conversations",
            None => "rollout of lengths",
        };
        for &(prompts, completions) in &bench.steps {
            let batch = prompts * completions;
            work.within((name, "", batch), &mut note, |note| match bench.tools {
                Some(tools) => work.converse((prompts, completions), tools, note),
                None => work.replay(prompts, completions, note),
            })?;
        }
        return Ok(found);
    }
    for &recompute in &bench.recompute {
        for &(prompts, completions) in &bench.steps {
            let name = step_name(recompute);
            let shape = bench.step_shape(prompts, completions);
            let batch = prompts * completions;
            let setting = if recompute {
                Recompute::Always
            } else {
                Recompute::Never
            };
            match bench.plan(config, (prompts, completions), setting, gpu) {
                Ok(planned) => work.within((&name, &shape, batch), &mut note, |note| {
                    work.step(prompts, completions, planned, note)
                })?,
                Err(error) => note(Measurement::missing(
                    &name,
                    &shape,
                    batch,
                    &error.to_string(),
                )),
            }
        }
    }
    Ok(found)
}

impl GpuBench {
    /// Plans a step of `prompts` x `completions` to fit memory; as requested if memory is unknown.
    fn plan(
        &self,
        model: &ModelConfig,
        (prompts, completions): (usize, usize),
        recompute: Recompute,
        gpu: Option<GpuMemory>,
    ) -> std::result::Result<StepShape, TrainError> {
        let Some(gpu) = gpu else {
            return Ok(StepShape {
                tokens_per_micro_batch: self.tokens_per_micro_batch,
                recompute: recompute == Recompute::Always,
            });
        };
        let defaults = Layers::default().resolve()?.config;
        let config = TrainConfig {
            lora_rank: self.lora_rank,
            lora_experts: self.lora_experts,
            base_precision: self.base_precision,
            prompt_groups_per_step: prompts,
            completions_per_prompt: completions,
            max_completion_tokens: self.new_tokens,
            tokens_per_micro_batch: self.tokens_per_micro_batch,
            recompute_activations: recompute,
            weight_sync_interval: 1,
            kl_beta: 0.0,
            ..defaults
        };
        let data = DataShape {
            train_rows: prompts,
            mean_prompt_tokens: self.prompt_tokens as f64,
            longest_prompt_tokens: self.prompt_tokens,
            turns: 1,
            eval_rows: 0,
            test_rows: 0,
            teacher_parameters: 0,
        };
        Ok(fit(model, &config, &data, gpu)?.shape)
    }

    fn step_shape(&self, prompts: usize, completions: usize) -> String {
        format!(
            "{prompts} x {completions}, {} + {} tokens",
            self.prompt_tokens, self.new_tokens
        )
    }
}

fn step_name(recompute: bool) -> String {
    if recompute {
        "step, activations recomputed"
    } else {
        "step"
    }
    .to_owned()
}

fn decode_name(adapters: Adapters) -> &'static str {
    if adapters == Adapters::On {
        "decode"
    } else {
        "decode, adapters off"
    }
}

pub(super) struct Bench<'a> {
    pub(super) config: &'a ModelConfig,
    shape: ModelShape,
    pub(super) engine: &'a Engine,
    pub(super) bench: &'a GpuBench,
    pub(super) model: &'a Decoder,
    pub(super) threads: &'a ThreadPool,
    limits: Limits,
}

impl Bench<'_> {
    /// Runs a measurement that may exceed GPU memory: it is then reported missing, and the others
    /// continue.
    fn within<N: FnMut(Measurement)>(
        &self,
        (name, shape, batch): (&str, &str, usize),
        note: &mut N,
        work: impl FnOnce(&mut N) -> Result<()>,
    ) -> Result<()> {
        match work(note) {
            Err(error) if is_out_of_memory(&error) => {
                self.engine.trim_memory()?;
                let (free, total) = self.engine.memory().unwrap_or_default();
                let why = format!(
                    "GPU out of memory ({} of {} are used without it)",
                    bytes(total - free),
                    bytes(total)
                );
                note(Measurement::missing(name, shape, batch, &why));
                Ok(())
            }
            result => result,
        }
    }

    pub(super) fn requests(&self, prompts: usize, samples: usize) -> Vec<Request> {
        requests(
            prompts,
            samples,
            self.bench.prompt_tokens,
            self.config.vocab_size,
        )
    }

    fn sample(
        &self,
        adapters: Adapters,
        requests: &[Request],
        sampling: &Sampling,
        memory: &RolloutMemory,
    ) -> Result<RolloutOutput> {
        generate(
            self.model,
            adapters,
            requests,
            sampling,
            memory,
            self.threads,
        )
    }

    /// Minimum bytes moved by a decode step of `batch` tokens: all weights except the input
    /// embedding and unused experts (assuming a uniform router); recurrent states are read and
    /// written.
    fn step_bytes(&self, batch: usize) -> f64 {
        let shape = &self.shape;
        let number = self.engine.dtype.size_in_bytes();
        // Share of experts unused by one token.
        let unused = (shape.layer_matrices - shape.active_matrices) as f64;
        let share = self.config.options.experts.as_ref().map_or(0.0, |experts| {
            1.0 - experts.active as f64 / experts.count as f64
        });
        let matrices = shape.layer_matrices as f64 - unused * share.powi(batch as i32 - 1);
        let saving = shape.mxfp4_saving(number) as f64 * (1.0 - share.powi(batch as i32));
        (self.bench.base_precision).matrix_bytes(matrices as usize, number) as f64 - saving
            + (shape.head * number + batch * shape.state * 2 * size_of::<f32>()) as f64
    }

    fn prefill(&self, note: &mut impl FnMut(Measurement)) -> Result<()> {
        let (tokens, length) = (8192, 512.min(self.config.max_position_embeddings));
        let mut batch = PackedBatch::default();
        for n in 0..tokens / length {
            batch.push_prompt(&random_tokens(n, length, self.config.vocab_size));
        }
        for (name, adapters) in [
            ("prefill", Adapters::On),
            ("prefill, adapters off", Adapters::Off),
        ] {
            let seconds = seconds(self.engine, 3, || {
                self.model.forward(&batch, adapters).map(drop)
            })?;
            let operations = self
                .shape
                .forward_operations(tokens as f64, length as f64 / 2.0, 0.0);
            let of_limit = operations / seconds / self.limits.operations_per_second;
            let (batch, rate) = (tokens / length, tokens as f64 / seconds);
            let shape = format!("{batch} x {length} tokens");
            note(Measurement::new(
                name,
                &shape,
                batch,
                rate,
                "tokens/s",
                Some(of_limit),
            ));
        }
        Ok(())
    }

    /// New tokens per second, excluding everything before the second token.
    fn decode(
        &self,
        batch: usize,
        adapters: Adapters,
        note: &mut impl FnMut(Measurement),
    ) -> Result<()> {
        let requests = self.requests(batch.div_ceil(8), batch.min(8));
        let memory = RolloutMemory::default();
        let draw = |new_tokens| {
            let sampling = sampling(new_tokens);
            seconds(self.engine, 3, || {
                self.sample(adapters, &requests, &sampling, &memory)
                    .map(drop)
            })
        };
        let (whole, first) = (draw(self.bench.new_tokens)?, draw(1)?);
        let steps = (self.bench.new_tokens - 1) as f64;
        let step_seconds = (whole - first).max(1e-9) / steps;
        let name = decode_name(adapters);
        let shape = format!(
            "{} + {} tokens",
            self.bench.prompt_tokens, self.bench.new_tokens
        );
        let reading = self.step_bytes(batch) / self.limits.bytes_per_second;
        let computing = self.shape.forward_operations(
            batch as f64,
            self.bench.prompt_tokens as f64,
            batch as f64,
        ) / self.limits.operations_per_second;
        let (rate, floor) = (batch as f64 / step_seconds, reading.max(computing));
        let of_limit = Some(floor / step_seconds);
        note(Measurement::new(
            name, &shape, batch, rate, "tokens/s", of_limit,
        ));
        Ok(())
    }

    /// Requests for completions of the bench's lengths, in random order; and all lengths.
    pub(super) fn requests_of_lengths(
        &self,
        prompts: usize,
        completions: usize,
    ) -> (Vec<Request>, Vec<usize>) {
        let known = &self.bench.lengths;
        let lengths: Vec<usize> = (0..(prompts * completions) as u32)
            .map(|row| known[philox(2, [row, 0, 0, 0])[0] as usize % known.len()].max(1))
            .collect();
        let mut requests = self.requests(prompts, completions);
        for (request, lengths) in requests.iter_mut().zip(lengths.chunks(completions)) {
            request.lengths = lengths.to_vec();
        }
        (requests, lengths)
    }

    /// Rollouts of completions of the bench's lengths.
    fn replay(
        &self,
        prompts: usize,
        completions: usize,
        note: &mut impl FnMut(Measurement),
    ) -> Result<()> {
        let batch = prompts * completions;
        let (requests, lengths) = self.requests_of_lengths(prompts, completions);
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let (sampling, memory) = (sampling(longest), RolloutMemory::default());
        let mut counts = DecodeCounts::default();
        let seconds = seconds(self.engine, 3, || {
            counts = self
                .sample(Adapters::On, &requests, &sampling, &memory)?
                .counts;
            Ok(())
        })?;
        let tokens = lengths.iter().sum::<usize>() as f64;
        let shape = format!(
            "{prompts} x {completions}, {} + {:.0} tokens on average, at most {longest}",
            self.bench.prompt_tokens,
            tokens / batch as f64
        );
        let mut figure = |what: &str, value, unit| {
            let name = format!("rollout of lengths{what}");
            note(Measurement::new(&name, &shape, batch, value, unit, None));
        };
        let live = counts.rows as f64 / counts.computed.max(1) as f64;
        figure("", seconds, "s");
        figure(": speed", tokens / seconds, "tokens/s");
        figure(": rows live", 100.0 * live, "%");
        Ok(())
    }

    /// Whole steps: rollout, random rewards, gradient, optimizer.
    fn step(
        &self,
        prompts: usize,
        completions: usize,
        planned: StepShape,
        note: &mut impl FnMut(Measurement),
    ) -> Result<()> {
        let recompute = planned.recompute;
        let settings = policy_settings(
            self.bench.new_tokens,
            planned.tokens_per_micro_batch,
            recompute,
        );
        let small_steps = OptimizerSettings {
            learning_rate: 1e-6,
            ..OptimizerSettings::PLAIN
        };
        let mut optimizer =
            Optimizer::new(small_steps, self.model.parameters(), &self.engine.device)?;
        self.engine.trim_memory()?;
        let requests = self.requests(prompts, completions);
        let (sampling, memory) = (sampling(self.bench.new_tokens), RolloutMemory::default());
        let (mut rollouts, mut updates, mut rows, mut gap) = (Vec::new(), Vec::new(), 0, 0.0);
        let sample = |sampling: &Sampling| {
            let output = self.sample(Adapters::On, &requests, sampling, &memory)?;
            Ok::<_, candle_core::Error>(output.completions)
        };
        let gradient = |sampled: &[Vec<Completion>]| {
            let sequences = prompts * completions;
            let totals = StepTotals {
                sequences,
                tokens: sequences * self.bench.new_tokens,
            };
            let groups = requests
                .iter()
                .zip(sampled)
                .map(|(request, group)| PolicyGroup::alternating(&request.prompt, group));
            policy_gradient(
                self.model,
                &groups.collect::<Vec<_>>(),
                totals,
                &settings,
                self.threads,
            )
        };
        let difference = |statistics: &PolicyStatistics| {
            statistics.sampling_difference / statistics.tokens.max(1) as f64
        };
        let whole = median(REPEATS, || {
            let start = Instant::now();
            let sampled = sample(&sampling)?;
            let rollout = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let (gradients, statistics) = gradient(&sampled)?;
            optimizer.apply(self.model.parameters(), &gradients)?;
            self.engine.synchronize()?;
            let update = start.elapsed().as_secs_f64();
            rows = statistics.rows;
            gap = difference(&statistics);
            rollouts.push(rollout);
            updates.push(update);
            Ok(rollout + update)
        })?;
        let middle = |found: Vec<f64>| {
            let (repeats, mut found) = (found.len() - 1, found.into_iter());
            median(repeats, || Ok(found.next().unwrap_or_default()))
        };
        let (rollout, update) = (middle(rollouts)?, middle(updates)?);
        let mut shape = self.bench.step_shape(prompts, completions);
        if planned.tokens_per_micro_batch < self.bench.tokens_per_micro_batch {
            shape += &format!(", micro-batches of {}", planned.tokens_per_micro_batch);
        }
        let (batch, label) = (prompts * completions, step_name(recompute));
        let of_rollout = self.rollout_floor(prompts, batch) / rollout;
        let floor = self.training_floor(batch, rows, recompute);
        let of_limit = (self.rollout_floor(prompts, batch) + floor) / whole;
        let mut figure = |what: &str, value, unit, of_limit| {
            let name = format!("{label}{what}");
            note(Measurement::new(
                &name, &shape, batch, value, unit, of_limit,
            ));
        };
        figure("", whole, "s", Some(of_limit));
        figure(": rollout", rollout, "s", Some(of_rollout));
        figure(": update", update, "s", Some(floor / update));
        figure(": |trainer - sampler logprob|", gap, "nats", None);
        if self.config.options.experts.is_some() {
            let free = sample(&Sampling {
                records_experts: false,
                ..sampling
            })?;
            let gap = difference(&gradient(&free)?.1);
            figure(": without router replay", gap, "nats", None);
        }
        if let Some(bytes) = self.engine.memory_in_use() {
            let held = bytes as f64 / f64::from(1 << 30);
            figure(": memory held", held, "GiB", None);
        }
        Ok(())
    }

    /// Lower bound in seconds at the device's limits: the longer of reading [`Self::step_bytes`]
    /// and computing, per token.
    fn rollout_floor(&self, prompts: usize, batch: usize) -> f64 {
        let prompt = self.bench.prompt_tokens as f64;
        let new = self.bench.new_tokens as f64;
        let limits = self.limits;
        let prefill =
            self.shape
                .forward_operations(prompts as f64 * prompt, prompt / 2.0, prompts as f64)
                / limits.operations_per_second;
        let reading = self.step_bytes(batch) / limits.bytes_per_second;
        let computing =
            self.shape
                .forward_operations(batch as f64, prompt + new / 2.0, batch as f64)
                / limits.operations_per_second;
        prefill + (new - 1.0) * reading.max(computing)
    }

    fn training_floor(&self, batch: usize, rows: usize, recompute: bool) -> f64 {
        let new = self.bench.new_tokens as f64;
        let context = self.bench.prompt_tokens as f64 / 2.0 + new / 2.0;
        let forward = self
            .shape
            .forward_operations(rows as f64, context, batch as f64 * new);
        // Frozen matrices have no gradient: the backward costs as much as the forward.
        let passes = if recompute { 3.0 } else { 2.0 };
        forward * passes / self.limits.operations_per_second
    }
}
