//! Tests: a judge's grades on the Scores screen.

use serde_json::json;

use super::harness::Stage;
use crate::judge::server::Server;

fn stage(server: &Server) -> Stage {
    let mut stage = Stage::with(120, 36, |options| {
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
    stage
}

#[test]
fn a_judges_points_and_reasons_are_shown_by_criterion() {
    let server = Server::start();
    let mut stage = stage(&server);
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
