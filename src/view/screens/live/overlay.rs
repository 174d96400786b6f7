//! Other runs' curves over this one's: chosen from the runs that are followed.

use std::path::PathBuf;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{CHART, OVERLAY};
use crate::view::message::Command;
use crate::view::model::Model;
use crate::view::pane::pane;
use crate::view::role::Role;

/// Runs that can be chosen.
fn others(model: &Model) -> Vec<&PathBuf> {
    model.workbench.watched.keys().filter(|path| Some(*path) != model.workbench.current.as_ref()).collect()
}

/// Why there is nothing to choose.
pub(super) fn blocked(model: &Model) -> Option<String> {
    let none = model.workbench.current_run().is_some() && others(model).is_empty();
    let hint = || "no other run is followed: open one on screen 1, then come back to this one".to_owned();
    super::actions::no_run(model).or_else(|| none.then(hint))
}

/// Begin to choose, or end it.
pub(super) fn open(model: &mut Model) -> Vec<Command> {
    model.live.pane = if model.live.pane == OVERLAY { CHART } else { OVERLAY };
    Vec::new()
}

/// Move in the list.
pub(super) fn go(model: &mut Model, by: isize) -> Vec<Command> {
    let count = others(model).len();
    model.live.overlay_cursor.go(by, count);
    Vec::new()
}

/// Lay the run under the cursor over the chart, or take it away.
pub(super) fn toggle(model: &mut Model) -> Vec<Command> {
    let others = others(model);
    let Some(run) = model.live.overlay_cursor.at(others.len()).and_then(|index| others.get(index)).map(|run| (*run).clone()) else {
        return Vec::new();
    };
    let overlay = &mut model.workbench.overlay;
    match overlay.iter().position(|other| *other == run) {
        Some(index) => _ = overlay.remove(index),
        None => overlay.push(run),
    }
    Vec::new()
}

/// Draws the list in place of the chart.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let theme = &model.theme;
    let block = pane(theme, "runs over the chart", true);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let others = others(model);
    let at = model.live.overlay_cursor.at(others.len());
    let first = model.live.overlay_cursor.first(inside.height as usize, others.len());
    let mut lines = Vec::new();
    for (index, path) in others.iter().enumerate().skip(first).take(inside.height as usize) {
        let Some(run) = model.workbench.watched.get(*path) else { continue };
        let chosen = if model.workbench.overlay.contains(*path) { "[x]" } else { "[ ]" };
        let mark = if at == Some(index) { theme.glyph("▸", ">") } else { " " };
        let name = run.directory.as_ref().map(|run| run.file().name.clone()).unwrap_or_default();
        let line = Line::from(vec![
            Span::styled(format!("{mark} {chosen} "), theme.style(Role::Accent)),
            Span::raw(run.id()),
            Span::styled(format!("  step {}  {}", run.history.last_step, super::words::one_line(&name)), theme.style(Role::Faint)),
        ]);
        lines.push(if at == Some(index) { line.patch_style(theme.style(Role::Selected)) } else { line });
    }
    frame.render_widget(Paragraph::new(lines), inside);
}
