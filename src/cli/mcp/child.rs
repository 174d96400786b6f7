//! Commands of this program in a process of their own: an argument list, never a shell.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Server;
use super::call::Call;
use crate::format::shortened;

/// Bytes of output that are read; the rest is dropped.
const MAX_OUTPUT_BYTES: u64 = 32 << 20;
/// Lines of messages that are kept.
const MAX_MESSAGES: usize = 40;
const POLL: Duration = Duration::from_millis(20);

/// Runs `grpo-tui WORDS` in the workspace and returns its JSON document; of several lines a list as `items`. Its notes
/// and warnings become `messages`.
///
/// # Errors
/// What the command says on standard error.
pub(super) fn run(
    server: &Server,
    call: &Call,
    words: &[String],
    input: Option<&[u8]>,
) -> Result<Value, String> {
    let failed = |error: std::io::Error| format!("{} could not be started: {error}", words[0]);
    let mut child = Command::new("/proc/self/exe")
        .args(words)
        .current_dir(server.workspace.root())
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let messages: Arc<Mutex<Vec<String>>> = Arc::default();
    let status = std::thread::scope(|scope| {
        scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(input.unwrap_or_default())));
        scope.spawn(|| {
            let lines = stderr.map(BufReader::new).into_iter().flat_map(read_lines);
            for line in lines {
                let mut messages = messages.lock();
                if messages.len() == MAX_MESSAGES {
                    messages.remove(0);
                }
                messages.push(line);
            }
        });
        let output = scope.spawn(|| {
            let mut output = Vec::new();
            if let Some(mut stdout) = stdout {
                let _ = stdout
                    .by_ref()
                    .take(MAX_OUTPUT_BYTES)
                    .read_to_end(&mut output);
                let _ = std::io::copy(&mut stdout, &mut std::io::sink());
            }
            output
        });
        let status = wait(call, &mut child, &messages);
        status.map(|status| (status, output.join().unwrap_or_default()))
    });
    let (status, output) = status?;
    let messages = std::mem::take(&mut *messages.lock());
    let output = String::from_utf8_lossy(&output);
    if output.trim().is_empty() || !matches!(status.code(), Some(0 | 1 | 3)) {
        return Err(error_of(&messages, &words[0], &status.to_string()));
    }
    let mut document = parsed(&output).ok_or_else(|| {
        let text = shortened(output.trim(), 300);
        format!("{} wrote no JSON document: {text}", words[0])
    })?;
    if !status.success() && document["error"].is_string() && document["code"].is_number() {
        return Err(error_of(&messages, &words[0], &status.to_string()));
    }
    let said = messages.iter().filter(|line| {
        ["note:", "warning:", "error:"]
            .iter()
            .any(|start| line.starts_with(start))
    });
    let said: Vec<&String> = said.collect();
    if !said.is_empty() {
        document["messages"] = json!(said);
    }
    Ok(document)
}

/// Lines of at most 2000 characters; a progress line counts as one.
fn read_lines(reader: impl BufRead) -> impl Iterator<Item = String> {
    let lines = reader.split(b'\n').map_while(Result::ok);
    lines.map(|line| {
        let line = String::from_utf8_lossy(&line);
        let line = line.rsplit('\r').next().unwrap_or_default();
        shortened(line.trim_end(), 2000)
    })
}

fn wait(
    call: &Call,
    child: &mut std::process::Child,
    messages: &Mutex<Vec<String>>,
) -> Result<std::process::ExitStatus, String> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status);
        }
        if call.is_cancelled() {
            let _ = child.kill();
            let _ = child.wait();
            return Err("cancelled".to_owned());
        }
        let last = messages.lock().last().cloned();
        call.progress(
            &last.unwrap_or_else(|| format!("{} s", begun.elapsed().as_secs())),
            None,
        );
        std::thread::sleep(POLL);
    }
}

/// The command's own error, else its last words.
fn error_of(messages: &[String], command: &str, status: &str) -> String {
    let start = messages.iter().rposition(|line| line.starts_with("error:"));
    let lines = &messages[start.unwrap_or(messages.len().saturating_sub(3))..];
    let text = lines.join("\n");
    match text.strip_prefix("error:").unwrap_or(&text).trim() {
        "" => format!("{command} ended with {status} and said nothing"),
        text => text.to_owned(),
    }
}

/// One document as an object, or JSON lines as `items`.
fn parsed(output: &str) -> Option<Value> {
    if let Ok(document) = serde_json::from_str(output) {
        return Some(match document {
            Value::Object(_) => document,
            other => json!({"items": [other]}),
        });
    }
    let lines = output.lines().filter(|line| !line.trim().is_empty());
    let items: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
    items.ok().map(|items| json!({"items": items}))
}
