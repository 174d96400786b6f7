//! What can be wrong with what the program is given: one clear message with the place and the remedy, exit code 1 or 2,
//! and nothing that existed harmed.
#![cfg(feature = "engine")]

mod runs;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::program::{
    PROGRAM, SHORT, call, call_in_process, copy_tree, names, sample_data, small_task, snapshot,
    started_by, stderr,
};
use crate::small_disk::SmallDisk;

/// What is wrong with a file.
pub(crate) enum Damage<'a> {
    Removed,
    Truncated(usize),
    Text(&'a str),
    Replaced(&'a str, &'a str),
    LinkTo(&'a str),
    Fifo,
}

use Damage::{Fifo, LinkTo, Removed, Replaced, Text, Truncated};

pub(crate) fn damage(path: &Path, damage: &Damage<'_>) {
    let remove = || fs::remove_file(path).unwrap();
    match damage {
        Removed => remove(),
        Truncated(bytes) => fs::write(path, &fs::read(path).unwrap()[..*bytes]).unwrap(),
        Text(text) => fs::write(path, text).unwrap(),
        Replaced(from, to) => {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.contains(from), "{from}");
            fs::write(path, text.replacen(from, to, 1)).unwrap();
        }
        LinkTo(target) => {
            remove();
            std::os::unix::fs::symlink(target, path).unwrap();
        }
        Fifo => {
            let _ = fs::remove_file(path);
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }
    }
}

/// One sentence with all the parts, the exit code, nothing on stdout.
fn assert_said(output: &Output, code: i32, parts: &[&str]) {
    let messages = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{messages}");
    assert_eq!(messages.matches("error: ").count(), 1, "{messages}");
    assert!(
        !messages.contains("panicked") && output.stdout.is_empty(),
        "{messages}"
    );
    for part in parts {
        assert!(
            messages.contains(part),
            "{part:?} is missing in: {messages}"
        );
    }
}

/// The command fails, says so, and leaves the folder as it was.
fn check(folder: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let before = snapshot(folder);
    assert_said(&call_in_process(folder, arguments), code, parts);
    assert!(
        snapshot(folder) == before,
        "{arguments:?} left something else than it found"
    );
}

fn training<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "task", "--runs", "runs"], &SHORT[..], more].concat()
}

#[test]
fn a_task_with_something_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let no_rows = "no prompt rows; write one JSON object per line";
    for (file, what, code, parts) in [
        (
            "task.toml",
            Removed,
            1,
            &["no task \"task\"", "the folder has no task.toml"][..],
        ),
        (
            "schema.json",
            Removed,
            1,
            &[
                "task/schema.json: No such file",
                "write the file, or name another one in task.toml",
            ],
        ),
        (
            "train.jsonl",
            Removed,
            1,
            &["task/train.jsonl: No such file", "write the file"],
        ),
        (
            "eval.jsonl",
            Removed,
            1,
            &["task/eval.jsonl: No such file", "write the file"],
        ),
        (
            "eval-large.jsonl",
            Removed,
            1,
            &["task/eval-large.jsonl: No such file", "write the file"],
        ),
        (
            "eval.jsonl",
            Text("\n{\"messages\": ["),
            1,
            &[
                "task/eval.jsonl line 2: not JSON at column 14",
                "one whole JSON object per line",
            ],
        ),
        (
            "eval-large.jsonl",
            Text("{\"prompt\":\"x\"}"),
            1,
            &[
                "task/eval-large.jsonl line 1: missing `messages` (it has `prompt`)",
                "write {",
            ],
        ),
        (
            "train.jsonl",
            Text("[]"),
            1,
            &[
                "task/train.jsonl line 1: expected an object, found `[]`",
                "write {",
            ],
        ),
        (
            "schema.json",
            Text("{\n\"type\": }"),
            1,
            &["task/schema.json line 2"],
        ),
        (
            "task.toml",
            Replaced("train = \"train.jsonl\"", "train ="),
            1,
            &["task/task.toml line 8 column"],
        ),
        ("train.jsonl", Text(""), 1, &["task/train.jsonl: ", no_rows]),
        (
            "eval.jsonl",
            Text("\n\n"),
            1,
            &["task/eval.jsonl: ", no_rows],
        ),
        (
            "task.toml",
            Replaced("train = \"train.jsonl\"", ""),
            1,
            &[
                "task/task.toml: the task has no training prompts; name a file under [prompts] train",
            ],
        ),
        (
            "task.toml",
            Replaced("max_steps = 40", "max_step = 40"),
            1,
            &["task/task.toml line 35: unknown key `max_step`; did you mean `max_steps`?"],
        ),
        (
            "task.toml",
            Replaced("max_steps = 40", "max_steps = \"x\""),
            1,
            &["task/task.toml line 35: `max_steps` is string `x`; it must be"],
        ),
        (
            "task.toml",
            Replaced("strip_thinking", "strip_thinkin"),
            1,
            &["task/task.toml line 17", "did you mean `strip_thinking`?"],
        ),
        (
            "task.toml",
            Replaced("unparsable = 0.0", "unparsable = 2.0"),
            1,
            &["task/task.toml line 15", "must rise"],
        ),
    ] {
        let _ = fs::remove_dir_all(folder.path().join("task"));
        damage(&small_task(folder.path()).join(file), &what);
        check(folder.path(), &training(&[]), code, parts);
    }
    check(
        folder.path(),
        &["train", "./nonesuch"],
        1,
        &["no task \"./nonesuch\": no such folder; `grpo-tui init DIR` makes"],
    );
    check(
        folder.path(),
        &["eval", "invoise", "--model", "tiny"],
        1,
        &["no task \"invoise\": did you mean `invoice`?"],
    );
}

