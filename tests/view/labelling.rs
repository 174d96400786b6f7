//! Tests: a judge's grades on the Scores screen, and labels for a check of the judge: one key each, undo, saved at once.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::harness::Stage;
use crate::judge::server::Server;

fn stage(server: &Server, columns: u16, rows: u16) -> (Stage, PathBuf) {
    let mut stage = Stage::with(columns, rows, |options| {
        let folder = options.here.join("tasks/reply");
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "name = \"reply\"\n[prompts]\ntrain = \"train.jsonl\"\ncompletions = \"completions.jsonl\"\n[score]\nkind = \"judge\"\n[score.endpoint]\nbase_url = \"{}\"\nmodel = \"m\"\n{}",
            server.address,
            crate::judge::CRITERIA
        );
        std::fs::write(folder.join("task.toml"), text).unwrap();
        let row = |id: &str| json!({"id": id, "messages": [{"role": "user", "content": format!("question {id}")}]});
        std::fs::write(
            folder.join("train.jsonl"),
            format!("{}\n{}\n", row("a"), row("b")),
        )
        .unwrap();
        let line =
            |id: &str, text: &str| format!("{}\n", json!({"prompt_id": id, "completion": text}));
        let lines = [
            line("a", "please wait"),
            line("b", "no"),
            line("a", "please wait"),
            line("c", "without a prompt"),
        ];
        std::fs::write(folder.join("completions.jsonl"), lines.concat()).unwrap();
    });
    stage.keys("f4");
    let folder = stage.folder.path().join("tasks/reply");
    (stage, folder)
}

fn labels(folder: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("judge-labels.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["labels"].clone())
        .collect()
}

#[test]
fn answers_are_labelled_by_one_key_each_and_saved_at_once() {
    let server = Server::start();
    for (columns, rows) in [(120, 36), (80, 24)] {
        let (mut stage, folder) = stage(&server, columns, rows);
        stage.keys("J");
        for text in [
            "0 labelled, 20 needed; 2 left here",
            "polite:",
            "The answer says please.",
            "y yes   n no",
            "question a",
            "please wait",
        ] {
            assert!(stage.shows(text), "{text}: {}", stage.screen());
        }
        // A key that is no label of this criterion changes nothing.
        stage.keys("3");
        assert!(
            stage.shows("`polite` takes y or n") && !folder.join("judge-labels.jsonl").exists()
        );
        stage.keys("y");
        assert_eq!(labels(&folder), [json!({"polite": 1})]);
        assert!(
            stage.shows("4 fully") && stage.shows("this answer so far: polite 1"),
            "{}",
            stage.screen()
        );
        stage.keys("3");
        assert_eq!(labels(&folder), [json!({"polite": 1, "complete": 3})]);
        assert!(
            stage.shows("question b"),
            "the next answer: {}",
            stage.screen()
        );
        stage.keys("u");
        assert_eq!(labels(&folder), [json!({"polite": 1})]);
        stage.keys("4 n 0");
        assert_eq!(
            labels(&folder),
            [
                json!({"polite": 1, "complete": 4}),
                json!({"polite": 0, "complete": 0})
            ]
        );
        assert!(
            stage.shows("All labelled. esc closes."),
            "{}",
            stage.screen()
        );
        stage.keys("u u u u");
        assert_eq!(labels(&folder), [json!(null); 0]);
        stage.keys("s n 2 esc");
        assert!(
            stage.shows("1 labelled answer saved; a check needs 20"),
            "{}",
            stage.screen()
        );
        // What has its labels is not asked for again.
        stage.keys("J");
        assert!(
            stage.shows("1 labelled, 20 needed; 1 left here") && stage.shows("question a"),
            "{}",
            stage.screen()
        );
        assert!(
            server.requests().is_empty(),
            "a judge that is not trusted is not asked"
        );
    }
}

#[test]
fn a_judges_points_and_reasons_are_shown_by_criterion() {
    let server = Server::start();
    let (mut stage, _) = stage(&server, 120, 36);
    assert!(
        stage.shows("by a judge, which gets prompts"),
        "{}",
        stage.screen()
    );
    stage.keys("f2 tab tab");
    assert!(
        stage.shows("judge m at http://127.0.0.1") && stage.shows("not trusted"),
        "{}",
        stage.screen()
    );
    stage.keys("T");
    assert!(
        stage.shows("Trust this judge?") && stage.shows("It gets the prompts"),
        "{}",
        stage.screen()
    );
    stage.keys("y f4");
    for text in [
        "reward 0.625",
        "✓ polite   yes it says please",
        "~ complete 2/4 2 words",
    ] {
        assert!(stage.shows(text), "{text}: {}", stage.screen());
    }
    assert_eq!(
        server.requests().len(),
        3,
        "equal answers to a prompt are asked once"
    );
}
