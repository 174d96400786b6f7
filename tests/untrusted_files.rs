//! Files that somebody else wrote: paths that lead out of their folder, FIFOs where files should be, lines without end. Nothing outside is read, quoted,
//! copied or written, and nothing waits.
#![cfg(feature = "engine")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::command_line::{SHORT, call, command, small_task, stderr};

/// Ends the program where it takes longer than any of these commands should.
fn timed(folder: &Path, arguments: &[&str]) -> Output {
    let mut child = command(folder, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{arguments:?} waits: {}", stderr(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Everything that was said, which names `parts` and not what the file outside holds.
fn refused(output: &Output, parts: &[&str]) {
    let said = stderr(output) + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("root-only"), "what is outside was quoted: {said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}

#[test]
fn a_task_cannot_lead_out_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("secret");
    let absolute = outside.display().to_string();
    let by_link = |file: &'static str| {
        move |task: &Path| {
            let _ = fs::remove_file(task.join(file));
            symlink("../secret", task.join(file)).unwrap();
        }
    };
    let written = |from: &'static str, to: String| {
        move |task: &Path| {
            let text = fs::read_to_string(task.join("task.toml")).unwrap();
            assert!(text.contains(from));
            fs::write(task.join("task.toml"), text.replacen(from, &to, 1)).unwrap();
        }
    };
    type Damage<'a> = &'a dyn Fn(&Path);
    let link = "is a link to ";
    let path = "is outside the task's folder";
    let cases: [(Damage<'_>, &[&str]); 9] = [
        (&written("\"train.jsonl\"", format!("{absolute:?}")), &[&absolute, path, "copy the file into the folder"]),
        (&written("\"eval.jsonl\"", "\"../secret\"".to_owned()), &["\"../secret\"", path]),
        (&written("\"completions.jsonl\"", "\"x/../../secret\"".to_owned()), &["\"x/../../secret\"", path]),
        (&written("\"generator.toml\"", "\"../secret\"".to_owned()), &["\"../secret\"", path]),
        (&written("\"schema.json\"", "\"../secret\"".to_owned()), &["\"../secret\"", path]),
        (&by_link("train.jsonl"), &["\"train.jsonl\"", link, "secret", "replace the link by a copy"]),
        (&by_link("schema.json"), &["\"schema.json\"", link]),
        (&by_link("task.toml"), &["\"task.toml\"", link]),
        (
            &|task| {
                symlink("..", task.join("up")).unwrap();
                written("\"train.jsonl\"", "\"up/secret\"".to_owned())(task);
            },
            &["\"up/secret\"", link],
        ),
    ];
    for (damage, parts) in cases {
        let _ = fs::remove_dir_all(folder.path().join("task"));
        fs::write(&outside, "root-only: first line\n").unwrap();
        damage(&small_task(folder.path()));
        for arguments in [&["score", "task"][..], &["task", "check", "task"], &["dataset", "build", "task"], &["dataset", "check", "task"]]
        {
            refused(&call(folder.path(), arguments), parts);
        }
        refused(&call(folder.path(), &[&["train", "task", "--runs", "runs"], &SHORT[..]].concat()), parts);
        assert_eq!(fs::read_to_string(&outside).unwrap(), "root-only: first line\n", "what is outside was written");
        assert!(!folder.path().join("runs").exists(), "a run was made of it");
    }
}

#[test]
fn a_set_is_built_inside_and_never_over_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    let text = fs::read_to_string(task.join("task.toml")).unwrap();
    for file in ["task.toml", "schema.json", "./generator.toml", "eval.jsonl"] {
        fs::write(task.join("task.toml"), text.replacen("\"train.jsonl\"", &format!("{file:?}"), 1)).unwrap();
        let before = fs::read(task.join(file)).unwrap();
        refused(&call(folder.path(), &["dataset", "build", "task"]), &["is named twice", "a file of its own"]);
        assert_eq!(fs::read(task.join(file)).unwrap(), before);
    }
    fs::write(task.join("task.toml"), text).unwrap();
    // A folder of its own is held to the same rule.
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(folder.path().join("secret"), "root-only").unwrap();
    symlink("../secret", out.join("train.jsonl")).unwrap();
    refused(&call(folder.path(), &["dataset", "build", "task", "--out", "out"]), &["\"train.jsonl\"", "is a link to "]);
    refused(&call(folder.path(), &["dataset", "build", "task", "--out", "out", "--check"]), &["\"train.jsonl\"", "is a link to "]);
    assert_eq!(fs::read_to_string(folder.path().join("secret")).unwrap(), "root-only");
    fs::remove_file(out.join("train.jsonl")).unwrap();
    let built = call(folder.path(), &["dataset", "build", "task", "--out", "out"]);
    assert!(built.status.success() && out.join("train.jsonl").is_file(), "{}", stderr(&built));
}

