//! Draws the editor: line numbers, marks of problems, coloured text, brackets, search matches, the selection, the
//! cursor.

use ratatui::Frame;
use ratatui::layout::{Margin, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::tokens::{matches, matching_bracket, tokens};
use super::{Editor, width, window};
use crate::score::Fault;
use crate::secrets::visible_letter;
use crate::view::style_role::Role;
use crate::view::theme::Theme;

/// Options for drawing the editor.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    pub theme: &'a Theme,
    /// Whether it has the keys.
    pub typing: bool,
    /// Whether its pane has the focus.
    pub focused: bool,
    /// Problems of the text.
    pub faults: &'a [Fault],
}

/// Columns before the text: line number, mark, a space.
fn gutter(lines: usize) -> usize {
    lines.max(1).to_string().len().max(2) + 3
}

/// The area of the text in an editor's pane: inside the frame, after the line numbers.
pub fn text_area(editor: &Editor, pane: Rect) -> Rect {
    let (inside, margin) = (pane.inner(Margin::new(1, 1)), gutter(editor.lines().len()) as u16);
    Rect { x: inside.x + margin, width: inside.width.saturating_sub(margin), ..inside }
}

pub fn paint(editor: &Editor, look: Look<'_>, frame: &mut Frame<'_>, area: Rect) {
    if area.width == 0 || area.height == 0 {
        return;
    }
    let rows = area.height as usize;
    let lines = editor.lines();
    let columns = (area.width as usize).saturating_sub(gutter(lines.len()));
    let (row, _) = editor.cursor();
    let top = window(editor.top, row, rows, lines.len());
    let left = window(editor.left, editor.cursor_column(), columns.saturating_sub(1), usize::MAX);
    let brackets = if editor.is_json && look.focused { matching_bracket(lines, editor.cursor()) } else { None };
    let drawn = (top..lines.len().min(top + rows)).map(|row| {
        let mut line = margin(editor, look, row);
        line.spans.extend(text(editor, look, row, brackets, left, columns));
        line
    });
    frame.render_widget(Paragraph::new(drawn.collect::<Vec<_>>()), area);
}

/// The worst fault of a row.
fn fault_of<'a>(look: Look<'a>, row: usize) -> Option<&'a Fault> {
    look.faults.iter().filter(|fault| fault.line == row + 1).max_by_key(|fault| fault.is_error)
}

/// The fault under the cursor, else the worst one of its row.
pub fn fault_at(faults: &[Fault], (row, column): (usize, usize)) -> Option<&Fault> {
    let here = |fault: &&Fault| (fault.column - 1..fault.column - 1 + fault.length).contains(&column);
    let of_row = || faults.iter().filter(|fault| fault.line == row + 1);
    of_row().find(here).or_else(|| of_row().max_by_key(|fault| fault.is_error))
}

fn margin(editor: &Editor, look: Look<'_>, row: usize) -> Line<'static> {
    let theme = look.theme;
    let digits = gutter(editor.lines().len()) - 3;
    let here = row == editor.cursor().0 && look.focused;
    let number =
        Span::styled(format!("{:>digits$}", row + 1), theme.style(if here { Role::Accent } else { Role::Faint }));
    let mark = match fault_of(look, row) {
        Some(fault) if fault.is_error => Span::styled(theme.glyph(" ✗ ", " x "), theme.style(Role::Bad)),
        Some(_) => Span::styled(theme.glyph(" ▲ ", " ! "), theme.style(Role::Warning)),
        None => Span::raw("   "),
    };
    Line::from(vec![number, mark])
}

fn text(
    editor: &Editor,
    look: Look<'_>,
    row: usize,
    brackets: Option<[(usize, usize); 2]>,
    left: usize,
    columns: usize,
) -> Vec<Span<'static>> {
    let line = editor.lines().get(row).map_or("", String::as_str);
    let mut letters: Vec<char> = line.chars().collect();
    let mut styles = styles(editor, look, row, line, brackets);
    let (cursor_row, cursor) = editor.cursor();
    let has_cursor = look.focused && row == cursor_row;
    if has_cursor && cursor >= letters.len() {
        letters.push(' ');
        styles.push(Style::new());
    }
    if has_cursor && let Some(style) = styles.get_mut(cursor) {
        *style =
            style.add_modifier(if look.typing { Modifier::REVERSED } else { Modifier::UNDERLINED | Modifier::BOLD });
    }
    let mut spans: Vec<Span<'static>> = Vec::new();
    let mut column = 0;
    let is_cut = letters.iter().copied().map(width).sum::<usize>() > left + columns;
    let shown_columns = if is_cut { columns.saturating_sub(1) } else { columns };
    for (letter, style) in letters.into_iter().zip(styles) {
        let wide = width(letter);
        let inside = column >= left && column + wide <= left + shown_columns;
        column += wide;
        if !inside {
            continue;
        }
        let shown = match letter {
            '\t' => "  ".to_owned(),
            letter => visible_letter(letter).to_string(),
        };
        match spans.last_mut() {
            Some(last) if last.style == style => last.content.to_mut().push_str(&shown),
            _ => spans.push(Span::styled(shown, style)),
        }
    }
    if is_cut {
        spans.push(Span::styled(look.theme.glyph("›", ">"), look.theme.style(Role::Faint)));
    }
    let room = (left + columns).saturating_sub(column.max(left) + 2);
    spans.extend(message(look, (row, cursor), room).filter(|_| has_cursor));
    spans
}

