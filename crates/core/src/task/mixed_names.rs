//! Names of sets, prompts and metrics in a run of several tasks.

/// Prefix of a task's metrics.
pub(crate) const TASK_METRIC: &str = "task/";

/// `test:NAME`; with an empty `task`, that of a run's only task, just `test` or `eval`.
pub fn task_set(set: &str, task: &str) -> String {
    if task.is_empty() {
        set.to_owned()
    } else {
        format!("{set}:{task}")
    }
}

/// Inverse of [`task_set`]: set and task.
pub fn split_task_set(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or((name, ""))
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
        assert_eq!(split_task_set(&task_set("eval", "a-b")), ("eval", "a-b"));
        assert_eq!(split_task_set(&task_set("test", "")), ("test", ""));
        assert_eq!(
            split_task_metric(&task_metric("a", "tiers/valid")),
            Some(("a", "tiers/valid"))
        );
        assert_eq!(split_task_metric("reward"), None);
    }
}
