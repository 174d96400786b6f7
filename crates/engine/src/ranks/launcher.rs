//! Ranks started by torchrun, mpirun or srun, as described in the environment; rank 0's address is
//! in a file in the runs folder, shared by all hosts.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::rendezvous::{gather, secret};
use super::{ANSWER_TIMEOUT, RENDEZVOUS_TIMEOUT, RankError, Ranks};
use crate::files::{self, Access};
use crate::run::host_name;

/// This process among its launcher's ranks; never alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub rank: usize,
    pub size: usize,
    /// Ranks on this host.
    pub here: usize,
    /// Local rank.
    local: usize,
    launcher: &'static str,
    /// Distinguishes starts of the same user, in file names.
    job: String,
}

/// Where rank 0 listens; readable by its user only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rendezvous {
    address: String,
    secret: String,
}

/// Removed once all have connected.
struct RendezvousFile(PathBuf);

/// Sizes of worlds that other launchers start: PyTorchJob and the like, PMI, Flux, SkyPilot.
const OTHER_WORLDS: [&str; 4] = [
    "WORLD_SIZE",
    "PMI_SIZE",
    "FLUX_JOB_SIZE",
    "SKYPILOT_NUM_NODES",
];

fn refuse_other_worlds(get: impl Fn(&str) -> Option<String>) -> Result<(), RankError> {
    let several = OTHER_WORLDS.iter().find_map(|name| {
        let size: usize = get(name)?.parse().ok()?;
        (size > 1).then_some((name, size))
    });
    match several {
        None => Ok(()),
        Some((name, size)) => Err(RankError::Launcher(format!(
            "{name} = {size}: several processes were started, but the variables of torchrun, mpirun or srun by which they find each other are incomplete: start them by one of these (torchrun --no-python), or unset {name} to train alone"
        ))),
    }
}

