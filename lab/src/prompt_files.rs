//! `prompts`: the prompt files of a sample task, the same bytes on every machine.

use std::path::PathBuf;

use grpo_tui_core::score::Task;
use grpo_tui_core::task::PromptSet;

use crate::Fault;
use crate::generator::{Generator, Stream};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the task, with a generator.toml
    task: PathBuf,
    /// Write nothing; fail if a file differs
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    let generator = Generator::load(&arguments.task)?;
    let task = Task::load(&arguments.task)?;
    for (set, stream) in [
        (PromptSet::Train, Stream::Train),
        (PromptSet::Eval, Stream::Eval),
        (PromptSet::Test, Stream::Test),
    ] {
        let Some(file) = task.set_file(set) else {
            continue;
        };
        let path = arguments.task.join(file);
        let text = generator.set_text(stream)?;
        if !arguments.check {
            std::fs::write(&path, &text)?;
        } else if std::fs::read_to_string(&path)? != text {
            let path = path.display();
            return Err(format!("{path} differs from what generator.toml makes: write it with `grpo-tui-lab prompts`").into());
        }
        println!("{}: {} rows", path.display(), text.lines().count());
    }
    Ok(())
}
