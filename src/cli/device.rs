//! Device options: `--gpu N`, `--cpu`, and the devices that a worker may take.

use super::Failure;
use super::output::eprint_line;
use crate::kernels::device::Engine;
use crate::run::{Device, DeviceChoice, Gpu, RunDirectory, RunFolders, Slot};

#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct DeviceArguments {
    /// GPU index as CUDA numbers them; needs a build with CUDA [default: 0, else the CPU]
    #[arg(long, value_name = "N", conflicts_with = "cpu")]
    gpu: Option<usize>,
    /// Use the CPU
    #[arg(long)]
    cpu: bool,
}

impl DeviceArguments {
    /// For a worker.
    pub(super) fn compute(self) -> DeviceChoice {
        DeviceChoice::from_flags(self.gpu, self.cpu)
    }

    /// The requested engine; by default the first GPU, else the CPU.
    pub(super) fn engine(self) -> Result<Engine, Failure> {
        match self.gpu {
            Some(ordinal) => Ok(Engine::gpu(ordinal)?),
            None if self.cpu => Ok(Engine::cpu()),
            None if Engine::gpus() == 0 => {
                if let Some(why) = Engine::why_no_gpu() {
                    eprint_line(&format!("using the CPU, no usable GPU: {why}"));
                }
                Ok(Engine::cpu())
            }
            None => Ok(Engine::gpu(0)?),
        }
    }

    /// Warns if others use the GPU that [`DeviceArguments::engine`] will open; called before it, so that this process
    /// is not counted.
    pub(super) fn warn_if_in_use(self) {
        let is_gpu = self.gpu.is_some() || (!self.cpu && Engine::gpus() > 0);
        let in_use = if is_gpu { Gpu::of_ordinal(self.gpu.unwrap_or(0)).and_then(|gpu| gpu.in_use()) } else { None };
        if let Some(text) = in_use {
            eprint_line(&format!("{text}; both will be slower"));
        }
    }

    /// As [`DeviceArguments::engine`], but uses the CPU only on request.
    pub(super) fn gpu_or_asked(self) -> Result<Engine, Failure> {
        if self.cpu { Ok(Engine::cpu()) } else { Ok(Engine::gpu(self.gpu.unwrap_or(0))?) }
    }
}

/// Run folders for models named in the run, resolved from the run's own folder.
pub(super) fn places(run: &RunDirectory) -> RunFolders {
    RunFolders::discover(None, run.path())
}

/// The devices that the run may use. They are not opened, since other runs may hold them.
pub(super) fn devices(compute: DeviceChoice) -> Result<Vec<Device>, Failure> {
    let gpus = Engine::gpus();
    match compute {
        DeviceChoice::Cpu => Ok(vec![Device::Cpu]),
        DeviceChoice::Any if gpus == 0 => {
            if let Some(why) = Engine::why_no_gpu() {
                eprint_line(&format!("using the CPU, no usable GPU: {why}"));
            }
            Ok(vec![Device::Cpu])
        }
        DeviceChoice::Any => Ok((0..gpus).map(gpu).collect()),
        DeviceChoice::Gpu(ordinal) if ordinal < gpus => Ok(vec![gpu(ordinal)]),
        // The engine's error explains why there is no such GPU.
        DeviceChoice::Gpu(ordinal) => Engine::gpu(ordinal).map(|_| vec![gpu(ordinal)]).map_err(Failure::from),
    }
}

pub(super) fn engine(slot: &Slot) -> Result<Engine, Failure> {
    match slot.device() {
        Device::Cpu => Ok(Engine::cpu()),
        Device::Gpu { ordinal, .. } => Ok(Engine::gpu(*ordinal)?),
    }
}

fn gpu(ordinal: usize) -> Device {
    // Without the driver's library the ordinal identifies the GPU: all users of the host must then see its GPUs in the
    // same order.
    Device::Gpu { ordinal, uuid: Gpu::of_ordinal(ordinal).map_or_else(String::new, |gpu| gpu.uuid) }
}
