//! Policy losses and KL terms: numbers computed by hand, derivatives by central differences, and what must hold for
//! every input.

mod distillation;
mod golden;
mod per_part;

use candle_core::{DType, Device};
use grpo_tui::advantage::{Advantage, group_advantages};
use grpo_tui::config::{KlEstimator, PolicyLoss};
use grpo_tui::hub::ModelConfig;
use grpo_tui::model::{Decoder, Trainable, Weights};
use grpo_tui::rollout::ThreadPool;
use grpo_tui::update::{
    LossSettings, PolicyGroup, PolicySample, PolicySettings, SequenceLoss, SequenceTerms,
    StepTotals, kl_term, policy_gradient, sequence_loss,
};
use proptest::prelude::*;

/// Each loss with its own clips.
pub(crate) fn loss_settings(policy_loss: PolicyLoss) -> LossSettings {
    let (clip_low, clip_high) = match policy_loss {
        PolicyLoss::Grpo | PolicyLoss::DrGrpo | PolicyLoss::Bnpo => (0.2, 0.2),
        PolicyLoss::Dapo => (0.2, 0.28),
        PolicyLoss::Gspo => (3e-4, 4e-4),
        PolicyLoss::Cispo => (0.2, 0.2),
    };
    LossSettings {
        entropy_coef: 0.0,
        distill_coef: 0.0,
        corrects_sampling: false,
        policy_loss,
        clip_low,
        clip_high,
        cispo_cap: 5.0,
        kl_beta: 0.0,
        kl_estimator: KlEstimator::K3,
        kl_importance: false,
        max_completion_tokens: 10,
    }
}

const TOTALS: StepTotals = StepTotals {
    sequences: 4,
    tokens: 20,
};

/// The loss of one sequence whose tokens have the given ratios to the sampler's log-probs (all -2).
fn with_ratios(settings: &LossSettings, ratios: &[f64], advantage: f64) -> SequenceLoss {
    let sampled = vec![-2.0_f32; ratios.len()];
    let log_probs: Vec<f32> = ratios
        .iter()
        .map(|ratio| (ratio.ln() - 2.0) as f32)
        .collect();
    sequence_loss(
        settings,
        SequenceTerms {
            log_probs: &log_probs,
            old: Some(&sampled),
            advantage,
            ..SequenceTerms::default()
        },
        TOTALS,
    )
}

/// (loss, ratios, advantage, value, weights, clipped low, clipped high).
type HandComputed = (
    PolicyLoss,
    &'static [f64],
    f64,
    f64,
    &'static [f64],
    usize,
    usize,
);

