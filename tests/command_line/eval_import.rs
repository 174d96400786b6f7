//! Tests: `grpo-tui eval import` of logs that other programs wrote (`scripts/eval-logs.py`), compared as
//! scipy and statsmodels compare them (`scripts/golden/eval_logs.py`).

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{call_in_process, json as document, stderr, stdout};

fn log(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/eval_logs");
    folder.join(name).display().to_string()
}

fn sums(model: &str) -> String {
    log(&format!(
        "own__{model}/samples_sums_2026-01-02T03-04-05.678901.jsonl"
    ))
}

fn import(folder: &Path, arguments: &[&str]) -> std::process::Output {
    call_in_process(folder, &[&["eval", "import"], arguments].concat())
}

fn near(found: &Value, expected: f64) {
    let found_number = found.as_f64().unwrap();
    assert!(
        (found_number - expected).abs() < 1e-9,
        "{found}, expected {expected}"
    );
}

#[test]
fn logs_are_compared_as_scipy_compares_them() {
    let folder = tempfile::tempdir().unwrap();
    let compare = |arguments: &[&str]| {
        let found = document(&import(folder.path(), &[arguments, &["--json"]].concat()));
        found["comparisons"][0].clone()
    };
    let inspect = [log("small.eval"), log("large.eval")];
    let found = document(&import(
        folder.path(),
        &[&inspect[0], &inspect[1], "--json"],
    ));
    let compared = &found["comparisons"][0];
    near(&compared["valid_difference"]["estimate"], 1.0 / 3.0);
    // p by signs of whole prompts 0.0003, by cluster-robust least squares 0.0002.
    assert_eq!(compared["verdict"], "better");
    let p = compared["p"].as_f64().unwrap();
    assert!((1e-4..1e-3).contains(&p), "{p}");
    let rates = |name: &str, right: f64, interval: [f64; 2]| {
        let target = &found["targets"][name];
        near(&target["valid"], right / 60.0);
        near(&target["exact"], right / 60.0);
        near(&target["valid_interval"][0], interval[0]);
        near(&target["valid_interval"][1], interval[1]);
    };
    rates("own/small", 28.0, [0.33592273082107527, 0.602155516482281]);
    rates("own/large", 48.0, [0.6628763555946788, 0.8905576586958603]);
    let lm_eval = [sums("small"), sums("large")];
    let strict = compare(&[&lm_eval[0], &lm_eval[1]]);
    let counts = |found: &Value| json!([found["fixed"], found["broken"], found["n"]]);
    assert_eq!(counts(&strict), json!([0, 0, 10]));
    near(&strict["p"], 1.0);
    let last = "exact_match,last-number";
    let last = compare(&[&lm_eval[0], &lm_eval[1], "--score", last]);
    assert_eq!(
        (counts(&last), &last["verdict"]),
        (json!([4, 0, 10]), &"no_difference".into())
    );
    near(&last["p"], 0.125);
    for file in ["promptfoo.json", "promptfoo.jsonl"] {
        let found = compare(&[&log(file)]);
        assert_eq!(
            (&found["first"], &found["second"]),
            (&"own:small".into(), &"own:large".into())
        );
        near(&found["valid_difference"]["estimate"], 0.0);
        near(&found["p"], 1.0);
    }
}

/// Four equal answers to each of six prompts are six pairs, not twenty-four.
#[test]
fn samples_of_a_prompt_are_not_independent() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, right: usize| {
        let line = |index: usize| {
            let (prompt, is_right) = (index / 4, index / 4 < right);
            json!({"prompt": format!("Question {prompt}?"), "completion": "x", "score": is_right})
        };
        let lines = (0..24).map(|index| format!("{}\n", line(index)));
        fs::write(folder.path().join(name), lines.collect::<String>()).unwrap();
    };
    write("a.jsonl", 0);
    write("b.jsonl", 5);
    let found = document(&import(folder.path(), &["a.jsonl", "b.jsonl", "--json"]));
    let compared = &found["comparisons"][0];
    // scipy.stats.binomtest(0, 5).pvalue; of twenty of twenty-four it would be 1.9e-6.
    near(&compared["p"], 0.0625);
    assert_eq!(compared["verdict"], "no_difference");
    assert_eq!(found["targets"]["b"]["n"], 24);
}

