//! A worker is started with nothing of its launcher's but a pipe; a launch that fails says why at once; signals reach
//! only the worker itself.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use grpo_tui::run::{
    Launch, LaunchedWorker, Liveness, RunDirectory, RunError, RunLock, State, StateWriter, Status,
    launch, signal_worker,
};
use rustix::process::Signal;

use super::{create, created};
use crate::program::PROGRAM;

fn this_program() -> Launch {
    Launch {
        program: Some(PROGRAM.into()),
        patience: Duration::from_secs(60),
        ..Launch::default()
    }
}

/// The launch of a shell that runs `script` in the worker's place.
fn launch_script(
    run: &RunDirectory,
    script: &str,
    patience: Duration,
) -> Result<LaunchedWorker, RunError> {
    std::fs::write(run.path().join("worker"), script).unwrap();
    launch(
        run,
        &Launch {
            program: Some("/bin/sh".into()),
            patience,
            ..Launch::default()
        },
    )
}

#[test]
fn a_launch_that_fails_says_why_in_the_caller() {
    let (_folder, run) = created();
    // The task of this run is a stub, and a program without an engine cannot compute any.
    let error = launch(&run, &this_program()).unwrap_err();
    assert!(matches!(error, RunError::Launch { .. }), "{error}");
    let state = State::observe(run.path()).unwrap();
    assert_eq!(state.status, Status::Failed);
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat(&error.to_string()).ends_with(&flat(&state.cause.unwrap())),
        "{error}"
    );
    assert_eq!(
        std::fs::metadata(run.log_path())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );

    let lock = RunLock::acquire(run.path()).unwrap();
    let error = launch(&run, &this_program()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("is in use by process {}", std::process::id())),
        "{error}"
    );
    drop(lock);

    let missing = Launch {
        program: Some("/no/such/program".into()),
        ..Launch::default()
    };
    assert!(
        launch(&run, &missing)
            .unwrap_err()
            .to_string()
            .contains("could not be started")
    );
}

