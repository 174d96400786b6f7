//! Exports that deploy: k-quants, an adapter beside its base, Ollama's Modelfile, chat templates and commands.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor, safetensors};
use grpo_tui::hub::find_model;

use super::adapters::base_of;
use super::decoder::Golden;
use super::golden_folder;
use super::llama_cpp::{export, with_tokenizer};
use super::model_commands::{exported, model, printed_log_probs, text};
use crate::program::{stderr, stdout};

/// Types and numbers of a GGUF file, by tensor.
fn read(file: &Path) -> HashMap<String, (GgmlDType, Tensor)> {
    let mut reader = std::fs::File::open(file).unwrap();
    let content = Content::read(&mut reader).unwrap();
    let names: Vec<String> = content.tensor_infos.keys().cloned().collect();
    let tensor = |name: String| {
        let tensor = content.tensor(&mut reader, &name, &Device::Cpu).unwrap();
        (
            name,
            (tensor.dtype(), tensor.dequantize(&Device::Cpu).unwrap()),
        )
    };
    names.into_iter().map(tensor).collect()
}

/// ||a - b|| / ||b||.
fn relative_error(a: &Tensor, b: &Tensor) -> f32 {
    let norm = |tensor: &Tensor| {
        let squares = tensor.sqr().unwrap().sum_all().unwrap();
        squares.to_scalar::<f32>().unwrap().sqrt()
    };
    norm(&(a - b).unwrap()) / norm(b)
}

