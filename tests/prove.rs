//! `grpo-tui prove`: servers with one fault each, named; correct servers, called equal; servers that tell little.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::program::{
    HttpRequest, call, call_in_process, json as json_of, sample_task_named, serve, stderr,
};
use crate::serve::{Server, answered};

/// Prompts of each comparison.
const PROMPTS: &str = "8";

/// What a server between `prove` and ours does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    OtherTemplate,
    DoubledStart,
    ThinksByDefault,
    WrongStop,
    SchemaIgnored,
    /// Chat alone, without usage: no ids, no log-probs.
    TellsNothing,
    Refuses,
    /// Answers the first request and keeps the others waiting.
    Stalls,
}

struct Proxy {
    upstream: SocketAddr,
    fault: Fault,
    requests: AtomicUsize,
}

/// The address of a server with this fault before `upstream`.
fn faulty(upstream: &Server, fault: Fault) -> String {
    proxied(upstream, fault).0
}

fn proxied(upstream: &Server, fault: Fault) -> (String, Arc<Proxy>) {
    let url = upstream.base_url();
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    let proxy = Proxy {
        upstream: address.parse().unwrap(),
        fault,
        requests: AtomicUsize::new(0),
    };
    let proxy = Arc::new(proxy);
    let url = format!("http://{}/v1", serve(Arc::clone(&proxy), answer));
    (url, proxy)
}

/// Status, content type and body of an answer.
type Answer = (u16, &'static str, String);

const JSON: &str = "application/json";
const STREAM: &str = "text/event-stream";

impl Proxy {
    fn forward(&self, path: &str, body: &str) -> Answer {
        let mut socket = TcpStream::connect(self.upstream).unwrap();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let (host, length) = (self.upstream, body.len());
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (status, head, body) = answered(&text);
        let kind = match head.contains(STREAM) {
            true => STREAM,
            false => JSON,
        };
        (status, kind, body)
    }

    fn document(&self, path: &str, body: &Value) -> Value {
        serde_json::from_str(&self.forward(path, &body.to_string()).2).unwrap()
    }

    /// The completion of a chat's prompt with its first token once more.
    fn doubled_start(&self, chat: &Value) -> Answer {
        let rendered = ["model", "messages", "tools", "chat_template_kwargs"];
        let rendered = rendered.map(|name| (name.to_owned(), chat[name].clone()));
        let rendered = rendered.into_iter().filter(|(_, value)| !value.is_null());
        let rendered = Value::Object(rendered.collect());
        let ids = self.document("/tokenize", &rendered)["tokens"].clone();
        let mut ids: Vec<u64> = serde_json::from_value(ids).unwrap();
        ids.insert(0, ids[0]);
        let mut body = json!({"model": chat["model"], "prompt": ids, "temperature": 0, "max_tokens": chat["max_tokens"], "response_format": chat["response_format"]});
        body.as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        let answer = self.document("/v1/completions", &body);
        let choice = &answer["choices"][0];
        let message = json!({"role": "assistant", "content": choice["text"]});
        let finish = &choice["finish_reason"];
        let whole = json!({"choices": [{"message": message, "finish_reason": finish}], "usage": answer["usage"]});
        (200, JSON, whole.to_string())
    }

    fn reply(&self, path: &str, text: &str) -> Answer {
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        let is_chat = path.ends_with("/chat/completions");
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut body = body.clone();
            change(&mut body);
            self.forward(path, &body.to_string())
        };
        let refused = |status| {
            let error = json!({"error": {"message": "not here"}});
            (status, JSON, error.to_string())
        };
        match self.fault {
            Fault::Refuses => refused(503),
            Fault::OtherTemplate if body["messages"].is_array() => changed(&|body| {
                let system = json!({"role": "system", "content": "You are a helpful assistant."});
                body["messages"].as_array_mut().unwrap().insert(0, system);
            }),
            Fault::ThinksByDefault
                if body["messages"].is_array() && body["chat_template_kwargs"].is_null() =>
            {
                changed(&|body| body["chat_template_kwargs"] = json!({"enable_thinking": true}))
            }
            Fault::DoubledStart if is_chat => self.doubled_start(&body),
            Fault::WrongStop
                if body["prompt_logprobs"].is_null()
                    && body["response_format"].is_null()
                    && body["max_tokens"].is_u64() =>
            {
                changed(&|body| body["ignore_eos"] = json!(true))
            }
            Fault::SchemaIgnored if is_chat => {
                changed(&|body| _ = body.as_object_mut().unwrap().remove("response_format"))
            }
            Fault::TellsNothing if !is_chat && !path.ends_with("/models") => refused(404),
            Fault::TellsNothing if is_chat && !body["logprobs"].is_null() => refused(400),
            Fault::TellsNothing if is_chat => {
                let (status, kind, text) = self.forward(path, text);
                let mut answer: Value = serde_json::from_str(&text).unwrap();
                answer.as_object_mut().unwrap().remove("usage");
                (status, kind, answer.to_string())
            }
            _ => self.forward(path, text),
        }
    }
}