#[test]
fn hand_computed_losses() {
    use PolicyLoss::{Bnpo, Cispo, Dapo, DrGrpo, Grpo, Gspo};
    // N = 4 sequences, M = 20 tokens, at most 10 tokens.
    let rows: &[HandComputed] = &[
        // -(1 + 1.1) A / (4 * 2) = -0.2625; each weight -ratio A / 8.
        (Grpo, &[1.0, 1.1], 1.0, -0.2625, &[-0.125, -0.1375], 0, 0),
        // A > 0: 1.5 is clipped to 1.2 and stops teaching, 0.5 is not: -(1.2 + 0.5) * 2 / 8 = -0.425; weights 0, -0.5 *
        // 2 / 8.
        (Grpo, &[1.5, 0.5], 2.0, -0.425, &[0.0, -0.125], 0, 1),
        // A < 0: 1.5 goes on teaching, 0.5 is clipped to 0.8: (1.5 + 0.8) / 8 = 0.2875; weights 1.5 / 8, 0.
        (Grpo, &[1.5, 0.5], -1.0, 0.2875, &[0.1875, 0.0], 1, 0),
        // A < 0 beyond the cap: ratio 3 counts as 2 and stops teaching: 2 / (4 * 1). No clip did it, as TRL counts.
        (Grpo, &[3.0], -1.0, 0.5, &[0.0], 0, 0),
        // The cap lies above the clip, so at A > 0 it changes nothing: -1.2 / 4.
        (Grpo, &[3.0], 1.0, -0.3, &[0.0], 0, 1),
        // A = 0 teaches nothing and nothing is cut.
        (Grpo, &[3.0, 0.1], 0.0, 0.0, &[0.0, 0.0], 0, 0),
        // The same terms over N * max_completion_tokens = 40: -(1.2 + 0.5) * 2 / 40 = -0.085; weight -0.5 * 2 / 40.
        (DrGrpo, &[1.5, 0.5], 2.0, -0.085, &[0.0, -0.025], 0, 1),
        // ... over M = 20 tokens: -(1.2 + 0.5) * 2 / 20 = -0.17; weight -0.5 * 2 / 20.
        (Bnpo, &[1.5, 0.5], 2.0, -0.17, &[0.0, -0.05], 0, 1),
        // DAPO's upper clip is 0.28: 1.25 still teaches, 1.5 counts as 1.28: -(1.25 + 1.28) / 20 = -0.1265; weights
        // -1.25 / 20, 0.
        (Dapo, &[1.25, 1.5], 1.0, -0.1265, &[-0.0625, 0.0], 0, 1),
        // BNPO's is 0.2: both are clipped to 1.2: -2.4 / 20.
        (Bnpo, &[1.25, 1.5], 1.0, -0.12, &[0.0, 0.0], 0, 2),
        // GSPO: exp of the mean of ln 1.2 and ln 1/1.2 is 1: loss -A / N = -0.25, each token -A / (N T) = -0.125,
        // though each token's ratio is far off.
        (Gspo, &[1.2, 1.0 / 1.2], 1.0, -0.25, &[-0.125, -0.125], 0, 0),
        // sqrt(1.21) = 1.1 > 1.0004: both tokens stop; loss -1.0004 / 4.
        (Gspo, &[1.21, 1.0], 1.0, -0.2501, &[0.0, 0.0], 0, 2),
        // A < 0: 1.1 / 4; weights 1.1 / (4 * 2).
        (Gspo, &[1.21, 1.0], -1.0, 0.275, &[0.1375, 0.1375], 0, 0),
        // A < 0 and sqrt(0.81) = 0.9 < 0.9997: loss 0.9997 / 4.
        (Gspo, &[0.81, 1.0], -1.0, 0.249_925, &[0.0, 0.0], 2, 0),
        // No cap a token: one ratio of 4 with one of 1/4 is a sequence ratio of 1: 1 / 4, each 1 / 8.
        (Gspo, &[4.0, 0.25], -1.0, 0.25, &[0.125, 0.125], 0, 0),
        // The sequence's own ratio is capped: 9 and 1 give 3, which counts as 2: 2 / 4.
        (Gspo, &[9.0, 1.0], -1.0, 0.5, &[0.0, 0.0], 0, 0),
        // On both sides of GSPO's narrow clips, 1.0004 and 0.9997: -1.0003 / 4; -1.0004 / 4; 0.9998 / 4; 0.9997 / 4.
        (Gspo, &[1.0003], 1.0, -0.250_075, &[-0.250_075], 0, 0),
        (Gspo, &[1.0005], 1.0, -0.2501, &[0.0], 0, 1),
        (Gspo, &[0.9998], -1.0, 0.249_95, &[0.249_95], 0, 0),
        (Gspo, &[0.9996], -1.0, 0.249_925, &[0.0], 1, 0),
        // A > 0 and far below: the lower clip is not for it: -0.5 * 2 / 4.
        (Gspo, &[0.5], 2.0, -0.25, &[-0.25], 0, 0),
        // CISPO: -ratio A log p / M with ratio and advantage held: log p = -2 for ratio 1: 2 / 20; weight -1 / 20.
        (Cispo, &[1.0], 1.0, 0.1, &[-0.05], 0, 0),
        // Ratio 3 teaches with 3 (the cap of 2 is not for CISPO): log p = ln 3 - 2 = -0.901388, loss 3 * 0.901388 / 20;
        // weight -3 / 20.
        (Cispo, &[3.0], 1.0, 0.135_208_157, &[-0.15], 0, 0),
        // Ratio 8 counts as 5 and goes on teaching: log p = ln 8 - 2 = 0.0794415, A = -1: 5 * 0.0794415 / 20; weight 5
        // / 20.
        (Cispo, &[8.0], -1.0, 0.019_860_385, &[0.25], 0, 1),
        // A = 2, one token at the cap and one below: -(5 * 0.0794415 + 4 * (ln 4 - 2)) * 2 / 20 = -(0.3972077 -
        // 2.4548226) / 10; weights -10 / 20, -8 / 20.
        (Cispo, &[8.0, 4.0], 2.0, 0.205_761_490, &[-0.5, -0.4], 0, 1),
        // No lower bound: ratio 0.1 teaches with 0.1: log p = ln 0.1 - 2 = -4.3025851: 0.1 * 4.3025851 / 20; weight
        // -0.1 / 20.
        (Cispo, &[0.1], 1.0, 0.021_512_925, &[-0.005], 0, 0),
    ];
    for (policy_loss, ratios, advantage, loss, weights, low, high) in rows {
        let found = with_ratios(&loss_settings(*policy_loss), ratios, *advantage);
        let row = format!("{policy_loss} {ratios:?} A {advantage}: {found:?}");
        // The ratios pass through f32 log-probs near 2, whose spacing is 2.4e-7.
        assert!((found.loss - loss).abs() < 1e-6, "{row}, expected {loss}");
        assert_eq!(found.d_log_probs.len(), weights.len());
        assert!(
            found
                .d_log_probs
                .iter()
                .zip(*weights)
                .all(|(a, b)| (a - b).abs() < 1e-6),
            "{row}, expected {weights:?}"
        );
        assert_eq!(
            (found.clipped_low, found.clipped_high),
            (*low, *high),
            "{row}"
        );
    }
}

