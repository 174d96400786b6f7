//! The box of a popup, and the result of a key in it.

use ratatui::Frame;
use ratatui::layout::{Margin, Rect};
use ratatui::widgets::Clear;

use crate::action::ActionInfo;
use crate::message::Update;
use crate::pane::pane;
use crate::theme::Theme;

#[derive(Debug)]
pub enum PopupOutcome {
    Stay,
    Close,
    /// The key did nothing, for this reason.
    Refused(&'static str),
    /// Answered, with these commands.
    Update(Update),
    /// An action was selected.
    Perform(&'static ActionInfo),
}

/// Draws a box of at most this size in the middle of an area; returns the area inside its frame.
pub(super) fn window(theme: &Theme, frame: &mut Frame<'_>, area: Rect, title: &str, columns: u16, rows: u16) -> Rect {
    let place = place(area, columns, rows);
    frame.render_widget(Clear, place);
    let frame_of = pane(theme, title, true);
    let inside = frame_of.inner(place);
    frame.render_widget(frame_of, place);
    inside
}

/// The area inside the frame of such a box over the screen of a terminal of this size.
pub(super) fn inside((width, height): (u16, u16), columns: u16, rows: u16) -> Rect {
    let body = Rect { x: 0, y: 1, width, height: height.saturating_sub(2) };
    place(body, columns, rows).inner(Margin::new(1, 1))
}

/// The area of a box of at most this size, with its frame.
fn place(area: Rect, columns: u16, rows: u16) -> Rect {
    let (width, height) = (columns.min(area.width), rows.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 3, width, height }
}
