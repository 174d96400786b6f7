//! Computing a run as its worker: the devices it may take, the engine on the one it got, and the training with the worker's controls.

use super::Failure;
use super::progress::say;
use crate::kernels::device::Engine;
use crate::run::{Device, DeviceChoice, Gpu, RunDirectory, RunFolders, Slot};

/// Where a worker finds the models that its run names: from the run's own folder, whatever the folder of whoever started it.
pub(super) fn places(run: &RunDirectory) -> RunFolders {
    RunFolders::discover(None, run.path())
}

/// The devices of which the run may take one. Nothing is opened on them yet: they may be another run's.
pub(super) fn devices(compute: DeviceChoice) -> Result<Vec<Device>, Failure> {
    let gpus = Engine::gpus();
    match compute {
        DeviceChoice::Cpu => Ok(vec![Device::Cpu]),
        DeviceChoice::Any if gpus == 0 => {
            if let Some(why) = Engine::why_no_gpu() {
                say(&format!("using the CPU, no usable GPU: {why}"));
            }
            Ok(vec![Device::Cpu])
        }
        DeviceChoice::Any => Ok((0..gpus).map(gpu).collect()),
        DeviceChoice::Gpu(ordinal) if ordinal < gpus => Ok(vec![gpu(ordinal)]),
        // The engine says best why there is no such GPU.
        DeviceChoice::Gpu(ordinal) => Engine::gpu(ordinal).map(|_| vec![gpu(ordinal)]).map_err(Failure::from),
    }
}

/// The engine on a device that was waited for.
pub(super) fn engine(slot: &Slot) -> Result<Engine, Failure> {
    match slot.device() {
        Device::Cpu => Ok(Engine::cpu()),
        Device::Gpu { ordinal, .. } => Ok(Engine::gpu(*ordinal)?),
    }
}

fn gpu(ordinal: usize) -> Device {
    // Where the driver's library is missing, the number stands for the GPU: all users of the host must then see its GPUs in one order.
    Device::Gpu { ordinal, uuid: Gpu::of_ordinal(ordinal).map_or_else(String::new, |gpu| gpu.uuid) }
}
