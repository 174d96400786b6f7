//! What a run achieved: valid answers that cost exact ones are never a success, wherever the run is shown.

use grpo_tui::config::BestBy;
use grpo_tui::report::{Level, Report, RunOutcome};
use grpo_tui::run::events::{End, Eval};
use grpo_tui::run::{
    AgainstBase, EvalRecord, EvalSummary, Event, EventBody, EventWriter, RunLock, RunState,
    StateWriter, Status,
};

use super::created;
use grpo_tui::facts::{Target, Tier};

/// 100 answers, of which the first are valid, and of these the first exact.
fn records(valid: usize, exact: usize) -> Vec<EvalRecord> {
    let record = |index: usize| EvalRecord {
        prompt_id: format!("p{index}"),
        tier: if index < valid {
            Tier::Valid
        } else {
            Tier::Invalid
        },
        exact: Some(index < exact),
        ..EvalRecord::default()
    };
    (0..100).map(record).collect()
}

fn eval(step: u64, set: &str, base: &[EvalRecord], records: &[EvalRecord]) -> Eval {
    let target = if step == 0 {
        Target::Base
    } else {
        Target::Trained
    };
    let against_base = AgainstBase::between(base, records)
        .filter(|_| step > 0)
        .map(Box::new);
    let summary = EvalSummary::from_records(records);
    Eval {
        step,
        set: set.into(),
        target,
        summary,
        against_base,
        ..Eval::default()
    }
}

/// A run with an eval of the base, 60 valid and 60 exact, and one every five steps: (valid, exact).
fn history(evals: &[(usize, usize)]) -> RunState {
    let base = records(60, 60);
    let mut history = RunState::default();
    for (index, (valid, exact)) in std::iter::once(&(60, 60)).chain(evals).enumerate() {
        let body = eval(5 * index as u64, "eval", &base, &records(*valid, *exact)).into();
        history.fold(Event {
            seq: index as u64 + 1,
            time_ms: 0,
            body,
        });
    }
    history
}

fn ended(mut history: RunState) -> RunState {
    history.fold(Event {
        seq: 100,
        time_ms: 0,
        body: EventBody::from(End::default()),
    });
    history
}

#[test]
fn a_checkpoint_that_lost_exact_match_is_not_the_best_unless_asked_for() {
    let drifting = history(&[(80, 58), (90, 20), (100, 3)]);
    let best = |steps: &[u64], by| drifting.best_step_by(steps, by);
    let all = [0, 5, 10, 15];
    let by = [BestBy::ValidIfExactHolds, BestBy::Valid, BestBy::Exact];
    assert_eq!(by.map(|by| best(&all, by)), [Some(5), Some(15), Some(0)]);
    assert_eq!(
        best(&[0, 10, 15], BestBy::ValidIfExactHolds),
        Some(0),
        "the base holds"
    );
    assert_eq!(
        best(&[10, 15], BestBy::ValidIfExactHolds),
        Some(15),
        "where none holds, the rates decide"
    );
    assert_eq!(best(&[], BestBy::ValidIfExactHolds), None);
    // Without comparisons the intervals of exact match decide.
    let mut unknown = drifting.clone();
    unknown
        .evals
        .values_mut()
        .for_each(|eval| eval.against_base = None);
    assert_eq!(
        unknown.best_step_by(&all, BestBy::ValidIfExactHolds),
        Some(5)
    );
    // Valid with wrong values is not better than right values, whatever the base was.
    let learning = history(&[(100, 60), (90, 70), (95, 85)]);
    assert_eq!(
        by.map(|by| learning.best_step_by(&all, by)),
        [Some(15), Some(5), Some(15)]
    );
}

/// Of equal rates the latest step, but the base rather than one that is no better.
#[test]
fn more_training_breaks_ties_between_trained_checkpoints() {
    let best = |evals: &[(usize, usize)]| {
        history(evals).best_step_by(&[0, 5, 10, 15], BestBy::ValidIfExactHolds)
    };
    assert_eq!(best(&[(90, 70), (100, 80), (100, 80)]), Some(15));
    assert_eq!(best(&[(100, 90), (100, 80), (100, 80)]), Some(5));
    assert_eq!(best(&[(60, 60), (60, 60), (60, 60)]), Some(0));
    // What a finished run has evaluated on the test set stays its best.
    let mut finished = history(&[(90, 70), (100, 80), (100, 80)]);
    let tested = eval(10, "test", &records(60, 60), &records(100, 80));
    finished.fold(Event {
        seq: 50,
        time_ms: 0,
        body: tested.into(),
    });
    assert_eq!(
        finished.best_step_by(&[0, 5, 10, 15], BestBy::ValidIfExactHolds),
        Some(10)
    );
}

