//! What this server's runs may use and have used, kept in the workspace so that a restart does not begin anew.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::workspace::Workspace;
use crate::files::{Access, ensure_folder, lock_folder, read, replace_file};
use crate::report::Report;
use crate::run::Status;

const FOLDER: &str = ".grpo-tui";
const FILE: &str = "mcp.json";

/// Limits from the command line; `None`: none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) steps: Option<u64>,
    pub(super) minutes: Option<f64>,
}

/// `.grpo-tui/mcp.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// Runs that the server started.
    pub(super) runs: Vec<StartedRun>,
    /// Of samples, plans and the final result.
    pub(super) other_seconds: f64,
    /// The run that the test set has answered for: training is closed.
    pub(super) final_eval: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StartedRun {
    pub(super) run: String,
    /// What it may use; an ended run counts what it used.
    pub(super) steps: u64,
    pub(super) minutes: Option<f64>,
}

/// Held while a record is changed; other servers of the workspace wait.
pub(super) struct Budget {
    pub(super) record: Record,
    path: PathBuf,
    _lock: File,
}

/// Steps and minutes of runs: of an active one what it may use.
#[derive(Debug, Default)]
pub(super) struct Spent {
    pub(super) steps: u64,
    pub(super) minutes: f64,
    pub(super) active: Vec<String>,
}

impl Budget {
    /// Waits until no other server changes it.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(super) fn open(workspace: &Path) -> Result<Self, String> {
        let folder = workspace.join(FOLDER);
        let named = |error| format!("{}: {error}", folder.display());
        ensure_folder(&folder, Access::Private).map_err(named)?;
        let _lock = lock_folder(&folder).map_err(named)?;
        let record = Record::read(workspace)?;
        Ok(Self {
            record,
            path: folder.join(FILE),
            _lock,
        })
    }

    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Record) -> T) -> Result<T, String> {
        let changed = change(&mut self.record);
        let text = serde_json::to_vec_pretty(&self.record).map_err(|error| error.to_string())?;
        replace_file(&self.path, &text, Access::Private)
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        Ok(changed)
    }
}

impl Record {
    /// Empty if there is none.
    pub(super) fn read(workspace: &Path) -> Result<Self, String> {
        let path = workspace.join(FOLDER).join(FILE);
        let parsed = match read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            read => read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)),
        };
        parsed.map_err(|error| {
            format!(
                "{}: {error}: a person repairs it, or removes it to begin a new budget",
                path.display()
            )
        })
    }

    pub(super) fn spent(&self, workspace: &Workspace) -> Spent {
        let mut spent = Spent {
            minutes: self.other_seconds / 60.0,
            ..Spent::default()
        };
        for StartedRun {
            run,
            steps,
            minutes,
        } in &self.runs
        {
            let report = workspace
                .run_folders()
                .find(run)
                .and_then(Report::read)
                .ok();
            match report {
                Some(report) if report.status().is_ended() => {
                    let evals: f64 = report.history.evals.values().map(|eval| eval.seconds).sum();
                    spent.steps += report.history.last_step;
                    spent.minutes += (report.computed_seconds() + evals) / 60.0;
                }
                report => {
                    spent.steps += steps;
                    spent.minutes += minutes.unwrap_or(0.0);
                    // A folder that is gone and a worker that never began hold nothing up.
                    let is_active = report.is_some_and(|report| report.status() != Status::Created);
                    spent.active.extend(is_active.then(|| run.clone()));
                }
            }
        }
        spent
    }
}

impl Limits {
    /// Minutes that new work may use.
    ///
    /// # Errors
    /// A sentence with what is left if it is less than `steps` and `minutes`.
    pub(super) fn grant(
        self,
        spent: &Spent,
        steps: u64,
        minutes: Option<f64>,
    ) -> Result<Option<f64>, String> {
        let left = self.minutes_left(spent);
        let fits = left.is_none_or(|left| left >= minutes.unwrap_or(0.1).max(0.1));
        match fits
            && self.steps_left(spent).is_none_or(|left| left >= steps)
            && minutes.is_none_or(|minutes| minutes > 0.0)
        {
            true => Ok(minutes.or(left)),
            false => Err(format!("not within the budget: {}", self.document(spent))),
        }
    }

    /// Closes training for good; the same run may ask again.
    ///
    /// # Errors
    /// A sentence if another run has asked, one is active, or budget is left and the client does not finish.
    pub(super) fn close(
        self,
        budget: &mut Budget,
        spent: &Spent,
        run: &str,
        finish: bool,
    ) -> Result<(), String> {
        if let Some(done) = &budget.record.final_eval {
            return if done == run {
                Ok(())
            } else {
                Err(format!("the test set has answered, for {done}"))
            };
        }
        if !spent.active.is_empty() || !finish && self.grant(spent, 1, None).is_ok() {
            return Err(format!(
                "train on, or call final_eval with finish = true, which closes training: {}",
                self.document(spent)
            ));
        }
        budget.change(|record| record.final_eval = Some(run.to_owned()))
    }

    fn steps_left(self, spent: &Spent) -> Option<u64> {
        self.steps.map(|most| most.saturating_sub(spent.steps))
    }

    fn minutes_left(self, spent: &Spent) -> Option<f64> {
        self.minutes.map(|most| (most - spent.minutes).max(0.0))
    }

    pub(super) fn document(self, spent: &Spent) -> Value {
        json!({
            "steps_spent": spent.steps, "steps_left": self.steps_left(spent), "active": spent.active,
            "device_minutes_spent": spent.minutes, "device_minutes_left": self.minutes_left(spent),
        })
    }
}
