//! The scores screen: sources of completions, filters, and what an edit of the schema changes.

use std::fmt::Write;

use grpo_tui::score::Tier;
use grpo_tui::view::screens::schema::file;
use grpo_tui::view::screens::scores::{Only, Source};
use grpo_tui::view::{Message, app, update};

use super::harness::{Stage, finished_run};

const VALID: &str = r#"{"vendor": "a", "date": "b", "amount": 1, "currency": "c"}"#;

fn stage(columns: u16, rows: u16) -> Stage {
    let mut stage = Stage::new(columns, rows);
    stage.keys("f4");
    stage
}

fn edit_schema(stage: &mut Stage, change: impl FnOnce(&str) -> String) {
    let text = change(&stage.model.shared.draft.text);
    stage.act(|model| file::edited(&mut model.shared, text));
}

fn tiers(stage: &Stage) -> [usize; 3] {
    stage.model.scores.scored.as_ref().unwrap().tally.tiers
}

#[test]
fn nothing_is_copied_from_an_empty_list() {
    let mut stage = stage(120, 36);
    stage.keys("/").types("no such text").keys("enter y");
    assert!(stage.shows("nothing to copy"), "{}", stage.screen());
    assert!(stage.commands.is_empty(), "{:?}", stage.commands);
}

#[test]
fn samples_are_scored_with_the_schema_as_it_stands() {
    let mut stage = stage(120, 36);
    let before = tiers(&stage);
    assert!(
        before.iter().all(|count| *count > 0),
        "the samples show every tier: {before:?}"
    );
    assert!(
        stage.shows("█ valid") && stage.shows("▄ invalid") && stage.shows("· unparsable"),
        "{}",
        stage.screen()
    );
    // Nothing is required any more: what lacked a key is valid now, and is marked.
    edit_schema(&mut stage, |text| {
        text.replace("\"required\"", "\"x-required\"")
    });
    let after = tiers(&stage);
    assert!(
        after[Tier::Valid as usize] > before[Tier::Valid as usize],
        "{before:?} {after:?}"
    );
    assert!(stage.shows("schema in the editor, unsaved"));
    let moved = stage
        .model
        .scores
        .moved
        .iter()
        .filter(|before| before.is_some())
        .count();
    assert_eq!(
        moved,
        after[Tier::Valid as usize] - before[Tier::Valid as usize]
    );
    while stage.model.scores.only != Only::Moved {
        stage.keys("f");
        assert_ne!(stage.model.scores.only, Only::All);
    }
    assert!(
        stage.shows("changed by edit")
            && stage.shows("was invalid before the last edit")
            && stage.shows("↑"),
        "{}",
        stage.screen()
    );
    // A schema that does not compile: the last good one keeps scoring, marked stale; what moved stays marked.
    edit_schema(&mut stage, |text| text[..text.len() / 2].to_owned());
    assert_eq!(tiers(&stage), after);
    assert!(
        stage.shows("STALE") && stage.shows("changed by edit"),
        "{}",
        stage.screen()
    );
}

#[test]
fn edits_made_elsewhere_are_there_when_one_comes_back() {
    let mut stage = stage(120, 36);
    let before = tiers(&stage);
    stage.keys("f1");
    edit_schema(&mut stage, |text| {
        text.replace("\"required\"", "\"x-required\"")
    });
    assert_eq!(
        tiers(&stage),
        before,
        "nothing is scored behind another screen"
    );
    stage.keys("f4");
    assert_ne!(tiers(&stage), before);
    assert!(stage.model.scores.moved.iter().any(Option::is_some));
}

#[test]
fn filters_orders_and_groups() {
    let mut stage = stage(160, 48);
    let shown = |stage: &Stage| {
        let screen = stage.screen();
        let title = screen.lines().nth(1).unwrap().to_owned();
        title
            .split('┐')
            .next()
            .unwrap()
            .trim_matches(['┌', '─', '▸', ' '])
            .to_owned()
    };
    let all = stage.model.scores.items.all.len();
    let check = |stage: &mut Stage, keys: &str, expected: &str| {
        stage.keys(keys);
        assert_eq!(shown(stage), expected, "{keys}");
    };
    let [unparsable, invalid, valid] = tiers(&stage);
    check(
        &mut stage,
        "f",
        &format!("completions {unparsable} of {all}, task samples, unparsable"),
    );
    check(
        &mut stage,
        "f",
        &format!("completions {invalid} of {all}, task samples, invalid"),
    );
    check(
        &mut stage,
        "f",
        &format!("completions {valid} of {all}, task samples, valid"),
    );
    check(
        &mut stage,
        "esc s",
        &format!("completions {all}, task samples, worst first"),
    );
    check(
        &mut stage,
        "s s s",
        &format!("completions {all}, task samples"),
    );
    let (class, count) = stage.model.scores.scored.as_ref().unwrap().tally.failures[0];
    check(
        &mut stage,
        "f f f f",
        &format!(
            "completions {count} of {all}, task samples, {}",
            class.name()
        ),
    );
    stage.keys("esc /").types("gröner");
    let found = stage
        .model
        .scores
        .items
        .all
        .iter()
        .filter(|item| item.text.to_lowercase().contains("gröner"))
        .count();
    assert_eq!(
        shown(&stage),
        format!("completions {found} of {all}, task samples")
    );
    stage.keys("ctrl-u").types("no such text");
    assert!(stage.shows("No completions match"), "{}", stage.screen());
    stage.keys("esc");
    assert!(stage.shows("mean 0."));
    stage.keys("s");
    assert!(!stage.shows("mean 0."), "an order is that of all");
}

