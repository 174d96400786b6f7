//! Programs judged by tests: expected results never reach the answer's processes.

mod before;
mod cases;
pub(super) mod lazy_answers;
pub(super) mod server;

use super::answer::shorten;
use super::code::answer_source;
use super::question::Question;
use crate::dataset::PromptRow;
use crate::sandbox::{Lost, ProgramFiles};
use crate::score::answer::json::{Place, Places};
use crate::score::needs::{CommandRules, TestRules};
use crate::score::verdict::{FailureClass, Reason, Tier, Verdict};
use before::joined;
use cases::{Case, CaseKind, cases, code_before, output_difference, same, shown};
use server::{Reply, ServerPool};

struct Failure {
    tier: Tier,
    class: FailureClass,
    message: String,
    place: Place,
}

/// The rules by which programs are tested.
#[derive(Clone, Copy)]
pub(crate) struct TestedWith<'a> {
    pub(crate) rules: &'a CommandRules,
    pub(crate) files: &'a ProgramFiles,
    pub(crate) tests: &'a TestRules,
}

pub(super) fn row_problem(row: &PromptRow) -> Option<String> {
    cases(Some(row)).err()
}

pub(super) fn check(
    with: TestedWith<'_>,
    servers: &ServerPool,
    question: &Question<'_>,
    keep_going: &dyn Fn() -> bool,
) -> Result<Verdict, String> {
    let tests = with.tests;
    let cases = cases(question.prompt_row)?;
    let answer = &question.completion;
    let (start, source) = answer_source(answer);
    let unparsable = |class, message: &str, offset| {
        Ok(Verdict::because(
            Tier::Unparsable,
            class,
            message.to_owned(),
            (answer, offset),
        ))
    };
    if source.trim().is_empty() {
        return unparsable(FailureClass::Other, "the answer is empty", start);
    }
    let row = question.prompt_row;
    let entry = row.and_then(|row| row.fields.get("entry")?.as_str());
    let program = joined(
        row.map(code_before).transpose()?.unwrap_or_default(),
        source,
        entry,
    );
    let source = &program.source;
    let mut outcomes = outcomes(with, servers, source, &cases, keep_going)?;
    for failure in outcomes.iter_mut().flatten() {
        failure.place = program.place(failure.place);
    }
    let verdict = verdict(&cases, outcomes, Places::new(answer).locate(start));
    if start > 0 && !tests.takes_fence {
        let found = unparsable(FailureClass::Fence, "a Markdown fence around the code", 0)?;
        return Ok(Verdict {
            tolerant: verdict.tier == Tier::Valid,
            ..found
        });
    }
    Ok(verdict)
}

