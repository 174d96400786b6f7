//! A teacher on an endpoint: `serve` of other weights, and of the same, on this machine.

use std::process::Stdio;

use grpo_tui::run::{EventBody, RunDirectory, RunState};
use grpo_tui::train::Ended;

use super::small_task::{SMALL, create, fingerprint, whole, work, write};
use crate::program::{NANO, NANO_RUN, call, program, stderr, stdout};
use crate::serve::Server;

const DISTILL: [&str; 4] = [
    "method=distill",
    "lora_rank=4",
    "learning_rate=5e-3",
    "eval_every=0",
];

/// As a run records it.
fn teacher(server: &Server, model: &str) -> String {
    format!(
        "teacher=endpoint:local {{ base_url = \"{}\", model = \"{model}\", retries = 0 }}",
        server.base_url()
    )
}

fn trained(run: &RunDirectory) -> Vec<f64> {
    assert!(matches!(work(run, |_| false).unwrap(), Ended::Finished(_)));
    RunState::read(run.path()).unwrap().metrics["distill/reverse_kl"]
        .values()
        .to_vec()
}

#[test]
fn its_log_probs_are_those_of_the_same_teacher_beside_the_student() {
    let folder = tempfile::tempdir().unwrap();
    for (name, model) in [("itself", NANO), ("other", "tiny-sql")] {
        let server = Server::start(&[model]);
        let all = |name: &str, teacher: &str| {
            let run = create(
                &folder.path().join(name),
                &[&DISTILL[..], &[teacher, "learning_rate=0", "max_steps=2"]].concat(),
            );
            trained(&run)
        };
        let (far, near) = (
            all(&format!("far-{name}"), &teacher(&server, model)),
            all(name, &format!("teacher={model}")),
        );
        let difference = far
            .iter()
            .zip(&near)
            .map(|(far, near)| (far - near).abs())
            .fold(0.0, f64::max);
        assert!(
            far.len() == 2 && difference < 1e-4,
            "{model}: {far:?}, beside {near:?}"
        );
        assert_eq!(
            near.iter().all(|value| *value == 0.0),
            model == NANO,
            "{near:?}"
        );
    }
}

#[test]
fn stopping_changes_nothing_and_a_server_that_is_gone_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&["tiny-sql"]);
    let teacher = teacher(&server, "tiny-sql");
    let set = [&DISTILL[..], &[&teacher, "max_steps=4"]].concat();
    let stopped = create(&folder.path().join("stopped"), &set);
    let ended = work(
        &stopped,
        |event| matches!(event, EventBody::Step(step) if step.step == 1),
    )
    .unwrap();
    assert!(matches!(ended, Ended::Interrupted { .. }), "{ended:?}");
    trained(&stopped);
    assert!(
        fingerprint(&stopped) == fingerprint(&whole(&set)),
        "the resumed run differs"
    );

    let failing = create(&folder.path().join("failing"), &set);
    let mut server = Some(server);
    let error = work(&failing, |event| {
        if matches!(event, EventBody::Step(_)) {
            server = None;
        }
        false
    });
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with(
            "teacher = endpoint:local gave no log-probs for 12 of 12 completions of a step"
        ),
        "{error}"
    );
    let error = work(&failing, |_| false).unwrap_err().to_string();
    assert!(
        error.starts_with("teacher = endpoint:local: ") && error.contains("(/tokenize)"),
        "{error}"
    );
}

/// A server that has one text for all.
#[test]
fn another_tokenizer_is_named_with_the_first_id_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let address = crate::program::serve(std::sync::Arc::new(()), |mut stream, ()| {
        use std::io::{Read, Write};
        let mut read = [0; 4096];
        _ = stream.read(&mut read);
        let body = r#"{"count": 1, "max_model_len": 4096, "tokens": [3]}"#;
        _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        // What the client still sends is read, so that it sees the answer.
        while stream.read(&mut read).is_ok_and(|read| read > 0) {}
    });
    let teacher = format!(
        "teacher=endpoint:other {{ base_url = \"http://{address}/v1\", model = \"m\", retries = 0 }}"
    );
    let run = create(folder.path(), &[&DISTILL[..], &[&teacher]].concat());
    let error = work(&run, |_| false).unwrap_err().to_string();
    let expected = "teacher = endpoint:other tokenizes otherwise: id 0 of a probe text is 3, of the model to train ";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_run_records_the_definition_without_the_key_and_a_task_s_own_teacher_needs_trust() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let task = write(&folder.join("tasks"));
    let server = Server::start(&[NANO]);
    let endpoints = format!(
        "[large]\nbase_url = \"{}\"\nmodel = \"{NANO}\"\napi_key_env = \"TEACHER_KEY\"\n",
        server.base_url()
    );
    std::fs::write(folder.join("endpoints.toml"), endpoints).unwrap();
    let train = |more: &[&str]| {
        let mut command = program(folder, &["train", "small", "--cpu", "--method", "distill"]);
        let sets = NANO_RUN
            .iter()
            .chain(SMALL)
            .chain(&["lora_rank=4", "max_steps=1", "eval_every=0"])
            .flat_map(|key| ["--set", key]);
        command
            .args(sets)
            .args(more)
            .env("TEACHER_KEY", "sk-0123456789abcdef");
        command.stdin(Stdio::null()).output().unwrap()
    };
    let output = train(&["--set", "teacher=endpoint:large", "--name", "named"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let run = std::fs::read_dir(folder.join("runs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let recorded = std::fs::read_to_string(run.join("run.toml")).unwrap();
    assert!(
        recorded.contains("endpoint:large { base_url = ") && recorded.contains("TEACHER_KEY"),
        "{recorded}"
    );
    assert!(!recorded.contains("sk-0123456789abcdef"), "{recorded}");
    // The same, said by the task.
    let file = task.join("task.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let named = text.replacen(
        "[train]",
        "[train]\nteacher = \"endpoint:large\"\ndistill_coef = 1",
        1,
    );
    assert_ne!(named, text);
    std::fs::write(&file, named).unwrap();
    let refused = train(&[]);
    assert!(
        stderr(&refused)
            .contains("invoice: names a teacher, which gets prompts and completions at large {"),
        "{}",
        stderr(&refused)
    );
    let trusted = stdout(&call(folder, &["task", "trust", "small", "--yes"]));
    assert!(
        trusted.contains("invoice uses a teacher") && trusted.contains("  teacher  large {"),
        "{trusted}"
    );
    let output = train(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    // Without its key nothing begins.
    let without = call(folder, &["train", "small", "--cpu", "--method", "distill"]);
    assert!(
        stderr(&without).contains("the environment variable TEACHER_KEY is not set"),
        "{}",
        stderr(&without)
    );
}
