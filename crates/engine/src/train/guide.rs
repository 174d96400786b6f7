//! How a task's groups are guided where rows have neither an expected answer nor a demonstration:
//! calls found by search, a grammar to sample under.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::constraint::{ConstraintError, TaskConstraints};
use crate::dataset::PromptRow;
use crate::environment::Toolset;
use crate::policy::{Prompt, Question};
use crate::prompts::{DemonstratedTurn, demonstrated_turns, find_calls_of};
use crate::rollout::Request;
use crate::score::{Scorer, Task};
use crate::text::Tokenizer;

/// Calls in a conversation that are sampled under the grammar, at most; later completions are free.
const MAX_CALLS: usize = 6;

#[derive(Debug)]
pub(super) struct Guide {
    /// Turns found by search, by row; none where it found none. Not saved: a row's are the same in
    /// a resumed run.
    found: Mutex<HashMap<String, Vec<DemonstratedTurn>>>,
    /// Of answers; with tools, of a call.
    /// `None`: the task's demonstrations guide alone. Beside them, sampled calls made a run longer
    /// by half and taught nothing more.
    grammar: Option<Result<TaskConstraints, ConstraintError>>,
    /// Calls under the grammar, at most; 0 without tools.
    calls: u32,
}

impl Guide {
    /// `has_demonstrations`: whether a training row of the task has one.
    pub(super) fn new(task: &Task, tokenizer: &Tokenizer, has_demonstrations: bool) -> Self {
        let Some(limits) = task.toolset().map(Toolset::limits) else {
            return Self {
                found: Mutex::default(),
                grammar: Some(TaskConstraints::new(task, tokenizer)),
                calls: 0,
            };
        };
        let calls = limits.max_calls.min(limits.max_turns - 1);
        Self {
            found: Mutex::default(),
            grammar: (!has_demonstrations).then(|| TaskConstraints::of_calls(task, tokenizer)),
            calls: calls.clamp(1, MAX_CALLS) as u32,
        }
    }

    /// Turns of the row's demonstration, or those that search found; empty without both.
    pub(super) fn turns(&self, prompt: &Prompt) -> Vec<DemonstratedTurn> {
        let shown = demonstrated_turns(&prompt.row);
        if !shown.is_empty() {
            return shown;
        }
        let found = self.found.lock();
        found.get(&prompt.row.id).cloned().unwrap_or_default()
    }

    /// Searches calls for those of the rows that have no demonstration, at once on every core.
    pub(super) fn search(&self, task: &Task, scorer: &Scorer, prompts: &[&Prompt]) {
        let known = |prompt: &&&Prompt| {
            let found = self.found.lock();
            prompt.row.has_demonstration() || found.contains_key(&prompt.row.id)
        };
        let new = prompts.iter().filter(|prompt| !known(prompt));
        let rows: Vec<&PromptRow> = new.map(|prompt| &prompt.row).collect();
        // Tools that cannot be opened are errors of the row's conversations.
        let turns = find_calls_of(task, scorer, &rows).into_iter();
        let turns = turns.map(Result::unwrap_or_default);
        let ids = rows.iter().map(|row| row.id.clone());
        let mut found = self.found.lock();
        found.extend(ids.zip(turns));
    }

    /// Why rows without an expected answer or a demonstration cannot be guided.
    pub(super) fn refusal(&self) -> Option<String> {
        match self.grammar.as_ref() {
            None => Some("demonstrations of other rows guide alone".to_owned()),
            Some(Ok(_)) => None,
            // Its own message mentions `constrained:`, which is not used here.
            Some(Err(ConstraintError::Kind { kind, .. })) => Some(format!(
                "tasks of kind `{kind}` have no grammar to sample answers from"
            )),
            Some(Err(error)) => Some(error.to_string()),
        }
    }

    /// Remedy for the refusal.
    pub(super) fn remedy(&self) -> &'static str {
        match self.grammar {
            Some(Err(ConstraintError::Kind { .. })) => {
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
        let grammar = self.grammar.as_ref()?.as_ref().ok()?;
        let constraint = grammar.for_row(&prompt.row, &prompt.text).ok()?;
        // Number of the sample that the answer replaces.
        let first_sample = request.first_sample + request.samples as u32 - 1;
        Some(Request {
            samples: 1,
            first_sample,
            constraint: Some(constraint),
            constrained: match self.calls {
                0 => u32::MAX,
                calls => 1 + request.step.wrapping_add(request.prompt_number) % calls,
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
                found: Mutex::default(),
                grammar: Some(Err(error)),
                calls: 0,
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
