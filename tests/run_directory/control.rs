//! A live run can be asked by several at once, through files; what is malformed, hostile or out of range is refused in
//! words.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use grpo_tui::facts::VerbName;
use grpo_tui::run::{
    AcceptedRequest, Answer, EventBody, EventReader, EventWriter, Liveness, RequestOutcome,
    RequestQueue, RunDirectory, RunError, RunLock, RunState, State, Status, Stop, Verb, Worker,
    ask, settings,
};
use serde_json::{Value, json};

use super::{create, created, memory_folder};
use crate::program::{call, call_in_process, ended, names, requests, until};

const LONG: Duration = Duration::from_secs(20);

pub(super) fn begin(run: &RunDirectory) -> Worker {
    Worker::begin(run, Arc::default()).unwrap()
}

pub(super) fn ask_now(run: &RunDirectory, verb: &Verb) -> Result<RequestOutcome, RunError> {
    ask(run.path(), verb, LONG, &mut |_| {})
}

/// A loop that does whatever it is asked until it is to stop, and tells what that was.
fn serve(controls: RequestQueue) -> std::thread::JoinHandle<Vec<AcceptedRequest>> {
    std::thread::spawn(move || {
        let mut served = Vec::new();
        loop {
            for accepted in requests(&controls) {
                controls.recorded(&accepted);
                if let Verb::Sample(sample) = &accepted.verb {
                    (0..sample.n).for_each(|index| {
                        controls.answer(accepted.id, &Answer::part(json!({"text": index})))
                    });
                }
                controls.answer(accepted.id, &Answer::done("done", json!({"step": 3})));
                served.push(accepted);
            }
            if controls.stop_requested().is_some() {
                let last = controls.drain();
                last.iter().for_each(|accepted| controls.recorded(accepted));
                served.extend(last);
                return served;
            }
        }
    })
}

#[test]
fn several_clients_at_once() {
    let (_folder, run) = created();
    let worker = begin(&run);
    assert_eq!(worker.notes(), &[] as &[String]);
    let serving = serve(worker.controls().clone());
    std::thread::scope(|scope| {
        for client in 0..8 {
            let run = &run;
            scope.spawn(move || {
                for number in 0..5 {
                    let remark = Verb::Annotate {
                        text: format!("{client}.{number}"),
                    };
                    assert_eq!(ask_now(run, &remark).unwrap().text, "noted");
                    let mut parts = Vec::new();
                    let sample =
                        Verb::parse("sample", json!({"row": "p", "n": 3}).as_object().unwrap())
                            .unwrap();
                    let answered =
                        ask(run.path(), &sample, LONG, &mut |part| parts.push(part)).unwrap();
                    assert!(answered.done && parts.len() == 3, "{answered:?} {parts:?}");
                    assert!(
                        ask_now(run, &Verb::Status)
                            .unwrap()
                            .text
                            .starts_with("starting at step 0")
                    );
                }
            });
        }
    });
    ask_now(&run, &Verb::Stop { now: false }).unwrap();
    let served = serving.join().unwrap();
    assert_eq!(
        served.len(),
        8 * 5 * 2 + 1,
        "every request once, status aside"
    );
    let remarks = |client: &str| -> Vec<String> {
        let of_client = |accepted: &AcceptedRequest| match &accepted.verb {
            Verb::Annotate { text } => text.strip_prefix(client).map(str::to_owned),
            _ => None,
        };
        served.iter().filter_map(of_client).collect()
    };
    assert_eq!(remarks("7."), ["0", "1", "2", "3", "4"]);
    assert_eq!(State::observe(run.path()).unwrap().status, Status::Stopping);
    assert_eq!(
        listing(&run),
        [] as [&str; 0],
        "requests and answers are cleared away"
    );
}

#[test]
fn a_pause_lasts_until_a_resume() {
    let (_folder, run) = created();
    let worker = begin(&run);
    let mut state = worker.state();
    state.status(Status::Running, 4, None).unwrap();
    assert!(worker.controls().compute_until(5));
    assert_eq!(
        ask_now(&run, &Verb::Pause).unwrap().text,
        "pauses after step 5"
    );
    assert!(worker.controls().pause_requested());
    assert_eq!(worker.controls().drain().len(), 1);
    state.status(Status::Paused, 5, None).unwrap();
    let controls = worker.controls().clone();
    let waiting = std::thread::spawn(move || controls.wait_while_paused());
    assert_eq!(ask_now(&run, &Verb::Resume).unwrap().text, "resumes");
    waiting.join().unwrap();
    assert!(!worker.controls().pause_requested());
    assert_eq!(
        ask_now(&run, &Verb::set(["learning_rate=1e-4"]).unwrap())
            .unwrap()
            .text,
        "sets learning_rate = 0.0001 now (the run is paused)"
    );
    let refused = ask_now(&run, &Verb::set(["max_steps=4"]).unwrap()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "set: max_steps = 4 is below the current step 5: to end the run, stop it"
    );
    let at_once = ask_now(&run, &Verb::Stop { now: true }).unwrap();
    assert!(
        at_once.text.contains("stops now") && worker.controls().stop_requested() == Some(Stop::Now)
    );
}

