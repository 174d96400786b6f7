//! What a sandbox promises: each attempt succeeds without isolation, so that it is known to be one, and is refused at the
//! levels that promise it.

use std::fs;
use std::path::Path;
use std::process::Output;

use grpo_tui::sandbox::{Attacked, KILLS_PARENT, Level, PROMISES, probe_program};
use grpo_tui::score::Task;

use super::command_processes::score;
use crate::program::{call, json_lines, stderr, stdout};

/// A task in `folder` with this program as its scorer, one process for each completion.
fn task(folder: &Path, command: &[&str], keys: &str, file: (&str, &str), completions: &[&str]) {
    let head = "name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"command\"\nmode = \"exit_code\"\nprocesses = 1\nseconds = 60\n";
    fs::write(
        folder.join("task.toml"),
        format!("{head}command = {command:?}\n{keys}"),
    )
    .unwrap();
    fs::write(folder.join(file.0), file.1).unwrap();
    let line = |text: &&str| serde_json::json!({"completion": text}).to_string() + "\n";
    fs::write(
        folder.join("c.jsonl"),
        completions.iter().map(line).collect::<String>(),
    )
    .unwrap();
}

fn trust(folder: &Path) -> String {
    stdout(&call(folder, &["task", "trust", ".", "--yes"]))
}

/// The attempts that succeed at a level, and what each answered.
fn successes(folder: &Path, level: Level, has_namespaces: bool) -> (Vec<&'static str>, String) {
    let attacked = Attacked::new(folder).unwrap();
    let size = if level == Level::Strong {
        "large"
    } else {
        "small"
    };
    let arguments = attacked.arguments();
    let mut command = vec!["python3", "probe.py"];
    command.extend(arguments.iter().map(String::as_str).chain([size]));
    let names: Vec<&str> = PROMISES.iter().map(|promise| promise.name).collect();
    // At `none` processes and memory are counted, too.
    let most = if level == Level::None {
        "max_processes = 10000\nmemory_mib = 0\n"
    } else {
        "memory_mib = 400\n"
    };
    let keys = format!(
        "isolation = \"{}\"\nread = [{:?}]\n{most}",
        level.name(),
        attacked.shown()
    );
    task(
        folder,
        &command,
        &keys,
        ("probe.py", &probe_program()),
        &names,
    );
    trust(folder);
    let scores = json_lines(&score(folder, has_namespaces).output().unwrap());
    assert_eq!(scores.len(), names.len());
    let said: Vec<String> = names
        .iter()
        .zip(&scores)
        .map(|(name, score)| format!("{name}: {} {}", score["tier"], score["errors"]))
        .collect();
    let is_success = |name: &str, score: &serde_json::Value| match name {
        KILLS_PARENT => score["tier"] != "invalid",
        _ => score["tier"] == "valid",
    };
    let found = names
        .into_iter()
        .zip(&scores)
        .filter(|(name, score)| is_success(name, score));
    let said = said.join("\n");
    eprintln!("{}:\n{said}", level.name());
    (found.map(|(name, _)| name).collect(), said)
}

/// A folder for what the attempts look for.
fn attacked_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::temp_dir().canonicalize().unwrap()).unwrap()
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn attacks_succeed_without_isolation() {
    let folder = attacked_folder();
    let (found, said) = successes(folder.path(), Level::None, true);
    let all: Vec<&str> = PROMISES.iter().map(|promise| promise.name).collect();
    assert_eq!(found, all, "{said}");
}

#[test]
#[cfg_attr(
    not(all(has_python, can_isolate)),
    ignore = "needs python3 in PATH and user namespaces"
)]
fn attacks_are_refused_in_namespaces() {
    attacks_are_refused(Level::Strong);
}

#[test]
#[cfg_attr(
    not(all(has_python, can_limit)),
    ignore = "needs python3 in PATH, Landlock, and namespaces that can be refused"
)]
fn attacks_are_refused_without_namespaces() {
    attacks_are_refused(Level::Limited);
}

fn attacks_are_refused(level: Level) {
    let folder = attacked_folder();
    let here = folder.path();
    let (found, said) = successes(here, level, level == Level::Strong);
    let is_promised = |name: &str| {
        PROMISES
            .iter()
            .any(|promise| promise.name == name && promise.level <= level)
    };
    let wrong: Vec<&str> = found.into_iter().filter(|name| is_promised(name)).collect();
    assert!(
        wrong.is_empty(),
        "{} lets through {wrong:?}\n{said}",
        level.name()
    );
    assert!(!here.join("home/outside").exists() && fs::read(here.join("long")).unwrap() == b"text");
}

#[test]
fn the_docs_say_what_each_level_refuses() {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/programs.md")).unwrap();
    for level in [Level::None, Level::Limited, Level::Strong] {
        let names: Vec<&str> = PROMISES
            .iter()
            .filter(|promise| promise.level == level)
            .map(|promise| promise.name)
            .collect();
        let row = format!("| `{}` | {} |\n", level.name(), names.join("; "));
        assert!(page.contains(&row), "docs/programs.md lacks:\n{row}");
    }
}

