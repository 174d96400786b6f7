//! `bfcl`: the task of the Berkeley Function Calling Leaderboard's single-turn data.

use std::path::PathBuf;

use grpo_tui_core::dataset::import::parse_split;
use grpo_tui_core::dataset::read_rows;
use grpo_tui_core::prompts::{CheckedSet, data_problems};
use grpo_tui_core::score::{Scorer, Task, Tier};
use serde_json::{Map, Value, json};

use crate::Fault;
use crate::bfcl::{BfclData, CATEGORIES, bfcl_task, read_bfcl};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder that `pip install --no-deps --target DATA bfcl-eval` filled
    data: PathBuf,
    /// Folder of the task, whose name it takes
    #[arg(long, value_name = "DIR", default_value = "tasks/bfcl")]
    out: PathBuf,
    /// Categories of the data, separated by commas
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_values = CATEGORIES)]
    categories: Vec<String>,
    /// Percentages of train, eval and test; rows of the same prompt go into the same set
    #[arg(long, value_name = "A/B/C", default_value = "80/10/10", value_parser = parse_split)]
    split: [usize; 3],
    /// Leave out rows whose messages and tools together are longer, in characters of JSON
    #[arg(long, value_name = "N")]
    max_chars: Option<usize>,
}

/// Prints one JSON document.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    let BfclData { rows, mut left_out } = read_bfcl(&arguments.data, &arguments.categories)?;
    let mut kept = Vec::new();
    let scorer = Scorer::new(&Task::template("tool-call")?)?;
    for row in rows {
        match problem(&scorer, arguments.max_chars, &row) {
            Some(problem) => left_out.push((id_of(&row), problem)),
            None => kept.push(row),
        }
    }
    if kept.is_empty() {
        let (id, reason) = left_out.first().cloned().unwrap_or_default();
        let data = arguments.data.display();
        return Err(format!("no row of {data} can be imported; {id}: {reason}").into());
    }
    let name = arguments.out.file_name().unwrap_or_default();
    let new = bfcl_task(&name.to_string_lossy(), kept, arguments.split);
    let problems = new.write(&arguments.out, |folder| {
        let task = Task::load(folder)?;
        let scorer = Scorer::new(&task)?;
        let sets = CheckedSet::all(&task, &scorer)?;
        let problems = data_problems(&task, &scorer, &sets).into_iter();
        Ok::<_, Fault>(problems.map(|problem| problem.message).collect::<Vec<_>>())
    })?;
    let rows: Map<String, Value> = new
        .rows
        .iter()
        .map(|(set, count)| (set.name().to_owned(), json!(count)))
        .collect();
    let left_out: Vec<Value> = left_out
        .iter()
        .map(|(id, reason)| json!({"id": id, "reason": reason}))
        .collect();
    println!(
        "{}",
        json!({"folder": arguments.out, "rows": rows, "left_out": left_out, "problems": problems})
    );
    Ok(())
}

fn id_of(row: &Map<String, Value>) -> String {
    row.get("id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Why a row is none of the task's. `scorer`: of any task of calls; the row has its own tools.
fn problem(scorer: &Scorer, most_chars: Option<usize>, row: &Map<String, Value>) -> Option<String> {
    let text = Value::Object(row.clone()).to_string();
    let asked: usize = ["messages", "tools"]
        .into_iter()
        .filter_map(|key| row.get(key))
        .map(|part| part.to_string().chars().count())
        .sum();
    if most_chars.is_some_and(|most| asked > most) {
        return Some(format!("{asked} characters, more than --max-chars"));
    }
    let row = match read_rows("row", text.as_bytes()).next() {
        Some(Ok(row)) => row,
        Some(Err(error)) => return Some(error.to_string()),
        None => return Some("is empty".to_owned()),
    };
    let answer = row
        .expected
        .as_ref()
        .and_then(|expected| scorer.expected_completion(expected, Some(&row)))
        .unwrap_or_default();
    let score = scorer.score(&answer, Some(&row));
    if score.tier == Tier::Valid && score.exact == Some(true) {
        return None;
    }
    let reason = score
        .errors
        .first()
        .map_or("the expected answer is not valid", |reason| {
            reason.message.as_str()
        });
    Some(reason.to_owned())
}
