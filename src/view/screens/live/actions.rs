//! What can be done on this screen: its part of the table of actions.

use super::{CHART, COMPLETION, DEVICE, GROUPS, LOG, METRICS, OVERLAY, PROMPT, SIGNAL};
use super::{completion, curves, navigation, overlay};
use crate::run::Verb;
use crate::view::action::{Action, Place};
use crate::view::app::Model;
use crate::view::followed_run::FollowedRun;
use crate::view::message::Command;
use crate::view::popup::{Ask, Confirm, Popup};
use crate::view::run_control;
use crate::view::screens::Screen;

const HERE: Place = Place::On(Screen::Live);
const fn within(pane: &'static str) -> Place {
    Place::In(Screen::Live, pane)
}

type Perform = fn(&mut Model) -> Vec<Command>;
const fn quiet(id: &'static str, title: &'static str, keys: &'static [&'static str], place: Place, perform: Perform) -> Action {
    Action::new(id, title, "", keys, place, perform)
}

/// The table.
pub(super) const ACTIONS: &[Action] = &[
    // The chart.
    quiet("live.chart.left", "Pan left", &["h", "left"], within(CHART), |m| navigation::sideways(m, -1)),
    quiet("live.chart.right", "Pan right", &["l", "right"], within(CHART), |m| navigation::sideways(m, 1)),
    quiet("live.chart.left_far", "Pan left 10 steps", &["H"], within(CHART), |m| navigation::sideways(m, -10)),
    quiet("live.chart.right_far", "Pan right 10 steps", &["L"], within(CHART), |m| navigation::sideways(m, 10)),
    Action::new("live.chart.in", "Zoom in", "zoom in", &["+", "i"], within(CHART), |m| navigation::zoom(m, true)),
    quiet("live.chart.out", "Zoom out", &["-", "o"], within(CHART), |m| navigation::zoom(m, false)),
    quiet("live.chart.whole", "Show all steps", &["0"], within(CHART), |m| {
        m.live.view.whole();
        Vec::new()
    }),
    Action::new("live.chart.next", "Next chart", "curves", &["j", "down", "m"], within(CHART), |m| turn_large(m, 1)),
    quiet("live.chart.previous", "Previous chart", &["k", "up", "M"], within(CHART), |m| turn_large(m, -1)),
    // The runs over it.
    quiet("live.overlay.down", "Next run", &["j", "down"], within(OVERLAY), |m| overlay::go(m, 1)),
    quiet("live.overlay.up", "Previous run", &["k", "up"], within(OVERLAY), |m| overlay::go(m, -1)),
    Action::new("live.overlay.toggle", "Toggle overlay", "overlay", &["space", "enter"], within(OVERLAY), overlay::toggle),
    Action::new("live.overlay.close", "Back to the chart", "chart", &["esc", "v"], within(OVERLAY), overlay::open),
    // The groups.
    quiet("live.group.next", "Next group", &["j", "down"], within(GROUPS), |m| navigation::by_groups(m, 1)),
    quiet("live.group.previous", "Previous group", &["k", "up"], within(GROUPS), |m| navigation::by_groups(m, -1)),
    quiet("live.group.first", "First group", &["g"], within(GROUPS), |m| navigation::by_groups(m, isize::MIN)),
    quiet("live.group.last", "Last group", &["G"], within(GROUPS), |m| navigation::by_groups(m, isize::MAX)),
    quiet("live.member.next", "Next completion", &["l", "right"], within(GROUPS), |m| navigation::by_members(m, 1)),
    quiet("live.member.previous", "Previous completion", &["h", "left"], within(GROUPS), |m| navigation::by_members(m, -1)),
    Action::new("live.group.open", "Show completion", "open", &["enter"], within(GROUPS), |m| focus(m, COMPLETION)),
    // The completion.
    quiet("live.text.down", "Scroll down", &["j", "down"], within(COMPLETION), |m| navigation::scroll_text(m, 1)),
    quiet("live.text.up", "Scroll up", &["k", "up"], within(COMPLETION), |m| navigation::scroll_text(m, -1)),
    quiet("live.text.page_down", "Page down", &["pagedown"], within(COMPLETION), |m| navigation::scroll_text(m, 10)),
    quiet("live.text.page_up", "Page up", &["pageup"], within(COMPLETION), |m| navigation::scroll_text(m, -10)),
    quiet("live.text.next", "Next completion", &["l", "right"], within(COMPLETION), |m| navigation::by_members(m, 1)),
    quiet("live.text.previous", "Previous completion", &["h", "left"], within(COMPLETION), |m| navigation::by_members(m, -1)),
    Action::new("live.text.prompt", "Show prompt", "prompt", &["enter"], within(COMPLETION), |m| focus(m, PROMPT)),
    Action::new("live.text.back", "Back to the groups", "groups", &["esc"], within(COMPLETION), |m| focus(m, GROUPS)),
    quiet("live.prompt.back", "Back to the completion", &["esc", "enter"], within(PROMPT), |m| focus(m, COMPLETION)),
    quiet("live.prompt.next", "Next group", &["j", "down"], within(PROMPT), |m| navigation::by_groups(m, 1)),
    quiet("live.prompt.previous", "Previous group", &["k", "up"], within(PROMPT), |m| navigation::by_groups(m, -1)),
    quiet("live.signal.back", "Back to the groups", &["esc"], within(SIGNAL), |m| focus(m, GROUPS)),
    quiet("live.device.back", "Back to the groups", &["esc"], within(DEVICE), |m| focus(m, GROUPS)),
    // The small charts.
    Action::new("live.small.next", "Next small charts", "charts", &["l", "right", "j", "down"], within(METRICS), |m| turn_small(m, 1)),
    quiet("live.small.previous", "Previous small charts", &["h", "left", "k", "up"], within(METRICS), |m| turn_small(m, -1)),
    quiet("live.small.enlarge", "Enlarge chart", &["enter"], within(METRICS), |m| {
        m.live.view.large = m.live.view.small;
        focus(m, CHART)
    }),
    // The log.
    quiet("live.log.down", "Scroll down", &["j", "down"], within(LOG), |m| navigation::scroll_log(m, 1)),
    quiet("live.log.up", "Scroll up", &["k", "up"], within(LOG), |m| navigation::scroll_log(m, -1)),
    quiet("live.log.page_down", "Page down", &["pagedown"], within(LOG), |m| navigation::scroll_log(m, 10)),
    quiet("live.log.page_up", "Page up", &["pageup"], within(LOG), |m| navigation::scroll_log(m, -10)),
    quiet("live.log.latest", "Go to latest event", &["G"], within(LOG), |m| navigation::scroll_log(m, isize::MAX)),
    // Steps.
    Action::new("live.step.previous", "Previous step", "step", &["["], HERE, |m| navigation::by_steps(m, -1)).unless(no_run),
    quiet("live.step.next", "Next step", &["]"], HERE, |m| navigation::by_steps(m, 1)).unless(no_run),
    quiet("live.step.back_far", "Back 10 steps", &["{"], HERE, |m| navigation::by_steps(m, -10)).unless(no_run),
    quiet("live.step.on_far", "Forward 10 steps", &["}"], HERE, |m| navigation::by_steps(m, 10)).unless(no_run),
    quiet("live.step.first", "First step", &["home"], HERE, |m| navigation::to_step(m, Some(1))).unless(no_run),
    quiet("live.step.latest", "Follow latest step", &["end"], HERE, |m| navigation::to_step(m, None)).unless(no_run),
    // How curves are drawn.
    Action::new("live.cursor", "Toggle cursor", "cursor", &["c"], HERE, |m| {
        m.live.view.cursor = !m.live.view.cursor;
        if m.live.view.cursor { focus(m, CHART) } else { navigation::to_step(m, None) }
    })
    .unless(no_run),
    Action::new("live.smooth", "Cycle smoothing", "smooth", &["s"], HERE, |m| {
        let said = m.live.view.smooth_more();
        m.shared.say(said);
        Vec::new()
    })
    .also(&["smoothing", "ema"]),
    quiet("live.log_axis", "Toggle log scale", &["w"], HERE, |m| {
        m.live.view.log = !m.live.view.log;
        Vec::new()
    }),
    quiet("live.freeze", "Toggle freeze", &["f"], HERE, navigation::freeze).unless(no_run),
    quiet("live.overlay", "Choose overlay runs", &["v"], HERE, overlay::open).also(&["overlay"]).unless(no_run),
    quiet("live.copy", "Copy completion", &["y"], HERE, copy).also(&["yank", "clipboard"]).unless(no_text),
    // What the worker can be asked.
    Action::new("live.pause", "Toggle pause", "pause", &["p"], HERE, pause).also(&["pause", "hold"]).unless(no_worker),
    quiet("live.resume", "Resume run", &["r"], HERE, resume).also(&["continue", "unpause", "restart"]).unless(no_resume),
    quiet("live.checkpoint", "Save checkpoint", &["C"], HERE, |m| ask(m, Verb::Checkpoint)).unless(no_worker),
    quiet("live.eval", "Run eval", &["E"], HERE, |m| ask(m, Verb::Eval)).also(&["run eval"]).unless(no_worker),
    quiet("live.stop", "Stop run", &["x"], HERE, |m| stop(m, false)).also(&["end", "cancel"]).unless(no_worker),
    quiet("live.stop_now", "Kill run", &["X"], HERE, |m| stop(m, true)).also(&["kill", "abort"]).unless(no_worker),
    Action::new("live.annotate", "Add note", "note", &["a"], HERE, note).also(&["note", "annotate", "comment"]).asking().unless(no_note),
    quiet("live.set", "Set parameters", &["="], HERE, set).asking().unless(no_worker),
];

