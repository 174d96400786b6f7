//! What is asked between two steps: samples disturb nothing, what was set comes back after a kill, a stop at once is
//! quick, and no promise is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grpo_tui::facts::PhaseKind;
use grpo_tui::run::SampledCompletion;
use grpo_tui::run::{
    EventBody, EventReader, RequestOutcome, RequestQueue, RunDirectory, RunError, RunState, State,
    Status, Verb, ask, list_checkpoints, read_evals,
};
use grpo_tui::train::Ended;
use serde_json::{Value, json};

use super::small_task::{create, fingerprint, whole, work, work_asked};
use crate::program::until;

const LONG: Duration = Duration::from_secs(300);

fn never(_: &EventBody) -> bool {
    false
}

type Answers = Arc<Mutex<Vec<(Result<RequestOutcome, RunError>, Vec<SampledCompletion>)>>>;

/// Requests that are accepted and not yet in the log.
fn accepted(run: &RunDirectory) -> usize {
    let names = std::fs::read_dir(run.path().join("control"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".accepted.json"))
        .count()
}

/// Ask after `step` in a thread of its own, as others would, and return once the question waits for the loop.
fn ask_meanwhile(
    run: &RunDirectory,
    (controls, step): (&RequestQueue, u64),
    verb: Verb,
    answers: &Answers,
) -> std::thread::JoinHandle<()> {
    let before = accepted(run);
    let (path, answers): (PathBuf, _) = (run.path().to_owned(), Arc::clone(answers));
    let thread = std::thread::spawn(move || {
        let mut parts = Vec::new();
        let answered = ask(&path, &verb, LONG, &mut |part| {
            parts.push(serde_json::from_value(part).unwrap())
        });
        answers.lock().unwrap().push((answered, parts));
    });
    until("the question is accepted", || {
        assert!(!thread.is_finished(), "the question was not accepted");
        // As the loop asks before a step: what has its file is in the queue by then.
        accepted(run) > before && !controls.compute_until(step)
    });
    thread
}

/// A run that is asked the same after steps 2 and 4; its answers, in order.
fn answers_to(
    run: &RunDirectory,
    question: &Value,
) -> Vec<(Result<RequestOutcome, RunError>, Vec<SampledCompletion>)> {
    answers_to_verb(
        run,
        &Verb::parse("sample", question.as_object().unwrap()).unwrap(),
    )
}

fn answers_to_verb(
    run: &RunDirectory,
    verb: &Verb,
) -> Vec<(Result<RequestOutcome, RunError>, Vec<SampledCompletion>)> {
    let answers = Answers::default();
    let mut threads = Vec::new();
    let ended = work_asked(run, |event, controls| {
        if let EventBody::Step(step) = event
            && [2, 4].contains(&step.step)
        {
            threads.push(ask_meanwhile(
                run,
                (controls, step.step),
                verb.clone(),
                &answers,
            ));
        }
    });
    assert!(matches!(ended.unwrap(), Ended::Finished(_)));
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    Arc::try_unwrap(answers).unwrap().into_inner().unwrap()
}

#[test]
fn an_eval_that_was_asked_for_answers_with_both_rates() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &["max_steps=5"]);
    let answers = answers_to_verb(&run, &Verb::Eval);
    assert_eq!(answers.len(), 2);
    for ((answered, _), step) in answers.into_iter().zip([2, 4]) {
        let RequestOutcome { text, result, .. } = answered.unwrap();
        let percent = |metric: &str| {
            format!(
                "{:.1}%",
                100.0 * result["summary"][metric].as_f64().unwrap()
            )
        };
        let (valid, exact, n) = (percent("valid"), percent("exact"), &result["summary"]["n"]);
        assert_eq!(
            text,
            format!("step {step} eval: valid {valid}, exact {exact} (n = {n})")
        );
        assert!(result["against_base"]["valid"].is_object(), "{result}");
    }
}

