//! Stores answers as they end, so that a retry of an interrupted eval only samples the rest.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::super::{Completion, Request, StopReason};
use crate::run::{AnswerLog, RunError, sha256};

/// Answers of an interrupted eval, and the log for new ones.
#[derive(Debug)]
pub struct KeptAnswers {
    log: AnswerLog,
    /// What answers depend on besides requests: weights, sampling, program.
    key: String,
    /// Answers by request digest, then by sample.
    known: HashMap<String, BTreeMap<u32, Completion>>,
    /// Whether groups decoded together are either fully known or sampled together: results then
    /// equal an uninterrupted eval's bit for bit.
    is_exact: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredAnswer {
    /// Digest of key and request.
    question: String,
    sample: u32,
    token_ids: Vec<u32>,
    stop: StopReason,
}

impl KeptAnswers {
    /// Ignores lines of other evals or programs.
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

    /// Identifies a request across evals.
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

    /// Whether these requests, decoded together, need not be sampled: with exact results only if
    /// all are known, and none is followed by others.
    pub(crate) fn serves(&self, requests: &[Request], are_followed: bool) -> bool {
        let is_known = |request: &Request| {
            self.completions(&self.digest(request), request.samples)
                .is_some()
        };
        !self.is_exact || (!are_followed && requests.iter().all(is_known))
    }

    /// All completions of a request, if known.
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
        // Serialising numbers and short names cannot fail.
        serde_json::to_string(&line).map_or(Ok(()), |line| self.log.append(&line))
    }

    /// Removes the log once its answers are recorded elsewhere.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn remove(&self) -> Result<(), RunError> {
        self.log.remove()
    }
}
