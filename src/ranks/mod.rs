//! Processes that compute one run together, each with a copy of the model. Rank 0 decides everything: it sends
//! commands, the others compute their shares and reply. A run that is alone sends nothing and waits for nothing.

mod collectives; // tensors summed and gathered over all
mod launcher; // ranks that torchrun, mpirun or srun started
mod link; // messages between two ranks, and signs of life
mod rendezvous; // how ranks connect to rank 0
mod processes; // the other ranks as processes of this machine

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

pub use collectives::Collectives;
pub use launcher::Placement;

/// How long a rank that gives no sign of life is waited for.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a process that was started here has to connect, before it loads anything.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long rank 0 has to hear why a rank ends, and a rank that it has ended.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a rank has to end once rank 0 is gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long rank 0 has to answer at its address.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the ranks of a launcher have to find each other: a network file system may show a new file after 30 s.
const RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RankError {
    #[error("{peer} was lost: {cause}")]
    Lost { peer: String, cause: String },
    #[error("the work of the ranks was cancelled")]
    Cancelled,
    #[error("{peer}: {message}")]
    Failed { peer: String, message: String },
    /// What a launcher says of this process makes no sense.
    #[error("{0}; run without the launcher, or unset its variables")]
    Launcher(String),
    #[error(
        "local rank {local} has no GPU, of {shown} here: start at most {shown} ranks a host, or compute with --cpu"
    )]
    NoGpu { local: usize, shown: usize },
    #[error("rank {rank} did not start: {cause}")]
    Start { rank: usize, cause: String },
    #[error("a message to another rank could not be written or read: {0}")]
    Message(#[from] postcard::Error),
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
}

/// The other ranks, as rank 0 sees them.
#[derive(Default)]
pub struct Ranks {
    /// To rank 1 and so on. Dropped first: a rank ends when its connection does.
    links: Vec<Link>,
    /// Of all ranks.
    locations: Vec<Location>,
    /// Where the ranks compute on GPUs.
    communicator: Option<Communicator>,
    is_cancelled: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    _processes: Processes,
}

/// Rank 0, as another rank sees it.
#[derive(Debug)]
pub struct Follower {
    rank: usize,
    /// All ranks, once this one has joined them.
    size: usize,
    link: Link,
    communicator: Option<Communicator>,
}

/// The first message of a rank to rank 0.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    rank: usize,
    secret: String,
    version: String,
    pid: u32,
    location: Location,
}

/// A rank that has come to rank 0.
type Peer = (Link, Location);

/// Where a rank computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Location {
    host: String,
    /// The processors that its threads may run on.
    processors: Vec<u32>,
    /// The UUID of its GPU; empty for none, or where the driver does not say.
    gpu: String,
}

impl Location {
    /// Of this process.
    fn own(gpu: &str) -> Self {
        let processors = rustix::thread::sched_getaffinity(None).map_or_else(
            |_| Vec::new(),
            |set| {
                (0..rustix::thread::CpuSet::MAX_CPU)
                    .filter(|number| set.is_set(*number))
                    .map(|number| number as u32)
                    .collect()
            },
        );
        Self { host: host_name(), processors, gpu: gpu.to_owned() }
    }

    /// Whether threads of both may run on the same processor.
    fn shares_processors(&self, other: &Self) -> bool {
        self.host == other.host && self.processors.iter().any(|number| other.processors.contains(number))
    }
}