fn answer(mut stream: TcpStream, proxy: &Proxy) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = HttpRequest::read(&mut reader) else {
        return;
    };
    let before = proxy.requests.fetch_add(1, Ordering::SeqCst);
    if proxy.fault == Fault::Stalls && before > 0 {
        // Until the client goes.
        _ = reader.read(&mut [0]);
        return;
    }
    let (status, kind, text) =
        proxy.reply(&request.path, &String::from_utf8(request.body).unwrap());
    // The client may have gone.
    _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
}

/// A folder with short runs of an adapter: `invoice` and `tool-calls`, made once; tests only read their weights.
fn trained() -> &'static Path {
    static TRAINED: OnceLock<PathBuf> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prove");
        _ = std::fs::remove_dir_all(&folder);
        for (task, model, rate) in [
            ("invoice", "tiny", "1e-2"),
            ("tool-calls", "tiny-tools", "1e-3"),
        ] {
            sample_task_named(task, &folder.join(task), [8, 4, 8]);
            let own = format!("--set base_model={model} --set learning_rate={rate}");
            let same = "--set lora_rank=4 --set learning_rate_schedule=constant --set max_steps=3 --set completions_per_prompt=4 --set prompt_groups_per_step=8";
            let set: Vec<&str> = own.split(' ').chain(same.split(' ')).collect();
            let train = [
                &["train", task, "--runs", "runs", "--name", task, "--json"],
                set.as_slice(),
            ];
            json_of(&call_in_process(&folder, &train.concat()));
        }
        folder
    })
}

fn run_of(task: &str) -> String {
    let runs = trained().join("runs");
    let mut runs = std::fs::read_dir(&runs)
        .unwrap()
        .map(|run| run.unwrap().path());
    let run = runs.find(|run| run.to_str().unwrap().contains(&format!("-{task}-")));
    run.unwrap().to_str().unwrap().to_owned()
}

/// The exit code and the document of a comparison.
fn proven(url: &str, task: &str, more: &[&str]) -> (i32, Value) {
    // Our own server has our own numbers.
    proven_within(url, task, "0.002", more)
}

fn proven_within(url: &str, task: &str, max_nats: &str, more: &[&str]) -> (i32, Value) {
    let run = run_of(task);
    let limits = ["--limit", PROMPTS, "--max-nats", max_nats, "--cpu"];
    let arguments = [&["prove", url, "--run", &run, "--json"], &limits[..]].concat();
    let output = call(trained(), &[&arguments, more].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let document = serde_json::from_str(&text);
    let document = document.unwrap_or_else(|error| panic!("{error}: {text} {}", stderr(&output)));
    (output.status.code().unwrap(), document)
}

fn faults(document: &Value) -> Vec<&str> {
    let findings = document["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| finding["fault"].as_str().unwrap())
        .collect()
}

fn check_faults(url: &str, task: &str, expected: &[&str]) {
    let (code, document) = proven(url, task, &[]);
    assert_eq!(faults(&document), expected, "{task}: {document:#}");
    assert_eq!(code, i32::from(!expected.is_empty()), "{document:#}");
}

fn outcome<'d>(document: &'d Value, name: &str) -> &'d str {
    let mut checks = document["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no {name}: {document:#}"))["outcome"]
        .as_str()
        .unwrap()
}

fn served(task: &str) -> Server {
    Server::start(&[&run_of(task), "--cpu"])
}

/// Exports the run's model.
fn export(out: &str, more: &[&str]) {
    let run = run_of("invoice");
    let own = ["model", "export", "--model", &run, "--out", out];
    let ended = call_in_process(trained(), &[&own, more].concat());
    assert!(ended.status.success(), "{}", stderr(&ended));
}

