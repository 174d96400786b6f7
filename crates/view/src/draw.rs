//! Draws the whole frame: tabs at the top, the screen, and a line of hints or notices at the bottom.

use crossterm::event::KeyEvent;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Tabs};
use unicode_width::UnicodeWidthStr;

use super::action::ActionInfo;
use super::app::{self, Model};
use super::key_chord::Chord;
use super::messages::Notice;
use super::popup::Popup;
use super::screens::Screen;
use super::style_role::Role;
use super::theme::Theme;
use super::widgets::text_width::{fitted, padded};
use crate::format::short_id;

const MIN_SIZE: (u16, u16) = (40, 10);
/// Narrower terminals have no room for the last command.
const MIN_COMMAND_COLUMNS: usize = 60;

pub fn draw(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width == 0 || area.height == 0 {
        return;
    }
    frame.render_widget(
        Block::new().style(model.shared.theme.style(Role::Text)),
        area,
    );
    if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
        frame.render_widget(Paragraph::new(one_line(model)), Rect { height: 1, ..area });
        return;
    }
    let [top, body, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    header(model, frame, top);
    model.screen().draw(&model.shared, frame, body);
    frame.render_widget(
        Paragraph::new(footer(model, bottom.width)).style(model.shared.theme.style(Role::Bar)),
        bottom,
    );
    if let Some(popup) = &model.shared.popup {
        popup.draw(&model.shared.theme, frame, body);
    }
    if model.shared.theme.ascii {
        in_ascii(frame.buffer_mut());
    }
}

/// The line shown in a terminal too small for any screen.
fn one_line(model: &Model) -> String {
    match model.shared.current_run() {
        Some(run) => {
            let reward = run.history.metric_at("reward", run.history.last_step);
            let reward = reward.map_or_else(String::new, |reward| format!(" reward {reward:.2}"));
            format!(
                "{} {} step {}{reward}",
                run.id(),
                run.status().name(),
                run.history.last_step
            )
        }
        None => "grpo-tui: terminal too small (minimum 40x10)".to_owned(),
    }
}

/// The tabs with their screens: full titles if they fit, else numbers with the current title. The current one is in
/// brackets.
fn tabs(model: &Model, columns: u16) -> Vec<(String, Screen)> {
    let tab = |(index, screen): (usize, Screen), full: bool| {
        let title = app::about(screen).title;
        let text = match (screen == model.shared.screen, full) {
            (true, _) => format!("[{} {title}]", index + 1),
            (false, true) => format!(" {} {title} ", index + 1),
            (false, false) => format!(" {} ", index + 1),
        };
        (text, screen)
    };
    let all = |full| {
        Screen::ALL
            .into_iter()
            .enumerate()
            .map(move |each| tab(each, full))
            .collect::<Vec<_>>()
    };
    let full = all(true);
    if columns_of(&full) <= columns as usize {
        full
    } else {
        all(false)
    }
}

fn columns_of(tabs: &[(String, Screen)]) -> usize {
    tabs.iter().map(|(text, _)| text.width()).sum()
}

pub fn tab_at(model: &Model, column: u16) -> Option<Screen> {
    let mut end = 0;
    tabs(model, model.shared.size.0)
        .into_iter()
        .find_map(|(text, screen)| {
            end += text.width();
            ((column as usize) < end).then_some(screen)
        })
}

/// The tabs, and right of them the task and the run as far as they fit.
fn header(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let (theme, tabs) = (&model.shared.theme, tabs(model, area.width));
    let bar = theme.style(Role::Bar);
    let room = usize::from(area.width).saturating_sub(columns_of(&tabs));
    let place = places(model)
        .into_iter()
        .find(|place| place.width() + 2 <= room);
    frame.render_widget(
        Line::styled(
            place.map_or_else(String::new, |place| format!("{place} ")),
            bar,
        )
        .right_aligned(),
        area,
    );
    let here = tabs
        .iter()
        .position(|(_, screen)| *screen == model.shared.screen);
    let tabs = Tabs::new(tabs.into_iter().map(|(text, _)| text))
        .select(here)
        .style(bar)
        .highlight_style(bar.patch(theme.style(Role::Accent)))
        .divider("")
        .padding("", "");
    frame.render_widget(tabs, area);
}

