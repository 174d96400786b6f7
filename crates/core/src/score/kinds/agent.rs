//! `[score] kind = "agent"`: the program that held the conversation scores it by its last line or
//! exit code.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::command::answer::{Classes, line_verdict};
use crate::dataset::PromptRow;
use crate::environment::{AgentRecord, ScoredChain};
use crate::format::shortened;
use crate::score::definition::{
    Definition, FoundDefinition, Judge, KeyInfo, Kind, LazyAnswer, text_digest,
};
use crate::score::error::ScoreError;
use crate::score::needs::Needs;
use crate::score::verdict::{Attempt, FailureClass, Tier, Verdict};
use crate::task::{Home, Read, Section, TaskFiles};

pub(crate) static KIND: Kind = Kind {
    name: "agent",
    about: include_str!("agent.about.md"),
    keys: &[],
    score_keys: &[KeyInfo::new(
        "mode",
        "line",
        "`line`: the last line that the program of `[agent]` writes is the verdict; `exit_code`: 0 is valid, 1 invalid, 2 unparsable",
    )],
    read,
};

/// Characters of the program's last line in a reason.
const SHOWN_CHARS: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Line,
    ExitCode,
}

#[derive(Debug)]
struct AgentVerdict {
    mode: Mode,
}

fn read(_top: &Section<'_>, score: &Section<'_>, _home: &Home) -> Read<FoundDefinition> {
    let mode = match score.string("mode")?.as_deref() {
        None | Some("line") => Mode::Line,
        Some("exit_code") => Mode::ExitCode,
        Some(other) => {
            let offset = score.get("mode").map_or(0, |(_, offset)| offset);
            return Err(score.error(
                "mode",
                offset,
                format!("takes \"line\" or \"exit_code\", not {other:?}"),
            ));
        }
    };
    Ok((Arc::new(AgentVerdict { mode }), None))
}

impl Definition for AgentVerdict {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, _task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(AgentJudge {
            mode: self.mode,
            classes: Classes::of("agent"),
        }))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(Value::Bool(true))
    }

    /// A conversation is not an answer.
    fn lazy_answers<'a>(
        &self,
        _task: &'a TaskFiles,
        _rows: &'a [PromptRow],
    ) -> Vec<LazyAnswer<'a>> {
        Vec::new()
    }

    fn digest(&self, _task: &TaskFiles) -> String {
        text_digest(&format!("agent\n{:?}", self.mode))
    }

    fn needs(&self) -> Needs<'_> {
        Needs {
            agent: true,
            exit_code: self.mode == Mode::ExitCode,
            ..Needs::default()
        }
    }
}

#[derive(Debug)]
struct AgentJudge {
    mode: Mode,
    classes: Classes,
}

impl Judge for AgentJudge {
    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let failed = |why: &str| attempt.failed(why);
        let Some(record) = attempt
            .row
            .and_then(ScoredChain::of_row)
            .and_then(ScoredChain::agent)
        else {
            return failed(
                "no agent's verdict: a conversation is judged where its agent ran, in `train`, `eval` and `sample`",
            );
        };
        let AgentRecord {
            exit_code, output, ..
        } = record;
        match (self.mode, exit_code, output) {
            (Mode::Line, _, None) => {
                failed("the agent wrote no line: its last line is its verdict")
            }
            (Mode::Line, _, Some(line)) => line_verdict(&line, &self.classes),
            (Mode::ExitCode, Some(0), _) => Verdict::new(Tier::Valid, None),
            (Mode::ExitCode, Some(code @ (1 | 2)), output) => {
                let tier = if code == 1 {
                    Tier::Invalid
                } else {
                    Tier::Unparsable
                };
                let said = output.map_or_else(String::new, |line| {
                    format!(": {}", shortened(&line, SHOWN_CHARS))
                });
                let message = format!("the agent ended with exit code {code}{said}");
                Verdict::because(
                    tier,
                    FailureClass::Other,
                    message,
                    (attempt.completion, attempt.from),
                )
            }
            (Mode::ExitCode, code, _) => failed(&match code {
                Some(code) => format!("the agent ended with exit code {code}, which is no verdict"),
                None => "the agent has no exit code".to_owned(),
            }),
        }
    }

    fn completion_of(&self, _expected: &Value, _row: Option<&PromptRow>) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::score::verdict::unwrap_answer::ThinkRules;

    fn verdict(mode: Mode, code: Option<i32>, output: Option<&str>) -> String {
        let fields: Map<String, Value> = [(
            "conversation".to_owned(),
            json!({"end": "answer", "agent": {"requests": [], "exit_code": code, "output": output}}),
        )]
        .into_iter()
        .collect();
        let row = PromptRow {
            id: "a".to_owned(),
            messages: Vec::new(),
            expected: None,
            tags: Vec::new(),
            fields: fields.into(),
            line: 0,
        };
        let judge = AgentJudge {
            mode,
            classes: Classes::of("agent"),
        };
        let found = judge.judge(Attempt {
            completion: "x",
            from: 0,
            thoughts: ThinkRules {
                is_stripped: false,
                marks: &[],
            },
            row: Some(&row),
            token_ids: &[],
        });
        let reward = found
            .reward
            .map_or_else(String::new, |reward| format!(" {reward}"));
        let why = found
            .errors
            .first()
            .map_or_else(String::new, |reason| format!(": {}", reason.message));
        format!("{}{reward}{why}", found.tier.name())
    }

    #[test]
    fn the_last_line_or_the_exit_code_is_the_verdict() {
        let line = |text| verdict(Mode::Line, Some(0), Some(text));
        assert_eq!(
            line(r#"{"score": 0.25, "reasons": ["slow"]}"#),
            "invalid 0.25: slow"
        );
        assert_eq!(line(r#"{"tier": "valid"}"#), "valid");
        assert_eq!(
            line(r#"{"error": "no net"}"#),
            "unparsable: the agent says: no net"
        );
        assert_eq!(
            line(r#"{"reward": 1}"#),
            "unparsable: the agent answered neither `score` nor `tier`"
        );
        assert!(
            line("done").starts_with("unparsable: the agent wrote a malformed answer"),
            "{}",
            line("done")
        );
        assert_eq!(
            verdict(Mode::Line, Some(0), None),
            "unparsable: the agent wrote no line: its last line is its verdict"
        );
        assert_eq!(verdict(Mode::ExitCode, Some(0), None), "valid");
        assert_eq!(
            verdict(Mode::ExitCode, Some(1), Some("no")),
            "invalid: the agent ended with exit code 1: no"
        );
        assert_eq!(
            verdict(Mode::ExitCode, Some(2), None),
            "unparsable: the agent ended with exit code 2"
        );
    }
}
