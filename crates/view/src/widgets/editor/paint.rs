//! Draws the editor: line numbers, marks of problems, coloured text, brackets, search matches, the selection, the
//! cursor.

use std::ops::Range;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::Editor;
use super::search::matches;
use super::wrap::{Part, gutter, width};
use crate::help::Fault;
use crate::json_reader::{matching_bracket, tokens};
use crate::secrets::visible_letter;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::text_width::fitted;

#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    pub theme: &'a Theme,
    pub typing: bool,
    pub focused: bool,
    pub faults: &'a [Fault],
    /// Whether long lines continue on the next line of the screen.
    pub wraps: bool,
}

pub fn paint(editor: &Editor, look: Look<'_>, frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'static>> = lines(editor, look, area)
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

pub fn lines(editor: &Editor, look: Look<'_>, area: Rect) -> Vec<(bool, Line<'static>)> {
    if area.width == 0 || area.height == 0 {
        return Vec::new();
    }
    let lines = editor.lines();
    let window = editor.window_in(area, look.wraps);
    let columns = window.columns;
    let ((top, skipped), left) = editor.first(window);
    let brackets = if editor.is_json && look.focused {
        matching_bracket(lines, editor.cursor())
    } else {
        None
    };
    let mut drawn: Vec<(bool, Line<'static>)> = Vec::new();
    for (row, line) in lines.iter().enumerate().skip(top) {
        let parts = editor.parts(row, window);
        let styles = styles(editor, look, row, line, brackets);
        let letters: Vec<char> = line.chars().collect();
        let skipped = if row == top { skipped } else { 0 };
        for (index, part) in parts
            .iter()
            .enumerate()
            .skip(skipped)
            .take(window.rows - drawn.len())
        {
            let mut line = margin(editor, look, row, index == 0);
            let is_last = index + 1 == parts.len();
            line.spans.extend(text(
                editor,
                look,
                (row, is_last),
                part,
                (&letters, &styles),
                left..left + columns,
            ));
            drawn.push((look.focused && row == editor.cursor().0, line));
        }
        if drawn.len() >= window.rows {
            break;
        }
    }
    drawn
}

fn fault_of<'a>(look: Look<'a>, row: usize) -> Option<&'a Fault> {
    look.faults
        .iter()
        .filter(|fault| fault.line == row + 1)
        .max_by_key(|fault| fault.is_error)
}

pub fn fault_at(faults: &[Fault], (row, column): (usize, usize)) -> Option<&Fault> {
    let here =
        |fault: &&Fault| (fault.column - 1..fault.column - 1 + fault.length).contains(&column);
    let of_row = || faults.iter().filter(|fault| fault.line == row + 1);
    of_row()
        .find(here)
        .or_else(|| of_row().max_by_key(|fault| fault.is_error))
}

fn margin(editor: &Editor, look: Look<'_>, row: usize, is_start: bool) -> Line<'static> {
    let theme = look.theme;
    let digits = gutter(editor.lines().len()) - 3;
    if !is_start {
        let mark = format!("{:>digits$}   ", "↪");
        return theme.line(mark, Role::Faint);
    }
    let here = row == editor.cursor().0 && look.focused;
    let number = theme.span(
        format!("{:>digits$}", row + 1),
        if here { Role::Accent } else { Role::Faint },
    );
    let mark = match fault_of(look, row) {
        Some(fault) if fault.is_error => theme.span(" ✗ ", Role::Bad),
        Some(_) => theme.span(" ▲ ", Role::Warning),
        None => Span::raw("   "),
    };
    Line::from(vec![number, mark])
}

/// The text of a part of a row within the shown columns. `letters`: of the whole row, which may be long.
fn text(
    editor: &Editor,
    look: Look<'_>,
    (row, is_last): (usize, bool),
    part: &Part,
    (letters, styles): (&[char], &[Style]),
    shown: Range<usize>,
) -> Vec<Span<'static>> {
    let letters = letters
        .get(part.columns.clone())
        .unwrap_or_default()
        .iter()
        .copied();
    let styles = styles
        .get(part.columns.clone())
        .unwrap_or_default()
        .iter()
        .copied();
    let mut letters: Vec<(char, Style)> = letters.zip(styles).collect();
    let (cursor_row, cursor) = editor.cursor();
    let has_cursor = look.focused
        && row == cursor_row
        && (part.columns.contains(&cursor) || (is_last && cursor >= part.columns.end));
    if has_cursor && cursor >= part.columns.end {
        letters.push((' ', Style::new()));
    }
    if has_cursor && let Some((_, style)) = letters.get_mut(cursor - part.columns.start) {
        *style = style.add_modifier(if look.typing {
            Modifier::REVERSED
        } else {
            Modifier::UNDERLINED | Modifier::BOLD
        });
    }
    let mut spans: Vec<Span<'static>> = Vec::new();
    spans.extend((part.indent > 0).then(|| Span::raw(" ".repeat(part.indent))));
    let mut column = part.indent;
    let is_cut = !look.wraps
        && letters
            .iter()
            .map(|(letter, _)| width(*letter))
            .sum::<usize>()
            > shown.end;
    let end = if is_cut {
        shown.end.saturating_sub(1)
    } else {
        shown.end
    };
    for (letter, style) in letters {
        let wide = width(letter);
        let inside = column >= shown.start && column + wide <= end;
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
        spans.push(look.theme.span("›", Role::Faint));
    }
    let room = shown.end.saturating_sub(column.max(shown.start) + 2);
    spans.extend(
        message(look, (row, cursor), room).filter(|_| is_last && look.focused && row == cursor_row),
    );
    spans
}

/// The fault of the cursor's row, shown after the text if there is space for part of it.
fn message(look: Look<'_>, cursor: (usize, usize), room: usize) -> Option<Span<'static>> {
    let fault = fault_at(look.faults, cursor).filter(|_| room >= 16)?;
    Some(look.theme.span(
        format!("  {}", fitted(&fault.message, room)),
        if fault.is_error {
            Role::Bad
        } else {
            Role::Warning
        },
    ))
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
    let mut lay = |columns: Range<usize>, style: Style| {
        let end = columns.end.min(styles.len());
        for under in styles
            .get_mut(columns.start.min(end)..end)
            .unwrap_or_default()
        {
            *under = under.patch(style);
        }
    };
    if editor.is_json {
        tokens(line).for_each(|token| lay(token.columns, theme.style(token.role)));
    }
    for fault in look.faults.iter().filter(|fault| fault.line == row + 1) {
        let style = if fault.is_error {
            theme.style(Role::Fault)
        } else {
            theme
                .style(Role::Warning)
                .add_modifier(Modifier::UNDERLINED)
        };
        lay(fault.column - 1..fault.column - 1 + fault.length, style);
    }
    for (_, column) in brackets
        .into_iter()
        .flatten()
        .filter(|(other, _)| *other == row)
    {
        lay(
            column..column + 1,
            theme.style(Role::Accent).add_modifier(Modifier::UNDERLINED),
        );
    }
    matches(line, &editor.query)
        .into_iter()
        .for_each(|columns| lay(columns, theme.style(Role::Match)));
    if let Some(((first, from), (last, to))) = editor
        .selection()
        .filter(|((first, _), (last, _))| (*first..=*last).contains(&row))
    {
        let columns =
            if row == first { from } else { 0 }..if row == last { to } else { usize::MAX };
        lay(
            columns,
            theme.style(Role::Selected).add_modifier(Modifier::REVERSED),
        );
    }
    styles
}
