//! A run that goes on: the recorded run is copied and its events are written again, as fast as they came.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use grpo_tui::run::{EvalProgress, RunLock, StateWriter, Status};

use crate::program::{copy_tree, sample_data};

/// A copy of the recorded run whose first events are there, with this process as its worker.
pub(crate) struct LiveRun {
    pub(crate) path: PathBuf,
    #[cfg_attr(test, allow(dead_code, reason = "for benches"))]
    lines: Vec<(u64, String)>,
    state: StateWriter,
    /// Held as long as the run lives.
    _lock: RunLock,
}

impl LiveRun {
    /// Under `runs`, with the events up to a step.
    pub(crate) fn begin(runs: &Path, step: u64) -> Self {
        let path = runs.join("20261120-120000-invoice-live01");
        copy_tree(&sample_data("finished-run"), &path);
        let text = std::fs::read_to_string(path.join("events.jsonl")).unwrap();
        let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let (mut before, mut lines) = (String::new(), Vec::new());
        for line in text.lines() {
            let event = value(line);
            if event["kind"] == "end" {
                continue;
            }
            if lines.is_empty() && event["step"].as_u64().unwrap_or(0) <= step {
                before.push_str(line);
                before.push('\n');
            } else {
                lines.push((event["t"].as_u64().unwrap(), line.to_owned()));
            }
        }
        std::fs::write(path.join("events.jsonl"), before).unwrap();
        let lock = RunLock::acquire(&path).unwrap();
        let mut state = StateWriter::start(&lock).unwrap();
        state.status(Status::Running, step, None).unwrap();
        Self {
            path,
            lines,
            state,
            _lock: lock,
        }
    }

    /// Write what comes next at the pace at which it was recorded, for so long; the number of lines.
    #[cfg_attr(test, allow(dead_code, reason = "for benches"))]
    pub(crate) fn go_on(&mut self, how_long: Duration) -> usize {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(self.path.join("events.jsonl"))
            .unwrap();
        let (start, mut written) = (Instant::now(), 0);
        let first = self.lines.first().map_or(0, |(time, _)| *time);
        while let Some((time, line)) = self.lines.get(written) {
            let due = Duration::from_millis(time - first);
            if due > how_long {
                break;
            }
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            writeln!(file, "{line}").unwrap();
            written += 1;
        }
        std::thread::sleep(how_long.saturating_sub(start.elapsed()));
        self.lines.drain(..written);
        written
    }

    /// Its worker samples an eval.
    pub(crate) fn evaluate(&self, progress: EvalProgress) {
        self.state.eval(Some(progress)).unwrap();
    }

    /// The run comes to its end.
    pub(crate) fn end(&mut self) {
        self.state
            .status(Status::Finished, 40, Some("all steps done".into()))
            .unwrap();
    }
}
