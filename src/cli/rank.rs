//! `grpo-tui rank`, which rank 0 of a run starts, and the ranks of a launcher: compute the run of rank 0, write
//! nothing.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::device::{DeviceArguments, uuid, wait_for_one};
use super::{Failure, Outcome};
use crate::kernels::device::Engine;
use crate::ranks::{Placement, Ranks};
use crate::run::{Device, DeviceChoice};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where rank 0 waits
    #[arg(long, value_name = "HOST:PORT")]
    connect: String,
    /// The number of this rank
    #[arg(long, value_name = "N")]
    number: usize,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Standard input has the secret by which rank 0 knows this process. The slot of its device is rank 0's.
pub(super) fn run(arguments: Arguments) -> Outcome {
    ignore_stop_signals()?;
    let mut secret = String::new();
    std::io::stdin().take(1024).read_to_string(&mut secret)?;
    let ranks = Ranks::connect(&arguments.connect, arguments.number, secret, "")?;
    follow(ranks, || arguments.device.engine())
}

/// Another rank than 0 of a launcher, on a device of its own.
pub(super) fn launched(placement: &Placement, runs: &Path, device: &Device) -> Outcome {
    ignore_stop_signals()?;
    let ranks = placement.follow(runs, uuid(device))?;
    let Some(ordinal) = device.ordinal() else {
        return follow(ranks, || Ok(Engine::cpu()));
    };
    let is_lost = ranks.loss();
    match wait_for_one(std::slice::from_ref(device), is_lost)? {
        Some(_slot) => follow(ranks, || Ok(Engine::gpu(ordinal)?)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The device of a launcher's rank: with several GPUs a host the one of its local number.
pub(super) fn device_of(
    placement: &Placement,
    asked: &DeviceChoice,
) -> Result<DeviceChoice, Failure> {
    match (asked, Engine::gpus()) {
        (DeviceChoice::Any, shown @ 1..) => Ok(DeviceChoice::Gpus(vec![placement.gpu(shown)?])),
        (DeviceChoice::Gpus(gpus), _) if placement.here > 1 || gpus.len() > 1 => {
            Err(Failure::usage(
                "--gpu, --gpus: each rank of a launcher takes its own GPU: omit the option",
            ))
        }
        _ => Ok(asked.clone()),
    }
}

fn follow(ranks: Ranks, engine: impl FnOnce() -> Result<Engine, Failure>) -> Outcome {
    ranks.end_with_rank_0()?;
    let engine = engine().inspect_err(|failure| ranks.fail(&failure.message))?;
    crate::train::follow(ranks, &engine)?;
    Ok(ExitCode::SUCCESS)
}

/// Launchers and terminals signal all ranks; rank 0 decides, and this one ends with its connection.
fn ignore_stop_signals() -> Result<(), Failure> {
    for signal in crate::run::stop_signals() {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}
