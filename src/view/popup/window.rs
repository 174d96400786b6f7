//! The box of a popup, and what a key did to it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::Clear;

use crate::view::action::ActionInfo;
use crate::view::message::Update;
use crate::view::pane::pane;
use crate::view::theme::Theme;

/// What a key did to a popup.
#[derive(Debug)]
pub enum PopupOutcome {
    Stay,
    Close,
    /// It is answered, and this follows.
    Update(Update),
    /// An action was chosen.
    Perform(&'static ActionInfo),
}

/// A box of at most this size in the middle of an area, emptied; the inside of its frame.
pub(super) fn window(theme: &Theme, frame: &mut Frame<'_>, area: Rect, title: &str, columns: u16, rows: u16) -> Rect {
    let place = place(area, columns, rows);
    frame.render_widget(Clear, place);
    let frame_of = pane(theme, title, true);
    let inside = frame_of.inner(place);
    frame.render_widget(frame_of, place);
    inside
}

/// Where a box of at most this size stands in an area, with its frame.
pub(super) fn place(area: Rect, columns: u16, rows: u16) -> Rect {
    let (width, height) = (columns.min(area.width), rows.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 3, width, height }
}
