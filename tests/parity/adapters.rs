//! Adapters that PEFT wrote: read onto our decoder, merged, and written back in PEFT's own names and shapes.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use grpo_tui::checkpoint::{ExportedAdapter, PeftAdapter, export_adapter};
use grpo_tui::hub::{ModelConfig, ModelSource, find_model};
use grpo_tui::model::{Adapters, Decoder, PackedBatch, Trainable, Weights};
use serde_json::Value;

use super::decoder::{Golden, assert_close, assert_gradients, logits};
use super::golden_folder;

const CASES: [&str; 13] = [
    "peft-all-linear",
    "peft-subset",
    "peft-rslora",
    "peft-gated-delta",
    "peft-experts",
    "peft-gpt_oss",
    "peft-shared-expert",
    "peft-gemma3-vision",
    "peft-gemma4",
    "peft-fused-experts",
    "peft-fused-experts-gpt_oss",
    "peft-fused-experts-shared",
    "peft-gate-up-experts",
];

fn golden_value(name: &str) -> Value {
    serde_json::from_str(
        &std::fs::read_to_string(golden_folder().join(name).join("golden.json")).unwrap(),
    )
    .unwrap()
}

pub(super) fn base_of(name: &str) -> PathBuf {
    golden_folder().join(golden_value(name)["base"].as_str().unwrap())
}

fn adapted(base: &Path, adapter: &Path) -> Result<Decoder, String> {
    let source = find_model(base.to_str().unwrap()).unwrap();
    let weights = Weights::open(&source).unwrap();
    let adapter = PeftAdapter::read(adapter).map_err(|error| error.to_string())?;
    let model = Decoder::new(
        &source.config().unwrap(),
        &weights,
        adapter.trainable(),
        5,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    adapter
        .apply(model.parameters())
        .map_err(|error| error.to_string())?;
    Ok(model)
}

/// The base's weights with the adapter in them, as exports have them before they are rounded.
fn merged(name: &str) -> (ModelConfig, Weights) {
    let source = find_model(base_of(name).to_str().unwrap()).unwrap();
    let adapter = PeftAdapter::read(&golden_folder().join(name)).unwrap();
    let (config, weights) = (source.config().unwrap(), Weights::open(&source).unwrap());
    let merged = adapter.merged_into(weights, &config, name).unwrap();
    (config, merged.unrounded())
}

fn alone(model: &Decoder, sequence: &[u32], adapters: Adapters) -> Vec<Vec<f32>> {
    let mut batch = PackedBatch::default();
    batch.push_prompt(sequence);
    logits(model, &batch, adapters).to_vec2().unwrap()
}

#[test]
fn logits_equal_those_of_peft() {
    for name in CASES {
        let golden = Golden::read(name);
        let base = Golden::read(base_of(name).file_name().unwrap().to_str().unwrap());
        let model = adapted(&base.folder(), &golden.folder()).unwrap();
        let merged = Decoder::new(
            model.config(),
            &merged(name).1,
            Trainable::Frozen,
            0,
            DType::F32,
            &Device::Cpu,
        )
        .unwrap();
        for (index, sequence) in golden.token_ids.iter().enumerate() {
            assert_close(
                &format!("{name}, on"),
                &alone(&model, sequence, Adapters::On),
                &golden.logits[index],
            );
            assert_close(
                &format!("{name}, off"),
                &alone(&model, sequence, Adapters::Off),
                &base.logits[index],
            );
            assert_close(
                &format!("{name}, merged"),
                &alone(&merged, sequence, Adapters::On),
                &golden.logits[index],
            );
        }
    }
}

#[test]
fn merged_matrices_are_those_of_peft() {
    for name in CASES {
        let ((config, merged), golden) = (merged(name), golden_value(name));
        let tensors = config.tensors();
        for (tensor, sums) in golden["merged"].as_object().unwrap() {
            let shape = &tensors
                .iter()
                .find(|own| own.name == *tensor)
                .unwrap()
                .shape;
            let numbers = merged
                .get(tensor, shape, DType::F32, &Device::Cpu)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap()
                .to_vec1::<f64>()
                .unwrap();
            let found = [
                numbers.iter().sum::<f64>(),
                numbers.iter().map(|number| number.abs()).sum(),
            ];
            for (found, expected) in found.into_iter().zip(sums.as_array().unwrap()) {
                assert!(
                    (found - expected.as_f64().unwrap()).abs() < 1e-4,
                    "{name}, {tensor}: {found} here, {expected} in PEFT"
                );
            }
        }
    }
}

#[test]
fn gradients_of_adapters_of_experts_are_those_of_autograd() {
    for name in CASES
        .into_iter()
        .filter(|name| golden_value(name)["gradient"].is_object())
    {
        let (golden, model) = (
            golden_value(name),
            adapted(&base_of(name), &golden_folder().join(name)).unwrap(),
        );
        let expected = golden["gradient"].as_object().unwrap();
        let sequence = Golden::read(name).token_ids.pop().unwrap();
        let mut compared = Cell::new(0);
        assert_gradients(name, &model, &sequence, |slot| {
            // Beside downs without adapters PEFT has one wrapper, and no gradient of what it lacks.
            let is_lone = name == "peft-gate-up-experts";
            let of_peft = if is_lone {
                slot.replace(".base_layer.", ".")
            } else {
                slot.to_owned()
            };
            let own = expected
                .get(&of_peft)
                .filter(|_| !is_lone || of_peft != slot);
            compared.set(compared.get() + usize::from(own.is_some()));
            own.cloned()
        });
        // Each with activations kept and recomputed.
        assert_eq!(*compared.get_mut(), 2 * expected.len(), "{name}");
    }
}

/// Names and shapes in a safetensors file.
fn shapes(path: &Path) -> BTreeMap<String, Vec<u64>> {
    let source = ModelSource::at("adapter", path);
    source
        .tensors("adapter_model.safetensors")
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.shape))
        .collect()
}

