//! Figures of the workbench as a user meets them: the release program in a terminal of its own, during a live run.
//! `cargo bench --bench view`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_debug_implementations,
    dead_code,
    unreachable_pub
)]

#[path = "../tests/view/harness.rs"]
mod harness;
#[path = "../tests/view/live_run.rs"]
mod live_run;
#[path = "../tests/run_directory/long_log.rs"]
mod long_log;
#[path = "../tests/program.rs"]
mod program;
#[path = "../tests/view/pty_session.rs"]
mod session;

use std::time::{Duration, Instant};

use crossterm::event::KeyEvent;
use grpo_tui::run::Series;
use grpo_tui::view::key_chord::Chord;
use grpo_tui::view::style_role::Role;
use grpo_tui::view::theme::Theme;
use grpo_tui::view::widgets::chart::{Chart, Curve};
use grpo_tui::view::{Command, Message, app, update};
use harness::Stage;
use live_run::LiveRun;
use session::{Session, Start};

const STARTS: usize = 12;
const KEYS: usize = 200;
/// The longest that the view may keep somebody waiting who types.
const MAX_PAUSE: Duration = Duration::from_secs(1);

fn main() {
    // `cargo bench` passes --bench; `cargo test --all-targets` should not wait for figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("{:<58} {:>12} {:>12}", "figure", "median", "p99");
    charts();
    long_pastes();
    starts();
    keys_during_a_run();
    bytes(&[], "bytes a second, live run, 120 x 36");
    bytes(
        &["--low-bandwidth"],
        "bytes a second, live run, 120 x 36, --low-bandwidth",
    );
    idle("idle CPU, runs screen, no run (% of a core)", false);
    idle("CPU, live screen, run of 17 events/s (% of a core)", true);
    long_run();
    large_task();
}

