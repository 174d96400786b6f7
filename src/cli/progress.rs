//! Progress on stderr: one line per event of a run, and a line that says how far an eval is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::output::{eprint_line, printing_here};
use super::status_line::StatusLine;
use crate::format::duration;
use crate::report::{eval_count, eval_pace, eval_progress_text, event_text};
use crate::run::events::Step;
use crate::run::{EventBody, RequestQueue, State, StateWriter, Status, Stop, Worker};

/// How soon a signal is answered.
const LOOK: Duration = Duration::from_millis(100);

/// Prints a run's events, the time left and the progress of evals; reports at once what a stop waits for.
pub(super) struct Progress {
    lines: Arc<Mutex<Lines>>,
    is_over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

struct Lines {
    status: StatusLine,
    start: Instant,
    first_step: Option<u64>,
    total_steps: u64,
}

impl Progress {
    pub(super) fn new(worker: &Worker) -> Self {
        let lines = Lines {
            status: StatusLine::new(),
            start: Instant::now(),
            first_step: None,
            total_steps: 0,
        };
        let lines = Arc::new(Mutex::new(lines));
        let is_over = Arc::new(AtomicBool::new(false));
        let (state, controls) = (worker.state(), worker.controls().clone());
        let (shared, ends) = (Arc::clone(&lines), Arc::clone(&is_over));
        let watch = printing_here(move || watch(&state, &controls, &shared, &ends));
        // Without a thread there are the events.
        let watcher = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(watch)
            .ok();
        Self {
            lines,
            is_over,
            watcher,
        }
    }

    pub(super) fn event(&mut self, event: &EventBody) {
        let mut lines = self.lines.lock();
        let left = match event {
            EventBody::Run(run) => {
                lines.total_steps = run.total_steps;
                String::new()
            }
            EventBody::Step(step) => match lines.seconds_left(step) {
                0.0 => String::new(),
                seconds => format!("  ETA {}", duration(seconds)),
            },
            // The command itself prints how the run ended.
            EventBody::End(_) => return,
            _ => String::new(),
        };
        if let Some((_, text)) = event_text(event, lines.total_steps) {
            lines.status.clear();
            eprint_line(&format!("{text}{left}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            watcher.thread().unpark();
            let _ = watcher.join();
        }
        self.lines.lock().status.end();
    }
}

impl Lines {
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

fn watch(state: &StateWriter, controls: &RequestQueue, lines: &Mutex<Lines>, is_over: &AtomicBool) {
    let mut is_told = false;
    while !is_over.load(Ordering::Relaxed) {
        let state = state.now();
        let mut lines = lines.lock();
        if !is_told && controls.stop_requested() == Some(Stop::AfterStep) {
            is_told = true;
            lines.status.clear();
            eprint_line(&stop_text(&state));
        }
        match &state.eval {
            Some(eval) => lines.status.show(|| eval_progress_text(eval)),
            None => lines.status.end(),
        }
        drop(lines);
        std::thread::park_timeout(LOOK);
    }
}

/// Says what a stop waits for.
fn stop_text(state: &State) -> String {
    let after = match &state.eval {
        Some(eval) => {
            let pace = eval_pace(eval);
            format!(
                "this eval ({}{}{pace})",
                eval_count(eval),
                if pace.is_empty() { "" } else { ", " }
            )
        }
        None if state.status == Status::Starting => "the model is loaded".to_owned(),
        None => format!("the current step ({} done), with a checkpoint", state.step),
    };
    format!("stopping after {after}; again: stops now")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::EvalProgress;

    #[test]
    fn a_stop_says_what_it_waits_for() {
        let state = |status, step, eval: Option<EvalProgress>| State {
            eval: eval.map(Box::new),
            ..State::without_worker(status, step)
        };
        let eval = EvalProgress {
            step: Some(40),
            set: "test".into(),
            target: "trained".into(),
            answers: 100,
            total: 500,
            seconds: 10.0,
            ..EvalProgress::default()
        };
        let check = |state: State, expected: &str| assert_eq!(stop_text(&state), expected);
        check(
            state(Status::Running, 40, Some(eval)),
            "stopping after this eval (eval of step 40 on test: 100 of 500, 10/s, 40 s left); again: stops now",
        );
        check(
            state(Status::Running, 3, None),
            "stopping after the current step (3 done), with a checkpoint; again: stops now",
        );
        check(
            state(Status::Starting, 0, None),
            "stopping after the model is loaded; again: stops now",
        );
    }
}
