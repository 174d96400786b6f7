//! Text search through rollouts: what it finds in plain, compressed and damaged files, and what the command prints.

use std::path::PathBuf;
use std::sync::Mutex;

use grpo_tui::facts::TierOutcome;
use grpo_tui::run::{
    RolloutCompletion, RolloutGroup, RolloutWriter, RunDirectory, RunLock, SearchHit, TextSearch,
    rollout_segments, search_rollouts,
};
use serde_json::json;

use super::command::runs_command;
use super::{create, created, memory_folder};

/// Steps of three groups of two; `text` of step, prompt and sample.
fn write(
    run: &RunDirectory,
    steps: std::ops::RangeInclusive<u64>,
    text: impl Fn(u64, &str, usize) -> String,
) {
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut writer = RolloutWriter::resume(&lock, steps.start() - 1).unwrap();
    for step in steps {
        for prompt in ["a", "b", "c"] {
            let completion = |sample| RolloutCompletion {
                forced: 0..0,
                text: text(step, prompt, sample),
                token_ids: vec![1, 2],
                reward: Some(0.5),
                score: json!({"tier": "invalid", "exact": false, "errors": [{"message": "too long", "instance_path": "/vendor"}]}),
                ..RolloutCompletion::default()
            };
            let completions = vec![completion(0), completion(1)];
            let group = RolloutGroup {
                step,
                prompt_id: prompt.to_owned(),
                prompt: "needle?".to_owned(),
                completions,
                ..RolloutGroup::default()
            };
            writer.append(&group).unwrap();
        }
    }
    writer.sync().unwrap();
}

/// Hits in order, the number of completions, and the problems.
fn found(runs: &[PathBuf], text: &str) -> (Vec<SearchHit>, usize, Vec<String>) {
    let all = Mutex::new((Vec::new(), 0, Vec::new(), 0.0));
    search_rollouts(
        runs,
        &TextSearch::new(text).unwrap(),
        usize::MAX,
        &|batch| {
            let mut all = all.lock().unwrap();
            assert_eq!(
                batch.matches,
                batch.hits.len(),
                "{text:?} is counted where it is found"
            );
            all.0.extend(batch.hits);
            all.1 += batch.completions;
            all.2.extend(batch.problem);
            assert!(batch.progress >= all.3, "progress goes on");
            all.3 = batch.progress;
            true
        },
    )
    .unwrap();
    let (mut hits, completions, problems, progress) = all.into_inner().unwrap();
    assert!(completions == 0 || progress == 1.0);
    hits.sort_by(SearchHit::order);
    (hits, completions, problems)
}

#[test]
fn every_completion_is_searched_once() {
    let (_folder, run) = created();
    write(&run, 1..=230, |step, prompt, sample| {
        match (step, prompt, sample) {
            (7 | 150 | 229, "b", 1) => format!("line one\n\t\"The Needle\" of step {step}\nlast"),
            _ => format!("{{\"vendor\": \"{prompt}\"}}"),
        }
    });
    assert_eq!(
        rollout_segments(run.path())
            .unwrap()
            .iter()
            .filter(|file| file.compressed)
            .count(),
        2
    );
    let runs = [run.path().to_owned()];
    for (text, expected) in [
        ("needle", vec![7, 150, 229]),
        ("Needle", vec![7, 150, 229]),
        ("\"The Needle\" of step 150\nlast", vec![150]),
        ("\t\"the", vec![7, 150, 229]),
        ("NEEDLE", vec![]),
        // In prompts, keys and numbers, not in completions.
        ("needle?", vec![]),
        ("token_ids", vec![]),
        (".*", vec![]),
    ] {
        let (hits, completions, problems) = found(&runs, text);
        assert_eq!(
            hits.iter().map(|hit| hit.step).collect::<Vec<_>>(),
            expected,
            "{text:?}"
        );
        assert_eq!(
            (completions, problems.as_slice()),
            (230 * 6, [].as_slice()),
            "{text:?}"
        );
    }
    let hit = found(&runs, "needle").0.remove(1);
    assert_eq!(&hit.text[hit.at.clone()], "Needle");
    assert_eq!(
        (
            hit.prompt_id.as_str(),
            hit.sample,
            hit.reward,
            hit.tier.map_or("", TierOutcome::name)
        ),
        ("b", 1, Some(0.5), "invalid")
    );
    assert_eq!(
        (hit.exact, hit.errors.as_slice()),
        (Some(false), ["/vendor: too long".to_owned()].as_slice())
    );
    assert_eq!(found(&runs, "vendor").0.len(), 230 * 6 - 3);
    assert!(TextSearch::new("").is_err());
}

/// What JSON escapes is counted as what it stands for, whatever letters the escape has.
#[test]
fn escapes_are_not_text() {
    let (_folder, run) = created();
    let texts = [
        "a\nb",
        "a\\nb",
        "\u{1b}[1m",
        "x\\\"y\"",
        "\\\\n",
        "über 1001b",
    ];
    write(&run, 1..=1, |_, prompt, sample| {
        let index = 2 * ["a", "b", "c"].iter().position(|id| *id == prompt).unwrap() + sample;
        texts[index].to_owned()
    });
    let needles = [
        "n", "nb", "\n", "\\", "\\n", "\\\\", "\"", "\\\"", "\"y", "u", "001b", "u001b", "1",
        "\u{1b}", "b", "[1m", "ÜBER", "über",
    ];
    for needle in needles {
        let folded = !needle.chars().any(char::is_uppercase);
        let fold = |text: &str| {
            if folded {
                text.to_lowercase()
            } else {
                text.to_owned()
            }
        };
        let expected = texts
            .iter()
            .filter(|text| fold(text).contains(&fold(needle)))
            .count();
        assert_eq!(
            found(&[run.path().to_owned()], needle).0.len(),
            expected,
            "{needle:?}"
        );
    }
}

