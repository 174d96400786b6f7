//! `grpo-tui eval import`: logs of other programs as an eval of a task, compared as our own.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::dataset::{MappingArguments, print_places};
use super::eval_report::{ReportArguments, about, document, result};
use super::output::eprint_line;
use super::rows::Rows;
use super::{Failure, Outcome};
use crate::dataset;
use crate::eval_log::{ImportedLog, ImportedTarget, Importer, LogOptions, inferred_task};
use crate::report::{EvalId, EvalResult, MAX_EVALS, Versus};
use crate::run::{EvalFolder, EvalSummary, sha256};
use crate::score::{Scorer, Task};
use crate::secrets::visible;
use crate::task::{PromptSet, SetName};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Logs: inspect's .eval or .json, promptfoo's JSON, lm-eval's samples_*.jsonl, verifiers' results.jsonl or traces.jsonl, TRL's
    /// completions, or tables with a prompt, a completion and a score (.jsonl, .json, .csv, .parquet). At most three models
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name of a model in the results, in the order of the logs; repeatable [default: the log's]
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Only these models of logs with several; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Task whose rows have the log's prompts [default: a task is inferred]
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Prompt set of the task: test, eval or train
    #[arg(long, value_name = "SET", default_value = "test", requires = "task")]
    on: SetName,
    /// Score the completions by the task, instead of with the log's scores
    #[arg(long, requires = "task", conflicts_with_all = ["score", "exact", "pass_at"])]
    rescore: bool,
    /// Score that decides valid, and exact where there is an expected answer [default: the log's first]
    #[arg(long, value_name = "NAME")]
    score: Option<String>,
    /// Score that decides exact
    #[arg(long, value_name = "NAME")]
    exact: Option<String>,
    /// Least score that passes
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        allow_negative_numbers = true,
        value_parser = finite
    )]
    pass_at: f64,
    /// Training steps of a trace [default: the last]
    #[arg(long, value_name = "A-B", value_parser = steps)]
    steps: Option<[u64; 2]>,
    #[command(flatten)]
    mapping: MappingArguments,
    /// Folder to create with the task, every answer and the result, for `runs compare` and the Eval screen
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    report: ReportArguments,
}

pub(super) fn run(mut arguments: Arguments) -> Outcome {
    arguments.report.check()?;
    if !arguments.rescore {
        let why = "a log's score does not say it: use valid or exact, or --task TASK --rescore";
        arguments.report.refuse(&EvalSummary::PARSE_RATES, why)?;
    }
    let task = arguments.task.as_deref().map(Task::resolve).transpose()?;
    let rows = match &task {
        Some(task) => Some(Rows::on(task, &set(&arguments.on)?)?),
        None => None,
    };
    let completion = arguments.mapping.take("completion");
    if let Some(score) = arguments.mapping.take("score") {
        arguments.score.get_or_insert(score);
    }
    let options = LogOptions {
        map: arguments.mapping.text()?,
        completion: completion.unwrap_or_default(),
        score: arguments.score.clone(),
        exact: arguments.exact.clone(),
        pass_at: arguments.pass_at,
        steps: arguments.steps,
        most: arguments.mapping.limit,
    };
    let mut importer = match &rows {
        Some(rows) => Importer::for_task(options, &rows.rows),
        None => Importer::new(options),
    };
    let mut models = Vec::new();
    let mut tasks = Vec::new();
    for file in &arguments.files {
        let log = importer.add(file, !arguments.rescore)?;
        tell(file, &log, arguments.mapping.skip_invalid)?;
        tasks.push(log.header.task.clone());
        for target in log.targets {
            models.push(Model {
                file: file.clone(),
                program: log.header.program,
                version: log.header.version.clone(),
                target,
            });
        }
    }
    let models = arguments.chosen(models)?;
    let name = tasks.iter().find(|name| !name.is_empty());
    if let Some(name) = name
        && let Some(other) = tasks.iter().find(|other| *other != name)
    {
        let other = if other.is_empty() { "unnamed" } else { other };
        eprint_line(&format!("the logs are of several tasks: {name}, {other}"));
    }
    let Source { files, about } = match (&task, rows) {
        (Some(task), Some(rows)) => Source {
            files: task.files()?,
            about: about(task, &rows),
        },
        _ => Source::inferred(name.map_or("", String::as_str), &importer.rows())?,
    };
    let has_expected =
        arguments.exact.is_some() || about.rows.values().any(|row| row.expected.is_some());
    arguments.report.check_expected(has_expected, "the logs")?;
    let scorer = match (&task, arguments.rescore) {
        (Some(task), true) => Some(Scorer::new(task)?),
        _ => None,
    };
    let imported = models
        .iter()
        .map(|model| (model.target.name.clone(), model.document(about.is_inferred)));
    let settings = Map::from_iter([
        ("task".to_owned(), json!(about.task)),
        ("set".to_owned(), json!(about.id.set)),
        ("imported".to_owned(), Value::Object(imported.collect())),
    ]);
    let mut evals = Vec::new();
    for model in models {
        let ImportedTarget {
            name,
            records,
            scored_by,
        } = model.target;
        let mut result = result(&about, name, records).scored_by(scored_by);
        if let (Some(scorer), Some(task)) = (&scorer, &task) {
            result = result.rescored(task, scorer)?;
        }
        evals.push(result);
    }
    let versus = Versus::from_evals(evals)?;
    let document = document(&versus, settings.clone());
    if let Some(out) = &arguments.out {
        // Only what can be compared is kept.
        let (folder, _) = EvalFolder::create(out, &files, None, &settings)?;
        for eval in &versus.evals {
            folder.write(&about.id.set, &eval.name, &eval.records)?;
        }
        folder.finish(&document)?;
    }
    arguments.report.write(&versus, document)
}

