//! GPUs reported by NVML, the driver's library, which is loaded at run time; without it there are
//! none.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;

use crate::run::record::events::Device;

#[derive(Debug)]
pub struct Gpu {
    nvml: Nvml,
    /// NVML's index, which differs from CUDA's if `CUDA_VISIBLE_DEVICES` is set.
    index: u32,
    /// Name such as `NVIDIA H200`.
    pub name: String,
    /// `GPU-…`; empty if the driver does not report it.
    pub uuid: String,
    pub driver: String,
}

/// Another process that computes on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuProcess {
    /// Process id outside of containers.
    pub pid: u32,
    /// `None` if the driver does not report it.
    pub memory_bytes: Option<u64>,
}

impl Gpu {
    /// The GPU with index `ordinal` among those that CUDA exposes to this process; `None` without
    /// NVML or such a GPU.
    pub fn by_ordinal(ordinal: usize) -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        let uuids: Vec<String> = (0..nvml.device_count().ok()?)
            .map(|index| uuid(&nvml, index))
            .collect();
        let setting = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let index = *visible(setting.as_deref(), &uuids).get(ordinal)?;
        Self::at(nvml, index as u32)
    }

    pub fn by_uuid(expected: &str) -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        let index = (0..nvml.device_count().ok()?).find(|&index| uuid(&nvml, index) == expected)?;
        Self::at(nvml, index)
    }

    fn at(nvml: Nvml, index: u32) -> Option<Self> {
        let name = nvml
            .device_by_index(index)
            .ok()?
            .name()
            .unwrap_or_else(|_| "unnamed GPU".to_owned());
        let driver = nvml.sys_driver_version().unwrap_or_default();
        Some(Self {
            index,
            name,
            uuid: uuid(&nvml, index),
            driver,
            nvml,
        })
    }

    pub fn condition(&self) -> Device {
        let mut found = Device {
            device: format!("{} {}", self.name, self.uuid),
            index: Some(self.index),
            ..Device::default()
        };
        let Ok(device) = self.nvml.device_by_index(self.index) else {
            return found;
        };
        found.utilisation = device
            .utilization_rates()
            .ok()
            .map(|rates| f64::from(rates.gpu) / 100.0);
        if let Ok(memory) = device.memory_info() {
            (found.memory_used_bytes, found.memory_total_bytes) =
                (Some(memory.used), Some(memory.total));
        }
        found.power_watts = device
            .power_usage()
            .ok()
            .map(|milliwatts| f64::from(milliwatts) / 1000.0);
        found.temperature_celsius = device
            .temperature(TemperatureSensor::Gpu)
            .ok()
            .map(f64::from);
        found
    }

    /// Other processes that compute on the GPU. In a container the driver may report none, or this
    /// one under another id.
    pub fn others(&self) -> Vec<GpuProcess> {
        let Ok(device) = self.nvml.device_by_index(self.index) else {
            return Vec::new();
        };
        let found = device
            .running_compute_processes()
            .unwrap_or_default()
            .into_iter()
            .map(|process| GpuProcess {
                pid: process.pid,
                memory_bytes: match process.used_gpu_memory {
                    UsedGpuMemory::Used(bytes) => Some(bytes),
                    UsedGpuMemory::Unavailable => None,
                },
            });
        found
            .filter(|process| process.pid != std::process::id())
            .collect()
    }

    /// Describes who else uses the GPU; `None` if it is free. Must be called before this process
    /// opens it.
    pub fn in_use(&self) -> Option<String> {
        in_use(
            &self.name,
            &self.others(),
            self.condition().memory_used_bytes,
        )
    }
}

/// Memory in use on an idle GPU, by the driver, with a margin.
const IDLE_BYTES: u64 = 1 << 30;

fn in_use(name: &str, others: &[GpuProcess], used_bytes: Option<u64>) -> Option<String> {
    let mebibytes = |bytes: u64| bytes >> 20;
    if others.is_empty() {
        let used = used_bytes.filter(|&bytes| bytes > IDLE_BYTES)?;
        return Some(format!(
            "{name} is in use: {} MiB are taken by processes that are not visible from here",
            mebibytes(used)
        ));
    }
    let one = |process: &GpuProcess| match process.memory_bytes {
        Some(bytes) => format!("process {} uses {} MiB", process.pid, mebibytes(bytes)),
        None => format!("process {}", process.pid),
    };
    Some(format!(
        "{name} is in use: {}",
        others.iter().map(one).collect::<Vec<_>>().join(", ")
    ))
}

fn uuid(nvml: &Nvml, index: u32) -> String {
    nvml.device_by_index(index)
        .and_then(|device| device.uuid())
        .unwrap_or_default()
}

/// The GPUs that CUDA exposes for a value of `CUDA_VISIBLE_DEVICES`, in CUDA's order, as indices
/// into `uuids`. The value lists indices or unique prefixes of UUIDs, up to the first invalid
/// entry; without a value, all are exposed.
fn visible(setting: Option<&str>, uuids: &[String]) -> Vec<usize> {
    let Some(setting) = setting else {
        return (0..uuids.len()).collect();
    };
    let place = |entry: &str| {
        let entry = entry.trim();
        if let Ok(number) = entry.parse::<usize>() {
            return (number < uuids.len()).then_some(number);
        }
        let mut fitting =
            (0..uuids.len()).filter(|&index| !entry.is_empty() && uuids[index].starts_with(entry));
        fitting.next().filter(|_| fitting.next().is_none())
    };
    setting.split(',').map_while(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_cudas() {
        let uuids = ["GPU-aa11", "GPU-aa22", "GPU-bb33"].map(str::to_owned);
        let check = |setting, expected: &[usize]| {
            assert_eq!(visible(setting, &uuids), expected, "{setting:?}")
        };
        check(None, &[0, 1, 2]);
        check(Some("2,0"), &[2, 0]);
        check(Some(" 1 "), &[1]);
        check(Some("GPU-bb,GPU-aa11"), &[2, 0]);
        // An ambiguous, unknown or empty entry, or a part of a GPU, ends the list.
        check(Some("1,GPU-aa,0"), &[1]);
        check(Some("0,7,1"), &[0]);
        check(Some("-1"), &[]);
        check(Some(""), &[]);
        check(Some("MIG-1"), &[]);
    }

    #[test]
    fn others_are_named() {
        let check = |others: &[GpuProcess], used, expected: Option<&str>| {
            let found = in_use("H200", others, used);
            match expected {
                None => assert_eq!(found, None),
                Some(part) => {
                    assert!(
                        found.as_deref().is_some_and(|text| text.contains(part)),
                        "{found:?} lacks {part:?}"
                    )
                }
            }
        };
        check(&[], Some(600 << 20), None);
        check(&[], None, None);
        check(&[], Some(3 << 30), Some("3072 MiB are taken"));
        let others = [
            GpuProcess {
                pid: 7,
                memory_bytes: Some(5 << 20),
            },
            GpuProcess {
                pid: 8,
                memory_bytes: None,
            },
        ];
        check(
            &others,
            Some(0),
            Some("H200 is in use: process 7 uses 5 MiB, process 8"),
        );
    }

    #[test]
    fn a_gpu_that_is_not_there_is_none() {
        assert!(Gpu::by_uuid("GPU-of-nobody").is_none() && Gpu::by_ordinal(usize::MAX).is_none());
    }
}
