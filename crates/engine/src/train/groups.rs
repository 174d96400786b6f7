//! Groups: a prompt's conversations, compared turn by turn; and the batch of a step's gradient.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::prompt_sets::PromptSets;
use crate::advantage::{Advantage, GroupSignal, group_advantages, normalise_sums, part_sums};
use crate::config::TrainConfig;
use crate::dataset::adaptive_order::GroupOutcome;
use crate::policy::{Conversation, Turn, signal_of};
use crate::ranks::{RankError, Ranks};
use crate::rollout::{DecodeCounts, GpuFallback, StopReason};
use crate::score::{PartWeights, Score};
use crate::update::{LossSequence, PolicyGroup, PolicySample, StepTotals};

/// Conversations of one prompt.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Group {
    /// Position in the endless prompt order, as in random numbers.
    position: u32,
    /// Index of the training prompt.
    pub(super) prompt: usize,
    pub(super) conversations: Vec<Conversation>,
    /// Signals by turn: compare the rewards of sampled answers.
    signals: Vec<GroupSignal>,
}

/// Answers of a group in one turn, compared with each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupTurn<'g> {
    pub(super) group: &'g Group,
    turn: usize,
}

/// As [`GroupTurn`], for records.
pub(super) struct AnsweredTurn {
    pub(super) signal: GroupSignal,
    pub(super) answers: Vec<Turn>,
}

/// A group's outcome for its prompt.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PromptOutcome {
    /// Unique position of the group.
    pub(super) position: u32,
    /// Index of the training prompt.
    pub(super) prompt: usize,
    pub(super) outcome: GroupOutcome,
}

/// A rank's samples of a step.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StepRollout {
    /// Groups that the step trains on.
    pub(super) groups: Vec<Group>,
    /// Prompts skipped to find the groups', over all ranks.
    pub(super) skipped_prompts: u64,
    /// Zero-variance groups that were replaced (`dynamic_sampling`).
    pub(super) replaced: Vec<Group>,
    /// Decoding time.
    pub(super) rollout_seconds: f64,
    pub(super) score_seconds: f64,
    /// Counts of everything decoded together.
    pub(super) counts: DecodeCounts,
    /// GPU fallbacks. Steps sampled together record them in the first.
    pub(super) gpu_fallbacks: Vec<GpuFallback>,
    /// Log-probs by completion number in [`PolicyBatch::completions`], if sampled by older weights
    /// than the step updates.
    #[serde(skip)]
    pub(super) old_log_probs: Option<BTreeMap<usize, Vec<f32>>>,
    /// Time of computing them.
    #[serde(skip)]
    pub(super) forward_seconds: f64,
    /// Other ranks' samples, on rank 0.
    #[serde(skip)]
    pub(super) others: Vec<StepRollout>,
}

/// How rewards become advantages.
#[derive(Debug)]
pub(super) struct AdvantageRule {
    pub(super) kind: Advantage,
    pub(super) weights: PartWeights,
    /// Whether rewards are not part of the loss.
    pub(super) is_off: bool,
}

/// Groups of a gradient, and their part of the step's denominators.
#[derive(Debug, Default)]
pub(super) struct PolicyBatch<'a> {
    pub(super) groups: Vec<PolicyGroup<'a>>,
    /// Number of each sample among the rollout's unmasked completions, in order: independent of the
    /// batch.
    pub(super) completions: Vec<usize>,
    pub(super) totals: StepTotals,
    /// Unmasked completions, including those without a sample.
    pub(super) completion_count: usize,
}

impl Group {
    /// Compares the conversations' rewards.
    pub(super) fn new(
        position: u32,
        prompt: usize,
        conversations: Vec<Conversation>,
        rule: &AdvantageRule,
    ) -> Self {
        let mut group = Self {
            position,
            prompt,
            conversations,
            signals: Vec::new(),
        };
        group.set_advantages(rule);
        group
    }

