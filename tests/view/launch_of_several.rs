//! A run of several tasks on the launch screen.

use grpo_tui::config::Source;

use super::harness::Stage;
use super::launch::{arguments, forecasting, go_to, printed, value};

#[test]
fn further_tasks_are_trained_with_the_open_one() {
    let mut stage = Stage::with(120, 36, |options| {
        forecasting(options);
        crate::program::sample_task(&options.here.join("tasks/invoice"), crate::program::ALL);
        for name in ["receipts", "tickets"] {
            let folder = options.here.join("tasks").join(name);
            crate::program::sample_task(&folder, crate::program::ALL);
            let text = format!(
                "name = \"{name}\"\nschema = \"schema.json\"\nsystem = \"JSON.\"\n[prompts]\ntrain = \"train.jsonl\"\n[train]\nkl_beta = {}\n",
                if name == "tickets" { 0.03 } else { 0.02 }
            );
            std::fs::write(folder.join("task.toml"), text).unwrap();
        }
    });
    stage.keys("f5");
    go_to(&mut stage, "other tasks");
    stage.keys("enter").types("receipts 2:1").keys("enter");
    assert_eq!(
        value(&stage, "kl_beta"),
        ("0.02".to_owned(), Source::Task),
        "of the other task"
    );
    assert!(printed(&mut stage).starts_with("grpo-tui train invoice receipts --mix 2:1 --runs"));
    stage.keys("f");
    assert_eq!(
        arguments(&stage)[1..5],
        ["FOLDER/tasks/invoice", "receipts", "--mix", "2:1"]
    );
    // Tasks that contradict each other, and a task that there is not.
    for (others, problem) in [("receipts tickets", "kl_beta"), ("nosuch", "nosuch")] {
        go_to(&mut stage, "other tasks");
        stage.keys("enter").types(others).keys("enter");
        assert!(
            stage
                .model
                .launch
                .problem
                .as_ref()
                .unwrap()
                .contains(problem),
            "{:?}",
            stage.model.launch.problem
        );
    }
    stage.keys("backspace");
    assert_eq!(
        (
            value(&stage, "kl_beta").1 == Source::Task,
            &stage.model.launch.problem
        ),
        (false, &None)
    );
}
