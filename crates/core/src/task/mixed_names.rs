//! Names in a run of several tasks: of a task's sets and of its metrics.

/// The start of the names of a task's metrics.
pub(crate) const TASK_METRIC: &str = "task/";

/// The name of a set of one of several tasks, `test:NAME`; `task`: empty for the only one, whose sets are `test` and
/// `eval`.
pub fn task_set(set: &str, task: &str) -> String {
    if task.is_empty() {
        set.to_owned()
    } else {
        format!("{set}:{task}")
    }
}

/// The set and the task of a name by [`task_set`].
pub fn split_task_set(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or((name, ""))
}

/// The name of a prompt: its id, of one of several tasks after the task's name.
pub fn task_prompt(task: &str, id: &str) -> String {
    if task.is_empty() {
        id.to_owned()
    } else {
        format!("{task}:{id}")
    }
}

/// The name of a metric of one of several tasks: `task/NAME/reward`.
pub fn task_metric(task: &str, metric: &str) -> String {
    format!("{TASK_METRIC}{task}/{metric}")
}

/// The task and the metric of a name by [`task_metric`]; `None` for a metric of the whole run.
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
