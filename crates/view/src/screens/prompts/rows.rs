//! Filters and sorts rows in the background, so that large sets do not slow typing.

use std::sync::{Arc, OnceLock};

use memchr::memmem::Finder;
use rayon::prelude::*;

use super::table_row::{
    COLUMNS_OF_FILTER, Column, Entry, SEARCHED_LETTERS, first_words, flat, row, solve_rate,
};
use super::{Group, Prompts, ROWS, UNCOUNTED, findings, preview};
use crate::dataset::{PromptRow, schema_name};
use crate::fuzzy;
use crate::message::{Command, Sender, Work};
use crate::run::SolveRate;
use crate::schema_draft::Expected;
use crate::score::on_every_core;
use crate::shared::{OpenTask, Shared};
use crate::task::PromptSet;

/// The searched text of every entry, lower-case: id and prompt.
pub(super) fn searched_texts(open: &OpenTask, entries: &[Entry]) -> Vec<String> {
    let text = |entry: &Entry| {
        row(open, *entry).map_or_else(String::new, |row| {
            format!("{} {}", row.id, flat(row, SEARCHED_LETTERS)).to_lowercase()
        })
    };
    on_every_core(|| entries.par_iter().with_min_len(1_000).map(text).collect())
}

pub(super) fn read_again(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let Some(open) = &shared.task else {
        return Vec::new();
    };
    let mut entries = Vec::new();
    for (set, rows) in &open.rows {
        let count = rows.as_ref().map_or(0, Vec::len);
        entries.extend((0..count as u32).map(|index| Entry { set: *set, index }));
    }
    let place = prompts.select_next.take().and_then(|(set, line)| {
        entries.iter().position(|entry| {
            entry.set == set && row(open, *entry).is_some_and(|row| row.line >= line)
        })
    });
    prompts.shown = (0..entries.len() as u32).collect();
    prompts.tokens = vec![UNCOUNTED; entries.len()];
    prompts.searched = Arc::default();
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
pub(super) fn show_line(
    prompts: &mut Prompts,
    shared: &mut Shared,
    set: PromptSet,
    line: usize,
) -> Vec<Command> {
    let Some(open) = &shared.task else {
        return Vec::new();
    };
    let is_it =
        |entry: &Entry| entry.set == set && row(open, *entry).is_some_and(|row| row.line == line);
    let Some(place) = prompts.entries.iter().position(is_it) else {
        return Vec::new();
    };
    prompts.pane = Some(ROWS);
    prompts.filter = Default::default();
    arrange_to(prompts, shared, Some(place as u32))
}

fn is_plain(prompts: &Prompts) -> bool {
    prompts.filter.text().trim().is_empty() && prompts.sort == (Column::File, false)
}

/// Filters and sorts again; the cursor stays on its row if that is still visible.
pub(super) fn arrange(prompts: &Prompts, shared: &Shared) -> Vec<Command> {
    let selected = prompts
        .cursor
        .at(prompts.shown.len())
        .and_then(|place| prompts.shown.get(place))
        .copied();
    arrange_to(prompts, shared, selected)
}

fn arrange_to(prompts: &Prompts, shared: &Shared, selected: Option<u32>) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let filter = prompts.filter.text().to_owned();
    let groups = prompts
        .groups
        .iter()
        .filter(|group| filter.contains(&group.slug))
        .cloned()
        .collect();
    let query = Query {
        open,
        entries: prompts.entries.clone(),
        tokens: prompts.tokens.clone(),
        expected: shared.draft.expected_rows().to_vec(),
        searched: Arc::clone(&prompts.searched),
        groups,
        filter,
        sort: prompts.sort,
        solve_rates: match prompts.sort.0 {
            Column::SolveRate => prompts
                .entries
                .iter()
                .map(|entry| solve_rate(shared, *entry))
                .collect(),
            _ => Vec::new(),
        },
    };
    let count = query.entries.len();
    vec![Work::latest(
        "prompts.rows",
        move |sender| query.arranged(sender),
        move |prompts: &mut Prompts, shared, shown| {
            if prompts.entries.len() != count {
                return Vec::new();
            }
            let place =
                selected.and_then(|selected| shown.iter().position(|index| *index == selected));
            prompts.shown = shown;
            prompts.cursor.index = place.unwrap_or(0);
            preview::show(prompts, shared)
        },
    )]
}

/// After the findings of rows have changed: their groups, and the table if it depends on them.
pub(super) fn findings_changed(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let Some(open) = &shared.task else {
        return Vec::new();
    };
    prompts.groups = findings::groups(prompts, &shared.draft, open);
    let depends = prompts.sort.0 == Column::Expected
        || prompts
            .filter
            .text()
            .split_whitespace()
            .any(|word| word.starts_with("is:") || word.starts_with("expected:"));
    if depends {
        arrange(prompts, shared)
    } else {
        Vec::new()
    }
}

