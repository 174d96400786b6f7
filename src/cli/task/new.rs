//! `grpo-tui task new`: writes the folder of a new task.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::super::dataset::{MappingArguments, print_problems};
use super::super::{Failure, Outcome, print_json};
use crate::dataset::import::{column_samples, columns, parse_split, read_records};
use crate::dataset::new_task::{MAX_RECORDS, NewTask, ROW_FORMAT, Sources, folder_of};
use crate::prompts::{CheckedSet, data_problems};
use crate::score::{ScoreError, Scorer, Task};
use crate::secrets::{visible, visible_lines};

use super::python_schema::PythonClass;

#[derive(Debug, clap::Args)]
#[command(after_long_help = after_help())]
pub(super) struct Arguments {
    /// The task's name, and the name of its folder
    name: String,
    /// JSON Schema of the answers; also the definition of a tool or response format that holds one (OpenAI, Anthropic, MCP), or a class of Python (Pydantic, dataclass, TypedDict) as module:Class or path.py:Class
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Import the class of --schema without asking: its module runs as your own Python would run it
    #[arg(long, requires = "schema")]
    trust: bool,
    /// Examples of answers, from which a schema is inferred: a list in .json, or one answer per line in .jsonl
    #[arg(long, value_name = "FILE", conflicts_with = "schema")]
    examples: Option<PathBuf>,
    /// Prompts: .csv, .json, .jsonl or .parquet; without schema and examples, the schema is inferred from the expected answers
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    #[command(flatten)]
    mapping: MappingArguments,
    /// Percentages of train, eval and test; rows of the same prompt go into the same set
    #[arg(long, value_name = "A/B/C", default_value = "80/10/10", value_parser = parse_split)]
    split: [usize; 3],
    /// System message [default: describes the fields of the schema]
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Copy a template
    #[arg(long, value_name = "NAME", value_parser = super::super::template_parser(), conflicts_with_all = ["schema", "examples", "data", "system"])]
    template: Option<String>,
    /// Folder of the task [default: tasks/NAME of the workspace, else of the current folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write nothing: show the columns of the data, the mapping and the schema
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn after_help() -> String {
    format!(
        "Examples:\n  grpo-tui task new tickets --data tickets.csv --map prompt=body --map \"expected=category, priority\"\n  \
         grpo-tui task new orders --examples answers.jsonl\n  \
         grpo-tui task new orders --schema order.schema.json --data orders.jsonl\n  \
         grpo-tui task new orders --schema app.models:Order --data orders.jsonl\n\n{ROW_FORMAT}"
    )
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let class = arguments.schema.as_deref().and_then(PythonClass::parse);
    let class = class
        .map(|class| class.schema(arguments.trust))
        .transpose()?;
    let label = || {
        let schema = arguments.schema.as_ref();
        schema.map_or_else(String::new, |schema| schema.display().to_string())
    };
    let sources = Sources {
        name: arguments.name.clone(),
        template: arguments.template.clone(),
        schema: arguments.schema.clone(),
        schema_text: class.as_ref().map(|class| (label(), class.text.clone())),
        examples: arguments.examples.clone(),
        data: arguments.data.clone(),
        mapping: arguments.mapping.text()?,
        most_records: arguments.mapping.limit,
        system: arguments.system.clone(),
        split: arguments.split,
    };
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => folder_of(&arguments.name, &std::env::current_dir()?),
    };
    // Also where the sources do not make a task: they show what to map.
    if let Some(data) = arguments
        .data
        .as_ref()
        .filter(|_| arguments.dry_run && !arguments.json)
    {
        print_columns(data)?;
    }
    let mut new = NewTask::prepare(&sources)?;
    new.notes
        .extend(class.into_iter().flat_map(|class| class.notes));
    if let Some(data) = &arguments.data {
        print_problems(
            data,
            &new.problems,
            arguments.mapping.skip_invalid || arguments.dry_run,
        )?;
    }
    if arguments.dry_run {
        return dry_run(arguments, &new);
    }
    // The copy is deleted: an error names the file that was given.
    let named = |error| match (error, &arguments.schema) {
        (
            ScoreError::Schema {
                line,
                column,
                pointer,
                message,
                ..
            },
            Some(given),
        ) => ScoreError::Schema {
            label: given.display().to_string(),
            line,
            column,
            pointer,
            message,
        },
        (error, _) => error,
    };
    let (task, problems) = new.write(&folder, |folder| {
        let task = Task::load(folder)?;
        let scorer = match Scorer::new(&task) {
            // Nothing of it has run, so nothing is checked.
            Err(error) if error.is_of_command() => return Ok((task, Vec::new())),
            scorer => scorer.map_err(|error| Failure::from(named(error)))?,
        };
        // A task without rows has nothing to check.
        let sets = if new.rows.iter().any(|(_, rows)| *rows == 0) {
            Vec::new()
        } else {
            CheckedSet::all(&task, &scorer)?
        };
        let problems = data_problems(&task, &scorer, &sets)
            .into_iter()
            .map(|problem| problem.message);
        let problems = problems.collect::<Vec<_>>();
        Ok::<_, Failure>((task, problems))
    })?;
    if arguments.json {
        let model = task.embedded_model_note(&task.base_model());
        let document = json!({"task": task.name, "folder": folder, "rows": rows_json(&new), "mapping": new.mapping.arguments(), "notes": new.notes, "skipped": new.problems.len(), "problems": problems, "embedded_model": model});
        return print_json(document);
    }
    print_created(&new, &task, &folder, &problems);
    Ok(ExitCode::SUCCESS)
}

