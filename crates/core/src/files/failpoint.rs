//! Failpoints of tests: the process dies as by the OOM killer, panics or lingers at a named place,
//! or its clock jumps. Development builds only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `PLACE[=WHAT]:N[+MS]`: dies (panics at a panic point, fails at [`fails_at`]) at the Nth visit of
/// a place, or MS milliseconds later.
const DEATH: &str = "GRPO_TUI_FAULT";

/// `PLACE:MS`: delays every visit of a place.
const DELAY: &str = "GRPO_TUI_FAULT_DELAY";

/// `N:MS`: from the Nth reading on, shifts the wall clock by MS milliseconds, which may be
/// negative.
const CLOCK: &str = "GRPO_TUI_FAULT_CLOCK";

/// `SECONDS`: rendezvous timeout of a launcher's ranks.
const RENDEZVOUS: &str = "GRPO_TUI_FAULT_RENDEZVOUS";

#[derive(Debug)]
struct ArmedFailpoint {
    place: String,
    what: Option<String>,
    visit: u64,
    delay: Duration,
    visits: AtomicU64,
}

/// Dies or lingers if this place is armed. `place` is a name from the source, `what` distinguishes
/// visits: a kind of event, a file name.
pub fn failpoint(place: &str, what: &str) {
    static DELAYED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    if let Some((_, delay)) = DELAYED
        .get_or_init(|| pair(DELAY))
        .as_ref()
        .filter(|(delayed, _)| delayed == place)
    {
        std::thread::sleep(Duration::from_millis(*delay));
    }
    if is_armed(place, what) {
        die();
    }
}

/// Whether an operation should fail here; the process continues.
pub fn fails_at(place: &str, what: &str) -> bool {
    is_armed(place, what)
}

/// Panics if armed, as a bug would.
#[expect(clippy::panic, reason = "a test asks for this panic")]
pub fn panic_point(place: &str, what: &str) {
    if is_armed(place, what) {
        std::panic::panic_any(format!("the bug that {DEATH} asks for at {place}"));
    }
}

/// If armed, writes the first half of `bytes` and dies.
pub fn torn_write(place: &str, what: &str, bytes: &[u8], write: impl FnOnce(&[u8])) {
    if is_armed(place, what) {
        write(&bytes[..bytes.len() / 2]);
        die();
    }
}

/// The wall clock, shifted by a test.
pub fn test_clock(milliseconds: u64) -> u64 {
    static JUMP: OnceLock<Option<(u64, i64)>> = OnceLock::new();
    static READINGS: AtomicU64 = AtomicU64::new(0);
    match JUMP.get_or_init(|| pair(CLOCK)) {
        Some((reading, jump)) if READINGS.fetch_add(1, Ordering::Relaxed) + 1 >= *reading => {
            milliseconds.saturating_add_signed(*jump)
        }
        _ => milliseconds,
    }
}

pub fn rendezvous_timeout(usual: Duration) -> Duration {
    let seconds = std::env::var(RENDEZVOUS).ok();
    seconds
        .and_then(|text| text.parse().ok())
        .map_or(usual, Duration::from_secs)
}

/// Both sides of a variable's colon.
fn pair<A: std::str::FromStr, B: std::str::FromStr>(variable: &str) -> Option<(A, B)> {
    let text = std::env::var(variable).ok()?;
    let (first, second) = text.split_once(':')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

fn is_armed(place: &str, what: &str) -> bool {
    static ARMED: OnceLock<Option<ArmedFailpoint>> = OnceLock::new();
    let Some(armed) = ARMED.get_or_init(|| ArmedFailpoint::parse(&std::env::var(DEATH).ok()?))
    else {
        return false;
    };
    if armed.place != place
        || armed
            .what
            .as_ref()
            .is_some_and(|prefix| !what.starts_with(prefix))
    {
        return false;
    }
    let now = armed.visits.fetch_add(1, Ordering::Relaxed) + 1 == armed.visit;
    if now && !armed.delay.is_zero() {
        let delay = armed.delay;
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            die();
        });
        return false;
    }
    now
}

/// Ends the process without destructors, handlers or flushed buffers.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

impl ArmedFailpoint {
    fn parse(text: &str) -> Option<Self> {
        let (named, when) = text.rsplit_once(':')?;
        let (visit, delay) = when.split_once('+').unwrap_or((when, "0"));
        let (place, what) = named
            .split_once('=')
            .map_or((named, None), |(place, what)| {
                (place, Some(what.to_owned()))
            });
        let delay = Duration::from_millis(delay.parse().ok()?);
        Some(Self {
            place: place.to_owned(),
            what,
            visit: visit.parse().ok()?,
            delay,
            visits: AtomicU64::new(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let check = |text: &str, expected: Option<(&str, Option<&str>, u64, u64)>| {
            let found = ArmedFailpoint::parse(text);
            let found = found.as_ref().map(|armed| {
                (
                    &*armed.place,
                    armed.what.as_deref(),
                    armed.visit,
                    armed.delay.as_millis() as u64,
                )
            });
            assert_eq!(found, expected, "{text}");
        };
        check(
            "event.half=step:3",
            Some(("event.half", Some("step"), 3, 0)),
        );
        check("event.after:12+40", Some(("event.after", None, 12, 40)));
        for wrong in [
            "",
            "event.half",
            "event.half:",
            "event.half:x",
            "event.half:1+",
        ] {
            check(wrong, None);
        }
    }
}