/// A folder with an adapter of the run, whose scale is doubled.
fn doubled_adapter(folder: &Path) -> String {
    let out = folder.join("twice");
    let out = out.to_str().unwrap();
    export(out, &[]);
    let path = Path::new(out).join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["lora_alpha"] = json!(2.0 * config["lora_alpha"].as_f64().unwrap());
    std::fs::write(&path, config.to_string()).unwrap();
    out.to_owned()
}

/// A folder with the run's model, whose matrices are rounded to a few levels for each row.
fn rounded_model(folder: &Path, levels: f32) -> String {
    let out = folder.join("rounded");
    let out = out.to_str().unwrap();
    export(out, &["--merged"]);
    let path = Path::new(out).join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let rounded = |view: &TensorView<'_>| -> Vec<u8> {
        let row = view.shape().last().copied().unwrap_or(1);
        if view.shape().len() < 2 {
            return view.data().to_vec();
        }
        let size = view.dtype().bitsize() / 8;
        let value = |bytes: &[u8]| match view.dtype() {
            Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
            Dtype::BF16 => {
                f32::from_bits(u32::from(u16::from_le_bytes(bytes.try_into().unwrap())) << 16)
            }
            other => panic!("{other:?}"),
        };
        let values: Vec<f32> = view.data().chunks(size).map(value).collect();
        let rows = values.chunks(row).flat_map(|row| {
            let most = row
                .iter()
                .fold(0.0_f32, |most, value| most.max(value.abs()));
            let step = (most / levels).max(f32::MIN_POSITIVE);
            row.iter().map(move |value| (value / step).round() * step)
        });
        match view.dtype() {
            Dtype::F32 => rows.flat_map(f32::to_le_bytes).collect(),
            _ => rows
                .flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes())
                .collect(),
        }
    };
    let changed: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), rounded(&view)))
        .collect();
    let views = changed.iter().map(|(name, dtype, shape, data)| {
        (
            name.clone(),
            TensorView::new(*dtype, shape.clone(), data).unwrap(),
        )
    });
    let text = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    std::fs::write(&path, text).unwrap();
    out.to_owned()
}

#[test]
fn correct_servers_are_called_equal() {
    let (invoice, tools) = (served("invoice"), served("tool-calls"));
    check_faults(&invoice.base_url(), "invoice", &[]);
    check_faults(&tools.base_url(), "tool-calls", &[]);
    check_faults(&faulty(&invoice, Fault::None), "invoice", &[]);
    // What is the same on the run's side is not always told.
    let (code, document) = proven(&faulty(&invoice, Fault::TellsNothing), "invoice", &[]);
    assert_eq!((code, faults(&document)), (0, vec![]), "{document:#}");
    for (name, expected) in [
        ("prompt tokens", "not compared"),
        ("log-probs", "not compared"),
        ("answers, chat", "equal"),
    ] {
        assert_eq!(outcome(&document, name), expected, "{name}");
    }
    assert!(
        document["verdict"]
            .as_str()
            .unwrap()
            .contains("not compared")
    );
}

#[test]
fn each_fault_of_a_server_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let invoice = served("invoice");
    for (fault, expected) in [
        (Fault::OtherTemplate, "template"),
        (Fault::DoubledStart, "template"),
        (Fault::ThinksByDefault, "template"),
        (Fault::WrongStop, "sampling"),
        (Fault::SchemaIgnored, "schema_not_enforced"),
    ] {
        check_faults(&faulty(&invoice, fault), "invoice", &[expected]);
    }
    drop(invoice);
    let base = Server::start(&["tiny", "--cpu"]);
    check_faults(&base.base_url(), "invoice", &["adapter"]);
    drop(base);
    let twice = Server::start(&[&doubled_adapter(folder.path()), "--cpu"]);
    // A folder says nothing of the run's thinking: both faults are there, and named.
    let found = ["template", "adapter"];
    check_faults(&twice.base_url(), "invoice", &found);
    drop(twice);
    let rounded = Server::start(&[&rounded_model(folder.path(), 3.0), "--cpu"]);
    check_faults(
        &rounded.base_url(),
        "invoice",
        &["template", "quantisation"],
    );
}

