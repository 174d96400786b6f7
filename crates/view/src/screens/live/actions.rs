//! Actions of the live screen.

use std::collections::BTreeMap;

use super::completion::SelectedCompletion;
use super::{
    CHART, COMPLETION, DEVICE, GROUPS, LOG, Live, METRICS, OVERLAY, PROMPT, RESULT, SIGNAL,
};
use super::{charts, completion, navigation, overlay, result};

use crate::action::Scope;
use crate::message::Command;
use crate::popup::{Ask, Popup};
use crate::report::chain_text;
use crate::run::Verb;
use crate::run_control::{self, Controls, Target};
use crate::screen::{self, About, Described};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::tool_results::whole_action;

type Action = screen::Action<Live>;

impl Described for Live {
    const ABOUT: &'static About = &About {
        title: "Live",
        help: "A run in progress or its result: curves, the groups of a step with their completions, alerts, and controls.",
        panes: &[
            CHART, GROUPS, COMPLETION, PROMPT, SIGNAL, METRICS, DEVICE, LOG, RESULT,
        ],
    };
    const TABLE: &'static [Action] = ACTIONS;
}

const HERE: Scope = Scope::Screen(Screen::Live);
const fn within(pane: &'static str) -> Scope {
    Scope::Pane(Screen::Live, pane)
}

type Perform = fn(&mut Live, &mut Shared) -> Vec<Command>;

/// An action that needs a run; those that leave a pane do not.
const fn action(
    id: &'static str,
    title: &'static str,
    hint: &'static str,
    keys: &'static [&'static str],
    scope: Scope,
    perform: Perform,
) -> Action {
    Action::new(id, title, hint, keys, scope, perform).unless(no_run)
}

/// As [`action`] without a hint.
const fn quiet(
    id: &'static str,
    title: &'static str,
    keys: &'static [&'static str],
    scope: Scope,
    perform: Perform,
) -> Action {
    action(id, title, "", keys, scope, perform)
}

