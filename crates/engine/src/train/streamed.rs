//! Updates that begin before the rollout ends: groups whose answers are scored are added to the
//! gradient while others are sampled, in the order of [`UpdateKey`], so that the result is that of
//! an update after the rollout. On a GPU they are computed in a stream of lower priority.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use candle_core::Result;

use super::groups::{AdvantageRule, Group, StreamedUpdate, UpdateKey, group_batch};
use super::prompt_sets::PromptSets;
use super::rollout_order::PlannedPrompt;
use super::trainer::Trainer;
use crate::config::TrainConfig;
use crate::model::Decoder;
use crate::plan::StepShape;
use crate::policy::{Conversation, ConverseSettings, Conversed, Question, Watcher};
use crate::rollout::{GpuFallback, RolloutMemory, ThreadPool};
use crate::update::{PolicyGroup, PolicyUpdate, update_beside};

/// Interval of looking how far unfinished groups are; affects only when work begins.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A group, and its place in the order of sums.
struct EndedGroup {
    key: UpdateKey,
    group: Group,
}

/// Answers and scores questions, and begins the update with the groups that end first. Returns the
/// groups in the order of `questions`; what was conversed is without them.
pub(super) fn converse_and_update(
    trainer: &Trainer,
    planned: &[PlannedPrompt],
    questions: &[Question<'_>],
    settings: &ConverseSettings<'_>,
) -> Result<(Conversed, Vec<Group>, StreamedUpdate)> {
    let (policy, halvings) = (&trainer.policy, trainer.policy.memory.halvings());
    let samples: Vec<usize> = questions.iter().map(|one| one.request.samples).collect();
    let tokens: Arc<[AtomicUsize]> = (0..samples.iter().sum())
        .map(|_| AtomicUsize::new(0))
        .collect();
    let groups: Vec<OnceLock<EndedGroup>> = planned.iter().map(|_| OnceLock::new()).collect();
    let (is_over, (sender, ended)) = (AtomicBool::new(false), channel());
    let watch = GroupWatch::new(
        trainer,
        planned,
        &samples,
        &groups,
        Arc::clone(&tokens),
        sender,
    );
    let work = Streaming {
        config: &trainer.config,
        entropy_coef: trainer.entropy_coef(),
        prompts: &trainer.prompts,
        threads: &policy.threads,
        samples: &samples,
        groups: &groups,
        tokens: &tokens,
        is_over: &is_over,
    };
    let (work, totals, loss) = (&work, trainer.planned_totals(), trainer.policy_settings());
    let beside = update_beside(
        (&policy.engine, &policy.model),
        trainer.second_stream.as_ref(),
        move |model, sum| work.run(model, PolicyUpdate::begin(sum, totals, &loss), &ended),
        || {
            let mut watch = watch;
            let conversed = policy.converse(questions, settings, Some(&mut watch));
            is_over.store(true, Ordering::Relaxed);
            conversed
        },
    )?;
    let streamed = StreamedUpdate {
        update: beside.update,
        order: beside.other,
        seconds_after: beside.seconds_after,
    };
    let mut conversed = beside.rollout?;
    give_memory_back(&trainer.shape, &policy.memory, halvings, &mut conversed);
    let groups = groups.into_iter().filter_map(OnceLock::into_inner);
    let groups = groups.map(|ended| ended.group).collect();
    Ok((conversed, groups, streamed))
}

/// A rollout that ran out of memory beside an update has it all from the next step on, which is
/// not overlapped.
fn give_memory_back(
    shape: &Cell<StepShape>,
    memory: &RolloutMemory,
    halvings: u32,
    conversed: &mut Conversed,
) {
    if memory.restore(halvings) {
        shape.set(StepShape {
            overlap: false,
            ..shape.get()
        });
        for fallback in &mut conversed.gpu_fallbacks {
            if let GpuFallback::Smaller { .. } = fallback {
                *fallback = GpuFallback::NotOverlapped;
            }
        }
    }
}

/// Collects conversations into groups.
struct GroupWatch<'w> {
    groups: &'w [OnceLock<EndedGroup>],
    planned: &'w [PlannedPrompt],
    rules: Vec<AdvantageRule>,
    /// By question, as [`UpdateKey::of`].
    may_guide: Vec<bool>,
    /// By question, then sample.
    conversations: Vec<Vec<Option<Conversation>>>,
    tokens: Arc<[AtomicUsize]>,
    ended: Sender<usize>,
}

impl<'w> GroupWatch<'w> {
    fn new(
        trainer: &Trainer,
        planned: &'w [PlannedPrompt],
        samples: &[usize],
        groups: &'w [OnceLock<EndedGroup>],
        tokens: Arc<[AtomicUsize]>,
        ended: Sender<usize>,
    ) -> Self {
        let rule = |planned: &PlannedPrompt| trainer.advantage_rule(planned.prompt);
        let may_guide = planned.iter().map(|one| trainer.may_guide(one.prompt));
        Self {
            groups,
            planned,
            may_guide: may_guide.collect(),
            rules: planned.iter().map(rule).collect(),
            conversations: samples.iter().map(|samples| vec![None; *samples]).collect(),
            tokens,
            ended,
        }
    }
}

