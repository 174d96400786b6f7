//! How a task's files differ from the frozen copy of a run: by digest, and prompt sets by row.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::dataset::read_rows;
use crate::files;
use crate::run::storage::directory::{RunDirectory, sha256};
use crate::score::Task;
use crate::task::PromptSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    pub name: String,
    /// SHA-256 in the run; `None` if it did not have the file.
    pub before: Option<String>,
    /// SHA-256 now; `None` if the task has no such file any more.
    pub after: Option<String>,
    /// Changes of a prompt set that both tasks have and that can be read.
    pub rows: Option<RowChanges>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowChanges {
    pub added: usize,
    pub removed: usize,
    /// Rows of the same id with another content; without ids, such a row counts as removed and added.
    pub changed: usize,
}

pub fn task_changes(task: &Task, run: &RunDirectory) -> Vec<FileChange> {
    let then = &run.file().task_files;
    let texts: BTreeMap<String, Vec<u8>> = task.files().unwrap_or_default().into_iter().collect();
    let now: BTreeMap<&String, String> = texts
        .iter()
        .map(|(name, bytes)| (name, sha256(bytes)))
        .collect();
    // A run of an earlier version may have the check of its judge, which does not define the task.
    let names: BTreeSet<&String> = texts
        .keys()
        .chain(then.keys())
        .filter(|name| *name != "judge-check.json")
        .collect();
    let is_set = |name: &str| {
        PromptSet::ALL
            .into_iter()
            .any(|set| task.set_file(set) == Some(name))
    };
    let rows = |name: &String| {
        let before = files::read(&files::inside(&run.task_path(), name).ok()?).ok()?;
        RowChanges::between(&before, texts.get(name)?)
    };
    let differs = names
        .into_iter()
        .filter(|name| now.get(name) != then.get(*name));
    let change = |name: &String| FileChange {
        name: name.clone(),
        before: then.get(name).cloned(),
        after: now.get(name).cloned(),
        rows: is_set(name).then(|| rows(name)).flatten(),
    };
    differs.map(change).collect()
}

impl RowChanges {
    /// Compares two JSONL texts; `None` if a line of either is not a row.
    fn between(before: &[u8], after: &[u8]) -> Option<Self> {
        let (before, after) = (contents(before)?, contents(after)?);
        let changed = |(key, content): &(&String, &u64)| {
            before.get(*key).is_some_and(|other| other != *content)
        };
        Some(Self {
            added: after
                .keys()
                .filter(|key| !before.contains_key(*key))
                .count(),
            removed: before
                .keys()
                .filter(|key| !after.contains_key(*key))
                .count(),
            changed: after.iter().filter(changed).count(),
        })
    }

    /// `3 added, 1 changed`; empty where rows only moved.
    pub fn summary(self) -> String {
        let counts = [
            (self.added, "added"),
            (self.removed, "removed"),
            (self.changed, "changed"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A digest of each row by its id; of a row without one, by its content and how often that stood before.
fn contents(text: &[u8]) -> Option<HashMap<String, u64>> {
    let mut found = HashMap::new();
    let mut copies: HashMap<u64, usize> = HashMap::new();
    for row in read_rows("", text) {
        let row = row.ok()?;
        let mut hasher = DefaultHasher::new();
        let fields = row.fields.whole();
        serde_json::to_string(&fields).ok()?.hash(&mut hasher);
        let content = hasher.finish();
        let has_id = fields.get("id").is_some_and(|id| !id.is_null());
        let key = if has_id {
            format!("id {}", row.id)
        } else {
            let copy = copies.entry(content).or_default();
            *copy += 1;
            format!("{content} {copy}")
        };
        found.insert(key, content);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_by_id_or_else_by_content() {
        let line = |id: &str, text: &str| {
            let id = if id.is_empty() {
                String::new()
            } else {
                format!("\"id\":\"{id}\",")
            };
            format!("{{{id}\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}\n")
        };
        let check = |before: &[(&str, &str)], after: &[(&str, &str)], expected: &str| {
            let text = |rows: &[(&str, &str)]| {
                rows.iter()
                    .map(|(id, text)| line(id, text))
                    .collect::<String>()
            };
            let found = RowChanges::between(text(before).as_bytes(), text(after).as_bytes());
            assert_eq!(
                found.map(RowChanges::summary).as_deref(),
                Some(expected),
                "{before:?} {after:?}"
            );
        };
        check(&[("a", "1"), ("b", "2")], &[("b", "2"), ("a", "1")], "");
        check(
            &[("a", "1"), ("b", "2")],
            &[("b", "3"), ("c", "1")],
            "1 added, 1 removed, 1 changed",
        );
        check(
            &[("", "1"), ("", "2")],
            &[("", "2"), ("", "2"), ("", "3")],
            "2 added, 1 removed",
        );
        assert_eq!(RowChanges::between(b"no row\n", b""), None);
    }
}
