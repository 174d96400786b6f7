//! Tests of raising and resolving alerts.

use super::*;
use crate::config::Layers;
use crate::facts::Target;
use crate::run::Comparison;
use crate::statistics::mcnemar_exact;

fn config(set: &[&str]) -> TrainConfig {
    Layers {
        set: set.iter().map(|text| (*text).to_owned()).collect(),
        ..Layers::default()
    }
    .resolve()
    .unwrap()
    .config
}

/// Alerts of every step: (step, rule, level, cleared).
fn run(set: &[&str], steps: &[&[(&str, f64)]]) -> Vec<(u64, String, AlertLevel, bool)> {
    let (mut alerts, config) = (Alerts::default(), config(set));
    let mut found = Vec::new();
    for (step, metrics) in (1..).zip(steps) {
        let metrics = metrics
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        for alert in alerts.observe(step, &metrics, &config) {
            assert!(
                alert.cleared || (alert.sentence.ends_with('.') && alert.suggestion.ends_with('.')),
                "{alert:?}"
            );
            found.push((step, alert.rule.name, alert.level, alert.cleared));
        }
    }
    found
}

fn step_event(step: u64, metrics: Metrics) -> crate::run::EventBody {
    crate::run::events::Step {
        step,
        seconds: 1.0,
        metrics,
        ..Default::default()
    }
    .into()
}

fn expect(found: &[(u64, String, AlertLevel, bool)], expected: &[(u64, &str, AlertLevel, bool)]) {
    let found: Vec<_> = found
        .iter()
        .map(|(step, rule, level, cleared)| (*step, rule.as_str(), *level, *cleared))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn each_rule_rises_once_and_clears() {
    let best: &[(&str, f64)] = &[("groups/frac_all_best", 1.0)];
    let mixed: &[(&str, f64)] = &[("groups/frac_all_best", 0.5)];
    expect(&run(&[], &[best; 2]), &[]);
    expect(
        &run(&[], &[best, best, best, best, mixed]),
        &[
            (3, "all_best", AlertLevel::Info, false),
            (5, "all_best", AlertLevel::Info, true),
        ],
    );
    let worst: &[(&str, f64)] = &[("groups/frac_all_worst", 1.0)];
    expect(
        &run(&[], &[worst; 5]),
        &[(3, "all_worst", AlertLevel::Warning, false)],
    );
    let guided: &[(&str, f64)] = &[
        ("groups/frac_all_worst", 1.0),
        ("groups/frac_guided", 0.125),
    ];
    let own: &[(&str, f64)] = &[("groups/frac_all_worst", 0.5), ("groups/frac_guided", 0.5)];
    expect(
        &run(&[], &[&[guided; 5][..], &[own]].concat()),
        &[
            (5, "only_guide_earns", AlertLevel::Info, false),
            (6, "only_guide_earns", AlertLevel::Info, true),
        ],
    );
    let truncated: &[(&str, f64)] = &[("completions/clipped_ratio", 0.06)];
    expect(
        &run(&[], &[truncated, &[]]),
        &[
            (1, "clipped_completions", AlertLevel::Warning, false),
            (2, "clipped_completions", AlertLevel::Warning, true),
        ],
    );
    expect(&run(&[], &[&[("completions/clipped_ratio", 0.05)]]), &[]);
    let leak: &[(&str, f64)] = &[("failures/think_leak", 0.2)];
    expect(
        &run(&[], &[leak, leak]),
        &[(1, "think_leak", AlertLevel::Warning, false)],
    );
    let broken: &[(&str, f64)] = &[("grad_norm", f64::NAN), ("loss", f64::NAN)];
    expect(
        &run(&[], &[broken, broken, &[]]),
        &[
            (1, "not_finite", AlertLevel::Error, false),
            (3, "not_finite", AlertLevel::Error, true),
        ],
    );
}

/// What has one cause is told once, and with the cause.
#[test]
fn truncated_answers_explain_equal_rewards() {
    let step = |truncated, leak, worst, guided| -> Vec<(&str, f64)> {
        vec![
            ("groups/frac_all_worst", worst),
            ("groups/frac_guided", guided),
            ("completions/clipped_ratio", truncated),
            ("failures/think_leak", leak),
        ]
    };
    for (thinks, guided) in [(0.95, 0.0), (0.0, 1.0)] {
        let cut = step(0.97, thinks, 1.0, guided);
        let steps: Vec<&[(&str, f64)]> = vec![&cut, &cut, &cut, &cut, &cut, &cut];
        expect(
            &run(&[], &steps),
            &[(1, "all_truncated", AlertLevel::Warning, false)],
        );
        let config = config(&["max_completion_tokens=256"]);
        let mut alerts = Alerts::default();
        let metrics = |step: &[(&str, f64)]| {
            let named = step
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value));
            named.collect::<Metrics>()
        };
        let raised = alerts.observe(1, &metrics(&cut), &config).remove(0);
        assert!(
            raised
                .sentence
                .contains("97% of the completions are truncated at 256 tokens")
        );
        assert_eq!(raised.sentence.contains("in thinking"), thinks > 0.5);
        assert_eq!(raised.suggestion.contains("thinking = false"), thinks > 0.5);
    }
}

