//! Whoever looks at a run and speaks to it while its workers die: a reader that notes every event, and a client that
//! notes every promise.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
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
        let (for_reader, for_client) = (
            (run.to_owned(), Arc::clone(&over)),
            (run.to_owned(), Arc::clone(&over)),
        );
        let reader = std::thread::spawn(move || read(&for_reader.0, &for_reader.1));
        let client = std::thread::spawn(move || speak(&for_client.0, &for_client.1));
        Self {
            over,
            reader,
            client,
        }
    }

    pub(super) fn stop(self) -> Observed {
        self.over.store(true, Ordering::Relaxed);
        let accepted = self.client.join().unwrap();
        Observed {
            accepted,
            ..self.reader.join().unwrap()
        }
    }
}

fn read(run: &Path, over: &AtomicBool) -> Observed {
    let mut observed = Observed::default();
    let mut reader = EventReader::new(&run.join("events.jsonl"));
    loop {
        let last = over.load(Ordering::Relaxed);
        let batch = reader.read().unwrap();
        if batch.restarted || batch.gaps > 0 || !batch.skipped.is_empty() {
            observed.trouble.push(format!(
                "a reader found {:?}, {} missing, begun anew: {}",
                batch.skipped, batch.gaps, batch.restarted
            ));
        }
        observed.events.extend(
            batch
                .events
                .into_iter()
                .map(|event| (event.seq, event.to_line().unwrap())),
        );
        if last {
            return observed;
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// Remarks, one after the other, as docs/control.md has it; a promise counts once its line has come.
fn speak(run: &Path, over: &AtomicBool) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        // Before the first worker, and where one has just begun or died, there may be no folder.
        if request(run, number, over).is_ok_and(|is_accepted| is_accepted) {
            accepted.push(format!("remark {number}."));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    accepted
}

/// Asks once, and waits until it is answered, or until nobody can any more.
fn request(run: &Path, number: usize, over: &AtomicBool) -> std::io::Result<bool> {
    let file = |ending: &str| run.join("control").join(format!("r{number}.{ending}"));
    let (temporary, request, answers) = (
        file("request.tmp"),
        file("request.json"),
        file("answers.jsonl"),
    );
    let arguments = serde_json::json!({"text": format!("remark {number}.")});
    let body = serde_json::json!({"v": 1, "id": format!("r{number}"), "verb": "annotate", "arguments": arguments});
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?
        .write_all(body.to_string().as_bytes())?;
    std::fs::rename(&temporary, &request)?;
    let mut is_accepted = false;
    let mut waited = 0;
    // Once it is taken the answer comes soon, or its worker has died.
    while !is_accepted && waited < 200 && !over.load(Ordering::Relaxed) {
        waited += usize::from(!request.exists());
        std::thread::sleep(Duration::from_millis(2));
        is_accepted = std::fs::read_to_string(&answers).is_ok_and(|text| {
            text.lines()
                .any(|line| line.contains("\"stage\":\"accepted\""))
        });
    }
    for path in [&request, &answers] {
        let _ = std::fs::remove_file(path);
    }
    Ok(is_accepted)
}
