//! Asks the scoring program, and caches its verdicts.

use std::collections::HashMap;
use std::path::Path;

use parking_lot::Mutex;

use super::answer::{self, failed};
use super::pool::Pool;
use super::program_tests::TestedWith;
use super::program_tests::server::ServerPool;
use super::question::{Key, Question};
use super::whole_run::Output;
use super::{program_tests, single_run};
use crate::dataset::PromptRow;
use crate::sandbox::{ProgramFiles, machine};
use crate::score::answer::json::Places;
use crate::score::definition::Judge;
use crate::score::error::ScoreError;
use crate::score::needs::{CommandMode, CommandRules, trust};
use crate::score::verdict::{Attempt, Sampled, Score, Trial, Verdict};
use crate::task::TaskFiles;

/// The cache is cleared when full.
const MAX_CACHED_VERDICTS: usize = 65_536;

/// A trusted scoring program and its running processes.
#[derive(Debug)]
pub(super) struct CommandScorer {
    pub(super) rules: CommandRules,
    pub(super) files: ProgramFiles,
    pub(super) pool: Pool,
    pub(super) servers: ServerPool,
    pub(super) known: Mutex<HashMap<Key, Verdict>>,
    /// Where the run is, for a function that asks for it.
    trainer_state: Mutex<Option<String>>,
}

impl CommandScorer {
    /// # Errors
    /// [`ScoreError::Untrusted`] for a program the user has not allowed,
    /// [`ScoreError::NotInstalled`] if it is missing, [`ScoreError::NotIsolated`] if the machine
    /// lacks the required isolation.
    pub(super) fn new(task: &TaskFiles, rules: &CommandRules) -> Result<Self, ScoreError> {
        let folder = match task.folder() {
            Some(folder) => folder,
            // Code is checked in its own folder.
            None if rules.files.is_empty() && rules.takes_code() => Path::new(""),
            None => {
                return Err(ScoreError::Reference {
                    label: task.label(crate::task::TASK_FILE),
                    message: "a command runs in a task's folder: copy the task into one".to_owned(),
                });
            }
        };
        let (files, programs) = trust::check(task, rules)?;
        let not_isolated = || ScoreError::NotIsolated {
            task: task.name.clone(),
            text: rules.isolation_text(),
        };
        let level = rules.level(machine().level).ok_or_else(not_isolated)?;
        Ok(Self::trusted(
            rules,
            ProgramFiles::new(folder, files, programs, rules.sandbox(folder, level)),
        ))
    }

    fn trusted(rules: &CommandRules, files: ProgramFiles) -> Self {
        Self {
            rules: rules.clone(),
            files,
            pool: Pool::new(rules.width()),
            servers: ServerPool::default(),
            known: Mutex::default(),
            trainer_state: Mutex::default(),
        }
    }