#[test]
fn links_inside_a_task_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    fs::create_dir(task.join("sets")).unwrap();
    fs::rename(task.join("train.jsonl"), task.join("sets/one.jsonl")).unwrap();
    symlink("sets/one.jsonl", task.join("train.jsonl")).unwrap();
    let output = call(folder.path(), &["task", "check", "task"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_fifo_of_a_task_or_a_model_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let what = "not a regular file but a FIFO";
    for file in ["schema.json", "train.jsonl", "completions.jsonl"] {
        let _ = fs::remove_dir_all(folder.path().join("task"));
        fifo(&small_task(folder.path()).join(file));
        refused(&timed(folder.path(), &["task", "check", "task"]), &[file, what, "put a regular file there"]);
    }
    fs::remove_dir_all(folder.path().join("task")).unwrap();
    small_task(folder.path());
    let model = folder.path().join("model");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        let _ = fs::remove_dir_all(&model);
        fs::create_dir(&model).unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/models/tiny")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
        }
        fifo(&model.join(file));
        let output = timed(folder.path(), &["eval", "task", "--model", "base=model", "--on", "eval"]);
        assert_eq!(output.status.code(), Some(1), "{file}: {}", stderr(&output));
        assert!(stderr(&output).contains(file), "{file}: {}", stderr(&output));
    }
}

/// Panics that are handled are no bug of ours: of the template engine on its own thread, and of the regular expressions of a tokenizer.
#[test]
fn a_panic_caused_by_a_model_is_an_error_of_that_model() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/models/tiny")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let check = |parts: &[&str]| {
        let output = timed(folder.path(), &["eval", "task", "--model", "base=model", "--on", "eval"]);
        refused(&output, parts);
        assert!(!stderr(&output).contains("hit a bug"), "{}", stderr(&output));
    };
    let tokenizer = fs::read_to_string(model.join("tokenizer.json")).unwrap();
    let mut damaged: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    damaged["pre_tokenizer"] =
        serde_json::json!({"type": "Split", "pattern": {"Regex": "((.|\\n)+(.|\\n)+)+$y"}, "behavior": "Isolated", "invert": false});
    fs::write(model.join("tokenizer.json"), damaged.to_string()).unwrap();
    check(&["tokenizer.json: cannot encode a text: tokenizer failed"]);
    fs::write(model.join("tokenizer.json"), tokenizer).unwrap();
    fs::write(model.join("chat_template.jinja"), "{{ [][::-1] | list }}").unwrap();
    check(&["chat_template.jinja: chat template: the template engine failed: index out of bounds"]);
}

#[test]
fn a_fifo_in_one_run_keeps_no_other_from_being_listed() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/finished-run");
    let run = |name: &str| {
        let to = folder.path().join("runs").join(name);
        assert!(Command::new("cp").arg("-r").arg(&sample).arg(&to).status().unwrap().success() || to.is_dir());
        to
    };
    fs::create_dir(folder.path().join("runs")).unwrap();
    let whole = run("whole");
    let id = fs::read_to_string(whole.join("run.toml")).unwrap();
    let id = id.lines().find_map(|line| line.strip_prefix("id = \"")).unwrap().trim_end_matches('"').to_owned();
    fs::rename(&whole, folder.path().join("runs").join(&id)).unwrap();
    let damaged = run("damaged");
    for file in ["run.toml", "events.jsonl", "events.index", "state.json", "lock", "tags.json", "worker.log", "notes.md", "task/task.toml"]
    {
        let kept = fs::read(damaged.join(file)).ok();
        fifo(&damaged.join(file));
        let listed = timed(folder.path(), &["runs", "list", "--runs", "runs"]);
        let said = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success() && said.contains(&id), "{file}: {said}{}", stderr(&listed));
        for verb in ["show", "export", "attach"] {
            timed(folder.path(), &["runs", verb, "runs/damaged", "--runs", "runs"]);
        }
        timed(folder.path(), &["train", "--runs", "runs", "--resume", "runs/damaged"]);
        fs::remove_file(damaged.join(file)).unwrap();
        if let Some(bytes) = kept {
            fs::write(damaged.join(file), bytes).unwrap();
        }
    }
}

#[test]
fn completions_have_lines_that_end_and_may_begin_with_a_mark() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    let text = fs::read(task.join("completions.jsonl")).unwrap();
    let plain = call(folder.path(), &["score", "task", "--json"]);
    fs::write(task.join("completions.jsonl"), ["\u{feff}".as_bytes(), &text].concat()).unwrap();
    let marked = call(folder.path(), &["score", "task", "--json"]);
    assert!(marked.status.success() && marked.stdout == plain.stdout, "{}", stderr(&marked));
    let endless = timed(folder.path(), &["score", "task", "--completions", "/dev/zero"]);
    refused(&endless, &["/dev/zero line 1: longer than 64 MiB; write one JSON object a line"]);
}

#[test]
fn an_argument_that_is_not_utf8_is_recorded_as_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let runs = std::ffi::OsStr::from_bytes(b"r\xffns");
    let mut training = command(folder.path(), &[&["train", "task"], &SHORT[..]].concat());
    let output = training.arg("--runs").arg(runs).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let run = fs::read_dir(folder.path().join(runs)).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(run.join("run.toml")).unwrap().contains("r\u{fffd}ns"));
    // What names a task, a model or a key is text.
    let refused = command(folder.path(), &["score"]).arg(runs).output().unwrap();
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("UTF-8"), "{}", stderr(&refused));
}
