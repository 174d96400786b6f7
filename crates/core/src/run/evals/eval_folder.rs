//! The folder of a standalone eval: each target's answers, the task, prompts from outside the task,
//! and the result.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::eval_names::{self, recorded_file, word};
use super::eval_record::EvalRecord;
use super::speed_summary::SpeedSummary;
use super::summary::{eval_file, read_evals, write_evals};
use super::test_looks::TestLook;
use crate::files::{self, Checked};
use crate::run::error::RunError;
use crate::run::storage::durable::{
    append_line, ensure_folder, open_append, replace_file, replace_json, seal,
};
use crate::run::storage::lock::RunLock;
use crate::task::SetName;

pub const RESULT_FILE: &str = "eval.json";

/// The folder of an active eval, locked like a run's ([`RunLock::is_held`]).
#[derive(Debug)]
pub struct EvalFolder {
    path: PathBuf,
    _lock: RunLock,
}

impl EvalFolder {
    /// Creates the folder and writes the task's files and `prompts` from outside the task. Resumes
    /// an interrupted eval, or a finished one with missing endpoint answers, if files and
    /// `settings` (fields of its result) are equal; then also returns the earlier result.
    ///
    /// # Errors
    /// [`RunError::Evaluated`] if the folder has the result of another or a complete eval,
    /// [`RunError::Taken`] for a run's folder, [`RunError::InUse`] if an eval is active there,
    /// [`RunError::Io`].
    pub fn create(
        path: &Path,
        task_files: &[(String, Vec<u8>)],
        prompts: Option<&[u8]>,
        settings: &Map<String, Value>,
    ) -> Result<(Self, Option<Value>), RunError> {
        if path.join("run.toml").exists() {
            return Err(RunError::Taken {
                path: path.to_owned(),
            });
        }
        let files = task_files
            .iter()
            .map(|(name, bytes)| (Path::new("task").join(name), bytes.as_slice()));
        let files: Vec<_> = files
            .chain(prompts.map(|prompts| (PathBuf::from("prompts.jsonl"), prompts)))
            .collect();
        let earlier = crate::files::read_text(&path.join(RESULT_FILE)).ok();
        let earlier: Option<Value> =
            earlier.map(|text| serde_json::from_str(&text).unwrap_or_default());
        if let Some(earlier) = &earlier {
            let other = files.iter().find(|(name, bytes)| {
                crate::files::read(&path.join(name)).map_or(true, |stored| stored != *bytes)
            });
            let other = other.map(|(name, _)| format!("with another {}", name.display()));
            let why = other
                .or_else(|| other_settings(earlier, settings))
                .or_else(|| nothing_open(earlier));
            why.map_or(Ok(()), |why| {
                Err(RunError::Evaluated {
                    path: path.to_owned(),
                    why,
                })
            })?;
        }
        let path = std::path::absolute(path).map_err(RunError::io("find", path))?;
        ensure_folder(&path.join("evals"))?;
        let lock = RunLock::acquire(&path)?;
        for (name, bytes) in files {
            let file = path.join(name);
            ensure_folder(file.parent().unwrap_or(&path))?;
            replace_file(&file, bytes)?;
        }
        Ok((Self { path, _lock: lock }, earlier))
    }

    pub fn read(
        &self,
        set: &SetName,
        name: &str,
    ) -> Result<(Vec<EvalRecord>, Option<Box<SpeedSummary>>), RunError> {
        let older = || self.path.join(eval_file(0, word(set), &word(name)));
        let file = recorded_file(&self.path, set, name).unwrap_or_else(older);
        let records = read_evals(&file)?;
        Ok((records, StoredTarget::read(&self.path, name).speed))
    }

    pub fn write(&self, set: &SetName, name: &str, records: &[EvalRecord]) -> Result<(), RunError> {
        let (set, name) = eval_names::record(&self.path, set, name)?;
        write_evals(&self.path.join(eval_file(0, &set, &name)), records)
    }

    /// Opens a model's answers; returns the lines that an interrupted eval left.
    pub fn answers(&self, set: &SetName, name: &str) -> Result<(AnswerLog, Vec<String>), RunError> {
        let (set, name) = eval_names::record(&self.path, set, name)?;
        AnswerLog::open(self.path.join(format!("answers-{set}-{name}.jsonl")))
    }

    pub fn finish(&self, document: &Value) -> Result<(), RunError> {
        replace_json(&self.path.join(RESULT_FILE), document)
    }
}

fn other_settings(earlier: &Value, settings: &Map<String, Value>) -> Option<String> {
    let (name, _) = settings
        .iter()
        .find(|(name, value)| earlier[name.as_str()] != **value)?;
    Some(format!("with other settings ({name})"))
}

/// Describes an earlier result that has all answers; `None` if some are missing.
fn nothing_open(earlier: &Value) -> Option<String> {
    let targets = earlier["targets"].as_object();
    let is_open = |target: &Value| {
        target["endpoint_errors"]
            .as_u64()
            .is_some_and(|errors| errors > 0)
    };
    let is_any_open = targets.is_some_and(|targets| targets.values().any(is_open));
    (!is_any_open).then(|| "in which no answer is missing".to_owned())
}

