//! Opening and following a run of 100,000 steps with 8 x 8 groups:
//! `cargo bench --no-default-features --features view --bench history [-- STEPS]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_debug_implementations
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use grpo_tui::run::{Follower, RunState};

#[allow(dead_code)]
#[path = "../tests/run_directory/long_log.rs"]
mod long_log;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["open", run] => open(Path::new(run)),
        ["follow", run, seconds] => follow(Path::new(run), seconds.parse().unwrap()),
        rest => measure(rest.first().map_or(100_000, |steps| steps.parse().unwrap())),
    }
}

fn measure(steps: u64) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let start = Instant::now();
    let seq = long_log::write_steps(&run.join("events.jsonl"), 1, steps, 1);
    let bytes = std::fs::metadata(run.join("events.jsonl")).unwrap().len();
    println!(
        "{steps} steps: a log of {:.1} MB, written in {:.1} s",
        bytes as f64 / 1e6,
        start.elapsed().as_secs_f64()
    );
    print!("without an index: ");
    itself(&["open", run.to_str().unwrap()]);
    println!(
        "the index: {:.1} MB",
        std::fs::metadata(run.join("events.index")).unwrap().len() as f64 / 1e6
    );
    for _ in 0..3 {
        print!("with the index: ");
        itself(&["open", run.to_str().unwrap()]);
    }
    // A fast run: two steps a second for 20 seconds.
    let path = run.join("events.jsonl");
    let writer = std::thread::spawn(move || {
        let mut seq = seq;
        for step in 1..=40 {
            seq = long_log::write_steps(&path, steps + step, steps + step, seq);
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    print!("followed live, 2 steps a second: ");
    itself(&["follow", run.to_str().unwrap(), "18"]);
    writer.join().unwrap();
}

fn itself(arguments: &[&str]) {
    use std::io::Write;
    std::io::stdout().flush().unwrap();
    assert!(
        Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

fn open(run: &Path) {
    let (start, before) = (Instant::now(), processor_seconds());
    let state = RunState::read(run).unwrap();
    let (wall, processor) = (
        start.elapsed().as_secs_f64() * 1e3,
        (processor_seconds() - before) * 1e3,
    );
    println!(
        "opened in {wall:.0} ms ({processor:.0} ms of a core), {:.1} MB at most, step {}",
        peak_megabytes(),
        state.last_step
    );
}

fn follow(run: &Path, seconds: u64) {
    let (mut state, mut follower) = Follower::open(run).unwrap();
    let (start, before, mut batches, first) =
        (Instant::now(), processor_seconds(), 0, state.last_step);
    while start.elapsed() < Duration::from_secs(seconds) {
        let batch = follower.next(Duration::from_secs(1)).unwrap();
        batches += usize::from(!batch.is_empty());
        state.apply(batch);
    }
    let share = 100.0 * (processor_seconds() - before) / start.elapsed().as_secs_f64();
    let steps = state.last_step - first;
    println!(
        "{share:.2}% of a core, {batches} batches, {steps} steps, {:.1} MB at most",
        peak_megabytes()
    );
}

fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kilobytes| kilobytes.parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        * 1024.0
        / 1e6
}

/// User and system time of this process so far, by the scheduler's own count.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let of_task = |text: &str| {
        text.split_whitespace()
            .next()
            .and_then(|nanoseconds| nanoseconds.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let tasks = std::fs::read_dir("/proc/self/task").map(|tasks| {
        tasks
            .flatten()
            .map(|task| {
                of_task(&std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default())
            })
            .sum::<f64>()
    });
    tasks.unwrap_or_else(|_| of_task(&text)) / 1e9
}
