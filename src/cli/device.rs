//! Where a command computes: `--gpu N`, the CPU where there is none.

use super::Failure;
use crate::kernels::device::Engine;

#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct DeviceArguments {
    /// Compute on this GPU, of those that CUDA shows this process (needs a build with the feature `cuda`) [default: 0 where there is one]
    #[arg(long, value_name = "N", conflicts_with = "cpu")]
    gpu: Option<usize>,
    /// Compute on the CPU, also where there is a GPU
    #[arg(long)]
    cpu: bool,
}

impl DeviceArguments {
    /// The engine that the user asked for; where nothing was asked, the first GPU, else the CPU.
    pub(super) fn engine(self) -> Result<Engine, Failure> {
        match self.gpu {
            Some(ordinal) => Ok(Engine::gpu(ordinal)?),
            None if self.cpu || Engine::gpus() == 0 => Ok(Engine::cpu()),
            None => Ok(Engine::gpu(0)?),
        }
    }

    /// As [`DeviceArguments::engine`], but the CPU only where it was asked for.
    pub(super) fn gpu_or_asked(self) -> Result<Engine, Failure> {
        if self.cpu { Ok(Engine::cpu()) } else { Ok(Engine::gpu(self.gpu.unwrap_or(0))?) }
    }
}
