//! `runs trash`: what `runs remove` removed; brings it back, or deletes it for good.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::remove::confirm;
use super::{Failure, Outcome, output, print, print_json_lines};
use crate::format::{bytes, counted, duration};
use crate::report::text_table;
use crate::run::{RunFolders, Trash, TrashItem, now_ms};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Bring back a run, or a checkpoint (RUN@STEP), by its name in the trash; repeatable
    #[arg(long, value_name = "NAME", conflicts_with = "empty")]
    restore: Vec<String>,
    /// Delete all of it for good
    #[arg(long)]
    empty: bool,
    /// Do not ask
    #[arg(long, requires = "empty")]
    yes: bool,
    /// Print one JSON object per item
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let mut items = Vec::new();
    for root in run_folders.roots() {
        let trash = Trash::new(root);
        items.extend(trash.items()?.into_iter().map(|item| (trash.clone(), item)));
    }
    if arguments.empty {
        return empty(arguments, &items);
    }
    if !arguments.restore.is_empty() {
        return restore(arguments, &items);
    }
    if arguments.json {
        return print_json_lines(items.iter().map(|(_, item)| document(item)).collect());
    }
    if items.is_empty() {
        return print("the trash is empty\n");
    }
    let now = now_ms();
    let row = |(_, item): &(Trash, TrashItem)| {
        let left = duration(item.expires_ms().saturating_sub(now) as f64 / 1000.0);
        vec![visible(&item.name).into_owned(), bytes(item.bytes), left]
    };
    let heading = ["name", "size", "deleted in"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(heading)
        .chain(items.iter().map(row))
        .collect();
    let total = bytes(items.iter().map(|(_, item)| item.bytes).sum());
    print(&format!(
        "{}{total} in all; --restore NAME brings one back\n",
        text_table(&rows, "lrr")
    ))
}

fn document(item: &TrashItem) -> Value {
    let mut document = json!(item);
    document["name"] = json!(item.name);
    document["expires_ms"] = json!(item.expires_ms());
    document
}

fn restore(arguments: &Arguments, items: &[(Trash, TrashItem)]) -> Outcome {
    // All are found before the first is moved.
    let find = |name: &String| {
        items
            .iter()
            .find(|(_, item)| item.name == *name)
            .ok_or_else(|| {
                let names: Vec<&str> = items.iter().map(|(_, item)| item.name.as_str()).collect();
                let known = match names.as_slice() {
                    [] => "it is empty".to_owned(),
                    names => format!("it has {}", names.join(", ")),
                };
                Failure::usage(format!("--restore {name}: not in the trash: {known}"))
            })
    };
    let found: Vec<_> = arguments
        .restore
        .iter()
        .map(find)
        .collect::<Result<_, _>>()?;
    let mut documents = Vec::new();
    for (trash, item) in found {
        let path: PathBuf = trash.restore(item)?;
        if !arguments.json {
            output::eprint_line(&format!("restored {}", path.display()));
        }
        documents.push(json!({"restored": item.name, "path": path, "bytes": item.bytes}));
    }
    done(arguments, documents)
}

fn empty(arguments: &Arguments, items: &[(Trash, TrashItem)]) -> Outcome {
    let what = counted(items.len(), "item");
    let total = bytes(items.iter().map(|(_, item)| item.bytes).sum());
    let question = format!("{what} in the trash ({total}). Delete for good? [y/N] ");
    if !items.is_empty() && !arguments.yes && !confirm(&question)? {
        return Err(Failure::failed("nothing was deleted"));
    }
    for (trash, item) in items {
        trash.delete(item)?;
    }
    if !arguments.json {
        output::eprint_line(&format!("deleted {what} ({total})"));
    }
    let deleted =
        |(_, item): &(Trash, TrashItem)| json!({"deleted": item.name, "bytes": item.bytes});
    done(arguments, items.iter().map(deleted).collect())
}

fn done(arguments: &Arguments, documents: Vec<Value>) -> Outcome {
    match arguments.json {
        true => print_json_lines(documents),
        false => Ok(ExitCode::SUCCESS),
    }
}
