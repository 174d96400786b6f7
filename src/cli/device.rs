//! Device options: `--gpu N`, `--gpus`, `--cpu`, and the devices that a worker may take.

use std::ops::ControlFlow;
use std::str::FromStr;

use super::Failure;
use super::output::eprint_line;
use crate::kernels::device::Engine;
use crate::kernels::nccl;
use crate::run::{Device, DeviceChoice, Gpu, RunDirectory, RunFolders, Slot, slots_folder};
use crate::train::RankSource;

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
    pub(super) fn compute(self) -> DeviceChoice {
        DeviceChoice::from_flags(self.gpu, self.cpu)
    }

    pub(super) fn is_cpu(self) -> bool {
        self.cpu
    }

    /// The requested engine; by default the first GPU, else the CPU.
    pub(super) fn engine(self) -> Result<Engine, Failure> {
        engine_of(&self.compute())
    }
}

/// `--gpu-memory`: whole GiB.
pub(super) fn gib(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("GiB").unwrap_or(text).trim();
    let found = number.parse().ok().filter(|gib| (1..=1024).contains(gib));
    found.ok_or_else(|| "give whole GiB from 1 to 1024, such as 22GiB".to_owned())
}

/// `--gpus`: a rank on each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gpus {
    All,
    Count(usize),
    List(Vec<usize>),
}

impl FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let expected = || "give a count, `all` or indices such as 0,2,3".to_owned();
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some(count) = number(text) {
            // As many as there may be ranks.
            return if (1..=1024).contains(&count) {
                Ok(Self::Count(count))
            } else {
                Err(expected())
            };
        }
        let list = text
            .split(',')
            .map(number)
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(expected)?;
        match list
            .iter()
            .enumerate()
            .find(|(index, gpu)| list[..*index].contains(gpu))
        {
            Some((_, gpu)) => Err(format!("GPU {gpu} is named twice")),
            None => Ok(Self::List(list)),
        }
    }
}

impl Gpus {
    /// The GPUs of which a run takes as many as the number beside them; there are as many.
    pub(super) fn choose(&self) -> Result<(DeviceChoice, usize), Failure> {
        let shown = Engine::usable_gpus().and_then(|count| match count {
            0 => Err("no GPU is visible to CUDA".to_owned()),
            count => Ok(count),
        });
        let shown = shown
            .map_err(|why| Failure::failed(format!("--gpus: {why}, or compute with --cpu")))?;
        let (gpus, count) = match self {
            Self::All => ((0..shown).collect(), shown),
            Self::Count(count) => ((0..shown).collect(), *count),
            Self::List(list) => (list.clone(), list.len()),
        };
        let compute = DeviceChoice::Gpus(gpus);
        slots_of(count, &devices(&compute)?)?;
        Ok((compute, count))
    }
}

/// The GPUs that this process may use; says why where there is none.
fn shown_gpus() -> usize {
    let shown = Engine::gpus();
    if shown == 0
        && let Some(why) = Engine::why_no_gpu()
    {
        eprint_line(&format!("using the CPU, no usable GPU: {why}"));
    }
    shown
}

/// The engine of a device that is not waited for: the first of those that may be used.
pub(super) fn engine_of(compute: &DeviceChoice) -> Result<Engine, Failure> {
    match compute {
        DeviceChoice::Gpus(gpus) => Ok(Engine::gpu(gpus.first().copied().unwrap_or(0))?),
        DeviceChoice::Any if shown_gpus() > 0 => Ok(Engine::gpu(0)?),
        DeviceChoice::Any | DeviceChoice::Cpu => Ok(Engine::cpu()),
    }
}

/// Run folders for models named in the run, resolved from the run's own folder.
pub(super) fn run_folders(run: &RunDirectory) -> RunFolders {
    RunFolders::discover(None, run.path())
}

/// The devices that the run may use. They are not opened, since other runs may hold them.
pub(super) fn devices(compute: &DeviceChoice) -> Result<Vec<Device>, Failure> {
    match compute {
        DeviceChoice::Cpu => Ok(vec![Device::Cpu]),
        DeviceChoice::Any => match shown_gpus() {
            0 => Ok(vec![Device::Cpu]),
            shown => Ok((0..shown).map(gpu).collect()),
        },
        DeviceChoice::Gpus(gpus) => {
            let shown = Engine::gpus();
            if let Some(missing) = gpus.iter().find(|ordinal| **ordinal >= shown) {
                // The engine's error explains why there is no such GPU.
                Engine::gpu(*missing)?;
            }
            Ok(gpus.iter().copied().map(gpu).collect())
        }
    }
}

/// How many of `devices` so many ranks of one host take: a GPU each, or the CPU together.
pub(super) fn slots_of(ranks: usize, devices: &[Device]) -> Result<usize, Failure> {
    match devices.len() {
        _ if devices.contains(&Device::Cpu) => Ok(1),
        gpus if ranks <= gpus => match nccl::file() {
            Some(Err(missing)) if ranks > 1 => Err(Failure::failed(missing)),
            _ => Ok(ranks),
        },
        gpus => {
            let gpus = crate::format::counted(gpus, "GPU");
            Err(Failure::usage(format!(
                "{ranks} ranks need {ranks} GPUs, but only {gpus} may be used: add --gpus all, or compute with --cpu"
            )))
        }
    }
}

