//! A teacher on an endpoint: returns log-probs of the student's token ids.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::TrainError;
use crate::api_client::{FrozenEndpoint, TeacherClient};
use crate::config::TrainConfig;
use crate::rollout::ThreadPool;
use crate::secrets::scan;
use crate::text::Tokenizer;
use crate::update::PolicyGroup;

/// Share of a step's completions that may remain unanswered; more end the run.
const MAX_FAILED: f64 = 0.1;
/// Consecutive failures (or the concurrency, if higher) after which the rest of the step is not
/// asked.
const MAX_CONSECUTIVE_FAILURES: usize = 8;
const TICK: Duration = Duration::from_millis(20);
/// Token ids, spread over the vocabulary, whose texts the server tokenizes for comparison.
const PROBED_TOKENS: usize = 512;
/// Digits, white space, cases, scripts, and characters that no tokenizer has as one token.
const PROBE: &str = "The total is 1,234.50 EUR  (due 2024-03-11)\n\n\tfn main() { println!(\"\u{e9}\u{4e2d}\u{6587} \u{1f980} ok\"); } don't STOP";

#[derive(Debug)]
pub(super) struct EndpointTeacher {
    client: TeacherClient,
    name: String,
}

/// A completion for the teacher.
struct Reading {
    group: usize,
    sample: usize,
    /// Tokens of prompt and completion.
    token_ids: Vec<u32>,
    prompt_tokens: usize,
}

impl EndpointTeacher {
    /// The run's endpoint teacher; `None` for other runs, and before its definition is recorded.
    /// Compares its tokenizer with the student's.
    ///
    /// # Errors
    /// [`TrainError::TeacherEndpoint`] if it cannot be asked; [`TrainError::OtherTokenizer`].
    pub(super) fn of(
        config: &TrainConfig,
        student: &Tokenizer,
    ) -> Result<Option<Self>, TrainError> {
        let Some(frozen) = config.teacher_endpoint().and_then(FrozenEndpoint::parse) else {
            return Ok(None);
        };
        let name = frozen.name().to_owned();
        let unusable = |problem: String| TrainError::TeacherEndpoint {
            name: name.clone(),
            problem,
        };
        let endpoint = frozen.endpoint(|variable| std::env::var_os(variable));
        let endpoint = endpoint.map_err(|error| unusable(error.to_string()))?;
        let client = TeacherClient::new(&endpoint).map_err(|error| unusable(error.to_string()))?;
        let step = (student.vocab_size() / PROBED_TOKENS).max(1);
        let spread = (0..student.vocab_size() as u32).step_by(step);
        let texts = spread
            .map(|id| student.decode(&[id], true))
            .collect::<Result<Vec<_>, _>>()?;
        let probe = format!("{PROBE} {}", texts.join(" "));
        let own = student.encode(&probe)?;
        let wait = |pause| {
            std::thread::sleep(pause);
            true
        };
        let found = client
            .tokenize(&probe, wait)
            .map_err(|failed| unusable(format!("{} (/tokenize)", failed.reason)))?;
        let at = (0..own.len().max(found.token_ids.len()))
            .find(|at| own.get(*at) != found.token_ids.get(*at));
        if let Some(at) = at {
            let shown = |id: Option<&u32>| id.map_or_else(|| "none".to_owned(), u32::to_string);
            let (expected, found) = (shown(own.get(at)), shown(found.token_ids.get(at)));
            return Err(TrainError::OtherTokenizer {
                name,
                at,
                found,
                expected,
            });
        }
        match found
            .max_model_len
            .filter(|most| *most < config.max_seq_len)
        {
            Some(most) => {
                let problem = format!(
                    "it reads {most} tokens, and max_seq_len = {}: lower max_seq_len",
                    config.max_seq_len
                );
                Err(unusable(problem))
            }
            None => Ok(Some(Self { client, name })),
        }
    }