/// The task, and the current run with its state: the longest version that fits.
pub fn places(model: &Model) -> Vec<String> {
    if let Some(shown) = model.screen().shown_instead() {
        return shown;
    }
    let task = model
        .shared
        .task
        .as_ref()
        .map_or_else(|| "no task".to_owned(), |task| task.task.name.clone());
    let unsaved = if model.shared.draft.is_changed() {
        "*"
    } else {
        ""
    };
    let task = format!("{task}{unsaved}");
    // Traffic is worth showing on a slow link only.
    let slow = model.shared.options.low_bandwidth || model.shared.options.remote;
    let link = if slow && model.shared.bytes_per_second >= 1000 {
        format!("{} kB/s  ", model.shared.bytes_per_second / 1000)
    } else {
        String::new()
    };
    let Some(run) = model.shared.current_run() else {
        return vec![format!("{link}{task}"), task];
    };
    let (id, status) = (run.id(), run.status().name());
    let short = short_id(&id);
    let step = run.history.last_step;
    let of = model
        .shared
        .run_of_other_task()
        .map_or_else(String::new, |run| format!(" of {}", run.file().task));
    vec![
        format!("{link}{task}  {id}{of} {status}, step {step}"),
        format!("{task}  {id}{of} {status}"),
        format!("{task}  {short}{of} {status}, step {step}"),
        format!("{short} {status} {step}"),
        format!("{short} {status}"),
        status.to_owned(),
    ]
}

/// A notice, else the keys of the open popup, else those of the available actions.
fn footer(model: &Model, columns: u16) -> Line<'static> {
    match (
        model.shared.notices.shown(model.shared.now_ms),
        &model.shared.popup,
    ) {
        (Some(notice), _) => news(model, notice, columns as usize),
        (None, Some(popup)) => {
            let hint = |(key, hint)| {
                hint_spans(&model.shared.theme, format!(" {key}"), format!(" {hint} "))
            };
            popup.hints().into_iter().flat_map(hint).collect()
        }
        (None, None) => hints(model, columns),
    }
}

fn hint_spans(theme: &Theme, key: String, hint: String) -> [Span<'static>; 2] {
    let bar = theme.style(Role::Bar);
    [
        Span::styled(key, bar.patch(theme.style(Role::Key))),
        Span::styled(hint, bar),
    ]
}

/// The bottom line.
struct Hints {
    /// Those that fit, from the left.
    found: Vec<Hint>,
    /// The last command line; empty before the first, and where there is no room.
    command: String,
    /// Columns left of it.
    command_left: usize,
    /// At the right, always there.
    help: Option<Hint>,
}

/// The hint of an action in the bottom line.
struct Hint {
    action: &'static ActionInfo,
    /// Columns left of it.
    left: usize,
    key: String,
    text: String,
}

impl Hint {
    fn width(&self) -> usize {
        self.key.width() + self.text.width()
    }
}

fn last_command(model: &Model, columns: usize) -> String {
    let Some(last) = model.shared.commands.all().last() else {
        return String::new();
    };
    let (room, text) = match columns {
        _ if columns < MIN_COMMAND_COLUMNS => return String::new(),
        // The log has it whole.
        ..100 => {
            let text = last.text.strip_prefix("grpo-tui ");
            (columns * 3 / 10, text.unwrap_or(&last.text))
        }
        _ => (columns * 2 / 5, last.text.as_str()),
    };
    format!(" $ {} ", fitted(text, room - 4))
}

/// The keys of the available actions, and the last command; the key of help is always there.
fn hints(model: &Model, columns: u16) -> Line<'static> {
    let (hints, theme) = (hints_in(model, columns), &model.shared.theme);
    let mut line = Line::default();
    let push = |line: &mut Line<'static>, hint: Hint| {
        line.push_span(" ".repeat(hint.left - line.width()));
        line.spans.extend(hint_spans(theme, hint.key, hint.text));
    };
    { hints.found.into_iter() }.for_each(|hint| push(&mut line, hint));
    if !hints.command.is_empty() {
        let left = hints.command_left.saturating_sub(line.width());
        let style = theme.style(Role::Bar).patch(theme.style(Role::Faint));
        line.push_span(" ".repeat(left));
        line.push_span(Span::styled(hints.command, style));
    }
    { hints.help.into_iter() }.for_each(|hint| push(&mut line, hint));
    line
}

/// The same in words: `enter open`.
pub fn hint_texts(model: &Model, columns: u16) -> impl Iterator<Item = String> {
    let hints = hints_in(model, columns);
    let all = hints.found.into_iter().chain(hints.help);
    all.map(|hint| (hint.key + &hint.text).trim().to_owned())
}

/// The action whose hint is at a column of the bottom line; of a message, the one that shows all messages.
pub fn hint_at(model: &Model, column: u16) -> Option<&'static ActionInfo> {
    if model.shared.notices.shown(model.shared.now_ms).is_some() {
        return app::action("notices");
    }
    let (hints, column) = (hints_in(model, model.shared.size.0), usize::from(column));
    let is_at = |left: usize, width: usize| (left..left + width).contains(&column);
    if is_at(hints.command_left, hints.command.width()) {
        return app::action("commands");
    }
    { hints.found.into_iter() }
        .chain(hints.help)
        .find(|hint| is_at(hint.left, hint.width()))
        .map(|hint| hint.action)
}