    /// Sets advantages by turn; with `per_part` sums of parts, until [`StepRollout::normalise`].
    fn set_advantages(&mut self, rule: &AdvantageRule) {
        let turns = self
            .conversations
            .iter()
            .map(|conversation| conversation.turns.len())
            .max()
            .unwrap_or(0);
        for turn in 0..turns {
            let answers: Vec<&mut Turn> = self.answers_mut(turn).collect();
            let weights = (rule.kind == Advantage::PerPart).then_some(&rule.weights);
            let signal = signal_of(answers.iter().map(|answer| &**answer), weights);
            let scores: Vec<&Score> = answers.iter().map(|answer| &answer.score).collect();
            let advantages = match weights {
                _ if rule.is_off => vec![0.0; scores.len()],
                Some(weights) => part_sums(&scores, weights),
                None => {
                    let rewards: Vec<f64> = scores.iter().map(|score| score.reward).collect();
                    group_advantages(&rewards, rule.kind)
                }
            };
            for (answer, advantage) in answers.into_iter().zip(advantages) {
                answer.advantage = advantage;
            }
            self.signals.push(signal);
        }
    }

    fn answers_mut(&mut self, turn: usize) -> impl Iterator<Item = &mut Turn> {
        self.conversations
            .iter_mut()
            .filter_map(move |conversation| conversation.turns.get_mut(turn))
    }

    pub(super) fn turns(&self) -> impl Iterator<Item = GroupTurn<'_>> {
        (0..self.signals.len()).map(|turn| GroupTurn { group: self, turn })
    }

    pub(super) fn into_turns(self) -> impl Iterator<Item = AnsweredTurn> {
        let mut conversations: Vec<_> = self
            .conversations
            .into_iter()
            .map(|talk| talk.turns.into_iter())
            .collect();
        let mut next_turn = move || {
            conversations
                .iter_mut()
                .filter_map(Iterator::next)
                .collect()
        };
        self.signals.into_iter().map(move |signal| AnsweredTurn {
            signal,
            answers: next_turn(),
        })
    }

    /// Replaces the last answer by one with a higher reward than all others. The group has a single
    /// turn.
    pub(super) fn guide(&mut self, answer: Turn, rule: &AdvantageRule) {
        let reward = answer.score.reward;
        let mut others = self
            .conversations
            .iter()
            .flat_map(|conversation| &conversation.turns);
        let is_best =
            others.all(|turn| !turn.score.reward.is_finite() || turn.score.reward < reward);
        if answer.score.is_error() || self.conversations.len() < 2 || !is_best {
            return;
        }
        self.conversations.pop();
        self.conversations.push(Conversation {
            turns: vec![answer],
        });
        let sampled = std::mem::take(&mut self.signals);
        self.set_advantages(rule);
        self.signals = sampled;
    }

    /// Whether an answer has the full reward.
    pub(super) fn has_success(&self) -> bool {
        self.conversations
            .iter()
            .flat_map(|conversation| &conversation.turns)
            .any(|turn| turn.score.is_max())
    }

    /// Whether it has a gradient: rewards differ in a turn, or it is guided.
    pub(super) fn is_informative(&self) -> bool {
        self.turns()
            .any(|turn| turn.signal() == GroupSignal::Mixed || turn.is_guided())
    }

    /// Chosen tokens of each conversation in the loss, without masked answers.
    fn chosen_tokens(&self, config: &TrainConfig) -> Vec<usize> {
        let counted = |talk: &Conversation| {
            let answers = talk.turns.iter().filter(|turn| !is_masked(config, turn));
            answers.map(Turn::chosen_tokens).sum()
        };
        self.conversations.iter().map(counted).collect()
    }

    /// `None` if no sampled answer has a reward.
    pub(super) fn outcome(&self) -> Option<PromptOutcome> {
        let answers = || {
            self.conversations
                .iter()
                .flat_map(|conversation| &conversation.turns)
        };
        let count = |is_counted: fn(&Turn) -> bool| {
            answers().filter(|answer| is_counted(answer)).count() as u32
        };
        let (solved, scored) = (count(Turn::is_solved), count(Turn::is_scored));
        let outcome = GroupOutcome {
            is_informative: self.is_informative(),
            solved,
            scored,
        };
        (scored > 0).then_some(PromptOutcome {
            position: self.position,
            prompt: self.prompt,
            outcome,
        })
    }
}

