//! `grpo-tui dataset import`: adds rows of a CSV, JSON, JSONL or Parquet file to a task's sets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::super::{Failure, Outcome, print_json};
use crate::dataset::import::{import, lines_of, not_valid_rows, parse_split, split, with_rows};
use crate::files::{Access, replace_files};
use crate::format::counted;
use crate::prompts::{CheckedSet, data_problems};
use crate::score::{Scorer, Task};
use crate::secrets::visible;
use crate::task::{PromptSet, TASK_FILE};

/// Problems that are listed; the rest is counted.
const MAX_LISTED: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Task: a folder, or a name in the workspace
    task: String,
    /// File of prompts: .csv (`,`, `;`, tab or `|`), .json (a list of objects), .jsonl or .parquet
    file: PathBuf,
    /// Set to add the rows to: train, eval or test
    #[arg(
        long,
        value_name = "SET",
        default_value = "train",
        conflicts_with = "split"
    )]
    set: String,
    /// Distribute the rows: percentages of train, eval and test, such as 80/10/10; rows of the same prompt stay together
    #[arg(long, value_name = "A/B/C", value_parser = parse_split)]
    split: Option<[usize; 3]>,
    #[command(flatten)]
    mapping: MappingArguments,
    /// Replace the rows of the set instead of adding to them
    #[arg(long)]
    replace: bool,
    /// Write nothing: show the mapping and the first row
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// How columns become parts of a row.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MappingArguments {
    /// Column of a part: prompt, system, expected, id, tags or schema; repeatable, else guessed by name. A prompt may be a
    /// template, `prompt=Read this: {{ text }}`. `expected` is a column of JSON, columns that become fields
    /// (`expected=vendor, total = amount`), or `last-turn` of conversations. A field of an object in a column is named
    /// with dots: `expected=reward_model.ground_truth`. `schema`: the JSON Schema of the row's own answer
    #[arg(long = "map", value_name = "PART=COLUMN")]
    map: Vec<String>,
    /// Read only the first N records
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    pub(in crate::cli) limit: usize,
    /// Leave out records that are not valid rows instead of failing
    #[arg(long)]
    pub(in crate::cli) skip_invalid: bool,
}

impl MappingArguments {
    pub(in crate::cli) fn text(&self) -> Result<crate::dataset::import::MappingText, Failure> {
        let mut text = crate::dataset::import::MappingText::default();
        for assignment in &self.map {
            text.set(assignment)
                .map_err(|problem| Failure::usage(format!("--map {problem}")))?;
        }
        Ok(text)
    }
}

/// Lists records that are not valid rows; a failure unless they are skipped.
pub(in crate::cli) fn print_problems(
    file: &Path,
    problems: &[(usize, String)],
    skip: bool,
) -> Result<(), Failure> {
    let place = |(line, problem): &(usize, String)| (format!("line {line}"), problem.clone());
    print_places(file, &problems.iter().map(place).collect::<Vec<_>>(), skip)
}

