//! Where a command computes: `--gpu N`, the CPU where there is none.

use super::Failure;
use super::progress::say;
use crate::kernels::device::Engine;
use crate::run::{DeviceChoice, Gpu};

#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct DeviceArguments {
    /// GPU to use, as CUDA numbers it (needs the feature `cuda`) [default: 0, if there is one]
    #[arg(long, value_name = "N", conflicts_with = "cpu")]
    gpu: Option<usize>,
    /// Use the CPU
    #[arg(long)]
    cpu: bool,
}

impl DeviceArguments {
    /// The same for a worker.
    pub(super) fn compute(self) -> DeviceChoice {
        DeviceChoice::asked(self.gpu, self.cpu)
    }

    /// The engine that the user asked for; where nothing was asked, the first GPU, else the CPU.
    pub(super) fn engine(self) -> Result<Engine, Failure> {
        match self.gpu {
            Some(ordinal) => Ok(Engine::gpu(ordinal)?),
            None if self.cpu => Ok(Engine::cpu()),
            None if Engine::gpus() == 0 => {
                if let Some(why) = Engine::why_no_gpu() {
                    say(&format!("using the CPU, no usable GPU: {why}"));
                }
                Ok(Engine::cpu())
            }
            None => Ok(Engine::gpu(0)?),
        }
    }

    /// Says who else uses the GPU that [`DeviceArguments::engine`] will open; asked before, so that this process is not among them.
    pub(super) fn warn_if_in_use(self) {
        let is_gpu = self.gpu.is_some() || (!self.cpu && Engine::gpus() > 0);
        let in_use = if is_gpu { Gpu::of_ordinal(self.gpu.unwrap_or(0)).and_then(|gpu| gpu.in_use()) } else { None };
        if let Some(text) = in_use {
            say(&format!("{text}; both will be slower"));
        }
    }

    /// As [`DeviceArguments::engine`], but the CPU only where it was asked for.
    pub(super) fn gpu_or_asked(self) -> Result<Engine, Failure> {
        if self.cpu { Ok(Engine::cpu()) } else { Ok(Engine::gpu(self.gpu.unwrap_or(0))?) }
    }
}