#[test]
fn an_imported_eval_is_an_eval() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let both = [log("small.eval"), log("large.eval")];
    let ended = import(
        path,
        &[
            &both[0], &both[1], "--out", "both", "--score", "includes", "--html", "a.html",
        ],
    );
    assert!(ended.status.success(), "{}", stderr(&ended));
    assert!(
        fs::read_to_string(path.join("a.html"))
            .unwrap()
            .contains("own&#x2f;large")
    );
    let said = stderr(&ended);
    assert!(
        said.contains("small.eval: inspect (format 2): 60 completions of 30 prompts\n")
            && said.contains("valid is `includes` >= 1, so is exact where the log has an expected answer; other scores, for --score: match\n"),
        "{said}"
    );
    // The same result from the folder, and from a folder for each log.
    let compared = document(&call_in_process(
        path,
        &["runs", "compare", "both", "--json"],
    ));
    for (file, out) in both.iter().zip(["small", "large"]) {
        assert!(
            import(path, &[file, "--out", out, "--score", "includes"])
                .status
                .success()
        );
    }
    let apart = document(&call_in_process(
        path,
        &["runs", "compare", "large", "small", "--json"],
    ));
    assert_eq!(
        compared["comparisons"][0]["valid_difference"],
        apart["comparisons"][0]["valid_difference"]
    );
    let gate = |rate: &str| {
        import(path, &[&both[1], "--fail-under", rate])
            .status
            .code()
    };
    assert_eq!((gate("valid=0.9"), gate("exact=0.5")), (Some(3), Some(0)));
    // What the score does not say is unknown, and no threshold.
    let known = |eval: &Value| {
        [&eval["summary"]["parse"], &eval["summary"]["tolerant"]].map(Value::is_null)
    };
    assert_eq!(known(&compared["passes"][0]), [true, true]);
    let text = stdout(&import(path, &[&both[0]]));
    assert!(text.contains("n/a (not in the log)"), "{text}");
    for rate in ["parse=0.1", "tolerant=0.1"] {
        assert_eq!(gate(rate), Some(2));
    }
    // Scores of another name are not compared, unless all are scored anew.
    assert!(import(path, &[&both[0], "--out", "match"]).status.success());
    let other = call_in_process(path, &["runs", "compare", "large", "match"]);
    let said = stderr(&other);
    assert!(
        said.contains("were scored with different scores (`includes >= 1` and `match >= 1`)"),
        "{said}"
    );
    let again = call_in_process(
        path,
        &[
            "runs",
            "compare",
            "large",
            "match",
            "--rescore",
            "large/task",
        ],
    );
    assert!(stdout(&again).contains("re-scored"), "{}", stderr(&again));
    let twice = import(path, &[&both[0], "--out", "match"]);
    assert!(stderr(&twice).contains("in which no answer is missing"));
}

