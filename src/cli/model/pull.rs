//! `grpo-tui model pull`: downloads a model from the Hugging Face Hub into the cache.

use std::process::ExitCode;

use crate::cli::progress_bar::Bar;
use crate::cli::{Outcome, print_json};
use crate::hub::{PullSettings, pull};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Model name on the Hub, such as Qwen/Qwen3-8B
    name: String,
    /// Branch, tag or commit
    #[arg(long, default_value = "main")]
    revision: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let settings = PullSettings {
        revision: arguments.revision.clone(),
        ..PullSettings::from_environment()?
    };
    let name = &arguments.name;
    let mut bar: Option<Bar> = None;
    let mut done = 0;
    let found = pull(name, &settings, &mut |progress| {
        done = progress.done_bytes;
        // Bytes that were already cached do not count in the speed.
        bar.get_or_insert_with(|| Bar::new("fetching", name, progress.done_bytes))
            .show(progress.done_bytes, progress.total_bytes);
    });
    if let Some(bar) = &mut bar {
        if found.is_ok() {
            bar.finish(done)
        } else {
            bar.clear()
        }
    }
    let folder = found?;
    if arguments.json {
        print_json(serde_json::json!({ "model": name, "folder": folder, "bytes": done }))?;
    } else {
        eprintln!("{name} is in {}", folder.display());
    }
    Ok(ExitCode::SUCCESS)
}
