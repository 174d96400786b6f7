//! Every action of the table, by its first key: it is reached where it says it works, and something comes of it, or it says why not.

use grpo_tui::view::action::{ActionInfo, Place};
use grpo_tui::view::popup::Popup;
use grpo_tui::view::{Screen, app};

use super::harness::Stage;
use super::launch::forecasting;
use super::runs::copy_run;

const RUN: &str = "20261120-143041-invoice-6sx3dn";

/// Ways to a place where an action has something to do: the focus is on its pane already.
const PREPARATIONS: [&str; 12] = ["", "j", "G", "l", "home", "space", "down down", "c", "v", "o", "/ x enter", "enter x"];

/// A task in a folder, two runs that have ended, and a program that answers forecasts.
fn stage() -> Stage {
    let mut stage = Stage::with(120, 36, |options| {
        forecasting(options);
        crate::program::sample_task(&options.here.join("tasks/invoice"), [usize::MAX, usize::MAX, 20]);
        copy_run(&options.here.join("runs"), "20261119-090000-invoice-aaaaaa", "another", "failed");
        copy_run(&options.here.join("runs"), RUN, "small adapters", "finished");
    });
    let run = stage.folder.path().join("runs").join(RUN);
    stage.act(|_| vec![grpo_tui::view::Command::ShowRun(run)]);
    stage
}

/// What a user could notice.
fn noticed(stage: &Stage) -> (String, usize, usize) {
    (stage.picture(), stage.asked.len(), stage.model.shared.notices.all().len())
}

/// Whether anything comes of the action after a preparation; false also where the preparation leads away from it. What cannot be seen at once, such as
/// a mark below the pane, counts where `unseen`: then the whole model is compared, which is slow.
fn works(action: &ActionInfo, preparation: &str, unseen: bool) -> bool {
    let mut stage = stage();
    let (screen, pane) = match action.place {
        Place::Everywhere => (Screen::Live, None),
        Place::On(screen) => (screen, None),
        Place::In(screen, pane) => (screen, Some(pane)),
    };
    stage.act(|_| vec![grpo_tui::view::Command::GoTo(screen)]);
    if let Some(pane) = pane {
        app::screen(screen).focus(&mut stage.model, pane);
    }
    stage.keys(preparation);
    if !stage.model.is_here(action) {
        return false;
    }
    let whole = |stage: &Stage| if unseen { format!("{:?}", stage.model) } else { String::new() };
    let before = (noticed(&stage), whole(&stage));
    let typed_before = stage.model.takes_text();
    match action.keys {
        [] => _ = stage.keys("ctrl-p").types(action.id).keys("enter"),
        [key, ..] => _ = stage.keys(key),
    }
    // Whatever begins a text says so: where it is refused, the keys that follow are no commands.
    let types = stage.model.screen().is_typing(&stage.model) || matches!(stage.model.shared.popup, Some(Popup::Ask(_)));
    let may_type = action.asks || action.id == "launch.open" || typed_before;
    assert!(!types || may_type, "{} begins a text and is not marked so", action.id);
    (noticed(&stage), whole(&stage)) != before
}

fn check(place: Option<Screen>) {
    let ways = || PREPARATIONS.iter().map(|way| (way, false)).chain(PREPARATIONS.iter().map(|way| (way, true)));
    let here = |action: &&ActionInfo| match action.place {
        Place::Everywhere => place.is_none(),
        Place::On(screen) | Place::In(screen, _) => place == Some(screen),
    };
    let actions: Vec<&ActionInfo> = app::actions().filter(here).collect();
    assert!(!actions.is_empty());
    let dead: Vec<&str> =
        actions.into_iter().filter(|action| !ways().any(|(way, unseen)| works(action, way, unseen))).map(|action| action.id).collect();
    assert!(dead.is_empty(), "nothing comes of {dead:?}");
}

#[test]
fn everywhere() {
    check(None);
}

#[test]
fn runs() {
    check(Some(Screen::Runs));
}

#[test]
fn schema() {
    check(Some(Screen::Schema));
}

#[test]
fn prompts() {
    check(Some(Screen::Prompts));
}

#[test]
fn scores() {
    check(Some(Screen::Scores));
}

#[test]
fn launch() {
    check(Some(Screen::Launch));
}

#[test]
fn live() {
    check(Some(Screen::Live));
}

#[test]
fn eval() {
    check(Some(Screen::Eval));
}