/// Waits for one of `devices`, and says so on stderr whenever that changes; `None`: given up.
pub(super) fn wait_for_one(
    devices: &[Device],
    gives_up: impl Fn() -> bool,
) -> Result<Option<Slot>, Failure> {
    let mut last = String::new();
    let slot = Slot::wait(&slots_folder()?, devices, 1, |waiting| {
        let sentence = waiting.described();
        if sentence != last {
            eprint_line(&sentence);
            last = sentence;
        }
        if gives_up() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    Ok(slot?)
}

/// On the first device of a slot.
pub(super) fn engine(slot: &Slot) -> Result<Engine, Failure> {
    match slot.devices().first().and_then(Device::ordinal) {
        Some(ordinal) => Ok(Engine::gpu(ordinal)?),
        None => Ok(Engine::cpu()),
    }
}

/// The ranks of a run that is to start them: one on each GPU of its slot, else as configured or `ranks`.
pub(super) fn ranks_on(slot: &Slot, ranks: Option<u16>) -> RankSource {
    match (
        slot.devices()
            .iter()
            .map(Device::ordinal)
            .collect::<Option<Vec<usize>>>(),
        ranks,
    ) {
        (Some(gpus), _) => RankSource::OnGpus(gpus),
        (None, Some(ranks)) => RankSource::Here(ranks),
        (None, None) => RankSource::Configured,
    }
}

/// Warns if others use the GPUs of a slot, or if these are of different kinds; called before they are opened, so that
/// this process is not counted.
pub(super) fn warn_if_in_use(slot: &Slot) {
    let mut kinds = std::collections::BTreeSet::new();
    for gpu in slot
        .devices()
        .iter()
        .filter_map(Device::ordinal)
        .filter_map(Gpu::by_ordinal)
    {
        if let Some(text) = gpu.in_use() {
            eprint_line(&format!("{text}; both will be slower"));
        }
        kinds.insert(gpu.name);
    }
    if kinds.len() > 1 {
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        eprint_line(&format!(
            "GPUs of different kinds ({kinds}): each step waits for the slowest; choose with --gpus 0,1"
        ));
    }
}

/// Empty for the CPU, and where the driver does not say.
pub(super) fn uuid(device: &Device) -> &str {
    match device {
        Device::Cpu => "",
        Device::Gpu { uuid, .. } => uuid,
    }
}

fn gpu(ordinal: usize) -> Device {
    // Without the driver's library the ordinal identifies the GPU: all users of the host must then see its GPUs in the
    // same order.
    Device::Gpu {
        ordinal,
        uuid: Gpu::by_ordinal(ordinal).map_or_else(String::new, |gpu| gpu.uuid),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_a_number_all_or_a_list() {
        let check = |text: &str, expected: Result<Gpus, &str>| {
            let found = text.parse::<Gpus>();
            match expected {
                Ok(gpus) => assert_eq!(found, Ok(gpus), "{text}"),
                Err(part) => assert!(
                    found.clone().unwrap_err().contains(part),
                    "{text}: {found:?}"
                ),
            }
        };
        check("4", Ok(Gpus::Count(4)));
        check("all", Ok(Gpus::All));
        check("0,2,3", Ok(Gpus::List(vec![0, 2, 3])));
        check("0", Err("give a count"));
        check("70000", Err("give a count"));
        check("0,", Err("give a count"));
        check("GPU-1,GPU-2", Err("give a count"));
        check("1,0,1", Err("GPU 1 is named twice"));
    }

    #[test]
    fn gpu_memory_is_whole_gib() {
        assert_eq!(
            (gib("22GiB"), gib("22"), gib("8 GiB")),
            (Ok(22), Ok(22), Ok(8))
        );
        for wrong in ["0", "22GB", "22.5GiB", "", "GiB", "2000"] {
            assert!(gib(wrong).unwrap_err().contains("such as 22GiB"), "{wrong}");
        }
    }

    #[test]
    fn ranks_take_a_gpu_each_or_one_cpu_together() {
        let gpus: Vec<Device> = (0..2)
            .map(|ordinal| Device::Gpu {
                ordinal,
                uuid: String::new(),
            })
            .collect();
        let slots =
            |ranks, devices: &[Device]| slots_of(ranks, devices).map_err(|failure| failure.message);
        assert_eq!(
            (slots(1, &gpus), slots(2, &gpus), slots(8, &[Device::Cpu])),
            (Ok(1), Ok(2), Ok(1))
        );
        let message = slots(4, &gpus).unwrap_err();
        assert!(
            message.contains("4 ranks need 4 GPUs, but only 2 GPUs may be used: add --gpus all"),
            "{message}"
        );
    }
}
