//! `score`, `task` and `init` as scripts and people call them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::program::{self, call_in_process, json_lines, program, sample_data, stderr};

/// A process only where there is something to read.
fn call(folder: &Path, arguments: &[&str], input: &str) -> Output {
    if !arguments.contains(&"-") {
        return call_in_process(folder, arguments);
    }
    let mut command = program(folder, arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut pipe, input) = (child.stdin.take().unwrap(), input.to_owned());
    // A command that fails early may not read its input, and one that writes much must be read meanwhile.
    let writer = std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

#[test]
fn the_samples_show_each_tier_from_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let scores = json_lines(&call(folder.path(), &["score", "invoice", "--json"], ""));
    let samples = fs::read_to_string(sample_data("invoice/completions.jsonl")).unwrap();
    assert_eq!(scores.len(), samples.lines().count());
    for (score, sample) in scores.iter().zip(samples.lines()) {
        let sample: serde_json::Value = serde_json::from_str(sample).unwrap();
        let shows = sample["shows"].as_str().unwrap();
        assert!(
            shows.starts_with(score["tier"].as_str().unwrap()),
            "{shows}: {score}"
        );
        assert_eq!(
            score["exact"].as_bool().unwrap(),
            shows.starts_with("valid") && !shows.contains("wrong"),
            "{shows}"
        );
        assert_eq!(
            score["errors"].as_array().unwrap().is_empty(),
            shows.starts_with("valid")
        );
        assert_eq!(score["fields"].is_null(), shows.starts_with("unparsable"));
    }
    let keys = |value: &serde_json::Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&scores[0])[..7],
        [
            "reward", "tier", "tolerant", "warnings", "errors", "fields", "exact"
        ]
    );
    let invalid = scores
        .iter()
        .find(|score| score["tier"] == "invalid")
        .unwrap();
    assert_eq!(
        keys(&invalid["errors"][0]),
        ["message", "instance_path", "schema_path", "line", "column"]
    );
    assert!(
        fs::read_dir(folder.path()).unwrap().next().is_none(),
        "score left something behind"
    );
    let human = call(folder.path(), &["score", "invoice"], "");
    let text = String::from_utf8_lossy(&human.stdout).into_owned();
    assert!(
        text.contains("21 completions, mean reward 0.681")
            && text.contains("exact match                  4 of 21 with an expected answer"),
        "{text}"
    );
}

/// Names of a process's threads.
fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .collect()
}

#[test]
fn every_core_scores_or_as_many_as_the_user_allows() {
    let all = std::thread::available_parallelism().unwrap().get();
    for (variable, expected) in [(None, all), (Some("3"), 3)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program(
            folder.path(),
            &["score", "invoice", "--completions", "-", "--json"],
        );
        command.env_remove("RAYON_NUM_THREADS");
        variable.map(|variable| command.env("RAYON_NUM_THREADS", variable));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        // A whole batch, after which the program waits for more.
        let feeding = std::thread::spawn(move || {
            input
                .write_all("{\"completion\":\"{}\"}\n".repeat(5_000).as_bytes())
                .unwrap();
            input
        });
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert!(line.contains("\"tier\""), "{line}");
        let scoring = threads(child.id())
            .into_iter()
            .filter(|name| name.starts_with("score-"))
            .count();
        assert_eq!(scoring, expected, "{variable:?}: {:?}", threads(child.id()));
        let reading = std::thread::spawn(move || {
            std::io::Read::read_to_end(&mut output, &mut Vec::new()).unwrap()
        });
        drop(feeding.join().unwrap());
        reading.join().unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn standard_input_is_scored_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let input: String = (0..9_000)
        .map(|index| {
            format!(
                "{{\"completion\":\"{}\"}}\n",
                if index % 2 == 0 { "{}" } else { "x" }
            )
        })
        .collect();
    let scores = json_lines(&call(
        folder.path(),
        &["score", "invoice", "--completions", "-", "--json"],
        &input,
    ));
    assert_eq!(scores.len(), 9_000);
    assert!(scores.iter().enumerate().all(|(index, score)| score["tier"]
        == if index % 2 == 0 {
            "invalid"
        } else {
            "unparsable"
        }));
    let arguments = &["score", "invoice", "--completions", "-"];
    let table = call(folder.path(), arguments, &input);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.contains("\n9000 completions, mean reward 0.250\n")
            && table.contains("unparsable                   4500 (50.0%)")
            && table.matches("reward  exact").count() == 1,
        "{table}"
    );
    // Each with its own row, up to a line that is none.
    let named: String = (0..9_000)
        .map(|index| format!("{{\"completion\":\"{{}}\",\"prompt_id\":\"p{index}\",\"more\":1}}\n"))
        .collect();
    let output = call(folder.path(), arguments, &named);
    let complaint = "error: standard input line 1: unknown prompt_id \"p0\"; 9000 completions are";
    assert!(
        stderr(&output).starts_with(complaint),
        "{}",
        stderr(&output)
    );
    let output = call(
        folder.path(),
        &["score", "invoice", "--completions", "-", "--json"],
        &(named + "{}\n[1]\n"),
    );
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let unknown = crate::program::lines(&lines);
    assert_eq!(unknown.len(), 9_000);
    for (index, score) in unknown.iter().enumerate() {
        let warning = format!("unknown prompt_id \"p{index}\": no expected answer to compare with");
        assert_eq!(score["warnings"][0], warning);
    }
    let complaint = "error: standard input line 9001: missing `completion`";
    assert!(
        output.status.code() == Some(1) && stderr(&output).starts_with(complaint),
        "{}",
        stderr(&output)
    );
}