/// All groups guided, so there is a gradient, and the policy becomes noise.
#[test]
fn a_policy_that_only_its_guide_keeps_going_diverges() {
    let step = |entropy, worst| -> Vec<(&str, f64)> {
        vec![
            ("groups/frac_all_worst", worst),
            ("groups/frac_guided", 1.0),
            ("tiers/unparsable", 1.0),
            ("tiers/valid", 0.0),
            ("reward", 0.0),
            ("completions/entropy", entropy),
        ]
    };
    let (first, noise, narrow, learns) = (
        step(0.63, 1.0),
        step(3.57, 1.0),
        step(0.9, 1.0),
        step(3.57, 0.3),
    );
    let check = |later: &[(&str, f64)], expected: bool| {
        let steps = [&[&first[..]][..], &[later; 5]].concat();
        let found = run(&[], &steps);
        let diverged = found.iter().filter(|(_, rule, ..)| rule == "diverged");
        assert_eq!(diverged.count() > 0, expected, "{found:?}");
    };
    check(&noise, true);
    check(&narrow, false);
    check(&learns, false);
}

#[test]
fn only_a_gradient_that_is_not_finite_changes_nothing() {
    let sentence = |metrics: &[(&str, f64)]| {
        let metrics = metrics
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        Alerts::default()
            .observe(1, &metrics, &config(&[]))
            .remove(0)
            .sentence
    };
    assert_eq!(
        sentence(&[("grad_norm", f64::NAN)]),
        "grad_norm is not finite: the step changed nothing."
    );
    assert_eq!(
        sentence(&[("grad_norm", 1.0), ("reward", f64::NAN)]),
        "reward is not finite."
    );
}

#[test]
fn a_resumed_run_goes_on_with_what_stood() {
    let truncated = |share: f64| {
        Metrics::from([
            ("completions/clipped_ratio".to_owned(), share),
            ("grad_norm".to_owned(), 1.0),
        ])
    };
    let shares = [0.0, 0.3, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9];
    resumes_everywhere(&shares.map(truncated), &[(2, false), (8, true), (9, false)]);
    // A collapse lasts until half of a step's groups have a gradient, not just until it would no
    // longer be raised.
    let equal = |share: f64| {
        Metrics::from([
            ("groups/frac_all_worst".to_owned(), share),
            ("groups/frac_distinct".to_owned(), 0.1),
        ])
    };
    let shares = [1.0, 1.0, 1.0, 1.0, 1.0, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.4];
    resumes_everywhere(
        &shares.map(equal),
        &[(3, false), (5, false), (6, true), (12, true)],
    );
}

/// Resumes after each step, and compares the remaining alerts. `expected`: those of the whole run,
/// and whether they clear.
fn resumes_everywhere(steps: &[Metrics], expected: &[(u64, bool)]) {
    let config = config(&[]);
    let raised = |alerts: &mut Alerts, from: usize| -> Vec<Alert> {
        (from..steps.len())
            .flat_map(|at| alerts.observe(at as u64 + 1, &steps[at], &config))
            .collect()
    };
    let whole = raised(&mut Alerts::default(), 0);
    assert_eq!(
        whole
            .iter()
            .map(|alert| (alert.step, alert.cleared))
            .collect::<Vec<_>>(),
        expected
    );
    for stopped in 0..steps.len() {
        let mut state = RunState::default();
        // Steps after the checkpoint are in the log too; they will be redone.
        for (step, metrics) in (1..).zip(steps) {
            let body = step_event(step, metrics.clone());
            state.fold(crate::run::Event {
                seq: step,
                time_ms: 0,
                body,
            });
        }
        let mut alerts = Alerts::resumed(TaskFacts::default(), &state, stopped as u64, &config);
        let rest: Vec<Alert> = whole
            .iter()
            .filter(|alert| alert.step > stopped as u64)
            .cloned()
            .collect();
        assert_eq!(raised(&mut alerts, stopped), rest, "after step {stopped}");
    }
}

