//! A GGUF file against llama.cpp itself: every golden checkpoint's log-probs, a chat, and what cannot be written.

use std::path::Path;
use std::process::Command;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device};
use grpo_tui::dataset::{PromptRow, load};
use grpo_tui::hub::find_model;
use grpo_tui::model::Weights;
use grpo_tui::score::Task;
use grpo_tui::task::PromptSet;
use serde_json::{Value, json};

use super::decoder::{Golden, TOLERANCE, checkpoints};
use super::model_commands::{exported, printed_log_probs, text};
use crate::program::{call_anywhere, json, json_lines, stderr};

/// Greedy tokens with their log-probs after `prompts`, the answers to `chats`, then the token ids of `rendered` and `texts`.
const SCRIPT: &str = r#"
import json, sys, urllib.request
import xllamacpp
job = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = job["model"], 1024, 1, False
params.cpuparams.n_threads = 1
# By default parts of the attention are computed in f16.
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
if "lora" in job:
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(job["lora"])]
server = xllamacpp.Server(params)
answers = []
for prompt in job.get("prompts", []):
    request = {"prompt": prompt, "n_predict": 8, "temperature": 0, "n_probs": 1}
    tokens = server.handle_completions(request)["choices"][0]["logprobs"]["content"]
    answers.append([[token["id"], token["logprob"]] for token in tokens])
for chat in job.get("chats", []):
    request = {"messages": chat, "max_tokens": job.get("max_tokens", 200), "temperature": 0, "chat_template_kwargs": {"enable_thinking": False}}
    answers.append(server.handle_chat_completions(request)["choices"][0]["message"]["content"])
