//! A run before its creation: model, prompts, scorer, and sampled groups of the base.

use std::collections::BTreeSet;

use super::error::TrainError;
use super::guide::Guide;
use super::prompt_sets::PromptSets;
use super::run_task::{RunTask, TaskPart};
use super::setup::Setup;
use super::trainer::{decoder, sampling};
use crate::config::{Advantage, TrainConfig};
use crate::hub::ModelConfig;
use crate::kernels::device::Engine;
use crate::model::Trainable;
use crate::plan::{
    DataShape, GpuPlan, GroupOutcome, Guidance, Memory, Signal, StepShape, cpu_memory,
    memory_limit_bytes,
};
use crate::policy::{
    Conversation, ConverseSettings, Policy, PolicyVersion, Question, SIGNAL_STEP, Turn, signal_of,
};
use crate::prompts::rows_without_answer;
use crate::rollout::{Request, Sampling, StopReason};
use crate::run::RunFolders;
use crate::score::Tier;
use crate::task::PromptSet;

/// A configuration's would-be run, in memory only.
#[derive(Debug)]
pub struct Candidate {
    tasks: Vec<RunTask>,
    config: TrainConfig,
    prompts: PromptSets,
    policy: Policy,
    /// Digest of the start model.
    pub model_digest: String,
    /// Display name.
    pub device: String,
    /// `None` on a CPU.
    fit: Option<GpuPlan>,
}

impl Candidate {
    /// Loads everything; start models may be runs in `run_folders`.
    ///
    /// # Errors
    /// [`TrainError`], as from the run itself.
    pub fn load(
        tasks: &[TaskPart],
        config: &TrainConfig,
        run_folders: &RunFolders,
        engine: &Engine,
    ) -> Result<Self, TrainError> {
        let setup = Setup::of(tasks.to_vec(), config.clone(), None, run_folders, engine)?;
        let Setup {
            tasks,
            config,
            start,
            prompts,
            threads,
            device,
            fit,
            ..
        } = setup;
        let weights = start.model.merged()?.in_precision(config.base_precision);
        let trainable = Trainable::for_config(&config);
        let model = decoder(&start, &weights, &config, (trainable, 0), engine)?;
        let policy = Policy::new(engine.clone(), model, start.tokenizer, threads);
        Ok(Self {
            tasks,
            config,
            prompts,
            policy,
            model_digest: start.digest,
            device,
            fit,
        })
    }

    pub fn model_config(&self) -> &ModelConfig {
        self.policy.model.config()
    }

    pub fn memory(&self) -> Memory {
        match &self.fit {
            Some(fit) => fit.memory.clone(),
            None => cpu_memory(
                self.policy.model.config(),
                &self.config,
                &self.data(),
                self.policy.threads.count(),
                memory_limit_bytes(),
            ),
        }
    }

    pub fn shape(&self) -> StepShape {
        self.fit
            .as_ref()
            .map_or_else(|| StepShape::for_config(&self.config), |fit| fit.shape)
    }

    /// Completions count with their maximum length.
    pub fn data(&self) -> DataShape {
        self.prompts.shape()
    }

    /// Samples and scores groups of the base for `prompts` training prompts per task (or all) in
    /// first-epoch order; returned by task.
    ///
    /// # Errors
    /// A failed tensor operation, or tokens that cannot be decoded.
    pub fn sample(&self, prompts: usize) -> Result<Vec<Signal>, TrainError> {
        (0..self.tasks.len())
            .map(|task| self.sample_task(task, prompts))
            .collect()
    }

    /// Number of prompts sampled by [`Self::sample`], over all tasks.
    pub fn sampled_prompts(&self, prompts: usize) -> usize {
        let of_task = |task| self.prompts.set(PromptSet::Train, task).len().min(prompts);
        (0..self.tasks.len()).map(of_task).sum()
    }

