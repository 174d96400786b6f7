//! What lies over a screen and takes all keys: help, the palette, a question, a confirmation, a page of text.

mod blocked;
mod confirm;
mod help;
mod input;
mod palette;
mod text;

pub use blocked::Refusal;
pub use confirm::Confirm;
pub use help::Help;
pub use input::Ask;
pub use palette::Palette;
pub use text::Page;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::action::Action;
use super::global_actions;
use super::key_chord::Chord;
use super::message::Command;
use super::model::Model;

/// The popup in front.
#[derive(Debug)]
pub enum Popup {
    /// What can be done here.
    Help(Help),
    /// Every action, by a few letters.
    Palette(Palette),
    /// One line of text is asked for.
    Ask(Ask),
    /// Yes or no.
    Confirm(Confirm),
    /// Text to read.
    Page(Page),
    /// Why text cannot be typed now.
    Refusal(Refusal),
}

/// A key while a popup is in front.
pub fn key(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    if let Some(action) = of_program(model, event) {
        return (action.perform)(model);
    }
    // The popup is taken out while it works, so that it may change the model; unless it is done it goes back.
    let Some(mut popup) = model.shared.popup.take() else { return Vec::new() };
    let outcome = match &mut popup {
        Popup::Help(help) => help.key(event),
        Popup::Palette(palette) => palette.key(model, event),
        Popup::Ask(ask) => ask.key(model, event),
        Popup::Confirm(confirm) => confirm.key(event),
        Popup::Page(page) => page.key(event),
        Popup::Refusal(refusal) => refusal.key(event),
    };
    match outcome {
        Outcome::Stay => {
            model.shared.popup = Some(popup);
            Vec::new()
        }
        Outcome::Close => Vec::new(),
        Outcome::Then(then) => then.run(model),
    }
}

/// What works whatever lies over the screen: leaving, suspending and drawing again, by keys that no text field takes.
fn of_program(model: &Model, event: KeyEvent) -> Option<&'static Action> {
    let chord = Chord::of(event);
    let modified = chord.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    let wanted = |action: &&Action| ["quit", "suspend", "redraw"].contains(&action.id) && model.shared.keymap.keys(action).contains(&chord);
    global_actions::ACTIONS.iter().filter(|_| modified).find(wanted)
}

/// Pasted text while a popup is in front.
pub fn paste(model: &mut Model, text: &str) -> Vec<Command> {
    match &mut model.shared.popup {
        Some(Popup::Ask(ask)) => ask.paste(text),
        Some(Popup::Palette(palette)) => palette.paste(text),
        _ => {}
    }
    Vec::new()
}

/// The mouse while a popup is in front: the wheel scrolls, a click on a row of the palette takes it.
pub fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let rows = match event.kind {
        MouseEventKind::Down(MouseButton::Left) => {
            let row = match &model.shared.popup {
                Some(Popup::Palette(palette)) => palette.row_at(model, (event.column, event.row)),
                _ => None,
            };
            let (Some(row), Some(Popup::Palette(palette))) = (row, &mut model.shared.popup) else { return Vec::new() };
            palette.go_to(row);
            return key(model, KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
        }
        MouseEventKind::ScrollDown => 3,
        MouseEventKind::ScrollUp => -3,
        _ => return Vec::new(),
    };
    match &mut model.shared.popup {
        Some(Popup::Help(help)) => help.page.scroll(rows),
        Some(Popup::Page(page)) => page.scroll(rows),
        Some(Popup::Palette(palette)) => palette.go(rows.signum() as isize),
        _ => {}
    }
    Vec::new()
}

/// Draws the popup over a screen.
pub fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    match &model.shared.popup {
        Some(Popup::Help(help)) => help.draw(model, frame, area),
        Some(Popup::Palette(palette)) => palette.draw(model, frame, area),
        Some(Popup::Ask(ask)) => ask.draw(model, frame, area),
        Some(Popup::Confirm(confirm)) => confirm.draw(model, frame, area),
        Some(Popup::Page(page)) => page.draw(model, frame, area),
        Some(Popup::Refusal(refusal)) => refusal.draw(model, frame, area),
        None => {}
    }
}

/// What a key did to a popup.
#[derive(Debug)]
enum Outcome {
    Stay,
    Close,
    Then(Then),
}

/// What is done once a popup has its answer.
struct Then(super::message::ModelUpdate);

impl Then {
    fn new(run: impl FnOnce(&mut Model) -> Vec<Command> + Send + 'static) -> Self {
        Self(Box::new(run))
    }

    fn run(self, model: &mut Model) -> Vec<Command> {
        (self.0)(model)
    }
}

impl std::fmt::Debug for Then {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Then")
    }
}

/// A box of at most this size in the middle of an area, emptied; the inside of its frame.
fn window(model: &Model, frame: &mut Frame<'_>, area: Rect, title: &str, columns: u16, rows: u16) -> Rect {
    use ratatui::widgets::Clear;
    let place = place(area, columns, rows);
    frame.render_widget(Clear, place);
    let pane = super::pane::pane(&model.shared.theme, title, true);
    let inside = pane.inner(place);
    frame.render_widget(pane, place);
    inside
}

/// Where a box of at most this size stands in an area, with its frame.
fn place(area: Rect, columns: u16, rows: u16) -> Rect {
    let (width, height) = (columns.min(area.width), rows.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 3, width, height }
}
