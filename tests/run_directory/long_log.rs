//! A long run's log, made up: the events that a training with 8 groups of 8 completions a step writes. Used by the
//! tests and by `cargo bench --bench history`.

use grpo_tui::facts::{PhaseKind, SaveReason, StopReason, Target, Tier};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use grpo_tui::advantage::GroupSignal;
use grpo_tui::run::events::{Checkpoint, Eval, Group, Phase, Run, Step};
use grpo_tui::run::{EvalSummary, Event, EventBody, TagSummary};

/// Names as the trainer writes them; the last three only in some steps.
const METRICS: [&str; 36] = [
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "groups/frac_mixed",
    "groups/frac_all_best",
    "groups/frac_all_worst",
    "groups/replaced",
    "tiers/unparsable",
    "tiers/invalid",
    "tiers/valid",
    "exact",
    "rewards/fields/mean",
    "completions/mean_length",
    "completions/min_length",
    "completions/max_length",
    "completions/clipped_ratio",
    "learning_rate",
    "loss",
    "entropy",
    "kl",
    "clip_ratio/low_mean",
    "clip_ratio/high_mean",
    "sampling/sampling_logp_difference/mean",
    "sampling/sampling_logp_difference/max",
    "time/rollout",
    "time/score",
    "time/update",
    "time/sync",
    "time/eval",
    "step_time",
    "tokens_per_second/rollout",
    "tokens_per_second/train",
    "entropy_of_valid",
    "grad_norm",
    "failures/wrong_type",
    "failures/cut",
];

/// Numbers in [0, 1) that look like measurements.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Appends the lines of steps `first..=last` to the log at `path`, as the trainer would; returns the next sequence
/// number.
pub(crate) fn write_steps(path: &Path, first: u64, last: u64, mut seq: u64) -> u64 {
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    let mut noise = Noise(first);
    let mut add = |body: EventBody, step: u64| {
        file.write_all(
            &Event {
                seq,
                time_ms: 1_795_184_525_000 + 900 * step,
                body,
            }
            .to_line()
            .unwrap(),
        )
        .unwrap();
        seq += 1;
    };
    if first == 1 {
        add(
            Run {
                id: "long".into(),
                job: grpo_tui::facts::Job::Train,
                total_steps: last,
                ..Run::default()
            }
            .into(),
            0,
        );
    }
    for step in first..=last {
        for phase in [PhaseKind::Rollout, PhaseKind::Update] {
            add(Phase { step, phase }.into(), step);
        }
        for line in 1..=8 {
            add(
                group(step, (step - 1) % 100 * 8 + line, &mut noise).into(),
                step,
            );
        }
        let mut metrics = BTreeMap::new();
        for (index, name) in METRICS.iter().enumerate() {
            if index < 33 || noise.next() < [0.9, 0.3, 0.02][index - 33] {
                metrics.insert((*name).to_owned(), noise.next());
            }
        }
        add(
            Step {
                step,
                seconds: 0.9,
                metrics,
                ..Step::default()
            }
            .into(),
            step,
        );
        if step % 50 == 0 {
            add(eval(step, &mut noise).into(), step);
            let removed = step.checked_sub(150).into_iter().collect();
            let path = format!("checkpoints/step-{step:06}");
            add(
                Checkpoint {
                    step,
                    path,
                    bytes: 80_000_000,
                    why: SaveReason::Eval,
                    removed,
                    ..Checkpoint::default()
                }
                .into(),
                step,
            );
        }
    }
    file.flush().unwrap();
    seq
}

fn group(step: u64, line: u64, noise: &mut Noise) -> Group {
    let rewards: Vec<f64> = (0..8)
        .map(|_| [0.0, 0.5, 1.0][(noise.next() * 3.0) as usize])
        .collect();
    Group {
        task: String::new(),
        replaced: false,
        step,
        prompt_id: format!("invoice-{:04}", (noise.next() * 200.0) as u64),
        tiers: rewards
            .iter()
            .map(|reward| {
                if *reward == 1.0 {
                    Tier::Valid
                } else {
                    Tier::Invalid
                }
            })
            .collect(),
        advantages: (0..8).map(|_| noise.next() * 2.0 - 1.0).collect(),
        call_seconds: Vec::new(),
        solved: Some(rewards.iter().filter(|reward| **reward == 1.0).count()),
        rewards,
        token_counts: (0..8).map(|_| (noise.next() * 200.0) as usize).collect(),
        stop_reasons: vec![StopReason::Stop; 8],
        signal: [
            GroupSignal::Mixed,
            GroupSignal::AllMax,
            GroupSignal::AllMin,
            GroupSignal::AllEqual,
        ][(noise.next() * 4.0) as usize],
        file: format!("rollouts/{:06}.jsonl", step.div_ceil(100) * 100),
        line,
    }
}

fn eval(step: u64, noise: &mut Noise) -> Eval {
    let tag = TagSummary {
        n: 10,
        valid: noise.next(),
        exact: Some(noise.next()),
        parse: noise.next(),
        ..TagSummary::default()
    };
    let by_tag = ["clean", "messy", "long", "dates", "currency"]
        .into_iter()
        .map(|name| (name.to_owned(), tag.clone()))
        .collect();
    let summary = EvalSummary {
        n: 50,
        valid: noise.next(),
        exact: Some(noise.next()),
        by_tag,
        with_expected: 50,
        ..EvalSummary::default()
    };
    let file = format!("evals/step-{step:06}-eval-trained.jsonl");
    Eval {
        step,
        set: "eval".into(),
        target: Target::Trained,
        summary,
        file,
        seconds: 3.5,
        ..Eval::default()
    }
}
