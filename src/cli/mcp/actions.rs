//! What the tools do that read, sample and train: commands of the program with their `--json`, and what runs record.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::budget::{FinalEval, Record, StartedRun, steps_left_text};
use super::call::{Arguments, Call};
use super::workspace::{NamedTask, Workspace};
use super::{Server, child};
use crate::cli::runs::{step_rollouts, without_test_set};
use crate::config::{Assignments, KEYS, Layers};
use crate::dataset;
use crate::files::{Access, ensure_folder};
use crate::format::did_you_mean;
use crate::report::{Report, RunRow, spread};
use crate::run::{RESULT_FILE, RunDirectory, State, Status, task_folder};
use crate::score::Task;
use crate::task::{PromptSet, TASK_FILE};

/// Keys that the server sets, or that arguments of `train` set.
const OWN_KEYS: [&str; 6] = [
    "base_model",
    "method",
    "max_steps",
    "max_minutes",
    "ranks",
    "test_eval",
];
const STATUS_POLL: Duration = Duration::from_millis(250);

pub(super) type Result<T = Value> = std::result::Result<T, String>;

/// Words of a command.
pub(super) struct Words(Vec<String>);

impl Words {
    pub(super) fn new(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }

    pub(super) fn with(mut self, words: impl IntoIterator<Item = String>) -> Self {
        self.0.extend(words);
        self
    }

    /// `--NAME=VALUE`: a value that begins with a hyphen stays a value.
    pub(super) fn option(self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        self.with(value.map(|value| format!("--{name}={value}")))
    }

    pub(super) fn flag(self, name: &str, is_given: bool) -> Self {
        self.with(is_given.then(|| format!("--{name}")))
    }

    pub(super) fn run(&self, server: &Server, call: &Call, input: Option<&[u8]>) -> Result {
        child::run(server, call, &self.0, input)
    }
}

impl Server {
    fn runs(&self) -> String {
        self.workspace.root().join("runs").display().to_string()
    }

    /// Runs what takes device time but is not a run, within the budget.
    fn on_device(&self, call: &Call, words: &Words) -> Result {
        if self.limits.minutes.is_some() {
            let spent = self.record()?.spent(&self.workspace.run_folders());
            let left = self.limits.minutes_left(&spent);
            if left.is_some_and(|left| left <= 0.0) {
                return Err("no device time is left of the budget".to_owned());
            }
        }
        self.charged(|| words.run(self, call, None))
    }

    /// Counts the time of some work.
    fn charged(&self, work: impl FnOnce() -> Result) -> Result {
        let begun = Instant::now();
        let result = work();
        if self.limits.minutes.is_some() {
            let mut budget = self.budget()?;
            budget.record.other_seconds += begun.elapsed().as_secs_f64();
            budget.save()?;
        }
        result
    }

    pub(super) fn record(&self) -> Result<Record> {
        Record::read(self.workspace.root())
    }

    fn report(&self, run: &str) -> Result<Report> {
        report_of(self.workspace.run(run)?, &self.record()?)
    }
}

/// A run as the client may see it: without the test set until that was read.
fn report_of(run: RunDirectory, record: &Record) -> Result<Report> {
    let report = Report::read(run).map_err(|error| error.to_string())?;
    Ok(match record.final_eval {
        Some(_) => report,
        None => without_test_set(report),
    })
}

pub(super) fn doctor(server: &Server, call: &Call, _: &Arguments) -> Result {
    Words::new(&["doctor", "--json"])
        .option("runs", Some(server.runs()))
        .run(server, call, None)
}

