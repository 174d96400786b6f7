//! Processes that compute one run together, each with a copy of the model. Rank 0 decides everything: it asks, the others
//! compute their shares and answer. A run that is alone sends nothing and waits for nothing.

mod launcher; // ranks that torchrun, mpirun or srun started
mod link; // messages between two ranks, and signs of life
mod meeting; // how they come to rank 0
mod processes; // the other ranks as processes of this machine

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kernels::pinned_memory::copy_to_host;
use link::{Link, Lost};
use processes::Processes;

pub use launcher::Placement;

/// How long a rank that gives no sign of life is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a rank that was started has to connect, before it loads anything.
const TO_CONNECT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum RankError {
    #[error("{peer} was lost: {cause}")]
    Lost { peer: String, cause: String },
    #[error("{peer}: {message}")]
    Failed { peer: String, message: String },
    /// What a launcher says of this process makes no sense.
    #[error("{0}; run without the launcher, or unset its variables")]
    Launcher(String),
    #[error("rank {rank} did not start: {cause}")]
    Start { rank: usize, cause: String },
    #[error("a message to another rank could not be written or read: {0}")]
    Message(#[from] postcard::Error),
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
}

/// How many ranks compute a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankCount {
    pub all: usize,
    /// On the host of rank 0, whose cores they share.
    pub here: usize,
}

impl RankCount {
    pub fn on_one_host(all: usize) -> Self {
        Self { all, here: all }
    }
}

/// The other ranks, as rank 0 sees them.
#[derive(Debug, Default)]
pub struct Ranks {
    /// To rank 1 and so on. Dropped first: a rank ends when its connection does.
    links: Vec<Link>,
    _processes: Processes,
}

/// Rank 0, as another rank sees it.
#[derive(Debug)]
pub struct Follower {
    link: Link,
}

/// The first message of a rank to rank 0.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    rank: usize,
    secret: String,
    version: String,
    host: String,
    pid: u32,
}

impl Ranks {
    /// The only rank.
    pub fn alone() -> Self {
        Self::default()
    }

    /// This process and `size - 1` more of the same program here; `arguments` follow those that say where to connect.
    ///
    /// # Errors
    /// [`RankError::Start`] with the reason of a rank that cannot be started, ends or does not connect in time.
    pub fn start_here(size: usize, arguments: &[String]) -> Result<Self, RankError> {
        if size <= 1 {
            return Ok(Self::alone());
        }
        let (links, processes) = Processes::start(size, arguments)?;
        Ok(Self { links, _processes: processes })
    }

    /// All ranks, this one included.
    pub fn size(&self) -> usize {
        1 + self.links.len()
    }

    /// Whether a rank is gone, for work that should end then.
    pub fn loss(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let lost: Vec<Arc<Lost>> = self.links.iter().map(Link::lost).collect();
        move || lost.iter().any(|lost| lost.is_known())
    }

    /// Why, once [`Ranks::loss`] says so.
    ///
    /// # Errors
    /// [`RankError::Lost`] and [`RankError::Failed`], of the first rank that is gone.
    pub fn check(&self) -> Result<(), RankError> {
        self.links.iter().try_for_each(Link::check)
    }

    /// Sends each other rank its question; `question` is given the number of the rank.
    ///
    /// # Errors
    /// [`RankError::Lost`] or [`RankError::Failed`] of a rank that is gone.
    pub fn ask<Q: Serialize>(&self, mut question: impl FnMut(usize) -> Q) -> Result<(), RankError> {
        (1..).zip(&self.links).try_for_each(|(rank, link)| link.send(&question(rank)))
    }

    /// Waits for an answer of each other rank, in their order.
    ///
    /// # Errors
    /// As [`Ranks::ask`].
    pub fn answers<A: DeserializeOwned>(&self) -> Result<Vec<A>, RankError> {
        self.links.iter().map(Link::receive).collect()
    }

    /// The sum of a tensor of f32 over all ranks, added in their order, for all of them.
    ///
    /// # Errors
    /// As [`Ranks::ask`], and when a rank's tensor has another size.
    pub fn sum(&self, own: &Tensor) -> Result<Tensor, RankError> {
        if self.links.is_empty() {
            return Ok(own.clone());
        }
        let mut sum = bytes_of(own)?;
        for link in &self.links {
            let more = link.receive_bytes()?;
            if more.len() != sum.len() {
                let message = format!("it sums {} bytes, rank 0 {}", more.len(), sum.len());
                return Err(RankError::Failed { peer: link.peer().to_owned(), message });
            }
            for (sum, more) in sum.as_chunks_mut::<4>().0.iter_mut().zip(more.as_chunks::<4>().0) {
                *sum = (f32::from_le_bytes(*sum) + f32::from_le_bytes(*more)).to_le_bytes();
            }
        }
        self.links.iter().try_for_each(|link| link.send_bytes(&sum))?;
        Ok(Tensor::from_raw_buffer(&sum, DType::F32, own.dims(), own.device())?)
    }
}

impl Follower {
    /// Connects to rank 0 at `address` as `rank`. `secret`: what rank 0 gave this process.
    ///
    /// # Errors
    /// [`RankError::Start`] if nobody answers there.
    pub fn connect(address: &str, rank: usize, secret: String) -> Result<Self, RankError> {
        let failed = |cause: std::io::Error| RankError::Start { rank, cause: format!("{address}: {cause}") };
        let addresses = address.to_socket_addrs().map_err(failed)?;
        let mut found = Err(std::io::Error::other("no such address"));
        for address in addresses {
            found = found.or_else(|_| TcpStream::connect_timeout(&address, PATIENCE));
        }
        let link = Link::over(found.map_err(failed)?, "rank 0".to_owned(), PATIENCE).map_err(failed)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        link.send(&Hello { rank, secret, version, host: host_name(), pid: std::process::id() })?;
        Ok(Self { link })
    }

    /// Whether rank 0 is gone, for work that should end then.
    pub fn loss(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let lost = self.link.lost();
        move || lost.is_known()
    }

    /// Waits for the next question; `None` once rank 0 has ended.
    ///
    /// # Errors
    /// [`RankError::Message`].
    pub fn question<Q: DeserializeOwned>(&self) -> Result<Option<Q>, RankError> {
        match self.link.receive() {
            Ok(question) => Ok(Some(question)),
            Err(RankError::Lost { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// [`RankError::Lost`].
    pub fn answer<A: Serialize>(&self, answer: &A) -> Result<(), RankError> {
        self.link.send(answer)
    }

    /// Tells rank 0 why this rank cannot go on.
    pub fn fail(&self, why: &str) {
        // Whoever is gone needs no reason.
        let _ = self.link.send_failure(why);
    }

    /// This rank's part of [`Ranks::sum`].
    ///
    /// # Errors
    /// [`RankError::Lost`].
    pub fn sum(&self, own: &Tensor) -> Result<Tensor, RankError> {
        self.link.send_bytes(&bytes_of(own)?)?;
        Ok(Tensor::from_raw_buffer(&self.link.receive_bytes()?, DType::F32, own.dims(), own.device())?)
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, RankError> {
    let mut bytes = vec![0; tensor.elem_count() * DType::F32.size_in_bytes()];
    copy_to_host(tensor, &mut bytes)?;
    Ok(bytes)
}
