//! The worker's ear: a thread that accepts clients, looks into the drop box, keeps the socket where it was said to be, and shows that the worker lives.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::answer::{Answer, AnswerLine};
use super::file_queue::RequestFolder;
use super::handler::RequestHandler;
use super::queue::{ReplyFn, RequestQueue, Stop};
use super::socket::{Bound, peer_user, remove_dead_sockets, stranger};
use super::socket_path::socket_name;
use super::{LONGEST_REQUEST, PROTOCOL_VERSION};
use crate::run::error::RunError;
use crate::run::liveness::HEARTBEAT;
use crate::run::lock::{FolderIdentity, RunLock};
use crate::run::worker_state::{StateWriter, Status};
use crate::run::writer::{is_gone, lost_log};

/// How often the drop box, the socket's file and the stop flag are looked at.
const ROUND: Duration = Duration::from_millis(500);
/// A started request must be whole, and an answer taken, within this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// A client that says nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(600);
/// Clients at once.
const MOST_CLIENTS: usize = 32;
/// Where there are as many, one that has been idle for so long makes room for a new one.
const GIVES_WAY: Duration = Duration::from_secs(1);
/// How long a loop that was told to stop at once may take before the process is ended over its head.
const GRACE: Duration = Duration::from_secs(10);

/// Hears requests for as long as it lives. Dropping it tells everyone who still waits, and removes the socket.
#[derive(Debug)]
pub struct ControlServer {
    controls: RequestQueue,
    closing: Arc<AtomicBool>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
    notes: Vec<String>,
}

impl ControlServer {
    /// Begin to hear requests for the run whose lock this process holds. `folders`: where the socket may be, see [`super::socket_folders`].
    ///
    /// Where no socket can be bound, requests by file still come through, and the other way round; [`Self::notes`] says why.
    ///
    /// # Errors
    /// [`RunError::Io`] where the system has no thread or socket left, or `state.json` cannot be written.
    pub fn start(lock: &RunLock, mut state: StateWriter, controls: RequestQueue, folders: Vec<PathBuf>) -> Result<Self, RunError> {
        let failed = |error| RunError::io("listen for requests in", lock.run())(error);
        let (wake, woken) = UnixStream::pair().map_err(failed)?;
        let mut notes = Vec::new();
        let drop_box = RequestFolder::open(lock.run()).map_err(|error| notes.push(format!("cannot accept requests: {error}"))).ok();
        remove_dead_sockets(&folders);
        let name = socket_name(lock.run());
        let bound =
            Bound::bind(&folders, &name).map_err(|errors| notes.extend(errors.iter().map(|error| format!("no control socket: {error}"))));
        let bound = bound.ok();
        state.socket(bound.as_ref().map(|bound| bound.path.clone()))?;
        let closing = Arc::new(AtomicBool::new(false));
        let log = Some(lock.run().join("events.jsonl")).filter(|log| log.exists());
        let keeper = Keeper {
            footing: lock.footing(),
            log,
            desk: RequestHandler { controls: controls.clone(), state },
            folders,
            name,
            bound,
            drop_box,
            woken,
            closing: Arc::clone(&closing),
            clients: Clients::default(),
            stop_since: None,
        };
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(|| keeper.keep()).map_err(failed)?;
        Ok(Self { controls, closing, wake, thread: Some(thread), notes })
    }

    /// What could not be set up, as sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.controls.close();
        let _ = self.wake.write_all(b"x");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Keeper {
    footing: FolderIdentity,
    /// The log, of a worker that has one.
    log: Option<PathBuf>,
    desk: RequestHandler,
    folders: Vec<PathBuf>,
    name: String,
    bound: Option<Bound>,
    drop_box: Option<RequestFolder>,
    woken: UnixStream,
    closing: Arc<AtomicBool>,
    clients: Clients,
    /// Since when the loop has been told to stop at once.
    stop_since: Option<Instant>,
}

impl Keeper {
    fn keep(mut self) {
        let mut last_round = Instant::now();
        while !self.closing.load(Ordering::Relaxed) {
            self.wait(ROUND.saturating_sub(last_round.elapsed()));
            self.accept();
            if last_round.elapsed() >= ROUND {
                last_round = Instant::now();
                self.round();
            }
        }
        self.bound = None;
        let _ = self.desk.state.socket(None);
    }

