//! Judges by a program of the user's: a pool of processes that answer JSON lines, one process a completion, or a
//! linter or compiler of the answer's code.

mod answer;
mod code;
mod definition;
mod pool;
mod process;
mod program_files;
mod sandbox;
mod scratch;
mod single_run;
mod suppressions;
mod trial;
mod trust;
mod whole_run;

pub(super) use definition::{CODE, KIND};
pub use definition::{CodeRules, CommandMode, CommandRules, FILE_ARGUMENT};
pub use sandbox::{Isolation, isolation, launch_if_asked};
use suppressions::suppressed_answer;
pub use trial::Trial;
pub use trust::{Trust, TrustError};

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::ScoreError;
use super::definition::Judge;
use super::json::Places;
use super::judge::think_leak;
use super::verdict::Verdict;
use crate::dataset::PromptRow;
use crate::task::Task;
use pool::Pool;
use program_files::ProgramFiles;

/// Answers that are remembered; then all are forgotten.
const MAX_CACHED_VERDICTS: usize = 65_536;

type Key = [u8; 16];

/// A trusted scoring program, and its running processes.
#[derive(Debug)]
pub(crate) struct CommandScorer {
    rules: CommandRules,
    files: ProgramFiles,
    pool: Pool,
    known: Mutex<HashMap<Key, Verdict>>,
}

/// One question to the program.
#[derive(Debug)]
struct Question<'r> {
    /// `"completion": ..., "row": ...` as JSON, without braces.
    json: String,
    completion: String,
    row: String,
    /// The row's, where that is a text.
    expected: Option<&'r str>,
}

impl CommandScorer {
    /// # Errors
    /// [`ScoreError::Untrusted`] where the user has not said that this program may run,
    /// [`ScoreError::NotInstalled`] where it is not on this machine.
    fn new(task: &Task, rules: &CommandRules) -> Result<Self, ScoreError> {
        let folder = match task.folder() {
            Some(folder) => folder,
            // Code is checked in a folder of its own.
            None if rules.files.is_empty() && matches!(rules.mode, CommandMode::Code(_)) => Path::new(""),
            None => {
                return Err(ScoreError::Reference {
                    label: task.label(crate::task::TASK_FILE),
                    message: "a command runs in a task's folder: copy the task into one".to_owned(),
                });
            }
        };
        Ok(Self::trusted(rules, ProgramFiles::new(folder, trust::check(task, rules)?)))
    }

    fn trusted(rules: &CommandRules, files: ProgramFiles) -> Self {
        Self { rules: rules.clone(), files, pool: Pool::new(rules.width()), known: Mutex::default() }
    }

    /// Judges answers, in order; `None` once `keep_going` returns false.
    fn judge_all(
        &self,
        answers: &[(&str, Option<&PromptRow>)],
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let questions: Vec<Question<'_>> = answers.iter().map(|(answer, row)| Question::new(answer, *row)).collect();
        let keys: Vec<Key> = questions.iter().map(Question::key).collect();
        let mut found: Vec<Option<Verdict>> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().map(|key| known.get(key).filter(|_| !is_doubted(key)).cloned()).collect()
        };
        // The same answer to the same prompt is asked once.
        let mut asked: HashMap<Key, usize> = HashMap::new();
        for (place, key) in keys.iter().enumerate().filter(|(place, _)| found[*place].is_none()) {
            asked.entry(*key).or_insert(place);
        }
        let mut places: Vec<usize> = asked.values().copied().collect();
        places.sort_unstable();
        let texts: Vec<&Question<'_>> = places.iter().map(|place| &questions[*place]).collect();
        let replies = match &self.rules.mode {
            CommandMode::Lines => self.pool.ask_all(&self.rules, &self.files, &texts, keep_going)?,
            CommandMode::ExitCode | CommandMode::Code(_) => {
                single_run::run_all(&self.rules, &self.files, &texts, keep_going)?
            }
        };
        // Those of programs that were ended for it say nothing.
        if !keep_going() {
            return None;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + replies.len() > MAX_CACHED_VERDICTS {
            known.clear();
        }
        for (place, verdict) in places.iter().zip(replies) {
            let verdict = agreed(known.get(&keys[*place]), verdict);
            // A failure may pass.
            if !verdict.is_error() {
                known.insert(keys[*place], verdict.clone());
            }
            found[*place] = Some(verdict);
        }
        let of_twin = |place: usize| found[*asked.get(&keys[place])?].clone();
        Some(
            (0..found.len())
                .map(|place| found[place].clone().or_else(|| of_twin(place)).unwrap_or_else(unanswered))
                .collect(),
        )
    }
}

