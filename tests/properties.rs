//! Tests: properties that hold for every input, of advantages, statistics, configuration and records.

use grpo_tui::advantage::{Advantage, Dead, group_advantages, group_state};
use grpo_tui::statistics::{compound, mcnemar_exact, paired_bootstrap, required_n, smooth, wilson};
use proptest::prelude::*;

fn any_advantage() -> impl Strategy<Value = Advantage> {
    prop::sample::select(Advantage::ALL)
}

proptest! {
    #[test]
    fn advantages_are_finite_sum_to_zero_and_keep_order(rewards in prop::collection::vec(-5.0f64..5.0, 0..40), advantage in any_advantage()) {
        let found = group_advantages(&rewards, advantage);
        prop_assert_eq!(found.len(), rewards.len());
        prop_assert!(found.iter().all(|value| value.is_finite()));
        prop_assert!(found.iter().sum::<f64>().abs() < 1e-6);
        for (i, a) in rewards.iter().enumerate() {
            for (j, b) in rewards.iter().enumerate() {
                prop_assert!(a <= b || found[i] >= found[j]);
            }
        }
    }

    #[test]
    fn equal_rewards_give_exactly_zero(reward in prop::num::f64::NORMAL, size in 0usize..40, advantage in any_advantage()) {
        prop_assert!(group_advantages(&vec![reward; size], advantage).iter().all(|value| *value == 0.0));
        prop_assert_ne!(group_state(&vec![reward; size], 1.0, 0.0), Dead::No);
    }

    #[test]
    fn unscored_rewards_never_poison(mut rewards in prop::collection::vec(0.0f64..1.0, 1..20), at in 0usize..20, advantage in any_advantage()) {
        let at = at % rewards.len();
        rewards[at] = f64::NAN;
        let found = group_advantages(&rewards, advantage);
        prop_assert_eq!(found[at], 0.0);
        prop_assert!(found.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn wilson_brackets_the_rate(n in 1usize..100_000, share in 0.0f64..=1.0) {
        let successes = (n as f64 * share) as usize;
        let (low, high) = wilson(successes, n);
        let rate = successes as f64 / n as f64;
        prop_assert!(0.0 <= low && low <= rate && rate <= high && high <= 1.0, "{low} {rate} {high}");
        let (mirror_low, mirror_high) = wilson(n - successes, n);
        prop_assert!((mirror_low - (1.0 - high)).abs() < 1e-9 && (mirror_high - (1.0 - low)).abs() < 1e-9);
    }

    #[test]
    fn mcnemar_is_a_probability_symmetric_and_falls_with_imbalance(fixed in 0usize..5_000, broken in 0usize..5_000) {
        let p = mcnemar_exact(fixed, broken);
        prop_assert!((0.0..=1.0).contains(&p));
        prop_assert_eq!(p, mcnemar_exact(broken, fixed));
        if fixed >= broken {
            prop_assert!(mcnemar_exact(fixed + 1, broken) <= p + 1e-12);
        }
    }

    #[test]
    fn bootstrap_stays_within_the_values(values in prop::collection::vec(-1.0f64..1.0, 1..40), seed in any::<u64>()) {
        let found = paired_bootstrap(&values, 64, seed);
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
        prop_assert!(least - 1e-12 <= found.low && found.low <= found.high && found.high <= most + 1e-12);
    }

    #[test]
    fn more_power_needs_more_prompts(fixed in 0.01f64..0.4, broken in 0.0f64..0.4) {
        if let (Some(less), Some(more)) = (required_n(fixed, broken, 0.8), required_n(fixed, broken, 0.9)) {
            prop_assert!(less <= more);
        }
    }

    #[test]
    fn smoothing_stays_within_the_values(values in prop::collection::vec(-1e6f64..1e6, 1..50), weight in 0.0f64..1.0) {
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
        prop_assert!(smooth(&values, weight).iter().all(|value| *value >= least - 1e-3 && *value <= most + 1e-3));
    }

    #[test]
    fn compounding_multiplies(p in 0.0f64..=1.0, a in 0u32..60, b in 0u32..60) {
        prop_assert!((compound(p, a) * compound(p, b) - compound(p, a + b)).abs() < 1e-9);
    }
}
