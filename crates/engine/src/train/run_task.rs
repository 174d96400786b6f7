//! Tasks of a run: one, or several mixed by weight.

use super::error::TrainError;
use crate::config::TrainConfig;
use crate::hub::ModelConfig;
use crate::policy::{Lengths, Prompt, ScoredTask};
use crate::rollout::Request;
use crate::run::{MixedTask, RunDirectory, task_folder};
use crate::score::{ScoreError, Scorer, Task, for_model};
use crate::task::{PromptSet, SetName};
use crate::text::Tokenizer;

/// A task and its part of the run.
#[derive(Clone, Debug)]
pub struct TaskPart {
    /// Prefix of its sets and metrics; empty for a run's only task.
    pub name: String,
    pub weight: usize,
    /// Completion limit of its rows.
    pub max_completion_tokens: usize,
    pub task: Task,
}

impl TaskPart {
    /// The only task of a run.
    pub fn only(task: Task, config: &TrainConfig) -> Self {
        Self {
            name: String::new(),
            weight: 1,
            max_completion_tokens: config.max_completion_tokens,
            task,
        }
    }

    pub fn mixed(task: Task, mixed: &MixedTask) -> Self {
        let MixedTask {
            name,
            weight,
            max_completion_tokens,
            ..
        } = mixed.clone();
        Self {
            name,
            weight,
            max_completion_tokens,
            task,
        }
    }

    /// Frozen tasks of a run.
    ///
    /// # Errors
    /// [`TrainError::Task`] naming what is unreadable.
    pub fn of_run(run: &RunDirectory) -> Result<Vec<Self>, TrainError> {
        let file = run.file();
        if file.mix.is_empty() {
            return Ok(vec![Self::only(
                Task::load(&run.task_path())?,
                &file.config,
            )]);
        }
        let load = |mixed: &MixedTask| {
            Ok(Self::mixed(
                Task::load(&task_folder(run.path(), &mixed.name))?,
                mixed,
            ))
        };
        file.mix.iter().map(load).collect()
    }
}

/// A task with its scorer.
#[derive(Debug)]
pub(super) struct RunTask {
    pub(super) part: TaskPart,
    pub(super) scorer: Scorer,
    pub(super) lengths: Lengths,
    /// Digests of local judge models by part; empty before [`Self::load_judges`].
    pub(super) judges: Vec<(String, String)>,
}

impl RunTask {
    /// Prepared for a model.
    pub(super) fn new(
        part: TaskPart,
        tokenizer: &Tokenizer,
        model: &ModelConfig,
        config: &TrainConfig,
    ) -> Result<Self, TrainError> {
        let task = for_model(&part.task, tokenizer);
        let lengths = Lengths {
            max_completion_tokens: part.max_completion_tokens,
            ..lengths(config, model)
        };
        Ok(Self {
            scorer: Scorer::new(&task)?,
            part: TaskPart { task, ..part },
            lengths,
            judges: Vec::new(),
        })
    }

    /// Loads local judge models: before measuring a device's free memory.
    pub(super) fn load_judges(&mut self) -> Result<(), TrainError> {
        let no_judge = |problem| ScoreError::NoJudge {
            task: self.part.task.name.clone(),
            problem,
        };
        self.judges = self.scorer.load_judges().map_err(no_judge)?;
        Ok(())
    }

    pub(super) fn task(&self) -> &Task {
        &self.part.task
    }

    /// Name in file names and the log.
    pub(super) fn set_name(&self, set: PromptSet) -> SetName {
        SetName::new(set, &self.part.name)
    }

    pub(super) fn scored(&self) -> ScoredTask<'_> {
        ScoredTask {
            task: self.task(),
            scorer: &self.scorer,
            max_prompt_tokens: self.lengths.prompt_limit(),
        }
    }

    /// Applies the task's limit if lower than the run's.
    pub(super) fn limited(&self, request: Request, config: &TrainConfig) -> Request {
        let limit = self.part.max_completion_tokens;
        let lengths = if limit < config.max_completion_tokens {
            vec![limit; request.samples]
        } else {
            Vec::new()
        };
        Request { lengths, ..request }
    }
}

/// Limits of a run's prompts and completions.
pub(super) fn lengths(config: &TrainConfig, model: &ModelConfig) -> Lengths {
    Lengths {
        max_seq_len: Some(config.max_seq_len),
        max_completion_tokens: config.max_completion_tokens,
        positions: model.max_position_embeddings,
    }
}

/// One task's prompts in a set ordered by task.
pub(super) fn of_task(prompts: &[Prompt], task: usize) -> &[Prompt] {
    let start = prompts.partition_point(|prompt| prompt.task < task);
    let end = prompts.partition_point(|prompt| prompt.task <= task);
    &prompts[start..end]
}
