//! A pool of processes that answer JSON lines, with many lines in flight each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::answer::{Answer, Classes, failed};
use super::python::started;
use super::question::Question;
use crate::sandbox::{PrivateFolder, Process, ProgramFiles, START_TIMEOUT, WaitOutcome};
use crate::score::needs::CommandRules;
use crate::score::verdict::Verdict;

/// Lines in flight per process, enough to keep it busy.
const LINES_UNDER_WAY: usize = 256;
const BYTES_UNDER_WAY: usize = 1 << 18;
/// Fewer questions do not justify another process.
const MIN_QUESTIONS: usize = 16;
/// A program with this many consecutive failures is not restarted for these questions.
const MAX_FAILURES: usize = 3;

#[derive(Debug)]
pub(super) struct Pool {
    width: usize,
    processes: Mutex<Processes>,
    given_back: Condvar,
    classes: Classes,
}

#[derive(Debug, Default)]
struct Processes {
    idle: Vec<LineProcess>,
    /// Including those in use.
    all: usize,
}

#[derive(Debug)]
struct LineProcess {
    process: Process,
    next_id: u64,
    has_answered: bool,
    /// Working folder.
    _copies: PrivateFolder,
}

/// Questions not yet sent, and the answers so far.
struct Work<'q> {
    questions: &'q [&'q Question<'q>],
    waiting: Mutex<Vec<usize>>,
    verdicts: Mutex<Vec<Option<Verdict>>>,
    failures: AtomicUsize,
    keep_going: &'q (dyn Fn() -> bool + Sync),
}

/// Why a process stopped, and its unanswered questions, oldest first.
struct BrokenProcess {
    why: String,
    held: Vec<usize>,
}

impl Pool {
    pub(super) fn new(width: usize) -> Self {
        Self {
            width,
            processes: Mutex::default(),
            given_back: Condvar::new(),
            classes: Classes::default(),
        }
    }

    /// Verdicts in order; `None` once `keep_going` returns false.
    pub(super) fn ask_all(
        &self,
        rules: &CommandRules,
        files: &ProgramFiles,
        questions: &[&Question<'_>],
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<Verdict>> {
        let work = Work {
            questions,
            waiting: Mutex::new((0..questions.len()).rev().collect()),
            verdicts: Mutex::new(vec![None; questions.len()]),
            failures: AtomicUsize::new(0),
            keep_going,
        };
        let helpers = questions
            .len()
            .div_ceil(MIN_QUESTIONS)
            .min(self.width)
            .saturating_sub(1);
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|| self.serve(rules, files, &work));
            }
            self.serve(rules, files, &work);
        });
        let verdicts = work.verdicts.into_inner();
        verdicts.into_iter().collect()
    }

    /// Runs processes until no question is left.
    fn serve(&self, rules: &CommandRules, files: &ProgramFiles, work: &Work<'_>) {
        while (work.keep_going)() && !work.waiting.lock().is_empty() {
            let broken = match self.acquire(rules, files) {
                Err(why) => BrokenProcess {
                    why,
                    held: Vec::new(),
                },
                Ok(mut process) => match process.ask(rules, &self.classes, work) {
                    Ok(()) => {
                        self.give_back(Some(process));
                        continue;
                    }
                    Err(broken) => broken,
                },
            };
            // The process has ended.
            self.give_back(None);
            work.note(broken);
        }
    }

    fn acquire(&self, rules: &CommandRules, files: &ProgramFiles) -> Result<LineProcess, String> {
        let mut processes = self.processes.lock();
        loop {
            if let Some(process) = processes.idle.pop() {
                return Ok(process);
            }
            if processes.all < self.width {
                break;
            }
            self.given_back.wait(&mut processes);
        }
        processes.all += 1;
        drop(processes);
        let copies = files.copies()?;
        let process = Process::start(
            &files.sandbox,
            &files.program(&started(rules), &copies, &[]),
        )?;
        Ok(LineProcess {
            process,
            next_id: 1,
            has_answered: false,
            _copies: copies,
        })
    }

    /// `None`: an ended one.
    fn give_back(&self, process: Option<LineProcess>) {
        let mut processes = self.processes.lock();
        match process {
            Some(process) => processes.idle.push(process),
            None => processes.all -= 1,
        }
        drop(processes);
        self.given_back.notify_one();
    }
}

