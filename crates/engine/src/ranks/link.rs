//! A connection between two ranks: ordered messages, and heartbeats both ways, to notice a dead or
//! hanging peer while computing.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RankError;

/// Header: kind, and length as u64, little-endian.
const HEADER_BYTES: usize = 9;
const ALIVE: u8 = 0;
const MESSAGE: u8 = 1;
const BYTES: u8 = 2;
const FAILURE: u8 = 3;

/// Limit of messages before authentication.
const MAX_UNAUTHENTICATED_BYTES: u64 = 4096;
/// Interval of checks while waiting.
const ROUND: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Link {
    /// The other rank, for messages.
    peer: String,
    stream: Arc<Mutex<TcpStream>>,
    received: Mutex<Receiver<Message>>,
    lost: Arc<Lost>,
    is_known: Arc<AtomicBool>,
    timeout: Duration,
}

struct Message {
    kind: u8,
    bytes: Vec<u8>,
}

/// Set once the other rank is gone, with the reason.
#[derive(Debug, Default)]
pub(super) struct Lost(OnceLock<Cause>);

#[derive(Debug)]
enum Cause {
    /// Reported by the rank itself.
    Failed(String),
    Lost(String),
}

impl Lost {
    pub(super) fn is_known(&self) -> bool {
        self.0.get().is_some()
    }
}

impl Link {
    /// Wraps a connection to `peer`, lost after `timeout` without a heartbeat.
    pub(super) fn over(stream: TcpStream, peer: String, timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        // Half, as two timeouts in a row count: a process suspended with its peers sees a jump in
        // time.
        stream.set_read_timeout(Some(timeout / 2))?;
        stream.set_write_timeout(Some(timeout))?;
        let lost = Arc::<Lost>::default();
        let (sender, received) = mpsc::channel();
        let is_known = Arc::<AtomicBool>::default();
        let reading = RetriedRead(stream.try_clone()?);
        let because = Arc::clone(&lost);
        let known = Arc::clone(&is_known);
        thread("rank-receive", move || {
            let cause = read(reading, &sender, &known, timeout);
            let _ = because.0.set(cause);
        })?;
        let stream = Arc::new(Mutex::new(stream));
        let (writing, because) = (Arc::downgrade(&stream), Arc::clone(&lost));
        thread("rank-alive", move || {
            while let (Some(stream), false) = (writing.upgrade(), because.is_known()) {
                if write(&mut stream.lock(), ALIVE, &[]).is_err() {
                    break;
                }
                drop(stream);
                std::thread::sleep(timeout / 8);
            }
        })?;
        Ok(Self {
            peer,
            stream,
            received: Mutex::new(received),
            lost,
            is_known,
            timeout,
        })
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Names the authenticated peer, whose messages may then be of any length.
    pub(super) fn named(mut self, peer: String) -> Self {
        self.is_known.store(true, Ordering::Relaxed);
        self.peer = peer;
        self
    }

    pub(super) fn lost(&self) -> Arc<Lost> {
        Arc::clone(&self.lost)
    }

    pub(super) fn check(&self) -> Result<(), RankError> {
        self.lost
            .0
            .get()
            .map_or(Ok(()), |cause| Err(self.error(cause)))
    }

    pub(super) fn send<M: Serialize>(&self, message: &M) -> Result<(), RankError> {
        self.write(MESSAGE, &rmp_serde::to_vec_named(message)?)
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) -> Result<(), RankError> {
        self.write(BYTES, bytes)
    }

    pub(super) fn send_failure(&self, why: &str) -> Result<(), RankError> {
        self.write(FAILURE, why.as_bytes())
    }

    /// Waits for a message while `check` succeeds.
    pub(super) fn receive<M: DeserializeOwned>(
        &self,
        check: impl Fn() -> Result<(), RankError>,
    ) -> Result<M, RankError> {
        Ok(rmp_serde::from_slice(&self.next(MESSAGE, check)?)?)
    }

    pub(super) fn receive_bytes(
        &self,
        check: impl Fn() -> Result<(), RankError>,
    ) -> Result<Vec<u8>, RankError> {
        self.next(BYTES, check)
    }

    fn next(
        &self,
        expected: u8,
        check: impl Fn() -> Result<(), RankError>,
    ) -> Result<Vec<u8>, RankError> {
        loop {
            match self.received.lock().recv_timeout(ROUND) {
                Ok(Message { kind, bytes }) if kind == expected => return Ok(bytes),
                Ok(_) => {
                    return Err(
                        self.error(&Cause::Lost("it sent what nobody asked for".to_owned()))
                    );
                }
                Err(RecvTimeoutError::Timeout) => check()?,
                // The reader has ended and recorded why.
                Err(RecvTimeoutError::Disconnected) => {
                    self.check()?;
                    return Err(self.error(&Cause::Lost("the connection was closed".to_owned())));
                }
            }
        }
    }

    fn write(&self, kind: u8, bytes: &[u8]) -> Result<(), RankError> {
        let Err(error) = write(&mut self.stream.lock(), kind, bytes) else {
            return Ok(());
        };
        // A failing rank reports before it closes the connection.
        self.check()?;
        Err(self.error(&Cause::Lost(why(&error, self.timeout))))
    }

    fn error(&self, cause: &Cause) -> RankError {
        let peer = self.peer.clone();
        match cause {
            Cause::Failed(message) => RankError::Failed {
                peer,
                message: message.clone(),
            },
            Cause::Lost(cause) => RankError::Lost {
                peer,
                cause: cause.clone(),
            },
        }
    }
}

/// A connection that only ends on the second timeout.
struct RetriedRead(TcpStream);

impl Read for RetriedRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let is_late = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            )
        };
        match self.0.read(buffer) {
            Err(error) if is_late(&error) => self.0.read(buffer),
            result => result,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Ends both threads, here and there.
        let _ = self.stream.lock().shutdown(Shutdown::Both);
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(|_| ())
}

