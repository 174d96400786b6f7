//! Losses, KL terms, advantages and two whole steps of a sync interval against JAX's numbers
//! (scripts/golden/policy_losses.py); losses of conversations by TRL's formulas
//! (scripts/golden/trajectories.py).

use candle_core::{DType, Device};
use grpo_tui::advantage::{Advantage, group_advantages};
use grpo_tui::config::{KlEstimator, PolicyLoss};
use grpo_tui::hub::find_model;
use grpo_tui::model::{Adapters, Decoder, Trainable, Weights};
use grpo_tui::rollout::ThreadPool;
use grpo_tui::update::{
    LossSequence, LossSettings, Optimizer, OptimizerSettings, PolicyGroup, PolicySample,
    PolicySettings, SequenceTerms, StepOutcome, StepTotals, completion_log_probs, policy_gradient,
    sequence_loss, set_log_ratios,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn golden() -> Value {
    golden_file("policy_losses.json")
}

fn golden_file(name: &str) -> Value {
    let path = format!("{}/tests/parity/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn settings(value: &Value) -> LossSettings {
    LossSettings {
        entropy_coef: 0.0,
        distill_coef: 0.0,
        corrects_sampling: false,
        policy_loss: PolicyLoss::from_name(value["policy_loss"].as_str().unwrap()).unwrap(),
        clip_low: number(&value["clip_low"]),
        clip_high: number(&value["clip_high"]),
        cispo_cap: number(&value["cispo_cap"]),
        kl_beta: number(&value["kl_beta"]),
        kl_estimator: KlEstimator::from_name(value["kl_estimator"].as_str().unwrap()).unwrap(),
        kl_importance: value["kl_importance"].as_bool().unwrap(),
        max_completion_tokens: read(&value["max_completion_tokens"]),
    }
}

#[test]
fn losses_and_their_gradients() {
    let golden = golden();
    let cases = golden["losses"].as_array().unwrap();
    assert!(cases.len() >= 80, "{} cases", cases.len());
    let (mut low, mut high) = (0, 0);
    for case in cases {
        let totals = StepTotals {
            sequences: read(&case["totals"][0]),
            tokens: read(&case["totals"][1]),
        };
        let off_policy = case["settings"]["off_policy"].as_bool().unwrap();
        let mut loss = 0.0;
        for (sequence, expected) in case["sequences"].as_array().unwrap().iter().zip(read::<
            Vec<Vec<f64>>,
        >(
            &case["weights"],
        )) {
            let [log_probs, old, reference] =
                ["log_probs", "old", "reference"].map(|name| read::<Vec<f32>>(&sequence[name]));
            let terms = SequenceTerms {
                log_probs: &log_probs,
                old: off_policy.then_some(&old),
                reference: Some(&reference),
                advantage: number(&sequence["advantage"]),
                ..SequenceTerms::default()
            };
            let found = sequence_loss(&settings(&case["settings"]), terms, totals);
            loss += found.loss;
            (low, high) = (low + found.clipped_low, high + found.clipped_high);
            let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 + 1e-10 * b.abs();
            assert!(
                found.d_log_probs.len() == expected.len()
                    && found.d_log_probs.iter().zip(&expected).all(near),
                "{}: {:?}, expected {expected:?}",
                case["settings"],
                found.d_log_probs
            );
        }
        let expected = number(&case["loss"]);
        assert!(
            (loss - expected).abs() <= 1e-12 + 1e-10 * expected.abs(),
            "{}: {loss}, expected {expected}",
            case["settings"]
        );
    }
    assert!(
        low > 20 && high > 20,
        "clips and caps were active: {low} and {high}"
    );
}

/// Log-probs of a trajectory by completion.
type Pieces = Vec<Vec<f32>>;

/// The samples of one trajectory, as one sequence or each by itself.
fn samples(
    number: usize,
    (old, sampler): (&Pieces, &Pieces),
    off_policy: bool,
) -> Vec<PolicySample<'static>> {
    let sequence = LossSequence {
        number,
        tokens: old.iter().map(Vec::len).sum(),
        log_ratio: None,
    };
    let sample = |(old, sampler): (&Vec<f32>, &Vec<f32>)| PolicySample {
        follows: None,
        sequence: Some(sequence),
        forced: 0..0,
        experts: None,
        token_ids: vec![1; old.len()].into(),
        sampled_log_probs: sampler.clone().into(),
        old_log_probs: off_policy.then(|| old.clone().into()),
        reference_log_probs: None,
        teacher_log_probs: None,
        advantage: 0.0,
    };
    old.iter().zip(sampler).map(sample).collect()
}

/// A conversation is one sequence, into however many completions its calls cut it.
#[test]
fn conversations_have_the_losses_of_trajectories() {
    let golden = golden_file("trajectories.json");
    for case in golden["cases"].as_array().unwrap() {
        let [log_probs, old, sampler] =
            ["log_probs", "old", "sampler"].map(|name| read::<Vec<Pieces>>(&case[name]));
        let expected: Vec<f64> = read::<Vec<Vec<Vec<f64>>>>(&case["weights"])
            .concat()
            .concat();
        let advantages: Vec<f64> = read(&case["advantages"]);
        let [off_policy, corrects_sampling] =
            ["off_policy", "corrects_sampling"].map(|name| case[name].as_bool().unwrap());
        let whole = |pieces: &Vec<Pieces>| -> Vec<Pieces> {
            pieces.iter().map(|pieces| vec![pieces.concat()]).collect()
        };
        let settings = LossSettings {
            entropy_coef: 0.0,
            distill_coef: 0.0,
            corrects_sampling,
            policy_loss: PolicyLoss::from_name(case["policy_loss"].as_str().unwrap()).unwrap(),
            clip_low: number(&case["clips"][0]),
            clip_high: number(&case["clips"][1]),
            cispo_cap: number(&case["clips"][1]).max(1.0),
            kl_beta: 0.0,
            kl_estimator: KlEstimator::K3,
            kl_importance: false,
            max_completion_tokens: read(&case["max_completion_tokens"]),
        };
        for [log_probs, old, sampler] in [
            [whole(&log_probs), whole(&old), whole(&sampler)],
            [log_probs, old, sampler],
        ] {
            let totals = StepTotals {
                sequences: log_probs.len(),
                tokens: log_probs.iter().flatten().map(Vec::len).sum(),
            };
            let trajectories = old.iter().zip(&sampler).enumerate();
            let mut groups: Vec<PolicyGroup<'_>> = trajectories
                .map(|(number, pieces)| PolicyGroup {
                    prompt: vec![1].into(),
                    teacher_prompt: None,
                    samples: samples(number, pieces, off_policy),
                })
                .collect();
            set_log_ratios(&mut groups, &log_probs);
            let (mut loss, mut found) = (0.0, Vec::new());
            for ((group, log_probs), advantage) in groups.iter().zip(&log_probs).zip(&advantages) {
                for (sample, log_probs) in group.samples.iter().zip(log_probs) {
                    let terms = SequenceTerms {
                        sequence: sample.sequence,
                        log_probs,
                        old: sample.old_log_probs.as_deref(),
                        sampler: corrects_sampling.then_some(&*sample.sampled_log_probs),
                        advantage: *advantage,
                        ..SequenceTerms::default()
                    };
                    let part = sequence_loss(&settings, terms, totals);
                    loss += part.loss;
                    found.extend(part.d_log_probs);
                }
            }
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 + 1e-9 * b.abs();
            let is_near = found.len() == expected.len()
                && found.iter().zip(&expected).all(|(a, b)| near(*a, *b));
            assert!(
                is_near && near(loss, number(&case["loss"])),
                "{settings:?}, off-policy {off_policy}: {loss} {found:?}, expected {} {expected:?}",
                case["loss"]
            );
        }
    }
}

#[test]
fn advantages() {
    let golden = &golden()["advantages"];
    for group in golden["groups"].as_array().unwrap() {
        let rewards: Vec<f64> = read(&group["rewards"]);
        // `per_part` is of scores: tests/losses/per_part.rs.
        for &kind in Advantage::ALL
            .iter()
            .filter(|kind| **kind != Advantage::PerPart)
        {
            let (found, expected) = (
                group_advantages(&rewards, kind),
                read::<Vec<f64>>(&group[kind.name()]),
            );
            assert!(
                found
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| (a - b).abs() < 1e-9),
                "{kind} of {rewards:?}: {found:?}, expected {expected:?}"
            );
        }
    }
}

