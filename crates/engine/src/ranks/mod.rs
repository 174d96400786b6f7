//! Data-parallel processes of one run, each with a copy of the model and the same loop. Messages go
//! through rank 0, which alone reads requests and writes the record; tensors on GPUs are summed by
//! NCCL.

mod collectives; // sums and gathers over ranks
mod launcher; // ranks of torchrun, mpirun or srun
mod link; // messages and heartbeats between two ranks
mod rendezvous; // how ranks connect to rank 0
mod processes; // ranks as local processes

use std::cell::{Cell, OnceCell};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kernels::nccl::Communicator;
use crate::run::host_name;
use link::{Link, Lost};
use processes::Processes;

pub use launcher::Placement;

/// Time without a heartbeat.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(12);
/// Time for a process started here to connect, before loading anything.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for rank 0 to learn why a rank ends, and for a rank that it has ended.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a rank to end once rank 0 is gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for rank 0 to answer at its address.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a launcher's ranks: a network file system may show a new file after 30 s.
const RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RankError {
    #[error("{peer} was lost: {cause}")]
    Lost { peer: String, cause: String },
    #[error("the work of the ranks was cancelled")]
    Cancelled,
    #[error("{peer}: {message}")]
    Failed { peer: String, message: String },
    /// Inconsistent launcher variables.
    #[error("{0}; run without the launcher, or unset its variables")]
    Launcher(String),
    #[error(
        "local rank {local} has no GPU, of {shown} here: start at most {shown} ranks a host, or compute with --cpu"
    )]
    NoGpu { local: usize, shown: usize },
    #[error("rank {rank} did not start: {cause}")]
    Start { rank: usize, cause: String },
    #[error("a message to another rank cannot be written: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("a message of another rank cannot be read: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
}

/// The ranks of a run, from one rank's view. A single rank is alone and never communicates.
///
/// All ranks call the same collective methods in the same order; equal numbers of ranks give equal
/// bits. Waiting fails with [`RankError::Lost`], [`RankError::Failed`] or [`RankError::Cancelled`].
pub struct Ranks {
    /// Number of this process.
    rank: usize,
    size: usize,
    /// Rank 0 has links to ranks 1, 2, ...; others to rank 0. Dropped first: a rank ends with its
    /// connection.
    links: Vec<Link>,
    /// Locations by rank, on rank 0.
    locations: Vec<Location>,
    /// Set on GPUs.
    communicator: OnceCell<Communicator>,
    is_cancelled: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    waited_seconds: Cell<f64>,
    _processes: Processes,
}

/// First message of a rank to rank 0.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    rank: usize,
    secret: String,
    version: String,
    pid: u32,
    location: Location,
}

/// Rank 0's answer, once all have connected.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Welcome {
    size: usize,
    /// Ranks sharing this one's processors, including itself.
    ranks_per_host: usize,
}

/// A rank connected to rank 0.
struct Peer {
    rank: usize,
    link: Link,
    location: Location,
}

/// Where a rank computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Location {
    host: String,
    /// CPU affinity.
    processors: Vec<u32>,
    /// UUID; empty for none or unknown.
    gpu: String,
}

impl Location {
    /// Location of this process.
    fn own(gpu: &str) -> Self {
        let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
        let may_run = |number: &u32| set.is_set(*number as usize);
        let processors = (0..rustix::thread::CpuSet::MAX_CPU as u32)
            .filter(may_run)
            .collect();
        Self {
            host: host_name(),
            processors,
            gpu: gpu.to_owned(),
        }
    }

    /// Whether both may use the same processors.
    fn shares_processors(&self, other: &Self) -> bool {
        self.host == other.host
            && self
                .processors
                .iter()
                .any(|number| other.processors.contains(number))
    }
}