fn focus(model: &mut Model, pane: &'static str) -> Vec<Command> {
    model.live.pane = pane;
    Vec::new()
}

fn turn_large(model: &mut Model, by: isize) -> Vec<Command> {
    let count = curves::SUBJECTS.len() as isize;
    model.live.view.large = (model.live.view.large as isize + by).rem_euclid(count) as usize;
    Vec::new()
}

fn turn_small(model: &mut Model, by: isize) -> Vec<Command> {
    let count = curves::SUBJECTS.len() as isize - 1;
    model.live.view.small = ((model.live.view.small as isize - 1 + by).rem_euclid(count) + 1) as usize;
    Vec::new()
}

/// Why there is nothing to look at.
pub(super) fn no_run(model: &Model) -> Option<String> {
    let none = || "no run is open: press 1 to choose one, 5 to start one".to_owned();
    model.shared.current_run().is_none().then(none)
}

fn no_text(model: &Model) -> Option<String> {
    no_run(model).or_else(|| completion::selected(model).is_none().then(|| "no completion selected".to_owned()))
}

fn no_worker(model: &Model) -> Option<String> {
    no_run(model).or_else(|| model.shared.current_run().and_then(run_control::refusal))
}

fn no_note(model: &Model) -> Option<String> {
    no_run(model).or_else(|| model.shared.current_run().and_then(run_control::no_note))
}

