//! Plans of Qwen3-8B on GPUs of several sizes.

use super::super::shape::tests::{DATA, config, qwen3_8b};
use super::*;

fn h200() -> GpuMemory {
    GpuMemory::when_opened((149_500_000_000, 150_100_000_000), 2)
}

fn card(gb: u64) -> GpuMemory {
    GpuMemory {
        usable_bytes: gb * 1_000_000_000,
        total_bytes: gb * 1_000_000_000,
        number_bytes: 2,
    }
}

fn of(memory: &Memory, name: &str) -> f64 {
    memory
        .parts
        .iter()
        .find(|part| part.name == name)
        .map_or(0.0, |part| part.bytes as f64 / 1e9)
}

/// Qwen3-8B on one H200: LoRA of rank 32, 32 prompts x 8 of at most 256 new tokens, micro-batches of 16k tokens.
#[test]
fn qwen3_8b_with_adapters() {
    let set = [
        "lora_rank=32",
        "prompt_groups_per_step=32",
        "max_completion_tokens=256",
        "tokens_per_micro_batch=16000",
    ];
    let config = config(&set);
    let shape = StepShape {
        recompute: true,
        ..StepShape::for_config(&config)
    };
    let found = gpu_memory(&qwen3_8b(), &config, &DATA, shape, h200());
    let check = |name, expected: f64| {
        assert!(
            (of(&found, name) - expected).abs() < 0.06,
            "{name}: {}",
            of(&found, name)
        )
    };
    check("weights", 16.4);
    check("trained parameters (f32)", 0.35);
    check("AdamW moments (f32)", 0.70);
    check("adapters as used", 0.38);
    check("gradients (f32)", 0.35);
    // 16,000 tokens x (37 x 4,096 x 4 + 4,096 x 2) bytes.
    check("layer inputs", 9.83);
    check("logits of a head chunk and gradient", 0.93 + 0.39);
    // 500 rows of the test set x 256 tokens x 144 KiB.
    check("KV cache, completions", 18.87);
    // As many prompts of 250 tokens.
    check("KV cache, prompts", 18.43);
    check("rotary tables", 0.02);
    assert_eq!(
        of(&found, "frozen reference"),
        0.0,
        "the adapters off are the reference"
    );
    assert!(
        (50e9..60e9).contains(&(found.peak_bytes as f64)),
        "{}",
        found.peak_bytes
    );
    assert_eq!(found.peak_bytes, found.peak_recomputed_bytes);
    // Kept instead, without what follows: 36 layers x (34,816 x 2 + 8,192 x 4) bytes are 3.7 MB a token.
    let without = gpu_memory(
        &qwen3_8b(),
        &config,
        &DATA,
        StepShape {
            recompute: false,
            ..shape
        },
        h200(),
    );
    assert!(
        (of(&without, "activations") - 16_000.0 * 3.711e-3).abs() < 0.2
            && without.peak_recomputed_bytes == found.peak_bytes
    );
}

#[test]
fn a_quantized_base_takes_a_byte_or_half_a_number_of_its_layers() {
    let planned = |set: &[&str]| {
        let config = config(set);
        gpu_memory(
            &qwen3_8b(),
            &config,
            &DATA,
            StepShape::for_config(&config),
            h200(),
        )
    };
    let bf16 = planned(&[]);
    assert_eq!(of(&bf16, EMBEDDINGS[0]), 0.0);
    // 36 layers of 192.9 million numbers, in NF4 4.13 bits each; the head stays, the embedding leaves the GPU.
    for (set, expected) in [
        ("base_precision=fp8", 6.945),
        ("base_precision=nf4", 10.307),
    ] {
        let quantized = planned(&[set]);
        let embedding = of(&quantized, EMBEDDINGS[0]);
        assert!((embedding - 1.2447).abs() < 1e-4, "{embedding}");
        let saved = of(&bf16, "weights") - of(&quantized, "weights") - embedding;
        assert!((saved - expected).abs() < 0.01, "{set}: {saved}");
        let is_host = |part: &&MemoryPart| part.phase == Phase::Host;
        let host: Vec<_> = quantized.parts.iter().filter(is_host).cloned().collect();
        assert_eq!((host.len(), peak(&host)), (1, 0));
        let ranks = of(&planned(&[set, "ranks=2"]), EMBEDDINGS[1]);
        assert_eq!(ranks, 2.0 * embedding);
        assert!(of(&quantized, "adapters as used") < of(&bf16, "adapters as used"));
    }
}