const ACTIONS: &[Action] = &[
    quiet(
        "live.chart.left",
        "Pan left or previous step",
        &["h", "left"],
        within(CHART),
        |live, shared| navigation::sideways(live, shared, -1),
    ),
    quiet(
        "live.chart.right",
        "Pan right or next step",
        &["l", "right"],
        within(CHART),
        |live, shared| navigation::sideways(live, shared, 1),
    ),
    action(
        "live.chart.in",
        "Zoom in",
        "zoom in",
        &["+", "i"],
        within(CHART),
        |live, shared| navigation::zoom(live, shared, true),
    ),
    quiet(
        "live.chart.out",
        "Zoom out",
        &["-", "o"],
        within(CHART),
        |live, shared| navigation::zoom(live, shared, false),
    ),
    quiet(
        "live.chart.whole",
        "Show all steps",
        &["0"],
        within(CHART),
        |live, _| {
            live.view.whole();
            Vec::new()
        },
    ),
    action(
        "live.overlay.toggle",
        "Toggle overlay",
        "overlay",
        &["space", "enter"],
        within(OVERLAY),
        overlay::toggle,
    ),
    quiet(
        "live.member.next",
        "Next completion",
        &["l", "right"],
        within(GROUPS),
        |live, shared| navigation::by_members(live, shared, 1),
    ),
    quiet(
        "live.member.previous",
        "Previous completion",
        &["h", "left"],
        within(GROUPS),
        |live, shared| navigation::by_members(live, shared, -1),
    ),
    action(
        "live.group.open",
        "Show completion",
        "open",
        &["enter"],
        within(GROUPS),
        |live, _| focus(live, COMPLETION),
    ),
    quiet(
        "live.text.next",
        "Next completion",
        &["l", "right"],
        within(COMPLETION),
        |live, shared| navigation::by_members(live, shared, 1),
    ),
    quiet(
        "live.text.previous",
        "Previous completion",
        &["h", "left"],
        within(COMPLETION),
        |live, shared| navigation::by_members(live, shared, -1),
    ),
    action(
        "live.text.prompt",
        "Show prompt",
        "prompt",
        &["enter"],
        within(COMPLETION),
        |live, _| focus(live, PROMPT),
    ),
    quiet(
        "live.prompt.completion",
        "Show completion",
        &["enter"],
        within(PROMPT),
        |live, _| focus(live, COMPLETION),
    ),
    action(
        "live.small.next",
        "Next small charts",
        "charts",
        &["l", "right"],
        within(METRICS),
        |live, shared| charts::turn_small(live, shared, 1),
    ),
    quiet(
        "live.small.previous",
        "Previous small charts",
        &["h", "left"],
        within(METRICS),
        |live, shared| charts::turn_small(live, shared, -1),
    ),
    action(
        "live.small.enlarge",
        "Enlarge chart",
        "enlarge",
        &["enter"],
        within(METRICS),
        |live, shared| {
            charts::enlarge(live, shared);
            focus(live, CHART)
        },
    ),
    quiet(
        "live.result.open",
        "Compare answers",
        &["enter"],
        within(RESULT),
        result::open_comparison,
    )
    .unless(result::no_comparison),
    action(
        "live.log.level",
        "Cycle log level",
        "level",
        &["l"],
        within(LOG),
        |live, shared| {
            live.log.least = live.log.least.next();
            live.log.back = 0;
            shared.say(format!("log: {}", live.log.least.name()));
            Vec::new()
        },
    )
    .also(&["severity", "level"]),
    action(
        "live.log.filter",
        "Filter log",
        "filter",
        &["/"],
        within(LOG),
        |live, _| {
            live.log.filter.open();
            Vec::new()
        },
    )
    .also(&["grep", "search"])
    .asking(),
    Action::new("live.back", "Back", "", &["esc"], HERE, back).hinting(|live, _| match live.pane {
        OVERLAY => Some("chart"),
        COMPLETION => Some("groups"),
        _ => None,
    }),
    action(
        "live.compare",
        "Compare answers",
        "compare",
        &["V"],
        HERE,
        result::open_comparison,
    )
    .also(&["comparison", "versus", "diff", "result"])
    .unless(result::no_comparison),
    action(
        "live.step.previous",
        "Previous step",
        "step",
        &["["],
        HERE,
        |live, shared| navigation::by_steps(live, shared, -1),
    ),
    quiet(
        "live.step.next",
        "Next step",
        &["]"],
        HERE,
        |live, shared| navigation::by_steps(live, shared, 1),
    ),
    quiet(
        "live.step.back_far",
        "Back 10 steps",
        &["{"],
        HERE,
        |live, shared| navigation::by_steps(live, shared, -10),
    ),
    quiet(
        "live.step.on_far",
        "Forward 10 steps",
        &["}"],
        HERE,
        |live, shared| navigation::by_steps(live, shared, 10),
    ),
    quiet(
        "live.step.first",
        "First step",
        &["home"],
        HERE,
        |live, shared| navigation::to_step(live, shared, Some(1)),
    ),
    quiet(
        "live.step.latest",
        "Follow latest step",
        &["end"],
        HERE,
        |live, shared| navigation::to_step(live, shared, None),
    )
    .also(&["follow", "tail", "latest"]),
    action(
        "live.smooth",
        "Cycle smoothing",
        "smooth",
        &["s"],
        HERE,
        |live, shared| {
            let text = live.view.smooth_more();
            shared.say(text);
            Vec::new()
        },
    )
    .also(&["smooth", "smoothing", "ema"]),
    quiet(
        "live.log_axis",
        "Toggle log scale",
        &["w"],
        HERE,
        |live, _| {
            live.view.log = !live.view.log;
            Vec::new()
        },
    )
    .also(&["log scale", "y axis", "logarithmic"]),
    quiet(
        "live.metrics.filter",
        "Filter metrics",
        &["/"],
        HERE,
        |live, _| {
            live.go_to_pane(METRICS);
            live.metrics.open();
            Vec::new()
        },
    )
    .also(&["find", "search", "grep", "regex"])
    .asking(),
    quiet(
        "live.overlay",
        "Choose overlay runs",
        &["v"],
        HERE,
        overlay::open,
    )
    .also(&["overlay"]),
    quiet("live.copy", "Copy completion", &["y"], HERE, copy)
        .also(&["yank", "clipboard"])
        .unless(no_text),
    whole_action("live.results", Screen::Live),
    run_control::pause(),
    run_control::resume(),
    run_control::checkpoint(),
    run_control::eval(),
    run_control::stop(),
    run_control::kill(),
    run_control::note().hint("note"),
    quiet("live.set", "Set parameters", &["="], HERE, set)
        .also(&["learning rate", "lr", "temperature", "max_steps"])
        .asking()
        .unless(|screen, shared| {
            run_control::no_worker(
                screen,
                shared,
                &Verb::Set {
                    changes: BTreeMap::new(),
                },
            )
        }),
    quiet(
        "live.pane.chart",
        "Go to chart",
        &["alt-1"],
        HERE,
        |live, _| focus(live, CHART),
    ),
    quiet(
        "live.pane.groups",
        "Go to groups",
        &["alt-2"],
        HERE,
        |live, _| focus(live, GROUPS),
    ),
    quiet(
        "live.pane.completion",
        "Go to completion",
        &["alt-3"],
        HERE,
        |live, _| focus(live, COMPLETION),
    ),
    quiet(
        "live.pane.prompt",
        "Go to prompt",
        &["alt-4"],
        HERE,
        |live, _| focus(live, PROMPT),
    ),
    quiet(
        "live.pane.signal",
        "Go to tiers and failures",
        &["alt-5"],
        HERE,
        |live, _| focus(live, SIGNAL),
    ),
    quiet(
        "live.pane.metrics",
        "Go to metrics",
        &["alt-6"],
        HERE,
        |live, _| focus(live, METRICS),
    )
    .also(&["charts"]),
    quiet(
        "live.pane.device",
        "Go to time and device",
        &["alt-7"],
        HERE,
        |live, _| focus(live, DEVICE),
    )
    .also(&["gpu", "system", "phases"]),
    quiet("live.pane.log", "Go to log", &["alt-8"], HERE, |live, _| {
        focus(live, LOG)
    })
    .also(&["log", "logs", "alerts"]),
    quiet(
        "live.pane.result",
        "Go to result",
        &["alt-9"],
        HERE,
        |live, _| focus(live, RESULT),
    ),
];

