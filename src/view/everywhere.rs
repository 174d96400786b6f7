//! The actions that work on every screen.

use super::action::{Action, Place};
use super::message::Command;
use super::model::{Model, Screen};
use super::popup::{Help, Page, Palette, Popup};
use super::workbench::go_to;
use super::{notice, screens};

/// Their part of the table.
pub const ACTIONS: &[Action] = &[
    Action::new("help", "Show what can be done here", "help", &["?"], Place::Everywhere, |model| {
        model.popup = Some(Popup::Help(Help::new(model)));
        Vec::new()
    }),
    Action::new("palette", "Find any action by its name", "palette", &["ctrl-p", ":"], Place::Everywhere, |model| {
        model.popup = Some(Popup::Palette(Palette::default()));
        Vec::new()
    }),
    Action::new("screen.runs", "Go to the runs", "", &["f1", "1"], Place::Everywhere, |model| go_to(model, Screen::Runs)),
    Action::new("screen.schema", "Go to the schema", "", &["f2", "2"], Place::Everywhere, |model| go_to(model, Screen::Schema)),
    Action::new("screen.prompts", "Go to the prompts", "", &["f3", "3"], Place::Everywhere, |model| go_to(model, Screen::Prompts)),
    Action::new("screen.scores", "Go to the scores", "", &["f4", "4"], Place::Everywhere, |model| go_to(model, Screen::Scores)),
    Action::new("screen.launch", "Go to the launch form", "", &["f5", "5"], Place::Everywhere, |model| go_to(model, Screen::Launch)),
    Action::new("screen.live", "Go to the live run", "", &["f6", "6"], Place::Everywhere, |model| go_to(model, Screen::Live)),
    Action::new("screen.eval", "Go to the comparison", "", &["f7", "7"], Place::Everywhere, |model| go_to(model, Screen::Eval)),
    Action::new("pane.next", "Go to the next pane", "pane", &["tab"], Place::Everywhere, |model| move_focus(model, 1)),
    Action::new("pane.previous", "Go to the previous pane", "", &["backtab"], Place::Everywhere, |model| move_focus(model, -1)),
    Action::new("pane.zoom", "Let the pane fill the screen, or shrink it again", "zoom", &["z"], Place::Everywhere, |model| {
        model.zoomed = !model.zoomed;
        Vec::new()
    }),
    Action::new("notices", "Show what was said in this session", "", &["alt-n"], Place::Everywhere, |model| {
        let lines = model.notices.all().iter().rev().map(|notice| notice::line(&model.theme, notice)).collect();
        model.popup = Some(Popup::Page(Page::new("What was said", lines)));
        Vec::new()
    }),
    Action::new("redraw", "Draw everything again", "", &["ctrl-l"], Place::Everywhere, |_| vec![Command::Redraw]),
    Action::new("suspend", "Suspend the program as a job of the shell", "", &["ctrl-z"], Place::Everywhere, |_| vec![Command::Suspend]),
    Action::new("quit", "Leave; runs go on", "quit", &["q", "ctrl-c"], Place::Everywhere, |_| vec![Command::Quit]),
];

fn move_focus(model: &mut Model, by: isize) -> Vec<Command> {
    let screen = screens::of(model.screen);
    let panes = screen.panes;
    if panes.is_empty() {
        return Vec::new();
    }
    let now = panes.iter().position(|pane| *pane == screen.pane_of(model)).unwrap_or(0);
    let next = (now as isize + by).rem_euclid(panes.len() as isize) as usize;
    (screen.focus)(model, panes[next]);
    Vec::new()
}
