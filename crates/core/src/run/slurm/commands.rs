//! Slurm's own commands: called without a shell, within a time, and their errors named.

use std::io::{Error, ErrorKind, Read, Result};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::run::error::RunError;
use crate::score::given_threads;

/// How long a controller may take; Slurm's commands wait about as long themselves.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a command's output.
///
/// # Errors
/// [`RunError::NoSlurm`] where it is not installed, [`RunError::Slurm`] with what it says.
pub(super) fn call(
    program: &'static str,
    command: &mut Command,
) -> std::result::Result<String, RunError> {
    // Times as they are read here.
    let (status, [stdout, stderr]) = match output_within(
        command.env("SLURM_TIME_FORMAT", "standard"),
        COMMAND_TIMEOUT,
    ) {
        Ok(printed) => printed,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(RunError::NoSlurm { program });
        }
        Err(error) => {
            return Err(RunError::Slurm {
                program,
                message: error.to_string(),
            });
        }
    };
    if status.success() {
        return Ok(stdout);
    }
    let own = |line: &str| {
        line.trim()
            .trim_start_matches(&format!("{program}: "))
            .to_owned()
    };
    let mut lines: Vec<String> = stderr
        .lines()
        .map(own)
        .filter(|line| !line.is_empty())
        .collect();
    lines.dedup();
    let message = if lines.is_empty() {
        "it failed without a message".to_owned()
    } else {
        lines.join("; ")
    };
    Err(RunError::Slurm { program, message })
}

fn output_within(command: &mut Command, longest: Duration) -> Result<(ExitStatus, [String; 2])> {
    let begun = Instant::now();
    command
        .envs(given_threads())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // Beside the wait: a full pipe would keep the program from its end.
    let readers = [reader(child.stdout.take()), reader(child.stderr.take())];
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if begun.elapsed() < longest => std::thread::sleep(Duration::from_millis(5)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!("no answer within {} s", longest.as_secs()),
                ));
            }
        }
    };
    Ok((
        status,
        readers.map(|reader| reader.join().unwrap_or_default()),
    ))
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Output read before an error counts.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