    fn sample_task(&self, index: usize, prompts: usize) -> Result<Signal, TrainError> {
        let (task, train) = (&self.tasks[index], &self.prompts.train);
        let own = self
            .epoch()
            .filter(|prompt| train[*prompt].task == index)
            .take(prompts);
        let requests = self.requests(own, self.config.completions_per_prompt);
        let question = |request: Request| Question {
            prompt: &train[request.prompt_number as usize],
            request,
        };
        let questions: Vec<Question<'_>> = requests.into_iter().map(question).collect();
        let sampling = self.sampling()?;
        let tasks = self.tasks.iter().map(RunTask::scored).collect::<Vec<_>>();
        let settings = ConverseSettings::new(&tasks, PolicyVersion::Base, &sampling);
        // First turns suffice for a forecast.
        let conversed = self.policy.converse(
            &questions,
            &ConverseSettings {
                max_turns: 1,
                ..settings
            },
            None,
        )?;
        let mut signal = Signal {
            guidance: self.guidance(index)?,
            ..Signal::default()
        };
        let weights = task.scorer.part_weights();
        let weights = (self.config.advantage == Advantage::PerPart).then_some(&weights);
        for (question, conversations) in questions.iter().zip(conversed.conversations) {
            let answers: Vec<Turn> = conversations
                .into_iter()
                .flat_map(|Conversation { turns }| turns)
                .collect();
            for Turn {
                completion, score, ..
            } in &answers
            {
                signal.truncated += usize::from(completion.stop == StopReason::Length);
                for (count, tier) in signal.tiers.iter_mut().zip(Tier::ALL) {
                    *count += usize::from(score.tier == tier && !score.is_error());
                }
                if let Some(class) = score.failure {
                    *signal.failures.entry(class).or_default() += 1;
                }
            }
            let rewards = answers.iter().map(|answer| answer.score.reward).collect();
            let known = answers
                .iter()
                .map(|answer| &answer.score)
                .filter(|score| !score.is_error());
            let known: Vec<Tier> = known.map(|score| score.tier).collect();
            let tiers = Tier::ALL
                .into_iter()
                .filter(|tier| known.contains(tier))
                .collect();
            let prompt_id = question.prompt.row.id.clone();
            let signal_of = signal_of(answers.iter(), weights);
            signal.groups.push(GroupOutcome {
                prompt_id,
                signal: signal_of,
                rewards,
                tiers,
            });
        }
        Ok(signal)
    }

    fn guidance(&self, index: usize) -> Result<Guidance, TrainError> {
        let Self {
            tasks,
            config,
            prompts,
            policy,
            ..
        } = self;
        let (task, prompts) = (&tasks[index], prompts.set(PromptSet::Train, index));
        let rows = prompts.iter().map(|prompt| &prompt.row);
        let without = rows_without_answer(task.task(), &task.scorer, rows.clone())?.len();
        let conversations = rows.filter(|row| row.turn_count() > 1).count();
        let is_on = config.is_guided();
        let has_demonstrations = prompts.iter().any(|prompt| prompt.row.has_demonstration());
        // Compiling a grammar is slow: only if needed.
        let refusal = if is_on && without > 0 {
            Guide::new(task.task(), &policy.tokenizer, has_demonstrations).refusal()
        } else {
            None
        };
        let (rows, is_distilled) = (prompts.len(), config.is_distilled());
        Ok(Guidance {
            is_distilled,
            is_on,
            rows,
            conversations,
            has_state: task.task().has_state(),
            without_expected: without,
            refusal,
        })
    }

    fn sampling(&self) -> Result<Sampling, TrainError> {
        sampling(&self.policy.tokenizer, &self.config)
    }

    /// Indices of training prompts in first-epoch order, each once.
    fn epoch(&self) -> impl Iterator<Item = usize> {
        let mut seen = BTreeSet::new();
        let order = &self.prompts.order;
        self.prompts
            .indices(order.rows_at(0..order.epoch_len()))
            .filter(move |prompt| seen.insert(*prompt))
    }

    /// Requests for training prompts, numbered by index.
    fn requests(&self, prompts: impl Iterator<Item = usize>, samples: usize) -> Vec<Request> {
        let request = |index: usize| {
            let prompt = &self.prompts.train[index];
            let request =
                Request::new(prompt.token_ids.clone(), index as u32, SIGNAL_STEP, samples);
            self.tasks[prompt.task].limited(request, &self.config)
        };
        prompts.map(request).collect()
    }
}