/// # Errors
/// [`RankError::Start`] of a rank that has the GPU of another: it would wait for it for ever.
fn check_gpus(locations: &[Location]) -> Result<(), RankError> {
    for (rank, own) in locations.iter().enumerate().filter(|(_, own)| !own.gpu.is_empty()) {
        if let Some(other) = locations[..rank].iter().position(|other| other.gpu == own.gpu) {
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
    /// The only rank.
    pub fn alone() -> Self {
        Self::default()
    }

    /// This process and `size - 1` more of the same program here; `arguments` of a rank follow those that say where to
    /// connect.
    ///
    /// # Errors
    /// [`RankError::Start`] with the reason of a rank that cannot be started, ends or does not connect in time.
    pub fn start_here(size: usize, arguments: impl Fn(usize) -> Vec<String>) -> Result<Self, RankError> {
        if size <= 1 {
            return Ok(Self::alone());
        }
        let (peers, processes) = Processes::start(size, arguments)?;
        Ok(Self { _processes: processes, ..Self::with_peers(peers, "")? })
    }

    /// `gpu`: the UUID of this process's own.
    fn with_peers(peers: Vec<Peer>, gpu: &str) -> Result<Self, RankError> {
        let (links, others): (Vec<Link>, Vec<Location>) = peers.into_iter().unzip();
        let locations: Vec<Location> = std::iter::once(Location::own(gpu)).chain(others).collect();
        check_gpus(&locations)?;
        Ok(Self { links, locations, ..Self::default() })
    }

    /// Waiting for others ends soon after `is_cancelled` returns true.
    #[must_use]
    pub fn until(self, is_cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { is_cancelled: Some(Box::new(is_cancelled)), ..self }
    }

    /// All ranks, this one included.
    pub fn size(&self) -> usize {
        1 + self.links.len()
    }

    /// The names of the hosts, by rank; none where a run is alone.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.locations.iter().map(|location| location.host.as_str())
    }

    /// The ranks, `rank` included, that share its processors.
    pub fn ranks_per_host(&self, rank: usize) -> usize {
        let ranks_per_host =
            |own: &Location| self.locations.iter().filter(|other| own.shares_processors(other)).count();
        self.locations.get(rank).map_or(1, ranks_per_host).max(1)
    }

    /// Whether a rank is gone, for work that should end then.
    pub fn loss(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let lost: Vec<Arc<Lost>> = self.links.iter().map(Link::lost).collect();
        move || lost.iter().any(|lost| lost.is_known())
    }

    /// # Errors
    /// [`RankError::Lost`] and [`RankError::Failed`], of the first rank that is gone.
    pub fn check(&self) -> Result<(), RankError> {
        self.links.iter().try_for_each(Link::check)
    }

    /// While waiting.
    fn keep_waiting(&self) -> Result<(), RankError> {
        self.check()?;
        match self.is_cancelled.as_ref().is_some_and(|is_cancelled| is_cancelled()) {
            true => Err(RankError::Cancelled),
            false => Ok(()),
        }
    }

    /// Sends each other rank its message; `message` is given the number of the rank.
    ///
    /// # Errors
    /// [`RankError::Lost`] or [`RankError::Failed`] of a rank that is gone.
    pub fn send<M: Serialize>(&self, mut message: impl FnMut(usize) -> M) -> Result<(), RankError> {
        (1..).zip(&self.links).try_for_each(|(rank, link)| link.send(&message(rank)))
    }

    /// Waits for a message of each other rank, in their order.
    ///
    /// # Errors
    /// As [`Ranks::send`]; [`RankError::Cancelled`].
    pub fn gather<M: DeserializeOwned>(&self) -> Result<Vec<M>, RankError> {
        self.links.iter().map(|link| link.receive(|| self.keep_waiting())).collect()
    }

    /// Has ranks whose `device` is a GPU sum by NCCL from now on, each on its own. To be called once all have loaded the
    /// run: who cannot has said why by then.
    ///
    /// # Errors
    /// As [`Ranks::gather`]; without NCCL, or what it says.
    pub fn join(&mut self, device: &Device) -> Result<(), RankError> {
        if !self.links.is_empty() && !device.is_cpu() {
            let id = Communicator::new_id()?;
            self.links.iter().try_for_each(|link| link.send_bytes(&id))?;
            let joined = Communicator::join(&id, (0, self.size()), device, &|| self.keep_waiting().is_ok());
            self.communicator = Some(joined.map_err(|error| self.explained(error))?);
        }
        Ok(())
    }

    /// Why ranks could not communicate: the rank that is gone, which NCCL may notice first, else NCCL's own words.
    fn explained(&self, error: candle_core::Error) -> RankError {
        wait_until(|| self.keep_waiting().is_err());
        self.keep_waiting().err().unwrap_or(RankError::Tensor(error))
    }

    /// Sends one other rank a message.
    ///
    /// # Errors
    /// As [`Ranks::send`].
    pub fn send_to<M: Serialize>(&self, rank: usize, message: &M) -> Result<(), RankError> {
        self.links[rank - 1].send(message)
    }

    /// Waits for bytes of one other rank.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub fn receive_bytes_of(&self, rank: usize) -> Result<Vec<u8>, RankError> {
        self.links[rank - 1].receive_bytes(|| self.keep_waiting())
    }
}