impl Work<'_> {
    fn next(&self) -> Option<usize> {
        if (self.keep_going)() {
            self.waiting.lock().pop()
        } else {
            None
        }
    }

    fn answer(&self, place: usize, verdict: Verdict) {
        self.failures.store(0, Ordering::Relaxed);
        self.verdicts.lock()[place] = Some(verdict);
    }

    /// Blames the oldest question, as programs mostly answer in order. The others are retried,
    /// unless the program keeps failing at once.
    fn note(&self, broken: BrokenProcess) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let mut waiting = self.waiting.lock();
        let mut verdicts = self.verdicts.lock();
        let BrokenProcess { why, held } = broken;
        if let Some(first) = held.first() {
            verdicts[*first] = Some(failed(&why));
        }
        waiting.extend(held.into_iter().skip(1).rev());
        if failures >= MAX_FAILURES {
            let why = format!("{why} ({failures} failures without an answer in between)");
            for place in waiting.drain(..) {
                verdicts[place] = Some(failed(&why));
            }
        }
    }
}

impl LineProcess {
    fn ask(
        &mut self,
        rules: &CommandRules,
        classes: &Classes,
        work: &Work<'_>,
    ) -> Result<(), BrokenProcess> {
        let mut held: BTreeMap<u64, usize> = BTreeMap::new();
        let limit = Duration::from_secs_f64(rules.seconds);
        let start = if self.has_answered {
            Duration::ZERO
        } else {
            START_TIMEOUT
        };
        let mut until = Instant::now() + start + limit;
        loop {
            while held.len() < LINES_UNDER_WAY && self.process.unsent() < BYTES_UNDER_WAY {
                let Some(place) = work.next() else { break };
                let id = self.next_id;
                self.next_id += 1;
                self.process
                    .send(format!("{{\"id\":{id},{}}}\n", work.questions[place].json).as_bytes());
                held.insert(id, place);
            }
            if held.is_empty() {
                return Ok(());
            }
            let moved = self.process.transfer(until, work.keep_going);
            let before = held.len();
            let most = rules.output_bytes();
            let taken = self.process.lines(|line| match line.len() > most {
                true => Err(too_long(rules)),
                false => read_answer(line, &mut held, classes, work),
            });
            if held.len() < before {
                self.has_answered = true;
                until = Instant::now() + limit;
            }
            let long = self.process.unread().len() > most;
            let why = match (taken, moved) {
                (Err(why), _) => why,
                _ if long => too_long(rules),
                (Ok(()), Ok(WaitOutcome::Some)) => continue,
                (Ok(()), Ok(WaitOutcome::Late)) => {
                    format!("the scorer gave no answer within {} s", rules.seconds)
                }
                (Ok(()), Ok(WaitOutcome::Ended)) => {
                    format!("the scorer {}", self.process.last_words_with_remedy())
                }
                (Ok(()), Err(error)) => format!("the scorer's pipes: {error}"),
            };
            return Err(BrokenProcess {
                why,
                held: held.into_values().collect(),
            });
        }
    }
}

pub(super) fn too_long(rules: &CommandRules) -> String {
    format!(
        "the scorer wrote a line of more than {} KiB",
        rules.output_kib
    )
}

fn read_answer(
    line: &[u8],
    held: &mut BTreeMap<u64, usize>,
    classes: &Classes,
    work: &Work<'_>,
) -> Result<(), String> {
    let answer = Answer::read(line)?;
    let id = answer.id;
    let place = held
        .remove(&id)
        .ok_or_else(|| format!("the scorer answered id {id}, which is not pending"))?;
    work.answer(place, answer.verdict(classes));
    Ok(())
}
