//! `model export` on the golden checkpoints: the exported model computes what its source does.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use grpo_tui::hub::find_model;
use grpo_tui::model::Weights;
use serde_json::Value;

use super::adapters::base_of;
use super::decoder::Golden;
use super::golden_folder;
use super::model_commands::{assert_near, expected, exported, model, printed_log_probs, text};
use crate::program::call_anywhere;

#[test]
fn a_merged_export_is_a_model_that_says_what_base_and_adapter_say() {
    let work = tempfile::tempdir().unwrap();
    let of_experts = [
        "peft-fused-experts",
        "peft-fused-experts-gpt_oss",
        "peft-fused-experts-shared",
        "peft-gate-up-experts",
    ];
    let others = [
        "peft-all-linear",
        "peft-subset",
        "peft-gated-delta",
        "peft-gpt_oss",
        "peft-shared-expert",
    ];
    for name in others.into_iter().chain(of_experts) {
        let (golden, base, adapter) = (
            Golden::read(name),
            base_of(name),
            golden_folder().join(name),
        );
        let (sequence, expected) = expected(&golden);
        assert_near(
            name,
            &printed_log_probs(&[text(&base), "--adapter", text(&adapter)], sequence),
            &expected,
        );

        let out = work.path().join(name);
        let export = |flags: &[&str], out: &Path| {
            let flags = [&["--adapter", text(&adapter)], flags].concat();
            exported(text(&base), &flags, out)
        };
        assert!(export(&["--merged"], &out).status.success());
        assert_near(name, &printed_log_probs(&[text(&out)], sequence), &expected);
        let again = export(&["--merged"], &out);
        assert_eq!(again.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&again.stderr).contains("exists: choose a new folder"));

        let alone = work.path().join(format!("{name}-adapter"));
        assert!(export(&[], &alone).status.success());
        assert_near(
            name,
            &printed_log_probs(&[text(&base), "--adapter", text(&alone)], sequence),
            &expected,
        );
    }
}

#[test]
fn a_merged_export_keeps_the_element_type_of_its_base() {
    let work = tempfile::tempdir().unwrap();
    let (base, out) = (
        golden_folder().join("multi-query-bfloat16"),
        work.path().join("out"),
    );
    assert!(exported(text(&base), &["--merged"], &out).status.success());
    let tensors = |folder: &Path| {
        find_model(text(folder))
            .unwrap()
            .tensors("model.safetensors")
            .unwrap()
    };
    let described = |folder: &Path| {
        let mut tensors: Vec<_> = tensors(folder)
            .into_iter()
            .map(|tensor| (tensor.name, tensor.element_type, tensor.shape))
            .collect();
        tensors.sort();
        tensors
    };
    assert_eq!(described(&out), described(&base));
    assert!(
        described(&out)
            .iter()
            .all(|(_, element_type, _)| element_type == "BF16")
    );
}

#[test]
fn a_model_in_fp8_is_inspected_as_such_and_exported_in_bf16() {
    let work = tempfile::tempdir().unwrap();
    let (base, fp8, out) = (
        golden_folder().join("multi-query-bfloat16"),
        work.path().join("fp8"),
        work.path().join("out"),
    );
    let source = find_model(text(&base)).unwrap();
    let mut tensors = Vec::new();
    for (name, tensor) in Weights::open(&source)
        .unwrap()
        .stored(&source.config().unwrap())
        .unwrap()
    {
        if !name.starts_with("model.layers.") || tensor.dims().len() != 2 {
            tensors.push((name, tensor));
            continue;
        }
        let codes = tensor
            .to_dtype(DType::F32)
            .unwrap()
            .affine(256.0, 0.0)
            .unwrap();
        tensors.push((name.clone(), codes.to_dtype(DType::F8E4M3).unwrap()));
        tensors.push((
            format!("{name}_scale"),
            Tensor::new(&[1_f32 / 256.0], &Device::Cpu).unwrap(),
        ));
    }
    std::fs::create_dir(&fp8).unwrap();
    for (file, bytes) in source.companions().unwrap() {
        std::fs::write(fp8.join(file), bytes).unwrap();
    }
    let read_config = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    let mut config = read_config(&base);
    config["quantization_config"] =
        serde_json::json!({"quant_method": "fp8", "activation_scheme": "static"});
    std::fs::write(fp8.join("config.json"), config.to_string()).unwrap();
    let write = |is_written: fn(&str) -> bool| {
        let tensors = tensors
            .iter()
            .filter(|(name, _)| is_written(name))
            .map(|(name, tensor)| (name, tensor));
        safetensors::serialize_to_file(tensors, None, &fp8.join("model.safetensors")).unwrap();
    };
    write(|_| true);

    let inspected =
        |folder: &Path| String::from_utf8(model(&["inspect", text(folder)]).stdout).unwrap();
    let expected = "fp8           matrices in F8_E4M3 with a scale per matrix, dequantized to bf16 when they are loaded";
    assert!(
        inspected(&fp8).contains(expected) && !inspected(&base).contains("fp8 "),
        "{}",
        inspected(&fp8)
    );
    assert!(exported(text(&fp8), &["--merged"], &out).status.success());
    let described = |folder: &Path| -> std::collections::BTreeSet<_> {
        let tensors = find_model(text(folder))
            .unwrap()
            .tensors("model.safetensors")
            .unwrap();
        tensors
            .into_iter()
            .map(|tensor| (tensor.name, tensor.element_type, tensor.shape))
            .collect()
    };
    assert_eq!(
        (described(&out), read_config(&out)),
        (described(&base), read_config(&base))
    );
    let ids = [5, 17, 9, 2];
    assert_eq!(
        printed_log_probs(&[text(&out)], &ids),
        printed_log_probs(&[text(&fp8)], &ids)
    );

    write(|name| !name.ends_with("up_proj.weight_scale"));
    let message = "`model.layers.0.mlp.up_proj.weight` is stored as F8_E4M3, and there is no ";
    assert!(inspected(&fp8).contains(message), "{}", inspected(&fp8));
    let refused = model(&["log-probs", text(&fp8), "--token-ids", "1,2"]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains(message),
        "{refused:?}"
    );
}

