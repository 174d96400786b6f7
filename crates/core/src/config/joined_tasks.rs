//! Configuration of a run of several tasks: their `[train]` tables, which must agree. Each task
//! keeps its own `max_completion_tokens`.

use std::collections::BTreeMap;

use super::resolve::{Assignments, ConfigError, Entry, Layers, ResolvedConfig, Source};

/// The key that each task sets for itself.
const OWN_KEY: &str = "max_completion_tokens";

/// `[train]` of one of several tasks.
#[derive(Debug, Clone)]
pub struct TaskTable {
    pub task: String,
    pub train: Assignments,
}

#[derive(Debug, Clone)]
pub struct JoinedConfig {
    /// `max_completion_tokens` is the largest.
    pub resolved: ResolvedConfig,
    pub max_completion_tokens: Vec<usize>,
}

impl Layers {
    /// As [`Layers::resolve`], with the tables of all tasks (at least one) in place of
    /// [`Layers::task`].
    ///
    /// # Errors
    /// Also [`ConfigError::Conflict`] if two tasks set a key differently and neither `--config` nor
    /// `--set` decides.
    pub fn resolve_tasks(&self, tasks: &[TaskTable]) -> Result<JoinedConfig, ConfigError> {
        let base_model = self.base_model_of(tasks)?;
        let mut joined: BTreeMap<&str, (&TaskTable, &Entry)> = BTreeMap::new();
        let mut own_limits = vec![None; tasks.len()];
        for (table, own_limit) in tasks.iter().zip(&mut own_limits) {
            // Tables for other models are checked too.
            Layers {
                task: Some(table.train.clone()),
                ..self.clone()
            }
            .resolve()?;
            let entries = self.entries_for(&table.train, &base_model);
            let entries: BTreeMap<&str, &Entry> =
                entries.map(|entry| (entry.name.as_str(), entry)).collect();
            for (name, entry) in entries {
                if name == OWN_KEY {
                    *own_limit = Some(entry);
                } else if let Some(other) = joined.insert(name, (table, entry)) {
                    self.check_agree(other, (table, entry))?;
                }
            }
        }
        let entries: Vec<Entry> = joined
            .into_values()
            .map(|(_, entry)| entry.clone())
            .collect();
        let resolve = |limit: Option<&Entry>| {
            let entries = entries.iter().chain(limit).cloned().collect();
            Layers {
                task: Some(Assignments {
                    entries,
                    ..Assignments::default()
                }),
                ..self.clone()
            }
            .resolve()
        };
        let own_limits = own_limits
            .into_iter()
            .map(|own| own.map(|own| resolve(Some(own))).transpose());
        let own_limits = own_limits.collect::<Result<Vec<_>, ConfigError>>()?;
        let limit = |resolved: &ResolvedConfig| resolved.config.max_completion_tokens;
        let longest = match own_limits.iter().flatten().max_by_key(|own| limit(own)) {
            Some(own) => own.clone(),
            None => resolve(None)?,
        };
        // Without a limit of its own, a task takes that of the run.
        let of_task = |own: &Option<ResolvedConfig>| limit(own.as_ref().unwrap_or(&longest));
        let max_completion_tokens = own_limits.iter().map(of_task).collect();
        Ok(JoinedConfig {
            resolved: longest,
            max_completion_tokens,
        })
    }

    /// Returns the base model of all tasks.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] if two tasks name different ones and nothing else decides.
    pub fn base_model_of(&self, tasks: &[TaskTable]) -> Result<String, ConfigError> {
        let of_task = |table: &TaskTable| {
            table
                .train
                .entries
                .iter()
                .rfind(|entry| entry.name == "base_model")
                .cloned()
        };
        let named: Vec<_> = tasks
            .iter()
            .filter_map(|table| Some((table, of_task(table)?)))
            .collect();
        for pair in named.windows(2) {
            self.check_agree((pair[0].0, &pair[0].1), (pair[1].0, &pair[1].1))?;
        }
        let entries = named.into_iter().map(|(_, entry)| entry).collect();
        Ok(Layers {
            task: Some(Assignments {
                entries,
                ..Assignments::default()
            }),
            ..self.clone()
        }
        .asked_base_model())
    }