/// What lies in the folder for requests.
fn listing(run: &RunDirectory) -> Vec<String> {
    names(&run.path().join("control"))
}

#[test]
fn a_removed_folder_for_requests_is_made_again() {
    let (_folder, run) = created();
    let worker = begin(&run);
    let serving = serve(worker.controls().clone());
    let control = run.path().join("control");
    for _ in 0..3 {
        std::fs::remove_dir_all(&control).unwrap();
        until("a new folder", || control.is_dir());
        assert_eq!(
            ask_now(&run, &Verb::Checkpoint).unwrap().result,
            json!({"step": 3})
        );
    }
    ask_now(&run, &Verb::Stop { now: false }).unwrap();
    serving.join().unwrap();
}

#[test]
fn only_a_private_folder_of_our_own_takes_requests() {
    let (folder, run) = created();
    let control = run.path().join("control");
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mode =
        |mode| std::fs::set_permissions(&control, std::fs::Permissions::from_mode(mode)).unwrap();
    let check = |expected: &str| {
        let worker = begin(&run);
        assert!(
            worker.notes()[0].contains(expected),
            "{:?} lacks {expected:?}",
            worker.notes()
        );
        let refused = ask_now(&run, &Verb::Pause).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused:?} lacks {expected:?}");
        worker
    };
    symlink(&elsewhere, &control).unwrap();
    drop(check("is a symlink"));
    std::fs::remove_file(&control).unwrap();
    std::fs::write(&control, "").unwrap();
    drop(check("not a folder"));
    std::fs::remove_file(&control).unwrap();
    std::fs::create_dir(&control).unwrap();
    mode(0o755);
    let worker = check("has mode 0755 instead of 0700");
    std::fs::write(
        control.join("a.request.json"),
        "{\"id\":\"a\",\"verb\":\"pause\"}",
    )
    .unwrap();
    // Once it is private, the same worker takes what lies there.
    mode(0o700);
    until("an answer", || control.join("a.answers.jsonl").exists());
    assert!(ask_now(&run, &Verb::Status).unwrap().done && worker.controls().pause_requested());
}

/// Whether a sentence names user 65534, by name where this machine has one.
fn belongs_to_nobody(sentence: &str) -> bool {
    ["belongs to nobody", "belongs to user 65534"]
        .iter()
        .any(|owner| sentence.contains(owner))
}

#[test]
#[cfg_attr(not(can_chown), ignore = "needs root, to give a file away")]
fn what_belongs_to_another_user_is_not_taken() {
    let (folder, run) = created();
    let worker = begin(&run);
    let (control, request) = (run.path().join("control"), folder.path().join("request"));
    until("the folder", || control.is_dir());
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
    std::fs::write(&request, "{\"id\":\"a\",\"verb\":\"pause\"}").unwrap();
    give(&request);
    std::fs::rename(&request, control.join("a.request.json")).unwrap();
    let answer = || std::fs::read_to_string(control.join("a.answers.jsonl")).unwrap_or_default();
    until("an answer", || answer().ends_with('\n'));
    assert!(
        answer().contains("refused") && belongs_to_nobody(&answer()),
        "{}",
        answer()
    );
    give(&control);
    let refused = ask_now(&run, &Verb::Pause).unwrap_err().to_string();
    assert!(
        belongs_to_nobody(&refused) && !worker.controls().pause_requested(),
        "{refused}"
    );
    drop(worker);
    assert!(belongs_to_nobody(&begin(&run).notes()[0]));
}

#[test]
fn parts_are_heard_while_the_work_goes_on() {
    let (_folder, run) = created();
    let worker = begin(&run);
    let controls = worker.controls().clone();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let id = requests(&controls)[0].id;
            for index in 0..3 {
                // Far more than one write of a page.
                controls.answer(
                    id,
                    &Answer::part(json!({"index": index, "text": "x".repeat(50_000)})),
                );
                // The next part is drawn only once this one has arrived.
                assert_eq!(receiver.recv_timeout(LONG).unwrap(), index);
            }
            controls.answer(id, &Answer::done("done", Value::Null));
        });
        let sample =
            Verb::parse("sample", json!({"row": "p", "n": 3}).as_object().unwrap()).unwrap();
        let answered = ask(run.path(), &sample, LONG, &mut |part| {
            sender.send(part["index"].as_i64().unwrap()).unwrap()
        })
        .unwrap();
        assert!(answered.done, "{answered:?}");
    });
}

