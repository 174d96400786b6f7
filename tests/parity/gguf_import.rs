//! GGUF files as model folders: what an export wrote comes back, and what cannot be imported is named.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor, safetensors};
use grpo_tui::hub::{RopeScaling, find_model};
use grpo_tui::text::{Message, Thinking, Tokenizer};

use super::llama_cpp::{export, with_tokenizer, written_as_gguf};
use super::model_commands::{model, printed_log_probs, text, text as path_text};
use crate::program::{SHORT, call_anywhere, json, small_task, stderr, stdout};

fn import(file: &Path, out: &Path) -> Result<HashMap<String, Tensor>, String> {
    let output = model(&["import", text(file), "--out", text(out), "--f32"]);
    if !output.status.success() {
        assert!(!out.exists(), "a refused import leaves a folder");
        return Err(stderr(&output));
    }
    Ok(safetensors::load(out.join("model.safetensors"), &Device::Cpu).unwrap())
}

/// Rows that change places, biases, norms of heads, tied and untied heads.
#[test]
fn every_architecture_comes_back_bit_for_bit() {
    let work = tempfile::tempdir().unwrap();
    let sequence = [5, 30, 17, 9, 60, 2];
    for golden in written_as_gguf() {
        let folder = work.path().join(&golden.name);
        let (file, out) = (
            work.path().join(format!("{}.gguf", golden.name)),
            work.path().join("out").join(&golden.name),
        );
        with_tokenizer(&golden, &folder);
        export(text(&folder), "f32", &file);
        let imported = import(&file, &out);
        let scaling = find_model(text(&folder))
            .unwrap()
            .config()
            .unwrap()
            .rope_scaling;
        if matches!(scaling, RopeScaling::Llama3 { .. }) {
            // Only those of published models are known by their divisors.
            assert!(
                imported
                    .unwrap_err()
                    .contains("`rope_freqs.weight` is no scaling of Llama 3.1"),
                "{}",
                golden.name
            );
            continue;
        }
        imported.unwrap();
        let [expected, found] =
            [&folder, &out].map(|folder| printed_log_probs(&[text(folder)], &sequence));
        // 1 is added to Gemma's norms, and taken away.
        let near = match golden.name.starts_with("gemma") {
            true => 1e-5,
            false => 0.0,
        };
        let is_near = |(one, other): (&f32, &f32)| (one - other).abs() <= near;
        assert!(
            expected.len() == found.len() && expected.iter().zip(&found).all(is_near),
            "{}: {expected:?} {found:?}",
            golden.name
        );
    }
}

