//! `runs tag`: adds, removes and prints the tags of runs.

use serde_json::json;

use super::{Outcome, print, print_json_lines};
use crate::run::{RunFolders, change_tags};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Runs, separated by commas: each a path, name, id, or unique id prefix
    #[arg(value_name = "RUN[,RUN...]")]
    run: String,
    /// Tags to add; without any, prints the tags
    tags: Vec<String>,
    /// Tags to remove
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    /// Print one JSON object per run
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let runs = super::find_all(arguments.run.split(','), run_folders)?;
    let changes = !arguments.tags.is_empty() || !arguments.remove.is_empty();
    // All are checked before the first is changed.
    if changes {
        runs.iter()
            .try_for_each(crate::run::RunDirectory::check_private)?;
    }
    let tags = runs.iter().map(|run| match changes {
        true => change_tags(run.path(), &arguments.tags, &arguments.remove),
        false => crate::run::read_tags(run.path()),
    });
    let tags = tags.collect::<Result<Vec<_>, _>>()?;
    if arguments.json {
        let document = |(run, tags): (&crate::run::RunDirectory, &Vec<String>)| json!({"run": run.id(), "path": run.path(), "tags": tags});
        return print_json_lines(runs.iter().zip(&tags).map(document).collect());
    }
    let line = |(run, tags): (&crate::run::RunDirectory, &Vec<String>)| {
        let text = if tags.is_empty() {
            "no tags".to_owned()
        } else {
            tags.join(" ")
        };
        format!("{}: {}\n", visible(run.id()), visible(&text))
    };
    print(&runs.iter().zip(&tags).map(line).collect::<String>())
}
