//! Judges that are models of this machine: the program serves them for itself, to score, to check and to train, and ends
//! them with itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use grpo_tui::run::RunLock;
use serde_json::{Value, json};

use super::write_task;
use crate::program::{
    call, call_anywhere_in_process, lines, program, sample_task_named, stderr, stdout, until,
};

const CRITERION: &str = "[[score.criterion]]\nname = \"polite\"\ntext = \"It says please.\"\n";

fn task(folder: &Path, judge: &str) -> PathBuf {
    let text = format!(
        "name = \"reply\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"judge\"\n[score.judge]\n{judge}\n{CRITERION}"
    );
    write_task(folder, &text)
}

/// Scores answers; the scores, and what was said beside them.
fn score(folder: &Path) -> (Vec<Value>, String) {
    let line = |(id, text)| format!("{}\n", json!({"prompt_id": id, "completion": text}));
    let answers: String = [("p0", "please wait"), ("p1", "no"), ("p2", "")]
        .map(line)
        .concat();
    std::fs::write(folder.join("completions.jsonl"), answers).unwrap();
    let output = call(
        folder,
        &[
            "score",
            "reply",
            "--completions",
            "completions.jsonl",
            "--json",
        ],
    );
    let said = String::from_utf8(output.stderr).unwrap();
    (lines(&String::from_utf8(output.stdout).unwrap()), said)
}

/// Folders of servers, those of one process or of a run.
fn servers(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("home/cache/grpo-tui/judge-servers"))
        .into_iter()
        .flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_model_of_this_machine_judges_without_trust_and_ends_with_the_program() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    task(folder, "model = \"tiny\"");
    let (scores, said) = score(folder);
    assert!(
        said.contains("loading the judge tiny on the CPU (log: "),
        "{said}"
    );
    for score in &scores[..2] {
        let grade = &score["criteria"][0];
        assert!(matches!(grade["points"].as_u64(), Some(0 | 1)), "{score}");
        assert_eq!(
            score["reward"].as_f64(),
            grade["points"].as_f64(),
            "{score}"
        );
    }
    assert_eq!(scores[2]["tier"], "unparsable");
    // The same model gives the same grades, from the cache of this user.
    let (again, _) = score(folder);
    assert_eq!(again, scores);
    let all = servers(folder);
    assert!(
        !all.is_empty() && all.iter().all(|server| !RunLock::is_held(server)),
        "{all:?}"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&all[0].metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    assert!(stdout(&call(folder, &["task", "check", "reply"])).contains("train    30  "));
    // The task that names no model says so, and where its server's log is.
    task(folder, "model = \"no-such-model\"");
    let refused = call(folder, &["task", "check", "reply"]);
    assert_eq!(refused.status.code(), Some(1));
    let refused = String::from_utf8(refused.stdout).unwrap();
    assert!(
        refused
            .contains("the judge no-such-model could not be loaded on the CPU (exit status: 1): ")
            && refused.contains("its log is "),
        "{refused}"
    );
}

#[test]
fn a_server_ends_with_the_process_that_owns_it_however_that_ends() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    task(folder, "model = \"tiny\"");
    // It scores what it reads, and waits for more.
    let mut command = program(
        folder,
        &["score", "reply", "--completions", "/dev/stdin", "--json"],
    );
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut many = String::new();
    (0..400).for_each(|index| {
        many += &format!(
            "{}\n",
            json!({"prompt_id": "p0", "completion": format!("a {index}")})
        )
    });
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), many.as_bytes()).unwrap();
    until("the server has the model", || {
        servers(folder)
            .iter()
            .any(|server| server.join("ready.json").exists())
    });
    let [server] = &servers(folder)[..] else {
        panic!("{:?}", servers(folder))
    };
    process.kill().unwrap();
    process.wait().unwrap();
    until("the server's end", || !RunLock::is_held(server));
    // The next process removes what is left of it.
    score(folder);
    assert!(!server.exists());
}

