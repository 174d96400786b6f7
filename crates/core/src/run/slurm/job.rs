//! `slurm.json`: the Slurm job of a run, Slurm's last report of it, and the state of a run without
//! a live worker.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::request::JobRequest;
use crate::facts::{Cause, Status};
use crate::format::clock;
use crate::run::clock::now_ms;
use crate::run::error::RunError;
use crate::run::process::worker_state::State;
use crate::run::storage::directory::{FORMAT_VERSION, host_name};
use crate::run::storage::durable::replace_file;

pub const SLURM_FILE: &str = "slurm.json";
/// State of a job that Slurm no longer lists.
const UNKNOWN: &str = "UNKNOWN";
/// Age from which a state is shown with its time.
const OLD_MS: u64 = 60_000;
/// Maximum duration of a submission.
const SUBMISSION_MS: u64 = 120_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlurmJob {
    pub version: u64,
    /// Job id; `None` until `sbatch` has answered.
    pub job: Option<u64>,
    #[serde(flatten)]
    pub request: JobRequest,
    pub submitted_ms: u64,
    #[serde(default)]
    pub stopped: bool,
    pub state: String,
    /// Slurm's reason, such as `Resources`; may be empty.
    #[serde(default)]
    pub reason: String,
    /// Slurm's node list; empty before the job has started.
    #[serde(default)]
    pub node_list: String,
    /// Time of the latest start.
    pub start_ms: Option<u64>,
    /// Expected start of a pending job.
    pub expected_start_ms: Option<u64>,
    /// Time of Slurm's last report.
    pub asked_ms: u64,
    /// The last line of output, if the job ended before its worker started.
    #[serde(default)]
    pub last_line: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPhase {
    Pending,
    Running,
    Over,
}

impl SlurmJob {
    pub(super) fn new(request: JobRequest) -> Self {
        Self {
            version: FORMAT_VERSION,
            job: None,
            request,
            submitted_ms: now_ms(),
            stopped: false,
            state: "PENDING".to_owned(),
            reason: String::new(),
            node_list: String::new(),
            start_ms: None,
            expected_start_ms: None,
            asked_ms: now_ms(),
            last_line: String::new(),
        }
    }

    /// `None` if the run was never submitted to Slurm, or its file cannot be read.
    pub fn read(run: &Path) -> Option<Self> {
        let bytes = crate::files::read(&run.join(SLURM_FILE)).ok()?;
        serde_json::from_slice::<Self>(&bytes)
            .ok()
            .filter(|job| job.version <= FORMAT_VERSION)
    }

    pub(super) fn write(&self, run: &Path) -> Result<(), RunError> {
        let path = run.join(SLURM_FILE);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| RunError::io("write", &path)(error.into()))?;
        replace_file(&path, &text)
    }

    pub fn phase(&self) -> JobPhase {
        let was_lost =
            self.job.is_none() && now_ms().saturating_sub(self.submitted_ms) > SUBMISSION_MS;
        match self.state.as_str() {
            _ if was_lost => JobPhase::Over,
            "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD"
            | "SPECIAL_EXIT" => JobPhase::Pending,
            "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "RESIZING"
            | "STAGE_OUT" => JobPhase::Running,
            _ => JobPhase::Over,
        }
    }

    /// `Slurm job 17`.
    pub fn name(&self) -> String {
        self.job
            .map_or_else(|| "Slurm job".to_owned(), |job| format!("Slurm job {job}"))
    }

    /// Updates the job from Slurm's report: `None` if Slurm no longer lists it. `last_line`: the
    /// last line of its output.
    pub(super) fn update(&mut self, said: Option<&JobLine>, last_line: impl FnOnce() -> String) {
        self.asked_ms = now_ms();
        match said {
            None => (self.state, self.reason) = (UNKNOWN.to_owned(), String::new()),
            Some(line) => {
                (self.state, self.reason) = (line.state.clone(), line.reason.clone());
                let is_pending = self.phase() == JobPhase::Pending;
                (self.start_ms, self.expected_start_ms) = if is_pending {
                    (self.start_ms, line.start_ms)
                } else {
                    (line.start_ms.or(self.start_ms), None)
                };
                if !is_pending {
                    self.node_list.clone_from(&line.node_list);
                }
            }
        }
        if self.phase() == JobPhase::Over {
            self.last_line = last_line();
        }
    }

    pub(super) fn start(&mut self, job: u64, node_list: String) {
        let now = now_ms();
        (self.job, self.state, self.reason) = (Some(job), "RUNNING".to_owned(), String::new());
        (self.node_list, self.start_ms, self.expected_start_ms) = (node_list, Some(now), None);
        (self.asked_ms, self.stopped) = (now, false);
    }

    /// The state of the run without a live worker. `worker`: the last worker's state; `died`: it
    /// ended without recording why.
    pub(in crate::run) fn observed(&self, worker: Option<State>, died: bool) -> Option<State> {
        let last_ms = worker.as_ref().map_or(0, |state| state.updated_ms);
        if worker
            .as_ref()
            .is_some_and(|state| state.status == Status::Finished)
        {
            return worker;
        }
        let has_run_since = |start: Option<u64>| start.unwrap_or(self.submitted_ms) <= last_ms;
        let (status, cause) = match self.phase() {
            JobPhase::Pending if self.asked_ms > last_ms => (Status::Waiting, self.waits()),
            JobPhase::Running if !has_run_since(self.start_ms) => (
                Status::Starting,
                format!(
                    "{} runs on {}; its worker has not started yet",
                    self.name(),
                    self.node_list
                ),
            ),
            JobPhase::Over if died => {
                let state = worker?;
                let mut cause = state.cause.unwrap_or_default();
                cause.sentence = format!("{cause}; {} is {}", self.name(), self.state);
                return Some(State {
                    cause: Some(cause),
                    ..state
                });
            }
            JobPhase::Over if self.stopped || !has_run_since(self.start_ms) => {
                let was_cancelled = self.stopped || self.state == "CANCELLED";
                let status = if worker.is_none() && !was_cancelled {
                    Status::Failed
                } else {
                    Status::Interrupted
                };
                (status, self.ended())
            }
            _ => return worker,
        };
        let worker = worker.unwrap_or_else(|| State {
            host: host_name(),
            updated_ms: self.asked_ms,
            ..State::without_worker(status, 0)
        });
        Some(State {
            status,
            cause: Some(Cause {
                sentence: cause,
                requested: status == Status::Interrupted && self.stopped,
            }),
            ..worker
        })
    }

    /// `Slurm job 17 in partition gpu, 2 nodes x 4 GPUs, on n[1-2]`.
    pub fn described(&self) -> String {
        let on = if self.node_list.is_empty() {
            String::new()
        } else {
            format!(", on {}", self.node_list)
        };
        format!(
            "{} in partition {}, {}{on}",
            self.name(),
            self.request.partition,
            self.request.described()
        )
    }

    pub fn waits(&self) -> String {
        let (request, reason) = (&self.request, &self.reason);
        let mut text = format!(
            "{} in partition {}, {}",
            self.name(),
            request.partition,
            request.described()
        );
        if !["", "None"].contains(&reason.as_str()) {
            text.push_str(&format!(": {reason}"));
            if let Some(meaning) = meaning(reason) {
                text.push_str(&format!(" ({meaning})"));
            }
        }
        if let Some(time_ms) = self.expected_start_ms.filter(|time| *time > now_ms()) {
            text.push_str(&format!("; start expected at {}", clock_or_date(time_ms)));
        }
        if now_ms().saturating_sub(self.asked_ms) > OLD_MS {
            text.push_str(&format!("; as of {}", clock_or_date(self.asked_ms)));
        }
        text
    }

    fn ended(&self) -> String {
        let (name, reason) = (self.name(), &self.reason);
        let output = match self.last_line.as_str() {
            "" => "; worker.log is empty".to_owned(),
            line => format!("; last line of worker.log: {line}"),
        };
        match (self.state.as_str(), reason.as_str()) {
            _ if self.job.is_none() => {
                "the run was not submitted to Slurm: sbatch did not answer; look for its job with squeue, then resume the run"
                    .to_owned()
            }
            _ if self.stopped => format!("stopped while it waited for Slurm ({name} is cancelled)"),
            ("CANCELLED", _) => format!("{name} was cancelled before its worker started"),
            (_, "JobLaunchFailure") => format!(
                "{name} could not be started on {}: does it see this folder? choose one that all nodes share with --runs DIR",
                self.node_list
            ),
            (UNKNOWN, _) => format!("{name} is no longer known to Slurm, and its worker never started{output}"),
            (state, _) => {
                let why = if ["", "None"].contains(&reason.as_str()) { String::new() } else { format!(", {reason}") };
                format!("{name} ended before its worker started ({state}{why}){output}")
            }
        }
    }
}

