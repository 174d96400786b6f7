//! A run before its creation: model, prompts, scorer, and this machine's speed with them.

use std::collections::BTreeSet;
use std::time::Instant;

use super::error::TrainError;
use super::guide::Guide;
use super::prompt_sets::PromptSets;
use super::run_task::{RunTask, TaskPart};
use super::setup::Setup;
use super::trainer::{decoder, policy_settings, sampling};
use crate::config::{Advantage, TrainConfig};
use crate::hub::ModelConfig;
use crate::kernels::device::{Engine, memory};
use crate::model::{Adapters, PackedBatch, Trainable};
use crate::plan::{
    CPU_DECODE_ROWS, CompletionLengths, DataShape, GpuPlan, GroupOutcome, Guidance, Memory,
    ModelShape, Signal, Speed, StepShape, cpu_memory, gpu_decode_rows, memory_limit_bytes,
    training_operations,
};
use crate::policy::{
    Conversation, ConverseSettings, Policy, PolicyVersion, Question, SIGNAL_STEP, Turn, signal_of,
};
use crate::prompts::rows_without_answer;
use crate::rollout::{
    Completion, Request, RolloutMemory, Sampling, StopReason, generate, gpu_places, token_count,
};
use crate::run::RunFolders;
use crate::score::Tier;
use crate::task::PromptSet;
use crate::update::{PolicyGroup, StepTotals, policy_gradient};

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

