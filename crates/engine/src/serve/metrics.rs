//! Metrics in Prometheus' format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Upper bounds of histogram buckets, seconds.
const BUCKETS: [f64; 13] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Minimum interval of a speed measurement.
const SPEED_SECONDS: f64 = 1.0;

#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Counts per bucket (not cumulative); the last has all slower ones.
    counts: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, time: Duration) {
        let bucket = BUCKETS.partition_point(|end| *end < time.as_secs_f64());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.microseconds
            .fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, text: &mut String, name: &str) {
        let mut count = 0;
        for (bucket, observed) in self.counts.iter().enumerate() {
            count += observed.load(Ordering::Relaxed);
            let end = BUCKETS
                .get(bucket)
                .map_or_else(|| "+Inf".to_owned(), f64::to_string);
            _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {count}");
        }
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        _ = writeln!(text, "{name}_sum {seconds}\n{name}_count {count}");
    }
}

/// Status classes from 2xx on.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) answers: [AtomicU64; CLASSES.len()],
    /// Rejected with 429.
    pub(super) refused: AtomicU64,
    /// Clients that left, or did not read, before their answer was complete.
    pub(super) lost_clients: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) completion_tokens: AtomicU64,
    /// Completions being decoded.
    pub(super) rows: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) first_token: Histogram,
    pub(super) request: Histogram,
    speed: Mutex<Speed>,
}

/// Last measurement: time, token count, speed.
#[derive(Debug)]
struct Speed(Instant, u64, f64);

impl Default for Speed {
    fn default() -> Self {
        Self(Instant::now(), 0, 0.0)
    }
}

impl Metrics {
    pub(super) fn count_answer(&self, status: u16) {
        self.answers[usize::from(status / 100).clamp(2, 5) - 2].fetch_add(1, Ordering::Relaxed);
        self.refused
            .fetch_add(u64::from(status == 429), Ordering::Relaxed);
    }

    /// New tokens per second since the last call, or the previous value if recent.
    fn tokens_per_second(&self) -> f64 {
        let mut speed = self.speed.lock();
        let tokens = self.completion_tokens.load(Ordering::Relaxed);
        let seconds = speed.0.elapsed().as_secs_f64();
        if seconds >= SPEED_SECONDS {
            *speed = Speed(Instant::now(), tokens, (tokens - speed.1) as f64 / seconds);
        }
        speed.2
    }

    /// `waiting`: queued requests.
    pub(super) fn text(&self, waiting: usize) -> String {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind_and_help: &str| {
            let (kind, help) = kind_and_help.split_once(": ").unwrap_or_default();
            _ = writeln!(text, "# HELP grpo_tui_{name} {help}");
            _ = writeln!(text, "# TYPE grpo_tui_{name} {kind}");
        };
        let name = "responses_total";
        head(&mut text, name, "counter: Responses by class of status.");
        for (class, count) in CLASSES.iter().zip(&self.answers) {
            let count = count.load(Ordering::Relaxed);
            _ = writeln!(text, "grpo_tui_{name}{{code=\"{class}\"}} {count}");
        }
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed).to_string();
        for (name, kind_and_help, value) in [
            (
                "refused_total",
                "counter: Requests refused with 429 because the queue was full.",
                count(&self.refused),
            ),
            (
                "lost_clients_total",
                "counter: Clients that left or did not read before their answer was complete.",
                count(&self.lost_clients),
            ),
            (
                "prompt_tokens_total",
                "counter: Prompt tokens that were prefilled.",
                count(&self.prompt_tokens),
            ),
            (
                "generation_tokens_total",
                "counter: Tokens that were sampled.",
                count(&self.completion_tokens),
            ),
            (
                "running_rows",
                "gauge: Completions that are decoded now.",
                count(&self.rows),
            ),
            (
                "connections",
                "gauge: Open connections.",
                count(&self.connections),
            ),
            (
                "waiting_requests",
                "gauge: Requests in the queue.",
                waiting.to_string(),
            ),
            (
                "generation_tokens_per_second",
                "gauge: Sampled tokens a second since the last scrape.",
                format!("{:.1}", self.tokens_per_second()),
            ),
        ] {
            head(&mut text, name, kind_and_help);
            _ = writeln!(text, "grpo_tui_{name} {value}");
        }
        for (name, kind_and_help, histogram) in [
            (
                "time_to_first_token_seconds",
                "histogram: From a request's arrival to its first token.",
                &self.first_token,
            ),
            (
                "request_seconds",
                "histogram: From a request's arrival to its last token.",
                &self.request,
            ),
        ] {
            head(&mut text, name, kind_and_help);
            histogram.write(&mut text, &format!("grpo_tui_{name}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        [200, 200, 404, 429, 500]
            .into_iter()
            .for_each(|status| metrics.count_answer(status));
        [0.001, 0.2, 100.0].into_iter().for_each(|seconds| {
            metrics
                .first_token
                .observe(Duration::from_secs_f64(seconds))
        });
        let text = metrics.text(3);
        for line in [
            "# TYPE grpo_tui_responses_total counter",
            "grpo_tui_responses_total{code=\"2xx\"} 2",
            "grpo_tui_responses_total{code=\"4xx\"} 2",
            "grpo_tui_refused_total 1",
            "grpo_tui_waiting_requests 3",
            "grpo_tui_time_to_first_token_seconds_bucket{le=\"0.005\"} 1",
            "grpo_tui_time_to_first_token_seconds_bucket{le=\"0.25\"} 2",
            "grpo_tui_time_to_first_token_seconds_bucket{le=\"+Inf\"} 3",
            "grpo_tui_time_to_first_token_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(
            text.lines()
                .all(|line| line.starts_with("# ") || line.split(' ').count() == 2),
            "{text}"
        );
    }
}
