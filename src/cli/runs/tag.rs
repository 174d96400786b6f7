//! `runs tag`: adds, removes and prints a run's tags.

use serde_json::json;

use super::{Outcome, print, print_json_lines};
use crate::run::{RunFolders, change_tags};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Run: a path, name, id, or unique id prefix
    run: String,
    /// Tags to add; without any, prints the run's tags
    tags: Vec<String>,
    /// Tags to remove
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let run = places.find(&arguments.run)?;
    let tags = if arguments.tags.is_empty() && arguments.remove.is_empty() {
        crate::run::read_tags(run.path())?
    } else {
        run.check_private()?;
        change_tags(run.path(), &arguments.tags, &arguments.remove)?
    };
    let text = if tags.is_empty() { "no tags".to_owned() } else { tags.join(" ") };
    if arguments.json {
        print_json_lines(vec![json!({"run": run.id(), "path": run.path(), "tags": tags})])
    } else {
        print(&format!("{}: {}\n", visible(run.id()), visible(&text)))
    }
}
