//! Thread that reads the device's condition every few seconds.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::run::events::Device;

pub(super) const EVERY: Duration = Duration::from_secs(5);

/// A rank's device with its latest condition. Dropping it ends the reading thread.
#[derive(Debug)]
pub(super) struct DeviceMonitor {
    latest: Arc<Mutex<Device>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DeviceMonitor {
    /// A device of known name only.
    pub(super) fn named(device: String) -> Self {
        let latest = Arc::new(Mutex::new(Device {
            device,
            ..Device::default()
        }));
        Self {
            latest,
            stop: None,
            thread: None,
        }
    }

    /// Reads `condition` immediately and then every `every`; passes readings to `record`.
    pub(super) fn start(
        &mut self,
        every: Duration,
        mut condition: impl FnMut() -> Device + Send + 'static,
        mut record: impl FnMut(Device) + Send + 'static,
    ) {
        let ((stop, stopped), latest) = (channel::<()>(), Arc::clone(&self.latest));
        self.stop = Some(stop);
        self.thread = Some(std::thread::spawn(move || {
            loop {
                let now = condition();
                latest.lock().clone_from(&now);
                record(now);
                if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        }));
    }

    pub(super) fn latest(&self) -> Device {
        self.latest.lock().clone()
    }

    /// Returns once reading has stopped.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for DeviceMonitor {
    fn drop(&mut self) {
        self.stop();
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
            Device {
                device: "a GPU".to_owned(),
                power_watts: Some(f64::from(count)),
                ..Device::default()
            }
        };
        let record = move |now: Device| _ = sender.send(now.power_watts);
        let mut monitor = DeviceMonitor::named("a GPU".to_owned());
        assert_eq!(
            monitor.latest(),
            Device {
                device: "a GPU".to_owned(),
                ..Device::default()
            }
        );
        monitor.start(Duration::from_millis(1), condition, record);
        let first: Vec<Option<f64>> = receiver.iter().take(3).collect();
        assert_eq!(first, [Some(1.0), Some(2.0), Some(3.0)]);
        assert!(monitor.latest().power_watts >= Some(3.0));
        drop(monitor);
        // The thread has ended, and with it the sender.
        while receiver.try_recv().is_ok() {}
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    }
}
