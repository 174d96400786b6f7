//! What a run's files say of its result: never the base as the trained model, never a metric of an earlier step as the
//! last one's.

use std::collections::BTreeMap;

use grpo_tui::report::{Report, base_and_trained, html, list_evals, result_on};
use grpo_tui::run::events::{Eval, Run, Step};
use grpo_tui::run::{EvalSummary, EventWriter, RunDirectory, RunLock, eval_file};

use super::command::runs_command;
use super::finished::{Made, made};
use super::{create, memory_folder};
use grpo_tui::facts::Target;

#[test]
fn a_run_that_never_did_better_than_its_base_has_the_base_as_its_result() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let worse = made(
        &root,
        &Made {
            valid: 0.1,
            ..Made::default()
        },
    );
    let better = made(
        &root,
        &Made {
            valid: 0.9,
            ..Made::default()
        },
    );
    let result = |run: &RunDirectory| {
        let report = Report::read(run.clone()).unwrap();
        let result = report.result_of("").unwrap();
        (
            result.step,
            result.who(),
            (100.0 * result.summary.valid).round(),
        )
    };
    assert_eq!(
        (result(&better), result(&worse)),
        ((40, Target::Trained, 90.0), (0, Target::Base, 30.0))
    );
    let names = |run: &RunDirectory| {
        base_and_trained(run.path())
            .unwrap()
            .iter()
            .map(|eval| eval.name(false))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&better), names(&worse)),
        (
            vec!["base".to_owned(), "step 40".to_owned()],
            vec!["base".to_owned(), "step 40".to_owned()]
        )
    );
    // What training did: on the eval set, since the base was the best. Against other runs the base stands for it.
    let set_of = |run: &RunDirectory| base_and_trained(run.path()).unwrap()[1].set.clone();
    assert_eq!(
        (set_of(&better), set_of(&worse)),
        ("test".into(), "eval".into())
    );
    assert_eq!(
        result_on(worse.path(), &["test".into(), "eval".into()])
            .unwrap()
            .name(false),
        "base"
    );
    let (_, listed, _) = runs_command(&root, &["list", "--columns", "id,valid,of"]);
    let of = |run: &RunDirectory| {
        listed
            .lines()
            .find(|line| line.contains(run.id()))
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert!(
        of(&worse).ends_with("30.0%  base") && of(&better).ends_with("90.0%  test@40"),
        "{listed}"
    );

    let page = html(&Report::read(worse.clone()).unwrap()).unwrap().text;
    assert!(
        page.contains("best checkpoint: step 0 (the base)")
            && !page.contains("<th class=\"right\">trained"),
        "{page}"
    );
    let (_, shown, _) = runs_command(&root, &["show", worse.id(), "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (
            shown["best"].as_u64(),
            shown["valid_set"].as_str(),
            shown["valid"].as_f64()
        ),
        (Some(0), Some("test"), Some(0.3))
    );
    let (_, compared, _) = runs_command(&root, &["compare", worse.id(), better.id()]);
    assert!(
        compared.contains("30 improvements, 0 regressions in 50 prompts"),
        "base against trained: {compared}"
    );

    // An older version read the proof set with the weights of step 0 as the trained model's.
    std::fs::copy(
        worse.path().join(eval_file(0, "test", "base")),
        worse.path().join(eval_file(0, "test", "trained")),
    )
    .unwrap();
    let lock = RunLock::acquire(worse.path()).unwrap();
    let mut writer = EventWriter::open(&lock).unwrap();
    let summary = EvalSummary {
        n: 50,
        valid: 0.3,
        ..EvalSummary::default()
    };
    writer
        .append(Eval {
            step: 0,
            set: "test".into(),
            target: Target::Trained,
            summary,
            ..Eval::default()
        })
        .unwrap();
    drop((writer, lock));
    assert!(
        list_evals(worse.path())
            .unwrap()
            .iter()
            .all(|eval| eval.step > 0 || eval.target == "base")
    );
    assert_eq!(result(&worse), (0, Target::Base, 30.0));
    let (_, shown, _) = runs_command(&root, &["show", worse.id()]);
    assert!(
        shown
            .lines()
            .all(|line| !line.trim_start().starts_with("0 ") || !line.contains("trained")),
        "{shown}"
    );
}

/// A kind of failure that did not occur at the last step is 0 there, and what was not measured there is not known.
#[test]
fn no_metric_keeps_the_value_of_an_earlier_step() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = create(folder.path());
    let other = create(folder.path());
    for (run, steps) in [(&run, 2), (&other, 1)] {
        let lock = RunLock::acquire(run.path()).unwrap();
        let mut writer = EventWriter::open(&lock).unwrap();
        writer
            .append(Run {
                id: run.id().into(),
                total_steps: 2,
                ..Run::default()
            })
            .unwrap();
        let first = [
            ("tiers/valid", 0.9),
            ("failures/prose", 0.015625),
            ("grad_norm", 0.5),
        ];
        let second = [("tiers/valid", 1.0)];
        for (step, metrics) in [first.as_slice(), &second]
            .into_iter()
            .enumerate()
            .take(steps)
        {
            let metrics: BTreeMap<String, f64> = metrics
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect();
            writer
                .append(Step {
                    step: step as u64 + 1,
                    seconds: 0.5,
                    metrics,
                    ..Step::default()
                })
                .unwrap();
        }
    }
    let report = Report::read(run.clone()).unwrap();
    let metrics = ["tiers/valid", "failures/prose", "grad_norm", "unheard_of"];
    assert_eq!(
        metrics.map(|name| report.metric(name, false)),
        [Some(1.0), Some(0.0), None, None]
    );
    let smoothed = report.metric("failures/prose", true).unwrap();
    assert!(0.0 < smoothed && smoothed < 0.015625, "{smoothed}");
    assert_eq!(report.metric("grad_norm", true), None);

    let words = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.contains(name))
            .unwrap_or_else(|| panic!("{name}: {text}"))
            .to_owned();
        line.split(name)
            .nth(1)
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (_, shown, _) = runs_command(&root, &["show", run.id()]);
    assert_eq!(
        (
            words(&shown, "failures/prose").join(" "),
            words(&shown, "grad_norm").join(" ")
        ),
        ("0".to_owned(), "n/a (not measured at this step)".to_owned())
    );
    let (_, shown, _) = runs_command(&root, &["show", run.id(), "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (
            &shown["metrics"]["failures/prose"],
            &shown["metrics"]["grad_norm"]
        ),
        (&0.0.into(), &serde_json::Value::Null)
    );
    let (_, compared, _) = runs_command(&root, &["compare", run.id(), other.id()]);
    assert_eq!(
        (
            words(&compared, "failures/prose").join(" "),
            words(&compared, "grad_norm").join(" ")
        ),
        ("0 0.0156".to_owned(), "n/a (not measured) 0.5".to_owned())
    );
    let (_, csv, _) = runs_command(&root, &["export", run.id(), "--csv"]);
    assert_eq!(
        csv,
        "step,failures/prose,grad_norm,seconds,tiers/valid\n1,0.015625,0.5,0.5,0.9\n2,0,,0.5,1\n"
    );
    // A condition on what is not known holds for no run, and the name is known.
    let (code, listed, _) = runs_command(&root, &["list", "--where", "grad_norm>0"]);
    assert!(
        code == 0 && listed.contains(other.id()) && !listed.contains(run.id()),
        "{code} {listed}"
    );
    let (_, listed, _) = runs_command(&root, &["list", "--where", "failures/prose=0"]);
    assert!(
        listed.contains(run.id()) && !listed.contains(other.id()),
        "{listed}"
    );
}
