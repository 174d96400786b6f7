//! `grpo-tui bench`: what this machine does, as JSON or as a table.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Subcommand;

use super::{Failure, Outcome, train};
use crate::hub::find_model;
use crate::kernels::device::Engine;
use crate::rollout::Threads;
use crate::run::RunPlaces;
use crate::task::Task;
use crate::train::{Ended, Measurement, Report, measure_cpu};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Products, prefill, decode and training of the embedded model's shape on the processor
    Cpu {
        /// Another model's shape: a folder or a Hugging Face name
        #[arg(long, default_value = "tiny")]
        shape: String,
        /// Threads (0 takes every core)
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// Leave out the whole run of the embedded task (about a minute)
        #[arg(long)]
        no_run: bool,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let Command::Cpu { shape, threads, no_run, json } = arguments.command;
    let threads = Threads::new(threads)?;
    let config = find_model(&shape)?.config()?;
    // The run goes first: the process's peak memory is then the run's own.
    let run = if no_run { Vec::new() } else { whole_run(threads.count())? };
    let mut results = measure_cpu(&config, &threads)?;
    results.extend(run);
    let device = format!("cpu, {} threads", threads.count());
    if json {
        println!("{}", serde_json::json!({ "device": device, "shape": shape, "results": results }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{device}, shape {shape}");
    for Measurement { name, shape, batch, value, unit, of_limit } in results {
        let share = of_limit.map_or_else(String::new, |share| format!("{:3.0} % of the measured limit", 100.0 * share));
        let digits = if value.abs() < 10.0 { 3 } else { 0 };
        println!("{name:38} {shape:38} batch {batch:<4} {value:>10.digits$} {unit:9} {share}");
    }
    Ok(ExitCode::SUCCESS)
}

/// `train invoice` from base proof to final proof in a folder that is removed again, and this process's peak memory.
fn whole_run(threads: usize) -> Result<Vec<Measurement>, Failure> {
    let folder = std::env::temp_dir().join(format!("grpo-tui-bench-{}", std::process::id()));
    let places = RunPlaces::discover(Some(&folder), Path::new("/"));
    let report = one_run(&places, threads);
    let _ = std::fs::remove_dir_all(&folder);
    let report = report?;
    let batch = 64;
    let figure = |name: &str, value: f64, unit: &str| Measurement {
        name: format!("run, {name}"),
        shape: "train invoice --model tiny".to_owned(),
        batch,
        value,
        unit: unit.to_owned(),
        of_limit: None,
    };
    Ok(vec![
        figure("base proof to final proof", report.seconds, "s"),
        figure("valid before", report.base.valid, "share"),
        figure("valid after", report.trained.valid, "share"),
        figure("exact match after", report.trained.exact.unwrap_or(0.0), "share"),
        figure("exact McNemar p", report.comparison.mcnemar_p, "p"),
        figure("peak memory", peak_memory_bytes().unwrap_or(0) as f64 / 1e6, "MB"),
    ])
}

fn one_run(places: &RunPlaces, threads: usize) -> Result<Report, Failure> {
    let mut arguments = train::Arguments::default();
    arguments.set.push(format!("threads={threads}"));
    let run = train::create(&arguments, &Task::embedded("invoice")?, places)?;
    match crate::train::train(&run, places, &Engine::cpu(), &AtomicBool::new(false), &mut |_| ())? {
        Ended::Finished(report) => Ok(*report),
        Ended::Interrupted { step } => Err(Failure::failed(format!("the run stopped at step {step}"))),
    }
}

/// The most memory that this process has held (Linux's VmHWM).
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}
