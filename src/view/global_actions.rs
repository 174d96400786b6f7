//! The actions that work on every screen.

use super::action::{Action, Place};
use super::message::Command;
use super::model::{Model, Screen};
use super::popup::{Confirm, Help, Page, Palette, Popup};
use super::shared::go_to;
use super::{messages, screens};

/// Their part of the table.
pub const ACTIONS: &[Action] = &[
    Action::new("help", "Show help", "help", &["?"], Place::Everywhere, |model| {
        model.shared.popup = Some(Popup::Help(Help::new(model)));
        Vec::new()
    })
    .also(&["keys", "shortcuts"]),
    Action::new("palette", "Command palette", "palette", &["ctrl-p", ":"], Place::Everywhere, |model| {
        model.shared.popup = Some(Popup::Palette(Palette::default()));
        Vec::new()
    })
    .also(&["commands", "actions"]),
    Action::new("screen.runs", "Go to runs", "", &["f1", "1"], Place::Everywhere, |model| go_to(model, Screen::Runs)),
    Action::new("screen.schema", "Go to schema", "", &["f2", "2"], Place::Everywhere, |model| go_to(model, Screen::Schema)),
    Action::new("screen.prompts", "Go to prompts", "", &["f3", "3"], Place::Everywhere, |model| go_to(model, Screen::Prompts)),
    Action::new("screen.scores", "Go to scores", "", &["f4", "4"], Place::Everywhere, |model| go_to(model, Screen::Scores)),
    Action::new("screen.launch", "Go to launch", "", &["f5", "5"], Place::Everywhere, |model| go_to(model, Screen::Launch))
        .also(&["new run"]),
    Action::new("screen.live", "Go to live", "", &["f6", "6"], Place::Everywhere, |model| go_to(model, Screen::Live)),
    Action::new("screen.eval", "Go to eval", "", &["f7", "7"], Place::Everywhere, |model| go_to(model, Screen::Eval))
        .also(&["comparison", "eval"]),
    Action::new("pane.next", "Next pane", "pane", &["tab"], Place::Everywhere, |model| move_focus(model, 1)),
    Action::new("pane.previous", "Previous pane", "", &["backtab"], Place::Everywhere, |model| move_focus(model, -1)),
    Action::new("pane.zoom", "Toggle zoom", "zoom", &["z"], Place::Everywhere, |model| {
        model.shared.zoomed = !model.shared.zoomed;
        Vec::new()
    })
    .also(&["zoom", "maximize", "fullscreen"]),
    Action::new("notices", "Show messages", "", &["alt-n"], Place::Everywhere, |model| {
        let lines = model.shared.notices.all().iter().rev().map(|notice| messages::line(&model.shared.theme, notice)).collect();
        model.shared.popup = Some(Popup::Page(Page::new("Messages", lines)));
        Vec::new()
    })
    .also(&["messages", "notifications", "log"]),
    Action::new("redraw", "Redraw", "", &["ctrl-l"], Place::Everywhere, |_| vec![Command::Redraw]).also(&["refresh"]),
    Action::new("suspend", "Suspend", "", &["ctrl-z"], Place::Everywhere, |_| vec![Command::Suspend]).also(&["background"]),
    Action::new("quit", "Quit", "quit", &["q", "ctrl-c"], Place::Everywhere, quit).also(&["quit", "exit", "leave", "close"]),
];

/// Leave; what is unsaved is asked about. Asked a second time, by the same key, it is left at once.
fn quit(model: &mut Model) -> Vec<Command> {
    let schema = model.shared.draft.is_changed().then_some("schema");
    let prompts = model.prompts.editing.as_ref().filter(|editing| editing.is_changed()).map(|editing| editing.title());
    let unsaved: Vec<&str> = schema.into_iter().chain(prompts).collect();
    let is_asked = matches!(&model.shared.popup, Some(Popup::Confirm(confirm)) if confirm.is_about(LEAVING));
    if unsaved.is_empty() || is_asked {
        return vec![Command::Quit];
    }
    let text = format!("Unsaved: {}.\nDrafts are kept and offered at the next start. Runs continue.", unsaved.join(", and "));
    // What lay in front comes back after a no.
    let before = model.shared.popup.take();
    let question = Confirm::new(LEAVING, text, "quit", |_| vec![Command::Quit]).otherwise(move |model| {
        model.shared.popup = before;
        Vec::new()
    });
    model.shared.popup = Some(Popup::Confirm(question));
    Vec::new()
}

const LEAVING: &str = "Quit with unsaved changes?";

fn move_focus(model: &mut Model, by: isize) -> Vec<Command> {
    let screen = screens::of(model.shared.screen);
    let panes = screen.panes;
    if panes.is_empty() {
        return Vec::new();
    }
    let now = panes.iter().position(|pane| *pane == screen.pane_of(model)).unwrap_or(0);
    let next = (now as isize + by).rem_euclid(panes.len() as isize) as usize;
    (screen.focus)(model, panes[next]);
    Vec::new()
}