#[test]
fn a_worker_that_dies_or_says_nothing() {
    let (_folder, run) = created();
    let error = launch_script(
        &run,
        "echo first >&2; echo out of memory >&2; exit 3\n",
        Duration::from_secs(60),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("exited before it was ready (exit status: 3)")
            && error.ends_with("worker.log: out of memory"),
        "{error}"
    );
    let error = launch_script(&run, "exit 0\n", Duration::from_secs(60))
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("worker.log is empty"), "{error}");
    let launched = launch_script(&run, "exec sleep 1000\n", Duration::ZERO).unwrap();
    assert!(!launched.ready);
    assert!(
        Command::new("kill")
            .arg(launched.pid.to_string())
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn nothing_is_inherited_but_the_pipe() {
    let (folder, run) = created();
    let left_open = std::fs::File::create(folder.path().join("left-open")).unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let script = "echo umask $(umask); pwd; cut -d' ' -f1,6 /proc/$$/stat; ls -l /proc/$$/fd; echo arguments $*\n\
                  echo ready > /proc/self/fd/$GRPO_TUI_READY_FD\n";
    let launched = launch_script(&run, script, Duration::from_secs(60)).unwrap();
    assert!(launched.ready && launched.log == run.log_path());
    let log = std::fs::read_to_string(run.log_path()).unwrap();
    let pid = launched.pid;
    for expected in [
        "umask 0077",
        &run.path().display().to_string(),
        &format!("{pid} {pid}"),
        "0 -> /dev/null",
        "1 -> ",
        "worker.log",
        "pipe:[",
        &format!("arguments --run {}", run.path().display()),
    ] {
        assert!(log.contains(expected), "{log} lacks {expected:?}");
    }
    assert!(!log.contains("left-open"), "{log}");
    assert_eq!(log.matches("pipe:[").count(), 1, "{log}");
}

#[test]
fn only_ones_own_folder_is_worked_on() {
    let (folder, run) = created();
    std::fs::set_permissions(run.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
    let error = launch(&run, &this_program()).unwrap_err().to_string();
    assert!(
        error.contains("is writable by other users (mode 0770)") && error.contains("chmod"),
        "{error}"
    );
    std::fs::set_permissions(run.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        matches!(launch(&run, &this_program()), Err(RunError::Launch { .. })),
        "to look is no harm"
    );
    // Where others can reach them, what lies in it must not be theirs to change: a worker does what run.toml says.
    for name in ["run.toml", "task/task.toml", "checkpoints"] {
        let path = run.path().join(name);
        let before = std::fs::metadata(&path).unwrap().permissions();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = launch(&run, &this_program()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{name} is writable by other users (mode 0666)"))
                && error.contains("chmod"),
            "{error}"
        );
        std::fs::set_permissions(run.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(
            matches!(launch(&run, &this_program()), Err(RunError::Launch { .. })),
            "nobody else can reach it"
        );
        std::fs::set_permissions(run.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&path, before).unwrap();
    }
    let log_elsewhere = create(folder.path());
    std::os::unix::fs::symlink("/dev/null", log_elsewhere.log_path()).unwrap();
    assert!(
        launch(&log_elsewhere, &this_program())
            .unwrap_err()
            .to_string()
            .contains("worker.log")
    );
}

#[test]
#[cfg_attr(not(can_chown), ignore = "needs root, to give a folder away")]
fn the_folder_of_another_user_is_not_worked_on() {
    let (_folder, run) = created();
    std::os::unix::fs::chown(run.path(), Some(65_534), None).unwrap();
    let error = launch(&run, &this_program()).unwrap_err().to_string();
    assert!(error.contains("belongs to user 65534"), "{error}");
}

/// A process that holds the run's lock and is its worker, as far as `state.json` goes.
fn stand_in(run: &Path) -> std::process::Child {
    {
        let lock = RunLock::acquire(run).unwrap();
        StateWriter::start(&lock).unwrap();
    }
    let file = std::fs::File::open(run.join("lock")).unwrap();
    file.lock().unwrap();
    let child = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::from(file))
        .spawn()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let ticks: u64 = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();
    edit_state(run, |state| {
        state["pid"] = child.id().into();
        state["start_ticks"] = ticks.into();
    });
    child
}

fn edit_state(run: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = run.join("state.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    // As an older program writes it.
    state.as_object_mut().unwrap().remove("xxh3");
    edit(&mut state);
    std::fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
}

#[test]
fn a_signal_reaches_the_worker_and_nobody_else() {
    let (_folder, run) = created();
    assert!(
        signal_worker(run.path(), Signal::KILL)
            .unwrap_err()
            .to_string()
            .contains("has no worker yet")
    );
    let mut child = stand_in(run.path());
    assert_eq!(Liveness::for_run(run.path()), Liveness::Alive);
    let state = std::fs::read(run.path().join("state.json")).unwrap();
    let refused = |what: &str, edit: &dyn Fn(&mut serde_json::Value), expected: &str| {
        edit_state(run.path(), edit);
        let error = signal_worker(run.path(), Signal::KILL)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{what}: {error}");
        std::fs::write(run.path().join("state.json"), &state).unwrap();
    };
    refused(
        "a later process of that id",
        &|state| state["start_ticks"] = 1.into(),
        "is gone",
    );
    refused(
        "another boot",
        &|state| state["boot_id"] = "b".into(),
        "is gone",
    );
    refused(
        "another host",
        &|state| state["host"] = "elsewhere".into(),
        "runs on elsewhere",
    );
    refused(
        "no process",
        &|state| state["pid"] = u32::MAX.into(),
        "is gone",
    );
    assert!(child.try_wait().unwrap().is_none());
    signal_worker(run.path(), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    assert!(
        matches!(Liveness::for_run(run.path()), Liveness::Gone(words) if words.contains("lost its worker"))
    );
    assert!(
        signal_worker(run.path(), Signal::KILL)
            .unwrap_err()
            .to_string()
            .contains("is gone")
    );
}
