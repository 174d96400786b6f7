//! The message for a run that does not fit: the largest parts, and changes that would make it fit.

use super::super::memory::{Memory, MemoryPart, Phase};
use super::GpuMemory;
use crate::config::{Recompute, TrainConfig};
use crate::format::bytes;

/// The fewest ranks, up to those of one large host, whose part of every weight's optimizer fits such a GPU each.
fn ranks_that_fit(config: &TrainConfig, fits: impl Fn(&TrainConfig) -> bool) -> Option<usize> {
    let wanted = |ranks: &usize| config.lora_rank == 0 && *ranks > config.ranks;
    [2, 4, 8].into_iter().filter(wanted).find(|&ranks| {
        fits(&TrainConfig {
            ranks,
            ..config.clone()
        })
    })
}

/// The most tokens of a completion that fit.
fn completion_that_fits(
    config: &TrainConfig,
    fits: impl Fn(&TrainConfig) -> bool,
) -> Option<usize> {
    let (mut fitting, mut above) = (0, config.max_completion_tokens);
    while above - fitting > 1 {
        let max_completion_tokens = usize::midpoint(fitting, above);
        let fits = fits(&TrainConfig {
            max_completion_tokens,
            ..config.clone()
        });
        *(if fits { &mut fitting } else { &mut above }) = max_completion_tokens;
    }
    (fitting > 0).then_some(fitting)
}

pub(super) fn refusal(
    config: &TrainConfig,
    memory: &Memory,
    gpu: GpuMemory,
    fits: impl Fn(&TrainConfig) -> bool,
) -> String {
    let sum = |phases: &[Phase]| {
        memory
            .parts
            .iter()
            .filter(|part| phases.contains(&part.phase))
            .map(|part| part.bytes)
            .sum::<u64>()
    };
    let on_gpu = |part: &&MemoryPart| part.phase != Phase::Host;
    let mut parts: Vec<&MemoryPart> = memory.parts.iter().filter(on_gpu).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    let largest: Vec<String> = parts
        .iter()
        .take(4)
        .map(|part| format!("{} {}", part.name, bytes(part.bytes)))
        .collect();
    let more_gpus = ranks_that_fit(config, &fits)
        .map(|ranks| format!("train on {ranks} such GPUs (--gpus {ranks})"));
    let shorter = completion_that_fits(config, &fits)
        .map(|tokens| format!("set max_completion_tokens = {tokens}, the most that fits"));
    let mut changes: Vec<&str> = more_gpus
        .as_deref()
        .into_iter()
        .chain(shorter.as_deref())
        .collect();
    let smaller = config.base_precision.smaller().iter().find(|&&precision| {
        let base_precision = precision;
        config.lora_rank > 0
            && fits(&TrainConfig {
                base_precision,
                ..config.clone()
            })
    });
    let smaller = smaller.map(|precision| format!("set base_precision = {precision}"));
    changes.extend(smaller.as_deref());
    if config.lora_rank == 0 {
        changes.push("train adapters instead of all weights (lora_rank = 16)");
        if config.kl_beta > 0.0 {
            changes.push("set kl_beta = 0, which saves the frozen copy");
        }
    } else if config.lora_rank > 16 {
        changes.push("lower lora_rank");
    }
    if sum(&[Phase::Rollout, Phase::Prefill, Phase::Decode])
        > sum(&[Phase::Training, Phase::Head, Phase::Backward])
    {
        changes.push("lower prompt_groups_per_step or completions_per_prompt");
    } else {
        changes.push("shorten the longest prompts");
    }
    if config.recompute_activations == Recompute::Never {
        changes.push("set recompute_activations = auto");
    }
    if config.gpu_memory_gib > 0 {
        changes.push("raise gpu_memory_gib");
    }
    if gpu.total_bytes - gpu.usable_bytes > 2 << 30 {
        changes.push("free the memory that other processes use there");
    }
    changes.push("take a smaller model or a larger GPU");
    format!(
        "{} {} of GPU memory, and {} of {} are free, even at the smallest micro-batch: {}; {}",
        if config.ranks > 1 {
            format!("each of {} GPUs needs", config.ranks)
        } else {
            "the run needs".to_owned()
        },
        bytes(memory.peak_bytes),
        bytes(gpu.usable_bytes),
        bytes(gpu.total_bytes),
        largest.join(", "),
        changes.join(", or ")
    )
}
