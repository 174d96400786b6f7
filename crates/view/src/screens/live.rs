//! The live screen. The selection (step, group, completion, range of steps) is here; its folder draws it and has the
//! actions.

pub mod actions;
mod base_answers;
mod charts;
mod completion;
mod curves;
mod device;
mod distributions;
mod draw;
mod failures;
mod frame;
mod group_rows;
mod groups;
mod header;
mod interaction;
mod log;
mod navigation;
mod overlay;
mod prompt;
mod result;
mod rollouts;
mod state;
mod text_summary;

use std::collections::BTreeMap;

use crate::environment::ToolChain;
use crate::facts::StopReason;
use crate::followed_run::FollowedRun;
use crate::score::{FailureClass, Score};
use crate::widgets::list_cursor::Cursor;
use crate::widgets::pattern_filter::PatternFilter;

#[derive(Debug)]
pub struct Live {
    pane: &'static str,
    /// The selected step; `None` follows the latest.
    step: Option<u64>,
    group: Cursor,
    member: Cursor,
    view: ChartView,
    rollouts: Rollouts,
    failures: Failures,
    /// The run's number of resumes when these two were read.
    resumed: usize,
    overlay_cursor: Cursor,
    metrics: PatternFilter,
    /// Whether the groups of an ended run are looked at: then the result gives its place to their completions.
    is_browsing: bool,
    /// The first visible lines of texts.
    completion_top: Cursor,
    prompt_top: Cursor,
    device_top: Cursor,
    result_top: Cursor,
    log: state::LogView,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            pane: GROUPS,
            step: None,
            group: Cursor::default(),
            member: Cursor::default(),
            view: ChartView::default(),
            rollouts: Rollouts::default(),
            failures: Failures::default(),
            resumed: 0,
            overlay_cursor: Cursor::default(),
            metrics: PatternFilter::default(),
            is_browsing: false,
            completion_top: Cursor::default(),
            prompt_top: Cursor::default(),
            device_top: Cursor::default(),
            result_top: Cursor::default(),
            log: state::LogView::default(),
        }
    }
}

const CHART: &str = "chart";
const GROUPS: &str = "groups";
const COMPLETION: &str = "completion";
const PROMPT: &str = "prompt";
const SIGNAL: &str = "signal";
const METRICS: &str = "metrics";
const DEVICE: &str = "device";
const LOG: &str = "log";
const RESULT: &str = "result";
/// Not in tab order: over the chart while runs are chosen.
const OVERLAY: &str = "overlay";

impl Live {
    /// Gives a pane the focus; filters keep their text.
    fn go_to_pane(&mut self, pane: &'static str) {
        self.metrics.close();
        self.log.filter.close();
        self.pane = pane;
    }

    fn last(&self, run: &FollowedRun) -> u64 {
        run.history.last_step
    }

    fn at(&self, run: &FollowedRun) -> u64 {
        self.step.unwrap_or(u64::MAX).min(self.last(run))
    }
}

/// Smoothing factors, weakest first.
const SMOOTHINGS: [f64; 5] = [0.0, 0.6, 0.8, 0.9, 0.97];
/// The smallest range of steps.
const MIN_STEP_RANGE: u64 = 8;

#[derive(Debug, Clone)]
struct ChartView {
    smoothing: usize,
    log: bool,
    /// The number of visible steps; `None` shows all.
    width: Option<u64>,
    /// The last of them; `None` is the latest.
    end: Option<u64>,
    /// The title of the large chart; `None` is the first.
    large: Option<String>,
    /// The first small chart.
    small: usize,
}

impl Default for ChartView {
    fn default() -> Self {
        Self {
            smoothing: 1,
            log: false,
            width: None,
            end: None,
            large: None,
            small: 0,
        }
    }
}

impl ChartView {
    /// The same view, at all steps of another run.
    fn for_other_run(&self) -> Self {
        Self {
            width: None,
            end: None,
            ..self.clone()
        }
    }

