//! The open run and the open task may differ: each screen says which one it means, and acts on that one.

use std::path::{Path, PathBuf};

use grpo_tui::run::{RunState, Status};
use grpo_tui::view::Command;
use grpo_tui::view::screens::scores::Source;

use super::harness::{Stage, script};
use super::runs::{change, copy_run};

const ID: &str = "20261120-143041-invoice-6sx3dn";
const RUN: &str = "6sx3dn";

/// A task `tickets` of this workspace, which is opened at the start.
fn tickets(here: &Path) {
    let folder = here.join("tasks/tickets");
    std::fs::create_dir_all(&folder).unwrap();
    let row = |id: &str| {
        let message = r#"{"role": "user", "content": "Screen is black"}"#;
        format!(
            "{{\"id\": \"{id}\", \"messages\": [{message}], \"expected\": {{\"priority\": \"high\"}}}}\n"
        )
    };
    for (file, text) in [
        ("task.toml", "name = \"tickets\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"train.jsonl\"\neval = \"eval.jsonl\"\ncompletions = \"completions.jsonl\"\n[score]\nkind = \"json_schema\"\n".to_owned()),
        ("schema.json", "{\"type\": \"object\", \"properties\": {\"priority\": {\"type\": \"string\"}}, \"required\": [\"priority\"], \"additionalProperties\": false}".to_owned()),
        ("train.jsonl", row("train-t1")),
        ("eval.jsonl", row("ticket-1")),
        ("completions.jsonl", "{\"prompt_id\": \"ticket-1\", \"completion\": \"{\\\"priority\\\": \\\"low\\\"}\"}\n".to_owned()),
    ] {
        std::fs::write(folder.join(file), text).unwrap();
    }
}

/// The task `tickets` and a run of `invoice`; the program keeps its arguments and prints what `sample` prints.
fn stage(columns: u16, rows: u16) -> Stage {
    Stage::with(columns, rows, |options| {
        tickets(&options.here);
        copy_run(&options.here.join("runs"), ID, "small adapters", "finished");
        let kept = options.here.join("arguments");
        let answer = r#"{"prompt_id":"eval-001","completion":"{\"vendor\":\"a\",\"date\":\"b\",\"amount\":1,\"currency\":\"c\"}","tier":"valid","reward":1.0,"tolerant":true,"token_ids":[1],"stop_reason":"stop","errors":[]}"#;
        let text = format!(
            "printf '%s ' \"$@\" >> '{0}'; echo >> '{0}'\necho '{answer}'",
            kept.display()
        );
        options.program = script(&options.here.join("program"), &text);
    })
}

fn arguments(stage: &Stage) -> String {
    std::fs::read_to_string(stage.folder.path().join("arguments")).unwrap_or_default()
}

fn run_folder(stage: &Stage) -> PathBuf {
    stage.folder.path().join("runs").join(ID)
}

#[test]
fn a_run_is_scored_sampled_and_asked_by_its_own_task() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = stage(columns, rows);
        let run = run_folder(&stage);
        let own_task = run.join("task").display().to_string();
        stage.act(|_| vec![Command::ShowRun(run.clone())]);
        assert!(
            columns < 120 || stage.shows("6sx3dn of invoice"),
            "the header has both names: {}",
            stage.screen()
        );
        // Samples are of the open task; the title names both.
        stage.keys("4");
        assert!(
            stage.shows("tickets (run: invoice), schema"),
            "{}",
            stage.screen()
        );
        let scored = |stage: &Stage| stage.model.scores.scored.as_ref().unwrap().tally.tiers;
        assert_eq!(scored(&stage), [0, 0, 1]);
        // The trained model answers a prompt of its own task, which is scored by that task.
        stage.keys("S");
        let asked = arguments(&stage);
        assert!(
            asked.starts_with(&format!("sample {own_task} --model {}@best", run.display())),
            "{asked}"
        );
        assert!(!asked.contains("ticket"), "{asked}");
        assert_eq!(
            (stage.model.scores.source, scored(&stage)),
            (Source::Sampled, [0, 0, 1]),
            "{}",
            stage.screen()
        );
        // So does its base.
        stage.keys("b S");
        assert!(
            arguments(&stage)
                .lines()
                .nth(1)
                .unwrap()
                .starts_with(&format!("sample {own_task} --model tiny "))
        );
        // Where the open task's samples are shown, the base answers the prompt under the cursor.
        while stage.model.scores.source != Source::Samples {
            stage.keys("o");
        }
        stage.keys("S");
        let asked = arguments(&stage);
        let last = asked.lines().last().unwrap();
        assert!(
            last.contains("tasks/tickets --model tiny --prompt ticket-1"),
            "{asked}"
        );
        // A prompt of one's own.
        stage.keys("7 t").types("Acme owes 12").keys("alt-enter");
        let asked = arguments(&stage);
        assert!(
            asked
                .lines()
                .last()
                .unwrap()
                .starts_with(&format!("sample {own_task} --model")),
            "{asked}"
        );
        assert!(
            stage.shows("scored by invoice, the task of run 6sx3dn"),
            "{}",
            stage.screen()
        );
    }
}