#[test]
#[cfg_attr(
    not(all(has_python, can_isolate)),
    ignore = "needs python3 in PATH and user namespaces"
)]
fn the_doctor_tries_what_is_promised() {
    let folder = tempfile::tempdir().unwrap();
    let text = stdout(&call(folder.path(), &["doctor", "--json"]));
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tried = document["isolation"]["promises"].as_array().unwrap();
    assert_eq!(tried.len(), PROMISES.len());
    // What a busy machine had no time for is said; nothing of the rest succeeds.
    for row in tried {
        let is_late = row["is_held"].is_null() && row["why"] == "the time is up";
        assert!(row["is_held"] == true || is_late, "{row}");
    }
    assert!(tried.iter().any(|row| row["is_held"] == true), "{text}");
}

/// Forks without end, for three seconds if nobody ends it.
const FORKS: &str = "import os, time\nend = time.time() + 3\nwhile time.time() < end:\n    try: os.fork()\n    except OSError: pass\n";

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_program_that_forks_without_end_is_gone_with_its_verdict() {
    let folder = tempfile::tempdir().unwrap();
    for level in Level::ALL {
        if level == Level::Strong && cfg!(not(can_isolate)) {
            continue;
        }
        let keys = format!("isolation = \"{}\"\nmax_processes = 40\n", level.name());
        let command = ["python3", "bomb.py", folder.path().to_str().unwrap()];
        task(folder.path(), &command, &keys, ("bomb.py", FORKS), &["x"]);
        trust(folder.path());
        let output = score(folder.path(), true).output().unwrap();
        assert!(
            stderr(&output)
                .contains("started more than 40 processes and threads (max_processes in [score])"),
            "{}: {}",
            level.name(),
            stderr(&output)
        );
        let left = processes_with(folder.path());
        assert!(left.is_empty(), "{}: {left:?}", level.name());
    }
}

/// Command lines of processes that name a folder.
fn processes_with(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    let name = folder.to_str().unwrap();
    lines.filter(|line| line.contains(name)).collect()
}

#[test]
fn more_processes_than_the_machine_gives_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let given = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let given: u64 = given.trim().parse().unwrap();
    if given >= 1 << 20 {
        return;
    }
    let keys = "isolation = \"none\"\nmax_processes = 1000000\n";
    task(
        folder.path(),
        &["sh", "check.sh"],
        keys,
        ("check.sh", "exit 0\n"),
        &["x"],
    );
    trust(folder.path());
    let message = stderr(&score(folder.path(), true).output().unwrap());
    let expected = format!(
        "max_processes = 1000000 is more than this machine gives a program ({}): lower it in [score], or raise kernel.pid_max",
        given - 300
    );
    assert!(message.contains(&expected), "{message}");
}

/// Programs that make what others are refused for.
const WORKS: &str = r#"
import multiprocessing, os, resource, socket, sqlite3, sys
from multiprocessing import shared_memory
def double(number): return 2 * number
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool: assert pool.map(double, [1, 2]) == [2, 4]
    numbers = multiprocessing.Array("d", 1_000)
    shared = shared_memory.SharedMemory(create=True, size=1 << 16)
    shared.close(); shared.unlink()
    with multiprocessing.Manager() as manager: manager.dict()["a"] = 1
    os.chdir(os.environ["HOME"])
    database = sqlite3.connect("a.db")
    assert database.execute("pragma journal_mode = wal").fetchone() == ("wal",)
    database.execute("create table t (a)"); database.commit()
    one, other = socket.socketpair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
    socket.send_fds(one, [b"x"], [0])
    assert len(socket.recv_fds(other, 1, 1)[1]) == 1
    assert open("/dev/zero", "rb").read(4) == bytes(4)
    open("/dev/null", "w").write("x")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 256
"#;

#[test]
#[cfg_attr(
    not(all(has_python, can_isolate)),
    ignore = "needs python3 in PATH and user namespaces"
)]
fn programs_that_share_memory_by_files_work() {
    let folder = tempfile::tempdir().unwrap();
    let keys = "isolation = \"strong\"\n";
    task(
        folder.path(),
        &["python3", "works.py"],
        keys,
        ("works.py", WORKS),
        &["x"],
    );
    trust(folder.path());
    let output = score(folder.path(), true).output().unwrap();
    assert_eq!(
        json_lines(&output)[0]["tier"],
        "valid",
        "{}",
        stderr(&output)
    );
}

