//! A row of the table: its position, its cells, its sort keys.

use crate::config::choices;
use crate::dataset::PromptRow;
use crate::followed_run::FollowedRun;
use crate::run::{RunDirectory, SolveRate};
use crate::shared::{OpenTask, Shared};
use crate::task::{PromptSet, task_prompt};

/// The most characters of a row that are shown and sorted by.
const FIRST_LETTERS: usize = 200;

/// The most characters of a row that are searched.
pub(super) const SEARCHED_LETTERS: usize = 2_000;

/// A row by its set and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub set: PromptSet,
    /// Its index in the set, from 0.
    pub index: u32,
}

choices! {
    /// A column of the table, in the order of the sort key.
    #[derive(Default)]
    Column {
        /// The order of the files.
        #[default]
        File = "file",
        Id = "id",
        /// Tokens of the prompt.
        Tokens = "tokens",
        /// The expected answer: invalid, absent, valid.
        Expected = "expected",
        /// Of the open run's latest group.
        SolveRate = "solve rate",
        /// The row's own schema.
        Schema = "schema",
        Tags = "tags",
        Words = "first words",
    }
}

pub(super) fn row(open: &OpenTask, entry: Entry) -> Option<&PromptRow> {
    open.rows
        .get(&entry.set)?
        .as_ref()
        .ok()?
        .get(entry.index as usize)
}

/// The open run, if it trains on the open task and knows the solve rate of a prompt.
fn run_with_rates(shared: &Shared) -> Option<(&FollowedRun, &RunDirectory)> {
    let run = shared
        .current_run()
        .filter(|run| !run.history.solve_rates.is_empty())?;
    let directory = run.directory.as_ref()?;
    directory
        .file()
        .is_of_task(&shared.task.as_ref()?.task.name)
        .then_some((run, directory))
}

pub(super) fn has_solve_rates(shared: &Shared) -> bool {
    run_with_rates(shared).is_some()
}

/// What the open run knows of a row; `None` of rows that it did not sample, such as those of other sets.
pub(super) fn solve_rate(shared: &Shared, entry: Entry) -> Option<SolveRate> {
    let (run, directory) = run_with_rates(shared).filter(|_| entry.set == PromptSet::Train)?;
    let open = shared.task.as_ref()?;
    let name = task_prompt(directory.task_like(&open.task.name), &row(open, entry)?.id);
    run.history.solve_rates.get(&name).copied()
}

pub(super) fn first_words(row: &PromptRow) -> String {
    flat(row, FIRST_LETTERS)
}

/// The user's prompt on one line, truncated to a number of characters.
pub(super) fn flat(row: &PromptRow, most: usize) -> String {
    let turn = row
        .messages
        .iter()
        .rev()
        .find(|turn| turn.role == "user")
        .or(row.messages.first());
    let mut line = String::new();
    for letter in turn
        .map_or("", |turn| turn.content.as_str())
        .chars()
        .take(most)
    {
        match letter.is_whitespace() || letter.is_control() {
            true if line.is_empty() || line.ends_with(' ') => {}
            true => line.push(' '),
            false => line.push(letter),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// Names before the colon in a filter such as `set:eval`.
pub(super) const COLUMNS_OF_FILTER: [&str; 5] = ["set", "tag", "id", "expected", "is"];

pub(super) fn plain_words(filter: &str) -> impl Iterator<Item = &str> {
    let is_plain = |word: &&str| {
        word.split_once(':')
            .is_none_or(|(key, _)| !COLUMNS_OF_FILTER.contains(&key))
    };
    filter.split_whitespace().filter(is_plain)
}
