//! A run that is followed: its folded log, and what its worker says of itself.

use std::path::{Path, PathBuf};

use super::message::{Command, RunNews};
use crate::run::{RunDirectory, RunState, State, Status};

/// A followed run.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    /// `run.toml`; `None` where it cannot be read.
    pub directory: Option<RunDirectory>,
    /// Its log, folded.
    pub history: RunState,
    /// What its worker says; `None` before it has spoken.
    pub state: Option<State>,
    /// Why it cannot be read, as a sentence.
    pub error: Option<String>,
    /// Whether its log has been read once.
    pub loaded: bool,
    /// Lines that were skipped, or missing.
    pub is_gone: bool,
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        let directory = RunDirectory::open(&path);
        let error = directory.as_ref().err().map(ToString::to_string);
        Self { path, directory: directory.ok(), history: RunState::default(), state: None, error, loaded: false, is_gone: false }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id, which is its folder's name.
    pub fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        self.state.as_ref().map_or(Status::Created, |state| state.status)
    }

    pub(super) fn take(&mut self, news: RunNews) -> Vec<Command> {
        let before = self.status();
        match news {
            RunNews::Opened(history) => {
                self.history = *history;
                self.loaded = true;
                self.error = None;
            }
            RunNews::Events(batch) => {
                self.is_gone = batch.gone;
                if batch.gone {
                    self.error = Some(format!("{} is not there any more; what was read of it is shown", self.path.display()));
                }
                let alerts: Vec<Command> = batch.events.iter().filter_map(|event| self.alert(event)).collect();
                self.history.take(batch);
                return alerts;
            }
            RunNews::State(state) => self.state = state,
            RunNews::Unreadable(error) => self.error = Some(error),
        }
        let now = self.status();
        if self.loaded && now != before && now.is_ended() && !before.is_ended() && before != Status::Created {
            let cause = self.state.as_ref().and_then(|state| state.cause.clone()).unwrap_or_default();
            return vec![Command::Notify { title: format!("{} is {}", self.id(), now.name()), text: cause }];
        }
        Vec::new()
    }

    fn alert(&self, event: &crate::run::Event) -> Option<Command> {
        match &event.body {
            crate::run::EventBody::Alert(alert) if !alert.cleared && alert.level != "info" => {
                Some(Command::Notify { title: format!("{}: {}", self.id(), alert.rule), text: alert.sentence.clone() })
            }
            _ => None,
        }
    }
}
