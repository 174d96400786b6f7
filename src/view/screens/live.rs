//! Screen: a run as it goes. What is looked at (step, group, completion, stretch of steps) is here; its folder draws it and acts on it.

mod actions;
mod advantage;
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

use super::{Change, ScreenDef};
use crate::view::app::Model;
use crate::view::followed_run::{FollowedRun, latest_events};
use crate::view::message::{Command, Work};
use crate::view::screens::Screen;
use crate::view::widgets::list_cursor::Cursor;

/// The screen's own part of the model.
#[derive(Debug)]
pub struct Live {
    /// The pane that has the focus.
    pane: &'static str,
    /// The step that is looked at; `None` is the latest, also when newer ones come.
    step: Option<u64>,
    /// The last step that is shown, while the picture stands still.
    frozen: Option<u64>,
    group: Cursor,
    member: Cursor,
    view: curves::View,
    rollouts: rollouts::Rollouts,
    failures: failures::Failures,
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
            view: curves::View::default(),
            rollouts: rollouts::Rollouts::default(),
            failures: failures::Failures::default(),
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

pub const PARTS: ScreenDef = ScreenDef {
    title: "Live",
    help: "A run in progress: curves, the groups of a step with their completions, alerts, and controls. Letters below the chart: e eval, c checkpoint, \
           n note, s other request. [ and ] go to the previous and the next step.",
    panes: &[CHART, GROUPS, COMPLETION, PROMPT, SIGNAL, METRICS, DEVICE, LOG],
    actions: actions::ACTIONS,
    pane: |model| model.live.pane,
    focus: |model, pane| model.live.pane = pane,
    mouse: navigation::mouse,
    opens: navigation::opens,
    entered: |model| if model.shared.current.is_none() { super::runs::look(model) } else { look(model) },
    changed,
    draw: draw::draw,
    ..ScreenDef::PLAIN
};

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

fn changed(model: &mut Model, change: &Change) -> Vec<Command> {
    match change {
        Change::CurrentRun => {
            let live = &mut model.live;
            *live = Live { pane: live.pane, view: live.view.of_another_run(), ..Live::default() };
            let Some(run) = model.shared.current.clone() else { return Vec::new() };
            let path = run.clone();
            let mut commands = vec![Work::once(
                "live.log",
                move || latest_events(&path),
                move |model, events| {
                    // A run without a log yet has nothing older to tell.
                    if let (Ok(events), Some(watched)) = (events, model.shared.watched.get_mut(&run)) {
                        watched.remember(events);
                    }
                    Vec::new()
                },
            )];
            commands.extend(look(model));
            commands
        }
        Change::RunNews => {
            let resumed = model.shared.current_run().map_or(0, |run| run.history.resumed);
            let live = &mut model.live;
            if live.resumed != resumed {
                // Its steps may have been redone.
                (live.resumed, live.rollouts, live.failures) = (resumed, Default::default(), Default::default());
            }
            if model.shared.screen == Screen::Live { look(model) } else { Vec::new() }
        }
        Change::Second if model.shared.screen == Screen::Live && rollouts::has_failed(model) => look(model),
        _ => Vec::new(),
    }
}

/// Ask for what the picture lacks: the texts of the step that is looked at.
fn look(model: &mut Model) -> Vec<Command> {
    let Some(run) = model.shared.current_run() else { return Vec::new() };
    let step = model.live.at(run);
    let mut commands = rollouts::wanted(model, step);
    commands.extend(failures::wanted(model));
    commands
}
