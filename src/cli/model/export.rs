//! `grpo-tui model export`: a model with its adapter merged, as a folder for any server; the adapter alone, as PEFT's
//! files; or files for llama.cpp and Ollama.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::checkpoint::{
    ExportedAdapter, GgufType, ModelLocation, OpenModel, PeftAdapter, export_adapter, export_gguf,
    export_gguf_adapter, export_merged,
};
use crate::cli::{Failure, Outcome};
use crate::files::{Access, create_folder_with, replace_file};
use crate::model::{Trainable, fresh_adapters, is_of_experts};
use crate::prompts::template_options;
use crate::report::{ExportForm, GgufFiles, Report, model_card, serving_card};
use crate::run::{RunFolders, configured_gpu_price};
use crate::score::Task;
use crate::text::{Modelfile, Thinking, Tokenizer, exported_templates};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Base model: a folder, a Hugging Face name, `tiny`, or a run
    #[arg(long, value_name = "M")]
    model: String,
    /// Adapter folder (PEFT's, or a run's checkpoint) [default: the adapter of M]
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Folder to create, with a README.md; with --gguf also a file NAME.gguf, with NAME.Modelfile beside it
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Merge the adapter into full weights, in the base's dtypes; without it, write the adapter alone as PEFT files
    #[arg(long)]
    merged: bool,
    /// Write model, merged adapter, tokenizer and chat template as one GGUF file, its matrices in this type, and Ollama's Modelfile
    #[arg(long, value_name = "TYPE", conflicts_with = "merged", value_parser = clap::builder::PossibleValuesParser::new(GgufType::NAMES))]
    gguf: Option<String>,
    /// Leave the adapter unmerged, in a GGUF file of its own (llama.cpp's --lora)
    #[arg(long, requires = "gguf")]
    lora: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (out, adapter) = (&arguments.out, arguments.adapter.as_deref());
    let stored_as = arguments.gguf.as_deref().and_then(GgufType::from_name);
    let is_file = stored_as.is_some() && out.extension().is_some_and(|end| end == "gguf");
    let (folder, files) = gguf_files(out, is_file, arguments.lora);
    let written = match is_file {
        true => [&files.model, &files.modelfile]
            .into_iter()
            .chain(&files.adapter)
            .map(|name| folder.join(name))
            .collect(),
        false => vec![out.clone()],
    };
    if let Some(taken) = written.iter().find(|path| path.exists()) {
        let what = if is_file { "file" } else { "folder" };
        return Err(Failure::usage(format!(
            "{} exists: choose a new {what}",
            taken.display()
        )));
    }
    let places = RunFolders::discover(arguments.runs.as_deref(), &std::env::current_dir()?);
    let located = ModelLocation::find(&arguments.model, &places)?;
    let run = match &located {
        ModelLocation::Run { run, step } => Some((Report::read((**run).clone())?, *step)),
        _ => None,
    };
    let loaded = OpenModel::from_location(located, &places)?;
    let card = |form: &ExportForm| match &run {
        Some((report, step)) if adapter.is_none() => {
            Ok::<_, Failure>(model_card(report, *step, configured_gpu_price()?, None, form).text)
        }
        _ => Ok(serving_card(&arguments.model, form).text),
    };
    if let Some(stored_as) = stored_as {
        let report = run.as_ref().map(|(report, _)| report);
        let modelfile = modelfile_text(&loaded, report, &files)?;
        let lora = arguments
            .lora
            .then(|| unmerged(arguments, &loaded))
            .transpose()?;
        let weights = match lora {
            Some(_) => loaded.base_of(adapter)?,
            None => loaded.merged_with(adapter)?,
        };
        let card = match is_file {
            true => None,
            false => Some(card(&ExportForm::Gguf(files.clone()))?),
        };
        let write = |folder: &Path| -> Result<(), Failure> {
            if let Some(card) = &card {
                write_text(&folder.join("README.md"), card)?;
            }
            let model = folder.join(&files.model);
            export_gguf(&model, &loaded.source, &weights, stored_as)?;
            if let (Some(lora), Some(file)) = (&lora, &files.adapter) {
                export_gguf_adapter(&folder.join(file), &loaded.source, lora)?;
            }
            write_text(&folder.join(&files.modelfile), &modelfile)
        };
        if is_file {
            write(folder)?;
        } else {
            out.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            create_folder_with(out, Access::Private, failed, write)?;
        }
    } else if arguments.merged {
        export_merged(
            out,
            &loaded.source,
            loaded.stored_as(),
            &loaded.merged_with(adapter)?,
            &card(&ExportForm::Folder)?,
        )?;
    } else {
        let adapter = unmerged(arguments, &loaded)?;
        let mut beside = exported_templates(&loaded.source)?;
        let slots = adapter.parameters.slots();
        let form = ExportForm::Adapter {
            base: adapter.base_model.clone(),
            rank: adapter.rank,
            has_experts: slots.iter().any(|slot| is_of_experts(&slot.name)),
            has_template: !beside.is_empty(),
        };
        beside.push(("README.md", card(&form)?));
        export_adapter(out, &adapter, &beside)?;
    }
    eprintln!("wrote {}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// The folder of GGUF's files, and their names.
fn gguf_files(out: &Path, is_file: bool, has_lora: bool) -> (&Path, GgufFiles) {
    let (folder, name) = match is_file {
        true => (
            out.parent().unwrap_or(Path::new("")),
            out.file_stem().unwrap_or_default().to_string_lossy(),
        ),
        false => (out, "model".into()),
    };
    let files = GgufFiles {
        model: format!("{name}.gguf"),
        adapter: has_lora.then(|| format!("{name}-lora.gguf")),
        modelfile: match is_file {
            true => format!("{name}.Modelfile"),
            false => "Modelfile".to_owned(),
        },
    };
    (folder, files)
}

fn write_text(path: &Path, text: &str) -> Result<(), Failure> {
    replace_file(path, text.as_bytes(), Access::Private).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

/// The named adapter, or that of a run or an adapter's folder.
fn unmerged(arguments: &Arguments, loaded: &OpenModel) -> Result<ExportedAdapter, Failure> {
    let named = arguments
        .adapter
        .as_deref()
        .map(PeftAdapter::read)
        .transpose()?;
    let (adapter, base) = match (&named, loaded.adapter()) {
        (Some(named), _) => (named, arguments.model.as_str()),
        (None, Some(own)) => (own, own.base_name()?),
        (None, None) => {
            let other = match arguments.lora {
                true => "remove --lora",
                false => "add --merged for full weights",
            };
            let text = format!(
                "{} has no adapter: name one with --adapter, or {other}",
                arguments.model
            );
            return Err(Failure::usage(text));
        }
    };
    let Trainable::Lora {
        rank,
        alpha,
        has_experts,
    } = adapter.trainable()
    else {
        return Err(Failure::failed(format!(
            "{} has no low-rank adapter",
            arguments.model
        )));
    };
    let parameters = fresh_adapters(&loaded.config, rank, has_experts)?;
    adapter.apply(&parameters)?;
    Ok(ExportedAdapter::new(&parameters, base, rank, alpha))
}

/// Ollama's Modelfile, with the prompts of a run's task.
fn modelfile_text(
    loaded: &OpenModel,
    report: Option<&Report>,
    files: &GgufFiles,
) -> Result<String, Failure> {
    let task = report.and_then(|report| Task::load(&report.directory.first_task_path()).ok());
    let completion = report.map_or(0, |report| {
        report.directory.file().config.max_completion_tokens
    });
    let modelfile = Modelfile {
        model: &files.model,
        adapter: files.adapter.as_deref(),
        context_tokens: (4 * completion)
            .max(8192)
            .min(loaded.config.max_position_embeddings),
        options: task
            .as_ref()
            .map_or_else(|| Thinking::On.into(), template_options),
    };
    let (text, is_known) = modelfile.text(&Tokenizer::load(&loaded.source)?);
    if !is_known {
        eprintln!(
            "note: the chat template is none of those that are written for Ollama, which takes one from its own list: compare its prompts, or use llama-server"
        );
    }
    Ok(text)
}