#[test]
fn bnpo_clips_symmetrically_whatever_the_upper_clip_says() {
    let wide = LossSettings {
        clip_high: 0.9,
        ..loss_settings(PolicyLoss::Bnpo)
    };
    assert_eq!(
        with_ratios(&wide, &[1.25, 1.5], 1.0),
        with_ratios(&loss_settings(PolicyLoss::Bnpo), &[1.25, 1.5], 1.0)
    );
}

#[test]
fn hand_computed_kl() {
    use KlEstimator::{K1, K2, K3};
    let check = |estimator, d: f64, value: f64, slope: f64| {
        let found = kl_term(estimator, d);
        assert!(
            (found.0 - value).abs() < 1e-9 && (found.1 - slope).abs() < 1e-9,
            "{estimator} of {d}: {found:?}"
        );
    };
    check(K1, 0.5, -0.5, 1.0);
    check(K1, -0.5, 0.5, 1.0);
    check(K2, 0.5, 0.125, -0.5);
    check(K2, -3.0, 4.5, 3.0);
    // e^0.5 - 0.5 - 1 = 1.6487212707 - 1.5; 1 - e^0.5.
    check(K3, 0.5, 0.148_721_270_7, -0.648_721_270_7);
    // e^-1 + 1 - 1 = 0.3678794412; 1 - e^-1.
    check(K3, -1.0, 0.367_879_441_2, 0.632_120_558_8);
    check(K3, 0.0, 0.0, 0.0);
    // e^-30 + 30 - 1: no bound where none is needed.
    check(K3, -30.0, 29.0 + (-30.0_f64).exp(), 1.0 - (-30.0_f64).exp());
    let (value, slope) = kl_term(K3, 1000.0);
    assert!(value.is_finite() && slope.is_finite());
}

#[test]
fn the_kl_is_added_with_its_weight_and_the_losss_own_share() {
    // d = ref - log p = 0.5 for one token and -1 for the other; k3: 0.1487212707 and 0.3678794412, sum 0.5166007119.
    let (log_probs, reference) = ([-2.0_f32, -1.0], [-1.5_f32, -2.0]);
    let sum = 0.516_600_711_9;
    let rows: [(PolicyLoss, f64); 4] = [
        (PolicyLoss::Grpo, 1.0 / 8.0),
        (PolicyLoss::Gspo, 1.0 / 8.0),
        (PolicyLoss::DrGrpo, 1.0 / 40.0),
        (PolicyLoss::Dapo, 1.0 / 20.0),
    ];
    for (policy_loss, share) in rows {
        let settings = LossSettings {
            kl_beta: 0.1,
            ..loss_settings(policy_loss)
        };
        let terms = SequenceTerms {
            log_probs: &log_probs,
            reference: Some(&reference),
            ..SequenceTerms::default()
        };
        let found = sequence_loss(&settings, terms, TOTALS);
        assert!(
            (found.kl - sum).abs() < 1e-9 && (found.loss - 0.1 * share * sum).abs() < 1e-9,
            "{policy_loss} {found:?}"
        );
        assert!(
            (found.d_log_probs[0] + 0.1 * share * 0.648_721_270_7).abs() < 1e-9,
            "{policy_loss} {found:?}"
        );
        // beta 0: the reference is not even looked at.
        let without = sequence_loss(
            &LossSettings {
                kl_beta: 0.0,
                ..settings
            },
            terms,
            TOTALS,
        );
        assert_eq!((without.loss, without.kl), (0.0, 0.0));
    }
}

