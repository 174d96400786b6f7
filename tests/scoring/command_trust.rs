//! A task whose scorer is a program: nothing runs before it is trusted, and each change asks again.

use std::fs;
use std::process::Stdio;

use crate::program::{call, json_lines, program, stderr, stdout};

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_program_runs_when_it_is_trusted_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    assert!(
        stdout(&call(here, &["init", ".", "--template", "python-scorer"])).contains("task trust")
    );
    let task = here.join("tasks/prime-sum");
    let ran = here.join("ran");
    let program_text = fs::read_to_string(task.join("scorer.py")).unwrap();
    let changed = format!("open({:?}, 'w')\n{program_text}", ran.display().to_string());
    fs::write(task.join("scorer.py"), &changed).unwrap();
    // It leaves a mark outside.
    let toml = fs::read_to_string(task.join("task.toml")).unwrap();
    let toml = toml.replace("[score]\n", "[score]\nisolation = \"none\"\n");
    fs::write(task.join("task.toml"), toml).unwrap();
    let refused = |arguments: &[&str]| {
        let output = call(here, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            stderr(&output).contains("grpo-tui task trust "),
            "{}",
            stderr(&output)
        );
        assert!(!ran.exists(), "{arguments:?} ran the program");
    };
    refused(&["score", "prime-sum"]);
    refused(&["task", "check", "prime-sum"]);
    refused(&["task", "audit", "prime-sum"]);
    refused(&["dataset", "check", "prime-sum"]);
    // Whoever does not say yes does not trust.
    let output = call(here, &["task", "trust", "prime-sum"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("command  python3 scorer.py:score"));
    refused(&["score", "prime-sum"]);
    let mut asked = program(here, &["task", "trust", "prime-sum"]);
    let mut asked = asked
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut asked.stdin.take().unwrap(), b"y\n").unwrap();
    assert!(asked.wait().unwrap().success());
    let scores = json_lines(&call(here, &["score", "prime-sum", "--json"]));
    let seen: Vec<_> = scores
        .iter()
        .map(|score| (score["reward"].as_f64().unwrap(), score["failure"].clone()))
        .collect();
    let failure = |name: &str| serde_json::Value::from(name);
    let expected = [
        (1.0, serde_json::Value::Null),
        (0.5, failure("not_prime")),
        (0.2, failure("wrong_sum")),
        (0.0, failure("no_sum")),
        (1.0, serde_json::Value::Null),
    ];
    assert_eq!(seen, expected);
    assert!(ran.exists());
    let checked = stdout(&call(here, &["task", "check", "prime-sum"]));
    assert!(checked.contains("python task.toml ok"), "{checked}");
    fs::remove_file(&ran).unwrap();
    fs::write(task.join("scorer.py"), changed + "\n").unwrap();
    refused(&["score", "prime-sum"]);
    let again = stdout(&call(here, &["task", "trust", "prime-sum", "--yes"]));
    assert!(
        again.contains("; the program has changed since it was trusted\n"),
        "{again}"
    );
    assert!(call(here, &["score", "prime-sum"]).status.success());
    // A fault of the program's own is found before a run does.
    fs::write(task.join("scorer.py"), format!("nonesuch\n{program_text}")).unwrap();
    assert!(
        call(here, &["task", "trust", "prime-sum", "--yes"])
            .status
            .success()
    );
    let output = call(here, &["task", "check", "prime-sum"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.code() == Some(1)
            && text.contains("error: the scorer fails on an empty answer to `"),
        "{text}"
    );
    // What the program fails to score is in no rate.
    let failing = program_text.replace(
        "    parts = [",
        "    if '3' in completion: raise ValueError('a three')\n    parts = [",
    );
    fs::write(task.join("scorer.py"), failing).unwrap();
    assert!(
        call(here, &["task", "trust", "prime-sum", "--yes"])
            .status
            .success()
    );
    let table = stdout(&call(here, &["score", "prime-sum"]));
    for part in [
        "not scored    n/a",
        "3 completions not scored",
        "2 completions, mean reward 0.250",
        "scorer error 3",
    ] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
    assert!(!table.contains("NaN"), "{table}");
    fs::remove_file(&ran).unwrap();
    assert!(
        call(here, &["task", "trust", "prime-sum", "--revoke"])
            .status
            .success()
    );
    refused(&["score", "prime-sum"]);
}

