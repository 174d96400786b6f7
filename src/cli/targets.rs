//! The models of `eval` and `sample`.

use std::path::Path;

use super::Failure;
use super::endpoints::EndpointTarget;
use super::output::eprint_line;
use super::rows::Rows;
use crate::checkpoint::{ModelLocation, StartModel};
use crate::config::{Assignments, Layers, ThinkingBudget, TrainConfig};
use crate::constraint::TaskConstraints;
use crate::kernels::device::Engine;
use crate::model::Decoder;
use crate::policy::Lengths;
use crate::run::RunFolders;
use crate::score::{Task, for_model};
use crate::task::TASK_FILE;
use crate::text::Tokenizer;

/// The prefix of an endpoint in `--model`.
pub(super) const ENDPOINT: &str = "endpoint:";

/// The prefix of a local model whose completions are constrained.
pub(super) const CONSTRAINED: &str = "constrained:";

/// A model and its name in the results.
#[derive(Debug)]
pub(super) struct Target {
    /// `base`, `trained`, or the user's name.
    pub(super) name: String,
    /// As the user wrote it.
    pub(super) model: String,
    /// In place of a model on this machine.
    pub(super) endpoint: Option<EndpointTarget>,
    limit: TokenLimit,
}

/// The configured limits of a completion.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TokenLimit {
    pub(super) completion_tokens: usize,
    pub(super) thinking: Option<ThinkingBudget>,
    /// It is a run's own.
    is_of_run: bool,
}

impl TokenLimit {
    fn new(config: &TrainConfig, is_of_run: bool) -> Self {
        Self {
            completion_tokens: config.max_completion_tokens,
            thinking: config.thinking_budget(),
            is_of_run,
        }
    }
}

impl Target {
    /// Parses `NAME=M`, or M alone, and locates the model without reading its weights.
    ///
    /// `endpoints`: the file that `--endpoints` names.
    pub(super) fn find(
        text: &str,
        task: &Task,
        run_folders: &RunFolders,
        endpoints: Option<&Path>,
    ) -> Result<Self, Failure> {
        let (name, model) = match text.split_once('=') {
            Some((name, model)) if !name.trim().is_empty() && !model.trim().is_empty() => {
                (name.trim(), model.trim())
            }
            Some(_) => {
                return Err(Failure::usage(format!(
                    "--model {text}: write NAME=M, for example base=tiny"
                )));
            }
            None => (text, text),
        };
        if let Some(endpoint) = model.strip_prefix(ENDPOINT) {
            let endpoint = Some(EndpointTarget::find(endpoint, endpoints)?);
            let limit = task_limit(task, None)?;
            return Ok(Self {
                name: name.to_owned(),
                model: model.to_owned(),
                endpoint,
                limit,
            });
        }
        let own = model.strip_prefix(CONSTRAINED).unwrap_or(model);
        if own.starts_with(ENDPOINT) {
            let message = format!(
                "--model {text}: an endpoint constrains its completions itself: set strict_schema in endpoints.toml"
            );
            return Err(Failure::usage(message));
        }
        let limit = match ModelLocation::find(own, run_folders)? {
            ModelLocation::Run { run, .. } => TokenLimit::new(&run.file().config, true),
            ModelLocation::Model(_) | ModelLocation::Adapter(_) => {
                task_limit(task, Some((own, ModelLocation::origin(own, run_folders)?)))?
            }
        };
        Ok(Self {
            name: name.to_owned(),
            model: model.to_owned(),
            endpoint: None,
            limit,
        })
    }

    /// Whether its completions are constrained to what the task takes.
    pub(super) fn is_constrained(&self) -> bool {
        self.model.starts_with(CONSTRAINED)
    }

    /// The task as it judges this target's answers.
    pub(super) fn judged_task(
        &self,
        task: &Task,
        run_folders: &RunFolders,
    ) -> Result<Task, Failure> {
        match self.endpoint.is_none() && task.calls_functions() {
            true => Ok(for_model(task, &self.tokenizer(run_folders)?)),
            false => Ok(task.clone()),
        }
    }

    fn tokenizer(&self, run_folders: &RunFolders) -> Result<Tokenizer, Failure> {
        let model = self.model.strip_prefix(CONSTRAINED).unwrap_or(&self.model);
        Ok(Tokenizer::load(
            &ModelLocation::find(model, run_folders)?.source(run_folders)?,
        )?)
    }

    /// Says what of the rows cannot be enforced, before anything is sampled.
    pub(super) fn check_constraints(
        &self,
        task: &Task,
        rows: &Rows,
        run_folders: &RunFolders,
    ) -> Result<(), Failure> {
        if !self.is_constrained() {
            return Ok(());
        }
        let constraints = TaskConstraints::new(task, &self.tokenizer(run_folders)?)?;
        for row in rows.rows.iter().filter(|row| row.tools().is_some()) {
            let named = |error| {
                Failure::failed(format!(
                    "{} line {} (`{}`): {error}",
                    rows.label, row.line, row.id
                ))
            };
            constraints.for_row(row, "").map_err(named)?;
        }
        Ok(())
    }

    pub(super) fn load(
        &self,
        run_folders: &RunFolders,
        engine: &Engine,
    ) -> Result<(Decoder, Tokenizer), Failure> {
        let model = self.model.strip_prefix(CONSTRAINED).unwrap_or(&self.model);
        let start = StartModel::find(model, run_folders)?;
        if let Some(note) = start.tokenizer.stop_note(model) {
            eprint_line(&format!("warning: {note}"));
        }
        Ok((start.model.decoder(None, engine)?, start.tokenizer))
    }
}

/// The maximum of completion tokens for all targets, so that they are truncated alike: of the runs among them, else of
/// the task.
pub(super) fn common_limit(targets: &[Target]) -> TokenLimit {
    let limits = targets.iter().map(|target| target.limit);
    limits
        .max_by_key(|limit| (limit.is_of_run, limit.completion_tokens))
        .unwrap_or_default()
}

/// Limited by the model's positions only.
pub(super) fn lengths(model: &Decoder, max_completion_tokens: usize) -> Lengths {
    Lengths {
        max_seq_len: None,
        max_completion_tokens,
        positions: model.config().max_position_embeddings,
    }
}

/// The task's limit of completion tokens; for a model by the task's defaults for it and for the one that it came from.
fn task_limit(task: &Task, model: Option<(&str, String)>) -> Result<TokenLimit, Failure> {
    let text = String::from_utf8_lossy(&task.read(TASK_FILE)?).into_owned();
    let layers = Layers {
        task: Some(Assignments::from_task(&task.label(TASK_FILE), &text)?),
        set: model
            .iter()
            .map(|(model, _)| format!("base_model={model}"))
            .collect(),
        origin: model.map(|(_, origin)| origin),
        ..Layers::default()
    };
    Ok(TokenLimit::new(&layers.resolve()?.config, false))
}
