//! Control sequences for the clipboard and notifications, also through a multiplexer; rate limit of notifications.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::secrets::is_control;
use crate::terminal_capability::{Capability, Multiplexer};

/// The longest text that terminals accept for the clipboard, bytes: 74,994 once encoded, the smallest limit in use.
pub(super) const MAX_COPY_BYTES: usize = 56_244;

/// GNU screen cuts a passthrough string after this many bytes.
const SCREEN_PIECE_BYTES: usize = 240;

/// The sequence (OSC 52) that copies a text; `None` if it is too long.
pub(super) fn copy(text: &str, capability: &Capability) -> Option<Vec<u8>> {
    if text.len() > MAX_COPY_BYTES {
        return None;
    }
    let sequence = format!("\x1b]52;c;{}\x07", BASE64_STANDARD.encode(text));
    // tmux takes the sequence itself if `set-clipboard` is on, and passes it on if `allow-passthrough` is; either is
    // enough.
    let direct = if capability.multiplexer == Some(Multiplexer::Tmux) {
        sequence.clone()
    } else {
        String::new()
    };
    Some(format!("{direct}{}", through(&sequence, capability.multiplexer)).into_bytes())
}

/// The sequences that notify: OSC 777 or OSC 9, whichever the terminal is known for, else both; and the bell.
pub(super) fn notify(title: &str, text: &str, capability: &Capability) -> Vec<u8> {
    let (title, text) = (plain(title), plain(text));
    let nine = format!("\x1b]9;{title}: {text}\x07");
    let seven = format!("\x1b]777;notify;{title};{text}\x07");
    let both = match capability.program.as_str() {
        "iterm.app" | "kitty" => nine,
        "wezterm" | "ghostty" | "foot" => seven,
        // Terminals ignore the one that they do not know.
        _ => nine + &seven,
    };
    [
        through(&both, capability.multiplexer).into_bytes(),
        b"\x07".to_vec(),
    ]
    .concat()
}

/// The minimum time between two notifications, and between two with the same text.
const GAP: Duration = Duration::from_secs(5);
const SAME_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct NotifyThrottle {
    last: Option<(Instant, String)>,
}

impl NotifyThrottle {
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

fn through(sequence: &str, multiplexer: Option<Multiplexer>) -> String {
    match multiplexer {
        Some(Multiplexer::Tmux) => {
            format!("\x1bPtmux;{}\x1b\\", sequence.replace('\x1b', "\x1b\x1b"))
        }
        Some(Multiplexer::Screen) => {
            let bytes: Vec<char> = sequence.chars().collect();
            bytes
                .chunks(SCREEN_PIECE_BYTES)
                .map(|piece| format!("\x1bP{}\x1b\\", piece.iter().collect::<String>()))
                .collect()
        }
        Some(Multiplexer::Zellij) | None => sequence.to_owned(),
    }
}

/// Removes characters that would end the sequence or separate its fields; at most 200 characters.
fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| if letter == ';' { ',' } else { letter })
        .filter(|letter| !is_control(*letter))
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(environment: &[(&str, &str)]) -> Capability {
        Capability::from_variables(|name| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn texts_are_copied_through_whatever_stands_between() {
        let check = |environment: &[(&str, &str)], expected: &str| {
            assert_eq!(
                String::from_utf8(copy("hi", &of(environment)).unwrap()).unwrap(),
                expected,
                "{environment:?}"
            );
        };
        check(&[], "\x1b]52;c;aGk=\x07");
        check(
            &[("TMUX", "x")],
            "\x1b]52;c;aGk=\x07\x1bPtmux;\x1b\x1b]52;c;aGk=\x07\x1b\\",
        );
        check(&[("STY", "x")], "\x1bP\x1b]52;c;aGk=\x07\x1b\\");
        assert!(
            copy(&"x".repeat(MAX_COPY_BYTES), &of(&[])).is_some_and(|bytes| bytes.len() < 75_010)
        );
        assert_eq!(copy(&"x".repeat(MAX_COPY_BYTES + 1), &of(&[])), None);
    }

    #[test]
    fn notifications_hold_nothing_but_their_words() {
        let check = |environment: &[(&str, &str)], title: &str, text: &str, expected: &str| {
            assert_eq!(
                String::from_utf8(notify(title, text, &of(environment))).unwrap(),
                expected,
                "{environment:?} {title}"
            );
        };
        check(
            &[("TERM_PROGRAM", "iTerm.app")],
            "run",
            "done",
            "\x1b]9;run: done\x07\x07",
        );
        check(
            &[("TERM_PROGRAM", "WezTerm")],
            "run;x",
            "a\x1b\x07b",
            "\x1b]777;notify;run,x;ab\x07\x07",
        );
        check(
            &[],
            "4;1",
            "x",
            "\x1b]9;4,1: x\x07\x1b]777;notify;4,1;x\x07\x07",
        );
        check(
            &[("TMUX", "x"), ("TERM_PROGRAM", "foot")],
            "a",
            "b",
            "\x1bPtmux;\x1b\x1b]777;notify;a;b\x07\x1b\\\x07",
        );
    }

    #[test]
    fn a_storm_of_alerts_rings_once() {
        let start = Instant::now();
        let mut bells = NotifyThrottle::default();
        let mut check = |seconds, text, expected| {
            assert_eq!(
                bells.may(start + Duration::from_secs(seconds), text, false),
                expected,
                "{seconds} {text}"
            )
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
        for (text, urgent, expected) in [
            ("an alert", false, true),
            ("a has failed", true, true),
            ("b has failed", true, true),
            ("more", false, false),
        ] {
            assert_eq!(bells.may(start, text, urgent), expected, "{text}");
        }
    }
}
