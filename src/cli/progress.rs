//! A run's progress on stderr: one line a step, one an eval.

use std::time::Instant;

pub(super) use super::output::say;
use super::plan::shape_line;
use crate::format::{bytes, duration, percent, percent_short};
use crate::plan::StepShape;
use crate::run::EventBody;
use crate::run::events::{Eval, Memory, Step};

/// Prints events as they come; knows enough to tell the time left.
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
        match event {
            EventBody::Run(run) => {
                self.total_steps = run.total_steps;
                say(&format!("run {} on {}, {} steps", run.id, run.device, run.total_steps));
            }
            EventBody::Memory(memory) => {
                let shape = StepShape { tokens_per_micro_batch: memory.tokens_per_micro_batch, recompute: memory.recompute_activations };
                let Memory { peak_bytes, usable_bytes, total_bytes, .. } = memory;
                let (peak, usable, total) = (bytes(*peak_bytes), bytes(*usable_bytes), bytes(*total_bytes));
                say(&format!("memory: peak {peak}, {usable} of {total} free; {}", shape_line(shape)));
            }
            EventBody::Recovered(recovered) => say(&recovered.text),
            EventBody::Eval(eval) => say(&eval_line(eval)),
            EventBody::Step(step) => self.step(step),
            EventBody::Alert(alert) => say(&format!("{}: {} {}", alert.level, alert.sentence, alert.suggestion)),
            _ => {}
        }
    }

    fn step(&mut self, step: &Step) {
        // The clock starts with the first step's end, so that loading and evals before it do not count.
        let first = *self.first_step.get_or_insert_with(|| {
            self.start = Instant::now();
            step.step
        });
        let metric = |name: &str| step.metrics.get(name).copied().unwrap_or(0.0);
        let each = if step.step > first { self.start.elapsed().as_secs_f64() / (step.step - first) as f64 } else { step.seconds };
        let left = each * self.total_steps.saturating_sub(step.step) as f64;
        if !step.metrics.contains_key("reward") {
            let (loss, rate) = (metric("loss"), metric("tokens_per_second/train"));
            say(&format!("step {:>3}/{}  loss {loss:.4}  {rate:>6.0} tok/s  ETA {}", step.step, self.total_steps, duration(left)));
            return;
        }
        let applied = if step.metrics.contains_key("grad_norm") { "" } else { "  (no update: no mixed groups)" };
        say(&format!(
            "step {:>3}/{}  reward {:.3}  valid {:>6}  informative {:>4}  {:>6.0} tok/s  ETA {}{applied}",
            step.step,
            self.total_steps,
            metric("reward"),
            percent(metric("tiers/valid")),
            percent_short(metric("groups/frac_mixed")),
            metric("tokens_per_second/rollout"),
            duration(left),
        ));
    }
}

fn eval_line(eval: &Eval) -> String {
    let exact = eval.summary.exact.map_or_else(String::new, |exact| format!(", exact {}", percent(exact)));
    let (who, n) = (if eval.who() == "base" { "base".to_owned() } else { format!("step {}", eval.step) }, eval.summary.n);
    format!("{who} on {n} {} prompts: valid {}{exact}  ({})", eval.set, percent(eval.summary.valid), duration(eval.seconds))
}
