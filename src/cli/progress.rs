//! A run's progress on stderr: one line per event, with the time left after a step.

use std::time::Instant;

use super::output::eprint_line;
use crate::format::duration;
use crate::report::event_text;
use crate::run::EventBody;
use crate::run::events::Step;

/// Prints events with an estimate of the time left.
pub(super) struct Progress {
    start: Instant,
    first_step: Option<u64>,
    total_steps: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), first_step: None, total_steps: 0 }
    }

    pub(super) fn event(&mut self, event: &EventBody) {
        let left = match event {
            EventBody::Run(run) => {
                self.total_steps = run.total_steps;
                String::new()
            }
            EventBody::Step(step) => match self.seconds_left(step) {
                0.0 => String::new(),
                seconds => format!("  ETA {}", duration(seconds)),
            },
            // The command itself prints how the run ended.
            EventBody::End(_) => return,
            _ => String::new(),
        };
        if let Some((_, text)) = event_text(event, self.total_steps) {
            eprint_line(&format!("{text}{left}"));
        }
    }

    fn seconds_left(&mut self, step: &Step) -> f64 {
        // From the end of the first step on, so that loading and evals before it do not count.
        let first = *self.first_step.get_or_insert_with(|| {
            self.start = Instant::now();
            step.step
        });
        let each = if step.step > first {
            self.start.elapsed().as_secs_f64() / (step.step - first) as f64
        } else {
            step.seconds
        };
        each * self.total_steps.saturating_sub(step.step) as f64
    }
}