/// 19.11 of 20.91 billion numbers take 4.25 bits each.
#[test]
fn experts_in_mxfp4_stay_so_in_bf16() {
    let model = crate::hub::named_shape("gpt-oss-20b").unwrap();
    let weights = |number_bytes| {
        let gpu = GpuMemory {
            number_bytes,
            ..h200()
        };
        let config = config(&[]);
        let shape = StepShape::for_config(&config);
        of(&gpu_memory(&model, &config, &DATA, shape, gpu), "weights")
    };
    for (number_bytes, expected) in [(2, 13.76), (4, 83.66)] {
        let found = weights(number_bytes);
        assert!((found - expected).abs() < 0.02, "{found}");
    }
}

#[test]
fn every_weight_has_a_master_a_working_copy_two_moments_and_one_gradient() {
    let found = gpu_memory(
        &qwen3_8b(),
        &config(&["lora_rank=0", "kl_beta=0.001"]),
        &DATA,
        StepShape::for_config(&config(&[])),
        h200(),
    );
    let check = |name, expected: f64| {
        assert!(
            (of(&found, name) - expected).abs() < 0.06,
            "{name}: {}",
            of(&found, name)
        )
    };
    check("weights", 16.38);
    check("trained parameters (f32)", 32.76);
    check("AdamW moments (f32)", 65.53);
    check("gradients (f32)", 32.76);
    check("frozen reference", 16.38);
}

#[test]
fn ranks_divide_what_an_optimizer_of_every_weight_moves() {
    let memory = |set: &[&str]| {
        let config = config(&[&["prompt_groups_per_step=8"], set].concat());
        gpu_memory(
            &qwen3_8b(),
            &config,
            &DATA,
            StepShape {
                recompute: true,
                ..StepShape::for_config(&config)
            },
            h200(),
        )
    };
    let four = memory(&["lora_rank=0", "ranks=4"]);
    let check = |name, expected: f64| {
        assert!(
            (of(&four, name) - expected).abs() < 0.06,
            "{name}: {}",
            of(&four, name)
        )
    };
    check("weights", 16.38);
    check("trained parameters (f32, sharded)", 32.76 / 4.0);
    check("AdamW moments (f32, sharded)", 65.53 / 4.0);
    check("gradients (f32)", 32.76);
    check("NCCL (allowance)", 1.07);
    assert!((four.peak_bytes as f64) < 100e9, "{}", four.peak_bytes);
    // Adapters are small: every rank moves all.
    let adapters = [
        memory(&["lora_rank=16"]),
        memory(&["lora_rank=16", "ranks=4"]),
    ];
    assert_eq!(
        adapters[1].peak_bytes - adapters[0].peak_bytes,
        NCCL_BYTES as u64
    );
    let fitted = |ranks: &str| fit(&qwen3_8b(), &config(&["lora_rank=0", ranks]), &DATA, h200());
    assert!(fitted("ranks=2").is_ok() && fitted("ranks=8").is_ok());
    let message = fitted("ranks=1").unwrap_err().message;
    assert!(
        message.contains("; train on 2 such GPUs (--gpus 2), or train adapters"),
        "{message}"
    );
}