/// 2^-10: added to the log-probs below, which are multiples of 2^-6, it is exact in f32.
const STEP: f32 = 0.000_976_562_5;

/// On-policy the weighted k3 has the gradient -d of the KL's own, not 1 - e^d, and k1 has it up to a term of mean zero.
#[test]
fn the_weighted_kl_has_the_kls_gradient() {
    let check = |kl_estimator, kl_importance, d: f32, slope: f64| {
        let settings = LossSettings {
            kl_beta: 1.0,
            kl_estimator,
            kl_importance,
            ..loss_settings(PolicyLoss::Grpo)
        };
        let (log_probs, reference) = ([-2.0_f32], [-2.0 + d]);
        let terms = SequenceTerms {
            log_probs: &log_probs,
            reference: Some(&reference),
            ..SequenceTerms::default()
        };
        let found = sequence_loss(
            &settings,
            terms,
            StepTotals {
                sequences: 1,
                tokens: 1,
            },
        );
        assert!(
            (found.d_log_probs[0] - slope).abs() < 1e-9,
            "{kl_estimator} {d}: {found:?}, expected {slope}"
        );
        let (value, _) = kl_term(kl_estimator, f64::from(d));
        assert!(
            (found.loss - value).abs() < 1e-12 && (found.kl - value).abs() < 1e-12,
            "the ratio is 1: {found:?}"
        );
    };
    for d in [-1.5_f32, 0.5, 2.0] {
        check(KlEstimator::K3, true, d, -f64::from(d));
        check(KlEstimator::K3, false, d, 1.0 - f64::from(d).exp());
        check(KlEstimator::K1, true, d, 1.0 - f64::from(d));
        check(KlEstimator::K1, false, d, 1.0);
    }
}

/// Central differences of the loss by each log-prob against the weights. CISPO's ratio is held, so there the sampler's
/// log-prob moves along.
fn check_derivative(
    settings: &LossSettings,
    log_probs: &[f32],
    sampled: Option<&[f32]>,
    reference: Option<&[f32]>,
    advantage: f64,
) {
    let loss = |log_probs: &[f32], sampled: Option<&[f32]>| {
        sequence_loss(
            settings,
            SequenceTerms {
                log_probs,
                old: sampled,
                reference,
                advantage,
                ..SequenceTerms::default()
            },
            TOTALS,
        )
    };
    let found = loss(log_probs, sampled);
    for token in 0..log_probs.len() {
        let moved = |step: f32| {
            let mut log_probs = log_probs.to_vec();
            log_probs[token] += step;
            let sampled = sampled.map(|sampled| {
                let mut sampled = sampled.to_vec();
                sampled[token] += if settings.policy_loss == PolicyLoss::Cispo {
                    step
                } else {
                    0.0
                };
                sampled
            });
            loss(&log_probs, sampled.as_deref()).loss
        };
        let difference = (moved(STEP) - moved(-STEP)) / (2.0 * f64::from(STEP));
        // Central differences err by step^2 / 6 of the third derivative, here at most about e^1.5.
        assert!(
            (difference - found.d_log_probs[token]).abs() < 2e-6,
            "{settings:?} token {token} of {log_probs:?} over {sampled:?}, A {advantage}: differences {difference}, weights {:?}",
            found.d_log_probs
        );
    }
}

/// Multiples of 2^-6, so that a step of 2^-10 is exact; log-ratios from -1.4 to 1.4 that stay further than a step from
/// every clip and cap.
const SAMPLED: [f32; 6] = [-2.0, -0.5, -3.25, -1.0, -0.75, -1.5];
const CURRENT: [f32; 6] = [-2.0625, -0.484_375, -1.875, -2.375, -0.25, -1.593_75];
const REFERENCE: [f32; 6] = [-1.0, -0.5, -4.5, -1.25, -0.8125, -1.5];