impl Watcher for GroupWatch<'_> {
    fn tokens(&self) -> Option<Arc<[AtomicUsize]>> {
        Some(Arc::clone(&self.tokens))
    }

    fn on_end(&mut self, question: usize, sample: usize, conversation: &mut Conversation) {
        let all = &mut self.conversations[question];
        all[sample] = Some(std::mem::take(conversation));
        if all.iter().any(Option::is_none) {
            return;
        }
        let conversations = all.iter_mut().filter_map(Option::take).collect();
        let PlannedPrompt {
            position, prompt, ..
        } = self.planned[question];
        let group = Group::new(position, prompt, conversations, &self.rules[question]);
        let key = UpdateKey::of(question, &group, self.may_guide[question]);
        if self.groups[question].set(EndedGroup { key, group }).is_ok() {
            // After a failed update nobody listens.
            _ = self.ended.send(question);
        }
    }
}

/// What the updating thread reads.
struct Streaming<'w> {
    config: &'w TrainConfig,
    entropy_coef: f64,
    prompts: &'w PromptSets,
    threads: &'w ThreadPool,
    /// By question.
    samples: &'w [usize],
    /// Set before the question is sent.
    groups: &'w [OnceLock<EndedGroup>],
    tokens: &'w [AtomicUsize],
    /// Set once the rollout has ended: the rest is computed after it.
    is_over: &'w AtomicBool,
}

