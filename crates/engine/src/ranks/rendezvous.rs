//! Ranks connect to rank 0, identify themselves, and prove that rank 0's user started them.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::link::Link;
use super::{Hello, Peer, RankError, SILENCE_TIMEOUT};
use crate::files::random_bytes;
use crate::format::hex;

/// Time for a connection to identify itself.
const TO_GREET: Duration = Duration::from_secs(2);

/// Waits for ranks 1 to `size - 1`; `check` may fail earlier. `remedy`: for a rank that is late.
pub(super) fn gather(
    listener: &TcpListener,
    size: usize,
    secret: &str,
    timeout: Duration,
    remedy: &str,
    mut check: impl FnMut() -> Result<(), RankError>,
) -> Result<Vec<Peer>, RankError> {
    let here = |cause: io::Error| RankError::Start {
        rank: 0,
        cause: cause.to_string(),
    };
    listener.set_nonblocking(true).map_err(here)?;
    let mut peers: Vec<Option<Peer>> = (1..size).map(|_| None).collect();
    let start = Instant::now();
    while let Some(missing) = peers.iter().position(Option::is_none) {
        check()?;
        if start.elapsed() > timeout {
            let cause = format!("no connection within {} s{remedy}", timeout.as_secs());
            return Err(RankError::Start {
                rank: missing + 1,
                cause,
            });
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(peer) =
                    handshake(stream, secret)?.filter(|peer| (1..size).contains(&peer.rank))
                {
                    let rank = peer.rank;
                    peers[rank - 1] = Some(peer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Err(error) => return Err(here(error)),
        }
    }
    Ok(peers.into_iter().flatten().collect())
}

/// Authenticates a process as started by this user.
pub(super) fn secret() -> io::Result<String> {
    Ok(hex(&random_bytes::<32>()?))
}

/// The connected rank; `None` for anyone else.
fn handshake(stream: TcpStream, secret: &str) -> Result<Option<Peer>, RankError> {
    let linked = || {
        stream.set_nonblocking(false)?;
        Link::over(stream, "a connection".to_owned(), SILENCE_TIMEOUT)
    };
    let Ok(link) = linked() else { return Ok(None) };
    let start = Instant::now();
    let in_time = || {
        if start.elapsed() < TO_GREET {
            Ok(())
        } else {
            Err(RankError::Cancelled)
        }
    };
    let Ok(Hello {
        rank,
        secret: theirs,
        version,
        pid,
        location,
    }) = link.receive(in_time)
    else {
        return Ok(None);
    };
    if theirs != secret {
        return Ok(None);
    }
    let (own, host) = (env!("CARGO_PKG_VERSION"), &location.host);
    if version != own {
        let cause = format!(
            "it is version {version} of the program on {host}, rank 0 is {own}: install the same on all hosts, then start again"
        );
        // It ends in any case.
        let _ = link.send_failure(&cause);
        return Err(RankError::Start { rank, cause });
    }
    let link = link.named(format!("rank {rank} (pid {pid} on {host})"));
    Ok(Some(Peer {
        rank,
        link,
        location,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Location;
    use super::*;

    #[test]
    fn another_version_of_the_program_is_refused_on_both_sides() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let other = std::thread::spawn(move || {
            let link = Link::over(
                TcpStream::connect(address).unwrap(),
                "rank 0".to_owned(),
                SILENCE_TIMEOUT,
            )
            .unwrap();
            let (secret, version) = ("secret".to_owned(), "0.0.1".to_owned());
            link.send(&Hello {
                rank: 1,
                secret,
                version,
                pid: 7,
                location: Location::own(""),
            })
            .unwrap();
            link.receive::<u32>(|| Ok(())).unwrap_err().to_string()
        });
        let error = gather(&listener, 2, "secret", Duration::from_secs(20), "", || {
            Ok(())
        })
        .map(drop)
        .unwrap_err();
        let (here, there) = (error.to_string(), other.join().unwrap());
        for message in [&here, &there] {
            assert!(
                message.contains("it is version 0.0.1 of the program on "),
                "{message}"
            );
            assert!(
                message.ends_with("install the same on all hosts, then start again"),
                "{message}"
            );
        }
        assert!(here.starts_with("rank 1 did not start: "), "{here}");
    }
}
