//! The data of the Berkeley Function Calling Leaderboard becomes a task whose expected answers are right.

use grpo_tui_core::score::{Scorer, Task};
use grpo_tui_core::task::PromptSet;
use serde_json::{Value, json};

use super::lab;

/// The leaderboard's data in little: two calls, a call that nothing satisfies, a prompt without a call.
fn data(folder: &std::path::Path) {
    let question = |id: &str, text: &str| {
        let function = json!({"name": "geo.find", "description": "Finds.", "parameters": {"type": "dict", "properties": {
            "city": {"type": "string"}, "radius": {"type": "float"}, "at": {"type": "tuple", "items": {"type": "float"}},
            "kinds": {"type": "array", "items": {"type": "string"}, "enum": ["Park", "Lake"]}, "limit": {"type": "integer"}},
            "required": ["city"]}});
        json!({"id": id, "question": [[{"role": "user", "content": text}]], "function": [function]})
    };
    let answer =
        |id: &str, arguments: Value| json!({"id": id, "ground_truth": [{"geo.find": arguments}]});
    let texts = ["one", "two", "three", "four", "five"];
    let questions: Vec<Value> = texts.iter().map(|text| question(text, text)).collect();
    let right = json!({"city": ["Oslo", "Oslo, Norway"], "radius": ["", 5], "at": [[1.0, 2]], "kinds": [["park"], ""], "limit": ["", null]});
    let mut answers: Vec<Value> = texts[..4]
        .iter()
        .map(|text| answer(text, right.clone()))
        .collect();
    answers.push(answer("five", json!({"city": [7]})));
    let lines = |values: &[Value]| {
        values
            .iter()
            .map(|value| format!("{value}\n"))
            .collect::<String>()
    };
    std::fs::create_dir_all(folder.join("possible_answer")).unwrap();
    std::fs::write(folder.join("BFCL_v4_simple_python.json"), lines(&questions)).unwrap();
    std::fs::write(
        folder.join("possible_answer/BFCL_v4_simple_python.json"),
        lines(&answers),
    )
    .unwrap();
    std::fs::write(
        folder.join("BFCL_v4_irrelevance.json"),
        lines(&[question("six", "six"), question("seven", "seven")]),
    )
    .unwrap();
    std::fs::write(folder.join("BFCL_v4_multiple.json"), lines(&questions)).unwrap();
    std::fs::write(folder.join("BFCL_v4_live_simple.json"), "{\"id\": 1,\n").unwrap();
    std::fs::write(folder.join("possible_answer/BFCL_v4_live_simple.json"), "").unwrap();
}

#[test]
fn the_leaderboards_data_becomes_a_task() {
    let folder = tempfile::tempdir().unwrap();
    data(&folder.path().join("bfcl_eval/data"));
    let import = |out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let words = [
            "bfcl",
            folder.path().to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        lab(&[&words[..], more].concat())
    };
    let whole = [
        "--categories",
        "simple_python,irrelevance",
        "--split",
        "50/20/30",
    ];
    import("mine", &whole).unwrap();
    let task = Task::load(&folder.path().join("mine")).unwrap();
    let scorer = Scorer::new(&task).unwrap();
    let sets = PromptSet::ALL.map(|set| grpo_tui_core::dataset::load(&task, set).unwrap());
    // What no value of the right type could answer is left out.
    assert_eq!(sets.each_ref().map(Vec::len), [3, 1, 2]);
    let rows = sets.concat();
    assert!(rows.iter().all(|row| row.id != "five"));
    for row in &rows {
        let answer = scorer
            .expected_completion(row.expected.as_ref().unwrap(), None)
            .unwrap();
        assert_eq!(
            scorer.score(&answer, Some(row)).exact,
            Some(true),
            "{answer}"
        );
    }
    let one = rows.iter().find(|row| row.id == "one").unwrap();
    assert_eq!(
        one.expected,
        Some(
            json!([{"name": "geo_find", "arguments": {"city": {"$any": ["Oslo", "Oslo, Norway"]}, "radius": {"$optional": 5},
            "at": [1.0, 2], "kinds": {"$optional": {"$any": [["Park"], []]}}}}])
        )
    );
    let parameters = &one.tools().unwrap()[0]["function"]["parameters"];
    assert_eq!(parameters["type"], "object");
    assert_eq!(
        parameters["properties"]["at"],
        json!({"type": "array", "items": {"type": "number"}})
    );
    assert_eq!(
        parameters["properties"]["kinds"]["items"]["enum"],
        json!(["Park", "Lake"])
    );
    let none = rows.iter().find(|row| row.id == "six").unwrap();
    assert_eq!(
        scorer
            .score("None of the functions fits.", Some(none))
            .exact,
        Some(true)
    );
    // What does not fit is said, and nothing is written.
    for (more, part) in [
        (
            &["--categories", "multiple"][..],
            "possible_answer/BFCL_v4_multiple.json",
        ),
        (
            &["--categories", "parallel"],
            "category parallel has no file BFCL_v4_parallel.json",
        ),
        (
            &["--categories", "simple"],
            "live_irrelevance, not \"simple\"; did you mean `simple_python`?",
        ),
        (
            &["--categories", "live_simple"],
            "BFCL_v4_live_simple.json line 1",
        ),
        (
            &["--categories", "simple_python", "--max-chars", "10"],
            "no row of ",
        ),
    ] {
        let refused = import("other", more).unwrap_err();
        assert!(refused.contains(part), "{more:?}: {refused}");
        assert!(!folder.path().join("other").exists());
    }
    let refused = import("mine", &whole).unwrap_err();
    assert!(refused.contains("exists"), "{refused}");
    let mine = folder.path().join("mine");
    let refused = lab(&["bfcl", mine.to_str().unwrap()]).unwrap_err();
    assert!(refused.contains("no BFCL_v4_*.json here"), "{refused}");
}
