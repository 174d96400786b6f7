//! Looks at test sets, counted in a ledger beside the runs.
//!
//! A look is one evaluation on a test set that is shown: of a run's best checkpoint at the end, or by one `eval`,
//! however many models it compares. Not a look: the base's eval at the start of a run, a result shown again, a resumed
//! run or eval that had its look, the same answers from another eval, and a server compared with a run (`prove`), which answers for what was evaluated.
//! A comparison has the number of the latest look that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dataset;
use crate::files::{self, Checked};
use crate::format::{counted, percent_short};
use crate::run::clock::local_now;
use crate::run::error::RunError;
use crate::run::storage::directory::{host_name, sha256};
use crate::run::storage::durable::{append_line, ensure_folder, open_append, seal};
use crate::run::storage::folder::{user_id, user_name};
use crate::score::Task;
use crate::task::PromptSet;

/// In the folder of runs, so that all of them share it. A line per look.
const LEDGER: &str = ".test-looks.jsonl";

/// How long to wait for others who count a look.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Digits of a digest in the ledger.
const DIGITS: usize = 16;

/// A counted look, as the result has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TestLook {
    /// From 1, by the digest of the set's prompts.
    pub number: u64,
    /// The start of that digest, SHA-256 in hex.
    pub test_set: String,
    /// What has changed since earlier looks, and other test sets that have the same prompts; a sentence each.
    pub warnings: Vec<String>,
}

/// A line of the ledger.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    look: u64,
    test_set: String,
    task: String,
    /// What was evaluated: the same again, judged by the same files, is the same look.
    what: String,
    user: String,
    time: String,
    /// Digests of `task.toml` and the files that define right answers.
    files: BTreeMap<String, String>,
    /// Hashes of the prompts, in the first look at a set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prompts: Vec<String>,
}

impl TestLook {
    /// `look 7 of this test set`.
    pub fn name(&self) -> String {
        format!("look {} of this test set", self.number)
    }

    /// Counts a look at the task's test set in the ledger of `runs`. `what` names the evaluation among all of that
    /// folder; one that was counted with the same files of the task keeps its number.
    ///
    /// # Errors
    /// [`RunError`] if the set or the ledger cannot be read, or the ledger not be written.
    pub fn count(runs: &Path, task: &Task, what: &str) -> Result<Self, RunError> {
        let malformed = |error: dataset::DatasetError| RunError::malformed(runs, error);
        let rows = dataset::load(task, PromptSet::Test).map_err(malformed)?;
        let hashes: BTreeSet<String> = { rows.iter() }
            .map(|row| format!("{:016x}", row.prompt_hash()))
            .collect();
        let prompts: Vec<String> = hashes.into_iter().collect();
        let digest = |bytes: &[u8]| sha256(bytes).chars().take(DIGITS).collect::<String>();
        let file = |name: &str| Some((name.to_owned(), digest(&task.read(name).ok()?)));
        let entry = Entry {
            test_set: digest(prompts.join(" ").as_bytes()),
            task: task.name.clone(),
            what: what.to_owned(),
            user: format!("{}@{}", user_name(user_id()), host_name()),
            time: local_now().strftime("%Y-%m-%d %H:%M:%S%:z").to_string(),
            files: { task.definition_files().into_iter() }
                .filter_map(file)
                .collect(),
            prompts,
            look: 0,
        };
        ensure_folder(runs)?;
        let path = runs.join(LEDGER);
        let ledger = open_append(&path)?;
        // Released when the file is closed.
        if !files::lock_within(&ledger, LOCK_TIMEOUT).map_err(RunError::io("lock", &path))? {
            let held = std::io::Error::other("another process holds its lock");
            return Err(RunError::io("lock", &path)(held));
        }
        seal(&ledger, &path)?;
        let (look, line) = entry.counted_after(&read(&path)?);
        if let Some(mut line) = line {
            files::seal_line(&mut line);
            line.push(b'\n');
            append_line(&ledger, &path, &line, "look")?;
            ledger.sync_all().map_err(RunError::io("sync", &path))?;
        }
        Ok(look)
    }
}

impl Entry {
    /// The look, and its line unless it was counted before.
    fn counted_after(mut self, earlier: &[Self]) -> (TestLook, Option<Vec<u8>>) {
        let own: Vec<&Self> = { earlier.iter() }
            .filter(|look| look.test_set == self.test_set)
            .collect();
        let is_same = |look: &&Self| (&look.what, &look.files) == (&self.what, &self.files);
        let known = own.iter().position(is_same);
        let before = &own[..known.unwrap_or(own.len())];
        let number = known.map_or_else(
            || own.iter().map(|look| look.look).max().unwrap_or(0) + 1,
            |known| own[known].look,
        );
        let edited = before.last().into_iter().filter_map(|last| {
            let names: BTreeSet<&String> = self.files.keys().chain(last.files.keys()).collect();
            let is_edited = |name: &&&String| self.files.get(**name) != last.files.get(**name);
            let edited: Vec<&str> = names
                .iter()
                .filter(is_edited)
                .map(|name| name.as_str())
                .collect();
            (!edited.is_empty()).then(|| {
                let (files, look) = (edited.join(", "), last.look);
                format!("edited since look {look} of this test set: {files}")
            })
        });
        let looks = TestLook {
            number,
            warnings: edited.chain(self.overlaps(earlier)).collect(),
            test_set: self.test_set.clone(),
        };
        if known.is_some() {
            return (looks, None);
        }
        self.look = number;
        if !own.is_empty() {
            self.prompts.clear();
        }
        let line = serde_json::to_vec(&self).unwrap_or_default();
        (looks, Some(line))
    }

