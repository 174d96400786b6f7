//! A thread that reads the device's condition every few seconds.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::run::events::Device;

pub(super) const EVERY: Duration = Duration::from_secs(5);

/// The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct DeviceMonitor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DeviceMonitor {
    /// Gives `condition` to `record` immediately and then at the interval `every`.
    pub(super) fn start(
        every: Duration,
        mut condition: impl FnMut() -> Device + Send + 'static,
        mut record: impl FnMut(Device) + Send + 'static,
    ) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            loop {
                record(condition());
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
    use std::sync::mpsc::TryRecvError;

    use super::*;

    #[test]
    fn the_condition_is_recorded_until_nobody_watches() {
        let (sender, receiver) = channel();
        let mut count = 0;
        let condition = move || {
            count += 1;
            Device { device: "a GPU".to_owned(), power_watts: Some(f64::from(count)), ..Device::default() }
        };
        let record = move |now: Device| _ = sender.send(now.power_watts);
        let monitor = DeviceMonitor::start(Duration::from_millis(1), condition, record);
        let first: Vec<Option<f64>> = receiver.iter().take(3).collect();
        assert_eq!(first, [Some(1.0), Some(2.0), Some(3.0)]);
        drop(monitor);
        // The thread has ended, and with it the sender.
        while receiver.try_recv().is_ok() {}
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    }
}
