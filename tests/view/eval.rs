//! The comparison: evals of the recorded run side by side, found, filtered, read, chosen, refused, exported and
//! started by keys.

mod chat;
mod comparison;
mod job;
mod prove;
mod single;

use std::path::{Path, PathBuf};

use grpo_tui::facts::{Target, Tier};
use grpo_tui::report::{
    EvalId, EvalResult, Outcome, Verdict, Versus, base_and_trained, versus_text,
};
use grpo_tui::run::{Comparison, EvalSummary, RunState, read_evals};
use grpo_tui::view::Message;
use grpo_tui::view::style_role::Role;

use super::harness::{Stage, finished_run};
use super::runs::{change, copy_run};
use super::styles::check_roles;
use crate::program::{call_anywhere_in_process as call_anywhere, until};

const ID: &str = "20261120-143041-invoice-6sx3dn";

/// The recorded run is the current one, and the comparison is in front.
fn stage(columns: u16, rows: u16) -> Stage {
    stage_after(columns, rows, |_| ()).0
}

/// The same after `prepare` had its way with the data folder; and what it left.
fn stage_after<T: Default>(
    columns: u16,
    rows: u16,
    prepare: impl FnOnce(&Path) -> T,
) -> (Stage, T) {
    let mut left = T::default();
    let mut stage = Stage::with(columns, rows, |options| {
        copy_run(&options.here.join("runs"), ID, "small adapters", "finished");
        options.program = PathBuf::from("/bin/false");
        left = prepare(&options.data);
    });
    stage.keys("enter 7");
    (stage, left)
}

/// Waits, second by second, until the screen shows a text.
fn wait(stage: &mut Stage, expected: &str) {
    until(expected, || {
        let is_shown = stage.shows(expected);
        if !is_shown {
            stage.tick_after(1_000);
        }
        is_shown
    });
}

#[test]
fn pictures_of_base_and_trained() {
    for (columns, rows) in [(160, 48), (120, 36), (80, 24), (60, 20)] {
        let mut stage = stage(columns, rows);
        stage.keys("f");
        assert!(stage.shows("improvements 40 of 100"), "{}", stage.screen());
        stage.keys("tab tab");
        assert!(stage.shows("▸ base → step 30"), "{}", stage.screen());
    }
    let mut small = stage(40, 14);
    assert!(
        small.shows("▸ prompts 100 of 100") && small.shows("▸- test-045"),
        "{}",
        small.screen()
    );
    small.keys("enter");
    assert!(small.shows("base: "), "{}", small.screen());
    let mut narrow = stage(60, 20);
    narrow.keys("enter");
    assert!(narrow.shows("base: "), "{}", narrow.screen());
    assert!(
        narrow.keys("esc backtab").shows("exact match"),
        "{}",
        narrow.screen()
    );
    let mut empty = Stage::new(80, 24);
    empty.keys("7");
    insta::assert_snapshot!("eval_nothing_80x24", empty.screen());
    empty.keys("o");
    assert!(empty.shows("No runs yet: press 5 to start one"));
}