#[test]
fn a_rollout_is_bounded_by_its_caches() {
    // Of 80 GB adapters leave 16 completions of 16,384 tokens beside prompts.
    let all = |base, trained| gpu_rollout_places(&qwen3_8b(), base, trained, card(80));
    let places = |base, trained| all(base, trained).of_completions(usize::MAX, usize::MAX);
    assert_eq!(places(BasePrecision::Bf16, 43_646_976) / 16_384, 16);
    // Three quarters of the 10.3 GB that the matrices save in NF4, and of the 1.24 GB of the embedding.
    assert_eq!(places(BasePrecision::Nf4, 43_646_976) / 16_384, 19);
    // 144 KiB a token: beside all weights' optimizer 16.4 GB are 512 rows of 217 tokens.
    assert_eq!(places(BasePrecision::Bf16, 8_190_735_360) / 217, 511);
    // Short completions leave their places to prompts.
    let short = all(BasePrecision::Bf16, 43_646_976);
    let slots = short.of_completions(512 * 64, 64 * 8000);
    assert_eq!(
        (slots, short.of_prompts(64 * 8000, slots)),
        (512 * 64, short.all - 512 * 64)
    );
    // Of a server three quarters of what is free, less what the longest prompt needs; beside a run as much as all weights left.
    let gpu = GpuMemory {
        usable_bytes: 60_000_000_000,
        ..card(80)
    };
    let server = |shares| gpu_server_places(&qwen3_8b(), BasePrecision::Bf16, gpu, shares).all;
    let held = server(false) * 147_456;
    assert!((43_000_000_000..45_000_000_000).contains(&held), "{held}");
    assert_eq!(server(true), all(BasePrecision::Bf16, 8_190_735_360).all);
    let of_free = |model: &ModelConfig, gigabytes: u64| {
        let gpu = GpuMemory {
            usable_bytes: gigabytes * 1_000_000_000,
            ..card(80)
        };
        gpu_server_places(model, BasePrecision::Bf16, gpu, false)
    };
    let found = [1, 12, 60].map(|free| of_free(&qwen3_8b(), free));
    let planned = gpu_prefill_rows(80_000_000_000);
    assert_eq!((found[0].all, found[0].longest_prompt), (0, planned));
    assert!(
        found[1].all > 0 && (planned + 1..40_960).contains(&found[1].longest_prompt),
        "{found:?}"
    );
    assert!(
        (40_960..41_000).contains(&found[2].longest_prompt),
        "{found:?}"
    );
    // Beside the states of 512 rows.
    let hybrid = crate::hub::named_shape("qwen3.5-9b").unwrap();
    let shape = ModelShape::from_config(&hybrid);
    let rows = gpu_decode_rows(&hybrid, 2, 80_000_000_000);
    let held = of_free(&hybrid, 60).all * shape.key_values_per_token * 2;
    let states = rows * shape.state * STATE_BYTES;
    assert!(
        states > 10_000_000_000 && held + states < 54_000_000_000,
        "{states} {held}"
    );
    // A card of 24 GB with 18 GB of weights decodes fewer rows, whose states leave room for tokens.
    let gpu = GpuMemory {
        usable_bytes: 6_500_000_000,
        ..card(24)
    };
    let small = gpu_server_places(&hybrid, BasePrecision::Bf16, gpu, false);
    assert!(
        (8..gpu_decode_rows(&hybrid, 2, 24_000_000_000)).contains(&small.rows) && small.all > 2048,
        "{small:?}"
    );
    let held = small.rows * shape.state * STATE_BYTES + small.all * shape.key_values_per_token * 2;
    assert!(held < 4_000_000_000, "{held}");
    let long = DataShape {
        longest_prompt_tokens: 8000,
        turns: 1,
        ..DATA
    };
    let config = config(&["max_completion_tokens=64", "prompt_groups_per_step=64"]);
    let parts = rollout(&qwen3_8b(), &config, &long, h200());
    let prompts = parts
        .iter()
        .find(|(name, ..)| *name == "KV cache, prompts")
        .unwrap()
        .2;
    // All that 512 completions leave.
    let trained = trainable_parameters(&qwen3_8b(), &config);
    let most = gpu_rollout_places(&qwen3_8b(), BasePrecision::Bf16, trained, h200());
    assert_eq!(prompts, (most.all - 512 * 64) * 147_456);
}

#[test]
fn the_shape_follows_the_memory() {
    // Without evals, whose prefill would be the peak.
    let (model, data) = (
        qwen3_8b(),
        DataShape {
            eval_rows: 0,
            test_rows: 0,
            ..DATA
        },
    );
    let check = |set: &[&str], gigabytes: u64, expected: (usize, bool)| {
        let gpu = card(gigabytes);
        let found = fit(&model, &config(set), &data, gpu).unwrap();
        assert_eq!(
            (found.shape.tokens_per_micro_batch, found.shape.recompute),
            expected,
            "{set:?} {gigabytes}: {}",
            found.memory.peak_bytes
        );
        assert!(found.memory.peak_bytes <= gpu.usable_bytes);
    };
    let set = ["max_completion_tokens=256"];
    check(&set, 150, (8192, false));
    check(&set, 48, (8192, true));
    check(
        &["max_completion_tokens=256", "recompute_activations=always"],
        150,
        (8192, true),
    );
    // Halved from 2,298 tokens, a whole step; a single sequence is 506.
    let never = [
        "max_completion_tokens=256",
        "recompute_activations=never",
        "prompt_groups_per_step=1",
    ];
    check(&never, 27, (1149, false));
    check(&never, 23, (506, false));
    check(
        &[
            "max_completion_tokens=64",
            "prompt_groups_per_step=1",
            "tokens_per_micro_batch=100000",
        ],
        20,
        (314, true),
    );
}

#[test]
fn what_cannot_fit_is_refused_with_what_to_change() {
    let check = |set: &[&str], free: u64, expected: &[&str]| {
        let gpu = GpuMemory {
            usable_bytes: free * 1_000_000_000,
            total_bytes: 150_000_000_000,
            number_bytes: 2,
        };
        let found = fit(&qwen3_8b(), &config(set), &DATA, gpu).unwrap_err();
        for part in expected {
            assert!(
                found.message.contains(part),
                "{:?} lacks {part:?}",
                found.message
            );
        }
    };
    check(
        &["lora_rank=0"],
        150,
        &[
            "AdamW moments (f32) 65.5 GB",
            "150 GB of 150 GB are free",
            "lora_rank = 16",
            "a smaller model",
        ],
    );
    check(&["lora_rank=0", "kl_beta=0.1"], 150, &["kl_beta = 0"]);
    check(
        &["max_completion_tokens=1024"],
        20,
        &[
            "weights 16.4 GB",
            "; lower prompt_groups_per_step",
            "other processes",
        ],
    );
    check(
        &["lora_rank=256", "recompute_activations=never"],
        20,
        &["lower lora_rank", "recompute_activations = auto"],
    );
}

