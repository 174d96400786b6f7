//! The seven screens. Each describes itself by one [`ScreenDef`]; the rest of the view knows a screen only through that.

pub mod eval;
pub mod launch;
pub mod live;
pub mod prompts;
pub mod runs;
pub mod schema;
pub mod scores;

use std::path::PathBuf;

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::action::Action;
use super::message::Command;
use super::model::{Model, Screen};

/// What a screen gives to the view.
#[derive(Debug)]
pub struct ScreenDef {
    /// In the header.
    pub title: &'static str,
    /// What the screen is for, in a sentence or two; the head of its help.
    pub help: &'static str,
    /// Its panes, in the order of the tab key; names for people.
    pub panes: &'static [&'static str],
    /// Its part of the table of actions.
    pub actions: &'static [Action],
    /// Which of its panes has the focus.
    pub pane: fn(&Model) -> &'static str,
    /// Give a pane the focus.
    pub focus: fn(&mut Model, &'static str),
    /// Whether a text field has the focus, which takes all plain keys.
    pub is_typing: fn(&Model) -> bool,
    /// A key that is no action here.
    pub typed: fn(&mut Model, KeyEvent) -> Vec<Command>,
    /// Pasted text.
    pub pasted: fn(&mut Model, &str) -> Vec<Command>,
    /// The mouse below the header.
    pub mouse: fn(&mut Model, MouseEvent) -> Vec<Command>,
    /// Whether a double click at a column and row opens what is under it, as enter does.
    pub opens: fn(&Model, (u16, u16)) -> bool,
    /// The user came to the screen.
    pub entered: fn(&mut Model) -> Vec<Command>,
    /// Something that screens share has changed; also told while another screen is in front.
    pub changed: fn(&mut Model, &Change) -> Vec<Command>,
    /// Draws the screen. Only reads.
    pub draw: fn(&Model, &mut Frame<'_>, Rect),
}

/// Something that screens share and that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another task, or the task read again.
    Task,
    /// The schema in the editor was compiled, or could not be.
    Schema,
    /// Another run is the current one.
    CurrentRun,
    /// There is news of the current run.
    RunNews,
    /// A file was written, by an external editor or by this program.
    File(PathBuf),
    /// A second has passed.
    Second,
}

impl ScreenDef {
    /// A screen without panes, text fields or anything of its own; screens name what differs.
    pub const PLAIN: Self = Self {
        title: "",
        help: "",
        panes: &[],
        actions: &[],
        pane: |_| "",
        focus: |_, _| {},
        is_typing: |_| false,
        typed: |_, _| Vec::new(),
        pasted: |_, _| Vec::new(),
        mouse: |_, _| Vec::new(),
        opens: |_, _| false,
        entered: |_| Vec::new(),
        changed: |_, _| Vec::new(),
        draw: |_, _, _| {},
    };

    /// The pane that has the focus.
    pub fn pane_of(&self, model: &Model) -> &'static str {
        (self.pane)(model)
    }
}

/// All screens, in the order of their keys.
pub const ALL: [&ScreenDef; 7] =
    [&runs::PARTS, &schema::PARTS, &prompts::PARTS, &scores::PARTS, &launch::PARTS, &live::PARTS, &eval::PARTS];

/// The parts of a screen.
pub fn of(screen: Screen) -> &'static ScreenDef {
    ALL[screen as usize]
}

/// Whether an editor of several lines has the focus: there the tab key, too, is text.
pub fn takes_tab(model: &Model) -> bool {
    match model.shared.screen {
        Screen::Schema => (schema::PARTS.is_typing)(model),
        Screen::Prompts => model.prompts.editing.is_some(),
        _ => false,
    }
}

/// Tell every screen of a change.
pub fn changed(model: &mut Model, change: Change) -> Vec<Command> {
    ALL.iter().flat_map(|screen| (screen.changed)(model, &change)).collect()
}

/// A second has passed.
pub fn tick(model: &mut Model) -> Vec<Command> {
    changed(model, Change::Second)
}
