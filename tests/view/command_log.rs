//! The command log: what keys do is written down as the command that does the same.

use super::harness::Stage;
use super::runs::copy_run;

const RUN: &str = "20261120-143041-invoice-6sx3dn";

fn stage() -> Stage {
    Stage::with(120, 36, |options| {
        copy_run(
            &options.here.join("runs"),
            RUN,
            "small adapters",
            "finished",
        );
        options.program = "/bin/false".into();
    })
}

fn last(stage: &Stage) -> String {
    stage
        .model
        .shared
        .commands
        .all()
        .last()
        .map(|line| line.text.clone())
        .unwrap_or_default()
}

#[test]
fn keys_write_down_the_commands_that_do_the_same() {
    let mut stage = stage();
    let run = format!("runs/{RUN}");
    let check = |stage: &mut Stage, keys: &str, text: &str, expected: &str| {
        stage.keys(keys).types(text);
        assert_eq!(
            last(stage),
            format!("grpo-tui {}", expected.replace("RUN", &run)),
            "{keys} {text}"
        );
    };
    assert_eq!(
        last(&stage),
        "",
        "what was done without a key is not logged"
    );
    check(
        &mut stage,
        "a",
        "warm start\n",
        "runs annotate RUN -- 'warm start'",
    );
    stage.command("rename run").keys("ctrl-u");
    check(&mut stage, "", "first try\n", "runs rename RUN 'first try'");
    stage.command("edit tags");
    check(
        &mut stage,
        "",
        "good -bad\n",
        "runs tag RUN good --remove=bad",
    );
    check(&mut stage, "v", "", "runs compare RUN");
    check(&mut stage, "f1 d", "y", "runs remove RUN --yes");
    let folder = stage.folder.path().join("tasks/own");
    crate::program::sample_task(&folder, [10, 10, 10]);
    stage.act(|model| {
        grpo_tui::view::shared::open_task(&model.shared, Some("tasks/own".to_owned()))
    });
    stage.keys("f5 L");
    let line = last(&stage);
    assert!(
        line.starts_with("grpo-tui train tasks/own ") && line.ends_with(" --runs runs --detach"),
        "{line}"
    );
}

#[test]
fn the_logs_are_searched_and_copied() {
    let mut stage = stage();
    stage.keys("alt-m");
    assert!(
        stage.shows("Command log: enter copies") && stage.shows("nothing yet"),
        "{}",
        stage.screen()
    );
    let key = format!("hf_{}\n", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3h");
    stage
        .keys("esc")
        .command("edit tags")
        .types("one\n")
        .keys("a")
        .types(&key);
    stage.keys("alt-m");
    assert!(
        stage.shows("runs tag") && stage.shows("runs annotate") && stage.shows("hf_a…(37 char"),
        "{}",
        stage.screen()
    );
    assert!(
        stage
            .model
            .shared
            .commands
            .all()
            .iter()
            .all(|line| !line.text.contains("hf_aB3"))
    );
    stage.types("tag").keys("enter");
    let copied = format!("Copy(\"grpo-tui runs tag runs/{RUN} one\")");
    assert!(stage.commands.contains(&copied), "{:?}", stage.commands);
    // Messages are in a list of the same kind; the details hold all of a long one.
    stage
        .model
        .shared
        .complain(format!("{} at the end", "a long message ".repeat(20)));
    stage.keys("alt-n");
    assert!(
        stage.shows("Messages: enter copies") && stage.shows("at the end"),
        "{}",
        stage.screen()
    );
    stage.keys("enter");
    assert!(
        stage
            .commands
            .iter()
            .any(|command| command.starts_with("Copy(\"a long message")),
        "{:?}",
        stage.commands
    );
}
