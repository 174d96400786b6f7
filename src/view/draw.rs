//! The whole picture: tabs at the top, the screen, and one line of hints or news at the bottom. Only reads.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::model::{Model, Screen};
use super::role::Role;
use super::{action, popup, screens};

const SMALLEST: (u16, u16) = (40, 10);

/// Draws everything.
pub fn draw(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width == 0 || area.height == 0 {
        return;
    }
    frame.render_widget(Block::new().style(model.theme.style(Role::Text)), area);
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        frame.render_widget(Paragraph::new(one_line(model)), Rect { height: 1, ..area });
        return;
    }
    let [top, body, bottom] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(header(model, top.width)).style(model.theme.style(Role::Bar)), top);
    (screens::of(model.screen).draw)(model, frame, body);
    frame.render_widget(Paragraph::new(footer(model, bottom.width)).style(model.theme.style(Role::Bar)), bottom);
    popup::draw(model, frame, body);
}

/// All that a very small terminal can say.
fn one_line(model: &Model) -> String {
    match model.workbench.current_run() {
        Some(run) => {
            let reward = run.history.metrics.get("reward").and_then(crate::run::Series::last);
            let reward = reward.map_or_else(String::new, |reward| format!(" reward {reward:.2}"));
            format!("{} {} step {}{reward}", run.id(), run.status().name(), run.history.last_step)
        }
        None => "grpo-tui: make this terminal larger".to_owned(),
    }
}

/// The tabs, as text with their screen: full titles where they fit, else numbers with the current title.
fn tabs(model: &Model, columns: u16) -> Vec<(String, Screen)> {
    let full: Vec<(String, Screen)> = Screen::ALL
        .into_iter()
        .enumerate()
        .map(|(index, screen)| (format!(" {} {} ", index + 1, screens::of(screen).title), screen))
        .collect();
    if full.iter().map(|(text, _)| text.width()).sum::<usize>() <= columns as usize {
        return full;
    }
    let short = |(index, screen): (usize, Screen)| match screen == model.screen {
        true => (format!(" {} {} ", index + 1, screens::of(screen).title), screen),
        false => (format!(" {} ", index + 1), screen),
    };
    Screen::ALL.into_iter().enumerate().map(short).collect()
}

/// The screen whose tab stands at a column of the header.
pub fn tab_at(model: &Model, column: u16) -> Option<Screen> {
    let mut end = 0;
    tabs(model, model.size.0).into_iter().find_map(|(text, screen)| {
        end += text.width();
        ((column as usize) < end).then_some(screen)
    })
}

fn header(model: &Model, columns: u16) -> Line<'static> {
    let theme = &model.theme;
    let tabs = tabs(model, columns);
    let used: usize = tabs.iter().map(|(text, _)| text.width()).sum();
    let mut spans: Vec<Span<'static>> = tabs
        .into_iter()
        .map(|(text, screen)| match screen == model.screen {
            true => Span::styled(text, theme.style(Role::Accent).add_modifier(ratatui::style::Modifier::REVERSED)),
            false => Span::styled(text, theme.style(Role::Bar)),
        })
        .collect();
    let place = place(model);
    let room = (columns as usize).saturating_sub(used);
    if place.width() + 1 < room {
        spans.push(Span::raw(" ".repeat(room - place.width() - 1)));
        spans.push(Span::styled(place, theme.style(Role::Bar)));
    }
    Line::from(spans)
}

/// The task, and the current run with its state.
fn place(model: &Model) -> String {
    let task = model.workbench.task.as_ref().map_or_else(|| "no task".to_owned(), |task| task.task.name.clone());
    let unsaved = if model.workbench.draft.is_changed() { "*" } else { "" };
    match model.workbench.current_run() {
        Some(run) => format!("{task}{unsaved}  {} {}", run.id(), run.status().name()),
        None => format!("{task}{unsaved}"),
    }
}

fn footer(model: &Model, columns: u16) -> Line<'static> {
    let theme = &model.theme;
    if let Some(notice) = model.notices.shown(model.now_ms) {
        let role = if notice.is_complaint { Role::Bad } else { Role::Good };
        let mark = match notice.is_complaint {
            true => theme.glyph(" ✗ ", " ! "),
            false => theme.glyph(" ✓ ", " . "),
        };
        return Line::styled(format!("{mark}{}", notice.text), theme.style(role));
    }
    let mut spans = Vec::new();
    let mut used = 0;
    for action in action::here(model).into_iter().filter(|action| !action.hint.is_empty() && (action.blocked)(model).is_none()) {
        let key = model.keymap.shown(action);
        let width = key.width() + action.hint.width() + 3;
        if key.is_empty() || used + width > columns as usize {
            continue;
        }
        used += width;
        spans.push(Span::styled(format!(" {key}"), theme.style(Role::Key)));
        spans.push(Span::styled(format!(" {} ", action.hint), theme.style(Role::Bar)));
    }
    Line::from(spans)
}
