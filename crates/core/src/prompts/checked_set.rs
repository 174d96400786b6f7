//! A prompt set as it is checked: its rows are read once, and only what they are like stays in
//! memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use rayon::prelude::*;

use crate::dataset::{
    DatasetError, OnMalformed, PromptRow, has_own_schema, rows_on, visit_batches,
};
use crate::score::{LabelledField, Scorer, Task, labelled_fields, on_every_core};
use crate::task::PromptSet;

/// Rows whose labels are compared with their prompts, spread evenly.
const MAX_COMPARED: usize = 500;

/// What stays in memory of a row, or of a later turn of one.
#[derive(Debug, Clone, Copy)]
pub struct RowMark {
    /// 1-based.
    pub line: usize,
    /// From 0.
    turn: usize,
    pub(super) prompt_hash: u64,
    pub has_expected: bool,
    /// Whether a program proposed that.
    pub is_proposed: bool,
    pub has_demonstration: bool,
    has_own_schema: bool,
}

impl RowMark {
    fn new(row: &PromptRow, turn: usize) -> Self {
        Self {
            line: row.line,
            turn,
            prompt_hash: row.prompt_hash(),
            has_expected: row.expected.is_some(),
            is_proposed: row.expected.is_some() && row.is_proposed(),
            has_demonstration: row.has_demonstration(),
            has_own_schema: has_own_schema(row),
        }
    }
}

#[derive(Debug)]
pub struct CheckedSet<'t> {
    task: &'t Task,
    scorer: &'t Scorer,
    pub set: PromptSet,
    rows: usize,
    /// Of the rows, then of their later turns.
    pub(super) marks: Vec<RowMark>,
    /// Lines of the rows, then of later turns, whose answers cannot be scored, and why.
    pub(super) problems: Vec<(usize, String)>,
}

impl<'t> CheckedSet<'t> {
    /// Reads every set of the task.
    ///
    /// # Errors
    /// The first unreadable file or malformed line.
    pub fn all(task: &'t Task, scorer: &'t Scorer) -> Result<Vec<Self>, DatasetError> {
        PromptSet::ALL
            .into_iter()
            .filter(|set| task.set_file(*set).is_some())
            .map(|set| Self::load_with(task, scorer, set, &mut Err, &mut |_| {}))
            .collect()
    }

    /// Reads a set; `visit` gets each row.
    pub fn load_with(
        task: &'t Task,
        scorer: &'t Scorer,
        set: PromptSet,
        malformed: OnMalformed<'_>,
        visit: &mut dyn FnMut(&PromptRow),
    ) -> Result<Self, DatasetError> {
        let [mut marks, mut later_marks] = [Vec::new(), Vec::new()];
        let [mut problems, mut later_problems] = [Vec::new(), Vec::new()];
        visit_batches(task, set, malformed, &mut |rows| {
            let later: Vec<_> = rows
                .iter()
                .flat_map(|row| later_turns(scorer, row))
                .collect();
            marks.extend(rows.iter().map(|row| RowMark::new(row, 0)));
            later_marks.extend(later.iter().map(|(turn, row)| RowMark::new(row, *turn)));
            problems.extend(row_problems(scorer, rows.par_iter()));
            later_problems.extend(row_problems(scorer, later.par_iter().map(|(_, row)| row)));
            rows.iter().for_each(&mut *visit);
        })?;
        let rows = marks.len();
        marks.append(&mut later_marks);
        problems.append(&mut later_problems);
        Ok(Self {
            task,
            scorer,
            set,
            rows,
            marks,
            problems,
        })
    }

    /// Of the rows, in order.
    pub fn rows(&self) -> &[RowMark] {
        &self.marks[..self.rows]
    }

    /// Of the rows and later turns whose answers can be scored.
    pub(super) fn usable(&self) -> Vec<RowMark> {
        let unusable: HashSet<usize> = self.problems.iter().map(|(line, _)| *line).collect();
        let marks = self.marks.iter().copied();
        marks
            .filter(|mark| !unusable.contains(&mark.line))
            .collect()
    }

    /// All rows, read again.
    pub fn read_all(&self) -> impl Iterator<Item = PromptRow> {
        let lines = self.rows().iter().map(|mark| mark.line).collect();
        rows_on(self.task, self.set, lines).into_iter().flatten()
    }

