//! Which rows are shown, and in which order: filter and sorting run beside the view, so that many rows slow no key.

use std::sync::Arc;

use super::Prompts;
use crate::dataset::PromptRow;
use crate::task::PromptSet;
use crate::view::app::Model;
use crate::view::fuzzy;
use crate::view::message::{Command, Work};
use crate::view::shared::OpenTask;

/// Letters of a row that are shown and sorted by.
const FIRST_LETTERS: usize = 200;
/// Letters of a row that are searched.
pub(super) const SEARCHED_LETTERS: usize = 2_000;

/// A row by its set and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub set: PromptSet,
    /// Its place in the set, from 0.
    pub index: u32,
}

/// A column of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Column {
    /// The order of the files.
    #[default]
    File,
    /// Ids.
    Id,
    /// Tokens of the prompt.
    Tokens,
    /// Whether there is an expected answer.
    Expected,
    Tags,
    /// First words.
    Words,
}

impl Column {
    /// All, in the order in which the sort key goes through them.
    pub const ALL: [Self; 6] = [Self::File, Self::Id, Self::Tokens, Self::Expected, Self::Tags, Self::Words];

    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Id => "id",
            Self::Tokens => "tokens",
            Self::Expected => "expected",
            Self::Tags => "tags",
            Self::Words => "first words",
        }
    }

    /// The one after it.
    pub fn next(self) -> Self {
        let place = Self::ALL.iter().position(|column| *column == self).unwrap_or(0);
        Self::ALL[(place + 1) % Self::ALL.len()]
    }
}

pub(super) fn row(open: &OpenTask, entry: Entry) -> Option<&PromptRow> {
    open.rows.get(&entry.set)?.as_ref().ok()?.get(entry.index as usize)
}

/// The entry under the cursor.
pub(super) fn selected(model: &Model) -> Option<Entry> {
    let prompts = &model.prompts;
    let place = prompts.cursor.at(prompts.shown.len())?;
    prompts.entries.get(*prompts.shown.get(place)? as usize).copied()
}

/// The row under the cursor.
pub(super) fn selected_row(model: &Model) -> Option<&PromptRow> {
    row(model.shared.task.as_ref()?, selected(model)?)
}

/// Set and line of the row under the cursor.
pub(super) fn selected_place(model: &Model) -> Option<(PromptSet, usize)> {
    Some((selected(model)?.set, selected_row(model)?.line))
}

/// What is searched of a row.
fn searched(row: &PromptRow) -> String {
    format!("{} {}", row.id, flat(row, SEARCHED_LETTERS))
}

/// The rows that hold every word as it is written, whatever its case.
fn containing<'a>(shown: &[u32], words: &[&str], at: impl Fn(u32) -> Option<&'a PromptRow>) -> Vec<u32> {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let holds = |index: &u32| {
        let text = at(*index).map_or_else(String::new, |row| searched(row).to_lowercase());
        words.iter().all(|word| text.contains(word))
    };
    shown.iter().copied().filter(holds).collect()
}

/// The words of a filter that name no column.
pub(super) fn plain_words(filter: &str) -> Vec<&str> {
    let names = ["set:", "tag:", "id:", "expected:"];
    filter.split_whitespace().filter(|word| !names.iter().any(|name| word.starts_with(name))).collect()
}

/// The first words of what the user asks, on one line.
pub(super) fn first_words(row: &PromptRow) -> String {
    flat(row, FIRST_LETTERS)
}