/// As [`print_problems`], by place.
fn print_places(file: &Path, problems: &[(String, String)], skip: bool) -> Result<(), Failure> {
    for (place, problem) in problems.iter().take(MAX_LISTED) {
        eprintln!("{} {place}: {}", file.display(), visible(problem));
    }
    if problems.len() > MAX_LISTED {
        eprintln!("... {} more", problems.len() - MAX_LISTED);
    }
    match problems.len() {
        0 => Ok(()),
        left_out if skip => {
            eprintln!("{} left out", counted(left_out, "record"));
            Ok(())
        }
        bad => Err(Failure::failed(format!(
            "{}, nothing was written; correct {}, change the mapping (--map), or add --skip-invalid",
            not_valid_rows(bad),
            if bad == 1 { "it" } else { "them" }
        ))),
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let imported = import(
        &arguments.file,
        &arguments.mapping.text()?,
        Some(&task.expected_schema()),
        arguments.mapping.limit,
    )?;
    print_problems(
        &arguments.file,
        &imported.problems,
        arguments.mapping.skip_invalid || arguments.dry_run,
    )?;
    let mapping = imported.mapping.arguments();
    let first = imported.rows.first().cloned();
    let (skipped, total) = (imported.problems.len(), imported.rows.len());
    let sets = match arguments.split {
        Some(shares) => split(imported.rows, shares).into_iter().collect(),
        None => {
            let set = PromptSet::from_name(&arguments.set).ok_or_else(|| {
                Failure::usage(format!("--set {}: use train, eval or test", arguments.set))
            })?;
            vec![(set, imported.rows)]
        }
    };
    let counts: serde_json::Map<_, _> = sets
        .iter()
        .map(|(set, rows)| (set.name().to_owned(), json!(rows.len())))
        .collect();
    if arguments.dry_run {
        if arguments.json {
            let document =
                json!({"mapping": mapping, "rows": counts, "skipped": skipped, "first_row": first});
            return print_json(document);
        }
        println!("mapping: {}", visible(&mapping.join("  ")));
        println!(
            "{}; the first:\n{}",
            counted(total, "row"),
            visible(&json!(first).to_string())
        );
        println!("nothing written (--dry-run)");
        return Ok(ExitCode::SUCCESS);
    }
    // All texts before the first file is written.
    let mut texts = Vec::new();
    for (set, rows) in sets.iter().filter(|(_, rows)| !rows.is_empty()) {
        texts.push((
            path_of(&task, *set)?,
            text_of(&task, *set, rows, arguments.replace)?,
            rows.len(),
        ));
    }
    let files: Vec<(&Path, &[u8])> = texts
        .iter()
        .map(|(path, text, _)| (path.as_path(), text.as_bytes()))
        .collect();
    replace_files(&files, Access::Umask).map_err(|(path, error)| {
        Failure::failed(format!("{}: {error}; no set was changed", path.display()))
    })?;
    let scorer = Scorer::new(&task)?;
    let problems: Vec<String> = data_problems(&task, &scorer, &written_sets(&task, &scorer)?)
        .into_iter()
        .map(|problem| problem.message)
        .collect();
    if arguments.json {
        let document =
            json!({"mapping": mapping, "rows": counts, "skipped": skipped, "problems": problems});
        return print_json(document);
    }
    println!("mapping: {}", visible(&mapping.join("  ")));
    for (path, _, rows) in &texts {
        let how = if arguments.replace {
            "replacing its own"
        } else {
            "added"
        };
        println!("{}: {} {how}", path.display(), counted(*rows, "row"));
    }
    problems
        .iter()
        .for_each(|problem| println!("problem: {}", visible(problem)));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn path_of(task: &Task, set: PromptSet) -> Result<PathBuf, Failure> {
    let name = set.name();
    let file = task.set_file(set).ok_or_else(|| {
        Failure::usage(format!(
            "{} has no `{name}` prompts; add `{name} = \"{name}.jsonl\"` under [prompts]",
            task.label(TASK_FILE)
        ))
    })?;
    if task.folder().is_none() {
        return Err(Failure::usage(format!(
            "{} is embedded in the program; copy it with `grpo-tui init DIR`, or create a task with `grpo-tui task new`",
            task.name
        )));
    }
    Ok(task.path(file)?)
}

fn text_of(
    task: &Task,
    set: PromptSet,
    rows: &[serde_json::Map<String, serde_json::Value>],
    replace: bool,
) -> Result<String, Failure> {
    let Some(file) = task.set_file(set).filter(|_| !replace) else {
        return Ok(lines_of(rows));
    };
    let path = task.path(file)?;
    let text = if path.exists() {
        String::from_utf8(task.read(file)?.into_owned())?
    } else {
        String::new()
    };
    Ok(with_rows(&task.label(file), &text, rows)?)
}

/// The sets that have rows; one that is still empty is not a problem of the import.
fn written_sets<'t>(task: &'t Task, scorer: &'t Scorer) -> Result<Vec<CheckedSet<'t>>, Failure> {
    let filled = |set: PromptSet| {
        let path = task.path(task.set_file(set)?).ok()?;
        std::fs::metadata(path).ok().filter(|found| found.len() > 0)
    };
    match PromptSet::ALL
        .into_iter()
        .filter(|set| task.set_file(*set).is_some())
        .all(|set| filled(set).is_some())
    {
        true => Ok(CheckedSet::all(task, scorer)?),
        false => Ok(Vec::new()),
    }
}