impl<'g> GroupTurn<'g> {
    /// Answers of conversations that reached the turn, in order.
    pub(super) fn answers(self) -> impl Iterator<Item = &'g Turn> + Clone {
        self.numbered_answers().map(|(_, answer)| answer)
    }

    /// The same, with the index of the conversation.
    fn numbered_answers(self) -> impl Iterator<Item = (usize, &'g Turn)> + Clone {
        let all = self.group.conversations.iter().enumerate();
        all.filter_map(move |(index, conversation)| {
            Some((index, conversation.turns.get(self.turn)?))
        })
    }

    /// Freely sampled answers.
    pub(super) fn sampled(self) -> impl Iterator<Item = &'g Turn> + Clone {
        self.answers()
            .filter(|answer| answer.completion.stop != StopReason::Guided)
    }

    /// Whether the last answer is a guiding one.
    pub(super) fn is_guided(self) -> bool {
        self.answers()
            .last()
            .is_some_and(|answer| answer.completion.stop == StopReason::Guided)
    }

    /// Compares the rewards of sampled answers.
    pub(super) fn signal(self) -> GroupSignal {
        self.group.signals[self.turn]
    }
}

impl StepRollout {
    /// Moves uninformative groups to the replaced ones.
    pub(super) fn set_aside(&mut self) {
        let (informative, rest) = std::mem::take(&mut self.groups)
            .into_iter()
            .partition(Group::is_informative);
        self.groups = informative;
        let rest: Vec<Group> = rest;
        self.replaced.extend(rest);
    }

    /// Second stage of `per_part`, over the selected groups of all ranks.
    pub(super) fn normalise(
        &mut self,
        ranks: &Ranks,
        is_one: impl Fn(&Group) -> bool,
    ) -> Result<(), RankError> {
        let groups = self.groups.iter().filter(|group| is_one(group));
        let counted = groups.flat_map(Group::turns).flat_map(GroupTurn::answers);
        let counted = counted.filter(|answer| answer.score.reward.is_finite());
        let sums: Vec<f64> = counted.map(|answer| answer.advantage).collect();
        let count = ranks.sum(sums.len() as f64)?;
        let mean = ranks.sum(sums.iter().sum())? / count;
        let squares = ranks.sum(sums.iter().map(|sum| (sum - mean).powi(2)).sum())?;
        let deviation = if count > 1.0 {
            (squares / (count - 1.0)).sqrt()
        } else {
            0.0
        };
        for group in self.groups.iter_mut().filter(|group| is_one(group)) {
            for turn in 0..group.signals.len() {
                let counts = GroupTurn { group, turn }.is_guided()
                    || group.signals[turn] == GroupSignal::Mixed;
                for answer in group
                    .answers_mut(turn)
                    .filter(|answer| counts && answer.score.reward.is_finite())
                {
                    answer.advantage = normalise_sums(answer.advantage, mean, deviation);
                }
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, more: Self) {
        self.groups.extend(more.groups);
        self.skipped_prompts += more.skipped_prompts;
        self.rollout_seconds += more.rollout_seconds;
        self.score_seconds += more.score_seconds;
        self.counts += more.counts;
        self.gpu_fallbacks.extend(more.gpu_fallbacks);
    }

    /// Rollouts of all ranks on rank 0, elsewhere this one.
    pub(super) fn all(&self) -> impl Iterator<Item = &Self> + Clone {
        std::iter::once(self).chain(&self.others)
    }

    /// Adds the groups of all ranks, in prompt order.
    pub(super) fn merged(mut self) -> Self {
        for other in std::mem::take(&mut self.others) {
            self.groups.extend(other.groups);
            self.replaced.extend(other.replaced);
        }
        self.groups.sort_by_key(|group| group.position);
        self.replaced.sort_by_key(|group| group.position);
        self
    }

    /// Groups trained on, of all ranks, by turn, in prompt order.
    pub(super) fn group_turns(&self) -> Vec<GroupTurn<'_>> {
        in_order(self.all().flat_map(|rollout| &rollout.groups))
    }

    /// Replaced groups, likewise.
    pub(super) fn replaced_turns(&self) -> Vec<GroupTurn<'_>> {
        in_order(self.all().flat_map(|rollout| &rollout.replaced))
    }

    /// Both: everything sampled.
    pub(super) fn sampled_turns(&self) -> Vec<GroupTurn<'_>> {
        in_order(self.all().flat_map(Self::sampled_groups))
    }

    /// All groups of this rank, in recording order.
    pub(super) fn sampled_groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().chain(&self.replaced)
    }

    /// All answers of this rank, in recording order.
    pub(super) fn answers(&self) -> impl Iterator<Item = &Turn> {
        self.sampled_groups()
            .flat_map(Group::turns)
            .flat_map(GroupTurn::answers)
    }
}

