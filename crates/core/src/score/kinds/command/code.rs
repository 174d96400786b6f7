//! Code answers: written to a file and checked by a linter or compiler, whose findings are the
//! reasons.

use std::sync::LazyLock;

use regex::Regex;

use super::answer::shorten;
use super::question::Question;
use super::suppressions::checker::{
    Checker, HEADER, HEADER_NAME, forbidden_lints, may_set_levels, with_options,
};
use super::suppressions::silencing;
use super::whole_run::{Output, Run, last_line, line_reasons, run};
use crate::sandbox::{Program, ProgramFiles};
use crate::score::answer::json::{Place, Places};
use crate::score::needs::{CodeRules, CommandRules, FILE_ARGUMENT};
use crate::score::verdict::{FailureClass, Reason, Tier, Verdict};

/// Listed per answer.
const MAX_FINDINGS: usize = 100;
/// Failure class of an answer that silences its checker.
const SILENCED: &str = "silences_checker";

/// A checker's message at a place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) place: Place,
    /// `F401`, `SC2086`, `SyntaxError`.
    rule: Option<String>,
    pub(super) message: String,
}

pub(super) fn check(
    rules: &CommandRules,
    code: &CodeRules,
    files: &ProgramFiles,
    question: &Question<'_>,
    written: &mut Output,
    keep_going: &dyn Fn() -> bool,
) -> Result<Verdict, String> {
    let answer = &question.completion;
    let (start, source) = answer_source(answer);
    let unparsable = |class, message: &str, offset| {
        let verdict = Verdict::because(
            Tier::Unparsable,
            class,
            message.to_owned(),
            (answer, offset),
        );
        Ok(Verdict {
            exact: question.expected.map(|_| false),
            ..verdict
        })
    };
    if source.trim().is_empty() {
        return unparsable(FailureClass::Other, "the answer is empty", start);
    }
    let programs = rules
        .commands()
        .filter_map(<[_]>::first)
        .map(String::as_str);
    let silenced = silencing(source, &code.file, programs);
    let asked = (source, question.row.as_str(), silenced.is_some());
    let mut checked = checked(rules, code, files, asked, written, keep_going)?;
    if let Some((offset, words)) = silenced.filter(|_| checked.0 == Tier::Valid) {
        let why = format!(
            "it silences the checker: {:?} may not be in it, not even in a text",
            shorten(words)
        );
        let place = Places::new(source).locate(offset);
        let class = FailureClass::from_key(SILENCED);
        checked = (Tier::Invalid, class, vec![Reason::at(why, place)]);
    }
    if start > 0 && !code.takes_fence {
        let found = unparsable(FailureClass::Fence, "a Markdown fence around the code", 0)?;
        return Ok(Verdict {
            tolerant: checked.0 == Tier::Valid,
            ..found
        });
    }
    let (tier, class, mut reasons) = checked;
    let first = Places::new(answer).locate(start);
    reasons.iter_mut().for_each(|reason| reason.move_to(first));
    let exact = question
        .expected
        .map(|expected| tier == Tier::Valid && lines(source).eq(lines(expected)));
    let class = class.or((exact == Some(false)).then_some(FailureClass::WrongValue));
    // As little as for any number of findings.
    let share = if silenced.is_some() {
        0.0
    } else {
        1.0 / (1 + reasons.len().max(1)) as f64
    };
    let credit = (tier == Tier::Invalid).then_some(share);
    Ok(Verdict {
        exact,
        credit,
        errors: reasons,
        ..Verdict::new(tier, class)
    })
}

type Checked = (Tier, Option<FailureClass>, Vec<Reason>);

