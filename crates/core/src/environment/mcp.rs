//! `mcp = [..]`: an MCP server on standard input and output, one process per conversation.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::calls::{StateQuestion, ToolCall};
use super::live_tool::{LiveTool, RawReply, Timed};
use super::program_process::{LineServer, TrustedProgram};
use crate::format::{grouped, shortened};
use crate::task::functions;

/// Versions with `initialize`, newest last; `grpo-tui mcp` serves them, too.
pub const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const MAX_PAGES: usize = 100;
/// Messages before an answer.
const MAX_OTHER_MESSAGES: usize = 100_000;
/// Length of the id of a server's own request, which is echoed.
const MAX_ID_BYTES: usize = 100;
/// Unread bytes of answers to the server's own requests.
const MAX_UNSENT_BYTES: usize = 1 << 20;
/// Time after the deadline to read a line that arrived before it.
const LATE_GRACE: Duration = Duration::from_secs(1);
/// JSON-RPC.
const METHOD_NOT_FOUND: i32 = -32601;

#[derive(Debug, Deserialize)]
struct Message {
    id: Option<Value>,
    method: Option<String>,
    result: Option<Value>,
    error: Option<RpcError>,
}

#[derive(Debug, Deserialize)]
struct RpcError {
    message: String,
}

#[derive(Debug, Deserialize)]
struct ToolPage {
    tools: Vec<McpTool>,
    #[serde(rename = "nextCursor")]
    next_cursor: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct McpTool {
    name: String,
    description: Option<String>,
    input_schema: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallResult {
    #[serde(default)]
    content: Vec<Map<String, Value>>,
    structured_content: Option<Value>,
    #[serde(default)]
    is_error: bool,
}

/// A server after version negotiation, and the functions that it lists.
#[derive(Debug)]
struct Session {
    server: LineServer,
    next_id: u64,
    list_changed: bool,
}

/// What a server reported when the task was prepared.
#[derive(Debug, Clone)]
pub(super) struct McpOffer {
    /// OpenAI's list of functions.
    pub(super) definitions: Value,
    /// Usage instructions of the server, possibly empty; `None` if the task has a copy of the
    /// definitions and nothing was started.
    pub(super) instructions: Option<String>,
}

#[derive(Debug)]
pub(super) struct McpTools {
    session: Session,
    has_begun: bool,
    offer: McpOffer,
}

pub(super) fn last_call(definitions: &Value, question: &StateQuestion) -> Option<ToolCall> {
    let StateQuestion::Program(Value::Object(asked)) = question else {
        return None;
    };
    let mut rest = asked.clone();
    let (name, arguments) = (rest.remove("name")?, rest.remove("arguments"));
    let call = ToolCall {
        name: name.as_str()?.to_owned(),
        arguments: match arguments {
            None => Map::new(),
            Some(arguments) => arguments.as_object()?.clone(),
        },
    };
    let functions = functions(definitions).ok()?;
    let is_known = functions.iter().any(|known| known.name == call.name);
    (is_known && rest.is_empty()).then_some(call)
}

pub(super) fn read_offer(program: &TrustedProgram) -> Result<McpOffer, String> {
    let mut session = Session::new(program);
    let instructions = Some(session.begin()?);
    let definitions = session.list()?;
    Ok(McpOffer {
        definitions,
        instructions,
    })
}

impl Session {
    fn new(program: &TrustedProgram) -> Self {
        Self {
            server: LineServer::new(program),
            next_id: 1,
            list_changed: false,
        }
    }

    /// Negotiates the version; returns the server's instructions, possibly empty.
    fn begin(&mut self) -> Result<String, String> {
        let newest = VERSIONS[VERSIONS.len() - 1];
        let client = json!({"name": "grpo-tui", "version": env!("CARGO_PKG_VERSION")});
        let asked = json!({"protocolVersion": newest, "capabilities": {}, "clientInfo": client});
        let known = || format!("this program knows MCP {}", VERSIONS.join(", "));
        let answer = self.request("initialize", asked)?.map_err(|error| {
            self.server
                .end(format!("refuses to begin: {error}; {}", known())) //
        })?;
        match answer.get("protocolVersion").and_then(Value::as_str) {
            Some(version) if VERSIONS.contains(&version) => {}
            other => {
                let other = shortened(other.unwrap_or("none"), 40);
                return Err(self
                    .server
                    .end(format!("speaks MCP version {other:?}; {}", known())));
            }
        }
        let instructions = answer.get("instructions").and_then(Value::as_str);
        self.server
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        Ok(instructions.unwrap_or_default().trim().to_owned())
    }

    fn list(&mut self) -> Result<Value, String> {
        self.list_changed = false;
        let (mut functions, mut page) = (Vec::new(), json!({}));
        for _ in 0..MAX_PAGES {
            let answer = self.request("tools/list", page)?;
            let listed = answer.and_then(|answer| {
                serde_json::from_value::<ToolPage>(answer).map_err(|error| error.to_string()) //
            });
            let ToolPage { tools, next_cursor } = listed
                .map_err(|error| self.server.end(format!("does not list its tools: {error}")))?;
            functions.extend(tools.into_iter().map(|McpTool { name, description, input_schema }| {
                let function =
                    json!({"name": name, "description": description.unwrap_or_default(), "parameters": input_schema});
                json!({"type": "function", "function": function})
            }));
            match next_cursor {
                None | Some(Value::Null) => return Ok(Value::Array(functions)),
                Some(cursor) => page = json!({"cursor": cursor}),
            }
        }
        Err(self
            .server
            .end(format!("lists its tools on more than {MAX_PAGES} pages")))
    }

    fn send(&mut self, method: &str, parameters: Value) -> Result<u64, String> {
        let id = self.next_id;
        self.next_id += 1;
        self.server
            .send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}))?;
        Ok(id)
    }

    /// Sends a request and waits for its result or the server's error.
    fn request(
        &mut self,
        method: &str,
        parameters: Value,
    ) -> Result<Result<Value, String>, String> {
        let id = self.send(method, parameters)?;
        let until = self.server.deadline();
        loop {
            let (answered, answer) = self.answer(until)?;
            if answered == id {
                return Ok(answer);
            }
        }
    }

    /// The next answer with its request's id. Answers the server's requests; ignores its
    /// notifications.
    fn answer(&mut self, until: Instant) -> Result<(u64, Result<Value, String>), String> {
        for _ in 0..=MAX_OTHER_MESSAGES {
            let line = self.server.line(until)?;
            // A server that writes endlessly always has a line ready, so would never time out.
            if Instant::now() > until + LATE_GRACE {
                return Err(self.server.end_late());
            }
            let message: Message = serde_json::from_slice(&line).map_err(|error| {
                let text = shortened(&String::from_utf8_lossy(&line), 100);
                self.server.end(format!(
                    "wrote {text:?}, which is no message of MCP: {error}"
                ))
            })?;
            match message {
                Message {
                    id: Some(id),
                    method: Some(method),
                    ..
                } => {
                    let id_bytes = id.to_string().len();
                    if id_bytes > MAX_ID_BYTES {
                        return Err(self.server.end(format!(
                            "sends {:?} with an id of {id_bytes} bytes: an id has at most {MAX_ID_BYTES}",
                            shortened(&method, 40)
                        )));
                    }
                    if self.server.unsent() > MAX_UNSENT_BYTES {
                        return Err(self.server.end(format!(
                            "sends requests such as {:?} and does not read the answers: more than {} KiB wait for it",
                            shortened(&method, 40),
                            MAX_UNSENT_BYTES >> 10
                        )));
                    }
                    let answer = match method.as_str() {
                        "ping" => json!({"jsonrpc": "2.0", "id": id, "result": {}}),
                        _ => {
                            let error =
                                json!({"code": METHOD_NOT_FOUND, "message": "not supported"});
                            json!({"jsonrpc": "2.0", "id": id, "error": error})
                        }
                    };
                    self.server.send(&answer)?;
                }
                Message {
                    id: None,
                    method: Some(method),
                    ..
                } => {
                    self.list_changed |= method == "notifications/tools/list_changed";
                }
                Message {
                    id, result, error, ..
                } => {
                    let id = id
                        .as_ref()
                        .and_then(Value::as_u64)
                        .filter(|id| *id < self.next_id);
                    let answer = match (result, error) {
                        (_, Some(error)) => Err(shortened(&error.message, 500)),
                        (result, None) => Ok(result.unwrap_or_default()),
                    };
                    match id {
                        Some(id) => return Ok((id, answer)),
                        None => {
                            return Err(self.server.end("answered what was not asked".to_owned()));
                        }
                    }
                }
            }
        }
        Err(self.server.end(format!(
            "sent more than {} messages and no answer",
            grouped(MAX_OTHER_MESSAGES as u64)
        )))
    }
}

