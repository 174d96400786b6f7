//! The screen by its size: everything side by side, fewer columns, one column, or numbers only.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};

use super::{CHART, COMPLETION, DEVICE, GROUPS, LOG, METRICS, OVERLAY, PROMPT, SIGNAL};
use super::{completion, curves, device, groups, header, log, numbers, overlay, prompt, signal};
use crate::view::model::Model;
use crate::view::pane::pane;
use crate::view::role::Role;
use crate::view::watched::Watched;

/// Draws the screen.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let Some(run) = model.workbench.current_run() else {
        let text = "No run is chosen.\n\n1  the runs there are; enter opens one here\n5  start one";
        return sentence(model, frame, area, "live", text, Role::Text);
    };
    if !run.loaded {
        return match &run.error {
            Some(error) => {
                let text = format!("{} cannot be read.\n\n{error}\n\n1  choose another run\n5  start one", run.id());
                sentence(model, frame, area, "live", &text, Role::Bad)
            }
            None => sentence(model, frame, area, "live", &format!("{} is read ...", run.id()), Role::Faint),
        };
    }
    if model.zoomed {
        let [top, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        frame.render_widget(Paragraph::new(header::lines(model, run, top.width as usize)), top);
        return one_of(model, run, frame, rest, &[model.live.pane]);
    }
    match (area.width, area.height) {
        (0..60, _) => narrow(model, run, frame, area),
        (60..80, _) | (_, 0..16) => one_column(model, run, frame, area),
        (80..100, _) | (_, 16..25) => two_columns(model, run, frame, area),
        (_, 25..32) | (100..120, _) => medium(model, run, frame, area),
        _ => full(model, run, frame, area),
    }
}

/// The picture of a pane of the slot: of the one that has the focus, else of the first.
fn one_of(model: &Model, run: &Watched, frame: &mut Frame<'_>, area: Rect, slot: &[&'static str]) {
    if area.width == 0 || area.height == 0 {
        return;
    }
    let pane = slot.iter().find(|pane| **pane == model.live.pane).or(slot.first()).copied().unwrap_or(GROUPS);
    let focused = pane == model.live.pane;
    match pane {
        CHART => curves::draw_large(model, run, frame, area, focused),
        OVERLAY => overlay::draw(model, frame, area),
        COMPLETION => completion::draw(model, run, frame, area, focused),
        PROMPT => prompt::draw(model, run, frame, area, focused),
        SIGNAL => signal::draw(model, run, frame, area, focused),
        METRICS => curves::draw_small(model, run, frame, area, focused),
        DEVICE => device::draw(model, run, frame, area, focused),
        LOG => log::draw(model, run, frame, area, focused),
        _ => groups::draw(model, run, frame, area, focused),
    }
}

/// Rows that the groups of the step want: one each, the frame, a head and a sentence.
fn rows_of_groups(model: &Model, run: &Watched) -> u16 {
    let groups = super::board::of_step(model, model.live.at(run)).len();
    u16::try_from(groups).unwrap_or(u16::MAX).saturating_add(5)
}

fn full(model: &Model, run: &Watched, frame: &mut Frame<'_>, area: Rect) {
    let rest = area.height - 2;
    let (charts, events) = if rest >= 40 { (11, 8) } else { (8, 6) };
    let upper = ((rest - charts - events) / 2).max(rows_of_groups(model, run).min((rest - charts - events) * 2 / 3));
    let rows = [Constraint::Length(2), Constraint::Length(upper), Constraint::Fill(1), Constraint::Length(charts), Constraint::Length(events)];
    let [top, first, second, third, last] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(header::lines(model, run, top.width as usize)), top);
    let wide = area.width >= 150;
    let [chart, board] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(first);
    one_of(model, run, frame, chart, &[CHART, OVERLAY]);
    one_of(model, run, frame, board, &[GROUPS]);
    if wide {
        let [text, across, spread] = Layout::horizontal([Constraint::Fill(4), Constraint::Fill(3), Constraint::Fill(3)]).areas(second);
        one_of(model, run, frame, text, &[COMPLETION]);
        one_of(model, run, frame, across, &[PROMPT]);
        one_of(model, run, frame, spread, &[SIGNAL]);
    } else {
        let [text, spread] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(second);
        one_of(model, run, frame, text, &[COMPLETION]);
        one_of(model, run, frame, spread, &[SIGNAL, PROMPT]);
    }
    let [small, condition] = Layout::horizontal([Constraint::Fill(2), Constraint::Fill(1)]).areas(third);
    one_of(model, run, frame, small, &[METRICS]);
    one_of(model, run, frame, condition, &[DEVICE]);
    one_of(model, run, frame, last, &[LOG]);
}

fn medium(model: &Model, run: &Watched, frame: &mut Frame<'_>, area: Rect) {
    let upper = (area.height - 7) / 2;
    let rows = [Constraint::Length(2), Constraint::Length(upper), Constraint::Fill(1), Constraint::Length(5)];
    let [top, first, second, last] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(header::lines(model, run, top.width as usize)), top);
    let halves = || Layout::horizontal([Constraint::Fill(11), Constraint::Fill(9)]);
    let [chart, board] = halves().areas(first);
    let [text, spread] = halves().areas(second);
    one_of(model, run, frame, chart, &[CHART, OVERLAY]);
    one_of(model, run, frame, board, &[GROUPS]);
    one_of(model, run, frame, text, &[COMPLETION]);
    one_of(model, run, frame, spread, &[SIGNAL, PROMPT, METRICS, DEVICE]);
    one_of(model, run, frame, last, &[LOG]);
}

fn two_columns(model: &Model, run: &Watched, frame: &mut Frame<'_>, area: Rect) {
    let upper = (area.height - 2) / 2;
    let alerts = log::alerts(model, run, area.width as usize).into_iter().take(1).collect::<Vec<Line<'_>>>();
    let below = alerts.len() as u16;
    let rows = [Constraint::Length(2), Constraint::Length(upper), Constraint::Fill(1), Constraint::Length(below)];
    let [top, first, second, last] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(header::lines(model, run, top.width as usize)), top);
    let [chart, board] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(first);
    one_of(model, run, frame, chart, &[CHART, OVERLAY]);
    one_of(model, run, frame, board, &[GROUPS]);
    one_of(model, run, frame, second, &[COMPLETION, PROMPT, SIGNAL, METRICS, DEVICE, LOG]);
    frame.render_widget(Paragraph::new(alerts), last);
}

fn one_column(model: &Model, run: &Watched, frame: &mut Frame<'_>, area: Rect) {
    let board = rows_of_groups(model, run).min(area.height.saturating_sub(3) / 2).max(3);
    let rows = [Constraint::Length(2), Constraint::Length(1), Constraint::Length(board), Constraint::Fill(1)];
    let [top, reward, groups, rest] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(header::lines(model, run, top.width as usize)), top);
    frame.render_widget(Paragraph::new(curves::one_line(model, run, reward.width as usize)), reward);
    one_of(model, run, frame, groups, &[GROUPS]);
    one_of(model, run, frame, rest, &[COMPLETION, CHART, OVERLAY, PROMPT, SIGNAL, METRICS, DEVICE, LOG]);
}

fn narrow(model: &Model, run: &Watched, frame: &mut Frame<'_>, area: Rect) {
    let lines = numbers::lines(model, run, area.width as usize);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn sentence(model: &Model, frame: &mut Frame<'_>, area: Rect, title: &str, text: &str, role: Role) {
    let block = pane(&model.theme, title, true);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let lines: Vec<Line<'_>> = text.lines().map(|line| Line::styled(line.to_owned(), model.theme.style(role))).collect();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}
