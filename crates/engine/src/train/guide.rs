//! Grammar for guiding groups whose rows have no expected answer.

use crate::constraint::{ConstraintError, TaskConstraints};
use crate::policy::Question;
use crate::rollout::Request;
use crate::score::Task;
use crate::text::Tokenizer;

/// Grammar of answers.
#[derive(Debug)]
pub(super) struct Guide {
    grammar: Result<TaskConstraints, ConstraintError>,
}

impl Guide {
    pub(super) fn new(task: &Task, tokenizer: &Tokenizer) -> Self {
        Self {
            grammar: TaskConstraints::new(task, tokenizer),
        }
    }

    /// Why rows without an expected answer cannot be guided.
    pub(super) fn refusal(&self) -> Option<String> {
        self.grammar.as_ref().err().map(|error| match error {
            // Its own message mentions `constrained:`, which is not used here.
            ConstraintError::Kind { kind, .. } => {
                format!("tasks of kind `{kind}` have no grammar to sample answers from")
            }
            error => error.to_string(),
        })
    }

    /// Remedy for the refusal.
    pub(super) fn remedy(&self) -> &'static str {
        match self.grammar {
            Err(ConstraintError::Kind { .. }) => {
                "Add `expected` to rows: it is trained on where no answer of a group earns the full reward. Without it, a group whose answers all \
                 earn the same teaches nothing."
            }
            _ => {
                "Change what cannot be enforced (docs/constrained.md has the list), or add `expected` to rows. Until then, a group whose answers \
                 all earn the same teaches nothing."
            }
        }
    }

    /// `None` without a grammar for the row.
    pub(super) fn request(&self, Question { prompt, request }: &Question<'_>) -> Option<Request> {
        let constraint = self
            .grammar
            .as_ref()
            .ok()?
            .for_row(&prompt.row, &prompt.text)
            .ok()?;
        // Number of the sample that the answer replaces.
        let first_sample = request.first_sample + request.samples as u32 - 1;
        Some(Request {
            samples: 1,
            first_sample,
            constraint: Some(constraint),
            ..request.clone()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_follows_from_why_rows_are_not_guided() {
        let kind = ConstraintError::Kind {
            task: "lint".to_owned(),
            kind: "command",
        };
        let pattern = ConstraintError::Pattern {
            label: "task.toml".to_owned(),
            message: "look-around".to_owned(),
        };
        for (error, cause, remedy) in [
            (
                kind,
                "tasks of kind `command` have no grammar",
                "Add `expected`",
            ),
            (
                pattern,
                "task.toml: the pattern cannot be enforced",
                "Change what cannot be enforced",
            ),
        ] {
            let guide = Guide {
                grammar: Err(error),
            };
            let refusal = guide.refusal().unwrap();
            assert!(
                refusal.starts_with(cause) && !refusal.contains("constrained:"),
                "{refusal}"
            );
            assert!(guide.remedy().starts_with(remedy), "{}", guide.remedy());
        }
    }
}