#[test]
fn weights_are_the_derivative_of_the_loss() {
    for &policy_loss in &PolicyLoss::ALL {
        for advantage in [1.25, -0.75, 0.0] {
            for length in [1, 2, 6] {
                let cut = |numbers: &'static [f32; 6]| &numbers[..length];
                for &kl_estimator in &KlEstimator::ALL {
                    // CISPO's ratio is held, and these differences hold it; with its KL weighted they would hold too
                    // much.
                    for (kl_beta, kl_importance) in [
                        (0.0, false),
                        (0.3, false),
                        (0.3, policy_loss != PolicyLoss::Cispo),
                    ] {
                        let settings = LossSettings {
                            kl_beta,
                            kl_estimator,
                            kl_importance,
                            ..loss_settings(policy_loss)
                        };
                        check_derivative(
                            &settings,
                            cut(&CURRENT),
                            Some(cut(&SAMPLED)),
                            Some(cut(&REFERENCE)),
                            advantage,
                        );
                    }
                }
            }
        }
    }
    // Both clips were active above.
    let count = |advantage| {
        let terms = SequenceTerms {
            log_probs: &CURRENT,
            old: Some(&SAMPLED),
            advantage,
            ..SequenceTerms::default()
        };
        sequence_loss(&loss_settings(PolicyLoss::Grpo), terms, TOTALS)
    };
    let (up, down) = (count(1.0), count(-1.0));
    assert!(
        up.clipped_high >= 2 && down.clipped_low >= 1,
        "{up:?} {down:?}"
    );
}

/// Sequences of eight tokens whose log-ratios are all the same: a step of one token moves the sequence's ratio by an
/// eighth of it, less than GSPO's clips.
#[test]
fn weights_are_the_derivative_on_both_sides_of_the_clips() {
    use PolicyLoss::{Cispo, Gspo};
    // (loss, log-ratio, A, teaches, clipped low, clipped high).
    let rows: &[(PolicyLoss, f32, f64, bool, usize, usize)] = &[
        (Gspo, 0.0, 1.25, true, 0, 0),
        (Gspo, 0.0, -0.75, true, 0, 0),
        (Gspo, 0.125, 1.25, false, 0, 8),
        (Gspo, 0.125, -0.75, true, 0, 0),
        (Gspo, -0.125, 1.25, true, 0, 0),
        (Gspo, -0.125, -0.75, false, 8, 0),
        // Beyond the cap of 2.
        (Gspo, 1.0, -0.75, false, 0, 0),
        // CISPO's cap of 5 lies at 1.609: below and above it every token teaches.
        (Cispo, 1.5, 1.25, true, 0, 0),
        (Cispo, 1.75, 1.25, true, 0, 8),
        (Cispo, 1.75, -0.75, true, 0, 8),
        (Cispo, -1.75, 1.25, true, 0, 0),
    ];
    let sampled = [-2.0, -2.5, -3.25, -2.0, -2.75, -2.5, -4.0, -2.125];
    for &(policy_loss, log_ratio, advantage, teaches, low, high) in rows {
        let log_probs = sampled.map(|sampled| sampled + log_ratio);
        let settings = loss_settings(policy_loss);
        check_derivative(&settings, &log_probs, Some(&sampled), None, advantage);
        let terms = SequenceTerms {
            log_probs: &log_probs,
            old: Some(&sampled),
            advantage,
            ..SequenceTerms::default()
        };
        let found = sequence_loss(&settings, terms, TOTALS);
        let row = format!("{policy_loss} {log_ratio} A {advantage}: {found:?}");
        assert_eq!(
            (found.clipped_low, found.clipped_high),
            (low, high),
            "{row}"
        );
        assert!(
            found
                .d_log_probs
                .iter()
                .all(|weight| (*weight != 0.0) == teaches),
            "{row}"
        );
    }
}

fn any_loss() -> impl Strategy<Value = PolicyLoss> {
    prop::sample::select(&PolicyLoss::ALL[..])
}

/// What a loss divides a token by.
fn denominator(settings: &LossSettings, tokens: usize, totals: StepTotals) -> f64 {
    let (sequences, all) = (totals.sequences as f64, totals.tokens as f64);
    match settings.policy_loss {
        PolicyLoss::Grpo | PolicyLoss::Gspo => sequences * tokens as f64,
        PolicyLoss::DrGrpo => sequences * settings.max_completion_tokens as f64,
        PolicyLoss::Bnpo | PolicyLoss::Dapo | PolicyLoss::Cispo => all,
    }
}

