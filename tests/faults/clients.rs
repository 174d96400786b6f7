//! Whoever looks at a run and speaks to it while its workers die: a reader that notes every event, and a client that notes every promise.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use grpo_tui::run::{EventReader, Verb, ask};

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Heard {
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
    reader: JoinHandle<Heard>,
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

    pub(super) fn stop(self) -> Heard {
        self.over.store(true, Ordering::Relaxed);
        let accepted = self.client.join().unwrap();
        Heard { accepted, ..self.reader.join().unwrap() }
    }
}

fn read(run: &Path, over: &AtomicBool) -> Heard {
    let mut heard = Heard::default();
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

/// Remarks, and settings that change nothing, as fast as they are taken.
fn speak(run: &Path, over: &AtomicBool) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let mark = format!("remark {number}.");
        // Most of the time nobody is there, or dies before it answers; then nothing was promised.
        if ask(run, &Verb::Annotate { text: mark.clone() }, Duration::ZERO, &mut |_| {}).is_ok() {
            accepted.push(mark);
        }
        std::thread::sleep(Duration::from_millis(70));
    }
    accepted
}