#[test]
fn zero_variance_groups_matter_with_a_kl_and_by_grade() {
    let equal: &[(&str, f64)] = &[("frac_reward_zero_std", 0.75)];
    let all: &[(&str, f64)] = &[("frac_reward_zero_std", 1.0)];
    expect(&run(&[], &[equal; 9]), &[]);
    expect(&run(&["kl_beta=0.01"], &[equal; 4]), &[]);
    let steps = [[equal; 6].as_slice(), &[all; 5]].concat();
    let rule = "dead_groups_with_kl";
    expect(
        &run(&["kl_beta=0.01"], &steps),
        &[
            (5, rule, AlertLevel::Info, false),
            (9, rule, AlertLevel::Warning, false),
        ],
    );
}

#[test]
fn a_rank_that_keeps_the_others_waiting_is_named() {
    let slow: &[(&str, f64)] = &[("ranks/slowest", 3.0), ("ranks/slowdown", 1.3)];
    let other: &[(&str, f64)] = &[("ranks/slowest", 2.0), ("ranks/slowdown", 1.3)];
    let little: &[(&str, f64)] = &[("ranks/slowest", 3.0), ("ranks/slowdown", 1.2)];
    expect(&run(&[], &[slow; 4]), &[]);
    expect(
        &run(&[], &[slow, slow, slow, slow, slow, slow, little]),
        &[
            (5, "slow_rank", AlertLevel::Warning, false),
            (7, "slow_rank", AlertLevel::Warning, true),
        ],
    );
    expect(&run(&[], &[slow, slow, other, slow, slow, slow, slow]), &[]);
    let imbalanced: &[(&str, f64)] = &[("ranks/imbalance", 2.0)];
    let even: &[(&str, f64)] = &[("ranks/imbalance", 1.0)];
    expect(
        &run(
            &[],
            &[
                imbalanced, imbalanced, imbalanced, imbalanced, imbalanced, even, even, even,
            ],
        ),
        &[
            (5, "rank_imbalance", AlertLevel::Warning, false),
            (8, "rank_imbalance", AlertLevel::Warning, true),
        ],
    );
    // A step without tokens says nothing.
    expect(
        &run(
            &[],
            &[
                imbalanced,
                imbalanced,
                imbalanced,
                imbalanced,
                &[],
                imbalanced,
            ],
        ),
        &[],
    );
}

/// Training completions show drift without evals; prompts differ between windows, so a loss within
/// both intervals is none.
#[test]
fn training_completions_show_drift_without_evals() {
    let early: &[(&str, f64)] = &[("tiers/valid", 0.6), ("exact", 0.5)];
    let later: &[(&str, f64)] = &[("tiers/valid", 0.9), ("exact", 0.1)];
    expect(
        &run(&[], &[[early; 5], [later; 5]].concat()),
        &[(9, "value_drift", AlertLevel::Warning, false)],
    );
    let less: &[(&str, f64)] = &[("tiers/valid", 0.9), ("exact", 0.4)];
    expect(&run(&[], &[[early; 5], [less; 5]].concat()), &[]);
    let both: &[(&str, f64)] = &[("tiers/valid", 0.9), ("exact", 0.6)];
    expect(&run(&[], &[[early; 5], [both; 5]].concat()), &[]);
    let unknown: &[(&str, f64)] = &[("tiers/valid", 0.9)];
    expect(&run(&[], &[[early; 5], [unknown; 5]].concat()), &[]);
}