    /// Other test sets with prompts of this one, each in a sentence.
    fn overlaps(&self, earlier: &[Self]) -> Vec<String> {
        let own: BTreeSet<&String> = self.prompts.iter().collect();
        let other = |first: &Self| {
            let shared = first
                .prompts
                .iter()
                .filter(|hash| own.contains(hash))
                .count();
            let looks = earlier
                .iter()
                .filter(|look| look.test_set == first.test_set)
                .count();
            (shared > 0).then(|| {
                format!(
                    "{shared} of this test set's prompts ({}) are in test set {} of task {}, with {}: those do not count here",
                    percent_short(shared as f64 / own.len() as f64),
                    &first.test_set[..first.test_set.len().min(8)],
                    first.task,
                    counted(looks, "look"),
                )
            })
        };
        let firsts = earlier
            .iter()
            .filter(|look| !look.prompts.is_empty() && look.test_set != self.test_set);
        firsts.filter_map(other).collect()
    }
}

/// # Errors
/// [`RunError::Malformed`] with the line of a damaged entry: a count that may be too low is none.
fn read(path: &Path) -> Result<Vec<Entry>, RunError> {
    let text = files::read_text(path).map_err(RunError::io("read", path))?;
    let entry = |(index, line): (usize, &str)| {
        let malformed = |message: String| RunError::Malformed {
            path: path.to_owned(),
            line: Some(index + 1),
            message,
        };
        if files::check(line.as_bytes()) != Checked::Intact {
            let edited = "was edited or damaged, so looks at test sets cannot be counted: restore the line, or remove the file to count from 1";
            return Err(malformed(edited.to_owned()));
        }
        serde_json::from_str(line).map_err(|error| malformed(error.to_string()))
    };
    text.lines().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A task with a test set of those prompts.
    fn task(folder: &Path, schema: &str, prompts: &[&str]) -> Task {
        let row = |prompt: &&str| {
            format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"{prompt}\"}}]}}\n")
        };
        let rows: String = prompts.iter().map(row).collect();
        let files = [
            (
                "task.toml",
                "name = \"t\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"test.jsonl\"\ntest = \"test.jsonl\"\n",
            ),
            ("schema.json", schema),
            ("test.jsonl", &rows),
        ];
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        Task::load(folder).unwrap()
    }

    #[test]
    fn looks_are_counted_once_by_the_set_of_prompts() {
        let (home, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let runs = runs.path().join("runs");
        let check = |schema, prompts: &[&str], what, number, warnings: &[&str]| {
            let look = TestLook::count(&runs, &task(home.path(), schema, prompts), what).unwrap();
            assert_eq!(
                (look.number, look.warnings),
                (
                    number,
                    warnings
                        .iter()
                        .map(|text| (*text).to_owned())
                        .collect::<Vec<_>>()
                ),
                "{what}"
            );
            look.test_set
        };
        let (one, other) = (r#"{"type": "object"}"#, r#"{"type": "array"}"#);
        let set = check(one, &["a", "b"], "run 1", 1, &[]);
        // Neither the order of rows nor a repetition makes it another set.
        assert_eq!(check(one, &["b", "a", "a"], "run 2", 2, &[]), set);
        check(one, &["a", "b"], "run 1", 1, &[]);
        let edited = "edited since look 2 of this test set: schema.json";
        check(other, &["a", "b"], "run 3", 3, &[edited]);
        check(other, &["a", "b"], "run 4", 4, &[]);
        check(other, &["a", "b"], "run 3", 3, &[edited]);
        // The same answers judged otherwise are another look.
        check(
            one,
            &["a", "b"],
            "run 4",
            5,
            &["edited since look 4 of this test set: schema.json"],
        );
        let shared = format!(
            "1 of this test set's prompts (50%) are in test set {} of task t, with 5 looks: those do not count here",
            &set[..8]
        );
        let second = check(other, &["b", "c"], "run 5", 1, &[&shared]);
        let ledger = runs.join(LEDGER);
        let mode = std::fs::metadata(&ledger).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&ledger).unwrap();
        assert_eq!((text.lines().count(), text.contains('@')), (6, true));
        // A torn line was no look; an edited one is an error that names it.
        std::fs::write(&ledger, format!("{text}{{\"look\":")).unwrap();
        let shared = format!(
            "1 of this test set's prompts (50%) are in test set {} of task t, with 1 look: those do not count here",
            &second[..8]
        );
        check(one, &["a", "b"], "run 6", 6, &[&shared]);
        std::fs::write(&ledger, text.replacen("\"look\":2", "\"look\":0", 1)).unwrap();
        let error = TestLook::count(&runs, &task(home.path(), one, &["a"]), "run 7").unwrap_err();
        assert!(
            error
                .to_string()
                .contains(".test-looks.jsonl line 2: was edited"),
            "{error}"
        );
    }

    #[test]
    fn looks_at_the_same_time_have_different_numbers() {
        let (home, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let task = task(home.path(), r#"{"type": "object"}"#, &["a"]);
        let count = |run: usize| {
            TestLook::count(runs.path(), &task, &format!("run {run}"))
                .unwrap()
                .number
        };
        let mut numbers: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|run| scope.spawn(move || count(run))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
    }
}
