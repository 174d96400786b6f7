//! The findings of all rows, grouped by kind; a group is a filter of the table: `is:enum`.

use std::collections::BTreeMap;

use super::table_row::row;
use super::{Group, Prompts};
use crate::dataset::health::Level;
use crate::schema_draft::{Expected, SchemaDraft};
use crate::score::FailureClass;
use crate::shared::OpenTask;
use crate::task::PromptSet;

/// The groups: invalid expected answers by the schema in the editor, then what the check of the sets found.
pub(super) fn groups(prompts: &Prompts, draft: &SchemaDraft, open: &OpenTask) -> Vec<Group> {
    let mut invalid: BTreeMap<FailureClass, Vec<u32>> = BTreeMap::new();
    for (index, state) in draft.expected_rows().iter().enumerate() {
        if let Expected::Invalid(class) = state {
            invalid.entry(*class).or_default().push(index as u32);
        }
    }
    let mut groups: Vec<Group> = invalid
        .into_iter()
        .map(|(class, rows)| {
            let reasons = draft.expected.as_ref().map(|expected| &expected.reasons);
            let example = reasons
                .and_then(|reasons| reasons.get(&class))
                .cloned()
                .unwrap_or_default();
            let place = rows
                .first()
                .and_then(|index| place_of(prompts, open, *index));
            let title = format!("expected answer: {}", class.name());
            Group {
                kind: None,
                slug: slug(class.name()),
                title,
                level: Level::Error,
                count: rows.len(),
                rows,
                example,
                place,
            }
        })
        .collect();
    if let Some(Ok(health)) = &prompts.health {
        for group in &health.groups {
            let mut rows: Vec<u32> = group
                .rows
                .iter()
                .filter_map(|(set, line)| entry_at(prompts, open, *set, *line))
                .collect();
            rows.sort_unstable();
            rows.dedup();
            groups.push(Group {
                kind: Some(group.kind),
                slug: slug(&group.kind.title()),
                title: group.kind.title(),
                level: group.kind.level(),
                count: group.count,
                rows,
                example: group.example.clone(),
                place: group.rows.first().map(|(set, line)| (*set, *line as usize)),
            });
        }
    }
    groups.sort_by_key(|group| (group.level, std::cmp::Reverse(group.count)));
    groups
}

/// `wrong-type`
fn slug(title: &str) -> String {
    title.replace(' ', "-")
}

fn place_of(prompts: &Prompts, open: &OpenTask, index: u32) -> Option<(PromptSet, usize)> {
    let entry = *prompts.entries.get(index as usize)?;
    Some((entry.set, row(open, entry)?.line))
}

/// The entry of a line; `None` if that is not a row.
fn entry_at(prompts: &Prompts, open: &OpenTask, set: PromptSet, line: u32) -> Option<u32> {
    let rows = open.rows.get(&set)?.as_ref().ok()?;
    let index = rows
        .binary_search_by_key(&(line as usize), |row| row.line)
        .ok()?;
    let first = prompts.entries.partition_point(|entry| entry.set < set);
    Some((first + index) as u32)
}