impl Placement {
    /// Reads environment variables from `get`; `None` without a launcher, or for a single rank.
    ///
    /// # Errors
    /// [`RankError::Launcher`] naming a missing or malformed variable, or one by which several processes were started
    /// that cannot find each other: none of them trains alone.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, RankError> {
        let number = |name| parsed(name, get(name));
        let has = |name: &str| get(name).is_some();
        let job = |names: &[&str]| job_name(names.iter().copied().filter_map(&get));
        // Innermost first: srun may start mpirun and torchrun.
        let placement = if ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"]
            .into_iter()
            .all(has)
        {
            Self {
                rank: number("RANK")?,
                size: number("WORLD_SIZE")?,
                here: number("LOCAL_WORLD_SIZE")?,
                local: number("LOCAL_RANK")?,
                launcher: "torchrun",
                job: job(&[
                    "TORCHELASTIC_RUN_ID",
                    "TORCHELASTIC_RESTART_COUNT",
                    "MASTER_PORT",
                ]),
            }
        } else if has("OMPI_COMM_WORLD_RANK") {
            Self {
                rank: number("OMPI_COMM_WORLD_RANK")?,
                size: number("OMPI_COMM_WORLD_SIZE")?,
                here: number("OMPI_COMM_WORLD_LOCAL_SIZE")?,
                local: number("OMPI_COMM_WORLD_LOCAL_RANK")?,
                launcher: "mpirun",
                job: job(&["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"]),
            }
        } else if has("SLURM_PROCID") && has("SLURM_STEP_NODELIST") {
            // Of the first host, such as 4 in `4(x2),3`; a batch script without srun has no list of
            // the step's hosts.
            let tasks = get("SLURM_STEP_TASKS_PER_NODE").unwrap_or_default();
            let here = tasks
                .split(['(', ','])
                .next()
                .and_then(|text| text.parse().ok());
            let size = number("SLURM_STEP_NUM_TASKS").or_else(|_| number("SLURM_NTASKS"))?;
            Self {
                rank: number("SLURM_PROCID")?,
                size,
                here: here.unwrap_or(size),
                local: number("SLURM_LOCALID")?,
                launcher: "srun",
                job: job(&["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"]),
            }
        } else {
            return refuse_other_worlds(&get).map(|()| None);
        };
        let Self {
            rank,
            size,
            here,
            launcher,
            ..
        } = placement;
        if rank >= size || !(1..=size).contains(&here) {
            return Err(RankError::Launcher(format!(
                "{launcher}: rank {rank} of {size}, {here} of them on this host"
            )));
        }
        Ok(Some(placement).filter(|placement| placement.size > 1))
    }

    /// Index of this rank's GPU, of `shown` to this process: a launcher may show each rank its own.
    ///
    /// # Errors
    /// [`RankError::NoGpu`] if this host has more ranks than GPUs.
    pub fn gpu(&self, shown: usize) -> Result<usize, RankError> {
        match self.local {
            _ if shown == 1 => Ok(0),
            local if local < shown => Ok(local),
            local => Err(RankError::NoGpu { local, shown }),
        }
    }

    /// Waits for all others, as rank 0. `gpu`: its own UUID.
    ///
    /// # Errors
    /// [`RankError::Start`] naming a rank that does not connect within 60 s, or shares a GPU.
    pub fn rendezvous(&self, runs: &Path, gpu: &str) -> Result<Ranks, RankError> {
        let failed = |cause: std::io::Error| RankError::Start {
            rank: 0,
            cause: cause.to_string(),
        };
        // Other hosts reach rank 0 by its name.
        let (interface, host) = match self.here == self.size {
            true => (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST.to_string()),
            false => (Ipv4Addr::UNSPECIFIED, host_name()),
        };
        let listener = TcpListener::bind((interface, 0)).map_err(failed)?;
        let address = format!("{host}:{}", listener.local_addr().map_err(failed)?.port());
        let rendezvous = Rendezvous {
            address,
            secret: secret().map_err(failed)?,
        };
        files::ensure_folder(runs, Access::Private).map_err(failed)?;
        let file = RendezvousFile(self.file(runs));
        let text = serde_json::to_vec(&rendezvous).map_err(|error| failed(error.into()))?;
        files::replace_file(&file.0, &text, Access::Private).map_err(failed)?;
        let remedy = format!(
            "; its output says why: its host must see {} and reach {}",
            file.0.display(),
            rendezvous.address
        );
        Ranks::first(
            gather(
                &listener,
                self.size,
                &rendezvous.secret,
                files::rendezvous_timeout(RENDEZVOUS_TIMEOUT),
                &remedy,
                || Ok(()),
            )?,
            gpu,
        )
    }

    /// Connects to rank 0. `gpu`: this rank's UUID.
    ///
    /// # Errors
    /// [`RankError::Start`] if rank 0 is not found within 60 s, or does not answer within 30 s.
    pub fn follow(&self, runs: &Path, gpu: &str) -> Result<Ranks, RankError> {
        let to_meet = files::rendezvous_timeout(RENDEZVOUS_TIMEOUT);
        self.follow_within(runs, gpu, to_meet, ANSWER_TIMEOUT)
    }

    fn follow_within(
        &self,
        runs: &Path,
        gpu: &str,
        to_meet: Duration,
        to_answer: Duration,
    ) -> Result<Ranks, RankError> {
        let (start, path) = (Instant::now(), self.file(runs));
        let failed = |cause| {
            Err(RankError::Start {
                rank: self.rank,
                cause,
            })
        };
        let mut found: Option<(Rendezvous, Instant)> = None;
        let mut last = format!(
            "{} is not there: is the runs folder shared by all hosts?",
            path.display()
        );
        loop {
            // An earlier start's file may exist until rank 0 replaces it.
            match read(&path) {
                Ok(Some(rendezvous)) => {
                    let since = found
                        .filter(|(known, _)| *known == rendezvous)
                        .map_or_else(Instant::now, |(_, since)| since);
                    match Ranks::connect(
                        &rendezvous.address,
                        self.rank,
                        rendezvous.secret.clone(),
                        gpu,
                    ) {
                        Ok(ranks) => return Ok(ranks),
                        Err(_) if since.elapsed() <= to_answer => {}
                        Err(error) => {
                            let why = match error {
                                RankError::Start { cause, .. } => cause,
                                error => error.to_string(),
                            };
                            return failed(format!(
                                "rank 0 does not answer within {} s ({why}): check that it runs, that its host's name is known here, and \
                                 that no firewall is between them",
                                to_answer.as_secs()
                            ));
                        }
                    }
                    last = format!("{} does not answer", rendezvous.address);
                    found = Some((rendezvous, since));
                }
                Ok(None) => {}
                Err(cause) => return failed(cause),
            }
            if start.elapsed() > to_meet {
                return failed(format!(
                    "rank 0 was not found within {} s; {last}",
                    to_meet.as_secs()
                ));
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    fn file(&self, runs: &Path) -> PathBuf {
        // Job names may be equal on several hosts.
        let host = if self.here == self.size {
            format!("-{}", host_name())
        } else {
            String::new()
        };
        runs.join(format!(".ranks-{}-{}{host}.json", self.launcher, self.job))
    }
}

fn parsed<N: std::str::FromStr>(name: &str, value: Option<String>) -> Result<N, RankError> {
    let text = value.ok_or_else(|| RankError::Launcher(format!("{name} is missing")))?;
    text.parse()
        .map_err(|_| RankError::Launcher(format!("{name} = {text:?} is no number")))
}

/// A job's name for a file.
fn job_name(parts: impl Iterator<Item = String>) -> String {
    let name = parts.collect::<Vec<_>>().join(".");
    name.replace(
        |letter: char| !letter.is_ascii_alphanumeric() && !"-.".contains(letter),
        "",
    )
}

/// `None` if the file does not exist yet.
fn read(path: &Path) -> Result<Option<Rendezvous>, String> {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(None);
    };
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(format!(
            "{} is not of this user alone: remove it",
            path.display()
        ));
    }
    // Removed or replaced since.
    let Ok(text) = files::read_text(path) else {
        return Ok(None);
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| format!("{}: {error}", path.display()))
}