/// All matches are counted, the first ones are delivered: those of the earliest steps of the first runs.
#[test]
fn the_first_matches_are_those_of_a_full_search() {
    let folder = memory_folder();
    let (run, other) = (create(folder.path()), create(folder.path()));
    for run in [&run, &other] {
        write(run, 1..=250, |step, prompt, sample| {
            format!("{step} {prompt} {sample} {}", "needle ".repeat(300))
        });
    }
    let runs = [run.path().to_owned(), other.path().to_owned()];
    let all = found(&runs, "needle").0;
    assert_eq!(all.len(), 2 * 250 * 6);
    for most in [0, 1, 4, 6, 7, 700, 1501, 3000, 9999] {
        let news = Mutex::new((Vec::new(), 0));
        search_rollouts(&runs, &TextSearch::new("needle").unwrap(), most, &|batch| {
            let mut news = news.lock().unwrap();
            news.0.extend(batch.hits);
            news.1 += batch.matches;
            true
        })
        .unwrap();
        let (mut hits, matches) = news.into_inner().unwrap();
        hits.sort_by(SearchHit::order);
        hits.truncate(most);
        assert_eq!(matches, all.len());
        assert!(
            hits == all[..most.min(all.len())],
            "{most}: the first matches are others"
        );
    }
}

#[test]
fn a_damaged_file_is_named_and_the_others_are_searched() {
    let folder = memory_folder();
    let (run, other) = (create(folder.path()), create(folder.path()));
    write(&run, 1..=230, |step, _, _| format!("needle {step}"));
    write(&other, 1..=3, |step, _, _| format!("needle {step}"));
    let runs = [run.path().to_owned(), other.path().to_owned()];
    // A torn last line, as of a worker that writes.
    let plain = run.path().join("rollouts/000300.jsonl");
    let text = std::fs::read_to_string(&plain).unwrap();
    std::fs::write(
        &plain,
        format!("{text}{{\"step\":231,\"completions\":[{{\"text\":\"needle"),
    )
    .unwrap();
    assert_eq!(found(&runs, "needle").0.len(), 233 * 6);
    let packed = run.path().join("rollouts/000100.jsonl.zst");
    let mut bytes = std::fs::read(&packed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&packed, &bytes).unwrap();
    let (hits, _, problems) = found(&runs, "needle");
    assert!(
        problems.len() == 1 && problems[0].contains("000100.jsonl.zst"),
        "{problems:?}"
    );
    assert!(hits.iter().any(|hit| hit.run == 1) && hits.iter().any(|hit| hit.step == 150));
    // Without its table of frames a file is read as a whole.
    std::fs::write(
        &packed,
        zstd::stream::encode_all(text.as_bytes(), 1).unwrap(),
    )
    .unwrap();
    assert_eq!(found(&runs, "needle").2, [""; 0]);
}

#[test]
fn the_search_ends_when_nobody_wants_more() {
    let (_folder, run) = created();
    write(&run, 1..=300, |step, _, _| format!("needle {step}"));
    let taken = Mutex::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    search_rollouts(
        &[run.path().to_owned()],
        &TextSearch::new("needle").unwrap(),
        10,
        &|_| {
            *taken.lock().unwrap() += 1;
            false
        },
    )
    .unwrap();
    assert!(*taken.lock().unwrap() <= threads);
}

#[test]
fn the_command_prints_matches_and_totals() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = create(folder.path());
    write(&run, 1..=4, |step, prompt, sample| {
        format!("{} {prompt} {step} {sample}", "x".repeat(200))
    });
    let (code, text, error) = runs_command(&root, &["search", "X B", run.id()]);
    assert_eq!(
        (code, text.as_str()),
        (1, ""),
        "an upper-case letter is one"
    );
    assert!(
        error.contains("0 of 24 completions of 1 run contain the text"),
        "{error}"
    );
    let (code, text, error) = runs_command(&root, &["search", "x b 3"]);
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
    assert!(
        text.contains(&format!("{} step     3 b #0 invalid    …x", run.id()))
            && text.contains("x b 3 1"),
        "{text}"
    );
    assert!(
        error.contains("2 of 24 completions of 1 run contain the text"),
        "{error}"
    );
    let (_, text, error) = runs_command(&root, &["search", "x", "--limit", "3"]);
    assert!(
        text.lines().count() == 3
            && error.contains("24 of 24 completions of 1 run contain the text, the first 3 shown"),
        "{error}"
    );
    let (_, text, _) = runs_command(&root, &["search", "x b", "--json", "--limit", "1"]);
    let lines = crate::program::lines(&text);
    assert_eq!(
        (
            &lines[0]["step"],
            &lines[0]["prompt_id"],
            &lines[0]["errors"]
        ),
        (&json!(1), &json!("b"), &json!(["/vendor: too long"]))
    );
    assert_eq!(
        (
            &lines[1]["matches"],
            &lines[1]["printed"],
            &lines[1]["completions"]
        ),
        (&json!(8), &json!(1), &json!(24))
    );
    assert_eq!(runs_command(&root, &["search", "", run.id()]).0, 2);
}
