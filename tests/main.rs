//! One test binary: each module is one kind of promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_debug_implementations
)]

mod architecture;
#[cfg(feature = "engine")]
mod bad_input;
#[cfg(feature = "engine")]
mod command_line;
#[cfg(feature = "engine")]
mod constrained;
#[cfg(feature = "engine")]
mod data_problems;
mod dataset;
mod endpoints;
#[cfg(feature = "engine")]
mod failpoints;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(feature = "engine")]
mod gradients;
#[cfg(feature = "engine")]
mod losses;
#[cfg(feature = "engine")]
mod mcp;
#[cfg(feature = "engine")]
mod parity;
#[cfg(feature = "engine")]
mod planning;
mod judge;
mod looks;
mod program;
mod properties;
#[cfg(feature = "engine")]
mod prove;
mod pull;
#[cfg(feature = "engine")]
mod python_package;
#[cfg(feature = "engine")]
mod ranks;
#[cfg(feature = "engine")]
mod rollout;
mod run_directory;
mod scoring;
#[cfg(feature = "engine")]
mod serve;
#[cfg(feature = "view")]
mod shell_completion;
#[cfg(feature = "engine")]
mod slurm;
#[cfg(feature = "engine")]
mod small_disk;
#[cfg(feature = "engine")]
mod sweeps;
#[cfg(feature = "engine")]
mod training;
#[cfg(feature = "engine")]
mod untrusted_files;
#[cfg(all(feature = "engine", feature = "view"))]
mod untrusted_text;
#[cfg(feature = "view")]
mod view;
