//! Tests: which evals are compared, and what is said of those that cannot be.

use std::path::Path;

use grpo_tui::report::{EvalId, ReportError, Versus, base_and_trained};
use grpo_tui::view::Screen;

use super::super::harness::Stage;
use super::super::runs::{change, copy_run};
use super::ID;
use crate::program::call_anywhere;

#[test]
fn two_evals_of_any_runs_are_chosen() {
    let mut stage = Stage::with(120, 36, |options| {
        copy_run(&options.here.join("runs"), ID, "one", "finished");
        copy_run(
            &options.here.join("runs"),
            "20261121-000000-invoice-second",
            "two",
            "finished",
        );
    });
    stage.keys("7 o");
    assert!(
        stage.shows("Choose evals: select a run") && stage.shows("20261121-000000-invoice-second"),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("second  two  invoice  step 40  valid 99%  finished"),
        "{}",
        stage.screen()
    );
    stage.keys("c");
    assert!(stage.shows("select one or two evals first (space)"));
    stage.keys("enter");
    assert!(
        stage.shows("test     base         valid 60%  exact 59%  n = 100"),
        "{}",
        stage.screen()
    );
    stage.keys("j space esc");
    stage.keys("j enter j space c");
    let screen = stage.screen();
    assert!(
        screen.contains("6sx3dn step 30 → second step 30"),
        "{screen}"
    );
    // The header has what is compared, whichever run is open.
    assert!(
        screen
            .lines()
            .next()
            .unwrap()
            .ends_with("invoice  6sx3dn vs second"),
        "{screen}"
    );
    assert_eq!(stage.model.shared.screen, Screen::Eval);
    assert!(
        stage.shows("valid: no difference"),
        "the same eval of two copies: {}",
        stage.screen()
    );
    // What was chosen is left with esc, for the open run.
    stage.keys("esc");
    assert!(stage.shows("┌ base → step 30"), "{}", stage.screen());
}

/// Where the summary has room, it lists what fails.
#[test]
fn failing_prompts_are_beside_the_rates() {
    let stage = super::stage(120, 36);
    for text in [
        "failures of step 30: 3",
        "· test-045 syntax  the number is incom",
        "█ test-066 wrong value  vendor",
    ] {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
}

#[test]
fn unlike_evals_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let other = |name: &str, file: &str, from: &str, to: &str| {
        let run = copy_run(
            folder.path(),
            &format!("20261121-000000-invoice-{name}"),
            name,
            "finished",
        );
        change(&run.join("task").join(file), &[(from, to)]);
        run
    };
    let first = copy_run(folder.path(), ID, "one", "finished");
    let eval = |run: &Path, set: &str| EvalId {
        folder: run.to_owned(),
        step: 30,
        set: set.into(),
        target: "trained".to_owned(),
    };
    let check = |second: &Path, set: &str, expected: &str| {
        let error = Versus::read(&[eval(&first, "test"), eval(second, set)]).unwrap_err();
        assert!(
            matches!(error, ReportError::Unlike(_)) && error.to_string().contains(expected),
            "{error}"
        );
    };
    check(
        &other("prompts", "eval-large.jsonl", "test-001", "test-1001"),
        "test",
        "their prompts differ",
    );
    let schema = Versus::read(&[
        eval(&first, "test"),
        eval(
            &other("schema", "schema.json", "\"type\"", " \"type\""),
            "test",
        ),
    ])
    .unwrap_err();
    assert!(
        matches!(&schema, ReportError::OtherSchemas(text) if text.contains("different schemas")),
        "{schema}"
    );
    check(
        &other(
            "task",
            "task.toml",
            "name = \"invoice\"",
            "name = \"receipt\"",
        ),
        "test",
        "one is of the task invoice, the other of receipt",
    );
    check(&first, "eval", "their prompts differ");
    // Other rules of the task are only worth a remark.
    let rules = other("rules", "task.toml", "title = \"", "title = \"Other ");
    let versus = Versus::read(&[eval(&first, "test"), eval(&rules, "test")]).unwrap();
    assert!(
        versus
            .warnings
            .iter()
            .any(|warning| warning.contains("task.toml")),
        "{:?}",
        versus.warnings
    );
    let missing = base_and_trained(folder.path()).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("has no base and trained eval on one set yet"),
        "{missing}"
    );
    std::fs::write(
        first.join("evals/step-000030-proof-trained.jsonl"),
        "{\"prompt_id\":\"a\"}\nno json\n",
    )
    .unwrap();
    let torn = Versus::read(&base_and_trained(&first).unwrap()).unwrap_err();
    assert!(
        torn.to_string()
            .contains("step-000030-proof-trained.jsonl line 2"),
        "{torn}"
    );
}

/// Two runs on both sides of a change of the schema are compared under the schema as it is now.
#[test]
fn passes_of_other_schemas_are_scored_again() {
    const OTHER: &str = "20261121-000000-invoice-second";
    let mut stage = Stage::with(120, 36, |options| {
        copy_run(&options.here.join("runs"), ID, "one", "finished");
        let run = copy_run(&options.here.join("runs"), OTHER, "two", "finished");
        change(&run.join("task/schema.json"), &[("\"type\"", " \"type\"")]);
    });
    stage.keys("space space v");
    assert!(
        stage.shows("were scored with different schemas") && stage.shows("r   re-score both sides"),
        "{}",
        stage.screen()
    );
    stage.keys("r");
    let screen = stage.screen();
    assert!(
        screen.contains("second step 30 → 6sx3dn step 30") && screen.contains("both 99"),
        "{screen}"
    );
    assert!(
        stage
            .model
            .shared
            .notices
            .all()
            .iter()
            .any(|notice| notice.text.contains("scores: schema in the editor"))
    );
    // A schema that asks for more is counted at once: nothing is valid any more.
    stage
        .keys("f2 enter alt-a")
        .types("{\"type\": \"object\", \"required\": [\"total\"]}")
        .keys("esc f7");
    let screen = stage.screen();
    assert!(
        screen.contains("neither 100") && screen.contains("both 0"),
        "{screen}"
    );
    stage.keys("n j enter");
    assert!(
        stage.shows("total"),
        "the reasons are those of the schema: {}",
        stage.screen()
    );
    stage.keys("esc r");
    assert!(
        stage.shows("were scored with different schemas"),
        "as recorded they cannot be compared: {}",
        stage.screen()
    );
    let runs = stage.folder.path().join("runs");
    let command = |more: &[&str]| {
        let arguments = [
            &[
                "runs",
                "compare",
                ID,
                OTHER,
                "--runs",
                runs.to_str().unwrap(),
            ],
            more,
        ]
        .concat();
        let output = call_anywhere(&arguments);
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text, _) = command(&[]);
    assert!(code == 0 && text.contains("add --rescore TASK"), "{text}");
    let (code, _, error) = command(&["--markdown"]);
    assert!(code == 1 && error.contains("add --rescore TASK"), "{error}");
    let task = runs.join(ID).join("task");
    let (code, text, error) = command(&["--rescore", task.to_str().unwrap()]);
    assert!(
        code == 0
            && text.contains("0 improvements, 0 regressions in 100 prompts")
            && text.contains("re-scored with one schema"),
        "{text} {error}"
    );
}
