//! Tests: properties that hold for every input, of advantages, statistics, configuration and records.

use grpo_tui::advantage::{Advantage, GroupSignal, group_advantages, group_signal};
use grpo_tui::config::{KEYS, Layers};
use grpo_tui::plan::{GroupOutcome, Signal, SignalSettings, judge};
use grpo_tui::run::checkpoints_to_delete;
use grpo_tui::run::events::{Event, EventBody, Group, Step};
use grpo_tui::statistics::{
    SIGNIFICANT, compound, mcnemar_exact, paired_means, required_n, smooth, wilson,
    wilson_by_prompt,
};
use proptest::prelude::*;

fn any_advantage() -> impl Strategy<Value = Advantage> {
    prop::sample::select(&Advantage::ALL[..])
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
        prop_assert_ne!(group_signal(&vec![reward; size], false, false), GroupSignal::Mixed);
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
    fn a_paired_interval_holds_the_estimate_and_leaves_out_0_where_the_test_decides(quarters in prop::collection::vec(-4i32..=4, 1..40)) {
        let values: Vec<f64> = quarters.into_iter().map(|quarter| f64::from(quarter) / 4.0).collect();
        let found = paired_means(&values, 0.25, SIGNIFICANT);
        let (low, estimate, high) = (found.difference.low, found.difference.estimate, found.difference.high);
        prop_assert!(-1.0 <= low && low <= estimate + 1e-12 && estimate <= high + 1e-12 && high <= 1.0, "{found:?}");
        prop_assert!(found.p >= 0.05 || low > 0.0 || high < 0.0, "{found:?}");
    }

    #[test]
    fn samples_of_a_prompt_never_claim_more_than_prompts_do(counts in prop::collection::vec(0usize..=4, 2..60)) {
        let prompts: Vec<_> = counts.iter().map(|count| (*count, 4)).collect();
        let (low, high) = wilson_by_prompt(&prompts);
        let (all, of) = (counts.iter().sum::<usize>(), 4 * counts.len());
        let (least, most) = wilson(all, of);
        prop_assert!(low <= least + 1e-12 && most <= high + 1e-12, "{prompts:?}: {low} {high}, all alike {least} {most}");
    }

    #[test]
    fn more_power_needs_more_prompts(fixed in 0.01f64..0.4, broken in 0.0f64..0.4) {
        if let (Some(less), Some(more)) = (required_n(fixed, broken, 0.8, 0.05), required_n(fixed, broken, 0.9, 0.05)) {
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

    #[test]
    fn any_event_survives_its_line(seq in any::<u64>(), step in any::<u64>(), values in prop::collection::btree_map(".*", any::<f64>(), 0..5), text in ".*") {
        let rewards: Vec<f64> = values.values().copied().collect();
        let bodies: [EventBody; 2] = [
            Step { step, seconds: 1.0, metrics: values, ..Step::default() }.into(),
            Group { step, prompt_id: text, rewards, ..Group::default() }.into(),
        ];
        for body in bodies {
            let line = Event { seq, time_ms: 1, body: body.clone() }.to_line().unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let back = Event::from_line(std::str::from_utf8(&line).unwrap().trim_end_matches('\n')).unwrap();
            prop_assert_eq!(back.seq, seq);
            // Whatever was not finite comes back as NaN.
            let shown = |body: &EventBody| format!("{body:?}").replace("-inf", "NaN").replace("inf", "NaN");
            prop_assert_eq!(shown(&back.body), shown(&body));
        }
    }

    #[test]
    fn no_line_breaks_the_reader(line in ".*") {
        let _ = Event::from_line(&line);
    }

    #[test]
    fn any_assignment_is_taken_or_refused_with_its_key(index in 0..KEYS.len(), text in ".{0,12}") {
        let name = KEYS[index].name;
        let layers = Layers { set: vec![format!("{name}={text}")], ..Layers::default() };
        match layers.resolve() {
            Ok(resolved) => prop_assert_eq!(resolved.config.digest().len(), 64),
            Err(error) => prop_assert!(error.to_string().contains(name), "{}", error),
        }
    }

    #[test]
    fn keep_rules_never_touch_what_must_stay(steps in prop::collection::btree_set(0u64..200, 0..20), keep in 0usize..6, best in 0u64..200, end in 0u64..200) {
        let steps: Vec<u64> = steps.into_iter().collect();
        let deleted = checkpoints_to_delete(&steps, keep, Some(best), Some(end));
        prop_assert!(!deleted.contains(&0) && !deleted.contains(&best) && !deleted.contains(&end));
        prop_assert!(deleted.iter().all(|step| steps.contains(step)));
        prop_assert!(steps.iter().rev().take(keep).all(|step| !deleted.contains(step)));
        prop_assert!(keep == 0 || steps.len() - deleted.len() <= keep + 3);
    }

    #[test]
    fn a_verdict_holds_together(rewards in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![0.0, 0.5, 1.0]), 8), 0..50)) {
        let group = |rewards: Vec<f64>| GroupOutcome { prompt_id: String::new(), signal: group_signal(&rewards, rewards.iter().all(|reward| *reward == 1.0), rewards.iter().all(|reward| *reward == 0.0)), rewards, tiers: Vec::new() };
        let signal = Signal { groups: rewards.into_iter().map(group).collect(), ..Signal::default() };
        let settings = SignalSettings { completions_per_prompt: 8, prompt_groups_per_step: 8, max_completion_tokens: 64 };
        let report = judge(&signal, &settings);
        let [low, high] = report.informative_interval;
        prop_assert!(low <= report.informative && report.informative <= high);
        prop_assert!(signal.groups.is_empty() || (report.informative + report.all_max + report.all_min + report.all_equal - 1.0).abs() < 1e-9);
        prop_assert!(!report.advice.why.is_empty());
    }
}