fn row(figure: &str, mut samples: Vec<f64>, unit: &str) {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
    println!(
        "{figure:<58} {:>9.1} {unit} {:>9.1} {unit}",
        at(0.5),
        at(0.99)
    );
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A chart of a long run, in this process.
fn charts() {
    let series: Series = (1..=100_000)
        .map(|step| (step, (step % 977) as f64 / 977.0))
        .collect();
    for (figure, smoothing, steps) in [
        ("chart of 100,000 steps, smoothed", 0.9, (1, 100_000)),
        ("chart of 100,000 steps, raw", 0.0, (1, 100_000)),
        (
            "chart of 200 of 100,000 steps, smoothed",
            0.9,
            (50_000, 50_200),
        ),
    ] {
        let curve = Curve {
            label: "reward".to_owned(),
            role: Role::SeriesOne,
            series: &series,
            smoothing,
            last: 100_000,
        };
        let chart = Chart {
            curves: vec![curve],
            steps,
            ..Chart::default()
        };
        let sample = || {
            let begin = Instant::now();
            std::hint::black_box(chart.lines(&Theme::default(), 72, 12));
            milliseconds(begin.elapsed())
        };
        row(figure, (0..20).map(|_| sample()).collect(), "ms");
    }
}

/// A long text pasted into each text field and editor, and the keys that follow, each with its picture.
fn long_pastes() {
    let texts = ["long ", "x", "日本", "{\"a\": [1, 2]}\n"]
        .map(|text| text.repeat(200_000 / text.chars().count()));
    let fields = app::actions().filter(|action| action.asks || action.id == "palette");
    let mut samples = Vec::new();
    for (action, text) in fields.zip(texts.iter().cycle()) {
        let mut stage = Stage::with(120, 36, |options| {
            options.program = "/bin/false".into();
            let runs = options.here.join("runs");
            std::fs::create_dir(&runs).unwrap();
            let run = runs.join("20261120-143041-invoice-6sx3dn");
            std::os::unix::fs::symlink(harness::finished_run(), run).unwrap();
        });
        stage.act(|_| vec![Command::ShowRun(harness::finished_run())]);
        stage.send(Message::Perform(action));
        if !stage.model.takes_text() {
            continue;
        }
        let keys = "left a backspace up down home end ctrl-w pageup".split(' ');
        let key = |name| {
            let chord = Chord::parse(name).unwrap();
            Message::Key(KeyEvent::new(chord.code, chord.modifiers))
        };
        for message in std::iter::once(Message::Paste(text.clone())).chain(keys.map(key)) {
            let what = format!("{message:.60?}");
            let begin = Instant::now();
            // What it leaves to other threads is not waited for.
            _ = update::update(&mut stage.model, stage.now_ms, message);
            _ = stage.buffer();
            let pause = begin.elapsed();
            assert!(pause < MAX_PAUSE, "{}: {what} takes {pause:?}", action.id);
            samples.push(milliseconds(pause));
        }
    }
    row("a paste of 200,000 letters, a key after it", samples, "ms");
}

/// From the process's start to the first whole picture in the emulator.
fn starts() {
    let sample = || {
        let home = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        let mut session = Session::start(home.path(), &Start::PLAIN);
        session.wait_text("[1 Runs]");
        let time = begin.elapsed();
        session.send("\x03");
        session.wait_end();
        milliseconds(time)
    };
    sample();
    row(
        "start to first picture",
        (0..STARTS).map(|_| sample()).collect(),
        "ms",
    );
}

/// From a key to the picture that it causes, while a run writes as fast as it was recorded.
fn keys_during_a_run() {
    let home = tempfile::tempdir().unwrap();
    let mut run = LiveRun::begin(&home.path().join("runs"), 5);
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["--runs", "runs"],
            ..Start::PLAIN
        },
    );
    show(&mut session);
    let writing = std::thread::spawn(move || run.go_on(Duration::from_secs(14)));
    let mut samples = Vec::new();
    for round in 0..KEYS {
        let (key, text) = if round % 2 == 0 {
            ("?", "Help: Live")
        } else {
            ("\x1b", "")
        };
        let begin = Instant::now();
        session.send(key);
        session.wait_for("the answer", |session| {
            session.screen().contains("Help: Live") != text.is_empty()
        });
        samples.push(milliseconds(begin.elapsed()));
        std::thread::sleep(Duration::from_millis(30 + (round as u64 * 7) % 23));
    }
    row("key to picture, live run, 120 x 36", samples, "ms");
    writing.join().unwrap();
}

fn bytes(arguments: &[&str], figure: &str) {
    let home = tempfile::tempdir().unwrap();
    let mut run = LiveRun::begin(&home.path().join("runs"), 10);
    let arguments = [&["--runs", "runs"], arguments].concat();
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &arguments,
            ..Start::PLAIN
        },
    );
    show(&mut session);
    let (before, start) = (session.bytes(), Instant::now());
    run.go_on(Duration::from_secs(10));
    let rate = (session.bytes() - before) as f64 / start.elapsed().as_secs_f64();
    println!("{figure:<58} {rate:>10.0} B");
}

/// The live screen, with the run on it.
fn show(session: &mut Session) {
    session.wait_text("live01");
    session.send("\r");
    session.wait_text("[6 Live]");
    std::thread::sleep(Duration::from_secs(1));
}

/// Processor time over ten seconds without a key, and memory.
fn idle(figure: &str, with_run: bool) {
    let home = tempfile::tempdir().unwrap();
    let how_long = Duration::from_secs(10);
    let mut run = with_run.then(|| LiveRun::begin(&home.path().join("runs"), 5));
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["--runs", "runs"],
            ..Start::PLAIN
        },
    );
    if with_run {
        show(&mut session);
    } else {
        session.wait_text("[1 Runs]");
        std::thread::sleep(Duration::from_secs(1));
    }
    let before = processor_seconds(session.process());
    match &mut run {
        Some(run) => _ = run.go_on(how_long),
        None => std::thread::sleep(how_long),
    }
    let used = processor_seconds(session.process()) - before;
    println!(
        "{figure:<58} {:>10.2}%",
        used / how_long.as_secs_f64() * 100.0
    );
    println!(
        "{:<58} {}",
        "  its memory",
        memory(session.process(), "VmRSS")
    );
}

