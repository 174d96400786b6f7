//! The program as a user starts it, with a home of its own: every test that starts it does so here, and none reads the
//! home of whoever runs the tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::BufRead;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use grpo_tui::sandbox::launch_if_asked;
use grpo_tui::score::on_every_core;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_grpo-tui");

#[path = "own_home.rs"]
mod own_home;

/// The program in `folder`, with a home and slots for devices below it: tests side by side do not wait for each other.
pub(crate) fn program(folder: &Path, arguments: &[&str]) -> Command {
    started_by(Command::new(PROGRAM), folder, arguments)
}

/// What the program printed, and how it ended: by itself, or after five minutes with code 124.
pub(crate) fn call(folder: &Path, arguments: &[&str]) -> Output {
    let mut timeout = Command::new("timeout");
    timeout.args(["--kill-after=10", "300", PROGRAM]);
    started_by(timeout, folder, arguments).output().unwrap()
}

/// `call` in a folder that is gone afterwards.
pub(crate) fn call_anywhere(arguments: &[&str]) -> Output {
    call(tempfile::tempdir().unwrap().path(), arguments)
}

/// The same on a thread of this process, which has a current folder of its own and the home of the test binary. It is for
/// what a command says: one that trains, reads its input, starts the program again or reads a relative path on the threads
/// that score is a process.
pub(crate) fn call_in_process(folder: &Path, arguments: &[&str]) -> Output {
    // These threads stay, and would keep the folder of the thread that starts them.
    on_every_core(|| ());
    let work = || {
        // SAFETY: no descriptor is closed; only the current folder is no longer shared.
        if unsafe { unshare_unsafe(UnshareFlags::FS) }.is_err() {
            // Some containers refuse it.
            return call(folder, arguments);
        }
        std::env::set_current_dir(folder).unwrap();
        let words = std::iter::once(&"grpo-tui").chain(arguments);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = grpo_tui::cli::run(words.map(OsString::from), &mut stdout, &mut stderr).unwrap();
        let code = (0..=u8::MAX).find(|number| ExitCode::from(*number) == code);
        Output {
            status: ExitStatus::from_raw(i32::from(code.unwrap()) << 8),
            stdout,
            stderr,
        }
    };
    std::thread::scope(|scope| {
        // With the stack of a process.
        let thread = std::thread::Builder::new().stack_size(8 << 20);
        let ended = thread.spawn_scoped(scope, work).unwrap().join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// `call_in_process` in a folder that is gone afterwards.
pub(crate) fn call_anywhere_in_process(arguments: &[&str]) -> Output {
    call_in_process(tempfile::tempdir().unwrap().path(), arguments)
}

/// A command that ends in the program, with the folders of `program`.
pub(crate) fn started_by(mut command: Command, folder: &Path, arguments: &[&str]) -> Command {
    let variables = own_home::variables(&folder.join("home"), &folder.join("slots"));
    command
        .args(arguments)
        .current_dir(folder)
        .envs(variables)
        .stdin(Stdio::null());
    command
}

/// A model of a sample task's generator in `out`, as `pretrain` of the lab makes it.
#[cfg(feature = "engine")]
pub(crate) fn pretrain(task: &str, out: &Path, more: &[&str]) {
    let task = sample_data(task);
    let words = [
        "lab",
        "pretrain",
        task.to_str().unwrap(),
        "--examples",
        "2",
        "--out",
    ];
    let words = words.iter().map(OsString::from);
    let words = words
        .chain([out.into()])
        .chain(more.iter().map(OsString::from));
    grpo_tui_lab::run(words).unwrap();
}

/// A server on this machine that answers each connection on a thread of its own; returns its host and port.
pub(crate) fn serve<S: Send + Sync + 'static>(
    state: std::sync::Arc<S>,
    answer: impl Fn(std::net::TcpStream, &S) + Copy + Send + 'static,
) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || answer(stream, &state));
        }
    });
    address
}