fn filter_rows(rows: &[u32], sender: &Sender, test: impl Fn(u32) -> bool + Sync) -> Vec<u32> {
    let passing = |some: &[u32]| {
        some.iter()
            .copied()
            .filter(|index| test(*index))
            .collect::<Vec<u32>>()
    };
    let wanted = rows.par_chunks(2_000).filter(|_| sender.is_wanted());
    on_every_core(|| wanted.flat_map_iter(passing).collect())
}

fn begins_with(text: &str, lower: &str) -> bool {
    match text.get(..lower.len()).filter(|start| start.is_ascii()) {
        Some(start) => start.eq_ignore_ascii_case(lower),
        None => text.to_lowercase().starts_with(lower),
    }
}

/// The filter and order of the table.
struct Query {
    open: Arc<OpenTask>,
    entries: Vec<Entry>,
    tokens: Vec<u32>,
    expected: Vec<Expected>,
    searched: Arc<OnceLock<Vec<String>>>,
    groups: Vec<Group>,
    filter: String,
    sort: (Column, bool),
    /// Solve rates by entry; empty unless the rows are sorted by them.
    solve_rates: Vec<Option<SolveRate>>,
}

impl Query {
    fn at(&self, index: u32) -> Option<&PromptRow> {
        row(&self.open, *self.entries.get(index as usize)?)
    }

    /// Whether a row matches `KEY:VALUE`; `None` if no column has that name.
    fn matches(&self, key: &str, value: &str, index: u32) -> Option<bool> {
        let of_row = |test: &dyn Fn(&PromptRow) -> bool| Some(self.at(index).is_some_and(test));
        let state = || {
            self.expected
                .get(index as usize)
                .copied()
                .unwrap_or_default()
        };
        match key {
            "set" => Some(
                self.entries
                    .get(index as usize)
                    .is_some_and(|entry| entry.set.name().starts_with(value)),
            ),
            "tag" => of_row(&|row| row.tags.iter().any(|tag| begins_with(tag, value))),
            "id" => of_row(&|row| row.id.to_lowercase().contains(value)),
            "expected" if value.starts_with('v') => Some(state() == Expected::Valid),
            "expected" if value.starts_with('i') => Some(matches!(state(), Expected::Invalid(_))),
            "expected" => of_row(&|row| row.expected.is_some() != value.starts_with('n')),
            "is" => Some(
                self.groups
                    .iter()
                    .any(|group| group.slug == value && group.rows.binary_search(&index).is_ok()),
            ),
            _ => None,
        }
    }

    /// Indices of the entries that match the filter, sorted; some of them once nobody wants them any more, since a key
    /// has followed.
    fn arranged(&self, sender: &Sender) -> Vec<u32> {
        let mut shown: Vec<u32> = (0..self.entries.len() as u32).collect();
        let lower = self.filter.to_lowercase();
        let mut words = Vec::new();
        for word in lower.split_whitespace() {
            match word
                .split_once(':')
                .filter(|(key, _)| COLUMNS_OF_FILTER.contains(key))
            {
                Some((key, value)) => {
                    shown = filter_rows(&shown, sender, |index| {
                        self.matches(key, value, index) == Some(true)
                    })
                }
                None => words.push(word),
            }
        }
        let (column, backwards) = self.sort;
        if !words.is_empty() {
            let texts = self
                .searched
                .get_or_init(|| searched_texts(&self.open, &self.entries));
            let finders: Vec<Finder> = words.iter().map(Finder::new).collect();
            let text = |index: u32| texts.get(index as usize).map_or("", String::as_str);
            let holds = |index| {
                finders
                    .iter()
                    .all(|word| word.find(text(index).as_bytes()).is_some())
            };
            let mut found = filter_rows(&shown, sender, holds);
            if found.is_empty() && sender.is_wanted() {
                found = fuzzy::rank(&words.join(" "), &shown, |index| text(*index).to_owned());
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
            Column::Id => {
                shown.sort_by_cached_key(|index| self.at(*index).map(|row| row.id.clone()))
            }
            Column::Tokens => shown.sort_by_key(|index| self.tokens.get(*index as usize).copied()),
            Column::Expected => {
                shown.sort_by_key(|index| self.expected.get(*index as usize).copied())
            }
            // The bits of numbers that are not negative are in their order.
            Column::SolveRate => shown.sort_by_key(|index| {
                self.solve_rates
                    .get(*index as usize)?
                    .map(|found| found.rate().to_bits())
            }),
            Column::Schema => {
                shown.sort_by_cached_key(|index| schema_name(&self.open.task, self.at(*index)?))
            }
            Column::Tags => {
                shown.sort_by_cached_key(|index| self.at(*index).map(|row| row.tags.clone()))
            }
            Column::Words => shown.sort_by_cached_key(|index| self.at(*index).map(first_words)),
        }
        if backwards {
            shown.reverse();
        }
        shown
    }
}
