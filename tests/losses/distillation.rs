//! A teacher's part of each token's advantage: numbers computed by hand, and derivatives by central differences.

use grpo_tui::config::PolicyLoss;
use grpo_tui::update::{LossSettings, SequenceTerms, sequence_loss};

use super::{TOTALS, loss_settings};

/// (loss, old, teacher, value, weights).
type HandComputed = (PolicyLoss, Option<[f32; 2]>, [f32; 2], f64, [f64; 2]);

/// Advantage 0.25, coefficient 0.5; log-probs 1.5 and 0.5 times as likely as those sampled, or 1.2 and 1 / 1.2.
#[test]
fn hand_computed_advantages() {
    use PolicyLoss::{Bnpo, Cispo, Dapo, DrGrpo, Grpo, Gspo};
    let own = [-2.0, -1.0];
    let over =
        |ratios: [f64; 2]| [0, 1].map(|token| (f64::from(own[token]) - ratios[token].ln()) as f32);
    let (far, near) = (over([1.5, 0.5]), over([1.2, 1.0 / 1.2]));
    let beside = |sampled: [f32; 2], differences: [f32; 2]| {
        [0, 1].map(|token| sampled[token] + differences[token])
    };
    let rows: &[HandComputed] = &[
        // On-policy, teacher - own = 0.5 and -2: A = 0.25 + 0.25 and 0.25 - 1. -(0.5 - 0.75) / 8; weights -A / 8.
        (Grpo, None, [-1.5, -3.0], 0.03125, [-0.0625, 0.09375]),
        (DrGrpo, None, [-1.5, -3.0], 0.00625, [-0.0125, 0.01875]),
        (Bnpo, None, [-1.5, -3.0], 0.0125, [-0.025, 0.0375]),
        (Dapo, None, [-1.5, -3.0], 0.0125, [-0.025, 0.0375]),
        (Gspo, None, [-1.5, -3.0], 0.03125, [-0.0625, 0.09375]),
        // -(0.5 * -2 - 0.75 * -1) / 20.
        (Cispo, None, [-1.5, -3.0], 0.0125, [-0.025, 0.0375]),
        // A teacher that agrees leaves the sequence's advantage.
        (Grpo, None, own, -0.0625, [-0.03125, -0.03125]),
        // Against what was sampled, not the current log-probs: the same advantages; 1.5 is clipped to 1.2 at A > 0, 0.5
        // to 0.8 at A < 0: -(1.2 * 0.5 - 0.8 * 0.75) / 8.
        (Grpo, Some(far), beside(far, [0.5, -2.0]), 0.0, [0.0, 0.0]),
        // A = 0.25 - 0.5 and 0.25 + 0.25: no clip: (1.5 * 0.25 - 0.5 * 0.5) / 8.
        (
            Grpo,
            Some(far),
            beside(far, [-1.0, 0.5]),
            0.015625,
            [0.046875, -0.03125],
        ),
        // The sequence's ratio is 1.
        (
            Gspo,
            Some(near),
            beside(near, [0.5, -2.0]),
            0.03125,
            [-0.0625, 0.09375],
        ),
    ];
    for (policy_loss, old, teacher, loss, weights) in rows {
        let settings = LossSettings {
            distill_coef: 0.5,
            corrects_sampling: false,
            ..loss_settings(*policy_loss)
        };
        let (old, teacher) = (old.as_ref().map(|old| &old[..]), Some(&teacher[..]));
        let terms = SequenceTerms {
            log_probs: &own,
            old,
            teacher,
            advantage: 0.25,
            ..SequenceTerms::default()
        };
        let found = sequence_loss(&settings, terms, TOTALS);
        assert!(
            (found.loss - loss).abs() < 1e-6,
            "{policy_loss} {teacher:?}: {found:?}, expected {loss}"
        );
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
        assert!(
            found.d_log_probs.iter().zip(weights).all(close),
            "{policy_loss}: {found:?}, expected {weights:?}"
        );
    }
}

/// 2^-10; the log-probs are multiples of 2^-6.
const STEP: f32 = 0.000_976_562_5;
const SAMPLED: [f32; 4] = [-2.0, -0.5, -3.25, -1.0];
const CURRENT: [f32; 4] = [-2.0625, -0.484_375, -3.25, -1.25];
const TEACHER: [f32; 4] = [-1.0, -4.5, -3.0, -1.25];

/// The teacher's part is a constant: what was sampled, and the teacher, are held. CISPO holds its ratio too; GSPO's
/// weights are those of GSPO-token, whose sum is the derivative along all tokens.
#[test]
fn weights_are_the_derivative_of_the_loss() {
    for &policy_loss in &PolicyLoss::ALL {
        // The mean of GSPO's log-ratios, -0.074, lies within these clips.
        let settings = LossSettings {
            distill_coef: 0.5,
            corrects_sampling: false,
            clip_low: 0.3,
            clip_high: 0.3,
            ..loss_settings(policy_loss)
        };
        let is_held = policy_loss == PolicyLoss::Cispo;
        let loss = |moved: &[usize], step: f32| {
            let shift = |mut numbers: [f32; 4], is_moved: bool| {
                moved
                    .iter()
                    .filter(|_| is_moved)
                    .for_each(|token| numbers[*token] += step);
                numbers
            };
            let (log_probs, old, teacher) = (
                shift(CURRENT, true),
                shift(SAMPLED, is_held),
                shift(TEACHER, is_held),
            );
            let (old, teacher) = (Some(&old[..]), Some(&teacher[..]));
            let terms = SequenceTerms {
                log_probs: &log_probs,
                old,
                teacher,
                advantage: 0.75,
                ..SequenceTerms::default()
            };
            sequence_loss(&settings, terms, TOTALS)
        };
        let weights = loss(&[], 0.0).d_log_probs;
        let moves: Vec<Vec<usize>> = if policy_loss == PolicyLoss::Gspo {
            vec![vec![0, 1, 2, 3]]
        } else {
            (0..4).map(|token| vec![token]).collect()
        };
        for moved in moves {
            let difference =
                (loss(&moved, STEP).loss - loss(&moved, -STEP).loss) / (2.0 * f64::from(STEP));
            let expected: f64 = moved.iter().map(|token| weights[*token]).sum();
            assert!(
                (difference - expected).abs() < 2e-6,
                "{policy_loss} {moved:?}: {difference}, weights {weights:?}"
            );
            assert!(expected != 0.0, "{policy_loss} {moved:?}: {weights:?}");
        }
    }
}