pub fn popup_hint_at(popup: &Popup, column: u16) -> Option<KeyEvent> {
    let mut end = 0;
    let (key, _) = popup.hints().into_iter().find(|(key, hint)| {
        end += key.width() + hint.width() + 3;
        usize::from(column) < end
    })?;
    Chord::parse(key).map(|chord| KeyEvent::new(chord.code, chord.modifiers))
}

fn hints_in(model: &Model, columns: u16) -> Hints {
    let columns = usize::from(columns);
    let hint = |(action, keys): &(&'static ActionInfo, Vec<Chord>)| {
        Some(Hint {
            action,
            left: 0,
            key: format!(" {}", keys.first()?),
            text: format!(" {} ", model.hint(action)),
        })
    };
    let here = model.keys_here();
    let is_help = |action: &ActionInfo| action.id == "help";
    let help = { here.iter() }
        .find(|(action, _)| is_help(action))
        .and_then(hint);
    let help_left = columns.saturating_sub(help.as_ref().map_or(0, Hint::width));
    let command = last_command(model, columns);
    let command_left = help_left.saturating_sub(command.width());
    let hinted = |action: &ActionInfo| {
        !model.hint(action).is_empty() && !is_help(action) && model.blocked(action).is_none()
    };
    let mut left = 0;
    let mut found = Vec::new();
    for part in here
        .iter()
        .filter(|(action, _)| hinted(action))
        .filter_map(hint)
    {
        let end = left + part.width();
        if end <= command_left {
            found.push(Hint { left, ..part });
            left = end;
        }
    }
    Hints {
        found,
        command,
        command_left,
        help: help.map(|help| Hint {
            left: help_left,
            ..help
        }),
    }
}

/// The latest notice; if it is too long or others came with it, with the key that shows all of them.
fn news(model: &Model, notice: &Notice, columns: usize) -> Line<'static> {
    let theme = &model.shared.theme;
    let (mark, role) = notice.level.look();
    let mark = format!(" {mark} ");
    let style = theme.style(Role::Bar).patch(theme.style(role));
    let text = notice.text.replace(['\n', '\r', '\t'], " ");
    let others = model.shared.notices.unread().saturating_sub(1);
    if others == 0 && mark.width() + text.width() <= columns {
        return Line::styled(format!("{mark}{text}"), style);
    }
    let more = app::action("notices")
        .map(|action| model.shared.keymap.shown(action))
        .filter(|key| !key.is_empty());
    let more = more.map_or_else(String::new, |key| match others {
        0 => format!(" {key} more "),
        others => format!(" {key} {others} more "),
    });
    let room = columns.saturating_sub(mark.width() + more.width() + 1);
    Line::from(vec![
        Span::styled(format!("{mark}{}", padded(&text, room + 1, false)), style),
        Span::styled(more, theme.style(Role::Bar).patch(theme.style(Role::Key))),
    ])
}

/// Replaces every non-ASCII character: a terminal without Unicode would show several and shift the rest of the row.
fn in_ascii(buffer: &mut Buffer) {
    for cell in buffer
        .content
        .iter_mut()
        .filter(|cell| !cell.symbol().is_ascii())
    {
        let plain = ascii_of(cell.symbol()).unwrap_or("?");
        cell.set_symbol(plain);
    }
}

/// A text with its symbols in ASCII; `all`: and every other character as `?`.
pub fn symbols_in_ascii(text: &str, all: bool) -> String {
    text.split("")
        .map(|letter| match ascii_of(letter) {
            Some(plain) => plain,
            None if all && !letter.is_ascii() => "?",
            None => letter,
        })
        .collect()
}

/// The ASCII character for a symbol that the view draws, also where it is read aloud; none for other text.
fn ascii_of(symbol: &str) -> Option<&'static str> {
    Some(match symbol {
        "✗" | "≠" => "x",
        "✓" | "▾" | "▼" | "↓" => "v",
        "▲" => "!",
        "▸" | "›" | "→" | "▶" => ">",
        "‹" | "←" | "◂" | "↔" => "<",
        "▴" | "↑" => "^",
        "…" => "~",
        "·" | "↪" => ".",
        "●" | "★" => "*",
        "○" | "▄" => "o",
        "◆" => "@",
        "◇" => "%",
        "░" => ":",
        "◐" | "┬" | "└" | "┤" => "+",
        "◑" | "┄" | "─" => "-",
        "◌" => "~",
        "■" | "█" | "┃" | "✎" => "#",
        "│" | "┊" => "|",
        "‖" | "≡" | "▆" | "▓" => "=",
        "∅" => "0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_ascii_is_left_and_every_letter_keeps_its_place() {
        let mut buffer = Buffer::with_lines(["base → ü… 語x"]);
        in_ascii(&mut buffer);
        let text: String = buffer
            .content
            .iter()
            .map(ratatui::buffer::Cell::symbol)
            .collect();
        assert_eq!(text, "base > ?~ ? x");
    }
}