/// Of a model that also sees, which `model inspect` says.
#[test]
fn a_merged_export_is_the_text_part() {
    let work = tempfile::tempdir().unwrap();
    let (base, out) = (
        golden_folder().join("gemma3-nested-bfloat16"),
        work.path().join("out"),
    );
    let inspected =
        |folder: &Path| String::from_utf8(model(&["inspect", text(folder)]).stdout).unwrap();
    assert!(
        inspected(&base).contains(
            "not loaded    1 tensors for images, sound or multi-token prediction (16 B): only text is computed"
        )
    );
    assert!(exported(text(&base), &["--merged"], &out).status.success());
    assert!(
        !inspected(&out).contains("not loaded"),
        "{}",
        inspected(&out)
    );
    let config: Value =
        serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["architectures"][0], &config["model_type"]),
        (&"Gemma3ForCausalLM".into(), &"gemma3_text".into())
    );
    let golden = Golden::read("gemma3-nested-bfloat16");
    let (sequence, expected) = expected(&golden);
    assert_near(
        "the export",
        &printed_log_probs(&[text(&out)], sequence),
        &expected,
    );
}

#[test]
fn a_run_with_adapters_exports_its_own() {
    let work = tempfile::tempdir().unwrap();
    let (run, out) = (
        Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/finished-run"),
        work.path().join("out"),
    );
    let reference = format!("{}@40", text(&run));
    let output = exported(&reference, &[], &out);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let config: Value =
        serde_json::from_slice(&std::fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["base_model_name_or_path"], "tiny");
    let ids = [5, 300, 17, 9, 600, 2];
    assert_near(
        "the run's adapter",
        &printed_log_probs(&["tiny", "--adapter", text(&out)], &ids),
        &printed_log_probs(&[&reference], &ids),
    );
}

/// A run of all weights has f32 in its checkpoints, whatever its base is stored in.
#[test]
fn what_a_run_of_all_weights_leaves_is_a_model() {
    let work = tempfile::tempdir().unwrap();
    let base = golden_folder().join("multi-query-bfloat16");
    let run = crate::training::small_task::create(
        work.path(),
        &[&format!("base_model={}", text(&base)), "lora_rank=0"],
    );
    let checkpoint = grpo_tui::run::checkpoint_path(run.path(), 0);
    std::fs::create_dir_all(&checkpoint).unwrap();
    let source = find_model(text(&base)).unwrap();
    let stored = Weights::open(&source)
        .unwrap()
        .stored(&source.config().unwrap())
        .unwrap();
    let tensors: Vec<_> = stored
        .iter()
        .map(|(name, tensor)| (name, tensor.to_dtype(DType::F32).unwrap()))
        .collect();
    safetensors::serialize_to_file(
        tensors.iter().map(|(name, tensor)| (name, tensor)),
        None,
        &checkpoint.join("model.safetensors"),
    )
    .unwrap();
    std::fs::write(checkpoint.join("trainer.json"), "{}").unwrap();
    let reference = format!("{}@0", text(run.path()));
    let types = |folder: &Path| {
        let tensors = find_model(text(folder))
            .unwrap()
            .tensors("model.safetensors")
            .unwrap();
        tensors
            .into_iter()
            .map(|tensor| tensor.element_type)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let element_type = |folder: &Path| {
        let config: Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        config["torch_dtype"].as_str().unwrap().to_owned()
    };
    let out = work.path().join("exported");
    let output = exported(&reference, &["--merged"], &out);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        (types(&out), element_type(&out).as_str()),
        (["BF16".to_owned()].into(), "bfloat16")
    );

    let promoted = work.path().join("promoted");
    let promote = call_anywhere(&["runs", "promote", &reference, "--out", text(&promoted)]);
    assert!(
        promote.status.success(),
        "{}",
        String::from_utf8_lossy(&promote.stderr)
    );
    assert_eq!(
        (types(&promoted), element_type(&promoted).as_str()),
        (["F32".to_owned()].into(), "float32")
    );
    let ids = [5, 100, 17, 9];
    assert_near(
        "promoted",
        &printed_log_probs(&[text(&promoted)], &ids),
        &printed_log_probs(&[&reference], &ids),
    );
    assert!(!Path::new(&promoted).join("optimizer.safetensors").exists());
}
