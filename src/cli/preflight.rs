//! The checks before a run starts, on the command line: warnings are printed, errors refuse.

use super::Failure;
use super::output::eprint_line;
use super::run_input::RunInput;
use crate::checkpoint::ModelLocation;
use crate::config::{BasePrecision, TrainConfig};
use crate::hub::{ModelSource, Quantization};
use crate::plan::preflight::{Preflight, PreflightFinding, Severity, titles};
use crate::run::RunFolders;
use crate::text::Tokenizer;

/// Starts despite errors.
pub(super) const IGNORE_ERRORS: &str = "--ignore-preflight-errors";

/// The note on the embedded model, if the run starts from one, or that the model has no stop token.
pub(super) fn base_model_note(
    input: &RunInput,
    config: &TrainConfig,
    run_folders: &RunFolders,
) -> Option<String> {
    let name = &config.base_model;
    let origin = ModelLocation::origin(name, run_folders).ok()?;
    let noted = input
        .parts
        .iter()
        .find_map(|part| Some((&part.name, part.task.embedded_model_note(&origin)?)));
    let noted = noted.map(|(name, note)| {
        let task = if name.is_empty() {
            String::new()
        } else {
            format!("{name}: ")
        };
        format!("{task}{note} (--model NAME)")
    });
    noted.or_else(|| {
        let found = ModelLocation::find(name, run_folders).ok()?;
        let source = found.source(run_folders).ok()?;
        let tokenizer = Tokenizer::load(&source).ok()?;
        let stop = tokenizer.stop_note(name);
        let stop = stop.or_else(|| tokenizer.clock_note(name));
        stop.or_else(|| nf4_note(name, &source, config.base_precision))
    })
}

/// What becomes of a base in NF4.
fn nf4_note(name: &str, source: &ModelSource, precision: BasePrecision) -> Option<String> {
    if source.quantization().ok()?? != Quantization::Nf4 {
        return None;
    }
    match (precision, source.is_nf4_base().ok()?) {
        (BasePrecision::Nf4, true) => None,
        (BasePrecision::Nf4, false) => Some(format!(
            "{name} is not wholly in NF4 with double quantization in blocks of 64 and 256: its other matrices are rounded again"
        )),
        (_, true) => Some(format!(
            "{name} is in NF4: its matrices are dequantized to bf16; base_precision = nf4 takes them as they are"
        )),
        (_, false) => Some(format!(
            "{name} is in NF4: its matrices are dequantized to bf16"
        )),
    }
}

/// Prints the warnings and what was not checked, unless `is_quiet`; refuses on errors, unless they are ignored.
pub(super) fn gate(
    checked: &Preflight,
    ignore_errors: bool,
    is_quiet: bool,
) -> Result<(), Failure> {
    let of = |severity| {
        checked
            .findings
            .iter()
            .filter(move |finding| finding.severity == severity)
    };
    of(Severity::Warning)
        .filter(|_| !is_quiet)
        .for_each(|finding| eprint_line(&format!("warning: {}", finding.message)));
    let errors: Vec<&PreflightFinding> = of(Severity::Error).collect();
    if !errors.is_empty() && !ignore_errors {
        let lines: Vec<&str> = errors
            .iter()
            .map(|finding| finding.message.as_str())
            .collect();
        return Err(Failure::failed(format!(
            "{}\nto start anyway: {IGNORE_ERRORS}",
            lines.join("\n")
        )));
    }
    errors
        .iter()
        .for_each(|finding| eprint_line(&format!("warning: ignored: {}", finding.message)));
    checked
        .notes
        .iter()
        .filter(|_| !is_quiet)
        .for_each(|note| eprint_line(note));
    if !checked.not_checked.is_empty() && !is_quiet {
        eprintln!(
            "{} not checked: run with --plan --sample",
            titles(checked.not_checked.iter().copied())
        );
    }
    Ok(())
}