proptest! {
    #[test]
    fn on_policy_every_loss_has_the_policy_gradient(log_probs in prop::collection::vec(-9.0f32..0.0, 1..12), advantage in -3.0f64..3.0, loss in any_loss(),
        sequences in 1usize..50, more_tokens in 0usize..500) {
        let settings = loss_settings(loss);
        let totals = StepTotals { sequences, tokens: log_probs.len() + more_tokens };
        let expected = -advantage / denominator(&settings, log_probs.len(), totals);
        for sampled in [None, Some(log_probs.as_slice())] {
            let terms = SequenceTerms { log_probs: &log_probs, old: sampled, advantage, ..SequenceTerms::default() };
            let found = sequence_loss(&settings, terms, totals);
            prop_assert!(found.d_log_probs.iter().all(|weight| (weight - expected).abs() <= 1e-12 * expected.abs()), "{:?}", found);
            prop_assert_eq!((found.clipped_low, found.clipped_high), (0, 0));
        }
    }

    #[test]
    fn whatever_the_ratios_the_numbers_are_finite_and_bounded(pairs in prop::collection::vec((-90.0f32..0.0, -90.0f32..0.0, -90.0f32..0.0), 1..12),
        advantage in -3.0f64..3.0, loss in any_loss()) {
        let column = |pick: fn(&(f32, f32, f32)) -> f32| pairs.iter().map(pick).collect::<Vec<f32>>();
        let (log_probs, sampled, reference) = (column(|p| p.0), column(|p| p.1), column(|p| p.2));
        let settings = LossSettings { kl_beta: 0.01, ..loss_settings(loss) };
        let terms = |reference| SequenceTerms { log_probs: &log_probs, old: Some(&sampled), reference, advantage, ..SequenceTerms::default() };
        let with = sequence_loss(&settings, terms(Some(reference.as_slice())), TOTALS);
        prop_assert!(with.loss.is_finite() && with.kl >= 0.0 && with.d_log_probs.iter().all(|weight| weight.is_finite()));
        let found = sequence_loss(&settings, terms(None), TOTALS);
        let most = if loss == PolicyLoss::Cispo { 5.0 } else { 2.0 };
        let bound = most * advantage.abs() / denominator(&settings, log_probs.len(), TOTALS);
        prop_assert!(found.d_log_probs.iter().all(|weight| weight.abs() <= bound * (1.0 + 1e-9)), "{:?} over {}", found, bound);
        prop_assert!(found.clipped_low + found.clipped_high <= log_probs.len());
    }

    #[test]
    fn k2_and_k3_are_never_negative_and_agree_with_k1_in_sign_of_slope(d in -30.0f64..30.0) {
        for estimator in [KlEstimator::K2, KlEstimator::K3] {
            let (value, slope) = kl_term(estimator, d);
            prop_assert!(value >= 0.0 && slope * d <= 0.0, "{} of {}: {} {}", estimator, d, value, slope);
        }
    }
}

fn model() -> Decoder {
    let json = r#"{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","vocab_size":19,"hidden_size":12,"intermediate_size":20,
        "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":6,"tie_word_embeddings":true,"max_position_embeddings":64}"#;
    let config = ModelConfig::parse(json, "config.json").unwrap();
    let weights = Weights::fresh(&config, 7);
    Decoder::new(
        &config,
        &weights,
        Trainable::Full,
        1,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap()
}

/// Groups by their rewards; tokens follow from the places.
fn groups(rewards: &[&[f64]]) -> Vec<PolicyGroup<'static>> {
    let group = |(place, rewards): (usize, &&[f64])| {
        let advantages = group_advantages(rewards, Advantage::Standardized);
        let sample = |(index, advantage): (usize, f64)| {
            let token_ids: Vec<u32> = (0..2 + (index + place) % 3)
                .map(|t| ((place * 7 + index * 5 + t * 3) % 19) as u32)
                .collect();
            PolicySample {
                follows: None,
                sequence: None,
                forced: 0..0,
                experts: None,
                sampled_log_probs: vec![-2.9; token_ids.len()].into(),
                old_log_probs: None,
                token_ids: token_ids.into(),
                reference_log_probs: None,
                teacher_log_probs: None,
                advantage,
            }
        };
        PolicyGroup {
            prompt: vec![3, place as u32 % 19, 4].into(),
            teacher_prompt: None,
            samples: advantages.into_iter().enumerate().map(sample).collect(),
        }
    };
    rewards.iter().enumerate().map(group).collect()
}