    /// Sets the teacher's log-probs of distilled completions; returns the number without an answer,
    /// which are not distilled.
    ///
    /// # Errors
    /// [`TrainError::TeacherErrors`] if there are too many.
    pub(super) fn read(
        &self,
        groups: &mut [PolicyGroup<'_>],
        tokenizer: &Tokenizer,
        threads: &ThreadPool,
    ) -> Result<usize, TrainError> {
        let mut readings = Vec::new();
        let mut found: Vec<Vec<Vec<f32>>> = groups
            .iter()
            .map(|group| vec![Vec::new(); group.samples.len()])
            .collect();
        for (group, read) in groups.iter().map(PolicyGroup::for_teacher).enumerate() {
            let mut read_before = read.prompt.to_vec();
            for (sample, completion) in read
                .samples
                .iter()
                .enumerate()
                .filter(|(_, read)| !read.token_ids.is_empty())
            {
                match &completion.follows {
                    Some(follows) => read_before.extend_from_slice(follows),
                    None => read_before.truncate(read.prompt.len()),
                }
                let prompt_tokens = read_before.len();
                read_before.extend_from_slice(&completion.token_ids);
                readings.push(Reading {
                    group,
                    sample,
                    token_ids: read_before.clone(),
                    prompt_tokens,
                });
            }
        }
        let answers = self.ask_all(&readings, tokenizer, threads);
        threads.check()?;
        let mut failures = Vec::new();
        for (Reading { group, sample, .. }, answer) in readings.iter().zip(answers) {
            match answer {
                Ok(log_probs) => found[*group][*sample] = log_probs,
                Err(reason) => failures.push(reason),
            }
        }
        if failures.len() as f64 > MAX_FAILED * readings.len() as f64 {
            let (failed, all) = (failures.len(), readings.len());
            return Err(TrainError::TeacherErrors {
                name: self.name.clone(),
                failed,
                all,
                reason: failures.remove(0),
            });
        }
        groups
            .iter_mut()
            .zip(found)
            .for_each(|(group, log_probs)| group.set_teacher(log_probs));
        Ok(failures.len())
    }

    /// Log-probs per reading's completion, or why there are none.
    fn ask_all(
        &self,
        readings: &[Reading],
        tokenizer: &Tokenizer,
        threads: &ThreadPool,
    ) -> Vec<Result<Vec<f32>, String>> {
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let most = self.client.concurrency().max(MAX_CONSECUTIVE_FAILURES);
        let not_asked = Err("the teacher was not asked any more".to_owned());
        let answers = Mutex::new(vec![not_asked; readings.len()]);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(reading) = readings.get(index) else {
                    return;
                };
                if threads.check().is_err() || failed.load(Ordering::Relaxed) >= most {
                    return;
                }
                let answer = self.ask(index, reading, tokenizer, threads);
                match &answer {
                    Ok(_) => failed.store(0, Ordering::Relaxed),
                    Err((_, of_all)) => {
                        _ = failed.fetch_add(if *of_all { most } else { 1 }, Ordering::Relaxed)
                    }
                }
                answers.lock()[index] = answer.map_err(|(reason, _)| reason);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.client.concurrency().min(readings.len()) {
                scope.spawn(work);
            }
        });
        answers.into_inner()
    }

    /// Log-probs, or the reason and whether all others would fail alike.
    fn ask(
        &self,
        index: usize,
        reading: &Reading,
        tokenizer: &Tokenizer,
        threads: &ThreadPool,
    ) -> Result<Vec<f32>, (String, bool)> {
        let text = tokenizer
            .decode(&reading.token_ids, false)
            .map_err(|error| (error.to_string(), false))?;
        if let Some(secret) = scan(&text).into_iter().next() {
            let what = format!("{}, {}", secret.rule, secret.masked);
            return Err((
                format!(
                    "prompt or completion holds what looks like a secret ({what}); it was not sent"
                ),
                false,
            ));
        }
        let pause = |wait: Duration| {
            let end = Instant::now() + wait;
            while threads.check().is_ok() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return true;
                }
                std::thread::sleep(left.min(TICK));
            }
            false
        };
        let asked =
            self.client
                .log_probs(index, (&reading.token_ids, reading.prompt_tokens), pause);
        asked.map_err(|failed| (failed.reason, failed.of_all))
    }
}
