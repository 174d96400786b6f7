//! `grpo-tui model import`: a GGUF file as a Hugging Face folder.

use std::path::PathBuf;

use crate::checkpoint::{import_gguf, import_into_cache};
use crate::cli::output::{eprint_line, print};
use crate::cli::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// GGUF file of a Gemma 3, Llama, Qwen2 or Qwen3 model, in any type up to Q8_K
    file: PathBuf,
    /// Folder to create [default: in the cache, where `--model FILE.gguf` finds it]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write f32 instead of bf16: exactly the numbers of the file, twice the size; needs --out
    #[arg(long = "f32", requires = "out")]
    in_f32: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (folder, note) = match &arguments.out {
        Some(folder) if folder.exists() => {
            return Err(Failure::usage(format!(
                "{} exists: choose a new folder",
                folder.display()
            )));
        }
        Some(folder) => (
            folder.clone(),
            import_gguf(&arguments.file, folder, arguments.in_f32)?,
        ),
        None => import_into_cache(&arguments.file)?.ok_or_else(|| {
            Failure::usage(format!(
                "{}: not a file that ends in .gguf; add --out DIR",
                arguments.file.display()
            ))
        })?,
    };
    if let Some(note) = note {
        eprint_line(&format!("note: {note}"));
    }
    print(&format!("{}\n", folder.display()))
}