#[test]
fn a_completion_is_scored_while_it_is_written() {
    let mut stage = stage(120, 36);
    stage.keys("a").types("{\"vendor\": \"x");
    assert_eq!(
        (stage.model.scores.source, tiers(&stage)),
        (Source::Written, [1, 0, 0])
    );
    assert!(stage.shows("unparsable"), "{}", stage.screen());
    stage.types("\"}");
    assert_eq!(tiers(&stage), [0, 1, 0]);
    assert!(stage.shows("missing key \"date\""), "{}", stage.screen());
    stage.keys("esc");
    // Pasted text is a completion of its own, whatever it holds.
    stage.send(Message::Paste(format!("{VALID}\r")));
    assert_eq!(tiers(&stage), [0, 1, 1]);
    stage.send(Message::Paste("\u{1b}[2J\u{0}日本語 ".repeat(50)));
    assert_eq!(tiers(&stage), [1, 1, 1]);
    assert!(!stage.screen().contains('\u{1b}'));
    stage.keys("delete");
    assert_eq!(tiers(&stage), [0, 1, 1]);
    // A copy of a sample is edited; the sample stays.
    stage.keys("o e").types("x").keys("esc");
    assert_eq!(stage.model.scores.written.len(), 3);
    assert_eq!(stage.model.scores.source, Source::Written);
}

/// A pasted answer of nobody knows which prompt: what is not compared is no 0.
#[test]
fn a_pasted_completion_is_given_its_prompt() {
    let mut stage = Stage::with(120, 36, |options| {
        let folder = options.here.join("tasks/invoice");
        crate::program::sample_task(&folder, [12, 4, 8]);
        let toml = std::fs::read_to_string(folder.join("task.toml")).unwrap();
        let toml = toml
            .replace("weight = 1.0", "weight = 0.5")
            .replace("completions = \"completions.jsonl\"\n", "");
        std::fs::write(folder.join("task.toml"), toml).unwrap();
    });
    let expected = stage
        .model
        .shared
        .task
        .as_ref()
        .unwrap()
        .row("train-002")
        .unwrap()
        .expected
        .clone()
        .unwrap();
    stage.keys("f4");
    stage.send(Message::Paste(expected.to_string()));
    let score = |stage: &Stage| stage.model.scores.scored.as_ref().unwrap().scores[0].clone();
    assert_eq!(
        (
            score(&stage).reward,
            score(&stage).exact,
            score(&stage).parts.get("fields")
        ),
        (1.0, None, None)
    );
    assert!(
        stage.shows("no prompt") && stage.shows("P chooses"),
        "{}",
        stage.screen()
    );
    stage.keys("P").types("train-002").keys("enter");
    assert_eq!(
        (
            score(&stage).reward,
            score(&stage).exact,
            score(&stage).parts.get("fields")
        ),
        (1.5, Some(true), Some(&1.0))
    );
    assert!(
        !stage.shows("no prompt") && stage.shows("fields 1.000"),
        "{}",
        stage.screen()
    );
    stage.keys("f1");
    assert!(
        stage.shows("100%") && !stage.shows("not scored yet"),
        "{}",
        stage.screen()
    );
}

/// Completions whose texts begin alike, of prompts that begin alike, are told apart in the list.
#[test]
fn rows_show_where_completions_differ() {
    let mut stage = stage(200, 36);
    for amount in ["12.50", "19.00", "12.50"] {
        let text = format!(
            "{{\"vendor\": \"A long common beginning\", \"date\": \"2026-01-01\", \"amount\": {amount}}}"
        );
        stage.send(Message::Paste(text));
    }
    for row in ["…\"amount\": 12.50}", "…\"amount\": 19.00}", "≡ 1"] {
        assert!(stage.shows(row), "{row}: {}", stage.screen());
    }
}

