//! Tests of which completions count, which are forwarded, and their weights.

use super::*;
use crate::config::Layers;
use crate::dataset::PromptRow;
use crate::dataset::order::{PromptOrder, TaskRows};
use crate::environment::ChainEnd;
use crate::policy::{CallStep, Prompt, ToolTurn};
use crate::rollout::Completion;

pub(in crate::train) fn config(set: &[&str]) -> TrainConfig {
    Layers {
        set: set.iter().map(|text| (*text).to_owned()).collect(),
        ..Layers::default()
    }
    .resolve()
    .unwrap()
    .config
}

fn score(reward: f64) -> Score {
    serde_json::from_value(serde_json::json!({
        "reward": reward, "tier": if reward == 1.0 { "valid" } else { "invalid" }, "tolerant": true, "warnings": [], "errors": [],
        "fields": null, "exact": null, "failure": null, "parts": {},
    }))
    .unwrap()
}

pub(in crate::train) fn rule(kind: Advantage) -> AdvantageRule {
    let weights = [("tier", 1.0), ("fields", 2.0)].map(|(name, weight)| (name.to_owned(), weight));
    AdvantageRule {
        kind,
        weights: PartWeights(weights.to_vec()),
        is_off: false,
    }
}

/// Answers of one turn: (tokens, truncated, reward).
pub(in crate::train) type Shape<'s> = &'s [(usize, bool, f64)];

pub(in crate::train) fn group(shape: Shape<'_>) -> Group {
    let conversation = |&(tokens, is_truncated, reward): &(usize, bool, f64)| {
        let stop = if is_truncated {
            StopReason::Length
        } else {
            StopReason::Stop
        };
        let completion = Completion::new(vec![1; tokens], vec![-1.0; tokens], stop);
        Conversation {
            turns: vec![Turn::new(completion, String::new(), score(reward))],
        }
    };
    Group::new(
        0,
        0,
        shape.iter().map(conversation).collect(),
        &rule(Advantage::Standardized),
    )
}

pub(in crate::train) fn prompts() -> PromptSets {
    let (id, messages, tags, fields) = ("p".to_owned(), Vec::new(), Vec::new(), Default::default());
    let row = PromptRow {
        id,
        messages,
        expected: None,
        tags,
        fields,
        line: 1,
    };
    let train = vec![Prompt {
        row,
        task: 0,
        text: String::new(),
        token_ids: vec![9],
        most_tokens: 1,
        most_completions: 1,
    }];
    let order = PromptOrder::new(vec![TaskRows { rows: 1, weight: 1 }], 0);
    let (eval, test, guard, demonstrated) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    PromptSets {
        train,
        eval,
        test,
        guard,
        demonstrated,
        teacher_parameters: 0,
        order,
    }
}

const MIXED: Shape<'_> = &[(3, false, 1.0), (5, true, 0.0)];
const EQUAL: Shape<'_> = &[(2, false, 1.0), (4, false, 1.0)];
const TRUNCATED: Shape<'_> = &[(7, true, 0.0), (7, true, 0.5)];