/// `train --name` and `runs rename` have one limit.
#[test]
fn a_name_that_is_too_long_or_has_control_characters() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let long = "x".repeat(81);
    for (name, problem) in [
        (
            long.as_str(),
            "--name: the name has 81 characters (limit 80)",
        ),
        ("a\tb", "--name: the name has control characters"),
    ] {
        check(folder.path(), &training(&["--name", name]), 2, &[problem]);
    }
}

#[test]
fn a_prompt_that_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    let long = format!(
        "{{\"id\":\"long\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}\n",
        "7".repeat(1500)
    );
    fs::write(task.join("eval.jsonl"), long).unwrap();
    let place = "task/eval.jsonl line 1 (`long`): the prompt has 1";
    let limit = "limit 416 (max_seq_len 512 less max_completion_tokens 96); shorten it, or raise max_seq_len";
    check(folder.path(), &training(&[]), 1, &[place, limit]);
    let limit = "limit 928 (the model's 1024 positions less max_completion_tokens 96); shorten it, lower max_completion_tokens";
    check(
        folder.path(),
        &training(&["--set", "max_seq_len=100000"]),
        1,
        &[place, limit],
    );
    check(
        folder.path(),
        &["eval", "task", "--model", "tiny", "--on", "eval"],
        1,
        &[place, limit],
    );
    check(
        folder.path(),
        &["sample", "task", "--model", "tiny"],
        1,
        &[place, limit],
    );
}

#[test]
fn a_model_with_something_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let model = folder.path().join("model");
    let template = "\"chat_template\":";
    for (file, what, parts) in [
        (
            "model.safetensors",
            Truncated(1_000_000),
            &[
                "safetensors: truncated",
                "the file has 1000000",
                "copy the file again",
            ][..],
        ),
        (
            "model.safetensors",
            Truncated(5),
            &["safetensors: 5 bytes are too few", "copy the file again"],
        ),
        (
            "model.safetensors",
            Removed,
            &["safetensors: no such file", "fetch the model again"],
        ),
        (
            "tokenizer.json",
            Removed,
            &["no such file", "copy the file beside its config.json"],
        ),
        ("tokenizer.json", Truncated(100), &[]),
        (
            "config.json",
            Removed,
            &["no such file", "check the folder"],
        ),
        (
            "config.json",
            Truncated(10),
            &["not valid JSON", "fetch the model again"],
        ),
        (
            "tokenizer_config.json",
            Replaced(template, "\"no_template\":"),
            &[
                "no chat template",
                "use an instruct model, or add a `chat_template.jinja`",
            ],
        ),
    ] {
        let _ = fs::remove_dir_all(&model);
        copy_tree(&sample_data("models/tiny"), &model);
        damage(&model.join(file), &what);
        let place = format!("model/{file}");
        let parts = [&[place.as_str()], parts].concat();
        check(folder.path(), &training(&["--model", "model"]), 1, &parts);
        check(
            folder.path(),
            &["eval", "task", "--model", "base=model"],
            1,
            &parts,
        );
    }
    for arguments in [
        &training(&["--model", "nonesuch"])[..],
        &["eval", "task", "--model", "nonesuch"],
    ] {
        check(
            folder.path(),
            arguments,
            1,
            &[
                "no model or run `nonesuch`\n  models: ",
                "; embedded: tiny, tiny-sql, tiny-tools, tiny-shell, tiny-python, tiny-assistant\n  runs: none of that name in ",
            ],
        );
    }
    check(
        folder.path(),
        &["eval", "task", "--model", "tiny-sqll"],
        1,
        &["no model or run `tiny-sqll`; did you mean `tiny-sql`?\n"],
    );
}

