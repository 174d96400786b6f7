//! A server of a loaded model on a Unix socket, as `sample --worker` starts and asks it: the answers of `sample`, one
//! server for all who ask at once, and a device that runs get at once.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use grpo_tui::run::{Device, RunLock, Slot};

use super::super::program::{small_task, stderr, stdout};
use super::*;

/// The program with a home of its own; its servers stay idle for so many seconds.
fn sampler(folder: &Path, idle: u32, arguments: &[&str]) -> Command {
    let mut command = program(folder, arguments);
    command.env("GRPO_TUI_SAMPLER_IDLE", idle.to_string());
    command
}

const SAMPLE: [&str; 10] = [
    "sample", "task", "--prompt", "eval-002", "--n", "3", "--seed", "7", "--json", "--model",
];

fn sampled(folder: &Path, idle: u32, more: &[&str]) -> String {
    stdout(
        &sampler(folder, idle, &[&SAMPLE[..], more].concat())
            .output()
            .unwrap(),
    )
}

/// The folders of servers, the newest last.
fn servers(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("home/cache/grpo-tui/servers")).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort_by_key(|folder| folder.metadata().unwrap().created().unwrap());
    folders
}

fn log(server: &Path) -> String {
    std::fs::read_to_string(server.join("server.log")).unwrap_or_default()
}

fn starts(server: &Path) -> usize {
    log(server).matches("serving ").count()
}

