//! Frames are written by their own thread: a slow link delays neither keys nor runs, and gets the latest frame when it
//! is ready.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The thread that writes to the terminal. It holds one picture at a time: whoever draws waits until that is written.
#[derive(Debug)]
pub(super) struct Writer {
    give: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    busy: AtomicBool,
    failed: AtomicBool,
    bytes: AtomicU64,
}

impl Writer {
    /// A writer; `tell` is called after each picture, from the thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        tell: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (give, given) = sync_channel(1);
        let state = Arc::new(State::default());
        let of_thread = Arc::clone(&state);
        let writing = move || write(output, &given, &of_thread, &tell);
        std::thread::Builder::new().name("pictures".to_owned()).spawn(writing)?;
        Ok(Self { give, state })
    }

    /// Whether the last picture is still on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.state.busy.load(Ordering::Acquire)
    }

    /// Whether the terminal takes nothing any more.
    pub(super) fn has_failed(&self) -> bool {
        self.state.failed.load(Ordering::Acquire)
    }

    /// All bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Write; while the writer is busy only small things such as a copied text may come, which wait their turn.
    pub(super) fn write(&self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.state.busy.store(true, Ordering::Release);
        let _ = self.give.try_send(bytes);
    }

    /// Wait until everything is written, at most this long; false where it is not.
    pub(super) fn finish(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_busy() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.is_busy()
    }
}

fn write(mut output: impl Write, given: &Receiver<Vec<u8>>, state: &State, tell: &dyn Fn()) {
    while let Ok(bytes) = given.recv() {
        if output.write_all(&bytes).and_then(|()| output.flush()).is_err() {
            state.failed.store(true, Ordering::Release);
        }
        state.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        state.busy.store(false, Ordering::Release);
        tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Takes a write only when it is let.
    struct Gate(Receiver<()>, std::sync::mpsc::Sender<usize>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.recv().map_err(std::io::Error::other)?;
            self.1.send(bytes.len()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_terminal_holds_up_nobody() {
        let ((open, gate), (tell_size, sizes), (tell, told)) = (channel(), channel(), channel());
        let writer = Writer::start(Gate(gate, tell_size), move || tell.send(()).unwrap()).unwrap();
        assert!(!writer.is_busy());
        writer.write(vec![0; 10]);
        assert!(writer.is_busy(), "it is written only when the terminal takes it");
        open.send(()).unwrap();
        told.recv().unwrap();
        assert!(!writer.is_busy() && !writer.has_failed());
        assert_eq!((sizes.recv().unwrap(), writer.bytes()), (10, 10));
        drop(open);
        writer.write(vec![0; 3]);
        told.recv().unwrap();
        assert!(writer.has_failed());
    }
}
