//! Submits a run to Slurm: its job script, `sbatch`, and what `slurm.json` says of the job.

use std::path::Path;
use std::process::Command;

use super::ask::check_no_job;
use super::commands::call;
use super::job::{SLURM_FILE, SlurmJob};
use super::request::{JobRequest, SCRIPT_FILE};
use crate::run::error::RunError;
use crate::run::storage::directory::RunDirectory;
use crate::run::storage::durable::{open_append, replace_file};
use crate::run::storage::lock::RunLock;

/// Variables of `sbatch` that count for more than the job script.
const OVERRIDING: [&str; 11] = [
    "SBATCH_PARTITION",
    "SBATCH_JOB_NAME",
    "SBATCH_GPUS",
    "SBATCH_GPUS_PER_NODE",
    "SBATCH_GPUS_PER_TASK",
    "SBATCH_TIMELIMIT",
    "SBATCH_OUTPUT",
    "SBATCH_ERROR",
    "SBATCH_OPEN_MODE",
    "SBATCH_NO_REQUEUE",
    "SBATCH_ARRAY_INX",
];

/// Submits a run that has no worker and no job. `program`: this program as a shell takes it, on all nodes.
///
/// # Errors
/// [`RunError::InUse`] if a worker or a job has the run, [`RunError::Foreign`] and [`RunError::Loose`] if others could
/// tamper with it, [`RunError::NoSlurm`] and [`RunError::Slurm`] with the reason of `sbatch`. The run is then as it was.
pub fn submit(
    run: &RunDirectory,
    request: JobRequest,
    program: &str,
) -> Result<SlurmJob, RunError> {
    run.check_private()?;
    check_no_job(run.path())?;
    // Held until the job is submitted, so that no worker starts.
    let lock = RunLock::acquire(run.path())?;
    let (script, facts) = (run.path().join(SCRIPT_FILE), run.path().join(SLURM_FILE));
    let before = crate::files::read(&facts).ok();
    replace_file(&script, request.script(program).as_bytes())?;
    // Created here, private; the job appends to it.
    drop(open_append(&run.log_path())?);
    SlurmJob::new(request).write(run.path())?;
    // The job may start at once.
    drop(lock);
    match sbatch(run, &script) {
        Ok(id) => {
            let mut job = SlurmJob::read(run.path()).ok_or_else(|| {
                RunError::io("read", &facts)(std::io::Error::other(
                    "it was removed or replaced meanwhile",
                ))
            })?;
            // Otherwise its worker was faster.
            if job.job.is_none() {
                job.job = Some(id);
                job.write(run.path())?;
            }
            Ok(job)
        }
        Err(error) => {
            match before {
                Some(bytes) => replace_file(&facts, &bytes)?,
                None => [&facts, &script]
                    .into_iter()
                    .for_each(|path| drop(std::fs::remove_file(path))),
            }
            Err(error)
        }
    }
}

fn sbatch(run: &RunDirectory, script: &Path) -> Result<u64, RunError> {
    let mut command = Command::new("sbatch");
    command
        .arg("--parsable")
        .arg(format!("--job-name={}", run.id()));
    // As two arguments: the path need not be UTF-8.
    command.arg("--chdir").arg(run.path()).arg(script);
    for variable in OVERRIDING {
        command.env_remove(variable);
    }
    let text = call("sbatch", &mut command)?;
    // Followed by a semicolon and the cluster's name, where there are several.
    let id = text.trim().split(';').next().and_then(|id| id.parse().ok());
    id.ok_or_else(|| RunError::Slurm {
        program: "sbatch",
        message: format!("answered `{}`, which is not a job id", text.trim()),
    })
}