/// Prompts of a speed measurement: two shards of 32 completions in groups of 8.
const MEASURED_PROMPTS: usize = 8;
/// Token limit of a measurement.
const MEASURED_TOKENS: usize = 64;

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
        let setup = Setup::of(tasks.to_vec(), config.clone(), "", run_folders, engine)?;
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
        self.prompts.shape(&self.config)
    }

    /// Times a small prefill, rollout and gradient on real prompts; also returns the completion
    /// lengths.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn measure(&self) -> Result<(Speed, CompletionLengths), TrainError> {
        let requests = self.measured_requests();
        let prefill_per_second = self.measure_prefill(&requests)?;
        let limit = self
            .config
            .max_completion_tokens
            .min(MEASURED_TOKENS.max(2));
        let sampling = Sampling {
            max_completion_tokens: limit,
            ..self.sampling()?
        };
        let memory = RolloutMemory::default();
        let Policy { model, threads, .. } = &self.policy;
        let rollout = || generate(model, Adapters::On, &requests, &sampling, &memory, threads);
        if !self.policy.engine.device.is_cpu() {
            // A GPU loads and selects kernels on first use.
            rollout()?;
        }
        let start = Instant::now();
        let sampled = rollout()?.completions;
        let sampling_seconds = start.elapsed().as_secs_f64();
        let groups: Vec<Vec<usize>> = sampled.iter().map(|group| token_counts(group)).collect();
        let tokens = groups.iter().flatten().sum::<usize>() as f64;
        let seen = tokens / sampled.iter().flatten().count().max(1) as f64;
        let max_completion_tokens = self.config.max_completion_tokens;
        // Lengths of truncated completions are unknown: assume the limit.
        let is_truncated = sampled
            .iter()
            .flatten()
            .any(|completion| completion.stop == StopReason::Length);
        let lengths = if is_truncated && limit < max_completion_tokens {
            CompletionLengths::unknown(seen, max_completion_tokens)
        } else {
            CompletionLengths::from_sample(&groups, max_completion_tokens)
        };
        let shape = ModelShape::from_config(self.policy.model.config());
        let prompts = requests
            .iter()
            .map(|request| request.prompt.len())
            .sum::<usize>() as f64;
        let mean_prompt = prompts / requests.len().max(1) as f64;
        let prefill_seconds =
            shape.forward_operations(prompts, mean_prompt / 2.0, 0.0) / prefill_per_second;
        let decode_operations = shape.forward_operations(tokens, mean_prompt + seen / 2.0, tokens);
        let training_per_second = self.measure_training(&requests, &sampled, mean_prompt, seen)?;
        let speed = Speed {
            prefill_per_second,
            decode_per_second: decode_operations
                / (sampling_seconds - prefill_seconds).max(0.05 * sampling_seconds),
            training_per_second,
            bandwidth_bytes_per_second: None,
            number_bytes: self.policy.engine.dtype.size_in_bytes(),
            decode_rows: self.decode_rows(),
        };
        Ok((speed, lengths))
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
            signal.lengths.push(
                answers
                    .iter()
                    .map(|answer| answer.completion.token_ids.len())
                    .collect(),
            );
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

    /// Two shards on a CPU; on a GPU as many completions as the run samples together.
    fn measured_requests(&self) -> Vec<Request> {
        let samples = self.config.completions_per_prompt;
        if self.policy.engine.device.is_cpu() {
            return self.requests(self.epoch().take(MEASURED_PROMPTS), samples.min(8));
        }
        let prompts =
            self.config.prompt_groups_per_step * self.config.weight_sync_interval as usize;
        self.requests(
            self.epoch()
                .take(prompts.min(self.decode_rows() / samples).max(1)),
            samples,
        )
    }

    /// Completions decoded together even if all have maximum length.
    fn decode_rows(&self) -> usize {
        let Some(places) = gpu_places(&self.policy.model) else {
            return CPU_DECODE_ROWS;
        };
        let slots = places.of_completions(usize::MAX, usize::MAX);
        let model = &self.policy.model;
        let most = gpu_decode_rows(
            model.config(),
            model.dtype().size_in_bytes(),
            memory(model.device()).map_or(0, |(_, all)| all),
        );
        (slots / self.config.max_completion_tokens).clamp(1, most)
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

    /// Operations per second; second of two measurements.
    fn measure_prefill(&self, requests: &[Request]) -> Result<f64, TrainError> {
        let mut batches = vec![PackedBatch::default(); requests.len()];
        batches
            .iter_mut()
            .zip(requests)
            .for_each(|(batch, request)| _ = batch.push_prompt(&request.prompt));
        let Policy {
            model,
            threads,
            engine,
            ..
        } = &self.policy;
        let mut seconds = 0.0;
        for _ in 0..2 {
            let start = Instant::now();
            threads.map(&batches, |batch| model.forward(batch, Adapters::On))?;
            engine.synchronize()?;
            seconds = start.elapsed().as_secs_f64();
        }
        let shape = ModelShape::from_config(self.policy.model.config());
        let operations: f64 = batches
            .iter()
            .map(|batch| {
                shape.forward_operations(batch.rows() as f64, batch.rows() as f64 / 2.0, 0.0)
            })
            .sum();
        Ok(operations / seconds.max(1e-9))
    }

    /// Operations per second of a gradient over the sampled completions.
    fn measure_training(
        &self,
        requests: &[Request],
        sampled: &[Vec<Completion>],
        mean_prompt: f64,
        mean_completion: f64,
    ) -> Result<f64, TrainError> {
        let groups: Vec<PolicyGroup<'_>> = requests
            .iter()
            .zip(sampled)
            .map(|(request, group)| PolicyGroup::alternating(&request.prompt, group))
            .collect();
        let completions = sampled.iter().flatten().count();
        let totals = StepTotals {
            sequences: completions,
            tokens: token_count(sampled),
        };
        let mut settings = policy_settings(&self.config, self.shape());
        (settings.loss.kl_beta, settings.loss.distill_coef) = (0.0, 0.0);
        let gradient = || {
            policy_gradient(
                &self.policy.model,
                &groups,
                totals,
                &settings,
                &self.policy.threads,
            )?;
            self.policy.engine.synchronize()
        };
        if !self.policy.engine.device.is_cpu() {
            gradient()?;
        }
        let start = Instant::now();
        gradient()?;
        let seconds = start.elapsed().as_secs_f64();
        let config = TrainConfig {
            prompt_groups_per_step: requests.len(),
            completions_per_prompt: requests.first().map_or(1, |request| request.samples),
            kl_beta: 0.0,
            distill_coef: 0.0,
            ..self.config.clone()
        };
        let data = DataShape {
            mean_prompt_tokens: mean_prompt,
            mean_completion_tokens: mean_completion,
            ..self.data()
        };
        Ok(training_operations(
            self.policy.model.config(),
            &config,
            &data,
            self.shape().recompute,
        ) / seconds.max(1e-9))
    }
}

fn token_counts(completions: &[Completion]) -> Vec<usize> {
    completions
        .iter()
        .map(|completion| completion.token_ids.len())
        .collect()
}
