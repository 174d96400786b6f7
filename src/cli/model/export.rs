//! `grpo-tui model export`: a model with its adapter merged, as a folder for any server; the adapter alone, as PEFT's
//! files; or files for llama.cpp and Ollama.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::checkpoint::{
    ExportedAdapter, GgufType, ModelLocation, OpenModel, PeftAdapter, Rounding, export_adapter,
    export_gguf, export_gguf_adapter, export_merged,
};
use crate::cli::serve::promoted;
use crate::cli::{Failure, Outcome};
use crate::files::{Access, create_folder_with, replace_file};
use crate::model::{Trainable, fresh_adapters, is_of_experts};
use crate::prompts::template_options;
use crate::report::{ExportForm, GgufFiles, Report, model_card, serving_card};
use crate::run::{RunFolders, configured_gpu_price};
use crate::score::Task;
use crate::text::{Modelfile, TemplateOptions, Thinking, Tokenizer, exported_templates};

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
    let gguf = stored_as.map(|stored_as| GgufTarget::new(out, stored_as, arguments.lora));
    let (what, written) = match &gguf {
        Some(gguf) if gguf.is_file => ("file", gguf.paths()),
        _ => ("folder", vec![out.clone()]),
    };
    if let Some(taken) = written.iter().find(|path| path.exists()) {
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
    let model = ExportedModel {
        arguments,
        run,
        loaded: OpenModel::from_location(located, &places)?,
    };
    match &gguf {
        Some(gguf) => model.write_gguf(gguf)?,
        None if arguments.merged => export_merged(
            out,
            &model.loaded.source,
            model.loaded.stored_as(),
            &model.loaded.merged_with(adapter)?,
            &model.card(&ExportForm::Folder)?,
        )?,
        None => model.write_adapter()?,
    }
    model.warn_if_unchanged()?;
    eprintln!("wrote {}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// GGUF's files: in a new folder, or of the name of one.
struct GgufTarget<'a> {
    stored_as: GgufType,
    folder: &'a Path,
    is_file: bool,
    files: GgufFiles,
}

impl<'a> GgufTarget<'a> {
    fn new(out: &'a Path, stored_as: GgufType, has_lora: bool) -> Self {
        let is_file = out.extension().is_some_and(|end| end == "gguf");
        let (folder, name, modelfile) = match is_file {
            true => {
                let name = out.file_stem().unwrap_or_default().to_string_lossy();
                let folder = out.parent().unwrap_or(Path::new(""));
                let modelfile = format!("{name}.Modelfile");
                (folder, name, modelfile)
            }
            false => (out, "model".into(), "Modelfile".to_owned()),
        };
        let files = GgufFiles {
            model: format!("{name}.gguf"),
            adapter: has_lora.then(|| format!("{name}-lora.gguf")),
            modelfile,
        };
        Self {
            stored_as,
            folder,
            is_file,
            files,
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        [&self.files.model, &self.files.modelfile]
            .into_iter()
            .chain(&self.files.adapter)
            .map(|name| self.folder.join(name))
            .collect()
    }
}

/// The named model, and the run and step that it is the result of.
struct ExportedModel<'a> {
    arguments: &'a Arguments,
    run: Option<(Report, u64)>,
    loaded: OpenModel,
}

/// Share of an adapter's change below which its effect is doubtful.
const LEAST_KEPT: f64 = 0.8;

fn rounding_text(stored_as: GgufType, rounding: Rounding) -> String {
    let (name, kept) = (stored_as.name(), rounding.kept());
    let share = format!("{:.0}%", 100.0 * kept);
    if kept >= LEAST_KEPT {
        return format!(
            "{name} keeps {share} of what the adapter changes; measure what rounding costs with `grpo-tui eval`"
        );
    }
    format!(
        "warning: {name} keeps only {share} of what the adapter changes, as where the base was of this type already: export with more bits, or with --lora, and compare with `grpo-tui eval`"
    )
}

impl ExportedModel<'_> {
    fn card(&self, form: &ExportForm) -> Result<String, Failure> {
        Ok(match &self.run {
            Some((report, step)) if self.arguments.adapter.is_none() => {
                model_card(report, *step, configured_gpu_price()?, None, form).text
            }
            _ => serving_card(&self.arguments.model, form).text,
        })
    }

    /// Says that the base was written, and where what was trained is.
    fn warn_if_unchanged(&self) -> Result<(), Failure> {
        let named = self.arguments.adapter.as_deref();
        let named = named.map(PeftAdapter::read).transpose()?;
        let Some(adapter) = named.as_ref().or(self.loaded.adapter()) else {
            return Ok(());
        };
        if adapter.changes_nothing()? {
            let of_run = match &self.run {
                Some((report, step)) if named.is_none() => format!(
                    "checkpoint {step} of the run; `--model {}@last` exports the last one",
                    report.directory.id()
                ),
                _ => "every lora_B is 0".to_owned(),
            };
            eprintln!(
                "warning: the adapter changes nothing, what is written is the base model ({of_run})"
            );
        }
        Ok(())
    }

    fn write_gguf(&self, gguf: &GgufTarget<'_>) -> Result<(), Failure> {
        let (source, adapter) = (&self.loaded.source, self.arguments.adapter.as_deref());
        let task = self.task();
        let options = match &task {
            Some(task) => template_options(task),
            None => promoted(source).map_or_else(|| Thinking::On.into(), |(_, options)| options),
        };
        let modelfile = self.modelfile_text(&gguf.files, task.as_ref(), options.clone())?;
        let lora = match &gguf.files.adapter {
            Some(file) => Some((file, self.unmerged()?)),
            None => None,
        };
        let weights = match lora {
            Some(_) => self.loaded.base_of(adapter)?,
            None => self.loaded.merged_with(adapter)?,
        };
        let write = |folder: &Path| -> Result<(), Failure> {
            let file = folder.join(&gguf.files.model);
            if let Some(rounding) = export_gguf(&file, source, &weights, gguf.stored_as, &options)?
            {
                eprintln!("{}", rounding_text(gguf.stored_as, rounding));
            }
            if let Some((file, lora)) = &lora {
                export_gguf_adapter(&folder.join(file), source, lora)?;
            }
            write_text(&folder.join(&gguf.files.modelfile), &modelfile)
        };
        if gguf.is_file {
            return write(gguf.folder);
        }
        let card = self.card(&ExportForm::Gguf(gguf.files.clone()))?;
        gguf.folder
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)?;
        create_folder_with(gguf.folder, Access::Private, failed, |folder| {
            write_text(&folder.join("README.md"), &card)?;
            write(folder)
        })
    }

    fn write_adapter(&self) -> Result<(), Failure> {
        let adapter = self.unmerged()?;
        let mut beside = exported_templates(&self.loaded.source)?;
        let slots = adapter.parameters.slots();
        let form = ExportForm::Adapter {
            base: adapter.base_model.clone(),
            rank: adapter.rank,
            has_experts: slots.iter().any(|slot| is_of_experts(&slot.name)),
            has_template: !beside.is_empty(),
        };
        beside.push(("README.md", self.card(&form)?));
        Ok(export_adapter(&self.arguments.out, &adapter, &beside)?)
    }

    /// The named adapter, or that of a run or an adapter's folder.
    fn unmerged(&self) -> Result<ExportedAdapter, Failure> {
        let Arguments { model, adapter, .. } = self.arguments;
        let named = adapter.as_deref().map(PeftAdapter::read).transpose()?;
        let (adapter, base) = match (&named, self.loaded.adapter()) {
            (Some(named), _) => (named, model.as_str()),
            (None, Some(own)) => (own, own.base_name()?),
            (None, None) => {
                let other = match self.arguments.lora {
                    true => "remove --lora",
                    false => "add --merged for full weights",
                };
                return Err(Failure::usage(format!(
                    "{model} has no adapter: name one with --adapter, or {other}"
                )));
            }
        };
        let Trainable::Lora {
            rank,
            alpha,
            has_experts,
        } = adapter.trainable()
        else {
            return Err(Failure::failed(format!("{model} has no low-rank adapter")));
        };
        let parameters = fresh_adapters(&self.loaded.config, rank, has_experts)?;
        adapter.apply(&parameters)?;
        Ok(ExportedAdapter::new(&parameters, base, rank, alpha))
    }

    /// A run's.
    fn task(&self) -> Option<Task> {
        let (report, _) = self.run.as_ref()?;
        Task::load(&report.directory.first_task_path()).ok()
    }

    /// Ollama's Modelfile, with the prompts of a run's task.
    fn modelfile_text(
        &self,
        files: &GgufFiles,
        task: Option<&Task>,
        options: TemplateOptions,
    ) -> Result<String, Failure> {
        let run = self.run.as_ref().map(|(report, _)| &report.directory);
        let completion = run.map_or(0, |run| run.file().config.max_completion_tokens);
        let modelfile = Modelfile {
            model: &files.model,
            adapter: files.adapter.as_deref(),
            context_tokens: (4 * completion)
                .max(8192)
                .min(self.loaded.config.max_position_embeddings),
            options,
            has_tools: task.is_none_or(may_have_tools),
        };
        let (text, is_known) = modelfile.text(&Tokenizer::load(&self.loaded.source)?);
        if !is_known {
            eprintln!(
                "note: the chat template is none of those that are written for Ollama: use Ollama 0.30 or newer, which takes the GGUF file's, and compare it with `grpo-tui prove`, or use llama-server"
            );
        }
        Ok(text)
    }
}

fn may_have_tools(task: &Task) -> bool {
    task.toolset().is_some()
        || task.calls_functions()
        || task.tools().is_some()
        || task.command().is_some()
        || task.agent().is_some()
}

fn write_text(path: &Path, text: &str) -> Result<(), Failure> {
    replace_file(path, text.as_bytes(), Access::Private).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}
