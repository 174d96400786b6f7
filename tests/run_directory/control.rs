//! A live run can be asked by several at once, by socket or by file; what is malformed, hostile or out of range is refused in words.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use grpo_tui::run::{
    AcceptedRequest, Answer, EventBody, EventReader, EventWriter, Liveness, RequestOutcome, RequestQueue, RunDirectory, RunError, RunLock,
    RunState, State, Status, Stop, Verb, Worker, ask, settings,
};
use serde_json::{Value, json};

use super::{create, memory_folder};
use crate::program::{call, until};

const LONG: Duration = Duration::from_secs(20);

pub(super) fn sockets(folder: &Path) -> PathBuf {
    let sockets = folder.join("sockets");
    let _ = std::fs::create_dir(&sockets);
    std::fs::set_permissions(&sockets, std::fs::Permissions::from_mode(0o700)).unwrap();
    sockets
}

pub(super) fn begin(run: &RunDirectory, folders: Vec<PathBuf>) -> Worker {
    Worker::begin_in(run, Arc::default(), folders).unwrap()
}

pub(super) fn ask_now(run: &RunDirectory, verb: &Verb) -> Result<RequestOutcome, RunError> {
    ask(run.path(), verb, LONG, &mut |_| {})
}

pub(super) fn socket_of(run: &RunDirectory) -> PathBuf {
    State::observe(run.path()).unwrap().socket.unwrap()
}

/// A loop that does whatever it is asked until it is to stop, and tells what that was.
fn serve(controls: RequestQueue) -> std::thread::JoinHandle<Vec<AcceptedRequest>> {
    std::thread::spawn(move || {
        let mut served = Vec::new();
        loop {
            for accepted in controls.take() {
                controls.recorded(&accepted);
                if let Verb::Sample(sample) = &accepted.verb {
                    (0..sample.n).for_each(|index| controls.answer(accepted.id, &Answer::part(json!({"text": index}))));
                }
                controls.answer(accepted.id, &Answer::done("done", json!({"step": 3})));
                served.push(accepted);
            }
            if controls.stop_requested().is_some() {
                served.extend(controls.take());
                return served;
            }
            controls.wait_for_request(Duration::from_millis(50));
        }
    })
}

#[test]
fn several_clients_at_once_by_socket() {
    let folder = memory_folder();
    let run = create(folder.path());
    let worker = begin(&run, vec![sockets(folder.path())]);
    assert_eq!(worker.notes(), &[] as &[String]);
    assert_eq!(std::fs::symlink_metadata(socket_of(&run)).unwrap().permissions().mode() & 0o777, 0o600);
    let serving = serve(worker.controls().clone());
    std::thread::scope(|scope| {
        for client in 0..8 {
            let run = &run;
            scope.spawn(move || {
                for number in 0..5 {
                    let remark = Verb::Annotate { text: format!("{client}.{number}") };
                    assert_eq!(ask_now(run, &remark).unwrap().text, "noted");
                    let mut parts = Vec::new();
                    let sample = Verb::parse("sample", json!({"row": "p", "n": 3}).as_object().unwrap()).unwrap();
                    let answered = ask(run.path(), &sample, LONG, &mut |part| parts.push(part)).unwrap();
                    assert!(answered.done && parts.len() == 3, "{answered:?} {parts:?}");
                    assert!(ask_now(run, &Verb::Status).unwrap().text.starts_with("starting at step 0"));
                }
            });
        }
    });
    ask_now(&run, &Verb::Stop { now: false }).unwrap();
    let served = serving.join().unwrap();
    assert_eq!(served.len(), 8 * 5 * 2 + 1, "every request once, status aside");
    let remarks = |client: &str| -> Vec<String> {
        let of_client = |accepted: &AcceptedRequest| match &accepted.verb {
            Verb::Annotate { text } => text.strip_prefix(client).map(str::to_owned),
            _ => None,
        };
        served.iter().filter_map(of_client).collect()
    };
    assert_eq!(remarks("7."), ["0", "1", "2", "3", "4"]);
    assert_eq!(State::observe(run.path()).unwrap().status, Status::Stopping);
    let path = socket_of(&run);
    drop(worker);
    assert!(!path.exists());
}