impl Drop for RendezvousFile {
    fn drop(&mut self) {
        // If it remains, the next start of this name replaces it, and its secret is useless.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Result<Option<Placement>, String> {
        let get = |name: &str| {
            variables
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Placement::from_env(get).map_err(|error| error.to_string())
    }

    /// Number `local` of `here` on its host.
    fn placed(
        rank: usize,
        size: usize,
        (local, here): (usize, usize),
        launcher: &'static str,
        job: &str,
    ) -> Placement {
        Placement {
            rank,
            size,
            here,
            local,
            launcher,
            job: job.to_owned(),
        }
    }

    #[test]
    fn launchers_are_recognised() {
        let check = |variables: &[(&str, &str)], expected: Option<Placement>| {
            assert_eq!(found(variables), Ok(expected), "{variables:?}");
        };
        let torchrun = [
            ("RANK", "6"),
            ("WORLD_SIZE", "8"),
            ("LOCAL_RANK", "2"),
            ("LOCAL_WORLD_SIZE", "4"),
            ("MASTER_ADDR", "node1"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_RUN_ID", "a/b"),
        ];
        check(
            &torchrun,
            Some(placed(6, 8, (2, 4), "torchrun", "ab.29500")),
        );
        let slurm = [
            ("SLURM_PROCID", "5"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_STEP_TASKS_PER_NODE", "4(x2)"),
            ("SLURM_STEP_NODELIST", "n[1-2]"),
            ("SLURM_JOB_ID", "77"),
            ("SLURM_STEP_ID", "0"),
        ];
        check(&slurm, Some(placed(5, 8, (1, 4), "srun", "77.0")));
        let mpirun = [
            ("OMPI_COMM_WORLD_RANK", "0"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
            ("PMIX_NAMESPACE", "prterun-h-12@1"),
        ];
        check(
            &mpirun,
            Some(placed(0, 2, (0, 2), "mpirun", "prterun-h-121")),
        );
        check(
            &[&mpirun[..], &slurm].concat(),
            Some(placed(0, 2, (0, 2), "mpirun", "prterun-h-121")),
        );
        // A batch script without srun, one rank, a shell with RANK set.
        check(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")], None);
        let alone = ["RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"]
            .map(|name| format!("OMPI_COMM_WORLD_{name}"));
        check(
            &alone.each_ref().map(|name| {
                (
                    name.as_str(),
                    if name.ends_with("RANK") { "0" } else { "1" },
                )
            }),
            None,
        );
        check(&[("RANK", "1")], None);
        check(&[("RANK", "0"), ("WORLD_SIZE", "1")], None);
        // Several hosts that do not find each other never train alone.
        for name in OTHER_WORLDS {
            let refused = found(&[("RANK", "1"), ("MASTER_ADDR", "a"), (name, "2")]).unwrap_err();
            assert!(refused.contains(&format!("{name} = 2")), "{refused}");
        }
    }

    #[test]
    fn rank_0_that_does_not_answer_is_named_with_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let own = placed(1, 2, (0, 1), "srun", "7");
        let follow = |times: [u64; 2]| {
            let [to_meet, to_answer] = times.map(Duration::from_millis);
            own.follow_within(folder.path(), "", to_meet, to_answer)
                .unwrap_err()
                .to_string()
        };
        let message = follow([200, 100]);
        assert!(
            message.contains("rank 0 was not found within 0 s")
                && message.contains("shared by all hosts?"),
            "{message}"
        );
        // A port that was free a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        for (address, expected) in [
            (address, "Connection refused"),
            (
                "no-such-host.invalid:1".to_owned(),
                "no-such-host.invalid:1: ",
            ),
        ] {
            let text = serde_json::to_vec(&Rendezvous {
                address: address.clone(),
                secret: String::new(),
            })
            .unwrap();
            files::replace_file(&own.file(folder.path()), &text, Access::Private).unwrap();
            let message = follow([60_000, 200]);
            assert!(
                message.contains("rank 1 did not start: rank 0 does not answer within 0 s ("),
                "{message}"
            );
            assert!(
                message.contains(&address) && message.contains(expected),
                "{message}"
            );
            assert!(
                message.ends_with("no firewall is between them"),
                "{message}"
            );
        }
    }

    #[test]
    fn what_a_launcher_says_wrongly_is_named() {
        let check = |rank: &str, size: &str, expected: &str| {
            let variables = [
                ("OMPI_COMM_WORLD_RANK", rank),
                ("OMPI_COMM_WORLD_SIZE", size),
                ("OMPI_COMM_WORLD_LOCAL_SIZE", "1"),
                ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
            ];
            let message = found(&variables).unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        check("two", "2", "OMPI_COMM_WORLD_RANK = \"two\" is no number");
        check("2", "2", "mpirun: rank 2 of 2");
        check("0", "0", "mpirun: rank 0 of 0");
    }

    #[test]
    fn each_rank_of_a_host_has_the_gpu_of_its_local_number() {
        let gpu = |local, shown| {
            placed(6, 8, (local, 4), "srun", "")
                .gpu(shown)
                .map_err(|error| error.to_string())
        };
        assert_eq!((gpu(0, 4), gpu(3, 4), gpu(3, 1)), (Ok(0), Ok(3), Ok(0)));
        let message = gpu(2, 2).unwrap_err();
        assert!(
            message.starts_with("local rank 2 has no GPU, of 2 here: start"),
            "{message}"
        );
    }
}