#[test]
fn zero_variance_groups_count_and_masked_completions_do_not() {
    // (settings, groups) -> (tokens and advantages of each forwarded group, counted sequences and
    // tokens).
    let check =
        |set: &[&str], shapes: &[Shape<'_>], forwarded: &[&[(usize, f64)]], sequences, tokens| {
            let rollout = StepRollout {
                groups: shapes.iter().map(|shape| group(shape)).collect(),
                ..StepRollout::default()
            };
            let prompts = prompts();
            let PolicyBatch { groups, totals, .. } =
                policy_batch(&config(set), 0.0, &prompts, &rollout);
            let found = |group: &PolicyGroup<'_>| -> Vec<(usize, f64)> {
                group
                    .samples
                    .iter()
                    .map(|sample| {
                        (
                            sample.token_ids.len(),
                            (sample.advantage * 1e3).round() / 1e3,
                        )
                    })
                    .collect()
            };
            assert_eq!(
                groups.iter().map(found).collect::<Vec<_>>(),
                forwarded,
                "{set:?}"
            );
            assert_eq!(totals, StepTotals { sequences, tokens }, "{set:?}");
        };
    let mixed: &[(usize, f64)] = &[(3, 0.707), (5, -0.707)];
    let equal: &[(usize, f64)] = &[(2, 0.0), (4, 0.0)];
    check(&[], &[MIXED, EQUAL], &[mixed], 4, 14);
    check(&["kl_beta=0.1"], &[MIXED, EQUAL], &[mixed, equal], 4, 14);
    // Masking does not change advantages.
    check(
        &["overlong_masking=true"],
        &[MIXED, EQUAL],
        &[&mixed[..1]],
        3,
        9,
    );
    check(&["overlong_masking=true"], &[TRUNCATED, EQUAL], &[], 2, 6);
    check(
        &["overlong_masking=true", "kl_beta=0.1"],
        &[TRUNCATED, EQUAL],
        &[equal],
        2,
        6,
    );
    check(&[], &[EQUAL, EQUAL], &[], 4, 12);
}

/// A conversation with tools is one sequence of the group; an agent's request that continues
/// nothing begins another.
#[test]
fn completions_of_a_conversation_follow_one_another() {
    let completion = |id: u32, tokens: usize| {
        Completion::new(vec![id; tokens], vec![-1.0; tokens], StopReason::Stop)
    };
    let step = |prompt: &[u32], completion: Completion| CallStep {
        prompt: prompt.to_vec(),
        completion,
        text: String::new(),
        reply_tokens: 1,
        calls: Vec::new(),
    };
    let conversation = |steps: Vec<CallStep>, prompt: &[u32], reward| {
        let mut turn = Turn::new(completion(4, 1), String::new(), score(reward));
        turn.tools = Some(ToolTurn {
            steps,
            last_calls: Vec::new(),
            prompt: prompt.to_vec(),
            end: ChainEnd::Answer,
            failure: None,
            states: serde_json::Map::new(),
            agent: None,
            seconds: 0.0,
            call_seconds: Vec::new(),
        });
        Conversation { turns: vec![turn] }
    };
    let chain = vec![
        step(&[9], completion(1, 2)),
        step(&[9, 1, 1, 7], completion(2, 1)),
    ];
    let branches = vec![step(&[9], completion(3, 1)), step(&[8], completion(3, 2))];
    let conversations = vec![
        conversation(chain, &[9, 1, 1, 7, 2, 6, 5], 1.0),
        conversation(branches, &[9, 3, 7], 0.0),
        conversation(Vec::new(), &[9], 0.0),
    ];
    let group = Group::new(0, 0, conversations, &rule(Advantage::Standardized));
    let rollout = StepRollout {
        groups: vec![group],
        ..StepRollout::default()
    };
    let prompts = prompts();
    let PolicyBatch { groups, totals, .. } = policy_batch(&config(&[]), 0.0, &prompts, &rollout);
    let shown = |sample: &PolicySample<'_>| {
        (
            sample.follows.clone().map(Cow::into_owned),
            sample.token_ids.to_vec(),
        )
    };
    let found: Vec<_> = groups
        .iter()
        .map(|group| {
            (
                group.prompt.to_vec(),
                group.samples.iter().map(shown).collect::<Vec<_>>(),
            )
        })
        .collect();
    let expected = vec![
        (
            vec![9],
            vec![
                (None, vec![1, 1]),
                (Some(vec![7]), vec![2]),
                (Some(vec![6, 5]), vec![4]),
                (None, vec![3]),
            ],
        ),
        (vec![8], vec![(None, vec![3, 3])]),
        (vec![9, 3, 7], vec![(None, vec![4])]),
        (vec![9], vec![(None, vec![4])]),
    ];
    assert_eq!(
        (found, totals),
        (
            expected,
            StepTotals {
                sequences: 3,
                tokens: 9
            }
        )
    );
}

