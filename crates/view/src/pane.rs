//! A pane: a frame with a title that shows the focus.

use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::style::Style;
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::style_role::Role;
use super::theme::Theme;
use super::widgets::text_width::wrapped_rows;

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

/// The border in linear mode: characters that no text has, by which panes are found in what is drawn.
pub const LINEAR_BORDER: border::Set<'static> = border::Set {
    top_left: "\u{10fff0}",
    top_right: "\u{10fff1}",
    bottom_left: "\u{10fff2}",
    bottom_right: "\u{10fff3}",
    vertical_left: "\u{10fff4}",
    vertical_right: "\u{10fff4}",
    horizontal_top: "\u{10fff5}",
    horizontal_bottom: "\u{10fff5}",
};

/// The frame of a pane. The focused one has another colour and a mark before its title.
pub fn pane<'a>(theme: &Theme, title: &str, focused: bool) -> Block<'a> {
    let role = if focused { Role::BorderFocused } else { Role::Border };
    let mark = if focused { theme.glyph("▸", ">") } else { "" };
    let set = match () {
        () if theme.linear => LINEAR_BORDER,
        () if theme.ascii => ASCII_BORDER,
        () => border::PLAIN,
    };
    let title = if title.is_empty() {
        Span::raw("")
    } else {
        Span::styled(format!("{mark} {title} "), theme.style(Role::Title))
    };
    Block::new().borders(Borders::ALL).border_set(set).border_style(theme.style(role)).style(Style::new()).title(title)
}

/// Draws a pane's frame and returns the area inside.
pub fn framed(theme: &Theme, title: &str, focused: bool, frame: &mut Frame<'_>, area: Rect) -> Rect {
    framed_with(theme, (title, "", Line::default()), focused, frame, area)
}

/// As [`framed`], with a title, a key at the right of it, and a legend in the lower edge, where they fit.
pub fn framed_with(
    theme: &Theme,
    (title, key, legend): (&str, &str, Line<'static>),
    focused: bool,
    frame: &mut Frame<'_>,
    area: Rect,
) -> Rect {
    let mut block = pane(theme, title, focused);
    // Blanks, the mark of the focus, and the corners.
    if !key.is_empty() && title.width() + key.width() + 8 <= usize::from(area.width) {
        block = block.title_top(Line::styled(format!(" {key} "), theme.style(Role::Faint)).alignment(Alignment::Right));
    }
    if legend.width() > 0 {
        block = block.title_bottom(legend);
    }
    let inside = block.inner(area);
    frame.render_widget(block, area);
    inside
}

/// Draws wrapped lines from one of them on in the area inside a frame. If more are below, its lower edge says so, with
/// the keys that scroll.
pub fn scrolled(
    theme: &Theme,
    (lines, top): (Vec<Line<'static>>, usize),
    keys: &str,
    frame: &mut Frame<'_>,
    inside: Rect,
) {
    let lines: Vec<Line<'static>> = lines.into_iter().skip(top).collect();
    let rows: usize = lines.iter().map(|line| wrapped_rows(line, inside.width.into())).sum();
    if rows > inside.height.into() {
        more_below(theme, keys, frame, inside);
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}

/// Says in the lower edge of the frame around an area that more lines are below, and which keys show them.
pub fn more_below(theme: &Theme, keys: &str, frame: &mut Frame<'_>, inside: Rect) {
    let text = if keys.is_empty() { " more below ".to_owned() } else { format!(" more below: {keys} ") };
    let edge = Rect { y: inside.bottom(), height: 1, ..inside };
    if text.width() + 2 <= inside.width.into() {
        let line = Line::styled(text, theme.style(Role::Faint)).right_aligned();
        frame.render_widget(line, edge.intersection(frame.area()));
    }
}

pub fn text_pane(theme: &Theme, title: &str, (role, text): (Role, &str), frame: &mut Frame<'_>, area: Rect) {
    let inside = framed(theme, title, true, frame, area);
    let lines: Vec<Line<'_>> = text.lines().map(|line| Line::styled(line, theme.style(role))).collect();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}
