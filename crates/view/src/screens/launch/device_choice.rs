//! The devices of this machine: names, memory, the runs that use them and wait for them.

use std::path::{Path, PathBuf};

use crate::format::{bytes, percent_short};
use crate::run::{Device, DeviceChoice, Gpu, Holder, holder, queue_length, slots_folder};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub compute: DeviceChoice,
    /// `the CPU`, `GPU 0 NVIDIA H200`.
    pub title: String,
    /// The driver's report: memory, other processes.
    pub condition: String,
    pub holder: Option<Holder>,
    /// Runs that wait for it.
    pub waiting: usize,
}

impl Choice {
    /// The queue that a run started now would join.
    pub fn queue(&self) -> String {
        match (&self.holder, self.waiting) {
            (None, 0) => "free".to_owned(),
            (None, waiting) => format!("{waiting} queued; a new run is number {}", waiting + 1),
            (Some(holder), waiting) => format!(
                "in use by {holder}; a new run is number {} in the queue",
                waiting + 1
            ),
        }
    }
}

pub(super) fn choices(folder: Option<PathBuf>) -> Vec<Choice> {
    // Without a folder of locks no device can be in use; a launch reports what is wrong with it.
    let folder = folder.or_else(|| slots_folder().ok()).unwrap_or_default();
    let mut found = vec![choice(
        &folder,
        DeviceChoice::Cpu,
        &Device::Cpu,
        "CPU".to_owned(),
        cores(),
    )];
    for ordinal in 0.. {
        let Some(gpu) = Gpu::by_ordinal(ordinal) else {
            break;
        };
        let device = Device::Gpu {
            ordinal,
            uuid: gpu.uuid.clone(),
        };
        found.push(choice(
            &folder,
            DeviceChoice::Gpus(vec![ordinal]),
            &device,
            format!("GPU {ordinal} {}", gpu.name),
            condition(&gpu),
        ));
    }
    found
}

fn choice(
    folder: &Path,
    compute: DeviceChoice,
    device: &Device,
    title: String,
    condition: String,
) -> Choice {
    Choice {
        compute,
        title,
        condition,
        holder: holder(folder, device),
        waiting: queue_length(folder, device),
    }
}

fn cores() -> String {
    std::thread::available_parallelism()
        .map_or_else(|_| String::new(), |cores| format!("{cores} threads"))
}

fn condition(gpu: &Gpu) -> String {
    let now = gpu.condition();
    let memory = now.memory_used_bytes.zip(now.memory_total_bytes);
    let memory = memory.map(|(used, total)| format!("{} of {} in use", bytes(used), bytes(total)));
    let busy = now
        .utilisation
        .map(|share| format!("{} utilization", percent_short(share)));
    let strangers = gpu.others().len();
    let strangers = (strangers > 0).then(|| format!("{strangers} other processes"));
    memory
        .into_iter()
        .chain(busy)
        .chain(strangers)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_said_in_a_sentence() {
        let check = |process: Option<u32>, waiting, expected: &str| {
            let choice = Choice {
                compute: DeviceChoice::Cpu,
                title: String::new(),
                condition: String::new(),
                holder: process.map(|_| Holder {
                    process,
                    user: "root".to_owned(),
                    since: "14:03:59".to_owned(),
                }),
                waiting,
            };
            assert_eq!(choice.queue(), expected);
        };
        check(None, 0, "free");
        check(
            Some(7),
            2,
            "in use by process 7 (root) since 14:03:59; a new run is number 3 in the queue",
        );
        check(None, 1, "1 queued; a new run is number 2");
    }
}