#[test]
fn half_a_surrogate_pair_costs_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let input = "{\"completion\":\"{}\"}\n{\"completion\":\"{\\\"vendor\\\":\\\"\\ud800\\\"}\"}\n{\"completion\":\"{}\"}\n";
    let scores = json_lines(&call(
        folder.path(),
        &["score", "invoice", "--completions", "-", "--json"],
        input,
    ));
    let tiers: Vec<&str> = scores
        .iter()
        .map(|score| score["tier"].as_str().unwrap())
        .collect();
    assert_eq!(tiers, ["invalid", "unparsable", "invalid"]);
    assert_eq!(scores[1]["errors"][0]["message"], "unpaired surrogate");
}

#[test]
fn complaints_name_file_line_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("c.jsonl"),
        "{\"completion\":\"x\"}\n\n{\"text\":\"y\"}\n",
    )
    .unwrap();
    for (arguments, input, code, complaint) in [
        (
            &["score", "invoice", "--completions", "c.jsonl"][..],
            "",
            1,
            "error: c.jsonl line 3: missing `completion`\n",
        ),
        (
            &["score", "invoice", "--completions", "none.jsonl"],
            "",
            1,
            "error: none.jsonl: No such file or directory (os error 2)\n",
        ),
        (
            &["score", "invoice", "--completions", "."],
            "",
            1,
            "error: . is a folder; name a file\n",
        ),
        (
            &["score", "invoice", "--completions", "-"],
            "{\"completions\":\"x\"}",
            1,
            "error: standard input line 1: missing `completion`; did you mean `completions`?\n",
        ),
        (
            &["score", "invoice", "--completions", "-"],
            "{\"completion\":1}",
            1,
            "error: standard input line 1: `completion` must be a string, not 1\n",
        ),
        (
            &["score", "invoice", "--completions", "-"],
            "{\"completion\":\"x\"",
            1,
            "error: standard input line 1: not JSON at column 17: `{\"completion\":\"x\"`; a line is a JSON object, {\"completion\":\"…\"}\n",
        ),
        (
            &["score", "invoice", "--completions", "-"],
            "",
            1,
            "error: standard input: no completions; write one JSON object per line, {\"completion\":\"…\"}\n",
        ),
        (
            &["score", "invoise"],
            "",
            1,
            "error: no task \"invoise\": did you mean `invoice`?\n",
        ),
    ] {
        let output = call(folder.path(), arguments, input);
        assert_eq!(
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stderr).as_ref()
            ),
            (Some(code), complaint),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_workspace_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let made = call(folder.path(), &["init", "w"], "");
    assert!(
        String::from_utf8_lossy(&made.stdout)
            .contains("  check it    cd w && grpo-tui task check invoice\n")
    );
    let here = call(tempfile::tempdir().unwrap().path(), &["init", "."], "");
    assert!(
        String::from_utf8_lossy(&here.stdout)
            .contains("  check it    grpo-tui task check invoice\n")
    );
    assert!(folder.path().join("w/runs").is_dir());
    let schema = folder.path().join("w/tasks/invoice/schema.json");
    fs::write(&schema, "{}").unwrap();
    let again = call(folder.path(), &["init", "w"], "");
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&again.stderr),
        "error: w/tasks/invoice exists: choose another folder, or remove it\n"
    );
    assert_eq!(fs::read_to_string(&schema).unwrap(), "{}");
    let audit = call(&folder.path().join("w"), &["task", "audit", "invoice"], "");
    assert!(
        String::from_utf8_lossy(&audit.stdout)
            .contains("no degenerate answer scores as high as a correct one")
    );
}

#[test]
fn a_task_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let check = &json_lines(&call(
        folder.path(),
        &["task", "check", "invoice", "--json"],
        "",
    ))[0];
    assert_eq!(
        (
            &check["ok"],
            &check["sets"]["train"]["rows"],
            &check["sets"]["test"]["expected"]
        ),
        (&true.into(), &200.into(), &500.into())
    );
    call(folder.path(), &["init", "w"], "");
    let task = folder.path().join("w/tasks/invoice");
    let schema = fs::read_to_string(task.join("schema.json")).unwrap();
    fs::write(
        task.join("schema.json"),
        schema.replace("\"number\"", "\"integer\""),
    )
    .unwrap();
    fs::remove_file(task.join("completions.jsonl")).unwrap();
    let output = call(&folder.path().join("w"), &["task", "check", "invoice"], "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains(" expected answers are invalid: ")
            && text.contains("/amount expected integer, found number")
            && text.contains("completions.jsonl: No such file"),
        "{text}"
    );
}

