//! What a kind needs for scoring besides answers and rows: a program, a judge, the tools' state.

pub(super) mod command_rules;
pub(super) mod local_model;
pub(super) mod rubric_rules;
pub(super) mod trust;

pub(crate) use command_rules::PythonRules;
pub use command_rules::{CodeRules, CommandMode, CommandRules, FILE_ARGUMENT, TestRules};
pub use local_model::{LocalModel, ModelDevice};
pub use rubric_rules::{Criterion, RubricRules, Scale};
pub(crate) use rubric_rules::{INSTRUCTIONS, SIDE_BY_SIDE};

use crate::environment::StateQuery;

#[derive(Debug, Default)]
pub(crate) struct Needs<'a> {
    pub(crate) program: Option<&'a CommandRules>,
    pub(crate) judge: Option<&'a RubricRules>,
    /// A question about the tools' final state, with the key of its answer.
    pub(crate) state: Option<(&'a str, &'a StateQuery)>,
    pub(crate) agent: bool,
    pub(crate) exit_code: bool,
}

impl Needs<'_> {
    /// Whether judging many completions together is faster, as a program or server processes them
    /// in parallel.
    pub(crate) fn are_asked_together(&self) -> bool {
        self.program.is_some() || self.judge.is_some()
    }

    pub(crate) fn compare_group(&self) -> bool {
        self.judge.is_some_and(|rules| rules.compares_group)
    }
}
