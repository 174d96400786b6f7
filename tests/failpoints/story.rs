//! The life of one run: a worker after another, each killed at a place or a moment, until one comes to the end; watched
//! and spoken to all the while.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use grpo_tui::run::{EventReader, State, Status};

use super::clients::{Listener, Observed};
use super::evidence::{self, Evidence};
use crate::program::program;
use crate::training::small_task;

/// How a worker is to die.
#[derive(Clone, Debug)]
pub(super) enum Death {
    /// At a place in the program, as `GRPO_TUI_FAULT` names it.
    At(String),
    /// So many milliseconds after its start.
    After(u64),
    /// At a place, once it was asked to stop, so many milliseconds after its start.
    WhileStopping(u64, String),
}

/// Runs and what they need, in memory where there is some: what is tested is the order of writes, not the disk.
pub(super) struct Stage {
    pub(super) folder: tempfile::TempDir,
}

impl Stage {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        Self { folder }
    }

    /// A run of six steps: a checkpoint every two, an eval every three, and the keep rule at work.
    pub(super) fn create(&self, name: &str, set: &[&str]) -> PathBuf {
        let set = [&["keep_checkpoints=2", "learning_rate=5e-4"], set].concat();
        small_task::create(&self.folder.path().join(name), &set)
            .path()
            .to_owned()
    }

    /// The program with the stage's own slots.
    pub(super) fn program(&self, run: &Path) -> Command {
        let mut command = program(self.folder.path(), &[]);
        command.env("GRPO_TUI_SLOTS", slots(run));
        command
            .env_remove("GRPO_TUI_FAULT")
            .env_remove("GRPO_TUI_FAULT_CLOCK");
        command
    }

    /// A worker of the run, its output beside the run's folder.
    pub(super) fn worker(&self, run: &Path) -> Command {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(run.with_extension("log"))
            .unwrap();
        let mut command = self.program(run);
        command
            .args(["worker", "--cpu", "--resume", "--run"])
            .arg(run)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// One worker from its start to its end, which comes by `death` where it is reached.
    pub(super) fn live(&self, run: &Path, death: Option<&Death>) -> ExitStatus {
        let mut command = self.worker(run);
        if let Some(Death::At(place) | Death::WhileStopping(_, place)) = death {
            command.env("GRPO_TUI_FAULT", place);
        }
        let mut child = command.spawn().unwrap();
        match death {
            Some(Death::After(milliseconds))
                if !ends_within(&mut child, Duration::from_millis(*milliseconds)) =>
            {
                child.kill().unwrap()
            }
            Some(Death::WhileStopping(milliseconds, _))
                if !ends_within(&mut child, Duration::from_millis(*milliseconds)) =>
            {
                signal(&child, "TERM");
            }
            _ => {}
        }
        child.wait().unwrap()
    }

    /// What an uninterrupted run of this configuration leaves.
    pub(super) fn expected(&self, set: &[&str]) -> (PathBuf, Evidence) {
        let run = self.create("expected", set);
        let ended = self.live(&run, None);
        assert!(ended.success(), "{ended:?}: {}", log(&run));
        evidence::check_whole(&run, true);
        let found = evidence::collect(&run, true);
        (run, found)
    }
}

pub(super) fn slots(run: &Path) -> PathBuf {
    run.with_extension("slots")
}

fn ends_within(child: &mut Child, time: Duration) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

pub(super) fn signal(child: &Child, name: &str) {
    // A process that has just ended takes no signal.
    let _ = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .stderr(Stdio::null())
        .status();
}

pub(super) fn log(run: &Path) -> String {
    std::fs::read_to_string(run.with_extension("log")).unwrap_or_default()
}

/// What came of a story.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Workers that died by SIGKILL, by the place of their death.
    pub(super) kills: BTreeMap<String, usize>,
    /// Workers that stopped as asked, or came to the end before their death.
    pub(super) spared: usize,
    /// Records that were looked at.
    pub(super) records: usize,
    /// Events that readers were told, and requests that clients were told had been accepted.
    pub(super) acknowledged: usize,
    /// Of these, not there at the end.
    pub(super) lost: Vec<String>,
    /// In what the run differs from the uninterrupted one.
    pub(super) differences: Vec<String>,
}

