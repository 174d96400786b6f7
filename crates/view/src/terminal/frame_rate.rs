//! When a frame is due: at once after a key, soon for its effects, a few times a second for run updates, never without
//! a change.

use std::time::{Duration, Instant};

/// Limits on frames that data causes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// The minimum time between two frames while the user is active.
    gap: Duration,
    /// The same while only runs change.
    watching: Duration,
    /// The next frame waits until its predecessor's bytes fit into this rate.
    bytes_per_second: u64,
    /// The same while only runs change.
    watching_bytes_per_second: u64,
}

pub(super) const LOCAL: Allowance = Allowance {
    gap: Duration::from_millis(33),
    watching: Duration::from_millis(250),
    bytes_per_second: u64::MAX,
    watching_bytes_per_second: 6_000,
};
pub(super) const REMOTE: Allowance = Allowance {
    gap: Duration::from_millis(125),
    bytes_per_second: 6_000,
    ..LOCAL
};
pub(super) const LOW_BANDWIDTH: Allowance = Allowance {
    gap: Duration::from_secs(2),
    watching: Duration::from_secs(2),
    bytes_per_second: 700,
    watching_bytes_per_second: 700,
};

/// Linear mode prints what a run does in batches: readers take lines one after the other.
pub(super) const LINEAR: Allowance = Allowance {
    gap: Duration::from_millis(250),
    watching: Duration::from_secs(10),
    watching_bytes_per_second: u64::MAX,
    ..LOCAL
};

/// A change within this time after a key counts as its effect.
const ACTIVE: Duration = Duration::from_secs(1);

/// Schedules the next frame by the events since the last one.
#[derive(Debug, Default)]
pub(super) struct FrameScheduler {
    changed: bool,
    by_user: bool,
    /// The time of the user's last activity that a frame has shown.
    acted: Option<Instant>,
    last: Option<Instant>,
    last_bytes: u64,
}

impl FrameScheduler {
    /// Records a change; `by_user`: caused by a key, the mouse or a resize.
    pub(super) fn changed(&mut self, by_user: bool) {
        self.changed = true;
        self.by_user |= by_user;
    }

    /// Treats all changes from now on as the effect of a key.
    pub(super) fn is_effect(&mut self, now: Instant) {
        self.acted = Some(now);
    }

    /// When the next frame is due; `None` if nothing changed. Input is never delayed.
    pub(super) fn due(&self, now: Instant, allowance: Allowance) -> Option<Instant> {
        let is_active = self
            .acted
            .is_some_and(|acted| now.saturating_duration_since(acted) < ACTIVE);
        let (gap, rate) = match is_active {
            true => (allowance.gap, allowance.bytes_per_second),
            false => (allowance.watching, allowance.watching_bytes_per_second),
        };
        let paid = Duration::from_millis(self.last_bytes.saturating_mul(1000) / rate);
        let waited = self.last.map_or(now, |last| last + gap.max(paid));
        self.changed
            .then_some(if self.by_user { now } else { waited.max(now) })
    }

    pub(super) fn drawn(&mut self, now: Instant, bytes: usize) {
        let acted = if self.by_user { Some(now) } else { self.acted };
        *self = Self {
            changed: false,
            by_user: false,
            acted,
            last: Some(now),
            last_bytes: bytes as u64,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_at_once_and_data_waits_its_turn() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut scheduler = FrameScheduler::default();
        assert_eq!(scheduler.due(start, LOCAL), None);
        scheduler.changed(false);
        assert_eq!(
            scheduler.due(start, LOCAL),
            Some(start),
            "the first frame waits for nothing"
        );
        scheduler.drawn(start, 70);
        assert_eq!(scheduler.due(at(100), LOCAL), None, "nothing happened");
        scheduler.changed(false);
        assert_eq!(scheduler.due(at(10), LOCAL), Some(at(250)));
        assert_eq!(scheduler.due(at(10), LOW_BANDWIDTH), Some(at(2000)));
        assert_eq!(
            scheduler.due(at(300), LOCAL),
            Some(at(300)),
            "it is late already"
        );
        scheduler.changed(true);
        assert_eq!(scheduler.due(at(10), LOW_BANDWIDTH), Some(at(10)));
        scheduler.drawn(at(10), 1400);
        assert_eq!(scheduler.due(at(11), LOCAL), None);
        scheduler.changed(false);
        assert_eq!(
            scheduler.due(at(11), LOCAL),
            Some(at(43)),
            "what comes of a key comes soon"
        );
        assert_eq!(scheduler.due(at(1100), LOCAL), Some(at(1100)));
        assert_eq!(
            scheduler.due(at(11), REMOTE),
            Some(at(243)),
            "1400 bytes at 6000 a second"
        );
        scheduler.drawn(at(1200), 70);
        scheduler.changed(false);
        assert_eq!(
            scheduler.due(at(1210), LOCAL),
            Some(at(1450)),
            "the user only watches now"
        );
        scheduler.drawn(at(1450), 3000);
        scheduler.changed(false);
        assert_eq!(
            scheduler.due(at(1460), LOCAL),
            Some(at(1950)),
            "3000 bytes at 6000 a second"
        );
        scheduler.drawn(at(20), 3500);
        scheduler.changed(false);
        assert_eq!(scheduler.due(at(30), LOW_BANDWIDTH), Some(at(5020)));
    }
}