#[test]
fn what_lies_in_the_folder_is_judged() {
    let (folder, run) = created();
    let worker = begin(&run);
    let control = run.path().join("control");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    until("the folder", || control.is_dir());
    assert_eq!(mode(&control), 0o700);
    // By hand, with nobody's file for the answers: as docs/control.md has it.
    let drop_in = |name: &str, put: &dyn Fn(&Path)| {
        let (temporary, answers) = (
            folder.path().join("request"),
            control.join(format!("{name}.answers.jsonl")),
        );
        put(&temporary);
        std::fs::rename(&temporary, control.join(format!("{name}.request.json"))).unwrap();
        let mut text = String::new();
        until("an answer", || {
            text = std::fs::read_to_string(&answers).unwrap_or_default();
            text.ends_with('\n')
        });
        assert!(mode(&answers) == 0o600 && !control.join(format!("{name}.request.json")).exists());
        text
    };
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "{\"id\":\"x\",\"verb\":\"pause\"}").unwrap();
    let check = |name: &str, put: &dyn Fn(&Path), expected: &str| {
        let answer = drop_in(name, put);
        assert!(
            answer.contains("refused") && answer.contains(expected),
            "{answer} lacks {expected:?}"
        );
    };
    check(
        "link",
        &|request| symlink(&secret, request).unwrap(),
        "cannot be read",
    );
    check(
        "large",
        &|request| std::fs::write(request, "x".repeat(70_000)).unwrap(),
        "longer than 65536 bytes",
    );
    check(
        "words",
        &|request| std::fs::write(request, "please stop").unwrap(),
        "malformed",
    );
    check(
        "folder-name",
        &|request| std::fs::write(request, "{\"id\":\"../x\",\"verb\":\"pause\"}").unwrap(),
        "letters, digits",
    );
    assert!(!worker.controls().pause_requested());
    let line: Value = serde_json::from_str(&drop_in("a", &|request| {
        _ = std::fs::copy(&secret, request).unwrap()
    }))
    .unwrap();
    assert_eq!(
        line,
        json!({"v": 1, "id": "x", "stage": "accepted", "text": "pauses when the run starts"})
    );
    assert!(worker.controls().pause_requested());
}

#[test]
fn a_request_reaches_the_worker_that_it_was_made_to_and_no_later_one() {
    let (_folder, run) = created();
    drop(begin(&run));
    let control = run.path().join("control");
    let left = ["a.request.json", "a.answers.jsonl", "b.request.tmp"];
    left.iter().for_each(|name| {
        std::fs::write(control.join(name), "{\"id\":\"a\",\"verb\":\"pause\"}").unwrap()
    });
    let ahead = control.join("c.request.json");
    std::fs::write(&ahead, "{\"id\":\"c\",\"verb\":\"checkpoint\"}").unwrap();
    // Made once the next worker has its lock, and before it looks.
    let soon = std::time::SystemTime::now() + Duration::from_secs(3600);
    std::fs::File::options()
        .write(true)
        .open(&ahead)
        .unwrap()
        .set_modified(soon)
        .unwrap();
    let worker = begin(&run);
    let verbs: Vec<Verb> = requests(worker.controls())
        .into_iter()
        .map(|accepted| accepted.verb)
        .collect();
    assert_eq!(verbs, [Verb::Checkpoint]);
    assert!(
        left.iter().all(|name| !control.join(name).exists()),
        "{:?}",
        listing(&run)
    );
}

#[test]
fn who_waits_for_a_worker_that_ends_is_told() {
    let (_folder, run) = created();
    let no_worker = ask_now(&run, &Verb::Pause).unwrap_err();
    assert!(
        no_worker.to_string().contains(" has no worker yet"),
        "{no_worker}"
    );
    let worker = begin(&run);
    let (taken, wait) = mpsc::channel();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_now(&run, &Verb::Eval));
        let controls = worker.controls().clone();
        scope.spawn(move || {
            until("the request", || {
                !controls.drain().is_empty() && taken.send(()).is_ok()
            })
        });
        wait.recv().unwrap();
        worker.end(Status::Failed, "the disk is gone").unwrap();
        drop(worker);
        let refused = asking.join().unwrap().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the worker ended before it handled this request"
        );
    });
    let gone = ask_now(&run, &Verb::Pause).unwrap_err();
    assert!(
        gone.to_string().ends_with(" is failed: the disk is gone"),
        "{gone}"
    );
    assert_eq!(
        Liveness::for_run(run.path()),
        Liveness::Gone("is failed: the disk is gone".to_owned())
    );
}

