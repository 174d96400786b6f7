//! Tests: the program pane of the schema screen, with a program of the shell.

use std::path::PathBuf;

use super::harness::Stage;

const TOML: &str = "name = \"sums\"\n\n[prompts]\ncompletions = \"completions.jsonl\"\n\n[score]\nkind = \"command\"\ncommand = [\"sh\", \"judge.sh\"]\nprocesses = 2\n";

/// Answers each line, and writes what a terminal would obey.
const JUDGE: &str = r#"while read -r line; do
  id=${line#*:}; id=${id%%,*}
  printf 'judged \033[31m%s\n' "$id" >&2
  printf '{"id": %s, "tier": "invalid", "failure": "no_sum", "reasons": ["not \\u001b[31m a sum"], "metrics": {"words": 2}}\n' "$id"
done
"#;

/// The screen with a task that this program scores, and its folder, which makes the program another than before.
fn stage() -> (Stage, PathBuf) {
    let mut stage = Stage::with(120, 36, |options| {
        let folder = options.here.join("tasks/sums");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("task.toml"), TOML).unwrap();
        std::fs::write(
            folder.join("judge.sh"),
            format!("# {}\n{JUDGE}", folder.display()),
        )
        .unwrap();
        std::fs::write(
            folder.join("completions.jsonl"),
            "{\"completion\": \"1 + 1\"}\n{\"completion\": \"two\"}\n",
        )
        .unwrap();
    });
    stage.keys("f2");
    let folder = stage.folder.path().join("tasks/sums");
    (stage, folder)
}

#[test]
fn a_program_is_asked_once_it_is_trusted_and_all_that_it_says_is_shown() {
    let (mut stage, _) = stage();
    insta::assert_snapshot!(stage.screen());
    stage.keys("tab T y");
    for text in [
        "✓ trusted",
        "sample 1 of 2, line 1",
        "invalid, value 0.500, no_sum",
        "reasons  1:1 not ␛[31m a sum",
        "metrics  words = 2",
        "asked    {\"id\":1,\"completion\":\"1 + 1\",\"row\":null}",
        "answered {\"id\": 1, \"tier\": \"invalid\"",
        "mean reward 0.500 of 2 samples",
    ] {
        assert!(stage.shows(text), "{text}: {}", stage.screen());
    }
    stage.keys("] z");
    assert!(
        stage.shows("sample 2 of 2, line 2") && stage.shows("\"two\""),
        "{}",
        stage.screen()
    );
    assert!(stage.shows("stderr   judged ␛[31m1"), "{}", stage.screen());
    assert!(!stage.screen().contains('\u{1b}'));
}

#[test]
fn a_change_of_the_command_or_of_its_file_asks_for_trust_again() {
    let (mut stage, folder) = stage();
    stage.keys("T y");
    assert!(
        stage.shows("✓ trusted") && stage.model.schema.effects.is_some(),
        "{}",
        stage.screen()
    );
    stage
        .keys("enter ctrl-g")
        .types("8")
        .keys("enter end left")
        .types(", \"-x\"");
    assert!(
        stage.shows("▲ changed since it was trusted"),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("not scored, because the command has changed"),
        "{}",
        stage.screen()
    );
    assert!(
        !stage.shows("STALE") && stage.model.schema.effects.is_none(),
        "{}",
        stage.screen()
    );
    let fault = &stage.model.shared.draft.faults[0];
    assert_eq!((fault.line, fault.column), (8, 11), "{fault:?}");
    // A limit is no part of what is trusted.
    stage
        .keys("ctrl-u ctrl-u ctrl-u end enter")
        .types("seconds = 5");
    assert!(
        stage.shows("✓ trusted") && stage.shows("limits: 5 s"),
        "{}",
        stage.screen()
    );
    assert!(stage.model.schema.effects.is_some(), "{}", stage.screen());
    stage.tick_after(1000);
    let judge = folder.join("judge.sh");
    std::fs::write(
        &judge,
        format!("{}\n# new", std::fs::read_to_string(&judge).unwrap()),
    )
    .unwrap();
    stage.tick_after(1000);
    assert!(
        stage.shows("▲ changed since it was trusted"),
        "{}",
        stage.screen()
    );
}
