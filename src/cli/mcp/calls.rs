//! What a call does: a command of this program, within the budget and without the test sets, or one of `Own`.

use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Map, Value, json};

use super::budget::{Record, Spent, StartedRun};
use super::child::{self, Child};
use super::rpc::Call;
use super::tools::{Own, Tool};
use super::{Server, docs};
use crate::files::{Access, hide_files, replace_file};
use crate::run::{RESULT_FILE, State, Status, task_folder};
use crate::score::{Scorer, Task, Trust};
use crate::task::{PromptSet, TASK_FILE};

/// Keys that the server sets, or arguments of `train`.
const OWN_KEYS: &[&str] = &[
    "base_model",
    "method",
    "max_steps",
    "max_minutes",
    "ranks",
    "test_eval",
];
const STATUS_POLL: Duration = Duration::from_millis(250);

pub(super) type Result<T = Value> = std::result::Result<T, String>;

impl Server {
    pub(super) fn call(&self, call: &Call, tool: &Tool, given: &Map<String, Value>) -> Result {
        let hidden = hide_files(self.workspace.test_sets());
        let mut words = tool.words(self, given)?;
        let record = self.record()?;
        let spent = record.spent(&self.workspace);
        let limits = self.limits;
        let run = |words: &[String], prints_lines: bool, input: &str| {
            // Results on the test set are no secret after the last.
            let is_shown = tool.name == "status" && record.final_eval.is_some();
            let hidden = (!is_shown).then_some(hidden.as_str());
            child::run(
                self,
                call,
                words,
                &Child {
                    prints_lines,
                    hidden,
                    input,
                },
            )
        };
        let report = |words: &[&str], lines: bool| {
            let runs = format!("--runs={}", self.workspace.runs().display());
            let words = words
                .iter()
                .copied()
                .chain([runs.as_str()])
                .map(str::to_owned);
            run(&words.collect::<Vec<_>>(), lines, "")
        };
        match tool.name {
            "status" | "read" | "task_write" | "final_eval" => match Own::try_parse_from(&words).map_err(|error| error.to_string())? {
                Own::Status { run: None, .. } => {
                    let listed = match self.workspace.runs().is_dir() {
                        true => report(&["runs", "list", "--json"], true)?,
                        false => json!({"items": []}),
                    };
                    let (root, tasks) = (self.workspace.root(), self.workspace.task_names());
                    Ok(json!({"workspace": root, "tasks": tasks, "runs": listed["items"], "budget": limits.document(&spent), "final_eval": record.final_eval}))
                }
                Own::Status { run: Some(name), wait_seconds } => {
                    let directory = self.workspace.run(&name)?;
                    let (begun, wait) = (Instant::now(), Duration::from_secs(wait_seconds));
                    let is_ended = || State::observe(directory.path()).is_some_and(|state| state.status.is_ended());
                    while begun.elapsed() < wait && !call.is_cancelled() && !is_ended() {
                        call.progress("the run is active", begun);
                        std::thread::sleep(STATUS_POLL);
                    }
                    report(&["runs", "show", "--json", directory.id()], false)
                }
                Own::Read { uri, offset } => Ok(docs::piece(&uri, &self.resource(&uri)?, offset)),
                Own::TaskWrite { task, file, text } => self.task_write(&task, &file, &text),
                Own::FinalEval { run, finish, cpu } => self.final_eval(call, &spent, &run, (finish, cpu)),
            },
            "dataset_split" if !record.runs.is_empty() => Err("the sets stay as they are since the first run was started".to_owned()),
            "score" => {
                let lines = given.get("completions").and_then(Value::as_array);
                let lines: String = lines.into_iter().flatten().map(|line| format!("{line}\n")).collect();
                run(&words, true, &lines)
            }
            "plan" | "sample" => {
                limits.grant(&spent, 0, None)?;
                self.charged(|| run(&words, tool.prints_lines(), ""))
            }
            "train" => {
                let steps = given.get("steps").and_then(Value::as_u64).unwrap_or(0);
                let asked = given.get("minutes").and_then(Value::as_f64);
                let mut budget = self.budget()?;
                if budget.record.final_eval.is_some() {
                    return Err("training is closed: final_eval has read the test set; a person opens a new budget by removing .grpo-tui/mcp.json".to_owned());
                }
                let minutes = limits.grant(&budget.record.spent(&self.workspace), steps, asked)?;
                words.splice(1..1, minutes.filter(|_| asked.is_none()).map(|minutes| format!("--minutes={minutes}")));
                // Not to be cancelled: a worker that had started without being counted would be outside of the budget.
                let mut document = child::run(self, &Call::default(), &words, &Child { hidden: Some(&hidden), ..Child::default() })?;
                let run = document["run"].as_str().unwrap_or_default().to_owned();
                budget.change(|record| record.runs.push(StartedRun { run, steps, minutes }))?;
                document["budget"] = limits.document(&budget.record.spent(&self.workspace));
                Ok(document)
            }
            "stop" if !record.runs.iter().any(|started| words.last() == Some(&started.run)) => {
                Err("the run was not started by this server: a person stops it with `grpo-tui runs stop`".to_owned())
            }
            _ => run(&words, tool.prints_lines(), ""),
        }
    }

