//! A followed run: its state from the log, its latest events for display, and the state of its worker.

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::message::RunNews;
use super::messages::Level;
use crate::facts::AlertLevel;
use crate::report::{Level as EventLevel, RunOutcome, alert_name};
use crate::run::events::Device;
use crate::run::{Event, EventBody, RunDirectory, RunState, State, Status};

/// The most events stored for display; older ones are in the log.
const LOG_KEPT: usize = 500;
/// The most device measurements stored: twenty minutes at one in five seconds.
const CONDITIONS_KEPT: usize = 240;
/// Bytes at the end of a log that are read for its latest events.
const TAIL_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub struct FollowedRun {
    path: PathBuf,
    /// `run.toml`; `None` if it cannot be read.
    pub directory: Option<RunDirectory>,
    pub history: RunState,
    pub outcome: RunOutcome,
    /// The best checkpoint, as in the outcome.
    pub best: Option<u64>,
    /// The worker's state; `None` before the first one.
    pub state: Option<State>,
    /// Why it cannot be read.
    pub error: Option<String>,
    /// Whether its log has been read once.
    pub loaded: bool,
    /// Whether its log has vanished.
    pub is_gone: bool,
    /// The latest events for display, by number: without steps, groups, phases and device measurements.
    pub log: VecDeque<Event>,
    /// The latest device measurements, with their times in milliseconds.
    pub conditions: VecDeque<(u64, Device)>,
    /// Events before this time (milliseconds since 1970) are not notified.
    since_ms: Option<u64>,
}

/// News of a followed run for a notification, whatever screen is in front.
#[derive(Debug)]
pub(super) struct RunNotice {
    pub(super) level: Level,
    pub(super) title: String,
    pub(super) text: String,
    /// Whether the rate limit is ignored: the end of a run.
    pub(super) urgent: bool,
}

