//! Files that somebody else wrote: paths that lead out of their folder, FIFOs where files should be, lines without end.
//! Nothing outside is read, quoted, copied or written, and nothing waits.
#![cfg(feature = "engine")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Output;

use crate::bad_input::Damage::{Fifo, LinkTo, Replaced};
use crate::bad_input::damage;
use crate::program::{
    SHORT, call, call_in_process, copy_tree, program, sample_data, small_task, stderr,
};

/// Everything that was said, which names `parts` and not what the file outside holds.
fn refused(output: &Output, parts: &[&str]) {
    let messages = stderr(output) + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{messages}");
    assert!(
        !messages.contains("root-only"),
        "what is outside was quoted: {messages}"
    );
    for part in parts {
        assert!(
            messages.contains(part),
            "{part:?} is missing in: {messages}"
        );
    }
}

#[test]
fn a_task_cannot_lead_out_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("secret");
    let absolute = outside.to_str().unwrap();
    let quoted = format!("{absolute:?}");
    let (link, path) = ("is a link to ", "is outside the task's folder");
    for (file, what, parts) in [
        (
            "task.toml",
            Replaced("\"train.jsonl\"", &quoted),
            &[absolute, path, "copy the file into the folder"][..],
        ),
        (
            "task.toml",
            Replaced("\"eval.jsonl\"", "\"../secret\""),
            &["\"../secret\"", path],
        ),
        (
            "task.toml",
            Replaced("\"completions.jsonl\"", "\"x/../../secret\""),
            &["\"x/../../secret\"", path],
        ),
        (
            "task.toml",
            Replaced("\"schema.json\"", "\"../secret\""),
            &["\"../secret\"", path],
        ),
        (
            "task.toml",
            Replaced("\"train.jsonl\"", "\"up/secret\""),
            &["\"up/secret\"", link],
        ),
        (
            "train.jsonl",
            LinkTo("../secret"),
            &[
                "\"train.jsonl\"",
                link,
                "secret",
                "replace the link by a copy",
            ],
        ),
        (
            "schema.json",
            LinkTo("../secret"),
            &["\"schema.json\"", link],
        ),
        ("task.toml", LinkTo("../secret"), &["\"task.toml\"", link]),
    ] {
        let _ = fs::remove_dir_all(folder.path().join("task"));
        fs::write(&outside, "root-only: first line\n").unwrap();
        let task = small_task(folder.path());
        symlink("..", task.join("up")).unwrap();
        damage(&task.join(file), &what);
        let train = [&["train", "task", "--runs", "runs"], &SHORT[..]].concat();
        for arguments in [
            &["score", "task"][..],
            &["task", "check", "task"],
            &["dataset", "check", "task"],
            &train,
        ] {
            refused(&call_in_process(folder.path(), arguments), parts);
        }
        assert_eq!(
            fs::read_to_string(&outside).unwrap(),
            "root-only: first line\n",
            "what is outside was written"
        );
        assert!(!folder.path().join("runs").exists(), "a run was made of it");
    }
}

#[test]
fn links_inside_a_task_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    fs::create_dir(task.join("sets")).unwrap();
    fs::rename(task.join("train.jsonl"), task.join("sets/one.jsonl")).unwrap();
    symlink("sets/one.jsonl", task.join("train.jsonl")).unwrap();
    let output = call_in_process(folder.path(), &["task", "check", "task"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_fifo_of_a_task_or_a_model_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let what = "not a regular file but a FIFO";
    for file in ["schema.json", "train.jsonl", "completions.jsonl"] {
        let _ = fs::remove_dir_all(folder.path().join("task"));
        damage(&small_task(folder.path()).join(file), &Fifo);
        refused(
            &call_in_process(folder.path(), &["task", "check", "task"]),
            &[file, what, "put a regular file there"],
        );
    }
    fs::remove_dir_all(folder.path().join("task")).unwrap();
    small_task(folder.path());
    let model = folder.path().join("model");
    for file in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ] {
        copy_tree(&sample_data("models/tiny"), &model);
        damage(&model.join(file), &Fifo);
        let output = call_in_process(
            folder.path(),
            &["eval", "task", "--model", "base=model", "--on", "eval"],
        );
        assert_eq!(output.status.code(), Some(1), "{file}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(file),
            "{file}: {}",
            stderr(&output)
        );
        fs::remove_dir_all(&model).unwrap();
    }
}