/// Checks a source in a new folder with copies of the task's files.
fn checked(
    rules: &CommandRules,
    code: &CodeRules,
    files: &ProgramFiles,
    (source, row, is_silenced): (&str, &str, bool),
    written: &mut Output,
    keep_going: &dyn Fn() -> bool,
) -> Result<Checked, String> {
    let work = files.copies()?;
    let file = work.path().join(&code.file);
    std::fs::write(&file, source).map_err(|error| format!("{}: {error}", file.display()))?;
    let commands = [
        (code.parse.as_slice(), Tier::Unparsable),
        (rules.command.as_slice(), Tier::Invalid),
    ];
    let variables = [("ROW", row)];
    // What a silenced checker says is not asked.
    let is_asked = |refused| !(is_silenced && refused == Tier::Invalid);
    for (command, refused) in commands
        .into_iter()
        .filter(|(command, refused)| !command.is_empty() && is_asked(*refused))
    {
        let takes_file = command
            .iter()
            .any(|argument| argument.contains(FILE_ARGUMENT));
        let checker = Checker::of(&command[0]);
        if checker == Checker::C {
            let header = work.path().join(HEADER_NAME);
            std::fs::write(&header, HEADER)
                .map_err(|error| format!("{}: {error}", header.display()))?;
        }
        let run = |arguments: Vec<String>, input: &str, written: &mut Output| {
            let program = Program {
                program: files.path_of(&command[0], work.path()),
                arguments,
                folder: work.path(),
                variables: &variables,
                joins_output: true,
            };
            run(rules, files, &program, input, written, keep_going)
        };
        let mut command = with_options(command);
        if checker == Checker::Rust && may_set_levels(source) {
            let asked = vec!["-W".to_owned(), "help".to_owned()];
            let help = run(asked, "", &mut Output::default())?;
            if help.exit_code != Some(0) {
                return Err(format!("`{} -W help` {}", command[0], help.ended));
            }
            command.extend(forbidden_lints(&command, &help.output));
        }
        let arguments = command[1..]
            .iter()
            .map(|argument| argument.replace(FILE_ARGUMENT, &code.file))
            .collect();
        let Run {
            exit_code,
            output,
            ended,
            hidden_file,
        } = run(arguments, if takes_file { "" } else { source }, written)?;
        if exit_code == Some(0) {
            continue;
        }
        let found = findings(&output, if takes_file { &code.file } else { "-" });
        let unwritable = output
            .lines()
            .find(|line| found.is_empty() && line.contains("Read-only file system"));
        if let Some(line) = unwritable {
            return Err(format!(
                "the checker cannot write: {}; let it write into its own folder, such as `-o out`",
                shorten(line.trim())
            ));
        }
        if found.is_empty() && !output.trim().is_empty() && is_outside(&command[0]) {
            // A version manager's proxy without a version, for example.
            let asked = vec!["--version".to_owned()];
            let probe = run(asked, "", &mut Output::default())?;
            if probe.exit_code != Some(0) && probe.output == output {
                return Err(format!(
                    "`{} --version` fails in the sandbox like the check itself: {}; name the program that it starts by its path",
                    command[0],
                    last_line(&output).map_or_else(String::new, shorten)
                ));
            }
        }
        if found.is_empty() && (exit_code != Some(1) || hidden_file.is_some()) {
            let why =
                last_line(&output).map_or_else(String::new, |line| format!(": {}", shorten(line)));
            let remedy = hidden_file.map_or_else(String::new, |remedy| format!("; {remedy}"));
            return Err(format!("the checker {ended}{why}{remedy}"));
        }
        let class = class_of(&found, refused);
        let listed = found
            .into_iter()
            .map(|finding| Reason::at(finding.message, finding.place))
            .collect::<Vec<_>>();
        return Ok((
            refused,
            Some(class),
            if listed.is_empty() {
                line_reasons(&output)
            } else {
                listed
            },
        ));
    }
    Ok((Tier::Valid, None, Vec::new()))
}

/// Whether a program is none of the task's: a name, or an absolute path.
fn is_outside(program: &str) -> bool {
    !program.contains('/') || program.starts_with('/')
}

