//! Variants of the prompts for targets of `eval`: another system prompt, examples from the train set.

use std::path::Path;

use serde_json::{Value, json};

use super::Failure;
use super::rows::Rows;
use crate::dataset::order::epoch_order;
use crate::dataset::{self, PromptRow};
use crate::files;
use crate::format::counted;
use crate::prompts::reference_answer;
use crate::run::sha256;
use crate::score::{Scorer, Task};
use crate::task::PromptSet;
use crate::text::Message;

/// The prompts of one target, in place of the task's own.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) task: Task,
    pub(super) rows: Rows,
    /// The file of the system prompt, and its text.
    system: Option<(String, String)>,
    /// Ids of the train rows that are shown with their answers before each prompt.
    examples: Vec<String>,
}

/// The `--system` and `--few-shot` options, by target name.
#[derive(Clone, Copy)]
pub(super) struct Variants<'a> {
    pub(super) systems: &'a [String],
    pub(super) few_shot: &'a [String],
    /// Chooses the examples.
    pub(super) seed: u64,
}

impl Variants<'_> {
    /// Refuses what names no target, or one twice.
    pub(super) fn check(&self, targets: &[&str]) -> Result<(), Failure> {
        for (flag, texts) in [("--system", self.systems), ("--few-shot", self.few_shot)] {
            let mut seen = Vec::new();
            for text in texts {
                let name = text.split_once('=').map(|(name, _)| name.trim());
                let name = name.filter(|name| targets.contains(name)).ok_or_else(|| {
                    let example = if flag == "--system" {
                        "prompt.txt"
                    } else {
                        "3"
                    };
                    Failure::usage(format!(
                        "{flag} {text}: write NAME={example} with the name of a --model: {}",
                        targets.join(", ")
                    ))
                })?;
                if seen.contains(&name) {
                    return Err(Failure::usage(format!("{flag} {text}: duplicate `{name}`")));
                }
                seen.push(name);
            }
        }
        Ok(())
    }

    /// The prompts of a target, where they are not the task's own.
    pub(super) fn resolve(
        &self,
        target: &str,
        task: &Task,
        scorer: &Scorer,
        rows: &Rows,
    ) -> Result<Option<Variant>, Failure> {
        let system = value_of(self.systems, target)
            .map(system_prompt)
            .transpose()?;
        let examples = match value_of(self.few_shot, target) {
            Some(count) => examples(count, task, scorer, rows, self.seed)?,
            None => Vec::new(),
        };
        if system.is_none() && examples.is_empty() {
            return Ok(None);
        }
        let mut task = task.clone();
        if let Some((_, text)) = &system {
            task.system = Some(text.clone());
        }
        let turns: Vec<Message> = examples
            .iter()
            .flat_map(|(_, turns)| turns.iter().cloned())
            .collect();
        let mut rows = rows.only(|_| true);
        for row in &mut rows.rows {
            // A system turn of the row's own stays the first.
            let first = usize::from(
                row.messages
                    .first()
                    .is_some_and(|turn| turn.role == "system"),
            );
            row.messages.splice(first..first, turns.iter().cloned());
        }
        Ok(Some(Variant {
            task,
            rows,
            system,
            examples: examples.into_iter().map(|(id, _)| id).collect(),
        }))
    }
}

impl Variant {
    /// For people, beside results.
    pub(super) fn description(&self) -> String {
        let digest = |text: &str| sha256(text.as_bytes())[..8].to_owned();
        let system = self
            .system
            .as_ref()
            .map(|(file, text)| format!("system prompt of {file} ({})", digest(text)));
        let examples = (!self.examples.is_empty()).then(|| {
            format!(
                "{} of the train set ({})",
                counted(self.examples.len(), "example"),
                self.examples.join(", ")
            )
        });
        [system, examples]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// For the eval's document.
    pub(super) fn document(&self) -> Value {
        let (file, text) = self.system.clone().unzip();
        json!({
            "description": self.description(), "system_file": file, "system": text, "few_shot": self.examples,
        })
    }
}

fn value_of<'t>(texts: &'t [String], target: &str) -> Option<&'t str> {
    texts
        .iter()
        .filter_map(|text| text.split_once('='))
        .find(|(name, _)| name.trim() == target)
        .map(|(_, value)| value)
}

fn system_prompt(file: &str) -> Result<(String, String), Failure> {
    let text = files::read_text(Path::new(file))
        .map_err(|error| Failure::usage(format!("--system: {file}: {error}; name a text file")))?;
    // An editor's last line end is not the author's.
    Ok((file.to_owned(), text.trim_end().to_owned()))
}

/// Train rows in a seeded order, with the turns that show them.
fn examples(
    count: &str,
    task: &Task,
    scorer: &Scorer,
    rows: &Rows,
    seed: u64,
) -> Result<Vec<(String, Vec<Message>)>, Failure> {
    const MAX_VARIANTS: usize = 64;
    let wanted = count
        .trim()
        .parse()
        .ok()
        .filter(|count| (1..=MAX_VARIANTS).contains(count))
        .ok_or_else(|| {
            Failure::usage(format!(
                "--few-shot: `{count}` is not a number of examples from 1 to {MAX_VARIANTS}"
            ))
        })?;
    let train = dataset::load(task, PromptSet::Train)?;
    if rows.set == PromptSet::Train.into() {
        return Err(Failure::usage(
            "--few-shot: its examples are train rows, so these cannot be the prompts: choose another set with --on",
        ));
    }
    let asked: Vec<&[Message]> = rows
        .rows
        .iter()
        .map(|row| row.messages.as_slice())
        .collect();
    let mut found = Vec::new();
    for row in epoch_order(train.len(), 0, seed)
        .into_iter()
        .map(|index| &train[index])
    {
        if found.len() == wanted {
            break;
        }
        // A prompt that is asked about is no example.
        if let Some(answer) = reference_answer(task, scorer, row)?
            && !asked.contains(&row.messages.as_slice())
        {
            found.push((row.id.clone(), shown(row, answer)));
        }
    }
    if found.len() < wanted {
        return Err(Failure::usage(format!(
            "--few-shot {wanted}: the train set has only {} with an answer",
            counted(found.len(), "row")
        )));
    }
    Ok(found)
}

fn shown(row: &PromptRow, answer: String) -> Vec<Message> {
    let turns = row
        .messages
        .iter()
        .filter(|turn| turn.role != "system")
        .cloned();
    turns.chain([Message::new("assistant", answer)]).collect()
}
