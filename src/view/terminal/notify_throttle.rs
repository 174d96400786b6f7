//! Rate limit of terminal notifications: no repeats, none in quick succession.

use std::time::{Duration, Instant};

const GAP: Duration = Duration::from_secs(5);
const SAME_AGAIN: Duration = Duration::from_secs(60);

/// What was notified lately.
#[derive(Debug, Default)]
pub(super) struct NotifyThrottle {
    last: Option<(Instant, String)>,
}

impl NotifyThrottle {
    /// Whether this one may go out now; if so it counts. An urgent one always may.
    pub(super) fn may(&mut self, now: Instant, text: &str, urgent: bool) -> bool {
        let quiet = urgent
            || self.last.as_ref().is_none_or(|(time, last)| {
                let gap = if last == text { SAME_AGAIN } else { GAP };
                now.saturating_duration_since(*time) >= gap
            });
        if quiet {
            self.last = Some((now, text.to_owned()));
        }
        quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_alerts_rings_once() {
        let start = Instant::now();
        let mut bells = NotifyThrottle::default();
        let mut check = |seconds, text, expected| {
            assert_eq!(bells.may(start + Duration::from_secs(seconds), text, false), expected, "{seconds} {text}")
        };
        check(0, "entropy", true);
        check(1, "truncation", false);
        check(6, "truncation", true);
        check(30, "truncation", false);
        check(31, "the end", true);
        check(91, "the end", true);
    }

    #[test]
    fn the_end_of_a_run_always_rings() {
        let start = Instant::now();
        let mut bells = NotifyThrottle::default();
        for (text, urgent, expected) in
            [("an alert", false, true), ("a has failed", true, true), ("b has failed", true, true), ("more", false, false)]
        {
            assert_eq!(bells.may(start, text, urgent), expected, "{text}");
        }
    }
}
