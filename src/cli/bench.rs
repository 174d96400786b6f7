//! `grpo-tui bench`: what this machine does, as JSON or as a table.

use std::process::ExitCode;

use clap::Subcommand;

use super::Outcome;
use crate::hub::find_model;
use crate::rollout::Threads;
use crate::train::{Measurement, measure_cpu};

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
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let Command::Cpu { shape, threads, json } = arguments.command;
    let threads = Threads::new(threads)?;
    let config = find_model(&shape)?.config()?;
    let results = measure_cpu(&config, &threads)?;
    let device = format!("cpu, {} threads", threads.count());
    if json {
        println!("{}", serde_json::json!({ "device": device, "shape": shape, "results": results }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{device}, shape {shape}");
    for Measurement { name, shape, batch, value, unit, of_limit } in results {
        let share = of_limit.map_or_else(String::new, |share| format!("{:3.0} % of the measured limit", 100.0 * share));
        println!("{name:38} {shape:38} batch {batch:<4} {value:>10.0} {unit:9} {share}");
    }
    Ok(ExitCode::SUCCESS)
}