/// Panics that are handled are no bug of ours: of the template engine on its own thread, and of the regular expressions
/// of a tokenizer.
#[test]
fn a_panic_caused_by_a_model_is_an_error_of_that_model() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let model = folder.path().join("model");
    copy_tree(&sample_data("models/tiny"), &model);
    let check = |parts: &[&str]| {
        let output = call(
            folder.path(),
            &["eval", "task", "--model", "base=model", "--on", "eval"],
        );
        refused(&output, parts);
        assert!(
            !stderr(&output).contains("hit a bug"),
            "{}",
            stderr(&output)
        );
    };
    let tokenizer = fs::read_to_string(model.join("tokenizer.json")).unwrap();
    let mut damaged: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    damaged["pre_tokenizer"] = serde_json::json!({"type": "Split", "pattern": {"Regex": "((.|\\n)+(.|\\n)+)+$y"}, "behavior": "Isolated", "invert": false});
    fs::write(model.join("tokenizer.json"), damaged.to_string()).unwrap();
    check(&["tokenizer.json: cannot encode a text: tokenizer failed"]);
    fs::write(model.join("tokenizer.json"), tokenizer).unwrap();
    fs::write(
        model.join("chat_template.jinja"),
        "{{ range(1, -1, -9223372036854775808) | list }}",
    )
    .unwrap();
    check(&[
        "chat_template.jinja: chat template: the template engine failed: attempt to negate with overflow",
    ]);
}

#[test]
fn a_fifo_in_one_run_keeps_no_other_from_being_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (id, damaged) = (
        "20261120-143041-invoice-6sx3dn",
        folder.path().join("runs/damaged"),
    );
    copy_tree(
        &sample_data("finished-run"),
        &folder.path().join("runs").join(id),
    );
    copy_tree(&sample_data("finished-run"), &damaged);
    for file in [
        "run.toml",
        "events.jsonl",
        "events.index",
        "state.json",
        "lock",
        "tags.json",
        "worker.log",
        "notes.md",
        "task/task.toml",
    ] {
        let original = fs::read(damaged.join(file)).ok();
        damage(&damaged.join(file), &Fifo);
        let listed = call_in_process(folder.path(), &["runs", "list", "--runs", "runs"]);
        let messages = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(
            listed.status.success() && messages.contains(id),
            "{file}: {messages}{}",
            stderr(&listed)
        );
        for verb in ["show", "export", "attach"] {
            call_in_process(
                folder.path(),
                &["runs", verb, "runs/damaged", "--runs", "runs"],
            );
        }
        call_in_process(
            folder.path(),
            &["train", "--runs", "runs", "--resume", "runs/damaged"],
        );
        fs::remove_file(damaged.join(file)).unwrap();
        if let Some(bytes) = original {
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
    fs::write(
        task.join("completions.jsonl"),
        ["\u{feff}".as_bytes(), &text].concat(),
    )
    .unwrap();
    let marked = call(folder.path(), &["score", "task", "--json"]);
    assert!(
        marked.status.success() && marked.stdout == plain.stdout,
        "{}",
        stderr(&marked)
    );
    let endless = call(
        folder.path(),
        &["score", "task", "--completions", "/dev/zero"],
    );
    refused(
        &endless,
        &["/dev/zero line 1: longer than 64 MiB; write one JSON object per line"],
    );
}

#[test]
fn an_argument_that_is_not_utf8_is_recorded_as_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let runs = std::ffi::OsStr::from_bytes(b"r\xffns");
    let mut training = program(folder.path(), &[&["train", "task"], &SHORT[..]].concat());
    let output = training.arg("--runs").arg(runs).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let run = fs::read_dir(folder.path().join(runs))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert!(
        fs::read_to_string(run.join("run.toml"))
            .unwrap()
            .contains("r\u{fffd}ns")
    );
    // What names a task, a model or a key is text.
    let refused = program(folder.path(), &["score"])
        .arg(runs)
        .output()
        .unwrap();
    assert!(
        refused.status.code() == Some(2) && stderr(&refused).contains("UTF-8"),
        "{}",
        stderr(&refused)
    );
}
