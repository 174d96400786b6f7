//! A thread that records the device's condition as events every few seconds.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::run::EventWriter;
use crate::run::events::Device;

pub(super) const EVERY: Duration = Duration::from_secs(5);

/// The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct DeviceMonitor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DeviceMonitor {
    /// Records `condition` immediately and then at the interval `every`.
    pub(super) fn start(
        events: Arc<Mutex<EventWriter>>,
        every: Duration,
        mut condition: impl FnMut() -> Device + Send + 'static,
    ) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            loop {
                let now = condition();
                // A full disk is reported by the worker's own next event.
                let _ = events.lock().unwrap_or_else(PoisonError::into_inner).append(now);
                if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for DeviceMonitor {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::run::{EventBody, EventReader, RunLock};

    #[test]
    fn the_condition_is_written_until_nobody_watches() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::acquire(folder.path()).unwrap();
        let events = Arc::new(Mutex::new(EventWriter::open(&lock).unwrap()));
        let (sender, receiver) = channel();
        let mut count = 0;
        let watch = DeviceMonitor::start(Arc::clone(&events), Duration::from_millis(1), move || {
            count += 1;
            let _ = sender.send(count);
            Device { device: "a GPU".to_owned(), power_watts: Some(f64::from(count)), ..Device::default() }
        });
        while receiver.recv().unwrap() < 3 {}
        drop(watch);
        let seen = EventReader::new(&folder.path().join("events.jsonl")).read().unwrap().events;
        assert!(seen.len() >= 3, "{seen:?}");
        for (index, event) in seen.iter().enumerate() {
            assert!(
                matches!(&event.body, EventBody::Device(device) if device.power_watts == Some(index as f64 + 1.0)),
                "{event:?}"
            );
            assert_eq!(event.seq, index as u64 + 1);
        }
    }
}
