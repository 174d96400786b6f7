//! Judges one completion in a new process, with a full record of input and output.

use std::time::{Duration, Instant};

use super::answer::{Answer, Classes, failed};
use super::judge::CommandScorer;
use super::pool::too_long;
use super::python::started;
use super::question::Question;
use super::single_run::judge;
use super::whole_run::{MAX_SHOWN_BYTES, Output};
use crate::dataset::PromptRow;
use crate::sandbox::{Process, ProgramFiles, START_TIMEOUT, WaitOutcome};
use crate::score::needs::{CommandMode, CommandRules};
use crate::score::verdict::{Score, Trial, Verdict};

impl CommandScorer {
    /// Uses a new process, without the cache. `score`: of its verdict.
    pub(super) fn ask_anew(
        &self,
        answer: &str,
        row: Option<&PromptRow>,
        score: &dyn Fn(Verdict) -> Score,
    ) -> Trial {
        let question = Question::new(answer, row);
        let start = Instant::now();
        let mut written = Output::default();
        let (asked, verdict) = match &self.rules.mode {
            CommandMode::Lines | CommandMode::Python(_) => {
                let line = format!("{{\"id\":1,{}}}\n", question.json);
                let verdict = ask(&self.rules, &self.files, &line, &mut written)
                    .unwrap_or_else(|why| failed(&why));
                (line, verdict)
            }
            CommandMode::ExitCode => {
                let asked = format!("ROW={}\n{}", question.row, question.completion);
                (
                    asked,
                    judge(&self.rules, &self.files, &question, &mut written, &|| true),
                )
            }
            CommandMode::Tests(_) => {
                let asked = format!("answer.py with\n{}", question.completion);
                (asked, self.judge_alone(&question, &mut written, &|| true))
            }
            CommandMode::Code(code) => {
                let asked = format!("{} with\n{}", code.file, question.completion);
                (
                    asked,
                    judge(&self.rules, &self.files, &question, &mut written, &|| true),
                )
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        let Output {
            standard: output,
            complaint,
        } = written;
        Trial {
            part: None,
            asked,
            output,
            complaint,
            seconds,
            score: score(verdict),
        }
    }
}

/// Sends one line, and reads until the program ends, to capture all output.
fn ask(
    rules: &CommandRules,
    files: &ProgramFiles,
    line: &str,
    written: &mut Output,
) -> Result<Verdict, String> {
    let copies = files.copies()?;
    let mut process = Process::start(
        &files.sandbox,
        &files.program(&started(rules), &copies, &[]),
    )?;
    process.send(line.as_bytes());
    process.close_input();
    let mut until = Instant::now() + START_TIMEOUT + Duration::from_secs_f64(rules.seconds);
    let mut answer = None;
    let ended = loop {
        let moved = process.transfer(until, &|| true);
        let took = process.lines(|line| {
            let room = MAX_SHOWN_BYTES.saturating_sub(written.standard.len());
            written
                .standard
                .push_str(&String::from_utf8_lossy(&line[..line.len().min(room)]));
            written.standard.push('\n');
            answer.get_or_insert_with(|| Answer::read(line));
            Ok::<_, String>(())
        });
        if answer.is_some() {
            // It has nothing more to do.
            until = until.min(Instant::now() + Duration::from_secs(1));
        }
        match (took, moved) {
            (Err(why), _) => break Err(why),
            (_, Ok(WaitOutcome::Some)) if process.unread().len() > rules.output_bytes() => {
                break Err(too_long(rules));
            }
            (_, Ok(WaitOutcome::Some)) => {}
            (_, Ok(WaitOutcome::Late)) if answer.is_some() => break Ok(()),
            (_, Ok(WaitOutcome::Late)) => {
                break Err(format!(
                    "the scorer gave no answer within {} s",
                    rules.seconds
                ));
            }
            (_, Ok(WaitOutcome::Ended)) if answer.is_some() => break Ok(()),
            (_, Ok(WaitOutcome::Ended)) => {
                break Err(format!("the scorer {}", process.last_words_with_remedy()));
            }
            (_, Err(error)) => break Err(format!("the scorer's pipes: {error}")),
        }
    };
    written.add(&mut process);
    ended?;
    let answer = answer.unwrap_or_else(|| Err("the scorer gave no answer".to_owned()))?;
    match answer.id {
        1 => Ok(answer.verdict(&Classes::default())),
        id => Err(format!(
            "the scorer answered id {id}, but the request had id 1"
        )),
    }
}
