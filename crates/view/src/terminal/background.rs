//! The terminal's background, dark or light, queried from the terminal (OSC 11) with a short timeout.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::terminal_capability::Background;

/// Queries the background colour, then the device attributes: a terminal that does not know the first answers the
/// second, so there is no need to wait for the timeout.
const QUERY: &[u8] = b"\x1b]11;?\x1b\\\x1b[c";

/// Queries the terminal and waits at most `timeout`; returns also the bytes read, which may contain keys. The terminal
/// must be in raw mode, with no other reader.
pub(super) fn query(timeout: Duration) -> (Option<Background>, Vec<u8>) {
    let mut answer = Vec::new();
    if io::stdout()
        .write_all(QUERY)
        .and_then(|()| io::stdout().flush())
        .is_err()
    {
        return (None, answer);
    }
    let deadline = Instant::now() + timeout;
    while !is_whole(&answer) {
        let left = deadline.saturating_duration_since(Instant::now());
        let input = io::stdin();
        let mut polled = [PollFd::new(&input, PollFlags::IN)];
        let left = Timespec::try_from(left).unwrap_or_default();
        if left == Timespec::default()
            || !poll(&mut polled, Some(&left)).is_ok_and(|ready| ready > 0)
        {
            break;
        }
        let mut bytes = [0; 256];
        match rustix::io::read(&input, &mut bytes) {
            Ok(count) if count > 0 => answer.extend_from_slice(&bytes[..count]),
            _ => break,
        }
    }
    (background(&answer), answer)
}

/// Whether the device attributes (`ESC [ ? … c`) have arrived, which come last.
fn is_whole(answer: &[u8]) -> bool {
    let start = answer.windows(3).position(|bytes| bytes == b"\x1b[?");
    start.is_some_and(|start| answer[start..].contains(&b'c'))
}

/// The background of an answer that contains `rgb:RRRR/GGGG/BBBB` or `rgb:RR/GG/BB`.
fn background(answer: &[u8]) -> Option<Background> {
    let text = String::from_utf8_lossy(answer);
    let (_, colour) = text.split_once("]11;rgb")?;
    let colour = colour.split_once(':')?.1;
    let end = colour
        .find(|letter: char| !letter.is_ascii_hexdigit() && letter != '/')
        .unwrap_or(colour.len());
    let channel = |digits: &str| {
        let most = 16_f64.powi(i32::try_from(digits.len()).ok()?) - 1.0;
        u32::from_str_radix(digits, 16)
            .ok()
            .map(|value| f64::from(value) / most)
    };
    let channels: Vec<f64> = colour[..end]
        .split('/')
        .map(channel)
        .collect::<Option<_>>()?;
    let [red, green, blue] = channels[..] else {
        return None;
    };
    let light = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    Some(if light > 0.5 {
        Background::Light
    } else {
        Background::Dark
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let check = |answer: &str, expected, whole| {
            assert_eq!(
                (background(answer.as_bytes()), is_whole(answer.as_bytes())),
                (expected, whole),
                "{answer:?}"
            );
        };
        check(
            "\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\\x1b[?62;4c",
            Some(Background::Dark),
            true,
        );
        check(
            "\x1b]11;rgb:ffff/ffff/ffff\x07\x1b[?1;2c",
            Some(Background::Light),
            true,
        );
        check("\x1b]11;rgb:fd/f6/e3\x07", Some(Background::Light), false);
        check("\x1b]11;rgba:0000/0000/0000/ffff\x07\x1b[?6c", None, true);
        check("\x1b[?6c", None, true);
        check("\x1b]11;rgb:zz/1/2\x07", None, false);
        check("q", None, false);
        check("", None, false);
    }
}