/// The number of rows by set.
pub(super) fn rows_json(new: &NewTask) -> serde_json::Map<String, serde_json::Value> {
    new.rows
        .iter()
        .map(|(set, rows)| (set.name().to_owned(), json!(rows)))
        .collect()
}

pub(super) fn print_created(new: &NewTask, task: &Task, folder: &Path, problems: &[String]) {
    println!("Created task {} in {}", task.name, folder.display());
    print_content(new);
    problems
        .iter()
        .for_each(|problem| println!("problem: {}", visible(problem)));
    if let Some(note) = task.embedded_model_note(&task.base_model()) {
        println!("note: {note}");
    }
    let known = Task::resolve(&task.name).is_ok_and(|found| found.folder() == task.folder());
    let argument = if known {
        task.name.clone()
    } else {
        folder.display().to_string()
    };
    println!(
        "  edit        {}",
        folder.join(&task.definition_file).display()
    );
    if task.needs_trust() {
        println!("  trust       grpo-tui task trust {}", folder.display());
    }
    println!("  check       grpo-tui task check {argument}");
    println!("  workbench   grpo-tui {}", folder.display());
    println!("  train       grpo-tui train {argument} --model NAME");
}

fn print_content(new: &NewTask) {
    if !new.mapping.prompt.is_empty() {
        println!(
            "  mapping     {}",
            visible(&new.mapping.arguments().join("  "))
        );
    }
    let rows = new
        .rows
        .iter()
        .map(|(set, rows)| format!("{} {rows}", set.name()));
    println!("  rows        {}", rows.collect::<Vec<_>>().join(", "));
    new.notes
        .iter()
        .for_each(|note| println!("  {}", visible(note)));
}

/// Each column with its first values.
fn print_columns(data: &Path) -> Result<(), Failure> {
    let records = read_records(data, MAX_RECORDS)?;
    let columns = columns(&records);
    println!("  columns     {}", visible(&columns.join(", ")));
    for (column, values) in column_samples(&records) {
        println!("    {:<16}{}", visible(&column), visible(&values));
    }
    Ok(())
}

fn dry_run(arguments: &Arguments, new: &NewTask) -> Outcome {
    let first = new
        .file("train.jsonl")
        .and_then(|text| text.lines().next())
        .unwrap_or_default();
    let columns = match &arguments.data {
        Some(data) => columns(&read_records(data, MAX_RECORDS)?),
        None => Vec::new(),
    };
    let (file, definition) = new.definition();
    if arguments.json {
        let parse =
            |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
        let document = json!({"columns": columns, "mapping": new.mapping.arguments(), "notes": new.notes, "problems": new.problems, "schema": parse(definition), "first_row": parse(first)});
        return print_json(document);
    }
    print_content(new);
    println!("{file}:\n{}", visible_lines(definition.trim_end()));
    if !first.is_empty() {
        println!("first row of train.jsonl:\n{}", visible(first));
    }
    println!("nothing written (--dry-run)");
    Ok(ExitCode::SUCCESS)
}
