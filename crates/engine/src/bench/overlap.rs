//! Whole steps of completions of different lengths, whose update follows the rollout or begins
//! during it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use candle_core::{Result, bail};

use super::gpu::Bench;
use super::timing::{REPEATS, median};
use super::{Measurement, policy_settings, sampling};
use crate::model::{Adapters, Decoder, Gradients};
use crate::plan::StepShape;
use crate::rollout::{Completion, Request, RolloutMemory, generate_with};
use crate::update::{
    Optimizer, OptimizerSettings, PolicyGroup, PolicySettings, PolicyUpdate, SecondStream,
    StepTotals, update_beside,
};

/// A step of the bench's lengths.
struct Step<'a> {
    bench: &'a Bench<'a>,
    requests: Vec<Request>,
    /// Requests in the order in which they end, by their longest completions.
    order: Vec<usize>,
    settings: PolicySettings,
    totals: StepTotals,
    longest: usize,
    memory: RolloutMemory,
    stream: Option<SecondStream>,
}

/// A gradient, and the time that it took.
struct Timed {
    gradients: Gradients,
    completions: Vec<Vec<Completion>>,
    rollout_seconds: f64,
    /// Groups added during the rollout.
    begun: usize,
}

impl Bench<'_> {
    /// Measures steps without overlap, then with it, and compares their gradients bit for bit.
    pub(super) fn steps_of_lengths(
        &self,
        (prompts, completions): (usize, usize),
        planned: StepShape,
        note: &mut impl FnMut(Measurement),
    ) -> Result<()> {
        let (requests, lengths) = self.requests_of_lengths(prompts, completions);
        let (batch, tokens) = (prompts * completions, lengths.iter().sum::<usize>());
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let mut order: Vec<usize> = (0..prompts).collect();
        order.sort_by_key(|&request| (requests[request].lengths.iter().max().copied(), request));
        let small_steps = OptimizerSettings {
            learning_rate: 1e-6,
            ..OptimizerSettings::PLAIN
        };
        let parameters = self.model.parameters();
        let mut optimizer = Optimizer::new(small_steps, parameters, &self.engine.device)?;
        self.engine.trim_memory()?;
        let StepShape {
            tokens_per_micro_batch,
            recompute,
            overlap,
        } = planned;
        let step = Step {
            bench: self,
            settings: policy_settings(longest, tokens_per_micro_batch, recompute),
            requests,
            order,
            totals: StepTotals {
                sequences: batch,
                tokens,
            },
            longest,
            memory: RolloutMemory::default(),
            stream: SecondStream::open(self.engine, self.model)?,
        };
        let prompt_tokens = self.bench.prompt_tokens;
        let average = tokens as f64 / batch as f64;
        let bits = |timed: &Timed| timed.gradients.flat().to_vec1::<f32>();
        // Also records decode steps, before anything is timed.
        let first = bits(&step.gradient(false)?)?;
        if first.iter().all(|number| *number == 0.0) {
            bail!("the gradient of the bench is zero")
        }
        let mut without = None;
        for is_overlapped in [false, true] {
            let planned = StepShape {
                overlap: is_overlapped,
                ..planned
            };
            let shape = format!(
                "{prompts} x {completions}, {prompt_tokens} + {average:.0} tokens on average, at most {longest}, {planned}"
            );
            let label = match is_overlapped {
                true => "step of lengths, overlapped",
                false => "step of lengths",
            };
            if is_overlapped && !overlap {
                let why = "GPU memory does not hold a rollout and an update at once";
                note(Measurement::missing(label, &shape, batch, why));
                break;
            }
            if is_overlapped {
                // Weights have changed since: compare with a gradient of the same ones.
                let (after, beside) = (step.gradient(false)?, step.gradient(true)?);
                if beside.completions != after.completions {
                    bail!("completions differ between two rollouts of the same weights")
                }
                let (expected, found) = (bits(&after)?, bits(&beside)?);
                let differ = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits();
                let different = expected.iter().zip(&found).filter(differ).count();
                if different > 0 {
                    bail!(
                        "{different} of {} numbers of a gradient differ with overlap",
                        found.len()
                    )
                }
            }
            let mut last = [0.0; 3];
            let seconds = median(REPEATS, || {
                let start = Instant::now();
                let timed = step.gradient(is_overlapped)?;
                optimizer.apply(parameters, &timed.gradients)?;
                self.engine.synchronize()?;
                let seconds = start.elapsed().as_secs_f64();
                last = [
                    timed.rollout_seconds,
                    seconds - timed.rollout_seconds,
                    timed.begun as f64,
                ];
                Ok(seconds)
            })?;
            let mut figure = |what: &str, value, unit| {
                let name = format!("{label}{what}");
                note(Measurement::new(&name, &shape, batch, value, unit, None));
            };
            figure("", seconds, "s");
            figure(": speed", tokens as f64 / seconds, "tokens/s");
            figure(": rollout", last[0], "s");
            figure(": update after it", last[1], "s");
            if is_overlapped {
                figure(": groups begun", last[2], "groups");
                let before: f64 = without.unwrap_or(f64::NAN);
                figure(": of the time without", 100.0 * seconds / before, "%");
            }
            without = Some(seconds);
            if let Some(bytes) = self.engine.memory_in_use() {
                figure(": memory held", bytes as f64 / f64::from(1 << 30), "GiB");
            }
        }
        Ok(())
    }
}