#[test]
fn completions_are_matched_to_a_task_and_scored_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let rows = |from: usize, to: usize| -> String {
        let row = |n: usize| json!({"id": format!("t{n}"), "messages": [{"role": "user", "content": format!("What is {n}+{n}?")}], "expected": format!("The answer is {}", 2 * n)});
        (from..to).map(|n| format!("{}\n", row(n))).collect()
    };
    let toml = "name = \"sums\"\nsystem = \"Add.\"\n[prompts]\ntest = \"test.jsonl\"\n[score]\nkind = \"text\"\n";
    fs::create_dir(path.join("sums")).unwrap();
    fs::write(path.join("sums/task.toml"), toml).unwrap();
    fs::write(path.join("sums/test.jsonl"), rows(20, 40)).unwrap();
    let (small, large) = (log("small.eval"), log("large.eval"));
    let asked = [
        &small,
        &large,
        "--task",
        "sums",
        "--rescore",
        "--out",
        "out",
        "--json",
    ];
    let ended = import(path, &asked);
    let said = stderr(&ended);
    let expected =
        "a prompt that the task does not have, so not read: 40 samples (samples/q0_epoch_1.json, ";
    assert!(said.contains(expected), "{said}");
    let found = document(&ended);
    assert_eq!(found["targets"]["own/small"]["n"], 20);
    // match ends with the answer as the task's text does.
    let scored = document(&import(path, &[&small, &large, "--task", "sums", "--json"]));
    let rate = |found: &Value| found["targets"]["own/large"]["valid"].clone();
    assert_eq!(rate(&found), rate(&scored));
    let compared = call_in_process(path, &["runs", "compare", "out", "--json"]);
    assert_eq!(document(&compared)["task"], "sums");
    let none = import(path, &[&log("promptfoo.json"), "--task", "sums"]);
    let said = stderr(&none);
    assert!(
        said.contains("nothing to import: a prompt that the task does not have"),
        "{said}"
    );
}

#[test]
fn other_formats_and_scores() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let check = |arguments: &[&str], target: &str, expected: Value, sentence: &str| {
        let ended = import(path, &[arguments, &["--json"]].concat());
        let said = stderr(&ended);
        assert!(said.contains(sentence), "{said}");
        let summary = document(&ended)["targets"][target].clone();
        let errors = &summary["scorer_errors"];
        let found = json!([summary["n"], errors, summary["valid"], summary["exact"]]);
        assert_eq!(found, expected, "{arguments:?}");
    };
    check(
        &[&log("large.json")],
        "own/large",
        json!([6, null, 0.5, 0.5]),
        "inspect (format 2): 6 completions of 3 prompts",
    );
    // NaN, a word and an object are not numbers, and a partial score does not pass.
    let odd = "a score that is not a number, so unknown and in no rate: 2 samples (samples/q0_epoch_1.json (odd is NaN or infinite), samples/q1_epoch_1.json (odd is \"great\"))";
    check(
        &[&log("odd.eval")],
        "own/small",
        json!([5, 3, 0.4, 0.4]),
        odd,
    );
    check(
        &[&log("odd.eval"), "--pass-at", "0.5"],
        "own/small",
        json!([5, 3, 0.6, 0.6]),
        "valid is `odd` >= 0.5",
    );
    check(
        &[&log("odd.eval"), "--score", "odd.a"],
        "own/small",
        json!([1, 7, 1.0, 1.0]),
        "no such score, so unknown",
    );
    check(
        &[&log("results.jsonl")],
        "results",
        json!([8, null, 0.125, 0.125]),
        "verifiers: 8 completions of 4 prompts",
    );
    // By verifiers itself: of 8 rollouts one is right, and two were refused.
    check(
        &[&log("traces.jsonl")],
        "small",
        json!([6, null, 1.0 / 6.0, 1.0 / 6.0]),
        "verifiers (format 0.4.0): 8 completions of 4 prompts",
    );
    let trl = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dataset/trl.parquet");
    check(
        &[trl.to_str().unwrap()],
        "trl",
        json!([2, 1, 0.5, null]),
        "TRL: 3 completions of 2 prompts",
    );
    let trace = "{\"step\":1,\"prompt\":\"a\",\"completion\":\"x\",\"reward\":0,\"advantage\":0}\n{\"step\":9,\"prompt\":\"a\",\"completion\":\"y\",\"reward\":1,\"advantage\":0}\n";
    fs::write(path.join("trace.jsonl"), trace).unwrap();
    check(
        &["trace.jsonl"],
        "trace",
        json!([1, null, 1.0, null]),
        "step 9 of 1 to 9 is read, 1 completions of others are not: --steps A-B chooses",
    );
    check(
        &["trace.jsonl", "--steps", "1-9"],
        "trace",
        json!([2, null, 0.5, null]),
        "2 completions of 1 prompt",
    );
    fs::write(
        path.join("own.csv"),
        "q,said,right\na,x,yes\nb,y,no\nc,z,?\n",
    )
    .unwrap();
    let own = [
        "own.csv",
        "--map",
        "prompt=q",
        "--map",
        "completion=said",
        "--map",
        "score=right",
    ];
    check(
        &own,
        "own",
        json!([2, 1, 0.5, null]),
        "line 4 (right is \"?\")",
    );
    let twice = "{\"prompt\":\"a\",\"answer\":\"1\",\"completion\":\"1\",\"score\":1}\n{\"prompt\":\"a\",\"answer\":\"2\",\"completion\":\"1\",\"score\":0}\n";
    fs::write(path.join("twice.jsonl"), twice).unwrap();
    check(
        &["twice.jsonl"],
        "twice",
        json!([2, null, 0.5, 0.5]),
        "the id of another prompt or answer, so a prompt of its own: 1 sample (line 2)",
    );
    // Exact is known by its score without expected answers.
    let exact = "{\"prompt\":\"a\",\"completion\":\"x\",\"score\":1,\"same\":0}\n";
    fs::write(path.join("exact.jsonl"), exact).unwrap();
    check(
        &["exact.jsonl", "--exact", "same", "--fail-under", "exact=0"],
        "exact",
        json!([1, null, 1.0, 0.0]),
        "exact is `same` >= 1",
    );
    let errors = document(&import(path, &[&log("promptfoo.json"), "--json"]));
    assert_eq!(errors["targets"]["own:small"]["endpoint_errors"], 2);
}