fn gradient(
    groups: &[PolicyGroup<'_>],
    totals: StepTotals,
    loss: PolicyLoss,
    off_policy: bool,
    tokens_per_micro_batch: usize,
) -> Vec<f32> {
    let settings = PolicySettings {
        loss: loss_settings(loss),
        temperature: 1.0,
        tokens_per_micro_batch,
        recompute: false,
    };
    let threads = ThreadPool::new(1).unwrap();
    let mut groups = groups.to_vec();
    for sample in groups
        .iter_mut()
        .flat_map(|group| &mut group.samples)
        .filter(|_| off_policy)
    {
        sample.old_log_probs = Some(sample.sampled_log_probs.clone());
    }
    policy_gradient(&model(), &groups, totals, &settings, &threads)
        .unwrap()
        .0
        .flat()
        .to_vec1::<f32>()
        .unwrap()
}

fn assert_close(a: &[f32], b: &[f32], what: &str) {
    let scale = a.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(scale > 1e-4, "{what}: nothing was learnt");
    let worst = a
        .iter()
        .zip(b)
        .fold(0.0_f32, |worst, (x, y)| worst.max((x - y).abs()));
    assert!(
        worst <= 2e-6 * scale.max(1.0),
        "{what}: differ by {worst}, largest {scale}"
    );
}

const MIXED_AND_EQUAL: [&[f64]; 4] = [
    &[1.0, 0.5, 0.0, 1.0],
    &[1.0, 1.0, 1.0, 1.0],
    &[0.0, 0.5, 0.5, 0.5],
    &[0.5, 0.5, 0.5, 0.5],
];

fn totals(groups: &[PolicyGroup<'_>]) -> StepTotals {
    let samples = || groups.iter().flat_map(|group| &group.samples);
    StepTotals {
        sequences: samples().count(),
        tokens: samples().map(|sample| sample.token_ids.len()).sum(),
    }
}

#[test]
fn leaving_zero_variance_groups_out_leaves_the_gradient() {
    let all = groups(&MIXED_AND_EQUAL);
    let alive = vec![all[0].clone(), all[2].clone()];
    for &loss in &PolicyLoss::ALL {
        let with = gradient(&all, totals(&all), loss, false, 1000);
        assert_close(
            &with,
            &gradient(&alive, totals(&all), loss, false, 1000),
            loss.name(),
        );
        // Dropping them from the denominators too would not be the same.
        let wrong = gradient(&alive, totals(&alive), loss, false, 1000);
        let ratio =
            wrong.iter().map(|g| g.abs()).sum::<f32>() / with.iter().map(|g| g.abs()).sum::<f32>();
        assert!(ratio > 1.5, "{loss}: {ratio}");
    }
}

#[test]
fn the_split_into_micro_batches_leaves_the_gradient() {
    let all = groups(&MIXED_AND_EQUAL);
    for &loss in &PolicyLoss::ALL {
        for off_policy in [false, true] {
            let whole = gradient(&all, totals(&all), loss, off_policy, 1000);
            for tokens in [1, 8, 20] {
                assert_close(
                    &whole,
                    &gradient(&all, totals(&all), loss, off_policy, tokens),
                    &format!("{loss} in {tokens}"),
                );
            }
        }
    }
}

/// The head takes some 2,000 rows at once, whole completions of them: how many there are changes nothing.
#[test]
fn a_micro_batch_of_many_completions_has_the_gradient_of_small_ones() {
    let rewards: [&[f64]; 200] = std::array::from_fn(|n| MIXED_AND_EQUAL[n % 2 * 2]);
    let all = groups(&rewards);
    let totals = totals(&all);
    assert!(totals.tokens > 2048);
    for loss in [PolicyLoss::Grpo, PolicyLoss::Gspo] {
        let [many, few] = [100_000, 300].map(|tokens| gradient(&all, totals, loss, true, tokens));
        assert_close(&many, &few, loss.name());
    }
}