#[test]
fn samples_of_a_live_run_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let set = ["lora_rank=4", "learning_rate=1e-3", "kl_beta=0.01"];
    let run = create(folder.path(), &set);
    let question =
        json!({"row": "eval-001", "n": 3, "temperature": 1, "seed": 5, "confidence": true});
    let answers = answers_to(&run, &question);
    assert!(
        fingerprint(&run) == fingerprint(&whole(&set)),
        "a question has changed the run"
    );
    assert_eq!(answers.len(), 2);
    for (answered, completions) in &answers {
        let answered = answered.as_ref().unwrap();
        assert!(answered.done && completions.len() == 3, "{answered:?}");
        for (index, completion) in completions.iter().enumerate() {
            assert_eq!(
                (
                    completion.sample,
                    completion.prompt_id.as_str(),
                    completion.target.name()
                ),
                (index, "eval-001", "trained")
            );
            assert!(
                !completion.token_ids.is_empty()
                    && completion.token_ids.len() == completion.log_probs.len()
            );
            assert!(completion.log_probs.iter().all(|log_prob| *log_prob <= 0.0));
            let known = completion.confidence.as_ref().unwrap();
            assert!(
                known.unknown.is_some() || known.least().is_some(),
                "{known:?}"
            );
            assert!(
                completion.score["reward"].is_number()
                    && completion.score["tier"].is_string()
                    && completion.score["errors"].is_array()
            );
        }
    }
    assert_eq!(
        answers
            .iter()
            .map(|(_, completions)| completions[0].step.unwrap())
            .collect::<Vec<_>>(),
        [2, 4]
    );
    // The weights have moved in between, and with them what they write.
    assert_ne!(answers[0].1[0].log_probs, answers[1].1[0].log_probs);
    let controls = RunState::read(run.path()).unwrap().controls;
    assert_eq!(
        controls
            .iter()
            .map(|control| (control.verb.name(), control.step))
            .collect::<Vec<_>>(),
        [("sample", 3), ("sample", 5)]
    );
}

#[test]
fn the_base_answers_as_it_did_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(
        &folder.path().join("adapters"),
        &["lora_rank=4", "learning_rate=1e-3"],
    );
    let question = json!({"row": "eval-001", "n": 1, "temperature": 0, "target": "base"});
    let answers = answers_to(&run, &question);
    let base = read_evals(&run.path().join("evals/step-000000-eval-base.jsonl")).unwrap();
    let expected = &base
        .iter()
        .find(|record| record.prompt_id == "eval-001")
        .unwrap()
        .completion;
    for (_, completions) in &answers {
        assert_eq!(
            (&completions[0].text, completions[0].target.name()),
            (expected, "base")
        );
    }
    // All weights trained, no KL: the start is no longer in memory. With a KL, the frozen copy answers.
    let run = create(&folder.path().join("all"), &[]);
    for (answered, completions) in answers_to(&run, &question) {
        let refusal = answered.unwrap_err().to_string();
        assert!(
            refusal.contains("keeps no copy of the base in memory") && completions.is_empty(),
            "{refusal}"
        );
    }
    let run = create(&folder.path().join("copy"), &["kl_beta=0.01"]);
    for (_, completions) in answers_to(&run, &question) {
        assert_eq!(&completions[0].text, expected);
    }
}

#[test]
fn a_question_that_cannot_be_answered_is_the_askers_business() {
    let folder = tempfile::tempdir().unwrap();
    let check = |question: Value, expected: &str| {
        let run = create(folder.path(), &["max_steps=2", "eval_every=0"]);
        let refusal = answers_to(&run, &question)
            .remove(0)
            .0
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains(expected),
            "{question}: {refusal} lacks {expected:?}"
        );
    };
    check(json!({"row": "none-such"}), "no row `none-such` in ");
    check(
        json!({"row": {"messages": [{"role": "user", "content": "x ".repeat(3000)}]}}),
        "the request's row line 1",
    );
    check(
        json!({"row": "eval-001", "task": "/none/such"}),
        "/none/such",
    );
}

/// Everything that `set` can change, each at its step.
fn set_at(step: u64) -> Option<&'static str> {
    match step {
        1 => Some("learning_rate=5e-4"),
        2 => Some("temperature=0.8"),
        3 => Some("max_steps=8"),
        5 => Some("learning_rate=1e-4"),
        _ => None,
    }
}

fn setting(
    run: &RunDirectory,
    set: impl Fn(u64) -> Option<&'static str>,
    kill_after: Option<u64>,
) -> Option<Ended> {
    let work = || {
        work_asked(run, |event, _| {
            let EventBody::Step(step) = event else { return };
            if let Some(assignment) = set(step.step) {
                ask(
                    run.path(),
                    &Verb::set([assignment]).unwrap(),
                    LONG,
                    &mut |_| {},
                )
                .unwrap();
            }
            // Unwinding says no last word, like a kill.
            assert!(
                kill_after != Some(step.step),
                "killed, as the test wants it"
            );
        })
    };
    catch_unwind(AssertUnwindSafe(work))
        .ok()
        .map(Result::unwrap)
}