pub(super) fn status(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let Some(run) = arguments.text("run") else {
        return overview(server);
    };
    let wait = Duration::from_secs(arguments.whole("wait_seconds").unwrap_or(0));
    let directory = server.workspace.run(run)?;
    let begun = Instant::now();
    let state = || State::observe(directory.path());
    while begun.elapsed() < wait && !call.is_cancelled() {
        let state = state();
        if state.as_ref().is_some_and(|state| state.status.is_ended()) {
            break;
        }
        let text = state.map_or_else(
            || "created".to_owned(),
            |state| format!("{}, step {}", state.status.name(), state.step),
        );
        call.progress(&text, Some(wait));
        std::thread::sleep(STATUS_POLL);
    }
    let report = report_of(directory, &server.record()?)?;
    let row = RunRow::from_report(&report);
    let evals: Vec<Value> = report.history.evals.values().map(|eval| {
        let summary = &eval.summary;
        json!({"set": eval.set, "step": eval.step, "target": eval.target, "n": summary.n, "parse": summary.parse, "valid": summary.valid, "exact": summary.exact})
    }).collect();
    let metrics: Value = report
        .history
        .metrics
        .keys()
        .map(|name| (name.clone(), json!(report.metric(name, false))))
        .collect();
    let mut document = row.document();
    document["evals"] = evals.into();
    document["metrics"] = metrics;
    document["checkpoints"] = json!(report.checkpoints);
    document["warnings"] = json!(report.warnings);
    Ok(document)
}

fn overview(server: &Server) -> Result {
    let folders = server.workspace.run_folders();
    let record = server.record()?;
    let runs = folders.list().into_iter().map(|(path, run)| {
        let run = run.map_err(|error| error.to_string());
        match run.and_then(|run| report_of(run, &record)) {
            Ok(report) => picked(
                &RunRow::from_report(&report).document(),
                &[
                    "id",
                    "name",
                    "task",
                    "status",
                    "step",
                    "total_steps",
                    "base_model",
                    "valid_set",
                    "valid",
                    "exact",
                    "base_valid",
                    "base_exact",
                    "best",
                    "notes",
                ],
            ),
            Err(error) => json!({"path": path, "error": error}),
        }
    });
    let runs: Vec<Value> = runs.collect();
    Ok(json!({
        "workspace": server.workspace.root(), "allowed": server.allowed_names(), "tasks": server.workspace.task_names(), "runs": runs,
        "budget": server.limits.document(&record, &record.spent(&folders)),
    }))
}

/// Some fields of a document.
fn picked(document: &Value, fields: &[&str]) -> Value {
    fields
        .iter()
        .map(|field| (*field, document[*field].clone()))
        .collect()
}

pub(super) fn read(server: &Server, _: &Call, arguments: &Arguments) -> Result {
    let uri = arguments.required("uri");
    let offset = usize::try_from(arguments.whole("offset").unwrap_or(0)).unwrap_or(usize::MAX);
    super::results::piece(uri, &server.resource(uri)?, offset)
}

pub(super) fn task_check(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let NamedTask { argument, .. } = server.workspace.task(arguments.required("task"))?;
    Words::new(&["task", "check", &argument, "--json"]).run(server, call, None)
}

pub(super) fn audit(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let NamedTask { argument, .. } = server.workspace.task(arguments.required("task"))?;
    Words::new(&["task", "audit", &argument, "--json"])
        .flag("mutants", arguments.flag("mutants"))
        .run(server, call, None)
}

pub(super) fn score(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let NamedTask { task, argument } = server.workspace.task(arguments.required("task"))?;
    let completions = arguments.value("completions").and_then(Value::as_array);
    let completions: Vec<&Value> = completions.into_iter().flatten().collect();
    let ids = completions
        .iter()
        .filter_map(|one| one["prompt_id"].as_str());
    Workspace::check_prompts(&task, ids)?;
    let lines: String = completions.iter().map(|line| format!("{line}\n")).collect();
    Words::new(&["score", &argument, "--completions=-", "--json"]).run(
        server,
        call,
        Some(lines.as_bytes()),
    )
}

/// The model that is asked for, else the task's.
fn model(server: &Server, task: &Task, arguments: &Arguments) -> Result<String> {
    let model = arguments
        .text("model")
        .map_or_else(|| task.base_model(), str::to_owned);
    server.workspace.model(&model)
}

pub(super) fn sample(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let NamedTask { task, argument } = server.workspace.task(arguments.required("task"))?;
    let model = model(server, &task, arguments)?;
    let mut prompts: Vec<String> = arguments
        .texts("prompts")
        .into_iter()
        .map(str::to_owned)
        .collect();
    if prompts.is_empty() {
        let sets = [PromptSet::Eval, PromptSet::Train];
        let set = sets.into_iter().find(|set| task.set_file(*set).is_some());
        let set = set.ok_or_else(|| format!("{} has no prompts", task.name))?;
        let rows = dataset::load(&task, set).map_err(|error| error.to_string())?;
        prompts.extend(rows.into_iter().next().map(|row| row.id));
    }
    Workspace::check_prompts(&task, prompts.iter().map(String::as_str))?;
    let words = Words::new(&["sample", &argument, "--json"])
        .option("runs", Some(server.runs()))
        .option("model", Some(model))
        .option("n", arguments.whole("n"))
        .with(prompts.iter().map(|id| format!("--prompt={id}")))
        .flag("cpu", arguments.flag("cpu"));
    server.on_device(call, &words)
}

