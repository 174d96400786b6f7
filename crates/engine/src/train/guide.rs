//! The grammar that guides groups whose rows have no expected answer.

use crate::constraint::{ConstraintError, TaskConstraints};
use crate::policy::Question;
use crate::rollout::Request;
use crate::task::Task;
use crate::text::Tokenizer;

/// The grammar of answers for rows that have none.
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
    pub(super) fn request(&self, Question { prompt, request }: &Question<'_>) -> Option<Request> {
        let constraint = self.grammar.as_ref().ok()?.for_row(&prompt.row, &prompt.text).ok()?;
        // The number of the sample whose place the answer takes.
        let first_sample = request.first_sample + request.samples as u32 - 1;
        Some(Request { samples: 1, first_sample, constraint: Some(constraint), ..request.clone() })
    }
}