    /// The marked rows, read again; none if the file no longer has them all.
    pub fn read(&self, marks: &[RowMark]) -> Vec<PromptRow> {
        let lines: HashSet<usize> = marks.iter().map(|mark| mark.line).collect();
        if lines.is_empty() {
            return Vec::new();
        }
        let turns = |row: PromptRow| {
            let (line, mut turns) = (row.line, vec![row]);
            let later: Vec<_> = later_turns(self.scorer, &turns[0]).collect();
            turns.extend(later.into_iter().map(|(_, row)| row));
            (line, turns)
        };
        let rows = rows_on(self.task, self.set, lines).into_iter().flatten();
        let rows: HashMap<usize, Vec<PromptRow>> = rows.map(turns).collect();
        let read = |mark: &RowMark| {
            let row = rows.get(&mark.line)?.get(mark.turn)?;
            (row.prompt_hash() == mark.prompt_hash).then(|| row.clone())
        };
        let rows: Option<_> = marks.iter().map(read).collect();
        rows.unwrap_or_default()
    }

    /// Whether the file still has the last row.
    pub fn has_last_row(&self) -> bool {
        let last = self.rows().last();
        last.is_none_or(|last| !self.read(&[*last]).is_empty())
    }

    /// [`labelled_fields`] of the rows and later turns, and how many were looked at.
    pub(super) fn labelled_fields(&self) -> (Vec<LabelledField>, usize) {
        if self.task.schema().is_none() {
            return (Vec::new(), 0);
        }
        let counts = |mark: &&RowMark| mark.has_expected && !mark.has_own_schema;
        let labelled: Vec<RowMark> = self.marks.iter().filter(counts).copied().collect();
        let rows = self.read(&spread(&labelled, MAX_COMPARED));
        let lines: BTreeSet<usize> = rows.iter().map(|row| row.line).collect();
        (labelled_fields(self.task, &rows), lines.len())
    }
}

/// At most so many, spread evenly.
pub(super) fn spread<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    let step = all.len().div_ceil(most).max(1);
    all.iter().copied().step_by(step).collect()
}

/// With their numbers, from 1.
fn later_turns(scorer: &Scorer, row: &PromptRow) -> impl Iterator<Item = (usize, PromptRow)> {
    let turns = match row.turn_count() {
        1 => Vec::new(),
        _ => row.all_turns(|expected, row| scorer.expected_completion(expected, Some(row))),
    };
    turns.into_iter().enumerate().skip(1)
}

fn row_problems<'r>(
    scorer: &Scorer,
    rows: impl ParallelIterator<Item = &'r PromptRow>,
) -> Vec<(usize, String)> {
    let problem = |row: &PromptRow| Some((row.line, scorer.row_problem(row)?));
    on_every_core(|| rows.filter_map(problem).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn marked_rows_and_turns_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "task.toml",
            "name = \"t\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"text\"\n",
        );
        let row = |id: &str, more: &str| {
            format!(r#"{{"id":"{id}","messages":[{{"role":"user","content":"{id}"}}]{more}}}"#)
        };
        let turns = r#","expected":"x","turns":[{"messages":[{"role":"user","content":"more"}],"expected":"y"}]"#;
        let lines =
            [&row("a", turns), "{", &row("a", ""), &row("b", "")].map(|line| line.to_owned());
        write("train.jsonl", &lines.join("\n"));
        let task = Task::load(folder.path()).unwrap();
        let scorer = Scorer::new(&task).unwrap();
        let (mut malformed, mut visited) = (Vec::new(), Vec::new());
        let set = CheckedSet::load_with(
            &task,
            &scorer,
            PromptSet::Train,
            &mut |error| {
                malformed.push(error.to_string());
                Ok(())
            },
            &mut |row| visited.push(row.id.clone()),
        )
        .unwrap();
        let ids = |rows: Vec<PromptRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(
            (malformed.len(), visited),
            (2, ids(set.read_all().collect()))
        );
        let all = set.read(&set.marks);
        let expected = all.iter().map(|row| row.expected.is_some());
        assert!(expected.eq(set.marks.iter().map(|mark| mark.has_expected)));
        assert_eq!(all[2].messages.len(), 3);
        assert_eq!(ids(all), ["a", "b", "a/2"]);
        assert_eq!(ids(set.read(&[set.marks[2], set.marks[0]])), ["a/2", "a"]);
        assert!(set.has_last_row());
        let other = [&lines[..3], &[row("c", "")]].concat();
        for changed in [&lines[..3], &other] {
            write("train.jsonl", &changed.join("\n"));
            assert_eq!(ids(set.read(&set.marks)), Vec::<String>::new());
            assert!(!set.has_last_row());
        }
    }
}
