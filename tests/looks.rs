//! Tests: a test set is not worn out by looking at it often. A hundred experiments on a task where nothing can be
//! gained, many times over; figures in docs/measurements/studies.md#looks-at-a-test-set.

use grpo_tui::dataset::CounterRandom;
use grpo_tui::report::{Metric, MetricVerdict, Verdict};
use grpo_tui::run::Comparison;
use grpo_tui::statistics::{look_adjusted, look_level, mcnemar_exact};

/// Prompts of the test set.
const PROMPTS: usize = 200;
/// Experiments of a loop, each with one look.
const LOOKS: u64 = 100;
/// The share of answers that an experiment changes.
const CHANGED: f64 = 0.2;

/// How an experiment is chosen. None gains anything: changed answers are right as often as the base's.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loop {
    /// From the base, whatever the looks said.
    Independent,
    /// From the experiment with the best rate on the test set: its feedback is used.
    Climbing,
}

/// Whether any of a loop's verdicts is a gain: without, and with the correction for looks.
fn any_gain(kind: Loop, seed: u64) -> [bool; 2] {
    let mut random = CounterRandom::new(&[68, seed]);
    // Prompts are of unlike difficulty.
    let chance: Vec<f64> = (0..PROMPTS).map(|_| random.unit()).collect();
    let base: Vec<bool> = { chance.iter() }
        .map(|chance| random.unit() < *chance)
        .collect();
    let mut best = base.clone();
    let right = |answers: &[bool]| answers.iter().filter(|right| **right).count();
    let mut found = [false; 2];
    for look in 1..=LOOKS {
        let from = if kind == Loop::Climbing { &best } else { &base };
        let mut answer = |(before, chance): (&bool, &f64)| match random.unit() < CHANGED {
            true => random.unit() < *chance,
            false => *before,
        };
        let answers: Vec<bool> = from.iter().zip(&chance).map(&mut answer).collect();
        let count = |pair: [bool; 2]| {
            let pairs = base.iter().zip(&answers);
            pairs
                .filter(|(before, after)| [**before, **after] == pair)
                .count()
        };
        let (fixed, broken) = (count([false, true]), count([true, false]));
        let comparison = Comparison {
            fixed,
            broken,
            both: PROMPTS - fixed - broken,
            mcnemar_p: mcnemar_exact(fixed, broken),
            ..Comparison::default()
        };
        for (gain, look) in found.iter_mut().zip([None, Some(look)]) {
            let judged = MetricVerdict::from_comparison(Metric::Valid, &comparison, look);
            *gain |= judged.verdict == Verdict::Better;
        }
        if right(&answers) > right(&best) {
            best = answers;
        }
    }
    found
}

/// The shares of loops with a false gain.
fn false_gains(kind: Loop, loops: u64) -> [f64; 2] {
    let mut found = [0.0; 2];
    for seed in 0..loops {
        for (count, gain) in found.iter_mut().zip(any_gain(kind, seed)) {
            *count += f64::from(u8::from(gain)) / loops as f64;
        }
    }
    found
}

#[test]
fn a_hundred_experiments_without_a_gain_find_none_in_19_of_20_loops() {
    let [plain, corrected] = false_gains(Loop::Independent, 100);
    assert!(plain > 0.5, "nothing to correct: {plain}");
    assert!(corrected <= 0.05, "{corrected}");
}

#[test]
#[ignore = "nightly: 2,000 loops of each kind"]
fn false_gains_of_loops() {
    for kind in [Loop::Independent, Loop::Climbing] {
        let [plain, corrected] = false_gains(kind, 2_000);
        println!(
            "{kind:?}: {:.1}% plain, {:.1}% corrected",
            100.0 * plain,
            100.0 * corrected
        );
        if kind == Loop::Independent {
            assert!(plain > 0.5 && corrected <= 0.05);
        }
    }
}

#[test]
fn levels_of_any_number_of_looks_sum_to_5_percent_on_each_side() {
    let sum: f64 = (1..=100_000).map(look_level).sum();
    assert!((0.0999..=0.1).contains(&sum), "{sum}");
    for look in [1, 2, 7, 100] {
        let p = 0.5 * look_level(look);
        assert!(
            (look_adjusted(p, look) - 0.025).abs() < 1e-15,
            "look {look}"
        );
        assert_eq!(look_adjusted(0.9, look), if look == 1 { 0.9 } else { 1.0 });
    }
}
