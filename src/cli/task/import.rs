//! `grpo-tui task import`: writes the folder of a task from a benchmark's data.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::super::{Failure, Outcome, print_json};
use super::new::{print_created, rows_json};
use crate::dataset::bfcl::{BfclData, CATEGORIES, bfcl_task, read_bfcl};
use crate::dataset::import::parse_split;
use crate::dataset::new_task::folder_of;
use crate::dataset::read_rows;
use crate::format::counted;
use crate::prompts::{data_problems, load_sets};
use crate::score::{Scorer, Task, Tier};
use crate::secrets::visible;

/// Rows left out that are named; the rest is counted.
const MAX_LISTED: usize = 20;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:
  pip install --no-deps --target bfcl-eval bfcl-eval
  grpo-tui task import bfcl bfcl-eval
  grpo-tui task import bfcl bfcl-eval --categories simple_python,multiple --out tasks/bfcl-short --max-chars 3000")]
pub(super) struct Arguments {
    /// What the data is: `bfcl`, the Berkeley Function Calling Leaderboard (single turn)
    benchmark: Benchmark,
    /// Folder of the data, or the folder that pip installed `bfcl-eval` into
    data: PathBuf,
    /// The task's name, and the name of its folder
    #[arg(long, default_value = "bfcl")]
    name: String,
    /// Folder of the task [default: tasks/NAME of the workspace, else of the current folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Categories of the data, separated by commas
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_values = CATEGORIES)]
    categories: Vec<String>,
    /// Percentages of train, eval and test; rows of the same prompt go into the same set
    #[arg(long, value_name = "A/B/C", default_value = "80/10/10", value_parser = parse_split)]
    split: [usize; 3],
    /// Leave out rows whose messages and tools together are longer, in characters of JSON
    #[arg(long, value_name = "N")]
    max_chars: Option<usize>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Benchmark {
    Bfcl,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let BfclData { rows, mut left_out } = match arguments.benchmark {
        Benchmark::Bfcl => read_bfcl(&arguments.data, &arguments.categories)?,
    };
    let mut kept = Vec::new();
    let scorer = Scorer::new(&Task::template("tool-call")?)?;
    for row in rows {
        match problem(&scorer, arguments.max_chars, &row)? {
            Some(problem) => left_out.push((id_of(&row), problem)),
            None => kept.push(row),
        }
    }
    if kept.is_empty() {
        list_left_out(&left_out);
        return Err(Failure::failed(format!(
            "no row of {} can be imported",
            arguments.data.display()
        )));
    }
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => folder_of(&arguments.name, &std::env::current_dir()?),
    };
    let new = bfcl_task(&arguments.name, kept, arguments.split)?;
    let (task, problems) = new.write(&folder, |folder| {
        let task = Task::load(folder)?;
        let problems = data_problems(&task, &Scorer::new(&task)?, &load_sets(&task)?).into_iter();
        let problems = problems.map(|problem| problem.message).collect::<Vec<_>>();
        Ok::<_, Failure>((task, problems))
    })?;
    if arguments.json {
        let left_out: Vec<Value> = left_out
            .iter()
            .map(|(id, reason)| json!({"id": id, "reason": reason}))
            .collect();
        let document = json!({"task": task.name, "folder": folder, "rows": rows_json(&new), "notes": new.notes, "left_out": left_out, "problems": problems});
        return print_json(document);
    }
    print_created(&new, &task, &folder, &problems);
    list_left_out(&left_out);
    Ok(ExitCode::SUCCESS)
}

fn id_of(row: &Map<String, Value>) -> String {
    row.get("id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Why a row is none of the task's. `scorer`: of any task of calls; the row has its own tools.
fn problem(
    scorer: &Scorer,
    most_chars: Option<usize>,
    row: &Map<String, Value>,
) -> Result<Option<String>, Failure> {
    let text = Value::Object(row.clone()).to_string();
    let asked: usize = ["messages", "tools"]
        .into_iter()
        .filter_map(|key| row.get(key))
        .map(|part| part.to_string().chars().count())
        .sum();
    if most_chars.is_some_and(|most| asked > most) {
        return Ok(Some(format!("{asked} characters, more than --max-chars")));
    }
    let row = match read_rows("row", text.as_bytes()).next() {
        Some(Ok(row)) => row,
        Some(Err(error)) => return Ok(Some(error.to_string())),
        None => return Ok(Some("is empty".to_owned())),
    };
    let answer = row
        .expected
        .as_ref()
        .and_then(|expected| scorer.expected_completion(expected, Some(&row)))
        .unwrap_or_default();
    let score = scorer.score(&answer, Some(&row));
    if score.tier == Tier::Valid && score.exact == Some(true) {
        return Ok(None);
    }
    let reason = score
        .errors
        .first()
        .map_or("the expected answer is not valid", |reason| {
            reason.message.as_str()
        });
    Ok(Some(reason.to_owned()))
}

fn list_left_out(left_out: &[(String, String)]) {
    if left_out.is_empty() {
        return;
    }
    println!("left out    {}", counted(left_out.len(), "row"));
    for (id, reason) in left_out.iter().take(MAX_LISTED) {
        println!("  {}: {}", visible(id), visible(reason));
    }
    if left_out.len() > MAX_LISTED {
        println!(
            "  ... {} more (--json lists all)",
            left_out.len() - MAX_LISTED
        );
    }
}