impl FollowedRun {
    pub(super) fn new(path: PathBuf) -> Self {
        let directory = RunDirectory::open(&path);
        let error = directory.as_ref().err().map(ToString::to_string);
        Self {
            path,
            directory: directory.ok(),
            history: RunState::default(),
            outcome: RunOutcome::default(),
            best: None,
            state: None,
            error,
            loaded: false,
            is_gone: false,
            log: VecDeque::new(),
            conditions: VecDeque::new(),
            since_ms: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub fn status(&self) -> Status {
        self.state
            .as_ref()
            .map_or(Status::Created, |state| state.status)
    }

    /// Whether no more notifications can come: it has ended, or cannot be read.
    pub(super) fn is_over(&self) -> bool {
        self.is_gone || self.error.is_some() || (self.loaded && self.status().is_ended())
    }

    pub fn push_events(&mut self, events: Vec<Event>) {
        let (first, first_ms) = (
            self.log.front().map(|event| event.seq),
            self.conditions.front().map(|(time, _)| *time),
        );
        let (mut older, mut conditions) = (VecDeque::new(), VecDeque::new());
        for event in events {
            match event.body {
                EventBody::Device(device) if first_ms.is_none_or(|first| event.time_ms < first) => {
                    conditions.push_back((event.time_ms, device))
                }
                _ if is_readable(&event) && first.is_none_or(|first| event.seq < first) => {
                    older.push_back(event)
                }
                _ => {}
            }
        }
        older.append(&mut self.log);
        conditions.append(&mut self.conditions);
        (self.log, self.conditions) = (older, conditions);
        self.forget_old();
    }

    pub(super) fn apply(&mut self, news: RunNews, now_ms: u64) -> Vec<RunNotice> {
        let before = self.status();
        match news {
            RunNews::Opened(history) => {
                self.history = *history;
                self.judge();
                self.loaded = true;
                if self.directory.is_some() {
                    self.error = None;
                }
                self.since_ms.get_or_insert(now_ms);
            }
            RunNews::Events(batch) => {
                self.is_gone = batch.gone;
                if batch.gone {
                    self.error = Some(format!(
                        "the run no longer exists: showing the last state read ({})",
                        self.path.display()
                    ));
                }
                if batch.restarted {
                    self.log.clear();
                    self.conditions.clear();
                }
                // A log that is read again repeats its events.
                let old = |event: &Event| {
                    batch.restarted && self.since_ms.is_some_and(|since| event.time_ms < since)
                };
                let alerts = batch
                    .events
                    .iter()
                    .filter(|event| !old(event))
                    .filter_map(|event| self.alert(event))
                    .collect();
                batch.events.iter().for_each(|event| self.append(event));
                let judges = |event: &Event| {
                    matches!(
                        event.body,
                        EventBody::Eval(_)
                            | EventBody::Checkpoint(_)
                            | EventBody::Recovered(_)
                            | EventBody::End(_)
                    )
                };
                let changed = batch.restarted || batch.events.iter().any(judges);
                self.history.apply(batch);
                if changed {
                    self.judge();
                }
                return alerts;
            }
            RunNews::State(state) => self.state = state,
            RunNews::Unreadable(error) => self.error = Some(error),
        }
        let now = self.status();
        if self.loaded
            && now != before
            && now.is_ended()
            && !before.is_ended()
            && before != Status::Created
        {
            let cause = self
                .state
                .as_ref()
                .and_then(|state| state.cause.clone())
                .unwrap_or_default();
            let level = match now {
                Status::Failed => Level::Complaint,
                Status::Interrupted if !now.is_stopped(Some(&cause)) => Level::Warning,
                _ if self.outcome.level() == EventLevel::Warning => Level::Warning,
                _ => Level::Done,
            };
            let title = format!("{} is {}", self.id(), now.name());
            let text = if self.outcome.is_known() {
                format!("{}; {cause}", self.outcome.label())
            } else {
                cause.sentence
            };
            return vec![RunNotice {
                level,
                title,
                text,
                urgent: true,
            }];
        }
        Vec::new()
    }

    fn judge(&mut self) {
        let checkpoints: Vec<u64> = self.history.checkpoints.keys().copied().collect();
        self.best = self.directory.as_ref().and_then(|directory| {
            self.history
                .best_step_by(&checkpoints, directory.file().config.keep_best_by)
        });
        self.outcome = RunOutcome::from_history(&self.history, self.best);
    }

    fn append(&mut self, event: &Event) {
        match &event.body {
            EventBody::Device(device)
                if self
                    .conditions
                    .back()
                    .is_none_or(|(time, _)| *time < event.time_ms) =>
            {
                self.conditions.push_back((event.time_ms, device.clone()));
            }
            _ if !is_readable(event) => {}
            _ if self.log.back().is_none_or(|last| last.seq < event.seq) => {
                self.log.push_back(event.clone())
            }
            _ => {}
        }
        self.forget_old();
    }

    fn forget_old(&mut self) {
        self.log.drain(..self.log.len().saturating_sub(LOG_KEPT));
        self.conditions
            .drain(..self.conditions.len().saturating_sub(CONDITIONS_KEPT));
    }

    fn alert(&self, event: &Event) -> Option<RunNotice> {
        match &event.body {
            EventBody::Alert(alert) if !alert.cleared && alert.level != AlertLevel::Info => {
                let level = if alert.level == AlertLevel::Error {
                    Level::Complaint
                } else {
                    Level::Warning
                };
                let title = format!("{}: {}", self.id(), alert_name(&alert.rule));
                Some(RunNotice {
                    level,
                    title,
                    text: alert.sentence.clone(),
                    urgent: false,
                })
            }
            _ => None,
        }
    }
}

/// Whether an event has a line of its own. The values of steps are in the charts.
fn is_readable(event: &Event) -> bool {
    let is_data = matches!(
        event.body,
        EventBody::Step(_)
            | EventBody::Group(_)
            | EventBody::Phase(_)
            | EventBody::Device(_)
            | EventBody::Unknown(_)
    );
    !is_data
}

/// Returns the latest events of a run's log, oldest first; of a long log only the end is read. Lines that are not
/// events are skipped.
pub fn latest_events(run: &Path) -> Result<Vec<Event>, String> {
    let path = run.join("events.jsonl");
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut file = crate::files::open(&path).map_err(failed)?;
    let start = file
        .metadata()
        .map_err(failed)?
        .len()
        .saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut bytes = Vec::new();
    // The worker keeps writing: reads no more than there was at the start.
    file.take(TAIL_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    // A read from the middle of a log starts within a line.
    let whole = text.lines().skip(usize::from(start > 0));
    Ok(whole
        .filter_map(|line| Event::from_line(line).ok())
        .filter(|event| is_readable(event) || matches!(event.body, EventBody::Device(_)))
        .collect())
}
