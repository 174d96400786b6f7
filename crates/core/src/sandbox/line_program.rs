//! A sandboxed program that exchanges lines.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::process::{Process, WaitOutcome};
use super::program_files::ProgramFiles;
use super::scratch::PrivateFolder;

/// Startup time beyond the first answer's limit: an interpreter loads its modules.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Dropping it ends all that the program started.
#[derive(Debug)]
pub(crate) struct LineProgram {
    process: Process,
    lines: VecDeque<Vec<u8>>,
    /// Working folder.
    _copies: PrivateFolder,
}

#[derive(Debug)]
pub(crate) enum Lost {
    Ended(String),
    /// Timeout or cancellation.
    Late,
    /// Longer than the limit.
    TooLong,
}

impl LineProgram {
    pub(crate) fn start(
        files: &ProgramFiles,
        command: &[String],
        variables: &[(&str, &str)],
    ) -> Result<Self, String> {
        let copies = files.copies()?;
        let process = Process::start(&files.sandbox, &files.program(command, &copies, variables))?;
        Ok(Self {
            process,
            lines: VecDeque::new(),
            _copies: copies,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.process.send(bytes);
    }

    pub(crate) fn unsent(&self) -> usize {
        self.process.unsent()
    }

    /// The next line, without its end.
    pub(crate) fn line(
        &mut self,
        until: Instant,
        most_bytes: usize,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Lost> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return if line.len() > most_bytes {
                    Err(Lost::TooLong)
                } else {
                    Ok(line)
                };
            }
            let moved = self.process.transfer(until, keep_going);
            _ = self.process.lines(|line| {
                self.lines.push_back(line.to_vec());
                Ok::<_, ()>(())
            });
            if !self.lines.is_empty() {
                continue;
            }
            match moved {
                Ok(WaitOutcome::Some) if self.process.unread().len() <= most_bytes => {}
                Ok(WaitOutcome::Some) => return Err(Lost::TooLong),
                Ok(WaitOutcome::Ended) => {
                    return Err(Lost::Ended(self.process.last_words_with_remedy()));
                }
                Ok(WaitOutcome::Late) => return Err(Lost::Late),
                Err(error) => return Err(Lost::Ended(format!("loses its pipes: {error}"))),
            }
        }
    }
}
