//! The scores screen: every source of completions, filters, groups and formulas, and what an edit of the schema changes
//! here and in a stored run.

use std::fmt::Write;

use grpo_tui::score::Tier;
use grpo_tui::view::screens::schema::file;
use grpo_tui::view::screens::scores::{Source, TierFilter};
use grpo_tui::view::{Message, app, update};

use super::harness::{Stage, finished_run};
use super::runs::{change, copy_run};

const VALID: &str = r#"{"vendor": "a", "date": "b", "amount": 1, "currency": "c"}"#;

fn stage(columns: u16, rows: u16) -> Stage {
    let mut stage = Stage::new(columns, rows);
    stage.keys("f4");
    stage
}

/// The same with the recorded run as the current one, at its last step.
fn with_run(columns: u16, rows: u16) -> Stage {
    let mut stage = stage(columns, rows);
    stage.act(|_| vec![grpo_tui::view::Command::ShowRun(finished_run())]);
    stage.keys("]");
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
    stage.keys("f f f f");
    assert_eq!(stage.model.scores.only, TierFilter::Moved);
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
        "esc o",
        &format!("completions {all}, task samples, worst first"),
    );
    check(
        &mut stage,
        "o o o",
        &format!("completions {all}, task samples"),
    );
    let (class, count) = stage.model.scores.scored.as_ref().unwrap().tally.failures[0];
    check(
        &mut stage,
        "c",
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
    stage.keys("v");
    assert!(!stage.shows("mean 0."));
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
    stage.keys("s i").types("x").keys("esc");
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
        stage.shows("no prompt") && stage.shows("p chooses"),
        "{}",
        stage.screen()
    );
    stage.keys("p").types("train-002").keys("enter");
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

#[test]
fn stored_steps_are_scored_again() {
    // The task as it was when the run was recorded.
    let mut stage = Stage::with(160, 48, |options| {
        let folder = options.here.join("tasks/invoice");
        crate::program::sample_task(&folder, [200, 50, 500]);
        let toml = std::fs::read_to_string(folder.join("task.toml")).unwrap();
        std::fs::write(
            folder.join("task.toml"),
            toml.replace("weight = 1.0", "weight = 0.0"),
        )
        .unwrap();
    });
    stage.keys("f4");
    stage.act(|_| vec![grpo_tui::view::Command::ShowRun(finished_run())]);
    stage.keys("]");
    let last = stage.model.shared.current_run().unwrap().history.last_step;
    assert!(
        stage.shows(&format!("completions 32, step {last}/{last}")),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("in the run: ") && stage.shows("this schema on the last 40 steps"),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("no change: 1280 rewards and advantages as recorded"),
        "{}",
        stage.screen()
    );
    assert!(
        !stage.shows("has schema") && !stage.shows("is of task"),
        "{}",
        stage.screen()
    );
    // The recorded advantages are found again, to the last digit.
    let scored = stage.model.scores.scored.as_ref().unwrap();
    for (item, advantage) in scored.items.all.iter().zip(&scored.advantages) {
        assert!((item.stored.unwrap().advantage - advantage).abs() < 1e-9);
    }
    stage.keys("[ [");
    assert!(stage.shows(&format!("step {}/{last}", last - 2)));
    stage.keys("} }");
    assert!(stage.shows(&format!("step {last}/{last}")));
    // Vendors must be short now: rewards fall, signs change, and the table says in which steps.
    edit_schema(&mut stage, |text| {
        text.replacen(
            "\"vendor\": { \"type\": \"string\"",
            "\"vendor\": { \"type\": \"string\", \"maxLength\": 9",
            1,
        )
    });
    assert!(
        stage.model.shared.draft.is_changed() && stage.model.shared.draft.stale.is_none(),
        "{}",
        stage.model.shared.draft.text
    );
    assert!(
        stage.shows("run 6sx3dn has schema 15841fb1, these scores are by"),
        "the digests of run.toml and of the text: {}",
        stage.screen()
    );
    assert!(
        stage.shows("rewards change") && stage.shows("advantages change sign"),
        "{}",
        stage.screen()
    );
    let latest = grpo_tui::view::screens::scores::scoring::sum(&stage.model.scores.impacts);
    assert!(
        latest.rewards > 0 && latest.signs > 0 && latest.completions == 1280,
        "{latest:?}"
    );
    stage.keys("S");
    let whole = stage.model.scores.whole.as_ref().unwrap();
    assert!(whole.is_done && whole.impacts.len() == 40);
    assert_eq!(
        grpo_tui::view::screens::scores::scoring::sum(&whole.impacts),
        latest
    );
    assert!(
        stage.shows("this schema on the whole run, 40 stored steps"),
        "{}",
        stage.screen()
    );
    edit_schema(&mut stage, |text| {
        text.replace("maxLength\": 9", "maxLength\": 8")
    });
    assert!(stage.shows("stale: schema changed"), "{}", stage.screen());
    // From the samples it shows the steps that the result is of.
    while stage.model.scores.source != Source::Samples {
        stage.keys("s");
    }
    stage.keys("S");
    assert!(
        stage.model.scores.source == Source::Step && stage.shows("on the whole run"),
        "{}",
        stage.screen()
    );
}

#[test]
fn a_run_of_another_task_is_scored_by_its_own() {
    let mut stage = stage(160, 48);
    let run = copy_run(
        &stage.folder.path().join("runs"),
        "20261121-000000-receipt-second",
        "two",
        "finished",
    );
    change(
        &run.join("run.toml"),
        &[("task = \"invoice\"", "task = \"receipt\"")],
    );
    stage.act(|_| vec![grpo_tui::view::Command::ShowRun(run)]);
    stage.keys("]");
    assert!(
        stage.shows("receipt (run second), not invoice"),
        "{}",
        stage.screen()
    );
}