/// A llama of eight layers, 256 wide, with numbers of a normal distribution.
fn llama(folder: &Path) -> PathBuf {
    with_tokenizer(&Golden::read("llama-tied"), folder);
    let path = folder.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (key, value) in [
        ("hidden_size", 256),
        ("intermediate_size", 512),
        ("num_hidden_layers", 8),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("head_dim", 64),
    ] {
        config[key] = value.into();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("safetensors") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let config = find_model(text(folder)).unwrap().config().unwrap();
    let tensor = |name: &str, shape: &[usize]| {
        let random = Tensor::randn(0_f32, 0.02, shape, &Device::Cpu).unwrap();
        (name.to_owned(), random)
    };
    let tensors: HashMap<String, Tensor> = config
        .tensors()
        .iter()
        .map(|spec| tensor(&spec.name, &spec.shape))
        .collect();
    safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    folder.to_owned()
}

/// The errors are those of llama.cpp's quantizer on such numbers, and a tenth more.
#[test]
fn k_quants_come_back_within_the_error_of_their_types() {
    let work = tempfile::tempdir().unwrap();
    let folder = llama(&work.path().join("llama"));
    let exact = work.path().join("f32.gguf");
    export(text(&folder), "f32", &exact);
    let exact = read(&exact);
    let most = HashMap::from([
        (GgmlDType::F32, 0.0),
        (GgmlDType::Q4K, 0.079),
        (GgmlDType::Q5K, 0.040),
        (GgmlDType::Q6K, 0.0196),
    ]);
    for (stored_as, of_others) in [
        ("q4_k_m", GgmlDType::Q4K),
        ("q5_k_m", GgmlDType::Q5K),
        ("q6_k", GgmlDType::Q6K),
    ] {
        let file = work.path().join(format!("{stored_as}.gguf"));
        export(text(&folder), stored_as, &file);
        let found = read(&file);
        assert_eq!(found.len(), exact.len());
        for (name, (dtype, numbers)) in &found {
            let has_more = ["blk.0.", "blk.3.", "blk.6.", "blk.7."]
                .iter()
                .any(|layer| name.starts_with(layer));
            let is_mixed = name.contains("attn_v") || name.contains("ffn_down");
            let expected = match name.as_str() {
                name if name.contains("norm") => GgmlDType::F32,
                "token_embd.weight" => GgmlDType::Q6K,
                _ if is_mixed && has_more => GgmlDType::Q6K,
                _ => of_others,
            };
            assert_eq!(*dtype, expected, "{stored_as}: {name}");
            let error = relative_error(numbers, &exact[name].1);
            assert!(error <= most[dtype], "{stored_as}: {name}: {error}");
        }
        // Our reader takes it as a model.
        let out = work.path().join(stored_as);
        stdout(&model(&["import", text(&file), "--out", text(&out)]));
        assert_eq!(printed_log_probs(&[text(&out)], &[5, 30, 17]).len(), 2);
    }
}

#[test]
fn a_number_that_is_not_finite_is_named() {
    let work = tempfile::tempdir().unwrap();
    let folder = llama(&work.path().join("llama"));
    let path = folder.join("model.safetensors");
    let mut tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    let name = "model.layers.1.mlp.up_proj.weight";
    let zeros = (&tensors[name] * 0.0).unwrap();
    tensors.insert(name.to_owned(), zeros.recip().unwrap());
    safetensors::save(&tensors, &path).unwrap();
    let file = work.path().join("model.gguf");
    let said = stderr(&exported(text(&folder), &["--gguf", "q4_k_m"], &file));
    assert!(
        said.contains(&format!("tensor `{name}` has a number that is not finite")),
        "{said}"
    );
    assert!(!file.exists());
}

/// Also for Llama, whose rows of queries and keys change places.
#[test]
fn an_adapter_beside_its_base_is_the_merged_model() {
    let work = tempfile::tempdir().unwrap();
    let adapter = golden_folder().join("peft-all-linear");
    for kind in ["own", "llama"] {
        let base = work.path().join(kind);
        let name = base_of("peft-all-linear");
        with_tokenizer(
            &Golden::read(name.file_name().unwrap().to_str().unwrap()),
            &base,
        );
        if kind == "llama" {
            let path = base.join("config.json");
            let config = std::fs::read_to_string(&path).unwrap();
            let config = config.replace("Qwen3ForCausalLM", "LlamaForCausalLM");
            std::fs::write(&path, config.replace("\"qwen3\"", "\"llama\"")).unwrap();
        }
        let run = |flags: &[&str], out: &Path| {
            let always = ["--gguf", "f32", "--adapter", text(&adapter)];
            let output = exported(text(&base), &[&always[..], flags].concat(), out);
            assert!(output.status.success(), "{}", stderr(&output));
        };
        let (merged, apart) = (
            work.path().join(format!("{kind}.gguf")),
            work.path().join(format!("{kind}-apart")),
        );
        run(&[], &merged);
        run(&["--lora"], &apart);
        let (merged, base, lora) = (
            read(&merged),
            read(&apart.join("model.gguf")),
            read(&apart.join("model-lora.gguf")),
        );
        let mut reader = std::fs::File::open(apart.join("model-lora.gguf")).unwrap();
        let metadata = Content::read(&mut reader).unwrap().metadata;
        let text_of = |key: &str| metadata[key].to_string().unwrap().as_str();
        assert_eq!(
            (text_of("general.type"), text_of("adapter.type")),
            ("adapter", "lora")
        );
        let alpha = f64::from(metadata["adapter.lora.alpha"].to_f32().unwrap());
        assert!(lora.len() >= 14);
        for (name, (_, merged)) in &merged {
            let (_, base) = &base[name];
            let sum = match lora.get(&format!("{name}.lora_a")) {
                Some((_, a)) => {
                    let (_, b) = &lora[&format!("{name}.lora_b")];
                    let scale = alpha / a.dims()[0] as f64;
                    (base + b.matmul(a).unwrap().affine(scale, 0.0).unwrap()).unwrap()
                }
                None => base.clone(),
            };
            assert!(relative_error(&sum, merged) < 1e-5, "{kind}: {name}");
        }
    }
}

#[test]
fn exports_have_template_commands_and_a_modelfile() {
    let work = tempfile::tempdir().unwrap();
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/finished-run");
    let reference = format!("{}@40", text(&run));
    let written = |flags: &[&str], name: &str| {
        let out = work.path().join(name);
        let output = exported(&reference, flags, &out);
        assert!(output.status.success(), "{}", stderr(&output));
        out
    };
    let read = |folder: &Path, file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let (adapter, merged, gguf) = (
        written(&[], "adapter"),
        written(&["--merged"], "merged"),
        written(&["--gguf", "q4_k_m", "--lora"], "gguf"),
    );
    let template = read(&merged, "chat_template.jinja");
    assert_eq!(read(&adapter, "chat_template.jinja"), template);
    let kwargs = "'{\"enable_thinking\":false}'";
    let expected = [
        (
            &adapter,
            format!("vllm serve merged --default-chat-template-kwargs {kwargs}\n"),
        ),
        (
            &merged,
            format!("vllm serve . --default-chat-template-kwargs {kwargs}\n"),
        ),
        (
            &gguf,
            "llama-server -m model.gguf --lora model-lora.gguf --jinja\n".to_owned(),
        ),
        (&gguf, "ollama create trained -f Modelfile\n".to_owned()),
    ];
    for (folder, command) in expected {
        let card = read(folder, "README.md");
        assert!(
            card.contains("## Results\n") && card.contains(&command),
            "{command} is not in {card}"
        );
    }
    let modelfile = read(&gguf, "Modelfile");
    let (first, rest) = modelfile.split_once("TEMPLATE \"\"\"").unwrap();
    assert_eq!(first, "FROM ./model.gguf\nADAPTER ./model-lora.gguf\n");
    let parameters = rest.split_once("PARSER passthrough\n").unwrap().1;
    assert_eq!(
        parameters,
        "PARAMETER stop \"<|endoftext|>\"\nPARAMETER stop \"<|im_end|>\"\nPARAMETER temperature 0\nPARAMETER repeat_penalty 1\nPARAMETER num_ctx 1024\n"
    );
    // Servers turn thinking on, which the run did not have.
    let model = std::fs::read(gguf.join("model.gguf")).unwrap();
    let pin = b"{%- set enable_thinking = false %}";
    assert!(model.windows(pin.len()).any(|bytes| bytes == pin));
    // A file has its Modelfile beside it.
    let file = written(&["--gguf", "q8_0"], "one.gguf");
    assert!(file.is_file());
    assert!(read(work.path(), "one.Modelfile").starts_with("FROM ./one.gguf\nTEMPLATE"));
}

#[test]
fn an_adapter_of_a_published_base_is_served_beside_it() {
    let work = tempfile::tempdir().unwrap();
    let (adapter, base) = (
        golden_folder().join("peft-all-linear"),
        work.path().join("base"),
    );
    let name = base_of("peft-all-linear");
    with_tokenizer(
        &Golden::read(name.file_name().unwrap().to_str().unwrap()),
        &base,
    );
    let export = |out: &str| {
        let out = work.path().join(out);
        let output = exported(text(&base), &["--adapter", text(&adapter)], &out);
        (out, output)
    };
    std::fs::write(
        base.join("chat_template.jinja"),
        "{{ messages[0].content }}",
    )
    .unwrap();
    let (out, _) = export("out");
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    let expected = format!(
        "vllm serve {} --enable-lora --max-lora-rank 8 --lora-modules trained=. --chat-template chat_template.jinja\n",
        text(&base)
    );
    assert!(card.contains(&expected), "{expected} is not in {card}");
    assert!(out.join("chat_template.jinja").is_file());

    std::fs::write(base.join("chat_template.jinja"), "{% for %}").unwrap();
    let (out, output) = export("broken");
    assert!(
        stderr(&output).contains("chat_template.jinja"),
        "{}",
        stderr(&output)
    );
    assert!(!output.status.success() && !out.exists());
}