    /// Judges answers in order; `None` once `keep_going` returns false.
    fn judge_all(
        &self,
        answers: &[Sampled<'_>],
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let state = self.trainer_state.lock().clone();
        let questions: Vec<Question<'_>> = answers
            .iter()
            .map(|(answer, row, ids)| Question::new(answer, *row).sampled(ids, state.as_deref()))
            .collect();
        let keys: Vec<Key> = questions.iter().map(Question::key).collect();
        let mut found: Vec<Option<Verdict>> = {
            let known = self.known.lock();
            keys.iter()
                .map(|key| known.get(key).filter(|_| !self.is_doubted(key)).cloned())
                .collect()
        };
        // Equal answers to equal prompts are judged once.
        let mut asked: HashMap<Key, usize> = HashMap::new();
        for (place, key) in keys
            .iter()
            .enumerate()
            .filter(|(place, _)| found[*place].is_none())
        {
            asked.entry(*key).or_insert(place);
        }
        let mut places: Vec<usize> = asked.values().copied().collect();
        places.sort_unstable();
        let texts: Vec<&Question<'_>> = places.iter().map(|place| &questions[*place]).collect();
        let replies = match &self.rules.mode {
            CommandMode::Lines | CommandMode::Python(_) => {
                self.pool
                    .ask_all(&self.rules, &self.files, &texts, keep_going)?
            }
            CommandMode::ExitCode | CommandMode::Code(_) | CommandMode::Tests(_) => {
                let judge = |question: &Question<'_>| {
                    self.judge_alone(question, &mut Output::default(), keep_going)
                };
                single_run::run_all(self.rules.width(), &judge, &texts, keep_going)?
            }
        };
        // Verdicts of programs killed by cancellation are meaningless.
        if !keep_going() {
            return None;
        }
        let mut known = self.known.lock();
        if known.len() + replies.len() > MAX_CACHED_VERDICTS {
            known.clear();
        }
        for (place, verdict) in places.iter().zip(replies) {
            let verdict = answer::agreed(known.get(&keys[*place]), verdict);
            // A failure may be temporary.
            if !verdict.is_error() {
                known.insert(keys[*place], verdict.clone());
            }
            found[*place] = Some(verdict);
        }
        let of_twin = |place: usize| found[*asked.get(&keys[place])?].clone();
        Some(
            (0..found.len())
                .map(|place| {
                    found[place]
                        .clone()
                        .or_else(|| of_twin(place))
                        .unwrap_or_else(unanswered)
                })
                .collect(),
        )
    }
}

impl CommandScorer {
    /// Verdict of a new process, whose output is appended to `output`.
    pub(super) fn judge_alone(
        &self,
        question: &Question<'_>,
        output: &mut Output,
        keep_going: &dyn Fn() -> bool,
    ) -> Verdict {
        let Some(tests) = self.rules.tests() else {
            return single_run::judge(&self.rules, &self.files, question, output, keep_going);
        };
        let with = TestedWith {
            rules: &self.rules,
            files: &self.files,
            tests,
        };
        program_tests::check(with, &self.servers, question, keep_going)
            .unwrap_or_else(|why| failed(&why))
    }

    /// Re-asks 1 in 64 cached questions to detect nondeterministic scorers. Not for tests, where
    /// the answer itself may be random.
    fn is_doubted(&self, key: &Key) -> bool {
        key[0] < 4 && self.rules.tests().is_none()
    }
}

impl Judge for CommandScorer {
    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let alone = self.judge_together(&[attempt], &|| true);
        alone
            .and_then(|verdicts| verdicts.into_iter().next())
            .unwrap_or_else(unanswered)
    }

    fn judge_together(
        &self,
        attempts: &[Attempt<'_>],
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let leak = |attempt: &Attempt<'_>| attempt.think_leak(attempt.expected());
        let leaks: Vec<Option<Verdict>> = attempts.iter().map(leak).collect();
        let asked = attempts
            .iter()
            .zip(&leaks)
            .filter(|(_, leak)| leak.is_none());
        let starts: Vec<_> = asked
            .clone()
            .map(|(attempt, _)| Places::new(attempt.completion).locate(attempt.from))
            .collect();
        let asked: Vec<_> = asked
            .map(|(attempt, _)| (attempt.answer(), attempt.row, attempt.token_ids))
            .collect();
        let verdicts = self.judge_all(&asked, keep_going)?;
        let mut verdicts = verdicts
            .into_iter()
            .zip(starts)
            .map(|(mut verdict, start)| {
                verdict
                    .errors
                    .iter_mut()
                    .for_each(|reason| reason.move_to(start));
                verdict
            });
        Some(
            leaks
                .into_iter()
                .map(|leak| leak.or_else(|| verdicts.next()).unwrap_or_else(unanswered))
                .collect(),
        )
    }

    fn set_progress(&self, step: u64, max_steps: u64) {
        if self.files.mention("trainer_state") {
            *self.trainer_state.lock() = Some(Question::trainer_state(step, max_steps));
        }
    }

    fn row_problem(&self, row: &PromptRow) -> Option<String> {
        self.rules.tests()?;
        program_tests::row_problem(row)
    }

    /// Code is its own completion; for other programs it is unknown.
    fn completion_of(
        &self,
        expected: &serde_json::Value,
        _row: Option<&PromptRow>,
    ) -> Option<String> {
        expected
            .as_str()
            .filter(|_| self.rules.takes_code())
            .map(str::to_owned)
    }

    fn try_out(
        &self,
        answer: &str,
        row: Option<&PromptRow>,
        score: &dyn Fn(Verdict) -> Score,
    ) -> Option<Trial> {
        Some(self.ask_anew(answer, row, score))
    }
}

