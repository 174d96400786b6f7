//! What can be wrong with what the program is given: one clear message with the place and the remedy, exit code 1 or 2, and nothing that existed harmed.
#![cfg(feature = "engine")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use grpo_tui::run::RunLock;

use crate::command_line::{SHORT, call, command, finished, small_task, stderr};

/// Every file below a folder with its bytes, and every folder.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
            found.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

/// One sentence with all the parts, the exit code, nothing on stdout.
fn assert_said(output: &Output, code: i32, parts: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(!said.contains("panicked") && output.stdout.is_empty(), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}

/// The command fails, says so, and leaves the folder as it was.
fn check(folder: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let before = snapshot(folder);
    assert_said(&call(folder, arguments), code, parts);
    assert!(snapshot(folder) == before, "{arguments:?} left something else than it found");
}

fn training<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "task", "--runs", "runs"], &SHORT[..], more].concat()
}

#[test]
fn a_task_with_something_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let remove = |file: &'static str| move |task: &Path| fs::remove_file(task.join(file)).unwrap();
    let write = |file: &'static str, text: &'static str| move |task: &Path| fs::write(task.join(file), text).unwrap();
    let replace = |file: &'static str, from: &'static str, to: &'static str| {
        move |task: &Path| {
            let text = fs::read_to_string(task.join(file)).unwrap();
            assert!(text.contains(from));
            fs::write(task.join(file), text.replacen(from, to, 1)).unwrap();
        }
    };
    let cases: [(Damage<'_>, i32, &[&str]); 17] = [
        // Missing files.
        (&remove("task.toml"), 1, &["no task \"task\"", "the folder has no task.toml"]),
        (&remove("schema.json"), 1, &["task/schema.json: No such file", "write the file, or name another one in task.toml"]),
        (&remove("train.jsonl"), 1, &["task/train.jsonl: No such file", "write the file"]),
        (&remove("eval.jsonl"), 1, &["task/eval.jsonl: No such file", "write the file"]),
        (&remove("eval-large.jsonl"), 1, &["task/eval-large.jsonl: No such file", "write the file"]),
        // Malformed lines.
        (&write("eval.jsonl", "\n{\"messages\": ["), 1, &["task/eval.jsonl line 2: not JSON at column 14", "one whole JSON object a line"]),
        (
            &write("eval-large.jsonl", "{\"prompt\":\"x\"}"),
            1,
            &["task/eval-large.jsonl line 1: missing `messages` (it has `prompt`)", "write {"],
        ),
        (&write("train.jsonl", "[]"), 1, &["task/train.jsonl line 1: expected an object, found `[]`", "write {"]),
        (&write("schema.json", "{\n\"type\": }"), 1, &["task/schema.json line 2"]),
        (&replace("task.toml", "train = \"train.jsonl\"", "train ="), 1, &["task/task.toml line 8 column"]),
        // Empty sets.
        (&write("train.jsonl", ""), 1, &["task/train.jsonl: no prompt rows; write one JSON object a line"]),
        (&write("eval.jsonl", "\n\n"), 1, &["task/eval.jsonl: no prompt rows; write one JSON object a line"]),
        (
            &replace("task.toml", "train = \"train.jsonl\"", ""),
            1,
            &["task/task.toml: the task has no training prompts; name a file under [prompts] train"],
        ),
        // Keys of the task's own configuration.
        (
            &replace("task.toml", "max_steps = 40", "max_step = 40"),
            2,
            &["task/task.toml line 33: unknown key `max_step`; did you mean `max_steps`?"],
        ),
        (
            &replace("task.toml", "max_steps = 40", "max_steps = \"x\""),
            2,
            &["task/task.toml line 33: `max_steps` is string `x`; it must be"],
        ),
        (&replace("task.toml", "strip_thinking", "strip_thinkin"), 1, &["task/task.toml line 18", "did you mean `strip_thinking`?"]),
        (&replace("task.toml", "unparsable = 0.0", "unparsable = 2.0"), 1, &["task/task.toml line 16", "must rise"]),
    ];
    for (damage, code, parts) in cases {
        let _ = fs::remove_dir_all(folder.path().join("task"));
        damage(&small_task(folder.path()));
        check(folder.path(), &training(&[]), code, parts);
    }
    check(folder.path(), &["train", "./nonesuch"], 1, &["no task \"./nonesuch\": no such folder; `grpo-tui init DIR` makes"]);
    check(folder.path(), &["eval", "invoise", "--model", "tiny"], 1, &["no task \"invoise\": did you mean `invoice`?"]);
}