/// Assignments of `set`, of keys that are the client's.
fn assignments(server: &Server, task: &Task, arguments: &Arguments) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for assignment in arguments.texts("set") {
        let (key, value) = assignment.split_once('=').ok_or_else(|| {
            format!(
                "set {:?}: write KEY=VALUE",
                crate::format::shortened(assignment, 80)
            )
        })?;
        let names = KEYS.iter().map(|key| key.name);
        if !names.clone().any(|name| name == key) {
            let key = crate::format::shortened(key, 60);
            let hint = did_you_mean(&key, names);
            return Err(format!(
                "set {key:?}: unknown key{hint}; docs://configuration lists them"
            ));
        }
        if OWN_KEYS.contains(&key) {
            return Err(format!(
                "set {key:?}: this server sets it; train has arguments for model, method, steps and minutes"
            ));
        }
        if key == "teacher" && value != "expected" && !value.is_empty() {
            server.workspace.model(value)?;
        }
        all.push(format!("--set={assignment}"));
    }
    let toml = task.read(TASK_FILE).map_err(|error| error.to_string())?;
    let train = Assignments::from_task(&task.label(TASK_FILE), &String::from_utf8_lossy(&toml));
    let own = Layers {
        task: Some(train.map_err(|error| error.to_string())?),
        ..Layers::default()
    };
    // What is wrong in it the command says.
    let teacher = own
        .resolve()
        .map(|own| own.config.teacher)
        .unwrap_or_default();
    if !teacher.is_empty() && teacher != "expected" {
        server.workspace.model(&teacher)?;
    }
    Ok(all)
}

/// Assignments of [`OWN_KEYS`] that no argument of a command sets.
fn own_assignments(steps: Option<u64>, minutes: Option<f64>) -> impl Iterator<Item = String> {
    let steps = steps.map(|steps| format!("--set=max_steps={steps}"));
    let minutes = minutes.map(|minutes| format!("--set=max_minutes={minutes}"));
    let fixed = ["--set=ranks=1", "--set=test_eval=false"].map(str::to_owned);
    fixed.into_iter().chain(steps).chain(minutes)
}

pub(super) fn plan(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let NamedTask { task, argument } = server.workspace.task(arguments.required("task"))?;
    let words = Words::new(&["train", &argument, "--plan", "--json"])
        .option("runs", Some(server.runs()))
        .option("model", Some(model(server, &task, arguments)?))
        .with(assignments(server, &task, arguments)?)
        .with(own_assignments(arguments.whole("steps"), None))
        .flag("sample", arguments.flag("sample"))
        .flag("cpu", arguments.flag("cpu"));
    server.on_device(call, &words)
}

pub(super) fn train(server: &Server, _: &Call, arguments: &Arguments) -> Result {
    let NamedTask { task, argument } = server.workspace.task(arguments.required("task"))?;
    let steps = arguments.whole("steps").unwrap_or(0);
    let minutes = arguments.number("minutes");
    if let Some(wrong) = minutes.filter(|minutes| !(minutes.is_finite() && *minutes > 0.0)) {
        return Err(format!("minutes is {wrong}: give a number above 0"));
    }
    let words = Words::new(&["train", &argument, "--detach", "--json"])
        .option("runs", Some(server.runs()))
        .option("model", Some(model(server, &task, arguments)?))
        .option("method", arguments.text("method"))
        .option("name", arguments.text("name"))
        .with(assignments(server, &task, arguments)?);
    let mut budget = server.budget()?;
    if budget.record.is_closed {
        return Err("training is closed: final_eval has read the test set; a person opens a new budget by removing .grpo-tui/mcp.json".to_owned());
    }
    let spent = budget.record.spent(&server.workspace.run_folders());
    let minutes = server.limits.grant(&spent, steps, minutes)?;
    let words = words
        .with(own_assignments(Some(steps), minutes))
        .flag("cpu", arguments.flag("cpu"));
    // A worker that had started without being counted would be outside of the budget.
    let mut document = words.run(server, &Call::uncancelled(), None)?;
    let run = document["run"].as_str().unwrap_or_default().to_owned();
    budget.record.runs.push(StartedRun {
        run,
        steps,
        minutes,
    });
    budget.save()?;
    document["next"] = "status with run and wait_seconds".into();
    document["budget"] = server.limits.document(
        &budget.record,
        &budget.record.spent(&server.workspace.run_folders()),
    );
    Ok(document)
}