#[cfg(feature = "engine")]
#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_run_trains_by_a_program_and_stops_when_that_fails_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    stdout(&call(here, &["init", ".", "--template", "python-scorer"]));
    let task = here.join("tasks/prime-sum");
    let train = |name: &str| {
        let arguments = [
            "train",
            "prime-sum",
            "--model",
            "tiny",
            "--runs",
            "runs",
            "--name",
            name,
        ];
        call(
            here,
            &[
                &arguments[..],
                &crate::program::SHORT,
                &["--set", "max_completion_tokens=8"],
            ]
            .concat(),
        )
    };
    let untrusted = train("no");
    assert!(
        untrusted.status.code() == Some(1) && stderr(&untrusted).contains("task trust"),
        "{}",
        stderr(&untrusted)
    );
    assert!(
        call(here, &["task", "trust", "prime-sum", "--yes"])
            .status
            .success()
    );
    let trained = train("good");
    assert!(trained.status.success(), "{}", stderr(&trained));
    let shown = crate::program::json(&call(
        here,
        &["runs", "show", "good", "--runs", "runs", "--json"],
    ));
    assert_eq!(
        shown["metrics"]["failures/no_sum"], 1.0,
        "the embedded model writes invoices: {shown}"
    );
    let text = fs::read_to_string(task.join("scorer.py")).unwrap();
    fs::write(
        task.join("scorer.py"),
        text.replace("parts = [", "raise SystemError('no prime')\n    parts = ["),
    )
    .unwrap();
    assert!(
        call(here, &["task", "trust", "prime-sum", "--yes"])
            .status
            .success()
    );
    let stopped = train("bad");
    let said = stderr(&stopped);
    assert_eq!(stopped.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the scorer failed on") && said.contains("no prime"),
        "{said}"
    );
}

#[test]
fn a_part_by_a_program_is_trusted_for_itself_and_its_failure_leaves_no_reward() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let toml = "name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"regex\"\npattern = 'a'\n[[reward]]\nname = \"lint\"\nkind = \"code\"\nfile = \"a.sh\"\nparse = [\"sh\", \"-n\", \"{file}\"]\ncommand = [\"sh\", \"lint.sh\", \"{file}\"]\nweight = 0.5\n";
    let lint = "grep -q broken \"$1\" && exit 7\ngrep -q eval \"$1\" || exit 0\necho \"$1:1:1: L100 no eval\"\nexit 1\n";
    for (file, text) in [
        ("task.toml", toml),
        ("lint.sh", lint),
        (
            "c.jsonl",
            "{\"completion\":\"echo a\"}\n{\"completion\":\"eval a\"}\n{\"completion\":\"if a\"}\n{\"completion\":\"broken a\"}\n",
        ),
    ] {
        fs::write(here.join(file), text).unwrap();
    }
    let refused = call(here, &["score", "."]);
    assert!(
        refused.status.code() == Some(1) && stderr(&refused).contains("sh lint.sh {file}"),
        "{}",
        stderr(&refused)
    );
    let trusted = stdout(&call(here, &["task", "trust", ".", "--yes"]));
    assert!(
        trusted.contains("command  sh -n {file}\n  command  sh lint.sh {file}\n  runs     /"),
        "{trusted}"
    );
    let scores = json_lines(&call(here, &["score", ".", "--json"]));
    let seen: Vec<_> = scores
        .iter()
        .map(|score| (score["reward"].as_f64(), score["failure"].as_str()))
        .collect();
    let expected = [
        (Some(1.5), None),
        (Some(1.25), Some("lint-L100")),
        (Some(1.0), Some("lint-syntax")),
        (None, Some("scorer_error")),
    ];
    assert_eq!(seen, expected, "{scores:?}");
    let why = scores[3]["errors"][0]["message"].as_str().unwrap();
    assert_eq!(why, "lint: the checker ended with exit code 7");
    let task = grpo_tui::score::Task::load(here).unwrap();
    assert_eq!(
        task.file_names(),
        ["task.toml", "lint.sh", "c.jsonl"],
        "a run copies them"
    );
}