#[test]
fn what_was_set_comes_back_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    for (name, set, kills) in [
        (
            "adapters",
            &["lora_rank=4", "learning_rate=1e-3"][..],
            [1, 5],
        ),
        ("all", &[], [3, 7]),
    ] {
        let whole = create(&folder.path().join(format!("{name}-whole")), set);
        assert!(
            matches!(setting(&whole, set_at, None), Some(Ended::Finished(report)) if report.steps == 8)
        );
        let expected = fingerprint(&whole);
        for kill in kills {
            let run = create(&folder.path().join(format!("{name}-{kill}")), set);
            assert!(setting(&run, set_at, Some(kill)).is_none());
            // The kill came after the acceptance and before the loop had taken it; what was set later is set as in the
            // other run.
            let ended = setting(&run, |step| set_at(step).filter(|_| step > kill), None);
            assert!(
                matches!(ended, Some(Ended::Finished(ref report)) if report.steps == 8),
                "{name} {kill}: {ended:?}"
            );
            assert!(
                fingerprint(&run) == expected,
                "{name}: killed after step {kill}, the resumed run differs"
            );
            assert_eq!(
                RunState::read(run.path()).unwrap().run.unwrap().total_steps,
                8
            );
        }
    }
}

/// Before the first step, and after one: what is asked there holds from the next step on, also where nobody lived to
/// record it.
#[test]
fn what_was_set_while_a_held_out_set_is_read_holds_from_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    for at in [0, 3] {
        let set_at_eval = |run: &RunDirectory, kill: bool| {
            let mut set = false;
            let work = || {
                work_asked(run, |event, _| {
                    if !set
                        && matches!(event, EventBody::Phase(phase) if phase.phase == PhaseKind::Eval && phase.step == at)
                    {
                        set = true;
                        let answered = ask(
                            run.path(),
                            &Verb::set(["learning_rate=5e-4"]).unwrap(),
                            LONG,
                            &mut |_| {},
                        )
                        .unwrap();
                        assert_eq!(
                            answered.text,
                            format!("sets learning_rate = 0.0005 after step {at}")
                        );
                        assert!(!kill, "killed, as the test wants it");
                    }
                })
            };
            catch_unwind(AssertUnwindSafe(work))
                .ok()
                .map(Result::unwrap)
        };
        let whole = create(&folder.path().join(format!("{at}-whole")), &[]);
        assert!(matches!(
            set_at_eval(&whole, false),
            Some(Ended::Finished(_))
        ));
        let run = create(&folder.path().join(format!("{at}-killed")), &[]);
        assert!(set_at_eval(&run, true).is_none());
        assert!(matches!(work(&run, never).unwrap(), Ended::Finished(_)));
        assert!(fingerprint(&run) == fingerprint(&whole), "{at}");
        for run in [whole, run] {
            let controls = RunState::read(run.path()).unwrap().controls;
            assert_eq!(
                controls
                    .iter()
                    .map(|control| (control.verb.name(), control.step))
                    .collect::<Vec<_>>(),
                [("set", at + 1)]
            );
        }
    }
}

#[test]
fn an_end_that_was_moved_nearer_or_at_the_last_moment() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, at: u64, assignment: &'static str, steps: u64| {
        let set = |step: u64| (step == at).then_some(assignment);
        let whole = create(&folder.path().join(name), &["max_steps=4"]);
        assert!(
            matches!(setting(&whole, set, None), Some(Ended::Finished(ref report)) if report.steps == steps),
            "{name}"
        );
        let run = create(
            &folder.path().join(format!("{name}-killed")),
            &["max_steps=4"],
        );
        assert!(setting(&run, set, Some(at)).is_none());
        assert!(
            matches!(work(&run, never).unwrap(), Ended::Finished(ref report) if report.steps == steps),
            "{name}, resumed"
        );
        assert!(fingerprint(&run) == fingerprint(&whole), "{name}");
    };
    check("nearer", 2, "max_steps=3", 3);
    check("now", 3, "max_steps=3", 3);
    // Accepted while the last step was computed.
    check("later", 4, "max_steps=5", 5);
}