#[test]
fn the_numbers_are_those_of_the_run() {
    let run = finished_run();
    let versus = Versus::read(&base_and_trained(&run).unwrap()).unwrap();
    let history = RunState::read(&run).unwrap();
    let names: Vec<&str> = versus.evals.iter().map(|eval| eval.name.as_str()).collect();
    assert_eq!(
        names,
        ["base", "step 30"],
        "the best step, on the proof set"
    );
    for (eval, (step, target)) in versus
        .evals
        .iter()
        .zip([(0, Target::Base), (30, Target::Trained)])
    {
        let recorded = history.eval(step, &"test".into(), target).unwrap();
        let recorded = &recorded.summary;
        assert_eq!(
            (eval.summary.n, eval.summary.valid, eval.summary.exact),
            (recorded.n, recorded.valid, recorded.exact)
        );
    }
    let records = |eval: usize| read_evals(&versus.evals[eval].id.path()).unwrap();
    let pair = &versus.pairs[0];
    assert_eq!(
        pair.valid.comparison,
        Comparison::between(&records(0), &records(1))
    );
    assert_eq!(
        pair.exact.as_ref().map(|exact| exact.comparison),
        Comparison::between_exact(&records(0), &records(1))
    );
    let count = |outcome| {
        versus
            .prompts
            .iter()
            .filter(|prompt| versus.outcome(prompt, pair) == Some(outcome))
            .count()
    };
    for outcome in Outcome::ALL {
        assert_eq!(count(outcome), pair.count(outcome), "{}", outcome.name());
    }
    assert_eq!(
        pair.tiers.iter().flatten().sum::<usize>(),
        versus.prompts.len()
    );
    let difference = pair.valid.difference;
    assert!(
        (difference.estimate - (versus.evals[1].summary.valid - versus.evals[0].summary.valid))
            .abs()
            < 1e-12
    );
    assert!(
        difference.low < difference.estimate && difference.estimate < difference.high,
        "{difference:?}"
    );
    assert_eq!(
        (pair.valid.verdict, pair.valid.needed),
        (Verdict::Better, None)
    );
}

/// Where no checkpoint did better than the base, the comparison is of the latest eval, as on Live: it shows what training
/// did, and says that the best checkpoint is the base.
#[test]
fn a_base_that_stayed_the_best_is_compared_with_the_latest_eval() {
    let mut stage = Stage::with(160, 48, |options| {
        let run = copy_run(&options.here.join("runs"), ID, "one", "finished");
        for step in ["step-000030", "step-000040"] {
            std::fs::remove_dir_all(run.join("checkpoints").join(step)).unwrap();
        }
        options.program = PathBuf::from("/bin/false");
    });
    assert!(
        stage.shows(" base★ "),
        "the rates of the row are the base's: {}",
        stage.screen()
    );
    // From the list and by itself.
    for keys in ["v", "enter 7"] {
        stage.keys(keys);
        let screen = stage.screen();
        assert!(
            screen.contains("base → step 40") && !screen.contains("step 30"),
            "{keys}: {screen}"
        );
        assert!(
            screen.contains(
                "the best checkpoint is step 0 (the base): no later one was better on the eval set"
            ),
            "{keys}: {screen}"
        );
        assert!(
            screen.contains("invoice, eval, 50 prompts"),
            "{keys}: {screen}"
        );
        stage.keys("f1");
    }
    stage.keys("7 E enter y");
    assert!(
        stage.shows("the best checkpoint of"),
        "there is no trained model to read: {}",
        stage.screen()
    );
}

/// An older version read the proof set with the weights of step 0 and called them trained.
#[test]
fn the_log_calls_the_weights_of_step_0_the_base() {
    let evals_shown = |step: &str| {
        let mut stage = Stage::with(160, 48, |options| {
            let run = copy_run(&options.here.join("runs"), ID, "one", "finished");
            change(
                &run.join("events.jsonl"),
                &[(
                    "\"step\":30,\"set\":\"proof\"",
                    &format!("\"step\":{step},\"set\":\"proof\""),
                )],
            );
        });
        stage.keys("enter");
        stage.keys("6 alt-8 z");
        let screen = stage.screen();
        ["eval on test (trained)", "eval on test (base)"].map(|text| screen.contains(text))
    };
    assert_eq!(
        (evals_shown("30"), evals_shown("0")),
        ([true, true], [false, true])
    );
}