#[test]
fn a_pause_holds_the_loop_until_it_is_told_to_go_on() {
    let folder = memory_folder();
    let run = create(folder.path());
    let worker = begin(&run, vec![sockets(folder.path())]);
    let mut state = worker.state();
    state.status(Status::Running, 4, None).unwrap();
    assert!(worker.controls().compute_until(5));
    assert_eq!(ask_now(&run, &Verb::Pause).unwrap().text, "pauses after step 5");
    assert!(worker.controls().pause_requested());
    assert_eq!(worker.controls().take().len(), 1);
    state.status(Status::Paused, 5, None).unwrap();
    let controls = worker.controls().clone();
    let waiting = std::thread::spawn(move || controls.wait_while_paused());
    assert_eq!(ask_now(&run, &Verb::Resume).unwrap().text, "resumes");
    waiting.join().unwrap();
    assert!(!worker.controls().pause_requested());
    assert_eq!(
        ask_now(&run, &Verb::set(["learning_rate=1e-4"]).unwrap()).unwrap().text,
        "sets learning_rate = 0.0001 now (the run is paused)"
    );
    let refused = ask_now(&run, &Verb::set(["max_steps=4"]).unwrap()).unwrap_err();
    assert_eq!(refused.to_string(), "set: max_steps = 4 is below the current step 5: to end the run, stop it");
    let at_once = ask_now(&run, &Verb::Stop { now: true }).unwrap();
    assert!(at_once.text.contains("stops now") && worker.controls().stop_requested() == Some(Stop::Now));
}

#[test]
fn a_removed_socket_is_bound_again_and_files_serve_meanwhile() {
    let folder = memory_folder();
    let run = create(folder.path());
    let sockets = sockets(folder.path());
    let worker = begin(&run, vec![sockets.clone()]);
    let serving = serve(worker.controls().clone());
    let path = socket_of(&run);
    for _ in 0..3 {
        std::fs::remove_dir_all(&sockets).unwrap();
        assert_eq!(ask_now(&run, &Verb::Checkpoint).unwrap().result, json!({"step": 3}));
        until("a new socket", || UnixStream::connect(&path).is_ok());
    }
    assert_eq!(ask_now(&run, &Verb::Pause).unwrap().text, "pauses when the run starts");
    ask_now(&run, &Verb::Stop { now: false }).unwrap();
    serving.join().unwrap();
}

#[test]
fn a_symlink_where_a_socket_should_be_is_refused() {
    let folder = memory_folder();
    let run = create(folder.path());
    let sockets = sockets(folder.path());
    let path = {
        let _worker = begin(&run, vec![sockets.clone()]);
        socket_of(&run)
    };
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    symlink(&victim, &path).unwrap();
    let worker = begin(&run, vec![sockets.clone()]);
    assert!(worker.notes()[0].contains("is a symlink where a socket should be"), "{:?}", worker.notes());
    assert_eq!((std::fs::read_to_string(&victim).unwrap(), std::fs::read_link(&path).unwrap()), ("mine".to_owned(), victim.clone()));
    // The client does not follow it either; the run can still be asked by file.
    let trap = std::os::unix::net::UnixListener::bind(folder.path().join("trap")).unwrap();
    trap.set_nonblocking(true).unwrap();
    std::fs::remove_file(&path).unwrap();
    symlink(folder.path().join("trap"), &path).unwrap();
    worker.state().socket(Some(path)).unwrap();
    assert!(ask_now(&run, &Verb::Status).unwrap().done);
    assert!(trap.accept().is_err());
}

#[test]
fn only_a_private_folder_of_our_own_may_hold_the_socket() {
    let folder = memory_folder();
    let run = create(folder.path());
    let check = |sockets: PathBuf, expected: &str| {
        let worker = begin(&run, vec![sockets]);
        assert!(worker.notes()[0].contains(expected), "{:?} lacks {expected:?}", worker.notes());
        assert_eq!(State::observe(run.path()).unwrap().socket, None);
    };
    let loose = sockets(folder.path());
    std::fs::set_permissions(&loose, std::fs::Permissions::from_mode(0o755)).unwrap();
    check(loose.clone(), "has mode 0755 instead of 0700");
    let link = folder.path().join("link");
    symlink(&loose, &link).unwrap();
    check(link, "is a symlink");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    check(file, "not a folder");
    check(folder.path().join("not/there"), "cannot create");
    check(folder.path().join("x".repeat(120)), "cannot bind the control socket");
    std::fs::set_permissions(&loose, std::fs::Permissions::from_mode(0o700)).unwrap();
    // Only root can give a folder away.
    if std::os::unix::fs::chown(&loose, Some(65_534), None).is_ok() {
        check(loose, "belongs to user 65534");
    }
}

