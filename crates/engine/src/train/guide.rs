//! Grammar for guiding groups whose rows have neither an expected answer nor a demonstration.

use crate::constraint::{ConstraintError, TaskConstraints};
use crate::environment::Toolset;
use crate::policy::Question;
use crate::rollout::Request;
use crate::score::Task;
use crate::text::Tokenizer;

/// Calls in a conversation that are sampled under the grammar, at most; later completions are free.
const MAX_CALLS: usize = 6;

/// Grammar of answers; with tools, of a call.
#[derive(Debug)]
pub(super) struct Guide {
    grammar: Result<TaskConstraints, ConstraintError>,
    /// Calls under the grammar, at most; 0 without tools.
    calls: u32,
    /// Whether rows of the task have demonstrations, which guide alone then: beside them, sampled
    /// calls made a run longer by half and taught nothing more.
    has_demonstrations: bool,
}

impl Guide {
    pub(super) fn new(task: &Task, tokenizer: &Tokenizer, has_demonstrations: bool) -> Self {
        let Some(limits) = task.toolset().map(Toolset::limits) else {
            return Self {
                grammar: TaskConstraints::new(task, tokenizer),
                calls: 0,
                has_demonstrations,
            };
        };
        let calls = limits.max_calls.min(limits.max_turns - 1).min(MAX_CALLS);
        Self {
            grammar: TaskConstraints::of_calls(task, tokenizer),
            calls: calls.max(1) as u32,
            has_demonstrations,
        }
    }

    /// Why rows without an expected answer cannot be guided.
    pub(super) fn refusal(&self) -> Option<String> {
        if self.has_demonstrations {
            return Some("other rows of the task have one".to_owned());
        }
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

    /// With tools, that of a conversation's first completion; how many calls are constrained
    /// differs from group to group and from step to step. `None` without a grammar for the row.
    pub(super) fn request(&self, Question { prompt, request }: &Question<'_>) -> Option<Request> {
        if self.has_demonstrations {
            return None;
        }
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
            constrained: match self.calls {
                0 => u32::MAX,
                calls => 1 + (request.step + request.prompt_number) % calls,
            },
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
                calls: 0,
                has_demonstrations: false,
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