/// What an H100 of 80 GB takes, as `gpu-check` and docs/gpu.md say.
#[test]
fn an_h100_takes_long_answers_and_large_models() {
    let h100 = GpuMemory {
        usable_bytes: 84_900_000_000,
        total_bytes: 85_500_000_000,
        number_bytes: 2,
    };
    let found = |name: &str, set: &[&str]| {
        let model = crate::hub::named_shape(name).unwrap();
        let data = DataShape {
            longest_prompt_tokens: 512,
            ..DATA
        };
        fit(
            &model,
            &config(
                &[
                    &[
                        "max_seq_len=20000",
                        "prompt_groups_per_step=8",
                        "completions_per_prompt=8",
                    ],
                    set,
                ]
                .concat(),
            ),
            &data,
            h100,
        )
    };
    assert!(found("qwen3-8b", &["max_completion_tokens=16384"]).is_ok());
    assert!(found("qwen3-14b", &["max_completion_tokens=6144"]).is_ok());
    assert!(
        found(
            "qwen3-32b",
            &["max_completion_tokens=6144", "base_precision=fp8"]
        )
        .is_ok()
    );
    let message = found("qwen3-32b", &["max_completion_tokens=6144"])
        .unwrap_err()
        .message;
    assert!(message.contains("set base_precision = fp8"), "{message}");
    // 42 GB of weights, and 69 GB.
    assert!(found("gpt-oss-20b", &["max_completion_tokens=1024"]).is_ok());
    let message = found(
        "qwen3.5-35b-a3b",
        &["max_completion_tokens=6144", "lora_rank=256"],
    )
    .unwrap_err()
    .message;
    assert!(
        message.contains("weights 69.3") && !message.contains("fp8"),
        "{message}"
    );
}

/// Beside experts a mixture has adapters on its mixers and on the expert that every token uses.
#[test]
fn adapters_of_mixtures_are_counted_as_they_are_joined() {
    let check = |name: &str, layers: &[(usize, usize)]| {
        let model = crate::hub::named_shape(name).unwrap();
        let expected: usize = layers.iter().map(|(count, numbers)| count * numbers).sum();
        assert_eq!(
            joined_adapters(&model, &config(&["lora_rank=16"])),
            expected,
            "{name}"
        );
    };
    // ((outputs + 16 parts) x (inputs + 64) - outputs x inputs) + 16 outputs: of queries, keys and values, of the output.
    check("gpt-oss-20b", &[(24, 550_912 + 296_960)]);
    let (attention, output) = (
        9264 * 2112 - 9216 * 2048 + 16 * 9216,
        2064 * 4160 - 2048 * 4096 + 16 * 2048,
    );
    let delta = (12_352 + 64) * 2112 - 12_352 * 2048 + 16 * 12_352;
    let shared = 149_504 + 173_056 + 33_872; // gate and up, down, the gate's row
    check(
        "qwen3.5-35b-a3b",
        &[(10, attention + output), (30, delta + output), (40, shared)],
    );
}

#[test]
fn a_refusal_names_the_longest_completion_that_fits() {
    let data = DataShape {
        eval_rows: 0,
        test_rows: 0,
        ..DATA
    };
    let gpu = GpuMemory {
        usable_bytes: 34_000_000_000,
        total_bytes: 40_000_000_000,
        number_bytes: 2,
    };
    let planned = |tokens: usize| {
        fit(
            &qwen3_8b(),
            &config(&[
                "max_seq_len=40000",
                &format!("max_completion_tokens={tokens}"),
            ]),
            &data,
            gpu,
        )
    };
    let message = planned(30_000).unwrap_err().message;
    let most = message
        .split("set max_completion_tokens = ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let most: usize = most.unwrap().parse().unwrap();
    assert!(
        planned(most).is_ok() && planned(most + 1).is_err(),
        "{message}"
    );
}

#[test]
fn a_smaller_shape_recomputes_first_and_ends_at_one_sequence() {
    let mut shape = StepShape {
        tokens_per_micro_batch: 4000,
        recompute: false,
    };
    let mut seen = Vec::new();
    while let Some(smaller) = shape.smaller(900) {
        seen.push((smaller.tokens_per_micro_batch, smaller.recompute));
        shape = smaller;
    }
    assert_eq!(
        seen,
        [(4000, true), (2000, true), (1000, true), (900, true)]
    );
    assert_eq!(
        StepShape {
            tokens_per_micro_batch: 100,
            recompute: true,
        }
        .smaller(900),
        None
    );
}