def ask(path, **body):
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
for chat in job.get("rendered", []):
    options = {"chat_template_kwargs": {"enable_thinking": chat["enable_thinking"]}}
    prompt = ask("/apply-template", messages=chat["messages"], **options)["prompt"]
    ids = ask("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
    usage = server.handle_chat_completions({"messages": chat["messages"], "max_tokens": 1, **options})["usage"]
    assert usage["prompt_tokens"] == len(ids), (usage, ids)
    answers.append(ids)
for text in job.get("texts", []):
    answers.append(ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"])
print(json.dumps(answers))
"#;

pub(super) fn llama_cpp(job: &Value) -> Value {
    let mut command = Command::new(crate::program::peer("LLAMA_CPP_PYTHON"));
    json(
        &command
            .args(["-c", SCRIPT, &job.to_string()])
            .output()
            .unwrap(),
    )
}

/// A folder's model as a file, its matrices in `stored_as`.
pub(super) fn export(model_name: &str, stored_as: &str, out: &Path) {
    let output = exported(model_name, &["--gguf", stored_as], out);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// The golden checkpoints of the architectures that can be written.
pub(super) fn written_as_gguf() -> Vec<Golden> {
    let is_refused = |golden: &Golden| {
        [
            "gemma3-tied",
            "gemma4",
            "gpt_oss",
            "qwen3_5",
            "qwen3_moe",
            "mistral-window",
            "llama-yarn-untruncated",
        ]
        .iter()
        .any(|name| golden.name.starts_with(name))
    };
    checkpoints()
        .into_iter()
        .filter(|golden| !is_refused(golden))
        .collect()
}

/// A golden checkpoint, which has no tokenizer, with one of ASCII letters.
pub(super) fn with_tokenizer(golden: &Golden, folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    for entry in std::fs::read_dir(golden.folder())
        .unwrap()
        .map(|entry| entry.unwrap())
    {
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let rows = find_model(text(folder))
        .unwrap()
        .config()
        .unwrap()
        .vocab_size;
    let letters = (33..127_u8).map(|letter| char::from(letter).to_string());
    let pairs = (33..127_u8).map(|letter| format!("a{}", char::from(letter)));
    let tokens: Vec<String> = letters.chain(pairs).take(rows - 1).collect();
    let vocab: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), id.into()))
        .collect();
    let merges: Vec<String> = tokens
        .iter()
        .skip(94)
        .map(|pair| format!("a {}", &pair[1..]))
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [{"id": rows - 1, "content": "<|im_end|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(
        folder.join("tokenizer_config.json"),
        r#"{"eos_token": "<|im_end|>"}"#,
    )
    .unwrap();
}

/// Queries and keys with biases, norms, shared heads; rows that change places for Llama; stretched rotary positions.
#[test]
#[ignore = "nightly, with llama.cpp: scripts/nightly"]
fn llama_cpp_computes_the_log_probs_of_every_architecture() {
    let work = tempfile::tempdir().unwrap();
    let prompt = [5, 30, 17, 9, 60, 2];
    let check_job = |name: &str, mut job: Value, near: f32| {
        job["prompts"] = json!([prompt]);
        let answers = llama_cpp(&job);
        let found: Vec<(u32, f32)> = serde_json::from_value(answers[0].clone()).unwrap();
        assert!(!found.is_empty());
        let sequence: Vec<u32> = prompt
            .iter()
            .copied()
            .chain(found.iter().map(|(id, _)| *id))
            .collect();
        let expected = printed_log_probs(&[name], &sequence);
        for ((_, found), expected) in found.iter().zip(&expected[prompt.len() - 1..]) {
            assert!(
                (found - expected).abs() < near,
                "{name}: {found} instead of {expected}"
            );
        }
    };
    let check = |name: &str, file: &Path, near: f32| {
        check_job(name, json!({"model": text(file)}), near);
    };
    let all = written_as_gguf();
    assert!(all.len() >= 7);
    for golden in &all {
        let (folder, file) = (
            work.path().join(&golden.name),
            work.path().join(format!("{}.gguf", golden.name)),
        );
        with_tokenizer(golden, &folder);
        export(text(&folder), "f32", &file);
        // llama.cpp rounds GELU and its argument to f16: `ggml_vec_geglu_f32` in ggml-cpu/vec.h, where
        // GGML_GELU_FP16 is defined, looks it up in `ggml_table_gelu_f16`.
        let near = match golden.name.starts_with("gemma3") {
            true => 5e-3,
            false => TOLERANCE,
        };
        check(text(&folder), &file, near);
    }
    // A tiny model's numbers of 8 bits move its log-probs further.
    for (stored_as, near) in [("bf16", 0.1), ("f16", 0.02), ("q8_0", 0.3)] {
        let file = work.path().join(format!("tiny-{stored_as}.gguf"));
        export("tiny", stored_as, &file);
        check("tiny", &file, near);
    }
    // What is read back: llama.cpp rounds the inputs of products with these types to 8 bits.
    for stored_as in ["q6_k", "q5_k_m", "q4_k_m"] {
        let file = work.path().join(format!("tiny-{stored_as}.gguf"));
        export("tiny", stored_as, &file);
        check(text(&file), &file, 0.3);
    }
    // An adapter beside its base.
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/finished-run@40");
    let out = work.path().join("apart");
    let output = exported(run, &["--gguf", "f16", "--lora"], &out);
    assert!(output.status.success(), "{}", stderr(&output));
    let [file, lora] = ["model.gguf", "model-lora.gguf"].map(|name| out.join(name));
    check_job(
        run,
        json!({"model": text(&file), "lora": text(&lora)}),
        0.02,
    );
}

/// Tokenizer, special tokens, chat template and stop token.
#[test]
#[ignore = "nightly, with llama.cpp: scripts/nightly"]
fn llama_cpp_answers_a_chat_as_sample_does() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("tiny.gguf");
    export("tiny", "f32", &file);
    let task = Task::embedded("invoice").unwrap();
    let rows = load(&task, PromptSet::Eval).unwrap();
    let rows = &rows[..4];
    let system = json!({"role": "system", "content": task.system});
    let with_system = |row: &PromptRow| -> Vec<Value> {
        std::iter::once(system.clone())
            .chain(row.messages.iter().map(|message| json!(message)))
            .collect()
    };
    let chats: Vec<_> = rows.iter().map(with_system).collect();
    let found = llama_cpp(&json!({"model": text(&file), "chats": chats}));
    let ids = rows.iter().flat_map(|row| ["--prompt", row.id.as_str()]);
    let sample = [
        "sample",
        "invoice",
        "--model",
        "tiny",
        "--n",
        "1",
        "--temperature",
        "0",
        "--json",
        "--cpu",
    ];
    let expected = json_lines(&call_anywhere(
        &sample.into_iter().chain(ids).collect::<Vec<_>>(),
    ));
    let expected: Vec<&str> = expected
        .iter()
        .map(|answer| answer["completion"].as_str().unwrap())
        .collect();
    assert_eq!(json!(expected), found);
}

#[test]
fn matrices_are_stored_as_asked_and_vectors_in_f32() {
    let work = tempfile::tempdir().unwrap();
    let (source, file) = (find_model("tiny").unwrap(), work.path().join("tiny.gguf"));
    let weights = Weights::open(&source).unwrap();
    export("tiny", "q8_0", &file);
    let mut reader = std::fs::File::open(&file).unwrap();
    let content = Content::read(&mut reader).unwrap();
    let mut numbers = |name: &str, dtype: GgmlDType| -> Vec<f32> {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu).unwrap();
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor
            .dequantize(&Device::Cpu)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    };
    let config = source.config().unwrap();
    let stored = |name: &str, shape: &[usize]| -> Vec<f32> {
        weights
            .get(name, shape, DType::F32, &Device::Cpu)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    };
    let norm = stored("model.norm.weight", &[config.hidden_size]);
    assert_eq!(numbers("output_norm.weight", GgmlDType::F32), norm);
    let shape = [config.vocab_size, config.hidden_size];
    let (rounded, exact) = (
        numbers("token_embd.weight", GgmlDType::Q8_0),
        stored("model.embed_tokens.weight", &shape),
    );
    // Half a step of the largest number of each block, and what f16 takes of its scale.
    for (rounded, exact) in rounded.chunks(32).zip(exact.chunks(32)) {
        let most = exact
            .iter()
            .fold(0.0_f32, |most, number| most.max(number.abs()))
            / 127.0
            * 0.6;
        assert!(
            rounded
                .iter()
                .zip(exact)
                .all(|(a, b)| (a - b).abs() <= most),
            "{rounded:?} of {exact:?}"
        );
    }
    let ends = content.metadata["tokenizer.ggml.eos_token_id"]
        .to_u32()
        .unwrap();
    assert!(
        grpo_tui::text::Tokenizer::load(&source)
            .unwrap()
            .stop_ids()
            .contains(&ends)
    );
    let again = exported("tiny", &["--gguf", "q8_0"], &file);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("exists: choose a new file"));
}

#[test]
fn a_tokenizer_that_llama_cpp_lacks_is_refused_before_anything_is_written() {
    let work = tempfile::tempdir().unwrap();
    let (folder, file) = (work.path().join("model"), work.path().join("model.gguf"));
    with_tokenizer(&Golden::read("tied"), &folder);
    let path = folder.join("tokenizer.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    let refused = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut tokenizer: Value = serde_json::from_str(&whole).unwrap();
        change(&mut tokenizer);
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        let output = exported(text(&folder), &["--gguf", "f16"], &file);
        let said = stderr(&output);
        assert!(
            !output.status.success()
                && said.contains(expected)
                && said.contains("convert_hf_to_gguf.py"),
            "{said}"
        );
        assert!(!file.exists());
    };
    refused(
        &|tokenizer| tokenizer["pre_tokenizer"] = json!({"type": "Whitespace"}),
        "\"Whitespace\"",
    );
    refused(
        &|tokenizer| tokenizer["model"]["merges"] = json!([]),
        "`merges`",
    );
    refused(
        &|tokenizer| tokenizer["model"] = json!({"type": "Unigram", "vocab": []}),
        "only BPE tokenizers",
    );
}
