//! A run before it exists: the model, the prompts and the scorer that it would have, and how fast this machine is with
//! them.

use std::time::Instant;

use super::TrainError;
use super::job::policy_settings;
use super::setup::Setup;
use crate::config::TrainConfig;
use crate::hub::ModelConfig;
use crate::kernels::device::Engine;
use crate::model::{Adapters, Decoder, PackedBatch, Trainable};
use crate::plan::{
    CPU_DECODE_ROWS, DataShape, GroupOutcome, Memory, ModelShape, Signal, Speed, StepShape, cpu_memory,
    gpu_decode_rows, memory_limit_bytes, training_operations,
};
use crate::rollout::{
    Completion, Request, RolloutContext, Sampling, ScoredCompletion, StopReason, generate, signal_of,
};
use crate::run::RunFolders;
use crate::score::{FailureClass, Tier};
use crate::task::Task;
use crate::update::{PolicyGroup, PolicySample, StepTotals, policy_gradient};

/// What a configuration would train. Nothing of it is written anywhere.
#[derive(Debug)]
pub struct Candidate {
    setup: Setup,
    model: Decoder,
    engine: Engine,
}

/// Prompts that speed is measured with: two shards of 32 completions at groups of 8.
const MEASURED_PROMPTS: usize = 8;
/// New tokens of each completion there, at the most.
const MEASURED_TOKENS: usize = 64;
/// Completions that are measured together on a GPU, at the most: speed there depends on how many they are.
const MEASURED_ROWS: usize = 512;
/// Names the random numbers: no step of a training and no eval is this one.
const SIGNAL_STEP: u32 = u32::MAX - 1;

impl Candidate {
    /// Loads everything; `places` serve to find a run that is the start.
    ///
    /// # Errors
    /// [`TrainError`] naming what is missing or wrong: the same that a run would meet.
    pub fn load(task: &Task, config: &TrainConfig, places: &RunFolders, engine: &Engine) -> Result<Self, TrainError> {
        let setup = Setup::of(task.clone(), config.clone(), "", places, engine)?;
        let (base, trainable) = (&setup.start, Trainable::of(config));
        let model = Decoder::new(&base.config, &base.weights()?, trainable, config.seed, engine.dtype, &engine.device)?;
        Ok(Self { setup, model, engine: engine.clone() })
    }

    pub fn model_config(&self) -> &ModelConfig {
        &self.setup.start.config
    }

    /// The device that it would run on, in words.
    pub fn device(&self) -> String {
        self.setup.device.clone()
    }

    /// What it would need of the device's memory.
    pub fn memory(&self) -> Memory {
        match &self.setup.fit {
            Some(fit) => fit.memory.clone(),
            None => cpu_memory(
                &self.setup.start.config,
                &self.setup.config,
                &self.data(),
                self.setup.threads.count(),
                memory_limit_bytes(),
            ),
        }
    }

    /// How its gradients would be computed.
    pub fn shape(&self) -> StepShape {
        self.setup.shape()
    }

    /// Lengths and counts of the prompts; completions as long as the limit allows, until [`Candidate::measure`] has
    /// seen some.
    pub fn data(&self) -> DataShape {
        self.setup.prompts.shape(&self.setup.config)
    }

