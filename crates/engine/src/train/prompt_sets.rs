//! Prompts of a run, task by task.

use super::error::TrainError;
use super::guide::Guide;
use super::run_task::{RunTask, of_task};
use super::teacher::demonstrated_prompts;
use crate::config::{Method, TrainConfig};
use crate::dataset::order::{PromptOrder, TaskRow, TaskRows};
use crate::eval::{GuardPrompt, prepare_guard};
use crate::hub::ModelConfig;
use crate::plan::{DataShape, ModelShape};
use crate::policy::{Prompt, prepare};
use crate::prompts::rows_without_answer;
use crate::task::PromptSet;
use crate::text::Tokenizer;

#[derive(Debug)]
pub(super) struct PromptSets {
    /// Training prompts: at least one per task, at most `max_rows` each.
    pub(super) train: Vec<Prompt>,
    /// May be empty.
    pub(super) eval: Vec<Prompt>,
    /// May be empty; is without `test_eval`.
    pub(super) test: Vec<Prompt>,
    /// May be empty.
    pub(super) guard: Vec<GuardPrompt>,
    /// Prompts of a teacher that is shown expected answers, by training prompt; empty without one.
    pub(super) demonstrated: Vec<Option<Vec<u32>>>,
    /// Size of a separate teacher; 0 without one.
    pub(super) teacher_parameters: usize,
    /// Order of training prompts.
    pub(super) order: PromptOrder,
}

impl PromptSets {
    /// Renders prompts of all tasks: at most `max_rows` per training set. `teacher`: a separate
    /// one.
    ///
    /// # Errors
    /// [`TrainError::NoPrompts`], [`TrainError::NoAnswer`], and errors in files.
    pub(super) fn prepare(
        tasks: &[RunTask],
        tokenizer: &Tokenizer,
        teacher: Option<&ModelConfig>,
        config: &TrainConfig,
    ) -> Result<Self, TrainError> {
        let mut sets = Self {
            train: Vec::new(),
            eval: Vec::new(),
            test: Vec::new(),
            guard: Vec::new(),
            demonstrated: Vec::new(),
            teacher_parameters: teacher.map_or(0, |it| ModelShape::from_config(it).parameters),
            order: PromptOrder::new(Vec::new(), config.seed),
        };
        let mut task_rows = Vec::with_capacity(tasks.len());
        for (index, run_task) in tasks.iter().enumerate() {
            let (task, lengths) = (run_task.task(), run_task.lengths);
            let prepare = |set| -> Result<Vec<Prompt>, TrainError> {
                let mut prompts = prepare(task, set, tokenizer, lengths)?;
                prompts.iter_mut().for_each(|prompt| prompt.task = index);
                Ok(prompts)
            };
            let mut train = prepare(PromptSet::Train)?;
            if config.max_rows > 0 {
                train.truncate(config.max_rows);
            }
            if train.is_empty() {
                let task = task.label("task.toml");
                return Err(TrainError::NoPrompts { task });
            }
            check_answers(run_task, tokenizer, config, &train)?;
            if config.is_self_distilled() {
                let demonstrated = demonstrated_prompts(run_task, tokenizer, &train)?;
                sets.demonstrated.extend(demonstrated);
            }
            task_rows.push(TaskRows {
                rows: train.len(),
                weight: run_task.part.weight,
            });
            sets.train.extend(train);
            sets.guard.extend(prepare_guard(task, tokenizer, lengths)?);
            sets.eval.extend(prepare(PromptSet::Eval)?);
            if config.test_eval {
                sets.test.extend(prepare(PromptSet::Test)?);
            }
        }
        sets.order = PromptOrder::new(task_rows, config.seed);
        Ok(sets)
    }

    pub(super) fn set(&self, set: PromptSet, task: usize) -> &[Prompt] {
        let prompts = match set {
            PromptSet::Train => &self.train,
            PromptSet::Eval => &self.eval,
            PromptSet::Test => &self.test,
        };
        of_task(prompts, task)
    }

    /// Indices of training prompts.
    pub(super) fn indices(&self, rows: Vec<TaskRow>) -> impl Iterator<Item = usize> {
        rows.into_iter().map(|at| self.first_of(at.task) + at.row)
    }

    /// Task and row of a training prompt.
    pub(super) fn row_at(&self, prompt: usize) -> TaskRow {
        let task = self.train[prompt].task;
        TaskRow {
            task,
            row: prompt - self.first_of(task),
        }
    }

    /// Index of a task's first training prompt.
    fn first_of(&self, task: usize) -> usize {
        self.train.partition_point(|prompt| prompt.task < task)
    }

    /// Input of the memory plan; completions count with their maximum length.
    pub(super) fn shape(&self) -> DataShape {
        // For multi-turn rows, the middle of their first and longest prompt.
        let mean = |prompt: &Prompt| (prompt.token_ids.len() + prompt.most_tokens) as f64 / 2.0;
        let train = || self.train.iter();
        DataShape {
            train_rows: self.order.epoch_len() as usize,
            mean_prompt_tokens: train().map(mean).sum::<f64>() / self.train.len().max(1) as f64,
            longest_prompt_tokens: train().map(|it| it.most_tokens).max().unwrap_or(0),
            turns: train().map(|it| it.most_completions).max().unwrap_or(1),
            eval_rows: self.eval.len(),
            test_rows: self.test.len(),
            teacher_parameters: self.teacher_parameters,
        }
    }
}

/// Checks that each single-turn row of supervised steps has an answer, or can get one from the
/// base.
///
/// # Errors
/// [`TrainError::NoAnswer`] for the first without.
fn check_answers(
    task: &RunTask,
    tokenizer: &Tokenizer,
    config: &TrainConfig,
    rows: &[Prompt],
) -> Result<(), TrainError> {
    if matches!(config.method, Method::Grpo | Method::Distill) {
        return Ok(());
    }
    let rows = rows.iter().map(|prompt| &prompt.row);
    let without = rows_without_answer(task.task(), &task.scorer, rows)?;
    let Some(row) = without.first() else {
        return Ok(());
    };
    let instead = match config.method {
        Method::SftGrpo if !config.guided => Some("guided = false".to_owned()),
        Method::SftGrpo => match Guide::new(task.task(), tokenizer, false).refusal() {
            Some(why) => Some(why),
            None => return Ok(()),
        },
        Method::Grpo | Method::Sft | Method::Distill => None,
    };
    Err(TrainError::NoAnswer {
        id: row.id.clone(),
        line: row.line,
        method: config.method,
        instead,
    })
}