#[test]
fn a_stop_at_once_ends_the_phase_and_costs_what_came_after_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    // With a KL every group is forwarded, so there is an update to be stopped.
    let set = ["lora_rank=4", "learning_rate=1e-3", "kl_beta=0.01"];
    for (phase, at) in [("rollout", 2), ("update", 2), ("eval", 0), ("eval", 3)] {
        let run = create(&folder.path().join(format!("{phase}-{at}")), &set);
        let (mut is_asked, mut later) = (false, Vec::new());
        let ended = work_asked(&run, |event, _| {
            let EventBody::Phase(found) = event else {
                return;
            };
            if is_asked {
                later.push(found.clone());
            } else if found.phase.name() == phase && found.step == at {
                ask(run.path(), &Verb::Stop { now: true }, LONG, &mut |_| {}).unwrap();
                is_asked = true;
            }
        });
        assert!(is_asked && later.is_empty(), "{phase} {at}: then {later:?}");
        let checkpoints = list_checkpoints(run.path()).unwrap();
        let Ended::CutShort { resumes_from, .. } = ended.unwrap() else {
            panic!("{phase} {at}: it was not cut short")
        };
        assert_eq!(resumes_from, checkpoints.last().copied());
        let state = State::observe(run.path()).unwrap();
        assert!(
            state.status == Status::Interrupted
                && state
                    .cause
                    .clone()
                    .unwrap()
                    .starts_with("stopped now, at your request; resume "),
            "{state:?}"
        );
        let controls = RunState::read(run.path()).unwrap().controls;
        assert_eq!(
            controls
                .iter()
                .map(|control| control.verb.name())
                .collect::<Vec<_>>(),
            ["stop"]
        );
        assert!(matches!(work(&run, never).unwrap(), Ended::Finished(_)));
        assert!(
            fingerprint(&run) == fingerprint(&whole(&set)),
            "{phase} {at}"
        );
    }
}

/// Both requests are taken from the queue at once; the checkpoint is still to be saved when the run ends in the eval.
#[test]
fn what_was_taken_before_the_end_is_recorded_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &["max_steps=3", "eval_every=0"]);
    let (answers, mut threads) = (Answers::default(), Vec::new());
    let ended = work_asked(&run, |event, controls| match event {
        EventBody::Step(step) if step.step == 2 => {
            threads.push(ask_meanwhile(
                &run,
                (controls, 2),
                Verb::Eval,
                &Answers::default(),
            ));
            threads.push(ask_meanwhile(
                &run,
                (controls, 2),
                Verb::Checkpoint,
                &answers,
            ));
        }
        EventBody::Phase(phase) if (phase.phase, phase.step) == (PhaseKind::Eval, 2) => {
            ask(run.path(), &Verb::Stop { now: true }, LONG, &mut |_| {}).unwrap();
        }
        _ => {}
    });
    assert!(matches!(ended.unwrap(), Ended::CutShort { .. }));
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let refused = answers.lock().unwrap().remove(0).0.unwrap_err().to_string();
    assert_eq!(
        refused,
        "the run ended before it handled this request (recorded in the log)"
    );
    let state = RunState::read(run.path()).unwrap();
    let verbs: Vec<_> = state
        .controls
        .iter()
        .map(|control| (control.verb.name(), control.step))
        .collect();
    assert_eq!(verbs, [("eval", 3), ("checkpoint", 3), ("stop", 3)]);
    assert_eq!(accepted(&run), 0);
}

#[test]
fn what_was_accepted_is_recorded_once_whoever_dies() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &["max_steps=3"]);
    let died = catch_unwind(AssertUnwindSafe(|| {
        work_asked(&run, |event, _| {
            if matches!(event, EventBody::Step(step) if step.step == 2) {
                let remark = Verb::Annotate {
                    text: "before the end".to_owned(),
                };
                assert_eq!(
                    ask(run.path(), &remark, LONG, &mut |_| {}).unwrap().text,
                    "noted"
                );
                ask(run.path(), &Verb::Eval, Duration::ZERO, &mut |_| {}).unwrap();
                panic!("killed, as the test wants it");
            }
        })
    }));
    assert!(died.is_err());
    let files = || {
        std::fs::read_dir(run.path().join("control"))
            .unwrap()
            .count()
    };
    assert_eq!(files(), 2, "two accepted requests");
    assert!(matches!(work(&run, never).unwrap(), Ended::Finished(_)));
    assert_eq!(files(), 0);
    let events = EventReader::new(&run.events_path()).read().unwrap().events;
    let controls: Vec<_> = events
        .iter()
        .filter_map(|event| {
            if let EventBody::Control(control) = &event.body {
                Some(control)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(
        controls
            .iter()
            .map(|control| (control.verb.name(), control.step))
            .collect::<Vec<_>>(),
        [("annotate", 3), ("eval", 3)]
    );
    assert_eq!(
        RunState::read(run.path())
            .unwrap()
            .notes
            .iter()
            .filter(|(_, note)| note.text == "before the end")
            .count(),
        1
    );
}
