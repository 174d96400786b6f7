//! Commands of this program in a process of their own: an argument list, never a shell.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Server;
use super::rpc::Call;
use crate::files::HIDDEN_FILES;
use crate::format::shortened;

/// Bytes of output and of messages that are read; the rest is dropped.
const MAX_OUTPUT_BYTES: u64 = 32 << 20;
const POLL: Duration = Duration::from_millis(20);

/// How a command runs.
#[derive(Default)]
pub(super) struct Child<'a> {
    /// Prints lines, which become `items`; else one document.
    pub(super) prints_lines: bool,
    /// Value of [`HIDDEN_FILES`]; `None` shows test sets.
    pub(super) hidden: Option<&'a str>,
    pub(super) input: &'a str,
}

/// Runs `grpo-tui WORDS` in the workspace and returns its result. Its notes and warnings become `messages`.
///
/// # Errors
/// What the command says on standard error.
pub(super) fn run(
    server: &Server,
    call: &Call,
    words: &[String],
    how: &Child<'_>,
) -> Result<Value, String> {
    let (begun, command) = (Instant::now(), words[0].as_str());
    let mut child = Command::new("/proc/self/exe")
        .args(words)
        .env_remove(HIDDEN_FILES)
        .envs(how.hidden.map(|files| (HIDDEN_FILES, files)))
        .current_dir(server.workspace.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{command} could not be started: {error}"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    fn whole(from: Option<impl Read>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = from.map(|mut from| {
            let _ = from.by_ref().take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
            std::io::copy(&mut from, &mut std::io::sink())
        });
        bytes
    }
    let (status, output, messages) = std::thread::scope(|scope| {
        scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(how.input.as_bytes())));
        let (output, messages) = (scope.spawn(|| whole(stdout)), scope.spawn(|| whole(stderr)));
        while !call.is_cancelled() {
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                return Ok((
                    status,
                    output.join().unwrap_or_default(),
                    messages.join().unwrap_or_default(),
                ));
            }
            call.progress(command, begun);
            std::thread::sleep(POLL);
        }
        let _ = child.kill();
        let _ = child.wait();
        Err("cancelled".to_owned())
    })?;
    let messages: Vec<String> = BufReader::new(&*messages)
        .lines()
        .map_while(Result::ok)
        .collect();
    let error = messages.iter().rposition(|line| line.starts_with("error:"));
    let parsed = match how.prints_lines {
        true => {
            let lines = output
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty());
            let items: Result<Vec<Value>, _> = lines.map(serde_json::from_slice).collect();
            items.map(|items| json!({"items": items}))
        }
        false => serde_json::from_slice(&output),
    };
    // A document may have problems as its result; lines that are missing are an error.
    match (status.code(), parsed) {
        (Some(0 | 1 | 3), Ok(mut document))
            if document.is_object()
                && !is_error(&status, &document)
                && !(how.prints_lines && error.is_some()) =>
        {
            let is_said = |line: &&String| {
                ["note:", "warning:", "error:"]
                    .iter()
                    .any(|start| line.starts_with(start))
            };
            document["messages"] = messages
                .iter()
                .filter(is_said)
                .map(|line| shortened(line, 2000))
                .collect();
            Ok(document)
        }
        (_, _) => {
            let lines = &messages[error.unwrap_or(messages.len().saturating_sub(3))..];
            // The usage comes after a blank line.
            let lines: Vec<&str> = lines
                .iter()
                .map(|line| line.trim())
                .take_while(|line| !line.is_empty())
                .collect();
            let text = format!(
                "{command} ended with {status}: {}",
                lines.join("\n").trim_start_matches("error: ")
            );
            Err(shortened(&text, 2000))
        }
    }
}

/// Whether a document says only that the command failed, as `--json` writes it.
fn is_error(status: &std::process::ExitStatus, document: &Value) -> bool {
    !status.success() && document["error"].is_string() && document["code"].is_number()
}
