//! Evals without any run, and groups of failures.

use grpo_tui::view::Screen;

use super::*;

#[test]
fn a_base_model_is_evaluated_without_any_run() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = Stage::new(columns, rows);
        let folder = stage.folder.path().to_owned();
        let run = finished_run();
        let script = format!(
            "echo \"$@\" > {0}/arguments\nfor last; do :; done\nmkdir -p $last/evals && cp -r {1}/task $last/task && \
             cp {1}/evals/step-000000-proof-base.jsonl $last/evals/step-000000-test-base.jsonl && echo '{{}}' > $last/eval.json",
            folder.display(),
            run.display()
        );
        stage.model.shared.options.program =
            super::super::harness::script(&folder.join("program"), &script);
        stage.keys("7");
        assert!(
            stage.shows("run an eval of a base model; no run is needed"),
            "{}",
            stage.screen()
        );
        stage.keys("E");
        assert!(
            stage.shows("Run baseline eval") && stage.shows("Prompt set that tiny answers"),
            "{}",
            stage.screen()
        );
        stage.keys("ctrl-u");
        assert!(stage.shows("enter a set or a file"), "{}", stage.screen());
        stage.types("test").keys("enter");
        assert!(
            stage.shows("tiny answers 500 test prompts of invoice, greedy"),
            "{}",
            stage.screen()
        );
        stage.keys("y");
        wait(&mut stage, "eval finished");
        let arguments = std::fs::read_to_string(folder.join("arguments")).unwrap();
        assert!(
            arguments.starts_with("eval invoice --model base=tiny --on test --runs "),
            "{arguments}"
        );
        let screen = stage.screen();
        for expected in [
            "valid 60.0% [50.2, 69.1], exact 59.0% [49.2, 68.1]",
            "not compared",
            "not valid 40 n",
            "valid 60 v",
        ] {
            assert!(screen.contains(expected), "{expected}: {screen}");
        }
        stage.keys("n");
        assert!(stage.shows("not valid 40 of 100"), "{}", stage.screen());
        // The same by a click, also where both counts are equal.
        stage.keys("n");
        let screen = stage.screen();
        let (row, line) = screen
            .lines()
            .enumerate()
            .find(|(_, line)| line.contains("not valid 40 n"))
            .unwrap();
        let column = line.find("not valid 40 n").unwrap();
        let column = line[..column].chars().count() as u16;
        stage.click(column + 2, row as u16);
        assert!(stage.shows("not valid 40 of 100"), "{}", stage.screen());
        stage.keys("s");
        assert!(stage.shows("highest reward first"), "{}", stage.screen());
        stage.keys("s s f");
        assert!(
            stage.shows("one eval is shown"),
            "no improvements without a second eval: {}",
            stage.screen()
        );
        stage.keys("enter");
        assert!(stage.shows("base: "), "{}", stage.screen());
        for key in ["tab", "z", "z", "c", "esc", "esc"] {
            stage.keys(key);
            _ = stage.screen();
        }
        // The same eval is chosen again, alone.
        stage.keys("o enter space c");
        assert!(stage.shows("not compared"), "{}", stage.screen());
    }
}

/// Comments of both runs are shown.
#[test]
fn comments_of_both_runs_are_shown() {
    const OTHER: &str = "20261121-000000-invoice-second";
    let mut stage = Stage::with(160, 48, |options| {
        for id in [ID, OTHER] {
            let run = copy_run(&options.here.join("runs"), id, "", "finished");
            let comment = grpo_tui::run::Comment {
                set: "test".into(),
                prompt_id: "test-001".into(),
                text: format!("of {id}"),
                time_ms: 1,
            };
            grpo_tui::run::write_comment(&run, comment).unwrap();
        }
    });
    stage
        .keys("space space v / ")
        .types("test-001")
        .keys("enter");
    assert!(
        stage.shows(&format!("comment: of {ID}; of {OTHER}")),
        "{}",
        stage.screen()
    );
}

#[test]
fn groups_of_failures_filter_the_prompts() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = stage(columns, rows);
        stage.keys("C");
        assert!(
            stage.shows("Failures of base: 41 of 100") && stage.shows("class wrong type"),
            "{}",
            stage.screen()
        );
        stage.types("messy");
        assert!(
            stage.shows("▲ tag messy")
                && stage.shows("40 of 42    97.6% of failures  42.0% of set"),
            "{}",
            stage.screen()
        );
        assert!(
            stage.shows("over-represented (p < 0.05"),
            "{}",
            stage.screen()
        );
        stage.keys("enter");
        assert_eq!(stage.model.shared.screen, Screen::Eval);
        assert!(
            stage.shows("40 of 100") && stage.shows("tag messy"),
            "{}",
            stage.screen()
        );
        // A second filter holds within the group.
        stage.keys("b");
        assert!(stage.shows("0 of 100: tag messy"), "{}", stage.screen());
        stage.keys("b esc");
        assert!(stage.shows("prompts 100 of 100"), "{}", stage.screen());
        stage.keys("c");
        assert!(
            stage.shows("Failures of step 30: 3 of 100"),
            "{}",
            stage.screen()
        );
    }
    let mut stage = stage(120, 36);
    stage.keys("tab tab z");
    assert!(
        stage.shows("failures of step 30, 3: tag table (3 of 19)"),
        "{}",
        stage.screen()
    );
}