#[test]
fn a_client_stops_waiting_when_a_new_worker_has_removed_its_answers() {
    let (_folder, run) = created();
    let worker = begin(&run);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let path = run.path();
        let asking =
            scope.spawn(move || ask(path, &Verb::Eval, LONG, &mut |_| sender.send(()).unwrap()));
        worker.controls().answer(
            requests(worker.controls())[0].id,
            &Answer::part(Value::Null),
        );
        receiver.recv().unwrap();
        // As a worker does that takes the lock before the client sees that it was free.
        listing(&run)
            .iter()
            .for_each(|name| std::fs::remove_file(path.join("control").join(name)).unwrap());
        let answered = asking.join().unwrap().unwrap();
        assert!(
            !answered.done && answered.text.starts_with("runs an eval"),
            "{answered:?}"
        );
        assert!(
            begun.elapsed() < LONG,
            "the client has waited for its timeout"
        );
    });
}

#[test]
fn a_signal_shows_as_stopping_and_a_last_word_is_the_last() {
    let (_folder, run) = created();
    let interrupted = Arc::new(AtomicBool::new(false));
    let worker = Worker::begin(&run, Arc::clone(&interrupted)).unwrap();
    interrupted.store(true, Ordering::Relaxed);
    assert_eq!(worker.controls().stop_requested(), Some(Stop::AfterStep));
    until("the state says so", || {
        State::observe(run.path()).unwrap().status == Status::Stopping
    });
    worker.end(Status::Interrupted, "stopped").unwrap();
    worker.end(Status::Failed, "too late").unwrap();
    assert!(!worker.state().turn(Status::Stopping, None).unwrap());
    drop(worker);
    let state = State::observe(run.path()).unwrap();
    assert_eq!(
        (state.status, state.cause.as_deref()),
        (Status::Interrupted, Some("stopped"))
    );
    let mut reader = EventReader::new(&run.events_path());
    let events = reader.read().unwrap().events;
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event.body, EventBody::End(_)))
            .count(),
        1
    );
}

