//! CPU benchmark: matmul, prefill, decode and training at a model's shape.

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};

use super::{Measurement, policy_settings, random_tokens, requests, sampling};
use grpo_tui_core::hub::ModelConfig;
use grpo_tui_engine::model::{Adapters, Decoder, PackedBatch, Trainable, Weights};
use grpo_tui_engine::rollout::{
    Completion, Request, RolloutMemory, StopReason, ThreadPool, generate,
};
use grpo_tui_engine::update::{PolicyGroup, StepTotals, policy_gradient};

const PROMPT_TOKENS: usize = 90;
const NEW_TOKENS: usize = 48;

/// Measures all figures for the shape `config`.
pub(super) fn measure_cpu(config: &ModelConfig, threads: &ThreadPool) -> Result<Vec<Measurement>> {
    let weights = Weights::fresh(config, 0);
    let model = Decoder::new(
        config,
        &weights,
        Trainable::Full,
        0,
        DType::F32,
        &Device::Cpu,
    )
    .map_err(candle_core::Error::wrap)?;
    let limit = gemm(threads)?;
    // Two operations per weight that a token uses.
    let operations = 2.0
        * (model.parameters().count()
            - if config.tie_word_embeddings {
                0
            } else {
                config.vocab_size * config.hidden_size
            }) as f64;
    let share = |tokens_per_second: f64, passes: f64| {
        Some(tokens_per_second * operations * passes / limit.value / 1e9)
    };
    let mut found = vec![limit.clone()];
    let rate = |name: &str, shape: &str, batch, value: f64, passes| {
        Measurement::new(name, shape, batch, value, "tokens/s", share(value, passes))
    };
    let prompts = requests(64, 1, PROMPT_TOKENS, config.vocab_size);
    let speed = prefill(&model, &prompts, threads)?;
    let shape = format!("{PROMPT_TOKENS} tokens");
    found.push(rate("prefill", &shape, 64, speed, 1.0));
    let shape = format!("{PROMPT_TOKENS} + {NEW_TOKENS} tokens");
    for batch in [1, 8, 64] {
        let speed = decode(&model, batch, threads)?;
        found.push(rate("decode", &shape, batch, speed, 1.0));
    }
    let (rows, completion) = train(&model, threads)?;
    let shape = format!("8 x 8, {shape}");
    let name = "train, tokens forwarded with gradient";
    found.push(rate(
        name,
        &format!("{shape}, prompts shared"),
        64,
        rows,
        3.0,
    ));
    found.push(rate(
        "train, completion tokens",
        &shape,
        64,
        completion,
        3.0,
    ));
    Ok(found)
}

/// Seconds of one call: best of three after a warm-up.
fn seconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Matrix products on all threads: the processor's limit.
fn gemm(threads: &ThreadPool) -> Result<Measurement> {
    const SIZE: usize = 384;
    let matrix = Tensor::ones((SIZE, SIZE), DType::F32, &Device::Cpu)?;
    let work: Vec<usize> = (0..threads.count()).collect();
    let repeats = 20;
    let seconds = seconds(|| {
        threads.map(&work, |_| {
            for _ in 0..repeats {
                std::hint::black_box(matrix.matmul(&matrix)?);
            }
            Ok(())
        })?;
        Ok(())
    })?;
    let value = (2 * SIZE * SIZE * SIZE * repeats * work.len()) as f64 / seconds / 1e9;
    let (shape, batch) = (format!("{SIZE}^3 f32"), work.len());
    Ok(Measurement::new(
        "gemm",
        &shape,
        batch,
        value,
        "GFLOP/s",
        Some(1.0),
    ))
}

fn prefill(model: &Decoder, prompts: &[Request], threads: &ThreadPool) -> Result<f64> {
    let batches: Vec<PackedBatch> = prompts
        .chunks(8)
        .map(|chunk| {
            let mut batch = PackedBatch::default();
            for request in chunk {
                batch.push_prompt(&request.prompt);
            }
            batch
        })
        .collect();
    let seconds = seconds(|| {
        threads
            .map(&batches, |batch| model.forward(batch, Adapters::On))
            .map(drop)
    })?;
    Ok((prompts.len() * PROMPT_TOKENS) as f64 / seconds)
}

/// New tokens per second, excluding prefill.
fn decode(model: &Decoder, batch: usize, threads: &ThreadPool) -> Result<f64> {
    let requests = requests(
        batch.div_ceil(8),
        batch.min(8),
        PROMPT_TOKENS,
        model.config().vocab_size,
    );
    let memory = RolloutMemory::default();
    let sample = |new_tokens| {
        let sampling = sampling(new_tokens);
        seconds(|| generate(model, Adapters::On, &requests, &sampling, &memory, threads).map(drop))
    };
    let (whole, start) = (sample(NEW_TOKENS)?, sample(1)?);
    Ok((batch * (NEW_TOKENS - 1)) as f64 / (whole - start).max(1e-9))
}

/// Rows and completion tokens per second of an 8 x 8 step, prompts computed once per group.
fn train(model: &Decoder, threads: &ThreadPool) -> Result<(f64, f64)> {
    let vocabulary = model.config().vocab_size;
    let completion = |number: usize| {
        let token_ids = random_tokens(1000 + number, NEW_TOKENS, vocabulary);
        Completion::new(token_ids, vec![-1.0; NEW_TOKENS], StopReason::Length)
    };
    let prompts = requests(8, 8, PROMPT_TOKENS, vocabulary);
    let completions = (0..64).map(completion).collect::<Vec<_>>();
    let groups: Vec<PolicyGroup<'_>> = prompts
        .iter()
        .zip(completions.chunks(8))
        .map(|(request, group)| PolicyGroup::alternating(&request.prompt, group))
        .collect();
    let settings = policy_settings(NEW_TOKENS, 1024, false);
    let totals = StepTotals {
        sequences: 64,
        tokens: 64 * NEW_TOKENS,
    };
    let mut rows = 0;
    let seconds = seconds(|| {
        rows = policy_gradient(model, &groups, totals, &settings, threads)?
            .1
            .rows;
        Ok(())
    })?;
    Ok((rows as f64 / seconds, (64 * NEW_TOKENS) as f64 / seconds))
}
