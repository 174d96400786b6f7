//! The box of a popup, and the result of a key in it.

use ratatui::layout::{Rect, Size};
use ratatui::text::Line;

use crate::action::ActionInfo;
use crate::message::Update;
use crate::pane::content::Place;
use crate::widgets::text_width::wrapped_rows;

#[derive(Debug)]
pub enum PopupOutcome {
    Stay,
    Close,
    Refused(&'static str),
    /// Answered, with these commands.
    Update(Update),
    Perform(&'static ActionInfo),
}

pub(super) fn place(area: Rect, columns: u16, rows: u16) -> Place {
    let (width, height) = (columns.min(area.width), rows.min(area.height));
    let area = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 3,
        width,
        height,
    };
    Place {
        is_over: true,
        ..Place::new("popup", area)
    }
}

/// Rows of some lines, wrapped in a box of so many columns.
pub(super) fn text_rows<'a>(lines: impl Iterator<Item = &'a str>, columns: u16) -> u16 {
    let columns = usize::from(columns.saturating_sub(2));
    let rows = lines.map(|line| wrapped_rows(&Line::from(line.to_owned()), columns));
    u16::try_from(rows.sum::<usize>()).unwrap_or(u16::MAX / 2)
}

pub(super) fn body(size: Size) -> Rect {
    Rect {
        x: 0,
        y: 1,
        width: size.width,
        height: size.height.saturating_sub(2),
    }
}