pub(super) fn metrics(server: &Server, _: &Call, arguments: &Arguments) -> Result {
    let report = server.report(arguments.required("run"))?;
    let all = &report.history.metrics;
    let known: Vec<&str> = all.keys().map(String::as_str).collect();
    let mut names = arguments.texts("names");
    if names.is_empty() {
        names.clone_from(&known);
    }
    if let Some(unknown) = names.iter().find(|name| !all.contains_key(**name)) {
        let hint = did_you_mean(unknown, known.iter().copied());
        return Err(format!(
            "no metric {unknown:?}{hint}; the run has {}",
            known.join(", ")
        ));
    }
    let steps = all.values().flat_map(|series| series.steps());
    let steps: std::collections::BTreeSet<u64> = steps.collect();
    let steps: Vec<f64> = steps.into_iter().map(|step| step as f64).collect();
    let points = usize::try_from(arguments.whole("points").unwrap_or(20)).unwrap_or(20);
    let steps: Vec<u64> = spread(&steps, points)
        .into_iter()
        .map(|step| step as u64)
        .collect();
    let series = names.iter().map(|name| {
        let values: Vec<Option<f64>> = steps
            .iter()
            .map(|step| report.history.metric_at(name, *step))
            .collect();
        ((*name).to_owned(), json!(values))
    });
    Ok(json!({"run": report.directory.id(), "steps": steps, "metrics": series.collect::<Value>()}))
}

pub(super) fn rollouts(server: &Server, _: &Call, arguments: &Arguments) -> Result {
    let run = server.workspace.run(arguments.required("run"))?;
    let limit = usize::try_from(arguments.whole("limit").unwrap_or(20)).unwrap_or(20);
    let (step, mut completions) =
        step_rollouts(&run, arguments.whole("step")).map_err(|failure| failure.message)?;
    let all = completions.len();
    if let Some(below) = arguments.number("below") {
        completions.retain(|one| one["reward"].as_f64().is_some_and(|reward| reward < below));
    }
    let matching = completions.len();
    completions.truncate(limit);
    for one in &mut completions {
        if let Some(fields) = one.as_object_mut() {
            fields.remove("messages");
            fields.remove("run");
            fields.remove("step");
        }
    }
    Ok(
        json!({"run": run.id(), "step": step, "completions_of_step": all, "matching": matching, "completions": completions}),
    )
}

pub(super) fn compare(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let runs = arguments.texts("runs");
    if !(1..=3).contains(&runs.len()) {
        return Err(format!("runs names {} runs: name one to three", runs.len()));
    }
    let ids = runs
        .iter()
        .map(|run| Ok(server.workspace.run(run)?.id().to_owned()));
    let mut names: Vec<String> = ids.collect::<Result<_>>()?;
    let on = arguments.text("on").unwrap_or("eval");
    let done = server.record()?.final_eval;
    if on == "test" {
        let Some(done) = &done else {
            return Err("the test set answers to final_eval alone, at the end of the budget: compare on the eval set".to_owned());
        };
        if names == [done.run.as_str()] {
            names = vec![
                server
                    .workspace
                    .root()
                    .join(&done.eval)
                    .display()
                    .to_string(),
            ];
        }
    }
    Words::new(&["runs", "compare", "--json"])
        .option("runs", Some(server.runs()))
        .option("on", Some(on))
        .with(names)
        .run(server, call, None)
}