/// What the worker answers to raw bytes, line by line.
fn raw(path: &Path, request: &[u8]) -> impl Iterator<Item = Value> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    // A worker that has heard enough closes its ear before all is said.
    let _ = stream.write_all(request);
    BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

#[test]
fn oversized_malformed_and_endless_requests_are_refused() {
    let folder = memory_folder();
    let run = create(folder.path());
    let worker = begin(&run, vec![sockets(folder.path())]);
    let path = socket_of(&run);
    let long = raw(&path, &b"x".repeat(64 * 1024 + 1)).next().unwrap();
    assert_eq!((&long["stage"], &long["text"]), (&json!("refused"), &json!("the request is longer than 65536 bytes")));
    let endless = raw(&path, b"{\"id\":").next().unwrap();
    assert!(endless["text"].as_str().unwrap().contains("did not end within 2 s"), "{endless}");
    // A bad line does not cost the client its connection.
    let mixed = b"\xff\n[]\n{\"id\":\"a\",\"verb\":\"fly\"}\n{\"id\":\"b\",\"verb\":\"status\"}\n{\"id\":\"c\",\"verb\":\"pause\"}\n";
    let answers: Vec<Value> = raw(&path, mixed).take(5).collect();
    let stages: Vec<(&str, &str)> =
        answers.iter().map(|answer| (answer["id"].as_str().unwrap(), answer["stage"].as_str().unwrap())).collect();
    assert_eq!(stages, [("", "refused"), ("", "refused"), ("a", "refused"), ("b", "done"), ("c", "accepted")]);
    assert_eq!(worker.controls().take().len(), 1);
}