#[test]
fn a_prompt_that_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    let long = format!("{{\"id\":\"long\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}\n", "7".repeat(1500));
    fs::write(task.join("eval.jsonl"), long).unwrap();
    let place = "task/eval.jsonl line 1 (`long`): the prompt has 1";
    let limit = "limit 416 (max_seq_len 512 less max_completion_tokens 96); shorten it, or raise max_seq_len";
    check(folder.path(), &training(&[]), 1, &[place, limit]);
    let limit = "limit 928 (the model's 1024 positions less max_completion_tokens 96); shorten it, lower max_completion_tokens";
    check(folder.path(), &training(&["--set", "max_seq_len=100000"]), 1, &[place, limit]);
    check(folder.path(), &["eval", "task", "--model", "tiny", "--on", "eval"], 1, &[place, limit]);
    check(folder.path(), &["sample", "task", "--model", "tiny"], 1, &[place, limit]);
}

#[test]
fn a_model_with_something_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let model = folder.path().join("model");
    let truncate = |file: &str, bytes: usize| {
        let path = model.join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(path, &whole[..bytes]).unwrap();
    };
    type Damage<'a> = &'a dyn Fn();
    let cases: [(Damage<'_>, &[&str]); 8] = [
        (
            &|| truncate("model.safetensors", 1_000_000),
            &["model/model.safetensors: truncated", "the file has 1000000", "copy the file again"],
        ),
        (&|| truncate("model.safetensors", 5), &["model/model.safetensors: 5 bytes are too few", "copy the file again"]),
        (
            &|| fs::remove_file(model.join("model.safetensors")).unwrap(),
            &["model/model.safetensors: no such file", "fetch the model again"],
        ),
        (
            &|| fs::remove_file(model.join("tokenizer.json")).unwrap(),
            &["model/tokenizer.json: no such file", "copy the file beside its config.json"],
        ),
        (&|| truncate("tokenizer.json", 100), &["model/tokenizer.json"]),
        (&|| fs::remove_file(model.join("config.json")).unwrap(), &["model/config.json: no such file", "check the folder"]),
        (&|| truncate("config.json", 10), &["model/config.json: not valid JSON", "fetch the model again"]),
        (
            &|| {
                let path = model.join("tokenizer_config.json");
                let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                config.as_object_mut().unwrap().remove("chat_template").unwrap();
                fs::write(path, config.to_string()).unwrap();
            },
            &["model/tokenizer_config.json: no chat template", "use an instruct model, or add a `chat_template.jinja`"],
        ),
    ];
    for (damage, parts) in cases {
        let _ = fs::remove_dir_all(&model);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/models/tiny"), &model);
        damage();
        check(folder.path(), &training(&["--model", "model"]), 1, parts);
        check(folder.path(), &["eval", "task", "--model", "base=model"], 1, parts);
    }
    for arguments in [&training(&["--model", "nonesuch"])[..], &["eval", "task", "--model", "nonesuch"]] {
        check(folder.path(), arguments, 1, &["`nonesuch` is neither a model", "`tiny` (embedded)", "nor a run (no run `nonesuch` in "]);
    }
}

