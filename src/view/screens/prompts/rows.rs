//! Filters and sorts rows in the background, so that large sets do not slow typing.

use std::sync::Arc;

use super::table_row::{Column, Entry, SEARCHED_LETTERS, first_words, flat, row};
use super::{Prompts, ROWS, UNCOUNTED, preview};
use crate::dataset::PromptRow;
use crate::task::PromptSet;
use crate::view::fuzzy;
use crate::view::message::{Command, Work};
use crate::view::shared::{OpenTask, Shared};

/// The searched text of a row.
fn searched(row: &PromptRow) -> String {
    format!("{} {}", row.id, flat(row, SEARCHED_LETTERS))
}

/// The rows that contain every word, ignoring case.
fn containing<'a>(shown: &[u32], words: &[&str], at: impl Fn(u32) -> Option<&'a PromptRow>) -> Vec<u32> {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let holds = |index: &u32| {
        let text = at(*index).map_or_else(String::new, |row| searched(row).to_lowercase());
        words.iter().all(|word| text.contains(word))
    };
    shown.iter().copied().filter(holds).collect()
}

/// After the task was read: all its rows, with the cursor on the same row.
pub(super) fn read_again(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let Some(open) = &shared.task else { return Vec::new() };
    let mut entries = Vec::new();
    for (set, rows) in &open.rows {
        let count = rows.as_ref().map_or(0, Vec::len);
        entries.extend((0..count as u32).map(|index| Entry { set: *set, index }));
    }
    let place = prompts.select_next.take().and_then(|(set, line)| {
        entries.iter().position(|entry| entry.set == set && row(open, *entry).is_some_and(|row| row.line >= line))
    });
    prompts.shown = (0..entries.len() as u32).collect();
    prompts.tokens = vec![UNCOUNTED; entries.len()];
    prompts.entries = entries;
    prompts.chat = None;
    if let Some(place) = place {
        prompts.cursor.index = place;
    }
    match is_plain(prompts) {
        true => Vec::new(),
        false => arrange_to(prompts, shared, place.map(|place| place as u32)),
    }
}

/// Moves the cursor to a row of a file, without a filter that may hide it.
pub(super) fn show_line(prompts: &mut Prompts, shared: &mut Shared, (set, line): (PromptSet, usize)) -> Vec<Command> {
    let Some(open) = &shared.task else { return Vec::new() };
    let is_it = |entry: &Entry| entry.set == set && row(open, *entry).is_some_and(|row| row.line == line);
    let Some(place) = prompts.entries.iter().position(is_it) else { return Vec::new() };
    prompts.pane = Some(ROWS);
    prompts.filter = Default::default();
    arrange_to(prompts, shared, Some(place as u32))
}

fn is_plain(prompts: &Prompts) -> bool {
    prompts.filter.text().trim().is_empty() && prompts.sort == (Column::File, false)
}

/// Filters and sorts again; the cursor stays on its row if that is still visible.
pub(super) fn arrange(prompts: &Prompts, shared: &Shared) -> Vec<Command> {
    let selected = prompts.cursor.at(prompts.shown.len()).and_then(|place| prompts.shown.get(place)).copied();
    arrange_to(prompts, shared, selected)
}

fn arrange_to(prompts: &Prompts, shared: &Shared, selected: Option<u32>) -> Vec<Command> {
    let Some(open) = shared.task.clone() else { return Vec::new() };
    let (entries, tokens) = (prompts.entries.clone(), prompts.tokens.clone());
    let (filter, sort) = (prompts.filter.text().to_owned(), prompts.sort);
    let count = entries.len();
    vec![Work::latest(
        "prompts.rows",
        move |_| arranged(&open, &entries, &tokens, &filter, sort),
        move |prompts: &mut Prompts, shared, shown| {
            if prompts.entries.len() != count {
                return Vec::new();
            }
            let place = selected.and_then(|selected| shown.iter().position(|index| *index == selected));
            prompts.shown = shown;
            prompts.cursor.index = place.unwrap_or(0);
            preview::show(prompts, shared)
        },
    )]
}

/// Indices of the `entries` that match the filter, sorted.
fn arranged(
    open: &Arc<OpenTask>,
    entries: &[Entry],
    tokens: &[u32],
    filter: &str,
    (column, backwards): (Column, bool),
) -> Vec<u32> {
    let mut shown: Vec<u32> = (0..entries.len() as u32).collect();
    let at = |index: u32| entries.get(index as usize).and_then(|entry| row(open, *entry));
    let mut words = Vec::new();
    for word in filter.split_whitespace() {
        let lower = |value: &str| value.to_lowercase();
        match word.split_once(':') {
            Some(("set", value)) => shown.retain(|index| {
                entries.get(*index as usize).is_some_and(|entry| entry.set.name().starts_with(&lower(value)))
            }),
            Some(("tag", value)) => shown.retain(|index| {
                at(*index).is_some_and(|row| row.tags.iter().any(|tag| tag.to_lowercase().starts_with(&lower(value))))
            }),
            Some(("id", value)) => {
                shown.retain(|index| at(*index).is_some_and(|row| row.id.to_lowercase().contains(&lower(value))))
            }
            Some(("expected", value)) => shown
                .retain(|index| at(*index).is_some_and(|row| row.expected.is_some() != lower(value).starts_with('n'))),
            _ => words.push(word),
        }
    }
    if !words.is_empty() {
        let mut found = containing(&shown, &words, at);
        if found.is_empty() {
            found = fuzzy::rank(&words.join(" "), &shown, |index| at(*index).map_or_else(String::new, searched));
        }
        if column == Column::File && !backwards {
            // Best match first, unless a sort column was chosen.
            return found;
        }
        found.sort_unstable();
        shown = found;
    }
    match column {
        Column::File => {}
        Column::Id => shown.sort_by_cached_key(|index| at(*index).map(|row| row.id.clone())),
        Column::Tokens => shown.sort_by_key(|index| tokens.get(*index as usize).copied()),
        Column::Expected => shown.sort_by_key(|index| at(*index).is_some_and(|row| row.expected.is_some())),
        Column::Tags => shown.sort_by_cached_key(|index| at(*index).map(|row| row.tags.clone())),
        Column::Words => shown.sort_by_cached_key(|index| at(*index).map(first_words)),
    }
    if backwards {
        shown.reverse();
    }
    shown
}