#[test]
fn too_many_clients_are_told_so() {
    let folder = memory_folder();
    let run = create(folder.path());
    let _worker = begin(&run, vec![sockets(folder.path())]);
    let path = socket_of(&run);
    let status = |stream: &mut UnixStream| {
        stream.write_all(b"{\"id\":\"a\",\"verb\":\"status\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    };
    let mut clients: Vec<UnixStream> = (0..32).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert!(clients.iter_mut().all(|client| status(client).contains("done")));
    assert!(raw(&path, b"").next().unwrap()["text"].as_str().unwrap().contains("32 clients are connected already"));
    // Who has said nothing for a second gives way, the longest idle first, and is told.
    std::thread::sleep(Duration::from_millis(1100));
    assert!(status(&mut clients[0]).contains("done"));
    let mut newcomer = UnixStream::connect(&path).unwrap();
    assert!(status(&mut newcomer).contains("done"));
    let mut told = String::new();
    BufReader::new(&mut clients[1]).read_line(&mut told).unwrap();
    assert!(told.contains("was idle the longest"), "{told}");
    assert!(status(&mut clients[0]).contains("done") && status(&mut clients[2]).contains("done"));
    clients.truncate(16);
    until("a free seat", || {
        UnixStream::connect(&path).is_ok_and(|mut client| client.write_all(b"").is_ok() && status(&mut client).contains("done"))
    });
}

#[test]
fn requests_by_file_are_judged_like_the_others() {
    let folder = memory_folder();
    let run = create(folder.path());
    let worker = begin(&run, Vec::new());
    let serving = serve(worker.controls().clone());
    let answered = ask_now(&run, &Verb::Eval).unwrap();
    assert_eq!((answered.done, answered.result), (true, json!({"step": 3})));
    let control = run.path().join("control");
    assert_eq!(std::fs::metadata(&control).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(&control).unwrap().count(), 0, "requests and answers are cleared away");
    let drop_in = |name: &str, put: &dyn Fn(&Path)| {
        let request = control.join(format!("{name}.request.json"));
        put(&request);
        until("the request is taken", || std::fs::symlink_metadata(&request).is_err());
        let answers = control.join(format!("{name}.answers.jsonl"));
        until("an answer", || answers.exists());
        std::fs::read_to_string(answers).unwrap()
    };
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "{\"id\":\"x\",\"verb\":\"pause\"}").unwrap();
    let check = |name: &str, put: &dyn Fn(&Path), expected: &str| {
        let answer = drop_in(name, put);
        assert!(answer.contains("refused") && answer.contains(expected), "{answer} lacks {expected:?}");
    };
    check("link", &|request| symlink(&secret, request).unwrap(), "cannot be read");
    check("large", &|request| std::fs::write(request, "x".repeat(70_000)).unwrap(), "longer than 65536 bytes");
    check("words", &|request| std::fs::write(request, "please stop").unwrap(), "malformed");
    // Names that are no requests, and what is half-written, are left alone, but for what nobody can be writing any more.
    std::fs::write(control.join(".a.request.json.7.tmp"), "{").unwrap();
    let old = std::fs::File::create(control.join("b.answers.jsonl.7.tmp")).unwrap();
    old.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    until("what is old has gone", || !control.join("b.answers.jsonl.7.tmp").exists());
    assert!(control.join(".a.request.json.7.tmp").exists());
    ask_now(&run, &Verb::Stop { now: false }).unwrap();
    let served = serving.join().unwrap();
    assert!(served.iter().all(|accepted| !matches!(accepted.verb, Verb::Pause)));
    // A worker that was killed while it answered leaves a half answer, which the next one clears away.
    drop(worker);
    std::fs::write(control.join("c.answers.jsonl.7.tmp"), "{").unwrap();
    let _next = begin(&run, Vec::new());
    assert!(!control.join("c.answers.jsonl.7.tmp").exists());
}

#[test]
fn who_waits_for_a_worker_that_ends_is_told() {
    let folder = memory_folder();
    let run = create(folder.path());
    let no_worker = ask_now(&run, &Verb::Pause).unwrap_err();
    assert!(no_worker.to_string().contains("no worker has started yet"), "{no_worker}");
    let worker = begin(&run, vec![sockets(folder.path())]);
    let (taken, wait) = mpsc::channel();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_now(&run, &Verb::Eval));
        let controls = worker.controls().clone();
        scope.spawn(move || until("the request", || !controls.take().is_empty() && taken.send(()).is_ok()));
        wait.recv().unwrap();
        worker.end(Status::Failed, "the disk is gone").unwrap();
        drop(worker);
        let refused = asking.join().unwrap().unwrap_err();
        assert_eq!(refused.to_string(), "the worker ended before it handled this request");
    });
    let gone = ask_now(&run, &Verb::Pause).unwrap_err();
    assert!(gone.to_string().ends_with("it is failed: the disk is gone"), "{gone}");
    assert_eq!(Liveness::of(run.path()), Liveness::Gone("it is failed: the disk is gone".to_owned()));
}

#[test]
fn a_signal_shows_as_stopping_and_a_last_word_is_the_last() {
    let folder = memory_folder();
    let run = create(folder.path());
    let interrupted = Arc::new(AtomicBool::new(false));
    let worker = Worker::begin_in(&run, Arc::clone(&interrupted), Vec::new()).unwrap();
    interrupted.store(true, Ordering::Relaxed);
    assert_eq!(worker.controls().stop_requested(), Some(Stop::AfterStep));
    until("the state says so", || State::observe(run.path()).unwrap().status == Status::Stopping);
    worker.end(Status::Interrupted, "stopped").unwrap();
    worker.end(Status::Failed, "too late").unwrap();
    assert!(!worker.state().turn(Status::Stopping, None).unwrap());
    drop(worker);
    let state = State::observe(run.path()).unwrap();
    assert_eq!((state.status, state.cause.as_deref()), (Status::Interrupted, Some("stopped")));
    let mut reader = EventReader::new(&run.events_path());
    let events = reader.read().unwrap().events;
    assert_eq!(events.iter().filter(|event| matches!(event.body, EventBody::End(_))).count(), 1);
}