/// Leaves the innermost of: a filter, a list over the chart, the prompt, the pane.
fn back(live: &mut Live, _: &mut Shared) -> Vec<Command> {
    let is_cleared = match live.pane {
        METRICS => live.metrics.clear(),
        LOG => live.log.filter.clear(),
        _ => false,
    };
    live.is_browsing |= live.pane == RESULT;
    match live.pane {
        _ if is_cleared => {}
        CHART | GROUPS => {}
        OVERLAY => live.pane = CHART,
        PROMPT => live.go_to_pane(COMPLETION),
        _ => live.go_to_pane(GROUPS),
    }
    Vec::new()
}

fn focus(live: &mut Live, pane: &'static str) -> Vec<Command> {
    live.go_to_pane(pane);
    Vec::new()
}

/// Why there is no run for an action.
pub(super) fn no_run(_: &Live, shared: &Shared) -> Option<String> {
    shared.current_run().is_none().then(|| shared.no_open_run())
}

fn no_text(live: &Live, shared: &Shared) -> Option<String> {
    no_run(live, shared).or_else(|| {
        completion::selected(live, shared)
            .is_none()
            .then(|| "no completion selected".to_owned())
    })
}

fn copy(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let Some(SelectedCompletion { completion, .. }) = completion::selected(live, shared) else {
        return Vec::new();
    };
    let text = completion
        .chain
        .as_ref()
        .map(chain_text)
        .unwrap_or_default()
        + &completion.text;
    shared.say("completion copied");
    vec![Command::Copy(text)]
}

/// Parses the text of `set`: assignments separated by spaces.
fn assignments(text: &str) -> Result<Verb, String> {
    Verb::set(text.split_whitespace())
}

/// Asks for parameters of this run, even if another one is open when the question is answered.
fn set(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let Ok(Target { path, .. }) = live.target(shared) else {
        return Vec::new();
    };
    let now = shared.current_run().and_then(|run| {
        run.history
            .metrics
            .get("learning_rate")
            .and_then(crate::run::Series::last)
    });
    let text = now.map_or_else(String::new, |rate| {
        // Shortest digits of a float32: a schedule's product would have 17.
        format!("learning_rate={:e}", rate as f32)
    });
    let label = "KEY=VALUE (learning_rate, temperature, max_steps), from the next step on:";
    let ask = move |_: &mut (), _: &mut Shared, text: String| {
        assignments(&text)
            .into_iter()
            .map(|verb| run_control::request(&path, verb))
            .collect()
    };
    shared.popup = Some(Popup::Ask(
        Ask::new("Set", label, &text, ask).checked(|text| assignments(text).err()),
    ));
    Vec::new()
}
