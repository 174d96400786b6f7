//! What this server's runs may use and have used, kept in the workspace so that a restart does not begin anew.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::files::{Access, ensure_folder, lock_folder, read, replace_file};
use crate::format::counted;
use crate::report::Report;
use crate::run::{RunFolders, Status};

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
    /// Training is closed: `final_eval` was called.
    pub(super) is_closed: bool,
    pub(super) final_eval: Option<FinalEval>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StartedRun {
    pub(super) run: String,
    /// What it may use; an ended run counts what it used.
    pub(super) steps: u64,
    pub(super) minutes: Option<f64>,
}

/// The only look at a test set.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FinalEval {
    pub(super) run: String,
    /// The folder of the eval, in the workspace.
    pub(super) eval: PathBuf,
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
        let path = folder.join(FILE);
        let named = |error| format!("{}: {error}", path.display());
        ensure_folder(&folder, Access::Private).map_err(named)?;
        let lock = lock_folder(&folder).map_err(named)?;
        let record = Record::read(workspace)?;
        Ok(Self {
            record,
            path,
            _lock: lock,
        })
    }

    pub(super) fn save(&self) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(&self.record).map_err(|error| error.to_string())?;
        replace_file(&self.path, &text, Access::Private)
            .map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

impl Record {
    /// Empty if there is none.
    pub(super) fn read(workspace: &Path) -> Result<Self, String> {
        let path = workspace.join(FOLDER).join(FILE);
        match read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let path = path.display();
                format!("{path}: {error}: a person repairs it, or removes it to begin a new budget")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    pub(super) fn has_started(&self, run: &str) -> bool {
        self.runs.iter().any(|started| started.run == run)
    }

    pub(super) fn spent(&self, run_folders: &RunFolders) -> Spent {
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
            let report = run_folders.find(run).and_then(Report::read).ok();
            let status = report.as_ref().map(Report::status);
            let ended = report.filter(|report| report.status().is_ended());
            let Some(report) = ended else {
                spent.steps += steps;
                spent.minutes += minutes.unwrap_or(0.0);
                // A folder that is gone and a worker that never began hold nothing up.
                if status.is_some_and(|status| status != Status::Created) {
                    spent.active.push(run.clone());
                }
                continue;
            };
            let evals: f64 = report.history.evals.values().map(|eval| eval.seconds).sum();
            spent.steps += report.history.last_step;
            spent.minutes += (report.computed_seconds() + evals) / 60.0;
        }
        spent
    }
}

impl Limits {
    /// Steps and minutes that a new run may use, at most those asked for.
    ///
    /// # Errors
    /// A sentence with what is left.
    pub(super) fn grant(
        self,
        spent: &Spent,
        steps: u64,
        minutes: Option<f64>,
    ) -> Result<Option<f64>, String> {
        let active = match spent.active.as_slice() {
            [] => String::new(),
            runs => format!("; {} counts what it may use until it ends", runs.join(", ")),
        };
        if let Some(left) = self.steps_left(spent).filter(|left| *left < steps) {
            return Err(format!("{}{active}", steps_left_text(left)));
        }
        let left = self.minutes_left(spent);
        match (left, minutes) {
            (Some(left), _) if left < 0.1 => {
                Err(format!("no device time is left of the budget{active}"))
            }
            (Some(left), Some(asked)) if asked > left => Err(format!(
                "{asked} minutes are more than the {left:.1} left of the budget{active}"
            )),
            (left, asked) => Ok(asked.or(left)),
        }
    }

    pub(super) fn steps_left(self, spent: &Spent) -> Option<u64> {
        self.steps.map(|most| most.saturating_sub(spent.steps))
    }

    pub(super) fn minutes_left(self, spent: &Spent) -> Option<f64> {
        self.minutes.map(|most| (most - spent.minutes).max(0.0))
    }

    /// Whether nothing is left to train with.
    pub(super) fn is_spent(self, spent: &Spent) -> bool {
        self.steps_left(spent) == Some(0) || self.minutes_left(spent).is_some_and(|left| left < 0.1)
    }

    pub(super) fn document(self, record: &Record, spent: &Spent) -> Value {
        json!({
            "steps": self.steps, "steps_spent": spent.steps, "steps_left": self.steps_left(spent),
            "device_minutes": self.minutes, "device_minutes_spent": (spent.minutes * 100.0).round() / 100.0,
            "device_minutes_left": self.minutes_left(spent).map(|left| (left * 100.0).round() / 100.0),
            "active": spent.active, "training_is_closed": record.is_closed, "final_eval": record.final_eval.as_ref().map(|done| &done.run),
        })
    }
}

/// `1 step of the budget is left`.
pub(super) fn steps_left_text(steps: u64) -> String {
    let is = if steps == 1 { "is" } else { "are" };
    let steps = counted(usize::try_from(steps).unwrap_or(usize::MAX), "step");
    format!("{steps} of the budget {is} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_granted_what_is_left() {
        let check = |limits: (Option<u64>, Option<f64>),
                     spent: (u64, f64),
                     asked: (u64, Option<f64>),
                     expected: Result<Option<f64>, &str>| {
            let limits = Limits {
                steps: limits.0,
                minutes: limits.1,
            };
            let spent = Spent {
                steps: spent.0,
                minutes: spent.1,
                active: Vec::new(),
            };
            let found = limits.grant(&spent, asked.0, asked.1);
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                _ => panic!("{found:?}, not {expected:?}"),
            }
        };
        check((None, None), (9, 9.0), (5, None), Ok(None));
        check((None, None), (9, 9.0), (5, Some(2.0)), Ok(Some(2.0)));
        check((Some(10), None), (5, 0.0), (5, None), Ok(None));
        check(
            (Some(10), None),
            (5, 0.0),
            (6, None),
            Err("5 steps of the budget are left"),
        );
        check((None, Some(10.0)), (0, 4.0), (1, None), Ok(Some(6.0)));
        check(
            (None, Some(10.0)),
            (0, 4.0),
            (1, Some(7.0)),
            Err("more than the 6.0 left"),
        );
        check(
            (None, Some(10.0)),
            (0, 10.0),
            (1, None),
            Err("no device time is left"),
        );
    }
}
