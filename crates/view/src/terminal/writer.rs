//! Writes frames on its own thread: a slow link delays neither keys nor runs, and gets the latest frame when it is
//! ready.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The thread that writes to the terminal. It takes one frame at a time: the next is drawn once that is written.
#[derive(Debug)]
pub(super) struct Writer {
    wake: SyncSender<()>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that the thread has not taken yet.
    pending: Mutex<Vec<u8>>,
    busy: AtomicBool,
    failed: AtomicBool,
    bytes: AtomicU64,
}

impl Writer {
    pub(super) fn start(
        output: impl Write + Send + 'static,
        on_written: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let state = Arc::new(State::default());
        let of_thread = Arc::clone(&state);
        let writing = move || write(output, &woken, &of_thread, &on_written);
        std::thread::Builder::new()
            .name("frames".to_owned())
            .spawn(writing)?;
        Ok(Self { wake, state })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state.busy.load(Ordering::Acquire)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state.failed.load(Ordering::Acquire)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Queues bytes; while the writer is busy only small ones such as a clipboard sequence come.
    pub(super) fn write(&self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let mut pending = self.state.pending.lock();
        pending.extend(bytes);
        self.state.busy.store(true, Ordering::Release);
        drop(pending);
        // A full channel: the thread is about to take them.
        let _ = self.wake.try_send(());
    }

    /// Waits at most this long until everything is written; false if it is not.
    pub(super) fn finish(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_busy() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.is_busy()
    }
}

fn write(mut output: impl Write, woken: &Receiver<()>, state: &State, on_written: &dyn Fn()) {
    while woken.recv().is_ok() {
        loop {
            let bytes = std::mem::take(&mut *state.pending.lock());
            if bytes.is_empty() {
                break;
            }
            if output
                .write_all(&bytes)
                .and_then(|()| output.flush())
                .is_err()
            {
                state.failed.store(true, Ordering::Release);
            }
            state.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let pending = state.pending.lock();
            state.busy.store(!pending.is_empty(), Ordering::Release);
            drop(pending);
            on_written();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Blocks each write until the test allows it.
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
        let ((open, gate), (record_size, sizes), (on_written, written)) =
            (channel(), channel(), channel());
        let writer = Writer::start(Gate(gate, record_size), move || {
            on_written.send(()).unwrap()
        })
        .unwrap();
        assert!(!writer.is_busy());
        writer.write(vec![0; 10]);
        assert!(
            writer.is_busy(),
            "it is written only when the terminal takes it"
        );
        open.send(()).unwrap();
        written.recv().unwrap();
        assert!(!writer.is_busy() && !writer.has_failed());
        assert_eq!((sizes.recv().unwrap(), writer.bytes()), (10, 10));
        // Bytes that come while it is busy are written after it, all of them.
        writer.write(vec![0; 1]);
        for count in 2..=5 {
            writer.write(vec![0; count]);
        }
        let mut rest = 15;
        while rest > 0 {
            open.send(()).unwrap();
            rest -= sizes.recv().unwrap();
            written.recv().unwrap();
        }
        assert!(!writer.is_busy() && writer.bytes() == 25);
        drop(open);
        writer.write(vec![0; 3]);
        written.recv().unwrap();
        assert!(writer.has_failed());
    }
}
