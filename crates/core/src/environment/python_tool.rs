//! `builtin = "python"`: a sandboxed interpreter per conversation, which keeps its variables.

use serde_json::{Value, json};

use super::calls::ToolCall;
use super::live_tool::{CallResult, LiveTool, RawReply, one_by_one};
use super::program_process::{LineServer, TrustedProgram};

const SCRIPT: &str = include_str!("python.py");

pub(super) fn command(interpreter: &[String], max_line_bytes: usize) -> Vec<String> {
    // In JSON a byte may take six.
    let most = (max_line_bytes / 8).to_string();
    let own = ["-I", "-u", "-X", "utf8", "-c", SCRIPT, &most].map(str::to_owned);
    interpreter.iter().cloned().chain(own).collect()
}

pub(super) fn definitions(prefix: &str) -> Value {
    let code = json!({"type": "string", "description": "statements; print what you want to see"});
    let parameters = json!({"type": "object", "properties": {"code": code}, "required": ["code"], "additionalProperties": false});
    let description = "Runs Python code and returns what it prints, and the value of its last expression. Variables stay from call to call.";
    json!([{"type": "function", "function": {"name": format!("{prefix}python"), "description": description, "parameters": parameters}}])
}

#[derive(Debug)]
pub(super) struct PythonTool {
    program: TrustedProgram,
    server: LineServer,
    is_ready: bool,
}

impl PythonTool {
    pub(super) fn open(program: &TrustedProgram) -> Box<dyn LiveTool> {
        Box::new(Self {
            program: program.clone(),
            server: LineServer::new(program),
            is_ready: false,
        })
    }

    /// Runs the code. Once the interpreter is ready, a crash is caused by the submitted code and
    /// counts as its answer.
    fn answer(&mut self, call: &ToolCall) -> CallResult {
        if !self.is_ready {
            self.server.start()?;
            let line = self.server.line(self.server.deadline())?;
            if line != b"\"ready\"" {
                return Err(self.server.end(format!(
                    "says {:?}",
                    String::from_utf8_lossy(&line[..line.len().min(200)])
                )));
            }
            self.is_ready = true;
        }
        let code = call.arguments.get("code").cloned().unwrap_or_default();
        let line = self
            .server
            .send(&json!({"code": code}))
            .and_then(|()| self.server.line(self.server.deadline()));
        let text = line.and_then(|line| {
            serde_json::from_slice::<String>(&line)
                .map_err(|_| "wrote what cannot be read".to_owned())
        });
        Ok(match text {
            Ok(text) => text,
            Err(why) => {
                self.server = LineServer::new(&self.program);
                self.is_ready = false;
                format!("error: the interpreter {why}; it starts anew, without its variables")
            }
        })
    }
}

impl LiveTool for PythonTool {
    fn call(&mut self, calls: &[&ToolCall]) -> Vec<RawReply> {
        one_by_one(calls, |call| self.answer(call))
    }
}