#[test]
fn what_was_set_is_read_back_from_the_log() {
    let (_folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut events = EventWriter::open(&lock).unwrap();
    let mut record = |step: u64, verb: Verb| {
        events
            .append(
                AcceptedRequest {
                    id: 1,
                    verb,
                    user_id: 0,
                    request: String::new(),
                }
                .event(step),
            )
            .unwrap();
    };
    record(3, Verb::set(["learning_rate=1e-4", "max_steps=9"]).unwrap());
    record(4, Verb::Pause);
    record(3, Verb::set(["learning_rate=1e-5"]).unwrap());
    record(7, Verb::set(["temperature=0.5"]).unwrap());
    let expected = json!({"3": {"learning_rate": 1e-5, "max_steps": 9}, "7": {"temperature": 0.5}});
    let read = || settings(run.path(), &RunState::read(run.path()).unwrap());
    assert_eq!(json!(read().unwrap()), expected);
    events
        .append(grpo_tui::run::events::Control {
            verb: VerbName::Set,
            arguments: [("seed".into(), json!(1))].into(),
            user_id: 0,
            step: 8,
            request: String::new(),
        })
        .unwrap();
    assert!(
        read()
            .unwrap_err()
            .to_string()
            .contains("step 8: set: `seed` cannot change")
    );
}

/// What the program prints, with its exit code.
fn program(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    ended(call_in_process(
        folder,
        &[arguments, &["--runs", "runs"]].concat(),
    ))
}

#[test]
fn the_runs_command_asks() {
    let (folder, run) = created();
    let (code, text, error) = program(folder.path(), &["runs", "stop", run.id()]);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(
        error.contains("error: run ") && error.contains(" has no worker yet"),
        "{error}"
    );
    let worker = begin(&run);
    let serving = serve(worker.controls().clone());
    let check = |arguments: &[&str], expected: (i32, &str)| {
        let (code, text, error) = program(folder.path(), arguments);
        let output = if code == 0 { &text } else { &error };
        assert!(
            code == expected.0 && output.contains(expected.1),
            "{arguments:?}: {code} {text} {error} lacks {expected:?}"
        );
    };
    check(
        &["runs", "pause", run.id()],
        (0, "pauses when the run starts"),
    );
    check(&["runs", "resume", run.id()], (0, "pause cancelled"));
    check(&["runs", "resume", run.id()], (0, "not paused"));
    check(&["runs", "checkpoint", run.id()], (0, ": done\n"));
    check(
        &["runs", "eval", run.id(), "--timeout", "0"],
        (0, "runs an eval when the run starts"),
    );
    check(
        &["runs", "set", run.id(), "temperature=0.5", "max_steps=7"],
        (0, "sets max_steps = 7, temperature = 0.5"),
    );
    check(
        &["runs", "set", run.id(), "temperature=50"],
        (
            2,
            "temperature = 50 is invalid; it must be a number from 0.01 to 10",
        ),
    );
    check(
        &["runs", "annotate", run.id(), " "],
        (2, "the note is empty"),
    );
    check(&["runs", "annotate", run.id(), "fine"], (0, "noted"));
    let (_, text, _) = program(folder.path(), &["runs", "checkpoint", run.id(), "--json"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&document["run"], &document["result"], &document["done"]),
        (&json!(run.id()), &json!({"step": 3}), &json!(true))
    );
    let (code, text, _) = program(folder.path(), &["runs", "stop", run.id(), "--wait", "0"]);
    assert!(
        code == 1 && text.contains("still active after 0 s"),
        "{text}"
    );
    serving.join().unwrap();
    worker.end(Status::Finished, "all steps done").unwrap();
    drop(worker);
    check(
        &["runs", "resume", run.id()],
        (
            1,
            "cannot resume: it is finished: all steps done; to train further: grpo-tui train TASK --model ",
        ),
    );
    let short = run.id().rsplit('-').next().unwrap();
    for (verb, why) in [
        ("pause", "nothing to pause"),
        ("stop", "nothing to stop"),
        ("eval", "its worker has exited"),
    ] {
        check(
            &["runs", verb, run.id()],
            (1, &format!("error: run {short} is finished: {why}\n")),
        );
    }
    // A note needs no worker; it is no work of the run.
    let before = RunState::read(run.path()).unwrap();
    check(
        &["runs", "annotate", run.id(), "kept for the paper"],
        (0, "noted"),
    );
    let after = RunState::read(run.path()).unwrap();
    assert_eq!(after.notes.last().unwrap().1.text, "kept for the paper");
    let control = after.controls.last().unwrap();
    assert_eq!(
        (
            control.verb.name(),
            control.user_id,
            after.gaps,
            after.skipped
        ),
        ("annotate", rustix::process::geteuid().as_raw(), 0, 0)
    );
    assert_eq!((after.end, after.last_ms), (before.end, before.last_ms));
    let new = create(folder.path());
    // Nor before the first worker: the run stays one that nobody has started.
    check(
        &["runs", "annotate", new.id(), "for the night"],
        (0, "noted"),
    );
    check(
        &["runs", "list", "--where", "status=created"],
        (0, new.id()),
    );
    let history = RunState::read(new.path()).unwrap();
    assert_eq!(
        (history.notes[0].1.text.as_str(), history.first_ms),
        ("for the night", None)
    );
    // Nor where its state is missing: the log knows how it ended.
    std::fs::remove_file(run.path().join("state.json")).unwrap();
    check(
        &["runs", "annotate", run.id(), "copied without its state"],
        (0, "noted"),
    );
    check(
        &["runs", "list", "--where", "status=finished"],
        (0, run.id()),
    );
}

#[test]
fn the_doctor_says_what_a_run_can_rely_on() {
    let folder = memory_folder();
    let (code, text, error) = ended(call(folder.path(), &["doctor", "--json", "--runs", "runs"]));
    assert_eq!((code, error.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["slots"][0],
        json!({"device": "CPU", "is": "", "holder": null, "in_use": null})
    );
    let used: Vec<&str> = document["folders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|folder| folder["used_for"].as_str().unwrap())
        .collect();
    assert_eq!(used, ["runs", "data", "config", "cache", "slots"]);
    if cfg!(not(feature = "cuda")) {
        let engine = json!({"uses": "cpu", "why": "this build has no CUDA: build with `--features cuda` (docs/gpu.md)", "libraries": []});
        assert_eq!(document["engine"], engine);
    }
    assert_eq!(
        std::fs::metadata(folder.path().join("slots"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o1777
    );
    let (_, page, _) = ended(call(folder.path(), &["doctor", "--runs", "runs"]));
    assert!(
        page.contains("detached runs ")
            && page.contains("engine    ")
            && page.contains("CPU  free")
            && page.contains(" GB"),
        "{page}"
    );
}