fn write(stream: &mut TcpStream, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    header[0] = kind;
    header[1..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    stream.write_all(&header)?;
    stream.write_all(bytes)
}

/// Forwards messages until the connection ends; returns why.
fn read(
    mut stream: RetriedRead,
    to: &Sender<Message>,
    is_known: &AtomicBool,
    timeout: Duration,
) -> Cause {
    loop {
        match read_one(&mut stream, is_known) {
            Ok(Message { kind: ALIVE, .. }) => {}
            Ok(Message {
                kind: FAILURE,
                bytes,
            }) => return Cause::Failed(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(message) => {
                if to.send(message).is_err() {
                    return Cause::Lost("nobody listens any more".to_owned());
                }
            }
            Err(error) => return Cause::Lost(why(&error, timeout)),
        }
    }
}

/// Why a connection ended.
fn why(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        // Reset: it ended with unread data.
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "the connection was closed".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no sign of life for {} s", timeout.as_secs_f64())
        }
        _ => error.to_string(),
    }
}

fn read_one(stream: &mut RetriedRead, is_known: &AtomicBool) -> io::Result<Message> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let length = header[1..].try_into().map_or(0, u64::from_le_bytes);
    if length > MAX_UNAUTHENTICATED_BYTES && !is_known.load(Ordering::Relaxed) {
        return Err(io::Error::other(
            "it sent a long message without saying who it is",
        ));
    }
    let mut bytes = Vec::new();
    // Grows with arriving data: a claimed length reserves nothing.
    if stream.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Message {
        kind: header[0],
        bytes,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    fn pair(timeout: Duration) -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (
            Link::over(listener.accept().unwrap().0, "rank 1".to_owned(), timeout).unwrap(),
            there,
        )
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let timeout = Duration::from_secs(5);
        let (here, there) = pair(timeout);
        let here = here.named("rank 1".to_owned());
        let there = Link::over(there, "rank 0".to_owned(), timeout).unwrap();
        let numbers: Vec<f64> = vec![f64::NAN, -0.0, 1e300];
        there.send(&(7_u32, &numbers)).unwrap();
        there.send_bytes(&[9; 3_000_000]).unwrap();
        let (count, found): (u32, Vec<f64>) = here.receive(|| Ok(())).unwrap();
        assert_eq!(
            (count, found.len(), found[0].to_bits()),
            (7, 3, f64::NAN.to_bits())
        );
        assert_eq!(here.receive_bytes(|| Ok(())).unwrap(), vec![9; 3_000_000]);
        there.send_failure("out of paper").unwrap();
        let error = here.receive::<u32>(|| Ok(())).unwrap_err().to_string();
        assert_eq!(error, "rank 1: out of paper");
        drop(there);
        assert_eq!(
            here.check().unwrap_err().to_string(),
            "rank 1: out of paper"
        );
    }

    #[test]
    fn waiting_ends_when_there_is_a_reason_and_strangers_say_little() {
        let (here, there) = pair(Duration::from_secs(5));
        let error = here
            .receive::<u32>(|| Err(RankError::Cancelled))
            .unwrap_err();
        assert!(matches!(error, RankError::Cancelled));
        let there = Link::over(there, "rank 0".to_owned(), Duration::from_secs(5)).unwrap();
        there.send_bytes(&[0; 5000]).unwrap();
        let error = here.receive_bytes(|| Ok(())).unwrap_err().to_string();
        assert!(
            error.contains("a long message without saying who it is"),
            "{error}"
        );
    }

    #[test]
    fn who_is_gone_or_silent_is_noticed_without_asking() {
        let until_lost = |link: &Link| {
            let start = Instant::now();
            while !link.lost().is_known() {
                assert!(start.elapsed() < Duration::from_secs(10), "never noticed");
                std::thread::sleep(Duration::from_millis(5));
            }
            link.check().unwrap_err().to_string()
        };
        let (here, there) = pair(Duration::from_secs(5));
        drop(there);
        assert_eq!(
            until_lost(&here),
            "rank 1 was lost: the connection was closed"
        );
        assert!(here.receive::<u32>(|| Ok(())).is_err());
        // A suspended process keeps its connections open.
        let (here, there) = pair(Duration::from_millis(50));
        assert_eq!(
            until_lost(&here),
            "rank 1 was lost: no sign of life for 0.05 s"
        );
        drop(there);
    }
}
