//! Whole steps of completions of different lengths, or of conversations with a slow tool, whose
//! update follows the rollout or begins during it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use candle_core::{Result, bail};

use super::conversations::{Conversations, GoingOn, IdleClock, OnTalk, Talk, conversation_tokens};
use super::gpu::Bench;
use super::timing::{REPEATS, median};
use super::{Measurement, policy_settings, sampling};
use crate::model::{Adapters, Decoder, Gradients};
use crate::plan::StepShape;
use crate::rollout::{
    Completion, Request, RolloutMemory, SizedSource, generate_from, generate_with,
};
use crate::update::{
    Optimizer, OptimizerSettings, PolicyGroup, PolicySettings, PolicyUpdate, SecondStream,
    StepTotals, policy_gradient, update_beside,
};

/// A step of the bench's lengths or conversations.
struct Step<'a> {
    bench: &'a Bench<'a>,
    requests: Vec<Request>,
    /// Requests in the order in which they end, by their longest samples.
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
    talks: Vec<Vec<Talk>>,
    rollout_seconds: f64,
    /// Time in which the device had neither rollout nor update.
    idle_seconds: f64,
    /// Groups added during the rollout.
    begun: usize,
}

impl Bench<'_> {
    /// Measures steps without overlap, then with it, and compares their gradients bit for bit.
    pub(super) fn overlapped_steps(
        &self,
        name: &str,
        (prompts, completions): (usize, usize),
        planned: StepShape,
        note: &mut impl FnMut(Measurement),
    ) -> Result<()> {
        let (batch, prompt_tokens) = (prompts * completions, self.bench.prompt_tokens);
        let new_tokens = self.bench.new_tokens;
        let (requests, lengths) = match self.bench.tools {
            None => self.requests_of_lengths(prompts, completions),
            Some(tools) => {
                let own = |row| {
                    let (prompt, sample) = (row / completions, row % completions);
                    conversation_tokens(tools, new_tokens, prompt, sample)
                };
                let lengths = (0..batch).map(own).collect();
                (self.requests(prompts, completions), lengths)
            }
        };
        let (longest, sequences) = match self.bench.tools {
            None => (lengths.iter().copied().max().unwrap_or(1), batch),
            Some(tools) => {
                let longest = self.most_conversation_tokens(tools);
                (longest, batch * (tools.calls + 1))
            }
        };
        let tokens: usize = lengths.iter().sum();
        let longest_of = |request: &usize| {
            let own = &lengths[request * completions..][..completions];
            (own.iter().max().copied(), *request)
        };
        let mut order: Vec<usize> = (0..prompts).collect();
        order.sort_by_key(longest_of);
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
            totals: StepTotals { sequences, tokens },
            longest,
            memory: RolloutMemory::default(),
            stream: SecondStream::open(self.engine, self.model)?,
        };
        let average = tokens as f64 / batch as f64;
        let sizes = match self.bench.tools {
            None => format!("{prompt_tokens} + {average:.0} tokens on average, at most {longest}"),
            Some(tools) => {
                format!("{tools}, {prompt_tokens} + {average:.0} sampled tokens on average")
            }
        };
        let bits = |gradients: &Gradients| gradients.flat().to_vec1::<f32>();
        // Also records decode steps, before anything is timed.
        let first = step.run(false)?;
        if bits(&first.gradients)?.iter().all(|number| *number == 0.0) {
            bail!("the gradient of the bench is zero")
        }
        let mut without = None;
        for is_overlapped in [false, true] {
            let planned = StepShape {
                overlap: is_overlapped,
                ..planned
            };
            let shape = format!("{prompts} x {completions}, {sizes}, {planned}");
            let label = match is_overlapped {
                true => format!("{name}, overlapped"),
                false => name.to_owned(),
            };
            if is_overlapped && !overlap {
                let why = "GPU memory does not hold a rollout and an update at once";
                note(Measurement::missing(&label, &shape, batch, why));
                break;
            }
            let mut equal = None;
            if is_overlapped {
                // Weights have changed since: compare with a rollout of the same ones.
                let (after, beside) = (step.run(false)?, step.run(true)?);
                let pairs = beside
                    .talks
                    .iter()
                    .flatten()
                    .zip(after.talks.iter().flatten());
                let same = pairs.filter(|(beside, after)| beside == after).count();
                // When a tool answers depends on the clock, and the last bits of a pass on its rows.
                if same < batch && self.bench.tools.is_none() {
                    bail!("completions differ between two rollouts of the same weights")
                }
                equal = self.bench.tools.map(|_| same);
                let expected = bits(&step.gradient(&beside.talks)?)?;
                let found = bits(&beside.gradients)?;
                let differ = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits();
                let different = expected.iter().zip(&found).filter(differ).count();
                if different > 0 {
                    bail!(
                        "{different} of {} numbers of a gradient differ with overlap",
                        found.len()
                    )
                }
            }
            let mut last = [0.0; 4];
            let seconds = median(REPEATS, || {
                let start = Instant::now();
                let timed = step.run(is_overlapped)?;
                optimizer.apply(parameters, &timed.gradients)?;
                self.engine.synchronize()?;
                let seconds = start.elapsed().as_secs_f64();
                last = [
                    timed.rollout_seconds,
                    seconds - timed.rollout_seconds,
                    timed.begun as f64,
                    100.0 * timed.idle_seconds / seconds,
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
            if self.bench.tools.is_some() {
                figure(": idle", last[3], "%");
            }
            if is_overlapped {
                figure(": groups begun", last[2], "groups");
                let before: f64 = without.unwrap_or(f64::NAN);
                figure(": of the time without", 100.0 * seconds / before, "%");
            }
            if let Some(same) = equal {
                let share = 100.0 * same as f64 / batch as f64;
                figure(": conversations equal in a second rollout", share, "%");
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
    /// A rollout, and the gradient of what it sampled.
    fn run(&self, is_overlapped: bool) -> Result<Timed> {
        let Bench {
            engine,
            model,
            threads,
            ..
        } = *self.bench;
        let (start, clock) = (Instant::now(), &IdleClock::default());
        let (sampled, update, begun) = if is_overlapped {
            let ended: Vec<OnceLock<Vec<Talk>>> =
                self.requests.iter().map(|_| OnceLock::new()).collect();
            let (ended, is_over) = (&ended, &AtomicBool::new(false));
            let (sender, receiver) = channel::<(usize, u32, Talk)>();
            let update = move |model: &Decoder, sum: Gradients| {
                let mut update = PolicyUpdate::begin(sum, self.totals, &self.settings);
                let mut groups: Vec<PolicyGroup<'_>> = Vec::new();
                let mut collected: Vec<Vec<(u32, Talk)>> = vec![Vec::new(); ended.len()];
                while let Ok((request, sample, talk)) = receiver.recv() {
                    let own = &mut collected[request];
                    own.push((sample, talk));
                    if own.len() == self.requests[request].samples {
                        own.sort_by_key(|(sample, _)| *sample);
                        let all = own.drain(..).map(|(_, talk)| talk);
                        _ = ended[request].set(all.collect());
                    }
                    while !is_over.load(Ordering::Relaxed)
                        && let Some(&next) = self.order.get(groups.len())
                        && let Some(talks) = ended[next].get()
                    {
                        groups.push(self.group(next, talks));
                        update.extend(&groups);
                        if update.ready() > 0 {
                            clock.begin_work();
                            let mut computed = update.compute(model, &groups, threads);
                            if self.bench.bench.tools.is_some() {
                                // Otherwise its end is not known.
                                computed = computed.and_then(|()| model.device().synchronize());
                            }
                            clock.end_work();
                            if let Err(error) = computed {
                                return (Err(error), groups.len());
                            }
                        }
                    }
                }
                (Ok(update), groups.len())
            };
            let rollout = move || {
                let tell = |request, sample, talk: &Talk| {
                    _ = sender.send((request, sample, talk.clone()));
                };
                let sampled = self.sample(clock, Some(&tell));
                is_over.store(true, Ordering::Relaxed);
                let seconds = start.elapsed().as_secs_f64();
                sampled.map(|sampled| (sampled, seconds))
            };
            let stream = self.stream.as_ref();
            let beside = update_beside((engine, model), stream, update, rollout)?;
            (beside.rollout?, beside.update?, beside.other)
        } else {
            let sampled = self.sample(clock, None)?;
            let seconds = start.elapsed().as_secs_f64();
            let sum = Gradients::zeros(model.parameters())?;
            let update = PolicyUpdate::begin(sum, self.totals, &self.settings);
            ((sampled, seconds), update, 0)
        };
        let (talks, rollout_seconds) = sampled;
        let idle_seconds = clock.seconds();
        let (gradients, _) = update.finish(model, &self.groups(&talks), threads)?;
        engine.synchronize()?;
        Ok(Timed {
            gradients,
            talks,
            rollout_seconds,
            idle_seconds,
            begun,
        })
    }

    /// Samples by request; `on_end` is told of each.
    fn sample(&self, clock: &IdleClock, on_end: Option<OnTalk<'_>>) -> Result<Vec<Vec<Talk>>> {
        let Bench {
            config,
            bench,
            model,
            threads,
            ..
        } = *self.bench;
        let model = (model, Adapters::On);
        clock.begin_work();
        let talks = if let Some(tools) = bench.tools {
            let own = |request: &Request| vec![OnceLock::new(); request.samples];
            let all: Vec<Vec<OnceLock<Talk>>> = self.requests.iter().map(own).collect();
            let told = |request: usize, sample: u32, talk: &Talk| {
                _ = all[request][sample as usize].set(talk.clone());
                if let Some(on_end) = on_end {
                    on_end(request, sample, talk);
                }
            };
            let (tools, sizes) = (
                (tools, GoingOn::Kept),
                (bench.new_tokens, config.vocab_size),
            );
            let mut source = Conversations::new(&self.requests, tools, sizes, clock, &told);
            let sampling = Conversations::sampling(bench.new_tokens);
            let sizes = source.sizes();
            let sources = [SizedSource::new(&mut source, sizes)];
            generate_from(model, &sources, &sampling, &self.memory, threads)?;
            drop(sources);
            let all = all.into_iter();
            all.map(|own| own.into_iter().filter_map(OnceLock::into_inner).collect())
                .collect()
        } else {
            let told = |request: usize, sample: u32, completion: &Completion| {
                if let Some(on_end) = on_end {
                    on_end(request, sample, &completion.clone().into());
                }
            };
            let sampling = sampling(self.longest);
            let (requests, memory) = (&self.requests, &self.memory);
            let sampled = generate_with(model, requests, &sampling, memory, threads, &told)?;
            let of_request = |own: Vec<Completion>| own.into_iter().map(Talk::from).collect();
            sampled.completions.into_iter().map(of_request).collect()
        };
        clock.end_work();
        Ok(talks)
    }

    /// The gradient after a rollout.
    fn gradient(&self, talks: &[Vec<Talk>]) -> Result<Gradients> {
        let Bench { model, threads, .. } = *self.bench;
        let groups = self.groups(talks);
        let found = policy_gradient(model, &groups, self.totals, &self.settings, threads)?;
        Ok(found.0)
    }

    fn groups<'t>(&'t self, talks: &'t [Vec<Talk>]) -> Vec<PolicyGroup<'t>> {
        let groups = self.order.iter();
        groups
            .map(|&request| self.group(request, &talks[request]))
            .collect()
    }

    /// With nonzero advantages, so that nothing is omitted.
    fn group<'t>(&'t self, request: usize, talks: &'t [Talk]) -> PolicyGroup<'t> {
        let advantages = [1.0, -1.0].into_iter().cycle();
        let samples = talks.iter().zip(advantages);
        PolicyGroup {
            prompt: self.requests[request].prompt.as_slice().into(),
            teacher_prompt: None,
            samples: samples
                .flat_map(|(talk, advantage)| talk.samples(advantage))
                .collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{GpuBench, ToolCalls, measure_gpu};
    use crate::hub::ModelConfig;
    use crate::kernels::device::Engine;

    /// It fails if the gradients differ.
    #[test]
    fn steps_are_measured_with_and_without_overlap() {
        let lengths = GpuBench {
            lengths: vec![1, 4, 20],
            ..GpuBench::default()
        };
        let tools = ToolCalls {
            calls: 3,
            milliseconds: 1,
            reply_tokens: 2,
        };
        let conversations = GpuBench {
            tools: Some(tools),
            new_tokens: 4,
            ..GpuBench::default()
        };
        check("step of lengths", lengths);
        check("step of conversations", conversations);
    }

    fn check(name: &str, bench: GpuBench) {
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
            ..bench
        };
        let found = measure_gpu(&config, &Engine::cpu(), &bench, |_| ()).unwrap();
        for name in [name.to_owned(), format!("{name}, overlapped")] {
            let of_name = |one: &&crate::bench::Measurement| one.name == name;
            let measured = found.iter().find(of_name).unwrap();
            assert!(
                measured.missing.is_none() && measured.value > 0.0,
                "{found:?}"
            );
        }
    }
}