fn in_order<'g>(groups: impl Iterator<Item = &'g Group>) -> Vec<GroupTurn<'g>> {
    let mut groups: Vec<&Group> = groups.collect();
    groups.sort_by_key(|group| group.position);
    groups.into_iter().flat_map(Group::turns).collect()
}

/// The batch of all groups. Omits zero variance (no gradient) unless a teacher, KL or entropy bonus is
/// used, but counts it; masked completions and replaced groups do not count.
pub(super) fn policy_batch<'a>(
    config: &TrainConfig,
    entropy_coef: f64,
    prompts: &'a PromptSets,
    rollout: &'a StepRollout,
) -> PolicyBatch<'a> {
    let mut batch = PolicyBatch::default();
    let mut first_conversation = 0;
    for group in &rollout.groups {
        let lengths = group.chosen_tokens(config);
        batch.totals.sequences += lengths.iter().filter(|tokens| **tokens > 0).count();
        batch.totals.tokens += lengths.iter().sum::<usize>();
        let sequence = |conversation: usize| LossSequence {
            number: first_conversation + conversation,
            tokens: lengths[conversation],
            log_ratio: None,
        };
        let old = rollout.old_log_probs.as_ref();
        let is_all_forwarded = config.kl_beta > 0.0 || entropy_coef > 0.0;
        let forwarded = (is_all_forwarded, old);
        for turn in group.turns() {
            batch.push_turn(config, prompts, turn, forwarded, sequence);
        }
        first_conversation += lengths.len();
    }
    batch
}

/// Whether a completion is no part of the loss.
fn is_masked(config: &TrainConfig, answer: &Turn) -> bool {
    config.overlong_masking && answer.completion.stop.is_truncated()
}

impl<'a> PolicyBatch<'a> {
    /// Adds a turn's samples. `forwarded`: whether all are, and old log-probs by completion.
    fn push_turn(
        &mut self,
        config: &TrainConfig,
        prompts: &'a PromptSets,
        turn: GroupTurn<'a>,
        (is_all_forwarded, old): (bool, Option<&'a BTreeMap<usize, Vec<f32>>>),
        sequence: impl Fn(usize) -> LossSequence,
    ) {
        let Self {
            groups,
            completions,
            completion_count,
            ..
        } = self;
        let first_prompt = &prompts.train[turn.group.prompt].token_ids;
        let own_prompt = Cow::from(first_prompt);
        let teacher_prompt = match prompts.demonstrated.get(turn.group.prompt) {
            Some(demonstrated) => demonstrated.as_ref().map(Cow::from),
            None => config.is_distilled().then(|| own_prompt.clone()),
        };
        let is_taught = teacher_prompt.is_some();
        let learns = config.learns_from_rewards()
            && (turn.signal() == GroupSignal::Mixed || turn.is_guided());
        let first_group = groups.len();
        for (conversation, answer) in turn.numbered_answers() {
            if is_masked(config, answer) {
                continue;
            }
            let mut read: Option<(&[u32], &[u32])> = None;
            for (prompt, completion) in answer.prompted(first_prompt) {
                let number = *completion_count;
                *completion_count += 1;
                let follows = read.and_then(|(prompt_before, before)| {
                    prompt.strip_prefix(prompt_before)?.strip_prefix(before)
                });
                read = Some((prompt, &completion.token_ids));
                if !(learns || is_taught || is_all_forwarded) {
                    continue;
                }
                let old_log_probs = old.and_then(|old| old.get(&number)).map(Cow::from);
                let follows = follows.map(Cow::from);
                let is_next = follows.is_some();
                let sample = PolicySample {
                    follows,
                    old_log_probs,
                    sequence: Some(sequence(conversation)),
                    ..PolicySample::on_policy(completion, answer.advantage)
                };
                completions.push(number);
                match groups[first_group..].last_mut() {
                    Some(group) if is_next || *group.prompt == *prompt => {
                        group.samples.push(sample)
                    }
                    _ => {
                        let is_first = answer.prompt.is_none() && answer.tools.is_none();
                        let teacher_prompt = if is_first {
                            teacher_prompt.clone()
                        } else {
                            is_taught.then(|| prompt.into())
                        };
                        groups.push(PolicyGroup {
                            prompt: prompt.into(),
                            teacher_prompt,
                            samples: vec![sample],
                        });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests;
