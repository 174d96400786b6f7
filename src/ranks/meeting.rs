//! How the other ranks come to rank 0: each says who it is, and proves that rank 0's user sent it.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::link::Link;
use super::{Hello, PATIENCE, Peer, RankError};
use crate::files::random_bytes;
use crate::format::hex;

/// A connection that does not say who it is holds up the others for so long.
const TO_GREET: Duration = Duration::from_secs(2);

/// The links to ranks 1 to `size - 1`, once all are there; `check` may find earlier that one will not come.
pub(super) fn gather(
    listener: &TcpListener,
    size: usize,
    secret: &str,
    patience: Duration,
    mut check: impl FnMut() -> Result<(), RankError>,
) -> Result<Vec<Peer>, RankError> {
    let here = |cause: io::Error| RankError::Start { rank: 0, cause: cause.to_string() };
    listener.set_nonblocking(true).map_err(here)?;
    let mut links: Vec<Option<Peer>> = (1..size).map(|_| None).collect();
    let start = Instant::now();
    while let Some(missing) = links.iter().position(Option::is_none) {
        check()?;
        if start.elapsed() > patience {
            let cause = format!("no connection within {} s", patience.as_secs());
            return Err(RankError::Start { rank: missing + 1, cause });
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some((rank, found)) = greet(stream, secret)?.filter(|(rank, _)| (1..size).contains(rank)) {
                    links[rank - 1] = Some(found);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(here(error)),
        }
    }
    Ok(links.into_iter().flatten().collect())
}

/// What proves that a process was sent by this user.
pub(super) fn secret() -> io::Result<String> {
    Ok(hex(&random_bytes::<32>()?))
}

/// The rank that connected; `None` for anybody else.
fn greet(stream: TcpStream, secret: &str) -> Result<Option<(usize, Peer)>, RankError> {
    let linked = || {
        stream.set_nonblocking(false)?;
        Link::over(stream, "a connection".to_owned(), PATIENCE)
    };
    let Ok(link) = linked() else { return Ok(None) };
    let start = Instant::now();
    let in_time = || if start.elapsed() < TO_GREET { Ok(()) } else { Err(RankError::Cancelled) };
    let Ok(Hello { rank, secret: theirs, version, pid, location }) = link.receive(in_time) else {
        return Ok(None);
    };
    if theirs != secret {
        return Ok(None);
    }
    let (own, host) = (env!("CARGO_PKG_VERSION"), &location.host);
    if version != own {
        let cause = format!("it is version {version} of the program on {host}, rank 0 is {own}");
        // It ends in any case.
        let _ = link.send_failure(&cause);
        return Err(RankError::Start { rank, cause });
    }
    let link = link.named(format!("rank {rank} (pid {pid} on {host})"));
    Ok(Some((rank, (link, location))))
}
