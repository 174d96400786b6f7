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
    assert!(
        plan["time"]["total_seconds"].as_f64().unwrap() > 0.0
            && plan["disk"]["total_bytes"].as_u64().unwrap() > 0
    );
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
        "6 training prompts",
        "AdamW moments (f32)",
        "peak",
        "at the speed measured now",
        "disk",
        "free\npreflight passed: prompt sets, ",
        "learnability not checked",
        "\nmax_rows                6             --set\n",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
}

/// A base that rambles to the end of what is measured: how long its completions would be is not known, so the seconds
/// are a bound and are called one.
#[test]
fn seconds_with_completions_at_the_limit_are_called_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let plan = |more: &[&str]| {
        let small = [
            "train",
            "invoice",
            "--plan",
            "--runs",
            runs.to_str().unwrap(),
            "--set",
            "max_rows=2",
            "--set",
            "temperature=3",
        ];
        let groups = [
            "--set",
            "completions_per_prompt=2",
            "--set",
            "prompt_groups_per_step=1",
        ];
        let output = grpo_tui(&[small.as_slice(), &groups, more].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let time: serde_json::Value =
        serde_json::from_str(&plan(&["--json", "--set", "max_completion_tokens=256"])).unwrap();
    let seconds = |key: &str| time["time"][key].as_f64().unwrap();
    assert_eq!(time["time"]["is_upper_bound"], true, "{time}");
    assert!(
        0.0 < seconds("least_total_seconds")
            && seconds("least_total_seconds") < seconds("total_seconds"),
        "{time}"
    );
    assert!(
        time["data"]["least_completion_tokens"].as_f64().unwrap() < 64.0 + 1e-9
            && time["data"]["mean_completion_tokens"] == 256.0,
        "{time}"
    );
    let text = plan(&["--set", "max_completion_tokens=256"]);
    for part in [
        "completions at most 256",
        "\ntime    at most ",
        "\nat least ",
        " per step",
        " with lengths as sampled\n",
        "\nlengths every completion as long as max_completion_tokens = 256, since lengths are unknown",
        "\ndisk    at most ",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
    // Up to the limit everything is measured: the seconds are an estimate.
    let text = plan(&["--set", "max_completion_tokens=32"]);
    assert!(
        text.contains("\nlengths from 4 sampled completions: mean ") && !text.contains("at most"),
        "{text}"
    );
}

/// A run leaves the lengths of its steps, which the next forecast of the same task and model takes.
#[test]
fn the_last_run_tells_how_long_completions_are() {
    let folder = tempfile::tempdir().unwrap();
    crate::program::small_task(folder.path());
    let call = |more: &[&str]| {
        let arguments = [
            &["train", "task", "--runs", "runs"],
            &crate::program::SHORT[..],
            more,
        ]
        .concat();
        let output = crate::program::call(folder.path(), &arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let plan = |more: &[&str]| {
        let text = call(&[&["--plan", "--json"], more].concat());
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(plan(&[])["completion_lengths"]["basis"], "sample");
    let run: serde_json::Value = serde_json::from_str(&call(&["--json"])).unwrap();
    let found = plan(&[]);
    let (lengths, time) = (&found["completion_lengths"], &found["time"]);
    assert_eq!(
        (&lengths["basis"], &lengths["run"], &lengths["steps"]),
        (&"run".into(), &run["run"], &2.into())
    );
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    assert!(
        number(&lengths["least"]) <= number(&lengths["mean"])
            && number(&lengths["mean"]) <= number(&lengths["most"])
    );
    assert!(number(&time["least_total_seconds"]) <= number(&time["total_seconds"]));
    assert!(
        number(&time["total_seconds"]) <= number(&time["most_total_seconds"])
            && time["is_upper_bound"] == false
    );
    let text = call(&["--plan"]);
    let short = run["run"].as_str().unwrap().rsplit('-').next().unwrap();
    assert!(
        text.contains(&format!("from the lengths of run {short}: ")),
        "{text}"
    );
    // Another task has other lengths.
    let settings = folder.path().join("task/task.toml");
    let renamed = std::fs::read_to_string(&settings)
        .unwrap()
        .replace("name = \"invoice\"", "name = \"other\"");
    std::fs::write(&settings, renamed).unwrap();
    assert_eq!(plan(&[])["completion_lengths"]["basis"], "sample");
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