    pub(super) fn record(&self) -> Result<Record> {
        Record::read(self.workspace.root())
    }

    /// Counts the time of some work.
    fn charged(&self, work: impl FnOnce() -> Result) -> Result {
        let begun = Instant::now();
        let result = work();
        self.budget()?
            .change(|record| record.other_seconds += begun.elapsed().as_secs_f64())?;
        result
    }

    /// An assignment of a key that is the client's.
    pub(super) fn assignment(&self, text: &str) -> Result<String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match key.trim() {
            key if OWN_KEYS.contains(&key) => Err(format!(
                "set {key}: this server sets it, or another argument"
            )),
            "teacher" => self.check_model(value.trim()).map(|()| text.to_owned()),
            _ => Ok(text.to_owned()),
        }
    }

    fn check_model(&self, teacher: &str) -> Result<()> {
        match teacher {
            "" | "expected" => Ok(()),
            model => self.workspace.model(model).map(|_| ()),
        }
    }

    /// Whether the task's own teacher is the client's.
    pub(super) fn check_teacher(&self, task: &Task) -> Result<()> {
        let toml = task.read(TASK_FILE).map_err(|error| error.to_string())?;
        let toml = String::from_utf8_lossy(&toml)
            .parse::<toml::Table>()
            .unwrap_or_default();
        let teacher = toml
            .get("train")
            .and_then(|train| train.get("teacher")?.as_str());
        self.check_model(teacher.unwrap_or_default())
    }

    fn task_write(&self, task: &str, file: &str, text: &str) -> Result {
        let (task, _) = self.workspace.task(task)?;
        let Some(folder) = task.folder() else {
            return Err(format!(
                "{} is embedded: make a task of your own with task_new",
                task.name
            ));
        };
        let is_plain =
            file.ends_with(".json") && !file.contains(['/', '\\']) && !file.starts_with('.');
        let is_set = PromptSet::ALL
            .iter()
            .any(|set| task.set_file(*set) == Some(file));
        if file != TASK_FILE && !is_plain || is_set {
            return Err(format!(
                "file {file:?}: only {TASK_FILE} and .json files of the task's folder are written here; rows come by dataset_import, programs from a person"
            ));
        }
        let trusted = Trust::for_task(&task).map_err(|error| error.to_string())?;
        if trusted.iter().any(|trust| trust.is_trusted) {
            return Err(format!(
                "{}: a person has trusted what this task runs, so only a person edits it",
                task.name
            ));
        }
        let path = self
            .workspace
            .path(&folder.join(file).display().to_string())?;
        // Refuses a link to a test set, too.
        let before = match path.exists() {
            true => Some(crate::files::read(&path).map_err(|error| format!("{file}: {error}"))?),
            false => None,
        };
        let unchanged = |why: String| Err(format!("{file} was not changed: {why}"));
        let prompts = |text: &str| {
            text.parse::<toml::Table>()
                .ok()
                .map(|mut toml| toml.remove("prompts"))
        };
        let old = before.as_deref().map(String::from_utf8_lossy);
        if file == TASK_FILE && prompts(text) != old.and_then(|old| prompts(&old)) {
            return unchanged("give TOML with the same [prompts]: rows come by dataset_import, and the test set is not the client's".to_owned());
        }
        let mut names = Vec::new();
        let mut toml = text.parse::<toml::Table>().unwrap_or_default();
        toml.remove("prompts");
        let toml = toml::Value::Table(toml);
        strings(&toml, &mut names);
        for name in names {
            // A tool over files may name a test set.
            if let Some(path) = task.path(name).ok().filter(|path| path.is_file()) {
                crate::files::open(&path).map_err(|error| format!("{name}: {error}"))?;
            }
        }
        let write = |bytes: &[u8]| {
            replace_file(&path, bytes, Access::Umask)
                .map_err(|error| format!("{}: {error}", path.display()))
        };
        write(text.as_bytes())?;
        let checked = Task::load(folder)
            .map_err(|error| error.to_string())
            .and_then(|task| match Scorer::new(&task) {
                Err(error) if !error.is_of_command() => Err(error.to_string()),
                _ => Ok(()),
            });
        if let Err(why) = checked {
            match &before {
                Some(bytes) => write(bytes)?,
                None => std::fs::remove_file(&path).map_err(|error| error.to_string())?,
            }
            return unchanged(why);
        }
        Ok(json!({"task": task.name, "file": file, "bytes": text.len()}))
    }

    /// The only tool that reads a test set: one eval of one run, after which nothing is trained. A ledger of looks counts this
    /// eval as it counts those of the command line.
    fn final_eval(
        &self,
        call: &Call,
        spent: &Spent,
        name: &str,
        (finish, cpu): (bool, bool),
    ) -> Result {
        let run = self.workspace.run(name)?;
        let (id, names) = (run.id(), run.task_names());
        let status = State::observe(run.path()).map(|state| state.status);
        if !matches!(status, Some(Status::Finished | Status::Interrupted)) || names.len() != 1 {
            return Err(format!(
                "{id}: final_eval needs a run of one task that has ended"
            ));
        }
        let folder = task_folder(run.path(), names[0]);
        let task = Task::load(&folder).map_err(|error| error.to_string())?;
        if task.prompts.test.is_none() {
            return Err(format!(
                "the task of {id} has no test set: add [prompts] test, and train again"
            ));
        }
        let eval = format!("evals/final-{id}");
        let mut budget = self.budget()?;
        self.limits.close(&mut budget, spent, id, finish)?;
        drop(budget);
        let root = self.workspace.root();
        crate::files::ensure_folder(&root.join("evals"), Access::Umask)
            .map_err(|error| error.to_string())?;
        let mut words = vec![
            "eval".to_owned(),
            folder.display().to_string(),
            "--on=test".to_owned(),
            "--json".to_owned(),
            format!("--runs={}", self.workspace.runs().display()),
            format!("--out={}", root.join(&eval).display()),
            format!("--model=base={}", run.file().config.base_model),
            format!("--model=trained={id}@best"),
        ];
        words.extend(cpu.then(|| "--cpu".to_owned()));
        let path = root.join(&eval).join(RESULT_FILE);
        if !path.is_file() {
            self.charged(|| child::run(self, call, &words, &Child::default()))?;
        }
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = crate::files::read(&path).map_err(|error| named(&error))?;
        let found: Value = serde_json::from_slice(&bytes).map_err(|error| named(&error))?;
        let (targets, comparison) = (&found["targets"], &found["comparisons"][0]);
        Ok(
            json!({"run": id, "set": "test", "base": targets["base"], "trained": targets["trained"], "comparison": comparison, "eval": eval, "training_is_closed": true}),
        )
    }
}

fn strings<'v>(value: &'v toml::Value, found: &mut Vec<&'v str>) {
    match value {
        toml::Value::String(text) => found.push(text),
        toml::Value::Array(all) => all.iter().for_each(|one| strings(one, found)),
        toml::Value::Table(fields) => fields.values().for_each(|one| strings(one, found)),
        _ => {}
    }
}
