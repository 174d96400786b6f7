//! What scoring a task needs besides answers and rows, as the kinds have read it: a program, a judge, the state of tools.

pub(super) mod command_rules;
pub(super) mod language;
pub(super) mod local_model;
pub(super) mod rubric_rules;
pub(super) mod trust;

pub use command_rules::{CodeRules, CommandMode, CommandRules, FILE_ARGUMENT, TestRules};
pub use language::Language;
pub(crate) use language::{BINARY, NODE, PYTHON};
pub use local_model::{LocalModel, ModelDevice};
pub use rubric_rules::{Criterion, RubricRules, Scale};
pub(crate) use rubric_rules::{INSTRUCTIONS, SIDE_BY_SIDE};

use crate::environment::StateQuery;

/// What a definition of right answers needs besides an answer and its row.
#[derive(Debug, Default)]
pub(crate) struct Needs<'a> {
    /// A program that scores.
    pub(crate) program: Option<&'a CommandRules>,
    /// A model that judges.
    pub(crate) judge: Option<&'a RubricRules>,
    /// What is asked of the tools at the end of a conversation, and the key of its answer.
    pub(crate) state: Option<(&'a str, &'a StateQuery)>,
    /// A program that holds the conversation.
    pub(crate) agent: bool,
    /// That its exit code is a verdict.
    pub(crate) exit_code: bool,
}

impl Needs<'_> {
    /// Whether many completions together are judged faster: a program or a server has many of them under way.
    pub(crate) fn are_asked_together(&self) -> bool {
        self.program.is_some() || self.judge.is_some()
    }

    /// Whether a verdict depends on the other completions of the row.
    pub(crate) fn compare_group(&self) -> bool {
        self.judge.is_some_and(|rules| rules.compares_group)
    }
}