#[test]
fn a_run_is_judged_by_the_same_model_for_its_whole_life() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    sample_task_named("invoice", &folder.join("tasks/invoice"), [8, 2, 2]);
    let file = folder.join("tasks/invoice/task.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let part = "\n[[reward]]\nname = \"style\"\nkind = \"judge\"\nweight = 0.5\n[reward.judge]\nmodel = \"tiny\"\n[[reward.criterion]]\nname = \"neat\"\ntext = \"It is neat.\"\n";
    let (before, train) = text.split_once("[train]").unwrap();
    std::fs::write(&file, format!("{before}{part}\n[train]{train}")).unwrap();
    let keys = [
        "max_steps=3",
        "prompt_groups_per_step=2",
        "completions_per_prompt=2",
        "checkpoint_every=1",
        "eval_every=0",
    ];
    let mut first = program(folder, &["train", "invoice", "--cpu", "--name", "judged"]);
    first
        .args(keys.iter().flat_map(|key| ["--set", key]))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut first = first.spawn().unwrap();
    let runs = || {
        std::fs::read_dir(folder.join("runs"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    until("the first checkpoint", || {
        assert!(first.try_wait().unwrap().is_none(), "the run has ended");
        runs().any(|run| run.join("checkpoints/step-000001").exists())
    });
    first.kill().unwrap();
    let said = stderr(&first.wait_with_output().unwrap());
    assert!(said.contains("loading the judge tiny"), "{said}");
    until("the judge's end", || {
        servers(folder)
            .iter()
            .all(|server| !RunLock::is_held(server))
    });
    let run = runs().next().unwrap();
    let record = run.join("judge-models.json");
    let recorded = std::fs::read_to_string(&record).unwrap();
    assert!(recorded.contains("\"style\": \""), "{recorded}");
    std::fs::write(&record, "{\"style\": \"another\"}").unwrap();
    let resume = || call(folder, &["train", "--cpu", "--resume", "judged"]);
    let refused = resume();
    let log =
        stderr(&refused) + &std::fs::read_to_string(run.join("worker.log")).unwrap_or_default();
    assert!(
        log.contains("the model of the judge `style` is another one than at the run's start"),
        "{log}"
    );
    std::fs::write(&record, recorded).unwrap();
    let output = resume();
    assert!(output.status.success(), "{}", stderr(&output));
    let metrics = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    assert!(metrics.contains("rewards/style/mean"), "{metrics}");
    assert!(
        servers(folder)
            .iter()
            .all(|server| !RunLock::is_held(server))
    );
    // Its frozen result judges, too.
    task(folder, "run = \"judged\"");
    let (scores, said) = score(folder);
    assert!(
        said.contains("loading the judge judged@best on the CPU"),
        "{said}"
    );
    assert!(scores[0]["reward"].is_number(), "{}", scores[0]);
}

#[test]
fn a_server_on_a_unix_socket_is_asked_once_it_is_trusted() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let place = folder.join("server");
    std::fs::DirBuilder::new().create(&place).unwrap();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = program(folder, &["serve", "tiny", "--cpu", "--owned", "--socket"]);
    let mut server = command
        .arg(&place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(server.stdout.as_mut().unwrap()),
        &mut line,
    )
    .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&line).unwrap()["digest"]
            .as_str()
            .map(str::len),
        Some(64),
        "{line}"
    );
    let text = format!(
        "name = \"reply\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"judge\"\n[score.endpoint]\nbase_url = \"unix:{}/socket\"\nmodel = \"tiny\"\nretries = 0\nextra_body = {{ max_completion_tokens = 300 }}\n{CRITERION}",
        place.display()
    );
    write_task(folder, &text);
    let refused = stderr(&call(folder, &["task", "check", "reply"]));
    assert!(
        refused.contains(&format!(
            "at tiny at unix:{}/socket, not trusted",
            place.display()
        )),
        "{refused}"
    );
    super::trust(folder);
    let (scores, _) = score(folder);
    let graded = scores[..2]
        .iter()
        .filter(|score| score["reward"].is_number())
        .count();
    // A reason without an end is no grade, and a model as small as this one may write one.
    let reasons: Vec<&Value> = scores.iter().map(|score| &score["errors"]).collect();
    assert!(
        graded > 0
            || reasons
                .iter()
                .any(|reason| reason.to_string().contains("token limit")),
        "{reasons:?}"
    );
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
    let gone = score(folder).0;
    assert!(
        gone[0]["reward"].is_number() || gone[0]["failure"] == "scorer_error",
        "{}",
        gone[0]
    );
}

#[test]
fn a_wrong_judge_table_is_named_with_its_place() {
    let check = |judge: &str, expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let place = task(folder.path(), judge);
        let text = stderr(&call_anywhere_in_process(&[
            "task",
            "check",
            place.to_str().unwrap(),
        ]));
        assert!(
            text.contains(expected),
            "{judge}\n{text} lacks {expected:?}"
        );
    };
    check("", "`[judge]` needs either `model` or `run`");
    check(
        "model = \"tiny\"\nrun = \"x\"",
        "`[judge]` needs either `model` or `run`",
    );
    check(
        "run = \"x@last\"",
        "names a checkpoint that changes: write RUN@best",
    );
    check(
        "model = \"tiny\"\ndevice = \"cuda\"",
        "takes \"cpu\" or \"gpu:0\", \"gpu:1\" ..., not \"cuda\"",
    );
    check(
        "model = \"tiny\"\nmodell = 3",
        "unknown key `score.judge.modell`",
    );
    let both =
        "model = \"tiny\"\n[score.endpoint]\nbase_url = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"";
    check(
        both,
        "is a model of this machine, and `endpoint` a server: remove one",
    );
}
