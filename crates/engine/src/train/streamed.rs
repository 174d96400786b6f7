//! Updates that begin before the rollout ends: groups whose answers are scored are added to the
//! gradient while others are sampled, in the order of [`UpdatePlace`], so that the result is that of
//! an update after the rollout. On a GPU they are computed in a stream of lower priority.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use candle_core::Result;

use super::groups::{AdvantageRule, Group, StreamedUpdate, UpdatePlace, group_batch};
use super::prompt_sets::PromptSets;
use super::rollout_order::PlannedPrompt;
use super::trainer::Trainer;
use crate::config::TrainConfig;
use crate::model::Decoder;
use crate::policy::{Conversation, ConverseSettings, Conversed, Question, Watcher};
use crate::rollout::ThreadPool;
use crate::update::{PolicyGroup, PolicyUpdate, update_beside};

/// Interval of looking how far unfinished groups are; affects only when work begins.
const LOOK: Duration = Duration::from_millis(2);

/// Answers and scores questions, and begins the update with the groups that end first.
pub(super) fn converse_and_update(
    trainer: &Trainer,
    planned: &[PlannedPrompt],
    questions: &[Question<'_>],
    settings: &ConverseSettings<'_>,
) -> Result<(Conversed, StreamedUpdate)> {
    let policy = &trainer.policy;
    let samples: Vec<usize> = questions.iter().map(|one| one.request.samples).collect();
    let tokens: Arc<[AtomicUsize]> = (0..samples.iter().sum())
        .map(|_| AtomicUsize::new(0))
        .collect();
    let groups: Vec<OnceLock<Group>> = planned.iter().map(|_| OnceLock::new()).collect();
    let (sender, ended) = channel();
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
        may_guide: planned
            .iter()
            .map(|planned| trainer.may_guide(planned.prompt))
            .collect(),
        threads: &policy.threads,
        samples: &samples,
        groups: &groups,
        tokens: &tokens,
    };
    let (work, totals, shape) = (&work, trainer.planned_totals(), trainer.policy_settings());
    let (conversed, update, order) = update_beside(
        (&policy.engine, &policy.model),
        trainer.second_stream.as_ref(),
        move |model, sum| work.run(model, PolicyUpdate::begin(sum, totals, &shape), &ended),
        || {
            let mut watch = watch;
            // Dropping the watch ends the stream.
            policy.converse(questions, settings, Some(&mut watch))
        },
    )?;
    Ok((conversed?, StreamedUpdate { update, order }))
}

/// Collects conversations into groups.
struct GroupWatch<'w> {
    groups: &'w [OnceLock<Group>],
    planned: &'w [PlannedPrompt],
    rules: Vec<AdvantageRule>,
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
        groups: &'w [OnceLock<Group>],
        tokens: Arc<[AtomicUsize]>,
        ended: Sender<usize>,
    ) -> Self {
        let rule = |planned: &PlannedPrompt| trainer.advantage_rule(planned.prompt);
        Self {
            groups,
            planned,
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

    fn on_end(&mut self, question: usize, sample: usize, conversation: &Conversation) {
        let all = &mut self.conversations[question];
        all[sample] = Some(conversation.clone());
        if all.iter().any(Option::is_none) {
            return;
        }
        let conversations = all.iter_mut().filter_map(Option::take).collect();
        let PlannedPrompt {
            position, prompt, ..
        } = self.planned[question];
        let group = Group::new(position, prompt, conversations, &self.rules[question]);
        if self.groups[question].set(group).is_ok() {
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
    /// By question, as [`UpdatePlace::of`].
    may_guide: Vec<bool>,
    threads: &'w ThreadPool,
    /// By question.
    samples: &'w [usize],
    /// Set before the question is sent.
    groups: &'w [OnceLock<Group>],
    tokens: &'w [AtomicUsize],
}

impl<'w> Streaming<'w> {
    /// Adds groups until the rollout ends. Returns the gradient so far, with its groups in order.
    fn run(
        &self,
        model: &Decoder,
        mut update: PolicyUpdate,
        ended: &Receiver<usize>,
    ) -> (Result<PolicyUpdate>, Vec<usize>) {
        let (mut order, mut waiting) = (Vec::new(), BTreeSet::new());
        let mut forwarded: Vec<PolicyGroup<'w>> = Vec::new();
        loop {
            let (question, is_over) = match ended.recv_timeout(LOOK) {
                Ok(question) => (Some(question), false),
                Err(RecvTimeoutError::Timeout) => (None, false),
                Err(RecvTimeoutError::Disconnected) => (None, true),
            };
            let all = question.into_iter().chain(ended.try_iter());
            waiting.extend(all.filter_map(|question| self.place(question)));
            if is_over {
                return (Ok(update), order);
            }
            // One at a time: the rollout may end meanwhile.
            let next = waiting.first().copied().filter(|next| self.is_next(*next));
            if let Some(group) = next.and_then(|next| self.groups[next.index()].get()) {
                order.extend(waiting.pop_first().map(UpdatePlace::index));
                let own = group_batch(
                    self.config,
                    self.entropy_coef,
                    self.prompts,
                    group,
                    (0, None),
                );
                forwarded.extend(own.groups);
                update.extend(&forwarded);
            }
            let is_full = update.ready() >= self.threads.count();
            if (is_full || next.is_none() && update.ready() > 0)
                && let Err(error) = update.compute(model, &forwarded, self.threads)
            {
                return (Err(error), order);
            }
        }
    }

    fn place(&self, question: usize) -> Option<UpdatePlace> {
        let group = self.groups[question].get()?;
        Some(UpdatePlace::of(question, group, self.may_guide[question]))
    }

    /// Whether no unfinished group can come before `place`.
    fn is_next(&self, place: UpdatePlace) -> bool {
        let mut first = 0;
        !place.is_guided_later
            && self.samples.iter().enumerate().all(|(question, &samples)| {
                let tokens = &self.tokens[first..first + samples];
                first += samples;
                let sampled = || tokens.iter().map(|one| one.load(Ordering::Relaxed)).max();
                self.groups[question].get().is_some()
                    || UpdatePlace::at_least(question, samples, sampled().unwrap_or(0)) > place
            })
    }
}
