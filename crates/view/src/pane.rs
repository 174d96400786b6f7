//! A pane: a frame with a title that shows the focus.

pub mod content;
pub mod draw;
pub mod lines;
pub mod page;

use ratatui::style::Style;
use ratatui::symbols::border;
use ratatui::text::Span;
use ratatui::widgets::{Block, Borders};

use super::style_role::Role;
use super::theme::Theme;

const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

pub fn pane<'a>(theme: &Theme, title: &str, focused: bool) -> Block<'a> {
    let role = if focused {
        Role::BorderFocused
    } else {
        Role::Border
    };
    let mark = if focused { "▸" } else { "" };
    let set = if theme.ascii {
        ASCII_BORDER
    } else {
        border::PLAIN
    };
    let title = if title.is_empty() {
        Span::raw("")
    } else {
        theme.span(format!("{mark} {title} "), Role::Title)
    };
    Block::new()
        .borders(Borders::ALL)
        .border_set(set)
        .border_style(theme.style(role))
        .style(Style::new())
        .title(title)
}