pub(super) fn notes(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let run = server.workspace.run(arguments.required("run"))?;
    Words::new(&["runs", "annotate", "--json"])
        .option("runs", Some(server.runs()))
        .with([
            "--".to_owned(),
            run.id().to_owned(),
            arguments.required("text").to_owned(),
        ])
        .run(server, call, None)
}

pub(super) fn stop(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let run = server.workspace.run(arguments.required("run"))?;
    if !server.record()?.has_started(run.id()) {
        return Err(format!(
            "{} was not started by this server: a person stops it with `grpo-tui runs stop`",
            run.id()
        ));
    }
    Words::new(&["runs", "stop", "--json", run.id()])
        .option("runs", Some(server.runs()))
        .run(server, call, None)
}

/// The only tool that reads a test set: one eval of one run, after which nothing is trained. A ledger of looks counts
/// this eval as it counts those of the command line.
pub(super) fn final_eval(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let run = server.workspace.run(arguments.required("run"))?;
    let report = Report::read(run.clone()).map_err(|error| error.to_string())?;
    if report.status() != Status::Finished && report.status() != Status::Interrupted {
        return Err(format!(
            "{} is {}: final_eval needs a run that has ended",
            run.id(),
            report.status().name()
        ));
    }
    let names = run.task_names();
    let [name] = names.as_slice() else {
        return Err(format!(
            "{} has several tasks: a person evaluates it with `grpo-tui eval`",
            run.id()
        ));
    };
    let task = task_folder(run.path(), name);
    let has_test = Task::load(&task).map_err(|error| error.to_string())?;
    if has_test.set_file(PromptSet::Test).is_none() {
        return Err(format!(
            "the task of {} has no test set: add [prompts] test, and train again",
            run.id()
        ));
    }
    let eval = close_training(server, run.id(), arguments.flag("finish"))?;
    let folder = server.workspace.root().join(&eval);
    if !folder.join(RESULT_FILE).is_file() {
        let parent = folder.parent().unwrap_or(&folder);
        ensure_folder(parent, Access::Umask)
            .map_err(|error| format!("{}: {error}", parent.display()))?;
        let words = Words::new(&["eval", &task.display().to_string(), "--on=test", "--json"])
            .option("runs", Some(server.runs()))
            .option("out", Some(folder.display()))
            .option(
                "model",
                Some(format!("base={}", run.file().config.base_model)),
            )
            .option("model", Some(format!("trained={}@best", run.id())))
            .flag("cpu", arguments.flag("cpu"));
        server.charged(|| words.run(server, call, None))?;
    }
    let path = folder.join(RESULT_FILE);
    let bytes =
        crate::files::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found: Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let rates = |name: &str| {
        let fields = [
            "n",
            "parse",
            "valid",
            "valid_interval",
            "exact",
            "mean_tokens",
        ];
        picked(&found["targets"][name], &fields)
    };
    Ok(json!({
        "run": run.id(), "checkpoint": report.best(), "set": "test", "base": rates("base"), "trained": rates("trained"),
        "comparison": found["comparisons"][0], "eval": eval, "training_is_closed": true,
    }))
}

/// Closes training for good, and returns the folder of the final eval; the same run may ask again.
fn close_training(server: &Server, run: &str, finish: bool) -> Result<std::path::PathBuf> {
    let mut budget = server.budget()?;
    if let Some(done) = &budget.record.final_eval {
        return if done.run == run {
            Ok(done.eval.clone())
        } else {
            Err(format!(
                "the test set has answered, for {}: compare with on = test shows it again",
                done.run
            ))
        };
    }
    let spent = budget.record.spent(&server.workspace.run_folders());
    if let Some(active) = spent.active.first() {
        return Err(format!("{active} is active: wait for its end, or stop it"));
    }
    if !finish && !server.limits.is_spent(&spent) {
        let left = match server.limits.steps_left(&spent) {
            Some(left) => steps_left_text(left),
            None => "the budget has no limit of steps".to_owned(),
        };
        return Err(format!(
            "{left}: train on, or call final_eval with finish = true, which closes training"
        ));
    }
    let eval = std::path::PathBuf::from("evals").join(format!("final-{run}"));
    budget.record.is_closed = true;
    budget.record.final_eval = Some(FinalEval {
        run: run.to_owned(),
        eval: eval.clone(),
    });
    budget.save()?;
    Ok(eval)
}