impl Follower {
    /// Connects to rank 0 at `address` as `rank`. `secret`: what rank 0 gave this process; `gpu`: the UUID of its own.
    ///
    /// # Errors
    /// [`RankError::Start`] if nobody answers there.
    pub fn connect(address: &str, rank: usize, secret: String, gpu: &str) -> Result<Self, RankError> {
        let failed = |cause: std::io::Error| RankError::Start { rank, cause: format!("{address}: {cause}") };
        let addresses = address.to_socket_addrs().map_err(failed)?;
        let mut found = Err(std::io::Error::other("no such address"));
        for address in addresses {
            found = found.or_else(|_| TcpStream::connect_timeout(&address, ANSWER_TIMEOUT / 3));
        }
        let link = Link::over(found.map_err(failed)?, "rank 0".to_owned(), SILENCE_TIMEOUT).map_err(failed)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (pid, location) = (std::process::id(), Location::own(gpu));
        link.send(&Hello { rank, secret, version, pid, location })?;
        Ok(Self { rank, size: 1, link: link.named("rank 0".to_owned()), communicator: None })
    }

    /// Kills this process where it has not ended soon after rank 0 is gone: the driver may wait for ever for a GPU's
    /// work that waits for another rank.
    ///
    /// # Errors
    /// [`RankError::Start`] without a thread for it.
    pub fn end_with_rank_0(&self) -> Result<(), RankError> {
        let is_lost = self.loss();
        let watch = move || {
            while !is_lost() {
                std::thread::sleep(Duration::from_millis(100));
            }
            std::thread::sleep(EXIT_TIMEOUT);
            // It writes nothing that could be left unfinished.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        };
        let spawned = std::thread::Builder::new().name("rank-watch".to_owned()).spawn(watch);
        spawned.map(drop).map_err(|cause| RankError::Start { rank: self.rank, cause: cause.to_string() })
    }

    /// Whether rank 0 is gone, for work that should end then.
    pub fn loss(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let lost = self.link.lost();
        move || lost.is_known()
    }

    /// Waits for the next message of rank 0; `None` once it has ended.
    ///
    /// # Errors
    /// [`RankError::Message`].
    pub fn receive<M: DeserializeOwned>(&self) -> Result<Option<M>, RankError> {
        match self.link.receive(|| Ok(())) {
            Ok(message) => Ok(Some(message)),
            Err(RankError::Lost { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number of this rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// # Errors
    /// [`RankError::Lost`].
    pub fn reply_bytes(&self, bytes: &[u8]) -> Result<(), RankError> {
        self.link.send_bytes(bytes)
    }

    /// # Errors
    /// [`RankError::Lost`].
    pub fn reply<M: Serialize>(&self, message: &M) -> Result<(), RankError> {
        self.link.send(message)
    }

    /// Tells rank 0 why this rank cannot go on.
    pub fn fail(&self, why: &str) {
        // Whoever is gone needs no reason. A connection that is closed at once may take it along.
        if self.link.send_failure(why).is_ok() {
            wait_until(self.loss());
        }
    }

    /// This rank's part of [`Ranks::join`] among `size`.
    ///
    /// # Errors
    /// [`RankError::Lost`]; without NCCL, or what it says.
    pub fn join(&mut self, device: &Device, size: usize) -> Result<(), RankError> {
        self.size = size;
        if !device.is_cpu() {
            let (id, is_lost) = (self.link.receive_bytes(|| Ok(()))?, self.loss());
            let joined = Communicator::join(&id, (self.rank, size), device, &|| !is_lost());
            self.communicator = Some(joined.map_err(|error| self.explained(error))?);
        }
        Ok(())
    }

    /// Rank 0 ends the others when it has lost one, which NCCL may notice first.
    fn explained(&self, error: candle_core::Error) -> RankError {
        wait_until(self.loss());
        self.link.check().err().unwrap_or(RankError::Tensor(error))
    }
}

impl std::fmt::Debug for Ranks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ranks").field("links", &self.links).finish_non_exhaustive()
    }
}

/// Waits for what is likely soon, but no longer than [`CAUSE_TIMEOUT`].
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
                Some(start) => assert!(error.clone().unwrap_err().starts_with(start), "{gpus:?}: {error:?}"),
            }
        };
        check(&["GPU-1", "GPU-2", "GPU-3"], None);
        check(&["", "", "GPU-1"], None);
        check(&["GPU-1", "GPU-2", "GPU-2"], Some("rank 2 did not start: it has the same GPU as rank 1 (GPU-2): start"));
    }
}