/// Watching a run of 100,000 steps of 8 x 8 that makes two more a second: opening it, and memory after ten seconds and
/// after going through its curves.
fn long_run() {
    const STEPS: u64 = 100_000;
    let home = tempfile::tempdir().unwrap();
    let run = LiveRun::begin(&home.path().join("runs"), 1);
    let log = run.path.join("events.jsonl");
    std::fs::remove_file(&log).unwrap();
    _ = std::fs::remove_file(run.path.join("events.index"));
    let mut seq = long_log::write_steps(&log, 1, STEPS, 1);
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["--runs", "runs"],
            ..Start::PLAIN
        },
    );
    session.wait_text("live01");
    let begin = Instant::now();
    session.send("\r");
    session.wait_text(&format!("groups of step {STEPS}"));
    println!(
        "{:<58} {:>9.1} ms",
        "opening a run of 100,000 steps, with its first listing",
        milliseconds(begin.elapsed())
    );
    for step in STEPS + 1..=STEPS + 20 {
        seq = long_log::write_steps(&log, step, step, seq);
        // Its curves, nearer and farther, as somebody looks at them.
        session.send(["c", "+", "H", "-"][(step % 4) as usize]);
        std::thread::sleep(Duration::from_millis(500));
    }
    println!(
        "{:<58} {}",
        "memory, watching it for ten seconds",
        memory(session.process(), "VmRSS")
    );
    println!(
        "{:<58} {}",
        "  at its most",
        memory(session.process(), "VmHWM")
    );
}

/// The prompts of a task of 100,000 rows: until the table stands, and until a filter has been applied.
fn large_task() {
    let home = tempfile::tempdir().unwrap();
    let task = home.path().join("tasks/large");
    program::sample_task(&task, [200, 1, 1]);
    let text = std::fs::read_to_string(task.join("train.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let numbered = |number: usize| {
        let line = lines[number % lines.len()];
        let id = format!("train-{:03}", number % lines.len() + 1);
        line.replacen(&id, &format!("row-{number:06}"), 1).replacen(
            "Turn this",
            &format!("Number {number}. Turn this"),
            1,
        )
    };
    std::fs::write(
        task.join("train.jsonl"),
        (0..100_000)
            .map(|number| numbered(number) + "\n")
            .collect::<String>(),
    )
    .unwrap();
    let begin = Instant::now();
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &[],
            ..Start::PLAIN
        },
    );
    session.wait_text("[1 Runs]");
    session.send("3");
    session.wait_text("100002 rows");
    println!(
        "{:<58} {:>9.1} ms",
        "opening a task of 100,000 rows, with the start",
        milliseconds(begin.elapsed())
    );
    let mut samples = Vec::new();
    for (filter, left) in [
        ("number 4711", "of 100002 rows"),
        ("4711", "of 100002 rows"),
        ("tag:messy", "of 100002 rows"),
    ] {
        session.send("/");
        let begin = Instant::now();
        session.send(filter);
        session.wait_text(left);
        samples.push(milliseconds(begin.elapsed()));
        session.send("\r\x1b");
        session.wait_text("▸ 100002 rows");
    }
    row("filtering 100,000 rows, with its frames", samples, "ms");
    println!("{:<58} {}", "  memory", memory(session.process(), "VmRSS"));
}

/// A line of the process's status, such as its resident memory.
fn memory(process: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default();
    line.split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Processor time that a process has used, seconds.
fn processor_seconds(process: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split(' ')
        .collect();
    let ticks: f64 = [11, 12]
        .iter()
        .filter_map(|index| fields.get(*index)?.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}