fn eval(step: u64, valid: f64, exact: f64) -> Eval {
    let summary = crate::run::EvalSummary {
        n: 100,
        valid,
        exact: Some(exact),
        with_expected: 100,
        ..Default::default()
    };
    let target = if step == 0 {
        Target::Base
    } else {
        Target::Trained
    };
    Eval {
        step,
        set: "eval".into(),
        target,
        summary,
        ..Eval::default()
    }
}

/// A comparison with as few changed prompts of 100 as possible.
fn paired(best: f64, exact: f64) -> Box<Comparison> {
    let change = ((exact - best) * 100.0).round();
    let (fixed, broken) = (change.max(0.0) as usize, (-change).max(0.0) as usize);
    Box::new(Comparison {
        fixed,
        broken,
        both: 100 - fixed - broken,
        mcnemar_p: mcnemar_exact(fixed, broken),
        ..Comparison::default()
    })
}

/// Alerts of a run with an eval after each step; `(valid, exact)` of the base and of each eval.
fn evaluated(evals: &[(f64, f64)]) -> Vec<(u64, String, bool)> {
    let config = config(&["eval_every=1"]);
    let mut state = RunState::default();
    let mut alerts = Alerts::default();
    let mut found = Vec::new();
    for (step, &(valid, exact)) in (0..).zip(evals) {
        let mut now = Vec::new();
        if step > 0 {
            let metrics = Metrics::from([
                ("exact".to_owned(), exact),
                (
                    "groups/frac_all_best".to_owned(),
                    f64::from(u8::from(valid >= 1.0)),
                ),
            ]);
            now.extend(alerts.observe(step, &metrics, &config));
            let body = step_event(step, metrics);
            state.fold(crate::run::Event {
                seq: 2 * step,
                time_ms: 0,
                body,
            });
        }
        let first = evals.iter().take(step as usize).map(|(_, exact)| *exact);
        let eval = Eval {
            exact_against_best: first.reduce(f64::max).map(|best| paired(best, exact)),
            ..eval(step, valid, exact)
        };
        now.extend(alerts.observe_eval(&eval, &config));
        state.fold(crate::run::Event {
            seq: 2 * step + 1,
            time_ms: 0,
            body: eval.into(),
        });
        found.extend(now.into_iter().map(|alert| {
            (
                alert.step,
                format!("{}: {}", alert.rule, alert.sentence),
                alert.cleared,
            )
        }));
        let resumed = Alerts::resumed(TaskFacts::default(), &state, step, &config);
        assert_eq!(resumed.active, alerts.active, "after step {step}");
        let reported = |alerts: &Alerts| alerts.evidence.evals.reported.map(|level| level.exact);
        assert_eq!(reported(&resumed), reported(&alerts), "after step {step}");
    }
    found
}

#[test]
fn drift_stands_until_exact_match_is_back() {
    // (evals, steps at which value_drift is raised and cleared).
    let check = |evals: &[(f64, f64)], expected: &[(u64, bool)]| {
        let found = evaluated(evals);
        let drift: Vec<_> = found
            .iter()
            .filter(|(_, text, _)| text.starts_with("value_drift"))
            .collect();
        assert_eq!(
            drift
                .iter()
                .map(|(step, _, cleared)| (*step, *cleared))
                .collect::<Vec<_>>(),
            expected,
            "{found:?}"
        );
    };
    // Against the best so far, not the last window: it is not cleared at a plateau, at the bottom,
    // or when validity falls too.
    check(
        &[
            (0.92, 0.90),
            (0.95, 0.71),
            (0.99, 0.51),
            (1.0, 0.07),
            (1.0, 0.03),
            (1.0, 0.03),
            (0.4, 0.03),
        ],
        // Reported again for each further ten points.
        &[(1, false), (2, false), (3, false)],
    );
    check(
        &[(0.6, 0.5), (0.8, 0.7), (0.9, 0.4), (0.9, 0.68)],
        &[(2, false), (3, true)],
    );
    // No longer significantly lower is not recovered.
    check(
        &[
            (0.6, 0.6),
            (0.9, 0.4),
            (0.9, 0.52),
            (0.9, 0.56),
            (0.9, 0.59),
        ],
        &[(1, false), (4, true)],
    );
    // It may drift again after a recovery.
    check(
        &[(0.6, 0.6), (0.9, 0.4), (0.9, 0.6), (0.9, 0.4)],
        &[(1, false), (2, true), (3, false)],
    );
    // Slowly, a little each time.
    let slow: Vec<(f64, f64)> = (0..20)
        .map(|step| (0.95, 0.9 - 0.01 * f64::from(step)))
        .collect();
    check(&slow, &[(6, false), (16, false)]);
    // Within the interval of 100 prompts.
    check(&[(0.92, 0.90), (0.95, 0.86), (0.95, 0.85)], &[]);
    // Validity and values fall together: a collapse, not drift.
    check(&[(0.92, 0.90), (0.5, 0.48), (0.1, 0.1)], &[]);
    check(&[(0.6, 0.5), (0.9, 0.8), (1.0, 1.0)], &[]);
}