#[test]
fn what_a_program_gives_lazy_answers_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let write = |name: &str, text: &str| fs::write(here.join(name), text).unwrap();
    let toml = "name = \"t\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"command\"\ncommand = [\"sh\", \"long.sh\"]\nmode = \"exit_code\"\n";
    write("task.toml", toml);
    // Accepts what has more than two letters.
    write(
        "long.sh",
        &format!(
            "# {}\nread -r answer\n[ ${{#answer}} -gt 2 ]\n",
            here.display()
        ),
    );
    let line = |expected: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Say {expected}\"}}], \"expected\": \"{expected}\"}}\n"
        )
    };
    write("train.jsonl", &(line("one") + &line("no")));
    assert!(
        call(here, &["task", "trust", ".", "--yes"])
            .status
            .success()
    );
    let audited = json_lines(&call(here, &["task", "audit", ".", "--json"]));
    let findings = audited[0]["findings"].as_array().unwrap();
    let found: Vec<String> = findings
        .iter()
        .map(|finding| {
            format!(
                "{}: {} {} {}",
                finding["name"], finding["completion"], finding["reward"], finding["weak"]
            )
        })
        .collect();
    for line in [
        "\"an empty answer\": \"\" 0.5 false",
        "\"an empty object\": \"{}\" 0.5 false",
        "\"the prompt itself\": \"Say one\" 1.0 true",
        "\"the expected answer of another row\": \"no\" 0.75 false",
    ] {
        assert!(
            found.iter().any(|found| found == line),
            "{line}: {found:#?}"
        );
    }
}

/// Neither a folder with the same files nor a program that was exchanged runs by the trust of another.
#[test]
fn a_program_outside_the_tasks_files_is_trusted_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().canonicalize().unwrap();
    let ran = here.join("ran");
    let script = |mark: bool| {
        let mark = if mark {
            format!("echo x > '{}'\n", ran.display())
        } else {
            String::new()
        };
        format!("#!/bin/sh\n{mark}exit 0\n")
    };
    let write = |path: &std::path::Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let toml = |command: &str| {
        format!(
            "name = \"t\"\n[prompts]\ncompletions = \"c.jsonl\"\n[score]\nkind = \"command\"\nmode = \"exit_code\"\nisolation = \"none\"\ncommand = [{command:?}]\n"
        )
    };
    let scored = |task: &str| call(&here, &["score", task, "--json"]);
    let refuses = |task: &str| {
        let output = scored(task);
        assert_eq!(output.status.code(), Some(1), "{task}");
        assert!(
            stderr(&output).contains("grpo-tui task trust "),
            "{}",
            stderr(&output)
        );
        assert!(!ran.exists(), "{task}");
    };
    for (command, link) in [
        ("../check", None),
        (".venv/bin/check", Some("../../../check")),
    ] {
        for side in ["a", "b"] {
            write(&here.join(side).join("check"), &script(side == "b"));
            let task = here.join(side).join("task");
            fs::create_dir_all(task.join(".venv/bin")).unwrap();
            _ = fs::remove_file(task.join(".venv/bin/check"));
            if let Some(link) = link {
                std::os::unix::fs::symlink(link, task.join(".venv/bin/check")).unwrap();
            }
            fs::write(task.join("c.jsonl"), "{\"completion\":\"x\"}\n").unwrap();
            fs::write(task.join("task.toml"), toml(command)).unwrap();
        }
        let shown = stdout(&call(&here, &["task", "trust", "a/task", "--yes"]));
        let program = here.join("a/check");
        assert!(
            shown.contains(&format!("{}\n", program.display()))
                && shown.contains("  runs     by /bin/sh"),
            "{shown}"
        );
        assert_eq!(json_lines(&scored("a/task"))[0]["tier"], "valid");
        refuses("b/task");
        // The same place, another content.
        write(&program, &script(true));
        refuses("a/task");
        write(&program, &script(false));
        assert_eq!(json_lines(&scored("a/task"))[0]["tier"], "valid");
    }
}