impl<'w> Streaming<'w> {
    /// Adds groups until the rollout is over, or all that will end have. Returns the gradient so far,
    /// with its groups in order.
    fn run(
        &self,
        model: &Decoder,
        mut update: PolicyUpdate,
        ended: &Receiver<usize>,
    ) -> (Result<PolicyUpdate>, Vec<usize>) {
        let (mut order, mut waiting) = (Vec::new(), BTreeSet::new());
        let mut forwarded: Vec<PolicyGroup<'w>> = Vec::new();
        loop {
            waiting.extend(ended.try_iter().filter_map(|question| self.key(question)));
            let is_over = self.is_over.load(Ordering::Relaxed);
            let next = waiting.first().copied();
            let next = next.filter(|next| !is_over && self.is_next(*next, &order));
            if let Some(ended) = next.and_then(|next| self.groups[next.index()].get()) {
                order.extend(waiting.pop_first().map(UpdateKey::index));
                let (prompts, group) = (self.prompts, &ended.group);
                let own = group_batch(self.config, self.entropy_coef, prompts, group, (0, None));
                forwarded.extend(own.groups);
                update.extend(&forwarded);
            }
            let is_full = update.ready() >= self.threads.count();
            let computes = is_full || next.is_none() && update.ready() > 0;
            if computes && !is_over {
                if let Err(error) = update.compute(model, &forwarded, self.threads) {
                    return (Err(error), order);
                }
            } else if next.is_none() {
                match ended.recv_timeout(POLL_INTERVAL) {
                    Ok(question) => waiting.extend(self.key(question)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return (Ok(update), order),
                }
            }
        }
    }

    fn key(&self, question: usize) -> Option<UpdateKey> {
        self.groups[question].get().map(|ended| ended.key)
    }

    /// Whether no group that is not yet in `order` can come before `key`.
    fn is_next(&self, key: UpdateKey, order: &[usize]) -> bool {
        let mut first = 0;
        !key.is_guided_later
            && self.samples.iter().enumerate().all(|(question, &samples)| {
                let tokens = &self.tokens[first..first + samples];
                first += samples;
                let sampled = || tokens.iter().map(|one| one.load(Ordering::Relaxed)).max();
                match self.key(question) {
                    // It may have ended since `waiting` was filled.
                    Some(own) => own >= key || order.contains(&question),
                    None => UpdateKey::at_least(question, samples, sampled().unwrap_or(0)) > key,
                }
            })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::groups::tests::{Shape, config, group, prompts};
    use super::super::trainer::policy_settings;
    use super::*;
    use crate::hub::ModelConfig;
    use crate::model::{Gradients, Trainable, Weights};
    use crate::update::{StepTotals, policy_gradient};

    const EARLY: Shape<'_> = &[(3, false, 1.0), (2, false, 0.0)];
    const LATE: Shape<'_> = &[(2, false, 1.0), (9, false, 0.0)];
    const FAILED: Shape<'_> = &[(1, false, 0.5), (1, false, 0.0)];

    /// Two questions with two samples each, the second with a guide.
    fn streaming<T>(tokens: [usize; 4], test: impl FnOnce(&Streaming<'_>) -> T) -> T {
        let tokens = tokens.map(AtomicUsize::new);
        let groups = [const { OnceLock::new() }; 2];
        test(&Streaming {
            config: &config(&[]),
            entropy_coef: 0.0,
            prompts: &prompts(),
            threads: &ThreadPool::calling(),
            samples: &[2, 2],
            groups: &groups,
            tokens: &tokens,
            is_over: &AtomicBool::new(false),
        })
    }

    /// The second question may be guided.
    fn end(work: &Streaming<'_>, question: usize, shape: Shape<'_>) {
        let group = group(shape);
        let key = UpdateKey::of(question, &group, question == 1);
        assert!(work.groups[question].set(EndedGroup { key, group }).is_ok());
    }

    #[test]
    fn a_rollout_that_ran_out_of_memory_beside_an_update_is_small_once() {
        let shape = StepShape {
            overlap: true,
            ..StepShape::for_config(&config(&[]))
        };
        let fallbacks = || {
            let cause = String::new();
            let smaller = GpuFallback::Smaller { parts: 4 };
            vec![smaller, GpuFallback::Unrecorded { cause }]
        };
        let smaller = GpuFallback::Smaller { parts: 4 };
        for (halved, overlap, told) in [(0, true, smaller), (2, false, GpuFallback::NotOverlapped)]
        {
            let (shape, memory) = (Cell::new(shape), RolloutMemory::default());
            assert!(memory.halve(64));
            (0..halved).for_each(|_| assert!(memory.halve(64)));
            let mut conversed = Conversed {
                gpu_fallbacks: fallbacks(),
                ..Conversed::default()
            };
            give_memory_back(&shape, &memory, 1, &mut conversed);
            assert_eq!(memory.halvings(), 1);
            assert_eq!(shape.get().overlap, overlap);
            assert_eq!(conversed.gpu_fallbacks[0], told);
            assert_eq!(conversed.gpu_fallbacks.len(), 2);
        }
    }

    #[test]
    fn a_group_waits_for_those_that_may_come_before_it() {
        streaming([3, 1, 0, 0], |work| {
            let next = |tokens| work.is_next(UpdateKey::at_least(1, 2, tokens), &[]);
            end(work, 1, FAILED);
            assert!(next(2) && !next(3), "the other has 3 tokens");
            work.tokens[1].store(5, Ordering::Relaxed);
            assert!(next(4) && !next(5));
            // It may get a guiding answer after the rollout.
            let key = work.key(1).unwrap();
            assert!(key.is_guided_later && !work.is_next(key, &[]));
            end(work, 0, LATE);
            assert!(next(5) && !next(10) && !work.is_next(key, &[]));
            let later = UpdateKey::at_least(1, 2, 10);
            assert!(work.is_next(later, &[0]), "the other is added");
        });
    }

    /// Groups are added in their order, whichever ends first, and the sum is the same to the last bit.
    #[test]
    fn a_gradient_that_begins_early_is_the_same() {
        let json = r#"{"architectures":["Qwen3ForCausalLM"],"vocab_size":19,"hidden_size":16,
            "intermediate_size":24,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,
            "head_dim":8,"max_position_embeddings":32}"#;
        let model = ModelConfig::parse(json, "config.json").unwrap();
        let (weights, trainable) = (Weights::fresh(&model, 3), Trainable::Full);
        let model = Decoder::new(&model, &weights, trainable, 1, DType::F32, &Device::Cpu).unwrap();
        let seen = model.on_stream(&Device::Cpu).unwrap();
        let totals = StepTotals {
            sequences: 4,
            tokens: 16,
        };
        streaming([0; 4], |work| {
            end(work, 0, LATE);
            end(work, 1, EARLY);
            for most_tokens in [4, 9, 100] {
                let shape = StepShape {
                    tokens_per_micro_batch: most_tokens,
                    ..StepShape::for_config(work.config)
                };
                let settings = policy_settings(work.config, shape);
                let begun = || {
                    let sum = Gradients::zeros(model.parameters()).unwrap();
                    PolicyUpdate::begin(sum, totals, &settings)
                };
                let (sender, ended) = channel();
                for question in [0, 1] {
                    sender.send(question).unwrap();
                }
                drop(sender);
                let (update, order) = work.run(&seen, begun(), &ended);
                assert_eq!(order, [1, 0]);
                let all = order.iter().flat_map(|&index| {
                    let group = &work.groups[index].get().unwrap().group;
                    group_batch(work.config, 0.0, work.prompts, group, (0, None)).groups
                });
                let all: Vec<PolicyGroup<'_>> = all.collect();
                let numbers = |sum: Gradients| sum.flat().to_vec1::<f32>().unwrap();
                let (sum, found) = update.unwrap().finish(&model, &all, work.threads).unwrap();
                let (expected_sum, expected) =
                    policy_gradient(&model, &all, totals, &settings, work.threads).unwrap();
                let expected_sum = numbers(expected_sum);
                assert!(expected_sum.iter().any(|number| *number != 0.0));
                assert!(
                    numbers(sum) == expected_sum && found == expected,
                    "{most_tokens}"
                );
                // Nothing begins once the rollout is over.
                work.is_over.store(true, Ordering::Relaxed);
                let (sender, ended) = channel();
                sender.send(0).unwrap();
                drop(sender);
                let (_, order) = work.run(&seen, begun(), &ended);
                assert!(order.is_empty());
                work.is_over.store(false, Ordering::Relaxed);
            }
        });
    }
}