#[test]
fn nothing_is_left_to_learn_only_where_values_are_right() {
    let rules = |evals: &[(f64, f64)]| {
        evaluated(evals)
            .into_iter()
            .filter(|(_, text, _)| text.starts_with("all_best"))
            .collect::<Vec<_>>()
    };
    let wrong = rules(&[(0.9, 0.9), (1.0, 0.1), (1.0, 0.03), (1.0, 0.03)]);
    assert!(
        matches!(&wrong[..], [(3, text, false)] if text.contains("only 3%") && !text.contains("nothing left")),
        "{wrong:?}"
    );
    let right = rules(&[(0.9, 0.9), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]);
    assert!(
        matches!(&right[..], [(3, text, false)] if text.contains("nothing left to learn")),
        "{right:?}"
    );
}

#[test]
fn sampling_that_an_agent_asks_for_in_vain_is_named() {
    let other: &[(&str, f64)] = &[("agent/frac_ignored", 0.5)];
    let none: &[(&str, f64)] = &[("agent/frac_ignored", 0.0)];
    expect(
        &run(&[], &[other, other, none]),
        &[
            (1, "agent_sampling", AlertLevel::Info, false),
            (3, "agent_sampling", AlertLevel::Info, true),
        ],
    );
    expect(&run(&[], &[none, &[]]), &[]);
}

#[test]
fn constraints_without_effect_and_failing_agents_are_named() {
    let step: &[(&str, f64)] = &[
        ("agent/frac_unconstrained", 0.5),
        ("ends/agent_error", 0.95),
    ];
    let fine: &[(&str, f64)] = &[("agent/frac_unconstrained", 0.0), ("ends/agent_error", 0.9)];
    expect(
        &run(&[], &[step, step, fine]),
        &[
            (1, "agent_constraints", AlertLevel::Info, false),
            (1, "agent_errors", AlertLevel::Warning, false),
            (3, "agent_constraints", AlertLevel::Info, true),
            (3, "agent_errors", AlertLevel::Warning, true),
        ],
    );
}

/// One prompt of 30 is within the interval, whether pairs are known or not.
#[test]
fn one_prompt_is_no_drift() {
    let small = |step, valid, exact, changed: Option<(usize, usize)>| {
        let eval = eval(step, valid, exact);
        let paired = |(fixed, broken)| {
            Box::new(Comparison {
                fixed,
                broken,
                mcnemar_p: mcnemar_exact(fixed, broken),
                ..Comparison::default()
            })
        };
        Eval {
            summary: crate::run::EvalSummary {
                n: 30,
                with_expected: 30,
                ..eval.summary
            },
            exact_against_best: changed.map(paired),
            ..eval
        }
    };
    let raised = |exact, changed| {
        let (config, mut alerts) = (config(&["eval_every=1"]), Alerts::default());
        alerts.observe_eval(&small(0, 1.0, 1.0, None), &config);
        let found = alerts.observe_eval(&small(1, 1.0, exact, changed), &config);
        found.iter().any(|alert| alert.rule.name == "value_drift")
    };
    for (exact, changed, expected) in [
        (29.0 / 30.0, Some((0, 1)), false),
        (29.0 / 30.0, None, false),
        (25.0 / 30.0, Some((0, 5)), false),
        (24.0 / 30.0, Some((0, 6)), true),
        (26.0 / 30.0, None, false),
        (15.0 / 30.0, None, true),
    ] {
        assert_eq!(raised(exact, changed), expected, "{exact} {changed:?}");
    }
}