    /// Times one small prefill, one small rollout and one small gradient of the real model on real prompts; the mean
    /// completion length that it saw goes into the returned shape of the data.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn measure(&self) -> Result<(Speed, DataShape), TrainError> {
        let mut data = self.data();
        let requests = self.measured_requests();
        let prefill_per_second = self.measure_prefill(&requests)?;
        let limit = self.setup.config.max_completion_tokens.min(MEASURED_TOKENS.max(2));
        let sampling = Sampling { max_completion_tokens: limit, ..self.sampling() };
        if !self.engine.device.is_cpu() {
            // A GPU loads and chooses at the first time what it then uses.
            generate(&self.model, Adapters::On, &requests, &sampling, &self.setup.threads)?;
        }
        let start = Instant::now();
        let sampled = generate(&self.model, Adapters::On, &requests, &sampling, &self.setup.threads)?;
        let sampling_seconds = start.elapsed().as_secs_f64();
        let lengths: Vec<usize> = sampled.iter().flatten().map(|completion| completion.token_ids.len()).collect();
        let seen = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
        data.least_completion_tokens = seen;
        // Where some did not end within the measured tokens, how long they would be is not known: the limit is the safe
        // answer.
        let is_truncated = sampled.iter().flatten().any(|completion| completion.stop == StopReason::Length);
        if !(is_truncated && limit < self.setup.config.max_completion_tokens) {
            data.mean_completion_tokens = seen;
        }
        let shape = ModelShape::of(&self.setup.start.config);
        let prompts = requests.iter().map(|request| request.prompt.len()).sum::<usize>() as f64;
        let mean_prompt = prompts / requests.len().max(1) as f64;
        let tokens = lengths.iter().sum::<usize>() as f64;
        let prefill_seconds = shape.forward_operations(prompts, mean_prompt / 2.0, 0.0) / prefill_per_second;
        let decode_operations = shape.forward_operations(tokens, mean_prompt + seen / 2.0, tokens);
        let training_per_second = self.measure_training(&requests, &sampled, mean_prompt, seen)?;
        let speed = Speed {
            prefill_per_second,
            decode_per_second: decode_operations / (sampling_seconds - prefill_seconds).max(0.05 * sampling_seconds),
            training_per_second,
            bandwidth_bytes_per_second: None,
            number_bytes: self.engine.dtype.size_in_bytes(),
            decode_rows: self.decode_rows(),
        };
        Ok((speed, data))
    }

    /// Groups of the base for `prompts` training prompts (all, if there are fewer) in the order of the first epoch,
    /// scored.
    ///
    /// # Errors
    /// When a tensor operation fails or tokens cannot become text.
    pub fn sample(&self, prompts: usize) -> Result<Signal, TrainError> {
        let requests = self.requests(prompts, self.setup.config.completions_per_prompt);
        let context = RolloutContext {
            engine: &self.engine,
            model: &self.model,
            adapters: Adapters::Off,
            tokenizer: &self.setup.start.tokenizer,
            threads: &self.setup.threads,
        };
        let rows: Vec<_> =
            requests.iter().map(|request| &self.setup.prompts.train[request.prompt_number as usize].row).collect();
        let groups =
            context.score(&self.setup.scorer, context.rollout(&requests, &self.sampling())?, rows.iter().copied())?;
        let mut signal = Signal::default();
        for (row, completions) in rows.into_iter().zip(groups) {
            for ScoredCompletion { completion, score, .. } in &completions {
                signal.truncated += usize::from(completion.stop == StopReason::Length);
                for (count, tier) in signal.tiers.iter_mut().zip(Tier::ALL) {
                    *count += usize::from(score.tier == tier);
                }
                for (count, class) in signal.failures.iter_mut().zip(FailureClass::ALL) {
                    *count += usize::from(score.failure == Some(class));
                }
            }
            let rewards = completions.iter().map(|scored| scored.score.reward).collect();
            signal.groups.push(GroupOutcome { prompt_id: row.id.clone(), signal: signal_of(&completions), rewards });
        }
        Ok(signal)
    }

    fn sampling(&self) -> Sampling {
        Sampling::new(
            &self.setup.start.tokenizer,
            self.setup.config.temperature,
            self.setup.config.max_completion_tokens,
            self.setup.config.seed,
        )
    }

    /// Two shards on a CPU; on a GPU as many completions together as the run would sample.
    fn measured_requests(&self) -> Vec<Request> {
        let samples = self.setup.config.completions_per_prompt;
        if self.engine.device.is_cpu() {
            return self.requests(MEASURED_PROMPTS, samples.min(8));
        }
        let prompts = self.setup.config.prompt_groups_per_step * self.setup.config.weight_sync_interval as usize;
        self.requests(prompts.min(self.decode_rows().min(MEASURED_ROWS) / samples).max(1), samples)
    }

    /// Completions that the engine decodes together.
    fn decode_rows(&self) -> usize {
        if self.engine.device.is_cpu() {
            return CPU_DECODE_ROWS;
        }
        gpu_decode_rows(
            &self.setup.start.config,
            self.setup.config.max_completion_tokens,
            self.engine.dtype.size_in_bytes(),
        )
    }

    /// The first prompts of the first epoch's order; each is numbered by its row.
    fn requests(&self, count: usize, samples: usize) -> Vec<Request> {
        let order = crate::dataset::order::epoch_order(self.setup.prompts.train.len(), 0, self.setup.config.seed);
        let request = |row: usize| Request {
            prompt: self.setup.prompts.train[row].token_ids.clone(),
            prompt_number: row as u32,
            step: SIGNAL_STEP,
            samples,
        };
        order.into_iter().take(count).map(request).collect()
    }

    /// Operations a second over the prompts, a prompt a piece of work; the second of two passes.
    fn measure_prefill(&self, requests: &[Request]) -> Result<f64, TrainError> {
        let batch = |request: &Request| {
            let mut batch = PackedBatch::default();
            batch.push_prompt(&request.prompt);
            batch
        };
        let batches: Vec<PackedBatch> = requests.iter().map(batch).collect();
        let forward = || {
            self.setup.threads.map(&batches, |batch| self.model.forward(batch, Adapters::On))?;
            self.engine.synchronize()
        };
        forward()?;
        let start = Instant::now();
        forward()?;
        let seconds = start.elapsed().as_secs_f64();
        let shape = ModelShape::of(&self.setup.start.config);
        let operations: f64 = batches
            .iter()
            .map(|batch| shape.forward_operations(batch.rows() as f64, batch.rows() as f64 / 2.0, 0.0))
            .sum();
        Ok(operations / seconds.max(1e-9))
    }

    /// Operations a second of a gradient over what was sampled.
    fn measure_training<'d>(
        &self,
        requests: &'d [Request],
        sampled: &'d [Vec<Completion>],
        mean_prompt: f64,
        mean_completion: f64,
    ) -> Result<f64, TrainError> {
        // No advantage is 0, so that no group is left out.
        let sample = |(index, completion)| PolicySample::on_policy(completion, if index % 2 == 0 { 1.0 } else { -1.0 });
        let group = |(request, completions): (&'d Request, &'d Vec<Completion>)| PolicyGroup {
            prompt: (&request.prompt).into(),
            samples: completions.iter().enumerate().map(sample).collect(),
        };
        let groups: Vec<PolicyGroup<'_>> = requests.iter().zip(sampled).map(group).collect();
        let completions = sampled.iter().flatten().count();
        let totals =
            StepTotals { sequences: completions, tokens: sampled.iter().flatten().map(|c| c.token_ids.len()).sum() };
        let mut settings = policy_settings(&self.setup.config, self.shape());
        settings.loss.kl_beta = 0.0;
        let gradient = || {
            policy_gradient(&self.model, &groups, totals, &settings, &self.setup.threads)?;
            self.engine.synchronize()
        };
        if !self.engine.device.is_cpu() {
            gradient()?;
        }
        let start = Instant::now();
        gradient()?;
        let seconds = start.elapsed().as_secs_f64();
        let config = TrainConfig {
            prompt_groups_per_step: requests.len(),
            completions_per_prompt: requests.first().map_or(1, |request| request.samples),
            kl_beta: 0.0,
            ..self.setup.config.clone()
        };
        let data =
            DataShape { mean_prompt_tokens: mean_prompt, mean_completion_tokens: mean_completion, ..self.data() };
        Ok(training_operations(&self.setup.start.config, &config, &data, self.shape().recompute) / seconds.max(1e-9))
    }
}