/// An eval that is better in form and worse in content is not "better": each metric is shown with its own colour and p.
#[test]
fn both_metrics_are_judged_on_their_own() {
    let run = finished_run();
    let mut evals = base_and_trained(&run)
        .unwrap()
        .into_iter()
        .map(|id| EvalResult::read(id, false).unwrap())
        .collect::<Vec<_>>();
    for (index, record) in evals[0].records.iter_mut().enumerate() {
        (record.tier, record.exact) = (Tier::Invalid, Some(index < 50));
    }
    for (index, record) in evals[1].records.iter_mut().enumerate() {
        (record.tier, record.exact) = (Tier::Valid, Some(index < 20));
    }
    for eval in &mut evals {
        eval.summary = EvalSummary::from_records(&eval.records);
    }
    let page = versus_text(&Versus::from_evals(evals.clone()).unwrap());
    assert!(
        !page.contains("calls valid"),
        "of a task without calls: {page}"
    );
    for eval in &mut evals {
        eval.summary.has_calls = true;
    }
    let page = Versus::from_evals(evals).unwrap();
    let (valid, exact) = (&page.pairs[0].valid, page.pairs[0].exact.as_ref().unwrap());
    assert_eq!(
        (valid.verdict, exact.verdict),
        (Verdict::Better, Verdict::Worse)
    );
    let text = versus_text(&page);
    assert!(
        text.contains("\nvalid: +100.0 points (95% CI [") && text.contains("], p = 1.9e-9)\n"),
        "{text}"
    );
    assert!(
        !text.contains("the second is better") && !text.contains("exact McNemar"),
        "{text}"
    );
    let document = page.document();
    assert_eq!(
        (
            &document["comparisons"][0]["verdict"],
            &document["comparisons"][0]["exact"]["verdict"]
        ),
        (&"better".into(), &"worse".into())
    );
    // What 50 calls come to has an interval too: 100 of 100 is not a promise.
    let line = text
        .lines()
        .find(|line| line.starts_with("P(50 calls valid)"))
        .unwrap();
    assert!(
        line.contains("100.0% [15.") && line.contains("0.0% [0.0,"),
        "{line}"
    );
}

#[test]
fn an_unclear_result_says_how_many_prompts_it_needs() {
    let run = finished_run();
    let eval = |step| EvalId {
        folder: run.clone(),
        step,
        set: "eval".into(),
        target: "trained".to_owned(),
    };
    let check = |before, after, (fixed, broken), needed, expected: &str| {
        let versus = Versus::read(&[eval(before), eval(after)]).unwrap();
        let valid = &versus.pairs[0].valid;
        assert_eq!(
            (
                valid.verdict,
                valid.comparison.fixed,
                valid.comparison.broken
            ),
            (Verdict::NoDifference, fixed, broken)
        );
        assert_eq!(
            (valid.needed, valid.judged().to_string().as_str()),
            (needed, expected)
        );
        let prompts = needed.map(|needed| {
            format!("valid: such a difference needs about {needed} prompts for 80% power")
        });
        assert_eq!(valid.needed_prompts(), prompts);
    };
    check(
        20,
        25,
        (6, 2),
        Some(210),
        "valid: no difference (p = 0.2891)",
    );
    check(30, 40, (0, 0), None, "valid: no difference (p = 1)");
    // That 50 prompts show no change does not say that there is none.
    let same = Versus::read(&[eval(40), eval(40)]).unwrap();
    let difference = same.pairs[0].valid.difference;
    assert!(
        difference.low == -difference.high && (0.05..0.1).contains(&difference.high),
        "{difference:?}"
    );
}

