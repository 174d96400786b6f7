//! `grpo-tui rank`, which rank 0 of a run starts: computes what it is asked, writes nothing.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use super::{Failure, Outcome};
use crate::kernels::device::Engine;
use crate::ranks::Follower;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where rank 0 waits
    #[arg(long, value_name = "HOST:PORT")]
    connect: String,
    /// The number of this rank
    #[arg(long, value_name = "N")]
    number: usize,
    /// Compute on the CPU
    #[arg(long)]
    cpu: bool,
}

/// Standard input has the secret by which rank 0 knows this process.
pub(super) fn run(arguments: Arguments) -> Outcome {
    if !arguments.cpu {
        return Err(Failure::usage("this version computes ranks on the CPU: add --cpu"));
    }
    ignore_stop_signals()?;
    let mut secret = String::new();
    std::io::stdin().take(1024).read_to_string(&mut secret)?;
    follow(&Follower::connect(&arguments.connect, arguments.number, secret)?)
}

/// Carries out what rank 0 commands.
pub(super) fn follow(follower: &Follower) -> Outcome {
    crate::train::follow(follower, &Engine::cpu())?;
    Ok(ExitCode::SUCCESS)
}

/// Launchers and terminals signal all ranks; rank 0 decides, and this one ends with its connection.
pub(super) fn ignore_stop_signals() -> Result<(), Failure> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}