#[test]
fn what_is_wrong_with_a_log_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let bytes = |name: &str| fs::read(log(name)).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(path.join(name), bytes).unwrap();
    write("cut.eval", &bytes("large.eval")[..60_000]);
    write("empty.eval", b"");
    let json_log = bytes("large.json");
    write("cut.json", &json_log[..json_log.len() / 2]);
    let later =
        String::from_utf8(json_log)
            .unwrap()
            .replacen("\"version\": 2", "\"version\": 7", 1);
    write("later.json", later.as_bytes());
    let lines = fs::read_to_string(sums("small")).unwrap();
    write("samples_cut.jsonl", &lines.as_bytes()[..lines.len() - 30]);
    write("bare.jsonl", b"{\"prompt\":\"a\",\"completion\":\"x\"}\n");
    write("no-answer.jsonl", b"{\"prompt\":\"a\",\"score\":1}\n");
    write("text.jsonl", b"hello\n");
    write("number.json", b"{\"evalId\": \"x\", \"results\": [1]}");
    let long = format!(
        "{{\"prompt\": \"{}\", \"score\": 1}}\n",
        "x".repeat(65 << 20)
    );
    write("long.jsonl", long.as_bytes());
    write("lm.json", b"{\"results\": {\"sums\": {}}, \"configs\": {}}");
    let (small, large) = (log("small.eval"), log("large.eval"));
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let ended = import(path, &[arguments, &["--out", "out"]].concat());
        let said = stderr(&ended);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!path.join("out").exists(), "{arguments:?}");
    };
    check(&["none.eval"], 1, "none.eval: ");
    check(
        &["cut.eval"],
        1,
        "cut.eval: not a whole archive: it is cut short, or inspect still writes it; nothing was read",
    );
    check(&["empty.eval"], 1, "empty.eval: not a whole archive");
    check(&["cut.json"], 1, "ends in the middle: the log is cut short");
    check(
        &["later.json"],
        1,
        "version 7 of inspect's log; versions 1 to 2 are read",
    );
    check(
        &["samples_cut.jsonl"],
        1,
        "samples_cut.jsonl line 20: ends in the middle: the log is cut short",
    );
    check(&["bare.jsonl"], 1, "bare.jsonl: no scores: name a task");
    check(
        &["no-answer.jsonl"],
        1,
        "no-answer.jsonl: no column of completions; name it with --map completion=COLUMN; the columns are prompt, score",
    );
    check(&["text.jsonl"], 1, "text.jsonl: line 1: not JSON");
    check(&["long.jsonl"], 1, "line 1: longer than 64 MiB");
    check(&["number.json"], 1, "number.json: nothing to import: ");
    check(&[&small, "--pass-at", "nan"], 2, "must be a number");
    check(
        &["lm.json"],
        1,
        "the summary of lm-eval, without completions: import its samples_*.jsonl",
    );
    check(
        &[&small, "--score", "mach"],
        1,
        "no score `mach`; did you mean `match`?",
    );
    check(
        &[&small, &small],
        2,
        "are both named `own/small`: give each a --name",
    );
    check(&[&small, &large, &small, &large], 2, "4 models (");
    check(&[&small, "--rescore"], 2, "--task <TASK>");
    check(
        &[&small, &sums("large")],
        1,
        "were scored with different scores (`match >= 1` and `exact_match,strict >= 1`)",
    );
    // What could be read, on request.
    let ended = import(path, &["cut.json", "--skip-invalid"]);
    assert!(
        ended.status.success() && stderr(&ended).contains("1 record left out"),
        "{}",
        stderr(&ended)
    );
}