/// The last line of a server that has ended.
fn end(server: &Path) -> String {
    until("the server's end", || !RunLock::is_held(server));
    log(server).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn two_who_ask_at_once_start_one_server_that_answers_as_the_command_does_and_gives_way_to_runs() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    small_task(folder);
    let direct = sampled(folder, 600, &["tiny"]);
    std::thread::scope(|scope| {
        let both = [0; 2].map(|_| scope.spawn(|| sampled(folder, 600, &["tiny", "--worker"])));
        both.into_iter()
            .for_each(|one| assert_eq!(one.join().unwrap(), direct));
    });
    let [tiny] = &servers(folder)[..] else {
        panic!("{:?}", servers(folder))
    };
    assert_eq!(starts(tiny), 1, "{}", log(tiny));
    let sure = sampled(folder, 600, &["tiny", "--confidence"]);
    assert_eq!(
        sampled(folder, 600, &["tiny", "--confidence", "--worker"]),
        sure
    );
    let lines: Vec<Json> = sure
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let leaves = lines
        .iter()
        .flat_map(|line| line["confidence"]["leaves"].as_array().unwrap());
    let known = leaves.filter(|leaf| {
        leaf["confidence"].is_number()
            && leaf["right"].is_boolean()
            && leaf["agreement"].is_number()
    });
    assert!(known.count() > 3, "{sure}");
    // What it does not take is refused in words, and it stays.
    let refused = sampler(
        folder,
        600,
        &[
            "sample", "task", "--model", "tiny", "--worker", "--n", "200",
        ],
    );
    let refused = stderr(&{ refused }.output().unwrap());
    assert!(
        refused.contains("`n` is not a whole number from 1 to 128"),
        "{refused}"
    );
    assert_eq!(
        (sampled(folder, 600, &["tiny", "--worker"]), starts(tiny)),
        (direct, 1)
    );
    // A run on the same device does not wait for the server to be idle for long.
    let mut train = program(
        folder,
        &[
            "train", "task", "--model", "tiny", "--runs", "runs", "--name", "short",
        ],
    );
    let set = "max_steps=2 prompt_groups_per_step=4 completions_per_prompt=4 eval_every=0 checkpoint_every=0 lora_rank=4 learning_rate=0.01";
    set.split(' ')
        .for_each(|key| _ = train.args(["--set", key]));
    assert!(
        train
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(end(tiny), "released CPU to a waiting run");
    // A run's result and what it started from are served side by side.
    let asked =
        [&[][..], &["--base"]].map(|base| [&["short@last", "--runs", "runs"], base].concat());
    let direct = asked.each_ref().map(|asked| sampled(folder, 8, asked));
    let served = asked.map(|asked| sampled(folder, 8, &[&asked[..], &["--worker"]].concat()));
    assert_eq!(served, direct);
    assert_ne!(direct[0], direct[1]);
    let all = servers(folder);
    assert_eq!((all.len(), starts(&all[1])), (2, 1), "{all:?}");
    assert_eq!(end(&all[1]), "idle for 8.0 s");
}

#[test]
fn conversations_with_tools_are_those_of_the_command() {
    let home = tempfile::tempdir().unwrap();
    let asked = [
        "sample",
        "assistant",
        "--model",
        "tiny-assistant",
        "--n",
        "3",
        "--seed",
        "2",
        "--json",
    ];
    let sampled = |more: &[&str]| {
        let output = sampler(home.path(), 2, &[&asked, more].concat())
            .output()
            .unwrap();
        crate::program::json_lines(&output)
    };
    let tokens = |line: &Json| {
        let steps = line["chain"]["steps"].as_array().unwrap();
        let steps: Vec<_> = steps
            .iter()
            .map(|step| (step["token_ids"].clone(), step["calls"].clone()))
            .collect();
        (
            steps,
            line["token_ids"].clone(),
            line["chain"]["end"].clone(),
            line["reward"].clone(),
        )
    };
    let [direct, served] =
        [&[][..], &["--worker"]].map(|more| sampled(more).iter().map(tokens).collect::<Vec<_>>());
    assert!(
        direct.iter().any(|(steps, ..)| steps.len() > 1),
        "{direct:?}"
    );
    assert_eq!(direct, served);
}

#[test]
fn a_server_that_waits_for_its_device_says_so_and_one_that_was_killed_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    small_task(folder);
    std::fs::create_dir(folder.join("slots")).unwrap();
    std::fs::set_permissions(
        folder.join("slots"),
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )
    .unwrap();
    let slot = Slot::wait(&folder.join("slots"), &[Device::Cpu], 1, |_| {
        std::ops::ControlFlow::Break(())
    })
    .unwrap();
    let mut client = sampler(folder, 600, &[&SAMPLE[..], &["tiny", "--worker"]].concat());
    let mut client = client
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(
        first.starts_with("waiting for CPU, in use by process"),
        "{first}"
    );
    drop(slot);
    let first = stdout(&client.wait_with_output().unwrap());
    let [server] = &servers(folder)[..] else {
        panic!("{:?}", servers(folder))
    };
    // Its socket is left behind.
    let holder = std::fs::read_to_string(server.join("lock")).unwrap();
    let process = holder.split(' ').nth(1).unwrap();
    assert!(
        Command::new("kill")
            .args(["-9", process])
            .status()
            .unwrap()
            .success()
    );
    until("the server's death", || !RunLock::is_held(server));
    assert!(server.join("socket").exists());
    assert_eq!(
        (sampled(folder, 600, &["tiny", "--worker"]), starts(server)),
        (first, 2)
    );
    // A model that is none is said at once.
    let output = sampler(
        folder,
        600,
        &["sample", "task", "--model", "no-such-model", "--worker"],
    )
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no-such-model"), "{output:?}");
    // A client that is gone leaves no row behind; the server ends when it is told to.
    let ask = |head: &str, body: &str| {
        let mut stream = UnixStream::connect(server.join("socket")).unwrap();
        let length = body.len();
        write!(stream, "{head} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        stream
    };
    let body = json!({"model": "tiny", "prompt": "a", "n": 16, "max_tokens": 900, "ignore_eos": true, "stream": true});
    let mut answer = BufReader::new(ask("POST /v1/completions", &body.to_string()));
    until("its first token", || {
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        line.starts_with("data: ")
    });
    drop(answer);
    until("its rows are free", || {
        let mut text = String::new();
        ask("GET /metrics", "").read_to_string(&mut text).unwrap();
        text.contains("grpo_tui_lost_clients_total 1") && text.contains("grpo_tui_running_rows 0")
    });
    let process = std::fs::read_to_string(server.join("lock")).unwrap();
    assert!(
        Command::new("kill")
            .arg(process.split(' ').nth(1).unwrap())
            .status()
            .unwrap()
            .success()
    );
    assert!(end(server).starts_with("serving tiny"), "{}", log(server));
}
