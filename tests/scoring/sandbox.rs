//! Attacks on the sandbox, in Python: each succeeds without isolation, so that it is known to be one, and is refused at
//! the levels that promise it.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use grpo_tui::sandbox::Level;
use grpo_tui::score::Task;

use super::command_processes::score;
use crate::program::{call, json_lines, stderr, stdout};

/// Ends with 0 where the attack has succeeded, with 1 and the reason where it was refused.
const HEAD: &str = r#"
import ctypes, os, signal, socket, sys, time
name, here, port, victim, large = sys.stdin.read(), *sys.argv[1:5]
large = large == "large"
def children(count, work):
    made = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            try: work(); time.sleep(20)
            finally: os._exit(0)
        made.append(child)
    return made
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as made: made.connect(address)
"#;

/// Name, program, and the lowest level that refuses it.
const ATTACKS: [(&str, &str, Level); 18] = [
    (
        "network by IP",
        "connect(socket.AF_INET, ('127.0.0.1', int(port)))",
        Level::Limited,
    ),
    (
        "Unix socket",
        "connect(socket.AF_UNIX, here + '/socket')",
        Level::Limited,
    ),
    (
        "abstract Unix socket",
        "connect(socket.AF_UNIX, '\\0' + here)",
        Level::Limited,
    ),
    (
        "private key",
        "assert 'secret' in open(here + '/home/.ssh/id_ed25519').read()",
        Level::Limited,
    ),
    ("task's folder", "assert os.listdir(here)", Level::Limited),
    (
        "environment of others",
        "for path in [f'/proc/{victim}/environ', f'/proc/{os.getppid()}/environ']:\n    if b'MARK=secret' in open(path, 'rb').read(): os._exit(0)\nraise OSError('no secret')",
        Level::Limited,
    ),
    (
        "processes of others",
        "assert os.path.exists(f'/proc/{victim}/stat')",
        Level::Strong,
    ),
    (
        "ptrace",
        "child = children(1, lambda: None)[0]\nassert ctypes.CDLL(None, use_errno=True).ptrace(16, child, 0, 0) == 0",
        Level::Limited,
    ),
    (
        "privileges",
        "status = dict(line.split(':\\t', 1) for line in open('/proc/self/status'))\nassert int(status['NoNewPrivs']) == 0 or int(status['CapEff'], 16) or int(status['Seccomp']) == 0",
        Level::Limited,
    ),
    (
        "writing outside",
        "open(here + '/outside', 'w').write('x')",
        Level::Limited,
    ),
    (
        "truncating outside",
        "os.truncate(here + '/long', 0)",
        Level::Limited,
    ),
    (
        "changing the scorer",
        "open('attack.py', 'a').write('#')",
        Level::Strong,
    ),
    (
        "limits of another",
        "import resource\nresource.prlimit(int(victim), resource.RLIMIT_NOFILE, (64, 64))",
        Level::Limited,
    ),
    (
        "killing another",
        "os.kill(int(victim), signal.SIGTERM)",
        Level::Limited,
    ),
    (
        "many processes",
        "children(10_000 if large else 700, lambda: None)",
        Level::Strong,
    ),
    (
        "much memory",
        "def fill():\n    mine = bytearray(200 << 20)\n    time.sleep(20)\nchildren(50 if large else 3, fill)\ntime.sleep(5)",
        Level::Strong,
    ),
    (
        "much on the disk",
        "for number in range(100 if large else 3):\n    with open(f'file-{number}', 'wb') as file:\n        file.write(bytes(100 << 20))",
        Level::Strong,
    ),
    // Nothing ends it then, and its answer is lost.
    (
        PARENT,
        "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(0.5)\nraise OSError('both live')",
        Level::Limited,
    ),
];
const PARENT: &str = "killing the parent";

fn attack_program() -> String {
    let each = ATTACKS.iter().map(|(name, program, _)| {
        let body: String = program
            .lines()
            .map(|line| format!("        {line}\n"))
            .collect();
        format!("    if name == {name:?}:\n{body}")
    });
    format!(
        "{HEAD}try:\n{}except (OSError, AssertionError) as error:\n    print(type(error).__name__, error, flush=True)\n    os._exit(1)\nos._exit(0)\n",
        each.collect::<String>()
    )
}

/// A process of the user's with a secret in its environment.
struct Victim(Child);

impl Victim {
    fn new() -> Self {
        Self(
            Command::new("sleep")
                .arg("600")
                .env("MARK", "secret")
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

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

/// The attacks that succeed at a level, and what each answered.
fn successes(folder: &Path, level: Level, has_namespaces: bool) -> (Vec<&'static str>, String) {
    let victim = Victim::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let size = if level == Level::Strong {
        "large"
    } else {
        "small"
    };
    let command = [
        "python3",
        "attack.py",
        folder.to_str().unwrap(),
        &port,
        &victim.0.id().to_string(),
        size,
    ];
    let names = ATTACKS.map(|(name, ..)| name);
    let keys = format!("memory_mib = 400\nisolation = \"{}\"\n", level.name());
    task(
        folder,
        &command,
        &keys,
        ("attack.py", &attack_program()),
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
        PARENT => score["tier"] != "invalid",
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

/// A folder with what the attacks look for.
fn attacked() -> (tempfile::TempDir, [UnixListener; 2]) {
    let folder = tempfile::tempdir_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
    let here = folder.path();
    fs::create_dir_all(here.join("home/.ssh")).unwrap();
    fs::write(here.join("home/.ssh/id_ed25519"), "secret").unwrap();
    fs::write(here.join("long"), "text").unwrap();
    let name = SocketAddr::from_abstract_name(here.as_os_str().as_encoded_bytes()).unwrap();
    let sockets = [
        UnixListener::bind(here.join("socket")).unwrap(),
        UnixListener::bind_addr(&name).unwrap(),
    ];
    (folder, sockets)
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn attacks_succeed_without_isolation() {
    let (folder, _sockets) = attacked();
    let (found, said) = successes(folder.path(), Level::None, true);
    assert_eq!(found, ATTACKS.map(|(name, ..)| name), "{said}");
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
    let (folder, _sockets) = attacked();
    let here = folder.path();
    let (found, said) = successes(here, level, level == Level::Strong);
    let refused = |name: &str| {
        ATTACKS
            .iter()
            .any(|(other, _, lowest)| *other == name && *lowest <= level)
    };
    let wrong: Vec<&str> = found.into_iter().filter(|name| refused(name)).collect();
    assert!(
        wrong.is_empty(),
        "{} lets through {wrong:?}\n{said}",
        level.name()
    );
    assert!(!here.join("outside").exists() && fs::read(here.join("long")).unwrap() == b"text");
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