impl Step<'_> {
    fn gradient(&self, is_overlapped: bool) -> Result<Timed> {
        let Bench {
            engine,
            model,
            threads,
            ..
        } = *self.bench;
        let sampling = sampling(self.longest);
        let start = Instant::now();
        let sample = |on_end: &(dyn Fn(usize, u32, &Completion) + Sync)| {
            let requests = &self.requests;
            let model = (model, Adapters::On);
            generate_with(model, requests, &sampling, &self.memory, threads, on_end)
        };
        let begin = |sum| PolicyUpdate::begin(sum, self.totals, &self.settings);
        let (sampled, update, begun) = if is_overlapped {
            let ended: Vec<OnceLock<Vec<Completion>>> =
                self.requests.iter().map(|_| OnceLock::new()).collect();
            let (ended, is_over) = (&ended, &AtomicBool::new(false));
            let (sender, receiver) = channel::<(usize, u32, Completion)>();
            let update = move |model: &Decoder, sum: Gradients| {
                let mut update = begin(sum);
                let mut groups: Vec<PolicyGroup<'_>> = Vec::new();
                let mut collected: Vec<Vec<(u32, Completion)>> = vec![Vec::new(); ended.len()];
                while let Ok((request, sample, completion)) = receiver.recv() {
                    let own = &mut collected[request];
                    own.push((sample, completion));
                    if own.len() == self.requests[request].samples {
                        own.sort_by_key(|(sample, _)| *sample);
                        let all = own.drain(..).map(|(_, completion)| completion);
                        _ = ended[request].set(all.collect());
                    }
                    while !is_over.load(Ordering::Relaxed)
                        && let Some(&next) = self.order.get(groups.len())
                        && let Some(completions) = ended[next].get()
                    {
                        groups.push(self.group(next, completions));
                        update.extend(&groups);
                        if update.ready() > 0
                            && let Err(error) = update.compute(model, &groups, threads)
                        {
                            return (Err(error), groups.len());
                        }
                    }
                }
                (Ok(update), groups.len())
            };
            let rollout = move || {
                let tell = |request, sample, completion: &Completion| {
                    _ = sender.send((request, sample, completion.clone()));
                };
                let sampled = sample(&tell);
                is_over.store(true, Ordering::Relaxed);
                let seconds = start.elapsed().as_secs_f64();
                sampled.map(|sampled| (sampled, seconds))
            };
            let stream = self.stream.as_ref();
            let beside = update_beside((engine, model), stream, update, rollout)?;
            (beside.rollout?, beside.update?, beside.other)
        } else {
            let sampled = sample(&|_, _, _| ())?;
            let seconds = start.elapsed().as_secs_f64();
            (
                (sampled, seconds),
                begin(Gradients::zeros(model.parameters())?),
                0,
            )
        };
        let (sampled, rollout_seconds) = sampled;
        let groups = self.order.iter();
        let groups = groups.map(|&request| self.group(request, &sampled.completions[request]));
        let groups: Vec<PolicyGroup<'_>> = groups.collect();
        let (gradients, _) = update.finish(model, &groups, threads)?;
        engine.synchronize()?;
        drop(groups);
        Ok(Timed {
            gradients,
            completions: sampled.completions,
            rollout_seconds,
            begun,
        })
    }

    fn group<'c>(&'c self, request: usize, completions: &'c [Completion]) -> PolicyGroup<'c> {
        PolicyGroup::alternating(&self.requests[request].prompt, completions)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{GpuBench, measure_gpu};
    use crate::hub::ModelConfig;
    use crate::kernels::device::Engine;

    /// It fails if the gradients differ.
    #[test]
    fn steps_are_measured_with_and_without_overlap() {
        let json = r#"{"architectures":["Qwen3ForCausalLM"],"vocab_size":64,"hidden_size":32,
            "intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,
            "head_dim":16,"max_position_embeddings":64}"#;
        let config = ModelConfig::parse(json, "config.json").unwrap();
        let bench = GpuBench {
            prompt_tokens: 5,
            lora_rank: 2,
            decode_batches: Vec::new(),
            steps: vec![(4, 2)],
            tokens_per_micro_batch: 20,
            lengths: vec![1, 4, 20],
            ..GpuBench::default()
        };
        let found = measure_gpu(&config, &Engine::cpu(), &bench, |_| ()).unwrap();
        for name in ["step of lengths", "step of lengths, overlapped"] {
            let of_name = |one: &&crate::bench::Measurement| one.name == name;
            let measured = found.iter().find(of_name).unwrap();
            assert!(
                measured.missing.is_none() && measured.value > 0.0,
                "{found:?}"
            );
        }
    }
}