impl McpTools {
    pub(super) fn open(program: &TrustedProgram, offer: &McpOffer) -> Box<dyn LiveTool> {
        Box::new(Self {
            session: Session::new(program),
            has_begun: false,
            offer: offer.clone(),
        })
    }

    /// Answers of parallel calls.
    fn ask(&mut self, calls: &[&ToolCall]) -> Result<Vec<Timed<Result<Value, String>>>, String> {
        if !self.has_begun {
            let instructions = self.session.begin()?;
            if self
                .offer
                .instructions
                .as_ref()
                .is_some_and(|shown| *shown != instructions)
            {
                let why = "has other instructions than when the task was made ready: with `definitions` in its [[tool]] none are shown";
                return Err(self.session.server.end(why.to_owned()));
            }
            self.has_begun = true;
            self.session.list_changed = true;
        }
        if self.session.list_changed && self.session.list()? != self.offer.definitions {
            return Err(self
                .session
                .server
                .end("has changed its list of tools since the task was made ready".to_owned()));
        }
        let first = self.session.next_id;
        for call in calls {
            self.session.send(
                "tools/call",
                json!({"name": call.name, "arguments": call.arguments}),
            )?;
        }
        let mut found: Vec<_> = calls.iter().map(|_| None).collect();
        let until = self.session.server.deadline();
        while found.iter().any(Option::is_none) {
            let (id, answer) = self.session.answer(until)?;
            if let Some(place) = id
                .checked_sub(first)
                .and_then(|place| found.get_mut(usize::try_from(place).ok()?))
            {
                *place = Some(Timed {
                    answer,
                    end: Instant::now(),
                });
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

impl LiveTool for McpTools {
    fn call(&mut self, calls: &[&ToolCall]) -> Vec<RawReply> {
        let at_once = if self.session.server.in_parallel() {
            calls.len().max(1)
        } else {
            1
        };
        let mut replies = Vec::new();
        for calls in calls.chunks(at_once) {
            let start = Instant::now();
            match self.ask(calls) {
                Err(why) => {
                    let end = Instant::now();
                    replies.extend(
                        calls
                            .iter()
                            .map(|_| RawReply::new(Err(why.clone()), start, end)),
                    );
                }
                Ok(answers) => {
                    let text = |answer| match answer {
                        Ok(answer) => call_result(answer).map(|result| text_of(&result)),
                        // An answer too.
                        Err(error) => Ok(format!("error: {error}")),
                    };
                    let reply = |Timed { answer, end }| RawReply::new(text(answer), start, end);
                    replies.extend(answers.into_iter().map(reply));
                }
            }
        }
        replies
    }

    fn last_call(&self, question: &StateQuestion) -> Option<ToolCall> {
        last_call(&self.offer.definitions, question)
    }

    fn has_state(&self, question: &StateQuestion) -> bool {
        self.last_call(question).is_some()
    }

    fn state(&mut self, question: &StateQuestion) -> Result<Value, String> {
        let call = self.last_call(question).ok_or(
            "is asked by a call of a function that it lists: `ask = { name = \"..\", arguments = {..} }`",
        )?;
        let answer = self.ask(&[&call])?.remove(0).answer;
        let result = call_result(answer.map_err(|error| format!("says: {error}"))?)?;
        Ok(match &result.structured_content {
            Some(content) if !result.is_error => content.clone(),
            _ => text_of(&result).into(),
        })
    }

    fn is_idle(&mut self) -> bool {
        self.session.server.is_idle()
    }
}

fn call_result(answer: Value) -> Result<CallResult, String> {
    serde_json::from_value(answer)
        .map_err(|error| format!("answered a call with no result of MCP: {error}"))
}

fn text_of(result: &CallResult) -> String {
    let texts: Vec<String> = result.content.iter().map(content_text).collect();
    let mut text = texts.join("\n");
    // Most servers also return it as text.
    let is_told = |content: &Value| {
        texts
            .iter()
            .any(|text| serde_json::from_str::<Value>(text).is_ok_and(|told| told == *content))
    };
    let structured = result.structured_content.as_ref();
    if let Some(content) = structured.filter(|content| !is_told(content)) {
        text.push_str(if text.is_empty() { "" } else { "\n" });
        text.push_str(&content.to_string());
    }
    if result.is_error {
        format!("error: {text}")
    } else {
        text
    }
}

fn content_text(content: &Map<String, Value>) -> String {
    let text = |key: &str| content.get(key).and_then(Value::as_str);
    let within = |key: &str| content.get("resource")?.get(key)?.as_str();
    let resource = within("text");
    match (text("type"), text("text").or(resource)) {
        (_, Some(text)) => text.to_owned(),
        (Some("resource_link"), None) => format!("[{}]", text("uri").unwrap_or("a link")),
        (kind, None) => {
            let data = text("data").or(within("blob")).unwrap_or_default();
            let characters = data.trim_end_matches('=').len() as u64;
            let name = [
                kind.unwrap_or("something"),
                within("uri").unwrap_or_default(),
            ]
            .join(" ");
            let bytes = grouped(characters * 3 / 4);
            format!("[{}, {bytes} bytes, not shown]", name.trim_end())
        }
    }
}