#[test]
fn a_configuration_with_something_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    for (assignment, parts) in [
        (
            "learning_rat=1e-4",
            &["--set: unknown key `learning_rat`; did you mean `learning_rate`?"][..],
        ),
        (
            "zzz=1",
            &["--set: unknown key `zzz`; `grpo-tui train --help` lists all keys"],
        ),
        (
            "learning_rate=fast",
            &["--set: `learning_rate` is `fast`; it must be a number from 0 to 10"],
        ),
        (
            "learning_rate=-1",
            &["`learning_rate` is `-1`; it must be a number from 0 to 10"],
        ),
        (
            "max_steps=1.5",
            &["`max_steps` is `1.5`; it must be a whole number"],
        ),
        (
            "policy_loss=grp",
            &["`policy_loss` is `grp`; it must be one of grpo, "],
        ),
        (
            "dynamic_sampling=maybe",
            &["`dynamic_sampling` is `maybe`; it must be"],
        ),
        ("max_steps", &["--set max_steps: write it as key=value"]),
        (
            "completions_per_prompt=1",
            &["completions_per_prompt = 1", "set it to 2 or more"],
        ),
        (
            "max_completion_tokens=5000",
            &[
                "max_completion_tokens (5000) leaves no tokens for the prompt within max_seq_len (512)",
                "raise max_seq_len or lower",
            ],
        ),
    ] {
        check(folder.path(), &training(&["--set", assignment]), 2, parts);
    }
    for (text, part) in [
        (
            "seed = 1\nlearnin_rate = 1\n",
            "more.toml line 2: unknown key `learnin_rate`; did you mean `learning_rate`?",
        ),
        (
            "learning_rate = true\n",
            "more.toml line 1: `learning_rate` is boolean `true`; it must be a number from 0 to 10",
        ),
        ("seed = 1\nlearning_rate =\n", "more.toml line 2: "),
    ] {
        fs::write(folder.path().join("more.toml"), text).unwrap();
        // A fault of a file, as one in task.toml is.
        check(
            folder.path(),
            &training(&["--config", "more.toml"]),
            1,
            &[part],
        );
    }
    check(
        folder.path(),
        &training(&["--config", "none.toml"]),
        2,
        &["--config none.toml: No such file", "name a TOML file"],
    );
}

#[test]
fn a_disk_that_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    // A file where the folder should be.
    fs::write(folder.path().join("runs"), "mine").unwrap();
    check(
        folder.path(),
        &training(&[]),
        1,
        &["cannot create runs: a file is in the way: remove it, or choose another folder\n"],
    );
    fs::remove_file(folder.path().join("runs")).unwrap();
    // No file larger than 1 MB, and no signal about it: no weights can be written, whoever asks.
    let limited = format!(
        "trap '' XFSZ; ulimit -f 2000; exec '{PROGRAM}' {}",
        training(&[]).join(" ")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &limited]);
    let output = started_by(shell, folder.path(), &[]).output().unwrap();
    assert_said(
        &output,
        1,
        &[
            "checkpoints/.step-000002.partial/model.safetensors: File too large",
            "Free space",
            "then resume: grpo-tui train --resume ",
        ],
    );
    let run = fs::read_dir(folder.path().join("runs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    // The start has no weights of its own.
    assert_eq!(
        names(&run.join("checkpoints")),
        ["step-000000"],
        "a part of a checkpoint is left"
    );
    // With space, the same run goes on, as the message said.
    let messages = stderr(&output);
    let resume: Vec<&str> = messages
        .trim()
        .rsplit("grpo-tui ")
        .next()
        .unwrap()
        .split(' ')
        .collect();
    let resumed = call(folder.path(), &resume);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
}

#[test]
#[cfg_attr(not(can_mount), ignore = "needs root, to mount a small file system")]
fn a_full_or_read_only_file_system() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let full = SmallDisk::mount(&folder.path().join("full"), "size=16k");
    let arguments = [&["train", "task", "--runs", "full"], &SHORT[..]].concat();
    let arguments = [&arguments[..], &["--ignore-preflight-errors"]].concat();
    check(
        folder.path(),
        &arguments,
        1,
        &[
            "full/.",
            "No space left on device",
            "free some space, then try again",
        ],
    );
    drop(full);
    let _read_only = SmallDisk::mount(&folder.path().join("ro"), "ro");
    let arguments = [&["train", "task", "--runs", "ro"], &SHORT[..]].concat();
    check(
        folder.path(),
        &arguments,
        1,
        &[
            "cannot create ro/",
            "Read-only file system",
            "use another folder with --runs DIR",
        ],
    );
}