    /// Rejects two values of a key, unless `--config` or `--set` decides.
    fn check_agree(
        &self,
        a: (&TaskTable, &Entry),
        b: (&TaskTable, &Entry),
    ) -> Result<(), ConfigError> {
        let name = &b.1.name;
        let is_decided = || {
            let source = Layers {
                task: None,
                ..self.clone()
            }
            .resolve()
            .ok()
            .and_then(|mut found| found.sources.remove(name));
            matches!(source, Some(Source::File | Source::Set))
        };
        if a.1.value == b.1.value || is_decided() {
            return Ok(());
        }
        let [a, b] = [a, b]
            .map(|(table, entry)| format!("{} of {} ({})", entry.value, table.task, entry.place));
        let option = if name == "base_model" {
            "--model NAME".to_owned()
        } else {
            format!("--set {name}=VALUE")
        };
        let message = format!(
            "the tasks set `{name}` differently: {a} and {b}; choose one for the run with {option}"
        );
        Err(ConfigError::Conflict { message })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tables(texts: &[&str]) -> Vec<TaskTable> {
        let table = |(number, text): (usize, &&str)| {
            let task = format!("task-{number}");
            TaskTable {
                train: Assignments::from_task(&format!("{task}/task.toml"), text).unwrap(),
                task,
            }
        };
        texts.iter().enumerate().map(table).collect()
    }

    fn layers(set: &[&str]) -> Layers {
        Layers {
            set: set.iter().map(|text| (*text).to_owned()).collect(),
            ..Layers::default()
        }
    }

    #[test]
    fn tables_are_joined_and_each_task_keeps_its_limit() {
        // (--set, tables) -> (learning rate, limit of the run, limits of the tasks).
        let check = |set: &[&str], texts: &[&str], expected: (f64, usize, &[usize])| {
            let found = layers(set).resolve_tasks(&tables(texts)).unwrap();
            let config = found.resolved.config;
            let limits = found.max_completion_tokens;
            assert_eq!(
                (config.learning_rate, config.max_completion_tokens, &*limits),
                expected,
                "{set:?} {texts:?}"
            );
        };
        let default = Layers::default()
            .resolve()
            .unwrap()
            .config
            .max_completion_tokens;
        let a = "[train]\nlearning_rate = 1e-3\nmax_completion_tokens = 96\n";
        let of_tiny = "[train.model.tiny]\nmax_completion_tokens = 64\nlearning_rate = 2e-3\n";
        check(&["base_model=m"], &[a, ""], (1e-3, 96, &[96, 96]));
        check(
            &["base_model=m"],
            &["", ""],
            (4e-5, default, &[default, default]),
        );
        check(
            &["base_model=m"],
            &[a, "[train]\nmax_completion_tokens = 32"],
            (1e-3, 96, &[96, 32]),
        );
        check(
            &["base_model=m", "max_completion_tokens=70"],
            &[a, ""],
            (1e-3, 70, &[70, 70]),
        );
        let whole = "[train]\nlearning_rate = 1e-3\nmax_seq_len = 512\nmax_completion_tokens = 96";
        check(&["base_model=m"], &[whole, ""], (1e-3, 96, &[96, 96]));
        check(
            &["base_model=tiny"],
            &[of_tiny, of_tiny],
            (2e-3, 64, &[64, 64]),
        );
        check(
            &["base_model=tiny", "learning_rate=5e-3"],
            &[of_tiny, a],
            (5e-3, 96, &[64, 96]),
        );
    }

    #[test]
    fn a_contradiction_names_both_places_and_what_decides() {
        let check = |set: &[&str], texts: &[&str], expected: &str| {
            let error = layers(set).resolve_tasks(&tables(texts)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(
            &[],
            &["[train]\nlora_rank = 4", "[train]\n\nlora_rank = 8"],
            "the tasks set `lora_rank` differently: 4 of task-0 (task-0/task.toml line 2) and 8 of task-1 (task-1/task.toml line 3); choose one for \
             the run with --set lora_rank=VALUE",
        );
        check(
            &[],
            &["[train]\nbase_model = \"a\"", "[train]\nbase_model = \"b\""],
            "the tasks set `base_model` differently: \"a\" of task-0 (task-0/task.toml line 2) and \"b\" of task-1 (task-1/task.toml line 2); choose \
             one for the run with --model NAME",
        );
        check(
            &[],
            &["", "[train]\nlora_ranks = 4"],
            "task-1/task.toml line 2: unknown key `lora_ranks`; did you mean `lora_rank`?",
        );
    }
}
