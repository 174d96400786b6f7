//! The Model Context Protocol on standard input and output: one JSON-RPC message a line.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::Server;
use super::docs::tool_result;
use super::tools::{TOOLS, Tool};
use crate::cli::output::print_json;
use crate::environment::MCP_VERSIONS;
use crate::format::{did_you_mean, shortened};

/// Longest line of a client.
const MAX_LINE_BYTES: usize = 4 << 20;
/// Calls under way; each has a thread.
const MAX_CALLS: usize = 8;
/// How long calls may go on after the end of the input: a script may close its end right after the last request.
const LAST_CALLS_TIMEOUT: Duration = Duration::from_secs(2);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// The version that has batches, which are not served.
const BATCH_VERSION: &str = "2025-03-26";

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const RESOURCE_NOT_FOUND: i32 = -32002;

type Answer = Result<Value, (i32, String)>;

/// What is known of the client.
#[derive(Default)]
pub(super) struct Session {
    has_begun: AtomicBool,
    /// By the request's id as JSON.
    calls: Mutex<BTreeMap<String, Arc<Call>>>,
}

/// A tool call under way.
#[derive(Default)]
pub(super) struct Call {
    progress_token: Value,
    last_progress: Mutex<Option<Instant>>,
    is_cancelled: AtomicBool,
}

impl Call {
    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Tells the client what happens after some seconds, at most once a second, if it asked to be told.
    pub(super) fn progress(&self, message: &str, since: Instant) {
        let mut last = self.last_progress.lock();
        if self.progress_token.is_null()
            || last.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL)
        {
            return;
        }
        *last = Some(Instant::now());
        let parameters = json!({"progressToken": self.progress_token, "progress": since.elapsed().as_secs_f64(), "message": message});
        write(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": parameters}));
    }
}

/// A whole line at a time. A client that does not read makes the server wait; one that has gone ends it at its next read.
fn write(message: &Value) {
    static OUTPUT: Mutex<()> = Mutex::new(());
    let _whole = OUTPUT.lock();
    let _ = print_json(message);
}

/// Serves until the input ends; then calls under way are ended, while workers of runs go on.
pub(super) fn serve(server: &Server, mut input: impl BufRead) {
    let calls = &server.session.calls;
    std::thread::scope(|scope| {
        let mut line = Vec::new();
        while let Ok(true) = next_line(&mut input, &mut line) {
            let message: Value = match serde_json::from_slice(&line) {
                _ if line.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(message) if line.len() <= MAX_LINE_BYTES => message,
                parsed => {
                    let text = parsed.err().map_or_else(
                        || "longer than 4 MiB".to_owned(),
                        |problem| problem.to_string(),
                    );
                    write(&response(
                        &Value::Null,
                        Err((PARSE_ERROR, format!("not a JSON-RPC message: {text}"))),
                    ));
                    continue;
                }
            };
            if message["method"] != "tools/call" {
                answer(server, &Call::default(), &message)
                    .iter()
                    .for_each(write);
                continue;
            }
            // Registered before the next line is read, which may cancel it.
            let (id, token) = (
                message["id"].to_string(),
                &message["params"]["_meta"]["progressToken"],
            );
            let call = Arc::new(Call {
                progress_token: token.clone(),
                ..Call::default()
            });
            let is_free = calls.lock().len() < MAX_CALLS && !calls.lock().contains_key(&id);
            if !is_free {
                let text = format!(
                    "{MAX_CALLS} calls, or one with this id, are under way: wait for an answer"
                );
                write(&response(&message["id"], Ok(tool_result(Err(text)))));
                continue;
            }
            calls.lock().insert(id.clone(), Arc::clone(&call));
            scope.spawn(move || {
                let answer = answer(server, &call, &message);
                calls.lock().remove(&id);
                answer
                    .iter()
                    .filter(|_| !call.is_cancelled())
                    .for_each(write);
            });
        }
        let ended = Instant::now();
        while !calls.lock().is_empty() && ended.elapsed() < LAST_CALLS_TIMEOUT {
            std::thread::sleep(Duration::from_millis(20));
        }
        calls.lock().values().for_each(|call| call.cancel());
    });
}