#[test]
fn replaced_groups_are_in_no_batch() {
    let mut rollout = StepRollout {
        groups: vec![group(MIXED), group(EQUAL)],
        ..StepRollout::default()
    };
    rollout.set_aside();
    assert_eq!((rollout.groups.len(), rollout.replaced.len()), (1, 1));
    let prompts = prompts();
    let PolicyBatch { groups, totals, .. } = policy_batch(&config(&[]), 0.0, &prompts, &rollout);
    assert_eq!(
        (groups.len(), totals),
        (
            1,
            StepTotals {
                sequences: 2,
                tokens: 8
            }
        )
    );
}

#[test]
fn parts_are_compared_by_themselves_and_over_the_step() {
    // Tier and fields (of weight 2): the sums of the first group are equal, its parts are not.
    let parts = |tier: f64, fields: f64| {
        let mut score = score(tier + 2.0 * fields);
        score.parts.0 = [("tier", tier), ("fields", fields)]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec();
        score
    };
    let group = |scores: [Score; 2], kind| {
        let mut conversations = group(MIXED).conversations;
        for (conversation, score) in conversations.iter_mut().zip(scores) {
            conversation.turns[0].score = score;
        }
        Group::new(0, 0, conversations, &rule(kind))
    };
    let equal = [parts(1.0, 0.0), parts(0.0, 0.5)];
    let same = [parts(1.0, 1.0), parts(1.0, 1.0)];
    assert!(!group(equal.clone(), Advantage::Standardized).is_informative());
    let groups = [equal, same].map(|scores| group(scores, Advantage::PerPart));
    let mut rollout = StepRollout {
        groups: groups.into(),
        ..StepRollout::default()
    };
    rollout.normalise(&Ranks::alone(), |_| true).unwrap();
    let found: Vec<f64> = rollout.answers().map(|answer| answer.advantage).collect();
    // Tier +- 0.5 / 0.7072, fields twice -+ 0.25 / 0.35365; then over -u, u, 0 and 0.
    let sum = 0.5 / (0.5f64.sqrt() + 1e-4) - 2.0 * 0.25 / (0.125f64.sqrt() + 1e-4);
    let scale = 1.0 / ((2.0 * sum * sum / 3.0).sqrt() + 1e-4);
    let expected = [sum * scale, -sum * scale, 0.0, 0.0];
    assert!(
        found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-9),
        "{found:?}, expected {expected:?}"
    );
    rollout.set_aside();
    assert_eq!(
        (rollout.groups.len(), rollout.replaced.len()),
        (1, 1),
        "dynamic sampling keeps it"
    );
}

/// Text of tools is only in prompts; a completion with calls has its conversation's advantage.
#[test]
fn all_that_was_sampled_with_tools_counts_and_is_weighed_alike() {
    let mut group = group(MIXED);
    let step = |prompt: &[u32], tokens: usize| CallStep {
        prompt: prompt.to_vec(),
        completion: Completion::new(vec![1; tokens], vec![-1.0; tokens], StopReason::Stop),
        text: String::new(),
        calls: Vec::new(),
        reply_tokens: 50,
    };
    let tools = |steps: Vec<CallStep>, prompt: &[u32]| ToolTurn {
        steps,
        last_calls: Vec::new(),
        prompt: prompt.to_vec(),
        end: ChainEnd::Answer,
        failure: None,
        states: serde_json::Map::new(),
        agent: None,
        seconds: 0.0,
        call_seconds: Vec::new(),
    };
    group.conversations[0].turns[0].tools = Some(tools(
        vec![step(&[9], 2), step(&[9, 1, 8], 4)],
        &[9, 1, 8, 1, 8],
    ));
    group.conversations[1].turns[0].tools = Some(tools(Vec::new(), &[9]));
    let rollout = StepRollout {
        groups: vec![group],
        ..StepRollout::default()
    };
    let prompts = prompts();
    let PolicyBatch { groups, totals, .. } = policy_batch(&config(&[]), 0.0, &prompts, &rollout);
    let shape = |group: &PolicyGroup<'_>| {
        let sample = &group.samples[0];
        (
            group.prompt.len(),
            sample.token_ids.len(),
            (sample.advantage * 1e3).round() / 1e3,
        )
    };
    let expected = [(1, 2, 0.707), (3, 4, 0.707), (5, 3, 0.707), (1, 5, -0.707)];
    assert_eq!(groups.iter().map(shape).collect::<Vec<_>>(), expected);
    assert_eq!(
        totals,
        StepTotals {
            sequences: 2,
            tokens: 2 + 4 + 3 + 5
        }
    );
}

