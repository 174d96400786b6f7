//! The Model Context Protocol on standard input and output: one JSON-RPC message a line.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::Server;
use super::call::{Call, write};
use super::results::tool_result;
use super::tools::{TOOLS, Tool};
use crate::environment::MCP_VERSIONS;
use crate::format::shortened;

/// Longest line of a client.
const MAX_LINE_BYTES: usize = 4 << 20;
/// Calls under way; each has a thread.
const MAX_CALLS: usize = 8;
/// Messages in a batch, which the version 2025-03-26 alone has.
const MAX_BATCH: usize = 50;
const BATCH_VERSION: &str = "2025-03-26";
/// How long calls may go on after the end of the input, and how long their end may then take: a run that starts is still
/// counted in the budget.
const LAST_CALLS_TIMEOUT: Duration = Duration::from_secs(2);
const END_TIMEOUT: Duration = Duration::from_secs(60);

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const RESOURCE_NOT_FOUND: i32 = -32002;

/// Where the answer of a request goes; `None`: it was cancelled.
type Reply = Arc<dyn Fn(Option<Value>) + Send + Sync>;

/// What is known of the client.
#[derive(Default)]
pub(super) struct Session {
    version: Mutex<Option<&'static str>>,
    /// By the request's id as JSON.
    calls: Mutex<BTreeMap<String, Arc<Call>>>,
}

/// Serves until the input ends; then calls under way are ended, while workers of runs go on.
pub(super) fn serve(server: &Arc<Server>, mut input: impl BufRead) {
    let mut line = Vec::new();
    while let Ok(true) = next_line(&mut input, &mut line) {
        let to_client: Reply = Arc::new(|answer| answer.iter().for_each(write));
        if line.len() > MAX_LINE_BYTES {
            let text = format!("the line is longer than {} MiB", MAX_LINE_BYTES >> 20);
            to_client(Some(error(&Value::Null, PARSE_ERROR, &text)));
            continue;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice(&line) {
            Err(problem) => to_client(Some(error(
                &Value::Null,
                PARSE_ERROR,
                &format!("not a JSON-RPC message: {problem}"),
            ))),
            Ok(Value::Array(batch)) => serve_batch(server, batch, &to_client),
            Ok(message) => serve_message(server, message, to_client),
        }
    }
    let wait_until_idle = |most: Duration| {
        let given_up = Instant::now() + most;
        while !server.session.calls.lock().is_empty() && Instant::now() < given_up {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // A script may close its end right after the last request.
    wait_until_idle(LAST_CALLS_TIMEOUT);
    let calls = server.session.calls.lock();
    calls.values().for_each(|call| call.cancel());
    drop(calls);
    wait_until_idle(END_TIMEOUT);
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

/// Answers the requests of a batch by one line.
fn serve_batch(server: &Arc<Server>, batch: Vec<Value>, reply: &Reply) {
    let refused = match *server.session.version.lock() {
        Some(BATCH_VERSION) if (1..=MAX_BATCH).contains(&batch.len()) => None,
        Some(BATCH_VERSION) => Some(format!("a batch has 1 to {MAX_BATCH} messages")),
        _ => Some(format!("only MCP {BATCH_VERSION} has batches")),
    };
    if let Some(text) = refused {
        return reply(Some(error(&Value::Null, INVALID_REQUEST, &text)));
    }
    let requests = batch
        .iter()
        .filter(|message| message.get("id").is_some())
        .count();
    let answers: Mutex<(usize, Vec<Value>)> = Mutex::new((requests, Vec::new()));
    let reply = Arc::clone(reply);
    let collect: Reply = Arc::new(move |answer| {
        let mut answers = answers.lock();
        answers.0 = answers.0.saturating_sub(1);
        answers.1.extend(answer);
        if answers.0 == 0 && !answers.1.is_empty() {
            reply(Some(Value::Array(std::mem::take(&mut answers.1))));
        }
    });
    for message in batch {
        serve_message(server, message, Arc::clone(&collect));
    }
}

fn serve_message(server: &Arc<Server>, message: Value, reply: Reply) {
    let Value::Object(mut message) = message else {
        let text = "a message is a JSON object";
        return reply(Some(error(&Value::Null, INVALID_REQUEST, text)));
    };
    let id = message.remove("id");
    let parameters = match message.remove("params") {
        Some(Value::Object(parameters)) => parameters,
        _ => Map::new(),
    };
    let method = message.get("method").and_then(Value::as_str);
    match (method, id) {
        (Some("notifications/cancelled"), None) => {
            let id = parameters.get("requestId").map(Value::to_string);
            if let Some(call) = id.and_then(|id| server.session.calls.lock().get(&id).cloned()) {
                call.cancel();
            }
        }
        // Other notifications; answers to requests that were never sent.
        (_, None) => {}
        (None, Some(_)) if message.contains_key("result") || message.contains_key("error") => {}
        (method, Some(id)) if id.is_string() || id.is_number() => {
            serve_request(server, method.unwrap_or_default(), &id, parameters, reply);
        }
        (_, Some(_)) => reply(Some(error(
            &Value::Null,
            INVALID_REQUEST,
            "the id of a request is a string or a number",
        ))),
    }
}

fn serve_request(
    server: &Arc<Server>,
    method: &str,
    id: &Value,
    parameters: Map<String, Value>,
    reply: Reply,
) {
    let has_begun = server.session.version.lock().is_some();
    let result = match method {
        "ping" => Ok(json!({})),
        "initialize" => Ok(initialize(server, &parameters)),
        "tools/list"
        | "tools/call"
        | "resources/list"
        | "resources/templates/list"
        | "resources/read"
            if !has_begun =>
        {
            Err((INVALID_REQUEST, format!("send initialize before {method}")))
        }
        "tools/list" => {
            let tools: Vec<Value> = TOOLS
                .iter()
                .filter(|tool| server.refusal(tool).is_none())
                .map(Tool::definition)
                .collect();
            Ok(json!({"tools": tools}))
        }
        "tools/call" => return call_tool(server, id, parameters, reply),
        "resources/list" => server
            .resources(parameters.get("cursor").and_then(Value::as_str))
            .map_err(|why| (INVALID_PARAMS, why)),
        "resources/templates/list" => Ok(super::docs::templates()),
        "resources/read" => server
            .read_resource(parameters.get("uri").and_then(Value::as_str).unwrap_or(""))
            .map_err(|why| (RESOURCE_NOT_FOUND, why)),
        other => {
            let text = format!("unknown method {:?}", shortened(other, 60));
            Err((METHOD_NOT_FOUND, text))
        }
    };
    reply(Some(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, text)) => error(id, code, &text),
    }));
}

/// The version that the client asks for if it is known, else the newest.
fn initialize(server: &Server, parameters: &Map<String, Value>) -> Value {
    let asked = parameters.get("protocolVersion").and_then(Value::as_str);
    let newest = MCP_VERSIONS[MCP_VERSIONS.len() - 1];
    let known = MCP_VERSIONS.iter().find(|version| Some(**version) == asked);
    let version = known.copied().unwrap_or(newest);
    *server.session.version.lock() = Some(version);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": false}, "resources": {"subscribe": false, "listChanged": false}},
        "serverInfo": {"name": "grpo-tui", "title": "grpo-tui", "version": env!("CARGO_PKG_VERSION")},
        "instructions": server.instructions(),
    })
}