#[test]
fn a_policy_that_loses_nearly_all_of_a_rate_has_diverged() {
    let good: &[(&str, f64)] = &[
        ("tiers/unparsable", 0.17),
        ("tiers/valid", 0.1),
        ("reward", 0.27),
    ];
    let lost: &[(&str, f64)] = &[
        ("tiers/unparsable", 1.0),
        ("tiers/valid", 0.0),
        ("reward", 0.0),
    ];
    let little: &[(&str, f64)] = &[
        ("tiers/unparsable", 0.95),
        ("tiers/valid", 0.0),
        ("reward", 0.02),
    ];
    let half: &[(&str, f64)] = &[
        ("tiers/unparsable", 0.6),
        ("tiers/valid", 0.0),
        ("reward", 0.2),
    ];
    let invalid: &[(&str, f64)] = &[
        ("tiers/unparsable", 0.17),
        ("tiers/valid", 0.0),
        ("reward", 0.2),
    ];
    let valid: &[(&str, f64)] = &[
        ("tiers/unparsable", 0.0),
        ("tiers/valid", 0.9),
        ("reward", 0.9),
    ];
    let set = ["prompt_groups_per_step=8"];
    let check = |steps: &[&[(&str, f64)]], expected: &[(u64, bool)]| {
        let found = run(&set, steps);
        let of_rule = found.iter().filter(|(_, rule, _, _)| rule == "diverged");
        let found: Vec<_> = of_rule
            .map(|(step, _, _, cleared)| (*step, *cleared))
            .collect();
        assert_eq!(found, expected, "{steps:?}");
    };
    check(&[[good; 5], [lost; 5]].concat(), &[(10, false)]);
    // After a single step.
    check(&[&[good][..], &[lost; 5]].concat(), &[(6, false)]);
    check(&[[valid; 5], [invalid; 5]].concat(), &[(10, false)]);
    check(
        &[&[good; 5][..], &[little; 6], &[good; 5]].concat(),
        &[(10, false), (14, true)],
    );
    check(&[[good; 5], [half; 5]].concat(), &[]);
    // Few valid answers of few prompts prove nothing, nor does a policy without success yet.
    check(&[[good; 5], [invalid; 5]].concat(), &[]);
    check(&[lost; 10], &[]);
}

/// Advice omits what task or configuration already do.
#[test]
fn advice_reads_task_and_configuration() {
    let task = |rewards: &str, score: &str| {
        let folder = tempfile::tempdir().unwrap();
        let schema = if score.contains("json_schema") {
            "schema = \"schema.json\"\n"
        } else {
            ""
        };
        std::fs::write(
            folder.path().join("task.toml"),
            format!(
                "name = \"t\"\n{schema}[prompts]\ntrain = \"train.jsonl\"\n[score]\n{score}\n{rewards}\n"
            ),
        )
        .unwrap();
        let row = r#"{"id": "a", "prompt": "x", "expected": {"n": 1}}"#;
        std::fs::write(folder.path().join("train.jsonl"), row).unwrap();
        std::fs::write(
            folder.path().join("schema.json"),
            r#"{"type": "object", "properties": {"n": {"type": "integer"}}}"#,
        )
        .unwrap();
        TaskFacts::new(&crate::score::Task::load(folder.path()).unwrap(), 1.0)
    };
    let json = "kind = \"json_schema\"";
    for (rewards, score, advice) in [
        (
            "",
            json,
            "Give values a weight: [[reward]] part = \"fields\", or",
        ),
        (
            "",
            "kind = \"text\"",
            "Give values a weight: [[reward]] part = \"exact\", or",
        ),
        (
            "[[reward]]\npart = \"fields\"\nweight = 0.5",
            json,
            "Raise the weight of [[reward]] \"fields\" (now 0.5), or",
        ),
    ] {
        let found = task(rewards, score).value_drift();
        assert!(found.starts_with(advice), "{found}");
    }
    let graded = task("", &format!("{json}\ngraded = true"));
    assert!(!graded.all_worst().contains("graded"));
    let default = config(&[]);
    assert!(!graded.collapsed(&default).contains("on_collapse"));
    let continues = config(&["on_collapse=continue", "guided=false"]);
    assert!(
        graded
            .collapsed(&continues)
            .starts_with("Set guided = true or on_collapse = \"recover\"; ")
    );
    assert!(advice::diverged(&continues).contains("--model RUN@STEP"));
}