#[test]
fn a_configuration_with_something_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let set = |assignment: &str, parts: &[&str]| check(folder.path(), &training(&["--set", assignment]), 2, parts);
    set("learning_rat=1e-4", &["--set: unknown key `learning_rat`; did you mean `learning_rate`?"]);
    set("zzz=1", &["--set: unknown key `zzz`; `grpo-tui train --help` lists all keys"]);
    set("learning_rate=fast", &["--set: `learning_rate` is `fast`; it must be a number from 0 to 10"]);
    set("learning_rate=-1", &["`learning_rate` is `-1`; it must be a number from 0 to 10"]);
    set("max_steps=1.5", &["`max_steps` is `1.5`; it must be a whole number"]);
    set("policy_loss=grp", &["`policy_loss` is `grp`; it must be one of grpo, "]);
    set("dynamic_sampling=maybe", &["`dynamic_sampling` is `maybe`; it must be"]);
    set("max_steps", &["--set max_steps: write it as key=value"]);
    set("completions_per_prompt=1", &["completions_per_prompt = 1", "set it to 2 or more"]);
    set(
        "max_completion_tokens=5000",
        &["max_completion_tokens (5000) leaves no tokens for the prompt within max_seq_len (512)", "raise max_seq_len or lower"],
    );
    let file = |text: &str, parts: &[&str]| {
        fs::write(folder.path().join("more.toml"), text).unwrap();
        check(folder.path(), &training(&["--config", "more.toml"]), 2, parts);
    };
    file("seed = 1\nlearnin_rate = 1\n", &["more.toml line 2: unknown key `learnin_rate`; did you mean `learning_rate`?"]);
    file("learning_rate = true\n", &["more.toml line 1: `learning_rate` is boolean `true`; it must be a number from 0 to 10"]);
    file("seed = 1\nlearning_rate =\n", &["more.toml line 2: "]);
    check(folder.path(), &training(&["--config", "none.toml"]), 2, &["--config none.toml: No such file", "name a TOML file"]);
}

#[test]
fn a_disk_that_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    // A file where the folder should be.
    fs::write(folder.path().join("runs"), "mine").unwrap();
    check(folder.path(), &training(&[]), 1, &["cannot create runs: File exists", "remove it, or choose another folder with --runs DIR"]);
    fs::remove_file(folder.path().join("runs")).unwrap();
    // No file larger than 1 MB, and no signal about it: the first checkpoint cannot be written, whoever asks.
    let program = command(folder.path(), &[]);
    let limited = format!("trap '' XFSZ; ulimit -f 2000; exec '{}' {}", program.get_program().display(), training(&[]).join(" "));
    let mut shell = Command::new("sh");
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            shell.env(name, value)
        } else {
            shell.env_remove(name)
        };
    }
    let output = shell.args(["-c", &limited]).current_dir(folder.path()).output().unwrap();
    assert_said(
        &output,
        1,
        &["checkpoints/.step-000000.partial/model.safetensors: File too large", "Free space", "then resume: grpo-tui train --resume "],
    );
    let run = fs::read_dir(folder.path().join("runs")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_dir(run.join("checkpoints")).unwrap().next().is_none(), "a part of a checkpoint is left");
    // With space, the same run goes on, as the message said.
    let said = stderr(&output);
    let resume: Vec<&str> = said.trim().rsplit("grpo-tui ").next().unwrap().split(' ').collect();
    let resumed = call(folder.path(), &resume);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
}

/// A file system that is full or read-only; unmounted again when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_or_read_only_file_system() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let Some(full) = Mount::new(&folder.path().join("full"), "size=16k") else {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    };
    let arguments = [&["train", "task", "--runs", "full"], &SHORT[..]].concat();
    check(folder.path(), &arguments, 1, &["full/.", "No space left on device", "free some space, then try again"]);
    drop(full);
    let _read_only = Mount::new(&folder.path().join("ro"), "ro").unwrap();
    let arguments = [&["train", "task", "--runs", "ro"], &SHORT[..]].concat();
    check(folder.path(), &arguments, 1, &["cannot create ro/.", "Read-only file system", "use another folder with --runs DIR"]);
}