#[test]
fn each_turn_has_a_group_of_those_that_reached_it() {
    let later = |reward| Turn {
        prompt: Some(crate::policy::LaterPrompt {
            id: "p/2".to_owned(),
            text: String::new(),
            token_ids: vec![9, 1, 8],
        }),
        ..group(&[(2, false, reward)])
            .conversations
            .remove(0)
            .turns
            .remove(0)
    };
    let mut group = group(&[(3, false, 1.0), (4, false, 0.0), (5, false, 1.0)]);
    for (conversation, reward) in [(0, 1.0), (2, 0.5)] {
        group.conversations[conversation].turns.push(later(reward));
    }
    let group = Group::new(0, 0, group.conversations, &rule(Advantage::Centered));
    let advantages: Vec<Vec<f64>> = group
        .turns()
        .map(|turn| turn.answers().map(|answer| answer.advantage).collect())
        .collect();
    assert_eq!(advantages[1], [0.25, -0.25]);
    assert!(
        advantages[0].len() == 3
            && group
                .turns()
                .all(|turn| turn.signal() == GroupSignal::Mixed)
    );
    let rollout = StepRollout {
        groups: vec![group],
        ..StepRollout::default()
    };
    let prompts = prompts();
    let batch = policy_batch(&config(&[]), 0.0, &prompts, &rollout);
    let shape: Vec<(usize, usize)> = batch
        .groups
        .iter()
        .map(|group| (group.prompt.len(), group.samples.len()))
        .collect();
    // Answers with equal prompts share it.
    assert_eq!(shape, [(1, 3), (3, 2)]);
}

/// The entropy bonus's weight changes within a sync interval, and with it the contents of the
/// batch.
#[test]
fn old_log_probs_belong_to_their_completions() {
    let mut rollout = StepRollout {
        groups: vec![group(EQUAL), group(MIXED)],
        ..StepRollout::default()
    };
    let (prompts, config) = (prompts(), config(&["weight_sync_interval=2"]));
    let all = policy_batch(&config, 0.1, &prompts, &rollout);
    let lengths = all.groups.iter().flat_map(|group| &group.samples);
    let old = lengths.map(|sample| vec![sample.token_ids.len() as f32; sample.token_ids.len()]);
    let old = all.completions.iter().copied().zip(old).collect();
    rollout.old_log_probs = Some(old);
    for (entropy_coef, counts) in [(0.1, vec![2, 4, 3, 5]), (0.0, vec![3, 5])] {
        let batch = policy_batch(&config, entropy_coef, &prompts, &rollout);
        let samples: Vec<_> = batch.groups.iter().flat_map(|it| &it.samples).collect();
        assert_eq!(
            samples
                .iter()
                .map(|it| it.token_ids.len())
                .collect::<Vec<_>>(),
            counts
        );
        for sample in samples {
            let count = sample.token_ids.len();
            assert_eq!(
                sample.old_log_probs.as_deref(),
                Some(&vec![count as f32; count][..])
            );
        }
    }
}
