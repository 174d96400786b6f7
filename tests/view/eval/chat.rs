//! A prompt of one's own, answered by base and trained.

use grpo_tui::view::Command;

use crate::view::harness::{Stage, finished_run, script};

/// A stage whose program keeps its arguments and says `text`.
fn stage(columns: u16, rows: u16, text: &str) -> Stage {
    Stage::with(columns, rows, |options| {
        let kept = options.here.join("arguments");
        let text = format!(
            "printf '%s ' \"$@\" >> '{0}'; echo >> '{0}'\n{text}",
            kept.display()
        );
        options.program = script(&options.here.join("program"), &text);
    })
}

fn arguments(stage: &Stage) -> String {
    std::fs::read_to_string(stage.folder.path().join("arguments")).unwrap_or_default()
}

/// The base answers with text for a number, the trained model as it should.
const ANSWERS: &str = r#"
case "$*" in
*--base*) echo '{"prompt_id":"own","completion":"{\"amount\": \"12\"}","tier":"invalid","reward":0.5,"tolerant":false,"token_ids":[1,2,3],"stop_reason":"stop","errors":[{"instance_path":"/amount","message":"expected number, found string","line":1,"column":12}]}' ;;
*) echo '{"prompt_id":"own","completion":"{\"amount\": 12}","tier":"valid","reward":1.0,"tolerant":true,"token_ids":[1,2],"stop_reason":"length","errors":[]}' ;;
esac"#;

#[test]
fn base_and_trained_answer_a_prompt_side_by_side() {
    let mut stage = stage(120, 36, ANSWERS);
    stage.act(|_| vec![Command::ShowRun(finished_run())]);
    stage.keys("7 t");
    assert!(
        stage.shows("will answer: base tiny, trained (best checkpoint)"),
        "{}",
        stage.screen()
    );
    stage.keys("alt-enter");
    assert!(
        stage.shows("the prompt is empty") && arguments(&stage).is_empty(),
        "{}",
        stage.screen()
    );
    stage
        .types("Acme owes 12")
        .keys("enter")
        .types("EUR")
        .keys("alt-enter");
    for expected in [
        "Acme owes 12",
        "base tiny:",
        "invalid 0.50, 3 tokens",
        "/amount: expected number, found string (line 1 column 12)",
        "trained (best checkpoint):",
        "valid 1.00, 2 tokens, truncated",
        "\"amount\": \"12\"",
        "\"amount\": 12",
    ] {
        assert!(stage.shows(expected), "{expected}: {}", stage.screen());
    }
    // The last command has the path of this repository.
    stage.model.shared.commands = Default::default();
    insta::assert_snapshot!("eval_chat_120x36", stage.screen());
    let asked = arguments(&stage);
    let [base, trained] = asked.lines().collect::<Vec<_>>()[..] else {
        panic!("{asked}")
    };
    assert!(
        base.contains("finished-run@best --base --on ") && base.contains("--n 1 --temperature 0"),
        "{base}"
    );
    assert!(
        trained.contains("finished-run@best --on ") && !asked.contains("Acme"),
        "{trained}"
    );
    // What is of the comparison behind does nothing here.
    stage.keys("f");
    assert!(
        stage.shows("esc goes back to the comparison"),
        "{}",
        stage.screen()
    );
    // Stacked instead; back to the prompt, out, and in again with the same prompt.
    stage.keys("d");
    assert!(stage.shows("- base tiny"), "{}", stage.screen());
    stage.keys("esc");
    assert!(stage.shows("improvements"), "{}", stage.screen());
    stage.keys("t");
    assert!(
        stage.shows("Acme owes 12") && stage.shows("EUR") && stage.shows("will answer"),
        "{}",
        stage.screen()
    );
    // What was typed replaces it.
    stage.types("x").keys("alt-enter");
    assert!(
        !stage.shows("Acme") && stage.shows("valid 1.00"),
        "{}",
        stage.screen()
    );
    // What was not asked yet is kept, too.
    stage.keys("esc t").types("half").keys("esc t");
    assert!(stage.shows("half"), "{}", stage.screen());
}

#[test]
fn without_a_run_the_base_answers_alone_and_failures_are_named() {
    let mut alone = stage(80, 24, ANSWERS);
    alone.keys("7 t").types("one").keys("alt-enter");
    assert!(
        alone.shows("base tiny: ") && alone.shows("valid 1.00") && !alone.shows("trained"),
        "{}",
        alone.screen()
    );
    assert!(
        arguments(&alone).contains("--model tiny --on "),
        "{}",
        arguments(&alone)
    );
    alone.model.shared.commands = Default::default();
    insta::assert_snapshot!("eval_chat_80x24", alone.screen());
    let mut failing = stage(80, 24, "echo 'error: no GPU is free' >&2; exit 1");
    failing.keys("7 t").types("one").keys("alt-enter");
    assert!(
        failing.shows("base tiny: no GPU is free"),
        "{}",
        failing.screen()
    );
}
