//! A progress bar on stderr for loading weights and fetching files.

use crate::format::{bytes, duration, percent_short};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::output::{eprint_line, is_captured, redraw_line};

/// Shorter work shows nothing.
const SHOW_DELAY: Duration = Duration::from_secs(1);
const REDRAWN_EVERY: Duration = Duration::from_millis(100);
const WIDTH: usize = 30;

/// A line that is redrawn on a terminal; elsewhere one line at the end.
#[derive(Debug)]
pub(super) struct Bar {
    /// Such as `loading`.
    verb: &'static str,
    name: String,
    start: Instant,
    /// Present before the work began; not counted in the speed.
    skipped_bytes: u64,
    drawn: Option<Instant>,
    on_terminal: bool,
}

impl Bar {
    pub(super) fn new(verb: &'static str, name: &str, skipped_bytes: u64) -> Self {
        let on_terminal = !is_captured() && std::io::stderr().is_terminal();
        Self {
            verb,
            name: name.to_owned(),
            start: Instant::now(),
            skipped_bytes,
            drawn: None,
            on_terminal,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn show(&mut self, done_bytes: u64, total_bytes: u64) {
        let now = Instant::now();
        if !self.on_terminal
            || now - self.start < SHOW_DELAY
            || self.drawn.is_some_and(|drawn| now - drawn < REDRAWN_EVERY)
        {
            return;
        }
        self.drawn = Some(now);
        redraw_line(&line(
            self.verb,
            &self.name,
            done_bytes,
            total_bytes,
            self.speed(done_bytes),
        ));
    }

    /// Prints the final line, unless the work was short.
    pub(super) fn finish(&mut self, done_bytes: u64) {
        if self.start.elapsed() >= SHOW_DELAY {
            let seconds = self.start.elapsed().as_secs_f64();
            let read = bytes(done_bytes.saturating_sub(self.skipped_bytes));
            let speed = bytes(self.speed(done_bytes) as u64);
            self.clear();
            eprint_line(&format!(
                "{} {}: {read} in {}, {speed}/s",
                self.verb,
                self.name,
                duration(seconds)
            ));
        }
        self.drawn = None;
    }

    pub(super) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            redraw_line("");
        }
    }

    fn speed(&self, done_bytes: u64) -> f64 {
        done_bytes.saturating_sub(self.skipped_bytes) as f64
            / self.start.elapsed().as_secs_f64().max(1e-3)
    }
}

fn line(
    verb: &str,
    name: &str,
    done_bytes: u64,
    total_bytes: u64,
    bytes_per_second: f64,
) -> String {
    let share = if total_bytes == 0 {
        1.0
    } else {
        (done_bytes as f64 / total_bytes as f64).min(1.0)
    };
    let filled = (share * WIDTH as f64) as usize;
    let seconds = total_bytes.saturating_sub(done_bytes) as f64 / bytes_per_second.max(1.0);
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
    let speed = bytes(bytes_per_second as u64);
    format!(
        "{verb} {name} [{bar}] {:>4} of {}, {speed}/s, {} left",
        percent_short(share),
        bytes(total_bytes),
        duration(seconds)
    )
}

pub(super) fn show_loading() {
    let bar = parking_lot::Mutex::new(None);
    crate::model::watch_loading(move |loading| {
        let mut bar = bar.lock();
        let current = match bar.as_mut() {
            Some(current) if Bar::name(current) == loading.model => current,
            _ => bar.insert(Bar::new("loading", loading.model, 0)),
        };
        current.show(loading.done_bytes, loading.total_bytes);
        if loading.done_bytes >= loading.total_bytes {
            current.finish(loading.done_bytes);
            *bar = None;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_takes() {
        let check = |done, total, speed, expected: &str| {
            assert_eq!(line("loading", "m", done, total, speed), expected)
        };
        check(
            0,
            16_000_000_000,
            2e9,
            "loading m [..............................]   0% of 16.0 GB, 2.00 GB/s, 8.0 s left",
        );
        check(
            1_500_000,
            3_000_000,
            500_000.0,
            "loading m [###############...............]  50% of 3.00 MB, 500 kB/s, 3.0 s left",
        );
        check(
            7,
            7,
            7.0,
            "loading m [##############################] 100% of 7 B, 7 B/s, 0.0 s left",
        );
        // An empty file is complete.
        check(
            0,
            0,
            0.0,
            "loading m [##############################] 100% of 0 B, 0 B/s, 0.0 s left",
        );
    }
}