fn no_resume(model: &Model) -> Option<String> {
    no_run(model).or_else(|| model.shared.current_run().and_then(run_control::no_resume))
}

fn copy(model: &mut Model) -> Vec<Command> {
    let Some(text) = completion::selected(model).map(|(_, completion, _)| completion.text.clone()) else { return Vec::new() };
    model.shared.say("completion copied");
    vec![Command::Copy(text)]
}

fn ask(model: &mut Model, verb: Verb) -> Vec<Command> {
    let Some(run) = model.shared.current.clone() else { return Vec::new() };
    if verb.is_work() {
        model.shared.say(format!("requested: {}", verb.name()));
    }
    vec![run_control::request(&run, verb)]
}

fn pause(model: &mut Model) -> Vec<Command> {
    let paused = model.shared.current_run().is_some_and(|run| run.status() == crate::run::Status::Paused);
    ask(model, if paused { Verb::Resume } else { Verb::Pause })
}

fn resume(model: &mut Model) -> Vec<Command> {
    run_control::resume_current(model)
}

fn stop(model: &mut Model, now: bool) -> Vec<Command> {
    let id = model.shared.current_run().map(FollowedRun::id).unwrap_or_default();
    let (text, yes) = match now {
        true => ("Stops now. The current step is lost; resume continues from the last checkpoint.", "kill"),
        false => ("Stops after the current step and saves a checkpoint. Can be resumed.", "stop"),
    };
    model.shared.popup = Some(Popup::Confirm(Confirm::new(format!("Stop {id}?"), text, yes, move |model| ask(model, Verb::Stop { now }))));
    Vec::new()
}

fn note(model: &mut Model) -> Vec<Command> {
    let Some(run) = model.shared.current.clone() else { return Vec::new() };
    model.shared.popup = Some(Popup::Ask(run_control::ask_note(run, |_| Vec::new())));
    Vec::new()
}

/// `set` as typed: assignments between blanks.
fn assignments(text: &str) -> Result<Verb, String> {
    Verb::set(text.split_whitespace())
}

fn set(model: &mut Model) -> Vec<Command> {
    let now = model.shared.current_run().and_then(|run| run.history.metrics.get("learning_rate").and_then(crate::run::Series::last));
    let text = now.map_or_else(String::new, |rate| format!("learning_rate={rate:e}"));
    let label = "KEY=VALUE (learning_rate, temperature, max_steps), from the next step on:";
    let question = Ask::new("Set", label, &text, |model, text| match assignments(&text) {
        Ok(verb) => ask(model, verb),
        Err(error) => {
            model.shared.complain(error);
            Vec::new()
        }
    });
    model.shared.popup = Some(Popup::Ask(question.checked(|text| assignments(text).err())));
    Vec::new()
}