fn class_of(found: &[Finding], refused: Tier) -> FailureClass {
    let rule = found.iter().find_map(|finding| finding.rule.as_deref());
    let none = if refused == Tier::Unparsable {
        FailureClass::Syntax
    } else {
        FailureClass::Other
    };
    match rule.and_then(FailureClass::from_key) {
        // A checker cannot claim that scoring failed through a rule.
        Some(class) if !class.is_unscored() => class,
        _ => none,
    }
}

/// Parses checker output: `FILE:3:5: message` (gcc, ruff, shellcheck), `FILE: line 3: message`
/// (bash), `File "FILE", line 3` with the message below (Python), `FILE(3,5): message` (tsc), and
/// the message before ` --> FILE:3:5` (rustc).
pub(super) fn findings(output: &str, file: &str) -> Vec<Finding> {
    static PLACE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r#"^(?:"?, line |: line |: ?|\()(\d+)(?:[:,](\d+))?(?:\)?: ?|\)|, in |\s*$)(.*)$"#,
        )
        .ok()
    });
    let Some(pattern) = PLACE.as_ref() else {
        return Vec::new();
    };
    let all: Vec<&str> = output.lines().collect();
    let mut found: Vec<Finding> = Vec::new();
    for (number, line) in all.iter().enumerate() {
        let Some((captures, end)) =
            after_name(line, file).and_then(|(rest, end)| Some((pattern.captures(rest)?, end)))
        else {
            continue;
        };
        let at = |index: usize| {
            captures
                .get(index)
                .and_then(|digits| digits.as_str().parse().ok())
                .unwrap_or(1)
                .max(1)
        };
        let own = captures.get(3).map_or("", |rest| rest.as_str().trim());
        let is_arrow = line[..end].trim_start().starts_with("-->");
        let message = match own {
            "" if is_arrow => all[..number]
                .iter()
                .rev()
                .find(|line| !line.trim().is_empty()),
            "" => all[number + 1..]
                .iter()
                .find(|line| line.starts_with(|first: char| !first.is_whitespace())),
            _ => None,
        };
        let message = shorten(message.map_or(own, |line| line.trim()));
        // Notes of gcc and rustc are skipped; a note of shellcheck is a broken rule.
        let rule = rule_of(&message);
        let is_remark = rule.is_none()
            && ["note:", "help:"]
                .iter()
                .any(|word| message.starts_with(word));
        if message.is_empty() || is_remark {
            continue;
        }
        let finding = Finding {
            place: Place {
                line: at(1),
                column: at(2),
            },
            rule,
            message,
        };
        if !found.contains(&finding) {
            found.push(finding);
        }
        if found.len() == MAX_FINDINGS {
            break;
        }
    }
    found
}

/// The text after the file's name in a line, with its offset. Standard input has several names.
fn after_name<'l>(line: &'l str, file: &str) -> Option<(&'l str, usize)> {
    let names: &[&str] = if file == "-" {
        &["<stdin>", "<unknown>", "stdin", "-", "bash", "sh"]
    } else {
        &[file]
    };
    names.iter().find_map(|name| {
        let start = line.find(name)?;
        let is_whole = line[..start]
            .chars()
            .next_back()
            .is_none_or(|before| !is_of_word(before));
        let end = start + name.len();
        is_whole.then(|| (&line[end..], end))
    })
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// The rule in a message: `F401`, `SC2086`, `E0425`, `TS2322`, `-Wunused-variable`, `SyntaxError`.
fn rule_of(message: &str) -> Option<String> {
    static RULE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"\b([A-Z]{1,6}[0-9]{2,5})\b|\[(?:-W(?:error=)?)?([A-Za-z][\w-]+)\]$|^(\w+(?:Error|Warning)):").ok()
    });
    let found = RULE.as_ref()?.captures(message)?;
    found
        .iter()
        .skip(1)
        .flatten()
        .next()
        .map(|rule| rule.as_str().to_owned())
}

/// Offset and code of an answer: the content of the first Markdown fence, else everything.
pub(super) fn answer_source(answer: &str) -> (usize, &str) {
    fenced(answer).unwrap_or((0, answer))
}

