//! Tests: `task judge-check` against labels whose kappa is counted by hand, and what `train` warns of.

use std::path::Path;

use serde_json::{Value, json};

use super::server::{Reply, Server};
use super::{trust, workspace};
use crate::program::{call, call_in_process, json, names, stderr, stdout};

/// Twenty answers of which the judge calls ten polite; people agree on so many of either ten.
fn label(folder: &Path, agreed: usize) {
    let line = |index: usize| {
        let (is_polite, place) = (index < 10, index % 10);
        let human = is_polite == (place < agreed);
        let text = if is_polite { "please a b c d" } else { "a b c" };
        json!({"prompt_id": format!("p{index}"), "completion": text, "labels": {"polite": human, "complete": (index * 3) % 5}})
    };
    let lines: String = (0..20).map(|index| format!("{}\n", line(index))).collect();
    std::fs::write(folder.join("tasks/reply/judge-labels.jsonl"), lines).unwrap();
}

#[test]
fn agreement_is_measured_and_train_warns_of_a_weak_judge() {
    let server = Server::start();
    let folder = workspace(
        &server,
        "",
        "price_per_million_input = 10\nprice_per_million_output = 10",
    );
    let here = folder.path();
    trust(here);
    label(here, 9);
    let found = json(&call(
        here,
        &["task", "judge-check", "reply", "--json", "--repeats", "1"],
    ));
    let check = &found["checks"][0];
    let near = |value: &Value, expected: f64| {
        assert!(
            (value.as_f64().unwrap() - expected).abs() < 1e-9,
            "{value}, {expected}"
        )
    };
    // 18 of 20 agree, and chance explains half.
    near(&check["criteria"][0]["agreement"]["estimate"], 0.9);
    near(&check["criteria"][0]["kappa"]["estimate"], 0.8);
    assert_eq!(
        (&check["answers"], &check["unanswered"]),
        (&json!(20), &json!(0))
    );
    near(&check["repeated"]["estimate"], 1.0);
    near(&check["order"]["same"]["estimate"], 1.0);
    near(&check["cost_per_request"], 0.0012);
    // The labelled ones, again, in reverse order, and with an instruction.
    assert_eq!(server.requests().len(), 80);
    let saved = here.join("tasks/reply/judge-check.json");
    let saved: Value = serde_json::from_slice(&std::fs::read(saved).unwrap()).unwrap();
    assert_eq!(saved, found["checks"]);

    // A judge that does as it is told, and one that agrees too little.
    server.obey();
    let text = stdout(&call(
        here,
        &["task", "judge-check", "reply", "--repeats", "0"],
    ));
    assert!(
        text.contains("answers that ask for full points gain "),
        "{text}"
    );
    label(here, 6);
    let text = stdout(&call(
        here,
        &["task", "judge-check", "reply", "--no-probes"],
    ));
    for part in [
        "polite     yes/no  20  60.0% [38.7, 78.1]",
        "0.20 [-0.23, 0.63]",
        "kappa below 0.6: polite 0.20",
        "instruction    n/a (not measured)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn labels_that_say_nothing_are_refused() {
    let server = Server::start();
    let folder = workspace(&server, "", "");
    let here = folder.path();
    trust(here);
    let check = |expected: &str| {
        let output = call(here, &["task", "judge-check", "reply"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains(expected),
            "{} lacks {expected:?}",
            stderr(&output)
        );
    };
    check("judge-labels.jsonl: No such file or directory");
    check("label answers on the Scores screen");
    label(here, 5);
    let file = here.join("tasks/reply/judge-labels.jsonl");
    let all = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        all.lines()
            .take(19)
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )
    .unwrap();
    check(
        "judge-labels.jsonl: 19 labelled answers, a check takes 20 to 200: label more on the Scores screen",
    );
    std::fs::write(&file, all.replace("\"p7\"", "\"q7\"")).unwrap();
    check("judge-labels.jsonl line 8: no prompt \"q7\" in the task's sets");
    std::fs::write(&file, all.replace("complete", "compleet")).unwrap();
    check(
        "line 1: the judge has no criterion \"compleet\": it has polite, complete; did you mean `complete`?",
    );
    std::fs::write(&file, &all).unwrap();
    server.reply(&vec![Reply::Status(404); 100]);
    check(
        "the judge graded none of the 20 labelled answers: the judge `m` gave no answer: the server answered 404",
    );
    let sql = call_in_process(here, &["task", "judge-check", "invoice"]);
    assert!(
        stderr(&sql)
            .contains("invoice: no judge scores it (json_schema): there is nothing to check"),
        "{}",
        stderr(&sql)
    );
}

#[cfg(feature = "engine")]
#[test]
fn train_says_how_far_the_judge_was_checked_and_its_report_has_the_figures() {
    let server = Server::start();
    let folder = workspace(&server, "", "");
    let here = folder.path();
    trust(here);
    let size = "--set=max_steps=1 --set=completions_per_prompt=2 --set=prompt_groups_per_step=2 --set=max_completion_tokens=4";
    let mut arguments = vec![
        "train", "reply", "--model", "tiny", "--cpu", "--name", "one",
    ];
    arguments.extend(size.split(' '));
    let first = call(here, &arguments);
    stdout(&first);
    let earlier = names(&here.join("runs"));
    assert!(
        stderr(&first).contains("warning: the judge was never checked against people"),
        "{}",
        stderr(&first)
    );
    label(here, 6);
    stdout(&call(
        here,
        &["task", "judge-check", "reply", "--no-probes"],
    ));
    let asked = server.requests().len();
    let second = call(here, &arguments);
    stdout(&second);
    assert!(
        stderr(&second).contains("warning: the judge is weak (kappa below 0.6: polite 0.20"),
        "{}",
        stderr(&second)
    );
    assert_eq!(
        server.requests().len(),
        asked,
        "the same run has the same answers, whose grades are known"
    );
    // Both may have begun in one second.
    let run = names(&here.join("runs"))
        .into_iter()
        .find(|name| !earlier.contains(name))
        .unwrap();
    let page = stdout(&call(here, &["runs", "export", &run, "--markdown"]));
    assert!(page.contains("| polite | 20 | 0.60"), "{page}");
}
