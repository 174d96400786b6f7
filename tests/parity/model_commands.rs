//! `model log-probs`, `inspect` and `check` as scripts see them, on the golden checkpoints.

use std::path::Path;
use std::process::Output;

use candle_core::{DType, Device, Tensor};
use grpo_tui::checkpoint::{ExportedAdapter, export_adapter};
use grpo_tui::hub::{TensorEntry, find_model};
use grpo_tui::kernels::log_probs::token_log_probs;
use grpo_tui::model::{Decoder, Trainable, Weights, adapter_names};
use grpo_tui::plan::ModelShape;
use serde_json::Value;

use super::decoder::{Golden, TOLERANCE, checkpoints};
use super::golden_folder;
use crate::program::call_anywhere_in_process as call_anywhere;

pub(super) fn model(arguments: &[&str]) -> Output {
    call_anywhere(&[&["model"], arguments].concat())
}

/// `model export` of a model.
pub(super) fn exported(name: &str, flags: &[&str], out: &Path) -> Output {
    let always = ["export", "--model", name, "--out", text(out)];
    model(&[&always[..], flags].concat())
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(super) fn printed_log_probs(arguments: &[&str], token_ids: &[u32]) -> Vec<f32> {
    let ids: Vec<String> = token_ids.iter().map(u32::to_string).collect();
    let output = model(
        &[
            &["log-probs"],
            arguments,
            &["--token-ids", &ids.join(","), "--json"],
        ]
        .concat(),
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(document["log_probs"].clone()).unwrap()
}

/// log p of each token after the first, from golden logits.
pub(super) fn expected(golden: &Golden) -> (&[u32], Vec<f32>) {
    let (sequence, logits) = (
        golden.token_ids.last().unwrap(),
        golden.logits.last().unwrap(),
    );
    let rows = Tensor::new(logits[..logits.len() - 1].to_vec(), &Device::Cpu).unwrap();
    let found = token_log_probs(&rows, &sequence[1..], 1.0).unwrap();
    (
        sequence,
        found.into_iter().map(|token| token.log_prob).collect(),
    )
}

pub(super) fn assert_near(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    assert!(
        found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < TOLERANCE),
        "{name}: {found:?} instead of {expected:?}"
    );
}

#[test]
fn log_probs_are_printed_for_every_family() {
    for golden in checkpoints() {
        let (sequence, expected) = expected(&golden);
        assert_near(
            &golden.name,
            &printed_log_probs(&[text(&golden.folder())], sequence),
            &expected,
        );
    }
    assert_eq!(
        printed_log_probs(&[text(&golden_folder().join("tied"))], &[5]),
        Vec::<f32>::new()
    );
}

#[test]
fn an_adapter_folder_is_a_model_by_the_base_that_it_names() {
    let work = tempfile::tempdir().unwrap();
    let source = find_model("tiny").unwrap();
    let weights = Weights::open(&source).unwrap();
    let lora = Trainable::Lora {
        rank: 2,
        alpha: 4.0,
        has_experts: false,
    };
    let decoder = Decoder::new(
        &source.config().unwrap(),
        &weights,
        lora,
        1,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    let count = decoder.parameters().count();
    let numbers: Vec<f32> = (0..count)
        .map(|i| ((i * 37 % 101) as f32 / 101.0 - 0.5) * 0.2)
        .collect();
    decoder
        .parameters()
        .restore(&Tensor::from_vec(numbers, count, &Device::Cpu).unwrap())
        .unwrap();
    let write = |name: &str, base: &str| {
        let folder = work.path().join(name);
        let adapter = ExportedAdapter::new(decoder.parameters(), base, 2, 4.0);
        export_adapter(&folder, &adapter, &[]).unwrap();
        folder
    };
    let folder = write("adapter", "tiny");
    let ids = [5, 300, 17, 9, 600, 2];
    let expected = printed_log_probs(&["tiny", "--adapter", text(&folder)], &ids);
    assert_near(
        "an adapter as M",
        &printed_log_probs(&[text(&folder)], &ids),
        &expected,
    );
    let plain = printed_log_probs(&["tiny"], &ids);
    assert!(
        plain
            .iter()
            .zip(&expected)
            .any(|(a, b)| (a - b).abs() > 0.01),
        "the adapter changes the model"
    );

    let second = write("second", text(&folder));
    let refused = model(&["log-probs", text(&second), "--token-ids", "1,2"]);
    assert!(
        String::from_utf8_lossy(&refused.stderr)
            .contains("is an adapter too; merge that one first")
    );
}

#[test]
fn inspect_counts_what_the_headers_hold() {
    for golden in checkpoints() {
        let output = model(&["inspect", text(&golden.folder()), "--json"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let source = find_model(text(&golden.folder())).unwrap();
        let files = source.weight_files().unwrap();
        let mut entries: Vec<_> = files
            .iter()
            .flat_map(|file| source.tensors(file).unwrap())
            .collect();
        entries.retain(|entry| {
            ![
                "vision_tower",
                "model.visual",
                "mtp.",
                "model.vision_tower",
                "model.audio_tower",
                "model.embed_vision",
            ]
            .iter()
            .any(|part| entry.name.starts_with(part))
        });
        // Of a layer that reads another's keys.
        entries.retain(|entry| {
            golden.name != "gemma4-nested-bfloat16"
                || !entry.name.ends_with("layers.11.self_attn.k_norm.weight")
        });
        // A byte of MXFP4 has two numbers, and its scales are none.
        entries.retain(|entry| !entry.name.ends_with("_scales"));
        let of = |entry: &TensorEntry| {
            entry.shape.iter().product::<u64>() * if entry.element_type == "U8" { 2 } else { 1 }
        };
        let numbers: u64 = entries.iter().map(of).sum();
        assert_eq!(document["parameters"], numbers, "{}", golden.name);
        let (config, count) = (source.config().unwrap(), |shape: &[usize]| {
            shape.iter().product::<usize>()
        });
        let shape = ModelShape::from_config(&config);
        assert_eq!(shape.parameters as u64, numbers, "{}", golden.name);
        let adapters = [false, true].map(|has_experts| {
            adapter_names(&config, 1, has_experts)
                .iter()
                .map(|(_, shape)| count(shape))
                .sum::<usize>()
        });
        let expected = [
            shape.lora_per_rank,
            shape.lora_per_rank + shape.expert_lora_per_rank,
        ];
        assert_eq!(expected, adapters, "{}", golden.name);
        assert_eq!(document["memory_bytes"]["bf16"], 2 * numbers);
        let uses = &document["memory_by_use"]["gpu"];
        let bytes = |name: &str| uses[name].as_u64().unwrap();
        assert!(
            bytes("sampling") > 2 * numbers && bytes("full") > 16 * numbers,
            "{uses}"
        );
        let uses = &document["memory_by_use"]["cpu"];
        assert!(
            uses["lora"].as_u64() > uses["lora_recomputed"].as_u64(),
            "{uses}"
        );
        let kinds = document["tensors"].as_array().unwrap();
        assert_eq!(
            kinds
                .iter()
                .map(|kind| kind["tensors"].as_u64().unwrap())
                .sum::<u64>(),
            entries.len() as u64,
            "{}",
            golden.name
        );
        assert_eq!(
            document["stored"]["files"].as_array().unwrap().len(),
            files.len()
        );
    }
    let tiny = model(&["inspect", "tiny"]);
    assert!(String::from_utf8_lossy(&tiny.stdout).contains("tiny: Qwen3, "));
    let inspected = |name: &str| {
        let output = model(&["inspect", text(&golden_folder().join(name))]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (hybrid, sparse) = (
        inspected("qwen3_5-nested-bfloat16"),
        inspected("qwen3_moe-sparse-tied"),
    );
    // Of five experts of 3 * 32 * 12 numbers three are used.
    let experts = "experts       5 in each of 1 layers, 3 per token, feed-forward 12; 44,480 active parameters";
    assert!(sparse.contains(experts), "{sparse}");
    for expected in [
        "delta rule    1 layers, 3 key and 3 value heads of 16 and 16 numbers, convolution over 4 tokens",
        "attention     1 layers, gated, rotary positions on 4 of 16 numbers",
        // 3 * 16 * 16 + 3 * 144 numbers.
        "states 4.80 kB per sequence in f32",
        "not loaded    2 tensors for images, sound or multi-token prediction (32 B): only text is computed",
    ] {
        assert!(hybrid.contains(expected), "{hybrid}\nlacks {expected:?}");
    }
    let shared = inspected("gemma4-nested-bfloat16");
    for expected in [
        "positions     256, rotary base 1000000 on 25.0% of a head",
        "global heads  5 key and value, 16 numbers each, in layers without a window",
        "shared        the last 5 layers read keys and values of layers before",
        "layer inputs  4 numbers for each layer, by token and embedding",
        "not loaded    3 tensors for images, sound or multi-token prediction (48 B): only text is computed",
    ] {
        assert!(shared.contains(expected), "{shared}\nlacks {expected:?}");
    }
    let mixtures = ["gemma4-experts", "qwen3_5_moe-untied", "gpt_oss-untied"].map(inspected);
    assert!(
        [hybrid, sparse, shared]
            .iter()
            .chain(&mixtures)
            .all(|text| !text.contains("a GPU")),
        "{mixtures:?}"
    );
}

#[test]
fn what_cannot_be_asked_is_said_with_exit_code_2() {
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let output = model(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    };
    let tied = golden_folder().join("tied");
    check(
        &["log-probs", text(&tied), "--token-ids", "1,128"],
        2,
        "128 is outside the model's vocabulary; its ids are 0 to 127",
    );
    check(
        &["log-probs", text(&tied), "--token-ids", "1,x"],
        2,
        "invalid value 'x'",
    );
    let long = vec!["1"; 257].join(",");
    check(
        &["log-probs", text(&tied), "--token-ids", &long],
        2,
        "257 tokens are more than the model's 256 positions",
    );
    check(
        &["export", "--model", text(&tied), "--out", "/tmp/never-made"],
        2,
        "name one with --adapter, or add --merged",
    );
    check(
        &["inspect", "no-such-model"],
        1,
        "`no-such-model` was not found",
    );
    let adapter = golden_folder().join("peft-subset");
    let other = golden_folder().join("grouped-untied");
    check(
        &[
            "log-probs",
            text(&other),
            "--adapter",
            text(&adapter),
            "--token-ids",
            "1,2",
        ],
        1,
        "it belongs to another base model",
    );
}
