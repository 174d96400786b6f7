//! When a frame is due: at once after a key, soon for its effects, a few times a second for run updates, never without
//! a change.

use std::time::{Duration, Instant};

/// What pictures that data causes may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// The least time between two of them while the user does something.
    gap: Duration,
    /// The same while runs alone bring something: nobody reads faster.
    watching: Duration,
    /// After a picture the next one waits until this rate has paid for it.
    bytes_per_second: u64,
}

/// On this machine, over SSH, over a slow link.
pub(super) const LOCAL: Allowance =
    Allowance { gap: Duration::from_millis(33), watching: Duration::from_millis(250), bytes_per_second: u64::MAX };
pub(super) const REMOTE: Allowance =
    Allowance { gap: Duration::from_millis(125), watching: Duration::from_millis(250), bytes_per_second: 6_000 };
pub(super) const LOW_BANDWIDTH: Allowance =
    Allowance { gap: Duration::from_secs(2), watching: Duration::from_secs(2), bytes_per_second: 700 };

/// So long after a key what comes is taken for what came of it.
const ACTIVE: Duration = Duration::from_secs(1);

/// What has happened since the last picture.
#[derive(Debug, Default)]
pub(super) struct FrameScheduler {
    changed: bool,
    by_user: bool,
    /// When the user did something, as of the picture that showed it.
    acted: Option<Instant>,
    last: Option<Instant>,
    last_bytes: u64,
}

impl FrameScheduler {
    /// Something may look different now; `by_user`: because of a key, the mouse or a new size.
    pub(super) fn changed(&mut self, by_user: bool) {
        self.changed = true;
        self.by_user |= by_user;
    }

    /// When the next picture is due; `None` where nothing happened. Keys wait for nothing.
    pub(super) fn due(&self, now: Instant, allowance: Allowance) -> Option<Instant> {
        let paid = Duration::from_millis(self.last_bytes.saturating_mul(1000) / allowance.bytes_per_second);
        let is_active = self.acted.is_some_and(|acted| now.saturating_duration_since(acted) < ACTIVE);
        let gap = if is_active { allowance.gap } else { allowance.watching };
        let waited = self.last.map_or(now, |last| last + gap.max(paid));
        self.changed.then_some(if self.by_user { now } else { waited.max(now) })
    }

    /// A picture of so many bytes was drawn.
    pub(super) fn drawn(&mut self, now: Instant, bytes: usize) {
        let acted = if self.by_user { Some(now) } else { self.acted };
        *self = Self { changed: false, by_user: false, acted, last: Some(now), last_bytes: bytes as u64 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_at_once_and_data_waits_its_turn() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = FrameScheduler::default();
        assert_eq!(pace.due(start, LOCAL), None);
        pace.changed(false);
        assert_eq!(pace.due(start, LOCAL), Some(start), "the first picture waits for nothing");
        pace.drawn(start, 70);
        assert_eq!(pace.due(at(100), LOCAL), None, "nothing happened");
        pace.changed(false);
        assert_eq!(pace.due(at(10), LOCAL), Some(at(250)));
        assert_eq!(pace.due(at(10), LOW_BANDWIDTH), Some(at(2000)));
        assert_eq!(pace.due(at(300), LOCAL), Some(at(300)), "it is late already");
        pace.changed(true);
        assert_eq!(pace.due(at(10), LOW_BANDWIDTH), Some(at(10)));
        pace.drawn(at(10), 1400);
        assert_eq!(pace.due(at(11), LOCAL), None);
        pace.changed(false);
        assert_eq!(pace.due(at(11), LOCAL), Some(at(43)), "what comes of a key comes soon");
        assert_eq!(pace.due(at(1100), LOCAL), Some(at(1100)));
        assert_eq!(pace.due(at(11), REMOTE), Some(at(243)), "1400 bytes at 6000 a second");
        pace.drawn(at(1200), 70);
        pace.changed(false);
        assert_eq!(pace.due(at(1210), LOCAL), Some(at(1450)), "the user only watches now");
        pace.drawn(at(20), 3500);
        pace.changed(false);
        assert_eq!(pace.due(at(30), LOW_BANDWIDTH), Some(at(5020)));
    }
}