#[test]
fn the_open_task_is_asked_without_a_run() {
    let mut stage = stage(120, 36);
    stage.keys("7 t").types("x").keys("alt-enter");
    assert!(
        stage.shows("scored by tickets as saved"),
        "{}",
        stage.screen()
    );
    assert!(
        arguments(&stage).contains("tasks/tickets --model tiny"),
        "{}",
        arguments(&stage)
    );
}

#[test]
fn the_cursor_of_the_list_follows_the_run_that_is_opened() {
    let mut stage = stage(120, 36);
    let runs = stage.folder.path().join("runs");
    let selected = |stage: &Stage| {
        let screen = stage.screen();
        screen
            .lines()
            .find(|line| line.contains('▸') && line.contains("inished"))
            .unwrap_or_default()
            .to_owned()
    };
    let older = copy_run(
        &runs,
        "20261119-090000-invoice-aaaaaa",
        "second try",
        "finished",
    );
    change(
        &older.join("run.toml"),
        &[("created_ms = 1795185041316", "created_ms = 1795085041316")],
    );
    stage.tick_after(3_000);
    assert!(selected(&stage).contains(RUN), "{}", stage.screen());
    // One that is in the list.
    stage.act(|_| vec![Command::ShowRun(older.clone())]);
    assert!(selected(&stage).contains("aaaaaa"), "{}", stage.screen());
    // One that was started elsewhere and comes into the list later; its dialogs say its name.
    let newest = copy_run(
        &runs,
        "20261121-090000-invoice-bbbbbb",
        "third try",
        "finished",
    );
    change(
        &newest.join("run.toml"),
        &[("created_ms = 1795185041316", "created_ms = 1795285041316")],
    );
    stage.keys("5");
    stage.act(|_| vec![Command::ShowRun(newest.clone())]);
    stage.keys("1");
    assert!(selected(&stage).contains("bbbbbb"), "{}", stage.screen());
    stage.keys("d");
    assert!(stage.shows("bbbbbb (third try):"), "{}", stage.screen());
    stage.keys("esc");
    // From then on the user moves it, and no listing moves it back.
    stage.keys("j j").tick_after(3_000);
    assert!(selected(&stage).contains("aaaaaa"), "{}", stage.screen());
}

#[test]
fn several_marked_runs_are_overlaid_wherever_the_cursor_went() {
    let mut stage = stage(120, 36);
    let runs = stage.folder.path().join("runs");
    let at = |id: &str, created: &str, task: &str| {
        let run = copy_run(&runs, id, "", "finished");
        let changes = [
            ("created_ms = 1795185041316", created),
            ("task = \"invoice\"", task),
        ];
        change(&run.join("run.toml"), &changes);
        run
    };
    at(
        "20261110-090000-tickets-cccccc",
        "created_ms = 1794085041316",
        "task = \"tickets\"",
    );
    let second = at(
        "20261111-090000-invoice-bbbbbb",
        "created_ms = 1794185041316",
        "task = \"invoice\"",
    );
    stage.tick_after(3_000);
    // Marking moves the cursor to the next run, here to that of the other task.
    stage.keys("g space space");
    assert!(stage.shows("2 marked"), "{}", stage.screen());
    stage.keys("o");
    assert_eq!(stage.model.shared.current, Some(run_folder(&stage)));
    assert_eq!(stage.model.shared.overlay, [second]);
}