#[test]
fn the_command_line_says_the_same() {
    let command = |arguments: &[&str]| {
        let output = call_anywhere(&[&["runs", "compare"], arguments].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let run = finished_run();
    let versus = Versus::read(&base_and_trained(&run).unwrap()).unwrap();
    let document: serde_json::Value =
        serde_json::from_str(&command(&[run.to_str().unwrap(), "--json"])).unwrap();
    assert_eq!(document, versus.document());
    assert_eq!(
        document["comparisons"][0]["fixed"],
        versus.pairs[0].valid.comparison.fixed
    );
    assert_eq!(command(&[run.to_str().unwrap()]), versus_text(&versus));
    let on_eval = command(&[run.to_str().unwrap(), "--on", "eval"]);
    assert!(
        on_eval.contains("eval set, n = 50") && on_eval.contains("step 30"),
        "{on_eval}"
    );
}

#[test]
fn the_matrix_filters_the_list() {
    let mut stage = stage(120, 36);
    let versus = Versus::read(&base_and_trained(&finished_run()).unwrap()).unwrap();
    for (key, outcome) in [
        ("f", Outcome::Fixed),
        ("b", Outcome::Broken),
        ("n", Outcome::Neither),
        ("v", Outcome::Both),
    ] {
        stage.keys(key);
        let title = format!(
            "{} {} of 100",
            outcome.name(),
            versus.pairs[0].count(outcome)
        );
        assert!(stage.shows(&title), "{title}: {}", stage.screen());
    }
    stage.keys("v");
    assert!(
        stage.shows("prompts 100 of 100"),
        "the same key takes it away"
    );
    stage.keys("/").types("messy improvements").keys("enter");
    let screen = stage.screen();
    let found: usize = screen
        .split("▸ prompts ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let messy = |prompt: &&grpo_tui::report::ComparedPrompt| {
        versus
            .record(prompt, 0)
            .unwrap()
            .tags
            .contains(&"messy".to_owned())
    };
    let fixed = versus
        .prompts
        .iter()
        .filter(messy)
        .filter(|prompt| versus.outcome(prompt, &versus.pairs[0]) == Some(Outcome::Fixed));
    assert_eq!(found, fixed.count(), "{screen}");
    stage.keys("esc");
    assert!(stage.shows("prompts 100 of 100"));
    stage.keys("s");
    assert!(stage.shows("largest improvement first"));
}

#[test]
fn answers_are_read_and_copied() {
    let mut stage = stage(160, 48);
    stage.keys("f j enter");
    let screen = stage.screen();
    for expected in [
        "test-003 improvement",
        "/amount: expected number, found string \"1315.62\" (line 1 column 63)",
        "expected (base, step 30)",
    ] {
        assert!(screen.contains(expected), "{expected}: {screen}");
    }
    assert!(
        screen.find("Give me the vendor") < screen.find("│base: "),
        "the question comes first: {screen}"
    );
    // The end of the text holds the scrolling: the next key up is seen.
    stage.keys("G");
    let end = stage.screen();
    stage.keys("k");
    assert_ne!(end, stage.screen());
    stage.keys("g d");
    assert!(stage.shows("- base  + step 30"), "{}", stage.screen());
    let before = stage.screen();
    stage.keys("l");
    assert_ne!(before, stage.screen(), "another prompt");
    stage.keys("j j j k y Y");
    assert_eq!(
        stage
            .commands
            .iter()
            .filter(|command| command.starts_with("Copy"))
            .count(),
        2
    );
    // Esc goes back one thing at a time.
    stage.keys("esc esc");
    assert!(stage.shows("prompts 100 of 100"));
}

/// Every number of the matrix is seen, however many digits it has.
#[test]
fn the_matrix_hides_no_number() {
    for (columns, rows) in [(160, 48), (120, 36), (100, 30), (80, 24)] {
        let mut stage = Stage::with(columns, rows, |options| {
            let run = copy_run(&options.here.join("runs"), ID, "", "finished");
            for file in [
                "step-000000-proof-base.jsonl",
                "step-000030-proof-trained.jsonl",
            ] {
                change(
                    &run.join("evals").join(file),
                    &[("\"tier\":\"valid\"", "\"tier\":\"invalid\"")],
                );
            }
        });
        stage.keys("enter 7");
        for cell in [
            "neither 100 n",
            "both 0 v",
            "improvements 0 f",
            "regressions 0 b",
        ] {
            assert!(
                stage.shows(cell),
                "{columns}x{rows} {cell}:\n{}",
                stage.screen()
            );
        }
        check_roles(
            &stage,
            &[
                ("improvements 0", Role::Faint),
                ("regressions 0", Role::Faint),
            ],
        );
        stage.keys("n");
        assert!(
            stage.shows("▸neither 100 n"),
            "{columns}x{rows}:\n{}",
            stage.screen()
        );
    }
}

#[test]
fn a_run_without_evals_says_so_and_new_evals_are_read() {
    let mut stage = Stage::with(120, 36, |options| {
        let run = copy_run(&options.here.join("runs"), ID, "one", "finished");
        std::fs::remove_dir_all(run.join("evals")).unwrap();
    });
    stage.keys("enter 7");
    assert!(
        stage.shows("has no base and trained eval on one set yet"),
        "{}",
        stage.screen()
    );
    let run = stage.folder.path().join("runs").join(ID);
    std::fs::create_dir(run.join("evals")).unwrap();
    let first_row = |stage: &Stage| {
        let lines: Vec<String> = stage.screen().lines().map(str::to_owned).collect();
        let title = lines
            .iter()
            .position(|line| line.contains(" prompts ") && line.contains("┌▸"))
            .unwrap();
        lines[title + 1].clone()
    };
    // Those of the eval set, then those of the test set, which take their place: the cursor is at the top of both.
    for (set, title) in [("-eval-", "50 prompts"), ("-proof-", "100 prompts")] {
        for entry in std::fs::read_dir(finished_run().join("evals")).unwrap() {
            let name = entry.unwrap().file_name();
            if name.to_string_lossy().contains(set) {
                std::fs::copy(
                    finished_run().join("evals").join(&name),
                    run.join("evals").join(&name),
                )
                .unwrap();
            }
        }
        stage.keys("u");
        assert!(
            stage.shows(title) && first_row(&stage).starts_with("│▸"),
            "{}",
            stage.screen()
        );
    }
}

#[test]
fn nothing_panics_at_any_size_with_anything_open() {
    let mut stage = stage(120, 36);
    for keys in [
        "f", "enter", "d", "esc", "z", "z", "tab", "o", "enter", "esc", "esc", "/",
    ] {
        stage.keys(keys);
        for columns in [0, 1, 5, 39, 40, 49, 50, 71, 72, 99, 100, 200] {
            for rows in [0, 1, 3, 9, 10, 15, 16, 28, 60] {
                stage.send(Message::Resize(columns, rows));
                _ = stage.screen();
            }
        }
    }
}

#[test]
fn the_mouse_chooses_cells_prompts_and_panes() {
    for (columns, rows) in [(160, 48), (120, 36), (80, 24)] {
        let mut stage = stage(columns, rows);
        let place = |stage: &Stage, text: &str| {
            let screen = stage.screen();
            let (row, line) = screen
                .lines()
                .enumerate()
                .find(|(_, line)| line.contains(text))
                .unwrap();
            (
                line[..line.find(text).unwrap()].chars().count() as u16,
                row as u16,
            )
        };
        let (column, row) = place(&stage, "improvements 40");
        stage.click(column + 2, row);
        assert!(stage.shows("improvements 40 of 100"), "{}", stage.screen());
        stage.keys("f");
        let exact = "exact improvements 40 of 100";
        assert!(columns < 120 || stage.shows(exact), "{}", stage.screen());
        stage.keys("f");
        assert!(stage.shows("prompts 100 of 100"), "{}", stage.screen());
        // The third row of the list; its answers are shown beside it.
        stage.keys("g");
        let (column, row) = place(&stage, "test-001");
        stage.click(column, row);
        assert!(
            stage.shows("▸= test-001") && stage.shows("test-001 both"),
            "{}",
            stage.screen()
        );
        // The frame of the answers takes the focus, and the wheel there scrolls them.
        let (column, row) = place(&stage, "test-001 both");
        stage.click(column, row);
        assert!(stage.shows("▸ test-001"), "{}", stage.screen());
    }
}
