//! The answers that are to be labelled for a check of the task's judge, and the labels of the task's file.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::items::Items;
use crate::files;
use crate::judge_check::{JudgedCriterion, LABELS_FILE, Label, criteria_of, read_labels};
use crate::score::Task;

#[derive(Debug)]
pub(super) struct LabelQueue {
    pub(super) path: PathBuf,
    pub(super) criteria: Vec<JudgedCriterion>,
    /// The completions when labelling began.
    pub(super) items: Arc<Items>,
    /// Those of them that answer a prompt and lacked a label.
    pub(super) open: Vec<usize>,
    /// The answer and the criterion that are asked for.
    pub(super) at: usize,
    pub(super) criterion: usize,
    pub(super) labels: Vec<Label>,
    /// Places that were left, for undo: answer, criterion, and whether a label was given there.
    pub(super) done: Vec<(usize, usize, bool)>,
}

/// The answers among `items` that lack a label, beside those of the task's file.
pub(super) fn begin(task: &Task, items: Arc<Items>) -> Result<LabelQueue, String> {
    let criteria = criteria_of(task);
    let path = task
        .folder()
        .map(|folder| folder.join(LABELS_FILE))
        .ok_or("the task has no folder")?;
    let file = path.display().to_string();
    let labels = match files::read(&path) {
        Ok(bytes) => read_labels(&file, &bytes, &criteria).map_err(|error| error.to_string())?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(format!("{file}: {error}")),
    };
    let mut queue = LabelQueue {
        path,
        criteria,
        items,
        open: Vec::new(),
        at: 0,
        criterion: 0,
        labels,
        done: Vec::new(),
    };
    let mut seen = HashSet::new();
    let is_open = |place: &usize| {
        let item = &queue.items.all[*place];
        let Some(row) = &item.row else { return false };
        let is_new = seen.insert((row.id.as_str(), item.text.as_str()));
        is_new && !item.text.trim().is_empty() && queue.missing(*place).is_some()
    };
    let open: Vec<usize> = (0..queue.items.all.len()).filter(is_open).collect();
    queue.open = open;
    queue.criterion = queue.first_missing();
    Ok(queue)
}

impl LabelQueue {
    pub(super) fn label_of(&self, place: usize) -> Option<usize> {
        let item = self.items.all.get(place)?;
        let id = item.row.as_ref().map(|row| row.id.as_str())?;
        self.labels
            .iter()
            .position(|label| label.prompt_id == id && label.completion == item.text)
    }

    /// The first criterion by which an answer has no label.
    pub(super) fn missing(&self, place: usize) -> Option<usize> {
        let given = self.label_of(place).map(|at| &self.labels[at].labels);
        self.criteria
            .iter()
            .position(|criterion| given.is_none_or(|given| !given.contains_key(&criterion.name)))
    }

    /// The criterion with which the answer that is asked for begins.
    pub(super) fn first_missing(&self) -> usize {
        self.open
            .get(self.at)
            .and_then(|place| self.missing(*place))
            .unwrap_or(0)
    }

    /// The answer and the criterion that are asked for; `None` once all have labels.
    pub(super) fn asked(&self) -> Option<(usize, &JudgedCriterion)> {
        Some((*self.open.get(self.at)?, self.criteria.get(self.criterion)?))
    }

    pub(super) fn next(&mut self) {
        let next = self
            .open
            .get(self.at)
            .and_then(|place| self.missing(*place));
        match next.filter(|criterion| *criterion > self.criterion) {
            Some(criterion) => self.criterion = criterion,
            None => {
                self.at += 1;
                self.criterion = self.first_missing();
            }
        }
    }

    pub(super) fn set(&mut self, place: usize, criterion: usize, points: Option<u8>) {
        let (Some(item), Some(criterion)) =
            (self.items.all.get(place), self.criteria.get(criterion))
        else {
            return;
        };
        let Some(row) = &item.row else { return };
        let new = Label {
            prompt_id: row.id.clone(),
            completion: item.text.clone(),
            labels: BTreeMap::new(),
            line: 0,
        };
        let at = self.label_of(place).unwrap_or(self.labels.len());
        if at == self.labels.len() {
            self.labels.push(new);
        }
        let labels = &mut self.labels[at].labels;
        match points {
            Some(points) => labels.insert(criterion.name.clone(), points),
            None => labels.remove(&criterion.name),
        };
        if labels.is_empty() {
            self.labels.remove(at);
        }
    }
}
