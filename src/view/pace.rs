//! When a picture is due: a key at once, what runs bring at most so often, nothing where nothing happened.

use std::time::{Duration, Instant};

/// Time between pictures that data causes: on this machine, over SSH, over a slow link.
pub(super) const LOCAL: Duration = Duration::from_millis(33);
pub(super) const REMOTE: Duration = Duration::from_millis(125);
pub(super) const LOW_BANDWIDTH: Duration = Duration::from_secs(2);

/// What has happened since the last picture.
#[derive(Debug, Default)]
pub(super) struct Pace {
    changed: bool,
    by_user: bool,
    last: Option<Instant>,
}

impl Pace {
    /// Something may look different now; `by_user`: because of a key, the mouse or a new size.
    pub(super) fn changed(&mut self, by_user: bool) {
        self.changed = true;
        self.by_user |= by_user;
    }

    /// When the next picture is due, with `gap` between those that data causes; `None` where nothing happened.
    pub(super) fn due(&self, now: Instant, gap: Duration) -> Option<Instant> {
        let waited = self.last.map_or(now, |last| last + gap);
        self.changed.then_some(if self.by_user { now } else { waited.max(now) })
    }

    /// A picture was drawn.
    pub(super) fn drawn(&mut self, now: Instant) {
        *self = Self { changed: false, by_user: false, last: Some(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_at_once_and_data_waits_its_turn() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = Pace::default();
        assert_eq!(pace.due(start, LOCAL), None);
        pace.changed(false);
        assert_eq!(pace.due(start, LOCAL), Some(start), "the first picture waits for nothing");
        pace.drawn(start);
        assert_eq!(pace.due(at(100), LOCAL), None, "nothing happened");
        pace.changed(false);
        assert_eq!(pace.due(at(10), LOCAL), Some(at(33)));
        assert_eq!(pace.due(at(10), LOW_BANDWIDTH), Some(at(2000)));
        assert_eq!(pace.due(at(50), LOCAL), Some(at(50)), "it is late already");
        pace.changed(true);
        assert_eq!(pace.due(at(10), LOW_BANDWIDTH), Some(at(10)));
        pace.drawn(at(10));
        assert_eq!(pace.due(at(11), LOCAL), None);
    }
}