/// # Errors
/// [`RankError::Start`] for a rank that shares a GPU: NCCL would hang.
fn check_gpus(locations: &[Location]) -> Result<(), RankError> {
    for (rank, own) in locations
        .iter()
        .enumerate()
        .filter(|(_, own)| !own.gpu.is_empty())
    {
        if let Some(other) = locations[..rank]
            .iter()
            .position(|other| other.gpu == own.gpu)
        {
            let cause = format!(
                "it has the same GPU as rank {other} ({}): start one rank a GPU, or compute with --cpu",
                own.gpu
            );
            return Err(RankError::Start { rank, cause });
        }
    }
    Ok(())
}

impl Ranks {
    /// A single rank.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            size: 1,
            links: Vec::new(),
            locations: Vec::new(),
            communicator: OnceCell::new(),
            is_cancelled: None,
            waited_seconds: Cell::default(),
            _processes: Processes::default(),
        }
    }

    /// This process as rank 0, and `size - 1` more of the same program here; a rank's `arguments`
    /// follow those for connecting.
    ///
    /// # Errors
    /// [`RankError::Start`] with the reason of a rank that fails to start, ends or does not connect
    /// in time.
    pub fn start_here(
        size: usize,
        arguments: impl Fn(usize) -> Vec<String>,
    ) -> Result<Self, RankError> {
        if size <= 1 {
            return Ok(Self::alone());
        }
        let mut processes = Processes::default();
        let peers = processes.start(size, arguments)?;
        Ok(Self {
            _processes: processes,
            ..Self::first(peers, "")?
        })
    }

    /// Rank 0 of these peers. `gpu`: this process's UUID.
    fn first(peers: Vec<Peer>, gpu: &str) -> Result<Self, RankError> {
        let (mut links, mut locations) = (Vec::new(), vec![Location::own(gpu)]);
        for peer in peers {
            links.push(peer.link);
            locations.push(peer.location);
        }
        check_gpus(&locations)?;
        Ok(Self {
            size: locations.len(),
            links,
            locations,
            ..Self::alone()
        })
    }

    /// Connects to rank 0 at `address`. `secret`: given by rank 0; `gpu`: this process's UUID.
    ///
    /// # Errors
    /// [`RankError::Start`] if nobody answers.
    pub fn connect(
        address: &str,
        rank: usize,
        secret: String,
        gpu: &str,
    ) -> Result<Self, RankError> {
        let failed = |cause: std::io::Error| RankError::Start {
            rank,
            cause: format!("{address}: {cause}"),
        };
        let addresses = address.to_socket_addrs().map_err(failed)?;
        let mut found = Err(std::io::Error::other("no such address"));
        for address in addresses {
            found = found.or_else(|_| TcpStream::connect_timeout(&address, ANSWER_TIMEOUT / 3));
        }
        let link = Link::over(found.map_err(failed)?, "rank 0".to_owned(), SILENCE_TIMEOUT)
            .map_err(failed)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (pid, location) = (std::process::id(), Location::own(gpu));
        link.send(&Hello {
            rank,
            secret,
            version,
            pid,
            location,
        })?;
        Ok(Self {
            rank,
            links: vec![link.named("rank 0".to_owned())],
            ..Self::alone()
        })
    }

    /// Waits for all ranks. Returns the number of ranks sharing this one's processors, including
    /// itself.
    ///
    /// # Errors
    /// [`RankError::Lost`] or [`RankError::Failed`] for a rank that is gone.
    pub fn rendezvous(&mut self) -> Result<usize, RankError> {
        if self.rank > 0 {
            let Welcome {
                size,
                ranks_per_host,
            } = self.receive()?;
            self.size = size;
            return Ok(ranks_per_host);
        }
        for (rank, link) in (1..).zip(&self.links) {
            link.send(&Welcome {
                size: self.size,
                ranks_per_host: self.ranks_per_host(rank),
            })?;
        }
        Ok(self.ranks_per_host(0))
    }

    /// Stops waiting soon after `is_cancelled` returns true.
    #[must_use]
    pub fn until(self, is_cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            is_cancelled: Some(Box::new(is_cancelled)),
            ..self
        }
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Including this one.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Host name; empty for a single rank.
    pub fn host(&self) -> String {
        if self.size > 1 {
            host_name()
        } else {
            String::new()
        }
    }

    /// Ranks sharing the processors of `rank`, including it.
    fn ranks_per_host(&self, rank: usize) -> usize {
        let Some(own) = self.locations.get(rank) else {
            return 1;
        };
        self.locations
            .iter()
            .filter(|other| own.shares_processors(other))
            .count()
            .max(1)
    }

    /// Whether a rank is gone, to abort other work.
    pub fn loss(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let lost: Vec<Arc<Lost>> = self.links.iter().map(Link::lost).collect();
        move || lost.iter().map(Arc::as_ref).any(Lost::is_known)
    }

    /// # Errors
    /// [`RankError::Lost`] and [`RankError::Failed`] for the first rank that is gone.
    pub fn check(&self) -> Result<(), RankError> {
        self.links.iter().try_for_each(Link::check)
    }

    /// Called while waiting.
    fn keep_waiting(&self) -> Result<(), RankError> {
        self.check()?;
        match self
            .is_cancelled
            .as_ref()
            .is_some_and(|is_cancelled| is_cancelled())
        {
            true => Err(RankError::Cancelled),
            false => Ok(()),
        }
    }

    /// Seconds since the last call spent waiting for others.
    pub fn take_waited_seconds(&self) -> f64 {
        self.waited_seconds.take()
    }

    /// Counts the time since `start`, in which `value` was waited for; returns the value.
    fn waited<T>(&self, start: Instant, value: T) -> T {
        self.waited_seconds
            .set(self.waited_seconds.get() + start.elapsed().as_secs_f64());
        value
    }

    fn message<M: DeserializeOwned>(&self, link: &Link) -> Result<M, RankError> {
        self.waited(Instant::now(), link.receive(|| self.keep_waiting()))
    }

    fn bytes(&self, link: &Link) -> Result<Vec<u8>, RankError> {
        self.waited(Instant::now(), link.receive_bytes(|| self.keep_waiting()))
    }

    /// Rank 0's value, on all ranks; other arguments are ignored.
    pub fn broadcast<M: Serialize + DeserializeOwned>(&self, own: M) -> Result<M, RankError> {
        if self.rank > 0 {
            return self.receive();
        }
        self.links.iter().try_for_each(|link| link.send(&own))?;
        Ok(own)
    }

    /// All values in rank order, on rank 0; empty on others.
    pub fn gather<M: Serialize + DeserializeOwned>(&self, own: M) -> Result<Vec<M>, RankError> {
        let others = self.gather_others(&own)?;
        Ok(if self.rank > 0 {
            others
        } else {
            std::iter::once(own).chain(others).collect()
        })
    }

    /// As [`Ranks::gather`], without rank 0's value.
    pub fn gather_others<M: Serialize + DeserializeOwned>(
        &self,
        own: &M,
    ) -> Result<Vec<M>, RankError> {
        if self.rank > 0 {
            self.links[0].send(own)?;
            return Ok(Vec::new());
        }
        self.links.iter().map(|link| self.message(link)).collect()
    }

    /// All values in rank order, on all ranks.
    pub fn exchange<M: Serialize + DeserializeOwned>(&self, own: M) -> Result<Vec<M>, RankError> {
        self.broadcast(self.gather(own)?)
    }

    /// Sum in rank order.
    pub fn sum(&self, own: f64) -> Result<f64, RankError> {
        Ok(self.exchange(own)?.into_iter().sum())
    }

    /// True if true on any rank.
    pub fn any(&self, own: bool) -> Result<bool, RankError> {
        Ok(self.exchange(own)?.contains(&true))
    }

    /// This rank's contiguous part of `count` items, of about equal sizes.
    pub fn share(&self, count: usize) -> std::ops::Range<usize> {
        count * self.rank / self.size..count * (self.rank + 1) / self.size
    }

    /// Makes ranks whose `device` is a GPU sum by NCCL from now on. Call after all have loaded the
    /// run, so that failures were reported.
    ///
    /// # Errors
    /// As [`Ranks::gather`]; a missing NCCL, and its errors.
    pub fn join(&self, device: &Device) -> Result<(), RankError> {
        if self.size > 1 && !device.is_cpu() {
            let own = if self.rank == 0 {
                Communicator::new_id()?
            } else {
                Vec::new()
            };
            let id = self.broadcast(own)?;
            let place = (self.rank, self.size);
            let joined = Communicator::join(&id, place, device, &|| self.keep_waiting().is_ok());
            let joined = joined.map_err(|error| self.explained(error))?;
            // Joined once.
            let _ = self.communicator.set(joined);
        }
        Ok(())
    }

    /// Why communication failed: a lost rank, which NCCL may notice first, else NCCL's message.
    /// Rank 0 ends the others when it has lost one.
    fn explained(&self, error: candle_core::Error) -> RankError {
        wait_until(|| self.keep_waiting().is_err());
        self.keep_waiting()
            .err()
            .unwrap_or(RankError::Tensor(error))
    }

    /// Sends a message to another rank, as rank 0.
    ///
    /// # Errors
    /// [`RankError::Lost`] or [`RankError::Failed`].
    pub fn send_to<M: Serialize>(&self, rank: usize, message: &M) -> Result<(), RankError> {
        self.links[rank - 1].send(message)
    }

    /// Waits for bytes of another rank, as rank 0.
    pub fn receive_bytes_of(&self, rank: usize) -> Result<Vec<u8>, RankError> {
        self.links[rank - 1].receive_bytes(|| self.keep_waiting())
    }

    /// Waits for a message of rank 0.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<M, RankError> {
        self.message(&self.links[0])
    }

    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), RankError> {
        self.links[0].send_bytes(bytes)
    }

    /// Kills this process, not rank 0, if it does not end soon after rank 0: the driver may wait
    /// forever for GPU work that waits for another rank.
    ///
    /// # Errors
    /// [`RankError::Start`] without a thread.
    pub fn end_with_rank_0(&self) -> Result<(), RankError> {
        let is_lost = self.loss();
        let watch = move || {
            while !is_lost() {
                std::thread::sleep(Duration::from_millis(100));
            }
            std::thread::sleep(EXIT_TIMEOUT);
            // It writes nothing that could be left incomplete.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        };
        let spawned = std::thread::Builder::new()
            .name("rank-watch".to_owned())
            .spawn(watch);
        spawned.map(drop).map_err(|cause| RankError::Start {
            rank: self.rank,
            cause: cause.to_string(),
        })
    }

    /// Returns once rank 0 has ended, which would count an earlier end as a loss.
    pub fn wait_for_rank_0(&self) {
        while self.receive::<()>().is_ok() {}
    }

    /// Tells rank 0 why this rank fails.
    pub fn fail(&self, why: &str) {
        // Closing at once could drop the message.
        if self.links[0].send_failure(why).is_ok() {
            wait_until(self.loss());
        }
    }
}

impl std::fmt::Debug for Ranks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ranks")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

/// Waits for something imminent, at most [`CAUSE_TIMEOUT`].
fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() && start.elapsed() < CAUSE_TIMEOUT {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn two_ranks_of_one_gpu_are_refused() {
        let check = |gpus: &[&str], expected: Option<&str>| {
            let locations: Vec<Location> = gpus.iter().map(|gpu| Location::own(gpu)).collect();
            let error = check_gpus(&locations).map_err(|error| error.to_string());
            match expected {
                None => assert_eq!(error, Ok(()), "{gpus:?}"),
                Some(start) => assert!(
                    error.clone().unwrap_err().starts_with(start),
                    "{gpus:?}: {error:?}"
                ),
            }
        };
        check(&["GPU-1", "GPU-2", "GPU-3"], None);
        check(&["", "", "GPU-1"], None);
        check(
            &["GPU-1", "GPU-2", "GPU-2"],
            Some("rank 2 did not start: it has the same GPU as rank 1 (GPU-2): start"),
        );
    }
}
