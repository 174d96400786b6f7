//! Local judge models must stay the same for a run's whole life, as other grades are other rewards.

use std::collections::BTreeMap;

use super::error::TrainError;
use super::run_task::RunTask;
use crate::files::{self, Access};
use crate::run::RunDirectory;

const FILE: &str = "judge-models.json";
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Records a run's judges by task and part; on resume, requires the same.
///
/// # Errors
/// [`TrainError::OtherJudge`]; [`TrainError::JudgeRecord`] if the file cannot be written.
pub(super) fn check_judges(run: &RunDirectory, tasks: &[RunTask]) -> Result<(), TrainError> {
    let name = |task: &RunTask, part: &str| match (task.part.name.as_str(), part) {
        ("", "") => "score".to_owned(),
        ("", name) | (name, "") => name.to_owned(),
        (task, part) => format!("{task}/{part}"),
    };
    let judges = tasks
        .iter()
        .flat_map(|task| task.judges.iter().map(move |judge| (task, judge)));
    let loaded: BTreeMap<String, String> = judges
        .map(|(task, (part, digest))| (name(task, part), digest.clone()))
        .collect();
    if loaded.is_empty() {
        return Ok(());
    }
    let path = run.path().join(FILE);
    let failed = |error: std::io::Error| TrainError::JudgeRecord {
        path: path.display().to_string(),
        error,
    };
    match files::read_at_most(&path, MAX_FILE_BYTES) {
        Ok(bytes) => {
            let recorded: BTreeMap<String, String> = serde_json::from_slice(&bytes)?;
            match loaded
                .into_iter()
                .find(|(name, digest)| recorded.get(name) != Some(digest))
            {
                Some((judge, _)) => Err(TrainError::OtherJudge { judge }),
                None => Ok(()),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            files::replace_file(&path, &serde_json::to_vec_pretty(&loaded)?, Access::Private)
                .map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
