//! A run's folder with damaged bytes: each command gives the right answer, or names the file.
//!
//! `cargo test --test main training::mutations` damages some tens of files; with `-- --ignored --nocapture` a thousand, or as
//! many as `GRPO_TUI_MUTATIONS` says, from `GRPO_TUI_MUTATIONS_SEED` on.

use std::path::{Path, PathBuf};

use grpo_tui::run::{RunDirectory, RunState};
use serde_json::Value;

use super::small_task::{create, fingerprint, whole, work};
use crate::program::{call_in_process as call, copy_tree};

/// Files of which no command reads anything that it prints.
const UNREAD: [&str; 2] = ["lock", "worker.log"];

/// Pseudo-random numbers, the same everywhere.
struct Chance(u64);

impl Chance {
    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }

    /// A part of so many bytes.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        start..length.min(start + 1 + self.below(64))
    }
}

/// Damages a file in a kind of way; returns the kind.
fn damage(path: &Path, chance: &mut Chance) -> &'static str {
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.is_empty() {
        bytes.extend(b"garbage");
        std::fs::write(path, bytes).unwrap();
        return "insert";
    }
    let length = bytes.len();
    let kind = match chance.below(10) {
        0 => {
            for _ in 0..8 {
                bytes[chance.below(length)] ^= 1 << chance.below(8);
            }
            "flip"
        }
        1 | 2 => {
            bytes[chance.below(length)] ^= 1 << chance.below(8);
            "bit"
        }
        3 => {
            bytes.truncate(chance.below(length));
            "cut"
        }
        4 => {
            let range = chance.range(length);
            bytes[range].fill(0);
            "zero"
        }
        5 => {
            let at = chance.below(length);
            bytes.insert(at, chance.below(256) as u8);
            "insert"
        }
        6 => {
            let (one, other) = (chance.below(length), chance.below(length));
            bytes.swap(one, other);
            "swap"
        }
        7 => {
            let lines: Vec<usize> = (0..length).filter(|at| bytes[*at] == b'\n').collect();
            match lines.len() {
                0 => bytes.clear(),
                count => {
                    let line = chance.below(count);
                    let start = line.checked_sub(1).map_or(0, |before| lines[before] + 1);
                    drop(bytes.drain(start..=lines[line]));
                }
            }
            "line"
        }
        8 => {
            bytes.clear();
            "empty"
        }
        _ => {
            let range = chance.range(length);
            bytes[range]
                .iter_mut()
                .for_each(|byte| *byte = chance.below(256) as u8);
            "garbage"
        }
    };
    match chance.below(20) {
        0 => std::fs::remove_file(path).unwrap(),
        _ => std::fs::write(path, bytes).unwrap(),
    }
    kind
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// What a command prints, without what the size of the folder decides.
fn printed(folder: &Path, arguments: &[&str]) -> [String; 2] {
    let output = call(folder, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(mut document)) => {
            document.remove("disk");
            document.remove("fits");
            Value::from(document).to_string()
        }
        _ => text
            .lines()
            .filter(|line| !line.starts_with("disk "))
            .collect(),
    };
    let said = format!(
        "{} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    [text, said]
}

fn readers(run: &str) -> Vec<Vec<String>> {
    let show = [
        "show",
        "show --json",
        "check",
        "export --csv",
        "export --jsonl",
        "export --json",
    ];
    let export = ["export --rollouts", "export --markdown", "export --html -"];
    let of_run = show.iter().chain(&export).map(|command| {
        let words = command.split(' ').map(str::to_owned);
        let (verb, options): (Vec<String>, Vec<String>) = words.partition(|word| {
            !word.starts_with('-') && (word == "show" || word == "check" || word == "export")
        });
        let run = vec![run.to_owned()];
        [vec!["runs".to_owned()], verb, run, options].concat()
    });
    let list = ["runs", "list", "--runs", "runs"]
        .map(str::to_owned)
        .to_vec();
    let events = ["runs", "export", run, "--tensorboard", "board", "--force"];
    let events = events.map(str::to_owned).to_vec();
    of_run.chain([list, events]).collect()
}

