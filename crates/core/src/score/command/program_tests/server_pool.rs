//! Warm interpreters that wait for an answer.

use std::sync::{Mutex, PoisonError};

use super::super::CommandRules;
use super::cases::Case;
use super::server::{Reply, Server};
use crate::sandbox::{Lost, ProgramFiles};

#[derive(Debug, Default)]
pub(in crate::score::command) struct ServerPool(Mutex<Vec<Server>>);

impl ServerPool {
    /// Puts the cases of an answer to a server; once more to a new one where the first ends, since the machine may have ended it.
    ///
    /// # Errors
    /// A sentence: no server starts.
    pub(super) fn ask(
        &self,
        rules: &CommandRules,
        files: &ProgramFiles,
        source: &str,
        cases: &[Case<'_>],
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Result<Vec<Reply>, Lost>, String> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut server = match idle {
            Some(server) => server,
            None => Server::start(rules, files, keep_going)?,
        };
        let mut replied = server.ask(rules, source, cases, keep_going);
        if matches!(replied, Err(Lost::Ended(_))) {
            server = Server::start(rules, files, keep_going)?;
            replied = server.ask(rules, source, cases, keep_going);
        }
        Ok(replied.map(|(replies, is_clean)| {
            if is_clean {
                self.0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(server);
            }
            replies
        }))
    }
}
