//! Answers on disk as they end, so that the next attempt at an interrupted eval asks for the rest alone.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::model::Decoder;
use crate::rollout::{Completion, EndedCompletion, Request, StopReason, decoded_together};
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
        for line in lines.iter().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let Line { question, sample, token_ids, stop } = line;
            // Evals use no log-probs.
            let completion = Completion::new(token_ids, Vec::new(), stop);
            known.entry(question).or_default().insert(sample, completion);
        }
        Self { log, key: key.into(), known, is_exact }
    }

    fn question(&self, request: &Request) -> String {
        let Request { prompt, prompt_number, step, samples, first_sample, greedy, .. } = request;
        let text = format!("{} {prompt_number} {step} {samples} {first_sample} {greedy} {prompt:?}", self.key);
        sha256(text.as_bytes())[..16].to_owned()
    }

    /// The completions of a request, where it has all of them.
    fn completions(&self, request: &Request) -> Option<Vec<Completion>> {
        let known = self.known.get(&self.question(request))?;
        (known.len() == request.samples).then(|| known.values().cloned().collect())
    }

    pub(super) fn append(
        &self,
        EndedCompletion { request, sample, completion }: &EndedCompletion,
    ) -> Result<(), RunError> {
        let (token_ids, stop) = (completion.token_ids.clone(), completion.stop);
        let line = Line { question: self.question(request), sample: *sample, token_ids, stop };
        // Numbers and short names are always JSON.
        serde_json::to_string(&line).map_or(Ok(()), |line| self.log.append(&line))
    }

    /// Removes the log, whose answers are recorded elsewhere by now.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn remove(self) -> Result<(), RunError> {
        self.log.remove()
    }
}

/// What is known of the completions of an eval, and what is asked for.
#[derive(Debug)]
pub(super) struct OpenRequests {
    /// By request; `None`: to be sampled.
    known: Vec<Option<Vec<Completion>>>,
    pub requests: Vec<Request>,
}

impl OpenRequests {
    pub(super) fn new(model: &Decoder, requests: &[Request], kept: Option<&KeptAnswers>) -> Self {
        let parts = match kept {
            Some(kept) if kept.is_exact => decoded_together(model, requests),
            _ => requests.iter().map(std::slice::from_ref).collect(),
        };
        let (mut known, mut open) = (Vec::new(), Vec::new());
        for part in parts {
            let mut found: Vec<_> = part.iter().map(|request| kept?.completions(request)).collect();
            if found.contains(&None) {
                found.fill(None);
                open.extend_from_slice(part);
            }
            known.append(&mut found);
        }
        Self { known, requests: open }
    }

    /// The known completions, by the index of their request.
    pub(super) fn known(&self) -> impl Iterator<Item = (usize, &Vec<Completion>)> {
        self.known.iter().enumerate().filter_map(|(index, known)| Some((index, known.as_ref()?)))
    }

    /// The number of known completions.
    pub(super) fn kept(&self) -> usize {
        self.known.iter().flatten().map(Vec::len).sum()
    }

    /// All completions by request; `sampled`: those of [`Self::requests`].
    pub(super) fn joined(self, sampled: Vec<Vec<Completion>>) -> Vec<Vec<Completion>> {
        let (mut all, mut sampled) = (Vec::with_capacity(self.known.len()), sampled.into_iter());
        for known in self.known {
            all.extend(if known.is_some() { known } else { sampled.next() });
        }
        all
    }
}