impl Judge for CommandScorer {
    fn judge(&self, completion: &str, from: usize, is_stripped: bool, row: Option<&PromptRow>) -> Verdict {
        let alone = self.judge_together(&[(completion, from, row)], is_stripped, &|| true);
        alone.and_then(|verdicts| verdicts.into_iter().next()).unwrap_or_else(unanswered)
    }

    fn asks_together(&self) -> bool {
        true
    }

    fn judge_together(
        &self,
        completions: &[(&str, usize, Option<&PromptRow>)],
        is_stripped: bool,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let leak = |(completion, from, row): &(&str, usize, Option<&PromptRow>)| {
            think_leak(completion, *from, is_stripped, row.and_then(|row| row.expected.as_ref()))
        };
        let leaks: Vec<Option<Verdict>> = completions.iter().map(leak).collect();
        let asked = completions.iter().zip(&leaks).filter(|(_, leak)| leak.is_none());
        let starts: Vec<_> = asked.clone().map(|((text, from, _), _)| Places::new(text).locate(*from)).collect();
        let asked: Vec<_> = asked.map(|((text, from, row), _)| (text.get(*from..).unwrap_or_default(), *row)).collect();
        let verdicts = self.judge_all(&asked, keep_going)?;
        let mut verdicts = verdicts.into_iter().zip(starts).map(|(mut verdict, start)| {
            verdict.errors.iter_mut().for_each(|reason| reason.move_to(start));
            verdict
        });
        Some(leaks.into_iter().map(|leak| leak.or_else(|| verdicts.next()).unwrap_or_else(unanswered)).collect())
    }

    /// Code is its own completion; of other programs only they know.
    fn completion_of(&self, expected: &serde_json::Value) -> Option<String> {
        let is_code = matches!(self.rules.mode, CommandMode::Code(_));
        expected.as_str().filter(|_| is_code).map(str::to_owned)
    }

    fn program(&self) -> Option<&CommandScorer> {
        Some(self)
    }
}

impl<'r> Question<'r> {
    fn new(answer: &str, row: Option<&'r PromptRow>) -> Self {
        let expected = row.and_then(|row| row.expected.as_ref()).and_then(serde_json::Value::as_str);
        let row = match row {
            None => "null".to_owned(),
            Some(row) if row.fields.is_empty() => {
                serde_json::json!({"id": row.id, "expected": row.expected}).to_string()
            }
            Some(row) => serde_json::to_string(&row.fields).unwrap_or_default(),
        };
        let completion = serde_json::to_string(answer).unwrap_or_default();
        Self {
            json: format!("\"completion\":{completion},\"row\":{row}"),
            completion: answer.to_owned(),
            row,
            expected,
        }
    }

    fn key(&self) -> Key {
        let digest = Sha256::digest(self.json.as_bytes());
        let mut key = Key::default();
        key.copy_from_slice(&digest[..16]);
        key
    }
}

/// Whether a question is asked again although its answer is known: one in 64 tells of a program that answers at random.
fn is_doubted(key: &Key) -> bool {
    key[0] < 4
}

/// The verdict, unless the program gave another one before.
fn agreed(earlier: Option<&Verdict>, now: Verdict) -> Verdict {
    let told = |verdict: &Verdict| (verdict.tier, verdict.reward, verdict.failure);
    match earlier {
        Some(earlier) if !now.is_error() && told(earlier) != told(&now) => {
            let named = |verdict: &Verdict| {
                let score = verdict.reward.map_or_else(String::new, |score| format!(" ({score})"));
                format!("{}{score}", verdict.tier.name())
            };
            failed(&format!("the scorer is nondeterministic: {} before, {} now", named(earlier), named(&now)))
        }
        _ => now,
    }
}

/// A completion whose score is not known, because the program failed.
pub(super) fn failed(why: &str) -> Verdict {
    Verdict::failed(why.to_owned(), ("", 0))
}

fn unanswered() -> Verdict {
    failed("the scorer gave no answer")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