#[test]
fn completions_are_sampled_from_base_and_trained() {
    const CONFIDENCE: &str = "with confidence";
    let sampled = format!(
        "printf '%s\\n' '{{\"prompt_id\":\"eval-001\",\"completion\":\"no\"}}' '{{\"prompt_id\":\"eval-001\",\"completion\":{}}}'",
        serde_json::to_string(VALID).unwrap()
    );
    let check = |script: &str, keys: &str, expected: &[&str]| -> Stage {
        let mut stage = Stage::with(120, 36, |options| {
            let text = format!(
                "printf '%s ' \"$@\" > '{}'\n{script}",
                options.here.join("arguments").display()
            );
            options.program = super::harness::script(&options.here.join("program"), &text);
        });
        stage.act(|_| vec![grpo_tui::view::Command::ShowRun(finished_run())]);
        stage.keys("f4");
        match keys {
            CONFIDENCE => stage.keys("b").command("toggle confidence").keys("S"),
            keys => stage.keys(keys),
        };
        let arguments =
            std::fs::read_to_string(stage.folder.path().join("arguments")).unwrap_or_default();
        for part in expected {
            assert!(
                stage.shows(part) || arguments.contains(part),
                "{part}: {arguments}\n{}",
                stage.screen()
            );
        }
        stage
    };
    let stage = check(
        &sampled,
        "b S",
        &[
            "sample invoice --model tiny --prompt train-001 --n 8",
            "completions 2, sampled",
            "mean 0.500",
            "base, sampling 1",
        ],
    );
    assert_eq!(stage.model.scores.source, Source::Sampled);
    check(
        &sampled,
        "S S",
        &[
            "finished-run@best",
            "--seed 1",
            "--worker",
            "completions 4, sampled",
            "trained invoices, small adapters (best checkpoint), sampling 2",
        ],
    );
    // With confidence the values are shown as on Eval, right by the schema in the editor.
    let sure = format!(
        "printf '%s\\n' '{{\"prompt_id\":\"eval-001\",\"completion\":{},\"confidence\":{{\"leaves\":[{{\"path\":\"/vendor\",\"confidence\":0.42}}]}}}}'",
        serde_json::to_string(VALID).unwrap()
    );
    check(
        &sure,
        CONFIDENCE,
        &[
            "--confidence",
            "confidence, least 0.42",
            "✗ 0.42      /vendor \"a\"",
        ],
    );
    let stage = check(&sure, "b S", &["completions 1, sampled"]);
    let arguments = std::fs::read_to_string(stage.folder.path().join("arguments")).unwrap();
    assert!(!arguments.contains("--confidence"), "{arguments}");
    // Whoever writes a completion by then goes on writing.
    let mut stage = check(&sampled, "b", &[]);
    let commands = stage.model.perform(app::action("scores.draw").unwrap());
    let sampling = update::carry_out(&mut stage.model, commands);
    stage.keys("a").types("{");
    stage.carry_out(sampling);
    assert_eq!(stage.model.scores.sampled.len(), 2);
    assert!(
        stage.model.scores.source == Source::Written && stage.shows("editing: scored as you type"),
        "{}",
        stage.screen()
    );
    check(
        "echo 'error: model `tiny` was not found' >&2; exit 1",
        "b S",
        &["sampling failed: model `tiny` was not found"],
    );
}

/// Writing that was given up leaves nothing, and shows what was there before.
#[test]
fn a_completion_without_text_is_not_kept() {
    let mut stage = stage(120, 36);
    let before = tiers(&stage);
    stage.keys("a esc");
    assert_eq!(
        (stage.model.scores.source, tiers(&stage)),
        (Source::Samples, before)
    );
    stage
        .keys("a")
        .types("{}")
        .keys("esc a")
        .types(" ")
        .keys("esc");
    assert_eq!(
        (stage.model.scores.source, stage.model.scores.written.len()),
        (Source::Written, 1)
    );
    assert!(
        stage.shows("completions 1, not saved"),
        "{}",
        stage.screen()
    );
}

#[test]
fn pictures() {
    let mut shown = String::new();
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = self::stage(columns, rows);
        edit_schema(&mut stage, |text| {
            text.replacen(
                "\"vendor\": { \"type\": \"string\"",
                "\"vendor\": { \"type\": \"string\", \"maxLength\": 9",
                1,
            )
        });
        stage.keys("tab tab");
        write!(
            shown,
            "===== {columns}x{rows}, schema was changed\n{}\n",
            stage.screen()
        )
        .unwrap();
        let mut samples = self::stage(columns, rows);
        samples.keys("j j j j j j");
        write!(
            shown,
            "===== {columns}x{rows}, samples\n{}\n",
            samples.screen()
        )
        .unwrap();
        samples.keys("a").types("{\"vendor\": 3, \"date\"");
        write!(
            shown,
            "===== {columns}x{rows}, writing\n{}\n",
            samples.screen()
        )
        .unwrap();
    }
    insta::assert_snapshot!(shown);
}