/// A request to a server of a test.
pub(crate) struct HttpRequest {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl HttpRequest {
    /// `None` once the client has gone.
    pub(crate) fn read(stream: &mut impl BufRead) -> Option<Self> {
        let mut head = Vec::new();
        for line in stream.by_ref().lines().map_while(Result::ok) {
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let path = head.first()?.split(' ').nth(1)?.to_owned();
        let headers = head.iter().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let mut request = Self {
            path,
            headers: headers.collect(),
            body: Vec::new(),
        };
        let length = request.header("content-length");
        let length = length.map_or(0, |length| length.parse().unwrap());
        request.body.resize(length, 0);
        stream.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(own, _)| own == name)?;
        Some(found.1.clone())
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Stdout of a command that succeeded.
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The only document on stdout of a command that succeeded.
pub(crate) fn json(output: &Output) -> Value {
    let text = stdout(output);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: stdout is not one JSON document: {text}"))
}

/// A document a line.
pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    lines(&stdout(output))
}

/// The documents of a text with one a line.
pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// How a command ended: its code, what is on stdout and on stderr.
pub(crate) fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The names of what is in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// Every file below a folder with its bytes, and every folder.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
            found.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

/// Until something is so; a machine that is busy with other tests may take its time.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Command lines of the processes whose environment names this folder.
#[cfg(feature = "engine")]
pub(crate) fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let text = |name| {
                Some(
                    String::from_utf8_lossy(&std::fs::read(entry.path().join(name)).ok()?)
                        .into_owned(),
                )
            };
            text("environ")?.contains(folder).then(|| text("cmdline"))?
        });
    processes.collect()
}

/// The requests to a worker, once there is one, or none once it is to stop.
pub(crate) fn requests(
    controls: &grpo_tui::run::RequestQueue,
) -> Vec<grpo_tui::run::AcceptedRequest> {
    let mut taken = Vec::new();
    until("a request", || {
        taken = controls.drain();
        !taken.is_empty() || controls.stop_requested().is_some()
    });
    taken
}

/// The program of others that a variable names, for a test that is ignored without it.
pub(crate) fn peer(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: eval \"$(scripts/peers NAME)\" says where it is")
    })
}

/// A `PATH` with the checkers of code in the folder that `CHECKERS` names, before those of the machine.
pub(crate) fn checkers() -> String {
    [
        std::env::var("CHECKERS").unwrap_or_default(),
        std::env::var("PATH").unwrap_or_default(),
    ]
    .join(":")
}

pub(crate) fn sample_data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("sample-data")
        .join(name)
}

/// A folder with everything in it; hard links would share what tests change.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)
        } else {
            _ = fs::copy(entry.path(), target).unwrap()
        }
    }
}

/// The sample task in `folder`, with so many prompts of its train, eval and test set.
pub(crate) fn sample_task(folder: &Path, rows: [usize; 3]) {
    sample_task_named("invoice", folder, rows);
}

/// The same of another sample task.
pub(crate) fn sample_task_named(name: &str, folder: &Path, [train, eval, test]: [usize; 3]) {
    copy_tree(&sample_data(name), folder);
    let test_file = if name == "invoice" {
        "eval-large.jsonl"
    } else {
        "test.jsonl"
    };
    for (file, lines) in [
        ("train.jsonl", train),
        ("eval.jsonl", eval),
        (test_file, test),
    ] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        fs::write(
            folder.join(file),
            text.split_inclusive('\n').take(lines).collect::<String>(),
        )
        .unwrap();
    }
}

pub(crate) const ALL: [usize; 3] = [usize::MAX; 3];

/// The sample task with few prompts, in `folder/task`.
#[cfg(feature = "engine")]
pub(crate) fn small_task(folder: &Path) -> PathBuf {
    let task = folder.join("task");
    sample_task(&task, [12, 4, 8]);
    task
}

/// The test model (tests/nano): for a run that need not learn.
#[cfg(feature = "engine")]
pub(crate) const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nano");

/// A training of it: what sample tasks set for `tiny` alone, with answers and steps of its size.
#[cfg(feature = "engine")]
pub(crate) const NANO_RUN: &[&str] = &[
    concat!("base_model=", env!("CARGO_MANIFEST_DIR"), "/tests/nano"),
    "lora_rank=0",
    "learning_rate=1e-3",
    "learning_rate_schedule=constant",
    "advantage=standardized",
    "max_completion_tokens=96",
    "max_seq_len=512",
    "tokens_per_micro_batch=1024",
];

/// What keeps a training short.
#[cfg(feature = "engine")]
pub(crate) const SHORT: [&str; 8] = [
    "--set",
    "max_steps=2",
    "--set",
    "max_rows=8",
    "--set",
    "completions_per_prompt=4",
    "--set",
    "prompt_groups_per_step=4",
];
