//! Answers on disk as they end, so that the next attempt at an interrupted eval asks for the rest alone.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::super::{Completion, Request, StopReason};
use crate::run::{AnswerLog, RunError, sha256};

/// The answers that an interrupted eval has left, and the log to which new ones are appended.
#[derive(Debug)]
pub struct KeptAnswers {
    log: AnswerLog,
    /// What answers depend on besides their requests: weights, sampling, program.
    key: String,
    /// By digest of the request, then by sample.
    known: HashMap<String, BTreeMap<u32, Completion>>,
    /// Whether answers that were decoded together are known or sampled together: then results are those of an eval
    /// without an interruption, bit for bit.
    is_exact: bool,
}

/// A line of the log.
#[derive(Serialize, Deserialize)]
struct StoredAnswer {
    /// The digest of key and request.
    question: String,
    sample: u32,
    token_ids: Vec<u32>,
    stop: StopReason,
}

impl KeptAnswers {
    /// A line of another eval, or of another program, is no answer.
    pub fn new(log: AnswerLog, lines: &[String], key: impl Into<String>, is_exact: bool) -> Self {
        let mut known: HashMap<String, BTreeMap<u32, Completion>> = HashMap::new();
        let lines = lines.iter().map(|line| serde_json::from_str(line));
        for line in lines.flatten() {
            let StoredAnswer {
                question, sample, ..
            } = line;
            // Evals use no log-probs.
            let completion = Completion::new(line.token_ids, Vec::new(), line.stop);
            known
                .entry(question)
                .or_default()
                .insert(sample, completion);
        }
        Self {
            log,
            key: key.into(),
            known,
            is_exact,
        }
    }

    /// Identifies a request among those of all evals.
    pub(super) fn digest(&self, request: &Request) -> String {
        let Request {
            prompt,
            prompt_number,
            step,
            samples,
            first_sample,
            greedy,
            ..
        } = request;
        let key = &self.key;
        let text =
            format!("{key} {prompt_number} {step} {samples} {first_sample} {greedy} {prompt:?}");
        sha256(text.as_bytes())[..16].to_owned()
    }

    /// Whether these requests, which are decoded together, need not be sampled: where results are exact all or none of them
    /// are known, and none that others follow.
    pub(crate) fn serves(&self, requests: &[Request], are_followed: bool) -> bool {
        let is_known = |request: &Request| {
            self.completions(&self.digest(request), request.samples)
                .is_some()
        };
        !self.is_exact || (!are_followed && requests.iter().all(is_known))
    }

    /// The completions of a request, where it has all of them.
    pub(super) fn completions(&self, digest: &str, samples: usize) -> Option<Vec<Completion>> {
        let known = self.known.get(digest)?;
        (known.len() == samples).then(|| known.values().cloned().collect())
    }

    pub(super) fn append(
        &self,
        digest: String,
        sample: u32,
        completion: &Completion,
    ) -> Result<(), RunError> {
        let line = StoredAnswer {
            question: digest,
            sample,
            token_ids: completion.token_ids.clone(),
            stop: completion.stop,
        };
        // Numbers and short names are always JSON.
        serde_json::to_string(&line).map_or(Ok(()), |line| self.log.append(&line))
    }

    /// Removes the log, whose answers are recorded elsewhere by now.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn remove(&self) -> Result<(), RunError> {
        self.log.remove()
    }
}
