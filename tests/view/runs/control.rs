//! Runs controlled from the list: resume, requests to the worker, stop and parameters.

use super::*;

/// An interrupted run is started again by this program; what it says is shown.
#[test]
fn an_interrupted_run_is_resumed_by_the_program() {
    let program = |folder: &Path, script: &str| {
        crate::view::harness::script(
            &folder.join("program"),
            &format!("echo \"$@\" > {}/arguments\n{script}", folder.display()),
        )
    };
    let mut stage = stage_with(120, 36, several);
    let folder = stage.folder.path().to_owned();
    stage.model.shared.options.program = program(&folder, "echo '{\"run\": \"x\"}'");
    stage.keys("j j r");
    assert!(stage.shows("resumed"), "{}", stage.screen());
    let arguments = std::fs::read_to_string(folder.join("arguments")).unwrap();
    assert_eq!(
        arguments.trim(),
        format!(
            "runs resume {} --json",
            folder
                .join("runs/20261118-090000-receipts-bbbbbb")
                .display()
        )
    );
    stage.model.shared.options.program =
        program(&folder, "echo 'error: no GPU is free' >&2; exit 1");
    stage.keys("r");
    assert!(stage.shows("no GPU is free"));
}

/// A worker that answers: verbs reach it, its words come back, and what it accepted is in the log.
#[test]
fn a_live_run_is_asked() {
    let mut stage = stage_with(120, 36, |folder| {
        copy_run(
            &folder.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "interrupted",
        );
    });
    let run = RunDirectory::open(
        &stage
            .folder
            .path()
            .join("runs/20261120-143041-invoice-6sx3dn"),
    )
    .unwrap();
    let worker = Worker::begin(&run, Arc::default()).unwrap();
    let serving = serve(&worker);
    stage.tick_after(2_000);
    assert!(
        stage.shows("starting") || stage.shows("running"),
        "{}",
        stage.screen()
    );
    stage.keys("d");
    assert!(stage.shows("stop it first"), "{}", stage.screen());
    stage.keys("C");
    assert!(stage.shows("6sx3dn: it is done"), "{}", stage.screen());
    stage.keys("a").types("a remark").keys("enter p");
    stage.keys("x");
    assert!(stage.shows("Stops after the current step"));
    stage.keys("y");
    let taken: Vec<Verb> = serving
        .join()
        .unwrap()
        .into_iter()
        .map(|accepted| accepted.verb)
        .collect();
    drop(worker);
    let remark = Verb::Annotate {
        text: "a remark".to_owned(),
    };
    assert_eq!(
        taken,
        [
            Verb::Checkpoint,
            remark,
            Verb::Pause,
            Verb::Stop { now: false }
        ]
    );
}

/// While the question is open the run changes its status, and the filter hides it.
#[test]
fn a_stop_is_for_the_run_of_the_question() {
    let mut stage = stage_with(120, 36, |folder| {
        copy_run(
            &folder.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "interrupted",
        );
    });
    let run = RunDirectory::open(
        &stage
            .folder
            .path()
            .join("runs/20261120-143041-invoice-6sx3dn"),
    )
    .unwrap();
    let worker = Worker::begin(&run, Arc::default()).unwrap();
    let look = |stage: &mut Stage| {
        stage.tick_after(2_000);
    };
    look(&mut stage);
    stage.keys("/").types("status=starting").keys("enter x");
    assert!(
        stage.shows("Stop 20261120-143041-invoice-6sx3dn?"),
        "{}",
        stage.screen()
    );
    worker.state().status(Status::Running, 1, None).unwrap();
    look(&mut stage);
    assert!(stage.shows("Runs 0 of 1"), "{}", stage.screen());
    let serving = serve(&worker);
    stage.keys("y");
    assert!(
        stage.model.shared.work.contains_key("control.stop"),
        "{}",
        stage.screen()
    );
    let taken: Vec<Verb> = serving
        .join()
        .unwrap()
        .into_iter()
        .map(|accepted| accepted.verb)
        .collect();
    assert_eq!(taken, [Verb::Stop { now: false }]);
}

#[test]
fn parameters_are_set_in_the_run_of_the_question() {
    let mut stage = stage_with(120, 36, |folder| {
        copy_run(
            &folder.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "interrupted",
        );
    });
    let run = RunDirectory::open(
        &stage
            .folder
            .path()
            .join("runs/20261120-143041-invoice-6sx3dn"),
    )
    .unwrap();
    let interrupted = Arc::default();
    let worker = Worker::begin(&run, Arc::clone(&interrupted)).unwrap();
    worker.state().status(Status::Running, 1, None).unwrap();
    stage.act(|_| vec![Command::ShowRun(run.path().to_owned())]);
    stage.keys("f6 =");
    assert!(stage.shows("KEY=VALUE"), "{}", stage.screen());
    stage.act(|_| vec![Command::ShowRun(finished_run())]);
    let serving = serve(&worker);
    stage.keys("enter");
    assert!(
        stage.model.shared.work.contains_key("control.set"),
        "{}",
        stage.screen()
    );
    interrupted.store(true, Ordering::Relaxed);
    let taken: Vec<Verb> = serving
        .join()
        .unwrap()
        .into_iter()
        .map(|accepted| accepted.verb)
        .collect();
    assert!(matches!(taken[..], [Verb::Set { .. }]), "{taken:?}");
}

/// A note needs no worker: it goes into the log of a run that has ended.
#[test]
fn a_run_that_has_ended_takes_a_note() {
    let mut stage = stage_with(120, 36, several);
    stage.keys("a").types("quit; delete").keys("enter");
    assert!(stage.shows("6sx3dn: noted"), "{}", stage.screen());
    let run = stage
        .folder
        .path()
        .join("runs/20261120-143041-invoice-6sx3dn");
    let state = grpo_tui::run::RunState::read(&run).unwrap();
    assert_eq!(state.notes.last().unwrap().1.text, "quit; delete");
    assert_eq!(state.end.unwrap().status, Status::Finished);
    stage.tick_after(2_000);
    assert!(
        stage.shows("quit; delete") && stage.shows("✓ finished"),
        "{}",
        stage.screen()
    );
    // Where it cannot be written, the error repeats what was typed.
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o777)).unwrap();
    stage.keys("a").types("once more").keys("enter");
    let message = stage
        .model
        .shared
        .notices
        .all()
        .last()
        .unwrap()
        .text
        .clone();
    assert!(
        message.contains("is writable by other users")
            && message.contains("note not saved: once more"),
        "{message}"
    );
}
