//! Planning from the command line: what it prints, that it creates nothing, and how it refuses.

use crate::program::call_anywhere as grpo_tui;

#[test]
fn a_plan_is_one_document_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let runs = runs.to_str().unwrap();
    let small = [
        "--set",
        "max_rows=6",
        "--set",
        "completions_per_prompt=2",
        "--set",
        "prompt_groups_per_step=2",
        "--set",
        "max_steps=0",
        "--set",
        "epochs=1",
    ];
    let output = grpo_tui(
        &[
            [
                "train", "invoice", "--plan", "--sample", "--json", "--runs", runs,
            ]
            .as_slice(),
            &small,
        ]
        .concat(),
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            plan["steps"].as_u64(),
            plan["data"]["train_rows"].as_u64(),
            plan["signal"]["prompts"].as_u64()
        ),
        (Some(3), Some(6), Some(6))
    );
    let parts: u64 = plan["memory"]["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["bytes"].as_u64().unwrap())
        .sum();
    let peak = plan["memory"]["peak_bytes"].as_u64().unwrap();
    assert!(0 < peak && peak <= parts, "{peak} of {parts}");
    assert!(plan.get("pace").is_none(), "{plan}");
    assert!(
        ["can_learn", "nothing_to_learn", "cannot_learn"]
            .contains(&plan["signal"]["verdict"].as_str().unwrap())
    );
    let changed = plan["differences"].as_array().unwrap();
    let source = |key: &str| {
        changed
            .iter()
            .find(|difference| difference["key"] == key)
            .map(|difference| difference["source"].clone())
    };
    assert_eq!(
        (source("max_rows"), source("lora_rank")),
        (Some("set".into()), Some("task".into()))
    );
    assert_eq!(source("temperature"), None);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something was created"
    );

    let text = grpo_tui(
        &[
            ["train", "invoice", "--plan", "--runs", runs].as_slice(),
            &small,
        ]
        .concat(),
    );
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for part in [
        "AdamW moments (f32)",
        "peak",
        "\ntime    n/a (no such run has finished here; known after two steps)",
        "\npreflight passed: prompt sets, ",
        "learnability not checked",
        "\nmax_rows                6             --set\n",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
}

/// A finished run tells the next plan of the same task, model and shape how long its steps took, and no other.
#[test]
fn a_finished_run_tells_the_pace() {
    let folder = tempfile::tempdir().unwrap();
    crate::program::small_task(folder.path());
    let call = |more: &[&str]| {
        let arguments = [
            &["train", "task", "--runs", "runs"],
            &crate::program::SHORT[..],
            more,
            &["--json"],
        ]
        .concat();
        let output = crate::program::call(folder.path(), &arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let run = call(&[])["run"].clone();
    let pace = call(&["--plan"])["pace"].clone();
    assert_eq!(pace["run"], run);
    assert!(pace["seconds_per_step"].as_f64().unwrap() > 0.0, "{pace}");
    let other = call(&["--plan", "--set", "lora_rank=2"]);
    assert!(other.get("pace").is_none(), "{other}");
}

#[test]
fn a_plan_that_cannot_be_made_says_why() {
    let check = |arguments: &[&str], code, expected: &str| {
        let output = crate::program::call_anywhere_in_process(arguments);
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(code) && messages.contains(expected),
            "{arguments:?}: {:?} {messages}",
            output.status
        );
    };
    check(&["train", "invoice", "--sample"], 2, "--plan");
    check(
        &["train", "--resume", "x", "--plan"],
        2,
        "cannot be used with",
    );
    check(
        &["train", "invoice", "--plan", "--model", "/no/such/model"],
        1,
        "/no/such/model",
    );
    check(
        &["train", "invoice", "--plan", "--set", "max_seq_len=100"],
        1,
        "max_seq_len",
    );
}

#[test]
#[cfg_attr(not(can_mount), ignore = "needs root: mounts a file system")]
fn a_disk_without_free_inodes_is_known_however_many_bytes_are_free() {
    let folder = tempfile::tempdir().unwrap();
    let disk =
        crate::small_disk::SmallDisk::mount(&folder.path().join("disk"), "size=1m,nr_inodes=3");
    let place = folder.path().join("disk");
    assert!(!::grpo_tui::plan::has_no_free_files(&place));
    while std::fs::create_dir(place.join(std::fs::read_dir(&place).unwrap().count().to_string()))
        .is_ok()
    {}
    assert!(::grpo_tui::plan::has_no_free_files(&place));
    assert!(::grpo_tui::plan::free_disk_bytes(&place).is_some_and(|bytes| bytes > 500_000));
    drop(disk);
}
