//! Completion: the candidates that the program names, and what bash, zsh and fish make of them.

use std::path::Path;
use std::process::Command;

use grpo_tui::run::{RunDirectory, rename_run};

use crate::program::{PROGRAM, sample_task, started_by, stderr};
use crate::run_directory::finished::{Made, made};
use crate::view::pty_session::{Session, Start};

/// A workspace with a task and a run, and a model in the cache.
fn workspace(folder: &Path) -> RunDirectory {
    sample_task(&folder.join("tasks/my-task"), [2, 2, 2]);
    // The random end of its id must not begin as the models that the tests complete.
    let run = loop {
        let run = made(
            &folder.join("runs"),
            &Made {
                name: "given at the start",
                ..Made::default()
            },
        );
        if !run.id().rsplit('-').next().unwrap().starts_with(['b', 't']) {
            break run;
        }
        std::fs::remove_dir_all(run.path()).unwrap();
    };
    for file in ["config.json", "model.safetensors"] {
        let path = folder
            .join("hub/models--org--cached/snapshots/x")
            .join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    run
}

/// What the program answers to the words after its name, in fish's form: value, tab and help.
fn candidates(folder: &Path, words: &[&str]) -> Vec<String> {
    let mut command = started_by(Command::new(PROGRAM), folder, &["--", "grpo-tui"]);
    command
        .args(words)
        .env("GRPO_TUI_COMPLETE", "fish")
        .env("HF_HUB_CACHE", folder.join("hub"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn values(folder: &Path, words: &[&str]) -> Vec<String> {
    let value = |line: String| line.split('\t').next().unwrap().to_owned();
    candidates(folder, words).into_iter().map(value).collect()
}

#[test]
fn tasks_runs_models_keys_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let run = workspace(folder.path());
    let id = run.id();
    let check = |words: &[&str], expected: &[&str]| {
        assert_eq!(values(folder.path(), words), expected, "{words:?}")
    };
    check(&["trai"], &["train"]);
    check(&["train", "my"], &["my-task"]);
    check(&["score", "ta"], &["tasks/"]);
    check(
        &["train", "my-task", "--set", "keep_best"],
        &["keep_best_by="],
    );
    check(
        &["train", "my-task", "--set", "keep_best_by="],
        &["valid_if_exact_holds", "valid", "exact"]
            .map(|value| format!("keep_best_by={value}"))
            .each_ref()
            .map(String::as_str),
    );
    check(
        &["train", "my-task", "--set=method=g"],
        &["--set=method=grpo"],
    );
    check(
        &["train", "my-task", "--set", "base_model=org"],
        &["base_model=org/cached"],
    );
    check(&["train", "my-task", "--set", "no_such_key="], &[]);
    check(
        &["train", "my-task", "--preset", ""],
        &["quick", "seed", "recommended"],
    );
    check(
        &["train", "my-task", "--model", "t"],
        &[
            "tiny",
            "tiny-assistant",
            "tiny-python",
            "tiny-shell",
            "tiny-sql",
            "tiny-tools",
            "tasks/",
        ],
    );
    check(
        &["eval", "my-task", "--model", "base=ti"],
        &[
            "base=tiny",
            "base=tiny-assistant",
            "base=tiny-python",
            "base=tiny-shell",
            "base=tiny-sql",
            "base=tiny-tools",
        ],
    );
    check(&["eval", "my-task", "--model", "b"], &["base="]);
    check(&["runs", "show", &id[..8]], &[id]);
    check(
        &["runs", "show", &id[id.len() - 6..id.len() - 2]],
        &[&id[id.len() - 6..]],
    );
    check(&["runs", "compare", id, &id[..8]], &[id]);
    check(
        &["runs", "tag", &format!("x,{}", &id[..8])],
        &[&format!("x,{id}")],
    );
    check(&["train", "--resume", &id[..8]], &[id]);
    let checkpoints = ["best", "last", "0", "20", "40"].map(|place| format!("{id}@{place}"));
    check(
        &["eval", "my-task", "--model", &format!("{id}@")],
        &checkpoints.each_ref().map(String::as_str),
    );
    check(&["runs", "set", id, "m"], &["max_steps="]);
    check(&["runs", "list", "--sort", "outc"], &["outcome"]);
    check(
        &["runs", "list", "--columns", "id,config.lora_r"],
        &["id,config.lora_rank"],
    );
    // Of another folder, where there is a run of that name only.
    let other = made(&folder.path().join("other"), &Made::default());
    check(&["runs", "--runs", "other", "show", "2"], &[other.id()]);
    check(&["runs", "--runs=other", "show", "2"], &[other.id()]);
    let help = |words: &[&str]| {
        candidates(folder.path(), words)
            .remove(0)
            .split_once('\t')
            .unwrap()
            .1
            .to_owned()
    };
    assert_eq!(help(&["runs", "show", "2"]), "given at the start");
    rename_run(run.path(), "renamed").unwrap();
    assert_eq!(help(&["runs", "show", "2"]), "renamed");
    assert_eq!(
        help(&["train", "my-task", "--set", "method="]),
        "default, preset quick, preset seed"
    );
    assert!(help(&["train", "my-task", "--set", "meth"]).starts_with("How to train"));
}

/// A run's name and folder may be anybody's.
#[test]
fn names_of_others_are_one_visible_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = workspace(folder.path());
    let file = run.path().join("run.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let token = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
    std::fs::write(
        &file,
        text.replace(
            "\"given at the start\"",
            &format!("\"a\\u001b[2J\\nb {token}\""),
        ),
    )
    .unwrap();
    let copy = folder.path().join("runs/2026\n--forged");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(&file, copy.join("run.toml")).unwrap();
    assert_eq!(
        candidates(folder.path(), &["runs", "show", "2"]),
        [format!("{}\ta␛[2J␊b ghp_…(40 characters)", run.id())]
    );
}

/// What stands on a shell's command line after a tab: `expected`, perhaps with a space behind it.
fn completed(folder: &Path, shell: &str, setup: &str, typed: &str, expected: &str) -> String {
    let start = format!("PATH=$(dirname \"$1\"):$PATH; export PATH; exec {shell}");
    let cache = folder.join("hub").display().to_string();
    let variables = [("HF_HUB_CACHE", cache.as_str())];
    let mut session = Session::start(
        folder,
        &Start {
            columns: 200,
            shell: Some(&start),
            variables: &variables,
            ..Start::PLAIN
        },
    );
    session.send(&format!("{setup}\recho ready 4''2\r"));
    session.wait_text("ready 42");
    // A shell that has more to read may not ask the program.
    session.send(&format!("{typed}\t"));
    session.wait_text(expected.trim_end());
    // To the beginning, to the end.
    session.send("\u{1}echo '<\u{5}>'\r");
    let line = |session: &Session| {
        session
            .screen()
            .lines()
            .find_map(|line| Some(line.strip_prefix('<')?.strip_suffix('>')?.to_owned()))
    };
    session.wait_for(typed, |session| line(session).is_some());
    line(&session).unwrap()
}

fn check_shell(shell: &str, setup: &str) {
    let folder = tempfile::tempdir().unwrap();
    let id = workspace(folder.path()).id().to_owned();
    // As `just install` places it.
    std::fs::create_dir(folder.path().join("functions")).unwrap();
    let script = started_by(
        Command::new(PROGRAM),
        folder.path(),
        &["completions", "zsh"],
    )
    .output()
    .unwrap();
    std::fs::write(folder.path().join("functions/_grpo-tui"), script.stdout).unwrap();
    let show = format!("grpo-tui runs show {id} ");
    for (typed, expected) in [
        ("grpo-tui train my", "grpo-tui train my-task "),
        (
            "grpo-tui train my-task --set keep_best",
            "grpo-tui train my-task --set keep_best_by=",
        ),
        (
            "grpo-tui train my-task --set keep_best_by=ex",
            "grpo-tui train my-task --set keep_best_by=exact ",
        ),
        (
            "grpo-tui train my-task --set=method=g",
            "grpo-tui train my-task --set=method=grpo ",
        ),
        (
            "grpo-tui eval my-task --model base=ti",
            "grpo-tui eval my-task --model base=tiny ",
        ),
        (
            "grpo-tui train x --model org",
            "grpo-tui train x --model org/cached ",
        ),
        ("grpo-tui runs show 2", &show),
    ] {
        let found = completed(folder.path(), shell, setup, typed, expected);
        assert_eq!(found.trim_end(), expected.trim_end(), "{shell}: {typed}");
        assert!(
            found == expected || expected.ends_with(' '),
            "{shell}: no space after {expected}"
        );
    }
}

#[test]
#[cfg_attr(not(has_bash), ignore = "needs bash")]
fn bash_completes() {
    check_shell(
        "bash --norc --noprofile -i",
        "source <(grpo-tui completions bash)",
    );
}

#[test]
#[cfg_attr(not(has_zsh), ignore = "needs zsh")]
fn zsh_completes() {
    check_shell(
        "zsh -f -i",
        "fpath=($HOME/functions $fpath); autoload -U compinit; compinit -u -D",
    );
}

#[test]
#[cfg_attr(not(has_fish), ignore = "needs fish")]
fn fish_completes() {
    check_shell("fish --no-config -i", "grpo-tui completions fish | source");
}