#[test]
fn odd_logs_are_read_as_far_as_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |rows: &[Value]| {
        rows.iter()
            .map(|row| format!("{row}\n"))
            .collect::<String>()
    };
    let read = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        document(&import(folder.path(), &[name, "--json"]))["targets"].clone()
    };
    // Ids that look like those of a second prompt of an id.
    let row =
        |id: &str, prompt: &str| json!({"id": id, "prompt": prompt, "completion": "x", "score": 1});
    let ids = [row("a", "one"), row("a", "two"), row("a~2", "three")];
    let read_ids = read("ids.jsonl", &lines(&ids));
    let samples = &read_ids["ids"]["samples"];
    assert!(read_ids["ids"]["n"] == 3 && samples.is_null(), "{read_ids}");
    // Fewer requests than answers; a first line that is longer than the start by which formats are told.
    let choice = |doc: &str, arguments: Value| json!({"doc_id": 1, "doc": doc, "target": "A", "arguments": arguments, "resps": [], "filtered_resps": [["nan", "False"], ["-2.0", "False"]], "filter": "none", "metrics": ["acc"], "acc": 1.0});
    let short = choice("", json!([["Q", "a"]]));
    read("samples_short.jsonl", &lines(&[short]));
    let whole = json!({"gen_args_0": {"arg_0": "Q", "arg_1": " a"}, "gen_args_1": {"arg_1": " b"}});
    let long = choice(&"z".repeat(100_000), whole);
    read("samples_long.jsonl", &lines(&[long]));
    // A header that promises more samples than can be counted.
    let log = json!({"version": 2, "status": "success", "eval": {"dataset": {"samples": u64::MAX}, "config": {"epochs": 4}}, "samples": [
        {"id": 1, "epoch": u64::MAX, "input": "one", "scores": {"match": {"value": "C"}}},
    ]});
    read("many.json", &log.to_string());
    // As many completions of one prompt as a table has.
    let same = |at: usize| json!({"prompt": "one", "completion": "x", "score": at % 2});
    let rows: Vec<Value> = (0..3000).map(same).collect();
    let same = &read("same.jsonl", &lines(&rows))["same"];
    assert_eq!(same["samples"]["valid"]["samples"], 3000, "{same}");
}