/// The newest step of an active run appears by itself, until another one is chosen.
#[test]
fn a_live_run_is_followed() {
    let mut stage = stage(120, 36);
    let run = copy_run(
        &stage.folder.path().join("runs"),
        "20261121-000000-invoice-second",
        "two",
        "finished",
    );
    let _lock = grpo_tui::run::RunLock::acquire(&run).unwrap();
    let state = std::fs::read_to_string(run.join("state.json")).unwrap();
    std::fs::write(run.join("state.json"), state.replace("finished", "running")).unwrap();
    // The log up to a step, then up to a later one.
    let log = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let until_step = |step: u64| {
        let end = log
            .lines()
            .position(|line| {
                line.contains("\"kind\":\"step\"") && line.contains(&format!("\"step\":{step},"))
            })
            .unwrap();
        let lines: Vec<&str> = log.lines().take(end + 1).collect();
        std::fs::write(run.join("events.jsonl"), lines.join("\n") + "\n").unwrap();
    };
    let news = |stage: &mut Stage, step: u64| {
        until_step(step);
        let history = grpo_tui::run::RunState::read(&run).unwrap();
        assert_eq!(history.last_step, step);
        stage.send(Message::Run(
            run.clone(),
            grpo_tui::view::message::RunNews::Opened(Box::new(history)),
        ));
    };
    until_step(10);
    stage.act(|_| vec![grpo_tui::view::Command::ShowRun(run.clone())]);
    stage.keys("F");
    assert!(
        stage.shows("completions 32, following step 10"),
        "{}",
        stage.screen()
    );
    let first = stage.model.scores.items.all[0].from.clone();
    news(&mut stage, 11);
    assert!(
        stage.shows("completions 32, following step 11"),
        "{}",
        stage.screen()
    );
    assert_eq!(
        (
            first.as_str(),
            stage.model.scores.items.all[0].from.as_str()
        ),
        ("step 10 sample 1", "step 11 sample 1")
    );
    stage.keys("F");
    news(&mut stage, 12);
    assert!(
        stage.shows("completions 32, step 11/12"),
        "{}",
        stage.screen()
    );
    // While another screen is in front nothing is read; coming back shows the newest.
    stage.keys("F");
    assert!(stage.shows("following step 12"), "{}", stage.screen());
    stage.keys("f1");
    news(&mut stage, 14);
    stage.keys("f4");
    assert!(stage.shows("following step 14"), "{}", stage.screen());
    stage.keys("[");
    assert!(stage.shows("step 13/14"), "{}", stage.screen());
}

/// After an edit, the rows and the steps that it changes are found by one key each.
#[test]
fn what_a_rescoring_changes_is_complete_and_found() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = with_run(columns, rows);
        stage.keys("m");
        assert!(stage.shows("no row changed its tier"), "{}", stage.screen());
        edit_schema(&mut stage, |text| {
            text.replacen(
                "\"vendor\": { \"type\": \"string\"",
                "\"vendor\": { \"type\": \"string\", \"maxLength\": 9",
                1,
            )
        });
        stage.keys("S tab tab");
        if (columns, rows) == (120, 36) {
            for text in [
                "was 31",
                "31 of 32 rows changed since recorded: valid",
                "this schema on the whole run, 40 stored steps",
                "█ valid           1068",
                "▄ invalid           94     1162  +1068",
                "· unparsable",
                "rewards change",
                "advantages change",
            ] {
                assert!(stage.shows(text), "{text}: {}", stage.screen());
            }
        }
        stage.keys("m");
        assert!(
            stage.shows("completions 31 of 32, step 40/40, ch"),
            "{}",
            stage.screen()
        );
        stage.keys("m n");
        let impacts = &stage.model.scores.whole.as_ref().unwrap().impacts;
        let first = impacts.iter().find(|one| one.tiers > 0).unwrap().step;
        assert!(
            stage.shows(&format!("step {first}/40")),
            "after the last comes the first: {}",
            stage.screen()
        );
    }
}

/// Completions whose texts begin alike, of prompts that begin alike, are told apart in the list.
#[test]
fn rows_show_where_completions_differ() {
    let mut stage = stage(120, 36);
    for amount in ["12.50", "19.00", "12.50"] {
        let text = format!(
            "{{\"vendor\": \"A long common beginning\", \"date\": \"2026-01-01\", \"amount\": {amount}}}"
        );
        stage.send(Message::Paste(text));
    }
    stage.keys("v");
    for row in ["1 …\"amount\": 12.50}", "2 …\"amount\": 19.00}", "3 ≡ 1"] {
        assert!(stage.shows(row), "{row}: {}", stage.screen());
    }
}

#[test]
fn completions_are_sampled_from_base_and_trained() {
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
        stage.keys("f4").keys(keys);
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
        "b r",
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
        "r r",
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
        "b P r",
        &[
            "--confidence",
            "confidence, least 0.42",
            "✗ 0.42      /vendor \"a\"",
        ],
    );
    let stage = check(&sure, "b P P r", &["completions 1, sampled"]);
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
        "b r",
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
        let mut stage = with_run(columns, rows);
        write!(
            shown,
            "===== {columns}x{rows}, a stored step\n{}\n",
            stage.screen()
        )
        .unwrap();
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