/// Two steps of an interval: the first is on-policy, the second has its old log-probs from a forward before the first
/// moved anything.
#[test]
fn a_sync_interval_of_two_steps() {
    let source = find_model(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity/tied")).unwrap();
    let weights = Weights::open(&source).unwrap();
    let decoder = |trainable| {
        Decoder::new(
            &source.config().unwrap(),
            &weights,
            trainable,
            0,
            DType::F32,
            &Device::Cpu,
        )
        .unwrap()
    };
    let threads = ThreadPool::new(1).unwrap();
    for case in golden()["intervals"].as_array().unwrap() {
        let (model, reference) = (decoder(Trainable::Full), decoder(Trainable::Frozen));
        let loss = settings(&case["settings"]);
        let settings = PolicySettings {
            loss,
            temperature: 1.0,
            tokens_per_micro_batch: 30,
            recompute: false,
        };
        let mut steps: Vec<Vec<PolicyGroup<'_>>> = case["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|groups| groups.as_array().unwrap().iter().map(group).collect())
            .collect();
        for groups in &mut steps {
            let found =
                completion_log_probs(&reference, Adapters::Off, groups, &settings, &threads)
                    .unwrap();
            let samples = groups.iter_mut().flat_map(|group| &mut group.samples);
            samples
                .zip(found.into_iter().flatten())
                .for_each(|(sample, found)| sample.reference_log_probs = Some(found));
        }
        let old =
            completion_log_probs(&model, Adapters::Off, &steps[1], &settings, &threads).unwrap();
        let samples = steps[1].iter_mut().flat_map(|group| &mut group.samples);
        samples
            .zip(old.into_iter().flatten())
            .for_each(|(sample, old)| sample.old_log_probs = Some(old.into()));
        let adam = |name: &str| number(&case["adam"][name]);
        let mut optimizer = Optimizer::new(
            OptimizerSettings {
                learning_rate: adam("learning_rate"),
                beta1: adam("beta1"),
                beta2: adam("beta2"),
                epsilon: adam("epsilon"),
                weight_decay: adam("weight_decay"),
                grad_clip_norm: adam("grad_clip_norm"),
                ..OptimizerSettings::PLAIN
            },
            model.parameters(),
            &Device::Cpu,
        )
        .unwrap();
        for (groups, expected) in steps.iter().zip(case["steps"].as_array().unwrap()) {
            let samples = || groups.iter().flat_map(|group| &group.samples);
            let totals = StepTotals {
                sequences: samples().count(),
                tokens: samples().map(|sample| sample.token_ids.len()).sum(),
            };
            let (gradients, statistics) =
                policy_gradient(&model, groups, totals, &settings, &threads).unwrap();
            let StepOutcome::Updated { grad_norm, .. } =
                optimizer.apply(model.parameters(), &gradients).unwrap()
            else {
                panic!("{case}")
            };
            let (loss, norm) = (number(&expected["loss"]), number(&expected["grad_norm"]));
            let name = &case["settings"]["policy_loss"];
            assert!(
                (statistics.loss - loss).abs() < 2e-5,
                "{name}: loss {}, expected {loss}",
                statistics.loss
            );
            assert!(
                (grad_norm / norm - 1.0).abs() < 1e-4,
                "{name}: norm {grad_norm}, expected {norm}"
            );
            assert_eq!(
                statistics.kl.is_some(),
                samples().all(|sample| sample.reference_log_probs.is_some())
            );
        }
        let named: std::collections::HashMap<_, _> =
            model.parameters().named().unwrap().into_iter().collect();
        for (name, expected) in case["after"].as_object().unwrap() {
            let mut found = named[name].clone();
            if found.rank() == 2 {
                found = found.get(7).unwrap();
            }
            let worst = found
                .to_vec1::<f32>()
                .unwrap()
                .iter()
                .zip(read::<Vec<f32>>(expected))
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            // Two updates of 3e-3 each moved them.
            assert!(
                worst < 2e-5,
                "{} {name}: off by {worst}",
                case["settings"]["policy_loss"]
            );
        }
    }
}

fn group(group: &Value) -> PolicyGroup<'static> {
    let advantages = group_advantages(
        &read::<Vec<f64>>(&group["rewards"]),
        Advantage::Standardized,
    );
    let sample = |(token_ids, advantage): (Vec<u32>, f64)| PolicySample {
        follows: None,
        sequence: None,
        forced: 0..0,
        experts: None,
        sampled_log_probs: vec![0.0; token_ids.len()].into(),
        token_ids: token_ids.into(),
        old_log_probs: None,
        reference_log_probs: None,
        teacher_log_probs: None,
        advantage,
    };
    let completions: Vec<Vec<u32>> = read(&group["completions"]);
    PolicyGroup {
        prompt: read::<Vec<u32>>(&group["prompt"]).into(),
        teacher_prompt: None,
        samples: completions
            .into_iter()
            .zip(advantages)
            .map(sample)
            .collect(),
    }
}