fn call_tool(server: &Arc<Server>, id: &Value, mut parameters: Map<String, Value>, reply: Reply) {
    let name = parameters.get("name").and_then(Value::as_str);
    let name = name.unwrap_or_default();
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) else {
        let names = TOOLS.iter().map(|tool| tool.name);
        let hint = crate::format::did_you_mean(name, names);
        let text = format!("unknown tool {:?}{hint}", shortened(name, 60));
        return reply(Some(error(id, INVALID_PARAMS, &text)));
    };
    let token = parameters
        .get("_meta")
        .and_then(|meta| meta.get("progressToken"))
        .cloned();
    let arguments = match parameters.remove("arguments") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(arguments)) => Ok(arguments),
        Some(_) => Err("the arguments of a call are a JSON object".to_owned()),
    };
    let answer = |result: Result<Value, String>| json!({"jsonrpc": "2.0", "id": id, "result": tool_result(server, result)});
    let checked = arguments.and_then(|arguments| {
        server.refusal(tool).map_or(Ok(()), Err)?;
        tool.arguments(arguments)
    });
    let arguments = match checked {
        Ok(arguments) => arguments,
        Err(why) => return reply(Some(answer(Err(why)))),
    };
    let call = Arc::new(Call::new(token));
    let key = id.to_string();
    {
        let mut calls = server.session.calls.lock();
        let problem = match calls.len() {
            MAX_CALLS.. => Some(format!(
                "{MAX_CALLS} calls are under way: wait for the answer of one"
            )),
            _ if calls.contains_key(&key) => Some(format!("a call with the id {key} is under way")),
            _ => None,
        };
        if let Some(problem) = problem {
            drop(calls);
            return reply(Some(answer(Err(problem))));
        }
        calls.insert(key.clone(), Arc::clone(&call));
    }
    let (owned, id_of_call, to_client) = (Arc::clone(server), id.clone(), Arc::clone(&reply));
    let work = move || {
        let work = || (tool.act)(&owned, &call, &arguments);
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            Err(
                "grpo-tui crashed, which is a fault of the program: its standard error has more"
                    .to_owned(),
            )
        });
        let result = tool_result(&owned, result);
        let answer = json!({"jsonrpc": "2.0", "id": id_of_call, "result": result});
        to_client((!call.is_cancelled()).then_some(answer));
        owned.session.calls.lock().remove(&id_of_call.to_string());
    };
    // The stack of a process: a template may nest deeply.
    let thread = std::thread::Builder::new().stack_size(8 << 20);
    if let Err(problem) = thread.spawn(work) {
        server.session.calls.lock().remove(&key);
        reply(Some(answer(Err(format!(
            "no thread for the call: {problem}"
        )))));
    }
}

fn error(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}