/// Plays one run through `deaths` to its end and compares it with `expected`.
pub(super) fn play(
    stage: &Stage,
    name: &str,
    set: &[&str],
    deaths: &[Death],
    expected: &Evidence,
) -> Outcome {
    let run = stage.create(name, set);
    let mut outcome = Outcome::default();
    let mut stopped = false;
    let listener = Listener::start(&run);
    let mut log_before: Vec<u8> = Vec::new();
    let mut finished = false;
    for death in deaths {
        let status = stage.live(&run, Some(death));
        match (status.signal(), status.code()) {
            (Some(9), _) => *outcome.kills.entry(place(death)).or_default() += 1,
            (None, Some(0)) => {
                outcome.spared += 1;
                finished = true;
            }
            (None, Some(130)) => {
                outcome.spared += 1;
                stopped = true;
            }
            _ => panic!("{name}: {death:?} gave {status:?}:\n{}", log(&run)),
        }
        stopped |= matches!(death, Death::WhileStopping(..));
        // It may have died behind its last word.
        finished |= State::observe(&run).is_some_and(|state| state.status == Status::Finished);
        outcome.records += evidence::check_whole(&run, false);
        let now = whole_lines(&run);
        if !now.starts_with(&log_before) {
            outcome.lost.push(format!(
                "{name}: the log's first {} bytes were changed after {death:?}",
                log_before.len()
            ));
        }
        log_before = now;
        if finished {
            break;
        }
    }
    if !finished {
        let status = stage.live(&run, None);
        assert!(
            status.success(),
            "{name}: {deaths:?}, then {status:?}:\n{}",
            log(&run)
        );
    } else {
        // One worker more is refused, leaves the run finished, and takes away what the last one left.
        let status = stage.live(&run, None);
        assert_eq!(status.code(), Some(1), "{name}: {}", log(&run));
    }
    let observed = listener.stop();
    outcome.records += evidence::check_whole(&run, true);
    if !whole_lines(&run).starts_with(&log_before) {
        outcome.lost.push(format!(
            "{name}: the log's first {} bytes were changed",
            log_before.len()
        ));
    }
    check_observed(&run, &observed, &mut outcome);
    let found = evidence::collect(&run, !stopped);
    let expected: Evidence = match stopped {
        false => expected.clone(),
        true => expected
            .iter()
            .filter(|(key, _)| !key.starts_with("checkpoint") || found.contains_key(*key))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect(),
    };
    outcome.records += found.len();
    outcome.differences.extend(
        evidence::differences(&found, &expected)
            .into_iter()
            .map(|what| format!("{name} {deaths:?}: {what}")),
    );
    std::fs::remove_dir_all(run.parent().unwrap().parent().unwrap()).unwrap();
    outcome
}

/// Everything that a reader or a client was told is in the log.
fn check_observed(run: &Path, observed: &Observed, outcome: &mut Outcome) {
    let log = EventReader::new(&run.join("events.jsonl"))
        .read()
        .unwrap()
        .events;
    let lines: BTreeMap<u64, Vec<u8>> = log
        .iter()
        .map(|event| (event.seq, event.to_line().unwrap()))
        .collect();
    outcome.acknowledged += observed.events.len() + observed.accepted.len();
    for (seq, line) in &observed.events {
        if lines.get(seq) != Some(line) {
            outcome
                .lost
                .push(format!("event {seq}, which a reader saw"));
        }
    }
    let text: String = lines
        .values()
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    for mark in &observed.accepted {
        if !text.contains(mark) {
            outcome.lost.push(format!("the accepted request `{mark}`"));
        }
    }
    outcome.lost.extend(observed.trouble.iter().cloned());
}

fn whole_lines(run: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(run.join("events.jsonl")).unwrap();
    bytes.truncate(
        bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1),
    );
    bytes
}

fn place(death: &Death) -> String {
    match death {
        Death::At(place) => place.split(':').next().unwrap().to_owned(),
        Death::After(_) => "at any moment".to_owned(),
        Death::WhileStopping(_, place) => format!("stopping, {}", place.split(':').next().unwrap()),
    }
}