/// What the user asks, on one line, up to a number of letters.
pub(super) fn flat(row: &PromptRow, most: usize) -> String {
    let turn = row.messages.iter().rev().find(|turn| turn.role == "user").or(row.messages.first());
    let text = turn.map_or("", |turn| turn.content.as_str());
    let letters = text.chars().take(most).map(|letter| if letter.is_control() { ' ' } else { letter });
    letters.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The task was read: all its rows, and the cursor on the row where it was.
pub(super) fn read_again(model: &mut Model) -> Vec<Command> {
    let Some(open) = &model.shared.task else { return Vec::new() };
    let mut entries = Vec::new();
    for (set, rows) in &open.rows {
        let count = rows.as_ref().map_or(0, Vec::len);
        entries.extend((0..count as u32).map(|index| Entry { set: *set, index }));
    }
    let wanted = model.prompts.wanted.take();
    let place = wanted
        .and_then(|(set, line)| entries.iter().position(|entry| entry.set == set && row(open, *entry).is_some_and(|row| row.line >= line)));
    let prompts = &mut model.prompts;
    prompts.shown = (0..entries.len() as u32).collect();
    prompts.tokens = vec![super::UNCOUNTED; entries.len()];
    prompts.entries = entries;
    prompts.chat = None;
    if let Some(place) = place {
        prompts.cursor.index = place;
    }
    match is_plain(prompts) {
        true => Vec::new(),
        false => arrange_to(model, place.map(|place| place as u32)),
    }
}

fn is_plain(prompts: &Prompts) -> bool {
    prompts.filter.text().trim().is_empty() && prompts.sort == (Column::File, false)
}

/// Filter and sort anew; the cursor stays on its row where that is still shown.
pub(super) fn arrange(model: &Model) -> Vec<Command> {
    let prompts = &model.prompts;
    let kept = prompts.cursor.at(prompts.shown.len()).and_then(|place| prompts.shown.get(place)).copied();
    arrange_to(model, kept)
}

fn arrange_to(model: &Model, kept: Option<u32>) -> Vec<Command> {
    let Some(open) = model.shared.task.clone() else { return Vec::new() };
    let prompts = &model.prompts;
    let (entries, tokens) = (prompts.entries.clone(), prompts.tokens.clone());
    let (filter, sort) = (prompts.filter.text().to_owned(), prompts.sort);
    let count = entries.len();
    vec![Work::latest(
        "prompts.rows",
        move |_| arranged(&open, &entries, &tokens, &filter, sort),
        move |model, shown| {
            if model.prompts.entries.len() != count {
                return Vec::new();
            }
            let place = kept.and_then(|kept| shown.iter().position(|index| *index == kept));
            model.prompts.shown = shown;
            model.prompts.cursor.index = place.unwrap_or(0);
            super::preview::show(model)
        },
    )]
}

/// Places in `entries` that the filter lets through, sorted.
fn arranged(open: &Arc<OpenTask>, entries: &[Entry], tokens: &[u32], filter: &str, (column, backwards): (Column, bool)) -> Vec<u32> {
    let mut shown: Vec<u32> = (0..entries.len() as u32).collect();
    let at = |index: u32| entries.get(index as usize).and_then(|entry| row(open, *entry));
    let mut words = Vec::new();
    for word in filter.split_whitespace() {
        let wanted = |value: &str| value.to_lowercase();
        match word.split_once(':') {
            Some(("set", value)) => {
                shown.retain(|index| entries.get(*index as usize).is_some_and(|entry| entry.set.name().starts_with(&wanted(value))))
            }
            Some(("tag", value)) => shown
                .retain(|index| at(*index).is_some_and(|row| row.tags.iter().any(|tag| tag.to_lowercase().starts_with(&wanted(value))))),
            Some(("id", value)) => shown.retain(|index| at(*index).is_some_and(|row| row.id.to_lowercase().contains(&wanted(value)))),
            Some(("expected", value)) => {
                shown.retain(|index| at(*index).is_some_and(|row| row.expected.is_some() != wanted(value).starts_with('n')))
            }
            _ => words.push(word),
        }
    }
    if !words.is_empty() {
        let mut found = containing(&shown, &words, at);
        if found.is_empty() {
            found = fuzzy::rank(&words.join(" "), &shown, |index| at(*index).map_or_else(String::new, searched));
        }
        if column == Column::File && !backwards {
            // The best first, unless an order was asked for.
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