/// Offset and content of the first Markdown fence; an unclosed one ends with the text.
fn fenced(text: &str) -> Option<(usize, &str)> {
    const FENCE: &str = "```";
    let opens = |at: usize| at == 0 || text[..at].ends_with('\n');
    let open = text
        .match_indices(FENCE)
        .map(|(at, _)| at)
        .find(|at| opens(*at))?;
    let start = open + text[open..].find('\n')? + 1;
    let rest = &text[start..];
    let end = rest
        .match_indices(FENCE)
        .map(|(at, _)| at)
        .find(|at| opens(start + at))
        .unwrap_or(rest.len());
    Some((start, &rest[..end]))
}

/// Lines without trailing white space, and without empty ones at the end.
fn lines(code: &str) -> impl Iterator<Item = &str> {
    code.trim_end().lines().map(str::trim_end)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_read_from_what_checkers_write() {
        let check = |output: &str, expected: &[&str]| {
            let shown = |finding: &Finding| {
                let Finding {
                    place,
                    rule,
                    message,
                } = finding;
                format!(
                    "{}:{} {} {message}",
                    place.line,
                    place.column,
                    rule.as_deref().unwrap_or("-")
                )
            };
            assert_eq!(
                findings(output, "a.py")
                    .iter()
                    .map(shown)
                    .collect::<Vec<_>>(),
                expected,
                "{output}"
            );
        };
        check("", &[]);
        check("all is well with a.py", &[]);
        check("other_a.py:1:2: E1 no\nba.py:1: no", &[]);
        // ruff, concise and full
        check(
            "a.py:1:8: F401 [*] `os` imported but unused\nFound 1 error.",
            &["1:8 F401 F401 [*] `os` imported but unused"],
        );
        check(
            "F401 [*] `os` imported but unused\n --> a.py:1:8\n  |\n1 | import os\n",
            &["1:8 F401 F401 [*] `os` imported but unused"],
        );
        // gcc, and its notes
        check(
            "a.py: In function 'main':\na.py:3:9: warning: unused variable 'x' [-Wunused-variable]\na.py:4:1: note: here",
            &["3:9 unused-variable warning: unused variable 'x' [-Wunused-variable]"],
        );
        check("./a.py:7: error: no", &["7:1 - error: no"]);
        // shellcheck -f gcc
        check(
            "a.py:2:6: note: Double quote [SC2086]\na.py:2:6: warning: x [SC2034]",
            &[
                "2:6 SC2086 note: Double quote [SC2086]",
                "2:6 SC2034 warning: x [SC2034]",
            ],
        );
        // bash, dash
        check(
            "a.py: line 3: syntax error near `fi'",
            &["3:1 - syntax error near `fi'"],
        );
        check(
            "a.py: 3: Syntax error: \"fi\" unexpected",
            &["3:1 - Syntax error: \"fi\" unexpected"],
        );
        // Python
        check(
            "  File \"/tmp/x/a.py\", line 2\n    def f(:\n          ^\nSyntaxError: invalid syntax\n",
            &["2:1 SyntaxError SyntaxError: invalid syntax"],
        );
        // tsc, rustc
        check(
            "a.py(3,5): error TS2322: no",
            &["3:5 TS2322 error TS2322: no"],
        );
        check(
            "error[E0425]: cannot find `x`\n --> a.py:2:5\n",
            &["2:5 E0425 error[E0425]: cannot find `x`"],
        );
    }

    #[test]
    fn the_first_fence_holds_the_code() {
        for (text, expected) in [
            ("x = 1", None),
            ("```\nx\n```", Some((4, "x\n"))),
            ("Here:\n```python\nx\n```\nDone.", Some((16, "x\n"))),
            ("```sh\nx", Some((6, "x"))),
            ("``` and no line", None),
            ("a ```b```", None),
            ("```\necho '```'\n```", Some((4, "echo '```'\n"))),
        ] {
            assert_eq!(fenced(text), expected, "{text:?}");
        }
    }
}
