//! `grpo-tui dataset hide`: rows whose prompt no longer states a value.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::super::{Failure, Outcome, print_json, replace_keeping};
use super::import::path_of;
use crate::dataset;
use crate::exact_json;
use crate::files::{Access, create_file};
use crate::format::counted;
use crate::prompts::{FieldReport, HIDDEN_TAG, HiddenField, hide_values};
use crate::score::{Scorer, Task};
use crate::secrets::visible;
use crate::task::PromptSet;

#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Task: a folder, or a name in the workspace
    task: String,
    /// Fields (`vendor`, `lines.amount`), then the share of the rows that expect a value there: `vendor date 20%`
    #[arg(required = true, value_name = "FIELD SHARE")]
    fields: Vec<String>,
    /// Set: train, eval or test
    #[arg(long, value_name = "SET", default_value = "train")]
    set: String,
    /// Chooses the rows: the same seed, the same rows
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write all rows to a new file [default: replace the set's file; the old one stays beside it, with `.bak` added to its name]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write nothing: count the rows
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "Examples:\n  grpo-tui dataset hide invoice vendor 20%\n  \
     grpo-tui dataset hide invoice vendor date 10% amount 5% --set test --out hidden.jsonl\n\n\
     Only values that the prompt states, as the reward part `grounded` reads it, are removed, every mention of them;\n\
     what else a row states stays stated. `expected` is null there, and the row has the tag `hidden`.";

/// Reads `vendor date 20% amount 5%`.
fn fields_of(words: &[String]) -> Result<Vec<HiddenField>, String> {
    let mut found: Vec<HiddenField> = Vec::new();
    let mut named: Vec<&String> = Vec::new();
    for word in words {
        let Some(share) = word.strip_suffix('%') else {
            named.push(word);
            continue;
        };
        let share = share
            .parse::<f64>()
            .ok()
            .filter(|share| (0.0..=100.0).contains(share));
        let Some(share) = share.filter(|_| !named.is_empty()) else {
            return Err(format!(
                "{word}: write fields, then a share from 0% to 100%, such as `vendor 20%`"
            ));
        };
        found.extend(named.drain(..).map(|path| HiddenField {
            path: path.clone(),
            share: share / 100.0,
        }));
    }
    match named.first() {
        Some(field) => Err(format!("{field}: no share after it; write `{field} 20%`")),
        None => Ok(found),
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let fields = fields_of(&arguments.fields).map_err(Failure::usage)?;
    let task = Task::resolve(&arguments.task)?;
    let set = PromptSet::from_name(&arguments.set).ok_or_else(|| {
        Failure::usage(format!("--set {}: use train, eval or test", arguments.set))
    })?;
    let scorer = Scorer::new(&task)?;
    if task.schema().is_none() {
        let message = format!("{}: only values of JSON answers can be hidden", task.name);
        return Err(Failure::usage(message));
    }
    let rows = dataset::load(&task, set)?;
    let hidden = hide_values(&task, &scorer, &rows, &fields, arguments.seed)
        .map_err(|why| Failure::failed(visible(&why).to_string()))?;
    let file = task.set_file(set).unwrap_or_default().to_owned();
    let target = match &arguments.out {
        Some(path) => path.clone(),
        None if arguments.dry_run => PathBuf::from(&file),
        None => path_of(&task, set)?,
    };
    if !arguments.dry_run {
        let old = task.read(&file)?;
        let text = std::str::from_utf8(&old)?;
        let line = |(index, line): (usize, &str)| match hidden.rows.get(&(index + 1)) {
            Some(row) => exact_json::write(row) + "\n",
            None => format!("{line}\n"),
        };
        let new: String = text.lines().enumerate().map(line).collect();
        match &arguments.out {
            Some(path) => create_file(path, new.as_bytes(), Access::Umask).map_err(|error| {
                Failure::failed(format!("{}: {error}; choose another file", path.display()))
            })?,
            None => {
                replace_keeping(&target, &old, new.as_bytes())?;
            }
        }
    }
    let written = (!arguments.dry_run).then_some(&target);
    if arguments.json {
        return print_json(json!({
            "rows": rows.len(),
            "changed": hidden.rows.len(),
            "fields": hidden.fields,
            "file": written,
        }));
    }
    hidden.fields.iter().for_each(print_field);
    match written {
        Some(path) => println!(
            "{}: {} of {} changed, with the tag `{HIDDEN_TAG}`{}",
            path.display(),
            hidden.rows.len(),
            counted(rows.len(), "row"),
            match &arguments.out {
                Some(_) => String::new(),
                None => format!("; the old file is {file}.bak"),
            }
        ),
        None => println!("nothing written (--dry-run)"),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_field(report: &FieldReport) {
    let FieldReport {
        field,
        expecting,
        wanted,
        hidden,
        left_alone,
    } = report;
    let few = if hidden < wanted {
        format!(", {wanted} asked for")
    } else {
        String::new()
    };
    println!(
        "{}: hidden in {hidden} of the {} that expect it{few}",
        visible(field),
        counted(*expecting, "row")
    );
    for (why, rows, line) in left_alone {
        println!(
            "  cannot be hidden in {}: {} (first: line {line})",
            counted(*rows, "row"),
            visible(why)
        );
    }
}
