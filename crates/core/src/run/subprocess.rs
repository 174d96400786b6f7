//! Programs of the system that are asked for a short answer, within a time.

use std::io::{Error, ErrorKind, Read, Result};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::score::given_threads;

/// A program's output, and whether it succeeded.
#[derive(Debug)]
pub(super) struct CommandOutput {
    pub(super) is_success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a command to its end; after `longest` it is killed.
///
/// # Errors
/// [`ErrorKind::NotFound`] without the program, [`ErrorKind::TimedOut`] after `longest`.
pub(super) fn output_within(command: &mut Command, longest: Duration) -> Result<CommandOutput> {
    let begun = Instant::now();
    command.envs(given_threads()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // Beside the wait: a full pipe would keep the program from its end.
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if begun.elapsed() < longest => std::thread::sleep(Duration::from_millis(5)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::new(ErrorKind::TimedOut, format!("no answer within {} s", longest.as_secs())));
            }
        }
    };
    let text = |reader: std::thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ok(CommandOutput { is_success: status.success(), stdout: text(stdout), stderr: text(stderr) })
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Output read before an error counts.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
