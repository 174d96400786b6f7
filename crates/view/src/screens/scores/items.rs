//! Completions from any source: the task's samples, written here, sampled from a model.

use std::collections::HashMap;
use std::sync::Arc;

use super::differing_parts::{DifferingPart, differing_parts};
use crate::advantage::Advantage;
use crate::confidence::AnswerConfidence;
use crate::dataset::PromptRow;
use crate::environment::ToolChain;
use crate::report::chain_text;
use crate::shared::OpenTask;
use crate::task::{PromptSet, split_set_prompt};

/// Rows by their id; of several sets with the id the first has it, the others `set:id`.
pub type Rows = HashMap<String, Arc<PromptRow>>;

#[derive(Debug, Default)]
pub struct Items {
    /// All completions, in the order of their source.
    pub all: Vec<Item>,
    /// The name of each group, by number: a prompt's id, or empty.
    pub groups: Vec<String>,
    /// Text that distinguishes each completion in its group; its `same_as` counts from 0 in the group.
    pub parts: Vec<DifferingPart>,
    /// Text that distinguishes each group's prompt, and whether its beginning is elided.
    pub prompts: Vec<(bool, String)>,
    /// The method that turns a group's rewards into advantages.
    pub advantage: Option<Advantage>,
}

#[derive(Debug, Clone, Default)]
pub struct Item {
    pub text: String,
    /// The row that it answers, if known.
    pub row: Option<Arc<PromptRow>>,
    pub group: usize,
    /// A short description of its origin.
    pub from: String,
    /// How a turn with tools or an agent came to the text, as it was recorded, without token ids.
    pub conversation: Option<Arc<ToolChain>>,
    /// Of its values, if they were sampled with it.
    pub confidence: Option<Arc<AnswerConfidence>>,
}

/// A completion that was written or pasted here, or sampled from a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    pub text: String,
    pub prompt_id: Option<String>,
    /// A short description of its origin.
    pub from: String,
    /// Whether its group has only completions of the same origin: those of another model say nothing about its
    /// variance.
    pub is_apart: bool,
    /// As in [`Item`].
    pub conversation: Option<Arc<ToolChain>>,
    /// As in [`Item`].
    pub confidence: Option<Arc<AnswerConfidence>>,
}

impl Written {
    /// Whether it has no text yet.
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// The most bytes of a prompt that a line shows.
const PROMPT_BYTES: usize = 400;

pub fn rows_of(open: &OpenTask) -> Rows {
    let mut found = Rows::new();
    for (set, rows) in &open.rows {
        add(&mut found, *set, rows.iter().flatten());
    }
    found
}

fn add<'a>(found: &mut Rows, set: PromptSet, rows: impl Iterator<Item = &'a PromptRow>) {
    for row in rows.flat_map(every_turn) {
        let name = match found.contains_key(&row.id) {
            true => format!("{}:{}", set.name(), row.id),
            false => row.id.clone(),
        };
        found.insert(name, Arc::new(row));
    }
}

/// The row of a completion's prompt, which may be named with its set.
fn row_of(rows: &Rows, name: &str) -> Option<Arc<PromptRow>> {
    let row = rows
        .get(name)
        .or_else(|| rows.get(split_set_prompt(name)?.1));
    row.cloned()
}

/// Later turns come without the answers before them, which are not known.
fn every_turn(row: &PromptRow) -> Vec<PromptRow> {
    row.all_turns(|_, _| None)
}

impl Item {
    /// Its row as scorers see it after a conversation; `None`: as it is.
    pub fn scored_row(&self) -> Option<PromptRow> {
        Some(self.conversation.as_ref()?.scored_row(self.row.as_ref()?))
    }

    pub fn whole(&self) -> String {
        self.conversation
            .as_deref()
            .map(chain_text)
            .unwrap_or_default()
            + &self.text
    }
}

impl Items {
    /// Adds the parts that distinguish completions and prompts.
    pub fn with_parts(mut self) -> Self {
        let mut members = vec![Vec::new(); self.groups.len()];
        self.all
            .iter()
            .enumerate()
            .for_each(|(place, item)| members[item.group].push(place));
        self.parts = vec![DifferingPart::default(); self.all.len()];
        for group in &members {
            let texts: Vec<&str> = group
                .iter()
                .map(|place| self.all[*place].text.as_str())
                .collect();
            for (place, part) in group.iter().zip(differing_parts(&texts)) {
                // The same answer after other calls is another completion.
                let talk = |place: usize| self.all[place].conversation.as_ref();
                let is_other = part
                    .same_as
                    .is_some_and(|first| talk(group[first]) != talk(*place));
                self.parts[*place] = if is_other {
                    DifferingPart::default()
                } else {
                    part
                };
            }
        }
        let prompt = |group: &Vec<usize>| {
            let row = group
                .first()
                .and_then(|place| self.all[*place].row.as_ref());
            row.and_then(|row| row.messages.last())
                .map_or("", |message| message.content.as_str())
        };
        let prompts: Vec<&str> = members.iter().map(prompt).collect();
        let shown = |(text, part): (&&str, DifferingPart)| {
            let rest = &text[part.start..];
            (
                part.start > 0,
                rest[..rest.floor_char_boundary(PROMPT_BYTES)].to_owned(),
            )
        };
        self.prompts = prompts
            .iter()
            .zip(differing_parts(&prompts))
            .map(shown)
            .collect();
        self
    }

    pub fn samples(
        open: &OpenTask,
        rows: &Rows,
        advantage: Option<Advantage>,
    ) -> Result<Self, String> {
        let samples = open.samples.as_ref().map_err(Clone::clone)?;
        let written = samples.iter().map(|sample| Written {
            text: sample.text.clone(),
            prompt_id: sample.prompt_id.clone(),
            from: format!("line {}", sample.line),
            ..Written::default()
        });
        Ok(Self::written(written, rows, advantage))
    }

    pub fn written(
        texts: impl IntoIterator<Item = Written>,
        rows: &Rows,
        advantage: Option<Advantage>,
    ) -> Self {
        let mut items = Self {
            advantage,
            ..Self::default()
        };
        for written in texts {
            let id = written.prompt_id.unwrap_or_default();
            let name = if written.is_apart {
                format!("{id} {}", written.from)
            } else {
                id.clone()
            };
            let group = items
                .groups
                .iter()
                .position(|group| *group == name)
                .unwrap_or_else(|| {
                    items.groups.push(name.clone());
                    items.groups.len() - 1
                });
            items.all.push(Item {
                text: written.text,
                row: row_of(rows, &id),
                group,
                from: written.from,
                conversation: written.conversation,
                confidence: written.confidence,
            });
        }
        items
    }
}