fn meaning(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "Resources" => "not enough nodes are free",
        "Priority" => "other jobs come first",
        "BeginTime" => "queued again; Slurm starts it no earlier than its begin time",
        "JobHeldUser" => "held by its user: scontrol release",
        "JobHeldAdmin" => "held by an administrator",
        "PartitionDown" | "PartitionInactive" => "the partition takes no jobs now",
        "PartitionNodeLimit" | "PartitionConfig" => {
            "the partition never has so many nodes: stop the run"
        }
        "PartitionTimeLimit" => "the partition's time limit is shorter: stop the run",
        "BadConstraints" => "no node fits: stop the run",
        _ => return None,
    })
}

fn clock_or_date(time_ms: u64) -> String {
    if time_ms.abs_diff(now_ms()) < 12 * 3_600_000 {
        clock(time_ms)
    } else {
        crate::format::date_time(time_ms)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobLine {
    pub(super) job: u64,
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) node_list: String,
    pub(super) start_ms: Option<u64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A job submitted at 1000, reported by Slurm at 5000.
    fn job(state: &str, reason: &str, start_ms: Option<u64>) -> SlurmJob {
        let request = JobRequest {
            partition: "gpu".to_owned(),
            nodes: 2,
            gpus_per_node: 4,
            ranks: 8,
            time: None,
        };
        SlurmJob {
            job: Some(17),
            submitted_ms: 1000,
            state: state.to_owned(),
            reason: reason.to_owned(),
            node_list: "n[1-2]".to_owned(),
            start_ms,
            asked_ms: 5000,
            ..SlurmJob::new(request)
        }
    }

    /// A worker whose last update was at `updated_ms`.
    fn worker(status: Status, updated_ms: u64) -> Option<State> {
        Some(State {
            version: FORMAT_VERSION,
            status,
            pid: 7,
            start_ticks: 1,
            boot_id: String::new(),
            host: "n1".to_owned(),
            step: 3,
            cause: Some("its own words".into()),
            holder: None,
            eval: None,
            pause_requested: false,
            updated_ms,
        })
    }

    #[test]
    fn a_run_without_a_worker_is_what_its_job_is() {
        let check = |job: SlurmJob, worker: Option<State>, expected: (Status, &str)| {
            let found = job.observed(worker, false).unwrap();
            let cause = found.cause.unwrap();
            assert_eq!(found.status, expected.0, "{job:?}");
            assert!(cause.contains(expected.1), "{cause}");
        };
        let own = "its own words";
        let pending = || job("PENDING", "Resources", None);
        let waits = "Slurm job 17 in partition gpu, 2 nodes x 4 GPUs: Resources (not enough nodes are free); as of ";
        check(pending(), None, (Status::Waiting, waits));
        // Requeued after the worker has stopped, and Slurm's report from before it started.
        check(
            pending(),
            worker(Status::Interrupted, 4000),
            (Status::Waiting, waits),
        );
        check(
            pending(),
            worker(Status::Interrupted, 6000),
            (Status::Interrupted, own),
        );
        check(
            job("RUNNING", "None", Some(4000)),
            None,
            (Status::Starting, "runs on n[1-2]; its worker has not"),
        );
        check(
            job("RUNNING", "", Some(4000)),
            worker(Status::Interrupted, 3000),
            (Status::Starting, "runs on"),
        );
        check(
            job("COMPLETING", "", Some(4000)),
            worker(Status::Failed, 4500),
            (Status::Failed, own),
        );
        check(
            job("COMPLETED", "", Some(2000)),
            worker(Status::Finished, 4500),
            (Status::Finished, own),
        );
        check(
            pending(),
            worker(Status::Finished, 4500),
            (Status::Finished, own),
        );
        check(
            job("FAILED", "NonZeroExitCode", Some(4000)),
            None,
            (Status::Failed, "(FAILED, NonZeroExitCode); worker"),
        );
        check(
            job("FAILED", "JobLaunchFailure", Some(4000)),
            None,
            (Status::Failed, "does it see this folder?"),
        );
        check(
            job("CANCELLED", "", Some(4000)),
            None,
            (Status::Interrupted, "was cancelled before its worker"),
        );
        let stopped = SlurmJob {
            stopped: true,
            ..job("CANCELLED", "", Some(4000))
        };
        check(
            stopped.clone(),
            None,
            (Status::Interrupted, "stopped while it waited for Slurm"),
        );
        check(
            stopped,
            worker(Status::Interrupted, 4500),
            (Status::Interrupted, "stopped while it waited for Slurm"),
        );
        check(
            job("CANCELLED", "", Some(4000)),
            worker(Status::Interrupted, 3000),
            (Status::Interrupted, "was cancelled"),
        );
        check(
            job("UNKNOWN", "", None),
            None,
            (Status::Failed, "no longer known to Slurm"),
        );
        check(
            job("UNKNOWN", "", None),
            worker(Status::Interrupted, 4500),
            (Status::Interrupted, own),
        );
        check(
            SlurmJob {
                job: None,
                ..pending()
            },
            None,
            (Status::Failed, "was not submitted"),
        );
    }

    #[test]
    fn a_worker_that_died_with_its_job_says_how_the_job_ended() {
        let died = job("OUT_OF_MEMORY", "", Some(2000))
            .observed(worker(Status::Interrupted, 4000), true)
            .unwrap();
        assert_eq!(
            &*died.cause.unwrap(),
            "its own words; Slurm job 17 is OUT_OF_MEMORY"
        );
        let queued = job("PENDING", "BeginTime", Some(2000))
            .observed(worker(Status::Interrupted, 4000), true)
            .unwrap();
        assert_eq!(queued.status, Status::Waiting);
    }

    #[test]
    fn what_slurm_says_is_taken() {
        let line = |state: &str, start_ms| JobLine {
            job: 17,
            state: state.to_owned(),
            reason: "Priority".to_owned(),
            node_list: "n3".to_owned(),
            start_ms,
        };
        let mut job = job("RUNNING", "", Some(2000));
        job.update(Some(&line("PENDING", Some(9000))), || unreachable!());
        assert_eq!(
            (job.start_ms, job.expected_start_ms, job.node_list.as_str()),
            (Some(2000), Some(9000), "n[1-2]")
        );
        job.update(Some(&line("RUNNING", Some(8000))), || unreachable!());
        assert_eq!(
            (job.start_ms, job.expected_start_ms, job.node_list.as_str()),
            (Some(8000), None, "n3")
        );
        job.update(None, || "killed".to_owned());
        assert_eq!(
            (job.phase(), job.last_line.as_str(), job.start_ms),
            (JobPhase::Over, "killed", Some(8000))
        );
        let read: SlurmJob = serde_json::from_slice(&serde_json::to_vec(&job).unwrap()).unwrap();
        assert_eq!(read, job);
    }
}
