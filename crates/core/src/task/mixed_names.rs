//! Names of sets, alerts, prompts and metrics in a run of several tasks.

use std::fmt::{Display, Formatter, Result};

use serde::{Deserialize, Serialize};

use super::task_files::PromptSet;

/// Prefix of a task's metrics.
pub(crate) const TASK_METRIC: &str = "task/";

/// The prompts of an eval: `test`, `test:TASK` in a run of several tasks, or a file of prompt rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum SetName {
    /// `task` is empty in a run of one task.
    Task {
        set: PromptSet,
        task: String,
    },
    File(String),
}

impl SetName {
    pub fn new(set: PromptSet, task: &str) -> Self {
        let task = task.to_owned();
        Self::Task { set, task }
    }

    /// The held-out sets of tasks: a run is judged by the first one available.
    pub fn held_out(tasks: &[&str]) -> Vec<Self> {
        [PromptSet::Test, PromptSet::Eval]
            .into_iter()
            .flat_map(|set| tasks.iter().map(move |task| Self::new(set, task)))
            .collect()
    }

    /// `None` for a file.
    pub fn set(&self) -> Option<PromptSet> {
        match self {
            Self::Task { set, .. } => Some(*set),
            Self::File(_) => None,
        }
    }

    /// Empty in a run of one task.
    pub fn task(&self) -> &str {
        match self {
            Self::Task { task, .. } => task,
            Self::File(_) => "",
        }
    }

    /// The same set of another task; with an empty name, in a run of one task.
    pub fn in_task(&self, task: &str) -> Self {
        let file = || self.clone();
        self.set().map_or_else(file, |set| Self::new(set, task))
    }
}

impl Default for SetName {
    fn default() -> Self {
        Self::File(String::new())
    }
}

impl From<PromptSet> for SetName {
    fn from(set: PromptSet) -> Self {
        Self::new(set, "")
    }
}

impl<T: AsRef<str>> From<T> for SetName {
    fn from(name: T) -> Self {
        let (set, task) = split(name.as_ref());
        let file = || Self::File(name.as_ref().to_owned());
        PromptSet::from_name(set).map_or_else(file, |set| Self::new(set, task))
    }
}

impl From<SetName> for String {
    fn from(name: SetName) -> Self {
        name.to_string()
    }
}

impl Display for SetName {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match self {
            Self::Task { set, task } => write(formatter, set.name(), task),
            Self::File(name) => formatter.pad(name),
        }
    }
}

/// What an alert is about: `RULE`, or `RULE:TASK` in a run of several tasks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct AlertRule {
    pub name: String,
    /// Empty for what tasks share, and in a run of one task.
    pub task: String,
}

impl<T: AsRef<str>> From<T> for AlertRule {
    fn from(rule: T) -> Self {
        let (name, task) = split(rule.as_ref());
        let (name, task) = (name.to_owned(), task.to_owned());
        Self { name, task }
    }
}

impl From<AlertRule> for String {
    fn from(rule: AlertRule) -> Self {
        rule.to_string()
    }
}

impl Display for AlertRule {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        write(formatter, &self.name, &self.task)
    }
}

/// `NAME:TASK`, or just `NAME`.
fn split(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or((name, ""))
}

fn write(formatter: &mut Formatter<'_>, name: &str, task: &str) -> Result {
    match task {
        "" => formatter.pad(name),
        _ => formatter.pad(&format!("{name}:{task}")),
    }
}

/// Set and id of `SET:ID`, which names a prompt whose id is in several sets.
pub fn split_set_prompt(name: &str) -> Option<(PromptSet, &str)> {
    let (set, id) = name.split_once(':')?;
    Some((PromptSet::from_name(set)?, id))
}

/// The prompt's id, prefixed with the task's name if there are several tasks.
pub fn task_prompt(task: &str, id: &str) -> String {
    if task.is_empty() {
        id.to_owned()
    } else {
        format!("{task}:{id}")
    }
}

/// `task/NAME/reward`.
pub fn task_metric(task: &str, metric: &str) -> String {
    format!("{TASK_METRIC}{task}/{metric}")
}

/// Inverse of [`task_metric`]; `None` for a metric of the whole run.
pub fn split_task_metric(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(TASK_METRIC)?.split_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_they_were_made() {
        let check = |name: &str, set: Option<PromptSet>, task: &str| {
            let found = SetName::from(name);
            assert_eq!((found.set(), found.task()), (set, task), "{name}");
            assert_eq!(found.to_string(), name);
        };
        check("eval:a-b", Some(PromptSet::Eval), "a-b");
        check("test", Some(PromptSet::Test), "");
        check("rows:2.jsonl", None, "");
        assert_eq!(SetName::from("proof:a"), SetName::new(PromptSet::Test, "a"));
        assert_eq!(AlertRule::from("forgetting:a").to_string(), "forgetting:a");
        assert_eq!(
            split_task_metric(&task_metric("a", "tiers/valid")),
            Some(("a", "tiers/valid"))
        );
        assert_eq!(split_task_metric("reward"), None);
    }
}
