//! Whoever looks at a run and speaks to it while its workers die: a reader that notes every event, and a client that notes every promise.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use grpo_tui::run::EventReader;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Events that a reader saw, by number.
    pub(super) events: BTreeMap<u64, Vec<u8>>,
    /// Remarks of which the worker said that it had taken them.
    pub(super) accepted: Vec<String>,
    /// What should not be: a line that is no event, a gap, a log that began anew.
    pub(super) trouble: Vec<String>,
}

/// A reader and a client at work.
pub(super) struct Listener {
    over: Arc<AtomicBool>,
    reader: JoinHandle<Observed>,
    client: JoinHandle<Vec<String>>,
}

impl Listener {
    pub(super) fn start(run: &Path) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (for_reader, for_client) = ((run.to_owned(), Arc::clone(&over)), (run.to_owned(), Arc::clone(&over)));
        let reader = std::thread::spawn(move || read(&for_reader.0, &for_reader.1));
        let client = std::thread::spawn(move || speak(&for_client.0, &for_client.1));
        Self { over, reader, client }
    }

    pub(super) fn stop(self) -> Observed {
        self.over.store(true, Ordering::Relaxed);
        let accepted = self.client.join().unwrap();
        Observed { accepted, ..self.reader.join().unwrap() }
    }
}

fn read(run: &Path, over: &AtomicBool) -> Observed {
    let mut heard = Observed::default();
    let mut reader = EventReader::new(&run.join("events.jsonl"));
    loop {
        let last = over.load(Ordering::Relaxed);
        let batch = reader.read().unwrap();
        if batch.restarted || batch.gaps > 0 || !batch.skipped.is_empty() {
            heard.trouble.push(format!("a reader found {:?}, {} missing, begun anew: {}", batch.skipped, batch.gaps, batch.restarted));
        }
        heard.events.extend(batch.events.into_iter().map(|event| (event.seq, event.to_line().unwrap())));
        if last {
            return heard;
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// Remarks, one after the other, over the socket that `state.json` names; a promise counts once its line has come.
fn speak(run: &Path, over: &AtomicBool) -> Vec<String> {
    let mut accepted = Vec::new();
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        if let Some(stream) = connect(run) {
            // Until the worker ends or dies, which closes the connection.
            let _ = converse(&stream, &mut number, over, &mut accepted);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    accepted
}

fn connect(run: &Path) -> Option<UnixStream> {
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("state.json")).ok()?).ok()?;
    UnixStream::connect(state["socket"].as_str()?).ok()
}

fn converse(stream: &UnixStream, number: &mut usize, over: &AtomicBool, accepted: &mut Vec<String>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    while !over.load(Ordering::Relaxed) {
        *number += 1;
        let mark = format!("remark {number}.");
        let request = serde_json::json!({"v": 1, "id": format!("r{number}"), "verb": "annotate", "arguments": {"text": mark}});
        writeln!(&*stream, "{request}")?;
        let mut line = String::new();
        if answers.read_line(&mut line)? == 0 {
            break;
        }
        // Each request has two answers, so this one may be of an earlier request.
        if line.ends_with('\n') && line.contains("\"stage\":\"accepted\"") {
            let answer: serde_json::Value = serde_json::from_str(&line)?;
            accepted.push(format!("remark {}.", answer["id"].as_str().unwrap_or_default().trim_start_matches('r')));
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    Ok(())
}
