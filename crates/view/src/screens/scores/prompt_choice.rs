//! The list of prompts of which one is chosen for a completion; it may be long.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Scores, selected, source};
use crate::dataset::PromptRow;
use crate::message::Command;
use crate::popup::{Pick, PickEntry, Popup};
use crate::shared::{OpenTask, Shared};
use crate::task::PromptSet;
use crate::widgets::text_width::one_line;

/// Lists the task's prompts; the completion under the cursor is scored as an answer to the chosen
/// one.
pub(super) fn open(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let (Some(place), Some(open)) = (selected(scores), shared.task.clone()) else {
        return Vec::new();
    };
    let places: Arc<[PromptPlace]> = PromptPlace::all(&open).into();
    if places.is_empty() {
        return shared.complain(format!(
            "the task has no prompts: see Prompts ({})",
            shared.key_of("screen.prompts")
        ));
    }
    let now = scores
        .written
        .get(place)
        .and_then(|written| written.prompt_id.as_ref());
    let now = now.and_then(|id| open.row(id));
    let is_now = |place: &PromptPlace| {
        let row = place.row(&open).zip(now);
        row.is_some_and(|(row, now)| std::ptr::eq(row, now))
    };
    let at = places.iter().position(is_now).unwrap_or(0);
    let (listed, rows) = (Arc::clone(&places), Arc::clone(&open));
    let pick = Pick::of_many(
        "Prompt that it answers",
        places.len(),
        move |index| listed[index].entry(&rows),
        at,
        move |scores: &mut Scores, shared, index| {
            if let Some(written) = scores.written.get_mut(place) {
                written.prompt_id = Some(places[index].id(&open));
            }
            source::load(scores, shared)
        },
    );
    shared.open_popup(Popup::Pick(pick))
}

/// Bytes of a prompt shown in the list.
const PROMPT_BYTES: usize = 200;

/// A row in the list of prompts; what is shown of it is made when it is shown, since there may be many.
#[derive(Debug, Clone, Copy)]
struct PromptPlace {
    set: PromptSet,
    index: usize,
    /// Whether an earlier set has a row with this id, which the id alone denotes.
    is_repeated: bool,
}

impl PromptPlace {
    fn all(open: &OpenTask) -> Vec<Self> {
        let sets = open.rows.iter();
        let rows = sets.flat_map(|(set, rows)| {
            let rows = rows.iter().flatten().enumerate();
            rows.map(move |(index, row)| (*set, index, row.id.as_str()))
        });
        let mut known = HashSet::new();
        let place = |(set, index, id)| Self {
            set,
            index,
            is_repeated: !known.insert(id),
        };
        rows.map(place).collect()
    }

    fn row(self, open: &OpenTask) -> Option<&PromptRow> {
        open.rows.get(&self.set)?.as_ref().ok()?.get(self.index)
    }

    fn id(self, open: &OpenTask) -> String {
        let id = self.row(open).map_or("", |row| row.id.as_str());
        if self.is_repeated {
            format!("{}:{id}", self.set.name())
        } else {
            id.to_owned()
        }
    }

    fn entry(self, open: &OpenTask) -> PickEntry {
        let last = self.row(open).and_then(|row| row.messages.last());
        let last = last.map_or("", |message| message.content.as_str());
        let prompt = one_line(&last[..last.floor_char_boundary(PROMPT_BYTES)]);
        PickEntry {
            label: self.id(open),
            beside: prompt.clone(),
            detail: prompt,
            ..PickEntry::default()
        }
    }
}