/// The fault of the cursor's row, after its text if a part of it fits.
fn message(look: Look<'_>, cursor: (usize, usize), room: usize) -> Option<Span<'static>> {
    let fault = fault_at(look.faults, cursor).filter(|_| room >= 16)?;
    let short: String = if fault.message.chars().count() > room {
        fault.message.chars().take(room - 1).chain(look.theme.glyph("…", "~").chars()).collect()
    } else {
        fault.message.clone()
    };
    Some(Span::styled(format!("  {short}"), look.theme.style(if fault.is_error { Role::Bad } else { Role::Warning })))
}

fn styles(
    editor: &Editor,
    look: Look<'_>,
    row: usize,
    line: &str,
    brackets: Option<[(usize, usize); 2]>,
) -> Vec<Style> {
    let theme = look.theme;
    let mut styles = vec![theme.style(Role::Text); line.chars().count()];
    let mut lay = |columns: std::ops::Range<usize>, style: Style| {
        let end = columns.end.min(styles.len());
        for under in styles.get_mut(columns.start.min(end)..end).unwrap_or_default() {
            *under = under.patch(style);
        }
    };
    if editor.is_json {
        tokens(line).into_iter().for_each(|token| lay(token.columns, theme.style(token.role)));
    }
    for fault in look.faults.iter().filter(|fault| fault.line == row + 1) {
        let style = if fault.is_error {
            theme.style(Role::Fault)
        } else {
            theme.style(Role::Warning).add_modifier(Modifier::UNDERLINED)
        };
        lay(fault.column - 1..fault.column - 1 + fault.length, style);
    }
    for (_, column) in brackets.into_iter().flatten().filter(|(other, _)| *other == row) {
        lay(column..column + 1, theme.style(Role::Accent).add_modifier(Modifier::UNDERLINED));
    }
    matches(line, &editor.query).into_iter().for_each(|columns| lay(columns, theme.style(Role::Match)));
    if let Some(((first, from), (last, to))) =
        editor.selection().filter(|((first, _), (last, _))| (*first..=*last).contains(&row))
    {
        let columns = if row == first { from } else { 0 }..if row == last { to } else { usize::MAX };
        lay(columns, theme.style(Role::Selected).add_modifier(Modifier::REVERSED));
    }
    styles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_the_cursor_and_moves_no_further_than_it_must() {
        let check = |first, cursor, rows, len, expected| {
            assert_eq!(window(first, cursor, rows, len), expected, "{first} {cursor} {rows} {len}")
        };
        check(0, 0, 10, 5, 0);
        check(3, 4, 10, 5, 0);
        check(0, 12, 10, 50, 3);
        check(20, 12, 10, 50, 12);
        check(5, 12, 10, 50, 5);
        check(0, 3, 0, 10, 3);
        check(99, 9, 4, 10, 6);
    }
}
