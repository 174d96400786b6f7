//! Slurm's own commands: called without a shell, and their errors named.

use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use crate::run::error::RunError;
use crate::run::subprocess::output_within;

/// How long a controller may take; Slurm's commands wait about as long themselves.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a command's output.
///
/// # Errors
/// [`RunError::NoSlurm`] where it is not installed, [`RunError::Slurm`] with what it says.
pub(super) fn call(program: &'static str, command: &mut Command) -> Result<String, RunError> {
    // Times as they are read here.
    let printed = match output_within(command.env("SLURM_TIME_FORMAT", "standard"), COMMAND_TIMEOUT) {
        Ok(printed) => printed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(RunError::NoSlurm { program }),
        Err(error) => return Err(RunError::Slurm { program, message: error.to_string() }),
    };
    if printed.is_success {
        return Ok(printed.stdout);
    }
    let own = |line: &str| line.trim().trim_start_matches(&format!("{program}: ")).to_owned();
    let mut lines: Vec<String> = printed.stderr.lines().map(own).filter(|line| !line.is_empty()).collect();
    lines.dedup();
    let message = if lines.is_empty() { "it failed without a message".to_owned() } else { lines.join("; ") };
    Err(RunError::Slurm { program, message })
}