#[test]
fn an_export_has_the_names_and_shapes_of_peft() {
    let work = tempfile::tempdir().unwrap();
    let beside = [
        "peft-fused-experts-gpt_oss",
        "peft-fused-experts-shared",
        "peft-gemma4",
    ];
    let others = [
        "peft-all-linear",
        "peft-rslora",
        "peft-gated-delta",
        "peft-gpt_oss",
        "peft-shared-expert",
    ];
    for name in others.into_iter().chain(beside) {
        let folder = golden_folder().join(name);
        let model = adapted(&base_of(name), &folder).unwrap();
        let Trainable::Lora { rank, alpha, .. } = PeftAdapter::read(&folder).unwrap().trainable()
        else {
            panic!("{name} is an adapter")
        };
        let out = work.path().join(name);
        let adapter = ExportedAdapter::new(model.parameters(), "base", rank, alpha);
        export_adapter(&out, &adapter, &[]).unwrap();
        assert_eq!(shapes(&out), shapes(&folder), "{name}");
        let again = adapted(&base_of(name), &out).unwrap();
        let numbers = |model: &Decoder| model.parameters().flat().to_vec1::<f32>().unwrap();
        assert_eq!(numbers(&again), numbers(&model), "{name}");
        assert_eq!(PeftAdapter::read(&out).unwrap().base_model(), Some("base"));
        let parameters = |folder: &Path| {
            let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
            let config: Value = serde_json::from_str(&text).unwrap();
            let names = config["target_parameters"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            names
                .into_iter()
                .map(|name| name.as_str().unwrap().to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(parameters(&out), parameters(&folder), "{name}");
    }
}

/// The text model is part of the base: names are those of its modules there, and what sees gets no adapters.
#[test]
fn an_adapter_of_a_model_that_also_sees_has_the_names_of_its_modules() {
    let work = tempfile::tempdir().unwrap();
    let name = "peft-gemma3-vision";
    let (folder, base) = (golden_folder().join(name), base_of(name));
    let model = adapted(&base, &folder).unwrap();
    let out = work.path().join("adapter");
    let adapter = ExportedAdapter::new(model.parameters(), base.to_str().unwrap(), 3, 6.0);
    export_adapter(&out, &adapter, &[]).unwrap();
    let names = |folder: &Path| {
        let file = folder.join("adapter_model.safetensors");
        let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let of_text = |name: &String| !name.contains("vision");
        tensors.into_keys().filter(of_text).collect::<BTreeSet<_>>()
    };
    // PEFT's has four of the seven modules.
    assert!(names(&folder).is_subset(&names(&out)));
    let prefix = "base_model.model.model.language_model.layers.";
    assert!(names(&out).iter().all(|name| name.starts_with(prefix)));
    let text = std::fs::read_to_string(out.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        config["target_modules"],
        r"(?:.*\.)?language_model\..*\.(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    );
    let numbers = |model: &Decoder| model.parameters().flat().to_vec1::<f32>().unwrap();
    assert_eq!(numbers(&adapted(&base, &out).unwrap()), numbers(&model));
}

/// Writes a copy of an adapter whose tensors and configuration went through `change`.
fn changed(
    work: &Path,
    name: &str,
    change: impl FnOnce(&mut BTreeMap<String, Tensor>, &mut Value),
) -> PathBuf {
    let folder = golden_folder().join(name);
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let loaded =
        candle_core::safetensors::load(folder.join("adapter_model.safetensors"), &Device::Cpu)
            .unwrap();
    let mut tensors: BTreeMap<String, Tensor> = loaded.into_iter().collect();
    change(&mut tensors, &mut config);
    let out = work.join("adapter");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("adapter_config.json"), config.to_string()).unwrap();
    candle_core::safetensors::save(
        &tensors.into_iter().collect(),
        out.join("adapter_model.safetensors"),
    )
    .unwrap();
    out
}

#[test]
fn other_spellings_of_the_names_read_the_same() {
    let name = "peft-subset";
    let expected = adapted(&base_of(name), &golden_folder().join(name))
        .unwrap()
        .parameters()
        .flat()
        .to_vec1::<f32>()
        .unwrap();
    let spellings: [fn(&str) -> String; 3] = [
        |name| name.replace("base_model.model.", ""),
        |name| name.replace(".weight", ".default.weight"),
        |name| {
            name.replace("base_model.model.", "")
                .replace(".weight", ".policy.weight")
        },
    ];
    for spelling in spellings {
        let work = tempfile::tempdir().unwrap();
        let folder = changed(work.path(), name, |tensors, _| {
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, tensor)| (spelling(&name), tensor))
                .collect();
        });
        assert_eq!(
            adapted(&base_of(name), &folder)
                .unwrap()
                .parameters()
                .flat()
                .to_vec1::<f32>()
                .unwrap(),
            expected
        );
    }
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_with_its_file() {
    let name = "peft-subset";
    let query = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight";
    let check = |expected: &[&str], change: &dyn Fn(&mut BTreeMap<String, Tensor>, &mut Value)| {
        let work = tempfile::tempdir().unwrap();
        let folder = changed(work.path(), name, change);
        let message = adapted(&base_of(name), &folder).unwrap_err();
        for part in expected {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    check(
        &["adapter_model.safetensors", query, "incomplete"],
        &|tensors, _| drop(tensors.remove(query)),
    );
    check(
        &[query, "[32, 5]", "`r` = 3", "different adapters"],
        &|tensors, _| drop(tensors.insert(query.to_owned(), zeros((32, 5)))),
    );
    check(
        &[query, "[48, 3]", "[32, 3]", "another base model"],
        &|tensors, _| drop(tensors.insert(query.to_owned(), zeros((48, 3)))),
    );
    check(
        &["layers.9", "does not exist in this model"],
        &|tensors, _| drop(tensors.insert(query.replace("layers.1", "layers.9"), zeros((32, 3)))),
    );
    check(&["lm_head.weight", "not a LoRA matrix"], &|tensors, _| {
        drop(tensors.insert("base_model.model.lm_head.weight".to_owned(), zeros((4, 4))));
    });
    check(
        &[
            "adapter_config.json",
            "`target_parameters` has \"mlp.gate.weight\", only",
        ],
        &|_, config| {
            config["target_parameters"] =
                serde_json::json!(["mlp.experts.down_proj", "mlp.gate.weight"]);
        },
    );
    check(
        &["adapter_config.json", "`use_dora` = true"],
        &|_, config| config["use_dora"] = true.into(),
    );
    let absent = PeftAdapter::read(Path::new("/nonexistent"))
        .unwrap_err()
        .to_string();
    assert!(
        absent.contains("/nonexistent/adapter_config.json")
            && absent.contains("contains adapter_config.json"),
        "{absent}"
    );
    let work = tempfile::tempdir().unwrap();
    let folder = changed(work.path(), name, |_, _| {});
    let file = folder.join("adapter_model.safetensors");
    std::fs::write(&file, &std::fs::read(&file).unwrap()[..300]).unwrap();
    assert!(
        adapted(&base_of(name), &folder)
            .unwrap_err()
            .contains("copy the file again")
    );
}
