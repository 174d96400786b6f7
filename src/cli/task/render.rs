//! `grpo-tui task render`: the prompt of a row as a model reads it.

use std::process::ExitCode;

use serde_json::json;

use super::super::{Failure, Outcome, print_json};
use crate::hub::find_model;
use crate::prompts::{CompletionLine, CompletionRows, NoRow, prompt_text};
use crate::score::{Task, for_model};
use crate::secrets::visible_lines;
use crate::text::Tokenizer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`)
    task: String,
    /// Id of the row; `set:id` where several sets have it
    row: String,
    /// Model whose chat template renders it [default: the task's]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let line = CompletionLine::of_row(&arguments.row);
    let row = match CompletionRows::new(&task).find(&line) {
        Ok(Some(row)) => row,
        Err(NoRow::Undecided(problem)) => return Err(Failure::failed(problem)),
        Ok(None) | Err(NoRow::Unknown(_)) => {
            return Err(Failure::failed(format!(
                "{}: no row `{}` in train, eval or test; `grpo-tui dataset check {}` reads them",
                task.name, arguments.row, arguments.task
            )));
        }
    };
    let model = arguments.model.clone().unwrap_or_else(|| task.base_model());
    let tokenizer = Tokenizer::load(&find_model(&model)?)?;
    let prompt = prompt_text(&for_model(&task, &tokenizer), &tokenizer, &row)?;
    if arguments.json {
        let tokens = tokenizer.encode(&prompt)?.len();
        return print_json(
            json!({"row": row.id, "model": model, "tokens": tokens, "prompt": prompt}),
        );
    }
    println!("{}", visible_lines(&prompt));
    Ok(ExitCode::SUCCESS)
}
