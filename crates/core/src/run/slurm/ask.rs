//! Queries Slurm about the jobs of runs, and cancels jobs. The answers are written to the runs'
//! folders, for all readers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::commands::call;
use super::job::{JobLine, JobPhase, SlurmJob};
use crate::run::clock::now_ms;
use crate::run::error::RunError;
use crate::run::process::launch::last_line_where;
use crate::run::process::liveness::Liveness;

/// Queries Slurm once about all of these runs that compute in a job and have no live worker, unless
/// it was queried within `recently`. If Slurm does not answer, the last answer stays.
///
/// # Errors
/// Why Slurm does not answer.
pub fn ask_slurm(
    runs: impl IntoIterator<Item = PathBuf>,
    recently: Duration,
) -> Result<(), RunError> {
    let recently_ms = u64::try_from(recently.as_millis()).unwrap_or(u64::MAX);
    let asked: Vec<(PathBuf, SlurmJob)> = runs
        .into_iter()
        .filter_map(|run| SlurmJob::read(&run).map(|job| (run, job)))
        .filter(|(run, job)| {
            let is_recent = now_ms().saturating_sub(job.asked_ms) < recently_ms;
            job.phase() != JobPhase::Over
                && job.job.is_some()
                && !is_recent
                && !Liveness::for_run(run).may_live()
        })
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let lines = job_lines(asked.iter().filter_map(|(_, job)| job.job))?;
    for (run, mut job) in asked {
        job.update(lines.iter().find(|line| Some(line.job) == job.job), || {
            last_line(&run.join("worker.log"))
        });
        // Runs of other users are read-only.
        let _ = job.write(&run);
    }
    Ok(())
}

fn job_lines(jobs: impl Iterator<Item = u64>) -> Result<Vec<JobLine>, RunError> {
    // Each id twice: for a single unknown job, squeue returns an error.
    let ids: Vec<String> = jobs
        .flat_map(|job| [job.to_string(), job.to_string()])
        .collect();
    let mut command = Command::new("squeue");
    command
        .args(["--noheader", "--states=all", "--format=%i|%T|%r|%N|%S"])
        .arg(format!("--jobs={}", ids.join(",")));
    Ok(call("squeue", &mut command)?
        .lines()
        .filter_map(job_line)
        .collect())
}

fn job_line(line: &str) -> Option<JobLine> {
    let fields: Vec<&str> = line.trim().split('|').collect();
    let [job, state, reason, node_list, start] = fields[..] else {
        return None;
    };
    let text = |field: &str| field.trim().to_owned();
    Some(JobLine {
        job: job.parse().ok()?,
        state: text(state),
        reason: text(reason),
        node_list: text(node_list),
        start_ms: local_ms(start),
    })
}

/// Parses a local time as Slurm prints it; `None` for `N/A`.
fn local_ms(text: &str) -> Option<u64> {
    let time: jiff::civil::DateTime = text.trim().parse().ok()?;
    u64::try_from(
        time.to_zoned(jiff::tz::TimeZone::system())
            .ok()?
            .timestamp()
            .as_millisecond(),
    )
    .ok()
}

/// The last informative line of the output, trimmed; empty if there is none.
fn last_line(path: &Path) -> String {
    let is_exit_code =
        |line: &str| line.starts_with("srun: ") && line.contains("xited with exit code");
    last_line_where(path, 0, |line| !is_exit_code(line.trim()))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The job of a run without a worker, if a query shows that Slurm still has it.
///
/// # Errors
/// Why Slurm does not answer.
pub(in crate::run) fn live_job(run: &Path) -> Result<Option<SlurmJob>, RunError> {
    let is_live = |job: &SlurmJob| job.phase() != JobPhase::Over;
    if SlurmJob::read(run).is_some_and(|job| is_live(&job)) {
        ask_slurm([run.to_owned()], Duration::ZERO)?;
    }
    Ok(SlurmJob::read(run).filter(is_live))
}

/// Checks that no Slurm job is queued for a run.
///
/// # Errors
/// [`RunError::InUse`] naming the job, or why Slurm does not answer.
pub(in crate::run) fn check_no_job(run: &Path) -> Result<(), RunError> {
    match live_job(run)? {
        Some(job) => Err(RunError::InUse {
            path: run.to_owned(),
            holder: job.name(),
        }),
        None => Ok(()),
    }
}

/// Records that this process is the worker of a run in its job, and returns the job. Outside a job,
/// checks that none is queued for the run.
pub(in crate::run) fn enter_job(run: &Path) -> Result<Option<u64>, RunError> {
    let Some(mut job) = SlurmJob::read(run) else {
        return Ok(None);
    };
    let variable = |name: &str| std::env::var(name).ok();
    match variable("SLURM_JOB_ID").and_then(|id| id.parse().ok()) {
        Some(id) if job.job.is_none_or(|own| own == id) => {
            job.start(id, variable("SLURM_JOB_NODELIST").unwrap_or_default());
            job.write(run)?;
            Ok(Some(id))
        }
        _ => check_no_job(run).map(|()| None),
    }
}

/// Cancels a run's job; describes what was done, `None` without a job.
///
/// # Errors
/// `scancel`'s message.
pub(in crate::run) fn cancel_job(run: &Path) -> Result<Option<String>, RunError> {
    let Some((job, id)) = live_job(run)?.and_then(|job| job.job.map(|id| (job, id))) else {
        return Ok(None);
    };
    call("scancel", Command::new("scancel").arg(id.to_string()))?;
    let mut cancelled = SlurmJob {
        stopped: !Liveness::for_run(run).may_live(),
        ..job
    };
    // Slurm may report the cancellation late.
    (cancelled.state, cancelled.asked_ms) = ("CANCELLED".to_owned(), now_ms());
    cancelled.write(run)?;
    Ok(Some(format!("cancelled {}", cancelled.name())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_squeue() {
        let line = job_line("17|PENDING|Resources||N/A").unwrap();
        assert_eq!(
            (
                line.job,
                line.state.as_str(),
                line.reason.as_str(),
                line.start_ms
            ),
            (17, "PENDING", "Resources", None)
        );
        let line = job_line("8|RUNNING|None|n[1-2,7]|2026-11-22T20:26:37").unwrap();
        let minute = crate::format::date_time(line.start_ms.unwrap());
        assert_eq!(
            (line.node_list.as_str(), minute.as_str()),
            ("n[1-2,7]", "2026-11-22 20:26:37")
        );
        for wrong in ["", "slurm_load_jobs error", "17_[1-4]|PENDING|None||N/A"] {
            assert_eq!(job_line(wrong), None);
        }
    }

    #[test]
    fn the_last_line_of_an_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.log");
        assert_eq!(last_line(&path), "");
        std::fs::write(
            &path,
            "one\n two: not found \nsrun: error: n1: tasks 0-1: Exited with exit code 2\n\n",
        )
        .unwrap();
        assert_eq!(last_line(&path), "two: not found");
    }
}