/// What a standalone eval stores about a target besides its records; empty without a result.
#[derive(Debug, Default)]
pub struct StoredTarget {
    /// Describes how its prompts differ from the task's; empty if they do not.
    pub prompts: String,
    /// On the set of the eval's result.
    pub speed: Option<Box<SpeedSummary>>,
    /// That set.
    pub set: String,
    /// The score of another program's log that decides; empty for scores of our own.
    pub scored_by: String,
    /// On the test set: which look the eval is.
    pub look: Option<TestLook>,
    /// Whether its prompts are a log's rather than those of a task that was there before.
    pub is_inferred: bool,
}

impl StoredTarget {
    /// `target`: its name, or the name in the files of an older program's eval.
    pub fn read(folder: &Path, target: &str) -> Self {
        let text = crate::files::read_text(&folder.join(RESULT_FILE)).unwrap_or_default();
        let document: Value = serde_json::from_str(&text).unwrap_or_default();
        let of = |key: &str| {
            let targets = document[key].as_object()?;
            targets
                .iter()
                .find(|(name, _)| *name == target)
                .or_else(|| targets.iter().find(|(name, _)| word(name) == target))
                .map(|(_, value)| value.clone())
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let imported = of("imported").unwrap_or_default();
        Self {
            set: text(&document["set"]),
            prompts: text(&of("prompts").unwrap_or_default()["description"]),
            scored_by: text(&imported["scored_by"]),
            look: serde_json::from_value(document["look"].clone()).ok(),
            is_inferred: imported["task_inferred"] == true,
            speed: of("targets")
                .and_then(|summary| serde_json::from_value(summary["speed"].clone()).ok()),
        }
    }
}

/// A log of answers, appended one by one because they cost money or time.
#[derive(Debug)]
pub struct AnswerLog {
    path: PathBuf,
    file: File,
}

impl AnswerLog {
    /// Opens or creates the file; also returns its intact lines.
    pub fn open(path: PathBuf) -> Result<(Self, Vec<String>), RunError> {
        let file = open_append(&path)?;
        seal(&file, &path)?;
        let bytes = files::read(&path).map_err(RunError::io("read", &path))?;
        // Damaged answers are requested again.
        let intact = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| files::check(line) != Checked::Damaged)
            .filter_map(|line| String::from_utf8(line.to_vec()).ok());
        Ok((Self { path, file }, intact.collect()))
    }

    /// Removes the file once its answers are in the eval's records.
    pub fn remove(&self) -> Result<(), RunError> {
        std::fs::remove_file(&self.path).map_err(RunError::io("remove", &self.path))
    }

    pub fn append(&self, line: &str) -> Result<(), RunError> {
        let mut line = line.as_bytes().to_vec();
        files::seal_line(&mut line);
        line.push(b'\n');
        append_line(&self.file, &self.path, &line, "answer")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_whole_once_it_has_its_result() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("one");
        let files = [
            ("task.toml".to_owned(), b"name = \"x\"".to_vec()),
            ("sub/schema.json".to_owned(), b"{}".to_vec()),
        ];
        let settings = |seed: u32| {
            Map::from_iter([
                ("temperature".into(), 0.7.into()),
                ("seed".into(), seed.into()),
            ])
        };
        let create = |prompts: &str, settings: &Map<String, Value>| {
            EvalFolder::create(&path, &files, Some(prompts.as_bytes()), settings)
                .map(|(_, earlier)| earlier)
        };
        let (folder, earlier) =
            EvalFolder::create(&path, &files, Some(b"{}\n"), &settings(1)).unwrap();
        assert!(earlier.is_none());
        let set = SetName::from("my set/rows.jsonl");
        let records = [EvalRecord {
            prompt_id: "a".into(),
            ..EvalRecord::default()
        }];
        folder.write(&set, "second-model", &records).unwrap();
        assert!(
            path.join("evals/step-000000-rows-second_model.jsonl")
                .is_file()
                && path.join("task/sub/schema.json").is_file()
        );
        assert_eq!(folder.read(&set, "second-model").unwrap().0, records);
        // A model with the same file name.
        folder.write(&set, "second_model", &[]).unwrap();
        assert_eq!(folder.read(&set, "second-model").unwrap().0, records);
        let names: Vec<String> = eval_names::read_eval_names(&path)
            .into_values()
            .map(|name| format!("{} {}", name.set, name.target))
            .collect();
        assert_eq!(
            names,
            [
                "my set/rows.jsonl second-model",
                "my set/rows.jsonl second_model"
            ]
        );
        assert!(
            RunLock::is_held(&path)
                && matches!(create("{}\n", &settings(1)), Err(RunError::InUse { .. }))
        );
        let result = |errors: usize| serde_json::json!({"targets": {"a": {}, "b": {"endpoint_errors": errors}}, "temperature": 0.7, "seed": 1});
        folder.finish(&result(2)).unwrap();
        drop(folder);
        assert_eq!(create("{}\n", &settings(1)).unwrap(), Some(result(2)));
        let check = |prompts: &str, settings: &Map<String, Value>, expected: &str| {
            let error = create(prompts, settings).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "{}\n",
            &settings(2),
            "an eval with other settings (seed): choose",
        );
        check(
            "{}{}\n",
            &settings(1),
            "an eval with another prompts.jsonl: choose a new folder",
        );
        std::fs::write(path.join(RESULT_FILE), result(0).to_string()).unwrap();
        check(
            "{}\n",
            &settings(1),
            "an eval in which no answer is missing: choose a new folder",
        );
    }
}