    /// First and last visible step of a run whose last is `last`.
    fn steps(&self, last: u64) -> (u64, u64) {
        let Some(width) = self.width else {
            return (0, last.max(1));
        };
        let end = self.end.unwrap_or(last).min(last).max(width.min(last));
        (end.saturating_sub(width), end.max(1))
    }

    /// Halves or doubles the range, around `at`.
    fn zoom(&mut self, last: u64, at: u64, nearer: bool) {
        let (first, end) = self.steps(last);
        let now = end - first;
        let width = if nearer {
            (now / 2).max(MIN_STEP_RANGE.min(last.max(1)))
        } else {
            now.saturating_mul(2)
        };
        if width >= last {
            (self.width, self.end) = (None, None);
            return;
        }
        self.width = Some(width);
        self.end = if at >= last {
            None
        } else {
            Some((at + width / 2).clamp(width, last))
        };
    }

    fn whole(&mut self) {
        (self.width, self.end) = (None, None);
    }

    fn pan(&mut self, last: u64, on: bool) {
        let Some(width) = self.width else { return };
        let (_, end) = self.steps(last);
        let half = (width / 2).max(1);
        let end = if on {
            end.saturating_add(half)
        } else {
            end.saturating_sub(half).max(width)
        };
        self.end = (end < last).then_some(end);
    }

    /// Scrolls the range so that it contains a step.
    fn hold(&mut self, last: u64, at: u64) {
        let (first, end) = self.steps(last);
        if let Some(width) = self.width.filter(|_| !(first..=end).contains(&at)) {
            let end = if at < first { at + width } else { at };
            self.end = (end < last).then_some(end);
        }
    }

    fn smooth_more(&mut self) -> String {
        self.smoothing = (self.smoothing + 1) % SMOOTHINGS.len();
        match self.weight() {
            weight if weight > 0.0 => {
                format!(
                    "smoothed over about {:.0} steps (raw values behind)",
                    1.0 / (1.0 - weight)
                )
            }
            _ => "not smoothed".to_owned(),
        }
    }

    fn weight(&self) -> f64 {
        SMOOTHINGS[self.smoothing % SMOOTHINGS.len()]
    }
}

/// Steps whose texts are cached.
const STEPS_KEPT: usize = 6;

/// The texts that were read.
#[derive(Debug, Default)]
struct Rollouts {
    /// By step; the texts, or why they cannot be read.
    steps: BTreeMap<u64, Result<Vec<SampledGroup>, String>>,
    /// Steps in the order in which they were read.
    order: Vec<u64>,
    reading: Option<u64>,
    /// The number of recorded evals of the base whose answers are those of step 0.
    base_evals: usize,
}

/// One group, without the tokens.
#[derive(Debug, Clone, PartialEq, Default)]
struct SampledGroup {
    prompt_id: String,
    /// The prompt as the model read it.
    prompt: String,
    replaced: bool,
    completions: Vec<Completion>,
}

/// One completion, without the tokens.
#[derive(Debug, Clone, PartialEq, Default)]
struct Completion {
    /// The prompt of a later turn.
    prompt: Option<String>,
    /// How a turn with tools came to the text.
    chain: Option<ToolChain>,
    text: String,
    tokens: usize,
    stop_reason: StopReason,
    reward: Option<f64>,
    advantage: f64,
    /// `None` if it was written by an incompatible scorer.
    score: Option<Score>,
}

impl Rollouts {
    fn at_step(&self, step: u64) -> Option<&Result<Vec<SampledGroup>, String>> {
        self.steps.get(&step)
    }

    fn keep(&mut self, step: u64, groups: Result<Vec<SampledGroup>, String>) {
        if self.steps.insert(step, groups).is_none() {
            self.order.push(step);
        }
        if self.order.len() > STEPS_KEPT {
            let oldest = self.order.remove(0);
            self.steps.remove(&oldest);
        }
    }
}

/// Shares of the kinds by step, as far as they were counted.
#[derive(Debug, Default)]
struct Failures {
    counted: BTreeMap<u64, BTreeMap<FailureClass, f64>>,
    /// The run's last step at the last request.
    requested: u64,
}
