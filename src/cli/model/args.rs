//! What `check` and `log-probs` are both told: a model whose log-probs are held against another program's, and how they are computed.

use crate::cli::Failure;
use crate::cli::device::DeviceArguments;
use crate::kernels::device::Engine;

#[derive(Debug, clap::Args)]
pub(super) struct ModelArguments {
    /// A model: a folder, a Hugging Face name, `tiny`, or a run
    pub(super) model: String,
    #[command(flatten)]
    device: DeviceArguments,
    /// Compute in f32 on a GPU too (default bf16): stricter, twice the memory
    #[arg(long = "f32")]
    in_f32: bool,
    /// One JSON document on stdout
    #[arg(long)]
    pub(super) json: bool,
}

impl ModelArguments {
    pub(super) fn engine(&self) -> Result<Engine, Failure> {
        let engine = self.device.engine()?;
        Ok(if self.in_f32 { engine.in_f32() } else { engine })
    }
}

/// Refuses the first token that a model with so many does not have.
pub(super) fn check_vocabulary(token_ids: &[u32], vocabulary: usize) -> Result<(), Failure> {
    match token_ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(id) => Err(Failure::usage(format!("token {id} is outside the model's vocabulary; its ids are 0 to {}", vocabulary - 1))),
        None => Ok(()),
    }
}
