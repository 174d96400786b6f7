//! Tests: a look at the test set is counted once, and every page says which it is.

use std::fs;

use serde_json::Value;

use crate::program::{SHORT, call, call_in_process, json, small_task, stderr};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn runs_and_evals_share_the_count_of_a_test_set() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let task = small_task(folder);
    let runs = ["--runs", "runs"];
    let train = |name: &str| {
        let train = [
            "train",
            "task",
            "--name",
            name,
            "--json",
            "--set",
            "learning_rate=1e-3",
        ];
        json(&call_in_process(
            folder,
            &[&train[..], &runs, &SHORT].concat(),
        ))
    };
    let one = train("one");
    let looked = one["best_step"] != 0;
    let first = u64::from(looked);
    assert_eq!(one["look"]["number"].as_u64(), looked.then_some(1), "{one}");
    // Shown again it is the same look.
    let compare = ["runs", "compare", "one"];
    for _ in 0..2 {
        let page = text(call_in_process(folder, &[&compare[..], &runs].concat()).stdout);
        assert_eq!(page.contains("; look 1 of this test set"), looked, "{page}");
    }
    let eval = |more: &[&str]| {
        let eval = [
            "eval",
            "task",
            "--model",
            "a=tiny",
            "--model",
            "b=one@last",
            "--max-completion-tokens",
            "8",
        ];
        call(folder, &[&eval[..], &runs, more].concat())
    };
    let number = |document: &Value| document["look"]["number"].as_u64().unwrap() - first;
    let document = json(&eval(&["--json", "--out", "kept"]));
    assert_eq!(number(&document), 1);
    let comparison = &document["comparisons"][0];
    let (p, adjusted) = (
        comparison["p"].as_f64().unwrap(),
        comparison["adjusted_p"].as_f64().unwrap(),
    );
    let looks = (first + 1) as f64;
    assert!(
        (adjusted - (p * looks * (looks + 1.0)).min(1.0)).abs() < 1e-12,
        "{comparison}"
    );
    // The eval set and the train set have no looks.
    assert_eq!(json(&eval(&["--json", "--on", "eval"])).get("look"), None);
    // The test set by another name, with the schema edited since.
    let schema = fs::read_to_string(task.join("schema.json")).unwrap();
    fs::write(task.join("schema.json"), format!("{schema} ")).unwrap();
    let on = task.join("eval-large.jsonl");
    let on = [
        "--on",
        on.to_str().unwrap(),
        "--markdown",
        "page.md",
        "--html",
        "page.html",
    ];
    let output = eval(&on);
    let page = text(output.stdout);
    let said = format!("look {} of this test set", first + 2);
    let edited = format!(
        "edited since look {} of this test set: schema.json",
        first + 1
    );
    for page in [
        page,
        fs::read_to_string(folder.join("page.md"))
            .unwrap()
            .replace('\\', ""),
        fs::read_to_string(folder.join("page.html")).unwrap(),
    ] {
        assert!(page.contains(&said) && page.contains(&edited), "{page}");
    }
    // The answers of a folder are read with their look.
    let kept = call_in_process(folder, &["runs", "compare", "kept", "--json"]);
    assert_eq!(
        json(&kept)["passes"][0]["look"]["number"].as_u64(),
        Some(first + 1)
    );
    // A ledger that was edited: the eval says that it is not counted.
    let ledger = folder.join("runs/.test-looks.jsonl");
    fs::write(
        &ledger,
        fs::read_to_string(&ledger)
            .unwrap()
            .replacen("\"look\":", "\"look\": ", 1),
    )
    .unwrap();
    let output = eval(&["--json"]);
    assert!(
        stderr(&output).contains("this look at the test set is not counted: ")
            && stderr(&output).contains(".test-looks.jsonl line 1: was edited or damaged"),
        "{}",
        stderr(&output)
    );
    assert_eq!(json(&output).get("look"), None);
}