/// Says how a log was read; its malformed samples are a failure unless they may be left out.
fn tell(file: &Path, log: &ImportedLog, skip_invalid: bool) -> Result<(), Failure> {
    let label = file.display();
    for note in &log.notes {
        eprint_line(&visible(&format!("{label}: {note}")));
    }
    print_places(file, &log.problems, skip_invalid)
}

fn set(name: &SetName) -> Result<SetName, Failure> {
    match name.set() {
        Some(_) if name.task().is_empty() => Ok(name.clone()),
        _ => Err(Failure::usage(format!(
            "--on {name}: use test, eval or train"
        ))),
    }
}

fn finite(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|value: &f64| value.is_finite());
    found.ok_or_else(|| "must be a number".to_owned())
}

/// Parses `120` or `100-120`.
fn steps(text: &str) -> Result<[u64; 2], String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let step = |text: &str| text.trim().parse::<u64>().ok();
    match (step(first), step(last)) {
        (Some(first), Some(last)) if first <= last => Ok([first, last]),
        _ => Err("write a step, or the first and the last, such as 100-120".to_owned()),
    }
}

/// The completions of one model, and the log that they are from.
struct Model {
    file: PathBuf,
    program: &'static str,
    version: String,
    target: ImportedTarget,
}

impl Model {
    fn document(&self, is_inferred: bool) -> Value {
        json!({
            "file": self.file.file_name().unwrap_or_default().to_string_lossy(),
            "program": self.program, "format": self.version,
            "scored_by": self.target.scored_by, "task_inferred": is_inferred,
        })
    }
}

impl Arguments {
    /// The models to compare, under names of their own.
    fn chosen(&self, mut models: Vec<Model>) -> Result<Vec<Model>, Failure> {
        let names: Vec<String> = models
            .iter()
            .map(|model| model.target.name.clone())
            .collect();
        let all = names.join(", ");
        if let Some(unknown) = self.only.iter().find(|only| !names.contains(only)) {
            return Err(Failure::usage(format!(
                "--only {unknown}: the logs have {all}"
            )));
        }
        if !self.only.is_empty() {
            models.retain(|model| self.only.contains(&model.target.name));
        }
        if models.len() > MAX_EVALS {
            return Err(Failure::usage(format!(
                "{} models ({all}): compare at most {MAX_EVALS}, with --only NAME",
                models.len()
            )));
        }
        if self.name.len() > models.len() {
            return Err(Failure::usage(format!(
                "{} --name for {} models ({all})",
                self.name.len(),
                models.len()
            )));
        }
        for (model, name) in models.iter_mut().zip(&self.name) {
            model.target.name.clone_from(name);
        }
        let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
        for model in &models {
            let Model { file, target, .. } = model;
            if let Some(other) = seen.insert(target.name.clone(), file.clone()) {
                return Err(Failure::usage(format!(
                    "{} and {} are both named `{}`: give each a --name",
                    other.display(),
                    file.display(),
                    target.name
                )));
            }
        }
        Ok(models)
    }
}

/// The task of the eval, one that exists or one made of the logs' prompts.
struct Source {
    files: Vec<(String, Vec<u8>)>,
    /// What a result says of the task and its rows.
    about: EvalResult,
}

impl Source {
    fn inferred(name: &str, lines: &str) -> Result<Self, Failure> {
        let (task, files) = inferred_task(name, lines);
        let rows = dataset::load_from("the prompts of the logs", Cursor::new(lines))?;
        let about = EvalResult {
            id: EvalId {
                set: PromptSet::Test.into(),
                ..EvalId::default()
            },
            task,
            prompts_digest: sha256(lines.as_bytes()),
            is_inferred: true,
            rows: rows.into_iter().map(|row| (row.id.clone(), row)).collect(),
            ..EvalResult::default()
        };
        Ok(Self { files, about })
    }
}