#[test]
fn valid_without_exact_is_never_good() {
    // (evals, best, label, level).
    let check = |evals: &[(usize, usize)], best, label, level| {
        let outcome = RunOutcome::from_history(&ended(history(evals)), Some(best));
        assert_eq!(
            (&*outcome.label(), outcome.level()),
            (label, level),
            "{evals:?}: {}",
            outcome.sentence()
        );
        outcome
    };
    check(&[(90, 90)], 5, "valid and exact above base", Level::Good);
    check(&[(90, 60)], 5, "valid above base", Level::Good);
    check(&[(61, 60)], 5, "no difference", Level::Info);
    check(&[(40, 40)], 5, "valid and exact below base", Level::Warning);
    let fell = check(&[(50, 45)], 0, "valid and exact below base", Level::Warning);
    let compared = fell
        .compared()
        .map(|compared| (compared.set.clone(), compared.step));
    assert_eq!(
        compared,
        Some(("eval".into(), 5)),
        "what training did, not the base against itself"
    );
    check(&[(60, 45)], 0, "exact below base", Level::Warning);
    check(
        &[(90, 90), (0, 0)],
        5,
        "valid and exact below base",
        Level::Warning,
    );
    check(&[(61, 60)], 0, "base is best", Level::Info);
    let drifted = check(&[(100, 3)], 5, "exact below base", Level::Warning);
    let sentence = "valid 60.0% to 100.0%, exact 60.0% to 3.0% on the eval set (step 5): valid: +40.0 points (95% CI [+29.4, +49.1], p = 1.8e-12), \
                    exact: -57.0 points (95% CI [-65.9, -45.9], p = 1.4e-17)";
    assert_eq!(drifted.sentence(), sentence);
    // The best checkpoint is fine, the end is not.
    let late = check(&[(90, 60), (100, 3)], 5, "exact below base", Level::Warning);
    assert!(
        late.sentence().ends_with("; the run ends with exact below the base: valid 60.0% to 100.0%, exact 60.0% to 3.0% on the eval set (step 10)"),
        "{}",
        late.sentence()
    );
    let collapsed = RunOutcome::from_history(&ended(history(&[(0, 0)])), Some(0));
    assert_eq!(
        collapsed.sentence(),
        "the best checkpoint is the base: no later one was better; the run ends with valid and exact below the base: valid 60.0% to 0.0%, \
         exact 60.0% to 0.0% on the eval set (step 5)"
    );
    assert_eq!(
        check(&[], 0, "not compared", Level::Info).sentence(),
        "not compared with the base"
    );
    // Without expected answers nothing is known about the values.
    let mut unknown = ended(history(&[(100, 3)]));
    for eval in unknown.evals.values_mut() {
        eval.summary.exact = None;
        eval.against_base
            .iter_mut()
            .for_each(|against| against.exact = None);
    }
    let outcome = RunOutcome::from_history(&unknown, Some(5));
    assert_eq!(
        (&*outcome.label(), outcome.level()),
        ("valid above base", Level::Info)
    );
    assert!(
        outcome.sentence().ends_with(", p = 1.8e-12), exact n/a"),
        "{}",
        outcome.sentence()
    );
}

#[test]
fn a_resumed_run_does_not_say_why_the_worker_before_ended() {
    let (_folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let cause = "stopped after step 3, at your request";
    let end = End {
        status: Status::Interrupted,
        cause: cause.into(),
        step: 3,
        seconds: 1.0,
    };
    EventWriter::open(&lock).unwrap().append(end).unwrap();
    let mut state = StateWriter::start(&lock).unwrap();
    let told = || Report::read(run.clone()).unwrap().cause();
    assert_eq!(told(), None, "it is starting");
    state.status(Status::Interrupted, 3, None).unwrap();
    assert_eq!(told().as_deref(), Some(cause));
}