#[test]
#[cfg_attr(not(can_isolate), ignore = "needs user namespaces")]
fn a_task_may_ask_for_all_that_namespaces_give() {
    let folder = tempfile::tempdir().unwrap();
    for isolation in ["", "none", "limited", "strong"] {
        let output = scored_at(folder.path(), isolation, true);
        assert_eq!(json_lines(&output)[0]["tier"], "valid", "{isolation}");
    }
}

#[test]
#[cfg_attr(
    not(can_limit),
    ignore = "needs Landlock, and namespaces that can be refused"
)]
fn a_task_that_asks_for_more_than_the_machine_gives_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for isolation in ["", "none", "limited"] {
        let output = scored_at(folder.path(), isolation, false);
        assert_eq!(json_lines(&output)[0]["tier"], "valid", "{isolation}");
    }
    let output = scored_at(folder.path(), "strong", false);
    assert_eq!(output.status.code(), Some(1));
    for part in [
        "isolation strong is asked for, this machine gives limited: user namespaces are refused (",
        "or accept less with `isolation = \"limited\"` in [score]",
    ] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

/// Scores by a program that accepts everything; an empty `isolation` asks for none in particular.
fn scored_at(folder: &Path, isolation: &str, has_namespaces: bool) -> Output {
    let keys = if isolation.is_empty() {
        String::new()
    } else {
        format!("isolation = {isolation:?}\n")
    };
    task(
        folder,
        &["sh", "check.sh"],
        &keys,
        ("check.sh", "exit 0\n"),
        &["x"],
    );
    trust(folder);
    score(folder, has_namespaces).output().unwrap()
}

#[test]
#[cfg_attr(
    not(any(can_isolate, can_limit)),
    ignore = "needs user namespaces or Landlock"
)]
fn a_file_that_the_sandbox_hides_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (task_folder, other) = (
        folder.path().join("task"),
        folder.path().canonicalize().unwrap().join("words.txt"),
    );
    fs::create_dir(&task_folder).unwrap();
    fs::write(&other, "a\n").unwrap();
    let check = |keys: &str| {
        let script = format!("cat '{}'\n", other.display());
        task(
            &task_folder,
            &["sh", "check.sh"],
            keys,
            ("check.sh", &script),
            &["x"],
        );
        let trusted = trust(&task_folder);
        let output = call(&task_folder, &["score", ".", "--json"]);
        (stderr(&output), output.status.success(), trusted)
    };
    let (message, ..) = check("");
    let remedy = format!(
        "; the sandbox hides {0}: add read = [\"{0}\"] to [score], or isolation = \"none\"",
        other.display()
    );
    assert!(
        message.contains("the scorer ended with exit code 1: cat:") && message.contains(&remedy),
        "{message}"
    );
    let (_, is_valid, trusted) = check(&format!("read = [{other:?}]\n"));
    assert!(
        is_valid && trusted.contains(&format!("  reads    {}\n", other.display())),
        "{trusted}"
    );
    assert!(check("isolation = \"none\"\n").1);
    // It is absent for everybody.
    fs::remove_file(&other).unwrap();
    let (message, is_valid, _) = check("");
    assert!(is_valid && !message.contains("hides"), "{message}");
}

/// In the sandbox, /dev/shm is a link.
#[test]
#[cfg_attr(
    not(any(can_isolate, can_limit)),
    ignore = "needs user namespaces or Landlock"
)]
fn files_in_shared_memory_are_read_where_they_are() {
    let (folder, shared) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir_in("/dev/shm").unwrap(),
    );
    let file = shared.path().join("words.txt");
    fs::write(&file, "a\n").unwrap();
    let script = format!("grep -q a '{}' || exit 1\n", file.display());
    let valid = |keys: &str| {
        task(
            folder.path(),
            &["sh", "check.sh"],
            keys,
            ("check.sh", &script),
            &["x"],
        );
        trust(folder.path());
        json_lines(&call(folder.path(), &["score", ".", "--json"]))[0]["tier"] == "valid"
    };
    assert!(valid(&format!("read = [{:?}]\n", shared.path())));
    assert!(valid(&format!("read = [{file:?}]\n")));
}

#[test]
fn wrong_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (keys, expected) in [
        (
            "isolation = \"hard\"",
            "`score.isolation` takes strong, limited, none, not \"hard\"",
        ),
        ("isolation = 3", "isolation"),
        ("read = \"/data\"", "a list of strings in quotes"),
        (
            "read = [\"data\"]",
            "takes absolute paths such as \"/data/words.txt\", not \"data\"",
        ),
        ("read = [\"/data/../etc\"]", "takes absolute paths"),
        ("read = [\"/\"]", "takes absolute paths"),
        ("read = [\"/tmp\"]", "takes absolute paths"),
    ] {
        task(
            folder.path(),
            &["sh", "check.sh"],
            keys,
            ("check.sh", "exit 0\n"),
            &["x"],
        );
        let message = Task::load(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("task.toml line 10") && message.contains(expected),
            "{keys}: {message}"
        );
    }
}