/// Result per case, until one after which the others are skipped.
fn outcomes(
    with: TestedWith<'_>,
    servers: &ServerPool,
    source: &str,
    cases: &[Case<'_>],
    keep_going: &dyn Fn() -> bool,
) -> Result<Vec<Option<Failure>>, String> {
    let TestedWith { rules, files, .. } = with;
    let mut replies = match servers.ask(rules, files, source, cases, keep_going)? {
        Ok(replies) => replies,
        Err(Lost::Late | Lost::TooLong) => return Ok(vec![Some(late(rules, &cases[0]))]),
        // The answer has killed more than itself.
        Err(Lost::Ended(why)) => {
            let message = format!("{}: the sandbox {why}", cases[0].question());
            return Ok(vec![Some(failed(ENDED, message, 1))]);
        }
    };
    replace_hidden_syntax(&mut replies, cases, |unasked| {
        servers.ask(rules, files, source, unasked, keep_going)
    })?;
    // It has killed the process that replies.
    if replies.len() < cases.len() && !replies.last().is_some_and(Reply::is_last) {
        replies.push(Reply {
            ended: Some(0),
            ..Reply::default()
        });
    }
    cases
        .iter()
        .zip(replies)
        .map(|(case, reply)| failure(rules, case, reply))
        .collect()
}

/// The syntax error of an answer that has seen a hidden case may reveal it: asks again with an
/// empty call, and uses that message.
fn replace_hidden_syntax(
    replies: &mut [Reply],
    cases: &[Case<'_>],
    ask: impl Fn(&[Case<'_>]) -> Result<Result<Vec<Reply>, Lost>, String>,
) -> Result<(), String> {
    let mut told = cases.iter().zip(replies);
    let Some((_, reply)) = told.find(|(case, reply)| case.is_hidden && reply.syntax.is_some())
    else {
        return Ok(());
    };
    let test = CaseKind::Call {
        entry: "",
        arguments: &[],
        value: &serde_json::Value::Null,
    };
    let is_hidden = false;
    let unasked = ask(&[Case { test, is_hidden }])?.unwrap_or_default();
    let unasked = unasked.into_iter().find(|reply| reply.syntax.is_some());
    *reply = unasked.unwrap_or_else(|| Reply {
        ended: Some(0),
        ..Reply::default()
    });
    Ok(())
}

// Failure classes; the first is common to all kinds.
const WRONG: &str = "wrong_value";
const EXCEPTION: &str = "exception";
const TIMEOUT: &str = "timeout";
const LONG: &str = "too_much_output";
const PROCESSES: &str = "too_many_processes";
const ENDED: &str = "ended";
const HIDDEN: &str = "hidden_case";

fn own(name: &str) -> FailureClass {
    FailureClass::from_key(name).unwrap_or(FailureClass::Other)
}

fn failed(class: &str, message: String, line: usize) -> Failure {
    let place = Place {
        line: line.max(1),
        column: 1,
    };
    Failure {
        tier: Tier::Invalid,
        class: own(class),
        message: shorten(&message),
        place,
    }
}

fn late(rules: &CommandRules, case: &Case<'_>) -> Failure {
    failed(
        TIMEOUT,
        format!(
            "{}: it takes more than {} s",
            case.question(),
            rules.seconds
        ),
        1,
    )
}

fn failure(rules: &CommandRules, case: &Case<'_>, reply: Reply) -> Result<Option<Failure>, String> {
    if let Some(syntax) = reply.syntax {
        let place = Place {
            line: reply.line.max(1),
            column: reply.column.max(1),
        };
        let message = shorten(&syntax);
        return Ok(Some(Failure {
            tier: Tier::Unparsable,
            class: FailureClass::Syntax,
            message,
            place,
        }));
    }
    let asked = case.question();
    let failed =
        |class, what: String| Ok(Some(failed(class, format!("{asked}: {what}"), reply.line)));
    if reply.late {
        return Ok(Some(late(rules, case)));
    }
    if reply.many {
        return failed(PROCESSES, "it starts too many processes".to_owned());
    }
    if reply.long {
        return failed(
            LONG,
            format!("it writes more than {} KiB", rules.output_kib),
        );
    }
    let complaint = reply
        .stderr
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty());
    let complaint = complaint.map_or_else(String::new, |line| format!(": {}", line.trim()));
    if let Some(code) = reply.ended {
        return failed(ENDED, format!("{}{complaint}", end(code, "it returned")));
    }
    if let Some(raised) = reply.raised {
        return failed(EXCEPTION, raised);
    }
    match &case.test {
        CaseKind::Call { value, .. } => match &reply.value {
            Some(found) if same(value, found) => Ok(None),
            Some(found) => failed(
                WRONG,
                format!("expected {}, got {}", shown(value), shown(found)),
            ),
            None => Err("a case had no reply".to_owned()),
        },
        CaseKind::Run { stdout, .. } => {
            let found = reply.stdout.unwrap_or_default();
            match (output_difference(stdout, &found), reply.code) {
                (None, Some(0)) => Ok(None),
                (_, Some(code)) if code != 0 => {
                    failed(EXCEPTION, format!("{}{complaint}", end(code, "its end")))
                }
                (Some(difference), _) => failed(WRONG, difference),
                (None, _) => Err("a case had no reply".to_owned()),
            }
        }
        CaseKind::Code { .. } if reply.passed => Ok(None),
        CaseKind::Code { .. } => match (reply.broken, reply.failed) {
            (Some(broken), _) => Err(format!("the row's `tests` are wrong: {}", shorten(&broken))),
            (None, why) => {
                let last = reply
                    .last
                    .map_or_else(String::new, |last| format!("; {last}"));
                let place = if reply.line > 0 {
                    format!("line {}: {:?}: ", reply.line, reply.source)
                } else {
                    String::new()
                };
                let message = format!("the tests: {place}{}{last}", why.unwrap_or_default());
                let class = match reply.kind.as_deref() {
                    Some("exception") => EXCEPTION,
                    Some("ended") => ENDED,
                    _ => WRONG,
                };
                Ok(Some(self::failed(class, message, 1)))
            }
        },
    }
}

fn end(code: i32, before: &str) -> String {
    match code {
        0 => format!("it ended before {before}, with exit code 0"),
        1.. => format!("it ended with exit code {code}"),
        _ => format!("signal {} ended it", -code),
    }
}

fn verdict(cases: &[Case<'_>], outcomes: Vec<Option<Failure>>, start: Place) -> Verdict {
    let passed = outcomes.iter().filter(|failure| failure.is_none()).count();
    if passed == cases.len() {
        return Verdict::new(Tier::Valid, None);
    }
    let hidden = cases.iter().filter(|case| case.is_hidden).count();
    let passing = outcomes
        .iter()
        .zip(cases)
        .filter(|(failure, case)| failure.is_none() && case.is_hidden)
        .count();
    let mut failing = outcomes
        .into_iter()
        .zip(cases)
        .filter_map(|(failure, case)| Some((failure?, case.is_hidden)));
    let visible =
        failing.find(|(failure, is_hidden)| !is_hidden || failure.tier == Tier::Unparsable);
    let (tier, class, mut reasons) = match visible {
        Some((
            Failure {
                tier,
                class,
                message,
                place,
            },
            _,
        )) => (tier, class, vec![Reason::at(message, place)]),
        None => (Tier::Invalid, own(HIDDEN), Vec::new()),
    };
    if tier == Tier::Invalid {
        let of_hidden = if hidden > 0 {
            format!(", {passing} of {hidden} hidden")
        } else {
            String::new()
        };
        let count = format!("{passed} of {} cases pass{of_hidden}", cases.len());
        reasons.push(Reason::at(count, Place { line: 1, column: 1 }));
    }
    reasons.iter_mut().for_each(|reason| reason.move_to(start));
    let credit = (tier == Tier::Invalid).then(|| passed as f64 / cases.len() as f64);
    Verdict {
        credit,
        errors: reasons,
        ..Verdict::new(tier, Some(class))
    }
}
