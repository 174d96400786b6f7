//! A run of a model whose matrices are stored in NF4 as bitsandbytes does.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use grpo_tui::hub::{NF4_STATE, find_model, is_quantized};
use grpo_tui::kernels::nf4::{BLOCK, GROUP, NUMBERS, scale_numbers};
use grpo_tui::model::Weights;
use serde_json::{Value, json};

use super::small_task::{create, fingerprint, weights, work};
use crate::program::{NANO, call, stdout};

fn nearest(numbers: &[f32], x: f32) -> u8 {
    let distance = |code: &u8| (numbers[usize::from(*code)] - x).abs();
    let codes = 0..=(numbers.len() - 1) as u8;
    codes
        .min_by(|one, other| distance(one).total_cmp(&distance(other)))
        .unwrap()
}

/// The tensors that store a matrix with double quantization.
fn stored(name: &str, matrix: &Tensor) -> [(String, Tensor); 6] {
    let numbers = matrix.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
    let numbers = numbers.to_vec1::<f32>().unwrap();
    let largest = |numbers: &[f32]| numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let maxima: Vec<f32> = numbers.chunks(BLOCK).map(largest).collect();
    let offset = maxima.iter().sum::<f32>() / maxima.len() as f32;
    let distances: Vec<f32> = maxima.iter().map(|largest| largest - offset).collect();
    let group_scales: Vec<f32> = distances.chunks(GROUP).map(largest).collect();
    let scale_code = |(block, distance): (usize, &f32)| {
        nearest(&scale_numbers(), distance / group_scales[block / GROUP])
    };
    let scale_codes: Vec<u8> = distances.iter().enumerate().map(scale_code).collect();
    let code = |i: usize| nearest(&NUMBERS, numbers[i] / maxima[i / BLOCK]);
    let codes = (0..numbers.len()).step_by(2);
    let codes: Vec<u8> = codes.map(|i| code(i) << 4 | code(i + 1)).collect();
    let state = json!({"quant_type": "nf4", "dtype": "bfloat16", "shape": matrix.dims(),
        "blocksize": BLOCK, "nested_blocksize": GROUP, "nested_dtype": "float32", "nested_offset": offset});
    let tensor =
        |end: &str, tensor: candle_core::Result<Tensor>| (format!("{name}{end}"), tensor.unwrap());
    let cpu = &Device::Cpu;
    [
        tensor(
            "",
            Tensor::new(codes, cpu).and_then(|codes| codes.unsqueeze(1)),
        ),
        tensor(".absmax", Tensor::new(scale_codes, cpu)),
        tensor(".quant_map", Tensor::new(&NUMBERS, cpu)),
        tensor(".nested_absmax", Tensor::new(group_scales, cpu)),
        tensor(".nested_quant_map", Tensor::new(&scale_numbers(), cpu)),
        tensor(NF4_STATE, Tensor::new(state.to_string().as_bytes(), cpu)),
    ]
}

/// Writes the test model with the matrices of its layer in NF4.
fn write_base(folder: &Path) {
    let source = find_model(NANO).unwrap();
    std::fs::create_dir(folder).unwrap();
    for (file, bytes) in source.companions().unwrap() {
        std::fs::write(folder.join(file), bytes).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&source.read("config.json").unwrap()).unwrap();
    config["quantization_config"] = json!({"quant_method": "bitsandbytes", "load_in_4bit": true,
        "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let weights = Weights::open(&source).unwrap();
    let tensors = weights.stored(&source.config().unwrap()).unwrap();
    let tensors =
        tensors
            .into_iter()
            .flat_map(|(name, tensor)| match is_quantized(&name, tensor.dims()) {
                true => stored(&name, &tensor).to_vec(),
                false => vec![(name, tensor)],
            });
    safetensors::serialize_to_file(tensors, None, &folder.join("model.safetensors")).unwrap();
}

#[test]
fn a_run_takes_its_base_as_stored_and_exports_a_model_in_bf16() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    write_base(&base);
    let inspected = stdout(&call(
        folder.path(),
        &["model", "inspect", base.to_str().unwrap()],
    ));
    let expected = "or taken as they are by base_precision = nf4";
    assert!(inspected.contains(expected), "{inspected}");

    let trained = |precision: &str| {
        let folder = tempfile::tempdir_in(folder.path()).unwrap().keep();
        let set = [
            &format!("base_model={}", base.display()),
            &format!("base_precision={precision}"),
            "lora_rank=4",
            "max_steps=2",
            "eval_every=0",
        ];
        let run = create(&folder, &set);
        work(&run, |_| false).unwrap();
        run
    };
    let (run, dequantized) = (trained("nf4"), trained("bf16"));
    assert!(fingerprint(&run) == fingerprint(&dequantized));
    assert!(fingerprint(&run) != fingerprint(&trained("fp8")));

    let model = format!("{}@2", run.path().display());
    let export = [
        "model", "export", "--model", &model, "--merged", "--out", "out",
    ];
    stdout(&call(folder.path(), &export));
    let out = folder.path().join("out");
    assert!(weights(&run, &model) == weights(&run, out.to_str().unwrap()));
    assert_eq!(
        find_model(out.to_str().unwrap())
            .unwrap()
            .quantization()
            .unwrap(),
        None
    );
}