/// Damages `count` files, one at a time, of a finished run and of one to be resumed.
fn damaged(count: usize, seed: u64) {
    let work_folder = tempfile::tempdir().unwrap();
    let folder = work_folder.path();
    let finished = folder.join("finished");
    copy_tree(whole(&[]).path(), &finished);
    let finished = RunDirectory::open(&finished).unwrap();
    let stopped = create(folder, &[]);
    let stop = |event: &_| matches!(event, grpo_tui::run::EventBody::Step(step) if step.step == 4);
    work(&stopped, stop).unwrap();
    let resumed = fingerprint(&finished);
    std::fs::create_dir(folder.join("of")).unwrap();
    let place = folder.join("of/runs").join(finished.id());
    std::fs::create_dir(folder.join("of/runs")).unwrap();
    let there = format!("runs/{}", finished.id());
    let board = |folder: &Path| {
        let events = folder.join("board").join(finished.id());
        let files = if events.exists() {
            files(&events)
        } else {
            Vec::new()
        };
        files.first().map(|file| std::fs::read(file).unwrap())
    };
    copy_tree(finished.path(), &place);
    let here = folder.join("of");
    let readers = readers(&there);
    let words: Vec<Vec<&str>> = readers
        .iter()
        .map(|words| words.iter().map(String::as_str).collect())
        .collect();
    let expected: Vec<[String; 2]> = words.iter().map(|words| printed(&here, words)).collect();
    let events = board(&here);
    let clean = &expected[2][1];
    assert!(clean.starts_with("exit status: 0"), "{:?}", expected[2]);
    let (mut chance, mut silent) = (Chance(seed), Vec::new());
    for number in 0..count {
        std::fs::remove_dir_all(&place).unwrap();
        copy_tree(finished.path(), &place);
        let all = files(&place);
        let file = &all[chance.below(all.len())];
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let before = std::fs::read(file).unwrap();
        let kind = damage(file, &mut chance);
        let after = std::fs::read(file).unwrap_or_default();
        let what = format!(
            "{number}: {kind} of {}",
            file.strip_prefix(&place).unwrap().display()
        );
        // The list says that a run is damaged, and who names the files.
        let is_named = |text: &str| {
            text.contains(name.trim_end_matches(".zst")) || text.contains(" is damaged: ")
        };
        for (words, expected) in words.iter().zip(&expected) {
            _ = std::fs::remove_dir_all(here.join("board"));
            let [text, said] = printed(&here, words);
            let is_same = text == expected[0]
                && (!words.contains(&"--tensorboard") || board(&here) == events);
            if !is_same && !is_named(&text) && !is_named(&said) {
                silent.push(format!("{what}: {}: {said}", words.join(" ")));
            }
            let is_changed = before.trim_ascii_end() != after.trim_ascii_end();
            let may_miss = UNREAD.contains(&name.as_str()) || name.ends_with(".zst");
            if words.contains(&"check")
                && is_changed
                && !may_miss
                && said.starts_with("exit status: 0")
            {
                silent.push(format!("{what}: check finds nothing"));
            }
        }
        // A resume takes longer.
        if number % 3 > 0 {
            continue;
        }
        std::fs::remove_dir_all(&place).unwrap();
        copy_tree(stopped.path(), &place);
        let all = files(&place);
        let file = &all[chance.below(all.len())];
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let kind = damage(file, &mut chance);
        let what = format!(
            "{number}: {kind} of {}",
            file.strip_prefix(&place).unwrap().display()
        );
        let outcome = RunDirectory::open(&place)
            .map_err(|error| error.to_string())
            .and_then(|run| {
                work(&run, |_| false)
                    .map(|_| run)
                    .map_err(|error| error.to_string())
            });
        let (is_same, said) = match outcome {
            Err(error) => (false, error),
            Ok(run) => {
                let is_same = std::panic::catch_unwind(|| fingerprint(&run) == resumed);
                let log = std::fs::read(run.events_path()).unwrap();
                let log = String::from_utf8_lossy(&log).into_owned();
                let said = log.lines().filter(|line| line.contains("\"recovered\""));
                (is_same.unwrap_or(false), said.collect())
            }
        };
        if !is_same && !said.contains(name.trim_end_matches(".zst")) {
            silent.push(format!("{what}: resume: {said}"));
        }
    }
    assert!(
        silent.is_empty(),
        "{} silent:\n{}",
        silent.len(),
        silent.join("\n")
    );
}

#[test]
fn damaged_bytes_are_named_or_change_nothing() {
    damaged(30, 1);
}

#[test]
#[ignore = "nightly: a thousand damaged files"]
fn a_thousand_damaged_files_are_named_or_change_nothing() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |number| number.parse().expect("a number"))
    };
    damaged(
        number("GRPO_TUI_MUTATIONS", 1000) as usize,
        number("GRPO_TUI_MUTATIONS_SEED", 2),
    );
}

/// The newest checkpoint that is whole continues the run, and the log says which one is not.
#[test]
fn a_resume_takes_the_newest_whole_checkpoint() {
    for set in [&[][..], &["lora_rank=4", "learning_rate=1e-3"]] {
        let weights = if set.is_empty() {
            "model"
        } else {
            "adapter_model"
        };
        for file in [
            &format!("{weights}.safetensors"),
            "optimizer.safetensors",
            "trainer.json",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let run = create(folder.path(), set);
            work(
                &run,
                |event| matches!(event, grpo_tui::run::EventBody::Step(step) if step.step == 4),
            )
            .unwrap();
            let path = grpo_tui::run::checkpoint_path(run.path(), 4).join(file);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            work(&run, |_| false).unwrap();
            let log = std::fs::read_to_string(run.events_path()).unwrap();
            let said = log
                .lines()
                .find(|line| line.contains("resumed from step 3"))
                .unwrap();
            assert!(
                said.contains(file) && said.contains("step-000004.damaged"),
                "{said}"
            );
            assert!(
                fingerprint(&run) == fingerprint(&whole(set)),
                "{set:?} {file}"
            );
            assert_eq!(RunState::read(run.path()).unwrap().last_step, 6);
        }
    }
}

/// What loads a damaged checkpoint ends with an error that names the file.
#[test]
fn a_damaged_checkpoint_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &["max_steps=2", "eval_every=0"]);
    work(&run, |_| false).unwrap();
    let path = grpo_tui::run::checkpoint_path(run.path(), 2).join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let model = format!("{}@2", run.path().display());
    for arguments in [
        &["eval", "small", "--model", &model][..],
        &["model", "export", "--model", &model, "--out", "merged"],
        &["runs", "promote", &model, "--out", "promoted"],
        &["runs", "check", run.path().to_str().unwrap()],
    ] {
        let output = call(folder.path(), arguments);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(
            !output.status.success() && said.contains("model.safetensors"),
            "{arguments:?}: {said}"
        );
    }
}
