//! `runs comment`: lists, writes and removes comments on the prompts of a run's evals, or of a standalone eval's.

use std::path::Path;

use serde_json::json;

use super::{Failure, Outcome, print, print_json};
use crate::format::did_you_mean;
use crate::report::{EvalResult, base_and_trained, list_evals, text_table};
use crate::run::{
    Comment, RESULT_FILE, RunFolders, check_comment, now_ms, read_comments, write_comment,
};
use crate::task::SetName;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Run: a path, name, id, or unique id prefix; or the folder of a standalone eval
    run: String,
    /// Prompt id; without TEXT, the comments are listed
    prompt: Option<String>,
    /// The comment; empty: removes it
    text: Option<String>,
    /// Prompt set [default: test if evaluated, else eval]
    #[arg(long, value_name = "SET", requires = "text")]
    on: Option<SetName>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let standalone = Path::new(&arguments.run);
    let folder = match standalone.join(RESULT_FILE).is_file() {
        true => standalone.to_owned(),
        false => run_folders.find(&arguments.run)?.path().to_owned(),
    };
    if let (Some(prompt), Some(text)) = (&arguments.prompt, &arguments.text) {
        if let Some(wrong) = check_comment(text) {
            return Err(Failure::usage(wrong));
        }
        let set = set_of(&folder, prompt, arguments)?;
        write_comment(
            &folder,
            Comment {
                set,
                prompt_id: prompt.clone(),
                text: text.clone(),
                time_ms: now_ms(),
            },
        )?;
    }
    let comments = read_comments(&folder)?;
    let is_asked = |comment: &&Comment| {
        arguments
            .prompt
            .as_ref()
            .is_none_or(|prompt| comment.prompt_id == *prompt)
    };
    let comments: Vec<&Comment> = comments.iter().filter(is_asked).collect();
    if arguments.json {
        return print_json(json!({"folder": folder, "comments": comments}));
    }
    let cells = |comment: &&Comment| {
        vec![
            comment.set.to_string(),
            comment.prompt_id.clone(),
            comment.text.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = comments.iter().map(cells).collect();
    print(&if rows.is_empty() {
        "no comments\n".to_owned()
    } else {
        text_table(&rows, "l")
    })
}

/// The set of the prompt's eval; refuses a prompt that it does not have.
fn set_of(folder: &Path, prompt: &str, arguments: &Arguments) -> Result<SetName, Failure> {
    let mut evals = list_evals(folder)?;
    match &arguments.on {
        Some(set) => evals.retain(|eval| eval.set == *set),
        None => evals = base_and_trained(folder).unwrap_or(evals),
    }
    let Some(eval) = evals.into_iter().next() else {
        return Err(Failure::failed(format!(
            "{}: no such eval to comment on",
            folder.display()
        )));
    };
    let set = eval.set.clone();
    let rows = EvalResult::read(eval, false)?.rows;
    if rows.contains_key(prompt) {
        return Ok(set);
    }
    let near = did_you_mean(prompt, rows.keys().map(String::as_str));
    Err(Failure::usage(format!(
        "no prompt `{prompt}` in the {set} set{near}"
    )))
}