#[test]
fn another_model_and_another_tokenizer_are_named() {
    let other = Server::start(&[crate::program::NANO, "--cpu"]);
    // A folder that says nothing of thinking thinks by default.
    let found = ["template", "other_weights"];
    check_faults(&other.base_url(), "invoice", &found);
    drop(other);
    // The same vocabulary with fewer merges.
    let folder = tempfile::tempdir().unwrap();
    crate::program::copy_tree(Path::new(crate::program::NANO), folder.path());
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let merges = tokenizer["model"]["merges"].as_array_mut().unwrap();
    merges.truncate(merges.len() / 2);
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let other = Server::start(&[folder.path().to_str().unwrap(), "--cpu"]);
    let (code, document) = proven(&other.base_url(), "invoice", &[]);
    assert_eq!(
        (code, faults(&document)[0]),
        (1, "tokenizer"),
        "{document:#}"
    );
}

/// llama.cpp's server with a run's export in f16.
#[test]
#[ignore = "nightly: needs llama.cpp"]
fn an_f16_export_is_proven_with_llama_cpp() {
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/llama-cpp-server.py");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    let file = file.to_str().unwrap();
    export(file, &["--gguf", "f16"]);
    let mut python = Command::new(crate::program::peer("LLAMA_CPP_PYTHON"));
    let python = python
        .args([SCRIPT, file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut python = python.stderr(Stdio::null()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(python.stdout.take().unwrap())
        .read_line(&mut address)
        .unwrap();
    let url = format!("{}/v1", address.trim());
    let more = ["--at-once", "8"];
    let (code, document) = proven_within(&url, "invoice", "0.02", &more);
    drop(python.stdin.take());
    python.wait().unwrap();
    assert_eq!((code, faults(&document)), (0, vec![]), "{document:#}");
    assert!(
        document["log_prob_difference"].as_f64().unwrap() < 0.02,
        "{document:#}"
    );
    assert_eq!(outcome(&document, "prompt tokens"), "equal");
}

#[test]
fn a_server_that_refuses_is_an_error_and_a_verdict_is_kept() {
    let invoice = served("invoice");
    let run = run_of("invoice");
    let refuses = faulty(&invoice, Fault::Refuses);
    let endpoints = trained().join("endpoints.toml");
    let text = |url: &str| format!("[served]\nbase_url = \"{url}\"\nmodel = \"m\"\nretries = 0\n");
    std::fs::write(&endpoints, text(&refuses)).unwrap();
    let prove = |more: &[&str]| {
        let arguments = [
            "prove",
            "endpoint:served",
            "--run",
            &run,
            "--endpoints",
            "endpoints.toml",
            "--limit",
            "2",
            "--cpu",
        ];
        call(trained(), &[&arguments[..], more].concat())
    };
    let output = prove(&[]);
    let said = stderr(&output);
    assert!(
        output.status.code() == Some(2) && said.contains("503: not here"),
        "{said}"
    );
    for (more, expected) in [
        (&["--model", "x"][..], "leave the option out"),
        (&["--max-nats", "0"], "must be a number > 0"),
        (&["--on", "missing.jsonl"], "no such file"),
    ] {
        let output = prove(more);
        let said = stderr(&output);
        assert!(
            output.status.code() == Some(2) && said.contains(expected),
            "{said}"
        );
    }
    // One that stalls is given up, and nothing is called equal.
    let (stalls, proxy) = proxied(&invoice, Fault::Stalls);
    let model = format!("model = {}", json!(run));
    let stalling = text(&stalls).replace("model = \"m\"\nretries = 0", &model);
    std::fs::write(&endpoints, stalling + "\ntimeout_seconds = 3\n").unwrap();
    let output = prove(&[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    assert!(
        output.status.code() == Some(2) && said.contains("the server has stopped answering"),
        "{said}"
    );
    let requests = proxy.requests.load(Ordering::SeqCst);
    assert!(requests <= 5, "{requests}");
    let served = invoice.base_url();
    let right = text(&served).replace("model = \"m\"", &model);
    std::fs::write(&endpoints, right).unwrap();
    let output = prove(&["--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The verdict stands in the run, and in its model card.
    let kept = grpo_tui::run::read_proves(Path::new(&run));
    let own = kept
        .iter()
        .find(|record| record.base_url == served)
        .unwrap();
    assert_eq!(own.verdict(), document["verdict"]);
    let out = tempfile::tempdir().unwrap();
    let card = out.path().join("card");
    let promote = ["runs", "promote", &run, "--out", card.to_str().unwrap()];
    assert!(call_in_process(trained(), &promote).status.success());
    let text = std::fs::read_to_string(card.join("README.md")).unwrap();
    assert!(text.contains(&own.verdict()), "{text}");
}
