//! Answers on disk as they end, so that the next attempt at an interrupted eval asks for the rest alone.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::rollout::{Completion, Request, StopReason};
use crate::run::{AnswerLog, RunError, sha256};

/// The answers that an interrupted eval has left, and the log to which new ones are appended.
#[derive(Debug)]
pub struct KeptAnswers {
    log: AnswerLog,
    /// What answers depend on besides their requests: weights, sampling, program.
    key: String,
    /// By question, then by sample.
    known: HashMap<String, BTreeMap<u32, Completion>>,
    /// Whether answers that were decoded together are known or sampled together: then results are those of an eval
    /// without an interruption, bit for bit.
    is_exact: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
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
        for line in lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        {
            let Line {
                question,
                sample,
                token_ids,
                stop,
            } = line;
            // Evals use no log-probs.
            let completion = Completion::new(token_ids, Vec::new(), stop);
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

    fn question(&self, request: &Request) -> String {
        let Request {
            prompt,
            prompt_number,
            step,
            samples,
            first_sample,
            greedy,
            ..
        } = request;
        let text = format!(
            "{} {prompt_number} {step} {samples} {first_sample} {greedy} {prompt:?}",
            self.key
        );
        sha256(text.as_bytes())[..16].to_owned()
    }

    /// Whether these requests, which are decoded together, need not be sampled: where results are exact all or none of them
    /// are known, and none that others follow.
    pub(super) fn serves<'r>(
        &self,
        mut requests: impl Iterator<Item = &'r Request>,
        are_followed: bool,
    ) -> bool {
        !self.is_exact
            || (!are_followed && requests.all(|request| self.completions(request).is_some()))
    }

    /// The completions of a request, where it has all of them.
    pub(super) fn completions(&self, request: &Request) -> Option<Vec<Completion>> {
        let known = self.known.get(&self.question(request))?;
        (known.len() == request.samples).then(|| known.values().cloned().collect())
    }

    pub(super) fn append(
        &self,
        request: &Request,
        sample: u32,
        completion: &Completion,
    ) -> Result<(), RunError> {
        let (token_ids, stop) = (completion.token_ids.clone(), completion.stop);
        let line = Line {
            question: self.question(request),
            sample,
            token_ids,
            stop,
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