fn unanswered() -> Verdict {
    failed("the scorer gave no answer")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Tests of programs that answer, fail, hang, lie and write endlessly, in Python and shell.

    mod python;
    mod single_run;

    use super::*;
    use crate::score::verdict::FailureClass;

    /// A scorer with a changed configuration.
    fn scorer(
        program: &[&str],
        files: &[(&str, &str)],
        change: impl FnOnce(&mut CommandRules),
    ) -> (tempfile::TempDir, CommandScorer) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut rules = CommandRules {
            command: program.iter().map(|part| (*part).to_owned()).collect(),
            files: Vec::new(),
            mode: CommandMode::Lines,
            processes: 1,
            seconds: 10.0,
            memory_mib: 1_024,
            max_processes: None,
            output_kib: 64,
            isolation: None,
            read: Vec::new(),
        };
        change(&mut rules);
        let files = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect();
        let files = ProgramFiles::new(
            folder.path(),
            files,
            Vec::new(),
            rules.sandbox(folder.path(), machine().level),
        );
        let scorer = CommandScorer::trusted(&rules, files);
        (folder, scorer)
    }

    /// A Python program that answers each line, given `completion` and `question`.
    fn python(
        body: &str,
        change: impl FnOnce(&mut CommandRules),
    ) -> (tempfile::TempDir, CommandScorer) {
        let head = "import json, os, sys, time\nfor line in sys.stdin:\n    question = json.loads(line)\n    completion = question['completion']\n    answer = lambda **parts: print(json.dumps({'id': question['id'], **parts}), flush=True)\n";
        let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
        scorer(
            &["python3", "scorer.py"],
            &[("scorer.py", &(head.to_owned() + &body))],
            change,
        )
    }

    /// Tier, class and first reason of each answer, as `valid`, `invalid wrong_sum: why`.
    fn judged(scorer: &CommandScorer, completions: &[&str]) -> Vec<String> {
        let answers: Vec<_> = completions
            .iter()
            .map(|text| (*text, None, &[][..]))
            .collect();
        let shown = |verdict: &Verdict| {
            let class = verdict
                .failure
                .map_or_else(String::new, |class| format!(" {}", class.key()));
            let why = verdict
                .errors
                .first()
                .map(|reason| &reason.message)
                .or(verdict.warnings.first());
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            format!("{}{class}{why}", verdict.tier.name())
        };
        scorer
            .judge_all(&answers, &|| true)
            .unwrap()
            .iter()
            .map(shown)
            .collect()
    }

    #[test]
    #[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
    fn answers_are_verdicts_or_errors_of_the_scorer() {
        let check = |parts: &str, expected: &str| {
            let (_folder, scorer) = python(&format!("answer({parts})"), |_| {});
            assert_eq!(judged(&scorer, &["x"]), [expected], "{parts}");
        };
        check("tier='valid'", "valid");
        check(
            "tier='unparsable', failure='no_sum', reasons=['not a sum']",
            "unparsable no_sum: not a sum",
        );
        check(
            "tier='invalid', reasons=[{'message': 'E501', 'line': 3, 'column': 80}]",
            "invalid other: E501",
        );
        check("score=1", "valid");
        check("score=0.25, failure='wrong_type'", "invalid wrong_type");
        check("score=1.0000000000000002", "valid");
        check("score=-1e-10", "invalid other");
        check("tier='valid', exact=False", "valid wrong_value");
        check("tier='invalid', failure='a b'", "invalid other");
        check("tier='invalid', failure='scorer_error'", "invalid other");
        check(
            "score=1.5",
            "unparsable scorer_error: the scorer answered the score 1.5: it must be between 0 and 1",
        );
        check(
            "failure='x'",
            "unparsable scorer_error: the scorer answered neither `score` nor `tier`",
        );
        check(
            "error='no compiler'",
            "unparsable scorer_error: the scorer says: no compiler",
        );
        check(
            "score=1, metrics={'a/b': 1}",
            "unparsable scorer_error: the scorer answered the metric \"a/b\" = 1: it takes a name of letters, digits, `_` and `-`, and a number",
        );
    }

    #[test]
    #[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
    fn a_program_that_fails_loses_the_answers_that_it_held_and_no_other() {
        let check = |body: &str, expected: &str| {
            let (_folder, scorer) = python(
                &format!("if completion == 'bad':\n    {body}\nanswer(tier='valid')"),
                |rules| rules.seconds = if body == "time.sleep(60)" { 0.5 } else { 60.0 },
            );
            let found = judged(&scorer, &["a", "bad", "b", "c"]);
            assert_eq!(found[0], "valid", "{body}");
            assert!(found[1].contains(expected), "{body}: {found:?}");
            assert_eq!(found[2..], ["valid", "valid"], "{body}");
        };
        check(
            "sys.exit(3)",
            "scorer_error: the scorer ended with exit code 3",
        );
        check(
            "raise ValueError('why')",
            "the scorer ended with exit code 1: ValueError: why",
        );
        check("time.sleep(60)", "the scorer gave no answer within 0.5 s");
        check(
            "print('hello', flush=True); continue",
            "the scorer wrote a malformed answer",
        );
        check(
            "question['id'] = 77",
            "the scorer answered id 77, which is not pending",
        );
        check(
            "print('x' * 100_000, flush=True); time.sleep(60)",
            "the scorer wrote a line of more than 64 KiB",
        );
        check(
            "os.kill(os.getpid(), 9)",
            "the scorer was ended by signal 9",
        );
        check("x = bytearray(4 << 30)", "MemoryError");
        let (_folder, always) = python("sys.exit(1)", |_| {});
        let found = judged(&always, &["a", "b", "c", "d", "e"]);
        assert!(
            found[4].ends_with("exit code 1 (3 failures without an answer in between)"),
            "{found:?}"
        );
        let (_folder, absent) = scorer(&["no-such-program"], &[], |_| {});
        assert!(judged(&absent, &["a"])[0].contains("cannot start \"no-such-program\""));
    }

    #[test]
    #[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
    fn a_program_has_no_secrets_and_no_children_outlive_it() {
        assert!(
            std::env::var_os("CARGO_MANIFEST_DIR").is_some(),
            "cargo sets it for tests"
        );
        let seen = "answer(tier='valid', reasons=[f\"{'CARGO_MANIFEST_DIR' in os.environ} {os.listdir(os.environ['HOME'])}\"])";
        let (_folder, scorer) = python(seen, |_| {});
        assert_eq!(judged(&scorer, &["a"]), ["valid: False []"]);
    }

    #[test]
    #[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
    fn nothing_that_a_program_started_outlives_it() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let lock = std::fs::File::open(place.path()).unwrap();
        let hold = format!(
            "import fcntl\nheld = open({:?})\nfcntl.flock(held, fcntl.LOCK_SH)\n",
            place.path()
        );
        // A daemon: its own session, without a parent.
        let daemon = "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\nos.wait()\n";
        let check = |end: &str, expected: &str| {
            // The first answer may take a minute longer.
            let body =
                format!("{hold}{daemon}if completion == 'b':\n    {end}\nanswer(tier='valid')");
            let (_folder, scorer) = python(&body, |rules| {
                (rules.seconds, rules.read) = (3.0, vec![place.path().to_owned()])
            });
            assert_eq!(judged(&scorer, &["a", "b"]), ["valid", expected]);
            let in_use = lock.try_lock().is_err();
            drop(scorer);
            lock.try_lock()
                .unwrap_or_else(|error| panic!("{end}: a process is left: {error}"));
            lock.unlock().unwrap();
            in_use
        };
        assert!(
            check("pass", "valid"),
            "the daemon runs as long as the program"
        );
        check(
            "sys.exit(3)",
            "unparsable scorer_error: the scorer ended with exit code 3",
        );
        check(
            "time.sleep(600)",
            "unparsable scorer_error: the scorer gave no answer within 3 s",
        );
    }

    #[test]
    #[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
    fn equal_questions_are_asked_once_and_many_in_order() {
        let body = "count = globals().setdefault('count', 0) + 1\nglobals()['count'] = count\nanswer(tier='valid', metrics={'count': count, 'length': len(completion)})";
        let (_folder, scorer) = python(body, |rules| rules.processes = 3);
        let texts: Vec<String> = (0..2_000).map(|number| "x".repeat(number % 500)).collect();
        let answers: Vec<_> = texts
            .iter()
            .map(|text| (text.as_str(), None, &[][..]))
            .collect();
        let counted = |verdicts: &[Verdict]| {
            verdicts
                .iter()
                .map(|verdict| *verdict.metrics.get("length").unwrap())
                .collect::<Vec<_>>()
        };
        let first = scorer.judge_all(&answers, &|| true).unwrap();
        assert_eq!(
            counted(&first),
            texts
                .iter()
                .map(|text| text.len() as f64)
                .collect::<Vec<_>>()
        );
        let most = first
            .iter()
            .map(|verdict| *verdict.metrics.get("count").unwrap())
            .fold(0.0, f64::max);
        assert!(most <= 500.0, "{most}");
        let again = scorer.judge_all(&answers, &|| true).unwrap();
        assert_eq!(
            again.last().unwrap().metrics,
            first.last().unwrap().metrics,
            "remembered"
        );
        assert!(scorer.judge_all(&[("new", None, &[])], &|| false).is_none());
    }

    #[test]
    fn a_program_is_ended_once_nobody_waits_for_its_answer() {
        for mode in [CommandMode::Lines, CommandMode::ExitCode] {
            let (_folder, scorer) = scorer(&["sleep", "60"], &[], |rules| {
                (rules.mode, rules.seconds) = (mode, 60.0)
            });
            let asked = std::sync::atomic::AtomicUsize::new(0);
            let keep_going = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 4;
            assert!(
                scorer
                    .judge_all(&[("a", None, &[]), ("b", None, &[])], &keep_going)
                    .is_none()
            );
            assert!(asked.into_inner() < 50, "it is not waited for");
        }
    }

    #[test]
    #[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
    fn a_program_that_disagrees_with_itself_is_named() {
        let (_folder, scorer) = python(
            "globals()['n'] = globals().get('n', -1) + 1\nanswer(tier='valid' if n < 500 else 'invalid')",
            |_| {},
        );
        let texts: Vec<String> = (0..500).map(|number| number.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert!(judged(&scorer, &texts).iter().all(|found| found == "valid"));
        let again = judged(&scorer, &texts);
        let doubted = again.iter().filter(|found| {
            found.ends_with("the scorer is nondeterministic: valid before, invalid now")
        });
        assert!((1..50).contains(&doubted.count()), "{again:?}");
    }

    #[test]
    #[cfg_attr(
        not(all(has_python, can_isolate)),
        ignore = "needs python3 in PATH and user namespaces"
    )]
    fn no_network_is_reached() {
        let body = "import socket\nnames = ' '.join(name for _, name in socket.if_nameindex())\nanswer(tier='valid', reasons=[names])";
        let (_folder, scorer) = python(body, |_| {});
        assert_eq!(judged(&scorer, &["a"]), ["valid: lo"]);
    }
}