    /// Until a client comes, the server is dropped, or `longest` has passed.
    fn wait(&self, longest: Duration) {
        let mut waited_for = vec![PollFd::new(&self.woken, PollFlags::IN)];
        waited_for.extend(self.bound.iter().map(|bound| PollFd::new(&bound.listener, PollFlags::IN)));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(longest.subsec_nanos()) };
        // An interrupted wait is a short one.
        let _ = poll(&mut waited_for, Some(&timeout));
    }

    fn accept(&self) {
        while let Some(Ok((stream, _))) = self.bound.as_ref().map(|bound| bound.listener.accept()) {
            // Out of descriptors, the client sees its connection closed.
            let Ok(seat) = stream.try_clone().map(|stream| self.clients.seat(stream)) else { continue };
            let client = Client { desk: self.desk.clone(), closing: Arc::clone(&self.closing), seat };
            // Without a thread to spare, the client sees its connection closed and tries the drop box.
            let _ = std::thread::Builder::new().name("client".to_owned()).spawn(move || client.converse(stream));
        }
    }

    fn round(&mut self) {
        if let Err(error) = self.stands() {
            self.desk.controls.lose(error.to_string());
            return self.handle_stop(Stop::Now);
        }
        if let Some(drop_box) = &self.drop_box {
            drop_box.poll(&self.desk);
        }
        if !self.bound.as_ref().is_some_and(Bound::stands) {
            self.bound = None;
            self.bound = Bound::bind(&self.folders, &self.name).ok();
            // A disk that cannot take it is the loop's to report; clients also look where the socket would be by its name.
            let _ = self.desk.state.socket(self.bound.as_ref().map(|bound| bound.path.clone()));
        }
        let _ = self.desk.state.beat(HEARTBEAT);
        if let Some(stop) = self.desk.controls.stop_requested() {
            self.handle_stop(stop);
        }
    }

    /// Whether the worker still has its folder and its log.
    fn stands(&self) -> Result<(), RunError> {
        self.footing.check()?;
        self.log.as_ref().filter(|log| is_gone(log)).map_or(Ok(()), |log| Err(lost_log(log)))
    }

    fn handle_stop(&mut self, stop: Stop) {
        let (state, lost) = (&self.desk.state, self.desk.controls.lost());
        if !matches!(state.now().status, Status::Stopping) {
            let _ = state.turn(Status::Stopping, Some(lost.clone().unwrap_or_else(|| "stop requested".to_owned())));
        }
        if stop == Stop::Now && self.stop_since.get_or_insert_with(Instant::now).elapsed() >= GRACE {
            if let Some(why) = &lost {
                // Into the worker's own log, on the way to `_exit`.
                eprintln!("error: {}", crate::secrets::visible(why));
                state.follow(why);
            }
            // What was accepted is kept, and the next worker records it.
            let why = lost.unwrap_or_else(|| "stopped now, as requested; resume continues from the last checkpoint".to_owned());
            let _ = state.turn(Status::Interrupted, Some(why));
            self.bound = None;
            // SAFETY: `_exit` ends the process without running anything more of it; what must last is on the disk at every moment, and the kernel
            // releases the run's lock. `std::process::exit` would run a driver's exit handlers while the loop still computes.
            unsafe { libc::_exit(130) };
        }
    }
}

/// The clients that are connected.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<Vec<Arc<Seated>>>>);

/// One of them.
struct Seated {
    stream: UnixStream,
    heard: Mutex<Instant>,
    /// Requests that wait for their last answer.
    owed: AtomicUsize,
    dismissed: AtomicBool,
}

/// A client's place, given back when dropped; `None` within where there was none left.
struct Seat(Clients, Option<Arc<Seated>>);

