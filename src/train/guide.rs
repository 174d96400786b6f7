//! The grammar that guides groups whose rows have no expected answer.

use crate::constraint::{ConstraintError, TaskConstraints};
use crate::eval::Prompt;
use crate::rollout::Request;
use crate::task::Task;
use crate::text::Tokenizer;

/// What answers are sampled from where a row has none.
#[derive(Debug)]
pub(super) struct Guide {
    grammar: Result<TaskConstraints, ConstraintError>,
}

impl Guide {
    pub(super) fn new(task: &Task, tokenizer: &Tokenizer) -> Self {
        Self { grammar: TaskConstraints::new(task, tokenizer) }
    }

    /// Why rows without an expected answer cannot be guided.
    pub(super) fn refusal(&self) -> Option<String> {
        self.grammar.as_ref().err().map(ToString::to_string)
    }

    /// `None` where no grammar constrains the row.
    pub(super) fn request(&self, prompt: &Prompt, asked: &Request) -> Option<Request> {
        let constraint = self.grammar.as_ref().ok()?.for_row(&prompt.row, &prompt.text).ok()?;
        // The place that the answer takes.
        let first_sample = asked.first_sample + asked.samples as u32 - 1;
        Some(Request { samples: 1, first_sample, constraint: Some(constraint), ..asked.clone() })
    }
}