/// As llama.cpp's converter writes Gemma 3: norms with their offset, names of its own, SentencePiece, no template.
#[test]
fn gemma_3_comes_back() {
    const NAMES: [(&str, &str); 17] = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "post_attention_norm"),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let folder = super::golden_folder().join("gemma3-linear-untied");
    let tensors = safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let written = tensors.iter().map(|(name, tensor)| {
        let name = NAMES
            .iter()
            .fold(name.clone(), |name, (from, to)| name.replace(from, to));
        let offset = if name.contains("norm") { 1.0 } else { 0.0 };
        (
            name,
            QTensor::quantize(&(tensor + offset).unwrap(), GgmlDType::F32).unwrap(),
        )
    });
    let written: Vec<(String, QTensor)> = written.collect();

    let special = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<end_of_turn>",
    ]
    .map(|text| (text, 0.0, 3));
    let pieces = [
        ("\n", 0.0, 4),
        ("ab", -1.0, 1),
        ("bc", -2.0, 1),
        ("▁", -3.0, 1),
        ("a", -4.0, 1),
        ("b", -5.0, 1),
    ];
    let bytes: Vec<String> = [b'c', 0xc3, 0xbc]
        .iter()
        .map(|byte| format!("<0x{byte:02X}>"))
        .collect();
    let bytes = bytes.iter().map(|text| (text.as_str(), 0.0, 6));
    let mut tokens: Vec<(&str, f32, i32)> =
        special.into_iter().chain(pieces).chain(bytes).collect();
    let known = tokens.len();
    let unused: Vec<String> = (known..128).map(|id| format!("<unused{id}>")).collect();
    tokens.extend(unused.iter().map(|text| (text.as_str(), -1000.0, 5)));
    let array =
        |of: &dyn Fn(&(&str, f32, i32)) -> Value| Value::Array(tokens.iter().map(of).collect());
    let (count, text) = (Value::U32, |text: &str| Value::String(text.to_owned()));
    let metadata = [
        ("general.architecture", text("gemma3")),
        ("gemma3.context_length", count(256)),
        ("gemma3.embedding_length", count(40)),
        ("gemma3.block_count", count(4)),
        ("gemma3.feed_forward_length", count(48)),
        ("gemma3.attention.head_count", count(5)),
        ("gemma3.attention.head_count_kv", count(5)),
        ("gemma3.attention.key_length", count(8)),
        ("gemma3.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("gemma3.attention.sliding_window", count(3)),
        ("gemma3.attention.sliding_window_pattern", count(2)),
        ("gemma3.rope.freq_base", Value::F32(1000.0)),
        ("gemma3.rope.freq_base_swa", Value::F32(100.0)),
        ("gemma3.rope.scaling.type", text("linear")),
        ("gemma3.rope.scaling.factor", Value::F32(8.0)),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", array(&|token| text(token.0))),
        ("tokenizer.ggml.scores", array(&|token| Value::F32(token.1))),
        (
            "tokenizer.ggml.token_type",
            array(&|token| Value::I32(token.2)),
        ),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("tokenizer.ggml.bos_token_id", count(2)),
        ("tokenizer.ggml.eos_token_id", count(1)),
        ("tokenizer.ggml.unknown_token_id", count(3)),
    ];
    let work = tempfile::tempdir().unwrap();
    let write_with = |name: &str, extra: &[(&str, Value)]| {
        let path = work.path().join(format!("{name}.gguf"));
        let metadata: Vec<(&str, &Value)> = metadata
            .iter()
            .chain(extra)
            .map(|(key, value)| (*key, value))
            .collect();
        let tensors: Vec<(&str, &QTensor)> = written
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        write(
            &mut std::fs::File::create(&path).unwrap(),
            &metadata,
            &tensors,
        )
        .unwrap();
        path
    };
    let out = work.path().join("out");
    import(&write_with("gemma", &[]), &out).unwrap();
    let sequence = [5, 30, 17, 9, 60, 2, 101, 77];
    let [expected, found] =
        [&folder, &out].map(|folder| printed_log_probs(&[path_text(folder)], &sequence));
    assert!(
        expected
            .iter()
            .zip(&found)
            .all(|(a, b)| (a - b).abs() < 2e-5),
        "{expected:?} {found:?}"
    );

    let tokenizer = Tokenizer::load(&find_model(path_text(&out)).unwrap()).unwrap();
    // Merges in the order of their scores, bytes of what is no piece, spaces as they are.
    assert_eq!(
        tokenizer.encode("abc a\nü").unwrap(),
        [7, 12, 9, 10, 6, 13, 14]
    );
    let messages = [
        Message::new("system", "a"),
        Message::new("user", " b "),
        Message::new("assistant", "ab"),
    ];
    let rendered = tokenizer
        .render(&messages, None, &Thinking::On.into())
        .unwrap();
    let expected = "<bos><start_of_turn>user\na\n\nb<end_of_turn>\n<start_of_turn>model\nab<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(rendered, expected);
    assert_eq!(
        (tokenizer.stop_ids(), tokenizer.turn_end_id()),
        (&[1, 5][..], Some(5))
    );
    assert!(
        tokenizer
            .render(&messages[2..], None, &Thinking::On.into())
            .unwrap_err()
            .to_string()
            .contains("alternate")
    );

    let capped = write_with(
        "capped",
        &[("gemma3.final_logit_softcapping", Value::F32(30.0))],
    );
    let message = import(&capped, &work.path().join("capped")).unwrap_err();
    assert!(
        message.contains("soft caps (`final_logit_softcapping`) are not supported"),
        "{message}"
    );
    // Written by us it comes back as well: numbers, and cuts by scores that are the order of the merges.
    let (file, again) = (work.path().join("again.gguf"), work.path().join("again"));
    export(path_text(&out), "f32", &file);
    import(&file, &again).unwrap();
    let back = Tokenizer::load(&find_model(path_text(&again)).unwrap()).unwrap();
    for text in ["abc a\nü", "a b  c"] {
        assert_eq!(back.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }
    assert_eq!(back.stop_ids(), tokenizer.stop_ids());
    let [own, found] =
        [&out, &again].map(|folder| printed_log_probs(&[path_text(folder)], &[2, 3, 4]));
    let is_near = |(one, other): (&f32, &f32)| (one - other).abs() < 1e-5;
    assert!(own.iter().zip(&found).all(is_near), "{own:?} {found:?}");
}

/// A piece of a tensor begins where the one before ended, in blocks of 32; tokenizer, template and stop tokens agree.
#[test]
fn quantized_numbers_and_the_tokenizer_are_those_of_the_file() {
    let work = tempfile::tempdir().unwrap();
    let (file, out) = (work.path().join("tiny.gguf"), work.path().join("out"));
    export("tiny", "q8_0", &file);
    let imported = import(&file, &out).unwrap();
    let mut reader = std::fs::File::open(&file).unwrap();
    let content = Content::read(&mut reader).unwrap();
    assert_eq!(imported.len(), content.tensor_infos.len());
    let embedding = content
        .tensor(&mut reader, "token_embd.weight", &Device::Cpu)
        .unwrap();
    let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = bits(&embedding.dequantize(&Device::Cpu).unwrap());
    assert_eq!(bits(&imported["model.embed_tokens.weight"]), expected);
    let [here, there] =
        ["tiny", text(&out)].map(|name| Tokenizer::load(&find_model(name).unwrap()).unwrap());
    let messages = [
        Message::new("system", "Grüße, 1234!"),
        Message::new("user", "  a <think> b\n\n{\"x\": [1.5]}"),
    ];
    for thinking in [Thinking::On, Thinking::Off] {
        let [here, there] = [&here, &there].map(|tokenizer| {
            tokenizer
                .prompt_ids(&messages, None, &thinking.into())
                .unwrap()
        });
        assert_eq!(here, there);
    }
    assert_eq!(
        (here.stop_ids(), here.turn_end_id()),
        (there.stop_ids(), there.turn_end_id())
    );
}

/// `eos_token` is not what ends turns, and there are two templates.
#[test]
fn every_stop_token_and_template_survives_an_export() {
    let work = tempfile::tempdir().unwrap();
    let [folder, file, out] = ["folder", "model.gguf", "out"].map(|name| work.path().join(name));
    crate::program::copy_tree(Path::new(crate::program::NANO), &folder);
    let path = folder.join("tokenizer_config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let default = config["chat_template"].take();
    config["chat_template"] = serde_json::json!([{"name": "default", "template": default},
        {"name": "tool_use", "template": format!("{}{{{{ tools }}}}", default.as_str().unwrap())}]);
    config["eos_token"] = "<|endoftext|>".into();
    std::fs::write(&path, config.to_string()).unwrap();
    std::fs::write(
        folder.join("generation_config.json"),
        r#"{"eos_token_id":[0,2]}"#,
    )
    .unwrap();
    export(text(&folder), "f32", &file);
    import(&file, &out).unwrap();
    let [here, there] =
        [&folder, &out].map(|folder| Tokenizer::load(&find_model(text(folder)).unwrap()).unwrap());
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f"}}]);
    let facts = |tokenizer: &Tokenizer| {
        let template = tokenizer.chat_template().unwrap();
        let asked = [Message::new("user", "a")];
        let prompt = tokenizer.prompt_ids(&asked, Some(&tools), &Thinking::On.into());
        (
            tokenizer.stop_ids().to_vec(),
            tokenizer.turn_end_id(),
            template.special_token("eos_token").map(str::to_owned),
            prompt.unwrap(),
        )
    };
    assert_eq!(facts(&here), facts(&there));
    assert_eq!(
        (here.stop_ids(), here.turn_end_id()),
        (&[0, 2][..], Some(2))
    );
}

#[test]
fn a_file_is_a_model_wherever_one_is_named() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("tiny.gguf");
    export("tiny", "bf16", &file);
    // One home, in which the import stays.
    let call = |arguments: &[&str]| crate::program::call(work.path(), arguments);
    let inspect = || call(&["model", "inspect", text(&file)]);
    assert!(
        stderr(&inspect()).contains("not imported yet; run: grpo-tui model import"),
        "{}",
        stderr(&inspect())
    );
    // Of those that begin at the same time one imports it, and all use it.
    let log_probs = || {
        stdout(&call(&[
            "model",
            "log-probs",
            text(&file),
            "--token-ids",
            "1,2,3",
        ]))
    };
    std::thread::scope(|scope| {
        let all = [0; 4].map(|_| scope.spawn(log_probs));
        all.into_iter().for_each(|one| drop(one.join().unwrap()));
    });
    stdout(&inspect());
    let folder = stdout(&call(&["model", "import", text(&file)]));
    assert!(
        Path::new(folder.trim()).join("config.json").is_file(),
        "{folder}"
    );
    // A run names it by its path, for whoever looks at the run from elsewhere.
    let task = small_task(work.path());
    let train = [
        "train",
        "task",
        "--model",
        "tiny.gguf",
        "--runs",
        "runs",
        "--cpu",
        "--json",
    ];
    let run = json(&call(&[&train[..], &SHORT].concat()));
    let run = run["path"].as_str().unwrap();
    stdout(&call_anywhere(&[
        "sample",
        text(&task),
        "--model",
        run,
        "--n",
        "1",
        "--cpu",
    ]));
    // What is there in bf16 is not passed off as f32.
    assert!(stderr(&call(&["model", "import", text(&file), "--f32"])).contains("--out <DIR>"));
    let asked: [&[&str]; 3] = [
        &["model", "import", "absent.gguf"],
        &["model", "log-probs", "absent.gguf", "--token-ids", "1,2"],
        &["serve", "absent.gguf"],
    ];
    for arguments in asked {
        let output = call(arguments);
        let expected = "error: absent.gguf: No such file or directory (os error 2); check that the file exists and can be read";
        assert_eq!(
            (output.status.code(), stderr(&output).trim()),
            (Some(1), expected),
            "{arguments:?}"
        );
    }
}

#[test]
fn what_cannot_be_imported_is_named_in_one_sentence() {
    let work = tempfile::tempdir().unwrap();
    let good = work.path().join("good.gguf");
    export("tiny", "q8_0", &good);
    let bytes = std::fs::read(&good).unwrap();
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let (mut bytes, from) = (bytes.clone(), from.as_bytes());
        let places: Vec<usize> = bytes
            .windows(from.len())
            .enumerate()
            .filter(|(_, found)| *found == from)
            .map(|(at, _)| at)
            .collect();
        assert!(!places.is_empty());
        places
            .into_iter()
            .for_each(|at| bytes[at..at + from.len()].copy_from_slice(to.as_bytes()));
        bytes
    };
    // Of a vector of 160 numbers: dimensions, their number, type.
    let described = |size: u64, dtype: u32| {
        let mut bytes = bytes.clone();
        let name = b"output_norm.weight";
        let at = bytes
            .windows(name.len())
            .position(|found| found == name)
            .unwrap()
            + name.len();
        assert_eq!(
            bytes[at..at + 16],
            [&[1, 0, 0, 0][..], &160_u64.to_le_bytes(), &[0; 4]].concat()
        );
        bytes[at + 4..at + 16]
            .copy_from_slice(&[&size.to_le_bytes()[..], &dtype.to_le_bytes()].concat());
        bytes
    };
    let header = |version: [u8; 4], rest: &[u8]| [b"GGUF", &version[..], rest].concat();
    let long = [1, 1, 100_000_000_000_u64].map(u64::to_le_bytes).concat();
    let mut unaligned = std::io::Cursor::new(Vec::new());
    write(
        &mut unaligned,
        &[("general.alignment", &Value::U32(0))],
        &[],
    )
    .unwrap();
    let cases: [(&str, Vec<u8>, &str); 18] = [
        ("empty", Vec::new(), "not a GGUF file"),
        (
            "foreign",
            b"PK\x03\x04 and more".to_vec(),
            "not a GGUF file",
        ),
        (
            "old",
            header([1, 0, 0, 0], &[0; 64]),
            "GGUF version 1; versions 2 and 3 are supported",
        ),
        (
            "big-endian",
            header([0, 0, 0, 3], &[0; 64]),
            "big-endian; convert it",
        ),
        (
            "huge",
            header([3, 0, 0, 0], &[0xff; 64]),
            "the file is damaged or cut short",
        ),
        (
            "long",
            header([3, 0, 0, 0], &[&long[..], &[0; 64]].concat()),
            "the file is damaged or cut short",
        ),
        (
            "type",
            described(160, 23),
            "or it has a type other than F32, F16, BF16, Q4_0 to Q8_1 and Q2_K to Q8_K",
        ),
        (
            "shape",
            described(161, 0),
            "tensor `output_norm.weight` has shape [161], the metadata say [160]",
        ),
        (
            "tokenizer",
            replaced("gpt2", "bert"),
            "the tokenizer `bert` is not supported; use gpt2 (byte-level BPE) or llama (SentencePiece)",
        ),
        (
            "syntax",
            replaced("{%- endfor %}", "{%- endfur %}"),
            "syntax.gguf: chat template: unknown statement endfur (line 37 of the template)",
        ),
        ("unaligned", unaligned.into_inner(), "damaged header"),
        (
            "header",
            bytes[..2000].to_vec(),
            "the file is damaged or cut short",
        ),
        (
            "cut",
            bytes[..bytes.len() - 4096].to_vec(),
            "the file is cut short: download it again",
        ),
        (
            "architecture",
            replaced("qwen3", "phi3x"),
            "the architecture `phi3x` is not supported; use one of gemma3, llama, qwen2, qwen3",
        ),
        (
            "tensor",
            replaced("output_norm", "output_nurm"),
            "tensor `output_norm.weight` is missing",
        ),
        (
            "words",
            replaced("qwen2", "qwenX"),
            "`pre` = `qwenX` is not supported",
        ),
        ("template", replaced("{%", "{{"), "chat template"),
        (
            "metadata",
            replaced("embedding_length", "embedding_lenght"),
            "`qwen3.embedding_length` is missing",
        ),
    ];
    for (name, bytes, expected) in cases {
        let file = work.path().join(format!("{name}.gguf"));
        std::fs::write(&file, bytes).unwrap();
        let message = import(&file, &work.path().join(name)).unwrap_err();
        assert!(
            message.contains(expected) && message.contains(&format!("{name}.gguf")),
            "{name}: {message}"
        );
        assert_eq!(message.trim().lines().count(), 1, "{message}");
    }
    let missing = import(
        &work.path().join("absent.gguf"),
        &work.path().join("absent"),
    )
    .unwrap_err();
    assert!(missing.contains("check that the file exists"), "{missing}");
}