/// A copy of the finished run in `folder/runs`, without its last word where `open`, so that a resume has something to do.
fn copied_run(folder: &Path, open: bool) -> PathBuf {
    let (_, report) = finished();
    let from = Path::new(report["path"].as_str().unwrap());
    let run = folder.join("runs").join(from.file_name().unwrap());
    let _ = fs::remove_dir_all(&run);
    copy(from, &run);
    if open {
        let path = run.join("events.jsonl");
        let events = fs::read_to_string(&path).unwrap();
        fs::write(
            &path,
            events.lines().filter(|line| !line.contains("\"kind\":\"end\"")).map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
    }
    run
}

#[test]
fn a_run_that_cannot_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let resume = ["train", "--runs", "runs", "--resume", "short"];
    // Unknown.
    check(folder.path(), &["train", "--resume", "nonesuch"], 1, &["no run `nonesuch` in ", "grpo-tui/runs; `grpo-tui runs list` shows"]);
    check(folder.path(), &["train", "--resume", "./nonesuch"], 1, &["no run `./nonesuch`"]);
    check(folder.path(), &["train", "--resume", "short", "--set", "seed=1"], 2, &["'--resume <RUN>' cannot be used with '--set"]);
    // Malformed.
    let run = copied_run(folder.path(), true);
    fs::write(run.join("run.toml"), "version = 1\nid =\n").unwrap();
    check(folder.path(), &["train", "--resume", run.to_str().unwrap()], 1, &["run.toml line 2: "]);
    fs::remove_file(run.join("run.toml")).unwrap();
    check(folder.path(), &["train", "--resume", run.to_str().unwrap()], 1, &["is not a run directory: run.toml is missing"]);
    // In use.
    let run = copied_run(folder.path(), true);
    let lock = RunLock::acquire(&run).unwrap();
    let holder = format!("is in use by process {} on ", std::process::id());
    check(folder.path(), &resume, 1, &["the run ", &holder, "or stop it first"]);
    drop(lock);
    // Damaged: what else is there stays, and the log only grows.
    for (file, bytes, problem) in [
        ("trainer.json", 10, "trainer.json: damaged ("),
        ("model.safetensors", 1000, "model.safetensors: not a whole safetensors file ("),
        ("optimizer.safetensors", 100_000, "optimizer.safetensors: not a whole safetensors file ("),
    ] {
        let run = copied_run(folder.path(), true);
        let path = run.join("checkpoints/step-000002").join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..bytes]).unwrap();
        let before = snapshot(folder.path());
        let output = call(folder.path(), &resume);
        assert_said(&output, 1, &["checkpoints/step-000002/", problem, "remove this folder (resume then uses the one before)"]);
        let mut after = snapshot(folder.path());
        for (path, bytes) in before {
            let now = after.remove(&path).unwrap_or_else(|| panic!("{} is gone", path.display()));
            match path.file_name().unwrap().to_str().unwrap() {
                "state.json" | "lock" | "cpu.lock" | "cpu.queue" => {}
                "events.jsonl" => assert!(now.unwrap().starts_with(&bytes.unwrap()), "the log was rewritten"),
                _ => assert!(now == bytes, "{} was changed", path.display()),
            }
        }
        after.retain(|path, _| !path.starts_with(folder.path().join("slots")) && !path.ends_with("control"));
        assert!(after.is_empty(), "new: {:?}", after.keys());
    }
    // The remedy is true.
    fs::remove_dir_all(run.join("checkpoints/step-000002")).unwrap();
    let again = call(folder.path(), &resume);
    assert!(again.status.success() && stderr(&again).contains("resumed from the checkpoint of step 0"), "{}", stderr(&again));
}

#[test]
fn a_finished_run_is_shown_again_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_, report) = finished();
    copied_run(folder.path(), false);
    let before = snapshot(folder.path());
    let output = call(folder.path(), &["train", "--runs", "runs", "--resume", "short", "--json"]);
    assert!(
        output.status.success() && stderr(&output).contains("run is finished, nothing to do: to train further, "),
        "{}",
        stderr(&output)
    );
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["base", "trained", "mcnemar_p", "fixed", "broken", "steps", "best_step", "set"] {
        assert_eq!(shown[key], report[key], "{key}");
    }
    assert!(snapshot(folder.path()) == before);
}

#[test]
fn a_run_without_the_checkpoint_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let run = copied_run(folder.path(), false);
    let eval = |model: &str, parts: &[&str]| check(folder.path(), &["eval", "task", "--runs", "runs", "--model", model], 1, parts);
    eval("short@7", &["has no checkpoint `7`; there are those of steps 0, 2"]);
    eval("nonesuch@best", &["no run `nonesuch` in runs; `grpo-tui runs list` shows"]);
    fs::write(run.join("checkpoints/step-000002/model.safetensors"), "").unwrap();
    eval("short@2", &["step-000002/model.safetensors: not a whole safetensors file", "use another checkpoint (RUN@STEP)"]);
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    eval("short", &["has no checkpoint `best`; it has none yet"]);
}
