//! A response body with a minimum speed: a trickling server counts as stalled.

use std::io::{Error, ErrorKind, Read, Result};
use std::time::{Duration, Instant};

use super::PullSettings;

/// Fails if a whole window is below the minimum rate.
pub(super) struct StallGuard<R> {
    reader: R,
    window: Duration,
    lowest_rate: u64,
    since: Instant,
    arrived: u64,
}

impl<R> StallGuard<R> {
    pub(super) fn new(reader: R, settings: &PullSettings) -> Self {
        Self {
            reader,
            window: settings.stall,
            lowest_rate: settings.lowest_rate,
            since: Instant::now(),
            arrived: 0,
        }
    }
}

impl<R: Read> Read for StallGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.reader.read(buffer)?;
        self.arrived += count as u64;
        let passed = self.since.elapsed();
        if passed >= self.window {
            let rate = self.arrived as f64 / passed.as_secs_f64();
            if count > 0 && rate < self.lowest_rate as f64 {
                return Err(Error::other(format!(
                    "the server sends {rate:.0} bytes per second, fewer than {}",
                    self.lowest_rate
                )));
            }
            (self.since, self.arrived) = (Instant::now(), 0);
        }
        Ok(count)
    }
}

pub(super) fn words(error: &Error) -> String {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<ureq::Error>())
    {
        Some(ureq::Error::Timeout(_)) => "the server stalled".to_owned(),
        _ if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            "the server stalled".to_owned()
        }
        _ => error.to_string(),
    }
}