#[test]
fn the_task_that_was_opened_is_open_in_the_next_session() {
    let workspace = tempfile::tempdir().unwrap();
    let session = || {
        Stage::with(120, 36, |options| {
            options.here = workspace.path().to_owned();
            options.data = workspace.path().join("data");
            options.program = PathBuf::from("/bin/false");
        })
    };
    let task = |stage: &Stage| stage.model.shared.task.as_ref().unwrap().task.name.clone();
    tickets(workspace.path());
    std::fs::create_dir(workspace.path().join("tasks/zebra")).unwrap();
    for file in [
        "schema.json",
        "train.jsonl",
        "eval.jsonl",
        "completions.jsonl",
        "task.toml",
    ] {
        let [from, to] =
            ["tickets", "zebra"].map(|name| workspace.path().join("tasks").join(name).join(file));
        std::fs::copy(from, to).unwrap();
    }
    change(
        &workspace.path().join("tasks/zebra/task.toml"),
        &[("\"tickets\"", "\"zebra\"")],
    );
    let mut first = session();
    assert_eq!(task(&first), "tickets", "the alphabetically first");
    for name in ["zebra", "sql"] {
        first.act(|model| grpo_tui::view::shared::open_task(&model.shared, Some(name.to_owned())));
        assert_eq!(
            (task(&first), task(&session())),
            (name.to_owned(), name.to_owned())
        );
    }
    // One that is gone is not missed; another workspace has its own.
    first.act(|model| grpo_tui::view::shared::open_task(&model.shared, Some("zebra".to_owned())));
    std::fs::remove_dir_all(workspace.path().join("tasks/zebra")).unwrap();
    assert_eq!(task(&session()), "tickets");
    let elsewhere = Stage::with(120, 36, |options| {
        options.data = workspace.path().join("data")
    });
    assert_eq!(task(&elsewhere), "invoice");
}

#[test]
fn the_newest_comparison_of_the_open_task_opens_with_the_screen() {
    let mut stage = Stage::with(120, 36, |options| {
        copy_run(&options.here.join("runs"), ID, "small adapters", "finished");
        options.program = PathBuf::from("/bin/false");
    });
    stage.keys("7");
    assert!(
        stage.shows("base → step 30") && stage.shows(RUN),
        "{}",
        stage.screen()
    );
    assert_eq!(
        stage.model.shared.current,
        Some(run_folder(&stage)),
        "every screen shows it"
    );
    // That of another task is not taken.
    let mut stage = self::stage(120, 36);
    stage.keys("7");
    assert!(stage.shows("nothing to compare yet"), "{}", stage.screen());
}

#[test]
fn the_key_of_a_paused_run_is_not_called_pause() {
    let (mut stage, mut written) = super::synthetic_run::shown(160, 48);
    written.step(1);
    written.send(&mut stage);
    assert!(stage.shows(" p pause "), "{}", stage.screen());
    written
        .worker
        .state()
        .status(Status::Paused, 1, None)
        .unwrap();
    written.send(&mut stage);
    assert!(
        stage.shows(" p resume ") && !stage.shows(" p pause "),
        "{}",
        stage.screen()
    );
}

#[test]
fn the_list_has_the_time_left_of_active_runs() {
    let mut stage = Stage::new(120, 36);
    let mut written = super::synthetic_run::Written::begin(stage.folder.path());
    stage.tick_after(3_000);
    let list = |stage: &Stage| super::runs::list_of(&stage.screen());
    assert!(
        list(&stage).contains("0/50") && !list(&stage).contains("left"),
        "unknown before a step: {}",
        stage.screen()
    );
    (1..=10).for_each(|step| written.step(step));
    stage.tick_after(3_000);
    // 40 steps of 12.4 s.
    assert!(
        list(&stage).contains("left") && list(&stage).contains("8m 16s"),
        "{}",
        stage.screen()
    );
    let state = RunState::read(&written.path()).unwrap();
    assert!((state.seconds_left().unwrap() - 496.0).abs() < 1e-9);
    drop(written);
    stage.tick_after(3_000);
    assert!(
        list(&stage).contains("interrupted") && !list(&stage).contains("8m 16s"),
        "{}",
        stage.screen()
    );
}