#[test]
fn a_prompt_is_rendered_as_a_model_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let render = |row: &str| {
        call(
            folder.path(),
            &[
                "task", "render", "invoice", row, "--model", "tiny", "--json",
            ],
            "",
        )
    };
    let shown = &json_lines(&render("train-001"))[0];
    let first = fs::read_to_string(sample_data("invoice/train.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let asked = first["messages"][0]["content"].as_str().unwrap();
    let prompt = shown["prompt"].as_str().unwrap();
    assert!(
        prompt.contains(asked) && prompt.len() > asked.len(),
        "{prompt}"
    );
    assert!(shown["tokens"].as_u64().unwrap() > 0 && shown["row"] == "train-001");
    assert_eq!(json_lines(&render("train:train-001"))[0], *shown);
    let output = render("nonesuch");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no row `nonesuch` in train, eval or test"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_check_names_every_problem_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    crate::program::sample_task(&here.join("task"), crate::program::ALL);
    let task = here.join("task");
    let append = |file: &str, text: &str| {
        let whole = fs::read_to_string(task.join(file)).unwrap_or_default() + text;
        fs::write(task.join(file), whole).unwrap();
    };
    let train = fs::read_to_string(task.join("train.jsonl")).unwrap();
    let first = train.lines().next().unwrap().replace("train-001", "again");
    append("train.jsonl", &format!("{{\n{first}\n[1]\n"));
    append("completions.jsonl", "{}\n[2]\n");
    append("guard.jsonl", "{\"text\": \"a\"}\n{}\n[3]\n");
    let toml = fs::read_to_string(task.join("task.toml")).unwrap();
    let toml = toml.replace("[prompts]\n", "[prompts]\nguard = \"guard.jsonl\"\n");
    fs::write(
        task.join("task.toml"),
        toml.replace(
            "[train]\n",
            "[train]\nlearnig_rate = 1e-3\nmax_stepps = 3\n",
        ),
    )
    .unwrap();
    let output = call(here, &["task", "check", "task", "--json"], "");
    assert_eq!(output.status.code(), Some(1));
    let check: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let texts = |key: &str| {
        check[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .collect::<Vec<_>>()
    };
    let problems = texts("problems");
    let starts = [
        "`learnig_rate`",
        "`max_stepps`",
        "task/train.jsonl line 201: ",
        "task/train.jsonl line 203: ",
        "task/guard.jsonl line 2: ",
        "task/guard.jsonl line 3: ",
        "task/completions.jsonl line 22: ",
        "task/completions.jsonl line 23: ",
    ];
    for start in starts {
        assert!(
            problems.iter().any(|problem| problem.contains(start)),
            "{start}: {problems:#?}"
        );
    }
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    assert_eq!(check["sets"]["train"]["rows"], 201);
    let warnings = texts("warnings");
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("1 prompt repeats another of the set; first: ")),
        "{warnings:#?}"
    );
}

#[test]
fn formats_that_nobody_checks_are_named() {
    let schema = r#"{"properties":{"a":{"format":"date"},"b":{"format":"idn-hostname"},"c":{"items":{"format":"iban"}},"format":{"enum":["x"],"default":{"format":"y"}}}}"#;
    let check = |lines: &str| {
        let folder = super::folder_with(schema, lines);
        let output = call(folder.path(), &["task", "check", ".", "--json"], "");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let warnings = found["warnings"].as_array().unwrap().iter().map(|warning| {
            warning
                .as_str()
                .unwrap()
                .split(": ")
                .nth(1)
                .unwrap()
                .to_owned()
        });
        warnings
            .filter(|warning| warning.starts_with("format "))
            .collect::<Vec<_>>()
    };
    let named = |format: &str| format!("format \"{format}\" is not checked");
    assert_eq!(
        check("[score]\nassert_formats = true\n"),
        [named("iban"), named("idn-hostname")]
    );
    assert!(check("").is_empty());
}

#[test]
fn a_scorer_that_fails_on_all_completions_is_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let toml = "name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"code\"\nfile = \"a\"\ncommand = [\"sh\", \"-c\", \"exit 5\"]\n";
    fs::write(here.join("task.toml"), toml).unwrap();
    fs::write(here.join("c.jsonl"), "{\"completion\":\"x\"}\n").unwrap();
    assert!(
        program::call(here, &["task", "trust", ".", "--yes"])
            .status
            .success()
    );
    let output = program::call(here, &["score", "."]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains(
            "the scorer failed on all 1 completion: the checker ended with exit code 5; fix it"
        ),
        "{said}"
    );
    let toml = "name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"sql\"\n";
    fs::write(here.join("task.toml"), toml).unwrap();
    let said = stderr(&call(here, &["score", ".", "--json"], ""));
    assert!(
        said.contains("on all 1 completion: no schema: name a file, `schema` of task.toml"),
        "{said}"
    );
}