#[test]
fn what_was_set_is_read_back_from_the_log() {
    let folder = memory_folder();
    let run = create(folder.path());
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut events = EventWriter::open(&lock).unwrap();
    let mut record = |step: u64, verb: Verb| {
        events.append(AcceptedRequest { id: 1, verb, user_id: 0, request: String::new() }.event(step)).unwrap();
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
            verb: "set".into(),
            arguments: [("seed".into(), json!(1))].into(),
            user_id: 0,
            step: 8,
            request: String::new(),
        })
        .unwrap();
    assert!(read().unwrap_err().to_string().contains("step 8: set: `seed` cannot change"));
}

/// What the program prints, with its exit code; it finds device slots in `folder` only.
fn program(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = call(folder, &[arguments, &["--runs", "runs"]].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_runs_command_asks() {
    let folder = memory_folder();
    let run = create(folder.path());
    let (code, text, error) = program(folder.path(), &["runs", "stop", run.id()]);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(error.contains("no worker computes the run") && error.contains("no worker has started yet"), "{error}");
    let worker = begin(&run, vec![sockets(folder.path())]);
    let serving = serve(worker.controls().clone());
    let check = |arguments: &[&str], expected: (i32, &str)| {
        let (code, text, error) = program(folder.path(), arguments);
        let told = if code == 0 { &text } else { &error };
        assert!(code == expected.0 && told.contains(expected.1), "{arguments:?}: {code} {text} {error} lacks {expected:?}");
    };
    check(&["runs", "pause", run.id()], (0, "pauses when the run starts"));
    check(&["runs", "resume", run.id()], (0, "not paused"));
    check(&["runs", "checkpoint", run.id()], (0, ": done\n"));
    check(&["runs", "eval", run.id(), "--timeout", "0"], (0, "runs an eval when the run starts"));
    check(&["runs", "set", run.id(), "temperature=0.5", "max_steps=7"], (0, "sets max_steps = 7, temperature = 0.5"));
    check(&["runs", "set", run.id(), "temperature=50"], (2, "temperature = 50 does not fit; it must be a number from 0.01 to 10"));
    check(&["runs", "annotate", run.id(), " "], (2, "the note is empty"));
    check(&["runs", "annotate", run.id(), "fine"], (0, "noted"));
    let (_, text, _) = program(folder.path(), &["runs", "checkpoint", run.id(), "--json"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&document["run"], &document["result"], &document["done"]), (&json!(run.id()), &json!({"step": 3}), &json!(true)));
    let (code, text, _) = program(folder.path(), &["runs", "stop", run.id(), "--wait", "0"]);
    assert!(code == 1 && text.contains("still active after 0 s"), "{text}");
    serving.join().unwrap();
    worker.end(Status::Finished, "all steps done").unwrap();
    drop(worker);
    check(
        &["runs", "resume", run.id()],
        (1, "cannot resume: it is finished: all steps done; to train further: grpo-tui train TASK --model "),
    );
    // A note needs no worker; it is no work of the run.
    let before = RunState::read(run.path()).unwrap();
    check(&["runs", "annotate", run.id(), "kept for the paper"], (0, "noted"));
    let after = RunState::read(run.path()).unwrap();
    assert_eq!(after.notes.last().unwrap().1.text, "kept for the paper");
    let asked = after.controls.last().unwrap();
    assert_eq!((asked.verb.as_str(), asked.user_id, after.gaps, after.skipped), ("annotate", rustix::process::geteuid().as_raw(), 0, 0));
    assert_eq!((after.end, after.last_ms), (before.end, before.last_ms));
    let new = create(folder.path());
    check(&["runs", "annotate", new.id(), "too early"], (1, "no worker"));
}

#[test]
fn the_doctor_says_what_a_run_can_rely_on() {
    let folder = memory_folder();
    let (code, text, error) = program(folder.path(), &["doctor", "--json"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["slots"][0], json!({"device": "CPU", "is": "", "holder": null, "in_use": null}));
    let used: Vec<&str> = document["folders"].as_array().unwrap().iter().map(|folder| folder["used_for"].as_str().unwrap()).collect();
    assert_eq!(used, ["runs", "data", "config", "cache", "sockets", "slots"]);
    assert_eq!(std::fs::metadata(folder.path().join("slots")).unwrap().permissions().mode() & 0o7777, 0o1777);
    let (_, page, _) = program(folder.path(), &["doctor"]);
    assert!(page.contains("detached runs ") && page.contains("CPU       free") && page.contains("GB free"), "{page}");
}
