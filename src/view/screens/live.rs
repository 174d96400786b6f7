//! Screen: a run as it goes. What is looked at (step, group, completion, stretch of steps) is here; its folder draws it
//! and acts on it.

pub mod actions;
mod completion;
mod curves;
mod device;
mod distributions;
mod draw;
mod failures;
mod group_rows;
mod groups;
mod header;
mod log;
mod navigation;
mod overlay;
mod prompt;
mod rollouts;
mod text_summary;

use std::collections::BTreeMap;

use crate::score::Score;
use crate::view::followed_run::FollowedRun;
use crate::view::message::ScreenState;
use crate::view::shared::Shared;
use crate::view::widgets::list_cursor::Cursor;

/// The screen's own part of the model.
#[derive(Debug)]
pub struct Live {
    /// The pane that has the focus.
    pane: &'static str,
    /// The step that is looked at; `None` is the latest, also when newer ones come.
    step: Option<u64>,
    /// The last step that is shown, while the view is frozen.
    frozen: Option<u64>,
    group: Cursor,
    member: Cursor,
    view: ChartView,
    rollouts: Rollouts,
    failures: Failures,
    /// How often the run had been resumed when these two were read.
    resumed: usize,
    overlay_cursor: Cursor,
    /// Lines of the completion above the pane.
    completion_top: usize,
    /// Lines of the log below the pane.
    log_back: usize,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            pane: GROUPS,
            step: None,
            frozen: None,
            group: Cursor::default(),
            member: Cursor::default(),
            view: ChartView::default(),
            rollouts: Rollouts::default(),
            failures: Failures::default(),
            resumed: 0,
            overlay_cursor: Cursor::default(),
            completion_top: 0,
            log_back: 0,
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
/// Not among the panes that the tab key visits: it lies over the chart while runs are chosen.
const OVERLAY: &str = "overlay";

impl ScreenState for Live {
    type Shared = Shared;
}

impl Live {
    /// The last step of a run that is shown.
    fn last(&self, run: &FollowedRun) -> u64 {
        self.frozen.unwrap_or(u64::MAX).min(run.history.last_step)
    }

    /// The step that is looked at.
    fn at(&self, run: &FollowedRun) -> u64 {
        self.step.unwrap_or(u64::MAX).min(self.last(run))
    }
}

/// Weights of the past, weakest first.
const SMOOTHINGS: [f64; 5] = [0.0, 0.6, 0.8, 0.9, 0.97];
/// The narrowest stretch of steps.
const NARROWEST: u64 = 8;

/// How the curves are looked at.
#[derive(Debug, Clone)]
struct ChartView {
    /// Whether a cursor stands on the chart.
    cursor: bool,
    smoothing: usize,
    log: bool,
    /// Steps that are shown at once; `None` shows all.
    width: Option<u64>,
    /// The last of them; `None` is the latest.
    end: Option<u64>,
    /// What the large chart shows, among the subjects.
    large: usize,
    /// The first small chart.
    small: usize,
}

impl Default for ChartView {
    fn default() -> Self {
        Self { cursor: false, smoothing: 1, log: false, width: None, end: None, large: 0, small: 1 }
    }
}

impl ChartView {
    /// The same way of looking, at all steps of another run.
    fn of_another_run(&self) -> Self {
        Self { cursor: false, width: None, end: None, ..self.clone() }
    }

    /// First and last step that are shown of a run whose last is `last`.
    fn steps(&self, last: u64) -> (u64, u64) {
        let Some(width) = self.width else { return (0, last.max(1)) };
        let end = self.end.unwrap_or(last).min(last).max(width.min(last));
        (end.saturating_sub(width), end.max(1))
    }

    /// Half or twice as many steps, around `at`.
    fn zoom(&mut self, last: u64, at: u64, nearer: bool) {
        let (first, end) = self.steps(last);
        let now = end - first;
        let width = if nearer { (now / 2).max(NARROWEST.min(last.max(1))) } else { now.saturating_mul(2) };
        if width >= last {
            (self.width, self.end) = (None, None);
            return;
        }
        self.width = Some(width);
        self.end = if at >= last { None } else { Some((at + width / 2).clamp(width, last)) };
    }

    /// Everything again.
    fn whole(&mut self) {
        (self.width, self.end) = (None, None);
    }

    /// Half a width back or on.
    fn pan(&mut self, last: u64, on: bool) {
        let Some(width) = self.width else { return };
        let (_, end) = self.steps(last);
        let half = (width / 2).max(1);
        let end = if on { end.saturating_add(half) } else { end.saturating_sub(half).max(width) };
        self.end = (end < last).then_some(end);
    }

    /// Move the stretch so that a step is in it.
    fn hold(&mut self, last: u64, at: u64) {
        let (first, end) = self.steps(last);
        if let Some(width) = self.width.filter(|_| !(first..=end).contains(&at)) {
            let end = if at < first { at + width } else { at };
            self.end = (end < last).then_some(end);
        }
    }

    /// The next strength of smoothing, in words.
    fn smooth_more(&mut self) -> String {
        self.smoothing = (self.smoothing + 1) % SMOOTHINGS.len();
        match self.weight() {
            weight if weight > 0.0 => {
                format!("smoothed over about {:.0} steps (raw values behind)", 1.0 / (1.0 - weight))
            }
            _ => "not smoothed".to_owned(),
        }
    }

    fn weight(&self) -> f64 {
        SMOOTHINGS[self.smoothing % SMOOTHINGS.len()]
    }
}

/// Steps whose texts are kept.
const STEPS_KEPT: usize = 6;

/// What was read.
#[derive(Debug, Default)]
struct Rollouts {
    /// By step; the texts, or why they cannot be read.
    steps: BTreeMap<u64, Result<Vec<Sampled>, String>>,
    /// Steps in the order in which they were read.
    order: Vec<u64>,
    /// The step that is being read.
    reading: Option<u64>,
}

/// One group, without the tokens.
#[derive(Debug, Clone, PartialEq, Default)]
struct Sampled {
    prompt_id: String,
    /// The prompt as the model read it.
    prompt: String,
    replaced: bool,
    completions: Vec<Completion>,
}

/// One completion, without the tokens.
#[derive(Debug, Clone, PartialEq, Default)]
struct Completion {
    text: String,
    tokens: usize,
    stop_reason: String,
    reward: Option<f64>,
    advantage: f64,
    /// `None` where the run's scorer wrote something else.
    score: Option<Score>,
}

impl Rollouts {
    /// The groups of a step; `None` while they are read.
    fn of(&self, step: u64) -> Option<&Result<Vec<Sampled>, String>> {
        self.steps.get(&step)
    }

    fn keep(&mut self, step: u64, groups: Result<Vec<Sampled>, String>) {
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
    counted: BTreeMap<u64, Vec<(&'static str, f64)>>,
    /// The last step that was asked for.
    asked: u64,
}
