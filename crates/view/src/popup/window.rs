//! The box of a popup, and the result of a key in it.

use ratatui::layout::{Rect, Size};

use crate::action::ActionInfo;
use crate::message::Update;
use crate::pane::content::Place;

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

pub(super) fn body(size: Size) -> Rect {
    Rect {
        x: 0,
        y: 1,
        width: size.width,
        height: size.height.saturating_sub(2),
    }
}
