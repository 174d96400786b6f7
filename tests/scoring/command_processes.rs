//! The processes of programs that score: they end with the program that started them, run copies of what was trusted,
//! and have folders that nobody else can write in.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::program::{PROGRAM, call, json_lines, program, started_by, until};

/// A trusted task in `folder` whose completions are judged by `sh check.sh`, one process each.
fn task(folder: &Path, script: &str, completions: usize, keys: &str) {
    fs::create_dir_all(folder).unwrap();
    let toml = "name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"command\"\nmode = \"exit_code\"\ncommand = [\"sh\", \"check.sh\"]\nprocesses = 1\nseconds = 600\n";
    fs::write(folder.join("task.toml"), format!("{toml}{keys}")).unwrap();
    fs::write(folder.join("check.sh"), script).unwrap();
    let lines = (0..completions).map(|number| format!("{{\"completion\":\"{number}\"}}\n"));
    fs::write(folder.join("c.jsonl"), lines.collect::<String>()).unwrap();
    assert!(
        call(folder, &["task", "trust", ".", "--yes"])
            .status
            .success()
    );
}

/// `grpo-tui score` where the kernel gives namespaces, or where it gives none. No signal is ignored, whoever runs the test.
pub(crate) fn score(folder: &Path, has_namespaces: bool) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal");
    // Elsewhere it gives none anyway.
    if cfg!(can_isolate) && !has_namespaces {
        let none_inside = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
        command.args([
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            none_inside,
            "sh",
        ]);
    }
    command.arg(PROGRAM);
    started_by(command, folder, &["score", ".", "--json"])
}

/// Folders of programs that still run, or were killed.
fn scratch(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("home/cache/grpo-tui/scratch"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

#[test]
#[cfg_attr(not(can_isolate), ignore = "needs user namespaces")]
fn nothing_in_a_namespace_outlives_the_program_however_it_ends() {
    nothing_outlives_the_program(true);
}

#[test]
#[cfg_attr(
    not(can_limit),
    ignore = "needs Landlock, and namespaces that can be refused"
)]
fn nothing_outlives_the_program_without_namespaces_however_it_ends() {
    nothing_outlives_the_program(false);
}

fn nothing_outlives_the_program(has_namespaces: bool) {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let [lock, asleep] = ["lock", "asleep"].map(|name| {
        let path = here.canonicalize().unwrap().join(name);
        fs::write(&path, "").unwrap();
        path
    });
    // A daemon in a session of its own, one that keeps its output, and a loop; all hold the lock. Those of the first
    // row are left by a program that ended; the others sleep, so that a folder is there at the kill.
    let script = format!(
        "exec 9<'{}'\nsetsid sh -c 'sleep 600 & sleep 600' </dev/null >/dev/null 2>&1 &\n(setsid sleep 600 &)\nflock -s 9\nread -r number\n[ \"$number\" = 0 ] && exit\nexec 8<'{}'\nflock -s 8\nsleep 600\n",
        lock.display(),
        asleep.display()
    );
    task(
        here,
        &script,
        3,
        &format!("read = [{lock:?}, {asleep:?}]\n"),
    );
    let [lock, asleep] = [lock, asleep].map(|path| File::open(path).unwrap());
    let is_held = |lock: &File| lock.try_lock().is_err() || lock.unlock().is_err();
    for signal in ["KILL", "TERM", "INT", "HUP"] {
        let mut scoring = score(here, has_namespaces);
        let mut scoring = scoring
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the checkers hold the locks", || {
            is_held(&lock) && is_held(&asleep)
        });
        assert!(
            Command::new("kill")
                .arg(format!("-{signal}"))
                .arg(scoring.id().to_string())
                .status()
                .unwrap()
                .success()
        );
        scoring.wait().unwrap();
        until(&format!("all ends after {signal}"), || {
            lock.try_lock().is_ok()
        });
        lock.unlock().unwrap();
    }
    // What they have left goes with the next program that scores.
    assert!(!scratch(here).is_empty());
    task(here, "exit 0\n", 1, "");
    assert_eq!(
        json_lines(&call(here, &["score", ".", "--json"]))[0]["tier"],
        "valid"
    );
    assert!(scratch(here).is_empty(), "{:?}", scratch(here));
}

#[test]
fn a_program_that_is_replaced_while_it_scores_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (original, ran) = (here.join("check.sh"), here.join("ran"));
    let script = format!(
        "printf ': > \"{}\"\\nexit 1\\n' > '{}'\ntest -f task.toml && exit 2\nexit 0\n",
        ran.display(),
        original.display()
    );
    task(here, &script, 5, "isolation = \"none\"\n");
    let scores = json_lines(&call(here, &["score", ".", "--json"]));
    assert!(
        fs::read_to_string(&original).unwrap().ends_with("exit 1\n"),
        "it was replaced"
    );
    assert!(
        scores.len() == 5 && scores.iter().all(|score| score["tier"] == "valid"),
        "{scores:?}"
    );
    assert!(!ran.exists());
    // The next time it is not what was trusted.
    assert_eq!(call(here, &["score", "."]).status.code(), Some(1));
}

#[test]
fn no_other_user_can_write_above_the_folder_of_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    task(here, "pwd\nexit 1\n", 1, "isolation = \"none\"\n");
    let shared = here.join("tmp");
    let session = here.join("session");
    fs::create_dir_all(&shared).unwrap();
    fs::create_dir_all(&session).unwrap();
    let place = |mode: u32| -> String {
        fs::set_permissions(&session, Permissions::from_mode(mode)).unwrap();
        let mut command = program(here, &["score", ".", "--json"]);
        let output: Output = command
            .env("TMPDIR", &shared)
            .env("XDG_RUNTIME_DIR", &session)
            .output()
            .unwrap();
        json_lines(&output)[0]["errors"][0]["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let below = |folder: &str| {
        here.canonicalize()
            .unwrap()
            .join(folder)
            .display()
            .to_string()
    };
    let private = place(0o700);
    assert!(
        private.starts_with(&below("session/grpo-tui/scratch/")),
        "{private}"
    );
    let open = place(0o777);
    assert!(
        open.starts_with(&below("home/cache/grpo-tui/scratch/")),
        "{open}"
    );
}