/// Reads a line; of one that is too long only the start is kept. False at the end of the input.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut start = input.by_ref().take(MAX_LINE_BYTES as u64 + 1);
    start.read_until(b'\n', line)?;
    if line.len() > MAX_LINE_BYTES && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
    }
    Ok(!line.is_empty())
}

/// The answer to a message; `None` to a notification, and to an answer to a request that was never sent.
fn answer(server: &Server, call: &Call, message: &Value) -> Option<Value> {
    let (id, method) = (&message["id"], message["method"].as_str());
    if !message.is_object() || !(id.is_null() || id.is_string() || id.is_number()) {
        let text = "write one object a line, with a string or a number as id";
        return Some(response(
            &Value::Null,
            Err((INVALID_REQUEST, text.to_owned())),
        ));
    }
    if id.is_null() {
        let cancelled = message["params"]["requestId"].to_string();
        let calls = server.session.calls.lock();
        if let Some(call) = calls
            .get(&cancelled)
            .filter(|_| method == Some("notifications/cancelled"))
        {
            call.cancel();
        }
    }
    (!id.is_null() && method.is_some()).then(|| {
        response(
            id,
            result(server, call, method.unwrap_or_default(), &message["params"]),
        )
    })
}

fn result(server: &Server, call: &Call, method: &str, parameters: &Value) -> Answer {
    let text = |name: &str| parameters[name].as_str().unwrap_or_default();
    match method {
        "ping" => Ok(json!({})),
        "initialize" => {
            server.session.has_begun.store(true, Ordering::Relaxed);
            let asked = text("protocolVersion");
            let known = MCP_VERSIONS
                .iter()
                .find(|version| **version == asked && asked != BATCH_VERSION);
            let version = known.unwrap_or(&MCP_VERSIONS[MCP_VERSIONS.len() - 1]);
            let info = json!({"name": "grpo-tui", "title": "grpo-tui", "version": env!("CARGO_PKG_VERSION")});
            Ok(
                json!({"protocolVersion": version, "capabilities": {"tools": {}, "resources": {}}, "serverInfo": info, "instructions": server.instructions()}),
            )
        }
        _ if !server.session.has_begun.load(Ordering::Relaxed) => {
            Err((INVALID_REQUEST, format!("send initialize before {method}")))
        }
        "tools/list" => {
            let tools = TOOLS.iter().filter(|tool| server.refusal(tool).is_none());
            Ok(json!({"tools": tools.map(Tool::definition).collect::<Vec<_>>()}))
        }
        "tools/call" => {
            let name = text("name");
            let tool = TOOLS.iter().find(|tool| tool.name == name).ok_or_else(|| {
                let hint = did_you_mean(name, TOOLS.iter().map(|tool| tool.name));
                (
                    INVALID_PARAMS,
                    format!("unknown tool {:?}{hint}", shortened(name, 60)),
                )
            })?;
            let work = || match &parameters["arguments"] {
                _ if let Some(why) = server.refusal(tool) => Err(why),
                Value::Null => server.call(call, tool, &Map::new()),
                Value::Object(arguments) => server.call(call, tool, arguments),
                _ => Err("the arguments of a call are a JSON object".to_owned()),
            };
            let done = catch_unwind(AssertUnwindSafe(work));
            Ok(tool_result(done.unwrap_or_else(|_| Err("grpo-tui crashed, which is a fault of the program: its standard error has more".to_owned()))))
        }
        "resources/list" => Ok(server.resources()),
        "resources/templates/list" => Ok(
            json!({"resourceTemplates": [{"uriTemplate": "task://{task}/{file}", "name": "task file"}]}),
        ),
        "resources/read" => server
            .read_resource(text("uri"))
            .map_err(|why| (RESOURCE_NOT_FOUND, why)),
        other => Err((
            METHOD_NOT_FOUND,
            format!("unknown method {:?}", shortened(other, 60)),
        )),
    }
}

fn response(id: &Value, answer: Answer) -> Value {
    match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    }
}