impl Clients {
    /// A place for a client, if need be that of the one which has been idle the longest.
    fn seat(&self, stream: UnixStream) -> Seat {
        let mut seated = self.locked();
        if seated.len() >= MOST_CLIENTS {
            let idle = seated.iter().enumerate().filter(|(_, client)| client.is_idle());
            let Some((place, _)) = idle.min_by_key(|(_, client)| client.last_heard()) else { return Seat(self.clone(), None) };
            let client = seated.swap_remove(place);
            client.dismissed.store(true, Ordering::Relaxed);
            // Its thread wakes, and tells it.
            let _ = client.stream.shutdown(std::net::Shutdown::Read);
        }
        let heard = Mutex::new(Instant::now());
        let client = Arc::new(Seated { stream, heard, owed: AtomicUsize::new(0), dismissed: AtomicBool::new(false) });
        seated.push(Arc::clone(&client));
        Seat(self.clone(), Some(client))
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Arc<Seated>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seated {
    fn last_heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        self.owed.load(Ordering::Relaxed) == 0 && self.last_heard().elapsed() >= GIVES_WAY
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(client) = &self.1 {
            self.0.locked().retain(|other| !Arc::ptr_eq(other, client));
        }
    }
}

struct Client {
    desk: RequestHandler,
    closing: Arc<AtomicBool>,
    seat: Seat,
}

impl Client {
    /// Hear one client until it goes, breaks the rules, or falls silent.
    fn converse(self, mut stream: UnixStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(ROUND))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let peer = peer_user(&stream)?;
        let voice = Arc::new(Mutex::new(stream.try_clone()?));
        let refuse = |why: String| {
            say(&voice, "", &Answer::refused(why));
            Ok(())
        };
        if let Some(why) = stranger(peer) {
            return refuse(format!("the client {why}"));
        }
        let Some(seated) = &self.seat.1 else { return refuse(format!("{MOST_CLIENTS} clients are connected already")) };
        let mut buffer: Vec<u8> = Vec::new();
        let mut chunk = vec![0u8; 8192];
        let mut begun = Instant::now();
        while !self.closing.load(Ordering::Relaxed) && seated.last_heard().elapsed() < IDLE {
            match stream.read(&mut chunk) {
                Ok(0) if seated.dismissed.load(Ordering::Relaxed) => {
                    return refuse(format!("more than {MOST_CLIENTS} clients are connected, and this one was idle the longest"));
                }
                Ok(0) => return Ok(()),
                Ok(length) => {
                    let now = Instant::now();
                    *seated.heard.lock().unwrap_or_else(PoisonError::into_inner) = now;
                    if buffer.is_empty() {
                        begun = now;
                    }
                    buffer.extend_from_slice(&chunk[..length]);
                }
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                seated.owed.fetch_add(1, Ordering::Relaxed);
                self.desk.handle(&line, peer, |id| reply(&voice, seated, id));
                begun = Instant::now();
            }
            if buffer.len() > LONGEST_REQUEST {
                return refuse(format!("the request is longer than {LONGEST_REQUEST} bytes"));
            }
            if !buffer.is_empty() && begun.elapsed() >= PATIENCE {
                return refuse(format!("the request did not end within {} s; end it with a newline", PATIENCE.as_secs()));
            }
        }
        Ok(())
    }
}

fn reply(voice: &Arc<Mutex<UnixStream>>, seated: &Arc<Seated>, id: &str) -> ReplyFn {
    let (voice, seated, id) = (Arc::clone(voice), Arc::clone(seated), id.to_owned());
    Arc::new(move |answer: &Answer| {
        say(&voice, &id, answer);
        if answer.is_last() {
            seated.owed.fetch_sub(1, Ordering::Relaxed);
        }
    })
}

/// One line; a client that has gone, or does not listen, misses it.
fn say(voice: &Mutex<UnixStream>, id: &str, answer: &Answer) {
    let line = AnswerLine { v: PROTOCOL_VERSION, id: id.to_owned(), answer: answer.clone() };
    if let Ok(mut line) = serde_json::to_vec(&line) {
        line.push(b'\n');
        let mut voice = voice.lock().unwrap_or_else(PoisonError::into_inner);
        if voice.write_all(&line).is_err() {
            // A part of a line may be out; what followed would be glued to it.
            let _ = voice.shutdown(std::net::Shutdown::Both);
        }
    }
}
